//! The operator's core on a real API server: who leads, what a Mesh gets, what becomes of records.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_tests::cluster::{Cluster, ControlPlane, Event};
use tidegate_tests::operator::{self, NAMESPACE, Operator};
use tidegate_tests::{SOON, eventually, wait_for};

/// A lease is over after 15 s; the second leads within this.
const TAKEOVER: Duration = Duration::from_secs(20);

#[track_caller]
fn get(cluster: &Cluster, arguments: &[&str]) -> Option<Value> {
    let mut all = vec!["get", "-o", "json"];
    all.extend(arguments);
    let found = cluster.kubectl(&all);
    (found.code == Some(0)).then(|| serde_json::from_str(&found.stdout).expect("JSON"))
}

fn mesh(namespace: &str, name: &str, domain: &str, select: Option<&str>) -> String {
    let mut spec = json!({"domain": domain});
    if let Some(value) = select {
        spec["tenants"] = json!({"from": "Selector", "selector": {"matchLabels": {"mesh": value}}});
    }
    json!({
        "apiVersion": "tidegate.dev/v1alpha1", "kind": "Mesh",
        "metadata": {"namespace": namespace, "name": name}, "spec": spec,
    })
    .to_string()
}

/// The status, reason and message of a condition.
fn condition(object: &Value, kind: &str) -> Option<(String, String, String)> {
    let found = object["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == kind)?;
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    Some((text("status"), text("reason"), text("message")))
}

#[track_caller]
fn await_ready(cluster: &Cluster, namespace: &str, name: &str, reason: &str) -> Value {
    wait_for(&format!("Mesh {namespace}/{name} says {reason}"), SOON, || {
        let mesh = get(cluster, &["mesh", "-n", namespace, name])?;
        let (_, said, _) = condition(&mesh, "Ready")?;
        (said == reason).then_some(mesh)
    })
}

fn session(name: &str, pod: &str, deadline: &str) -> String {
    session_in("acme", name, pod, deadline)
}

fn session_in(namespace: &str, name: &str, pod: &str, deadline: &str) -> String {
    json!({
        "apiVersion": "tidegate.dev/v1alpha1", "kind": "SupportSession",
        "metadata": {"namespace": namespace, "name": name, "finalizers": ["tidegate.dev/relay"]},
        "spec": {
            "window": {"name": "w", "uid": "u"}, "opensAt": "2026-01-01T00:00:00Z", "user": "alice",
            "terminal": "kiosk-17", "service": "ssh", "relayPod": pod,
            "openedAt": "2026-01-01T00:00:00Z", "deadline": deadline, "cut": false,
        },
    })
    .to_string()
}

fn claim(
    name: &str,
    window: &str,
    pod: &str,
    session: &str,
    reusable: bool,
    opens: &str,
) -> String {
    json!({
        "apiVersion": "tidegate.dev/v1alpha1", "kind": "SupportClaim",
        "metadata": {"namespace": "support", "name": name},
        "spec": {
            "window": {"namespace": "acme", "name": window}, "opensAt": opens, "index": 0,
            "session": session, "relayPod": pod, "reusable": reusable,
        },
    })
    .to_string()
}

/// A Mesh in `support` that serves `acme`.
#[track_caller]
fn serve(cluster: &Cluster) {
    cluster.kubectl(&["create", "namespace", "support"]).ok();
    cluster.kubectl(&["create", "namespace", "acme"]).ok();
    cluster.kubectl(&["label", "namespace", "acme", "mesh=prod"]).ok();
    cluster.apply(&mesh("support", "prod", "support.example.com", Some("prod"))).ok();
}

/// A control plane with an operator that has found that Mesh ready; `None` where none can be had.
#[track_caller]
fn served() -> Option<(ControlPlane, Operator)> {
    let cluster = ControlPlane::start()?;
    operator::install(&cluster);
    let replica = Operator::start(&cluster, "op-a");
    serve(&cluster);
    await_ready(&cluster, "support", "prod", "Ready");
    Some((cluster, replica))
}

const LATER: &str = "2099-01-01T00:00:00Z";

#[test]
fn a_mesh_has_its_keys_once_and_a_lost_one_is_never_replaced() {
    let Some((cluster, replica)) = served() else { return };
    let ready = get(&cluster, &["mesh", "-n", "support", "prod"]).expect("the Mesh");
    let keys = |mesh: &Value| {
        let status = &mesh["status"];
        [
            status["hostKeys"][0].clone(),
            status["authority"]["grantKey"].clone(),
            status["authority"]["hostCA"].clone(),
            status["authority"]["listKey"].clone(),
        ]
    };
    let first = keys(&ready);
    assert!(
        first.iter().all(|key| key.as_str().is_some_and(|k| k.starts_with("ssh-ed25519 AAAA")))
    );
    let secret = get(&cluster, &["secret", "-n", "support", "tidegate-host-key"]).unwrap();
    assert_eq!(secret["immutable"], true);
    let own = get(&cluster, &["secret", "-n", NAMESPACE]).unwrap();
    assert_eq!(own["items"].as_array().unwrap().len(), 3, "the authority's keys");

    // A Mesh that is deleted and made again finds its keys; so does another process.
    cluster.kubectl(&["delete", "mesh", "-n", "support", "prod"]).ok();
    replica.terminate();
    let replica = Operator::start(&cluster, "op-b");
    replica.await_lead(SOON);
    cluster.apply(&mesh("support", "prod", "support.example.com", Some("prod"))).ok();
    let again = await_ready(&cluster, "support", "prod", "Ready");
    assert_eq!(keys(&again), first);

    // A lost one is a condition that says so; restored, all is well.
    cluster.kubectl(&["delete", "secret", "-n", "support", "tidegate-host-key"]).ok();
    cluster.kubectl(&["label", "mesh", "-n", "support", "prod", "look=1"]).ok();
    let missing = await_ready(&cluster, "support", "prod", "KeyMissing");
    assert_eq!(keys(&missing), first, "the status still names it");
    let (status, _, message) = condition(&missing, "Ready").unwrap();
    assert_eq!(status, "False");
    assert!(
        message.contains("support/tidegate-host-key") && message.contains("SHA256:"),
        "{message}"
    );
    let mut restored = secret;
    restored["metadata"] = json!({"name": "tidegate-host-key", "namespace": "support"});
    cluster.apply(&restored.to_string()).ok();
    cluster.kubectl(&["label", "mesh", "-n", "support", "prod", "look=2", "--overwrite"]).ok();
    await_ready(&cluster, "support", "prod", "Ready");

    // Secrets are reached by name alone, and made by server-side apply.
    let requests = replica.requests(&cluster);
    for request in requests.iter().filter(|request| request.resource == "secrets") {
        assert!(matches!(request.verb.as_str(), "get" | "patch"), "{request:?}");
        assert!(!request.name.is_empty(), "{request:?}");
    }
    // At rest, which it comes to once it has seen its own last word, it asks for nothing and writes
    // nothing but its lease. A watch is answered when it ends.
    let rests = |request: &Event| request.resource == "leases" || request.verb == "watch";
    eventually("twelve seconds at rest", SOON * 2, || {
        let before = replica.requests(&cluster).len();
        std::thread::sleep(Duration::from_secs(12));
        let after = replica.requests(&cluster);
        after.len() > before && after[before..].iter().all(rests)
    });
    replica.terminate();
}

/// The fingerprints of the Secrets of both host keys, as far as they are there.
fn host_key_secrets(cluster: &Cluster) -> [Option<Value>; 2] {
    ["tidegate-host-key", "tidegate-host-key-b"]
        .map(|name| get(cluster, &["secret", "-n", "support", name]).map(|it| it["data"].clone()))
}

#[test]
fn another_host_key_serves_when_it_is_told_to_and_only_after_it_was_announced() {
    let Some((cluster, replica)) = served() else { return };
    let patch = |host_key: &Value| {
        let patch = json!({"spec": {"hostKey": host_key}}).to_string();
        cluster.kubectl(&["patch", "mesh", "-n", "support", "prod", "--type=merge", "-p", &patch])
    };
    let listed = |count: usize, serve: &str| {
        wait_for(&format!("{count} host keys, {serve} serves"), SOON, || {
            let mesh = get(&cluster, &["mesh", "-n", "support", "prod"])?;
            let status = &mesh["status"];
            let keys: Vec<String> = serde_json::from_value(status["hostKeys"].clone()).ok()?;
            let serves = status["hostKey"]["serve"].as_str().unwrap_or("A");
            (keys.len() == count && serves == serve).then_some(keys)
        })
    };
    let a = listed(1, "A")[0].clone();
    assert!(host_key_secrets(&cluster)[1].is_none(), "none is made before it is asked for");

    // Not before it was announced, by one sentence.
    let refused = patch(&json!({"serve": "B"}));
    assert_ne!(refused.code, Some(0));
    assert!(refused.stderr.contains("spec.hostKey.serve"), "{}", refused.stderr);
    assert!(refused.stderr.contains("while the other key is announced"), "{}", refused.stderr);
    let refused = patch(&json!({"serve": "A", "announce": "A"}));
    assert!(refused.stderr.contains("must be the key that does not serve"), "{}", refused.stderr);

    patch(&json!({"serve": "A", "announce": "B"})).ok();
    let both = listed(2, "A");
    assert_eq!(both[0], a);
    let secrets = host_key_secrets(&cluster);
    let secret = get(&cluster, &["secret", "-n", "support", "tidegate-host-key-b"]).unwrap();
    assert_eq!(secret["immutable"], true);
    patch(&json!({"serve": "B", "announce": "A"})).ok();
    assert_eq!(listed(2, "B"), [both[1].as_str(), both[0].as_str()]);

    // The old key has had its time; its Secret is a person's to delete, and then the next one is new.
    patch(&json!({"serve": "B", "announce": null})).ok();
    assert_eq!(listed(1, "B"), both[1..]);
    assert_eq!(host_key_secrets(&cluster), secrets, "no Secret was touched");
    cluster.kubectl(&["delete", "secret", "-n", "support", "tidegate-host-key"]).ok();
    cluster.kubectl(&["label", "mesh", "-n", "support", "prod", "look=1"]).ok();
    await_ready(&cluster, "support", "prod", "Ready");
    patch(&json!({"serve": "B", "announce": "A"})).ok();
    let next = listed(2, "B");
    assert_eq!(next[0], both[1]);
    assert_ne!(next[1], a);

    // A named one that is lost is a condition and never a new key.
    cluster.kubectl(&["delete", "secret", "-n", "support", "tidegate-host-key-b"]).ok();
    cluster.kubectl(&["label", "mesh", "-n", "support", "prod", "look=2", "--overwrite"]).ok();
    let missing = await_ready(&cluster, "support", "prod", "KeyMissing");
    let (_, _, message) = condition(&missing, "Ready").unwrap();
    assert!(message.contains("support/tidegate-host-key-b"), "{message}");
    assert_eq!(missing["status"]["hostKeys"], json!(next));
    assert!(host_key_secrets(&cluster)[1].is_none());
    replica.terminate();
}

#[test]
fn a_key_that_nobody_knows_does_not_come_to_serve_while_no_operator_looks() {
    let Some((cluster, replica)) = served() else { return };
    replica.terminate();
    // Both steps at once, with nobody to make the key in between.
    for host_key in
        [json!({"serve": "A", "announce": "B"}), json!({"serve": "B", "announce": null})]
    {
        let patch = json!({"spec": {"hostKey": host_key}}).to_string();
        let patch = ["patch", "mesh", "-n", "support", "prod", "--type=merge", "-p", &patch];
        cluster.kubectl(&patch).ok();
    }
    let before = get(&cluster, &["mesh", "-n", "support", "prod"]).unwrap();
    let replica = Operator::start(&cluster, "op-b");
    let refused = await_ready(&cluster, "support", "prod", "KeyNotAnnounced");
    let (_, _, message) = condition(&refused, "Ready").unwrap();
    assert!(message.contains("serve A and announce B first"), "{message}");
    assert_eq!(refused["status"]["hostKeys"], before["status"]["hostKeys"]);
    assert!(host_key_secrets(&cluster)[1].is_none());
    replica.terminate();
}

#[test]
fn what_one_mesh_has_no_later_one_takes() {
    let Some((cluster, replica)) = served() else { return };
    cluster.kubectl(&["create", "namespace", "other"]).ok();
    cluster.apply(&mesh("support", "second", "second.example.com", None)).ok();
    let second = await_ready(&cluster, "support", "second", "SecondMesh");
    let (status, _, message) = condition(&second, "Ready").unwrap();
    assert_eq!(status, "False");
    assert!(message.contains("prod") && message.contains("second"), "{message}");
    assert!(second["status"]["hostKeys"].is_null(), "no key is made for it");

    cluster.apply(&mesh("other", "thief", "support.example.com", None)).ok();
    let thief = await_ready(&cluster, "other", "thief", "DomainTaken");
    let (_, _, message) = condition(&thief, "Ready").unwrap();
    assert!(message.contains("support/prod") && message.contains("other/thief"), "{message}");

    // It takes another domain, and is fine; it selects a namespace that is taken, and is not.
    cluster.apply(&mesh("other", "thief", "other.example.com", None)).ok();
    await_ready(&cluster, "other", "thief", "Ready");
    cluster.apply(&mesh("other", "thief", "other.example.com", Some("prod"))).ok();
    let thief = await_ready(&cluster, "other", "thief", "NamespaceTaken");
    let (_, _, message) = condition(&thief, "Ready").unwrap();
    assert!(message.contains("acme") && message.contains("support/prod"), "{message}");
    let prod = await_ready(&cluster, "support", "prod", "Ready");
    assert_eq!(prod["status"]["observedGeneration"], prod["metadata"]["generation"]);
    eventually("a Warning event tells it", SOON, || {
        let events = cluster.kubectl(&["get", "events", "-n", "other"]).ok().stdout;
        events.contains("Warning") && events.contains("NamespaceTaken")
    });

    // The first one leaves: the others take its place by themselves.
    cluster.kubectl(&["delete", "mesh", "-n", "support", "prod"]).ok();
    await_ready(&cluster, "other", "thief", "Ready");
    // Its namespace's host key is still labelled as the first one's, and a person decides about it.
    let second = await_ready(&cluster, "support", "second", "KeyForeign");
    let (_, _, message) = condition(&second, "Ready").unwrap();
    assert!(message.contains("tidegate-host-key"), "{message}");
    replica.terminate();
}

#[test]
fn a_paused_leader_writes_nothing_more_and_the_second_leads_within_20_s() {
    let Some(cluster) = ControlPlane::start() else { return };
    operator::install(&cluster);
    let first = Operator::start(&cluster, "op-a");
    first.await_lead(SOON);
    serve(&cluster);
    await_ready(&cluster, "support", "prod", "Ready");
    let second = Operator::start(&cluster, "op-b");
    second.process.await_stderr("stands by", SOON);

    // A storm of work, in the midst of which the leader stands still.
    let storm: Vec<String> =
        (0..400).map(|n| session(&format!("ss-{n:03}"), "relay-gone", LATER)).collect();
    cluster.apply(&storm.join("\n---\n")).ok();
    eventually("the leader is at it", SOON, || first.process.stderr().contains("ended a record"));
    first.process.stop();
    let stopped = std::time::Instant::now();
    second.await_lead(TAKEOVER);
    eprintln!("the second leads {:?} after the first stood still", stopped.elapsed());
    first.process.signal(rustix::process::Signal::CONT);
    let end = first.process.exit(SOON);
    assert_eq!(end.code, Some(1));
    let words = first.process.stderr();
    assert!(words.contains("Lease tidegate-system/tidegate-operator"), "{words}");

    eventually("the second finishes the work", Duration::from_mins(1), || {
        let all = get(&cluster, &["supportsessions", "-n", "acme"]).unwrap();
        all["items"].as_array().unwrap().iter().all(|session| {
            session["status"]["endedBy"] == "Fault" && session["metadata"]["finalizers"].is_null()
        })
    });
    let audit = cluster.audit();
    let takeover = audit
        .iter()
        .position(|event| event.user == second.user && event.resource == "leases" && event.writes())
        .expect("the second took the lease");
    let late: Vec<_> = audit[takeover..]
        .iter()
        .filter(|event| event.user == first.user && event.writes())
        .collect();
    assert!(late.is_empty(), "{late:?}");
    let wrote = audit[..takeover]
        .iter()
        .filter(|e| e.user == first.user && e.resource == "supportsessions");
    assert!(wrote.count() > 0, "the first had written before");

    // A leader that is told to end lets the other lead at once.
    let third = Operator::start(&cluster, "op-c");
    third.process.await_stderr("stands by", SOON);
    second.terminate().ok();
    third.await_lead(Duration::from_secs(6));
    third.terminate().ok();
}

/// A pod of a relay on a node that is not there.
#[track_caller]
fn pod(cluster: &Cluster, name: &str) {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "support", "name": name, "labels": {
            "app.kubernetes.io/name": "tidegate", "app.kubernetes.io/component": "relay",
        }},
        "spec": {"nodeName": "nowhere", "containers": [{"name": "relay", "image": "x"}]},
    });
    eventually("the default account", SOON, || {
        cluster.kubectl(&["get", "serviceaccount", "-n", "support", "default"]).code == Some(0)
    });
    cluster.apply(&pod.to_string()).ok();
}

