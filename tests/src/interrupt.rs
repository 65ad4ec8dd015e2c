//! The end of a program that started others, when somebody asks for it.

use crate::usage::family;

/// At SIGINT or SIGTERM ends what this program started and then itself: each child has a process
/// group of its own, which the terminal's Ctrl-C does not reach.
pub async fn end_all_when_asked() {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt()).expect("a signal handler");
    let mut terminate = signal(SignalKind::terminate()).expect("a signal handler");
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    let this = i32::try_from(std::process::id()).expect("a pid");
    for pid in family(this).into_iter().filter(|pid| *pid != this) {
        if let Some(pid) = rustix::process::Pid::from_raw(pid) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
    std::process::exit(130);
}
