//! Walks the chain and names the first line that does not fit.

use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::files::{self, Lines, Piece};
use super::head::{self, Pinned};
use super::line::{Header, LONGEST_LINE, ORIGIN, Tip};
use crate::state::sha256_hex;

/// What a whole trail says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Summary {
    pub files: usize,
    pub lines: u64,
    /// `seq` and time of the first and the last line.
    pub first: Option<(u64, Timestamp)>,
    pub last: Option<(u64, Timestamp)>,
    /// Repair lines.
    pub repairs: u64,
    /// Bytes of a last line that is being written, or was torn by a crash and awaits the next start.
    pub unfinished: u64,
}

/// Where the chain breaks first.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}:{line}: {why}", file.display())]
pub struct Broken {
    pub file: PathBuf,
    /// 1-based.
    pub line: u64,
    /// One sentence without the place.
    pub why: String,
}

/// Walks the whole chain in `STATE/audit`, in bounded memory. Needs no lock: a running relay goes on.
///
/// What it proves: every line from the first to the pinned end is there, in order, and as it was
/// written, or someone with write access to the directory has made the whole rest of the chain and
/// the pin anew. Lines taken from the end are noticed as far as the pin reaches (see `head.rs`).
pub fn verify(audit: &Path) -> Result<Summary, Broken> {
    settled(audit, None)
}

/// As [`verify`], from the closed file `audit-<first>.jsonl` on, for a trail whose older files were
/// moved elsewhere; what its first line says of the line before is taken on trust.
pub fn verify_from(audit: &Path, first: u64) -> Result<Summary, Broken> {
    settled(audit, Some(first))
}

/// A running relay may rotate or take back an unfinished batch while it is read: what is broken
/// stays broken at a second look.
fn settled(audit: &Path, from: Option<u64>) -> Result<Summary, Broken> {
    let mut before = None;
    for _ in 0..8 {
        match look(audit, from) {
            Ok(summary) => return Ok(summary),
            Err(broken) if before.as_ref() == Some(&broken) => return Err(broken),
            Err(broken) => before = Some(broken),
        }
    }
    before.map_or_else(|| look(audit, from), Err)
}

fn unreadable(file: &Path) -> impl Fn(io::Error) -> Broken {
    move |error| Broken { file: file.to_owned(), line: 1, why: format!("cannot be read: {error}") }
}

fn look(audit: &Path, from: Option<u64>) -> Result<Summary, Broken> {
    // The pin first: it is never ahead of the lines.
    let pinned = head::read(audit).map_err(unreadable(&head::path(audit)))?;
    let mut paths: Vec<PathBuf> = files::list(audit)
        .map_err(unreadable(audit))?
        .into_iter()
        .filter(|file| from.is_none_or(|from| file.first >= from))
        .map(|file| file.path)
        .collect();
    let current = files::current(audit);
    if current.try_exists().map_err(unreadable(&current))? {
        paths.push(current.clone());
    }
    let start = match from {
        None => Some(Tip::origin()),
        Some(_) => None,
    };
    let mut walk = Walk::new(
        start,
        match &pinned {
            Pinned::At(tip) => Some(tip.clone()),
            Pinned::Missing | Pinned::Unreadable => None,
        },
    );
    if let Some(from) = from {
        walk.expect_first(from);
    }
    let last = paths.len().saturating_sub(1);
    for (index, path) in paths.iter().enumerate() {
        walk.file(path, index == last)?;
    }
    let summary = walk.finish(&current)?;
    let lost = match pinned {
        Pinned::Missing if summary.lines > 0 => "is missing, which pins the end of the trail",
        Pinned::Unreadable => "is unreadable, which pins the end of the trail",
        _ => return Ok(summary),
    };
    Err(Broken { file: head::path(audit), line: 1, why: lost.to_owned() })
}

#[derive(Clone)]
struct Place {
    file: PathBuf,
    line: u64,
}

impl Place {
    fn broken(&self, why: String) -> Broken {
        Broken { file: self.file.clone(), line: self.line, why }
    }
}

/// A line whose `prev` does not fit: which of the two was edited, the next line tells.
struct Suspect {
    place: Place,
    before: Option<Place>,
    tip: Tip,
}

impl Suspect {
    /// `intact`: something later vouches for the line itself.
    fn judge(&self, intact: bool) -> Broken {
        match &self.before {
            Some(before) if intact => before.broken(format!(
                "the line was edited: the next one (seq {}) has another hash of it in prev",
                self.tip.seq
            )),
            _ => self.place.broken(
                "the line was edited, or the one before it: prev is not the hash of that one"
                    .to_owned(),
            ),
        }
    }
}

/// A walk along the chain.
pub struct Walk {
    /// The line before; `None`: whatever comes first is right.
    tip: Option<Tip>,
    place: Option<Place>,
    suspect: Option<Suspect>,
    pinned: Option<Tip>,
    summary: Summary,
    /// Where the last whole line of the last file ends.
    pub good: u64,
}

