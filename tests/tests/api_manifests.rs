//! What `manifests/` promises, on a real API server: it installs as it stands, twice without a change;
//! who may do what; and that a relay is kept to its own records.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tidegate_tests::cluster::ControlPlane;
use tidegate_tests::{SOON, eventually};

const SYSTEM: &str = "tidegate-system";
const DEMO: &str = "tidegate-demo";
const OPERATOR: &str = "system:serviceaccount:tidegate-system:tidegate-operator";
const RELAY: &str = "system:serviceaccount:tidegate-demo:berlin";

/// A control plane with Tidegate installed, once for all tests here.
fn installed() -> Option<&'static ControlPlane> {
    static READY: std::sync::OnceLock<()> = std::sync::OnceLock::new();
    let cluster = ControlPlane::shared()?;
    READY.get_or_init(|| {
        cluster.kubectl(&["apply", "-k", &at("overlays/kind")]).ok();
        // The kinds are served a moment after they are accepted.
        for kind in ["meshes", "relays", "supportclaims", "supportsessions", "supportwindows"] {
            let crd = format!("crd/{kind}.tidegate.dev");
            cluster.kubectl(&["wait", "--for=condition=Established", &crd, "--timeout=30s"]).ok();
        }
        cluster.kubectl(&["apply", "-k", &at("samples")]).ok();
        for (account, role, binding) in [
            ("berlin", "tidegate-relay", "tidegate-relays"),
            ("selecting", "tidegate-relay-sessions", "selecting"),
        ] {
            cluster.kubectl(&["-n", DEMO, "create", "serviceaccount", account]).ok();
            let subject = format!("--serviceaccount={DEMO}:{account}");
            let role = format!("--clusterrole={role}");
            cluster.kubectl(&["-n", DEMO, "create", "rolebinding", binding, &role, &subject]).ok();
        }
        for role in ["viewer", "window-author", "user-admin", "terminal-admin", "approver"] {
            let (name, role) = (format!("test-{role}"), format!("--clusterrole=tidegate-{role}"));
            let user = format!("--user={name}");
            cluster.kubectl(&["create", "clusterrolebinding", &name, &role, &user]).ok();
        }
    });
    Some(cluster)
}

/// A folder of manifests/.
fn at(folder: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests");
    root.join(folder).to_str().expect("a path").to_owned()
}

fn can(cluster: &ControlPlane, who: &str, what: &[&str]) -> bool {
    let mut arguments = vec!["auth", "can-i", "--as", who];
    arguments.extend(what);
    let answer = cluster.kubectl(&arguments);
    answer.stdout.lines().last() == Some("yes")
}

#[track_caller]
fn check(cluster: &ControlPlane, who: &str, allowed: bool, each: &[&str]) {
    for what in each {
        let words: Vec<&str> = what.split(' ').collect();
        assert_eq!(can(cluster, who, &words), allowed, "{who} {what}");
    }
}

/// Held by whoever changes what the manifests declare, and by whoever looks whether it has changed.
static DECLARED: Mutex<()> = Mutex::new(());

fn declared() -> MutexGuard<'static, ()> {
    DECLARED.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn all_of_it_applies_again_without_a_change() {
    let Some(cluster) = installed() else { return };
    let _declared = declared();
    for folder in ["overlays/kind", "overlays/production", "samples"] {
        let folder = at(folder);
        let apply =
            ["apply", "--server-side", "--force-conflicts", "--field-manager=twice", "-k", &folder];
        cluster.kubectl(&apply).ok();
        let versions = |of: &str| {
            let all = cluster.kubectl(&["get", "-k", of, "-o", "json"]).ok().stdout;
            let all: Value = serde_json::from_str(&all).expect("JSON");
            let items = all["items"].as_array().expect("items").clone();
            items
                .iter()
                .map(|item| {
                    let id = format!("{} {}", item["kind"], item["metadata"]["name"]);
                    // A Deployment's status moves by itself.
                    let what = if item["kind"] == "Deployment" {
                        &item["metadata"]["generation"]
                    } else {
                        &item["metadata"]["resourceVersion"]
                    };
                    (id, what.clone())
                })
                .collect::<Vec<_>>()
        };
        let before = versions(&folder);
        cluster.kubectl(&apply).ok();
        assert_eq!(before, versions(&folder), "{folder}");
        let diff = cluster.kubectl(&[
            "diff",
            "--server-side",
            "--force-conflicts",
            "--field-manager=twice",
            "-k",
            &folder,
        ]);
        assert_eq!((diff.code, diff.stdout.as_str()), (Some(0), ""), "{folder}: {}", diff.stderr);
    }
    // As the other tests know it.
    cluster
        .kubectl(&[
            "apply",
            "--server-side",
            "--force-conflicts",
            "--field-manager=twice",
            "-k",
            &at("overlays/kind"),
        ])
        .ok();
}

