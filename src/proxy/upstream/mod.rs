//! What has been asked of a server, and which reply answers it.

mod connection;
pub(crate) mod key;
pub mod lane;
pub mod load;
pub(crate) mod outgoing;
pub mod pending;
pub(crate) mod phase;
pub mod queue;
mod relay;
