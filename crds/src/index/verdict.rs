//! What the index makes of one object, and why.

use tidegate_policy::text::shown;

use super::apply::{key_of, reference};
use super::tenants::Owner;
use super::{Index, Policy};
use crate::claims;
use crate::compile::Refusal;
use crate::manifest::{Kind, ObjectRef};
use crate::references::{Missing, References};

/// The most bytes of a sentence.
const SENTENCE_BYTES: usize = 300;

/// How an object stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is no such object.
    Unknown,
    InForce,
    /// It does not compile.
    Invalid(Vec<Refusal>),
    /// It is good, but not of this Mesh; the sentence says why.
    NotServed(String),
    /// It is good, but wants what another one wants too, and is not the one that has it.
    Contested {
        /// Such as `spec.services[0].listenPort`.
        field: String,
        /// Such as `the listen port 20017`.
        claim: String,
        /// Who has it, or else who else wants it.
        with: Vec<ObjectRef>,
        /// Whether `with` has it.
        held: bool,
    },
    /// A window in force that names what is not there; it admits to what is.
    Unresolved(Vec<Missing>),
}

impl Index {
    /// How an object stands.
    pub fn verdict(&self, object: &ObjectRef) -> Verdict {
        if let Some(refusals) = self.refused.get(object) {
            return Verdict::Invalid(refusals.to_vec());
        }
        match object.kind {
            Kind::Mesh => self.verdict_of_mesh(object),
            Kind::Namespace if !self.tenants.knows(&object.name) => Verdict::Unknown,
            Kind::Namespace => self.in_served(&object.name).unwrap_or(Verdict::InForce),
            Kind::Relay => self.verdict_of_relay(object),
            Kind::LoginUser | Kind::Terminal => self.verdict_of_claimant(object),
            Kind::SupportWindow => self.verdict_of_window(object),
        }
    }

    fn verdict_of_mesh(&self, object: &ObjectRef) -> Verdict {
        let Some(key) = key_of(object) else { return Verdict::Unknown };
        if self.tenants.mesh(&key).is_none() {
            return Verdict::Unknown;
        }
        match self.tenants.owner(&object.namespace) {
            Owner::Mesh(owner) | Owner::Held(owner) if owner != key => {
                contested_namespace(object, &[owner], true)
            }
            Owner::Contested(all) => contested_namespace(object, &all, false),
            _ if key != self.home => Verdict::NotServed(format!("is not the Mesh {}", self.home)),
            _ => Verdict::InForce,
        }
    }

    fn verdict_of_relay(&self, object: &ObjectRef) -> Verdict {
        let relay = key_of(object)
            .filter(|key| key.namespace == self.home.namespace)
            .and_then(|key| self.relays.get(&key.name));
        match relay {
            None => Verdict::Unknown,
            Some(relay) if relay.mesh != self.home.name => Verdict::NotServed(format!(
                "belongs to the Mesh {}/{}, not to {}",
                object.namespace, relay.mesh, self.home
            )),
            Some(_) => self.in_served(&object.namespace).unwrap_or(Verdict::InForce),
        }
    }

    fn verdict_of_claimant(&self, object: &ObjectRef) -> Verdict {
        let Some(claimant) = self.claimants.get(object) else { return Verdict::Unknown };
        if let Some(verdict) = self.in_served(&object.namespace) {
            return verdict;
        }
        let Some(policy) = &claimant.policy else { return Verdict::Unknown };
        let wants = match policy {
            Policy::User(user) => claims::of_user(user),
            Policy::Terminal(terminal) => claims::of_terminal(terminal),
        };
        let lost = wants.into_iter().find(|(claim, _)| !self.rivals.has(claim, object));
        let Some((claim, field)) = lost else { return Verdict::InForce };
        let with = self.rivals.rival(&claim, object);
        let held = with.is_some_and(|other| self.rivals.has(&claim, other));
        let with = with.map(|other| (**other).clone()).into_iter().collect();
        Verdict::Contested { field, claim: claim.to_string(), with, held }
    }

    fn verdict_of_window(&self, object: &ObjectRef) -> Verdict {
        let Some(window) = key_of(object).and_then(|key| self.window(&key)) else {
            return Verdict::Unknown;
        };
        if let Some(verdict) = self.in_served(&object.namespace) {
            return verdict;
        }
        let missing = References::new(&self.snapshot).missing(window);
        if missing.is_empty() { Verdict::InForce } else { Verdict::Unresolved(missing) }
    }

    /// Why nothing in a namespace counts; `None`: it does.
    fn in_served(&self, namespace: &str) -> Option<Verdict> {
        if self.serves(namespace) {
            return None;
        }
        let (home, namespace_shown) = (&self.home, shown(namespace, 63));
        let sentence = match self.tenants.owner(namespace) {
            _ if namespace == home.namespace.as_str() => {
                format!("has no effect: the Mesh {home} is not in force")
            }
            Owner::Contested(all) => {
                let all: Vec<_> = all.iter().take(2).map(ToString::to_string).collect();
                format!(
                    "has no effect: the Meshes {} both select the namespace {namespace_shown} and not exactly one of them is Ready",
                    all.join(" and ")
                )
            }
            Owner::Held(other) => format!(
                "has no effect: the namespace {namespace_shown} is held by the Mesh {other}, whose spec is refused; mend or delete that Mesh"
            ),
            Owner::Mesh(other) => format!(
                "has no effect in the Mesh {home}: the namespace {namespace_shown} belongs to the Mesh {other}"
            ),
            Owner::Nobody => format!(
                "has no effect: the Mesh {home} does not serve the namespace {namespace_shown}"
            ),
        };
        Some(Verdict::NotServed(shown(&sentence, SENTENCE_BYTES)))
    }
}

fn contested_namespace(
    object: &ObjectRef,
    all: &[tidegate_policy::model::ObjectKey],
    held: bool,
) -> Verdict {
    let others = all.iter().map(|key| reference(Kind::Mesh, key));
    Verdict::Contested {
        field: "metadata.namespace".into(),
        claim: format!("the namespace {}", object.namespace),
        with: others.filter(|other| other != object).take(2).collect(),
        held,
    }
}
