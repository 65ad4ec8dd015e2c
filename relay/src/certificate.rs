//! The certificate of TLS: two files that somebody else looks after, or one that the relay makes for
//! itself. TLS is a way through firewalls and nothing more: the relay's identity is its SSH host key, so
//! that a certificate which nobody trusts serves as well as any.
//!
//! Touches the disk and the clock.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use tokio::signal::unix::{SignalKind, signal};

use crate::clock;
use crate::source::{self, Feed};
use crate::ssh::Server;
use crate::ssh::tls::{self, pki_types};
use crate::state::{self, StateDir, StateError};
use pki_types::pem::PemObject as _;

/// Of the state directory: the certificate that the relay made, and its key.
const DIRECTORY: &str = "tls";
const OWN: &str = "self-made.pem";
/// How the line of that file begins that says until when, and for which domain, it is good.
const UNTIL: &str = "Made by tidegate-relay, good until ";
const FOR: &str = " for ";
/// How long it is good, in days: what clients take at most of a certificate (CA/Browser Forum, ballot SC22).
const GOOD: i64 = 398;
/// With fewer days left there is a new one.
const AHEAD: i64 = 30;
/// How often files are looked at. A kubelet takes about a minute to bring a Secret's new content.
const LOOK: Duration = Duration::from_secs(10);
/// The most bytes of one file.
const MOST: u64 = 1 << 20;

/// Where a certificate and its key come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// The relay makes them, in its state directory.
    Own(StateDirectory),
    /// Both PEM.
    Files { certificate: PathBuf, key: PathBuf, or: StateDirectory },
}

/// `STATE/tls`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateDirectory(PathBuf);

impl StateDirectory {
    pub fn of(state: &StateDir) -> Result<Self, StateError> {
        state.subdirectory(DIRECTORY).map(Self)
    }
}

/// Why there is no certificate. Each is a sentence for whoever runs the relay.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    #[error("cannot read {path}: {why}; give the relay a PEM file that it may read")]
    Read { path: PathBuf, why: String },
    #[error("{path} holds no {what} in PEM form; write one there")]
    Pem { path: PathBuf, what: &'static str },
    #[error("{path}: {why}; give a certificate chain and the key that belongs to it")]
    Unfit { path: PathBuf, why: String },
    #[error("cannot make a certificate for TLS: {0}")]
    Make(String),
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    let failed = |why: String| CertificateError::Read { path: path.to_owned(), why };
    match state::read(path, MOST) {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(failed("there is no such file".into())),
        Err(error) => Err(failed(error.to_string())),
    }
}

/// What `chain` and `key`, both PEM, make of TLS.
fn config(
    chain: (&Path, &[u8]),
    key: (&Path, &[u8]),
) -> Result<Arc<tls::Config>, CertificateError> {
    let lacks = |path: &Path, what| CertificateError::Pem { path: path.to_owned(), what };
    let certificates: Result<Vec<_>, _> =
        pki_types::CertificateDer::pem_slice_iter(chain.1).collect();
    let certificates = certificates.unwrap_or_default();
    if certificates.is_empty() {
        return Err(lacks(chain.0, "certificate"));
    }
    let private =
        pki_types::PrivateKeyDer::from_pem_slice(key.1).map_err(|_| lacks(key.0, "private key"))?;
    let unfit = |why: String| CertificateError::Unfit { path: chain.0.to_owned(), why };
    tls::config(certificates, private).map(Arc::new).map_err(|fault| unfit(fault.to_string()))
}

/// One that the relay makes, good from yesterday on, since clocks differ.
fn make(domain: &str, now: Timestamp) -> Result<String, CertificateError> {
    let failed = |error: rcgen::Error| CertificateError::Make(error.to_string());
    let out_of_range = |error: jiff::Error| CertificateError::Make(error.to_string());
    let today = now.to_zoned(TimeZone::UTC).date();
    let day = |days: i64| today.checked_add(days.days()).map_err(out_of_range);
    let at = |date: jiff::civil::Date| {
        let part = |it: i8| u8::try_from(it).unwrap_or(1);
        rcgen::date_time_ymd(date.year().into(), part(date.month()), part(date.day()))
    };
    let names = [domain.to_owned(), format!("*.{domain}")];
    let mut params = rcgen::CertificateParams::new(names).map_err(failed)?;
    params.distinguished_name.push(rcgen::DnType::CommonName, "Tidegate relay");
    let until = day(GOOD - 1)?;
    (params.not_before, params.not_after) = (at(day(-1)?), at(until));
    let key = rcgen::KeyPair::generate().map_err(failed)?;
    let certificate = params.self_signed(&key).map_err(failed)?;
    let (certificate, key) = (certificate.pem(), key.serialize_pem());
    Ok(format!("{UNTIL}{until}{FOR}{domain}\n{certificate}{key}"))
}

/// Whether a file of [`make`]'s is good for this domain for some time to come.
fn lasts(pem: &[u8], domain: &str, now: Timestamp) -> bool {
    let text = String::from_utf8_lossy(pem);
    let line = text.lines().next().and_then(|line| line.strip_prefix(UNTIL)?.split_once(FOR));
    let Some((until, made_for)) = line else { return false };
    let enough = now.to_zoned(TimeZone::UTC).date().checked_add(AHEAD.days());
    let until = until.parse::<jiff::civil::Date>();
    made_for == domain && until.ok().zip(enough.ok()).is_some_and(|(until, least)| until > least)
}

