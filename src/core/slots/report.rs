//! What a node says of its cluster (`CLUSTER NODES`), as words. `wire::cluster` makes them of bytes.

use std::fmt;

use crate::core::address::Address;
use crate::core::slots::hash_slot::{HashSlot, SlotRange};

/// The name that a node has given itself: 40 hexadecimal characters (`CLUSTER_NAMELEN`, cluster.h). It stays when the node
/// becomes a primary or a replica. The IDs of shards look the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName([u8; 40]);

impl NodeName {
    /// Parses 40 hexadecimal characters; `None` for anything else.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let name: [u8; 40] = text.try_into().ok()?;
        name.iter().all(u8::is_ascii_hexdigit).then_some(Self(name))
    }

    /// The 40 characters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a node is, as another one (or itself) says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// There.
    At(Address),
    /// On the host that was asked, at this port: the host is empty (`cluster-preferred-endpoint-type unknown-endpoint`, or
    /// a node that has yet to hear its own address from another one).
    SameHost(u16),
    /// Not known: its host is `?` (a name is preferred, and it has none), or it has no address (`noaddr`).
    Unknown,
}

impl Endpoint {
    /// Where it is reached by somebody who has reached `asked`, the node that has said this.
    pub fn reached(&self, asked: &Address) -> Option<Address> {
        match (self, asked) {
            (Self::At(address), _) => Some(address.clone()),
            (Self::SameHost(port), Address::Tcp { host, .. }) => {
                Some(Address::Tcp { host: host.clone(), port: *port })
            }
            (Self::SameHost(_), Address::Unix(_)) | (Self::Unknown, _) => None,
        }
    }
}

/// All that a node says of its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodesReport {
    /// One line for each node that it knows, itself included.
    pub lines: Vec<NodeLine>,
    /// Whether it would show which of its slots are open: `CLUSTER SLOTS`, which stands in for `NODES`, does not.
    pub shows_open: bool,
}

impl Default for NodesReport {
    fn default() -> Self {
        Self { lines: Vec::new(), shows_open: true }
    }
}

impl NodesReport {
    /// What it says of itself.
    pub fn myself(&self) -> Option<&NodeLine> {
        self.lines.iter().find(|line| line.flags.myself)
    }

    /// What it says of others.
    pub fn others(&self) -> impl Iterator<Item = &NodeLine> {
        self.lines.iter().filter(|line| !line.flags.myself)
    }
}

/// A line of `CLUSTER NODES` (cluster.c, `clusterGenNodeDescription`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeLine {
    /// Its name.
    pub name: NodeName,
    /// Where it serves clients.
    pub endpoint: Endpoint,
    /// The name of its host, where it has announced one (since Redis 7.0).
    pub hostname: Option<String>,
    /// The ID of its shard, where it is told. Redis 7.0 to 8 and Valkey 8 keep it to their own file.
    pub shard_id: Option<NodeName>,
    /// What it is.
    pub flags: NodeFlags,
    /// The primary that it follows, if it is a replica.
    pub master: Option<NodeName>,
    /// When the ping was sent that it owes an answer to, in milliseconds of the wall clock; 0: none is.
    pub ping_sent: u64,
    /// When it answered last, in milliseconds of the wall clock.
    pub pong_received: u64,
    /// The config epoch under which it has its slots; of a replica, that of its primary.
    pub epoch: u64,
    /// `connected`: the one who says this has a link to it.
    pub linked: bool,
    /// The slots that it has.
    pub slots: Vec<SlotRange>,
    /// The slots that it has open; a node says so of itself only.
    pub open: Vec<OpenSlot>,
}

impl NodeLine {
    /// Whether it is a primary that is known by more than an invitation.
    pub fn is_primary(&self) -> bool {
        self.flags.primary && !self.flags.handshake
    }
}

/// What a node is (`clusterNodeFlags`, cluster.c). What is not known is passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct NodeFlags {
    /// `myself`: the one that was asked.
    pub myself: bool,
    /// `master`
    pub primary: bool,
    /// `slave`
    pub replica: bool,
    /// `fail?`: the one that was asked does not reach it.
    pub maybe_failed: bool,
    /// `fail`: most primaries do not reach it.
    pub failed: bool,
    /// `handshake`: invited, and not heard yet. Its name is made up.
    pub handshake: bool,
    /// `noaddr`: nobody knows where it is.
    pub no_address: bool,
    /// `nofailover`: it does not want to be promoted.
    pub no_failover: bool,
}

/// A slot that a node has open: keys may be elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OpenSlot {
    /// Which.
    pub slot: HashSlot,
    /// In which direction.
    pub opening: Opening,
    /// The node at the other end.
    pub peer: NodeName,
}

/// In which direction a slot is open (`CLUSTER SETSLOT`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Opening {
    /// `[slot->-peer]`: keys that are not here any longer are there (`ASK`).
    Migrating,
    /// `[slot-<-peer]`: who says `ASKING` is served.
    Importing,
}
