//! Opening and closing channels (RFC 4254 sections 5.1 and 5.3).

use super::{Peer, direct, host_key, message, word};
use crate::commands::TooMany;
use crate::config::Config;
use crate::event::{Event, Shortage};
use crate::message::{Fatal, OpenFailure, number};
use crate::wire::Reader;
use crate::{DisconnectCode, Id};

fn config() -> Config {
    Config::new(vec![host_key(1)])
}

fn peer() -> Peer {
    Peer::logged_in(config())
}

fn one(peer: &mut Peer, kind: u8, id: u32) -> Result<Option<Event>, Fatal> {
    peer.say(|w| w.u8(kind).u32(id))
}

/// The number, the channel, the code and the words of a refusal.
fn refusal(message: &[u8]) -> (u8, u32, u32, String) {
    let mut r = Reader::new(message);
    let (kind, remote, code) = (r.u8().unwrap(), r.u32().unwrap(), r.u32().unwrap());
    (kind, remote, code, r.text().unwrap().to_owned())
}

#[test]
fn a_channel_is_asked_for_confirmed_and_closed_by_both() {
    let mut peer = peer();
    let done = peer.hand(&direct(77, 1000, 100));
    let Ok(Some(Event::Open { channel, host, port, originator })) = done else {
        panic!("{done:?}")
    };
    assert_eq!((host.as_str(), port), ("kiosk-17", 22));
    assert_eq!(originator, ("127.0.0.1".to_owned(), 65535));
    assert!(peer.heard().is_empty(), "the relay answers");
    // The peer does not know our number yet.
    peer.core.confirm(channel);
    let confirmed = message(|w| {
        w.u8(number::CHANNEL_OPEN_CONFIRMATION).u32(77).u32(channel.number);
        w.u32(64 << 10).u32(32 << 10)
    });
    assert_eq!(peer.heard_one(), confirmed);
    peer.core.confirm(channel);
    peer.core.refuse(channel, OpenFailure::ConnectFailed, "too late");
    assert!(peer.heard().is_empty());

    peer.core.send(channel, b"never read").unwrap();
    let done = one(&mut peer, number::CHANNEL_CLOSE, channel.number);
    assert!(matches!(done, Ok(Some(Event::Closed { channel: it })) if it == channel));
    assert_eq!(peer.heard_one(), message(|w| w.u8(number::CHANNEL_CLOSE).u32(77)));
    assert_eq!(peer.core.queued(), 0);
    assert!(peer.core.send(channel, b"x").is_err());

    // The number is used again; the old handle is not.
    let next = peer.opened(78, 1000, 100);
    assert_eq!(next.number, channel.number);
    assert_ne!(next, channel);
    peer.core.close(channel);
    peer.core.eof(channel);
    peer.core.consumed(channel, 1, peer.now);
    assert!(peer.pumped().0.is_empty());
    let done = one(&mut peer, number::CHANNEL_CLOSE, 99);
    peer.assert_dead(done, 2);
}

#[test]
fn messages_for_a_channel_that_is_not_confirmed_end_the_connection() {
    for kind in [93, 94, 96, 97, 98, 91, 92, 99, 100] {
        let mut peer = peer();
        let done = peer.hand(&direct(77, 1000, 100));
        let Ok(Some(Event::Open { channel, .. })) = done else { panic!("{done:?}") };
        let message = [&[kind][..], &channel.number.to_be_bytes(), &[0; 20]].concat();
        let done = peer.hand(&message);
        peer.assert_dead(done, 2);
    }
}

#[test]
fn a_number_is_free_after_both_closes_only() {
    let mut peer = peer();
    let first = peer.opened(1, 1000, 100);
    peer.core.close(first);
    assert_eq!(peer.heard_one(), message(|w| w.u8(number::CHANNEL_CLOSE).u32(1)));
    peer.core.close(first);
    assert!(peer.heard().is_empty());
    let second = peer.opened(2, 1000, 100);
    assert_ne!(second.number, first.number);
    // What is still on its way is dropped, but not without bounds.
    assert!(matches!(peer.data(first, 32768), Ok(None)));
    assert!(matches!(one(&mut peer, number::CHANNEL_EOF, first.number), Ok(None)));
    assert!(matches!(one(&mut peer, number::CHANNEL_CLOSE, first.number), Ok(None)));
    assert_eq!(peer.opened(3, 1000, 100).number, first.number);
    assert!(peer.pumped().0.is_empty());
}

