//! What people are told: one ASCII sentence for each refusal, at most 300 bytes.
//!
//! A sentence names only what its reader may know: herself, what she typed, the terminals that her
//! windows select, and those windows.

use std::fmt;

use crate::decide::{Deny, NextOpening, Reason, Wants};
use crate::model::{Label, Login};
use crate::schedule::human_utc;
use crate::text::shown;

/// The most bytes that a sentence may have.
pub const LONGEST: usize = 300;

impl Reason {
    /// A stable CamelCase word for metrics, audit and conditions: `NotOpen`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownLogin { .. } => "UnknownLogin",
            Self::WrongLogin { .. } => "WrongLogin",
            Self::KeyRemoved { .. } => "KeyRemoved",
            Self::UserSuspended { .. } => "UserSuspended",
            Self::UserExpired { .. } => "UserExpired",
            Self::SourceNotAllowed { .. } => "SourceNotAllowed",
            Self::MalformedHost { .. } => "MalformedHost",
            Self::UnknownTerminal { .. } => "UnknownTerminal",
            Self::UnknownListenPort { .. } => "UnknownListenPort",
            Self::UndeclaredPort { .. } => "UndeclaredPort",
            Self::TerminalSuspended { .. } => "TerminalSuspended",
            Self::ServiceNotInWindow { .. } => "ServiceNotInWindow",
            Self::NotOpen { .. } => "NotOpen",
            Self::WindowExpired { .. } => "WindowExpired",
            Self::WindowSuspended { .. } => "WindowSuspended",
            Self::NeedsAgent { .. } => "NeedsAgent",
            Self::WindowGone { .. } => "WindowGone",
            Self::WindowClosed { .. } => "WindowClosed",
        }
    }

    fn sentence(&self, next: Option<&NextOpening>) -> String {
        // Names may have 63 bytes each; they are shortened only where the whole would be too long.
        let mut sentences = [64, 32, 16].into_iter().map(|longest| self.with(next, longest));
        let fits = sentences.find(|sentence| sentence.len() <= LONGEST);
        shown(&fits.unwrap_or_else(|| self.with(next, 12)), LONGEST)
    }

    /// The sentence with every name cut at `longest` bytes.
    fn with(&self, next: Option<&NextOpening>, longest: usize) -> String {
        let label = |label: &Label| shown(label.as_str(), longest);
        let user = |login: &Login| match &login.tenant {
            None => label(&login.name),
            Some(tenant) => format!("{}.{}", label(&login.name), label(tenant)),
        };
        let later = |none: &str, which: &str| match next {
            None => none.to_owned(),
            Some(next) => {
                let case = next.case.as_ref();
                let case = case.map(|case| format!(" (case {})", shown(case, longest.min(32))));
                let human = shown(&next.human, 64);
                format!("; the next one{which} opens {human}{}", case.unwrap_or_default())
            }
        };
        match self {
            Self::UnknownLogin { login } => {
                format!("there is no login {}; ask whoever manages the login users", user(login))
            }
            Self::WrongLogin { typed, owner } => {
                let (typed, owner) = (shown(typed, longest), user(owner));
                format!("this key belongs to {owner}, not to {typed}; log in as {owner}")
            }
            Self::KeyRemoved { login } => {
                let login = user(login);
                format!(
                    "this key does not belong to {login}; ask whoever manages the login users to add it"
                )
            }
            Self::UserSuspended { login } => {
                format!(
                    "login user {} is suspended; ask whoever manages the login users",
                    user(login)
                )
            }
            Self::UserExpired { login, at } => {
                let (login, at) = (user(login), human_utc(*at));
                format!("the access of {login} ended {at}; ask whoever manages the login users")
            }
            Self::SourceNotAllowed { login, source } => {
                format!(
                    "{} may not come from {source}; connect from a permitted address",
                    user(login)
                )
            }
            Self::MalformedHost { shown: host } => {
                let host = shown(host, 64);
                format!(
                    "'{host}' is not a terminal's name; write one such as kiosk-17, or localhost and a listenPort"
                )
            }
            Self::UnknownTerminal { login, terminal } => {
                let (login, terminal) = (user(login), shown(terminal, longest));
                format!(
                    "no support window of {login} has a terminal {terminal}; see 'terminals' on the relay"
                )
            }
            Self::UnknownListenPort { login, port } => {
                let login = user(login);
                format!(
                    "no support window of {login} has a service with listenPort {port}; see 'terminals' on the relay"
                )
            }
            Self::UndeclaredPort { terminal, port, declared } => {
                let terminal = label(terminal);
                format!(
                    "{terminal} declares no service on port {port}; {}",
                    services(declared, longest)
                )
            }
            Self::TerminalSuspended { terminal } => {
                format!(
                    "terminal {} is suspended; ask whoever manages the terminals",
                    label(terminal)
                )
            }
            Self::ServiceNotInWindow { login, terminal, service } => {
                let (login, terminal, service) = (user(login), label(terminal), label(service));
                format!(
                    "no support window of {login} covers {terminal}/{service}; ask for one that lists {service}"
                )
            }
            Self::NotOpen { login, terminal, service } => {
                let (login, terminal, service) = (user(login), label(terminal), label(service));
                let later = later("; none opens later, so ask for a new one", "");
                format!("no open support window for {login} on {terminal}/{service}{later}")
            }
            Self::WindowExpired { login, terminal, service, window, closed } => {
                let (login, terminal, service) = (user(login), label(terminal), label(service));
                let (window, closed) = (label(window), shown(closed, 64));
                format!(
                    "support window {window} for {login} on {terminal}/{service} expired {closed}; ask for a new one"
                )
            }
            Self::WindowSuspended { login, terminal, service, window } => {
                let (login, terminal, service) = (user(login), label(terminal), label(service));
                let (window, later) =
                    (label(window), later("; ask whoever manages the windows", ""));
                format!(
                    "support window {window} for {login} on {terminal}/{service} is suspended{later}"
                )
            }
            Self::NeedsAgent { window, what, terminal } => {
                let (window, terminal) = (label(window), label(terminal));
                let what = match what {
                    Wants::Consent => "the customer's consent",
                    Wants::Code => "a one-time code",
                    Wants::Recording => "a recording by the agent",
                };
                format!(
                    "window {window} requires {what} and {terminal} runs no agent{}",
                    later("", " without that")
                )
            }
            Self::WindowGone { window } => {
                format!(
                    "support window {} was deleted or no longer covers this session",
                    label(window)
                )
            }
            Self::WindowClosed { window } => {
                format!("support window {} has closed", label(window))
            }
        }
    }
}

