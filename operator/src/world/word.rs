//! The operator's word on one object: accepted or why not. Pure.

use tidegate_crds::claims::{Acceptance, Claim};
use tidegate_crds::compile::Refusal;
use tidegate_crds::index::{Owner, Verdict};
use tidegate_crds::manifest::Kind;
use tidegate_crds::references::Missing;
use tidegate_policy::text::shown;

/// The most bytes of a sentence for people.
const SENTENCE_BYTES: usize = 300;

/// Reasons beside those of `compile`, as conditions and events carry them.
pub mod reason {
    pub const ACCEPTED: &str = "Accepted";
    /// It cannot be read, since it is of a form that this version does not know.
    pub const UNREADABLE: &str = "Unreadable";
    pub const NOT_SERVED: &str = "NotServed";
    pub const NAME_TAKEN: &str = "NameTaken";
    pub const KEY_TAKEN: &str = "KeyTaken";
    pub const LISTEN_PORT_TAKEN: &str = "ListenPortTaken";
    pub const USER_NOT_FOUND: &str = "UserNotFound";
    pub const GROUP_NOT_FOUND: &str = "GroupNotFound";
    pub const TERMINAL_NOT_FOUND: &str = "TerminalNotFound";
    pub const SERVICE_NOT_FOUND: &str = "ServiceNotFound";
}

/// What is said of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    pub accepted: bool,
    /// CamelCase.
    pub reason: &'static str,
    /// One sentence, ASCII, at most 300 bytes.
    pub sentence: String,
    /// The spec is refused: only an edit, of this object or another, mends it. Else it is accepted, or
    /// will be as soon as what is missing appears.
    pub stalled: bool,
}

impl Word {
    pub fn accepted(kind: Kind) -> Self {
        let sentence = match kind {
            Kind::LoginUser => "its keys are its own in the Mesh",
            Kind::Terminal => "its name, keys and listen ports are its own in the Mesh",
            _ => "all that it names is there; it admits whenever its schedule is open",
        };
        Self {
            accepted: true,
            reason: reason::ACCEPTED,
            sentence: sentence.to_owned(),
            stalled: false,
        }
    }

    fn refused(reason: &'static str, stalled: bool, sentence: &str) -> Self {
        Self { accepted: false, reason, sentence: shown(sentence, SENTENCE_BYTES), stalled }
    }

    /// It could not be decoded.
    pub fn unreadable(error: &str) -> Self {
        let sentence = format!("cannot be read, and has no effect: {error}");
        Self::refused(reason::UNREADABLE, true, &sentence)
    }

    /// No Mesh serves its namespace.
    pub fn not_served(namespace: &str, owner: &Owner) -> Self {
        let namespace = shown(namespace, 63);
        let sentence = match owner {
            Owner::Contested(meshes) => {
                let two: Vec<_> = meshes.iter().take(2).map(ToString::to_string).collect();
                format!(
                    "has no effect: the Meshes {} both select the namespace {namespace}, and not exactly one of them is Ready",
                    two.join(" and ")
                )
            }
            Owner::Held(mesh) => format!(
                "has no effect: the namespace {namespace} is held by the Mesh {mesh}, whose spec is refused; mend or delete that Mesh"
            ),
            _ => format!(
                "has no effect: no Mesh serves the namespace {namespace}; label it as a Mesh's tenants.selector wants, or add a Mesh"
            ),
        };
        Self::refused(reason::NOT_SERVED, false, &sentence)
    }

    /// `None`: there is no such object.
    pub fn of_verdict(kind: Kind, verdict: &Verdict) -> Option<Self> {
        Some(match verdict {
            Verdict::Unknown => return None,
            Verdict::InForce => Self::accepted(kind),
            Verdict::Invalid(refusals) => Self::of_refusals(refusals),
            Verdict::NotServed(sentence) => Self::refused(reason::NOT_SERVED, false, sentence),
            Verdict::Contested { claim, with, .. } => {
                let other = with.first().map_or_else(|| "another".to_owned(), ToString::to_string);
                let sentence = format!("{claim} is wanted by {other} too; choose another");
                Self::refused(reason::KEY_TAKEN, true, &sentence)
            }
            Verdict::Unresolved(missing) => Self::of_missing(kind, missing),
        })
    }

    /// Who keeps what only one may have. `field`: of the claim.
    pub fn of_acceptance(kind: Kind, acceptance: &Acceptance) -> Self {
        let Acceptance::Refused { claim, holder } = acceptance else { return Self::accepted(kind) };
        let reason = match claim {
            Claim::Mesh | Claim::TerminalName(_) => reason::NAME_TAKEN,
            Claim::Key(_) => reason::KEY_TAKEN,
            Claim::ListenPort(_) => reason::LISTEN_PORT_TAKEN,
        };
        let sentence = format!(
            "{claim} belongs to {holder}, which was accepted first and keeps it; use another"
        );
        Self::refused(reason, true, &sentence)
    }

    fn of_refusals(refusals: &[Refusal]) -> Self {
        let Some(first) = refusals.first() else {
            return Self::unreadable("it is refused without a reason");
        };
        let more = match refusals.len() {
            0 | 1 => String::new(),
            2 => " (and one more fault)".to_owned(),
            n => format!(" (and {} more faults)", n - 1),
        };
        let field =
            if first.field.is_empty() { String::new() } else { format!("{}: ", first.field) };
        let sentence = format!("{field}{}", first.sentence);
        let sentence = shown(&sentence, SENTENCE_BYTES.saturating_sub(more.len())) + &more;
        Self::refused(first.reason, true, &sentence)
    }

    /// A selector that matches nothing yet is no fault: it selects what comes.
    fn of_missing(kind: Kind, missing: &[Missing]) -> Self {
        let mut named =
            missing.iter().filter_map(|missing| Some((reason_of(missing.field)?, missing)));
        let Some((reason, Missing { field, name, what })) = named.next() else {
            return Self::accepted(kind);
        };
        let more = match named.count() {
            0 => String::new(),
            1 => " (and one more is missing)".to_owned(),
            n => format!(" (and {n} more are missing)"),
        };
        let sentence = format!("{field}: \"{name}\" is not found: {what}");
        let sentence = shown(&sentence, SENTENCE_BYTES.saturating_sub(more.len())) + &more;
        Self::refused(reason, false, &sentence)
    }
}

fn reason_of(field: &str) -> Option<&'static str> {
    match field {
        "spec.users.names" => Some(reason::USER_NOT_FOUND),
        "spec.users.groups" => Some(reason::GROUP_NOT_FOUND),
        "spec.terminals.names" => Some(reason::TERMINAL_NOT_FOUND),
        "spec.services" => Some(reason::SERVICE_NOT_FOUND),
        _ => None,
    }
}
