//! The steps: what either end may do at any time.

use std::time::Duration;

use tidegate_ssh::wire::Writer;
use tidegate_ssh::{DisconnectCode, Id, OpenFailure, Relayed};

use super::server::Ours;
use super::stream::Way;
use super::world::{PIPE, Wanted, World};
use crate::frame::{DATA, frame};

/// What waits in the queue of one channel, in bytes, before no more is put there.
const QUEUE: usize = 150_000;
/// Replies that the client waits for, before it asks no more.
const WANTED: usize = 60;

impl World {
    pub fn step(&mut self) {
        match self.dice.below(1000) {
            0..250 if !self.stalled[0] => {
                let most = self.dice.size(self.split) + 1;
                self.up(most);
            }
            250..500 if !self.stalled[1] => {
                let most = self.dice.size(self.split) + 1;
                self.down(most);
            }
            500..580 => self.server_sends(),
            580..660 => self.client_sends(),
            660..740 => self.consume(),
            740..760 => self.open(),
            760..800 => self.answer_opens(),
            800..830 => self.ask(),
            830..860 => self.answer(),
            860..880 => self.on_sessions(),
            880..900 => self.end_something(),
            900..910 => self.rekey(),
            910..920 => self.noise(),
            920..930 => self.stalled = [self.dice.once_in(3), self.dice.once_in(3)],
            930..935 => self.split = 1 << self.dice.below(18),
            935..975 => {
                self.now += Duration::from_micros(self.dice.below(20_000));
                self.server.core.tick(self.now).expect("it is not late");
            }
            999 if self.dice.once_in(50) => self.goodbye(),
            _ => {}
        }
    }

    /// A channel of the server's that may be written to.
    fn some_of_ours(&mut self) -> Option<(Id, u64)> {
        let ledger = &mut self.ledger;
        let ours: Vec<(Id, u64)> = self
            .server
            .channels
            .iter()
            .filter(|(id, it)| {
                !it.closing && !ledger.at(it.tag).down.ended && !self.commands.contains(id)
            })
            .map(|(id, it)| (*id, it.tag))
            .collect();
        self.dice.pick(&ours)
    }

    /// A channel of the client's that may be written to.
    fn some_of_theirs(&mut self) -> Option<(u32, u64)> {
        let ledger = &mut self.ledger;
        let theirs: Vec<(u32, u64)> = self
            .theirs
            .iter()
            .filter(|(_, it)| !it.closing && !it.session && !ledger.at(it.tag).up.ended)
            .map(|(number, it)| (*number, it.tag))
            .collect();
        self.dice.pick(&theirs)
    }

    fn server_sends(&mut self) {
        let Some((id, tag)) = self.some_of_ours() else { return };
        // Nothing is written on a channel before it is confirmed.
        if !self.server.channels[&id].open || self.server.core.queued_on(id) > QUEUE {
            return;
        }
        let in_place = self.dice.once_in(2);
        let count = self.dice.skewed(if in_place { 32 << 10 } else { 100_000 });
        let data = self.ledger.send(tag, Way::Down, count);
        let length = u64::try_from(count).expect("a size");
        let server = &mut self.server;
        let queued = &mut server.channels.get_mut(&id).expect("it is there").queued;
        if !in_place {
            server.core.send(id, &data).expect("it takes data");
            *queued += length;
            return;
        }
        let mut frame = frame(&data, false);
        match server.core.relay(id, &mut frame, DATA..DATA + count) {
            Relayed::InPlace => {
                self.tally.in_place += 1;
                server.core.output().append(&frame);
            }
            Relayed::Copied => *queued += length,
            Relayed::Dropped => panic!("a channel that is open took no data"),
        }
    }

    fn client_sends(&mut self) {
        let Some((number, tag)) = self.some_of_theirs() else { return };
        if self.theirs[&number].open && self.session.queued(number) <= QUEUE {
            let count = self.dice.skewed(100_000);
            let data = self.ledger.send(tag, Way::Up, count);
            assert!(self.session.send(number, &data));
        }
    }

    /// Somebody reads.
    fn consume(&mut self) {
        if self.dice.once_in(2) {
            let ids: Vec<Id> = self.server.channels.keys().copied().collect();
            let Some(id) = self.dice.pick(&ids) else { return };
            let ours = self.server.channels.get_mut(&id).expect("it is there");
            let bytes = self.dice.word(ours.held + 1);
            ours.held -= bytes;
            self.server.core.consumed(id, bytes, self.now);
        } else {
            let numbers: Vec<u32> = self.theirs.keys().copied().collect();
            let Some(number) = self.dice.pick(&numbers) else { return };
            let theirs = self.theirs.get_mut(&number).expect("it is there");
            let bytes = self.dice.word(theirs.held + 1);
            theirs.held -= bytes;
            self.session.consumed(number, bytes);
        }
    }

