//! Fences: per key, the offset that a replica must have applied before it may serve that key.
//!
//! A fixed array of atomics; a key's slot is a keyed hash, so that clients cannot aim collisions. A slot holds either
//! the highest offset stamped for any of its keys, or *pending until anchor n*: a write was acknowledged, and the
//! first anchor sent after the acknowledgement will bound its offset. Pending orders above every offset, so that one
//! `fetch_max` serves both. Collisions, other databases and forgotten keys only over-fence. Nothing is ever evicted.
//!
//! **Why an anchor bounds it**: the acknowledgement had been received before anchor n was sent, so the primary had
//! executed the write before it answered `ROLE`, and the head in that answer is at or after the write's end.

mod mark;

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

use ahash::RandomState;
use bytemuck::allocation::zeroed_slice_box;
use smallvec::SmallVec;

use crate::core::position::Offset;
use crate::mutant;
pub use mark::Mark;

/// Number of an anchor, in the order in which they are sent; the first is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct AnchorSeq(pub u64);

/// A slot of the fence table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot(u32);

/// Anchors: how many were sent. Shared by the prober, which counts, and everyone who stamps.
#[derive(Debug, Default)]
pub struct AnchorCounter(AtomicU64);

impl AnchorCounter {
    /// Takes the next number. To be called *before* the question is written to the socket.
    pub fn take(&self) -> AnchorSeq {
        AnchorSeq(self.0.fetch_add(1, Ordering::SeqCst) + 1)
    }

    /// The number of the next anchor to be sent: the first that covers whatever was acknowledged before this call.
    pub fn next(&self) -> AnchorSeq {
        let sent = self.0.load(Ordering::SeqCst);
        // The mutant believes that an anchor already under way covers the write.
        AnchorSeq(if mutant::is("anchor-too-early") { sent } else { sent + 1 })
    }
}

/// Counts the histories of the view, so that an offset can be told from one of another history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Era(pub u16);

/// An offset and its era share a word: 256 TiB of stream, then nothing counts as passed.
const ERA_SHIFT: u32 = 48;

/// The table.
#[derive(Debug)]
pub struct FenceTable {
    slots: Box<[AtomicU64]>,
    /// The highest mark of each group of slots. The table is larger than a core's cache, this is not.
    groups: Box<[AtomicU64]>,
    /// The highest mark of all: while nobody writes, or the replicas keep up, the table need not be looked at.
    top: AtomicU64,
    floor: AtomicU64,
    lives: AtomicU64,
    passed: AtomicU64,
    era: AtomicU64,
    hasher: RandomState,
}

const PENDING: u64 = 1 << 63;

/// Slots in a group, as a power of two.
const GROUP_BITS: u32 = 6;

/// How many slots are asked for together: few enough to stay in the nearest cache.
const AT_ONCE: usize = 64;

/// As it is now, word by word: what is told meanwhile is in it or not.
impl Clone for FenceTable {
    fn clone(&self) -> Self {
        let copy = |word: &AtomicU64| AtomicU64::new(word.load(Ordering::SeqCst));
        Self {
            slots: self.slots.iter().map(copy).collect(),
            groups: self.groups.iter().map(copy).collect(),
            top: copy(&self.top),
            floor: copy(&self.floor),
            lives: copy(&self.lives),
            passed: copy(&self.passed),
            era: copy(&self.era),
            hasher: self.hasher.clone(),
        }
    }
}

impl FenceTable {
    /// A table of at least `slots` slots (rounded up to a power of two), its hash keyed by `seeds`. Until
    /// [`FenceTable::raise_floor`] is called with something better, everything is pending for ever.
    pub fn new(slots: usize, seeds: [u64; 4]) -> Self {
        let count = slots.clamp(1, 1 << 31).next_power_of_two();
        let [a, b, c, d] = seeds;
        Self {
            slots: zeroed_slice_box(count),
            groups: (0..(count >> GROUP_BITS).max(1)).map(|_| AtomicU64::new(0)).collect(),
            top: AtomicU64::new(0),
            floor: AtomicU64::new(u64::MAX),
            lives: AtomicU64::new(0),
            passed: AtomicU64::new(0),
            era: AtomicU64::new(0),
            hasher: RandomState::with_seeds(a, b, c, d),
        }
    }