impl Walk {
    pub fn new(start: Option<Tip>, pinned: Option<Tip>) -> Self {
        let summary = Summary::default();
        Self { tip: start, place: None, suspect: None, pinned, summary, good: 0 }
    }

    /// The first line's `seq`, where its `prev` is taken on trust.
    fn expect_first(&mut self, seq: u64) {
        if seq <= 1 {
            self.tip = Some(Tip::origin());
        } else {
            self.tip = Some(Tip { seq: seq - 1, hash: String::new() });
        }
    }

    /// The line before the next: the end, when all is walked.
    pub fn tip(&self) -> Option<&Tip> {
        self.tip.as_ref()
    }

    /// Bytes after the last whole line.
    pub fn unfinished(&self) -> u64 {
        self.summary.unfinished
    }

    pub fn file(&mut self, path: &Path, is_last: bool) -> Result<(), Broken> {
        let mut lines = Lines::open(path).map_err(unreadable(path))?;
        self.summary.files += 1;
        loop {
            let piece = lines.next().map_err(unreadable(path))?;
            let place = Place { file: path.to_owned(), line: lines.number };
            match piece {
                Piece::End => break,
                Piece::Line => self.line(place, &lines.line)?,
                Piece::Unfinished if is_last => {
                    self.summary.unfinished = lines.line.len() as u64;
                    break;
                }
                Piece::Unfinished => {
                    return Err(self.accuse().unwrap_or_else(|| {
                        Place { line: place.line + 1, ..place }
                            .broken("the file ends in the middle of a line".to_owned())
                    }));
                }
                Piece::TooLong => {
                    if is_last && let Some(bytes) = lines.endless().map_err(unreadable(path))? {
                        self.summary.unfinished = bytes;
                        break;
                    }
                    let why = format!("the line has more than {LONGEST_LINE} bytes");
                    return Err(self
                        .accuse()
                        .unwrap_or_else(|| Place { line: place.line + 1, ..place }.broken(why)));
                }
            }
            self.good = lines.offset;
        }
        Ok(())
    }

    /// What is known to be broken before the place that was reached.
    fn accuse(&mut self) -> Option<Broken> {
        self.suspect.take().map(|suspect| suspect.judge(false))
    }

    fn line(&mut self, place: Place, bytes: &[u8]) -> Result<(), Broken> {
        let header = match Header::parse(bytes) {
            Ok(header) => header,
            Err(error) => {
                return Err(self.accuse().unwrap_or_else(|| {
                    place.broken(format!("this is no line of an audit log ({error})"))
                }));
            }
        };
        let hash = sha256_hex(bytes);
        if let Some(suspect) = self.suspect.take() {
            let intact = header.seq == suspect.tip.seq + 1 && header.prev == suspect.tip.hash;
            return Err(suspect.judge(intact));
        }
        let this = Tip { seq: header.seq, hash };
        let expected = self.tip.clone().unwrap_or_else(|| Tip {
            seq: header.seq.saturating_sub(1),
            hash: header.prev.clone(),
        });
        let next = expected.seq.saturating_add(1);
        if header.seq != next {
            let why = if header.seq > next {
                format!(
                    "the line has seq {} where {next} comes next: lines are missing before it, or it was moved or edited",
                    header.seq
                )
            } else {
                format!(
                    "the line has seq {} where {next} comes next: it was repeated, moved or edited",
                    header.seq
                )
            };
            return Err(place.broken(why));
        }
        if header.prev != expected.hash && !expected.hash.is_empty() {
            let before = self.place.clone();
            self.suspect = Some(Suspect { place: place.clone(), before, tip: this.clone() });
        } else if let Some(pin) = &self.pinned
            && pin.seq == this.seq
            && pin.hash != this.hash
        {
            return Err(place.broken(
                "the line was edited, or the chain before it made anew: the head has another hash of it"
                    .to_owned(),
            ));
        }
        self.count(&header);
        self.tip = Some(this);
        self.place = Some(place);
        Ok(())
    }

    fn count(&mut self, header: &Header) {
        self.summary.lines += 1;
        self.summary.repairs += u64::from(header.is_repair());
        let here = (header.seq, header.time);
        self.summary.first.get_or_insert(here);
        self.summary.last = Some(here);
    }

    /// All is walked; `file` is blamed where there was none.
    pub fn finish(mut self, file: &Path) -> Result<Summary, Broken> {
        let pinned = self.pinned.take();
        if let Some(suspect) = self.suspect.take() {
            return Err(suspect.judge(pinned.is_some_and(|pin| pin == suspect.tip)));
        }
        let end = self.tip.map_or(0, |tip| tip.seq);
        if let Some(pin) = pinned.filter(|pin| pin.seq > end) {
            let place = self.place.unwrap_or(Place { file: file.to_owned(), line: 1 });
            let (from, to) = (end + 1, pin.seq);
            return Err(place.broken(format!(
                "the trail ends with seq {end} but the head has {to}: lines {from} to {to} were taken from its end"
            )));
        }
        Ok(self.summary)
    }
}

const _: () = assert!(ORIGIN.len() == 64);
