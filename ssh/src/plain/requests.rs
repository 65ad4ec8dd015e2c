//! Requests on channels (RFC 4254 sections 5.4 and 6).

use super::{Peer, host_key, message};
use crate::config::Config;
use crate::event::{Event, RequestKind};
use crate::message::{Fatal, number};

fn peer() -> Peer {
    Peer::logged_in(Config::new(vec![host_key(1)]))
}

fn ask(
    peer: &mut Peer,
    channel: u32,
    name: &str,
    wants_reply: bool,
    more: &[u8],
) -> Result<Option<Event>, Fatal> {
    peer.say(|w| {
        w.u8(number::CHANNEL_REQUEST).u32(channel).string(name).bool(wants_reply).bytes(more)
    })
}

fn yes(remote: u32) -> Vec<u8> {
    message(|w| w.u8(number::CHANNEL_SUCCESS).u32(remote))
}

fn no(remote: u32) -> Vec<u8> {
    message(|w| w.u8(number::CHANNEL_FAILURE).u32(remote))
}

#[test]
fn input_that_crosses_the_end_of_a_session_keeps_no_place() {
    let mut peer = peer();
    for round in 0..3 {
        let session = peer.session(round);
        let done = ask(&mut peer, session, "shell", true, b"");
        let Ok(Some(Event::Request { channel, .. })) = done else { panic!("{done:?}") };
        peer.core.answer_request(channel, true);
        peer.core.finish(channel);
        peer.pumped();
        assert!(matches!(peer.data(channel, 1_000), Ok(None)), "it did not know of our CLOSE");
        let closed = peer.say(|w| w.u8(number::CHANNEL_CLOSE).u32(session));
        assert!(matches!(closed, Ok(Some(Event::Closed { .. }))), "{closed:?}");
        assert_eq!(peer.core.channels.by_peer(), 0, "after session {round}");
    }
}

#[test]
fn a_session_is_asked_for_one_thing_after_a_pty() {
    let kinds: [(&str, &[u8], RequestKind); 3] = [
        ("shell", b"", RequestKind::Shell),
        ("exec", b"\0\0\0\x04why ", RequestKind::Exec(b"why ".to_vec())),
        ("subsystem", b"\0\0\0\x04sftp", RequestKind::Subsystem(b"sftp".to_vec())),
    ];
    for (name, more, want) in kinds {
        for with_pty in [false, true] {
            let mut peer = peer();
            let session = peer.session(40);
            if with_pty {
                assert!(matches!(ask(&mut peer, session, "pty-req", true, b"any"), Ok(None)));
                assert_eq!(peer.heard_one(), yes(40));
            }
            let done = ask(&mut peer, session, name, true, more);
            let Ok(Some(Event::Request { channel, kind, pty })) = done else { panic!("{done:?}") };
            assert_eq!((kind, pty), (want.clone(), with_pty));
            assert!(peer.heard().is_empty(), "the relay answers");
            peer.core.answer_request(channel, true);
            assert_eq!(peer.heard_one(), yes(40));
            peer.core.answer_request(channel, false);
            assert!(peer.heard().is_empty(), "once");
            for again in ["shell", "pty-req"] {
                assert!(matches!(ask(&mut peer, session, again, true, b""), Ok(None)));
                assert_eq!(peer.heard_one(), no(40));
            }
        }
    }
}

#[test]
fn replies_keep_their_order_behind_one_that_waits() {
    let mut peer = peer();
    let session = peer.session(1);
    let other = peer.session(2);
    let done = ask(&mut peer, session, "shell", true, b"");
    let Ok(Some(Event::Request { channel, .. })) = done else { panic!("{done:?}") };
    ask(&mut peer, session, "window-change", true, b"").unwrap();
    ask(&mut peer, session, "winadj@putty.projects.tartarus.org", true, b"").unwrap();
    ask(&mut peer, session, "env", false, b"").unwrap();
    assert!(peer.heard().is_empty());
    // Another channel's replies do not wait.
    ask(&mut peer, other, "env", true, b"").unwrap();
    assert_eq!(peer.heard_one(), no(2));
    peer.core.answer_request(channel, false);
    assert_eq!(peer.heard(), [no(1), yes(1), no(1)]);
}

