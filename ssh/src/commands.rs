//! What the relay does with channels: each call puts messages into the output, or what waits into the
//! channel's queue. A handle to a channel that is gone does nothing.

use std::time::Duration;

use crate::channel::receive::ReceiveWindow;
use crate::channel::send::Stream;
use crate::channel::{Channel, Id, Kind, State};
use crate::core::Core;
use crate::message::{Fatal, OpenFailure, number, printable};

/// The largest data of one packet that we take, in bytes, as peers are told.
pub(crate) const PACKET: u32 = 32 * 1024;

/// There is no such channel, or it takes no more data: it is closed, or its EOF is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the channel takes no more data")]
pub struct NoChannel;

/// No channel was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooMany {
    #[error("the peer leaves too many requests unanswered")]
    Unanswered,
    #[error("the connection has too many channels open")]
    Open,
    #[error("the relay's memory for windows is used up")]
    Budget,
    #[error("the connection is over")]
    Over,
}

impl Core {
    /// Confirms [`Event::Open`](crate::Event::Open) (RFC 4254 section 5.1).
    pub fn confirm(&mut self, id: Id) {
        let Some(channel) = self.channels.get_mut(id).filter(|it| it.state == State::Asked) else {
            return;
        };
        channel.state = State::Open;
        let (remote, window) = (channel.remote, channel.incoming.left());
        self.write(|w| {
            w.u8(number::CHANNEL_OPEN_CONFIRMATION).u32(remote).u32(id.number);
            w.u32(window).u32(PACKET);
        });
        self.channels.line_up(id);
    }

    /// Refuses [`Event::Open`](crate::Event::Open) (RFC 4254 section 5.1); OpenSSH prints `text`, of
    /// which at most 300 bytes are sent. The Id is void.
    pub fn refuse(&mut self, id: Id, code: OpenFailure, text: &str) {
        let Some(channel) = self.channels.get(id).filter(|it| it.state == State::Asked) else {
            return;
        };
        let remote = channel.remote;
        self.channels.leave(id);
        self.refuse_open(remote, code, text);
    }

    /// CHANNEL_OPEN_FAILURE (RFC 4254 section 5.1).
    pub(crate) fn refuse_open(&mut self, remote: u32, code: OpenFailure, text: &str) {
        let text = printable(text, Fatal::TEXT);
        self.write(|w| {
            w.u8(number::CHANNEL_OPEN_FAILURE).u32(remote).u32(code.number());
            w.string(&text).string("en");
        });
    }

    /// Asks for a `forwarded-tcpip` channel that names `address` and `port` as the peer asked for
    /// them in its `tcpip-forward` (RFC 4254 section 7.2). The answer is
    /// [`Event::Opened`](crate::Event::Opened) or [`Event::OpenFailed`](crate::Event::OpenFailed).
    pub fn open_forwarded(
        &mut self,
        address: &str,
        port: u32,
        originator: (&str, u32),
    ) -> Result<Id, TooMany> {
        if !self.is_authenticated() {
            return Err(TooMany::Over);
        }
        let limits = &self.config.limits;
        if self.channels.asking() >= limits.unanswered
            || self.channels.forsaken() >= limits.forsaken
        {
            return Err(TooMany::Unanswered);
        }
        if self.channels.len() >= limits.all_channels {
            return Err(TooMany::Open);
        }
        let incoming =
            ReceiveWindow::new(self.config.windows, &self.share).ok_or(TooMany::Budget)?;
        let window = incoming.left();
        let state = State::Asking { forsaken: false };
        let channel = Channel::new(Kind::Forwarded, state, 0, incoming);
        let id = self.channels.enter(channel).ok_or(TooMany::Open)?;
        self.write(|w| {
            w.u8(number::CHANNEL_OPEN).string("forwarded-tcpip");
            w.u32(id.number).u32(window).u32(PACKET);
            w.string(address).u32(port).string(originator.0).u32(originator.1);
        });
        Ok(id)
    }

    /// Queues data; [`Core::pump`] seals it. Also before the channel is confirmed.
    pub fn send(&mut self, id: Id, data: &[u8]) -> Result<(), NoChannel> {
        self.queue(id, Stream::Data, data)
    }

    /// Queues extended data of a type (1: standard error).
    pub fn send_extended(&mut self, id: Id, kind: u32, data: &[u8]) -> Result<(), NoChannel> {
        self.queue(id, Stream::Extended(kind), data)
    }

