//! What the story is told of, and in which lines.

use std::time::Duration;

use crate::core::moment::Moment;
use crate::core::nodes::node::{Node, NodeId};
use crate::core::nodes::view::View;

/// How long something must be so before it is told.
pub(super) const TOLD_AFTER: Duration = Duration::from_millis(500);

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    Info(String),
    Warn(String),
    Error(String),
}

/// What is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scene<'a> {
    pub(super) view: &'a View,
    /// Where the replication stream is followed.
    pub(super) source: Option<NodeId>,
    /// Whether it should be.
    pub(super) follows: bool,
    /// Commands that were told `-MASTERDOWN` up to now.
    pub(super) refused: u64,
    /// When it was begun with these nodes.
    pub(super) begun: Moment,
    pub(super) now: Moment,
}

impl<'a> Scene<'a> {
    /// The primary that answers, unless nothing decides between two.
    pub(super) fn primary(&self) -> Option<&'a Node> {
        let node = self.view.primary.and_then(|id| self.view.node(id))?;
        (node.answers() && node.is_primary() && !self.view.two_primaries).then_some(node)
    }
}
