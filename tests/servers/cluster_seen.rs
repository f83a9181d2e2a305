//! What operators are shown of a Redis Cluster: of all its shards, not of the first only.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::float_cmp, reason = "what is compared are whole numbers")]

use serde_json::Value as Json;

use crate::support::cluster::{Shape, key_in, slot};
use crate::support::{Cluster, Proxy, Setup, Value, eventually, secs};

/// A cluster and a proxy that knows all of it.
fn start(shape: &Shape) -> (Proxy, Cluster) {
    let cluster = Cluster::with(shape);
    let proxy =
        Setup::by_cluster(&cluster.addresses()).upstream("write-hold = \"2s\"").start_with_any_replicas();
    await_settled(&proxy, shape.slots.len());
    (proxy, cluster)
}

/// Waits until every slot is known to be stable.
fn await_settled(proxy: &Proxy, count: usize) {
    eventually("all shards are known", secs(20), || {
        let view = proxy.view();
        let all = view["shards"].as_array().unwrap();
        let whole = |shard: &Json| {
            let nodes = shard["view"]["nodes"].as_array().unwrap();
            shard["slots_moving"] == 0 && nodes.iter().all(|node| node["in_service"] == true)
        };
        all.len() == count && view["slots_unowned"] == Json::Array(Vec::new()) && all.iter().all(whole)
    });
}

/// The report of the doctor.
fn doctor(proxy: &Proxy) -> Json {
    serde_json::from_str(&proxy.get("/doctor").1).unwrap()
}

/// The findings of this kind: of whom, and of which shard.
fn found(report: &Json, code: &str) -> Vec<(String, Json)> {
    let findings = report["findings"].as_array().unwrap().iter();
    let those = findings.filter(|finding| finding["code"] == code);
    those.map(|finding| (finding["node"].as_str().unwrap().to_owned(), finding["shard"].clone())).collect()
}

/// The lines of a page that `REDWEIR …` answers.
fn lines(proxy: &Proxy, words: &[&str]) -> Vec<String> {
    proxy.cmd(words).items().iter().map(Value::text).collect()
}

fn at(cluster: &Cluster, n: usize) -> String {
    format!("127.0.0.1:{}", cluster.nodes[n].address)
}

/// What is told of the shard of this node.
fn shard_with<'v>(view: &'v Json, node: &str) -> &'v Json {
    let all = view["shards"].as_array().unwrap();
    let has =
        |shard: &&Json| shard["view"]["nodes"].as_array().unwrap().iter().any(|one| one["node"] == node);
    all.iter().find(has).unwrap()
}

/// Its number: which that is, depends on whom Redweir has heard first.
fn shard_of(view: &Json, node: &str) -> usize {
    shard_with(view, node)["shard"].as_u64().unwrap() as usize
}

