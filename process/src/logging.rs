//! Logs: one event per line on stderr, as text or JSON. Stdout belongs to the audit lines.
//!
//! A field that came from the network cannot forge a line: control characters are written escaped.

use std::fmt::Write as _;
use std::io::{self, Write};

use clap::ValueEnum;
use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    #[error(
        "--log-level {given:?} is no level or filter: {why}; write info, or tidegate_relay=debug"
    )]
    Filter { given: String, why: String },
    #[error("logging was set up before")]
    Already,
}

/// Without a directive of its own: our own events from `info`, the libraries' from `warn`.
const DEFAULT_FILTER: &str = "warn,tidegate_relay=info,tidegate_operator=info,tidegate_process=info,tidegate_policy=info,tidegate_crds=info";

/// Sets the process's logger. `level` is a level or an env filter; `None`: `RUST_LOG`, else `info`.
pub fn init(format: LogFormat, level: Option<&str>) -> Result<(), LoggingError> {
    let subscriber = subscriber(format, filter(level)?, io::stderr);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LoggingError::Already)
}

fn filter(level: Option<&str>) -> Result<EnvFilter, LoggingError> {
    let from_env = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let given = level.map(str::to_owned).or(from_env);
    let directive = match given.as_deref() {
        None => DEFAULT_FILTER.to_owned(),
        // A bare level is meant for us; at the libraries' debug level a busy relay would drown.
        Some(level @ ("off" | "error" | "warn" | "info" | "debug" | "trace")) => {
            DEFAULT_FILTER.replace("info", level)
        }
        Some(directive) => directive.to_owned(),
    };
    EnvFilter::try_new(&directive)
        .map_err(|why| LoggingError::Filter { given: directive, why: why.to_string() })
}

/// The subscriber that [`init`] installs, writing to `out`.
fn subscriber<W>(format: LogFormat, filter: EnvFilter, out: W) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let out = OneLine(out);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
    match format {
        LogFormat::Text => Box::new(builder.with_writer(out).finish()),
        LogFormat::Json => Box::new(
            builder.json().flatten_event(true).with_current_span(false).with_writer(out).finish(),
        ),
    }
}

/// Escapes what could forge or disturb a line. The formatter writes each event in one piece.
struct OneLine<W>(W);

struct OneLineWriter<W>(W);

impl<'w, W: MakeWriter<'w>> MakeWriter<'w> for OneLine<W> {
    type Writer = OneLineWriter<W::Writer>;

    fn make_writer(&'w self) -> Self::Writer {
        OneLineWriter(self.0.make_writer())
    }
}

impl<W: Write> Write for OneLineWriter<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let (body, end) = match text.strip_suffix('\n') {
            Some(body) => (body, "\n"),
            None => (&*text, ""),
        };
        if body.chars().any(disturbs) {
            let mut clean = String::with_capacity(body.len() + 16);
            for c in body.chars() {
                if disturbs(c) {
                    // As JSON has it, so that a JSON event stays one; all of these have four digits.
                    let _ = write!(clean, "\\u{:04x}", u32::from(c));
                } else {
                    clean.push(c);
                }
            }
            clean.push_str(end);
            self.0.write_all(clean.as_bytes())?;
        } else {
            self.0.write_all(event)?;
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Control characters, line separators, and marks that reorder what a person sees.
fn disturbs(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, level: Option<&str>, log: impl FnOnce()) -> String {
        let sink = Sink::default();
        let out = sink.clone();
        let subscriber = subscriber(format, filter(level).unwrap(), move || out.clone());
        tracing::subscriber::with_default(subscriber, log);
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    const FORGED: &str = "SSH-2.0-x\r\n2026 ERROR forged \u{1b}[31m\u{202e}\u{2028}\u{85}end";

    fn hostile() {
        tracing::info!(client = FORGED, shown = %FORGED, debug = ?FORGED, "greeted {FORGED}");
        tracing::info!("second");
    }

    #[test]
    fn no_field_forges_a_line() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let text = logged(format, None, hostile);
            let lines: Vec<_> = text.lines().collect();
            assert_eq!(lines.len(), 2, "{text:?}");
            assert!(lines[0].contains("forged") && lines[1].contains("second"), "{text:?}");
            assert!(!lines.iter().any(|line| line.chars().any(disturbs)), "{text:?}");
        }
    }

    #[test]
    fn json_is_one_object_a_line_and_gives_the_field_back() {
        let text = logged(LogFormat::Json, None, hostile);
        for line in text.lines() {
            let event: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(event["level"], "INFO");
            assert!(event["timestamp"].is_string() && event["message"].is_string());
        }
        let first: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!(first["client"], FORGED);
    }

    #[test]
    fn a_level_is_ours_and_the_libraries_stay_quiet() {
        let both = || {
            tracing::debug!("ours");
            tracing::debug!(target: "russh", "theirs");
            tracing::warn!(target: "russh", "grave");
        };
        let text = logged(LogFormat::Text, Some("debug"), both);
        assert!(
            text.contains("ours") && text.contains("grave") && !text.contains("theirs"),
            "{text}"
        );
        let text = logged(LogFormat::Text, Some("info"), both);
        assert!(!text.contains("ours") && text.contains("grave"), "{text}");
        let text = logged(LogFormat::Text, Some("russh=debug"), both);
        assert!(text.contains("theirs"), "{text}");
    }

    #[test]
    fn a_bad_level_is_named() {
        let error = filter(Some("tidegate_relay=loud")).unwrap_err().to_string();
        assert!(error.contains("\"tidegate_relay=loud\""), "{error}");
    }
}
