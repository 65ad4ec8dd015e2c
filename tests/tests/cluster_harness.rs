//! The test cluster itself, without Tidegate: what the other cluster tests rely on.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tidegate_tests::cluster::{ControlPlane, Nodes};
use tidegate_tests::{Proc, SOON, eventually, wait_for};

/// Ample for a pod to start and for a dead node to be noticed.
const WHILE: Duration = Duration::from_secs(90);

const PODS: &str = "
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: probe, namespace: default}
spec:
  selector: {matchLabels: {app: probe}}
  template:
    metadata: {labels: {app: probe}}
    spec:
      terminationGracePeriodSeconds: 1
      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: probe
        image: tidegate.test/probe:1
        imagePullPolicy: IfNotPresent
        ports: [{containerPort: 8080}]
        readinessProbe: {httpGet: {port: 8080}, periodSeconds: 1}
        securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
---
apiVersion: v1
kind: Service
metadata: {name: probe, namespace: default}
spec:
  type: NodePort
  externalTrafficPolicy: Local
  selector: {app: probe}
  ports: [{port: 80, targetPort: 8080, nodePort: 30080}]
";

/// What a cluster leaves on the machine while it lives.
struct Traces {
    dir: PathBuf,
    id: String,
}

impl Traces {
    fn of(dir: &Path) -> Self {
        let decided = std::fs::read_to_string(dir.join("cluster.env")).expect("cluster.env");
        let id = decided.lines().find_map(|line| line.strip_prefix("id=")).expect("an id");
        Self { dir: dir.to_owned(), id: id.to_owned() }
    }

