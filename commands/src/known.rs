//! What the answers are made of: one mesh's policy, and where it is from.

use std::fmt;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use tidegate_crds::compile::RelaySettings;
use tidegate_policy::snapshot::Snapshot;
use tidegate_process::clock::Now;

use crate::Answer;
use crate::manifests::load::{Loaded, load, load_without_windows};
use crate::manifests::scan::ListError;

/// One mesh, as far as it is known.
#[derive(Clone, Debug)]
pub struct Known {
    pub snapshot: Snapshot,
    /// The Relays that can be used, in the order of their names or files.
    pub relays: Vec<RelaySettings>,
    pub place: Place,
    /// For stderr, where something is left out of every answer: a sentence and a newline, or nothing.
    pub warning: String,
}

/// Where policy is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Manifests {
        directory: PathBuf,
        /// The command that lists what is wrong with a directory: `tidegate-relay check`.
        check: &'static str,
    },
    /// A Mesh of a cluster, by namespace and name.
    Mesh { namespace: String, name: String },
}

/// After `in`: `manifests/`, `mesh support/prod`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manifests { directory, .. } => directory.display().fmt(f),
            Self::Mesh { namespace, name } => write!(f, "mesh {namespace}/{name}"),
        }
    }
}

/// The command that says what is wrong with manifests, as the relay has it.
pub const CHECK: &str = "tidegate-relay check";

impl Known {
    /// From a directory of manifests; `check` is the command that lists what is wrong there. The error
    /// is the answer, where the directory holds no Mesh that can be used.
    pub fn read(directory: &Path, check: &'static str, now: Now) -> Result<Self, Answer> {
        Self::of(directory, check, load(directory, now))
    }

    /// As [`Known::read`], without the support windows of files that hold nothing else.
    pub fn read_without_windows(
        directory: &Path,
        check: &'static str,
        now: Now,
    ) -> Result<Self, Answer> {
        Self::of(directory, check, load_without_windows(directory, now))
    }

    fn of(
        directory: &Path,
        check: &'static str,
        loaded: Result<Loaded, ListError>,
    ) -> Result<Self, Answer> {
        let mut loaded = loaded.map_err(Answer::usage)?;
        let Some(snapshot) = loaded.snapshot.take() else {
            let mut stderr = String::new();
            for finding in &loaded.findings {
                let _ = writeln!(stderr, "{finding}");
            }
            let path = directory.display();
            let _ = writeln!(stderr, "the manifests in {path} hold no Mesh that can be used");
            return Err(Answer { stderr, code: 2, ..Answer::default() });
        };
        let warning = warning(directory, check, loaded.errors());
        let place = Place::Manifests { directory: directory.into(), check };
        Ok(Self { snapshot, relays: loaded.relays, place, warning })
    }

    /// The Relay that is meant: the one of that name, or the first where none is asked for.
    pub fn relay(&self, wanted: Option<&str>) -> Result<&RelaySettings, String> {
        match (wanted, self.relays.as_slice()) {
            (None, [first, ..]) => Ok(first),
            (wanted, relays) => pick(relays, wanted, &self.place),
        }
    }
}

/// A sentence for stderr where some manifests do not apply; empty where all do.
fn warning(directory: &Path, check: &str, errors: usize) -> String {
    if errors == 0 {
        return String::new();
    }
    let path = directory.display();
    format!(
        "warning: {errors} findings in {path} are left out of this answer; `{check} {path}` lists them\n"
    )
}

/// The one Relay of that name, given as NAME or NAMESPACE/NAME; without a name, the only one.
pub fn pick<'a>(
    relays: &'a [RelaySettings],
    wanted: Option<&str>,
    place: &Place,
) -> Result<&'a RelaySettings, String> {
    let names = || {
        let names: Vec<String> = relays.iter().take(10).map(full_name).collect();
        names.join(", ")
    };
    let found: Vec<&RelaySettings> = relays
        .iter()
        .filter(|relay| {
            wanted.is_none_or(|wanted| wanted == relay.name.as_str() || wanted == full_name(relay))
        })
        .collect();
    // `the manifests in DIR hold`, `mesh support/prod has`.
    let (holder, hint) = match place {
        Place::Manifests { directory, check } => {
            let path = directory.display();
            let hint = format!("`{check} {path}` lists what is wrong");
            (format!("the manifests in {path} hold"), hint)
        }
        Place::Mesh { namespace, .. } => {
            let hint = format!("`kubectl get relays -n {namespace}` shows those that there are");
            (format!("{place} has"), hint)
        }
    };
    match (found.as_slice(), wanted) {
        ([one], _) => Ok(one),
        (_, _) if relays.is_empty() => {
            Err(format!("{holder} no Relay that can be used, and a relay needs one; {hint}"))
        }
        ([], Some(wanted)) => Err(format!("{holder} no Relay {wanted:?}; there are {}", names())),
        (_, Some(wanted)) => Err(format!(
            "several Relays in {place} are named {wanted:?}; give --relay NAMESPACE/NAME, one of {}",
            names()
        )),
        (_, None) => Err(format!("{holder} several Relays; give --relay NAME, one of {}", names())),
    }
}

fn full_name(relay: &RelaySettings) -> String {
    format!("{}/{}", relay.namespace, relay.name)
}
