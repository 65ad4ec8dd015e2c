//! `who-can-reach TERMINAL`: who may reach a terminal, when, and by which window.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use tidegate_policy::model::{Label, ObjectKey};
use tidegate_policy::reach::{Reach, who_can_reach};
use tidegate_policy::snapshot::Snapshot;
use tidegate_process::clock::{self, Now};

use super::known::CHECK;
use super::{Answer, Known, Output, json, time, whole_second};
use crate::text::{row, table};

/// Say who may reach a terminal, and when.
///
/// Without a time: now. Exit code: 0, also when nobody may; 1 when there is no such terminal; 2 when the
/// question could not be asked.
#[derive(Clone, Debug, Args)]
pub struct WhoCanReachArgs {
    #[command(flatten)]
    pub question: Question,
    /// Directory of manifests
    #[arg(long, value_name = "DIR")]
    pub manifests: PathBuf,
    /// The form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// Which terminal, and when.
#[derive(Clone, Debug, Args)]
pub struct Question {
    /// The terminal's name, or its full name in the mesh's domain
    pub terminal: String,
    /// At this instant (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with_all = ["from", "to"])]
    pub at: Option<Timestamp>,
    /// In an interval that begins at this time (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = time, requires = "to")]
    pub from: Option<Timestamp>,
    /// In an interval that ends before this time (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = time, requires = "from")]
    pub to: Option<Timestamp>,
    /// The terminal runs our agent, which can ask for consent and codes, and record
    #[arg(long)]
    pub agent: bool,
}

pub fn run(args: &WhoCanReachArgs) -> ExitCode {
    answer(args, clock::now()).print()
}

/// What `run` prints, at a given time.
pub fn answer(args: &WhoCanReachArgs, now: Now) -> Answer {
    let known = || Known::read(&args.manifests, CHECK, now);
    tell(&args.question, args.output, known, now)
}

/// The answer, from what `known` gives; it is not asked where the question makes no sense.
pub fn tell(
    args: &Question,
    output: Output,
    known: impl FnOnce() -> Result<Known, Answer>,
    now: Now,
) -> Answer {
    let (from, to) = match (args.at, args.from, args.to) {
        (Some(at), _, _) => (at, at),
        (None, Some(from), Some(to)) => (from, to),
        _ => (whole_second(now.wall), whole_second(now.wall)),
    };
    if to < from {
        return Answer::usage("--to must not be before --from");
    }
    let Known { snapshot, place, warning, .. } = match known() {
        Ok(known) => known,
        Err(answer) => return answer,
    };
    let name = super::known_hosts::terminal_name(&snapshot, &args.terminal);
    let reach = name.as_ref().and_then(|name| who_can_reach(&snapshot, name, args.agent, from, to));
    let (Some(name), Some(reach)) = (name, reach) else {
        let shown = tidegate_policy::text::shown(&args.terminal, 80);
        let mut answer = Answer::refused(format!("there is no terminal {shown} in {place}"));
        answer.stderr.push_str(&warning);
        return answer;
    };
    let stdout = match output {
        Output::Json => json(&Shown::of(&name, &reach)),
        Output::Table => {
            let mut text = people(&snapshot, &name, &reach, (from, to), now.wall);
            // What gives nobody anything without an agent would be missed in silence.
            let all = who_can_reach(&snapshot, &name, true, from, to).unwrap_or_default();
            let counted = windows(&reach);
            let others = windows(&all).into_iter().filter(|window| !counted.contains(window));
            let others: Vec<_> = others.map(ToString::to_string).collect();
            if !others.is_empty() {
                let _ = writeln!(
                    text,
                    "\nnot counted without --agent, since they want what only an agent can give: {}",
                    others.join(", ")
                );
            }
            text
        }
    };
    Answer { stderr: warning, ..Answer::good(stdout) }
}

/// The windows that give somebody something.
fn windows(reach: &Reach) -> BTreeSet<&ObjectKey> {
    let now = reach.access.iter().map(|access| &access.window);
    now.chain(reach.next.iter().map(|next| &next.window)).collect()
}

#[derive(Serialize)]
struct Shown {
    terminal: String,
    access: Vec<Access>,
    next: Vec<Later>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Access {
    user: String,
    service: String,
    window: String,
    opens_at: Timestamp,
    closes_at: Timestamp,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Later {
    user: String,
    service: String,
    window: String,
    next_opening: Timestamp,
}

impl Shown {
    fn of(terminal: &Label, reach: &Reach) -> Self {
        let access = reach.access.iter().map(|access| Access {
            user: access.user.to_string(),
            service: access.service.to_string(),
            window: access.window.to_string(),
            opens_at: access.opens_at,
            closes_at: access.closes_at,
        });
        let next = reach.next.iter().map(|next| Later {
            user: next.user.to_string(),
            service: next.service.to_string(),
            window: next.window.to_string(),
            next_opening: next.next_opening,
        });
        Self { terminal: terminal.to_string(), access: access.collect(), next: next.collect() }
    }
}

/// The same as tables, each time as its window's people read it.
fn people(
    snapshot: &Snapshot,
    terminal: &Label,
    reach: &Reach,
    (from, to): (Timestamp, Timestamp),
    now: Timestamp,
) -> String {
    let human = |window: &ObjectKey, at: Timestamp| match snapshot.window(window) {
        Some(window) => window.schedule.human_from(at, now),
        None => at.to_string(),
    };
    let when = if from == to { format!("at {from}") } else { format!("between {from} and {to}") };
    let mut text = if reach.access.is_empty() {
        format!("nobody can reach {terminal} {when}\n")
    } else {
        let rows = reach.access.iter().map(|access| {
            let opens = human(&access.window, access.opens_at);
            let closes = human(&access.window, access.closes_at);
            row([&access.user, &access.service, &access.window, &opens, &closes])
        });
        let heads = ["USER", "SERVICE", "WINDOW", "OPENS", "CLOSES"];
        let table = table(&heads, &rows.collect::<Vec<_>>());
        format!("{terminal} can be reached {when} by\n{table}")
    };
    if !reach.next.is_empty() {
        let rows = reach.next.iter().map(|next| {
            let opening = human(&next.window, next.next_opening);
            row([&next.user, &next.service, &next.window, &opening])
        });
        let heads = ["USER", "SERVICE", "WINDOW", "NEXT OPENING"];
        text.push_str("\nlater\n");
        text.push_str(&table(&heads, &rows.collect::<Vec<_>>()));
    }
    text
}
