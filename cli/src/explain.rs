//! `explain`: why a login user may or may not reach a terminal, in the words that the relay would say.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use tidegate_commands::known_hosts::terminal_name;
use tidegate_commands::{Answer, Known};
use tidegate_policy::decide::{Allow, Decision, Deny, Request, Staff, decide};
use tidegate_policy::model::{KeyBlob, Login, LoginUser, ObjectKey, Service, Terminal};
use tidegate_policy::text::shown;

use crate::output::{Output, clean, structured};
use crate::presence::{Connected, Presence};
use crate::sessions::Session;

/// The port that ssh asks for when it is told none.
const SSH: u32 = 22;

/// Say why a login user may or may not reach a terminal, in the relay's words.
///
/// It decides as the relay does, for one of the user's own keys and, without --source, from an address
/// that the user may come from. Exit code: 0 when at least one of the services is admitted, 1 when none
/// is, 2 when the question could not be asked.
#[derive(Clone, Debug, Args)]
pub struct ExplainArgs {
    /// The login, as typed: alice, or bob.acme for a tenant's own
    #[arg(value_name = "LOGIN")]
    pub login: String,
    /// The terminal, or one of its services
    #[arg(value_name = "TERMINAL[/SERVICE]")]
    pub target: String,
    /// At this instant (RFC 3339); now by default
    #[arg(long, value_name = "TIME", value_parser = tidegate_commands::time)]
    pub at: Option<Timestamp>,
    /// From this address
    #[arg(long, value_name = "ADDRESS")]
    pub source: Option<IpAddr>,
    /// The terminal runs our agent, which can ask for consent and codes, and record
    #[arg(long)]
    pub agent: bool,
    /// The form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// The login user that a person names; the error is the answer.
pub fn user<'a>(known: &'a Known, typed: &str) -> Result<&'a Arc<LoginUser>, Answer> {
    let login = Login::parse(typed).ok();
    login.and_then(|login| known.snapshot.user(&login)).ok_or_else(|| {
        let place = &known.place;
        let mut answer =
            Answer::refused(format!("there is no login user {} in {place}", shown(typed, 80)));
        answer.stderr.push_str(&known.warning);
        answer
    })
}

/// Whether one service is admitted, and what the relay would say.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Verdict {
    /// `kiosk-17/ssh`, or the terminal alone where it has no such service.
    target: String,
    admitted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    opens_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    case: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_opening: Option<Timestamp>,
    /// The windows that admit, in the order in which the relay claims them.
    #[serde(skip)]
    candidates: Vec<Candidate>,
}

struct Candidate {
    key: ObjectKey,
    uid: String,
    opens_at: Timestamp,
    one_time: bool,
    most: Option<u32>,
}

#[derive(Serialize)]
struct Explained {
    login: String,
    terminal: String,
    at: Timestamp,
    admitted: bool,
    services: Vec<Verdict>,
    notes: Vec<String>,
}

/// What a cluster knows beside policy: who is connected, and the sessions that take up limits; `None` where
/// sessions are not known.
#[derive(Clone, Debug)]
pub struct Live {
    pub presence: Presence,
    pub sessions: Option<Vec<Session>>,
}

/// The answer at an instant.
pub fn tell(known: &Known, live: &Live, args: &ExplainArgs, now: Timestamp) -> Answer {
    let at = args.at.unwrap_or(now);
    let Ok(login) = Login::parse(&args.login) else {
        return Answer::usage(format!(
            "{} is no login; write it as alice, or as bob.acme for a tenant's own",
            shown(&args.login, 80)
        ));
    };
    let (typed, service) = match args.target.split_once('/') {
        None => (args.target.as_str(), None),
        Some((terminal, service)) => (terminal, Some(service)),
    };
    let snapshot = &known.snapshot;
    let user = snapshot.user(&login);
    let mut notes = Vec::new();
    let staff = staff(&login, user.map(|user| &**user), args.source, &mut notes);
    let name = terminal_name(snapshot, typed);
    let terminal = name.as_ref().and_then(|name| snapshot.terminal(name));
    let asked = Asked { known, staff: &staff, agent: args.agent, at };
    let verdicts = asked.verdicts(typed, service, user.map(|user| &**user), terminal);
    asked.notes(user.map(|user| &**user), terminal, typed, &mut notes);
    if args.at.is_none() {
        limits(&verdicts, live, &mut notes);
        if let Some(terminal) = terminal {
            connected(terminal, &live.presence, &mut notes);
        }
    }
    let admitted = verdicts.iter().any(|verdict| verdict.admitted);
    let explained = Explained {
        login: login.to_string(),
        terminal: name.map_or_else(|| shown(typed, 80), |name| name.to_string()),
        at: tidegate_commands::whole_second(at),
        admitted,
        services: verdicts,
        notes,
    };
    let stdout = match args.output {
        Output::Json | Output::Yaml => structured(&explained, args.output),
        Output::Table | Output::Wide => people(&explained),
    };
    Answer { stdout, stderr: known.warning.clone(), code: u8::from(!admitted) }
}

