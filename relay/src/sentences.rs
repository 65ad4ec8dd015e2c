//! What the relay tells people, beside the refusals that the policy words itself. Each is one ASCII
//! sentence of at most 300 bytes that names what is wrong and what to do; the golden file
//! `relay/tests/golden/sentences.txt` holds them all.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tidegate_policy::decide::Admission;
use tidegate_policy::model::{Label, Login, ObjectKey, Service, Terminal, Window};
use tidegate_policy::snapshot::Snapshot;
use tidegate_policy::text::show_duration;

use crate::claim::{self, Holder};
use crate::clock;
use crate::locate::LastSeen;
use crate::metrics::Unproven;
use crate::view::{clean, utc};

/// Bytes of a terminal's own words that are passed on; with them a sentence stays under 300.
const WORDS: usize = 80;
/// The longest that may lie between a session's decision and its making: a slow disk's claim.
const DECIDED_BEFORE: Duration = Duration::from_secs(10);

/// `2h30m`, `45m`, `90s`: whole units, the largest first.
pub fn duration(duration: Duration) -> String {
    show_duration(clock::signed(duration))
}

pub fn not_connected(terminal: &Label, last_seen: Option<LastSeen>) -> String {
    match last_seen {
        Some(LastSeen { at, from }) => {
            format!("{terminal} is not connected; it was last seen {} from {}", utc(at), from.ip())
        }
        None => format!("{terminal} is not connected and has never been seen here"),
    }
}

pub fn not_offered(terminal: &Label, service: &Service) -> String {
    let asks = service.listen_port.unwrap_or(service.port);
    let name = &service.name;
    format!(
        "{terminal} is connected but does not offer {name}; its ssh -R must ask for port {asks}"
    )
}

/// `words`: the terminal's own, from a peer.
pub fn service_refused(terminal: &Label, service: &Service, words: &str) -> String {
    let Service { name, port, .. } = service;
    let words: String = words.trim().chars().take(WORDS).collect();
    let said = if words.is_empty() { words } else { format!(" ({words})") };
    clean(&format!(
        "{terminal} refused to open its service {name}{said}; check that port {port} answers there"
    ))
}

pub fn no_room() -> String {
    "the relay has no room for one more channel; close some, or try again in a moment".to_owned()
}

pub fn terminal_gone(terminal: &Label) -> String {
    format!("{terminal} has just lost its connection; try again in a moment")
}

pub fn terminal_silent(terminal: &Label, waited: Duration) -> String {
    format!("{terminal} is connected but did not answer within {}", duration(waited))
}

pub fn window_full(window: &ObjectKey, holders: &[Holder]) -> String {
    let held = if holders.len() == 1 { "session is held" } else { "sessions are held" };
    let (count, who) = (holders.len(), claim::users(holders));
    clean(&format!("support window {window} is full: its {count} {held} by {who}; try again later"))
}

pub fn one_time_used(window: &ObjectKey, by: Option<&Holder>) -> String {
    let by = by.map_or_else(String::new, |by| format!(" by {} at {}", by.user, utc(by.since)));
    clean(&format!(
        "support window {window} admits one session and was used{by}; ask for a new window"
    ))
}

pub fn claim_failed() -> String {
    "the relay cannot write its claims and admits nobody to limited windows; tell whoever runs the \
     relay"
        .to_owned()
}

pub fn claim_away(window: &ObjectKey) -> String {
    clean(&format!(
        "the relay cannot reach its API server to claim support window {window}; try again in a \
         moment or use a window without a limit"
    ))
}

pub fn claim_uncertain(window: &ObjectKey) -> String {
    clean(&format!(
        "support window {window} could not be claimed for certain, so it counts as used; ask for a \
         new window"
    ))
}

pub fn audit_unavailable() -> String {
    "the relay cannot write its audit log and admits nobody until it can; tell whoever runs the relay"
        .to_owned()
}

pub fn draining() -> String {
    "this relay is shutting down and admits no new session; connect again in a moment".to_owned()
}

pub fn too_many_sessions(login: &Login, limit: u32) -> String {
    format!(
        "{login} has {limit} sessions open, which is the most a login user may have; end one first"
    )
}

