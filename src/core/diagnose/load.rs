//! Who does not keep up: the primary with its clients, a replica with the stream, a buffer or the backlog with both.

use std::time::Duration;

use crate::core::diagnose::code::{Code, Severity};
use crate::core::diagnose::finding::{Finding, bytes, seconds};
use crate::core::diagnose::scene::{Scene, is_linked, is_resyncing};
use crate::core::diagnose::seen::{Look, ReplicaClient, Report, Seen};
use crate::core::position::Offset;

/// A primary that answers `PING` no sooner is blocked now and then …
const SLOW_ANSWER: Duration = Duration::from_millis(200);
/// … unless a connection to it, or an answer of the other nodes, takes nearly as long: then it is the path, or we, that are slow.
const SLOWER_THAN_USUAL: u32 = 4;
/// How long ago a slow command may have been.
const LATELY: Duration = Duration::from_mins(1);
/// One command of the last minute that took so long, or all slow ones together.
const SLOW_COMMAND: Duration = Duration::from_millis(250);
const SLOW_COMMANDS: Duration = Duration::from_secs(2);
/// A fork that took so long, in microseconds.
const SLOW_FORK: u64 = 500_000;
/// So many full resyncs of one replica within the looks that are remembered, at least one of which a longer backlog would have
/// spared.
const LOOP_DUMPS: u64 = 2;
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
    let mut evidence: Vec<String> = slow_answer(scene, primary).into_iter().collect();
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
    let fork = report.latest_fork_usec.filter(|fork| *fork >= SLOW_FORK);
    let forked = fork.is_some() && has_forked(scene, primary, report);
    let (severity, remedy) = if evidence.is_empty() {
        let remedy = "each fork (a dump, a rewrite of the append-only file, a full resync) holds the primary up for so long: turn \
                      huge pages off, have it dump less often, or spread the data over more servers";
        // The last fork may be long ago: the value stays until the next one.
        (if forked { Severity::Warning } else { Severity::Info }, remedy.to_owned())
    } else {
        let remedy = format!(
            "`{} SLOWLOG GET`: no KEYS, no long scripts, UNLINK instead of DEL of large values; turn huge pages off; spread the \
             data over more servers if it is plain load",
            scene.context.cli(&primary.node)
        );
        (Severity::Warning, remedy)
    };
    evidence.extend(fork.map(|fork| format!("latest_fork_usec:{fork}")));
    if evidence.is_empty() {
        return None;
    }
    if let Some(blocked) = report.blocked_clients {
        evidence.push(format!("blocked_clients:{blocked}"));
    }
    Some(Finding::new(Code::PrimaryBlocked, severity, &primary.node, evidence.join("; "), remedy))
}

/// It answers late where the path does not: by the kernel of its machine, which makes connections all the while, and by the other
/// nodes, which are slow as well where we are.
fn slow_answer(scene: &Scene<'_>, primary: &Seen) -> Option<String> {
    let (latency, connects_in) = (primary.latency?, primary.connects_in?);
    let others = scene.now.nodes.iter().filter(|seen| seen.node != primary.node);
    let usual = others.filter_map(|seen| seen.latency).min().unwrap_or_default().max(connects_in);
    (latency >= SLOW_ANSWER && latency >= usual * SLOWER_THAN_USUAL)
        .then(|| format!("PING took {}, a connection {}", seconds(latency), seconds(connects_in)))
}

/// Whether the last fork was while the looks are remembered.
fn has_forked(scene: &Scene<'_>, primary: &Seen, report: &Report) -> bool {
    let differs = |then: Option<u64>, now: Option<u64>| then.zip(now).is_some_and(|(then, now)| then != now);
    let before = scene.looks.iter().filter_map(|look| Scene::then(look, primary)?.report.as_ref());
    before.into_iter().any(|then| {
        differs(then.total_forks, report.total_forks)
            || differs(then.latest_fork_usec, report.latest_fork_usec)
    })
}

