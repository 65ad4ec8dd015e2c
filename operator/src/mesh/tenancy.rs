//! Which Mesh serves which namespace, and which Meshes stand in another's way. Pure.
//!
//! Whose a namespace is, relays and operator read from the Meshes as they are, by one rule
//! ([`Tenants`]). The judge gives the word that the rule goes by: what each Mesh holds, and which are
//! Ready. One has each namespace, and one each domain; a Mesh is Ready with all that it wants. The first
//! accepted keeps what it has, each namespace by itself: whoever has it by the rule and, where that says
//! nothing, who this process gave it to, then who is Ready in its present generation, then in a former one,
//! then the oldest. A Mesh's own namespace is always its own: no other's selector reaches into it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use tidegate_crds::compile::{CompiledMesh, Refusal};
use tidegate_crds::index::{Held, Owner, Readiness, Tenants};
use tidegate_crds::mesh::{MAX_HELD, MeshHolds, NAMESPACE_TAKEN};
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
    /// What the status of each Mesh is to hold.
    pub holds: BTreeMap<Key, MeshHolds>,
    /// To be given to the next judgement.
    pub accepted: Accepted,
}

/// A Mesh that stands beside those before it, wherever its selector reaches.
struct Standing<'a> {
    mesh: &'a Candidate,
    full: ObjectKey,
}

/// Judges all Meshes.
pub fn judge(meshes: &[Candidate], tenants: &Tenants, before: &Accepted) -> Judgement {
    let ready =
        |mesh: &Candidate| full(&mesh.key).map_or(Readiness::Not, |full| tenants.readiness(&full));
    let mut order: Vec<&Candidate> = meshes.iter().collect();
    order.sort_by_key(|mesh| {
        let known = before.contains_key(&mesh.uid);
        (
            Reverse(holds_domain(mesh, tenants)),
            Reverse(ready(mesh)),
            Reverse(known),
            mesh.created,
            &mesh.key,
        )
    });
    let mut result = Judgement::default();
    let mut homes: BTreeMap<&str, &Key> = BTreeMap::new();
    let mut domains = domains_of_refused(meshes, tenants);
    let mut standing = Vec::new();
    for mesh in order {
        match stands(mesh, tenants, &homes, &domains) {
            Ok(compiled) => {
                homes.insert(&mesh.key.namespace, &mesh.key);
                domains.insert(compiled.mesh.domain.to_string(), mesh.key.clone());
                standing.push(Standing { mesh, full: compiled.mesh.meta.key.clone() });
            }
            Err(objection) => {
                result.objections.insert(mesh.key.clone(), objection);
            }
        }
    }
    share(&standing, tenants, before, &mut result);
    let given: BTreeSet<String> = result.accepted.values().flatten().cloned().collect();
    for mesh in meshes {
        if !result.holds.contains_key(&mesh.key) {
            let kept = kept(mesh, tenants, &given, &domains);
            result.holds.insert(mesh.key.clone(), kept);
        }
    }
    result
}

/// The domains that Meshes hold whose specs are refused or cannot be decoded, but for those that another
/// has come to hold.
fn domains_of_refused(meshes: &[Candidate], tenants: &Tenants) -> BTreeMap<String, Key> {
    let refused = tenants.refused().filter_map(|(key, held)| {
        let key = Key::new(key.namespace.as_str(), key.name.as_str());
        Some((held.domain.clone()?, key))
    });
    let mut all: BTreeMap<String, Key> = refused.collect();
    for mesh in meshes.iter().filter(|mesh| holds_domain(mesh, tenants)) {
        if let Ok(compiled) = &mesh.compiled {
            all.remove(&*compiled.mesh.domain);
        }
    }
    all
}

/// Whether a Mesh holds the domain that it wants.
fn holds_domain(mesh: &Candidate, tenants: &Tenants) -> bool {
    let held = full(&mesh.key).and_then(|full| tenants.holds(&full)?.domain.as_deref());
    let wanted = mesh.compiled.as_ref().ok().map(|compiled| &*compiled.mesh.domain);
    held.is_some() && held == wanted
}

