//! The `redweir` command: what its arguments mean, and with what code it exits.

mod check;
mod explain;
mod log;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{Config, ConfigError, Log, LogLevel, shown};
use crate::control::reload::Origin;
use crate::core::address::Address;
use crate::net::runtime::hangup;
use crate::net::socket::handed::Handed;

/// A replication-aware TCP proxy for Redis: reads go to replicas that are proven fresh enough.
#[derive(Debug, Parser)]
#[command(name = "redweir", version, subcommand_required = true, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 done, 1 failed while running, 64 wrong usage or configuration.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the proxy, until SIGINT or SIGTERM
    Run(RunArgs),
    /// Say what is wrong with a configuration file, and where
    Check {
        /// The file
        #[arg(short, long = "config", value_name = "FILE")]
        config: PathBuf,
    },
    /// Print the reference configuration, which is the manual
    Config,
    /// Say where a running proxy would send a command, and why
    Explain {
        /// The proxy's admin address
        #[arg(long, value_name = "ADDRESS")]
        admin: Address,
        /// How to print it
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
        /// The command, after `--`
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// Start a primary, two replicas and the proxy on free ports, and show where reads go
    Demo {
        /// End after this long; without it the demo stays up until Ctrl-C
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=86_400))]
        seconds: Option<u64>,
    },
}

#[derive(Args, Debug)]
struct RunArgs {
    /// The configuration file
    #[arg(short, long = "config", value_name = "FILE", required_unless_present_any = ["listen", "primary"])]
    #[arg(conflicts_with_all = ["listen", "primary", "replica", "admin"])]
    config: Option<PathBuf>,
    /// Where clients connect
    #[arg(long, value_name = "ADDRESS", num_args = 1.., requires = "primary")]
    listen: Vec<Address>,
    /// The primary
    #[arg(long, value_name = "ADDRESS", requires = "listen")]
    primary: Option<Address>,
    /// The replicas
    #[arg(long, value_name = "ADDRESS", num_args = 1.., requires = "primary")]
    replica: Vec<Address>,
    /// Where health, metrics and EXPLAIN are served
    #[arg(long, value_name = "ADDRESS", requires = "primary")]
    admin: Option<Address>,
    /// Threads that serve clients; 0 for one per core
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=1024))]
    workers: Option<u16>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let error = discreet(error);
            // Nobody is left to tell when the terminal is gone.
            let _ = error.print();
            return if error.use_stderr() { USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    match dispatch(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&error),
    }
}

/// The error without what stands before an `@`: in a URL that is a password.
fn discreet(mut error: clap::Error) -> clap::Error {
    if let Some(ContextValue::String(value)) = error.get(ContextKind::InvalidValue)
        && let Some((_, address)) = value.rsplit_once('@')
    {
        let shown = format!("…@{address}");
        error.insert(ContextKind::InvalidValue, ContextValue::String(shown));
    }
    error
}

fn dispatch(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Run(flags) => run(flags),
        Command::Check { config: path } => {
            let config = Config::load(&path)?;
            for file in config.exposed() {
                writeln!(io::stderr(), "warning: {}", exposure(file))?;
            }
            print(&check::summary(&path, &config))
        }
        Command::Config => print(REFERENCE),
        Command::Explain { admin, format, command } => print(&explain::ask(&admin, &command, format)?),
        Command::Demo { seconds } => demo(seconds),
    }
}

fn run(flags: RunArgs) -> anyhow::Result<()> {
    // Before there are other threads, and as early as can be.
    hangup::hold()?;
    let handed = Handed::take()?;
    let mut config = match (&flags.config, flags.primary) {
        (Some(path), _) => Config::load(path)?,
        (None, Some(primary)) => Config::from_flags(flags.listen, primary, flags.replica, flags.admin)?,
        (None, None) => anyhow::bail!("clap lets no such arguments through"),
    };
    let workers = flags.workers.map(usize::from);
    let amend = move |config: &mut Config| {
        config.proxy.workers = workers.unwrap_or(config.proxy.workers);
    };
    amend(&mut config);
    let (_log, set_level) = log::start(&config.log)?;
    for file in config.exposed() {
        tracing::warn!("{}", exposure(file));
    }
    crate::app::run(config, Origin { file: flags.config, amend: Box::new(amend), set_level }, handed)
}

fn exposure(file: &Path) -> String {
    format!("anybody on this machine may read {}, which holds a secret", shown(file))
}

fn demo(seconds: Option<u64>) -> anyhow::Result<()> {
    // What the demo has to say goes to stdout; of the log only what is wrong.
    let (_log, _) = log::start(&Log { level: LogLevel::Error, ..Log::default() })?;
    crate::demo::run(seconds)
}

/// Prints to stdout. A reader that has seen enough (`redweir config | head`) is no error.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Says on stderr what went wrong, and with what code to exit.
fn report(error: &anyhow::Error) -> ExitCode {
    let wrong = error.downcast_ref::<ConfigError>();
    let text = wrong.map_or_else(|| format!("redweir: {error:#}"), ToString::to_string);
    let _ = writeln!(io::stderr(), "{text}");
    let usage = wrong.is_some() || error.is::<log::FilterError>() || error.is::<explain::UsageError>();
    if usage { USAGE.into() } else { ExitCode::FAILURE }
}

/// `EX_USAGE` of `sysexits.h`.
const USAGE: u8 = 64;

/// What `redweir config` prints.
const REFERENCE: &str = include_str!("../../config/redweir.toml");