fn people(explained: &Explained) -> String {
    let mut text = String::new();
    for one in &explained.services {
        let word = if one.admitted { "admitted" } else { "refused:" };
        let _ = writeln!(text, "{}: {word} {}", clean(&one.target), clean(&one.message));
    }
    for note in &explained.notes {
        let _ = writeln!(text, "note: {}", clean(note));
    }
    text
}

/// The user at the relay's door, with one of her own keys.
fn staff(
    login: &Login,
    user: Option<&LoginUser>,
    source: Option<IpAddr>,
    notes: &mut Vec<String>,
) -> Staff {
    let key = user.and_then(|user| user.public_keys.first().cloned());
    let range = user.and_then(|user| user.source_ranges.first());
    if let (None, Some(user), Some(_)) = (source, user, range) {
        let ranges: Vec<String> = user.source_ranges.iter().map(ToString::to_string).collect();
        notes.push(format!("{login} is let in from {} alone", ranges.join(", ")));
    }
    let near = range.map_or(IpAddr::from([127, 0, 0, 1]), ipnet::IpNet::addr);
    Staff {
        login: login.clone(),
        // Of a user without keys nobody can be at the door; policy says so for any.
        key: key.unwrap_or_else(|| KeyBlob::new(*b"")),
        source: source.unwrap_or(near),
    }
}

struct Asked<'a> {
    known: &'a Known,
    staff: &'a Staff,
    agent: bool,
    at: Timestamp,
}

impl Asked<'_> {
    /// One for each service that is asked about: the one named, else those that windows of hers name there.
    fn verdicts(
        &self,
        typed: &str,
        service: Option<&str>,
        user: Option<&LoginUser>,
        terminal: Option<&Arc<Terminal>>,
    ) -> Vec<Verdict> {
        let bare = || vec![self.judge(shown(typed, 80), typed, SSH)];
        let (Some(terminal), Some(user)) = (terminal, user) else { return bare() };
        let windows = self.known.snapshot.windows_between(user, terminal);
        if windows.is_empty() {
            // The relay says the same where there is no such terminal.
            return bare();
        }
        let name = terminal.meta.key.name.as_str();
        let hers = |service: &&Service| {
            windows.iter().any(|window| window.services.contains(&service.name))
        };
        if let Some(service) = service {
            let target = format!("{name}/{}", shown(service, 63));
            return vec![self.one(target, terminal, service, &hers)];
        }
        let verdicts: Vec<_> = terminal
            .services
            .iter()
            .filter(hers)
            .map(|s| self.judge(format!("{name}/{}", s.name), name, u32::from(s.port)))
            .collect();
        if verdicts.is_empty() { bare() } else { verdicts }
    }

    /// Of the service that was named; `hers` are those that windows of hers name.
    fn one(
        &self,
        target: String,
        terminal: &Terminal,
        service: &str,
        hers: &impl Fn(&&Service) -> bool,
    ) -> Verdict {
        let name = terminal.meta.key.name.as_str();
        if let Some(declared) = terminal.service(service) {
            return self.judge(target, name, u32::from(declared.port));
        }
        let all: Vec<_> = terminal.services.iter().filter(hers).map(|s| s.name.as_str()).collect();
        let (service, all) = (shown(service, 63), all.join(", "));
        let message = format!("{name} has no service {service}; yours there: {all}");
        refused(target, "UnknownService", shown(&message, 300))
    }

    /// What a channel to this port would be told.
    fn judge(&self, target: String, host: &str, port: u32) -> Verdict {
        let request = Request { staff: self.staff, host, port, agent: self.agent, way: None };
        match decide(&self.known.snapshot, &request, self.at) {
            Decision::Allow(allow) => admitted(target, &allow),
            Decision::Deny(deny) => denied(target, &deny),
        }
    }

    /// What the relay would not tell the user, and whoever asks here may know.
    fn notes(
        &self,
        user: Option<&LoginUser>,
        terminal: Option<&Arc<Terminal>>,
        typed: &str,
        notes: &mut Vec<String>,
    ) {
        let place = &self.known.place;
        if user.is_none() {
            notes.push(format!("there is no login user {} in {place}", self.staff.login));
        }
        match (user, terminal) {
            (_, None) => {
                notes.push(format!("there is no terminal {} in {place}", shown(typed, 80)));
            }
            (Some(user), Some(terminal))
                if self.known.snapshot.windows_between(user, terminal).is_empty() =>
            {
                notes.push(format!(
                    "terminal {} is there, but no window of {} selects it",
                    terminal.meta.key, user.login
                ));
            }
            _ => {}
        }
    }
}

