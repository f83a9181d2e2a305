//! In which order a client gets its replies, and when it is told to slow down.

pub mod replies;
pub mod status;