#[test]
fn the_operator_reads_no_secret_but_its_own_and_hands_out_nothing_else() {
    let Some(cluster) = installed() else { return };
    check(
        cluster,
        OPERATOR,
        true,
        &[
            "get secrets/tidegate-host-key -n tidegate-demo",
            "patch secrets/tidegate-host-key -n tidegate-demo",
            "create secrets/tidegate-host-key -n tidegate-demo",
            "get secrets/tidegate-host-key-b -n tidegate-demo",
            "create secrets/tidegate-host-key-b -n tidegate-demo",
            "get secrets/authority-x -n tidegate-system",
            "create secrets -n tidegate-system",
            "update leases/tidegate-operator -n tidegate-system",
            "create leases -n tidegate-system",
            "list relays.tidegate.dev -A",
            "watch supportwindows.tidegate.dev -A",
            "patch supportwindows.tidegate.dev/any --subresource=status -n acme",
            "patch relays.tidegate.dev/any --subresource=status -n acme",
            "patch deployments.apps/any -n acme",
            "create networkpolicies.networking.k8s.io -n acme",
            "delete poddisruptionbudgets.policy/any -n acme",
            "update relays.tidegate.dev/any --subresource=finalizers -n acme",
            "watch endpointslices.discovery.k8s.io -n default",
            "delete supportclaims.tidegate.dev/any -n acme",
            "patch supportsessions.tidegate.dev/any -n acme",
            "create events.events.k8s.io -n acme",
            "bind clusterroles.rbac.authorization.k8s.io/tidegate-relay",
            "bind clusterroles.rbac.authorization.k8s.io/tidegate-relay-sessions",
            "bind clusterroles.rbac.authorization.k8s.io/tidegate-relay-reader",
            "create rolebindings.rbac.authorization.k8s.io/tidegate-relays -n acme",
            "patch clusterrolebindings.rbac.authorization.k8s.io/tidegate-relays",
        ],
    );
    check(
        cluster,
        OPERATOR,
        false,
        &[
            "get secrets -n tidegate-demo",
            "get secrets/other -n tidegate-demo",
            "get secrets/bootstrap -n kube-system",
            "list secrets -n tidegate-demo",
            "watch secrets -A",
            "list secrets -n tidegate-system",
            "delete secrets/tidegate-host-key -n tidegate-demo",
            "delete secrets/tidegate-host-key-b -n tidegate-demo",
            "create secrets -n tidegate-demo",
            "get validatingadmissionpolicies.admissionregistration.k8s.io",
            "patch validatingadmissionpolicies.admissionregistration.k8s.io/tidegate-relays",
            "delete validatingadmissionpolicybindings.admissionregistration.k8s.io/tidegate-relays",
            "create validatingwebhookconfigurations.admissionregistration.k8s.io",
            "bind clusterroles.rbac.authorization.k8s.io/cluster-admin",
            "bind clusterroles.rbac.authorization.k8s.io/edit",
            "escalate clusterroles.rbac.authorization.k8s.io",
            "create clusterroles.rbac.authorization.k8s.io",
            "create roles.rbac.authorization.k8s.io -n acme",
            "create rolebindings.rbac.authorization.k8s.io/other -n acme",
            "delete rolebindings.rbac.authorization.k8s.io/other -n acme",
            "create clusterrolebindings.rbac.authorization.k8s.io/other",
            "delete clusterrolebindings.rbac.authorization.k8s.io/cluster-admin",
            "impersonate users",
            "create serviceaccounts/berlin --subresource=token -n tidegate-demo",
            "create pods/any --subresource=exec -n tidegate-demo",
            "get pods/any --subresource=proxy -n tidegate-demo",
            "get configmaps -n kube-system",
            "patch supportwindows.tidegate.dev/any -n acme",
            "patch relays.tidegate.dev/any -n acme",
            "update meshes.tidegate.dev/any --subresource=finalizers -n acme",
            "create supportsessions.tidegate.dev -n acme",
            "create supportclaims.tidegate.dev -n acme",
            "delete deployments.apps/any -n acme",
            "delete services/any -n acme",
            "delete serviceaccounts/any -n acme",
            "delete networkpolicies.networking.k8s.io/any -n acme",
            "patch customresourcedefinitions.apiextensions.k8s.io/relays.tidegate.dev",
            "patch nodes/any",
        ],
    );
}