    fn open(&mut self) {
        if !self.session.is_within() || self.theirs.len() > 12 || self.ledger.len() > 5000 {
            return;
        }
        match self.dice.below(3) {
            0 => {
                let tag = self.ledger.open();
                let number = self.session.open_direct(&tag.to_string(), 22);
                self.enter(number, tag, false);
            }
            1 => {
                let tag = self.ledger.open();
                let number = self.session.open_session();
                self.enter(number, tag, true);
            }
            _ => {
                let tag = self.ledger.open();
                let opened = self.server.core.open_forwarded(&tag.to_string(), 22, ("", 0));
                match opened {
                    Ok(id) => {
                        let ours = Ours { forwarded: true, ..Ours::new(tag) };
                        assert!(self.server.channels.insert(id, ours).is_none());
                    }
                    Err(_) => self.ledger.at(tag).cut_both(),
                }
            }
        }
    }

    fn answer_opens(&mut self) {
        if self.dice.once_in(2) {
            let asked = self
                .server
                .channels
                .iter()
                .filter(|(_, it)| !it.open && !it.closing && !it.forwarded);
            let asked: Vec<Id> = asked.map(|(id, _)| *id).collect();
            let Some(id) = self.dice.pick(&asked) else { return };
            if self.dice.once_in(4) {
                let tag = self.server.channels[&id].tag;
                self.server.core.refuse(id, OpenFailure::ConnectFailed, "nobody is there");
                self.server.channels.remove(&id);
                self.ledger.at(tag).cut_both();
            } else {
                self.server.core.confirm(id);
                self.server.channels.get_mut(&id).expect("it is there").open = true;
            }
        } else {
            let asked = self.theirs.iter().filter(|(_, it)| !it.open && !it.session);
            let asked: Vec<(u32, u64)> = asked.map(|(number, it)| (*number, it.tag)).collect();
            let Some((number, tag)) = self.dice.pick(&asked) else { return };
            if !self.session.is_asked(number) {
                return;
            }
            if self.dice.once_in(4) {
                self.session.refuse(number, 2, "nobody\n is there");
                self.theirs.remove(&number);
                self.ledger.at(tag).cut_both();
            } else {
                self.session.confirm(number);
                self.theirs.get_mut(&number).expect("it is there").open = true;
            }
        }
    }

    /// Global requests of both sides, and PINGs.
    fn ask(&mut self) {
        if !self.session.is_within() || self.wanted.len() + self.pongs.len() > WANTED {
            return;
        }
        match self.dice.below(6) {
            0 => {
                self.asked += 1;
                self.wanted.push_back(Wanted::Decided(self.asked));
                // The host tells which question it was.
                let number = self.asked.to_string();
                if self.dice.once_in(2) {
                    let port = self.dice.word(2) * 22;
                    self.session.forward(&number, port);
                } else {
                    let mut body = Vec::new();
                    Writer::new(&mut body).string(number).u32(22);
                    self.session.ask("cancel-tcpip-forward", true, &body);
                }
            }
            1 => {
                self.wanted.push_back(Wanted::Refused);
                self.session.ask("keepalive@openssh.com", true, &[]);
            }
            2 => self.session.ask("unknown@example.com", false, b"whatever"),
            3 | 4 => {
                let count = self.dice.size(100);
                let data = super::stream::bytes(self.dice.next(), Way::Up, 0, count);
                if self.session.ping(&data) {
                    self.pongs.push_back(data);
                }
            }
            _ => {
                if self.pings - self.alive < 50 && self.server.core.ping() {
                    self.pings += 1;
                }
            }
        }
    }

    /// The server answers one of what waits, in any order.
    fn answer(&mut self) {
        let core = &mut self.server.core;
        match self.dice.below(3) {
            0 if !self.forwards.is_empty() => {
                let place = self.dice.size(self.forwards.len());
                let (token, number, port) = self.forwards.swap_remove(place);
                let granted = !self.dice.once_in(3);
                // A port that was asked for is not said again.
                let said = if port == 0 { 4022 } else { 0 };
                self.decided.insert(number, granted.then_some(said));
                core.answer_forward(token, granted.then_some(said.max(port)));
            }
            1 if !self.cancels.is_empty() => {
                let place = self.dice.size(self.cancels.len());
                let (token, number) = self.cancels.swap_remove(place);
                let granted = self.dice.once_in(2);
                self.decided.insert(number, granted.then_some(0));
                core.answer_cancel(token, granted);
            }
            2 if !self.commands.is_empty() => {
                let id = self.commands.swap_remove(self.dice.size(self.commands.len()));
                let tag = self.server.channels[&id].tag;
                core.answer_request(id, true);
                core.exit_status(id, u32::try_from(tag).expect("a few"));
            }
            _ => {}
        }
    }

