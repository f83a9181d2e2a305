//! A command that is passed on as it comes, on an exclusive lane: its bytes are let go once they are written, so that
//! the lane holds a part of it at most, however long it is. Nothing else is outstanding meanwhile.
//!
//! Until its last byte is written the connection is worth nothing to anybody else. The node has no reason to answer
//! before; if it does (it calls the command a protocol error), the answer is passed on and the lane ends.

/// How far a command that is passed on as it comes has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) enum Streaming {
    /// There is none.
    #[default]
    Nothing,
    /// Some of it has yet to come from the client.
    Open,
    /// All of it is in the buffer, or written.
    Complete,
}

impl Streaming {
    /// Whether the node may have executed what was taken, as far as this is about it; so many bytes are not written.
    pub(super) fn is_over(self, unsent: usize) -> bool {
        match self {
            Self::Nothing => true,
            Self::Open => false,
            Self::Complete => unsent == 0,
        }
    }
}
