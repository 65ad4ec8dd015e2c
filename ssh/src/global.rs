//! Global requests (RFC 4254 sections 4 and 7.1) and their replies, which keep the order of the
//! requests. Also OpenSSH's own: keepalive, no-more-sessions, hostkeys-00 and hostkeys-prove-00
//! (PROTOCOL sections 2.2 and 2.5).

use crate::core::Core;
use crate::event::Event;
use crate::message::{DisconnectCode, Fatal, number};
use crate::replies::Replies;
use crate::wire::{Reader, Writer};

/// A global request that the relay is to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(u64);

/// Keepalives of ours that may wait for their answers.
const PINGS: u32 = 16;
/// How often a peer may ask on one connection for a proof of our host keys; it needs one.
const PROOFS: u32 = 4;

/// What a reply depends on, of a request that waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    wants_reply: bool,
    /// It was `tcpip-forward` for port 0: the reply names the port.
    any_port: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Granted,
    /// Of `tcpip-forward`; the port is for a request for any.
    Listening(u32),
    /// Of hostkeys-prove-00: the signatures.
    Proof(Vec<u8>),
    Refused,
}

/// Where the global requests of both sides stand.
#[derive(Debug, Default)]
pub(crate) struct Globals {
    /// Those of the peer.
    replies: Replies<Asked, Answer>,
    /// Keepalives of ours without an answer.
    pings: u32,
    /// How often it has asked for a proof of our host keys.
    proofs: u32,
    /// no-more-sessions@openssh.com came.
    pub no_more_sessions: bool,
}

impl Core {
    /// GLOBAL_REQUEST (RFC 4254 sections 4 and 7.1).
    pub(crate) fn global_request(&mut self, message: &[u8]) -> Result<Option<Event>, Fatal> {
        let mut r = Reader::new(message);
        r.u8()?;
        let (name, wants_reply) = (r.string()?, r.bool()?);
        if self.globals.replies.len() >= self.config.limits.requests {
            let text = "too many requests wait for their answers";
            return Err(Fatal::new(DisconnectCode::ByApplication, text));
        }
        let asked = Asked { wants_reply, any_port: false };
        let mut event = None;
        match name {
            b"tcpip-forward" => {
                let (host, port) = host_and_port(r)?;
                let asked = Asked { any_port: port == 0, ..asked };
                let token = Token(self.globals.replies.push(asked, None));
                return Ok(Some(Event::Forward { token, host, port }));
            }
            b"cancel-tcpip-forward" => {
                let (host, port) = host_and_port(r)?;
                let token = Token(self.globals.replies.push(asked, None));
                return Ok(Some(Event::Cancel { token, host, port }));
            }
            b"hostkeys-prove-00@openssh.com" => {
                let (answer, keys) = self.prove(r, wants_reply)?;
                if !keys.is_empty() {
                    event = Some(Event::HostKeysProved { keys });
                }
                self.globals.replies.push(asked, Some(answer));
            }
            b"no-more-sessions@openssh.com" => {
                self.globals.no_more_sessions = true;
                self.globals.replies.push(asked, Some(Answer::Granted));
            }
            b"streamlocal-forward@openssh.com" => {
                event = Some(Event::Refused { what: "forwarding of a Unix socket" });
                self.globals.replies.push(asked, Some(Answer::Refused));
            }
            b"tun@openssh.com" => {
                event = Some(Event::Refused { what: "a tunnel" });
                self.globals.replies.push(asked, Some(Answer::Refused));
            }
            // keepalive@openssh.com wants this very answer, as sshd gives it.
            _ => {
                self.globals.replies.push(asked, Some(Answer::Refused));
            }
        }
        self.reply_globals();
        Ok(event)
    }

    /// Answers [`Event::Forward`] (RFC 4254 section 7.1); `port` is what the reply to a request for
    /// port 0 names. A token is good for one answer; later ones do nothing.
    pub fn answer_forward(&mut self, token: Token, port: Option<u32>) {
        let answer = port.map_or(Answer::Refused, Answer::Listening);
        self.answer_global(token, answer);
    }

