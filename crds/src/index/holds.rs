//! What users and terminals hold by their statuses: what is left of it where an object cannot be decoded,
//! and what of it stays where one is refused. Pure.

use jiff::Timestamp;
use serde::Deserialize as _;
use serde_json::Value;
use tidegate_policy::model::Label;

use super::{Claimant, Index};
use crate::claims::{self, Claim};
use crate::common::Holds;
use crate::manifest::{Kind, ObjectRef};

/// Whether an object counts no more since it is being deleted, whatever still holds it up. A Relay alone
/// serves to its end.
#[must_use]
pub fn goes(kind: Kind, deleting: bool) -> bool {
    deleting && kind != Kind::Relay
}

/// What an object that cannot be decoded says of itself nevertheless. By default nothing is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remains {
    created: Option<Timestamp>,
    holds: Option<Holds>,
    /// Whether `holds` is all that its status holds.
    whole: bool,
}

impl Remains {
    /// Reads what can be read of an object as the API server has it.
    pub fn of(object: &Value) -> Self {
        let nothing = Value::Null;
        let status = object.get("status").unwrap_or(&nothing);
        let holds = status.get("holds").unwrap_or(&nothing);
        let created = object.pointer("/metadata/creationTimestamp").and_then(Value::as_str);
        let created = created.and_then(|at| at.parse().ok());
        if holds.is_null() {
            let whole = status.is_null() || status.is_object();
            return Self { created, holds: None, whole };
        }
        if let Ok(holds) = Holds::deserialize(holds) {
            return Self { created, holds: Some(holds), whole: true };
        }
        let each = |field| holds.get(field).and_then(Value::as_array).into_iter().flatten();
        let port = |port: &Value| port.as_i64().and_then(|port| i32::try_from(port).ok());
        let holds = Holds {
            generation: holds.get("generation").and_then(Value::as_i64).unwrap_or_default(),
            keys: each("keys").filter_map(Value::as_str).map(str::to_owned).collect(),
            listen_ports: each("listenPorts").filter_map(port).collect(),
        };
        Self { created, holds: Some(holds), whole: false }
    }

    /// What the status holds, as far as it can be read.
    pub fn holds(&self) -> Option<&Holds> {
        self.holds.as_ref()
    }

    /// What is left of a user or terminal: it keeps what it holds by its status and, where that cannot be
    /// read, what it was last known to hold.
    pub(super) fn claimant(&self, object: &ObjectRef, known: Option<&Claimant>) -> Claimant {
        let name = Label::parse(&object.name).ok().filter(|_| object.kind == Kind::Terminal);
        let held = self.holds.iter().flat_map(|holds| claims::held(name.as_ref(), holds));
        let mut holds: Vec<Claim> = held.collect();
        if !self.whole {
            let known = known.iter().flat_map(|known| known.holds.iter());
            let more: Vec<_> = known.filter(|claim| !holds.contains(claim)).cloned().collect();
            holds.extend(more);
        }
        let created = self.created.or(known.map(|known| known.created));
        Claimant {
            policy: None,
            created: created.unwrap_or(Timestamp::UNIX_EPOCH),
            wants: Box::default(),
            holds: holds.into(),
            // Of which generation that was said is not known any more.
            accepted: false,
        }
    }
}

impl Index {
    /// What the status of a user or terminal is to hold once it says of `generation` whether the object is
    /// `accepted`. `before`: what it holds by its status as it is.
    ///
    /// One that is refused keeps what it had, for when its spec is good again; but neither what a good spec
    /// of it wants no more, nor what is another's by now. A status that went on naming that would contend
    /// for it once more, by seniority, as soon as its new owner is edited. A spec that does not compile, or
    /// cannot be decoded, gives nothing up: what it wants is not known, and a slip of the pen must not hand
    /// a key to whoever waits for it. Nor does a terminal keep anything without its name, which it cannot
    /// change.
    pub fn holds_once(
        &self,
        object: &ObjectRef,
        accepted: bool,
        generation: i64,
        before: Option<&Holds>,
    ) -> Option<Holds> {
        if accepted {
            return Some(claims::holds(self.wants(object), generation));
        }
        let Holds { generation, keys, listen_ports } = before?.clone();
        let named = object.kind == Kind::Terminal;
        let name = Label::parse(&object.name).ok().filter(|_| named).map(Claim::TerminalName);
        if name.is_some_and(|name| self.has_lost(object, &name)) {
            return None;
        }
        let key = |key: &String| !self.has_lost(object, &Claim::Key(key.as_str().into()));
        let port = |port: &i32| {
            let port = u16::try_from(*port).map(Claim::ListenPort);
            port.is_ok_and(|port| !self.has_lost(object, &port))
        };
        let keys: Vec<_> = keys.into_iter().filter(key).collect();
        let listen_ports: Vec<_> = listen_ports.into_iter().filter(port).collect();
        (named || !keys.is_empty()).then_some(Holds { generation, keys, listen_ports })
    }

    /// Whether an object that held a value does so no more: it wants it no more, or it is another's.
    fn has_lost(&self, object: &ObjectRef, claim: &Claim) -> bool {
        // Of a namespace that is not served nothing can be said.
        let known = self.claimants.get(object).filter(|_| self.serves(&object.namespace));
        known.is_some_and(|known| {
            let unwanted = known.policy.is_some() && !known.wants.contains(claim);
            unwanted || self.rivals.holder(claim).is_some_and(|holder| **holder != *object)
        })
    }
}
