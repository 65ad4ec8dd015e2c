//! Channels of a client (RFC 4254 section 5).

use std::collections::VecDeque;

use tidegate_ssh::message::number;
use tidegate_ssh::wire::Reader;

use super::{Event, Phase, Session};
use crate::Fault;

/// The largest data of one packet that is sent.
const PIECE: usize = 32 << 10;
/// Data is sealed while less than this waits for the socket.
const OUTPUT: usize = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// We asked.
    Asking,
    /// The server asked.
    Asked,
    Open,
}

/// EOF, or CLOSE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Last {
    Not,
    Wanted,
    Sent,
}

#[derive(Debug)]
pub(super) struct Channel {
    state: State,
    remote: u32,
    /// What the server takes.
    window: u32,
    packet: u32,
    outgoing: VecDeque<u8>,
    eof: Last,
    close: Last,
    /// What we take: the most, what the server may still send, what was consumed and not given again.
    size: u32,
    most: u32,
    left: u32,
    owed: u32,
    peer_eof: bool,
    /// Requests of ours that wait.
    unanswered: u32,
}

impl Channel {
    fn new(state: State, remote: u32, gives: (u32, u32)) -> Self {
        Self {
            state,
            remote,
            window: 0,
            packet: 0,
            outgoing: VecDeque::new(),
            eof: Last::Not,
            close: Last::Not,
            size: gives.0,
            most: gives.1,
            left: gives.0,
            owed: 0,
            peer_eof: false,
            unanswered: 0,
        }
    }
}

fn none(channel: u32) -> Fault {
    Fault::new(format!("the server names channel {channel}, which is not open"))
}

impl Session {
    fn enter(&mut self, channel: Channel) -> u32 {
        let unused = u32::try_from(self.channels.len()).unwrap_or(u32::MAX);
        let number = self.free.pop().unwrap_or(unused);
        self.channels.insert(number, channel);
        number
    }

    fn leave(&mut self, number: u32) {
        self.channels.remove(&number);
        self.free.push(number);
        if self.channels.is_empty() {
            self.free = Vec::new();
        }
    }

    fn open(&mut self, kind: &str, body: &[u8]) -> u32 {
        let number = self.enter(Channel::new(State::Asking, 0, self.gives));
        let (window, packet) = self.gives;
        self.say(|w| {
            w.u8(number::CHANNEL_OPEN).string(kind).u32(number).u32(window).u32(packet).bytes(body)
        });
        number
    }

    /// `direct-tcpip`, as `ssh -W` sends it. [`Event::Opened`] or [`Event::OpenFailed`] follows.
    pub fn open_direct(&mut self, host: &str, port: u32) -> u32 {
        let mut body = Vec::new();
        let mut w = tidegate_ssh::wire::Writer::new(&mut body);
        w.string(host).u32(port).string("127.0.0.1").u32(65_535);
        self.open("direct-tcpip", &body)
    }

    pub fn open_session(&mut self) -> u32 {
        self.open("session", &[])
    }

    /// The server's CHANNEL_OPEN.
    pub(super) fn asked(&mut self, mut r: Reader<'_>) -> Result<Option<Event>, Fault> {
        let kind = r.string()?;
        let (remote, window, packet) = (r.u32()?, r.u32()?, r.u32()?);
        let (address, port) = (r.text()?.to_owned(), r.u32()?);
        let _originator = (r.text()?, r.u32()?);
        r.end()?;
        if kind != b"forwarded-tcpip" {
            return Err(Fault::new("the server opens a channel that is no forwarded-tcpip"));
        }
        if self.channels.values().any(|it| it.state != State::Asking && it.remote == remote) {
            return Err(Fault::new(format!("the server uses number {remote} twice")));
        }
        let mut channel = Channel::new(State::Asked, remote, self.gives);
        (channel.window, channel.packet) = (window, packet);
        let channel = self.enter(channel);
        Ok(Some(Event::Asked { channel, address, port }))
    }

    /// Whether the server waits for [`Session::confirm`] or [`Session::refuse`].
    pub fn is_asked(&self, number: u32) -> bool {
        self.channels.get(&number).is_some_and(|it| it.state == State::Asked)
    }

