//! Lists one kind and watches it from there, for ever: after every gap it is listed anew.
//!
//! Objects come as they are, whatever their fields hold: one that does not decode stops nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt as _;
use kube::Api;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::DynamicObject;

use super::answer::{Failure, ask};
use super::pause::Pause;
use crate::clock;

/// Objects that one page of a list holds.
const PAGE: u32 = 500;
/// How long a page may take.
const PAGE_PATIENCE: Duration = Duration::from_secs(10);
/// How long the API server may take to begin a watch.
const BEGIN: Duration = Duration::from_secs(5);
/// How long the API server lets a watch run.
const WATCH_SECONDS: u32 = 30;
/// How much later a watch may end before it counts as dead.
const GRACE: Duration = Duration::from_millis(1500);
/// A watch that was heard so shortly ago is not dead.
const LIVELY: Duration = Duration::from_secs(4);
/// A watch that ends sooner and brought nothing is a failure, not to be repeated without a pause.
const SHORT: Duration = Duration::from_secs(1);

/// An object, by namespace and name.
pub type Key = (String, String);

/// What there is to see.
#[derive(Debug)]
pub enum Seen {
    /// A list begins: what is there from now on, or was there before, is in it, or has gone since.
    Listing,
    /// An object is there, new, changed or as it was.
    Put(Box<DynamicObject>),
    /// An object is gone.
    Gone(Box<DynamicObject>),
    /// All that is there has been put: what is not among these is gone.
    Listed(BTreeSet<Key>),
    /// The API server is not heard any more.
    Lost(String),
}

pub fn key(object: &DynamicObject) -> Key {
    let metadata = &object.metadata;
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

/// Never returns.
pub async fn follow(
    api: Api<DynamicObject>,
    field_selector: Option<String>,
    mut tell: impl FnMut(Seen) + Send,
) {
    let mut pause = Pause::new(Duration::from_millis(200), Duration::from_secs(10));
    loop {
        let failure = match list(&api, field_selector.as_deref(), &mut tell).await {
            Ok(version) => {
                watch(&api, field_selector.as_deref(), version, &mut pause, &mut tell).await
            }
            Err(failure) => Some(failure),
        };
        if let Some(failure) = failure {
            tell(Seen::Lost(failure.to_string()));
            tokio::time::sleep(pause.next()).await;
        }
    }
}

/// Tells all that is there, and gives the version to watch from.
async fn list(
    api: &Api<DynamicObject>,
    field_selector: Option<&str>,
    tell: &mut (impl FnMut(Seen) + Send),
) -> Result<String, Failure> {
    let mut params = ListParams::default().limit(PAGE);
    params.field_selector = field_selector.map(str::to_owned);
    let mut names = BTreeSet::new();
    tell(Seen::Listing);
    loop {
        let page = ask(PAGE_PATIENCE, api.list(&params)).await?;
        for object in page.items {
            names.insert(key(&object));
            tell(Seen::Put(Box::new(object)));
        }
        params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
        if params.continue_token.is_none() {
            tell(Seen::Listed(names));
            return Ok(page.metadata.resource_version.unwrap_or_default());
        }
    }
}

/// Watches until a list is needed: after a failure, or where the version is too old or the store was set
/// back behind it (`None`). A watch from a version that is yet to come is silent: one that brought
/// nothing, not even a bookmark, proves nothing.
async fn watch(
    api: &Api<DynamicObject>,
    field_selector: Option<&str>,
    mut version: String,
    pause: &mut Pause,
    tell: &mut (impl FnMut(Seen) + Send),
) -> Option<Failure> {
    let mut params = WatchParams::default().timeout(WATCH_SECONDS);
    params.field_selector = field_selector.map(str::to_owned);
    loop {
        let stream = match ask(BEGIN, api.watch(&params, &version)).await {
            Ok(stream) => stream,
            Err(Failure::Refused { code: 410, .. }) => return None,
            Err(failure) => return Some(failure),
        };
        let mut stream = std::pin::pin!(stream);
        let (began, mut heard) = (clock::boot(), None);
        let time = Duration::from_secs(WATCH_SECONDS.into()) + GRACE;
        let mut dead = std::pin::pin!(tokio::time::sleep(time));
        loop {
            let event = tokio::select! {
                event = stream.next() => event,
                // The server ends a watch after its time; one that goes on is dead, unless it is busy.
                () = &mut dead => {
                    if heard.is_some_and(|heard| clock::boot().since(heard) < LIVELY) {
                        break;
                    }
                    return Some(Failure::Unknown("the watch fell silent".to_owned()));
                }
            };
            let seen = match event {
                // Its time is over, or the server has none for us.
                None if heard.is_some() => break,
                None if clock::boot().since(began) >= SHORT => return None,
                None => return Some(Failure::Unknown("the watch ended at once".to_owned())),
                Some(Ok(WatchEvent::Added(object) | WatchEvent::Modified(object))) => {
                    if !advance(&mut version, object.metadata.resource_version.as_deref()) {
                        return None;
                    }
                    Seen::Put(Box::new(object))
                }
                Some(Ok(WatchEvent::Deleted(object))) => {
                    if !advance(&mut version, object.metadata.resource_version.as_deref()) {
                        return None;
                    }
                    Seen::Gone(Box::new(object))
                }
                Some(Ok(WatchEvent::Bookmark(bookmark))) => {
                    if !advance(&mut version, Some(&bookmark.metadata.resource_version)) {
                        return None;
                    }
                    pause.reset();
                    heard = Some(clock::boot());
                    continue;
                }
                Some(Ok(WatchEvent::Error(status))) if status.code == 410 => return None,
                Some(Ok(WatchEvent::Error(status))) => {
                    return Some(Failure::Unknown(status.message));
                }
                // Nothing tells what was in it.
                Some(Err(error)) => return Some(Failure::Unknown(error.to_string())),
            };
            pause.reset();
            heard = Some(clock::boot());
            tell(seen);
        }
    }
}

/// Goes on to the version `new`; `false`: it is behind, so the store was set back, as from a backup.
fn advance(version: &mut String, new: Option<&str>) -> bool {
    let Some(new) = new else { return true };
    if let (Ok(new), Ok(old)) = (new.parse::<u64>(), version.parse::<u64>())
        && new < old
    {
        tracing::warn!(
            before = old,
            now = new,
            "the API server's store was set back; listing anew"
        );
        return false;
    }
    new.clone_into(version);
    true
}
