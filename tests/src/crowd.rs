//! Simulated staff: many SSH connections from one process, each of which notes when it ends.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_ssh_client::driver::Connection;
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
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        let joining: Vec<_> = targets
            .iter()
            .cloned()
            .map(|(host, port)| {
                let (key, offer) = (key.clone(), Arc::clone(&offer));
                let (turns, login) = (Arc::clone(&turns), login.to_owned());
                runtime.spawn(async move {
                    let _turn = turns.acquire().await.expect("a turn");
                    let member = Connection::login(relay, offer, &login, key, None).await;
                    let member = member.expect("a login");
                    let answer = member.hold(&host, u32::from(port), b"ping").await;
                    assert_eq!(answer.expect("an answer"), b"ping");
                    member
                })
            })
            .collect();
        let joining = joining.into_iter();
        let members = joining.map(|joining| runtime.block_on(joining).expect("a member")).collect();
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
            Connection::login(relay, Offer::default(), login, Key::read(key), None).await?;
        member.open(host, 443).await
    };
    runtime().block_on(opening).err().map(|error| error.to_string())
}

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().expect("a runtime")
}
