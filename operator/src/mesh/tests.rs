//! The judge, and that operator and relays agree on whose each namespace is at every instant, whatever is
//! edited, said or restarted in whichever order.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value, json};
use tidegate_crds::index::{Index, Owner, Remains, Tenants, goes};
use tidegate_crds::manifest::{Kind, Object, ObjectRef};
use tidegate_crds::mesh::{NAMESPACE_TAKEN, key_fault};
use tidegate_draw::cases;

use super::*;
use crate::guarded::Unread;
use crate::watching::Change;
use crate::world::topology::Topology;

/// Meshes and namespaces as an API server has them.
#[derive(Clone, Default)]
struct Cluster {
    objects: BTreeMap<ObjectRef, Value>,
}

fn mesh_ref(namespace: &str, name: &str) -> ObjectRef {
    ObjectRef { kind: Kind::Mesh, namespace: namespace.into(), name: name.into() }
}

fn namespace_ref(name: &str) -> ObjectRef {
    ObjectRef { kind: Kind::Namespace, namespace: String::new(), name: name.into() }
}

/// A Mesh that selects the namespaces with the label `mesh=` of this value.
fn spec(domain: &str, label: Option<&str>) -> Value {
    let mut spec = json!({"domain": format!("{domain}.example.com")});
    if let Some(label) = label {
        let selector = json!({"matchLabels": {label: "yes"}});
        spec["tenants"] = json!({"from": "Selector", "selector": selector});
    }
    spec
}

impl Cluster {
    /// Applies a spec, as a person does.
    fn put(&mut self, object: &ObjectRef, age: u32, spec: &Value) {
        let new = json!({
            "apiVersion": "tidegate.dev/v1alpha1", "kind": "Mesh",
            "metadata": {
                "namespace": object.namespace, "name": object.name, "generation": 0,
                "uid": object.to_string(),
                "creationTimestamp": format!("2026-11-{:02}T00:00:00Z", 1 + age),
            },
        });
        let mesh = self.objects.entry(object.clone()).or_insert(new);
        if mesh.get("spec") != Some(spec) {
            let generation = mesh["metadata"]["generation"].as_i64().unwrap();
            mesh["metadata"]["generation"] = json!(generation + 1);
            mesh["spec"] = spec.clone();
        }
    }

