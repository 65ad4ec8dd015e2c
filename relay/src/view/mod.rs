//! The read-only view that `ssh alice@relay` opens: who she is, her windows, their terminals, her
//! sessions, and why something is refused.
//!
//! Pure: no clock, no network, no disk. [`answer`] turns what is known at one instant into text.
//! Staff see only windows that name them and the terminals that these select; any other terminal
//! reads the same as one that does not exist (DESIGN.md section 6). Everything printed is ASCII
//! without control characters, whoever wrote it.

mod command;
mod facts;
mod format;
mod json;
mod select;
mod text;
mod why;

pub use command::{Asked, Command};
pub use facts::{Flaw, Input, Presence, SessionView, WindowRef};
pub(crate) use format::age;
pub use format::{clean, utc};

use tidegate_policy::model::Label;

/// What goes back on the session channel. Lines end in `\n`; see [`Output::for_pty`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Output {
    pub stdout: String,
    pub stderr: String,
    /// 0 said or admitted, 1 refused, 2 usage.
    pub exit: u32,
}

impl Output {
    pub(crate) fn said(stdout: String) -> Self {
        Self { stdout, stderr: String::new(), exit: 0 }
    }

    pub(crate) fn usage(sentence: &str) -> Self {
        Self { stdout: String::new(), stderr: format!("{}\n", clean(sentence)), exit: 2 }
    }

    /// A client that asked for a pty has put its terminal into raw mode, where a bare `\n` only goes
    /// down: with `pty`, lines end in `\r\n`. Without one they end in `\n`, so that pipes and scripts
    /// get what they expect.
    pub fn for_pty(mut self, pty: bool) -> Self {
        if pty {
            self.stdout = self.stdout.replace('\n', "\r\n");
            self.stderr = self.stderr.replace('\n', "\r\n");
        }
        self
    }
}

/// The relay's answer to one session channel of a login user who may enter now.
pub fn answer(input: &Input<'_>, asked: &Asked) -> Output {
    let json = asked.json;
    let output = match &asked.command {
        Command::Everything => Output::said(text::everything(input)),
        Command::Whoami if json => Output::said(json::whoami(input)),
        Command::Whoami => Output::said(text::whoami(input)),
        Command::Windows if json => Output::said(json::windows(input)),
        Command::Windows => Output::said(text::windows(input)),
        Command::Terminals if json => Output::said(json::terminals(input)),
        Command::Terminals => Output::said(text::terminals(input)),
        Command::Sessions if json => Output::said(json::sessions(input)),
        Command::Sessions => Output::said(text::sessions(input)),
        Command::Help if json => Output::said(json::help()),
        Command::Help => Output::said(text::help(input)),
        Command::Why { terminal, service } => {
            let answer = why::why(input, terminal, service.as_deref());
            let said = if json { json::why(&answer) } else { text::why(&answer) };
            Output { stdout: said, stderr: String::new(), exit: u32::from(!answer.admitted) }
        }
        Command::NotHere => Output::usage(&text::not_here(input)),
        Command::Misused(sentence) => Output::usage(sentence),
    };
    output.for_pty(asked.pty)
}

/// What a known user who may not enter now gets in place of the view: the sentence and nothing else.
pub fn refused(sentence: &str, pty: bool) -> Output {
    let stderr = format!("{}\n", clean(sentence));
    Output { stdout: String::new(), stderr, exit: 1 }.for_pty(pty)
}

/// What a terminal that asks for a session (`ssh -R` without `-N`) gets; the channel stays open.
/// `granted` are the services that its connection holds at this instant.
pub fn attached_as(terminal: &Label, granted: &[Label], domain: &str, pty: bool) -> String {
    let text = text::attached_as(terminal, granted, domain);
    Output::said(text).for_pty(pty).stdout
}
