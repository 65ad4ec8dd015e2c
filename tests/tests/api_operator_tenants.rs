//! Tenants against each other, by a real API server, the real operator and the index that every relay
//! goes by: no window of one reaches a terminal of another, and no edit takes what is another's.

#![expect(clippy::needless_pass_by_value, reason = "values are written where they are used")]

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_crds::index::{Index, Remains, Verdict, goes};
use tidegate_crds::manifest::{Kind, Object, ObjectRef};
use tidegate_policy::model::{Label, ObjectKey};
use tidegate_policy::reach::who_can_reach;
use tidegate_tests::eventually;
use tidegate_tests::operator::{self, Operator};
use tidegate_tests::wait::poll;

/// Ample for the operator to see a change and write its word, on a busy machine.
const WORD: Duration = Duration::from_mins(1);
/// Within every window here.
const OPEN: &str = "2040-11-23T09:00:00Z";

/// A Mesh `support/prod` with the tenants `acme` and `bolt`.
struct World(operator::World);

impl std::ops::Deref for World {
    type Target = operator::World;

    fn deref(&self) -> &operator::World {
        &self.0
    }
}

impl World {
    fn new() -> Option<Self> {
        let world = Self(operator::World::new(8)?);
        world.apply(&[
            namespace("support", json!({})),
            namespace("acme", json!({"mesh": "prod"})),
            namespace("bolt", json!({"mesh": "prod"})),
            mesh("support", "prod", json!({})),
        ]);
        Some(world)
    }

    /// An operator that leads.
    fn operator(&self, account: &str) -> Operator {
        self.free_lease();
        let operator = Operator::start(&self.plane, account);
        operator.process.await_stderr("are known", WORD);
        operator
    }

    /// Waits until the object's condition gives `reason` of its present generation.
    #[track_caller]
    fn await_reason(&self, kind: &str, namespace: &str, name: &str, reason: &str) -> Value {
        let mut last = Value::Null;
        let found = poll(WORD, || {
            last = self.get(kind, namespace, name);
            let mut words = last["status"]["conditions"].as_array()?.iter();
            let word = words.find(|word| word["type"] == "Accepted" || word["type"] == "Ready")?;
            let now = word["observedGeneration"] == last["metadata"]["generation"];
            (now && word["reason"] == reason).then(|| last.clone())
        });
        found.unwrap_or_else(|| panic!("{kind} {namespace}/{name} is not {reason}: {last:#}"))
    }

    /// What a relay makes of all that there is now, one that has just been started.
    fn relay(&self, namespace: &str, mesh: &str) -> Index {
        let mut index = Index::new(ObjectKey { namespace: label(namespace), name: label(mesh) });
        let kinds = "namespaces,meshes,loginusers,terminals,supportwindows";
        let found = self.plane.kubectl(&["get", kinds, "-A", "-o", "json"]).ok();
        let list: Value = serde_json::from_str(&found.stdout).expect("JSON");
        for value in list["items"].as_array().expect("a list") {
            let kind = Kind::own(value["kind"].as_str().unwrap()).unwrap_or(Kind::Namespace);
            let metadata = &value["metadata"];
            if goes(kind, metadata.get("deletionTimestamp").is_some()) {
                continue;
            }
            let _ = match Object::decode_served(kind, value) {
                Ok(object) => index.put(&object),
                Err(error) => {
                    let text = |field: &str| metadata[field].as_str().unwrap_or_default();
                    let object = reference(kind, text("namespace"), text("name"));
                    index.put_unreadable(&object, error.to_string(), &Remains::of(value))
                }
            };
        }
        index
    }

    /// Who reaches a terminal by which window, as a relay sees it.
    fn reach(&self, terminal: &str) -> Vec<String> {
        let snapshot = self.relay("support", "prod").snapshot().expect("a Mesh");
        let open = OPEN.parse().unwrap();
        let reach = who_can_reach(&snapshot, &label(terminal), false, open, open);
        let access = reach.expect("the terminal").access.into_iter();
        access.map(|access| format!("{} by {}", access.user, access.window)).collect()
    }

