//! The steps of the API server that look at a schema's structure: strict decoding (unknown fields are found and
//! dropped), nulls and defaults, validation, list types. Ported from k8s.io/apiextensions-apiserver
//! (`schema/pruning`, `schema/defaulting`, `schema/listtype`) and k8s.io/kube-openapi (`validation/validate`), with
//! their words.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde_json::{Map, Value};

use super::Rule;
use super::format;
use super::quote::{self, clip, quoted};
use super::schema::{Additional, ListType, Schema, Type};

/// A finding without its place: the field, the rule, and the server's words after the field.
#[derive(Debug, PartialEq)]
pub(super) struct Fault {
    pub field: String,
    /// The field in the sentence, where the server names another one.
    pub shown: Option<String>,
    pub rule: Rule,
    pub body: String,
}

impl Fault {
    pub fn new(field: &str, rule: Rule, body: impl Into<String>) -> Self {
        Self { field: field.to_owned(), shown: None, rule, body: body.into() }
    }

    pub fn invalid(field: &str, value: &Value, detail: &str) -> Self {
        Self::new(
            field,
            Rule::InvalidValue,
            format!("Invalid value: {}: {detail}", quote::value(value)),
        )
    }

    /// Whether the server would go on to evaluate rules (`hasBlockingErr`).
    pub fn blocks_rules(&self) -> bool {
        matches!(
            self.rule,
            Rule::Required | Rule::InvalidType | Rule::Unsupported | Rule::TooLong | Rule::TooMany
        )
    }
}

/// The most faults of one document that are worth anyone's time.
const FAULTS: usize = 100;
/// The most bytes of a pattern that a sentence repeats.
const PATTERN_BYTES: usize = 200;

/// A field path that grows and shrinks with a walk.
#[derive(Default)]
pub(super) struct Path(String);

impl Path {
    pub fn new(start: &str) -> Self {
        Self(start.to_owned())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn with_field<T>(&mut self, name: &str, work: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.0.len();
        if length > 0 {
            self.0.push('.');
        }
        self.0.push_str(name);
        let result = work(self);
        self.0.truncate(length);
        result
    }

    pub fn with_index<T>(&mut self, index: usize, work: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.0.len();
        self.0.push('[');
        self.0.push_str(&index.to_string());
        self.0.push(']');
        let result = work(self);
        self.0.truncate(length);
        result
    }

    fn child(&self, name: &str) -> String {
        if self.0.is_empty() { name.to_owned() } else { format!("{}.{name}", self.0) }
    }
}

/// Strict decoding: drops the fields that the schema does not know and returns their paths.
pub(super) fn prune(value: &mut Value, schema: &Schema, path: &mut Path) -> Vec<String> {
    let mut unknown = Vec::new();
    prune_into(value, Some(schema), path, &mut unknown);
    unknown
}

fn prune_into(
    value: &mut Value,
    schema: Option<&Schema>,
    path: &mut Path,
    unknown: &mut Vec<String>,
) {
    match value {
        Value::Object(fields) => {
            let open = schema.is_none_or(|schema| {
                schema.preserve_unknown || matches!(schema.additional, Additional::Any)
            });
            fields.retain(|name, value| match schema.and_then(|schema| schema.field(name)) {
                Some(schema) => {
                    path.with_field(name, |path| prune_into(value, Some(schema), path, unknown));
                    true
                }
                None if open => true,
                None => {
                    if unknown.len() < FAULTS {
                        unknown.push(path.child(name));
                    }
                    false
                }
            });
        }
        Value::Array(items) => {
            let Some(schema) = schema.and_then(|schema| schema.items.as_deref()) else { return };
            for (index, item) in items.iter_mut().enumerate() {
                path.with_index(index, |path| prune_into(item, Some(schema), path, unknown));
            }
        }
        _ => {}
    }
}

/// Drops the nulls that stand for nothing, fills in defaults, and writes whole numbers as integers where the schema
/// asks for those.
pub(super) fn fill_in(value: &mut Value, schema: &Schema) {
    let stands_for_nothing = |value: &Value, schema: Option<&Schema>| {
        value.is_null() && schema.is_some_and(|s| !s.nullable)
    };
    match value {
        Value::Object(fields) => {
            fields.retain(|name, value| !stands_for_nothing(value, schema.field(name)));
            for (name, property) in &schema.properties {
                if let Some(default) = &property.default
                    && !fields.contains_key(name)
                {
                    fields.insert(name.clone(), default.clone());
                }
            }
            for (name, value) in fields.iter_mut() {
                if let Some(schema) = schema.field(name) {
                    fill_in(value, schema);
                }
            }
        }
        Value::Array(items) => {
            let Some(schema) = schema.items.as_deref() else { return };
            for item in items {
                if stands_for_nothing(item, Some(schema))
                    && let Some(default) = &schema.default
                {
                    *item = default.clone();
                }
                fill_in(item, schema);
            }
        }
        Value::Number(number) if matches!(schema.kind, Type::Integer | Type::IntOrString) => {
            if let Some(whole) = number.as_f64().and_then(super::scalar::whole)
                && !number.is_i64()
            {
                *value = Value::from(whole);
            }
        }
        _ => {}
    }
}

/// Validates a value against its schema, then the uniqueness of lists.
pub(super) fn validate(value: &Value, schema: &Schema, path: &mut Path) -> Vec<Fault> {
    let mut check = Check { faults: Vec::new() };
    check.value(value, schema, path);
    check.lists(value, schema, path);
    check.faults
}

struct Check {
    faults: Vec<Fault>,
}

impl Check {
    fn fault(&mut self, field: &str, rule: Rule, body: String) {
        if self.faults.len() < FAULTS {
            self.faults.push(Fault::new(field, rule, body));
        }
    }

