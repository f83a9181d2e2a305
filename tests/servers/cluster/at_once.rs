//! Whole slots move at once (Valkey 9 `CLUSTER MIGRATESLOTS`, Redis 8.4 `CLUSTER MIGRATION`): no slot is ever open, the
//! source serves until the target has everything, and only then deletes what it had.

use std::time::Instant;

use super::unfinished::await_served_by_replica;
use super::{BOUND, BOUNDED, EVENTUAL, FENCED, Promise, Rig, SESSION, STRONG, WRITE_HOLD, moving, setup};
use crate::support::checker::Level;
use crate::support::cluster::registers::Plan;
use crate::support::cluster::{Access, Direct, Shape, Via, key_in};
use crate::support::{Cluster, Direction, Server, Setup, Value, eventually, ms, secs, sleep_ms};

/// Keys in each of the slots that move there and back.
const KEYS: usize = 8;
/// How often they move there, and back.
const ROUNDS: usize = 3;
/// By how much a replica is behind, in the tests that have it so.
const BEHIND: u64 = 300;

/// The tests run against Valkey, unless those of Redis 8 are asked for (`REDWEIR_TEST_SERVER=redis-8.6`).
fn shape() -> Shape {
    let kind = if Server::usual() == Server::Redis86 { Server::Redis86 } else { Server::Valkey91 };
    Shape { kind, ..Shape::default() }
}

fn moved_under(rig: &Rig, load: Plan, held_to: Promise) {
    rig.await_replicas();
    let load = load.start(&rig.cluster);
    load.await_reads(200);
    let before = rig.cluster.replica_calls(&["get", "mget"]);
    for _ in 0..ROUNDS {
        rig.cluster.move_at_once(0..moving(), 1);
        // Some of them go another way round.
        rig.cluster.move_at_once(0..moving() / 2, 2);
        rig.cluster.move_at_once(moving() / 2..moving(), 0);
        rig.cluster.move_at_once(0..moving() / 2, 0);
    }
    rig.cluster.await_ok();
    let by_replicas = rig.cluster.replica_calls(&["get", "mget"]) - before;
    load.await_reads(200);
    let tally = load.stop().judge(held_to.level, BOUND);
    println!("{}: {by_replicas} calls at replicas; {tally:?}", held_to.name);
    tally.assert_clean();
    assert!(by_replicas > 0, "no replica served anything meanwhile");
}

fn moved(rig: &Rig, promise: Promise) {
    let load = Plan::over(rig.via(), 0..moving(), KEYS);
    moved_under(rig, load, promise);
}

#[test]
fn eventual_reads_are_right_while_slots_move_at_once() {
    moved(&Rig::with(&shape(), EVENTUAL), EVENTUAL);
}

#[test]
fn bounded_reads_are_right_while_slots_move_at_once() {
    moved(&Rig::with(&shape(), BOUNDED), BOUNDED);
}

#[test]
fn session_reads_are_right_while_slots_move_at_once() {
    moved(&Rig::with(&shape(), SESSION), SESSION);
}

#[test]
fn fenced_reads_are_right_while_slots_move_at_once() {
    moved(&Rig::with(&shape(), FENCED), FENCED);
}

#[test]
fn strong_reads_are_right_while_slots_move_at_once() {
    moved(&Rig::with(&shape(), STRONG), STRONG);
}

/// The links to the replicas of these are slow.
fn moved_with_slow_links(promise: Promise, slow: &[usize]) {
    let rig = Rig::with(&Shape { relays: true, ..shape() }, promise);
    rig.await_replicas();
    for primary in slow {
        rig.cluster.link(*primary).delay(Direction::Down, ms(BEHIND));
    }
    sleep_ms(2 * BEHIND);
    moved(&rig, promise);
}

#[test]
fn fenced_reads_are_right_while_slots_move_at_once_to_a_shard_whose_replica_is_late() {
    moved_with_slow_links(FENCED, &[1]);
}

/// It says for a while what the slot held before it moved, and then nothing.
#[test]
fn fenced_reads_are_right_while_slots_move_at_once_from_a_shard_whose_replica_is_late() {
    moved_with_slow_links(FENCED, &[0]);
}

#[test]
fn session_reads_are_right_while_slots_move_at_once_between_shards_whose_replicas_are_late() {
    moved_with_slow_links(SESSION, &[0, 1, 2]);
}

