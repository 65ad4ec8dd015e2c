//! The resources as the policy sees them: plain values, already validated, with no Kubernetes in
//! them. `tidegate-crds` compiles resources into these; nothing else makes them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

use crate::decide::Wants;
use crate::schedule::Schedule;

/// An RFC 1123 label: 1 to 63 of `a-z`, `0-9` and `-`, beginning and ending with a letter or
/// digit. Every name that Tidegate knows is one, so none can carry a dot, comma, glob or newline.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(Arc<str>);

/// Why a text is not a [`Label`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a name is 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit")]
pub struct BadLabel;

impl Label {
    /// Takes a label exactly as written; upper case is refused.
    pub fn parse(text: &str) -> Result<Self, BadLabel> {
        let bytes = text.as_bytes();
        let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
        let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let good = bytes.len() <= 63
            && bytes.iter().all(inner)
            && edge(bytes.first())
            && edge(bytes.last());
        if good { Ok(Self(text.into())) } else { Err(BadLabel) }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The label that orders before every other.
    pub(crate) fn first() -> Self {
        Self("0".into())
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// Namespace and name of a resource; its kind is known from where it stands.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ObjectKey {
    pub namespace: Label,
    pub name: Label,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A login as typed: `alice` is a LoginUser in the Mesh's namespace, `bob.acme` one in the tenant's
/// namespace `acme`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Login {
    pub name: Label,
    /// The tenant's namespace; `None` for the Mesh's own.
    pub tenant: Option<Label>,
}

impl Login {
    /// Takes `name` or `name.tenant`, exactly as written.
    pub fn parse(text: &str) -> Result<Self, BadLabel> {
        match text.split_once('.') {
            None => Ok(Self { name: Label::parse(text)?, tenant: None }),
            Some((name, tenant)) => {
                Ok(Self { name: Label::parse(name)?, tenant: Some(Label::parse(tenant)?) })
            }
        }
    }

    /// The login of the LoginUser `key` in a Mesh that lives in namespace `mesh`.
    pub fn of(key: &ObjectKey, mesh: &Label) -> Self {
        let tenant = (key.namespace != *mesh).then(|| key.namespace.clone());
        Self { name: key.name.clone(), tenant }
    }
}

impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.tenant {
            None => write!(f, "{}", self.name),
            Some(tenant) => write!(f, "{}.{tenant}", self.name),
        }
    }
}

/// An SSH public key as its wire blob (RFC 4253 section 6.6), which is what identity is decided by.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyBlob(Arc<[u8]>);

impl KeyBlob {
    pub fn new(blob: impl Into<Arc<[u8]>>) -> Self {
        Self(blob.into())
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// `SHA256:` and 43 characters of unpadded base64, as `ssh-keygen -l` prints it.
    pub fn fingerprint(&self) -> String {
        format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256::digest(&self.0)))
    }
}

impl fmt::Debug for KeyBlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fingerprint())
    }
}

/// Labels that a selector reads: `matchLabels` and `matchExpressions`, as Kubernetes means them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LabelSelector {
    pub match_labels: BTreeMap<String, String>,
    pub match_expressions: Vec<LabelRequirement>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LabelRequirement {
    In(String, BTreeSet<String>),
    NotIn(String, BTreeSet<String>),
    Exists(String),
    DoesNotExist(String),
}

impl Meta {
    /// By age: the first accepted comes first; ties by namespace and name.
    pub fn by_age(&self) -> (Timestamp, &ObjectKey) {
        (self.created, &self.key)
    }
}

impl LabelSelector {
    /// Whether every label and every expression holds; an empty selector matches everything.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let expression = |r: &LabelRequirement| match r {
            LabelRequirement::In(k, values) => labels.get(k).is_some_and(|v| values.contains(v)),
            LabelRequirement::NotIn(k, values) => labels.get(k).is_none_or(|v| !values.contains(v)),
            LabelRequirement::Exists(k) => labels.contains_key(k),
            LabelRequirement::DoesNotExist(k) => !labels.contains_key(k),
        };
        self.match_labels.iter().all(|(k, v)| labels.get(k) == Some(v))
            && self.match_expressions.iter().all(expression)
    }
}

/// What every resource has. `created` is the time of its first acceptance, by which "the oldest"
/// is told; ties are broken by namespace and name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Meta {
    pub key: ObjectKey,
    pub uid: Arc<str>,
    pub generation: i64,
    pub created: Timestamp,
}

/// The Mesh: one domain, one policy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mesh {
    pub meta: Meta,
    /// Lower case, without a trailing dot.
    pub domain: Arc<str>,
    /// How old policy may be when a new session is admitted.
    pub max_policy_age: SignedDuration,
    pub session_retention: SignedDuration,
    pub host_keys: HostKeys,
}

/// One of the two host keys that the relays of a Mesh may have.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum HostKeyName {
    A,
    B,
}

