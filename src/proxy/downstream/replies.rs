//! One client as the lanes see it: replies go in by sequence number, bytes come out in the client's order
//! ([`crate::proxy::downstream::queue`]) and are written to its socket. A client that has left stays in the lanes' queues
//! as a tombstone: its replies are read and dropped, never given to anyone else.

use std::cell::{RefCell, RefMut};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;

use crate::core::moment::Moment;
use crate::core::session::Session;
use crate::core::slots::ShardIndex;
use crate::mutant;
use crate::net::runtime::budget::Budget;
use crate::net::runtime::buffers::Buffers;
use crate::net::runtime::clock;
use crate::net::runtime::flush::{DirtyList, Flush};
use crate::net::runtime::limits;
use crate::net::socket::halves::WriteHalf;
use crate::proxy::downstream::dealings::{AllDealings, Dealings};
use crate::proxy::downstream::joint::{Combine, Joined, Joints};
use crate::proxy::downstream::pace::{Allowance, Pace};
use crate::proxy::downstream::queue::ReplyQueue;
use crate::proxy::downstream::status::Status;

/// The shared part of a client connection.
#[derive(Debug)]
pub struct Client {
    /// As `CLIENT ID` tells it.
    pub id: u64,
    /// What others may ask about it.
    pub status: Status,
    dealings: AllDealings,
    write: WriteHalf,
    output: Output,
    output_limit: usize,
    inner: RefCell<ClientState>,
}

/// How the output of a worker's clients is written.
#[derive(Clone, Debug)]
pub struct Output {
    /// Those that have something to write.
    pub dirty: Rc<DirtyList<Client>>,
    /// Where output is collected.
    pub buffers: Rc<Buffers>,
    /// What may wait for clients whose sockets take nothing, in all.
    pub budget: Arc<Budget>,
    /// Their replies come from several shards, one behind the other: they are gathered for a moment.
    pub gathers: bool,
}

