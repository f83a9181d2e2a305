//! The connection under a lane: where it is in its life, what has been asked on it, and what its socket has taken of that.
//!
//! Whoever changes it says when to flush; it never flushes itself. So that all requests of a round share one write.

mod waiters;
mod window;

use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;

use crate::net::runtime::limits;
use crate::net::socket::halves::WriteHalf;
use crate::proxy::downstream::status::ServerId;
use crate::proxy::upstream::load::InFlight;
use crate::proxy::upstream::pending::Pending;
use crate::proxy::upstream::phase::{Broken, Closed, Phase, Withdrawal};
use crate::proxy::upstream::queue::{Leftover, RequestQueue};
use waiters::Waiters;
use window::Window;

/// One connection to a server.
#[derive(Debug)]
pub(super) struct LaneConnection {
    phase: Phase,
    write: Option<WriteHalf>,
    queue: RequestQueue,
    /// The socket takes nothing for now.
    blocked: bool,
    /// Of a lane of large replies.
    window: Option<Window>,
    /// `CLIENT ID` at the node, of an exclusive lane; empty once it takes no commands any longer.
    server_id: ServerId,
    /// Ends, for this reason, with the reply that is coming in: nothing more is written.
    retired: Option<Withdrawal>,
    /// Replies are not counted, so that none releases what was written.
    uncounted: bool,
    /// Ends when what was taken is written.
    finishing: bool,
    waiters: Waiters,
}

impl LaneConnection {
    /// One that has yet to be opened; of `large` replies few are asked for at once.
    pub(super) fn new(large: bool, in_flight: InFlight) -> Self {
        Self {
            phase: Phase::Opening,
            write: None,
            queue: RequestQueue::new(in_flight),
            blocked: false,
            window: large.then(Window::new),
            server_id: ServerId::default(),
            retired: None,
            uncounted: false,
            finishing: false,
            waiters: Waiters::default(),
        }
    }

    /// What has been asked on it.
    #[inline]
    pub(super) fn queue(&self) -> &RequestQueue {
        &self.queue
    }

    /// What has been asked on it, to ask for more.
    #[inline]
    pub(super) fn queue_mut(&mut self) -> &mut RequestQueue {
        &mut self.queue
    }

    /// Where it is in its life.
    pub(super) fn phase(&self) -> &Phase {
        &self.phase
    }

    /// Whether a flush would write something of what is taken now.
    #[inline]
    pub(super) fn is_writable(&self) -> bool {
        !self.blocked && self.phase == Phase::Up
    }

    /// Whether it takes commands.
    #[inline]
    pub(super) fn is_usable(&self) -> bool {
        self.retired.is_none() && !matches!(self.phase, Phase::Closed(_))
    }

    /// Whether it may take more from clients.
    #[inline]
    pub(super) fn has_room(&self) -> bool {
        self.queue.len() < limits::LANE_PENDING && self.queue.bytes() < limits::LANE_BYTES
    }

    /// The connection is made. False if nobody wants it any longer: its client has left meanwhile.
    pub(super) fn open(&mut self, write: WriteHalf) -> bool {
        if self.phase != Phase::Opening {
            return false;
        }
        self.write = Some(write);
        self.phase = Phase::Up;
        self.waiters.wake();
        true
    }

    /// The node has told what it calls this connection.
    pub(super) fn identify(&self, id: Option<u64>) {
        if self.is_usable() {
            self.server_id.set(id);
        }
    }

    /// What the node calls this connection, as long as it takes commands.
    pub(super) fn server_id(&self) -> ServerId {
        Rc::clone(&self.server_id)
    }

    /// It ends with the reply that is coming in.
    pub(super) fn retire(&mut self, why: Withdrawal) {
        self.retired = Some(why);
        self.server_id.set(None);
    }

    /// Why it ends with the reply that is coming in, if it does.
    pub(super) fn retired(&self) -> Option<Withdrawal> {
        self.retired
    }

    /// From now on replies are not counted.
    pub(super) fn stop_counting(&mut self) {
        self.uncounted = true;
    }

    /// It ends when what was taken is written: then the node is told that no more will come.
    pub(super) fn finish(&mut self) {
        self.finishing = true;
        self.end_when_written();
    }

    /// Whether it ends when what was taken is written.
    pub(super) fn is_finishing(&self) -> bool {
        self.finishing
    }

