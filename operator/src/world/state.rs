//! Everything that the operator knows of windows, users and terminals, and what their statuses are to
//! say. Pure: it is told the time, and neither reads nor writes anything.
//!
//! No object is kept: of each there is what it compiled to, in the index of its Mesh, and what its status
//! says, in a few bytes. Where a namespace changes its Mesh, everything is listed anew instead.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tidegate_crds::claims::Acceptance;
use tidegate_crds::index::{Change, Verdict, goes};
use tidegate_crds::login_user::LoginUserStatus;
use tidegate_crds::manifest::{Kind, Object, ObjectRef};
use tidegate_crds::support_window::SupportWindowStatus;
use tidegate_crds::terminal::TerminalStatus;
use tidegate_policy::model::{Label, ObjectKey};
use tidegate_process::clock::{Boot, Now};

use super::before::Before;
use super::news::{Arrival, News};
use super::topology::{Topology, Turn};
use super::word::Word;
use crate::status_writer::Queue;
use crate::support_window::jitter;
use crate::{login_user, support_window, terminal};

/// What decides who is there; these come first.
pub const FRAME: [Kind; 2] = [Kind::Mesh, Kind::Namespace];
/// The kinds whose statuses are written here.
pub const WRITTEN: [Kind; 3] = [Kind::LoginUser, Kind::Terminal, Kind::SupportWindow];
/// How long what is missing may be on its way: one `kubectl apply` brings a window and its user in any
/// order.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long the news of one's own write is waited for before it is looked at again without.
const ECHO: Duration = Duration::from_secs(5);
/// A timer is set no further ahead, since the wall clock may be stepped.
const FURTHEST: Duration = Duration::from_mins(10);

/// What is kept of one object beside what it compiled to.
#[derive(Debug)]
struct Record {
    uid: Box<str>,
    generation: i64,
    /// The newest that was seen.
    version: u64,
    before: Before,
    /// The resourceVersion of our own last write, until it was seen.
    awaited: Option<u64>,
    /// Why it cannot be decoded.
    unreadable: Option<Box<str>>,
    /// Until when what is missing may be on its way.
    patience: Option<Boot>,
    /// Of which refusals of a generation an event was sent.
    told: (i64, Vec<&'static str>),
}

/// A status of one of the kinds.
#[derive(Clone, Debug, PartialEq)]
pub enum AnyStatus {
    Window(SupportWindowStatus),
    User(LoginUserStatus),
    Terminal(TerminalStatus),
}

/// One status to be written.
#[derive(Clone, Debug)]
pub struct Write {
    pub key: Arc<ObjectRef>,
    pub uid: Box<str>,
    pub status: AnyStatus,
    /// What the status says then.
    after: Before,
    /// A refusal that nobody was told of yet: reason and sentence.
    pub warning: Option<(&'static str, String)>,
}

/// What came of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It has this resourceVersion now.
    As(u64),
    /// The object is gone, or another of its name is there; the watch will say so.
    Gone,
    /// The API server takes no status of this object as it is now.
    Refused,
    /// It may work later.
    Failed,
}

/// What there is to say of an object.
enum Said {
    Word(Word),
    /// First a write has to come back: who is accepted hangs on who was.
    NotYet,
    Gone,
}

/// See the module.
#[derive(Debug, Default)]
pub struct State {
    topology: Topology,
    records: BTreeMap<Arc<ObjectRef>, Record>,
    queue: Queue<ObjectRef>,
    /// Of each kind whose complete list is under way, what it has shown.
    lists: BTreeMap<Kind, BTreeSet<ObjectRef>>,
    /// Kinds of which there was no complete list yet since all was forgotten.
    unknown: BTreeSet<Kind>,
    anew: bool,
}

impl State {
    pub fn new() -> Self {
        let unknown = FRAME.into_iter().chain(WRITTEN).collect();
        Self { unknown, anew: true, ..Self::default() }
    }

