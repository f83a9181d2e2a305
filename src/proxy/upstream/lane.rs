//! A lane: one pipelined upstream connection, shared by all clients of a worker that have the same node, identity,
//! database and protocol — or exclusive to one client, for commands that leave state on the connection.
//!
//! Requests are appended to one buffer and stay in it until they are answered, so that a read can be sent again
//! elsewhere without having been copied before. Replies are cut, not parsed, and handed on as they came.
//! Whatever does not add up (a reply nobody asked for, bytes that are no reply) closes the lane: a connection that is
//! out of step must never answer another command.

mod aside;
mod front;
mod leftover;
mod marks;
mod passing;
mod relay;
mod window;

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, BytesMut};

use crate::core::moment::Moment;
use crate::core::position::Offset;
use crate::core::session::Stamps;
use crate::mutant;
use crate::net::runtime::buffer::drop_front;
use crate::net::runtime::flush::{DirtyList, Flush};
use crate::net::runtime::limits;
use crate::net::socket::halves::WriteHalf;
use crate::proxy::downstream::replies::Client;
use crate::proxy::downstream::status::ServerId;
pub use crate::proxy::upstream::key::{LaneKey, Proto, Purpose};
use crate::proxy::upstream::outgoing::Bytes;
use crate::proxy::upstream::pending::{Kind, Pending, Rewrite};
pub use crate::proxy::upstream::phase::{Closed, Phase, Process};
use crate::shard::identity::Identity;
pub use leftover::Leftover;
use passing::Passing;
use relay::Relay;
pub(crate) use relay::Said;
use window::Window;

const ROLE: &[u8] = b"*1\r\n$4\r\nROLE\r\n";

/// Whom the invalidations of `CLIENT TRACKING` go to: `CLIENT ID` here, and at the primary (0 when it has no connection
/// there).
pub(crate) type Redirect = (u64, u64);

/// One upstream connection.
#[derive(Debug)]
pub struct Lane {
    /// What it is shared by.
    pub key: LaneKey,
    /// Only one client uses it.
    pub exclusive: bool,
    /// Who is at the other end.
    pub process: Cell<Process>,
    /// Its node is a replica, which is listened to whether it goes back.
    pub watched: Cell<bool>,
    /// When it was connected.
    pub connected: Cell<Option<Moment>>,
    /// When it was given back, if it is spare.
    pub idle_since: Cell<Moment>,
    /// Who it acts as; `None` for the anonymous identity.
    pub identity: Option<Arc<Identity>>,
    /// Whom `CLIENT TRACKING` redirects to, on an exclusive lane.
    pub redirect: Cell<Option<Redirect>>,
    /// What the node says to its user's `SELECT`, if that is refused: it was done before the user was known.
    pub no_select: OnceCell<Vec<u8>>,
    dirty: Rc<DirtyList<Lane>>,
    /// A command was answered with an error: what state that has left is not known.
    pub tainted: Cell<bool>,
    inner: RefCell<Inner>,
}

#[derive(Debug)]
struct Inner {
    phase: Phase,
    write: Option<WriteHalf>,
    /// Requests, from the oldest unanswered one on.
    buffer: BytesMut,
    /// How much of `buffer` is written.
    sent: usize,
    pending: VecDeque<Pending>,
    dirty: bool,
    blocked: bool,
    /// A `ROLE` is among what the next flush writes.
    asks: bool,
    /// What the last `ROLE` proved that the node has applied.
    proof: Option<Offset>,
    /// Gets every byte that is no reply to a pending command (pushes, pub/sub messages).
    listener: Option<Rc<Client>>,
    /// Its replies are not counted: whatever comes is the listener's.
    relay: Option<Box<Relay>>,
    /// The beginning of the oldest command's reply was passed on.
    cut: bool,
    /// A command that is passed on as it comes.
    passing: Passing,
    /// Of a lane of large replies.
    window: Option<Window>,
    /// How much of `buffer` was offered to the socket, which refused the rest of it: no less may be offered next.
    offered: usize,
    /// `CLIENT ID` at the node, of an exclusive lane; empty once it takes no commands any longer.
    server_id: ServerId,
    /// Ends, for this reason, with the reply that is coming in: nothing more is written.
    retired: Option<&'static str>,
    /// Out of the pool while a long reply is on it.
    aside: bool,
    /// How many times it has left the pool.
    stint: u32,
    /// The lane's own task.
    task: Option<Waker>,
    /// Tasks that wait for room or for the end of the opening.
    waiters: Vec<Waker>,
}

