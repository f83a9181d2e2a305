//! What a lane may be shared by.

use crate::core::nodes::node::NodeId;
use crate::shard::identity::IdentityId;

/// Protocol version spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Proto {
    /// RESP2
    #[default]
    Resp2,
    /// RESP3
    Resp3,
}

/// What connections may be shared by: everything that a reply depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LaneKey {
    /// The node.
    pub node: NodeId,
    /// As whom commands run.
    pub identity: IdentityId,
    /// The selected database.
    pub db: u32,
    /// The protocol of the replies.
    pub proto: Proto,
    /// What it carries.
    pub purpose: Purpose,
}

/// What must not stand behind one another on a lane.
///
/// While a script runs for too long the server answers everything else with `-BUSY`, and obeys `SCRIPT KILL`, but reads
/// nothing more of the connection that the script came on (`script.c`, `scriptInterrupt`). And while clients are paused,
/// a write that waits holds up what came behind it: the `CLIENT UNPAUSE`, and the `INFO` that would tell
/// (`networking.c`, `pauseActions`).
///
/// Large replies have several lanes. A server writes at most 64 KiB to a connection before it turns to the next
/// (`server.h`, `NET_MAX_WRITES_PER_EVENT`), so that on one connection they cost it twice the work, and a small reply behind
/// them waits for all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Purpose {
    /// Everything else.
    #[default]
    Ordinary,
    /// Everything else, of clients that get large replies: one of [`limits::LARGE_LANES`](crate::net::runtime::limits::LARGE_LANES).
    Large(u8),
    /// `EVAL`, `EVALSHA`, `FCALL`
    Scripts,
    /// `INFO`, `CLIENT`, `CONFIG` and whatever else operates the server.
    Operation,
}
