//! `cut`: asks for the end of sessions by `spec.cut`, and waits until their relays have said that the
//! sockets are closed.

use std::fmt::Write as _;
use std::time::Duration;

use clap::Args;
use futures_util::{StreamExt as _, TryStreamExt as _};
use kube::Api;
use kube::api::{Patch, PatchParams, WatchEvent, WatchParams};
use serde_json::json;
use tidegate_commands::Answer;
use tidegate_crds::SupportSession;
use tidegate_policy::text::{self, shown};
use tidegate_process::clock;

use crate::cluster::{Cluster, Trouble};
use crate::sessions::{Session, list};

/// Sessions that are cut and waited for at once.
const AT_ONCE: usize = 16;
/// The ClusterRole of those who may cut.
const AUTHOR: &str = "tidegate-window-author";
/// Between two attempts to watch, where the API server gives up.
const AGAIN: Duration = Duration::from_millis(500);
/// After this long a watch is begun anew, by the API server.
const WATCH_SECONDS: u32 = 25;

/// End sessions, and wait until they have ended.
///
/// A cut cannot be taken back. A session, or all live sessions of a window or a terminal in the namespace.
/// Exit code: 0 when all have ended, also when there was none of that window or terminal; 1 when one has
/// not, or there is no such session; 2 when it could not be asked for.
#[derive(Clone, Debug, Args)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(true))]
pub struct CutArgs {
    /// The session's name, as `sessions` lists it: ss-...
    #[arg(group = "which", conflicts_with_all = ["window", "terminal"])]
    pub session: Option<String>,
    /// All live sessions of this support window
    #[arg(long, group = "which", value_name = "WINDOW")]
    pub window: Option<String>,
    /// All live sessions on this terminal
    #[arg(long, group = "which", value_name = "TERMINAL")]
    pub terminal: Option<String>,
    /// How long to wait until they have ended
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = timeout)]
    pub timeout: Duration,
    /// Only ask for the cut
    #[arg(long)]
    pub no_wait: bool,
}

fn timeout(written: &str) -> Result<Duration, String> {
    let duration = text::duration(written).map_err(|error| error.to_string())?;
    Ok(duration.unsigned_abs())
}

/// What became of one session.
#[derive(Debug)]
enum Outcome {
    /// It has ended, this long after the cut was asked for.
    Ended(Box<Session>, Duration),
    /// It had ended before.
    Over(Box<Session>),
    Asked(Box<Session>),
    /// It has not ended in time.
    Late(Box<Session>),
    /// It could not be asked for; the sentence names the session.
    Failed(Trouble),
}

/// The answer, once it is known.
pub async fn run(cluster: &Cluster, args: &CutArgs) -> Answer {
    let sessions = match which(cluster, args).await {
        Ok(sessions) => sessions,
        Err(answer) => return answer,
    };
    if sessions.is_empty() {
        let namespace = &cluster.namespace;
        let of = match (&args.window, &args.terminal) {
            (Some(window), None) => format!("of window {}", shown(window, 63)),
            (Some(window), Some(terminal)) => {
                format!("of window {} on {}", shown(window, 63), shown(terminal, 63))
            }
            (None, Some(terminal)) => format!("on terminal {}", shown(terminal, 63)),
            (None, None) => String::new(),
        };
        let place = if cluster.all_namespaces {
            String::new()
        } else {
            format!(" in namespace {namespace}")
        };
        return Answer::good(format!("there is no live session {of}{place}\n"));
    }
    let cuts = sessions.into_iter().map(|session| cut(cluster, session, args));
    let outcomes: Vec<Outcome> = futures_util::stream::iter(cuts).buffered(AT_ONCE).collect().await;
    tell(&outcomes, args.timeout)
}

