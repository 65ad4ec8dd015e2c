//! A Mesh's keys: where they are, how they are made, what is wrong with one. Pure.
//!
//! The relays' two host keys are in the Mesh's namespace, as far as its spec wants them; the authority's
//! three keys are in the operator's own. Each is one immutable Secret, made once. They have no owner: a
//! Mesh that is deleted by mistake and made again finds its keys. Once the Mesh's status names a public
//! key, no other takes its place.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;
use rand::TryRngCore as _;
use rand::rngs::OsRng;
use sha2::{Digest as _, Sha256};
use ssh_key::private::Ed25519Keypair;
use ssh_key::{Algorithm, LineEnding, PrivateKey, PublicKey};
use tidegate_crds::mesh::key_fault;
use tidegate_policy::model::{HostKeyName, HostKeys};

use super::tenancy::Objection;
use crate::names;
use crate::watching::Key;

/// The Secrets of the relays' host keys A and B, in every Mesh's namespace: fixed names, since a right to
/// read a Secret can name it but not match it.
pub const HOST_KEYS: [&str; 2] = ["tidegate-host-key", "tidegate-host-key-b"];
/// Where a host key is in its Secret: OpenSSH's form, in PEM.
pub const HOST_KEY_FILE: &str = "ssh_host_ed25519_key";
/// Where an authority key is in its Secret.
const AUTHORITY_FILE: &str = "id_ed25519";
/// Whose key it is, in full, where the name has a hash: `namespace/name`.
const MESH_ANNOTATION: &str = "tidegate.dev/mesh-key";

/// Which of a Mesh's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Which {
    HostA,
    HostB,
    Grant,
    HostCa,
    List,
}

impl Which {
    /// Those of a Mesh that wants these host keys.
    pub fn wanted(keys: HostKeys) -> impl Iterator<Item = Self> {
        keys.wanted().map(Self::host).chain([Self::Grant, Self::HostCa, Self::List])
    }

    pub const fn host(name: HostKeyName) -> Self {
        match name {
            HostKeyName::A => Self::HostA,
            HostKeyName::B => Self::HostB,
        }
    }

    const fn noun(self) -> &'static str {
        match self {
            Self::HostA => "host key A",
            Self::HostB => "host key B",
            Self::Grant => "grant key",
            Self::HostCa => "host CA",
            Self::List => "list key",
        }
    }

    const fn file(self) -> &'static str {
        match self {
            Self::HostA | Self::HostB => HOST_KEY_FILE,
            Self::Grant | Self::HostCa | Self::List => AUTHORITY_FILE,
        }
    }

    /// The Secret of this key of `mesh`; `own` is the operator's namespace.
    pub fn secret(self, mesh: &Key, own: &str) -> Key {
        let [a, b] = HOST_KEYS;
        let suffix = match self {
            Self::HostA => return Key::new(&mesh.namespace, a),
            Self::HostB => return Key::new(&mesh.namespace, b),
            Self::Grant => "grant",
            Self::HostCa => "ca",
            Self::List => "list",
        };
        let digest = Sha256::digest(mesh.to_string());
        let short = digest.iter().take(10).fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        Key::new(own, &format!("authority-{short}-{suffix}"))
    }
}

/// A key could not be made.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("the system has no randomness: {0}")]
    Randomness(#[from] rand::rand_core::OsError),
    #[error("the key cannot be written down: {0}")]
    Form(#[from] ssh_key::Error),
}

/// A new key in a Secret of its own.
pub fn make(which: Which, mesh: &Key, own: &str) -> Result<Secret, KeyError> {
    let mut seed = [0; 32];
    OsRng.try_fill_bytes(&mut seed)?;
    let keypair = Ed25519Keypair::from_seed(&seed);
    let key = PrivateKey::new(keypair.into(), format!("tidegate {} of {mesh}", which.noun()))?;
    let pem = key.to_openssh(LineEnding::LF)?;
    let at = which.secret(mesh, own);
    let host = matches!(which, Which::HostA | Which::HostB);
    let component = if host { "relay" } else { "authority" };
    Ok(Secret {
        metadata: ObjectMeta {
            name: Some(at.name),
            namespace: Some(at.namespace),
            labels: Some(names::labels(&mesh.name, component)),
            annotations: Some(BTreeMap::from([(MESH_ANNOTATION.to_owned(), mesh.to_string())])),
            ..ObjectMeta::default()
        },
        immutable: Some(true),
        type_: Some("Opaque".to_owned()),
        data: Some(BTreeMap::from([(
            which.file().to_owned(),
            ByteString(pem.as_bytes().to_vec()),
        )])),
        ..Secret::default()
    })
}

/// What is to be done about one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It is there: its public half, as authorized_keys has it, without a comment.
    Present(String),
    /// There is none and never was: make it.
    Make,
    /// A person has to act.
    Wrong(Objection),
}

