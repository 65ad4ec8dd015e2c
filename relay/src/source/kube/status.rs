//! How the source is, for the admin port and for whoever reads the log: why there is no policy, or no
//! complete one. Every sentence names what is wrong and what to do.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::stream::{Reach, Stream, plural};
use super::wire::Trouble;
use tidegate_crds::manifest::Kind;

/// The longest sentence of ours, in bytes.
const LONGEST: usize = 300;

/// Shared by the source and the admin port.
#[derive(Debug)]
pub struct Status(Mutex<Vec<String>>);

impl Default for Status {
    fn default() -> Self {
        Self(Mutex::new(vec!["the relay has not read its policy yet".into()]))
    }
}

impl Status {
    /// Why the policy is not complete, one sentence each; empty: it is.
    pub fn incomplete(&self) -> Vec<String> {
        self.lock().clone()
    }

    /// Takes over the reasons of now; whether they differ from before.
    pub(super) fn set(&self, reasons: Vec<String>) -> bool {
        let mut now = self.lock();
        let differs = *now != reasons;
        *now = reasons;
        differs
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What keeps a stream from being read.
pub fn trouble(stream: Stream, home: &str, trouble: &Trouble) -> String {
    let what = plural(stream.kind);
    let place = match stream.reach {
        Reach::Home => format!(" in namespace {home}"),
        Reach::Elsewhere => " in all namespaces".into(),
        Reach::Cluster => String::new(),
    };
    clip(match trouble {
        Trouble::Forbidden(why) => format!(
            "the relay may not read {what}{place}; give its service account list and watch on them \
             (the API server says: {why})"
        ),
        Trouble::Missing if stream.kind == Kind::Namespace => {
            format!("the API server knows no {what}; it is no Kubernetes API server")
        }
        Trouble::Missing => format!(
            "the API server knows no {what}.{}; install Tidegate's CustomResourceDefinitions",
            tidegate_crds::GROUP
        ),
        Trouble::Gone => format!("the list of {what}{place} is out of date and read anew"),
        Trouble::Answer(why) => {
            format!("the relay cannot read {what}{place} and keeps trying; {why}")
        }
        Trouble::Unreachable(why) => format!(
            "the API server cannot be reached for {what}{place}, and the relay keeps trying; {why}"
        ),
    })
}

/// The API server answers from memory alone.
pub fn unproven(stream: Stream, trouble: &Trouble) -> String {
    clip(format!(
        "the API server answers, but cannot read {} from its store (etcd), so policy grows old: {trouble}",
        plural(stream.kind)
    ))
}

pub fn no_relay(home: &str, relay: &str) -> String {
    clip(format!(
        "there is no Relay {relay} in namespace {home} that can be used; the relay waits for it"
    ))
}

pub fn no_mesh(home: &str, mesh: &str) -> String {
    clip(format!(
        "there is no Mesh {mesh} in namespace {home} that can be used, and the Relay belongs to it; \
         the relay waits for it"
    ))
}

pub fn reading(done: usize, of: usize) -> String {
    format!("the relay is reading its policy: {done} of {of} lists are complete")
}

/// Printable ASCII of bounded length, whatever an API server said.
fn clip(text: String) -> String {
    let plain = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    text.chars().take(LONGEST).map(plain).collect()
}
