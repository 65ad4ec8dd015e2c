//! Who gets in, and who does not (RFC 4252).

use super::keys::{self, TestKey, request};
use super::{Peer, SESSION, host_key, message, word};
use crate::auth::{UserKey, verify};
use crate::config::Config;
use crate::event::Event;
use crate::message::{DisconnectCode, Fatal, number};
use crate::wire::{Reader, Writer};

fn at_auth() -> Peer {
    let mut peer = Peer::new();
    peer.say(|w| w.u8(number::SERVICE_REQUEST).string("ssh-userauth")).unwrap();
    assert_eq!(peer.heard_one(), message(|w| w.u8(number::SERVICE_ACCEPT).string("ssh-userauth")));
    peer
}

fn knowing(key: &TestKey) -> Peer {
    let mut peer = at_auth();
    peer.door.keys.push(key.blob.clone());
    peer
}

fn failure() -> Vec<u8> {
    message(|w| w.u8(number::USERAUTH_FAILURE).string("publickey").bool(false))
}

fn assert_refused(peer: &mut Peer, message: &[u8]) {
    assert!(matches!(peer.hand(message), Ok(None)));
    assert_eq!(peer.heard_one(), failure());
    assert!(!peer.core.is_authenticated());
}

fn assert_in(done: Result<Option<Event>, Fatal>, user: &str, key: &TestKey) {
    let Ok(Some(Event::Authenticated { user: who, key: blob })) = done else {
        panic!("{} is refused: {done:?}", key.algorithm)
    };
    assert_eq!((who.as_str(), &blob), (user, &key.blob));
}

#[test]
fn every_kind_of_key_logs_in_asked_first_or_not() {
    for key in keys::all() {
        let mut peer = knowing(&key);
        assert!(matches!(peer.hand(&key.probe("alice")), Ok(None)));
        let asked = peer.heard_one();
        let want =
            message(|w| w.u8(number::USERAUTH_PK_OK).string(key.algorithm).string(&key.blob));
        assert_eq!(asked, want);
        let done = peer.hand(&key.login("alice", &SESSION));
        assert_in(done, "alice", &key);
        let heard = peer.heard();
        assert_eq!(heard[0], [number::USERAUTH_SUCCESS]);
        let announced = message(|w| {
            w.u8(number::GLOBAL_REQUEST).string("hostkeys-00@openssh.com").bool(false);
            w.string(host_key(1).blob()).string(host_key(2).blob())
        });
        assert_eq!(heard[1..], [announced]);

        let mut peer = knowing(&key);
        let done = peer.hand(&key.login("alice", &SESSION));
        assert_in(done, "alice", &key);
        // RFC 4252 section 5.1.
        let late = key.login("alice", &SESSION);
        peer.heard();
        assert!(matches!(peer.hand(&late), Ok(None)));
        assert!(peer.heard().is_empty());
    }
}

#[test]
fn hostbound_signatures_name_the_host_key_of_the_exchange() {
    let key = keys::ed25519();
    let mut peer = knowing(&key);
    assert_refused(&mut peer, &key.hostbound("alice", &SESSION, host_key(2).blob()));
    assert_refused(&mut peer, &key.hostbound("alice", &SESSION, b""));
    let done = peer.hand(&key.hostbound("alice", &SESSION, host_key(1).blob()));
    assert_in(done, "alice", &key);
    // Bound to the right key, but the signature is over another.
    let mut peer = knowing(&key);
    let mut forged = key.hostbound("alice", &SESSION, host_key(2).blob());
    let (ours, other) = (host_key(1), host_key(2));
    let at = forged.windows(other.blob().len()).position(|it| it == other.blob()).unwrap();
    forged[at..at + ours.blob().len()].copy_from_slice(ours.blob());
    assert_refused(&mut peer, &forged);
}

