//! Whatever peers were called and said: each line of the audit and of the log is one that the relay
//! wrote.

use serde_json::Value;
use tidegate_tests::Gate;

use crate::attacks::FORGED;

/// Stops the relay, and reads all that it has written.
pub fn none(gate: &mut Gate) {
    let relay = gate.relay();
    let (log, out) = (relay.stderr(), relay.stdout());
    gate.stop();
    gate.command(&["audit", "verify", &gate.state.to_string_lossy()]).ok();
    for line in log.lines() {
        assert!(!line.trim_start().starts_with(FORGED), "a line of the log: {line}");
        // 2026-11-23T09:00:00.000000Z  INFO …
        let stamped = line.starts_with("20") && line.as_bytes().get(10) == Some(&b'T');
        assert!(stamped, "a line of the log begins otherwise: {line:?}");
        assert!(!line.chars().any(char::is_control), "a line of the log: {line:?}");
    }
    let mut audited = 0;
    for entry in std::fs::read_dir(gate.state.join("audit")).expect("the audit") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "jsonl") {
            continue;
        }
        for line in std::fs::read_to_string(path).expect("a file of the audit").lines() {
            checked(line);
            audited += 1;
        }
    }
    assert!(audited > 0, "nothing is in the audit");
    out.lines().for_each(checked);
}

/// A line of the audit is one object, and what it quotes of a peer has no control characters.
fn checked(line: &str) {
    let value: Value =
        serde_json::from_str(line).unwrap_or_else(|wrong| panic!("{wrong}: a line {line:?}"));
    assert!(value["seq"].is_u64() && value["event"].is_string(), "{line}");
    assert!(line.len() <= 4096 && !line.contains("\\u001b") && !line.contains("\\n"), "{line}");
}