/// Whether a Mesh stands beside those before it, wherever its selector reaches.
fn stands<'m>(
    mesh: &'m Candidate,
    tenants: &Tenants,
    homes: &BTreeMap<&str, &Key>,
    domains: &BTreeMap<String, Key>,
) -> Result<&'m CompiledMesh, Objection> {
    let wholly = |reason, sentence| Objection { reason, sentence, wholly: true };
    let compiled = mesh.compiled.as_ref().map_err(|refusals| {
        let sentence = refusals.first().map(ToString::to_string).unwrap_or_default();
        wholly(refusals.first().map_or("Invalid", |refusal| refusal.reason), sentence)
    })?;
    let namespace = mesh.key.namespace.as_str();
    let first = match tenants.owner(namespace) {
        Owner::Mesh(key) | Owner::Held(key) => Some(key.name.to_string()),
        _ => homes.get(namespace).map(|key| key.name.clone()),
    };
    if let Some(other) = first.filter(|name| *name != mesh.key.name) {
        return Err(wholly(
            "SecondMesh",
            format!(
                "Mesh {other} was first in namespace {namespace}, which can have one only: delete Mesh {} or move it to a namespace of its own",
                mesh.key.name
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

/// Gives each namespace that Meshes want to one of them, and accepts those that get all.
fn share(standing: &[Standing<'_>], tenants: &Tenants, before: &Accepted, result: &mut Judgement) {
    let had = |own: &Standing<'_>, namespace: &str| {
        before.get(&own.mesh.uid).is_some_and(|held| held.contains(namespace))
    };
    let mut wanting: BTreeMap<&str, Vec<&Standing<'_>>> = BTreeMap::new();
    for own in standing {
        for namespace in tenants.wanted(&own.full) {
            wanting.entry(namespace).or_default().push(own);
        }
    }
    let mut owners: BTreeMap<&str, ObjectKey> = BTreeMap::new();
    for (namespace, all) in wanting {
        let has = match tenants.owner(namespace) {
            Owner::Held(key) => Some(key),
            // One that does not stand keeps what it held, and gets nothing.
            Owner::Mesh(key)
                if all.iter().any(|own| own.full == key)
                    || tenants
                        .holds(&key)
                        .is_some_and(|held| held.namespaces.contains(namespace)) =>
            {
                Some(key)
            }
            _ => None,
        };
        // They are in the order of their seniority.
        let first = || all.iter().find(|own| had(own, namespace)).or(all.first());
        if let Some(owner) = has.or_else(|| Some(first()?.full.clone())) {
            owners.insert(namespace, owner);
        }
    }
    for own in standing {
        let (mut has, mut lost) = (BTreeSet::from([own.mesh.key.namespace.clone()]), None);
        for namespace in tenants.wanted(&own.full) {
            match owners.get(namespace) {
                Some(owner) if *owner != own.full => {
                    lost.get_or_insert((namespace, owner));
                }
                _ => drop(has.insert(namespace.to_owned())),
            }
        }
        if let Some((namespace, owner)) = lost {
            let sentence = format!(
                "namespace {namespace} belongs to Mesh {owner}, which selected it before Mesh {} did: change the namespace's labels or one of the selectors",
                own.mesh.key
            );
            let objection = Objection { reason: NAMESPACE_TAKEN, sentence, wholly: false };
            result.objections.insert(own.mesh.key.clone(), objection);
        }
        let held = tenants.holds(&own.full);
        // What another's status still names it gets in writing once that one's says otherwise: two that
        // name the same would contend for it as soon as both want it again.
        let named_by_another = |names: &dyn Fn(&Held) -> bool| {
            let mut others = tenants.meshes().filter(|key| **key != own.full);
            !held.is_some_and(names) && others.any(|key| tenants.holds(key).is_some_and(names))
        };
        let domain = own.mesh.compiled.as_ref().ok().map(|mesh| mesh.mesh.domain.to_string());
        let domain = domain.filter(|domain| {
            !named_by_another(&|held| held.domain.as_deref() == Some(domain.as_str()))
        });
        let free = |namespace: &&String| {
            **namespace == own.mesh.key.namespace
                || !named_by_another(&|held| held.namespaces.contains(namespace.as_str()))
        };
        let free = has.iter().filter(free).cloned().collect();
        let holds = named(domain, &free, held);
        result.holds.insert(own.mesh.key.clone(), holds);
        result.accepted.insert(own.mesh.uid.clone(), has);
    }
}

/// What a Mesh that does not stand still holds: no more than it did, and nothing that another was `given`.
/// One whose spec is refused gives up nothing else, since what it wants is not known.
fn kept(
    mesh: &Candidate,
    tenants: &Tenants,
    given: &BTreeSet<String>,
    domains: &BTreeMap<String, Key>,
) -> MeshHolds {
    let Some(full) = full(&mesh.key) else { return MeshHolds::default() };
    let Some(held) = tenants.holds(&full) else { return MeshHolds::default() };
    let keeps = |namespace: &&String| match tenants.owner(namespace) {
        Owner::Mesh(owner) | Owner::Held(owner) => owner == full,
        Owner::Contested(all) => all.contains(&full) && !given.contains(*namespace),
        Owner::Nobody => false,
    };
    let namespaces = held.namespaces.iter().filter(keeps).cloned().collect();
    let domain = held.domain.clone().filter(|domain| {
        mesh.compiled.is_err() && domains.get(domain).is_none_or(|owner| *owner == mesh.key)
    });
    named(domain, &namespaces, Some(held))
}

/// As a status names it. Of more than it has room for those come first that it names already.
fn named(domain: Option<String>, has: &BTreeSet<String>, before: Option<&Held>) -> MeshHolds {
    let known = |name: &&String| before.is_some_and(|held| held.namespaces.contains(*name));
    let (old, new): (Vec<_>, Vec<_>) = has.iter().partition(known);
    let mut namespaces: Vec<_> = old.into_iter().chain(new).take(MAX_HELD).cloned().collect();
    namespaces.sort();
    MeshHolds { domain, namespaces }
}
