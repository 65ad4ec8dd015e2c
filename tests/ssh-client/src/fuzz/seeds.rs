//! What fuzzing begins with: what real clients send, as the targets read it.

use aws_lc_rs::signature::UnparsedPublicKey;
use tidegate_ssh::message::number;
use tidegate_ssh::wire::Writer;

use super::plain::SESSION;
use super::sealed::host_key;
use crate::share::Private;
use crate::{Key, Offer, Seeded};

/// Two bytes of length in front.
fn piece(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).expect("two bytes");
    [&length.to_be_bytes(), message].concat()
}

fn message(build: impl for<'a, 'b> FnOnce(&'a mut Writer<'b>) -> &'a mut Writer<'b>) -> Vec<u8> {
    let mut message = Vec::new();
    build(&mut Writer::new(&mut message));
    message
}

/// For the target of that name.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    match target {
        "version" => version(),
        "kexinit" => kexinit(),
        "packets" => packets(),
        "auth" => auth(),
        _ => channels(),
    }
}

fn version() -> Vec<Vec<u8>> {
    let mut first = crate::Client::new(Offer::default()).take();
    first.truncate(400);
    let long = [&b"SSH-2.0-"[..], &[b'x'; 245]].concat();
    [&b"SSH-2.0-PuTTY_Release_0.78\n"[..], b"SSH-1.99-x\r\n", b"SSH-1.5-x\r\n", &first, &long]
        .iter()
        .map(|line| [&[3][..], line].concat())
        .collect()
}

fn share(method: &str) -> Vec<u8> {
    let generated = Private::generate(method, &mut Seeded::new(0)).expect("a share");
    let (_, share) = generated.expect("a method of ours");
    message(|w| w.u8(number::KEX_INIT).string(share))
}

fn kexinit() -> Vec<Vec<u8>> {
    let methods = ["mlkem768x25519-sha256", "curve25519-sha256", "ecdh-sha2-nistp256"];
    let mut seeds = Vec::new();
    for method in methods {
        for guesses in [false, true] {
            let offer =
                Offer { kex: vec![method], guesses, kexguess2: guesses, ..Offer::default() };
            let kexinit = offer.kexinit([0; 16], true);
            seeds.push(
                [piece(&kexinit[1..]), piece(&share(method)), piece(&[number::NEWKEYS])].concat(),
            );
        }
    }
    let dropbear = Offer {
        kex: vec!["sntrup761x25519-sha512", "curve25519-sha256"],
        host_keys: vec!["rsa-sha2-512", "ecdsa-sha2-nistp256", "ssh-ed25519"],
        strict: false,
        guesses: true,
        ..Offer::default()
    };
    let kexinit = dropbear.kexinit([0; 16], true);
    let share = piece(&share("curve25519-sha256"));
    seeds.push([piece(&kexinit[1..]), share.clone(), share, piece(&[21])].concat());
    seeds
}

fn packets() -> Vec<Vec<u8>> {
    let service = message(|w| w.u8(number::SERVICE_REQUEST).string("ssh-userauth"));
    let ping = message(|w| w.u8(number::PING).string("data"));
    let ignore = message(|w| w.u8(number::IGNORE).string("data"));
    let bye = message(|w| w.u8(number::DISCONNECT).u32(11).string("bye").string(""));
    let sealed = |message: &[u8]| [vec![0], piece(message)].concat();
    let mut seeds = Vec::new();
    for cipher in [0, 1] {
        for strict in [0, 1] {
            let begin = vec![cipher, strict];
            seeds.push([begin.clone(), sealed(&service), sealed(&ping), sealed(&bye)].concat());
            seeds.push([begin.clone(), sealed(&ignore), vec![3, 3], sealed(&ignore)].concat());
            // A packet with less padding than there must be, and one that is not sealed.
            let short = [vec![1, 0], piece(&[3; 16])].concat();
            seeds.push([begin.clone(), sealed(&ignore), short].concat());
            seeds.push([begin, vec![2], piece(&[0, 0, 0, 16, 0, 0])].concat());
        }
    }
    seeds
}

