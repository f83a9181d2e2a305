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

use super::client::Client;
use super::lane::Lane;
use super::limits;

/// What waits to be written on one worker.
#[derive(Debug, Default)]
pub struct Round {
    lanes: RefCell<Vec<Rc<Lane>>>,
    clients: RefCell<Vec<Rc<Client>>>,
    waker: RefCell<Option<Waker>>,
    scheduled: Cell<bool>,
    /// Output buffers that no client is using.
    buffers: RefCell<Vec<BytesMut>>,
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
        self.buffers.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes an empty output buffer back.
    pub fn put_buffer(&self, buffer: BytesMut) {
        let mut buffers = self.buffers.borrow_mut();
        if buffers.len() < limits::BUFFERS_POOLED && (1..=limits::BUFFER_KEPT).contains(&buffer.capacity()) {
            buffers.push(buffer);
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
