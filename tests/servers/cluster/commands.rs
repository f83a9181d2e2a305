//! Commands with one key or several answer as one server would; where a server would have to look at two shards at once,
//! the proxy says so as a cluster does.

use super::{Rig, SESSION, Twins, assert_crossslot, keys};
use crate::support::cluster::{key_in, slot};
use crate::support::{Value, eventually, secs, sleep_ms};

#[test]
fn commands_with_one_key_answer_as_one_server_does_in_every_slot() {
    let mut twins = Twins::start();
    for (n, key) in keys(60).iter().enumerate() {
        let (number, other) = (n.to_string(), format!("{key}:h"));
        twins.say(&["GET", key]);
        twins.say(&["SET", key, &number]);
        twins.say(&["GET", key]);
        twins.say(&["INCRBY", key, "7"]);
        twins.say(&["APPEND", key, "0"]);
        twins.say(&["STRLEN", key]);
        twins.say(&["TYPE", key]);
        twins.say(&["LPUSH", key, "no list"]);
        twins.say(&["HSET", &other, "a", &number, "b", "2"]);
        twins.say(&["HGETALL", &other]);
        twins.say(&["HINCRBY", &other, "b", "3"]);
        twins.say(&["EXPIRE", &other, "1000"]);
        twins.say(&["PERSIST", &other]);
        twins.say(&["TTL", &other]);
        twins.say(&["OBJECT", "ENCODING", key]);
        twins.say(&["GETDEL", key]);
        twins.say(&["GET", key]);
    }
    twins.say(&["NOSUCHCOMMAND", "a"]);
    twins.say(&["GET"]);
    twins.say(&["PING", "pong"]);
    twins.say(&["ECHO", "echo"]);
}

#[test]
fn reads_and_deletes_of_many_keys_are_gathered_from_all_shards() {
    let mut twins = Twins::start();
    let all = keys(40);
    let with = |command: &str, keys: &[String]| -> Vec<String> {
        [command.to_owned()].into_iter().chain(keys.iter().cloned()).collect()
    };
    for key in all.iter().step_by(2) {
        twins.say(&["SET", key, key]);
    }
    twins.say(&["LPUSH", &all[1], "no string"]);
    let twice = [&all[..], &all[..7], &all[..1]].concat();
    for command in ["MGET", "EXISTS", "TOUCH"] {
        twins.say(&with(command, &all));
        twins.say(&with(command, &twice));
        twins.say(&with(command, &all[4..5]));
    }
    assert_eq!(twins.say(&with("DEL", &all[..10])), 6);
    assert_eq!(twins.say(&with("UNLINK", &twice)), 15);
    assert_eq!(twins.say(&with("EXISTS", &all)), 0);
    for command in ["MGET", "EXISTS", "TOUCH", "DEL", "UNLINK"] {
        twins.say(&[command]);
    }
}

#[test]
fn scripts_with_keys_of_one_slot_run() {
    let mut twins = Twins::start();
    let script = "redis.call('SET', KEYS[1], ARGV[1]) return redis.call('GET', KEYS[1])";
    for key in keys(20) {
        assert_eq!(twins.say(&["EVAL", script, "1", &key, "v"]), "v");
        assert_eq!(twins.say(&["EVAL_RO", "return redis.call('GET', KEYS[1])", "1", &key]), "v");
    }
    let digest = twins.say(&["SCRIPT", "LOAD", script]).text();
    for key in keys(20) {
        assert_eq!(twins.say(&["EVALSHA", &digest, "1", &key, "w"]), "w");
    }
    twins.say(&["SCRIPT", "EXISTS", &digest]);
    let absent = "0".repeat(40);
    twins.say(&["EVALSHA", &absent, "1", "a"]);
}

#[test]
fn scripts_with_keys_of_two_slots_or_none_are_refused() {
    let rig = Rig::start(SESSION);
    let (a, b) = (key_in(1, 0), key_in(9000, 0));
    let mut conn = rig.connect();
    let reply = conn.cmd(&["EVAL", "return redis.call('SET', KEYS[1], KEYS[2])", "2", &a, &b]);
    assert_crossslot(&reply, "EVAL");
    let reply = conn.cmd(&["EVAL", "return 1", "0"]);
    assert!(reply.is_error() && reply.error().to_lowercase().contains("key"), "{reply:?}");
    assert_eq!(conn.cmd(&["EXISTS", &a]), 0);
}

