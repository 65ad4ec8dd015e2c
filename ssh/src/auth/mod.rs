//! Logging in (RFC 4252): public keys and nothing else.
//!
//! What a peer gets to know before it has proven a key depends on the key alone: neither the user
//! name nor the service changes an answer. A login takes one proof, so that nothing adds up from
//! request to request; a change of the user name or service just begins anew.

mod key;
mod request;
mod signature;

use std::time::Duration;

use crate::core::{Core, clean};
use crate::event::Event;
use crate::message::{DisconnectCode, Fatal, number};
use crate::wire::Reader;

pub(crate) use key::UserKey;
use request::{Method, Request};
#[cfg(test)]
pub(crate) use signature::verify;

/// Says which keys exist. Asked from within [`Core::handle`]: quick, and without waiting.
///
/// The answers must depend on the key alone, so that nobody learns from them which names exist.
/// `user`: printable ASCII, at most 255 bytes. `key`: a public key blob of a type that we can verify.
pub trait Door {
    /// Whether the relay knows this key; a peer need not hold its private half to ask.
    fn offered(&mut self, user: &str, key: &[u8]) -> bool;
    /// The peer holds the private half: whether it gets in.
    fn proven(&mut self, user: &str, key: &[u8]) -> bool;
    /// Asked after an offer of a key that nobody has: what the peer is told and sent away with, if it is
    /// to be.
    fn had_enough(&mut self) -> Option<&'static str> {
        None
    }
    /// Asked when the peer begins one more key exchange before a login: what it is told and sent away
    /// with, if it is to be. About the first one its driver can ask before it begins.
    fn turned_away(&mut self) -> Option<&'static str> {
        None
    }
}

/// Bytes that are kept of a user name.
const USER: usize = 255;

/// What a peer has tried so far.
#[derive(Debug, Default)]
pub(crate) struct Auth {
    requests: u32,
    offered: u32,
    asked_to_sign: u32,
    /// The user (its bytes up to [`USER`]) and key that we asked to sign with.
    pending: Option<(Vec<u8>, Vec<u8>)>,
}

impl Core {
    /// SERVICE_REQUEST (RFC 4253 section 10).
    pub(crate) fn service_request(&mut self, message: &[u8]) -> Result<(), Fatal> {
        let mut r = Reader::new(message);
        r.u8()?;
        let name = r.string()?;
        r.end()?;
        if name != b"ssh-userauth" {
            let text = "the only service before a login is ssh-userauth";
            return Err(Fatal::new(DisconnectCode::ServiceNotAvailable, text));
        }
        self.count_request()?;
        self.service_accepted();
        self.write(|w| {
            w.u8(number::SERVICE_ACCEPT).string("ssh-userauth");
        });
        Ok(())
    }

    /// One more request of any kind: there is an end to them (RFC 4252 section 4).
    fn count_request(&mut self) -> Result<(), Fatal> {
        self.auth.requests = self.auth.requests.saturating_add(1);
        if self.auth.requests > self.config.limits.auth_requests {
            return Err(enough("too many requests to log in; this relay takes public keys only"));
        }
        Ok(())
    }

    /// USERAUTH_REQUEST (RFC 4252 sections 5 and 7).
    pub(crate) fn userauth_request(
        &mut self,
        message: &[u8],
        door: &mut dyn Door,
        now: Duration,
    ) -> Result<Option<Event>, Fatal> {
        self.count_request()?;
        let request = Request::read(message)?;
        let outcome = match &request.method {
            // Other methods cost no try, as "none" does not: there is nothing in them to be guessed.
            Method::Other => Outcome::Failure,
            Method::PublicKey(_) if request.service != b"ssh-connection" => Outcome::Failure,
            Method::PublicKey(offer) => self.offer(&request, offer, door)?,
        };
        match outcome {
            Outcome::Failure => {
                self.write(|w| {
                    w.u8(number::USERAUTH_FAILURE).string("publickey").bool(false);
                });
                Ok(None)
            }
            Outcome::Sign { algorithm, key } => {
                self.write(|w| {
                    w.u8(number::USERAUTH_PK_OK).string(algorithm).string(key);
                });
                Ok(None)
            }
            Outcome::Success { user, key } => {
                self.auth = Auth::default();
                self.write(|w| {
                    w.u8(number::USERAUTH_SUCCESS);
                });
                self.authenticated(now);
                self.announce_host_keys();
                Ok(Some(Event::Authenticated { user, key }))
            }
        }
    }

    /// A key, with a signature or without (RFC 4252 section 7, OpenSSH's PROTOCOL section 3.1).
    fn offer<'a>(
        &mut self,
        request: &Request<'a>,
        offer: &request::Offer<'a>,
        door: &mut dyn Door,
    ) -> Result<Outcome<'a>, Fatal> {
        let user = request.user.get(..USER).unwrap_or(request.user);
        let pending = self.auth.pending.take();
        // The signature that we asked for is not one more offer.
        let expected = offer.signature.is_some()
            && pending.is_some_and(|(who, key)| who == user && key == offer.key);
        let limits = self.config.limits;
        if !expected {
            self.auth.offered = self.auth.offered.saturating_add(1);
            if self.auth.offered > limits.offered_keys {
                return Err(enough(
                    "too many keys were offered; name the right one with -i and IdentitiesOnly=yes",
                ));
            }
        }
        let Some(key) = UserKey::parse(offer.algorithm, offer.key) else {
            return Ok(Outcome::Failure);
        };
        // A signature that is bound to another host key was made for somebody else.
        if offer.host_key.is_some_and(|bound| bound != self.host_key_blob()) {
            return Ok(Outcome::Failure);
        }
        let name = clean(user, USER);
        if !door.offered(&name, offer.key) {
            return door.had_enough().map_or(Ok(Outcome::Failure), |text| Err(enough(text)));
        }
        if !expected {
            self.auth.asked_to_sign = self.auth.asked_to_sign.saturating_add(1);
            if self.auth.asked_to_sign > limits.signatures {
                return Err(enough("too many known keys did not log in"));
            }
        }
        let Some(signature) = offer.signature else {
            self.auth.pending = Some((user.to_vec(), offer.key.to_vec()));
            return Ok(Outcome::Sign { algorithm: offer.algorithm, key: offer.key });
        };
        let signed = request.signed(self.transport.session_id(), offer);
        if signature::verify(&key, &signed, signature) && door.proven(&name, offer.key) {
            return Ok(Outcome::Success { user: name, key: offer.key.to_vec() });
        }
        Ok(Outcome::Failure)
    }
}

enum Outcome<'a> {
    Failure,
    Sign { algorithm: &'a [u8], key: &'a [u8] },
    Success { user: String, key: Vec<u8> },
}

fn enough(text: &str) -> Fatal {
    Fatal::new(DisconnectCode::NoMoreAuthMethods, text)
}
