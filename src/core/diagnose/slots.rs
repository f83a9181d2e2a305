//! What of a cluster's hash slots is not as it should be: some are nobody's, two claim the same, a move has come to a stop, a shard
//! has nobody to take over.

use std::time::Duration;

use crate::core::diagnose::code::{Code, Severity};
use crate::core::diagnose::finding::{Finding, place, seconds};
use crate::core::diagnose::scene::Scene;
use crate::core::diagnose::seen::{Look, SlotsSeen};
use crate::core::slots::{SlotRange, count, in_words};

/// What is about no node, but about all.
pub const CLUSTER: &str = "cluster";

/// A slot that is to move is left alone for so long after the last key has moved.
pub const STUCK_AFTER: Duration = Duration::from_mins(1);

/// How long it takes at most to hear of all shards, and whose the slots of a shard are that has gone.
const COVERED_WITHIN: Duration = Duration::from_secs(3);
/// Two primaries that hear each other have different epochs by then.
const AGREED_WITHIN: Duration = Duration::from_secs(5);
/// A shard may be without a replica for so long: one that was moved there has to be heard of.
const REPLICA_WITHIN: Duration = Duration::from_secs(10);
/// Ranges of slots that are named.
const RANGES: usize = 8;

pub(super) fn rules(scene: &Scene<'_>, found: &mut Vec<Finding>) {
    let Some(slots) = &scene.now.slots else { return };
    found.extend(not_covered(scene, slots));
    let Some(primary) = scene.expected_primary().map(|seen| seen.node.as_str()) else { return };
    found.extend(rivals(scene, slots, primary));
    found.extend(stuck(scene, slots, primary));
    found.extend(alone(scene, slots, primary));
}

fn not_covered(scene: &Scene<'_>, slots: &SlotsSeen) -> Option<Finding> {
    // While many move, another one may be nobody's for a moment in each look.
    let meets = |range: &SlotRange| {
        slots.uncovered.iter().any(|now| now.first() <= range.last() && range.first() <= now.last())
    };
    let is_so = |look: &Look| look.slots.as_ref().is_some_and(|then| then.uncovered.iter().any(meets));
    let lasts = lasting(scene, COVERED_WITHIN, is_so)?;
    let evidence = format!(
        "no primary that answers says that {} its own, and none has been heard to",
        these(&slots.uncovered)
    );
    let remedy = match scene.expected_primary() {
        Some(seen) => format!(
            "start the node that has them, or a replica of it; if it is gone for good, `{}` gives them to others, without their keys",
            fix(scene, &seen.node)
        ),
        None => "start the nodes of the cluster, or correct [upstream.cluster] addresses".to_owned(),
    };
    Some(Finding::new(Code::SlotNotCovered, Severity::Error, CLUSTER, evidence, remedy).lasting(lasts))
}

fn rivals(scene: &Scene<'_>, slots: &SlotsSeen, primary: &str) -> Option<Finding> {
    let is_so = |look: &Look| look.slots.as_ref().is_some_and(|slots| !slots.rivals.is_empty());
    let lasts = lasting(scene, AGREED_WITHIN, is_so)?;
    let told: Vec<String> = slots
        .rivals
        .iter()
        .map(|rival| {
            format!("{} says under epoch {} that {} its own", rival.holder, rival.epoch, these(&rival.slots))
        })
        .collect();
    let evidence = format!("{}, and so does {primary}", told.join("; "));
    let remedy = format!(
        "the two do not hear each other: restore the path between their cluster buses (`{0} CLUSTER NODES` tells whom it reaches), \
         then one of them takes another epoch by itself; else `{0} CLUSTER BUMPEPOCH` at the one that shall have them. Until then \
         what is written to the other is lost",
        scene.context.cli(primary)
    );
    Some(Finding::new(Code::EpochConflict, Severity::Error, primary, evidence, remedy).lasting(lasts))
}

fn stuck(scene: &Scene<'_>, slots: &SlotsSeen, primary: &str) -> Option<Finding> {
    // Who does not answer is told of by itself.
    let answers = |node: &str| scene.now.node(node).is_none_or(|seen| seen.problem.is_none());
    let stuck: Vec<_> = slots
        .stuck
        .iter()
        .filter(|stuck| stuck.nodes.iter().all(|node| answers(node)) && answers(primary))
        .collect();
    let lasts = stuck.iter().map(|stuck| stuck.lasts).max()?;
    let ranges: Vec<SlotRange> = stuck.iter().map(|stuck| stuck.slot.into()).collect();
    let mut nodes: Vec<&str> =
        stuck.iter().flat_map(|stuck| stuck.nodes.iter().map(String::as_str)).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let (severity, since) = if scene.context.goes_on {
        (Severity::Warning, format!(" for {}, and no key does", seconds(lasts)))
    } else {
        // One look does not tell.
        (Severity::Info, String::new())
    };
    let evidence = format!(
        "{} open (CLUSTER SETSLOT … MIGRATING, IMPORTING){since}; who takes part: {}",
        these(&ranges),
        nodes.join(", ")
    );
    let remedy = format!(
        "let the move that is under way finish; if there is none any longer, `{}` finishes it, or `CLUSTER SETSLOT … STABLE` at each of \
         these nodes calls it off. Until then only primaries are asked for these slots",
        fix(scene, primary)
    );
    Some(Finding::new(Code::OpenSlot, severity, primary, evidence, remedy).lasting(lasts))
}

