//! How much is asked for at once on a lane of large replies.
//!
//! A node makes every reply that it is asked for, whether its connection takes it or not: what waits there is memory that
//! is written, forgotten by the caches and read again. Of 800 replies of 16 KiB that are outstanding at one server, each
//! takes 13 µs of its time; of 128, 9.6; of 64, 8.8 (`redis-benchmark`, 16 connections). So the rest of the requests
//! waits here.

use crate::net::runtime::limits;

/// What the replies of a lane are like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// Moving average of their length, in bytes.
    reply: usize,
}

impl Window {
    pub(super) fn new() -> Self {
        Self { reply: limits::LARGE_REPLIES }
    }

    /// A reply of so many bytes was read.
    pub(super) fn weigh(&mut self, bytes: usize) {
        self.reply = (self.reply * 7 + bytes) / 8;
    }

    /// How many requests may be outstanding.
    pub(super) fn requests(self) -> usize {
        (limits::LARGE_WINDOW / self.reply.max(1)).max(limits::LARGE_ASKED_AT_LEAST)
    }
}
