//! Reads manifests as `kubectl apply` would, with no cluster: YAML or JSON text to objects, or to findings that name
//! file, line, column and field.
//!
//! The steps are those of the API server, in its order (DESIGN, "What is checked where"): strict decoding, nulls and
//! defaults, structure, then the schema's rules where nothing before them stands in the way. Unlike the server's, the
//! findings of all steps are given at once. What no schema can say (zones, keys, references) is `compile`'s.
//!
//! Pure: it gets text and touches neither files nor network nor a clock. Bounded (invariant 8): whatever the bytes,
//! it ends, in time and memory that the file's size bounds, and never panics.

mod finding;
mod format;
mod hint;
mod kinds;
mod metadata;
mod quote;
mod rules;
mod scalar;
mod schema;
mod structure;
mod tree;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use finding::{Finding, Kind, MESSAGE_BYTES, ObjectRef, Position, Positions, Rule, Severity};

use crate::assemble::wrong_besides;
use crate::{GROUP, LoginUser, Mesh, Relay, SupportWindow, Terminal, VERSION};
use structure::{Fault, Path};
use tree::{At, Content, Node};

/// The largest file that is read.
pub const FILE_BYTES: usize = 16 << 20;
/// The most findings of one file.
const FINDINGS: usize = 500;
/// The server's sentence for rules that wait for the structure to be right.
const NOT_CHECKED: &str = "some validation rules were not checked because the object was invalid; correct the existing \
                           errors to complete validation";
/// Where an object is that names no namespace.
pub const DEFAULT_NAMESPACE: &str = "default";

/// An object that was read and found valid.
#[derive(Clone, Debug)]
pub enum Object {
    Mesh(Box<Mesh>),
    Relay(Box<Relay>),
    LoginUser(Box<LoginUser>),
    Terminal(Box<Terminal>),
    SupportWindow(Box<SupportWindow>),
    /// `v1` Namespace: its labels decide which mesh serves it.
    Namespace {
        name: String,
        labels: BTreeMap<String, String>,
    },
}

impl Object {
    /// Its kind, namespace and name. Without a namespace it is in `default`.
    pub fn reference(&self) -> ObjectRef {
        let of = |kind, metadata: &ObjectMeta| ObjectRef {
            kind,
            namespace: metadata.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE).to_owned(),
            name: metadata.name.clone().unwrap_or_default(),
        };
        match self {
            Self::Mesh(object) => of(Kind::Mesh, &object.metadata),
            Self::Relay(object) => of(Kind::Relay, &object.metadata),
            Self::LoginUser(object) => of(Kind::LoginUser, &object.metadata),
            Self::Terminal(object) => of(Kind::Terminal, &object.metadata),
            Self::SupportWindow(object) => of(Kind::SupportWindow, &object.metadata),
            Self::Namespace { name, .. } => {
                ObjectRef { kind: Kind::Namespace, namespace: String::new(), name: name.clone() }
            }
        }
    }

    /// As [`Object::decode`], of an object that an API server has. A status that cannot be decoded, of a
    /// newer version perhaps, takes no object out of force: of it only what counts is read then.
    ///
    /// # Errors
    /// With serde's sentence of the whole object.
    pub fn decode_served(kind: Kind, value: &Value) -> Result<Self, serde_json::Error> {
        Self::decode(kind, value).or_else(|error| {
            let bare = with_bare_status(value).and_then(|bare| Self::decode(kind, &bare).ok());
            bare.ok_or(error)
        })
    }

    /// The typed form of a value that is valid.
    ///
    /// # Errors
    /// With serde's sentence where the value does not fit the type, which for a valid value is a fault of ours.
    pub fn decode(kind: Kind, value: &Value) -> Result<Self, serde_json::Error> {
        fn of<T: DeserializeOwned>(value: &Value) -> Result<Box<T>, serde_json::Error> {
            T::deserialize(value).map(Box::new)
        }
        Ok(match kind {
            Kind::Mesh => Self::Mesh(of(value)?),
            Kind::Relay => Self::Relay(of(value)?),
            Kind::LoginUser => Self::LoginUser(of(value)?),
            Kind::Terminal => Self::Terminal(of(value)?),
            Kind::SupportWindow => Self::SupportWindow(of(value)?),
            Kind::Namespace => {
                let metadata = value.get("metadata");
                let name = metadata.and_then(|m| m.get("name")).and_then(Value::as_str);
                let labels = metadata.and_then(|m| m.get("labels")).and_then(Value::as_object);
                let labels = labels.into_iter().flatten().map(|(key, value)| {
                    (key.clone(), value.as_str().unwrap_or_default().to_owned())
                });
                Self::Namespace {
                    name: name.unwrap_or_default().to_owned(),
                    labels: labels.collect(),
                }
            }
        })
    }
}

