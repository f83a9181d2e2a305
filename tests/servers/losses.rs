//! What a failover lost is told: exactly the writes that the new primary does not have.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]

use std::collections::BTreeSet;

use crate::support::{Conn, Proxy, Redis, Setup, Topology, eventually, ms, secs};
use serde_json::Value as Json;

fn losses(proxy: &Proxy) -> Vec<Json> {
    let view: Json = serde_json::from_str(&proxy.get("/view").1).unwrap();
    view["losses"].as_array().unwrap().clone()
}

fn keys(loss: &Json) -> BTreeSet<String> {
    loss["keys"].as_array().unwrap().iter().map(|key| key.as_str().unwrap().to_owned()).collect()
}

/// What a promoted replica does not have is what is told, key by key.
#[test]
fn exactly_the_writes_that_are_gone_are_told() {
    let mut topology = Topology::start(2);
    // The first replica, from which the stream is read, goes on; the second one is cut off, and promoted.
    let proxy = Setup::of(&topology)
        .policy("default", "consistency = \"fenced\"")
        .toml("[stream]\nsource = \"primary\"")
        .start();
    eventually("the stream is followed", secs(10), || proxy.get("/readyz").1.contains("stream: attached"));
    let mut conn = proxy.connect();
    for n in 0..50 {
        assert_eq!(conn.cmd(&["SET", &format!("kept:{n}"), "v"]), "OK");
    }
    topology.await_sync();
    topology.replicas.iter().for_each(|replica| replica.link.cut());
    let mut gone = BTreeSet::new();
    for n in 0..200 {
        let key = format!("gone:{n}");
        assert_eq!(conn.cmd(&["SET", &key, "v"]), "OK");
        gone.insert(key);
    }
    conn.send(&crate::support::encode(&["MULTI"]))
        .send(&crate::support::encode(&["MSET", "gone:m1", "1", "gone:m2", "2"]));
    conn.send(&crate::support::encode(&["INCR", "gone:n"])).send(&crate::support::encode(&["EXEC"]));
    assert!(!conn.read_many(4)[3].is_error());
    gone.extend(["gone:m1", "gone:m2", "gone:n"].map(str::to_owned));
    let lost_writes = 202;
    eventually("the stream has told it", secs(5), || {
        let view: Json = serde_json::from_str(&proxy.get("/view").1).unwrap();
        proxy.metric("redweir_stream_offset", &[]) >= view["head_offset"].as_f64().unwrap_or(f64::MAX)
    });
    topology.primary.kill();
    assert_eq!(topology.replicas[0].cmd(&["REPLICAOF", "NO", "ONE"]), "OK");
    let port = topology.replicas[0].port.to_string();
    assert_eq!(topology.replicas[1].cmd(&["REPLICAOF", "127.0.0.1", &port]), "OK");
    eventually("it is told", secs(15), || !losses(&proxy).is_empty());
    let told = losses(&proxy);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(keys(&told[0]), gone);
    assert_eq!(told[0]["writes"], lost_writes);
    assert_eq!((&told[0]["known"], &told[0]["all_keys"]), (&Json::Bool(true), &Json::Bool(true)));
    assert_eq!(proxy.metric("redweir_lost_writes_total", &[]) as u64, lost_writes);
    for key in &gone {
        assert_eq!(topology.replicas[0].cmd(&["EXISTS", key]), 0);
    }
    let text = proxy.cmd(&["REDWEIR", "LOSSES"]).page();
    assert!(text.contains("202 writes") && text.contains("\n  gone:m2\n"), "{text}");
    eventually("it is logged", secs(5), || proxy.log().contains("the failover lost 202 writes"));
}

/// Nothing is made up where nothing is lost.
#[test]
fn where_nothing_is_lost_nothing_is_told() {
    let mut topology = Topology::start(2);
    let proxy = Setup::of(&topology).start();
    let mut conn = proxy.connect();
    for n in 0..200 {
        assert_eq!(conn.cmd(&["SET", &format!("k{n}"), "v"]), "OK");
    }
    topology.await_sync();
    topology.primary.kill();
    assert_eq!(topology.replicas[0].cmd(&["REPLICAOF", "NO", "ONE"]), "OK");
    eventually("it is followed", secs(15), || !Conn::open(proxy.port).cmd(&["SET", "after", "v"]).is_error());
    crate::support::sleep_ms(500);
    assert_eq!(losses(&proxy), Vec::<Json>::new());
    assert!(proxy.cmd(&["REDWEIR", "LOSSES"]).page().starts_with("no failover has lost anything"));
}

