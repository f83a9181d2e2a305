//! `redweir doctor`: looks at the servers of a configuration file, without a running proxy.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use tokio::runtime::Builder;

use super::output::{Format, may_colour, print};
use crate::app;
use crate::config::Config;
use crate::control::doctor::examine;
use crate::core::diagnose::Severity;
use crate::core::diagnose::seen::Look;
use crate::net::socket::dial::Dialer;
use crate::shard::doctor::DoctorReport;

/// Looks for so long, and prints what is found. The exit code says how bad it is: 0 nothing, 1 warnings, 2 errors.
pub(super) fn run(config: &Config, format: Format, lasts: Duration) -> anyhow::Result<ExitCode> {
    let (report, _) = examine(config, lasts)?;
    print(&match format {
        Format::Json => serde_json::to_string_pretty(&report)? + "\n",
        Format::Text => report.text(may_colour()),
    })?;
    Ok(if report.count(Severity::Error) > 0 {
        ERRORS.into()
    } else if report.count(Severity::Warning) > 0 {
        WARNINGS.into()
    } else {
        ExitCode::SUCCESS
    })
}

/// Looks for so long.
pub(super) fn examine(config: &Config, lasts: Duration) -> anyhow::Result<(DoctorReport, Look)> {
    let runtime = Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let (nodes, sentinels) = app::connectors(config)?;
    let examined = examine::examine(config, Dialer::new(nodes), Dialer::new(sentinels), lasts);
    Ok(runtime.block_on(examined))
}

const WARNINGS: u8 = 1;
const ERRORS: u8 = 2;
