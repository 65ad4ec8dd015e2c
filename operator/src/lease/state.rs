//! What to do about a lease that was seen. Pure: touches no clock and no network.
//!
//! A lease has expired when *this* replica has not seen it change for its duration, by its own boot
//! clock: the times that the lease carries are some other machine's, and are compared for being equal
//! only.

use std::time::Duration;

use tidegate_process::clock::Boot;

/// A lease that names no duration, or one out of bounds, is taken to have the nearest of these.
const DURATIONS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_mins(2));

/// What of a lease counts. Two are the same while nobody renewed or took it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// `None` or empty: it was released.
    pub holder: Option<String>,
    /// As the holder wrote it; `None` or out of bounds: see [`Record::lasts`].
    pub duration: Option<Duration>,
    /// As the holder wrote it: compared, never read.
    pub renewed: Option<String>,
    /// How often it has changed hands.
    pub transitions: i32,
}

impl Record {
    /// How long others wait after they last saw it change.
    fn lasts(&self) -> Duration {
        self.duration.unwrap_or(super::DURATION).clamp(DURATIONS.0, DURATIONS.1)
    }

    fn holder(&self) -> Option<&str> {
        self.holder.as_deref().filter(|holder| !holder.is_empty())
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// There is no lease: make it.
    Create,
    /// It is free, or its holder has let it expire: write our name, on the version that was seen.
    Take,
    /// It is ours: renew it, on the version that was seen.
    Renew,
    /// Another holds it: look again then.
    Wait(Duration),
    /// It was ours and is not any more: end.
    Lost,
}

/// One replica's view of the lease.
#[derive(Debug)]
pub struct Machine {
    identity: String,
    /// The last record seen, and when it was first seen so.
    seen: Option<(Record, Boot)>,
    /// Until when this replica holds it, if it ever did.
    until: Option<Boot>,
}

impl Machine {
    /// `identity` is this process's alone: not even an earlier process of the same pod had it.
    pub fn new(identity: String) -> Self {
        Self { identity, seen: None, until: None }
    }

    /// The lease was read, having been asked for at or before `now`.
    pub fn observe(&mut self, lease: Option<&Record>, now: Boot) -> Action {
        if self.until.is_some_and(|until| now >= until) {
            return Action::Lost;
        }
        let Some(record) = lease else {
            self.seen = None;
            // Somebody deleted it while we held it: others can take it at once.
            return if self.until.is_some() { Action::Lost } else { Action::Create };
        };
        let since = match &self.seen {
            Some((seen, since)) if seen == record => *since,
            _ => {
                self.seen = Some((record.clone(), now));
                now
            }
        };
        match record.holder() {
            Some(holder) if holder == self.identity => Action::Renew,
            _ if self.until.is_some() => Action::Lost,
            None => Action::Take,
            Some(_) => {
                let left = record.lasts().saturating_sub(now.since(since));
                if left.is_zero() { Action::Take } else { Action::Wait(left.min(super::LOOK)) }
            }
        }
    }

    /// A create, take or renewal that was sent at `sent` succeeded. Gives until when it is held:
    /// others saw the change after `sent` and wait for the whole duration.
    pub fn written(&mut self, sent: Boot) -> Boot {
        let until = sent.plus(super::HOLD);
        self.until = Some(until);
        until
    }

