//! Follows one stream: lists it, watches it, and tells its owner what comes. It keeps no object and
//! decides nothing.
//!
//! A watch is asked to end after 30 s at most and is given up shortly after, so that a connection
//! that died in silence is replaced within 35 s (invariant 3). The API server proves at each watch
//! that it reads its store: a server that has lost it goes on with its bookmarks from memory. A store
//! that was set back, as from a backup, has versions behind ours: a watch from a version that is yet to
//! come would see nothing until then, so it is listed anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rand::Rng as _;
use serde_json::Value;
use tokio::sync::{mpsc, watch};

use super::raw::Raw;
use super::stream::Stream;
use super::wire::{Collection, Event, Held, Named, PageSize, Trouble};
use crate::clock::{self, Boot, Now};

/// The longest that a watch is asked to last.
pub const WATCH: Duration = Duration::from_secs(30);
/// And the shortest, where the mesh admits by very young policy alone.
const SHORTEST: Duration = Duration::from_secs(3);
/// So often within the age up to which the policy admits must there be a sign of life.
const SIGNS_PER_AGE: u32 = 3;
/// How much later than asked a watch may end before it counts as dead.
const GRACE: Duration = Duration::from_millis(1500);
/// How long after a proof that failed the next is asked for.
const PROVE_AGAIN: Duration = Duration::from_secs(2);
/// Seconds that a watch lasts which is to give a sign of life soon.
const BRIEF: u32 = 2;
/// A watch that was heard so shortly ago is not dead.
const LIVELY: Duration = Duration::from_secs(4);
/// The longest wait after failures in a row, of which a random part is waited.
const BACK_OFF: Duration = Duration::from_secs(10);
const FIRST_BACK_OFF: Duration = Duration::from_millis(200);
/// After so many failures in a row a watch is begun with a new list.
const RELIST_AFTER: u32 = 4;
/// A watch that ended sooner without a word counts as a failure.
const TOO_SHORT: Duration = Duration::from_secs(1);

/// What a stream tells its owner, in the order in which it happened.
#[derive(Debug)]
pub enum Said {
    /// A list begins, asked for by this count of [`Kick::relist`]; one that was not finished is void.
    Listing {
        relist: u64,
    },
    Page(Vec<Raw>, Held),
    /// The list is complete. It was asked for at `at`.
    Listed {
        at: Now,
    },
    Put(Box<Raw>, Held),
    Removed(Box<Raw>, Held),
    /// A watch's sign of life at `at`. `news`: one that the server cannot give without its store.
    Alive {
        at: Now,
        news: bool,
    },
    /// The server has read its store for a request of `at`.
    Proven {
        at: Now,
    },
    /// The server answers, and could not read its store.
    Unproven(Trouble),
    /// It goes on trying.
    Trouble(Trouble),
}

/// What the owner asks of all streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kick {
    /// Counts: the watch that runs is replaced.
    again: u64,
    /// Counts: everything is listed anew.
    pub relist: u64,
}

impl Kick {
    /// Asks for a sign of life now.
    pub fn again(&mut self) {
        self.again = self.again.wrapping_add(1);
    }
}

/// How long watches last, shared by all streams.
#[derive(Debug)]
pub struct Lasting(AtomicU32);

impl Default for Lasting {
    fn default() -> Self {
        Self(AtomicU32::new(u32::try_from(WATCH.as_secs()).unwrap_or(30)))
    }
}

impl Lasting {
    /// The policy admits up to this age; whether the watches that run last too long for that.
    pub fn admits_up_to(&self, age: Duration) -> bool {
        let seconds = (age / SIGNS_PER_AGE).clamp(SHORTEST, WATCH).as_secs();
        let seconds = u32::try_from(seconds).unwrap_or(30);
        self.0.swap(seconds, Ordering::Relaxed) > seconds
    }

