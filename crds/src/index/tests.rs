use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};
use tidegate_draw::cases;

use super::*;
use crate::manifest::{Kind, Object};

const KEYS: [&str; 3] = [
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOBZx8GNudT4wBGZ3qbA4EMt1CyfmYJ2HHAdXkxh2Y/d",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAWeM//Go868wg/3b6k2nOnHVoKBcU9EBLs1mt5bLc3x",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFAIIYRY7fwsiYzj9JbMpYWCbbluwzZH4xVEuyDuY3Dd",
];

fn label(text: &str) -> Label {
    Label::parse(text).unwrap()
}

fn home() -> ObjectKey {
    ObjectKey { namespace: label("fleet"), name: label("prod") }
}

fn decode(value: &Value) -> Object {
    let kind = value["kind"].as_str().unwrap();
    let kind = Kind::own(kind).unwrap_or(Kind::Namespace);
    Object::decode(kind, value).unwrap()
}

fn object(kind: &str, namespace: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "tidegate.dev/v1alpha1", "kind": kind,
        "metadata": {
            "name": name, "namespace": namespace, "uid": format!("{kind}-{namespace}-{name}"),
            "generation": 1, "creationTimestamp": "2026-11-01T00:00:00Z",
        },
        "spec": spec,
    })
}

fn mesh(namespace: &str, name: &str, tenants: Option<&str>) -> Value {
    let tenants = tenants
        .map(|mesh| json!({"from": "Selector", "selector": {"matchLabels": {"mesh": mesh}}}));
    let mut spec = json!({"domain": "support.example.com"});
    if let Some(tenants) = tenants {
        spec["tenants"] = tenants;
    }
    object("Mesh", namespace, name, &spec)
}

fn namespace(name: &str, mesh: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"mesh": mesh}}})
}

fn user(namespace: &str, name: &str, keys: &[&str]) -> Value {
    object("LoginUser", namespace, name, &json!({"publicKeys": keys, "groups": ["tier2"]}))
}

fn terminal(namespace: &str, name: &str, keys: &[&str], port: u16) -> Value {
    let services = json!([{"name": "ssh", "port": 22, "listenPort": port}]);
    let mut terminal =
        object("Terminal", namespace, name, &json!({"publicKeys": keys, "services": services}));
    terminal["metadata"]["labels"] = json!({"site": "berlin"});
    terminal
}

fn window(namespace: &str, name: &str, users: &Value, terminals: &Value) -> Value {
    object(
        "SupportWindow",
        namespace,
        name,
        &json!({
            "users": users, "terminals": terminals, "services": ["ssh"],
            "consent": "NotRequired",
            "schedule": {"once": {"start": "2026-11-23T09:00:00Z", "end": "2026-11-23T11:00:00Z"}},
        }),
    )
}

/// As the operator writes it.
fn accepted(mut value: Value, accepted: bool) -> Value {
    let generation = value["metadata"]["generation"].clone();
    let kind = if value["kind"] == "Mesh" { "Ready" } else { "Accepted" };
    value["status"]["conditions"] = json!([{
        "type": kind, "status": if accepted { "True" } else { "False" },
        "reason": "x", "message": "", "lastTransitionTime": "2026-11-01T00:00:00Z",
        "observedGeneration": generation,
    }]);
    value
}

fn index(values: &[Value]) -> Index {
    let mut index = Index::new(home());
    for value in values {
        let _ = index.put(&decode(value));
    }
    index
}

fn of(kind: Kind, namespace: &str, name: &str) -> ObjectRef {
    ObjectRef { kind, namespace: namespace.into(), name: name.into() }
}

fn base() -> Vec<Value> {
    vec![
        mesh("fleet", "prod", Some("prod")),
        namespace("fleet", ""),
        namespace("acme", "prod"),
        namespace("bolt", "prod"),
    ]
}

#[test]
fn nothing_is_in_force_without_its_mesh() {
    let mut index = index(&[
        user("fleet", "alice", &KEYS[..1]),
        namespace("acme", "prod"),
        terminal("acme", "kiosk", &KEYS[1..2], 1),
    ]);
    assert_eq!(index.snapshot(), None);
    let change = index.put(&decode(&mesh("fleet", "prod", Some("prod"))));
    assert!(change.snapshot);
    assert!(change.touched.contains(&of(Kind::Terminal, "acme", "kiosk")));
    let snapshot = index.snapshot().unwrap();
    assert_eq!((snapshot.users().count(), snapshot.terminals().count()), (1, 1));
    assert!(index.remove(&of(Kind::Mesh, "fleet", "prod")).snapshot);
    assert_eq!(index.snapshot(), None);
}

#[test]
fn a_contested_value_is_nobodys_until_one_is_accepted() {
    let (one, two) =
        (terminal("acme", "one", &KEYS[..1], 7), terminal("bolt", "two", &KEYS[1..2], 7));
    let mut index = index(&[base(), vec![one.clone()]].concat());
    let (first, second) = (of(Kind::Terminal, "acme", "one"), of(Kind::Terminal, "bolt", "two"));
    assert_eq!(index.verdict(&first), Verdict::InForce);
    let change = index.put(&decode(&two));
    assert!(change.snapshot && change.touched.contains(&first) && change.touched.contains(&second));
    assert_eq!(index.snapshot().unwrap().terminals().count(), 0);
    let contested = |with: &ObjectRef, held| Verdict::Contested {
        field: "spec.services[0].listenPort".into(),
        claim: "the listen port 7".into(),
        with: vec![with.clone()],
        held,
    };
    assert_eq!(index.verdict(&first), contested(&second, false));
    let _ = index.put(&decode(&accepted(one.clone(), true)));
    assert_eq!(index.verdict(&first), Verdict::InForce);
    assert_eq!(index.verdict(&second), contested(&first, true));
    // Two that are both said to have it have nothing.
    let _ = index.put(&decode(&accepted(two.clone(), true)));
    assert_eq!(index.verdict(&first), contested(&second, false));
    // Accepted long ago, and edited since.
    let mut edited = accepted(two, true);
    edited["metadata"]["generation"] = json!(2);
    let _ = index.put(&decode(&edited));
    assert_eq!(index.verdict(&first), Verdict::InForce);
}

