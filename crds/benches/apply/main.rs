//! One changed window among 100,000, as the two sources of policy apply it: `just bench-policy`.
//!
//! `kube`: the raw object of a watch is decoded, put into the index, and a snapshot is taken to be
//! published. `directory`: the file that holds the window is read, and the set is revised.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a bench may"
)]

mod cpu;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cpu::CpuTime;
use criterion::measurement::Measurement as _;
use jiff::Timestamp;
use serde_json::{Value, json};
use tidegate_crds::assemble::{Inputs, Memory, Sight, assemble, revise};
use tidegate_crds::index::Index;
use tidegate_crds::manifest::{Document, Kind, Object, ObjectRef, Read, read_bytes};
use tidegate_policy::model::{Label, ObjectKey};

type Criterion = criterion::Criterion<CpuTime>;

const WINDOWS: usize = 100_000;
const TENANTS: usize = 100;
const TERMINALS: usize = 10_000;
/// Windows in a file of the directory.
const PER_FILE: usize = 100;

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kilobytes * 1024
}

fn object(kind: &str, namespace: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "tidegate.dev/v1alpha1", "kind": kind,
        "metadata": {
            "name": name, "namespace": namespace, "generation": 1,
            "uid": format!("{namespace}-{name}"), "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": spec,
    })
}

fn tenant(n: usize) -> String {
    format!("tenant-{}", n % TENANTS)
}

/// The Mesh, its namespaces and all terminals.
fn ground() -> Vec<Value> {
    let selector = json!({"matchLabels": {"tidegate.dev/mesh": "prod"}});
    let spec = json!({
        "domain": "support.example.com",
        "tenants": {"from": "Selector", "selector": selector},
    });
    let mut mesh = object("Mesh", "default", "prod", &spec);
    mesh["status"] = json!({"conditions": [{
        "type": "Ready", "status": "True", "reason": "Ready", "message": "",
        "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z",
    }]});
    let mut all = vec![mesh];
    all.extend((0..TENANTS).map(|n| {
        json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": tenant(n), "labels": {"tidegate.dev/mesh": "prod"}},
        })
    }));
    all.extend((0..TERMINALS).map(|n| {
        let spec = json!({
            "publicKeys": [key(n)], "services": [{"name": "ssh", "port": 22}],
        });
        let mut terminal = object("Terminal", &tenant(n), &format!("kiosk-{n}"), &spec);
        terminal["metadata"]["labels"] = json!({"site": format!("site-{}", n % 1_000)});
        terminal
    }));
    all
}

/// An ed25519 key of its own for each terminal: the bytes of a name do for a key.
fn key(n: usize) -> String {
    use base64::Engine as _;
    let mut blob = vec![0, 0, 0, 11];
    blob.extend(b"ssh-ed25519");
    blob.extend([0, 0, 0, 32]);
    blob.extend(format!("{n:032}").bytes());
    format!("ssh-ed25519 {}", base64::engine::general_purpose::STANDARD.encode(blob))
}

fn window(n: usize, minutes: usize) -> Value {
    let terminals = if n.is_multiple_of(3) {
        json!({"selector": {"matchLabels": {"site": format!("site-{}", n % 1_000)}}})
    } else {
        json!({"names": [format!("kiosk-{}", n % TERMINALS)]})
    };
    let schedule = if n.is_multiple_of(2) {
        json!({"recurring": {"cron": "0 22 * * TUE,THU", "timeZone": "Europe/Berlin", "duration": "2h"}})
    } else {
        json!({"once": {"start": "2026-11-23T09:00:00+01:00", "end": "2026-11-23T11:00:00+01:00"}})
    };
    let spec = json!({
        "case": {"number": format!("{}", 40_000 + n)},
        "users": {"names": [format!("user-{}", n % 1_000)], "groups": ["tier2"]},
        "terminals": terminals, "services": ["ssh"], "schedule": schedule,
        "consent": "NotRequired", "code": "NotRequired",
        "limits": {"maxSessionDuration": format!("{minutes}m")},
    });
    object("SupportWindow", &tenant(n), &format!("window-{n}"), &spec)
}

fn kind(value: &Value) -> Kind {
    match value["kind"].as_str().unwrap() {
        "Mesh" => Kind::Mesh,
        "Namespace" => Kind::Namespace,
        "Terminal" => Kind::Terminal,
        _ => Kind::SupportWindow,
    }
}

