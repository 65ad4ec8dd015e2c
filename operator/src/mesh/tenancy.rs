//! Which Mesh serves which namespace, and which Meshes stand in another's way. Pure.
//!
//! One Mesh per namespace, one per domain, and one for each namespace that selectors choose: the first
//! accepted keeps what it has. First is the one that is Ready in its present generation, then the one
//! that this process accepted last, then the oldest. A Mesh's own namespace is always its own: no
//! other's selector reaches into it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use tidegate_crds::compile::{CompiledMesh, Refusal};

use crate::watching::Key;

/// A Mesh as the judge sees it.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub key: Key,
    pub uid: String,
    pub created: Timestamp,
    pub compiled: Result<CompiledMesh, Vec<Refusal>>,
    /// Ready=True, said of its present generation.
    pub ready: bool,
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
}

/// Which Mesh serves which namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tenancy {
    /// Whether all Meshes and namespaces are known; before, nothing may be concluded.
    pub complete: bool,
    pub namespaces: BTreeMap<String, Service>,
}

/// The namespaces of each accepted Mesh, by its uid: what it keeps against a later one.
pub type Accepted = BTreeMap<String, BTreeSet<String>>;

/// What came of judging all Meshes together.
#[derive(Clone, Debug, Default)]
pub struct Judgement {
    pub objections: BTreeMap<Key, Objection>,
    pub tenancy: Tenancy,
    /// To be given to the next judgement.
    pub accepted: Accepted,
}

/// Judges all Meshes. `namespaces` are all of the cluster's, with their labels.
pub fn judge(
    meshes: &[Candidate],
    namespaces: &BTreeMap<String, BTreeMap<String, String>>,
    before: &Accepted,
) -> Judgement {
    let mut order: Vec<&Candidate> = meshes.iter().collect();
    order.sort_by_key(|mesh| {
        (Reverse(mesh.ready), Reverse(before.contains_key(&mesh.uid)), mesh.created, &mesh.key)
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
                standing.push((mesh, compiled));
            }
            Err(objection) => {
                result.objections.insert(mesh.key.clone(), objection);
            }
        }
    }
    share(&standing, namespaces, before, &mut result);
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