/// Writers know the cluster themselves, and the proxy hears of what they write from the stream alone.
fn moved_while_others_write(promise: Promise, held_to: Level) {
    let rig = Rig::with(&shape(), promise);
    let others = Via::Nodes(rig.cluster.addresses(), Access::Primary);
    let load = Plan::over(rig.via(), 0..moving(), KEYS).writing_via(others);
    moved_under(&rig, load, Promise { level: held_to, ..promise });
}

#[test]
fn fenced_reads_never_go_back_while_others_write_and_slots_move_at_once() {
    moved_while_others_write(FENCED, Level::Session);
}

#[test]
fn strong_reads_are_right_while_others_write_and_slots_move_at_once() {
    moved_while_others_write(STRONG, Level::Strong);
}

/// Ballast in the first slot, so that it does not move in an instant.
fn weigh_down(rig: &Rig) {
    let mut direct = Direct::new(&rig.cluster.addresses(), Access::Primary);
    let ballast = "x".repeat(1 << 18);
    for n in 1000..1200 {
        let key = key_in(0, n);
        assert_eq!(direct.cmd(&key, &["SET", &key, &ballast]), "OK");
    }
}

/// Something happens while slots are on their way, and nothing wrong is read whatever becomes of them.
fn interrupted(promise: Promise, by: impl Fn(&Rig)) -> Rig {
    let rig = Rig::with(&shape(), promise);
    rig.await_replicas();
    weigh_down(&rig);
    let load = Plan::over(rig.via(), 0..4, KEYS).start(&rig.cluster);
    load.await_reads(200);
    rig.cluster.start_at_once(0..4, 1);
    by(&rig);
    load.await_reads(300);
    rig.cluster.await_no_moves();
    rig.cluster.await_ok();
    load.await_reads(300);
    let tally = load.stop().judge(promise.level, BOUND);
    println!("{}: {} reads, of slots that are at {}", promise.name, tally.reads, rig.cluster.owner(0));
    tally.assert_clean();
    await_served_by_replica(&rig, 0, rig.cluster.owner(0));
    rig
}

#[test]
fn a_move_at_once_that_is_cancelled_leaves_no_trace() {
    let rig = interrupted(FENCED, |rig| {
        sleep_ms(20);
        rig.cluster.cancel_at_once(0, 1);
    });
    rig.cluster.move_at_once(0..4, if rig.cluster.owner(0) == 1 { 2 } else { 1 });
}

#[test]
fn a_move_at_once_to_a_primary_that_stands_still_is_cancelled() {
    interrupted(SESSION, |rig| {
        rig.cluster.pause(1);
        sleep_ms(500);
        rig.cluster.resume(1);
        rig.cluster.cancel_at_once(0, 1);
    });
}

#[test]
fn a_failover_of_the_source_while_slots_move_at_once_gives_no_wrong_answer() {
    interrupted(FENCED, |rig| rig.cluster.fail_over_to(rig.cluster.replicas_of(0)[0]));
}

#[test]
fn a_failover_of_the_target_while_slots_move_at_once_gives_no_wrong_answer() {
    interrupted(FENCED, |rig| rig.cluster.fail_over_to(rig.cluster.replicas_of(1)[0]));
}

#[test]
fn a_failover_of_both_right_after_slots_have_moved_at_once_gives_no_wrong_answer() {
    interrupted(SESSION, |rig| {
        rig.cluster.await_no_moves();
        rig.cluster.fail_over_to(rig.cluster.replicas_of(1)[0]);
        rig.cluster.fail_over_to(rig.cluster.replicas_of(0)[0]);
    });
}

/// Who has no slot left becomes a replica of who got the last one.
#[test]
fn a_shard_whose_slots_all_move_at_once_is_given_up() {
    let rig = Rig::with(&Shape { slots: vec![20, 5000, 5682, 5682], ..shape() }, FENCED);
    rig.await_replicas();
    let load = Plan::over(rig.via(), 0..20, KEYS).start(&rig.cluster);
    load.await_reads(200);
    rig.cluster.move_at_once(0..20, 1);
    eventually("the shard is given up", secs(15), || rig.cluster.nodes[0].myself().primary.is_some());
    rig.cluster.await_ok();
    load.await_reads(500);
    let tally = load.stop().judge(FENCED.level, BOUND);
    tally.assert_clean();
    await_served_by_replica(&rig, 0, 1);
}

