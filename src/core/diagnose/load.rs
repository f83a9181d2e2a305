//! Who does not keep up: the primary with its clients, a replica with the stream, a buffer or the backlog with both.

use std::time::Duration;

use crate::core::diagnose::code::{Code, Severity};
use crate::core::diagnose::finding::{Finding, bytes, cli, seconds};
use crate::core::diagnose::scene::{Scene, is_linked};
use crate::core::diagnose::seen::{Look, Report, Seen};
use crate::core::position::Offset;

/// A primary that answers `PING` no sooner is blocked now and then …
const SLOW_ANSWER: Duration = Duration::from_millis(200);
/// … unless the other nodes take nearly as long: then it is the path, or we, that are slow.
const SLOWER_THAN_OTHERS: u32 = 4;
/// How long ago a slow command may have been.
const LATELY: Duration = Duration::from_mins(1);
/// One command of the last minute that took so long, or all slow ones together.
const SLOW_COMMAND: Duration = Duration::from_millis(250);
const SLOW_COMMANDS: Duration = Duration::from_secs(2);
/// A fork that took so long, in microseconds.
const SLOW_FORK: u64 = 500_000;
/// So many dumps within the looks that are remembered, at least one of which a longer backlog would have spared.
const LOOP_DUMPS: u64 = 2;
/// So many in all, if there was one more just now.
const LOOP_IN_ALL: u64 = 3;
/// A limit of the output buffer is near.
const NEAR_PERCENT: u64 = 50;
/// A replica is behind if it lacks what the primary had so long ago, unless a policy has a longer `max-lag`.
const BEHIND: Duration = Duration::from_secs(1);

pub(super) fn rules(scene: &Scene<'_>, found: &mut Vec<Finding>) {
    let Some(primary) = scene.primary() else { return };
    let Some(report) = primary.as_primary() else { return };
    found.extend(blocked(scene, primary, report));
    found.extend(resync_loop(scene, primary, report));
    found.extend(output_buffer(scene, primary, report));
    for (seen, replica) in scene.replicas().filter(|(_, replica)| is_linked(replica, report)) {
        found.extend(lagging(scene, (seen, replica), primary));
    }
}

fn blocked(scene: &Scene<'_>, primary: &Seen, report: &Report) -> Option<Finding> {
    let mut evidence = Vec::new();
    let others =
        scene.now.nodes.iter().filter(|seen| seen.node != primary.node).filter_map(|seen| seen.latency);
    let (latency, least) = (primary.latency.unwrap_or_default(), others.min().unwrap_or_default());
    if latency >= SLOW_ANSWER && latency >= least * SLOWER_THAN_OTHERS {
        evidence.push(format!("PING took {}", seconds(latency)));
    }
    let slow = || primary.slow.iter().filter(|slow| slow.ago <= LATELY);
    let (most, all) = (slow().max_by_key(|slow| slow.took), slow().map(|slow| slow.took).sum::<Duration>());
    if let Some(most) = most.filter(|most| most.took >= SLOW_COMMAND || all >= SLOW_COMMANDS) {
        let (count, command) = (slow().count(), most.command.escape_debug());
        evidence.push(format!(
            "SLOWLOG: {command} took {}, {count} slow commands of the last minute {} together",
            seconds(most.took),
            seconds(all)
        ));
    }
    if let Some(fork) = report.latest_fork_usec.filter(|fork| *fork >= SLOW_FORK) {
        evidence.push(format!("latest_fork_usec:{fork}"));
    }
    if evidence.is_empty() {
        return None;
    }
    if let Some(blocked) = report.blocked_clients {
        evidence.push(format!("blocked_clients:{blocked}"));
    }
    let remedy = format!(
        "`{} SLOWLOG GET`: no KEYS, no long scripts, UNLINK instead of DEL of large values; turn huge pages off; spread the data \
         over more servers if it is plain load",
        cli(&primary.node)
    );
    Some(Finding::new(Code::PrimaryBlocked, Severity::Warning, &primary.node, evidence.join("; "), remedy))
}

fn resync_loop(scene: &Scene<'_>, primary: &Seen, report: &Report) -> Option<Finding> {
    let then = scene.looks.iter().find_map(|look| Some((look, Scene::then(look, primary)?)))?;
    let (look, then) = (then.0, then.1.as_primary()?);
    let (full, in_all) = (report.sync_full?, report.sync_partial_err?);
    let (dumps, refused) =
        (full.saturating_sub(then.sync_full?), in_all.saturating_sub(then.sync_partial_err?));
    let loops = dumps >= LOOP_DUMPS && refused > 0 || refused > 0 && dumps > 0 && in_all >= LOOP_IN_ALL;
    if !loops {
        return None;
    }
    let span = scene.ago(look.at);
    let size = report.backlog_size.unwrap_or(0);
    let written = report.offset.zip(then.offset).map_or(0, |(now, then)| now.ahead_of(then));
    let rate = written as f64 / span.as_secs_f64().max(0.001);
    let covers = if rate >= 1.0 { format!("{:.1} s", size as f64 / rate) } else { "long".to_owned() };
    let evidence = format!(
        "sync_full rose by {dumps} to {full} and sync_partial_err by {refused} to {in_all} within {}; repl_backlog_size:{size}, \
         and {}/s are written: it covers an outage of {covers}",
        seconds(span),
        bytes(rate as u64)
    );
    // A minute of writes, and no less than what is usual.
    let wanted = ((rate * 60.0) as u64 >> 20).clamp(100, 4096).next_power_of_two();
    let cli = cli(&primary.node);
    let remedy = format!(
        "`{cli} CONFIG SET repl-backlog-size {wanted}mb` and `{cli} CONFIG SET repl-diskless-sync yes`, then `{cli} CONFIG \
         REWRITE`; and see why the links drop"
    );
    Some(Finding::new(Code::ResyncLoop, Severity::Error, &primary.node, evidence, remedy).lasting(span))
}

