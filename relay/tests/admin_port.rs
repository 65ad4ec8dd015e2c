//! The admin port over real sockets, with requests written by hand.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidegate_relay::admin::{self, Admin, Attached, Health};
use tidegate_relay::metrics::Metrics;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::timeout;

#[derive(Default)]
struct Core {
    reasons: Mutex<Vec<String>>,
}

impl Health for Core {
    fn not_ready(&self) -> Vec<String> {
        self.reasons.lock().unwrap().clone()
    }

    fn attached(&self) -> Vec<Attached> {
        vec![Attached { name: "kiosk-17".into(), connected_since: jiff::Timestamp::UNIX_EPOCH }]
    }

    fn refresh(&self, metrics: &Metrics) {
        metrics.set_sessions(42);
    }
}

struct Running {
    address: SocketAddr,
    core: Arc<Core>,
    task: AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn start() -> Running {
    let admin = Admin::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = admin.address();
    let core = Arc::new(Core::default());
    let metrics = Arc::new(Metrics::new().unwrap());
    #[expect(clippy::disallowed_methods, reason = "a test has no supervisor")]
    let task = tokio::spawn(admin::serve(admin, metrics, Arc::clone(&core) as Arc<dyn Health>));
    Running { address, core, task: task.abort_handle() }
}

#[expect(clippy::disallowed_methods, reason = "the test is the peer: it dials no resolved name")]
async fn connect(running: &Running) -> TcpStream {
    TcpStream::connect(running.address).await.unwrap()
}

/// Sends, and reads until the server closes. An error of the socket counts as its end.
async fn talk(running: &Running, request: &[u8]) -> String {
    let mut stream = connect(running).await;
    let _ = stream.write_all(request).await;
    rest(&mut stream).await
}

async fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let reading = async {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            answer.extend_from_slice(&buffer[..count]);
        }
    };
    timeout(Duration::from_secs(20), reading).await.expect("the server closes");
    String::from_utf8(answer).unwrap()
}

async fn ask(running: &Running, method: &str, path: &str) -> (u16, String) {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: relay\r\n\r\n");
    let answer = talk(running, request.as_bytes()).await;
    let (head, body) = answer.split_once("\r\n\r\n").expect("a whole answer");
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    assert!(head.to_ascii_lowercase().contains("connection: close"), "{head}");
    (status, body.to_owned())
}

#[tokio::test]
async fn metrics_are_refreshed_before_they_are_served() {
    let running = start().await;
    let (status, body) = ask(&running, "GET", "/metrics").await;
    assert_eq!(status, 200);
    assert!(body.contains("\ntidegate_sessions_current 42\n"), "{body}");
    assert!(body.contains("\ntidegate_ready 1\n"), "{body}");
}

#[tokio::test]
async fn ready_says_why_not_one_reason_a_line() {
    let running = start().await;
    assert_eq!(ask(&running, "GET", "/readyz").await, (200, "ready\n".to_owned()));
    *running.core.reasons.lock().unwrap() =
        vec!["audit lines cannot be written".to_owned(), "policy is 7m old\nforged".to_owned()];
    let attached = r#"{"terminals":[{"name":"kiosk-17","connectedSince":"1970-01-01T00:00:00Z"}]}"#;
    assert_eq!(ask(&running, "GET", "/terminals").await, (200, format!("{attached}\n")));
    let (status, body) = ask(&running, "GET", "/readyz").await;
    assert_eq!(status, 503);
    assert_eq!(body, "audit lines cannot be written\npolicy is 7m old?forged\n");
    // Alive all the same.
    assert_eq!(ask(&running, "GET", "/healthz").await, (200, "ok\n".to_owned()));
    let (_, metrics) = ask(&running, "GET", "/metrics").await;
    assert!(metrics.contains("\ntidegate_ready 0\n"));
}

#[tokio::test]
async fn nothing_but_reading_is_allowed() {
    let running = start().await;
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
        for path in ["/metrics", "/healthz", "/readyz", "/sessions"] {
            assert_eq!(ask(&running, method, path).await.0, 405, "{method} {path}");
        }
    }
    assert_eq!(ask(&running, "HEAD", "/metrics").await, (200, String::new()));
    assert_eq!(ask(&running, "GET", "/sessions").await.0, 404);
    assert_eq!(ask(&running, "GET", "/../etc/passwd").await.0, 404);
}

#[tokio::test]
async fn a_long_request_is_cut_short() {
    let running = start().await;
    let mut request = b"GET /metrics HTTP/1.1\r\nX: ".to_vec();
    request.resize(1 << 20, b'x');
    let answer = talk(&running, &request).await;
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(!talk(&running, &[0x16, 3, 1, 0, 200, 1]).await.contains("200 OK"));
    assert_eq!(ask(&running, "GET", "/healthz").await.0, 200);
}

#[tokio::test]
async fn slow_peers_keep_nobody_out() {
    let running = start().await;
    let mut slow = Vec::new();
    for _ in 0..200 {
        let mut stream = connect(&running).await;
        stream.write_all(b"GET /metr").await.unwrap();
        slow.push(stream);
    }
    let asked = ask(&running, "GET", "/healthz");
    let (status, _) = timeout(Duration::from_secs(5), asked).await.expect("served at once");
    assert_eq!(status, 200);
    // The oldest gave way: its connection ended without an answer.
    let first = slow.first_mut().unwrap();
    assert_eq!(rest(first).await, "");
}

#[tokio::test]
async fn a_connection_lives_ten_seconds_at_most() {
    let running = start().await;
    let mut stream = connect(&running).await;
    stream.write_all(b"GET /metrics HTTP/1.1\r\n").await.unwrap();
    assert_eq!(rest(&mut stream).await, "");
}