    /// How many times the table was emptied.
    pub fn life(&self) -> u64 {
        self.lives.load(Ordering::SeqCst)
    }

    /// The slot of a key.
    pub fn slot(&self, key: &[u8]) -> Slot {
        let mask = self.slots.len() as u64 - 1;
        Slot((self.hasher.hash_one(key) & mask) as u32)
    }

    /// The stream told that a write to a key of this slot ended at `end`; `next` comes from [`AnchorCounter::next`]
    /// after that. A slot that is pending waits for that anchor now: an earlier one may answer less than `end`, and
    /// would bury this write.
    pub fn stamp(&self, slot: Slot, end: Offset, next: AnchorSeq) {
        self.stamp_all(&[(slot, end)], next);
    }

    /// A write to a key of this slot was acknowledged; `anchor` comes from [`AnchorCounter::next`] *after* that.
    pub fn stamp_pending(&self, slot: Slot, anchor: AnchorSeq) {
        self.stamp_all_pending(std::iter::once(slot), || anchor);
    }

    /// [`Self::stamp`] for many slots, each with where its write ended.
    pub fn stamp_all(&self, written: &[(Slot, Offset)], next: AnchorSeq) {
        if let Some(last) = written.iter().map(|(_, end)| *end).max() {
            stamp(&self.top, last, next);
        }
        for some in written.chunks(AT_ONCE) {
            self.approach(some.iter().map(|(slot, _)| *slot));
            for (slot, end) in some {
                self.cells(*slot).for_each(|cell| stamp(cell, *end, next));
            }
        }
    }

    /// [`Self::stamp_pending`] for many slots. `next` is asked for every cell, after that was looked at: a number taken
    /// before could be of an anchor that has been answered meanwhile, and would bury what was stamped above its head.
    pub fn stamp_all_pending(&self, slots: impl Iterator<Item = Slot>, next: impl Fn() -> AnchorSeq) {
        if mutant::is("stamp-skipped") {
            return;
        }
        self.in_groups(slots, |slot| self.cells(slot).for_each(|cell| stamp_pending(cell, &next)));
        // After them: none of their numbers is above this one, and nobody has been told yet.
        stamp_pending(&self.top, &next);
    }

    /// [`Self::settle`] for many slots.
    pub fn settle_all(&self, slots: impl Iterator<Item = Slot>, anchor: AnchorSeq, head: Offset) {
        self.in_groups(slots, |slot| self.settle(slot, anchor, head));
    }

    fn in_groups(&self, mut slots: impl Iterator<Item = Slot>, each: impl Fn(Slot)) {
        loop {
            let some: SmallVec<[Slot; AT_ONCE]> = slots.by_ref().take(AT_ONCE).collect();
            if some.is_empty() {
                return;
            }
            self.approach(some.iter().copied());
            some.into_iter().for_each(&each);
        }
    }

    /// Asks for the cells of these slots at once, and changes nothing. Keys are far apart in the table, so that most of
    /// what stamping costs is waiting for memory, one cell after the other: a stamp is a barrier, a plain load is none.
    fn approach(&self, slots: impl Iterator<Item = Slot>) {
        let cells = slots.flat_map(|slot| self.cells(slot));
        black_box(cells.fold(0, |all, cell| all | cell.load(Ordering::Relaxed)));
    }

    /// The slot and its group: whatever is stamped is stamped on both before anyone is told.
    fn cells(&self, slot: Slot) -> impl Iterator<Item = &AtomicU64> {
        let (slot, group) = (slot.0 as usize, (slot.0 >> GROUP_BITS) as usize);
        self.groups.get(group).into_iter().chain(self.slots.get(slot))
    }

