//! Which clients have accepted which host key: by an exchange that it signed, or by asking for the proof
//! that they learn it by (hostkeys-prove-00@openssh.com).
//!
//! A client is a public key that the policy knows. What it has accepted is remembered across restarts for
//! as long as the policy knows it, so that what is kept is bounded by the policy. Nothing is decided by it:
//! it is for whoever lets another key serve.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::{Deserialize, Serialize};
use tidegate_policy::model::{HostKeyName, KeyBlob};

use super::Offered;
use crate::lock::lock;
use crate::metrics::Role;
use crate::state::StateDir;

/// The file in the state directory.
const FILE: &str = "host-key-clients.json";
/// More than this is not ours: 100,000 clients take about 8 MiB.
const LONGEST: u64 = 64 << 20;

/// Of one host key that is offered: how many clients of one sort there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// The host key.
    pub fingerprint: String,
    pub serves: bool,
    /// Whose keys the clients have.
    pub role: Role,
    /// Whether they are connected to this replica now.
    pub connected: bool,
    /// Whether they have accepted the host key.
    pub accepted: bool,
    pub clients: usize,
}

/// A set of the two keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Set(u8);

impl Set {
    const fn of(name: HostKeyName) -> Self {
        Self(match name {
            HostKeyName::A => 1,
            HostKeyName::B => 2,
        })
    }

    const fn has(self, name: HostKeyName) -> bool {
        self.0 & Self::of(name).0 != 0
    }

    const fn with(self, name: HostKeyName) -> Self {
        Self(self.0 | Self::of(name).0)
    }

    const fn without(self, name: HostKeyName) -> Self {
        Self(self.0 & !Self::of(name).0)
    }
}

const NAMES: [(HostKeyName, &str); 2] = [(HostKeyName::A, "A"), (HostKeyName::B, "B")];

/// A host key that is offered.
#[derive(Debug)]
struct Key {
    blob: KeyBlob,
    fingerprint: String,
    serves: bool,
}

#[derive(Debug, Default)]
struct Inner {
    offered: BTreeMap<HostKeyName, Key>,
    clients: HashMap<KeyBlob, Set>,
    /// Since it was last written down.
    changed: bool,
}

/// What all clients have accepted.
#[derive(Debug, Default)]
pub struct Clients(Mutex<Inner>);

/// The file's content.
#[derive(Default, Serialize, Deserialize)]
struct Remembered {
    /// The fingerprints of the host keys, by their names.
    keys: BTreeMap<String, String>,
    /// The names of the accepted ones, by the client's key in base64.
    clients: BTreeMap<String, String>,
}

impl Clients {
    /// Takes up what an earlier process remembered of the keys that are offered still.
    pub fn new(offered: &Offered, state: &StateDir) -> Self {
        let clients = Self::default();
        clients.offer(offered);
        {
            let mut inner = lock(&clients.0);
            let remembered = load(state);
            let same = |(name, word): &(HostKeyName, &str)| {
                let now = inner.offered.get(name).map(|key| &key.fingerprint);
                now.is_some() && now == remembered.keys.get(*word)
            };
            let known: Vec<_> = NAMES.into_iter().filter(same).collect();
            for (client, accepted) in &remembered.clients {
                let Ok(client) = STANDARD_NO_PAD.decode(client) else { continue };
                let accepted = known.iter().filter(|(_, word)| accepted.contains(word));
                let set = accepted.fold(Set::default(), |set, (name, _)| set.with(*name));
                inner.clients.insert(KeyBlob::new(client), set);
            }
        }
        clients
    }

    /// From now on these are offered. Nobody counts as one who accepts a key that is offered no more: a
    /// client that learned it forgets it when it is not told of it again.
    pub fn offer(&self, offered: &Offered) {
        let key = |named: &super::Named| Key {
            blob: named.key.blob(),
            fingerprint: named.key.fingerprint(),
            serves: named.name == offered.serving.name,
        };
        let now: BTreeMap<_, _> = offered.all().map(|named| (named.name, key(named))).collect();
        let mut inner = lock(&self.0);
        for (name, before) in std::mem::take(&mut inner.offered) {
            if now.get(&name).is_none_or(|now| now.blob != before.blob) {
                for set in inner.clients.values_mut() {
                    *set = set.without(name);
                }
            }
        }
        inner.offered = now;
        inner.changed = true;
    }

