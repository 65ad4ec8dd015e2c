//! A gate that is as small as one can be: it knows one key, and answers by the names it is asked for.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use tidegate_policy::model::KeyBlob;
use tidegate_relay::accept::{self, Budget, Caps};
use tidegate_relay::clock::Now;
use tidegate_relay::ssh::{
    BeforeWrite, Connection, Direction, Doorkeeper, Event, Events, HostKey, OpenRequest, Pass,
    RefuseCode, Server, SessionKind, SessionRequest, Settings, splice,
};
use tidegate_relay::supervisor::Supervisor;
use tidegate_ssh_client::Key;
use tokio::runtime::Runtime;

use crate::client::{key, public_blob};

/// What a test sees of what happened, in order.
#[derive(Debug)]
pub enum Seen {
    Authenticated {
        user: String,
        client: String,
        connection: Connection,
    },
    Open {
        host: String,
    },
    Forward {
        host: String,
        port: u32,
    },
    Cancel {
        host: String,
        port: u32,
    },
    Session {
        kind: SessionKind,
        pty: bool,
    },
    /// A shell has been answered; it stays open.
    Attached,
    Refused(&'static str),
    Over,
}

/// The service port that a forward is granted for; port 0 gets this one.
pub const SERVICE: u32 = 2222;
/// A forward that is never answered.
pub const UNANSWERED: u32 = 3333;
/// What the key of [`crate::raw::Raw`] is made of.
pub const RAW: [u8; 32] = [9; 32];
/// What `refuse` is told.
pub const SENTENCE: &str = "window acme/berlin opens at 2026-12-01T18:00:00Z";

pub struct Gate {
    pub runtime: Runtime,
    pub dir: TempDir,
    pub port: u16,
    pub host_key: HostKey,
    pub supervisor: Supervisor,
    pub budget: Budget,
    pub writes: Arc<AtomicU64>,
    /// The next that is to pass between staff and terminal panics.
    pub boom: Arc<AtomicBool>,
    seen: Receiver<Seen>,
}

struct Door(Vec<KeyBlob>);

impl Doorkeeper for Door {
    fn offered(&self, _: &str, key: &KeyBlob) -> bool {
        self.0.contains(key)
    }

    fn proven(&self, user: &str, key: &KeyBlob) -> bool {
        assert!(user != "panic", "on purpose");
        self.0.contains(key)
    }
}

/// Lets everything pass, or panics.
struct All(Arc<AtomicBool>);

impl Pass for All {
    fn may_pass(&self, _: Now) -> bool {
        assert!(!self.0.swap(false, Ordering::Relaxed), "on purpose");
        true
    }

    fn passed(&self, _: Direction, _: u64) {}

    fn may_end(&self, _: Direction) -> bool {
        true
    }
}

/// The connection that last had a forward granted, with the pair that it asked for.
type Terminal = Arc<Mutex<Option<(Connection, String, u32)>>>;

impl Gate {
    pub fn new() -> Self {
        Self::with(|_| {}, Caps::default())
    }

