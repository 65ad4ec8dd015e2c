//! What a directory means, over several looks at it.
#![allow(
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may panic, and says its values in place"
)]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};
use tidegate_crds::assemble::{Assembled, Inputs, Memory, Sight, assemble, revise};
use tidegate_crds::manifest::{self, Document, Finding, Kind, ObjectRef, Position, Rule, Severity};
use tidegate_draw::cases;
use tidegate_policy::model::{Label, Login, ObjectKey};

use common::{KEYS, P256, mesh, namespace, relay, terminal, user, window};

/// A directory and what is remembered of it.
#[derive(Default)]
struct World {
    memory: Memory,
    uids: u32,
    clock: i64,
}

struct Files {
    documents: Vec<Document>,
    refused: Vec<(ObjectRef, Position)>,
    kept: BTreeSet<Arc<str>>,
}

/// Each pair is a file's name and its objects.
fn files(files: &[(&str, Vec<Value>)]) -> Files {
    let mut all = Files { documents: Vec::new(), refused: Vec::new(), kept: BTreeSet::new() };
    for (name, objects) in files {
        let text: Vec<_> = objects.iter().map(ToString::to_string).collect();
        let read = manifest::read(name, &text.join("\n---\n"));
        if read.unreadable {
            all.kept.insert(Arc::from(*name));
        } else {
            assert!(
                read.findings.is_empty() || !read.refused.is_empty(),
                "{name}: {:?}",
                read.findings
            );
        }
        all.documents.extend(read.documents);
        all.refused.extend(read.refused);
    }
    all
}

impl World {
    fn look(&mut self, files: &Files) -> Assembled {
        let documents: Vec<_> = files.documents.iter().collect();
        let inputs =
            Inputs { documents: &documents, refused: &files.refused, kept_files: &files.kept };
        self.clock += 60;
        let now = Timestamp::from_second(1_800_000_000 + self.clock).unwrap();
        let mut new_uid = || {
            self.uids += 1;
            format!("uid-{}", self.uids)
        };
        let (assembled, memory) = assemble(&inputs, &self.memory, now, &mut new_uid);
        // What is remembered survives a restart.
        let stored = serde_json::to_string(&memory).unwrap();
        self.memory = serde_json::from_str(&stored).unwrap();
        assert_eq!(self.memory, memory);
        for finding in &assembled.findings {
            assert!(finding.message.is_ascii() && finding.message.len() <= 600, "{finding}");
        }
        assembled
    }

    fn one(&mut self, objects: Vec<Value>) -> Assembled {
        self.look(&files(&[("all.yaml", objects)]))
    }
}

fn errors(assembled: &Assembled) -> Vec<&Finding> {
    assembled.findings.iter().filter(|f| f.severity == Severity::Error).collect()
}

#[track_caller]
fn error<'a>(assembled: &'a Assembled, rule: Rule, parts: &[&str]) -> &'a Finding {
    let errors = errors(assembled);
    let [error] = errors.as_slice() else { panic!("{errors:#?}") };
    assert_eq!(error.rule, rule, "{error}");
    for part in parts {
        assert!(error.to_string().contains(part), "{part} is not in: {error}");
    }
    error
}

fn label(text: &str) -> Label {
    Label::parse(text).unwrap()
}

fn key(namespace: &str, name: &str) -> ObjectKey {
    ObjectKey { namespace: label(namespace), name: label(name) }
}

fn base() -> Vec<Value> {
    vec![
        mesh(),
        relay(),
        namespace("acme", "prod"),
        user("default", "alice", KEYS[0]),
        user("acme", "bob", KEYS[1]),
        terminal("acme", "kiosk-17", KEYS[2], 20017),
        window("acme", "berlin"),
    ]
}

fn set(objects: &mut [Value], name: &str, pointer: &str, value: Value) {
    let object = objects.iter_mut().find(|o| o["metadata"]["name"] == name).unwrap();
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    object.pointer_mut(parent).unwrap()[field] = value;
}

