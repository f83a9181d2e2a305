//! One client as the lanes see it: replies go in by sequence number, bytes come out in the client's order.
//!
//! A pipeline may go to several nodes, whose replies arrive in any order. Each command takes a slot; the reply of the
//! oldest open slot goes straight into the output buffer, any other is kept until its turn. A client that has left
//! stays in the lanes' queues as a tombstone: its replies are read and dropped, never given to anyone else.

mod pace;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, BytesMut};

use crate::core::session::Session;
use crate::net::runtime::buffers::Buffers;
use crate::net::runtime::flush::{DirtyList, Flush};
use crate::net::runtime::limits;
use crate::net::socket::halves::WriteHalf;
use crate::proxy::downstream::status::Presence;

/// The shared part of a client connection.
#[derive(Debug)]
pub struct Client {
    /// As `CLIENT ID` tells it.
    pub id: u64,
    /// What the connection has written and seen.
    pub session: RefCell<Session>,
    /// What others may ask about it.
    pub presence: Presence,
    write: WriteHalf,
    output: Output,
    output_limit: usize,
    inner: RefCell<Inner>,
}

/// How the output of a worker's clients is written.
#[derive(Clone, Debug)]
pub struct Output {
    /// Those that have something to write.
    pub dirty: Rc<DirtyList<Client>>,
    /// Where output is collected.
    pub buffers: Rc<Buffers>,
}

#[derive(Debug, Default)]
struct Inner {
    out: BytesMut,
    slots: VecDeque<Slot>,
    /// Sequence number of the first slot.
    head: u64,
    /// Bytes kept in slots.
    kept: usize,
    dirty: bool,
    blocked: bool,
    gone: Option<Gone>,
    /// To be disconnected once everything is written.
    ending: bool,
    /// The client's own task waits for room, for the drained or for the flushed state.
    waits: bool,
    /// The client's own task.
    task: Option<Waker>,
    /// Moving average of what it is given at once, in bytes; 0 as long as that is little.
    weight: usize,
    /// It gets large replies, lately.
    large: bool,
    /// Bytes written, ever.
    taken: u64,
    /// Lanes that wait until the output is shorter.
    paused_lanes: Vec<Waker>,
}

/// A command's place in the client's order.
#[derive(Debug)]
enum Slot {
    /// Its reply has not begun, or is going out as the head.
    Open,
    /// Its reply, or the beginning of it, that came before its turn. Boxed, so that the many that are open are small.
    Kept(Box<Kept>),
}

#[derive(Debug)]
struct Kept {
    bytes: BytesMut,
    complete: bool,
}

/// Why a client is no longer there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// It closed, or its connection broke.
    Left,
    /// It did not read, and its output passed `client-output-buffer-limit`.
    TooSlow,
    /// Redweir ended the connection.
    Ended,
}

impl Client {
    /// A client that writes through `write`.
    pub fn new(id: u64, write: WriteHalf, output: Output, output_limit: usize) -> Rc<Self> {
        let (inner, session, presence) = (RefCell::default(), RefCell::default(), Presence::default());
        Rc::new(Self { id, session, presence, write, output, output_limit, inner })
    }

    /// Gets the replies that nobody else gets.
    pub fn nobody(output: Output) -> Rc<Self> {
        let client = Self::new(0, WriteHalf::nowhere(), output, 0);
        client.leave(Gone::Ended);
        client
    }

    /// Opens the next slot and returns its sequence number.
    pub fn open(&self) -> u64 {
        let mut inner = self.inner.borrow_mut();
        inner.slots.push_back(Slot::Open);
        if inner.slots.len() == limits::CLIENT_PENDING {
            // Its input is no longer read: whoever waits for it to read its replies may wait in vain.
            inner.wake_lanes();
        }
        inner.head + inner.slots.len() as u64 - 1
    }

