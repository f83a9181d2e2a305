//! What a lane that ended still owed.

use bytes::BytesMut;

use super::{Lane, Pending};

/// What is left of a lane that ended, in the order in which it was taken.
#[derive(Debug)]
pub struct Leftover {
    /// The command.
    pub pending: Pending,
    /// Its bytes.
    pub request: BytesMut,
    /// All of it had been written: the node may have executed it.
    pub sent: bool,
    /// The beginning of its reply was passed on: no other reply may follow it.
    pub cut: bool,
}

impl Lane {
    /// Takes out whatever is outstanding.
    pub fn drain(&self) -> Vec<Leftover> {
        let mut inner = self.inner.borrow_mut();
        inner.write = None;
        let (mut buffer, mut sent) = (std::mem::take(&mut inner.buffer), std::mem::take(&mut inner.sent));
        let passed = inner.passing.is_over(&buffer[sent..]);
        let mut left = Vec::with_capacity(inner.pending.len());
        while let Some(pending) = inner.pending.pop_front() {
            let request = buffer.split_to(pending.len.min(buffer.len()));
            let whole = sent >= pending.len && passed;
            sent = sent.saturating_sub(pending.len);
            left.push(Leftover { pending, request, sent: whole, cut: std::mem::take(&mut inner.cut) });
        }
        inner.wake_waiters();
        left
    }
}
