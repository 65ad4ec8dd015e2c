//! The requests that a stream makes, with an end in time and size to each, and what their failures
//! mean. Touches the network through kube's client.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::io::{AsyncBufRead, AsyncBufReadExt as _};
use kube::Client;
use kube::api::{ListParams, WatchParams};
use kube::core::Request;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::skim::{Path, Skim};

/// Objects in one page of a list, as long as they are small.
const PAGE: u32 = 500;
/// How long one page may take.
const PAGE_TIME: Duration = Duration::from_secs(20);
/// The largest page and the largest event that are read, and so the largest object; of a larger one only
/// the name is. The API server takes requests of 3 MiB, and etcd objects of 1.5 MiB unless told else.
pub const OBJECT_BYTES: usize = 4 << 20;
/// Pages in memory at once, of all streams together.
const PAGES: usize = 2;
/// Events in memory at once that are larger than [`LARGE`], of all streams together.
const LARGE_EVENTS: usize = 4;
/// No object of a usual size makes a longer event.
const LARGE: usize = 64 << 10;
/// How long the API server may take to begin a watch, or to prove that it reads its store.
const ANSWER: Duration = Duration::from_secs(5);
/// Why a request came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// 401 or 403: who the relay is may not read this.
    #[error("{0}")]
    Forbidden(String),
    /// 404: there is no such kind.
    #[error("not found")]
    Missing,
    /// 410: the resource version is too old; only a new list helps.
    #[error("gone")]
    Gone,
    /// Another answer of the API server.
    #[error("the API server answers: {0}")]
    Answer(String),
    /// No answer.
    #[error("{0}")]
    Unreachable(String),
}

impl From<kube::Error> for Trouble {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::of(status.code, &status.reason, &status.message),
            error => Self::Unreachable(chain(&error)),
        }
    }
}

impl Trouble {
    /// Whether the API server answered that this cannot be read at all.
    pub fn denies(&self) -> bool {
        matches!(self, Self::Forbidden(_) | Self::Missing)
    }

    fn of(code: u16, reason: &str, message: &str) -> Self {
        let said = if message.is_empty() { reason } else { message };
        match code {
            401 | 403 => Self::Forbidden(said.to_owned()),
            404 => Self::Missing,
            410 => Self::Gone,
            // What was stored was set back, as from a backup: its versions are behind ours.
            _ if message.contains("Too large resource version") => Self::Gone,
            code => Self::Answer(format!("{code} {said}")),
        }
    }

    fn io(error: &std::io::Error) -> Self {
        Self::Unreachable(chain(error))
    }

    fn slow(what: &str, time: Duration) -> Self {
        Self::Unreachable(format!("no answer to {what} within {} s", time.as_secs()))
    }
}

/// An error with what caused it; kube's own words alone say little.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}

/// What is asked for.
#[derive(Clone)]
pub struct Collection {
    pub client: Client,
    pub path: String,
    pub selector: Option<String>,
    pub room: Room,
}

/// How much of what was read may wait in memory, over all streams that share it.
#[derive(Clone, Debug)]
pub struct Room {
    pages: Arc<Semaphore>,
    events: Arc<Semaphore>,
}

/// Held for as long as what was read is in memory.
pub type Held = Option<OwnedSemaphorePermit>;

impl Default for Room {
    fn default() -> Self {
        let [pages, events] = [PAGES, LARGE_EVENTS].map(|most| Arc::new(Semaphore::new(most)));
        Self { pages, events }
    }
}

async fn hold(semaphore: &Arc<Semaphore>) -> Held {
    // It is never closed.
    Arc::clone(semaphore).acquire_owned().await.ok()
}

/// How many objects the next page may have: half as many after one that was too large.
#[derive(Clone, Copy, Debug)]
pub struct PageSize(u32);

impl Default for PageSize {
    fn default() -> Self {
        Self(PAGE)
    }
}

/// One page of a list.
pub struct Page {
    pub items: Vec<Value>,
    /// The object of a page of one that is too large.
    pub too_large: Option<Named>,
    pub version: String,
    /// Where the next one begins; `None`: this is the last.
    pub next: Option<String>,
    /// To be kept with the items.
    pub held: Held,
}

/// All that is known of an object that is too large.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Empty where it has none.
    pub namespace: String,
    pub name: String,
    pub version: String,
    /// It is being deleted, and something holds it up.
    pub deleting: bool,
}

