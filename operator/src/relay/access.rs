//! What the fleets' accounts may do: which account is bound where, by whose each namespace is (`Tenancy`).
//! `desired` is pure; `reconcile` touches the network.
//!
//! The roles themselves are part of the installation (manifests/operator/rbac-relay.yaml); the operator may
//! bind these and no other, in objects of one name alone, so that it can hand out nothing else.

use std::collections::BTreeSet;

use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;
use kube::runtime::reflector::ObjectRef;
use tidegate_crds::Relay;

use super::{Error, MANAGER, apply};
use crate::Context;
use crate::mesh::Tenancy;
use crate::names;
use crate::relay::watch::Stores;
use crate::watching::Key;

/// The name of every binding that is made here.
pub const BINDING: &str = "tidegate-relays";
/// In a Mesh's own namespace: reads its policy, writes sessions and claims.
pub const HOME_ROLE: &str = "tidegate-relay";
/// In a tenant's namespace: writes sessions.
pub const SESSIONS_ROLE: &str = "tidegate-relay-sessions";
/// What keeps a tenant's binding for as long as records of sessions there are held: whoever deletes the
/// namespace deletes the binding with it, and no relay could say then how its sessions ended. It is put
/// on only while there are such, so that a namespace waits for nobody else.
pub const HOLD: &str = "tidegate.dev/sessions";
/// Everywhere, for Meshes that select their tenants: reads policy.
pub const READER_ROLE: &str = "tidegate-relay-reader";

/// The bindings that there should be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Access {
    pub role_bindings: Vec<RoleBinding>,
    /// Without subjects where no Mesh selects its tenants.
    pub reader: ClusterRoleBinding,
}

/// The accounts of a Mesh's Relays, and the Mesh.
struct Fleet<'a> {
    mesh: &'a Key,
    accounts: Vec<Subject>,
}

impl<'a> Fleet<'a> {
    /// `None` where the Mesh has no Relays.
    fn of(mesh: &'a Key, relays: &[&Relay]) -> Option<Self> {
        let own = relays.iter().filter(|relay| {
            relay.namespace().as_ref() == Some(&mesh.namespace)
                && relay.spec.mesh_ref.name == mesh.name
        });
        let accounts: Vec<_> = own
            .map(|relay| Subject {
                kind: "ServiceAccount".into(),
                name: relay.name_any(),
                namespace: Some(mesh.namespace.clone()),
                api_group: None,
            })
            .collect();
        (!accounts.is_empty()).then_some(Self { mesh, accounts })
    }
}

/// Who is bound where: the relays of a Mesh in the namespaces that are its own, and nowhere else.
/// `namespaces` are those in which something can be bound.
pub fn desired(tenancy: &Tenancy, relays: &[&Relay], namespaces: &BTreeSet<String>) -> Access {
    let mut access = Access::default();
    let mut readers = Vec::new();
    for (namespace, service) in &tenancy.namespaces {
        let Some(fleet) = Fleet::of(&service.mesh, relays) else { continue };
        let home = service.mesh.namespace == *namespace;
        if home && service.selects {
            readers.extend(fleet.accounts.iter().cloned());
        }
        if namespaces.contains(namespace) {
            let role = if home { HOME_ROLE } else { SESSIONS_ROLE };
            access.role_bindings.push(role_binding(namespace, fleet, role));
        }
    }
    access.reader = reader(readers);
    access
}

fn role(name: &str) -> RoleRef {
    RoleRef {
        api_group: "rbac.authorization.k8s.io".into(),
        kind: "ClusterRole".into(),
        name: name.into(),
    }
}

fn role_binding(namespace: &str, fleet: Fleet<'_>, name: &str) -> RoleBinding {
    RoleBinding {
        metadata: ObjectMeta {
            name: Some(BINDING.into()),
            namespace: Some(namespace.into()),
            labels: Some(names::labels(&fleet.mesh.name, "relay")),
            ..ObjectMeta::default()
        },
        role_ref: role(name),
        subjects: Some(fleet.accounts),
    }
}

/// The installation brings it without subjects; these alone are the operator's.
fn reader(mut subjects: Vec<Subject>) -> ClusterRoleBinding {
    subjects.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    ClusterRoleBinding {
        metadata: ObjectMeta { name: Some(BINDING.into()), ..ObjectMeta::default() },
        role_ref: role(READER_ROLE),
        subjects: (!subjects.is_empty()).then_some(subjects),
    }
}

