//! What is known of one primary and its replicas, shared by those who find it out and those who serve clients by it.

pub mod attention;
pub mod cluster;
pub mod common;
pub mod doctor;
pub mod emptied;
pub mod explain;
pub mod identity;
pub mod losses;
pub mod mailbox;
pub mod overall;
pub mod place;
pub mod readiness;
pub mod report;
pub mod shared;
pub(crate) mod snapshot;
pub mod withheld;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};

use crate::core::address::Address;
use crate::core::argv::Args;
use crate::core::command::Intent;
use crate::core::command::in_force::Commands;
use crate::core::demand::{Reader, Subject, Writes};
use crate::core::fence::{AnchorCounter, FenceTable};
use crate::core::moment::Moment;
use crate::core::nodes::node::NodeId;
use crate::core::nodes::view::View;
use crate::core::policy::Consistency;
use crate::core::route::Demand;
use crate::core::slots::SlotFloors;
use crate::mutant;
use crate::telemetry::Counter;
use crate::telemetry::histogram::Histogram;
use attention::{Attention, StreamHead};
use doctor::Findings;
use emptied::EmptiedWatch;
use losses::Losses;
use withheld::Withheld;

/// One primary and its replicas, as far as they are known. Everything here is immutable, an atomic, or off the path of a
/// command.
#[derive(Debug)]
pub struct Shard {
    /// How many places there are for nodes.
    pub places: usize,
    /// The present view.
    pub view: ArcSwap<View>,
    /// Counts published views; whoever waits for a change waits here.
    pub views: watch::Sender<u64>,
    /// The fence table.
    pub fences: FenceTable,
    /// What is demanded for whole hash slots, in a cluster.
    pub floors: SlotFloors,
    /// How long the primary takes to answer, in nanoseconds. Written by its prober alone.
    pub anchor_latency: Histogram,
    /// Counts anchors.
    pub anchors: AnchorCounter,
    /// Somebody waits for an anchor.
    pub anchor_wanted: Notify,
    /// Who waits for what the nodes say of themselves.
    pub attention: Attention,
    /// What each node tells of itself, by its place; see [`crate::shard::emptied`].
    pub emptied: Vec<EmptiedWatch>,
    /// When each node last said anything to a worker, in nanoseconds; by its place.
    spoke_at: Vec<AtomicU64>,
    /// When its primary was last asked which slots it has, and has said so; in nanoseconds. Where that is no question, for ever.
    confirmed_at: AtomicU64,
    /// Until when the primary's clients are paused, by a `CLIENT PAUSE` that came this way; in nanoseconds.
    paused_until: AtomicU64,
    /// A `SCRIPT FLUSH` came this way: replicas, which are not told, may know scripts that the primary no longer knows.
    pub scripts_flushed: AtomicBool,
    /// The default user needs a password, by the latest answer: clients that gave none have to.
    pub auth_required: AtomicBool,
    /// How far the replication stream was read.
    pub stream: StreamHead,
    /// What failovers have lost.
    pub losses: Losses,
    /// Writes seen on the stream that a failover has lost. Counted by the stamper alone.
    pub lost_writes: Counter,
    /// Times that another node became the primary than the one before. Counted by the keeper alone.
    pub primary_changes: Counter,
    /// Times that the primary did not go on from what was there before. Counted by the keeper alone.
    pub history_restarts: Counter,
    /// What nodes do not let Redweir do.
    pub withheld: Withheld,
    /// What is wrong with the nodes.
    pub doctor: Findings,
}

