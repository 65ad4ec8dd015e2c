//! What is installed: this tree, or what an upgrade to it comes from.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cluster::Nodes;
use crate::programs;

const THIS: &str = env!("CARGO_PKG_VERSION");
const EARLIER: &str = "0.0.9";

/// A release, by the tag of its images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// The overlay `kind` as it stands.
    This,
    /// The same programs and manifests under an older tag: an upgrade is a change of the operator's
    /// image, and by it of RELAY_IMAGE.
    Earlier,
}

impl Release {
    /// The relay's image.
    pub fn relay_image(self) -> String {
        self.image("relay")
    }

    fn image(self, program: &str) -> String {
        let tag = match self {
            Self::This => THIS,
            Self::Earlier => EARLIER,
        };
        format!("localhost/tidegate-{program}:{tag}")
    }

    /// Gives this tree's images, which the nodes have, this release's tag.
    pub(super) fn tag_images(self, nodes: &Nodes) {
        if self == Self::This {
            return;
        }
        for program in ["operator", "relay"] {
            nodes.tag_image(&Self::This.image(program), &self.image(program));
        }
    }

    /// The overlay's folder; that of an earlier release is made below `scratch`.
    pub(super) fn overlay(self, scratch: &Path) -> PathBuf {
        let kind = programs::checkout().join("manifests/overlays/kind");
        if self == Self::This {
            return kind;
        }
        let folder = scratch.join("earlier");
        fs::create_dir_all(&folder).expect("a folder");
        let text = format!(
            "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n\
             resources: [{base}]\n\
             images: [{{name: localhost/tidegate-operator, newTag: {EARLIER}}}]\n\
             patches:\n- target: {{kind: Deployment, name: tidegate-operator}}\n  patch: |\n    \
             apiVersion: apps/v1\n    kind: Deployment\n    metadata: {{name: tidegate-operator}}\n    \
             spec:\n      template:\n        spec:\n          containers:\n          - name: operator\n            \
             env: [{{name: RELAY_IMAGE, value: \"{relay}\"}}]\n",
            base = relative(&folder, &kind).display(),
            relay = self.relay_image(),
        );
        fs::write(folder.join("kustomization.yaml"), text).expect("a kustomization");
        folder
    }
}

/// `to` as seen from the folder `from`: kustomize takes no absolute path.
fn relative(from: &Path, to: &Path) -> PathBuf {
    let from = fs::canonicalize(from).expect("a folder");
    let to = fs::canonicalize(to).expect("a folder");
    let up = from.components().skip(1).map(|_| "..");
    let root = Path::new("/");
    up.collect::<PathBuf>().join(to.strip_prefix(root).expect("an absolute path"))
}
