//! What looks at all keys, or at none: every shard is asked, or nobody would know that there are shards.

use std::collections::BTreeSet;

use super::{Rig, SESSION, Twins, keys};
use crate::support::cluster::{Shape, key_in, slot};
use crate::support::{Conn, Server, Value};

fn fill(conn: &mut Conn, count: usize) -> BTreeSet<String> {
    let all = keys(count);
    for key in &all {
        assert_eq!(conn.cmd(&["SET", key, "v"]), "OK");
    }
    all.into_iter().collect()
}

/// What a whole `SCAN` with these options finds, repetitions included.
fn scan(conn: &mut Conn, options: &[&str]) -> Vec<String> {
    let (mut cursor, mut found) = ("0".to_owned(), Vec::new());
    for _ in 0..10_000 {
        let reply = conn.cmd(&[&["SCAN", &cursor], options].concat());
        assert!(!reply.is_error(), "SCAN {cursor}: {reply:?}");
        cursor = reply.items()[0].text();
        assert!(cursor.parse::<u64>().is_ok(), "a cursor is a number for many clients: {cursor}");
        found.extend(reply.items()[1].items().iter().map(Value::text));
        if cursor == "0" {
            return found;
        }
    }
    panic!("a SCAN without end");
}

#[test]
fn a_scan_finds_the_keys_of_all_shards() {
    let rig = Rig::start(SESSION);
    let mut conn = rig.connect();
    assert_eq!(scan(&mut conn, &[]), Vec::<String>::new());
    let all = fill(&mut conn, 500);
    for options in [&[][..], &["COUNT", "1000"], &["COUNT", "7"], &["TYPE", "string"], &["MATCH", "*"]] {
        let found = scan(&mut conn, options);
        assert_eq!(found.iter().cloned().collect::<BTreeSet<_>>(), all, "{options:?}");
        assert_eq!(found.len(), all.len(), "nothing moved, so nothing is found twice: {options:?}");
    }
    let matching = scan(&mut conn, &["MATCH", "*:1?"]);
    let wanted: BTreeSet<String> = (10..20).map(|n| format!(":{n}")).collect();
    assert_eq!(matching.len(), 10);
    assert!(matching.iter().all(|key| wanted.contains(&key[key.rfind(':').unwrap()..])), "{matching:?}");
    assert_eq!(scan(&mut conn, &["TYPE", "list"]), Vec::<String>::new());
}

#[test]
fn keys_and_their_number_are_those_of_all_shards() {
    let rig = Rig::start(SESSION);
    let mut conn = rig.connect();
    assert_eq!((conn.cmd(&["DBSIZE"]), conn.cmd(&["RANDOMKEY"])), (Value::Int(0), Value::Null));
    // Most primaries have none.
    assert_eq!(conn.cmd(&["SET", "alone", "v"]), "OK");
    for _ in 0..20 {
        assert_eq!(conn.cmd(&["RANDOMKEY"]), "alone");
    }
    assert_eq!(conn.cmd(&["DEL", "alone"]), 1);
    let all = fill(&mut conn, 120);
    assert_eq!(conn.cmd(&["DBSIZE"]), 120);
    for section in [&["INFO", "keyspace"][..], &["INFO", "server", "KEYSPACE"]] {
        let info = conn.cmd(section).text();
        assert!(info.contains("\r\ndb0:keys=120,expires=0,avg_ttl=0"), "{section:?}: {info}");
        assert!(!info.contains("cluster_enabled:1") && info.matches("db0:").count() == 1, "{info}");
    }
    assert!(!conn.cmd(&["INFO", "memory"]).text().contains("db0"));
    let found: BTreeSet<String> = conn.cmd(&["KEYS", "*"]).items().iter().map(Value::text).collect();
    assert_eq!(found, all);
    let some = |conn: &mut Conn| conn.cmd(&["RANDOMKEY"]).text();
    let seen: BTreeSet<String> = (0..200).map(|_| some(&mut conn)).collect();
    assert!(seen.is_subset(&all));
    let shards: BTreeSet<usize> = seen.iter().map(|key| rig.cluster.owner(slot(key))).collect();
    assert_eq!(shards.len(), 3, "a random key is one of any shard");
}

