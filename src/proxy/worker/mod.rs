//! A worker: one thread, one current-thread runtime, its clients and its lanes. Nothing on a command's path is shared
//! with other workers but one `ArcSwap` load and atomics.

pub mod admission;
mod fencing;
pub(crate) mod held;
pub(crate) mod inquiry;
pub(crate) mod lanes;
pub(crate) mod mailbox;
pub(crate) mod peers;
pub(crate) mod proof;
pub(crate) mod redirect;
pub(crate) mod retry;
pub(crate) mod shut_out;
pub(crate) mod tasks;
pub(crate) mod turns;
pub(crate) mod upkeep;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::sync::Notify;

use crate::core::fence::Era;
use crate::core::moment::Moment;
use crate::core::nodes::cause::Cause;
use crate::core::nodes::node::{NodeId, Role};
use crate::core::nodes::proof::Proofs;
use crate::core::nodes::view::View;
use crate::core::reason::Reason;
use crate::core::repeat::{PendingKind, RepeatBudget};
use crate::core::session::Stamps;
use crate::core::slots::ShardIndex;
use crate::mutant;
use crate::net::runtime::allowance::Allowance;
use crate::net::runtime::buffers::Buffers;
use crate::net::runtime::clock;
use crate::net::runtime::flush::{DirtyList, Schedule};
use crate::net::runtime::limits;
use crate::proxy::downstream::replies::{Client, Output};
use crate::proxy::upstream::lane::{Closed, Lane, LaneKey, Withdrawal};
use crate::proxy::upstream::load::Load;
use crate::proxy::upstream::pending::Pending;
use crate::proxy::worker::admission::Admission;
use crate::proxy::worker::fencing::Fencing;
use crate::proxy::worker::held::{Held, Later};
use crate::proxy::worker::inquiry::Inquiry;
use crate::proxy::worker::lanes::Lanes;
use crate::proxy::worker::peers::Peers;
use crate::proxy::worker::shut_out::ShutOut;
use crate::shard::identity::IdentityId;
use crate::shard::shared::Shared;
use crate::shard::snapshot::Snapshot;
use crate::telemetry::{Latency, Stats};
use crate::wire::say;

/// What one worker owns.
#[derive(Debug)]
pub struct Worker {
    /// Which shard it serves.
    pub shard: ShardIndex,
    /// What it shares with the others.
    pub shared: Arc<Shared>,
    /// What it counts.
    pub stats: Arc<Stats>,
    /// When its lanes and clients are written.
    pub(crate) schedule: Rc<Schedule>,
    /// Lanes that have requests to write.
    pub(crate) dirty_lanes: Rc<DirtyList<Lane>>,
    /// How its clients are written.
    pub output: Output,
    /// What it knows at present.
    pub snapshot: Snapshot,
    /// What the nodes have proven on this worker's connections.
    pub proofs: RefCell<Proofs>,
    /// How many times each replica was heard to empty its data.
    pub(crate) heard: RefCell<Vec<u64>>,
    /// The view that was last looked at for replicas that may have gone back.
    pub(crate) noticed: RefCell<Arc<View>>,
    /// The process drains: who is owed nothing goes.
    pub draining: Rc<Cell<bool>>,
    /// The view has changed: whoever waits looks again.
    pub changed: Notify,
    /// Who gets replies that nobody else gets.
    discard: Rc<Client>,
    /// How busy each node is.
    pub load: Rc<Load>,
    /// Its clients, by their ID.
    pub clients: Rc<RefCell<BTreeMap<u64, Rc<Client>>>>,
    /// Commands that wait for a primary.
    pub held: Held,
    /// The node that has said itself that it is not the primary any longer, and when: until it was heard again it gets none of
    /// what it has refused.
    pub(crate) deposed: Cell<Option<(NodeId, Moment)>>,
    /// How many times in a row it has said so, without another one becoming the primary meanwhile.
    pub(crate) depositions: Cell<u32>,
    /// Whether those who gave no password may come in.
    pub admission: Rc<Admission>,
    /// The history of the primary that its lanes go to.
    pub era: Cell<Era>,
    /// Questions to the primary as somebody.
    pub inquiry: Inquiry,
    /// Replicas that have refused an identity.
    pub(crate) shut_out: ShutOut,
    /// Its connections to the nodes.
    pub(crate) lanes: Lanes,
    /// The fences of what they have acknowledged.
    pub(crate) fencing: Fencing,
    /// One request to the primary may ask for several reads (`share-reads`).
    pub(crate) shares_reads: Cell<bool>,
    /// Reads that fall back to the primary.
    pub(crate) primary_reads: Allowance,
    /// Reads that are sent again.
    pub(crate) repeats: RefCell<RepeatBudget>,
    /// Read buffers that no client is using.
    buffers: RefCell<Vec<BytesMut>>,
    rng: Cell<u32>,
    /// Commands that wait a little before they are sent on to another shard.
    pub(crate) later: RefCell<VecDeque<Later>>,
    /// Those of the other shards on the same thread.
    pub(crate) peers: Rc<Peers>,
}