    /// A client has accepted a host key. One that is not offered any more counts for nothing, but the
    /// client is known.
    pub fn accepted(&self, client: &KeyBlob, host_key: &KeyBlob) {
        let mut inner = lock(&self.0);
        let key = inner.offered.iter().find(|(_, key)| key.blob == *host_key);
        let name = key.map(|(name, _)| *name);
        let before = inner.clients.get(client).copied();
        let set = before.unwrap_or_default();
        let set = name.map_or(set, |name| set.with(name));
        if before != Some(set) {
            inner.clients.insert(client.clone(), set);
            inner.changed = true;
        }
    }

    /// Forgets clients that the policy does not know any more.
    pub fn retain(&self, known: impl Fn(&KeyBlob) -> bool) {
        let mut inner = lock(&self.0);
        let before = inner.clients.len();
        inner.clients.retain(|client, _| known(client));
        inner.changed |= inner.clients.len() != before;
    }

    /// The fingerprints of the keys that are offered, of the one that serves first.
    pub fn fingerprints(&self) -> Vec<String> {
        let inner = lock(&self.0);
        let mut keys: Vec<_> = inner.offered.values().collect();
        keys.sort_by_key(|key| !key.serves);
        keys.into_iter().map(|key| key.fingerprint.clone()).collect()
    }

    /// All counts, those of no client among them. `who` says whose a client is, and whether it is connected
    /// to this replica; `None`: nobody's.
    pub fn counts(&self, who: impl Fn(&KeyBlob) -> Option<(Role, bool)>) -> Vec<Count> {
        let inner = lock(&self.0);
        let mut sorts: BTreeMap<(HostKeyName, bool, bool, bool), usize> = BTreeMap::new();
        for (client, set) in &inner.clients {
            let Some((role, connected)) = who(client) else { continue };
            for name in inner.offered.keys() {
                let sort = (*name, role == Role::Staff, connected, set.has(*name));
                let count = sorts.entry(sort).or_default();
                *count = count.saturating_add(1);
            }
        }
        let mut counts = Vec::new();
        for (name, key) in &inner.offered {
            for role in [Role::Staff, Role::Terminal] {
                for (connected, accepted) in
                    [(true, true), (true, false), (false, true), (false, false)]
                {
                    let sort = (*name, role == Role::Staff, connected, accepted);
                    counts.push(Count {
                        fingerprint: key.fingerprint.clone(),
                        serves: key.serves,
                        role,
                        connected,
                        accepted,
                        clients: sorts.get(&sort).copied().unwrap_or_default(),
                    });
                }
            }
        }
        counts
    }

    /// Keeps it for the next process, where something has changed.
    pub fn save(&self, state: &StateDir) {
        let remembered = {
            let mut inner = lock(&self.0);
            if !std::mem::take(&mut inner.changed) {
                return;
            }
            let word = |name: &HostKeyName| NAMES.iter().find(|(it, _)| it == name).map(|it| it.1);
            let keys = inner.offered.iter();
            let keys =
                keys.filter_map(|(name, key)| Some((word(name)?.into(), key.fingerprint.clone())));
            let accepted = |set: Set| NAMES.iter().filter(move |(name, _)| set.has(*name));
            let clients = inner.clients.iter().map(|(client, set)| {
                let names = accepted(*set).map(|(_, word)| *word).collect();
                (STANDARD_NO_PAD.encode(client.as_bytes()), names)
            });
            Remembered { keys: keys.collect(), clients: clients.collect() }
        };
        let bytes = serde_json::to_vec(&remembered).unwrap_or_default();
        if let Err(error) = state.write_atomic(FILE, &bytes, 0o600) {
            tracing::warn!(%error, file = FILE, "cannot keep which host keys clients have accepted");
            lock(&self.0).changed = true;
        }
    }
}

