//! An exhaustive model of one key in one slot, while the slot moves: every interleaving of the steps of the move, of writes
//! through Redweir and past it, of the streams, of questions and their late answers, of gossip and of a failover.
//!
//! In every state a replica may be anywhere in its primary's stream. No read may be sent to one that would answer with a
//! value older than a write which was acknowledged through Redweir, or that Redweir has seen in a stream; nor may it be
//! taken from one as the last word that there is no such key, which there always is. And once a write to it was acknowledged
//! or seen at another shard, the slot does not count as stable where it was, until keys may have come back.

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, VecDeque};
use std::hash::{Hash, Hasher};

use super::*;
use crate::core::slots::{Change, Claims, Expected, SlotPlace};
use crate::wire::absent::looks_absent;

const SLOT: HashSlot = match HashSlot::new(0) {
    Some(slot) => slot,
    None => unreachable!(),
};

/// What the stream of a shard has of the key: its value, or that it is gone.
type Op = Option<u8>;

/// A primary, as a server is.
#[derive(Clone, Debug, Hash)]
struct Primary {
    /// How often its shard has had another one.
    failovers: usize,
    epoch: u64,
    /// Who owns the slot, as far as it knows, and under which epoch.
    owner: usize,
    owner_epoch: u64,
    migrating: Option<usize>,
    importing: Option<usize>,
    stream: Vec<Op>,
    /// How much of it Redweir has read.
    followed: usize,
    /// What the key's fence demands in this shard.
    fence: usize,
}

/// What a primary has answered to `CLUSTER NODES`: itself and who has the slot, with the epochs and failovers of all.
#[derive(Clone, Debug, Hash)]
struct Answer {
    owner: usize,
    owner_epoch: u64,
    migrating: Option<usize>,
    importing: Option<usize>,
    shards: Vec<(u64, usize)>,
}

/// What may still happen.
#[derive(Clone, Copy, Debug, Hash)]
struct Left {
    moves: u8,
    /// How often a key comes back, and one side calls the move off, together.
    returns: u8,
    own_writes: u8,
    foreign_writes: u8,
    /// How often what there is in a stream is read.
    reads: u8,
    late_answers: u8,
    failovers: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Floor {
    Pending,
    At(usize),
}

#[derive(Clone, Debug)]
struct World {
    now: u64,
    shards: Vec<Primary>,
    /// Of each, an answer that is late: when the question was sent, and what was answered. It is answered at once: a question
    /// that was answered later would have to be sent later as well to prove as much.
    questions: Vec<Option<(Moment, Answer)>>,
    claims: Claims,
    place: SlotPlace,
    floor: Floor,
    /// The newest value that was acknowledged or seen.
    known: u8,
    /// The newest value there is.
    last: u8,
    /// Whether a write was acknowledged or seen in a shard where the slot was not at first.
    elsewhere: bool,
    /// A bit for each value that the cluster has lost.
    lost: u64,
    left: Left,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Import {
        at: usize,
        from: usize,
    },
    Migrate {
        at: usize,
        to: usize,
    },
    MoveKey {
        from: usize,
        to: usize,
    },
    SetSlotAtTarget(usize),
    SetSlotAtSource(usize),
    CallOff(usize),
    Gossip {
        to: usize,
        from: usize,
    },
    Failover(usize),
    OwnWrite,
    ForeignWrite,
    Follow(usize),
    Anchor,
    /// A question, and its answer.
    Poll(usize),
    /// A question whose answer is heard later.
    Question(usize),
    Hear(usize),
}

/// What a primary does with a write.
enum Served {
    Done,
    Moved(usize),
    Ask(usize),
}

impl Primary {
    fn value(&self) -> Op {
        self.stream.last().copied().flatten()
    }
}

impl Answer {
    fn report(&self, index: usize) -> NodesReport {
        let peer = |other: usize| name(other, self.shards[other].1);
        let lines = self.shards.iter().enumerate().map(|(other, (epoch, _))| {
            let owns = self.owner == other;
            // Of the owner it knows no more than the epoch that it has heard with the slot.
            line(
                peer(other),
                if owns { self.owner_epoch } else { *epoch },
                if owns { &[(0, 0)] } else { &[] },
            )
        });
        let mut lines: Vec<NodeLine> = lines.collect();
        let mut mine = lines.remove(index);
        mine.epoch = self.shards[index].0;
        mine.open.extend(self.migrating.map(|to| open(0, Opening::Migrating, peer(to))));
        mine.open.extend(self.importing.map(|from| open(0, Opening::Importing, peer(from))));
        report(mine, &lines)
    }
}

impl World {
    fn new(count: usize, left: Left) -> Self {
        let primary = |index: usize| Primary {
            failovers: 0,
            epoch: index as u64 + 1,
            owner: 0,
            owner_epoch: 1,
            migrating: None,
            importing: None,
            stream: if index == 0 { vec![Some(1)] } else { Vec::new() },
            followed: usize::from(index == 0),
            fence: usize::from(index == 0),
        };
        let mut world = Self {
            now: 10,
            shards: (0..count).map(primary).collect(),
            questions: vec![None; count],
            claims: Claims::with_slots(1),
            place: SlotPlace::UNOWNED,
            floor: Floor::Pending,
            known: 1,
            last: 1,
            elsewhere: false,
            lost: 0,
            left,
        };
        for index in 0..count {
            let said = world.answer(index).report(index);
            let changes = world.claims.report(shard(index), &said, ms(1), ms(2));
            world.publish(&changes);
        }
        assert_eq!(world.place.stable_owner(), Some(shard(0)));
        world
    }