    fn label(&mut self, name: &str, labels: &[&str]) {
        let labels: BTreeMap<&str, &str> = labels.iter().map(|label| (*label, "yes")).collect();
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels},
        });
        self.objects.insert(namespace_ref(name), namespace);
    }

    /// It is being deleted, and something holds it up.
    fn begin_deletion(&mut self, object: &ObjectRef) {
        if let Some(value) = self.objects.get_mut(object) {
            value["metadata"]["deletionTimestamp"] = json!("2026-11-20T00:00:00Z");
        }
    }

    /// What the watches of the operator know.
    fn known(&self) -> Known {
        let mut known = Known::default();
        known.mesh(Change::Begin);
        known.namespace(Change::Begin);
        for (object, value) in &self.objects {
            if object.kind == Kind::Namespace {
                known.namespace(Change::Put(serde_json::from_value(value.clone()).unwrap()));
                continue;
            }
            let key = Key::new(&object.namespace, &object.name);
            let deleting = value["metadata"].get("deletionTimestamp").is_some();
            let decoded = serde_json::from_value(value.clone()).ok();
            let unread = Unread { remains: Remains::of(value), bare: None };
            let unread = Box::new(unread);
            known.mesh(decoded.map_or(Change::Undecodable { key, deleting, unread }, Change::Put));
        }
        known.mesh(Change::Complete);
        known.namespace(Change::Complete);
        known
    }

    fn judge(&self, before: &Accepted) -> Judgement {
        let known = self.known();
        judge(&known.candidates(), &known.tenants(), before)
    }

    fn tenancy(&self) -> Tenancy {
        let known = self.known();
        Tenancy::of(&known.tenants(), &known.tenants_but_for_deletions())
    }

    /// Whose each namespace is, by the operator's Mesh controller.
    fn owners(&self) -> BTreeMap<String, String> {
        let all = self.tenancy().namespaces.into_iter();
        all.map(|(name, service)| (name, service.mesh.to_string())).collect()
    }

    /// The same, by a relay of each Mesh.
    fn at_relays(&self) -> BTreeMap<String, String> {
        let mut owners = BTreeMap::new();
        for home in self.objects.keys().filter(|object| object.kind == Kind::Mesh) {
            let key = full(&Key::new(&home.namespace, &home.name)).unwrap();
            let mut index = Index::new(key.clone());
            for (object, value) in &self.objects {
                let deleting = value["metadata"].get("deletionTimestamp").is_some();
                if goes(object.kind, deleting) {
                    continue;
                }
                let _ = match Object::decode(object.kind, value) {
                    Ok(object) => index.put(&object),
                    Err(why) => index.put_unreadable(object, why.to_string(), &Remains::of(value)),
                };
            }
            for namespace in index.served() {
                let other = owners.insert(namespace.to_owned(), key.to_string());
                assert_eq!(other, None, "{namespace} is served twice");
            }
        }
        owners
    }

    /// The same, by the operator's word on windows, users and terminals.
    fn at_world(&self, topology: &mut Topology) -> BTreeMap<String, String> {
        let mut owners = BTreeMap::new();
        for object in self.objects.keys() {
            let namespace =
                if object.kind == Kind::Mesh { &object.namespace } else { &object.name };
            if let Owner::Mesh(key) = topology.owner(namespace) {
                owners.insert(namespace.clone(), key.to_string());
            }
        }
        owners
    }

    fn tell(&self, topology: &mut Topology, object: &ObjectRef) {
        let value = self.objects.get(object).filter(|value| {
            let deleting = value["metadata"].get("deletionTimestamp").is_some();
            !goes(object.kind, deleting)
        });
        let decoded = value.map(|value| {
            let decoded = Object::decode(object.kind, value);
            decoded.map_err(|error| Box::new((error.to_string(), Remains::of(value))))
        });
        let _ = topology.put(object, decoded.as_ref());
    }

    /// Writes the operator's word on one Mesh; `lost`: its key is gone. Whether it was another one.
    fn say(&mut self, key: &Key, judged: &Judgement, lost: bool) -> bool {
        let Some(mesh) = self.objects.get_mut(&mesh_ref(&key.namespace, &key.name)) else {
            return false;
        };
        let objection = judged.objections.get(key);
        let reason = match objection {
            Some(objection) => objection.reason,
            None if lost => key_fault::MISSING,
            None => "Ready",
        };
        let ready = reason == "Ready";
        let conditions = json!([{
            "type": "Ready", "status": if ready { "True" } else { "False" }, "reason": reason,
            "message": objection.map_or("", |objection| &objection.sentence),
            "observedGeneration": mesh["metadata"]["generation"],
            "lastTransitionTime": "2026-11-01T00:00:00Z",
        }]);
        let status = json!({"conditions": conditions, "holds": judged.holds[key]});
        let changed = mesh["status"] != status;
        mesh["status"] = status;
        changed
    }

    /// Gives words until none is another.
    fn settle(&mut self, before: &mut Accepted, lost: &BTreeSet<Key>) {
        for _ in 0..10 {
            let judged = self.judge(before);
            before.clone_from(&judged.accepted);
            let mut changed = false;
            for candidate in self.known().candidates() {
                changed |= self.say(&candidate.key, &judged, lost.contains(&candidate.key));
            }
            if !changed {
                return;
            }
        }
        panic!("the judge never comes to an end: {:#?}", self.objects);
    }
}

fn cluster(namespaces: &[(&str, &[&str])], meshes: &[(&str, &str, u32, Value)]) -> Cluster {
    let mut cluster = Cluster::default();
    for (name, labels) in namespaces {
        cluster.label(name, labels);
    }
    for (namespace, name, age, spec) in meshes {
        cluster.put(&mesh_ref(namespace, name), *age, spec);
    }
    cluster
}

