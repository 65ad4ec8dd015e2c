//! Data, windows and fairness (RFC 4254 section 5.2).

use super::{Peer, host_key, message, word};
use crate::config::{Config, Windows};
use crate::event::Event;
use crate::message::number;
use crate::{Id, Relayed};

/// With windows that hold what these tests send.
fn config() -> Config {
    let first = 256 << 10;
    let windows = Windows { first, usual: first, ..Windows::default() };
    Config { windows, ..Config::new(vec![host_key(1)]) }
}

fn peer() -> Peer {
    Peer::logged_in(config())
}

/// A CHANNEL_DATA of another leg as a frame in plain text.
pub(super) fn frame(bytes: usize) -> Vec<u8> {
    let message =
        message(|w| w.u8(number::CHANNEL_DATA).u32(0xdead_beef).string(vec![b'd'; bytes]));
    let padding = 4 + (8 - (5 + message.len() + 4) % 8) % 8;
    let mut frame = u32::try_from(1 + message.len() + padding).unwrap().to_be_bytes().to_vec();
    frame.push(u8::try_from(padding).unwrap());
    frame.extend(message);
    frame.resize(frame.len() + padding, 0);
    frame
}

#[test]
fn data_is_told_where_it_lies_and_its_window_comes_back_once_half_is_consumed() {
    let mut peer = peer();
    let id = peer.opened(5, 1000, 1000);
    let done = peer.data(id, 1000);
    let Ok(Some(Event::Data { channel, bytes })) = done else { panic!("{done:?}") };
    assert_eq!((channel, bytes), (id, 9..1009));
    for _ in 0..4 {
        peer.data(id, 32768).unwrap();
    }
    assert!(peer.heard().is_empty(), "nothing was consumed");
    peer.core.consumed(id, 131_071, peer.now);
    assert!(peer.heard().is_empty());
    peer.core.consumed(id, 1, peer.now);
    let adjust = message(|w| w.u8(number::CHANNEL_WINDOW_ADJUST).u32(5).u32(131_072));
    assert_eq!(peer.heard_one(), adjust);
    // Empty data is nothing.
    assert!(matches!(peer.data(id, 0), Ok(None)));
}

#[test]
fn data_beyond_the_window_or_the_packet_or_after_eof_ends_the_connection() {
    let mut peer = peer();
    let id = peer.opened(5, 1000, 1000);
    for _ in 0..8 {
        peer.data(id, 32768).unwrap();
    }
    let done = peer.data(id, 1);
    assert_eq!(peer.assert_dead(done, 2), "channel 0 got data beyond its window");

    let mut peer = self::peer();
    let id = peer.opened(5, 1000, 1000);
    let done = peer.data(id, 32769);
    assert_eq!(peer.assert_dead(done, 2), "channel 0 got a packet beyond 32768 bytes of data");

    let mut peer = self::peer();
    let id = peer.opened(5, 1000, 1000);
    let eof = message(|w| w.u8(number::CHANNEL_EOF).u32(id.number));
    assert!(matches!(peer.hand(&eof), Ok(Some(Event::Eof { channel })) if channel == id));
    assert!(matches!(peer.hand(&eof), Ok(None)));
    // The other way is open.
    peer.core.send(id, b"abc").unwrap();
    assert_eq!(peer.pumped().1, [(id, 3)]);
    let done = peer.data(id, 1);
    assert_eq!(peer.assert_dead(done, 2), "channel 0 got data after its EOF");

    // Also what is dropped after our CLOSE counts.
    let mut peer = self::peer();
    let id = peer.opened(5, 1000, 1000);
    peer.core.close(id);
    for _ in 0..8 {
        assert!(matches!(peer.data(id, 32768), Ok(None)));
    }
    let done = peer.data(id, 1);
    peer.assert_dead(done, 2);
}

#[test]
fn extended_data_counts_and_is_thrown_away() {
    let mut peer = peer();
    let id = peer.opened(5, 1000, 1000);
    let extended = message(|w| {
        w.u8(number::CHANNEL_EXTENDED_DATA).u32(id.number).u32(1).string(vec![0; 32768])
    });
    for _ in 0..4 {
        assert!(matches!(peer.hand(&extended), Ok(None)));
    }
    assert_eq!(word(&peer.heard_one(), 5), 131_072);
    let mut peer = self::peer();
    let id = peer.opened(5, 1000, 1000);
    for _ in 0..8 {
        peer.data(id, 32768).unwrap();
    }
    let done = peer.hand(&extended);
    peer.assert_dead(done, 2);
}

