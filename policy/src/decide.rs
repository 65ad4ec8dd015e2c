//! `decide`: whether a login user may reach a service of a terminal at an instant, by which windows,
//! until when; and if not, why not and when next.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;

use crate::model::{KeyBlob, Login, LoginUser, Service, Terminal, Window};
pub use crate::reason::{Deny, NextOpening, Reason, Wants};
pub use crate::recheck::{ATTACH_AHEAD, Admission, may_attach, may_attach_until, recheck};
use crate::schedule::Occurrence;
use crate::snapshot::Snapshot;
use crate::target::Target;
use crate::text::shown;
use crate::way::Way;

/// A login user at the relay's door: what authentication proved, and where from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Staff {
    pub login: Login,
    /// The key whose possession was proved.
    pub key: KeyBlob,
    pub source: IpAddr,
}

/// One staff channel that asks for a target.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub staff: &'a Staff,
    /// As the client sent it: name or FQDN in any case, one trailing dot allowed; or `localhost` and
    /// loopback addresses, where `port` is a listenPort. Any bytes, any length.
    pub host: &'a str,
    pub port: u32,
    /// Whether the terminal runs our agent, which alone can ask for consent or a code, or record.
    pub agent: bool,
    /// By which way the login user is connected; `None`: it is only asked what would be. Nothing that is
    /// declared depends on it so far.
    pub way: Option<Way>,
}

#[derive(Clone, Debug)]
pub enum Decision {
    Allow(Allow),
    Deny(Deny),
}

#[derive(Clone, Debug)]
pub struct Allow {
    pub user: Arc<LoginUser>,
    pub terminal: Arc<Terminal>,
    pub service: Service,
    /// Not empty, in the order in which they are to be claimed: without oneTime first, then the
    /// latest deadline, then the oldest.
    pub candidates: Vec<Candidate>,
}

/// One window that admits.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub window: Arc<Window>,
    pub occurrence: Occurrence,
    /// The earliest of closes, the user's validUntil and now + maxSessionDuration.
    pub deadline: Timestamp,
}

/// Who may be in at all, before any channel: known login, its own key, not suspended, not expired,
/// from a permitted address.
#[expect(clippy::result_large_err, reason = "made once per refused request, and read at once")]
pub fn admit_staff<'a>(
    snapshot: &'a Snapshot,
    staff: &Staff,
    now: Timestamp,
) -> Result<&'a Arc<LoginUser>, Deny> {
    may_enter(snapshot, staff, now).map_err(Deny::from)
}

pub(crate) fn may_enter<'a>(
    snapshot: &'a Snapshot,
    staff: &Staff,
    now: Timestamp,
) -> Result<&'a Arc<LoginUser>, Reason> {
    let login = staff.login.clone();
    let user = match (snapshot.user(&login), snapshot.user_by_key(&staff.key)) {
        (Some(user), Some(owner)) if user.meta.key == owner.meta.key => user,
        (_, Some(owner)) => {
            return Err(Reason::WrongLogin {
                typed: login.to_string(),
                owner: owner.login.clone(),
            });
        }
        (Some(_), None) => return Err(Reason::KeyRemoved { login }),
        (None, None) => return Err(Reason::UnknownLogin { login }),
    };
    if user.suspended {
        return Err(Reason::UserSuspended { login });
    }
    if let Some(at) = user.valid_until.filter(|at| *at <= now) {
        return Err(Reason::UserExpired { login, at });
    }
    // A relay that listens on both families sees `::ffff:203.0.113.7`.
    let source = staff.source.to_canonical();
    let ranges = &user.source_ranges;
    if !ranges.is_empty() && !ranges.iter().any(|range| range.contains(&source)) {
        return Err(Reason::SourceNotAllowed { login, source });
    }
    Ok(user)
}

/// Invariant 1: every channel goes through here.
pub fn decide(snapshot: &Snapshot, request: &Request<'_>, now: Timestamp) -> Decision {
    match weigh(snapshot, request, now) {
        Ok(allow) => Decision::Allow(allow),
        Err(deny) => Decision::Deny(*deny),
    }
}

