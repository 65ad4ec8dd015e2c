//! What the operator knows of policy, and says of it: whether each SupportWindow, LoginUser and Terminal
//! is accepted, and when windows open next.
//!
//! One task owns the watches of Meshes, Namespaces and the three kinds, and `State`, which is pure. What
//! is to be written goes through one queue, a dozen at a time (`status_writer`). At rest nothing is
//! written, and nothing requested but the watches. Touches the network and the clock.

pub mod before;
mod news;
mod state;
pub(crate) mod topology;
pub mod word;

#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::{BoxStream, FuturesUnordered, SelectAll};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::core::{ObjectMeta, PartialObjectMeta, PartialObjectMetaExt as _};
use kube::{Resource, ResourceExt as _};
use serde::Serialize;
use tidegate_crds::manifest::{Kind, ObjectRef};
use tidegate_crds::{LoginUser, SupportWindow, Terminal};
use tidegate_process::clock;

use crate::Context;
use crate::events;
use crate::metrics::Outcome;
use crate::names::manager;
use crate::status_writer::PARALLEL;
use crate::write::WriteError;
use news::News;
use state::{AnyStatus, FRAME, State, WRITTEN, Write, Written};

/// How many objects are looked at before the task lets others run.
const LOOKS: usize = 200;
/// The longest sleep: a suspended machine's timers are late.
const NAP: Duration = Duration::from_secs(30);
/// How long Meshes and namespaces may go on changing before everything is listed anew.
const SETTLE: Duration = Duration::from_millis(200);

type Watches = SelectAll<BoxStream<'static, (Kind, News)>>;
type Writes = FuturesUnordered<Pin<Box<dyn Future<Output = (Write, Written)> + Send>>>;

/// Runs for ever.
pub async fn run(ctx: Arc<Context>) {
    let mut state = State::new();
    let start = |kinds: &[Kind]| -> Watches {
        kinds.iter().map(|kind| news::watch(&ctx.client, *kind)).collect()
    };
    let (mut frame, mut objects) = (start(&FRAME), Watches::new());
    let mut writes = Writes::new();
    let mut complete = false;
    loop {
        if state.wants_list() {
            tokio::time::sleep(SETTLE).await;
            objects = start(&WRITTEN);
        }
        if complete != state.is_complete() {
            complete = !complete;
            if complete {
                show(&ctx, &state);
                tracing::info!("windows, users and terminals are known");
            }
        }
        let mut more = false;
        while writes.len() < PARALLEL {
            let Some(write) = state.next(LOOKS, clock::now()) else {
                more = state.is_complete() && state.has_ready();
                break;
            };
            writes.push(Box::pin(send(Arc::clone(&ctx), write)));
        }
        let wait = if more {
            Duration::ZERO
        } else {
            let due = state.due().filter(|_| state.is_complete() && writes.len() < PARALLEL);
            due.map_or(NAP, |due| due.since(clock::boot()).min(NAP))
        };
        tokio::select! {
            Some((kind, news)) = frame.next() => hear(&ctx, &mut state, kind, news),
            Some((kind, news)) = objects.next() => hear(&ctx, &mut state, kind, news),
            Some((write, written)) = writes.next() => {
                let key = Arc::clone(&write.key);
                if let Some(wait) = state.written(write, written, clock::boot()) {
                    tracing::debug!(object = %key, ?wait, "a status is tried again");
                }
                if state.is_idle() {
                    show(&ctx, &state);
                }
            }
            () = tokio::time::sleep(wait) => {}
        }
    }
}

fn hear(ctx: &Context, state: &mut State, kind: Kind, news: News) {
    if let News::Failed(error) = &news {
        ctx.metrics.watch_failed(kind.as_str());
        tracing::warn!(kind = kind.as_str(), error, "a watch failed and is begun again");
    }
    state.hear(kind, news, clock::boot());
}

fn show(ctx: &Context, state: &State) {
    for kind in WRITTEN {
        ctx.metrics.set_objects(kind.as_str(), state.count(kind));
    }
}

/// Writes one status, and before that the event of a refusal.
async fn send(ctx: Arc<Context>, write: Write) -> (Write, Written) {
    let result = match &write.status {
        AnyStatus::Window(status) => {
            one::<SupportWindow, _>(&ctx, manager::SUPPORT_WINDOW, &write, status).await
        }
        AnyStatus::User(status) => {
            one::<LoginUser, _>(&ctx, manager::LOGIN_USER, &write, status).await
        }
        AnyStatus::Terminal(status) => {
            one::<Terminal, _>(&ctx, manager::TERMINAL, &write, status).await
        }
    };
    ctx.metrics.wrote(Outcome::of(&result));
    let written = match result {
        Ok(version) => Written::As(version),
        // 409: another of its name is there.
        Err(error) if error.is_not_found() || error.is_conflict() => Written::Gone,
        Err(error) if matches!(error.code(), Some(400 | 413 | 422)) => {
            tracing::warn!(object = %write.key, %error, "the API server refuses a status");
            Written::Refused
        }
        Err(error) => {
            tracing::info!(object = %write.key, %error, "a status was not written");
            Written::Failed
        }
    };
    (write, written)
}

async fn one<K, S>(
    ctx: &Context,
    manager: &str,
    write: &Write,
    status: &S,
) -> Result<u64, WriteError>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug,
    S: Serialize,
{
    let ObjectRef { namespace, name, .. } = &*write.key;
    let metadata = ObjectMeta {
        name: Some(name.clone()),
        namespace: Some(namespace.clone()),
        uid: Some(write.uid.to_string()),
        ..ObjectMeta::default()
    };
    let object: PartialObjectMeta<K> = metadata.into_request_partial();
    if let Some((reason, sentence)) = &write.warning {
        let regarding = ObjectReference {
            api_version: Some(K::api_version(&()).into_owned()),
            kind: Some(K::kind(&()).into_owned()),
            ..object.object_ref(&())
        };
        ctx.events.say(events::Kind::Warning, regarding, reason, sentence, "Accept");
    }
    let written = ctx.writer.apply_status(manager, &object, status).await?;
    let version = written.resource_version().and_then(|version| version.parse().ok());
    Ok(version.unwrap_or_default())
}
