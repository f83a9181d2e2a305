//! Tests of the slots: what each sign and each answer does, and a model that goes everywhere.

mod claims;
mod model;

use crate::core::address::Address;
use crate::core::moment::Moment;
use crate::core::slots::{
    Endpoint, HashSlot, NodeFlags, NodeLine, NodeName, NodesReport, OpenSlot, Opening, ShardIndex, SlotRange,
};

fn ms(millis: u64) -> Moment {
    Moment::from_millis(millis)
}

fn slot(number: u16) -> HashSlot {
    HashSlot::new(number).unwrap()
}

fn shard(index: usize) -> ShardIndex {
    ShardIndex::new(index).unwrap()
}

/// The name of the primary of a shard, after so many failovers.
fn name(index: usize, failovers: usize) -> NodeName {
    NodeName::parse(format!("{index:020x}{failovers:020x}").as_bytes()).unwrap()
}

fn line(name: NodeName, epoch: u64, slots: &[(u16, u16)]) -> NodeLine {
    let range = |(first, last): &(u16, u16)| SlotRange::new(slot(*first), slot(*last)).unwrap();
    NodeLine {
        name,
        endpoint: Endpoint::At(Address::tcp("10.0.0.1", 6379)),
        hostname: None,
        shard_id: None,
        flags: NodeFlags { primary: true, ..NodeFlags::default() },
        master: None,
        ping_sent: 0,
        pong_received: 0,
        epoch,
        linked: true,
        slots: slots.iter().map(range).collect(),
        open: Vec::new(),
    }
}

fn replica_of(master: NodeName, name: NodeName) -> NodeLine {
    let flags = NodeFlags { replica: true, ..NodeFlags::default() };
    NodeLine { master: Some(master), flags, ..line(name, 0, &[]) }
}

fn open(number: u16, opening: Opening, peer: NodeName) -> OpenSlot {
    OpenSlot { slot: slot(number), opening, peer }
}

/// What a primary says of itself and of others.
fn report(mut mine: NodeLine, others: &[NodeLine]) -> NodesReport {
    mine.flags.myself = true;
    NodesReport { lines: [&[mine], others].concat(), shows_open: true }
}
