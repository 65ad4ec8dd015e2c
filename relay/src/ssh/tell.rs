//! From the core's events to those that the rest of the relay knows.

use std::ops::Range;
use std::sync::Arc;

use tidegate_policy::model::KeyBlob;
use tidegate_ssh::{Core, DisconnectCode, Event as Did, Fatal, OpenFailure, RequestKind};

use super::channel::Channel;
use super::connection::{OpenError, Shared};
use super::console::SessionChannel;
use super::event::{
    Asked, Authenticated, CancelRequest, Event, ForwardRequest, OpenRequest, SessionKind,
    SessionRequest,
};
use super::leg::{Leg, time};
use super::port::Taken;
use super::queue::NotTaken;
use super::splice::Item;
use super::task::Stop;

/// What became of an event under the connection's lock.
pub(super) enum Told {
    Done,
    /// Data for the other leg.
    Pass(Item),
    /// To be handled without the lock.
    Other(Did),
}

/// Looks where data goes: `frame` is where its packet lies in the buffer, `place` where `message`
/// begins in the frame.
pub(super) fn data(
    leg: &mut Leg,
    event: Did,
    message: &[u8],
    frame: Range<usize>,
    place: usize,
) -> Told {
    let Did::Data { channel, bytes } = event else { return Told::Other(event) };
    let data = message.get(bytes.clone()).unwrap_or_default();
    match leg.ports.get(&channel).map_or(Taken::Dropped, |port| port.take(data)) {
        Taken::Kept => Told::Done,
        Taken::Pass(way) => {
            let data = place.saturating_add(bytes.start)..place.saturating_add(bytes.end);
            Told::Pass(Item { way, frame, data })
        }
        Taken::Dropped => {
            let count = u32::try_from(data.len()).unwrap_or(u32::MAX);
            leg.core.consumed(channel, count, time());
            Told::Done
        }
    }
}

/// Tells whoever is to know. Without any connection's lock.
pub(super) fn tell(shared: &Arc<Shared>, event: Did) -> Result<(), Stop> {
    let event = match event {
        Did::Authenticated { user, key } => {
            let (client, negotiated, host_key) = {
                let leg = shared.lock();
                let host_key = KeyBlob::new(leg.core.host_key_blob().to_vec());
                (leg.core.peer_version().to_owned(), leg.core.negotiated().cloned(), host_key)
            };
            let Some(negotiated) = negotiated else { return Ok(()) };
            let key = KeyBlob::new(key);
            Event::Authenticated(Authenticated { user, key, client, negotiated, host_key })
        }
        Did::Open { channel, host, port, originator } => {
            let refuse = |core: &mut Core, id| {
                core.refuse(id, OpenFailure::ConnectFailed, "the relay has let this request go");
            };
            let asked = Asked::new(shared, channel, refuse);
            Event::Open(OpenRequest { host, port, originator, asked })
        }
        Did::Forward { token, host, port } => {
            let refuse = |core: &mut Core, token| core.answer_forward(token, None);
            let asked = Asked::new(shared, token, refuse);
            Event::Forward(ForwardRequest { host, port, asked })
        }
        Did::Cancel { token, host, port } => {
            let refuse = |core: &mut Core, token| core.answer_cancel(token, false);
            let asked = Asked::new(shared, token, refuse);
            Event::Cancel(CancelRequest { host, port, asked })
        }
        Did::Request { channel, kind, pty } => {
            let console = {
                let mut leg = shared.lock();
                leg.core.answer_request(channel, true);
                SessionChannel::new(shared, &mut leg, channel)
            };
            let kind = session_kind(kind);
            Event::Session(SessionRequest { kind, pty, channel: console })
        }
        Did::Refused { what } => Event::Refused { what },
        Did::TooFast => Event::TooFast,
        Did::NoRoom(shortage) => Event::NoRoom(shortage),
        Did::Opened { channel } => {
            let mut leg = shared.lock();
            let Some(asker) = leg.opening.remove(&channel) else { return Ok(()) };
            let opened = Channel::new(shared, &mut leg, channel);
            drop(leg);
            // Where nobody waits any more, dropping the channel closes it.
            drop(asker.send(Ok(opened)));
            return Ok(());
        }
        Did::OpenFailed { channel, code, text } => {
            if let Some(asker) = shared.lock().opening.remove(&channel) {
                drop(asker.send(Err(OpenError::Refused { code, text })));
            }
            return Ok(());
        }
        Did::Eof { channel } => {
            let port = shared.lock().ports.get(&channel).cloned();
            if let Some(way) = port.and_then(|port| port.eof()) {
                way.end();
            }
            return Ok(());
        }
        Did::Closed { channel } => {
            let port = shared.lock().ports.remove(&channel);
            if let Some(port) = port {
                if let Some(way) = port.eof() {
                    way.end();
                }
                port.closed.cancel();
            }
            return Ok(());
        }
        Did::Disconnected { code, text } => {
            tracing::debug!(connection = shared.id, code, text, "the peer said goodbye");
            return Err(Stop::Closed);
        }
        // Both were noticed as something that was heard.
        Did::HostKeysProved { keys } => {
            let leg = shared.lock();
            let all = leg.core.host_keys();
            let proved = keys.into_iter().filter_map(|index| all.get(index));
            let host_keys = proved.map(|key| KeyBlob::new(key.blob().to_vec())).collect();
            Event::Learned { host_keys }
        }
        Did::Alive | Did::Keys { .. } | Did::Data { .. } => {
            return Ok(());
        }
    };
    match shared.events.push(event) {
        Ok(()) => Ok(()),
        Err(NotTaken::Left) => Err(Stop::Closed),
        Err(NotTaken::Full) => {
            let text = "too many requests wait for their answers on this connection";
            Err(Fatal::new(DisconnectCode::ByApplication, text).into())
        }
    }
}

fn session_kind(kind: RequestKind) -> SessionKind {
    let lossy = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    match kind {
        RequestKind::Shell => SessionKind::Shell,
        RequestKind::Exec(command) => SessionKind::Exec(lossy(command)),
        RequestKind::Subsystem(name) => SessionKind::Subsystem(lossy(name)),
    }
}
