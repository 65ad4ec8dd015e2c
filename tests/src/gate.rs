//! A relay under test: manifests and state in a directory of its own, the real binary, and what it
//! says.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::clients::{Forward, Program, Staff, Terminals};
use crate::keys::Key;
use crate::manifest::{
    DOMAIN, LoginUser, Manifest, Mesh, NAMESPACE, Relay, SupportWindow, Terminal,
};
use crate::process::{Finished, Proc, mark};
use crate::programs::Build;
use crate::wait::{SOON, eventually, poll, wait_for};
use crate::{http, ports, procfs, programs};

/// What a test declares before the relay starts.
pub struct Setup {
    dir: tempfile::TempDir,
    build: Build,
    mesh: Mesh,
    relay: Relay,
    users: Vec<LoginUser>,
    terminals: Vec<Terminal>,
    windows: Vec<SupportWindow>,
    env: Vec<(String, String)>,
    args: Vec<String>,
    kubeconfig: Option<PathBuf>,
}

impl Default for Setup {
    fn default() -> Self {
        Self::new()
    }
}

impl Setup {
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("tidegate-").tempdir().expect("a directory");
        Self {
            dir,
            build: Build::Debug,
            mesh: Mesh { max_policy_age: None },
            relay: Relay { extra: String::new() },
            users: Vec::new(),
            terminals: Vec::new(),
            windows: Vec::new(),
            env: Vec::new(),
            args: Vec::new(),
            kubeconfig: None,
        }
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn build(mut self, build: Build) -> Self {
        self.build = build;
        self
    }

    pub fn max_policy_age(mut self, age: &str) -> Self {
        self.mesh.max_policy_age = Some(age.to_owned());
        self
    }

    /// Lines of the Relay's `spec`, two spaces in.
    pub fn relay_spec(mut self, lines: &str) -> Self {
        self.relay.extra.push_str(lines);
        self
    }

    pub fn user(mut self, user: LoginUser) -> Self {
        self.users.push(user);
        self
    }

    pub fn terminal(mut self, terminal: Terminal) -> Self {
        self.terminals.push(terminal);
        self
    }

