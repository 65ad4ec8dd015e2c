//! The real operator as a child process, with an account of its own in the cluster, so that the API
//! server's audit log tells what it did.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::{Cluster, ControlPlane, Event};
use crate::keys::Key;
use crate::process::{Finished, Proc};
use crate::programs;

/// The operators' own namespace.
pub const NAMESPACE: &str = "tidegate-system";
/// Ample for a start or an end.
const MOVE: Duration = Duration::from_secs(30);

/// A control plane with the kinds, and keys to hand out.
pub struct World {
    pub plane: ControlPlane,
    pub keys: Vec<String>,
}

impl World {
    /// `None` where no control plane can be had, which has been said.
    #[track_caller]
    pub fn new(keys: usize) -> Option<Self> {
        let plane = ControlPlane::start()?;
        install(&plane);
        let dir = tempfile::tempdir().expect("a directory");
        let key = |i: usize| Key::ed25519(&dir.path().join(format!("key-{i}"))).public;
        Some(Self { plane, keys: (0..keys).map(key).collect() })
    }

    #[track_caller]
    pub fn apply(&self, objects: &[Value]) {
        let yaml: Vec<String> = objects.iter().map(Value::to_string).collect();
        self.plane.apply(&yaml.join("\n---\n")).ok();
    }

    #[track_caller]
    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Value {
        let found = self.plane.kubectl(&["get", kind, "-n", namespace, name, "-o", "json"]).ok();
        serde_json::from_str(&found.stdout).expect("JSON")
    }

    /// Lets go of the lease that an operator left behind which was killed, so that nobody waits for it.
    #[track_caller]
    pub fn free_lease(&self) {
        self.plane.kubectl(&["delete", "lease", "--all", "-n", NAMESPACE]).ok();
    }
}

/// An object of ours, by what is its own.
pub fn object(kind: &str, namespace: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "tidegate.dev/v1alpha1", "kind": kind,
        "metadata": {"namespace": namespace, "name": name}, "spec": spec})
}

/// A Namespace, by its labels.
pub fn namespace(name: &str, labels: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

/// One replica of the operator.
pub struct Operator {
    pub process: Proc,
    /// As the audit log names it.
    pub user: String,
    _kubeconfig: tempfile::NamedTempFile,
}

/// Installs the CRDs and the operators' namespace.
#[track_caller]
pub fn install(cluster: &Cluster) {
    let crds = concat!(env!("CARGO_MANIFEST_DIR"), "/../crds/yaml");
    cluster.kubectl(&["apply", "--server-side", "-f", crds]).ok();
    cluster.kubectl(&["wait", "--for=condition=Established", "crd", "--all"]).ok();
    cluster.kubectl(&["create", "namespace", NAMESPACE]).ok();
}

impl Operator {
    /// Starts a replica whose account, of this name, may do everything.
    #[track_caller]
    pub fn start(cluster: &Cluster, account: &str) -> Self {
        let full = format!("{NAMESPACE}:{account}");
        // Exists where a replica of that account was started before.
        let _ = cluster.kubectl(&["create", "serviceaccount", account, "-n", NAMESPACE]);
        let binding = format!("test-{account}");
        let subject = format!("--serviceaccount={full}");
        let binding =
            ["create", "clusterrolebinding", &binding, "--clusterrole=cluster-admin", &subject];
        let _ = cluster.kubectl(&binding);
        let token = cluster.kubectl(&["create", "token", account, "-n", NAMESPACE]).ok().stdout;
        let kubeconfig = kubeconfig(cluster, token.trim());
        let mut command = Command::new(programs::operator());
        command
            .args(["run", "--namespace", NAMESPACE, "--admin", "127.0.0.1:0"])
            .args(["--relay-image", "tidegate.test/relay:1"])
            .env("KUBECONFIG", kubeconfig.path())
            .env("POD_NAME", account);
        Self {
            process: Proc::start(format!("operator {account}"), &mut command),
            user: format!("system:serviceaccount:{full}"),
            _kubeconfig: kubeconfig,
        }
    }

    /// Waits until this replica leads.
    #[track_caller]
    pub fn await_lead(&self, within: Duration) {
        self.process.await_stderr("tidegate_operator::run: leads", within);
    }

    /// Ends it as a kubelet would, and waits for its end.
    #[track_caller]
    pub fn terminate(self) -> Finished {
        self.process.signal(rustix::process::Signal::TERM);
        self.process.finish(MOVE)
    }

    /// What it asked of the API server.
    pub fn requests(&self, cluster: &Cluster) -> Vec<Event> {
        cluster.audit().into_iter().filter(|event| event.user == self.user).collect()
    }
}

/// The administrator's kubeconfig with another's token.
#[track_caller]
fn kubeconfig(cluster: &Cluster, token: &str) -> tempfile::NamedTempFile {
    let view = cluster.kubectl(&["config", "view", "--raw", "--minify", "-o", "json"]).ok();
    let mut config: Value = serde_json::from_str(&view.stdout).expect("a kubeconfig");
    config["users"][0]["user"] = json!({"token": token});
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), config.to_string()).expect("a kubeconfig is written");
    file
}