/// Looks at the Secret that was found, and at the public key that the status names.
pub fn look(
    which: Which,
    mesh: &Key,
    own: &str,
    found: Option<&Secret>,
    named: Option<&str>,
) -> State {
    let (at, noun) = (which.secret(mesh, own), which.noun());
    let wrong = |reason, sentence| State::Wrong(Objection { reason, sentence, wholly: false });
    let Some(secret) = found else {
        let Some(named) = named else { return State::Make };
        return wrong(
            key_fault::MISSING,
            format!(
                "Secret {at} is gone: restore the {noun} with fingerprint {} from a backup; no new one is made, since nobody would trust it",
                fingerprint(named)
            ),
        );
    };
    let owner = secret.labels().get(names::MESH_LABEL);
    if owner.is_some_and(|owner| *owner != mesh.name) {
        return wrong(
            key_fault::FOREIGN,
            format!(
                "Secret {at} is the {noun} of Mesh {}, not of Mesh {}: delete it if that Mesh is gone for good, or label it {}={}",
                tidegate_policy::text::shown(owner.map_or("", String::as_str), 63),
                mesh.name,
                names::MESH_LABEL,
                mesh.name
            ),
        );
    }
    let Some(public) = public(secret, which) else {
        return wrong(
            key_fault::UNREADABLE,
            format!(
                "Secret {at} has no ed25519 private key in OpenSSH's form as {}: restore the {noun} from a backup",
                which.file()
            ),
        );
    };
    match named {
        Some(named) if blob(named) != blob(&public) => wrong(
            key_fault::CHANGED,
            format!(
                "Secret {at} has another {noun} than the one with fingerprint {}: restore that one from a backup",
                fingerprint(named)
            ),
        ),
        _ => State::Present(public),
    }
}

/// The public half of the key in a Secret.
fn public(secret: &Secret, which: Which) -> Option<String> {
    let bytes = secret.data.as_ref()?.get(which.file())?;
    let key = PrivateKey::from_openssh(&bytes.0).ok()?;
    if key.algorithm() != Algorithm::Ed25519 || key.is_encrypted() {
        return None;
    }
    let mut public = key.public_key().clone();
    public.set_comment("");
    public.to_openssh().ok().map(|text| text.trim_end().to_owned())
}

/// The key itself of a public key's line: its second word.
fn blob(line: &str) -> Option<&str> {
    line.split_whitespace().nth(1)
}

fn fingerprint(line: &str) -> String {
    let unknown = || "(unreadable in the status)".to_owned();
    PublicKey::from_openssh(line)
        .map_or_else(|_| unknown(), |key| key.fingerprint(ssh_key::HashAlg::Sha256).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mesh() -> Key {
        Key::new("support", "prod")
    }

    fn all() -> impl Iterator<Item = Which> {
        Which::wanted(HostKeys { serve: HostKeyName::A, announce: Some(HostKeyName::B) })
    }

    fn present(which: Which, secret: &Secret) -> String {
        match look(which, &mesh(), "own", Some(secret), None) {
            State::Present(public) => public,
            other => panic!("{other:?}"),
        }
    }

    fn reason(state: State) -> &'static str {
        match state {
            State::Wrong(objection) => {
                assert!(objection.sentence.is_ascii(), "{objection:?}");
                assert!(objection.sentence.len() <= 300, "{objection:?}");
                objection.reason
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn keys_are_immutable_secrets_under_fixed_names() {
        let names: Vec<_> = all().map(|which| which.secret(&mesh(), "own").to_string()).collect();
        insta::assert_debug_snapshot!(names, @r#"
        [
            "support/tidegate-host-key",
            "support/tidegate-host-key-b",
            "own/authority-e4fadba2d8d9237f3797-grant",
            "own/authority-e4fadba2d8d9237f3797-ca",
            "own/authority-e4fadba2d8d9237f3797-list",
        ]
        "#);
        let secret = make(Which::HostA, &mesh(), "own").unwrap();
        assert_eq!(secret.immutable, Some(true));
        assert!(secret.owner_references().is_empty(), "a key outlives its Mesh");
        let public = present(Which::HostA, &secret);
        assert!(public.starts_with("ssh-ed25519 AAAA") && public.split(' ').count() == 2);
        let other = make(Which::HostA, &mesh(), "own").unwrap();
        assert_ne!(present(Which::HostA, &other), public);
    }

    #[test]
    fn a_key_that_the_status_names_is_never_replaced() {
        for which in all() {
            let (mesh, secret) = (mesh(), make(which, &mesh(), "own").unwrap());
            let public = present(which, &secret);
            let named = Some(public.as_str());
            assert_eq!(look(which, &mesh, "own", None, None), State::Make);
            assert_eq!(
                look(which, &mesh, "own", Some(&secret), named),
                State::Present(public.clone())
            );
            assert_eq!(reason(look(which, &mesh, "own", None, named)), "KeyMissing");
            let other = make(which, &mesh, "own").unwrap();
            assert_eq!(reason(look(which, &mesh, "own", Some(&other), named)), "KeyChanged");
            let state = look(which, &mesh, "own", None, Some("not a key"));
            assert_eq!(reason(state), "KeyMissing");
        }
    }

    #[test]
    fn anothers_or_an_unreadable_secret_is_not_adopted() {
        let mut secret = make(Which::HostA, &Key::new("support", "other"), "own").unwrap();
        let look = |secret: &Secret| look(Which::HostA, &mesh(), "own", Some(secret), None);
        assert_eq!(reason(look(&secret)), "KeyForeign");
        secret.metadata.labels = None;
        assert!(matches!(look(&secret), State::Present(_)), "restored by hand, or brought along");
        secret.data = Some(BTreeMap::new());
        assert_eq!(reason(look(&secret)), "KeyUnreadable");
    }
}