    /// It ends; whoever waits for it is told.
    pub(super) fn close(&mut self, why: Closed) {
        if !matches!(self.phase, Phase::Closed(_)) {
            self.end(why);
        }
        // At once, not when the lane's task has its turn: what other clients say from now on reaches the server after this.
        if let Some(write) = self.write.take() {
            write.end();
        }
        self.waiters.wake();
        self.waiters.wake_task();
    }

    /// `waker` is woken when there is room again, when it is open, or when it ended.
    pub(super) fn wake_on_change(&mut self, waker: &Waker) {
        self.waiters.add(waker);
    }

    /// Whoever waits for it looks again.
    pub(super) fn wake(&mut self) {
        self.waiters.wake();
    }

    /// To be polled by the lane's own task: remembers its waker, continues a blocked write, tells whether to end.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Option<Closed> {
        self.waiters.set_task(cx.waker());
        while self.blocked && self.phase == Phase::Up {
            let Some(write) = &self.write else { break };
            match write.poll_writable(cx) {
                Poll::Pending => break,
                Poll::Ready(Err(e)) => self.end(Closed::Broken(Broken::Failed(e.to_string()))),
                Poll::Ready(Ok(())) => {
                    self.blocked = false;
                    self.flush();
                }
            }
        }
        match &self.phase {
            Phase::Closed(why) => Some(why.clone()),
            _ => None,
        }
    }

    /// See [`RequestQueue::pop`].
    #[allow(clippy::inline_always, reason = "measured: 3 % of the instructions of a small command")]
    #[inline(always)]
    pub(super) fn pop(
        &mut self,
        again: impl FnOnce(&Pending, &[u8]) -> bool,
    ) -> Option<(Pending, Option<BytesMut>)> {
        // Returned as it is: moving it costs as much as all the rest.
        let popped = self.queue.pop(again);
        if self.queue.is_streaming() && popped.is_some() {
            self.end_streaming();
        }
        if !self.waiters.is_empty() && self.queue.len() < limits::LANE_PENDING / 2 {
            self.waiters.wake();
        }
        popped
    }

    /// The command that was passed on as it came is answered.
    fn end_streaming(&mut self) {
        if !self.queue.is_streamed() && self.phase == Phase::Up {
            self.broken(Broken::AnsweredEarly);
            self.waiters.wake();
        }
        if self.phase == Phase::Up {
            self.queue.end_streaming();
        }
    }

    /// Takes out whatever is outstanding: it has ended.
    pub(super) fn drain(&mut self) -> Vec<Leftover> {
        self.write = None;
        let left = self.queue.drain();
        self.waiters.wake();
        left
    }

    /// A reply of so many bytes was read.
    pub(super) fn weigh(&mut self, bytes: usize) {
        if let Some(window) = &mut self.window {
            window.weigh(bytes);
        }
    }

    /// Whether there is something that may be written now.
    pub(super) fn has_unsent(&self) -> bool {
        !self.queue.unsent_to(self.end_of_asked()).is_empty()
    }

    /// Writes what the socket takes; the rest goes out when it is writable again.
    pub(super) fn flush(&mut self) {
        if self.phase != Phase::Up {
            return;
        }
        self.write_out();
        if self.queue.release_streamed() {
            self.waiters.wake();
        }
        self.end_when_written();
    }

    fn write_out(&mut self) {
        let end = self.end_of_asked();
        let Some(write) = &self.write else { return };
        loop {
            let unsent = self.queue.unsent_to(end);
            if unsent.is_empty() {
                break;
            }
            match write.try_write(unsent) {
                Ok(0) => return self.broken(Broken::WroteNothing),
                Ok(n) => self.queue.wrote(n),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.blocked = true;
                    self.queue.refused(end);
                    return self.waiters.wake_task();
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return self.broken(Broken::Failed(e.to_string())),
            }
        }
        if self.uncounted && self.queue.release_uncounted() {
            self.waiters.wake();
        }
    }

    /// Up to where the requests may be written.
    #[inline]
    fn end_of_asked(&self) -> usize {
        if self.retired.is_some() {
            return self.queue.offered();
        }
        self.queue.writable(self.window.map(Window::requests))
    }

    /// Tells the node that no more will come, once it has all that was taken.
    fn end_when_written(&mut self) {
        if self.finishing
            && self.phase == Phase::Up
            && self.queue.unsent() == 0
            && let Some(write) = self.write.take()
        {
            write.end();
        }
    }

    fn end(&mut self, why: Closed) {
        self.phase = Phase::Closed(why);
        self.server_id.set(None);
    }

    fn broken(&mut self, why: Broken) {
        self.end(Closed::Broken(why));
        self.waiters.wake_task();
    }
}