    fn invalid(&mut self, path: &Path, value: &str, detail: &str) {
        let name = quote::path(path.as_str());
        self.fault(
            path.as_str(),
            Rule::InvalidValue,
            format!("Invalid value: {value}: {name} in body {detail}"),
        );
    }

    fn wrong_type(&mut self, path: &Path, wanted: &str, found: &str) {
        let name = quote::path(path.as_str());
        let found = quoted(found);
        self.fault(
            path.as_str(),
            Rule::InvalidType,
            format!("Invalid value: {found}: {name} in body must be of type {wanted}: {found}"),
        );
    }

    fn value(&mut self, value: &Value, schema: &Schema, path: &mut Path) {
        if self.faults.len() >= FAULTS {
            return;
        }
        if !fits(value, schema) {
            return self.wrong_type(path, schema.kind.word(), type_of(value));
        }
        self.junctors(value, schema, path);
        match value {
            Value::String(text) => self.text(text, schema, path),
            Value::Number(number) => {
                if let Some(number) = number.as_f64() {
                    self.number(number, value, schema, path);
                }
            }
            Value::Array(items) => self.items(items, schema, path),
            Value::Object(fields) => self.fields(fields, schema, path),
            _ => {}
        }
        if !schema.allowed.is_empty() && !schema.allowed.contains(value) {
            let known: Vec<String> = schema
                .allowed
                .iter()
                .map(|value| value.as_str().map_or_else(|| quoted(&value.to_string()), quoted))
                .collect();
            self.fault(
                path.as_str(),
                Rule::Unsupported,
                format!(
                    "Unsupported value: {}: supported values: {}",
                    quote::value(value),
                    known.join(", ")
                ),
            );
        }
    }