#[test]
fn a_flush_empties_all_shards() {
    let rig = Rig::start(SESSION);
    let mut conn = rig.connect();
    for flush in [&["FLUSHALL"][..], &["FLUSHDB"], &["FLUSHALL", "ASYNC"]] {
        let all = fill(&mut conn, 60);
        assert_eq!(conn.cmd(flush), "OK");
        assert_eq!(conn.cmd(&["DBSIZE"]), 0);
        for key in all {
            assert_eq!(conn.cmd(&["GET", &key]), Value::Null, "{key} after {flush:?}");
        }
        for node in rig.cluster.owners().into_keys() {
            assert_eq!(rig.cluster.nodes[node].cmd(&["DBSIZE"]), 0);
        }
    }
}

#[test]
fn the_cluster_looks_like_one_server() {
    let mut twins = Twins::start();
    for words in [&["CLUSTER", "INFO"][..], &["CLUSTER", "SLOTS"], &["CLUSTER", "SHARDS"], &["READONLY"]] {
        let reply = twins.say(words);
        assert!(reply.is_error(), "{words:?}: {reply:?}");
    }
    for section in [&["INFO"][..], &["INFO", "cluster"]] {
        let text = twins.through.cmd(section).text();
        assert!(text.contains("cluster_enabled:0\r\n"), "{section:?}: {text}");
        assert!(!text.contains("cluster_enabled:1"), "{section:?}: {text}");
    }
    let hello = twins.through.cmd(&["HELLO", "3"]);
    assert_eq!(hello.field("mode").text(), "standalone");
    assert_eq!(hello.field("role").text(), "master");
}

#[test]
fn there_is_one_database() {
    let rig = Rig::start(SESSION);
    let mut conn = rig.connect();
    assert_eq!(conn.cmd(&["SELECT", "0"]), "OK");
    let refused = conn.cmd(&["SELECT", "1"]);
    assert!(refused.is_error(), "{refused:?}");
    assert_eq!(conn.cmd(&["SET", "still", "here"]), "OK");
    assert_eq!(conn.cmd(&["GET", "still"]), "here");
}

/// Valkey 9 has more than one, each over all slots.
#[test]
fn a_cluster_of_several_databases_has_them_for_its_clients() {
    let shape =
        Shape { kind: Server::Valkey91, options: vec!["--cluster-databases", "4"], ..Shape::default() };
    let rig = Rig::with(&shape, SESSION);
    let all = keys(30);
    let mut conns: Vec<Conn> = (0..4).map(|_| rig.connect()).collect();
    for (database, conn) in conns.iter_mut().enumerate() {
        assert_eq!(conn.cmd(&["SELECT", &database.to_string()]), "OK");
        for key in &all {
            assert_eq!(conn.cmd(&["SET", key, &format!("{database} {key}")]), "OK");
        }
        assert_eq!(conn.cmd(&["SADD", &key_in(7, 0), "only", "here"]), 2);
        assert_eq!(conn.cmd(&["DBSIZE"]), 31);
    }
    rig.cluster.await_sync();
    rig.await_replicas();
    let before = rig.cluster.replica_calls(&["get"]);
    for (database, conn) in conns.iter_mut().enumerate() {
        let list: Vec<&str> = std::iter::once("MGET").chain(all.iter().map(String::as_str)).collect();
        let values: Vec<String> = all.iter().map(|key| format!("{database} {key}")).collect();
        for key in &all {
            assert_eq!(conn.cmd(&["GET", key]), format!("{database} {key}").as_str());
        }
        assert_eq!(conn.cmd(&list).items().iter().map(Value::text).collect::<Vec<_>>(), values);
    }
    let served = rig.cluster.replica_calls(&["get"]) - before;
    assert!(served > 60, "replicas served {served} of 120 reads");
    // A pipeline over shards and databases.
    let conn = &mut conns[0];
    for database in ["1", "3", "0"] {
        conn.ask(&["SELECT", database]).ask(&["GET", &all[0]]).ask(&["GET", &all[1]]).ask(&["DBSIZE"]);
    }
    let replies = conn.read_many(12);
    for (nth, database) in [1, 3, 0].into_iter().enumerate() {
        let [select, first, second, size] = &replies[4 * nth..4 * nth + 4] else { panic!("{replies:?}") };
        assert!(*select == "OK" && *size == 31, "{replies:?}");
        assert_eq!(*first, format!("{database} {}", all[0]).as_str());
        assert_eq!(*second, format!("{database} {}", all[1]).as_str());
    }
    assert_eq!(conn.cmd(&["FLUSHDB"]), "OK");
    assert_eq!((conn.cmd(&["DBSIZE"]), conns[3].cmd(&["DBSIZE"])), (Value::Int(0), Value::Int(31)));
    assert!(conns[3].cmd(&["SELECT", "4"]).error().contains("out of range"));
}