    fn found(&self) -> Vec<String> {
        let (dir, id) = (self.dir.display().to_string(), &self.id);
        let mut found = Vec::new();
        if self.dir.exists() {
            found.push(dir.clone());
        }
        let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
        found.extend(processes.filter_map(|process| {
            let line = std::fs::read(process.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            line.contains(&dir).then_some(line)
        }));
        found.extend(matching("ip", &["netns", "list"], &format!("tg-{id}-")));
        found.extend(matching("ip", &["-o", "link"], &format!("tg{id}")));
        found.extend(matching("cat", &["/proc/mounts"], &dir));
        let groups = ["/sys/fs/cgroup", "-maxdepth", "2", "-name", &format!("tidegate-{id}-*")];
        found.extend(matching("find", &groups, &format!("tidegate-{id}-")));
        found
    }
}

/// The lines of a command's output that have `part` in them.
fn matching(program: &str, arguments: &[&str], part: &str) -> Vec<String> {
    let lines = Proc::run(program, Command::new(program).args(arguments), SOON).stdout;
    lines.lines().filter(|line| line.contains(part)).map(str::to_owned).collect()
}

/// What `url` answers in a network namespace of the cluster, nothing while it does not.
fn fetch(nodes: &Nodes, place: &str, url: &str) -> Option<String> {
    let mut curl = nodes.within(place, "curl");
    let done = Proc::run("curl", curl.args(["-sf", "--max-time", "10", url]), SOON);
    (done.code == Some(0)).then_some(done.stdout)
}

#[test]
fn a_control_plane_serves_survives_an_outage_and_leaves_nothing() {
    let Some(control) = ControlPlane::start() else { return };
    let traces = Traces::of(control.dir());

    control.kubectl(&["create", "namespace", "acme"]).ok();
    // The log has it behind the answer.
    let created = wait_for("its event", SOON, || {
        control.audit().into_iter().find(|event| event.name == "acme")
    });
    assert_eq!(
        (created.user.as_str(), created.verb.as_str(), created.resource.as_str(), created.code),
        ("admin", "create", "namespaces", 201)
    );
    assert!(created.writes());

    control.stop("kube-apiserver");
    let refused = control.kubectl(&["get", "namespace", "acme"]);
    assert!(refused.stderr.contains("was refused"), "{refused:?}");
    control.start("kube-apiserver");
    control.kubectl(&["get", "namespace", "acme"]).ok();

    control.pause("kube-apiserver");
    let silent = control.kubectl(&["get", "namespace", "acme", "--request-timeout=1s"]);
    assert_ne!(silent.code, Some(0), "{silent:?}");
    control.resume("kube-apiserver");
    control.kubectl(&["get", "namespace", "acme"]).ok();

    // The controller manager collects what has lost its owner.
    eventually("the default ServiceAccount", WHILE, || {
        control.kubectl(&["get", "serviceaccount", "default", "--namespace=acme"]).code == Some(0)
    });
    control.kubectl(&["create", "deployment", "web", "--image=none:1", "--namespace=acme"]).ok();
    let sets =
        || control.kubectl(&["get", "replicasets", "-oname", "--namespace=acme"]).ok().stdout;
    eventually("a ReplicaSet", WHILE, || !sets().is_empty());
    control.kubectl(&["delete", "deployment", "web", "--namespace=acme"]).ok();
    eventually("no ReplicaSet", WHILE, || sets().is_empty());

    assert!(!traces.found().is_empty());
    drop(control);
    assert_eq!(traces.found(), [""; 0]);
}

#[test]
fn a_cluster_ends_with_its_owner() {
    let Some(first) = ControlPlane::start() else { return };
    let up = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster/up");
    let mut owner = Proc::start("owner", Command::new("sleep").arg("600"));
    let mut second = Command::new(up);
    second.args(["--bare", "--owner", &owner.pid().to_string()]);
    let second = Proc::run("up", &mut second, WHILE).ok();
    let traces = Traces::of(Path::new(second.stdout.trim()));
    owner.kill();
    eventually("the end of the second cluster", SOON, || traces.found().is_empty());
    first.kubectl(&["get", "--raw", "/readyz"]).ok();
}

#[test]
fn nodes_run_pods_get_lost_and_leave_nothing() {
    let Some(nodes) = Nodes::start(2) else { return };
    let traces = Traces::of(nodes.dir());

    nodes.load_probe();
    nodes.apply(PODS).ok();
    nodes.kubectl(&["rollout", "status", "daemonset/probe", "--timeout=60s"]).ok();

    // Through a NodePort, and the pod sees who asks.
    for (place, node) in [("client", "node-1"), ("staff", "node-2")] {
        let url = format!("http://{}:30080/", nodes.address(node));
        let answer = wait_for("an answer", WHILE, || fetch(&nodes, place, &url));
        assert!(answer.ends_with(&format!(" {}\n", nodes.address(place))), "{answer}");
    }
    // In a pod, names resolve, and lead to the other pods.
    let in_pod = format!("http://{}:30080", nodes.address("node-1"));
    let by_name = format!("{in_pod}/resolve/probe.default.svc.cluster.local");
    let address = wait_for("a name", WHILE, || fetch(&nodes, "client", &by_name));
    let service = ["get", "service", "probe", "-ojsonpath={.spec.clusterIP}"];
    assert_eq!(address.trim(), nodes.kubectl(&service).ok().stdout);
    wait_for("the Service", WHILE, || fetch(&nodes, "client", &format!("{in_pod}/fetch/probe/")));

    let ready = |node: &str, is: &str| {
        let condition = format!("--for=condition=Ready={is}");
        let node = format!("node/{node}");
        nodes.kubectl(&["wait", &condition, &node, "--timeout=50s"]).ok();
    };
    nodes.kill_node(2);
    ready("node-2", "Unknown");
    wait_for("node-1 as before", WHILE, || fetch(&nodes, "client", &in_pod));
    nodes.start_node(2);
    ready("node-2", "True");
    nodes.kubectl(&["rollout", "status", "daemonset/probe", "--timeout=60s"]).ok();

    nodes.cut_node(1);
    ready("node-1", "Unknown");
    assert_eq!(fetch(&nodes, "client", &in_pod), None);
    nodes.heal_node(1);
    ready("node-1", "True");
    wait_for("node-1 again", WHILE, || fetch(&nodes, "client", &in_pod));

    drop(nodes);
    assert_eq!(traces.found(), [""; 0]);
}
