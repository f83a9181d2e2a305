//! Where the last commands of a connection went, for the next ones that are like them
//! ([`crate::proxy::session::routing::fast_path`]).

use crate::core::command::{Arity, CommandId};
use crate::core::nodes::node::NodeId;
use crate::core::policy::PolicyId;
use crate::core::position::Offset;

/// Where the reads of a connection go as long as their keys demand no more than this.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CachedRoute {
    /// Under this policy.
    pub policy: PolicyId,
    /// To this replica.
    pub node: NodeId,
    /// What it has applied.
    pub applied: Offset,
}

/// What was sent last, if another one like it may follow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FastPath {
    pub command: CommandId,
    /// With so many arguments, two at least.
    pub arity: Arity,
    /// In this version of the commands.
    pub version: u32,
    pub node: NodeId,
    /// The key matters.
    pub keyed: bool,
    /// As for reads; `None`: it writes.
    pub read: Option<CachedRoute>,
}
