//! What has changed of the slots, to be published.

use std::collections::BTreeMap;

use crate::core::slots::hash_slot::{HashSlot, SlotRange};
use crate::core::slots::map::{SlotPlace, SlotState};
use crate::mutant;

/// Slots that change together. Whoever gets one raises the floor of these slots if it [is needed](Self::needs_floor), and then
/// publishes it ([`Claims::apply`](super::Claims::apply)), one after the other, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub slots: SlotRange,
    /// Where their keys were.
    pub before: SlotPlace,
    /// Where they are.
    pub after: SlotPlace,
}

impl Change {
    /// Whether the floor of these slots has to say *pending until the next anchor of the owner's primary* before this is
    /// published. It does whenever replicas are to be asked that were not until now: of another shard, or of the same one
    /// behind a move that was called off, whose keys came back by new writes.
    pub fn needs_floor(&self) -> bool {
        if mutant::is("new-owner-unfenced") {
            return false;
        }
        if mutant::is("cancelled-move-unfenced") && self.before.state == SlotState::Moving {
            return self.after.owner != self.before.owner;
        }
        self.after.owner.is_some()
            && (self.after.owner != self.before.owner || self.after.state == SlotState::Stable)
    }
}

/// Places as they were before something was heard.
#[derive(Debug, Default)]
pub(super) struct Touched(BTreeMap<HashSlot, SlotPlace>);

impl Touched {
    /// Something about this slot is about to change; its place is `before` until then.
    pub(super) fn note(&mut self, slot: HashSlot, before: SlotPlace) {
        self.0.entry(slot).or_insert(before);
    }

    /// What came of it: neighbours that have changed in the same way are one.
    pub(super) fn changes(self, after: impl Fn(HashSlot) -> SlotPlace) -> Vec<Change> {
        let mut changes: Vec<Change> = Vec::new();
        for (slot, before) in self.0 {
            let after = after(slot);
            if before == after {
                continue;
            }
            let longer = changes
                .last()
                .filter(|last| (last.before, last.after) == (before, after))
                .and_then(|last| last.slots.extended(slot));
            match (longer, changes.last_mut()) {
                (Some(slots), Some(last)) => last.slots = slots,
                _ => changes.push(Change { slots: slot.into(), before, after }),
            }
        }
        changes
    }
}
