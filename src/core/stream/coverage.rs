//! What following the replication stream adds to the fences: every key of every write, by anyone, with the exact
//! offset at which it ended; and from where on nothing is missing, so that the floor may fall.
//!
//! The floor covers all keys. It rises when a write's keys cannot be known, and when the stream begins or had a gap.
//! Once the stream has been read past it, the slots say all that is to be said about what came after `since`, and
//! the floor falls back to there. A command of the stream whose own keys cannot be known (`FLUSHALL`) moves `since`.
//!
//! The stream may be ahead of the view: a promoted replica goes on under a new replication ID before anyone has asked
//! it who it is. Its offsets say nothing about replicas of the old primary, which may have applied a lost suffix past
//! them. What is told then waits for the next anchor, which only the new primary can answer once the old one is gone.

use crate::core::fence::{AnchorSeq, Era, FenceTable, Slot};
use crate::core::position::{Offset, ReplId};

/// The fences' side of the stream.
///
/// `next` is always the number of the next anchor ([`crate::core::fence::AnchorCounter::next`]), taken when it was heard;
/// `ours` the view's history.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    followed: Option<Followed>,
}

#[derive(Clone, Copy, Debug)]
struct Followed {
    id: ReplId,
    /// Every write that ended after this is in the slots.
    since: Offset,
    /// The life of the table in which that is true.
    life: u64,
}

impl Coverage {
    /// A link stands, in history `id`; every command that ends after `from` will be told. `resumed`: nothing is
    /// missing between what was told before and `from`.
    pub fn attached(
        &mut self,
        fences: &FenceTable,
        (id, from): (ReplId, Offset),
        resumed: bool,
        ours: Option<ReplId>,
        next: AnchorSeq,
    ) {
        match &mut self.followed {
            Some(followed) if resumed => followed.id = id,
            followed => {
                let new = Followed { id, since: from, life: fences.life() };
                new.stamp_floor(fences, from, ours, next);
                *followed = Some(new);
            }
        }
    }

    /// Writes to keys of these slots ended there.
    pub fn wrote(
        &self,
        fences: &FenceTable,
        written: &[(Slot, Offset)],
        ours: Option<ReplId>,
        next: AnchorSeq,
    ) {
        if self.followed.is_some_and(|followed| followed.is_of(ours)) {
            fences.stamp_all(written, next);
        } else {
            fences.stamp_all_pending(written.iter().map(|(slot, _)| *slot), || next);
        }
    }

    /// A write that may have changed any key ended at `end`.
    pub fn wrote_anything(
        &mut self,
        fences: &FenceTable,
        end: Offset,
        ours: Option<ReplId>,
        next: AnchorSeq,
    ) {
        match &mut self.followed {
            Some(followed) => {
                followed.stamp_floor(fences, end, ours, next);
                followed.since = followed.since.max(end);
            }
            None => fences.raise_floor(next),
        }
    }

    /// Everything that ends at `upto` or before has been told. `history` and `era` are the view's: the floor
    /// is in that history, and the stream of another says nothing about it.
    pub fn progressed(
        &mut self,
        fences: &FenceTable,
        upto: Offset,
        (history, era): (Option<ReplId>, Era),
        next: AnchorSeq,
    ) {
        let Some(followed) = &mut self.followed else { return };
        let life = fences.life();
        if life != followed.life {
            // The table was emptied since: what had been told is forgotten.
            (followed.life, followed.since) = (life, upto);
            followed.stamp_floor(fences, upto, history, next);
        }
        if followed.is_of(history) {
            fences.lower_floor(upto, followed.since);
            fences.pass(era, upto);
        }
    }
}

impl Followed {
    /// Whether its offsets are the view's.
    fn is_of(&self, ours: Option<ReplId>) -> bool {
        ours == Some(self.id)
    }