#[test]
fn every_shard_is_shown_everywhere() {
    let (proxy, cluster) = start(&Shape::default());
    let view = proxy.view();
    let shards = view["shards"].as_array().unwrap();
    let mut slots: Vec<u64> = shards.iter().map(|shard| shard["slots"].as_u64().unwrap()).collect();
    slots.sort_unstable();
    assert_eq!(slots, [5461, 5461, 5462]);
    for (n, range) in ["0-5460", "5461-10922", "10923-16383"].into_iter().enumerate() {
        let shard = shard_with(&view, &at(&cluster, n));
        assert_eq!((&shard["slot_ranges"][0], &shard["primary"]), (&range.into(), &at(&cluster, n).into()));
        assert_eq!(shard["config_epoch"], n + 1);
        assert_eq!(shard["view"]["nodes"].as_array().unwrap().len(), 2);
        assert!(shard["view"]["head_offset"].is_u64() && shard["view"].get("shards").is_none());
    }
    let first = &shards[0];
    assert_eq!(view["primary"], first["primary"], "what stands beside is of the first");

    let page = lines(&proxy, &["REDWEIR", "VIEW"]);
    for (n, range) in [(0, "5461 slots (0-5460)"), (1, "5462 slots (5461-10922)")] {
        let index = shard_of(&view, &at(&cluster, n));
        let title = format!("shard {index}: {range}, 0 moving");
        let from = page.iter().position(|line| *line == title).unwrap_or_else(|| panic!("{page:#?}"));
        assert_eq!(page[from + 1], format!("primary: {}", at(&cluster, n)));
    }
    let section = proxy.cmd(&["INFO", "redweir"]).text();
    assert!(section.contains("redweir_shards:3\r\nredweir_slots_unowned:0\r\n"), "{section}");
    let line = format!("redweir_shard{}:primary={}", first["shard"], first["primary"].as_str().unwrap());
    assert!(section.contains(&line), "{section}");

    let (status, body) = proxy.get("/readyz");
    assert_eq!(status, 200, "{body}");
    assert!(
        body.starts_with("ready\nreads: yes\nwrites: yes\nshards: 3; every slot has a shard\nshard "),
        "{body}"
    );
    let overview: Json = serde_json::from_str(&proxy.get("/overview").1).unwrap();
    assert_eq!(overview["view"]["shards"].as_array().unwrap().len(), 3);
    assert_eq!(overview["serves"].as_array().unwrap().len(), 3, "a replica of each shard");
    eventually("every node is looked at", secs(15), || {
        doctor(&proxy)["nodes"].as_array().unwrap().len() == 6
    });
    let report = doctor(&proxy);
    for code in ["slot-not-covered", "open-slot", "epoch-conflict", "shard-without-replica", "two-primaries"]
    {
        assert_eq!(found(&report, code), [], "{report:#}");
    }
    for (node, shard) in found(&report, "unprotected-writes") {
        assert_eq!(shard, shard_of(&view, &node), "{report:#}");
    }
    let log = proxy.log();
    let unknown = |line: &&str| line.contains("no node is known yet") && !line.contains("shard=0");
    let unknown: Vec<&str> = log.lines().filter(unknown).collect();
    let ready = log.lines().filter(|line| line.contains("ready after") && line.contains("shard=")).count();
    assert!(unknown.is_empty() && ready == 3, "{ready}, {unknown:#?}");
}

#[test]
fn an_explanation_is_of_the_shard_that_has_the_key() {
    let (proxy, cluster) = start(&Shape::default());
    let view = proxy.view();
    for number in [7, 6000, 16_000] {
        let key = key_in(number, 0);
        let owner = cluster.owner(slot(&key));
        let index = shard_of(&view, &at(&cluster, owner));
        let replica = at(&cluster, cluster.replicas_of(owner)[0]);
        eventually("a replica of that shard would be asked", secs(15), || {
            // The first read of a shard is the primary's: what was written before has to be known.
            proxy.cmd(&["GET", &key]);
            proxy.explain(&["GET", &key])["target"] == replica
        });
        let read = proxy.explain(&["GET", &key]);
        assert_eq!((&read["slot"], &read["shard"]), (&number.into(), &index.into()), "{read:#}");
        assert_eq!(read["slot_state"], "stable", "{read:#}");
        let write = proxy.explain(&["SET", &key, "v"]);
        assert_eq!((&write["target"], &write["shard"]), (&at(&cluster, owner).into(), &index.into()));
        let page = lines(&proxy, &["REDWEIR", "EXPLAIN", "GET", &key]);
        assert_eq!(page[1], format!("slot {number} (stable) of shard {index}"), "{page:#?}");
        assert!(page[3].starts_with("decision: "), "{page:#?}");
        let names = |line: &&String| line.starts_with(&format!("replica {replica}, link up"));
        assert_eq!(page.iter().filter(names).count(), 1, "{page:#?}");
    }
    let (one, other) = (key_in(7, 0), key_in(6000, 0));
    assert_eq!(proxy.explain(&["MGET", &other, &one])["slot"], 6000, "of the first of several");
    let crossed = proxy.explain(&["SINTER", &one, &other]);
    assert_eq!((&crossed["decision"], &crossed["slot"]), (&"answer".into(), &Json::Null), "{crossed:#}");
    assert!(crossed["why"].as_str().unwrap().contains("CROSSSLOT"), "{crossed:#}");
    assert_eq!(proxy.explain(&["PING"])["slot"], Json::Null);

    let step = cluster.open(7, 1);
    eventually("the open slot is shown", secs(10), || {
        proxy.explain(&["GET", &one])["slot_state"] == "moving"
    });
    let moving = proxy.explain(&["GET", &one]);
    assert_eq!((&moving["reason"], &moving["target"]), (&"slot_moving".into(), &at(&cluster, 0).into()));
    step.cancel();
}

