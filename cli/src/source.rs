//! Where answers come from: a cluster, or a directory of manifests.

use std::path::PathBuf;

use tidegate_commands::{Answer, Known};
use tidegate_process::clock::Now;

use crate::args::Where;
use crate::cluster::{Cluster, Wanted, World};

/// The command that says what is wrong with manifests.
pub const VALIDATE: &str = "kubectl tidegate validate";

/// What is asked.
#[derive(Clone, Debug)]
pub enum Source {
    Manifests {
        directory: PathBuf,
        /// `-n`
        namespace: Option<String>,
    },
    Cluster(Cluster),
}

impl Source {
    /// As the command line says.
    pub async fn of(place: &Where) -> Result<Self, Answer> {
        place.clash()?;
        match &place.manifests {
            Some(directory) => Ok(Self::Manifests {
                directory: directory.clone(),
                namespace: place.namespace.clone(),
            }),
            None => Ok(Self::Cluster(Cluster::connect(place).await?)),
        }
    }

    /// The mesh, with what is wanted of it.
    pub async fn world(&self, wanted: Wanted<'_>, now: Now) -> Result<World, Answer> {
        match self {
            Self::Cluster(cluster) => Ok(cluster.world(wanted).await?),
            Self::Manifests { directory, .. } => {
                let known = if wanted.windows {
                    Known::read(directory, VALIDATE, now)?
                } else {
                    Known::read_without_windows(directory, VALIDATE, now)?
                };
                let mesh = known.snapshot.mesh().meta.key.clone();
                Ok(World { known, mesh, host_keys: Vec::new(), scope: None, served: Vec::new() })
            }
        }
    }

    /// The namespace whose objects are listed; `None`: all of the mesh's.
    pub fn listed(&self) -> Option<&str> {
        match self {
            Self::Manifests { namespace, .. } => namespace.as_deref(),
            Self::Cluster(cluster) if cluster.all_namespaces => None,
            Self::Cluster(cluster) => Some(&cluster.namespace),
        }
    }
}

/// What is said where a list is empty, as kubectl does. `what`: `support windows`.
pub fn nothing(what: &str, namespace: Option<&str>, place: &tidegate_commands::Place) -> String {
    match namespace {
        None => format!("there are no {what} in {place}\n"),
        Some(namespace) => format!(
            "there are no {what} in namespace {namespace}; -A lists those of all namespaces of {place}\n"
        ),
    }
}