fn admitted(target: String, allow: &Allow) -> Verdict {
    let candidates = allow
        .candidates
        .iter()
        .map(|candidate| Candidate {
            key: candidate.window.meta.key.clone(),
            uid: candidate.window.meta.uid.to_string(),
            opens_at: candidate.occurrence.opens,
            one_time: candidate.window.one_time,
            most: candidate.window.limits.max_sessions,
        })
        .collect();
    let Some(first) = allow.candidates.first() else {
        return refused(target, "NotOpen", "no window admits".to_owned());
    };
    let window = &first.window;
    let case = window.case.as_ref().map(|case| case.number.to_string());
    let mut message =
        format!("by window {} until {}", window.meta.key, window.schedule.human(first.deadline));
    if let Some(case) = &case {
        let _ = write!(message, " (case {})", shown(case, 100));
    }
    Verdict {
        admitted: true,
        window: Some(window.meta.key.to_string()),
        opens_at: Some(first.occurrence.opens),
        deadline: Some(first.deadline),
        case,
        reason: None,
        candidates,
        ..refused(target, "", message)
    }
}

fn denied(target: String, deny: &Deny) -> Verdict {
    Verdict {
        next_opening: deny.next_opening.as_ref().map(|next| next.at),
        ..refused(target, deny.reason.code(), deny.to_string())
    }
}

fn refused(target: String, reason: &'static str, message: String) -> Verdict {
    Verdict {
        target,
        admitted: false,
        window: None,
        opens_at: None,
        deadline: None,
        case: None,
        reason: Some(reason),
        message,
        next_opening: None,
        candidates: Vec::new(),
    }
}

/// What stands in the way of a session beside policy: limits that are used up. The relay's claims decide; a
/// session that has just begun or ended may not be told yet.
fn limits(verdicts: &[Verdict], live: &Live, notes: &mut Vec<String>) {
    let mut limited: BTreeMap<&ObjectKey, &Candidate> = BTreeMap::new();
    for candidate in verdicts.iter().flat_map(|verdict| &verdict.candidates) {
        if candidate.one_time || candidate.most.is_some() {
            limited.insert(&candidate.key, candidate);
        }
    }
    for (key, candidate) in limited {
        let Some(sessions) = &live.sessions else {
            notes.push(format!(
                "window {key} limits its sessions, and how many there are is not known here"
            ));
            continue;
        };
        let of_window = |session: &&Session| {
            session.namespace == key.namespace.as_str() && session.window == key.name.as_str()
        };
        let mut of_window = sessions.iter().filter(of_window);
        if candidate.one_time {
            if let Some(used) = of_window.find(|s| s.window_uid == candidate.uid) {
                notes.push(format!(
                    "window {key} admits one session, and {} of {} used it",
                    used.name, used.user
                ));
            }
            continue;
        }
        let of_now: Vec<&str> = of_window
            .filter(|session| session.is_live() && session.opens_at == Some(candidate.opens_at))
            .map(|session| session.user.as_str())
            .collect();
        if let Some(most) = candidate.most
            && of_now.len() >= usize::try_from(most).unwrap_or(usize::MAX)
        {
            notes.push(format!(
                "window {key} is full: it admits {most} at once, and its sessions are held by {}",
                shown(&of_now.join(", "), 100)
            ));
        }
    }
}

fn connected(terminal: &Terminal, presence: &Presence, notes: &mut Vec<String>) {
    let name = &terminal.meta.key.name;
    match (presence.of(name.as_str()), presence.why_unknown()) {
        (Connected::No, _) => notes.push(format!("{name} is not connected")),
        (Connected::Unknown, Some(why)) => {
            notes.push(format!("whether {name} is connected is not known: {why}"));
        }
        (Connected::Yes(_) | Connected::Unknown, _) => {}
    }
}
