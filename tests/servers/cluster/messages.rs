//! Publish and subscribe: whoever publishes wherever, who subscribed hears it, once.

use std::thread;

use super::{Rig, SESSION, keys};
use crate::support::cluster::key_in;
use crate::support::resp::is_timeout;
use crate::support::{Cluster, Conn, Proxy, Setup, Value, eventually, ms, secs, sleep_ms};

/// The words of the next message.
fn heard(conn: &mut Conn) -> Vec<String> {
    words(&conn.read())
}

fn words(value: &Value) -> Vec<String> {
    value.items().iter().map(Value::text).collect()
}

#[test]
fn what_is_published_is_heard_once_by_everybody() {
    let rig = Rig::start(SESSION);
    let channels = keys(9);
    let (mut first, mut second) = (rig.connect(), rig.connect());
    for channel in &channels {
        assert_eq!(first.cmd(&["SUBSCRIBE", channel]).items()[0].text(), "subscribe");
    }
    assert_eq!(second.cmd(&["PSUBSCRIBE", "{*"]).items()[0].text(), "psubscribe");
    for (n, channel) in channels.iter().enumerate() {
        let text = format!("message {n}");
        rig.proxy.cmd(&["PUBLISH", channel, &text]);
        assert_eq!(heard(&mut first), ["message", channel, &text]);
        assert_eq!(heard(&mut second), ["pmessage", "{*", channel, &text]);
    }
    // By who knows the cluster, at any node.
    for node in &rig.cluster.nodes {
        node.cmd(&["PUBLISH", &channels[0], "straight"]);
        assert_eq!(heard(&mut first), ["message", &channels[0], "straight"]);
        assert_eq!(heard(&mut second).pop().unwrap(), "straight");
    }
    assert!(first.is_silent_for(ms(200)) && second.is_silent_for(ms(200)), "something was heard twice");
}

/// As one server tells it: with how many there are in all.
#[test]
fn messages_of_all_shards_are_heard() {
    let rig = Rig::start(SESSION);
    let mut conn = rig.connect();
    let channels = keys(9);
    let told = |conn: &mut Conn, what: &str, channel: &str, count: usize| {
        assert_eq!(heard(conn), [what, channel, &count.to_string()]);
    };
    // One by one, and several in one command, which a server that is in no cluster takes.
    for (n, channel) in channels[..4].iter().enumerate() {
        conn.ask(&["SSUBSCRIBE", channel]);
        told(&mut conn, "ssubscribe", channel, n + 1);
    }
    let mut rest: Vec<&str> = channels[4..].iter().map(String::as_str).collect();
    conn.ask(&[&["SSUBSCRIBE"], rest.as_slice()].concat());
    let mut named: Vec<String> = (5..=9)
        .map(|n| {
            let words = heard(&mut conn);
            assert_eq!((words[0].as_str(), words[2].as_str()), ("ssubscribe", n.to_string().as_str()));
            words[1].clone()
        })
        .collect();
    named.sort_unstable();
    rest.sort_unstable();
    assert_eq!(named, rest);
    conn.ask(&["SUBSCRIBE", "news"]);
    told(&mut conn, "subscribe", "news", 1);
    for channel in &channels {
        assert_eq!(rig.proxy.cmd(&["SPUBLISH", channel, "m"]), 1);
        assert_eq!(heard(&mut conn), ["smessage", channel, "m"]);
        rig.proxy.cmd(&["PUBLISH", "news", "n"]);
        assert_eq!(heard(&mut conn), ["message", "news", "n"]);
    }
    let all = rig.proxy.cmd(&["PUBSUB", "SHARDCHANNELS"]);
    assert_eq!(all.items().len(), 9);
    let counted = rig.proxy.cmd(&["PUBSUB", "SHARDNUMSUB", &channels[0], &channels[8], "none"]);
    let counted: Vec<String> = words(&counted);
    assert_eq!(counted, [&channels[0], "1", &channels[8], "1", "none", "0"]);
    assert_eq!(words(&rig.proxy.cmd(&["PUBSUB", "CHANNELS"])), ["news"]);
    assert_eq!(words(&rig.proxy.cmd(&["PUBSUB", "NUMSUB", "news"])), ["news", "1"]);
    conn.ask(&["SUNSUBSCRIBE", &channels[0]]);
    told(&mut conn, "sunsubscribe", &channels[0], 8);
    assert_eq!(rig.proxy.cmd(&["SPUBLISH", &channels[0], "m"]), 0);
    conn.ask(&["PING"]);
    assert_eq!(heard(&mut conn), ["pong", ""]);
    conn.ask(&["SUNSUBSCRIBE"]);
    let last = (0..8).map(|_| heard(&mut conn)).last().unwrap();
    assert_eq!((last[0].as_str(), last[2].as_str()), ("sunsubscribe", "0"));
    conn.ask(&["UNSUBSCRIBE", "news"]);
    told(&mut conn, "unsubscribe", "news", 0);
    assert!(conn.is_silent_for(ms(200)), "something was heard twice");
    // It is a client like any other again.
    for key in keys(6) {
        assert_eq!(conn.cmd(&["SET", &key, "v"]), "OK");
    }
    assert_eq!(conn.cmd(&["DBSIZE"]), 6);
}