    /// What the primary answers to `CLUSTER NODES`.
    fn answer(&self, index: usize) -> Answer {
        let Primary { owner, owner_epoch, migrating, importing, .. } = self.shards[index];
        let shards = self.shards.iter().map(|shard| (shard.epoch, shard.failovers)).collect();
        Answer { owner, owner_epoch, migrating, importing, shards }
    }

    /// As the caller has to: floor first.
    fn publish(&mut self, changes: &[Change]) {
        for change in changes {
            if change.needs_floor() {
                self.floor = Floor::Pending;
            }
            self.place = change.after;
        }
    }

    fn highest_epoch(&self) -> u64 {
        self.shards.iter().map(|shard| shard.epoch).max().unwrap_or_default()
    }

    /// What the primary does with a write (cluster.c, `getNodeByQuery`).
    fn serve(&mut self, index: usize, asking: bool) -> Served {
        let primary = &mut self.shards[index];
        match (primary.owner == index, primary.migrating, primary.importing) {
            (true, Some(to), _) if primary.value().is_none() => return Served::Ask(to),
            (true, ..) => {}
            (false, _, Some(_)) if asking => {}
            (false, ..) => return Served::Moved(primary.owner),
        }
        self.last += 1;
        primary.stream.push(Some(self.last));
        Served::Done
    }

    /// A client of Redweir writes; what its command meets on its way is heard before it gets its reply.
    fn own_write(&mut self) {
        let (mut asking, now) = (false, ms(self.now));
        let Some(mut at) = self.place.owner.map(ShardIndex::index) else { return };
        for _ in 0..4 {
            let changes = match self.serve(at, asking) {
                Served::Done => {
                    self.known = self.last;
                    self.elsewhere |= at != 0;
                    self.shards[at].fence = self.shards[at].stream.len();
                    return;
                }
                Served::Moved(to) => {
                    (at, asking) = (to, false);
                    self.claims.moved(SLOT, shard(to), now)
                }
                Served::Ask(to) => {
                    (at, asking) = (to, true);
                    self.claims.ask(SLOT, Some(shard(to)), now)
                }
            };
            self.publish(&changes);
        }
    }

    /// Somebody writes who does not come through Redweir.
    fn foreign_write(&mut self) {
        let (mut at, mut asking) = (0, false);
        for _ in 0..4 {
            match self.serve(at, asking) {
                Served::Done => return,
                Served::Moved(to) => (at, asking) = (to, false),
                Served::Ask(to) => (at, asking) = (to, true),
            }
        }
    }

    /// Redweir reads what there is in a stream.
    fn follow(&mut self, index: usize) {
        let primary = &mut self.shards[index];
        let lost = self.lost;
        let ops = primary.stream[primary.followed..].iter().flatten();
        let newest = ops.copied().filter(|value| lost >> value & 1 == 0).max();
        self.known = self.known.max(newest.unwrap_or_default());
        self.elsewhere |= index != 0;
        primary.followed = primary.stream.len();
        primary.fence = primary.followed;
        let changes = self.claims.foreign_write(shard(index), SLOT, ms(self.now));
        self.publish(&changes);
    }

