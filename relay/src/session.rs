//! What one staff connection does on one service of one terminal, from the first admitted channel
//! to its end; and the table of all that live on this replica.
//!
//! A session ends exactly once: whoever takes its liveness first says why (`end.rs` does the rest).

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use tidegate_policy::decide::Admission;
use tidegate_policy::model::Login;
use tokio::sync::{Notify, SetOnce};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::claim::Claim;
use crate::clock::{Boot, Deadline, Now};
use crate::locate::TerminalLink;
use crate::lock::lock;
use crate::pace::Pace;
pub use crate::record::{EndedBy, SessionId};
use crate::ssh::Direction;
use crate::staff::StaffLink;

/// How a session ended.
#[derive(Clone, Debug)]
pub struct End {
    pub by: EndedBy,
    /// One sentence, for the person and the trail.
    pub reason: String,
    pub at: Timestamp,
    /// By how much a deadline was missed; zero for every other end.
    pub overrun: Duration,
}

/// A live or ended session.
pub struct Session {
    pub id: SessionId,
    /// By what it was admitted; its deadline is the one of admission, [`Session::deadline`] the one
    /// in force.
    pub admission: Admission,
    pub staff: Arc<StaffLink>,
    pub terminal: Arc<TerminalLink>,
    /// Bytes from staff to terminal.
    pub bytes_in: AtomicU64,
    /// Bytes from terminal to staff.
    pub bytes_out: AtomicU64,
    /// The rate that it is held to, by the Relay in force when it began.
    pub pace: Option<Pace>,
    /// Bytes each way whose sender had to wait for its pace, not counted in the metrics yet.
    held_back: [AtomicU64; 2],
    /// Its channels that are open: each holds a token.
    pub channels: TaskTracker,
    term: Term,
    end: Mutex<Option<End>>,
    live: AtomicBool,
    over: CancellationToken,
    /// What it holds of a limited window, until it ends.
    claim: Mutex<Option<Claim>>,
    /// Whether its admission was written down, once that is known; one that was not has no end to
    /// write down.
    recorded: SetOnce<bool>,
    /// Bytes already counted in the metrics, each way.
    counted: Mutex<(u64, u64)>,
    /// Bytes seen at the last look, and when they last changed.
    idle: Mutex<(u64, Boot)>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Session {
    pub fn new(
        id: SessionId,
        admission: Admission,
        staff: Arc<StaffLink>,
        terminal: Arc<TerminalLink>,
        claim: Option<Claim>,
        rate: Option<u64>,
        now: Now,
    ) -> Arc<Self> {
        let deadline = Deadline::new(now, admission.deadline);
        Arc::new(Self {
            id,
            admission,
            staff,
            terminal,
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            pace: rate.map(|rate| Pace::new(rate, now.boot)),
            held_back: [AtomicU64::new(0), AtomicU64::new(0)],
            channels: TaskTracker::new(),
            term: Term::new(deadline),
            end: Mutex::new(None),
            live: AtomicBool::new(true),
            over: CancellationToken::new(),
            claim: Mutex::new(claim),
            recorded: SetOnce::new(),
            counted: Mutex::new((0, 0)),
            idle: Mutex::new((0, now.boot)),
        })
    }

    /// The login user whose it is.
    pub fn login(&self) -> &Login {
        &self.admission.staff.login
    }

    pub fn deadline(&self) -> Deadline {
        *lock(&self.term.deadline)
    }

    /// Moves the deadline, which only ever moves earlier.
    pub fn move_deadline(&self, wall: Timestamp, now: Now) {
        lock(&self.term.deadline).bring_forward(now, wall);
    }

    pub fn is_live(&self) -> bool {
        self.live.load(Ordering::Acquire)
    }

    /// Resolves when the session has ended and its staff connection was told, if it is to be told:
    /// only then may channels be closed, since a CLOSE before a DISCONNECT makes `ssh -W` exit in
    /// silence.
    pub async fn ended(&self) {
        self.over.cancelled().await;
    }

    /// Resolves when its channels are done, after its staff connection has ended: `ssh -W` may leave
    /// right behind its last byte, which is still to arrive. Bounded by [`crate::join::join`].
    pub async fn carried(&self) {
        self.channels.close();
        tokio::select! {
            () = self.channels.wait() => {}
            () = self.ended() => {}
        }
    }

    /// How it ended; `None` while it lives.
    pub fn end(&self) -> Option<End> {
        lock(&self.end).clone()
    }

    /// Whether a byte may pass now: the session lives and neither clock has reached its deadline. Once
    /// it may not, none ever may again, and what was refused is dropped: a session whose deadline was
    /// reached at one reading of the clocks is over (invariant 2), also where the wall clock is set
    /// back right after. The warden ends it at its next look.
    pub fn may_forward(&self, now: Now) -> bool {
        self.is_live() && !self.is_due(now)
    }

    /// Whether its deadline was reached, now or at any earlier question.
    pub fn is_due(&self, now: Now) -> bool {
        self.term.is_over(now)
    }

    /// Takes the liveness: from here on nothing is forwarded. Only the first caller gets `true`, and
    /// its reason stands.
    pub(crate) fn take(&self, end: End) -> bool {
        let mut slot = lock(&self.end);
        if slot.is_some() {
            return false;
        }
        *slot = Some(end);
        self.live.store(false, Ordering::Release);
        true
    }

    /// Lets the channels go, after [`Session::take`].
    pub(crate) fn part(&self) {
        self.over.cancel();
    }

    /// Takes what it holds of a limited window, to give it back.
    pub(crate) fn take_claim(&self) -> Option<Claim> {
        lock(&self.claim).take()
    }

    /// Says whether the admission was written down; what is said first stands.
    pub(crate) fn settle(&self, recorded: bool) {
        let _ = self.recorded.set(recorded);
    }

    /// Whether its admission is over, one way or the other.
    pub fn is_settled(&self) -> bool {
        self.recorded.get().is_some()
    }

    /// Whether the admission was written down; waits until that is known.
    pub async fn is_recorded(&self) -> bool {
        *self.recorded.wait().await
    }

    pub fn bytes(&self) -> (u64, u64) {
        (self.bytes_in.load(Ordering::Relaxed), self.bytes_out.load(Ordering::Relaxed))
    }

    /// The bytes each way since the last call, for the metrics.
    pub fn uncounted(&self) -> (u64, u64) {
        let now = self.bytes();
        let before = std::mem::replace(&mut *lock(&self.counted), now);
        (now.0.saturating_sub(before.0), now.1.saturating_sub(before.1))
    }

    /// Counts bytes whose sender has to wait for its pace.
    pub fn held_back(&self, direction: Direction, bytes: u64) {
        let [there, back] = &self.held_back;
        let count = match direction {
            Direction::There => there,
            Direction::Back => back,
        };
        count.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Those since the last call, from staff to terminal and back, for the metrics.
    pub fn take_held_back(&self) -> (u64, u64) {
        let [there, back] = &self.held_back;
        (there.swap(0, Ordering::Relaxed), back.swap(0, Ordering::Relaxed))
    }

    /// For how long no byte has passed, as seen at this look and the ones before.
    pub fn idle_for(&self, now: Now) -> Duration {
        let (bytes_in, bytes_out) = self.bytes();
        let total = bytes_in.saturating_add(bytes_out);
        let mut idle = lock(&self.idle);
        if idle.0 != total {
            *idle = (total, now.boot);
        }
        now.boot.since(idle.1)
    }
}

/// A deadline that is reached for good once anybody has seen it reached.
struct Term {
    deadline: Mutex<Deadline>,
    reached: AtomicBool,
}

impl Term {
    fn new(deadline: Deadline) -> Self {
        Self { deadline: Mutex::new(deadline), reached: AtomicBool::new(false) }
    }

    fn is_over(&self, now: Now) -> bool {
        if self.reached.load(Ordering::Acquire) {
            return true;
        }
        let reached = lock(&self.deadline).reached(now);
        if reached {
            self.reached.store(true, Ordering::Release);
        }
        reached
    }
}

/// The sessions that live on this replica, by their ids.
#[derive(Debug, Default)]
pub struct Sessions {
    table: Mutex<Table>,
    /// Told when the last one is gone.
    empty: Notify,
}

#[derive(Debug, Default)]
struct Table {
    live: HashMap<SessionId, Arc<Session>>,
    /// How many are being admitted for each login user.
    reserved: HashMap<Login, u32>,
}

/// A place among a login user's sessions, held while one is being admitted: given back when dropped.
#[derive(Debug)]
pub struct Place<'a> {
    sessions: &'a Sessions,
    login: Option<Login>,
}

impl Place<'_> {
    /// Puts the session into the table in its place.
    pub fn take(mut self, session: Arc<Session>) {
        let mut table = lock(&self.sessions.table);
        table.live.insert(session.id, session);
        if let Some(login) = self.login.take() {
            table.give_back(&login);
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(login) = self.login.take() {
            self.sessions.change(|table| table.give_back(&login));
        }
    }
}

impl Table {
    fn of_user(&self, login: &Login) -> u32 {
        let held = |session: &&Arc<Session>| session.is_live() && session.login() == login;
        u32::try_from(self.live.values().filter(held).count()).unwrap_or(u32::MAX)
    }

