//! `/readyz`: what works, and what is not as it should be.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::core::diagnose::Code;
use crate::core::moment::Moment;
use crate::core::nodes::cause::Cause;
use crate::core::nodes::election::second_primaries;
use crate::core::nodes::node::Node;
use crate::core::nodes::view::View;
use crate::core::reason::Reason;
use crate::core::slots::Holdings;
use crate::shard::overall;
use crate::shard::readiness::Readiness;
use crate::shard::report;
use crate::shard::shared::Shared;

/// Whether it is ready, and the text that says so. Ready is who has a primary that answers; if nothing is asked but `reads`, whoever
/// answers reads by one policy at least.
pub(super) fn answer(shared: &Arc<Shared>, reads_only: bool, now: Moment) -> (bool, String) {
    match overall::holdings(shared) {
        Some(holdings) => of_cluster(shared, &holdings, reads_only, now),
        None => of_one(shared, reads_only, now),
    }
}

/// Whether reads and writes work now: in a cluster, those of all slots.
pub(super) fn works(shared: &Arc<Shared>, now: Moment) -> (bool, bool) {
    let of = |shared: &Shared| Readiness::of(&shared.shard().view.load(), now);
    let Some(holdings) = overall::holdings(shared) else {
        let works = of(shared);
        return (works.reads(), works.writes);
    };
    let covered = holdings.unowned.is_empty();
    let all: Vec<Readiness> = needed(shared, &holdings).iter().map(|shard| of(shard)).collect();
    (covered && all.iter().all(Readiness::reads), covered && all.iter().all(|works| works.writes))
}

/// The shards that have to work: one without slots has nothing to answer.
fn needed(shared: &Arc<Shared>, holdings: &Holdings) -> Vec<Arc<Shared>> {
    let has_slots = |shard: &Arc<Shared>| holdings.shard(shard.index()).count() > 0;
    overall::shards(shared).into_iter().filter(has_slots).collect()
}

/// Of a cluster: it is ready if all shards that have slots are, and no slot is nobody's.
fn of_cluster(shared: &Arc<Shared>, holdings: &Holdings, reads_only: bool, now: Moment) -> (bool, String) {
    let ((can_read, can_write), leaving) = (works(shared, now), shared.is_leaving());
    let is_ready = !leaving && if reads_only { can_read } else { can_write };
    let (mut sections, mut not_read, mut not_written) = (String::new(), Vec::new(), Vec::new());
    for shard in overall::shards(shared) {
        let (view, index) = (shard.shard().view.load(), shard.index());
        let works = Readiness::of(&view, now);
        let holding = holdings.shard(index);
        let cause = cause_of(&view);
        if holding.count() > 0 && !works.reads() {
            not_read.push(format!("shard {index}: {cause}"));
        }
        if holding.count() > 0 && !works.writes {
            not_written.push(format!("shard {index}: {cause}"));
        }
        // Writing to a `String` cannot fail.
        let _ = writeln!(
            sections,
            "shard {index}: {}; reads: {}; writes: {}; primary {}; replicas in service: {}; replication stream {}",
            overall::held(&holding),
            reads(&works, &cause),
            writes(&shard, &works, &cause),
            primary(&view, now),
            in_service(&view),
            stream(&shard, &view),
        );
        tell_of_nodes(&mut sections, &shard, &view, now);
    }
    if let Some(uncovered) = overall::uncovered(holdings) {
        not_read.push(uncovered.clone());
        not_written.push(uncovered);
    }
    let told = |faults: &[String]| match faults {
        [] => "yes".to_owned(),
        faults => format!("no: {}", faults.join("; ")),
    };
    let slots = overall::uncovered(holdings).unwrap_or_else(|| "every slot has a shard".to_owned());
    let (word, shards) = (word(leaving, is_ready), overall::shards(shared).len());
    let body = format!(
        "{word}\nreads: {}\nwrites: {}\nshards: {shards}; {slots}\n{sections}",
        told(&not_read),
        told(&not_written)
    );
    (is_ready, body)
}

