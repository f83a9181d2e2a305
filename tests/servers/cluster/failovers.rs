//! Primaries that die or are replaced: nothing is executed twice, writes wait and go on, other shards notice nothing.
//!
//! Short by default; `REDWEIR_CLUSTER_FAILOVERS=50` fails over so often, `REDWEIR_CLUSTER_DEATHS=10` kills so many.

use std::time::{Duration, Instant};

use super::{BOUND, FENCED, Rig, SESSION, WRITE_HOLD};
use crate::support::cluster::counters::{Counter, Counters};
use crate::support::cluster::registers::Plan;
use crate::support::cluster::{Cluster, Shape, key_in};
use crate::support::{Setup, Value, eventually, ms, secs, sleep_ms};

/// Clients that count in slots of one shard each, and as many that count in all of them in pipelines.
const CLIENTS: u16 = 6;

fn times(name: &str, usually: usize) -> usize {
    std::env::var(name).map_or(usually, |count| count.parse().expect("a number"))
}

/// Keys of clients: those of the first are of one shard, those of the others of all.
fn groups() -> Vec<Vec<String>> {
    let alone = (0..CLIENTS).map(|n| vec![key_in(n * 2731 + 7, 0)]);
    let mixed = (0..CLIENTS / 2).map(|n| (0..8).map(|m| key_in(m * 2048 + n, 1)).collect());
    alone.chain(mixed).collect()
}

/// Holds every counter against what the cluster says in the end.
fn assert_nothing_twice(rig: &Rig, counters: &[Counter]) {
    for counter in counters {
        let owner = &rig.cluster.nodes[rig.cluster.owner(counter.slot())];
        counter.assert_once(owner.cmd(&["GET", &counter.key]).int() as u64);
        assert!(counter.acknowledged > 20, "{counter:?}");
    }
}

/// A cluster that serves what it can while slots have no primary. By default it serves nothing then, not even reads.
fn partly_serving() -> Shape {
    Shape { options: vec!["--cluster-require-full-coverage", "no"], ..Shape::default() }
}

/// Kills primaries; how long clients of other shards waited at most, each time, and how long the failover took.
fn dies_under_load(shape: &Shape) -> Vec<(Duration, Duration)> {
    let mut waits = Vec::new();
    for round in 0..times("REDWEIR_CLUSTER_DEATHS", 1) {
        let mut rig = Rig::with(shape, SESSION);
        rig.await_replicas();
        let load = Counters::start(&rig.via(), &groups());
        load.await_rounds(20);
        let victim = round % 3;
        let (slot, killed) = (victim as u16 * 5462, Instant::now());
        rig.cluster.kill(victim);
        let successor = rig.cluster.await_successor_of(victim, slot);
        let replaced = killed.elapsed();
        rig.cluster.await_ok();
        load.await_rounds(20);
        let counters = load.stop();
        assert_nothing_twice(&rig, &counters);
        let is_victims = |counter: &Counter| rig.cluster.owner(counter.slot()) == successor;
        let (unknown, lost) =
            counters.iter().fold((0, 0), |(unknown, lost), c| (unknown + c.unknown, lost + c.lost));
        println!("replaced after {replaced:?}; {unknown} unknown, {lost} acknowledged and lost");
        for counter in &counters {
            let is_told = |(_, text): &&(Instant, String)| !text.contains("may have been executed");
            let refused: Vec<_> = counter.errors.iter().filter(is_told).collect();
            assert!(refused.is_empty(), "held, not refused: {counter:?}");
            assert!(counter.errors.is_empty() || is_victims(counter), "another shard: {counter:?}");
            assert!(counter.last_acknowledged.unwrap() > killed + replaced, "it goes on: {counter:?}");
        }
        let alone = counters.iter().filter(|counter| counter.key.ends_with(":0") && !is_victims(counter));
        waits.push((alone.map(|counter| counter.slowest).max().unwrap(), replaced));
    }
    waits
}