/// What a kubelet would report of it.
#[track_caller]
#[expect(clippy::needless_pass_by_value, reason = "the state is written where it is used")]
fn report(cluster: &Cluster, name: &str, state: Value, ready: &str) {
    let status = json!({"status": {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": ready}],
        "containerStatuses": [{"name": "relay", "image": "x", "imageID": "", "ready": true,
            "restartCount": 0, "state": state}],
    }});
    let status = status.to_string();
    let patch = ["patch", "pod", "-n", "support", name, "--subresource=status", "-p", &status];
    cluster.kubectl(&patch).ok();
}

#[test]
fn records_and_claims_of_a_relay_end_with_it_and_not_before() {
    let Some((cluster, replica)) = served() else { return };
    // No kubelet is here: this test reports what one would.
    pod(&cluster, "relay-1");
    let report = |state: Value, ready: &str| report(&cluster, "relay-1", state, ready);
    report(json!({"running": {}}), "True");
    let now = "2026-01-01T00:00:00Z";
    cluster.apply(&session("ss-live", "relay-1", LATER)).ok();
    let minutes_ago = jiff::Timestamp::now() - jiff::SignedDuration::from_mins(10);
    let deadline = jiff::Timestamp::from_second(minutes_ago.as_second()).unwrap().to_string();
    cluster.apply(&session("ss-late", "relay-1", &deadline)).ok();
    cluster.apply(&claim("sc-live-0", "w", "relay-1", "ss-live", true, LATER)).ok();
    cluster.apply(&claim("sc-once", "w1", "relay-1", "ss-live", false, LATER)).ok();
    cluster.apply(&claim("sc-past", "w0", "relay-1", "ss-gone", false, now)).ok();
    // Past its deadline for ever so long: it is ended, and was kept for long enough.
    cluster.apply(&session("ss-old", "relay-1", now)).ok();
    // Its window is there, though it closed long ago.
    let window = json!({
        "apiVersion": "tidegate.dev/v1alpha1", "kind": "SupportWindow",
        "metadata": {"namespace": "acme", "name": "w2"},
        "spec": {
            "users": {"names": ["alice"]}, "terminals": {"names": ["kiosk-17"]}, "services": ["ssh"],
            "schedule": {"once": {"start": now, "end": "2026-01-01T01:00:00Z"}}, "oneTime": true,
            "consent": "NotRequired",
        },
    });
    cluster.apply(&window.to_string()).ok();
    cluster.apply(&claim("sc-kept", "w2", "relay-1", "ss-gone", false, now)).ok();

    let there =
        |kind: &str, namespace: &str, name: &str| get(&cluster, &[kind, "-n", namespace, name]);
    eventually("what was kept for long enough is deleted", SOON, || {
        there("ss", "acme", "ss-old").is_none() && there("scl", "support", "sc-past").is_none()
    });

    let late = there("ss", "acme", "ss-late").unwrap();
    assert!(late["status"]["endedAt"].is_null(), "the relay serves and ends it itself");

    // The node falls silent, the pod is evicted: nothing is reported terminated.
    report(json!({"running": {}}), "Unknown");
    cluster.kubectl(&["delete", "pod", "-n", "support", "relay-1", "--wait=false"]).ok();
    let late = wait_for("the session past its deadline is ended", SOON, || {
        let late = there("ss", "acme", "ss-late")?;
        (late["status"]["endedBy"] == "Deadline" && late["metadata"]["finalizers"].is_null())
            .then_some(late)
    });
    assert_eq!(late["status"]["endedAt"], deadline.as_str());
    assert!(there("pod", "support", "relay-1").is_some());
    let live = there("ss", "acme", "ss-live").unwrap();
    assert!(live["status"]["endedAt"].is_null(), "{live}");
    assert!(there("scl", "support", "sc-live-0").is_some());

    // Now it is reported.
    let finished = json!({"terminated": {"exitCode": 137, "finishedAt": deadline}});
    report(finished, "False");
    let live = wait_for("its session is ended", SOON, || {
        let live = there("ss", "acme", "ss-live")?;
        (live["status"]["endedBy"] == "Fault" && live["metadata"]["finalizers"].is_null())
            .then_some(live)
    });
    assert_eq!(live["status"]["endedAt"], deadline.as_str());
    assert!(live["status"]["overrun"].is_null());
    let (status, reason, _) = condition(&live, "Ended").unwrap();
    assert_eq!((status.as_str(), reason.as_str()), ("True", "Fault"));
    eventually("its place is free", SOON, || there("scl", "support", "sc-live-0").is_none());
    for kept in ["sc-once", "sc-kept"] {
        assert!(there("scl", "support", kept).is_some(), "{kept} is for ever, or nearly");
    }
    // Its window goes, and it closed long ago.
    cluster.kubectl(&["delete", "sw", "-n", "acme", "w2"]).ok();
    eventually("its claim goes", SOON, || there("scl", "support", "sc-kept").is_none());
    assert!(there("scl", "support", "sc-once").is_some());
    a_namespace_goes_when_relays_have_told_how_its_sessions_ended(&cluster);
    replica.terminate();
}