#[test]
fn channels_of_a_slot_that_moves_are_heard_all_the_same() {
    let rig = Rig::start(SESSION);
    for resp3 in [false, true] {
        let mut conn = rig.connect();
        if resp3 {
            assert!(!conn.cmd(&["HELLO", "3"]).is_error());
        }
        let channels: Vec<String> = (0..3).map(|slot| key_in(slot, 0)).collect();
        for channel in &channels {
            assert_eq!(words(&conn.cmd(&["SSUBSCRIBE", channel]))[0], "ssubscribe");
        }
        for to in [1, 2, 0] {
            for slot in 0..2 {
                rig.cluster.move_slot_pausing(slot, to, || {});
            }
            for channel in &channels {
                eventually("it is heard again", secs(5), || rig.proxy.cmd(&["SPUBLISH", channel, "m"]) == 1);
                assert_eq!(heard(&mut conn), ["smessage", channel, "m"]);
            }
        }
        assert!(conn.is_silent_for(ms(200)), "it has heard of the move");
        assert_eq!(words(&conn.cmd(&["SUNSUBSCRIBE", &channels[0]])), ["sunsubscribe", &channels[0], "2"]);
        if resp3 {
            // It may say what it likes.
            assert_eq!(conn.cmd(&["SET", &channels[2], "v"]), "OK");
        }
        assert_eq!(conn.cmd(&["RESET"]), "RESET");
        rig.proxy.cmd(&["SPUBLISH", &channels[1], "m"]);
        assert_eq!(conn.cmd(&["PING"]), "PONG");
        assert!(conn.is_silent_for(ms(200)), "it hears of what it has left");
        assert_eq!(conn.cmd(&["SET", &key_in(16000, 0), "v"]), "OK");
    }
}

/// In RESP3 who is subscribed may say anything of the shard at which it has become a subscriber.
#[test]
fn a_subscriber_is_answered_in_order() {
    let rig = Rig::start(SESSION);
    let (here, there) = (key_in(0, 0), key_in(9000, 0));
    assert_eq!(rig.proxy.cmd(&["RPUSH", &here, "a"]), 1);
    let mut conn = rig.connect();
    assert!(!conn.cmd(&["HELLO", "3"]).is_error());
    assert_eq!(words(&conn.cmd(&["SSUBSCRIBE", &here])), ["ssubscribe", &here, "1"]);
    conn.ask(&["GET", &here]).ask(&["SSUBSCRIBE", &there]).ask(&["PING"]).ask(&["SSUBSCRIBE", &there]);
    assert!(conn.read().error().starts_with("WRONGTYPE"));
    assert_eq!(heard(&mut conn), ["ssubscribe", &there, "2"]);
    assert_eq!(conn.read(), "PONG");
    assert_eq!(heard(&mut conn), ["ssubscribe", &there, "2"]);
    for command in [&["CLIENT", "REPLY", "OFF"][..], &["CLIENT", "TRACKING", "ON"]] {
        assert!(conn.cmd(command).error().starts_with("ERR CLIENT REPLY"), "{command:?}");
    }
    for (command, expected) in [(&["MULTI"][..], "OK"), (&["LLEN", &here], "QUEUED")] {
        assert_eq!(conn.cmd(command), expected);
    }
    assert!(conn.cmd(&["SSUBSCRIBE", &there]).error().starts_with("CROSSSLOT"));
    assert!(conn.cmd(&["EXEC"]).is_error() || conn.read().is_error());
    assert_eq!(words(&conn.cmd(&["SUNSUBSCRIBE", "none"])), ["sunsubscribe", "none", "2"]);
    assert_eq!(rig.proxy.cmd(&["SPUBLISH", &there, "m"]), 1);
    assert_eq!(heard(&mut conn), ["smessage", &there, "m"]);
}