fn without(objects: &[Value], name: &str) -> Vec<Value> {
    objects.iter().filter(|o| o["metadata"]["name"] != name).cloned().collect()
}

#[test]
fn a_whole_directory_becomes_policy() {
    let mut world = World::default();
    let assembled = world.one(base());
    assert!(assembled.findings.is_empty(), "{:#?}", assembled.findings);
    assert!(!assembled.kept);
    let snapshot = assembled.snapshot.unwrap();
    assert_eq!(snapshot.mesh().domain.as_ref(), "support.example.com");
    assert!(snapshot.user(&Login::parse("alice").unwrap()).is_some());
    assert!(snapshot.user(&Login::parse("bob.acme").unwrap()).is_some());
    assert!(snapshot.terminal(&label("kiosk-17")).is_some());
    assert!(snapshot.terminal_by_listen_port(20017).is_some());
    let window = snapshot.window(&key("acme", "berlin")).unwrap();
    assert!(window.meta.uid.starts_with("uid-"));
    assert_eq!(window.meta.generation, 1);
    assert_eq!(assembled.relays.len(), 1);
    assert_eq!(assembled.relays[0].listeners, [5938, 80]);
}

#[test]
fn uids_stay_generations_grow_and_a_recreated_object_is_a_new_one() {
    let mut world = World::default();
    let mut objects = base();
    let meta = |assembled: &Assembled| {
        let snapshot = assembled.snapshot.as_ref().unwrap();
        snapshot.window(&key("acme", "berlin")).unwrap().meta.clone()
    };
    let first = meta(&world.one(objects.clone()));
    let before = world.memory.clone();
    assert_eq!(meta(&world.one(objects.clone())), first);
    assert_eq!(world.memory, before, "the same again changes nothing");

    set(&mut objects, "berlin", "/metadata/labels", json!({"a": "b"}));
    assert_eq!(meta(&world.one(objects.clone())), first, "labels are no change of the spec");
    set(&mut objects, "berlin", "/spec/suspend", json!(true));
    let second = meta(&world.one(objects.clone()));
    assert_eq!((second.generation, &second.uid), (2, &first.uid));
    assert_eq!(second.created, first.created);

    let gone = world.one(without(&objects, "berlin"));
    assert!(gone.snapshot.unwrap().window(&key("acme", "berlin")).is_none());
    let again = meta(&world.one(objects));
    assert_ne!(again.uid, first.uid);
    assert!(again.generation == 1 && again.created > first.created);
}

#[test]
fn no_mesh_admits_nobody_and_a_second_one_is_named_with_the_first() {
    let mut world = World::default();
    let nothing = world.one(without(&base(), "prod"));
    assert!(nothing.snapshot.is_none());
    error(&nothing, Rule::Required, &["no Mesh"]);

    let mut world = World::default();
    world.one(base());
    let mut objects = base();
    let mut second = mesh();
    second["metadata"]["name"] = json!("a-second");
    objects.push(second);
    let assembled = world.one(objects);
    assert_eq!(assembled.snapshot.as_ref().unwrap().mesh().meta.key, key("default", "prod"));
    error(&assembled, Rule::Conflict, &["Mesh default/a-second", "Mesh default/prod"]);
}

#[test]
fn the_first_accepted_keeps_key_name_and_port_also_against_edits() {
    for (later, part) in [
        (terminal("acme", "a-terminal", KEYS[2], 1), "the key SHA256:"),
        (terminal("acme", "a-terminal", P256, 20017), "the listen port 20017"),
        (terminal("default", "kiosk-17", P256, 1), "the terminal name kiosk-17"),
        (user("acme", "a-user", KEYS[2]), "the key SHA256:"),
        (terminal("acme", "a-terminal", KEYS[0], 1), "LoginUser default/alice"),
    ] {
        let mut world = World::default();
        world.one(base());
        let mut objects = base();
        objects.insert(0, later);
        let assembled = world.one(objects.clone());
        error(&assembled, Rule::Conflict, &[part, "all.yaml:", "keeps it"]);
        let snapshot = assembled.snapshot.unwrap();
        let holder = snapshot.terminal(&label("kiosk-17")).unwrap();
        assert_eq!(holder.meta.key, key("acme", "kiosk-17"));
        assert_eq!(snapshot.terminal_by_listen_port(20017).unwrap().meta.key, holder.meta.key);
        // It gets it when the first one is gone.
        let names = ["kiosk-17", "alice"];
        let left: Vec<_> = objects
            .iter()
            .enumerate()
            .filter(|(i, o)| *i == 0 || !names.iter().any(|n| o["metadata"]["name"] == *n))
            .map(|(_, o)| o.clone())
            .collect();
        assert!(errors(&world.one(left)).is_empty());
    }
}

