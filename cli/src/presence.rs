//! Which terminals are connected now, as far as that is known.

use std::collections::BTreeMap;

use jiff::Timestamp;

/// What is known of the connections of a mesh's terminals.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Presence {
    /// By the terminal's name, which is unique in the mesh.
    connected: BTreeMap<String, Connection>,
    /// Why a terminal that is not in `connected` may be connected all the same: one sentence. `None`: it
    /// is not.
    unknown: Option<String>,
}

/// A terminal's connection to a relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    pub pod: String,
    /// Not known where only a session tells of it.
    pub since: Option<Timestamp>,
}

/// Whether one terminal is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connected<'a> {
    Yes(&'a Connection),
    No,
    Unknown,
}

impl Presence {
    /// Nothing is known, for this reason.
    pub fn unknown(why: impl Into<String>) -> Self {
        Self { connected: BTreeMap::new(), unknown: Some(why.into()) }
    }

    /// A connection that was seen; a dated one says more.
    pub fn saw(&mut self, terminal: &str, connection: Connection) {
        let seen = self.connected.entry(terminal.to_owned()).or_insert_with(|| connection.clone());
        if seen.since.is_none() {
            *seen = connection;
        }
    }

    /// Something could not be asked, so that no terminal can be said not to be connected. The first
    /// reason stays.
    pub fn doubt(&mut self, why: impl Into<String>) {
        self.unknown.get_or_insert_with(|| why.into());
    }

    pub fn of(&self, terminal: &str) -> Connected<'_> {
        match (self.connected.get(terminal), &self.unknown) {
            (Some(connection), _) => Connected::Yes(connection),
            (None, None) => Connected::No,
            (None, Some(_)) => Connected::Unknown,
        }
    }

    /// Why it is unknown whether some are connected.
    pub fn why_unknown(&self) -> Option<&str> {
        self.unknown.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_seen_is_not_connected_only_where_everything_was_seen() {
        let mut presence = Presence::default();
        let since = Some(Timestamp::UNIX_EPOCH);
        presence.saw("a", Connection { pod: "eu-0".into(), since: None });
        presence.saw("a", Connection { pod: "eu-1".into(), since });
        presence.saw("a", Connection { pod: "eu-2".into(), since: None });
        let seen = Connection { pod: "eu-1".into(), since };
        assert_eq!(presence.of("a"), Connected::Yes(&seen));
        assert_eq!(presence.of("b"), Connected::No);
        presence.doubt("pod eu-3 does not answer");
        presence.doubt("later");
        assert_eq!(presence.of("a"), Connected::Yes(&seen));
        assert_eq!(presence.of("b"), Connected::Unknown);
        assert_eq!(presence.why_unknown(), Some("pod eu-3 does not answer"));
    }
}