fn own(directory: &StateDirectory, domain: &str) -> Result<Arc<tls::Config>, CertificateError> {
    let path = directory.0.join(OWN);
    let now = clock::now().wall;
    let kept = read(&path).ok().filter(|pem| lasts(pem, domain, now));
    if let Some(pem) = kept
        && let Ok(config) = config((&path, &pem), (&path, &pem))
    {
        return Ok(config);
    }
    let pem = make(domain, now)?;
    if let Err(error) = state::write_atomic(&path, pem.as_bytes(), 0o600) {
        // It serves all the same, and the next start makes another.
        tracing::warn!(%error, path = %path.display(), "the certificate for TLS is not kept");
    }
    tracing::info!(domain, "made a certificate for TLS");
    config((&path, pem.as_bytes()), (&path, pem.as_bytes()))
}

/// Keeps the server's certificate what it should be.
pub struct Following {
    from: From,
    feed: Feed,
    server: Arc<Server>,
    seen: Seen,
}

/// What was last seen, so that nothing is done twice.
#[derive(Default)]
struct Seen {
    files: Option<(Vec<u8>, Vec<u8>)>,
    /// The relay's own serves, made for this domain on this day.
    own: Option<(String, jiff::civil::Date)>,
    trouble: Option<CertificateError>,
}

impl Following {
    pub fn new(from: From, feed: Feed, server: Arc<Server>) -> Self {
        Self { from, feed, server, seen: Seen::default() }
    }

    /// Goes on until nobody publishes policy any more.
    pub async fn run(mut self) {
        let mut hangup = signal(SignalKind::hangup()).ok();
        loop {
            tokio::task::block_in_place(|| self.look());
            let told = async {
                match &mut hangup {
                    Some(hangup) => _ = hangup.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = told => {}
                changed = self.feed.changed() => if changed.is_err() {
                    return;
                },
            }
        }
    }

    /// Takes over what has changed.
    pub fn look(&mut self) {
        let mut seen = std::mem::take(&mut self.seen);
        self.look_at(&mut seen);
        self.seen = seen;
    }

    fn look_at(&self, seen: &mut Seen) {
        let result = match &self.from {
            From::Own(directory) => self.own(directory, seen),
            From::Files { certificate, key, or } => match self.files(certificate, key, seen) {
                // What serves goes on; with nothing to go on with, what the relay makes.
                Err(error) if seen.files.is_none() => {
                    self.own(or, seen).map_or_else(Err, |()| Err(error))
                }
                result => result,
            },
        };
        let trouble = result.err();
        if trouble != seen.trouble
            && let Some(error) = &trouble
        {
            tracing::error!(%error, "TLS goes on with the certificate of before");
        }
        seen.trouble = trouble;
    }

    fn files(&self, chain: &Path, key: &Path, seen: &mut Seen) -> Result<(), CertificateError> {
        let now = (read(chain)?, read(key)?);
        if seen.files.as_ref() == Some(&now) {
            return Ok(());
        }
        let config = config((chain, &now.0), (key, &now.1))?;
        self.server.set_tls(config);
        tracing::info!(path = %chain.display(), "new connections get this certificate in TLS");
        seen.files = Some(now);
        Ok(())
    }

    fn own(&self, directory: &StateDirectory, seen: &mut Seen) -> Result<(), CertificateError> {
        let domain = source::current(&self.feed).snapshot.mesh().domain.to_string();
        let today = clock::now().wall.to_zoned(TimeZone::UTC).date();
        let now = Some((domain, today));
        if seen.own != now
            && let Some((domain, _)) = &now
        {
            self.server.set_tls(own(directory, domain)?);
            seen.own = now;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn one_that_the_relay_makes_is_kept_until_its_domain_changes_or_its_end_comes_near() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(&dir.path().join("state")).unwrap();
        let directory = StateDirectory::of(&state).unwrap();
        let path = directory.0.join(OWN);
        own(&directory, "support.example.com").unwrap();
        let first = std::fs::read(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        own(&directory, "support.example.com").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), first);
        own(&directory, "support.example.org").unwrap();
        assert_ne!(std::fs::read(&path).unwrap(), first);

        let now = clock::now().wall;
        let after = |days: i64| now.checked_add((days * 24).hours()).unwrap();
        assert!(lasts(&first, "support.example.com", after(GOOD - AHEAD - 2)));
        assert!(!lasts(&first, "support.example.com", after(GOOD - AHEAD)));
        assert!(!lasts(b"", "support.example.com", now));
        std::fs::write(&path, &first[..200]).unwrap();
        own(&directory, "support.example.com").unwrap();
        assert!(std::fs::read(&path).unwrap().len() > 300, "what is broken is made anew");
    }

    #[test]
    fn what_cannot_be_used_is_told_in_a_sentence() {
        let now = clock::now().wall;
        let [one, two] = ["a.example.com", "b.example.com"].map(|it| make(it, now).unwrap());
        let (chain, key) = (Path::new("/x/tls.crt"), Path::new("/x/tls.key"));
        let error = |chain_pem: &str, key_pem: &str| {
            config((chain, chain_pem.as_bytes()), (key, key_pem.as_bytes()))
                .unwrap_err()
                .to_string()
        };
        assert!(config((chain, one.as_bytes()), (key, one.as_bytes())).is_ok());
        assert!(error("", &one).contains("/x/tls.crt holds no certificate in PEM form"));
        assert!(error(&one, "").contains("/x/tls.key holds no private key in PEM form"));
        let mixed = error(&one, &two);
        assert!(mixed.contains("/x/tls.crt: the certificate and key cannot be used"), "{mixed}");
    }
}
