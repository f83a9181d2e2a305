//! What all threads share: the configuration, the view, the command table, the fences, the registry of clients.
//! Everything here is either immutable, an atomic, or off the path of a command.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use dashmap::DashMap;
use tokio::sync::{Notify, Semaphore, watch};

use crate::config::Config;
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
use crate::mutant;
use crate::net::runtime::limits;
use crate::net::socket::dial::Dialer;
use crate::shard::attention::{Attention, StreamHead};
use crate::shard::emptied::EmptiedWatch;
use crate::shard::identity::Identities;
use crate::shard::mailbox::Mailboxes;
use crate::telemetry::Stats;
use crate::telemetry::histogram::Histogram;

/// What `CLIENT LIST` tells of one client. Changed rarely, read rarely.
#[derive(Clone, Debug, Default)]
pub struct ClientEntry {
    /// Its address.
    pub peer: String,
    /// The address that it connected to.
    pub local: String,
    /// `CLIENT SETNAME`
    pub name: String,
    /// `AUTH`
    pub user: String,
    /// `CLIENT SETINFO LIB-NAME`
    pub lib_name: String,
    /// `CLIENT SETINFO LIB-VER`
    pub lib_version: String,
    /// `SELECT`
    pub db: u32,
    /// 2 or 3.
    pub resp: u8,
    /// When it connected.
    pub since: Moment,
}

/// A client's place among `max-clients`, from the moment its connection is accepted until that is closed.
#[derive(Debug)]
pub struct Seat(Arc<Shared>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.seats.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Shared by all threads.
#[derive(Debug)]
pub struct Shared {
    /// The configuration in force.
    pub config: Config,
    /// How nodes are reached.
    pub dialer: Dialer,
    /// The addresses of the nodes, by `NodeId`.
    pub addresses: Vec<Address>,
    /// The present view.
    pub view: ArcSwap<View>,
    /// Counts published views; whoever waits for a change waits here.
    pub views: watch::Sender<u64>,
    /// Some policy needs fences: acknowledgements stamp them.
    pub fencing: bool,
    /// Some policy promises anything about how old data is: replicas are listened to whether they go back.
    pub watching: bool,
    /// The command table and what follows from it.
    pub commands: ArcSwap<Commands>,
    /// The fence table.
    pub fences: FenceTable,
    /// How long the primary takes to answer, in nanoseconds. Written by its prober alone.
    pub anchor_latency: Histogram,
    /// Counts anchors.
    pub anchors: AnchorCounter,
    /// Somebody waits for an anchor.
    pub anchor_wanted: Notify,
    /// Who waits for what the nodes say of themselves.
    pub attention: Attention,
    /// Verified credentials.
    pub identities: Identities,
    /// Connected clients.
    pub clients: DashMap<u64, ClientEntry>,
    /// What each node tells of itself, by `NodeId`; see [`crate::shard::emptied`].
    pub emptied: Vec<EmptiedWatch>,
    /// Until when the primary's clients are paused, by a `CLIENT PAUSE` that came this way; in nanoseconds.
    paused_until: AtomicU64,
    /// A `SCRIPT FLUSH` came this way: replicas, which are not told, may know scripts that the primary no longer knows.
    pub scripts_flushed: AtomicBool,
    /// How many lanes each worker keeps that no client has at hand.
    pub lanes_unused: usize,
    /// Places for exclusive connections to the primary.
    pub exclusive: Arc<Semaphore>,
    /// How to reach the workers about their clients.
    pub mailboxes: Mailboxes,
    /// One per worker.
    pub stats: Vec<Arc<Stats>>,
    /// True once the process is to end.
    pub drain: watch::Sender<bool>,
    /// The default user needs a password, by the latest answer: clients that gave none have to.
    pub auth_required: AtomicBool,
    /// How far the replication stream was read.
    pub stream: StreamHead,
    /// Connections of clients that were accepted and are not closed, whatever they have come to.
    seats: AtomicUsize,
    next_client: AtomicU64,
}

impl Shared {
    /// Puts the pieces together.
    pub fn new(
        config: Config,
        dialer: Dialer,
        addresses: Vec<Address>,
        view: View,
        fences: FenceTable,
        workers: usize,
    ) -> Self {
        let fencing = config.policies.fence();
        let watching = config.policies.bound();
        let commands = Commands::builtin(&config.security.deny_commands);
        let emptied = addresses.iter().map(|_| EmptiedWatch::default()).collect();
        let exclusive = Arc::new(Semaphore::new(config.upstream.max_exclusive_connections));
        Self {
            config,
            dialer,
            addresses,
            view: ArcSwap::from_pointee(view),
            views: watch::Sender::new(0),
            fencing,
            watching,
            commands: ArcSwap::from_pointee(commands),
            fences,
            anchor_latency: Histogram::default(),
            anchors: AnchorCounter::default(),
            anchor_wanted: Notify::new(),
            attention: Attention::default(),
            identities: Identities::default(),
            clients: DashMap::new(),
            emptied,
            paused_until: AtomicU64::new(0),
            scripts_flushed: AtomicBool::new(false),
            lanes_unused: limits::LANES_UNUSED,
            exclusive,
            mailboxes: Mailboxes::new(workers),
            stats: (0..workers).map(|_| Arc::default()).collect(),
            drain: watch::Sender::new(false),
            auth_required: AtomicBool::new(false),
            stream: StreamHead::default(),
            seats: AtomicUsize::new(0),
            next_client: AtomicU64::new(1),
        }
    }

    /// A place for one more client; `None`: there are `max-clients`.
    pub fn seat(self: &Arc<Self>) -> Option<Seat> {
        let most = self.config.proxy.max_clients;
        let taken = self
            .seats
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| (taken < most).then_some(taken + 1));
        taken.is_ok().then(|| Seat(Arc::clone(self)))
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

    /// The address of a node.
    pub fn address(&self, node: NodeId) -> Option<&Address> {
        self.addresses.get(node.index())
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

    /// An ID for a new client.
    pub fn next_client(&self) -> u64 {
        self.next_client.fetch_add(1, Ordering::Relaxed)
    }

    /// Clients connected now.
    pub fn client_count(&self) -> u64 {
        self.stats.iter().map(|s| s.clients.value()).sum()
    }
}
