//! Hash slots of a Redis Cluster: which shard owns each, and whether its replicas may be asked.
//!
//! **The primary of a shard is an authority for what it says of itself** (the line `myself` of its `CLUSTER NODES`): its
//! slots, the config epoch under which it has them, and its open slots. What it says of others is hearsay: it shows
//! where commands may go, and is a reason to look again, never a reason to trust a replica.
//!
//! **A slot is stable, and only then are replicas read**, once its owner has said so itself, under the highest config
//! epoch that was seen for the slot, in answer to a question that was sent after the last sign of a move; and once
//! everybody who may take part in that move has answered such a question, and has neither named the slot as open nor as its
//! own. Until then it is *moving*, and only primaries are asked: they answer for themselves, and where they can't, they say
//! `MOVED` or `ASK`. An owner that has yet to hear that it is none any longer takes writes that the new one does not have.
//!
//! **Whatever becomes stable is fenced first** ([`Change::needs_floor`]). Each key that was moved was restored at the
//! owner before the owner was asked, so that the head in the answer to the next anchor covers it. That holds of a move
//! that was called off as well: the keys came back, and a replica of the owner may not have heard yet that they were gone.
//!
//! What remains is a move of which nothing has been seen yet. It can make a replica answer that there is no such key, which
//! is asked again at the primary (`wire::absent`); a value that is older than a write which was acknowledged or seen it
//! can't, because the acknowledgement (`ASK`, `MOVED`) or the write itself (in the stream of another shard) is such a sign.

mod about;
mod blocking;
mod change;
mod claims;
mod emptied;
mod floors;
mod hash_slot;
mod holdings;
mod map;
mod motion;
mod report;
mod topology;

pub use about::{About, Expected, Spread, about, spread};
pub use blocking::{TimeLeft, time_left};
pub use change::Change;
pub use claims::{Claims, Rival};
pub use emptied::emptied_slots;
pub use floors::{Floor, SlotFloors};
pub use hash_slot::{HASH_SLOTS, HashSlot, SlotRange};
pub use holdings::{Holding, Holdings, count, in_words};
pub use map::{ShardIndex, SlotMap, SlotPlace, SlotState};
pub use report::{Endpoint, NodeFlags, NodeLine, NodeName, NodesReport, OpenSlot, Opening};
pub use topology::{Members, Topology};

#[cfg(test)]
mod tests;
