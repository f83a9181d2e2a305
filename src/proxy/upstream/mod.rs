//! What has been asked of a server, and which reply answers it.

pub mod at_hand;
mod connection;
pub(crate) mod hearing;
pub(crate) mod key;
pub mod lane;
pub mod load;
pub(crate) mod outgoing;
pub mod pending;
pub(crate) mod phase;
pub mod queue;
mod relay;