#[test]
fn keyspace_events_of_all_primaries_are_heard_once() {
    let rig = Rig::start(SESSION);
    for (_, node) in rig.cluster.running() {
        assert_eq!(node.cmd(&["CONFIG", "SET", "notify-keyspace-events", "KEA"]), "OK");
    }
    let (mut some, mut all) = (rig.connect(), rig.connect());
    assert_eq!(
        words(&some.cmd(&["PSUBSCRIBE", "__keyevent@0__:set"])),
        ["psubscribe", "__keyevent@0__:set", "1"]
    );
    assert_eq!(words(&all.cmd(&["PSUBSCRIBE", "*"]))[0], "psubscribe");
    let hears = |some: &mut Conn, all: &mut Conn, proxy: &Proxy, key: &str| {
        proxy.cmd(&["SET", key, "v"]);
        let event = "__keyevent@0__:set";
        assert_eq!(heard(some), ["pmessage", event, event, key]);
        assert_eq!(heard(all), ["pmessage", "*", &format!("__keyspace@0__:{key}"), "set"]);
        assert_eq!(heard(all), ["pmessage", "*", event, key]);
        proxy.cmd(&["PUBLISH", "news", "n"]);
        assert_eq!(heard(all), ["pmessage", "*", "news", "n"]);
    };
    for key in keys(9) {
        hears(&mut some, &mut all, &rig.proxy, &key);
    }
    assert!(some.is_silent_for(ms(200)) && all.is_silent_for(ms(10)), "something was heard twice");
    // A primary that comes is heard as well.
    let newcomer = rig.cluster.replicas_of(2)[0];
    assert_eq!(rig.cluster.nodes[newcomer].cmd(&["CLUSTER", "RESET", "SOFT"]), "OK");
    rig.cluster.meet(newcomer);
    rig.cluster.nodes[newcomer].cmd(&["CONFIG", "SET", "notify-keyspace-events", "KEA"]);
    rig.cluster.move_slot_pausing(0, newcomer, || {});
    let key = key_in(0, 0);
    eventually("it is heard", secs(10), || {
        rig.proxy.cmd(&["SET", &key, "v"]);
        !some.is_silent_for(ms(100))
    });
    while !some.is_silent_for(ms(100)) {
        assert_eq!(heard(&mut some).pop().unwrap(), key);
    }
    some.ask(&["PUNSUBSCRIBE"]);
    assert_eq!(heard(&mut some), ["punsubscribe", "__keyevent@0__:set", "0"]);
    for key in keys(3) {
        assert_eq!(some.cmd(&["SET", &key, "v"]), "OK");
    }
}

/// What nobody has any longer it is told of, and when a primary dies its connection ends, as with one server.
#[test]
fn a_subscriber_is_never_deaf_without_knowing() {
    let cluster = Cluster::start();
    let setup = Setup::by_cluster(&cluster.addresses())
        .policy("default", "consistency = \"session\"")
        .upstream("write-hold = \"1s\"");
    let mut rig = Rig { proxy: setup.start_with_any_replicas(), cluster };
    let mut conn = rig.connect();
    let channels = [key_in(0, 0), key_in(9000, 0), key_in(16000, 0)];
    for channel in &channels {
        assert_eq!(words(&conn.cmd(&["SSUBSCRIBE", channel]))[0], "ssubscribe");
    }
    assert_eq!(rig.cluster.nodes[1].cmd(&["CLUSTER", "DELSLOTS", "9000"]), "OK");
    assert_eq!(heard(&mut conn), ["sunsubscribe", &channels[1], "2"]);
    assert_eq!(rig.cluster.nodes[1].cmd(&["CLUSTER", "ADDSLOTS", "9000"]), "OK");
    eventually("it is served again", secs(5), || rig.proxy.cmd(&["SPUBLISH", &channels[1], "m"]) == 0);
    assert_eq!(words(&conn.cmd(&["SSUBSCRIBE", &channels[1]])), ["ssubscribe", &channels[1], "3"]);
    rig.proxy.cmd(&["SPUBLISH", &channels[1], "m"]);
    assert_eq!(heard(&mut conn), ["smessage", &channels[1], "m"]);
    rig.cluster.kill(2);
    assert_eq!(conn.read_to_close(), b"");
}

