//! The files of the trail and their order: `audit-<first seq>.jsonl`, oldest first, then
//! `audit.jsonl`, which is written to.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use super::line::LONGEST_LINE;

pub fn current(audit: &Path) -> PathBuf {
    audit.join("audit.jsonl")
}

/// A closed file's name. `copy` tells files apart that would have one name after a break.
pub fn closed(audit: &Path, first: u64, copy: u32) -> PathBuf {
    match copy {
        0 => audit.join(format!("audit-{first:020}.jsonl")),
        _ => audit.join(format!("audit-{first:020}.{copy}.jsonl")),
    }
}

/// A closed file.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Closed {
    pub first: u64,
    pub copy: u32,
    pub path: PathBuf,
}

/// The closed files, oldest first. Files of other names are none of ours.
pub fn list(audit: &Path) -> io::Result<Vec<Closed>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(audit)? {
        let entry = entry?;
        if let Some((first, copy)) = entry.file_name().to_str().and_then(parse) {
            files.push(Closed { first, copy, path: entry.path() });
        }
    }
    files.sort();
    Ok(files)
}

fn parse(name: &str) -> Option<(u64, u32)> {
    let middle = name.strip_prefix("audit-")?.strip_suffix(".jsonl")?;
    let (first, copy) = middle.split_once('.').unwrap_or((middle, "0"));
    Some((first.parse().ok()?, copy.parse().ok()?))
}

/// What reading one line gave.
pub enum Piece {
    Line,
    /// More bytes than any line has before a newline.
    TooLong,
    /// Bytes without a newline at the end of the file.
    Unfinished,
    End,
}

/// Reads a file line by line in bounded memory.
pub struct Lines {
    reader: BufReader<File>,
    /// The line last read, without its newline.
    pub line: Vec<u8>,
    /// Where the next line begins.
    pub offset: u64,
    /// Lines read, so the number of the last one, from 1.
    pub number: u64,
}

impl Lines {
    pub fn open(path: &Path) -> io::Result<Self> {
        let reader = BufReader::with_capacity(64 << 10, File::open(path)?);
        Ok(Self { reader, line: Vec::new(), offset: 0, number: 0 })
    }

    pub fn next(&mut self) -> io::Result<Piece> {
        self.line.clear();
        let most = LONGEST_LINE as u64 + 1;
        let read = (&mut self.reader).take(most).read_until(b'\n', &mut self.line)?;
        if read == 0 {
            return Ok(Piece::End);
        }
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
            self.offset += read as u64;
            self.number += 1;
            return Ok(Piece::Line);
        }
        Ok(if read as u64 == most { Piece::TooLong } else { Piece::Unfinished })
    }
}

impl Lines {
    /// The bytes from the last line's end to the file's, if there is no newline among them: what a
    /// power cut left of a batch, such as zeros.
    pub fn endless(&mut self) -> io::Result<Option<u64>> {
        let mut bytes = self.line.len() as u64;
        loop {
            let buffer = self.reader.fill_buf()?;
            if buffer.is_empty() {
                return Ok(Some(bytes));
            }
            if buffer.contains(&b'\n') {
                return Ok(None);
            }
            let read = buffer.len();
            bytes += read as u64;
            self.reader.consume(read);
        }
    }
}

/// The last whole line of a file; `None` where there is none of a permitted length.
pub fn last_line(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let from = length.saturating_sub(2 * (LONGEST_LINE as u64 + 1));
    file.seek(SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    file.take(length - from).read_to_end(&mut tail)?;
    let Some(end) = tail.iter().rposition(|b| *b == b'\n') else { return Ok(None) };
    tail.truncate(end);
    let start = tail.iter().rposition(|b| *b == b'\n').map(|at| at + 1);
    let start = if from == 0 { Some(start.unwrap_or(0)) } else { start };
    Ok(start.map(|start| tail.split_off(start)))
}