fn alone(scene: &Scene<'_>, slots: &SlotsSeen, primary: &str) -> Option<Finding> {
    let is_so = |look: &Look| look.slots.as_ref().is_some_and(|slots| slots.owned > 0 && slots.replicas == 0);
    let lasts = lasting(scene, REPLICA_WITHIN, is_so)?;
    let evidence = format!(
        "CLUSTER NODES names no replica of {primary}, which has {} slots: it answers all reads of these, and with it they are gone",
        slots.owned
    );
    let remedy = format!(
        "add one: `redis-cli --cluster add-node HOST:PORT {primary} --cluster-slave`, or at a replica of another shard \
         `CLUSTER REPLICATE` with what `{} CLUSTER MYID` says",
        scene.context.cli(primary)
    );
    Some(Finding::new(Code::ShardWithoutReplica, Severity::Warning, primary, evidence, remedy).lasting(lasts))
}

/// For how long it has been so, if that is long enough to be told, or if it will not be looked at again.
fn lasting(scene: &Scene<'_>, least: Duration, is_so: impl Fn(&Look) -> bool) -> Option<Duration> {
    if !is_so(scene.now) {
        return None;
    }
    let lasts = scene.lasting(is_so);
    (lasts >= least || !scene.context.goes_on).then_some(lasts)
}

/// Slots in words, as a subject with its verb.
fn these(ranges: &[SlotRange]) -> String {
    match (count(ranges), in_words(ranges, RANGES)) {
        (1, one) => format!("slot {one} is"),
        (_, all) => format!("slots {all} are"),
    }
}

/// What mends slots, by way of this node.
fn fix(scene: &Scene<'_>, node: &str) -> String {
    let tls = if scene.context.tls { " --tls" } else { "" };
    match place(node) {
        Some((host, port)) => format!("redis-cli{tls} --cluster fix {host}:{port}"),
        None => format!("redis-cli{tls} --cluster fix {node}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::diagnose::seen::{RivalSeen, Seen, StuckSlot};
    use crate::core::diagnose::{Context, diagnose};
    use crate::core::moment::Moment;
    use crate::core::slots::HashSlot;

    fn range(first: u16, last: u16) -> SlotRange {
        SlotRange::new(HashSlot::new(first).unwrap(), HashSlot::new(last).unwrap()).unwrap()
    }

    fn healthy() -> SlotsSeen {
        SlotsSeen { owned: 5461, replicas: 1, ..SlotsSeen::default() }
    }

    /// What is found of these slots by looks at so many seconds.
    fn found(slots: &SlotsSeen, goes_on: bool, seconds: &[u64]) -> Vec<(Code, Severity, String, String)> {
        let looks: Vec<Look> = seconds
            .iter()
            .map(|second| Look {
                at: Moment::from_millis(second * 1000),
                nodes: vec![Seen { node: "a:1".to_owned(), ..Seen::default() }],
                slots: Some(slots.clone()),
                ..Look::default()
            })
            .collect();
        let followed = Some(("a:1".to_owned(), "it says so"));
        let context = Context { followed, goes_on, ..Context::default() };
        let found = diagnose(&looks, &[], &context);
        found.into_iter().map(|one| (one.code, one.severity, one.node, one.evidence)).collect()
    }

    #[test]
    fn slots_that_are_in_order_are_not_told_of() {
        assert_eq!(found(&healthy(), true, &[0, 60]), []);
        assert_eq!(found(&healthy(), false, &[0]), []);
        let no_slots = SlotsSeen { owned: 0, replicas: 0, ..healthy() };
        assert_eq!(found(&no_slots, true, &[0, 60]), [], "a newcomer needs no replica");
    }

    #[test]
    fn what_lasts_is_told_of_and_what_is_over_at_once_is_not() {
        let uncovered = SlotsSeen { uncovered: vec![range(0, 99), range(7000, 7000)], ..healthy() };
        let rivals = vec![RivalSeen { slots: vec![range(7, 7)], holder: "b:2".to_owned(), epoch: 5 }];
        let rivals = SlotsSeen { rivals, ..healthy() };
        let alone = SlotsSeen { replicas: 0, ..healthy() };
        for (slots, code, severity, node, text) in [
            (&uncovered, Code::SlotNotCovered, Severity::Error, CLUSTER, "slots 0-99,7000 are"),
            (
                &rivals,
                Code::EpochConflict,
                Severity::Error,
                "a:1",
                "b:2 says under epoch 5 that slot 7 is its own",
            ),
            (
                &alone,
                Code::ShardWithoutReplica,
                Severity::Warning,
                "a:1",
                "no replica of a:1, which has 5461 slots",
            ),
        ] {
            assert_eq!(found(slots, true, &[0, 2]), [], "{code:?}");
            for (goes_on, seconds) in [(true, &[0, 5, 11][..]), (false, &[0])] {
                let all = found(slots, goes_on, seconds);
                let [one] = all.as_slice() else { panic!("{all:?}") };
                assert_eq!((one.0, one.1, one.2.as_str()), (code, severity, node));
                assert!(one.3.contains(text), "{}", one.3);
            }
        }
    }

    #[test]
    fn a_move_that_stands_still_is_told_of_with_its_nodes() {
        let stuck = |number, other: &str| StuckSlot {
            slot: HashSlot::new(number).unwrap(),
            nodes: vec!["a:1".to_owned(), other.to_owned()],
            lasts: Duration::from_secs(75),
        };
        let slots = SlotsSeen { stuck: vec![stuck(7, "b:2"), stuck(8, "c:3")], ..healthy() };
        let (code, severity, node, evidence) = found(&slots, true, &[0]).remove(0);
        assert_eq!((code, severity, node.as_str()), (Code::OpenSlot, Severity::Warning, "a:1"));
        assert!(evidence.contains("slots 7,8 are open"), "{evidence}");
        assert!(evidence.contains("for 75 s, and no key does; who takes part: a:1, b:2, c:3"), "{evidence}");
        assert_eq!(found(&slots, false, &[0])[0].1, Severity::Info, "it may be under way");
    }
}
