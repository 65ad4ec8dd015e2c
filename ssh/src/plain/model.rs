//! What a peer knows of a connection, and what it may take from the core.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::op::Op;
use super::{Peer, host_key, message, word};
use crate::config::{Config, Windows};
use crate::event::Event;
use crate::global::Token;
use crate::message::{OpenFailure, number};
use crate::{Budget, Id};

const BUDGET: usize = 100_000;
const CHANNELS: usize = 8;
const UNANSWERED: usize = 4;

/// What the peer knows of a channel.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each way ends by itself")]
struct Side {
    /// Our number for it, once the peer knows.
    number: Option<u32>,
    /// What the core may send, and in one packet.
    window: u64,
    packet: u32,
    /// What the peer may send.
    left: u64,
    /// The core has said so.
    eof: bool,
    closed: bool,
    /// The peer has.
    peer_eof: bool,
    peer_closed: bool,
    /// Requests that want replies.
    asked: u32,
}

/// The peer's view of everything, by the peer's numbers.
pub(super) struct Model {
    pub peer: Peer,
    pub budget: std::sync::Arc<Budget>,
    sides: BTreeMap<u32, Side>,
    next: u32,
    /// Channels that the core asks for: its numbers, and their windows.
    asking: VecDeque<(u32, u32)>,
    /// All handles that there ever were.
    ids: Vec<Id>,
    tokens: Vec<(Token, bool)>,
    /// Global requests that want replies: for port 0 its mark.
    globals: VecDeque<Option<u32>>,
    marks: BTreeMap<usize, u32>,
}

impl Model {
    /// The relay lets all channels go that there ever were.
    pub fn close_all(&mut self) {
        for id in self.ids.drain(..) {
            self.peer.core.close(id);
        }
    }

    pub fn new() -> Self {
        let mut config = Config::new(vec![host_key(1)]);
        config.limits.channels = CHANNELS;
        config.limits.unanswered = UNANSWERED;
        config.limits.output = 1 << 20;
        config.windows = Windows { least: 1000, first: 4000, usual: 8000, most: 40_000 };
        config.budget = Budget::new(BUDGET);
        let budget = config.budget.clone();
        Self {
            peer: Peer::logged_in(config),
            budget,
            sides: BTreeMap::new(),
            next: 1000,
            asking: VecDeque::new(),
            ids: Vec::new(),
            tokens: Vec::new(),
            globals: VecDeque::new(),
            marks: BTreeMap::new(),
        }
    }

    fn id(&self, which: usize) -> Option<Id> {
        self.ids.iter().rev().nth(which).copied()
    }

    /// A channel that the peer may still name.
    fn side(&mut self, which: usize) -> Option<&mut Side> {
        let mut known: Vec<_> = self
            .sides
            .values_mut()
            .filter(|side| side.number.is_some() && !side.peer_closed)
            .collect();
        let count = known.len();
        (count > 0).then(|| known.swap_remove(which % count))
    }