    /// Requests on a session of the client's.
    fn on_sessions(&mut self) {
        let sessions = self.theirs.iter().filter(|(_, it)| it.session && it.open && !it.closing);
        let sessions: Vec<u32> = sessions.map(|(number, _)| *number).collect();
        let Some(number) = self.dice.pick(&sessions) else { return };
        let theirs = self.theirs.get_mut(&number).expect("it is there");
        if theirs.replies.len() > WANTED {
            return;
        }
        match self.dice.below(4) {
            0 if !theirs.started => {
                theirs.started = true;
                theirs.replies.push_back(None);
                let mut body = Vec::new();
                Writer::new(&mut body).string(theirs.tag.to_string());
                self.session.request(number, "exec", true, &body);
            }
            1 => {
                let mut body = Vec::new();
                Writer::new(&mut body).string("LANG").string("C");
                theirs.replies.push_back(Some(false));
                self.session.request(number, "env", true, &body);
            }
            2 => {
                theirs.replies.push_back(Some(true));
                self.session.request(number, "window-change", true, &[0; 16]);
            }
            _ => self.session.request(number, "eow@openssh.com", false, &[]),
        }
    }

    /// EOF or CLOSE of either side.
    fn end_something(&mut self) {
        if self.dice.once_in(2) {
            let Some((id, tag)) = self.some_of_ours() else { return };
            if !self.server.channels[&id].open && !self.server.channels[&id].forwarded {
                return;
            }
            let account = self.ledger.at(tag);
            match self.dice.below(4) {
                0 | 1 => {
                    self.server.core.eof(id);
                    account.down.ended = true;
                }
                2 => {
                    self.server.core.finish(id);
                    account.up.cut = true;
                    self.server.channels.get_mut(&id).expect("it is there").closing = true;
                }
                _ => {
                    self.server.core.close(id);
                    account.cut_both();
                    self.server.channels.remove(&id);
                }
            }
        } else {
            let open = self.theirs.iter().filter(|(_, it)| it.open && !it.closing);
            let open: Vec<_> = open.map(|(number, it)| (*number, it.tag, it.session)).collect();
            let Some((number, tag, session)) = self.dice.pick(&open) else { return };
            let account = self.ledger.at(tag);
            match self.dice.below(4) {
                // Those of sessions are told to nobody.
                0 | 1 if session => self.session.eof(number),
                0 | 1 => {
                    self.session.eof(number);
                    account.up.ended = true;
                }
                2 => {
                    self.session.finish(number);
                    account.down.cut = true;
                    self.theirs.get_mut(&number).expect("it is there").closing = true;
                }
                _ => {
                    self.session.close(number);
                    account.cut_both();
                    self.theirs.get_mut(&number).expect("it is there").closing = true;
                }
            }
        }
    }

    fn rekey(&mut self) {
        let who = self.dice.below(3);
        if who != 0 {
            self.session.rekey();
        }
        if who != 1 {
            self.server.core.rekey(self.now);
        }
    }

    /// Messages that say nothing, and one that nobody knows.
    fn noise(&mut self) {
        if !self.session.is_within() {
            return;
        }
        let client = &mut self.session.client;
        match self.dice.below(4) {
            0 => client.say(&[2, 0, 0, 0, 3, 1, 2, 3]),
            1 => client.say(&[4, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            2 => client.say(&[3, 0, 0, 0, 0]),
            _ => {
                client.say(&[199, 1, 2, 3]);
                self.unimplemented[0] += 1;
            }
        }
    }

    fn goodbye(&mut self) {
        if self.dice.once_in(2) {
            self.server.core.disconnect(DisconnectCode::ByApplication, "the window has closed");
            // Some of it may be on its way for long.
            while self.goodbyes == 0 {
                self.down(PIPE);
            }
        } else if self.session.client.is_open() {
            self.session.disconnect("bye");
            while self.goodbyes == 0 {
                self.up(PIPE);
            }
        } else {
            return;
        }
        self.over = true;
    }
}
