//! What is set, or was chosen, so that it will hurt one day.

use std::time::Duration;

use crate::core::diagnose::code::{Code, Severity};
use crate::core::diagnose::finding::{Finding, seconds};
use crate::core::diagnose::scene::{Scene, is_linked, is_on_its_way, is_resyncing};
use crate::core::diagnose::seen::{Look, Report, Seen};
use crate::core::nodes::node::LinkDown;

/// `repl-timeout` has to be so many periods of the primary's pings, at least.
const PERIODS: u64 = 5;
/// Clocks that differ by more, beside what an answer took, in microseconds.
const CLOCKS_DIFFER: u64 = 1_000_000;

pub(super) fn rules(scene: &Scene<'_>, found: &mut Vec<Finding>) {
    for seen in &scene.now.nodes {
        found.extend(huge_pages(seen));
    }
    for (seen, replica) in scene.replicas() {
        found.extend(writable(scene, seen, replica));
        found.extend(stale(scene, seen));
    }
    let Some(primary) = scene.primary() else { return };
    let Some(report) = primary.as_primary() else { return };
    for seen in &scene.now.nodes {
        found.extend(timeout_too_short(scene, seen, primary));
    }
    for (seen, replica) in scene.replicas() {
        found.extend(version_skew((seen, replica), (primary, report)));
        found.extend(clocks(seen, primary));
    }
    found.extend(missing(scene, primary, report));
    found.extend(unprotected(scene, primary, report));
}

fn huge_pages(seen: &Seen) -> Option<Finding> {
    // Of the kernel the setting says nothing: where that uses no huge pages, it does no harm.
    let (severity, evidence) = match (seen.tells_of_huge_pages, seen.settings.disable_thp) {
        (true, _) => (Severity::Warning, "LATENCY DOCTOR has found huge pages in use"),
        (false, Some(false)) => {
            (Severity::Info, "disable-thp no: where the kernel uses huge pages, this server does, too")
        }
        _ => return None,
    };
    let remedy = format!(
        "`disable-thp yes` in redis.conf and a restart of {}, or on its machine: echo never > \
         /sys/kernel/mm/transparent_hugepage/enabled",
        seen.node
    );
    Some(Finding::new(Code::Thp, severity, &seen.node, evidence.to_owned(), remedy))
}

fn writable(scene: &Scene<'_>, seen: &Seen, replica: &Report) -> Option<Finding> {
    let is_writable = replica.read_only == Some(false);
    is_writable.then(|| {
        let evidence =
            "slave_read_only:0: what is written here, nobody else has, and a resync removes".to_owned();
        let remedy = format!("`{} CONFIG SET replica-read-only yes`", scene.context.cli(&seen.node));
        Finding::new(Code::WritableReplica, Severity::Warning, &seen.node, evidence, remedy)
    })
}

fn stale(scene: &Scene<'_>, seen: &Seen) -> Option<Finding> {
    let answers = seen.settings.serves_stale == Some(true) && !scene.context.allows_stale;
    answers.then(|| {
        let evidence = "replica-serve-stale-data yes, while no policy of Redweir allows it".to_owned();
        let remedy = format!(
            "none is needed for what goes through Redweir, which keeps such reads away; for all others: `{} CONFIG SET \
             replica-serve-stale-data no`",
            scene.context.cli(&seen.node)
        );
        Finding::new(Code::ServesStale, Severity::Info, &seen.node, evidence, remedy)
    })
}

fn timeout_too_short(scene: &Scene<'_>, seen: &Seen, primary: &Seen) -> Option<Finding> {
    let (timeout, period) = (seen.settings.repl_timeout?, primary.settings.ping_period?);
    (timeout < PERIODS * period).then(|| {
        let severity = if timeout <= period { Severity::Error } else { Severity::Warning };
        let evidence = format!(
            "repl-timeout {timeout} here, repl-ping-replica-period {period} at {}: {}",
            primary.node,
            if timeout <= period { "an idle link is given up for nothing" } else { "one or two pings that are late cut it" }
        );
        let remedy = format!(
            "`{} CONFIG SET repl-timeout {}` (5 to 10 periods), or `{} CONFIG SET repl-ping-replica-period {}`; behind a \
             Kubernetes ClusterIP 15 to 20 s, better a headless service",
            scene.context.cli(&seen.node),
            (6 * period).max(15),
            scene.context.cli(&primary.node),
            (timeout / 6).max(1)
        );
        Finding::new(Code::TimeoutTooShort, severity, &seen.node, evidence, remedy)
    })
}