/// Of one primary and its replicas.
fn of_one(shared: &Shared, reads_only: bool, now: Moment) -> (bool, String) {
    let view = shared.shard().view.load();
    let works = Readiness::of(&view, now);
    let leaving = shared.is_leaving();
    let is_ready = !leaving && if reads_only { works.reads() } else { works.writes };
    let cause = cause_of(&view);
    let mut body = format!(
        "{}\nreads: {}\nwrites: {}\nprimary: {}\nsecond primary: {}\nreplicas in service: {}\nreplication stream: {}\n\
         access rules: {}\n",
        word(leaving, is_ready),
        reads(&works, &cause),
        writes(shared, &works, &cause),
        primary(&view, now),
        second_primary(&view),
        in_service(&view),
        stream(shared, &view),
        access_rules(&view),
    );
    tell_of_nodes(&mut body, shared, &view, now);
    (is_ready, body)
}

const fn word(leaving: bool, is_ready: bool) -> &'static str {
    match (leaving, is_ready) {
        (true, _) => "draining",
        (false, true) => "ready",
        (false, false) => "not ready",
    }
}

/// Why no primary answers, as far as that is known.
fn cause_of(view: &View) -> String {
    Cause::of(view).map_or_else(|| Reason::PrimaryDown.text().to_owned(), |cause| cause.text(true))
}

fn writes(shared: &Shared, works: &Readiness, cause: &str) -> String {
    let refusal = shared.shard().doctor.report().evidence(Code::WritesRefused);
    match refusal {
        _ if !works.writes => format!("no: {cause}"),
        Some(evidence) => format!("refused by the primary: {evidence}"),
        None => "yes".to_owned(),
    }
}

fn primary(view: &View, now: Moment) -> String {
    let primary = view.usable_primary(now).and_then(|id| view.node(id));
    primary.map_or_else(|| "none".to_owned(), Node::name)
}

fn in_service(view: &View) -> String {
    let serving = view.members().filter(|n| view.primary != Some(n.id) && n.standing.is_open()).count();
    format!("{serving} of {}", view.members().count().saturating_sub(1))
}

fn stream(shared: &Shared, view: &View) -> String {
    let stream = report::stream_source(shared, view);
    stream.map_or_else(|| "not attached".to_owned(), |name| format!("attached, from {name}"))
}

/// What is wrong with each node or last was, and what it refuses.
fn tell_of_nodes(body: &mut String, shared: &Shared, view: &View, now: Moment) {
    for node in report::view_report(view, now).nodes {
        if let Some(trouble) = node.trouble() {
            // Writing to a `String` cannot fail.
            let _ = writeln!(body, "node {}: {trouble}", node.node);
        }
    }
    for (node, wanted) in shared.shard().withheld.list(view) {
        let _ = writeln!(body, "weaker: {node} refuses {}: {}", wanted.name(), wanted.without());
    }
}

/// Whether reads are answered: all, none, or those of some policies.
fn reads(works: &Readiness, cause: &str) -> String {
    let why = |reason: Reason| match reason {
        Reason::PrimaryDown | Reason::TwoPrimaries => cause.to_owned(),
        reason => reason.text().to_owned(),
    };
    let of_policy = |(name, works): &(String, Result<(), Reason>)| match works {
        Ok(()) => format!("{name} yes"),
        Err(reason) => format!("{name} no ({})", why(*reason)),
    };
    let first = works.reads.iter().find_map(|(_, works)| works.err());
    match first {
        None => "yes".to_owned(),
        Some(_) if works.reads() => {
            format!("by policy: {}", works.reads.iter().map(of_policy).collect::<Vec<_>>().join(", "))
        }
        Some(reason) => format!("no: {}", why(reason)),
    }
}

/// Who says that it is the primary as well.
fn second_primary(view: &View) -> String {
    let names: Vec<String> = second_primaries(view).into_iter().map(Node::name).collect();
    match names.as_slice() {
        [] => "none".to_owned(),
        names if view.two_primaries => format!("nothing decides between {}", names.join(", ")),
        names => format!("{}, not followed", names.join(", ")),
    }
}

/// Whether users read where they may, as far as their rules are concerned.
fn access_rules(view: &View) -> String {
    if view.rights.are_hidden() {
        return "not shown by the primary, so that nobody reads at a replica".to_owned();
    }
    let differ = view.members().filter(|node| view.rights.bar_somebody_from(node.id));
    let names: Vec<String> = differ.map(Node::name).collect();
    match names.as_slice() {
        [] => "the same at every replica".to_owned(),
        names => format!("other users or rules at {}", names.join(", ")),
    }
}
