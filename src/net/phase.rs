//! Where a lane is in its life, and why it ended.

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
