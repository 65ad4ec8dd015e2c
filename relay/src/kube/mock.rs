//! An API server for tests: objects in memory, on loopback, that fails as it is told.

#![expect(clippy::disallowed_methods, reason = "tests wait for their tasks themselves")]

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::Cluster;

/// What becomes of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    Go,
    /// Nothing is done; this is answered.
    Before(u16),
    /// It is done; this is answered all the same.
    After(u16),
    /// Nothing is done, nothing is answered.
    Hang,
    /// It is done, and nothing is answered.
    HangAfter,
    /// It is done this late, whether anybody still waits or not.
    Late(Duration),
}

/// A request, as far as fates are chosen by it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Call {
    pub method: Method,
    /// `supportclaims`
    pub plural: String,
    pub namespace: Option<String>,
    pub name: Option<String>,
    pub subresource: Option<String>,
    pub watch: bool,
    /// A page of a list that a watch begins with.
    pub page: bool,
    pub agent: String,
}

type Key = (String, String, String);
type Chooser = Box<dyn FnMut(&Call) -> Fate + Send>;

#[derive(Default)]
struct Store {
    objects: BTreeMap<Key, Value>,
    version: u64,
    events: Vec<(u64, String, &'static str, Value)>,
}

#[derive(Clone)]
pub struct Mock {
    store: Arc<Mutex<Store>>,
    fates: Arc<Mutex<Chooser>>,
    changed: Arc<Notify>,
    /// Told when all watches are to end.
    dropped: Arc<tokio::sync::watch::Sender<u64>>,
    pub address: std::net::SocketAddr,
}

impl Mock {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mock = Self {
            store: Arc::default(),
            fates: Arc::new(Mutex::new(Box::new(|_| Fate::Go))),
            changed: Arc::default(),
            dropped: Arc::new(tokio::sync::watch::Sender::new(0)),
            address: listener.local_addr().unwrap(),
        };
        let app = Router::new().fallback(serve).with_state(mock.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        mock
    }

    pub fn cluster(&self, pod: &str) -> Cluster {
        let uri = format!("http://{}", self.address).parse().unwrap();
        super::cluster(kube::Config::new(uri), "tidegate", pod).unwrap()
    }

    pub fn fates(&self, choose: impl FnMut(&Call) -> Fate + Send + 'static) {
        *self.fates.lock().unwrap() = Box::new(choose);
    }

    /// All objects of a kind.
    pub fn all(&self, plural: &str) -> Vec<Value> {
        let store = self.store.lock().unwrap();
        let of = |(key, value): (&Key, &Value)| (key.0 == plural).then(|| value.clone());
        store.objects.iter().filter_map(of).collect()
    }

    pub fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        let key = (plural.to_owned(), namespace.to_owned(), name.to_owned());
        self.store.lock().unwrap().objects.get(&key).cloned()
    }

    /// As a person would.
    pub fn patch(&self, plural: &str, namespace: &str, name: &str, patch: Value) -> u16 {
        self.act(&Act {
            method: Method::PATCH,
            plural: plural.to_owned(),
            namespace: Some(namespace.to_owned()),
            name: Some(name.to_owned()),
            subresource: None,
            query: HashMap::new(),
            body: patch,
        })
        .0
    }

    pub fn delete(&self, plural: &str, namespace: &str, name: &str) -> u16 {
        self.act(&Act {
            method: Method::DELETE,
            plural: plural.to_owned(),
            namespace: Some(namespace.to_owned()),
            name: Some(name.to_owned()),
            subresource: None,
            query: HashMap::new(),
            body: Value::Null,
        })
        .0
    }

    /// Ends the watches that run.
    pub fn drop_watches(&self) {
        self.dropped.send_modify(|count| *count += 1);
    }

