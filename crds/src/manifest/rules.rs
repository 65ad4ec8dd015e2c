//! The schema's own rules, `x-kubernetes-validations`, evaluated by kube-cel, in the server's words.

use kube::core::cel::{
    CompiledSchema, ErrorKind, ValidationError, compile_schema, validate_compiled,
};
use serde_json::Value;

use super::Rule;
use super::quote::{self, clip, plain};
use super::schema::{Schema, Type};
use super::structure::Fault;

/// The most bytes of a rule's message that a sentence repeats.
const MESSAGE_BYTES: usize = 300;

#[derive(Debug)]
pub(super) struct Rules(CompiledSchema);

impl Rules {
    /// Compiles the rules of a schema, given as JSON.
    pub fn new(schema: &Value) -> Self {
        Self(compile_schema(schema))
    }

    /// Evaluates the rules; those about a change only where `old` is given.
    pub fn check(&self, value: &Value, old: Option<&Value>, schema: &Schema) -> Vec<Fault> {
        match validate_compiled(&self.0, value, old) {
            Ok(()) => Vec::new(),
            Err(errors) => errors.into_iter().map(|error| fault(&error, value, schema)).collect(),
        }
    }
}

fn fault(error: &ValidationError, root: &Value, schema: &Schema) -> Fault {
    let field = &error.field_path;
    let mut detail = clip(&plain(error.message.trim()), MESSAGE_BYTES);
    if error.kind != ErrorKind::ValidationFailure {
        detail = format!("{detail} (a fault of the rule, not of the object)");
    }
    let invalid = || match scalar(root, schema, field) {
        Some(value) => format!("Invalid value: {}: {detail}", quote::value(value)),
        None => format!("Invalid value: {detail}"),
    };
    let body = match error.reason.as_deref() {
        Some("FieldValueRequired") => format!("Required value: {detail}"),
        Some("FieldValueForbidden") => format!("Forbidden: {detail}"),
        Some("FieldValueDuplicate") => format!("Duplicate value: {detail}"),
        _ => invalid(),
    };
    Fault::new(field, Rule::Cel, body)
}

/// The value at a path, if it is neither list nor map: those are left out of sentences.
fn scalar<'v>(root: &'v Value, schema: &Schema, path: &str) -> Option<&'v Value> {
    let mut value = root;
    let mut schema = Some(schema);
    for step in path.split('.') {
        let (name, indexes) = step.split_once('[').unwrap_or((step, ""));
        if !name.is_empty() {
            value = value.get(name)?;
            schema = schema.and_then(|schema| schema.field(name));
        }
        for index in indexes.split('[').filter(|index| !index.is_empty()) {
            value = value.get(index.trim_end_matches(']').parse::<usize>().ok()?)?;
            schema = schema.and_then(|schema| schema.items.as_deref());
        }
    }
    let structured = schema.is_some_and(|schema| matches!(schema.kind, Type::Object | Type::Array));
    (!structured && !value.is_object() && !value.is_array()).then_some(value)
}
