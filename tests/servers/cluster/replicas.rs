//! Reads go to replicas, of every shard, at every level.

use super::{BOUND, BOUNDED, EVENTUAL, FENCED, Promise, Rig, SESSION, STRONG, keys};
use crate::support::cluster::key_in;
use crate::support::{Cluster, Setup, eventually, secs, sleep_ms};

fn serves_at_replicas(promise: Promise) {
    let rig = Rig::start(promise);
    let all = keys(90);
    let mut conn = rig.connect();
    for key in &all {
        assert_eq!(conn.cmd(&["SET", key, key]), "OK");
    }
    rig.cluster.await_sync();
    rig.await_replicas();
    // Its own writes are old by now: nothing keeps this client at primaries.
    let replicas = rig.cluster.replicas();
    let mut shares = Vec::new();
    eventually("replicas of all shards serve most reads", secs(10), || {
        let before: Vec<u64> = replicas.iter().map(|n| rig.cluster.calls(&[*n], &["get"])).collect();
        for key in &all {
            assert_eq!(conn.cmd(&["GET", key]), key.as_str());
        }
        let after = replicas.iter().map(|n| rig.cluster.calls(&[*n], &["get"]));
        shares = after.zip(&before).map(|(after, before)| after - before).collect();
        shares.iter().all(|share| *share > 0) && shares.iter().sum::<u64>() > all.len() as u64 / 2
    });
    println!("{}: replicas served {shares:?} of {}", promise.name, all.len());
}

#[test]
fn eventual_reads_are_served_by_replicas_of_all_shards() {
    serves_at_replicas(EVENTUAL);
}

#[test]
fn bounded_reads_are_served_by_replicas_of_all_shards() {
    serves_at_replicas(BOUNDED);
}

#[test]
fn session_reads_are_served_by_replicas_of_all_shards() {
    serves_at_replicas(SESSION);
}

#[test]
fn fenced_reads_are_served_by_replicas_of_all_shards() {
    serves_at_replicas(FENCED);
}

#[test]
fn strong_reads_are_served_by_replicas_of_all_shards() {
    serves_at_replicas(STRONG);
}

/// What is about several keys of one slot is asked of a replica as well, where its reply shows each key; where it shows one to
/// be missing, or nothing of that, the primary has the word.
#[test]
fn several_keys_of_a_slot_are_read_at_replicas_if_the_reply_shows_them() {
    let rig = Rig::start(EVENTUAL);
    let mut conn = rig.connect();
    let keys: Vec<String> = (0..3).map(|n| key_in(0, n)).collect();
    let [a, b, c] = [&keys[0], &keys[1], &keys[2]];
    let set = key_in(0, 3);
    assert_eq!(conn.cmd(&["MSET", a, "1", b, "2"]), "OK");
    assert_eq!(conn.cmd(&["SADD", &set, "x"]), 1);
    rig.cluster.await_sync();
    rig.await_replicas();
    let replicas = rig.cluster.replicas_of(0);
    for (command, expected, shown) in [
        (vec!["MGET", a, b], r#"["1", "2"]"#, true),
        (vec!["MGET", a, c, b], r#"["1", null, "2"]"#, false),
        (vec!["EXISTS", a, b, a], ":3", true),
        (vec!["EXISTS", a, b, c], ":2", false),
        (vec!["SINTER", &set, &set], r#"["x"]"#, true),
        (vec!["SINTER", &set, c], "[]", false),
        (vec!["SUNION", &set, c], r#"["x"]"#, false),
    ] {
        let calls = |at: &[usize]| rig.cluster.calls(at, &[&command[0].to_lowercase()]);
        eventually(&format!("{command:?} is answered where it may be"), secs(10), || {
            let before = (calls(&[0]), calls(&replicas));
            assert_eq!(format!("{:?}", conn.cmd(&command)), expected, "{command:?}");
            let (primary, replica) = (calls(&[0]) - before.0, calls(&replicas) - before.1);
            if shown { (primary, replica) == (0, 1) } else { primary == 1 }
        });
    }
}

/// In a fresh cluster every offset is low, and one that stands still is as good as any at a glance.
#[test]
fn a_replica_that_stands_still_is_not_asked_for_what_it_has_not() {
    let rig = Rig::start(FENCED);
    rig.await_replicas();
    let stopped = rig.cluster.replicas_of(0)[0];
    rig.cluster.pause(stopped);
    let mut conn = rig.connect();
    for key in keys(30) {
        assert_eq!(conn.cmd(&["SET", &key, "fresh"]), "OK");
        assert_eq!(conn.cmd(&["GET", &key]), "fresh");
    }
    rig.cluster.resume(stopped);
    rig.cluster.await_ok();
    for key in keys(30) {
        assert_eq!(conn.cmd(&["GET", &key]), "fresh");
    }
}

/// What is known of the slots ages: who does not say any longer what is its own may have lost it.
fn serves_only_while_the_owner_says_so(rig: &Rig) {
    rig.await_replicas();
    let (key, replica) = (key_in(0, 0), rig.cluster.replicas_of(0));
    let mut conn = rig.connect();
    assert_eq!(conn.cmd(&["SET", &key, "v"]), "OK");
    // At both alike: who may do more at a replica than at its primary reads nothing there.
    let rights = |may: char| {
        let (nodes, slots) = (format!("{may}cluster|nodes"), format!("{may}cluster|slots"));
        for n in [0, replica[0]] {
            assert_eq!(rig.cluster.nodes[n].cmd(&["ACL", "SETUSER", "default", &nodes, &slots]), "OK");
        }
    };
    rights('-');
    sleep_ms(2 * BOUND.as_millis() as u64);
    let before = rig.cluster.calls(&replica, &["get"]);
    for _ in 0..20 {
        assert_eq!(conn.cmd(&["GET", &key]), "v");
    }
    assert_eq!(rig.cluster.calls(&replica, &["get"]), before);
    rights('+');
    eventually("its replica serves again", secs(15), || {
        assert_eq!(conn.cmd(&["GET", &key]), "v");
        rig.cluster.calls(&replica, &["get"]) > before
    });
}

#[test]
fn bounded_reads_are_served_by_replicas_only_while_the_owner_says_so() {
    serves_only_while_the_owner_says_so(&Rig::start(BOUNDED));
}

#[test]
fn strong_reads_are_served_by_replicas_only_while_the_owner_says_so() {
    // Nothing else keeps them away from replicas for so long.
    let strong = "consistency = \"strong\"\nmax-lag = \"60s\"\nwait-timeout = \"400ms\"";
    let cluster = Cluster::start();
    let setup = Setup::by_cluster(&cluster.addresses()).policy("default", strong);
    serves_only_while_the_owner_says_so(&Rig { proxy: setup.start_with_any_replicas(), cluster });
}