fn version_skew((seen, replica): (&Seen, &Report), (primary, ours): (&Seen, &Report)) -> Option<Finding> {
    let version = |report: &Report| -> Option<(bool, u32, u32)> {
        let is_valkey = report.valkey_version.is_some();
        let mut parts = report.valkey_version.as_ref().or(report.version.as_ref())?.split('.');
        Some((is_valkey, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    };
    let (theirs, new) = (version(replica)?, version(ours)?);
    let name = |(is_valkey, major, minor): (bool, u32, u32)| {
        format!("{} {major}.{minor}", if is_valkey { "Valkey" } else { "Redis" })
    };
    let other_major = theirs.0 != new.0 || theirs.1 != new.1;
    // Of two kinds the one that is not Redis is the one with its own format of dumps.
    let severity = if theirs < new { Severity::Warning } else { Severity::Info };
    if theirs >= new && !other_major {
        return None;
    }
    let evidence = format!("{} here, {} at the primary {}", name(theirs), name(new), primary.node);
    let remedy = if theirs < new {
        format!(
            "upgrade {} : an older replica may not be able to load the dump of a newer primary",
            seen.node
        )
        .replace(" :", ":")
    } else {
        format!("upgrade {} next: replicas come first, which is so; don't stay there", primary.node)
    };
    Some(Finding::new(Code::VersionSkew, severity, &seen.node, evidence, remedy))
}

fn clocks(seen: &Seen, primary: &Seen) -> Option<Finding> {
    let (theirs, ours) = (seen.clock_ahead_usec?, primary.clock_ahead_usec?);
    let ahead = theirs - ours;
    let doubt =
        (seen.clock_took.unwrap_or_default() + primary.clock_took.unwrap_or_default()).as_micros() as u64;
    (ahead.unsigned_abs() > CLOCKS_DIFFER + doubt).then(|| {
        let (by, way) =
            (Duration::from_micros(ahead.unsigned_abs()), if ahead > 0 { "ahead of" } else { "behind" });
        let evidence =
            format!("server_time_usec is {} {way} that of the primary {}", seconds(by), primary.node);
        let remedy =
            "keys expire there by its own clock, too early or too late: run NTP on both (`chronyc tracking`)"
                .to_owned();
        Finding::new(Code::ClockOfReplica, Severity::Warning, &seen.node, evidence, remedy)
    })
}

/// Who should be linked and is not, and why; a replica that takes its dump is about to be.
fn missing(scene: &Scene<'_>, primary: &Seen, ours: &Report) -> Option<Finding> {
    let is_missing = |look: &Look, seen: &Seen, ours: &Report| match &seen.report {
        _ if seen.run_id().is_some() && seen.run_id() == ours.run_id.as_deref() => false,
        Some(report) => {
            !is_linked(report, ours)
                && !is_resyncing(look, scene.context, (seen, report), Some(ours))
                && !is_on_its_way(report)
        }
        None => true,
    };
    let others = || scene.now.nodes.iter().filter(|seen| seen.node != primary.node);
    let missing: Vec<&Seen> = others().filter(|seen| is_missing(scene.now, seen, ours)).collect();
    if missing.is_empty() {
        return None;
    }
    let why = |seen: &Seen| match (&seen.problem, &seen.report) {
        (Some(problem), _) => problem.text(),
        (None, Some(report)) if report.link_down == Some(LinkDown::Never) => "never synced".to_owned(),
        (None, Some(_)) if seen.as_replica().is_none() => "it is no replica".to_owned(),
        (None, Some(report)) if report.link_up == Some(true) => "it follows somebody else".to_owned(),
        (None, Some(report)) => format!("link down for {}", seconds(scene.down_for(seen, report))),
        (None, None) => "unknown".to_owned(),
    };
    let told: Vec<String> = missing.iter().map(|seen| format!("{} ({})", seen.node, why(seen))).collect();
    let connected = ours.connected_replicas.map_or_else(|| "?".to_owned(), |count| count.to_string());
    // Whoever only follows the stream, as Redweir does, names no port.
    let others_count = ours.online.iter().filter(|(_, port)| *port == 0).count();
    let followers = if others_count > 0 {
        format!(" ({others_count} of them for the stream only)")
    } else {
        String::new()
    };
    let evidence = format!(
        "connected_slaves:{connected}{followers} at the primary; of {} not linked: {}",
        others().count(),
        told.join(", ")
    );
    let was_missing = |look: &Look| {
        look.node(&primary.node).and_then(Seen::as_primary).is_some_and(|ours| {
            missing.iter().any(|seen| look.node(&seen.node).is_some_and(|then| is_missing(look, then, ours)))
        })
    };
    let told = missing.iter().filter_map(|seen| Some(scene.down_for(seen, seen.as_replica()?)));
    let told = told.max().unwrap_or_default();
    let remedy =
        "see what else is found of them; start them, or take them out of the configuration".to_owned();
    let finding = Finding::new(Code::ReplicasMissing, Severity::Warning, &primary.node, evidence, remedy);
    Some(finding.lasting(scene.lasting(was_missing).max(told)))
}

fn unprotected(scene: &Scene<'_>, primary: &Seen, ours: &Report) -> Option<Finding> {
    let configured = scene.now.nodes.iter().filter(|seen| seen.node != primary.node).count();
    let counted = || ours.good_replicas.is_none().then_some(0);
    let required = primary.settings.min_replicas_to_write.or_else(counted)?;
    let cli = scene.context.cli(&primary.node);
    if required > 0 {
        return scene.context.stream_from_primary.then(|| {
            let evidence = format!(
                "min-replicas-to-write {required}, and [stream] source = \"primary\": Redweir is itself counted as a replica there"
            );
            let remedy = "[stream] source = \"auto\" or \"replica\"".to_owned();
            Finding::new(Code::UnprotectedWrites, Severity::Warning, &primary.node, evidence, remedy)
        });
    }
    if configured == 0 {
        return None;
    }
    let linked = scene.replicas().filter(|(_, replica)| is_linked(replica, ours)).count();
    // One that takes its dump will be.
    let will_be = || {
        scene
            .replicas()
            .any(|(seen, replica)| is_resyncing(scene.now, scene.context, (seen, replica), Some(ours)))
    };
    let severity = if linked == 0 && !will_be() { Severity::Warning } else { Severity::Info };
    let evidence = format!("min-replicas-to-write 0, and {linked} of {configured} replicas are linked");
    let remedy = format!(
        "`{cli} CONFIG SET min-replicas-to-write 1` and `{cli} CONFIG SET min-replicas-max-lag 10`, if writes shall rather fail than \
         be lost with the primary"
    );
    Some(Finding::new(Code::UnprotectedWrites, severity, &primary.node, evidence, remedy))
}