/// From when all know of the death until the replica has taken over, all nodes say CLUSTERDOWN.
#[test]
fn a_primary_that_dies_under_load_has_nothing_executed_twice() {
    println!("others waited, failover: {:?}", dies_under_load(&Shape::default()));
}

#[test]
fn a_primary_that_dies_holds_up_nobody_else_where_the_cluster_serves_in_part() {
    let waits = dies_under_load(&partly_serving());
    println!("others waited, failover: {waits:?}");
    assert!(waits.iter().all(|(waited, replaced)| *waited < *replaced / 2), "{waits:?}");
}

/// Reads are served meanwhile: by the replica that is left, whatever the level allows it.
#[test]
fn a_primary_that_dies_leaves_eventual_reads_as_they_were() {
    let cluster = Cluster::with(&partly_serving());
    let stale = "consistency = \"eventual\"\nreplica-serve-stale-data = \"yes\"";
    let setup = Setup::by_cluster(&cluster.addresses()).policy("default", stale).upstream(WRITE_HOLD);
    let mut rig = Rig { proxy: setup.start_with_any_replicas(), cluster };
    let key = key_in(0, 0);
    assert_eq!(rig.proxy.cmd(&["SET", &key, "v"]), "OK");
    rig.cluster.await_sync();
    rig.await_replicas();
    rig.cluster.kill(0);
    let (mut conn, killed, mut served) = (rig.connect(), Instant::now(), 0);
    while killed.elapsed() < secs(4) {
        match conn.patience(ms(300)).try_cmd(&["GET", &key]) {
            Ok(value) => {
                assert_eq!(value, "v");
                served += usize::from(killed.elapsed() > ms(500));
            }
            // It was sent to the primary before anybody knew that this was dead, and waits for the next.
            Err(_) => conn = rig.connect(),
        }
        sleep_ms(1);
    }
    println!("{served} reads meanwhile");
    assert!(served > 200, "{served}");
    rig.cluster.await_successor_of(0, 0);
}

/// Fails every shard over in turn, and waits until the old primary follows.
fn fail_over_in_turn(rig: &Rig, count: usize) {
    for round in 0..count {
        let owner = rig.cluster.owner((round % 3) as u16 * 5462);
        let replica = rig.cluster.replicas_of(owner)[0];
        rig.cluster.fail_over_to(replica);
        eventually("the old primary follows", secs(20), || rig.cluster.replicas_of(replica) == [owner]);
        rig.cluster.await_ok();
    }
}

#[test]
fn primaries_that_are_replaced_one_after_the_other_are_not_noticed() {
    let rig = Rig::start(SESSION);
    rig.await_replicas();
    let load = Counters::start(&rig.via(), &groups());
    load.await_rounds(20);
    fail_over_in_turn(&rig, times("REDWEIR_CLUSTER_FAILOVERS", 5));
    load.await_rounds(20);
    let counters = load.stop();
    assert_nothing_twice(&rig, &counters);
    for counter in &counters {
        assert!(counter.errors.is_empty() && counter.lost == 0, "{counter:?}");
    }
    let slowest = counters.iter().map(|counter| counter.slowest).max();
    println!("the slowest answer took {slowest:?}");
}

#[test]
fn fenced_reads_are_right_while_primaries_are_replaced() {
    let rig = Rig::start(FENCED);
    rig.await_replicas();
    let load = Plan::over(rig.via(), (0..3).map(|n| n * 5462), 10).start(&rig.cluster);
    load.await_reads(200);
    fail_over_in_turn(&rig, times("REDWEIR_CLUSTER_FAILOVERS", 4));
    load.await_reads(300);
    let tally = load.stop().judge(FENCED.level, BOUND);
    println!("{tally:?}");
    tally.assert_clean();
}