    #[track_caller]
    fn assert_in_force(&self, kind: Kind, namespace: &str, name: &str) {
        let object = reference(kind, namespace, name);
        assert_eq!(self.relay("support", "prod").verdict(&object), Verdict::InForce, "{object}");
    }

    #[track_caller]
    fn assert_contested(&self, kind: Kind, namespace: &str, name: &str) {
        let object = reference(kind, namespace, name);
        let verdict = self.relay("support", "prod").verdict(&object);
        assert!(matches!(verdict, Verdict::Contested { held: true, .. }), "{object}: {verdict:?}");
    }
}

fn label(text: &str) -> Label {
    Label::parse(text).unwrap()
}

fn reference(kind: Kind, namespace: &str, name: &str) -> ObjectRef {
    ObjectRef { kind, namespace: namespace.to_owned(), name: name.to_owned() }
}

fn object(kind: &str, namespace: &str, name: &str, spec: Value) -> Value {
    operator::object(kind, namespace, name, &spec)
}

fn namespace(name: &str, labels: Value) -> Value {
    operator::namespace(name, &labels)
}

/// Selects the namespaces with `mesh=prod`. `more`: of its spec.
fn mesh(namespace: &str, name: &str, more: Value) -> Value {
    let selector = json!({"matchLabels": {"mesh": "prod"}});
    let mut spec = json!({
        "domain": format!("{name}.{namespace}.example.com"),
        "tenants": {"from": "Selector", "selector": selector},
    });
    for (field, value) in more.as_object().unwrap() {
        spec[field] = value.clone();
    }
    object("Mesh", namespace, name, spec)
}

fn user(namespace: &str, name: &str, key: &str) -> Value {
    object("LoginUser", namespace, name, json!({"publicKeys": [key], "groups": ["tier2"]}))
}

fn terminal(namespace: &str, name: &str, key: &str, port: u16) -> Value {
    let services = json!([{"name": "ssh", "port": 22, "listenPort": port}]);
    let mut terminal =
        object("Terminal", namespace, name, json!({"publicKeys": [key], "services": services}));
    terminal["metadata"]["labels"] = json!({"site": "berlin"});
    terminal
}

fn window(namespace: &str, name: &str, users: Value, terminals: Value) -> Value {
    let once = json!({"start": "2040-11-23T08:00:00Z", "end": "2040-11-23T10:00:00Z"});
    let spec = json!({"users": users, "terminals": terminals, "services": ["ssh"],
        "schedule": {"once": once}, "consent": "NotRequired"});
    object("SupportWindow", namespace, name, spec)
}

#[test]
fn no_window_of_one_tenant_reaches_anothers_terminal() {
    let Some(world) = World::new() else { return };
    let keys = &world.keys;
    let operator = world.operator("op-a");
    let berlin = json!({"selector": {"matchLabels": {"site": "berlin"}}});
    let till = json!({"names": ["till"]});
    world.apply(&[
        user("support", "alice", &keys[0]),
        user("acme", "carl", &keys[1]),
        user("bolt", "bob", &keys[2]),
        terminal("acme", "kiosk", &keys[3], 20_001),
        terminal("bolt", "till", &keys[4], 20_002),
        // Bolt tries all ways to Acme's terminal and with Acme's login.
        window(
            "bolt",
            "by-name",
            json!({"names": ["alice", "bob.bolt"]}),
            json!({"names": ["kiosk"]}),
        ),
        window("bolt", "by-selector", json!({"groups": ["tier2"]}), berlin.clone()),
        window("bolt", "by-login", json!({"names": ["carl.acme"]}), till.clone()),
        window("bolt", "by-bare-login", json!({"names": ["carl"]}), till),
        // And so does one of the fleet's own namespace, whose users are everybody's staff.
        window("support", "of-the-fleet", json!({"names": ["alice"]}), berlin.clone()),
        window("acme", "own", json!({"names": ["carl.acme"]}), berlin),
    ]);
    world.await_reason("sw", "bolt", "by-name", "TerminalNotFound");
    world.await_reason("sw", "bolt", "by-login", "InvalidName");
    world.await_reason("sw", "bolt", "by-bare-login", "UserNotFound");
    for (namespace, name) in [("bolt", "by-selector"), ("support", "of-the-fleet"), ("acme", "own")]
    {
        world.await_reason("sw", namespace, name, "Accepted");
    }
    for (namespace, name) in [("acme", "kiosk"), ("bolt", "till")] {
        world.await_reason("terminal", namespace, name, "Accepted");
    }
    assert_eq!(world.reach("kiosk"), ["carl.acme by acme/own"]);
    // Both who are in the group, and are the fleet's or its own.
    assert_eq!(world.reach("till"), ["alice by bolt/by-selector", "bob.bolt by bolt/by-selector"]);
    operator.terminate();
}

