//! What windows name and nobody has: a window is good without it, and takes effect once it appears.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidegate_policy::model::{Label, ObjectKey, Terminal, Window};
use tidegate_policy::snapshot::Snapshot;

/// One thing that a window names and that is not in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Such as `spec.terminals.names`.
    pub field: &'static str,
    /// What is named; `selector` for a selector.
    pub name: String,
    /// What is wrong with it, as the end of a sentence.
    pub what: &'static str,
}

/// Looks up what windows name. One serves many windows, since many share few selectors.
pub struct References<'a> {
    snapshot: &'a Snapshot,
    selected: BTreeMap<String, Vec<&'a Arc<Terminal>>>,
}

impl<'a> References<'a> {
    pub fn new(snapshot: &'a Snapshot) -> Self {
        Self { snapshot, selected: BTreeMap::new() }
    }

    /// The users, groups, terminals and services that a window names and that are not in force.
    pub fn missing(&mut self, window: &Window) -> Vec<Missing> {
        let mut missing = Vec::new();
        let mut note = |field, name: &dyn ToString, what| {
            missing.push(Missing { field, name: name.to_string(), what });
        };
        let namespace = &window.meta.key.namespace;
        for login in &window.users.names {
            if self.snapshot.user(login).is_none() {
                note("spec.users.names", login, "no such LoginUser is in force yet");
            }
        }
        for group in &window.users.groups {
            let near = |tenant: &Label| tenant == namespace;
            let mut members = self.snapshot.members(group);
            if !members.any(|user| user.login.tenant.as_ref().is_none_or(near)) {
                note("spec.users.groups", group, "no LoginUser in force has this group yet");
            }
        }
        let mut reached: Vec<&Arc<Terminal>> = Vec::new();
        for name in &window.terminals.names {
            let key = ObjectKey { namespace: namespace.clone(), name: name.clone() };
            match self.snapshot.terminal_at(&key) {
                Some(terminal) => reached.push(terminal),
                None => note(
                    "spec.terminals.names",
                    name,
                    "no such Terminal is in force in this namespace yet",
                ),
            }
        }
        if let Some(selector) = &window.terminals.selector {
            let key = format!("{namespace} {selector:?}");
            let matching = self.selected.entry(key).or_insert_with(|| {
                let own = self.snapshot.terminals_in(namespace);
                own.filter(|terminal| selector.matches(&terminal.labels)).collect()
            });
            if matching.is_empty() {
                note(
                    "spec.terminals.selector",
                    &"selector",
                    "it matches no Terminal in force in this namespace yet",
                );
            }
            reached.extend(matching.iter().copied());
        }
        for service in &window.services {
            let declared = reached.iter().any(|t| t.service(service.as_str()).is_some());
            if !reached.is_empty() && !declared {
                note("spec.services", service, "none of the window's Terminals declares it yet");
            }
        }
        missing
    }
}