/// What the workers of all shards on one thread have in common.
struct OfThread {
    stats: Arc<Stats>,
    schedule: Rc<Schedule>,
    dirty_lanes: Rc<DirtyList<Lane>>,
    output: Output,
    clients: Rc<RefCell<BTreeMap<u64, Rc<Client>>>>,
    draining: Rc<Cell<bool>>,
    admission: Rc<Admission>,
    peers: Rc<Peers>,
    seed: u32,
}

/// The reply to a command that was counted.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    /// It, or its last part.
    pub bytes: &'a [u8],
    /// A fingerprint of what was asked, and in which database; `None` if only the last part of the reply is there.
    pub question: Option<u64>,
}

impl Worker {
    /// The worker of the first shard on thread number `index`.
    pub fn new(index: usize, shared: Arc<Shared>) -> Rc<Self> {
        let schedule = Rc::<Schedule>::default();
        let (dirty, budget) = (DirtyList::new(&schedule), Arc::clone(&shared.replies));
        let gathers = shared.cluster().is_some();
        let output = Output { dirty, buffers: Rc::<Buffers>::default(), budget, gathers };
        let thread = OfThread {
            stats: shared.stats.get(index).cloned().unwrap_or_default(),
            dirty_lanes: DirtyList::new(&schedule),
            schedule,
            output,
            clients: Rc::default(),
            draining: Rc::default(),
            admission: Admission::new(Arc::clone(&shared)),
            peers: Rc::default(),
            seed: 0x9e37_79b9 ^ (index as u32 + 1),
        };
        Self::on_thread(thread, shared)
    }

    /// The worker of another shard, on the same thread.
    pub(crate) fn beside(&self, shared: Arc<Shared>) -> Rc<Self> {
        let thread = OfThread {
            stats: Arc::clone(&self.stats),
            schedule: Rc::clone(&self.schedule),
            dirty_lanes: Rc::clone(&self.dirty_lanes),
            output: self.output.clone(),
            clients: Rc::clone(&self.clients),
            draining: Rc::clone(&self.draining),
            admission: Rc::clone(&self.admission),
            peers: Rc::clone(&self.peers),
            seed: self.roll(),
        };
        Self::on_thread(thread, shared)
    }

