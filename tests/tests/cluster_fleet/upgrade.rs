//! The next release over this one, with the Relay and the windows in place.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tidegate_tests::fleet::{Fleet, ROLLOUT, Release};
use tidegate_tests::{Proc, Staff, clock, eventually, wait_for};

use super::{IN, open};

/// The Relay's drain.timeout, and the sleep before a pod is told to end.
const DRAIN: Duration = Duration::from_secs(5);
const BEFORE_DRAIN: Duration = Duration::from_secs(5);
/// What people and the operator have made, which outlives the programs.
const KEPT: &str = "meshes,relays,loginusers,terminals,supportwindows,supportsessions,supportclaims,\
                    services,serviceaccounts,secrets,networkpolicies,poddisruptionbudgets,deployments";
/// As `kubectl apply` of these tests writes.
const AS_APPLIED: [&str; 3] = ["diff", "--server-side", "--field-manager=test"];

/// Applies the new release's overlay under a live session.
pub fn an_upgrade_keeps_everything(fleet: &Fleet, alice: &Staff) {
    open(fleet, "berlin", "kiosk-17");
    let session = fleet.await_session(alice, "kiosk-17", IN);
    eventually("its record", IN, || !super::running(fleet).is_empty());
    let (before, key, pods) = (kept(fleet), fleet.host_key(), fleet.await_pods(2));
    let ready = watch(fleet, "deployment", "{.status.availableReplicas}{\"\\n\"}");
    let form = "{.metadata.name} {.metadata.deletionTimestamp} {.metadata.deletionGracePeriodSeconds}{\"\\n\"}";
    let going = watch(fleet, "pods", form);

    fleet.apply_overlay(Release::This);
    let old = pods.iter().find(|pod| pod.node == "node-1").expect("the session's pod");
    let told = told_to_go(&going, &old.name);
    let ended = session.exit(ROLLOUT);
    let after = clock::after(told, ended.at);
    eprintln!("the session lived for {after:?} after its pod was told to go: {}", session.stderr());
    let due = DRAIN + BEFORE_DRAIN;
    assert!(after >= due && after < due * 3, "it ended {after:?} after its pod was told to go");
    assert!(session.stderr().contains("the relay is shutting down"), "{}", session.stderr());
    assert_eq!(fleet.await_ended("kiosk-17", IN), "Drain");

    let new = Release::This.relay_image();
    let pods = pods.into_iter().map(|pod| pod.uid).collect::<Vec<_>>();
    eventually("the fleet of the new release", ROLLOUT, || {
        let now = fleet.pods();
        let fresh = |pod: &tidegate_tests::fleet::Pod| {
            pod.ready && pod.image == new && !pods.contains(&pod.uid)
        };
        now.len() == 2 && now.iter().all(fresh)
    });
    let rolled = ["wait", "--for=condition=Progressing=False", "relay/eu", "--timeout=55s"];
    fleet.nodes.kubectl(&rolled).ok();
    let counts = ready.stdout();
    assert!(counts.lines().count() > 1, "the watch saw nothing of the rollout: {counts}");
    assert!(counts.lines().all(|count| count >= "2"), "fewer replicas than asked for: {counts}");

    // The terminal has dialled again, by itself.
    drop(fleet.await_session(alice, "kiosk-17", IN));
    let after = kept(fleet);
    for object in &before {
        assert!(after.contains(object), "lost or changed: {object}\n{after:#?}");
    }
    assert_eq!(fleet.host_key(), key);
    nothing_is_left_to_change(fleet);
    fleet.withdraw("berlin");
}

/// Applied once more, nothing changes; and `kubectl diff` has nothing to say, of the overlay and of all
/// manifests of these tests, which leave out what has a default.
pub fn nothing_is_left_to_change(fleet: &Fleet) {
    fleet.await_ready();
    let overlay = fleet.overlay(Release::This);
    let before = versions(fleet, &overlay);
    fleet.nodes.kubectl(&["apply", "--server-side", "-k", &overlay]).ok();
    assert_eq!(versions(fleet, &overlay), before, "applied again");
    let declared = fleet.declared().display().to_string();
    let overlay = ["-k", &overlay];
    let declared = ["-R", "-f", &declared];
    for of in [&overlay[..], &declared[..]] {
        for diff in [&AS_APPLIED[..], &["diff"]] {
            let mut arguments = diff.to_vec();
            if diff.len() > 1 && of[0] == "-k" {
                // The overlay was applied under kubectl's own name.
                arguments.pop();
            }
            arguments.extend(of);
            let diff = fleet.nodes.kubectl(&arguments);
            let said = (diff.code, diff.stdout.as_str());
            assert_eq!(said, (Some(0), ""), "{arguments:?}: {}", diff.stderr);
        }
    }
}

/// Each object with what moves only when somebody writes it: statuses move by themselves.
fn versions(fleet: &Fleet, overlay: &str) -> Vec<String> {
    let all = fleet.get(&["-k", overlay]);
    let items = all["items"].as_array().expect("items");
    let version = |item: &Value| {
        let meta = &item["metadata"];
        let of = if meta["generation"].is_null() { "resourceVersion" } else { "generation" };
        format!("{} {} {}", item["kind"], meta["name"], meta[of])
    };
    items.iter().map(version).collect()
}

/// Every object that is to outlive the programs: its kind, name and uid, and its spec where people wrote
/// it.
pub fn kept(fleet: &Fleet) -> Vec<String> {
    let all = fleet.get(&[KEPT]);
    let items = all["items"].as_array().expect("items");
    let line = |item: &Value| {
        let ours = item["apiVersion"] == "tidegate.dev/v1alpha1" || item["kind"] == "Service";
        let spec = if ours { item["spec"].clone() } else { Value::Null };
        let meta = &item["metadata"];
        format!("{} {} {} {spec}", item["kind"], meta["name"], meta["uid"])
    };
    items.iter().map(line).collect()
}

/// When this pod was told to go, once `kubectl get --watch` has shown it: by the API server's clock, whole
/// seconds rounded down, for the new operator can be at work long before its rollout is seen to be over.
fn told_to_go(pods: &Proc, name: &str) -> Instant {
    let told = |line: &str| {
        let mut words = line.strip_suffix('\n')?.strip_prefix(name)?.split_whitespace();
        let gone_by = words.next()?.parse::<Timestamp>().ok()?;
        let grace = words.next()?.parse().ok()?;
        Some(gone_by - SignedDuration::from_secs(grace))
    };
    clock::monotonic(wait_for("the pod is told to go", ROLLOUT, || {
        pods.stdout().split_inclusive('\n').find_map(told)
    }))
}

/// `kubectl get --watch` of the fleet's objects, in this form.
fn watch(fleet: &Fleet, what: &str, form: &str) -> Proc {
    let mut command = fleet.nodes.kubectl_command();
    let form = format!("-ojsonpath={form}");
    command.args(["get", what, "-l", "tidegate.dev/relay=eu", "--watch", &form]);
    Proc::start(format!("kubectl get {what}"), &mut command)
}
