//! Moves that don't end as they began: cancelled, crossed by a failover, or the last of a shard.

use std::thread;

use super::{BOUND, FENCED, Promise, Rig, SESSION};
use crate::support::cluster::registers::Plan;
use crate::support::cluster::{Shape, key_in, slot};
use crate::support::{Server, eventually, ms, secs, sleep_ms};

const KEYS: usize = 10;

/// Waits until a replica of this node serves a key of this slot: it is stable again, for the proxy, too.
pub(super) fn await_served_by_replica(rig: &Rig, slot: u16, owner: usize) {
    let replicas = rig.cluster.replicas_of(owner);
    let mut conn = rig.connect();
    eventually("a replica serves the slot again", secs(15), || {
        let before = rig.cluster.calls(&replicas, &["get"]);
        for n in 0..KEYS {
            assert!(!conn.cmd(&["GET", &key_in(slot, n)]).is_error());
        }
        rig.cluster.calls(&replicas, &["get"]) > before
    });
}

#[test]
fn a_move_that_is_cancelled_leaves_no_trace() {
    let rig = Rig::start(FENCED);
    rig.await_replicas();
    let load = Plan::over(rig.via(), 0..4, KEYS).start(&rig.cluster);
    load.await_reads(200);
    for slot in 0..4 {
        let step = rig.cluster.open(slot, 1);
        load.await_reads(100);
        step.cancel();
    }
    load.await_reads(200);
    let tally = load.stop().judge(FENCED.level, BOUND);
    println!("{tally:?}");
    tally.assert_clean();
    for slot in 0..4 {
        assert_eq!(rig.cluster.owner(slot), 0);
        await_served_by_replica(&rig, slot, 0);
    }
}

/// Redis 7.0 does not tell replicas of open slots: the promoted one has half of the keys and does not know that it may
/// serve them. Until somebody opens the slot again no node serves them, and so an error is the only right answer.
#[test]
fn a_failover_of_the_target_in_mid_move_gives_no_wrong_answer() {
    let rig = Rig::with(&Shape { kind: Server::Redis70, ..Shape::default() }, FENCED);
    rig.await_replicas();
    let load = Plan::over(rig.via(), 0..1, KEYS).start(&rig.cluster);
    load.await_reads(200);
    let step = rig.cluster.open(0, 1);
    step.carry(KEYS / 2);
    load.await_reads(100);
    let target = rig.cluster.replicas_of(1)[0];
    rig.cluster.fail_over_to(target);
    sleep_ms(300);
    let step = step.reopen_to(target);
    step.finish();
    rig.cluster.await_ok();
    load.await_reads(300);
    let mut outcome = load.stop();
    let of_slot = |key: &str| slot(key) == 0;
    let excused = outcome.excuse(of_slot);
    let tally = outcome.judge(FENCED.level, BOUND);
    println!("{} errors of the moving slot; {tally:?}", excused.len());
    tally.assert_clean();
    assert_eq!(rig.cluster.owner(0), target);
    await_served_by_replica(&rig, 0, target);
}

/// Valkey tells replicas of open slots: a move goes on after a failover of either side, and nobody notices.
fn fails_over_in_mid_move(promise: Promise, of: usize) {
    let rig = Rig::with(&Shape { kind: Server::Valkey81, ..Shape::default() }, promise);
    rig.await_replicas();
    let load = Plan::over(rig.via(), 0..1, KEYS).start(&rig.cluster);
    load.await_reads(200);
    let step = rig.cluster.open(0, 1);
    step.carry(KEYS / 2);
    load.await_reads(100);
    let promoted = rig.cluster.replicas_of(of)[0];
    rig.cluster.fail_over_to(promoted);
    load.await_reads(300);
    let step = if of == 1 { step.reopen_to(promoted) } else { step.reopen_from(promoted) };
    step.finish();
    rig.cluster.await_ok();
    load.await_reads(300);
    let tally = load.stop().judge(promise.level, BOUND);
    println!("{tally:?}");
    tally.assert_clean();
}

#[test]
fn a_failover_of_the_source_in_mid_move_is_not_noticed_with_valkey() {
    fails_over_in_mid_move(FENCED, 0);
}

#[test]
fn a_failover_of_the_target_in_mid_move_is_not_noticed_with_valkey() {
    fails_over_in_mid_move(SESSION, 1);
}

/// Without a slot left a primary becomes a replica of who got the last one, and so do its replicas. Then they leave.
#[test]
fn a_shard_that_loses_its_last_slot_is_removed() {
    let shape = Shape { slots: vec![20, 5000, 5682, 5682], ..Shape::default() };
    let mut rig = Rig::with(&shape, FENCED);
    rig.await_replicas();
    let load = Plan::over(rig.via(), 0..20, KEYS).start(&rig.cluster);
    load.await_reads(200);
    for slot in 0..20 {
        rig.cluster.move_slot_pausing(slot, 1, || thread::sleep(ms(1)));
    }
    eventually("the shard is given up", secs(15), || rig.cluster.nodes[0].myself().primary.is_some());
    rig.cluster.await_ok();
    load.await_reads(300);
    // What is left of it ends, and is forgotten.
    for gone in [0, 4] {
        let id = rig.cluster.nodes[gone].id.clone();
        rig.cluster.kill(gone);
        for (_, node) in rig.cluster.running() {
            assert_eq!(node.cmd(&["CLUSTER", "FORGET", &id]), "OK");
        }
    }
    load.await_reads(500);
    let tally = load.stop().judge(FENCED.level, BOUND);
    println!("{tally:?}");
    tally.assert_clean();
    await_served_by_replica(&rig, 0, 1);
}