#[derive(Debug, Default)]
struct ClientState {
    queue: ReplyQueue,
    pace: Pace,
    /// Commands that were asked in parts.
    joints: Option<Box<Joints>>,
    /// Bytes that those keep.
    joined: usize,
    dirty: bool,
    /// It waits a round for more replies.
    gathering: bool,
    blocked: bool,
    /// Of what it has yet to take, what counts in the budget of all.
    held: usize,
    /// It waits for room and takes nothing, since then, as if it read nothing before it has said everything: it may say
    /// more.
    stalled: Option<Moment>,
    gone: Option<Gone>,
    /// To be disconnected once everything is written.
    ending: bool,
    /// The client's own task waits for room, for the drained or for the flushed state.
    waits: bool,
    /// The client's own task.
    task: Option<Waker>,
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
        let (inner, dealings, status) = (RefCell::default(), AllDealings::default(), Status::default());
        Rc::new(Self { id, status, dealings, write, output, output_limit, inner })
    }

    /// What it has with a shard.
    #[inline]
    pub fn with(&self, shard: ShardIndex) -> &Dealings {
        self.dealings.with(shard)
    }

    /// What it has written and seen at a shard.
    #[inline]
    pub fn session(&self, shard: ShardIndex) -> &RefCell<Session> {
        &self.dealings.with(shard).session
    }

    /// What it has with each shard that it has anything with.
    pub fn with_all(&self) -> impl Iterator<Item = (ShardIndex, &Dealings)> {
        self.dealings.all()
    }

    /// The client that receives replies whose requester has left, and drops them: the drain.
    pub fn drain(output: Output) -> Rc<Self> {
        let client = Self::new(0, WriteHalf::nowhere(), output, 0);
        client.leave(Gone::Ended);
        client
    }

    /// Opens the next slot and returns its sequence number.
    #[inline]
    pub fn open(&self) -> u64 {
        let mut inner = self.inner.borrow_mut();
        let seq = inner.queue.open();
        if inner.queue.outstanding() == limits::CLIENT_PENDING {
            // Its input is no longer read: whoever waits for it to read its replies may wait in vain.
            inner.pace.wake_lanes();
        }
        seq
    }

    /// Takes the reply of slot `seq`, or a part of it; `complete` with the last part. True when much waits to be
    /// written, so that a lane had better ask [`Client::should_pause`] before it reads on.
    pub fn deliver(self: &Rc<Self>, seq: u64, bytes: &[u8], complete: bool) -> bool {
        let inner = self.inner.borrow_mut();
        if inner.gone.is_some() {
            return false;
        }
        if inner.joints.is_some() {
            return self.deliver_joined(inner, seq, bytes, complete);
        }
        self.hand_over(inner, seq, bytes, complete)
    }

    /// The same, if the reply may be that of a part.
    #[cold]
    fn deliver_joined(
        self: &Rc<Self>,
        mut inner: RefMut<'_, ClientState>,
        seq: u64,
        bytes: &[u8],
        complete: bool,
    ) -> bool {
        let Some(joints) = &mut inner.joints else { return false };
        let is_last = joints.is_last(seq);
        let Some(joined) = joints.take(seq, bytes, complete) else {
            return self.hand_on(inner, seq, bytes, complete);
        };
        let held = joints.held();
        if joints.is_empty() {
            inner.joints = None;
        }
        inner.joined = held;
        inner.pace.gives(bytes.len(), complete);
        if inner.waiting() > self.output_limit {
            drop(inner);
            self.leave(Gone::TooSlow);
            return false;
        }
        match joined {
            Joined::Nothing if complete && !is_last => {
                self.settle(inner, seq, b"");
                false
            }
            // Nothing of it goes out before the others are there: no lane waits for that, for it may have to bring them.
            Joined::Nothing => false,
            Joined::Whole(last, whole) => {
                if seq != last {
                    self.settle(inner, seq, b"");
                    return self.settle(self.inner.borrow_mut(), last, &whole);
                }
                self.settle(inner, last, &whole)
            }
            Joined::Broken => {
                drop(inner);
                self.leave(Gone::Ended);
                false
            }
        }
    }

    /// The slots from the next one on are those of so many parts of one command.
    pub fn expect_parts(&self, parts: usize, combine: Combine) {
        let mut inner = self.inner.borrow_mut();
        let next = inner.queue.next();
        inner.joints.get_or_insert_default().expect(next, parts, combine);
    }

    /// They are not: the command was not sent.
    pub fn expect_no_parts(&self) {
        let mut inner = self.inner.borrow_mut();
        if let Some(joints) = &mut inner.joints {
            joints.forget_last();
            if joints.is_empty() {
                inner.joints = None;
            }
        }
    }

    /// A part is answered, or, with the last, all of them: what has come was weighed as it came.
    fn settle(self: &Rc<Self>, mut inner: RefMut<'_, ClientState>, seq: u64, bytes: &[u8]) -> bool {
        if inner.queue.deliver(seq, bytes, true) {
            inner.pace.wake_lanes();
        }
        let waiting = inner.waiting();
        self.mark_dirty(inner);
        waiting > limits::LANE_PAUSE
    }

    #[cold]
    fn hand_on(
        self: &Rc<Self>,
        inner: RefMut<'_, ClientState>,
        seq: u64,
        bytes: &[u8],
        complete: bool,
    ) -> bool {
        self.hand_over(inner, seq, bytes, complete)
    }

    #[allow(clippy::inline_always, reason = "measured: 2 % of the instructions of a small command")]
    #[inline(always)]
    fn hand_over(
        self: &Rc<Self>,
        mut inner: RefMut<'_, ClientState>,
        seq: u64,
        bytes: &[u8],
        complete: bool,
    ) -> bool {
        if inner.queue.needs_buffer() {
            inner.queue.exchange_buffer(self.output.buffers.take());
        }
        if inner.queue.deliver(seq, bytes, complete) {
            // A lane that waits may have the next reply.
            inner.pace.wake_lanes();
        }
        inner.pace.gives(bytes.len(), complete);
        let waiting = inner.waiting();
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
        inner.queue.push_raw(bytes);
        if inner.queue.output_len() > self.output_limit {
            drop(inner);
            self.leave(Gone::TooSlow);
            return;
        }
        self.mark_dirty(inner);
    }

    /// Whether so much may be kept for it that it cannot have yet.
    pub fn may_hold(&self, bytes: usize) -> bool {
        bytes <= self.output_limit
    }

    /// What it is subscribed to has lost its server: its task asks for it anew, at once or after a moment.
    #[cold]
    pub fn renews_channels(&self, waits: bool) {
        let now = clock::now();
        self.status.renews.set(Some(if waits { now.after(limits::RENEW_AFTER) } else { now }));
        self.wake();
    }

    /// Its socket takes nothing: what waits for it counts in the budget of all.
    #[cold]
    fn hold(&self, inner: &mut ClientState) {
        let held = if inner.blocked && inner.gone.is_none() { inner.waiting() } else { 0 };
        self.output.budget.hold(held, std::mem::replace(&mut inner.held, held));
        if inner.waits {
            // No flush will look after whoever waits for an answer, or for room.
            inner.wake_task();
        }
    }

    #[inline]
    fn mark_dirty(self: &Rc<Self>, mut inner: RefMut<'_, ClientState>) {
        if !inner.dirty && inner.queue.output_len() > 0 {
            if inner.blocked {
                return self.hold(&mut inner);
            }
            inner.dirty = true;
            drop(inner);
            self.output.dirty.add(Rc::clone(self));
        } else if inner.waits && inner.queue.output_len() == 0 {
            // Nothing is to be written, so no flush will look after whoever waits for the drained state.
            inner.wake_task();
        }
    }

    /// To be polled by the client's own task: remembers its waker, continues a blocked write, tells whether the
    /// client is gone.
    #[inline]
    pub fn poll(&self, cx: &mut Context<'_>) -> Option<Gone> {
        let mut inner = self.inner.borrow_mut();
        if inner.task.as_ref().is_none_or(|w| !w.will_wake(cx.waker())) {
            inner.task = Some(cx.waker().clone());
        }
        if inner.blocked { self.poll_blocked(inner, cx) } else { inner.gone }
    }

    /// The same, if its socket took nothing.
    #[cold]
    fn poll_blocked<'a>(&'a self, mut inner: RefMut<'a, ClientState>, cx: &mut Context<'_>) -> Option<Gone> {
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
        self.drop_as(self.inner.borrow_mut(), why);
    }

    /// Nothing is kept for it any longer.
    fn drop_as(&self, mut inner: RefMut<'_, ClientState>, why: Gone) {
        inner.gone.get_or_insert(why);
        inner.queue.forget();
        (inner.joints, inner.joined) = (None, 0);
        inner.pace.wake_lanes();
        self.hold(&mut inner);
        inner.wake_task();
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
        self.inner.borrow().queue.next()
    }

    /// [`Self::next`] and [`Self::oldest`].
    pub fn next_and_oldest(&self) -> (u64, u64) {
        let inner = self.inner.borrow();
        (inner.queue.next(), inner.queue.oldest())
    }

    /// Sequence number of the oldest command that is not answered yet.
    pub fn oldest(&self) -> u64 {
        self.inner.borrow().queue.oldest()
    }

    /// No command is outstanding.
    pub fn is_drained(&self) -> bool {
        self.inner.borrow().queue.outstanding() == 0
    }

    /// No command is outstanding and every byte is written.
    pub fn is_flushed(&self) -> bool {
        let inner = self.inner.borrow();
        inner.queue.outstanding() == 0 && inner.queue.output_len() == 0
    }

    /// Whether it gets large replies, lately.
    pub fn gets_large_replies(&self) -> bool {
        self.inner.borrow().pace.gets_large_replies()
    }

    /// Bytes that it has taken up to now.
    pub fn taken(&self) -> u64 {
        self.inner.borrow().pace.taken()
    }

    /// Bytes waiting to be written.
    pub fn output_len(&self) -> usize {
        self.inner.borrow().waiting()
    }

    /// Whether little waits to be written or for its turn.
    pub fn keeps_up(&self) -> bool {
        self.inner.borrow().waiting() < limits::LANE_PAUSE / 2
    }

    /// Whether it has asked for more than the reply that is just arriving: then it may be that it reads nothing before
    /// it has sent everything.
    pub fn wants_more(&self) -> bool {
        let inner = self.inner.borrow();
        inner.queue.outstanding() > 1 || inner.waits
    }

    /// Whether more of its commands may be read now. Of one that is gone none are, as on Redis: what it was owed is
    /// forgotten, and with it what has to wait for what.
    pub fn has_room(&self) -> bool {
        let inner = self.inner.borrow();
        let (waiting, outstanding) = (inner.waiting_itself(), inner.queue.outstanding());
        inner.gone.is_none()
            && if waiting <= limits::CLIENT_OUTPUT_LEAST {
                inner.pace.window().is_open(outstanding)
            } else {
                self.may_owe_more(&inner)
            }
    }

    /// The same for one for whom much waits. It may be writing a pipeline to its end before it reads the first reply: half of
    /// what may pile up for it may do so at once, if that of all together is not too much; the rest, for which it is
    /// disconnected, once it has taken nothing for a while.
    #[cold]
    fn may_owe_more(&self, inner: &ClientState) -> bool {
        let (waiting, outstanding) = (inner.waiting_itself(), inner.queue.outstanding());
        let left = self.output.budget.left();
        if inner.stalled.is_some() {
            let room = (self.output_limit.saturating_sub(waiting) + 1).min(left);
            return left > 0 && outstanding < inner.pace.window().within(room);
        }
        waiting < self.output_limit / 2 && left > 0 && inner.pace.window().is_open(outstanding)
    }

    /// It waits for room and has taken nothing for a while. If that is long, it is disconnected.
    pub fn stalls(&self, now: Moment) {
        let mut inner = self.inner.borrow_mut();
        let since = *inner.stalled.get_or_insert(now);
        if now.since(since) >= limits::STALLED_LONGEST {
            self.drop_as(inner, Gone::TooSlow);
        }
    }

    /// Whether its socket takes nothing at the moment.
    pub fn is_blocked(&self) -> bool {
        self.inner.borrow().blocked
    }

    /// Whether a lane should wait with more of the reply of slot `seq`, or, of a `long` one, with more of it. If so,
    /// `waker` is woken when it should look again.
    pub fn should_pause(&self, seq: u64, long: bool, waker: &Waker) -> bool {
        let mut inner = self.inner.borrow_mut();
        if inner.gone.is_some() {
            return false;
        }
        // What has its turn does not wait for what is kept, but the other way round.
        let its_turn = seq == inner.queue.oldest();
        let waiting = if its_turn { inner.queue.output_len() } else { inner.queue.kept_len() };
        let allowance = Allowance { output_limit: self.output_limit, is_full: inner.is_full() };
        inner.pace.pauses(waiting, long, allowance, waker)
    }

    /// The client's own task starts or stops waiting for room, for the drained or for the flushed state: only then
    /// is it woken by deliveries.
    pub fn set_waits(&self, waits: bool) {
        self.inner.borrow_mut().waits = waits;
    }
}

