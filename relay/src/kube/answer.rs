//! What a failed request says of the API server, and of whether anything was done there.

use std::future::Future;
use std::time::Duration;

use kube::Error;

/// Why a request did not succeed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Failure {
    /// It was answered, and nothing was done: the request is refused as it stands.
    #[error("{why}")]
    Refused { code: u16, why: String },
    /// It was answered that the object is there already (create), or is not the one that was meant.
    #[error("{0}")]
    Conflict(String),
    /// There is no such object, kind or namespace.
    #[error("{0}")]
    NotFound(String),
    /// It was answered, and that leaves open whether anything was done.
    #[error("{why}")]
    Failed { code: u16, why: String },
    /// It was not answered in time, which leaves the same open.
    #[error("{0}")]
    Late(String),
    /// There was no way to the API server, or it broke off, which leaves the same open.
    #[error("{0}")]
    Unknown(String),
}

impl Failure {
    /// Whether something may have been done.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Failed { .. } | Self::Late(_) | Self::Unknown(_))
    }

    fn of(error: Error) -> Self {
        let Error::Api(status) = error else { return Self::Unknown(chain(&error)) };
        let why = format!("{} ({})", status.message, status.code);
        match status.code {
            404 => Self::NotFound(why),
            409 => Self::Conflict(why),
            // The server's own limit answers before anything is done; but so may one half way.
            code @ (400 | 401 | 403 | 405 | 406 | 410 | 413 | 415 | 422) => {
                Self::Refused { code, why }
            }
            code => Self::Failed { code, why },
        }
    }
}

/// Sends a request, and gives up on its answer after `patience`.
pub async fn ask<T>(
    patience: Duration,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(patience, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(Failure::of(error)),
        Err(_) => {
            let waited = crate::sentences::duration(patience);
            Err(Failure::Late(format!("no answer within {waited}")))
        }
    }
}

/// The same where "there is none" is an answer.
pub async fn find<T>(
    patience: Duration,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<Option<T>, Failure> {
    match ask(patience, request).await {
        Ok(found) => Ok(Some(found)),
        Err(Failure::NotFound(_)) => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// An error with what caused it: kube's own words alone rarely say.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
