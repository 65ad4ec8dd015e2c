//! A resource as a file of the state directory has it. The specs are those of `tidegate-crds`; only
//! what files need of the metadata is here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Object<Spec, Status> {
    pub api_version: String,
    pub kind: String,
    pub metadata: Metadata,
    pub spec: Spec,
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
}

fn none<T>() -> Option<T> {
    None
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl<Spec: Serialize, Status: Serialize> Object<Spec, Status> {
    pub fn new(kind: &str, metadata: Metadata, spec: Spec) -> Self {
        let api_version = format!("{}/{}", tidegate_crds::GROUP, tidegate_crds::VERSION);
        Self { api_version, kind: kind.to_owned(), metadata, spec, status: None }
    }

    /// JSON for people to read, with a last newline.
    pub fn text(&self) -> std::io::Result<Vec<u8>> {
        let mut text = serde_json::to_vec_pretty(self).map_err(std::io::Error::other)?;
        text.push(b'\n');
        Ok(text)
    }
}
