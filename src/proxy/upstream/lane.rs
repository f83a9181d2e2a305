//! A lane: one pipelined upstream connection, shared by all clients of a worker that have the same node, identity,
//! database and protocol — or exclusive to one client, for commands that leave state on the connection.
//!
//! Requests are appended to one buffer and stay in it until they are answered ([`crate::proxy::upstream::queue`]).
//! Replies are cut, not parsed, and handed on as they came. Whatever does not add up (a reply nobody asked for, bytes
//! that are no reply) closes the lane: a connection that is out of step must never answer another command.

mod cluster;
mod detour;
mod relayed;

use std::cell::{Cell, OnceCell, RefCell, RefMut};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};

use bytes::BytesMut;

use crate::core::moment::Moment;
use crate::core::position::Offset;
use crate::core::repeat::PendingKind;
use crate::core::session::Stamps;
use crate::net::runtime::flush::{DirtyList, Flush};
use crate::net::runtime::limits;
use crate::net::socket::halves::WriteHalf;
use crate::proxy::downstream::replies::Client;
use crate::proxy::downstream::status::ServerId;
use crate::proxy::upstream::connection::LaneConnection;
use crate::proxy::upstream::hearing::Hearing;
pub use crate::proxy::upstream::key::{LaneKey, Proto, Purpose};
use crate::proxy::upstream::load::InFlight;
use crate::proxy::upstream::outgoing::Bytes;
use crate::proxy::upstream::pending::{Pending, Rewrite};
pub use crate::proxy::upstream::phase::{Broken, Closed, OutOfStep, Phase, Process, Unreachable, Withdrawal};
pub use crate::proxy::upstream::queue::Leftover;
use crate::proxy::upstream::relay::Relay;
pub(crate) use crate::proxy::upstream::relay::Said;
use crate::shard::identity::Identity;

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
    /// One request may ask for several reads.
    pub shares: Cell<bool>,
    /// Who is at the other end.
    pub process: Cell<Process>,
    /// Its node is a replica, which is listened to whether it goes back.
    pub watched: Cell<bool>,
    /// When it was connected.
    pub connected: Cell<Option<Moment>>,
    /// When it was given back, if it is idle.
    pub idle_since: Cell<Moment>,
    /// How many clients have it at hand ([`crate::proxy::upstream::at_hand`]).
    pub users: Cell<u32>,
    /// Who it acts as; `None` for the anonymous identity.
    pub identity: Option<Arc<Identity>>,
    /// Whom `CLIENT TRACKING` redirects to, on an exclusive lane.
    pub redirect: Cell<Option<Redirect>>,
    /// What the node says to its user's `SELECT`, if that is refused: it was done before the user was known.
    pub no_select: OnceCell<Vec<u8>>,
    dirty: Rc<DirtyList<Lane>>,
    /// A command was answered with an error: what state that has left is not known.
    pub tainted: Cell<bool>,
    /// Its node is one of a cluster.
    pub in_cluster: Cell<bool>,
    /// Replies are looked at more closely: its node is one of a cluster, or not the primary any longer.
    pub examined: Cell<bool>,
    /// It was told `READONLY`: as a replica it answers reads, in a cluster, which it would else send to the primary.
    pub readonly: Cell<bool>,
    /// Its node is not the primary any longer, and says so itself: what it answers to reads is repeated, and what it
    /// refuses was not executed.
    pub demoted: Cell<bool>,
    /// When it was heard.
    pub(crate) hearing: Hearing,
    inner: RefCell<LaneState>,
}

#[derive(Debug)]
struct LaneState {
    connection: LaneConnection,
    dirty: bool,
    /// A `ROLE` is among what the next flush writes.
    asks: bool,
    /// What the last `ROLE` proved that the node has applied.
    proof: Option<Offset>,
    /// Gets every byte that is no reply to a pending command (pushes, pub/sub messages).
    listener: Option<Rc<Client>>,
    /// Its replies are not counted: whatever comes is the listener's.
    relay: Option<Box<Relay>>,
    /// Out of the pool while a long reply is on it.
    detour: bool,
    /// How many times it has left the pool.
    generation: u32,
}

