//! Tidegate as a platform team installs it: on a cluster with nodes, by `kubectl apply -k`, with the
//! images of this tree; a terminal and staff outside of the cluster, each in a network of its own.

mod pods;
mod release;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::clients::{Forward, Program, Staff, Terminals};
use crate::cluster::Nodes;
use crate::keys::Key;
use crate::manifest::{DOMAIN, LoginUser, Manifest, Mesh, NAMESPACE, Terminal};
use crate::process::{Finished, Proc};
use crate::programs;
use crate::servers::{SSHD, Sshd};
use crate::wait::wait_for;

pub use pods::Pod;
pub use release::Release;

/// A rollout, or a node's loss being noticed and made good.
pub const ROLLOUT: Duration = Duration::from_mins(3);
/// The port of the Relay that terminals and staff use.
const PORT: u16 = 5938;

/// A cluster on which Tidegate is installed, with the Mesh `prod` and the Relay `eu`.
pub struct Fleet {
    pub nodes: Nodes,
    dir: tempfile::TempDir,
}

/// A terminal in the place `terminal`: its own sshd, and what carries it to the relay.
pub struct Site {
    pub client: Option<Proc>,
    pub sshd: Sshd,
    clients: Terminals,
    /// The listen port of its service `ssh`.
    listen: u16,
}

impl Fleet {
    /// Brings up `nodes` nodes and installs a release of Tidegate with `replicas` relay replicas; returns
    /// when all of it is ready. `None` says that it was left out, loudly.
    pub fn install(nodes: u8, replicas: u8, release: Release) -> Option<Self> {
        let cluster = Nodes::start(nodes)?;
        for archive in images() {
            cluster.load_image(&archive);
        }
        let dir =
            tempfile::Builder::new().prefix("tidegate-fleet-").tempdir().expect("a directory");
        let fleet = Self { nodes: cluster, dir };
        release.tag_images(&fleet.nodes);
        fleet.apply_overlay(release);
        // What the pods of relays ask for is what the restricted standard allows.
        let enforce = "pod-security.kubernetes.io/enforce=restricted";
        fleet.nodes.kubectl(&["label", "namespace", NAMESPACE, enforce]).ok();
        fleet.declare(&Mesh { max_policy_age: Some("30s".to_owned()) });
        fleet.declare(&FleetRelay { replicas });
        fleet.await_ready();
        Some(fleet)
    }

    /// `kubectl apply -k` of the overlay, and its operator's rollout.
    pub fn apply_overlay(&self, release: Release) {
        self.nodes.kubectl(&["apply", "--server-side", "-k", &self.overlay(release)]).ok();
        let deployment = "deployment/tidegate-operator";
        let rollout = ["-n", "tidegate-system", "rollout", "status", deployment, "--timeout=55s"];
        self.nodes.kubectl(&rollout).ok();
    }

    /// The folder for `kubectl apply -k`.
    pub fn overlay(&self, release: Release) -> String {
        release.overlay(self.dir()).display().to_string()
    }

    /// Takes the operator away, and leaves kinds, objects and keys.
    pub fn uninstall(&self) {
        self.nodes.kubectl(&["delete", "-k", &manifests("operator")]).ok();
    }

