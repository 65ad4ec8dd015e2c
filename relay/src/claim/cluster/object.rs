//! A claim as the API server has it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::core::DynamicObject;
use tidegate_crds::SupportClaim;
use tidegate_crds::support_claim::{self, ATTEMPT, CLAIM, USER};

use super::super::Holder;
use super::super::table::{Asker, Limit, Wanted};

/// What is kept of a claim.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    pub uid: String,
    pub holder: Holder,
    pub pod: String,
    /// Which attempt of which process made it.
    pub attempt: String,
    /// The place, as its name says; `None` for a one-time claim.
    pub index: Option<u32>,
    /// Whether it may be freed.
    pub reusable: bool,
}

/// What the names of a window's claims are or begin with.
pub fn claim_name(wanted: &Wanted) -> String {
    let (namespace, name) = (wanted.window.namespace.as_str(), wanted.window.name.as_str());
    match wanted.limit {
        Limit::Once => support_claim::once_name(namespace, name),
        Limit::Places(_) => support_claim::places_name(namespace, name, wanted.opens),
    }
}

/// The place that a name ends with.
pub fn index(name: &str) -> Option<u32> {
    name.strip_prefix("sc-")?.split_once('-')?.1.parse().ok()
}

/// The object that makes the claim by being created. `index`: `None` for a one-time claim.
pub fn draft(
    wanted: &Wanted,
    index: Option<u32>,
    asker: &Asker<'_>,
    attempt: &str,
) -> Result<DynamicObject, serde_json::Error> {
    let claim = claim_name(wanted);
    let name = index.map_or_else(|| claim.clone(), |i| support_claim::place_name(&claim, i));
    let (spec, mut annotations) = asker.claim(wanted, index);
    annotations.insert(ATTEMPT.to_owned(), attempt.to_owned());
    let mut object = SupportClaim::new(&name, spec);
    object.metadata.labels = Some(BTreeMap::from([(CLAIM.to_owned(), claim)]));
    object.metadata.annotations = Some(annotations);
    serde_json::to_value(object).and_then(serde_json::from_value)
}

/// What the object says, as far as it can be read: that it is there is what counts.
pub fn entry(object: &DynamicObject) -> Entry {
    let metadata = &object.metadata;
    let annotation = |key: &str| {
        let annotations = metadata.annotations.as_ref();
        annotations.and_then(|a| a.get(key)).cloned().unwrap_or_default()
    };
    let spec = object.data.get("spec");
    let text = |field: &str| {
        let value = spec.and_then(|spec| spec.get(field));
        value.and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
    };
    let reusable = spec.and_then(|spec| spec.get("reusable"));
    let since = metadata.creation_timestamp.as_ref().map(|time| time.0);
    Entry {
        uid: metadata.uid.clone().unwrap_or_default(),
        holder: Holder {
            session: text("session"),
            user: annotation(USER),
            since: since.unwrap_or(Timestamp::UNIX_EPOCH),
        },
        pod: text("relayPod"),
        attempt: annotation(ATTEMPT),
        index: index(metadata.name.as_deref().unwrap_or_default()),
        reusable: reusable.and_then(serde_json::Value::as_bool).unwrap_or(false),
    }
}
