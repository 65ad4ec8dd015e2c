//! Child processes with everything that they write, and when.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use sha2::{Digest, Sha256};

use crate::procfs;
use crate::wait::{SOON, eventually};

/// Output beyond this many bytes is counted and hashed but not kept.
const KEPT: usize = 4 << 20;

/// What came out of one pipe so far.
#[derive(Default)]
pub struct Stream {
    pub kept: Vec<u8>,
    pub total: u64,
    pub last_byte: Option<Instant>,
    pub eof: Option<Instant>,
    hash: Sha256,
}

impl Stream {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.kept).into_owned()
    }

    /// SHA-256 of all of it.
    pub fn sha256(&self) -> [u8; 32] {
        self.hash.clone().finalize().into()
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The exit status, or `None` when a signal ended it.
    pub code: Option<i32>,
    pub at: Instant,
}

#[derive(Default)]
struct Seen {
    out: Stream,
    err: Stream,
    exit: Option<Exit>,
}

struct Shared {
    seen: Mutex<Seen>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What all children of this thread's test carry in their environment, so that a test can prove at
/// its end that none is left.
pub fn mark() -> String {
    format!("{}-{:?}", std::process::id(), std::thread::current().id())
}

/// A running child in a process group of its own, killed with its group when dropped.
pub struct Proc {
    name: String,
    pid: Pid,
    shared: Arc<Shared>,
    stdin: Option<ChildStdin>,
    threads: Vec<JoinHandle<()>>,
    /// Whether its output is shown when the test fails.
    pub quiet: bool,
}

/// What a finished command left.
#[derive(Clone, Debug)]
pub struct Finished {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub at: Instant,
    pub took: Duration,
}

impl Finished {
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }
}

