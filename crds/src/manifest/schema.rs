//! A structural OpenAPI v3 schema made ready for checking: patterns compiled, everything else as it came.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use regex::Regex;
use serde_json::{Value, json};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
    IntOrString,
    Any,
}

impl Type {
    /// As the server's sentences name it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::IntOrString => "integer,string",
            Self::Any => "any",
        }
    }
}

#[derive(Debug)]
pub(super) struct Pattern {
    /// As the schema has it.
    pub text: String,
    /// Or why it cannot be compiled; then no value fits.
    pub regex: Result<Regex, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ListType {
    Atomic,
    Set,
    Map,
}

/// What stands under `additionalProperties`.
#[derive(Debug)]
pub(super) enum Additional {
    /// Nothing: other properties are unknown.
    None,
    /// `true`.
    Any,
    Schema(Box<Schema>),
}

#[derive(Debug)]
pub(super) struct Schema {
    pub kind: Type,
    pub nullable: bool,
    pub format: Option<String>,
    pub pattern: Option<Pattern>,
    pub lengths: (Option<i64>, Option<i64>),
    pub minimum: Option<(f64, bool)>,
    pub maximum: Option<(f64, bool)>,
    pub multiple_of: Option<f64>,
    pub allowed: Vec<Value>,
    pub items: Option<Box<Schema>>,
    pub item_counts: (Option<i64>, Option<i64>),
    pub unique_items: bool,
    pub list: ListType,
    pub list_keys: Vec<String>,
    pub properties: BTreeMap<String, Schema>,
    pub additional: Additional,
    pub required: Vec<String>,
    pub property_counts: (Option<i64>, Option<i64>),
    pub preserve_unknown: bool,
    pub default: Option<Value>,
    pub all_of: Vec<Schema>,
    pub any_of: Vec<Schema>,
    pub one_of: Vec<Schema>,
    pub not: Option<Box<Schema>>,
}

impl From<&JSONSchemaProps> for Schema {
    fn from(props: &JSONSchemaProps) -> Self {
        let many = |schemas: &Option<Vec<JSONSchemaProps>>| {
            schemas.iter().flatten().map(Schema::from).collect()
        };
        Self {
            kind: kind(props),
            nullable: props.nullable == Some(true),
            format: props.format.clone(),
            pattern: props.pattern.as_ref().filter(|text| !text.is_empty()).map(|text| Pattern {
                text: text.clone(),
                regex: Regex::new(&as_go_reads(text)).map_err(|error| error.to_string()),
            }),
            lengths: (props.min_length, props.max_length),
            minimum: props.minimum.map(|bound| (bound, props.exclusive_minimum == Some(true))),
            maximum: props.maximum.map(|bound| (bound, props.exclusive_maximum == Some(true))),
            multiple_of: props.multiple_of,
            allowed: props.enum_.iter().flatten().map(|value| value.0.clone()).collect(),
            items: match &props.items {
                Some(JSONSchemaPropsOrArray::Schema(schema)) => {
                    Some(Box::new(Schema::from(schema.as_ref())))
                }
                _ => None,
            },
            item_counts: (props.min_items, props.max_items),
            unique_items: props.unique_items == Some(true),
            list: match props.x_kubernetes_list_type.as_deref() {
                Some("set") => ListType::Set,
                Some("map") => ListType::Map,
                _ => ListType::Atomic,
            },
            list_keys: props.x_kubernetes_list_map_keys.clone().unwrap_or_default(),
            properties: props
                .properties
                .iter()
                .flatten()
                .map(|(name, schema)| (name.clone(), Schema::from(schema)))
                .collect(),
            additional: match &props.additional_properties {
                Some(JSONSchemaPropsOrBool::Schema(schema)) => {
                    Additional::Schema(Box::new(Schema::from(schema.as_ref())))
                }
                Some(JSONSchemaPropsOrBool::Bool(true)) => Additional::Any,
                _ => Additional::None,
            },
            required: props.required.clone().unwrap_or_default(),
            property_counts: (props.min_properties, props.max_properties),
            preserve_unknown: props.x_kubernetes_preserve_unknown_fields == Some(true),
            default: props.default.as_ref().map(|value| value.0.clone()),
            all_of: many(&props.all_of),
            any_of: many(&props.any_of),
            one_of: many(&props.one_of),
            not: props.not.as_ref().map(|schema| Box::new(Schema::from(schema.as_ref()))),
        }
    }
}

impl Schema {
    /// The schema of a map's field, by name; of any name where the map is open.
    pub fn field(&self, name: &str) -> Option<&Schema> {
        self.properties.get(name).or(match &self.additional {
            Additional::Schema(schema) => Some(schema.as_ref()),
            _ => None,
        })
    }

