//! Serves clients, by what a shard knows.

pub mod downstream;
pub mod session;
pub mod upstream;
pub mod worker;