    /// What a replica must have applied for the keys of this slot, as far as it matters: when nothing at all, or nothing
    /// in its group, is above `least`, which every replica in service has applied, that is all there is to know.
    /// `anchored`: the newest anchor and the head that it answered; what waits for it or an earlier one is settled.
    pub fn mark(&self, slot: Slot, anchored: Option<(AnchorSeq, Offset)>, least: Option<Offset>) -> Mark {
        let read = |cell: &AtomicU64| read(cell, anchored);
        match read(&self.top) {
            Mark::Clear => return Mark::Clear,
            Mark::At(offset) if least.is_some_and(|least| offset <= least) => return Mark::At(offset),
            Mark::At(_) | Mark::Pending(_) => {}
        }
        match self.groups.get((slot.0 >> GROUP_BITS) as usize).map(read) {
            Some(Mark::Clear) => Mark::Clear,
            Some(Mark::Pending(_)) if mutant::is("pending-is-clear") => Mark::Clear,
            Some(Mark::At(offset)) if least.is_some_and(|least| offset <= least) => Mark::At(offset),
            _ => self.slots.get(slot.0 as usize).map_or(Mark::Clear, read),
        }
    }

    /// What a replica must have applied so that no key is missing anything: the highest mark of all slots.
    pub fn mark_of_any(&self, anchored: Option<(AnchorSeq, Offset)>) -> Mark {
        read(&self.top, anchored)
    }

    /// Anchor `anchor` answered `head`: a slot that waits for it, or for an earlier one, takes that offset.
    pub fn settle(&self, slot: Slot, anchor: AnchorSeq, head: Offset) {
        if let Some(cell) = self.slots.get(slot.0 as usize) {
            settle(cell, anchor, head);
        }
    }

    /// What the slot says.
    pub fn load(&self, slot: Slot) -> Mark {
        let mark = self.slots.get(slot.0 as usize).map(|cell| decode(cell.load(Ordering::SeqCst)));
        mark.filter(|mark| !mutant::is("pending-is-clear") || !matches!(mark, Mark::Pending(_)))
            .unwrap_or(Mark::Clear)
    }

    /// What holds for all keys.
    pub fn floor(&self) -> Mark {
        decode(self.floor.load(Ordering::SeqCst))
    }

    /// A write whose keys cannot be known was acknowledged: like [`FenceTable::stamp_pending`], for all keys.
    pub fn raise_floor(&self, anchor: AnchorSeq) {
        self.floor.fetch_max(encode(Mark::Pending(anchor)), Ordering::SeqCst);
    }

    /// Like [`FenceTable::stamp`], for the floor.
    pub fn stamp_floor(&self, end: Offset, next: AnchorSeq) {
        stamp(&self.floor, end, next);
    }

    /// Like [`FenceTable::settle`], for the floor.
    pub fn settle_floor(&self, anchor: AnchorSeq, head: Offset) {
        settle(&self.floor, anchor, head);
    }

    /// The stream was followed without a gap up to `passed`, so that the slots are precise: a floor at or below it
    /// falls back to `since`, from where on the stream has been followed.
    pub fn lower_floor(&self, passed: Offset, since: Offset) {
        let present = self.floor.load(Ordering::SeqCst);
        let early = mutant::is("floor-falls-early");
        if matches!(decode(present), Mark::At(floor) if (floor <= passed || early) && floor > since) {
            // A floor raised meanwhile wins: then the exchange fails.
            let _ = self.floor.compare_exchange(
                present,
                encode(Mark::At(since)),
                Ordering::SeqCst,
                Ordering::SeqCst,
            );
        }
    }

    /// What was just heard has turned a view of era `before` into one of era `now`, which is about to be published;
    /// `restarted`: its history has nothing to do with the one before. `next` is asked for the next anchor at the right
    /// time. Returns how many slots were void.
    pub fn turn(&self, before: Era, now: Era, restarted: bool, next: impl Fn() -> AnchorSeq) -> usize {
        // First: whoever finds a fence gone finds that the table is of another era.
        self.enter(now);
        if restarted {
            return self.restart(next);
        }
        if before != now && !mutant::is("turned-quietly") {
            // An anchor of the old primary may have settled what waited for one of the new primary.
            self.raise_floor(next());
        }
        0
    }

