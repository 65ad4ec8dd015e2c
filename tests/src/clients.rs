//! Stock SSH clients, as staff and as terminals, with the options that the documentation gives.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::keys::Key;
use crate::manifest::DOMAIN;
use crate::process::{Finished, Proc};
use crate::servers::me;
use crate::wait::SOON;

/// A client program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    OpenSsh,
    Dropbear,
    Plink,
}

impl Program {
    pub const ALL: [Self; 3] = [Self::OpenSsh, Self::Dropbear, Self::Plink];

    /// The executable's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenSsh => "ssh",
            Self::Dropbear => "dbclient",
            Self::Plink => "plink",
        }
    }
}

/// The argument of one `-R`.
#[derive(Clone, Debug)]
pub struct Forward(pub String);

impl Forward {
    /// `PORT:127.0.0.1:TO`, with no bind address.
    pub fn port(port: u16, to: u16) -> Self {
        Self(format!("{port}:127.0.0.1:{to}"))
    }

    /// `BIND:PORT:127.0.0.1:TO`.
    pub fn bound(bind: &str, port: u16, to: u16) -> Self {
        Self(format!("{bind}:{port}:127.0.0.1:{to}"))
    }
}

/// The clients of one login user.
#[derive(Clone, Debug)]
pub struct Staff {
    pub login: String,
    pub key: Key,
    pub port: u16,
    /// The relay's address as the client dials it.
    pub host: String,
    dir: PathBuf,
    config: PathBuf,
}

impl Staff {
    pub fn new(dir: &Path, login: &str, key: Key, port: u16) -> Self {
        let config = dir.join(format!("{login}.ssh_config"));
        let text = format!(
            "Host *\n  IdentityFile {}\n  IdentitiesOnly yes\n  IdentityAgent none\n  \
             UserKnownHostsFile {}\n  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n  \
             BatchMode yes\n  ForwardAgent no\n  ConnectTimeout 20\n",
            key.path.display(),
            dir.join("known_hosts").display()
        );
        fs::write(&config, text).expect("an ssh_config");
        Self {
            login: login.to_owned(),
            key,
            port,
            host: "127.0.0.1".to_owned(),
            dir: dir.to_owned(),
            config,
        }
    }

    /// The same user through another port, that of a [`crate::Tap`] say.
    pub fn via(&self, port: u16) -> Self {
        Self { port, ..self.clone() }
    }

    /// The same user dialling another loopback address.
    pub fn dialling(&self, host: &str) -> Self {
        Self { host: host.to_owned(), ..self.clone() }
    }

    /// The same key under another login name.
    pub fn as_login(&self, login: &str) -> Self {
        Self { login: login.to_owned(), ..self.clone() }
    }

    /// The same login with another key.
    pub fn with_key(&self, key: Key, tag: &str) -> Self {
        let mut other = Self::new(&self.dir, &format!("{}-{tag}", self.login), key, self.port);
        other.login.clone_from(&self.login);
        other.host.clone_from(&self.host);
        other
    }

    /// `ssh -F CONFIG`.
    pub fn ssh(&self) -> Command {
        let mut command = Command::new("ssh");
        command.arg("-F").arg(&self.config).env_remove("SSH_AUTH_SOCK");
        command
    }

    /// The file that holds the options of all of this user's OpenSSH commands.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// `alice@127.0.0.1:PORT`.
    pub fn jump(&self) -> String {
        format!("{}@{}:{}", self.login, self.host, self.port)
    }

    /// `ssh -J alice@relay ME@TERMINAL.DOMAIN ARGS…`
    pub fn shell(&self, terminal: &str, args: &[&str]) -> Command {
        let mut command = self.ssh();
        let target = format!("{}@{terminal}.{DOMAIN}", me());
        command.args(["-J", &self.jump(), &target]).args(args);
        command
    }

    /// Runs a command on a terminal to its end.
    #[track_caller]
    pub fn run(&self, terminal: &str, args: &[&str]) -> Finished {
        Proc::run(format!("ssh {terminal} {args:?}"), &mut self.shell(terminal, args), SOON)
    }

    /// `ssh ARGS… alice@relay`, with the options first.
    pub fn relay(&self, options: &[&str]) -> Command {
        let mut command = self.ssh();
        let (login, host) = (&self.login, &self.host);
        command.args(["-p", &self.port.to_string()]).args(options).arg(format!("{login}@{host}"));
        command
    }

    /// `ssh -W TERMINAL.DOMAIN:PORT alice@relay`: one channel, its bytes on standard input and
    /// output.
    #[track_caller]
    pub fn w(&self, terminal: &str, port: u16) -> Proc {
        self.w_to(&format!("{terminal}.{DOMAIN}"), port)
    }

    /// `ssh -W HOST:PORT alice@relay`.
    #[track_caller]
    pub fn w_to(&self, host: &str, port: u16) -> Proc {
        let target = format!("{host}:{port}");
        Proc::start(format!("ssh -W {target}"), &mut self.relay(&["-W", &target]))
    }

