//! What is printed, and how.

use std::env;
use std::io::{self, IsTerminal as _, Write as _};

use clap::ValueEnum;

/// How something is printed.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Whether what is printed may have colours: to a terminal that is not dumb, unless `NO_COLOR` is set (no-color.org).
pub(super) fn may_colour() -> bool {
    io::stdout().is_terminal()
        && env::var_os("TERM").is_none_or(|terminal| terminal != "dumb")
        && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Prints to stdout. A reader that has seen enough (`redweir config | head`) is no error.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