    fn give_back(&mut self, login: &Login) {
        if let Some(count) = self.reserved.get_mut(login) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.reserved.remove(login);
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.live.is_empty() && self.reserved.is_empty()
    }
}

impl Sessions {
    /// Takes out of the table, and tells whoever waits for the last one.
    fn change(&self, act: impl FnOnce(&mut Table)) {
        let mut table = lock(&self.table);
        act(&mut table);
        if table.is_empty() {
            self.empty.notify_waiters();
        }
    }

    /// Holds a place for a session of `login` that is being admitted; `None` where it has `most`
    /// already, those that are being admitted among them.
    pub fn reserve(&self, login: &Login, most: u32) -> Option<Place<'_>> {
        let mut table = lock(&self.table);
        let reserved = table.reserved.get(login).copied().unwrap_or(0);
        if table.of_user(login).saturating_add(reserved) >= most {
            return None;
        }
        table.reserved.insert(login.clone(), reserved.saturating_add(1));
        Some(Place { sessions: self, login: Some(login.clone()) })
    }

    /// How many sessions a login user has on this replica.
    pub fn of_user(&self, login: &Login) -> u32 {
        lock(&self.table).of_user(login)
    }

    pub fn remove(&self, id: SessionId) {
        self.change(|table| drop(table.live.remove(&id)));
    }

