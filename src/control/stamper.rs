//! Stamps the fences with what the replication stream tells, and chooses where it is read.

use std::cell::Cell;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics::{Label, counter};
use tokio::sync::watch;

use crate::control::follower::{Detached, Source, StreamSink};
use crate::core::argv::Args;
use crate::core::command::in_force::{Commands, LastCommand};
use crate::core::command::{Access, Intent, Keys, WriteKeys};
use crate::core::fence::Slot;
use crate::core::moment::in_words;
use crate::core::nodes::node::NodeId;
use crate::core::nodes::view::View;
use crate::core::position::{Offset, ReplId};
use crate::core::slots::{HashSlot, emptied_slots};
use crate::core::stream::coverage::Coverage;
use crate::core::stream::lost::{Loss, LostTail, RecentWrites};
use crate::core::stream::source::{self, Avoided, Moves, StreamSource, Wish};
use crate::mutant;
use crate::net::runtime::clock;
use crate::net::runtime::jitter;
use crate::shard::shared::Shared;
use crate::shard::withheld::Wanted;
use crate::wire::stream::StreamCommand;

/// How often the choice of the source is looked at when the view does not change: a source that failed may be tried
/// again some time.
const RECONSIDER: Duration = Duration::from_secs(1);

/// How many writes are collected before they are stamped.
const WRITTEN_KEPT: usize = 1024;

/// Sources that failed, shared between the one who hears of it and the one who chooses.
pub type FailedSources = Arc<Mutex<Avoided>>;

/// Takes the stream in.
#[derive(Debug)]
pub struct Stamper {
    shared: Arc<Shared>,
    coverage: Coverage,
    recent: RecentWrites,
    failures: FailedSources,
    /// The command table, as it was when the link last got on.
    commands: Arc<Commands>,
    last: LastCommand,
    /// Slots that were written, and where each write ended, to be stamped before anybody hears how far the stream got.
    written: Vec<(Slot, Offset)>,
    /// Hash slots of another shard with writes on this stream: they move.
    foreign: Vec<HashSlot>,
}

impl Stamper {
    /// A sink for the stream; it reports sources that fail to `failures`.
    pub fn new(shared: Arc<Shared>, failures: FailedSources) -> Self {
        let commands = shared.commands.load_full();
        Self {
            shared,
            coverage: Coverage::default(),
            recent: RecentWrites::default(),
            failures,
            commands,
            last: LastCommand::default(),
            written: Vec::new(),
            foreign: Vec::new(),
        }
    }

    /// The history that the view goes by.
    fn ours(&self) -> Option<ReplId> {
        self.shared.shard().view.load().history.map(|history| history.id)
    }

    fn wrote_anything(&mut self, end: Offset) {
        let (ours, next) = (self.ours(), self.shared.shard().anchors.next());
        self.coverage.wrote_anything(&self.shared.shard().fences, end, ours, next);
    }

    /// Whether the command empties hash slots of a cluster: replicas may be asked for keys in those once they have applied it. That
    /// may be much later than for others, and is of no concern to them.
    fn emptied_slots(&self, intent: Intent, command: &StreamCommand<'_>) -> bool {
        if self.shared.cluster().is_none() || command.is_cut() {
            return false;
        }
        let Some(ranges) = emptied_slots(self.commands.table.name(intent.id), command) else { return false };
        if !mutant::is("emptied-unfenced") {
            let shard = self.shared.shard();
            shard.floors.raise(ranges.iter().flat_map(|range| range.iter()), || shard.anchors.next());
        }
        true
    }

    /// Tells of hash slots that have come here, or are about to: before anybody hears how far the stream got.
    fn tell_foreign(&mut self) {
        if self.foreign.is_empty() {
            return;
        }
        let (index, now) = (self.shared.index(), clock::now());
        if let Some(cluster) = self.shared.cluster() {
            self.foreign.sort_unstable();
            self.foreign.dedup();
            for slot in self.foreign.drain(..) {
                cluster.hear(|claims| claims.foreign_write(index, slot, now));
            }
        }
    }

