//! Bytes and words, pure: resumable, bounded, `None` = need more. No I/O, no clock.

pub mod absent;
pub mod acl;
pub mod alone;
pub mod answer;
pub mod cluster;
pub mod commands;
pub mod cursor;
pub mod info;
pub mod inline;
pub mod inspect;
pub mod joined;
pub mod number;
pub mod psync;
pub mod pubsub;
pub mod reply;
pub mod request;
pub mod role;
pub mod say;
pub mod sentinel;
pub mod stream;
