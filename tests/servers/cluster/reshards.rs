//! Slots move while clients read and write: nothing wrong is read at any level, nobody gets an error, and replicas go on
//! serving.

use std::thread;

use super::{BOUND, BOUNDED, EVENTUAL, FENCED, Promise, Rig, SESSION, STRONG, moving};
use crate::support::checker::Level;
use crate::support::cluster::registers::Plan;
use crate::support::cluster::{Access, Shape, Via};
use crate::support::{Direction, Server, ms, sleep_ms};

/// Keys in each of the slots that move there and back.
const KEYS: usize = 8;
/// By how much a replica is behind, in the tests that have it so.
const BEHIND: u64 = 300;

/// There by `redis-cli`, and back key by key with pauses between the steps. The load is held to what the proxy promises.
fn resharded(rig: &Rig, promise: Promise) {
    let load = Plan::over(rig.via(), 0..moving(), KEYS);
    resharded_under(rig, load, promise);
}

fn resharded_under(rig: &Rig, load: Plan, held_to: Promise) {
    rig.await_replicas();
    let load = load.start(&rig.cluster);
    load.await_reads(200);
    let before = rig.cluster.replica_calls(&["get", "mget"]);
    rig.cluster.reshard(moving(), 0, 1);
    for slot in 0..moving() {
        rig.cluster.move_slot_pausing(slot, 0, || thread::sleep(ms(1)));
    }
    rig.cluster.await_ok();
    let by_replicas = rig.cluster.replica_calls(&["get", "mget"]) - before;
    load.await_reads(200);
    let tally = load.stop().judge(held_to.level, BOUND);
    println!("{}: {by_replicas} calls at replicas; {tally:?}", held_to.name);
    tally.assert_clean();
    assert!(by_replicas > 0, "no replica served anything meanwhile");
}

#[test]
fn eventual_reads_are_right_while_slots_move() {
    resharded(&Rig::start(EVENTUAL), EVENTUAL);
}

#[test]
fn bounded_reads_are_right_while_slots_move() {
    resharded(&Rig::start(BOUNDED), BOUNDED);
}

#[test]
fn session_reads_are_right_while_slots_move() {
    resharded(&Rig::start(SESSION), SESSION);
}

#[test]
fn fenced_reads_are_right_while_slots_move() {
    resharded(&Rig::start(FENCED), FENCED);
}

#[test]
fn strong_reads_are_right_while_slots_move() {
    resharded(&Rig::start(STRONG), STRONG);
}

/// The links to all replicas are slow, or only that of the shard that gets the slots.
fn resharded_with_slow_links(promise: Promise, slow: &[usize]) {
    let rig = Rig::with(&Shape { relays: true, ..Shape::default() }, promise);
    rig.await_replicas();
    for primary in slow {
        rig.cluster.link(*primary).delay(Direction::Down, ms(BEHIND));
    }
    sleep_ms(2 * BEHIND);
    resharded(&rig, promise);
}

#[test]
fn session_reads_are_right_while_slots_move_to_a_shard_whose_replica_is_late() {
    resharded_with_slow_links(SESSION, &[1]);
}

#[test]
fn fenced_reads_are_right_while_slots_move_to_a_shard_whose_replica_is_late() {
    resharded_with_slow_links(FENCED, &[1]);
}

#[test]
fn eventual_reads_are_right_while_slots_move_to_a_shard_whose_replica_is_late() {
    resharded_with_slow_links(EVENTUAL, &[1]);
}

/// Some of what it serves then is what the slot held before it moved.
#[test]
fn fenced_reads_are_right_while_slots_move_from_a_shard_whose_replica_is_late() {
    resharded_with_slow_links(FENCED, &[0]);
}

#[test]
fn fenced_reads_are_right_while_slots_move_and_a_replica_stands_still_in_bursts() {
    let rig = Rig::start(FENCED);
    rig.await_replicas();
    let load = Plan::over(rig.via(), 0..moving(), KEYS).start(&rig.cluster);
    load.await_reads(200);
    let replica = rig.cluster.replicas_of(1)[0];
    for slot in 0..moving() {
        // Shorter than the time after which nodes call it dead.
        rig.cluster.pause(replica);
        rig.cluster.move_slot_pausing(slot, 1, || thread::sleep(ms(2)));
        rig.cluster.resume(replica);
        thread::sleep(ms(20));
    }
    rig.cluster.await_ok();
    load.await_reads(500);
    let tally = load.stop().judge(FENCED.level, BOUND);
    println!("{tally:?}");
    tally.assert_clean();
}

/// Replicas of Valkey know which slots move, and say ASK and TRYAGAIN themselves.
#[test]
fn fenced_reads_are_right_while_slots_of_valkey_move() {
    let shape = Shape { kind: Server::Valkey81, ..Shape::default() };
    resharded(&Rig::with(&shape, FENCED), FENCED);
}

/// Writers know the cluster themselves, and the proxy hears of what they write from the stream alone.
fn resharded_while_others_write(promise: Promise, held_to: Level) {
    let rig = Rig::start(promise);
    let others = Via::Nodes(rig.cluster.addresses(), Access::Primary);
    let load = Plan::over(rig.via(), 0..moving(), KEYS).writing_via(others);
    resharded_under(&rig, load, Promise { level: held_to, ..promise });
}

#[test]
fn session_reads_never_go_back_while_others_write_and_slots_move() {
    resharded_while_others_write(SESSION, Level::Session);
}

#[test]
fn fenced_reads_never_go_back_while_others_write_and_slots_move() {
    resharded_while_others_write(FENCED, Level::Session);
}

#[test]
fn strong_reads_are_right_while_others_write_and_slots_move() {
    resharded_while_others_write(STRONG, Level::Strong);
}