/// Whoever deletes a tenant's namespace deletes the relays' rights in it, and the end of a session that
/// lives is yet to be written.
#[track_caller]
fn a_namespace_goes_when_relays_have_told_how_its_sessions_ended(cluster: &Cluster) {
    fleet(cluster);
    pod(cluster, "relay-2");
    report(cluster, "relay-2", json!({"running": {}}), "True");
    let binding = || binding(cluster, "acme");
    eventually("the fleet's rights are bound", SOON, || binding().is_some_and(|it| !keeps(&it)));
    cluster.apply(&session("ss-last", "relay-2", LATER)).ok();
    eventually("the rights are kept", SOON, || binding().is_some_and(|it| keeps(&it)));

    cluster.kubectl(&["delete", "namespace", "acme", "--wait=false"]).ok();
    let last = || get(cluster, &["supportsession", "-n", "acme", "ss-last"]);
    eventually("all of it is being deleted", SOON, || goes(last()) && goes(binding()));
    end_as_relay(cluster, "acme", "ss-last");
    eventually("the namespace is gone", SOON, || get(cluster, &["namespace", "acme"]).is_none());
}

/// The roles of relays, and a fleet `eu` of the Mesh in `support`.
#[track_caller]
fn fleet(cluster: &Cluster) {
    let rights = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/operator/rbac-relay.yaml");
    cluster.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", rights]).ok();
    let relay = json!({
        "apiVersion": "tidegate.dev/v1alpha1", "kind": "Relay",
        "metadata": {"namespace": "support", "name": "eu"},
        "spec": {
            "meshRef": {"name": "prod"}, "replicas": 1, "listeners": [{"port": 5938}],
            "exposure": {"type": "NodePort"},
        },
    });
    cluster.apply(&relay.to_string()).ok();
}