    /// Whether it is held at `now`.
    pub fn holds(&self, now: Boot) -> bool {
        self.until.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidegate_draw::cases;

    use super::super::{DURATION, HOLD, LOOK, RENEW};
    use super::*;

    fn at(millis: u64) -> Boot {
        Boot::from_start(Duration::from_millis(millis))
    }

    fn lease(holder: &str, renewed: u64) -> Record {
        Record {
            holder: Some(holder.to_owned()),
            duration: Some(DURATION),
            renewed: Some(renewed.to_string()),
            transitions: 1,
        }
    }

    fn machine() -> Machine {
        Machine::new("me".to_owned())
    }

    #[test]
    fn an_absent_or_released_lease_is_taken_at_once() {
        assert_eq!(machine().observe(None, at(0)), Action::Create);
        let mut free = lease("", 1);
        assert_eq!(machine().observe(Some(&free), at(0)), Action::Take);
        free.holder = None;
        assert_eq!(machine().observe(Some(&free), at(0)), Action::Take);
    }

    #[test]
    fn anothers_is_taken_only_after_its_duration_without_a_change_that_we_saw() {
        let mut machine = machine();
        assert_eq!(machine.observe(Some(&lease("a", 1)), at(1000)), Action::Wait(LOOK));
        assert_eq!(machine.observe(Some(&lease("a", 1)), at(14_000)), Action::Wait(LOOK));
        // A renewal begins the wait again.
        assert_eq!(machine.observe(Some(&lease("a", 2)), at(15_500)), Action::Wait(LOOK));
        assert_eq!(
            machine.observe(Some(&lease("a", 2)), at(30_000)),
            Action::Wait(Duration::from_millis(500))
        );
        assert_eq!(machine.observe(Some(&lease("a", 2)), at(30_500)), Action::Take);
    }

    #[test]
    fn a_holder_that_names_no_or_an_absurd_duration_is_waited_for_within_bounds() {
        for (duration, expected) in [(None, 15), (Some(0), 5), (Some(1 << 40), 120)] {
            let record = Record { duration: duration.map(Duration::from_secs), ..lease("a", 1) };
            let mut machine = machine();
            machine.observe(Some(&record), at(0));
            let before = machine.observe(Some(&record), at(expected * 1000 - 1));
            assert!(matches!(before, Action::Wait(_)), "{duration:?}");
            assert_eq!(machine.observe(Some(&record), at(expected * 1000)), Action::Take);
        }
    }

    #[test]
    fn a_holder_that_overslept_has_lost_it_even_if_nobody_took_it() {
        let mut machine = machine();
        machine.observe(None, at(0));
        machine.written(at(0));
        assert!(machine.holds(at(11_999)) && !machine.holds(at(12_000)));
        assert_eq!(machine.observe(Some(&lease("me", 1)), at(5000)), Action::Renew);
        assert_eq!(machine.observe(Some(&lease("me", 1)), at(12_000)), Action::Lost);
    }

    #[test]
    fn a_holder_that_sees_anothers_name_or_no_lease_has_lost_it() {
        for lease in [None, Some(lease("", 1)), Some(lease("b", 2))] {
            let mut machine = machine();
            machine.written(at(0));
            assert_eq!(machine.observe(lease.as_ref(), at(1)), Action::Lost);
        }
    }

    #[test]
    fn a_take_whose_answer_was_lost_is_renewed_when_it_is_seen() {
        let mut machine = machine();
        machine.observe(None, at(0));
        assert_eq!(machine.observe(Some(&lease("me", 1)), at(3000)), Action::Renew);
    }

    /// One simulated replica, whose boot clock started at another time than the others'.
    struct Replica {
        machine: Machine,
        offset: u64,
        paused_until: u64,
        next: u64,
        gone: bool,
    }

    proptest! {
        #![proptest_config(cases(256))]

        /// Replicas that pause, die and lose answers: never do two hold at one instant, and whenever
        /// one dies or overslept another holds within 20 s.
        #[test]
        fn never_two_and_never_long_none(
            events in prop::collection::vec((0u64..4000, 0usize..3, 0u64..40_000), 0..30),
            lost in prop::collection::vec(any::<bool>(), 64),
        ) {
            let mut server: Option<Record> = None;
            let mut renewals = 0;
            let mut none_since = 0;
            let mut replicas: Vec<Replica> = (0..3u64)
                .map(|i| Replica {
                    machine: Machine::new(format!("r{i}")),
                    offset: i * 1_000_000,
                    paused_until: 0,
                    next: i * 100,
                    gone: false,
                })
                .collect();
            let mut events = events.into_iter();
            let (mut when, mut whom, mut how_long) = events.next().unwrap_or((u64::MAX, 0, 0));
            let mut fresh = 3;
            for now in (0..200_000).step_by(50) {
                if now >= when {
                    replicas[whom].paused_until = now + how_long;
                    let next = events.next().unwrap_or((u64::MAX, 0, 0));
                    (when, whom, how_long) = (now.saturating_add(next.0), next.1, next.2);
                }
                for replica in &mut replicas {
                    if now < replica.paused_until || now < replica.next {
                        continue;
                    }
                    let boot = at(now + replica.offset);
                    if replica.gone {
                        // As its pod's next container: a new identity.
                        replica.machine = Machine::new(format!("r{fresh}"));
                        replica.gone = false;
                        fresh += 1;
                    }
                    match replica.machine.observe(server.as_ref(), boot) {
                        Action::Create | Action::Take | Action::Renew => {
                            renewals += 1;
                            server = Some(lease(&replica.machine.identity, renewals));
                            // The answer may be lost; the write landed all the same.
                            if lost[usize::try_from(renewals % 64).unwrap()] && renewals % 3 == 0 {
                                replica.next = now + 1000;
                            } else {
                                replica.machine.written(boot);
                                replica.next = now + u64::try_from(RENEW.as_millis()).unwrap();
                            }
                        }
                        Action::Wait(wait) => {
                            replica.next = now + u64::try_from(wait.as_millis()).unwrap();
                        }
                        Action::Lost => {
                            replica.gone = true;
                            replica.next = now + 1000;
                        }
                    }
                }
                let holders =
                    replicas.iter().filter(|r| r.machine.holds(at(now + r.offset))).count();
                prop_assert!(holders <= 1, "{holders} hold at {now}");
                let awake = replicas.iter().filter(|r| now >= r.paused_until).count();
                if holders == 1 || awake < 2 {
                    none_since = now;
                }
                prop_assert!(now - none_since <= 20_000, "nobody holds at {now}");
            }
            prop_assert!(HOLD < DURATION);
        }
    }
}
