//! Who has which slots: the map, for people.

use std::collections::BTreeMap;

use crate::core::slots::hash_slot::{HASH_SLOTS, HashSlot, SlotRange};
use crate::core::slots::map::{ShardIndex, SlotPlace, SlotState};

/// Who has which slots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    shards: BTreeMap<ShardIndex, Holding>,
    /// Those that nobody has.
    pub unowned: Vec<SlotRange>,
}

/// The slots of one shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    /// Which, those that move included.
    pub ranges: Vec<SlotRange>,
    /// How many of them move.
    pub moving: usize,
}

impl Holdings {
    /// As `place` tells of each slot.
    pub fn of(place: impl Fn(HashSlot) -> SlotPlace) -> Self {
        let mut holdings = Self::default();
        for slot in (0..HASH_SLOTS).filter_map(HashSlot::new) {
            let SlotPlace { owner, state } = place(slot);
            let Some(owner) = owner else {
                append(&mut holdings.unowned, slot);
                continue;
            };
            let holding = holdings.shards.entry(owner).or_default();
            append(&mut holding.ranges, slot);
            holding.moving += usize::from(state == SlotState::Moving);
        }
        holdings
    }

    /// The slots of this shard.
    pub fn shard(&self, shard: ShardIndex) -> Holding {
        self.shards.get(&shard).cloned().unwrap_or_default()
    }
}

impl Holding {
    /// How many there are.
    pub fn count(&self) -> usize {
        count(&self.ranges)
    }
}

/// How many slots there are in these ranges.
pub fn count(ranges: &[SlotRange]) -> usize {
    ranges.iter().map(|range| range.count()).sum()
}

/// In words, as `CLUSTER NODES` writes them: `0-5460,7000`; no more than so many ranges.
pub fn in_words(ranges: &[SlotRange], most: usize) -> String {
    let mut words: Vec<String> = ranges.iter().take(most).map(ToString::to_string).collect();
    if ranges.len() > most {
        words.push(format!("and {} more ranges", ranges.len() - most));
    }
    words.join(",")
}

/// With one more slot behind the last.
pub(super) fn append(ranges: &mut Vec<SlotRange>, slot: HashSlot) {
    match ranges.last().and_then(|last| last.extended(slot)) {
        Some(longer) => {
            ranges.pop();
            ranges.push(longer);
        }
        None => ranges.push(slot.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_one_range() {
        let [first, second] = [0, 1].map(ShardIndex::new);
        let holdings = Holdings::of(|slot| match slot.number() {
            0..=99 | 200 => SlotPlace::of(first, slot.number() == 200),
            100..=199 => SlotPlace::of(second, slot.number() < 103),
            _ => SlotPlace::UNOWNED,
        });
        let [first, second] = [first, second].map(|shard| holdings.shard(shard.unwrap()));
        assert_eq!(
            (first.count(), first.moving, in_words(&first.ranges, 9)),
            (101, 1, "0-99,200".to_owned())
        );
        assert_eq!((second.count(), second.moving), (100, 3));
        assert_eq!(in_words(&first.ranges, 1), "0-99,and 1 more ranges");
        assert_eq!(
            (count(&holdings.unowned), in_words(&holdings.unowned, 9).as_str()),
            (16_183, "201-16383")
        );
    }
}