fn resync_loop(scene: &Scene<'_>, primary: &Seen, report: &Report) -> Option<Finding> {
    let then = scene.looks.iter().find_map(|look| Some((look, Scene::then(look, primary)?)))?;
    let (look, then) = (then.0, then.1.as_primary()?);
    let (full, in_all) = (report.sync_full?, report.sync_partial_err?);
    let (dumps, refused) =
        (full.saturating_sub(then.sync_full?), in_all.saturating_sub(then.sync_partial_err?));
    // One for each replica is what a failover takes.
    let is_repeated = || {
        let others = scene.now.nodes.iter().filter(|seen| seen.as_primary().is_none()).count() as u64;
        dumps > others.max(report.connected_replicas.unwrap_or(0))
            || scene.replicas().any(|(seen, _)| resyncs_seen(scene, seen, primary) >= LOOP_DUMPS)
    };
    let span = scene.ago(look.at);
    if let Some(finding) = fruitless(scene, primary, dumps, span) {
        return Some(finding);
    }
    if refused == 0 || dumps < LOOP_DUMPS || !is_repeated() {
        return None;
    }
    let written = report.offset.zip(then.offset).map_or(0, |(now, then)| now.ahead_of(then));
    let rate = written as f64 / span.as_secs_f64().max(0.001);
    let backlog = report.backlog_size.map_or_else(
        || "repl_backlog_size is not shown".to_owned(),
        |size| {
            let covers =
                if rate >= 1.0 { format!("{:.1} s", size as f64 / rate) } else { "any length".to_owned() };
            format!("repl_backlog_size:{size} covers an outage of {covers}")
        },
    );
    let evidence = format!(
        "sync_full rose by {dumps} to {full} and sync_partial_err by {refused} to {in_all} within {}; {}/s are written, and \
         {backlog}",
        seconds(span),
        bytes(rate as u64)
    );
    // A minute of writes, and no less than what is usual.
    let wanted = ((rate * 60.0) as u64 >> 20).clamp(100, 4096).next_power_of_two();
    let cli = scene.context.cli(&primary.node);
    let remedy = format!(
        "`{cli} CONFIG SET repl-backlog-size {wanted}mb` and `{cli} CONFIG SET repl-diskless-sync yes`, then `{cli} CONFIG \
         REWRITE`; and see why the links drop"
    );
    Some(Finding::new(Code::ResyncLoop, Severity::Error, &primary.node, evidence, remedy).lasting(span))
}

/// Replicas that take one dump after the other, and none of them to its end: it breaks off, or they cannot load it. They ask for
/// no partial resync, so that none is refused.
fn fruitless(scene: &Scene<'_>, primary: &Seen, dumps: u64, span: Duration) -> Option<Finding> {
    let is_down = |look: &Look, seen: &Seen| {
        look.node(&seen.node).and_then(Seen::as_replica).is_some_and(|then| then.link_up == Some(false))
    };
    let never_up = scene
        .replicas()
        .map(|(seen, _)| seen)
        .filter(|seen| scene.looks.iter().all(|look| is_down(look, seen)));
    let never_up: Vec<&str> = never_up.map(|seen| seen.node.as_str()).collect();
    let count = never_up.len() as u64;
    (count > 0 && dumps >= LOOP_DUMPS && dumps > 2 * count).then(|| {
        let names = never_up.join(", ");
        let evidence = format!(
            "sync_full rose by {dumps} within {}, and {names} had no link all the while: no dump comes to its end there",
            seconds(span)
        );
        let remedy = format!(
            "the log of {names} says what fails: an older version that cannot load the dump, its disk or memory, or a path that \
             breaks off (then `{} CONFIG SET repl-timeout 300`)",
            scene.context.cli(&primary.node)
        );
        Finding::new(Code::ResyncLoop, Severity::Error, &primary.node, evidence, remedy).lasting(span)
    })
}

/// How many full resyncs of a replica have begun while the looks are remembered, as far as they were seen.
fn resyncs_seen(scene: &Scene<'_>, seen: &Seen, primary: &Seen) -> u64 {
    let resyncs = scene.looks.iter().filter_map(|look| {
        let (then, replica) = look.node(&seen.node).and_then(|then| Some((then, then.as_replica()?)))?;
        let ours = Scene::then(look, primary).and_then(Seen::as_primary);
        let is_up = replica.link_up == Some(true);
        Some(!is_up && is_resyncing(look, scene.context, (then, replica), ours))
    });
    let mut was = true;
    let begins = |is: &bool| !std::mem::replace(&mut was, *is) && *is;
    resyncs.filter(begins).count() as u64
}

/// `client-output-buffer-limit replica` as it works; bytes, 0 is none.
struct Limit {
    hard: u64,
    soft: u64,
    for_seconds: u64,
    /// The hard limit as it is set, if the backlog is larger, which counts in its place.
    raised_from: Option<u64>,
}

impl Limit {
    /// Since Redis 7.0 a hard limit below the backlog counts as that (networking.c, `checkClientOutputBufferLimits`); a soft one
    /// stays as it is.
    fn of(primary: &Seen, report: &Report) -> Option<Self> {
        let (set, soft, for_seconds) = primary.settings.replica_buffer?;
        let major =
            report.version.as_ref().and_then(|version| version.split('.').next()?.parse::<u32>().ok());
        let backlog = report.backlog_size.filter(|_| set > 0 && major.is_none_or(|major| major >= 7));
        let hard = set.max(backlog.unwrap_or(0));
        Some(Self { hard, soft, for_seconds, raised_from: (hard > set).then_some(set) })
    }

    const fn is_near(&self, output: u64) -> bool {
        self.hard > 0 && output.saturating_mul(100) >= self.hard.saturating_mul(NEAR_PERCENT)
            || self.soft > 0 && output >= self.soft
    }