fn output_buffer(scene: &Scene<'_>, primary: &Seen, report: &Report) -> Option<Finding> {
    let (hard, soft, for_seconds) = primary.settings.replica_buffer.unwrap_or((0, 0, 0));
    // A limit below the backlog is raised to it (networking.c, `checkClientOutputBufferLimits`).
    let backlog = report.backlog_size.unwrap_or(0);
    let raised = |limit: u64| if limit == 0 { 0 } else { limit.max(backlog) };
    let (hard, soft) = (raised(hard), raised(soft));
    let is_near = |output: u64| {
        hard > 0 && output.saturating_mul(100) >= hard.saturating_mul(NEAR_PERCENT)
            || soft > 0 && output >= soft
    };
    let limits = format!("client-output-buffer-limit replica {hard} {soft} {for_seconds}");
    let earlier: Vec<(&Look, &Seen)> =
        scene.looks.iter().filter_map(|look| Some((look, Scene::then(look, primary)?))).collect();
    let kills = |seen: &Seen| seen.report.as_ref().and_then(|report| report.buffer_kills);
    let killed = kills(primary).zip(earlier.iter().find_map(|(_, then)| kills(then)));
    let killed = killed.map_or(0, |(now, then)| now.saturating_sub(then));
    let is_there = |id: u64| primary.replicas.iter().any(|replica| replica.id == id);
    let lost = earlier.iter().rev().flat_map(|(_, then)| &then.replicas);
    let lost = lost.filter(|replica| is_near(replica.output_bytes)).find(|replica| !is_there(replica.id));
    let full = primary.replicas.iter().filter(|replica| is_near(replica.output_bytes));
    let full = full.max_by_key(|replica| replica.output_bytes);
    let (severity, evidence) = match (lost, full) {
        (Some(lost), _) => (
            Severity::Error,
            format!(
                "the connection {} had omem={} when it was seen last, and is gone; {limits}",
                lost.address,
                { lost.output_bytes }
            ),
        ),
        // Clients are counted as well: only beside a replica that came anew it is one.
        (None, _) if killed > 0 && came_anew(report, &earlier) => (
            Severity::Error,
            format!(
                "client_output_buffer_limit_disconnections rose by {killed}, and a replica came anew; {limits}"
            ),
        ),
        (None, Some(full)) => (
            Severity::Warning,
            format!("the replica at {} has omem={}; {limits}", full.address, full.output_bytes),
        ),
        (None, None) => return None,
    };
    let cli = cli(&primary.node);
    let (hard, soft) = ((hard >> 20).max(256) * 2, (soft >> 20).max(64) * 2);
    let remedy = format!(
        "`{cli} CONFIG SET client-output-buffer-limit \"replica {hard}mb {soft}mb 60\"` (the other classes stay as they are), and \
         look at the disk and the CPU of that replica: it does not take what it is sent"
    );
    Some(Finding::new(Code::OutputBuffer, severity, &primary.node, evidence, remedy))
}

fn came_anew(report: &Report, earlier: &[(&Look, &Seen)]) -> bool {
    let before = earlier.first().and_then(|(_, then)| then.report.as_ref()?.sync_full);
    report.sync_full.zip(before).is_some_and(|(now, before)| now > before)
}

/// Behind in time by what it lacks of what the primary had had earlier: no clock is compared.
fn lagging(scene: &Scene<'_>, (seen, replica): (&Seen, &Report), primary: &Seen) -> Option<Finding> {
    let (ours, applied) = (primary.as_primary()?, replica.applied?);
    let (head, history) = (ours.offset?, ours.history?);
    if !history.covers(replica.history?.id, applied) {
        return None;
    }
    let limit = scene.context.max_lag.unwrap_or(BEHIND).max(BEHIND);
    let heads = |look: &Look| Scene::then(look, primary).and_then(|then| then.report.as_ref()?.offset);
    let lacks = |look: &&Look| heads(look).is_some_and(|head| head > applied);
    let since = scene.looks.iter().find(lacks).filter(|look| scene.ago(look.at) >= limit)?;
    let behind = scene.ago(since.at);
    let then = scene.before(limit)?;
    let span = scene.ago(then.at).as_secs_f64().max(0.001);
    let rate = |now: u64, then: Option<u64>| then.map_or(0.0, |then| now.saturating_sub(then) as f64 / span);
    let applied_then = Scene::then(then, seen).and_then(|then| then.report.as_ref()?.applied);
    let (applies, writes) = (
        rate(applied.bytes(), applied_then.map(Offset::bytes)),
        rate(head.bytes(), heads(then).map(Offset::bytes)),
    );
    let evidence = format!(
        "slave_repl_offset:{applied} where the primary is at {head}: {} and at least {} behind; it applies {}/s, and {}/s are \
         written",
        bytes(head.ahead_of(applied)),
        seconds(behind),
        bytes(applies as u64),
        bytes(writes as u64)
    );
    let remedy = format!(
        "`{} SLOWLOG GET` (slow reads hold up the stream), then its CPU, its disk, and the path to it; reads that need fresher \
         data go elsewhere meanwhile",
        cli(&seen.node)
    );
    Some(Finding::new(Code::Lagging, Severity::Warning, &seen.node, evidence, remedy).lasting(behind))
}