/// One thing to be done about a binding.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    Delete(RoleBinding),
    /// With or without what keeps it.
    Hold(RoleBinding, bool),
    Apply(RoleBinding),
    ApplyReader(ClusterRoleBinding),
}

impl Step {
    fn what(&self) -> String {
        match self {
            Self::Delete(binding) | Self::Hold(binding, _) | Self::Apply(binding) => {
                format!("RoleBinding {BINDING} in {}", binding.namespace().unwrap_or_default())
            }
            Self::ApplyReader(_) => format!("ClusterRoleBinding {BINDING}"),
        }
    }
}

/// What there is to do, what takes rights away first. A namespace that is `leaving` keeps its binding as
/// it is: relays have the ends of its sessions to write yet, or it never goes. `held` are the namespaces
/// whose records relays hold, where that is known. Another's binding is not deleted, whatever it binds.
fn steps(
    wanted: Access,
    there: &[impl AsRef<RoleBinding>],
    reader: Option<&ClusterRoleBinding>,
    leaving: &BTreeSet<String>,
    held: Option<&BTreeSet<String>>,
) -> Vec<Step> {
    let is_ours = |binding: &RoleBinding| {
        binding.labels().get("app.kubernetes.io/managed-by").is_some_and(|by| by == names::OPERATOR)
    };
    let mut steps = Vec::new();
    for found in there.iter().map(AsRef::as_ref).filter(|found| is_ours(found)) {
        let same_place = |other: &&RoleBinding| other.namespace() == found.namespace();
        let stays = match wanted.role_bindings.iter().find(same_place) {
            // The role of a binding cannot be changed.
            Some(wanted) => wanted.role_ref == found.role_ref,
            None => found.namespace().is_some_and(|namespace| leaving.contains(&namespace)),
        };
        let goes = found.metadata.deletion_timestamp.is_some();
        if !stays && !goes {
            steps.push(Step::Delete(found.clone()));
        }
        if let Some(held) = held {
            let has = found.finalizers().iter().any(|finalizer| finalizer == HOLD);
            let wants = found.role_ref.name == SESSIONS_ROLE
                && found.namespace().is_some_and(|namespace| held.contains(&namespace));
            // Nothing can be put on what is being deleted.
            if has != wants && !(wants && goes) {
                // Before it is deleted, or there would be nothing left to keep.
                let at = steps.len().saturating_sub(usize::from(!stays && !goes));
                steps.insert(at, Step::Hold(found.clone(), wants));
            }
        }
    }
    if reader.is_none_or(|reader| {
        !same_subjects(reader.subjects.as_ref(), wanted.reader.subjects.as_ref())
    }) {
        steps.push(Step::ApplyReader(wanted.reader));
    }
    for binding in wanted.role_bindings {
        let same_place = |other: &&RoleBinding| other.namespace() == binding.namespace();
        let found = there.iter().map(AsRef::as_ref).find(same_place);
        if !found.is_some_and(|found| same(found, &binding)) {
            steps.push(Step::Apply(binding));
        }
    }
    steps
}

/// Takes away what should not be bound, and binds what is not bound as it should be. What one namespace
/// refuses keeps nothing from the others; the first error is told.
pub async fn reconcile(
    ctx: &Context,
    stores: &Stores,
    tenancy: &Tenancy,
    held: Option<&BTreeSet<String>>,
) -> Result<(), Error> {
    let relays = stores.relays.state();
    let relays: Vec<&Relay> = relays
        .iter()
        .filter_map(|relay| relay.0.as_ref().ok())
        .filter(|relay| relay.metadata.deletion_timestamp.is_none() && has_account(relay, stores))
        .collect();
    let (mut namespaces, mut leaving) = (BTreeSet::new(), BTreeSet::new());
    for namespace in stores.namespaces.state() {
        if namespace.metadata.deletion_timestamp.is_some() {
            leaving.insert(namespace.name_any());
        } else {
            namespaces.insert(namespace.name_any());
        }
    }
    let wanted = desired(tenancy, &relays, &namespaces);
    let there = stores.role_bindings.state();
    let reader = stores.cluster_role_bindings.state().into_iter().next();
    let mut first = Ok(());
    for step in steps(wanted, &there, reader.as_deref(), &leaving, held) {
        let done = match &step {
            Step::Delete(binding) => ctx.writer.delete(binding).await.map(drop),
            Step::Hold(binding, hold) => {
                let change = finalizers(binding, *hold);
                ctx.writer.merge(MANAGER, binding, None, change).await.map(drop)
            }
            Step::Apply(binding) => ctx.writer.apply(MANAGER, binding).await.map(drop),
            Step::ApplyReader(reader) => ctx.writer.apply(MANAGER, reader).await.map(drop),
        };
        if let Err(source) = done {
            first = first.and(Err(Error::Apply { what: step.what(), source }));
        }
    }
    first
}

