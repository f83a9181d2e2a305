//! Blocking commands while nobody takes them: their slot is open, or nobody's. They wait for no longer than they want, cost the
//! nodes next to nothing meanwhile, and hear what is pushed.

use std::time::{Duration, Instant};

use super::{Rig, SESSION, keys};
use crate::support::cluster::{key_in, slot};
use crate::support::{Cluster, Conn, Setup, Value, eventually, ms, secs};

/// How often nodes were asked to block.
fn asked(rig: &Rig) -> u64 {
    let all: Vec<usize> = (0..rig.cluster.nodes.len()).collect();
    let rejected = |n: &usize| {
        let stats = rig.cluster.nodes[*n].info("commandstats");
        let of = stats
            .get("cmdstat_blpop")
            .and_then(|line| line.split("rejected_calls=").nth(1).map(str::to_owned));
        of.and_then(|rest| rest.split(',').next().and_then(|count| count.parse::<u64>().ok())).unwrap_or(0)
    };
    rig.cluster.calls(&all, &["blpop"]) + all.iter().map(rejected).sum::<u64>()
}

/// Has `BLPOP` wait for a second, and returns how long it did.
fn waits_for_a_second(conn: &mut Conn, key: &str) -> Duration {
    let begun = Instant::now();
    assert_eq!(conn.patience(secs(10)).cmd(&["BLPOP", key, "1"]), Value::Null);
    begun.elapsed()
}

#[test]
fn where_a_slot_is_open_they_wait_for_what_comes_to_its_new_owner() {
    let rig = Rig::start(SESSION);
    let key = key_in(7, 0);
    let to = (rig.cluster.owner(7) + 1) % 3;
    let step = rig.cluster.open(7, to);
    let before = asked(&rig);
    let waited = waits_for_a_second(&mut rig.connect(), &key);
    assert!((ms(950)..secs(3)).contains(&waited), "{waited:?}");
    let mut waiting = rig.connect();
    waiting.ask(&["BLPOP", &key, "30"]);
    let blocked = || rig.cluster.nodes[to].info("clients")["blocked_clients"] != "0";
    eventually("it waits where the key would be", secs(10), blocked);
    assert_eq!(rig.proxy.cmd(&["RPUSH", &key, "element"]), 1);
    assert_eq!(waiting.read().items()[1].text(), "element");
    let asked = asked(&rig) - before;
    assert!(asked < 50, "they were asked {asked} times");
    // It goes on waiting there once the slot has come.
    let mut waiting = rig.connect();
    waiting.ask(&["BLPOP", &key, "30"]);
    eventually("it waits where the key would be", secs(10), blocked);
    step.finish();
    rig.cluster.await_ok();
    assert_eq!(rig.proxy.cmd(&["RPUSH", &key, "later"]), 1);
    assert_eq!(waiting.read().items()[1].text(), "later");
    assert_eq!(waiting.cmd(&["PING"]), "PONG");
}

/// A slot that no primary has.
fn abandon(cluster: &Cluster, slot: u16) {
    for node in &cluster.nodes {
        node.cmd(&["CLUSTER", "DELSLOTS", &slot.to_string()]);
    }
}

#[test]
fn where_nobody_has_the_slot_they_wait_as_long_as_they_want() {
    let rig = Rig::start(SESSION);
    let key = key_in(7, 0);
    let mut conn = rig.connect();
    assert_eq!(conn.cmd(&["SET", &key, "v"]), "OK");
    assert_eq!(conn.cmd(&["DEL", &key]), 1);
    abandon(&rig.cluster, 7);
    let before = asked(&rig);
    for _ in 0..3 {
        let waited = waits_for_a_second(&mut conn, &key);
        assert!((ms(950)..secs(3)).contains(&waited), "{waited:?}");
    }
    let asked = asked(&rig) - before;
    assert!(asked < 500, "they were asked {asked} times");
}