    /// Answers [`Event::Cancel`] (RFC 4254 section 7.1).
    pub fn answer_cancel(&mut self, token: Token, granted: bool) {
        let answer = if granted { Answer::Granted } else { Answer::Refused };
        self.answer_global(token, answer);
    }

    fn answer_global(&mut self, token: Token, answer: Answer) {
        if self.globals.replies.answer(token.0, answer) {
            self.reply_globals();
        }
    }

    /// Sends the replies whose turn has come (RFC 4254 section 4).
    fn reply_globals(&mut self) {
        while let Some((asked, answer)) = self.globals.replies.pop() {
            if !asked.wants_reply {
                continue;
            }
            let kind = match answer {
                Answer::Refused => number::REQUEST_FAILURE,
                _ => number::REQUEST_SUCCESS,
            };
            self.write(|w| {
                w.u8(kind);
                match &answer {
                    // Only a request for any port has one in its reply, RFC 4254 section 7.1.
                    Answer::Listening(port) if asked.any_port => {
                        w.u32(*port);
                    }
                    Answer::Proof(signatures) => {
                        w.bytes(signatures);
                    }
                    _ => {}
                }
            });
        }
    }

    /// The proof that we hold the host keys that the peer names, or a refusal where we do not (OpenSSH's
    /// PROTOCOL section 2.5).
    fn prove(&mut self, mut r: Reader<'_>, wanted: bool) -> Result<(Answer, Vec<usize>), Fatal> {
        // A signature is dear: none that nobody reads, and none again and again.
        if !wanted || self.globals.proofs >= PROOFS {
            return Ok((Answer::Refused, Vec::new()));
        }
        self.globals.proofs = self.globals.proofs.saturating_add(1);
        let mut proof = Vec::new();
        let mut keys = Vec::new();
        while !r.is_empty() {
            let blob = r.string()?;
            let ours = self.config.host_keys.iter().position(|key| key.blob() == blob);
            let held = ours.filter(|index| !keys.contains(index));
            let held = held.and_then(|index| Some((index, self.config.host_keys.get(index)?)));
            let Some((index, key)) = held else { return Ok((Answer::Refused, Vec::new())) };
            let mut signed = Vec::new();
            Writer::new(&mut signed)
                .string("hostkeys-prove-00@openssh.com")
                .string(self.transport.session_id())
                .string(blob);
            let Ok(signature) = key.sign(&signed) else {
                return Ok((Answer::Refused, Vec::new()));
            };
            Writer::new(&mut proof).string(signature);
            keys.push(index);
        }
        Ok((Answer::Proof(proof), keys))
    }

    /// Tells the peer all host keys of this replica, so that it learns those that come next (OpenSSH's
    /// PROTOCOL section 2.5).
    pub(crate) fn announce_host_keys(&mut self) {
        let config = std::sync::Arc::clone(&self.config);
        self.write(|w| {
            w.u8(number::GLOBAL_REQUEST).string("hostkeys-00@openssh.com").bool(false);
            for key in &config.host_keys {
                w.string(key.blob());
            }
        });
    }

    /// Asks the peer for a sign of life (RFC 4254 section 4); its answer, whichever, is
    /// [`Event::Alive`]. `false` and nothing sent while too many such questions are open, or nobody has
    /// logged in.
    pub fn ping(&mut self) -> bool {
        if !self.is_authenticated() || self.globals.pings >= PINGS {
            return false;
        }
        self.globals.pings = self.globals.pings.saturating_add(1);
        self.write(|w| {
            w.u8(number::GLOBAL_REQUEST).string("keepalive@openssh.com").bool(true);
        });
        true
    }

    /// REQUEST_SUCCESS or REQUEST_FAILURE (RFC 4254 section 4): all that we ask is for life. One that
    /// answers nothing is ignored, as sshd does.
    pub(crate) fn global_reply(&mut self) -> Option<Event> {
        let pings = self.globals.pings.checked_sub(1)?;
        self.globals.pings = pings;
        Some(Event::Alive)
    }
}

fn host_and_port(mut r: Reader<'_>) -> Result<(String, u32), Fatal> {
    let (host, port) = (r.string()?, r.u32()?);
    r.end()?;
    Ok((crate::core::clean(host, 255), port))
}