/// A user who may hear `a` everywhere, and `b` at some primaries.
fn with_user(rig: &Rig, name: &str, at: &[usize], channels: &str) {
    for n in at {
        let user = ["ACL", "SETUSER", name, "on", ">pw", "~*", "resetchannels", "+@all"];
        let rules: Vec<&str> = user.into_iter().chain(channels.split(' ')).collect();
        assert_eq!(rig.cluster.nodes[*n].cmd(&rules), "OK");
    }
}

fn as_user(rig: &Rig, name: &str) -> Conn {
    let mut conn = rig.connect();
    assert_eq!(conn.cmd(&["AUTH", name, "pw"]), "OK");
    conn
}

/// It may say what it likes, at whatever shard.
fn assert_free(conn: &mut Conn) {
    for slot in [1, 9001, 16001] {
        assert_eq!(conn.cmd(&["SET", &key_in(slot, 0), "v"]), "OK");
    }
}

#[test]
fn what_is_refused_is_refused_once_and_binds_nobody() {
    let rig = Rig::start(SESSION);
    let (a, b, c) = (key_in(0, 0), key_in(9000, 0), key_in(16000, 0));
    with_user(&rig, "some", &[0, 1, 2, 3, 4, 5], &format!("&{a}"));
    for resp3 in [false, true] {
        let mut conn = as_user(&rig, "some");
        if resp3 {
            assert!(!conn.cmd(&["HELLO", "3"]).is_error());
        }
        for refused in [
            &["SSUBSCRIBE", &b, &c][..],
            &["PSUBSCRIBE", "__keyevent@0__:*"],
            &["SUBSCRIBE", "news"],
            &["SUBSCRIBE"],
            &["SSUBSCRIBE"],
            &["PSUBSCRIBE"],
        ] {
            conn.ask(refused).ask(&["ECHO", "next"]);
            assert!(conn.read().is_error(), "{refused:?}");
            assert_eq!(conn.read(), "next", "{refused:?}");
            assert_free(&mut conn);
        }
        // What came before it stands.
        conn.ask(&["SSUBSCRIBE", &a, &b, &c]);
        assert_eq!(heard(&mut conn), ["ssubscribe", &a, "1"]);
        assert!(conn.read().error().starts_with("NOPERM"));
        assert_eq!(words(&conn.cmd(&["SUNSUBSCRIBE"])), ["sunsubscribe", &a, "0"]);
        assert_free(&mut conn);
        assert!(conn.is_silent_for(ms(100)));
    }
    // One primary knows it by another password.
    with_user(&rig, "stranger", &[0, 1, 2, 3, 4, 5], "allchannels");
    let mut conn = as_user(&rig, "stranger");
    assert_eq!(words(&conn.cmd(&["SSUBSCRIBE", &a])), ["ssubscribe", &a, "1"]);
    let password = ["ACL", "SETUSER", "stranger", "resetpass", ">other"];
    assert_eq!(rig.cluster.nodes[1].cmd(&password), "OK");
    let refused = conn.try_cmd(&["SSUBSCRIBE", &b]);
    assert!(refused.as_ref().is_ok_and(Value::is_error) || refused.is_err_and(|error| !is_timeout(&error)));
    assert_eq!(conn.read_to_close(), b"", "whoever is not let in any longer has to come again");
}

#[test]
fn a_channel_that_moves_to_where_it_may_not_be_heard_is_told_to_be_lost() {
    let rig = Rig::start(SESSION);
    let (a, b) = (key_in(0, 0), key_in(9000, 0));
    with_user(&rig, "some", &[0, 3, 4, 5], &format!("&{a}"));
    with_user(&rig, "some", &[1, 2], &format!("&{a} &{b}"));
    let mut conn = as_user(&rig, "some");
    conn.ask(&["SSUBSCRIBE", &a, &b]);
    assert_eq!(heard(&mut conn), ["ssubscribe", &a, "1"]);
    assert_eq!(heard(&mut conn), ["ssubscribe", &b, "2"]);
    rig.cluster.move_slot_pausing(9000, 0, || {});
    assert_eq!(heard(&mut conn), ["sunsubscribe", &b, "1"]);
    assert!(conn.is_silent_for(ms(100)));
    // Here it may be heard: the client hears of no move.
    rig.cluster.move_slot_pausing(0, 2, || {});
    eventually("it is heard again", secs(5), || rig.proxy.cmd(&["SPUBLISH", &a, "m"]) == 1);
    assert_eq!(heard(&mut conn), ["smessage", &a, "m"]);
}

