//! Whatever is done to the files: what edits make is what a look at all of them makes.

use std::collections::BTreeMap;
use std::fs;

use imbl::OrdMap;
use jiff::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use tidegate_draw::cases;

use super::*;
use crate::clock::Boot;

const KEYS: [&str; 2] = [
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOBZx8GNudT4wBGZ3qbA4EMt1CyfmYJ2HHAdXkxh2Y/d",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAWeM//Go868wg/3b6k2nOnHVoKBcU9EBLs1mt5bLc3x",
];
const FILES: [&str; 3] = ["a.yaml", "b.yaml", "c/d.yaml"];

fn object(kind: &str, namespace: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "tidegate.dev/v1alpha1", "kind": kind,
        "metadata": {"namespace": namespace, "name": name}, "spec": spec,
    })
}

fn mesh(name: &str) -> Value {
    let selector = json!({"matchLabels": {"mesh": "prod"}});
    let tenants = json!({"from": "Selector", "selector": selector});
    object("Mesh", "default", name, &json!({"domain": "support.example.com", "tenants": tenants}))
}

fn namespace(name: &str, mesh: &str) -> Value {
    let labels = json!({"mesh": mesh});
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

fn terminal(namespace: &str, name: &str, key: usize, site: &str) -> Value {
    let services = json!([{"name": "ssh", "port": 22}]);
    let spec = json!({"publicKeys": [KEYS[key]], "services": services});
    let mut terminal = object("Terminal", namespace, name, &spec);
    terminal["metadata"]["labels"] = json!({"site": site});
    terminal
}

fn user(name: &str, key: usize) -> Value {
    object("LoginUser", "default", name, &json!({"publicKeys": [KEYS[key]], "groups": ["tier2"]}))
}

/// What windows are written anew for most.
const EDITS: u8 = 12;

fn window(namespace: &str, name: &str, edit: u8) -> Value {
    let mut spec = json!({
        "users": {"names": ["alice"]}, "terminals": {"names": ["k1"]}, "services": ["ssh"],
        "consent": "NotRequired",
        "schedule": {"once": {
            "start": "2026-11-23T09:00:00+01:00", "end": "2026-11-23T11:00:00+01:00",
        }},
    });
    let zone =
        |zone| json!({"recurring": {"cron": "30 2 * * *", "timeZone": zone, "duration": "2h"}});
    let (field, value) = match edit {
        0 => ("suspend", json!(true)),
        1 => ("schedule", zone("Europe/Berlin")),
        2 => ("schedule", zone("America/New_York")),
        // Refused by `compile`, by the schema, by the rules of old and new.
        3 => ("schedule", zone("Europe/Nowhere")),
        4 => ("services", json!([])),
        5 | 6 => ("oneTime", json!(edit == 5)),
        7 => ("terminals", json!({"selector": {"matchLabels": {"site": "berlin"}}})),
        8 => (
            "terminals",
            json!({"selector": {"matchExpressions": [
                {"key": "site", "operator": "In", "values": ["berlin", "paris"]},
            ]}}),
        ),
        9 => ("users", json!({"names": ["nobody"], "groups": ["tier2"]})),
        _ => ("services", json!(["ssh"])),
    };
    spec[field] = value;
    object("SupportWindow", namespace, name, &spec)
}

fn any_window() -> impl Strategy<Value = Value> {
    let name = select(&["w1", "w2", "w3", "W!"][..]);
    (select(&["acme", "acme", "beta"][..]), name, 0..EDITS)
        .prop_map(|(namespace, name, edit)| window(namespace, name, edit))
}

fn any_object() -> impl Strategy<Value = Value> {
    let tenant = select(&["acme", "beta"][..]);
    let mesh_of = select(&["prod", "prod", "other"][..]);
    let terminal_of = (tenant.clone(), select(&["k1", "k2"][..]), 0..2_usize, any::<bool>());
    prop_oneof![
        16 => any_window(),
        1 => select(&["prod", "prod", "second"][..]).prop_map(mesh),
        1 => (tenant, mesh_of).prop_map(|(name, mesh)| namespace(name, mesh)),
        1 => terminal_of.prop_map(|(namespace, name, key, berlin)| {
            terminal(namespace, name, key, if berlin { "berlin" } else { "rome" })
        }),
        1 => (select(&["alice", "bob"][..]), 0..2_usize).prop_map(|(name, key)| user(name, key)),
    ]
}

/// One thing that is done to one file.
#[derive(Clone, Debug)]
enum Step {
    /// In the place of the document of that number, if there is one, else after the last.
    Put(usize, Value),
    Take(usize),
    /// Behind the last, which nothing moves.
    Add(Value),
    Delete,
    Empty,
    Break,
    /// The same, under another inode.
    Renamed,
    /// With the next file's content, and that one with this one's.
    Swapped,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..6_usize, any_object()).prop_map(|(at, object)| Step::Put(at, object)),
        3 => (0..6_usize).prop_map(Step::Take),
        4 => any_object().prop_map(Step::Add),
        1 => Just(Step::Delete),
        1 => Just(Step::Empty),
        1 => Just(Step::Break),
        1 => Just(Step::Renamed),
        1 => Just(Step::Swapped),
    ]
}

