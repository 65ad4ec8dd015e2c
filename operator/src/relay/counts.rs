//! How many terminals and sessions each fleet has, by its replicas' own word, every 30 s. Touches the
//! network through `admin_port` alone.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::runtime::reflector::Store;
use tokio::sync::watch;

use super::admin_port::{self, Count};
use super::build::RELAY_LABEL;
use super::queue::Key;

/// Between two rounds.
const PERIOD: Duration = Duration::from_secs(30);
/// Replicas that are asked at once.
const AT_ONCE: usize = 16;

/// The counts of each fleet whose replicas were asked.
pub type Counts = BTreeMap<Key, Count>;

/// Asks for ever. Tells of a round only where a fleet's counts have moved by what is worth a write.
pub async fn run(pods: Store<Pod>, tell: watch::Sender<Counts>) {
    // By uid: what a replica that does not answer now said last still counts while its pod is there.
    let mut last: HashMap<String, Count> = HashMap::new();
    loop {
        tokio::time::sleep(PERIOD).await;
        let pods = pods.state();
        let answers: Vec<(String, Count)> = stream::iter(pods.clone())
            .map(ask)
            .buffer_unordered(AT_ONCE)
            .filter_map(std::future::ready)
            .collect()
            .await;
        let answered = !answers.is_empty();
        last.extend(answers);
        last.retain(|uid, _| pods.iter().any(|pod| pod.uid().as_ref() == Some(uid)));
        let now = sum(&pods, &last);
        if !answered && now.is_empty() {
            continue;
        }
        tell.send_if_modified(|told| {
            let moved = worth_telling(told, &now);
            if moved {
                told.clone_from(&now);
            }
            moved
        });
    }
}

async fn ask(pod: Arc<Pod>) -> Option<(String, Count)> {
    let uid = pod.uid()?;
    match admin_port::read(&pod).await {
        Ok(count) => Some((uid, count)),
        Err(error) => {
            tracing::debug!(%error, pod = pod.name_any(), "a replica was not counted");
            None
        }
    }
}

/// Of each fleet of which at least one replica has ever answered.
fn sum(pods: &[Arc<Pod>], counts: &HashMap<String, Count>) -> Counts {
    let mut sums = Counts::new();
    for pod in pods {
        let name = pod.labels().get(RELAY_LABEL);
        let count = pod.uid().and_then(|uid| counts.get(&uid).copied());
        if let (Some(name), Some(count)) = (name, count) {
            let key = Key { namespace: pod.namespace().unwrap_or_default(), name: name.clone() };
            let sum = sums.entry(key).or_default();
            sum.terminals = sum.terminals.saturating_add(count.terminals);
            sum.sessions = sum.sessions.saturating_add(count.sessions);
        }
    }
    sums
}

fn worth_telling(told: &Counts, now: &Counts) -> bool {
    told.len() != now.len()
        || now.iter().any(|(key, count)| {
            told.get(key).is_none_or(|told| {
                moved(told.terminals, count.terminals) || moved(told.sessions, count.sessions)
            })
        })
}

/// Whether a count is at least 5 % off the one that was written.
pub fn moved(written: u32, now: u32) -> bool {
    written != now && u64::from(written.abs_diff(now)) * 20 >= u64::from(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_in_a_hundred_are_worth_a_write() {
        for (written, now, worth) in [
            (0, 0, false),
            (0, 1, true),
            (1, 0, true),
            (7, 7, false),
            (100, 104, false),
            (100, 105, true),
            (100, 96, false),
            (100, 95, true),
            (20, 21, true),
            (21, 22, false),
            (u32::MAX, 0, true),
        ] {
            assert_eq!(moved(written, now), worth, "{written} to {now}");
        }
    }
}
