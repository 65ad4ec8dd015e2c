//! `kubectl-tidegate` against a real API server: what it says of a cluster is what it says of the same
//! YAML in a directory, and what stands in its way is said in a sentence.

#[path = "../../commands/tests/manifests/mod.rs"]
mod manifests;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use manifests::{HOST_KEY, Manifests, RELAY_KEY};
use serde_json::Value;
use tidegate_tests::cluster::ControlPlane;
use tidegate_tests::manifest::{in_seconds, instant};
use tidegate_tests::process::Finished;
use tidegate_tests::{Proc, programs, wait_for};

/// One question, on a busy machine.
const ASK: Duration = Duration::from_mins(1);
/// Until somebody else has acted.
const SOON: Duration = Duration::from_secs(30);

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// A control plane that knows our kinds, and the YAML of one mesh in its namespace `support`.
struct Desk {
    cluster: ControlPlane,
    manifests: Manifests,
}

impl Desk {
    fn start() -> Option<Self> {
        let cluster = ControlPlane::start()?;
        let crds = concat!(env!("CARGO_MANIFEST_DIR"), "/../crds/yaml");
        cluster.kubectl(&["apply", "--server-side", "-f", crds]).ok();
        cluster.kubectl(&["wait", "--for=condition=Established", "--timeout=30s", "-f", crds]).ok();
        cluster.kubectl(&["create", "namespace", "support"]).ok();
        let desk = Self { cluster, manifests: Manifests::new() };
        let once = "once: {start: 2026-11-23T09:00:00+01:00, end: 2026-11-23T11:00:00+01:00}";
        let now = format!(
            "once: {{start: {}, end: {}}}",
            instant(in_seconds(-3600)),
            instant(in_seconds(7200))
        );
        let nights = "recurring: {cron: \"0 22 * * *\", timeZone: Europe/Berlin, duration: 30m}";
        let put = |name: &str, schedule: &str, more: &str| {
            let text = manifests::window(name, "48213").replace(once, schedule) + more;
            desk.manifests.write(&format!("windows/{name}.yaml"), &text);
        };
        put("today", &now, "  limits: {maxSessions: 2}\n");
        put("nights", nights, "");
        put("stopped", &now, "  suspend: true\n");
        Some(desk)
    }

    /// Puts everything that the directory says into the cluster.
    fn apply(&self) {
        let directory = text(self.manifests.path());
        let arguments = ["apply", "--server-side", "--recursive", "-f", directory];
        self.cluster.kubectl(&arguments).ok();
    }

    fn cli(&self, kubeconfig: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(programs::cli());
        command.env("KUBECONFIG", kubeconfig).current_dir(self.manifests.path()).args(arguments);
        command
    }

    /// Asks the cluster, as its administrator.
    fn ask(&self, arguments: &[&str]) -> Finished {
        let mut command = self.cli(self.cluster.kubeconfig(), arguments);
        Proc::run("kubectl-tidegate", &mut command, ASK)
    }

    /// Asks the directory.
    fn ask_directory(&self, arguments: &[&str]) -> Finished {
        let arguments = [arguments, &["--manifests", text(self.manifests.path())]].concat();
        self.ask(&arguments)
    }

    /// A kubeconfig of somebody who may do what these rules say, in all namespaces.
    fn person(&self, name: &str, rules: &str) -> PathBuf {
        self.cluster
            .apply(&format!(
                "apiVersion: v1
kind: ServiceAccount
metadata: {{name: {name}, namespace: support}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {{name: {name}}}
rules: {rules}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: {name}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {name}}}
subjects: [{{kind: ServiceAccount, name: {name}, namespace: support}}]
"
            ))
            .ok();
        let token = self.cluster.kubectl(&["create", "token", name, "-n", "support"]).ok().stdout;
        let file = self.manifests.path().join(format!(".{name}.kubeconfig"));
        std::fs::copy(self.cluster.kubeconfig(), &file).expect("a kubeconfig");
        for words in [
            &["config", "set-credentials", name, "--token", token.trim()][..],
            &["config", "set-context", "--current", "--user", name],
        ] {
            let mut kubectl = self.cluster.kubectl_command();
            kubectl.env("KUBECONFIG", &file).args(words);
            Proc::run("kubectl config", &mut kubectl, ASK).ok();
        }
        file
    }

    fn ask_as(&self, person: &Path, arguments: &[&str]) -> Finished {
        Proc::run("kubectl-tidegate", &mut self.cli(person, arguments), ASK)
    }

    /// What an operator would write: the host key of the Mesh's relays.
    fn publish_host_key(&self) {
        let status = format!("{{\"status\":{{\"hostKeys\":[\"{RELAY_KEY}\"]}}}}");
        let mesh = ["patch", "mesh", "prod", "-n", "support", "--subresource=status"];
        self.cluster.kubectl(&[&mesh[..], &["--type=merge", "-p", &status]].concat()).ok();
    }
}