    /// An answer is read, somewhat later than the question was sent.
    fn hear(&mut self, index: usize, asked_at: Moment, answer: &Answer) {
        self.now += 1;
        let changes = self.claims.report(shard(index), &answer.report(index), asked_at, ms(self.now));
        self.publish(&changes);
    }

    fn fail_over(&mut self, index: usize) {
        let epoch = self.highest_epoch() + 1;
        let primary = &mut self.shards[index];
        // A replica that has it all; it knows of no open slots (Redis 7.0).
        (primary.migrating, primary.importing, primary.epoch) = (None, None, epoch);
        primary.failovers += 1;
        if primary.owner == index {
            primary.owner_epoch = epoch;
        }
    }

    /// `SETSLOT … NODE` at the target (`clusterBumpConfigEpochWithoutConsensus`).
    fn set_slot_at_target(&mut self, index: usize) {
        let others = self.shards.iter().enumerate().filter(|(other, _)| *other != index);
        let highest = others.map(|(_, shard)| shard.epoch).max().unwrap_or_default();
        let primary = &mut self.shards[index];
        if primary.epoch <= highest {
            primary.epoch = highest + 1;
        }
        (primary.owner, primary.owner_epoch, primary.importing) = (index, primary.epoch, None);
    }

    fn actions(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        let (left, count) = (self.left, self.shards.len());
        let when = |may: bool, action: Action| may.then_some(action);
        // While the slot moves nobody asks what the floor is, and it is raised again behind that.
        let is_wanted = self.floor == Floor::Pending && self.place.stable_owner().is_some();
        actions.extend(when(is_wanted, Action::Anchor));
        actions.extend(when(left.own_writes > 0, Action::OwnWrite));
        actions.extend(when(left.foreign_writes > 0, Action::ForeignWrite));
        for (index, me) in self.shards.iter().enumerate() {
            let owns = me.owner == index;
            actions.extend(when(left.reads > 0 && me.followed < me.stream.len(), Action::Follow(index)));
            let late = self.questions[index].is_some();
            actions.push(if late { Action::Hear(index) } else { Action::Poll(index) });
            actions.extend(when(left.late_answers > 0 && !late, Action::Question(index)));
            actions.extend(when(left.failovers > 0, Action::Failover(index)));
            // Whoever imports must not be left with keys that nobody finds: that is no move, but a loss.
            let called_off = me.importing.is_some() && me.value().is_none() || me.migrating.is_some();
            actions.extend(when(called_off && left.returns > 0, Action::CallOff(index)));
            let is_empty = |primary: &Primary| primary.value().is_none();
            let others = || self.shards.iter().enumerate().filter(|(other, _)| *other != index);
            let has_all = me.importing.is_some() && others().all(|(_, other)| is_empty(other));
            actions.extend(when(has_all, Action::SetSlotAtTarget(index)));
            let has_given = owns && me.migrating.is_some() && is_empty(me);
            actions.extend(when(has_given, Action::SetSlotAtSource(index)));
            // Nobody begins a move before the last one is over.
            let is_closed = self.shards.iter().all(|any| any.importing.is_none() && any.migrating.is_none());
            for other in (0..count).filter(|other| *other != index) {
                let them = &self.shards[other];
                let may_import = left.moves > 0 && is_closed && !owns && me.owner == other;
                actions.extend(when(may_import, Action::Import { at: index, from: other }));
                let may_migrate = owns && me.migrating.is_none() && them.importing == Some(index);
                actions.extend(when(may_migrate, Action::Migrate { at: index, to: other }));
                // A key that is at both does not move (`BUSYKEY`).
                let here = me.value().is_some() && is_empty(them);
                let open = me.migrating == Some(other);
                let moves = owns && open && them.importing == Some(index) && here;
                let returns = me.importing == Some(other) && them.owner == other && here && left.returns > 0;
                actions.extend(when(moves || returns, Action::MoveKey { from: index, to: other }));
                let news = them.owner == other && them.epoch > me.owner_epoch && me.importing.is_none();
                actions.extend(when(news, Action::Gossip { to: index, from: other }));
            }
        }
        actions
    }