/// The relays' rights in a namespace.
#[track_caller]
fn binding(cluster: &Cluster, namespace: &str) -> Option<Value> {
    get(cluster, &["rolebinding", "-n", namespace, "tidegate-relays"])
}

/// Whether it outlives its deletion.
fn keeps(binding: &Value) -> bool {
    let finalizers = binding["metadata"]["finalizers"].as_array();
    finalizers.is_some_and(|all| all.contains(&json!("tidegate.dev/sessions")))
}

fn goes(object: Option<Value>) -> bool {
    object.is_some_and(|object| object["metadata"]["deletionTimestamp"].is_string())
}

/// The relay has closed the session, and says so with its own rights.
#[track_caller]
fn end_as_relay(cluster: &Cluster, namespace: &str, name: &str) {
    let as_relay = |arguments: &[&str]| {
        let patch = ["--as", "system:serviceaccount:support:eu", "-n", namespace, "patch"];
        let what = ["supportsession", name, "--type=merge"];
        cluster.kubectl(&[&patch[..], &what, arguments].concat()).ok()
    };
    // Not long ago, or the operator would let go of it in the relay's place.
    let now = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second()).unwrap();
    let ended = json!({"status": {"endedAt": now.to_string(), "endedBy": "Revoked"}});
    as_relay(&["--subresource=status", "-p", &ended.to_string()]);
    let session = get(cluster, &["supportsession", "-n", namespace, name]);
    assert_eq!(session.expect("it is held")["status"]["endedBy"], "Revoked");
    as_relay(&["-p", r#"{"metadata": {"finalizers": null}}"#]);
}

/// Deletes a pod and reports its container terminated, as a kubelet would. Gives when.
#[track_caller]
fn terminate_pod(cluster: &Cluster, name: &str) -> String {
    cluster.kubectl(&["delete", "pod", "-n", "support", name, "--wait=false"]).ok();
    let now = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second()).unwrap().to_string();
    let finished = json!({"terminated": {"exitCode": 0, "finishedAt": now}});
    report(cluster, name, finished, "False");
    now
}

