//! Global requests of both sides (RFC 4254 sections 4 and 7.1).

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};

use super::{Peer, SESSION, host_key, message};
use crate::config::Config;
use crate::event::Event;
use crate::global::Token;
use crate::message::{Fatal, number};
use crate::wire::{Reader, Writer};

fn peer() -> Peer {
    Peer::logged_in(Config::new(vec![host_key(1), host_key(2)]))
}

fn ask(peer: &mut Peer, name: &str, wants_reply: bool) -> Result<Option<Event>, Fatal> {
    peer.say(|w| w.u8(number::GLOBAL_REQUEST).string(name).bool(wants_reply))
}

fn forward(peer: &mut Peer, host: &str, port: u32, wants_reply: bool) -> Token {
    let done = peer.say(|w| {
        w.u8(number::GLOBAL_REQUEST).string("tcpip-forward").bool(wants_reply);
        w.string(host).u32(port)
    });
    let Ok(Some(Event::Forward { token, host: told, port: at })) = done else { panic!("{done:?}") };
    assert_eq!((told.as_str(), at), (host, port));
    token
}

const FAILED: [u8; 1] = [number::REQUEST_FAILURE];
const GRANTED: [u8; 1] = [number::REQUEST_SUCCESS];

#[test]
fn replies_keep_the_order_of_requests_that_are_answered_late() {
    let mut peer = peer();
    let first = forward(&mut peer, "localhost", 2201, true);
    assert!(matches!(ask(&mut peer, "keepalive@openssh.com", true), Ok(None)));
    let silent = forward(&mut peer, "", 2202, false);
    let any = forward(&mut peer, "*", 0, true);
    let cancel = peer.say(|w| {
        w.u8(number::GLOBAL_REQUEST).string("cancel-tcpip-forward").bool(true);
        w.string("localhost").u32(2201)
    });
    let Ok(Some(Event::Cancel { token: cancel, host, port: 2201 })) = cancel else {
        panic!("{cancel:?}")
    };
    assert_eq!(host, "localhost");
    peer.core.answer_cancel(cancel, true);
    peer.core.answer_forward(any, Some(2203));
    peer.core.answer_forward(any, None);
    assert!(peer.heard().is_empty(), "the first has no answer yet");
    peer.core.answer_forward(first, Some(2201));
    assert_eq!(peer.heard(), [GRANTED.to_vec(), FAILED.to_vec()]);
    peer.core.answer_forward(silent, None);
    let port = message(|w| w.u8(number::REQUEST_SUCCESS).u32(2203));
    assert_eq!(peer.heard(), [port, GRANTED.to_vec()]);
    // Tokens are good for one answer.
    peer.core.answer_forward(first, Some(1));
    peer.core.answer_cancel(silent, true);
    assert!(peer.heard().is_empty());
}

#[test]
fn unknown_requests_fail_if_a_reply_is_wanted() {
    let mut peer = peer();
    for name in ["keepalive@openssh.com", "unknown@example.com", ""] {
        assert!(matches!(ask(&mut peer, name, true), Ok(None)));
        assert_eq!(peer.heard_one(), FAILED);
        assert!(matches!(ask(&mut peer, name, false), Ok(None)));
        assert!(peer.heard().is_empty());
    }
    for name in ["streamlocal-forward@openssh.com", "tun@openssh.com"] {
        assert!(matches!(ask(&mut peer, name, true), Ok(Some(Event::Refused { .. }))));
        assert_eq!(peer.heard_one(), FAILED);
    }
    let cut = peer.say(|w| w.u8(number::GLOBAL_REQUEST).string("tcpip-forward").bool(true).u32(9));
    peer.assert_dead(cut, 2);
}

#[test]
fn requests_without_end_that_wait_for_answers_end_the_connection() {
    let mut config = Config::new(vec![host_key(1)]);
    config.limits.requests = 3;
    let mut peer = Peer::logged_in(config);
    for port in 1..=3 {
        forward(&mut peer, "localhost", port, true);
    }
    let done = ask(&mut peer, "keepalive@openssh.com", true);
    peer.assert_dead(done, 11);
}

