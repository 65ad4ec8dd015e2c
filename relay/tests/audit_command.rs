//! `audit verify` on a state directory.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;

use tidegate_commands::Output;
use tidegate_relay::commands::audit::{VerifyArgs, answer};

#[test]
fn an_audit_log_is_verified_where_there_is_one() {
    let state = tempfile::tempdir().unwrap();
    let args = VerifyArgs { state: state.path().into(), from: None, output: Output::default() };
    let absent = answer(&args);
    assert_eq!(absent.code, 2);
    assert!(absent.stderr.contains("there is no audit log"), "{}", absent.stderr);
    fs::create_dir(state.path().join("audit")).unwrap();
    fs::write(state.path().join("audit/audit.jsonl"), "{}\n").unwrap();
    let broken = answer(&args);
    assert_eq!(broken.code, 1, "{}{}", broken.stdout, broken.stderr);
}