    /// Whether the three kinds are to be listed anew, now that Meshes and namespaces are known. Said once.
    pub fn wants_list(&mut self) -> bool {
        let framed = FRAME.iter().all(|kind| !self.unknown.contains(kind));
        if !framed || !self.anew {
            return false;
        }
        self.anew = false;
        self.topology.clear();
        self.unknown.extend(WRITTEN);
        for kind in WRITTEN {
            self.lists.remove(&kind);
        }
        true
    }

    /// Whether everything has been seen, so that what is missing is missing.
    pub fn is_complete(&self) -> bool {
        self.unknown.is_empty() && !self.anew
    }

    /// Whether nothing is to be written now.
    pub fn is_idle(&self) -> bool {
        self.is_complete() && self.queue.is_idle()
    }

    /// How many objects of a kind there are.
    pub fn count(&self, kind: Kind) -> usize {
        self.records.keys().filter(|key| key.kind == kind).count()
    }

    /// Whether some object is to be looked at now.
    pub fn has_ready(&self) -> bool {
        self.queue.has_ready()
    }

    /// Takes what a watch says.
    pub fn hear(&mut self, kind: Kind, news: News, now: Boot) {
        match news {
            News::Begins => {
                self.lists.insert(kind, BTreeSet::new());
            }
            News::Listed(arrival) => {
                if let Some(list) = self.lists.get_mut(&kind) {
                    list.insert(arrival.reference.clone());
                }
                self.put(*arrival, now);
            }
            News::Ends => {
                let list = self.lists.remove(&kind).unwrap_or_default();
                let known = match kind {
                    Kind::Mesh | Kind::Namespace => self.topology.known(kind),
                    _ => self.known(kind),
                };
                for gone in known.into_iter().filter(|object| !list.contains(object)) {
                    self.lose(&gone, now);
                }
                if self.unknown.remove(&kind) && self.is_complete() {
                    let all: Vec<_> = self.records.keys().cloned().collect();
                    for key in &all {
                        self.queue.add(key, now);
                    }
                }
            }
            News::Put(arrival) => self.put(*arrival, now),
            News::Gone(object) => self.lose(&object, now),
            News::Failed(_) => {}
        }
    }

    fn known(&self, kind: Kind) -> Vec<ObjectRef> {
        let of_kind = self.records.keys().filter(|key| key.kind == kind);
        of_kind.map(|key| (**key).clone()).collect()
    }

    fn put(&mut self, arrival: Arrival, now: Boot) {
        let Arrival { reference, uid, generation, version, deleting, object, remains, before } =
            arrival;
        if goes(reference.kind, deleting) {
            self.lose(&reference, now);
            return;
        }
        if FRAME.contains(&reference.kind) {
            self.turn(&reference, Some(&object), now);
            return;
        }
        let change = self.topology.index(&reference.namespace).ok().map(|index| match &object {
            Ok(object) => index.put(object),
            Err(error) => index.put_unreadable(&reference, error.as_str(), &remains),
        });
        let unreadable = object.err().map(Into::into);
        let key = match self.records.get_key_value(&reference) {
            Some((key, _)) => Arc::clone(key),
            None => Arc::new(reference),
        };
        let old = self.records.remove(&key).filter(|old| old.uid == uid);
        let record = match old {
            // What was seen before our own write says nothing of it.
            Some(old) if old.awaited.is_some_and(|awaited| version < awaited) => {
                Record { generation, version, unreadable, ..old }
            }
            Some(old) => Record { generation, version, before, unreadable, awaited: None, ..old },
            None => Record {
                uid,
                generation,
                version,
                before,
                awaited: None,
                unreadable,
                patience: None,
                told: (0, Vec::new()),
            },
        };
        self.records.insert(Arc::clone(&key), record);
        self.queue.add(&key, now);
        self.requeue(change, now);
    }

