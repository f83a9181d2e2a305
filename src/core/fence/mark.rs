//! What a fence says.

use super::AnchorSeq;
use crate::core::position::Offset;

/// What a slot says, or what else a read demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// No write is known.
    Clear,
    /// The last write ended at or before this offset.
    At(Offset),
    /// The last write's offset is bounded by the first resolved anchor with this number or a higher one.
    Pending(AnchorSeq),
}

impl Mark {
    /// What it is once `anchor` has answered `head`.
    #[must_use]
    pub fn settled(self, anchor: AnchorSeq, head: Offset) -> Self {
        match self {
            Self::Pending(waits_for) if waits_for <= anchor => Self::At(head),
            other => other,
        }
    }

    /// Whether a replica that has applied `applied` fulfils it.
    pub fn is_met_by(self, applied: Offset) -> bool {
        match self {
            Self::Clear => true,
            Self::At(offset) => offset <= applied,
            Self::Pending(_) => false,
        }
    }

    /// Nothing, if the stream has passed it: then the fences of the keys say the same, one by one.
    #[must_use]
    pub fn unless_passed(self, passed: Option<Offset>) -> Self {
        match (self, passed) {
            (Self::At(offset), Some(passed)) if offset <= passed => Self::Clear,
            (other, _) => other,
        }
    }
}