impl Proc {
    /// Starts `command` with pipes for all three streams.
    #[track_caller]
    pub fn start(name: impl Into<String>, command: &mut Command) -> Self {
        use std::os::unix::process::CommandExt as _;
        let name = name.into();
        command
            .env("TIDEGATE_TEST", mark())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => panic!("{name}: cannot start {command:?}: {error}"),
        };
        let pid = Pid::from_child(&child);
        let shared = Arc::new(Shared { seen: Mutex::default(), changed: Condvar::new() });
        let stdin = child.stdin.take();
        let mut threads = Vec::new();
        if let Some(pipe) = child.stdout.take() {
            threads.push(reader(pipe, Arc::clone(&shared), |seen| &mut seen.out));
        }
        if let Some(pipe) = child.stderr.take() {
            threads.push(reader(pipe, Arc::clone(&shared), |seen| &mut seen.err));
        }
        threads.push(reaper(child, pid, Arc::clone(&shared)));
        Self { name, pid, shared, stdin, threads, quiet: false }
    }

    /// Runs `command` to its end with nothing on its standard input.
    #[track_caller]
    pub fn run(name: impl Into<String>, command: &mut Command, within: Duration) -> Finished {
        let mut process = Self::start(name, command);
        process.close_stdin();
        process.finish(within)
    }

    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Writes to its standard input; an error means that it has closed it.
    pub fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let stdin = self.stdin.as_mut().ok_or(std::io::ErrorKind::BrokenPipe)?;
        stdin.write_all(bytes)?;
        stdin.flush()
    }

    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    pub fn take_stdin(&mut self) -> ChildStdin {
        self.stdin.take().expect("stdin is taken once")
    }

    pub fn with_out<T>(&self, look: impl FnOnce(&Stream) -> T) -> T {
        look(&self.shared.lock().out)
    }

    pub fn stdout(&self) -> String {
        self.shared.lock().out.text()
    }

    pub fn stderr(&self) -> String {
        self.shared.lock().err.text()
    }

    pub fn exited(&self) -> Option<Exit> {
        self.shared.lock().exit
    }

    pub fn is_running(&self) -> bool {
        self.exited().is_none()
    }

    /// Waits until `look` finds something in its output or exit; panics after `within`.
    #[track_caller]
    fn await_seen<T>(
        &self,
        what: &str,
        within: Duration,
        mut look: impl FnMut(&Seen) -> Option<T>,
    ) -> T {
        let until = Instant::now() + within;
        let mut seen = self.shared.lock();
        loop {
            if let Some(found) = look(&seen) {
                return found;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let (out, err, exit) = (tail(&seen.out), tail(&seen.err), seen.exit);
                drop(seen);
                panic!(
                    "{}: waited {within:?} in vain for: {what} (exit {exit:?})\nstdout: {out}\nstderr: {err}",
                    self.name
                );
            }
            seen = self
                .shared
                .changed
                .wait_timeout(seen, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Waits for text on its standard output. Fails early when the process ends without it.
    #[track_caller]
    pub fn await_stdout(&self, text: &str, within: Duration) {
        self.await_text(text, within, |seen| &seen.out);
    }

    /// Waits for text on its standard error. Fails early when the process ends without it.
    #[track_caller]
    pub fn await_stderr(&self, text: &str, within: Duration) {
        self.await_text(text, within, |seen| &seen.err);
    }

    #[track_caller]
    fn await_text(&self, text: &str, within: Duration, of: impl Fn(&Seen) -> &Stream) {
        let found = self.await_seen(text, within, |seen| {
            let stream = of(seen);
            if contains(&stream.kept, text.as_bytes()) {
                return Some(true);
            }
            (seen.exit.is_some() && stream.eof.is_some()).then_some(false)
        });
        assert!(
            found,
            "{} ended ({:?}) without '{text}'\nstdout: {}\nstderr: {}",
            self.name,
            self.exited(),
            self.stdout(),
            self.stderr()
        );
    }

    /// Waits until its standard output has given at least `bytes`.
    #[track_caller]
    pub fn await_bytes(&self, bytes: u64, within: Duration) {
        self.await_seen(&format!("{bytes} bytes on stdout"), within, |seen| {
            (seen.out.total >= bytes).then_some(())
        });
    }

    /// Waits for its end and for all of its output. A pipe that a grandchild keeps open beyond the
    /// process itself does not hold this up for long.
    #[track_caller]
    pub fn exit(&self, within: Duration) -> Exit {
        let exit = self.await_seen("its end", within, |seen| seen.exit);
        let until = Instant::now() + Duration::from_secs(2);
        let mut seen = self.shared.lock();
        while (seen.out.eof.is_none() || seen.err.eof.is_none()) && Instant::now() < until {
            let left = until.saturating_duration_since(Instant::now());
            seen = self
                .shared
                .changed
                .wait_timeout(seen, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        exit
    }

    /// Closes its standard input and waits for its end and for all of its output.
    #[track_caller]
    pub fn finish(mut self, within: Duration) -> Finished {
        let begun = Instant::now();
        self.close_stdin();
        let exit = self.exit(within);
        let seen = self.shared.lock();
        let finished = Finished {
            code: exit.code,
            stdout: seen.out.text(),
            stderr: seen.err.text(),
            at: exit.at,
            took: exit.at.saturating_duration_since(begun),
        };
        drop(seen);
        finished
    }

    /// Sends a signal to the process alone.
    pub fn signal(&self, signal: Signal) {
        let seen = self.shared.lock();
        if seen.exit.is_none() {
            let _ = rustix::process::kill_process(self.pid, signal);
        }
    }

    /// Stops the process, and returns when none of its threads runs any more: until one of them takes
    /// the signal, the others go on.
    pub fn stop(&self) {
        self.signal(Signal::STOP);
        eventually("the process stands still", SOON, || {
            procfs::is_stopped(self.pid.as_raw_nonzero().get())
        });
    }

    /// Sends a signal to the process and all of its group.
    pub fn signal_group(&self, signal: Signal) {
        let _ = rustix::process::kill_process_group(self.pid, signal);
    }

    /// Ends it at once and waits until it is gone.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.signal_group(Signal::KILL);
        self.exit(Duration::from_secs(10));
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        self.close_stdin();
        // The group outlives its leader while a member lives, so this never hits a stranger.
        self.signal_group(Signal::KILL);
        self.signal(Signal::KILL);
        for thread in self.threads.drain(..) {
            // A reader ends with the last holder of its pipe, which the group's end was.
            if thread.is_finished() || self.shared.lock().exit.is_none() {
                let _ = thread.join();
            }
        }
        if std::thread::panicking() && !self.quiet {
            let seen = self.shared.lock();
            let mut shown = String::new();
            let _ = write!(
                shown,
                "--- {} (exit {:?})\nstdout: {}\nstderr: {}\n",
                self.name,
                seen.exit.map(|exit| exit.code),
                tail(&seen.out),
                tail(&seen.err)
            );
            eprint!("{shown}");
        }
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    !part.is_empty() && text.windows(part.len()).any(|window| window == part)
}

fn tail(stream: &Stream) -> String {
    const SHOWN: usize = 8000;
    let from = stream.kept.len().saturating_sub(SHOWN);
    String::from_utf8_lossy(&stream.kept[from..]).into_owned()
}

fn reader(
    mut pipe: impl Read + Send + 'static,
    shared: Arc<Shared>,
    of: fn(&mut Seen) -> &mut Stream,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = match pipe.read(&mut buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Ok(count) => count,
                Err(_) => 0,
            };
            let mut seen = shared.lock();
            let stream = of(&mut seen);
            let now = Instant::now();
            if count == 0 {
                stream.eof = Some(now);
            } else {
                let bytes = &buffer[..count];
                stream.total += count as u64;
                stream.last_byte = Some(now);
                stream.hash.update(bytes);
                let room = KEPT.saturating_sub(stream.kept.len());
                stream.kept.extend_from_slice(&bytes[..count.min(room)]);
            }
            drop(seen);
            shared.changed.notify_all();
            if count == 0 {
                return;
            }
        }
    })
}

/// Notes the end before the pid is given back, so that no signal of ours can hit another process.
fn reaper(mut child: Child, pid: Pid, shared: Arc<Shared>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while let Err(rustix::io::Errno::INTR) = rustix::process::waitid(WaitId::Pid(pid), options)
        {
        }
        let at = Instant::now();
        let mut seen = shared.lock();
        let code = child.wait().ok().and_then(|status| status.code());
        seen.exit = Some(Exit { code, at });
        drop(seen);
        shared.changed.notify_all();
    })
}
