//! How the index takes one object, or loses it.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use tidegate_policy::model::{Label, ObjectKey, Window};

use super::holds::Remains;
use super::rivals::Before;
use super::tenants::Owner;
use super::{Change, Claimant, Index, Policy};
use crate::claims::{self, Claim};
use crate::compile::{self, Identity, Refusal, RelaySettings, reason};
use crate::manifest::{Kind, Object, ObjectRef};
use crate::{LoginUser, Mesh, Relay, SupportWindow, Terminal};

impl Index {
    /// Takes an object as it is now, in place of what it was.
    pub fn put(&mut self, object: &Object) -> Change {
        let reference = object.reference();
        let mut change = Change::default();
        match object {
            Object::Mesh(mesh) => self.put_mesh(&reference, mesh, &mut change),
            Object::Relay(relay) => self.put_relay(&reference, relay, &mut change),
            Object::LoginUser(user) => self.put_user(&reference, user, &mut change),
            Object::Terminal(terminal) => self.put_terminal(&reference, terminal, &mut change),
            Object::SupportWindow(window) => self.put_window(&reference, window, &mut change),
            Object::Namespace { name, labels } => {
                self.refuse(&reference, None);
                self.tenants.put_namespace(name, labels);
                self.recount([name.as_str()], &mut change);
            }
        }
        change.touched.push(reference);
        change.tidy()
    }

    /// Takes an object that could not even be decoded: it is there, and out of force. A user or terminal
    /// keeps what it holds by what `remains` of it.
    pub fn put_unreadable(
        &mut self,
        object: &ObjectRef,
        sentence: impl Into<String>,
        remains: &Remains,
    ) -> Change {
        let refusal = Refusal {
            field: String::new(),
            reason: reason::INVALID_VALUE,
            sentence: sentence.into(),
        };
        let mut change = Change::default();
        match object.kind {
            // A namespace whose labels cannot be read is nobody's.
            Kind::Namespace => self.drop_namespace(&object.name, &mut change),
            Kind::Mesh => {
                if let Some(key) = key_of(object) {
                    self.tenants.put_unreadable_mesh(key);
                }
                self.recount_all(&mut change);
            }
            Kind::LoginUser | Kind::Terminal => {
                let left = remains.claimant(object, self.claimants.get(object));
                self.replace_claimant(object, left.bare(), &mut change);
            }
            _ => self.drop_object(object, &mut change),
        }
        self.refuse(object, Some(vec![refusal]));
        change.touched.push(object.clone());
        change.tidy()
    }

    /// Loses an object.
    pub fn remove(&mut self, object: &ObjectRef) -> Change {
        let mut change = Change::default();
        match object.kind {
            Kind::Namespace => self.drop_namespace(&object.name, &mut change),
            Kind::Mesh => {
                if let Some(key) = key_of(object) {
                    self.tenants.remove_mesh(&key);
                }
                self.recount_all(&mut change);
            }
            _ => self.drop_object(object, &mut change),
        }
        self.refuse(object, None);
        change.touched.push(object.clone());
        change.tidy()
    }

    /// Loses every object of a kind, or of a kind in one namespace, that a complete list does not show.
    pub fn retain(
        &mut self,
        kind: Kind,
        namespace: Option<&str>,
        seen: &BTreeSet<ObjectRef>,
    ) -> Change {
        let gone = self.objects(kind).into_iter().filter(|object| {
            namespace.is_none_or(|namespace| namespace == object.namespace)
                && !seen.contains(object)
        });
        let gone: Vec<ObjectRef> = gone.collect();
        let mut all = Change::default();
        for object in &gone {
            let change = self.remove(object);
            all.snapshot |= change.snapshot;
            all.relays |= change.relays;
            all.touched.extend(change.touched);
            all.windows.extend(change.windows);
        }
        all.tidy()
    }

