//! How the CLI reads an API server that answers in parts, badly or not at all. A real one is in
//! tests/tests/cli_cluster.rs; here is what a real one cannot be made to do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kube::{Client, Config};
use serde_json::{Value, json};
use tidegate_cli::cluster::{Cluster, Wanted, presence};
use tidegate_cli::presence::Connected;
use tidegate_cli::sessions;

/// An API server that has the answers it was given; others are 404. It ends with the test's process.
struct Server {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

/// What is asked for, as its path and query begin, and the answer: status and body.
type Answers = Vec<(&'static str, u16, Value)>;

impl Server {
    fn start(answers: Answers) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                serve(&stream.unwrap(), &answers, &log);
            }
        });
        Self { address, asked }
    }

    fn cluster(&self) -> Cluster {
        let mut config = Config::new(format!("http://{}", self.address).parse().unwrap());
        config.default_retry = false;
        config.read_timeout = Some(Duration::from_secs(10));
        Cluster {
            client: Client::try_from(config).unwrap(),
            namespace: "support".into(),
            named: false,
            all_namespaces: true,
            mesh: None,
            kubeconfig: None,
            context: None,
        }
    }

    fn asked(&self, part: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|path| path.contains(part)).count()
    }
}

fn serve(stream: &TcpStream, answers: &Answers, log: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    while reader.read_line(&mut line).unwrap() > 2 {}
    // The longest that fits, so that a page is told from the list.
    let fits = answers.iter().filter(|(start, ..)| path.starts_with(start));
    let (code, body) = fits
        .max_by_key(|(start, ..)| start.len())
        .map_or_else(|| (404, failure(404, "not found")), |(_, code, body)| (*code, body.clone()));
    log.lock().unwrap().push(path);
    let body = body.to_string();
    let length = body.len();
    let head = format!("HTTP/1.1 {code} X\r\nContent-Type: application/json\r\n");
    let _ =
        write!(&mut &*stream, "{head}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}");
}

fn failure(code: u16, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message, "reason": ""})
}

fn list(items: &[Value], next: &str) -> Value {
    json!({"metadata": {"continue": next}, "items": items})
}

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": kind,
        "metadata": {
            "name": name, "namespace": "support", "uid": name, "generation": 1,
            "creationTimestamp": "2026-11-01T00:00:00Z",
        },
        "spec": spec,
    })
}

fn mesh() -> Value {
    object("Mesh", "prod", &json!({"domain": "support.example.com"}))
}

fn session(name: &str, terminal: &str) -> Value {
    let spec = json!({
        "window": {"name": "w", "uid": "u"}, "opensAt": "2026-11-23T08:00:00Z", "user": "alice",
        "terminal": terminal, "service": "ssh", "relayPod": "eu-1", "openedAt": "2026-11-23T08:00:00Z",
        "deadline": "9999-01-01T00:00:00Z",
    });
    object("SupportSession", name, &spec)
}

fn pod(name: &str, phase: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "support"},
        "spec": {"containers": [{"name": "relay", "ports": [{"name": "admin", "containerPort": 9191}]}]},
        "status": {"phase": phase},
    })
}

const MESHES: &str = "/apis/tidegate.dev/v1alpha1/meshes";
const RELAYS: &str = "/apis/tidegate.dev/v1alpha1/namespaces/support/relays";
const SESSIONS: &str = "/apis/tidegate.dev/v1alpha1/namespaces/support/supportsessions";
const PODS: &str = "/api/v1/namespaces/support/pods?";

#[tokio::test]
async fn a_list_goes_on_from_page_to_page_and_begins_anew_where_it_has_expired() {
    let sessions = "/apis/tidegate.dev/v1alpha1/supportsessions?";
    let second = "/apis/tidegate.dev/v1alpha1/supportsessions?&limit=500&continue=two";
    let server = Server::start(vec![
        (sessions, 200, list(&[session("ss-1", "a")], "two")),
        (second, 200, list(&[session("ss-2", "b"), json!({"kind": "of another version"})], "")),
    ]);
    let found = sessions::list(&server.cluster(), None, None).await.unwrap();
    let names: Vec<_> = found.iter().map(|session| session.name.as_str()).collect();
    assert_eq!(names, ["ss-1", "ss-2"], "{:?}", server.asked.lock().unwrap());

    let server = Server::start(vec![
        (sessions, 200, list(&[session("ss-1", "a")], "two")),
        (second, 410, failure(410, "the continue token has expired")),
    ]);
    let error = sessions::list(&server.cluster(), None, None).await.unwrap_err();
    assert!(error.to_string().ends_with("the continue token has expired"), "{error}");
    assert_eq!(server.asked("continue"), 4, "not for ever");
}