/// A status as of a generation that was accepted once.
fn holding(value: Value, wants: &Index) -> Value {
    let generation = value["metadata"]["generation"].as_i64().unwrap();
    let mut value = accepted(value, true);
    let holds = claims::holds(wants.wants(&reference_of(&value)), generation);
    value["status"]["holds"] = serde_json::to_value(holds).unwrap();
    value
}

/// An edit that nobody has looked at yet.
fn edited(value: &Value, edit: impl FnOnce(&mut Value)) -> Value {
    let mut value = value.clone();
    let generation = value["metadata"]["generation"].as_i64().unwrap();
    value["metadata"]["generation"] = json!(generation + 1);
    edit(&mut value["spec"]);
    value
}

#[test]
fn an_edit_that_does_not_compile_gives_nothing_to_a_rival() {
    // Invariants 1 and 5: the other tenant waits for the key to come free.
    let own = terminal("acme", "kiosk", &KEYS[..1], 7);
    let thief = terminal("bolt", "thief", &KEYS[..1], 8);
    let (victim, rival) =
        (of(Kind::Terminal, "acme", "kiosk"), of(Kind::Terminal, "bolt", "thief"));
    let mut index = index(&[base(), vec![own.clone()]].concat());
    let own = holding(own, &index);
    let _ = index.put(&decode(&own));
    let _ = index.put(&decode(&accepted(thief.clone(), false)));
    let key = index.wants(&victim).iter().find(|claim| matches!(claim, Claim::Key(_)));
    let refused = Acceptance::Refused { claim: key.unwrap().clone(), holder: victim.clone() };
    let bad = edited(&own, |spec| spec["publicKeys"] = json!(["ssh-rsa AAAA"]));
    let named_alike = terminal("bolt", "kiosk", &KEYS[1..2], 9);
    let _ = index.put(&decode(&named_alike));
    for unreadable in [false, true] {
        let change = if unreadable {
            let _ = index.put(&decode(&own));
            index.put_unreadable(&victim, "expected a string", &Remains::of(&own))
        } else {
            index.put(&decode(&bad))
        };
        assert!(change.snapshot);
        assert!(matches!(index.verdict(&victim), Verdict::Invalid(_)));
        assert_eq!(index.wants(&victim), []);
        assert_eq!(index.snapshot().unwrap().terminals().count(), 0);
        assert!(
            matches!(index.verdict(&rival), Verdict::Contested { with, held: true, .. } if with == [victim.clone()])
        );
        assert_eq!(index.acceptance(&rival)[1], (rival.clone(), refused.clone()));
        assert!(index.acceptance(&victim).iter().all(|(object, _)| *object != victim));
        assert!(matches!(
            index.verdict(&reference_of(&named_alike)),
            Verdict::Contested { held: true, .. }
        ));
    }
    // What is good again has what it had; what is gone has nothing.
    let _ = index.put(&decode(&own));
    assert_eq!(index.verdict(&victim), Verdict::InForce);
    let _ = index.put(&decode(&bad));
    let _ = index.remove(&victim);
    assert_eq!(index.verdict(&rival), Verdict::InForce);
    // What never held anything keeps nothing from anyone.
    let mut squatter = bad;
    squatter.as_object_mut().unwrap().remove("status");
    let _ = index.put(&decode(&squatter));
    let _ = index.put_unreadable(&victim, "expected a string", &Remains::default());
    assert_eq!(index.verdict(&rival), Verdict::InForce);
    assert_eq!(index.verdict(&reference_of(&named_alike)), Verdict::InForce);
}

#[test]
fn an_edit_that_nobody_has_looked_at_yet_loses_nothing() {
    let one = terminal("acme", "one", &KEYS[..1], 7);
    let two = terminal("bolt", "two", &KEYS[1..2], 7);
    let mut index = index(&[base(), vec![one.clone()]].concat());
    let one = holding(one, &index);
    for value in [&one, &accepted(two.clone(), false)] {
        let _ = index.put(&decode(value));
    }
    let (first, second) = (reference_of(&one), reference_of(&two));
    let edit = |spec: &mut Value| spec["services"][0]["port"] = json!(2222);
    let _ = index.put(&decode(&edited(&one, edit)));
    assert_eq!(index.verdict(&first), Verdict::InForce);
    assert!(matches!(index.verdict(&second), Verdict::Contested { held: true, .. }));
    // What it wants besides is not its yet, and what it had is nobody else's.
    let more = terminal("bolt", "three", &KEYS[2..], 9);
    let _ = index.put(&decode(&accepted(more, true)));
    let _ = index.put(&decode(&edited(&one, |spec| {
        spec["services"] = json!([
            {"name": "ssh", "port": 22, "listenPort": 7},
            {"name": "web", "port": 80, "listenPort": 9},
        ]);
    })));
    assert!(matches!(index.verdict(&first), Verdict::Contested { held: true, .. }));
    assert!(matches!(index.verdict(&second), Verdict::Contested { held: true, .. }));
    // What it wants no more is free.
    let free = |spec: &mut Value| spec["services"][0]["listenPort"] = json!(10);
    let _ = index.put(&decode(&edited(&one, free)));
    assert_eq!(index.verdict(&second), Verdict::InForce);
}