    /// All objects of a kind, good or bad, in the order of their names.
    pub fn objects(&self, kind: Kind) -> BTreeSet<ObjectRef> {
        let full = |key: &ObjectKey| reference(kind, key);
        let mut objects: BTreeSet<ObjectRef> =
            self.refused.keys().filter(|object| object.kind == kind).cloned().collect();
        match kind {
            Kind::Mesh => objects.extend(self.tenants.meshes().map(full)),
            Kind::Namespace => {
                let known = self.tenants.namespaces();
                let known = known.into_iter().filter(|name| self.tenants.knows(name));
                objects.extend(known.map(|name| ObjectRef {
                    kind,
                    namespace: String::new(),
                    name: name.to_owned(),
                }));
            }
            Kind::Relay => objects.extend(self.relays.keys().map(|name| {
                let namespace = self.home.namespace.clone();
                full(&ObjectKey { namespace, name: name.clone() })
            })),
            Kind::LoginUser | Kind::Terminal => {
                let own = self.claimants.keys().filter(|object| object.kind == kind);
                objects.extend(own.map(|object| (**object).clone()));
            }
            Kind::SupportWindow => {
                objects.extend(self.snapshot.windows().map(|window| full(&window.meta.key)));
                objects.extend(self.elsewhere.keys().map(full));
            }
        }
        objects
    }

    fn refuse(&mut self, object: &ObjectRef, refusals: Option<Vec<Refusal>>) {
        match refusals {
            Some(refusals) => self.refused.insert(object.clone(), refusals.into()),
            None => self.refused.remove(object),
        };
    }

    /// What compiled; refusals are noted.
    fn good<T>(&mut self, object: &ObjectRef, compiled: Result<T, Vec<Refusal>>) -> Option<T> {
        let (good, refusals) = match compiled {
            Ok(good) => (Some(good), None),
            Err(refusals) => (None, Some(refusals)),
        };
        self.refuse(object, refusals);
        good
    }

    /// An object that is no Mesh and no Namespace goes.
    fn drop_object(&mut self, object: &ObjectRef, change: &mut Change) {
        match object.kind {
            Kind::LoginUser | Kind::Terminal => self.replace_claimant(object, None, change),
            Kind::SupportWindow => self.replace_window(object, None, change),
            Kind::Relay => self.replace_relay(object, None, change),
            Kind::Mesh | Kind::Namespace => {}
        }
    }

    fn drop_namespace(&mut self, name: &str, change: &mut Change) {
        self.tenants.remove_namespace(name);
        self.recount([name], change);
    }

    fn put_mesh(&mut self, reference: &ObjectRef, mesh: &Mesh, change: &mut Change) {
        let put = match key_of(reference) {
            Some(key) => self.tenants.put_mesh(key, mesh),
            None => compile::mesh(mesh, &Identity::of(&mesh.metadata)).map(drop),
        };
        self.good(reference, put);
        self.recount_all(change);
    }

    fn recount_all(&mut self, change: &mut Change) {
        change.touched.extend(self.tenants.meshes().map(|key| reference(Kind::Mesh, key)));
        let known = self.tenants.namespaces().into_iter().chain(self.served());
        let all: BTreeSet<String> = known.map(str::to_owned).collect();
        self.recount(all.iter().map(String::as_str), change);
    }