/// `CLUSTER ADDSLOTS` raises no epoch: nobody else says that the slot is its own.
#[test]
fn a_slot_that_is_given_to_a_primary_of_a_lower_epoch_is_its_own() {
    let rig = Rig::start(SESSION);
    let slot = 12_000;
    let (key, owner) = (key_in(slot, 0), rig.cluster.owner(slot));
    assert_eq!(owner, 2);
    for node in &rig.cluster.nodes {
        assert_eq!(node.cmd(&["CLUSTER", "DELSLOTS", &slot.to_string()]), "OK");
    }
    let unserved =
        |rig: &Rig| rig.proxy.get("/readyz").1.contains("nobody") || rig.proxy.get("/readyz").0 != 200;
    eventually("it is nobody's", secs(10), || unserved(&rig));
    assert_eq!(rig.cluster.nodes[0].cmd(&["CLUSTER", "ADDSLOTS", &slot.to_string()]), "OK");
    eventually("it is served again", secs(20), || rig.proxy.get("/readyz").0 == 200 && !unserved(&rig));
    assert_eq!(rig.proxy.cmd(&["SET", &key, "v"]), "OK");
    await_served_by_replica(&rig, slot, 0);
}

/// No primary has all keys of a slot that is half moved: they are asked for one by one.
#[test]
fn keys_of_a_slot_that_is_half_moved_are_found() {
    let rig = Rig::start(SESSION);
    let all: Vec<String> = (0..KEYS).map(|n| key_in(0, n)).collect();
    let words =
        |name: &str| -> Vec<String> { std::iter::once(name.to_owned()).chain(all.iter().cloned()).collect() };
    for key in &all {
        assert_eq!(rig.proxy.cmd(&["SET", key, "v"]), "OK");
    }
    let step = rig.cluster.open(0, 1);
    step.carry(KEYS / 2);
    let mut conn = rig.connect();
    // One of them tells that the slot is open.
    for key in &all {
        assert_eq!(conn.cmd(&["GET", key]), "v");
    }
    let values = conn.cmd(&words("MGET"));
    assert!(values.items().iter().all(|value| *value == "v") && values.items().len() == KEYS, "{values:?}");
    assert_eq!(conn.cmd(&words("EXISTS")), KEYS as i64);
    assert_eq!(conn.cmd(&words("UNLINK")), KEYS as i64);
    assert_eq!(conn.cmd(&words("EXISTS")), 0);
    step.finish();
}

/// A transaction has them all at one primary, and a command that is too long to be held goes there whole.
#[test]
fn keys_of_a_slot_that_is_open_stay_together_where_they_have_to() {
    let rig = Rig::start(SESSION);
    let (a, b) = (key_in(0, 0), key_in(0, 1));
    assert_eq!(rig.proxy.cmd(&["SET", &a, "v"]), "OK");
    assert_eq!(rig.proxy.cmd(&["SET", &b, "v"]), "OK");
    let step = rig.cluster.open(0, 1);
    let mut conn = rig.connect();
    eventually("it is known to be open", secs(10), || {
        rig.proxy.explain(&["GET", &a])["slot_state"] == "moving"
    });
    assert_eq!(conn.cmd(&["MULTI"]), "OK");
    assert_eq!(conn.cmd(&["MGET", &a, &b]), "QUEUED");
    assert_eq!(conn.cmd(&["EXISTS", &a, &b]), "QUEUED");
    assert_eq!(conn.cmd(&["EXEC"]).items().len(), 2);
    let many: Vec<String> = (0..60_000).map(|n| if n % 2 == 0 { a.clone() } else { b.clone() }).collect();
    let words: Vec<&str> = std::iter::once("MGET").chain(many.iter().map(String::as_str)).collect();
    let values = conn.patience(secs(60)).cmd(&words);
    assert!(values.items().len() == many.len() && values.items().iter().all(|value| *value == "v"));
    assert_eq!(conn.cmd(&["PING"]), "PONG");
    step.cancel();
}

/// What is too long to be kept cannot be sent again. Its client knows of no other nodes: it is told to try again.
#[test]
fn a_long_write_to_a_key_that_is_elsewhere_is_to_be_tried_again() {
    let rig = Rig::start(SESSION);
    let key = key_in(5, 0);
    let mut conn = rig.connect();
    assert_eq!(conn.cmd(&["SET", &key, "v"]), "OK");
    let step = rig.cluster.open(5, 1);
    step.carry(1);
    let long = "x".repeat(3 << 20);
    let reply = conn.cmd(&["SET", &key, &long]);
    assert!(reply.error().starts_with("TRYAGAIN"), "{reply:?}");
    assert_eq!(conn.cmd(&["GET", &key]), "v");
    step.finish();
    eventually("it is written", secs(5), || conn.cmd(&["SET", &key, &long]) == "OK");
    assert_eq!(conn.cmd(&["STRLEN", &key]), 3 << 20);
}