#[test]
fn the_second_of_a_namespace_or_domain_is_refused_and_both_are_named() {
    let mut cluster = cluster(
        &[("a", &[]), ("b", &[])],
        &[
            ("a", "new", 2, spec("new", None)),
            ("a", "old", 1, spec("old", None)),
            ("b", "thief", 2, spec("old", None)),
        ],
    );
    let judged = cluster.judge(&Accepted::new());
    let second = &judged.objections[&Key::new("a", "new")];
    assert_eq!((second.reason, second.wholly), ("SecondMesh", true));
    assert!(second.sentence.contains("Mesh old") && second.sentence.contains("Mesh new"));
    let thief = &judged.objections[&Key::new("b", "thief")];
    assert_eq!(thief.reason, "DomainTaken");
    assert!(thief.sentence.contains("a/old") && thief.sentence.contains("b/thief"));
    cluster.settle(&mut Accepted::new(), &BTreeSet::new());
    assert_eq!(cluster.owners()["a"], "a/old");
}

#[test]
fn who_is_ready_comes_before_who_is_older() {
    let meshes = [("a", "m", 2, spec("x", Some("one"))), ("b", "m", 1, spec("y", Some("one")))];
    let mut first = cluster(&[("t", &["one"])], &meshes[..1]);
    first.settle(&mut Accepted::new(), &BTreeSet::new());
    first.put(&mesh_ref("b", "m"), 1, &meshes[1].3);
    // Also after an edit of the accepted one, and a restart of the operator.
    let mut edited = meshes[0].3.clone();
    edited["sessionRetention"] = json!("24h");
    first.put(&mesh_ref("a", "m"), 2, &edited);
    assert_eq!(first.owners()["t"], "a/m");
    let judged = first.judge(&Accepted::new());
    assert_eq!(judged.objections.keys().collect::<Vec<_>>(), [&Key::new("b", "m")]);
    assert_eq!(judged.objections[&Key::new("b", "m")].reason, "NamespaceTaken");
}

#[test]
fn a_namespace_that_comes_to_be_selected_by_two_stays_with_the_one_that_had_it() {
    let mut cluster = cluster(
        &[("t1", &["two"]), ("t2", &[])],
        &[("a", "m", 1, spec("x", Some("one"))), ("b", "m", 2, spec("y", Some("two")))],
    );
    let mut before = Accepted::new();
    cluster.settle(&mut before, &BTreeSet::new());
    assert_eq!(cluster.owners()["t1"], "b/m");
    cluster.label("t1", &["one", "two"]);
    assert_eq!(cluster.owners()["t1"], "b/m");
    let judged = cluster.judge(&before);
    let lost = &judged.objections[&Key::new("a", "m")];
    assert_eq!((lost.reason, lost.wholly), ("NamespaceTaken", false));
    assert!(lost.sentence.contains("a/m") && lost.sentence.contains("b/m"), "{lost:?}");
    cluster.settle(&mut before, &BTreeSet::new());
    assert_eq!(cluster.owners()["t1"], "b/m");
    assert!(!cluster.owners().contains_key("t2"));
}

#[test]
fn one_that_is_refused_or_cannot_be_decoded_gives_up_nothing() {
    for bad in [json!("of another version"), spec("UPPER", None)] {
        let mut cluster =
            cluster(&[("t", &["one"]), ("u", &["one"])], &[("a", "m", 2, spec("x", Some("one")))]);
        let mut before = Accepted::new();
        cluster.settle(&mut before, &BTreeSet::new());
        cluster.put(&mesh_ref("a", "m"), 2, &bad);
        cluster.put(&mesh_ref("a", "second"), 1, &spec("z", None));
        cluster.put(&mesh_ref("b", "rival"), 1, &spec("y", Some("one")));
        cluster.put(&mesh_ref("c", "thief"), 1, &spec("x", None));
        for memory in [&mut before, &mut Accepted::new()] {
            assert_eq!((cluster.owners().get("t"), cluster.owners().get("a")), (None, None));
            assert_eq!(cluster.at_relays().get("t"), None);
            cluster.settle(memory, &BTreeSet::new());
            let objections = cluster.judge(memory).objections;
            let reason = |namespace, name| objections[&Key::new(namespace, name)].reason;
            assert_eq!(reason("b", "rival"), NAMESPACE_TAKEN);
            assert_eq!(reason("a", "second"), "SecondMesh");
            assert_eq!(reason("c", "thief"), "DomainTaken");
            assert!(objections[&Key::new("b", "rival")].sentence.contains("belongs to Mesh a/m"));
        }
        // Once it is mended it has all again; once it is gone they are free.
        let mut mended = cluster.clone();
        mended.put(&mesh_ref("a", "m"), 2, &spec("x", Some("one")));
        for _ in 0..2 {
            assert_eq!((&*mended.owners()["t"], &*mended.owners()["a"]), ("a/m", "a/m"));
            mended.settle(&mut Accepted::new(), &BTreeSet::new());
        }
        assert!(!mended.judge(&Accepted::new()).objections.contains_key(&Key::new("a", "m")));
        cluster.objects.remove(&mesh_ref("a", "m"));
        cluster.settle(&mut before, &BTreeSet::new());
        assert_eq!((&*cluster.owners()["t"], &*cluster.owners()["a"]), ("b/rival", "a/second"));
    }
}

