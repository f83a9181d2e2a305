//! Who a client is, what it has written and seen, and where its command goes.

pub mod connection;
pub mod exclusive;
pub(crate) mod lanes;
pub(crate) mod oversized;
pub(crate) mod plan;
pub(crate) mod read;
pub(crate) mod rights;
pub(crate) mod routing;
pub(crate) mod scan;
pub(crate) mod send;
pub mod step;
pub mod waiting;
pub mod who;
