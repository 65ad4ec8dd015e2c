//! The control socket, with a core that is a list, real sockets, and the client's own functions.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidegate_relay::control::{
    AskError, AuditStatus, Control, Controlled, Cut, FindingView, HostKeyStatus, PolicyStatus,
    Request, Response, SOCKET, SessionView, Status, TerminalStatus, WindowRef, ask,
};
use tokio::task::JoinHandle;

const SESSION: &str = "ss-0199b3c0-0000-7000-8000-000000000001";

struct Core {
    sessions: Mutex<Vec<SessionView>>,
}

fn session() -> SessionView {
    SessionView {
        name: SESSION.to_owned(),
        window: WindowRef {
            namespace: "acme".to_owned(),
            name: "berlin-maint".to_owned(),
            uid: "6b1c".to_owned(),
        },
        opens_at: "2026-11-24T21:00:00Z".parse().unwrap(),
        user: "alice".to_owned(),
        terminal: "kiosk-17".to_owned(),
        service: "ssh".to_owned(),
        case: Some("48213".to_owned()),
        relay_pod: "relay-0".to_owned(),
        opened_at: "2026-11-24T21:05:00Z".parse().unwrap(),
        deadline: "2026-11-24T23:00:00Z".parse().unwrap(),
        source: "203.0.113.9".parse().unwrap(),
        bytes_in: 812,
        bytes_out: 3 << 20,
    }
}

fn terminal(name: &str) -> TerminalStatus {
    TerminalStatus {
        namespace: "acme".to_owned(),
        name: name.to_owned(),
        connected: false,
        contended: false,
        services: Vec::new(),
        connected_since: None,
        last_seen: None,
        source: None,
        client: None,
    }
}

impl Controlled for Core {
    fn status(&self) -> Status {
        Status {
            version: "0.1.0".to_owned(),
            domain: Some("support.example.com".to_owned()),
            relay: "eu".to_owned(),
            relay_pod: "relay-0".to_owned(),
            since: "2026-11-24T08:00:00Z".parse().unwrap(),
            listeners: vec!["0.0.0.0:5938".to_owned(), "0.0.0.0:80".to_owned()],
            admin: Some("127.0.0.1:9100".to_owned()),
            host_keys: vec![
                HostKeyStatus {
                    fingerprint: "SHA256:abc".to_owned(),
                    serves: true,
                    accepted: 12,
                    not_accepted: 0,
                },
                HostKeyStatus {
                    fingerprint: "SHA256:def".to_owned(),
                    serves: false,
                    accepted: 9,
                    not_accepted: 3,
                },
            ],
            policy: PolicyStatus {
                as_of: "2026-11-24T21:09:30Z".parse().unwrap(),
                age_seconds: 42,
                stale: None,
                login_users: 3,
                terminals: 2,
                support_windows: 4,
                open_windows: 1,
            },
            findings: vec![FindingView {
                severity: "error".to_owned(),
                file: Some("windows/a.yaml".to_owned()),
                line: Some(12),
                column: Some(3),
                object: Some("SupportWindow acme/berlin-maint".to_owned()),
                field: Some("spec.suspnd".to_owned()),
                rule: "UnknownField".to_owned(),
                message: "spec.suspnd: unknown field\n\u{1b}[2Jforged".to_owned(),
            }],
            terminals: vec![
                TerminalStatus {
                    connected: true,
                    services: vec!["ssh".to_owned()],
                    connected_since: Some("2026-11-24T20:58:00Z".parse().unwrap()),
                    source: Some("198.51.100.7".parse().unwrap()),
                    client: Some("SSH-2.0-OpenSSH_9.2".to_owned()),
                    ..terminal("kiosk-17")
                },
                TerminalStatus {
                    last_seen: Some("2026-11-23T20:58:00Z".parse().unwrap()),
                    source: Some("198.51.100.8".parse().unwrap()),
                    ..terminal("kiosk-18")
                },
            ],
            sessions: self.sessions(),
            audit: AuditStatus { problem: None, seq: 77 },
            draining: false,
            not_ready: vec!["the clock is 3 s off".to_owned()],
        }
    }

    fn sessions(&self) -> Vec<SessionView> {
        self.sessions.lock().unwrap().clone()
    }

    async fn cut(&self, name: &str) -> Result<Cut, String> {
        tokio::task::yield_now().await;
        assert_ne!(name, "panic", "as asked");
        let mut sessions = self.sessions.lock().unwrap();
        let at = sessions.iter().position(|s| s.name == name);
        let session = sessions.remove(at.ok_or_else(|| format!("no session {name}"))?);
        Ok(Cut {
            session: session.name,
            ended_at: "2026-11-24T21:10:00Z".parse().unwrap(),
            user: session.user,
            terminal: session.terminal,
            service: session.service,
        })
    }
}

