//! Sockets, tasks and timers. Nothing here compares two offsets: what they mean is decided in `core`.

pub(crate) mod client_command;
pub(crate) mod client_list;
pub mod demand;
pub(crate) mod dispatch;
pub mod listener;
pub(crate) mod local;
pub mod runtime;
pub mod say;
pub(crate) mod serve;
pub mod socket;
pub(crate) mod token;
pub mod vocabulary;
pub(crate) mod wait;
