//! A real Kubernetes under a test, brought up by the scripts in tests/cluster: the control plane
//! alone, or nodes that run pods. It ends when the value is dropped, and when the test's process
//! ends in any other way.
//!
//! With `TIDEGATE_CLUSTER=external` the cluster that KUBECONFIG names is used instead of a control
//! plane. It must be asked for in words: these tests write and delete.

mod audit;

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use crate::process::{Finished, Proc};

pub use audit::Event;

/// The first build of the programs, on a busy machine.
const BUILD: Duration = Duration::from_hours(1);
/// A cluster that comes up or goes down, or one of its parts.
const MOVE: Duration = Duration::from_mins(4);
/// One call of kubectl.
const CALL: Duration = Duration::from_mins(1);

const PROBE: &str = "FROM scratch\nCOPY probe /probe\nUSER 65532\nENTRYPOINT [\"/probe\"]\n";

/// The API server, etcd and the controller manager: for tests of what is written to the API.
pub struct ControlPlane(Cluster);

/// A cluster with nodes: for tests of pods.
pub struct Nodes(Cluster);

/// What a control plane and a cluster with nodes can do.
pub struct Cluster {
    from: From,
    kubeconfig: PathBuf,
}

enum From {
    /// The folder that tests/cluster/up made, and the id in the names that it gave.
    Up { dir: PathBuf, id: String },
    /// Somebody else's.
    Outside,
}

impl ControlPlane {
    /// A control plane of this test's own. `None` says that it was left out, loudly.
    #[track_caller]
    pub fn start() -> Option<Self> {
        if std::env::var("TIDEGATE_CLUSTER").is_ok_and(|which| which == "external") {
            let kubeconfig = std::env::var_os("KUBECONFIG").expect("KUBECONFIG names the cluster");
            let kubeconfig = PathBuf::from(kubeconfig);
            return Some(Self(Cluster { from: From::Outside, kubeconfig }));
        }
        let needs_build = std::env::var_os("KUBEBUILDER_ASSETS").is_none();
        if needs_build && !build("control") {
            return None;
        }
        Some(Self(Cluster::up(&[])))
    }

    /// One control plane for all tests of this process. It ends with the process.
    #[track_caller]
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<ControlPlane>> = OnceLock::new();
        SHARED.get_or_init(Self::start).as_ref()
    }
}

impl Nodes {
    /// A cluster with this many nodes, `node-1` and so on. `None` says that it was left out, loudly.
    #[track_caller]
    pub fn start(count: u8) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            assert!(!crate::in_ci(), "a cluster with nodes needs root");
            eprintln!("LEFT OUT: a cluster with nodes needs root, for namespaces and cgroups");
            return None;
        }
        let packages = ["runc", "nft", "conntrack", "buildah"];
        if !packages.into_iter().all(crate::have) || !build("control") || !build("node") {
            return None;
        }
        Some(Self(Cluster::up(&["--nodes", &count.to_string()])))
    }

    /// Brings an image from an archive into every node.
    #[track_caller]
    pub fn load_image(&self, archive: &Path) {
        run(script("load").arg("--dir").arg(self.dir()).arg(archive), MOVE);
    }

    /// Gives an image another name, on every node.
    #[track_caller]
    pub fn tag_image(&self, image: &str, name: &str) {
        self.ctl(&["tag", image, name]);
    }

    /// Brings `tidegate.test/probe:1` into every node, which tells what its pod sees
    /// (tests/cluster/go/probe).
    #[track_caller]
    pub fn load_probe(&self) {
        let scratch = tempfile::tempdir().expect("a directory");
        let (from, archive) = (scratch.path().join("Dockerfile"), scratch.path().join("probe.tar"));
        std::fs::write(&from, PROBE).expect("a file");
        std::fs::copy(self.dir().join("bin/probe"), scratch.path().join("probe")).expect("a copy");
        build_image("tidegate.test/probe:1", &from, scratch.path(), &archive);
        self.load_image(&archive);
    }

    /// A command of a network namespace: `control`, `node-1`…, or outside of the cluster `client`,
    /// `terminal` and `staff`. It is the program itself that is started, so its id and its end are
    /// the child's.
    pub fn within(&self, place: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let From::Up { id, .. } = &self.from else { unreachable!("nodes are always brought up") };
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/tg-{id}-{place}")).arg("--").arg(program);
        command
    }

    /// The IP address of such a place, or of this `machine` as the cluster sees it.
    #[track_caller]
    pub fn address(&self, place: &str) -> String {
        self.ctl(&["address", place]).stdout.trim().to_owned()
    }

    /// Ends all processes of a node at once.
    #[track_caller]
    pub fn kill_node(&self, node: u8) {
        self.ctl(&["node-kill", &node.to_string()]);
    }

    /// Boots a killed node.
    #[track_caller]
    pub fn start_node(&self, node: u8) {
        self.ctl(&["node-start", &node.to_string()]);
    }

    /// Pulls a node's network cable.
    #[track_caller]
    pub fn cut_node(&self, node: u8) {
        self.ctl(&["node-cut", &node.to_string()]);
    }

    /// Plugs it in again.
    #[track_caller]
    pub fn heal_node(&self, node: u8) {
        self.ctl(&["node-heal", &node.to_string()]);
    }
}

