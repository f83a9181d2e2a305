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
    others: OnceCell<Box<[OnceCell<Box<Dealings>>]>>,
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

    #[cold]
    fn with_other(&self, other: usize) -> &Dealings {
        let others = self.others.get_or_init(|| (1..MOST_SHARDS).map(|_| OnceCell::new()).collect());
        others.get(other).map_or(&self.first, |dealings| dealings.get_or_init(Box::default))
    }

    /// Whether a burst has left much room.
    #[inline]
    pub(super) fn are_roomy(&self) -> bool {
        self.first.session.borrow().is_roomy() || self.others.get().is_some() && self.are_others_roomy()
    }

    #[cold]
    fn are_others_roomy(&self) -> bool {
        self.all().any(|(_, dealings)| dealings.session.borrow().is_roomy())
    }

    /// With each that there were any with.
    pub(super) fn all(&self) -> impl Iterator<Item = (ShardIndex, &Dealings)> {
        let others = self.others.get().into_iter().flatten().enumerate();
        let others =
            others.filter_map(|(other, dealings)| Some((ShardIndex::new(other + 1)?, &**dealings.get()?)));
        std::iter::once((ShardIndex::FIRST, &self.first)).chain(others)
    }
}
