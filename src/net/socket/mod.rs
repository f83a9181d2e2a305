//! Sockets: made, encrypted, read and written, and asked one question after the other.

pub mod call;
pub mod dial;
pub mod halves;
pub mod handed;
pub mod tls;
