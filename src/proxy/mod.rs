//! Serves clients, by what a shard knows.

pub mod downstream;
pub(crate) mod local;
pub mod serve;
pub mod session;
pub mod upstream;
pub mod worker;