impl Flush for Client {
    /// Whether replies are outstanding that may be there in a moment: a client that has asked several shards would be written
    /// to, and woken, once for each.
    #[inline]
    fn waits_for_more(&self) -> bool {
        self.output.gathers && {
            let mut inner = self.inner.borrow_mut();
            let waits = !inner.gathering
                && inner.queue.outstanding() > 0
                && inner.queue.output_len() < limits::GATHERED
                && inner.gone.is_none();
            inner.gathering = waits;
            waits
        }
    }

    /// Writes what the socket takes; the rest goes out when it is writable again.
    fn flush(&self) {
        let mut inner = self.inner.borrow_mut();
        inner.dirty = false;
        if inner.gone.is_some() {
            return;
        }
        while inner.queue.output_len() > 0 {
            match self.write.try_write(inner.queue.output()) {
                Ok(0) => return self.drop_as(inner, Gone::Left),
                Ok(n) => {
                    inner.stalled = None;
                    inner.pace.takes(n);
                    inner.queue.written(n);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    inner.blocked = true;
                    break;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.drop_as(inner, Gone::Left),
            }
        }
        if inner.ending && inner.queue.output_len() == 0 {
            return self.drop_as(inner, Gone::Ended);
        }
        if inner.blocked || inner.held > 0 {
            self.hold(&mut inner);
        }
        if inner.queue.output_len() == 0 {
            self.output.buffers.put(inner.queue.exchange_buffer(BytesMut::new()));
            if inner.queue.outstanding() == 0 && (inner.queue.is_roomy() || self.dealings.are_roomy()) {
                inner.queue.rest();
                self.dealings.all().for_each(|(_, dealings)| dealings.session.borrow_mut().rest());
            }
        }
        inner.after_write();
    }
}

impl ClientState {
    /// Bytes that are not written, whether it is their turn or not.
    fn waiting(&self) -> usize {
        self.waiting_itself() + self.joined
    }

    /// Without what waits for other parts of the same command: these have to be asked for before any of it goes out.
    fn waiting_itself(&self) -> usize {
        let joined = if mutant::is("parts-wait-for-parts") { self.joined } else { 0 };
        self.queue.output_len() + self.queue.kept_len() + joined
    }

    /// No more of its commands are read before some are answered.
    fn is_full(&self) -> bool {
        self.queue.outstanding() >= limits::CLIENT_PENDING
    }

    /// After a write: wakes whoever waits for room.
    fn after_write(&mut self) {
        if self.queue.output_len() < limits::LANE_PAUSE / 2 {
            self.pace.wake_lanes();
        }
        if self.blocked || self.waits {
            self.wake_task();
        }
    }

    fn wake_task(&self) {
        if let Some(task) = &self.task {
            task.wake_by_ref();
        }
    }
}
