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