    fn lose(&mut self, object: &ObjectRef, now: Boot) {
        if FRAME.contains(&object.kind) {
            self.turn(object, None, now);
            return;
        }
        let change = self.topology.index(&object.namespace).ok().map(|index| index.remove(object));
        if let Some((key, _)) = self.records.remove_entry(object) {
            self.queue.forget(&key);
        }
        self.requeue(change, now);
    }

    fn turn(&mut self, object: &ObjectRef, what: Option<&Result<Object, String>>, now: Boot) {
        match self.topology.put(object, what) {
            Turn::Anew => self.anew = true,
            Turn::Touched(touched) => self.look_again(&touched, now),
        }
    }

    fn requeue(&mut self, change: Option<Change>, now: Boot) {
        let Some(change) = change else { return };
        self.look_again(&change.windows, now);
        self.look_again(&change.touched, now);
        // Who contends with whom may go over several; most contend with nobody.
        for object in change.touched.iter().filter(|object| object.kind != Kind::SupportWindow) {
            let group = self.topology.index(&object.namespace).ok();
            let group = group.map(|index| index.acceptance(object)).unwrap_or_default();
            if group.len() > 1 {
                let all: Vec<_> = group.into_iter().map(|(object, _)| object).collect();
                self.look_again(&all, now);
            }
        }
    }

    fn look_again(&mut self, objects: &[ObjectRef], now: Boot) {
        for object in objects {
            if let Some((key, _)) = self.records.get_key_value(object) {
                let key = Arc::clone(key);
                self.queue.add(&key, now);
            }
        }
    }

    /// The next status that has to be written, of at most `looks` objects. `None`: none of them has to be.
    pub fn next(&mut self, looks: usize, now: Now) -> Option<Write> {
        if !self.is_complete() {
            return None;
        }
        for _ in 0..looks {
            let key = self.queue.next(now.boot)?;
            if let Some(write) = self.look(&key, now) {
                self.queue.flies(&key);
                return Some(write);
            }
        }
        None
    }

    /// Works out what the status of one object is to say; `None`: what it says, or it is too early.
    fn look(&mut self, key: &Arc<ObjectRef>, now: Now) -> Option<Write> {
        let word = match self.word(key) {
            Said::Word(word) => word,
            Said::Gone => return None,
            Said::NotYet => {
                self.queue.at(key, now.boot.plus(ECHO));
                return None;
            }
        };
        let record = self.records.get(key)?;
        let (change, again) = self.change(key, record, &word, now.wall)?;
        if let Some(again) = again {
            let wait = again.duration_since(now.wall) + jitter(&record.uid);
            let wait = Duration::try_from(wait).unwrap_or(Duration::ZERO).min(FURTHEST);
            // Past the instant, not before it by a fraction.
            self.queue.at(key, now.boot.plus(wait + Duration::from_millis(10)));
        }
        let record = self.records.get_mut(key)?;
        let Some((status, after)) = change else {
            record.patience = None;
            return None;
        };
        if word.accepted || word.stalled {
            record.patience = None;
        } else {
            let until = *record.patience.get_or_insert(now.boot.plus(PATIENCE));
            if until > now.boot {
                self.queue.at(key, until);
                return None;
            }
        }
        let (generation, reason) = (record.generation, word.reason);
        if record.told.0 != generation {
            record.told = (generation, Vec::new());
        }
        let told = record.told.1.contains(&reason) || record.before.was_told(generation, &word);
        let warning = (!word.accepted && !told).then(|| {
            record.told.1.push(reason);
            (reason, word.sentence.clone())
        });
        Some(Write { key: Arc::clone(key), uid: record.uid.clone(), status, after, warning })
    }