#[test]
fn the_stream_is_taken_up_again_at_the_promoted_replica() {
    let rig = Rig::start(FENCED);
    rig.await_replicas();
    let promoted = rig.cluster.replicas_of(0)[0];
    let before = rig.cluster.nodes[promoted].stat("sync_full");
    rig.cluster.fail_over_to(promoted);
    rig.cluster.await_ok();
    rig.await_replicas();
    let key = key_in(0, 0);
    assert_eq!(rig.proxy.cmd(&["SET", &key, "v"]), "OK");
    assert_eq!(rig.proxy.cmd(&["GET", &key]), "v");
    assert_eq!(rig.cluster.nodes[promoted].stat("sync_full"), before, "+CONTINUE, never a dump");
}

/// It continues the history and says that it is a primary: for its shard that means nothing.
fn takes_nothing_over(is_forgotten: bool) {
    let rig = Rig::start(SESSION);
    rig.await_replicas();
    let (key, replica) = (key_in(0, 0), rig.cluster.replicas_of(0)[0]);
    assert_eq!(rig.proxy.cmd(&["SET", &key, "v"]), "OK");
    let id = &rig.cluster.nodes[replica].id;
    if is_forgotten {
        // As `redis-cli --cluster del-node` does it.
        for (n, node) in rig.cluster.running() {
            if n != replica {
                assert_eq!(node.cmd(&["CLUSTER", "FORGET", id]), "OK");
            }
        }
    }
    assert_eq!(rig.cluster.nodes[replica].cmd(&["CLUSTER", "RESET", "SOFT"]), "OK");
    let (mut conn, reset) = (rig.connect(), Instant::now());
    while reset.elapsed() < secs(5) {
        assert_eq!(conn.cmd(&["SET", &key, "v"]), "OK");
        assert_eq!(conn.cmd(&["GET", &key]), "v");
        sleep_ms(5);
    }
    let address = format!("127.0.0.1:{}", rig.cluster.nodes[0].address);
    let view = rig.proxy.view();
    let mut shards = view["shards"].as_array().unwrap().iter();
    assert!(shards.any(|shard| shard["primary"] == *address), "{view}");
    assert!(!rig.proxy.log().contains("the primary changed"), "{}", rig.proxy.log());
}

#[test]
fn a_replica_that_is_reset_takes_nothing_over() {
    takes_nothing_over(false);
}

#[test]
fn a_replica_that_is_taken_out_of_the_cluster_takes_nothing_over() {
    takes_nothing_over(true);
}

/// The shard that newcomers have to do with first is gone for good: with the others they have to do as ever.
#[test]
fn newcomers_notice_nothing_of_a_shard_that_is_dead() {
    let mut rig = Rig::start(SESSION);
    for (_, node) in rig.cluster.running() {
        assert_eq!(node.cmd(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]), "OK");
    }
    let view = rig.proxy.cmd(&["REDWEIR", "VIEW"]);
    let lines: Vec<String> = view.items().iter().map(Value::text).collect();
    let first = lines.iter().find_map(|line| line.strip_prefix("primary: 127.0.0.1:")).unwrap();
    let is_first = |n: &usize| rig.cluster.nodes[*n].address.to_string() == first;
    let dead = (0..3).find(is_first).expect("the first shard has a primary");
    let replica = rig.cluster.replicas_of(dead)[0];
    rig.cluster.kill(replica);
    rig.cluster.kill(dead);
    sleep_ms(3000);
    let begun = Instant::now();
    let mut conn = rig.connect();
    for (n, slot) in [0, 9000, 16000].into_iter().enumerate().filter(|(n, _)| *n != dead) {
        assert_eq!(conn.cmd(&["SET", &key_in(slot, 0), "v"]), "OK", "{n}");
    }
    assert_eq!(conn.cmd(&["ECHO", "x"]), "x");
    for first in [&["HELLO", "3"][..], &["PUBLISH", "a", "b"], &["CLIENT", "ID"], &["MULTI"]] {
        assert!(!rig.connect().cmd(first).is_error(), "{first:?}");
    }
    assert!(begun.elapsed() < secs(2), "it took {:?}", begun.elapsed());
}