    /// The answer to one `-W` that is expected to be refused.
    #[track_caller]
    pub fn refused(&self, terminal: &str, port: u16) -> Finished {
        self.w(terminal, port).finish(SOON)
    }

    /// `ssh alice@relay COMMAND…`: the read-only view.
    #[track_caller]
    pub fn view(&self, args: &[&str]) -> Finished {
        let mut command = self.relay(&["-T"]);
        command.args(args);
        Proc::run(format!("view {args:?}"), &mut command, SOON)
    }

    fn home(&self) -> PathBuf {
        home(&self.dir, &format!("{}-home", self.login))
    }

    /// `dbclient -B HOST:PORT alice@relay`.
    pub fn dbclient(&self, target: &str) -> Command {
        let mut command = Command::new("dbclient");
        command
            .env("HOME", self.home())
            .arg("-y")
            .arg("-i")
            .arg(self.key.for_dropbear())
            .args(["-p", &self.port.to_string(), "-B", target])
            .arg(format!("{}@{}", self.login, self.host));
        command
    }

    /// `plink -nc HOST:PORT alice@relay`. `host_key` is the relay's, as [`crate::Gate::host_key`].
    pub fn plink(&self, host_key: &str, args: &[&str]) -> Command {
        let mut command = Command::new("plink");
        command
            .env("HOME", self.home())
            .args(["-batch", "-ssh", "-hostkey", &putty_key(&self.dir, host_key), "-i"])
            .arg(self.key.for_putty())
            .args(["-P", &self.port.to_string()])
            .args(args)
            .arg(format!("{}@{}", self.login, self.host));
        command
    }
}

fn home(dir: &Path, name: &str) -> PathBuf {
    let home = dir.join(name);
    fs::create_dir_all(home.join(".ssh")).expect("a home");
    home
}

/// A host key's fingerprint, as plink's -hostkey takes it.
pub fn putty_key(dir: &Path, public: &str) -> String {
    let path = dir.join(format!("hostkey-{:?}.pub", std::thread::current().id()));
    fs::write(&path, format!("{public}\n")).expect("a file");
    crate::keys::fingerprint(&path)
}

/// The clients of one terminal.
#[derive(Clone, Debug)]
pub struct Terminals {
    pub name: String,
    pub key: Key,
    pub port: u16,
    /// The relay's address as the client dials it.
    pub host: String,
    pub host_key: String,
    dir: PathBuf,
}

impl Terminals {
    pub fn new(dir: &Path, name: &str, key: Key, port: u16, host_key: String) -> Self {
        let (name, host) = (name.to_owned(), "127.0.0.1".to_owned());
        Self { name, key, port, host, host_key, dir: dir.to_owned() }
    }

    /// The same terminal dialling another address.
    pub fn dialling(&self, host: &str) -> Self {
        Self { host: host.to_owned(), ..self.clone() }
    }

    /// The same terminal through another port.
    pub fn via(&self, port: u16) -> Self {
        Self { port, ..self.clone() }
    }

    /// `ssh -N -R …`, `dbclient -N -R …` or `plink -N -R …`.
    pub fn command(&self, program: Program, forwards: &[Forward]) -> Command {
        self.command_with(program, &["-N"], forwards)
    }

    /// The same with other options in the place of `-N`.
    pub fn command_with(
        &self,
        program: Program,
        options: &[&str],
        forwards: &[Forward],
    ) -> Command {
        let mut command = Command::new(program.name());
        command.env_remove("SSH_AUTH_SOCK");
        let port = self.port.to_string();
        let home = home(&self.dir, &format!("{}-home", self.name));
        match program {
            Program::OpenSsh => {
                let known = home.join("known_hosts");
                let line = format!("[{}]:* {}\n", self.host, self.host_key);
                fs::write(&known, line).expect("a file");
                command
                    .args(["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"])
                    .args(["-o", "StrictHostKeyChecking=yes", "-o"])
                    .arg(format!("UserKnownHostsFile={}", known.display()))
                    .args(["-p", &port, "-i"])
                    .arg(&self.key.path);
            }
            Program::Dropbear => {
                command
                    .env("HOME", &home)
                    .args(["-y", "-p", &port, "-i"])
                    .arg(self.key.for_dropbear());
            }
            Program::Plink => {
                let host_key = putty_key(&self.dir, &self.host_key);
                command
                    .env("HOME", &home)
                    .args(["-batch", "-ssh", "-hostkey", &host_key, "-P", &port, "-i"])
                    .arg(self.key.for_putty());
            }
        }
        command.args(options);
        for Forward(forward) in forwards {
            command.args(["-R", forward]);
        }
        // dbclient takes nothing after the host, plink little.
        command.arg(format!("terminal@{}", self.host));
        command
    }

    #[track_caller]
    pub fn start(&self, program: Program, forwards: &[Forward]) -> Proc {
        let name = format!("{} -R of {}", program.name(), self.name);
        Proc::start(name, &mut self.command(program, forwards))
    }

    /// The same, for a command that is expected to end by itself.
    #[track_caller]
    pub fn finish(&self, program: Program, forwards: &[Forward], within: Duration) -> Finished {
        self.start(program, forwards).finish(within)
    }
}