struct Running {
    dir: tempfile::TempDir,
    task: JoinHandle<()>,
}

#[expect(clippy::disallowed_methods, reason = "a test has no supervisor")]
fn start_at(state: &Path) -> JoinHandle<()> {
    let control = Control::bind(state).unwrap();
    let core = Arc::new(Core { sessions: Mutex::new(vec![session()]) });
    tokio::spawn(control.serve(core))
}

fn start() -> Running {
    let dir = tempfile::tempdir().unwrap();
    let task = start_at(dir.path());
    Running { dir, task }
}

impl Running {
    fn state(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    /// Runs a blocking client beside the server.
    async fn blocking<T: Send + 'static>(&self, f: impl FnOnce(&Path) -> T + Send + 'static) -> T {
        let state = self.state();
        tokio::task::spawn_blocking(move || f(&state)).await.unwrap()
    }

    async fn ask(&self, request: Request) -> Response {
        self.blocking(move |state| ask(state, &request).unwrap()).await
    }
}

/// A client that says what it likes, and reads what comes until the server closes.
fn raw(state: &Path, text: &[u8]) -> String {
    let mut stream = UnixStream::connect(state.join(SOCKET)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // It may be closed before all is written.
    let _ = stream.write_all(text);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn what_is_asked_comes_back_as_it_was_said() {
    let running = start();
    let core = Core { sessions: Mutex::new(vec![session()]) };
    assert_eq!(running.ask(Request::Status).await, Response::Status(Box::new(core.status())));
    assert_eq!(running.ask(Request::Sessions).await, Response::Sessions(vec![session()]));
    let cut = || Request::Cut { session: SESSION.to_owned() };
    assert!(matches!(running.ask(cut()).await, Response::Cut(c) if c.session == SESSION));
    assert_eq!(running.ask(cut()).await, Response::Refused(format!("no session {SESSION}")));
    assert_eq!(running.ask(Request::Sessions).await, Response::Sessions(Vec::new()));
}

#[tokio::test]
async fn the_socket_is_private_and_goes_with_its_relay() {
    let running = start();
    let path = running.state().join(SOCKET);
    let meta = fs::metadata(&path).unwrap();
    assert!(meta.file_type().is_socket());
    assert_eq!(meta.permissions().mode() & 0o7777, 0o600);
    let left: Vec<_> =
        fs::read_dir(running.state()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, [SOCKET], "nothing else is left in the state directory");
    running.task.abort();
    let _ = running.task.await;
    assert!(!path.exists());
}

#[tokio::test]
async fn a_stale_socket_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(SOCKET);
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(matches!(ask(dir.path(), &Request::Sessions), Err(AskError::NotRunning(_))));
    let task = start_at(dir.path());
    let running = Running { dir, task };
    assert!(matches!(running.ask(Request::Sessions).await, Response::Sessions(_)));
}

#[tokio::test]
async fn a_state_directory_may_be_deep() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("d".repeat(100)).join("e".repeat(100));
    fs::create_dir_all(&deep).unwrap();
    let task = start_at(&deep);
    let answer = tokio::task::spawn_blocking(move || ask(&deep, &Request::Sessions)).await.unwrap();
    assert!(matches!(answer, Ok(Response::Sessions(_))));
    task.abort();
}

#[tokio::test]
async fn bad_requests_get_one_sentence() {
    let running = start();
    for bad in [
        &b"\n"[..],
        b"nonsense\n",
        b"{\"request\":\"drop\"}\n",
        b"{\"request\":\"cut\",\"session\":\"x\",\"more\":1}\n",
        b"{\"request\":\"cut\"}\n",
        b"[]\n",
        b"\xff\xfe\x00\n",
        b"{\"request\":\"status\"}",
    ] {
        let bad = bad.to_vec();
        let answer = running.blocking(move |state| raw(state, &bad)).await;
        assert!(answer.starts_with("{\"refused\":\""), "{answer}");
        assert_eq!(answer.matches('\n').count(), 1, "{answer}");
    }
    let long = running.blocking(|state| raw(state, &vec![b'x'; 1 << 20])).await;
    assert!(long.is_empty() || long.contains("at most 4096 bytes"), "{long}");
}

#[tokio::test]
async fn several_requests_share_a_connection() {
    let running = start();
    let two = b"{\"request\":\"sessions\"}\n{\"request\":\"sessions\"}\n";
    let answer = running.blocking(move |state| raw(state, two)).await;
    assert_eq!(answer.lines().count(), 2);
    assert!(answer.lines().all(|line| line.starts_with("{\"sessions\":[{\"name\":\"ss-")));
}

