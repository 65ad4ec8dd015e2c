//! What a relay uses, and the table of what it used.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::json;
use tidegate_tests::http::metric;
use tidegate_tests::procfs::descriptors;

/// What a process holds at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Memory as [`kib`] counts it.
    pub kib: u64,
    pub descriptors: usize,
    pub threads: usize,
    /// As the admin port tells.
    pub tasks: u64,
}

impl Held {
    pub fn by(pid: i32, admin: u16) -> Self {
        // First, so that its own connection has gone.
        let tasks = metric(admin, "tidegate_supervisor_tasks").expect("the metric of tasks");
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "few tasks")]
        let tasks = tasks as u64;
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
        Self { kib: kib(pid), descriptors: descriptors(pid), threads, tasks }
    }
}

/// KiB that a process has written to and shares with nobody: `Private_Dirty` of smaps_rollup. What it
/// has only read of its program is shared or not as others run it, too.
pub fn kib(pid: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Private_Dirty:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

/// One attack as it was measured.
pub struct Row {
    pub attack: &'static str,
    pub peers: u16,
    /// Times that a peer attacked.
    pub rounds: u64,
    /// Before, at most during, and after it.
    pub kib: [u64; 3],
    /// The p99 of the echo with nobody hostile there; the same while threads as many as the machine has
    /// processors spin; and beside the attack.
    pub idle: Duration,
    pub busy: Duration,
    pub beside: Duration,
    pub echoes: usize,
    /// By how much a thread that only sleeps was late meanwhile, at its p99: the machine's own noise.
    pub late: Duration,
    /// MB that were moved beside it in a second.
    pub pace: f64,
    /// The machine stood still meanwhile, and everybody's times with it.
    pub stood_still: bool,
    /// What is not as it should be, a sentence each: where the machine is not to blame, and where it may be.
    pub faults: Vec<String>,
    pub doubts: Vec<String>,
    /// What peers were told or did, with how many of them.
    pub verdicts: Vec<(String, u64)>,
}

fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

fn mib(kib: u64) -> String {
    format!("{}.{}", kib / 1024, kib % 1024 * 10 / 1024)
}

/// What one echo passes: both clients, twice the relay, the service.
const WAKES: u32 = 8;
/// Those of them that the long form leaves to the processors of the attackers: the client's and the service's,
/// where the kernel's work for a storm of connections delays whoever sleeps there.
const AWAY: u32 = 2;
/// What an echo may take beyond twice its idle p99 in the short form, where the machine is shared.
const NOISE: Duration = Duration::from_millis(250);

impl Row {
    /// Whether the echo beside it was no slower than it may be.
    pub fn is_calm(&self, long: bool) -> bool {
        let noise = if long { self.late * AWAY } else { NOISE + self.late * WAKES };
        self.beside <= self.idle.max(self.busy) * 2 + noise
    }

    fn verdict(&self) -> String {
        let one = |(text, count): &(String, u64)| format!("{text} ({count}x)");
        self.verdicts.iter().take(3).map(one).collect::<Vec<_>>().join("; ").replace('|', "/")
    }
}

/// As Markdown.
pub fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| attack | peers | rounds | MiB before | peak | after | p99 idle, ms | on busy processors | beside | of a sleep | MB/s beside | verdict |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let [before, peak, after] = row.kib.map(mib);
        let [idle, busy, beside, late] = [row.idle, row.busy, row.beside, row.late].map(ms);
        let _ = writeln!(
            text,
            "| {} | {} | {} | {before} | {peak} | {after} | {idle} | {busy} | {beside} | {late} | {:.1} | {} |",
            row.attack,
            row.peers,
            row.rounds,
            row.pace,
            row.verdict()
        );
    }
    text
}

/// Writes the table as JSON where `TIDEGATE_HOSTILE_JSON` says.
pub fn write(rows: &[Row]) {
    let Some(path) = std::env::var_os("TIDEGATE_HOSTILE_JSON") else { return };
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            json!({
                "attack": row.attack, "peers": row.peers, "rounds": row.rounds,
                "kibBefore": row.kib[0], "kibPeak": row.kib[1], "kibAfter": row.kib[2],
                "p99IdleMs": ms(row.idle), "p99BusyMs": ms(row.busy), "p99LateMs": ms(row.late),
                "p99BesideMs": ms(row.beside), "echoes": row.echoes,
                "megabytesPerSecond": row.pace,
                "verdicts": row.verdicts.iter().map(|(text, count)| json!({"told": text, "times": count}))
                    .collect::<Vec<_>>(),
            })
        })
        .collect();
    let text = serde_json::to_string_pretty(&rows).expect("JSON");
    std::fs::write(path, text).expect("the file of TIDEGATE_HOSTILE_JSON");
}