#[test]
fn where_nobody_has_the_slot_they_are_told_so_after_write_hold() {
    let cluster = Cluster::start();
    let setup = Setup::by_cluster(&cluster.addresses())
        .policy("default", "consistency = \"session\"")
        .upstream("write-hold = \"1s\"");
    let rig = Rig { proxy: setup.start_with_any_replicas(), cluster };
    let key = key_in(7, 0);
    let mut conn = rig.connect();
    assert_eq!(conn.cmd(&["SET", &key, "v"]), "OK");
    abandon(&rig.cluster, 7);
    let begun = Instant::now();
    let told = conn.patience(secs(15)).cmd(&["BLPOP", &key, "0"]);
    assert!(told.is_error() && told.error().starts_with("CLUSTERDOWN"), "{told:?}");
    assert!((ms(900)..secs(6)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
}

#[test]
fn they_are_released_by_other_clients_whatever_shard_they_wait_at() {
    let rig = Rig::start(SESSION);
    let all = keys(6);
    let mut stranger = rig.connect();
    stranger.ask(&["BLPOP", &all[0], "60"]);
    for key in &all {
        let mut waiting = rig.connect();
        let id = waiting.cmd(&["CLIENT", "ID"]).int().to_string();
        waiting.ask(&["BLPOP", key, "60"]);
        let owner = &rig.cluster.nodes[rig.cluster.owner(slot(key))];
        let least = if rig.cluster.owner(slot(key)) == rig.cluster.owner(slot(&all[0])) { 2 } else { 1 };
        eventually("it waits", secs(5), || owner.info("clients")["blocked_clients"] == least.to_string());
        assert_eq!(rig.proxy.cmd(&["CLIENT", "UNBLOCK", &id, "ERROR"]), 1);
        assert!(waiting.read().error().starts_with("UNBLOCKED"));
        assert_eq!(waiting.cmd(&["PING"]), "PONG");
    }
    assert!(stranger.is_silent_for(ms(200)), "somebody else was released");
}

/// What is behind one that is asked again is answered behind it.
#[test]
fn what_is_behind_them_stays_behind_them() {
    let rig = Rig::start(SESSION);
    let (key, all) = (key_in(7, 0), keys(6));
    for key in &all {
        assert_eq!(rig.proxy.cmd(&["SET", key, key]), "OK");
    }
    let (from, to) = (rig.cluster.owner(7), (rig.cluster.owner(7) + 1) % 3);
    let mut waiting = rig.connect();
    waiting.ask(&["BLPOP", &key, "30"]);
    let over: Vec<&str> = std::iter::once("MGET").chain(all.iter().map(String::as_str)).collect();
    waiting.ask(&over);
    waiting.ask(&["CLIENT", "LIST"]);
    waiting.ask(&["GET", &all[0]]);
    let blocked = |node: usize| rig.cluster.nodes[node].info("clients")["blocked_clients"] != "0";
    eventually("it waits", secs(5), || blocked(from));
    rig.cluster.move_slot(7, to);
    eventually("it waits where the slot is now", secs(10), || blocked(to));
    assert_eq!(rig.proxy.cmd(&["RPUSH", &key, "element"]), 1);
    assert_eq!(waiting.read().items()[1].text(), "element");
    let values = waiting.read();
    assert_eq!(values.items().iter().map(Value::text).collect::<Vec<_>>(), all);
    assert!(waiting.read().text().contains("id="));
    assert_eq!(waiting.read(), all[0].as_str());
}

/// The old primary is a replica of the same shard.
#[test]
fn they_follow_a_failover_of_their_shard() {
    let rig = Rig::start(SESSION);
    rig.await_replicas();
    let key = key_in(7, 0);
    let (owner, mut waiting) = (rig.cluster.owner(7), rig.connect());
    waiting.ask(&["BLPOP", &key, "30"]);
    let blocked = |node: usize| rig.cluster.nodes[node].info("clients")["blocked_clients"] != "0";
    eventually("it waits", secs(5), || blocked(owner));
    let replica = rig.cluster.replicas_of(owner)[0];
    rig.cluster.fail_over_to(replica);
    assert_eq!(rig.proxy.cmd(&["RPUSH", &key, "element"]), 1);
    let told = waiting.patience(secs(35)).read();
    // As a server tells whoever blocks when it becomes a replica, or the element.
    assert!(told.is_error() || told.items()[1] == "element", "{told:?}");
    println!("{told:?}");
}