/// A directory, as it should be on disk.
struct Disk {
    root: tempfile::TempDir,
    files: BTreeMap<&'static str, Vec<Value>>,
}

impl Disk {
    fn write(&self, file: &str, text: &str) {
        let path = self.root.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn take(&mut self, file: &'static str, step: &Step) {
        let next = FILES[(FILES.iter().position(|it| *it == file).unwrap() + 1) % FILES.len()];
        let objects = self.files.entry(file).or_default();
        match step {
            Step::Put(at, object) => match objects.get_mut(*at) {
                Some(place) => *place = object.clone(),
                None => objects.push(object.clone()),
            },
            Step::Take(at) if *at < objects.len() => drop(objects.remove(*at)),
            Step::Take(_) => {}
            Step::Add(object) => objects.push(object.clone()),
            Step::Delete => {
                objects.clear();
                let _ = fs::remove_file(self.root.path().join(file));
                return;
            }
            Step::Empty => return self.write(file, ""),
            Step::Break => return self.write(file, "kind: {"),
            Step::Renamed => {
                self.write(".new", &text(&self.files[file]));
                fs::create_dir_all(self.root.path().join("c")).unwrap();
                let there = |file: &str| self.root.path().join(file);
                fs::rename(there(".new"), there(file)).unwrap();
                return;
            }
            Step::Swapped => {
                let other = self.files.remove(next).unwrap_or_default();
                let own = self.files.insert(file, other).unwrap_or_default();
                self.write(next, &text(&own));
                self.files.insert(next, own);
            }
        }
        self.write(file, &text(&self.files[file]));
    }
}

/// One document to 20 lines, so that an edit of one moves no other.
fn text(objects: &[Value]) -> String {
    let documents = objects.iter().map(|object| format!("{object}{}", "\n".repeat(20)));
    documents.collect::<Vec<_>>().join("---\n")
}

fn at(tenths: u64) -> Now {
    let wall =
        Timestamp::from_millisecond(1_800_000_000_000 + i64::try_from(tenths * 100).unwrap());
    Now { wall: wall.unwrap(), boot: Boot::from_start(Duration::from_millis(tenths * 100)) }
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn edits_of_files_mean_what_a_look_at_all_means(
        first in vec(any_object(), 0..4),
        steps in vec((select(&FILES[..]), any_step(), any::<bool>()), 1..24),
    ) {
        let root = tempfile::tempdir().unwrap();
        let mut disk = Disk { root, files: BTreeMap::new() };
        let ground = [
            mesh("prod"), namespace("acme", "prod"), user("alice", 0),
            terminal("acme", "k1", 1, "berlin"), window("acme", "w1", EDITS), window("acme", "w2", 7),
        ];
        // A file of its own, which no step touches.
        disk.write("ground.yaml", &text(&ground[..4]));
        disk.files.insert("a.yaml", ground[4..].iter().cloned().chain(first).collect());
        disk.take("a.yaml", &Step::Take(usize::MAX));
        let place = disk.root.path().to_path_buf();
        let mut files = Files::new(&place, OrdMap::new(), BTreeMap::new());
        files.look(at(0), true).unwrap();
        let mut memory = Memory::default();
        let mut before = build(&mut files, &mut memory, None, at(0), &mut || "first".into());
        let mut tenths = 0;
        for (n, (file, step, rests)) in steps.iter().enumerate() {
            disk.take(file, step);
            // What is in doubt is looked at again, or meets the next edit first.
            for _ in 0..if *rests { 2 } else { 1 } {
                tenths += 1;
                let now = at(tenths);
                if !files.look(now, true).unwrap().changed {
                    continue;
                }
                let uid = || format!("uid of {n}");
                let remembered = memory.clone();
                let built = build(&mut files, &mut memory, Some(&before), now, &mut || uid());
                let all = files.in_force();
                let inputs = Inputs {
                    documents: &all.documents,
                    refused: &all.refused,
                    kept_files: &all.kept_files,
                };
                let (whole, next) = assemble(&inputs, &remembered, now.wall, &mut || uid());
                prop_assert_eq!(&built.findings, &whole.findings);
                prop_assert_eq!(&built.snapshot, &whole.snapshot);
                prop_assert_eq!(&built.relays, &whole.relays);
                prop_assert_eq!(built.kept, whole.kept);
                prop_assert_eq!(&memory, &next);
                let lists = |assembled: &Assembled| -> Vec<String> {
                    let snapshot = assembled.snapshot.iter();
                    snapshot.flat_map(|snapshot| snapshot.terminals().map(|terminal| {
                        format!("{:?}", snapshot.windows_of_terminal(terminal))
                    })).collect()
                };
                prop_assert_eq!(lists(&built), lists(&whole));
                before = built;
            }
        }
    }
}