impl Lane {
    /// A lane that has yet to be opened.
    pub fn new(
        key: LaneKey,
        exclusive: bool,
        identity: Option<Arc<Identity>>,
        dirty: Rc<DirtyList<Self>>,
    ) -> Rc<Self> {
        let inner = Inner {
            phase: Phase::Opening,
            write: None,
            buffer: BytesMut::new(),
            sent: 0,
            pending: VecDeque::new(),
            dirty: false,
            blocked: false,
            asks: false,
            proof: None,
            listener: None,
            relay: None,
            cut: false,
            passing: Passing::Nothing,
            window: matches!(key.purpose, Purpose::Large(_)).then(Window::new),
            offered: 0,
            server_id: ServerId::default(),
            retired: None,
            aside: false,
            stint: 0,
            task: None,
            waiters: Vec::new(),
        };
        let (process, connected, idle_since) = (Cell::default(), Cell::default(), Cell::default());
        let (redirect, inner) = (Cell::new(None), RefCell::new(inner));
        Rc::new(Self {
            key,
            exclusive,
            process,
            watched: Cell::new(false),
            connected,
            idle_since,
            identity,
            redirect,
            no_select: OnceCell::new(),
            dirty,
            tainted: Cell::new(false),
            inner,
        })
    }

    /// Takes a command. It is written at the end of the round.
    pub fn push(self: &Rc<Self>, request: Bytes<'_>, pending: Pending) {
        match request {
            Bytes::Request(request) if request.is_partial() => self.push_beginning(request, pending),
            Bytes::Request(request) => self.push_with(pending, |buffer| request.encode_into(buffer)),
            Bytes::Own(bytes) => self.push_bytes(bytes, pending),
        }
    }

    /// Puts a `ROLE` before whatever is taken next, unless this round has one already.
    pub fn ask(self: &Rc<Self>, pending: impl FnOnce() -> Pending) {
        let asked = std::mem::replace(&mut self.inner.borrow_mut().asks, true);
        if !asked {
            self.push_bytes(ROLE, pending());
        }
    }

    /// `ROLE` was answered.
    pub fn prove(&self, proof: Option<Offset>) {
        self.inner.borrow_mut().proof = proof;
    }

    /// Takes a command whose bytes are at hand.
    pub fn push_bytes(self: &Rc<Self>, request: &[u8], pending: Pending) {
        self.push_with(pending, |buffer| buffer.extend_from_slice(request));
    }

    fn push_with(self: &Rc<Self>, mut pending: Pending, encode: impl FnOnce(&mut BytesMut)) {
        let mut inner = self.inner.borrow_mut();
        let before = inner.buffer.len();
        encode(&mut inner.buffer);
        pending.len = inner.buffer.len() - before;
        inner.pending.push_back(pending);
        self.mark_dirty(inner);
    }

    fn mark_dirty(self: &Rc<Self>, mut inner: std::cell::RefMut<'_, Inner>) {
        if !inner.dirty && !inner.blocked && inner.phase == Phase::Up {
            inner.dirty = true;
            drop(inner);
            self.dirty.add(Rc::clone(self));
        }
    }

    /// The connection is made: what was taken meanwhile goes out.
    pub fn open(self: &Rc<Self>, write: WriteHalf) {
        let mut inner = self.inner.borrow_mut();
        if inner.phase != Phase::Opening {
            // Nobody wants it any longer: its client has left meanwhile.
            return;
        }
        inner.write = Some(write);
        inner.phase = Phase::Up;
        inner.wake_waiters();
        drop(inner);
        self.flush();
    }

    /// To be polled by the lane's own task: remembers its waker, continues a blocked write, tells whether to end.
    pub fn poll(&self, cx: &mut Context<'_>) -> Option<Closed> {
        let mut inner = self.inner.borrow_mut();
        if inner.task.as_ref().is_none_or(|w| !w.will_wake(cx.waker())) {
            inner.task = Some(cx.waker().clone());
        }
        while inner.blocked && inner.phase == Phase::Up {
            let Some(write) = &inner.write else { break };
            match write.poll_writable(cx) {
                Poll::Pending => break,
                Poll::Ready(Err(e)) => inner.end(Closed::Broken(e.to_string())),
                Poll::Ready(Ok(())) => {
                    inner.blocked = false;
                    inner.flush();
                }
            }
        }
        match &inner.phase {
            Phase::Closed(why) => Some(why.clone()),
            _ => None,
        }
    }

    /// Ends the lane; its task hands back what is left.
    pub fn close(&self, why: Closed) {
        let mut inner = self.inner.borrow_mut();
        if !matches!(inner.phase, Phase::Closed(_)) {
            inner.end(why);
        }
        inner.wake_waiters();
        if let Some(task) = &inner.task {
            task.wake_by_ref();
        }
    }

    /// Where it is in its life.
    pub fn phase(&self) -> Phase {
        self.inner.borrow().phase.clone()
    }

    /// Whether it takes commands.
    pub fn is_usable(&self) -> bool {
        self.inner.borrow().is_usable()
    }

    /// The node has told what it calls this connection.
    pub fn identify(&self, id: Option<u64>) {
        let inner = self.inner.borrow();
        if inner.is_usable() {
            inner.server_id.set(id);
        }
    }

