//! What windows name and nobody has: a window is good without it, and takes effect once it appears.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_policy::model::{Label, Login, LoginUser, ObjectKey, Terminal, Window};

use super::version::finding;
use crate::manifest::{Document, Finding, ObjectRef, Rule, Severity};

/// A window in force, and its document if that is what is in force.
pub(super) struct Placed<'a, 'd> {
    pub reference: &'a ObjectRef,
    pub window: &'a Window,
    pub document: Option<&'d Document>,
}

/// Notes on the users, groups, terminals and services that do not exist.
pub(super) fn unresolved<'a>(
    windows: impl Iterator<Item = Placed<'a, 'a>>,
    users: &[LoginUser],
    terminals: &[Terminal],
    home: &Label,
) -> Vec<Finding> {
    let logins: BTreeSet<&Login> = users.iter().map(|user| &user.login).collect();
    let groups: BTreeSet<(&Label, &Label)> = users
        .iter()
        .flat_map(|user| user.groups.iter().map(|group| (&user.meta.key.namespace, group)))
        .collect();
    let by_key: BTreeMap<&ObjectKey, &Terminal> =
        terminals.iter().map(|terminal| (&terminal.meta.key, terminal)).collect();
    // Many windows share few selectors.
    let mut selected: BTreeMap<String, Vec<&Terminal>> = BTreeMap::new();
    let mut findings = Vec::new();
    for Placed { reference, window, document } in windows {
        let mut note = |field: &str, name: &dyn std::fmt::Display, what: &str| {
            let sentence = format!("Not found: \"{name}\": {what}");
            let (rule, severity) = (Rule::Reference, Severity::Note);
            findings.push(finding(reference, document, field, rule, severity, &sentence));
        };
        let namespace = &window.meta.key.namespace;
        for login in window.users.names.iter().filter(|login| !logins.contains(login)) {
            note("spec.users.names", login, "no such LoginUser is in force yet");
        }
        for group in &window.users.groups {
            if !groups.contains(&(home, group)) && !groups.contains(&(namespace, group)) {
                note("spec.users.groups", group, "no LoginUser in force has this group yet");
            }
        }
        let mut reached: Vec<&Terminal> = Vec::new();
        for name in &window.terminals.names {
            let key = ObjectKey { namespace: namespace.clone(), name: name.clone() };
            match by_key.get(&key) {
                Some(terminal) => reached.push(terminal),
                None => note(
                    "spec.terminals.names",
                    name,
                    "no such Terminal is in force in this namespace yet",
                ),
            }
        }
        if let Some(selector) = &window.terminals.selector {
            let matching =
                selected.entry(format!("{namespace} {selector:?}")).or_insert_with(|| {
                    let own = terminals.iter().filter(|t| t.meta.key.namespace == *namespace);
                    own.filter(|t| selector.matches(&t.labels)).collect()
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
    }
    findings
}
