//! Transactions: whole in one slot, refused over two.

use super::{Rig, SESSION, Twins, assert_crossslot, keys};
use crate::support::cluster::key_in;
use crate::support::{Conn, Value, ms, sleep_ms};

#[test]
fn a_transaction_in_one_slot_is_executed_as_one_server_does() {
    let mut twins = Twins::start();
    for key in keys(12) {
        let other = format!("{key}:other");
        let same = format!("{{{}}}:list", &key[1..key.find('}').unwrap()]);
        assert_eq!(twins.say(&["MULTI"]), "OK");
        twins.say(&["SET", &key, "1"]);
        twins.say(&["INCR", &key]);
        twins.say(&["RPUSH", &same, "a", "b"]);
        twins.say(&["GET", &other]);
        twins.say(&["LLEN", &key]);
        twins.say(&["EXEC"]);
        twins.say(&["MULTI"]);
        twins.say(&["SET", &key, "2"]);
        twins.say(&["DISCARD"]);
        assert_eq!(twins.say(&["GET", &key]), "2");
    }
    twins.say(&["MULTI"]);
    twins.say(&["EXEC"]);
    twins.say(&["MULTI"]);
    twins.say(&["PING"]);
    twins.say(&["EXEC"]);
    twins.say(&["EXEC"]);
    twins.say(&["DISCARD"]);
}

#[test]
fn a_watched_key_that_changes_ends_a_transaction() {
    let rig = Rig::start(SESSION);
    for key in keys(6) {
        let mut conn = rig.connect();
        assert_eq!(conn.cmd(&["WATCH", &key]), "OK");
        assert_eq!(conn.cmd(&["MULTI"]), "OK");
        assert_eq!(conn.cmd(&["SET", &key, "mine"]), "QUEUED");
        assert_eq!(rig.proxy.cmd(&["SET", &key, "theirs"]), "OK");
        assert_eq!(conn.cmd(&["EXEC"]), Value::Null);
        assert_eq!(conn.cmd(&["GET", &key]), "theirs");
        assert_eq!(conn.cmd(&["WATCH", &key]), "OK");
        assert_eq!(conn.cmd(&["MULTI"]), "OK");
        assert_eq!(conn.cmd(&["SET", &key, "mine"]), "QUEUED");
        assert_eq!(conn.cmd(&["EXEC"]).items().len(), 1);
        assert_eq!(conn.cmd(&["GET", &key]), "mine");
    }
}

/// When the other slot is named, or by `EXEC` as a cluster does it.
fn assert_refused(queued: &Value, executed: &Value) {
    let is = |reply: &Value, code: &str| reply.is_error() && reply.error().starts_with(code);
    let at_once = is(queued, "CROSSSLOT") && is(executed, "EXECABORT");
    let in_the_end = *queued == "QUEUED" && is(executed, "CROSSSLOT");
    assert!(at_once || in_the_end, "{queued:?}, {executed:?}");
}

#[test]
fn a_transaction_over_two_slots_is_refused_whole() {
    let rig = Rig::start(SESSION);
    let mut conn = rig.connect();
    // Of two shards, and of one.
    for other in [9000, 2] {
        let (a, b) = (key_in(1, 0), key_in(other, 0));
        assert_eq!(conn.cmd(&["MULTI"]), "OK");
        assert_eq!(conn.cmd(&["SET", &a, "1"]), "QUEUED");
        let queued = conn.cmd(&["SET", &b, "1"]);
        assert_refused(&queued, &conn.cmd(&["EXEC"]));
        assert_eq!(conn.cmd(&["EXISTS", &a, &b]), 0);
        // What was sent at once is answered the same.
        conn.ask(&["MULTI"]).ask(&["SET", &a, "1"]).ask(&["SET", &b, "1"]).ask(&["EXEC"]).ask(&["PING"]);
        let replies = conn.read_many(5);
        assert_refused(&replies[2], &replies[3]);
        assert_eq!(replies[4], "PONG");
        assert_eq!(conn.cmd(&["EXISTS", &a, &b]), 0);
    }
}