const VIEWER: &str = "[{apiGroups: [tidegate.dev], resources: ['*'], verbs: [get, list, watch]}]";

fn json(done: &Finished) -> Value {
    serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error}: {done:?}"))
}

#[test]
fn a_cluster_and_a_directory_of_the_same_yaml_are_told_alike() {
    let Some(desk) = Desk::start() else { return };
    let empty = desk.ask(&["windows"]);
    assert_eq!(empty.code, Some(2), "{empty:?}");
    assert!(empty.stderr.starts_with("there is no Mesh here; apply one"), "{empty:?}");
    desk.apply();
    let viewer = desk.person("viewer", VIEWER);
    let at = instant(in_seconds(60));
    let night = "2026-12-01T21:10:00Z";
    for question in [
        &["windows", "-n", "support"][..],
        &["windows", "-A"],
        &["windows", "-A", "-o", "wide"],
        &["windows", "-A", "-o", "json"],
        &["windows", "-A", "--open", "-o", "yaml"],
        &["terminals", "-A"],
        &["terminals", "-n", "support", "-o", "wide"],
        &["who-can-reach", "kiosk-17", "--at", &at],
        &["who-can-reach", "kiosk-17.support.example.com", "--at", night, "-o", "json"],
        &["explain", "alice", "kiosk-17", "--at", &at],
        &["explain", "alice", "kiosk-17/web", "--at", &at, "-o", "json"],
        &["explain", "alice", "kiosk-17/ssh", "--at", "2026-12-01T20:00:00Z", "-o", "yaml"],
    ] {
        // -A is a cluster's word; a directory has all.
        let offline: Vec<_> = question.iter().copied().filter(|word| *word != "-A").collect();
        let there = desk.ask_as(&viewer, question);
        let here = desk.ask_directory(&offline);
        assert_eq!(
            (&there.stdout, there.code),
            (&here.stdout, here.code),
            "{question:?}: {there:?}"
        );
        assert!(!there.stdout.is_empty(), "{question:?}: {there:?}");
    }
    let terminals = json(&desk.ask_as(&viewer, &["terminals", "-A", "-o", "json"]));
    assert_eq!(terminals["terminals"][0]["connected"], Value::Null);
    let why = terminals["connectedUnknown"].as_str().expect("a reason");
    assert!(why.starts_with("you may not list the relay pods in namespace support"), "{why}");
    let admin = json(&desk.ask(&["terminals", "-A", "-o", "json"]));
    let why = admin["connectedUnknown"].as_str().expect("a reason");
    assert!(why.starts_with("no relay pod of mesh support/prod"), "{why}");
    // As kubectl, the context's namespace is listed, which is another.
    let default = desk.ask(&["windows"]);
    assert_eq!((default.code, default.stdout.as_str()), (Some(0), ""));
    assert!(default.stderr.contains("in namespace default; -A lists"), "{default:?}");
}