impl Lane {
    /// A lane that has yet to be opened; `in_flight` counts its commands.
    pub fn new(
        key: LaneKey,
        exclusive: bool,
        identity: Option<Arc<Identity>>,
        dirty: Rc<DirtyList<Self>>,
        in_flight: InFlight,
    ) -> Rc<Self> {
        let inner = LaneState {
            connection: LaneConnection::new(matches!(key.purpose, Purpose::Large(_)), in_flight),
            dirty: false,
            asks: false,
            proof: None,
            listener: None,
            relay: None,
            detour: false,
            generation: 0,
        };
        Rc::new(Self {
            key,
            exclusive,
            shares: Cell::new(false),
            process: Cell::default(),
            watched: Cell::new(false),
            connected: Cell::default(),
            idle_since: Cell::default(),
            users: Cell::new(0),
            identity,
            redirect: Cell::new(None),
            no_select: OnceCell::new(),
            dirty,
            tainted: Cell::new(false),
            in_cluster: Cell::new(false),
            examined: Cell::new(false),
            readonly: Cell::new(false),
            demoted: Cell::new(false),
            hearing: Hearing::default(),
            inner: RefCell::new(inner),
        })
    }

    /// Takes a command. It is written at the end of the round.
    pub fn push(self: &Rc<Self>, request: Bytes<'_>, pending: Pending) {
        match request {
            Bytes::Request(request) if request.is_partial() => {
                let mut inner = self.inner.borrow_mut();
                inner.connection.queue_mut().push_beginning(pending, |buffer| request.encode_into(buffer));
                self.mark_dirty(inner);
            }
            Bytes::Request(request) => self.push_with(pending, |buffer| request.encode_into(buffer)),
            Bytes::Own(bytes) => self.push_bytes(bytes, pending),
        }
    }

    /// Takes a read, unless one that was taken before asks for it, too ([`crate::proxy::upstream::queue`]). True if one does.
    #[cold]
    pub fn push_shared(self: &Rc<Self>, request: Bytes<'_>, pending: Pending) -> bool {
        let mut inner = self.inner.borrow_mut();
        let shared = inner.connection.queue_mut().push_shared(pending, |buffer| match request {
            Bytes::Request(request) => request.encode_into(buffer),
            Bytes::Own(bytes) => buffer.extend_from_slice(bytes),
        });
        self.mark_dirty(inner);
        shared
    }

