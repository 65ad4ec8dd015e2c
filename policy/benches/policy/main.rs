//! `decide` and one changed window, among 100,000 windows: `just bench-policy`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a bench may"
)]

mod cpu;
mod fleet;

use std::hint::black_box;
use std::sync::Arc;

use cpu::CpuTime;
use fleet::{What, Who, alike, label, now, staff, window};
use jiff::SignedDuration;
use tidegate_policy::decide::{Decision, Request, decide, may_attach};
use tidegate_policy::model::{Attach, ObjectKey};
use tidegate_policy::snapshot::Snapshot;

/// Resident memory of this process in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kilobytes * 1024
}

type Criterion = criterion::Criterion<CpuTime>;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Answer {
    Allow,
    Deny,
}

/// One request again and again; `answer` is what it must get.
fn ask(c: &mut Criterion, name: &str, snapshot: &Snapshot, who: &str, host: &str, answer: Answer) {
    let staff = staff(who);
    let request = Request { staff: &staff, host, port: 22, agent: false, way: None };
    let got = match decide(snapshot, &request, now()) {
        Decision::Allow(_) => Answer::Allow,
        Decision::Deny(_) => Answer::Deny,
    };
    assert_eq!(got, answer, "{name}");
    c.bench_function(&format!("decide: {name}"), |b| {
        b.iter(|| decide(black_box(snapshot), black_box(&request), now()));
    });
}

/// Another user each time, as on a relay: what it needs is not in the processor's cache.
fn ask_anyone(c: &mut Criterion, snapshot: &Snapshot) {
    let staff: Vec<_> = (0..1_000).map(|n| staff(&format!("user-{n}"))).collect();
    let hosts: Vec<_> = (0..10_000).map(|n| format!("kiosk-{n}")).collect();
    let mut n = 0_usize;
    c.bench_function("decide: anyone, anywhere", |b| {
        b.iter(|| {
            n = n.wrapping_add(7_919);
            let (staff, host) = (&staff[n % staff.len()], &hosts[n / 3 % hosts.len()]);
            let request = Request { staff, host, port: 22, agent: false, way: None };
            decide(black_box(snapshot), black_box(&request), now())
        });
    });
}

/// A window is put as it is and otherwise, in turns; what was published before stays published.
fn change(c: &mut Criterion, name: &str, snapshot: &Snapshot, key: (&str, &str)) {
    let key = ObjectKey { namespace: label(key.0), name: label(key.1) };
    let old = snapshot.window(&key).unwrap().clone();
    let mut other = (*old).clone();
    other.limits.max_session_duration = Some(SignedDuration::from_mins(45));
    let versions = [old, Arc::new(other)];
    let mut published = snapshot.clone();
    let mut n = 0;
    c.bench_function(&format!("change: {name}"), |b| {
        b.iter(|| {
            n += 1;
            let mut next = published.clone();
            next.put_window(versions[n % 2].clone());
            published = next;
        });
    });
}

fn usual(c: &mut Criterion) {
    // Text and time zones are read once, whatever the number of windows.
    let _ = window("acme", "first", &Who::User("alice"), &What::Terminal("kiosk"), 2);
    let before = resident();
    let snapshot = fleet::usual();
    let bytes = resident().saturating_sub(before);
    let (windows, terminals) = (snapshot.windows().count(), snapshot.terminals().count());
    let mib = bytes / (1 << 20);
    println!(
        "memory: {windows} windows, {terminals} terminals, {} users: {mib} MiB, {} bytes for each window",
        snapshot.users().count(),
        bytes / windows as u64
    );
    ask(c, "allowed by name", &snapshot, "alice", "kiosk-5", Answer::Allow);
    ask(c, "allowed by group and label", &snapshot, "bob", "kiosk-5", Answer::Allow);
    ask(c, "no window", &snapshot, "alice", "kiosk-0", Answer::Deny);
    ask(c, "no open window", &snapshot, "alice", "kiosk-6", Answer::Deny);
    ask(c, "unknown user", &snapshot, "nobody", "kiosk-0", Answer::Deny);
    ask(c, "unknown terminal", &snapshot, "alice", "nowhere", Answer::Deny);
    ask_anyone(c, &snapshot);
    ask(c, "user of 1,000 windows", &snapshot, "busy", "kiosk-8", Answer::Allow);
    ask(c, "terminal of 1,000 windows", &snapshot, "user-4", "hub", Answer::Allow);
    ask(c, "both, by 10 windows", &snapshot, "busy", "hub", Answer::Allow);
    ask(c, "both, by 1,000 windows", &snapshot, "friend", "home", Answer::Allow);
    change(c, "any window", &snapshot, ("tenant-7", "window-7"));
    change(c, "window of a busy user", &snapshot, ("tenant-8", "busy-8"));
    let mut hub = (**snapshot.terminal(&label("hub")).unwrap()).clone();
    hub.attach = Attach::DuringWindow;
    c.bench_function("may_attach: terminal of 1,000 windows", |b| {
        b.iter(|| may_attach(black_box(&snapshot), black_box(&hub), now()));
    });
}

/// What all 100,000 windows have in common, a look must not go through.
fn alike_ones(c: &mut Criterion) {
    let kiosk = |n: usize| format!("kiosk-{}", n % 10_000);
    let site = |n: usize| format!("site-{}", n % 10_000);
    let user = |n: usize| format!("user-{}", n % 1_000);
    let support = Who::Group("support");

    let one_group = |name: &str, n| window("acme", name, &support, &What::Terminal(&kiosk(n)), n);
    let snapshot = alike(one_group);
    ask(c, "one group in all windows", &snapshot, "user-4", "kiosk-4", Answer::Allow);
    change(c, "one group in all windows", &snapshot, ("acme", "window-4"));

    let fleet = What::Label("fleet", "all");
    let snapshot = alike(|name, n| window("acme", name, &Who::User(&user(n)), &fleet, n));
    ask(c, "one selector in all windows", &snapshot, "user-4", "kiosk-4", Answer::Allow);
    change(c, "one selector in all windows", &snapshot, ("acme", "window-4"));

    let snapshot =
        alike(|name, n| window("acme", name, &support, &What::Label("site", &site(n)), n));
    ask(c, "one group in all, a label each", &snapshot, "user-4", "kiosk-4", Answer::Allow);
    change(c, "one group in all, a label each", &snapshot, ("acme", "window-4"));

    let snapshot = alike(|name, n| window("acme", name, &support, &fleet, n));
    ask(c, "all windows admit her there", &snapshot, "user-4", "kiosk-4", Answer::Allow);
    change(c, "all windows admit her there", &snapshot, ("acme", "window-4"));
}

fn main() {
    let mut criterion = criterion::Criterion::default()
        .with_measurement(CpuTime)
        .warm_up_time(std::time::Duration::from_millis(500))
        .measurement_time(std::time::Duration::from_secs(2))
        .sample_size(30)
        .configure_from_args();
    usual(&mut criterion);
    alike_ones(&mut criterion);
}