    /// Resolves when none lives or is being admitted, and the end of each is written down.
    pub async fn none(&self) {
        loop {
            let empty = self.empty.notified();
            tokio::pin!(empty);
            empty.as_mut().enable();
            if lock(&self.table).is_empty() {
                return;
            }
            empty.await;
        }
    }

    pub fn get(&self, id: SessionId) -> Option<Arc<Session>> {
        lock(&self.table).live.get(&id).cloned()
    }

    /// All of them, at this instant.
    pub fn all(&self) -> Vec<Arc<Session>> {
        lock(&self.table).live.values().cloned().collect()
    }

    pub fn len(&self) -> usize {
        lock(&self.table).live.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_steps_over_a_deadline_and_back_ends_it() {
        let at = |wall, boot| Now {
            wall: Timestamp::from_second(wall).unwrap(),
            boot: Boot::from_start(Duration::from_secs(boot)),
        };
        let term = Term::new(Deadline::new(at(1000, 50), Timestamp::from_second(1100).unwrap()));
        assert!(!term.is_over(at(1050, 100)));
        assert!(term.is_over(at(5000, 101)), "the wall clock was set forward");
        assert!(term.is_over(at(1051, 101)), "and back; what was dropped meanwhile is missing");
    }

    #[tokio::test]
    async fn places_that_are_being_filled_count_and_are_waited_for() {
        let sessions = Sessions::default();
        let alice = Login::parse("alice").unwrap();
        let first = sessions.reserve(&alice, 2).unwrap();
        let second = sessions.reserve(&alice, 2).unwrap();
        assert!(sessions.reserve(&alice, 2).is_none());
        assert!(sessions.reserve(&Login::parse("bob").unwrap(), 2).is_some());
        drop(first);
        let third = sessions.reserve(&alice, 2).unwrap();
        let none = sessions.none();
        tokio::pin!(none);
        let soon = Duration::from_millis(20);
        assert!(tokio::time::timeout(soon, &mut none).await.is_err());
        drop((second, third));
        none.await;
        assert_eq!(sessions.of_user(&alice), 0);
    }
}
