//! What each sign and each answer does.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::core::slots::claims::Claim;
use crate::core::slots::{Change, Claims, HASH_SLOTS, SlotMap, SlotPlace, SlotState, in_words};

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;

/// What is known, and what of it is published.
struct World {
    claims: Claims,
    map: SlotMap,
    /// Everything that was published since it was last looked at.
    changes: Vec<Change>,
}

impl World {
    fn new() -> Self {
        Self { claims: Claims::new(), map: SlotMap::new(), changes: Vec::new() }
    }

    /// A has the slots up to 99 under epoch 1, B those up to 199 under epoch 2, C the others under epoch 3.
    fn settled() -> Self {
        let mut world = Self::new();
        for (index, range) in [(A, (0, 99)), (B, (100, 199)), (C, (200, 16_383))] {
            world.hear(index, &report(line(name(index, 0), index as u64 + 1, &[range]), &[]), 1);
        }
        world.changes.clear();
        world
    }

    fn publish(&mut self, changes: Vec<Change>) {
        for change in changes {
            for slot in change.slots.iter() {
                assert_eq!(self.map.load(slot), change.before, "{change:?}");
            }
            self.claims.apply(&self.map, &change);
            self.changes.push(change);
        }
    }

    /// The answer to a question of this moment is read a millisecond later.
    fn hear(&mut self, index: usize, report: &NodesReport, asked_at: u64) {
        self.hear_late(index, report, asked_at, asked_at + 1);
    }

    fn hear_late(&mut self, index: usize, report: &NodesReport, asked_at: u64, heard_at: u64) {
        let changes = self.claims.report(shard(index), report, ms(asked_at), ms(heard_at));
        self.publish(changes);
    }

    fn ask(&mut self, number: u16, to: Option<usize>, now: u64) {
        let changes = self.claims.ask(slot(number), to.map(shard), ms(now));
        self.publish(changes);
    }

    fn moved(&mut self, number: u16, to: usize, now: u64) {
        let changes = self.claims.moved(slot(number), shard(to), ms(now));
        self.publish(changes);
    }

    fn write(&mut self, index: usize, number: u16, now: u64) {
        let changes = self.claims.foreign_write(shard(index), slot(number), ms(now));
        self.publish(changes);
    }

    fn rivals(&self, index: usize) -> Vec<(usize, String)> {
        let rivals = self.claims.rivals(shard(index));
        rivals.iter().map(|rival| (rival.holder.index(), in_words(&rival.slots, 9))).collect()
    }

    fn place(&self, number: u16) -> (Option<usize>, SlotState) {
        let place = self.map.load(slot(number));
        assert_eq!(place, self.claims.place(slot(number)), "what is known is published");
        (place.owner.map(ShardIndex::index), place.state)
    }

    /// The slots of the changes since the last look, and whether their floor had to be raised.
    fn told(&mut self) -> Vec<(String, bool)> {
        self.changes.drain(..).map(|change| (change.slots.to_string(), change.needs_floor())).collect()
    }
}

fn stable(index: usize) -> (Option<usize>, SlotState) {
    (Some(index), SlotState::Stable)
}

fn moving(index: usize) -> (Option<usize>, SlotState) {
    (Some(index), SlotState::Moving)
}

const UNOWNED: (Option<usize>, SlotState) = (None, SlotState::Unowned);

/// A of epoch 1 with all its slots and nothing open, and so on.
fn clean(index: usize) -> NodesReport {
    let range = [(0, 99), (100, 199), (200, 16_383)][index];
    report(line(name(index, 0), index as u64 + 1, &[range]), &[])
}

fn with_open(index: usize, number: u16, opening: Opening, peer: usize) -> NodesReport {
    let mut said = clean(index);
    said.lines[0].open.push(open(number, opening, name(peer, 0)));
    said
}

/// A without slot 7, which B has under epoch 4.
fn after_the_move(index: usize) -> NodesReport {
    match index {
        A => report(line(name(A, 0), 1, &[(0, 6), (8, 99)]), &[line(name(B, 0), 4, &[(7, 7), (100, 199)])]),
        _ => report(line(name(B, 0), 4, &[(7, 7), (100, 199)]), &[]),
    }
}

