//! How often the peers of one source prefix may begin what costs us something before a key is proven
//! (invariant 8): key exchanges, and offers of keys that nobody here has. One address of a prefix may
//! take three quarters of that, so that its neighbours get in while it floods.
//!
//! One instant is kept for each prefix and each of its addresses: when all that it began will have taken
//! its time. One that has come is as none, so that the table holds only who began something just now.
//! Where it is full, those that owe least go: who is over the rate stays over it, however many others
//! come and go. Touches nothing.
//!
//! It is the algorithm of the crate governor (GCRA), whose keyed limiter cannot do it: its map has no
//! bound but for `retain_recent`, which drops nobody who began something just now, it does not tell what
//! a key owes, so that none could be chosen, and its rate is fixed while the Relay's may change.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Mutex;
use std::time::Duration;

use crate::accept::Prefix;
use crate::clock::Boot;
use crate::lock::lock;

/// Prefixes and addresses of which something is kept: less than 1 MiB.
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

    /// What all that may begin at once takes.
    fn most(self) -> Duration {
        self.each().saturating_mul(self.burst.max(1))
    }

    /// One more by somebody whose former ones will have taken their time at `paid`: when they will have
    /// with this one; `None`: it is not within the rate.
    pub fn one_more(self, paid: Boot, now: Boot) -> Option<Boot> {
        pay(paid, self.each(), self.most(), now)
    }
}

/// What is `paid` until now or later, and `takes` behind it, if that is not ahead of now by more than
/// `most`.
fn pay(paid: Boot, takes: Duration, most: Duration, now: Boot) -> Option<Boot> {
    let paid = now.max(paid).plus(takes);
    (paid.since(now) <= most).then_some(paid)
}

/// Who begins something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Source {
    All(Prefix),
    /// One [`machine`] of a prefix.
    One(IpAddr),
}

/// What is one machine of a prefix: an address of IPv4, a /64 of IPv6, in which a machine may have as many
/// addresses as it likes.
fn machine(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// One limit's table.
#[derive(Debug, Default)]
pub struct Sources(Mutex<HashMap<Source, Boot>>);

impl Sources {
    /// One more by the peer at `address`: whether it is within the rate of its prefix, and within its
    /// own share of that.
    pub fn may(&self, address: IpAddr, rate: Rate, now: Boot) -> bool {
        let mut table = lock(&self.0);
        let (all, one) = (Source::All(Prefix::of(address)), Source::One(machine(address)));
        let share = rate.each().saturating_mul(4) / 3;
        // One may always begin, however low the rate.
        let most = rate.most().max(share);
        let paid = |source, takes| {
            let paid = table.get(&source).copied().unwrap_or(now);
            Some((source, pay(paid, takes, most, now)?))
        };
        let (Some(all), Some(one)) = (paid(all, rate.each()), paid(one, share)) else {
            return false;
        };
        let paid = [all, one];
        let new = paid.iter().filter(|(source, _)| !table.contains_key(source)).count();
        if table.len().saturating_add(new) > MOST {
            trim(&mut table, now);
        }
        table.extend(paid);
        true
    }

    /// Prefixes and addresses of which something is kept.
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
fn trim(table: &mut HashMap<Source, Boot>, now: Boot) {
    table.retain(|_, paid| *paid > now);
    let Some(go) = table.len().checked_sub(MOST / 2).filter(|go| *go > 0) else { return };
    let mut owing: Vec<_> = table.iter().map(|(source, paid)| (*paid, *source)).collect();
    let last = owing.len().saturating_sub(1);
    let (least, _, _) = owing.select_nth_unstable(go.min(last));
    for (_, source) in least.iter() {
        table.remove(source);
    }
    // What was removed leaves its mark, so that the table would grow.
    table.shrink_to_fit();
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const RATE: Rate = Rate { per_second: 10, burst: 20 };

    fn at(millis: u64) -> Boot {
        Boot::from_start(Duration::from_millis(100_000 + millis))
    }

    /// Each in a prefix of its own.
    fn v6(n: u32) -> IpAddr {
        IpAddr::V6(Ipv6Addr::from_bits(u128::from(n) << 72))
    }

    fn v4(last: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, last))
    }

    fn allowed(sources: &Sources, source: IpAddr, now: Boot, asked: usize) -> usize {
        (0..asked).filter(|_| sources.may(source, RATE, now)).count()
    }

    /// Memory of the table: a hash map has a byte more for each entry, and an eighth or more is empty.
    fn bytes(sources: &Sources) -> usize {
        let each = size_of::<(Source, Boot)>() + 1;
        lock(&sources.0).capacity() * 8 / 7 * each
    }

    #[test]
    fn each_prefix_has_its_burst_and_its_rate() {
        let sources = Sources::default();
        // Of each two addresses together.
        let both = |[one, other]: [IpAddr; 2], now| {
            (0..100).filter(|n| sources.may([one, other][n % 2], RATE, now)).count()
        };
        assert_eq!(both([v4(1), v4(2)], at(0)), 20);
        let v6 = [v6(1), IpAddr::V6(Ipv6Addr::from_bits((1 << 72) | (1 << 64)))];
        assert_eq!(both(v6, at(0)), 20);
        assert_eq!(both([v4(1), v4(2)], at(550)), 5);
        assert_eq!(both([v4(3), v4(4)], at(3_600_000)), 20);
        sources.trim(at(7_200_000));
        assert!(sources.is_empty());
    }

    #[test]
    fn one_address_leaves_its_neighbours_a_quarter() {
        let sources = Sources::default();
        assert_eq!(allowed(&sources, v4(1), at(0), 100), 15);
        assert_eq!(allowed(&sources, v4(2), at(0), 100), 5);
        // And so it is for as long as it goes on.
        for tick in 1..100 {
            let now = at(tick * 100);
            allowed(&sources, v4(1), now, 100);
            assert!(tick % 4 != 0 || sources.may(v4(2), RATE, now), "at tick {tick}");
        }
        // A machine has as many addresses of a /64 as it likes.
        let v6 = |n: u128| IpAddr::V6(Ipv6Addr::from_bits((0x2001_0db8 << 96) | n));
        let all = (0..100).filter(|n| sources.may(v6(*n), RATE, at(0))).count();
        assert_eq!(all, 15);
        assert!(sources.may(v6(1 << 64), RATE, at(0)));
    }

    #[test]
    fn the_lowest_rate_lets_one_begin() {
        let sources = Sources::default();
        let rate = Rate { per_second: 1, burst: 1 };
        assert!(sources.may(v4(1), rate, at(0)) && !sources.may(v4(1), rate, at(0)));
        assert!(sources.may(v4(1), rate, at(2_000)));
    }

    #[test]
    fn crowds_of_prefixes_take_a_bounded_place_and_free_nobody_who_is_over() {
        let sources = Sources::default();
        let over = v6(0);
        assert_eq!(allowed(&sources, over, at(0), 100), 15);
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
