//! `redweir check --connect`: whether the servers are what the configuration takes them for, and let Redweir in.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use super::doctor;
use super::output::print;
use crate::config::Config;
use crate::core::diagnose::seen::{Look, Seen};
use crate::core::diagnose::{Code, Severity};
use crate::core::nodes::node::Role;
use crate::shard::doctor::{DoctorReport, shown};

/// What is about a configuration, rather than about how the servers do at the moment.
const CHECKED: [Code; 8] = [
    Code::Unreachable,
    Code::Noauth,
    Code::NotAPrimary,
    Code::TwoPrimaries,
    Code::ForeignReplica,
    Code::ChangedId,
    Code::StaleSentinel,
    Code::ReaderEndpoint,
];

/// Asks every server once, and says what it answers. The exit code is 1 if one is not as it should be.
pub(super) fn ask(config: &Config) -> anyhow::Result<ExitCode> {
    let (report, look) = doctor::examine(config, Duration::ZERO)?;
    print(&answers(config, &report, &look))?;
    let is_bad = |code: &Code| report.findings.iter().any(|finding| is(finding, *code));
    Ok(if CHECKED.iter().any(is_bad) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn is(finding: &crate::shard::doctor::FindingReport, code: Code) -> bool {
    finding.code == code.name() && finding.severity != Severity::Info.name()
}

fn answers(config: &Config, report: &DoctorReport, look: &Look) -> String {
    let mut out = String::new();
    let needs_password = config.upstream.password.is_some();
    // Writing to a `String` cannot fail.
    for seen in &look.nodes {
        let _ = writeln!(out, "  {:<9} {}", role(seen), shown(&answer(seen, needs_password)));
        for unchecked in &seen.unchecked {
            let (question, rule, why) = (unchecked.question, unchecked.rule, &unchecked.why);
            let _ = writeln!(out, "            may not {question} ({}): allow {rule}", shown(why));
        }
    }
    let is_known = |stranger: &Seen| {
        stranger.run_id().is_some() && look.nodes.iter().any(|seen| seen.run_id() == stranger.run_id())
    };
    for stranger in look.strangers.iter().filter(|stranger| !is_known(stranger)) {
        let what = stranger.role().map_or("unknown", Role::name);
        let _ = writeln!(
            out,
            "  unlisted  {}: {what}; a replica follows it, and it is not configured",
            shown(&stranger.node)
        );
    }
    for finding in report.findings.iter().filter(|finding| CHECKED.iter().any(|code| is(finding, *code))) {
        let _ = writeln!(out, "  {}: {}: {}", finding.code, shown(&finding.node), shown(&finding.evidence));
        let _ = writeln!(out, "            {}", shown(&finding.remedy));
    }
    out
}

fn role(seen: &Seen) -> &'static str {
    seen.role().map_or("unknown", Role::name)
}

fn answer(seen: &Seen, needs_password: bool) -> String {
    let mut out = format!("{}: ", seen.node);
    if let Some(problem) = &seen.problem {
        out += &problem.text();
        return out;
    }
    if let Some(latency) = seen.latency {
        let _ = write!(out, "answers in {:.1} ms", latency.as_secs_f64() * 1e3);
    }
    out += match (needs_password, seen.wants_password) {
        (true, Some(false)) => ", the password is right, though none is needed",
        (true, _) => ", the password is right",
        (false, _) => ", no password is needed",
    };
    if let Some(report) = &seen.report {
        match (&report.valkey_version, &report.version) {
            (Some(version), _) => drop(write!(out, ", Valkey {version}")),
            (None, Some(version)) => drop(write!(out, ", version {version}")),
            (None, None) => {}
        }
    }
    if let Some((host, port)) = seen.as_replica().and_then(|replica| replica.master.as_ref()) {
        let up = seen.as_replica().is_some_and(|replica| replica.link_up == Some(true));
        let _ = write!(out, ", follows {host}:{port}, link {}", if up { "up" } else { "down" });
    }
    out
}