/// ASK while it is queued, or MOVED: the client may send it again, so nothing of it may have been executed.
#[test]
fn what_only_one_shard_could_keep_is_refused() {
    let rig = Rig::start(SESSION);
    let (a, b) = (key_in(0, 0), key_in(9000, 0));
    let mut conn = rig.connect();
    assert_eq!(conn.cmd(&["WATCH", &a]), "OK");
    assert_crossslot(&conn.cmd(&["WATCH", &b]), "WATCH of two shards");
    assert_eq!(conn.cmd(&["GET", &b]), Value::Null, "reads go on elsewhere");
    assert_eq!(rig.proxy.cmd(&["SET", &a, "other"]), "OK");
    for command in [&["MULTI"][..], &["SET", &a, "mine"]] {
        assert!(!conn.cmd(command).is_error(), "{command:?}");
    }
    assert_eq!(conn.cmd(&["EXEC"]), Value::Null, "what was watched has changed");
    // A transaction whose first command is about several shards never begins.
    assert_eq!(conn.cmd(&["MULTI"]), "OK");
    assert_crossslot(&conn.cmd(&["MGET", &a, &b]), "MGET");
    assert!(conn.cmd(&["EXEC"]).error().starts_with("EXECABORT"));
    for command in [&["CLIENT", "REPLY", "OFF"][..], &["CLIENT", "TRACKING", "ON"]] {
        assert!(conn.cmd(command).error().starts_with("ERR CLIENT REPLY"), "{command:?}");
    }
    assert_eq!(conn.cmd(&["CLIENT", "REPLY", "ON"]), "OK");
    assert_eq!(conn.cmd(&["SET", &b, "written"]), "OK");
}

#[test]
fn a_transaction_in_a_slot_that_moves_is_executed_once_or_not_at_all() {
    let rig = Rig::start(SESSION);
    let (counter, mirror) = (key_in(3, 0), key_in(3, 1));
    let mut conn = rig.connect();
    let (mut executed, mut aborted) = (0, 0);
    let mut once = |conn: &mut Conn| {
        conn.ask(&["MULTI"]).ask(&["INCR", &counter]).ask(&["INCR", &mirror]).ask(&["EXEC"]);
        let reply = conn.read_many(4).pop().unwrap();
        match &reply {
            Value::Array(counts) if counts.len() == 2 => executed += 1,
            Value::Error(text) if text.starts_with("EXECABORT") || text.contains("not executed") => {
                aborted += 1;
            }
            other => panic!("{other:?}"),
        }
    };
    once(&mut conn);
    for to in [1, 0] {
        let step = rig.cluster.open(3, to);
        once(&mut conn);
        step.carry(1);
        once(&mut conn);
        step.carry(1);
        once(&mut conn);
        step.finish();
        (0..20).for_each(|_| once(&mut conn));
        rig.cluster.await_ok();
        sleep_ms(100);
        (0..20).for_each(|_| once(&mut conn));
    }
    println!("{executed} executed, {aborted} aborted");
    let counts = conn.cmd(&["MGET", &counter, &mirror]);
    let counts: Vec<i64> = counts.items().iter().map(Value::int).collect();
    assert_eq!(counts, [executed, executed]);
    assert!(executed >= 40, "{executed} executed, {aborted} aborted");
}

/// What is about all shards cannot be done at one of them: it is an error in queueing, and nothing is executed.
#[test]
fn what_is_about_all_shards_is_refused_in_a_transaction() {
    let rig = Rig::start(SESSION);
    for key in keys(9) {
        assert_eq!(rig.proxy.cmd(&["SET", &key, "v"]), "OK");
    }
    let key = &keys(1)[0];
    let all: [&[&str]; 6] = [
        &["FLUSHALL"],
        &["DBSIZE"],
        &["KEYS", "*"],
        &["SCAN", "0"],
        &["SCRIPT", "LOAD", "return 1"],
        &["EVAL", "return 1", "0"],
    ];
    for first in [true, false] {
        for command in all {
            let mut conn = rig.connect();
            assert_eq!(conn.cmd(&["MULTI"]), "OK");
            if !first {
                assert_eq!(conn.cmd(&["SET", key, "changed"]), "QUEUED");
            }
            let refused = conn.cmd(command);
            assert!(refused.is_error(), "{command:?}: {refused:?}");
            assert!(conn.cmd(&["EXEC"]).error().starts_with("EXECABORT"), "{command:?}");
            assert_eq!(conn.cmd(&["GET", key]), "v");
        }
    }
    assert_eq!(rig.proxy.cmd(&["DBSIZE"]), 9);
}