    /// Stamps what was written.
    fn stamp(&mut self) {
        self.tell_foreign();
        if self.written.is_empty() {
            return;
        }
        let (fences, ours, next) =
            (&self.shared.shard().fences, self.ours(), self.shared.shard().anchors.next());
        self.coverage.wrote(fences, &self.written, ours, next);
        self.written.clear();
    }

    /// Tells once what the primary's history does not have of the one that was followed before.
    fn tell_losses(&mut self, view: &View) {
        if let Some(lost) = view.history.as_ref().and_then(|history| self.recent.lost_in(history)) {
            self.shared.shard().lost_writes.add(lost.writes);
            tell(&lost);
            self.shared.shard().losses.add(Loss::Tail(lost), clock::now());
        }
    }
}

impl Stamper {
    /// Counts links that were made or lost; in a cluster, by shard.
    fn count(&self, result: &'static str) {
        let mut labels = vec![Label::from_static_parts("result", result)];
        if self.shared.cluster().is_some() {
            labels.push(Label::new("shard", self.shared.index().to_string()));
        }
        counter!("redweir_stream_attach_total", labels).increment(1);
    }
}

impl StreamSink for Stamper {
    fn attached(&mut self, source: NodeId, id: ReplId, from: Offset, resumed: bool) {
        self.stamp();
        self.commands = self.shared.commands.load_full();
        let (ours, next) = (self.ours(), self.shared.shard().anchors.next());
        self.coverage.attached(&self.shared.shard().fences, (id, from), resumed, ours, next);
        self.recent.attached(id);
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).served(source);
        self.shared.shard().stream.follow(Some(source));
        self.shared.shard().withheld.is_had(Wanted::Psync);
        let result = if resumed { "resumed" } else { "attached" };
        self.count(result);
        let name =
            self.shared.shard().address(source).map_or_else(String::new, |address| address.to_string());
        let how = if resumed { "without a gap" } else { "what was written before is not known" };
        tracing::info!("following the replication stream of {name} from offset {from}: {how}");
    }

    fn command(&mut self, command: &StreamCommand<'_>, end: Offset) {
        let intent = self.last.classify(command, &self.commands);
        match intent.access {
            Access::Read | Access::PrimaryRead(_) => {}
            // No policy looks at fences: the stream only says how far it got, and how much a failover lost.
            _ if !self.shared.fencing => self.recent.wrote(end, true),
            Access::Write { keys: WriteKeys::Known } => {
                let (fences, written, recent) =
                    (&self.shared.shard().fences, &mut self.written, &mut self.recent);
                let (cluster, index, foreign) =
                    (self.shared.cluster(), self.shared.index(), &mut self.foreign);
                let whole = Whole { command, cut: Cell::new(false) };
                recent.wrote(end, false);
                let mut write = |key: &[u8]| {
                    if let Some(cluster) = cluster {
                        let slot = HashSlot::of(key);
                        if cluster.place(slot).owner.is_some_and(|owner| owner != index) {
                            foreign.push(slot);
                        }
                    }
                    written.push((fences.slot(key), end));
                    recent.named(key);
                };
                let keys = self.commands.table.for_each_written_key(intent.id, &whole, &mut write);
                if keys == Keys::Unknowable || whole.cut.get() {
                    self.recent.left_unnamed();
                    self.wrote_anything(end);
                } else if self.written.len() >= WRITTEN_KEPT {
                    self.stamp();
                }
            }
            Access::Write { keys: WriteKeys::Unknowable } | Access::Unknown => {
                self.recent.wrote(end, true);
                if !self.emptied_slots(intent, command) {
                    self.wrote_anything(end);
                }
            }
        }
    }

    fn progressed(&mut self, upto: Offset) {
        self.stamp();
        let commands = self.shared.commands.load();
        if commands.version != self.commands.version {
            self.commands = Arc::clone(&commands);
        }
        let view = self.shared.shard().view.load();
        let history = (view.history.map(|history| history.id), view.era);
        let next = self.shared.shard().anchors.next();
        self.coverage.progressed(&self.shared.shard().fences, upto, history, next);
        self.tell_losses(&view);
        self.shared.shard().stream.moved_to(upto.bytes());
    }

    fn detached(&mut self, source: NodeId, why: &Detached) {
        self.stamp();
        self.recent.detached();
        self.tell_losses(&self.shared.shard().view.load_full());
        self.shared.shard().stream.follow(None);
        self.count(why.kind());
        if why.is_withheld() && self.shared.shard().withheld.note(source, Wanted::Psync, true) {
            let name = self.shared.shard().address(source);
            let name = name.map_or_else(String::new, |address| address.to_string());
            tracing::warn!("{name} refuses {}: {}", Wanted::Psync.name(), Wanted::Psync.without());
        }
        if why.blames_source() {
            let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
            failures.failed(source, clock::now());
        }
    }
}

