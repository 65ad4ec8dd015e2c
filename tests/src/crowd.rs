//! Simulated staff: many SSH connections from one process, each of which notes when it ends.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_ssh_client::driver::{Connection, Serve};
use tidegate_ssh_client::{Key, Offer};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

/// Logins that are under way at once: below what one source may have before authentication.
const AT_ONCE: usize = 24;

/// Staff with one session each. Fields are dropped in this order.
pub struct Crowd {
    members: Vec<Connection>,
    _runtime: Runtime,
}

impl Crowd {
    /// Logs in `targets.len()` times at a relay's port and opens a channel to each target, a host and a
    /// port behind which something echoes; returns when every channel has echoed.
    pub fn gather(relay: u16, login: &str, key: &Path, targets: &[(String, u16)]) -> Self {
        let runtime = runtime();
        let (key, offer) = (Key::read(key), Arc::new(Offer::default()));
        let login = login.to_owned();
        let joining = in_turns(targets.iter().cloned(), |(host, port)| {
            let (key, offer, login) = (key.clone(), Arc::clone(&offer), login.clone());
            async move {
                let member = Connection::login(relay, offer, &login, key, Serve::Nothing).await;
                let member = member.expect("a login");
                let answer = member.hold(&host, u32::from(port), b"ping").await;
                assert_eq!(answer.expect("an answer"), b"ping");
                member
            }
        });
        let members = runtime.block_on(joining);
        Self { members, _runtime: runtime }
    }

    /// When each connection ended, once all have or `within` has passed.
    pub fn ends(&self, within: Duration) -> Vec<Option<Instant>> {
        let until = Instant::now() + within;
        loop {
            let ends: Vec<_> = self.members.iter().map(Connection::ended).collect();
            if ends.iter().all(Option::is_some) || Instant::now() >= until {
                return ends;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn len(&self) -> usize {
        self.members.len()
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}

/// Logs in at a relay's port and opens one channel to a target of any bytes, which no stock client
/// sends; gives what went wrong, `None` if nothing did.
pub fn open_once(relay: u16, login: &str, key: &Path, host: &str) -> Option<String> {
    let opening = async {
        let member =
            Connection::login(relay, Offer::default(), login, Key::read(key), Serve::Nothing)
                .await?;
        member.open(host, 443).await
    };
    runtime().block_on(opening).err().map(|error| error.to_string())
}

/// What `each` makes of all, in their order, with as many under way at once as one source may have
/// before authentication.
pub async fn in_turns<T, F>(
    all: impl IntoIterator<Item = T>,
    each: impl Fn(T) -> F,
) -> Vec<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut joining = Vec::new();
    for one in all {
        let turn = Arc::clone(&turns).acquire_owned().await.expect("a turn");
        let joins = each(one);
        joining.push(tokio::spawn(async move {
            let joined = joins.await;
            drop(turn);
            joined
        }));
    }
    let mut joined = Vec::new();
    for joining in joining {
        joined.push(joining.await.expect("one that joins"));
    }
    joined
}

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().expect("a runtime")
}
