//! What is told to the keeper of the view.

use std::sync::Arc;
use std::time::Duration;

use crate::core::address::Address;
use crate::core::fence::AnchorSeq;
use crate::core::moment::Moment;
use crate::core::nodes::node::{Facts, Link, NodeId};
use crate::core::nodes::rights::Rules;
use crate::core::nodes::trouble::Problem;
use crate::core::nodes::zones::Zones;
use crate::core::policy::Policies;
use crate::core::position::Offset;

/// What was heard of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation {
    /// `ROLE` answered `master`: an anchor.
    Primary {
        /// Who answered.
        node: NodeId,
        /// The number of the anchor, taken before the question was sent.
        seq: AnchorSeq,
        /// When the question was sent.
        sent_at: Moment,
        /// The head.
        offset: Offset,
    },
    /// `ROLE` answered `slave`.
    Replica {
        /// Who answered.
        node: NodeId,
        /// The state of its link.
        link: Link,
        /// The primary that it follows.
        master: (String, u16),
        /// What it has applied.
        applied: Option<Offset>,
    },
    /// `INFO` answered.
    Info {
        /// Who answered.
        node: NodeId,
        /// What it said.
        facts: Box<Facts>,
    },
    /// It answered that it is busy with a script (`-BUSY`): it lives, and can be told to kill the script.
    Busy {
        /// Who.
        node: NodeId,
    },
    /// It told what its users may do.
    Rules {
        /// Who answered.
        node: NodeId,
        /// What it said.
        rules: Arc<Rules>,
    },
    /// It has told that it has emptied its data: whatever it held, it may be behind that now.
    Emptied {
        /// Who.
        node: NodeId,
    },
    /// It belongs to the shard from now on, in a place that was vacant.
    Joined {
        /// Who.
        node: NodeId,
        /// Where it is.
        address: Address,
    },
    /// It is called the primary by those whose business it is. Whether it is, it has to say itself.
    Named {
        /// Who; `None`: nobody any longer.
        node: Option<NodeId>,
    },
    /// It belongs to the shard no longer, and is not asked any more.
    Left {
        /// Who.
        node: NodeId,
    },
    /// Other policies, limits and zones hold from now on.
    Configured {
        /// Of an edition of their own, unless they are as they were.
        policies: Arc<Policies>,
        /// In time.
        limits: Patience,
        /// Of the proxy and of nodes.
        zones: Arc<Zones>,
    },
    /// What is wrong with it, in words for people: whether it is lost is told besides.
    Troubled {
        /// Who.
        node: NodeId,
        /// What it is.
        problem: Problem,
    },
    /// No answer in time, or the connection was refused, reset or closed: whoever answers next may be another process.
    Lost {
        /// Who.
        node: NodeId,
    },
}

impl Observation {
    /// Whom it is about; `None`: nobody.
    pub const fn node(&self) -> Option<NodeId> {
        match self {
            Self::Primary { node, .. }
            | Self::Replica { node, .. }
            | Self::Info { node, .. }
            | Self::Busy { node }
            | Self::Rules { node, .. }
            | Self::Emptied { node }
            | Self::Joined { node, .. }
            | Self::Left { node }
            | Self::Troubled { node, .. }
            | Self::Lost { node } => Some(*node),
            Self::Named { node } => *node,
            Self::Configured { .. } => None,
        }
    }

    /// Whether the node has answered how it is.
    pub(super) const fn is_answer(&self) -> bool {
        matches!(self, Self::Primary { .. } | Self::Replica { .. } | Self::Info { .. } | Self::Busy { .. })
    }
}

/// Limits in time that the view carries for decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// How long a node may be silent before it is left out.
    pub silence: Duration,
    /// How long the primary may be silent before requests for it are refused.
    pub hold: Duration,
}