#[test]
fn the_operator_binds_relays_to_their_roles_and_nobody_to_others() {
    let Some(cluster) = installed() else { return };
    let binding = |name: &str, role: &str, kind: &str| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind,
            "metadata": {"name": name, "namespace": if kind == "RoleBinding" { json!("default") } else { Value::Null }},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": "berlin", "namespace": DEMO}],
        })
    };
    let apply = |object: &Value| {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), object.to_string()).expect("written");
        let path = file.path().to_str().expect("a path");
        cluster.kubectl(&[
            "apply",
            "--server-side",
            "--force-conflicts",
            "--field-manager=tidegate-operator/relay",
            "--as",
            OPERATOR,
            "-f",
            path,
        ])
    };
    apply(&binding("tidegate-relays", "tidegate-relay-sessions", "RoleBinding")).ok();
    apply(&binding("tidegate-relays", "tidegate-relay-reader", "ClusterRoleBinding")).ok();
    check(
        cluster,
        RELAY,
        true,
        &["list supportwindows.tidegate.dev -A", "create supportsessions.tidegate.dev -n default"],
    );
    for (name, role, kind) in [
        ("tidegate-relays", "cluster-admin", "RoleBinding"),
        ("tidegate-relays", "tidegate-window-author", "RoleBinding"),
        ("other", "tidegate-relay", "RoleBinding"),
        ("other", "tidegate-relay-reader", "ClusterRoleBinding"),
    ] {
        if name == "tidegate-relays" {
            cluster
                .kubectl(&["-n", "default", "delete", "rolebinding", name, "--ignore-not-found"])
                .ok();
        }
        let refused = apply(&binding(name, role, kind));
        assert_ne!(refused.code, Some(0), "{kind} {name} to {role}");
        assert!(refused.stderr.contains("orbidden"), "{}", refused.stderr);
    }
    // The installation's own bindings are left without a subject, as they came.
    let none = json!([{"op": "remove", "path": "/subjects"}]).to_string();
    cluster
        .kubectl(&["patch", "clusterrolebinding", "tidegate-relays", "--type=json", "-p", &none])
        .ok();
}

