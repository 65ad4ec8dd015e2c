//! The kinds that a manifest may hold, each with its schema and rules, made ready once.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps,
};

use super::Kind;
use super::rules::Rules;
use super::schema::{Schema, Type};

/// What values of one kind are checked against.
#[derive(Debug)]
pub(super) struct Checks {
    /// Of the whole object, `metadata` included.
    pub schema: Schema,
    pub rules: Rules,
}

impl Checks {
    pub fn new(props: &JSONSchemaProps) -> Self {
        let mut schema = Schema::from(props);
        let text = || {
            Schema::from(&JSONSchemaProps {
                type_: Some("string".to_owned()),
                ..JSONSchemaProps::default()
            })
        };
        schema.kind = Type::Object;
        schema.properties.insert("apiVersion".to_owned(), text());
        schema.properties.insert("kind".to_owned(), text());
        schema.properties.insert("metadata".to_owned(), Schema::metadata());
        Self { schema, rules: Rules::new(&serde_json::to_value(props).unwrap_or_default()) }
    }
}

/// The checks of a kind of ours; `None` for Namespace, which is the API server's own.
pub(super) fn checks(kind: Kind) -> Option<&'static Checks> {
    static ALL: OnceLock<BTreeMap<Kind, Checks>> = OnceLock::new();
    ALL.get_or_init(|| {
        crate::crds()
            .iter()
            .filter_map(|crd| Some((Kind::own(&crd.spec.names.kind)?, Checks::new(schema(crd)?))))
            .collect()
    })
    .get(&kind)
}

/// The checks of a Namespace, of which only the metadata matters.
pub(super) fn namespace_schema() -> &'static Schema {
    static SCHEMA: OnceLock<Schema> = OnceLock::new();
    SCHEMA.get_or_init(Schema::metadata)
}

fn schema(crd: &CustomResourceDefinition) -> Option<&JSONSchemaProps> {
    let version = crd.spec.versions.iter().find(|version| version.name == crate::VERSION)?;
    version.schema.as_ref()?.open_api_v3_schema.as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::format;
    use crate::manifest::schema::Additional;

    /// What the schemas use and this module does not check would be let through in silence.
    #[test]
    fn every_schema_is_understood() {
        fn walk(schema: &Schema, path: &str) {
            if let Some(format) = &schema.format {
                assert!(format::KNOWN.contains(&format.as_str()), "{path}: format {format}");
            }
            if let Some(pattern) = &schema.pattern {
                assert!(pattern.regex.is_ok(), "{path}: {pattern:?}");
            }
            for (name, schema) in &schema.properties {
                walk(schema, &format!("{path}.{name}"));
            }
            if let Some(items) = &schema.items {
                walk(items, &format!("{path}[]"));
            }
            if let Additional::Schema(schema) = &schema.additional {
                walk(schema, &format!("{path}.*"));
            }
        }
        for kind in Kind::OWN {
            walk(&checks(kind).unwrap().schema, kind.as_str());
        }
    }
}