    fn text(&self) -> String {
        let Self { hard, soft, for_seconds, raised_from } = self;
        let set = raised_from.unwrap_or(*hard);
        let raised = raised_from
            .map_or_else(String::new, |_| format!(", of which repl-backlog-size makes the first {hard}"));
        format!("client-output-buffer-limit replica {set} {soft} {for_seconds}{raised}")
    }

    /// What it may be set to: no value below what it is, and none where there is none.
    fn more(&self) -> String {
        let double = |limit: u64, least| if limit == 0 { 0 } else { limit.div_ceil(1 << 20).max(least) * 2 };
        let for_seconds = if self.soft == 0 { self.for_seconds } else { self.for_seconds.max(60) };
        let mb = |limit| if limit == 0 { "0".to_owned() } else { format!("{limit}mb") };
        format!("replica {} {} {for_seconds}", mb(double(self.hard, 256)), mb(double(self.soft, 64)))
    }
}

fn output_buffer(scene: &Scene<'_>, primary: &Seen, report: &Report) -> Option<Finding> {
    let limit = Limit::of(primary, report);
    if limit.as_ref().is_some_and(|limit| limit.hard == 0 && limit.soft == 0) {
        return None;
    }
    let is_near =
        |replica: &&ReplicaClient| limit.as_ref().is_some_and(|limit| limit.is_near(replica.output_bytes));
    let shown = limit
        .as_ref()
        .map_or_else(|| "client-output-buffer-limit replica is not shown".to_owned(), Limit::text);
    let earlier: Vec<(&Look, &Seen)> =
        scene.looks.iter().filter_map(|look| Some((look, Scene::then(look, primary)?))).collect();
    let kills = |seen: &Seen| seen.report.as_ref().and_then(|report| report.buffer_kills);
    let killed = kills(primary).zip(earlier.iter().find_map(|(_, then)| kills(then)));
    let killed = killed.map_or(0, |(now, then)| now.saturating_sub(then));
    let lost = last_words(&earlier).into_iter().filter(is_near);
    let lost = lost.max_by_key(|replica| replica.output_bytes);
    let full = primary.replicas.iter().filter(is_near).max_by_key(|replica| replica.output_bytes);
    let (severity, evidence) = match (lost, full) {
        (Some(lost), _) => (
            Severity::Error,
            format!(
                "the connection {} had omem={} when it was seen last, and is gone; {shown}",
                lost.address,
                { lost.output_bytes }
            ),
        ),
        // Clients are counted as well: only beside a replica that came anew it is one.
        (None, _) if killed > 0 && came_anew(report, &earlier) => (
            Severity::Error,
            format!(
                "client_output_buffer_limit_disconnections rose by {killed}, and a replica came anew; {shown}"
            ),
        ),
        (None, Some(full)) => (
            Severity::Warning,
            format!("the replica at {} has omem={}; {shown}", full.address, full.output_bytes),
        ),
        (None, None) => return None,
    };
    let cli = scene.context.cli(&primary.node);
    let raise = limit.map_or_else(
        || {
            format!(
                "`{cli} CONFIG GET client-output-buffer-limit` and raise what it has for replicas (`slave`) by `CONFIG SET`"
            )
        },
        |limit| format!("`{cli} CONFIG SET client-output-buffer-limit \"{}\"`", limit.more()),
    );
    let remedy = format!(
        "{raise} (the other classes stay as they are), and look at the disk and the CPU of that replica: it does not take what it \
         is sent"
    );
    Some(Finding::new(Code::OutputBuffer, severity, &primary.node, evidence, remedy))
}

/// The connections of replicas that are not there in the last of these looks, as they were when they were seen last.
fn last_words<'a>(looks: &[(&'a Look, &'a Seen)]) -> Vec<&'a ReplicaClient> {
    let Some(((_, now), earlier)) = looks.split_last() else { return Vec::new() };
    let mut gone: Vec<&ReplicaClient> = Vec::new();
    for replica in earlier.iter().rev().flat_map(|(_, then)| &then.replicas) {
        let is_known = |known: &ReplicaClient| known.id == replica.id;
        if !now.replicas.iter().any(is_known) && !gone.iter().any(|known| is_known(known)) {
            gone.push(replica);
        }
    }
    gone
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
    // One that has just loaded its dump has some way to go.
    let is_linked = |look: &&Look| {
        look.node(&seen.node).and_then(Seen::as_replica).is_some_and(|r| r.link_up == Some(true))
    };
    let linked = scene.looks.iter().rev().take_while(is_linked).count();
    let looks = &scene.looks[scene.looks.len() - linked..];
    let since = looks.iter().find(lacks).filter(|look| scene.ago(look.at) >= limit)?;
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
        scene.context.cli(&seen.node)
    );
    Some(Finding::new(Code::Lagging, Severity::Warning, &seen.node, evidence, remedy).lasting(behind))
}