    /// What is said of an object.
    fn word(&mut self, key: &ObjectRef) -> Said {
        let Some(record) = self.records.get(key) else { return Said::Gone };
        // The index knows nothing yet of what was written.
        if record.awaited.is_some() && key.kind != Kind::SupportWindow {
            return Said::NotYet;
        }
        if let Some(error) = &record.unreadable {
            return Said::Word(Word::unreadable(error));
        }
        let index = match self.topology.index(&key.namespace) {
            Ok(index) => index,
            Err(owner) => return Said::Word(Word::not_served(&key.namespace, &owner)),
        };
        let verdict = index.verdict(key);
        if !matches!(verdict, Verdict::InForce | Verdict::Contested { .. })
            || key.kind == Kind::SupportWindow
        {
            return Word::of_verdict(key.kind, &verdict).map_or(Said::Gone, Said::Word);
        }
        let group = index.acceptance(key);
        let awaited = |object: &ObjectRef| {
            self.records.get(object).is_some_and(|record| record.awaited.is_some())
        };
        if group.iter().any(|(object, _)| awaited(object)) {
            return Said::NotYet;
        }
        let own = group.into_iter().find(|(object, _)| object == key);
        let acceptance = own.map_or(Acceptance::Accepted, |(_, acceptance)| acceptance);
        Said::Word(Word::of_acceptance(key.kind, &acceptance))
    }

    #[expect(clippy::type_complexity, reason = "what to write, and when to look again")]
    fn change(
        &self,
        key: &ObjectRef,
        record: &Record,
        word: &Word,
        now: Timestamp,
    ) -> Option<(Option<(AnyStatus, Before)>, Option<Timestamp>)> {
        let Record { generation, before, .. } = record;
        let index = self.topology.served_by(&key.namespace);
        let holds = || {
            let held = before.holds.as_deref();
            // Of no Mesh: it keeps what it had, until there is one to contend in.
            index.map_or_else(
                || held.cloned(),
                |index| index.holds_once(key, word.accepted, *generation, held),
            )
        };
        Some(match key.kind {
            Kind::SupportWindow => {
                // One that is refused or of no Mesh has no schedule that anyone could go by.
                let full = full(key).filter(|_| record.unreadable.is_none() && !word.stalled);
                let window = full.and_then(|full| index?.window(&full));
                let window = window.map(|window| &**window);
                let (change, again) =
                    support_window::status(window, word, *generation, before, now);
                (change.map(|(status, after)| (AnyStatus::Window(status), after)), again)
            }
            Kind::LoginUser => {
                let change = login_user::status(holds(), word, *generation, before, now);
                (change.map(|(status, after)| (AnyStatus::User(status), after)), None)
            }
            Kind::Terminal => {
                let change = terminal::status(holds(), word, *generation, before, now);
                (change.map(|(status, after)| (AnyStatus::Terminal(status), after)), None)
            }
            _ => return None,
        })
    }

    /// Takes what came of a write. Gives how long it waits until it is tried again, where it is.
    pub fn written(&mut self, write: Write, outcome: Written, now: Boot) -> Option<Duration> {
        let Write { key, uid, after, .. } = write;
        if outcome == Written::Failed {
            if self.records.contains_key(&key) {
                return Some(self.queue.failed(&key, now));
            }
            // It was deleted meanwhile. Another of its name must not wait for this write.
            self.queue.landed(&key, now);
            return None;
        }
        if let Some(record) = self.records.get_mut(&key).filter(|record| record.uid == uid) {
            match outcome {
                // The watch may have been faster.
                Written::As(version) if version > record.version => {
                    record.before = after;
                    record.awaited = Some(version);
                }
                // As if it were written: it is tried again once the object is another.
                Written::Refused => record.before = after,
                Written::As(_) | Written::Gone | Written::Failed => {}
            }
        }
        self.queue.landed(&key, now);
        None
    }

    /// When something is to be looked at by itself.
    pub fn due(&self) -> Option<Boot> {
        self.queue.due()
    }
}

fn full(object: &ObjectRef) -> Option<ObjectKey> {
    let namespace = Label::parse(&object.namespace).ok()?;
    Some(ObjectKey { namespace, name: Label::parse(&object.name).ok()? })
}
