//! The operator's word on windows, users and terminals, by a real API server: what is accepted and what
//! not, why, and that a restart, a kill or a broken object changes nothing of it.

#![expect(clippy::needless_pass_by_value, reason = "values are written where they are used")]

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use tidegate_tests::process::Proc;
use tidegate_tests::wait::poll;
use tidegate_tests::{eventually, long, operator, programs};

/// Ample for the operator to see a change and write its word, on a busy machine.
const WORD: Duration = Duration::from_mins(1);
/// Ample for an operator to lead and know everything.
const START: Duration = Duration::from_mins(1);

/// What the operator is to say its word on.
struct World(operator::World);

impl std::ops::Deref for World {
    type Target = operator::World;

    fn deref(&self) -> &operator::World {
        &self.0
    }
}

impl World {
    fn new() -> Option<Self> {
        operator::World::new(24).map(Self)
    }

    /// An operator that leads and knows everything, by the administrator's account. Who waits for the
    /// lease of a former one that was killed is another test's.
    fn operator(&self) -> Proc {
        self.free_lease();
        let mut command = Command::new(programs::operator());
        command
            .args(["run", "--namespace", operator::NAMESPACE])
            .env("KUBECONFIG", self.plane.kubeconfig())
            .env("POD_NAME", "operator-1");
        let operator = Proc::start("operator", &mut command);
        operator.await_stderr("are known", START);
        operator
    }

    fn delete(&self, kind: &str, namespace: &str, name: &str) {
        self.plane.kubectl(&["delete", kind, "-n", namespace, name]).ok();
    }

    /// Waits until the object's condition Accepted says `reason` of its present generation.
    #[track_caller]
    fn await_reason(&self, kind: &str, namespace: &str, name: &str, reason: &str) -> Value {
        let mut last = Value::Null;
        let found = poll(WORD, || {
            last = self.get(kind, namespace, name);
            let generation = &last["metadata"]["generation"];
            let word = accepted(&last)?;
            let good = word["reason"] == reason
                && word["observedGeneration"] == *generation
                && last["status"]["observedGeneration"] == *generation
                && (word["status"] == "True") == (reason == "Accepted");
            good.then(|| last.clone())
        });
        found.unwrap_or_else(|| panic!("{kind} {namespace}/{name} is not {reason}: {last:#}"))
    }

    /// Requests that are the operator's and no watch, nor about its lease, from the `from`th on.
    fn requests(&self, from: usize) -> Vec<String> {
        let all = self.plane.audit();
        let ours = all.iter().skip(from).filter(|event| {
            !event.user.starts_with("system:")
                && !event.user_agent.starts_with("kubectl")
                && event.verb != "watch"
                && event.resource != "leases"
        });
        ours.map(|event| format!("{} {} by {}", event.verb, event.uri, event.user_agent)).collect()
    }