#[test]
fn requests_that_mean_nothing_here_fail_if_a_reply_is_wanted() {
    let mut peer = peer();
    let session = peer.session(5);
    let direct = peer.opened(6, 100, 100).number;
    let forwarded = peer.forwarded(7, 100, 100).number;
    let names = [
        "env",
        "signal",
        "xon-xoff",
        "break",
        "exit-status",
        "eow@openssh.com",
        "winadj@putty.projects.tartarus.org",
        "simple@putty.projects.tartarus.org",
        "unknown@example.com",
        "",
    ];
    for (channel, remote) in [(session, 5), (direct, 6), (forwarded, 7)] {
        for name in names {
            assert!(matches!(ask(&mut peer, channel, name, true, b"more"), Ok(None)));
            assert_eq!(peer.heard_one(), no(remote), "{name}");
            assert!(matches!(ask(&mut peer, channel, name, false, b"more"), Ok(None)));
            assert!(peer.heard().is_empty(), "{name}");
        }
    }
    // What sessions take, others do not.
    for name in ["pty-req", "shell", "exec", "subsystem", "window-change", "x11-req"] {
        assert!(matches!(ask(&mut peer, direct, name, true, b""), Ok(None)), "{name}");
        assert_eq!(peer.heard_one(), no(6));
    }
}

#[test]
fn forwarding_of_x11_and_agents_is_refused_by_name() {
    let mut peer = peer();
    let session = peer.session(5);
    for (name, told) in [
        ("x11-req", "X11 forwarding"),
        ("auth-agent-req@openssh.com", "agent forwarding"),
        ("auth-agent-req", "agent forwarding"),
    ] {
        let done = ask(&mut peer, session, name, true, b"");
        assert!(matches!(done, Ok(Some(Event::Refused { what })) if what == told));
        assert_eq!(peer.heard_one(), no(5));
    }
}

#[test]
fn requests_without_end_behind_one_that_waits_end_the_connection() {
    let mut config = Config::new(vec![host_key(1)]);
    config.limits.requests = 3;
    let mut peer = Peer::logged_in(config);
    let session = peer.session(1);
    ask(&mut peer, session, "shell", true, b"").unwrap();
    for _ in 0..2 {
        ask(&mut peer, session, "env", false, b"").unwrap();
    }
    let done = ask(&mut peer, session, "env", false, b"");
    peer.assert_dead(done, 11);
}

#[test]
fn after_our_close_nothing_is_said_on_the_channel() {
    let mut peer = peer();
    let session = peer.session(1);
    let done = ask(&mut peer, session, "shell", true, b"");
    let Ok(Some(Event::Request { channel, .. })) = done else { panic!("{done:?}") };
    peer.core.close(channel);
    assert_eq!(peer.heard_one()[0], number::CHANNEL_CLOSE);
    peer.core.answer_request(channel, true);
    assert!(matches!(ask(&mut peer, session, "env", true, b""), Ok(None)));
    assert!(peer.heard().is_empty());
}

#[test]
fn a_view_is_written_in_order_with_its_status() {
    let mut peer = peer();
    let session = peer.session(9);
    let done = ask(&mut peer, session, "exec", true, b"\0\0\0\x03why");
    let Ok(Some(Event::Request { channel, .. })) = done else { panic!("{done:?}") };
    peer.core.answer_request(channel, true);
    assert_eq!(peer.heard_one(), yes(9));
    // Input is thrown away, and its window given back.
    for _ in 0..20 {
        assert!(matches!(peer.data(channel, 16384), Ok(None)));
    }
    assert!(peer.heard().iter().all(|it| it[0] == number::CHANNEL_WINDOW_ADJUST));
    peer.core.send(channel, b"out").unwrap();
    peer.core.send_extended(channel, 1, b"err").unwrap();
    peer.core.exit_status(channel, 3);
    peer.core.eof(channel);
    peer.core.finish(channel);
    assert!(peer.core.send(channel, b"more").is_err());
    let (heard, drained) = peer.pumped();
    let kinds: Vec<_> = heard.iter().map(|message| message[0]).collect();
    assert_eq!(kinds, [94, 95, 98, 96, 97]);
    assert_eq!(drained, [(channel, 6)]);
    let closed = peer.say(|w| w.u8(number::CHANNEL_CLOSE).u32(session));
    assert!(matches!(closed, Ok(Some(Event::Closed { channel: it })) if it == channel));
}