#[test]
fn a_window_made_too_large_ends_the_connection() {
    let mut peer = peer();
    let id = peer.opened(5, u32::MAX - 1, 1000);
    let adjust = |by: u32| message(|w| w.u8(number::CHANNEL_WINDOW_ADJUST).u32(id.number).u32(by));
    assert!(matches!(peer.hand(&adjust(1)), Ok(None)));
    let done = peer.hand(&adjust(1));
    peer.assert_dead(done, 2);
}

#[test]
fn channels_take_turns_and_the_output_stays_short() {
    let mut peer = peer();
    let ids: Vec<Id> = (0..3).map(|remote| peer.opened(remote, 1 << 30, 1 << 30)).collect();
    for id in &ids {
        peer.core.send(*id, &vec![0; 300_000]).unwrap();
    }
    assert_eq!(peer.core.queued(), 900_000);
    let mut order = Vec::new();
    while peer.core.is_ready() {
        let mut drained = Vec::new();
        peer.core.pump(&mut drained, &mut |_| true);
        let length = peer.core.output().len();
        assert!(length > 0 && length < 64 * 1024 + 33_000, "{length}");
        peer.core.pump(&mut drained, &mut |_| true);
        assert_eq!(peer.core.output().len(), length, "there is enough to be written");
        peer.heard();
        order.extend(drained);
    }
    assert!(order.iter().all(|(_, bytes)| *bytes <= 32 * 1024));
    for turn in order[..24].chunks(3) {
        assert_eq!(turn.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ids);
    }
    assert_eq!(order.iter().map(|(_, bytes)| bytes).sum::<u32>(), 900_000);
    assert_eq!(peer.core.queued(), 0);
}

#[test]
fn peers_that_take_nothing_are_served_without_spinning() {
    let mut peer = peer();
    for (remote, window, packet) in [(0, 0, 1000), (1, 1000, 0), (2, 0, 0)] {
        let id = peer.opened(remote, window, packet);
        peer.core.send(id, b"abc").unwrap();
        assert!(!peer.core.is_ready() && peer.pumped().0.is_empty());
        let adjust = message(|w| w.u8(number::CHANNEL_WINDOW_ADJUST).u32(id.number).u32(2));
        peer.hand(&adjust).unwrap();
        let sent = if packet == 0 { vec![] } else { vec![(id, 2)] };
        assert_eq!(peer.pumped().1, sent);
        assert!(!peer.core.is_ready());
        peer.core.close(id);
        assert_eq!(peer.heard_one(), message(|w| w.u8(number::CHANNEL_CLOSE).u32(remote)));
    }
    assert_eq!(peer.core.queued(), 0);
}

#[test]
fn a_frame_passes_in_place_while_windows_queues_and_output_allow() {
    let mut peer = peer();
    let id = peer.opened(0x0102_0304, 5000, 3000);
    let mut passed = frame(3000);
    assert_eq!(peer.core.relay(id, &mut passed, 14..3014), Relayed::InPlace);
    let mut want = frame(3000);
    want[6..10].copy_from_slice(&[1, 2, 3, 4]);
    assert_eq!(passed[..3014], want[..3014]);
    // Beyond the window it is queued, and then everything is, in order.
    assert_eq!(peer.core.relay(id, &mut frame(2001), 14..2015), Relayed::Copied);
    assert_eq!(peer.core.relay(id, &mut frame(1), 14..15), Relayed::Copied);
    assert_eq!(peer.pumped().1, [(id, 2000)]);
    assert_eq!(peer.core.queued(), 2);
    peer.hand(&message(|w| w.u8(number::CHANNEL_WINDOW_ADJUST).u32(id.number).u32(99_999)))
        .unwrap();
    assert_eq!(peer.pumped().1, [(id, 2)]);
    // Beyond the packet it is split.
    assert_eq!(peer.core.relay(id, &mut frame(7000), 14..7014), Relayed::Copied);
    let (heard, _) = peer.pumped();
    assert_eq!(heard.iter().map(|it| word(it, 5)).collect::<Vec<_>>(), [3000, 3000, 1000]);
    // Other messages and other places are not passed.
    let mut other = frame(10);
    other[5] = number::CHANNEL_EXTENDED_DATA;
    assert_eq!(peer.core.relay(id, &mut other, 14..24), Relayed::Copied);
    assert_eq!(peer.pumped().1, [(id, 10)]);
    assert_eq!(peer.core.relay(id, &mut frame(10), 15..24), Relayed::Copied);
    assert_eq!(peer.pumped().1, [(id, 9)]);
    // A long output is not made longer.
    peer.core.output().append(&vec![0; 64 * 1024]);
    assert_eq!(peer.core.relay(id, &mut frame(10), 14..24), Relayed::Copied);
    let length = peer.core.output().len();
    peer.core.output().consume(length);
    assert_eq!(peer.pumped().1, [(id, 10)]);
    peer.core.eof(id);
    assert_eq!(peer.core.relay(id, &mut frame(10), 14..24), Relayed::Dropped);
    peer.core.close(id);
    assert_eq!(peer.core.relay(id, &mut frame(10), 14..24), Relayed::Dropped);
}

