//! How often the peers of one source prefix may begin what costs us something before a key is proven
//! (invariant 8): key exchanges, and offers of keys that nobody here has.
//!
//! One instant is kept for each prefix: when all that it began will have taken its time. One that has
//! come is as none, so that the table holds only who began something just now. Where it is full, those
//! that owe least go: who is over the rate stays over it, however many others come and go. Touches
//! nothing.
//!
//! It is the algorithm of the crate governor (GCRA), whose keyed limiter cannot do it: its map has no
//! bound but for `retain_recent`, which drops nobody who began something just now, it does not tell what
//! a key owes, so that none could be chosen, and its rate is fixed while the Relay's may change.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use crate::accept::Prefix;
use crate::clock::Boot;
use crate::lock::lock;

/// Prefixes of which something is kept: less than 1 MiB.
const MOST: usize = 8192;

/// So many a second, and so many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub per_second: u32,
    pub burst: u32,
}

impl Rate {
    fn each(self) -> Duration {
        Duration::from_secs(1) / self.per_second.max(1)
    }
}

/// One limit's table.
#[derive(Debug, Default)]
pub struct Sources(Mutex<HashMap<Prefix, Boot>>);

impl Sources {
    /// One more by a peer of `source`: whether it is within the rate.
    pub fn may(&self, source: Prefix, rate: Rate, now: Boot) -> bool {
        let mut table = lock(&self.0);
        let paid = table.get(&source).map_or(now, |paid| now.max(*paid)).plus(rate.each());
        if paid.since(now) > rate.each().saturating_mul(rate.burst.max(1)) {
            return false;
        }
        if table.len() >= MOST && !table.contains_key(&source) {
            trim(&mut table, now);
        }
        table.insert(source, paid);
        true
    }

    /// Prefixes of which something is kept.
    pub fn len(&self) -> usize {
        lock(&self.0).len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets those whose time has come; to be called now and then.
    pub fn trim(&self, now: Boot) {
        let mut table = lock(&self.0);
        table.retain(|_, paid| *paid > now);
        table.shrink_to_fit();
    }
}

/// Makes room for half of the table, so that a newcomer costs little on average.
fn trim(table: &mut HashMap<Prefix, Boot>, now: Boot) {
    table.retain(|_, paid| *paid > now);
    let Some(go) = table.len().checked_sub(MOST / 2).filter(|go| *go > 0) else { return };
    let mut owing: Vec<_> = table.iter().map(|(prefix, paid)| (*paid, *prefix)).collect();
    let last = owing.len().saturating_sub(1);
    let (least, _, _) = owing.select_nth_unstable(go.min(last));
    for (_, prefix) in least.iter() {
        table.remove(prefix);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use super::*;

    const RATE: Rate = Rate { per_second: 10, burst: 20 };

    fn at(millis: u64) -> Boot {
        Boot::from_start(Duration::from_millis(100_000 + millis))
    }

    fn v6(n: u32) -> Prefix {
        Prefix::of(IpAddr::V6(Ipv6Addr::from_bits(u128::from(n) << 72)))
    }

    fn allowed(sources: &Sources, source: Prefix, now: Boot, asked: usize) -> usize {
        (0..asked).filter(|_| sources.may(source, RATE, now)).count()
    }

    /// Memory of the table: a hash map has a byte more for each entry, and an eighth or more is empty.
    fn bytes(sources: &Sources) -> usize {
        let each = size_of::<(Prefix, Boot)>() + 1;
        lock(&sources.0).capacity() * 8 / 7 * each
    }

    #[test]
    fn each_prefix_has_its_burst_and_its_rate() {
        let sources = Sources::default();
        let (one, other) = (v6(1), Prefix::of(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        assert_eq!(allowed(&sources, one, at(0), 100), 20);
        assert_eq!(allowed(&sources, other, at(0), 100), 20);
        assert_eq!(allowed(&sources, one, at(550), 100), 5);
        assert_eq!(allowed(&sources, one, at(3_600_000), 100), 20);
        sources.trim(at(7_200_000));
        assert!(sources.is_empty());
    }

    #[test]
    fn crowds_of_prefixes_take_a_bounded_place_and_free_nobody_who_is_over() {
        let sources = Sources::default();
        let over = v6(0);
        assert_eq!(allowed(&sources, over, at(0), 100), 20);
        for n in 1..100_000 {
            assert!(sources.may(v6(n), RATE, at(0)), "a newcomer gets in");
            assert!(sources.len() <= MOST);
        }
        assert!(bytes(&sources) < 1 << 20, "{}", bytes(&sources));
        assert_eq!(allowed(&sources, over, at(0), 10), 0, "it is still over");
        sources.trim(at(2_000));
        assert_eq!((sources.len(), bytes(&sources)), (0, 0));
    }
}