/// An object whose status is reduced to what counts; `None`: it has none.
pub fn with_bare_status(object: &Value) -> Option<Value> {
    let status = object.get("status")?.as_object()?;
    let kept = ["conditions", "holds", "observedGeneration"].into_iter();
    let kept = kept.filter_map(|field| Some((field.to_owned(), status.get(field)?.clone())));
    let status: serde_json::Map<_, _> = kept.collect();
    let other = object.as_object()?.iter().filter(|(field, _)| *field != "status");
    let mut bare: serde_json::Map<_, _> =
        other.map(|(field, value)| (field.clone(), value.clone())).collect();
    bare.insert("status".to_owned(), status.into());
    Some(bare.into())
}

/// One valid document of a file.
#[derive(Clone, Debug)]
pub struct Document {
    pub object: Object,
    pub reference: ObjectRef,
    /// Where the document starts.
    pub position: Position,
    /// Where its fields stand, so that later stages can name a line too.
    pub fields: Positions,
    /// The whole object as the API server would store it: defaults and namespace filled in, nulls and status dropped.
    pub value: Value,
}

impl Document {
    /// Whether this is the same object at the same lines, so that nothing that is said of it differs.
    pub fn same(&self, other: &Self) -> bool {
        self.value == other.value
            && self.reference == other.reference
            && self.position == other.position
            && self.fields == other.fields
    }

    /// What no schema can say of this document by itself: what `compile` refuses.
    pub fn refusals(&self) -> Vec<Finding> {
        wrong_besides(self)
    }

    /// A finding about a field of this document, at its place. `body` is what follows the field in the sentence.
    pub fn finding(&self, field: &str, rule: Rule, body: &str) -> Finding {
        let fault = Fault::new(field, rule, body);
        present(&fault, &self.fields, Some(&self.reference))
    }
}

/// What one file says.
#[derive(Clone, Debug, Default)]
pub struct Read {
    pub documents: Vec<Document>,
    /// Objects that could be named but are not valid: their previous version stays in force.
    pub refused: Vec<(ObjectRef, Position)>,
    pub findings: Vec<Finding>,
    /// The file holds no document, or some of it could not be parsed: it keeps the objects that it had before.
    /// Documents that could be read nevertheless are in `documents` and replace their previous version.
    pub unreadable: bool,
}

/// Reads one file. `file` is the name that positions carry. Documents of other API groups are skipped.
#[must_use]
pub fn read(file: &str, text: &str) -> Read {
    read_with(file, text, true)
}

/// As [`read`], but without what only `compile` can see in a document that is refused anyway: with the
/// findings that the API server has, and no others.
#[must_use]
pub fn read_by_schema(file: &str, text: &str) -> Read {
    read_with(file, text, false)
}