#[test]
fn a_mesh_whose_edit_nobody_has_looked_at_yet_keeps_its_namespaces() {
    let ours = accepted(mesh("fleet", "prod", Some("prod")), true);
    let theirs = mesh("other", "test", Some("prod"));
    let mut index =
        index(&[ours.clone(), accepted(theirs.clone(), false), namespace("acme", "prod")]);
    assert!(index.serves("acme"));
    let edit = |spec: &mut Value| spec["maxPolicyAge"] = json!("6m");
    let ours = edited(&ours, edit);
    let _ = index.put(&decode(&ours));
    assert!(index.serves("acme"));
    // Two that were Ready once: neither. One that is Ready now: that one.
    let _ = index.put(&decode(&edited(&accepted(theirs.clone(), true), edit)));
    assert!(!index.serves("acme"));
    let _ = index.put(&decode(&accepted(ours, true)));
    assert!(index.serves("acme"));
    let _ = index.put(&decode(&accepted(theirs, true)));
    assert!(!index.serves("acme"));
}

#[test]
fn a_namespace_that_two_meshes_select_is_the_ready_ones() {
    let ours = mesh("fleet", "prod", Some("prod"));
    let theirs = mesh("other", "test", Some("prod"));
    let mut index = index(&[
        ours.clone(),
        theirs.clone(),
        namespace("acme", "prod"),
        namespace("other", "prod"),
    ]);
    assert!(!index.serves("acme") && !index.serves("other") && index.serves("fleet"));
    let _ = index.put(&decode(&accepted(ours.clone(), true)));
    assert!(index.serves("acme") && !index.serves("other"));
    let _ = index.put(&decode(&accepted(theirs.clone(), true)));
    assert!(!index.serves("acme"));
    let _ = index.put(&decode(&accepted(theirs, false)));
    assert!(index.serves("acme"));
    // A second Mesh in our own namespace, while neither is Ready.
    let _ = index.put(&decode(&ours));
    let _ = index.put(&decode(&mesh("fleet", "second", None)));
    assert_eq!(index.snapshot(), None);
    let _ = index.put(&decode(&accepted(ours, true)));
    assert!(index.snapshot().is_some());
}

#[test]
fn what_is_bad_is_out_of_force_and_nothing_else_is() {
    let good = window("acme", "w", &json!({"names": ["alice"]}), &json!({"names": ["kiosk"]}));
    let mut index = index(&[base(), vec![good.clone()]].concat());
    let reference = of(Kind::SupportWindow, "acme", "w");
    assert!(
        matches!(index.verdict(&reference), Verdict::Unresolved(missing) if missing.len() == 2)
    );
    let mut bad = good.clone();
    bad["spec"]["services"] = json!(["SSH"]);
    assert!(index.put(&decode(&bad)).snapshot);
    assert!(matches!(index.verdict(&reference), Verdict::Invalid(_)));
    assert_eq!(index.refusals(&reference)[0].field, "spec.services[0]");
    assert_eq!(index.snapshot().unwrap().windows().count(), 0);
    let _ = index.put(&decode(&good));
    assert!(index.put_unreadable(&reference, "expected a string", &Remains::of(&good)).snapshot);
    assert!(matches!(index.verdict(&reference), Verdict::Invalid(_)));
    assert!(index.put(&decode(&good)).snapshot);
    // A status alone changes nothing.
    assert!(!index.put(&decode(&accepted(good, true))).snapshot);
}

#[test]
fn a_list_that_does_not_show_an_object_removes_it() {
    let terminals = json!({"names": ["kiosk"]});
    let alice = json!({"names": ["alice"]});
    let window = |namespace, name| window(namespace, name, &alice, &terminals);
    let mut index = index(
        &[base(), vec![window("acme", "a"), window("acme", "b"), window("bolt", "a")]].concat(),
    );
    let seen = BTreeSet::from([of(Kind::SupportWindow, "acme", "a")]);
    assert!(index.retain(Kind::SupportWindow, Some("acme"), &seen).snapshot);
    assert_eq!(index.objects(Kind::SupportWindow).len(), 2);
    assert!(index.retain(Kind::SupportWindow, None, &seen).snapshot);
    assert_eq!(index.objects(Kind::SupportWindow), seen);
    assert_eq!(index.retain(Kind::SupportWindow, None, &seen), Change::default());
}