    /// Waits as a person does: `kubectl wait --for=condition=Ready`.
    pub fn await_ready(&self) {
        for object in ["mesh/prod", "relay/eu"] {
            let wait = ["wait", "--for=condition=Ready", object, "--timeout=55s"];
            let waited = self.nodes.kubectl(&wait);
            if waited.code != Some(0) {
                let state = self.nodes.kubectl(&["get", object, "-o", "yaml"]);
                let pods = self.nodes.kubectl(&["get", "pods,events", "-A"]);
                panic!("{}\n{}\n{}", waited.stderr, state.stdout, pods.stdout);
            }
        }
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Applies a manifest, and keeps it as a person would in a repository.
    #[track_caller]
    pub fn declare(&self, manifest: &impl Manifest) {
        let file = self.declared().join(manifest.file());
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        std::fs::write(file, manifest.yaml()).expect("a manifest");
        self.nodes.apply(&manifest.yaml()).ok();
    }

    /// Deletes a window and its manifest.
    #[track_caller]
    pub fn withdraw(&self, window: &str) {
        self.nodes.kubectl(&["delete", "supportwindow", window]).ok();
        std::fs::remove_file(self.declared().join(format!("windows/{window}.yaml")))
            .expect("a file");
    }

    /// The folder of the manifests that are in force.
    pub fn declared(&self) -> PathBuf {
        self.dir().join("declared")
    }

    /// `kubectl get OBJECT -o json`.
    #[track_caller]
    pub fn get(&self, what: &[&str]) -> Value {
        let mut arguments = vec!["get"];
        arguments.extend(what);
        arguments.extend(["-o", "json"]);
        let got = self.nodes.kubectl(&arguments).ok();
        serde_json::from_str(&got.stdout).expect("JSON")
    }

    /// The NodePort behind which the relay's port is.
    pub fn node_port(&self) -> u16 {
        let service = self.get(&["service", "eu"]);
        let ports = service.pointer("/spec/ports").and_then(Value::as_array).expect("ports");
        let port = ports.iter().find(|port| port["port"] == PORT).expect("the relay's port");
        u16::try_from(port["nodePort"].as_u64().expect("a node port")).expect("a port")
    }

    /// The relay's public host key, as the Mesh's status says it.
    pub fn host_key(&self) -> String {
        let mesh = self.get(&["mesh", "prod"]);
        mesh.pointer("/status/hostKeys/0").and_then(Value::as_str).expect("a host key").to_owned()
    }

    /// The key pair of a login user or terminal, made at the first call.
    pub fn key(&self, name: &str) -> Key {
        Key::kept(self.dir(), name)
    }

    /// Declares a login user with a key of its own.
    pub fn user(&self, login: &str) {
        let mut user = LoginUser::new(login);
        user.keys = vec![self.key(login).public];
        self.declare(&user);
    }

    /// A terminal with a real sshd in the place `terminal`, declared and not yet attached.
    pub fn terminal(&self, name: &str, listen: u16, authorized: &[&str]) -> Site {
        let keys: Vec<String> = authorized.iter().map(|login| self.key(login).public).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let address = self.nodes.address("terminal");
        let sshd = self.nodes.within("terminal", SSHD);
        let sshd = Sshd::at(&address, sshd, &self.dir().join(format!("sshd-{name}")), &keys, &[]);
        let mut terminal =
            Terminal::new(name).host_key(&sshd.host_key.public).service("ssh", 22, Some(listen));
        terminal.keys = vec![self.key(name).public];
        self.declare(&terminal);
        let clients =
            Terminals::new(self.dir(), name, self.key(name), self.node_port(), self.host_key());
        self.know(&format!("{name}.{DOMAIN} {}", sshd.host_key.public));
        Site { client: None, sshd, clients, listen }
    }

    /// Connects the terminal to a replica behind `node`, by stock `ssh -R`, which dials again whenever
    /// it is disconnected.
    pub fn attach(&self, site: &mut Site, node: &str) {
        let host = self.nodes.address(node);
        let forward = Forward(format!(
            "{}:{}:{}",
            site.listen,
            self.nodes.address("terminal"),
            site.sshd.port
        ));
        let command = site.clients.dialling(&host).command(Program::OpenSsh, &[forward]);
        let mut again = Command::new("sh");
        again.args(["-c", "while :; do \"$@\"; sleep 0.5; done", "again"]);
        again.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => again.env(name, value),
                None => again.env_remove(name),
            };
        }
        // The one before would take the forward over again.
        site.client = None;
        site.client = Some(Proc::start("ssh -R", &mut self.inside("terminal", &again)));
    }

    /// The clients of a login user, dialling the replica behind `node`. They run in the place `staff`.
    pub fn staff(&self, login: &str, node: &str) -> Staff {
        let host = self.nodes.address(node);
        self.know(&format!("[{host}]:{} {}", self.node_port(), self.host_key()));
        Staff::new(self.dir(), login, self.key(login), self.node_port()).dialling(&host)
    }

    /// A session on a terminal, to be cut: `ssh -J` that says `up` and then waits.
    pub fn session(&self, staff: &Staff, terminal: &str) -> Proc {
        let command = staff.shell(terminal, &["echo up; cat"]);
        Proc::start(format!("ssh {terminal}"), &mut self.inside("staff", &command))
    }

    /// Tries until a session is up, as a person would who waits for an opening.
    #[track_caller]
    pub fn await_session(&self, staff: &Staff, terminal: &str, within: Duration) -> Proc {
        let mut last = String::new();
        let found = crate::wait::poll(within, || {
            let session = self.session(staff, terminal);
            let up = crate::wait::poll(Duration::from_secs(15), || {
                (session.stdout().contains("up") || !session.is_running()).then_some(())
            });
            if up.is_some() && session.is_running() {
                return Some(session);
            }
            last = session.stderr();
            None
        });
        found.unwrap_or_else(|| panic!("no session on {terminal}: {last}"))
    }

    /// One try that is expected to be refused.
    pub fn refused(&self, staff: &Staff, terminal: &str) -> Finished {
        self.session(staff, terminal).finish(Duration::from_secs(30))
    }

    /// The same command in one of the cluster's places.
    pub fn inside(&self, place: &str, command: &Command) -> Command {
        let mut inside = self.nodes.within(place, command.get_program());
        inside.args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        inside
    }

    /// The records of sessions, oldest first.
    pub fn records(&self) -> Vec<Value> {
        let mut records =
            self.get(&["supportsessions"])["items"].as_array().cloned().unwrap_or_default();
        records.sort_by_key(|record| record["metadata"]["name"].as_str().map(str::to_owned));
        records
    }

    /// Waits for a terminal's newest record to have ended, and returns who ended it.
    #[track_caller]
    pub fn await_ended(&self, terminal: &str, within: Duration) -> String {
        wait_for("the record's end", within, || {
            let records = self.records();
            let newest =
                records.iter().rev().find(|record| record["spec"]["terminal"] == terminal)?;
            newest["status"]["endedBy"].as_str().map(str::to_owned)
        })
    }

    fn know(&self, line: &str) {
        let path = self.dir().join("known_hosts");
        let mut known = std::fs::read_to_string(&path).unwrap_or_default();
        if !known.lines().any(|there| there == line) {
            known.push_str(line);
            known.push('\n');
            std::fs::write(&path, known).expect("known_hosts");
        }
    }
}

/// The Relay `eu`, by NodePort, since nothing here gives a LoadBalancer its address.
pub struct FleetRelay {
    pub replicas: u8,
}

impl Manifest for FleetRelay {
    fn file(&self) -> String {
        "relay.yaml".to_owned()
    }

    fn yaml(&self) -> String {
        format!(
            "apiVersion: tidegate.dev/v1alpha1\nkind: Relay\nmetadata: {{name: eu, namespace: {NAMESPACE}}}\n\
             spec:\n  meshRef: {{name: prod}}\n  replicas: {}\n  exposure: {{type: NodePort}}\n  \
             drain: {{timeout: 5s}}\n",
            self.replicas
        )
    }
}

fn manifests(folder: &str) -> String {
    programs::checkout().join("manifests").join(folder).display().to_string()
}

/// The archives of this tree's images.
fn images() -> Vec<PathBuf> {
    let dir = programs::images();
    let mut archives: Vec<PathBuf> = std::fs::read_dir(&dir)
        .expect("the images")
        .map(|entry| entry.expect("an image").path())
        .filter(|path| path.extension().is_some_and(|end| end == "tar"))
        .collect();
    archives.sort();
    assert!(!archives.is_empty(), "no images in {}", dir.display());
    archives
}
