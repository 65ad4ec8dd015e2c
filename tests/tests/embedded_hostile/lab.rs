//! Who has which processor. Real attackers bring their own; these take those that the relay, its clients
//! and its services need, and what an echo then waits for is the machine.

use std::process::Command;

use rustix::process::setpriority_process;
use rustix::thread::{CpuSet, gettid, sched_getaffinity, sched_setaffinity};

use crate::arena::long;

/// Starts a relay. In the long form it has the first processor, and this thread and all that it starts from
/// now on the others; where there is but one they share it.
pub fn apart<T>(start: impl FnOnce() -> T) -> T {
    let all = sched_getaffinity(None).expect("the processors");
    let mut has = (0..CpuSet::MAX_CPU).filter(|cpu| all.is_set(*cpu));
    let (first, others) = (has.next().expect("a processor"), has.collect::<Vec<_>>());
    if !long() || others.is_empty() {
        return start();
    }
    stay_on(&[first]);
    let started = start();
    stay_on(&others);
    started
}

fn stay_on(processors: &[usize]) {
    let mut set = CpuSet::new();
    for processor in processors {
        set.set(*processor);
    }
    sched_setaffinity(None, &set).expect("its processors");
}

/// This thread and those that it starts give way to what is measured. In the long form they only have what
/// nobody else wants: SCHED_IDLE, or a few hundred of them would crowd out the rest at any priority.
pub fn give_way() {
    let _ = setpriority_process(None, 10);
    if long() {
        let thread = gettid().as_raw_nonzero().to_string();
        let mut chrt = Command::new("chrt");
        let done = chrt.args(["--idle", "--pid", "0", &thread]).status();
        assert!(done.is_ok_and(|status| status.success()), "chrt of util-linux could not do it");
    }
}