    /// Whether the reply that came last answers the next command, too. If so, that is to be taken out ([`Self::pop`]) next.
    pub fn takes_next_sharer(&self) -> bool {
        self.inner.borrow_mut().connection.queue_mut().takes_next_sharer()
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

    #[allow(clippy::inline_always, reason = "measured: 3 % of the instructions of a small command")]
    #[inline(always)]
    fn push_with(self: &Rc<Self>, pending: Pending, encode: impl FnOnce(&mut BytesMut)) {
        let mut inner = self.inner.borrow_mut();
        inner.connection.queue_mut().push(pending, encode);
        self.mark_dirty(inner);
    }

    /// Takes what `write` appends of the command that is passed on as it comes; it says how much it has used, and whether
    /// that was the last of it.
    pub fn stream<E>(
        self: &Rc<Self>,
        write: impl FnOnce(&mut BytesMut) -> Result<(usize, bool), E>,
    ) -> Result<(usize, bool), E> {
        let mut inner = self.inner.borrow_mut();
        let taken = inner.connection.queue_mut().stream(write)?;
        self.mark_dirty(inner);
        Ok(taken)
    }

    #[allow(clippy::inline_always, reason = "measured: 3 % of the instructions of a small command")]
    #[inline(always)]
    fn mark_dirty(self: &Rc<Self>, mut inner: RefMut<'_, LaneState>) {
        if !inner.dirty && inner.connection.is_writable() {
            inner.dirty = true;
            drop(inner);
            self.dirty.add(Rc::clone(self));
        }
    }

    /// The connection is made: what was taken meanwhile goes out.
    pub fn open(self: &Rc<Self>, write: WriteHalf) {
        if self.inner.borrow_mut().connection.open(write) {
            self.flush();
        }
    }

    /// To be polled by the lane's own task: remembers its waker, continues a blocked write, tells whether to end.
    pub fn poll(&self, cx: &mut Context<'_>) -> Option<Closed> {
        self.inner.borrow_mut().connection.poll(cx)
    }

    /// Ends the lane; its task hands back what is left.
    pub fn close(&self, why: Closed) {
        self.inner.borrow_mut().connection.close(why);
    }

    /// Where it is in its life.
    pub fn phase(&self) -> Phase {
        self.inner.borrow().connection.phase().clone()
    }

    /// Whether it takes commands.
    pub fn is_usable(&self) -> bool {
        let inner = self.inner.borrow();
        !inner.detour && inner.connection.is_usable()
    }

    /// The node has told what it calls this connection.
    pub fn identify(&self, id: Option<u64>) {
        self.inner.borrow().connection.identify(id);
    }

    /// What the node calls this connection, as long as it takes commands.
    pub fn server_id(&self) -> ServerId {
        self.inner.borrow().connection.server_id()
    }

    /// Whether it may take more from clients. Whoever finds it full is woken when there is room, through `waker`.
    pub fn has_room(&self) -> bool {
        let inner = self.inner.borrow();
        inner.connection.has_room() && inner.relay.as_ref().is_none_or(|relay| relay.has_room())
    }

    /// Wakes `waker` when there is room again, when the lane is open, or when it ended.
    pub fn wake_on_change(&self, waker: &Waker) {
        self.inner.borrow_mut().connection.wake_on_change(waker);
    }

    /// Nothing is outstanding.
    pub fn is_idle(&self) -> bool {
        self.inner.borrow().connection.queue().is_empty()
    }

    /// Whether the node refused the handshake: nothing was ever sent on it.
    pub fn was_refused(&self) -> bool {
        matches!(self.inner.borrow().connection.phase(), Phase::Closed(Closed::Refused(_)))
    }

    /// The oldest command is answered. Its bytes are returned, to be sent again, if `again` says so: of it, of its bytes,
    /// and of what the last `ROLE` proved.
    #[allow(clippy::inline_always, reason = "measured: 3 % of the instructions of a small command")]
    #[inline(always)]
    pub fn pop(
        &self,
        again: impl FnOnce(&Pending, &[u8], Option<Offset>) -> bool,
    ) -> Option<(Pending, Option<BytesMut>)> {
        let mut inner = self.inner.borrow_mut();
        let proof = inner.proof;
        inner.connection.pop(|pending, bytes| again(pending, bytes, proof))
    }

    /// To be called before the oldest command is taken out, where requests may be shared.
    pub fn remember_shared(&self) {
        self.inner.borrow_mut().connection.queue_mut().remember_shared();
    }

    /// What the command that was answered last has asked for others as well.
    pub fn shared_request(&self) -> BytesMut {
        BytesMut::from(self.inner.borrow().connection.queue().shared_request())
    }

    /// Takes out whatever is outstanding: the lane has ended.
    pub fn drain(&self) -> Vec<Leftover> {
        self.inner.borrow_mut().connection.drain()
    }

    /// Gives back a buffer that a burst has blown up.
    pub fn shrink(&self) {
        self.inner.borrow_mut().connection.queue_mut().shrink();
    }
}

/// The oldest command: the next reply is its.
impl Lane {
    /// When the oldest outstanding command was given to a lane: to this one, or to one that could not be opened.
    pub fn oldest(&self) -> Option<Moment> {
        self.inner.borrow().connection.queue().front().map(|front| front.sent)
    }

