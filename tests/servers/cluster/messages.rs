//! Publish and subscribe: whoever publishes wherever, who subscribed hears it, once.

use super::{Rig, SESSION, keys};
use crate::support::cluster::{Shape, slot};
use crate::support::{Conn, Value, eventually, ms, secs};

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

#[test]
fn messages_of_shards_are_heard_in_every_slot_and_after_it_moved() {
    let rig = Rig::start(SESSION);
    let mut conn = rig.connect();
    let channels = keys(6);
    for channel in &channels {
        assert_eq!(conn.cmd(&["SSUBSCRIBE", channel]).items()[0].text(), "ssubscribe");
    }
    for channel in &channels {
        rig.proxy.cmd(&["SPUBLISH", channel, "before"]);
        assert_eq!(heard(&mut conn), ["smessage", channel, "before"]);
    }
    let moved = slot(&channels[0]);
    let to = (rig.cluster.owner(moved) + 1) % 3;
    rig.cluster.move_slot(moved, to);
    rig.cluster.await_ok();
    eventually("it is subscribed where the slot is now", secs(10), || {
        rig.cluster.nodes[to].cmd(&["PUBSUB", "SHARDNUMSUB", &channels[0]]).items()[1] == 1
    });
    rig.proxy.cmd(&["SPUBLISH", &channels[0], "after"]);
    // The client may be told that it was subscribed again.
    let last = (0..3).map(|_| heard(&mut conn)).find(|words| words[0] == "smessage");
    assert_eq!(last.unwrap(), ["smessage", &channels[0], "after"]);
}

#[test]
fn events_of_keys_are_heard_from_all_primaries() {
    let shape = Shape { options: vec!["--notify-keyspace-events", "KA"], ..Shape::default() };
    let rig = Rig::with(&shape, SESSION);
    let mut conn = rig.connect();
    conn.cmd(&["PSUBSCRIBE", "__keyspace@0__:*"]);
    for key in keys(9) {
        assert_eq!(rig.proxy.cmd(&["SET", &key, "v"]), "OK");
        let words = heard(&mut conn);
        assert_eq!(words[2..], [format!("__keyspace@0__:{key}"), "set".to_owned()]);
    }
    assert!(conn.is_silent_for(ms(200)), "something was heard twice");
}