/// The sessions that are meant.
async fn which(cluster: &Cluster, args: &CutArgs) -> Result<Vec<Session>, Answer> {
    let namespace = (!cluster.all_namespaces).then_some(cluster.namespace.as_str());
    if let Some(name) = &args.session {
        let fields = format!("metadata.name={}", selectable(name)?);
        let mut found = list(cluster, namespace, Some(&fields)).await?;
        if found.is_empty() && namespace.is_some() && !cluster.named {
            // The name is unique in the whole cluster.
            found = list(cluster, None, Some(&fields)).await.unwrap_or_default();
        }
        if found.is_empty() {
            let place = match namespace {
                Some(namespace) => format!("in namespace {namespace}; give -n NAMESPACE"),
                None => "in this cluster".to_owned(),
            };
            return Err(Answer::refused(format!(
                "there is no session {} {place}; `kubectl tidegate sessions -A` lists those that are live",
                shown(name, 80)
            )));
        }
        return Ok(found);
    }
    let fields = match &args.terminal {
        Some(terminal) => Some(format!("spec.terminal={}", selectable(terminal)?)),
        None => None,
    };
    let mut found = list(cluster, namespace, fields.as_deref()).await?;
    found.retain(|session| {
        session.is_live() && args.window.as_ref().is_none_or(|window| *window == session.window)
    });
    Ok(found)
}

/// A name that means itself in a field selector.
fn selectable(name: &str) -> Result<&str, Answer> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    if !name.is_empty() && name.bytes().all(plain) {
        Ok(name)
    } else {
        Err(Answer::usage(format!("{} is no name of an object", shown(name, 80))))
    }
}

async fn cut(cluster: &Cluster, session: Session, args: &CutArgs) -> Outcome {
    if !session.is_live() {
        return Outcome::Over(session.into());
    }
    let api: Api<SupportSession> = Api::namespaced(cluster.client.clone(), &session.namespace);
    let begun = clock::boot();
    let what = format!("cut session {} in namespace {}", session.name, session.namespace);
    let patch = Patch::Merge(json!({ "spec": { "cut": true } }));
    let params = PatchParams::default();
    match cluster.ask(&what, AUTHOR, api.patch(&session.name, &params, &patch)).await {
        // Ended and gone since it was listed.
        Err(trouble) if trouble.absent => return Outcome::Over(session.into()),
        Err(trouble) => return Outcome::Failed(trouble),
        Ok(_) if args.no_wait => return Outcome::Asked(session.into()),
        Ok(_) => {}
    }
    match tokio::time::timeout(args.timeout, ended(&api, &session)).await {
        Ok(ended) => Outcome::Ended(ended.into(), clock::boot().since(begun)),
        Err(_) => Outcome::Late(session.into()),
    }
}

