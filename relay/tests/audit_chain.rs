//! The trail's chain on real files: what it looks like, and that `verify` names what was done to it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]
#![expect(clippy::disallowed_methods, reason = "tests wait for their tasks themselves")]

use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use tidegate_relay::audit::{
    Audit, Event, Reason, Settings, Verdict, What, WindowRef, verify, verify_from,
};
use tidegate_relay::record::EndedBy;
use tidegate_relay::state::StateDir;

fn time() -> Timestamp {
    "2026-11-23T09:00:00.25Z".parse().unwrap()
}

fn settings() -> Settings {
    Settings::new(time)
}

fn deny(number: usize) -> Event {
    Event { user: Some(format!("user-{number}")), ..Event::new(What::Deny, time()) }
}

async fn write(state: &Path, lines: usize, rotate_at: u64) {
    let state = StateDir::open(state).unwrap();
    let audit = Audit::open(&state, Settings { rotate_at, ..settings() }).unwrap();
    for number in 0..lines {
        audit.record(deny(number)).await.unwrap();
    }
    audit.close().await;
}

fn current(state: &Path) -> PathBuf {
    state.join("audit/audit.jsonl")
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

fn put(path: &Path, lines: &[String]) {
    fs::write(path, lines.join("\n") + "\n").unwrap();
}

/// What `verify` blames: file name and line.
fn blamed(state: &Path) -> (String, u64) {
    let broken = verify(&state.join("audit")).unwrap_err();
    (broken.file.file_name().unwrap().to_str().unwrap().to_owned(), broken.line)
}

#[tokio::test]
async fn a_line_has_the_words_of_the_resources() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(&dir.path().join("s")).unwrap();
    let audit = Audit::open(&state, settings()).unwrap();
    let window = WindowRef {
        namespace: "acme".into(),
        name: "berlin-maint".into(),
        uid: "4c6b".into(),
        generation: 3,
    };
    let allow = Event {
        decision: Some(Verdict::Allow),
        window: Some(window),
        case: Some("48213".into()),
        user: Some("alice".into()),
        key_fingerprint: Some("SHA256:abc".into()),
        source_address: Some("203.0.113.5:40022".into()),
        transport: Some("SSH".into()),
        listener_port: Some(5938),
        terminal: Some("kiosk-17".into()),
        terminal_key_fingerprint: Some("SHA256:def".into()),
        service: Some("ssh".into()),
        session: Some("ss-1".into()),
        ..Event::new(What::Allow, time())
    };
    let end = Event {
        session: Some("ss-1".into()),
        reason: Some(Reason { code: "Deadline".into(), sentence: "closed".into() }),
        ended_by: Some(EndedBy::Deadline),
        overrun_ms: Some(12),
        bytes_in: Some(1),
        bytes_out: Some(2),
        ..Event::new(What::End, time())
    };
    assert_eq!(audit.record(allow).await, Ok(1));
    assert_eq!(audit.record(end).await, Ok(2));
    let lines = lines(&current(state.root()));
    let zeros = "0".repeat(64);
    assert_eq!(
        lines[0],
        format!(
            r#"{{"seq":1,"prev":"{zeros}","time":"2026-11-23T09:00:00.250Z","event":"Allow","decision":"Allow","window":{{"namespace":"acme","name":"berlin-maint","uid":"4c6b","generation":3}},"case":"48213","user":"alice","keyFingerprint":"SHA256:abc","sourceAddress":"203.0.113.5:40022","transport":"SSH","listenerPort":5938,"terminal":"kiosk-17","terminalKeyFingerprint":"SHA256:def","service":"ssh","session":"ss-1"}}"#
        )
    );
    let prev = tidegate_relay::state::sha256_hex(lines[0].as_bytes());
    assert_eq!(
        lines[1],
        format!(
            r#"{{"seq":2,"prev":"{prev}","time":"2026-11-23T09:00:00.250Z","event":"End","session":"ss-1","reason":{{"code":"Deadline","sentence":"closed"}},"endedBy":"Deadline","overrunMs":12,"bytesIn":1,"bytesOut":2}}"#
        )
    );
    audit.close().await;
    assert!(audit.record(deny(0)).await.is_err());
}

#[tokio::test]
async fn no_text_forges_a_line_or_makes_one_too_long() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(&dir.path().join("s")).unwrap();
    let audit = Audit::open(&state, settings()).unwrap();
    let nasty = "x\"}\n{\"seq\":2,\"prev\":\"\"}\r\u{0}\u{1b}[2J\u{2028}\u{85}";
    for text in [nasty.to_owned(), "\u{1}".repeat(64 << 10), "\u{20ac}".repeat(9000)] {
        let sentence = text.clone();
        let event = Event {
            user: Some(text.clone()),
            terminal: Some(text.clone()),
            client: Some(text.clone()),
            case: Some(text),
            reason: Some(Reason { code: "X".into(), sentence }),
            ..Event::new(What::Deny, time())
        };
        audit.record(event).await.unwrap();
    }
    audit.close().await;
    let lines = lines(&current(state.root()));
    assert_eq!(lines.len(), 3);
    let first: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!(first["user"], nasty);
    assert!(lines.iter().all(|line| line.bytes().all(|b| b >= b' ') && line.len() < 64 << 10));
    assert_eq!(verify(&state.root().join("audit")).unwrap().lines, 3);
}

