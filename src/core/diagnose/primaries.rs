//! Who the primary is, whether it is what it was, and whose history the replicas have.

use std::time::Duration;

use crate::core::address::Address;
use crate::core::diagnose::code::{Code, Severity};
use crate::core::diagnose::finding::Finding;
use crate::core::diagnose::history::Incident;
use crate::core::diagnose::scene::{Scene, are_related, is_listed};
use crate::core::diagnose::seen::{Look, Report, Seen};
use crate::core::nodes::node::Role;

pub(super) fn rules(scene: &Scene<'_>, found: &mut Vec<Finding>) {
    configured_replica(scene, found);
    several_primaries(scene, found);
    if let Some(primary) = scene.primary() {
        for (seen, replica) in scene.replicas() {
            other_history(scene, (seen, replica), primary, found);
        }
    }
    for incident in scene.incidents {
        found.extend(lost(scene, incident).into_iter().flatten());
    }
}

/// What is configured as the primary says that it is a replica.
fn configured_replica(scene: &Scene<'_>, found: &mut Vec<Finding>) {
    let Some(seen) = scene.context.primary.as_ref().and_then(|name| scene.now.node(name)) else { return };
    let Some(report) = seen.as_replica() else { return };
    let (host, port) = report.master.clone().unwrap_or_default();
    let evidence =
        format!("role:slave, master_host:{host}, master_port:{port} at what is configured as the primary");
    let (severity, evidence, remedy) = match scene.primary() {
        Some(primary) => (
            Severity::Warning,
            format!("{evidence}; {} says that it is the primary", primary.node),
            format!("write {} into [upstream] primary, and {} among the replicas", primary.node, seen.node),
        ),
        None => (
            Severity::Error,
            format!("{evidence}; no node says that it is the primary"),
            format!(
                "if it shall be the primary: `{} REPLICAOF NO ONE`; else write the right one into [upstream] primary",
                scene.context.cli(&seen.node)
            ),
        ),
    };
    let is_replica = |look: &Look| look.node(&seen.node).is_some_and(|then| then.as_replica().is_some());
    found.push(
        Finding::new(Code::NotAPrimary, severity, &seen.node, evidence, remedy)
            .lasting(scene.lasting(is_replica)),
    );
}

fn several_primaries(scene: &Scene<'_>, found: &mut Vec<Finding>) {
    let (claims, right) = (scene.claimants(), scene.right());
    // In an orderly failover both may say so for a moment.
    let before = scene.looks.iter().rev().nth(1);
    let is_new = |claim: &&&Seen| {
        let then = before.and_then(|look| look.node(&claim.node));
        then.is_some_and(|then| then.as_primary().is_none())
    };
    if claims.len() < 2 + claims.iter().filter(is_new).count() {
        return;
    }
    let told: Vec<String> =
        claims.iter().map(|claim| format!("{} ({})", claim.node, claim_of(claim))).collect();
    let ends =
        if scene.context.undecided { "; nothing decides, and what needs the primary is refused" } else { "" };
    for second in claims.iter().filter(|claim| !is_new(claim)) {
        if !scene.context.undecided && right.is_some_and(|(right, _)| right.node == second.node) {
            continue;
        }
        let claims_it = |look: &Look| look.node(&second.node).is_some_and(|then| then.as_primary().is_some());
        let lasts = scene.lasting(claims_it);
        let remedy = match right.filter(|(right, _)| right.node != second.node) {
            Some((right, why)) => format!(
                "if {} is the right one ({why}): {}; what was written to {} is lost with that, and must not be merged by hand",
                right.node,
                scene.context.follow(&second.node, &right.node),
                second.node
            ),
            None => "nothing tells which one is right: look whose replicas the others are, to which one the applications write, \
                     and which has what was written last (`INFO keyspace`); then at each of the others: `REPLICAOF HOST PORT` of \
                     that one; never merge by hand"
                .to_owned(),
        };
        let evidence = format!("role:master at {}{ends}", told.join(" and at "));
        found.push(
            Finding::new(Code::TwoPrimaries, Severity::Error, &second.node, evidence, remedy.clone())
                .lasting(lasts),
        );
        if let Some((followed, why)) = scene.context.followed.as_ref().filter(|_| !scene.context.undecided) {
            let evidence = format!("role:master, {}; Redweir follows {followed}: {why}", claim_of(second));
            found.push(
                Finding::new(Code::SecondPrimary, Severity::Warning, &second.node, evidence, remedy)
                    .lasting(lasts),
            );
        }
    }
}

fn claim_of(seen: &Seen) -> String {
    let Some(report) = &seen.report else { return String::new() };
    let id = report.history.map_or_else(|| "?".to_owned(), |history| history.id.to_string());
    let offset = report.offset.map_or_else(|| "?".to_owned(), |offset| offset.to_string());
    let count = report.connected_replicas.map_or_else(|| "?".to_owned(), |count| count.to_string());
    format!("master_replid:{id}, master_repl_offset:{offset}, connected_slaves:{count}")
}