/// Gives each namespace to one Mesh.
fn share(
    standing: &[(&Candidate, &CompiledMesh)],
    namespaces: &BTreeMap<String, BTreeMap<String, String>>,
    before: &Accepted,
    result: &mut Judgement,
) {
    let mut owners: BTreeMap<&str, (&Candidate, &CompiledMesh)> =
        standing.iter().map(|owner| (owner.0.key.namespace.as_str(), *owner)).collect();
    // Whoever had a namespace keeps it, then whoever comes first.
    for kept in [true, false] {
        for owner @ (mesh, compiled) in standing {
            let Some(selector) = &compiled.tenants else { continue };
            for (namespace, labels) in namespaces {
                let had = before.get(&mesh.uid).is_some_and(|held| held.contains(namespace));
                if had == kept && selector.matches(labels) {
                    owners.entry(namespace).or_insert(*owner);
                }
            }
        }
    }
    for (mesh, compiled) in standing {
        let Some(selector) = &compiled.tenants else { continue };
        let lost = namespaces.iter().filter(|(_, labels)| selector.matches(labels)).find_map(
            |(namespace, _)| {
                let (owner, _) = owners.get(namespace.as_str())?;
                // Another's own namespace is no tenant's, and nothing to quarrel about.
                let quarrel = owner.key != mesh.key && owner.key.namespace != *namespace;
                quarrel.then_some((namespace, &owner.key))
            },
        );
        if let Some((namespace, owner)) = lost {
            let sentence = format!(
                "namespace {namespace} belongs to Mesh {owner}, which selected it before Mesh {} did: change the namespace's labels or one of the selectors",
                mesh.key
            );
            let objection = Objection { reason: "NamespaceTaken", sentence, wholly: false };
            result.objections.insert(mesh.key.clone(), objection);
        }
    }
    for (namespace, (mesh, compiled)) in owners {
        let service =
            Service { mesh: mesh.key.clone(), retention: compiled.mesh.session_retention };
        result.tenancy.namespaces.insert(namespace.to_owned(), service);
        result.accepted.entry(mesh.uid.clone()).or_default().insert(namespace.to_owned());
    }
    result.tenancy.complete = true;
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tidegate_crds::Mesh;
    use tidegate_crds::compile::{Identity, mesh as compile};

    use super::*;

    fn candidate(namespace: &str, name: &str, domain: &str, label: Option<&str>) -> Candidate {
        let tenants = label.map(|value| {
            serde_json::json!({"from": "Selector", "selector": {"matchLabels": {"mesh": value}}})
        });
        let mut object = serde_json::json!({
            "apiVersion": "tidegate.dev/v1alpha1", "kind": "Mesh",
            "metadata": {"namespace": namespace, "name": name},
            "spec": {"domain": domain},
        });
        if let Some(tenants) = tenants {
            object["spec"]["tenants"] = tenants;
        }
        let mesh: Mesh = serde_json::from_value(object).unwrap();
        let created = Timestamp::from_second(1000).unwrap();
        let uid = format!("{namespace}-{name}");
        let identity = Identity { uid: Arc::from(uid.as_str()), generation: 1, created };
        Candidate {
            key: Key::new(namespace, name),
            uid,
            created,
            compiled: compile(&mesh, &identity),
            ready: false,
        }
    }

    fn later(mut candidate: Candidate) -> Candidate {
        candidate.created = Timestamp::from_second(2000).unwrap();
        candidate
    }

    fn cluster(all: &[(&str, &str)]) -> BTreeMap<String, BTreeMap<String, String>> {
        let labels = |value: &str| {
            if value.is_empty() {
                BTreeMap::new()
            } else {
                BTreeMap::from([("mesh".to_owned(), value.to_owned())])
            }
        };
        all.iter().map(|(name, value)| ((*name).to_owned(), labels(value))).collect()
    }

    #[test]
    fn the_second_of_a_namespace_or_domain_is_refused_and_both_are_named() {
        let meshes = [
            later(candidate("a", "new", "new.example.com", None)),
            candidate("a", "old", "old.example.com", None),
            later(candidate("b", "thief", "old.example.com", None)),
        ];
        let judged = judge(&meshes, &cluster(&[("a", ""), ("b", "")]), &Accepted::new());
        let second = &judged.objections[&Key::new("a", "new")];
        assert_eq!((second.reason, second.wholly), ("SecondMesh", true));
        assert!(second.sentence.contains("Mesh old") && second.sentence.contains("Mesh new"));
        let thief = &judged.objections[&Key::new("b", "thief")];
        assert_eq!(thief.reason, "DomainTaken");
        assert!(thief.sentence.contains("a/old") && thief.sentence.contains("b/thief"));
        let served: Vec<_> = judged.tenancy.namespaces.keys().collect();
        assert_eq!(served, ["a"]);
    }

    #[test]
    fn who_is_ready_comes_before_who_is_older_and_whose_edit_is_not_accepted_yet() {
        let mut ready = later(candidate("a", "ready", "x.example.com", None));
        ready.ready = true;
        let edited = candidate("b", "edited", "x.example.com", None);
        let judged = judge(&[edited, ready], &cluster(&[]), &Accepted::new());
        assert_eq!(judged.objections.keys().collect::<Vec<_>>(), [&Key::new("b", "edited")]);
    }

    #[test]
    fn a_namespace_that_two_select_stays_with_the_first() {
        let first = candidate("a", "m", "a.example.com", Some("one"));
        let second = later(candidate("b", "m", "b.example.com", Some("one")));
        let all = cluster(&[("a", ""), ("b", ""), ("t1", "one"), ("t2", "")]);
        let judged = judge(&[second.clone(), first.clone()], &all, &Accepted::new());
        let lost = &judged.objections[&second.key];
        assert_eq!((lost.reason, lost.wholly), ("NamespaceTaken", false));
        assert!(lost.sentence.contains("a/m") && lost.sentence.contains("b/m"), "{lost:?}");
        assert_eq!(judged.tenancy.namespaces["t1"].mesh, first.key);
        assert_eq!(judged.tenancy.namespaces["b"].mesh, second.key);
        assert!(!judged.tenancy.namespaces.contains_key("t2"));

        // The second has it already: an older one whose selector is widened later gets nothing.
        let held = Accepted::from([(second.uid.clone(), BTreeSet::from(["t1".to_owned()]))]);
        let judged = judge(&[second.clone(), first.clone()], &all, &held);
        assert_eq!(judged.tenancy.namespaces["t1"].mesh, second.key);
        assert_eq!(judged.objections.keys().collect::<Vec<_>>(), [&first.key]);
    }

    #[test]
    fn a_meshs_own_namespace_is_its_own() {
        let wide = candidate("a", "wide", "a.example.com", Some("one"));
        let own = later(candidate("b", "own", "b.example.com", None));
        let judged =
            judge(&[wide, own.clone()], &cluster(&[("a", ""), ("b", "one")]), &Accepted::new());
        assert!(judged.objections.is_empty(), "{:?}", judged.objections);
        assert_eq!(judged.tenancy.namespaces["b"].mesh, own.key);
    }

    #[test]
    fn an_invalid_mesh_serves_nothing_and_says_why() {
        let bad = candidate("a", "bad", "UPPER", None);
        let judged = judge(&[bad], &cluster(&[("a", "")]), &Accepted::new());
        let objection = &judged.objections[&Key::new("a", "bad")];
        assert!(objection.wholly && objection.sentence.starts_with("spec.domain"), "{objection:?}");
        assert!(judged.tenancy.namespaces.is_empty() && judged.tenancy.complete);
    }
}
