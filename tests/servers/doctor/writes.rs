//! Primaries that answer, and take no writes.

use super::{
    Fault, SOUND_REPLICA, address, await_cleared, await_look, counted, doctor_json, eventually, secs, sound,
};
use crate::support::{Redis, Setup, Topology};

/// Its clients read, and hear from itself why they cannot write: newcomers, too.
#[test]
fn a_primary_that_cannot_save_its_data() {
    let topology = sound(1);
    let primary = &topology.primary;
    // It demands a replica.
    eventually("the replica has told that it is there", secs(10), || primary.cmd(&["SET", "k", "v"]) == "OK");
    let setup = Setup::of(&topology);
    let proxy = setup.clone().start();
    await_look(&proxy);
    assert_eq!(primary.cmd(&["CONFIG", "SET", "save", "3600 1"]), "OK");
    let directory = primary.cmd(&["CONFIG", "GET", "dir"]).items()[1].text();
    // No file takes its place.
    let in_the_way = std::path::Path::new(&directory).join("dump.rdb");
    std::fs::create_dir(&in_the_way).unwrap();
    let fault = Fault::begins("the primary cannot save its data (`-MISCONF`)");
    let save = || !primary.cmd(&["BGSAVE"]).is_error();
    eventually("it begins to save", secs(5), save);
    let node = address(primary.port);
    let finding = fault.is_found(&proxy, "error", "writes-refused", &node, &["rdb_last_bgsave_status:err"]);
    assert!(finding["remedy"].as_str().unwrap().contains("stop-writes-on-bgsave-error no"), "{finding}");
    assert_eq!(doctor_json(&setup).0, 2);
    // As `redis-cli` does: each on a connection of its own.
    assert_eq!(proxy.cmd(&["GET", "k"]), "v");
    assert!(proxy.cmd(&["SET", "k", "w"]).error().starts_with("MISCONF "));
    assert!(proxy.cmd(&["REDWEIR", "VIEW"]).page().contains(&node));
    let (status, text) = proxy.get("/readyz");
    assert!(
        status == 200 && text.contains("writes: refused by the primary: PING is answered: MISCONF"),
        "{text}"
    );
    // Who begins then is let in as well, and follows the stream.
    let late = setup.start();
    assert_eq!(late.cmd(&["GET", "k"]), "v");
    std::fs::remove_dir(&in_the_way).unwrap();
    eventually("it begins to save", secs(5), save);
    await_cleared(&proxy, "writes-refused");
    assert_eq!(proxy.cmd(&["SET", "k", "w"]), "OK");
}

#[test]
fn a_primary_that_wants_more_replicas() {
    let topology = counted(Topology::with(&["--min-replicas-to-write", "2"], 1, &SOUND_REPLICA));
    let proxy = Setup::of(&topology).start();
    let fault = Fault::begins("fewer replicas are linked than `min-replicas-to-write`");
    let node = address(topology.primary.port);
    fault.is_found(&proxy, "error", "writes-refused", &node, &["min_slaves_good_slaves:1"]);
    assert!(proxy.cmd(&["SET", "k", "v"]).error().starts_with("NOREPLICAS "));
    topology.primary.cmd(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    await_cleared(&proxy, "writes-refused");
}

#[test]
fn a_primary_that_is_full() {
    let topology = sound(1);
    let proxy = Setup::of(&topology).start();
    await_look(&proxy);
    topology.primary.cmd(&["DEBUG", "POPULATE", "20000", "key", "100"]);
    let fault = Fault::begins("the primary has more data than `maxmemory`, and evicts nothing");
    assert_eq!(topology.primary.cmd(&["CONFIG", "SET", "maxmemory", "1mb"]), "OK");
    let node = address(topology.primary.port);
    fault.is_found(&proxy, "error", "writes-refused", &node, &["maxmemory:1048576", "noeviction"]);
    assert!(proxy.cmd(&["SET", "k", "v"]).error().starts_with("OOM "));
    topology.primary.cmd(&["CONFIG", "SET", "maxmemory", "0"]);
    await_cleared(&proxy, "writes-refused");
}

/// Redweir counts as a replica at its source. Where the primary demands replicas, it is no source, as soon as it does.
#[test]
fn redweir_is_no_replica_that_is_demanded() {
    let primary = Redis::start(&[]);
    let proxy = Setup::to(primary.port, &[]).start();
    eventually("it follows the primary", secs(10), || primary.info("replication")["connected_slaves"] == "1");
    assert_eq!(proxy.cmd(&["SET", "k", "v"]), "OK");
    primary.cmd(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    let refused = || proxy.cmd(&["SET", "k", "v"]).error().starts_with("NOREPLICAS ");
    eventually("it leaves", secs(10), || primary.info("replication")["connected_slaves"] == "0" && refused());
    primary.cmd(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    eventually("it comes back", secs(10), || primary.info("replication")["connected_slaves"] == "1");
}