#[test]
fn a_refused_edit_leaves_the_previous_version_in_force() {
    let mut world = World::default();
    let mut objects = base();
    objects.push(terminal("acme", "kiosk-18", P256, 20018));
    world.one(objects.clone());
    set(&mut objects, "kiosk-18", "/spec/services/0/listenPort", json!(20017));
    for _ in 0..2 {
        let assembled = world.one(objects.clone());
        let finding = error(&assembled, Rule::Conflict, &["spec.services[0].listenPort"]);
        assert!(finding.position.is_some());
        let snapshot = assembled.snapshot.unwrap();
        let kept = snapshot.terminal_by_listen_port(20018).unwrap();
        assert_eq!((kept.meta.key.clone(), kept.meta.generation), (key("acme", "kiosk-18"), 1));
    }
    // Both change hands by one edit.
    set(&mut objects, "kiosk-17", "/spec/services/0/listenPort", json!(20018));
    let assembled = world.one(objects);
    assert!(errors(&assembled).is_empty(), "{:#?}", assembled.findings);
    let snapshot = assembled.snapshot.unwrap();
    assert_eq!(snapshot.terminal_by_listen_port(20017).unwrap().meta.key, key("acme", "kiosk-18"));
    assert_eq!(snapshot.terminal_by_listen_port(20018).unwrap().meta.key, key("acme", "kiosk-17"));
}

#[test]
fn what_compile_refuses_leaves_the_previous_version_in_force() {
    let mut world = World::default();
    let mut objects = base();
    world.one(objects.clone());
    set(&mut objects, "berlin", "/spec/users/names", json!(["bob.beta"]));
    set(&mut objects, "berlin", "/spec/suspend", json!(true));
    let assembled = world.one(objects);
    let parts = ["spec.users.names[0]", "another namespace", "all.yaml:"];
    error(&assembled, Rule::InvalidValue, &parts);
    assert!(!assembled.snapshot.unwrap().window(&key("acme", "berlin")).unwrap().suspended);
}

#[test]
fn a_one_time_windows_schedule_is_immutable() {
    let mut world = World::default();
    let mut objects = base();
    set(&mut objects, "berlin", "/spec/oneTime", json!(true));
    world.one(objects.clone());
    let start = "2026-11-23T09:00:01+01:00";
    let mut moved = objects.clone();
    set(&mut moved, "berlin", "/spec/schedule/once/start", json!(start));
    let assembled = world.one(moved);
    error(&assembled, Rule::Cel, &["spec.schedule", "immutable in a one-time window"]);
    let mut dropped = objects.clone();
    set(&mut dropped, "berlin", "/spec/oneTime", json!(false));
    let assembled = world.one(dropped);
    error(&assembled, Rule::Cel, &["spec.oneTime", "immutable"]);
    assert!(assembled.snapshot.unwrap().window(&key("acme", "berlin")).unwrap().one_time);
    set(&mut objects, "berlin", "/spec/suspend", json!(true));
    let assembled = world.one(objects);
    assert!(errors(&assembled).is_empty(), "{:#?}", assembled.findings);
}

