//! What flows on channels: each way of each channel has bytes of its own, and an account.

use std::collections::BTreeMap;

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the server.
    Up,
    /// To the client.
    Down,
}

/// Bytes `from..from + count` of a stream.
pub fn bytes(tag: u64, way: Way, from: u64, count: usize) -> Vec<u8> {
    let salt = if way == Way::Up { 0x51 } else { 0xa3 };
    let mut out = Vec::with_capacity(count);
    let mut at = from;
    while out.len() < count {
        let word = at / 8;
        let mixed = (word ^ tag.rotate_left(17) ^ salt).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let all = (mixed ^ (mixed >> 29)).to_be_bytes();
        let begin = usize::try_from(at % 8).expect("below 8");
        let end = (begin + count - out.len()).min(8);
        out.extend_from_slice(&all[begin..end]);
        at += u64::try_from(end - begin).expect("below 8");
    }
    out
}

/// One way of one channel.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flow {
    pub sent: u64,
    pub received: u64,
    /// A CLOSE may drop some of it.
    pub cut: bool,
    /// EOF: asked for at one end, told at the other.
    pub ended: bool,
    pub end_told: bool,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Account {
    pub up: Flow,
    pub down: Flow,
}

impl Account {
    pub fn flow(&mut self, way: Way) -> &mut Flow {
        match way {
            Way::Up => &mut self.up,
            Way::Down => &mut self.down,
        }
    }

    pub fn cut_both(&mut self) {
        self.up.cut = true;
        self.down.cut = true;
    }
}

/// All channels of a connection by their tags, which are 1, 2 and so on; also those that are gone.
#[derive(Debug, Default)]
pub struct Ledger {
    accounts: BTreeMap<u64, Account>,
    pub bytes: u64,
}

impl Ledger {
    pub fn open(&mut self) -> u64 {
        let tag = u64::try_from(self.accounts.len()).expect("a few") + 1;
        self.accounts.insert(tag, Account::default());
        tag
    }

    pub fn len(&self) -> usize {
        self.accounts.len()
    }

    pub fn at(&mut self, tag: u64) -> &mut Account {
        self.accounts.get_mut(&tag).expect("a tag that was given out")
    }

    /// The next `count` bytes of a stream, which are about to be sent.
    pub fn send(&mut self, tag: u64, way: Way, count: usize) -> Vec<u8> {
        let flow = self.at(tag).flow(way);
        assert!(!flow.ended, "nothing is sent after the end");
        let sent = bytes(tag, way, flow.sent, count);
        flow.sent += u64::try_from(count).expect("a size");
        sent
    }

    /// Checks what came.
    pub fn receive(&mut self, tag: u64, way: Way, got: &[u8]) {
        let flow = self.at(tag).flow(way);
        assert!(!flow.end_told, "data of {tag} came after its end");
        let wanted = bytes(tag, way, flow.received, got.len());
        assert!(
            got == wanted,
            "{way:?} of {tag} differs within {} of {}",
            got.len(),
            flow.received
        );
        let count = u64::try_from(got.len()).expect("a size");
        flow.received += count;
        assert!(flow.received <= flow.sent);
        self.bytes += count;
    }

    pub fn end_told(&mut self, tag: u64, way: Way) {
        let flow = self.at(tag).flow(way);
        assert!(flow.ended && !flow.end_told, "the end of {tag} {way:?} is told once");
        assert!(flow.received == flow.sent || flow.cut, "the end of {tag} {way:?} comes last");
        flow.end_told = true;
    }

    /// At rest: all that was sent has come, and its end.
    pub fn settled(&self) {
        for (tag, account) in &self.accounts {
            for flow in [account.up, account.down] {
                let whole = flow.received == flow.sent && flow.ended == flow.end_told;
                assert!(whole || flow.cut, "of {tag} something is missing: {flow:?}");
            }
        }
    }
}