    pub(crate) fn queue(&mut self, id: Id, stream: Stream, data: &[u8]) -> Result<(), NoChannel> {
        let channel = self.channels.get_mut(id).filter(|it| it.outgoing.takes_data());
        channel.ok_or(NoChannel)?.outgoing.push(stream, data);
        self.channels.queued = self.channels.queued.saturating_add(data.len());
        self.channels.line_up(id);
        Ok(())
    }

    /// The status of the session's command, after what is queued and before EOF.
    pub fn exit_status(&mut self, id: Id, status: u32) {
        self.outgoing(id, |channel| channel.outgoing.exit_status(status));
    }

    /// EOF after what is queued.
    pub fn eof(&mut self, id: Id) {
        self.outgoing(id, |channel| channel.outgoing.eof());
    }

    /// CLOSE after what is queued. [`Event::Closed`](crate::Event::Closed) follows.
    pub fn finish(&mut self, id: Id) {
        self.outgoing(id, |channel| channel.outgoing.finish());
    }

    fn outgoing(&mut self, id: Id, change: impl FnOnce(&mut Channel)) {
        let Some(channel) = self.channels.get_mut(id) else { return };
        change(channel);
        self.channels.line_up(id);
    }

    /// CLOSE now: what is queued is dropped, and so is what still comes in or was not consumed. No
    /// event of this channel follows. A channel that is not confirmed yet is refused, or closed as
    /// soon as it is; it counts no longer as unanswered, but as forsaken. To be called for each channel in the end, also after
    /// [`Event::Closed`](crate::Event::Closed): what the peer sent on it counts as the peer's until
    /// then, or until it is consumed.
    pub fn close(&mut self, id: Id) {
        let Some(channel) = self.channels.get_mut(id) else { return self.channels.forget(id) };
        match channel.state {
            State::Asked => {
                return self.refuse(id, OpenFailure::ConnectFailed, "the relay ended the request");
            }
            State::Asking { forsaken } => {
                channel.state = State::Asking { forsaken: true };
                // Whatever comes on it is nobody's.
                channel.incoming.retire();
                let dropped = channel.outgoing.clear();
                self.channels.queued = self.channels.queued.saturating_sub(dropped);
                if !forsaken {
                    self.channels.forsake();
                }
                return;
            }
            State::Open => {}
        }
        channel.silent = true;
        channel.incoming.retire();
        let dropped = channel.outgoing.close();
        self.channels.queued = self.channels.queued.saturating_sub(dropped);
        self.seal_end(id);
    }

    /// Sends what an emptied queue still has: EOF, CLOSE. Control messages need no turn.
    fn seal_end(&mut self, id: Id) {
        let Some(channel) = self.channels.get_mut(id) else { return };
        if channel.outgoing.close_sent() {
            return;
        }
        let remote = channel.remote;
        let transport = &mut self.transport;
        while channel.outgoing.next(remote, |build| transport.write(|w| build(w))).is_some() {}
    }

    /// Counts that `bytes` of the data of [`Event::Data`](crate::Event::Data) went on to the other
    /// leg: the peer may send as many anew, once they are half of the window (RFC 4254 section 5.2).
    pub fn consumed(&mut self, id: Id, bytes: u32, now: Duration) {
        match self.channels.get_mut(id) {
            Some(channel) => {
                channel.incoming.consumed(bytes);
                self.give(id, now);
            }
            None => self.channels.consumed_late(id, bytes),
        }
    }

    /// Makes the window of what the peer sends on a channel fit for `rate` bytes a second. Who drives
    /// this holds it to them, by calling [`Core::consumed`] no sooner.
    pub fn pace(&mut self, id: Id, rate: u64) {
        if let Some(channel) = self.channels.get_mut(id) {
            channel.incoming.pace(rate);
        }
    }

    /// WINDOW_ADJUST where one is due (RFC 4254 section 5.2).
    pub(crate) fn give(&mut self, id: Id, now: Duration) {
        let Some(channel) = self.channels.get_mut(id) else { return };
        if channel.peer_eof || channel.outgoing.close_sent() || channel.state != State::Open {
            return;
        }
        let remote = channel.remote;
        if let Some(bytes) = channel.incoming.due(now) {
            self.write(|w| {
                w.u8(number::CHANNEL_WINDOW_ADJUST).u32(remote).u32(bytes);
            });
        }
    }
}