#[test]
fn a_shard_that_does_not_show_what_it_has_open_is_read_at_its_primary() {
    let mut world = World::settled();
    let blind = |index| NodesReport { shows_open: false, ..clean(index) };
    world.hear(A, &blind(A), 10);
    assert_eq!((world.place(7), world.place(150)), (moving(A), stable(B)));
    // It tells where they go, all the same.
    world.hear(B, &after_the_move(B), 20);
    world.hear(A, &NodesReport { shows_open: false, ..after_the_move(A) }, 30);
    world.hear(B, &after_the_move(B), 40);
    assert_eq!((world.place(7), world.place(8)), (stable(B), moving(A)));
    // What it may have hidden is over when it says so.
    world.hear(A, &after_the_move(A), 50);
    assert_eq!(world.place(8), stable(A));
}

#[test]
fn rivals_of_one_epoch_are_known_until_one_has_another() {
    let mut world = World::settled();
    // B has gone to the epoch of A, of which it has not heard.
    world.hear(B, &report(line(name(B, 0), 2, &[(98, 199)]), &[]), 10);
    assert_eq!(world.rivals(B), [], "a higher epoch wins");
    world.hear(A, &report(line(name(A, 0), 2, &[(0, 99)]), &[]), 20);
    assert_eq!((world.rivals(A), world.rivals(B)), (vec![(B, "98-99".to_owned())], vec![]));
    assert_eq!(world.claims.epoch(shard(A)), Some(2));
    world.hear(A, &report(line(name(A, 0), 2, &[(0, 97)]), &[]), 30);
    assert_eq!(world.rivals(A), []);
}

#[test]
fn what_nobody_says_is_its_own_is_nobodys() {
    let mut world = World::settled();
    assert_eq!(world.claims.holdings().unowned, []);
    world.hear(A, &report(line(name(A, 0), 1, &[(0, 97)]), &[]), 10);
    let holdings = world.claims.holdings();
    assert_eq!(in_words(&holdings.unowned, 9), "98-99");
    assert_eq!(holdings.shard(shard(A)).count(), 98);
    assert_eq!(world.place(98), (Some(A), SlotState::Moving), "commands still go there");
}

#[test]
fn a_move_without_a_key_is_stuck() {
    let mut world = World::settled();
    let stuck = |world: &World, now| {
        let secs = Duration::from_millis(60);
        let of_a = world.claims.stuck(shard(A), secs, ms(now));
        of_a.iter().map(|(slot, nodes, _)| (slot.number(), nodes.len())).collect::<Vec<_>>()
    };
    let opened = |asked_at| {
        let mut mine = line(name(A, 0), 1, &[(0, 99)]);
        mine.open.push(open(7, Opening::Migrating, name(B, 0)));
        (report(mine, &[line(name(B, 0), 2, &[(100, 199)])]), asked_at)
    };
    for asked_at in [10, 40, 80] {
        let (told, asked_at) = opened(asked_at);
        world.hear(A, &told, asked_at);
    }
    assert_eq!((stuck(&world, 70), stuck(&world, 71)), (vec![], vec![(7, 2)]));
    assert_eq!(world.claims.stuck(shard(B), Duration::ZERO, ms(90)), []);
    // A key has come to B.
    world.write(B, 7, 90);
    assert_eq!((stuck(&world, 149), stuck(&world, 150)), (vec![], vec![(7, 2)]));
}

#[test]
fn whoever_says_that_a_slot_is_its_own_owns_it_and_its_replicas_are_fenced() {
    let mut world = World::new();
    world.hear(A, &report(line(name(A, 0), 1, &[(0, 99), (101, 101)]), &[]), 1);
    assert_eq!((world.place(0), world.place(101), world.place(100)), (stable(A), stable(A), UNOWNED));
    assert_eq!(world.told(), [("0-99".to_owned(), true), ("101".to_owned(), true)]);
    world.hear(A, &report(line(name(A, 0), 1, &[(0, 99), (101, 101)]), &[]), 2);
    assert_eq!(world.told(), [], "nothing new");
    assert_eq!(world.claims.shard_of(&name(A, 0)), Some(shard(A)));
}