/// Nothing where the file is missing or damaged, which is told.
fn load(state: &StateDir) -> Remembered {
    let read = match state.read(FILE, LONGEST) {
        Ok(None) => return Remembered::default(),
        Ok(Some(bytes)) => serde_json::from_slice(&bytes).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    read.unwrap_or_else(|error| {
        tracing::warn!(%error, file = FILE, "forgetting which host keys clients have accepted");
        Remembered::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hostkeys::Named;
    use crate::ssh::HostKey;

    /// Two host keys and somewhere to keep what is known.
    struct Scene {
        dir: tempfile::TempDir,
        state: StateDir,
    }

    impl Scene {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let state = StateDir::open(&dir.path().join("state")).unwrap();
            Self { dir, state }
        }

        fn key(&self, name: HostKeyName, file: &str) -> Named {
            Named { name, key: HostKey::generate(&self.dir.path().join(file)).unwrap() }
        }
    }

    fn offered(serving: &Named, announced: Option<&Named>) -> Offered {
        Offered { serving: serving.clone(), announced: announced.cloned() }
    }

    fn client(name: &str) -> KeyBlob {
        KeyBlob::new(name.as_bytes())
    }

    /// How many clients have accepted the key, and how many have not.
    fn count(clients: &Clients, key: &Named) -> (usize, usize) {
        let counts = clients.counts(|_| Some((Role::Terminal, true)));
        let of = |accepted| {
            let mine = counts.iter().filter(|count| count.fingerprint == key.key.fingerprint());
            mine.filter(|count| count.accepted == accepted).map(|count| count.clients).sum()
        };
        (of(true), of(false))
    }

    #[test]
    fn a_client_counts_for_what_signed_and_for_what_it_asked_a_proof_of() {
        let scene = Scene::new();
        let (a, b) = (scene.key(HostKeyName::A, "a"), scene.key(HostKeyName::B, "b"));
        let clients = Clients::new(&offered(&a, Some(&b)), &scene.state);
        let (learns, does_not) = (client("learns"), client("does not"));
        for client in [&learns, &does_not] {
            clients.accepted(client, &a.key.blob());
        }
        assert_eq!((count(&clients, &a), count(&clients, &b)), ((2, 0), (0, 2)));
        clients.accepted(&learns, &b.key.blob());
        // It logs in again, and asks for no proof of what it knows.
        clients.accepted(&learns, &a.key.blob());
        assert_eq!((count(&clients, &a), count(&clients, &b)), ((2, 0), (1, 1)));
        // The switch changes nothing in what they accept.
        clients.offer(&offered(&b, Some(&a)));
        assert_eq!(clients.fingerprints(), [b.key.fingerprint(), a.key.fingerprint()]);
        assert_eq!((count(&clients, &a), count(&clients, &b)), ((2, 0), (1, 1)));
        // A key that is told of no more is forgotten by those that learned it.
        clients.offer(&offered(&b, None));
        assert_eq!((count(&clients, &a), count(&clients, &b)), ((0, 0), (1, 1)));
        clients.offer(&offered(&b, Some(&a)));
        assert_eq!(count(&clients, &a), (0, 2));
        // One whose connection began under a key that is offered no more is known.
        clients.offer(&offered(&b, None));
        clients.accepted(&client("late"), &a.key.blob());
        assert_eq!(count(&clients, &b), (1, 2));
        clients.retain(|client| *client == learns);
        assert_eq!(count(&clients, &b), (1, 0));
    }

    #[test]
    fn it_is_remembered_across_a_restart_of_the_same_keys_alone() {
        let scene = Scene::new();
        let (a, b) = (scene.key(HostKeyName::A, "a"), scene.key(HostKeyName::B, "b"));
        let both = offered(&a, Some(&b));
        let clients = Clients::new(&both, &scene.state);
        clients.accepted(&client("one"), &a.key.blob());
        clients.accepted(&client("two"), &b.key.blob());
        clients.save(&scene.state);
        let again = Clients::new(&both, &scene.state);
        assert_eq!((count(&again, &a), count(&again, &b)), ((1, 1), (1, 1)));
        let another = scene.key(HostKeyName::B, "another");
        let changed = Clients::new(&offered(&a, Some(&another)), &scene.state);
        assert_eq!((count(&changed, &a), count(&changed, &another)), ((1, 1), (0, 2)));
        scene.state.write_atomic(FILE, b"{", 0o600).unwrap();
        assert_eq!(count(&Clients::new(&both, &scene.state), &a), (0, 0));
    }

    #[test]
    fn whose_a_client_is_and_whether_it_is_here_is_asked_each_time() {
        let scene = Scene::new();
        let a = scene.key(HostKeyName::A, "a");
        let clients = Clients::new(&offered(&a, None), &scene.state);
        for name in ["alice", "kiosk", "nobody"] {
            clients.accepted(&client(name), &a.key.blob());
        }
        let counts = clients.counts(|key| match key.as_bytes() {
            b"alice" => Some((Role::Staff, false)),
            b"kiosk" => Some((Role::Terminal, true)),
            _ => None,
        });
        assert_eq!(counts.len(), 8);
        let some: Vec<_> = counts.iter().filter(|count| count.clients > 0).collect();
        let shown = |count: &Count| (count.role, count.connected, count.accepted, count.clients);
        let shown: Vec<_> = some.into_iter().map(shown).collect();
        assert_eq!(shown, [(Role::Staff, false, true, 1), (Role::Terminal, true, true, 1)]);
    }
}