/// Which host keys the relays of a Mesh have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HostKeys {
    /// The key that signs.
    pub serve: HostKeyName,
    /// The other one, if clients shall learn it.
    pub announce: Option<HostKeyName>,
}

impl Default for HostKeys {
    fn default() -> Self {
        Self { serve: HostKeyName::A, announce: None }
    }
}

impl HostKeys {
    /// Those that are wanted, the one that serves first.
    pub fn wanted(self) -> impl Iterator<Item = HostKeyName> {
        [Some(self.serve), self.announce].into_iter().flatten()
    }
}

/// A member of the support staff.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoginUser {
    pub meta: Meta,
    pub login: Login,
    pub public_keys: Vec<KeyBlob>,
    pub groups: BTreeSet<Label>,
    /// The first instant at which this user is no longer let in.
    pub valid_until: Option<Timestamp>,
    /// Empty: from anywhere.
    pub source_ranges: Vec<IpNet>,
    pub suspended: bool,
}

/// A declared port of a terminal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    pub name: Label,
    /// The port on the terminal, 1 to 65535.
    pub port: u16,
    /// The port on the relay that a stock `ssh -R` asks for; unique per mesh.
    pub listen_port: Option<u16>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attach {
    Always,
    DuringWindow,
}

/// A customer's machine. Its name is unique in the mesh.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Terminal {
    pub meta: Meta,
    pub labels: BTreeMap<String, String>,
    pub public_keys: Vec<KeyBlob>,
    /// Lines of the form `ssh-ed25519 AAAA…`: the host keys of a stock terminal's own sshd.
    pub host_keys: Vec<String>,
    /// Not empty; names, ports and listen ports are unique within.
    pub services: Vec<Service>,
    pub owner: Option<Arc<str>>,
    pub attach: Attach,
    pub suspended: bool,
    /// Which fleets may carry it, by the Relay's labels; `None`: all.
    pub relays: Option<LabelSelector>,
}

impl Terminal {
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|s| s.name.as_str() == name)
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Case {
    pub number: Arc<str>,
    pub url: Option<Arc<str>>,
}

/// The union of names and members of groups; groups count in the Mesh's and the window's namespace.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct UserSelector {
    pub names: BTreeSet<Login>,
    pub groups: BTreeSet<Label>,
}

/// The union of names and of what the selector matches, in the window's own namespace alone.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TerminalSelector {
    pub names: BTreeSet<Label>,
    pub selector: Option<LabelSelector>,
}

/// `Required` is the stricter one, for consent and for the code alike.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Need {
    NotRequired,
    Required,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Recording {
    None,
    Endpoint,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    /// Sessions live at once per occurrence; `None`: no limit.
    pub max_sessions: Option<u32>,
    pub max_session_duration: Option<SignedDuration>,
    pub idle_timeout: Option<SignedDuration>,
}

/// Who may reach which terminals, when, on which services, under which conditions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Window {
    pub meta: Meta,
    pub case: Option<Case>,
    pub users: UserSelector,
    pub terminals: TerminalSelector,
    /// Names of services; not empty.
    pub services: BTreeSet<Label>,
    pub schedule: Schedule,
    pub consent: Need,
    pub code: Need,
    pub recording: Recording,
    pub one_time: bool,
    pub limits: Limits,
    pub suspended: bool,
}

impl Window {
    /// Whether this window names `user`, by name or by group. It can name the Mesh's users and those of
    /// its own namespace, no other tenant's.
    pub fn names_user(&self, user: &LoginUser) -> bool {
        let near =
            user.login.tenant.as_ref().is_none_or(|tenant| *tenant == self.meta.key.namespace);
        near && (self.users.names.contains(&user.login)
            || user.groups.iter().any(|group| self.users.groups.contains(group)))
    }

    /// Whether this window selects `terminal`, by name or by labels, in its own namespace alone.
    pub fn selects(&self, terminal: &Terminal) -> bool {
        let Terminal { meta: Meta { key, .. }, labels, .. } = terminal;
        key.namespace == self.meta.key.namespace
            && (self.terminals.names.contains(&key.name)
                || self
                    .terminals
                    .selector
                    .as_ref()
                    .is_some_and(|selector| selector.matches(labels)))
    }

    /// What this window wants that a stock terminal cannot give: the first of it.
    pub fn wants(&self) -> Option<Wants> {
        self.all_wants().into_iter().flatten().next()
    }

    /// The first that this window wants and `other` does not.
    pub fn wants_beyond(&self, other: &Self) -> Option<Wants> {
        let others = other.all_wants();
        self.all_wants().into_iter().flatten().find(|want| !others.contains(&Some(*want)))
    }

    fn all_wants(&self) -> [Option<Wants>; 3] {
        [
            (self.consent == Need::Required).then_some(Wants::Consent),
            (self.code == Need::Required).then_some(Wants::Code),
            (self.recording == Recording::Endpoint).then_some(Wants::Recording),
        ]
    }
}
