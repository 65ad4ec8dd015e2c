//! The channels of one connection, by our numbers for them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::receive::ReceiveWindow;
use super::{Channel, Id, State};

/// What came in on a channel that is gone and was not consumed yet.
#[derive(Debug)]
struct Rest {
    window: ReceiveWindow,
    by_peer: bool,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    channel: Option<Box<Channel>>,
}

#[derive(Debug, Default)]
pub(crate) struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// The generation of the next channel, whichever its number.
    next: u32,
    by_peer: usize,
    /// Channels that we asked for and that have no answer yet, and those of them that nobody wants any
    /// more, which are not among the former.
    asking: usize,
    forsaken: usize,
    /// Those that have something to seal, in turn.
    line: VecDeque<Id>,
    /// Of channels that are gone; they count until the other leg has taken it.
    rests: BTreeMap<Id, Rest>,
    /// Bytes that wait in all queues.
    pub queued: usize,
}

impl Table {
    /// Enters a channel; none where numbers are used up, which no limit lets happen.
    pub fn enter(&mut self, channel: Channel) -> Option<Id> {
        let number = if let Some(number) = self.free.pop() {
            number
        } else {
            let number = u32::try_from(self.slots.len()).ok()?;
            self.slots.push(Slot::default());
            number
        };
        let slot = self.slots.get_mut(usize::try_from(number).ok()?)?;
        self.by_peer = self.by_peer.saturating_add(usize::from(channel.by_peer()));
        let asking = matches!(channel.state, State::Asking { .. });
        self.asking = self.asking.saturating_add(usize::from(asking));
        slot.channel = Some(Box::new(channel));
        slot.generation = self.next;
        self.next = self.next.wrapping_add(1);
        Some(Id { number, generation: slot.generation })
    }

    fn slot(&self, number: u32) -> Option<&Slot> {
        self.slots.get(usize::try_from(number).ok()?)
    }

    /// The channel that has this number of ours now.
    pub fn find(&self, number: u32) -> Option<Id> {
        let slot = self.slot(number)?;
        slot.channel.is_some().then_some(Id { number, generation: slot.generation })
    }

    pub fn get(&self, id: Id) -> Option<&Channel> {
        self.slot(id.number).filter(|it| it.generation == id.generation)?.channel.as_deref()
    }

    pub fn get_mut(&mut self, id: Id) -> Option<&mut Channel> {
        let slot = self.slots.get_mut(usize::try_from(id.number).ok()?)?;
        if slot.generation != id.generation {
            return None;
        }
        slot.channel.as_deref_mut()
    }

    /// Forgets a channel; its number may be used again, this handle never.
    pub fn leave(&mut self, id: Id) {
        let Some(slot) =
            usize::try_from(id.number).ok().and_then(|number| self.slots.get_mut(number))
        else {
            return;
        };
        if slot.generation != id.generation {
            return;
        }
        let Some(channel) = slot.channel.take() else { return };
        self.free.push(id.number);
        let by_peer = channel.by_peer();
        if channel.incoming.held() == 0 {
            self.by_peer = self.by_peer.saturating_sub(usize::from(by_peer));
        }
        if let State::Asking { forsaken } = channel.state {
            self.answered(forsaken);
        }
        self.queued = self.queued.saturating_sub(channel.outgoing.len());
        if channel.lined_up {
            self.line.retain(|other| *other != id);
        }
        let mut window = channel.incoming;
        if window.held() > 0 {
            window.leave();
            self.rests.insert(id, Rest { window, by_peer });
        }
        if self.free.len() == self.slots.len() && self.slots.len() > 64 {
            // All are gone; so may be the memory.
            self.slots = Vec::new();
            self.free = Vec::new();
            self.line = VecDeque::new();
        }
    }

    /// Forgets all channels, but for what came in and was not consumed yet.
    pub fn leave_all(&mut self) {
        self.line = VecDeque::new();
        let count = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        for id in (0..count).filter_map(|number| self.find(number)).collect::<Vec<_>>() {
            self.leave(id);
        }
        self.slots = Vec::new();
        self.free = Vec::new();
    }

    /// Counts what the other leg took of a channel that is gone.
    pub fn consumed_late(&mut self, id: Id, bytes: u32) {
        let Some(rest) = self.rests.get_mut(&id) else { return };
        rest.window.consumed(bytes);
        rest.window.leave();
        if rest.window.held() == 0 {
            self.forget(id);
        }
    }

    /// Nobody wants what came in on a channel that is gone.
    pub fn forget(&mut self, id: Id) {
        if let Some(rest) = self.rests.remove(&id) {
            self.by_peer = self.by_peer.saturating_sub(usize::from(rest.by_peer));
        }
    }

    /// A channel that we asked for has its answer.
    pub fn answered(&mut self, forsaken: bool) {
        let count = if forsaken { &mut self.forsaken } else { &mut self.asking };
        *count = count.saturating_sub(1);
    }

    /// Nobody wants a channel any more that we asked for.
    pub fn forsake(&mut self) {
        self.asking = self.asking.saturating_sub(1);
        self.forsaken = self.forsaken.saturating_add(1);
    }

    /// Channels that we asked for, that nobody wants any more and that have no answer yet.
    pub fn forsaken(&self) -> usize {
        self.forsaken
    }

    /// Channels that the peer has open or asked for, or of which something is left.
    pub fn by_peer(&self) -> usize {
        self.by_peer
    }

    pub fn asking(&self) -> usize {
        self.asking
    }

    pub fn len(&self) -> usize {
        self.slots.len().saturating_sub(self.free.len()).saturating_add(self.rests.len())
    }

    /// Lets windows shrink that have grown and are not used.
    pub fn rest(&mut self, now: Duration) {
        for channel in self.slots.iter_mut().filter_map(|slot| slot.channel.as_deref_mut()) {
            channel.incoming.rest(now);
        }
    }

    /// Lines a channel up if it has something that can be sealed.
    pub fn line_up(&mut self, id: Id) {
        let Some(channel) = self.get_mut(id) else { return };
        if channel.state == State::Open && !channel.lined_up && channel.outgoing.is_ready() {
            channel.lined_up = true;
            self.line.push_back(id);
        }
    }

    /// The channel whose turn it is.
    pub fn take_turn(&mut self) -> Option<Id> {
        let id = self.line.pop_front()?;
        if let Some(channel) = self.get_mut(id) {
            channel.lined_up = false;
        }
        Some(id)
    }

    pub fn is_ready(&self) -> bool {
        !self.line.is_empty()
    }

    /// Whether another one than `id`, which is in the line once at most, has something to seal.
    pub fn is_ready_besides(&self, id: Id) -> bool {
        self.line.iter().any(|other| *other != id)
    }
}

#[cfg(test)]
impl Table {
    pub fn all(&self) -> impl Iterator<Item = &Channel> {
        self.slots.iter().filter_map(|slot| slot.channel.as_deref())
    }

    /// The windows of channels that are gone.
    pub fn rests(&self) -> impl Iterator<Item = &ReceiveWindow> {
        self.rests.values().map(|rest| &rest.window)
    }
}