#[tokio::test]
async fn the_relay_pods_tell_who_is_connected() {
    let proxy = |pod: &'static str| -> &'static str {
        Box::leak(format!("/api/v1/namespaces/support/pods/{pod}:9191/proxy/terminals").into())
    };
    let attached =
        json!({"terminals": [{"name": "kiosk-17", "connectedSince": "2026-11-23T08:00:00Z"}]});
    let common = || -> Answers {
        vec![
            (MESHES, 200, list(&[mesh()], "")),
            (RELAYS, 200, list(&[], "")),
            (SESSIONS, 200, list(&[session("ss-1", "kiosk-18")], "")),
            (
                PODS,
                200,
                list(&[pod("eu-0", "Running"), pod("eu-1", "Running"), pod("eu-2", "Pending")], ""),
            ),
            (proxy("eu-0"), 200, attached.clone()),
        ]
    };
    let all = [common(), vec![(proxy("eu-1"), 200, json!({"terminals": []}))]].concat();
    let server = Server::start(all);
    let cluster = server.cluster();
    let world = cluster.world(Wanted::RELAYS).await.unwrap();
    let seen = presence(&cluster, &world).await;
    assert!(
        matches!(seen.of("kiosk-17"), Connected::Yes(c) if c.pod == "eu-0" && c.since.is_some())
    );
    assert_eq!((seen.of("kiosk-18"), seen.why_unknown()), (Connected::No, None));
    assert_eq!(server.asked("eu-2"), 0);
    assert_eq!(
        server.asked(
            "labelSelector=app.kubernetes.io%2Fcomponent%3Drelay%2Ctidegate.dev%2Fmesh%3Dprod"
        ),
        1
    );

    // One may not be asked: sessions tell of the terminals that they are on, and nobody else is said to be away.
    let some =
        [common(), vec![(proxy("eu-1"), 403, failure(403, "pods/proxy is forbidden"))]].concat();
    let server = Server::start(some);
    let cluster = server.cluster();
    let world = cluster.world(Wanted::RELAYS).await.unwrap();
    let seen = presence(&cluster, &world).await;
    assert!(matches!(seen.of("kiosk-17"), Connected::Yes(_)));
    assert!(
        matches!(seen.of("kiosk-18"), Connected::Yes(c) if c.pod == "eu-1" && c.since.is_none())
    );
    assert_eq!(seen.of("kiosk-19"), Connected::Unknown);
    let why = seen.why_unknown().unwrap();
    assert!(
        why.starts_with("you may not ask relay pod eu-1") && why.contains("tidegate-connected"),
        "{why}"
    );
}

#[tokio::test]
async fn an_object_that_cannot_be_understood_is_left_out_and_named() {
    let terminals = "/apis/tidegate.dev/v1alpha1/namespaces/support/terminals";
    let odd = object("Terminal", "odd", &json!({"publicKeys": 7}));
    let server = Server::start(vec![
        (MESHES, 200, list(&[mesh()], "")),
        (RELAYS, 200, list(&[], "")),
        (terminals, 200, list(&[odd], "")),
    ]);
    let wanted = Wanted { terminals: true, ..Wanted::RELAYS };
    let world = server.cluster().world(wanted).await.unwrap();
    assert_eq!(world.known.snapshot.terminals().count(), 0);
    let warning = &world.known.warning;
    assert!(
        warning.starts_with("warning: 1 object of mesh support/prod not in force"),
        "{warning}"
    );
    assert!(warning.contains("Terminal support/odd (cannot be read:"), "{warning}");
}
