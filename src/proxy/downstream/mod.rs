//! In which order a client gets its replies, and when it is told to slow down.

pub mod astray;
pub mod channels;
pub mod dealings;
pub mod joint;
pub(crate) mod pace;
pub mod queue;
pub mod replies;
pub mod status;
pub(crate) mod window;