#[test]
fn a_relay_reads_its_policy_and_writes_sessions_and_claims_alone() {
    let Some(cluster) = installed() else { return };
    let mut reads = Vec::new();
    for kind in [
        "meshes",
        "relays",
        "loginusers",
        "terminals",
        "supportwindows",
        "supportsessions",
        "supportclaims",
    ] {
        for verb in ["get", "list", "watch"] {
            reads.push(format!("{verb} {kind}.tidegate.dev -n {DEMO}"));
        }
    }
    let reads: Vec<&str> = reads.iter().map(String::as_str).collect();
    check(cluster, RELAY, true, &reads);
    check(
        cluster,
        RELAY,
        true,
        &[
            "create supportsessions.tidegate.dev -n tidegate-demo",
            "patch supportsessions.tidegate.dev/any --subresource=status -n tidegate-demo",
            "create supportclaims.tidegate.dev -n tidegate-demo",
            "delete supportclaims.tidegate.dev/any -n tidegate-demo",
        ],
    );
    let mut writes = Vec::new();
    for kind in ["meshes", "relays", "loginusers", "terminals", "supportwindows"] {
        for verb in ["create", "update", "patch", "delete"] {
            writes.push(format!("{verb} {kind}.tidegate.dev -n {DEMO}"));
            writes.push(format!("{verb} {kind}.tidegate.dev --subresource=status -n {DEMO}"));
        }
    }
    let writes: Vec<&str> = writes.iter().map(String::as_str).collect();
    check(cluster, RELAY, false, &writes);
    check(
        cluster,
        RELAY,
        false,
        &[
            "get secrets -n tidegate-demo",
            "get secrets/tidegate-host-key -n tidegate-demo",
            "list pods -n tidegate-demo",
            "get configmaps -n tidegate-demo",
            "list namespaces",
            "delete supportsessions.tidegate.dev/any -n tidegate-demo",
            "deletecollection supportclaims.tidegate.dev -n tidegate-demo",
            "patch supportclaims.tidegate.dev/any -n tidegate-demo",
            "manage supportclaims.tidegate.dev -n tidegate-demo",
            "manage supportsessions.tidegate.dev -n tidegate-demo",
            "list supportwindows.tidegate.dev -n kube-system",
            "create supportsessions.tidegate.dev -n kube-system",
        ],
    );
    // In a tenant's namespace, where only sessions are written.
    let tenant = format!("system:serviceaccount:{DEMO}:selecting");
    check(cluster, &tenant, true, &["create supportsessions.tidegate.dev -n tidegate-demo"]);
    check(
        cluster,
        &tenant,
        false,
        &[
            "create supportclaims.tidegate.dev -n tidegate-demo",
            "list supportwindows.tidegate.dev -n tidegate-demo",
        ],
    );
}

#[test]
fn no_role_lets_one_person_in_alone() {
    let Some(cluster) = installed() else { return };
    for (role, kind) in [
        ("window-author", "supportwindows"),
        ("user-admin", "loginusers"),
        ("terminal-admin", "terminals"),
    ] {
        let who = format!("test-{role}");
        for other in
            ["supportwindows", "loginusers", "terminals", "meshes", "relays", "supportclaims"]
        {
            for verb in ["create", "update", "patch", "delete"] {
                let what = format!("{verb} {other}.tidegate.dev -n {DEMO}");
                check(cluster, &who, other == kind, &[&what]);
            }
        }
    }
    for role in ["viewer", "window-author", "user-admin", "terminal-admin", "approver"] {
        let who = format!("test-{role}");
        check(
            cluster,
            &who,
            true,
            &["list supportwindows.tidegate.dev -A", "watch supportsessions.tidegate.dev -A"],
        );
        check(
            cluster,
            &who,
            false,
            &[
                "get secrets -n tidegate-demo",
                "create supportsessions.tidegate.dev -n tidegate-demo",
            ],
        );
        let cuts = matches!(role, "window-author" | "terminal-admin" | "approver");
        check(
            cluster,
            &who,
            cuts,
            &[
                "patch supportsessions.tidegate.dev -n tidegate-demo",
                "delete supportsessions.tidegate.dev -n tidegate-demo",
            ],
        );
    }
    let roles = cluster.kubectl(&["get", "clusterroles", "-o", "json"]).ok().stdout;
    let roles: Value = serde_json::from_str(&roles).expect("JSON");
    for role in roles["items"].as_array().expect("items") {
        let name = role["metadata"]["name"].as_str().expect("a name");
        let ours = role["rules"].as_array().into_iter().flatten().any(|rule| {
            rule["apiGroups"]
                .as_array()
                .is_some_and(|groups| groups.iter().any(|g| g == "tidegate.dev"))
        });
        assert!(!ours || name.starts_with("tidegate-"), "{name} was given rights by aggregation");
        let labels = role["metadata"]["labels"].to_string();
        assert!(!name.starts_with("tidegate-") || !labels.contains("aggregate-to"), "{name}");
    }
    check(
        cluster,
        &format!("system:serviceaccount:{DEMO}:default"),
        false,
        &["list supportwindows.tidegate.dev -n tidegate-demo"],
    );
}