#[test]
fn changes_name_the_windows_that_refer_to_them() {
    let mut index = index(&base());
    index.trace(true);
    let all = [
        window("acme", "by-name", &json!({"names": ["alice"]}), &json!({"names": ["kiosk"]})),
        window(
            "acme",
            "by-others",
            &json!({"groups": ["tier2"]}),
            &json!({"selector": {"matchLabels": {"site": "berlin"}}}),
        ),
    ];
    for window in &all {
        let _ = index.put(&decode(window));
    }
    let windows: Vec<_> = index.objects(Kind::SupportWindow).into_iter().collect();
    let alice = index.put(&decode(&user("fleet", "alice", &KEYS[..1])));
    assert_eq!(alice.windows, windows);
    let kiosk = index.put(&decode(&terminal("acme", "kiosk", &KEYS[1..2], 1)));
    assert_eq!(kiosk.windows, windows);
    for window in &windows {
        assert_eq!(index.verdict(window), Verdict::InForce);
    }
    let mut moved = terminal("acme", "kiosk", &KEYS[1..2], 1);
    moved["metadata"]["labels"] = json!({});
    assert_eq!(index.put(&decode(&moved)).windows, windows);
    assert!(matches!(index.verdict(&windows[1]), Verdict::Unresolved(_)));
    assert_eq!(index.remove(&of(Kind::LoginUser, "fleet", "alice")).windows, windows);
}

/// The least time that a change of one window takes among `count` of them, and of one user and terminal
/// that none of them names.
#[expect(clippy::disallowed_methods, reason = "a test that measures needs a clock")]
fn cost(count: usize) -> std::time::Duration {
    let users = json!({"names": ["alice"]});
    let one = window("acme", "w", &users, &json!({"names": ["kiosk"]}));
    let mut index = index(&[base(), vec![one.clone()]].concat());
    let key = ObjectKey { namespace: label("acme"), name: label("w") };
    let compiled = Arc::clone(index.window(&key).unwrap());
    for n in 0..count {
        let mut window = (*compiled).clone();
        window.meta.key.name = label(&format!("w{n}"));
        let object = apply::reference(Kind::SupportWindow, &window.meta.key);
        index.replace_window(&object, Some(window), &mut Change::default());
    }
    let mut other = one.clone();
    other["spec"]["users"] = json!({"names": ["bob"]});
    let objects = [one, other].map(|window| decode(&window));
    let people = [
        decode(&user("fleet", "carol", &KEYS[..1])),
        decode(&user("fleet", "carol", &KEYS[1..2])),
        decode(&terminal("bolt", "till", &KEYS[2..], 1)),
        decode(&terminal("bolt", "till", &KEYS[2..], 2)),
    ];
    let mut best = std::time::Duration::MAX;
    for _ in 0..20 {
        // What somebody still reads makes the next change copy what it touches.
        let snapshot = index.snapshot();
        let begun = std::time::Instant::now();
        for object in objects.iter().chain(&people) {
            let _ = index.put(object);
        }
        best = best.min(begun.elapsed());
        drop(snapshot);
    }
    best
}

#[test]
fn one_change_costs_the_same_among_many() {
    let (few, many) = (cost(100), cost(20_000));
    // A look at every window would be 200 times as much.
    assert!(many < few * 20, "{few:?} among 100, {many:?} among 20,000");
}

/// What may happen to one object.
#[derive(Clone, Debug)]
enum Step {
    Put(Value),
    /// It is there and cannot be decoded.
    Spoil(ObjectRef),
    Remove(ObjectRef),
}

fn reference_of(value: &Value) -> ObjectRef {
    decode(value).reference()
}

fn keys() -> impl Strategy<Value = Vec<&'static str>> {
    prop::sample::subsequence(KEYS.to_vec(), 1..=2)
}

fn tenant() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["fleet", "acme", "bolt", "other"])
}