/// `a/m` has `p`, `q1` and `q2` until it loses `p`.
fn one_that_lost_a_namespace(before: &mut Accepted) -> Cluster {
    let mut cluster = cluster(
        &[("p", &["other"]), ("q1", &["one"]), ("q2", &["one"])],
        &[("b", "x", 1, spec("x", Some("other"))), ("a", "m", 2, spec("m", Some("one")))],
    );
    cluster.settle(before, &BTreeSet::new());
    cluster.label("p", &["one", "other"]);
    cluster.settle(before, &BTreeSet::new());
    let objections = cluster.judge(before).objections;
    assert_eq!(objections.keys().collect::<Vec<_>>(), [&Key::new("a", "m")]);
    assert_eq!(objections[&Key::new("a", "m")].reason, NAMESPACE_TAKEN);
    cluster
}

#[test]
fn one_that_lost_a_namespace_keeps_all_others() {
    for remembers in [true, false] {
        let mut before = Accepted::new();
        let cluster = one_that_lost_a_namespace(&mut before);
        let owners = cluster.owners();
        assert_eq!((owners["p"].as_str(), owners["q1"].as_str()), ("b/x", "a/m"));
        // By an edit of the one that has the lost one, by a new Mesh, and by an edit of its own.
        let widened = [
            (mesh_ref("b", "x"), spec("x", Some("one"))),
            (mesh_ref("c", "n"), spec("n", Some("one"))),
            (mesh_ref("a", "m"), spec("m2", Some("one"))),
        ];
        for (object, spec) in widened {
            let mut cluster = cluster.clone();
            cluster.put(&object, 0, &spec);
            for _ in 0..2 {
                for namespace in ["q1", "q2"] {
                    assert_eq!(cluster.owners()[namespace], "a/m", "{object}");
                    assert_eq!(cluster.at_relays()[namespace], "a/m", "{object}");
                }
                let mut memory = if remembers { before.clone() } else { Accepted::new() };
                cluster.settle(&mut memory, &BTreeSet::new());
            }
        }
    }
}

#[test]
fn a_status_names_no_more_namespaces_than_it_has_room_for() {
    let mut cluster = cluster(&[], &[("zz", "m", 1, spec("x", Some("one")))]);
    for i in 0..=tidegate_crds::mesh::MAX_HELD {
        cluster.label(&format!("t{i}"), &["one"]);
    }
    let key = Key::new("zz", "m");
    cluster.settle(&mut Accepted::new(), &BTreeSet::new());
    let held = cluster.judge(&Accepted::new()).holds[&key].namespaces.clone();
    assert_eq!(held.len(), tidegate_crds::mesh::MAX_HELD);
    // One that comes later pushes none out.
    cluster.label("a", &["one"]);
    assert_eq!(cluster.judge(&Accepted::new()).holds[&key].namespaces, held);
}

#[test]
fn a_meshs_own_namespace_is_its_own_even_if_it_cannot_be_decoded() {
    let mut cluster = cluster(
        &[("a", &[]), ("b", &["one"])],
        &[("a", "wide", 1, spec("x", Some("one"))), ("b", "own", 2, spec("y", None))],
    );
    let judged = cluster.judge(&Accepted::new());
    assert!(judged.objections.is_empty(), "{:?}", judged.objections);
    assert_eq!(cluster.owners()["b"], "b/own");
    cluster.put(&mesh_ref("b", "own"), 2, &json!("of another version"));
    assert_eq!(cluster.owners().get("b"), None);
}

