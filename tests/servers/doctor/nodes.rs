//! Nodes: dead, blocked, closed to us, not what they are taken for, restarted, behind one address.

use std::thread;

use super::{
    Fault, SOUND_REPLICA, address, await_cleared, await_look, codes, doctor_json, eventually, found, run,
    secs, sleep_ms, sound,
};
use crate::support::{Redis, Relay, Sentinel, Setup, Topology};

#[test]
fn a_replica_that_is_dead() {
    let mut topology = sound(2);
    let proxy = Setup::of(&topology).start();
    await_look(&proxy);
    topology.replicas[1].server.kill();
    let fault = Fault::begins("a replica is killed");
    let (node, primary) = (address(topology.replicas[1].port), address(topology.primary.port));
    fault.is_found(&proxy, "error", "unreachable", &node, &["Connection refused"]);
    fault.is_found(&proxy, "warning", "replicas-missing", &primary, &["connected_slaves:", "not linked"]);
    assert!(found(&proxy, "link-broken", &node).is_none());
    topology.replicas[1].server.restart();
    await_cleared(&proxy, "unreachable");
    await_cleared(&proxy, "replicas-missing");
}

#[test]
fn a_primary_that_is_dead() {
    let mut topology = sound(1);
    let setup = Setup::of(&topology);
    let proxy = setup.clone().start();
    await_look(&proxy);
    topology.primary.kill();
    let fault = Fault::begins("the primary is killed");
    fault.is_found(&proxy, "error", "unreachable", &address(topology.primary.port), &["Connection refused"]);
    // For longer than a link may be down before anybody is told of it.
    sleep_ms(5000);
    assert!(
        found(&proxy, "link-broken", &address(topology.replicas[0].port)).is_none(),
        "of it they say nothing"
    );
    assert_eq!(doctor_json(&setup).0, 2);
}

/// It says so to a connection that it does not take, and closes it.
#[test]
fn a_primary_that_has_too_many_clients() {
    let primary = Redis::start(&[]);
    let _first = primary.connect();
    let mut admin = primary.connect();
    assert_eq!(admin.cmd(&["CONFIG", "SET", "maxclients", "1"]), "OK");
    let setup = Setup::to(primary.port, &[]);
    let proxy = setup.clone().spawn();
    let fault = Fault::begins("the primary has as many clients as it may have");
    let node = address(primary.port);
    let finding =
        fault.is_found(&proxy, "error", "unreachable", &node, &["ERR max number of clients reached"]);
    assert!(finding["remedy"].as_str().unwrap().contains("CLIENT LIST"), "{finding}");
    let says = "the primary has as many clients as it may have (maxclients): see CLIENT LIST there";
    let refused = proxy.connect().patience(secs(5)).cmd(&["GET", "k"]);
    assert!(refused.error().contains(says), "{refused:?}");
    assert_eq!(admin.cmd(&["CONFIG", "SET", "maxclients", "100"]), "OK");
    await_cleared(&proxy, "unreachable");
    assert_eq!(proxy.cmd(&["SET", "k", "v"]), "OK");
}

#[test]
fn a_primary_that_is_blocked() {
    let topology = sound(1);
    let setup = Setup::of(&topology);
    let proxy = setup.clone().start();
    await_look(&proxy);
    let node = address(topology.primary.port);
    thread::scope(|scope| {
        let sleeper =
            scope.spawn(|| topology.primary.connect().patience(secs(20)).cmd(&["DEBUG", "SLEEP", "8"]));
        let fault = Fault::begins("the primary's event loop is blocked (`DEBUG SLEEP`)");
        fault.is_found(
            &proxy,
            "error",
            "primary-blocked",
            &node,
            &["takes connections, and answers nothing"],
        );
        assert_eq!(sleeper.join().unwrap(), "OK");
    });
    // It remembers what that was.
    let fault = Fault::begins("… and what it remembers of that");
    let finding = fault.is_found(&proxy, "warning", "primary-blocked", &node, &["SLOWLOG: debug took"]);
    assert!(finding["remedy"].as_str().unwrap().contains("SLOWLOG GET"), "{finding}");
    topology.primary.cmd(&["SLOWLOG", "RESET"]);
    await_cleared(&proxy, "primary-blocked");
}