    /// Resolves when `ask` holds, which is asked after each change.
    pub async fn until(&self, what: &str, mut ask: impl FnMut(&Self) -> bool) {
        let holds = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if ask(self) {
                    return;
                }
                let _ = tokio::time::timeout(Duration::from_millis(20), changed).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), holds).await.expect(what);
    }

    fn put(&self, store: &mut Store, kind: &'static str, key: &Key, mut object: Value) -> Value {
        store.version += 1;
        object["metadata"]["resourceVersion"] = json!(store.version.to_string());
        if kind == "DELETED" {
            store.objects.remove(key);
        } else {
            store.objects.insert(key.clone(), object.clone());
        }
        store.events.push((store.version, key.0.clone(), kind, object.clone()));
        self.changed.notify_waiters();
        object
    }

    fn act(&self, act: &Act) -> (u16, Value) {
        let mut store = self.store.lock().unwrap();
        let store = &mut *store;
        let Some(name) = act.name.clone().or_else(|| {
            act.body.pointer("/metadata/name").and_then(Value::as_str).map(str::to_owned)
        }) else {
            let items: Vec<_> = store
                .objects
                .iter()
                .filter(|(key, object)| {
                    key.0 == act.plural
                        && act.namespace.as_ref().is_none_or(|ns| *ns == key.1)
                        && act.selects(object)
                })
                .map(|(_, object)| object.clone())
                .collect();
            let version = store.version.to_string();
            return (
                200,
                json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": items}),
            );
        };
        let key = (act.plural.clone(), act.namespace.clone().unwrap_or_default(), name.clone());
        let there = store.objects.get(&key).cloned();
        let Some(there) = there else {
            if act.method != Method::POST {
                return failure(404, "NotFound", &format!("{} \"{name}\" not found", act.plural));
            }
            let mut object = act.body.clone();
            object["metadata"]["namespace"] = json!(key.1);
            object["metadata"]["uid"] = json!(uuid::Uuid::new_v4().to_string());
            object["metadata"]["generation"] = json!(1);
            object["metadata"]["creationTimestamp"] = json!("2026-11-23T09:00:00Z");
            return (201, self.put(store, "ADDED", &key, object));
        };
        let metadata = &there["metadata"];
        match act.method {
            Method::POST => failure(409, "AlreadyExists", &format!("{name} already exists")),
            Method::DELETE => {
                let wanted = act.body.pointer("/preconditions/uid");
                if wanted.is_some_and(|uid| *uid != metadata["uid"]) {
                    return failure(409, "Conflict", "uid does not match");
                }
                if metadata["finalizers"].as_array().is_some_and(|f| !f.is_empty()) {
                    let mut object = there.clone();
                    object["metadata"]["deletionTimestamp"] = json!("2026-11-23T09:30:00Z");
                    return (200, self.put(store, "MODIFIED", &key, object));
                }
                (200, self.put(store, "DELETED", &key, there))
            }
            Method::PATCH => {
                for field in ["uid", "resourceVersion"] {
                    let wanted = act.body["metadata"].get(field);
                    if wanted.is_some_and(|wanted| *wanted != metadata[field]) {
                        return failure(409, "Conflict", &format!("{field} does not match"));
                    }
                }
                let mut object = there.clone();
                if act.subresource.as_deref() == Some("status") {
                    merge(&mut object["status"], &act.body["status"]);
                } else {
                    let status = object["status"].clone();
                    merge(&mut object, &act.body);
                    object["status"] = status;
                }
                let metadata = &object["metadata"];
                let finalized = metadata["finalizers"].as_array().is_none_or(Vec::is_empty);
                if metadata["deletionTimestamp"].is_string() && finalized {
                    return (200, self.put(store, "DELETED", &key, object));
                }
                (200, self.put(store, "MODIFIED", &key, object))
            }
            _ => (200, there),
        }
    }

    /// Events after `version`, and those to come.
    fn watch(&self, act: Act, version: u64) -> Body {
        let mock = self.clone();
        let dropped = self.dropped.subscribe();
        let start = (mock, version, dropped);
        let stream = futures_util::stream::unfold(start, move |(mock, version, mut dropped)| {
            let act = act.clone();
            async move {
                loop {
                    let changed = Arc::clone(&mock.changed);
                    let changed = changed.notified();
                    tokio::pin!(changed);
                    changed.as_mut().enable();
                    let next = {
                        let store = mock.store.lock().unwrap();
                        let wanted = |event: &&(u64, String, &str, Value)| {
                            event.0 > version && event.1 == act.plural && act.selects(&event.3)
                        };
                        store.events.iter().find(wanted).cloned()
                    };
                    if let Some((at, _, kind, object)) = next {
                        let line = format!("{}\n", json!({"type": kind, "object": object}));
                        return Some((Ok::<_, std::io::Error>(line), (mock, at, dropped)));
                    }
                    tokio::select! {
                        () = changed => {}
                        _ = dropped.changed() => return None,
                    }
                }
            }
        });
        Body::from_stream(stream)
    }
}

