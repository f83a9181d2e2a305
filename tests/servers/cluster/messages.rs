//! Publish and subscribe: whoever publishes wherever, who subscribed hears it, once.

use super::{Rig, SESSION, keys};
use crate::support::cluster::slot;
use crate::support::{Conn, Value, ms};

/// The words of the next message.
fn heard(conn: &mut Conn) -> Vec<String> {
    conn.read().items().iter().map(Value::text).collect()
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

/// A connection hears the channels of one shard: those of another are another primary's.
#[test]
fn messages_of_a_shard_are_heard() {
    let rig = Rig::start(SESSION);
    let mut conn = rig.connect();
    let here = rig.cluster.owner(slot("a"));
    let (channels, others): (Vec<_>, Vec<_>) =
        keys(9).into_iter().partition(|channel| rig.cluster.owner(slot(channel)) == here);
    for channel in &channels {
        assert_eq!(conn.cmd(&["SSUBSCRIBE", channel]).items()[0].text(), "ssubscribe");
    }
    assert!(conn.cmd(&["SSUBSCRIBE", &others[0]]).text().starts_with("CROSSSLOT"));
    for channel in &channels {
        rig.proxy.cmd(&["SPUBLISH", channel, "m"]);
        assert_eq!(heard(&mut conn), ["smessage", channel, "m"]);
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