#[test]
fn signatures_of_other_sessions_users_keys_and_algorithms_are_refused() {
    let (key, other) = (keys::ed25519(), keys::ed25519());
    let mut peer = knowing(&key);
    assert_refused(&mut peer, &key.login("alice", &[8; 32]));
    assert_refused(&mut peer, &key.login("alice", &[]));
    // Made for bob, sent for alice.
    let bob = request("bob", true, key.algorithm, &key.blob);
    let mut alice = request("alice", true, key.algorithm, &key.blob);
    Writer::new(&mut alice).string(key.signature(&SESSION, &bob));
    assert_refused(&mut peer, &alice);
    let mut peer = knowing(&key);
    let mut by_other = request("alice", true, key.algorithm, &key.blob);
    let signature = other.signature(&SESSION, &by_other);
    Writer::new(&mut by_other).string(signature);
    assert_refused(&mut peer, &by_other);

    let key = keys::rsa("rsa-sha2-256");
    for inner in ["rsa-sha2-512", "ssh-rsa", "ssh-rsa-sha256@ssh.com", ""] {
        let mut peer = knowing(&key);
        let mut login = request("alice", true, "rsa-sha2-256", &key.blob);
        let signature = key.signature_as(inner, &SESSION, &login);
        Writer::new(&mut login).string(signature);
        assert_refused(&mut peer, &login);
    }
}

#[test]
fn sha1_short_rsa_fido_and_certificates_fail_before_the_door_is_asked() {
    let ed25519 = keys::ed25519();
    let long = keys::rsa("rsa-sha2-512");
    let rsa = |e: &[u8], n: &[u8]| {
        let mut blob = Vec::new();
        Writer::new(&mut blob).string("ssh-rsa").mpint(e).mpint(n);
        blob
    };
    let number = |bits: usize| [&[1 << ((bits - 1) % 8)][..], &vec![1; (bits - 1) / 8]].concat();
    let retyped = |name: &str, blob: &[u8]| {
        let mut r = Reader::new(blob);
        r.string().unwrap();
        let mut changed = Vec::new();
        Writer::new(&mut changed).string(name).bytes(r.rest());
        changed
    };
    let certificate = "ssh-ed25519-cert-v01@openssh.com";
    let fido = "sk-ssh-ed25519@openssh.com";
    let cases = [
        ("ssh-rsa", long.blob.clone()),
        ("ssh-dss", long.blob.clone()),
        ("rsa-sha2-512", rsa(&[1, 0, 1], &number(1024))),
        ("rsa-sha2-256", rsa(&[1, 0, 1], &number(2047))),
        ("rsa-sha2-256", rsa(&[1, 0, 1], &number(8193))),
        ("rsa-sha2-256", rsa(&[1, 0, 0], &number(2048))),
        ("rsa-sha2-256", rsa(&[1, 0, 0, 0, 1], &number(2048))),
        ("rsa-sha2-256", rsa(&[], &number(2048))),
        ("rsa-sha2-256-cert-v01@openssh.com", long.blob.clone()),
        ("rsa-sha2-512", retyped("rsa-sha2-512", &long.blob)),
        (certificate, retyped(certificate, &ed25519.blob)),
        ("ssh-ed25519", retyped(certificate, &ed25519.blob)),
        (fido, retyped(fido, &ed25519.blob)),
        ("ssh-ed25519", retyped(fido, &ed25519.blob)),
        ("ssh-ed25519", [&ed25519.blob[..], b"more"].concat()),
        ("ssh-ed25519", ed25519.blob[..ed25519.blob.len() - 1].to_vec()),
        ("ecdsa-sha2-nistp256", ed25519.blob.clone()),
        ("", Vec::new()),
    ];
    let mut peer = at_auth();
    peer.door.keys.extend(cases.iter().map(|(_, blob)| blob.clone()));
    for (algorithm, blob) in &cases {
        assert_refused(&mut peer, &request("alice", false, algorithm, blob));
        assert!(peer.door.asked.is_empty(), "the door was asked of {algorithm}");
    }
    assert!(UserKey::parse(b"rsa-sha2-256", &rsa(&[1, 0, 1], &number(2048))).is_some());
    // A signed one does not get further, and costs no signature either.
    let mut login = request("alice", true, "ssh-rsa", &long.blob);
    Writer::new(&mut login).string("anything");
    assert_refused(&mut peer, &login);
    assert!(peer.door.asked.is_empty());
}

