//! Which Mesh serves which namespace, and which Meshes stand in another's way. Pure.
//!
//! Whose a namespace is, relays and operator read from the Meshes as they are, by one rule
//! ([`Tenants`]). The judge gives the word that the rule goes by: one Mesh per namespace, one per domain,
//! and one for each namespace that selectors choose is to be Ready. The first accepted keeps what it has:
//! first is the one that is Ready in its present generation, then in a former one, then the one that this
//! process accepted last, then the oldest. A Mesh's own namespace is always its own: no other's selector
//! reaches into it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use tidegate_crds::compile::{CompiledMesh, Refusal};
use tidegate_crds::index::{Owner, Readiness, Tenants};
use tidegate_crds::mesh::NAMESPACE_TAKEN;
use tidegate_policy::model::{Label, ObjectKey};

use crate::watching::Key;

/// A Mesh as the judge sees it.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub key: Key,
    pub uid: String,
    pub created: Timestamp,
    pub compiled: Result<CompiledMesh, Vec<Refusal>>,
}

/// Why a Mesh is not Ready, as a condition says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objection {
    pub reason: &'static str,
    pub sentence: String,
    /// Whether it serves nothing at all: no keys are made for it.
    pub wholly: bool,
}

/// Who serves a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub mesh: Key,
    /// How long the records of ended sessions are kept.
    pub retention: SignedDuration,
    /// Whether the Mesh selects tenants' namespaces.
    pub selects: bool,
}

/// Which Mesh serves which namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tenancy {
    /// Whether all Meshes and namespaces are known; before, nothing may be concluded.
    pub complete: bool,
    pub namespaces: BTreeMap<String, Service>,
    /// Whose the namespaces were that are being deleted: nobody is admitted there any more, but what is
    /// left of its sessions has to be seen to.
    pub leaving: BTreeMap<String, Service>,
}

impl Tenancy {
    /// By all Meshes and namespaces; `but_for_deletions`: as if no namespace were being deleted.
    pub fn of(tenants: &Tenants, but_for_deletions: &Tenants) -> Self {
        let served = |tenants: &Tenants| -> BTreeMap<String, Service> {
            let all = tenants.namespaces().into_iter();
            all.filter_map(|name| Some((name.to_owned(), service(tenants, name)?))).collect()
        };
        let namespaces = served(tenants);
        let mut leaving = served(but_for_deletions);
        leaving.retain(|name, _| !namespaces.contains_key(name));
        Self { complete: true, namespaces, leaving }
    }

    /// Who serves a namespace, or did until its deletion began.
    pub fn last(&self, namespace: &str) -> Option<&Service> {
        self.namespaces.get(namespace).or_else(|| self.leaving.get(namespace))
    }
}

fn service(tenants: &Tenants, namespace: &str) -> Option<Service> {
    let Owner::Mesh(key) = tenants.owner(namespace) else { return None };
    let compiled = tenants.mesh(&key)?;
    Some(Service {
        mesh: Key::new(key.namespace.as_str(), key.name.as_str()),
        retention: compiled.mesh.session_retention,
        selects: compiled.tenants.is_some(),
    })
}

/// A Mesh's key as policy has it; `None` for a name that is no label, whose Mesh never compiled.
pub fn full(key: &Key) -> Option<ObjectKey> {
    let namespace = Label::parse(&key.namespace).ok()?;
    Some(ObjectKey { namespace, name: Label::parse(&key.name).ok()? })
}

/// The namespaces of each Mesh that stands, by its uid: what it keeps against one that is no more Ready.
pub type Accepted = BTreeMap<String, BTreeSet<String>>;

/// What came of judging all Meshes together.
#[derive(Clone, Debug, Default)]
pub struct Judgement {
    pub objections: BTreeMap<Key, Objection>,
    /// To be given to the next judgement.
    pub accepted: Accepted,
}

/// A Mesh that stands beside those before it, wherever its selector reaches.
struct Standing<'a> {
    mesh: &'a Candidate,
    full: ObjectKey,
    ready: Readiness,
}

