//! Counting without cost: every worker owns plain counters that only it writes; a scrape adds them up.
//!
//! A shared counter costs an atomic read-modify-write on a contended cache line per command. Here a worker does a
//! relaxed load and a relaxed store on a line of its own, and the exporter is told absolute values once per scrape.

pub mod histogram;

use std::sync::atomic::{AtomicU64, Ordering};

use crate::core::reason::Reason;
use histogram::Histogram;

/// What a command does, as a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLabel {
    /// It reads and may go to a replica.
    Read,
    /// It may change something.
    Write,
    /// It reads, but only the primary or Redweir may answer.
    Other,
}

impl AccessLabel {
    /// All values.
    pub const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Other];

    /// Metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Other => "other",
        }
    }
}

/// Where a command went, as a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The primary.
    Primary,
    /// A replica.
    Replica,
    /// Nowhere: it was refused.
    Refused,
}

impl Target {
    /// All values.
    pub const ALL: [Self; 3] = [Self::Primary, Self::Replica, Self::Refused];

    /// Those that answer.
    pub const ANSWERS: [Self; 2] = [Self::Primary, Self::Replica];

    /// Metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::Refused => "refused",
        }
    }
}

/// A counter with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owner may call it: two writers would lose counts.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Takes `n` away, for gauges.
    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(n), Ordering::Relaxed);
    }

    /// The present value.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How long commands take.
#[derive(Debug, Default)]
pub struct Latency {
    /// From a command being read to its reply being ready to write, in nanoseconds.
    pub request: Histogram,
    /// From a command being given to a lane to its reply being read, in nanoseconds.
    pub upstream: Histogram,
}

/// Everything one worker counts.
#[derive(Debug)]
#[repr(align(128))]
pub struct Stats {
    commands: Vec<Counter>,
    latencies: [Latency; AccessLabel::ALL.len() * Target::ANSWERS.len()],
    /// Clients connected now.
    pub clients: Counter,
    /// Clients accepted.
    pub accepted: Counter,
    /// Clients disconnected because they did not read.
    pub slow_clients: Counter,
    /// Clients disconnected because they said nothing.
    pub idle_clients: Counter,
    /// Clients whose TLS handshake failed.
    pub tls_failed: Counter,
    /// Protocol errors of clients.
    pub protocol_errors: Counter,
    /// Commands that `deny-commands` refused.
    pub denied: Counter,
    /// Commands that nobody could answer: they were told `-MASTERDOWN`.
    pub masterdown: Counter,
    /// Upstream connections open now.
    pub lanes: Counter,
    /// Upstream connections that ended out of step.
    pub desynchronised: Counter,
    /// Writes whose connection was lost after they had been sent.
    pub uncertain_writes: Counter,
    /// Writes that a node has refused because it had become a replica, and that went to the next primary.
    pub refused_writes: Counter,
    /// Connections that were given up because nothing came on them while their node answered on another.
    pub stalled: Counter,
    /// Commands that went on to another primary of the cluster, for their slot, or some of it, was there.
    pub redirected: Counter,
    /// Reads sent again elsewhere.
    pub repeated_reads: Counter,
    /// Reads at the primary that one request has asked for together with another.
    pub shared_reads: Counter,
    /// Reads that were not sent again, for too many were.
    pub unrepeated_reads: Counter,
    /// Reads sent on hope whose proof was enough.
    pub optimistic_proven: Counter,
    /// Reads sent on hope whose proof was not: repeated on the primary.
    pub optimistic_repeated: Counter,
}

impl Default for Stats {
    fn default() -> Self {
        let cells = AccessLabel::ALL.len() * Target::ALL.len() * Reason::ALL.len();
        Self {
            commands: (0..cells).map(|_| Counter::default()).collect(),
            latencies: Default::default(),
            clients: Counter::default(),
            accepted: Counter::default(),
            slow_clients: Counter::default(),
            idle_clients: Counter::default(),
            tls_failed: Counter::default(),
            protocol_errors: Counter::default(),
            denied: Counter::default(),
            masterdown: Counter::default(),
            lanes: Counter::default(),
            desynchronised: Counter::default(),
            uncertain_writes: Counter::default(),
            refused_writes: Counter::default(),
            stalled: Counter::default(),
            redirected: Counter::default(),
            repeated_reads: Counter::default(),
            shared_reads: Counter::default(),
            unrepeated_reads: Counter::default(),
            optimistic_proven: Counter::default(),
            optimistic_repeated: Counter::default(),
        }
    }
}

impl Stats {
    /// One command went to `target` for `reason`.
    pub fn command(&self, access: AccessLabel, target: Target, reason: Reason) {
        if let Some(counter) = self.commands.get(cell(access, target, reason)) {
            counter.add(1);
        }
    }

    /// How long commands of this kind take that the primary, or a replica, answers.
    #[inline]
    pub fn latency(&self, access: AccessLabel, at_primary: bool) -> &Latency {
        &self.latencies[access as usize * Target::ANSWERS.len() + usize::from(!at_primary)]
    }

    /// Reads that were sent to somebody.
    pub fn reads(&self) -> u64 {
        let of =
            |target| Reason::ALL.iter().map(move |reason| self.commands(AccessLabel::Read, target, *reason));
        Target::ANSWERS.into_iter().flat_map(of).sum()
    }

    /// How many commands went to `target` for `reason`.
    pub fn commands(&self, access: AccessLabel, target: Target, reason: Reason) -> u64 {
        self.commands.get(cell(access, target, reason)).map_or(0, Counter::value)
    }
}

fn cell(access: AccessLabel, target: Target, reason: Reason) -> usize {
    (access as usize * Target::ALL.len() + target as usize) * Reason::ALL.len() + reason as usize
}
