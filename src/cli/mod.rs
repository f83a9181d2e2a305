//! The `redweir` command: what its arguments mean, and with what code it exits.

mod check;
mod connect;
mod doctor;
mod explain;
mod http;
mod log;
mod output;
mod status;
#[cfg(feature = "tui")]
mod top;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::error::{ContextKind, ContextValue};
use clap::{Args, CommandFactory as _, Parser, Subcommand};

use output::{Format, print};

use crate::config::{Config, ConfigError, Flags, Log, LogLevel, shown};
use crate::control::reload::Origin;
use crate::core::address::Address;
use crate::core::policy::Consistency;
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
        /// Ask the servers as well: are they reachable, is the password right, what may Redweir do there, what are they?
        #[arg(long)]
        connect: bool,
    },
    /// Look at the servers, and say what is wrong with them, what shows it, and what to do
    ///
    /// Exit codes: 0 nothing is wrong, 1 warnings, 2 errors.
    Doctor {
        /// The configuration file
        #[arg(short, long = "config", value_name = "FILE")]
        config: PathBuf,
        /// How to print it
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
        /// For how long to look; what needs a trend is seen the better the longer
        #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
        seconds: u64,
    },
    /// Show how a running proxy and its servers are, and what is wrong with them
    Status {
        /// The proxy's admin address
        #[arg(long, value_name = "ADDRESS", value_parser = http::admin_address)]
        admin: Address,
        /// Again each second, until Ctrl-C
        #[arg(long)]
        watch: bool,
    },
    /// Show where reads go and why, how far replicas are behind, and what is wrong, all the time
    #[cfg(feature = "tui")]
    Top {
        /// The proxy's admin address
        #[arg(long, value_name = "ADDRESS", value_parser = http::admin_address)]
        admin: Address,
    },
    /// Print the reference configuration, which is the manual
    Config,
    /// Say where a running proxy would send a command, and why
    Explain {
        /// The proxy's admin address
        #[arg(long, value_name = "ADDRESS", value_parser = http::admin_address)]
        admin: Address,
        /// How to print it
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
        /// The command, after `--`
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// Print what a shell needs to complete these commands
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or that of one of these commands
    Man {
        /// Which
        #[arg(value_name = "COMMAND")]
        of: Option<String>,
    },
    /// Start a primary, two replicas and the proxy on free ports, and show where reads go
    Demo {
        /// End after about this long; without it the demo stays up until Ctrl-C, that of a cluster for half a minute
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=86_400))]
        seconds: Option<u64>,
        /// Kill the primary and promote a replica, and tell how long writes waited and what was lost
        #[arg(long)]
        failover: bool,
        /// Start a Redis Cluster in their place, move slots, kill a primary, and tell what clients read and how long they waited
        #[arg(long, conflicts_with = "failover")]
        cluster: bool,
    },
}

#[derive(Args, Debug)]
struct RunArgs {
    /// The configuration file
    #[arg(short, long = "config", value_name = "FILE")]
    #[arg(conflicts_with_all = ["listen", "primary", "replica", "admin", "username", "password_file", "policy"])]
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
    /// The user of Redweir's own connections to the servers
    #[arg(long, value_name = "NAME", requires = "password_file")]
    username: Option<String>,
    /// The file with the password of Redweir's own connections to the servers
    #[arg(long, value_name = "FILE", requires = "primary")]
    password_file: Option<PathBuf>,
    /// How fresh reads must be [default: fenced]
    #[arg(long, value_name = "LEVEL", requires = "primary", value_parser = level())]
    policy: Option<Consistency>,
    /// Threads that serve clients; 0 for one per core
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=1024))]
    workers: Option<u16>,
}

/// The name of a level.
fn level() -> impl clap::builder::TypedValueParser<Value = Consistency> {
    let names = PossibleValuesParser::new(Consistency::ALL.map(Consistency::name));
    names.map(|name| Consistency::named(&name).unwrap_or(Consistency::Fenced))
}

/// `redweir run`, and nothing else.
#[derive(Debug, thiserror::Error)]
#[error(
    "run: expected a configuration file, or where clients connect and where the primary is

  redweir run --listen 127.0.0.1:6380 --primary 127.0.0.1:6379 --replica 127.0.0.1:6381

  redweir config > redweir.toml   # the reference, to start from
  redweir check -c redweir.toml
  redweir run -c redweir.toml"
)]
struct NothingToRun;

