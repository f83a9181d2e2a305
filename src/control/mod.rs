//! Finds out, and writes what a shard knows: asks every node how it is, follows the replication stream, listens to what replicas say by themselves.

pub mod cluster;
pub mod discovery;
pub mod doctor;
pub mod engine;
pub mod follower;
pub mod keeper;
pub mod members;
pub mod memory;
pub mod primaries;
pub mod prober;
pub mod reload;
pub mod sentinel;
pub mod stamper;
pub mod story;
pub(crate) mod users;
pub mod witness;
