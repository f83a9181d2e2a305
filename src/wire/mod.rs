//! Bytes and words, pure: resumable, bounded, `None` = need more. No I/O, no clock.

pub mod info;
pub mod psync;
pub mod role;
pub mod stream;