fn read_with(file: &str, text: &str, besides: bool) -> Read {
    let mut reader = Reader { file: file.into(), read: Read::default(), documents: 0, besides };
    if text.len() > FILE_BYTES {
        let message = format!("the file is larger than {} MiB", FILE_BYTES >> 20);
        reader.unreadable((1, 1), Rule::Unreadable, &message);
        return reader.read;
    }
    if let Some((at, control)) = control_character(text) {
        let message = format!(
            "error converting YAML to JSON: control characters are not allowed, and this is U+{:04X}",
            u32::from(control)
        );
        reader.unreadable(at, Rule::Unreadable, &message);
        return reader.read;
    }
    tree::each_document(text, |document| reader.document(document));
    if reader.documents == 0 {
        let message = "the file holds no document; to withdraw its objects, delete the file";
        reader.unreadable((1, 1), Rule::Unreadable, message);
    }
    reader.read
}

/// Reads one file's bytes, which may be no text at all.
#[must_use]
pub fn read_bytes(file: &str, bytes: &[u8]) -> Read {
    match std::str::from_utf8(bytes) {
        Ok(text) => read(file, text),
        Err(error) => {
            let good = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let at = place_after(&String::from_utf8_lossy(good));
            let read = Read::default();
            let mut reader = Reader { file: file.into(), read, documents: 0, besides: true };
            reader.unreadable(at, Rule::Unreadable, "the file is not UTF-8 text");
            reader.read
        }
    }
}

/// Checks what may not change: the rules of the schema that compare with the old value (`oldSelf`). `old` is the
/// object as [`Document::value`] gave it; both are of `kind`, else nothing is compared.
#[must_use]
pub fn validate_update(kind: Kind, old: &Value, new: &Document) -> Vec<Finding> {
    let Some(checks) = kinds::checks(kind).filter(|_| new.reference.kind == kind) else {
        return Vec::new();
    };
    let mut faults = checks.rules.check(&new.value, Some(old), &checks.schema);
    // Those that hold of the new value by itself are not about the change.
    let alone = checks.rules.check(&new.value, None, &checks.schema);
    faults.retain(|fault| !alone.contains(fault));
    faults.iter().map(|fault| present(fault, &new.fields, Some(&new.reference))).collect()
}

/// A fault with its place, as people see it.
fn present(fault: &Fault, fields: &Positions, object: Option<&ObjectRef>) -> Finding {
    let field = fault.field.strip_prefix('.').unwrap_or(&fault.field);
    let shown = quote::path(fault.shown.as_deref().unwrap_or(field));
    Finding {
        position: Some(fields.at(field)),
        object: object.cloned(),
        field: Some(quote::path(field)).filter(|field| !field.is_empty()),
        rule: fault.rule,
        message: sentence(&shown, &fault.body),
        severity: Severity::Error,
    }
}

fn sentence(field: &str, body: &str) -> String {
    let message = if field.is_empty() {
        quote::plain(body)
    } else {
        format!("{field}: {}", quote::plain(body))
    };
    quote::clip(&message, MESSAGE_BYTES)
}

/// The first character that no YAML may hold, and where it is.
fn control_character(text: &str) -> Option<(At, char)> {
    let bad = |c: char| match c {
        '\t' | '\n' | '\r' | '\u{85}' => false,
        _ => c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}'),
    };
    let (offset, control) = text.char_indices().find(|(_, c)| bad(*c))?;
    Some((place_after(text.get(..offset).unwrap_or_default()), control))
}

/// The place of what comes after `text`.
fn place_after(text: &str) -> At {
    let line = text.matches('\n').count() + 1;
    let column = text.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX))
}

struct Reader {
    file: Arc<str>,
    read: Read,
    /// Those that hold something, of whatever group.
    documents: usize,
    /// Whether to say what `compile` has against a document that is refused anyway.
    besides: bool,
}

impl Reader {
    fn position(&self, at: At) -> Position {
        Position { file: Arc::clone(&self.file), line: at.0, column: at.1 }
    }

