//! Settings that will hurt one day, and what somebody keeps being denied.

use super::{Fault, SOUND_PRIMARY, SOUND_REPLICA, address, await_cleared, codes, doctor_json, sound};
use crate::support::{Conn, Redis, Server, Setup, Topology, Value, eventually, secs};

#[test]
fn what_servers_are_set_to_out_of_the_box() {
    let topology = Topology::start(1);
    let setup = Setup::of(&topology);
    let proxy = setup.clone().start();
    let fault = Fault::begins("the primary takes writes that no replica has (`min-replicas-to-write 0`)");
    let (primary, replica) = (address(topology.primary.port), address(topology.replicas[0].port));
    fault.is_found(&proxy, "info", "unprotected-writes", &primary, &["min-replicas-to-write 0"]);
    let fault = Fault::begins("a replica would serve stale data (`replica-serve-stale-data yes`)");
    fault.is_found(&proxy, "info", "serves-stale", &replica, &["replica-serve-stale-data yes"]);
    let (code, report) = doctor_json(&setup);
    assert_eq!(code, 0, "nothing is broken: {report}");
    // A policy that allows it.
    let allows = setup.policy("default", "consistency = \"bounded\"\nreplica-serve-stale-data = \"yes\"");
    assert_eq!(codes(&doctor_json(&allows).1), ["unprotected-writes"]);
}

#[test]
fn a_replica_that_takes_writes() {
    let topology =
        Topology::with(&SOUND_PRIMARY, 1, &[&SOUND_REPLICA[..], &["--replica-read-only", "no"]].concat());
    let proxy = Setup::of(&topology).start();
    let fault = Fault::begins("a replica takes writes");
    let node = address(topology.replicas[0].port);
    fault.is_found(&proxy, "warning", "writable-replica", &node, &["slave_read_only:0"]);
    topology.replicas[0].cmd(&["CONFIG", "SET", "replica-read-only", "yes"]);
    await_cleared(&proxy, "writable-replica");
}

#[test]
fn a_replica_whose_clock_is_ahead() {
    let primary = Redis::start_as(Server::Valkey81, &SOUND_PRIMARY);
    let port = primary.port.to_string();
    let options = [&["--replicaof", "127.0.0.1", &port], &SOUND_REPLICA[..]].concat();
    let replica = Redis::start_ahead(30, Server::Valkey81, &options);
    eventually("it is in sync", secs(10), || replica.applied().is_some());
    let proxy = Setup::to(primary.port, &[replica.port]).start();
    let fault = Fault::begins("the clock of a replica is half a minute ahead");
    let node = address(replica.port);
    fault.is_found(&proxy, "warning", "clock-of-replica", &node, &["server_time_usec is", "ahead of"]);
    // What it is warned of: the replica lets keys expire too early.
    assert_eq!(primary.cmd(&["SET", "k", "v", "EX", "20"]), "OK");
    eventually("the replica has it", secs(5), || replica.cmd(&["DBSIZE"]) == 1);
    assert_eq!(replica.cmd(&["GET", "k"]), Value::Null);
    assert_eq!(primary.cmd(&["GET", "k"]), "v");
}

#[test]
fn huge_pages_that_are_not_turned_off() {
    let topology =
        Topology::with(&[&SOUND_PRIMARY[..], &["--disable-thp", "no"]].concat(), 1, &SOUND_REPLICA);
    let proxy = Setup::of(&topology).start();
    let fault = Fault::begins("huge pages are not turned off");
    fault.is_found(&proxy, "info", "thp", &address(topology.primary.port), &["disable-thp no"]);
}

#[test]
fn what_somebody_is_denied_again_and_again() {
    let topology = sound(1);
    topology.primary.cmd(&["ACL", "SETUSER", "app", "on", ">a", "~*", "+get"]);
    let mut app = Conn::open(topology.primary.port);
    app.cmd(&["AUTH", "app", "a"]);
    for _ in 0..5 {
        assert!(app.cmd(&["KEYS", "*"]).is_error());
    }
    let proxy = Setup::of(&topology).start();
    let fault = Fault::begins("an application keeps sending a command that the server denies");
    let node = address(topology.primary.port);
    fault.is_found(&proxy, "info", "denied-command", &node, &["user app was denied the command keys"]);
    let mut client = proxy.connect();
    for _ in 0..5 {
        assert!(client.cmd(&["DEBUG", "SLEEP", "0"]).is_error());
    }
    let fault = Fault::begins("… or one that `deny-commands` denies");
    fault.is_found(&proxy, "info", "denied-command", "redweir", &["deny-commands has refused"]);
}