    pub fn with(change: impl FnOnce(&mut Settings), caps: Caps) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let dir = tempfile::tempdir().unwrap();
        let host_key = HostKey::generate(&dir.path().join("host_key")).unwrap();
        let writes = Arc::new(AtomicU64::new(0));
        let mut settings = Settings::new(vec![host_key.clone()]);
        let counter = Arc::clone(&writes);
        settings.before_write = BeforeWrite(Arc::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        }));
        change(&mut settings);
        let known = ["good.pub", "good.dropbear.pub", "rsa.pub"];
        let mut known = known.map(|name| public_blob(&key(name))).to_vec();
        known.push(KeyBlob::new(Key::ed25519(RAW).blob));
        let door: Arc<dyn Doorkeeper> = Arc::new(Door(known));
        let boom = Arc::new(AtomicBool::new(false));

        let supervisor = Supervisor::new();
        let budget = Budget::new(caps);
        let (tell, seen) = channel();
        let tell = Arc::new(Mutex::new(tell));
        let terminal: Terminal = Arc::default();
        let inside = runtime.enter();
        let listener = accept::bind(&["127.0.0.1:0".parse().unwrap()]).unwrap().remove(0);
        let port = listener.address().port();
        let server = Server::new(settings, supervisor.clone());
        let (tasks, accepting) = (supervisor.clone(), budget.clone());
        let all = Arc::clone(&boom);
        supervisor.critical("accept", async move {
            accept::accept(listener, accepting, move |socket, peer, _, ticket| {
                let (connection, events) = server.start(socket, peer, Arc::clone(&door));
                let victim = connection.clone();
                ticket.on_eviction(move || victim.kill());
                let consumer = Consumer {
                    connection,
                    tell: Arc::clone(&tell),
                    terminal: Arc::clone(&terminal),
                    boom: Arc::clone(&all),
                    tasks: tasks.clone(),
                };
                tasks.spawn("consumer", async move {
                    consumer.run(events, ticket).await;
                });
            })
            .await;
        });
        drop(inside);
        Self { runtime, dir, port, host_key, supervisor, budget, writes, boom, seen }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn home(&self) -> &Path {
        self.dir.path()
    }

    /// The next thing that happened.
    pub fn next(&self) -> Seen {
        self.seen.recv_timeout(Duration::from_secs(20)).expect("nothing happened for 20 s")
    }

    /// Skips until something of the wanted kind happens.
    pub fn wait<T>(&self, mut wanted: impl FnMut(Seen) -> Option<T>) -> T {
        loop {
            if let Some(found) = wanted(self.next()) {
                return found;
            }
        }
    }

    pub fn authenticated(&self) -> Connection {
        self.wait(|seen| match seen {
            Seen::Authenticated { connection, .. } => Some(connection),
            _ => None,
        })
    }

    pub fn nothing_more(&self) -> bool {
        matches!(
            self.seen.recv_timeout(Duration::ZERO),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected)
        )
    }

    /// Waits until nothing goes through the connection any more, after `least` bytes of either way.
    pub fn until_quiet(&self, connection: &Connection, least: u64) {
        self.runtime.block_on(async {
            let (mut last, mut quiet) = (connection.bytes(), 0);
            while quiet < 8 {
                tokio::time::sleep(Duration::from_millis(50)).await;
                let now = connection.bytes();
                let still = now == last && now.0.max(now.1) >= least;
                quiet = if still { quiet + 1 } else { 0 };
                last = now;
            }
        });
    }

    /// Fails unless the connection is over within a second: task, channels and descriptor.
    pub fn over_within_a_second(&self, connection: &Connection) {
        self.runtime.block_on(async {
            let second = Duration::from_secs(1);
            let over = tokio::time::timeout(second, connection.closed()).await;
            assert!(over.is_ok(), "the connection is not over");
            // Only the accept loop is left, where no other connection lives.
            let idle = async {
                while self.supervisor.tasks() > 1 {
                    tokio::task::yield_now().await;
                }
            };
            let idle = tokio::time::timeout(second, idle).await;
            assert!(idle.is_ok(), "{} tasks are left", self.supervisor.tasks());
        });
        assert_eq!(sockets(self.port, connection.peer()), "", "the kernel still has the socket");
    }
}