    fn seconds(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// All that one stream works with.
pub struct Reflector {
    pub stream: Stream,
    /// What messages of this one carry: an earlier one of the same stream had another.
    pub id: u64,
    pub collection: Collection,
    pub lasting: Arc<Lasting>,
    pub kick: watch::Receiver<Kick>,
    pub tell: mpsc::Sender<(u64, Said)>,
}

impl Reflector {
    /// Runs until the owner is gone.
    pub async fn run(self) {
        Run { with: self, relist: 0, brief: false, size: PageSize::default() }.run().await;
    }
}

/// A reflector at work.
struct Run {
    with: Reflector,
    /// The count of the last list.
    relist: u64,
    /// The next watch is to give a sign of life soon: the clocks were stepped.
    brief: bool,
    size: PageSize,
}

/// Nobody listens any more.
struct Deaf;

/// How a step ended.
enum Step {
    /// Go on after this version.
    At(String),
    /// List anew, at once.
    Anew,
    Failed(Trouble, Option<String>),
}

impl Run {
    async fn run(mut self) {
        let mut version: Option<String> = None;
        let mut failures: u32 = 0;
        loop {
            let began = clock::boot();
            let step = match version.take() {
                None => self.list().await,
                Some(version) => self.watch(version).await,
            };
            let Ok(step) = step else { return };
            let trouble = match step {
                Step::At(after) => {
                    version = Some(after);
                    failures = 0;
                    continue;
                }
                Step::Anew if clock::boot().since(began) >= TOO_SHORT => {
                    failures = 0;
                    continue;
                }
                Step::Anew => None,
                Step::Failed(trouble, after) => {
                    version = after.filter(|_| failures < RELIST_AFTER);
                    Some(trouble)
                }
            };
            if let Some(trouble) = trouble
                && self.say(Said::Trouble(trouble)).await.is_err()
            {
                return;
            }
            let most = FIRST_BACK_OFF.saturating_mul(1 << failures.min(8)).min(BACK_OFF);
            failures = failures.saturating_add(1);
            let wait = rand::rng().random_range(Duration::ZERO..=most);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                // The clocks were stepped or the machine slept: what has gone wrong may be over.
                kicked = self.with.kick.changed() => if kicked.is_err() { return },
                () = self.with.tell.closed() => return,
            }
        }
    }

    async fn say(&self, said: Said) -> Result<(), Deaf> {
        self.with.tell.send((self.with.id, said)).await.map_err(|_| Deaf)
    }

    /// A complete list. Its pages are of one version, or it begins anew.
    async fn list(&mut self) -> Result<Step, Deaf> {
        let at = clock::now();
        self.relist = self.with.kick.borrow_and_update().relist;
        self.say(Said::Listing { relist: self.relist }).await?;
        let mut token: Option<String> = None;
        loop {
            let page = match self.with.collection.page(token.as_deref(), &mut self.size).await {
                Ok(page) => page,
                // The pages to come have been given up.
                Err(Trouble::Gone) => return Ok(Step::Anew),
                Err(trouble) => return Ok(Step::Failed(trouble, None)),
            };
            let kind = self.with.stream.kind;
            let count = page.items.len().saturating_add(usize::from(page.too_large.is_some()));
            let raws = page.items.into_iter().filter_map(|it| Raw::new(kind, it));
            let named = page.too_large.and_then(|named| Raw::too_large(kind, &named));
            let raws: Vec<Raw> = raws.chain(named).collect();
            if raws.len() != count {
                let why = "a list with objects that have no name".into();
                return Ok(Step::Failed(Trouble::Answer(why), None));
            }
            self.say(Said::Page(raws, page.held)).await?;
            token = page.next;
            if token.is_none() {
                self.say(Said::Listed { at }).await?;
                return Ok(Step::At(page.version));
            }
        }
    }

    /// One watch, for as long as it lasts.
    async fn watch(&mut self, mut version: String) -> Result<Step, Deaf> {
        let began = clock::boot();
        let brief = std::mem::take(&mut self.brief);
        let seconds = if brief { BRIEF } else { self.with.lasting.seconds() };
        let asked = Duration::from_secs(u64::from(seconds));
        let mut dead = std::pin::pin!(tokio::time::sleep(asked + GRACE));
        // A store that is read after we had this version has come at least so far.
        let mut reached = version.clone();
        let mut proof = std::pin::pin!(prove(self.with.collection.clone(), Duration::ZERO));
        let mut proving = true;
        if self.asks_for_list() {
            return Ok(Step::Anew);
        }
        let mut lines = match self.with.collection.watch(&version, seconds).await {
            Ok(lines) => lines,
            Err(Trouble::Gone) => return Ok(Step::Anew),
            Err(Trouble::Missing) => return Ok(Step::Failed(Trouble::Missing, None)),
            Err(trouble) => return Ok(Step::Failed(trouble, Some(version))),
        };
        let mut heard: Option<Boot> = None;
        loop {
            let event = tokio::select! {
                event = lines.next() => event,
                (at, proven) = &mut proof, if proving => {
                    match proven {
                        Ok(now) if behind(&now, &reached) => return Ok(self.set_back(&reached, &now)),
                        Ok(_) => {
                            proving = false;
                            self.say(Said::Proven { at }).await?;
                        }
                        Err(trouble) => {
                            self.say(Said::Unproven(trouble)).await?;
                            reached.clone_from(&version);
                            proof.set(prove(self.with.collection.clone(), PROVE_AGAIN));
                        }
                    }
                    continue;
                }
                kicked = self.with.kick.changed() => {
                    if kicked.is_err() {
                        return Err(Deaf);
                    }
                    self.brief = true;
                    return Ok(if self.asks_for_list() { Step::Anew } else { Step::At(version) });
                }
                () = &mut dead => {
                    // A busy server may be late with the end; it lives.
                    if heard.is_some_and(|heard| clock::boot().since(heard) < LIVELY) {
                        return Ok(Step::At(version));
                    }
                    let why = format!("the watch has been silent for more than {seconds} s");
                    return Ok(Step::Failed(Trouble::Unreachable(why), Some(version)));
                }
                () = self.with.tell.closed() => return Err(Deaf),
            };
            let at = clock::now();
            let (event, held) = match event {
                Some((Ok(event), held)) => (event, held),
                // The server ended it as asked, having sent all that there was.
                None if heard.is_some() || clock::boot().since(began) >= TOO_SHORT => {
                    self.say(Said::Alive { at, news: false }).await?;
                    return Ok(Step::At(version));
                }
                None => {
                    let why = Trouble::Answer("a watch that ends at once".into());
                    return Ok(Step::Failed(why, Some(version)));
                }
                Some((Err(Trouble::Gone), _)) => return Ok(Step::Anew),
                Some((Err(trouble), _)) => return Ok(Step::Failed(trouble, Some(version))),
            };
            let read = match event {
                Event::Bookmark(after) => Some((after, None)),
                Event::Put(object) => {
                    self.object(object).map(|(after, raw)| (after, Some(Said::Put(raw, held))))
                }
                Event::Removed(object) => {
                    self.object(object).map(|(after, raw)| (after, Some(Said::Removed(raw, held))))
                }
                Event::TooLarge { removed, named } => self.named(&named).map(|raw| {
                    let said =
                        if removed { Said::Removed(raw, held) } else { Said::Put(raw, held) };
                    (named.version, Some(said))
                }),
            };
            let Some((after, said)) = read else { return Ok(Step::Anew) };
            if behind(&after, &version) {
                return Ok(self.set_back(&version, &after));
            }
            // A version that is new to us may be one that the server has remembered since before it lost
            // its store: a bookmark proves nothing of now.
            let news = said.is_some() && newer(&after, &version);
            version = after;
            if let Some(said) = said {
                self.say(said).await?;
            }
            self.say(Said::Alive { at, news }).await?;
            heard = Some(at.boot);
        }
    }

    /// Whether a list has been asked for since the last one.
    fn asks_for_list(&mut self) -> bool {
        self.with.kick.borrow_and_update().relist != self.relist
    }

    /// The store has an older version than we had of it.
    fn set_back(&self, before: &str, now: &str) -> Step {
        tracing::warn!(
            before,
            now,
            "the API server's store was set back; the {} are listed anew",
            self.with.stream
        );
        Step::Anew
    }

    /// An event's object and version; one without either leaves the watch without a place to go on.
    fn object(&self, object: Value) -> Option<(String, Box<Raw>)> {
        let version = object.pointer("/metadata/resourceVersion")?.as_str()?.to_owned();
        Some((version, Box::new(Raw::new(self.with.stream.kind, object)?)))
    }

    fn named(&self, named: &Named) -> Option<Box<Raw>> {
        Raw::too_large(self.with.stream.kind, named).map(Box::new)
    }
}

/// Asks for a proof that the server reads its store, after a while; with the time when it was asked.
async fn prove(collection: Collection, after: Duration) -> (Now, Result<String, Trouble>) {
    tokio::time::sleep(after).await;
    let at = clock::now();
    (at, collection.prove().await)
}

/// Whether the version is behind; versions that are no numbers cannot tell.
fn behind(after: &str, before: &str) -> bool {
    matches!((after.parse::<u64>(), before.parse::<u64>()), (Ok(after), Ok(before)) if after < before)
}

/// Whether the version moved on.
fn newer(after: &str, before: &str) -> bool {
    match (after.parse::<u64>(), before.parse::<u64>()) {
        (Ok(after), Ok(before)) => after > before,
        _ => after != before,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watches_are_as_short_as_the_mesh_needs() {
        let lasting = Lasting::default();
        for (age, seconds) in [(300, 30), (60, 20), (10, 3), (1, 3), (90, 30)] {
            lasting.admits_up_to(Duration::from_secs(age));
            assert_eq!(lasting.seconds(), seconds, "{age}");
        }
    }
}
