//! Who owns each slot, and what moves: the control side, where everything that is heard comes together.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, Hash as _, Hasher as _, RandomState};
use std::time::Duration;

use crate::core::moment::Moment;
use crate::core::slots::change::{Change, Touched};
use crate::core::slots::hash_slot::{HASH_SLOTS, HashSlot, SlotRange};
use crate::core::slots::holdings::{Holdings, append};
use crate::core::slots::map::{ShardIndex, SlotMap, SlotPlace};
use crate::core::slots::motion::Motion;
use crate::core::slots::report::{NodeLine, NodeName, NodesReport, OpenSlot, Opening};
use crate::mutant;

/// What is known of the slots. Everything that it is told returns what has changed by it; the caller raises floors, and
/// then has each change published ([`Claims::apply`]), before it tells the next thing.
///
/// A sign of a move that comes with a client's command ([`Self::ask`], [`Self::moved`]) has to be published before that client
/// gets its reply: from then on the client may count on what was written where the sign has led.
#[derive(Clone, Debug)]
pub struct Claims {
    pub(super) slots: Box<[Claim]>,
    pub(super) motions: BTreeMap<HashSlot, Motion>,
    pub(super) shards: BTreeMap<ShardIndex, Shard>,
    /// Which shard a node belongs to, by what the primaries say of their own.
    names: BTreeMap<NodeName, ShardIndex>,
    /// By who has said so last: slots of another one that it claims under the same config epoch. Nothing is decided by this.
    rivals: BTreeMap<ShardIndex, BTreeMap<ShardIndex, Rival>>,
    /// Of which primaries nobody knows what slots they have open: their replicas are left alone.
    blind: BTreeSet<ShardIndex>,
    /// Counts what may have changed anything.
    revision: u64,
    /// By who has said it last: a digest of it, and the revision that it left. Primaries are asked many times a second and nearly always
    /// say the same, of 16,384 slots.
    pub(super) heard: BTreeMap<ShardIndex, (u64, u64)>,
    digests: RandomState,
}

/// Two primaries claim the same slots under the same config epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rival {
    /// Who holds them.
    pub holder: ShardIndex,
    /// Which.
    pub slots: Vec<SlotRange>,
    /// The config epoch of both.
    pub epoch: u64,
}

/// What is known of one slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Claim {
    /// Where commands go.
    pub(super) owner: Option<ShardIndex>,
    /// Who has said last that it owns the slot, under the highest epoch; `None` once it has said that it does not.
    pub(super) holder: Option<ShardIndex>,
    /// The highest config epoch under which any primary has said that it owns the slot, since nobody did.
    pub(super) epoch: Option<u64>,
    /// The highest ever: what others say of it under no higher one is old.
    pub(super) seen: Option<u64>,
}

/// What is known of a shard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shard {
    /// The highest config epoch that its primary has told: who tells a lower one is no longer its primary.
    pub(super) epoch: u64,
    /// When the last question was sent that was answered.
    asked_at: Moment,
}

/// What a primary says, and when.
struct Said<'a> {
    shard: ShardIndex,
    mine: &'a NodeLine,
    report: &'a NodesReport,
    /// Per slot: whether it is its own.
    own: Box<[bool]>,
    /// The slots that it has open, as far as that means anything.
    open: BTreeMap<HashSlot, NodeName>,
    asked_at: Moment,
    heard_at: Moment,
}

impl Claims {
    /// Nothing is known.
    pub fn new() -> Self {
        Self::with_slots(HASH_SLOTS)
    }

    pub(super) fn with_slots(count: u16) -> Self {
        Self {
            slots: vec![Claim::default(); usize::from(count)].into(),
            motions: BTreeMap::new(),
            shards: BTreeMap::new(),
            names: BTreeMap::new(),
            rivals: BTreeMap::new(),
            blind: BTreeSet::new(),
            revision: 0,
            heard: BTreeMap::new(),
            digests: RandomState::new(),
        }
    }

    /// Where the keys of this slot are, as far as everything goes that was heard.
    pub fn place(&self, slot: HashSlot) -> SlotPlace {
        let owner = self.slots.get(slot.index()).and_then(|claim| claim.owner);
        let is_blind = owner.is_some_and(|owner| self.blind.contains(&owner));
        SlotPlace::of(owner, is_blind || self.motions.contains_key(&slot))
    }