#[test]
fn an_older_claim_never_counts() {
    let mut world = World::settled();
    // A was replaced by another node of its shard; then the one that was it comes back and has not heard of it.
    world.hear(A, &report(line(name(A, 1), 5, &[(0, 99)]), &[]), 10);
    world.hear(A, &report(line(name(A, 0), 1, &[(0, 199)]), &[]), 20);
    assert_eq!((world.place(7), world.place(100)), (stable(A), stable(B)));
    // Nor does that of another shard, of a lower epoch; but it may take writes.
    world.hear(B, &report(line(name(B, 0), 2, &[(0, 199)]), &[]), 20);
    assert_eq!(world.place(7), moving(A));
    world.hear(A, &report(line(name(A, 1), 5, &[(0, 99)]), &[]), 22);
    world.hear(B, &report(line(name(B, 0), 2, &[(0, 199)]), &[]), 22);
    assert_eq!(world.place(7), moving(A), "they do not agree");
    world.hear(B, &clean(B), 24);
    assert_eq!(world.place(7), stable(A));
    world.told();
    // A higher one counts at once; replicas are asked when all is clear.
    world.hear(B, &report(line(name(B, 0), 6, &[(0, 199)]), &[]), 30);
    assert_eq!(world.place(7), moving(B));
    assert_eq!(world.told(), [("0-99".to_owned(), true)], "only what changed");
    assert_eq!(world.claims.awaited(), [shard(A), shard(B)].into());
    world.hear(B, &report(line(name(B, 0), 6, &[(0, 199)]), &[]), 40);
    world.hear(A, &report(line(name(A, 1), 5, &[]), &[]), 40);
    assert_eq!(world.place(7), stable(B));
    assert_eq!(world.claims.moving(), 0);
}

#[test]
fn of_two_claims_of_one_epoch_none_is_trusted() {
    let mut world = World::settled();
    world.hear(B, &report(line(name(B, 0), 2, &[(100, 199)]), &[]), 10);
    world.hear(C, &report(line(name(C, 0), 3, &[(199, 16_383)]), &[]), 10);
    assert_eq!(world.place(199), moving(C), "a higher one counts");
    let mut world = World::new();
    world.hear(A, &report(line(name(A, 0), 0, &[(0, 9)]), &[]), 1);
    world.hear(B, &report(line(name(B, 0), 0, &[(9, 19)]), &[]), 1);
    assert_eq!((world.place(9), world.place(8), world.place(10)), (moving(A), stable(A), stable(B)));
    world.hear(A, &report(line(name(A, 0), 0, &[(0, 8)]), &[]), 10);
    world.hear(B, &report(line(name(B, 0), 0, &[(9, 19)]), &[]), 10);
    world.hear(A, &report(line(name(A, 0), 0, &[(0, 8)]), &[]), 20);
    world.hear(B, &report(line(name(B, 0), 0, &[(9, 19)]), &[]), 20);
    assert_eq!(world.place(9), stable(B), "the other one has given way");
}

#[test]
fn a_slot_is_moving_until_both_sides_are_clean_after_the_last_sign() {
    let mut world = World::settled();
    world.ask(7, Some(B), 100);
    assert_eq!((world.place(7), world.place(8)), (moving(A), stable(A)));
    assert_eq!(world.told(), [("7".to_owned(), false)]);
    world.hear_late(A, &clean(A), 90, 110);
    world.hear_late(B, &clean(B), 100, 110);
    assert_eq!(world.place(7), moving(A), "they were asked before");
    world.hear(A, &clean(A), 120);
    assert_eq!(world.place(7), moving(A), "the other side has yet to answer");
    world.write(B, 7, 130);
    world.hear(B, &clean(B), 140);
    assert_eq!(world.place(7), moving(A), "the first answer is of before the last sign");
    world.hear(C, &clean(C), 140);
    world.hear(A, &clean(A), 150);
    assert_eq!(world.place(7), stable(A));
    assert_eq!(world.told(), [("7".to_owned(), true)], "keys may have come back");
}

#[test]
fn an_answer_that_names_the_slot_as_open_is_a_sign() {
    let mut world = World::settled();
    world.hear(A, &with_open(A, 7, Opening::Migrating, B), 10);
    assert_eq!(world.place(7), moving(A));
    world.hear(B, &clean(B), 20);
    world.hear(A, &with_open(A, 7, Opening::Migrating, B), 30);
    world.hear(A, &clean(A), 40);
    assert_eq!(world.place(7), moving(A), "B was last asked before the last sign");
    world.hear(B, &clean(B), 50);
    assert_eq!(world.place(7), stable(A));
    world.hear_late(B, &with_open(B, 8, Opening::Importing, A), 60, 80);
    world.hear(A, &clean(A), 70);
    world.hear(B, &clean(B), 90);
    assert_eq!(world.place(8), moving(A), "a sign is of when it was read: A was asked before that");
    world.hear(A, &clean(A), 90);
    assert_eq!(world.place(8), stable(A));
}