    /// Takes the reply of slot `seq`, or a part of it; `complete` with the last part. True when much waits to be
    /// written, so that a lane had better ask [`Client::should_pause`] before it reads on.
    pub fn deliver(self: &Rc<Self>, seq: u64, bytes: &[u8], complete: bool) -> bool {
        let mut inner = self.inner.borrow_mut();
        if inner.gone.is_some() {
            return false;
        }
        if inner.out.capacity() == 0 {
            inner.out = self.output.buffers.take();
        }
        inner.deliver(seq, bytes, complete);
        if bytes.len() > limits::SMALL_REPLY || inner.weight > 0 {
            inner.weigh(bytes.len());
        }
        let waiting = inner.out.len() + inner.kept;
        if waiting > self.output_limit {
            drop(inner);
            self.leave(Gone::TooSlow);
            return false;
        }
        self.mark_dirty(inner);
        waiting > limits::LANE_PAUSE
    }

    /// Answers the command that is just being read, after all those before it.
    pub fn answer(self: &Rc<Self>, reply: &[u8]) {
        let seq = self.open();
        self.deliver(seq, reply, true);
    }

    /// Bytes that belong to no slot: pushes on an exclusive lane.
    pub fn push_raw(self: &Rc<Self>, bytes: &[u8]) {
        let mut inner = self.inner.borrow_mut();
        if inner.gone.is_some() {
            return;
        }
        inner.out.extend_from_slice(bytes);
        if inner.out.len() > self.output_limit {
            drop(inner);
            self.leave(Gone::TooSlow);
            return;
        }
        self.mark_dirty(inner);
    }

    fn mark_dirty(self: &Rc<Self>, mut inner: std::cell::RefMut<'_, Inner>) {
        if !inner.dirty && !inner.blocked && !inner.out.is_empty() {
            inner.dirty = true;
            drop(inner);
            self.output.dirty.add(Rc::clone(self));
        } else if inner.waits && inner.out.is_empty() {
            // Nothing is to be written, so no flush will look after whoever waits for the drained state.
            inner.wake_task();
        }
    }

    /// To be polled by the client's own task: remembers its waker, continues a blocked write, tells whether the
    /// client is gone.
    pub fn poll(&self, cx: &mut Context<'_>) -> Option<Gone> {
        let mut inner = self.inner.borrow_mut();
        if inner.task.as_ref().is_none_or(|w| !w.will_wake(cx.waker())) {
            inner.task = Some(cx.waker().clone());
        }
        while inner.blocked && inner.gone.is_none() {
            match self.write.poll_writable(cx) {
                Poll::Pending => break,
                Poll::Ready(Err(_)) => inner.gone = Some(Gone::Left),
                Poll::Ready(Ok(())) => {
                    inner.blocked = false;
                    drop(inner);
                    self.flush();
                    inner = self.inner.borrow_mut();
                }
            }
        }
        inner.gone
    }

    /// The client is gone; what is still delivered to it is dropped.
    pub fn leave(&self, why: Gone) {
        drop_as(self.inner.borrow_mut(), why);
    }

    /// Disconnects the client once what it has been told is written.
    pub fn end(self: &Rc<Self>) {
        let mut inner = self.inner.borrow_mut();
        inner.ending = true;
        if !inner.dirty && !inner.blocked && inner.gone.is_none() {
            inner.dirty = true;
            drop(inner);
            self.output.dirty.add(Rc::clone(self));
        }
    }

    /// Wakes the client's own task.
    pub fn wake(&self) {
        self.inner.borrow().wake_task();
    }

    /// Why the client is gone, if it is.
    pub fn gone(&self) -> Option<Gone> {
        self.inner.borrow().gone
    }

    /// Sequence number of the slot that [`Client::open`] would open.
    pub fn next(&self) -> u64 {
        let inner = self.inner.borrow();
        inner.head + inner.slots.len() as u64
    }

    /// [`Self::next`] and [`Self::oldest`].
    pub fn next_and_oldest(&self) -> (u64, u64) {
        let inner = self.inner.borrow();
        (inner.head + inner.slots.len() as u64, inner.head)
    }

    /// Sequence number of the oldest command that is not answered yet.
    pub fn oldest(&self) -> u64 {
        self.inner.borrow().head
    }

    /// No command is outstanding.
    pub fn is_drained(&self) -> bool {
        self.inner.borrow().slots.is_empty()
    }

    /// Whether it gets large replies, lately.
    pub fn gets_large_replies(&self) -> bool {
        self.inner.borrow().large
    }

