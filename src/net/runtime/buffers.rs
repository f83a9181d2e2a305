//! Output buffers that nobody is using: connections have one only while something is to be written, so that idle ones
//! cost nothing.

use std::cell::{Cell, RefCell};

use bytes::BytesMut;
use tokio::sync::Notify;

use crate::net::runtime::limits;

/// The buffers of one worker.
#[derive(Debug, Default)]
pub struct Buffers {
    free: RefCell<Vec<BytesMut>>,
    /// Bytes of those that are large.
    large: Cell<usize>,
    /// A large one was given back lately.
    busy: Cell<bool>,
    /// The first large one was given back.
    grown: Notify,
}

impl Buffers {
    /// An empty buffer.
    pub fn take(&self) -> BytesMut {
        let buffer = self.free.borrow_mut().pop().unwrap_or_default();
        if buffer.capacity() > limits::BUFFER_KEPT {
            self.large.set(self.large.get() - buffer.capacity());
        }
        buffer
    }

    /// Takes an empty buffer back. Large ones are kept as long as there is use for them: making one anew for every burst
    /// of large replies costs more than copying them does.
    pub fn put(&self, buffer: BytesMut) {
        let (mut free, capacity) = (self.free.borrow_mut(), buffer.capacity());
        if capacity == 0 || free.len() >= limits::BUFFERS_POOLED {
            return;
        }
        if capacity > limits::BUFFER_KEPT {
            let large = self.large.get() + capacity;
            if large > limits::LARGE_BUFFERS_KEPT {
                return;
            }
            self.large.set(large);
            if !self.busy.replace(true) {
                self.grown.notify_one();
            }
        }
        free.push(buffer);
    }

    /// Drops the large buffers when nobody has used one for a while; runs as long as the worker.
    pub async fn shrink(&self) {
        loop {
            self.grown.notified().await;
            while self.busy.replace(false) {
                tokio::time::sleep(limits::LARGE_BUFFERS_IDLE).await;
            }
            self.free.borrow_mut().retain(|buffer| buffer.capacity() <= limits::BUFFER_KEPT);
            self.large.set(0);
        }
    }
}
