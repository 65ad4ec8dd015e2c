//! The trail on disk: appending in groups, and what a crash, a full disk or a tamperer left.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::event::{Event, Reason, What};
use super::files;
use super::head::{self, Head, Pinned};
use super::line::{BROKEN_CHAIN, Header, Tip};
use super::verify::Walk;
use crate::failpoint::{self, Point, reach};
use crate::state::{self, sha256_hex};

/// Room that the trail has of its own beyond its last line, for admissions under way: a claim that
/// is never given back comes before its line.
const RESERVE: u64 = 16 << 10;

/// How a line that admits is told from others, for the crash tests.
const ALLOW: &[u8] = br#""event":"Allow""#;

/// The trail, open for appending by one thread of one process.
#[derive(Debug)]
pub struct Log {
    audit: PathBuf,
    rotate_at: u64,
    file: Option<File>,
    /// Where the last durable line of the current file ends.
    length: u64,
    /// Whether the file may have bytes beyond `length`.
    ragged: bool,
    /// Up to where the current file has its room; `u64::MAX` where that cannot be had.
    reserved: u64,
    /// `seq` of the current file's first line.
    first: u64,
    tip: Tip,
    head: Head,
    /// Lines that come before any other: what was found at the start.
    pending: Vec<Event>,
    /// A failed rotation is told once.
    rotation_failed: bool,
    #[cfg(test)]
    pub fail_sync: bool,
}

/// What a batch became.
pub struct Appended {
    /// `seq` of the first event that was asked for; the others follow.
    pub first: u64,
    /// The lines as written, pending ones among them.
    pub text: Vec<u8>,
}

impl Log {
    /// Looks at what is there. Nothing is lost silently: what does not fit becomes a Repair, which is
    /// written before anything else.
    pub fn open(audit: &Path, rotate_at: u64, now: Timestamp) -> io::Result<Self> {
        let found = examine(audit)?;
        let mut log = Self {
            audit: audit.to_owned(),
            rotate_at,
            file: None,
            length: found.length,
            ragged: found.torn.is_some(),
            reserved: 0,
            first: found.first,
            tip: found.tip,
            head: Head::new(audit),
            pending: Vec::new(),
            rotation_failed: false,
            #[cfg(test)]
            fail_sync: false,
        };
        if !found.breaks.is_empty() {
            let broken = found.breaks.join("; ");
            tracing::error!(audit = %audit.display(), broken, "the audit log's chain is broken");
            log.set_aside()?;
            log.pending.push(repair(now, BROKEN_CHAIN, broken));
        } else if let Some(torn) = found.torn {
            tracing::warn!(bytes = torn.bytes, "the audit log's last line was torn and is dropped");
            log.pending.push(Event {
                dropped_bytes: Some(torn.bytes),
                dropped_sha256: Some(torn.sha256),
                ..repair(
                    now,
                    "TornLine",
                    "the last line was torn by a crash and dropped".to_owned(),
                )
            });
        }
        if found.is_new {
            // Before the first line, so that lines without a pin are always worth a word.
            log.head.pin(&log.tip);
            log.head.sync();
        }
        if let Some(lost) = found.head_lost {
            tracing::error!(lost, "the audit log's head is lost");
            log.pending.push(repair(now, "HeadLost", lost.to_owned()));
        }
        Ok(log)
    }

    /// Whether something is to be written even if nobody asks.
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    pub fn head(&mut self) -> &mut Head {
        &mut self.head
    }

    /// Appends `events` and returns when they are durable. On an error none of them is in the trail,
    /// and the next try starts afresh.
    pub fn append(&mut self, events: &[&Event]) -> io::Result<Appended> {
        self.rotate();
        let mut tip = self.tip.clone();
        let mut text = Vec::new();
        for event in &self.pending {
            tip.append(&mut text, event)?;
        }
        let first = tip.seq + 1;
        for event in events {
            tip.append(&mut text, event)?;
        }
        if let Err(error) = self.write(&text) {
            self.undo();
            return Err(error);
        }
        self.length += text.len() as u64;
        self.tip = tip;
        self.pending.clear();
        self.head.pin(&self.tip);
        Ok(Appended { first, text })
    }