#[test]
fn every_series_of_a_shard_says_which() {
    let (proxy, _cluster) = start(&Shape::default());
    let page = proxy.metrics();
    let mut heads = std::collections::BTreeSet::new();
    for head in page.lines().filter(|line| line.starts_with("# TYPE")) {
        assert!(heads.insert(head.split(' ').nth(2).unwrap()), "twice: {head}");
    }
    let of_shards = [
        "redweir_primary_up",
        "redweir_node_up",
        "redweir_head_offset",
        "redweir_stream_",
        "redweir_replica_",
        "redweir_anchor_",
        "redweir_lost_",
        "redweir_primary_changes",
        "redweir_history_",
        "redweir_second_",
    ];
    let mut seen = 0;
    for line in page.lines().filter(|line| of_shards.iter().any(|start| line.starts_with(start))) {
        assert!(line.contains("shard=\""), "{line}");
        seen += 1;
    }
    assert!(seen > 60, "{seen}");
    for shard in proxy.view()["shards"].as_array().unwrap() {
        let index = shard["shard"].to_string();
        assert_eq!(proxy.metric("redweir_primary_up", &[("shard", &index)]), 1.0);
        assert!(proxy.metric("redweir_slots", &[("shard", &index), ("state", "stable")]) >= 5461.0);
        assert_eq!(proxy.metric("redweir_slots", &[("shard", &index), ("state", "moving")]), 0.0);
    }
    assert_eq!(proxy.metric("redweir_slots", &[("shard", ""), ("state", "unowned")]), 0.0);
    assert!(page.contains("\nredweir_redirected_total "), "it has no shard");
}

/// A dead primary with a replica that does not take over: the others serve, and it is told that one does not.
#[test]
fn one_shard_that_is_not_ready_is_enough_not_to_be() {
    let shape = Shape {
        options: vec!["--cluster-replica-no-failover", "yes", "--cluster-require-full-coverage", "no"],
        ..Shape::default()
    };
    let (proxy, mut cluster) = start(&shape);
    let index = shard_of(&proxy.view(), &at(&cluster, 1));
    cluster.kill(1);
    eventually("it is told that it is not ready", secs(15), || proxy.get("/readyz").0 == 503);
    let (_, body) = proxy.get("/readyz");
    assert!(
        body.starts_with("not ready\n") && body.contains(&format!("\nwrites: no: shard {index}: ")),
        "{body}"
    );
    for shard in proxy.view()["shards"].as_array().unwrap() {
        let up = if shard["shard"] == index { 0.0 } else { 1.0 };
        assert_eq!(
            proxy.metric("redweir_primary_up", &[("shard", &shard["shard"].to_string())]),
            up,
            "{shard:#}"
        );
    }
    eventually("the doctor names it", secs(15), || {
        found(&doctor(&proxy), "unreachable").contains(&(at(&cluster, 1), index.into()))
    });
}

#[test]
fn a_shard_without_a_replica_is_found() {
    let (proxy, cluster) = start(&Shape { replicas: 0, ..Shape::default() });
    eventually("the doctor says so of each", secs(40), || {
        found(&doctor(&proxy), "shard-without-replica").len() == 3
    });
    let own = found(&doctor(&proxy), "shard-without-replica");
    let index = shard_of(&proxy.view(), &at(&cluster, 2));
    assert!(own.contains(&(at(&cluster, 2), index.into())), "{own:?}");
    // Slots that are given back are nobody's.
    assert_eq!(cluster.nodes[2].cmd(&["CLUSTER", "DELSLOTS", "16383", "16382"]), "OK");
    eventually("the doctor says so of the slots", secs(30), || {
        found(&doctor(&proxy), "slot-not-covered") == [("cluster".to_owned(), Json::Null)]
    });
    let (status, body) = proxy.get("/readyz");
    assert!(status == 503 && body.contains("no shard has 2 slots (16382-16383)"), "{body}");
    assert_eq!(proxy.metric("redweir_slots", &[("shard", ""), ("state", "unowned")]), 2.0);
    let last = lines(&proxy, &["REDWEIR", "VIEW"]).pop().unwrap();
    assert_eq!(last, "no shard has 2 slots (16382-16383)");
    let text = proxy.cmd(&["REDWEIR", "DOCTOR"]);
    let text: Vec<String> = text.items().iter().map(Value::text).collect();
    assert!(text.iter().any(|line| line.starts_with("error slot-not-covered cluster since")), "{text:#?}");
}