    fn on_thread(thread: OfThread, shared: Arc<Shared>) -> Rc<Self> {
        let OfThread { stats, schedule, dirty_lanes, output, clients, draining, admission, peers, seed } =
            thread;
        let (nodes, era) = (shared.shard().places, shared.shard().view.load().era);
        let share_reads = shared.config().proxy.share_reads;
        Rc::new(Self {
            shard: shared.index(),
            snapshot: Snapshot::new(&shared),
            heard: RefCell::new(vec![0; nodes]),
            noticed: RefCell::new(shared.shard().view.load_full()),
            admission,
            inquiry: Inquiry::new(Arc::clone(&shared)),
            fencing: Fencing::new(Arc::clone(&shared)),
            lanes: Lanes::default(),
            shared,
            stats,
            proofs: RefCell::new(Proofs::new(nodes)),
            draining,
            changed: Notify::new(),
            discard: Client::drain(output.clone()),
            output,
            dirty_lanes,
            schedule,
            load: Load::new(nodes),
            clients,
            held: Held::default(),
            deposed: Cell::default(),
            depositions: Cell::default(),
            era: Cell::new(era),
            shut_out: ShutOut::default(),
            shares_reads: Cell::new(share_reads),
            primary_reads: Allowance::default(),
            repeats: RefCell::default(),
            buffers: RefCell::default(),
            rng: Cell::new(seed),
            later: RefCell::default(),
            peers,
        })
    }

    /// Who gets replies that nobody else gets.
    pub fn discard(&self) -> Rc<Client> {
        Rc::clone(&self.discard)
    }

    /// Whether it is the one of the first shard, which looks after the clients of its thread.
    pub(crate) fn is_first(&self) -> bool {
        self.shard == ShardIndex::FIRST
    }

    /// A random number (xorshift); good enough to break ties.
    pub fn roll(&self) -> u32 {
        let mut x = self.rng.get();
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        self.rng.set(x);
        x
    }

    /// A read buffer. Clients have one only while they have bytes in it, so that idle ones cost nothing.
    pub fn take_buffer(&self) -> BytesMut {
        self.buffers.borrow_mut().pop().unwrap_or_else(|| BytesMut::with_capacity(limits::CLIENT_READ))
    }

    /// Gives an empty read buffer back.
    pub fn put_buffer(&self, mut buffer: BytesMut) {
        buffer.clear();
        let mut buffers = self.buffers.borrow_mut();
        if buffers.len() < limits::BUFFERS_POOLED && buffer.capacity() <= limits::BUFFER_KEPT {
            buffers.push(buffer);
        }
    }

    /// Whether the view says that this node is the primary.
    pub fn is_primary(&self, node: NodeId) -> bool {
        self.shared.shard().view.load().primary == Some(node)
    }

    /// The shared lane of this key; opened if there is none.
    pub fn lane(self: &Rc<Self>, key: LaneKey) -> Rc<Lane> {
        self.lanes.shared(key).unwrap_or_else(|| {
            let lane = self.open_lane(key);
            self.lanes.share(&lane);
            lane
        })
    }

    /// A shared lane that is not in the pool: one that came back, or a new one.
    pub(crate) fn open_lane(self: &Rc<Self>, key: LaneKey) -> Rc<Lane> {
        self.lanes.take_back(key).unwrap_or_else(|| self.start(key, false))
    }

    pub(crate) fn start(self: &Rc<Self>, key: LaneKey, exclusive: bool) -> Rc<Lane> {
        let identity = self.shared.identities.hold(key.identity);
        let lost = identity.is_none() && key.identity != IdentityId::ANONYMOUS;
        let in_flight = self.load.in_flight(key.node);
        let lane = Lane::new(key, exclusive, identity, Rc::clone(&self.dirty_lanes), in_flight);
        lane.shares.set(self.shares_reads.get() && !exclusive);
        lane.in_cluster.set(self.shared.cluster().is_some());
        lane.examined.set(lane.in_cluster.get());
        if lost {
            // Nobody holds it any longer: never to be mistaken for the anonymous one.
            lane.close(Closed::Refused(say::NOAUTH.trim_ascii_end().to_vec()));
        }
        self.stats.lanes.add(1);
        self.lanes.add(&lane);
        lane
    }