    fn text(&mut self, text: &str, schema: &Schema, path: &Path) {
        let length = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
        let (shortest, longest) = schema.lengths;
        if let Some(longest) = longest.filter(|longest| length > *longest) {
            let bytes = if longest == 1 { "byte" } else { "bytes" };
            self.fault(
                path.as_str(),
                Rule::TooLong,
                format!("Too long: may not be more than {longest} {bytes}"),
            );
        } else if let Some(shortest) = shortest.filter(|shortest| length < *shortest) {
            let detail = format!("should be at least {shortest} chars long");
            self.invalid(path, &quoted(text), &detail);
        } else if let Some(pattern) = &schema.pattern {
            let shown = clip(&quote::plain(&pattern.text), PATTERN_BYTES);
            match &pattern.regex {
                Ok(regex) if regex.is_match(text) => {}
                Ok(_) => self.invalid(path, &quoted(text), &format!("should match '{shown}'")),
                Err(error) => {
                    let error = clip(&quote::plain(error), PATTERN_BYTES);
                    let detail = format!("should match '{shown}, but pattern is invalid: {error}'");
                    self.invalid(path, &quoted(text), &detail);
                }
            }
        }
        if let Some(format) = &schema.format
            && !format::matches(format, text)
        {
            self.wrong_type(path, format, text);
        }
    }

    fn number(&mut self, number: f64, value: &Value, schema: &Schema, path: &Path) {
        if schema.format.as_deref() == Some("int32")
            && !(f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&number)
        {
            self.invalid(path, &quote::value(value), "must be of type integer with format int32");
        }
        if let Some(factor) = schema.multiple_of
            && (factor <= 0.0 || (number / factor).fract() != 0.0)
        {
            self.invalid(path, &quote::value(value), &format!("should be a multiple of {factor}"));
        }
        if let Some((least, exclusive)) = schema.minimum
            && (number < least || exclusive && number <= least)
        {
            let or_equal = if exclusive { "" } else { "or equal to " };
            let detail = format!("should be greater than {or_equal}{least}");
            self.invalid(path, &quote::value(value), &detail);
        }
        if let Some((most, exclusive)) = schema.maximum
            && (number > most || exclusive && number >= most)
        {
            let or_equal = if exclusive { "" } else { "or equal to " };
            let detail = format!("should be less than {or_equal}{most}");
            self.invalid(path, &quote::value(value), &detail);
        }
    }

    fn items(&mut self, items: &[Value], schema: &Schema, path: &mut Path) {
        let count = i64::try_from(items.len()).unwrap_or(i64::MAX);
        let (fewest, most) = schema.item_counts;
        if let Some(most) = most.filter(|most| count > *most) {
            // Its items are not looked at: too many of them is the one thing to mend.
            return self.too_many(path, count, most);
        }
        if let Some(schema) = schema.items.as_deref() {
            for (index, item) in items.iter().enumerate() {
                path.with_index(index, |path| self.value(item, schema, path));
            }
        }
        if let Some(fewest) = fewest.filter(|fewest| count < *fewest) {
            let detail = format!("should have at least {fewest} items");
            self.invalid(path, &count.to_string(), &detail);
        }
        if schema.unique_items && !repeated(items.iter().map(Value::to_string)).is_empty() {
            self.invalid(path, "\"\"", "shouldn't contain duplicates");
        }
    }

    fn too_many(&mut self, path: &Path, count: i64, most: i64) {
        let items = if most == 1 { "item" } else { "items" };
        self.fault(
            path.as_str(),
            Rule::TooMany,
            format!("Too many: {count}: must have at most {most} {items}"),
        );
    }

    fn fields(&mut self, fields: &Map<String, Value>, schema: &Schema, path: &mut Path) {
        let count = i64::try_from(fields.len()).unwrap_or(i64::MAX);
        let (fewest, most) = schema.property_counts;
        if let Some(most) = most.filter(|most| count > *most) {
            return self.too_many(path, count, most);
        }
        if let Some(fewest) = fewest.filter(|fewest| count < *fewest) {
            let detail = format!("should have at least {fewest} properties");
            self.invalid(path, &count.to_string(), &detail);
        }
        for (name, value) in fields {
            if let Some(schema) = schema.field(name) {
                path.with_field(name, |path| self.value(value, schema, path));
            }
        }
        for name in &schema.required {
            if !fields.contains_key(name) {
                self.fault(&path.child(name), Rule::Required, "Required value".to_owned());
            }
        }
    }