    /// Sees to the room beyond the last line; an error where the disk has none left, though lines may
    /// still fit into what there is.
    pub fn reserve(&mut self) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        if self.length.saturating_add(RESERVE) <= self.reserved {
            return Ok(());
        }
        match fallocate(file, FallocateFlags::KEEP_SIZE, self.length, 2 * RESERVE) {
            Ok(()) => self.reserved = self.length.saturating_add(2 * RESERVE),
            Err(error @ (Errno::NOSPC | Errno::DQUOT)) => return Err(error.into()),
            // Not every file system can; the next write tells of any other trouble.
            Err(_) => self.reserved = u64::MAX,
        }
        Ok(())
    }

    /// The bytes go where the last durable line ends, over whatever a failed try or a crash left
    /// there: at no instant is such a rest gone before the line that tells of it stands in its place.
    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        let file = self.ready()?;
        file.write_all_at(text, self.length)?;
        let end = self.length + text.len() as u64;
        if self.ragged && file.metadata()?.len() > end {
            file.set_len(end)?;
            self.reserved = 0;
        }
        if failpoint::ENABLED && text.windows(ALLOW.len()).any(|part| part == ALLOW) {
            reach(Point::RecordWritten);
        }
        #[cfg(test)]
        if self.fail_sync {
            self.file = Some(file);
            return Err(io::Error::other("injected"));
        }
        file.sync_data()?;
        self.file = Some(file);
        self.ragged = false;
        Ok(())
    }

    /// Takes a failed batch away again. Where that fails too, the next write does it.
    fn undo(&mut self) {
        self.ragged = true;
        self.reserved = 0;
        // After a failed sync the kernel may call lost pages clean: a new descriptor and a new write
        // of the same bytes are needed, never a second sync.
        self.file = None;
        let path = files::current(&self.audit);
        let cut = OpenOptions::new().write(true).open(&path).and_then(|file| {
            if file.metadata()?.len() > self.length && !self.has_pending() {
                file.set_len(self.length)?;
                file.sync_data()?;
            }
            Ok(())
        });
        if let Err(error) = cut {
            tracing::warn!(%error, "cannot take an unfinished line off the audit log yet");
        }
    }

    /// The current file, which must still be the one that it was.
    fn ready(&mut self) -> io::Result<File> {
        let path = files::current(&self.audit);
        if let Some(file) = self.file.take() {
            let ours = file.metadata()?;
            let there = fs::metadata(&path);
            if there.is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
                return Ok(file);
            }
            if self.length > 0 {
                return Err(moved());
            }
        }
        let file = OpenOptions::new()
            .write(true)
            .create(self.length == 0)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| if self.length > 0 { moved() } else { error })?;
        if file.metadata()?.len() < self.length {
            return Err(moved());
        }
        self.ragged = true;
        if self.length == 0 {
            state::sync_dir(&self.audit)?;
        }
        Ok(file)
    }

    /// Begins a new file where the current one is full. Where that fails the current one goes on.
    fn rotate(&mut self) {
        if self.length < self.rotate_at || self.length == 0 || self.ragged {
            return;
        }
        self.head.sync();
        match self.set_aside() {
            Ok(()) => self.rotation_failed = false,
            Err(error) if self.rotation_failed => tracing::debug!(%error, "rotating the audit log"),
            Err(error) => {
                tracing::warn!(%error, "cannot rotate the audit log; the present file goes on");
                self.rotation_failed = true;
            }
        }
    }

    /// Gives the current file its closed name; the next write makes a new one.
    fn set_aside(&mut self) -> io::Result<()> {
        let current = files::current(&self.audit);
        if fs::metadata(&current).is_ok_and(|meta| meta.len() > 0) {
            let taken = |copy: &u32| files::closed(&self.audit, self.first, *copy).exists();
            let copy = (0..u32::MAX).find(|copy| !taken(copy)).unwrap_or(u32::MAX);
            fs::rename(&current, files::closed(&self.audit, self.first, copy))?;
        }
        self.file = None;
        self.length = 0;
        self.reserved = 0;
        self.ragged = false;
        self.first = self.tip.seq + 1;
        state::sync_dir(&self.audit)
    }
}

fn moved() -> io::Error {
    io::Error::other(
        "audit.jsonl was moved, removed or shortened while the relay ran; restart the relay to begin a new file",
    )
}

fn repair(now: Timestamp, code: &str, sentence: String) -> Event {
    let reason = Reason { code: code.to_owned(), sentence };
    Event { reason: Some(reason), ..Event::new(What::Repair, now) }
}

struct Torn {
    bytes: u64,
    sha256: String,
}

