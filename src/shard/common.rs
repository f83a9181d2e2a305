//! What all threads share, whichever shard they are busy with: the configuration, the command table, the registry of clients.
//! Everything here is either immutable, an atomic, or off the path of a command.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::{ArcSwap, Guard};
use dashmap::DashMap;
use tokio::sync::{Semaphore, watch};

use crate::config::Config;
use crate::core::command::in_force::Commands;
use crate::core::moment::Moment;
use crate::net::runtime::budget::Budget;
use crate::net::runtime::crowd::Crowd;
use crate::net::runtime::limits;
use crate::net::runtime::task;
use crate::net::socket::dial::Dialer;
use crate::shard::identity::Identities;
use crate::shard::mailbox::Mailboxes;
use crate::telemetry::Stats;

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
pub struct Seat(Arc<Common>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.seats.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Shared by all threads and all shards.
#[derive(Debug)]
pub struct Common {
    /// The configuration in force. What decides about commands is not asked here: the policies come with the view.
    config: ArcSwap<Config>,
    /// Counts configurations; whoever waits for another one waits here.
    pub configured: watch::Sender<u64>,
    /// How nodes are reached.
    pub dialer: Dialer,
    /// Some policy needs fences: acknowledgements stamp them.
    pub fencing: bool,
    /// Some policy promises anything about how old data is: replicas are listened to whether they go back.
    pub watching: bool,
    /// The command table and what follows from it.
    pub commands: ArcSwap<Commands>,
    /// Verified credentials.
    pub identities: Identities,
    /// Connected clients.
    pub clients: DashMap<u64, ClientEntry>,
    /// How many lanes each worker keeps that no client has at hand.
    pub lanes_unused: usize,
    /// Places for exclusive connections to the primary.
    pub exclusive: Arc<Semaphore>,
    /// Replies that wait for clients whose sockets take nothing.
    pub replies: Arc<Budget>,
    /// How to reach the workers about their clients.
    pub mailboxes: Mailboxes,
    /// One per worker.
    pub stats: Vec<Arc<Stats>>,
    /// True once newcomers are not served any more, and clients are to leave.
    pub drain: watch::Sender<bool>,
    /// When the process ends at the latest, once it is to end.
    ends_at: OnceLock<Moment>,
    /// TLS handshakes of clients.
    pub handshakes: Crowd,
    /// Connections of clients that were accepted and are not closed, whatever they have come to.
    seats: AtomicUsize,
    next_client: AtomicU64,
}

impl Common {
    /// With the threads of so many workers, each of which keeps up to `lanes_unused` lanes that no client has at hand.
    pub fn new(config: Config, dialer: Dialer, workers: usize, lanes_unused: usize) -> Self {
        let fencing = config.policies.fence();
        let watching = config.policies.bound();
        let commands = Commands::builtin(&config.security.deny_commands);
        let exclusive = Arc::new(Semaphore::new(config.upstream.max_exclusive_connections));
        let replies = Arc::new(Budget::new(config.proxy.reply_budget));
        Self {
            config: ArcSwap::from_pointee(config),
            configured: watch::Sender::new(0),
            dialer,
            fencing,
            watching,
            commands: ArcSwap::from_pointee(commands),
            identities: Identities::default(),
            clients: DashMap::new(),
            lanes_unused,
            exclusive,
            replies,
            mailboxes: Mailboxes::new(workers),
            stats: (0..workers).map(|_| Arc::default()).collect(),
            drain: watch::Sender::new(false),
            ends_at: OnceLock::new(),
            handshakes: Crowd::new(limits::TLS_UNDER_WAY, limits::TLS_IN_A_CROWD),
            seats: AtomicUsize::new(0),
            next_client: AtomicU64::new(1),
        }
    }

    /// The configuration in force. Not to be held for long: another one may take its place.
    pub fn config(&self) -> Guard<Arc<Config>> {
        self.config.load()
    }

    /// Reads a second that each worker may let fall back to the primary; `None`: as many as there are.
    pub fn primary_reads(&self) -> Option<f64> {
        let limit = self.config().proxy.primary_read_limit;
        (limit > 0).then(|| limit as f64 / self.stats.len().max(1) as f64)
    }

    /// Another configuration is in force from now on. Its policies are not, until they are in a view.
    pub fn configure(&self, config: Config) {
        let before = self.config.swap(Arc::new(config));
        let now = self.config();
        let (had, has) = (before.upstream.max_exclusive_connections, now.upstream.max_exclusive_connections);
        self.exclusive.add_permits(has.saturating_sub(had));
        self.withdraw_exclusive(had.saturating_sub(has));
        self.replies.set_limit(now.proxy.reply_budget);
        if before.security.deny_commands != now.security.deny_commands {
            self.commands.rcu(|commands| commands.denying(&now.security.deny_commands));
        }
        self.configured.send_modify(|count| *count += 1);
    }

    /// So many places for exclusive connections fewer: those that are taken go when they are given back, before anybody who
    /// stands in line gets them.
    fn withdraw_exclusive(&self, count: usize) {
        let left = count - self.exclusive.forget_permits(count);
        let Ok(left) = u32::try_from(left) else { return };
        if left > 0 {
            let taken = Arc::clone(&self.exclusive).acquire_many_owned(left);
            task::spawn("exclusive connections", async move {
                if let Ok(places) = taken.await {
                    places.forget();
                }
            });
        }
    }

    /// The process is to end, by `deadline` at the latest; said once.
    pub fn leave_by(&self, deadline: Moment) {
        let _ = self.ends_at.set(deadline);
    }

    /// Whether the process is to end, and says so: it may still take newcomers.
    pub fn is_leaving(&self) -> bool {
        self.ends_at.get().is_some()
    }

    /// When clients that have not left are cut off.
    pub fn ends_at(&self) -> Option<Moment> {
        self.ends_at.get().copied()
    }

    /// A place for one more client; `None`: there are `max-clients`.
    pub fn seat(self: &Arc<Self>) -> Option<Seat> {
        let most = self.config().proxy.max_clients;
        let taken = self
            .seats
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| (taken < most).then_some(taken + 1));
        taken.is_ok().then(|| Seat(Arc::clone(self)))
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