pub fn too_many_connections(login: &Login, limit: u32) -> String {
    format!(
        "{login} has {limit} connections open, which is the most a login user may have; end one first"
    )
}

pub fn terminal_crowded(terminal: &Label, limit: usize) -> String {
    format!(
        "{terminal} has {limit} connections open, one for each service and some to spare, which is \
         the most it may have; end one first"
    )
}

/// Of the refusals of one connection, where so many things are refused that they are not told apart.
pub const MANY_REFUSALS: &str = "more was refused on this connection than is told apart; see its other lines of the same minute";

/// Of known keys that may not enter, where so many are refused that they are not told apart.
pub const MANY_AT_THE_DOOR: &str =
    "more known keys were refused than are told apart; see the lines of the same minute for some";

/// For a connection whose key exchange would be one too many of its source.
pub const TOO_MANY_HANDSHAKES: &str = "too many connections begin at once from your network; \
    wait some seconds and connect again";
/// For one that offered a key which nobody has, where its source did so too often.
pub const TOO_MANY_KEY_PROBES: &str = "too many unknown keys were offered from your network; \
    name the right one with -i and IdentitiesOnly=yes, and connect again in a minute";
/// As the SSH core words it.
pub const TOO_MANY_OPENS: &str =
    "channels are opened too fast on this connection; use one for longer, or wait a moment";

/// For a terminal that offers and takes back without end.
pub const TOO_MANY_FORWARDS: &str =
    "services are offered or taken back too fast on this connection; offer each once";

/// For the trail: what the connections had in common that are counted in one line.
pub fn unproven(why: Unproven) -> &'static str {
    match why {
        Unproven::UnknownKey => "connections that proved no known key",
        Unproven::LoginTimeout => "connections that proved no key in time",
        Unproven::NotSsh => "connections that broke the protocol, or spoke another one",
        Unproven::GaveWay => "connections that gave way to newer ones before a login",
        Unproven::TooManyHandshakes => "connections beyond the key exchanges of one source",
        Unproven::TooManyKeyProbes => {
            "connections that offered too many unknown keys of one source"
        }
    }
}

pub fn too_many_refusals(count: u32) -> String {
    format!("{count} requests on this connection were refused; see 'why TERMINAL' on the relay")
}

/// Why a session ended at its deadline: the window closed, the login user's time was over, or the
/// session reached its longest duration. `declared` is its window as it is now, which may have been
/// made shorter since the admission.
pub fn deadline(admission: &Admission, declared: &Window, deadline: Timestamp) -> String {
    let window = &admission.window;
    let key = &window.meta.key;
    let before = deadline.checked_sub(SignedDuration::from_nanos(1)).unwrap_or(deadline);
    let closed = declared.schedule.open_at(before).is_some_and(|open| open.closes == deadline);
    if closed || deadline >= admission.occurrence.closes {
        return clean(&format!(
            "support window {key} closed at {}",
            window.schedule.human(deadline)
        ));
    }
    // The deadline counts from the decision, which came a moment before the session was made.
    for longest in [window, declared].iter().filter_map(|one| one.limits.max_session_duration) {
        if let Ok(begun) = deadline.checked_sub(longest)
            && admission.opened_at.duration_since(begun).unsigned_abs() <= DECIDED_BEFORE
        {
            let longest = duration(longest.unsigned_abs());
            return clean(&format!(
                "the session reached {longest}, the longest that support window {key} allows"
            ));
        }
    }
    let login = &admission.staff.login;
    clean(&format!(
        "the time of {login} in support window {key} ended at {}",
        window.schedule.human(deadline)
    ))
}

pub fn idle(window: &ObjectKey, timeout: Duration) -> String {
    let timeout = duration(timeout);
    format!("no byte passed for {timeout}, the longest that support window {window} allows")
}

pub fn revoked(why: &str) -> String {
    clean(&format!("access was withdrawn: {why}"))
}

pub fn cut() -> String {
    "the session was cut by whoever runs the relay".to_owned()
}