    pub fn window(mut self, window: SupportWindow) -> Self {
        self.windows.push(window);
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    /// The relay takes its policy from this cluster. What is declared is written down all the same,
    /// for the test to apply.
    pub fn cluster(mut self, kubeconfig: &Path) -> Self {
        self.kubeconfig = Some(kubeconfig.to_owned());
        self
    }

    /// The key pair of a login user or terminal, made at the first call.
    pub fn key(&self, name: &str) -> Key {
        Key::kept(self.dir.path(), name)
    }

    /// Writes everything without starting the relay.
    pub fn write(mut self) -> Gate {
        let dir = self.dir.path().to_owned();
        let manifests = dir.join("manifests");
        std::fs::create_dir_all(&manifests).expect("a directory");
        let mut gate = Gate {
            binary: programs::relay(self.build),
            manifests,
            state: dir.join("state"),
            port: ports::free(),
            admin: ports::free(),
            env: std::mem::take(&mut self.env),
            args: std::mem::take(&mut self.args),
            kubeconfig: self.kubeconfig,
            process: None,
            read: Mutex::default(),
            terminals: BTreeMap::new(),
            users: BTreeMap::new(),
            mark: mark(),
            dir: self.dir,
        };
        gate.put(&self.mesh);
        let _ = writeln!(self.relay.extra, "  listeners: [{{port: {}}}]", gate.port);
        gate.put(&self.relay);
        for user in self.users {
            gate.put_user(user);
        }
        for terminal in self.terminals {
            gate.put_terminal(terminal);
        }
        for window in &self.windows {
            gate.put(window);
        }
        gate
    }

    /// Writes everything and starts the relay; returns when it is ready.
    pub fn start(self) -> Gate {
        let mut gate = self.write();
        gate.start();
        gate
    }
}

/// A relay with its manifests and its state.
pub struct Gate {
    pub binary: PathBuf,
    pub manifests: PathBuf,
    pub state: PathBuf,
    pub port: u16,
    pub admin: u16,
    pub env: Vec<(String, String)>,
    pub args: Vec<String>,
    /// Of the cluster that policy comes from, if it does.
    pub kubeconfig: Option<PathBuf>,
    pub process: Option<Proc>,
    /// How much of the log [`Gate::await_log`] has gone through, by what it looked for.
    read: Mutex<BTreeMap<String, usize>>,
    terminals: BTreeMap<String, Terminal>,
    users: BTreeMap<String, LoginUser>,
    mark: String,
    dir: tempfile::TempDir,
}

impl Gate {
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn addr(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    pub fn key(&self, name: &str) -> Key {
        Key::kept(self.dir.path(), name)
    }

    pub fn relay(&self) -> &Proc {
        self.process.as_ref().expect("the relay runs")
    }

    /// Puts a file in place at once, as `kubectl apply` of a directory under Git would see it.
    pub fn put(&self, manifest: &impl Manifest) {
        self.put_text(&manifest.file(), &manifest.yaml());
    }

    pub fn put_text(&self, file: &str, text: &str) {
        let path = self.manifests.join(file);
        let parent = path.parent().expect("a directory");
        std::fs::create_dir_all(parent).expect("a directory");
        let temporary = parent.join(format!(".{}", file.replace('/', "-")));
        std::fs::write(&temporary, text).expect("a manifest");
        std::fs::rename(&temporary, &path).expect("a manifest");
    }

    /// A user with the key that the harness keeps for this name, unless it has keys already.
    pub fn put_user(&mut self, mut user: LoginUser) {
        if user.keys.is_empty() {
            user.keys.push(self.key(&user.name).public);
        }
        self.put(&user);
        self.users.insert(user.name.clone(), user);
    }

    /// A terminal with the key that the harness keeps for this name, unless it has keys already.
    pub fn put_terminal(&mut self, mut terminal: Terminal) {
        if terminal.keys.is_empty() {
            terminal.keys.push(self.key(&terminal.name).public);
        }
        self.put(&terminal);
        self.terminals.insert(terminal.name.clone(), terminal);
    }

    /// A user as it was written last.
    pub fn user(&self, name: &str) -> LoginUser {
        self.users.get(name).expect("a declared user").clone()
    }

    /// A terminal as it was written last.
    pub fn terminal(&self, name: &str) -> Terminal {
        self.terminals.get(name).expect("a declared terminal").clone()
    }

    pub fn remove(&self, manifest: &impl Manifest) {
        self.remove_file(&manifest.file());
    }

    pub fn remove_file(&self, file: &str) {
        std::fs::remove_file(self.manifests.join(file)).expect("a manifest");
    }

    /// `tidegate-relay serve …`, not yet started.
    pub fn serve(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("serve");
        match &self.kubeconfig {
            None => command.arg("--manifests").arg(&self.manifests),
            Some(kubeconfig) => command
                .env("KUBECONFIG", kubeconfig)
                .args(["--kube", "--relay", "loopback", "--namespace", NAMESPACE])
                .args(["--pod-name", "loopback-0", "--host-key"])
                .arg(self.key("relay-host-key").path),
        };
        command
            .arg("--state")
            .arg(&self.state)
            .args(["--listen", &format!("127.0.0.1:{}", self.port)])
            .args(["--admin", &format!("127.0.0.1:{}", self.admin)])
            .args(&self.args)
            .envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts the relay and returns when it says that it is ready.
    pub fn start(&mut self) {
        self.spawn();
        self.await_ready();
    }

    /// Starts the relay without waiting for it.
    pub fn spawn(&mut self) {
        self.read.lock().expect("the log's cursors").clear();
        self.process = Some(Proc::start("tidegate-relay", &mut self.serve()));
    }

    pub fn await_ready(&mut self) {
        let (relay, admin) = (self.relay(), self.admin);
        let last = poll(SOON, || {
            if !relay.is_running() {
                return Some(None);
            }
            http::get(admin, "/readyz").filter(|(status, _)| *status == 200).map(Some)
        });
        match last {
            Some(Some(_)) => self.write_client_files(),
            Some(None) => {
                panic!("the relay ended: {}", relay.stderr());
            }
            None => panic!("the relay is not ready: {:?}\n{}", self.readiness(), relay.stderr()),
        }
    }

    pub fn readiness(&self) -> Option<(u16, String)> {
        http::get(self.admin, "/readyz")
    }

    /// Kills the relay as a crash would.
    pub fn crash(&mut self) {
        if let Some(mut relay) = self.process.take() {
            relay.kill();
        }
    }

    /// Asks the relay to go and waits until it has gone.
    pub fn stop(&mut self) -> Option<i32> {
        let relay = self.process.take()?;
        relay.signal(Signal::INT);
        relay.exit(SOON).code
    }

    /// The relay's own key as `ssh-ed25519 AAAA…`, from the known_hosts that it writes.
    pub fn host_key(&self) -> String {
        let path = self.state.join("known_hosts");
        let text = wait_for("STATE/known_hosts", SOON, || std::fs::read_to_string(&path).ok());
        let line = text.lines().find(|line| !line.starts_with('#')).expect("a line in known_hosts");
        let from = line.find("ssh-ed25519").expect("an ed25519 key");
        line[from..].split_whitespace().take(2).collect::<Vec<_>>().join(" ")
    }

    /// Runs `with` while a terminal that no [`Gate::put_terminal`] wrote is attached with one `-R`.
    pub fn start_client(&self, terminal: &str, port: u16, to: u16, with: impl FnOnce(&Self)) {
        let client = self.clients_of(terminal).start(Program::OpenSsh, &[Forward::port(port, to)]);
        self.await_log(&["terminal offers a service", terminal], SOON);
        with(self);
        drop(client);
    }

    fn write_client_files(&self) {
        let mut known = format!("127.0.0.1,[127.*]:* {}\n", self.host_key());
        for terminal in self.terminals.values() {
            for key in &terminal.host_keys {
                let name = &terminal.name;
                let _ = writeln!(
                    known,
                    "{name},[{name}]:*,{name}.{DOMAIN},[{name}.{DOMAIN}]:*,[localhost]:* {key}"
                );
            }
        }
        std::fs::write(self.dir.path().join("known_hosts"), known).expect("known_hosts");
    }

    /// The clients of one login user, with that user's key.
    pub fn staff(&self, login: &str) -> Staff {
        Staff::new(self.dir.path(), login, self.key(login), self.port)
    }

    /// The SSH clients of one terminal, with that terminal's key.
    pub fn clients_of(&self, terminal: &str) -> Terminals {
        Terminals::new(self.dir.path(), terminal, self.key(terminal), self.port, self.host_key())
    }

    /// Waits for a line of the relay's log that holds all of `parts`, after the last such line that
    /// this found, and returns it.
    #[track_caller]
    pub fn await_log(&self, parts: &[&str], within: Duration) -> String {
        let until = Instant::now() + within;
        let key = parts.join("\n");
        let from =
            self.read.lock().expect("the log's cursors").get(&key).copied().unwrap_or_default();
        loop {
            let log = self.relay().stderr();
            let rest = log.get(from..).unwrap_or_default();
            let mut at = from;
            for line in rest.split_inclusive('\n') {
                at += line.len();
                if line.ends_with('\n') && parts.iter().all(|part| line.contains(part)) {
                    self.read.lock().expect("the log's cursors").insert(key, at);
                    return line.to_owned();
                }
            }
            assert!(
                Instant::now() < until,
                "no line of the relay's log held {parts:?} within {within:?}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until a terminal's client has been granted the forward of a service.
    #[track_caller]
    pub fn await_offer(&self, terminal: &str, service: &str) {
        let service = format!("service={service}");
        self.await_log(&["terminal offers a service", terminal, &service], SOON);
    }

    /// Runs another command of the relay's binary.
    pub fn command(&self, args: &[&str]) -> Finished {
        let mut command = Command::new(&self.binary);
        command.args(args);
        Proc::run(format!("tidegate-relay {}", args.join(" ")), &mut command, SOON)
    }

    /// [`Gate::command`] with `--state`.
    pub fn control(&self, args: &[&str]) -> Finished {
        let state = self.state.to_string_lossy().into_owned();
        let mut all = args.to_vec();
        all.extend(["--state", &state]);
        self.command(&all)
    }

    /// The lines of the audit log, in order, over all of its files.
    pub fn audit(&self) -> Vec<Value> {
        let mut files: Vec<_> = std::fs::read_dir(self.state.join("audit"))
            .map(|entries| entries.filter_map(Result::ok).map(|entry| entry.path()).collect())
            .unwrap_or_default();
        files.retain(|path: &PathBuf| path.extension().is_some_and(|ext| ext == "jsonl"));
        files.sort();
        let mut lines: Vec<Value> = files
            .iter()
            .filter_map(|path| std::fs::read_to_string(path).ok())
            .flat_map(|text| {
                text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect::<Vec<_>>()
            })
            .collect();
        lines.sort_by_key(|line| line["seq"].as_u64());
        lines
    }

    /// Waits for an audit line that `wanted` takes.
    #[track_caller]
    pub fn await_audit(
        &self,
        what: &str,
        within: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        wait_for(what, within, || self.audit().into_iter().find(|line| wanted(line)))
    }

    /// The sessions that the relay says it has.
    pub fn sessions(&self) -> Vec<Value> {
        let told = self.control(&["sessions", "-o", "json"]).ok().stdout;
        let told: Value = serde_json::from_str(&told).unwrap_or(Value::Null);
        match told {
            Value::Array(items) => items,
            Value::Object(mut object) => match object.remove("items") {
                Some(Value::Array(items)) => items,
                _ => Vec::new(),
            },
            _ => Vec::new(),
        }
    }

    /// Waits until the view tells `login` that `terminal` is admitted (or refused) now: the policy
    /// that a test wrote is in force.
    #[track_caller]
    pub fn await_why(&self, login: &str, terminal: &str, admitted: bool) {
        let wanted = Some(i32::from(!admitted));
        eventually(&format!("why {terminal} for {login} exits {wanted:?}"), SOON, || {
            self.staff(login).view(&["why", terminal]).code == wanted
        });
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.process = None;
        let mark = format!("TIDEGATE_TEST={}", self.mark);
        // A test may have several gates; each names its directory in every command.
        let dir = self.dir.path().to_string_lossy().into_owned();
        let ours = || {
            let mut left = procfs::marked(&mark);
            // The terminal's own sshd may outlive the gate.
            left.retain(|(_, line)| line.contains(&dir) && !line.contains("sshd"));
            left
        };
        let none = poll(Duration::from_secs(3), || ours().is_empty().then_some(()));
        if none.is_none() {
            let left = ours();
            for (pid, _) in &left {
                if let Some(pid) = rustix::process::Pid::from_raw(*pid) {
                    let _ = rustix::process::kill_process(pid, Signal::KILL);
                }
            }
            assert!(std::thread::panicking(), "processes were left behind: {left:?}");
        }
    }
}
