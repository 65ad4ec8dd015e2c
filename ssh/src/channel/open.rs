//! CHANNEL_OPEN and its answers (RFC 4254 section 5.1).

use std::time::Duration;

use super::opens::TOO_FAST;
use super::receive::ReceiveWindow;
use super::{Channel, Kind, Session, State};
use crate::config::Windows;
use crate::core::{Core, clean};
use crate::event::{Event, Shortage};
use crate::message::{Fatal, OpenFailure};
use crate::wire::Reader;

/// Bytes that are kept of a peer's own words for refusing a channel.
const WORDS: usize = 200;

impl Core {
    /// CHANNEL_OPEN (RFC 4254 section 5.1).
    pub(crate) fn channel_open(
        &mut self,
        message: &[u8],
        now: Duration,
    ) -> Result<Option<Event>, Fatal> {
        let mut r = Reader::new(message);
        r.u8()?;
        let (name, remote) = (r.string()?, r.u32()?);
        let (window, packet) = (r.u32()?, r.u32()?);
        if !self.opens.one_more(&self.config.opens, now)? {
            self.refuse_open(remote, OpenFailure::ResourceShortage, TOO_FAST);
            return Ok(Some(Event::TooFast));
        }
        let (what, text) = match name {
            b"direct-tcpip" => return self.open_direct(r, remote, window, packet),
            b"session" => return self.open_session(r, remote, window, packet),
            b"x11" => ("an X11 channel", "a relay has no X11 channels"),
            b"forwarded-tcpip" => {
                ("a forwarded-tcpip channel", "a relay takes no forwarded-tcpip channels")
            }
            b"direct-streamlocal@openssh.com" => {
                ("a connection to a Unix socket", "a relay has no Unix sockets to connect to")
            }
            b"forwarded-streamlocal@openssh.com" => (
                "a forwarded Unix socket's channel",
                "a relay takes no channels of forwarded Unix sockets",
            ),
            b"auth-agent" | b"auth-agent@openssh.com" => {
                ("an agent channel", "a relay has no agent channels")
            }
            b"tun@openssh.com" => ("a tunnel", "a relay has no tunnels"),
            _ => ("a channel of an unknown type", "a relay has no channels of this type"),
        };
        self.refuse_open(remote, OpenFailure::UnknownChannelType, text);
        Ok(Some(Event::Refused { what }))
    }

    /// `direct-tcpip` (RFC 4254 section 7.2): the relay decides.
    fn open_direct(
        &mut self,
        mut r: Reader<'_>,
        remote: u32,
        window: u32,
        packet: u32,
    ) -> Result<Option<Event>, Fatal> {
        let (host, port) = (clean(r.string()?, 255), r.u32()?);
        let originator = (clean(r.string()?, 255), r.u32()?);
        r.end()?;
        let windows = self.config.windows;
        let incoming = match self.room(remote, windows) {
            Ok(incoming) => incoming,
            Err(shortage) => return Ok(Some(Event::NoRoom(shortage))),
        };
        let mut channel = Channel::new(Kind::Direct, State::Asked, remote, incoming);
        channel.outgoing.begin(window, packet);
        let Some(id) = self.channels.enter(channel) else { return Ok(None) };
        Ok(Some(Event::Open { channel: id, host, port, originator }))
    }

    /// A session (RFC 4254 section 6.1) is confirmed at once, but for no-more-sessions@openssh.com
    /// (OpenSSH's PROTOCOL section 2.2): what counts is what is asked for on it.
    fn open_session(
        &mut self,
        r: Reader<'_>,
        remote: u32,
        window: u32,
        packet: u32,
    ) -> Result<Option<Event>, Fatal> {
        r.end()?;
        if self.globals.no_more_sessions {
            let text = "no more sessions were wanted on this connection";
            self.refuse_open(remote, OpenFailure::AdministrativelyProhibited, text);
            return Ok(None);
        }
        // There is no input, so that the least window is enough.
        let least = self.config.windows.least;
        let windows = Windows { least, first: least, usual: least, most: least };
        let incoming = match self.room(remote, windows) {
            Ok(incoming) => incoming,
            Err(shortage) => return Ok(Some(Event::NoRoom(shortage))),
        };
        let kind = Kind::Session(Session::default());
        let mut channel = Channel::new(kind, State::Asked, remote, incoming);
        channel.outgoing.begin(window, packet);
        if let Some(id) = self.channels.enter(channel) {
            self.confirm(id);
        }
        Ok(None)
    }

    /// The window of one more channel of the peer; if there is no room for it, the peer has been told
    /// (RFC 4254 section 5.1).
    fn room(&mut self, remote: u32, windows: Windows) -> Result<ReceiveWindow, Shortage> {
        let limits = self.config.limits;
        let most = limits.channels;
        let full = if self.channels.by_peer() >= most {
            Some(("", most))
        } else if self.channels.len() >= limits.all_channels {
            Some((", the relay's among them", limits.all_channels))
        } else {
            None
        };
        if let Some((whose, count)) = full {
            let text = format!(
                "this connection has {count} channels open{whose}; close one, or connect once more"
            );
            self.refuse_open(remote, OpenFailure::ResourceShortage, &text);
            return Err(Shortage::Channels);
        }
        ReceiveWindow::new(windows, &self.share).ok_or_else(|| {
            let text = "this relay has no memory left for one more channel; try again later";
            self.refuse_open(remote, OpenFailure::ResourceShortage, text);
            Shortage::Memory
        })
    }

    /// CHANNEL_OPEN_CONFIRMATION (RFC 4254 section 5.1).
    pub(crate) fn channel_confirmed(&mut self, message: &[u8]) -> Result<Option<Event>, Fatal> {
        let mut r = Reader::new(message);
        r.u8()?;
        let (number, remote, window, packet) = (r.u32()?, r.u32()?, r.u32()?, r.u32()?);
        let (id, forsaken) = self.asking(number)?;
        self.channels.answered(forsaken);
        if let Some(channel) = self.channels.get_mut(id) {
            channel.state = State::Open;
            channel.remote = remote;
            channel.outgoing.begin(window, packet);
        }
        if forsaken {
            self.close(id);
            return Ok(None);
        }
        self.channels.line_up(id);
        Ok(Some(Event::Opened { channel: id }))
    }

    /// CHANNEL_OPEN_FAILURE (RFC 4254 section 5.1).
    pub(crate) fn channel_failed(&mut self, message: &[u8]) -> Result<Option<Event>, Fatal> {
        let mut r = Reader::new(message);
        r.u8()?;
        let (number, code) = (r.u32()?, r.u32()?);
        // Some peers leave out the words, or the language that they are in.
        let text = clean(r.string().unwrap_or_default(), WORDS);
        let (id, forsaken) = self.asking(number)?;
        self.channels.leave(id);
        Ok((!forsaken).then_some(Event::OpenFailed { channel: id, code, text }))
    }

    /// The channel of that number that we asked for (RFC 4254 section 5.1), and whether nobody wants
    /// it any more.
    fn asking(&self, number: u32) -> Result<(super::Id, bool), Fatal> {
        let id = self.channels.find(number);
        let found = id.and_then(|id| Some((id, self.channels.get(id)?.state)));
        match found {
            Some((id, State::Asking { forsaken })) => Ok((id, forsaken)),
            _ => Err(Fatal::protocol("an answer came to a channel that was not asked for")),
        }
    }
}
