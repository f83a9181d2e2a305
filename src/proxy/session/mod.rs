//! Who a client is, what it has written and seen, and where its command goes.

pub mod connection;
pub(crate) mod fast_path;
pub(crate) mod leave;
pub(crate) mod order;
pub(crate) mod oversized;
pub(crate) mod pinned;
pub(crate) mod plan;
pub(crate) mod read;
pub(crate) mod relayed;
pub(crate) mod scan;
pub(crate) mod send;
pub(crate) mod tracking;