    /// No command is outstanding and every byte is written.
    pub fn is_flushed(&self) -> bool {
        let inner = self.inner.borrow();
        inner.slots.is_empty() && inner.out.is_empty()
    }

    /// The client's own task starts or stops waiting for room, for the drained or for the flushed state: only then
    /// is it woken by deliveries.
    pub fn set_waits(&self, waits: bool) {
        self.inner.borrow_mut().waits = waits;
    }
}

impl Flush for Client {
    /// Writes what the socket takes; the rest goes out when it is writable again.
    fn flush(&self) {
        let mut inner = self.inner.borrow_mut();
        inner.dirty = false;
        if inner.gone.is_some() {
            return;
        }
        while !inner.out.is_empty() {
            match self.write.try_write(&inner.out) {
                Ok(0) => return drop_as(inner, Gone::Left),
                Ok(n) => {
                    inner.taken += n as u64;
                    if n == inner.out.len() { inner.out.clear() } else { inner.out.advance(n) }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    inner.blocked = true;
                    break;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return drop_as(inner, Gone::Left),
            }
        }
        if inner.ending && inner.out.is_empty() {
            return drop_as(inner, Gone::Ended);
        }
        if inner.out.is_empty() {
            self.output.buffers.put(std::mem::take(&mut inner.out));
            if inner.slots.is_empty()
                && (inner.slots.capacity() > limits::SLOTS_KEPT || self.session.borrow().is_roomy())
            {
                inner.slots = VecDeque::new();
                self.session.borrow_mut().rest();
            }
        }
        inner.after_write();
    }
}

impl Inner {
    fn deliver(&mut self, seq: u64, bytes: &[u8], complete: bool) {
        let Some(index) = seq.checked_sub(self.head) else { return };
        if index == 0 {
            self.out.extend_from_slice(bytes);
            if complete {
                self.advance_head();
            }
            return;
        }
        let Some(slot) = self.slots.get_mut(index as usize) else { return };
        self.kept += bytes.len();
        match slot {
            Slot::Open => *slot = Slot::Kept(Box::new(Kept { bytes: BytesMut::from(bytes), complete })),
            Slot::Kept(kept) => {
                kept.bytes.extend_from_slice(bytes);
                kept.complete = complete;
            }
        }
    }

    /// Most clients get small replies, and never come here.
    fn weigh(&mut self, bytes: usize) {
        self.weight = (self.weight * 7 + bytes) / 8;
        // Two thresholds, so that nobody moves to and fro.
        if self.weight > limits::LARGE_REPLIES {
            self.large = true;
        } else if self.weight < limits::SMALL_REPLY {
            (self.large, self.weight) = (false, 0);
        }
    }

    /// The head is complete: it and every complete one behind it go out.
    fn advance_head(&mut self) {
        self.slots.pop_front();
        self.head += 1;
        if !self.paused_lanes.is_empty() {
            // One of them may have the next reply.
            self.wake_lanes();
        }
        while let Some(Slot::Kept(kept)) = self.slots.front_mut() {
            self.out.extend_from_slice(&kept.bytes);
            self.kept -= kept.bytes.len();
            if !kept.complete {
                self.slots[0] = Slot::Open;
                return;
            }
            self.slots.pop_front();
            self.head += 1;
        }
    }

    /// After a write: gives a large buffer back, and wakes whoever waits for room.
    fn after_write(&mut self) {
        if self.out.len() < limits::LANE_PAUSE / 2 {
            self.wake_lanes();
        }
        if self.blocked || self.waits {
            self.wake_task();
        }
    }

    fn wake_lanes(&mut self) {
        for lane in self.paused_lanes.drain(..) {
            lane.wake();
        }
    }

    fn wake_task(&self) {
        if let Some(task) = &self.task {
            task.wake_by_ref();
        }
    }
}

fn drop_as(mut inner: std::cell::RefMut<'_, Inner>, why: Gone) {
    inner.gone.get_or_insert(why);
    inner.out = BytesMut::new();
    inner.slots.clear();
    inner.kept = 0;
    inner.wake_lanes();
    inner.wake_task();
}
