//! Where a lane is in its life, why it ended, and which process is at its other end.

use crate::core::cursor::Tag;

/// Where a lane is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Connecting, or authenticating. Commands are taken but not sent.
    Opening,
    /// Commands flow.
    Up,
    /// Over, for this reason.
    Closed(Closed),
}

/// Why a lane ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// No connection could be made.
    Unreachable(String),
    /// The node refused the handshake with this error line (without CRLF).
    Refused(Vec<u8>),
    /// The connection broke.
    Broken(String),
    /// Replies and requests got out of step.
    Desynchronised(&'static str),
    /// The node is not to be used any longer.
    Withdrawn(&'static str),
    /// Nobody uses it.
    Idle,
}

/// The process at the other end of a lane. A connection never changes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Process {
    /// Not known yet.
    #[default]
    Unknown,
    /// It does not tell its run ID.
    Unnamed,
    /// The one with this tag.
    Tagged(Tag),
}

impl Process {
    /// The process with this run ID.
    pub fn of(run_id: Option<&str>) -> Self {
        run_id.and_then(Tag::of).map_or(Self::Unnamed, Self::Tagged)
    }
}