    /// Warning events about an object, by reason.
    fn warnings(&self, namespace: &str, name: &str) -> Vec<String> {
        let selector = format!("type=Warning,involvedObject.name={name}");
        let found = self.plane.kubectl(&[
            "get",
            "events",
            "-n",
            namespace,
            "--field-selector",
            &selector,
            "-o",
            "json",
        ]);
        let list: Value = serde_json::from_str(&found.ok().stdout).expect("JSON");
        let items = list["items"].as_array().expect("a list").iter();
        items.map(|event| event["reason"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    let mut conditions = object["status"]["conditions"].as_array()?.iter();
    conditions.find(|condition| condition["type"] == kind)
}

fn accepted(object: &Value) -> Option<&Value> {
    condition(object, "Accepted")
}

fn object(kind: &str, namespace: &str, name: &str, spec: Value) -> Value {
    operator::object(kind, namespace, name, &spec)
}

fn namespace(name: &str, labels: Value) -> Value {
    operator::namespace(name, &labels)
}

fn mesh(namespace: &str, name: &str, label: &str) -> Value {
    let selector = json!({"matchLabels": {"tidegate.dev/mesh": label}});
    let tenants = json!({"from": "Selector", "selector": selector});
    let domain = format!("{name}.example.com");
    object("Mesh", namespace, name, json!({"domain": domain, "tenants": tenants}))
}

fn user(namespace: &str, name: &str, key: &str) -> Value {
    object("LoginUser", namespace, name, json!({"publicKeys": [key]}))
}

fn terminal(namespace: &str, name: &str, key: &str, services: Value) -> Value {
    object("Terminal", namespace, name, json!({"publicKeys": [key], "services": services}))
}

/// Of a time that no run of this test comes to.
fn window(namespace: &str, name: &str, users: Value, terminals: Value) -> Value {
    let once = json!({"start": "2040-11-23T09:00:00+01:00", "end": "2040-11-23T11:00:00+01:00"});
    let spec = json!({"users": users, "terminals": terminals, "services": ["ssh"],
        "schedule": {"once": once}});
    object("SupportWindow", namespace, name, spec)
}

#[test]
fn says_who_is_accepted_and_why_not() {
    let Some(world) = World::new() else { return };
    let keys = &world.keys;
    let ours = json!({"tidegate.dev/mesh": "prod"});
    world.apply(&[
        namespace("support", json!({})),
        namespace("acme", ours.clone()),
        namespace("elsewhere", json!({})),
    ]);
    let mut operator = world.operator();
    world.apply(&[mesh("support", "prod", "prod")]);

    // What is named and not there, one after the other, each as soon as it appears.
    let users = json!({"names": ["alice"], "groups": ["tier2"]});
    world.apply(&[window("acme", "w", users, json!({"names": ["kiosk"]}))]);
    let refused = world.await_reason("sw", "acme", "w", "UserNotFound");
    let sentence = accepted(&refused).unwrap()["message"].as_str().unwrap().to_owned();
    assert!(sentence.contains("\"alice\""), "{sentence}");
    assert_eq!(condition(&refused, "Stalled"), None, "it is good, and waits");
    let next = &refused["status"]["nextOccurrences"];
    let expected = json!([{"opensAt": "2040-11-23T08:00:00Z", "closesAt": "2040-11-23T10:00:00Z"}]);
    assert_eq!(*next, expected);
    world.apply(&[user("support", "alice", &keys[0])]);
    world.await_reason("sw", "acme", "w", "GroupNotFound");
    let mut bob = user("acme", "bob", &keys[1]);
    bob["spec"]["groups"] = json!(["tier2"]);
    world.apply(&[bob]);
    world.await_reason("sw", "acme", "w", "TerminalNotFound");
    world.apply(&[terminal("acme", "kiosk", &keys[2], json!([{"name": "web", "port": 443}]))]);
    world.await_reason("sw", "acme", "w", "ServiceNotFound");
    let ssh = json!([{"name": "ssh", "port": 22, "listenPort": 20017}]);
    world.apply(&[terminal("acme", "kiosk", &keys[2], ssh.clone())]);
    world.await_reason("sw", "acme", "w", "Accepted");
    let kiosk = world.await_reason("terminal", "acme", "kiosk", "Accepted");
    assert_eq!(kiosk["status"]["enforcedBy"], "Relay");
    assert_eq!(kiosk["status"]["holds"]["listenPorts"], json!([20017]));
    let selects_nothing = json!({"selector": {"matchLabels": {"site": "nowhere"}}});
    world.apply(&[window("acme", "selects", json!({"names": ["alice"]}), selects_nothing)]);
    world.await_reason("sw", "acme", "selects", "Accepted");
    eventually("one warning for each reason", WORD, || world.warnings("acme", "w").len() == 4);
    world.delete("loginuser", "support", "alice");
    world.await_reason("sw", "acme", "w", "UserNotFound");
    world.apply(&[user("support", "alice", &keys[0])]);
    world.await_reason("sw", "acme", "w", "Accepted");

    // Who was first keeps it, and a later edit takes nothing, also across a restart.
    world.apply(&[
        user("support", "carol", &keys[3]),
        terminal("support", "kiosk", &keys[4], json!([{"name": "ssh", "port": 22}])),
        terminal("support", "gate", &keys[5], ssh.clone()),
        terminal("acme", "twin", &keys[1], json!([{"name": "ssh", "port": 22}])),
    ]);
    world.await_reason("loginuser", "support", "carol", "Accepted");
    let taken = world.await_reason("terminal", "support", "kiosk", "NameTaken");
    assert_eq!(condition(&taken, "Stalled").unwrap()["status"], "True");
    world.await_reason("terminal", "support", "gate", "ListenPortTaken");
    world.await_reason("terminal", "acme", "twin", "KeyTaken");
    operator.kill();
    world.apply(&[user("support", "carol", &keys[0])]);
    let mut operator = world.operator();
    let taken = world.await_reason("loginuser", "support", "carol", "KeyTaken");
    let sentence = accepted(&taken).unwrap()["message"].as_str().unwrap().to_owned();
    assert!(sentence.contains("LoginUser support/alice"), "{sentence}");
    for (kind, namespace, name) in [
        ("loginuser", "support", "alice"),
        ("loginuser", "acme", "bob"),
        ("terminal", "acme", "kiosk"),
    ] {
        world.await_reason(kind, namespace, name, "Accepted");
    }
    world.delete("loginuser", "support", "alice");
    world.await_reason("loginuser", "support", "carol", "Accepted");
    world.apply(&[user("support", "alice", &keys[0])]);
    world.await_reason("loginuser", "support", "alice", "KeyTaken");
    world.apply(&[user("support", "alice", &keys[6])]);
    world.await_reason("loginuser", "support", "alice", "Accepted");

    // A namespace of no Mesh, which then gets one; another Mesh with names of its own.
    world.apply(&[window(
        "elsewhere",
        "w",
        json!({"names": ["alice"]}),
        json!({"names": ["desk"]}),
    )]);
    world.await_reason("sw", "elsewhere", "w", "NotServed");
    world.apply(&[namespace("elsewhere", ours)]);
    world.await_reason("sw", "elsewhere", "w", "TerminalNotFound");
    world.apply(&[
        namespace("other", json!({})),
        mesh("other", "second", "second"),
        user("other", "alice", &keys[0]),
        terminal("other", "kiosk", &keys[2], ssh),
    ]);
    world.await_reason("loginuser", "other", "alice", "Accepted");
    world.await_reason("terminal", "other", "kiosk", "Accepted");

    // One that cannot be decoded stops nobody.
    let schema = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";
    let anything = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let patch = json!([{"op": "replace", "path": schema, "value": anything}]).to_string();
    let crd = ["patch", "crd", "loginusers.tidegate.dev", "--type=json", "-p", &patch];
    world.plane.kubectl(&crd).ok();
    let broken = object("LoginUser", "acme", "broken", json!({"publicKeys": "none"}));
    poll(WORD, || (world.plane.apply(&broken.to_string()).code == Some(0)).then_some(()))
        .expect("the API server takes anything now");
    world.await_reason("loginuser", "acme", "broken", "Unreadable");
    world.apply(&[user("acme", "dave", &keys[7])]);
    world.await_reason("loginuser", "acme", "dave", "Accepted");
    operator.kill();
    let mut operator = world.operator();
    world.apply(&[user("acme", "erin", &keys[8])]);
    world.await_reason("loginuser", "acme", "erin", "Accepted");

    // At rest nothing is written and nothing requested.
    let rest = Duration::from_secs(if long() { 300 } else { 15 });
    let quiet = Quiet::await_on(&world);
    std::thread::sleep(rest);
    assert_eq!(world.requests(quiet.0), Vec::<String>::new(), "in {rest:?} at rest");
    operator.kill();
}

/// How long the audit log was when nothing had been requested for a while.
struct Quiet(usize);

impl Quiet {
    fn await_on(world: &World) -> Self {
        let mut from = world.plane.audit().len();
        let mut since = Instant::now();
        let found = poll(WORD, || {
            if !world.requests(from).is_empty() {
                (from, since) = (world.plane.audit().len(), Instant::now());
            }
            (since.elapsed() > Duration::from_secs(4)).then_some(Self(from))
        });
        found.expect("the operator comes to rest")
    }
}

/// One step of the storm: what is applied, and what is deleted.
#[derive(Default)]
struct Step {
    apply: Vec<Value>,
    delete: Vec<(&'static str, &'static str, String)>,
}

/// Applies of all kinds in an order that `seed` gives. Who is first is the same whatever the operator
/// has seen in between: of those that contend, the one that was there first never lets go and takes
/// again, and has the lesser name where both came in one second.
fn storm(seed: u64, steps: usize, keys: &[String]) -> Vec<Step> {
    let mut random = StdRng::seed_from_u64(seed);
    let stable: Vec<_> = (0..4).map(|i| user("support", &format!("a{i}"), &keys[i])).collect();
    let kiosks = (0..4).map(|i| {
        let service = json!([{"name": "ssh", "port": 22, "listenPort": 20_000 + i}]);
        terminal("acme", &format!("a{i}"), &keys[4 + i], service)
    });
    let mut all =
        vec![Step { apply: stable.into_iter().chain(kiosks).collect(), ..Step::default() }];
    // Roamers have a key of their own at first, and then one of those that are never let go.
    for _ in 0..steps {
        let mut step = Step::default();
        for _ in 0..random.random_range(1..6) {
            let i = random.random_range(0..6_usize);
            match random.random_range(0..10) {
                0..=1 => {
                    let own = random.random_bool(0.5);
                    let key = &keys[if own { 8 + i } else { random.random_range(0..8) }];
                    step.apply.push(user("support", &format!("b{i}"), key));
                }
                2..=3 => {
                    let own = random.random_bool(0.5);
                    let port = if own { 21_000 + i } else { 20_000 + random.random_range(0..4) };
                    let service = json!([{"name": "ssh", "port": 22, "listenPort": port}]);
                    step.apply.push(terminal("acme", &format!("b{i}"), &keys[14 + i], service));
                }
                4 => step.delete.push(("loginuser", "support", format!("b{i}"))),
                5 => step.delete.push(("terminal", "acme", format!("b{i}"))),
                6 => step.delete.push(("supportwindow", "acme", format!("w{i}"))),
                _ => {
                    let name = |random: &mut StdRng| {
                        let first = if random.random_bool(0.5) { 'a' } else { 'b' };
                        format!("{first}{}", random.random_range(0..4))
                    };
                    let users = json!({"names": [name(&mut random)]});
                    let terminals = json!({"names": [name(&mut random)]});
                    let mut window = window("acme", &format!("w{i}"), users, terminals);
                    window["spec"]["suspend"] = json!(random.random_bool(0.2));
                    step.apply.push(window);
                }
            }
        }
        // One object once in a step, so that the order of a file does not matter.
        let mut names = Vec::new();
        step.apply.retain(|object| {
            let name = (object["kind"].clone(), object["metadata"]["name"].clone());
            let new = !names.contains(&name);
            names.push(name);
            new
        });
        all.push(step);
    }
    all
}

impl World {
    fn play(&self, step: &Step) {
        for (kind, namespace, name) in &step.delete {
            self.plane.kubectl(&["delete", kind, "-n", namespace, name, "--ignore-not-found"]).ok();
        }
        if !step.apply.is_empty() {
            self.apply(&step.apply);
        }
    }

    /// Every object as it is, less what time and chance give it. What a refused object still has for
    /// itself is its history, which an operator that was dead has not seen.
    fn end_state(&self) -> BTreeMap<String, Value> {
        let kinds = "loginusers,terminals,supportwindows";
        let found =
            self.plane.kubectl(&["get", kinds, "-A", "-o", "json", "--show-managed-fields"]).ok();
        let list: Value = serde_json::from_str(&found.stdout).expect("JSON");
        let objects = list["items"].as_array().expect("a list").iter().cloned();
        objects
            .map(|mut object| {
                let refused = accepted(&object).is_none_or(|word| word["status"] != "True");
                let metadata = object["metadata"].as_object_mut().expect("metadata");
                for field in ["uid", "resourceVersion", "creationTimestamp"] {
                    metadata.remove(field);
                }
                if let Some(managers) = metadata["managedFields"].as_array_mut() {
                    for manager in &mut *managers {
                        manager["time"] = Value::Null;
                        if refused {
                            manager["fieldsV1"] = Value::Null;
                        }
                    }
                    // They stand in the order of their times.
                    managers.sort_by_key(|manager| manager["manager"].to_string());
                }
                for word in object["status"]["conditions"].as_array_mut().into_iter().flatten() {
                    word["lastTransitionTime"] = Value::Null;
                }
                if refused && let Some(status) = object["status"].as_object_mut() {
                    status.remove("holds");
                }
                let name = [
                    &object["kind"],
                    &object["metadata"]["namespace"],
                    &object["metadata"]["name"],
                ];
                let name = name.map(|part| part.as_str().unwrap_or_default()).join("/");
                (name, object)
            })
            .collect()
    }

    fn clear(&self) {
        for namespace in ["support", "acme"] {
            let kinds = "loginusers,terminals,supportwindows";
            self.plane.kubectl(&["delete", kinds, "-n", namespace, "--all"]).ok();
        }
    }
}

#[test]
fn killed_at_random_it_comes_to_the_same_end() {
    let Some(world) = World::new() else { return };
    let (steps, kills) = if long() { (200, 50) } else { (24, 6) };
    let seed = tidegate_draw::seed();
    let storm = storm(seed, steps, &world.keys);
    world.apply(&[
        namespace("support", json!({})),
        namespace("acme", json!({"tidegate.dev/mesh": "prod"})),
        mesh("support", "prod", "prod"),
    ]);

    let mut operator = world.operator();
    for step in &storm {
        world.play(step);
    }
    Quiet::await_on(&world);
    let expected = world.end_state();
    for (name, object) in &expected {
        assert!(accepted(object).is_some(), "{name} was never looked at");
    }
    let refused = expected.values().filter(|object| accepted(object).unwrap()["status"] != "True");
    eprintln!("{} objects, {} of them refused", expected.len(), refused.count());

    world.clear();
    let mut random = StdRng::seed_from_u64(seed ^ 1);
    let mut doomed: Vec<usize> = (0..kills).map(|_| random.random_range(0..storm.len())).collect();
    doomed.sort_unstable();
    for (i, step) in storm.iter().enumerate() {
        world.play(step);
        for _ in doomed.iter().filter(|doomed| **doomed == i) {
            operator.kill();
            operator = world.operator();
        }
    }
    let mut found = BTreeMap::new();
    let same = poll(WORD, || {
        found = world.end_state();
        (found == expected).then_some(())
    });
    if same.is_none() {
        for (name, object) in &expected {
            if found.get(name) != Some(object) {
                eprintln!(
                    "unkilled: {object:#}\nkilled: {:#}",
                    found.get(name).unwrap_or(&Value::Null)
                );
            }
        }
        panic!("the end state is another, with TIDEGATE_SEED={seed}");
    }
    operator.kill();
}
