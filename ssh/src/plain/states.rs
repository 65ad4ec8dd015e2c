//! The tables of STATES.md are held to the code: they name functions that are there and cite what they
//! follow, each number is in them for each state, and rows that always hold are tried.

use std::collections::BTreeSet;
use std::path::Path;

use super::Peer;
use crate::cipher::Opener;
use crate::message::number;
use crate::{Config, Inbound, Next, RekeyLimits};

const TABLE: &str = include_str!("../../STATES.md");
const STATES: [&str; 5] = ["Keys", "Later", "Service", "Auth", "Connection"];
/// Headers of the tables of what comes in, and of what goes out.
const IN: &str = "| number | message | state | when | what follows | function | specification |";
const OUT: &str = "| number | message | when | function | specification |";

/// The rows of all tables with this header.
fn rows(header: &str) -> Vec<Vec<&'static str>> {
    let tables = TABLE.split(header).skip(1);
    let lines =
        tables.flat_map(|table| table.lines().skip(2).take_while(|line| line.starts_with('|')));
    let columns = header.matches('|').count() - 1;
    lines
        .map(|line| {
            let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
            assert_eq!(cells.len(), columns, "{line}");
            cells
        })
        .collect()
}

/// `0, 5 to 19` as numbers.
fn numbers(cell: &str) -> Vec<u8> {
    let parse = |text: &str| text.parse::<u8>().unwrap_or_else(|_| panic!("{cell}"));
    let part = |part: &str| match part.split_once(" to ") {
        Some((first, last)) => parse(first)..=parse(last),
        None => parse(part)..=parse(part),
    };
    cell.split(", ").flat_map(part).collect()
}

/// The functions that a text names, each with its file.
fn functions(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split('`').skip(1).step_by(2).filter_map(|name| name.split_once("::"))
}

fn source(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(file);
    std::fs::read_to_string(path).expect(file)
}

/// Where a function is, and the comment above it.
fn comment<'t>(text: &'t str, function: &str) -> Option<&'t str> {
    let at = ["(", "<"].iter().find_map(|end| text.find(&format!("fn {function}{end}")))?;
    let before = text.get(..at)?;
    let begin = before.rfind("}\n").or_else(|| before.rfind("{\n")).map_or(0, |at| at + 2);
    before.get(begin..)
}

fn cites(text: &str) -> bool {
    ["RFC", "PROTOCOL", "draft-"].iter().any(|name| text.contains(name))
}

#[test]
fn every_function_of_the_tables_is_where_they_say() {
    let mut named = BTreeSet::new();
    for (file, function) in functions(TABLE) {
        assert!(comment(&source(file), function).is_some(), "{file} has no function {function}");
        named.insert((file, function));
    }
    assert!(named.len() > 70, "{}", named.len());
}

#[test]
fn every_row_cites_what_it_follows_and_so_does_the_code() {
    let (coming, going) = (rows(IN), rows(OUT));
    assert!(coming.len() > 90 && going.len() > 20, "{} {}", coming.len(), going.len());
    let mut silent = BTreeSet::new();
    for row in coming.iter().chain(&going) {
        let (specification, named) = (row[row.len() - 1], row[row.len() - 2]);
        assert!(cites(specification), "{row:?}");
        for (file, function) in functions(named) {
            let text = source(file);
            if !cites(comment(&text, function).unwrap_or_default()) {
                silent.insert((file, function));
            }
        }
        assert!(!named.is_empty() || row[2] == "never", "{row:?}");
    }
    assert!(silent.is_empty(), "these cite nothing: {silent:#?}");
}

