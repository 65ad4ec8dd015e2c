//! Compiles resources into the policy's own types, or says why not.
//!
//! Pure, and for both sources: it checks again what the schema and CEL check (a relay trusts no
//! reader), and what they cannot: zones by the bundled database, crons that never fire, keys. What two
//! objects may not share is `assemble`'s business.

mod keys;
mod login_user;
mod mesh;
mod operator_only;
mod relay;
mod selector;
mod terminal;
mod window;

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tidegate_policy::model::{Label, Meta, ObjectKey};
use tidegate_policy::text;

pub use keys::{HostKey, public_key};
pub use login_user::login_user;
pub use mesh::{CompiledMesh, host_keys, mesh};
pub use operator_only::operator_only;
pub use relay::{RelayLimits, RelaySettings, relay};
pub use selector::{label_selector, labels};
pub use terminal::terminal;
pub use window::window;

/// Why one field of a resource cannot become policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {sentence}")]
pub struct Refusal {
    /// In the server's form: `spec.publicKeys[0]`.
    pub field: String,
    /// CamelCase, for the condition.
    pub reason: &'static str,
    /// One clear sentence, ASCII.
    pub sentence: String,
}

/// Reasons of refusals, as conditions carry them.
pub mod reason {
    pub const INVALID_NAME: &str = "InvalidName";
    pub const RESERVED_NAME: &str = "ReservedName";
    pub const NAMESPACE_RESERVED: &str = "NamespaceReserved";
    pub const INVALID_KEY: &str = "InvalidKey";
    pub const DUPLICATE: &str = "Duplicate";
    pub const INVALID_SCHEDULE: &str = "InvalidSchedule";
    pub const INVALID_TIME: &str = "InvalidTime";
    pub const INVALID_DURATION: &str = "InvalidDuration";
    pub const INVALID_SELECTOR: &str = "InvalidSelector";
    pub const INVALID_ADDRESS: &str = "InvalidAddress";
    pub const INVALID_PORT: &str = "InvalidPort";
    pub const INVALID_VALUE: &str = "InvalidValue";
    pub const REQUIRED: &str = "Required";
    pub const NOT_SUPPORTED: &str = "NotSupported";
}

/// What identifies an object beside its name: from the API server, or from a directory's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub uid: Arc<str>,
    pub generation: i64,
    /// When it was first accepted.
    pub created: Timestamp,
}

impl Identity {
    /// By an API server's word, in whose answers none of this is ever absent.
    pub fn of(metadata: &ObjectMeta) -> Self {
        Self {
            uid: metadata.uid.as_deref().unwrap_or_default().into(),
            generation: metadata.generation.unwrap_or_default(),
            created: metadata
                .creation_timestamp
                .as_ref()
                .map_or(Timestamp::UNIX_EPOCH, |time| time.0),
        }
    }
}

/// Collects refusals, so that all of an object's are found at once.
#[derive(Default)]
struct Refusals(Vec<Refusal>);

impl Refusals {
    fn add(&mut self, field: impl Into<String>, reason: &'static str, sentence: impl Display) {
        self.0.push(Refusal { field: field.into(), reason, sentence: sentence.to_string() });
    }

    /// The value, or `None` with the error noted.
    fn take<T, E: Display>(
        &mut self,
        field: impl Into<String>,
        reason: &'static str,
        result: Result<T, E>,
    ) -> Option<T> {
        result.map_err(|e| self.add(field, reason, e)).ok()
    }

    /// What was compiled, unless something was refused.
    fn finish<T>(self, compiled: Option<T>) -> Result<T, Vec<Refusal>> {
        match compiled {
            Some(compiled) if self.0.is_empty() => Ok(compiled),
            _ => Err(self.0),
        }
    }

    fn label(&mut self, field: impl Into<String>, text: &str) -> Option<Label> {
        self.take(field, reason::INVALID_NAME, Label::parse(text))
    }

    /// Labels of a list that may have each once.
    fn labels(&mut self, field: &str, texts: &[String]) -> BTreeSet<Label> {
        let mut labels = BTreeSet::new();
        for (i, text) in texts.iter().enumerate() {
            let Some(label) = self.label(format!("{field}[{i}]"), text) else { continue };
            if !labels.insert(label) {
                self.add(format!("{field}[{i}]"), reason::DUPLICATE, "is listed twice");
            }
        }
        labels
    }

    fn timestamp(&mut self, field: &str, text: Option<&String>) -> Option<Timestamp> {
        text.and_then(|text| self.take(field, reason::INVALID_TIME, text::timestamp(text)))
    }

    /// A duration between two bounds, both allowed.
    fn duration(
        &mut self,
        field: &str,
        text: &str,
        shortest: SignedDuration,
        longest: SignedDuration,
    ) -> Option<SignedDuration> {
        let duration = self.take(field, reason::INVALID_DURATION, text::duration(text))?;
        if (shortest..=longest).contains(&duration) {
            return Some(duration);
        }
        let bounds = (text::show_duration(shortest), text::show_duration(longest));
        self.add(
            field,
            reason::INVALID_DURATION,
            format_args!("must be from {} to {}", bounds.0, bounds.1),
        );
        None
    }

    fn port(&mut self, field: impl Into<String>, port: i32) -> Option<u16> {
        let port = u16::try_from(port).ok().filter(|port| *port > 0);
        if port.is_none() {
            self.add(field, reason::INVALID_PORT, "must be a port from 1 to 65535");
        }
        port
    }

    fn not_supported(&mut self, field: &str) {
        self.add(
            field,
            reason::NOT_SUPPORTED,
            "is not supported yet; remove it, since nothing would enforce it",
        );
    }

    /// Who the object is.
    fn meta(&mut self, metadata: &ObjectMeta, identity: &Identity) -> Option<Meta> {
        let name = self.label("metadata.name", metadata.name.as_deref().unwrap_or_default());
        let namespace = metadata.namespace.as_deref().unwrap_or("default");
        let namespace = self.label("metadata.namespace", namespace);
        Some(Meta {
            key: ObjectKey { namespace: namespace?, name: name? },
            uid: Arc::clone(&identity.uid),
            generation: identity.generation,
            created: identity.created,
        })
    }
}
