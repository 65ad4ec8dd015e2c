//! The SupportClaim controller: frees places that nobody uses any more, and deletes the claims of
//! one-time windows once nothing can come of them.
//!
//! Once means once (invariant 6): the claim of a one-time window stays while a window of its name is
//! there, and until a day after it has closed. A reusable claim is freed when its relay is reported
//! terminated, or its session has ended. When in doubt a claim stays. `step` is the rule and pure; `act`
//! reads and writes.

use jiff::{SignedDuration, Timestamp};
use kube::api::ObjectMeta;
use kube::core::PartialObjectMetaExt as _;
use kube::{Api, Client};
use tidegate_crds::{SupportClaim, SupportWindow};

use crate::Context;
use crate::records::{Claim, PodState, RecordError, Records, Session, Step, Whereabouts};
use crate::watching::Key;

/// No occurrence lasts longer (DESIGN.md section 5), so that one which opened earlier has closed: that
/// counts where a claim does not say when its occurrence closes. The window may be gone.
const LONGEST: SignedDuration = SignedDuration::from_hours(168);
/// How long a claim is kept after that.
const KEPT: SignedDuration = SignedDuration::from_hours(24);
/// How long a relay has to release the claim of a session that it has ended.
const RELEASED: SignedDuration = SignedDuration::from_mins(1);

/// A claim that is to be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Act {
    pub key: Key,
    pub claim: Claim,
    /// The pod that is to be asked for first: the claim stays if it is there.
    pub unless_pod: Option<Whereabouts>,
    /// The window that is to be asked for first: the claim stays if it is there.
    pub unless_window: Option<Key>,
}

/// What is to be done about the claim, and when.
pub fn step(records: &Records, key: &Key, now: Timestamp) -> Step<Act> {
    let Some(claim) = records.claims.objects().get(key) else { return Step::Nothing };
    // Claims are in their Mesh's namespace, where its relays' pods are.
    let place = Whereabouts::within(&key.namespace, &claim.pod);
    let pod = records.pod(&place);
    let session = records.sessions.objects().get(&claim.session);
    let window = records.windows.objects().contains_key(&claim.window);
    let is_home = records
        .tenancy
        .namespaces
        .get(&key.namespace)
        .is_some_and(|service| service.mesh.namespace == key.namespace);
    // In a namespace of no Mesh nobody knows what a claim is for.
    let pod = if is_home { pod } else { PodState::Unknown };
    let free = match rule(claim, pod, session, window, now) {
        Step::Nothing => return Step::Nothing,
        Step::At(at) => return Step::At(at),
        Step::Act(free) => free,
    };
    Step::Act(Act {
        key: key.clone(),
        claim: claim.clone(),
        unless_pod: (free == Free::Over && pod == PodState::Gone).then_some(place),
        unless_window: (free == Free::Once).then(|| claim.window.clone()),
    })
}

/// Why a claim may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Free {
    /// The relay that made it runs no more.
    Over,
    /// Its session has ended, or its occurrence.
    Ended,
    /// Its window is gone, and closed long ago.
    Once,
}

fn rule(
    claim: &Claim,
    pod: PodState,
    session: Option<&Session>,
    window: bool,
    now: Timestamp,
) -> Step<Free> {
    let after = |at: Timestamp, wait| at.saturating_add(wait).unwrap_or(Timestamp::MAX);
    let when = |at, free| if now >= at { Step::Act(free) } else { Step::At(at) };
    if claim.deleting {
        return Step::Nothing;
    }
    let over = claim.opens_at.map(|opens| after(after(opens, LONGEST), KEPT));
    if !claim.reusable {
        // One that closes before it opens says nothing.
        let closes = claim.closes_at.filter(|closes| claim.opens_at.is_none_or(|at| at <= *closes));
        // The window's end wakes this again.
        return match closes.map(|closes| after(closes, KEPT)).or(over) {
            Some(over) if !window => when(over, Free::Once),
            _ => Step::Nothing,
        };
    }
    if pod.is_over() {
        return Step::Act(Free::Over);
    }
    if let Some(ended) = session.and_then(|session| session.ended_at) {
        return when(after(ended, RELEASED), Free::Ended);
    }
    over.map_or(Step::Nothing, |over| when(over, Free::Ended))
}

/// Deletes the claim that was seen, unless its window is there after all.
pub async fn act(ctx: &Context, act: Act) -> Result<(), RecordError> {
    if let Some(window) = &act.unless_window
        && window_is_there(&ctx.client, window).await?
    {
        return Ok(());
    }
    let object = ObjectMeta {
        namespace: Some(act.key.namespace.clone()),
        name: Some(act.key.name.clone()),
        uid: act.claim.uid.clone(),
        ..ObjectMeta::default()
    }
    .into_request_partial::<SupportClaim>();
    if ctx.writer.delete(&object).await? {
        tracing::info!(claim = %act.key, reusable = act.claim.reusable, "freed a claim");
    }
    Ok(())
}

