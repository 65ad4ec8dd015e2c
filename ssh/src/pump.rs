//! Sealing data: from the channels' queues in turn, or in place on the path from leg to leg.

use std::ops::Range;

use crate::channel::send::{PIECE, Step, Stream};
use crate::channel::{Id, State};
use crate::core::Core;
use crate::message::number;

/// [`Core::pump`] seals while the output is shorter than this.
pub(crate) const OUTPUT: usize = 64 * 1024;
/// Bytes of one channel before it is the next one's turn.
const SLICE: u32 = PIECE;
/// Where the data of CHANNEL_DATA lies in a frame: behind packet_length (4), padding_length (1), the
/// message's number (1), the channel (4) and the data's own length (4).
const DATA: usize = 14;

/// What [`Core::relay`] did with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relayed {
    /// It is sealed: to be written right behind what the output holds, before anything else is asked
    /// of this core that seals.
    InPlace,
    /// Its data went into the channel's queue; [`Core::pump`] tells when it is sealed.
    Copied,
    /// The channel takes no more data.
    Dropped,
}

impl Core {
    /// Passes a packet of another leg on without a copy where it can (RFC 4254 section 5.2): the frame
    /// is as [`Next::Message`](crate::Next::Message) gave it there, a CHANNEL_DATA whose data is at
    /// `data` (in the frame).
    pub fn relay(&mut self, id: Id, frame: &mut [u8], data: Range<usize>) -> Relayed {
        match self.pass(id, frame, &data) {
            Some(true) => Relayed::InPlace,
            Some(false) => {
                let bytes = frame.get(data).unwrap_or_default();
                match self.queue(id, Stream::Data, bytes) {
                    Ok(()) => Relayed::Copied,
                    Err(_) => Relayed::Dropped,
                }
            }
            None => Relayed::Dropped,
        }
    }

    /// Seals in place if the channel, its windows and the keys allow it.
    fn pass(&mut self, id: Id, frame: &mut [u8], data: &Range<usize>) -> Option<bool> {
        if self.is_over() {
            return None;
        }
        // Whoever waits for a turn is not to be passed by one that does not.
        let waited_for = self.channels.is_ready();
        let channel = self.channels.get_mut(id)?;
        let length = u32::try_from(data.len()).ok()?;
        let fits = data.start == DATA
            && frame.get(5) == Some(&number::CHANNEL_DATA)
            && channel.state == State::Open
            && !waited_for
            && self.transport.output().len() < OUTPUT
            && self.transport.is_open();
        if !fits || !channel.outgoing.pass(length) {
            return Some(false);
        }
        if let Some(place) = frame.get_mut(6..10) {
            place.copy_from_slice(&channel.remote.to_be_bytes());
        }
        if self.transport.seal_frame(frame) {
            return Some(true);
        }
        channel.outgoing.unpass(length);
        Some(false)
    }

    /// Seals what waits, channel by channel in turn, while the output is short; `drained` gets how
    /// much data of which channel that was. To be called again when the output has been written,
    /// while [`Core::is_ready`].
    ///
    /// `may` is asked before anything of a channel is sealed; where it says no, what waits there is
    /// dropped, its EOF too.
    pub fn pump(&mut self, drained: &mut Vec<(Id, u32)>, may: &mut dyn FnMut(Id) -> bool) {
        while self.transport.output().len() < OUTPUT && self.transport.is_open() {
            let Some(id) = self.channels.take_turn() else { return };
            if !may(id) {
                self.drop_queue(id);
            }
            let sealed = self.slice(id);
            self.channels.line_up(id);
            if sealed > 0 {
                let bytes = usize::try_from(sealed).unwrap_or(usize::MAX);
                self.channels.queued = self.channels.queued.saturating_sub(bytes);
                drained.push((id, sealed));
            }
        }
    }

    /// One channel's turn: bytes of data that were sealed.
    fn slice(&mut self, id: Id) -> u32 {
        let Some(channel) = self.channels.get_mut(id) else { return 0 };
        let (remote, outgoing) = (channel.remote, &mut channel.outgoing);
        let transport = &mut self.transport;
        let mut sealed: u32 = 0;
        while sealed < SLICE && transport.output().len() < OUTPUT {
            match outgoing.next(remote, |build| transport.write(|w| build(w))) {
                Some(Step::Data(bytes)) => sealed = sealed.saturating_add(bytes),
                Some(Step::Other) => {}
                Some(Step::Close) | None => break,
            }
        }
        sealed
    }

    fn drop_queue(&mut self, id: Id) {
        let dropped = self.channels.get_mut(id).map_or(0, |channel| channel.outgoing.clear());
        self.channels.queued = self.channels.queued.saturating_sub(dropped);
    }

    /// Bytes that wait on one channel, not sealed yet; none on one that is gone.
    pub fn queued_on(&self, id: Id) -> usize {
        self.channels.get(id).map_or(0, |channel| channel.outgoing.len())
    }

    /// Whether data for a channel has to wait until the socket, or the peer by its window, takes what
    /// is in front of it. Not so while keys are exchanged.
    pub fn is_backed_up(&mut self, id: Id) -> bool {
        if !self.transport.is_open() {
            return false;
        }
        if !self.transport.output().is_empty() || self.channels.is_ready() {
            return true;
        }
        let channel = self.channels.get(id).filter(|it| it.state == State::Open);
        channel.is_some_and(|channel| channel.outgoing.is_stalled())
    }

    /// Whether another channel than this one waits for its turn.
    pub fn is_ready_besides(&self, id: Id) -> bool {
        self.channels.is_ready_besides(id)
    }

    /// Whether [`Core::pump`] would seal something once the output is short and no keys are exchanged.
    pub fn is_ready(&self) -> bool {
        self.channels.is_ready()
    }
}