#[derive(Clone)]
struct Act {
    method: Method,
    plural: String,
    namespace: Option<String>,
    name: Option<String>,
    subresource: Option<String>,
    query: HashMap<String, String>,
    body: Value,
}

impl Act {
    fn selects(&self, object: &Value) -> bool {
        let field = |selector: &String| {
            selector.split(',').all(|selector| {
                let (path, value) = selector.split_once('=').unwrap();
                let (path, wanted) = path.strip_suffix('!').map_or((path, true), |p| (p, false));
                let there = object.pointer(&format!("/{}", path.replace('.', "/")));
                (there == Some(&json!(value))) == wanted
            })
        };
        let label = |selector: &String| {
            let (name, value) = selector.split_once('=').unwrap();
            object["metadata"]["labels"].get(name) == Some(&json!(value))
        };
        self.query.get("fieldSelector").is_none_or(field)
            && self.query.get("labelSelector").is_none_or(label)
            && self.namespace.as_ref().is_none_or(|ns| object["metadata"]["namespace"] == json!(ns))
    }
}

fn merge(into: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            into.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut into[key], value);
        }
    }
}

fn failure(code: u16, reason: &str, message: &str) -> (u16, Value) {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    });
    (code, status)
}

fn answer((code, body): (u16, Value)) -> Response {
    Response::builder()
        .status(StatusCode::from_u16(code).unwrap())
        .header("content-type", "application/json")
        .body(Body::from(body.to_string()))
        .unwrap()
}

fn decode(text: &str) -> String {
    text.replace("%2F", "/")
        .replace("%3D", "=")
        .replace("%2C", ",")
        .replace("%3A", ":")
        .replace("%21", "!")
}

async fn serve(State(mock): State<Mock>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let query: HashMap<_, _> = parts
        .uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.to_owned(), decode(value)))
        .collect();
    let path = parts.uri.path().strip_prefix("/apis/tidegate.dev/v1alpha1/").unwrap().to_owned();
    let mut path: std::collections::VecDeque<_> = path.split('/').map(str::to_owned).collect();
    let namespace = (path[0] == "namespaces").then(|| {
        path.pop_front();
        path.pop_front().unwrap()
    });
    let act = Act {
        method: parts.method.clone(),
        plural: path.pop_front().unwrap(),
        namespace,
        name: path.pop_front(),
        subresource: path.pop_front(),
        query,
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
    };
    let watch = act.query.get("watch").is_some_and(|watch| watch == "true");
    let call = Call {
        method: act.method.clone(),
        plural: act.plural.clone(),
        namespace: act.namespace.clone(),
        name: act.name.clone(),
        subresource: act.subresource.clone(),
        watch,
        page: act.query.contains_key("limit"),
        agent: act
            .body
            .pointer("/spec/relayPod")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned(),
    };
    let fate = (mock.fates.lock().unwrap())(&call);
    match fate {
        Fate::Go if watch => {
            let version = act.query.get("resourceVersion").and_then(|v| v.parse().ok());
            let body = mock.watch(act, version.unwrap_or(0));
            Response::builder().header("content-type", "application/json").body(body).unwrap()
        }
        Fate::Go => answer(mock.act(&act)),
        Fate::Before(code) => answer(failure(code, "Mock", "told to fail")),
        Fate::After(code) => {
            mock.act(&act);
            answer(failure(code, "Mock", "told to fail"))
        }
        Fate::Hang => std::future::pending().await,
        Fate::HangAfter => {
            mock.act(&act);
            std::future::pending().await
        }
        Fate::Late(late) => {
            let done = tokio::spawn(async move {
                tokio::time::sleep(late).await;
                mock.act(&act)
            });
            answer(done.await.unwrap())
        }
    }
}