    fn step(&mut self, action: Action) {
        self.now += 1;
        let now = ms(self.now);
        match action {
            Action::Import { at, from } => {
                self.left.moves -= 1;
                self.shards[at].importing = Some(from);
            }
            Action::Migrate { at, to } => self.shards[at].migrating = Some(to),
            Action::MoveKey { from, to } => {
                if self.shards[from].importing == Some(to) {
                    self.left.returns -= 1;
                }
                let value = self.shards[from].value();
                self.shards[to].stream.push(value);
                self.shards[from].stream.push(None);
            }
            Action::SetSlotAtTarget(at) => self.set_slot_at_target(at),
            Action::SetSlotAtSource(at) => {
                let to = self.shards[at].migrating.take().unwrap_or(at);
                (self.shards[at].owner, self.shards[at].owner_epoch) = (to, self.shards[to].epoch);
            }
            Action::CallOff(at) => {
                self.left.returns -= 1;
                (self.shards[at].migrating, self.shards[at].importing) = (None, None);
            }
            Action::Gossip { to, from } => {
                let epoch = self.shards[from].epoch;
                let kept = self.shards[from].value().unwrap_or_default();
                let primary = &mut self.shards[to];
                let was_owner = primary.owner == to;
                (primary.owner, primary.owner_epoch) = (from, epoch);
                if was_owner && primary.value().is_some() {
                    // It was written to after the other one had taken over: the cluster itself has lost that
                    // (`clusterUpdateSlotsConfigWith`, dirty slots).
                    primary.stream.push(None);
                    self.lost |= (kept + 1..=self.last).fold(0, |lost, value| lost | 1 << value);
                    self.known = self.known.min(kept);
                }
            }
            Action::Failover(at) => {
                self.left.failovers -= 1;
                self.fail_over(at);
            }
            Action::OwnWrite => {
                self.left.own_writes -= 1;
                self.own_write();
            }
            Action::ForeignWrite => {
                self.left.foreign_writes -= 1;
                self.foreign_write();
            }
            Action::Follow(at) => {
                self.left.reads -= 1;
                self.follow(at);
            }
            Action::Anchor => {
                if let (Floor::Pending, Some(owner)) = (self.floor, self.place.owner) {
                    self.floor = Floor::At(self.shards[owner.index()].stream.len());
                }
            }
            Action::Poll(at) => self.hear(at, now, &self.answer(at)),
            Action::Question(at) => {
                self.left.late_answers -= 1;
                self.questions[at] = Some((now, self.answer(at)));
            }
            Action::Hear(at) => {
                if let Some((asked_at, answer)) = self.questions[at].take() {
                    self.hear(at, asked_at, &answer);
                }
            }
        }
    }

    /// Reads at every place where a replica can be that may be asked. Returns how many there are.
    fn check(&self, may_return: bool) -> Result<usize, String> {
        let Some(owner) = self.place.stable_owner() else { return Ok(0) };
        if !may_return && self.elsewhere && owner == shard(0) {
            return Err("the slot seems to be where keys of it no longer are".to_owned());
        }
        let Floor::At(floor) = self.floor else { return Ok(0) };
        let primary = &self.shards[owner.index()];
        let mut served = 0;
        for applied in floor.max(primary.fence)..=primary.stream.len() {
            let value = applied.checked_sub(1).and_then(|at| primary.stream[at]);
            let reply = value.map_or_else(|| "$-1\r\n".to_owned(), |value| format!("$1\r\n{value}\r\n"));
            if looks_absent(reply.as_bytes(), Expected::Anything) {
                continue;
            }
            served += 1;
            if value.is_none_or(|value| value < self.known) {
                let replica = format!("the replica of {owner} that has applied {applied}");
                return Err(format!("{replica} says {value:?}, and {} is known", self.known));
            }
        }
        Ok(served)
    }

