//! An API server on loopback that speaks lists and watches, and can be made to do it badly.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use kube::{Client, Config};
use serde_json::{Value, json};
use tidegate_crds::manifest::Kind;
use tokio::sync::{Notify, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::source::kube::stream::plural;
use crate::supervisor::Supervisor;

/// What it does badly, by the plural of a kind.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fault of its own")]
pub struct Faults {
    pub forbidden: BTreeSet<&'static str>,
    pub missing: BTreeSet<&'static str>,
    /// The next so many pages end in the middle.
    pub cut_pages: HashMap<&'static str, u32>,
    /// The next so many lists find that their continue token is too old.
    pub old_tokens: HashMap<&'static str, u32>,
    /// Lists wait until this is told, if it is there.
    pub hold: HashMap<&'static str, Arc<Notify>>,
    /// Watches that run say that their version is gone, once.
    pub gone: BTreeSet<&'static str>,
    /// Watches send nothing more and do not end.
    pub stalled: bool,
    /// Nobody is let in, and every answer breaks off.
    away: bool,
    /// How often it went away: a watch that was begun before breaks off, also where it looks late.
    outages: u32,
    /// Every event is sent twice.
    pub twice: bool,
    /// The store cannot be read: watches and bookmarks go on.
    pub storeless: bool,
}

#[derive(Clone)]
struct Event {
    version: u64,
    plural: &'static str,
    kind: &'static str,
    object: Value,
}

#[derive(Default)]
struct Store {
    version: u64,
    objects: BTreeMap<(&'static str, String, String), Value>,
    events: Vec<Event>,
    /// Events before this are forgotten.
    forgotten: u64,
    lists: HashMap<&'static str, u32>,
    /// How many objects pages were asked to have at most.
    limits: BTreeSet<usize>,
    watches: HashMap<&'static str, u32>,
}

pub struct Backup {
    version: u64,
    objects: BTreeMap<(&'static str, String, String), Value>,
}

#[derive(Clone)]
pub struct Server(Arc<Inner>);

struct Inner {
    store: Mutex<Store>,
    faults: Mutex<Faults>,
    news: watch::Sender<u64>,
    page: usize,
}

/// Ends with it.
pub struct Running {
    pub address: SocketAddr,
    _stop: DropGuard,
}

/// Where connections come in; while the server is away they are closed at once.
struct Door {
    listener: tokio::net::TcpListener,
    server: Server,
}

impl axum::serve::Listener for Door {
    type Io = tokio::net::TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let accepted = self.listener.accept().await.unwrap();
            if !self.server.faulty(|faults| faults.away) {
                return accepted;
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

impl Server {
    pub fn new(page: usize) -> Self {
        Self(Arc::new(Inner {
            store: Mutex::default(),
            faults: Mutex::default(),
            news: watch::Sender::new(0),
            page,
        }))
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.0.store.lock().unwrap()
    }

    /// To change the faults; whoever waits looks again.
    pub fn faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.0.faults.lock().unwrap());
        self.0.news.send_modify(|_| ());
    }

    /// Takes it away, connections and all.
    pub fn go_away(&self) {
        self.faults(|faults| {
            faults.away = true;
            faults.outages += 1;
        });
    }

    pub fn come_back(&self) {
        self.faults(|faults| faults.away = false);
    }

    fn faulty<T>(&self, ask: impl FnOnce(&mut Faults) -> T) -> T {
        ask(&mut self.0.faults.lock().unwrap())
    }

    /// Listens on a port of its own until `Running` is dropped: a port that was let go of could be
    /// another test's when it is wanted again.
    pub async fn listen(&self, tasks: &Supervisor) -> Running {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(self.clone());
        let door = Door { listener, server: self.clone() };
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tasks.spawn("mock API server", async move {
            let serving = std::future::IntoFuture::into_future(axum::serve(door, router));
            tokio::select! {
                _ = serving => {}
                () = stopped.cancelled() => {}
            }
        });
        Running { address, _stop: stop.drop_guard() }
    }

    pub fn put(&self, kind: Kind, namespace: &str, name: &str, rest: Value) {
        let mut store = self.store();
        store.version += 1;
        let version = store.version;
        let key = (plural(kind), namespace.to_owned(), name.to_owned());
        let mut object = rest;
        let fields = object.as_object_mut().unwrap();
        fields.insert("apiVersion".into(), json!("tidegate.dev/v1alpha1"));
        fields.insert("kind".into(), json!(kind.as_str()));
        let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
        let metadata = metadata.as_object_mut().unwrap();
        for (field, value) in [
            ("name", json!(name)),
            ("uid", json!(format!("{kind}-{namespace}-{name}"))),
            ("generation", json!(version)),
            ("creationTimestamp", json!("2026-01-01T00:00:00Z")),
            ("resourceVersion", json!(version.to_string())),
        ] {
            metadata.insert(field.into(), value);
        }
        if kind != Kind::Namespace {
            metadata.insert("namespace".into(), json!(namespace));
        }
        let kind = if store.objects.insert(key.clone(), object.clone()).is_some() {
            "MODIFIED"
        } else {
            "ADDED"
        };
        store.events.push(Event { version, plural: key.0, kind, object });
        drop(store);
        self.0.news.send_replace(version);
    }

    pub fn delete(&self, kind: Kind, namespace: &str, name: &str) {
        let mut store = self.store();
        store.version += 1;
        let version = store.version;
        let key = (plural(kind), namespace.to_owned(), name.to_owned());
        let mut object = store.objects.remove(&key).unwrap();
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        store.events.push(Event { version, plural: key.0, kind: "DELETED", object });
        drop(store);
        self.0.news.send_replace(version);
    }

    /// Something was written that no stream is about: the store's version moves on.
    pub fn write_elsewhere(&self) {
        let mut store = self.store();
        store.version += 1;
        let version = store.version;
        drop(store);
        self.0.news.send_replace(version);
    }

    /// Deletes without an event, as seen by whoever was away for too long.
    pub fn forget_events(&self) {
        let mut store = self.store();
        store.events.clear();
        store.forgotten = store.version;
    }

    /// What is stored, for [`Self::set_back`].
    pub fn backup(&self) -> Backup {
        let store = self.store();
        Backup { version: store.version, objects: store.objects.clone() }
    }

    /// As from a backup; events since then never were.
    pub fn set_back(&self, backup: Backup) {
        let mut store = self.store();
        store.version = backup.version;
        store.objects = backup.objects;
        store.events.retain(|event| event.version <= backup.version);
    }

    pub fn limits(&self) -> BTreeSet<usize> {
        self.store().limits.clone()
    }

    /// Lists and watches that were begun.
    pub fn asked(&self, kind: Kind) -> (u32, u32) {
        let store = self.store();
        let of = |map: &HashMap<&'static str, u32>| map.get(plural(kind)).copied().unwrap_or(0);
        (of(&store.lists), of(&store.watches))
    }
}

pub fn client(address: SocketAddr) -> Client {
    let mut config = Config::new(format!("http://{address}").parse().unwrap());
    config.default_retry = false;
    Client::try_from(config).unwrap()
}

fn status(code: StatusCode, message: &str) -> Response {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": "Mock", "code": code.as_u16(),
    });
    (code, body.to_string()).into_response()
}

/// A body that breaks off after `bytes`.
fn broken(bytes: Vec<u8>) -> Response {
    let parts = [Ok(Bytes::from(bytes)), Err(std::io::Error::other("broken off"))];
    Response::new(Body::from_stream(stream::iter(parts)))
}

/// The parameters of a query, of which ours need `!` and `=` decoded.
fn parameters(uri: &Uri) -> HashMap<String, String> {
    let pairs = uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let decoded = |text: &str| text.replace("%21", "!").replace("%3D", "=");
    pairs.map(|(name, value)| (name.to_owned(), decoded(value))).collect()
}

async fn answer(State(server): State<Server>, uri: Uri) -> Response {
    let query = parameters(&uri);
    let mut kinds = Kind::OWN.into_iter().chain([Kind::Namespace]).map(plural);
    let path: Vec<&str> = uri.path().split('/').collect();
    let Some(what) = kinds.find(|kind| path.last() == Some(kind)) else {
        return status(StatusCode::NOT_FOUND, "no such path");
    };
    let namespaced = path.iter().rev().nth(2).filter(|part| **part == "namespaces");
    let namespace = namespaced.and(path.iter().rev().nth(1)).map(|it| (*it).to_owned());
    let except = query.get("fieldSelector").map(|selector| {
        selector.strip_prefix("metadata.namespace!=").expect("the one selector").to_owned()
    });
    let wanted = Wanted { what, namespace, except };
    if server.faulty(|faults| faults.away) {
        return broken(Vec::new());
    }
    if server.faulty(|faults| faults.forbidden.contains(what)) {
        return status(StatusCode::FORBIDDEN, &format!("{what} is forbidden"));
    }
    if server.faulty(|faults| faults.missing.contains(what)) {
        return status(StatusCode::NOT_FOUND, "the server could not find the requested resource");
    }
    if query.get("watch").is_some_and(|it| it == "true") {
        let version = query["resourceVersion"].parse().unwrap();
        let seconds = query["timeoutSeconds"].parse().unwrap();
        return watching(server, wanted, version, seconds);
    }
    list(server, wanted, &query).await
}

#[derive(Clone)]
struct Wanted {
    what: &'static str,
    namespace: Option<String>,
    except: Option<String>,
}

impl Wanted {
    fn has(&self, namespace: &str) -> bool {
        self.namespace.as_ref().is_none_or(|it| it == namespace)
            && self.except.as_ref().is_none_or(|it| it != namespace)
    }
}

async fn list(server: Server, wanted: Wanted, query: &HashMap<String, String>) -> Response {
    let what = wanted.what;
    if server.faulty(|faults| faults.storeless) {
        return status(StatusCode::INTERNAL_SERVER_ERROR, "etcdserver: request timed out");
    }
    // A proof, or a page of a list that was too large with more.
    let one = query.get("limit").is_some_and(|limit| limit == "1");
    if let Some(hold) = server.faulty(|faults| faults.hold.get(what).cloned())
        && !one
    {
        hold.notified().await;
    }
    let from: usize = query.get("continue").map_or(0, |token| token.parse().unwrap());
    let take = |map: &mut HashMap<&'static str, u32>| match map.get_mut(what) {
        Some(left) if *left > 0 => {
            *left -= 1;
            true
        }
        _ => false,
    };
    if from > 0 && server.faulty(|faults| take(&mut faults.old_tokens)) {
        return status(StatusCode::GONE, "the provided continue parameter is too old");
    }
    let mut store = server.store();
    let limit = query.get("limit").map_or(usize::MAX, |limit| limit.parse().unwrap());
    store.limits.insert(limit);
    if from == 0 && !one {
        *store.lists.entry(what).or_default() += 1;
    }
    let all: Vec<Value> = store
        .objects
        .iter()
        .filter(|((plural, namespace, _), _)| *plural == what && wanted.has(namespace))
        .map(|(_, object)| object.clone())
        .collect();
    let page = server.0.page.min(limit);
    let items: Vec<&Value> = all.iter().skip(from).take(page).collect();
    let next = if from + items.len() < all.len() {
        (from + items.len()).to_string()
    } else {
        String::new()
    };
    let body = json!({
        "kind": "List", "apiVersion": "v1",
        "metadata": {"resourceVersion": store.version.to_string(), "continue": next},
        "items": items,
    });
    drop(store);
    let body = body.to_string().into_bytes();
    if !one && server.faulty(|faults| take(&mut faults.cut_pages)) {
        return broken(body[..body.len() / 2].to_vec());
    }
    body.into_response()
}

