//! A connection of its own: what a client that needs one may do on it, and what it has left there.

pub(crate) mod pin;
pub(crate) mod pinned;
pub(crate) mod relayed;
pub(crate) mod reply_mode;
pub(crate) mod tracking;