    /// What the node calls this connection, as long as it takes commands.
    pub fn server_id(&self) -> ServerId {
        Rc::clone(&self.inner.borrow().server_id)
    }

    /// Whether it may take more from clients. Whoever finds it full is woken when there is room, through `waker`.
    pub fn has_room(&self) -> bool {
        let inner = self.inner.borrow();
        inner.pending.len() < limits::LANE_PENDING
            && inner.buffer.len() < limits::LANE_BYTES
            && inner.relay.as_ref().is_none_or(|relay| relay.has_room())
    }

    /// Wakes `waker` when there is room again, when the lane is open, or when it ended.
    pub fn wake_on_change(&self, waker: &Waker) {
        let mut inner = self.inner.borrow_mut();
        if !inner.waiters.iter().any(|w| w.will_wake(waker)) {
            inner.waiters.push(waker.clone());
        }
    }

    /// Nothing is outstanding.
    pub fn is_idle(&self) -> bool {
        self.inner.borrow().pending.is_empty()
    }

    /// Whether the node refused the handshake: nothing was ever sent on it.
    pub fn was_refused(&self) -> bool {
        matches!(self.inner.borrow().phase, Phase::Closed(Closed::Refused(_)))
    }

    /// The oldest command is answered. Its bytes are returned, to be sent again, if `again` says so: of it, of its bytes,
    /// and of what the last `ROLE` proved.
    pub fn pop(
        &self,
        again: impl FnOnce(&Pending, &[u8], Option<Offset>) -> bool,
    ) -> Option<(Pending, Option<BytesMut>)> {
        let mut inner = self.inner.borrow_mut();
        if inner.pending.front()?.len > inner.sent {
            // Nobody has asked for it yet.
            return None;
        }
        let pending = inner.take_front()?;
        inner.cut = false;
        inner.end_passing();
        inner.sent = inner.sent.checked_sub(pending.len)?;
        inner.offered = inner.offered.saturating_sub(pending.len);
        let bytes = inner.buffer.get(..pending.len).unwrap_or_default();
        let request = if again(&pending, bytes, inner.proof) {
            Some(inner.buffer.split_to(pending.len))
        } else {
            drop_front(&mut inner.buffer, pending.len);
            None
        };
        if !inner.waiters.is_empty() && inner.pending.len() < limits::LANE_PENDING / 2 {
            inner.wake_waiters();
        }
        Some((pending, request))
    }

    /// Gives back a buffer that a burst has blown up.
    pub fn shrink(&self) {
        let mut inner = self.inner.borrow_mut();
        if inner.buffer.is_empty() && inner.buffer.capacity() > limits::BUFFER_KEPT * 4 {
            inner.buffer = BytesMut::new();
        }
    }
}

impl Flush for Lane {
    /// Writes what the socket takes; the rest goes out when it is writable again.
    fn flush(&self) {
        let mut inner = self.inner.borrow_mut();
        (inner.dirty, inner.asks) = (false, false);
        inner.flush();
    }
}

impl Inner {
    fn take_front(&mut self) -> Option<Pending> {
        let mut front = self.pending.pop_front()?;
        while mutant::is("tombstone-skipped")
            && matches!(front.kind, Kind::Read | Kind::Write)
            && front.client.gone().is_some()
            && self.pending.front().is_some()
        {
            self.sent -= front.len;
            self.buffer.advance(front.len);
            front = self.pending.pop_front()?;
        }
        Some(front)
    }

    fn flush(&mut self) {
        if self.phase != Phase::Up {
            return;
        }
        self.write_out();
        self.let_passed_go();
        self.end_when_written();
    }

    fn write_out(&mut self) {
        let Some(write) = &self.write else { return };
        let end = self.window_end();
        while self.sent < end {
            match write.try_write(&self.buffer[self.sent..end]) {
                Ok(0) => return self.broken("wrote nothing"),
                Ok(n) => self.sent += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    (self.blocked, self.offered) = (true, end);
                    if let Some(task) = &self.task {
                        task.wake_by_ref();
                    }
                    return;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return self.broken(&e.to_string()),
            }
        }
        if self.relay.is_some() && self.pending.is_empty() {
            // Raw bytes have no entry that would release them when it is answered.
            self.buffer.clear();
            self.sent = 0;
            self.wake_waiters();
        }
    }

    fn is_usable(&self) -> bool {
        !self.aside && self.retired.is_none() && !matches!(self.phase, Phase::Closed(_))
    }

    fn end(&mut self, why: Closed) {
        self.phase = Phase::Closed(why);
        self.server_id.set(None);
    }

    fn broken(&mut self, why: &str) {
        self.end(Closed::Broken(why.to_owned()));
        if let Some(task) = &self.task {
            task.wake_by_ref();
        }
    }

    fn wake_waiters(&mut self) {
        for waiter in self.waiters.drain(..) {
            waiter.wake();
        }
    }
}