#[test]
fn records_are_ended_rightly_though_their_mesh_or_its_namespace_is_deleted() {
    let Some((cluster, replica)) = served() else { return };
    fleet(&cluster);
    // Pods of a node that does not exist are deleted by force before long.
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "nowhere"}});
    cluster.apply(&node.to_string()).ok();
    for name in ["relay-1", "relay-2"] {
        pod(&cluster, name);
        report(&cluster, name, json!({"running": {}}), "True");
    }
    let both = ["support", "acme"];
    let bound = |hold: bool| {
        both.iter().all(|namespace| {
            binding(&cluster, namespace).is_some_and(|it| keeps(&it) == hold && !goes(Some(it)))
        })
    };
    eventually("the fleet's rights are bound", SOON, || bound(false));
    cluster.apply(&session_in("support", "ss-home", "relay-1", LATER)).ok();
    cluster.apply(&session("ss-tenant", "relay-1", LATER)).ok();
    cluster.apply(&session("ss-late", "relay-2", LATER)).ok();
    eventually("the rights are kept", SOON, || bound(true));

    cluster.kubectl(&["delete", "mesh", "-n", "support", "prod"]).ok();
    eventually("the rights are being deleted", SOON, || {
        both.iter().all(|namespace| goes(binding(&cluster, namespace)))
    });
    let ended = |name: &str| {
        let session = get(&cluster, &["supportsession", "-n", "acme", name])?;
        session["metadata"]["finalizers"].is_null().then(|| session["status"].clone())
    };
    // One relay ends without having said how its session did.
    let finished = terminate_pod(&cluster, "relay-2");
    let late = wait_for("its session is ended", SOON, || ended("ss-late"));
    assert_eq!(late["endedBy"], "Fault");
    assert_eq!(late["endedAt"], finished.as_str());
    // The other says so.
    end_as_relay(&cluster, "support", "ss-home");
    end_as_relay(&cluster, "acme", "ss-tenant");
    eventually("the rights are gone", SOON, || {
        both.iter().all(|namespace| binding(&cluster, namespace).is_none())
    });

    // The same with the Mesh's own namespace, with which the relays' accounts and pods go.
    cluster.apply(&mesh("support", "prod", "support.example.com", Some("prod"))).ok();
    eventually("the fleet's rights are bound again", SOON, || bound(false));
    cluster.apply(&session_in("support", "ss-home-2", "relay-1", LATER)).ok();
    cluster.apply(&session("ss-tenant-2", "relay-1", LATER)).ok();
    eventually("the rights are kept again", SOON, || bound(true));
    cluster.kubectl(&["delete", "namespace", "support", "--wait=false"]).ok();
    // Since Kubernetes 1.33 pods go first, and the rest once they are gone; before, all at once.
    cluster.kubectl(&["delete", "mesh", "-n", "support", "prod"]).ok();
    eventually("the tenant's rights and the pod are being deleted", SOON, || {
        goes(binding(&cluster, "acme")) && goes(get(&cluster, &["pod", "-n", "support", "relay-1"]))
    });
    let home = get(&cluster, &["supportsession", "-n", "support", "ss-home-2"]);
    assert!(home.expect("its relay runs")["status"]["endedAt"].is_null());
    let finished = terminate_pod(&cluster, "relay-1");
    let tenant = wait_for("its session is ended", SOON, || ended("ss-tenant-2"));
    assert_eq!(tenant["endedBy"], "Fault");
    assert_eq!(tenant["endedAt"], finished.as_str());
    eventually("the rights are gone again", SOON, || binding(&cluster, "acme").is_none());
    let force = ["delete", "pod", "-n", "support", "--all", "--force", "--grace-period=0"];
    cluster.kubectl(&force).ok();
    eventually("the namespace is gone", SOON * 2, || {
        get(&cluster, &["namespace", "support"]).is_none()
    });
    replica.process.await_stderr("support/ss-home-2", SOON);
    let said = replica.process.stderr();
    let said = said.lines().find(|line| line.contains("support/ss-home-2")).map(str::to_owned);
    assert!(said.as_deref().is_some_and(|line| line.contains("Fault")), "{said:?}");
    replica.terminate();
}

