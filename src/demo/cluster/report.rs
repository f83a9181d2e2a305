//! What the demo of a cluster tells: a line per second of what the servers counted, and a few at the end of what the clients
//! saw.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::ensure;

use super::nodes::{Nodes, SHARDS};
use super::straight::Straight;
use crate::core::moment::in_words;
use crate::demo::servers::{Redis, calls};
use crate::demo::workload::Tally;
use crate::demo::{say, shown};

/// What stands over the lines.
pub(super) const HEAD: &str =
    "            writes/s   reads/s: at primaries        at replicas  slots  false  stale
  shard 1     2     3          1     2     3      1     2     3  moved   nils  reads";

/// What the nodes have counted; nothing of one that was killed.
#[derive(Debug)]
pub(super) struct Counts([[Option<NodeCounts>; 2]; SHARDS]);

#[derive(Debug)]
struct NodeCounts {
    is_primary: bool,
    sets: u64,
    gets: u64,
}

/// What a shard did between two looks; nothing where it had no such node.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Work {
    writes: Option<u64>,
    reads_at_primary: Option<u64>,
    reads_at_replica: Option<u64>,
}

impl Counts {
    pub(super) async fn of(nodes: &Nodes) -> anyhow::Result<Self> {
        let mut counts = [const { [None, None] }; SHARDS];
        for (shard, counts) in counts.iter_mut().enumerate() {
            for (node, counts) in [nodes.primary(shard), nodes.replica(shard)].into_iter().zip(counts) {
                *counts = NodeCounts::of(node).await?;
            }
        }
        Ok(Self(counts))
    }

    /// What each shard has done since `before`.
    pub(super) fn since(&self, before: &Self) -> [Work; SHARDS] {
        let mut works = [Work::default(); SHARDS];
        for (work, (now, before)) in works.iter_mut().zip(self.0.iter().zip(&before.0)) {
            for (now, before) in now.iter().zip(before) {
                let (Some(now), Some(before)) = (now, before) else { continue };
                let gets = now.gets.saturating_sub(before.gets);
                if now.is_primary {
                    work.reads_at_primary = Some(gets);
                    work.writes = Some(now.sets.saturating_sub(before.sets));
                } else {
                    work.reads_at_replica = Some(gets);
                }
            }
        }
        works
    }
}

impl NodeCounts {
    async fn of(node: &Redis) -> anyhow::Result<Option<Self>> {
        if node.is_killed() {
            return Ok(None);
        }
        let info = node.info_async("everything").await?;
        let is_primary = info.contains("role:master");
        Ok(Some(Self { is_primary, sets: calls(&info, "set"), gets: calls(&info, "get") }))
    }
}

/// A line: what the shards did within a second, and what there is of the rest by now.
pub(super) fn row(works: &[Work; SHARDS], slots_moved: u64, groups: &[Arc<Tally>]) -> String {
    let columns = |count: fn(&Work) -> Option<u64>| {
        let [one, two, three] = works.map(|work| shown(count(&work), ""));
        format!("{one:>6}{two:>6}{three:>6}")
    };
    let (nils, stale) = wrong(groups);
    format!(
        "   {}     {} {}{slots_moved:>7}{nils:>7}{stale:>7}",
        columns(|work| work.writes),
        columns(|work| work.reads_at_primary),
        columns(|work| work.reads_at_replica),
    )
}

/// Reads that found nothing, and others that found something older than they had to.
fn wrong(groups: &[Arc<Tally>]) -> (u64, u64) {
    let nils = sum(groups, |tally| &tally.nils);
    (nils, sum(groups, |tally| &tally.stale) - nils)
}

fn sum(groups: &[Arc<Tally>], count: impl Fn(&Tally) -> &AtomicU64) -> u64 {
    groups.iter().map(|tally| count(tally).load(Ordering::Relaxed)).sum()
}

/// Who answered reads, as the servers counted.
#[derive(Debug, Default)]
pub(super) struct Answers {
    primaries: AtomicU64,
    replicas: AtomicU64,
}

impl Answers {
    pub(super) fn add(&self, works: &[Work; SHARDS]) {
        for work in works {
            self.primaries.fetch_add(work.reads_at_primary.unwrap_or(0), Ordering::Relaxed);
            self.replicas.fetch_add(work.reads_at_replica.unwrap_or(0), Ordering::Relaxed);
        }
    }

    fn percent_by_replicas(&self) -> u64 {
        let (primaries, replicas) =
            (self.primaries.load(Ordering::Relaxed), self.replicas.load(Ordering::Relaxed));
        100 * replicas / (primaries + replicas).max(1)
    }
}

/// What the move of slots was like.
#[derive(Debug)]
pub(super) struct Moved {
    pub(super) slots: usize,
    pub(super) keys: u32,
    pub(super) took: Duration,
    /// Reads of these keys meanwhile, and those that found nothing.
    pub(super) reads: u64,
    pub(super) nils: u64,
    /// The same straight at replicas.
    pub(super) straight: Straight,
}

impl Moved {
    pub(super) fn tell(&self) {
        let Self { slots, keys, reads, nils, straight, .. } = self;
        let [straight_reads, straight_nils] =
            [&straight.reads, &straight.nils].map(|count| count.load(Ordering::Relaxed));
        say(&format!(
            "{slots} slots moved within {}, key by key ({keys} keys). Meanwhile these keys were read:\n  \
             {reads:>6} times through Redweir: {nils} false nils\n  \
             {straight_reads:>6} times straight at replicas, as cluster clients read there: {straight_nils} false nils",
            in_words(self.took),
        ));
    }
}

/// What became of the shard whose primary was killed.
#[derive(Debug)]
pub(super) struct Takeover {
    /// How long it had no primary.
    pub(super) after: Duration,
    /// The longest write of this shard, and of the others.
    pub(super) waited: Duration,
    pub(super) waited_elsewhere: Duration,
    /// Keys that have lost what was acknowledged.
    pub(super) lost: usize,
}

impl Takeover {
    pub(super) fn tell(&self) {
        let Self { after, waited, waited_elsewhere, lost } = self;
        let [after, waited, elsewhere] = [*after, *waited, *waited_elsewhere].map(in_words);
        say(&format!(
            "primary-2 was killed, and replaced after {after}.\n  \
             Writes to its shard were held for up to {waited}, then executed; the longest to another shard took {elsewhere}.\n  \
             Keys with acknowledged writes that it had not replicated, and that are lost: {lost}."
        ));
    }
}

/// Says what all clients saw. An error if Redweir has not kept what it promises.
pub(super) fn conclude(groups: &[Arc<Tally>], answers: &Answers) -> anyhow::Result<()> {
    let (nils, stale) = wrong(groups);
    let refused = sum(groups, |tally| &tally.refused);
    say(&format!(
        "Writes that were sent and not answered, and got an error that says so: {}. Commands refused: {refused}.",
        sum(groups, |tally| &tally.doubtful_writes),
    ));
    say(&format!(
        "\n{} reads, {} % of them answered by replicas: {nils} false nils, {stale} stale.",
        sum(groups, |tally| &tally.reads),
        answers.percent_by_replicas(),
    ));
    ensure!(nils == 0 && stale == 0, "{nils} false nils, {stale} stale reads");
    let first = groups.iter().find_map(|tally| tally.first_refusal.get());
    ensure!(refused == 0, "{refused} commands refused, the first: {}", first.map_or("?", String::as_str));
    Ok(())
}