/// What an earlier process left.
struct Found {
    /// The line after which to go on.
    tip: Tip,
    /// Of the current file.
    first: u64,
    length: u64,
    torn: Option<Torn>,
    /// Where the chain does not hold.
    breaks: Vec<String>,
    head_lost: Option<&'static str>,
    /// Neither lines nor closed files nor a pin.
    is_new: bool,
}

/// Walks the newest file that has lines, checks its link to the one before, and compares the pin.
/// Older files are `verify`'s business.
fn examine(audit: &Path) -> io::Result<Found> {
    let pinned = head::read(audit)?;
    let pinned_is_missing = pinned == Pinned::Missing;
    let has_bytes = |path: &Path| fs::metadata(path).is_ok_and(|meta| meta.len() > 0);
    // A file without a byte is passed over, as `verify` does: where it had lines, the next file, the pin
    // or the head's loss tells of them.
    let mut closed = files::list(audit)?;
    let had_closed = !closed.is_empty();
    closed.retain(|file| has_bytes(&file.path));
    let current = files::current(audit);
    let has_current = has_bytes(&current);
    let newest = if has_current { None } else { closed.last() };
    let older = if has_current { closed.last() } else { closed.iter().rev().nth(1) };

    let mut breaks = Vec::new();
    let path = newest.map_or(current.as_path(), |file| file.path.as_path());
    let before = match older {
        Some(file) => files::last_line(&file.path)?.and_then(|line| tip_of(&line)),
        None => Some(Tip::origin()),
    };
    let has_newest = has_current || newest.is_some();
    let after_break = has_newest && first_header(path)?.is_some_and(|h| h.follows_a_break());
    let pin = match &pinned {
        Pinned::At(tip) => Some(tip.clone()),
        Pinned::Missing | Pinned::Unreadable => None,
    };
    let start = if after_break { None } else { before.clone() };
    if before.is_none() && !after_break {
        breaks.push("the file before the newest one has no last line that can be read".to_owned());
    }
    let mut walk = Walk::new(start, pin.clone());
    let mut torn = None;
    if has_newest {
        match walk.file(path, true) {
            Ok(()) if walk.unfinished() > 0 && has_current => torn = Some(rest(path, walk.good)?),
            Ok(()) if walk.unfinished() > 0 => {
                breaks.push(format!("{} ends in the middle of a line", path.display()));
            }
            Ok(()) => {}
            Err(broken) => breaks.push(broken.to_string()),
        }
    }
    let length = if has_current { walk.good } else { 0 };
    let walked = walk.tip().cloned();
    if let Err(broken) = walk.finish(path)
        && breaks.is_empty()
    {
        breaks.push(broken.to_string());
    }
    // After a break the chain goes on from what is the surest: the pin, unless lines came after it.
    let mut tip = match (breaks.is_empty(), has_newest) {
        (true, _) => walked.unwrap_or_else(Tip::origin),
        (false, true) => files::last_line(path)?
            .and_then(|line| tip_of(&line))
            .or(walked)
            .unwrap_or_else(Tip::origin),
        (false, false) => before.unwrap_or_else(Tip::origin),
    };
    if !breaks.is_empty()
        && let Some(pin) = pin.filter(|pin| pin.seq >= tip.seq)
    {
        tip = pin;
    }
    let first =
        if has_current { first_header(path)?.map_or(tip.seq + 1, |h| h.seq) } else { tip.seq + 1 };
    let head_lost = match pinned {
        Pinned::Missing if has_current || had_closed => {
            Some("the head was missing: lines may have been taken from the end of the log")
        }
        Pinned::Unreadable => {
            Some("the head was unreadable: lines may have been taken from the end of the log")
        }
        _ => None,
    };
    let is_new = !has_current && !had_closed && pinned_is_missing;
    Ok(Found { tip, first, length, torn, breaks, head_lost, is_new })
}

fn tip_of(line: &[u8]) -> Option<Tip> {
    let header = Header::parse(line).ok()?;
    Some(Tip { seq: header.seq, hash: sha256_hex(line) })
}

fn first_header(path: &Path) -> io::Result<Option<Header>> {
    let mut lines = files::Lines::open(path)?;
    match lines.next()? {
        files::Piece::Line => Ok(Header::parse(&lines.line).ok()),
        _ => Ok(None),
    }
}

/// What lies after the last whole line.
fn rest(path: &Path, from: u64) -> io::Result<Torn> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut hash = Sha256::new();
    let mut bytes = 0;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hash.update(buffer.get(..read).unwrap_or_default());
        bytes += read as u64;
    }
    Ok(Torn { bytes, sha256: state::hex(&hash.finalize()) })
}

