//! Turns the library's callbacks into events, and nothing else. Nothing here waits past a kill.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::ssh_key::{Algorithm, PublicKey};
use russh::server::{
    Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey,
};
use russh::{ChannelId, Error, Pty};
use tidegate_policy::model::KeyBlob;
use tokio::sync::{mpsc, oneshot};

use super::channel::SessionChannel;
use super::connection::{Ended, Reason, Shared};
use super::event::{
    Authenticated, CancelRequest, Event, ForwardRequest, OpenRequest, PendingChannel, RefuseCode,
    SessionKind, SessionRequest, refuse,
};
use super::{Doorkeeper, printable, usable};

/// How long whoever takes the events may keep a whole connection waiting.
const PATIENCE: Duration = Duration::from_secs(15);

/// One connection's callbacks.
pub(super) struct Front {
    shared: Arc<Shared>,
    door: Arc<dyn Doorkeeper>,
    events: mpsc::Sender<Event>,
    offered: u32,
    asked_to_sign: u32,
    proven: Option<(String, KeyBlob)>,
    /// The peer's session channels.
    sessions: HashMap<ChannelId, Console>,
}

/// A session channel: whether it has a pty, and itself until something is asked of it.
struct Console {
    pty: bool,
    channel: Option<SessionChannel>,
}

impl Front {
    pub fn new(
        shared: Arc<Shared>,
        door: Arc<dyn Doorkeeper>,
        events: mpsc::Sender<Event>,
    ) -> Self {
        Self {
            shared,
            door,
            events,
            offered: 0,
            asked_to_sign: 0,
            proven: None,
            sessions: HashMap::new(),
        }
    }

    /// Hands an event over, or fails where the connection is over or nobody takes it.
    async fn tell(&self, event: Event) -> Result<(), Error> {
        let killed = self.shared.socket.killed();
        tokio::select! {
            () = killed.cancelled() => Err(Error::Disconnect),
            told = tokio::time::timeout(PATIENCE, self.events.send(event)) => match told {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) => Err(Error::Disconnect),
                Err(_) => {
                    tracing::error!(connection = self.shared.id, "nobody takes a connection's events");
                    self.shared.kill(Ended::Fault);
                    Err(Error::Disconnect)
                }
            }
        }
    }

    /// Waits for an answer; no answer is none.
    async fn answer<T>(&self, answer: oneshot::Receiver<T>) -> Option<T> {
        tokio::select! {
            () = self.shared.socket.killed().cancelled() => None,
            answer = tokio::time::timeout(PATIENCE, answer) => answer.ok()?.ok(),
        }
    }

    async fn refused(&self, what: &'static str) -> Result<(), Error> {
        self.tell(Event::Refused { what }).await
    }

    /// Whether the peer may open one more channel; if not, it has been told so.
    fn has_room(&self, reply: ChannelOpenHandle) -> Option<ChannelOpenHandle> {
        let most = self.shared.settings.channels;
        if self.shared.table.by_peer() < most {
            return Some(reply);
        }
        let text =
            format!("this connection has {most} channels open; close one, or connect once more");
        refuse(reply, RefuseCode::Shortage, &text);
        None
    }

    /// Ends a connection that tries too much. The peer gets to read why.
    fn enough(&self, text: &str) -> bool {
        self.shared.disconnect(Reason::NoMoreAuth, text);
        false
    }

    /// Whether a key may be signed with.
    fn may_sign(&mut self, user: &str, key: &PublicKey, algorithm: &Algorithm) -> bool {
        let settings = &self.shared.settings;
        self.offered += 1;
        if self.offered > settings.offered_keys {
            return self.enough(
                "too many keys were offered; name the right one with -i and IdentitiesOnly=yes",
            );
        }
        let known = usable(algorithm)
            && blob(key).is_some_and(|key| self.door.offered(printable(user, 255).as_str(), &key));
        if !known {
            return false;
        }
        // The library does not tell of an invalid signature, but each takes an offer to come.
        self.asked_to_sign += 1;
        if self.asked_to_sign > settings.signatures {
            return self.enough("too many keys were not signed with");
        }
        true
    }

    /// Passes a session channel on, once.
    async fn session(
        &mut self,
        id: ChannelId,
        kind: SessionKind,
        session: &mut Session,
    ) -> Result<(), Error> {
        let console = self.sessions.get_mut(&id).and_then(|it| Some((it.pty, it.channel.take()?)));
        let Some((pty, channel)) = console else { return session.channel_failure(id) };
        session.channel_success(id)?;
        self.tell(Event::Session(SessionRequest { kind, pty, channel })).await
    }
}