impl Collection {
    /// One page, the first or the one at `token`. Without a token it is read through the store. One that
    /// is too large is asked for again with fewer objects.
    pub async fn page(&self, token: Option<&str>, size: &mut PageSize) -> Result<Page, Trouble> {
        let held = hold(&self.room.pages).await;
        loop {
            let read = self.read_page(size.0, token, OBJECT_BYTES);
            let Some(read) = within("a list", PAGE_TIME, read).await? else {
                size.0 = (size.0 / 2).max(1);
                continue;
            };
            let page = match read {
                Read::Whole(bytes) => {
                    if bytes.len() < OBJECT_BYTES / 4 {
                        size.0 = size.0.saturating_mul(2).min(PAGE);
                    }
                    parse_page(&bytes)?
                }
                Read::Skimmed(skim) => skimmed_page(skim)?,
            };
            return Ok(Page { held, ..page });
        }
    }

    /// Returns once the API server has shown that it reads its store: a list of one that may not
    /// come from a cache which has lost touch with it. Gives the store's version.
    pub async fn prove(&self) -> Result<String, Trouble> {
        let read = self.read_page(1, None, 0);
        match within("a read through the store", ANSWER, read).await? {
            Some(Read::Skimmed(skim)) => Ok(skimmed(skim)?.0),
            // An empty body.
            _ => Err(unread("no list")),
        }
    }

    /// A page of `limit` objects, whole up to `most` bytes. A larger one of a single object is read over;
    /// `None`: it has more of them.
    async fn read_page(
        &self,
        limit: u32,
        token: Option<&str>,
        most: usize,
    ) -> Result<Option<Read>, Trouble> {
        let mut list = ListParams::default().limit(limit);
        if let Some(selector) = &self.selector {
            list = list.fields(selector);
        }
        if let Some(token) = token {
            list = list.continue_token(token);
        }
        let request = Request::new(&self.path).list(&list).map_err(|error| unbuilt(&error))?;
        let body = self.client.request_stream(request).await?;
        let mut body = std::pin::pin!(body);
        let mut bytes = Vec::new();
        let mut skim: Option<Skim> = None;
        loop {
            let chunk = body.fill_buf().await.map_err(|error| Trouble::io(&error))?;
            let read = chunk.len();
            if read == 0 {
                break;
            }
            if let Some(skim) = &mut skim {
                skim.feed(chunk);
            } else {
                bytes.extend_from_slice(chunk);
            }
            body.as_mut().consume(read);
            if bytes.len() > most {
                if limit > 1 {
                    return Ok(None);
                }
                skim.insert(Skim::new(OF_PAGE)).feed(&bytes);
                bytes = Vec::new();
            }
        }
        Ok(Some(skim.map_or(Read::Whole(bytes), Read::Skimmed)))
    }

    /// Begins a watch after `version`, which the server is to end after `seconds`.
    pub async fn watch(
        &self,
        version: &str,
        seconds: u32,
    ) -> Result<Lines<impl AsyncBufRead + use<>>, Trouble> {
        let mut watch = WatchParams::default().timeout(seconds);
        if let Some(selector) = &self.selector {
            watch = watch.fields(selector);
        }
        let request =
            Request::new(&self.path).watch(&watch, version).map_err(|error| unbuilt(&error))?;
        let begun = async { Ok(self.client.request_stream(request).await?) };
        let body = within("a watch", ANSWER, begun).await?;
        Ok(Lines::new(Box::pin(body), self.room.clone()))
    }
}

async fn within<T>(
    what: &str,
    time: Duration,
    request: impl Future<Output = Result<T, Trouble>>,
) -> Result<T, Trouble> {
    tokio::time::timeout(time, request).await.unwrap_or_else(|_| Err(Trouble::slow(what, time)))
}

fn unbuilt(error: &kube::core::request::Error) -> Trouble {
    Trouble::Answer(error.to_string())
}

fn unread(why: &str) -> Trouble {
    Trouble::Answer(format!("a list that cannot be read: {why}"))
}

/// The body of an answer.
enum Read {
    Whole(Vec<u8>),
    Skimmed(Skim),
}

/// Of a list of one object.
const OF_PAGE: &[Path] =
    &[VERSION, CONTINUE, ITEM.namespace, ITEM.name, ITEM.version, ITEM.deleted];
const VERSION: Path = &["metadata", "resourceVersion"];
const CONTINUE: Path = &["metadata", "continue"];
const ITEM: NamedPaths = NamedPaths {
    namespace: &["items", "metadata", "namespace"],
    name: &["items", "metadata", "name"],
    version: &["items", "metadata", "resourceVersion"],
    deleted: &["items", "metadata", "deletionTimestamp"],
};
/// Of an event.
const OF_EVENT: &[Path] = &[TYPE, OBJECT.namespace, OBJECT.name, OBJECT.version, OBJECT.deleted];
const TYPE: Path = &["type"];
const OBJECT: NamedPaths = NamedPaths {
    namespace: &["object", "metadata", "namespace"],
    name: &["object", "metadata", "name"],
    version: &["object", "metadata", "resourceVersion"],
    deleted: &["object", "metadata", "deletionTimestamp"],
};

