//! The relay's two host keys: which of them it has, as its Mesh says, and which clients have accepted
//! which.
//!
//! They change places by the Mesh's word alone. A key that is to serve and is not there does not: the one
//! that served goes on, and it is said.

mod clients;
mod follow;
mod keyring;

pub use clients::{Clients, Count};
pub use follow::{Following, first};
pub use keyring::{Keyring, Missing};

use tidegate_policy::model::HostKeyName;

use crate::ssh::HostKey;

/// One of the two keys.
#[derive(Clone, Debug)]
pub struct Named {
    pub name: HostKeyName,
    pub key: HostKey,
}

/// What new connections are offered.
#[derive(Clone, Debug)]
pub struct Offered {
    /// The key that signs.
    pub serving: Named,
    /// The other one, told to all who log in.
    pub announced: Option<Named>,
}

impl Offered {
    /// All of them, the one that serves first.
    pub fn all(&self) -> impl Iterator<Item = &Named> {
        std::iter::once(&self.serving).chain(&self.announced)
    }

    /// The same as the SSH server wants them.
    pub fn keys(&self) -> Vec<HostKey> {
        self.all().map(|named| named.key.clone()).collect()
    }

    fn same(&self, other: &Self) -> bool {
        let blobs = |offered: &Self| offered.all().map(|it| it.key.blob()).collect::<Vec<_>>();
        blobs(self) == blobs(other)
    }
}