    /// An exclusive lane of this key: a clean idle one, or a new one. With a `spare`, one more is opened for who comes next, so
    /// that two who block in turn do so in that order, and neither after what a third says then on a connection that is open.
    pub fn exclusive_lane(self: &Rc<Self>, key: LaneKey, spare: bool) -> Rc<Lane> {
        let lane = self.lanes.take_idle(key).unwrap_or_else(|| self.start(key, true));
        let room = self.shared.exclusive.available_permits() > self.lanes.idle_count();
        if spare && room && self.lanes.needs_spare(key) && !mutant::is("none-to-spare") {
            self.lanes.give_back(&self.start(key, true));
        }
        lane
    }

    /// A lane ended: it is not used again.
    pub fn forget_lane(&self, lane: &Rc<Lane>) {
        self.stats.lanes.sub(1);
        self.proofs.borrow_mut().lost(lane.key.node);
        self.lanes.forget(lane);
    }

    /// A command was answered: its fences are stamped before anyone can see the answer.
    #[allow(clippy::inline_always, reason = "measured: 1 % of the instructions of a small command")]
    #[inline(always)]
    pub fn acknowledged(&self, pending: &Pending, lane: &Lane, now: Moment) {
        let Latency { request, upstream } = self.stats.latency(pending.access, pending.at_primary);
        if pending.sent == pending.begun {
            request.record_in_both(upstream, now.nanos_since(pending.begun));
        } else {
            request.record(now.nanos_since(pending.begun));
            upstream.record(now.nanos_since(pending.sent));
        }
        if pending.kind == PendingKind::Write {
            let (dealings, anchors) = (pending.client.with(pending.shard), &self.shared.shard().anchors);
            let era = if lane.demoted.get() { Era(self.era.get().0.wrapping_sub(1)) } else { self.era.get() };
            dealings.wrote.set(Some((anchors.next(), era)));
            if pending.stamps != Stamps::None {
                self.fencing.stamp(&pending.stamps);
                if dealings.counts_own.get() {
                    dealings.session.borrow_mut().acknowledged(&pending.stamps, anchors.next());
                }
            }
        }
    }

    /// A session has seen the primary's answer: no replica may take it back.
    #[inline(never)]
    pub fn remember(&self, pending: &Pending, reply: Reply<'_>) {
        let (fences, next) = (&self.shared.shard().fences, self.shared.shard().anchors.next());
        let digest = reply.question.map(|asked| {
            let asked = if mutant::is("reply-digest") { 0 } else { asked };
            fences.digest(reply.bytes) ^ asked.rotate_left(1)
        });
        let mut session = pending.session().borrow_mut();
        session.remember(pending.seq, &pending.stamps, pending.sees_all, digest, next);
    }

    /// `-MASTERDOWN`, with the cause: the reply to a command of `client` that nobody may answer, for this reason. It is counted.
    /// Where nodes are is told to those only who may ask for it (`REDWEIR VIEW`).
    #[cold]
    pub(crate) fn masterdown(&self, client: &Client, reason: Reason) -> Vec<u8> {
        self.stats.masterdown.add(1);
        let view = self.shared.shard().view.load();
        let names =
            self.admission.may_see_nodes(&client.status, &view) || mutant::is("told-where-to-anybody");
        say::masterdown(Cause::of(&view).as_ref(), reason, names)
    }

    /// Tells the clients when the process drains. They look at a flag: waiting for the news themselves would cost each
    /// of them more than scanning a command, for every command.
    pub(crate) async fn drain(self: Rc<Self>) {
        let mut drain = self.shared.drain.subscribe();
        if drain.wait_for(|draining| *draining).await.is_ok() {
            self.draining.set(true);
            self.clients.borrow().values().for_each(|client| client.wake());
        }
    }

