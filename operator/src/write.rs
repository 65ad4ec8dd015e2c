//! Every write that a controller sends. Touches the network.
//!
//! A write is sent only while this replica surely leads, by its own boot clock, and given up before it
//! stops to: the client's requests carry their time limit to the server too, and below TLS a fence
//! refuses every byte once the lease is over (`fence`). So a leader that was paused past its lease and
//! goes on writes nothing more.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::Request;
use kube::{Client, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::fence::LONGEST_WRITE;
use crate::lease::Held;
use crate::metrics::{Metrics, Outcome};

/// Why a write was not made, or not surely.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Nothing was sent.
    #[error("not written, since this replica no longer surely leads")]
    NotLeading,
    /// It may have been made.
    #[error("no answer from the API server within {}s; it may have been written", .0.as_secs())]
    Late(Duration),
    /// What was to be sent cannot be put into words: a fault of this program.
    #[error("not written: {0}")]
    Malformed(String),
    /// As the API server said, or the way to it failed.
    #[error(transparent)]
    Kube(#[from] kube::Error),
}

impl WriteError {
    /// The HTTP status that the API server answered with.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Kube(kube::Error::Api(status)) => Some(status.code),
            _ => None,
        }
    }

    /// The object is not there.
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// Another has written it, or a precondition does not hold.
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }
}

/// What came of a create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Creation<K> {
    Created(K),
    /// One of that name is there already, and was left alone.
    Exists,
}

/// Sends writes while this replica surely leads, and none after. Clones share everything.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    held: Held,
    metrics: Arc<Metrics>,
}

impl Writer {
    /// `client` is for writes alone: see [`crate::fence::client`].
    pub fn new(client: Client, held: Held, metrics: Arc<Metrics>) -> Self {
        Self { client, held, metrics }
    }

    /// For what writes by itself, such as an events recorder: it is fenced as the writes here are.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Whether a write would be sent now.
    pub fn leads(&self) -> bool {
        self.held.remaining().is_some()
    }

    /// Server-side apply of a whole object by `manager`, by force: what it names is ours.
    pub async fn apply<K>(&self, manager: &str, object: &K) -> Result<K, WriteError>
    where
        K: Resource<DynamicType = ()> + Serialize + DeserializeOwned + Clone + Debug,
    {
        let body = named::<K>(object)?;
        self.patch(object, None, &PatchParams::apply(manager).force(), &Patch::Apply(body)).await
    }

    /// Server-side apply of `status` alone, by `manager`, to the object that `of` was read as: its uid
    /// goes with it, so that one of the same name that came later is not written to (409).
    pub async fn apply_status<K, S>(
        &self,
        manager: &str,
        of: &K,
        status: &S,
    ) -> Result<K, WriteError>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug,
        S: Serialize,
    {
        let body = json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            "metadata": {"name": of.name_any(), "uid": of.uid()},
            "status": status,
        });
        let params = PatchParams::apply(manager).force();
        self.patch(of, Some("status"), &params, &Patch::Apply(body)).await
    }

    /// A JSON merge patch of the object that `of` was read as, or of its `subresource`.
    pub async fn merge<K>(
        &self,
        manager: &str,
        of: &K,
        subresource: Option<&str>,
        change: serde_json::Value,
    ) -> Result<K, WriteError>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug,
    {
        let params =
            PatchParams { field_manager: Some(manager.to_owned()), ..PatchParams::default() };
        self.patch(of, subresource, &params, &Patch::Merge(change)).await
    }

    /// Creates the object unless one of its name is there.
    pub async fn create_if_absent<K>(
        &self,
        manager: &str,
        object: &K,
    ) -> Result<Creation<K>, WriteError>
    where
        K: Resource<DynamicType = ()> + Serialize + DeserializeOwned + Clone + Debug,
    {
        let body = serde_json::to_vec(object).map_err(malformed)?;
        let params =
            PostParams { field_manager: Some(manager.to_owned()), ..PostParams::default() };
        let request = Request::new(path(object)).create(&params, body).map_err(malformed)?;
        match self.send(self.client.request(request)).await {
            Ok(created) => Ok(Creation::Created(created)),
            Err(error) if error.is_conflict() => Ok(Creation::Exists),
            Err(error) => Err(error),
        }
    }

    /// Deletes the object that `of` was read as, and no other of that name. `false`: it was gone.
    pub async fn delete<K>(&self, of: &K) -> Result<bool, WriteError>
    where
        K: Resource<DynamicType = ()>,
    {
        let mut params = DeleteParams::background();
        params.preconditions = Some(Preconditions { uid: of.uid(), resource_version: None });
        self.delete_with(of, &params).await
    }

    /// Deletes with preconditions and propagation of the caller's. `false`: it was gone.
    pub async fn delete_with<K>(&self, of: &K, params: &DeleteParams) -> Result<bool, WriteError>
    where
        K: Resource<DynamicType = ()>,
    {
        let request = Request::new(path(of)).delete(&of.name_any(), params).map_err(malformed)?;
        let answer = self.send(self.client.request::<serde_json::Value>(request)).await;
        match answer {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Sends what `request` is, if this replica leads, for as long as it surely does.
    pub async fn send<T>(
        &self,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, WriteError> {
        let pass = self.held.enter().ok_or(WriteError::NotLeading)?;
        let limit = pass.remaining().min(LONGEST_WRITE);
        let answer = match tokio::time::timeout(limit, request).await {
            Ok(answer) => answer.map_err(WriteError::Kube),
            Err(_) => Err(WriteError::Late(limit)),
        };
        self.metrics.wrote(Outcome::of(&answer));
        answer
    }

    async fn patch<K, P>(
        &self,
        of: &K,
        subresource: Option<&str>,
        params: &PatchParams,
        patch: &Patch<P>,
    ) -> Result<K, WriteError>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug,
        P: Serialize + Debug,
    {
        let (requests, name) = (Request::new(path(of)), of.name_any());
        let request = match subresource {
            None => requests.patch(&name, params, patch),
            Some(subresource) => requests.patch_subresource(subresource, &name, params, patch),
        };
        self.send(self.client.request(request.map_err(malformed)?)).await
    }
}

/// The collection that the object is in.
fn path<K: Resource<DynamicType = ()>>(object: &K) -> String {
    K::url_path(&(), object.namespace().as_deref())
}

/// The object as server-side apply wants it: with its type, without what only the server writes.
fn named<K>(object: &K) -> Result<serde_json::Value, WriteError>
where
    K: Resource<DynamicType = ()> + Serialize,
{
    let mut body = serde_json::to_value(object).map_err(malformed)?;
    if let Some(fields) = body.as_object_mut() {
        fields.insert("apiVersion".to_owned(), json!(K::api_version(&())));
        fields.insert("kind".to_owned(), json!(K::kind(&())));
        if let Some(metadata) = fields.get_mut("metadata").and_then(|value| value.as_object_mut()) {
            metadata.remove("managedFields");
        }
    }
    Ok(body)
}

fn malformed(error: impl std::fmt::Display) -> WriteError {
    WriteError::Malformed(error.to_string())
}