    fn push(&mut self, finding: Finding) {
        match self.read.findings.len() {
            ..FINDINGS => self.read.findings.push(finding),
            FINDINGS => self.read.findings.push(Finding {
                position: None,
                object: None,
                field: None,
                rule: Rule::TooMany,
                message: format!("{}: more findings than {FINDINGS} are not shown", self.file),
                severity: Severity::Note,
            }),
            _ => {}
        }
    }

    /// A finding about the file or a document that is no object of ours.
    fn fault(&mut self, at: At, rule: Rule, message: &str) {
        let position = Some(self.position(at));
        self.push(Finding {
            position,
            object: None,
            field: None,
            rule,
            message: sentence("", message),
            severity: Severity::Error,
        });
    }

    fn unreadable(&mut self, at: At, rule: Rule, message: &str) {
        self.fault(at, rule, message);
        self.read.unreadable = true;
    }

    fn document(&mut self, document: Result<Node, tree::Fault>) {
        self.documents += 1;
        match document {
            Ok(node) => self.node(&node),
            Err(fault) => {
                let message = format!("error converting YAML to JSON: {}", fault.message);
                self.unreadable(fault.at, Rule::Syntax, &message);
            }
        }
    }

    /// Decides by `apiVersion` and `kind` what a document is.
    fn node(&mut self, node: &Node) {
        let text = |field: &str| node.get(field).and_then(Node::text).filter(|t| !t.is_empty());
        let (Some(version), Some(kind)) = (text("apiVersion"), text("kind")) else {
            let missing = if text("kind").is_none() { "kind" } else { "apiVersion" };
            // Perhaps half a file: what it held before stays.
            let message = format!(
                "{missing}: Required value: every document must say its apiVersion and kind"
            );
            return self.unreadable(node.at, Rule::Required, &message);
        };
        let (group, number) = version.rsplit_once('/').unwrap_or(("", version));
        match (group, kind) {
            ("", "List" | "NamespaceList") => self.list(node),
            ("", "Namespace") if number == "v1" => self.namespace(node),
            (GROUP, _) => match Kind::own(kind) {
                Some(kind) if number == VERSION => self.own(kind, node),
                Some(known) => {
                    self.refuse(known, node);
                    self.unknown_kind(node, version, kind);
                }
                None if kind.strip_suffix("List").and_then(Kind::own).is_some() => self.list(node),
                None if matches!(kind, "SupportSession" | "SupportClaim") => {
                    let message =
                        format!("kind: Forbidden: relays write a {kind}, manifests do not");
                    self.fault(at_of(node, "kind"), Rule::Forbidden, &message);
                }
                None => self.unknown_kind(node, version, kind),
            },
            _ if Kind::own(kind).is_some()
                && (group.starts_with("tidegate") || hint::distance(group, GROUP) <= 2) =>
            {
                self.unknown_kind(node, version, kind);
            }
            _ => {}
        }
    }

    fn unknown_kind(&mut self, node: &Node, version: &str, kind: &str) {
        let own: Vec<String> = Kind::OWN.iter().map(ToString::to_string).collect();
        let meant = match hint::nearest(kind, own.iter()) {
            Some(meant) => format!("did you mean {meant} in {GROUP}/{VERSION}?"),
            None => format!("{GROUP}/{VERSION} has {}", own.join(", ")),
        };
        let message = format!(
            "no matches for kind {} in version {}; {meant}",
            quote::quoted(kind),
            quote::quoted(version)
        );
        let field = if Kind::own(kind).is_some() { "apiVersion" } else { "kind" };
        self.fault(at_of(node, field), Rule::UnknownKind, &message);
    }

    /// Notes an object that is there but cannot be read, if it can be named.
    fn refuse(&mut self, kind: Kind, node: &Node) -> Option<ObjectRef> {
        let metadata = node.get("metadata");
        let text = |field: &str| {
            metadata.and_then(|m| m.get(field)).and_then(Node::text).filter(|t| !t.is_empty())
        };
        let name = text("name").filter(|name| metadata::is_label(name))?;
        let namespace = match kind {
            Kind::Namespace => "",
            _ => text("namespace").unwrap_or(DEFAULT_NAMESPACE),
        };
        if !namespace.is_empty() && !metadata::is_label(namespace) {
            return None;
        }
        let reference = ObjectRef { kind, namespace: namespace.to_owned(), name: name.to_owned() };
        let position = self.position(node.at);
        self.read.refused.push((reference.clone(), position));
        Some(reference)
    }

