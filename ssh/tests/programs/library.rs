//! The clients that are libraries of other languages: a small program of each does one job for each
//! line that it is sent (clients/python.py says how).

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::{Client, Job};

pub struct Library {
    name: &'static str,
    version: String,
    child: Child,
    jobs: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Library {
    pub fn start(name: &'static str, command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let jobs = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let mut library = Self { name, version: String::new(), child, jobs, answers };
        library.version = library.line();
        library
    }

    /// The programs bound how long they take.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "{} has ended", self.name);
        line.trim().to_owned()
    }
}

impl Client for Library {
    fn name(&self) -> &'static str {
        self.name
    }

    fn version(&self) -> String {
        self.version.trim_start_matches('v').to_owned()
    }

    /// paramiko waits for itself if a CLOSE comes in a key exchange that it has begun.
    fn rekeys(&self) -> bool {
        !self.name.starts_with("paramiko")
    }

    fn run(&mut self, job: &Job<'_>) -> Result<(), String> {
        let (port, file) = (job.relay.port, job.key.file.display());
        let ciphers = job.ciphers.unwrap_or("-");
        writeln!(self.jobs, "{port} {file} {} {} {ciphers}", job.size, job.rekey).unwrap();
        let line = self.line();
        if line == "ok" { Ok(()) } else { Err(line) }
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