fn blob(key: &PublicKey) -> Option<KeyBlob> {
    key.to_bytes().ok().map(KeyBlob::new)
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Handler for Front {
    type Error = Error;

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Error> {
        let may = self.may_sign(user, offer.public_key, offer.algorithm);
        Ok(if may { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Error> {
        let Some(blob) = blob(key.public_key).filter(|_| usable(key.algorithm)) else {
            return Ok(Auth::reject());
        };
        if self.shared.is_leaving() || !self.door.proven(user, &blob) {
            return Ok(Auth::reject());
        }
        self.proven = Some((user.to_owned(), blob));
        Ok(Auth::Accept)
    }

    async fn auth_succeeded(&mut self, session: &mut Session) -> Result<(), Error> {
        let Some((user, key)) = self.proven.take() else { return Err(Error::Inconsistent) };
        self.shared.authenticated.cancel();
        let client = printable(&lossy(session.remote_sshid()), 255);
        self.tell(Event::Authenticated(Authenticated { user, key, client })).await
    }

    async fn channel_open_session(
        &mut self,
        channel: russh::Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        let Some(reply) = self.has_room(reply) else { return Ok(()) };
        let table = &self.shared.table;
        // The library does not tell of those that we closed first.
        self.sessions.retain(|id, _| table.contains(*id));
        let id = channel.id();
        let channel = PendingChannel::new(channel, &self.shared).into_session();
        self.sessions.insert(id, Console { pty: false, channel: Some(channel) });
        reply.accept().await;
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: russh::Channel<Msg>,
        host: &str,
        port: u32,
        originator: &str,
        originator_port: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        let Some(reply) = self.has_room(reply) else { return Ok(()) };
        let pending = PendingChannel::new(channel, &self.shared);
        self.tell(Event::Open(OpenRequest {
            host: host.to_owned(),
            port,
            originator: (printable(originator, 255), originator_port),
            reply,
            pending,
        }))
        .await
    }

    async fn channel_open_x11(
        &mut self,
        _: russh::Channel<Msg>,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        refuse(reply, RefuseCode::UnknownType, "a relay has no X11 channels");
        self.refused("an X11 channel").await
    }

    async fn channel_open_forwarded_tcpip(
        &mut self,
        _: russh::Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        refuse(reply, RefuseCode::UnknownType, "a relay takes no forwarded-tcpip channels");
        self.refused("a forwarded-tcpip channel").await
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        _: russh::Channel<Msg>,
        _: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        refuse(reply, RefuseCode::UnknownType, "a relay has no Unix sockets to connect to");
        self.refused("a connection to a Unix socket").await
    }

    async fn channel_open_confirmation(
        &mut self,
        id: ChannelId,
        _: u32,
        _: u32,
        _: &mut Session,
    ) -> Result<(), Error> {
        self.shared.table.confirmed(id);
        Ok(())
    }

    async fn data(&mut self, id: ChannelId, data: &[u8], _: &mut Session) -> Result<(), Error> {
        if let Some(pipe) = self.shared.table.get(id) {
            pipe.push(data).await;
        }
        Ok(())
    }

    async fn channel_eof(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Error> {
        if let Some(pipe) = self.shared.table.get(id) {
            pipe.eof();
        }
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Error> {
        self.shared.table.close(id);
        self.sessions.remove(&id);
        Ok(())
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        _: &str,
        _: u32,
        _: u32,
        _: u32,
        _: u32,
        _: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Error> {
        match self.sessions.get_mut(&id) {
            Some(console) if console.channel.is_some() => {
                console.pty = true;
                session.channel_success(id)
            }
            _ => session.channel_failure(id),
        }
    }

    async fn env_request(
        &mut self,
        id: ChannelId,
        _: &str,
        _: &str,
        session: &mut Session,
    ) -> Result<(), Error> {
        session.channel_failure(id)
    }

    async fn window_change_request(
        &mut self,
        id: ChannelId,
        _: u32,
        _: u32,
        _: u32,
        _: u32,
        session: &mut Session,
    ) -> Result<(), Error> {
        session.channel_success(id)
    }

    async fn signal(
        &mut self,
        id: ChannelId,
        _: russh::Sig,
        session: &mut Session,
    ) -> Result<(), Error> {
        session.channel_failure(id)
    }

    async fn x11_request(
        &mut self,
        id: ChannelId,
        _: bool,
        _: &str,
        _: &str,
        _: u32,
        session: &mut Session,
    ) -> Result<(), Error> {
        session.channel_failure(id)?;
        self.refused("X11 forwarding").await
    }

    async fn agent_request(&mut self, _: ChannelId, _: &mut Session) -> Result<bool, Error> {
        self.refused("agent forwarding").await?;
        Ok(false)
    }

    async fn shell_request(&mut self, id: ChannelId, session: &mut Session) -> Result<(), Error> {
        self.session(id, SessionKind::Shell, session).await
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), Error> {
        self.session(id, SessionKind::Exec(lossy(command)), session).await
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Error> {
        self.session(id, SessionKind::Subsystem(name.to_owned()), session).await
    }

    async fn tcpip_forward(
        &mut self,
        host: &str,
        port: &mut u32,
        _: &mut Session,
    ) -> Result<bool, Error> {
        let (answer, answered) = oneshot::channel();
        let request = ForwardRequest { host: host.to_owned(), port: *port, answer };
        self.tell(Event::Forward(request)).await?;
        let granted = self.answer(answered).await.flatten();
        if let Some(granted) = granted {
            *port = granted;
        }
        Ok(granted.is_some())
    }

    async fn cancel_tcpip_forward(
        &mut self,
        host: &str,
        port: u32,
        _: &mut Session,
    ) -> Result<bool, Error> {
        let (answer, answered) = oneshot::channel();
        let request = CancelRequest { host: host.to_owned(), port, answer };
        self.tell(Event::Cancel(request)).await?;
        Ok(self.answer(answered).await.unwrap_or(false))
    }

    async fn streamlocal_forward(&mut self, _: &str, _: &mut Session) -> Result<bool, Error> {
        self.refused("forwarding of a Unix socket").await?;
        Ok(false)
    }
}