/// Refuses to put a finalizer on the relays' rights.
const NO_FINALIZERS: &str = r#"
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: no-finalizers}
spec:
  matchConstraints:
    resourceRules:
      - {apiGroups: [rbac.authorization.k8s.io], apiVersions: [v1], operations: [UPDATE], resources: [rolebindings]}
  validations: [{expression: "!has(object.metadata.finalizers)"}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: no-finalizers}
spec: {policyName: no-finalizers, validationActions: [Deny]}
"#;

#[test]
fn rights_that_cannot_be_kept_for_a_session_are_not_deleted() {
    let Some((cluster, replica)) = served() else { return };
    fleet(&cluster);
    pod(&cluster, "relay-1");
    report(&cluster, "relay-1", json!({"running": {}}), "True");
    let binding = || binding(&cluster, "acme");
    let readers = || {
        let reader = get(&cluster, &["clusterrolebinding", "tidegate-relays"])?;
        Some(reader["subjects"].as_array().map_or(0, Vec::len))
    };
    eventually("the fleet's rights are bound", SOON, || {
        binding().is_some() && readers() == Some(1)
    });
    cluster.apply(NO_FINALIZERS).ok();
    eventually("no finalizer can be put on them", SOON, || {
        let change = r#"{"metadata": {"finalizers": ["example.com/x"]}}"#;
        let patch = ["patch", "rolebinding", "-n", "acme", "tidegate-relays", "--type=merge"];
        cluster.kubectl(&[&patch[..], &["--dry-run=server", "-p", change]].concat()).code != Some(0)
    });
    cluster.apply(&session("ss-1", "relay-1", LATER)).ok();
    replica.process.await_stderr("rights are not bound as they should be", SOON);
    cluster.kubectl(&["delete", "mesh", "-n", "support", "prod"]).ok();
    // That is written after all that is deleted.
    eventually("the fleet's other rights are gone", SOON, || readers() == Some(0));
    let kept = binding().expect("it is there");
    assert!(!keeps(&kept) && !goes(Some(kept)));

    cluster.kubectl(&["delete", "validatingadmissionpolicybinding", "no-finalizers"]).ok();
    eventually("it is kept, and then deleted", SOON, || {
        binding().is_some_and(|it| keeps(&it) && goes(Some(it)))
    });
    end_as_relay(&cluster, "acme", "ss-1");
    eventually("it is gone", SOON, || binding().is_none());
    replica.terminate();
}
