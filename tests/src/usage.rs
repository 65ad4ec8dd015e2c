//! What a process and its descendants have used: time of the processors, and memory of their own.

use std::collections::BTreeSet;

/// Ticks per second in /proc/PID/stat: USER_HZ, 100 on every architecture that this is built for.
const TICKS: f64 = 100.0;
/// The step in which time is told, in seconds.
pub const RESOLUTION: f64 = 1.0 / TICKS;

/// What /proc/PID/stat says of one process.
struct Stat {
    parent: i32,
    /// User and system time in ticks, with that of children that were waited for.
    ticks: u64,
}

fn stat(pid: i32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // `1234 (name) S 1 …`, where the name may hold anything; proc(5) counts state as field 3.
    let (_, rest) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let ticks = [14, 15, 16, 17].into_iter().map(number).sum::<Option<u64>>()?;
    Some(Stat { parent: fields.get(1)?.parse().ok()?, ticks })
}

/// A process and all that descend from it, those that nobody has waited for yet among them.
pub fn family(root: i32) -> BTreeSet<i32> {
    let entries = std::fs::read_dir("/proc").expect("/proc");
    let all: Vec<(i32, i32)> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter_map(|pid| Some((pid, stat(pid)?.parent)))
        .collect();
    let mut family = BTreeSet::from([root]);
    loop {
        let before = family.len();
        let children = all.iter().filter(|(_, parent)| family.contains(parent));
        let children: Vec<i32> = children.map(|(pid, _)| *pid).collect();
        family.extend(children);
        if family.len() == before {
            return family;
        }
    }
}

/// Seconds of user and system time that a process and its descendants have used so far, in steps of
/// [`RESOLUTION`].
/// Of those that have ended, the time of those that their parent waited for.
pub fn cpu_seconds(root: i32) -> f64 {
    let ticks: u64 = family(root).into_iter().filter_map(|pid| Some(stat(pid)?.ticks)).sum();
    #[expect(clippy::cast_precision_loss, reason = "ticks since boot fit an f64")]
    let ticks = ticks as f64;
    ticks / TICKS
}

/// KiB of memory that each of these processes shares with nobody: `Private_*` of smaps_rollup.
pub fn private_kib(pids: &BTreeSet<i32>) -> u64 {
    let of = |pid: &i32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let private = text.lines().filter(|line| line.starts_with("Private_"));
        let kib = private.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        kib.sum::<u64>()
    };
    pids.iter().map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Proc;
    use crate::wait::{SOON, eventually};

    fn shell(script: &str) -> Proc {
        Proc::start("sh", std::process::Command::new("sh").args(["-c", script]))
    }

    #[test]
    fn the_time_of_children_counts_while_they_live_and_after() {
        let busy = "i=0; while [ $i -lt 1000000 ]; do i=$((i + 1)); done";
        let mut living = shell(&format!("({busy}; echo done; exec sleep 60) & wait"));
        living.await_stdout("done", SOON);
        assert!(family(living.pid()).len() >= 2, "{:?}", family(living.pid()));
        assert!(cpu_seconds(living.pid()) >= 0.05, "{}", cpu_seconds(living.pid()));
        living.kill();

        let mut ended = shell(&format!("({busy}); echo done; read _"));
        ended.await_stdout("done", SOON);
        assert_eq!(family(ended.pid()).len(), 1);
        assert!(cpu_seconds(ended.pid()) >= 0.05, "{}", cpu_seconds(ended.pid()));
        ended.kill();
    }

    #[test]
    fn memory_of_its_own_is_counted_once_it_is_touched() {
        let script = "read _; x=$(head -c 20000000 /dev/zero | tr '\\0' x); echo done; read _";
        let mut shell = shell(script);
        let before = private_kib(&family(shell.pid()));
        shell.write(b"\n").expect("a write");
        shell.await_stdout("done", SOON);
        let more = || private_kib(&family(shell.pid())).saturating_sub(before);
        eventually("20 MB more", SOON, || more() >= 19_000);
    }
}