#[test]
fn the_mesh_of_a_relay_is_immutable_and_must_be_the_one_in_force() {
    let mut world = World::default();
    let mut objects = base();
    world.one(objects.clone());
    set(&mut objects, "eu", "/spec/meshRef/name", json!("other"));
    let assembled = world.one(objects.clone());
    error(&assembled, Rule::Cel, &["spec.meshRef", "immutable"]);
    assert_eq!(assembled.relays.len(), 1);
    let mut fresh = World::default();
    let assembled = fresh.one(objects);
    error(&assembled, Rule::Reference, &["Relay default/eu", "default/other", "default/prod"]);
    assert!(assembled.relays.is_empty());
}

#[test]
fn the_same_object_twice_names_both_and_changes_nothing() {
    let mut world = World::default();
    world.one(base());
    let mut again = window("acme", "berlin");
    again["spec"]["suspend"] = json!(true);
    let assembled = world.look(&files(&[("all.yaml", base()), ("b.yaml", vec![again])]));
    let errors = errors(&assembled);
    assert_eq!(errors.len(), 2, "{errors:#?}");
    for (error, (here, there)) in
        errors.iter().zip([("all.yaml", "b.yaml"), ("b.yaml", "all.yaml")])
    {
        assert_eq!(error.rule, Rule::Duplicate);
        assert_eq!(&*error.position.as_ref().unwrap().file, here);
        assert!(error.message.contains(there), "{error}");
    }
    assert!(!assembled.snapshot.unwrap().window(&key("acme", "berlin")).unwrap().suspended);
}

#[test]
fn a_moved_object_stays_itself() {
    let mut world = World::default();
    let uid = |assembled: Assembled| {
        assembled.snapshot.unwrap().window(&key("acme", "berlin")).unwrap().meta.uid.clone()
    };
    let before = uid(world.one(base()));
    let moved = files(&[
        ("all.yaml", without(&base(), "berlin")),
        ("moved.yaml", vec![window("acme", "berlin")]),
    ]);
    assert_eq!(uid(world.look(&moved)), before);
}

#[test]
fn a_file_that_became_empty_or_bad_keeps_its_objects() {
    let mut world = World::default();
    let rest = without(&base(), "berlin");
    let good = files(&[("a.yaml", rest.clone()), ("w.yaml", vec![window("acme", "berlin")])]);
    world.look(&good);
    let before = world.memory.clone();
    let mut empty = files(&[("a.yaml", rest.clone())]);
    empty.kept.insert("w.yaml".into());
    let assembled = world.look(&empty);
    assert!(assembled.kept);
    assert!(assembled.snapshot.unwrap().window(&key("acme", "berlin")).is_some());
    assert_eq!(world.memory, before);

    let mut typo = window("acme", "berlin");
    typo["spec"]["suspnd"] = json!(true);
    let bad = files(&[("a.yaml", rest.clone()), ("w.yaml", vec![typo])]);
    assert_eq!((bad.refused.len(), bad.kept.len()), (1, 0));
    let assembled = world.look(&bad);
    assert!(!assembled.kept);
    assert!(assembled.snapshot.unwrap().window(&key("acme", "berlin")).is_some());

    // The same object elsewhere does not apply while the file cannot be read.
    let mut wider = window("acme", "berlin");
    wider["spec"]["users"]["names"] = json!(["alice", "mallory"]);
    let mut both = files(&[("a.yaml", rest), ("z.yaml", vec![wider])]);
    both.kept.insert("w.yaml".into());
    let assembled = world.look(&both);
    assert_eq!(errors(&assembled).len(), 2);
    assert_eq!(world.memory, before);
}

