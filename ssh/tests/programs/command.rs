//! The clients that are commands: OpenSSH, dropbear and PuTTY. Each gets a local port that leads to
//! kiosk-17:22, a forward to something that echoes, and a command that ends when both are done.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Client, Job, PATIENCE, free_port, transfer};
use crate::common::echo;

const TARGET: &str = "alice@127.0.0.1";

/// Runs a client of which the local port is `local`.
fn run(command: &mut Command, local: u16, job: &Job<'_>) -> Result<(), String> {
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    // Its local port is open before it asks for the command.
    let through = match job.relay.asked.recv_timeout(PATIENCE) {
        Ok(()) => {
            let through = transfer(local, job.size);
            // The connection may be over.
            let _ = job.relay.tell.send(());
            through
        }
        Err(_) => Err("no command was asked for".to_owned()),
    };
    // The relay's patience ends it, if nothing else does.
    let output = child.wait_with_output().unwrap();
    let (out, err) = (output.stdout, String::from_utf8_lossy(&output.stderr).into_owned());
    through.map_err(|error| format!("{error}: {err}"))?;
    if output.status.code() == Some(3)
        && out == b"told pty=false\r\n"
        && err.contains("this is stderr")
    {
        return Ok(());
    }
    Err(format!("{}: {}{err}", output.status, String::from_utf8_lossy(&out)))
}

/// Of what a program says with `-V`, the word after a mark.
fn version(program: &str, mark: &str) -> String {
    let output = Command::new(program).arg("-V").output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let rest = text.split_once(mark).map(|(_, rest)| rest).unwrap_or_default();
    rest.split([' ', ',', '\n']).next().unwrap_or_default().to_owned()
}

pub struct OpenSsh;

impl Client for OpenSsh {
    fn name(&self) -> &'static str {
        "OpenSSH"
    }

    fn version(&self) -> String {
        version("ssh", "OpenSSH_")
    }

    fn run(&mut self, job: &Job<'_>) -> Result<(), String> {
        let local = free_port();
        let mut ssh = Command::new("ssh");
        ssh.args(["-F", "/dev/null", "-p", &job.relay.port.to_string(), "-i"]).arg(&job.key.file);
        for option in [
            "BatchMode=yes",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "GlobalKnownHostsFile=/dev/null",
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            "ExitOnForwardFailure=yes",
        ]
        .iter()
        .chain(job.options)
        {
            ssh.args(["-o", option]);
        }
        if job.rekey > 0 {
            ssh.args(["-o", &format!("RekeyLimit={}", job.rekey)]);
        }
        if let Some(ciphers) = job.ciphers {
            ssh.args(["-c", ciphers]);
        }
        ssh.args(["-L", &format!("{local}:kiosk-17:22")]);
        ssh.args(["-R", &format!("0:127.0.0.1:{}", echo()), TARGET, "told"]);
        run(&mut ssh, local, job)
    }
}

pub struct Dropbear {
    pub home: PathBuf,
}

impl Client for Dropbear {
    fn name(&self) -> &'static str {
        "dropbear"
    }

    fn version(&self) -> String {
        version("dbclient", "Dropbear v")
    }

    /// Its limit of a gigabyte is compiled in.
    fn rekeys(&self) -> bool {
        false
    }

    fn run(&mut self, job: &Job<'_>) -> Result<(), String> {
        let local = free_port();
        let mut client = Command::new("dbclient");
        client.args(["-y", "-y", "-p", &job.relay.port.to_string(), "-i"]).arg(job.key.dropbear());
        if let Some(ciphers) = job.ciphers {
            client.args(["-c", ciphers]);
        }
        client.args(["-L", &format!("{local}:kiosk-17:22")]);
        client.args(["-R", &format!("4022:127.0.0.1:{}", echo()), TARGET, "told"]);
        run(client.env("HOME", &self.home), local, job)
    }
}

pub struct Putty {
    pub home: PathBuf,
}

impl Putty {
    /// What has no option of the command is in a session of its own.
    fn session(&self, name: &str, text: &str) {
        let folder: &Path = &self.home.join(".putty/sessions");
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join(name), text).unwrap();
    }
}

impl Client for Putty {
    fn name(&self) -> &'static str {
        "PuTTY"
    }

    fn version(&self) -> String {
        version("plink", "Release ")
    }

    fn run(&mut self, job: &Job<'_>) -> Result<(), String> {
        let local = free_port();
        let name = format!("rekey-{}", job.rekey);
        let limit = if job.rekey > 0 { job.rekey.to_string() } else { "1G".into() };
        self.session(&name, &format!("Protocol=ssh\nRekeyBytes={limit}\n"));
        let mut plink = Command::new("plink");
        plink.args(["-load", &name, "-batch", "-ssh", "-P", &job.relay.port.to_string()]);
        plink.args(["-hostkey", job.host_key, "-i"]).arg(job.key.putty());
        plink.args(["-L", &format!("{local}:kiosk-17:22")]);
        plink.args(["-R", &format!("4022:127.0.0.1:{}", echo()), TARGET, "told"]);
        run(plink.env("HOME", &self.home), local, job)
    }
}
