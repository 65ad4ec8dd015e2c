//! What a line of the trail says.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::record::EndedBy;

/// What happened. The words are those of the lines' `event` field.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub enum What {
    /// The process began to serve.
    Start,
    /// A port is listened on.
    Listen,
    /// The process ends by itself.
    Stop,
    /// It admits nobody any more and waits for sessions to end.
    Drain,
    /// A session was admitted.
    Allow,
    /// A further channel of a live session was admitted.
    Channel,
    /// An authenticated peer was refused.
    Deny,
    /// Peers were refused, counted: before authentication, or with a known key that may not enter.
    DenyAggregate,
    /// A session ended.
    End,
    /// Someone asked for a session to be cut.
    Cut,
    /// A terminal came.
    Attach,
    /// A terminal went.
    Detach,
    /// A login user authenticated.
    Login,
    /// What was found wrong with the trail at the start, and what was done about it.
    Repair,
    /// Lines can be written again after they could not; `count` were refused meanwhile.
    Recovered,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Verdict {
    Allow,
    Deny,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WindowRef {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub generation: i64,
}

/// Why: a stable CamelCase word and one sentence.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Reason {
    pub code: String,
    pub sentence: String,
}

/// One line without its place in the chain. A text over 1 KiB is shortened when it is written.
/// Nothing secret belongs here.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// RFC 3339 in UTC, to the millisecond.
    #[serde(serialize_with = "milliseconds")]
    pub time: Timestamp,
    pub event: What,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Verdict>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<WindowRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub case: Option<String>,
    /// The login as typed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_fingerprint: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_address: Option<String>,
    /// `SSH`, `WebSocket`, `TLS`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener_port: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// What the key exchange agreed on: its method, the ciphers, whether it was strict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_exchange: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal_key_fingerprint: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opens_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay_pod: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// How many were alike.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_by: Option<EndedBy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overrun_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_in: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_out: Option<u64>,
    /// Of a Repair: bytes that were dropped, and their SHA-256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped_sha256: Option<String>,
}

impl Event {
    /// An event with nothing but its time; the rest is set by `..Event::new(what, time)`.
    pub fn new(event: What, time: Timestamp) -> Self {
        Self {
            time,
            event,
            decision: None,
            window: None,
            case: None,
            user: None,
            key_fingerprint: None,
            source_address: None,
            transport: None,
            listener_port: None,
            client: None,
            key_exchange: None,
            terminal: None,
            terminal_key_fingerprint: None,
            service: None,
            session: None,
            opens_at: None,
            deadline: None,
            relay_pod: None,
            reason: None,
            count: None,
            ended_by: None,
            overrun_ms: None,
            bytes_in: None,
            bytes_out: None,
            dropped_bytes: None,
            dropped_sha256: None,
        }
    }
}

impl Event {
    /// Shortens texts, so that a line stays under [`super::LONGEST_LINE`] whatever a peer sent.
    pub(super) fn shorten(&mut self) {
        let texts = [
            &mut self.case,
            &mut self.user,
            &mut self.key_fingerprint,
            &mut self.source_address,
            &mut self.transport,
            &mut self.client,
            &mut self.key_exchange,
            &mut self.terminal,
            &mut self.terminal_key_fingerprint,
            &mut self.service,
            &mut self.session,
            &mut self.relay_pod,
            &mut self.dropped_sha256,
        ];
        texts.into_iter().flatten().for_each(shorten);
        if let Some(reason) = &mut self.reason {
            shorten(&mut reason.code);
            shorten(&mut reason.sentence);
        }
        if let Some(window) = &mut self.window {
            shorten(&mut window.namespace);
            shorten(&mut window.name);
            shorten(&mut window.uid);
        }
    }
}

/// The longest text in a line, in bytes.
const LONGEST_TEXT: usize = 1024;

fn shorten(text: &mut String) {
    if text.len() > LONGEST_TEXT {
        text.truncate(text.floor_char_boundary(LONGEST_TEXT - 3));
        text.push_str("...");
    }
}

fn milliseconds<S: serde::Serializer>(time: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&format_args!("{time:.3}"))
}
