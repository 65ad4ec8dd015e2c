//! The harness of the integration tests: a real relay, real SSH clients and servers, and
//! instrumented services, each a child process or a thread of the test that is stopped by its own
//! id when it is dropped.
//!
//! Nothing here sleeps for a result: every wait names what it waits for and until when.

pub mod clients;
pub mod clock;
pub mod cluster;
pub mod crowd;
pub mod delay;
pub mod disk;
pub mod fleet;
pub mod gate;
pub mod hand;
pub mod http;
pub mod interrupt;
pub mod keys;
pub mod kiosk;
mod listener;
pub mod manifest;
pub mod operator;
pub mod pattern;
pub mod ports;
pub mod process;
pub mod procfs;
pub mod programs;
pub mod proxies;
pub mod servers;
pub mod services;
pub mod soak;
pub mod tap;
pub mod usage;
pub mod wait;
pub mod ways;

pub use clients::{Forward, Staff, Terminals};
pub use delay::DelayLine;
pub use disk::SmallDisk;
pub use gate::{Gate, Setup};
pub use kiosk::Kiosk;
pub use manifest::{LoginUser, Mesh, Relay, Schedule, SupportWindow, Terminal};
pub use operator::Operator;
pub use process::{Exit, Proc};
pub use servers::{Dropbear, Sshd};
pub use services::{Echo, Sink, Source};
pub use tap::Tap;
pub use wait::{SOON, eventually, wait_for};
pub use ways::Way;

/// Whether this run was asked to leave nothing out: CI, where a missing component is a failure.
pub fn in_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}

/// Whether the long form of a test was asked for (`just transfer-long` and its like).
pub fn long() -> bool {
    std::env::var("TIDEGATE_LONG").is_ok_and(|value| value == "1")
}

/// Whether a program of another package is here. In CI a missing one fails the test; elsewhere the
/// test says that it was left out.
pub fn have(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|dir| dir.join(program).is_file());
    assert!(
        found || !in_ci(),
        "{program} is missing; scripts/install-test-packages.sh installs it"
    );
    if !found {
        eprintln!("LEFT OUT: {program} is missing; scripts/install-test-packages.sh installs it");
    }
    found
}