#[test]
fn cut_and_changed_signatures_are_refused() {
    for key in keys::all() {
        let parsed = UserKey::parse(key.algorithm.as_bytes(), &key.blob).unwrap();
        let mut covered = Vec::new();
        Writer::new(&mut covered).string(SESSION).bytes(b"request");
        let signature = key.signature(&SESSION, b"request");
        assert!(verify(&parsed, &covered, &signature), "{}", key.algorithm);
        for length in 0..signature.len() {
            assert!(!verify(&parsed, &covered, &signature[..length]), "{}", key.algorithm);
        }
        for place in (0..signature.len()).step_by(7) {
            let mut changed = signature.clone();
            changed[place] ^= 1;
            assert!(!verify(&parsed, &covered, &changed), "{} at {place}", key.algorithm);
        }
        assert!(!verify(&parsed, &covered, &[&signature[..], b"x"].concat()));
        let raw = key.raw(&covered);
        let cut = message(|w| w.string(key.algorithm).string(&raw[..raw.len() - 1]));
        assert!(!verify(&parsed, &covered, &cut), "{}", key.algorithm);
    }
}

#[test]
fn none_and_other_methods_list_publickey_and_cost_no_try() {
    let key = keys::ed25519();
    let mut peer = knowing(&key);
    let asking = |user: &str, method: &str, more: &[u8]| {
        message(|w| {
            w.u8(number::USERAUTH_REQUEST).string(user).string("ssh-connection");
            w.string(method).bytes(more)
        })
    };
    for _ in 0..10 {
        assert_refused(&mut peer, &asking("alice", "none", b""));
        assert_refused(&mut peer, &asking("bob", "password", b"\0\0\0\0\x06secret"));
        assert_refused(&mut peer, &asking("", "keyboard-interactive", b"junk"));
    }
    for _ in 0..20 {
        assert_refused(&mut peer, &keys::ed25519().probe("alice"));
    }
    let done = peer.hand(&keys::ed25519().probe("alice"));
    let text = peer.assert_dead(done, 14);
    assert_eq!(
        text,
        "too many keys were offered; name the right one with -i and IdentitiesOnly=yes"
    );
    // And yet there is an end.
    let mut peer = at_auth();
    for _ in 0..63 {
        assert_refused(&mut peer, &asking("alice", "none", b""));
    }
    let done = peer.hand(&asking("alice", "none", b""));
    peer.assert_dead(done, 14);
}

#[test]
fn twenty_keys_may_be_offered_and_the_last_may_sign() {
    let key = keys::ed25519();
    let mut peer = knowing(&key);
    for _ in 0..19 {
        assert_refused(&mut peer, &keys::ed25519().probe("alice"));
    }
    peer.hand(&key.probe("alice")).unwrap();
    assert_eq!(peer.heard_one()[0], number::USERAUTH_PK_OK);
    let done = peer.hand(&key.login("alice", &SESSION));
    assert_in(done, "alice", &key);
}

#[test]
fn three_keys_may_be_left_unsigned() {
    let key = keys::ed25519();
    for message in [key.probe("alice"), key.login("alice", b"another session")] {
        let mut peer = knowing(&key);
        for _ in 0..3 {
            assert!(matches!(peer.hand(&message), Ok(None)));
        }
        let done = peer.hand(&message);
        assert_eq!(peer.assert_dead(done, 14), "too many known keys did not log in");
    }
    // A question and its wrong signature are one.
    let mut peer = knowing(&key);
    for _ in 0..3 {
        assert!(matches!(peer.hand(&key.probe("alice")), Ok(None)));
        assert!(matches!(peer.hand(&key.login("alice", b"another")), Ok(None)));
    }
    let done = peer.hand(&key.login("alice", &SESSION));
    peer.assert_dead(done, 14);
}

