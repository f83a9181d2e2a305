//! What clients see of the cluster: nothing, or one node that has all slots.

use std::process::Command;

use super::{SESSION, keys, setup};
use crate::support::{Cluster, Setup};

#[test]
fn as_a_cluster_of_one_node_it_serves_clients_of_clusters() {
    let cluster = Cluster::start();
    // In the table that is written last.
    let shown = Setup::by_cluster(&cluster.addresses()).toml("present-as = \"cluster\"");
    let proxy = shown.start_with_any_replicas();
    let mut conn = proxy.connect();
    let slots = conn.cmd(&["CLUSTER", "SLOTS"]);
    let range = slots.items()[0].items();
    assert_eq!((range[0].int(), range[1].int(), slots.items().len()), (0, 16_383, 1));
    assert_eq!(range[2].items()[1], i64::from(proxy.port));
    assert!(conn.cmd(&["CLUSTER", "NODES"]).text().contains(&format!("127.0.0.1:{}@", proxy.port)));
    assert!(conn.cmd(&["INFO", "cluster"]).text().contains("cluster_enabled:1"));
    assert_eq!(conn.cmd(&["HELLO", "3"]).field("mode").text(), "cluster");
    assert_eq!(conn.cmd(&["CLUSTER", "SHARDS"]).items()[0].field("slots").items()[1], 16_383);
    for word in ["READONLY", "READWRITE", "ASKING"] {
        assert_eq!(conn.cmd(&[word]), "OK");
    }
    for key in keys(9) {
        let port = proxy.port.to_string();
        let said = Command::new("redis-cli").args(["-c", "-p", &port, "SET", &key, "v"]).output().unwrap();
        assert_eq!(said.stdout, b"OK\n");
        assert_eq!(conn.cmd(&["GET", &key]), "v");
    }
    let plain = setup(&cluster.addresses(), SESSION).start_with_any_replicas();
    assert!(plain.cmd(&["CLUSTER", "SLOTS"]).error().contains("cluster support disabled"));
    assert!(plain.cmd(&["INFO", "cluster"]).text().contains("cluster_enabled:0"));
    assert_eq!(plain.connect().cmd(&["HELLO", "3"]).field("mode").text(), "standalone");
}
