//! Two legs and a channel between them, sealed: logins, frames that pass in place, keys that change in
//! the middle of it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tidegate_ssh_client::{Client, Offer};

use super::{Seeded, config};
use crate::core::Core;
use crate::event::Event;
use crate::message::number;
use crate::plain::keys::{TestKey, ed25519};
use crate::plain::{TestDoor, message, word};
use crate::{Id, Inbound, Next, Relayed};

const NOW: Duration = Duration::from_secs(1);

/// The relay's side of one connection, and the client at its other end.
struct Leg {
    core: Core,
    inbound: Inbound,
    buffer: Vec<u8>,
    client: Client,
    door: TestDoor,
    /// What has happened that was not data.
    events: Vec<Event>,
}

/// Data of a channel where it came: its channel, its frame, and its place in the frame.
type Piece = (Id, Vec<u8>, Range<usize>);

impl Leg {
    fn new(offer: Offer) -> Self {
        let config = config();
        Self {
            inbound: Inbound::new(config.rekey),
            core: Core::new(Arc::new(config), Box::new(Seeded(1 << 40)), NOW),
            buffer: Vec::new(),
            client: Client::new(offer),
            door: TestDoor::default(),
            events: Vec::new(),
        }
    }

    /// What the client sent goes to the core; the data in it is returned.
    fn up(&mut self) -> Vec<Piece> {
        self.buffer.extend(self.client.take());
        let mut pieces = Vec::new();
        let mut at = 0;
        loop {
            match self.inbound.next(&mut self.buffer, at).unwrap() {
                Next::Incomplete { .. } => break,
                Next::Version { line, next } => {
                    self.core.version(&self.buffer[line]);
                    at = next;
                }
                Next::Message { frame, message, next, sequence } => {
                    let whole = self.buffer[frame.clone()].to_vec();
                    let place = message.start - frame.start;
                    let message = &self.buffer[message];
                    match self.core.handle(message, sequence, &mut self.door, NOW).unwrap() {
                        Some(Event::Keys { opener, reset_sequence, .. }) => {
                            self.inbound.install(opener, reset_sequence);
                        }
                        Some(Event::Data { channel, bytes }) => {
                            pieces.push((channel, whole, place + bytes.start..place + bytes.end));
                        }
                        Some(event) => self.events.push(event),
                        None => {}
                    }
                    at = next;
                }
                Next::Exhausted => self.core.rekey(NOW),
            }
        }
        self.buffer.drain(..at);
        pieces
    }

    /// What the core sealed goes to the client.
    fn down(&mut self) -> usize {
        let output = self.core.output();
        let bytes = output.as_slice().to_vec();
        output.consume(bytes.len());
        self.client.receive(&bytes);
        bytes.len()
    }

    fn settle(&mut self) {
        loop {
            assert!(self.up().is_empty());
            if self.down() == 0 && self.client.outbound.output.is_empty() {
                return;
            }
        }
    }

    fn log_in(&mut self, key: &TestKey, bound: bool) {
        self.settle();
        let session = self.client.session.unwrap();
        self.door.keys.push(key.blob.clone());
        self.client.say(&message(|w| w.u8(number::SERVICE_REQUEST).string("ssh-userauth")));
        let login = if bound {
            let host_key = super::ed25519(1);
            key.hostbound("alice", &session, host_key.blob())
        } else {
            key.login("alice", &session)
        };
        self.client.say(&login);
        self.settle();
        let event = self.events.pop();
        assert!(matches!(event, Some(Event::Authenticated { .. })), "{event:?}");
        let got: Vec<u8> = self.client.got.drain(..).map(|it| it[0]).collect();
        assert_eq!(got, [7, 6, 52, 80], "EXT_INFO, the service, SUCCESS, the host keys");
    }
}

fn offer(cipher: &'static str) -> Offer {
    Offer { ciphers: [vec![cipher], vec![cipher]], ..Offer::default() }
}

/// Staff and terminal, logged in, with a channel from one to the other: the terminal calls it 7.
fn joined(staff: Offer, terminal: Offer) -> (Leg, Id, Leg, Id) {
    let (mut staff, mut terminal) = (Leg::new(staff), Leg::new(terminal));
    staff.log_in(&ed25519(), true);
    terminal.log_in(&ed25519(), false);
    staff.client.say(&crate::plain::direct(3, 1 << 20, 32768));
    staff.settle();
    let Some(Event::Open { channel: up, .. }) = staff.events.pop() else { panic!() };
    let down = terminal.core.open_forwarded("localhost", 22, ("", 0)).unwrap();
    terminal.client.say(&message(|w| {
        w.u8(number::CHANNEL_OPEN_CONFIRMATION).u32(down.number).u32(7).u32(1 << 30).u32(32768)
    }));
    terminal.settle();
    assert!(matches!(terminal.events.pop(), Some(Event::Opened { .. })));
    staff.core.confirm(up);
    staff.settle();
    staff.client.got.clear();
    terminal.client.got.clear();
    (staff, up, terminal, down)
}

/// What a client got on its channel.
fn received(client: &mut Client) -> Vec<u8> {
    let mut all = Vec::new();
    for message in client.got.drain(..) {
        assert_eq!((message[0], word(&message, 1)), (number::CHANNEL_DATA, 7));
        all.extend_from_slice(&message[9..]);
    }
    all
}