impl Deref for ControlPlane {
    type Target = Cluster;
    fn deref(&self) -> &Cluster {
        &self.0
    }
}

impl Deref for Nodes {
    type Target = Cluster;
    fn deref(&self) -> &Cluster {
        &self.0
    }
}

impl Cluster {
    #[track_caller]
    fn up(arguments: &[&str]) -> Self {
        let owner = std::process::id().to_string();
        let up = run(script("up").args(["--owner", &owner]).args(arguments), MOVE);
        let dir = PathBuf::from(up.stdout.trim());
        let decided = std::fs::read_to_string(dir.join("cluster.env")).expect("what `up` decided");
        let id = decided.lines().find_map(|line| line.strip_prefix("id=")).expect("an id");
        let kubeconfig = dir.join("kubeconfig");
        Self { from: From::Up { dir, id: id.to_owned() }, kubeconfig }
    }

    /// The administrator's kubeconfig. It works from this machine's own network.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The folder that is the cluster: audit.log, components/*/log, dns/hosts, pki.
    #[track_caller]
    pub fn dir(&self) -> &Path {
        match &self.from {
            From::Up { dir, .. } => dir,
            From::Outside => panic!("this test needs a cluster of its own"),
        }
    }

    /// kubectl as the administrator, to its end.
    #[track_caller]
    pub fn kubectl(&self, arguments: &[&str]) -> Finished {
        Proc::run("kubectl", self.kubectl_command().args(arguments), CALL)
    }

    /// kubectl as the administrator, for tests that want more of it, `logs --follow` say.
    pub fn kubectl_command(&self) -> Command {
        let mut command = match &self.from {
            From::Up { dir, .. } => Command::new(dir.join("bin/kubectl")),
            From::Outside => Command::new("kubectl"),
        };
        command.env("KUBECONFIG", &self.kubeconfig);
        command
    }

    /// `kubectl apply --server-side` of this YAML.
    #[track_caller]
    pub fn apply(&self, yaml: &str) -> Finished {
        let mut command = self.kubectl_command();
        command.args(["apply", "--server-side", "--field-manager=test", "-f", "-"]);
        let mut kubectl = Proc::start("kubectl apply", &mut command);
        // It may refuse, and be gone, before all of it is read.
        let _ = kubectl.write(yaml.as_bytes());
        kubectl.finish(CALL)
    }

    /// Ends a component as an operator of the cluster would: `kube-apiserver`, `etcd`,
    /// `kube-controller-manager`, `kube-scheduler`, `dns`, `node-1/kubelet`, `node-1/containerd`.
    #[track_caller]
    pub fn stop(&self, component: &str) {
        self.ctl(&["stop", component]);
    }

    /// Ends a component as a crash does.
    #[track_caller]
    pub fn kill(&self, component: &str) {
        self.ctl(&["kill", component]);
    }

    /// Starts it again; returns when it serves.
    #[track_caller]
    pub fn start(&self, component: &str) {
        self.ctl(&["start", component]);
    }

    /// Lets it stand still: connections to it hang.
    #[track_caller]
    pub fn pause(&self, component: &str) {
        self.ctl(&["pause", component]);
    }

    #[track_caller]
    pub fn resume(&self, component: &str) {
        self.ctl(&["resume", component]);
    }

    #[track_caller]
    fn ctl(&self, arguments: &[&str]) -> Finished {
        run(script("ctl").arg("--dir").arg(self.dir()).args(arguments), MOVE)
    }

    /// Every request that the API server has answered, in that order.
    #[track_caller]
    pub fn audit(&self) -> Vec<Event> {
        audit::read(&self.dir().join("audit.log"))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let From::Up { dir, .. } = &self.from else { return };
        if std::thread::panicking() {
            show_logs(dir);
        }
        let ended = Proc::run("down", script("down").arg("--dir").arg(dir), MOVE);
        if ended.code != Some(0) {
            eprintln!("the cluster in {} did not go down: {}", dir.display(), ended.stderr);
        }
    }
}

/// The end of each component's log, for a test that has failed.
fn show_logs(dir: &Path) {
    let mut tail = Command::new("sh");
    tail.args(["-c", "tail -n 5 components/*/log components/*/*/log"]).current_dir(dir);
    if let Ok(logs) = tail.output() {
        eprintln!("{}", String::from_utf8_lossy(&logs.stdout));
    }
}

/// Builds a part of the programs unless that was done before; false where Go is missing.
#[track_caller]
fn build(part: &str) -> bool {
    let found = Command::new("go").arg("version").output().is_ok();
    if !found {
        assert!(!crate::in_ci(), "Go is missing; the test cluster is built from Go modules");
        eprintln!("LEFT OUT: Go is missing; the test cluster is built from Go modules");
        return false;
    }
    run(script("build").arg(part), BUILD);
    true
}

/// Builds an image named `name` with no engine; `dockerfile` is FROM scratch.
#[track_caller]
pub fn build_image(name: &str, dockerfile: &Path, context: &Path, archive: &Path) {
    run(script("image").arg(name).arg(dockerfile).arg(context).arg(archive), MOVE);
}

fn script(name: &str) -> Command {
    Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster").join(name))
}

#[track_caller]
fn run(command: &mut Command, within: Duration) -> Finished {
    let name = format!("{}", command.get_program().display());
    Proc::run(name, command, within).ok()
}