#[test]
fn every_number_is_in_the_tables_for_every_state() {
    let mut seen = BTreeSet::new();
    for row in rows(IN) {
        for state in row[2].split(", ") {
            assert!(STATES.contains(&state), "{row:?}");
            seen.extend(numbers(row[0]).into_iter().map(|number| (state, number)));
        }
    }
    for state in STATES {
        for number in 0..=u8::MAX {
            assert!(seen.contains(&(state, number)), "{number} in {state}");
        }
    }
    let sent: BTreeSet<u8> = rows(OUT).iter().flat_map(|row| numbers(row[0])).collect();
    for line in source("message.rs").lines() {
        let Some((name, value)) = line.trim().split_once(": u8 = ") else { continue };
        let name = name.trim_start_matches("pub const ");
        let number: u8 = value.trim_end_matches(';').parse().unwrap();
        // By its name, behind its number, in either.
        let all = [rows(IN), rows(OUT)].concat();
        let has = |row: &Vec<&str>| numbers(row[0]).contains(&number) && row[1].contains(name);
        let is_kex = matches!(number, number::KEX_INIT | number::KEX_REPLY);
        assert!(all.iter().any(has) || (is_kex && sent.contains(&31)), "{name}");
    }
}

/// A peer in this state.
fn peer(state: &str) -> Peer {
    match state {
        "Service" => Peer::new(),
        "Auth" => {
            let mut peer = Peer::new();
            peer.say(|w| w.u8(number::SERVICE_REQUEST).string("ssh-userauth")).unwrap();
            peer.heard();
            peer
        }
        "Connection" => Peer::logged_in(Config::new(vec![super::host_key(1)])),
        other => panic!("{other}"),
    }
}

/// What the receiving half says of a message of this number in the first exchange, or in a later one.
fn gate(number: u8, state: &str) -> Result<Next, crate::Fatal> {
    let packet = |number: u8| [&b"\0\0\0\x0c\x04"[..], &[number; 11]].concat();
    let mut inbound = Inbound::new(RekeyLimits::default());
    let mut bytes = b"SSH-2.0-x\r\n".to_vec();
    let Next::Version { .. } = inbound.next(&mut bytes, 0).unwrap() else { panic!() };
    if state == "Later" {
        inbound.install(Opener::none(), false);
        inbound.next(&mut packet(number::KEXINIT), 0).unwrap();
    }
    inbound.next(&mut packet(number), 0)
}

#[test]
fn answers_pass_in_a_later_exchange_alone() {
    for number in [81, 82, 91, 92] {
        assert!(gate(number, "Later").is_ok() && gate(number, "Keys").is_err(), "{number}");
    }
}

/// Messages that are no more than their number, in the states that a core without keys has; the gate
/// of the receiving half stands for those in which keys are exchanged.
#[test]
fn rows_that_always_hold_are_so() {
    let mut tried = 0;
    for row in rows(IN).iter().filter(|row| row[3].is_empty()) {
        for number in numbers(row[0]) {
            for state in row[2].split(", ") {
                if matches!(state, "Keys" | "Later") {
                    let ends = gate(number, state).is_err_and(|fatal| fatal.code.number() == 2);
                    assert_eq!(ends, row[4] == "ends, 2", "{number} in {state}: {row:?}");
                    tried += 1;
                    continue;
                }
                let mut peer = peer(state);
                // PING has a field.
                let message = [&[number][..], &[0; 4]].concat();
                let whole = matches!(number, number::PING);
                let done = peer.hand(if whole { &message } else { &message[..1] });
                if let Some(code) = row[4].strip_prefix("ends, ") {
                    let text = peer.assert_dead(done, code.parse().unwrap());
                    assert!(!text.is_empty());
                } else {
                    let event = done.unwrap_or_else(|fatal| panic!("{fatal}: {number} {row:?}"));
                    let heard: Vec<u8> = peer.heard().iter().map(|message| message[0]).collect();
                    let (want, told) = match row[4].split(['.', ':', ';']).next() {
                        Some("UNIMPLEMENTED") => (vec![number::UNIMPLEMENTED], false),
                        Some("193") => (vec![number::PONG], false),
                        Some("nothing") => (vec![], false),
                        Some("told") => (vec![], true),
                        _ => panic!("{row:?}"),
                    };
                    assert_eq!((heard, event.is_some()), (want, told), "{number} {state} {row:?}");
                }
                tried += 1;
            }
        }
    }
    assert!(tried > 1000, "{tried}");
}