#[test]
fn namespaces_outside_the_mesh_have_no_effect_and_hold_nothing() {
    let mut world = World::default();
    world.one(base());
    let mut objects = base();
    set(&mut objects, "acme", "/metadata/labels", json!({"tidegate.dev/mesh": "other"}));
    objects.push(terminal("default", "kiosk-17", P256, 20017));
    let assembled = world.one(objects);
    let errors = errors(&assembled);
    assert_eq!(errors.len(), 3, "{errors:#?}");
    assert!(errors.iter().all(|e| e.message.contains("does not serve the namespace acme")));
    let snapshot = assembled.snapshot.unwrap();
    assert_eq!(snapshot.terminal(&label("kiosk-17")).unwrap().meta.key, key("default", "kiosk-17"));
    assert!(snapshot.user(&Login::parse("bob.acme").unwrap()).is_none());
    // Its objects are remembered: they come back as themselves, but what was taken stays taken.
    let mut objects = base();
    objects.push(terminal("default", "kiosk-17", P256, 20017));
    let assembled = world.one(objects);
    error(&assembled, Rule::Conflict, &["Terminal acme/kiosk-17", "Terminal default/kiosk-17"]);
    let snapshot = assembled.snapshot.unwrap();
    assert!(snapshot.window(&key("acme", "berlin")).is_some());
}

#[test]
fn an_object_outside_the_mesh_is_a_finding_only_if_there_is_one_and_has_a_place() {
    let mut world = World::default();
    // A version that cannot be read is found by the reader, not here once more.
    let mut stranger = terminal("gamma", "kiosk-9", P256, 20018);
    stranger["spec"]["typo"] = json!(true);
    let look = |objects: Vec<Value>| {
        let mut all = base();
        all.extend(objects);
        files(&[("all.yaml", all)])
    };
    assert!(errors(&world.look(&look(vec![stranger]))).is_empty());
    // One that was good once is, at the place where it was.
    let inside = [namespace("gamma", "prod"), terminal("gamma", "kiosk-9", P256, 20018)];
    assert!(errors(&world.look(&look(inside.to_vec()))).is_empty());
    let mut broken = inside.to_vec();
    broken[0] = namespace("gamma", "other");
    broken[1]["spec"]["typo"] = json!(true);
    let assembled = world.look(&look(broken));
    let found = error(&assembled, Rule::Reference, &["Terminal gamma/kiosk-9", "does not serve"]);
    assert!(found.position.is_some());
}

#[test]
fn what_a_window_names_and_nobody_has_is_a_note() {
    let mut world = World::default();
    let mut objects = base();
    set(
        &mut objects,
        "berlin",
        "/spec/users",
        json!({"names": ["alice", "carol"], "groups": ["tier9"]}),
    );
    set(&mut objects, "berlin", "/spec/terminals/names", json!(["kiosk-17", "kiosk-99"]));
    let selector = json!({"matchLabels": {"site": "berlin"}});
    set(&mut objects, "berlin", "/spec/terminals/selector", selector);
    set(&mut objects, "berlin", "/spec/services", json!(["ssh", "vnc"]));
    let assembled = world.one(objects);
    let notes: Vec<_> = assembled.findings.iter().map(ToString::to_string).collect();
    assert_eq!(notes.len(), 5, "{notes:#?}");
    for part in ["carol", "tier9", "kiosk-99", "matches no Terminal", "vnc"] {
        assert!(notes.iter().any(|note| note.contains(part)), "{part}: {notes:#?}");
    }
    assert!(assembled.findings.iter().all(|f| f.severity == Severity::Note));
    assert!(assembled.snapshot.unwrap().window(&key("acme", "berlin")).is_some());
}

#[test]
fn fields_for_the_operator_are_noted_and_those_that_nothing_enforces_are_refused() {
    let mut world = World::default();
    let mut objects = base();
    set(&mut objects, "eu", "/spec/dns", json!({"provider": "None"}));
    set(&mut objects, "eu", "/spec/replicas", json!(3));
    set(&mut objects, "prod", "/spec/grantHorizon", json!("4h"));
    let assembled = world.one(objects.clone());
    assert!(errors(&assembled).is_empty());
    assert_eq!(assembled.findings.len(), 3, "{:#?}", assembled.findings);
    assert_eq!(assembled.relays.len(), 1);
    set(&mut objects, "berlin", "/spec/terminals/guests", json!(true));
    let mut fresh = World::default();
    let assembled = fresh.one(objects);
    error(&assembled, Rule::NotSupported, &["spec.terminals.guests", "not supported"]);
    assert!(assembled.snapshot.unwrap().window(&key("acme", "berlin")).is_none());
}