    /// The same for states that nothing can tell apart: moments count only as far as one is after another.
    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.shards.hash(&mut hasher);
        for question in &self.questions {
            question.as_ref().map(|(_, answer)| answer).hash(&mut hasher);
        }
        for (shard, known) in &self.claims.shards {
            (shard, known.epoch).hash(&mut hasher);
        }
        self.claims.slots.hash(&mut hasher);
        for motion in self.claims.motions.values() {
            let mut awaits = motion.awaits.to_vec();
            let mut involved = motion.involved.to_vec();
            awaits.sort_unstable();
            involved.sort_unstable();
            (awaits, involved, motion.anyone, motion.confirmed).hash(&mut hasher);
            for asked_at in self.questions.iter().flatten().map(|(asked_at, _)| *asked_at) {
                (asked_at > motion.evidence).hash(&mut hasher);
            }
        }
        (self.place, self.floor, self.known, self.last, self.elsewhere, self.lost, self.left)
            .hash(&mut hasher);
        hasher.finish()
    }
}

/// What was seen of a scenario.
#[derive(Debug, Default)]
struct Seen {
    states: usize,
    /// Reads that a replica may have.
    served: usize,
    /// Those of them after the slot has moved.
    served_by_another: usize,
    /// States in which a move is over that was called off.
    returned: usize,
}

/// Visits every state that can be reached, nearest first, so that a trace to a broken rule is as short as any.
fn explore(count: usize, left: Left) -> Seen {
    let first = World::new(count, left);
    let may_return = left.returns > 0 || left.failovers > 0 || left.moves > 1;
    let mut from: HashMap<u64, Option<(u64, Action)>> = HashMap::from([(first.fingerprint(), None)]);
    let mut queue = VecDeque::from([(first.fingerprint(), first)]);
    let mut seen = Seen::default();
    while let Some((at, world)) = queue.pop_front() {
        seen.states += 1;
        match world.check(may_return) {
            Ok(served) => {
                let is_first = world.place.owner == Some(shard(0));
                seen.served += served;
                seen.served_by_another += if is_first { 0 } else { served };
                let returned = is_first && world.left.returns < left.returns;
                seen.returned += usize::from(served > 0 && returned);
            }
            Err(broken) => {
                let (mut trace, mut state) = (Vec::new(), at);
                while let Some(Some((before, action))) = from.get(&state) {
                    trace.push(*action);
                    state = *before;
                }
                trace.reverse();
                panic!("{broken}, after {trace:#?}\n{world:#?}");
            }
        }
        for action in world.actions() {
            let mut next = world.clone();
            next.step(action);
            let print = next.fingerprint();
            if let std::collections::hash_map::Entry::Vacant(vacant) = from.entry(print) {
                vacant.insert(Some((at, action)));
                queue.push_back((print, next));
            }
        }
    }
    seen
}

const NOTHING: Left =
    Left { moves: 0, returns: 0, own_writes: 0, foreign_writes: 0, reads: 0, late_answers: 0, failovers: 0 };

#[test]
fn a_slot_that_moves_hides_no_write_that_is_known() {
    let seen =
        explore(2, Left { moves: 1, own_writes: 1, foreign_writes: 1, reads: 2, late_answers: 1, ..NOTHING });
    assert!(seen.served > 100 && seen.served_by_another > 100, "{seen:?}");
}

#[test]
fn a_slot_of_which_a_move_was_seen_is_not_stable_before_it_is_over() {
    let seen = explore(2, Left { moves: 1, own_writes: 1, reads: 1, late_answers: 2, ..NOTHING });
    assert!(seen.served > 100 && seen.served_by_another > 100, "{seen:?}");
}

#[test]
fn a_move_that_is_called_off_hides_no_write_that_is_known() {
    let seen = explore(2, Left { moves: 1, returns: 3, own_writes: 1, reads: 1, ..NOTHING });
    assert!(seen.served > 100 && seen.returned > 100, "{seen:?}");
}

#[test]
fn a_failover_in_the_middle_of_a_move_hides_no_write_that_is_known() {
    let seen = explore(2, Left { moves: 1, own_writes: 1, failovers: 1, reads: 1, ..NOTHING });
    assert!(seen.served > 100 && seen.served_by_another > 100, "{seen:?}");
}

#[test]
fn a_slot_that_moves_on_hides_no_write_that_is_known() {
    let seen = explore(3, Left { moves: 2, own_writes: 1, reads: 1, ..NOTHING });
    assert!(seen.served > 100 && seen.served_by_another > 100, "{seen:?}");
}