/// Where the parts of a [`Named`] are.
struct NamedPaths {
    namespace: Path,
    name: Path,
    version: Path,
    deleted: Path,
}

impl NamedPaths {
    fn read(&self, found: &mut BTreeMap<Path, String>) -> Option<Named> {
        Some(Named {
            namespace: found.remove(self.namespace).unwrap_or_default(),
            name: found.remove(self.name)?,
            version: found.remove(self.version)?,
            deleting: found.contains_key(self.deleted),
        })
    }
}

/// Version and findings of a list that was read over.
fn skimmed(skim: Skim) -> Result<(String, BTreeMap<Path, String>), Trouble> {
    let mut found = skim.end().ok_or_else(|| unread("it was cut off"))?;
    let version = found.remove(VERSION).filter(|version| !version.is_empty());
    Ok((version.ok_or_else(|| unread("no resourceVersion"))?, found))
}

fn skimmed_page(skim: Skim) -> Result<Page, Trouble> {
    let (version, mut found) = skimmed(skim)?;
    let next = found.remove(CONTINUE).filter(|token| !token.is_empty());
    let named = ITEM.read(&mut found).ok_or_else(|| unread("a large object without a name"))?;
    Ok(Page { items: Vec::new(), too_large: Some(named), version, next, held: None })
}

/// A list that ends early is no list: JSON that was cut off does not parse.
fn parse_page(bytes: &[u8]) -> Result<Page, Trouble> {
    let mut page: Value =
        serde_json::from_slice(bytes).map_err(|error| unread(&error.to_string()))?;
    let metadata = page.get("metadata");
    let text = |field: &str| {
        let text = metadata.and_then(|metadata| metadata.get(field)).and_then(Value::as_str);
        text.filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let version = text("resourceVersion").ok_or_else(|| unread("no resourceVersion"))?;
    let next = text("continue");
    let items = match page.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) => items,
        // Go writes an empty slice that was never made as null.
        Some(Value::Null) => Vec::new(),
        _ => return Err(unread("no items")),
    };
    Ok(Page { items, too_large: None, version, next, held: None })
}

/// The events of a watch, one line each.
pub struct Lines<R> {
    body: std::pin::Pin<Box<R>>,
    room: Room,
    /// What has come of the next line; kept when [`Lines::next`] is dropped.
    line: Vec<u8>,
    /// The same of one that is too large.
    skim: Option<Skim>,
    /// The line has come to its end.
    whole: bool,
}

/// One event of a watch.
#[derive(Debug)]
pub enum Event {
    Put(Value),
    Removed(Value),
    /// The object is too large to be read.
    TooLarge {
        removed: bool,
        named: Named,
    },
    /// All events up to this resource version have been sent.
    Bookmark(String),
}

impl<R: AsyncBufRead> Lines<R> {
    fn new(body: std::pin::Pin<Box<R>>, room: Room) -> Self {
        Self { body, room, line: Vec::new(), skim: None, whole: false }
    }

    /// The next event, with what is to be held as long as it is in memory; `None` where the server ended
    /// the watch in good order. Nothing is lost where this is dropped before it resolves.
    pub async fn next(&mut self) -> Option<(Result<Event, Trouble>, Held)> {
        loop {
            if self.whole {
                let held =
                    if self.line.len() > LARGE { hold(&self.room.events).await } else { None };
                self.whole = false;
                let event = match self.skim.take() {
                    Some(skim) => skimmed_event(skim),
                    None => parse_event(&self.line),
                };
                self.line.clear();
                // What one large event took is not kept for all that follow.
                self.line.shrink_to(LARGE);
                return Some((event, held));
            }
            let chunk = match self.body.fill_buf().await {
                Ok(chunk) => chunk,
                Err(error) => return Some((Err(Trouble::io(&error)), None)),
            };
            if chunk.is_empty() {
                // What has no end was cut off.
                let whole = self.line.is_empty() && self.skim.is_none();
                let cut = || Err(Trouble::Unreachable("an event was cut off".into()));
                return (!whole).then(|| (cut(), None));
            }
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let part = end.map_or(chunk, |end| chunk.get(..end).unwrap_or_default());
            if let Some(skim) = &mut self.skim {
                skim.feed(part);
            } else {
                self.line.extend_from_slice(part);
            }
            let used = end.map_or(chunk.len(), |end| end.saturating_add(1));
            self.body.as_mut().consume(used);
            if self.line.len() > OBJECT_BYTES {
                self.skim.insert(Skim::new(OF_EVENT)).feed(&self.line);
                self.line = Vec::new();
            }
            self.whole = end.is_some() && (!self.line.is_empty() || self.skim.is_some());
        }
    }
}