    /// `kind: List` and the lists of our kinds.
    fn list(&mut self, node: &Node) {
        match node.get("items").map(|items| &items.content) {
            Some(Content::List(items)) => items.iter().for_each(|item| self.node(item)),
            _ => self.unreadable(
                node.at,
                Rule::Required,
                "items: Required value: a list must have items",
            ),
        }
    }

    fn namespace(&mut self, node: &Node) {
        let (mut value, fields, mut faults) = self.flatten(node);
        // The rest of a Namespace is the API server's business.
        let schema = kinds::namespace_schema();
        if let Some(metadata) = value.get_mut("metadata") {
            structure::fill_in(metadata, schema);
        }
        let metadata = value.get("metadata").cloned().unwrap_or_default();
        faults.extend(structure::validate(&metadata, schema, &mut Path::new("metadata")));
        faults.extend(metadata::check(metadata.as_object().unwrap_or(&serde_json::Map::new())));
        self.finish(Kind::Namespace, node, value, fields, faults);
    }

    /// A kind of ours: all the steps.
    fn own(&mut self, kind: Kind, node: &Node) {
        let Some(checks) = kinds::checks(kind) else { return };
        let schema = &checks.schema;
        let (mut value, fields, mut faults) = self.flatten(node);
        for path in structure::prune(&mut value, schema, &mut Path::default()) {
            let mut body = format!(
                "strict decoding error: unknown field {}",
                quote::quoted(&quote::path(&path))
            );
            if let Some(meant) = hint::for_unknown(&path, schema) {
                body.push_str("; did you mean ");
                body.push_str(&quote::quoted(&meant));
                body.push('?');
            }
            faults.push(Fault::new(&path, Rule::UnknownField, body));
        }
        structure::fill_in(&mut value, schema);
        // Nobody sets a status by applying a manifest; the server drops it too.
        if let Some(object) = value.as_object_mut() {
            object.remove("status");
        }
        faults.extend(structure::validate(&value, schema, &mut Path::default()));
        let no_metadata = serde_json::Map::new();
        let metadata = value.get("metadata").and_then(Value::as_object).unwrap_or(&no_metadata);
        let names = metadata::check(metadata);
        let badly_named = names.iter().any(|fault| fault.field == "metadata.name");
        faults.extend(names);
        let blocked = faults.iter().any(Fault::blocks_rules);
        if !blocked {
            let mut broken = checks.rules.check(&value, None, schema);
            // The rules of the whole object are about its name, which has its sentence already.
            let about_name =
                |fault: &Fault| fault.field.is_empty() || fault.field.ends_with("metadata.name");
            broken.retain(|fault| !(badly_named && about_name(fault)));
            faults.extend(broken);
        }
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut)
            && metadata.get("namespace").and_then(Value::as_str).is_none_or(str::is_empty)
        {
            metadata.insert("namespace".to_owned(), DEFAULT_NAMESPACE.into());
        }
        if blocked {
            faults.push(Fault::new("", Rule::Cel, NOT_CHECKED));
        }
        self.finish(kind, node, value, fields, faults);
    }

    /// The value of a tree, where its fields stand, and the fields that are there twice.
    fn flatten(&self, node: &Node) -> (Value, Positions, Vec<Fault>) {
        let mut flat = Flat {
            fields: Positions::new(&self.position(node.at)),
            left: POSITION_BYTES,
            faults: Vec::new(),
        };
        let value = flat.node(node, &mut Path::default());
        (value, flat.fields, flat.faults)
    }

    fn finish(
        &mut self,
        kind: Kind,
        node: &Node,
        value: Value,
        fields: Positions,
        mut faults: Vec<Fault>,
    ) {
        if faults.is_empty() {
            match Object::decode(kind, &value) {
                Ok(object) => {
                    let text = |field: &str| {
                        let found = value.get("metadata").and_then(|m| m.get(field));
                        found.and_then(Value::as_str).unwrap_or_default().to_owned()
                    };
                    let namespace =
                        if kind == Kind::Namespace { String::new() } else { text("namespace") };
                    let reference = ObjectRef { kind, namespace, name: text("name") };
                    let position = self.position(node.at);
                    self.read.documents.push(Document {
                        object,
                        reference,
                        position,
                        fields,
                        value,
                    });
                    return;
                }
                Err(error) => faults.push(Fault::new(
                    "",
                    Rule::InvalidValue,
                    format!(
                        "{kind} in version \"{VERSION}\" cannot be handled as a {kind}: {error}"
                    ),
                )),
            }
        }
        let object = self.refuse(kind, node);
        let mut findings: Vec<Finding> = Vec::new();
        for fault in faults {
            let mut finding = present(&fault, &fields, object.as_ref());
            if fault.body == NOT_CHECKED {
                finding.severity = Severity::Note;
            }
            if !findings.contains(&finding) {
                findings.push(finding);
            }
        }
        if let Some(reference) = object
            && self.besides
            && kind != Kind::Namespace
            && let Ok(decoded) = Object::decode(kind, &value)
        {
            let position = self.position(node.at);
            let document = Document { object: decoded, reference, position, fields, value };
            let said = |finding: &Finding| findings.iter().any(|said| said.field == finding.field);
            let besides = wrong_besides(&document);
            let besides: Vec<_> = besides.into_iter().filter(|finding| !said(finding)).collect();
            findings.extend(besides);
        }
        // By place; the note about what was not checked comes last.
        findings.sort_by(|a, b| (a.severity, &a.position).cmp(&(b.severity, &b.position)));
        for finding in findings {
            self.push(finding);
        }
    }
}

