//! What is known of one primary and its replicas, shared by those who find it out and those who serve clients by it.

pub mod attention;
pub mod emptied;
pub mod identity;
pub mod mailbox;
pub mod report;
pub mod shared;
pub(crate) mod snapshot;
