//! The sessions that the trail admits and never ends: those of a process that died.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use super::event::{Event, What};
use super::files::{self, Lines, Piece};

/// The Allow lines of sessions that no End followed, oldest first.
///
/// Looks no further back than to the newest Start: a process ends what the one before it left open
/// before it writes its own Start. To be asked before the trail is written to again.
pub fn left_open(audit: &Path) -> io::Result<Vec<Event>> {
    let mut open: HashMap<String, (u64, Event)> = HashMap::new();
    let mut count = 0;
    for path in since_start(audit)? {
        each(&path, |event| match (event.event, event.session.clone()) {
            (What::Start, _) => open.clear(),
            (What::Allow, Some(session)) => {
                count += 1;
                open.insert(session, (count, event));
            }
            (What::End, Some(session)) => drop(open.remove(&session)),
            _ => {}
        })?;
    }
    let mut open: Vec<_> = open.into_values().collect();
    open.sort_by_key(|(number, _)| *number);
    Ok(open.into_iter().map(|(_, event)| event).collect())
}

/// The files from the one with the newest Start on, oldest first.
fn since_start(audit: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths: Vec<_> = files::list(audit)?.into_iter().map(|closed| closed.path).collect();
    let current = files::current(audit);
    if current.exists() {
        paths.push(current);
    }
    let mut from = paths.len();
    for path in paths.iter().rev() {
        from -= 1;
        let mut started = false;
        each(path, |event| started |= event.event == What::Start)?;
        if started {
            break;
        }
    }
    Ok(paths.split_off(from))
}

/// Hands on the events of a file that tell of sessions or starts; what is no such line is `verify`'s.
fn each(path: &Path, mut tell: impl FnMut(Event)) -> io::Result<()> {
    const WANTED: [&[u8]; 3] = [br#""event":"Start""#, br#""event":"Allow""#, br#""event":"End""#];
    let mut lines = Lines::open(path)?;
    while matches!(lines.next()?, Piece::Line) {
        let wanted = |word: &[u8]| lines.line.windows(word.len()).any(|part| part == word);
        if WANTED.into_iter().any(wanted)
            && let Ok(event) = serde_json::from_slice::<Event>(&lines.line)
        {
            tell(event);
        }
    }
    Ok(())
}
