//! The fences of what this worker's lanes have acknowledged: stamped before anybody can see the acknowledgement, settled
//! when an anchor has told the offset.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;

use crate::core::fence::{AnchorSeq, Slot};
use crate::core::session::Stamps;
use crate::shard::shared::Shared;

/// What one worker has yet to stamp, and to settle.
#[derive(Debug)]
pub(crate) struct Fencing {
    shared: Arc<Shared>,
    /// Slots of writes that were acknowledged in what is just being read, to be stamped before anything else happens.
    fresh: RefCell<Vec<Slot>>,
    /// Slots stamped *pending*, in the order of the anchors they wait for.
    unsettled: RefCell<VecDeque<(Slot, AnchorSeq)>>,
}

/// How many stamped slots are remembered to be settled; the rest is settled by whoever reads them.
const UNSETTLED_KEPT: usize = 1 << 16;

impl Fencing {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, fresh: RefCell::default(), unsettled: RefCell::default() }
    }

    /// Fences what was just acknowledged: all keys at once, others with [`Self::stamp_fresh`].
    #[inline]
    pub(crate) fn stamp(&self, stamps: &Stamps) {
        match stamps {
            Stamps::None => {}
            Stamps::One(slot) => self.fresh.borrow_mut().push(*slot),
            Stamps::Many(slots) => self.fresh.borrow_mut().extend(slots),
            Stamps::All => self.shared.shard().fences.raise_floor(self.shared.shard().anchors.next()),
        }
    }

    /// Fences all that was acknowledged in what a lane has just read: before anybody else's turn comes, before any of
    /// it is written to a client, and before a fence is looked at.
    #[inline]
    pub(crate) fn stamp_fresh(&self) {
        let mut fresh = self.fresh.borrow_mut();
        if fresh.is_empty() {
            return;
        }
        let (fences, anchors) = (&self.shared.shard().fences, &self.shared.shard().anchors);
        let mut unsettled = self.unsettled.borrow_mut();
        fences.stamp_all_pending(fresh.iter().copied(), || anchors.next());
        // No cell waits for a later one.
        let anchor = anchors.next();
        let latest = unsettled.iter().next_back().map(|(_, waits_for)| *waits_for);
        debug_assert!(latest.is_none_or(|latest| latest <= anchor), "what waits longest stands first");
        let room = UNSETTLED_KEPT.saturating_sub(unsettled.len());
        unsettled.extend(fresh.drain(..).take(room).map(|slot| (slot, anchor)));
    }

    /// Gives the slots that waited for an anchor its offset.
    pub(crate) fn settle(&self) {
        let view = self.shared.shard().view.load();
        let Some(head) = view.head else { return };
        self.shared.shard().fences.settle_floor(view.anchor, head.offset);
        let mut unsettled = self.unsettled.borrow_mut();
        let due = unsettled.partition_point(|(_, waits_for)| *waits_for <= view.anchor);
        let slots = unsettled.drain(..due).map(|(slot, _)| slot);
        self.shared.shard().fences.settle_all(slots, view.anchor, head.offset);
    }
}
