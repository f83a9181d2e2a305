//! What following the replication stream adds to the fences: every key of every write, by anyone, with the exact
//! offset at which it ended; and from where on nothing is missing, so that the floor may fall.
//!
//! The floor covers all keys. It rises when a write's keys cannot be known, and when the stream begins or had a gap.
//! Once the stream has been read past it, the slots say all that is to be said about what came after `since`, and
//! the floor falls back to there. A command of the stream whose own keys cannot be known (`FLUSHALL`) moves `since`.

use super::fence::{AnchorSeq, Era, FenceTable, Slot};
use super::position::{Offset, ReplId};

/// The fences' side of the stream.
///
/// `next` is always the number of the next anchor ([`super::fence::AnchorCounter::next`]), taken when it was heard.
#[derive(Clone, Debug, Default)]
pub struct Precise {
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

impl Precise {
    /// A link stands, in history `id`; every command that ends after `from` will be told. `resumed`: nothing is
    /// missing between what was told before and `from`.
    pub fn attached(
        &mut self,
        fences: &FenceTable,
        id: ReplId,
        from: Offset,
        resumed: bool,
        next: AnchorSeq,
    ) {
        match &mut self.followed {
            Some(followed) if resumed => followed.id = id,
            followed => {
                let life = fences.life();
                fences.stamp_floor(from, next);
                *followed = Some(Followed { id, since: from, life });
            }
        }
    }

    /// A write to a key of this slot ended at `end`.
    pub fn wrote(&self, fences: &FenceTable, slot: Slot, end: Offset, next: AnchorSeq) {
        fences.stamp(slot, end, next);
    }

    /// A write that may have changed any key ended at `end`.
    pub fn wrote_anything(&mut self, fences: &FenceTable, end: Offset, next: AnchorSeq) {
        fences.stamp_floor(end, next);
        if let Some(followed) = &mut self.followed {
            followed.since = followed.since.max(end);
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
            fences.stamp_floor(upto, next);
        }
        if history == Some(followed.id) {
            fences.lower_floor(upto, followed.since);
            fences.pass(era, upto);
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
        let (table, mut precise) = (table(), Precise::default());
        precise.attached(&table, id(), Offset::new(150), false, NEXT);
        assert_eq!(table.floor(), Mark::At(Offset::new(150)));
        table.raise_floor(AnchorSeq(2));
        precise.progressed(&table, Offset::new(300), (Some(id()), Era(0)), NEXT);
        assert_eq!(table.floor(), Mark::Pending(AnchorSeq(2)), "its offset is not known yet");
        table.settle_floor(AnchorSeq(2), Offset::new(250));
        precise.progressed(&table, Offset::new(300), (None, Era(0)), NEXT);
        assert_eq!(table.floor(), Mark::At(Offset::new(250)), "another history proves nothing");
        precise.progressed(&table, Offset::new(300), (Some(id()), Era(0)), NEXT);
        assert_eq!(table.floor(), Mark::At(Offset::new(150)));
    }

    #[test]
    fn a_write_to_any_key_stays_fenced() {
        let (table, mut precise) = (table(), Precise::default());
        precise.attached(&table, id(), Offset::new(150), false, NEXT);
        precise.wrote_anything(&table, Offset::new(200), NEXT);
        precise.progressed(&table, Offset::new(300), (Some(id()), Era(0)), NEXT);
        assert_eq!(table.floor(), Mark::At(Offset::new(200)));
    }

    #[test]
    fn a_gap_raises_the_floor_and_a_resumed_link_does_not() {
        let (table, mut precise) = (table(), Precise::default());
        precise.attached(&table, id(), Offset::new(150), false, NEXT);
        precise.attached(&table, id(), Offset::new(400), true, NEXT);
        assert_eq!(table.floor(), Mark::At(Offset::new(150)));
        precise.attached(&table, id(), Offset::new(500), false, NEXT);
        assert_eq!(table.floor(), Mark::At(Offset::new(500)));
    }

    #[test]
    fn an_emptied_table_is_precise_only_from_then_on() {
        let (table, mut precise) = (table(), Precise::default());
        precise.attached(&table, id(), Offset::new(150), false, NEXT);
        table.restart(|| AnchorSeq(5));
        table.settle_floor(AnchorSeq(5), Offset::new(160));
        precise.progressed(&table, Offset::new(300), (Some(id()), Era(0)), NEXT);
        assert_eq!(table.floor(), Mark::At(Offset::new(300)));
    }
}