#[test]
fn what_came_in_counts_beyond_the_end_of_the_connection_until_it_is_taken_or_given_up() {
    let config = config();
    let budget = std::sync::Arc::clone(&config.budget);
    let mut peer = Peer::logged_in(config);
    let [taken, given_up, closed, idle] = [1, 2, 3, 4].map(|it| peer.opened(it, 1000, 100));
    for id in [taken, given_up, closed] {
        peer.data(id, 20_000).unwrap();
    }
    one(&mut peer, number::CHANNEL_CLOSE, closed.number).unwrap();
    peer.core.disconnect(DisconnectCode::ByApplication, "the window has closed");
    assert_eq!(budget.taken(), 60_000, "it lies in queues of other connections");
    peer.core.close(idle);
    peer.core.consumed(taken, 15_000, peer.now);
    assert_eq!(budget.taken(), 45_000);
    peer.core.consumed(taken, 5000, peer.now);
    peer.core.close(given_up);
    peer.core.close(closed);
    assert_eq!((budget.taken(), peer.core.channels()), (0, 0));
    peer.core.consumed(given_up, 20_000, peer.now);
    // A core that is gone gives back what nobody took.
    let mut peer =
        Peer::logged_in(Config { budget: std::sync::Arc::clone(&budget), ..self::config() });
    let id = peer.opened(1, 1000, 100);
    peer.data(id, 20_000).unwrap();
    peer.core.disconnect(DisconnectCode::ByApplication, "");
    assert_eq!(budget.taken(), 20_000);
    peer.core.bury();
    assert_eq!(budget.taken(), 0);
}

#[test]
fn finishing_sends_close_after_what_is_queued() {
    let mut peer = peer();
    let id = peer.opened(1, 4, 100);
    peer.core.send(id, b"abcdef").unwrap();
    peer.core.eof(id);
    peer.core.finish(id);
    let (heard, drained) = peer.pumped();
    assert_eq!((heard.len(), drained), (1, vec![(id, 4)]));
    assert!(!peer.core.is_ready());
    let done = peer.say(|w| w.u8(number::CHANNEL_WINDOW_ADJUST).u32(id.number).u32(9));
    assert!(matches!(done, Ok(None)) && peer.core.is_ready());
    let kinds: Vec<_> = peer.pumped().0.iter().map(|it| it[0]).collect();
    assert_eq!(kinds, [94, 96, 97]);
    let done = one(&mut peer, number::CHANNEL_CLOSE, id.number);
    assert!(matches!(done, Ok(Some(Event::Closed { .. }))));
    assert!(peer.pumped().0.is_empty());
}

#[test]
fn a_window_that_grows_after_close_says_nothing() {
    let mut peer = peer();
    let id = peer.opened(1, 4, 100);
    let other = peer.opened(2, 4, 100);
    assert!(one(&mut peer, number::CHANNEL_CLOSE, id.number).is_ok());
    let late = peer.say(|w| w.u8(number::CHANNEL_WINDOW_ADJUST).u32(id.number).u32(9));
    assert!(matches!(late, Ok(None)));
    // Data is another matter.
    assert!(peer.data(other, 1).is_ok());
    assert!(peer.data(id, 1).is_err());
}

#[test]
fn what_a_relay_never_opens_is_refused_by_name() {
    let mut peer = peer();
    for name in [
        "x11",
        "forwarded-tcpip",
        "direct-streamlocal@openssh.com",
        "forwarded-streamlocal@openssh.com",
        "auth-agent@openssh.com",
        "tun@openssh.com",
        "unknown@example.com",
    ] {
        let done = peer
            .say(|w| w.u8(number::CHANNEL_OPEN).string(name).u32(5).u32(1).u32(1).string("more"));
        assert!(matches!(done, Ok(Some(Event::Refused { .. }))), "{name}: {done:?}");
        let (kind, remote, code, _) = refusal(&peer.heard_one());
        assert_eq!((kind, remote, code), (number::CHANNEL_OPEN_FAILURE, 5, 3), "{name}");
    }
}

