//! What workers read of the slots, without a lock.

use std::fmt;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use crate::core::slots::hash_slot::{HASH_SLOTS, HashSlot};

/// A shard's place in the list of shards: the first, unless it is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardIndex(u16);

impl ShardIndex {
    /// The first.
    pub const FIRST: Self = Self(0);

    /// The most that there can be: the last number of 14 bits stands for nobody.
    pub const MOST: usize = NOBODY as usize;

    /// The shard at this place; `None` beyond [`Self::MOST`].
    pub const fn new(index: usize) -> Option<Self> {
        if index < Self::MOST { Some(Self(index as u16)) } else { None }
    }

    /// As an index into the list of shards.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for ShardIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who may be asked for the keys of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SlotState {
    /// The owner's primary, and those of its replicas that have what the floor of the slot and the fence of the key demand.
    Stable,
    /// The owner's primary only, which may say `ASK` or `MOVED`.
    Moving,
    /// Nobody is known to have it.
    Unowned,
}

impl SlotState {
    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stable => "stable",
            Self::Moving => "moving",
            Self::Unowned => "unowned",
        }
    }
}

/// Where the keys of a slot are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotPlace {
    /// Where commands go; `None` if and only if the state is `Unowned`.
    pub owner: Option<ShardIndex>,
    /// Who of that shard may be asked.
    pub state: SlotState,
}

impl SlotPlace {
    /// Nobody's.
    pub const UNOWNED: Self = Self { owner: None, state: SlotState::Unowned };

    /// Of this shard; `moving`: its replicas are left alone.
    pub(super) const fn of(owner: Option<ShardIndex>, moving: bool) -> Self {
        match owner {
            None => Self::UNOWNED,
            Some(_) if moving => Self { owner, state: SlotState::Moving },
            Some(_) => Self { owner, state: SlotState::Stable },
        }
    }

    /// The shard whose replicas may be asked.
    pub fn stable_owner(self) -> Option<ShardIndex> {
        self.owner.filter(|_| self.state == SlotState::Stable)
    }

    fn encode(self) -> u16 {
        let owner = self.owner.map_or(NOBODY, |owner| owner.0);
        let state = match self.state {
            SlotState::Stable => STABLE,
            SlotState::Moving => MOVING,
            SlotState::Unowned => return UNOWNED,
        };
        state << STATE_SHIFT | owner
    }

    fn decode(word: u16) -> Self {
        let owner = word & NOBODY;
        let owner = (owner != NOBODY).then_some(ShardIndex(owner));
        Self::of(owner, word >> STATE_SHIFT != STABLE)
    }
}

/// Owner and state of each slot, in one word, because they must be read together. One writes
/// ([`Claims::apply`](super::Claims::apply)), everybody reads.
///
/// Keys are anywhere: whoever looks up their slots one by one waits for memory each time. So neighbours that have one place, as
/// most have, have one word for all of them, and those words stay in the cache that is nearest.
#[derive(Debug)]
pub struct SlotMap {
    words: Box<[AtomicU16]>,
    /// One for every [`NEIGHBOURS`]: theirs, or [`MIXED`].
    common: Box<[AtomicU16]>,
    generation: AtomicU64,
}

impl SlotMap {
    /// All slots are nobody's.
    pub fn new() -> Self {
        Self::with_slots(HASH_SLOTS)
    }

    pub(super) fn with_slots(count: u16) -> Self {
        let all = |count: usize| (0..count).map(|_| AtomicU16::new(UNOWNED)).collect();
        let words = usize::from(count);
        let common = all(words.div_ceil(NEIGHBOURS));
        Self { words: all(words), common, generation: AtomicU64::new(0) }
    }

    /// Where the keys of this slot are.
    #[inline]
    pub fn load(&self, slot: HashSlot) -> SlotPlace {
        let common = self.common.get(slot.index() / NEIGHBOURS).map(|word| word.load(Ordering::SeqCst));
        match common {
            Some(MIXED) | None => self.load_own(slot),
            Some(word) => SlotPlace::decode(word),
        }
    }

    /// The same, where neighbours differ.
    fn load_own(&self, slot: HashSlot) -> SlotPlace {
        self.words
            .get(slot.index())
            .map_or(SlotPlace::UNOWNED, |word| SlotPlace::decode(word.load(Ordering::SeqCst)))
    }

