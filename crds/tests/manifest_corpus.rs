//! The corpus of good and bad manifests: what is read of each, and what is said about it, against the text beside it.
//! `TIDEGATE_BLESS=1 cargo test -p tidegate-crds --test manifest_corpus` writes those texts anew.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise; clippy.toml knows only its functions, not their helpers"
)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use tidegate_crds::manifest::{MESSAGE_BYTES, Read, read_bytes};

fn corpus(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/manifests").join(folder);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "yaml" || ext == "json"))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

fn shown(read: &Read) -> String {
    let mut out = String::new();
    for document in &read.documents {
        writeln!(out, "read {} at {}", document.reference, document.position).unwrap();
    }
    for (object, position) in &read.refused {
        writeln!(out, "refused {object} at {position}").unwrap();
    }
    if read.unreadable {
        writeln!(out, "unreadable").unwrap();
    }
    for finding in &read.findings {
        writeln!(out, "{finding}  [{:?} {}]", finding.severity, finding.rule).unwrap();
    }
    out
}

fn compare(path: &Path, actual: &str) -> Result<(), String> {
    let mut golden = path.as_os_str().to_owned();
    golden.push(".txt");
    if std::env::var_os("TIDEGATE_BLESS").is_some() {
        std::fs::write(&golden, actual).unwrap();
        return Ok(());
    }
    let expected = std::fs::read_to_string(&golden).unwrap_or_default();
    if expected == actual {
        return Ok(());
    }
    Err(format!("{}\n--- expected\n{expected}--- actual\n{actual}", path.display()))
}

fn each(folder: &str, check: impl Fn(&Path, &Read)) {
    let mut wrong = Vec::new();
    for path in corpus(folder) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let read = read_bytes(&name, &std::fs::read(&path).unwrap());
        check(&path, &read);
        for finding in &read.findings {
            let line = &finding.message;
            assert!(
                line.len() <= MESSAGE_BYTES && !line.contains(|c: char| !matches!(c, ' '..='~')),
                "{line}"
            );
        }
        if let Err(difference) = compare(&path, &shown(&read)) {
            wrong.push(difference);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn good_manifests_are_read_without_a_finding() {
    each("good", |path, read| {
        assert!(read.findings.is_empty(), "{}: {:#?}", path.display(), read.findings);
        assert!(!read.documents.is_empty() && !read.unreadable && read.refused.is_empty());
    });
}

#[test]
fn what_only_compile_can_see_is_read_and_refused() {
    let mut wrong = Vec::new();
    for path in corpus("compile") {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let read = read_bytes(&name, &std::fs::read(&path).unwrap());
        assert!(read.findings.is_empty(), "{name}: {:#?}", read.findings);
        let [document] = &read.documents[..] else { panic!("{name}: not one document") };
        let findings = document.refusals();
        assert!(!findings.is_empty(), "{name}: nothing is refused");
        let mut lines = String::new();
        for finding in &findings {
            writeln!(lines, "{finding}").unwrap();
        }
        wrong.extend(compare(&path, &lines).err());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn bad_manifests_say_what_is_wrong_and_where() {
    each("bad", |path, read| {
        assert!(!read.findings.is_empty(), "{}: no finding", path.display());
        for finding in &read.findings {
            assert!(finding.position.is_some(), "{finding}");
        }
    });
}