#[test]
fn host_keys_come_from_the_mesh_and_ssh_asks_nobody() {
    let Some(desk) = Desk::start() else { return };
    desk.apply();
    let early = desk.ask(&["known-hosts"]);
    assert_eq!(early.code, Some(2));
    assert!(early.stderr.contains("does not tell its relays' host key yet"), "{early:?}");
    desk.publish_host_key();
    let ports = ["[relay.support.example.com]:80", "[support.example.com]:80"];
    let more = ["[relay.support.example.com]:5938", "[support.example.com]:5938"];
    let line = format!("{},{} {RELAY_KEY}\n", ports.join(","), more.join(","));
    let state = desk.manifests.path().join(".state");
    std::fs::create_dir(&state).expect("a directory");
    std::fs::write(state.join("known_hosts"), line).expect("a line");
    for host in [
        &[][..],
        &["kiosk-17"],
        &["[kiosk-17.support.example.com]:2222"],
        &["[localhost]:20017"],
        &["github.com"],
    ] {
        let there = desk.ask(&[&["known-hosts"], host].concat()).ok();
        let here =
            desk.ask_directory(&[&["known-hosts", "--state", text(&state)], host].concat()).ok();
        assert_eq!(there.stdout, here.stdout, "{host:?}");
    }
    let terminal = desk.ask(&["known-hosts", "kiosk-17"]).ok().stdout;
    assert_eq!(terminal, format!("kiosk-17 {HOST_KEY}\n"));
    // But for the words of the command that ssh asks.
    let plain = |done: Finished| -> Vec<String> {
        let command = |line: &&str| !line.contains("KnownHostsCommand");
        done.ok().stdout.lines().filter(command).map(str::to_owned).collect()
    };
    let there = plain(desk.ask(&["ssh-config", "--user", "alice"]));
    let here =
        plain(desk.ask_directory(&["ssh-config", "--user", "alice", "--state", text(&state)]));
    assert_eq!(there, here);
    // A stranger in the relay's place: the key of the Mesh is not its.
    let key = desk.manifests.path().join(".stranger");
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key);
    Proc::run("ssh-keygen", &mut keygen, ASK).ok();
    let printed = desk.ask(&["ssh-config", "--user", "alice"]).ok().stdout;
    let config = desk.manifests.path().join(".ssh_config");
    std::fs::write(&config, printed).expect("a configuration");
    let connect = |host_key: &Path| {
        let mut ssh = Command::new("ssh");
        let sshd = format!("ProxyCommand=/usr/sbin/sshd -i -f /dev/null -h {}", host_key.display());
        ssh.env("KUBECONFIG", desk.cluster.kubeconfig()).arg("-F").arg(&config);
        ssh.args([
            "-o",
            &sshd,
            "-o",
            "PreferredAuthentications=publickey",
            "relay.support.example.com",
        ]);
        ssh.env_remove("SSH_AUTH_SOCK").env_remove("SSH_ASKPASS").env_remove("DISPLAY");
        Proc::run("ssh", &mut ssh, ASK).stderr
    };
    let said = connect(&key);
    assert!(said.contains("Host key verification failed"), "{said}");
    let public = std::fs::read_to_string(key.with_extension("pub")).expect("a public key");
    let status = format!("{{\"status\":{{\"hostKeys\":[\"{}\"]}}}}", public.trim());
    let mesh = ["patch", "mesh", "prod", "-n", "support", "--subresource=status"];
    desk.cluster.kubectl(&[&mesh[..], &["--type=merge", "-p", &status]].concat()).ok();
    let said = connect(&key);
    assert!(said.contains("Permission denied (publickey"), "{said}");
    assert!(!said.contains("Are you sure"), "{said}");
}

