//! What the view is told: one instant's facts, gathered by the core.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tidegate_crds::manifest::{Finding, Rule, Severity};
use tidegate_policy::decide::{Candidate, Staff};
use tidegate_policy::model::{Label, ObjectKey};
use tidegate_policy::snapshot::Snapshot;

use crate::history::Entry;

/// Everything that one answer is made from.
pub struct Input<'a> {
    pub snapshot: &'a Arc<Snapshot>,
    pub staff: &'a Staff,
    pub now: Timestamp,
    /// The Relay's name.
    pub relay: &'a str,
    /// The port that the printed commands name: the one she came in by. 22 is left out.
    pub port: u16,
    /// Whether a terminal is connected; asked only about terminals that she may know of.
    pub presence: &'a dyn Fn(&Label) -> Presence,
    /// Whether a claim on the window could be had now, without taking it; `Err` is the sentence of
    /// the refusal (full, used). Asked in the order in which the core would claim.
    pub claimable: &'a dyn Fn(&Candidate) -> Result<(), String>,
    /// Live sessions, of anyone: only hers are shown.
    pub sessions: &'a [SessionView],
    /// Her last refusals and endings, in any order. Each tells only what she was told then.
    pub history: &'a [Entry],
    /// What is wrong with the policy's files: only what touches her windows is shown.
    pub findings: &'a [Flaw],
    /// Since the last complete look at the policy's source.
    pub policy_age: SignedDuration,
    /// Why this relay admits nobody at all now (policy too old, audit not writable, draining, clock).
    pub closed: Option<&'a str>,
}

/// Whether a terminal is connected to this relay.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Presence {
    Connected {
        since: Timestamp,
        from: SocketAddr,
        /// The services that its connection holds now.
        services: Vec<Label>,
        /// Its client's version line, already cleaned.
        client: String,
        /// Two connections fight for its name; newcomers are refused for a while.
        contended: bool,
    },
    LastSeen {
        at: Timestamp,
        from: SocketAddr,
    },
    Never,
}

/// A window as sessions and records carry it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WindowRef {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

/// A live session in the field names of the SupportSession resource; view and control show the same.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionView {
    /// `ss-<uuidv7>`
    pub name: String,
    pub window: WindowRef,
    pub opens_at: Timestamp,
    /// The login as typed: `alice`, `bob.acme`.
    pub user: String,
    pub terminal: String,
    pub service: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub case: Option<String>,
    pub relay_pod: String,
    pub opened_at: Timestamp,
    pub deadline: Timestamp,
    pub source: IpAddr,
    /// From staff to terminal.
    pub bytes_in: u64,
    /// From terminal to staff.
    pub bytes_out: u64,
}

/// Something wrong with a declared object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Flaw {
    /// `SupportWindow`, `Terminal`, `LoginUser`.
    pub kind: String,
    pub namespace: String,
    pub name: String,
    /// `spec.suspnd: unknown field`
    pub message: String,
}

impl Flaw {
    pub(super) fn is_about(&self, kind: &str, key: &ObjectKey) -> bool {
        self.kind == kind
            && self.namespace == key.namespace.as_str()
            && self.name == key.name.as_str()
    }
}

impl Flaw {
    /// What the view can say of a finding: an error about an object that can be named. Who else is
    /// involved, perhaps in another namespace, and which files, is for whoever reads the manifests.
    pub fn of(finding: &Finding) -> Option<Self> {
        let object = finding.object.as_ref().filter(|_| finding.severity == Severity::Error)?;
        let message = match (finding.rule, &finding.field) {
            (Rule::Conflict, Some(field)) => format!("{field}: another object has that already"),
            (Rule::Conflict, None) => "another object has that already".to_owned(),
            (Rule::Duplicate, None) => "is written more than once".to_owned(),
            _ => finding.message.clone(),
        };
        Some(Self {
            kind: object.kind.to_string(),
            namespace: object.namespace.clone(),
            name: object.name.clone(),
            message,
        })
    }
}

#[cfg(test)]
mod tests {
    use tidegate_crds::manifest::{Kind, ObjectRef};

    use super::*;

    #[test]
    fn a_flaw_names_no_other_object_and_no_file() {
        let of = |rule, field: Option<&str>, message: &str| {
            let object =
                ObjectRef { kind: Kind::Terminal, namespace: "acme".into(), name: "k".into() };
            Flaw::of(&Finding {
                position: None,
                object: Some(object),
                field: field.map(Into::into),
                rule,
                message: message.into(),
                severity: Severity::Error,
            })
            .map(|flaw| flaw.message)
        };
        let conflict = of(
            Rule::Conflict,
            Some("spec.publicKeys[0]"),
            "spec.publicKeys[0]: Duplicate value: the key SHA256:x belongs to Terminal beta/secret (b.yaml:1:1)",
        );
        assert_eq!(
            conflict.as_deref(),
            Some("spec.publicKeys[0]: another object has that already")
        );
        let twice = of(Rule::Duplicate, None, "is also in beta/private.yaml:1:1");
        assert_eq!(twice.as_deref(), Some("is written more than once"));
        let typo = of(Rule::UnknownField, Some("spec.suspnd"), "spec.suspnd: unknown field");
        assert_eq!(typo.as_deref(), Some("spec.suspnd: unknown field"));
    }
}