/// Objects that fight for names, keys and ports.
fn rivals() -> impl Strategy<Value = Vec<Value>> {
    let keys = [KEYS[0], KEYS[1], KEYS[2], P256];
    let terminal_at = (0..3_usize, 0..3_usize, 0..4_usize, 1..4_u16);
    let one = prop_oneof![
        terminal_at.prop_map(move |(n, name, k, port)| {
            let (n, name) = (["default", "acme", "beta"][n], ["k1", "k2", "k3"][name]);
            terminal(n, name, keys[k], port)
        }),
        (0..3_usize, 0..2_usize, 0..4_usize).prop_map(move |(n, name, k)| {
            user(["default", "acme", "beta"][n], ["alice", "bob"][name], keys[k])
        }),
        (0..3_usize, 0..2_usize)
            .prop_map(|(n, name)| { window(["default", "acme", "beta"][n], ["w1", "w2"][name]) }),
    ];
    prop::collection::vec(one, 0..8)
}

fn with_ground(rivals: &[Value]) -> Vec<Value> {
    let mut objects = vec![mesh(), relay(), namespace("acme", "prod")];
    objects.extend(rivals.iter().cloned());
    objects
}

/// One object to a file, so that their order can change; the place of each object stays the same.
fn scattered(objects: &[Value], order: &[usize]) -> Files {
    let names: Vec<_> = (0..objects.len()).map(|i| format!("f{i}.yaml")).collect();
    let all: Vec<_> =
        order.iter().map(|i| (names[*i].as_str(), vec![objects[*i].clone()])).collect();
    files(&all)
}

fn in_force(assembled: &Assembled) -> String {
    let Some(snapshot) = &assembled.snapshot else { return "none".into() };
    let mut all: Vec<String> = snapshot.users().map(|u| format!("{u:?}")).collect();
    all.extend(snapshot.terminals().map(|t| format!("{t:?}")));
    all.extend(snapshot.windows().map(|w| format!("{w:?}")));
    all.sort();
    format!("{all:#?} {:#?}", assembled.findings)
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn order_never_matters_and_the_same_again_changes_nothing(
        (first, second, seed) in (rivals(), rivals(), any::<u64>())
    ) {
        let mut worlds = [World::default(), World::default()];
        for rivals in [&first, &second] {
            let objects = with_ground(rivals);
            let straight: Vec<_> = (0..objects.len()).collect();
            let mut shuffled = straight.clone();
            shuffled.sort_by_key(|i| (*i as u64 + 1).wrapping_mul(seed | 1).rotate_left(17));
            // Uids are given out in the order of names, so both worlds agree on them too.
            let before = worlds[0].memory.clone();
            let one = worlds[0].look(&scattered(&objects, &straight));
            let two = worlds[1].look(&scattered(&objects, &shuffled));
            prop_assert_eq!(in_force(&one), in_force(&two));
            prop_assert_eq!(&worlds[0].memory, &worlds[1].memory);

            // A terminal that was in force and still claims the same has it.
            let snapshot = one.snapshot.as_ref().unwrap();
            for held in before.iter().filter(|o| o.object.kind == Kind::Terminal && o.in_force) {
                let now = objects.iter().filter(|o| {
                    o["kind"] == "Terminal"
                        && o["metadata"]["name"] == held.object.name.as_str()
                        && o["metadata"]["namespace"] == held.object.namespace.as_str()
                });
                if now.clone().count() == 1 && now.clone().all(|o| o["spec"]["publicKeys"] == held.value["spec"]["publicKeys"]) {
                    let got = snapshot.terminal(&label(&held.object.name)).unwrap();
                    prop_assert_eq!(got.meta.uid.as_ref(), held.uid.as_str());
                }
            }

            let memory = worlds[0].memory.clone();
            let again = worlds[0].look(&scattered(&objects, &straight));
            prop_assert_eq!(in_force(&again), in_force(&one));
            prop_assert_eq!(&worlds[0].memory, &memory);
            worlds[1].clock = worlds[0].clock;
            worlds[1].uids = worlds[0].uids;
        }
    }
}