fn watching(server: Server, wanted: Wanted, version: u64, seconds: u64) -> Response {
    let mut store = server.store();
    *store.watches.entry(wanted.what).or_default() += 1;
    let forgotten = store.forgotten;
    drop(store);
    if version < forgotten {
        return status(StatusCode::GONE, "too old resource version");
    }
    let end = Box::pin(tokio::time::sleep(std::time::Duration::from_secs(seconds)));
    let news = server.0.news.subscribe();
    let outages = server.faulty(|faults| faults.outages);
    let watching = Watching { server, wanted, version, news, end, outages, done: false };
    let lines = stream::unfold(watching, async |mut watching| {
        let line = watching.next().await?;
        Some((line, watching))
    });
    Response::new(Body::from_stream(lines))
}

struct Watching {
    server: Server,
    wanted: Wanted,
    version: u64,
    news: watch::Receiver<u64>,
    end: std::pin::Pin<Box<tokio::time::Sleep>>,
    /// At its begin.
    outages: u32,
    done: bool,
}

impl Watching {
    async fn next(&mut self) -> Option<Result<Bytes, std::io::Error>> {
        if self.done {
            return None;
        }
        loop {
            self.news.borrow_and_update();
            let what = self.wanted.what;
            if self.server.faulty(|faults| faults.away || faults.outages != self.outages) {
                self.done = true;
                return Some(Err(std::io::Error::other("broken off")));
            }
            if self.server.faulty(|faults| faults.gone.remove(what)) {
                self.done = true;
                let error = json!({"type": "ERROR", "object": {
                    "kind": "Status", "code": 410, "reason": "Expired", "message": "too old",
                }});
                return Some(Ok(format!("{error}\n").into()));
            }
            let (stalled, twice) = self.server.faulty(|faults| (faults.stalled, faults.twice));
            let lines = if stalled { String::new() } else { self.lines(twice) };
            if !lines.is_empty() {
                return Some(Ok(lines.into()));
            }
            tokio::select! {
                _ = self.news.changed() => {}
                () = &mut self.end, if !stalled => {
                    self.done = true;
                    let bookmark = json!({"type": "BOOKMARK", "object": {
                        "metadata": {"resourceVersion": self.version.to_string()},
                    }});
                    return Some(Ok(format!("{bookmark}\n").into()));
                }
            }
        }
    }

    fn lines(&mut self, twice: bool) -> String {
        let store = self.server.store();
        let mut lines = String::new();
        for event in store.events.iter().filter(|event| event.version > self.version) {
            let namespace = event.object["metadata"]["namespace"].as_str().unwrap_or_default();
            if event.plural == self.wanted.what && self.wanted.has(namespace) {
                let line = json!({"type": event.kind, "object": event.object});
                for _ in 0..=u8::from(twice) {
                    let _ = writeln!(lines, "{line}");
                }
            }
        }
        // A watch from a version that is yet to come stays silent until then.
        self.version = self.version.max(store.version);
        lines
    }
}
