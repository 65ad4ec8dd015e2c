//! One session through a relay: `ssh -W`, its standard input and output one socket, which holds more
//! than a pipe and so depends less on who is scheduled when.

use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tidegate_tests::process::mark;

use crate::service::GREETING;

/// What a read or write may wait, and the other end of a transfer.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Killed when dropped.
pub struct Session {
    child: Child,
    /// To the service.
    pub socket: TcpStream,
    /// From starting the program to the service's first byte.
    pub dial: Duration,
}

impl Session {
    /// Starts the client and returns when the service has said its first byte.
    pub fn dial(command: &mut Command) -> Self {
        let (mut socket, theirs) = pair();
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        socket.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        let stdin: OwnedFd = theirs.try_clone().expect("a socket").into();
        command
            .env("TIDEGATE_TEST", mark())
            .stdin(stdin)
            .stdout(OwnedFd::from(theirs))
            .stderr(Stdio::inherit())
            .process_group(0);
        let begun = Instant::now();
        let child = command.spawn().expect("ssh starts");
        // Its end is the child's alone, or a client that ends is not seen.
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut greeting = [0];
        let read = socket.read_exact(&mut greeting);
        let session = Self { child, socket, dial: begun.elapsed() };
        assert!(read.is_ok() && greeting == [GREETING], "no service: {read:?} {command:?}");
        session
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Not waited for yet, so the pid is still its own.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}

/// Two ends of a loopback connection.
pub fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    let far = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
    let (near, _) = listener.accept().expect("a connection");
    for socket in [&near, &far] {
        socket.set_nodelay(true).expect("an option");
    }
    (near, far)
}