    /// Whether the oldest outstanding command only reads.
    pub(crate) fn front_reads(&self) -> bool {
        let inner = self.inner.borrow();
        let kind = inner.connection.queue().front().map(|front| front.kind);
        kind.is_some_and(|kind| kind != PendingKind::Write)
    }

    /// The client of the oldest outstanding command, and its slot there.
    pub fn front(&self) -> Option<(Rc<Client>, u64)> {
        self.inner.borrow().connection.queue().front().map(|front| (Rc::clone(&front.client), front.seq))
    }

    /// The same, to pass on a part of its reply.
    pub fn cut_front(&self) -> Option<(Rc<Client>, u64)> {
        self.inner.borrow_mut().connection.queue_mut().cut();
        self.front()
    }

    /// What the oldest outstanding command has written, if it writes.
    pub fn front_written(&self) -> Stamps {
        let inner = self.inner.borrow();
        let written = inner.connection.queue().front().filter(|front| front.kind == PendingKind::Write);
        written.map_or(Stamps::None, |front| front.stamps.clone())
    }

    /// What is changed in the reply to the oldest outstanding command.
    pub fn front_rewrite(&self) -> Rewrite {
        self.inner.borrow().connection.queue().front().map_or(Rewrite::None, |front| front.rewrite)
    }

    /// Whether the oldest command needs more than the last `ROLE` proved.
    pub fn front_lacks_proof(&self) -> bool {
        let inner = self.inner.borrow();
        inner.connection.queue().front().is_some_and(|front| {
            front.is_doubtful(inner.proof) || self.demoted.get() && front.asked().is_for_successor()
        })
    }

    /// The oldest command is asked again elsewhere, whatever the node answers.
    pub(crate) fn void_front(&self) {
        self.inner.borrow_mut().connection.queue_mut().void_front();
    }

    /// The node may have gone back: whatever it still answers to what was asked before counts for nothing.
    pub fn void_reads(&self) {
        let mut inner = self.inner.borrow_mut();
        inner.connection.queue_mut().void_reads();
        inner.proof = None;
    }
}

/// A command that is passed on as it comes, and large replies.
impl Lane {
    /// Whether a command that is passed on as it comes is outstanding: nothing is taken behind it.
    pub fn is_streaming(&self) -> bool {
        self.inner.borrow().connection.queue().is_streaming()
    }

    /// Whether more of the command that is being passed on may be taken; if not, `waker` is woken when it may be, or
    /// when the lane ends.
    pub fn takes_more(&self, waker: &Waker) -> bool {
        let mut inner = self.inner.borrow_mut();
        let room = inner.connection.queue().unsent() < limits::PASSED_AHEAD;
        if !room {
            inner.connection.wake_on_change(waker);
        }
        room
    }

    /// Bytes that are not written yet.
    pub(crate) fn unsent(&self) -> usize {
        self.inner.borrow().connection.queue().unsent()
    }

    /// A reply of so many bytes was read.
    pub fn weigh(&self, bytes: usize) {
        if self.is_of_large_replies() {
            self.inner.borrow_mut().connection.weigh(bytes);
        }
    }

    /// Something was answered: what has waited for that is written at the end of the round.
    pub fn ask_on(self: &Rc<Self>) {
        if !self.is_of_large_replies() {
            return;
        }
        let inner = self.inner.borrow_mut();
        if inner.connection.has_unsent() {
            self.mark_dirty(inner);
        }
    }

    fn is_of_large_replies(&self) -> bool {
        matches!(self.key.purpose, Purpose::Large(_))
    }
}

impl Flush for Lane {
    /// Writes what the socket takes; the rest goes out when it is writable again.
    fn flush(&self) {
        let mut inner = self.inner.borrow_mut();
        (inner.dirty, inner.asks) = (false, false);
        inner.connection.flush();
    }
}
