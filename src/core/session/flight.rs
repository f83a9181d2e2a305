//! Commands on their way, by the keys that they are about.

use std::collections::VecDeque;

use super::stamps::Stamps;
use crate::core::fence::Slot;
use crate::core::nodes::node::NodeId;

/// How many keys are remembered one by one, of commands of each kind; with more, every key counts.
const KEYS_KEPT: usize = 1024;

/// Room for so many keys an idle connection keeps.
const ROOM_KEPT: usize = 128;

/// Commands of one connection, of one kind, that are on their way.
#[derive(Clone, Debug, Default)]
pub(super) struct Flight {
    /// In the order in which they were sent, but for a few that were repeated.
    keys: VecDeque<(u64, Slot)>,
    /// Those whose keys are unknown or did not fit, up to this sequence number.
    all_until: Option<u64>,
    /// Where all of them are, as far as all are at one node.
    at: Option<NodeId>,
}

impl Flight {
    /// The same as [`Self::add`] of one key, as most commands are about.
    #[inline]
    pub(super) fn add_one(&mut self, seq: u64, slot: Slot, at: Option<NodeId>) {
        if self.keys.len() >= KEYS_KEPT {
            return self.add(seq, &[slot], at);
        }
        if self.at != at {
            self.at = if self.is_empty() { at } else { None };
        }
        self.keys.push_back((seq, slot));
    }

    /// Up to number `seq` one about these keys is on its way to `at`, if that is certain. Without any it is about all.
    pub(super) fn add(&mut self, seq: u64, slots: &[Slot], at: Option<NodeId>) {
        if self.is_empty() {
            self.at = at;
        } else if self.at != at {
            self.at = None;
        }
        if let [slot] = slots
            && self.keys.len() < KEYS_KEPT
        {
            self.keys.push_back((seq, *slot));
        } else if slots.is_empty() || self.keys.len() + slots.len() > KEYS_KEPT {
            self.all_until = self.all_until.max(Some(seq));
        } else {
            for slot in slots {
                self.keys.push_back((seq, *slot));
            }
        }
        debug_assert!(self.keys.len() <= KEYS_KEPT, "no more keys than are remembered one by one");
    }

    /// Forgets what is answered; `oldest` is the oldest command that is not.
    #[inline]
    pub(super) fn forget(&mut self, oldest: u64) {
        while self.keys.front().is_some_and(|(read, _)| *read < oldest) {
            self.keys.pop_front();
        }
        if self.all_until.is_some_and(|until| until < oldest) {
            self.all_until = None;
        }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.all_until.is_none()
    }

    /// Where they are, if that is one node, and certain.
    pub(super) fn at(&self) -> Option<NodeId> {
        self.at
    }

    /// Whether one of them may be about a key of this slot.
    pub(super) fn is_about(&self, slot: Slot) -> bool {
        self.all_until.is_some() || self.keys.iter().any(|(_, read)| *read == slot)
    }

    /// Whether one of them may be about one of these keys.
    pub(super) fn touches(&self, stamps: &Stamps) -> bool {
        *stamps != Stamps::None
            && !self.is_empty()
            && (self.all_until.is_some()
                || stamps.are_many()
                || self.keys.iter().any(|(_, slot)| stamps.touch(*slot)))
    }

    /// Whether one of number `seq` or later may be about one of these keys.
    pub(super) fn touches_since(&self, seq: u64, stamps: &Stamps) -> bool {
        *stamps != Stamps::None
            && (self.all_until.is_some_and(|until| until >= seq)
                || self
                    .keys
                    .iter()
                    .any(|(read, slot)| *read >= seq && (stamps.are_many() || stamps.touch(*slot))))
    }

    pub(super) fn is_roomy(&self) -> bool {
        self.keys.capacity() > ROOM_KEPT
    }

    /// Gives back the room that a burst took.
    pub(super) fn rest(&mut self) {
        self.keys = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::core::fence::FenceTable;

    proptest! {
        #[test]
        fn one_key_is_added_as_a_list_of_one_is(
            added in prop::collection::vec((0..3u8, prop::option::of(0..2u32), any::<bool>()), 0..40),
            before in prop::sample::select(vec![0, KEYS_KEPT - 20, KEYS_KEPT]),
        ) {
            let table = FenceTable::new(1 << 16, [1, 2, 3, 4]);
            let (mut alone, mut listed) = (Flight::default(), Flight::default());
            for flight in [&mut alone, &mut listed] {
                (0..before as u64).for_each(|seq| flight.add(seq, &[table.slot(b"before")], None));
            }
            for ((key, at, forgets), seq) in added.into_iter().zip(before as u64..) {
                let (slot, at) = (table.slot(&[key]), at.map(NodeId));
                alone.add_one(seq, slot, at);
                listed.add(seq, &[slot], at);
                if forgets {
                    alone.forget(seq);
                    listed.forget(seq);
                }
                prop_assert_eq!(format!("{alone:?}"), format!("{listed:?}"));
            }
        }
    }
}
