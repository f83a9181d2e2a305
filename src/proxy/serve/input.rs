//! What a client has sent and nobody has looked at yet.

use std::task::{Context, Poll};

use bytes::BytesMut;

use super::WaitEnd;
use crate::net::runtime::limits;
use crate::net::socket::halves::ReadHalf;
use crate::proxy::downstream::replies::Gone;
use crate::proxy::worker::Worker;
use crate::wire::request::{RequestLimits, RequestScanner};

/// The bytes a client has sent and that are not dispatched yet.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) buffer: BytesMut,
    /// Everything before it is dispatched.
    pub(super) at: usize,
    /// Length of the command at `at`, when it is scanned but not dispatched.
    pub(super) current: Option<usize>,
    pub(super) scanner: RequestScanner,
    /// The last read left room: the socket had no more.
    drained: bool,
    /// The client has closed its sending side.
    pub(super) ended: bool,
}

impl Input {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        Self {
            buffer: BytesMut::new(),
            at: 0,
            current: None,
            scanner: RequestScanner::new(RequestLimits::DEFAULT),
            drained: false,
            ended: false,
        }
    }

    pub(super) fn consume(&mut self) {
        if let Some(len) = self.current.take() {
            self.at += len;
        }
    }

    pub(super) fn may_read_ahead(&self) -> bool {
        !self.ended && self.buffer.len() < limits::READ_AHEAD
    }

    pub(super) fn poll(
        &mut self,
        worker: &Worker,
        read: &mut ReadHalf,
        cx: &mut Context<'_>,
    ) -> Poll<WaitEnd> {
        if std::mem::take(&mut self.drained) {
            // All that had come was read. Nearly always nothing more has come since.
            if self.buffer.is_empty() {
                worker.put_buffer(std::mem::take(&mut self.buffer));
            }
            match read.poll_readable(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) => {}
            }
        }
        if self.buffer.capacity() == 0 {
            self.buffer = worker.take_buffer();
        }
        let wanted = self.scanner.wanted().unwrap_or(0).clamp(limits::CLIENT_READ, limits::LANE_READ);
        self.buffer.reserve(wanted);
        match read.poll_read(cx, &mut self.buffer) {
            Poll::Ready(Ok(n)) => {
                self.drained = n > 0 && self.buffer.len() < self.buffer.capacity();
                Poll::Ready(WaitEnd::Input(n))
            }
            Poll::Ready(Err(_)) => Poll::Ready(WaitEnd::Gone(Gone::Left)),
            Poll::Pending => {
                if self.buffer.is_empty() {
                    worker.put_buffer(std::mem::take(&mut self.buffer));
                }
                Poll::Pending
            }
        }
    }
}