    pub fn confirm(&mut self, number: u32) {
        let Some(channel) = self.channels.get_mut(&number) else { return };
        if channel.state == State::Asked {
            channel.state = State::Open;
            let (remote, window, packet) = (channel.remote, channel.left, channel.most);
            self.say(|w| {
                w.u8(number::CHANNEL_OPEN_CONFIRMATION).u32(remote).u32(number);
                w.u32(window).u32(packet)
            });
        }
    }

    pub fn refuse(&mut self, number: u32, code: u32, text: &str) {
        let asked = self.channels.get(&number).filter(|it| it.state == State::Asked);
        let Some(remote) = asked.map(|it| it.remote) else { return };
        self.leave(number);
        self.say(|w| {
            w.u8(number::CHANNEL_OPEN_FAILURE).u32(remote).u32(code).string(text).string("en")
        });
    }

    /// A request on a channel that is open and not closed; what `body` has is appended.
    pub fn request(&mut self, number: u32, name: &str, wants_reply: bool, body: &[u8]) {
        let Some(channel) = self.channels.get_mut(&number) else { return };
        if channel.state == State::Open && channel.close != Last::Sent {
            channel.unanswered += u32::from(wants_reply);
            let remote = channel.remote;
            self.say(|w| {
                w.u8(number::CHANNEL_REQUEST).u32(remote).string(name).bool(wants_reply).bytes(body)
            });
        }
    }

    /// Queues data; false if the channel takes none.
    pub fn send(&mut self, number: u32, data: &[u8]) -> bool {
        let takes = |it: &&mut Channel| it.eof == Last::Not && it.close == Last::Not;
        let Some(channel) = self.channels.get_mut(&number).filter(takes) else { return false };
        channel.outgoing.extend(data);
        true
    }

    /// Data that waits.
    pub fn queued(&self, number: u32) -> usize {
        self.channels.get(&number).map_or(0, |channel| channel.outgoing.len())
    }

    /// EOF after what is queued.
    pub fn eof(&mut self, number: u32) {
        if let Some(channel) = self.channels.get_mut(&number) {
            channel.eof = channel.eof.max(Last::Wanted);
        }
    }

    /// CLOSE after what is queued.
    pub fn finish(&mut self, number: u32) {
        if let Some(channel) = self.channels.get_mut(&number) {
            channel.close = channel.close.max(Last::Wanted);
        }
    }

    /// CLOSE; what is queued is dropped.
    pub fn close(&mut self, number: u32) {
        if let Some(channel) = self.channels.get_mut(&number) {
            channel.outgoing = VecDeque::new();
            channel.eof = Last::Sent;
            channel.close = channel.close.max(Last::Wanted);
        }
    }

    /// Data of this channel was taken: the server may send as much anew, once it is half of all.
    pub fn consumed(&mut self, number: u32, bytes: u32) {
        let Some(channel) = self.channels.get_mut(&number) else { return };
        channel.owed = channel.owed.saturating_add(bytes);
        if channel.state == State::Open
            && channel.owed >= channel.size / 2
            && channel.owed > 0
            && channel.close != Last::Sent
        {
            let (remote, owed) = (channel.remote, std::mem::take(&mut channel.owed));
            channel.left += owed;
            self.say(|w| w.u8(number::CHANNEL_WINDOW_ADJUST).u32(remote).u32(owed));
        }
    }

    /// Seals what may be sealed, a packet of each channel in turn.
    pub fn pump(&mut self) {
        let numbers: Vec<u32> = self.channels.keys().copied().collect();
        let mut more = self.phase == Phase::Within && self.client.is_open();
        while std::mem::take(&mut more) {
            for number in &numbers {
                if self.client.outbound.output.len() >= OUTPUT || !self.client.is_open() {
                    return;
                }
                more |= self.step(*number);
            }
        }
    }