/// The change that puts [`HOLD`] on a binding as it was seen, or takes it off.
fn finalizers(binding: &RoleBinding, hold: bool) -> serde_json::Value {
    let others = binding.finalizers().iter().filter(|finalizer| *finalizer != HOLD);
    let all: Vec<&str> = others.map(String::as_str).chain(hold.then_some(HOLD)).collect();
    serde_json::json!({"metadata": {
        "uid": binding.uid(), "resourceVersion": binding.resource_version(), "finalizers": all,
    }})
}

/// Whether the account of the Relay's name is the Relay's own: another's, such as `default`, gets nothing.
fn has_account(relay: &Relay, stores: &Stores) -> bool {
    let reference =
        ObjectRef::new(&relay.name_any()).within(&relay.namespace().unwrap_or_default());
    let account = stores.accounts.get(&reference);
    account.zip(relay.uid()).is_some_and(|(account, uid)| apply::owns(&uid, &*account))
}

fn same(found: &RoleBinding, wanted: &RoleBinding) -> bool {
    let labels = wanted.metadata.labels.iter().flatten();
    found.role_ref == wanted.role_ref
        && same_subjects(found.subjects.as_ref(), wanted.subjects.as_ref())
        && labels.into_iter().all(|(key, value)| found.labels().get(key) == Some(value))
}

