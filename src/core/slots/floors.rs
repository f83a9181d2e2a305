//! Floors of hash slots: what a replica must have applied to be asked for any key of a slot.
//!
//! Behind a move the keys of a slot are at its new owner by writes of which nobody here was told one by one. Each of them was
//! executed before the owner said that the slot is its own, so that the next anchor covers it
//! ([`Change::needs_floor`](super::Change::needs_floor)).

use std::sync::atomic::{AtomicU64, Ordering};

use bytemuck::allocation::zeroed_slice_box;

use crate::core::fence::{AnchorSeq, Mark, read, stamp_pending};
use crate::core::position::Offset;
use crate::core::reason::Reason;
use crate::core::route::Demand;
use crate::core::slots::hash_slot::{HASH_SLOTS, HashSlot};

/// What a replica must have applied to be asked for keys of a slot: an offset of the history of its shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Floor(u64);

impl Floor {
    /// Nothing in particular.
    pub const NONE: Self = Self(0);

    /// No replica may be asked: the slot moves, or what has to be applied is not known yet.
    pub const PRIMARY: Self = Self(u64::MAX);

    /// This.
    pub fn at(offset: Offset) -> Self {
        Self(offset.bytes())
    }

    /// Whether a replica that has applied `applied` may be asked.
    #[inline]
    pub fn is_met_by(self, applied: Offset) -> bool {
        self.0 <= applied.bytes()
    }

    /// With what is demanded besides.
    #[must_use]
    pub fn and(self, demand: Demand) -> Demand {
        match self {
            Self::NONE => demand,
            Self::PRIMARY => Demand::Unknown(Reason::SlotMoving),
            Self(bytes) => demand.and_floor(Offset::new(bytes)),
        }
    }
}

/// One for each hash slot, in offsets of one shard.
#[derive(Debug)]
pub struct SlotFloors {
    floors: Box<[AtomicU64]>,
    /// No floor is above this. A replica that has applied so much, as nearly all have nearly always, may be asked whatever the
    /// slot is: that saves the look at the floor of the slot, which no cache has.
    top: AtomicU64,
}

impl SlotFloors {
    /// Nothing is demanded.
    pub fn new() -> Self {
        Self { floors: zeroed_slice_box(usize::from(HASH_SLOTS)), top: AtomicU64::new(0) }
    }

    /// Of these slots is demanded what the next anchor tells; `next` is asked for its number at the right time.
    pub fn raise(&self, slots: impl Iterator<Item = HashSlot>, next: impl Fn() -> AnchorSeq) {
        for floor in slots.filter_map(|slot| self.floors.get(slot.index())) {
            stamp_pending(floor, &next);
        }
        // After them: none of their numbers is above this one, and the slots are not published yet.
        stamp_pending(&self.top, &next);
    }

    /// What is demanded of this slot. `anchored`: the newest anchor and the head that it answered.
    #[inline]
    pub fn of(&self, slot: HashSlot, anchored: Option<(AnchorSeq, Offset)>) -> Mark {
        self.floors.get(slot.index()).map_or(Mark::Clear, |floor| read(floor, anchored))
    }

    /// What is demanded of no slot more than this; `None`: that is not known yet.
    #[inline]
    pub fn top(&self, anchored: Option<(AnchorSeq, Offset)>) -> Option<Floor> {
        match read(&self.top, anchored) {
            Mark::Clear => Some(Floor::NONE),
            Mark::At(offset) => Some(Floor::at(offset)),
            Mark::Pending(_) => None,
        }
    }

    /// Another history begins: all offsets are void. What is demanded of all keys then holds for all slots.
    pub fn restart(&self) {
        // First: of what is raised meanwhile it is not lost.
        self.top.store(0, Ordering::SeqCst);
        // What was never written to takes no memory, and need not begin to.
        let raised = self.floors.iter().filter(|floor| floor.load(Ordering::SeqCst) != 0);
        raised.for_each(|floor| floor.store(0, Ordering::SeqCst));
    }
}

impl Default for SlotFloors {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_is_what_the_next_anchor_tells() {
        let floors = SlotFloors::new();
        let slot = |number| HashSlot::new(number).unwrap();
        assert_eq!(floors.of(slot(7), None), Mark::Clear);
        floors.raise([slot(7), slot(16_383)].into_iter(), || AnchorSeq(3));
        assert_eq!(floors.of(slot(7), Some((AnchorSeq(2), Offset::new(100)))), Mark::Pending(AnchorSeq(3)));
        assert_eq!(floors.of(slot(7), Some((AnchorSeq(3), Offset::new(200)))), Mark::At(Offset::new(200)));
        assert_eq!(floors.of(slot(7), Some((AnchorSeq(9), Offset::new(900)))), Mark::At(Offset::new(200)));
        assert_eq!(floors.of(slot(8), None), Mark::Clear);
        floors.raise([slot(9)].into_iter(), || AnchorSeq(10));
        assert_eq!(floors.top(Some((AnchorSeq(9), Offset::new(900)))), None);
        assert_eq!(floors.top(Some((AnchorSeq(10), Offset::new(950)))), Some(Floor::at(Offset::new(950))));
        assert_eq!(floors.of(slot(7), None), Mark::At(Offset::new(200)));
        floors.restart();
        assert_eq!(floors.top(None), Some(Floor::NONE));
        assert_eq!(floors.of(slot(16_383), None), Mark::Clear);
    }
}