#[tokio::test]
async fn rotation_keeps_the_chain_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    for round in 1..=3_u64 {
        write(&path, 40, 2000).await;
        let summary = verify(&path.join("audit")).unwrap();
        assert_eq!(summary.lines, round * 40);
        assert_eq!(summary.last.unwrap().0, round * 40);
        assert!(summary.files as u64 > round * 2, "{summary:?}");
        assert_eq!((summary.repairs, summary.unfinished), (0, 0));
    }
    let names: Vec<_> = fs::read_dir(path.join("audit"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(names.contains(&"audit-00000000000000000001.jsonl".to_owned()), "{names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_records_share_a_sync_and_all_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(&dir.path().join("s")).unwrap();
    let audit = Audit::open(&state, Settings { rotate_at: 50_000, ..settings() }).unwrap();
    let tasks: Vec<_> = (0..2000)
        .map(|number| {
            let audit = audit.clone();
            tokio::spawn(async move { audit.record(deny(number)).await.unwrap() })
        })
        .collect();
    let mut seqs = Vec::new();
    for task in tasks {
        seqs.push(task.await.unwrap());
    }
    seqs.sort_unstable();
    assert_eq!(seqs, (1..=2000).collect::<Vec<_>>());
    audit.close().await;
    assert_eq!(verify(&state.root().join("audit")).unwrap().lines, 2000);
}

/// One thing that a tamperer does to `audit.jsonl`, given its lines, and the line that is to blame.
type Deed = (&'static str, fn(&mut Vec<String>), u64);

const DEEDS: &[Deed] = &[
    ("edits a line", |l| l[4] = l[4].replace("user-", "User-"), 5),
    ("edits the first line", |l| l[0] = l[0].replace("user-", "User-"), 1),
    ("edits the last line", |l| l[9] = l[9].replace("user-", "User-"), 10),
    ("edits a line's prev", |l| l[4] = l[4].replacen(r#""prev":""#, r#""prev":"0"#, 1), 5),
    ("edits a line's seq", |l| l[4] = l[4].replace(r#""seq":5,"#, r#""seq":15,"#), 5),
    ("deletes a line", |l| drop(l.remove(4)), 5),
    ("deletes the first line", |l| drop(l.remove(0)), 1),
    ("deletes the last line", |l| drop(l.pop()), 9),
    ("deletes the last three", |l| l.truncate(7), 7),
    ("swaps two lines", |l| l.swap(4, 5), 5),
    ("swaps the last two", |l| l.swap(8, 9), 9),
    ("repeats a line", |l| l.insert(5, l[4].clone()), 6),
    ("writes what is no JSON", |l| l[4] = "hello".into(), 5),
    ("adds spaces", |l| l[4].push(' '), 5),
    ("empties a line", |l| l[4].clear(), 5),
];

#[tokio::test]
async fn verify_names_what_was_done_also_after_a_restart() {
    for (deed, tamper, line) in DEEDS {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        write(&path, 10, 1 << 20).await;
        let mut all = lines(&current(&path));
        tamper(&mut all);
        put(&current(&path), &all);
        assert_eq!(blamed(&path), ("audit.jsonl".to_owned(), *line), "{deed}");

        // A restart goes on in a new file, which begins with the break; verify still names it.
        for _ in 0..2 {
            write(&path, 2, 1 << 20).await;
            let (file, again) = blamed(&path);
            // What was taken from the end shows where the next file begins.
            let at_end = deed.starts_with("deletes the last");
            assert_eq!(again, if at_end { 1 } else { *line }, "{deed}, restarted: {file}");
            assert_eq!(file.starts_with("audit-"), !at_end, "{deed}, restarted: {file}");
            let fresh = lines(&current(&path));
            assert!(
                fresh[0].contains(r#""event":"Repair","reason":{"code":"BrokenChain""#),
                "{deed}"
            );
        }
        assert_eq!(lines(&current(&path)).len(), 5, "{deed}: one Repair, not one a start");
    }
}

#[tokio::test]
async fn a_missing_file_is_noticed() {
    for gone in ["audit-00000000000000000001.jsonl", "second", "audit.jsonl", "head"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        write(&path, 100, 2000).await;
        let audit = path.join("audit");
        let mut names: Vec<_> = fs::read_dir(&audit)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with("audit-"))
            .collect();
        names.sort();
        let name = if gone == "second" { &names[1] } else { gone };
        fs::remove_file(audit.join(name)).unwrap();
        let (file, line) = blamed(&path);
        let (next, at) = match gone {
            "second" => (names[2].as_str(), 1),
            "audit.jsonl" => (
                names.last().unwrap().as_str(),
                lines(&audit.join(names.last().unwrap())).len() as u64,
            ),
            "head" => ("head", 1),
            _ => (names[1].as_str(), 1),
        };
        assert_eq!((file.as_str(), line), (next, at), "{gone}");
        if gone.starts_with("audit-") {
            // Moved elsewhere by agreement: the rest can be walked by itself.
            let first = names[1].trim_start_matches("audit-").trim_end_matches(".jsonl");
            let rest = verify_from(&audit, first.parse().unwrap()).unwrap();
            assert_eq!(rest.last.unwrap().0, 100);
        }
        write(&path, 1, 1 << 20).await;
        let told = lines(&current(&path)).iter().any(|line| line.contains(r#""event":"Repair""#));
        assert_eq!(told, gone == "audit.jsonl" || gone == "head", "{gone}");
        if gone == "head" {
            assert_eq!(verify(&audit).unwrap().repairs, 1);
        }
    }
}

#[tokio::test]
async fn a_torn_last_line_is_dropped_and_told() {
    for torn in [&b"{\"seq\":11,\"prev\":\"00"[..], b"x", &vec![0; 300_000][..]] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        write(&path, 10, 1 << 20).await;
        let mut bytes = fs::read(current(&path)).unwrap();
        bytes.extend_from_slice(torn);
        fs::write(current(&path), &bytes).unwrap();
        assert_eq!(verify(&path.join("audit")).unwrap().unfinished, torn.len() as u64);
        write(&path, 1, 1 << 20).await;
        let all = lines(&current(&path));
        assert_eq!(all.len(), 12);
        let repair: serde_json::Value = serde_json::from_str(&all[10]).unwrap();
        assert_eq!(repair["event"], "Repair");
        assert_eq!(repair["reason"]["code"], "TornLine");
        assert_eq!(repair["droppedBytes"], torn.len());
        assert_eq!(repair["droppedSha256"], tidegate_relay::state::sha256_hex(torn));
        let summary = verify(&path.join("audit")).unwrap();
        assert_eq!((summary.lines, summary.repairs, summary.unfinished), (12, 1, 0));
    }
}

#[tokio::test]
async fn a_line_of_any_length_is_read_in_bounded_memory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    write(&path, 10, 1 << 20).await;
    let mut all = lines(&current(&path));
    all.insert(6, "x".repeat(3 << 20));
    put(&current(&path), &all);
    assert_eq!(blamed(&path), ("audit.jsonl".to_owned(), 7));
}

#[tokio::test]
async fn a_file_taken_from_under_the_relay_fails_records() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(&dir.path().join("s")).unwrap();
    let audit = Audit::open(&state, settings()).unwrap();
    audit.record(deny(0)).await.unwrap();
    let away = dir.path().join("away");
    fs::rename(current(state.root()), &away).unwrap();
    let error = audit.record(deny(1)).await.unwrap_err().to_string();
    assert!(error.contains("moved, removed or shortened"), "{error}");
    assert_eq!(audit.healthy().unwrap_err(), error);
    fs::rename(&away, current(state.root())).unwrap();
    audit.record(deny(2)).await.unwrap();
    assert_eq!(audit.healthy(), Ok(()));
    audit.close().await;
    assert_eq!(verify(&state.root().join("audit")).unwrap().lines, 3);
}

#[tokio::test]
async fn sessions_that_a_dead_process_left_open_are_those_since_its_start() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(&dir.path().join("state")).unwrap();
    // Small files, so that the sessions stand in several of them.
    let audit = Audit::open(&state, Settings { rotate_at: 600, ..Settings::new(time) }).unwrap();
    let event = |what, session: &str| Event {
        session: Some(session.to_owned()),
        ..Event::new(what, Timestamp::UNIX_EPOCH)
    };
    for (what, session) in [
        (What::Allow, "ss-forgotten"),
        (What::Start, ""),
        (What::Allow, "ss-ended"),
        (What::Allow, "ss-open"),
        (What::Channel, "ss-ended"),
        (What::End, "ss-ended"),
        (What::Allow, "ss-also-open"),
        (What::Cut, "ss-open"),
    ] {
        audit.record(event(what, session)).await.unwrap();
    }
    audit.close().await;
    let open = tidegate_relay::audit::left_open(&state.root().join("audit")).unwrap();
    let open: Vec<_> = open.iter().map(|event| event.session.as_deref().unwrap()).collect();
    assert_eq!(open, ["ss-open", "ss-also-open"]);
}