/// The API server fills in what is the default of an account's group.
fn same_subjects(found: Option<&Vec<Subject>>, wanted: Option<&Vec<Subject>>) -> bool {
    let plain = |subjects: Option<&Vec<Subject>>| {
        let all = subjects.into_iter().flatten();
        all.map(|s| (s.kind.clone(), s.namespace.clone(), s.name.clone())).collect::<Vec<_>>()
    };
    plain(found) == plain(wanted)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use serde_json::json;
    use tidegate_crds::Mesh;
    use tidegate_crds::index::Tenants;

    fn mesh(namespace: &str, tenants: &serde_json::Value, ready: &str) -> Mesh {
        serde_json::from_value(json!({
            "apiVersion": "tidegate.dev/v1alpha1", "kind": "Mesh",
            "metadata": {"name": "prod", "namespace": namespace, "uid": namespace, "generation": 1},
            "spec": {"domain": "support.example.com", "tenants": tenants},
            "status": {"conditions": [{
                "type": "Ready", "status": ready, "reason": "R", "message": "",
                "observedGeneration": 1, "lastTransitionTime": "2026-11-24T22:00:00Z",
            }]},
        }))
        .unwrap()
    }

    /// By the namespaces below.
    fn tenancy(meshes: &[&Mesh]) -> Tenancy {
        let mut tenants = Tenants::default();
        let label = BTreeMap::from([("mesh".to_owned(), "prod".to_owned())]);
        for (name, has) in [("acme", true), ("default", false), ("fleet", true), ("other", true)] {
            tenants.put_namespace(name, if has { &label } else { const { &BTreeMap::new() } });
        }
        for mesh in meshes {
            let key = crate::mesh::full(&Key::of(*mesh)).unwrap();
            tenants.put_mesh(key, mesh).unwrap();
        }
        Tenancy::of(&tenants, &tenants)
    }

    fn desired(meshes: &[&Mesh], relays: &[&Relay]) -> Access {
        let namespaces = ["acme", "default", "fleet", "other"].map(str::to_owned);
        super::desired(&tenancy(meshes), relays, &BTreeSet::from(namespaces))
    }

    fn relay(namespace: &str, name: &str) -> Relay {
        serde_json::from_value(json!({
            "apiVersion": "tidegate.dev/v1alpha1", "kind": "Relay",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"meshRef": {"name": "prod"}, "replicas": 1},
        }))
        .unwrap()
    }

    fn bound(access: &Access) -> Vec<String> {
        let say = |namespace: &str, role: &RoleRef, subjects: Option<&Vec<Subject>>| {
            let who = subjects.into_iter().flatten();
            let who: Vec<_> = who
                .map(|s| format!("{}/{}", s.namespace.as_deref().unwrap_or(""), s.name))
                .collect();
            format!("{namespace}: {} to {}", role.name, who.join(" "))
        };
        let roles = access.role_bindings.iter().map(|binding| {
            say(&binding.namespace().unwrap(), &binding.role_ref, binding.subjects.as_ref())
        });
        let reader = say("*", &access.reader.role_ref, access.reader.subjects.as_ref());
        roles.chain([reader]).collect()
    }

    #[test]
    fn a_mesh_of_its_own_namespace_needs_no_right_elsewhere() {
        let mesh = mesh("fleet", &json!({"from": "Same"}), "True");
        let (a, b, stray) = (relay("fleet", "a"), relay("fleet", "b"), relay("default", "c"));
        let access = desired(&[&mesh], &[&a, &b, &stray]);
        assert_eq!(
            bound(&access),
            ["fleet: tidegate-relay to fleet/a fleet/b", "*: tidegate-relay-reader to "]
        );
    }

    #[test]
    fn a_mesh_that_selects_reads_everywhere_and_writes_sessions_at_its_tenants() {
        let selector = json!({"from": "Selector", "selector": {"matchLabels": {"mesh": "prod"}}});
        let first = mesh("fleet", &selector, "True");
        let a = relay("fleet", "a");
        let one = desired(&[&first], &[&a]);
        assert_eq!(
            bound(&one),
            [
                "acme: tidegate-relay-sessions to fleet/a",
                "fleet: tidegate-relay to fleet/a",
                "other: tidegate-relay-sessions to fleet/a",
                "*: tidegate-relay-reader to fleet/a",
            ]
        );
        // A second one wants the same tenants, and does not get them.
        let second = mesh("other", &selector, "False");
        let b = relay("other", "b");
        let two = desired(&[&first, &second], &[&a, &b]);
        assert_eq!(
            bound(&two),
            [
                "acme: tidegate-relay-sessions to fleet/a",
                "fleet: tidegate-relay to fleet/a",
                "other: tidegate-relay to other/b",
                "*: tidegate-relay-reader to fleet/a other/b",
            ]
        );
        let neither = mesh("fleet", &selector, "False");
        let none = desired(&[&neither, &second], &[&a, &b]);
        assert!(!bound(&none).iter().any(|line| line.starts_with("acme")), "in doubt nobody");
    }

    #[test]
    fn rights_are_taken_first_and_never_from_others_or_from_what_is_leaving() {
        let selector = json!({"from": "Selector", "selector": {"matchLabels": {"mesh": "prod"}}});
        let (mesh, relay) = (mesh("fleet", &selector, "True"), relay("fleet", "a"));
        let wanted = desired(&[&mesh], &[&relay]);
        let binding = |namespace: &str, role: &str, by: &str| -> Arc<RoleBinding> {
            let binding = json!({
                "metadata": {"name": BINDING, "namespace": namespace, "labels": {
                    "app.kubernetes.io/managed-by": by,
                }},
                "roleRef": {
                    "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role,
                },
            });
            Arc::new(serde_json::from_value(binding).unwrap())
        };
        let there = [
            binding("acme", HOME_ROLE, names::OPERATOR),
            binding("fleet", "edit", "someone"),
            binding("gone", SESSIONS_ROLE, names::OPERATOR),
            binding("leaving", SESSIONS_ROLE, names::OPERATOR),
            binding("theirs", "edit", "someone"),
        ];
        let leaving = BTreeSet::from(["leaving".to_owned()]);
        let said = |there: &[Arc<RoleBinding>], reader: Option<&ClusterRoleBinding>| {
            let steps = steps(wanted.clone(), there, reader, &leaving, None);
            let say = |step: &Step| match step {
                Step::Hold(..) => panic!("nobody knows of sessions"),
                Step::Delete(binding) => format!("delete {}", binding.namespace().unwrap()),
                Step::Apply(binding) => format!("apply {}", binding.namespace().unwrap()),
                Step::ApplyReader(_) => "apply *".to_owned(),
            };
            steps.iter().map(say).collect::<Vec<_>>()
        };
        assert_eq!(
            said(&there, None),
            ["delete acme", "delete gone", "apply *", "apply acme", "apply fleet", "apply other"]
        );
        let right: Vec<_> = wanted.role_bindings.iter().cloned().map(Arc::new).collect();
        assert_eq!(said(&right, Some(&wanted.reader)), Vec::<String>::new());
    }

    #[test]
    fn a_binding_is_kept_for_as_long_as_records_are_held() {
        let binding = |namespace: &str, role: &str, more: &serde_json::Value| -> Arc<RoleBinding> {
            let mut binding = json!({
                "metadata": {"name": BINDING, "namespace": namespace, "labels": {
                    "app.kubernetes.io/managed-by": names::OPERATOR,
                }},
                "roleRef": {
                    "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role,
                },
            });
            let metadata = binding["metadata"].as_object_mut().unwrap();
            metadata.extend(more.as_object().unwrap().clone());
            Arc::new(serde_json::from_value(binding).unwrap())
        };
        let kept = json!({"finalizers": ["other", HOLD]});
        let going = |more: &serde_json::Value| {
            let mut going = json!({"deletionTimestamp": "2026-11-24T22:00:00Z"});
            going.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            going
        };
        let there = [
            binding("held", SESSIONS_ROLE, &json!({})),
            binding("held-already", SESSIONS_ROLE, &kept),
            binding("held-going", SESSIONS_ROLE, &going(&kept)),
            binding("held-too-late", SESSIONS_ROLE, &going(&json!({"finalizers": ["other"]}))),
            binding("held-home", HOME_ROLE, &json!({})),
            binding("over", SESSIONS_ROLE, &kept),
            binding("over-going", SESSIONS_ROLE, &going(&kept)),
        ];
        let all: BTreeSet<String> = there.iter().filter_map(|it| it.namespace()).collect();
        let held = all.iter().filter(|name| name.starts_with("held")).cloned().collect();
        let said = |leaving: &BTreeSet<String>| -> Vec<String> {
            let steps = steps(Access::default(), &there, None, leaving, Some(&held));
            let say = |step: &Step| match step {
                Step::Hold(binding, hold) => {
                    Some(format!("{hold} {}", binding.namespace().unwrap()))
                }
                Step::Delete(binding) => Some(format!("delete {}", binding.namespace().unwrap())),
                Step::Apply(_) | Step::ApplyReader(_) => None,
            };
            steps.iter().filter_map(say).collect()
        };
        assert_eq!(said(&all), ["true held", "false over", "false over-going"]);
        assert_eq!(
            said(&BTreeSet::new()),
            [
                "true held",
                "delete held",
                "delete held-already",
                "delete held-home",
                "false over",
                "delete over",
                "false over-going",
            ],
            "what is deleted is kept first"
        );
        assert_eq!(finalizers(&there[1], false)["metadata"]["finalizers"], json!(["other"]));
        assert_eq!(finalizers(&there[0], true)["metadata"]["finalizers"], json!([HOLD]));
    }

    #[test]
    fn an_edit_that_nobody_has_looked_at_yet_takes_no_right_away() {
        let selector = json!({"from": "Selector", "selector": {"matchLabels": {"mesh": "prod"}}});
        let mut first = mesh("fleet", &selector, "True");
        let second = mesh("other", &selector, "False");
        let (a, b) = (relay("fleet", "a"), relay("other", "b"));
        let before = bound(&desired(&[&first, &second], &[&a, &b]));
        first.metadata.generation = Some(2);
        assert_eq!(bound(&desired(&[&first, &second], &[&a, &b])), before);
    }

    #[test]
    fn a_mesh_that_has_not_even_its_own_namespace_reads_nothing() {
        let selector = json!({"from": "Selector", "selector": {"matchLabels": {"mesh": "prod"}}});
        let first = mesh("fleet", &selector, "True");
        let mut second = mesh("fleet", &selector, "False");
        second.metadata.name = Some("second".into());
        let mut late = relay("fleet", "late");
        late.spec.mesh_ref.name = "second".into();
        let access = bound(&desired(&[&first, &second], &[&relay("fleet", "a"), &late]));
        assert!(access.iter().all(|line| !line.contains("late")), "{access:?}");
        // Nor does one where no policy would hold its relays to their records.
        let exempt = mesh("kube-system", &selector, "True");
        assert_eq!(
            bound(&super::desired(
                &Tenancy::default(),
                &[&relay("kube-system", "a")],
                &BTreeSet::from(["acme".to_owned(), "kube-system".to_owned()])
            )),
            ["*: tidegate-relay-reader to "]
        );
        let mut tenants = Tenants::default();
        let key = crate::mesh::full(&Key::of(&exempt)).unwrap();
        assert!(tenants.put_mesh(key, &exempt).is_err());
        assert!(Tenancy::of(&tenants, &tenants).namespaces.is_empty());
    }

    #[test]
    fn without_relays_nothing_is_bound() {
        let mesh = mesh("fleet", &json!({"from": "Same"}), "True");
        assert_eq!(bound(&desired(&[&mesh], &[])), ["*: tidegate-relay-reader to "]);
    }
}