    fn remote(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    fn open(&mut self, name: &str, window: u32, packet: u32) {
        let remote = self.remote();
        let side = Side { window: window.into(), packet, ..Side::default() };
        self.sides.insert(remote, side);
        let mut open = message(|w| {
            w.u8(number::CHANNEL_OPEN).string(name).u32(remote).u32(window).u32(packet)
        });
        if name == "direct-tcpip" {
            open.extend(message(|w| w.string("kiosk").u32(22).string("").u32(0)));
        }
        self.hand(&open);
    }

    /// A message that is allowed.
    fn hand(&mut self, message: &[u8]) {
        // None of these may end the connection but by the bounds on memory.
        match self.peer.hand(message) {
            Ok(Some(event)) => self.event(&event),
            Ok(None) => {}
            Err(fatal) => {
                let bound = ["wait for their answers", "more than it reads", "not answered"];
                assert!(bound.iter().any(|it| fatal.text.contains(it)), "{fatal} by {message:?}");
            }
        }
    }

    fn event(&mut self, event: &Event) {
        match *event {
            Event::Open { channel, .. }
            | Event::Request { channel, .. }
            | Event::Opened { channel } => self.ids.push(channel),
            Event::Forward { token, port, .. } => {
                // The mark is in the last request.
                if port == 0
                    && let Some(Some(mark)) = self.globals.back()
                {
                    self.marks.insert(self.tokens.len(), *mark);
                }
                self.tokens.push((token, true));
            }
            Event::Cancel { token, .. } => self.tokens.push((token, false)),
            _ => {}
        }
    }

    pub fn peers(&mut self, op: &Op) {
        match *op {
            Op::OpenDirect { window, packet } => self.open("direct-tcpip", window, packet),
            Op::OpenSession { window, packet } => self.open("session", window, packet),
            Op::Confirm { which, window, packet } => {
                let Some((number, left)) = self.asking.remove(which) else { return };
                let remote = self.remote();
                let side = Side {
                    number: Some(number),
                    window: window.into(),
                    packet,
                    left: left.into(),
                    ..Side::default()
                };
                self.sides.insert(remote, side);
                self.hand(&message(|w| {
                    w.u8(number::CHANNEL_OPEN_CONFIRMATION).u32(number).u32(remote);
                    w.u32(window).u32(packet)
                }));
            }
            Op::Fail { which } => {
                let Some((number, _)) = self.asking.remove(which) else { return };
                self.hand(&message(|w| {
                    w.u8(number::CHANNEL_OPEN_FAILURE).u32(number).u32(2).string("").string("")
                }));
            }
            Op::Data { which, bytes } => self.data(which, bytes, false),
            Op::Extended { which, bytes } => self.data(which, bytes, true),
            Op::Adjust { which, bytes } => {
                let Some(side) = self.side(which) else { return };
                if side.window + u64::from(bytes) > u64::from(u32::MAX) {
                    return;
                }
                side.window += u64::from(bytes);
                let number = side.number.unwrap();
                self.hand(&message(|w| w.u8(number::CHANNEL_WINDOW_ADJUST).u32(number).u32(bytes)));
            }
            Op::End { which, close } => {
                let Some(side) = self.side(which) else { return };
                let number = side.number.unwrap();
                side.peer_eof = true;
                side.peer_closed |= close;
                let kind = if close { number::CHANNEL_CLOSE } else { number::CHANNEL_EOF };
                self.hand(&message(|w| w.u8(kind).u32(number)));
            }
            Op::Ask { which, name, wants_reply } => {
                let Some(side) = self.side(which) else { return };
                let number = side.number.unwrap();
                side.asked += u32::from(wants_reply);
                self.hand(&message(|w| {
                    w.u8(number::CHANNEL_REQUEST).u32(number).string(name);
                    w.bool(wants_reply).string("more")
                }));
            }
            Op::Global { name, port, wants_reply } => {
                let marked = name == "tcpip-forward" && port == 0;
                let mark = self.remote();
                if wants_reply {
                    self.globals.push_back(marked.then_some(mark));
                }
                let mut ask =
                    message(|w| w.u8(number::GLOBAL_REQUEST).string(name).bool(wants_reply));
                if name.ends_with("forward") {
                    ask.extend(message(|w| w.string("localhost").u32(port)));
                }
                self.hand(&ask);
            }
            Op::Raw(ref bytes) => {
                // Whatever it is, and whatever it does.
                let _ = self.peer.core.handle(bytes, 1, &mut self.peer.door, self.peer.now);
                if !self.peer.core.is_over() {
                    self.peer.core.disconnect(crate::DisconnectCode::ByApplication, "enough");
                }
            }
            _ => {}
        }
    }

    fn data(&mut self, which: usize, bytes: u32, extended: bool) {
        let Some(side) = self.side(which) else { return };
        if side.peer_eof {
            return;
        }
        let bytes = u64::from(bytes).min(side.left);
        side.left -= bytes;
        let number = side.number.unwrap();
        let data = vec![0; usize::try_from(bytes).unwrap()];
        self.hand(&if extended {
            message(|w| w.u8(number::CHANNEL_EXTENDED_DATA).u32(number).u32(1).string(&data))
        } else {
            message(|w| w.u8(number::CHANNEL_DATA).u32(number).string(&data))
        });
    }

    pub fn relays(&mut self, op: Op) {
        let now = self.peer.now;
        let chosen = match &op {
            Op::Accept { which }
            | Op::Refuse { which }
            | Op::Send { which, .. }
            | Op::Relay { which, .. }
            | Op::Finish { which, .. }
            | Op::Consumed { which, .. }
            | Op::AnswerRequest { which, .. } => self.id(*which),
            _ => None,
        };
        let core = &mut self.peer.core;
        match (op, chosen) {
            (Op::Accept { .. }, Some(id)) => core.confirm(id),
            (Op::Refuse { .. }, Some(id)) => core.refuse(id, OpenFailure::ConnectFailed, "no"),
            (Op::Send { bytes, extended, .. }, Some(id)) => {
                let data = vec![0; bytes];
                let _ =
                    if extended { core.send_extended(id, 1, &data) } else { core.send(id, &data) };
            }
            (Op::Relay { bytes, .. }, Some(id)) => {
                let mut frame = super::flow::frame(bytes);
                if core.relay(id, &mut frame, 14..14 + bytes) == crate::Relayed::InPlace {
                    core.output().append(&frame);
                }
            }
            (Op::Finish { how, .. }, Some(id)) => match how {
                0 => core.eof(id),
                1 => core.finish(id),
                2 => core.close(id),
                _ => core.exit_status(id, 1),
            },
            (Op::Consumed { bytes, .. }, Some(id)) => core.consumed(id, bytes, now),
            (Op::AnswerRequest { granted, .. }, Some(id)) => core.answer_request(id, granted),
            (Op::Forward, _) => {
                if let Ok(id) = core.open_forwarded("localhost", 22, ("", 0)) {
                    self.ids.push(id);
                }
            }
            (Op::Answer { which, granted }, _) => {
                // The oldest first, mostly.
                let Some((token, forward)) = self.tokens.get(which).copied() else { return };
                if forward {
                    let port = granted.then(|| self.marks.get(&which).copied().unwrap_or(7));
                    core.answer_forward(token, port);
                } else {
                    core.answer_cancel(token, granted);
                }
            }
            (Op::Ping, _) => {
                core.ping();
            }
            (Op::Pump, _) => core.pump(&mut Vec::new(), &mut |_| true),
            (Op::Wait(ms), _) => self.peer.now += Duration::from_millis(ms),
            (Op::Rekey, _) => core.rekey(now),
            _ => {}
        }
    }

    /// What the core sent is allowed, each message of it.
    pub fn look(&mut self) {
        for sent in self.peer.heard() {
            self.sent(&sent);
        }
        let core = &self.peer.core;
        let mut taken: u64 = 0;
        let mut queued = 0;
        let mut by_peer = 0;
        for channel in core.channels.all() {
            if channel.incoming.size() > 0 {
                assert!(channel.incoming.is_sound(), "{channel:?}");
            }
            taken += u64::from(channel.incoming.size());
            queued += channel.outgoing.len();
            by_peer += usize::from(channel.by_peer());
        }
        taken += core.channels.rests().map(|rest| u64::from(rest.size())).sum::<u64>();
        assert_eq!(self.budget.taken() as u64, taken);
        assert!(self.budget.taken() <= self.budget.most());
        assert_eq!(core.queued(), queued);
        assert!(by_peer <= core.channels.by_peer() && core.channels.by_peer() <= CHANNELS);
        assert!(core.channels.asking() <= UNANSWERED);
    }

    fn sent(&mut self, sent: &[u8]) {
        let kind = sent[0];
        let side = |sides: &mut BTreeMap<u32, Side>| {
            let side = sides.remove(&word(sent, 1)).expect("a channel that the peer knows");
            assert!(!side.closed, "message {kind} after CLOSE");
            side
        };
        match kind {
            number::CHANNEL_OPEN => {
                let at = 5 + usize::try_from(word(sent, 1)).unwrap();
                self.asking.push_back((word(sent, at), word(sent, at + 4)));
            }
            number::CHANNEL_OPEN_FAILURE => {
                let side = self.sides.remove(&word(sent, 1)).expect("asked for");
                assert!(side.number.is_none());
            }
            number::REQUEST_SUCCESS | number::REQUEST_FAILURE => {
                let asked = self.globals.pop_front().expect("a request that wants a reply");
                if kind == number::REQUEST_SUCCESS {
                    let port = (sent.len() == 5).then(|| word(sent, 1));
                    assert_eq!(port, asked, "not the reply to this request");
                }
            }
            91 | 93..=100 => {
                let mut side = side(&mut self.sides);
                match kind {
                    number::CHANNEL_OPEN_CONFIRMATION => {
                        assert!(side.number.replace(word(sent, 5)).is_none());
                        side.left = word(sent, 9).into();
                    }
                    number::CHANNEL_WINDOW_ADJUST => {
                        side.left += u64::from(word(sent, 5));
                        assert!(side.left <= 40_000, "beyond what a window may be");
                    }
                    number::CHANNEL_DATA | number::CHANNEL_EXTENDED_DATA => {
                        let at = if kind == number::CHANNEL_DATA { 5 } else { 9 };
                        let bytes = word(sent, at);
                        assert!(!side.eof, "data after EOF");
                        assert!(bytes <= side.packet, "beyond the packet");
                        side.window = side.window.checked_sub(bytes.into()).expect("a window");
                    }
                    number::CHANNEL_EOF => assert!(!std::mem::replace(&mut side.eof, true)),
                    number::CHANNEL_CLOSE => side.closed = true,
                    number::CHANNEL_SUCCESS | number::CHANNEL_FAILURE => {
                        side.asked = side.asked.checked_sub(1).expect("a request");
                    }
                    _ => {}
                }
                self.sides.insert(word(sent, 1), side);
            }
            _ => {}
        }
    }
}