/// Asked of the API server itself.
async fn window_is_there(client: &Client, window: &Key) -> Result<bool, RecordError> {
    let api: Api<SupportWindow> = Api::namespaced(client.clone(), &window.namespace);
    match api.get_metadata_opt(&window.name).await {
        Ok(found) => Ok(found.is_some()),
        Err(source) => Err(RecordError::Read { what: format!("SupportWindow {window}"), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    const WEEK_AND_DAY: i64 = (168 + 24) * 3600;

    fn claim(reusable: bool) -> Claim {
        Claim {
            uid: Some("u".to_owned()),
            window: Key::new("acme", "w"),
            opens_at: Some(at(1000)),
            closes_at: None,
            session: Key::new("acme", "ss-1"),
            pod: "relay-1".to_owned(),
            reusable,
            deleting: false,
        }
    }

    fn session(ended: Option<i64>) -> Session {
        Session {
            uid: None,
            version: None,
            generation: None,
            pod: "relay-1".to_owned(),
            deadline: Some(at(5000)),
            ended_at: ended.map(at),
            finalizers: Vec::new(),
            deleting: false,
        }
    }

    #[test]
    fn a_one_time_claim_outlives_its_relay_its_session_and_its_window_by_a_day() {
        let claim = claim(false);
        let ended = session(Some(2000));
        let over = 1000 + WEEK_AND_DAY;
        for pod in [PodState::Ready, PodState::Unknown, PodState::Gone, PodState::Ended(None)] {
            let look = |window, now| rule(&claim, pod, Some(&ended), window, at(now));
            assert_eq!(look(true, over + 1_000_000), Step::Nothing, "its window is there");
            assert_eq!(look(false, over - 1), Step::At(at(over)));
            assert_eq!(look(false, over), Step::Act(Free::Once));
        }
        let unreadable = Claim { opens_at: None, ..claim };
        assert_eq!(rule(&unreadable, PodState::Gone, None, false, at(1 << 30)), Step::Nothing);
    }

    #[test]
    fn a_one_time_claim_that_says_when_it_closes_is_kept_for_a_day_after_that() {
        let says = |closes| Claim { closes_at: Some(at(closes)), ..claim(false) };
        let look = |claim: &Claim, window, now| rule(claim, PodState::Gone, None, window, at(now));
        let day = 24 * 3600;
        let short = says(4600);
        assert_eq!(look(&short, true, 1 << 30), Step::Nothing, "its window is there");
        assert_eq!(look(&short, false, 4600 + day - 1), Step::At(at(4600 + day)));
        assert_eq!(look(&short, false, 4600 + day), Step::Act(Free::Once));
        let nonsense = says(999);
        assert_eq!(look(&nonsense, false, 5000 + day), Step::At(at(1000 + WEEK_AND_DAY)));
    }

    #[test]
    fn what_a_claim_says_of_its_end_is_read() {
        for (said, expected) in [
            (Some("2026-11-24T22:00:00Z"), "2026-11-24T22:00:00Z".parse().ok()),
            (Some("tomorrow"), None),
            (None, None),
        ] {
            let mut object: SupportClaim = serde_json::from_value(serde_json::json!({
                "apiVersion": "tidegate.dev/v1alpha1", "kind": "SupportClaim",
                "metadata": {"namespace": "fleet", "name": "sc-1"},
                "spec": {
                    "window": {"namespace": "acme", "name": "w", "uid": "u"},
                    "opensAt": "2026-11-24T20:00:00Z", "index": 0, "session": "ss-1",
                    "relayPod": "relay-1", "reusable": false,
                },
            }))
            .unwrap();
            object.metadata.annotations = said.map(|at| {
                [(tidegate_crds::support_claim::CLOSES_AT.to_owned(), at.to_owned())].into()
            });
            assert_eq!(Claim::of(&object).closes_at, expected, "{said:?}");
        }
    }

    #[test]
    fn a_place_is_free_once_nobody_can_be_in_it() {
        let claim = claim(true);
        let look = |pod, session: Option<&Session>, now| rule(&claim, pod, session, true, at(now));
        let over = at(1000 + WEEK_AND_DAY);
        let (running, ended) = (session(None), session(Some(2000)));
        assert_eq!(look(PodState::Ready, None, 1500), Step::At(over), "not recorded yet");
        assert_eq!(look(PodState::Unknown, Some(&running), 6000), Step::At(over), "in doubt");
        assert_eq!(look(PodState::Ready, Some(&ended), 2001), Step::At(at(2060)));
        assert_eq!(look(PodState::Ready, Some(&ended), 2060), Step::Act(Free::Ended));
        assert_eq!(look(PodState::Gone, Some(&running), 1500), Step::Act(Free::Over));
        assert_eq!(look(PodState::Ended(None), None, 1500), Step::Act(Free::Over));
        let deleting = Claim { deleting: true, ..claim.clone() };
        assert_eq!(rule(&deleting, PodState::Gone, None, false, over), Step::Nothing);
    }
}
