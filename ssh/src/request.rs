//! Requests on a channel (RFC 4254 sections 5.4 and 6) and their replies, which keep the order of
//! the requests.

use crate::channel::{Id, Kind};
use crate::core::Core;
use crate::event::{Event, RequestKind};
use crate::message::{DisconnectCode, Fatal, number};
use crate::wire::Reader;

/// What becomes of a request.
enum Verdict {
    Done(bool),
    Refused(&'static str),
    /// The relay decides.
    Ask(RequestKind),
}

impl Core {
    /// CHANNEL_REQUEST (RFC 4254 section 5.4).
    pub(crate) fn channel_request(&mut self, message: &[u8]) -> Result<Option<Event>, Fatal> {
        let mut r = Reader::new(message);
        r.u8()?;
        let number = r.u32()?;
        let (name, wants_reply) = (r.string()?, r.bool()?);
        let id = self.open_channel(number)?;
        let limit = self.config.limits.requests;
        let Some(channel) = self.channels.get_mut(id) else { return Ok(None) };
        // After our CLOSE nothing is said on the channel any more.
        if channel.silent || channel.outgoing.close_sent() {
            return Ok(None);
        }
        if channel.replies.len() >= limit {
            let text = "too many requests on a channel wait for their answers";
            return Err(Fatal::new(DisconnectCode::ByApplication, text));
        }
        let verdict = judge(&mut channel.kind, name, r)?;
        let (answer, event) = match verdict {
            Verdict::Done(granted) => (Some(granted), None),
            Verdict::Refused(what) => (Some(false), Some(Event::Refused { what })),
            Verdict::Ask(kind) => {
                let pty = matches!(channel.kind, Kind::Session(session) if session.pty);
                (None, Some(Event::Request { channel: id, kind, pty }))
            }
        };
        let waits = answer.is_none();
        let request = channel.replies.push(wants_reply, answer);
        if waits {
            channel.asked = Some(request);
        }
        self.reply(id);
        Ok(event)
    }

    /// Answers [`Event::Request`] (RFC 4254 section 6.5); once, later answers do nothing.
    pub fn answer_request(&mut self, id: Id, granted: bool) {
        let Some(channel) = self.channels.get_mut(id) else { return };
        let Some(request) = channel.asked.take() else { return };
        channel.replies.answer(request, granted);
        self.reply(id);
    }

    /// Sends the replies whose turn has come (RFC 4254 section 5.4).
    fn reply(&mut self, id: Id) {
        let Some(channel) = self.channels.get_mut(id) else { return };
        let (remote, mute) = (channel.remote, channel.outgoing.close_sent());
        while let Some((wanted, granted)) = channel.replies.pop() {
            if wanted && !mute {
                let kind = if granted { number::CHANNEL_SUCCESS } else { number::CHANNEL_FAILURE };
                self.transport.write(|w| {
                    w.u8(kind).u32(remote);
                });
            }
        }
    }

    /// CHANNEL_SUCCESS or CHANNEL_FAILURE (RFC 4254 section 5.4): we make no request that wants one, so
    /// it is ignored, as sshd does.
    pub(crate) fn channel_reply(&self, message: &[u8]) -> Result<Option<Event>, Fatal> {
        let mut r = Reader::new(message);
        r.u8()?;
        self.open_channel(r.u32()?)?;
        Ok(None)
    }
}

/// What becomes of a request on a channel of this kind (RFC 4254 sections 5.4 and 6). Requests that
/// nobody knows, and on other than sessions all, fail; PuTTY tunes its windows by the failure of
/// winadj@putty.projects.tartarus.org.
fn judge(kind: &mut Kind, name: &[u8], mut r: Reader<'_>) -> Result<Verdict, Fatal> {
    let Kind::Session(session) = kind else { return Ok(Verdict::Done(false)) };
    let asked = match name {
        b"pty-req" if !session.started => {
            session.pty = true;
            return Ok(Verdict::Done(true));
        }
        // There is no pty, so that its size does not matter.
        b"window-change" => return Ok(Verdict::Done(true)),
        b"x11-req" => return Ok(Verdict::Refused("X11 forwarding")),
        b"auth-agent-req" | b"auth-agent-req@openssh.com" => {
            return Ok(Verdict::Refused("agent forwarding"));
        }
        b"shell" => RequestKind::Shell,
        b"exec" => RequestKind::Exec(r.string()?.to_vec()),
        b"subsystem" => RequestKind::Subsystem(r.string()?.to_vec()),
        // env, signal, xon-xoff, break, exit-status, eow@openssh.com, simple@putty…, winadj@putty…
        _ => return Ok(Verdict::Done(false)),
    };
    if std::mem::replace(&mut session.started, true) {
        return Ok(Verdict::Done(false));
    }
    Ok(Verdict::Ask(asked))
}