/// A replica that is linked, and whose history has nothing to do with that of the primary.
fn other_history(
    scene: &Scene<'_>,
    (seen, replica): (&Seen, &Report),
    primary: &Seen,
    found: &mut Vec<Finding>,
) {
    let differs = |look: &Look| {
        let ours = look.node(&primary.node).and_then(|primary| primary.report.as_ref()?.history);
        let theirs =
            look.node(&seen.node).and_then(Seen::as_replica).filter(|theirs| theirs.link_up == Some(true));
        theirs.is_some_and(|theirs| are_related(theirs.history, ours) == Some(false))
    };
    // The two were not asked in the same moment: once is not enough.
    let before = scene.looks.iter().rev().nth(1);
    if !differs(scene.now) || before.is_some_and(|look| look.node(&seen.node).is_some() && !differs(look)) {
        return;
    }
    let lasts = scene.lasting(differs);
    let id = |report: Option<&Report>| {
        report
            .and_then(|report| report.history)
            .map_or_else(|| "?".to_owned(), |history| history.id.to_string())
    };
    let (theirs, ours) = (id(Some(replica)), id(primary.report.as_ref()));
    let (host, port) = replica.master.clone().unwrap_or_default();
    let link = format!("master_link_status:up, master_host:{host}, master_port:{port}");
    let back = scene.context.follow(&seen.node, &primary.node);
    let mut find = |code, severity, evidence, remedy| {
        found.push(Finding::new(code, severity, &seen.node, evidence, remedy).lasting(lasts));
    };
    if follows(scene, (seen, replica), primary) {
        let evidence = format!(
            "{link}, which is the primary, and yet master_replid:{theirs} where that has {ours} (DEBUG CHANGE-REPL-ID): offsets of \
             the two do not compare"
        );
        let again = format!(
            "`{} REPLICAOF NO ONE`, then {back}: it takes a full resync; until then it gets no reads",
            { scene.context.cli(&seen.node) }
        );
        return find(Code::ChangedId, Severity::Error, evidence, again);
    }
    let evidence = format!("{link}; master_replid:{theirs}, where the primary {} has {ours}", primary.node);
    let keep = format!("it gets no reads; {back}, which costs it all that it has");
    find(Code::ForeignReplica, Severity::Error, evidence.clone(), keep);
    let followed = scene.context.reached(&host, port);
    let stranger = scene.now.strangers.iter().find(|stranger| Some(&stranger.node) == followed.as_ref());
    let known = match stranger.map(|stranger| (stranger.role(), &stranger.problem)) {
        Some((Some(Role::Primary), _)) => ", which says that it is a primary and is not configured",
        Some((Some(Role::Replica), _)) => ", which is itself a replica and is not configured",
        Some((None, Some(_))) => ", which does not say from here what it is",
        _ => "",
    };
    let followed = Address::announced(&host, port).map_or_else(|| host.clone(), |at| at.to_string());
    let evidence = format!("it follows another primary, {followed}{known}; {evidence}");
    let remedy =
        format!("a replica has one primary: {back}; or configure the other one, if that is the right one");
    find(Code::TwoPrimaries, Severity::Error, evidence, remedy);
}

/// Whether a replica's link leads to this primary, by whatever address.
fn follows(scene: &Scene<'_>, (seen, replica): (&Seen, &Report), primary: &Seen) -> bool {
    let Some((host, port)) = &replica.master else { return false };
    let address = scene.context.reached(host, *port);
    let leads_there = |other: &Seen| {
        Some(&other.node) == address.as_ref()
            && other.run_id().is_some()
            && other.run_id() == primary.run_id()
    };
    if Some(&primary.node) == address.as_ref() || scene.now.strangers.iter().any(leads_there) {
        return true;
    }
    // The primary lists it, and nobody else whom it could mean.
    let Some(ours) = primary.as_primary() else { return false };
    let could_be = |_: &Seen, report: &Report| {
        report.link_up == Some(true) && are_related(report.history, ours.history) == Some(true)
    };
    is_listed(scene.now, scene.context, (seen, replica), &ours.online, could_be)
}

/// A primary that came back without its history.
fn lost(scene: &Scene<'_>, incident: &Incident) -> Option<Vec<Finding>> {
    let seen = scene.now.node(&incident.node).filter(|seen| seen.as_primary().is_some())?;
    seen.run_id().filter(|id| **id == *incident.after.run_id)?;
    let (before, after) = (&incident.before, &incident.after);
    let evidence = format!(
        "run_id was {} and is {}, master_replid was {} and is {}, master_repl_offset {} from {} to {}",
        before.run_id,
        after.run_id,
        before.history.id,
        after.history.id,
        if after.offset < before.offset { "fell" } else { "went" },
        before.offset,
        after.offset
    );
    let uptime = Duration::from_secs(after.uptime_seconds.unwrap_or(0));
    let lasts = scene.ago(incident.at).saturating_add(uptime);
    let save = "all replicas take a full resync, and tokens and fences of before are void. To keep the history, have it saved at \
                the end (`SHUTDOWN SAVE`, or save points: the RDB file carries the replication ID)";
    let mut found = vec![
        Finding::new(
            Code::RunIdChanged,
            Severity::Warning,
            &incident.node,
            evidence.clone(),
            save.to_owned(),
        )
        .lasting(lasts),
    ];
    if incident.is_empty() {
        let keys = before.keys.unwrap_or(0);
        let remedy = "its replicas are emptied with it: if one is cut off and still has the data, promote that one before it is \
                      linked again (`REPLICAOF NO ONE`), or restore a dump. A primary without persistence must never be \
                      restarted by itself: turn persistence on, or the automatic restart off";
        let evidence = format!("{keys} keys before, none now; {evidence}");
        found.push(
            Finding::new(Code::RestartedEmpty, Severity::Error, &incident.node, evidence, remedy.to_owned())
                .lasting(lasts),
        );
    }
    Some(found)
}
