//! Reads and writes the lease. Touches the network and the boot clock.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use tidegate_process::clock::{self, Boot};

use super::{Action, DURATION, Held, LOOK, Machine, RENEW, Record};
use crate::names;

/// How long one request may take: a renewal that hangs has to leave time for another.
const REQUEST: Duration = Duration::from_secs(4);

/// Why a replica no longer leads.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    #[error(
        "another replica has taken the Lease {namespace}/{}, or it was deleted: this one ends and stands by anew",
        names::LEASE
    )]
    Taken { namespace: String },
    #[error(
        "the Lease {namespace}/{} could not be renewed in time: this replica ends and stands by anew",
        names::LEASE
    )]
    Expired { namespace: String },
}

/// Takes the lease and keeps it.
pub struct Keeper {
    api: Api<Lease>,
    namespace: String,
    identity: String,
    machine: Machine,
    held: Held,
    /// The lease as last read or written, with the version that the next write replaces.
    last: Option<Lease>,
}

impl Keeper {
    /// `identity` is this process's alone. The client is one that no fence holds back.
    pub fn new(client: Client, namespace: &str, identity: String, held: Held) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
            machine: Machine::new(identity.clone()),
            identity,
            held,
            last: None,
        }
    }

    /// Stands by until this replica leads.
    pub async fn acquire(&mut self) {
        let mut told: Option<String> = None;
        loop {
            let action = match self.look().await {
                Ok(action) => action,
                Err(error) => {
                    tracing::warn!(%error, "the lease cannot be read");
                    Action::Wait(LOOK)
                }
            };
            match action {
                Action::Create | Action::Take | Action::Renew => match self.write(action).await {
                    Ok(()) => return,
                    Err(error) => {
                        tracing::info!(%error, "the lease was not taken");
                        tokio::time::sleep(crate::backoff::jittered(LOOK)).await;
                    }
                },
                Action::Wait(wait) => {
                    let holder = self.holder();
                    if holder != told {
                        tracing::info!(holder, "stands by");
                        told = holder;
                    }
                    tokio::time::sleep(wait).await;
                }
                // Not reached: what was never held is not lost.
                Action::Lost => tokio::time::sleep(LOOK).await,
            }
        }
    }

    /// Renews until the lease is lost, and says how.
    pub async fn keep(&mut self) -> LeaseError {
        let mut wait = RENEW;
        let mut unsure = false;
        loop {
            tokio::time::sleep(wait).await;
            if !self.machine.holds(clock::boot()) {
                self.held.give_up();
                return LeaseError::Expired { namespace: self.namespace.clone() };
            }
            // After a failure it is not known which version is there.
            if unsure {
                match self.look().await {
                    Ok(Action::Lost | Action::Create | Action::Take) => {
                        self.held.give_up();
                        return LeaseError::Taken { namespace: self.namespace.clone() };
                    }
                    Ok(_) => {}
                    Err(error) => {
                        tracing::warn!(%error, "the lease cannot be read");
                        wait = self.before_the_end(LOOK);
                        continue;
                    }
                }
            }
            match self.write(Action::Renew).await {
                Ok(()) => (wait, unsure) = (RENEW, false),
                Err(error) => {
                    tracing::warn!(%error, "the lease was not renewed");
                    let conflict = matches!(&error, kube::Error::Api(status) if status.code == 409);
                    wait = if conflict { Duration::ZERO } else { self.before_the_end(LOOK) };
                    unsure = true;
                }
            }
        }
    }

    /// Lets others take the lease at once. To be called when no write is on its way.
    pub async fn release(mut self) {
        self.held.give_up();
        let Some(mut lease) = self.last.take() else { return };
        if let Some(spec) = lease.spec.as_mut() {
            spec.holder_identity = None;
            spec.renew_time = Some(MicroTime(clock::now().wall));
        }
        if let Err(error) = self.replace(lease).await {
            tracing::info!(%error, "the lease was not released; others wait for its end");
        }
    }

    /// `wait`, or less where the lease ends before.
    fn before_the_end(&self, wait: Duration) -> Duration {
        wait.min(self.held.remaining().unwrap_or(Duration::ZERO))
    }

    fn holder(&self) -> Option<String> {
        self.last.as_ref()?.spec.as_ref()?.holder_identity.clone()
    }

    async fn look(&mut self) -> Result<Action, kube::Error> {
        self.last = within(self.api.get_opt(names::LEASE)).await?;
        let record = self.last.as_ref().map(record);
        Ok(self.machine.observe(record.as_ref(), clock::boot()))
    }

    /// Writes our name, on the version that was last seen; a conflict is an error.
    async fn write(&mut self, action: Action) -> Result<(), kube::Error> {
        let sent = clock::boot();
        let lease = claim(self.last.as_ref(), &self.identity, action);
        let written = if matches!(action, Action::Create) {
            within(self.api.create(&PostParams::default(), &lease)).await?
        } else {
            self.replace(lease).await?
        };
        self.last = Some(written);
        self.extend(sent);
        Ok(())
    }

    fn extend(&mut self, sent: Boot) {
        let until = self.machine.written(sent);
        self.held.extend(until);
    }

    async fn replace(&self, lease: Lease) -> Result<Lease, kube::Error> {
        within(self.api.replace(names::LEASE, &PostParams::default(), &lease)).await
    }
}