#[test]
fn a_slot_that_is_open_at_a_node_that_has_lost_it_is_not() {
    let mut world = World::settled();
    world.hear(B, &after_the_move(B), 10);
    let mut old = after_the_move(A);
    old.lines[0].open.push(open(7, Opening::Migrating, name(B, 0)));
    for at in [20, 30] {
        world.hear(A, &old, at);
        world.hear(B, &after_the_move(B), at);
    }
    assert_eq!(world.place(7), stable(B));
}

#[test]
fn a_slot_that_has_moved_is_fenced_before_its_new_owner_is_published() {
    for by_stream in [false, true] {
        let mut world = World::settled();
        if by_stream {
            world.write(B, 7, 10);
        } else {
            world.ask(7, Some(B), 10);
        }
        world.told();
        world.hear(B, &after_the_move(B), 20);
        assert_eq!((world.place(7), world.told()), (moving(B), vec![("7".to_owned(), true)]));
        world.hear(A, &after_the_move(A), 30);
        world.hear(B, &after_the_move(B), 30);
        assert_eq!((world.place(7), world.told()), (stable(B), vec![("7".to_owned(), true)]));
    }
}

#[test]
fn moved_is_followed_at_once_and_believed_when_the_owner_says_so() {
    let mut world = World::settled();
    world.moved(7, A, 5);
    assert_eq!(world.told(), [], "that is known");
    world.moved(7, B, 10);
    assert_eq!(world.place(7), moving(B));
    world.hear_late(A, &clean(A), 9, 20);
    assert_eq!(world.place(7), moving(B), "A was asked before it said so");
    world.hear(B, &after_the_move(B), 30);
    assert_eq!(world.place(7), moving(B));
    world.hear(A, &after_the_move(A), 30);
    assert_eq!(world.place(7), stable(B));
}

#[test]
fn moved_that_is_not_true_leads_back() {
    let mut world = World::settled();
    world.moved(7, B, 10);
    world.hear(B, &clean(B), 20);
    assert_eq!(world.place(7).1, SlotState::Moving);
    world.hear(A, &clean(A), 30);
    world.hear(B, &clean(B), 40);
    world.hear(A, &clean(A), 40);
    world.hear(C, &clean(C), 40);
    assert_eq!(world.place(7), stable(A));
}

#[test]
fn whoever_no_longer_says_so_has_lost_the_slot() {
    let mut world = World::settled();
    world.hear(A, &after_the_move(A), 10);
    assert_eq!(world.place(7), moving(B), "as it says itself");
    world.hear(B, &clean(B), 20);
    world.hear(A, &after_the_move(A), 20);
    assert_eq!(world.place(7).1, SlotState::Moving, "B does not say so");
    world.hear(B, &after_the_move(B), 30);
    world.hear(B, &after_the_move(B), 40);
    world.hear(A, &after_the_move(A), 40);
    world.hear(C, &clean(C), 40);
    assert_eq!(world.place(7), stable(B));
}

#[test]
fn hearsay_leads_the_way_and_makes_nobody_trusted() {
    let mut world = World::settled();
    let c = report(line(name(C, 0), 3, &[(200, 16_383)]), &[line(name(B, 0), 4, &[(7, 7), (100, 199)])]);
    world.hear(C, &c, 10);
    assert_eq!((world.place(7), world.place(100)), (moving(B), stable(B)));
    let stranger = line(name(9, 0), 9, &[(8, 8)]);
    world.hear(C, &report(line(name(C, 0), 3, &[(200, 16_383)]), &[stranger]), 20);
    assert_eq!(world.place(8), moving(A), "nobody knows which shard that is");
    let low = line(name(B, 0), 1, &[(9, 9)]);
    world.hear(C, &report(line(name(C, 0), 3, &[(200, 16_383)]), &[low]), 30);
    assert_eq!(world.place(9), stable(A), "older than what A says");
}

#[test]
fn what_is_known_by_hearsay_only_is_routed_and_no_more() {
    let mut world = World::new();
    let b = line(name(B, 0), 2, &[(0, 9)]);
    world.hear(A, &report(line(name(A, 0), 1, &[(10, 19)]), std::slice::from_ref(&b)), 1);
    assert_eq!(world.place(0), UNOWNED, "its shard is not known");
    world.hear(B, &report(line(name(B, 0), 2, &[]), &[]), 2);
    world.hear(A, &report(line(name(A, 0), 1, &[(10, 19)]), &[b]), 3);
    assert_eq!(world.place(0), moving(B));
}