/// What `kubectl` says when `account`, with a token of `pod`, does `arguments`.
fn as_pod(
    cluster: &ControlPlane,
    account: &str,
    pod: Option<&str>,
    arguments: &[&str],
) -> Result<String, String> {
    let namespace = account.split(':').nth(2).expect("an account");
    let group = format!("--as-group=system:serviceaccounts:{namespace}");
    let mut all = vec![
        "-n",
        DEMO,
        "--as",
        account,
        "--as-group=system:serviceaccounts",
        &group,
        "--as-group=system:authenticated",
    ];
    let extra =
        pod.map(|pod| format!("--as-user-extra=authentication.kubernetes.io/pod-name={pod}"));
    all.extend(extra.as_deref());
    all.extend(arguments);
    let done = cluster.kubectl(&all);
    if done.code == Some(0) { Ok(done.stdout) } else { Err(done.stderr) }
}

fn file(object: &Value) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), object.to_string()).expect("written");
    file
}

fn session(name: &str, pod: &str) -> Value {
    json!({
        "apiVersion": "tidegate.dev/v1alpha1", "kind": "SupportSession",
        "metadata": {"name": name, "namespace": DEMO, "finalizers": ["tidegate.dev/relay"]},
        "spec": {
            "window": {"name": "maintenance", "uid": "u-1"}, "opensAt": "2026-11-24T21:00:00Z",
            "user": "alice", "terminal": "kiosk-17", "service": "ssh", "relayPod": pod,
            "openedAt": "2026-11-24T21:05:00Z", "deadline": "2026-11-24T21:50:00Z",
        },
    })
}

fn claim(name: &str, pod: &str, reusable: bool) -> Value {
    json!({
        "apiVersion": "tidegate.dev/v1alpha1", "kind": "SupportClaim",
        "metadata": {"name": name, "namespace": DEMO},
        "spec": {
            "window": {"namespace": DEMO, "name": "maintenance"}, "opensAt": "2026-11-24T21:00:00Z",
            "index": 0, "session": "ss-1", "relayPod": pod, "reusable": reusable,
        },
    })
}

