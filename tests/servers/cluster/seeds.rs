//! The addresses in the configuration are where the proxy begins to look: it finds the rest, and does without any of them.

use super::{FENCED, Rig, keys, setup};
use crate::support::{Cluster, free_port};

/// Every shard takes writes, and every replica serves.
fn assert_complete(rig: &Rig) {
    for key in keys(30) {
        assert_eq!(rig.proxy.cmd(&["SET", &key, "v"]), "OK");
        assert_eq!(rig.proxy.cmd(&["GET", &key]), "v");
    }
    rig.await_replicas();
}

#[test]
fn the_address_of_one_replica_is_enough() {
    let cluster = Cluster::start();
    let proxy = setup(&cluster.addresses()[4..5], FENCED).start_with_any_replicas();
    assert_complete(&Rig { proxy, cluster });
}

#[test]
fn addresses_where_nobody_answers_do_not_matter() {
    let cluster = Cluster::start();
    let ports = [free_port(), cluster.addresses()[1], free_port()];
    let proxy = setup(&ports, FENCED).start_with_any_replicas();
    assert_complete(&Rig { proxy, cluster });
}

#[test]
fn a_node_that_was_down_at_the_start_is_found_when_it_comes() {
    let mut cluster = Cluster::start();
    cluster.kill(3);
    let proxy = setup(&cluster.addresses(), FENCED).start_with_any_replicas();
    for key in keys(30) {
        assert_eq!(proxy.cmd(&["SET", &key, "v"]), "OK");
        assert_eq!(proxy.cmd(&["GET", &key]), "v");
    }
    cluster.restart(3);
    cluster.await_ok();
    assert_complete(&Rig { proxy, cluster });
}

#[test]
fn the_first_address_may_die_later() {
    let cluster = Cluster::start();
    let proxy = setup(&cluster.addresses()[..1], FENCED).start_with_any_replicas();
    let mut rig = Rig { proxy, cluster };
    assert_complete(&rig);
    rig.cluster.kill(0);
    rig.cluster.await_successor_of(0, 0);
    rig.cluster.await_ok();
    assert_complete(&rig);
}