impl Shard {
    /// With so many places for nodes, of which `view` says what is known.
    pub fn new(places: usize, view: View, fences: FenceTable) -> Self {
        let emptied = (0..places).map(|_| EmptiedWatch::default()).collect();
        let spoke_at = (0..places).map(|_| AtomicU64::new(0)).collect();
        Self {
            places,
            view: ArcSwap::from_pointee(view),
            views: watch::Sender::new(0),
            fences,
            floors: SlotFloors::new(),
            anchor_latency: Histogram::default(),
            anchors: AnchorCounter::default(),
            anchor_wanted: Notify::new(),
            attention: Attention::default(),
            emptied,
            spoke_at,
            confirmed_at: AtomicU64::new(u64::MAX),
            paused_until: AtomicU64::new(0),
            scripts_flushed: AtomicBool::new(false),
            auth_required: AtomicBool::new(false),
            stream: StreamHead::default(),
            losses: Losses::default(),
            lost_writes: Counter::default(),
            primary_changes: Counter::default(),
            history_restarts: Counter::default(),
            withheld: Withheld::default(),
            doctor: Findings::default(),
        }
    }

    /// What is known of writes when a read is decided under `view`.
    pub fn writes<'a>(&'a self, view: &'a View) -> Writes<'a> {
        Writes { view, fences: &self.fences, next: self.anchors.next() }
    }

    /// What a replica must have applied to serve a read of `reader` at `level`; an anchor that would tell is asked for.
    /// `subject` takes what the read is about.
    pub fn demand<A: Args + ?Sized>(
        &self,
        reader: &Reader<'_>,
        level: Consistency,
        command: (&A, Intent),
        (view, commands): (&View, &Commands),
        subject: &mut Subject,
    ) -> Demand {
        let demand = reader.demand(level, &self.writes(view), command, &commands.table, subject);
        if demand.waits_for_an_anchor() {
            self.anchor_wanted.notify_one();
        }
        demand
    }

    /// Its primary was asked at `asked_at` which slots it has, and has said so.
    pub fn confirm(&self, asked_at: Moment) {
        self.confirmed_at.store(asked_at.as_nanos(), Ordering::SeqCst);
    }

    /// Whether it was asked that after `since`, and has answered.
    pub fn is_confirmed_since(&self, since: Moment) -> bool {
        self.confirmed_at.load(Ordering::SeqCst) > since.as_nanos()
    }

    /// Whether nobody has asked its primary for longer than `span` which slots it has: a slot may be elsewhere since then.
    #[inline]
    pub fn is_unconfirmed_for(&self, span: Duration, now: Moment) -> bool {
        match self.confirmed_at.load(Ordering::Relaxed) {
            u64::MAX => false,
            _ if mutant::is("map-age-ignored") => false,
            at => u128::from(now.as_nanos().saturating_sub(at)) > span.as_nanos(),
        }
    }

    /// The address of a node; `None` once it has left.
    pub fn address(&self, node: NodeId) -> Option<Arc<Address>> {
        self.view.load().node(node)?.address.clone()
    }

    /// A node has said something to a worker.
    pub fn speaks(&self, node: NodeId, now: Moment) {
        if let Some(at) = self.spoke_at.get(node.index()) {
            at.store(now.as_nanos(), Ordering::Relaxed);
        }
    }

    /// Whether a node has said anything to a worker since then.
    pub fn has_spoken_since(&self, node: NodeId, since: Moment) -> bool {
        let at = self.spoke_at.get(node.index());
        at.is_some_and(|at| at.load(Ordering::Relaxed) > since.as_nanos())
    }

    /// Whether a `CLIENT PAUSE` of all commands is in force, as far as it came this way.
    pub fn reads_are_paused(&self, now: Moment) -> bool {
        self.paused_until.load(Ordering::Relaxed) > now.as_nanos() && !mutant::is("replicas-never-pause")
    }

    /// All commands of the primary's clients are paused until then. Pauses add up: the one that ends last counts.
    pub fn pause_reads(&self, until: Moment) {
        self.paused_until.fetch_max(until.as_nanos(), Ordering::Relaxed);
    }

    /// `CLIENT UNPAUSE`
    pub fn resume_reads(&self) {
        self.paused_until.store(0, Ordering::Relaxed);
    }
}