    /// A view of this era is about to be published.
    pub fn enter(&self, era: Era) {
        self.era.store(u64::from(era.0), Ordering::SeqCst);
    }

    /// Whether what was just read from the table is in the numbers of a view of this era. To be asked after reading:
    /// with an older view in hand, a mark that an anchor of a newer era has settled would be misread.
    pub fn is_of(&self, era: Era) -> bool {
        self.era.load(Ordering::SeqCst) == u64::from(era.0)
    }

    /// The stream was followed without a gap up to `offset` of the history that the view's `era` names: from there
    /// back, the slots and the floor say all there is to say.
    pub fn pass(&self, era: Era, offset: Offset) {
        let value =
            if offset.bytes() >> ERA_SHIFT == 0 { u64::from(era.0) << ERA_SHIFT | offset.bytes() } else { 0 };
        self.passed.store(value, Ordering::SeqCst);
    }

    /// How far the stream was followed, if it was in this era.
    pub fn passed(&self, era: Era) -> Option<Offset> {
        let value = self.passed.load(Ordering::SeqCst);
        let offset = value & ((1 << ERA_SHIFT) - 1);
        (value != 0 && value >> ERA_SHIFT == u64::from(era.0)).then(|| Offset::new(offset))
    }

    /// A fingerprint, to tell whether the same comes again.
    pub fn digest(&self, bytes: &[u8]) -> u64 {
        self.hasher.hash_one(bytes)
    }

    /// An unrelated history began: all offsets are void. Everything is fenced while the slots are emptied, and then
    /// until the first anchor sent after that; `next` is asked for its number at the right time. Returns how many slots
    /// had been stamped.
    pub fn restart(&self, next: impl Fn() -> AnchorSeq) -> usize {
        if mutant::is("table-cleared-late") && self.life() > 0 {
            return 0;
        }
        self.floor.store(u64::MAX, Ordering::SeqCst);
        // What was never written to takes no memory, and need not begin to.
        let empty = |cells: &[AtomicU64]| {
            let stamped = cells.iter().filter(|cell| cell.load(Ordering::SeqCst) != 0);
            stamped.inspect(|cell| cell.store(0, Ordering::SeqCst)).count()
        };
        let voided = empty(&self.slots);
        empty(&self.groups);
        self.top.store(0, Ordering::SeqCst);
        // Only now: whoever sees the new life may count on what it stamps from here on.
        self.lives.fetch_add(1, Ordering::SeqCst);
        self.floor.store(encode(Mark::Pending(next())), Ordering::SeqCst);
        // A floor raised between `next()` and the store was overwritten; asking again covers it too.
        self.raise_floor(next());
        voided
    }
}

/// What a cell says; what waits for `anchored` or an earlier anchor is settled.
pub(crate) fn read(cell: &AtomicU64, anchored: Option<(AnchorSeq, Offset)>) -> Mark {
    match (decode(cell.load(Ordering::SeqCst)), anchored) {
        (Mark::Pending(waits_for), Some((anchor, head))) if waits_for <= anchor => {
            settle(cell, anchor, head);
            decode(cell.load(Ordering::SeqCst))
        }
        (mark, _) => mark,
    }
}

fn stamp(cell: &AtomicU64, end: Offset, next: AnchorSeq) {
    let mut present = cell.load(Ordering::SeqCst);
    loop {
        let raised = encode(match decode(present) {
            Mark::Pending(_) if mutant::is("stamp-buried") => return,
            Mark::Pending(waits_for) => Mark::Pending(waits_for.max(next)),
            Mark::At(known) => Mark::At(known.max(end)),
            Mark::Clear => Mark::At(end),
        });
        debug_assert!(raised >= present, "a stamp never lowers a fence");
        if raised == present {
            return;
        }
        match cell.compare_exchange_weak(present, raised, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => return,
            Err(now) => present = now,
        }
    }
}

