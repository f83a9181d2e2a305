//! One shard, as the threads share it that are busy with it, and what it has in common with the others.

use std::ops::Deref;
use std::sync::Arc;

use crate::core::fence::FenceTable;
use crate::core::nodes::view::View;
use crate::shard::Shard;
use crate::shard::common::Common;

/// One primary and its replicas, and what all threads share besides.
#[derive(Debug)]
pub struct Shared {
    common: Arc<Common>,
    shard: Shard,
}

impl Shared {
    /// A shard with so many places for nodes, of which `view` says what is known.
    pub fn new(common: Arc<Common>, places: usize, view: View, fences: FenceTable) -> Self {
        Self { common, shard: Shard::new(places, view, fences) }
    }

    /// The primary and its replicas.
    #[inline]
    pub fn shard(&self) -> &Shard {
        &self.shard
    }

    /// What it shares with the other shards.
    pub fn common(&self) -> &Arc<Common> {
        &self.common
    }
}

impl Deref for Shared {
    type Target = Common;

    #[inline]
    fn deref(&self) -> &Common {
        &self.common
    }
}