    /// Rises behind every change. Whoever keeps what was loaded reads this first, and loads anew when it has risen. The floor
    /// of a slot is in offsets of its owner: who reads a place and then a floor reads the place again behind it, and begins anew
    /// if it is another.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    pub(super) fn store(&self, slots: impl Iterator<Item = HashSlot>, place: SlotPlace) {
        let mut open = None;
        for slot in slots {
            let neighbours = slot.index() / NEIGHBOURS;
            if open != Some(neighbours) {
                if let Some(before) = open.replace(neighbours) {
                    self.share(before);
                }
                // Whoever does not see this yet has the place from before, all of it.
                if let Some(common) = self.common.get(neighbours) {
                    common.store(MIXED, Ordering::SeqCst);
                }
            }
            if let Some(word) = self.words.get(slot.index()) {
                word.store(place.encode(), Ordering::SeqCst);
            }
        }
        if let Some(last) = open {
            self.share(last);
        }
        // Behind the words: whoever sees it finds them.
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// If all of these neighbours have one place, they have one word from now on.
    fn share(&self, neighbours: usize) {
        let begin = neighbours * NEIGHBOURS;
        let end = (begin + NEIGHBOURS).min(self.words.len());
        let Some(words) = self.words.get(begin..end) else { return };
        let mut places = words.iter().map(|word| word.load(Ordering::SeqCst));
        if let Some((first, common)) = places.next().zip(self.common.get(neighbours))
            && places.all(|place| place == first)
        {
            common.store(first, Ordering::SeqCst);
        }
    }
}

impl Default for SlotMap {
    fn default() -> Self {
        Self::new()
    }
}

/// In the low 14 bits of a word: there is no owner.
const NOBODY: u16 = (1 << STATE_SHIFT) - 1;

const STATE_SHIFT: u32 = 14;
const STABLE: u16 = 0;
const MOVING: u16 = 1;

/// A word of a slot that nobody has.
const UNOWNED: u16 = 2 << STATE_SHIFT | NOBODY;

/// How many slots may have one word.
const NEIGHBOURS: usize = 64;

/// No word of a slot: its neighbours have others.
const MIXED: u16 = 3 << STATE_SHIFT;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_and_state_are_one_word() {
        let map = SlotMap::new();
        let slot = |number| HashSlot::new(number).unwrap();
        assert_eq!(map.load(slot(16_383)), SlotPlace::UNOWNED);
        let last = ShardIndex::new(ShardIndex::MOST - 1);
        for owner in [ShardIndex::new(0), ShardIndex::new(1), last, None] {
            for moving in [false, true] {
                let (place, before) = (SlotPlace::of(owner, moving), map.generation());
                map.store([slot(7), slot(16_383)].into_iter(), place);
                assert_eq!((map.load(slot(7)), map.load(slot(16_383))), (place, place));
                assert_eq!(map.load(slot(8)), SlotPlace::UNOWNED);
                assert!(map.generation() > before);
                assert_eq!(place.stable_owner().is_some(), owner.is_some() && !moving);
            }
        }
        assert_eq!(ShardIndex::new(ShardIndex::MOST), None, "that number means nobody");
    }

    #[test]
    fn neighbours_of_one_place_have_one_word() {
        let map = SlotMap::with_slots(1000);
        let slots = |range: std::ops::Range<u16>| range.map(|number| HashSlot::new(number).unwrap());
        let own = |map: &SlotMap| slots(0..1000).map(|slot| map.load_own(slot)).collect::<Vec<_>>();
        let loaded = |map: &SlotMap| slots(0..1000).map(|slot| map.load(slot)).collect::<Vec<_>>();
        let mixed =
            |map: &SlotMap| map.common.iter().filter(|common| common.load(Ordering::SeqCst) == MIXED).count();
        let place = |shard| SlotPlace::of(ShardIndex::new(shard), false);
        for (range, shard, are_mixed) in [
            (0..1000, 1, 0),
            (500..700, 2, 2),
            (640..641, 3, 2),
            (512..704, 2, 1),
            (0..1000, 4, 0),
            (999..1000, 5, 1),
            (960..1000, 5, 0),
        ] {
            map.store(slots(range.clone()), place(shard));
            assert_eq!(loaded(&map), own(&map), "{range:?}");
            assert!(slots(range.clone()).all(|slot| map.load(slot) == place(shard)), "{range:?}");
            assert_eq!(mixed(&map), are_mixed, "{range:?}");
        }
    }
}
