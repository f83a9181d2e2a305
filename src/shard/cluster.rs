//! The shards of a Redis Cluster: which there are, who of them has which hash slot, and what of that every thread may rely on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::core::address::Address;
use crate::core::fence::{AnchorSeq, FenceTable, Mark};
use crate::core::nodes::view::View;
use crate::core::position::Offset;
use crate::core::slots::{Change, Claims, Floor, HashSlot, ShardIndex, SlotMap, SlotPlace, SlotState};
use crate::net::runtime::jitter;
use crate::net::runtime::limits::MOST_SHARDS;
use crate::shard::common::Common;
use crate::shard::shared::Shared;

/// What all threads know of the cluster.
#[derive(Debug)]
pub struct Cluster {
    map: SlotMap,
    claims: Mutex<Claims>,
    shards: ArcSwap<Vec<Arc<Shared>>>,
    /// The shard of the node at each address.
    addresses: ArcSwap<BTreeMap<Address, ShardIndex>>,
    /// How many fences each shard has, and by which keys they are found: the same, so that a command that goes on to another
    /// shard needs no other fences.
    fences: (usize, [u64; 4]),
    /// Those that have a primary.
    live: ArcSwap<Vec<ShardIndex>>,
    /// Counts reasons to ask the primaries at once.
    looks: watch::Sender<u64>,
    /// The name of the one node that clients are shown (`present-as`): 40 hexadecimal characters.
    pub name: String,
}

impl Cluster {
    /// No shard is known. Each is to have so many fences.
    pub fn new(fences: usize, seeds: [u64; 4]) -> Self {
        Self {
            map: SlotMap::new(),
            claims: Mutex::default(),
            shards: ArcSwap::default(),
            addresses: ArcSwap::default(),
            fences: (fences, seeds),
            live: ArcSwap::default(),
            looks: watch::Sender::new(0),
            name: {
                let [a, b, c, _] = jitter::seeds();
                format!("{a:016x}{b:016x}{:08x}", c as u32)
            },
        }
    }

    /// One more shard, of which `view` says what is known. `None`: there are too many.
    pub fn add(self: &Arc<Self>, common: &Arc<Common>, places: usize, view: View) -> Option<Arc<Shared>> {
        let mut shards = self.shards.load().to_vec();
        let index = ShardIndex::new(shards.len()).filter(|index| index.index() < MOST_SHARDS)?;
        let (slots, seeds) = self.fences;
        let fences = FenceTable::new(slots, seeds);
        let shared = Shared::new(Arc::clone(common), places, view, fences).of(Arc::clone(self), index);
        let shared = Arc::new(shared);
        shards.push(Arc::clone(&shared));
        self.shards.store(Arc::new(shards));
        Some(shared)
    }

    /// The shard at this place.
    pub fn shard(&self, index: ShardIndex) -> Option<Arc<Shared>> {
        self.shards.load().get(index.index()).cloned()
    }

    /// The shard of the node at this address.
    pub fn shard_at(&self, address: &Address) -> Option<ShardIndex> {
        self.addresses.load().get(address).copied()
    }

    /// Which node is of which shard.
    pub fn know_addresses(&self, addresses: BTreeMap<Address, ShardIndex>) {
        if **self.addresses.load() != addresses {
            self.addresses.store(Arc::new(addresses));
        }
    }

    /// All of them, those included that have no slots any longer.
    pub fn shards(&self) -> Arc<Vec<Arc<Shared>>> {
        self.shards.load_full()
    }

    /// Those that have a primary.
    pub fn live(&self) -> Arc<Vec<ShardIndex>> {
        self.live.load_full()
    }

    /// These have a primary.
    pub fn know_live(&self, live: Vec<ShardIndex>) {
        if **self.live.load() != live {
            self.live.store(Arc::new(live));
        }
    }

    /// Where the keys of a slot are.
    #[inline]
    pub fn place(&self, slot: HashSlot) -> SlotPlace {
        self.map.load(slot)
    }

    /// Rises with every change of a place.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.map.generation()
    }

    /// What a replica of `shard` must have applied under `view` to be asked for keys of a slot that was found at `place`: no
    /// less than that, and no more than one has that is `likely` to be asked.
    #[inline]
    pub fn floor(
        &self,
        (slot, place): (HashSlot, SlotPlace),
        shard: &Shared,
        view: &View,
        likely: Option<Offset>,
    ) -> Floor {
        if place.state != SlotState::Stable {
            return Floor::PRIMARY;
        }
        let anchored = view.head.map(|head| (view.anchor, head.offset));
        let top = likely
            .and_then(|applied| shard.shard().floors.top(anchored).filter(|top| top.is_met_by(applied)));
        match top {
            // It is in the offsets of the owner of the place.
            Some(top) if self.map.load(slot) == place => top,
            _ => self.floor_of_slot(slot, place, shard, anchored),
        }
    }

    /// The same, by what is known of the slot itself.
    #[cold]
    fn floor_of_slot(
        &self,
        slot: HashSlot,
        place: SlotPlace,
        shard: &Shared,
        anchored: Option<(AnchorSeq, Offset)>,
    ) -> Floor {
        let floor = match shard.shard().floors.of(slot, anchored) {
            Mark::Clear => Floor::NONE,
            Mark::At(offset) => Floor::at(offset),
            Mark::Pending(_) => {
                shard.shard().anchor_wanted.notify_one();
                Floor::PRIMARY
            }
        };
        // The floor is in the offsets of the owner of the place.
        if self.map.load(slot) == place { floor } else { Floor::PRIMARY }
    }

    /// Takes in something that was heard of the slots, and publishes what has changed by it before it returns.
    pub fn hear(&self, tell: impl FnOnce(&mut Claims) -> Vec<Change>) {
        let mut claims = self.claims();
        let changes = tell(&mut claims);
        for change in &changes {
            if change.needs_floor()
                && let Some(owner) = change.after.owner.and_then(|owner| self.shard(owner))
            {
                owner.shard().floors.raise(change.slots.iter(), || owner.shard().anchors.next());
            }
            claims.apply(&self.map, change);
        }
        drop(claims);
        if !changes.is_empty() {
            self.look();
        }
    }

    /// What is known of the slots.
    pub fn claims(&self) -> MutexGuard<'_, Claims> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The primaries are to be asked at once.
    pub fn look(&self) {
        self.looks.send_modify(|looks| *looks = looks.wrapping_add(1));
    }

    /// Tells when they are.
    pub fn looks(&self) -> watch::Receiver<u64> {
        self.looks.subscribe()
    }
}
