//! Reading a directory of manifests: which files there are, and what they say.

pub mod load;
pub mod scan;

use tidegate_crds::manifest::{Finding, Position, Read, Rule, Severity};

/// What a file says that could not be read at all; `why` goes after its name.
pub fn unreadable(file: &str, why: &str) -> Read {
    let findings = vec![finding(file, Severity::Error, why.into())];
    Read { unreadable: true, findings, ..Read::default() }
}

/// Something about a file as a whole; `message` goes after its name.
pub fn finding(file: &str, severity: Severity, message: String) -> Finding {
    let position = Some(Position { file: file.into(), line: 1, column: 1 });
    Finding { position, object: None, field: None, rule: Rule::Unreadable, message, severity }
}
