//! What the dashboard and `redweir top` show: one document with all of it, made once a second for all who look.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::body::Bytes;
use serde::Serialize;

use super::metrics::{Process, resident_memory};
use super::ready;
use crate::core::moment::Moment;
use crate::core::nodes::node::Node;
use crate::core::nodes::view::View;
use crate::core::policy::PolicyId;
use crate::core::reason::Reason;
use crate::core::route::{Ask, Demand, judge};
use crate::net::runtime::clock;
use crate::shard::doctor::DoctorReport;
use crate::shard::overall::{self, OverallView};
use crate::shard::shared::Shared;
use crate::telemetry::histogram::{Quantiles, Total};
use crate::telemetry::{AccessLabel, Counter, Stats, Target};

/// How often it is made anew.
pub(super) const EVERY: Duration = Duration::from_secs(1);

/// Keys of each loss.
const KEYS_SHOWN: usize = 10;

/// `GET /overview`. What is counted is counted since the process began.
#[derive(Debug, Serialize)]
struct Overview {
    /// Milliseconds since 1970.
    at_ms: u64,
    version: &'static str,
    uptime_s: f64,
    ready: Ready,
    clients: u64,
    memory_bytes: Option<f64>,
    view: OverallView,
    serves: Vec<Serves>,
    doctor: DoctorReport,
    commands: Vec<Commands>,
    optimistic: Optimistic,
    repeats: Repeats,
    latency: Vec<Latency>,
    masterdown: u64,
    lost_writes: u64,
    primary_changes: u64,
}

/// What `/readyz` says.
#[derive(Debug, Serialize)]
struct Ready {
    reads: bool,
    writes: bool,
    draining: bool,
    text: String,
}

/// Whether a replica is in a state in which the policy `default` lets it serve: what reads demand besides (fences, a barrier) is a
/// matter of each of them.
#[derive(Debug, Serialize)]
struct Serves {
    node: String,
    eligible: bool,
    /// Why not.
    text: &'static str,
}

/// How many commands went where, and why.
#[derive(Debug, Serialize)]
struct Commands {
    access: &'static str,
    target: &'static str,
    reason: &'static str,
    text: &'static str,
    total: u64,
}

/// Reads that were sent to a replica behind a `ROLE`.
#[derive(Debug, Serialize)]
struct Optimistic {
    proven: u64,
    repeated: u64,
}

/// Reads that their node did not answer.
#[derive(Debug, Serialize)]
struct Repeats {
    sent: u64,
    over_budget: u64,
}

/// From a command being read to its reply, since the overview before; `null` where there was none.
#[derive(Debug, Serialize)]
struct Latency {
    access: &'static str,
    target: &'static str,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
}

/// The overviews of one admin server.
#[derive(Debug)]
pub(super) struct Overviews {
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    made: Option<(Moment, Bytes)>,
    totals: Vec<Total>,
}

/// What the latency of is shown.
const MEASURED: [(AccessLabel, Target); 3] = [
    (AccessLabel::Read, Target::Replica),
    (AccessLabel::Read, Target::Primary),
    (AccessLabel::Write, Target::Primary),
];

impl Overviews {
    pub(super) fn new() -> Self {
        Self { last: Mutex::default() }
    }

    /// The present one, as JSON without a line break: no older than [`EVERY`].
    pub(super) fn latest(&self, shared: &Arc<Shared>, process: &Process) -> serde_json::Result<Bytes> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock::now();
        if let Some((_, known)) = last.made.as_ref().filter(|(at, _)| now.since(*at) < EVERY * 9 / 10) {
            return Ok(known.clone());
        }
        let totals: Vec<Total> =
            MEASURED.iter().map(|(access, target)| total(shared, *access, *target)).collect();
        let before = std::mem::replace(&mut last.totals, totals);
        let latency = MEASURED.iter().enumerate().map(|(n, (access, target))| {
            let quantiles = last.totals.get(n).map(|total| total.since(before.get(n))).unwrap_or_default();
            latency(*access, *target, &quantiles)
        });
        let latency = latency.collect();
        let text = serde_json::to_vec(&overview(shared, process, latency, now))?;
        let made = Bytes::from(text);
        last.made = Some((now, made.clone()));
        Ok(made)
    }
}

