//! Sockets, tasks and timers. Nothing here compares two offsets: what they mean is decided in `core`.

pub mod runtime;
pub mod socket;