/// This machine's sockets between `port` and `peer`, as the kernel lists them.
fn sockets(port: u16, peer: SocketAddr) -> String {
    let pair = format!("0100007F:{port:04X} 0100007F:{:04X} ", peer.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    // One in TIME-WAIT (06) is only a memory.
    let other = |line: &&str| line.contains(&pair) && !line.contains(&format!("{pair}06 "));
    table.lines().filter(other).collect()
}

type Tell = Arc<Mutex<Sender<Seen>>>;

struct Consumer {
    connection: Connection,
    tell: Tell,
    terminal: Terminal,
    boom: Arc<AtomicBool>,
    tasks: Supervisor,
}

impl Consumer {
    fn say(&self, seen: Seen) {
        let _ = self.tell.lock().unwrap().send(seen);
    }

    async fn run(&self, mut events: Events, ticket: accept::Ticket) {
        let mut held = Vec::new();
        while let Some(event) = events.recv().await {
            match event {
                Event::Authenticated(who) => {
                    assert!(ticket.proven());
                    self.say(Seen::Authenticated {
                        user: who.user,
                        client: who.client,
                        connection: self.connection.clone(),
                    });
                }
                Event::Open(request) => {
                    self.say(Seen::Open { host: request.host.clone() });
                    if request.host == "stall" {
                        self.connection.closed().await;
                    }
                    self.open(request);
                }
                Event::Forward(request) => {
                    let (host, port) = (request.host.clone(), request.port);
                    match port {
                        0 | SERVICE => {
                            *self.terminal.lock().unwrap() =
                                Some((self.connection.clone(), host.clone(), SERVICE));
                            request.grant(SERVICE);
                        }
                        UNANSWERED => held.push(request),
                        _ => request.refuse(),
                    }
                    self.say(Seen::Forward { host, port });
                }
                Event::Cancel(request) => {
                    self.say(Seen::Cancel { host: request.host.clone(), port: request.port });
                    request.grant();
                }
                Event::Session(request) => {
                    self.say(Seen::Session { kind: request.kind.clone(), pty: request.pty });
                    self.tasks.spawn("session", session(request, Arc::clone(&self.tell)));
                }
                Event::Refused { what } => self.say(Seen::Refused(what)),
                Event::Learned { .. } | Event::TooFast | Event::NoRoom(_) => {}
            }
        }
        self.say(Seen::Over);
    }

    fn open(&self, request: OpenRequest) {
        match request.host.as_str() {
            "echo" => {
                let mut channel = request.accept();
                self.tasks.spawn("echo", async move {
                    loop {
                        match channel.read().await {
                            Ok(data) if data.is_empty() => break,
                            Ok(data) if channel.write(&data).await.is_ok() => {}
                            _ => return,
                        }
                    }
                    channel.finish();
                });
            }
            "flood" => {
                let mut channel = request.accept();
                self.tasks.spawn("flood", async move {
                    while channel.write(&[b'x'; 8 * 1024]).await.is_ok() {}
                });
            }
            "sink" => {
                let channel = request.accept();
                self.tasks.spawn("sink", async move {
                    channel.closed().wait().await;
                    drop(channel);
                });
            }
            "kiosk" => {
                let (terminal, host, port) = self.terminal.lock().unwrap().clone().unwrap();
                let boom = Arc::clone(&self.boom);
                self.tasks.spawn("join", async move {
                    let from = "192.0.2.7:1234".parse().unwrap();
                    match terminal.open_forwarded(&host, port, from).await {
                        Ok(there) => {
                            let all: Arc<dyn Pass> = Arc::new(All(boom));
                            splice(request.accept(), there, &all).done().await;
                        }
                        Err(error) => request.refuse(RefuseCode::ConnectFailed, &error.to_string()),
                    }
                });
            }
            _ => request.refuse(RefuseCode::Prohibited, SENTENCE),
        }
    }
}

async fn session(request: SessionRequest, tell: Tell) {
    let mut channel = request.channel;
    match request.kind {
        SessionKind::Shell => {
            let _ = channel.stdout(b"attached\r\n").await;
            let _ = tell.lock().unwrap().send(Seen::Attached);
            channel.closed().wait().await;
        }
        SessionKind::Exec(command) => {
            let status = command.strip_prefix("status ").and_then(|it| it.parse().ok());
            let _ = channel.stdout(b"out\n").await;
            let _ = channel.stderr(b"err\n").await;
            channel.finish(status.unwrap_or(2));
        }
        SessionKind::Subsystem(name) => {
            let _ = channel.stderr(format!("no {name} here\n").as_bytes()).await;
            channel.finish(2);
        }
    }
}