#[test]
fn confirmations_come_in_order() {
    let rig = Rig::start(SESSION);
    let (a, b, c) = (key_in(0, 0), key_in(9000, 0), key_in(16000, 0));
    let again = key_in(0, 1);
    let mut conn = rig.connect();
    conn.ask(&["SSUBSCRIBE", &a, &b, &again, &c, &b]);
    for (channel, count) in [(&a, "1"), (&b, "2"), (&again, "3"), (&c, "4"), (&b, "4")] {
        assert_eq!(heard(&mut conn), ["ssubscribe", channel, count]);
    }
    conn.ask(&["SUNSUBSCRIBE", &c, "none", &a, &c]);
    for (channel, count) in [(c.as_str(), "3"), ("none", "3"), (&a, "2"), (&c, "2")] {
        assert_eq!(heard(&mut conn), ["sunsubscribe", channel, count]);
    }
    // Where it has become a subscriber it hears nothing any longer, but it is one.
    conn.ask(&["SUNSUBSCRIBE", &again]);
    assert_eq!(heard(&mut conn), ["sunsubscribe", &again, "1"]);
    assert_eq!(words(&conn.cmd(&["PING", "text"])), ["pong", "text"]);
    assert!(conn.cmd(&["GET", &a]).error().starts_with("ERR Can't execute 'get': only (P|S)SUBSCRIBE"));
    assert!(conn.cmd(&["AUTH", "default", "x"]).is_error());
    conn.ask(&["SUNSUBSCRIBE"]);
    assert_eq!(heard(&mut conn), ["sunsubscribe", &b, "0"]);
    conn.ask(&["SUNSUBSCRIBE"]);
    assert_eq!(conn.read().items()[1], Value::Null);
    assert_free(&mut conn);
}

/// The server holds state of it at one shard: there it becomes a subscriber, whatever it subscribes to.
#[test]
fn what_is_watched_stays_watched() {
    let rig = Rig::start(SESSION);
    let (watched, channel) = (key_in(9000, 0), key_in(0, 0));
    let mut conn = rig.connect();
    assert_eq!(conn.cmd(&["WATCH", &watched]), "OK");
    assert_eq!(words(&conn.cmd(&["SSUBSCRIBE", &channel])), ["ssubscribe", &channel, "1"]);
    assert_eq!(words(&conn.cmd(&["SUNSUBSCRIBE", &channel])), ["sunsubscribe", &channel, "0"]);
    assert_eq!(rig.proxy.cmd(&["SET", &watched, "other"]), "OK");
    for (command, expected) in [(&["MULTI"][..], "OK"), (&["SET", &watched, "mine"], "QUEUED")] {
        assert_eq!(conn.cmd(command), expected);
    }
    assert_eq!(conn.cmd(&["EXEC"]), Value::Null);
    assert_eq!(rig.proxy.cmd(&["GET", &watched]), "other");
}

#[test]
fn a_transaction_of_a_subscriber_is_left_alone() {
    let rig = Rig::start(SESSION);
    let (a, b, key) = (key_in(0, 0), key_in(9000, 0), key_in(0, 1));
    let mut conn = rig.connect();
    assert!(!conn.cmd(&["HELLO", "3"]).is_error());
    for channel in [&a, &b] {
        assert_eq!(words(&conn.cmd(&["SSUBSCRIBE", channel]))[0], "ssubscribe");
    }
    for refused in [&["HELLO", "2"][..], &["AUTH", "default", "x"]] {
        assert!(conn.cmd(refused).error().starts_with("ERR AUTH and HELLO"), "{refused:?}");
    }
    assert_eq!(conn.cmd(&["MULTI"]), "OK");
    assert_eq!(conn.cmd(&["SET", &key, "v"]), "QUEUED");
    rig.cluster.move_slot_pausing(9000, 2, || {});
    sleep_ms(200);
    let done = conn.cmd(&["EXEC"]);
    assert_eq!(done.items(), [Value::Status("OK".to_owned())]);
    assert_eq!(conn.cmd(&["PING"]), "PONG");
    eventually("it is heard again", secs(5), || rig.proxy.cmd(&["SPUBLISH", &b, "m"]) == 1);
    assert_eq!(heard(&mut conn), ["smessage", &b, "m"]);
    // Of every primary is nothing that a transaction could subscribe to.
    let mut conn = rig.connect();
    assert_eq!(conn.cmd(&["MULTI"]), "OK");
    assert!(conn.cmd(&["PSUBSCRIBE", "__key*"]).error().starts_with("CROSSSLOT"));
    assert!(conn.cmd(&["EXEC"]).error().starts_with("EXECABORT"));
}

