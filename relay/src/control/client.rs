//! `tidegate-relay status | sessions | cut SESSION`: the operator's end of the control socket.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::place::Place;
use super::protocol::{Request, Response, SOCKET};
use super::tables;
use crate::origin::WITHIN_VOLUME;

/// A cut may take its time; nothing else does.
const PATIENCE: Duration = Duration::from_secs(15);
/// The longest answer that is read: 100,000 terminals take about 20 MiB.
const LONGEST_ANSWER: u64 = 64 << 20;

const REFUSED: u8 = 1;
const NOT_RUNNING: u8 = 2;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum OutputFormat {
    /// Tables for people
    #[default]
    Text,
    /// The resources' field names, instants in UTC
    Json,
}

/// Where the relay is, and how to print.
#[derive(Args, Clone, Debug)]
pub struct StatusArgs {
    /// The state directory of the running relay
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
    /// How to print
    #[arg(short = 'o', long = "output", value_enum, default_value_t)]
    pub output: OutputFormat,
}

#[derive(Args, Clone, Debug)]
pub struct SessionsArgs {
    #[command(flatten)]
    pub at: StatusArgs,
}

#[derive(Args, Clone, Debug)]
pub struct CutArgs {
    /// The session's name, as `sessions` lists it: ss-...
    #[arg(value_name = "SESSION")]
    pub session: String,
    #[command(flatten)]
    pub at: StatusArgs,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("no relay is running on {0}: start one with tidegate-relay serve")]
    NotRunning(PathBuf),
    #[error("cannot use {path}: {source}")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "the relay on {0} closed the connection without an answer: only its own user and root may ask"
    )]
    NoAnswer(PathBuf),
    #[error("the relay on {path} gave an answer that this version does not understand: {source}")]
    Garbled {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
}

/// Asks the relay that runs on `state`, and waits for its answer.
pub fn ask(state: &Path, request: &Request) -> Result<Response, AskError> {
    // A pod's volume has the relay's own directory within.
    let within = state.join(WITHIN_VOLUME);
    let other = !state.join(SOCKET).exists() && within.join(SOCKET).exists();
    let state = if other { &within } else { state };
    let path = state.join(SOCKET);
    let io = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            AskError::NotRunning(state.to_owned())
        }
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
            AskError::NoAnswer(state.to_owned())
        }
        _ => AskError::Io { path: path.clone(), source },
    };
    let garbled = |source| AskError::Garbled { path: path.clone(), source };
    let place = Place::of(state, SOCKET).map_err(io)?;
    let mut stream = UnixStream::connect(place.path()).map_err(io)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(io)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(io)?;
    let mut line = serde_json::to_string(request).map_err(garbled)?;
    line.push('\n');
    stream.write_all(line.as_bytes()).map_err(io)?;
    let mut answer = String::new();
    BufReader::new(stream.take(LONGEST_ANSWER)).read_line(&mut answer).map_err(io)?;
    if answer.is_empty() {
        return Err(AskError::NoAnswer(state.to_owned()));
    }
    serde_json::from_str(&answer).map_err(garbled)
}

/// Prints what the relay is doing. Exit 0, 2 if none is running.
pub fn run_status(args: &StatusArgs) -> ExitCode {
    run(args, &Request::Status)
}

/// Prints the live sessions. Exit 0, 2 if no relay is running.
pub fn run_sessions(args: &SessionsArgs) -> ExitCode {
    run(&args.at, &Request::Sessions)
}

/// Cuts one session. Exit 0, 1 if there is no such session, 2 if no relay is running.
pub fn run_cut(args: &CutArgs) -> ExitCode {
    run(&args.at, &Request::Cut { session: args.session.clone() })
}

fn run(args: &StatusArgs, request: &Request) -> ExitCode {
    let (text, code) = match ask(&args.state, request) {
        Ok(Response::Refused(sentence)) => return failed(&sentence, REFUSED),
        Ok(response) => match (args.output, &response) {
            (OutputFormat::Json, _) => (json(&response), ExitCode::SUCCESS),
            (OutputFormat::Text, Response::Status(status)) => {
                (tables::status(status), ExitCode::SUCCESS)
            }
            (OutputFormat::Text, Response::Sessions(sessions)) => {
                (tables::sessions(sessions), ExitCode::SUCCESS)
            }
            (OutputFormat::Text, Response::Cut(cut)) => (tables::cut(cut), ExitCode::SUCCESS),
            (OutputFormat::Text, Response::Refused(_)) => (String::new(), ExitCode::from(REFUSED)),
        },
        Err(error) => return failed(&error.to_string(), NOT_RUNNING),
    };
    // A reader that has gone away (`| head`) is no failure.
    let _ = io::stdout().write_all(text.as_bytes());
    code
}

fn failed(sentence: &str, code: u8) -> ExitCode {
    let _ = writeln!(io::stderr(), "tidegate-relay: {sentence}");
    ExitCode::from(code)
}

/// What was asked for, without the envelope; a list is the `items` of an object, as kubectl has it.
fn json(response: &Response) -> String {
    #[derive(Serialize)]
    struct Items<'a, T> {
        items: &'a [T],
    }
    let text = match response {
        Response::Status(status) => serde_json::to_string_pretty(status),
        Response::Sessions(items) => serde_json::to_string_pretty(&Items { items }),
        Response::Cut(cut) => serde_json::to_string_pretty(cut),
        Response::Refused(sentence) => serde_json::to_string_pretty(sentence),
    };
    text.map(|mut text| {
        text.push('\n');
        text
    })
    .unwrap_or_default()
}