#[test]
fn an_invalid_or_misplaced_mesh_serves_nothing_and_says_why() {
    let cluster = cluster(
        &[("a", &[]), ("kube-system", &[]), ("t", &["one"])],
        &[("a", "bad", 1, spec("UPPER", None)), ("kube-system", "prod", 1, spec("x", Some("one")))],
    );
    let judged = cluster.judge(&Accepted::new());
    let objection = &judged.objections[&Key::new("a", "bad")];
    assert!(objection.wholly && objection.sentence.starts_with("spec.domain"), "{objection:?}");
    let objection = &judged.objections[&Key::new("kube-system", "prod")];
    assert_eq!((objection.reason, objection.wholly), ("NamespaceReserved", true));
    assert_eq!(
        objection.sentence,
        "metadata.namespace: in kube-system the admission policy does not hold relays to their own records; make the Mesh in a namespace of its own"
    );
    assert_eq!(cluster.owners(), BTreeMap::new());
    assert!(cluster.tenancy().complete);
}

#[test]
fn a_namespace_that_is_being_deleted_is_nobodys_but_its_records_are_seen_to() {
    let mut cluster = cluster(&[("t", &["one"])], &[("a", "m", 1, spec("x", Some("one")))]);
    assert_eq!(cluster.tenancy().last("t").unwrap().mesh, Key::new("a", "m"));
    cluster.begin_deletion(&namespace_ref("t"));
    assert_eq!(cluster.owners().get("t"), None);
    assert_eq!(cluster.tenancy().last("t").unwrap().mesh, Key::new("a", "m"));
}