    fn junctors(&mut self, value: &Value, schema: &Schema, path: &mut Path) {
        let holds = |schema: &Schema, path: &mut Path| {
            let mut check = Check { faults: Vec::new() };
            check.value(value, schema, path);
            check.faults
        };
        let name = quoted(&quote::path(path.as_str()));
        let body = |detail: &str| format!("Invalid value: \"\": {name} {detail}");
        if !schema.any_of.is_empty()
            && !schema.any_of.iter().any(|schema| holds(schema, path).is_empty())
        {
            let body = body("must validate at least one schema (anyOf)");
            self.fault(path.as_str(), Rule::InvalidValue, body);
        }
        if !schema.one_of.is_empty() {
            let valid = schema.one_of.iter().filter(|one| holds(one, path).is_empty()).count();
            if valid != 1 {
                let found = if valid == 0 {
                    "none valid".to_owned()
                } else {
                    format!("{valid} valid alternatives")
                };
                let body =
                    body(&format!("must validate one and only one schema (oneOf). Found {found}"));
                self.fault(path.as_str(), Rule::InvalidValue, body);
            }
        }
        for schema in &schema.all_of {
            self.faults.extend(holds(schema, path));
        }
        if let Some(not) = &schema.not
            && holds(not, path).is_empty()
        {
            let body = body("must not validate the schema (not)");
            self.fault(path.as_str(), Rule::InvalidValue, body);
        }
    }

    /// `x-kubernetes-list-type`: no value of a set twice, no key of a map twice.
    fn lists(&mut self, value: &Value, schema: &Schema, path: &mut Path) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    if let Some(schema) = schema.field(name) {
                        path.with_field(name, |path| self.lists(value, schema, path));
                    }
                }
            }
            Value::Array(items) => {
                if schema
                    .item_counts
                    .1
                    .is_some_and(|most| i64::try_from(items.len()).is_ok_and(|count| count > most))
                {
                    return;
                }
                let keys: Vec<Value> = match schema.list {
                    ListType::Atomic => Vec::new(),
                    ListType::Set => items.clone(),
                    ListType::Map => {
                        items.iter().map(|item| keys_of(item, &schema.list_keys)).collect()
                    }
                };
                for index in repeated(keys.iter().map(Value::to_string)) {
                    let shown = keys.get(index).map(quote::value).unwrap_or_default();
                    path.with_index(index, |path| {
                        let body = format!("Duplicate value: {shown}");
                        self.fault(path.as_str(), Rule::Duplicate, body);
                    });
                }
                if let Some(schema) = schema.items.as_deref() {
                    for (index, item) in items.iter().enumerate() {
                        path.with_index(index, |path| self.lists(item, schema, path));
                    }
                }
            }
            _ => {}
        }
    }
}

/// The keys of an entry of a list-map.
fn keys_of(item: &Value, keys: &[String]) -> Value {
    let present = keys.iter().filter_map(|key| Some((key.clone(), item.get(key)?.clone())));
    Value::Object(present.collect())
}

/// The second place of each text that occurs more than once.
fn repeated(texts: impl Iterator<Item = String>) -> Vec<usize> {
    let mut seen = BTreeMap::new();
    let mut found = Vec::new();
    for (index, text) in texts.enumerate() {
        match seen.entry(text) {
            Entry::Vacant(entry) => {
                entry.insert(1_u32);
            }
            Entry::Occupied(mut entry) => {
                if *entry.get() == 1 {
                    found.push(index);
                }
                *entry.get_mut() = 2;
            }
        }
    }
    found
}

fn fits(value: &Value, schema: &Schema) -> bool {
    match (value, schema.kind) {
        (_, Type::Any)
        | (Value::Object(_), Type::Object)
        | (Value::Array(_), Type::Array)
        | (Value::String(_), Type::String | Type::IntOrString)
        | (Value::Number(_), Type::Number)
        | (Value::Bool(_), Type::Boolean) => true,
        (Value::Null, _) => schema.nullable,
        (Value::Number(number), Type::Integer | Type::IntOrString) => {
            number.is_i64() || number.as_f64().is_some_and(|f| f.fract() == 0.0)
        }
        _ => false,
    }
}

/// The server's word for the type of a value.
fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_i64() || number.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