#[test]
fn a_primary_that_runs_a_script() {
    let topology = sound(1);
    topology.primary.cmd(&["CONFIG", "SET", "lua-time-limit", "100"]);
    let proxy = Setup::of(&topology).start();
    await_look(&proxy);
    let node = address(topology.primary.port);
    thread::scope(|scope| {
        scope
            .spawn(|| topology.primary.connect().patience(secs(60)).cmd(&["EVAL", "while true do end", "0"]));
        let fault = Fault::begins("a script runs for ever (`-BUSY`)");
        let finding = fault.is_found(&proxy, "error", "primary-blocked", &node, &["BUSY"]);
        assert!(finding["remedy"].as_str().unwrap().contains("SCRIPT KILL"), "{finding}");
        assert_eq!(topology.primary.connect().cmd(&["SCRIPT", "KILL"]), "OK");
    });
    topology.primary.cmd(&["SLOWLOG", "RESET"]);
    await_cleared(&proxy, "primary-blocked");
}

#[test]
fn a_primary_that_loads_its_data() {
    let mut primary = Redis::start(&[]);
    primary.cmd(&["DEBUG", "POPULATE", "10000", "key", "10"]);
    primary.keep_dump();
    let proxy = Setup::to(primary.port, &[]).start();
    await_look(&proxy);
    primary.add_options(&["--key-load-delay", "600", "--loading-process-events-interval-bytes", "1024"]);
    primary.restart_unready();
    let fault = Fault::begins("the primary loads its data");
    fault.is_found(&proxy, "warning", "loading", &address(primary.port), &["loading:1"]);
    await_cleared(&proxy, "loading");
}

#[test]
fn a_node_that_wants_a_password() {
    let topology = Topology::with(&["--requirepass", "p"], 0, &[]);
    let node = address(topology.primary.port);
    for (lines, words, reply) in [
        ("", "Redweir has no password for a node", "NOAUTH"),
        ("password = \"wrong\"", "Redweir has a wrong password for a node", "WRONGPASS"),
    ] {
        let setup = Setup::to(topology.primary.port, &[]).upstream(lines);
        let proxy = setup.spawn();
        let fault = Fault::begins(words);
        let finding = fault.is_found(&proxy, "error", "noauth", &node, &[reply]);
        assert!(finding["remedy"].as_str().unwrap().contains("password-file"), "{finding}");
        assert_eq!(doctor_json(&setup).0, 2);
        let (code, text) = run(&["check", "-c", "--connect"], &setup);
        assert!(code == 1 && text.contains(reply), "{text}");
    }
    let setup = Setup::to(topology.primary.port, &[]).upstream("password = \"p\"");
    let (code, report) = doctor_json(&setup);
    assert_eq!((code, codes(&report)), (0, Vec::new()), "{report}");
    assert!(run(&["check", "-c", "--connect"], &setup).1.contains("the password is right,"));
}

#[test]
fn a_primary_that_is_a_replica() {
    let topology = sound(1);
    let (old, new) = (topology.replicas[0].port, topology.primary.port);
    let proxy = Setup::to(old, &[]).spawn();
    let fault = Fault::begins("what is configured as the primary is a replica");
    fault.is_found(&proxy, "error", "not-a-primary", &address(old), &["role:slave", "master_port:"]);
    // The primary is there, among the replicas.
    let (code, report) = doctor_json(&Setup::to(old, &[new]));
    assert_eq!((code, codes(&report)), (1, vec!["not-a-primary"]), "{report}");
    assert!(report["findings"][0]["remedy"].as_str().unwrap().contains(&address(new)), "{report}");
}

#[test]
fn two_primaries() {
    let topology = sound(1);
    let other = Redis::start(&[]);
    let setup = Setup::to(topology.primary.port, &[topology.replicas[0].port, other.port]);
    let proxy = setup.clone().start_with_any_replicas();
    let fault = Fault::begins("two nodes say that they are the primary");
    let node = address(other.port);
    let finding =
        fault.is_found(&proxy, "error", "two-primaries", &node, &["role:master at", "master_replid:"]);
    assert!(finding["remedy"].as_str().unwrap().contains("REPLICAOF 127.0.0.1"), "{finding}");
    fault.is_found(&proxy, "warning", "second-primary", &node, &["Redweir follows"]);
    let (code, report) = doctor_json(&setup);
    assert_eq!(code, 2, "{report}");
    assert!(codes(&report).contains(&"two-primaries"), "{report}");
    other.cmd(&["REPLICAOF", "127.0.0.1", &topology.primary.port.to_string()]);
    await_cleared(&proxy, "two-primaries");
    await_cleared(&proxy, "second-primary");
}

