//! Why there is no link to a source.

use std::io;

use crate::net::socket::call::ControlError;
use crate::wire::psync::PsyncError;

/// Why a link ended, or was never made.
#[derive(Debug, thiserror::Error)]
pub enum Detached {
    /// Another source is wanted, or none.
    #[error("another source is wanted")]
    Moved,
    /// The source could not be reached.
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// `AUTH` was refused, or is missing; the source's own words.
    #[error("authentication refused: {0}")]
    Auth(String),
    /// `-NOPERM`: our user may not replicate; the source's own words.
    #[error("no permission to replicate: {0}")]
    NotPermitted(String),
    /// `-LOADING`: it is reading its dataset.
    #[error("the source is loading its dataset")]
    Loading,
    /// A replica without a link to its own primary.
    #[error("the source has no link to its own primary")]
    NoMasterLink,
    /// Another error; the source's own words. Managed services refuse `PSYNC`.
    #[error("refused: {0}")]
    Refused(String),
    /// `INFO replication` names no history or no offset.
    #[error("the source does not tell its replication ID and offset")]
    NoHistory,
    /// It would take a dump, and there was one not long ago.
    #[error("it would take a full resync, and the last one is too recent")]
    Rationed,
    /// What was sent is no replication stream.
    #[error("not a replication stream: {0}")]
    Garbage(String),
    /// The source closed the connection.
    #[error("connection closed")]
    Closed,
    /// Nothing was heard for too long.
    #[error("nothing heard for too long")]
    Silent,
}

impl Detached {
    /// The label in metrics.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Moved => "moved",
            Self::Connect(_) => "connect",
            Self::Timeout => "timeout",
            Self::Auth(_) => "auth",
            Self::NotPermitted(_) => "not_permitted",
            Self::Loading => "loading",
            Self::NoMasterLink => "no_master_link",
            Self::Refused(_) => "refused",
            Self::NoHistory => "no_history",
            Self::Rationed => "rationed",
            Self::Garbage(_) => "garbage",
            Self::Closed => "closed",
            Self::Silent => "silent",
        }
    }

    /// Whether another source would do better. A closed connection is no reason to move: it can be made again, and
    /// a node that is gone is noticed by its prober.
    pub const fn blames_source(&self) -> bool {
        !matches!(self, Self::Moved | Self::Closed)
    }

    /// Whether it is the source's rule not to let our user replicate, rather than its state.
    pub fn is_withheld(&self) -> bool {
        match self {
            Self::NotPermitted(_) => true,
            Self::Refused(text) => text.starts_with("ERR unknown command"),
            _ => false,
        }
    }

    /// From an error reply, without its dash.
    pub(super) fn refusal(text: String) -> Self {
        match text.split(' ').next().unwrap_or_default() {
            "NOAUTH" | "WRONGPASS" => Self::Auth(text),
            "NOPERM" => Self::NotPermitted(text),
            "LOADING" => Self::Loading,
            "NOMASTERLINK" | "MASTERDOWN" => Self::NoMasterLink,
            _ => Self::Refused(text),
        }
    }
}

impl From<ControlError> for Detached {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::Connect(error) => Self::Connect(error),
            ControlError::Timeout => Self::Timeout,
            ControlError::Auth(text) => Self::Auth(text),
            ControlError::Refused(text) => Self::refusal(text),
            ControlError::Closed => Self::Closed,
            ControlError::Malformed(text) => Self::Garbage(text),
        }
    }
}

impl From<PsyncError> for Detached {
    fn from(error: PsyncError) -> Self {
        match error {
            PsyncError::NoMasterLink => Self::NoMasterLink,
            PsyncError::Refused(text) => Self::refusal(text),
            broken => Self::Garbage(broken.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_apart() {
        let kind = |text: &str| Detached::refusal(text.to_owned()).kind();
        assert_eq!(kind("NOPERM this user has no permissions to run the 'psync' command"), "not_permitted");
        assert_eq!(kind("LOADING Redis is loading the dataset in memory"), "loading");
        assert_eq!(kind("MASTERDOWN Link with MASTER is down"), "no_master_link");
        assert_eq!(kind("NOAUTH Authentication required."), "auth");
        assert_eq!(kind("ERR unknown command 'psync'"), "refused");
        assert!(!Detached::Closed.blames_source() && Detached::Silent.blames_source());
    }
}