/// Waits until the session has ended, however long that takes. What it looked like last.
async fn ended(api: &Api<SupportSession>, session: &Session) -> Session {
    let mut last = session.clone();
    loop {
        let version = match api.get_opt(&session.name).await {
            Ok(None) => return last,
            Ok(Some(object)) => {
                let version = object.metadata.resource_version.clone();
                last = object.into();
                if !last.is_live() {
                    return last;
                }
                version
            }
            Err(_) => None,
        };
        if let Some(version) = version
            && let Some(ended) = watched(api, session, &version).await
        {
            return ended;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// The session once it has ended, unless the watch ends before.
async fn watched(api: &Api<SupportSession>, session: &Session, version: &str) -> Option<Session> {
    let params = WatchParams::default()
        .fields(&format!("metadata.name={}", session.name))
        .timeout(WATCH_SECONDS);
    let mut events = api.watch(&params, version).await.ok()?.boxed();
    while let Some(event) = events.try_next().await.ok()? {
        match event {
            WatchEvent::Deleted(object) => return Some(object.into()),
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                let seen = Session::from(object);
                if !seen.is_live() {
                    return Some(seen);
                }
            }
            WatchEvent::Bookmark(_) => {}
            WatchEvent::Error(_) => return None,
        }
    }
    None
}

fn tell(outcomes: &[Outcome], timeout: Duration) -> Answer {
    let mut answer = Answer::default();
    for outcome in outcomes {
        let code = match outcome {
            Outcome::Ended(session, took) => {
                let mut line = format!(
                    "cut {}: {} ended {} after the cut was asked for",
                    session.name,
                    session.who(),
                    seconds(*took)
                );
                if let Some(overrun) = &session.overrun {
                    let _ = write!(line, ", overrun {overrun}");
                }
                if let Some(by) = session.ended_by.filter(|by| *by != "Cut") {
                    let _ = write!(line, ", ended by {by}");
                }
                let _ = writeln!(answer.stdout, "{}", crate::output::clean(&line));
                0
            }
            Outcome::Asked(session) => {
                let _ = writeln!(answer.stdout, "asked to cut {}: {}", session.name, session.who());
                0
            }
            Outcome::Over(session) => {
                let by = session.ended_by.map_or(String::new(), |by| format!(", by {by}"));
                let _ = writeln!(
                    answer.stdout,
                    "{}: {} had ended already{by}",
                    session.name,
                    session.who()
                );
                0
            }
            Outcome::Late(session) => {
                let _ = writeln!(
                    answer.stderr,
                    "{}: {} has not ended within {}; relay pod {} has not said that its sockets are closed, \
                     so look at that pod",
                    session.name,
                    session.who(),
                    seconds(timeout),
                    session.relay_pod
                );
                1
            }
            Outcome::Failed(trouble) => {
                let _ = writeln!(answer.stderr, "{trouble}");
                2
            }
        };
        answer.code = answer.code.max(code);
    }
    answer
}

/// `0.4s`, `30s`
fn seconds(duration: Duration) -> String {
    let tenths = duration.as_millis() / 100;
    match tenths % 10 {
        0 => format!("{}s", tenths / 10),
        rest => format!("{}.{rest}s", tenths / 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(name: &str) -> Session {
        let object = json!({
            "apiVersion": "tidegate.dev/v1alpha1",
            "kind": "SupportSession",
            "metadata": {"name": name, "namespace": "support"},
            "spec": {
                "window": {"name": "berlin", "uid": "u"},
                "opensAt": "2026-11-23T08:00:00Z",
                "user": "alice",
                "terminal": "kiosk-17",
                "service": "ssh",
                "relayPod": "eu-0",
                "openedAt": "2026-11-23T09:00:00Z",
                "deadline": "2026-11-23T10:00:00Z",
            },
            "status": {"endedBy": "Cut", "overrun": "12ms"},
        });
        serde_json::from_value::<SupportSession>(object).unwrap().into()
    }

    #[test]
    fn what_became_of_each_is_said_and_the_worst_is_the_exit_code() {
        let boxed = |name: &str| Box::new(session(name));
        let took = Duration::from_millis(430);
        let ended = || Outcome::Ended(boxed("ss-1"), took);
        let answer = tell(&[ended(), Outcome::Over(boxed("ss-2"))], took);
        assert_eq!(answer.code, 0);
        assert_eq!(
            answer.stdout,
            "cut ss-1: alice on kiosk-17/ssh ended 0.4s after the cut was asked for, overrun 12ms\n\
             ss-2: alice on kiosk-17/ssh had ended already, by Cut\n"
        );
        let late = tell(&[ended(), Outcome::Late(boxed("ss-2"))], Duration::from_secs(30));
        assert_eq!(late.code, 1);
        assert!(
            late.stderr.starts_with(
                "ss-2: alice on kiosk-17/ssh has not ended within 30s; relay pod eu-0"
            ),
            "{}",
            late.stderr
        );
        let failed = Outcome::Failed(Trouble::new("no"));
        assert_eq!(tell(&[failed, ended()], took).code, 2);
    }

    #[test]
    fn names_cannot_select_anything_else() {
        assert!(selectable("ss-0193").is_ok());
        for bad in ["", "a,b", "a=b", "a b", "a\\"] {
            assert!(selectable(bad).is_err(), "{bad}");
        }
    }
}