fn auth() -> Vec<Vec<u8>> {
    let key = Key::numbered(0);
    let bound = host_key();
    let service = message(|w| w.u8(number::SERVICE_REQUEST).string("ssh-userauth"));
    let none = message(|w| {
        w.u8(number::USERAUTH_REQUEST).string("alice").string("ssh-connection").string("none")
    });
    let probe = key.request("alice", None, None);
    let login = key.request("alice", Some(&SESSION), None);
    let hostbound = key.request("alice", Some(&SESSION), Some(bound.blob()));
    let blob = |build: &dyn Fn(&mut Writer<'_>)| {
        let mut blob = Vec::new();
        build(&mut Writer::new(&mut blob));
        blob
    };
    let signed = |algorithm: &str, blob: &[u8], raw: &[u8]| {
        message(|w| {
            w.u8(number::USERAUTH_REQUEST).string("alice").string("ssh-connection");
            w.string("publickey").bool(true).string(algorithm).string(blob);
            w.nested(|w| {
                w.string(algorithm).string(raw);
            })
        })
    };
    let rsa = blob(&|w| {
        w.string("ssh-rsa").mpint(&[1, 0, 1]).mpint(&[0xc3; 256]);
    });
    let point = [&[4][..], &[0x55; 64]].concat();
    let ecdsa = blob(&|w| {
        w.string("ecdsa-sha2-nistp256").string("nistp256").string(&point);
    });
    let halves = blob(&|w| {
        w.mpint(&[0x80; 32]).mpint(&[1; 32]);
    });
    let seeds = [
        vec![none.clone(), probe, login.clone()],
        vec![hostbound, none],
        vec![signed("rsa-sha2-512", &rsa, &[1; 256]), login],
        vec![signed("ecdsa-sha2-nistp256", &ecdsa, &halves)],
    ];
    // The signature of a login is a right one, else this seed is worth nothing.
    let whole = &seeds[0][2];
    let covered = &whole[..whole.len() - 4 - 4 - 11 - 4 - 64];
    let covered = message(|w| w.string(SESSION).bytes(covered));
    let verifier =
        UnparsedPublicKey::new(&aws_lc_rs::signature::ED25519, &key.blob[key.blob.len() - 32..]);
    verifier.verify(&covered, &whole[whole.len() - 64..]).expect("a right signature");
    let all = |messages: &Vec<Vec<u8>>| {
        let pieces: Vec<_> = messages.iter().map(|message| piece(message)).collect();
        [piece(&service), pieces.concat()].concat()
    };
    seeds.iter().map(all).collect()
}

fn channels() -> Vec<Vec<u8>> {
    let say = |message: Vec<u8>| [vec![0], piece(&message)].concat();
    let op = |number: u8, rest: &[u8]| [&[0x80 + (number + 20 - 0x80 % 20) % 20], rest].concat();
    let open = |kind: &str, window: u32| {
        message(|w| {
            w.u8(number::CHANNEL_OPEN).string(kind).u32(5).u32(window).u32(1000);
            w.string("kiosk-17").u32(22).string("127.0.0.1").u32(65535)
        })
    };
    let on = |kind: u8, rest: &[u8]| message(|w| w.u8(kind).u32(0).bytes(rest));
    let ask = |name: &str, rest: &[u8]| {
        message(|w| w.u8(number::CHANNEL_REQUEST).u32(0).string(name).bool(true).bytes(rest))
    };
    let global = |name: &str, rest: &[u8]| {
        message(|w| w.u8(number::GLOBAL_REQUEST).string(name).bool(true).bytes(rest))
    };
    let data = |count: usize| message(|w| w.u8(94).u32(0).string(vec![0; count]));
    let forward = message(|w| w.string("localhost").u32(0));
    vec![
        [
            say(open("direct-tcpip", 100)),
            op(0, &[0]),
            say(data(100)),
            op(7, &[0, 0, 0, 0, 100]),
            op(2, &[0, 20]),
            op(18, &[]),
            say(on(93, &[0, 0, 4, 0])),
            op(10, &[0, 3]),
            op(18, &[]),
            say(on(96, &[])),
            op(4, &[0]),
            op(5, &[0]),
            op(18, &[]),
            say(on(97, &[])),
        ]
        .concat(),
        [
            say(message(|w| w.u8(90).string("session").u32(5).u32(1000).u32(1000))),
            say(ask("pty-req", &forward)),
            say(ask("exec", &[0, 0, 0, 2, b'l', b's'])),
            op(9, &[0, 0]),
            op(3, &[0, 0, 2, 1, 2]),
            op(8, &[0]),
            op(5, &[0]),
            op(18, &[]),
            say(ask("winadj@putty.projects.tartarus.org", &[])),
            say(on(97, &[])),
        ]
        .concat(),
        [
            say(global("tcpip-forward", &forward)),
            say(global("keepalive@openssh.com", &[])),
            say(global("cancel-tcpip-forward", &forward)),
            say(global("hostkeys-prove-00@openssh.com", &[0, 0, 0, 1, 1])),
            op(12, &[0]),
            op(13, &[0]),
            op(11, &[]),
            op(11, &[]),
            say(message(|w| w.u8(91).u32(0).u32(9).u32(1000).u32(1000))),
            say(message(|w| w.u8(92).u32(1).u32(2).string("no").string(""))),
            op(14, &[]),
            say(vec![81]),
            op(17, &[]),
            op(16, &[255]),
        ]
        .concat(),
        [
            say(open("direct-tcpip", 0)),
            op(6, &[0]),
            say(open("direct-tcpip", u32::MAX)),
            op(0, &[1]),
            say(on(95, &[0, 0, 0, 1, 0, 0, 0, 1, 1])),
            say(on(93, &[0xff; 4])),
        ]
        .concat(),
    ]
}