#[cfg(test)]
mod tests {
    use super::super::verify;
    use super::*;

    fn event() -> Event {
        Event::new(What::Deny, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_failed_sync_takes_its_lines_back() {
        let dir = tempfile::tempdir().unwrap();
        let audit = dir.path();
        let mut log = Log::open(audit, 1 << 20, Timestamp::UNIX_EPOCH).unwrap();
        log.append(&[&event()]).unwrap();
        log.fail_sync = true;
        for _ in 0..3 {
            assert!(log.append(&[&event(), &event()]).is_err());
            assert_eq!(verify(audit).unwrap().lines, 1);
        }
        log.fail_sync = false;
        assert_eq!(log.append(&[&event()]).unwrap().first, 2);
        assert_eq!(verify(audit).unwrap().lines, 2);
    }

    #[test]
    fn a_torn_line_stays_until_its_repair_stands_in_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let audit = dir.path();
        let mut log = Log::open(audit, 1 << 20, Timestamp::UNIX_EPOCH).unwrap();
        log.append(&[&event()]).unwrap();
        drop(log);
        let path = files::current(audit);
        let mut torn = fs::read(&path).unwrap();
        torn.extend_from_slice(&[b'x'; 5000]);
        fs::write(&path, &torn).unwrap();
        let mut log = Log::open(audit, 1 << 20, Timestamp::UNIX_EPOCH).unwrap();
        assert!(log.has_pending());
        log.fail_sync = true;
        assert!(log.append(&[]).is_err());
        drop(log);
        // Whether the first try got through or not, the next start tells of what is left.
        let mut log = Log::open(audit, 1 << 20, Timestamp::UNIX_EPOCH).unwrap();
        log.append(&[&event()]).unwrap();
        let summary = verify(audit).unwrap();
        assert_eq!((summary.repairs, summary.unfinished), (1, 0));
    }

    /// Whether each of three starts had something to repair, where `number` of the closed files, counted
    /// from 1, was emptied and the pin is gone.
    fn emptied(number: usize, lose_current: bool) -> [bool; 3] {
        let dir = tempfile::tempdir().unwrap();
        let audit = dir.path();
        let mut log = Log::open(audit, 1, Timestamp::UNIX_EPOCH).unwrap();
        for _ in 0..4 {
            log.append(&[&event()]).unwrap();
        }
        drop(log);
        let closed = files::list(audit).unwrap();
        assert_eq!(closed.len(), 3);
        fs::write(&closed[number - 1].path, "").unwrap();
        fs::remove_file(head::path(audit)).unwrap();
        if lose_current {
            fs::remove_file(files::current(audit)).unwrap();
        }
        repairs(audit)
    }

    /// Whether each of three starts that append a line had something to repair.
    fn repairs(audit: &Path) -> [bool; 3] {
        [(); 3].map(|()| {
            let mut log = Log::open(audit, 1 << 20, Timestamp::UNIX_EPOCH).unwrap();
            let repairs = log.has_pending();
            log.append(&[&event()]).unwrap();
            repairs
        })
    }

    #[test]
    fn an_emptied_file_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(files::closed(dir.path(), 1, 0), "").unwrap();
        assert_eq!(repairs(dir.path()), [true, false, false]);
        for number in 1..=3 {
            for lose_current in [false, true] {
                let told = emptied(number, lose_current);
                assert_eq!(told, [true, false, false], "{number}, {lose_current}");
            }
        }
    }

    #[test]
    fn a_break_is_told_once_also_when_only_closed_files_are_left() {
        let dir = tempfile::tempdir().unwrap();
        let audit = dir.path();
        let mut log = Log::open(audit, 1, Timestamp::UNIX_EPOCH).unwrap();
        for _ in 0..3 {
            log.append(&[&event()]).unwrap();
        }
        drop(log);
        fs::remove_file(files::current(audit)).unwrap();
        for round in 0..3 {
            let mut log = Log::open(audit, 1 << 20, Timestamp::UNIX_EPOCH).unwrap();
            assert_eq!(log.has_pending(), round == 0);
            log.append(&[]).unwrap();
            let broken = verify(audit).unwrap_err();
            assert_eq!(broken.file, files::current(audit));
            assert!(broken.why.contains("seq 4 where 3"), "{broken}");
        }
    }
}