fn skimmed_event(skim: Skim) -> Result<Event, Trouble> {
    let unread = || Trouble::Answer("an event that is too large".into());
    let mut found = skim.end().ok_or_else(unread)?;
    let removed = match found.remove(TYPE).as_deref() {
        Some("ADDED" | "MODIFIED") => false,
        Some("DELETED") => true,
        _ => return Err(unread()),
    };
    let named = OBJECT.read(&mut found).ok_or_else(unread)?;
    Ok(Event::TooLarge { removed, named })
}

fn parse_event(line: &[u8]) -> Result<Event, Trouble> {
    let unread = |why: &str| Trouble::Answer(format!("an event that cannot be read: {why}"));
    let mut event: Value =
        serde_json::from_slice(line).map_err(|error| unread(&error.to_string()))?;
    let object = event.get_mut("object").map(Value::take).unwrap_or_default();
    match event.get("type").and_then(Value::as_str) {
        Some("ADDED" | "MODIFIED") => Ok(Event::Put(object)),
        Some("DELETED") => Ok(Event::Removed(object)),
        Some("BOOKMARK") => {
            let version = object.pointer("/metadata/resourceVersion").and_then(Value::as_str);
            version.map(|it| Event::Bookmark(it.to_owned())).ok_or_else(|| unread("no version"))
        }
        Some("ERROR") => {
            let text = |field| object.get(field).and_then(Value::as_str).unwrap_or_default();
            let code = object.get("code").and_then(Value::as_u64);
            let code = code.and_then(|code| u16::try_from(code).ok()).unwrap_or(500);
            Err(Trouble::of(code, text("reason"), text("message")))
        }
        _ => Err(unread("an unknown type")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn events(text: &'static [u8]) -> (Vec<Event>, Option<Trouble>) {
        let body = Box::pin(futures_util::io::BufReader::with_capacity(7, text));
        let mut lines = Lines::new(body, Room::default());
        let mut events = Vec::new();
        loop {
            match lines.next().await {
                Some((Ok(event), _)) => events.push(event),
                Some((Err(trouble), _)) => return (events, Some(trouble)),
                None => return (events, None),
            }
        }
    }

    #[tokio::test]
    async fn events_are_whole_lines() {
        let (read, trouble) = events(
            b"{\"type\":\"ADDED\",\"object\":{\"a\":1}}\n\n\
              {\"type\":\"BOOKMARK\",\"object\":{\"metadata\":{\"resourceVersion\":\"9\"}}}\n",
        )
        .await;
        assert!(matches!(read.as_slice(), [Event::Put(_), Event::Bookmark(v)] if v == "9"));
        assert_eq!(trouble, None);
        let (read, trouble) =
            events(b"{\"type\":\"DELETED\",\"object\":{}}\n{\"type\":\"ADD").await;
        assert!(matches!(read.as_slice(), [Event::Removed(_)]));
        assert!(matches!(trouble, Some(Trouble::Unreachable(_))), "{trouble:?}");
        let (_, trouble) =
            events(b"{\"type\":\"ERROR\",\"object\":{\"code\":410,\"reason\":\"Expired\"}}\n")
                .await;
        assert_eq!(trouble, Some(Trouble::Gone));
    }

    #[tokio::test]
    async fn an_event_that_is_too_large_is_named_and_stops_nothing() {
        let fat = "x".repeat(OBJECT_BYTES);
        let text = format!(
            "{{\"type\":\"MODIFIED\",\"object\":{{\"metadata\":{{\"annotations\":{{\"name\":\"{fat}\"}},\
             \"name\":\"a\",\"namespace\":\"acme\",\"resourceVersion\":\"7\"}}}}}}\n\
             {{\"type\":\"ADDED\",\"object\":{{\"a\":1}}}}\n"
        );
        let (read, trouble) = events(text.leak().as_bytes()).await;
        assert_eq!(trouble, None);
        let [Event::TooLarge { removed: false, named }, Event::Put(_)] = read.as_slice() else {
            panic!("{} events", read.len())
        };
        let is = (named.namespace.as_str(), named.name.as_str(), named.version.as_str());
        assert_eq!((is, named.deleting), (("acme", "a", "7"), false));
    }

    #[test]
    fn half_a_list_is_none() {
        let whole = br#"{"metadata":{"resourceVersion":"5","continue":"x"},"items":[{"a":1},{}]}"#;
        let page = parse_page(whole).unwrap();
        assert_eq!((page.items.len(), page.next.as_deref()), (2, Some("x")));
        for end in 0..whole.len() {
            assert!(parse_page(&whole[..end]).is_err(), "{end}");
        }
        assert!(parse_page(br#"{"metadata":{"resourceVersion":"5"}}"#).is_err());
        assert!(parse_page(br#"{"items":[]}"#).is_err());
        let none = parse_page(br#"{"metadata":{"resourceVersion":"5"},"items":null}"#).unwrap();
        assert!(none.items.is_empty() && none.next.is_none());
    }
}
