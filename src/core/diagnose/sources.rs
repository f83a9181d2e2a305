//! Who tells where the nodes are, who is behind an address, and who is denied what.

use std::time::Duration;

use crate::core::diagnose::code::{Code, Severity};
use crate::core::diagnose::finding::{Finding, seconds};
use crate::core::diagnose::scene::Scene;
use crate::core::diagnose::seen::{Denial, Look, Seen, SentinelSeen};

/// How long ago a denial may have been.
const LATELY: Duration = Duration::from_mins(1);
/// What was denied less often is a mistake that somebody has made, and noticed.
const NOISE: u64 = 3;
/// What the doctor asks.
const ASKED: [&str; 8] = ["ping", "info", "role", "client", "config", "slowlog", "acl", "latency"];
/// Denials that are named.
const NAMED: usize = 3;

pub(super) fn rules(scene: &Scene<'_>, found: &mut Vec<Finding>) {
    for sentinel in &scene.now.sentinels {
        found.extend(stale_sentinel(scene, sentinel));
    }
    let expected = scene.expected_primary().map(|seen| seen.node.as_str());
    for seen in &scene.now.nodes {
        found.extend(endpoint(seen, expected == Some(seen.node.as_str())));
        found.extend(denied(scene, seen));
    }
    found.extend(denied_here(scene));
}

fn stale_sentinel(scene: &Scene<'_>, sentinel: &SentinelSeen) -> Option<Finding> {
    let (names, primary) = (sentinel.names.as_ref()?, scene.primary()?);
    let is_same = |node: &str| {
        let same = |seen: &Seen| seen.run_id().is_some() && seen.run_id() == primary.run_id();
        node == primary.node || scene.now.node(node).is_some_and(same)
    };
    let says_so = scene.now.node(names).is_some_and(|seen| seen.as_primary().is_some());
    // While a failover is under way they differ for a moment.
    let is_stale = |look: &Look| {
        let then = look.sentinels.iter().find(|then| then.sentinel == sentinel.sentinel);
        then.and_then(|then| then.names.as_deref()).is_some_and(|names| !is_same(names))
    };
    let before = scene.looks.iter().rev().nth(1);
    if is_same(names) || says_so || before.is_some_and(|look| !is_stale(look)) {
        return None;
    }
    let newest = scene.now.sentinels.iter().filter_map(|other| other.epoch).max();
    let (epoch, newest) = (sentinel.epoch.unwrap_or(0), newest.unwrap_or(0));
    let evidence = format!(
        "it names {names} (config-epoch {epoch}, the newest of all is {newest}), and {} says that it is the primary",
        primary.node
    );
    let remedy = format!(
        "see whether it reaches the others (`{cli} SENTINEL SENTINELS name`); `{cli} SENTINEL RESET name` has it learn anew",
        cli = scene.context.sentinel_cli(&sentinel.sentinel)
    );
    Some(
        Finding::new(Code::StaleSentinel, Severity::Warning, &sentinel.sentinel, evidence, remedy)
            .lasting(scene.lasting(is_stale)),
    )
}

fn endpoint(seen: &Seen, is_primary: bool) -> Option<Finding> {
    let (own, other) = (seen.run_id()?, seen.other_process.as_deref()?);
    if own == other {
        return None;
    }
    let evidence = format!("two connections at the same time led to run_id {own} and to run_id {other}");
    let (severity, remedy) = if is_primary {
        (Severity::Error, "what is configured as the primary must be one server: write its own address")
    } else {
        (
            Severity::Warning,
            "only one of them is used: list the replicas, or use \"dns:name:port\" with a name of which each record is one",
        )
    };
    Some(Finding::new(Code::ReaderEndpoint, severity, &seen.node, evidence, remedy.to_owned()))
}

fn denied(scene: &Scene<'_>, seen: &Seen) -> Option<Finding> {
    let is_noise = |denial: &&Denial| {
        denial.reason != "auth"
            && denial.count >= NOISE
            && denial.ago <= LATELY
            && !is_of_the_doctor(scene, denial)
    };
    let mut denials: Vec<_> = seen.denials.iter().filter(is_noise).collect();
    denials.sort_by_key(|denial| std::cmp::Reverse(denial.count));
    let most = denials.first()?;
    let told: Vec<String> = denials
        .iter()
        .take(NAMED)
        .map(|denial| {
            let user = denial.user.escape_debug();
            // Keys and channels are somebody's data.
            let what = match denial.reason.as_str() {
                "command" => format!("the command {}", denial.object.escape_debug()),
                "key" => "a key".to_owned(),
                _ => "a channel".to_owned(),
            };
            format!("user {user} was denied {what} {} times, last {} ago", denial.count, seconds(denial.ago))
        })
        .collect();
    let ours = scene.context.user.as_deref().unwrap_or("default") == most.user;
    let (cli, user, object) =
        (scene.context.cli(&seen.node), most.user.escape_debug(), most.object.escape_debug());
    let remedy = match most.reason.as_str() {
        "command" => format!("`{cli} ACL SETUSER {user} '+{object}'`, or have the application stop"),
        "key" => format!(
            "`{cli} ACL LOG` names it; `{cli} ACL SETUSER {user} '~PATTERN'`, or have the application stop"
        ),
        _ => format!(
            "`{cli} ACL LOG` names it; `{cli} ACL SETUSER {user} '&PATTERN'`, or have the application stop"
        ),
    };
    let severity = if ours && most.reason == "command" { Severity::Warning } else { Severity::Info };
    Some(Finding::new(
        Code::DeniedCommand,
        severity,
        &seen.node,
        format!("ACL LOG: {}", told.join("; ")),
        remedy,
    ))
}

/// Whether it is one of the doctor's own questions, which is told of as [`crate::core::diagnose::seen::Unchecked`].
fn is_of_the_doctor(scene: &Scene<'_>, denial: &Denial) -> bool {
    let ours = scene.context.user.as_deref().unwrap_or("default") == denial.user;
    // Before Redis 7.0 subcommands are not named.
    let command = denial.object.split('|').next().unwrap_or_default();
    ours && denial.reason == "command" && ASKED.iter().any(|asked| command.eq_ignore_ascii_case(asked))
}

/// What `deny-commands` has refused while the looks are remembered.
fn denied_here(scene: &Scene<'_>) -> Option<Finding> {
    let (first, now) = (scene.looks.first()?, scene.now.denied?);
    let count = now.saturating_sub(first.denied?);
    (count >= NOISE).then(|| {
        let evidence = format!(
            "[security] deny-commands has refused {count} commands of clients within {}",
            seconds(scene.ago(first.at))
        );
        let remedy = "have the application stop, or take the command out of deny-commands".to_owned();
        Finding::new(Code::DeniedCommand, Severity::Info, "redweir", evidence, remedy)
    })
}
