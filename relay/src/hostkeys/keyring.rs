//! Where the two host keys are, and what is offered of them. Touches the disk.

use std::collections::BTreeMap;
use std::path::PathBuf;

use tidegate_policy::model::{HostKeyName, HostKeys};

use super::{Named, Offered};
use crate::ssh::{HostKey, HostKeyError};
use crate::state::{StateDir, StateError};

/// Key A in the state directory, as before there were two, and what is put behind its name for key B.
const FILE: &str = "ssh_host_ed25519_key";
const SECOND: &str = "_b";

/// Why a key cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Missing {
    #[error(transparent)]
    Key(#[from] HostKeyError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(
        "the Mesh's host key {name:?} is to serve and {} is gone: restore it from a backup, since nobody \
         would trust a new one, or announce and serve the other key", .path.display()
    )]
    Gone { name: HostKeyName, path: PathBuf },
}

/// Where the keys are.
#[derive(Debug)]
enum Home {
    /// The relay makes what is missing.
    State(StateDir),
    /// The path of key A in a volume that a cluster mounts; that of key B is beside it. Never written.
    Mounted(PathBuf),
}

/// The keys that were read, and what is offered of them.
#[derive(Debug)]
pub struct Keyring {
    home: Home,
    /// Once read, a key is what it was for as long as it is wanted.
    held: BTreeMap<HostKeyName, HostKey>,
    offered: Option<Offered>,
}

impl Keyring {
    pub fn of_state(state: &StateDir) -> Self {
        Self::new(Home::State(state.clone()))
    }

    /// `path` is that of key A.
    pub fn mounted(path: PathBuf) -> Self {
        Self::new(Home::Mounted(path))
    }

    fn new(home: Home) -> Self {
        Self { home, held: BTreeMap::new(), offered: None }
    }

    /// What is to be offered, and what of it is not to be had. An error only where nothing was offered
    /// before and the key that is to serve is not there.
    pub fn follow(&mut self, wanted: HostKeys) -> Result<(Offered, Option<Missing>), Missing> {
        // First of all, since on an empty disk it may be made.
        let (serving, mut trouble) = match (self.obtain(wanted.serve, false), &self.offered) {
            (Ok(key), _) => (Named { name: wanted.serve, key }, None),
            (Err(missing), Some(before)) => (before.serving.clone(), Some(missing)),
            (Err(missing), None) => return Err(missing),
        };
        let mut announced = None;
        for name in wanted.announce.into_iter().filter(|name| *name != serving.name) {
            match self.obtain(name, true) {
                Ok(key) => announced = Some(Named { name, key }),
                Err(missing) => {
                    trouble.get_or_insert(missing);
                }
            }
        }
        let offered = Offered { serving, announced };
        self.held = offered.all().map(|named| (named.name, named.key.clone())).collect();
        self.offered = Some(offered.clone());
        Ok((offered, trouble))
    }

    /// `announced`: nobody relies on it yet, so that it may be made.
    fn obtain(&self, name: HostKeyName, announced: bool) -> Result<HostKey, Missing> {
        if let Some(key) = self.held.get(&name) {
            return Ok(key.clone());
        }
        let path = self.path(name)?;
        let Home::State(_) = &self.home else { return Ok(HostKey::load_mounted(&path)?) };
        if path.exists() {
            return Ok(HostKey::load(&path)?);
        }
        let other = match name {
            HostKeyName::A => HostKeyName::B,
            HostKeyName::B => HostKeyName::A,
        };
        if announced || !self.path(other)?.exists() {
            return Ok(HostKey::generate(&path)?);
        }
        Err(Missing::Gone { name, path })
    }