    fn stamp_floor(&self, fences: &FenceTable, end: Offset, ours: Option<ReplId>, next: AnchorSeq) {
        if self.is_of(ours) {
            fences.stamp_floor(end, next);
        } else {
            fences.raise_floor(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::fence::Mark;

    fn id() -> ReplId {
        ReplId::parse(&[b'a'; 40]).expect("forty letters")
    }

    const NEXT: AnchorSeq = AnchorSeq(9);

    fn table() -> FenceTable {
        let table = FenceTable::new(1024, [1, 2, 3, 4]);
        table.restart(|| AnchorSeq(1));
        table.settle_floor(AnchorSeq(1), Offset::new(100));
        table
    }

    #[test]
    fn the_floor_falls_to_where_the_stream_began_once_it_is_passed() {
        let (table, mut coverage) = (table(), Coverage::default());
        coverage.attached(&table, (id(), Offset::new(150)), false, Some(id()), NEXT);
        assert_eq!(table.floor(), Mark::At(Offset::new(150)));
        table.raise_floor(AnchorSeq(2));
        coverage.progressed(&table, Offset::new(300), (Some(id()), Era(0)), NEXT);
        assert_eq!(table.floor(), Mark::Pending(AnchorSeq(2)), "its offset is not known yet");
        table.settle_floor(AnchorSeq(2), Offset::new(250));
        coverage.progressed(&table, Offset::new(300), (None, Era(0)), NEXT);
        assert_eq!(table.floor(), Mark::At(Offset::new(250)), "another history proves nothing");
        coverage.progressed(&table, Offset::new(300), (Some(id()), Era(0)), NEXT);
        assert_eq!(table.floor(), Mark::At(Offset::new(150)));
    }

    #[test]
    fn a_write_to_any_key_stays_fenced() {
        let (table, mut coverage) = (table(), Coverage::default());
        coverage.attached(&table, (id(), Offset::new(150)), false, Some(id()), NEXT);
        coverage.wrote_anything(&table, Offset::new(200), Some(id()), NEXT);
        coverage.progressed(&table, Offset::new(300), (Some(id()), Era(0)), NEXT);
        assert_eq!(table.floor(), Mark::At(Offset::new(200)));
    }

    #[test]
    fn a_gap_raises_the_floor_and_a_resumed_link_does_not() {
        let (table, mut coverage) = (table(), Coverage::default());
        coverage.attached(&table, (id(), Offset::new(150)), false, Some(id()), NEXT);
        coverage.attached(&table, (id(), Offset::new(400)), true, Some(id()), NEXT);
        assert_eq!(table.floor(), Mark::At(Offset::new(150)));
        coverage.attached(&table, (id(), Offset::new(500)), false, Some(id()), NEXT);
        assert_eq!(table.floor(), Mark::At(Offset::new(500)));
    }

    #[test]
    fn an_emptied_table_is_precise_only_from_then_on() {
        let (table, mut coverage) = (table(), Coverage::default());
        coverage.attached(&table, (id(), Offset::new(150)), false, Some(id()), NEXT);
        table.restart(|| AnchorSeq(5));
        table.settle_floor(AnchorSeq(5), Offset::new(160));
        coverage.progressed(&table, Offset::new(300), (Some(id()), Era(0)), NEXT);
        assert_eq!(table.floor(), Mark::At(Offset::new(300)));
    }

    #[test]
    fn a_stream_that_is_ahead_of_the_view_stamps_nothing_in_numbers() {
        let (table, mut coverage) = (table(), Coverage::default());
        let (old, slot) = (ReplId::parse(&[b'b'; 40]), table.slot(b"k"));
        coverage.attached(&table, (id(), Offset::new(50)), false, Some(id()), NEXT);
        assert_eq!(table.floor(), Mark::At(Offset::new(100)));
        coverage.wrote(&table, &[(slot, Offset::new(150))], old, NEXT);
        assert_eq!(table.load(slot), Mark::Pending(NEXT));
        coverage.wrote_anything(&table, Offset::new(160), old, NEXT);
        assert_eq!(table.floor(), Mark::Pending(NEXT));
    }
}