#[test]
fn answers_depend_on_the_key_alone_and_a_changed_user_or_service_begins_anew() {
    let (known, unknown) = (keys::ed25519(), keys::ed25519());
    let mut answers = Vec::new();
    for user in ["alice", "nobody", "", "root\n\u{1b}[2J"] {
        let mut peer = knowing(&known);
        peer.hand(&known.probe(user)).unwrap();
        peer.hand(&unknown.probe(user)).unwrap();
        answers.push(peer.heard());
    }
    assert!(answers.windows(2).all(|two| two[0] == two[1]));

    let mut peer = knowing(&known);
    let elsewhere = message(|w| {
        w.u8(number::USERAUTH_REQUEST).string("alice").string("ssh-elsewhere").string("publickey");
        w.bool(false).string(known.algorithm).string(&known.blob)
    });
    assert_refused(&mut peer, &elsewhere);
    peer.hand(&known.probe("alice")).unwrap();
    peer.heard();
    let done = peer.hand(&known.login("bob", &SESSION));
    assert_in(done, "bob", &known);
}

#[test]
fn user_names_are_bytes_of_which_the_printable_are_kept() {
    let key = keys::ed25519();
    let mut peer = knowing(&key);
    let long = format!("ev\u{e9}\n{}", "x".repeat(1000));
    let done = peer.hand(&key.login(&long, &SESSION));
    let Ok(Some(Event::Authenticated { user, .. })) = done else { panic!("{done:?}") };
    assert_eq!(user, format!("ev???{}", "x".repeat(250)));
    assert_eq!(peer.door.asked[0].0, user);
}

#[test]
fn a_barred_key_is_refused_after_its_proof() {
    let key = keys::ed25519();
    let mut peer = knowing(&key);
    peer.door.barred.push(key.blob.clone());
    assert_refused(&mut peer, &key.login("alice", &SESSION));
}

#[test]
fn messages_out_of_their_time_end_the_connection_or_are_not_implemented() {
    let key = keys::ed25519();
    let mut peer = Peer::new();
    let done = peer.hand(&key.login("alice", &SESSION));
    peer.assert_dead(done, 2);
    let mut peer = Peer::new();
    let done = peer.say(|w| w.u8(number::SERVICE_REQUEST).string("ssh-connection"));
    peer.assert_dead(done, 7);
    for early in [number::GLOBAL_REQUEST, number::CHANNEL_OPEN, number::CHANNEL_DATA, 127] {
        let mut peer = at_auth();
        let done = peer.say(|w| w.u8(early).u32(0));
        peer.assert_dead(done, 2);
        assert!(matches!(peer.hand(&key.login("alice", &SESSION)), Ok(None)), "it is dead");
        assert!(peer.heard().is_empty());
    }
    let mut peer = at_auth();
    for unknown in [51, 52, 60, 61, 79, 128, 200, 255] {
        assert!(matches!(peer.hand(&[unknown]), Ok(None)));
        let answer = peer.heard_one();
        assert_eq!((answer[0], word(&answer, 1)), (number::UNIMPLEMENTED, peer.sequence));
    }
    let done = peer.hand(&key.login("alice", &SESSION)[..40]);
    peer.assert_dead(done, 2);
    let mut peer = at_auth();
    let done = peer.hand(&[]);
    peer.assert_dead(done, 2);
}

#[test]
fn the_door_may_turn_away_who_begins_more_key_exchanges_before_a_login() {
    let offer = tidegate_ssh_client::Offer::default().kexinit([0; 16], false);
    for logged_in in [false, true] {
        let mut peer =
            if logged_in { Peer::logged_in(Config::new(vec![host_key(1)])) } else { Peer::new() };
        peer.heard();
        peer.door.turned_away = Some("too many");
        let told = peer.hand(&offer).map(drop);
        if logged_in {
            told.unwrap();
        } else {
            let fatal = told.unwrap_err();
            assert_eq!(
                (fatal.code, &*fatal.text),
                (DisconnectCode::TooManyConnections, "too many")
            );
        }
    }
}