/// Where a field of a map stands, else the map.
fn at_of(node: &Node, field: &str) -> At {
    match &node.content {
        Content::Map(entries) => {
            entries.iter().find(|entry| entry.key == field).map_or(node.at, |entry| entry.at)
        }
        _ => node.at,
    }
}

/// The most bytes of paths that the positions of one document hold; fields beyond have their parent's.
const POSITION_BYTES: usize = 4 << 20;

struct Flat {
    fields: Positions,
    left: usize,
    faults: Vec<Fault>,
}

impl Flat {
    fn note(&mut self, path: &Path, at: At) {
        if let Some(left) = self.left.checked_sub(path.as_str().len()) {
            self.left = left;
            self.fields.insert(path.as_str().to_owned(), at.0, at.1);
        }
    }

    fn node(&mut self, node: &Node, path: &mut Path) -> Value {
        match &node.content {
            Content::Scalar(value) => value.clone(),
            Content::List(items) => {
                let items = items.iter().enumerate().map(|(index, item)| {
                    path.with_index(index, |path| {
                        self.note(path, item.at);
                        self.node(item, path)
                    })
                });
                Value::Array(items.collect())
            }
            Content::Map(entries) => {
                let fields = entries.iter().map(|entry| {
                    let value = path.with_field(&entry.key, |path| {
                        self.note(path, entry.at);
                        if entry.again && self.faults.len() < FINDINGS {
                            let body = format!(
                                "strict decoding error: duplicate field {}",
                                quote::quoted(&quote::path(path.as_str()))
                            );
                            self.faults.push(Fault::new(path.as_str(), Rule::DuplicateField, body));
                        }
                        self.node(&entry.value, path)
                    });
                    (entry.key.clone(), value)
                });
                Value::Object(fields.collect())
            }
        }
    }
}