/// Has a cell wait for the next anchor, unless it waits for a later one.
pub(crate) fn stamp_pending(cell: &AtomicU64, next: impl Fn() -> AnchorSeq) {
    let mut present = cell.load(Ordering::SeqCst);
    loop {
        // Whatever is replaced was there before the anchor was sent, so that its head is no lower.
        let pending = encode(Mark::Pending(next()));
        if present >= pending {
            return;
        }
        match cell.compare_exchange_weak(present, pending, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => return,
            Err(now) => present = now,
        }
    }
}

fn settle(cell: &AtomicU64, anchor: AnchorSeq, head: Offset) {
    let mut present = cell.load(Ordering::SeqCst);
    while matches!(decode(present), Mark::Pending(waits_for) if waits_for <= anchor) {
        match cell.compare_exchange_weak(present, encode(Mark::At(head)), Ordering::SeqCst, Ordering::SeqCst)
        {
            Ok(_) => return,
            Err(now) => present = now,
        }
    }
}

fn encode(mark: Mark) -> u64 {
    match mark {
        Mark::Clear => 0,
        Mark::At(offset) => offset.bytes().saturating_add(1).min(PENDING - 1),
        Mark::Pending(AnchorSeq(n)) => {
            debug_assert!(n < PENDING, "the number of an anchor leaves the bit that marks it free");
            PENDING | n
        }
    }
}