#[test]
fn a_write_to_a_slot_of_its_own_is_no_sign() {
    let mut world = World::settled();
    world.write(A, 7, 10);
    assert_eq!(world.place(7), stable(A));
    world.write(B, 7, 20);
    assert_eq!(world.place(7), moving(A));
}

#[test]
fn where_the_other_side_is_not_known_it_may_be_anybody() {
    for by_stream in [false, true] {
        let mut world = World::settled();
        if by_stream {
            let changes = world.claims.set_slot(slot(7), ms(10));
            world.publish(changes);
        } else {
            world.ask(7, None, 10);
        }
        world.hear(A, &clean(A), 20);
        world.hear(B, &clean(B), 20);
        assert_eq!(world.place(7), moving(A));
        // Somebody new is asked as well.
        world.hear_late(3, &report(line(name(3, 0), 0, &[]), &[]), 5, 25);
        world.hear(C, &clean(C), 30);
        assert_eq!(world.place(7), moving(A));
        world.hear(3, &report(line(name(3, 0), 0, &[]), &[]), 40);
        assert_eq!(world.place(7), stable(A));
    }
}

#[test]
fn a_move_that_a_failover_has_hidden_from_one_side_goes_on() {
    let mut world = World::settled();
    world.hear(A, &with_open(A, 7, Opening::Migrating, B), 10);
    // The new primary of A has no open slots (Redis 7.0 replicates none); B has.
    let promoted = report(line(name(A, 1), 5, &[(0, 99)]), &[replica_of(name(A, 1), name(A, 0))]);
    for at in [20, 30, 40] {
        world.hear(A, &promoted, at);
        world.hear(B, &with_open(B, 7, Opening::Importing, A), at);
        assert_eq!(world.place(7), moving(A));
    }
    world.hear(B, &clean(B), 50);
    world.hear(A, &promoted, 60);
    assert_eq!(world.place(7), stable(A));
}

#[test]
fn a_target_that_dies_in_the_middle_leaves_the_slot_moving() {
    let mut world = World::settled();
    world.hear(A, &with_open(A, 7, Opening::Migrating, B), 10);
    for at in [20, 30] {
        world.hear(A, &clean(A), at);
        assert_eq!(world.place(7), moving(A), "B says nothing");
    }
    let gone = world.claims.retire(shard(B));
    world.publish(gone);
    assert_eq!(world.place(100), UNOWNED);
    world.hear(A, &clean(A), 40);
    assert_eq!(world.place(7), stable(A));
}

#[test]
fn a_shard_that_has_lost_its_last_slot_retires() {
    let mut world = World::settled();
    let all = report(line(name(B, 0), 4, &[(0, 199)]), &[]);
    world.hear(B, &all, 10);
    assert_eq!(world.place(7), moving(B));
    // A is a replica of B now: what it says counts for nothing, and nobody else speaks for its shard.
    let mut replica = report(replica_of(name(B, 0), name(A, 0)), &[]);
    replica.lines[0].flags.myself = true;
    world.hear(A, &replica, 20);
    world.hear(B, &all, 20);
    assert_eq!(world.place(7), moving(B));
    let changes = world.claims.retire(shard(A));
    world.publish(changes);
    assert_eq!((world.place(7), world.place(150)), (stable(B), stable(B)));
    assert_eq!(world.claims.shard_of(&name(A, 0)), None);
    // Whoever has its place has to come with a higher epoch.
    world.hear(A, &report(line(name(A, 7), 1, &[(0, 99)]), &[]), 30);
    assert_eq!(world.place(7), moving(B));
}

#[test]
fn whoever_is_no_more_is_waited_for_by_nobody() {
    let mut world = World::settled();
    let all = report(line(name(B, 0), 4, &[(0, 199)]), &[]);
    world.hear(B, &all, 10);
    let changes = world.claims.retire(shard(A));
    world.publish(changes);
    world.hear(B, &all, 20);
    assert_eq!(world.place(150), stable(B));
    // What its stream, by now that of a replica of B, had yet to tell.
    world.write(A, 150, 30);
    assert_eq!(world.place(150), moving(B));
    world.hear(B, &all, 40);
    world.hear(C, &clean(C), 40);
    assert_eq!(world.place(150), stable(B), "all who are there have said that it is over");
}

#[test]
fn an_earlier_question_s_answer_counts_for_nothing_once_a_later_one_s_was_heard() {
    let mut world = World::settled();
    world.hear(A, &clean(A), 50);
    world.hear_late(A, &after_the_move(A), 40, 60);
    assert_eq!(world.place(7), stable(A));
}

