//! What a reader of manifests has to say, and where: plain data, no input or output.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A place in a file that was read, both numbers counted from 1; the column counts characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    pub file: Arc<str>,
    pub line: u32,
    pub column: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// The kinds that a manifest may hold. SupportSession and SupportClaim are written by relays, never by people,
/// so a manifest of one is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    Mesh,
    Relay,
    LoginUser,
    Terminal,
    SupportWindow,
    /// `v1` Namespace: read for its labels alone.
    Namespace,
}

impl Kind {
    /// Every kind of the group `tidegate.dev`.
    pub const OWN: [Self; 5] =
        [Self::Mesh, Self::Relay, Self::LoginUser, Self::Terminal, Self::SupportWindow];

    /// The word in a manifest's `kind`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mesh => "Mesh",
            Self::Relay => "Relay",
            Self::LoginUser => "LoginUser",
            Self::Terminal => "Terminal",
            Self::SupportWindow => "SupportWindow",
            Self::Namespace => "Namespace",
        }
    }

    /// The kind of the group `tidegate.dev` with this name.
    pub fn own(name: &str) -> Option<Self> {
        Self::OWN.into_iter().find(|kind| kind.as_str() == name)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The name of one object, shown as `SupportWindow acme/berlin-maint`. A Namespace has an empty namespace and is
/// shown as `Namespace acme`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectRef {
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// The kind of fault, as a word for machines (`UnknownField` in JSON).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Rule {
    /// The bytes are no text that can be read at all, or too many of them.
    Unreadable,
    /// The text is no YAML or JSON.
    Syntax,
    /// A kind or version of our group that does not exist or that people do not write.
    UnknownKind,
    UnknownField,
    DuplicateField,
    Required,
    /// A value of another type than the schema asks for.
    InvalidType,
    InvalidValue,
    /// Not one of the values that an enumeration lists.
    Unsupported,
    TooLong,
    TooMany,
    /// Two entries of a list that must differ, or the same object twice.
    Duplicate,
    /// A rule of the schema's `x-kubernetes-validations`.
    Cel,
    Forbidden,
    /// A field whose enforcement is not built yet.
    NotSupported,
    /// Two objects claim what only one can have.
    Conflict,
    /// The object that is named does not exist.
    Reference,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Severity {
    /// What it is about does not apply.
    Error,
    /// Worth knowing; it applies nevertheless.
    Note,
}

/// One fault of one object or file. Shown as
/// `windows/a.yaml:12:9: SupportWindow acme/berlin: spec.suspnd: strict decoding error: …`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Of the field at fault, else of what should hold it.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<ObjectRef>,
    /// Such as `spec.schedule.once.end` or `spec.publicKeys[0]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    pub rule: Rule,
    /// In the API server's form, the field first: `spec.schedule.once.end: Invalid value: "…": must be after start`.
    /// Printable ASCII, at most [`MESSAGE_BYTES`].
    pub message: String,
    pub severity: Severity,
}

/// The longest message of a finding.
pub const MESSAGE_BYTES: usize = 600;

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(position) = &self.position {
            write!(f, "{position}: ")?;
        }
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        f.write_str(&self.message)
    }
}

/// Where each field of a document stands, by its path in the server's form: `spec.publicKeys[0]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Positions {
    file: Arc<str>,
    start: (u32, u32),
    at: BTreeMap<String, (u32, u32)>,
}

impl Positions {
    /// An empty table of a document that starts at `start`.
    pub fn new(start: &Position) -> Self {
        Self {
            file: Arc::clone(&start.file),
            start: (start.line, start.column),
            at: BTreeMap::new(),
        }
    }

    /// Notes where a field stands.
    pub fn insert(&mut self, field: String, line: u32, column: u32) {
        self.at.insert(field, (line, column));
    }

    /// The position of a field; of the nearest parent that was written where the field itself was not; of the
    /// document's start if none was.
    pub fn at(&self, field: &str) -> Position {
        let mut path = field;
        let (line, column) = loop {
            if let Some(found) = self.at.get(path) {
                break *found;
            }
            match path.rfind(['.', '[']).and_then(|end| path.get(..end)) {
                Some(parent) => path = parent,
                None => break self.start,
            }
        };
        Position { file: Arc::clone(&self.file), line, column }
    }
}
