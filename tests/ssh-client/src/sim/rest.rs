//! How a connection comes to rest, and to its end.

use tidegate_ssh::{DisconnectCode, Id};

use super::Tally;
use super::world::World;

impl World {
    /// Nothing new begins: everything that waits is answered, delivered and taken, until all is still.
    pub fn rest(&mut self) {
        self.stalled = [false; 2];
        let mut still = 0;
        for _ in 0..200_000 {
            if self.over {
                return;
            }
            let before = self.moved();
            self.up(usize::MAX);
            self.down(usize::MAX);
            self.answer_all();
            self.take_all();
            self.look();
            still = if before == self.moved() { still + 1 } else { 0 };
            if still > 4 {
                self.rested();
                return;
            }
        }
        panic!("it does not come to rest");
    }

    /// Changes while anything moves.
    fn moved(&mut self) -> (u64, usize, usize, usize, usize, u64) {
        (
            self.ledger.bytes,
            self.to_server.len() + self.to_client.len(),
            self.server.core.queued() + self.server.core.output().len(),
            self.wanted.len() + self.pongs.len() + self.server.channels.len() + self.theirs.len(),
            self.session.client.exchanges,
            self.alive + self.unimplemented[1] + self.tally.replies,
        )
    }

    fn answer_all(&mut self) {
        for (token, number, _) in std::mem::take(&mut self.forwards) {
            self.decided.insert(number, None);
            self.server.core.answer_forward(token, None);
        }
        for (token, number) in std::mem::take(&mut self.cancels) {
            self.decided.insert(number, Some(0));
            self.server.core.answer_cancel(token, true);
        }
        for id in std::mem::take(&mut self.commands) {
            self.server.core.answer_request(id, false);
            // Nothing is started on it.
            if let Some(ours) = self.server.channels.get_mut(&id) {
                ours.closing = true;
                self.ledger.at(ours.tag).up.cut = true;
                self.server.core.finish(id);
            }
        }
        let asked: Vec<Id> = self
            .server
            .channels
            .iter()
            .filter(|(_, it)| !it.open && !it.forwarded)
            .map(|(id, _)| *id)
            .collect();
        for id in asked {
            self.server.core.confirm(id);
            self.server.channels.get_mut(&id).expect("it is there").open = true;
        }
        let numbers: Vec<u32> = self.theirs.keys().copied().collect();
        for number in numbers {
            if self.session.is_asked(number) {
                self.session.confirm(number);
                self.theirs.get_mut(&number).expect("it is there").open = true;
            }
        }
    }

    fn take_all(&mut self) {
        for (id, ours) in &mut self.server.channels {
            self.server.core.consumed(*id, std::mem::take(&mut ours.held), self.now);
        }
        for (number, theirs) in &mut self.theirs {
            self.session.consumed(*number, std::mem::take(&mut theirs.held));
        }
    }

    fn rested(&mut self) {
        self.ledger.settled();
        assert!(self.wanted.is_empty(), "replies are missing: {:?}", self.wanted);
        assert!(self.pongs.is_empty(), "PONGs are missing");
        assert_eq!(self.alive, self.pings, "pings were not answered");
        assert_eq!(self.unimplemented[0], self.unimplemented[1]);
        assert_eq!(self.server.core.queued(), 0);
        assert!(self.server.core.output().is_empty());
        let closing = self.server.channels.values().filter(|it| it.closing).count();
        assert_eq!(closing, 0, "a channel was not closed");
        assert!(self.theirs.values().all(|it| !it.closing), "a channel was not closed");
    }

    /// The end: nothing is kept.
    pub fn end(mut self, tally: &mut Tally) {
        self.server.core.disconnect(DisconnectCode::ByApplication, "that was all");
        assert_eq!(self.server.core.queued(), 0);
        // What nobody has taken counts until its channel is let go.
        for id in self.server.channels.keys() {
            self.server.core.close(*id);
        }
        assert_eq!(self.budget.taken(), 0, "the windows are given back");
        tally.exchanges += u64::try_from(self.session.client.exchanges).expect("a few");
        tally.channels += u64::try_from(self.ledger.len()).expect("a few");
        tally.bytes += self.ledger.bytes;
        tally.in_place += self.tally.in_place;
        tally.replies += self.tally.replies;
    }
}