#[test]
fn writes_over_slots_are_refused_and_change_nothing() {
    let rig = Rig::start(SESSION);
    let (a, b, c) = (key_in(1, 0), key_in(9000, 0), key_in(1, 1));
    let mut conn = rig.connect();
    assert_eq!(conn.cmd(&["MSET", &a, "1", &c, "2"]), "OK");
    for words in [
        vec!["MSET", &a, "x", &b, "x"],
        vec!["MSETNX", &a, "x", &b, "x"],
        vec!["RENAME", &a, &b],
        vec!["COPY", &a, &b],
        vec!["SINTERSTORE", &a, &b],
        vec!["BITOP", "AND", &a, &b],
        vec!["PFMERGE", &a, &b],
        vec!["LMOVE", &a, &b, "LEFT", "LEFT"],
    ] {
        assert_crossslot(&conn.cmd(&words), words[0]);
    }
    let got = conn.cmd(&["MGET", &a, &b, &c]);
    assert_eq!(got, Value::Array(vec![Value::Bulk(b"1".into()), Value::Null, Value::Bulk(b"2".into())]));
}

#[test]
fn reads_that_combine_keys_of_two_slots_are_refused() {
    let rig = Rig::start(SESSION);
    let (a, b, c) = (key_in(1, 0), key_in(9000, 0), key_in(1, 1));
    let mut conn = rig.connect();
    for words in [
        vec!["SINTER", &a, &b],
        vec!["SUNION", &a, &b],
        vec!["PFCOUNT", &a, &b],
        vec!["LCS", &a, &b],
        vec!["ZUNION", "2", &a, &b],
        vec!["SINTERCARD", "2", &a, &b],
    ] {
        assert_crossslot(&conn.cmd(&words), words[0]);
    }
    assert_eq!(conn.cmd(&["SADD", &a, "x", "y"]), 2);
    assert_eq!(conn.cmd(&["SADD", &c, "y", "z"]), 2);
    assert_eq!(conn.cmd(&["SINTER", &a, &c]).items(), [Value::Bulk(b"y".into())]);
}

#[test]
fn a_client_that_waits_for_an_element_is_woken_by_a_push() {
    let rig = Rig::start(SESSION);
    for key in keys(6) {
        let mut waiting = rig.connect();
        waiting.ask(&["BLPOP", &key, "10"]);
        eventually("somebody waits", secs(5), || {
            let owner = &rig.cluster.nodes[rig.cluster.owner(slot(&key))];
            owner.info("clients")["blocked_clients"] != "0"
        });
        assert_eq!(rig.proxy.cmd(&["RPUSH", &key, "element"]), 1);
        let popped = waiting.read();
        assert_eq!((popped.items()[0].text(), popped.items()[1].text()), (key, "element".to_owned()));
    }
    let (a, b) = (key_in(1, 0), key_in(9000, 0));
    assert_eq!(rig.proxy.cmd(&["BLPOP", &a, "0.1"]), Value::Null);
    assert_crossslot(&rig.proxy.cmd(&["BLPOP", &a, &b, "0.1"]), "BLPOP");
}

#[test]
fn a_client_that_waits_goes_on_waiting_where_its_slot_has_gone() {
    let rig = Rig::start(SESSION);
    let key = key_in(7, 0);
    let mut waiting = rig.connect();
    waiting.ask(&["BLPOP", &key, "30"]);
    let blocked = |node: usize| rig.cluster.nodes[node].info("clients")["blocked_clients"] != "0";
    let (from, to) = (rig.cluster.owner(7), (rig.cluster.owner(7) + 1) % 3);
    eventually("it waits", secs(5), || blocked(from));
    rig.cluster.move_slot(7, to);
    eventually("it waits where the slot is now", secs(10), || blocked(to));
    assert_eq!(rig.proxy.cmd(&["RPUSH", &key, "element"]), 1);
    let popped = waiting.read();
    assert_eq!((popped.items()[0].text(), popped.items()[1].text()), (key, "element".to_owned()));
    assert_eq!(waiting.cmd(&["PING"]), "PONG");
}

