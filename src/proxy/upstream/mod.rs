//! What has been asked of a server, and which reply answers it.

pub(crate) mod key;
pub mod lane;
pub(crate) mod outgoing;
pub(crate) mod pending;
pub(crate) mod phase;
