//! What servers do not let Redweir do, as managed services do not, and what is weaker for it. It runs all the same; nothing that it
//! cannot prove is promised. For people: nothing is decided by this.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use crate::core::nodes::node::NodeId;
use crate::core::nodes::view::View;

/// A command that Redweir says to the servers by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wanted {
    /// `ROLE`
    Role,
    /// `CONFIG GET`
    Config,
    /// `COMMAND`
    Command,
    /// `CLIENT TRACKING`
    Tracking,
    /// `PSYNC`
    Psync,
    /// `CLUSTER NODES`
    Nodes,
}

impl Wanted {
    /// The command; also the metric label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Role => "role",
            Self::Config => "config|get",
            Self::Command => "command",
            Self::Tracking => "client|tracking",
            Self::Psync => "psync",
            Self::Nodes => "cluster|nodes",
        }
    }

    /// What is done without it, and what that costs.
    pub const fn without(self) -> &'static str {
        match self {
            Self::Role => "INFO replication is asked in its place",
            Self::Config => "whether it wants replicas for writes (min-replicas-to-write) is not known",
            Self::Command => "the commands of Redis 7.0 hold, others go to the primary",
            Self::Tracking => "that it goes back is noticed by polls only",
            Self::Psync => {
                "the replication stream is not followed there; without one, writes of others are not fenced"
            }
            Self::Nodes => {
                "CLUSTER SLOTS is asked, which does not show what moves: its shard is read at the primary"
            }
        }
    }
}

/// What which node refuses.
#[derive(Debug, Default)]
pub struct Withheld {
    refused: Mutex<BTreeSet<(NodeId, Wanted)>>,
}

impl Withheld {
    /// A node has refused it, or has let it be done. True: that is news.
    pub fn note(&self, node: NodeId, wanted: Wanted, refused: bool) -> bool {
        let mut known = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused { known.insert((node, wanted)) } else { known.remove(&(node, wanted)) }
    }

    /// One node lets it be done, which is enough: who else has refused it makes nothing weaker.
    pub fn is_had(&self, wanted: Wanted) {
        let mut known = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(_, refused)| *refused != wanted);
    }

    /// By the names of the nodes that there are.
    pub fn list(&self, view: &View) -> Vec<(String, Wanted)> {
        let known = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().filter_map(|(node, wanted)| Some((view.node(*node)?.name(), *wanted))).collect()
    }
}
