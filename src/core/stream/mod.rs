//! What is known of the replication stream: where it is read, from where it goes on, what it covers, and what a failover lost.

pub mod coverage;
pub mod lost;
pub mod resume;
pub mod source;