/// Judges all Meshes.
pub fn judge(meshes: &[Candidate], tenants: &Tenants, before: &Accepted) -> Judgement {
    let ready =
        |mesh: &Candidate| full(&mesh.key).map_or(Readiness::Not, |full| tenants.readiness(&full));
    let mut order: Vec<&Candidate> = meshes.iter().collect();
    order.sort_by_key(|mesh| {
        let known = before.contains_key(&mesh.uid);
        (Reverse(ready(mesh)), Reverse(known), mesh.created, &mesh.key)
    });
    let mut result = Judgement::default();
    let mut homes: BTreeMap<&str, &Key> = BTreeMap::new();
    let mut domains: BTreeMap<&str, &Key> = BTreeMap::new();
    let mut standing = Vec::new();
    for mesh in order {
        match stands(mesh, &homes, &domains) {
            Ok(compiled) => {
                homes.insert(&mesh.key.namespace, &mesh.key);
                domains.insert(&compiled.mesh.domain, &mesh.key);
                let full = compiled.mesh.meta.key.clone();
                standing.push(Standing { mesh, full, ready: ready(mesh) });
            }
            Err(objection) => {
                result.objections.insert(mesh.key.clone(), objection);
            }
        }
    }
    share(&standing, tenants, before, &mut result);
    result
}

/// Whether a Mesh stands beside those before it, wherever its selector reaches.
fn stands<'m>(
    mesh: &'m Candidate,
    homes: &BTreeMap<&str, &Key>,
    domains: &BTreeMap<&str, &Key>,
) -> Result<&'m CompiledMesh, Objection> {
    let wholly = |reason, sentence| Objection { reason, sentence, wholly: true };
    let compiled = mesh.compiled.as_ref().map_err(|refusals| {
        let sentence = refusals.first().map(ToString::to_string).unwrap_or_default();
        wholly(refusals.first().map_or("Invalid", |refusal| refusal.reason), sentence)
    })?;
    if let Some(other) = homes.get(mesh.key.namespace.as_str()) {
        return Err(wholly(
            "SecondMesh",
            format!(
                "Mesh {} was first in namespace {}, which can have one only: delete Mesh {} or move it to a namespace of its own",
                other.name, mesh.key.namespace, mesh.key.name
            ),
        ));
    }
    if let Some(other) = domains.get(&*compiled.mesh.domain) {
        return Err(wholly(
            "DomainTaken",
            format!(
                "domain {} belongs to Mesh {other}, which had it before Mesh {}: choose another in spec.domain",
                compiled.mesh.domain, mesh.key
            ),
        ));
    }
    Ok(compiled)
}

/// Accepts whoever wants no namespace of one that was accepted before. Readiness comes first, as relays have
/// it; among Meshes that are equally Ready, whoever had a namespace keeps it.
fn share(standing: &[Standing<'_>], tenants: &Tenants, before: &Accepted, result: &mut Judgement) {
    let had = |mesh: &Candidate, namespace: &str| {
        before.get(&mesh.uid).is_some_and(|held| held.contains(namespace))
    };
    let mut owners: BTreeMap<&str, &Standing<'_>> = BTreeMap::new();
    for own in standing {
        let wanted: Vec<&str> = tenants.wanted(&own.full).collect();
        let other = |namespace: &str| {
            let kept = || {
                standing.iter().find(|other| {
                    other.ready == own.ready
                        && other.mesh.key != own.mesh.key
                        && !result.objections.contains_key(&other.mesh.key)
                        && had(other.mesh, namespace)
                        && tenants.wanted(&other.full).any(|wanted| wanted == namespace)
                })
            };
            owners.get(namespace).copied().or_else(kept)
        };
        let lost = wanted.iter().find_map(|namespace| Some((*namespace, other(namespace)?)));
        if let Some((namespace, owner)) = lost {
            let sentence = format!(
                "namespace {namespace} belongs to Mesh {}, which selected it before Mesh {} did: change the namespace's labels or one of the selectors",
                owner.mesh.key, own.mesh.key
            );
            let objection = Objection { reason: NAMESPACE_TAKEN, sentence, wholly: false };
            result.objections.insert(own.mesh.key.clone(), objection);
        } else {
            owners.extend(wanted.into_iter().map(|namespace| (namespace, own)));
        }
    }
    for own in standing {
        let kept = result.accepted.entry(own.mesh.uid.clone()).or_default();
        kept.insert(own.mesh.key.namespace.clone());
        // One that lost a namespace still has those that nobody else wants.
        let has = |namespace: &&str| match owners.get(*namespace) {
            Some(owner) => owner.mesh.key == own.mesh.key,
            None => tenants.owner(namespace) == Owner::Mesh(own.full.clone()),
        };
        kept.extend(tenants.wanted(&own.full).filter(has).map(str::to_owned));
    }
}