#[test]
fn no_edit_of_one_tenant_takes_a_key_or_port_of_another() {
    let Some(world) = World::new() else { return };
    let keys = &world.keys;
    let mut operator = world.operator("op-a");
    let kiosk = terminal("acme", "kiosk", &keys[0], 20_001);
    world.apply(&[kiosk.clone(), terminal("acme", "other", &keys[1], 20_002)]);
    world.await_reason("terminal", "acme", "kiosk", "Accepted");
    world.await_reason("terminal", "acme", "other", "Accepted");
    world.apply(&[
        terminal("bolt", "till", &keys[2], 20_003),
        terminal("bolt", "desk", &keys[3], 20_004),
        user("bolt", "bob", &keys[4]),
    ]);
    for (kind, name) in [("terminal", "till"), ("terminal", "desk"), ("loginuser", "bob")] {
        world.await_reason(kind, "bolt", name, "Accepted");
    }

    // By an edit of each kind, and by a name.
    let thefts = [
        (Kind::Terminal, terminal("bolt", "till", &keys[0], 20_003), "KeyTaken"),
        (Kind::Terminal, terminal("bolt", "desk", &keys[3], 20_001), "ListenPortTaken"),
        (Kind::Terminal, terminal("bolt", "kiosk", &keys[5], 20_005), "NameTaken"),
        (Kind::LoginUser, user("bolt", "bob", &keys[0]), "KeyTaken"),
    ];
    let name = |thief: &Value| thief["metadata"]["name"].as_str().unwrap().to_owned();
    world.apply(&thefts.clone().map(|(_, thief, _)| thief));
    let ours_alone = || {
        world.assert_in_force(Kind::Terminal, "acme", "kiosk");
        for (kind, thief, _) in &thefts {
            world.assert_contested(*kind, "bolt", &name(thief));
        }
    };
    for (kind, thief, reason) in &thefts {
        world.await_reason(kind.as_str(), "bolt", &name(thief), reason);
    }
    ours_alone();
    // An edit of the owner's that nobody has looked at gives them nothing either.
    operator.process.kill();
    let mut edited = kiosk.clone();
    edited["spec"]["attach"] = json!("DuringWindow");
    world.apply(&[edited]);
    ours_alone();
    operator = world.operator("op-b");
    world.await_reason("terminal", "acme", "kiosk", "Accepted");
    ours_alone();
    world.plane.kubectl(&["delete", "terminals", "-n", "bolt", "--all"]).ok();

    // An edit that is refused for another reason gives the key up: it is free, and stays the new owner's.
    world.apply(&[terminal("acme", "kiosk", &keys[1], 20_001)]);
    let refused = world.await_reason("terminal", "acme", "kiosk", "KeyTaken");
    assert_eq!(refused["status"]["holds"]["listenPorts"], json!([20_001]), "{refused:#}");
    assert_eq!(refused["status"]["holds"]["keys"], Value::Null, "{refused:#}");
    world.await_reason("loginuser", "bolt", "bob", "Accepted");
    world.apply(std::slice::from_ref(&kiosk));
    world.await_reason("terminal", "acme", "kiosk", "KeyTaken");
    operator.process.kill();
    let mut edited = user("bolt", "bob", &keys[0]);
    edited["spec"]["groups"] = json!(["tier3"]);
    world.apply(&[edited]);
    world.assert_in_force(Kind::LoginUser, "bolt", "bob");
    operator = world.operator("op-c");
    world.await_reason("loginuser", "bolt", "bob", "Accepted");
    world.await_reason("terminal", "acme", "kiosk", "KeyTaken");
    world.apply(&[user("bolt", "bob", &keys[4])]);
    world.await_reason("terminal", "acme", "kiosk", "Accepted");

    // One that cannot be decoded keeps what it holds, from relays and operators that start meanwhile.
    let schema = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";
    let anything = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let patch = json!([{"op": "replace", "path": schema, "value": anything}]).to_string();
    let crd = ["patch", "crd", "terminals.tidegate.dev", "--type=json", "-p", &patch];
    world.plane.kubectl(&crd).ok();
    let newer = object("Terminal", "acme", "kiosk", json!({"publicKeys": "of another version"}));
    poll(WORD, || (world.plane.apply(&newer.to_string()).code == Some(0)).then_some(()))
        .expect("the API server takes anything now");
    world.await_reason("terminal", "acme", "kiosk", "Unreadable");
    operator.process.kill();
    operator = world.operator("op-d");
    world.apply(&[user("bolt", "thief", &keys[0]), terminal("bolt", "squatter", &keys[5], 20_001)]);
    world.await_reason("loginuser", "bolt", "thief", "KeyTaken");
    world.await_reason("terminal", "bolt", "squatter", "ListenPortTaken");
    world.assert_contested(Kind::LoginUser, "bolt", "thief");
    world.assert_contested(Kind::Terminal, "bolt", "squatter");
    world.apply(&[kiosk]);
    world.await_reason("terminal", "acme", "kiosk", "Accepted");
    world.assert_in_force(Kind::Terminal, "acme", "kiosk");
    operator.terminate();
}