#[test]
fn refusals_carry_their_sentence() {
    let mut peer = peer();
    for code in [OpenFailure::AdministrativelyProhibited, OpenFailure::ConnectFailed] {
        let done = peer.hand(&direct(77, 1000, 100));
        let Ok(Some(Event::Open { channel, .. })) = done else { panic!("{done:?}") };
        let long = format!("it opens at 18:00\r\n{}", "x".repeat(1000));
        peer.core.refuse(channel, code, &long);
        let (_, remote, sent, text) = refusal(&peer.heard_one());
        assert_eq!((remote, sent, text.len()), (77, code.number(), 300));
        assert!(text.starts_with("it opens at 18:00??xxx"), "{text}");
        peer.core.confirm(channel);
        assert!(peer.heard().is_empty(), "the handle is void");
    }
}

#[test]
fn channels_of_a_peer_are_limited_and_half_closed_ones_count() {
    let mut config = config();
    config.limits.channels = 3;
    let mut peer = Peer::logged_in(config);
    let first = peer.opened(1, 1000, 100);
    peer.session(2);
    assert!(matches!(peer.hand(&direct(3, 1, 1)), Ok(Some(Event::Open { .. }))));
    peer.core.close(first);
    peer.heard();
    assert!(matches!(peer.hand(&direct(4, 1, 1)), Ok(Some(Event::NoRoom(Shortage::Channels)))));
    let (_, remote, code, text) = refusal(&peer.heard_one());
    assert_eq!((remote, code), (4, 4));
    assert_eq!(text, "this connection has 3 channels open; close one, or connect once more");
    one(&mut peer, number::CHANNEL_CLOSE, first.number).unwrap();
    peer.opened(4, 1000, 100);
    // Ours do not count.
    peer.forwarded(5, 1000, 100);

    let mut config = self::config();
    config.limits.all_channels = 2;
    let mut peer = Peer::logged_in(config);
    peer.forwarded(1, 1000, 100);
    peer.opened(2, 1000, 100);
    assert!(matches!(peer.hand(&direct(3, 1, 1)), Ok(Some(Event::NoRoom(Shortage::Channels)))));
    assert_eq!(
        refusal(&peer.heard_one()).3,
        "this connection has 2 channels open, the relay's among them; close one, or connect once more"
    );
}

#[test]
fn forwarded_channels_echo_the_address_and_port() {
    let mut peer = peer();
    let id = peer.core.open_forwarded("", 2222, ("0.0.0.0", 0)).unwrap();
    let asked = message(|w| {
        w.u8(number::CHANNEL_OPEN).string("forwarded-tcpip").u32(id.number);
        w.u32(64 << 10).u32(32 << 10).string("").u32(2222).string("0.0.0.0").u32(0)
    });
    assert_eq!(peer.heard_one(), asked);
    // Data may be queued before the answer.
    peer.core.send(id, b"early").unwrap();
    assert!(!peer.core.is_ready());
    let done = peer
        .say(|w| w.u8(number::CHANNEL_OPEN_CONFIRMATION).u32(id.number).u32(44).u32(100).u32(100));
    assert!(matches!(done, Ok(Some(Event::Opened { channel })) if channel == id));
    let data = message(|w| w.u8(number::CHANNEL_DATA).u32(44).string("early"));
    assert_eq!(peer.pumped().0, [data]);

    let again = peer
        .say(|w| w.u8(number::CHANNEL_OPEN_CONFIRMATION).u32(id.number).u32(44).u32(100).u32(100));
    peer.assert_dead(again, 2);
}

#[test]
fn the_words_of_a_refusal_are_cleaned() {
    let mut peer = peer();
    let id = peer.core.open_forwarded("a", 1, ("", 0)).unwrap();
    peer.heard();
    let words = format!("Connection refused\n\u{1b}[2J{}", "x".repeat(1000));
    let done = peer.say(|w| {
        w.u8(number::CHANNEL_OPEN_FAILURE).u32(id.number).u32(2).string(&words).string("en")
    });
    let Ok(Some(Event::OpenFailed { channel, code: 2, text })) = done else { panic!("{done:?}") };
    assert_eq!((channel, text.len()), (id, 200));
    assert!(text.starts_with("Connection refused??[2Jxxx"));
    assert!(peer.core.send(id, b"x").is_err());
    // Without its words, as some send it.
    let id = peer.core.open_forwarded("a", 1, ("", 0)).unwrap();
    let done = peer.say(|w| w.u8(number::CHANNEL_OPEN_FAILURE).u32(id.number).u32(9));
    assert!(matches!(done, Ok(Some(Event::OpenFailed { code: 9, .. }))));
}