/// What is void, and how far the offset fell, is told once, with numbers.
#[test]
fn a_primary_that_is_restarted_empty_is_told_of_with_what_it_had() {
    let mut topology = Topology::start(1);
    let proxy = Setup::of(&topology).start();
    let mut conn = proxy.connect();
    for n in 0..100 {
        assert_eq!(conn.cmd(&["SET", &format!("k{n}"), "v"]), "OK");
    }
    let head = topology.primary.head();
    eventually("its offset is known", secs(5), || proxy.view()["head_offset"].as_i64() >= Some(head));
    assert!(proxy.metric("redweir_history_restarts_total", &[]) < 0.5, "the first history follows none");
    topology.primary.restart_empty();
    eventually("it is told", secs(15), || proxy.log().contains("history new, offset fell from "));
    let log = proxy.log();
    let line = log.lines().find(|line| line.contains("history new")).unwrap();
    let number = |after: &str| -> i64 {
        let text = line.split_once(after).unwrap_or_else(|| panic!("{after}? {line}")).1;
        text.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
    };
    let (before, now) = (number("fell from "), number(&format!("{} to ", number("fell from "))));
    let void = number(&format!("to {now}, "));
    assert!(before >= head && now < before, "{line}");
    assert!((90..=100).contains(&void), "{line}");
    assert!(
        line.contains("WARN") && line.contains(&format!("127.0.0.1:{}", topology.primary.port)),
        "{line}"
    );
    assert_eq!(proxy.metric("redweir_history_restarts_total", &[]) as u64, 1);
    crate::support::sleep_ms(500);
    assert_eq!(proxy.log().matches("history new").count(), 1);
}

#[test]
fn a_primary_that_is_restarted_empty_has_lost_everything() {
    let mut primary = Redis::start(&[]);
    let proxy = Setup::to(primary.port, &[]).start();
    assert_eq!(proxy.cmd(&["SET", "k", "v"]), "OK");
    primary.restart_empty();
    eventually("it is told", secs(15), || !losses(&proxy).is_empty());
    let told = losses(&proxy);
    assert_eq!((told.len(), &told[0]["everything"]), (1, &Json::Bool(true)), "{told:?}");
    // Another thread writes the log.
    eventually("it is logged", secs(5), || proxy.log().contains("does not go on from what was there before"));
    eventually("it is said to whoever asks", ms(5000), || {
        let said = proxy.cmd(&["REDWEIR", "LOSSES"]);
        !said.is_error() && said.page().contains("everything")
    });
}

/// The first who follows a primary without a backlog has it take another replication ID.
#[test]
fn a_primary_that_takes_another_id_has_lost_nothing() {
    let primary = Redis::start(&[]);
    let proxy = Setup::to(primary.port, &[]).toml("[stream]\nsource = \"off\"").start();
    assert_eq!(proxy.cmd(&["SET", "k", "v"]), "OK");
    let id = || primary.info("replication")["master_replid"].clone();
    let before = id();
    let replica = Redis::replica_of(primary.port, &[]);
    eventually("it is in sync", secs(15), || replica.applied().is_some());
    assert_ne!(id(), before);
    eventually("it is told", secs(10), || proxy.log().contains("has taken another replication ID"));
    assert_eq!(losses(&proxy), Vec::<Json>::new());
    assert_eq!(proxy.cmd(&["GET", "k"]), "v");
}

/// Names of keys are for those who may see any.
#[test]
fn who_may_not_scan_is_not_told() {
    let users = [
        "--user", "reader", "on", ">pw", "~a*", "+@all", "-scan", "--user", "all", "on", ">pw", "~*", "+@all",
    ];
    let primary = Redis::start(&users);
    let proxy = Setup::to(primary.port, &[]).start();
    for (user, may) in [("reader", false), ("all", true)] {
        let mut conn = proxy.connect();
        assert_eq!(conn.cmd(&["AUTH", user, "pw"]), "OK");
        assert_eq!(!conn.cmd(&["REDWEIR", "LOSSES"]).is_error(), may, "{user}");
        assert!(!conn.cmd(&["REDWEIR", "VIEW"]).is_error());
    }
}