/// By its SupportSession object, which was deleted or has `spec.cut`.
pub fn cut_in_cluster(session: &str, deleted: bool) -> String {
    let how = if deleted { "deleted" } else { "set spec.cut of" };
    format!("the session was cut by whoever {how} its SupportSession {session}")
}

pub fn no_such_session(name: &str) -> String {
    clean(&format!("no live session is named {name}; 'sessions' lists those that are"))
}

pub fn drained() -> String {
    "the relay is shutting down; connect again in a moment".to_owned()
}

pub fn staff_left() -> String {
    "the login user's connection ended".to_owned()
}

pub fn terminal_left(terminal: &Label) -> String {
    format!("the connection of {terminal} ended")
}

pub fn relay_crashed() -> String {
    "the relay ended without closing this session".to_owned()
}

pub fn never_done(what: &str) -> String {
    format!("the relay refuses {what}: it opens declared services of terminals and nothing else")
}

pub fn terminals_only_forward() -> String {
    "a terminal may only offer its own services with ssh -R; it opens nothing through the relay"
        .to_owned()
}

pub fn staff_never_forward() -> String {
    "a login user cannot offer services with -R; only terminals do".to_owned()
}

pub fn no_forward(terminal: &Terminal, last_refusal: Option<&str>) -> String {
    let why = last_refusal.map_or_else(|| "no service was offered".to_owned(), ToOwned::to_owned);
    clean(&format!("{why}; {} may offer {}", terminal.meta.key.name, offers(terminal)))
}

/// The `-R` forms that a terminal's declared services allow.
fn offers(terminal: &Terminal) -> String {
    let one = |s: &Service| {
        format!("{} (-R {}:localhost:{})", s.name, s.listen_port.unwrap_or(s.port), s.port)
    };
    terminal.services.iter().map(one).collect::<Vec<_>>().join(", ")
}

pub fn taken_over(terminal: &Label) -> String {
    format!("a newer connection of {terminal} has taken over")
}

pub fn contended(terminal: &Label) -> String {
    format!(
        "two connections fight for {terminal}; this one is refused for a minute: stop one of the two machines"
    )
}

pub fn window_admits_no_longer(window: &ObjectKey) -> String {
    clean(&format!("support window {window} no longer admits this"))
}

/// A terminal of `attach: DuringWindow` outside of every window.
pub fn not_attached_now(snapshot: &Snapshot, terminal: &Terminal, now: Timestamp) -> String {
    let name = &terminal.meta.key.name;
    let windows = snapshot.windows_of_terminal(terminal);
    let next = windows
        .iter()
        .filter(|window| !window.suspended)
        .filter_map(|window| {
            let next = window.schedule.occurrences_from(now).find(|o| o.opens > now)?;
            Some((next.opens, window))
        })
        .min_by_key(|(opens, _)| *opens);
    clean(&match next {
        Some((opens, window)) => format!(
            "{name} attaches only during support windows; the next one opens {}, connect from 2 minutes before",
            window.schedule.human(opens)
        ),
        None => format!(
            "{name} attaches only during support windows, and none is declared; ask support staff for one"
        ),
    })
}

pub fn terminal_suspended(terminal: &Label) -> String {
    format!("{terminal} is suspended by support staff's policy; ask them to lift it")
}

