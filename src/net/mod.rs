//! Sockets, tasks and timers. Nothing here compares two offsets: what they mean is decided in `core`.

pub mod demand;
pub(crate) mod dispatch;
pub mod listener;
pub mod runtime;
pub mod say;
pub(crate) mod serve;
pub mod socket;
pub mod vocabulary;
