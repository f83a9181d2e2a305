//! The addresses in the configuration are where the proxy begins to look: it finds the rest, and does without any of them.

use super::{EVENTUAL, FENCED, Rig, keys, setup};
use std::net::Ipv4Addr;

use crate::support::cluster::SLOTS;
use crate::support::relay::Relay;
use crate::support::{Cluster, eventually, free_port, secs};

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

/// Where `CLUSTER NODES` is refused, `SLOTS` tells where keys are, but not what moves: reads go to primaries until it is allowed.
#[test]
fn where_nodes_is_refused_commands_find_their_shards_all_the_same() {
    let mut cluster = Cluster::start();
    let rights = |cluster: &Cluster, rule: &str| {
        for (_, node) in cluster.running() {
            let set = ["ACL", "SETUSER", "redweir", "on", ">pw", "~*", "&*", "+@all", rule];
            assert_eq!(node.cmd(&set), "OK");
        }
    };
    rights(&cluster, "-cluster|nodes");
    let setup = setup(&cluster.addresses(), EVENTUAL).upstream("username = \"redweir\"\npassword = \"pw\"");
    let proxy = setup.start_with_any_replicas();
    for key in keys(30) {
        assert_eq!(proxy.cmd(&["SET", &key, "v"]), "OK");
        assert_eq!(proxy.cmd(&["GET", &key]), "v");
    }
    eventually("it is said what is weaker", secs(5), || {
        proxy.metrics().contains("command=\"cluster|nodes\"")
            && proxy.get("/readyz").1.contains("refuses cluster|nodes: CLUSTER SLOTS is asked")
    });
    let replicas = cluster.replicas();
    let by_replicas = |cluster: &Cluster| cluster.calls(&replicas, &["get"]);
    assert_eq!(by_replicas(&cluster), 0);
    // Another primary is found, and slots that move.
    cluster.fail_over_to(cluster.replicas_of(1)[0]);
    cluster.kill(2);
    let _ = cluster.await_successor_of(2, SLOTS - 1);
    for key in keys(30) {
        eventually("it takes writes", secs(5), || proxy.cmd(&["SET", &key, "w"]) == "OK");
        assert_eq!(proxy.cmd(&["GET", &key]), "w");
    }
    cluster.restart(2);
    rights(&cluster, "+cluster|nodes");
    cluster.await_ok();
    let rig = Rig { proxy, cluster };
    assert_complete(&rig);
    eventually("replicas serve", secs(15), || {
        assert_eq!(rig.proxy.cmd(&["GET", &keys(30)[0]]), "v");
        by_replicas(&rig.cluster) > 0
    });
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

/// As where addresses change with every start, and one name leads to them.
#[test]
fn when_all_nodes_are_gone_the_addresses_are_asked_again() {
    let (port, mut first) = (free_port(), Cluster::start());
    let relay = Relay::listening(Ipv4Addr::LOCALHOST, port, &first.addresses()[..1]);
    let proxy = setup(&[port], FENCED).start_with_any_replicas();
    for key in keys(6) {
        assert_eq!(proxy.cmd(&["SET", &key, "v"]), "OK");
    }
    drop(relay);
    for n in 0..first.nodes.len() {
        first.kill(n);
    }
    let second = Cluster::start();
    let _relay = Relay::listening(Ipv4Addr::LOCALHOST, port, &second.addresses()[..1]);
    eventually("the others are found", secs(60), || {
        let mut conn = proxy.connect();
        conn.patience(secs(2)).try_cmd(&["SET", &keys(1)[0], "v"]).is_ok_and(|reply| reply == "OK")
    });
    assert_complete(&Rig { proxy, cluster: second });
}
