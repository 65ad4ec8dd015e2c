//! The messages of a key exchange: KEXINIT, the shares, NEWKEYS (RFC 4253 sections 7 to 9), as
//! `State` takes them.

use std::sync::Arc;
use std::time::Duration;

use super::wait::Wait;
use super::{Handled, Progress, State, Transport};
use crate::cipher::Opener;
use crate::ext_info;
use crate::kex::{self, Direction, Exchange, Secrets};
use crate::kexinit::{self, Choice, Offer};
use crate::message::{Fatal, number};
use crate::version;
use crate::wire::Reader;

impl Transport {
    /// draft-miller-sshm-strict-kex: until the first NEWKEYS nothing but the key exchange may come,
    /// IGNORE and its like neither; DISCONNECT ends the connection anyhow.
    pub(super) fn check_strict(&self, number: u8) -> Result<(), Fatal> {
        if self.strict
            && self.progress != Progress::Keyed
            && !matches!(number, number::DISCONNECT | 20..=49)
        {
            return Err(Fatal::protocol(format_args!(
                "message {number} came within the first key exchange, which is strict"
            )));
        }
        Ok(())
    }

    /// KEXINIT (RFC 4253 section 7.1): an answer to ours, or the beginning of an exchange that ours
    /// answers (section 9).
    pub(super) fn offered(
        &mut self,
        message: &[u8],
        first: bool,
        now: Duration,
    ) -> Result<(), Fatal> {
        let offer = Offer::read(message)?;
        if matches!(self.state, State::Idle) {
            // No message of an exchange is among what our keys have sealed.
            self.pace.moved(self.outbound.sealed());
            self.pace.begin(&self.config.exchanges, now)?;
            self.begin(now);
        }
        let State::Offered { ours } = &self.state else {
            return Err(Fatal::protocol("KEXINIT came before the key exchange under way was over"));
        };
        if self.session.is_none() {
            self.strict = offer.is_strict();
            self.ext_info = offer.wants_ext_info();
            if self.strict && !first {
                return Err(Fatal::protocol(
                    "a message came before KEXINIT, but the key exchange is strict",
                ));
            }
        }
        let choice = Choice::make(&offer, &self.config)?;
        let exchange =
            Exchange::new([&self.peer, version::OURS.as_bytes()], [message, ours.as_slice()]);
        self.state = State::Agreed { choice, exchange, discard: choice.discard };
        Ok(())
    }

    /// The client's share (RFC 5656 section 4 and its like), or its wrong guess of one (RFC 4253
    /// section 7): the next message of an exchange is dropped then, whatever it is.
    pub(super) fn share(&mut self, message: &[u8]) -> Result<(), Fatal> {
        let State::Agreed { choice, exchange, discard } = &mut self.state else {
            return Err(Fatal::protocol("a message of a key exchange came outside of one"));
        };
        if std::mem::take(discard) {
            return Ok(());
        }
        let mut r = Reader::new(message);
        if r.u8()? != number::KEX_INIT {
            return Err(Fatal::protocol("another message came in place of the client's share"));
        }
        let share = r.string()?;
        r.end()?;
        let (choice, exchange) = (*choice, exchange.clone());
        self.reply(choice, exchange, share)
    }

    /// Our share, signed (RFC 5656 section 4 and its like), then NEWKEYS and everything that was held.
    fn reply(&mut self, choice: Choice, exchange: Exchange, share: &[u8]) -> Result<(), Fatal> {
        let config = Arc::clone(&self.config);
        let random = self.random.as_mut();
        // The first of its type signs; `choice` is of a type that we have.
        let host_key = config
            .host_keys
            .iter()
            .find(|key| key.algorithm() == choice.host_key)
            .ok_or_else(kex::failed)?;
        let kex::Reply { share: ours, secret } = kex::reply(choice.kex, share, random)?;
        let hash = exchange.finish(host_key.blob(), [share, &ours], &secret);
        let signature = host_key.sign(&hash).map_err(|_| kex::failed())?;
        self.outbound.write(random, |w| {
            w.u8(number::KEX_REPLY).string(host_key.blob()).string(&ours).string(&signature);
        })?;

        let first = self.session.is_none();
        let session = *self.session.get_or_insert(hash);
        let keys = |direction| Secrets::derive(direction, &secret, &hash, &session);
        let opener = Opener::new(choice.cipher_in, &keys(Direction::ClientToServer))
            .map_err(|_| kex::failed())?;
        self.outbound.write(random, |w| {
            w.u8(number::NEWKEYS);
        })?;
        self.wait.sent(&self.outbound.output);
        self.outbound.install(choice.cipher_out, &keys(Direction::ServerToClient), self.strict)?;
        if first && self.ext_info {
            // RFC 8308 section 2.4: the next packet after our first NEWKEYS.
            self.outbound.write(random, ext_info::write)?;
        }
        self.outbound.release(random)?;
        self.negotiated = Some(choice.negotiated(self.strict, self.ext_info));
        self.state = State::Confirming { opener };
        Ok(())
    }

    /// The peer's NEWKEYS (RFC 4253 section 7.3).
    pub(super) fn confirmed(&mut self, message: &[u8], now: Duration) -> Result<Handled, Fatal> {
        let mut r = Reader::new(message);
        r.u8()?;
        r.end()?;
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Confirming { opener } => {
                self.ext_info_due = self.progress != Progress::Keyed;
                self.progress = Progress::Keyed;
                self.keyed = now;
                Ok(Handled::Keys { opener, reset: self.strict })
            }
            other => {
                self.state = other;
                Err(Fatal::protocol("NEWKEYS came before keys were agreed on"))
            }
        }
    }

    /// `Next::Exhausted` came: begins a key exchange unless one is under way.
    pub fn rekey(&mut self, now: Duration) {
        if matches!(self.state, State::Idle) {
            self.begin(now);
        }
    }

    /// Our KEXINIT. Data goes out no more until our NEWKEYS (RFC 4253 section 7.1).
    pub(super) fn begin(&mut self, now: Duration) {
        let begun = kexinit::build(&self.config, self.session.is_none(), self.random.as_mut())
            .and_then(|ours| {
                self.outbound.write(self.random.as_mut(), |w| {
                    w.bytes(&ours);
                })?;
                Ok(ours)
            });
        match begun {
            Ok(ours) => {
                self.wait = Wait::new(now);
                self.wait.sent(&self.outbound.output);
                self.state = State::Offered { ours };
            }
            Err(fatal) => self.note(Err(fatal)),
        }
    }
}