#[test]
fn a_channel_that_nobody_wants_any_more_is_closed_once_confirmed() {
    let mut peer = peer();
    let ids: Vec<Id> = (0..2).map(|_| peer.core.open_forwarded("a", 1, ("", 0)).unwrap()).collect();
    peer.heard();
    for id in &ids {
        peer.core.close(*id);
    }
    assert!(peer.heard().is_empty());
    let done = peer.say(|w| {
        w.u8(number::CHANNEL_OPEN_CONFIRMATION).u32(ids[0].number).u32(44).u32(100).u32(100)
    });
    assert!(matches!(done, Ok(None)));
    assert_eq!(peer.heard_one(), message(|w| w.u8(number::CHANNEL_CLOSE).u32(44)));
    assert!(matches!(one(&mut peer, number::CHANNEL_CLOSE, ids[0].number), Ok(None)));
    let done = peer.say(|w| w.u8(number::CHANNEL_OPEN_FAILURE).u32(ids[1].number).u32(1));
    assert!(matches!(done, Ok(None)), "{done:?}");
    assert_eq!(peer.core.config.budget.taken(), 0);
}

#[test]
fn channels_that_a_peer_leaves_unanswered_are_limited() {
    let mut peer = peer();
    let most = peer.core.config.limits.unanswered;
    let mut open = || peer.core.open_forwarded("a", 1, ("", 0));
    let opened: Vec<Id> = (0..2 * most).map_while(|_| open().ok()).collect();
    assert_eq!(opened.len(), most);
    assert_eq!(open(), Err(TooMany::Unanswered));
    // Those that nobody waits for make room, and hold no window; but there is an end to them, too.
    for id in &opened {
        peer.core.close(*id);
        peer.core.close(*id);
    }
    assert_eq!(peer.core.config.budget.taken(), 0);
    assert_eq!(peer.core.open_forwarded("a", 1, ("", 0)), Err(TooMany::Unanswered));
    for id in opened.iter().take(2) {
        let late = peer.say(|w| w.u8(number::CHANNEL_OPEN_FAILURE).u32(id.number).u32(1));
        assert!(matches!(late, Ok(None)));
    }
    assert!(peer.core.open_forwarded("a", 1, ("", 0)).is_ok());
    assert!(peer.core.open_forwarded("a", 1, ("", 0)).is_ok());
    let mut fresh = Peer::new();
    assert_eq!(fresh.core.open_forwarded("a", 1, ("", 0)), Err(TooMany::Over));
}

#[test]
fn a_disconnect_drops_what_is_queued_and_sends_no_close() {
    let mut peer = peer();
    let id = peer.opened(1, 1000, 100);
    peer.core.send(id, b"never sent").unwrap();
    peer.core.finish(id);
    peer.core.disconnect(DisconnectCode::ByApplication, "the window has closed\n");
    peer.core.close(id);
    peer.core.disconnect(DisconnectCode::Protocol, "twice");
    let (heard, drained) = peer.pumped();
    assert!(drained.is_empty());
    assert_eq!(heard.len(), 1);
    assert_eq!((heard[0][0], word(&heard[0], 1)), (number::DISCONNECT, 11));
    assert_eq!(Reader::new(&heard[0][5..]).text(), Ok("the window has closed?"));
    assert_eq!(peer.core.config.budget.taken(), 0);
    assert!(matches!(peer.data(id, 10), Ok(None)));
    assert!(peer.core.send(id, b"x").is_err() && !peer.core.ping());
    assert_eq!(peer.core.deadline(), None);
}

#[test]
fn a_goodbye_is_told() {
    let mut peer = peer();
    let done = peer.say(|w| w.u8(number::DISCONNECT).u32(11).string("bye\u{7}").string(""));
    let Ok(Some(Event::Disconnected { code: 11, text })) = done else { panic!("{done:?}") };
    assert_eq!(text, "bye?");
    assert!(peer.core.is_over() && peer.heard().is_empty());
}