    /// The shard of the node that is called so.
    pub fn shard_of(&self, name: &NodeName) -> Option<ShardIndex> {
        self.names.get(name).copied()
    }

    /// How many slots are moving.
    pub fn moving(&self) -> usize {
        self.motions.len()
    }

    /// Who has which slots, by what the primaries say of themselves: one that nobody says is its own is nobody's, even where
    /// commands still go to whoever had it.
    pub fn holdings(&self) -> Holdings {
        Holdings::of(|slot| {
            let is_held = self.slots.get(slot.index()).is_some_and(|claim| claim.holder.is_some());
            if is_held { self.place(slot) } else { SlotPlace::UNOWNED }
        })
    }

    /// The config epoch under which this shard has its slots.
    pub fn epoch(&self, shard: ShardIndex) -> Option<u64> {
        self.shards.get(&shard).map(|known| known.epoch)
    }

    /// What the primary of this shard claims although another one has it under the same config epoch.
    pub fn rivals(&self, shard: ShardIndex) -> Vec<Rival> {
        self.rivals.get(&shard).into_iter().flat_map(BTreeMap::values).cloned().collect()
    }

    /// The slots of this shard that have been moving for so long or longer without a sign that any key does, though somebody
    /// says that they are its own: each with those who take part, and for how long.
    pub fn stuck(
        &self,
        owner: ShardIndex,
        least: Duration,
        now: Moment,
    ) -> Vec<(HashSlot, Vec<ShardIndex>, Duration)> {
        let is_stuck = |motion: &Motion| now.since(motion.progress) >= least;
        let of_it = self.motions.iter().filter(|(slot, motion)| {
            let claim = self.slots.get(slot.index());
            is_stuck(motion)
                && claim.is_some_and(|claim| claim.owner == Some(owner) && claim.holder.is_some())
        });
        of_it.map(|(slot, motion)| (*slot, motion.involved.to_vec(), now.since(motion.progress))).collect()
    }

    /// The shards whose primaries have to be asked anew, so that moves can end.
    pub fn awaited(&self) -> BTreeSet<ShardIndex> {
        let owners = self.motions.keys().filter_map(|slot| self.place(*slot).owner);
        self.motions.values().flat_map(|motion| motion.awaits().iter().copied()).chain(owners).collect()
    }

    /// Publishes a change whose floor, if it [needs one](Change::needs_floor), was raised before.
    pub fn apply(&self, map: &SlotMap, change: &Change) {
        map.store(change.slots.iter(), change.after);
    }

    /// What the primary of `shard` has answered to `CLUSTER NODES`. The question was sent at `asked_at`, the answer was read
    /// at `heard_at`: it is of a moment between the two. What a replica says counts for nothing, nor what a primary says of
    /// an older config epoch than its shard has had, nor the answer to an earlier question than the last.
    pub fn report(
        &mut self,
        shard: ShardIndex,
        report: &NodesReport,
        asked_at: Moment,
        heard_at: Moment,
    ) -> Vec<Change> {
        let Some(mine) = report.myself().filter(|mine| mine.is_primary()) else { return Vec::new() };
        if !self.admits(shard, mine.epoch, asked_at) {
            return Vec::new();
        }
        let digest = self.digest(report);
        let known = self.heard.get(&shard).copied();
        if self.motions.is_empty() && known == Some((digest, self.revision)) {
            return Vec::new();
        }
        self.learn_names(shard, mine, report);
        self.rivals.remove(&shard);
        let said = Said::new(shard, mine, report, self.slots.len(), (asked_at, heard_at));
        let mut touched = Touched::default();
        self.see_or_not(shard, report.shows_open, &mut touched);
        for slot in mine.slots.iter().flat_map(|range| range.iter()) {
            self.hear_claim(&said, slot, &mut touched);
        }
        self.hear_renounced(&said, &mut touched);
        self.hear_of_others(&said, &mut touched);
        for (slot, peer) in &said.open {
            let peer = self.shard_of(peer);
            self.see(*slot, [Some(shard), peer], heard_at, &mut touched);
        }
        self.close(&said, &mut touched);
        let changes = touched.changes(|slot| self.place(slot));
        let is_news = known.is_none_or(|(known, _)| known != digest);
        self.revision += u64::from(is_news || !changes.is_empty());
        self.heard.insert(shard, (digest, self.revision));
        changes
    }

