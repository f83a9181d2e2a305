//! Sockets, tasks and timers. Nothing here compares two offsets: what they mean is decided in `core`.

pub mod clock;
pub mod control;
pub mod dial;
pub mod follower;
pub mod jitter;
pub mod task;