#[test]
fn nothing_is_sealed_while_keys_are_exchanged_and_a_goodbye_is() {
    let mut peer = peer();
    let id = peer.opened(5, 100_000, 1000);
    peer.core.rekey(peer.now);
    assert_eq!(peer.heard_one()[0], number::KEXINIT);
    assert_eq!(peer.core.relay(id, &mut frame(10), 14..24), Relayed::Copied);
    peer.data(id, 100).unwrap();
    peer.core.consumed(id, 100, peer.now);
    peer.core.finish(id);
    assert!(peer.core.is_ready() && peer.pumped().0.is_empty());
    peer.core.disconnect(crate::DisconnectCode::ByApplication, "bye");
    assert_eq!(peer.heard_one()[0], number::DISCONNECT);
}

#[test]
fn the_budget_bounds_all_windows_and_gets_them_back() {
    let mut config = config();
    config.windows.first = 64 << 10;
    // A share of 128 KiB, and of the reserve 320 KiB.
    config.budget = crate::Budget::new(1 << 20);
    let budget = config.budget.clone();
    let mut peer = Peer::logged_in(config);
    let ids: Vec<Id> = (0..2).map(|remote| peer.opened(remote, 1, 1)).collect();
    let third = peer.opened(2, 1, 1);
    assert_eq!(budget.taken(), (64 + 64 + 16) << 10);
    let more: Vec<Id> = (3..14).map(|remote| peer.opened(remote, 1, 1)).collect();
    assert_eq!(budget.taken(), 320 << 10);
    assert!(matches!(peer.hand(&super::direct(14, 1, 1)), Ok(Some(Event::NoRoom(_)))));
    assert_eq!(word(&peer.heard_one(), 5), 4);
    assert!(peer.core.open_forwarded("a", 1, ("", 0)).is_err());
    for id in more {
        peer.core.close(id);
    }
    // Our own CLOSE gives it back, whether the peer answers it or not.
    peer.core.close(third);
    assert_eq!(budget.taken(), 128 << 10);
    peer.heard();
    // What came and was not consumed stays taken when the peer closes, until it is or nobody wants it.
    for id in &ids {
        peer.data(*id, 30_000).unwrap();
        peer.say(|w| w.u8(number::CHANNEL_CLOSE).u32(id.number)).unwrap();
    }
    assert_eq!(budget.taken(), 60_000);
    peer.core.consumed(ids[0], 10_000, peer.now);
    assert_eq!(budget.taken(), 50_000);
    peer.core.close(ids[0]);
    peer.core.consumed(ids[1], 30_000, peer.now);
    assert_eq!(budget.taken(), 0);
}

#[test]
fn a_crowd_that_stands_idle_locks_nobody_out() {
    let mut config = self::config();
    config.windows = Windows::default();
    config.budget = crate::Budget::new(4 << 20);
    let (budget, windows) = (config.budget.clone(), config.windows);
    // Each begins some channels, until all of the budget is theirs.
    let mut crowd = Vec::new();
    while budget.taken() < 4 << 20 {
        let config = Config { budget: budget.clone(), windows, ..self::config() };
        let mut peer = Peer::logged_in(config);
        for remote in 0..4 {
            peer.opened(remote, 1, 1);
        }
        crowd.push(peer);
    }
    assert!(crowd.len() > 16);
    let mut late = Peer::logged_in(Config { budget, ..config });
    for remote in 0..4 {
        let id = late.opened(remote, 1, 1);
        late.data(id, 16 << 10).unwrap();
    }
}

#[test]
fn windows_that_nobody_uses_shrink_as_time_goes_by() {
    let mut config = config();
    config.windows = Windows::default();
    let budget = config.budget.clone();
    let mut peer = Peer::logged_in(config);
    let id = peer.opened(5, 1, 1);
    for _ in 0..16 {
        peer.data(id, 16 << 10).unwrap();
        peer.core.consumed(id, 16 << 10, peer.now);
    }
    assert_eq!(budget.taken(), 256 << 10, "it moved much");
    peer.data(id, 16 << 10).unwrap();
    peer.core.consumed(id, 16 << 10, peer.now);
    let grown = budget.taken();
    peer.now += std::time::Duration::from_secs(11);
    peer.core.tick(peer.now).unwrap();
    assert!(budget.taken() < grown, "{}", budget.taken());
}