fn anything() -> impl Strategy<Value = Value> {
    let status = prop::option::of(any::<bool>());
    let generation = 1..3_i64;
    let kinds = prop_oneof![
        2 => (prop::sample::select(vec![("fleet", "prod"), ("fleet", "second"), ("other", "test")]),
            prop::sample::select(vec![None, Some("prod"), Some("test"), Some("-bad-")]))
            .prop_map(|((namespace, name), tenants)| mesh(namespace, name, tenants)),
        2 => (tenant(), prop::sample::select(vec!["prod", "test", ""]))
            .prop_map(|(name, mesh)| namespace(name, mesh)),
        3 => (tenant(), prop::sample::select(vec!["alice", "bob", "root"]), keys())
            .prop_map(|(namespace, name, keys)| user(namespace, name, &keys)),
        4 => (tenant(), prop::sample::select(vec!["kiosk", "till", "relay"]), keys(), 1..4_u16)
            .prop_map(|(namespace, name, keys, port)| terminal(namespace, name, &keys, port)),
        3 => (tenant(), prop::sample::select(vec!["w1", "w2"]),
            prop::sample::select(vec![
                json!({"names": ["alice"]}), json!({"groups": ["tier2"]}), json!({"names": ["bob.acme"]}),
            ]),
            prop::sample::select(vec![
                json!({"names": ["kiosk"]}), json!({"selector": {"matchLabels": {"site": "berlin"}}}),
            ]))
            .prop_map(|(namespace, name, users, terminals)| window(namespace, name, &users, &terminals)),
    ];
    (kinds, status, generation, 1..9_u32).prop_map(|(mut value, status, generation, day)| {
        value["metadata"]["generation"] = json!(generation);
        value["metadata"]["creationTimestamp"] = json!(format!("2026-11-0{day}T00:00:00Z"));
        match status {
            Some(status) if value["kind"] != "Namespace" && value["kind"] != "SupportWindow" => {
                let mut value = accepted(value, status);
                // Sometimes of another generation.
                value["metadata"]["generation"] = json!(1 + generation % 2);
                value
            }
            _ => value,
        }
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (anything(), 0..4).prop_map(|(value, what)| {
        if what == 0 { Step::Remove(reference_of(&value)) } else { Step::Put(value) }
    });
    prop::collection::vec(step, 1..40)
}

/// Steps of which some leave a user or terminal there that is in no order.
fn edits() -> impl Strategy<Value = Vec<Step>> {
    let step = (anything(), 0..8).prop_map(|(mut value, what)| {
        let object = reference_of(&value);
        let people = matches!(object.kind, Kind::LoginUser | Kind::Terminal);
        match what {
            0 | 1 => Step::Remove(object),
            2 if people => Step::Spoil(object),
            3 if people => {
                value["spec"]["publicKeys"] = json!(["ssh-rsa AAAA"]);
                Step::Put(value)
            }
            _ => Step::Put(value),
        }
    });
    prop::collection::vec(step, 1..40)
}

type World = BTreeMap<ObjectRef, Value>;

fn take(index: &mut Index, world: &mut World, step: &Step) -> Change {
    match step {
        Step::Put(value) => {
            world.insert(reference_of(value), value.clone());
            index.put(&decode(value))
        }
        Step::Spoil(object) => {
            if let Some(value) = world.get_mut(object) {
                *value = edited(value, |spec| *spec = json!("spoiled"));
            }
            let remains = world.get(object).map(Remains::of).unwrap_or_default();
            index.put_unreadable(object, "expected a string", &remains)
        }
        Step::Remove(object) => {
            world.remove(object);
            index.remove(object)
        }
    }
}

/// What is in force by the definition, looked at from nothing.
fn plain(world: &World) -> BTreeSet<ObjectRef> {
    let index = index(&world.values().cloned().collect::<Vec<_>>());
    let good: Vec<&ObjectRef> = world
        .keys()
        .filter(|o| matches!(o.kind, Kind::LoginUser | Kind::Terminal))
        .filter(|o| index.refusals(o).is_empty() && index.serves(&o.namespace))
        .collect();
    let accepted = |object: &ObjectRef| {
        let value = &world[object];
        let condition = &value["status"]["conditions"][0];
        condition["status"] == "True"
            && condition["observedGeneration"] == value["metadata"]["generation"]
    };
    // What is bad wants what it holds.
    let bad: Vec<&ObjectRef> = world
        .keys()
        .filter(|o| !index.refusals(o).is_empty() && index.serves(&o.namespace))
        .collect();
    let has = |object: &ObjectRef| {
        index.wants(object).iter().all(|claim| {
            let rivals: Vec<&ObjectRef> = good
                .iter()
                .filter(|other| index.wants(other).contains(claim))
                .chain(bad.iter().filter(|other| index.holds(other).contains(claim)))
                .copied()
                .collect();
            let accepted: Vec<_> = rivals.iter().filter(|o| accepted(o)).collect();
            let holding: Vec<_> =
                rivals.iter().filter(|o| index.holds(o).contains(claim)).collect();
            let best = if accepted.is_empty() { holding } else { accepted };
            rivals.len() == 1 || (best.len() == 1 && **best[0] == *object)
        })
    };
    good.iter().filter(|object| has(object)).map(|object| (*object).clone()).collect()
}

fn in_force(index: &Index, world: &World) -> BTreeSet<ObjectRef> {
    let people = world.keys().filter(|o| matches!(o.kind, Kind::LoginUser | Kind::Terminal));
    people.filter(|object| index.verdict(object) == Verdict::InForce).cloned().collect()
}

fn check_snapshot(index: &Index, world: &World) -> Result<(), TestCaseError> {
    let Some(snapshot) = index.snapshot() else { return Ok(()) };
    let own = |kind, meta: &model::Meta| apply::reference(kind, &meta.key);
    let held: BTreeSet<ObjectRef> = snapshot
        .users()
        .map(|user| own(Kind::LoginUser, &user.meta))
        .chain(snapshot.terminals().map(|terminal| own(Kind::Terminal, &terminal.meta)))
        .collect();
    prop_assert_eq!(&held, &in_force(index, world));
    let mut claims = BTreeSet::new();
    for claim in held.iter().flat_map(|object| index.wants(object)) {
        prop_assert!(claims.insert(claim), "{} is in force twice", claim);
    }
    for window in snapshot.windows() {
        let namespace = &window.meta.key.namespace;
        prop_assert!(index.serves(namespace.as_str()));
        for terminal in snapshot.terminals_of_window(window) {
            prop_assert_eq!(&terminal.meta.key.namespace, namespace);
        }
        for user in snapshot.users_of_window(window) {
            let at = &user.meta.key.namespace;
            prop_assert!(at == namespace || at.as_str() == "fleet");
        }
    }
    Ok(())
}

/// An object as an API server has it, decodable or not.
fn arrive(index: &mut Index, value: &Value) -> Change {
    let kind = Kind::own(value["kind"].as_str().unwrap()).unwrap_or(Kind::Namespace);
    match Object::decode(kind, value) {
        Ok(object) => index.put(&object),
        Err(error) => {
            let text = |field: &str| value["metadata"][field].as_str().unwrap_or_default().into();
            let object = ObjectRef { kind, namespace: text("namespace"), name: text("name") };
            index.put_unreadable(&object, error.to_string(), &Remains::of(value))
        }
    }
}

/// The operator's part: gives its word until nobody's is another.
fn operate(index: &mut Index, world: &mut World) {
    for _ in 0..50 {
        let mut settled = true;
        let people: Vec<_> = world
            .keys()
            .filter(|o| matches!(o.kind, Kind::LoginUser | Kind::Terminal))
            .cloned()
            .collect();
        for object in people {
            let own = index.acceptance(&object).into_iter().find(|(other, _)| *other == object);
            let good = index.refusals(&object).is_empty() && index.serves(&object.namespace);
            let yes = good && own.is_none_or(|(_, outcome)| outcome == Acceptance::Accepted);
            let value = &world[&object];
            let generation = value["metadata"]["generation"].as_i64().unwrap();
            let before = value["status"].get("holds").cloned();
            let before = before.map(|holds| serde_json::from_value(holds).unwrap());
            let mut next = accepted(value.clone(), yes);
            match index.holds_once(&object, yes, generation, before.as_ref()) {
                Some(holds) => next["status"]["holds"] = serde_json::to_value(holds).unwrap(),
                None => drop(next["status"].as_object_mut().unwrap().remove("holds")),
            }
            if next != *value {
                settled = false;
                let _ = arrive(index, &next);
                world.insert(object, next);
            }
        }
        if settled {
            return;
        }
    }
    panic!("the operator never comes to an end");
}

#[test]
fn one_that_could_never_be_decoded_keeps_what_it_holds() {
    let own = terminal("acme", "kiosk", &KEYS[..1], 7);
    let own = holding(own.clone(), &index(&[base(), vec![own]].concat()));
    let victim = reference_of(&own);
    let rivals = [
        user("bolt", "by-key", &KEYS[..1]),
        terminal("bolt", "by-port", &KEYS[1..2], 7),
        terminal("bolt", "kiosk", &KEYS[2..], 9),
    ];
    let newer = |edit: &dyn Fn(&mut Value)| {
        let mut value = edited(&own, |spec| *spec = json!("of another version"));
        edit(&mut value["status"]);
        value
    };
    for (said, status) in [
        newer(&|_| {}),
        // Its status cannot be decoded either, but for what it holds.
        newer(&|status| status["enforcedBy"] = json!("Somebody")),
        newer(&|status| status["holds"]["keys"].as_array_mut().unwrap().push(json!(7))),
    ]
    .into_iter()
    .enumerate()
    {
        for first in [true, false] {
            let mut index = index(&base());
            if first {
                let _ = arrive(&mut index, &status);
            }
            for rival in &rivals {
                let _ = index.put(&decode(rival));
            }
            if !first {
                let _ = arrive(&mut index, &status);
            }
            for rival in &rivals {
                let rival = reference_of(rival);
                let verdict = index.verdict(&rival);
                let kept = matches!(&verdict, Verdict::Contested { with, held: true, .. } if *with == [victim.clone()]);
                assert!(kept, "{said}: {rival} is {verdict:?}");
                let own = index.acceptance(&rival).into_iter().find(|(o, _)| *o == rival);
                assert!(matches!(own, Some((_, Acceptance::Refused { .. }))), "{own:?}");
            }
            let snapshot = index.snapshot().unwrap();
            assert_eq!((snapshot.users().count(), snapshot.terminals().count()), (0, 0));
        }
    }
    // Nothing is known of its status: it keeps what it was last known to hold, and no more.
    let mut index = index(&base());
    let _ = index.put(&decode(&own));
    let nothing = newer(&|status| *status = json!("?"));
    let _ = arrive(&mut index, &nothing);
    let _ = index.put(&decode(&rivals[0]));
    assert!(matches!(index.verdict(&reference_of(&rivals[0])), Verdict::Contested { .. }));
    // It was never accepted: it keeps nothing from anyone.
    let _ =
        arrive(&mut index, &newer(&|status| drop(status.as_object_mut().unwrap().remove("holds"))));
    assert_eq!(index.verdict(&reference_of(&rivals[0])), Verdict::InForce);
}

/// A world that the operator has looked at.
fn settled(values: &[Value]) -> (Index, World) {
    let (mut index, mut world) = (Index::new(home()), World::new());
    for value in values {
        put(&mut index, &mut world, value);
    }
    (index, world)
}

/// Applies an object as a person does, and lets the operator look.
fn put(index: &mut Index, world: &mut World, value: &Value) {
    let mut value = value.clone();
    if let Some(old) = world.get(&reference_of(&value)) {
        value["status"] = old["status"].clone();
        let generation = old["metadata"]["generation"].as_i64().unwrap_or(1);
        value["metadata"]["generation"] =
            json!(generation + i64::from(old["spec"] != value["spec"]));
    }
    let _ = take(index, world, &Step::Put(value));
    operate(index, world);
}

/// An edit that changes nothing that another could want.
fn harmless(world: &World, object: &ObjectRef) -> Value {
    edited(&world[object], |spec| spec["suspend"] = json!(true))
}

#[test]
fn what_a_refused_one_has_given_up_is_no_claim_for_ever() {
    // The elder gives its key up by an edit that is refused for another reason: the key is free.
    let elder = terminal("acme", "elder", &KEYS[..1], 1);
    let other = terminal("bolt", "other", &KEYS[1..2], 2);
    let (mut index, mut world) = settled(&[base(), vec![elder.clone(), other]].concat());
    put(&mut index, &mut world, &terminal("acme", "elder", &KEYS[2..], 2));
    let mut younger = terminal("bolt", "younger", &KEYS[..1], 3);
    younger["metadata"]["creationTimestamp"] = json!("2026-11-20T00:00:00Z");
    let (first, second) = (reference_of(&elder), reference_of(&younger));
    assert_eq!(world[&first]["status"]["conditions"][0]["status"], "False");
    assert_eq!(world[&first]["status"]["holds"].get("keys"), None, "it wants its key no more");
    put(&mut index, &mut world, &younger);
    assert_eq!(index.verdict(&second), Verdict::InForce);
    // It wants its key back, and is too late, also when the new owner is edited.
    put(&mut index, &mut world, &elder);
    assert!(matches!(index.verdict(&first), Verdict::Contested { held: true, .. }));
    let edited = harmless(&world, &second);
    let _ = take(&mut index, &mut world, &Step::Put(edited));
    assert_eq!(index.verdict(&second), Verdict::InForce, "before anyone has looked at the edit");
    operate(&mut index, &mut world);
    assert_eq!(index.verdict(&second), Verdict::InForce);
    assert!(matches!(index.verdict(&first), Verdict::Contested { held: true, .. }));
}

#[test]
fn one_that_comes_back_to_the_mesh_takes_nothing_from_who_came_meanwhile() {
    for spoiled in [false, true] {
        let elder = terminal("acme", "kiosk", &KEYS[..1], 1);
        let (mut index, mut world) = settled(&[base(), vec![elder.clone()]].concat());
        put(&mut index, &mut world, &namespace("acme", ""));
        let rivals = [
            user("bolt", "by-key", &KEYS[..1]),
            terminal("bolt", "by-port", &KEYS[1..2], 1),
            terminal("bolt", "kiosk", &KEYS[2..], 3),
        ];
        for mut rival in rivals.clone() {
            rival["metadata"]["creationTimestamp"] = json!("2026-11-20T00:00:00Z");
            put(&mut index, &mut world, &rival);
        }
        if spoiled {
            let _ = take(&mut index, &mut world, &Step::Spoil(reference_of(&elder)));
        }
        put(&mut index, &mut world, &namespace("acme", "prod"));
        for rival in rivals.iter().map(reference_of) {
            assert_eq!(index.verdict(&rival), Verdict::InForce, "{rival}");
            let edited = harmless(&world, &rival);
            let _ = take(&mut index, &mut world, &Step::Put(edited));
            assert_eq!(index.verdict(&rival), Verdict::InForce, "{rival}");
            operate(&mut index, &mut world);
            assert_eq!(index.verdict(&rival), Verdict::InForce, "{rival}");
        }
        assert_ne!(index.verdict(&reference_of(&elder)), Verdict::InForce);
    }
}

#[test]
fn a_spec_that_does_not_compile_gives_nothing_up() {
    // A slip of the pen: nobody knows which key was meant.
    let own = terminal("acme", "kiosk", &KEYS[..1], 1);
    let (mut index, mut world) = settled(&[base(), vec![own.clone()]].concat());
    let mut slip = terminal("acme", "kiosk", &["ssh-ed25519 AAAA"], 2);
    slip["spec"]["suspend"] = json!(false);
    put(&mut index, &mut world, &slip);
    let held = world[&reference_of(&own)]["status"]["holds"].clone();
    assert_eq!((held["keys"].as_array().unwrap().len(), &held["listenPorts"]), (1, &json!([1])));
    put(&mut index, &mut world, &user("bolt", "thief", &KEYS[..1]));
    put(&mut index, &mut world, &terminal("bolt", "squatter", &KEYS[1..2], 1));
    put(&mut index, &mut world, &own);
    assert_eq!(index.verdict(&reference_of(&own)), Verdict::InForce);
    assert_eq!(in_force(&index, &world), BTreeSet::from([reference_of(&own)]));
}

#[test]
fn a_mesh_whose_key_is_lost_keeps_its_namespaces() {
    let mut ours = accepted(mesh("fleet", "prod", Some("prod")), false);
    let theirs = accepted(mesh("other", "test", Some("prod")), true);
    let edited = edited(&theirs, |spec| spec["maxPolicyAge"] = json!("6m"));
    let mut index = index(&[ours.clone(), edited.clone(), namespace("acme", "prod")]);
    assert!(!index.serves("acme"), "what another Mesh has is not ours");
    ours["status"]["conditions"][0]["reason"] = json!(crate::mesh::key_fault::MISSING);
    let _ = index.put(&decode(&ours));
    assert!(index.serves("acme"));
    // No Mesh is where no policy holds relays to their records.
    let exempt = object("Mesh", "kube-system", "prod", &json!({"domain": "support.example.com"}));
    let _ = index.put(&decode(&exempt));
    let reference = of(Kind::Mesh, "kube-system", "prod");
    assert_eq!(index.refusals(&reference)[0].reason, crate::compile::reason::NAMESPACE_RESERVED);
    assert_eq!(index.tenants().owner("kube-system"), Owner::Nobody);
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn the_order_never_matters(steps in steps(), seed in any::<u64>()) {
        let (mut index, mut world) = (Index::new(home()), World::new());
        let mut verdicts: BTreeMap<ObjectRef, Verdict> = BTreeMap::new();
        for step in &steps {
            let before = index.snapshot();
            let change = take(&mut index, &mut world, step);
            prop_assert!(change.snapshot || index.snapshot() == before);
            let idle = index.snapshot() == before && index.mesh.is_some();
            prop_assert!(!(change.snapshot && idle));
            // Whoever fares differently is named; what windows refer to is traced apart.
            for object in world.keys().filter(|o| o.kind != Kind::SupportWindow) {
                let now = index.verdict(object);
                let was = verdicts.insert(object.clone(), now.clone());
                let elsewhere = |v: &Verdict| matches!(v, Verdict::NotServed(_));
                let same = was.as_ref() == Some(&now) || was.as_ref().is_some_and(elsewhere) && elsewhere(&now);
                prop_assert!(same || change.touched.contains(object), "{}", object);
            }
            check_snapshot(&index, &world)?;
        }
        let mut shuffled: Vec<Value> = world.values().cloned().collect();
        shuffled.sort_by_key(|value| {
            use std::hash::{DefaultHasher, Hash as _, Hasher as _};
            let mut hasher = DefaultHasher::new();
            (seed, value.to_string()).hash(&mut hasher);
            hasher.finish()
        });
        let fresh = self::index(&shuffled);
        prop_assert_eq!(index.snapshot(), fresh.snapshot());
        for object in world.keys() {
            prop_assert_eq!(index.verdict(object), fresh.verdict(object));
        }
        for kind in Kind::OWN.into_iter().chain([Kind::Namespace]) {
            prop_assert_eq!(index.objects(kind), fresh.objects(kind));
        }
        prop_assert_eq!(in_force(&index, &world), plain(&world));
    }

    #[test]
    fn a_later_edit_takes_nothing_from_anyone(steps in edits()) {
        let (mut index, mut world) = (Index::new(home()), World::new());
        // What was in force when it was spoiled, as it was and with what it had.
        let mut spoiled: BTreeMap<ObjectRef, (Value, Vec<Claim>)> = BTreeMap::new();
        for step in &steps {
            let before: BTreeMap<_, _> = in_force(&index, &world)
                .into_iter()
                .map(|object| (object.clone(), world[&object].clone()))
                .collect();
            // The API server keeps what the operator wrote, and counts generations.
            let step = match step {
                Step::Spoil(object) if world.contains_key(object) => Step::Spoil(object.clone()),
                Step::Spoil(object) | Step::Remove(object) => Step::Remove(object.clone()),
                Step::Put(value) => {
                    let mut value = value.clone();
                    let people = matches!(reference_of(&value).kind, Kind::LoginUser | Kind::Terminal);
                    if let (true, Some(old)) = (people, world.get(&reference_of(&value))) {
                        let edited = i64::from(old["spec"] != value["spec"]);
                        let generation = old["metadata"]["generation"].as_i64().unwrap() + edited;
                        value["metadata"]["generation"] = json!(generation);
                        value["metadata"]["creationTimestamp"] = old["metadata"]["creationTimestamp"].clone();
                        value["status"] = old["status"].clone();
                    } else if people {
                        value.as_object_mut().unwrap().remove("status");
                    }
                    Step::Put(value)
                }
            };
            let changed = match &step {
                Step::Put(value) => reference_of(value),
                Step::Remove(object) | Step::Spoil(object) => object.clone(),
            };
            let had = index.wants(&changed).to_vec();
            let _ = take(&mut index, &mut world, &step);
            // What it has it keeps by an edit that wants no more, before anyone has looked and after.
            let edit = matches!(step, Step::Put(_)) && before.contains_key(&changed);
            let wants = index.wants(&changed);
            let keeps = edit && !wants.is_empty() && wants.iter().all(|claim| had.contains(claim));
            prop_assert!(!keeps || index.verdict(&changed) == Verdict::InForce, "{}", changed);
            operate(&mut index, &mut world);
            prop_assert!(!keeps || index.verdict(&changed) == Verdict::InForce, "{}", changed);
            // A relay that begins now finds the same, also of what it cannot decode.
            let mut fresh = Index::new(home());
            for value in world.values() {
                let _ = arrive(&mut fresh, value);
            }
            prop_assert_eq!(fresh.snapshot(), index.snapshot());
            // In force are exactly those that the operator accepted.
            let now = in_force(&index, &world);
            for object in world.keys().filter(|o| matches!(o.kind, Kind::LoginUser | Kind::Terminal)) {
                let own = index.acceptance(object).into_iter().find(|(other, _)| other == object);
                let accepted = own.is_some_and(|(_, outcome)| outcome == Acceptance::Accepted);
                prop_assert_eq!(accepted, now.contains(object), "{}", object);
            }
            if matches!(changed.kind, Kind::Mesh | Kind::Namespace) {
                spoiled.clear();
                continue;
            }
            if index.refusals(&changed).is_empty() {
                spoiled.remove(&changed);
            } else if let Some(was) = before.get(&changed) {
                spoiled.insert(changed.clone(), (was.clone(), had));
            }
            for (object, (was, had)) in &spoiled {
                for other in &now {
                    let taken = index.wants(other).iter().find(|claim| had.contains(claim));
                    prop_assert!(taken.is_none(), "{} took {:?} from {}", other, taken, object);
                }
                // As it was, it is in force again.
                let (mut index, mut world) = (index.clone(), world.clone());
                let mut again = edited(&world[object], |spec| *spec = was["spec"].clone());
                again["metadata"]["labels"] = was["metadata"]["labels"].clone();
                let _ = take(&mut index, &mut world, &Step::Put(again));
                operate(&mut index, &mut world);
                prop_assert_eq!(index.verdict(object), Verdict::InForce);
            }
            for object in before.keys().filter(|object| **object != changed) {
                prop_assert!(now.contains(object), "{} lost what it had to {}", object, changed);
            }
        }
    }
}