fn total(shared: &Shared, access: AccessLabel, target: Target) -> Total {
    let at_primary = target == Target::Primary;
    Total::of(shared.stats.iter().map(|stats| &stats.latency(access, at_primary).request))
}

fn latency(access: AccessLabel, target: Target, quantiles: &Quantiles) -> Latency {
    let millis = |of: u32| quantiles.at(of).map(|span| span.as_secs_f64() * 1000.0);
    Latency { access: access.label(), target: target.label(), p50_ms: millis(500), p99_ms: millis(990) }
}

fn overview(shared: &Arc<Shared>, process: &Process, latency: Vec<Latency>, now: Moment) -> Overview {
    let sum =
        |pick: fn(&Stats) -> &Counter| shared.stats.iter().map(|stats| pick(stats).value()).sum::<u64>();
    let (reads, writes) = ready::works(shared, now);
    let shards = overall::shards(shared);
    let (_, text) = ready::answer(shared, false, now);
    let mut view = overall::view_of(shared, now);
    let of_shards = view.shards.iter_mut().flatten().map(|shard| &mut shard.view);
    for loss in std::iter::once(&mut view.first).chain(of_shards).flat_map(|view| &mut view.losses) {
        // All of them are in `/view`, and would be many megabytes a second.
        loss.all_keys &= loss.keys.len() <= KEYS_SHOWN;
        loss.keys.truncate(KEYS_SHOWN);
    }
    let since_1970 = clock::unix();
    Overview {
        at_ms: since_1970.as_millis() as u64,
        version: env!("CARGO_PKG_VERSION"),
        uptime_s: (since_1970.as_secs_f64() - process.started()).max(0.0),
        ready: Ready { reads, writes, draining: shared.is_leaving(), text },
        clients: sum(|stats| &stats.clients),
        memory_bytes: resident_memory(),
        doctor: (*overall::doctor(shared)).clone(),
        commands: commands(shared),
        optimistic: Optimistic {
            proven: sum(|stats| &stats.optimistic_proven),
            repeated: sum(|stats| &stats.optimistic_repeated),
        },
        repeats: Repeats {
            sent: sum(|stats| &stats.repeated_reads),
            over_budget: sum(|stats| &stats.unrepeated_reads),
        },
        latency,
        masterdown: sum(|stats| &stats.masterdown),
        serves: shards.iter().flat_map(|shard| serves(&shard.shard().view.load(), now)).collect(),
        lost_writes: shards.iter().map(|shard| shard.shard().lost_writes.value()).sum(),
        primary_changes: shards.iter().map(|shard| shard.shard().primary_changes.value()).sum(),
        view,
    }
}

fn serves(view: &View, now: Moment) -> Vec<Serves> {
    let id = PolicyId::default();
    let Some(policy) = view.policies.get(id) else { return Vec::new() };
    let ask = Ask::of_anybody(view, (id, policy), Demand::Nothing, now);
    let replicas = view.members().filter(|node| view.primary != Some(node.id));
    let one = |node: &Node| {
        let why_not = judge(node, &ask).err();
        Serves { node: node.name(), eligible: why_not.is_none(), text: why_not.map_or("", Reason::text) }
    };
    replicas.map(one).collect()
}

/// Whatever has occurred.
fn commands(shared: &Shared) -> Vec<Commands> {
    let mut all = Vec::new();
    for access in AccessLabel::ALL {
        for target in Target::ALL {
            for reason in Reason::ALL {
                let total: u64 = shared.stats.iter().map(|s| s.commands(access, target, reason)).sum();
                if total > 0 {
                    let (access, target) = (access.label(), target.label());
                    all.push(Commands { access, target, reason: reason.label(), text: reason.text(), total });
                }
            }
        }
    }
    all
}
