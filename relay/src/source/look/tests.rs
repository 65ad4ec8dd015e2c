//! Looks at directories whose files are written while they are read.

use std::fs;
use std::time::Duration;

use tidegate_commands::manifests::unreadable;
use tidegate_crds::manifest::{Kind, Object, Positions};

use super::vanished::MISSING_LOOKS;
use super::*;
use crate::clock::Boot;

/// A file of these tests holds one object's name and its content per line; `!` is a syntax error.
fn reader(file: &str, bytes: &[u8]) -> Read {
    let text = std::str::from_utf8(bytes).unwrap();
    if text.trim().is_empty() || text.contains('!') {
        return unreadable(file, "cannot be parsed");
    }
    let document = |(at, line): (usize, &str)| {
        let (name, content) = line.split_once(' ').unwrap_or((line, ""));
        let line = u32::try_from(at + 1).unwrap();
        let position = Position { file: file.into(), line, column: 1 };
        Document {
            object: Object::Namespace { name: name.into(), labels: BTreeMap::new() },
            reference: object(name),
            fields: Positions::new(&position),
            position,
            value: content.into(),
        }
    };
    let documents = text.lines().enumerate().map(document).collect();
    Read { documents, ..Read::default() }
}

fn object(name: &str) -> ObjectRef {
    ObjectRef { kind: Kind::SupportWindow, namespace: "acme".into(), name: name.into() }
}

struct Bench {
    root: tempfile::TempDir,
    files: Files,
    /// What is in force, by the edits that looks told of.
    seen: BTreeMap<ObjectRef, String>,
    /// Milliseconds since the bench was made.
    time: u64,
}

impl Bench {
    fn new(files: &[(&str, &str)]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let mut bench = Self {
            files: Files::new(root.path(), OrdMap::new(), BTreeMap::new()),
            seen: BTreeMap::new(),
            root,
            time: 0,
        };
        bench.files.reader = reader;
        for (name, text) in files {
            bench.write(name, text);
        }
        let look = bench.look(0, true);
        assert!(look.complete && !look.again);
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), text).unwrap();
    }

    fn at(&self) -> Now {
        let boot = Boot::from_start(Duration::from_millis(self.time));
        let wall = jiff::Timestamp::from_millisecond(i64::try_from(self.time).unwrap());
        Now { wall: wall.unwrap(), boot }
    }

    /// Looks `later` milliseconds after the last look.
    fn look(&mut self, later: u64, settled: bool) -> Look {
        self.time += later;
        let look = self.files.look(self.at(), settled).unwrap();
        if look.changed {
            self.follow_edits();
        }
        look
    }

    /// The edits alone lead to the same as a look at all that is in force.
    fn follow_edits(&mut self) {
        let edits = self.files.edits().map(|edits| {
            let shown = |sight: Sight<'_>| match sight {
                Sight::Document(document) => Some(format!("{document:?}")),
                Sight::Stays => Some("stays".to_owned()),
                Sight::Gone => None,
            };
            edits.into_iter().map(|(object, sight)| (object, shown(sight))).collect::<Vec<_>>()
        });
        let inputs = self.files.in_force();
        let written = inputs.documents.iter().map(|it| (it.reference.clone(), format!("{it:?}")));
        let held = inputs.refused.iter().map(|(object, _)| (object.clone(), "stays".to_owned()));
        let all: BTreeMap<_, _> = written.chain(held).collect();
        let Some(edits) = edits else {
            self.seen = all;
            return;
        };
        assert!(inputs.kept_files.is_empty());
        for (object, shown) in edits {
            match shown {
                Some(shown) => drop(self.seen.insert(object, shown)),
                None => drop(self.seen.remove(&object)),
            }
        }
        assert_eq!(self.seen, all);
    }

    /// What is in force: `name=content`, `name?` where the previous version stays.
    fn in_force(&self) -> String {
        let inputs = self.files.in_force();
        let written = inputs.documents.iter().map(|document| {
            format!("{}={}", document.reference.name, document.value.as_str().unwrap())
        });
        let held = inputs.refused.iter().map(|(object, _)| format!("{}?", object.name));
        let files = inputs.kept_files.iter().map(|file| format!("[{file}]"));
        let mut all: Vec<String> = written.chain(held).chain(files).collect();
        all.sort();
        all.join(" ")
    }
}

#[test]
fn a_quiet_directory_changes_nothing() {
    let mut bench = Bench::new(&[("a.yaml", "w 1"), ("b/c.yaml", "x 1\ny 2")]);
    assert_eq!(bench.in_force(), "w=1 x=1 y=2");
    for _ in 0..3 {
        let look = bench.look(60_000, true);
        assert!(look.complete && !look.changed && !look.again);
    }
}

#[test]
fn a_change_at_rest_applies_at_once_and_a_touch_is_none() {
    let mut bench = Bench::new(&[("a.yaml", "w 1")]);
    bench.write("a.yaml", "w 2");
    assert!(bench.look(100, true).changed);
    assert_eq!(bench.in_force(), "w=2");
    bench.write("a.yaml", "w 2");
    assert!(!bench.look(100, true).changed);
}

