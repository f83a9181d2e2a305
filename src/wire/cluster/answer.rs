//! What all answers about a cluster have in common: text, names, what is wrong with them, and how much there may be.

use redis_protocol::resp2::types::BytesFrame;

use crate::core::slots::{HASH_SLOTS, NodeName};

/// Nodes of a cluster that are looked at, at most: as many as Redis recommends.
pub const MOST_NODES: usize = 1000;

/// Why an answer says nothing. The node is at fault, or something that poses as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// It is no text.
    #[error("the answer is no text")]
    NotText,
    /// A field is missing, or nothing that it can be.
    #[error("the answer lacks `{0}`")]
    Lacks(&'static str),
    /// No line, or more than one, is about the node itself.
    #[error("there is not one line that is `myself`")]
    NotMyself,
    /// More than [`MOST_NODES`].
    #[error("there are more than {MOST_NODES} nodes")]
    TooManyNodes,
    /// More slots than there are, so that some are told twice.
    #[error("there are more than {HASH_SLOTS} slots")]
    TooManySlots,
}

/// What `CLUSTER MYID` answers.
pub fn my_name(answer: &BytesFrame) -> Result<NodeName, ClusterError> {
    NodeName::parse(text(answer)?).ok_or(ClusterError::Lacks("id"))
}

/// How many more there may be in the whole answer: a node knows one owner of each slot, and opens each in one direction.
pub(super) struct Room {
    pub(super) slots: usize,
    pub(super) open: usize,
}

impl Default for Room {
    fn default() -> Self {
        Self { slots: usize::from(HASH_SLOTS), open: usize::from(HASH_SLOTS) }
    }
}

impl Room {
    pub(super) fn take(left: &mut usize, count: usize) -> Result<(), ClusterError> {
        *left = left.checked_sub(count).ok_or(ClusterError::TooManySlots)?;
        Ok(())
    }
}

pub(super) fn text(frame: &BytesFrame) -> Result<&[u8], ClusterError> {
    match frame {
        BytesFrame::BulkString(bytes) | BytesFrame::SimpleString(bytes) => Ok(bytes),
        _ => Err(ClusterError::NotText),
    }
}