/// The lease with our name in it.
fn claim(last: Option<&Lease>, identity: &str, action: Action) -> Lease {
    let now = MicroTime(clock::now().wall);
    let mut lease = last.cloned().unwrap_or_else(|| Lease {
        metadata: ObjectMeta { name: Some(names::LEASE.to_owned()), ..ObjectMeta::default() },
        spec: None,
    });
    lease.metadata.managed_fields = None;
    let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
    if !matches!(action, Action::Renew) {
        spec.acquire_time = Some(now.clone());
        spec.lease_transitions =
            Some(spec.lease_transitions.map_or(0, |transitions| transitions.saturating_add(1)));
    }
    spec.holder_identity = Some(identity.to_owned());
    spec.lease_duration_seconds = i32::try_from(DURATION.as_secs()).ok();
    spec.renew_time = Some(now);
    lease
}

/// What of the lease counts.
fn record(lease: &Lease) -> Record {
    let spec = lease.spec.as_ref();
    Record {
        holder: spec.and_then(|spec| spec.holder_identity.clone()),
        duration: spec
            .and_then(|spec| spec.lease_duration_seconds)
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map(Duration::from_secs),
        renewed: spec.and_then(|spec| spec.renew_time.as_ref()).map(|at| at.0.to_string()),
        transitions: spec.and_then(|spec| spec.lease_transitions).unwrap_or(0),
    }
}

/// One request, which takes no longer than [`REQUEST`].
async fn within<T>(
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, kube::Error> {
    match tokio::time::timeout(REQUEST, request).await {
        Ok(answer) => answer,
        Err(late) => Err(kube::Error::Service(late.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_counts_the_hands_and_keeps_the_version() {
        let first = claim(None, "a", Action::Create);
        let spec = first.spec.clone().unwrap();
        assert_eq!(spec.lease_transitions, Some(0));
        assert_eq!(spec.lease_duration_seconds, Some(15));
        let mut stored = first;
        stored.metadata.resource_version = Some("7".to_owned());
        let renewed = claim(Some(&stored), "a", Action::Renew);
        assert_eq!(renewed.metadata.resource_version.as_deref(), Some("7"));
        let spec = renewed.spec.unwrap();
        assert_eq!(spec.lease_transitions, Some(0));
        let taken = claim(Some(&stored), "b", Action::Take);
        assert_eq!(taken.spec.as_ref().unwrap().lease_transitions, Some(1));
        assert_eq!(record(&taken).holder.as_deref(), Some("b"));
        assert_eq!(record(&taken).duration, Some(DURATION));
    }
}