#[test]
fn a_second_write_within_one_tick_is_seen() {
    let mut bench = Bench::new(&[("a.yaml", "w 1")]);
    let stamp = fs::metadata(bench.path("a.yaml")).unwrap().modified().unwrap();
    bench.write("a.yaml", "w 2");
    let file = fs::File::options().write(true).open(bench.path("a.yaml")).unwrap();
    file.set_modified(stamp).unwrap();
    assert!(bench.look(100, true).changed);
    assert_eq!(bench.in_force(), "w=2");
}

#[test]
fn what_changes_while_things_move_is_taken_when_seen_twice() {
    let mut bench = Bench::new(&[("a.yaml", "w 1")]);
    bench.write("a.yaml", "w 2");
    let look = bench.look(100, false);
    assert!(!look.changed && look.again);
    bench.write("a.yaml", "w 3");
    assert!(bench.look(100, false).again);
    assert_eq!(bench.in_force(), "w=1");
    let look = bench.look(100, false);
    assert!(look.changed && !look.again);
    assert_eq!(bench.in_force(), "w=3");
}

#[test]
fn a_vanished_file_revokes_when_a_second_look_agrees() {
    let mut bench = Bench::new(&[("a.yaml", "w 1"), ("b.yaml", "x 1")]);
    fs::remove_file(bench.path("a.yaml")).unwrap();
    let look = bench.look(100, true);
    assert!(look.again);
    assert_eq!(bench.in_force(), "w? x=1");
    assert!(bench.look(50, true).again, "too soon to be a second look");
    assert_eq!(bench.in_force(), "w? x=1");
    let look = bench.look(50, true);
    assert!(look.changed && !look.again);
    assert_eq!(bench.in_force(), "x=1");
}

#[test]
fn a_vanished_document_revokes_when_its_file_rests() {
    let mut bench = Bench::new(&[("a.yaml", "w 1\nx 1")]);
    bench.write("a.yaml", "x 1");
    assert!(bench.look(100, true).again);
    assert_eq!(bench.in_force(), "w? x=1");
    // Written again: what was seen is no witness any more.
    fs::remove_file(bench.path("a.yaml")).unwrap();
    bench.write("a.yaml", "x 1\ny 1");
    assert!(bench.look(100, true).again);
    assert_eq!(bench.in_force(), "w? x=1 y=1");
    assert!(!bench.look(100, true).again);
    assert_eq!(bench.in_force(), "x=1 y=1");
}

#[test]
fn what_comes_back_in_time_was_never_gone() {
    let mut bench = Bench::new(&[("a.yaml", "w 1")]);
    for _ in 0..20 {
        fs::remove_file(bench.path("a.yaml")).unwrap();
        assert!(bench.look(100, true).again);
        bench.write("a.yaml", "w 1");
        bench.look(100, true);
        assert_eq!(bench.in_force(), "w=1");
    }
}

#[test]
fn who_goes_on_writing_puts_nothing_off_for_long() {
    let mut bench = Bench::new(&[("a.yaml", "w 0")]);
    for turn in 1..=5 {
        bench.write("a.yaml", &format!("w {turn}"));
        assert!(bench.look(100, false).again);
        assert_eq!(bench.in_force(), "w=0");
    }
    bench.write("a.yaml", "w 6");
    assert!(bench.look(100, false).changed);
    assert_eq!(bench.in_force(), "w=6");
}

#[test]
fn what_never_rests_but_is_there_is_not_missing() {
    let mut bench = Bench::new(&[("a.yaml", "w 0")]);
    for turn in 1..20 {
        // As `git checkout` does it: gone, then there again with another content.
        fs::remove_file(bench.path("a.yaml")).unwrap();
        bench.look(100, false);
        bench.write("a.yaml", &format!("w {turn}"));
        bench.look(100, false);
        assert_eq!(bench.in_force(), "w?");
    }
    let look = bench.look(100, false);
    assert!(look.changed && !look.again);
    assert_eq!(bench.in_force(), "w=19");
}

#[test]
fn looks_that_follow_too_soon_are_one() {
    let mut bench = Bench::new(&[("a.yaml", "w 1")]);
    bench.write("a.yaml", "w 2");
    for _ in 0..5 {
        assert!(bench.look(0, false).again);
        assert_eq!(bench.in_force(), "w=1");
    }
    assert!(bench.look(100, false).changed);
    assert_eq!(bench.in_force(), "w=2");
}

#[test]
fn what_is_missing_often_enough_is_gone_though_its_directory_never_rests() {
    let mut bench = Bench::new(&[("d/a.yaml", "w 1"), ("d/b.yaml", "x 1")]);
    fs::remove_file(bench.path("d/a.yaml")).unwrap();
    let mut looks = 1;
    while bench.look(100, false).again {
        looks += 1;
        fs::rename(bench.path("d/b.yaml"), bench.path("d/b")).unwrap();
        fs::rename(bench.path("d/b"), bench.path("d/b.yaml")).unwrap();
        let directory = fs::File::open(bench.path("d")).unwrap();
        let then = std::time::UNIX_EPOCH + Duration::from_secs(looks);
        directory.set_modified(then).unwrap();
    }
    assert_eq!(looks, u64::from(MISSING_LOOKS));
    assert_eq!(bench.in_force(), "x=1");
}