/// What may happen next.
#[derive(Clone, Debug)]
enum Step {
    Put(usize, usize, Option<usize>, bool),
    /// Of another version: it cannot be decoded.
    Spoil(usize),
    /// Its spec is refused.
    Refuse(usize),
    Labels(usize, Vec<&'static str>),
    BeginDeletion(bool, usize),
    Remove(bool, usize),
    LoseKey(usize),
    /// The operator looks at all, and writes of some.
    Look(u8),
    Restart,
}

const MESHES: [(&str, &str); 4] = [("a", "one"), ("a", "two"), ("b", "one"), ("c", "one")];
const SPACES: [&str; 5] = ["a", "b", "t", "u", "v"];
const LABELS: [&str; 2] = ["one", "two"];

fn step() -> impl Strategy<Value = Step> {
    let mesh = || 0..MESHES.len();
    let space = || 0..SPACES.len();
    let labels = prop::sample::subsequence(LABELS.to_vec(), 0..=2);
    let label = prop::option::of(0..LABELS.len());
    prop_oneof![
        6 => (mesh(), 0..3_usize, label, any::<bool>()).prop_map(|(m, d, l, e)| Step::Put(m, d, l, e)),
        1 => mesh().prop_map(Step::Spoil),
        1 => mesh().prop_map(Step::Refuse),
        4 => (space(), labels).prop_map(|(space, labels)| Step::Labels(space, labels)),
        1 => (any::<bool>(), space()).prop_map(|(mesh, i)| Step::BeginDeletion(mesh, i)),
        1 => (any::<bool>(), space()).prop_map(|(mesh, i)| Step::Remove(mesh, i)),
        1 => mesh().prop_map(Step::LoseKey),
        5 => any::<u8>().prop_map(Step::Look),
        1 => Just(Step::Restart),
    ]
}

fn nth(mesh: bool, i: usize) -> ObjectRef {
    if mesh {
        let (namespace, name) = MESHES[i % MESHES.len()];
        mesh_ref(namespace, name)
    } else {
        namespace_ref(SPACES[i])
    }
}

impl Step {
    /// The object that it edits; `None`: only statuses.
    fn subject(&self) -> Option<ObjectRef> {
        match self {
            Self::Put(mesh, ..) | Self::Spoil(mesh) | Self::Refuse(mesh) => Some(nth(true, *mesh)),
            Self::Labels(space, _) => Some(nth(false, *space)),
            Self::BeginDeletion(mesh, i) | Self::Remove(mesh, i) => Some(nth(*mesh, *i)),
            Self::LoseKey(_) | Self::Look(_) | Self::Restart => None,
        }
    }
}

fn mesh_name(mesh: &ObjectRef) -> String {
    format!("{}/{}", mesh.namespace, mesh.name)
}

/// One operator and its cluster.
#[derive(Default)]
struct Play {
    cluster: Cluster,
    before: Accepted,
    lost: BTreeSet<Key>,
    topology: Topology,
}

/// The namespaces of which the Mesh that has them holds them by its status: the operator has looked since.
fn held(cluster: &Cluster, owners: &BTreeMap<String, String>) -> BTreeMap<String, ObjectRef> {
    let all = owners.iter().filter_map(|(namespace, mesh)| {
        let (home, name) = mesh.split_once('/')?;
        let object = mesh_ref(home, name);
        let held = cluster.objects.get(&object)?["status"]["holds"]["namespaces"].as_array()?;
        held.iter().any(|held| held == namespace).then(|| (namespace.clone(), object))
    });
    all.collect()
}

impl Play {
    /// Takes a step, and looks whether a Mesh's namespaces stay its own unless it, or their labels, are
    /// edited.
    fn checked_step(&mut self, step: &Step) {
        let owners = self.cluster.owners();
        let before = held(&self.cluster, &owners);
        // What one that is out of force holds, nobody gets until it is mended or gone.
        let closed: Vec<(String, Owner)> = {
            let tenants = self.cluster.known().tenants();
            let all = tenants.namespaces().into_iter();
            let all = all.map(|namespace| (namespace.to_owned(), tenants.owner(namespace)));
            all.filter(|(_, owner)| matches!(owner, Owner::Held(_))).collect()
        };
        let homes = |cluster: &Cluster| -> BTreeSet<String> {
            let meshes = cluster.objects.iter().filter(|(object, value)| {
                let deleting = value["metadata"].get("deletionTimestamp").is_some();
                object.kind == Kind::Mesh && !goes(object.kind, deleting)
            });
            meshes.map(|(mesh, _)| mesh.namespace.clone()).collect()
        };
        let homes_before = homes(&self.cluster);
        self.step(step);
        let owners = self.agreed();
        let subject = step.subject();
        let homes = homes(&self.cluster);
        let tenants = self.cluster.known().tenants();
        for (namespace, owner) in closed {
            let Owner::Held(key) = &owner else { continue };
            let its_own = subject.as_ref().is_some_and(|subject| {
                *subject == mesh_ref(key.namespace.as_str(), key.name.as_str())
                    || (subject.kind == Kind::Namespace && subject.name == namespace)
            });
            if !its_own && homes_before.contains(&namespace) == homes.contains(&namespace) {
                assert_eq!(tenants.owner(&namespace), owner, "{namespace}: {step:?}");
            }
        }
        for (namespace, mesh) in before {
            let its_own = subject.as_ref().is_some_and(|subject| {
                *subject == mesh || (subject.kind == Kind::Namespace && subject.name == namespace)
            });
            // What is refused is out of force with all that it holds.
            if matches!(step, Step::Spoil(_) | Step::Refuse(_)) && subject.as_ref() == Some(&mesh) {
                assert_eq!(owners.get(&namespace), None, "{namespace}: {step:?}");
            }
            // A namespace that gets a Mesh of its own is that one's.
            if its_own || homes_before.contains(&namespace) != homes.contains(&namespace) {
                continue;
            }
            assert_eq!(owners.get(&namespace), Some(&mesh_name(&mesh)), "{namespace}: {step:?}");
        }
    }

