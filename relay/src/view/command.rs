//! What a session channel asks for: the shell's absence or one of a few words.

/// The longest command line that is looked at; a longer one is none of ours.
const LONGEST: usize = 1024;

/// One request of a session channel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asked {
    pub command: Command,
    pub json: bool,
    /// A pty was asked for.
    pub pty: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// The shell: the full view.
    Everything,
    Whoami,
    Windows,
    Terminals,
    Sessions,
    Why {
        terminal: String,
        service: Option<String>,
    },
    Help,
    /// A shell's command, sftp, scp, rsync: there is no shell and there are no files.
    NotHere,
    /// One of ours, but wrongly written: what is wrong, in one sentence.
    Misused(String),
}

impl Asked {
    /// A shell request.
    pub fn shell(pty: bool) -> Self {
        Self { command: Command::Everything, json: false, pty }
    }

    /// A subsystem request: sftp, or anything else.
    pub fn subsystem(pty: bool) -> Self {
        Self { command: Command::NotHere, json: false, pty }
    }

    /// An exec request: any bytes (lossy), any length. Words are split at spaces; nothing is quoted,
    /// since no name that we know has a space.
    pub fn exec(line: &str, pty: bool) -> Self {
        let mut json = false;
        let command = if line.len() > LONGEST { Command::NotHere } else { parse(line, &mut json) };
        Self { command, json, pty }
    }
}

fn parse(line: &str, json: &mut bool) -> Command {
    let mut words = Vec::new();
    for word in line.split([' ', '\t']).filter(|word| !word.is_empty()) {
        if word == "--json" {
            *json = true;
        } else {
            words.push(word);
        }
    }
    let Some((first, rest)) = words.split_first() else {
        return if *json {
            Command::Misused(format!("--json needs a command: {WORDS}"))
        } else {
            Command::Everything
        };
    };
    let simple = match *first {
        "whoami" => Command::Whoami,
        "windows" => Command::Windows,
        "terminals" => Command::Terminals,
        "sessions" => Command::Sessions,
        "help" | "--help" | "-h" | "?" => Command::Help,
        "why" => return why(rest),
        _ => return Command::NotHere,
    };
    match rest.first() {
        None => simple,
        Some(_) => Command::Misused(format!("{first} takes nothing but --json")),
    }
}

pub(super) const WORDS: &str = "whoami, windows, terminals, sessions, why TERMINAL, help";

fn why(rest: &[&str]) -> Command {
    let &[target] = rest else {
        return Command::Misused(
            "why takes one terminal, or one of its services: why TERMINAL or why TERMINAL/SERVICE"
                .to_owned(),
        );
    };
    let (terminal, service) = match target.split_once('/') {
        None => (target, None),
        Some((terminal, service)) => (terminal, Some(service.to_owned())),
    };
    if terminal.starts_with('-') {
        return Command::Misused("why knows no option but --json".to_owned());
    }
    Command::Why { terminal: terminal.to_owned(), service }
}
