//! Where a lane is in its life, why it ended, and which process is at its other end.

use crate::core::cursor::Tag;
use crate::wire::reply::ErrorCode;

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
    Unreachable(Unreachable),
    /// The node refused the handshake with this error line (without CRLF).
    Refused(Vec<u8>),
    /// The connection broke.
    Broken(Broken),
    /// Replies and requests got out of step.
    Desynchronised(OutOfStep),
    /// The node is not to be used any longer.
    Withdrawn(Withdrawal),
    /// Nobody uses it.
    Idle,
}

impl Closed {
    /// Whether the node said that the credentials are not, or not any longer, good.
    pub(crate) fn is_about_credentials(&self) -> bool {
        let Self::Refused(error) = self else { return false };
        matches!(ErrorCode::of(error), Some(ErrorCode::WrongPass | ErrorCode::NoAuth))
    }
}

/// Why no connection could be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// In the system's words.
    Failed(String),
    /// `connect-timeout` has passed.
    TimedOut,
    /// The node closed the connection during the handshake.
    HungUp,
    /// At its address is another process than the one that was wanted.
    OtherProcess,
    /// It does not say how it is.
    Silent,
}

/// How a connection broke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// In the system's words.
    Failed(String),
    /// The socket takes nothing any longer.
    WroteNothing,
    /// The node closed it.
    HungUp,
    /// The node answered before it had the whole command.
    AnsweredEarly,
    /// Nothing comes on it, while the node answers on other connections.
    Stalled,
}

/// How replies and requests got out of step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutOfStep {
    /// What should be a reply is none.
    NotResp,
    /// There are more replies than commands.
    NotAsked,
    /// A push, which RESP2 does not have.
    PushInResp2,
    /// A push that is longer than any that means something.
    EndlessPush,
    /// The handshake was not answered in RESP.
    HandshakeNotResp,
    /// The handshake was answered at too great length.
    HandshakeTooLong,
    /// There are more replies than commands in the handshake.
    HandshakeNotAsked,
    /// The lane's task panicked: what it had read is lost.
    Panic,
}

impl OutOfStep {
    /// For the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotResp => "a reply is not RESP",
            Self::NotAsked => "a reply nobody asked for",
            Self::PushInResp2 => "a push in RESP2",
            Self::EndlessPush => "a push without end",
            Self::HandshakeNotResp => "the handshake was not answered in RESP",
            Self::HandshakeTooLong => "the handshake was answered at too great length",
            Self::HandshakeNotAsked => "more replies than commands in the handshake",
            Self::Panic => "a panic",
        }
    }
}

/// Why a node is not to be used any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withdrawal {
    /// It is configured no longer.
    Removed,
    /// It is not the primary any longer.
    Demoted,
    /// It does not answer.
    Silent,
    /// By its address another process is known now than the one at the other end.
    Moved,
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

    /// Whether it is another one than `known`, as far as both are known.
    pub fn is_another(self, known: Self) -> bool {
        matches!((self, known), (Self::Tagged(ours), Self::Tagged(theirs)) if ours != theirs)
    }
}