fn weigh(snapshot: &Snapshot, request: &Request<'_>, now: Timestamp) -> Result<Allow, Box<Deny>> {
    let refuse = |reason| Box::new(Deny::from(reason));
    let user = may_enter(snapshot, request.staff, now).map_err(refuse)?;
    let login = user.login.clone();
    // The terminal and the port of its service, and how to say that there is none.
    let (found, unknown) = match Target::parse(request.host, request.port, &snapshot.mesh().domain)
    {
        Target::Malformed => {
            return Err(refuse(Reason::MalformedHost { shown: shown(request.host, 64) }));
        }
        Target::Named { terminal, port } => (
            snapshot.terminal(&terminal).map(|found| (found, port)),
            Reason::UnknownTerminal { login, terminal: terminal.to_string() },
        ),
        Target::ListenPort(port) => (
            u16::try_from(port).ok().and_then(|port| {
                let found = snapshot.terminal_by_listen_port(port)?;
                let service = found.services.iter().find(|s| s.listen_port == Some(port))?;
                Some((found, u32::from(service.port)))
            }),
            Reason::UnknownListenPort { login, port },
        ),
    };
    // One that no window of hers selects reads the same as one that does not exist.
    let known = found.and_then(|(terminal, port)| {
        let windows = snapshot.windows_between(user, terminal);
        (!windows.is_empty()).then_some((terminal, port, windows))
    });
    let Some((terminal, port, windows)) = known else { return Err(refuse(unknown)) };
    let Some(service) = terminal.services.iter().find(|service| u32::from(service.port) == port)
    else {
        return Err(refuse(undeclared(terminal, port, &windows)));
    };
    if terminal.suspended {
        let terminal = terminal.meta.key.name.clone();
        return Err(refuse(Reason::TerminalSuspended { terminal }));
    }
    let covering: Vec<_> =
        windows.into_iter().filter(|w| w.services.contains(&service.name)).collect();
    let asked = Asked { user, terminal, service, agent: request.agent, now };
    let candidates = asked.candidates(&covering);
    if candidates.is_empty() {
        return Err(Box::new(asked.refusal(&covering)));
    }
    Ok(Allow {
        user: user.clone(),
        terminal: terminal.clone(),
        service: service.clone(),
        candidates,
    })
}

/// The refusal that lists the declared services which these windows cover.
pub(crate) fn undeclared(terminal: &Terminal, port: u32, windows: &[&Arc<Window>]) -> Reason {
    let covered = |service: &&Service| windows.iter().any(|w| w.services.contains(&service.name));
    let declared = terminal.services.iter().filter(covered).map(|s| (s.name.clone(), s.port));
    let declared = declared.collect();
    Reason::UndeclaredPort { terminal: terminal.meta.key.name.clone(), port, declared }
}

/// A request for something that exists, by someone who may be in.
struct Asked<'a> {
    user: &'a LoginUser,
    terminal: &'a Terminal,
    service: &'a Service,
    agent: bool,
    now: Timestamp,
}