#[tokio::test]
async fn a_panic_ends_its_own_connection_alone() {
    let running = start();
    let cut = Request::Cut { session: "panic".to_owned() };
    let answer = running.blocking(move |state| ask(state, &cut)).await;
    assert!(matches!(answer, Err(AskError::NoAnswer(_))), "{answer:?}");
    assert!(matches!(running.ask(Request::Sessions).await, Response::Sessions(_)));
}

#[tokio::test]
async fn silent_clients_keep_nobody_out_for_long() {
    let running = start();
    let silent = running
        .blocking(|state| {
            let path = state.join(SOCKET);
            (0..16).map(|_| UnixStream::connect(&path).unwrap()).collect::<Vec<_>>()
        })
        .await;
    // It waits for a place, which is free once the silent ones have lost theirs.
    assert!(matches!(running.ask(Request::Sessions).await, Response::Sessions(_)));
    drop(silent);
}

#[test]
fn without_a_relay_it_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let error = ask(dir.path(), &Request::Status).unwrap_err();
    assert!(error.to_string().starts_with("no relay is running on "), "{error}");
    let error = ask(&dir.path().join("absent"), &Request::Status).unwrap_err();
    assert!(error.to_string().starts_with("no relay is running on "), "{error}");
}

/// What the commands print, and their exit codes, by the functions that `main` runs.
mod commands {
    use super::*;

    fn run(state: &Path, words: &[&str]) -> (String, String, Option<i32>) {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_tidegate-relay"))
            .args(words)
            .arg("--state")
            .arg(state)
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr), output.status.code())
    }

    #[tokio::test]
    async fn for_people_and_for_programs() {
        let running = start();
        let (text, _, code) = running.blocking(|state| run(state, &["status"])).await;
        assert_eq!(code, Some(0));
        insta::assert_snapshot!("status", text);
        let (text, _, code) = running.blocking(|state| run(state, &["sessions"])).await;
        assert_eq!(code, Some(0));
        insta::assert_snapshot!("sessions", text);
        let (text, _, code) =
            running.blocking(|state| run(state, &["sessions", "-o", "json"])).await;
        assert_eq!(code, Some(0));
        let items: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(items["items"][0]["openedAt"], "2026-11-24T21:05:00Z");
        let (text, _, code) = running.blocking(|state| run(state, &["cut", SESSION])).await;
        assert_eq!(
            (text.as_str(), code),
            (&*format!("cut {SESSION}: alice on kiosk-17/ssh\n"), Some(0))
        );
        let (text, error, code) = running.blocking(|state| run(state, &["cut", SESSION])).await;
        assert_eq!((text.as_str(), code), ("", Some(1)));
        assert_eq!(error, format!("tidegate-relay: no session {SESSION}\n"));
        let (text, _, _) = running.blocking(|state| run(state, &["sessions"])).await;
        assert_eq!(text, "no sessions\n");
    }

    /// Even with the file's mode opened up, the kernel's word for who asks decides.
    #[tokio::test]
    async fn another_user_is_not_served() {
        use std::os::unix::process::CommandExt as _;

        const NOBODY: u32 = 65534;
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED another_user_is_not_served: it takes root to become another user");
            assert!(std::env::var_os("TIDEGATE_TESTS_AS_ROOT").is_none(), "CI asked for it");
            return;
        }
        let running = start();
        let open = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        open(&running.state(), 0o755);
        open(&running.state().join(SOCKET), 0o666);
        // A copy, since the build directory may be closed to others.
        let program = running.state().join("tidegate-relay");
        fs::copy(env!("CARGO_BIN_EXE_tidegate-relay"), &program).unwrap();
        open(&program, 0o755);
        let output = running
            .blocking(move |state| {
                std::process::Command::new(program)
                    .args(["sessions", "--state"])
                    .arg(state)
                    .uid(NOBODY)
                    .output()
                    .unwrap()
            })
            .await;
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{error}");
        assert!(error.contains("only its own user and root may ask"), "{error}");
        assert!(matches!(running.ask(Request::Sessions).await, Response::Sessions(_)));
    }

    #[test]
    fn without_a_relay() {
        let dir = tempfile::tempdir().unwrap();
        for words in [&["status"][..], &["sessions"], &["cut", SESSION]] {
            let (text, error, code) = run(dir.path(), words);
            assert_eq!((text.as_str(), code), ("", Some(2)));
            assert!(error.starts_with("tidegate-relay: no relay is running on "), "{error}");
        }
    }
}