/// There is no manual page of this.
#[derive(Debug, thiserror::Error)]
#[error("man: `{0}` is no command; `redweir --help` names them")]
struct NoSuchPage(String);

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
        Ok(code) => code,
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

fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    let done = match command {
        Command::Run(flags) => run(flags),
        Command::Check { config: path, connect } => {
            let config = Config::load(&path)?;
            for warning in config.exposed().into_iter().map(exposure).chain(check::advice(&config)) {
                writeln!(io::stderr(), "warning: {warning}")?;
            }
            print(&check::summary(&path, &config))?;
            return if connect { connect::ask(&config) } else { Ok(ExitCode::SUCCESS) };
        }
        Command::Doctor { config, format, seconds } => {
            return doctor::run(&Config::load(&config)?, format, Duration::from_secs(seconds));
        }
        Command::Status { admin, watch } => status::run(&admin, watch),
        #[cfg(feature = "tui")]
        Command::Top { admin } => top::run(&admin),
        Command::Config => print(REFERENCE),
        Command::Explain { admin, format, command } => print(&explain::ask(&admin, &command, format)?),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "redweir", &mut script);
            print(&String::from_utf8_lossy(&script))
        }
        Command::Man { of } => {
            let mut all = Cli::command();
            all.build();
            let one =
                of.map(|name| all.find_subcommand(&name).cloned().ok_or(NoSuchPage(name))).transpose()?;
            let mut page = Vec::new();
            clap_mangen::Man::new(one.unwrap_or(all)).render(&mut page)?;
            print(&String::from_utf8_lossy(&page))
        }
        Command::Demo { seconds, failover, cluster } => demo(seconds, failover, cluster),
    };
    done.map(|()| ExitCode::SUCCESS)
}

fn run(flags: RunArgs) -> anyhow::Result<()> {
    // Before there are other threads, and as early as can be.
    hangup::hold()?;
    let handed = Handed::take()?;
    let mut config = match (&flags.config, flags.primary) {
        (Some(path), _) => Config::load(path)?,
        (None, Some(primary)) => Config::from_flags(Flags {
            listen: flags.listen,
            primary,
            replicas: flags.replica,
            admin: flags.admin,
            username: flags.username,
            password_file: flags.password_file,
            policy: flags.policy,
        })?,
        (None, None) => return Err(NothingToRun.into()),
    };
    let workers = flags.workers.map(usize::from);
    let amend = move |config: &mut Config| {
        config.proxy.workers = workers.unwrap_or(config.proxy.workers);
    };
    amend(&mut config);
    let (_log, set_level) = log::start(&config.log)?;
    for warning in config.exposed().into_iter().map(exposure).chain(config.advice()) {
        tracing::warn!("{warning}");
    }
    crate::app::run(config, Origin { file: flags.config, amend: Box::new(amend), set_level }, handed)
}

fn exposure(file: &Path) -> String {
    format!("anybody on this machine may read {}, which holds a secret", shown(file))
}

fn demo(seconds: Option<u64>, failover: bool, cluster: bool) -> anyhow::Result<()> {
    // What the demo has to say goes to stdout; of the log only what is wrong.
    let (_log, _) = log::start(&Log { level: LogLevel::Error, ..Log::default() })?;
    if cluster { crate::demo::cluster::run(seconds) } else { crate::demo::run(seconds, failover) }
}

/// Says on stderr what went wrong, and with what code to exit.
fn report(error: &anyhow::Error) -> ExitCode {
    let wrong = error.downcast_ref::<ConfigError>();
    let text = wrong.map_or_else(|| format!("redweir: {error:#}"), ToString::to_string);
    let _ = writeln!(io::stderr(), "{text}");
    let usage = wrong.is_some()
        || error.is::<NothingToRun>()
        || error.is::<NoSuchPage>()
        || error.is::<log::FilterError>()
        || error.is::<explain::UsageError>();
    if usage { USAGE.into() } else { ExitCode::FAILURE }
}

/// `EX_USAGE` of `sysexits.h`.
const USAGE: u8 = 64;

/// What `redweir config` prints.
const REFERENCE: &str = include_str!("../../config/redweir.toml");