/// `CLUSTER FLUSHSLOT` is seen on the stream as one command: what a replica still has of that slot is not shown, and it goes on
/// serving all others.
#[test]
fn keys_of_a_slot_that_is_emptied_are_gone_and_those_of_others_are_served() {
    let shape = Shape { kind: Server::Valkey91, relays: true, ..Shape::default() };
    let cluster = Cluster::with(&shape);
    let setup = setup(&cluster.addresses(), FENCED).toml("[stream]\nsource = \"primary\"");
    let rig = Rig { proxy: setup.start_with_any_replicas(), cluster };
    let keys: Vec<String> = (0..KEYS).flat_map(|n| [key_in(0, n), key_in(1, n)]).collect();
    let mut conn = rig.connect();
    for key in &keys {
        assert_eq!(conn.cmd(&["SET", key, "v"]), "OK");
    }
    rig.cluster.await_sync();
    rig.await_replicas();
    let replicas = rig.cluster.replicas_of(0);
    let calls = || rig.cluster.calls(&replicas, &["get"]);
    rig.cluster.link(0).delay(Direction::Down, ms(700));
    // What takes too long is said again: then the replica has heard of it, and may be asked.
    let in_time = (0..20).any(|_| {
        for n in 0..KEYS {
            assert_eq!(rig.proxy.cmd(&["SET", &key_in(0, n), "v"]), "OK");
        }
        rig.cluster.await_sync();
        let begun = Instant::now();
        assert_eq!(rig.cluster.nodes[0].cmd(&["CLUSTER", "FLUSHSLOT", "0"]), "OK");
        sleep_ms(100);
        let mut conn = rig.connect();
        for n in 0..KEYS {
            assert_eq!(conn.cmd(&["GET", &key_in(0, n)]), Value::Null);
        }
        let before = calls();
        for n in 0..KEYS {
            assert_eq!(conn.cmd(&["GET", &key_in(1, n)]), "v");
        }
        begun.elapsed() < ms(600) && calls() > before
    });
    assert!(in_time, "the replica has all of the others");
    await_served_by_replica(&rig, 1, 0);
}

/// What a replica holds of a slot from before is not what its shard has been given back, also where reads of other keys go to it
/// one behind the other.
#[test]
fn a_slot_that_comes_back_is_not_what_its_late_replica_has_from_before() {
    const LATE: u64 = 5000;
    let cluster = Cluster::with(&Shape { relays: true, ..shape() });
    let policy = "consistency = \"fenced\"\nmax-lag = \"60s\"";
    let setup = Setup::by_cluster(&cluster.addresses()).policy("default", policy).upstream(WRITE_HOLD);
    let rig = Rig { proxy: setup.start_with_any_replicas(), cluster };
    let (comes_back, stays) = (key_in(6000, 0), key_in(7000, 0));
    for key in [&comes_back, &stays] {
        assert_eq!(rig.proxy.cmd(&["SET", key, "old"]), "OK");
    }
    rig.cluster.await_sync();
    rig.await_replicas();
    rig.cluster.link(1).delay(Direction::Down, ms(LATE));
    let begun = Instant::now();
    rig.cluster.move_at_once(6000..6001, 0);
    assert_eq!(rig.proxy.cmd(&["SET", &comes_back, "new"]), "OK");
    rig.cluster.move_at_once(6000..6001, 1);
    let replicas = rig.cluster.replicas_of(1);
    let (before, mut rounds) = (rig.cluster.calls(&replicas, &["get"]), 0);
    while begun.elapsed() < ms(LATE - 1000) {
        // What a client has seen of the primary it would go on reading there.
        let mut conn = rig.connect();
        conn.ask(&["GET", &stays]).ask(&["GET", &stays]).ask(&["GET", &comes_back]).ask(&["GET", &stays]);
        for value in ["old", "old", "new", "old"] {
            assert_eq!(conn.read(), value, "round {rounds}");
        }
        rounds += 1;
    }
    let calls = rig.cluster.calls(&replicas, &["get"]) - before;
    println!("{rounds} rounds, {calls} reads at the replica");
    assert!(
        rounds > 100 && calls > 2 * rounds,
        "{rounds} rounds, of which its replica has served {calls} reads"
    );
}
