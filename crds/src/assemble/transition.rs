//! Rules about old and new values, as the schema's CEL has them.

use std::cell::RefCell;
use std::collections::BTreeMap;

use kube::core::cel::{CompiledSchema, Validator, compile_schema};
use serde_json::Value;

use crate::manifest::Kind;

/// A rule that an edit breaks: the field, in the server's form, and the sentence.
pub(super) struct Broken {
    pub field: String,
    pub sentence: String,
}

struct Checker {
    validator: Validator,
    schemas: BTreeMap<String, CompiledSchema>,
}

thread_local! {
    // Compiled rules cannot be shared between threads.
    static CHECKER: RefCell<Option<Checker>> = const { RefCell::new(None) };
}

/// The rules of `kind` that the step from `old` to `new` breaks.
pub(super) fn broken(kind: Kind, old: &Value, new: &Value) -> Vec<Broken> {
    CHECKER.with_borrow_mut(|checker| {
        let checker = checker.get_or_insert_with(|| Checker {
            validator: Validator::new(),
            schemas: crate::crds().iter().filter_map(schema).collect(),
        });
        let Some(schema) = checker.schemas.get(kind.as_str()) else { return Vec::new() };
        match checker.validator.validate_compiled(schema, new, Some(old)) {
            Ok(()) => Vec::new(),
            Err(errors) => errors
                .into_vec()
                .into_iter()
                .map(|e| Broken { field: e.field_path, sentence: e.message })
                .collect(),
        }
    })
}

fn schema(
    crd: &k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
) -> Option<(String, CompiledSchema)> {
    let schema = crd.spec.versions.first()?.schema.as_ref()?.open_api_v3_schema.as_ref()?;
    let schema = serde_json::to_value(schema).ok()?;
    Some((crd.spec.names.kind.clone(), compile_schema(&schema)))
}
