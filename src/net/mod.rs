//! Sockets, tasks and timers. Nothing here compares two offsets: what they mean is decided in `core`.

pub(crate) mod beaten;
pub(crate) mod client_command;
pub(crate) mod client_list;
pub mod connection;
pub mod demand;
pub(crate) mod dispatch;
pub(crate) mod leave;
pub mod listener;
pub(crate) mod local;
pub(crate) mod long;
pub(crate) mod own_lane;
pub(crate) mod pin;
pub(crate) mod read;
pub(crate) mod relayed;
pub mod runtime;
pub mod say;
pub(crate) mod scan;
pub(crate) mod send;
pub(crate) mod serve;
pub mod socket;
pub(crate) mod token;
pub(crate) mod tracking;
pub mod vocabulary;
pub(crate) mod wait;
