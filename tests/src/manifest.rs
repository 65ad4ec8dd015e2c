//! The resources of a test, written as the YAML that a person would write.

use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// The domain of every test's mesh.
pub const DOMAIN: &str = "support.example.com";
/// The fleet's namespace, unless a test says otherwise.
pub const NAMESPACE: &str = "default";

/// `["a", "b"]` as a flow sequence; JSON is YAML.
fn list<S: AsRef<str>>(items: &[S]) -> String {
    let items: Vec<_> = items.iter().map(AsRef::as_ref).collect();
    serde_json::to_string(&items).expect("strings serialise")
}

/// An instant as RFC 3339 in UTC, to the second.
pub fn instant(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn header(kind: &str, namespace: &str, name: &str, labels: &[(String, String)]) -> String {
    let mut text = format!(
        "apiVersion: tidegate.dev/v1alpha1\nkind: {kind}\nmetadata:\n  name: {name}\n  namespace: {namespace}\n"
    );
    if !labels.is_empty() {
        text.push_str("  labels:\n");
        for (key, value) in labels {
            let _ = writeln!(text, "    {key}: \"{value}\"");
        }
    }
    text.push_str("spec:\n");
    text
}

/// Something that is written as one document of one file.
pub trait Manifest {
    /// The file's path below the manifests directory.
    fn file(&self) -> String;
    fn yaml(&self) -> String;
}

#[derive(Clone, Debug)]
pub struct Mesh {
    pub max_policy_age: Option<String>,
}

impl Manifest for Mesh {
    fn file(&self) -> String {
        "mesh.yaml".to_owned()
    }

    fn yaml(&self) -> String {
        let mut text = header("Mesh", NAMESPACE, "prod", &[]);
        let _ = writeln!(text, "  domain: {DOMAIN}\n  tenants:\n    from: Same");
        if let Some(age) = &self.max_policy_age {
            let _ = writeln!(text, "  maxPolicyAge: {age}");
        }
        text
    }
}

#[derive(Clone, Debug)]
pub struct Relay {
    /// Lines of `spec` beyond those that every test has, two spaces in.
    pub extra: String,
}

impl Manifest for Relay {
    fn file(&self) -> String {
        "relay.yaml".to_owned()
    }

    fn yaml(&self) -> String {
        let mut text = header("Relay", NAMESPACE, "loopback", &[]);
        text.push_str("  meshRef: {name: prod}\n  replicas: 1\n");
        text.push_str(&self.extra);
        text
    }
}

/// One of the support staff. The harness makes a key where none is set.
#[derive(Clone, Debug, Default)]
pub struct LoginUser {
    pub name: String,
    pub keys: Vec<String>,
    pub groups: Vec<String>,
    pub valid_until: Option<Timestamp>,
    pub source_ranges: Vec<String>,
    pub suspend: bool,
}

impl LoginUser {
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    pub fn group(mut self, name: &str) -> Self {
        self.groups.push(name.to_owned());
        self
    }

    pub fn valid_until(mut self, at: Timestamp) -> Self {
        self.valid_until = Some(at);
        self
    }

    pub fn from(mut self, ranges: &[&str]) -> Self {
        self.source_ranges = ranges.iter().map(ToString::to_string).collect();
        self
    }

    pub fn suspended(mut self) -> Self {
        self.suspend = true;
        self
    }
}

impl Manifest for LoginUser {
    fn file(&self) -> String {
        format!("users/{}.yaml", self.name)
    }

    fn yaml(&self) -> String {
        let mut text = header("LoginUser", NAMESPACE, &self.name, &[]);
        let _ = writeln!(text, "  publicKeys: {}", list(&self.keys));
        if !self.groups.is_empty() {
            let _ = writeln!(text, "  groups: {}", list(&self.groups));
        }
        if let Some(at) = self.valid_until {
            let _ = writeln!(text, "  validUntil: {}", instant(at));
        }
        if !self.source_ranges.is_empty() {
            let _ = writeln!(text, "  sourceRanges: {}", list(&self.source_ranges));
        }
        if self.suspend {
            text.push_str("  suspend: true\n");
        }
        text
    }
}

/// A declared service: its name, its port on the terminal, and its port on the relay.
#[derive(Clone, Debug)]
pub struct Service {
    pub name: String,
    pub port: u16,
    pub listen_port: Option<u16>,
}

/// A customer's machine. The harness makes a key where none is set.
#[derive(Clone, Debug, Default)]
pub struct Terminal {
    pub name: String,
    pub keys: Vec<String>,
    pub host_keys: Vec<String>,
    pub services: Vec<Service>,
    pub labels: Vec<(String, String)>,
    pub during_window: bool,
    pub suspend: bool,
}

impl Terminal {
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    pub fn service(mut self, name: &str, port: u16, listen_port: Option<u16>) -> Self {
        self.services.push(Service { name: name.to_owned(), port, listen_port });
        self
    }

    pub fn host_key(mut self, public: &str) -> Self {
        self.host_keys.push(public.to_owned());
        self
    }

    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.push((key.to_owned(), value.to_owned()));
        self
    }

    pub fn during_window(mut self) -> Self {
        self.during_window = true;
        self
    }

    pub fn suspended(mut self) -> Self {
        self.suspend = true;
        self
    }
}

impl Manifest for Terminal {
    fn file(&self) -> String {
        format!("terminals/{}.yaml", self.name)
    }

