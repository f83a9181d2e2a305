//! What the doctor sees of the hash slots of a shard: what is known of them already, of which nobody is asked anew.

use crate::core::diagnose::seen::{RivalSeen, SlotsSeen, StuckSlot};
use crate::core::diagnose::slots::STUCK_AFTER;
use crate::core::moment::Moment;
use crate::core::nodes::node::Node;
use crate::core::slots::ShardIndex;
use crate::shard::cluster::Cluster;
use crate::shard::overall;
use crate::shard::shared::Shared;

/// The slots of a shard at `now`; `None`: there is no cluster.
pub(super) fn slots(shared: &Shared, now: Moment) -> Option<SlotsSeen> {
    let cluster = shared.cluster()?;
    let (index, view) = (shared.index(), shared.shard().view.load());
    let (holdings, stuck, rivals) = {
        let claims = cluster.claims();
        (claims.holdings(), claims.stuck(index, STUCK_AFTER, now), claims.rivals(index))
    };
    let stuck = stuck.into_iter().map(|(slot, shards, lasts)| StuckSlot {
        slot,
        nodes: shards.into_iter().filter_map(|shard| primary(cluster, shard)).collect(),
        lasts,
    });
    let rivals = rivals.into_iter().map(|rival| RivalSeen {
        slots: rival.slots,
        holder: primary(cluster, rival.holder).unwrap_or_else(|| "another primary".to_owned()),
        epoch: rival.epoch,
    });
    // Those that nobody has are told of once.
    let uncovered = if overall::speaks_for_all(shared) { holdings.unowned.clone() } else { Vec::new() };
    Some(SlotsSeen {
        owned: holdings.shard(index).count(),
        replicas: view.members().filter(|node| view.primary != Some(node.id)).count(),
        uncovered,
        stuck: stuck.collect(),
        rivals: rivals.collect(),
    })
}

fn primary(cluster: &Cluster, shard: ShardIndex) -> Option<String> {
    let shared = cluster.shard(shard)?;
    let view = shared.shard().view.load();
    view.primary.and_then(|id| view.node(id)).map(Node::name)
}