    /// Stands for all that counts in a report.
    fn digest(&self, report: &NodesReport) -> u64 {
        let mut hasher = self.digests.build_hasher();
        report.shows_open.hash(&mut hasher);
        for line in &report.lines {
            (line.name, line.flags.myself, line.is_primary(), line.master, line.epoch).hash(&mut hasher);
            (&line.slots, &line.open).hash(&mut hasher);
        }
        hasher.finish()
    }

    /// A node has answered `-MOVED`: the slot is at `to`. It is followed at once, and is no more than hearsay.
    pub fn moved(&mut self, slot: HashSlot, to: ShardIndex, now: Moment) -> Vec<Change> {
        let mut touched = Touched::default();
        if self.place(slot).owner != Some(to) {
            self.point(slot, to, now, &mut touched);
        }
        touched.changes(|slot| self.place(slot))
    }

    /// The owner has answered `-ASK`: a key that is not there is at `to`, or would be. `None`: it is not known which
    /// shard that is.
    pub fn ask(&mut self, slot: HashSlot, to: Option<ShardIndex>, now: Moment) -> Vec<Change> {
        self.suspect(slot, to, now)
    }

    /// The stream of `shard` has a write to a key of this slot (`RESTORE-ASKING` as any other). If the slot is its own, that is
    /// as it should be.
    pub fn foreign_write(&mut self, shard: ShardIndex, slot: HashSlot, now: Moment) -> Vec<Change> {
        if self.place(slot).owner == Some(shard) {
            return Vec::new();
        }
        // Of one that is no more nobody would ever hear that it is over.
        let known = self.shards.contains_key(&shard).then_some(shard);
        let changes = self.suspect(slot, known, now);
        if let Some(motion) = self.motions.get_mut(&slot) {
            motion.goes_on(now);
        }
        changes
    }

    /// A stream has `CLUSTER SETSLOT` of this slot, or `CLUSTER SYNCSLOTS` (Valkey, Redis 8.4). Who takes part is not looked for.
    pub fn set_slot(&mut self, slot: HashSlot, now: Moment) -> Vec<Change> {
        self.suspect(slot, None, now)
    }

    /// The shard is no more: it has lost its last slot, and its nodes have gone or follow somebody else. Slots of which nobody
    /// else has said that they are its own are nobody's; nobody waits for its answers any longer.
    pub fn retire(&mut self, shard: ShardIndex) -> Vec<Change> {
        let mut touched = Touched::default();
        self.revision += 1;
        self.heard.remove(&shard);
        self.shards.remove(&shard);
        self.rivals.remove(&shard);
        self.blind.remove(&shard);
        self.names.retain(|_, of| *of != shard);
        for slot in all_slots(self.slots.len()) {
            let claim = self.slots[slot.index()];
            if claim.owner == Some(shard) {
                touched.note(slot, self.place(slot));
            }
            let other = |of: Option<ShardIndex>| of.filter(|of| *of != shard);
            // Whoever holds it by its own word is where commands go, if nobody else has been pointed at.
            let holder = other(claim.holder);
            // With it goes its epoch: whoever comes next may have begun anew.
            let is_kept = holder.is_some() || claim.holder != Some(shard);
            let (epoch, seen) = (claim.epoch.filter(|_| is_kept), claim.seen.filter(|_| is_kept));
            self.slots[slot.index()] = Claim { owner: other(claim.owner).or(holder), holder, epoch, seen };
        }
        self.motions.values_mut().for_each(|motion| motion.leave(shard));
        self.end_motions(&mut touched);
        touched.changes(|slot| self.place(slot))
    }

    /// Whether the answer counts.
    fn admits(&mut self, shard: ShardIndex, epoch: u64, asked_at: Moment) -> bool {
        let Some(known) = self.shards.get_mut(&shard) else {
            self.shards.insert(shard, Shard { epoch, asked_at });
            self.motions.values_mut().for_each(|motion| motion.join(shard));
            return true;
        };
        if (epoch < known.epoch && !mutant::is("lower-epoch-wins")) || asked_at < known.asked_at {
            return false;
        }
        *known = Shard { epoch, asked_at };
        true
    }

    /// Whether its primary shows which slots it has open.
    fn see_or_not(&mut self, shard: ShardIndex, shows_open: bool, touched: &mut Touched) {
        if shows_open != self.blind.contains(&shard) || mutant::is("blind-is-stable") {
            return;
        }
        for slot in all_slots(self.slots.len()) {
            if self.slots[slot.index()].owner == Some(shard) {
                touched.note(slot, self.place(slot));
            }
        }
        if shows_open {
            self.blind.remove(&shard);
        } else {
            self.blind.insert(shard);
        }
    }

