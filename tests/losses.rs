//! What a failover lost is told: exactly the writes that the new primary does not have.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]

mod support;

use std::collections::BTreeSet;

use serde_json::Value as Json;
use support::{Conn, Proxy, Redis, Setup, Topology, eventually, ms, secs};

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
    conn.send(&support::encode(&["MULTI"])).send(&support::encode(&["MSET", "gone:m1", "1", "gone:m2", "2"]));
    conn.send(&support::encode(&["INCR", "gone:n"])).send(&support::encode(&["EXEC"]));
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
    let text = proxy.cmd(&["REDWEIR", "LOSSES"]).text();
    assert!(text.contains("202 writes") && text.contains("\n  gone:m2\n"), "{text}");
    eventually("it is logged", secs(5), || proxy.log().contains("the failover lost writes"));
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
    support::sleep_ms(500);
    assert_eq!(losses(&proxy), Vec::<Json>::new());
    assert!(proxy.cmd(&["REDWEIR", "LOSSES"]).text().starts_with("no failover has lost anything"));
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
        !said.is_error() && said.text().contains("everything")
    });
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