#[test]
fn a_token_is_of_all_shards_that_its_client_had_to_do_with() {
    let rig = Rig::start(SESSION);
    let (mut writer, mut reader) = (rig.connect(), rig.connect());
    for key in keys(9) {
        assert_eq!(writer.cmd(&["SET", &key, "v"]), "OK");
    }
    let token = writer.cmd(&["REDWEIR", "TOKEN"]).text();
    assert!(token.starts_with("2:") && token.split(',').count() == 3, "{token}");
    assert_eq!(reader.cmd(&["REDWEIR", "AFTER", &token]), "OK");
    for key in keys(9) {
        assert_eq!(reader.cmd(&["GET", &key]), "v");
    }
    assert_eq!(reader.cmd(&["REDWEIR", "AFTER", &token, "5000"]), 1);
    // Of a shard that nobody knows: then all that was acknowledged has to be there.
    let strange = format!("2:0={}:1", "0123456789".repeat(4));
    assert_eq!(reader.cmd(&["REDWEIR", "AFTER", &strange]), "OK");
    assert_eq!(reader.cmd(&["GET", &keys(9)[0]]), "v");
    assert!(reader.cmd(&["REDWEIR", "AFTER", "2:0"]).is_error());
}

#[test]
fn a_wait_covers_the_writes_of_all_shards() {
    let rig = Rig::start(SESSION);
    let mut conn = rig.connect();
    for key in keys(12) {
        assert_eq!(conn.cmd(&["SET", &key, "v"]), "OK");
    }
    assert_eq!(conn.cmd(&["WAIT", "1", "5000"]), 1);
    // One replica stands still: the least of all counts.
    let paused = rig.cluster.replicas_of(1)[0];
    rig.cluster.pause(paused);
    for key in keys(12) {
        assert_eq!(conn.cmd(&["SET", &key, "w"]), "OK");
    }
    assert_eq!(conn.cmd(&["WAIT", "1", "300"]), 0);
    rig.cluster.resume(paused);
    assert_eq!(conn.cmd(&["WAIT", "1", "5000"]), 1);
}

/// What comes of one part goes out with the rest of it only: no part waits for that.
#[test]
fn a_reply_of_many_large_values_is_complete_and_whoever_leaves_leaves_nothing_behind() {
    let rig = Rig::start(SESSION);
    let (value, all) = ("x".repeat(1 << 20), keys(60));
    for key in &all {
        assert_eq!(rig.proxy.cmd(&["SET", key, &value]), "OK");
    }
    let words: Vec<&str> = std::iter::once("MGET").chain(all.iter().map(String::as_str)).collect();
    for _ in 0..3 {
        let mut conn = rig.connect();
        let values = conn.patience(secs(60)).cmd(&words);
        assert!(values.items().iter().all(|one| *one == value.as_str()) && values.items().len() == 60);
        // This one does not wait for it.
        conn.ask(&words);
    }
    eventually("they are gone", secs(20), || rig.proxy.metric("redweir_clients", &[]) < 2.0);
}

#[test]
fn a_command_that_is_wrong_is_told_so_as_one_server_does() {
    let mut twins = Twins::start();
    let wrong: [&[&str]; 7] = [
        &["MSET", "a", "1", "b", "2", "c"],
        &["MSET", "a", "1", "b"],
        &["EVAL", "return 1", "-1", "k"],
        &["EVAL", "return 1", "x"],
        &["EVAL", "return 1", "5", "a"],
        &["EVAL", "return 1"],
        &["EVAL"],
    ];
    for command in wrong {
        assert!(twins.say(command).is_error(), "{command:?}");
    }
    assert_eq!(twins.say(&["EXISTS", "a"]), 0);
}

/// A script is there if every primary has it, and whichever runs one is told to end it.
#[test]
fn scripts_are_looked_for_and_ended_everywhere() {
    let rig = Rig::start(SESSION);
    let mut conn = rig.connect();
    let script = "return redis.call('GET', KEYS[1])";
    let sha = conn.cmd(&["SCRIPT", "LOAD", script]).text();
    assert_eq!(
        conn.cmd(&["SCRIPT", "EXISTS", &sha, "0".repeat(40).as_str()]).items(),
        [Value::Int(1), Value::Int(0)]
    );
    rig.cluster.nodes[1].cmd(&["SCRIPT", "FLUSH"]);
    assert_eq!(conn.cmd(&["SCRIPT", "EXISTS", &sha]).items(), [Value::Int(0)]);
    let idle = conn.cmd(&["SCRIPT", "KILL"]);
    assert!(idle.error().starts_with("NOTBUSY"), "{idle:?}");
    for node in &rig.cluster.nodes {
        assert_eq!(node.cmd(&["CONFIG", "SET", "busy-reply-threshold", "50"]), "OK");
    }
    for key in keys(3) {
        let mut busy = rig.connect();
        busy.patience(secs(20)).ask(&["EVAL", "while true do end", "1", &key]);
        sleep_ms(300);
        assert_eq!(conn.cmd(&["SCRIPT", "KILL"]), "OK");
        assert!(busy.read().is_error());
    }
}
