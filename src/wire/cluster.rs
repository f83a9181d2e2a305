//! What a node of a cluster answers about it: `CLUSTER NODES` and `CLUSTER MYID` (cluster.c, `clusterGenNodesDescription`).
//!
//! Slots are read at replicas because of what stands here, so that a line which cannot be read makes the whole answer
//! unreadable: a slot that was passed over because it is open in a new way would look as if it were closed. Flags that
//! are not known, and what is added to addresses, is passed over. Where it is refused, `CLUSTER SLOTS` says the half of it.

mod answer;
pub mod presented;
mod redirection;
mod slots;

use redis_protocol::resp2::types::BytesFrame;

use super::info::Info;
use super::number::integer;
use crate::core::address::Address;
use crate::core::slots::{
    Endpoint, HashSlot, NodeFlags, NodeLine, NodeName, NodesReport, OpenSlot, Opening, SlotRange,
};
pub use answer::{ClusterError, MOST_NODES, my_name};
use answer::{Room, text};
pub use redirection::Redirection;
pub use slots::by_slots;

/// What `CLUSTER NODES` answers.
pub fn nodes(answer: &BytesFrame) -> Result<NodesReport, ClusterError> {
    nodes_of_text(text(answer)?)
}

/// The same, out of its frame.
pub fn nodes_of_text(text: &[u8]) -> Result<NodesReport, ClusterError> {
    let text = std::str::from_utf8(text).map_err(|_| ClusterError::NotText)?;
    let (mut report, mut room) = (NodesReport::default(), Room::default());
    for line in text.lines().filter(|line| !line.is_empty()) {
        if report.lines.len() == MOST_NODES {
            return Err(ClusterError::TooManyNodes);
        }
        report.lines.push(node(line, &mut room)?);
    }
    match report.lines.iter().filter(|line| line.flags.myself).count() {
        1 => Ok(report),
        _ => Err(ClusterError::NotMyself),
    }
}

fn node(line: &str, room: &mut Room) -> Result<NodeLine, ClusterError> {
    let mut words = line.split(' ');
    let mut word = |name: &'static str| words.next().ok_or(ClusterError::Lacks(name));
    let name = name_of(word("id")?, "id")?;
    let place = word("address")?;
    let flags = flags(word("flags")?);
    let master = match word("master")? {
        "-" => None,
        master => Some(name_of(master, "master")?),
    };
    let ping_sent = number(word("ping-sent")?, "ping-sent")?;
    let pong_received = number(word("pong-recv")?, "pong-recv")?;
    let epoch = number(word("config-epoch")?, "config-epoch")?;
    let linked = word("link-state")? == "connected";
    let Place { endpoint, hostname, shard_id } = Place::of(place, flags)?;
    let (mut slots, mut open) = (Vec::new(), Vec::new());
    for word in words.filter(|word| !word.is_empty()) {
        if word.starts_with('[') {
            Room::take(&mut room.open, 1)?;
            open.push(open_slot(word).ok_or(ClusterError::Lacks("open slot"))?);
        } else {
            let range = range(word).ok_or(ClusterError::Lacks("slot"))?;
            Room::take(&mut room.slots, range.count())?;
            slots.push(range);
        }
    }
    Ok(NodeLine {
        name,
        endpoint,
        hostname,
        shard_id,
        flags,
        master,
        ping_sent,
        pong_received,
        epoch,
        linked,
        slots,
        open,
    })
}

/// `ip:port@cport[,hostname[,name=value]…]`
struct Place {
    endpoint: Endpoint,
    hostname: Option<String>,
    shard_id: Option<NodeName>,
}

impl Place {
    fn of(text: &str, flags: NodeFlags) -> Result<Self, ClusterError> {
        let mut parts = text.split(',');
        let address = parts.next().unwrap_or_default();
        // The port of the bus is there since Redis 4.
        let address = address.rsplit_once('@').map_or(address, |(address, _)| address);
        let endpoint = if flags.no_address { Some(Endpoint::Unknown) } else { endpoint(address) };
        let endpoint = match endpoint.ok_or(ClusterError::Lacks("address"))? {
            // Only a node that has not heard its own address yet has none beside its port.
            Endpoint::SameHost(_) if !flags.myself => Endpoint::Unknown,
            endpoint => endpoint,
        };
        let (mut hostname, mut shard_id) = (None, None);
        for part in parts {
            match part.split_once('=') {
                Some(("shard-id", id)) => shard_id = Some(name_of(id, "shard-id")?),
                Some(_) => {}
                None if part.len() <= Info::MOST_TEXT => {
                    hostname = hostname.or_else(|| Some(part.to_owned()).filter(|name| !name.is_empty()));
                }
                None => return Err(ClusterError::Lacks("hostname")),
            }
        }
        Ok(Self { endpoint, hostname, shard_id })
    }
}

/// `host:port`, where a host with colons has no brackets. `None`: it is nothing of the kind.
fn endpoint(text: &str) -> Option<Endpoint> {
    let (host, port) = text.rsplit_once(':')?;
    let port = integer(port.as_bytes()).and_then(|port| u16::try_from(port).ok())?;
    Some(match (host, port) {
        (_, 0) | ("?", _) => Endpoint::Unknown,
        ("", port) => Endpoint::SameHost(port),
        (host, port) if host.len() <= Info::MOST_TEXT => Endpoint::At(Address::announced(host, port)?),
        _ => return None,
    })
}

fn flags(text: &str) -> NodeFlags {
    let has = |flag: &str| text.split(',').any(|word| word == flag);
    NodeFlags {
        myself: has("myself"),
        primary: has("master"),
        replica: has("slave"),
        maybe_failed: has("fail?"),
        failed: has("fail"),
        handshake: has("handshake"),
        no_address: has("noaddr"),
        no_failover: has("nofailover"),
    }
}

/// `93` or `0-5460`
fn range(text: &str) -> Option<SlotRange> {
    match text.split_once('-') {
        Some((first, last)) => SlotRange::new(slot(first)?, slot(last)?),
        None => slot(text).map(SlotRange::from),
    }
}

/// `[77->-name]` or `[93-<-name]`
fn open_slot(text: &str) -> Option<OpenSlot> {
    let text = text.strip_prefix('[')?.strip_suffix(']')?;
    let (number, opening, peer) = match (text.split_once("->-"), text.split_once("-<-")) {
        (Some((number, peer)), None) => (number, Opening::Migrating, peer),
        (None, Some((number, peer))) => (number, Opening::Importing, peer),
        _ => return None,
    };
    Some(OpenSlot { slot: slot(number)?, opening, peer: NodeName::parse(peer.as_bytes())? })
}

fn slot(text: &str) -> Option<HashSlot> {
    integer(text.as_bytes()).and_then(|number| u16::try_from(number).ok()).and_then(HashSlot::new)
}

fn name_of(text: &str, field: &'static str) -> Result<NodeName, ClusterError> {
    NodeName::parse(text.as_bytes()).ok_or(ClusterError::Lacks(field))
}

fn number(text: &str, field: &'static str) -> Result<u64, ClusterError> {
    integer(text.as_bytes()).and_then(|number| u64::try_from(number).ok()).ok_or(ClusterError::Lacks(field))
}

#[cfg(test)]
mod tests;
