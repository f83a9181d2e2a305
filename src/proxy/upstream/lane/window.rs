//! How much is asked for at once on a lane of large replies.
//!
//! A node makes every reply that it is asked for, whether its connection takes it or not: what waits there is memory that
//! is written, forgotten by the caches and read again. Of 800 replies of 16 KiB that are outstanding at one server, each
//! takes 13 µs of its time; of 128, 9.6; of 64, 8.8 (`redis-benchmark`, 16 connections). So the rest of the requests
//! waits here.

use std::rc::Rc;

use super::{Inner, Lane, Purpose};
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

    /// How many requests may be outstanding.
    fn requests(self) -> usize {
        (limits::LARGE_WINDOW / self.reply.max(1)).max(limits::LARGE_ASKED_AT_LEAST)
    }
}

impl Lane {
    /// A reply of so many bytes was read.
    pub fn weigh(&self, bytes: usize) {
        if !self.is_of_large_replies() {
            return;
        }
        if let Some(window) = &mut self.inner.borrow_mut().window {
            window.reply = (window.reply * 7 + bytes) / 8;
        }
    }

    /// Something was answered: what has waited for that is written at the end of the round.
    pub fn ask_on(self: &Rc<Self>) {
        if !self.is_of_large_replies() {
            return;
        }
        let inner = self.inner.borrow_mut();
        if inner.sent < inner.window_end() {
            self.mark_dirty(inner);
        }
    }

    fn is_of_large_replies(&self) -> bool {
        matches!(self.key.purpose, Purpose::Large(_))
    }
}

impl Inner {
    /// How much of the buffer may be written. What a socket was offered it is offered again, even if the window is
    /// smaller now: TLS may have encrypted it.
    pub(super) fn window_end(&self) -> usize {
        if self.retired.is_some() {
            return self.offered.min(self.buffer.len());
        }
        let Some(window) = self.window else { return self.buffer.len() };
        let requests = window.requests();
        if requests >= self.pending.len() {
            return self.buffer.len();
        }
        let wanted: usize = self.pending.iter().take(requests).map(|pending| pending.len).sum();
        wanted.max(self.offered).min(self.buffer.len())
    }
}