fn decode(value: u64) -> Mark {
    match value {
        0 => Mark::Clear,
        v if v & PENDING != 0 => Mark::Pending(AnchorSeq(v & !PENDING)),
        v => Mark::At(Offset::new(v - 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> FenceTable {
        FenceTable::new(1024, [1, 2, 3, 4])
    }

    #[test]
    fn pending_orders_above_every_offset_and_settles_only_by_a_later_anchor() {
        let (table, anchors) = (table(), AnchorCounter::default());
        let slot = table.slot(b"k");
        assert_eq!(table.load(slot), Mark::Clear);
        let under_way = anchors.take();
        table.stamp_pending(slot, anchors.next());
        table.stamp(slot, Offset::new(900), anchors.next());
        assert_eq!(table.load(slot), Mark::Pending(AnchorSeq(2)));
        table.settle(slot, under_way, Offset::new(10));
        assert_eq!(table.load(slot), Mark::Pending(AnchorSeq(2)), "an anchor sent before proves nothing");
        table.settle(slot, anchors.take(), Offset::new(1000));
        assert_eq!(table.load(slot), Mark::At(Offset::new(1000)));
    }

    #[test]
    fn a_group_speaks_for_its_slots_only_where_every_replica_has_it_all() {
        let (table, anchors) = (table(), AnchorCounter::default());
        let slot = table.slot(b"k");
        let neighbour = Slot(slot.0 ^ 1);
        let least = Some(Offset::new(500));
        assert_eq!(table.mark(slot, None, least), Mark::Clear);
        table.stamp(neighbour, Offset::new(400), anchors.next());
        assert_eq!(table.mark(slot, None, least), Mark::At(Offset::new(400)), "above, but harmless");
        assert_eq!(
            table.mark(slot, None, Some(Offset::new(399))),
            Mark::Clear,
            "the slot itself says better"
        );
        assert_eq!(table.mark(slot, None, None), Mark::Clear);
        table.stamp_pending(slot, anchors.next());
        assert_eq!(table.mark(slot, None, least), Mark::Pending(AnchorSeq(1)));
        let anchored = Some((anchors.take(), Offset::new(450)));
        assert_eq!(table.mark(slot, anchored, least), Mark::At(Offset::new(450)));
        assert_eq!(table.mark(slot, anchored, Some(Offset::new(449))), Mark::At(Offset::new(450)));
        assert_eq!(table.mark(neighbour, anchored, Some(Offset::new(449))), Mark::At(Offset::new(400)));
    }

    #[test]
    fn a_fence_never_falls() {
        let table = table();
        let slot = table.slot(b"k");
        table.stamp(slot, Offset::new(100), AnchorSeq(1));
        table.stamp(slot, Offset::new(50), AnchorSeq(1));
        assert_eq!(table.load(slot), Mark::At(Offset::new(100)));
    }

    #[test]
    fn a_pending_slot_does_not_bury_what_the_stream_tells() {
        let (table, anchors) = (table(), AnchorCounter::default());
        let slot = table.slot(b"k");
        table.stamp_pending(slot, anchors.next());
        let under_way = anchors.take();
        table.stamp(slot, Offset::new(900), anchors.next());
        table.settle(slot, under_way, Offset::new(800));
        assert_eq!(table.load(slot), Mark::Pending(AnchorSeq(2)), "800 would hide the write at 900");
        table.settle(slot, anchors.take(), Offset::new(950));
        assert_eq!(table.load(slot), Mark::At(Offset::new(950)));
    }

    #[test]
    fn a_new_table_fences_everything_until_it_is_told_better() {
        let table = table();
        assert!(matches!(table.floor(), Mark::Pending(_)));
        table.restart(|| AnchorSeq(7));
        assert_eq!(table.floor(), Mark::Pending(AnchorSeq(7)));
        table.settle_floor(AnchorSeq(8), Offset::new(500));
        assert_eq!(table.floor(), Mark::At(Offset::new(500)));
    }

    #[test]
    fn a_new_history_voids_every_offset() {
        let table = table();
        let slot = table.slot(b"k");
        table.restart(|| AnchorSeq(7));
        table.settle_floor(AnchorSeq(7), Offset::new(500));
        table.stamp(slot, Offset::new(600), AnchorSeq(8));
        table.restart(|| AnchorSeq(9));
        assert_eq!((table.load(slot), table.life()), (Mark::Clear, 2));
        assert_eq!(table.floor(), Mark::Pending(AnchorSeq(9)), "until the new history has an anchor");
    }

    #[test]
    fn what_an_anchor_of_the_old_primary_settled_holds_nothing_of_the_new_one() {
        let (table, anchors) = (table(), AnchorCounter::default());
        let (old, new) = (Era(1), Era(2));
        table.restart(|| anchors.next());
        table.settle_floor(anchors.take(), Offset::new(500));
        // Acknowledged by the node that is the primary now, at 700; who is asked is the one that was it until now.
        let slot = table.slot(b"k");
        table.stamp_pending(slot, anchors.next());
        let asked_of_the_old = Some((anchors.take(), Offset::new(500)));
        assert_eq!(
            table.mark(slot, asked_of_the_old, None),
            Mark::At(Offset::new(500)),
            "the write is buried"
        );
        table.turn(old, old, false, || anchors.next());
        assert_eq!(table.floor(), Mark::At(Offset::new(500)), "nothing has changed");
        table.turn(old, new, false, || anchors.next());
        assert!(table.is_of(new));
        assert_eq!(
            table.floor(),
            Mark::Pending(AnchorSeq(3)),
            "the new primary is asked before anything is read"
        );
        table.settle_floor(AnchorSeq(2), Offset::new(500));
        assert_eq!(table.floor(), Mark::Pending(AnchorSeq(3)), "the old one's answer does not do");
        table.settle_floor(anchors.take(), Offset::new(700));
        assert_eq!(table.floor(), Mark::At(Offset::new(700)));
    }

    #[test]
    fn the_floor_falls_back_only_once_the_stream_has_passed_it() {
        let table = table();
        table.restart(|| AnchorSeq(1));
        table.settle_floor(AnchorSeq(1), Offset::new(500));
        table.lower_floor(Offset::new(499), Offset::new(100));
        assert_eq!(table.floor(), Mark::At(Offset::new(500)));
        table.lower_floor(Offset::new(500), Offset::new(100));
        assert_eq!(table.floor(), Mark::At(Offset::new(100)));
    }
}