    fn step(&mut self, step: &Step) {
        let cluster = &mut self.cluster;
        let mut changed = Vec::new();
        match step {
            Step::Put(mesh, domain, label, edited) => {
                let age = u32::try_from(*mesh).unwrap();
                let mut spec = spec(["x", "y", "z"][*domain], label.map(|label| LABELS[label]));
                if *edited {
                    spec["sessionRetention"] = json!("24h");
                }
                cluster.put(&nth(true, *mesh), age, &spec);
                changed.push(nth(true, *mesh));
            }
            Step::Spoil(mesh) => {
                let object = nth(true, *mesh);
                if cluster.objects.contains_key(&object) {
                    cluster.put(&object, 0, &json!("of another version"));
                    changed.push(object);
                }
            }
            Step::Refuse(mesh) => {
                let object = nth(true, *mesh);
                cluster.put(&object, u32::try_from(*mesh).unwrap(), &spec("UPPER", None));
                changed.push(object);
            }
            Step::Labels(space, labels) => {
                cluster.label(SPACES[*space], labels);
                changed.push(nth(false, *space));
            }
            Step::BeginDeletion(mesh, i) => {
                cluster.begin_deletion(&nth(*mesh, *i));
                changed.push(nth(*mesh, *i));
            }
            Step::Remove(mesh, i) => {
                cluster.objects.remove(&nth(*mesh, *i));
                changed.push(nth(*mesh, *i));
            }
            Step::LoseKey(mesh) => {
                let object = nth(true, *mesh);
                let key = Key::new(&object.namespace, &object.name);
                if !self.lost.remove(&key) {
                    self.lost.insert(key);
                }
            }
            Step::Look(some) => {
                let judged = cluster.judge(&self.before);
                self.before.clone_from(&judged.accepted);
                for (i, candidate) in cluster.known().candidates().iter().enumerate() {
                    let key = &candidate.key;
                    if some & (1 << i) != 0 {
                        cluster.say(key, &judged, self.lost.contains(key));
                        changed.push(mesh_ref(&key.namespace, &key.name));
                    }
                }
            }
            Step::Restart => self.restart(),
        }
        for object in changed {
            self.cluster.tell(&mut self.topology, &object);
        }
    }

    fn restart(&mut self) {
        self.before = Accepted::new();
        self.topology = Topology::default();
        for object in self.cluster.objects.keys() {
            self.cluster.tell(&mut self.topology, object);
        }
    }

    fn agreed(&mut self) -> BTreeMap<String, String> {
        let owners = self.cluster.owners();
        assert_eq!(owners, self.cluster.at_relays(), "relays see it otherwise");
        let world = self.cluster.at_world(&mut self.topology);
        assert_eq!(owners, world, "the word on objects goes by another view");
        owners
    }
}

/// Each accepted Mesh, by the condition.
fn accepted(cluster: &Cluster, tenants: &Tenants) -> Vec<tidegate_policy::model::ObjectKey> {
    let judged = cluster.judge(&Accepted::new());
    let good = cluster.known().candidates().into_iter();
    let good = good.filter(|mesh| !judged.objections.contains_key(&mesh.key));
    good.filter_map(|mesh| full(&mesh.key)).filter(|key| tenants.mesh(key).is_some()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig {
        // proptest-regressions/ has what failed once.
        failure_persistence: ProptestConfig::default().failure_persistence,
        ..cases(400)
    })]

    #[test]
    fn operator_and_relays_agree_at_every_instant(steps in prop::collection::vec(step(), 1..40)) {
        let mut play = Play::default();
        for step in &steps {
            play.checked_step(step);
        }
        // Once all is said, every Mesh that is accepted has all that it wants.
        play.cluster.settle(&mut play.before, &play.lost);
        play.restart();
        let owners = play.agreed();
        let tenants = play.cluster.known().tenants();
        for key in accepted(&play.cluster, &tenants) {
            prop_assert_eq!(owners.get(key.namespace.as_str()), Some(&key.to_string()));
            for namespace in tenants.wanted(&key) {
                prop_assert_eq!(owners.get(namespace), Some(&key.to_string()), "{}", namespace);
            }
        }
        // A restart finds nothing to say.
        let mut again = play.cluster.clone();
        again.settle(&mut Accepted::new(), &play.lost);
        prop_assert_eq!(&again.objects, &play.cluster.objects);
        // A harmless edit of one that is accepted moves nothing, before and after it is looked at, also by
        // an operator that has just been started.
        for key in accepted(&play.cluster, &tenants) {
            let object = mesh_ref(key.namespace.as_str(), key.name.as_str());
            let mut edited = play.cluster.clone();
            let mut spec = edited.objects[&object]["spec"].clone();
            spec["maxPolicyAge"] = json!("6m");
            edited.put(&object, 0, &spec);
            prop_assert_eq!(&edited.owners(), &owners);
            prop_assert_eq!(&edited.at_relays(), &owners);
            edited.settle(&mut Accepted::new(), &play.lost);
            prop_assert_eq!(&edited.owners(), &owners, "after an edit of {}", key);
        }
    }
}