/// Says what a failover has lost.
fn tell(lost: &LostTail) {
    let shown: Vec<_> = lost.keys.iter().take(KEYS_SHOWN).map(|key| String::from_utf8_lossy(key)).collect();
    let keys = shown.join(", ");
    tracing::warn!(
        "the failover lost {} writes ({} bytes, offset {} to {}) that the old primary had made, at least: of {}; REDWEIR LOSSES \
         tells all their keys",
        lost.writes,
        lost.bytes(),
        lost.from,
        lost.upto,
        if keys.is_empty() { "unknown keys".to_owned() } else { keys.escape_debug().to_string() }
    );
}

/// Keys that one line of the log names.
const KEYS_SHOWN: usize = 16;

/// A command of which it is noticed when an argument that was cut is looked at: a key that cannot be had is any key.
struct Whole<'a, 'b> {
    command: &'a StreamCommand<'b>,
    cut: Cell<bool>,
}

impl Args for Whole<'_, '_> {
    fn count(&self) -> usize {
        self.command.count()
    }

    fn arg(&self, index: usize) -> &[u8] {
        self.command.whole(index).unwrap_or_else(|| {
            self.cut.set(true);
            &[]
        })
    }
}

/// Says why the stream is read at the primary though a replica could be the source.
fn tell_why(view: &View, choice: StreamSource, chosen: Option<NodeId>) {
    if choice == StreamSource::Auto
        && chosen.is_some()
        && chosen == view.primary
        && let Some((patience, delay)) = source::strong_reads_wait_in_vain(view, false)
    {
        tracing::info!(
            "the replication stream is followed at the primary: the freshest replica is {} behind, and strong reads wait no \
             longer than {} (wait-timeout)",
            in_words(delay),
            in_words(patience)
        );
    }
}

/// Tells the follower which node to read from, as the view changes. Ends when the follower is gone.
pub async fn choose_source(
    shared: Arc<Shared>,
    failures: FailedSources,
    wanted: watch::Sender<Option<Source>>,
) {
    let mut views = shared.shard().views.subscribe();
    let [chance, ..] = jitter::seeds();
    let mut moves = Moves::default();
    while !wanted.is_closed() {
        let view = shared.shard().view.load_full();
        let current = wanted.borrow().as_ref().map(|source| source.node);
        let primary = view.primary.and_then(|id| view.node(id));
        let min_replicas = primary.and_then(|node| node.facts.as_ref()?.min_replicas_to_write);
        let (config, now) = (shared.config(), clock::now());
        let wish = Wish {
            choice: config.stream.source,
            min_replicas_to_write: min_replicas,
            watched: config.upstream.sentinel.is_some(),
            may_move: moves.may_move(now),
        };
        drop(config);
        let chosen = {
            let failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
            source::choose(&view, wish, current, &failures, chance, now)
        };
        if chosen != current {
            // The first choice is no move: then nothing is known yet of how far behind they are.
            // One that fails is not left because another is fresher.
            if current.is_some_and(|node| source::still_serves(&view, node, now)) {
                moves.moved(now);
            }
            tell_why(&view, wish.choice, chosen);
        }
        let source = chosen
            .and_then(|node| Some(Source { node, address: shared.shard().address(node)?.as_ref().clone() }));
        wanted.send_if_modified(|present| {
            let changed = *present != source;
            if changed {
                *present = source;
            }
            changed
        });
        let _ = tokio::time::timeout(RECONSIDER, views.changed()).await;
    }
}
