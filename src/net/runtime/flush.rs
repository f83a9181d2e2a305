//! The end of a scheduling round: what became dirty while tasks ran is written once.
//!
//! A current-thread runtime polls woken tasks in order. The first thing to become dirty wakes the round's task, which
//! therefore runs after every task that is already in the queue: all sockets that were ready have been read by then.
//! Their commands share one write per lane, and their replies one write per client.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use bytes::BytesMut;
use tokio::sync::Notify;

use crate::net::runtime::limits;
use crate::proxy::downstream::replies::Client;
use crate::proxy::upstream::lane::Lane;

/// What waits to be written on one worker.
#[derive(Debug, Default)]
pub struct Round {
    lanes: RefCell<Vec<Rc<Lane>>>,
    clients: RefCell<Vec<Rc<Client>>>,
    waker: RefCell<Option<Waker>>,
    scheduled: Cell<bool>,
    /// Output buffers that no client is using.
    buffers: RefCell<Vec<BytesMut>>,
    /// Bytes of those that are large.
    large: Cell<usize>,
    /// A large one was given back lately.
    busy: Cell<bool>,
    /// The first large one was given back.
    grown: Notify,
}

impl Round {
    /// The lane has requests to write. The caller keeps it from being added twice.
    pub fn add_lane(&self, lane: Rc<Lane>) {
        self.lanes.borrow_mut().push(lane);
        self.schedule();
    }

    /// The client has replies to write. The caller keeps it from being added twice.
    pub fn add_client(&self, client: Rc<Client>) {
        self.clients.borrow_mut().push(client);
        self.schedule();
    }

    /// An output buffer. Clients have one only while something is to be written, so that idle ones cost nothing.
    pub fn take_buffer(&self) -> BytesMut {
        let buffer = self.buffers.borrow_mut().pop().unwrap_or_default();
        if buffer.capacity() > limits::BUFFER_KEPT {
            self.large.set(self.large.get() - buffer.capacity());
        }
        buffer
    }

    /// Takes an empty output buffer back. Large ones are kept as long as there is use for them: making one anew for
    /// every burst of large replies costs more than copying them does.
    pub fn put_buffer(&self, buffer: BytesMut) {
        let (mut buffers, capacity) = (self.buffers.borrow_mut(), buffer.capacity());
        if capacity == 0 || buffers.len() >= limits::BUFFERS_POOLED {
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
        buffers.push(buffer);
    }

    /// Drops the large buffers when nobody has used one for a while; runs as long as the worker.
    pub async fn shrink(&self) {
        loop {
            self.grown.notified().await;
            while self.busy.replace(false) {
                tokio::time::sleep(limits::LARGE_BUFFERS_IDLE).await;
            }
            self.buffers.borrow_mut().retain(|buffer| buffer.capacity() <= limits::BUFFER_KEPT);
            self.large.set(0);
        }
    }

    fn schedule(&self) {
        if !self.scheduled.replace(true)
            && let Some(waker) = &*self.waker.borrow()
        {
            waker.wake_by_ref();
        }
    }

    /// The round's task; runs as long as the worker.
    pub async fn run(&self) {
        let (mut lanes, mut clients) = (Vec::new(), Vec::new());
        loop {
            poll_fn(|cx| {
                let mut waker = self.waker.borrow_mut();
                if waker.as_ref().is_none_or(|w| !w.will_wake(cx.waker())) {
                    *waker = Some(cx.waker().clone());
                }
                if self.scheduled.replace(false) { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            std::mem::swap(&mut lanes, &mut *self.lanes.borrow_mut());
            std::mem::swap(&mut clients, &mut *self.clients.borrow_mut());
            for lane in lanes.drain(..) {
                lane.flush();
            }
            for client in clients.drain(..) {
                client.flush();
            }
        }
    }
}