/// They are heard as soon as it is there, and nobody waits for that.
#[test]
fn keyspace_events_of_a_primary_that_was_down_are_heard() {
    let mut rig = Rig::start(SESSION);
    let last = rig.cluster.replicas_of(2)[0];
    rig.cluster.kill(last);
    rig.cluster.kill(2);
    sleep_ms(3000);
    let mut conn = rig.connect();
    assert!(!conn.cmd(&["HELLO", "3"]).is_error());
    conn.ask(&["PSUBSCRIBE", "__keyevent@0__:set"]).ask(&["ECHO", "next"]);
    assert_eq!(heard(&mut conn), ["psubscribe", "__keyevent@0__:set", "1"]);
    assert_eq!(conn.read(), "next");
    rig.cluster.restart(2);
    rig.cluster.restart(last);
    rig.cluster.await_ok();
    for n in [0, 1, 2] {
        assert_eq!(rig.cluster.nodes[n].cmd(&["CONFIG", "SET", "notify-keyspace-events", "KEA"]), "OK");
    }
    let key = key_in(16000, 0);
    eventually("it is heard", secs(15), || {
        rig.proxy.cmd(&["SET", &key, "v"]);
        !conn.is_silent_for(ms(100))
    });
    assert_eq!(heard(&mut conn).pop().unwrap(), key);
}

/// A long message comes in pieces: nothing of another shard is said in its middle.
#[test]
fn messages_of_several_shards_do_not_mix() {
    let rig = Rig::start(SESSION);
    let mut conn = rig.connect();
    let channels = keys(6);
    for channel in &channels {
        assert_eq!(words(&conn.cmd(&["SSUBSCRIBE", channel]))[0], "ssubscribe");
    }
    let (long, many) = ("x".repeat(300_000), 20);
    let publish = |channel: &String| {
        let (mut conn, channel, long) = (rig.connect(), channel.clone(), long.clone());
        thread::spawn(move || (0..many).for_each(|_| assert_eq!(conn.cmd(&["SPUBLISH", &channel, &long]), 1)))
    };
    let threads: Vec<_> = channels.iter().map(publish).collect();
    for _ in 0..channels.len() * many {
        let words = heard(&mut conn);
        assert!(words[0] == "smessage" && channels.contains(&words[1]) && words[2] == long);
    }
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn who_is_subscribed_no_longer_is_bound_to_no_shard() {
    let rig = Rig::start(SESSION);
    for (subscribe, unsubscribe) in [("SUBSCRIBE", "UNSUBSCRIBE"), ("SSUBSCRIBE", "SUNSUBSCRIBE")] {
        for channel in keys(3) {
            let mut conn = rig.connect();
            assert_eq!(conn.cmd(&[subscribe, &channel]).items()[2], 1);
            assert_eq!(conn.cmd(&[unsubscribe, &channel]).items()[2], 0);
            for key in keys(6) {
                assert_eq!(conn.cmd(&["SET", &key, "v"]), "OK", "{subscribe}");
                assert_eq!(conn.cmd(&["GET", &key]), "v", "{subscribe}");
            }
            assert_eq!(conn.cmd(&["DBSIZE"]), 6, "{subscribe}");
        }
    }
}

/// In RESP3 who is subscribed may say anything: what is about other shards is an error, not half an answer.
#[test]
fn who_is_subscribed_gets_no_answer_of_one_shard_for_all() {
    let rig = Rig::start(SESSION);
    for key in keys(9) {
        assert_eq!(rig.proxy.cmd(&["SET", &key, "v"]), "OK");
    }
    let mut conn = rig.connect();
    assert!(!conn.cmd(&["HELLO", "3"]).is_error());
    assert!(!conn.cmd(&["SUBSCRIBE", "a"]).is_error());
    let all: [&[&str]; 4] = [&["DBSIZE"], &["KEYS", "*"], &["SCAN", "0"], &["FLUSHALL"]];
    for command in all {
        let reply = conn.cmd(command);
        assert!(reply.is_error() && reply.error().starts_with("CROSSSLOT"), "{command:?}: {reply:?}");
    }
    assert_eq!(rig.proxy.cmd(&["DBSIZE"]), 9);
}