fn kube(c: &mut Criterion) {
    let home = ObjectKey {
        namespace: Label::parse("default").unwrap(),
        name: Label::parse("prod").unwrap(),
    };
    let before = resident();
    let mut index = Index::new(home);
    let put = |index: &mut Index, value: &Value| {
        let object = Object::decode(kind(value), value).unwrap();
        index.put(&object)
    };
    for value in ground() {
        let _ = put(&mut index, &value);
    }
    for n in 0..WINDOWS {
        let _ = put(&mut index, &window(n, 45));
    }
    let mut published = index.snapshot().unwrap();
    assert_eq!(published.windows().count(), WINDOWS);
    assert_eq!(published.terminals().count(), TERMINALS);
    let bytes = resident().saturating_sub(before);
    println!(
        "memory: index of {WINDOWS} windows and {TERMINALS} terminals: {} MiB, {} bytes for each window",
        bytes / (1 << 20),
        bytes / WINDOWS as u64
    );
    for (name, n) in [("by name", 50_001), ("by label", 50_004)] {
        let versions = [window(n, 30), window(n, 45)];
        let mut turn = 0;
        c.bench_function(&format!("change: kube, a window {name}"), |b| {
            b.iter(|| {
                turn += 1;
                let change = put(&mut index, &versions[turn % 2]);
                assert!(change.snapshot);
                published = index.snapshot().unwrap();
            });
        });
    }
}

/// A directory's files as they were read.
fn file(name: &str, objects: &[Value]) -> (Vec<u8>, Read) {
    let text: Vec<String> = objects.iter().map(without_server_fields).collect();
    let bytes = text.join("\n---\n").into_bytes();
    let read = read_bytes(name, &bytes);
    assert!(read.findings.is_empty(), "{:?}", read.findings);
    (bytes, read)
}

fn without_server_fields(object: &Value) -> String {
    let mut object = object.clone();
    object.as_object_mut().unwrap().shift_remove("status");
    let metadata = object["metadata"].as_object_mut().unwrap();
    for field in ["generation", "uid", "creationTimestamp"] {
        metadata.shift_remove(field);
    }
    object.to_string()
}

fn windows_of_file(at: usize, minutes: usize) -> Vec<Value> {
    (at * PER_FILE..(at + 1) * PER_FILE).map(|n| window(n, minutes)).collect()
}

fn directory(c: &mut Criterion) {
    let mut reads = vec![file("ground.yaml", &ground()).1];
    for at in 0..WINDOWS / PER_FILE {
        reads.push(file(&format!("windows-{at}.yaml"), &windows_of_file(at, 45)).1);
    }
    let documents: Vec<&Document> = reads.iter().flat_map(|read| &read.documents).collect();
    let kept_files = BTreeSet::new();
    let inputs = Inputs { documents: &documents, refused: &[], kept_files: &kept_files };
    let now: Timestamp = "2026-11-23T08:00:00Z".parse().unwrap();
    let mut uids = 0;
    let mut new_uid = || {
        uids += 1;
        format!("uid-{uids}")
    };
    let begun = CpuTime.start();
    let (mut assembled, mut memory) = assemble(&inputs, &Memory::default(), now, &mut new_uid);
    let took = Duration::from_nanos(CpuTime.end(begun).unsigned_abs());
    // Once is enough of what takes seconds, and criterion would do it ten times at least.
    println!("start: directory, the whole set is assembled\t{} ms", took.as_millis());
    let findings = &assembled.findings;
    assert_eq!(assembled.snapshot.as_ref().unwrap().windows().count(), WINDOWS, "{findings:?}");

    // One window of a file is edited, in turns: the file is read, and what differs in it is revised.
    let at = 500;
    let name = format!("windows-{at}.yaml");
    let was = &reads[at + 1];
    let mut objects = windows_of_file(at, 45);
    objects[50] = window(at * PER_FILE + 50, 30);
    let (bytes, other) = file(&name, &objects);
    c.bench_function("directory: a file of 100 windows is read", |b| {
        b.iter(|| read_bytes(&name, &bytes));
    });
    let (one, _) = file(&name, &objects[50..51]);
    c.bench_function("directory: a file of one window is read", |b| {
        b.iter(|| read_bytes(&name, &one));
    });
    let mut turn = 0;
    c.bench_function("change: directory, one window is revised", |b| {
        b.iter(|| {
            turn += 1;
            let read = [was, &other][turn % 2];
            let document = &read.documents[50];
            let edits: [(ObjectRef, Sight<'_>); 1] =
                [(document.reference.clone(), Sight::Document(document))];
            (assembled, memory) = revise(&assembled, &memory, &edits, now, &mut new_uid).unwrap();
            Arc::new(assembled.snapshot.clone())
        });
    });
    let was = file(&name, &windows_of_file(at, 45)).0;
    c.bench_function("change: directory, a file of 100 windows is read and revised", |b| {
        b.iter(|| {
            turn += 1;
            let read = read_bytes(&name, [&was, &bytes][turn % 2]);
            let edits = read.documents.iter().map(|it| (it.reference.clone(), Sight::Document(it)));
            let edits: Vec<_> = edits.collect();
            (assembled, memory) = revise(&assembled, &memory, &edits, now, &mut new_uid).unwrap();
        });
    });
}

fn main() {
    let mut criterion = criterion::Criterion::default()
        .with_measurement(CpuTime)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(10)
        .configure_from_args();
    kube(&mut criterion);
    directory(&mut criterion);
}