#[test]
fn frames_pass_in_place_between_all_ciphers_also_while_keys_change() {
    let names =
        ["aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com"];
    for from in names {
        for to in names {
            let (mut staff, up, mut terminal, down) = joined(offer(from), offer(to));
            let mut passed: BTreeMap<&str, usize> = BTreeMap::new();
            let (mut sent, mut got) = (Vec::new(), Vec::new());
            for round in 0..60_u32 {
                // All lengths of padding, and a full packet.
                let length = if round % 10 == 0 { 32768 } else { 500 + round };
                let data: Vec<u8> = (0..length).map(|at| (at ^ round).to_be_bytes()[3]).collect();
                staff
                    .client
                    .say(&message(|w| w.u8(number::CHANNEL_DATA).u32(up.number).string(&data)));
                sent.extend_from_slice(&data);
                match round {
                    20 => terminal.core.rekey(NOW),
                    30 => staff.client.begin(),
                    35 => terminal.client.begin(),
                    // Both at once.
                    40 => {
                        terminal.core.rekey(NOW);
                        terminal.client.begin();
                        staff.core.rekey(NOW);
                        staff.client.begin();
                    }
                    _ => {}
                }
                for (id, mut frame, data) in staff.up() {
                    assert_eq!(id, up);
                    let bytes = u32::try_from(data.len()).unwrap();
                    let how = match terminal.core.relay(down, &mut frame, data) {
                        Relayed::InPlace => {
                            terminal.core.output().append(&frame);
                            "in place"
                        }
                        Relayed::Copied => "copied",
                        Relayed::Dropped => panic!("dropped"),
                    };
                    *passed.entry(how).or_default() += 1;
                    staff.core.consumed(up, bytes, NOW);
                }
                staff.down();
                terminal.core.pump(&mut Vec::new(), &mut |_| true);
                terminal.down();
                assert!(terminal.up().is_empty());
                got.extend(received(&mut terminal.client));
            }
            for _ in 0..4 {
                for (_, mut frame, data) in staff.up() {
                    if terminal.core.relay(down, &mut frame, data) == Relayed::InPlace {
                        terminal.core.output().append(&frame);
                    }
                }
                staff.down();
                terminal.core.pump(&mut Vec::new(), &mut |_| true);
                terminal.down();
                terminal.up();
                got.extend(received(&mut terminal.client));
            }
            assert!(got == sent, "{from} to {to}: {} of {} bytes", got.len(), sent.len());
            assert!(terminal.client.exchanges >= 4 && staff.client.exchanges >= 3);
            let in_place = passed.get("in place").copied().unwrap_or_default();
            let least =
                if from.starts_with("chacha") && !to.starts_with("chacha") { 20 } else { 45 };
            assert!(in_place >= least, "{from} to {to}: {passed:?}");
        }
    }
}

#[test]
fn requests_are_answered_in_order_across_a_change_of_keys() {
    let mut leg = Leg::new(Offer::default());
    leg.log_in(&ed25519(), true);
    leg.client.say(&message(|w| {
        w.u8(number::GLOBAL_REQUEST).string("tcpip-forward").bool(true).string("").u32(0)
    }));
    leg.settle();
    let Some(Event::Forward { token, .. }) = leg.events.pop() else { panic!() };
    leg.core.rekey(NOW);
    leg.core.answer_forward(token, Some(4022));
    assert!(leg.core.ping());
    leg.settle();
    let reply = message(|w| w.u8(number::REQUEST_SUCCESS).u32(4022));
    let ping = message(|w| w.u8(number::GLOBAL_REQUEST).string("keepalive@openssh.com").bool(true));
    assert_eq!(leg.client.got, [reply, ping]);
    assert_eq!(leg.client.exchanges, 2);
}

#[test]
fn an_unanswered_rekey_ends_and_a_goodbye_goes_out_in_the_middle_of_one() {
    let mut leg = Leg::new(Offer::default());
    leg.log_in(&ed25519(), true);
    leg.core.rekey(NOW);
    leg.down();
    leg.core.tick(NOW).unwrap();
    let deadline = leg.core.deadline().unwrap();
    assert_eq!(deadline, NOW + Duration::from_secs(30));
    assert!(leg.core.tick(NOW + Duration::from_millis(29_999)).is_ok());
    assert_eq!(leg.core.tick(deadline).unwrap_err().code.number(), 3);
    assert!(leg.core.is_over() && leg.core.tick(deadline).is_ok());

    let mut leg = Leg::new(Offer::default());
    leg.log_in(&ed25519(), true);
    leg.core.rekey(NOW);
    leg.core.disconnect(crate::DisconnectCode::ByApplication, "the window has closed");
    leg.down();
    let last = leg.client.got.pop().unwrap();
    assert_eq!((last[0], word(&last, 1)), (number::DISCONNECT, 11));
}

#[test]
fn a_client_with_a_low_limit_rekeys_all_through_a_transfer() {
    for staff_sends in [true, false] {
        let (mut staff, up, mut terminal, down) = joined(Offer::default(), Offer::default());
        let data = vec![7; 4096];
        for _ in 0..100 {
            if staff_sends {
                staff
                    .client
                    .say(&message(|w| w.u8(number::CHANNEL_DATA).u32(up.number).string(&data)));
                for (_, mut frame, data) in staff.up() {
                    if terminal.core.relay(down, &mut frame, data) == Relayed::InPlace {
                        terminal.core.output().append(&frame);
                    }
                    staff.core.consumed(up, 4096, NOW);
                }
            } else {
                terminal.core.send(down, &data).unwrap();
                terminal.core.pump(&mut Vec::new(), &mut |_| true);
            }
            for leg in [&mut staff, &mut terminal] {
                leg.settle();
                leg.client.got.clear();
            }
            let rekeys = if staff_sends { &mut staff } else { &mut terminal };
            rekeys.client.begin();
            rekeys.settle();
        }
        let rekeyed = if staff_sends { staff } else { terminal };
        assert_eq!(rekeyed.client.exchanges, 101);
    }
}
