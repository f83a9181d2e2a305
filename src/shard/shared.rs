//! One shard, as the threads share it that are busy with it, and what it has in common with the others.

use std::ops::Deref;
use std::sync::Arc;

use crate::config::PresentAs;
use crate::core::fence::FenceTable;
use crate::core::nodes::view::View;
use crate::core::slots::ShardIndex;
use crate::shard::Shard;
use crate::shard::cluster::Cluster;
use crate::shard::common::Common;

/// One primary and its replicas, and what all threads share besides.
#[derive(Debug)]
pub struct Shared {
    index: ShardIndex,
    cluster: Option<Arc<Cluster>>,
    common: Arc<Common>,
    shard: Shard,
}

impl Shared {
    /// The only shard, with so many places for nodes, of which `view` says what is known.
    pub fn new(common: Arc<Common>, places: usize, view: View, fences: FenceTable) -> Self {
        let shard = Shard::new(places, view, fences);
        Self { index: ShardIndex::FIRST, cluster: None, common, shard }
    }

    /// The same, as one of several.
    #[must_use]
    pub fn of(self, cluster: Arc<Cluster>, index: ShardIndex) -> Self {
        Self { index, cluster: Some(cluster), ..self }
    }

    /// The cluster that it is one of.
    #[inline]
    pub fn cluster(&self) -> Option<&Arc<Cluster>> {
        self.cluster.as_ref()
    }

    /// What clients take Redweir for.
    pub fn presented_as(&self) -> PresentAs {
        let config = self.common.config();
        config.upstream.cluster.as_ref().map_or(PresentAs::Standalone, |cluster| cluster.present_as)
    }

    /// Which of the shards it is.
    pub fn index(&self) -> ShardIndex {
        self.index
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
