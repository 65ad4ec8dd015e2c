//! What a change of policy does to what is running: sessions, and attached terminals.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::decide::{Staff, deadline, may_enter, undeclared};
use crate::model::{Attach, Service, Terminal, Window};
use crate::reason::Reason;
use crate::schedule::Occurrence;
use crate::snapshot::Snapshot;

/// How long before an opening a terminal of `attach: DuringWindow` may be connected.
pub const ATTACH_AHEAD: SignedDuration = SignedDuration::from_mins(2);

/// What a running session was admitted by.
#[derive(Clone, Debug)]
pub struct Admission {
    pub staff: Staff,
    pub terminal: Arc<Terminal>,
    pub service: Service,
    pub window: Arc<Window>,
    pub occurrence: Occurrence,
    pub opened_at: Timestamp,
    pub deadline: Timestamp,
}

/// Whether a running session may go on under a newer policy (invariant 3). It belongs to its window:
/// another that would admit does not save it. `Ok` has the deadline, which is never later than
/// `admission.deadline` and may have passed; `Err` says why it is cut.
pub fn recheck(
    snapshot: &Snapshot,
    admission: &Admission,
    now: Timestamp,
) -> Result<Timestamp, Reason> {
    let Admission { staff, terminal: old_terminal, service, window: old_window, .. } = admission;
    let user = may_enter(snapshot, staff, now)?;
    let login = user.login.clone();
    let name = old_window.meta.key.name.clone();
    let gone = || Reason::WindowGone { window: name.clone() };

    let same = |window: &&Arc<Window>| window.meta.uid == old_window.meta.uid;
    let window = snapshot.window(&old_window.meta.key).filter(same).ok_or_else(gone)?;
    let same = |terminal: &&Arc<Terminal>| terminal.meta.uid == old_terminal.meta.uid;
    let terminal_name = old_terminal.meta.key.name.clone();
    let Some(terminal) = snapshot.terminal(&terminal_name).filter(same) else {
        return Err(Reason::UnknownTerminal { login, terminal: terminal_name.to_string() });
    };
    if terminal.suspended {
        return Err(Reason::TerminalSuspended { terminal: terminal_name });
    }
    if !window.names_user(user)
        || !window.selects(terminal)
        || !window.services.contains(&service.name)
    {
        return Err(gone());
    }
    if terminal.service(service.name.as_str()).is_none_or(|now| now.port != service.port) {
        return Err(undeclared(terminal, u32::from(service.port), &[window]));
    }
    if window.suspended {
        let service = service.name.clone();
        return Err(Reason::WindowSuspended {
            login,
            terminal: terminal_name,
            service,
            window: name,
        });
    }
    // The session began without what the window wants now.
    if let Some(what) = window.wants_beyond(old_window) {
        return Err(Reason::NeedsAgent { window: name, what, terminal: terminal_name });
    }
    if admission.deadline <= now {
        return Ok(admission.deadline);
    }
    // Its own occurrence, or where that was moved the one that is open in its place.
    let opens = admission.occurrence.opens;
    let own = window.schedule.openings_from(opens).next().filter(|own| own.opens == opens);
    let occurrence = own
        .filter(|own| own.contains(now))
        .or_else(|| window.schedule.open_at(now))
        .ok_or(Reason::WindowClosed { window: name })?;
    let deadline = deadline(user, window, occurrence, admission.opened_at);
    Ok(deadline.min(admission.deadline))
}

/// Whether a terminal of `attach: DuringWindow` may be connected at `now`: from 2 minutes before an
/// opening until the last open window that selects it has closed. `Always` is always `true`.
pub fn may_attach(snapshot: &Snapshot, terminal: &Terminal, now: Timestamp) -> bool {
    may_attach_until(snapshot, terminal, now).is_some()
}

/// As [`may_attach`]; where it may, an instant up to which it certainly may, under the same policy. At
/// that instant it is to be asked again.
pub fn may_attach_until(
    snapshot: &Snapshot,
    terminal: &Terminal,
    now: Timestamp,
) -> Option<Timestamp> {
    let ahead = now.checked_add(ATTACH_AHEAD).unwrap_or(Timestamp::MAX);
    // The running occurrences come first, then the next one.
    let near = |window: &Arc<Window>| {
        let first = window.schedule.occurrences_from(now).next();
        let first = first.filter(|first| !window.suspended && first.opens <= ahead)?;
        Some(first.closes)
    };
    match terminal.attach {
        Attach::Always => Some(Timestamp::MAX),
        Attach::DuringWindow => snapshot.windows_of_terminal(terminal).into_iter().find_map(near),
    }
}