    fn learn_names(&mut self, shard: ShardIndex, mine: &NodeLine, report: &NodesReport) {
        let listed: BTreeSet<NodeName> = report.lines.iter().map(|line| line.name).collect();
        self.names.retain(|name, of| *of != shard || listed.contains(name));
        self.names.insert(mine.name, shard);
        for line in report.others().filter(|line| line.master == Some(mine.name)) {
            if self.names.len() < MOST_NAMES {
                self.names.insert(line.name, shard);
            }
        }
    }

    /// The primary says that the slot is its own.
    fn hear_claim(&mut self, said: &Said<'_>, slot: HashSlot, touched: &mut Touched) {
        let (shard, epoch, before) = (said.shard, said.mine.epoch, self.place(slot));
        let is_later = self.motions.get(&slot).is_none_or(|motion| motion.is_before(said.asked_at));
        let Some(claim) = self.slots.get_mut(slot.index()) else { return };
        let is_same = claim.holder == Some(shard);
        // Of a slot that nobody holds any longer, the epoch of who did is a limit only for somebody of whom nobody else has said
        // that the slot is there (`CLUSTER DELSLOTS` and `ADDSLOTS` keep the epochs of both).
        let is_given = Some(epoch) == claim.epoch || before.owner == Some(shard);
        let is_higher = Some(epoch) > claim.epoch || claim.holder.is_none() && is_given;
        if !is_same && !is_higher && !mutant::is("lower-epoch-wins") {
            // Somebody has it under a higher epoch, of whom this one has not heard, or under the same (one of the two will get
            // another). Until they agree it takes writes that the other one does not have.
            let (rival, held) = (claim.holder, claim.epoch);
            let is_known = self.motions.get(&slot).is_some_and(|motion| motion.involves(shard));
            if let Some(holder) = rival.filter(|_| Some(epoch) == held) {
                let rivals = self.rivals.entry(shard).or_default();
                let rival =
                    rivals.entry(holder).or_insert_with(|| Rival { holder, slots: Vec::new(), epoch });
                append(&mut rival.slots, slot);
            }
            if !is_known || Some(epoch) == held {
                self.see(slot, [Some(shard), rival], said.heard_at, touched);
            }
            return;
        }
        (claim.holder, claim.epoch, claim.seen) = (Some(shard), Some(epoch), claim.seen.max(Some(epoch)));
        // Who has said so before may have said it before a `MOVED` that was heard since.
        if before.owner == Some(shard) || is_same && !is_later {
            return;
        }
        touched.note(slot, before);
        claim.owner = Some(shard);
        if !is_same && before.owner.is_some() {
            self.see(slot, [before.owner, Some(shard)], said.heard_at, touched);
        }
    }

    /// What the primary no longer says of slots that were its own.
    fn hear_renounced(&mut self, said: &Said<'_>, touched: &mut Touched) {
        let mut lines: Option<Box<[Option<NodeName>]>> = None;
        for slot in all_slots(self.slots.len()).filter(|slot| !said.own[slot.index()]) {
            let claim = self.slots[slot.index()];
            let (holds, owns) = (claim.holder == Some(said.shard), claim.owner == Some(said.shard));
            if !holds && !owns {
                continue;
            }
            if holds {
                self.slots[slot.index()].holder = None;
            }
            let is_later = self.motions.get(&slot).is_none_or(|motion| motion.is_before(said.asked_at));
            if owns && (holds || is_later) {
                let lines = lines.get_or_insert_with(|| said.names_by_slot());
                let named = lines[slot.index()].and_then(|name| self.shard_of(&name));
                let holder = claim.holder.filter(|holder| *holder != said.shard);
                touched.note(slot, self.place(slot));
                self.slots[slot.index()].owner = named.or(holder).or(Some(said.shard));
                self.see(slot, [Some(said.shard), named], said.heard_at, touched);
            }
        }
    }