    fn path(&self, name: HostKeyName) -> Result<PathBuf, StateError> {
        let second = name == HostKeyName::B;
        match &self.home {
            Home::State(state) => {
                state.path(&format!("{FILE}{}", if second { SECOND } else { "" }))
            }
            Home::Mounted(path) if second => {
                let mut path = path.clone().into_os_string();
                path.push(SECOND);
                Ok(path.into())
            }
            Home::Mounted(path) => Ok(path.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use HostKeyName::{A, B};

    use super::*;

    const A_ALONE: HostKeys = HostKeys { serve: A, announce: None };
    const A_THEN_B: HostKeys = HostKeys { serve: A, announce: Some(B) };
    const B_THEN_A: HostKeys = HostKeys { serve: B, announce: Some(A) };
    const B_ALONE: HostKeys = HostKeys { serve: B, announce: None };

    fn prints(offered: &Offered) -> Vec<String> {
        offered.all().map(|named| named.key.fingerprint()).collect()
    }

    /// What is offered, without any trouble.
    fn follow(keyring: &mut Keyring, wanted: HostKeys) -> Vec<String> {
        let (offered, trouble) = keyring.follow(wanted).unwrap();
        assert!(trouble.is_none(), "{trouble:?}");
        prints(&offered)
    }

    #[test]
    fn keys_are_made_once_change_places_and_outlive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(&dir.path().join("state")).unwrap();
        let mut keyring = Keyring::of_state(&state);
        let alone = follow(&mut keyring, A_ALONE);
        assert_eq!(alone.len(), 1);
        let both = follow(&mut keyring, A_THEN_B);
        assert_eq!((both.len(), &both[0]), (2, &alone[0]));
        let turned = follow(&mut keyring, B_THEN_A);
        assert_eq!((&turned[0], &turned[1]), (&both[1], &both[0]));
        assert_eq!(follow(&mut keyring, B_ALONE), turned[..1]);
        let mut again = Keyring::of_state(&state);
        assert_eq!(follow(&mut again, B_THEN_A), turned);
        // The next rotation: who wants another key A deletes the one that has had its time.
        std::fs::remove_file(state.path(FILE).unwrap()).unwrap();
        assert_eq!(follow(&mut again, B_THEN_A), turned, "while it is wanted it is what it was");
        follow(&mut again, B_ALONE);
        assert_ne!(follow(&mut again, B_THEN_A)[1], turned[1]);
    }

    #[test]
    fn a_key_that_is_gone_is_not_replaced_and_the_other_serves_on() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(&dir.path().join("state")).unwrap();
        let mut keyring = Keyring::of_state(&state);
        let alone = follow(&mut keyring, A_ALONE);
        // Never announced, or deleted since.
        let (offered, trouble) = keyring.follow(B_ALONE).unwrap();
        assert_eq!(prints(&offered), alone);
        assert!(trouble.unwrap().to_string().contains("restore it from a backup"));
        let refusal = Keyring::of_state(&state).follow(B_ALONE).unwrap_err().to_string();
        assert!(refusal.contains("ssh_host_ed25519_key_b is gone"), "{refusal}");
        assert!(!state.path("ssh_host_ed25519_key_b").unwrap().exists());
        // Where there is no key at all nobody trusts one yet.
        let empty = StateDir::open(&dir.path().join("empty")).unwrap();
        assert_eq!(follow(&mut Keyring::of_state(&empty), B_THEN_A).len(), 2);
    }

    #[test]
    fn mounted_keys_are_waited_for_and_never_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let mut keyring = Keyring::mounted(path.clone());
        let refusal = keyring.follow(A_ALONE).unwrap_err().to_string();
        assert!(refusal.contains("mount the Secret"), "{refusal}");
        HostKey::generate(&path).unwrap();
        let alone = follow(&mut keyring, A_ALONE);
        for wanted in [A_THEN_B, B_THEN_A] {
            let (offered, trouble) = keyring.follow(wanted).unwrap();
            assert_eq!(prints(&offered), alone);
            assert!(trouble.is_some());
        }
        HostKey::generate(&dir.path().join("key_b")).unwrap();
        assert_eq!(follow(&mut keyring, B_THEN_A)[1], alone[0]);
    }
}
