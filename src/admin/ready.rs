//! `/readyz`: what works, and what is not as it should be.

use std::fmt::Write as _;

use crate::core::diagnose::Code;
use crate::core::moment::Moment;
use crate::core::nodes::cause::Cause;
use crate::core::nodes::election::second_primaries;
use crate::core::nodes::node::Node;
use crate::core::nodes::view::View;
use crate::core::reason::Reason;
use crate::shard::readiness::Readiness;
use crate::shard::report;
use crate::shard::shared::Shared;

/// Whether it is ready, and the text that says so. Ready is who has a primary that answers; if nothing is asked but `reads`, whoever
/// answers reads by one policy at least.
pub(super) fn answer(shared: &Shared, reads_only: bool, now: Moment) -> (bool, String) {
    let view = shared.shard().view.load();
    let works = Readiness::of(&view, now);
    let leaving = shared.is_leaving();
    let is_ready = !leaving && if reads_only { works.reads() } else { works.writes };
    let primary = view.usable_primary(now).and_then(|id| view.node(id));
    let in_service = view.members().filter(|n| view.primary != Some(n.id) && n.standing.is_open()).count();
    let cause =
        Cause::of(&view).map_or_else(|| Reason::PrimaryDown.text().to_owned(), |cause| cause.text(true));
    let word = match (leaving, is_ready) {
        (true, _) => "draining",
        (false, true) => "ready",
        (false, false) => "not ready",
    };
    let refusal = shared.shard().doctor.report().evidence(Code::WritesRefused);
    let writes = match refusal {
        _ if !works.writes => format!("no: {cause}"),
        Some(evidence) => format!("refused by the primary: {evidence}"),
        None => "yes".to_owned(),
    };
    let primary = primary.map_or_else(|| "none".to_owned(), Node::name);
    let replicas = view.members().count().saturating_sub(1);
    let stream = report::stream_source(shared, &view);
    let stream = stream.map_or_else(|| "not attached".to_owned(), |name| format!("attached, from {name}"));
    let mut body = format!(
        "{word}\nreads: {}\nwrites: {writes}\nprimary: {primary}\nsecond primary: {}\nreplicas in service: {in_service} of \
         {replicas}\nreplication stream: {stream}\naccess rules: {}\n",
        reads(&works, &cause),
        second_primary(&view),
        access_rules(&view),
    );
    for node in report::view_report(&view, now).nodes {
        if let Some(trouble) = node.trouble() {
            // Writing to a `String` cannot fail.
            let _ = writeln!(body, "node {}: {trouble}", node.node);
        }
    }
    for (node, wanted) in shared.shard().withheld.list(&view) {
        let _ = writeln!(body, "weaker: {node} refuses {}: {}", wanted.name(), wanted.without());
    }
    (is_ready, body)
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
