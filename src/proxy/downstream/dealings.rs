//! What a client has with each shard: what it has written and seen there. Offsets of two shards are of two histories, and have
//! nothing to do with each other.

use std::cell::{Cell, OnceCell, RefCell};

use crate::core::fence::{AnchorSeq, Era};
use crate::core::session::Session;
use crate::core::slots::ShardIndex;
use crate::net::runtime::limits::MOST_SHARDS;

/// What a client has with one shard.
#[derive(Debug, Default)]
pub struct Dealings {
    /// What the connection has written and seen.
    pub session: RefCell<Session>,
    /// Its session counts what it has written and seen itself.
    pub counts_own: Cell<bool>,
    /// The anchor that covers its last acknowledged write, and the history of that time.
    pub wrote: Cell<Option<(AnchorSeq, Era)>>,
}

/// The same with each of them. Most clients have to do with one shard only, which is the first.
#[derive(Debug, Default)]
pub(super) struct AllDealings {
    first: Dealings,
    others: OnceCell<Others>,
}

#[derive(Debug, Default)]
struct Others {
    /// By the place of the shard, the first left out.
    by_shard: Box<[OnceCell<Box<Dealings>>]>,
    /// Those that there are any with.
    met: RefCell<Vec<ShardIndex>>,
    /// Counts how often it was to be looked whether they have much room.
    looks: Cell<u8>,
}

impl AllDealings {
    /// With this one.
    #[inline]
    pub(super) fn with(&self, shard: ShardIndex) -> &Dealings {
        match shard.index().checked_sub(1) {
            None => &self.first,
            Some(other) => self.with_other(other),
        }
    }

    fn with_other(&self, other: usize) -> &Dealings {
        let known = self.others.get().and_then(|others| others.by_shard.get(other)?.get());
        known.map_or_else(|| self.meet(other), |dealings| &**dealings)
    }

    #[cold]
    fn meet(&self, other: usize) -> &Dealings {
        let by_shard = || (1..MOST_SHARDS).map(|_| OnceCell::new()).collect();
        let others = self.others.get_or_init(|| Others { by_shard: by_shard(), ..Others::default() });
        others.by_shard.get(other).map_or(&self.first, |dealings| {
            dealings.get_or_init(|| {
                others.met.borrow_mut().extend(ShardIndex::new(other + 1));
                Box::default()
            })
        })
    }

    /// Whether a burst has left much room. With others than the first that is looked at now and then only: it is not very much,
    /// and they are many.
    #[allow(clippy::inline_always, reason = "measured: 1 % of the instructions of a small command")]
    #[inline(always)]
    pub(super) fn are_roomy(&self) -> bool {
        self.first.session.borrow().is_roomy() || self.others.get().is_some() && self.are_others_roomy()
    }

    #[inline(never)]
    fn are_others_roomy(&self) -> bool {
        self.others.get().is_some_and(|others| {
            others.looks.set(others.looks.get().wrapping_add(1));
            if others.looks.get() % 16 > 0 {
                return false;
            }
            let met = others.met.borrow();
            met.iter().any(|shard| self.with(*shard).session.borrow().is_roomy())
        })
    }

    /// With each that there were any with.
    pub(super) fn all(&self) -> impl Iterator<Item = (ShardIndex, &Dealings)> {
        let others = self.others.get().into_iter().flat_map(|others| others.by_shard.iter().enumerate());
        let others =
            others.filter_map(|(other, dealings)| Some((ShardIndex::new(other + 1)?, &**dealings.get()?)));
        std::iter::once((ShardIndex::FIRST, &self.first)).chain(others)
    }
}
