//! One version of one object, as policy, and what it claims for itself.

use serde_json::Value;
use std::sync::Arc;
use tidegate_policy::model::{self, Label, Meta};
use tidegate_policy::text::shown;

use crate::claims::{self, Claim};
use crate::compile::{self, CompiledMesh, Identity, Refusal, RelaySettings, reason};
use crate::manifest::{Document, Finding, Kind, MESSAGE_BYTES, Object, ObjectRef, Rule, Severity};

/// A version as policy.
#[derive(Clone, Debug)]
pub(super) enum Compiled {
    Mesh(Box<CompiledMesh>),
    Relay(Box<RelaySettings>),
    LoginUser(Box<model::LoginUser>),
    Terminal(Box<model::Terminal>),
    SupportWindow(Box<model::Window>),
}

impl Compiled {
    /// Compiles a valid object. `home` is the Mesh's namespace, if there is a Mesh.
    pub fn new(
        reference: &ObjectRef,
        value: &Value,
        identity: &Identity,
        home: Option<&Label>,
    ) -> Result<Self, Vec<Refusal>> {
        let unreadable = |sentence: String| {
            vec![Refusal { field: String::new(), reason: reason::INVALID_VALUE, sentence }]
        };
        let mut object =
            Object::decode(reference.kind, value).map_err(|e| unreadable(e.to_string()))?;
        // The reader has said which namespace is meant where none was written.
        let namespace = Some(reference.namespace.clone());
        match &mut object {
            Object::Mesh(object) => object.metadata.namespace = namespace,
            Object::Relay(object) => object.metadata.namespace = namespace,
            Object::LoginUser(object) => object.metadata.namespace = namespace,
            Object::Terminal(object) => object.metadata.namespace = namespace,
            Object::SupportWindow(object) => object.metadata.namespace = namespace,
            Object::Namespace { .. } => {}
        }
        Ok(match object {
            Object::Mesh(o) => Self::Mesh(Box::new(compile::mesh(&o, identity)?)),
            Object::Relay(o) => Self::Relay(Box::new(compile::relay(&o)?)),
            Object::LoginUser(o) => {
                let own = Label::parse(&reference.namespace)
                    .map_err(|e| unreadable(format!("metadata.namespace: {e}")))?;
                let user = compile::login_user(&o, identity, home.unwrap_or(&own))?;
                Self::LoginUser(Box::new(user))
            }
            Object::Terminal(o) => Self::Terminal(Box::new(compile::terminal(&o, identity)?)),
            Object::SupportWindow(o) => {
                Self::SupportWindow(Box::new(compile::window(&o, identity)?))
            }
            Object::Namespace { .. } => return Err(unreadable("is no policy".into())),
        })
    }

    fn meta_mut(&mut self) -> Option<&mut Meta> {
        match self {
            Self::Mesh(mesh) => Some(&mut mesh.mesh.meta),
            Self::Relay(_) => None,
            Self::LoginUser(user) => Some(&mut user.meta),
            Self::Terminal(terminal) => Some(&mut terminal.meta),
            Self::SupportWindow(window) => Some(&mut window.meta),
        }
    }

    /// Gives a newly accepted object its uid.
    pub fn set_uid(&mut self, uid: &str) {
        if let Some(meta) = self.meta_mut() {
            meta.uid = Arc::from(uid);
        }
    }

    /// What no other object of the mesh may have, each with its field.
    pub fn claims(&self) -> (Vec<Claim>, Vec<String>) {
        let claims = match self {
            Self::Mesh(_) => vec![(Claim::Mesh, "spec".into())],
            Self::Relay(_) | Self::SupportWindow(_) => Vec::new(),
            Self::LoginUser(user) => claims::of_user(user),
            Self::Terminal(terminal) => claims::of_terminal(terminal),
        };
        claims.into_iter().unzip()
    }
}

/// A finding about an object: with its line where it was read in this look.
pub(super) fn finding(
    reference: &ObjectRef,
    document: Option<&Document>,
    field: &str,
    rule: Rule,
    severity: Severity,
    sentence: &str,
) -> Finding {
    let message =
        if field.is_empty() { sentence.to_owned() } else { format!("{field}: {sentence}") };
    Finding {
        position: document.map(|document| document.fields.at(field)),
        object: Some(reference.clone()),
        field: (!field.is_empty()).then(|| field.to_owned()),
        rule,
        message: shown(&message, MESSAGE_BYTES),
        severity,
    }
}

/// What `compile` says of a document that was refused before it got there, so that whoever mends it
/// hears of everything at once.
pub(crate) fn wrong_besides(document: &Document) -> Vec<Finding> {
    let identity = Identity { uid: "".into(), generation: 0, created: jiff::Timestamp::UNIX_EPOCH };
    let Document { reference, value, .. } = document;
    match Compiled::new(reference, value, &identity, None) {
        Ok(_) => Vec::new(),
        Err(refusals) => refusals
            .iter()
            .map(|refusal| refused(reference, Some(document), value, refusal))
            .collect(),
    }
}

/// A refusal of `compile` as a finding in the server's form.
pub(super) fn refused(
    reference: &ObjectRef,
    document: Option<&Document>,
    value: &Value,
    refusal: &Refusal,
) -> Finding {
    let shown_value = || {
        let value = value_at(value, &refusal.field);
        shown(&value.map(Value::to_string).unwrap_or_default(), 72)
    };
    let sentence = &refusal.sentence;
    let (rule, sentence) = match refusal.reason {
        reason::REQUIRED => (Rule::Required, format!("Required value: {sentence}")),
        reason::NOT_SUPPORTED => (Rule::NotSupported, format!("Forbidden: {sentence}")),
        reason::RESERVED_NAME => (Rule::Forbidden, format!("Forbidden: {sentence}")),
        reason::DUPLICATE => {
            (Rule::Duplicate, format!("Duplicate value: {}: {sentence}", shown_value()))
        }
        _ => (Rule::InvalidValue, format!("Invalid value: {}: {sentence}", shown_value())),
    };
    finding(reference, document, &refusal.field, rule, Severity::Error, &sentence)
}

/// The value at a path such as `spec.services[0].port`.
fn value_at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, |at, step| {
        let mut parts = step.split('[');
        let field = at.get(parts.next()?)?;
        parts.try_fold(field, |at, index| at.get(index.strip_suffix(']')?.parse::<usize>().ok()?))
    })
}

/// The fields that nothing in a directory acts on, as notes.
pub(super) fn operator_only(
    kind: Kind,
    reference: &ObjectRef,
    document: &Document,
) -> Vec<Finding> {
    compile::operator_only(kind, &document.value)
        .into_iter()
        .map(|field| {
            let sentence = "only the operator acts on this field; in a directory it does nothing";
            finding(reference, Some(document), field, Rule::NotSupported, Severity::Note, sentence)
        })
        .collect()
}
