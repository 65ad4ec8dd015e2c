//! What a peer sends on a channel (RFC 4254 sections 5.2 and 5.3): data, EOF, CLOSE, windows.

use std::time::Duration;

use super::receive::Beyond;
use super::{Id, Kind, State};
use crate::commands::PACKET;
use crate::core::Core;
use crate::event::Event;
use crate::message::{Fatal, number};
use crate::wire::Reader;

/// Where the data begins in CHANNEL_DATA: behind the number (1), the channel (4), the length (4).
const DATA: usize = 9;

impl Core {
    /// The open channel that a message names (RFC 4254 section 5). One that is not open, or of which
    /// the peer cannot know our number yet, is an error that ends the connection.
    pub(crate) fn open_channel(&self, number: u32) -> Result<Id, Fatal> {
        let id = self.channels.find(number);
        id.filter(|id| self.channels.get(*id).is_some_and(|it| it.state == State::Open))
            .ok_or_else(|| Fatal::protocol(format_args!("there is no open channel {number}")))
    }

    /// CHANNEL_DATA (RFC 4254 section 5.2).
    pub(crate) fn channel_data(
        &mut self,
        message: &[u8],
        now: Duration,
    ) -> Result<Option<Event>, Fatal> {
        let mut r = Reader::new(message);
        r.u8()?;
        let number = r.u32()?;
        let bytes = r.string()?.len();
        r.end()?;
        let Some(channel) = self.count(number, bytes, now)? else { return Ok(None) };
        Ok(Some(Event::Data { channel, bytes: DATA..DATA.saturating_add(bytes) }))
    }

    /// CHANNEL_EXTENDED_DATA (RFC 4254 section 5.2): counts as data does, and is thrown away; a relay
    /// knows no use for it.
    pub(crate) fn channel_extended(
        &mut self,
        message: &[u8],
        now: Duration,
    ) -> Result<Option<Event>, Fatal> {
        let mut r = Reader::new(message);
        r.u8()?;
        let (number, _kind) = (r.u32()?, r.u32()?);
        let bytes = r.string()?.len();
        r.end()?;
        if let Some(channel) = self.count(number, bytes, now)? {
            self.consumed(channel, u32::try_from(bytes).unwrap_or(u32::MAX), now);
        }
        Ok(None)
    }

    /// Counts data against the window (RFC 4254 section 5.2); the channel if anybody is to get it.
    fn count(&mut self, number: u32, bytes: usize, now: Duration) -> Result<Option<Id>, Fatal> {
        let id = self.open_channel(number)?;
        let Some(channel) = self.channels.get_mut(id) else { return Ok(None) };
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        if bytes > PACKET {
            let text = format_args!("channel {number} got a packet beyond {PACKET} bytes of data");
            return Err(Fatal::protocol(text));
        }
        if channel.peer_eof {
            return Err(Fatal::protocol(format_args!("channel {number} got data after its EOF")));
        }
        if channel.incoming.received(bytes, now) == Err(Beyond) {
            return Err(Fatal::protocol(format_args!(
                "channel {number} got data beyond its window"
            )));
        }
        // After our CLOSE what is still on its way is dropped, and gets no window; nobody holds it.
        if channel.silent || channel.outgoing.close_sent() {
            channel.incoming.consumed(bytes);
            return Ok(None);
        }
        // Sessions have no input.
        if matches!(channel.kind, Kind::Session(_)) {
            self.consumed(id, bytes, now);
            return Ok(None);
        }
        // The window may have grown.
        self.give(id, now);
        Ok((bytes > 0).then_some(id))
    }

    /// CHANNEL_WINDOW_ADJUST (RFC 4254 section 5.2); of a channel that is not open it says nothing.
    pub(crate) fn channel_adjust(&mut self, message: &[u8]) -> Result<Option<Event>, Fatal> {
        let mut r = Reader::new(message);
        r.u8()?;
        let (number, bytes) = (r.u32()?, r.u32()?);
        r.end()?;
        // paramiko's reader sends one past the CLOSE that its other thread has just sent. There is
        // nothing left to send, so that it does no harm; sshd ignores it as well.
        let Ok(id) = self.open_channel(number) else { return Ok(None) };
        if let Some(channel) = self.channels.get_mut(id)
            && channel.outgoing.adjust(bytes).is_err()
        {
            let text = format_args!("the window of channel {number} was made too large");
            return Err(Fatal::protocol(text));
        }
        self.channels.line_up(id);
        Ok(None)
    }

    /// CHANNEL_EOF (RFC 4254 section 5.3); a second one says nothing new.
    pub(crate) fn channel_eof(&mut self, message: &[u8]) -> Result<Option<Event>, Fatal> {
        let id = self.only_channel(message)?;
        let Some(channel) = self.channels.get_mut(id) else { return Ok(None) };
        let again = std::mem::replace(&mut channel.peer_eof, true);
        let told = !again && !channel.silent && !matches!(channel.kind, Kind::Session(_));
        Ok(told.then_some(Event::Eof { channel: id }))
    }

    /// CHANNEL_CLOSE (RFC 4254 section 5.3): answered by ours if that has not been sent, past what
    /// waits, since nobody would read it any more. The number is free now.
    pub(crate) fn channel_close(&mut self, message: &[u8]) -> Result<Option<Event>, Fatal> {
        let id = self.only_channel(message)?;
        let Some(channel) = self.channels.get_mut(id) else { return Ok(None) };
        let (remote, silent) = (channel.remote, channel.silent);
        if !channel.outgoing.close_sent() {
            self.write(|w| {
                w.u8(number::CHANNEL_CLOSE).u32(remote);
            });
        }
        self.channels.leave(id);
        Ok((!silent).then_some(Event::Closed { channel: id }))
    }

    /// The open channel of a message that names it and nothing else.
    fn only_channel(&self, message: &[u8]) -> Result<Id, Fatal> {
        let mut r = Reader::new(message);
        r.u8()?;
        let number = r.u32()?;
        r.end()?;
        self.open_channel(number)
    }
}