    /// Keeps lanes in line with the view: those to nodes that do not answer, or that are no longer the primary, are
    /// ended, so that what waits on them is recovered.
    pub(crate) async fn watch(self: Rc<Self>) {
        let mut last_primary = None;
        let mut views = self.shared.shard().views.subscribe();
        loop {
            // Cancel safe: a `watch` channel, and a sleep.
            tokio::select! {
                changed = views.changed() => if changed.is_err() { return },
                () = self.primary_hangs() => {}
            }
            self.fencing.settle();
            self.notice_view(clock::now());
            self.changed.notify_waiters();
            let view = self.shared.shard().view.load_full();
            let now = clock::now();
            if self.is_first() {
                self.admission.look(&view, now);
            }
            self.inquiry.look(&view);
            self.lanes.each(|lane| {
                let node = view.node(lane.key.node);
                if let Some(why) = out_of_service(&view, lane.key.node, last_primary, now) {
                    let answers = node.is_some_and(|node| node.role == Some(Role::Replica));
                    match why {
                        // It can be let answer what it has been asked: most of that it has executed, or refused.
                        Withdrawal::Demoted if answers && !lane.exclusive => self.demote(lane),
                        // In a cluster another one may be named before it has been heard to say so.
                        Withdrawal::Demoted
                            if self.shared.cluster().is_some()
                                && now.since(lane.hearing.last()) < view.silence_limit
                                && !lane.exclusive =>
                        {
                            self.demote(lane);
                        }
                        // It may only have been taken off a list: what it has been asked it answers.
                        Withdrawal::Removed
                            if now.since(lane.hearing.last()) < view.silence_limit && !lane.exclusive =>
                        {
                            self.demote(lane);
                        }
                        Withdrawal::Demoted if lane.is_in_mid_reply() => lane.retire(why),
                        Withdrawal::Silent | Withdrawal::Removed
                            if lane.is_in_mid_reply()
                                && now.since(lane.hearing.last()) < view.silence_limit =>
                        {
                            lane.retire(why);
                        }
                        _ => lane.close(Closed::Withdrawn(why)),
                    }
                }
            });
            if self.shared.cluster().is_some() {
                self.lanes.each_shared(|lane| self.face(lane, view.primary == Some(lane.key.node), now));
            }
            // With the lanes to the old primary gone, whatever is acknowledged is of the new history.
            self.era.set(view.era);
            if last_primary != view.primary {
                self.depositions.set(0);
            }
            last_primary = view.primary;
            self.release_held();
        }
    }

    /// Has a node of a cluster answer on this lane as the primary, or as a replica.
    pub(crate) fn face(&self, lane: &Rc<Lane>, as_primary: bool, now: Moment) {
        lane.face(as_primary, || Pending::own(PendingKind::Check, 0, self.discard(), self.shard, now));
    }

    /// Returns when the primary begins to count as hung.
    async fn primary_hangs(&self) {
        let view = self.shared.shard().view.load_full();
        let primary = view.primary.and_then(|primary| view.node(primary));
        let Some(from) = primary.and_then(|node| view.hangs_from(node)) else {
            return std::future::pending().await;
        };
        let now = clock::now();
        if now > from {
            return std::future::pending().await;
        }
        // Timers count milliseconds.
        tokio::time::sleep(from.since(now) + Duration::from_millis(1)).await;
    }
}

/// Why nobody is to use a node's lanes any longer, if that is so.
fn out_of_service(
    view: &View,
    node: NodeId,
    last_primary: Option<NodeId>,
    now: Moment,
) -> Option<Withdrawal> {
    let Some(entry) = view.node(node) else { return Some(Withdrawal::Removed) };
    if view.primary == Some(node) {
        view.hangs(entry, now).then_some(Withdrawal::Silent)
    } else if last_primary == Some(node) || entry.role == Some(Role::Primary) {
        Some(Withdrawal::Demoted)
    } else {
        let silent = entry.silent_since.is_some() && entry.is_silent(now, view.silence_limit);
        silent.then_some(Withdrawal::Silent)
    }
}