#[test]
fn a_replica_of_a_primary_that_is_not_listed() {
    let topology = sound(0);
    let stranger = Redis::start(&[]);
    let replica = Redis::replica_of(stranger.port, &SOUND_REPLICA);
    eventually("it is in sync", secs(10), || replica.applied().is_some());
    let setup = Setup::to(topology.primary.port, &[replica.port]);
    let proxy = setup.clone().start_with_any_replicas();
    let fault = Fault::begins("a replica follows a primary that is not configured");
    let (node, unlisted) = (address(replica.port), address(stranger.port));
    fault.is_found(&proxy, "error", "foreign-replica", &node, &["master_link_status:up", "master_replid:"]);
    let finding = fault.is_found(&proxy, "error", "two-primaries", &node, &["it follows another primary"]);
    assert!(finding["evidence"].as_str().unwrap().contains(&unlisted), "{finding}");
    let (code, text) = run(&["check", "-c", "--connect"], &setup);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains(&format!("unlisted  {unlisted}: primary")), "{text}");
    replica.cmd(&["REPLICAOF", "127.0.0.1", &topology.primary.port.to_string()]);
    await_cleared(&proxy, "foreign-replica");
    await_cleared(&proxy, "two-primaries");
}

#[test]
fn a_linked_replica_under_an_id_of_its_own() {
    let topology = sound(1);
    let proxy = Setup::of(&topology).start();
    await_look(&proxy);
    assert_eq!(topology.replicas[0].cmd(&["DEBUG", "CHANGE-REPL-ID"]), "OK");
    let fault = Fault::begins("a linked replica has a replication ID of its own (`DEBUG CHANGE-REPL-ID`)");
    let node = address(topology.replicas[0].port);
    fault.is_found(&proxy, "error", "changed-id", &node, &["master_link_status:up", "master_replid:"]);
    assert!(
        found(&proxy, "foreign-replica", &node).is_none() && found(&proxy, "two-primaries", &node).is_none()
    );
}

#[test]
fn a_primary_that_comes_back_empty() {
    let mut topology = Topology::with(&[], 1, &SOUND_REPLICA);
    topology.primary.cmd(&["SET", "k", "v"]);
    topology.await_sync();
    let proxy = Setup::of(&topology).start();
    await_look(&proxy);
    topology.primary.restart_empty();
    let fault = Fault::begins("the primary is restarted without persistence");
    let node = address(topology.primary.port);
    fault.is_found(&proxy, "error", "restarted-empty", &node, &["keys before, none now", "run_id was"]);
    fault.is_found(&proxy, "warning", "run-id-changed", &node, &["run_id was", "master_replid was"]);
}

#[test]
fn a_primary_that_comes_back_without_its_history() {
    // It has never had a replica, so that its dump has no replication ID.
    let mut primary = Redis::start(&[]);
    primary.cmd(&["SET", "k", "v"]);
    let proxy = Setup::to(primary.port, &[]).toml("[stream]\nsource = \"off\"").start();
    await_look(&proxy);
    primary.keep_dump();
    primary.restart_from_kept();
    let fault = Fault::begins("the primary is restarted, and has its data but not its history");
    let node = address(primary.port);
    fault.is_found(&proxy, "warning", "run-id-changed", &node, &["run_id was", "master_replid was"]);
    assert!(found(&proxy, "restarted-empty", &node).is_none());
}

#[test]
fn a_sentinel_that_names_somebody_else() {
    let topology = sound(1);
    let good = Sentinel::start(1, topology.primary.port, 1);
    // It was told the wrong address, and knows nobody who would tell it better.
    let stale = Sentinel::start_one(&format!("127.0.0.1 {} 2", topology.replicas[0].port), "");
    let proxy = Setup::by_sentinels(&[good[0].port, stale.port]).start_with_any_replicas();
    let fault = Fault::begins("a sentinel names a node that is not the primary");
    fault.is_found(
        &proxy,
        "warning",
        "stale-sentinel",
        &address(stale.port),
        &["it names 127.0.0.1:", "config-epoch"],
    );
    assert!(found(&proxy, "stale-sentinel", &address(good[0].port)).is_none());
    let (code, report) = doctor_json(&Setup::by_sentinels(&[good[0].port]));
    assert_eq!((code, codes(&report)), (0, Vec::new()), "nodes are found by sentinels: {report}");
    assert_eq!(report["nodes"].as_array().unwrap().len(), 2, "{report}");
}

#[test]
fn several_replicas_behind_one_address() {
    let topology = sound(3);
    let endpoint = Relay::among(&topology.replica_ports());
    let proxy = Setup::to(topology.primary.port, &[endpoint.port]).start_with_any_replicas();
    let fault = Fault::begins("one address leads to several replicas");
    fault.is_found(&proxy, "warning", "reader-endpoint", &address(endpoint.port), &["led to run_id"]);
}

#[test]
fn nodes_that_tell_of_each_other_are_all_looked_at() {
    let topology = sound(2);
    let setup = Setup::finding(&address(topology.primary.port), "\"auto\"");
    let (code, report) = doctor_json(&setup);
    assert_eq!((code, codes(&report)), (0, Vec::new()), "{report}");
    assert_eq!(report["nodes"].as_array().unwrap().len(), 3, "{report}");
}