    /// What the primary says of others: where a slot has gone, if they have it under a higher epoch than anybody has told.
    fn hear_of_others(&mut self, said: &Said<'_>, touched: &mut Touched) {
        for line in said.report.others().filter(|line| line.is_primary()) {
            let shard = self.shard_of(&line.name);
            for slot in line.slots.iter().flat_map(|range| range.iter()) {
                let Some(claim) = self.slots.get(slot.index()) else { continue };
                if Some(line.epoch) <= claim.seen || shard == claim.owner {
                    continue;
                }
                match shard {
                    Some(shard) => self.point(slot, shard, said.heard_at, touched),
                    None => self.see(slot, [None, None], said.heard_at, touched),
                }
            }
        }
    }

    /// Ends what the primary shows to be over.
    fn close(&mut self, said: &Said<'_>, touched: &mut Touched) {
        for (slot, motion) in &mut self.motions {
            let holder = self.slots.get(slot.index()).and_then(|claim| claim.holder);
            let is_own = said.own.get(slot.index()).is_some_and(|own| *own);
            let agrees = !is_own || holder == Some(said.shard) || mutant::is("rivals-are-clean");
            if motion.is_before(said.asked_at) && !said.open.contains_key(slot) && agrees {
                motion.close(said.shard, holder == Some(said.shard));
            }
        }
        self.end_motions(touched);
    }

    fn end_motions(&mut self, touched: &mut Touched) {
        self.motions.retain(|slot, motion| {
            let owner = self.slots.get(slot.index()).and_then(|claim| claim.owner);
            let over = motion.is_over(owner);
            if over {
                // It is moving until then.
                touched.note(*slot, SlotPlace::of(owner, true));
            }
            !over
        });
    }

    /// By hearsay the slot is at `to`.
    fn point(&mut self, slot: HashSlot, to: ShardIndex, now: Moment, touched: &mut Touched) {
        let before = self.place(slot);
        let Some(claim) = self.slots.get_mut(slot.index()) else { return };
        touched.note(slot, before);
        claim.owner = Some(to);
        self.see(slot, [before.owner.or(Some(to)), Some(to)], now, touched);
    }

    /// A sign that the slot moves was seen; its owner takes part in any case.
    fn suspect(&mut self, slot: HashSlot, other: Option<ShardIndex>, now: Moment) -> Vec<Change> {
        let mut touched = Touched::default();
        self.see(slot, [other, other], now, &mut touched);
        touched.changes(|slot| self.place(slot))
    }

    fn see(&mut self, slot: HashSlot, shards: [Option<ShardIndex>; 2], now: Moment, touched: &mut Touched) {
        let before = self.place(slot);
        if self.slots.len() <= slot.index() {
            return;
        }
        touched.note(slot, before);
        self.revision += 1;
        let all = self.shards.keys().copied();
        let motion = self.motions.entry(slot).or_insert_with(|| Motion::new(now));
        motion.see(now, shards.into_iter().chain(before.owner.map(Some)), all);
    }
}

impl Default for Claims {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> Said<'a> {
    fn new(
        shard: ShardIndex,
        mine: &'a NodeLine,
        report: &'a NodesReport,
        slots: usize,
        (asked_at, heard_at): (Moment, Moment),
    ) -> Self {
        let mut own = vec![false; slots].into_boxed_slice();
        for slot in mine.slots.iter().flat_map(|range| range.iter()) {
            if let Some(own) = own.get_mut(slot.index()) {
                *own = true;
            }
        }
        // What a node gives away of a slot that it does not own means nothing to it (cluster.c, `getNodeByQuery`); Redis 7.0
        // shows it for ever where the slot has gone by gossip.
        let means = |open: &&OpenSlot| {
            open.opening == Opening::Importing || own.get(open.slot.index()).is_some_and(|own| *own)
        };
        let open = mine.open.iter().filter(means).map(|open| (open.slot, open.peer)).collect();
        Self { shard, mine, report, own, open, asked_at, heard_at }
    }

    /// Who has each slot by what the primary says of others.
    fn names_by_slot(&self) -> Box<[Option<NodeName>]> {
        let mut names = vec![None; self.own.len()].into_boxed_slice();
        for line in self.report.others().filter(|line| line.is_primary()) {
            for slot in line.slots.iter().flat_map(|range| range.iter()) {
                if let Some(name) = names.get_mut(slot.index()) {
                    *name = Some(line.name);
                }
            }
        }
        names
    }
}

fn all_slots(count: usize) -> impl Iterator<Item = HashSlot> {
    (0..count).filter_map(|number| HashSlot::new(number as u16))
}

/// Nodes whose shard is kept in mind, at most. One that is not known is anybody.
const MOST_NAMES: usize = 1 << 14;