    /// Looks again whose some namespaces are, and who this Mesh is.
    fn recount<'a>(&mut self, namespaces: impl IntoIterator<Item = &'a str>, change: &mut Change) {
        let own = |owner: &Owner| matches!(owner, Owner::Mesh(key) if *key == self.home);
        let in_force = own(&self.tenants.owner(self.home.namespace.as_str()));
        let mesh = self.tenants.mesh(&self.home).filter(|_| in_force);
        if mesh != self.mesh.as_ref() {
            let (was, is) = (self.mesh.as_ref(), mesh);
            change.snapshot |= was.map(|mesh| &mesh.mesh) != is.map(|mesh| &mesh.mesh);
            self.mesh = mesh.cloned();
            if let Some(compiled) = &self.mesh {
                self.snapshot.set_mesh(compiled.mesh.clone());
            }
            change.touched.push(reference(Kind::Mesh, &self.home));
        }
        for namespace in namespaces {
            let owner = self.tenants.owner(namespace);
            let served = matches!(&owner, Owner::Mesh(key) if *key == self.home);
            if served != self.served.contains(namespace) {
                self.turn(namespace, served, change);
            }
        }
    }

    /// A namespace comes to this Mesh or goes.
    fn turn(&mut self, namespace: &str, served: bool, change: &mut Change) {
        if served {
            self.served.insert(namespace.to_owned());
        } else {
            self.served.remove(namespace);
        }
        let mut before = Before::default();
        let mut moved = BTreeSet::new();
        for kind in [Kind::LoginUser, Kind::Terminal] {
            let from = ObjectRef { kind, namespace: namespace.to_owned(), name: String::new() };
            let own = self.claimants.range::<ObjectRef, _>(&from..);
            for (object, claimant) in
                own.take_while(|(object, _)| object.kind == kind && object.namespace == namespace)
            {
                if served {
                    self.rivals.enlist(claimant, object, &mut before);
                } else {
                    self.rivals.withdraw(&claimant.wants, object, &mut before);
                }
                moved.insert(Arc::clone(object));
            }
        }
        self.settle(&before, moved, change);
        if let Ok(label) = Label::parse(namespace) {
            let windows: Vec<Arc<Window>> = if served {
                // `0` is the first name that there is.
                let first = Label::parse("0").map(|name| ObjectKey { namespace: label, name });
                let keys = first.ok().map(|first| {
                    let on = self.elsewhere.range(&first..).map(|(key, _)| key);
                    let own = on.take_while(|key| key.namespace == first.namespace);
                    own.cloned().collect::<Vec<_>>()
                });
                keys.iter().flatten().filter_map(|key| self.elsewhere.remove(key)).collect()
            } else {
                self.snapshot.windows_in(&label).cloned().collect()
            };
            change.snapshot |= !windows.is_empty();
            for window in windows {
                let key = window.meta.key.clone();
                change.touched.push(reference(Kind::SupportWindow, &key));
                if served {
                    self.snapshot.put_window(window);
                } else {
                    self.snapshot.remove_window(&key);
                    self.elsewhere.insert(key, window);
                }
            }
        }
        let name = namespace.to_owned();
        change.touched.push(ObjectRef { kind: Kind::Namespace, namespace: String::new(), name });
        if namespace == self.home.namespace.as_str() {
            change.touched.extend(self.objects(Kind::Relay));
        }
    }

    fn put_relay(&mut self, object: &ObjectRef, relay: &Relay, change: &mut Change) {
        let compiled = self.good(object, compile::relay(relay));
        self.replace_relay(object, compiled.map(Arc::new), change);
    }

    fn replace_relay(
        &mut self,
        object: &ObjectRef,
        new: Option<Arc<RelaySettings>>,
        change: &mut Change,
    ) {
        let Some(key) = key_of(object).filter(|key| key.namespace == self.home.namespace) else {
            return;
        };
        if self.relays.get(&key.name) != new.as_ref() {
            change.relays = true;
            match new {
                Some(new) => self.relays.insert(key.name, new),
                None => self.relays.remove(&key.name),
            };
        }
    }

    fn put_window(&mut self, object: &ObjectRef, window: &SupportWindow, change: &mut Change) {
        let compiled = compile::window(window, &Identity::of(&window.metadata));
        let compiled = self.good(object, compiled);
        self.replace_window(object, compiled, change);
    }

    pub(super) fn replace_window(
        &mut self,
        object: &ObjectRef,
        new: Option<Window>,
        change: &mut Change,
    ) {
        // A name that is no label was never compiled.
        let Some(key) = key_of(object) else { return };
        if !self.serves(&object.namespace) {
            match new {
                Some(new) => self.elsewhere.insert(key, Arc::new(new)),
                None => self.elsewhere.remove(&key),
            };
            return;
        }
        if self.snapshot.window(&key).map(|window| &**window) == new.as_ref() {
            return;
        }
        change.snapshot = true;
        match new {
            Some(new) => self.snapshot.put_window(new),
            None => self.snapshot.remove_window(&key),
        }
    }

    fn put_user(&mut self, object: &ObjectRef, user: &LoginUser, change: &mut Change) {
        let LoginUser { metadata, status, .. } = user;
        let compiled = compile::login_user(user, &Identity::of(metadata), &self.home.namespace);
        let compiled = compiled.map(|user| {
            let wants = claims::of_user(&user).into_iter().map(|(claim, _)| claim).collect();
            (wants, Policy::User(Arc::new(user)))
        });
        let conditions = status.as_ref().map(|status| status.conditions.as_slice());
        let holds = status.as_ref().and_then(|status| status.holds.as_ref());
        let word = Word {
            holds: holds.map(|holds| claims::held(None, holds)).unwrap_or_default().into(),
            accepted: accepted_now(conditions, metadata.generation),
        };
        self.put_claimant(object, compiled, word, Identity::of(metadata).created, change);
    }

    fn put_terminal(&mut self, object: &ObjectRef, terminal: &Terminal, change: &mut Change) {
        let Terminal { metadata, status, .. } = terminal;
        let compiled = compile::terminal(terminal, &Identity::of(metadata)).map(|terminal| {
            let wants =
                claims::of_terminal(&terminal).into_iter().map(|(claim, _)| claim).collect();
            (wants, Policy::Terminal(Arc::new(terminal)))
        });
        let conditions = status.as_ref().map(|status| status.conditions.as_slice());
        let holds = status.as_ref().and_then(|status| status.holds.as_ref());
        let name = Label::parse(&object.name).ok();
        let word = Word {
            holds: holds.map(|holds| claims::held(name.as_ref(), holds)).unwrap_or_default().into(),
            accepted: accepted_now(conditions, metadata.generation),
        };
        self.put_claimant(object, compiled, word, Identity::of(metadata).created, change);
    }

    /// Takes a user or terminal as it is now. One that does not compile is out of force and gives nothing
    /// away: it keeps what it holds.
    fn put_claimant(
        &mut self,
        object: &ObjectRef,
        compiled: Result<(Box<[Claim]>, Policy), Vec<Refusal>>,
        word: Word,
        created: Timestamp,
        change: &mut Change,
    ) {
        let Word { holds, accepted } = word;
        let new = match self.good(object, compiled) {
            Some((wants, policy)) => {
                Some(Claimant { policy: Some(policy), created, wants, holds, accepted })
            }
            None => {
                Claimant { policy: None, created, wants: Box::default(), holds, accepted }.bare()
            }
        };
        self.replace_claimant(object, new, change);
    }

    fn replace_claimant(&mut self, object: &ObjectRef, new: Option<Claimant>, change: &mut Change) {
        let served = self.serves(&object.namespace);
        let mut before = Before::default();
        let old = self.claimants.remove_entry(object);
        if let (true, Some((_, old))) = (served, &old) {
            self.rivals.withdraw(&old.wants, object, &mut before);
        }
        let shared = old.map_or_else(|| Arc::new(object.clone()), |(shared, _)| shared);
        if let Some(new) = new {
            if served {
                self.rivals.enlist(&new, &shared, &mut before);
            }
            self.claimants.insert(Arc::clone(&shared), new);
        }
        self.settle(&before, BTreeSet::from([shared]), change);
    }

    /// Puts into force and takes out of it what a change of claims decides: of `moved`, and of all that
    /// want what they want or wanted.
    fn settle(&mut self, before: &Before, moved: BTreeSet<Arc<ObjectRef>>, change: &mut Change) {
        let mut affected = moved;
        affected.extend(self.rivals.changed(before));
        let (in_force, out): (Vec<_>, Vec<_>) =
            affected.iter().partition(|object| self.has_all(object));
        // Those that lose a value go before those come that get it.
        for object in out {
            self.withdraw(object, change);
        }
        for object in in_force {
            self.enforce(object, change);
        }
        change.touched.extend(affected.iter().map(|object| (**object).clone()));
    }

    /// Whether an object is a valid one of a served namespace, and all that it wants is its.
    pub(super) fn has_all(&self, object: &ObjectRef) -> bool {
        self.serves(&object.namespace)
            && self.claimants.get(object).is_some_and(|claimant| {
                claimant.policy.is_some()
                    && claimant.wants.iter().all(|claim| self.rivals.has(claim, object))
            })
    }

    fn enforce(&mut self, object: &ObjectRef, change: &mut Change) {
        let policy = self.claimants.get(object).and_then(|claimant| claimant.policy.clone());
        let Some(policy) = policy else { return };
        let key = policy.meta().key.clone();
        let same = match &policy {
            Policy::User(user) => self.snapshot.user_at(&key) == Some(user),
            Policy::Terminal(terminal) => self.snapshot.terminal_at(&key) == Some(terminal),
        };
        if same {
            return;
        }
        self.trace_windows(object.kind, &key, change);
        match policy {
            Policy::User(user) => self.snapshot.put_user(user),
            Policy::Terminal(terminal) => self.snapshot.put_terminal(terminal),
        }
        self.trace_windows(object.kind, &key, change);
        change.snapshot = true;
    }

    fn withdraw(&mut self, object: &ObjectRef, change: &mut Change) {
        let Some(key) = key_of(object) else { return };
        self.trace_windows(object.kind, &key, change);
        let there = match object.kind {
            Kind::LoginUser => self.snapshot.user_at(&key).is_some(),
            _ => self.snapshot.terminal_at(&key).is_some(),
        };
        if !there {
            return;
        }
        match object.kind {
            Kind::LoginUser => self.snapshot.remove_user(&key),
            _ => self.snapshot.remove_terminal(&key),
        }
        change.snapshot = true;
    }

    /// Notes the windows that name or select an object as it is in force.
    fn trace_windows(&self, kind: Kind, key: &ObjectKey, change: &mut Change) {
        if !self.tracing {
            return;
        }
        let windows = match kind {
            Kind::LoginUser => {
                self.snapshot.user_at(key).map(|user| self.snapshot.windows_of_user(user))
            }
            _ => self
                .snapshot
                .terminal_at(key)
                .map(|terminal| self.snapshot.windows_of_terminal(terminal)),
        };
        let windows = windows.into_iter().flatten();
        change
            .windows
            .extend(windows.map(|window| reference(Kind::SupportWindow, &window.meta.key)));
    }
}

/// What the operator wrote of a user or terminal.
struct Word {
    holds: Box<[Claim]>,
    accepted: bool,
}

impl Claimant {
    /// What is left of it once it is not valid: what it holds, if that is anything.
    fn bare(self) -> Option<Self> {
        let wants = self.holds.clone();
        (!wants.is_empty()).then_some(Self { policy: None, wants, ..self })
    }
}

/// Whether the condition Accepted is true and speaks of the present generation.
fn accepted_now(conditions: Option<&[Condition]>, generation: Option<i64>) -> bool {
    conditions.into_iter().flatten().any(|condition| {
        condition.type_ == "Accepted"
            && condition.status == "True"
            && condition.observed_generation.is_some()
            && condition.observed_generation == generation
    })
}

pub(super) fn reference(kind: Kind, key: &ObjectKey) -> ObjectRef {
    ObjectRef { kind, namespace: key.namespace.to_string(), name: key.name.to_string() }
}

/// `None` for a name that is no label: such an object never compiled.
pub(super) fn key_of(object: &ObjectRef) -> Option<ObjectKey> {
    let namespace = Label::parse(&object.namespace).ok()?;
    Some(ObjectKey { namespace, name: Label::parse(&object.name).ok()? })
}