#[test]
fn what_a_peer_left_behind_counts_as_its_channel() {
    let mut config = config();
    config.limits.channels = 1;
    let mut peer = Peer::logged_in(config);
    let id = peer.opened(0, 1, 1);
    peer.data(id, 10).unwrap();
    peer.say(|w| w.u8(number::CHANNEL_CLOSE).u32(id.number)).unwrap();
    peer.heard();
    peer.hand(&super::direct(3, 1, 1)).unwrap();
    assert_eq!(peer.heard_one()[0], number::CHANNEL_OPEN_FAILURE);
    peer.core.consumed(id, 10, peer.now);
    peer.opened(1, 1, 1);
}

#[test]
fn a_window_grows_where_the_path_is_long() {
    let mut config = config();
    config.windows = Windows { first: 64 << 10, most: 1 << 20, ..Windows::default() };
    let mut peer = Peer::logged_in(config);
    let id = peer.opened(5, 1, 1);
    let mut window = 64 << 10;
    for _ in 0..10 {
        while window > 0 {
            peer.data(id, window.min(32768)).unwrap();
            peer.core.consumed(id, 32768, peer.now);
            window = window.saturating_sub(32768);
        }
        peer.now += std::time::Duration::from_millis(200);
        window = peer.heard().iter().map(|adjust| word(adjust, 5) as usize).sum();
    }
    assert!(window > 512 << 10, "{window}");
}

#[test]
fn what_waits_for_one_that_may_not_is_dropped_with_its_eof() {
    let mut peer = peer();
    let ids: Vec<Id> = (0..2).map(|remote| peer.opened(remote, 1000, 1000)).collect();
    for id in &ids {
        peer.core.send(*id, b"abc").unwrap();
        peer.core.eof(*id);
        assert_eq!(peer.core.queued_on(*id), 3);
    }
    let mut drained = Vec::new();
    peer.core.pump(&mut drained, &mut |id| id == ids[1]);
    assert_eq!(drained, [(ids[1], 3)]);
    let heard: Vec<_> = peer.heard().iter().map(|it| (it[0], word(it, 1))).collect();
    assert_eq!(heard, [(number::CHANNEL_DATA, 1), (number::CHANNEL_EOF, 1)]);
    assert_eq!(peer.core.queued(), 0);
    peer.core.finish(ids[0]);
    let heard: Vec<_> = peer.pumped().0.iter().map(|it| it[0]).collect();
    assert_eq!(heard, [number::CHANNEL_CLOSE]);
}

#[test]
fn a_channel_whose_data_waits_for_its_turn_is_not_passed_by_another() {
    let mut peer = peer();
    let first = peer.opened(1, 100_000, 32768);
    let second = peer.opened(2, 100_000, 32768);
    peer.core.send(first, b"abc").unwrap();
    assert_eq!(peer.core.relay(second, &mut frame(10), 14..24), Relayed::Copied);
    assert_eq!(peer.pumped().1, [(first, 3), (second, 10)]);
    assert_eq!(peer.core.relay(second, &mut frame(10), 14..24), Relayed::InPlace);
    // One that cannot send now holds up nobody.
    let stalled = peer.opened(3, 0, 32768);
    peer.core.send(stalled, b"abc").unwrap();
    assert_eq!(peer.core.relay(second, &mut frame(10), 14..24), Relayed::InPlace);
}

#[test]
fn a_frame_that_the_cipher_cannot_take_is_copied_and_counts_once() {
    let mut peer = peer();
    let id = peer.opened(1, 10, 100);
    let mut odd = frame(10);
    odd.push(0);
    assert_eq!(peer.core.relay(id, &mut odd, 14..24), Relayed::Copied);
    assert_eq!(peer.pumped().1, [(id, 10)]);
}

#[test]
fn no_window_is_given_after_the_end_of_either_side() {
    let mut peer = peer();
    let id = peer.opened(1, 1000, 1000);
    for _ in 0..6 {
        peer.data(id, 32768).unwrap();
    }
    peer.core.finish(id);
    assert_eq!(peer.pumped().0.len(), 1, "CLOSE");
    peer.core.consumed(id, 6 * 32768, peer.now);
    assert!(matches!(peer.data(id, 100), Ok(None)), "what comes after our CLOSE is dropped");
    assert!(peer.heard().is_empty());

    let id = peer.opened(2, 1000, 1000);
    for _ in 0..6 {
        peer.data(id, 32768).unwrap();
    }
    peer.say(|w| w.u8(number::CHANNEL_EOF).u32(id.number)).unwrap();
    peer.core.consumed(id, 6 * 32768, peer.now);
    assert!(peer.heard().is_empty());
}