/// `use ssh (22) or web (443)`, as many as a line holds.
fn services(declared: &[(Label, u16)], longest: usize) -> String {
    const SHOWN: usize = 4;
    let one =
        |(name, port): &(Label, u16)| format!("{} ({port})", shown(name.as_str(), longest.min(32)));
    let some: Vec<_> = declared.iter().take(SHOWN).map(one).collect();
    match (some.split_last(), declared.len().saturating_sub(SHOWN)) {
        (None, _) => "your support windows cover none of its services".to_owned(),
        (Some((last, [])), 0) => format!("use {last}"),
        (Some((last, others)), 0) => format!("use {} or {last}", others.join(", ")),
        (Some(_), more) => format!("use {} or {more} more", some.join(", ")),
    }
}

impl From<Reason> for Deny {
    /// A refusal that no later opening ends.
    fn from(reason: Reason) -> Self {
        Self { reason, next_opening: None }
    }
}

/// The sentence without a next opening: ASCII, at most 300 bytes.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence(None))
    }
}

/// The sentence: ASCII, at most 300 bytes.
impl fmt::Display for Deny {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason.sentence(self.next_opening.as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use jiff::Timestamp;
    use proptest::prelude::*;
    use tidegate_draw::cases;

    use super::*;

    fn label(text: &str) -> Label {
        Label::parse(text).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// One of each reason, made of these names. A new reason has to take its place in the chain.
    fn after(last: Option<&Reason>, names: &Names) -> Option<Reason> {
        let login = names.login.clone();
        let (terminal, service) = (names.terminal.clone(), names.service.clone());
        let (window, text) = (names.window.clone(), names.text.clone());
        let ends = at("2026-11-24T21:00:00Z");
        let next = match last {
            None => Reason::UnknownLogin { login },
            Some(Reason::UnknownLogin { .. }) => Reason::WrongLogin { typed: text, owner: login },
            Some(Reason::WrongLogin { .. }) => Reason::KeyRemoved { login },
            Some(Reason::KeyRemoved { .. }) => Reason::UserSuspended { login },
            Some(Reason::UserSuspended { .. }) => Reason::UserExpired { login, at: ends },
            Some(Reason::UserExpired { .. }) => {
                Reason::SourceNotAllowed { login, source: "203.0.113.7".parse().unwrap() }
            }
            Some(Reason::SourceNotAllowed { .. }) => Reason::MalformedHost { shown: text },
            Some(Reason::MalformedHost { .. }) => Reason::UnknownTerminal { login, terminal: text },
            Some(Reason::UnknownTerminal { .. }) => {
                Reason::UnknownListenPort { login, port: names.port }
            }
            Some(Reason::UnknownListenPort { .. }) => {
                let declared = names.declared.clone();
                Reason::UndeclaredPort { terminal, port: names.port, declared }
            }
            Some(Reason::UndeclaredPort { .. }) => Reason::TerminalSuspended { terminal },
            Some(Reason::TerminalSuspended { .. }) => {
                Reason::ServiceNotInWindow { login, terminal, service }
            }
            Some(Reason::ServiceNotInWindow { .. }) => Reason::NotOpen { login, terminal, service },
            Some(Reason::NotOpen { .. }) => {
                let closed = "Mon 23 Nov 11:00 +01:00".to_owned();
                Reason::WindowExpired { login, terminal, service, window, closed }
            }
            Some(Reason::WindowExpired { .. }) => {
                Reason::WindowSuspended { login, terminal, service, window }
            }
            Some(Reason::WindowSuspended { .. }) => {
                Reason::NeedsAgent { window, what: names.what, terminal }
            }
            Some(Reason::NeedsAgent { .. }) => Reason::WindowGone { window },
            Some(Reason::WindowGone { .. }) => Reason::WindowClosed { window },
            Some(Reason::WindowClosed { .. }) => return None,
        };
        Some(next)
    }

    fn all(names: &Names) -> Vec<Reason> {
        let mut all: Vec<Reason> = Vec::new();
        while let Some(next) = after(all.last(), names) {
            all.push(next);
        }
        all
    }

    #[derive(Clone, Debug)]
    struct Names {
        login: Login,
        terminal: Label,
        service: Label,
        window: Label,
        text: String,
        port: u32,
        declared: Vec<(Label, u16)>,
        what: Wants,
    }

    /// Every sentence as people see it. To change one, change the file too.
    #[test]
    fn golden() {
        let names = |what| Names {
            login: Login::parse("alice").unwrap(),
            terminal: label("kiosk-17"),
            service: label("ssh"),
            window: label("berlin-maint"),
            text: "kiosk-18".to_owned(),
            port: 8080,
            declared: vec![(label("ssh"), 22), (label("web"), 443)],
            what,
        };
        let next = NextOpening {
            at: at("2026-11-24T21:00:00Z"),
            human: "Tue 24 Nov 22:00 Europe/Berlin".to_owned(),
            case: Some("48213".into()),
        };
        let mut seen = BTreeSet::new();
        let mut lines = Vec::new();
        for what in [Wants::Consent, Wants::Code, Wants::Recording] {
            for reason in all(&names(what)) {
                for next_opening in [None, Some(next.clone())] {
                    let deny = Deny { reason: reason.clone(), next_opening };
                    let line = format!("{}: {deny}", deny.reason.code());
                    if seen.insert(line.clone()) {
                        lines.push(line);
                    }
                }
            }
        }
        let golden: Vec<_> = include_str!("../tests/golden/sentences.txt").lines().collect();
        assert_eq!(
            golden,
            lines,
            "policy/tests/golden/sentences.txt should be:\n{}\n",
            lines.join("\n")
        );
    }

    fn any_label() -> impl Strategy<Value = Label> {
        "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?".prop_map(|text| label(&text))
    }

    fn any_names() -> impl Strategy<Value = Names> {
        let text = prop_oneof![any::<String>(), "\\PC{0,400}", Just("x".repeat(65_536))];
        let what = prop_oneof![Just(Wants::Consent), Just(Wants::Code), Just(Wants::Recording)];
        let login = (any_label(), proptest::option::of(any_label()));
        let login = login.prop_map(|(name, tenant)| Login { name, tenant });
        let declared = proptest::collection::vec((any_label(), any::<u16>()), 0..9);
        let labels = (any_label(), any_label(), any_label());
        (login, labels, text, any::<u32>(), declared, what).prop_map(
            |(login, (terminal, service, window), text, port, declared, what)| Names {
                login,
                terminal,
                service,
                window,
                text,
                port,
                declared,
                what,
            },
        )
    }

    proptest! {
        #![proptest_config(cases(400))]

        #[test]
        fn every_sentence_is_ascii_and_bounded(
            names in any_names(),
            human in prop_oneof![any::<String>(), Just("Tue 24 Nov 2027 22:00 America/Argentina/ComodRivadavia".to_owned())],
            case in proptest::option::of(any::<String>()),
        ) {
            let next = NextOpening {
                at: at("2026-11-24T21:00:00Z"), human: human.clone(), case: case.map(Into::into),
            };
            for reason in all(&names) {
                for next_opening in [None, Some(next.clone())] {
                    let deny = Deny { reason: reason.clone(), next_opening };
                    let told = deny.to_string();
                    prop_assert!(told.len() <= LONGEST, "{} bytes: {}", told.len(), told);
                    prop_assert!(told.bytes().all(|b| b == b' ' || b.is_ascii_graphic()), "{:?}", told);
                    // Whatever the names, the opening itself is told.
                    let whole = matches!(deny.reason, Reason::NotOpen { .. });
                    if whole && human.is_ascii() && human.len() < 64 && deny.next_opening.is_some() {
                        prop_assert!(told.contains(&shown(&human, 64)), "{}", told);
                    }
                }
            }
        }
    }
}
