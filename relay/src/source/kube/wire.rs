//! The requests that a stream makes, with an end in time and size to each, and what their failures
//! mean. Touches the network through kube's client.

use std::time::Duration;

use futures_util::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _};
use kube::Client;
use kube::api::{ListParams, WatchParams};
use kube::core::Request;
use serde_json::Value;

/// Objects in one page of a list.
const PAGE: u32 = 500;
/// How long one page may take.
const PAGE_TIME: Duration = Duration::from_secs(20);
/// The largest page: 500 objects of etcd's largest size are more, but no one has those.
const PAGE_BYTES: u64 = 256 << 20;
/// How long the API server may take to begin a watch, or to prove that it reads its store.
const ANSWER: Duration = Duration::from_secs(5);
/// The largest event; etcd takes objects of 1.5 MiB.
const LINE_BYTES: usize = 16 << 20;

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
}

/// One page of a list.
pub struct Page {
    pub items: Vec<Value>,
    pub version: String,
    /// Where the next one begins; `None`: this is the last.
    pub next: Option<String>,
}

impl Collection {
    /// One page, the first or the one at `token`. Without a token it is read through the store.
    pub async fn page(&self, token: Option<&str>) -> Result<Page, Trouble> {
        within("a list", PAGE_TIME, self.read_page(PAGE, token)).await
    }

    /// Returns once the API server has shown that it reads its store: a list of one that may not
    /// come from a cache which has lost touch with it. Gives the store's version.
    pub async fn prove(&self) -> Result<String, Trouble> {
        let page = within("a read through the store", ANSWER, self.read_page(1, None)).await?;
        Ok(page.version)
    }

    async fn read_page(&self, limit: u32, token: Option<&str>) -> Result<Page, Trouble> {
        let mut list = ListParams::default().limit(limit);
        if let Some(selector) = &self.selector {
            list = list.fields(selector);
        }
        if let Some(token) = token {
            list = list.continue_token(token);
        }
        let request = Request::new(&self.path).list(&list).map_err(|error| unbuilt(&error))?;
        let body = self.client.request_stream(request).await?;
        let mut bytes = Vec::new();
        let body = std::pin::pin!(body);
        body.take(PAGE_BYTES).read_to_end(&mut bytes).await.map_err(|error| Trouble::io(&error))?;
        parse_page(&bytes)
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
        Ok(Lines { body: Box::pin(body), line: Vec::new() })
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

/// A list that ends early is no list: JSON that was cut off does not parse.
fn parse_page(bytes: &[u8]) -> Result<Page, Trouble> {
    let unread = |why: &str| Trouble::Answer(format!("a list that cannot be read: {why}"));
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
    Ok(Page { items, version, next })
}

/// The events of a watch, one line each.
pub struct Lines<R> {
    body: std::pin::Pin<Box<R>>,
    /// What has come of the next line; kept when [`Lines::next`] is dropped.
    line: Vec<u8>,
}

/// One event of a watch.
#[derive(Debug)]
pub enum Event {
    Put(Value),
    Removed(Value),
    /// All events up to this resource version have been sent.
    Bookmark(String),
}

impl<R: AsyncBufRead> Lines<R> {
    /// The next event; `None` where the server ended the watch in good order. Nothing is lost where
    /// this is dropped before it resolves.
    pub async fn next(&mut self) -> Option<Result<Event, Trouble>> {
        loop {
            let chunk = match self.body.fill_buf().await {
                Ok(chunk) => chunk,
                Err(error) => return Some(Err(Trouble::io(&error))),
            };
            if chunk.is_empty() {
                // What has no end was cut off.
                let whole = self.line.is_empty();
                return (!whole).then(|| Err(Trouble::Unreachable("an event was cut off".into())));
            }
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let part = end.map_or(chunk, |end| chunk.get(..end).unwrap_or_default());
            self.line.extend_from_slice(part);
            let used = end.map_or(chunk.len(), |end| end.saturating_add(1));
            self.body.as_mut().consume(used);
            if self.line.len() > LINE_BYTES {
                return Some(Err(Trouble::Answer("an event that is too large".into())));
            }
            if end.is_some() && !self.line.is_empty() {
                let event = parse_event(&self.line);
                self.line.clear();
                return Some(event);
            }
        }
    }
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
        let mut lines = Lines { body, line: Vec::new() };
        let mut events = Vec::new();
        loop {
            match lines.next().await {
                Some(Ok(event)) => events.push(event),
                Some(Err(trouble)) => return (events, Some(trouble)),
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
