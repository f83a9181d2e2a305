//! The log: to stderr, through a queue that drops lines when nobody reads them, one line per event whatever a client
//! may have sent.

use std::io::{self, Write};

use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::reload::Handle;

use crate::config::{Log, LogFormat, LogLevel};

/// `REDWEIR_LOG` is not a filter.
#[derive(Debug, thiserror::Error)]
#[error("{VARIABLE}: {0}; expected a level or a list such as info,redweir::control=debug")]
pub(super) struct FilterError(#[from] tracing_subscriber::filter::ParseError);

/// Sets the level from now on; without effect where the environment has set it.
pub(super) type SetLevel = Box<dyn Fn(LogLevel) + Send + Sync>;

/// Starts the log of this process. What is queued is written when the guard is dropped.
pub(super) fn start(log: &Log) -> anyhow::Result<(WorkerGuard, SetLevel)> {
    let variable = std::env::var(VARIABLE).ok().filter(|text| !text.is_empty());
    let overridden = variable.is_some();
    let filter = variable.unwrap_or_else(|| log.level.name().to_owned());
    let filter = EnvFilter::try_new(filter).map_err(FilterError)?;
    // Lossy: a full pipe behind stderr must never make a worker wait.
    let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LINES_QUEUED);
    let (queue, guard) = builder.thread_name("log").finish(io::stderr());
    // Where in the program a line comes from, is for who looks for mistakes there.
    let with_places =
        overridden || matches!(log.level, LogLevel::Debug | LogLevel::Trace) || log.format == LogFormat::Json;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(Lines(queue)).with_ansi(false);
    let lines = lines.with_target(with_places);
    let (started, set_level) = match log.format {
        LogFormat::Text => {
            let lines = lines.with_filter_reloading();
            let set_level = set_level(lines.reload_handle());
            (lines.try_init(), set_level)
        }
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_filter_reloading();
            let set_level = set_level(lines.reload_handle());
            (lines.try_init(), set_level)
        }
    };
    started.map_err(|error| anyhow::anyhow!("cannot start the log: {error}"))?;
    Ok((guard, if overridden { Box::new(|_| {}) } else { set_level }))
}

fn set_level<S: 'static>(filter: Handle<EnvFilter, S>) -> SetLevel {
    Box::new(move |level| {
        if let Err(problem) = filter.reload(EnvFilter::new(level.name())) {
            tracing::error!(%problem, "the log stays as it is");
        }
    })
}

/// Makes one line of each event.
#[derive(Clone, Debug)]
struct Lines(NonBlocking);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for Lines {
    /// `buf` is one whole event: `tracing-subscriber` formats it into a buffer and writes that once.
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write_all(&one_line(buf))?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// The event with its control characters escaped, except for the newline at its end: what a client sends may be
/// logged, and must neither look like another line nor reach a terminal as an escape sequence.
fn one_line(event: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(event);
    let mut line = String::with_capacity(text.len() + 1);
    for c in text.trim_end_matches('\n').chars() {
        if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line.push('\n');
    line.into_bytes()
}

/// The environment variable that overrides `level`.
const VARIABLE: &str = "REDWEIR_LOG";

/// Lines that may wait for stderr; more are dropped.
const LINES_QUEUED: usize = 8192;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_harmless_line() {
        assert_eq!(one_line(b"INFO plain\n"), b"INFO plain\n");
        assert_eq!(one_line(b"no end"), b"no end\n");
        assert_eq!(one_line(b"name=a\r\nERROR forged \x1b[2J\n"), b"name=a\\r\\nERROR forged \\u{1b}[2J\n");
        assert_eq!(one_line("é \u{85}\u{2028}\n".as_bytes()), "é \\u{85}\\u{2028}\n".as_bytes());
    }
}