#[test]
fn a_relay_is_kept_to_its_own_records_by_its_pods_token() {
    let Some(cluster) = installed() else { return };
    let checked = cluster
        .kubectl(&["get", "validatingadmissionpolicy", "tidegate-relays", "-o", "json"])
        .ok()
        .stdout;
    let checked: Value = serde_json::from_str(&checked).expect("JSON");
    assert_eq!(checked["status"]["typeChecking"]["expressionWarnings"], Value::Null, "{checked}");
    // A new policy takes a moment to be in force: it is when an unbound token is refused.
    let probe = file(&claim("probe", "berlin-a", true));
    eventually("the admission policy", SOON, || {
        let asked =
            as_pod(cluster, RELAY, None, &["create", "--dry-run=server", "-f", path(&probe)]);
        asked.is_err_and(|error| error.contains("bound to no pod"))
    });
    let a = |arguments: &[&str]| as_pod(cluster, RELAY, Some("berlin-a"), arguments);
    let b = |arguments: &[&str]| as_pod(cluster, RELAY, Some("berlin-b"), arguments);
    let refused = |answer: Result<String, String>, why: &str| {
        let error = answer.expect_err(why);
        assert!(error.contains(why), "{error}");
    };

    for object in [
        session("ss-a", "berlin-a"),
        claim("sc-once", "berlin-a", false),
        claim("sc-again", "berlin-a", true),
    ] {
        let object = file(&object);
        refused(
            b(&["create", "-f", path(&object)]),
            "spec.relayPod is berlin-a, and the token is of the pod berlin-b: a relay writes its own records alone",
        );
        refused(
            as_pod(cluster, RELAY, None, &["create", "-f", path(&object)]),
            "and the token is bound to no pod",
        );
        a(&["create", "-f", path(&object)]).expect("its own");
    }
    let mut owned = claim("sc-owned", "berlin-a", true);
    owned["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "x"}]);
    refused(a(&["create", "-f", path(&file(&owned))]), "a relay's record has no owner");
    let mut held = claim("sc-held", "berlin-a", true);
    held["metadata"]["finalizers"] = json!(["tidegate.dev/relay"]);
    refused(a(&["create", "-f", path(&file(&held))]), "a SupportClaim has no finalizer");

    // A session: its status and its finalizer, by its own pod.
    let ended =
        json!({"status": {"endedBy": "Staff", "endedAt": "2026-11-24T21:06:00Z"}}).to_string();
    let status =
        ["patch", "supportsession", "ss-a", "--subresource=status", "--type=merge", "-p", &ended];
    refused(b(&status), "a relay writes its own records alone");
    a(&status).expect("the status of its own");
    let cut = json!({"spec": {"cut": true}}).to_string();
    refused(
        a(&["patch", "supportsession", "ss-a", "--type=merge", "-p", &cut]),
        "and not the spec",
    );
    let free = json!({"metadata": {"finalizers": []}}).to_string();
    let free = ["patch", "supportsession", "ss-a", "--type=merge", "-p", &free];
    refused(b(&free), "a relay writes its own records alone");
    a(&free).expect("its own finalizer");
    refused(a(&["delete", "supportsession", "ss-a"]), "cannot delete");

    // Claims: a one-time one stays, another's stays.
    refused(
        a(&["delete", "supportclaim", "sc-once"]),
        "the claim of a one-time window is never deleted by a relay",
    );
    refused(b(&["delete", "supportclaim", "sc-again"]), "a relay writes its own records alone");
    a(&["delete", "supportclaim", "sc-again"]).expect("its own");

    // Whoever answers for others' records is not held by it: the operator, and people by their roles.
    as_pod(cluster, OPERATOR, Some("tidegate-operator-1"), &["delete", "supportclaim", "sc-once"])
        .expect("the operator");
    let author = ["-n", DEMO, "--as", "test-window-author", "delete", "supportsession", "ss-a"];
    cluster.kubectl(&author).ok();
}

fn path(file: &tempfile::NamedTempFile) -> &str {
    file.path().to_str().expect("a path")
}

#[test]
fn it_reads_well() {
    let Some(cluster) = installed() else { return };
    cluster.kubectl(&["-n", DEMO, "get", "rly"]).ok();
    let table = cluster.kubectl(&["-n", DEMO, "get", "rly"]).ok().stdout;
    let head: Vec<&str> = table.lines().next().expect("a head").split_whitespace().collect();
    assert_eq!(head, ["NAME", "REGION", "REPLICAS", "READY", "TERMINALS", "SESSIONS", "AGE"]);
    let explained =
        cluster.kubectl(&["explain", "supportwindow.spec.schedule.recurring"]).ok().stdout;
    assert!(explained.contains("the five fields of crontab(5)"), "{explained}");
    let scaled = declared();
    cluster.kubectl(&["-n", DEMO, "scale", "relay/berlin", "--replicas=3"]).ok();
    let replicas = cluster
        .kubectl(&["-n", DEMO, "get", "relay", "berlin", "-o", "jsonpath={.spec.replicas}"])
        .ok()
        .stdout;
    assert_eq!(replicas, "3");
    cluster.kubectl(&["-n", DEMO, "scale", "relay/berlin", "--replicas=2"]).ok();
    drop(scaled);
    let restricted = cluster
        .kubectl(&[
            "get",
            "namespace",
            SYSTEM,
            "-o",
            "jsonpath={.metadata.labels.pod-security\\.kubernetes\\.io/enforce}",
        ])
        .ok()
        .stdout;
    assert_eq!(restricted, "restricted");
}