/// Anything that can be heard, of four shards and some slots.
#[derive(Clone, Debug)]
enum Heard {
    Report { from: usize, epoch: u64, slots: Vec<u16>, open: Option<(u16, bool, usize)>, age: u64 },
    Ask(u16, Option<usize>),
    Moved(u16, usize),
    Write(usize, u16),
    SetSlot(u16),
    Retire(usize),
}

fn heard() -> impl Strategy<Value = Heard> {
    let number = || prop_oneof![0u16..6, Just(HASH_SLOTS - 1)];
    let open = prop::option::of((number(), any::<bool>(), 0usize..5));
    let said = (0usize..4, 0u64..6, prop::collection::vec(number(), 0..5), open, 0u64..4);
    prop_oneof![
        4 => said.prop_map(|(from, epoch, slots, open, age)| Heard::Report { from, epoch, slots, open, age }),
        1 => (number(), prop::option::of(0usize..5)).prop_map(|(slot, to)| Heard::Ask(slot, to)),
        1 => (number(), 0usize..5).prop_map(|(slot, to)| Heard::Moved(slot, to)),
        1 => (0usize..5, number()).prop_map(|(from, slot)| Heard::Write(from, slot)),
        1 => number().prop_map(Heard::SetSlot),
        1 => (0usize..5).prop_map(Heard::Retire),
    ]
}

proptest! {
    #[test]
    fn what_is_published_is_what_is_known_whatever_was_heard(all in prop::collection::vec(heard(), 0..40)) {
        let mut world = World::new();
        let mut known = [Claim::default(); 7];
        let numbers = [0, 1, 2, 3, 4, 5, HASH_SLOTS - 1];
        for (now, heard) in all.into_iter().enumerate() {
            let now = now as u64 + 10;
            let retired = if let Heard::Retire(index) = heard { Some(shard(index)) } else { None };
            let changes = match heard {
                Heard::Report { from, epoch, slots, open: opened, age } => {
                    let ranges: Vec<(u16, u16)> = slots.iter().map(|slot| (*slot, *slot)).collect();
                    let mut said = report(line(name(from, 0), epoch, &ranges), &[]);
                    if let Some((number, importing, peer)) = opened {
                        let opening = if importing { Opening::Importing } else { Opening::Migrating };
                        said.lines[0].open.push(open(number, opening, name(peer, 0)));
                    }
                    let mut all = Vec::new();
                    // What is passed over because it was said before would have changed nothing.
                    for _ in 0..2 {
                        let mut anew = world.claims.clone();
                        anew.heard.clear();
                        let changes = anew.report(shard(from), &said, ms(now - age), ms(now));
                        all.extend(world.claims.report(shard(from), &said, ms(now - age), ms(now)));
                        prop_assert!(all.ends_with(&changes));
                        prop_assert_eq!(&anew.slots, &world.claims.slots);
                        let motions = [&anew, &world.claims].map(|claims| format!("{:?}", claims.motions));
                        prop_assert_eq!(&motions[0], &motions[1]);
                    }
                    all
                }
                Heard::Ask(number, to) => world.claims.ask(slot(number), to.map(shard), ms(now)),
                Heard::Moved(number, to) => world.claims.moved(slot(number), shard(to), ms(now)),
                Heard::Write(from, number) => world.claims.foreign_write(shard(from), slot(number), ms(now)),
                Heard::SetSlot(number) => world.claims.set_slot(slot(number), ms(now)),
                Heard::Retire(index) => world.claims.retire(shard(index)),
            };
            for change in &changes {
                prop_assert!(change.before != change.after);
                prop_assert!(change.after.stable_owner().is_none() || change.needs_floor());
            }
            world.publish(changes);
            for (number, before) in numbers.iter().zip(&mut known) {
                let (place, claim) = (world.map.load(slot(*number)), world.claims.slots[usize::from(*number)]);
                prop_assert_eq!(place, world.claims.place(slot(*number)));
                let was_let_go = before.holder.is_none_or(|holder| Some(holder) == retired);
                prop_assert!(claim.epoch >= before.epoch || was_let_go, "an epoch never falls before");
                prop_assert!(place.stable_owner().is_none_or(|owner| claim.holder == Some(owner)));
                prop_assert_eq!(place == SlotPlace::UNOWNED, place.owner.is_none());
                *before = claim;
            }
        }
    }
}