#[test]
fn a_peer_that_asks_and_does_not_read_is_sent_away() {
    let mut config = Config::new(vec![host_key(1)]);
    config.limits.output = 10_000;
    let mut peer = Peer::logged_in(config);
    let done = (0..10_000).find_map(|_| ask(&mut peer, "keepalive@openssh.com", true).err());
    let text = peer.assert_dead(Err(done.expect("an end")), 11);
    assert_eq!(text, "the peer asks for more than it reads");
}

#[test]
fn host_keys_are_proven_to_be_held() {
    let mut peer = peer();
    let ours = [host_key(1), host_key(2)];
    let done = peer.say(|w| {
        w.u8(number::GLOBAL_REQUEST).string("hostkeys-prove-00@openssh.com").bool(true);
        w.string(ours[1].blob()).string(ours[0].blob())
    });
    let Ok(Some(Event::HostKeysProved { keys })) = done else { panic!("{done:?}") };
    assert_eq!(keys, [1, 0]);
    let heard = peer.heard_one();
    let mut r = Reader::new(&heard);
    assert_eq!(r.u8(), Ok(number::REQUEST_SUCCESS));
    for key in [&ours[1], &ours[0]] {
        let mut signed = Vec::new();
        let mut w = Writer::new(&mut signed);
        w.string("hostkeys-prove-00@openssh.com").string(SESSION).string(key.blob());
        let mut signature = Reader::new(r.string().unwrap());
        assert_eq!(signature.string(), Ok(&b"ssh-ed25519"[..]));
        let public = UnparsedPublicKey::new(&ED25519, key.public());
        public.verify(&signed, signature.string().unwrap()).unwrap();
    }
    r.end().unwrap();

    let done = peer.say(|w| {
        w.u8(number::GLOBAL_REQUEST).string("hostkeys-prove-00@openssh.com").bool(true);
        w.string(ours[0].blob()).string(host_key(3).blob())
    });
    assert!(matches!(done, Ok(None)), "{done:?}");
    assert_eq!(peer.heard_one(), FAILED);
}

#[test]
fn no_peer_makes_us_sign_for_nothing_or_without_end() {
    let mut peer = peer();
    let ours = host_key(1);
    let mut prove = |wants_reply: bool, times: usize| {
        let done = peer.say(|w| {
            w.u8(number::GLOBAL_REQUEST).string("hostkeys-prove-00@openssh.com").bool(wants_reply);
            (0..times).fold(w, |w, _| w.string(ours.blob()))
        });
        let proved = match done {
            Ok(Some(Event::HostKeysProved { .. })) => true,
            Ok(None) => false,
            other => panic!("{other:?}"),
        };
        (proved, peer.heard().len())
    };
    assert_eq!(prove(false, 1), (false, 0), "nobody reads it");
    assert_eq!(prove(true, 2), (false, 1), "the same key twice");
    let proved = (0..10).filter(|_| prove(true, 1).0).count();
    assert!((1..4).contains(&proved), "{proved} proofs");
}

#[test]
fn no_more_sessions_is_honoured() {
    let mut peer = peer();
    peer.session(1);
    assert!(matches!(ask(&mut peer, "no-more-sessions@openssh.com", false), Ok(None)));
    let open = message(|w| w.u8(number::CHANNEL_OPEN).string("session").u32(2).u32(9).u32(9));
    assert!(matches!(peer.hand(&open), Ok(None)));
    let refusal = peer.heard_one();
    assert_eq!((refusal[0], super::word(&refusal, 5)), (number::CHANNEL_OPEN_FAILURE, 1));
    peer.opened(3, 9, 9);
}

#[test]
fn either_reply_to_a_ping_is_life() {
    let mut fresh = Peer::new();
    assert!(!fresh.core.ping() && fresh.heard().is_empty(), "nobody has logged in");
    let mut peer = peer();
    for reply in [FAILED, GRANTED] {
        assert!(peer.core.ping());
        let asked =
            message(|w| w.u8(number::GLOBAL_REQUEST).string("keepalive@openssh.com").bool(true));
        assert_eq!(peer.heard_one(), asked);
        assert!(matches!(peer.hand(&reply), Ok(Some(Event::Alive))));
        assert!(matches!(peer.hand(&reply), Ok(None)), "nothing was asked");
    }
    assert_eq!((0..100).filter(|_| peer.core.ping()).count(), 16);
}