    /// The next message of a channel, if it has one.
    fn step(&mut self, number: u32) -> bool {
        let Some(channel) = self.channels.get_mut(&number) else { return false };
        if channel.state != State::Open || channel.close == Last::Sent {
            return false;
        }
        let remote = channel.remote;
        if !channel.outgoing.is_empty() {
            let room = usize::try_from(channel.window.min(channel.packet)).unwrap_or(PIECE);
            let count = room.min(PIECE).min(channel.outgoing.len());
            if count == 0 {
                return false;
            }
            let bytes: Vec<u8> = channel.outgoing.drain(..count).collect();
            if channel.outgoing.is_empty() {
                channel.outgoing = VecDeque::new();
            }
            channel.window -= u32::try_from(count).unwrap_or_default();
            self.say(|w| w.u8(number::CHANNEL_DATA).u32(remote).string(bytes));
        } else if channel.eof == Last::Wanted {
            channel.eof = Last::Sent;
            self.say(|w| w.u8(number::CHANNEL_EOF).u32(remote));
        } else if channel.close == Last::Wanted {
            channel.close = Last::Sent;
            self.say(|w| w.u8(number::CHANNEL_CLOSE).u32(remote));
        } else {
            return false;
        }
        true
    }

    /// Messages 91 to 100, after their number.
    pub(super) fn channel_message(
        &mut self,
        kind: u8,
        mut r: Reader<'_>,
    ) -> Result<Option<Event>, Fault> {
        let channel = r.u32()?;
        let it = self.channels.get_mut(&channel).ok_or_else(|| none(channel))?;
        let awaited = if matches!(kind, 91 | 92) { State::Asking } else { State::Open };
        if it.state != awaited {
            return Err(none(channel));
        }
        let event = match kind {
            number::CHANNEL_OPEN_CONFIRMATION => {
                it.state = State::Open;
                (it.remote, it.window, it.packet) = (r.u32()?, r.u32()?, r.u32()?);
                Event::Opened { channel }
            }
            number::CHANNEL_OPEN_FAILURE => {
                let (code, text) = (r.u32()?, r.text()?.to_owned());
                r.string()?;
                self.leave(channel);
                Event::OpenFailed { channel, code, text }
            }
            number::CHANNEL_WINDOW_ADJUST => {
                let more = it.window.checked_add(r.u32()?);
                it.window = more.ok_or_else(|| Fault::new("a window was made too large"))?;
                return Ok(r.end().map(|()| None)?);
            }
            number::CHANNEL_DATA => {
                let bytes = r.string()?.to_vec();
                it.count(channel, &bytes)?;
                Event::Data { channel, bytes }
            }
            number::CHANNEL_EXTENDED_DATA => {
                let (kind, bytes) = (r.u32()?, r.string()?.to_vec());
                it.count(channel, &bytes)?;
                Event::Extended { channel, kind, bytes }
            }
            number::CHANNEL_EOF => {
                if std::mem::replace(&mut it.peer_eof, true) {
                    return Err(Fault::new(format!("a second EOF came on channel {channel}")));
                }
                Event::Eof { channel }
            }
            number::CHANNEL_CLOSE => {
                let remote = it.remote;
                if it.close != Last::Sent {
                    self.say(|w| w.u8(number::CHANNEL_CLOSE).u32(remote));
                }
                self.leave(channel);
                Event::Closed { channel }
            }
            number::CHANNEL_REQUEST => {
                let (name, wants_reply) = (r.string()?, r.bool()?);
                // sshd asks on a channel where there is one.
                if name == b"keepalive@openssh.com" && wants_reply {
                    let remote = it.remote;
                    self.say(|w| w.u8(number::CHANNEL_FAILURE).u32(remote));
                    return Ok(r.end().map(|()| None)?);
                }
                if name != b"exit-status" || wants_reply {
                    return Err(Fault::new("a request came on a channel that is no exit-status"));
                }
                Event::ExitStatus { channel, status: r.u32()? }
            }
            _ => {
                let less = it.unanswered.checked_sub(1);
                it.unanswered =
                    less.ok_or_else(|| Fault::new("a reply came that nobody waits for"))?;
                Event::Reply { channel, success: kind == number::CHANNEL_SUCCESS }
            }
        };
        r.end()?;
        Ok(Some(event))
    }
}

impl Channel {
    fn count(&mut self, channel: u32, bytes: &[u8]) -> Result<(), Fault> {
        let count = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        if self.peer_eof {
            return Err(Fault::new(format!("data came on channel {channel} after its EOF")));
        }
        if count > self.most {
            return Err(Fault::new(format!("{count} bytes came where {} may", self.most)));
        }
        let left = self.left.checked_sub(count);
        self.left = left.ok_or_else(|| Fault::new("data came beyond the window"))?;
        Ok(())
    }
}