#[test]
fn a_document_that_moves_to_another_file_is_never_missing() {
    let mut bench = Bench::new(&[("a.yaml", "w 1\nx 1")]);
    bench.write("a.yaml", "x 1");
    bench.write("b.yaml", "w 1");
    let look = bench.look(100, true);
    assert!(look.changed && !look.again);
    assert_eq!(bench.in_force(), "w=1 x=1");
}

#[test]
fn what_a_file_has_twice_is_told_of_when_either_goes() {
    let mut bench = Bench::new(&[("a.yaml", "w 1\nw 2")]);
    for text in ["x 1\nw 2", "w 1\nx 2"] {
        // What stays has not moved, and comes into force all the same.
        bench.write("a.yaml", text);
        assert!(bench.files.look(bench.at(), true).unwrap().changed);
        let edits = bench.files.edits().unwrap();
        let told = edits
            .iter()
            .any(|(it, sight)| *it == object("w") && matches!(sight, Sight::Document(_)));
        assert!(told, "{edits:?}");
        bench.write("a.yaml", "w 1\nw 2");
        assert!(bench.files.look(bench.at(), true).unwrap().changed);
        assert!(bench.files.edits().is_none(), "neither applies: that takes a look at all");
    }
}

#[test]
fn an_unreadable_file_keeps_its_objects_and_says_since_when() {
    let mut bench = Bench::new(&[("a.yaml", "w 1"), ("b.yaml", "x 1")]);
    bench.write("a.yaml", "!");
    assert!(bench.look(100, true).changed);
    assert_eq!(bench.in_force(), "w=1 x=1");
    let since = bench.at();
    bench.write("a.yaml", "");
    bench.look(5_000, true);
    let kept = bench.files.kept();
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[&object("w")].since, since, "it only got worse");
    assert_eq!(bench.files.findings().len(), 2);
    bench.write("a.yaml", "w 1");
    assert!(bench.look(100, true).changed);
    assert!(bench.files.kept().is_empty() && bench.files.findings().is_empty());
    // Deleted while unreadable: gone.
    bench.write("a.yaml", "!");
    bench.look(100, true);
    fs::remove_file(bench.path("a.yaml")).unwrap();
    bench.look(100, true);
    bench.look(100, true);
    assert_eq!(bench.in_force(), "x=1");
}

#[test]
fn after_a_restart_an_unreadable_file_is_kept_from_memory_and_no_younger() {
    let bench = Bench::new(&[("a.yaml", "!"), ("b.yaml", "x 1")]);
    let in_force = [("w", "a.yaml"), ("x", "b.yaml"), ("y", "c.yaml")];
    let in_force = in_force.map(|(name, file)| (object(name), Arc::from(file)));
    let since = bench.at();
    let mut again = Bench { time: 60_000, ..bench };
    again.files = Files::new(
        again.root.path(),
        in_force.into_iter().collect(),
        [(Arc::from("a.yaml"), since)].into_iter().collect(),
    );
    again.files.reader = reader;
    assert!(again.look(0, true).again, "y went while nobody looked");
    assert_eq!(again.in_force(), "[a.yaml] x=1 y?");
    assert_eq!(again.files.kept()[&object("w")].since, since);
    again.look(100, true);
    assert_eq!(again.in_force(), "[a.yaml] x=1");
}

#[test]
fn what_cannot_be_listed_keeps_everything_and_is_not_complete() {
    let mut bench = Bench::new(&[("a.yaml", "w 1"), ("d/b.yaml", "x 1")]);
    let deep = "e/".repeat(scan::MAX_DEPTH + 1);
    bench.write(&format!("{deep}f.yaml"), "y 1");
    let look = bench.look(100, true);
    assert!(!look.complete && look.changed);
    assert_eq!(bench.files.findings().len(), 1);
    fs::remove_dir_all(bench.path("e")).unwrap();
    assert!(bench.look(100, true).complete);
    fs::remove_dir_all(bench.root.path()).unwrap();
    bench.files.look(bench.at(), true).unwrap_err();
    assert_eq!(bench.in_force(), "w=1 x=1");
    fs::create_dir_all(bench.root.path()).unwrap();
}

#[test]
fn an_emptied_directory_is_believed_the_second_time() {
    let mut bench = Bench::new(&[("a.yaml", "w 1"), ("d/b.yaml", "x 1")]);
    fs::remove_file(bench.path("a.yaml")).unwrap();
    fs::remove_dir_all(bench.path("d")).unwrap();
    bench.look(100, true);
    assert_eq!(bench.in_force(), "w? x?");
    bench.look(100, true);
    assert_eq!(bench.in_force(), "");
}
