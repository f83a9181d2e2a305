//! Scans: whole, from any connection, on the process that began them, or an error.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]

use std::collections::BTreeSet;

use crate::support::{Proxy, Setup, Topology, Value, eventually, secs, sleep_ms};

const KEYS: usize = 1000;

fn filled(replicas: usize) -> Topology {
    let topology = Topology::start(replicas);
    let mut conn = topology.primary.connect();
    for n in 0..KEYS {
        let n = n.to_string();
        conn.cmd(&["SET", &format!("key:{n}"), &n]);
        conn.cmd(&[
            "HSET",
            "hash",
            &n,
            "a value that is too long for a listpack, so that it is a hash table already",
        ]);
        conn.cmd(&["SADD", "set", &format!("m{n}")]);
        conn.cmd(&["ZADD", "zset", &n, &n]);
    }
    topology.await_sync();
    topology
}

/// One step on a connection of its own: the next cursor, and what was found.
fn step(port: u16, command: &[&str], cursor: &str) -> Result<(String, Vec<Value>), String> {
    let args = [command, &[cursor, "COUNT", "50"]].concat();
    match crate::support::Conn::open(port).cmd(&args) {
        Value::Error(error) => Err(error),
        reply => Ok((reply.items()[0].text(), reply.items()[1].items().to_vec())),
    }
}

/// What a whole scan finds, every step on another connection.
fn scan(port: u16, command: &[&str]) -> (BTreeSet<String>, usize) {
    let (mut found, mut cursor, mut steps) = (BTreeSet::new(), "0".to_owned(), 0);
    loop {
        let (next, items) = step(port, command, &cursor).unwrap();
        found.extend(items.iter().map(Value::text));
        steps += 1;
        if next == "0" {
            return (found, steps);
        }
        assert!(next.parse::<u64>().unwrap() < 1 << 53, "{next}");
        cursor = next;
    }
}

fn proxy(topology: &Topology) -> Proxy {
    Setup::of(topology)
        .policy("loose", "consistency = \"eventual\"")
        .listener("loose")
        .upstream("write-hold = \"300ms\"\nprobe-timeout = \"300ms\"")
        .start()
}

#[test]
fn a_scan_is_whole_whatever_connection_its_steps_come_on() {
    let topology = filled(2);
    let proxy = proxy(&topology);
    for (port, expected) in [(proxy.ports[0], 0), (proxy.ports[1], 1)] {
        let before: u64 = topology.replica_calls("scan").iter().sum();
        let (keys, steps) = scan(port, &["SCAN"]);
        assert_eq!(keys.len(), KEYS + 3);
        assert!(steps > 10, "{steps}");
        let (hash, _) = scan(port, &["HSCAN", "hash"]);
        assert_eq!(hash.len(), KEYS + 1);
        let (set, _) = scan(port, &["SSCAN", "set"]);
        assert_eq!(set.len(), KEYS);
        let (zset, _) = scan(port, &["ZSCAN", "zset"]);
        assert_eq!(zset.len(), KEYS);
        let after: u64 = topology.replica_calls("scan").iter().sum();
        assert_eq!(
            u64::from(after > before),
            expected,
            "eventual scans are on replicas, fenced ones are not"
        );
    }
}

#[test]
fn every_step_is_on_the_process_that_began() {
    let topology = filled(2);
    let proxy = proxy(&topology);
    let before = topology.replica_calls("scan");
    let (mut cursor, _) = step(proxy.ports[1], &["SCAN"], "0").unwrap();
    let first: Vec<u64> =
        topology.replica_calls("scan").iter().zip(&before).map(|(now, was)| now - was).collect();
    for _ in 0..5 {
        (cursor, _) = step(proxy.ports[1], &["SCAN"], &cursor).unwrap();
    }
    let all: Vec<u64> =
        topology.replica_calls("scan").iter().zip(&before).map(|(now, was)| now - was).collect();
    assert_eq!(first.iter().sum::<u64>(), 1);
    assert_eq!(all, first.iter().map(|calls| calls * 6).collect::<Vec<_>>());
}

#[test]
fn a_scan_whose_process_is_gone_is_an_error() {
    let mut topology = filled(1);
    let proxy = proxy(&topology);
    let (of_replica, _) = step(proxy.ports[1], &["SCAN"], "0").unwrap();
    let (of_primary, _) = step(proxy.ports[0], &["SCAN"], "0").unwrap();
    assert!(topology.replicas[0].calls("scan") > 0);
    // A connection that promises more than the replica can does not get it.
    let refused = step(proxy.ports[0], &["SCAN"], &of_replica).unwrap_err();
    assert!(refused.contains("it belongs to a replica"), "{refused}");
    // The primary's cursor is good under the weaker policy as well.
    step(proxy.ports[1], &["SCAN"], &of_primary).unwrap();
    // Stopped: an error, soon.
    topology.replicas[0].pause();
    sleep_ms(800);
    let stopped = step(proxy.ports[1], &["SCAN"], &of_replica).unwrap_err();
    assert!(stopped.contains("Begin the scan again"), "{stopped}");
    topology.replicas[0].resume();
    proxy.await_replicas(1);
    step(proxy.ports[1], &["SCAN"], &of_replica).unwrap();
    // Another process on the same port, with the same data in another order.
    topology.replicas[0].server.restart();
    topology.await_sync();
    proxy.await_replicas(1);
    let restarted = step(proxy.ports[1], &["SCAN"], &of_replica).unwrap_err();
    assert!(restarted.contains("gone or was restarted"), "{restarted}");
    topology.primary.cmd(&["CONFIG", "SET", "save", "900 1"]);
    topology.primary.cmd(&["SAVE"]);
    topology.primary.restart();
    eventually("the primary is back", secs(5), || !proxy.cmd(&["SET", "x", "y"]).is_error());
    let restarted = step(proxy.ports[0], &["SCAN"], &of_primary).unwrap_err();
    assert!(restarted.contains("gone or was restarted"), "{restarted}");
    assert!(scan(proxy.ports[0], &["SCAN"]).0.len() >= KEYS, "a new one is whole");
}

#[test]
fn a_scan_in_a_transaction_knows_the_cursors_of_others() {
    let topology = filled(1);
    let proxy = proxy(&topology);
    let (cursor, _) = step(proxy.ports[0], &["SCAN"], "0").unwrap();
    let mut conn = proxy.connect();
    for pinned in [&["MULTI"][..], &["WATCH", "k"]] {
        conn.cmd(pinned);
        let reply = conn.cmd(&["SCAN", &cursor]);
        let reply = if pinned[0] == "MULTI" { conn.cmd(&["EXEC"]).items()[0].clone() } else { reply };
        let next = reply.items()[0].text();
        assert!(step(proxy.ports[0], &["SCAN"], &next).is_ok(), "{next}");
        conn.cmd(&["UNWATCH"]);
    }
}