impl Asked<'_> {
    fn candidates(&self, covering: &[&Arc<Window>]) -> Vec<Candidate> {
        let now = self.now;
        let candidate = |window: &&Arc<Window>| {
            let occurrence = window.schedule.open_at(now)?;
            let deadline = deadline(self.user, window, occurrence, now);
            let candidate = Candidate { window: (*window).clone(), occurrence, deadline };
            (deadline > now).then_some(candidate)
        };
        let mut candidates: Vec<_> =
            self.admitting(covering).iter().filter_map(candidate).collect();
        // `covering` is in the order of age, and the sort is stable.
        candidates
            .sort_by_key(|candidate| (candidate.window.one_time, Reverse(candidate.deadline)));
        candidates
    }

    /// The windows that admit when they are open.
    fn admitting<'w>(&self, covering: &[&'w Arc<Window>]) -> Vec<&'w Arc<Window>> {
        let admits = |window: &&&Arc<Window>| !window.suspended && self.lacks(window).is_none();
        covering.iter().filter(admits).copied().collect()
    }

    fn lacks(&self, window: &Window) -> Option<Wants> {
        if self.agent { None } else { window.wants() }
    }

    /// Why nothing admits now, told by the window that comes closest.
    fn refusal(&self, covering: &[&Arc<Window>]) -> Deny {
        let admitting = self.admitting(covering);
        let next_opening = self.next_opening(&admitting);
        let reason = self.reason(covering, &admitting, next_opening.is_some());
        Deny { reason, next_opening }
    }

    fn reason(&self, covering: &[&Arc<Window>], admitting: &[&Arc<Window>], again: bool) -> Reason {
        let login = self.user.login.clone();
        let terminal = self.terminal.meta.key.name.clone();
        let service = self.service.name.clone();
        let open = |window: &Window| window.schedule.open_at(self.now).is_some();
        let name = |window: &Window| window.meta.key.name.clone();
        if covering.is_empty() {
            return Reason::ServiceNotInWindow { login, terminal, service };
        }
        let lacking =
            || covering.iter().copied().filter(|w| !w.suspended && self.lacks(w).is_some());
        let suspended = || covering.iter().copied().filter(|window| window.suspended);
        let all = |_: &&Arc<Window>| admitting.is_empty();
        let needs_agent = |window: &Arc<Window>| {
            let (window, what) = (name(window), self.lacks(window)?);
            Some(Reason::NeedsAgent { window, what, terminal: terminal.clone() })
        };
        let is_suspended = |window: &Arc<Window>| {
            let (login, terminal, service) = (login.clone(), terminal.clone(), service.clone());
            Some(Reason::WindowSuspended { login, terminal, service, window: name(window) })
        };
        // What keeps a window from admitting now comes first, then what keeps all from it for ever.
        let in_the_way = (lacking().find(|window| open(window)).and_then(needs_agent))
            .or_else(|| suspended().find(|window| open(window)).and_then(is_suspended))
            .or_else(|| lacking().next().filter(all).and_then(needs_agent))
            .or_else(|| suspended().next().filter(all).and_then(is_suspended));
        if let Some(reason) = in_the_way {
            return reason;
        }
        let ended = || {
            let closed = admitting.iter().filter_map(|window| {
                let occurrence = window.schedule.last_closed(self.now)?;
                Some((occurrence.closes, *window))
            });
            let (at, window) = closed.max_by_key(|(at, _)| *at)?;
            let over =
                admitting.iter().all(|w| w.schedule.openings_from(self.now).next().is_none());
            over.then(|| (window, window.schedule.human_from(at, self.now)))
        };
        match if again { None } else { ended() } {
            Some((window, closed)) => {
                Reason::WindowExpired { login, terminal, service, window: name(window), closed }
            }
            None => Reason::NotOpen { login, terminal, service },
        }
    }

    /// The first opening at which the same request would be admitted.
    fn next_opening(&self, admitting: &[&Arc<Window>]) -> Option<NextOpening> {
        let opening = |window: &&Arc<Window>| {
            let at = window.schedule.openings_from(self.now).next()?.opens;
            Some((at, (*window).clone()))
        };
        let in_time =
            |(at, _): &(Timestamp, _)| self.user.valid_until.is_none_or(|until| *at < until);
        // Of several at once the oldest, which is the first of equals.
        let (at, window) =
            admitting.iter().filter_map(opening).filter(in_time).min_by_key(|(at, _)| *at)?;
        Some(NextOpening {
            at,
            human: window.schedule.human_from(at, self.now),
            case: window.case.as_ref().map(|case| case.number.clone()),
        })
    }
}

/// The earliest of closes, the user's validUntil and `opened_at` + maxSessionDuration.
pub(crate) fn deadline(
    user: &LoginUser,
    window: &Window,
    occurrence: Occurrence,
    opened_at: Timestamp,
) -> Timestamp {
    let longest = window.limits.max_session_duration;
    let longest = longest.and_then(|longest| opened_at.checked_add(longest).ok());
    let bounds = [Some(occurrence.closes), user.valid_until, longest];
    bounds.into_iter().flatten().min().unwrap_or(occurrence.closes)
}