#[test]
fn an_edit_of_the_accepted_mesh_moves_no_tenant() {
    let Some(world) = World::new() else { return };
    let mut operator = world.operator("op-a");
    world.await_reason("mesh", "support", "prod", "Ready");
    let spec = json!({"meshRef": {"name": "prod"}, "region": "eu", "replicas": 1,
        "listeners": [{"port": 5938}], "exposure": {"type": "NodePort"}});
    world.apply(&[namespace("other", json!({})), object("Relay", "support", "berlin", spec)]);
    world.apply(&[mesh("other", "rival", json!({})), mesh("kube-system", "prod", json!({}))]);
    world.await_reason("mesh", "other", "rival", "NamespaceTaken");
    world.await_reason("mesh", "kube-system", "prod", "NamespaceReserved");
    let binding = || {
        let found = ["get", "rolebinding", "-n", "acme", "tidegate-relays", "-o", "json"];
        let found = world.plane.kubectl(&found);
        (found.code == Some(0)).then(|| {
            let found: Value = serde_json::from_str(&found.stdout).expect("JSON");
            found["metadata"]["uid"].clone()
        })
    };
    eventually("the fleet is bound at its tenant", WORD, || binding().is_some());
    let bound = binding();
    let serves = |namespace: &str, mesh: &str| world.relay(namespace, mesh).serves("acme");
    for (i, account) in ["op-b", "op-c", "op-d"].iter().enumerate() {
        // Edited while no operator is there, and looked at by one that remembers nothing.
        operator.process.kill();
        let more = json!({"sessionRetention": format!("{}h", 24 + i)});
        world.apply(&[mesh("support", "prod", more)]);
        assert!(serves("support", "prod") && !serves("other", "rival"));
        operator = world.operator(account);
        world.await_reason("mesh", "support", "prod", "Ready");
        world.await_reason("mesh", "other", "rival", "NamespaceTaken");
        assert!(serves("support", "prod") && !serves("other", "rival"));
        assert_eq!(binding(), bound, "its rights were never taken away");
    }
    operator.terminate();
}