    /// What the server knows of `metadata` (ObjectMeta), beyond what a CRD says of it.
    pub fn metadata() -> Self {
        let text = json!({"type": "string"});
        let texts = json!({"type": "object", "additionalProperties": {"type": "string"}});
        let number = json!({"type": "integer"});
        let free = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        let props: Result<JSONSchemaProps, _> = serde_json::from_value(json!({
            "type": "object",
            "properties": {
                "name": text, "generateName": text, "namespace": text, "selfLink": text,
                "uid": text, "resourceVersion": text, "generation": number,
                "creationTimestamp": {"type": "string", "format": "date-time"},
                "deletionTimestamp": {"type": "string", "format": "date-time"},
                "deletionGracePeriodSeconds": number,
                "labels": texts, "annotations": texts,
                "ownerReferences": {"type": "array", "items": free},
                "finalizers": {"type": "array", "items": text},
                "managedFields": {"type": "array", "items": free},
            },
        }));
        Schema::from(&props.unwrap_or_default())
    }
}

fn kind(props: &JSONSchemaProps) -> Type {
    if props.x_kubernetes_int_or_string == Some(true) {
        return Type::IntOrString;
    }
    match props.type_.as_deref() {
        Some("object") => Type::Object,
        Some("array") => Type::Array,
        Some("string") => Type::String,
        Some("integer") => Type::Integer,
        Some("number") => Type::Number,
        Some("boolean") => Type::Boolean,
        _ => Type::Any,
    }
}

/// A pattern of Go for Rust's `regex`: there `\d`, `\w`, `\s` are ASCII alone, here they would be Unicode.
fn as_go_reads(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut chars = pattern.chars();
    let mut in_class = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                let class = match chars.next() {
                    Some('d') => "0-9",
                    Some('w') => "0-9A-Za-z_",
                    Some('s') => r"\t\n\f\r ",
                    Some(other) => {
                        out.push('\\');
                        out.push(other);
                        continue;
                    }
                    None => {
                        out.push('\\');
                        continue;
                    }
                };
                if in_class {
                    out.push_str(class);
                } else {
                    out.push('[');
                    out.push_str(class);
                    out.push(']');
                }
            }
            '[' if !in_class => {
                in_class = true;
                out.push(c);
            }
            '[' if chars.as_str().starts_with(':') => {
                // A class by name: [:alpha:].
                out.push(c);
                for c in chars.by_ref() {
                    out.push(c);
                    if c == ']' {
                        break;
                    }
                }
            }
            // In Go a bracket inside a class is a bracket; in Rust it would begin a nested class.
            '[' => out.push_str(r"\["),
            ']' if in_class && !out.ends_with('[') && !out.ends_with("[^") => {
                in_class = false;
                out.push(c);
            }
            '&' | '~' | '-' if in_class && out.ends_with(c) => {
                out.push('\\');
                out.push(c);
            }
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_they_mean_to_the_server() {
        assert_eq!(as_go_reads(r"^\d+[\w.-]*\.$"), r"^[0-9]+[0-9A-Za-z_.-]*\.$");
        assert_eq!(as_go_reads("^[^]a]$"), "^[^]a]$");
        assert_eq!(as_go_reads("^[[:alpha:]x]+$"), "^[[:alpha:]x]+$");
        assert_eq!(as_go_reads("[[a]"), r"[\[a]");
        let digits = Regex::new(&as_go_reads(r"^\d$")).unwrap();
        assert!(digits.is_match("7") && !digits.is_match("\u{0667}"));
    }
}