fn session(name: &str, terminal: &str) -> String {
    format!(
        "apiVersion: tidegate.dev/v1alpha1
kind: SupportSession
metadata: {{name: {name}, namespace: support, finalizers: [tidegate.dev/relay]}}
spec:
  window: {{name: today, uid: \"1\"}}
  opensAt: \"{}\"
  user: alice
  terminal: {terminal}
  service: ssh
  case: \"48213\"
  relayPod: eu-0
  openedAt: \"{}\"
  deadline: \"{}\"
---
",
        instant(in_seconds(-3600)),
        instant(in_seconds(-60)),
        instant(in_seconds(3600)),
    )
}

#[test]
fn sessions_are_listed_cut_and_waited_for() {
    let Some(desk) = Desk::start() else { return };
    desk.apply();
    let names =
        ["ss-0193aaaa-0000-7000-8000-000000000001", "ss-0193aaaa-0000-7000-8000-000000000002"];
    let [first, second] = names;
    desk.cluster.apply(&(session(first, "kiosk-17") + &session(second, "kiosk-18"))).ok();
    let table = desk.ask(&["sessions", "-n", "support"]).ok().stdout;
    assert!(
        table.starts_with("NAME ") && table.contains("kiosk-17/ssh") && table.contains("Live"),
        "{table}"
    );
    let listed = json(&desk.ask(&["sessions", "-A", "--terminal", "kiosk-18", "-o", "json"]).ok());
    assert_eq!(listed["sessions"].as_array().map(Vec::len), Some(1), "{listed}");
    assert_eq!(listed["sessions"][0]["name"], second);
    let full = desk.ask(&["explain", "alice", "kiosk-17"]);
    assert!(full.stdout.contains("support/today until"), "{full:?}");

    // Who may only look cannot cut.
    let viewer = desk.person("viewer", VIEWER);
    let refused = desk.ask_as(&viewer, &["cut", first]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(
        refused.stderr.contains("ask for the ClusterRole tidegate-window-author"),
        "{refused:?}"
    );
    let cutter = "[{apiGroups: [tidegate.dev], resources: ['*'], verbs: [get, list, watch]}, \
                  {apiGroups: [tidegate.dev], resources: [supportsessions], verbs: [patch]}]";
    let cutter = desk.person("cutter", cutter);

    // Nobody closes the sockets: it is said after the time that was given.
    let late = desk.ask_as(&cutter, &["cut", first, "--timeout", "1s"]);
    assert_eq!(late.code, Some(1), "{late:?}");
    assert!(late.stderr.contains("has not ended within 1s; relay pod eu-0"), "{late:?}");

    // A relay that does its work, played by hand: by the watch, not by luck, the CLI hears of it.
    let cut = Proc::start(
        "cut",
        &mut desk.cli(&cutter, &["cut", "--terminal", "kiosk-18", "-n", "support"]),
    );
    wait_for("the cut", SOON, || {
        let path = "jsonpath={.spec.cut}";
        let seen =
            desk.cluster.kubectl(&["get", "supportsession", second, "-n", "support", "-o", path]);
        (seen.stdout == "true").then_some(())
    });
    assert!(cut.is_running());
    let ended = instant(in_seconds(0));
    let status = format!(
        "{{\"status\":{{\"endedAt\":\"{ended}\",\"endedBy\":\"Cut\",\"overrun\":\"12ms\"}}}}"
    );
    let patch = ["patch", "supportsession", second, "-n", "support", "--subresource=status"];
    desk.cluster.kubectl(&[&patch[..], &["--type=merge", "-p", &status]].concat()).ok();
    let done = cut.finish(SOON);
    assert_eq!(done.code, Some(0), "{done:?}");
    let expected = format!("cut {second}: alice on kiosk-18/ssh ended ");
    assert!(
        done.stdout.starts_with(&expected) && done.stdout.ends_with("overrun 12ms\n"),
        "{done:?}"
    );
    let again = desk.ask(&["cut", second]).ok();
    assert!(again.stdout.contains("had ended already, by Cut"), "{again:?}");
    let none = desk.ask(&["cut", "--window", "nights", "-n", "support"]).ok();
    assert!(none.stdout.contains("no live session of window nights"), "{none:?}");
    assert_eq!(desk.ask(&["cut", "ss-nobody"]).code, Some(1));
}

#[test]
fn what_stands_in_the_way_is_one_sentence() {
    let Some(desk) = Desk::start() else { return };
    desk.apply();
    let other = manifests::MESH
        .replace("name: prod, namespace: support", "name: test, namespace: lab")
        .replace("support.example.com", "lab.example.com")
        .replace("{from: Same}", "{from: Selector, selector: {matchLabels: {mesh: test}}}");
    desk.cluster.kubectl(&["create", "namespace", "lab"]).ok();
    desk.cluster.kubectl(&["create", "namespace", "acme"]).ok();
    desk.cluster.kubectl(&["label", "namespace", "acme", "mesh=test"]).ok();
    desk.cluster.apply(&other).ok();
    let sentence = |done: &Finished, part: &str| {
        assert_eq!(done.code, Some(2), "{done:?}");
        assert_eq!(done.stderr.lines().count(), 1, "{done:?}");
        assert!(done.stderr.contains(part) && done.stderr.len() <= 301, "{part}: {done:?}");
    };
    sentence(&desk.ask(&["windows", "-A"]), "there are several Meshes; choose one with -n");
    sentence(&desk.ask(&["windows", "-A", "--mesh", "nope"]), "there is no Mesh \"nope\" here");
    // The one of the namespace, the one that serves it, the one that is named.
    for (arguments, place) in [
        (&["windows", "-n", "support"][..], None),
        (&["windows", "-n", "acme"], Some("mesh lab/test")),
        (&["windows", "-A", "--mesh", "test"], Some("mesh lab/test")),
        (&["windows", "-A", "--mesh", "support/prod"], None),
    ] {
        let done = desk.ask(arguments).ok();
        match place {
            Some(place) => assert!(done.stderr.contains(place), "{arguments:?}: {done:?}"),
            None => assert!(done.stdout.contains("today"), "{arguments:?}: {done:?}"),
        }
    }
    let nobody = desk.person("nobody", "[]");
    sentence(
        &desk.ask_as(&nobody, &["windows", "-n", "support"]),
        "you may not list meshes in namespace support",
    );
    sentence(
        &desk.ask_as(&nobody, &["sessions", "-A"]),
        "you may not list supportsessions in all namespaces",
    );
    sentence(
        &desk.ask(&["windows", "--context", "nowhere"]),
        "the kubeconfig has no context \"nowhere\"",
    );
    let missing = desk.manifests.path().join("missing");
    sentence(&desk.ask(&["windows", "--kubeconfig", text(&missing)]), "cannot read the kubeconfig");
    desk.cluster.stop("kube-apiserver");
    sentence(&desk.ask(&["windows", "-n", "support"]), "cannot list meshes in all namespaces");
    desk.cluster.start("kube-apiserver");
}

#[test]
fn contested_objects_are_left_out_and_named() {
    let Some(desk) = Desk::start() else { return };
    desk.apply();
    let mallory = manifests::user().replace("name: alice", "name: mallory");
    desk.cluster.apply(&mallory).ok();
    let told = desk.ask(&["explain", "alice", "kiosk-17"]);
    assert_eq!(told.code, Some(1), "neither has the key that both want: {told:?}");
    assert!(
        told.stderr.starts_with("warning: 2 objects of mesh support/prod not in force"),
        "{told:?}"
    );
    assert!(told.stderr.contains("LoginUser support/alice"), "{told:?}");
}
