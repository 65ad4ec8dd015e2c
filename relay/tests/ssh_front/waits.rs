//! A connection with one channel waits for the other leg where that takes nothing; what comes behind
//! what it holds is handled all the same.

use std::time::Duration;

use tidegate_relay::ssh::Connection;
use tidegate_ssh_client::Event;

use crate::client::bytes;
use crate::gate::{Gate, SERVICE, Seen};
use crate::raw::Raw;

/// More than the windows and the kernel take together.
const MUCH: usize = 2 << 20;
/// Long beside the time for which a connection waits.
const QUIET: Duration = Duration::from_millis(100);

/// Two peers, a channel between them, and its number at each.
struct Pair {
    gate: Gate,
    staff: Raw,
    near: u32,
    terminal: Raw,
    far: u32,
    connections: [Connection; 2],
}

impl Pair {
    fn new() -> Self {
        let gate = Gate::new();
        let mut terminal = Raw::login(&gate);
        let there = gate.authenticated();
        terminal.session.forward("", SERVICE);
        terminal.await_event(|event| matches!(event, Event::Answered { granted: true, .. }));
        let mut staff = Raw::login(&gate);
        let here = gate.authenticated();
        for raw in [&mut staff, &mut terminal] {
            // Their sockets are what is full.
            raw.session.gives = (1 << 30, 32 << 10);
        }
        let near = staff.session.open_direct("kiosk", 22);
        staff.flush();
        let asked = terminal.await_event(|event| matches!(event, Event::Asked { .. }));
        let Event::Asked { channel: far, .. } = asked else { panic!("{asked:?}") };
        terminal.session.confirm(far);
        terminal.flush();
        staff.opened(near);
        Self { gate, staff, near, terminal, far, connections: [here, there] }
    }

    /// Staff sends much, and the terminal reads nothing.
    fn held(&mut self) -> Vec<u8> {
        let data = bytes(MUCH);
        assert!(self.staff.session.send(self.near, &data));
        self.staff.settle(QUIET);
        assert!(self.staff.session.queued(self.near) > 0, "all of it was taken");
        data
    }

    /// What the terminal gets up to `all` bytes, while both do what they can.
    fn arrive(&mut self, all: usize) -> Vec<u8> {
        let mut got = Vec::new();
        while got.len() < all {
            self.staff.settle(Duration::from_millis(1));
            self.terminal.settle(Duration::from_millis(1));
            got.extend(self.terminal.data());
        }
        got
    }
}

#[test]
fn an_end_behind_what_is_held_comes_behind_it() {
    let mut pair = Pair::new();
    let data = pair.held();
    pair.staff.session.eof(pair.near);
    assert!(pair.arrive(data.len()) == data);
    pair.staff.flush();
    let far = pair.far;
    pair.terminal.await_event(|event| *event == Event::Eof { channel: far });
    // The other way is open.
    assert!(pair.terminal.session.send(far, b"bye"));
    pair.terminal.session.finish(far);
    pair.terminal.flush();
    let near = pair.near;
    pair.staff.await_event(|event| *event == Event::Data { channel: near, bytes: b"bye".to_vec() });
    pair.staff.await_event(|event| *event == Event::Closed { channel: near });
}

#[test]
fn a_second_channel_opens_while_the_first_one_waits() {
    let mut pair = Pair::new();
    let data = pair.held();
    let echo = pair.staff.session.open_direct("echo", 22);
    pair.staff.opened(echo);
    assert!(pair.staff.session.send(echo, b"x"));
    let came = Event::Data { channel: echo, bytes: b"x".to_vec() };
    pair.staff.await_event(|event| *event == came);
    assert!(pair.staff.session.queued(pair.near) > 0);
    assert!(pair.arrive(data.len()) == data);
}

#[test]
fn two_legs_that_have_much_for_each_other_do_not_wait_for_each_other() {
    let mut pair = Pair::new();
    let there = pair.held();
    let back: Vec<u8> = there.iter().rev().copied().collect();
    assert!(pair.terminal.session.send(pair.far, &back));
    let (mut sent, mut got) = (Vec::new(), Vec::new());
    while sent.len() < MUCH || got.len() < MUCH {
        for (raw, all) in [(&mut pair.terminal, &mut sent), (&mut pair.staff, &mut got)] {
            raw.settle(Duration::from_millis(1));
            all.extend(raw.data());
        }
    }
    assert!(sent == there && got == back);
}

#[test]
fn keys_change_at_both_legs_while_one_waits() {
    let mut pair = Pair::new();
    let data = pair.held();
    pair.staff.session.rekey();
    pair.staff.settle(QUIET);
    pair.terminal.session.rekey();
    assert!(pair.arrive(data.len()) == data);
}

#[test]
fn a_cut_takes_what_is_held_and_leaves_the_connection_that_held_it() {
    let mut pair = Pair::new();
    pair.held();
    let [here, there] = &pair.connections;
    there.kill();
    let near = pair.near;
    pair.staff.await_event(|event| *event == Event::Closed { channel: near });
    let echo = pair.staff.session.open_direct("echo", 22);
    pair.staff.opened(echo);
    assert!(!here.is_ending());
    assert!(pair.gate.supervisor.panics() == 0);
    pair.gate.wait(|seen| matches!(seen, Seen::Over).then_some(()));
}
