//! Why the API server gave no answer, in one sentence each.

use std::error::Error as _;
use std::fmt;

use tidegate_commands::Answer;
use tidegate_policy::text::shown;

/// The most bytes of a sentence.
const SENTENCE: usize = 300;

/// The ClusterRole of those who look.
pub const VIEWER: &str = "tidegate-viewer";

/// A question that could not be asked: one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    pub(super) sentence: String,
    /// The API server knows who asks and does not permit it.
    pub forbidden: bool,
    /// There is no such object, or no such kind.
    pub absent: bool,
    /// A list must be begun anew.
    pub expired: bool,
}

impl Trouble {
    /// With a sentence of our own.
    pub fn new(sentence: impl fmt::Display) -> Self {
        let sentence = shown(&sentence.to_string(), SENTENCE);
        Self { sentence, forbidden: false, absent: false, expired: false }
    }

    /// From an error of the client. `what` was tried, as after `cannot`: `list terminals in namespace acme`;
    /// `role` is the ClusterRole that permits it.
    pub fn of(error: &kube::Error, what: &str, role: &str) -> Self {
        let kube::Error::Api(status) = error else {
            return Self::new(format_args!("cannot {what}: {}", innermost(error)));
        };
        let with = |sentence| Self { sentence, ..Self::new("") };
        let say = |text: fmt::Arguments<'_>| shown(&text.to_string(), SENTENCE);
        match status.code {
            401 => with(say(format_args!(
                "cannot {what}: the API server does not know you; log in again, or choose another --context"
            ))),
            403 => Self {
                forbidden: true,
                ..with(say(format_args!(
                    "you may not {what}; ask for the ClusterRole {role} ({})",
                    status.message
                )))
            },
            404 => Self {
                absent: true,
                ..with(say(format_args!("cannot {what}: {}", status.message)))
            },
            410 => Self {
                expired: true,
                ..with(say(format_args!("cannot {what}: {}", status.message)))
            },
            _ => with(say(format_args!("cannot {what}: {}", status.message))),
        }
    }

    /// The request took longer than it may.
    pub fn late(what: &str, seconds: u64) -> Self {
        Self::new(format_args!("cannot {what}: the API server did not answer within {seconds}s"))
    }
}

/// What is really wrong: kube wraps the error of the network in several of its own.
fn innermost(error: &kube::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = error.to_string();
        source = error.source();
    }
    text
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl From<Trouble> for Answer {
    fn from(trouble: Trouble) -> Self {
        Self::usage(trouble)
    }
}