    fn yaml(&self) -> String {
        let mut text = header("Terminal", NAMESPACE, &self.name, &self.labels);
        let _ = writeln!(text, "  publicKeys: {}", list(&self.keys));
        if !self.host_keys.is_empty() {
            let _ = writeln!(text, "  hostKeys: {}", list(&self.host_keys));
        }
        text.push_str("  services:\n");
        for Service { name, port, listen_port } in &self.services {
            let _ = write!(text, "  - {{name: {name}, port: {port}");
            if let Some(listen) = listen_port {
                let _ = write!(text, ", listenPort: {listen}");
            }
            text.push_str("}\n");
        }
        if self.during_window {
            text.push_str("  attach: DuringWindow\n");
        }
        if self.suspend {
            text.push_str("  suspend: true\n");
        }
        text
    }
}

#[derive(Clone, Debug)]
pub enum Schedule {
    Once { start: Timestamp, end: Timestamp },
    Recurring { cron: String, zone: String, duration: String },
}

#[derive(Clone, Debug)]
pub struct SupportWindow {
    pub name: String,
    pub case: Option<String>,
    pub users: Vec<String>,
    pub groups: Vec<String>,
    pub terminals: Vec<String>,
    pub selector: Vec<(String, String)>,
    pub services: Vec<String>,
    pub schedule: Schedule,
    pub one_time: bool,
    pub max_sessions: Option<u32>,
    pub max_session_duration: Option<String>,
    pub idle_timeout: Option<String>,
    /// Stock terminals are reached only by windows that want no consent; the resource's default is
    /// to want it.
    pub consent_required: bool,
    pub suspend: bool,
}

impl SupportWindow {
    /// A window over `[start, end)` for one user, one terminal and the service `ssh`.
    pub fn once(name: &str, user: &str, terminal: &str, start: Timestamp, end: Timestamp) -> Self {
        Self {
            name: name.to_owned(),
            case: Some("48213".to_owned()),
            users: vec![user.to_owned()],
            groups: Vec::new(),
            terminals: vec![terminal.to_owned()],
            selector: Vec::new(),
            services: vec!["ssh".to_owned()],
            schedule: Schedule::Once { start, end },
            one_time: false,
            max_sessions: None,
            max_session_duration: None,
            idle_timeout: None,
            consent_required: false,
            suspend: false,
        }
    }

    /// Open since ten minutes ago and for another hour.
    pub fn open(name: &str, user: &str, terminal: &str) -> Self {
        let now = Timestamp::now();
        Self::once(
            name,
            user,
            terminal,
            now - jiff::SignedDuration::from_mins(10),
            now + jiff::SignedDuration::from_hours(1),
        )
    }

    pub fn closing_at(mut self, at: Timestamp) -> Self {
        if let Schedule::Once { end, .. } = &mut self.schedule {
            *end = at;
        }
        self
    }

    pub fn services(mut self, names: &[&str]) -> Self {
        self.services = names.iter().map(ToString::to_string).collect();
        self
    }

    pub fn user(mut self, name: &str) -> Self {
        self.users.push(name.to_owned());
        self
    }

    pub fn terminal(mut self, name: &str) -> Self {
        self.terminals.push(name.to_owned());
        self
    }

    pub fn suspended(mut self) -> Self {
        self.suspend = true;
        self
    }
}

impl Manifest for SupportWindow {
    fn file(&self) -> String {
        format!("windows/{}.yaml", self.name)
    }

    fn yaml(&self) -> String {
        let mut text = header("SupportWindow", NAMESPACE, &self.name, &[]);
        if let Some(case) = &self.case {
            let _ = writeln!(text, "  case: {{number: \"{case}\"}}");
        }
        text.push_str("  users:\n");
        if !self.users.is_empty() {
            let _ = writeln!(text, "    names: {}", list(&self.users));
        }
        if !self.groups.is_empty() {
            let _ = writeln!(text, "    groups: {}", list(&self.groups));
        }
        text.push_str("  terminals:\n");
        if !self.terminals.is_empty() {
            let _ = writeln!(text, "    names: {}", list(&self.terminals));
        }
        if !self.selector.is_empty() {
            text.push_str("    selector:\n      matchLabels:\n");
            for (key, value) in &self.selector {
                let _ = writeln!(text, "        {key}: \"{value}\"");
            }
        }
        let _ = writeln!(text, "  services: {}", list(&self.services));
        text.push_str("  schedule:\n");
        match &self.schedule {
            Schedule::Once { start, end } => {
                let (start, end) = (instant(*start), instant(*end));
                let _ = writeln!(text, "    once: {{start: \"{start}\", end: \"{end}\"}}");
            }
            Schedule::Recurring { cron, zone, duration } => {
                let _ = writeln!(
                    text,
                    "    recurring: {{cron: \"{cron}\", timeZone: {zone}, duration: {duration}}}"
                );
            }
        }
        if !self.consent_required {
            text.push_str("  consent: NotRequired\n");
        }
        if self.one_time {
            text.push_str("  oneTime: true\n");
        }
        let limits = [
            ("maxSessions", self.max_sessions.map(|max| max.to_string())),
            ("maxSessionDuration", self.max_session_duration.clone()),
            ("idleTimeout", self.idle_timeout.clone()),
        ];
        if limits.iter().any(|(_, value)| value.is_some()) {
            text.push_str("  limits:\n");
            for (name, value) in limits {
                if let Some(value) = value {
                    let _ = writeln!(text, "    {name}: {value}");
                }
            }
        }
        if self.suspend {
            text.push_str("  suspend: true\n");
        }
        text
    }
}

/// The next whole second that is at least `seconds` away: windows are written to the second.
pub fn in_seconds(seconds: i64) -> Timestamp {
    let at = Timestamp::now().as_second() + seconds + 1;
    Timestamp::from_second(at).expect("a time near now")
}

/// As the relay shows an instant to people: `Tue 24 Nov 22:00`, in UTC.
pub fn shown(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).strftime("%a %d %b %H:%M").to_string()
}