/// What names no key waits for what does: the transaction is where that is.
#[test]
fn a_transaction_is_at_the_shard_of_its_first_key() {
    let mut twins = Twins::start();
    for key in keys(9) {
        assert_eq!(twins.say(&["MULTI"]), "OK");
        assert_eq!(twins.say(&["PUBLISH", "channel", "message"]), "QUEUED");
        assert_eq!(twins.say(&["PING"]), "QUEUED");
        assert_eq!(twins.say(&["SET", &key, "v"]), "QUEUED");
        assert_eq!(twins.say(&["ECHO", "text"]), "QUEUED");
        assert_eq!(twins.say(&["GET", &key]), "QUEUED");
        assert_eq!(twins.say(&["EXEC"]).items().len(), 5);
    }
    // Without any key it is executed as well, and what is wrong is told at once.
    twins.say(&["MULTI"]);
    twins.say(&["PUBLISH", "channel", "message"]);
    assert_eq!(twins.say(&["EXEC"]).items().len(), 1);
    twins.say(&["MULTI"]);
    assert!(twins.say(&["PUBLISH", "channel"]).is_error());
    assert!(twins.say(&["EXEC"]).is_error());
    twins.say(&["MULTI"]);
    twins.say(&["PUBLISH", "channel", "message"]);
    twins.say(&["DISCARD"]);
    assert_eq!(twins.say(&["PING"]), "PONG");
}

/// Whoever watches keys while their slots move is not told where they are.
#[test]
fn keys_are_watched_where_they_are() {
    let rig = Rig::start(SESSION);
    let key = key_in(7, 0);
    let to = (rig.cluster.owner(7) + 1) % 3;
    // Nobody has heard of it.
    rig.cluster.move_slot(7, to);
    let mut conn = rig.connect();
    for value in ["1", "2"] {
        assert_eq!(conn.cmd(&["WATCH", &key]), "OK");
        assert!(!conn.cmd(&["GET", &key]).is_error());
        assert_eq!(conn.cmd(&["MULTI"]), "OK");
        assert_eq!(conn.cmd(&["SET", &key, value]), "QUEUED");
        assert_eq!(conn.cmd(&["EXEC"]).items().len(), 1);
    }
    // In an open slot a key that is not there waits for that to be over.
    let (back, other) = (rig.cluster.open(7, (to + 1) % 3), key_in(7, 1));
    conn.ask(&["WATCH", &other]);
    assert!(conn.is_silent_for(ms(300)));
    back.finish();
    rig.cluster.await_ok();
    assert_eq!(conn.read(), "OK");
    assert_eq!(conn.cmd(&["MULTI"]), "OK");
    assert_eq!(conn.cmd(&["SET", &other, "3"]), "QUEUED");
    assert_eq!(conn.cmd(&["EXEC"]).items().len(), 1);
    // What is watched goes while it is watched: that is no mistake of the client.
    assert_eq!(conn.cmd(&["WATCH", &key]), "OK");
    rig.cluster.move_slot(7, to);
    assert!(!rig.proxy.cmd(&["GET", &key]).is_error());
    assert_eq!(conn.cmd(&["MULTI"]), "OK");
    let told = conn.cmd(&["SET", &key, "4"]);
    assert!(told.error().starts_with("TRYAGAIN"), "{told:?}");
    assert!(conn.cmd(&["EXEC"]).error().starts_with("EXECABORT"));
    assert_eq!(conn.cmd(&["GET", &key]), "2");
}