pub fn terminal_withdrawn(terminal: &Label) -> String {
    format!(
        "{terminal} is no longer declared, is suspended or has another key; tell whoever runs the relay"
    )
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fmt::Write as _;
    use std::sync::Arc;

    use jiff::SignedDuration;
    use jiff::tz::Offset;
    use tidegate_policy::decide::Staff;
    use tidegate_policy::model::{
        Attach, KeyBlob, Limits, Meta, Need, Recording, TerminalSelector, UserSelector, Window,
    };
    use tidegate_policy::schedule::{Occurrence, Once, Schedule};

    use super::*;

    fn label(text: &str) -> Label {
        Label::parse(text).unwrap()
    }

    fn meta(name: &str) -> Meta {
        Meta {
            key: ObjectKey { namespace: label("acme"), name: label(name) },
            uid: "u".into(),
            generation: 1,
            created: Timestamp::UNIX_EPOCH,
        }
    }

    fn terminal() -> Terminal {
        let service = |name, port, listen_port| Service { name: label(name), port, listen_port };
        Terminal {
            meta: meta("kiosk-17"),
            labels: BTreeMap::new(),
            public_keys: vec![],
            host_keys: vec![],
            services: vec![service("ssh", 22, Some(20017)), service("web", 443, None)],
            owner: None,
            attach: Attach::DuringWindow,
            suspended: false,
            relays: None,
        }
    }

    fn admission(limits: Limits, deadline: &str) -> Admission {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let occurrence =
            Occurrence { opens: at("2026-11-23T08:00:00Z"), closes: at("2026-11-23T10:00:00Z") };
        let window = Window {
            meta: meta("berlin-maint"),
            case: None,
            users: UserSelector::default(),
            terminals: TerminalSelector::default(),
            services: BTreeSet::from([label("ssh")]),
            schedule: Schedule::Once(Once { occurrence, offset: Offset::constant(1) }),
            consent: Need::NotRequired,
            code: Need::NotRequired,
            recording: Recording::None,
            one_time: false,
            limits,
            suspended: false,
        };
        let terminal = terminal();
        Admission {
            staff: Staff {
                login: Login::parse("alice").unwrap(),
                key: KeyBlob::new(*b"key"),
                source: [203, 0, 113, 7].into(),
            },
            service: terminal.services.first().unwrap().clone(),
            terminal: Arc::new(terminal),
            window: Arc::new(window),
            occurrence,
            opened_at: at("2026-11-23T08:15:00Z"),
            deadline: at(deadline),
        }
    }

    /// Every sentence of this module, under its function's name.
    fn all() -> Vec<(&'static str, String)> {
        let kiosk = label("kiosk-17");
        let alice = Login::parse("alice").unwrap();
        let window = meta("berlin-maint").key;
        let at: Timestamp = "2026-11-23T09:05:00Z".parse().unwrap();
        let seen = LastSeen { at, from: "198.51.100.4:40022".parse().unwrap() };
        let holder =
            |user: &str| Holder { session: "ss-01".to_owned(), user: user.to_owned(), since: at };
        let limits = Limits {
            max_session_duration: Some(SignedDuration::from_mins(45)),
            ..Limits::default()
        };
        let closes = admission(Limits::default(), "2026-11-23T10:00:00Z");
        let longest = admission(limits, "2026-11-23T09:00:00Z");
        let expires = admission(Limits::default(), "2026-11-23T09:30:00Z");
        let terminal = terminal();
        let ssh = terminal.services.first().unwrap();
        let empty = Snapshot::new(tidegate_policy::model::Mesh {
            meta: meta("prod"),
            domain: "support.example.com".into(),
            max_policy_age: SignedDuration::from_mins(5),
            session_retention: SignedDuration::from_hours(168),
            host_keys: tidegate_policy::model::HostKeys::default(),
        });
        vec![
            ("not_connected", not_connected(&kiosk, Some(seen))),
            ("not_connected, never seen", not_connected(&kiosk, None)),
            ("not_offered", not_offered(&kiosk, ssh)),
            ("service_refused", service_refused(&kiosk, ssh, "Connection refused")),
            ("service_refused, without a word", service_refused(&kiosk, ssh, "")),
            ("no_room", no_room()),
            ("terminal_gone", terminal_gone(&kiosk)),
            ("terminal_silent", terminal_silent(&kiosk, Duration::from_secs(10))),
            ("window_full", window_full(&window, &[holder("alice"), holder("bob.acme")])),
            ("window_full, one", window_full(&window, &[holder("alice")])),
            ("one_time_used", one_time_used(&window, Some(&holder("alice")))),
            ("one_time_used, by nobody known", one_time_used(&window, None)),
            ("claim_failed", claim_failed()),
            ("claim_away", claim_away(&window)),
            ("claim_uncertain", claim_uncertain(&window)),
            ("audit_unavailable", audit_unavailable()),
            ("draining", draining()),
            ("too_many_sessions", too_many_sessions(&alice, 8)),
            ("too_many_connections", too_many_connections(&alice, 64)),
            ("terminal_crowded", terminal_crowded(&kiosk, 9)),
            ("too_many_handshakes", TOO_MANY_HANDSHAKES.to_owned()),
            ("too_many_key_probes", TOO_MANY_KEY_PROBES.to_owned()),
            ("too_many_opens", TOO_MANY_OPENS.to_owned()),
            ("too_many_forwards", TOO_MANY_FORWARDS.to_owned()),
            ("too_many_refusals", too_many_refusals(20)),
            ("deadline, closes", deadline(&closes, &closes.window, closes.deadline)),
            ("deadline, longest session", deadline(&longest, &longest.window, longest.deadline)),
            ("deadline, validUntil", deadline(&expires, &expires.window, expires.deadline)),
            ("idle", idle(&window, Duration::from_mins(10))),
            ("revoked", revoked("support window acme/berlin-maint is suspended")),
            ("cut", cut()),
            ("cut_in_cluster", cut_in_cluster("ss-01890a5d-ac96-774b-bcce-b302099a8057", false)),
            (
                "cut_in_cluster, deleted",
                cut_in_cluster("ss-01890a5d-ac96-774b-bcce-b302099a8057", true),
            ),
            ("no_such_session", no_such_session("ss-nobody")),
            ("drained", drained()),
            ("staff_left", staff_left()),
            ("terminal_left", terminal_left(&kiosk)),
            ("never_done", never_done("X11 forwarding")),
            ("terminals_only_forward", terminals_only_forward()),
            ("staff_never_forward", staff_never_forward()),
            ("no_forward", no_forward(&terminal, None)),
            (
                "no_forward, refused",
                no_forward(&terminal, Some("kiosk-17 declares no listenPort 9")),
            ),
            ("taken_over", taken_over(&kiosk)),
            ("contended", contended(&kiosk)),
            ("window_admits_no_longer", window_admits_no_longer(&window)),
            ("not_attached_now", not_attached_now(&empty, &terminal, at)),
            ("terminal_suspended", terminal_suspended(&kiosk)),
            ("terminal_withdrawn", terminal_withdrawn(&kiosk)),
        ]
    }

    #[test]
    fn sentences_are_those_of_the_golden_file() {
        let mut text = String::new();
        for (name, sentence) in all() {
            assert!(sentence.is_ascii() && !sentence.contains(['\n', '\r']), "{name}: {sentence}");
            assert!(sentence.len() <= 300, "{name}: {sentence}");
            writeln!(text, "{name}\n    {sentence}").unwrap();
        }
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/sentences.txt");
        if std::env::var_os("TIDEGATE_BLESS").is_some() {
            std::fs::write(golden, &text).unwrap();
        }
        let expected = std::fs::read_to_string(golden).unwrap();
        assert_eq!(
            text, expected,
            "TIDEGATE_BLESS=1 cargo test -p tidegate-relay rewrites {golden}"
        );
    }

    #[test]
    fn the_docs_tell_what_a_peer_beyond_a_quota_is_told() {
        let docs = include_str!("../../docs/quotas.md").split_whitespace().collect::<Vec<_>>();
        let docs = docs.join(" ");
        for sentence in [
            TOO_MANY_HANDSHAKES.to_owned(),
            TOO_MANY_KEY_PROBES.to_owned(),
            TOO_MANY_OPENS.to_owned(),
            TOO_MANY_FORWARDS.to_owned(),
            no_room(),
            too_many_refusals(crate::denies::DENIES),
            too_many_sessions(&Login::parse("alice").unwrap(), 8),
            too_many_connections(&Login::parse("alice").unwrap(), 64),
            terminal_crowded(&Label::parse("kiosk-17").unwrap(), 9),
        ] {
            assert!(docs.contains(&format!("\"{sentence}\"")), "{sentence}");
        }
    }

    #[test]
    fn durations_read_as_the_resources_write_them() {
        for (seconds, text) in
            [(0, "0s"), (45, "45s"), (2700, "45m"), (9000, "2h30m"), (3601, "1h1s")]
        {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
        }
    }
}