/// A window of one name in one state: as it is, edited in various ways, refused by `compile` or by its
/// schema, moved within its file, or not there.
fn windows() -> impl Strategy<Value = Vec<(usize, usize)>> {
    prop::collection::vec((0..5_usize, 0..9_usize), 1..5)
}

fn window_in(name: usize, state: usize) -> Option<Value> {
    // The last is of a namespace that the Mesh does not serve.
    let namespace = if name == 4 { "beta" } else { "acme" };
    let mut object = window(namespace, &format!("v{name}"));
    let mut edit = |pointer: &str, value: Value| {
        let at = object.pointer_mut(pointer).unwrap();
        *at = value;
    };
    match state {
        0 => return None,
        1 | 2 => {}
        3 => edit("/spec/users/names", json!(["nobody"])),
        4 => edit("/spec/terminals", json!({"selector": {"matchLabels": {"site": "berlin"}}})),
        5 => edit("/spec/schedule/once/end", json!("2026-11-23T12:00:00+01:00")),
        6 => edit("/spec/terminals", json!({"guests": true})),
        7 => edit("/spec/services", json!([])),
        _ => edit("/spec/terminals/names", json!(["k1", "kiosk-17"])),
    }
    Some(object)
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn what_edits_of_windows_make_is_what_a_look_at_all_makes(
        (edits, first) in (prop::collection::vec(windows(), 1..6), rivals())
    ) {
        let mut states = [1; 5];
        let look = |states: &[usize; 5]| {
            let own = states.iter().enumerate().filter_map(|(name, state)| window_in(name, *state));
            // In a file of their own, so that nothing else moves with them.
            files(&[("ground.yaml", with_ground(&first)), ("windows.yaml", own.collect())])
        };
        let mut now = 1_800_000_000;
        let mut read = look(&states);
        let documents: Vec<_> = read.documents.iter().collect();
        let inputs = Inputs { documents: &documents, refused: &read.refused, kept_files: &read.kept };
        let at = Timestamp::from_second(now).unwrap();
        let (mut before, mut memory) = assemble(&inputs, &Memory::default(), at, &mut || "u".into());
        for edit in edits {
            now += 60;
            let at = Timestamp::from_second(now).unwrap();
            for (name, state) in edit {
                states[name] = state;
            }
            let next = look(&states);
            let documents: Vec<_> = next.documents.iter().collect();
            let inputs =
                Inputs { documents: &documents, refused: &next.refused, kept_files: &next.kept };
            let (whole, remembered) = assemble(&inputs, &memory, at, &mut || "u".into());
            let mut objects: BTreeSet<&ObjectRef> =
                read.documents.iter().chain(&next.documents).map(|it| &it.reference).collect();
            objects.extend(read.refused.iter().chain(&next.refused).map(|(object, _)| object));
            let sight = |object: &ObjectRef| {
                let own: Vec<_> =
                    next.documents.iter().filter(|it| it.reference == *object).collect();
                match own.as_slice() {
                    [document] => Sight::Document(document),
                    [] if next.refused.iter().any(|(it, _)| it == object) => Sight::Stays,
                    _ => Sight::Gone,
                }
            };
            let changed = objects.into_iter().filter(|object| object.name.starts_with('v'));
            let edits: Vec<_> =
                changed.map(|object| (object.clone(), sight(object))).collect();
            let revised = revise(&before, &memory, &edits, at, &mut || "u".into());
            let (revised, own) = revised.unwrap();
            prop_assert_eq!(in_force(&revised), in_force(&whole));
            prop_assert_eq!(&revised.snapshot, &whole.snapshot);
            prop_assert_eq!(&own, &remembered);
            prop_assert_eq!(&revised.relays, &whole.relays);
            (before, memory, read) = (revised, own, next);
        }
    }
}
