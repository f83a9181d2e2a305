//! What is told of all shards of a cluster. Without a cluster there is one, and of that it is told as ever.

use std::fmt::Write as _;
use std::sync::Arc;

use serde::Serialize;

use crate::core::moment::Moment;
use crate::core::nodes::node::Role;
use crate::core::nodes::view::View;
use crate::core::slots::{Holding, Holdings, ShardIndex, count, in_words};
use crate::shard::doctor::DoctorReport;
use crate::shard::report::{self, ViewReport};
use crate::shard::shared::Shared;

/// Ranges of slots that a line names.
const RANGES: usize = 8;

/// The view of the first shard, and in a cluster those of all.
#[derive(Clone, Debug, Serialize)]
pub struct OverallView {
    /// The first shard, or the only one.
    #[serde(flatten)]
    pub first: ViewReport,
    /// All that have a primary; `null` without a cluster.
    pub shards: Option<Vec<ShardReport>>,
    /// The hash slots that no shard has, as ranges; `null` without a cluster.
    pub slots_unowned: Option<Vec<String>>,
}

/// One shard of a cluster.
#[derive(Clone, Debug, Serialize)]
pub struct ShardReport {
    /// Its number.
    pub shard: usize,
    /// The node believed to be its primary.
    pub primary: Option<String>,
    /// How many hash slots it has.
    pub slots: usize,
    /// Which, as ranges.
    pub slot_ranges: Vec<String>,
    /// How many of them move.
    pub slots_moving: usize,
    /// The config epoch under which it has them.
    pub config_epoch: Option<u64>,
    /// What is known of its nodes.
    pub view: ViewReport,
}

/// Those that are told of: in a cluster all that have a primary, and the first as long as none is known.
pub fn shards(shared: &Arc<Shared>) -> Vec<Arc<Shared>> {
    let Some(cluster) = shared.cluster() else { return vec![Arc::clone(shared)] };
    let all: Vec<Arc<Shared>> = cluster.live().iter().filter_map(|index| cluster.shard(*index)).collect();
    if all.is_empty() { vec![first(shared)] } else { all }
}

/// Whether it is one of those.
pub fn is_told_of(shared: &Shared) -> bool {
    let Some(cluster) = shared.cluster() else { return true };
    let live = cluster.live();
    live.contains(&shared.index()) || live.is_empty() && shared.index() == ShardIndex::FIRST
}

/// Whether it is the one of those that tells of what is about no shard.
pub fn speaks_for_all(shared: &Shared) -> bool {
    let live = shared.cluster().map(|cluster| cluster.live());
    let first = live.and_then(|live| live.first().copied());
    first.unwrap_or(ShardIndex::FIRST) == shared.index()
}

/// Who has which hash slots; `None`: there is no cluster.
pub fn holdings(shared: &Shared) -> Option<Holdings> {
    shared.cluster().map(|cluster| cluster.claims().holdings())
}

/// The view, for `/view`.
pub fn view_of(shared: &Arc<Shared>, now: Moment) -> OverallView {
    let holdings = holdings(shared);
    let shards = holdings.as_ref().map(|holdings| {
        let all = shards(shared);
        all.iter().map(|shard| shard_report(shard, &holdings.shard(shard.index()), now)).collect()
    });
    let unowned = holdings.map(|holdings| holdings.unowned.iter().map(ToString::to_string).collect());
    OverallView { first: report::view_of(&first(shared), now), shards, slots_unowned: unowned }
}

fn shard_report(shared: &Shared, holding: &Holding, now: Moment) -> ShardReport {
    let view = report::view_of(shared, now);
    let epoch = shared.cluster().and_then(|cluster| cluster.claims().epoch(shared.index()));
    ShardReport {
        shard: shared.index().index(),
        primary: view.primary.clone(),
        slots: holding.count(),
        slot_ranges: holding.ranges.iter().map(ToString::to_string).collect(),
        slots_moving: holding.moving,
        config_epoch: epoch,
        view,
    }
}

/// The view, for `REDWEIR VIEW`. `view` is what the client's connection has.
pub fn view_text(shared: &Arc<Shared>, view: &View, now: Moment) -> String {
    let Some(holdings) = holdings(shared) else { return report::view_text(shared, view, now) };
    let mut out = String::new();
    for shard in shards(shared) {
        let _ = writeln!(out, "shard {}: {}", shard.index(), held(&holdings.shard(shard.index())));
        out.push_str(&report::view_text(&shard, &shard.shard().view.load(), now));
    }
    if let Some(line) = uncovered(&holdings) {
        let _ = writeln!(out, "{line}");
    }
    out
}

/// The slots of a shard in words.
pub fn held(holding: &Holding) -> String {
    match holding.count() {
        0 => "no slots".to_owned(),
        slots => {
            let ranges = in_words(&holding.ranges, RANGES);
            let word = if slots == 1 { "slot" } else { "slots" };
            format!("{slots} {word} ({ranges}), {} moving", holding.moving)
        }
    }
}

/// That there are slots that nobody has.
pub fn uncovered(holdings: &Holdings) -> Option<String> {
    let slots = count(&holdings.unowned);
    (slots > 0).then(|| format!("no shard has {slots} slots ({})", in_words(&holdings.unowned, RANGES)))
}

/// What failovers have lost, for `REDWEIR LOSSES`.
pub fn losses_text(shared: &Arc<Shared>, now: Moment) -> String {
    if shared.cluster().is_none() {
        return report::losses_text(shared, now);
    }
    let mut out = String::new();
    for shard in shards(shared) {
        let _ = writeln!(out, "shard {}:", shard.index());
        out.push_str(&report::losses_text(&shard, now));
    }
    out
}

/// The `# Redweir` section of `INFO`.
pub fn info_section(shared: &Arc<Shared>, now: Moment) -> String {
    let Some(holdings) = holdings(shared) else { return report::info_section(shared, now) };
    let mut out = report::info_section(&first(shared), now);
    let all = shards(shared);
    // Writing to a `String` cannot fail.
    let _ = write!(out, "redweir_shards:{}\r\n", all.len());
    let _ = write!(out, "redweir_slots_unowned:{}\r\n", count(&holdings.unowned));
    for shard in all {
        let (view, holding) = (shard.shard().view.load(), holdings.shard(shard.index()));
        let report = report::view_report(&view, now);
        let replicas = report.nodes.iter().filter(|node| node.role == Role::Replica.name());
        let (count, serving) = (replicas.clone().count(), replicas.filter(|node| node.in_service).count());
        let _ = write!(
            out,
            "redweir_shard{}:primary={},slots={},moving={},replicas={count},in_service={serving},stream_attached={}\r\n",
            shard.index(),
            report.primary.as_deref().unwrap_or(""),
            holding.count(),
            holding.moving,
            u8::from(shard.shard().stream.is_attached()),
        );
    }
    out
}

/// What the doctors of all shards find.
pub fn doctor(shared: &Arc<Shared>) -> Arc<DoctorReport> {
    if shared.cluster().is_none() {
        return shared.shard().doctor.report();
    }
    let parts =
        shards(shared).into_iter().map(|shard| (shard.index().index(), shard.shard().doctor.report()));
    Arc::new(DoctorReport::join(parts))
}

/// Its number, where there are several.
pub fn label(shared: &Shared) -> Option<usize> {
    shared.cluster().map(|_| shared.index().index())
}

/// The one that answers what is about no key.
fn first(shared: &Arc<Shared>) -> Arc<Shared> {
    let first = shared.cluster().and_then(|cluster| cluster.shard(ShardIndex::FIRST));
    first.unwrap_or_else(|| Arc::clone(shared))
}
