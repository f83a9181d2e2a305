//! Links between a primary and its replicas: cut, hung, refused, overrun, and on their way back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use super::{
    FOUND_WITHIN, Fault, SOUND_PRIMARY, SOUND_REPLICA, address, await_cleared, await_look, codes,
    doctor_json, eventually, findings, found, secs, sound,
};
use crate::support::{Redis, Server, Setup, Topology, free_port, sleep_ms};

#[test]
fn a_link_that_is_cut() {
    let topology = sound(1);
    let setup = Setup::of(&topology);
    let proxy = setup.clone().start();
    await_look(&proxy);
    let (replica, link) = (&topology.replicas[0], &topology.replicas[0].link);
    link.cut();
    link.reset();
    let fault = Fault::begins("the path between primary and replica is cut");
    let node = address(replica.port);
    let shown = ["master_link_status:down", "master_link_down_since_seconds:"];
    let finding = fault.is_found(&proxy, "warning", "link-broken", &node, &shown);
    assert!(finding["remedy"].as_str().unwrap().contains("don't restart it"), "{finding}");
    let primary = address(topology.primary.port);
    fault.is_found(&proxy, "warning", "replicas-missing", &primary, &["connected_slaves:"]);
    // The primary demands a replica.
    fault.is_found(&proxy, "error", "writes-refused", &primary, &["min_slaves_good_slaves:0"]);
    let (code, report) = doctor_json(&setup);
    assert_eq!(code, 2, "{report}");
    assert!(codes(&report).contains(&"link-broken") && !codes(&report).contains(&"never-synced"), "{report}");
    link.heal();
    await_cleared(&proxy, "link-broken");
    await_cleared(&proxy, "replicas-missing");
}

#[test]
fn a_link_on_which_nothing_comes() {
    let topology = Topology::with(
        &[&SOUND_PRIMARY[..], &["--repl-ping-replica-period", "1"]].concat(),
        1,
        &SOUND_REPLICA,
    );
    let proxy = Setup::of(&topology).start();
    await_look(&proxy);
    topology.replicas[0].link.cut();
    let fault = Fault::begins("the path drops packets, and nobody closes the link");
    let node = address(topology.replicas[0].port);
    let shown = ["master_link_status:up", "master_last_io_seconds_ago:"];
    fault.is_found(&proxy, "warning", "tcp-hang", &node, &shown);
    topology.replicas[0].link.heal();
    await_cleared(&proxy, "tcp-hang");
}

/// Two kinds: the first one of a replica, and one that it needs because its primary has another history. Whatever is seen of
/// them, from the primary that waits for others to come to the replica that loads: a resync runs, and nothing is wrong.
#[test]
fn a_full_resync_is_never_called_broken() {
    // The primary waits five seconds before it begins, and is slow then.
    let options =
        ["--repl-diskless-sync-delay", "6", "--rdb-key-save-delay", "1000", "--enable-debug-command", "yes"];
    let mut topology = Topology::with(&[&SOUND_PRIMARY[..], &options].concat(), 0, &[]);
    // Else writes are refused meanwhile.
    topology.primary.cmd(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    topology.primary.cmd(&["DEBUG", "POPULATE", "4000", "key", "100"]);
    let begins = || Fault::begins("a full resync runs, as it should");
    let first = begins();
    topology.add_replica(
        &[
            &SOUND_REPLICA[..],
            &["--key-load-delay", "500", "--loading-process-events-interval-bytes", "1024"],
        ]
        .concat(),
    );
    let proxy = Setup::of(&topology).start_with_any_replicas();
    let node = address(topology.replicas[0].port);
    let until_synced = |what: &str, fault: &Fault| {
        let mut seen = false;
        eventually(&format!("{what}: it is in sync"), secs(60), || {
            for finding in findings(&proxy) {
                let code = finding["code"].as_str().unwrap().to_owned();
                assert!(
                    ["full-resync-running", "unprotected-writes"].contains(&code.as_str()),
                    "{what}: {finding}"
                );
                assert_ne!(finding["severity"], "error", "{what}: {finding}");
                if code == "full-resync-running" && !seen {
                    fault.is_found(
                        &proxy,
                        "info",
                        "full-resync-running",
                        &node,
                        &["master_sync_in_progress:"],
                    );
                    seen = true;
                }
            }
            topology.replicas[0].applied().is_some()
        });
        assert!(seen, "{what}: it was not seen to run");
        await_cleared(&proxy, "full-resync-running");
    };
    until_synced("the first", &first);
    assert_eq!(topology.primary.cmd(&["DEBUG", "CHANGE-REPL-ID"]), "OK");
    let another = begins();
    topology.replicas[0].link.reset();
    eventually("its link is down", secs(10), || topology.replicas[0].applied().is_none());
    until_synced("another", &another);
}

#[test]
fn a_replica_that_has_never_synced() {
    let primary = Redis::start(&[]);
    let replica = Redis::replica_of(free_port(), &SOUND_REPLICA);
    let proxy = Setup::to(primary.port, &[replica.port]).start_with_any_replicas();
    let fault = Fault::begins("a replica that was never able to reach its primary");
    let node = address(replica.port);
    fault.is_found(&proxy, "error", "never-synced", &node, &["master_link_down_since_seconds:-1"]);
    assert!(found(&proxy, "link-broken", &node).is_none() && found(&proxy, "auth-mismatch", &node).is_none());
    replica.cmd(&["REPLICAOF", "127.0.0.1", &primary.port.to_string()]);
    await_cleared(&proxy, "never-synced");
}

#[test]
fn a_wrong_masterauth() {
    for (masterauth, words) in [
        (Some("wrong"), "`masterauth` is not the primary's password"),
        (None, "`masterauth` is missing, the primary has a password"),
    ] {
        let topology = Topology::with(&[&SOUND_PRIMARY[..], &["--requirepass", "p"]].concat(), 0, &[]);
        let auth = masterauth.map_or_else(Vec::new, |wrong| vec!["--masterauth", wrong]);
        let options = [&SOUND_REPLICA[..], &["--requirepass", "p"], &auth].concat();
        let replica = Redis::replica_of(topology.primary.port, &options);
        let setup = Setup::to(topology.primary.port, &[replica.port]).upstream("password = \"p\"");
        let proxy = setup.clone().start_with_any_replicas();
        let (fault, node) = (Fault::begins(words), address(replica.port));
        let finding = fault.is_found(
            &proxy,
            "error",
            "auth-mismatch",
            &node,
            &["master_link_status:down", "`masterauth` is"],
        );
        assert!(finding["remedy"].as_str().unwrap().contains("CONFIG SET masterauth"), "{finding}");
        assert!(found(&proxy, "full-resync-running", &node).is_none(), "whatever it says of itself");
        let (code, report) = doctor_json(&setup);
        assert_eq!(code, 2, "{report}");
        assert!(codes(&report).contains(&"auth-mismatch"), "{report}");
        assert!(!report.to_string().contains("wrong"), "a password is never told: {report}");
        replica.cmd(&["CONFIG", "SET", "masterauth", "p"]);
        await_cleared(&proxy, "auth-mismatch");
        await_cleared(&proxy, "never-synced");
    }
}

/// Where no password can be asked for, it shows by how often the primary refuses one.
#[test]
fn a_wrong_masterauth_where_passwords_are_hidden() {
    let primary = Redis::start(&["--requirepass", "p"]);
    let replica = Redis::replica_of(primary.port, &["--requirepass", "p", "--masterauth", "wrong"]);
    for server in [&primary, &replica] {
        let rules = ["on", ">secret", "+role", "+info", "+ping", "+acl|list"];
        assert_eq!(server.cmd(&[&["ACL", "SETUSER", "redweir"], &rules[..]].concat()), "OK");
    }
    let setup =
        Setup::to(primary.port, &[replica.port]).upstream("username = \"redweir\"\npassword = \"secret\"");
    let proxy = setup.start_with_any_replicas();
    let fault = Fault::begins("the same, where Redweir may not ask for settings");
    fault.is_found(&proxy, "error", "auth-mismatch", &address(replica.port), &["errorstat_WRONGPASS"]);
}

#[test]
fn full_resyncs_that_follow_one_another() {
    let options = ["--repl-backlog-size", "16kb", "--min-replicas-to-write", "0"];
    let topology = Topology::with(&options, 1, &SOUND_REPLICA);
    let proxy = Setup::of(&topology).start();
    await_look(&proxy);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let (mut conn, value) = (topology.primary.connect(), "v".repeat(4096));
            while !over.load(Ordering::SeqCst) {
                conn.cmd(&["SET", "k", &value]);
                sleep_ms(2);
            }
        });
        let fault = Fault::begins("the backlog is too small, links drop under load");
        let primary = address(topology.primary.port);
        let deadline = Instant::now() + FOUND_WITHIN;
        while found(&proxy, "resync-loop", &primary).is_none() && Instant::now() < deadline {
            let (link, head) = (&topology.replicas[0].link, topology.primary.head());
            link.cut();
            link.reset();
            eventually("more is written than the backlog holds", secs(10), || {
                topology.primary.head() > head + 64 * 1024
            });
            link.heal();
            eventually("it is linked again", secs(20), || topology.replicas[0].applied().is_some());
        }
        over.store(true, Ordering::SeqCst);
        let shown = ["sync_full rose by", "sync_partial_err by", "repl_backlog_size:16384"];
        let finding = fault.is_found(&proxy, "error", "resync-loop", &primary, &shown);
        assert!(finding["remedy"].as_str().unwrap().contains("CONFIG SET repl-backlog-size"), "{finding}");
    });
}

#[test]
fn a_replica_whose_buffer_fills_up() {
    let limits =
        ["--client-output-buffer-limit", "replica", "16mb", "8mb", "600", "--repl-backlog-size", "1mb"];
    let primary = Redis::start(&limits);
    let replica = Redis::replica_of(primary.port, &SOUND_REPLICA);
    let topology = (&primary, &replica);
    eventually("it is in sync", secs(10), || replica.applied().is_some());
    // Redweir may follow the primary's stream as well, later.
    let list = primary.cmd(&["CLIENT", "LIST", "TYPE", "replica"]).text();
    let its_id = list.split(' ').next().unwrap().to_owned() + " ";
    let proxy = Setup::to(primary.port, &[replica.port]).start();
    await_look(&proxy);
    replica.pause();
    let (mut conn, value) = (primary.connect(), "v".repeat(1 << 20));
    let omem = || {
        let list = topology.0.cmd(&["CLIENT", "LIST", "TYPE", "replica"]).text();
        let of =
            |line: &str| line.split(' ').find_map(|pair| pair.strip_prefix("omem=")?.parse::<u64>().ok());
        list.lines().find(|line| line.starts_with(&its_id)).and_then(of)
    };
    let mut fault = Fault::begins("a replica takes nothing of the stream");
    let deadline = Instant::now() + secs(60);
    // What the kernel takes comes first.
    while omem().is_some_and(|bytes| bytes < 9 << 20) {
        assert!(Instant::now() < deadline, "its buffer does not fill: {:?}", omem());
        conn.cmd(&["SET", "k", &value]);
    }
    fault.begun = Instant::now();
    let node = address(primary.port);
    fault.is_found(
        &proxy,
        "warning",
        "output-buffer",
        &node,
        &["omem=", "client-output-buffer-limit replica"],
    );
    while omem().is_some() {
        assert!(Instant::now() < deadline, "it is not cut off: {:?}", omem());
        conn.cmd(&["SET", "k", &value]);
    }
    let fault = Fault::begins("… until the primary cuts it off");
    fault.is_found(
        &proxy,
        "error",
        "output-buffer",
        &node,
        &["is gone", "client-output-buffer-limit replica"],
    );
    replica.resume();
}

#[test]
fn a_replica_that_lags() {
    let topology = sound(1);
    let proxy = Setup::of(&topology).start();
    await_look(&proxy);
    topology.lag(0, secs(6));
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut conn = topology.primary.connect();
            while !over.load(Ordering::SeqCst) {
                conn.cmd(&["INCR", "k"]);
                sleep_ms(5);
            }
        });
        let fault = Fault::begins("the stream reaches a replica late");
        let node = address(topology.replicas[0].port);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            fault.is_found(&proxy, "warning", "lagging", &node, &["slave_repl_offset:", "behind"]);
        }));
        over.store(true, Ordering::SeqCst);
        outcome.unwrap();
    });
    topology.replicas[0].link.heal();
    await_cleared(&proxy, "lagging");
}

#[test]
fn a_timeout_that_is_too_short_for_the_pings() {
    let topology =
        Topology::with(&SOUND_PRIMARY, 1, &[&SOUND_REPLICA[..], &["--repl-timeout", "12"]].concat());
    let proxy = Setup::of(&topology).start();
    let fault = Fault::begins("repl-timeout is too short for repl-ping-replica-period");
    let node = address(topology.replicas[0].port);
    let shown = ["repl-timeout 12", "repl-ping-replica-period 10"];
    fault.is_found(&proxy, "warning", "timeout-too-short", &node, &shown);
    // Nobody writes: the stream has the pings only.
    fault.is_found(&proxy, "warning", "heartbeat-too-rare", &node, &["master_last_io_seconds_ago:"]);
    topology.replicas[0].cmd(&["CONFIG", "SET", "repl-timeout", "60"]);
    await_cleared(&proxy, "timeout-too-short");
    await_cleared(&proxy, "heartbeat-too-rare");
}

#[test]
fn an_older_replica_of_a_newer_primary() {
    let primary = Redis::start(&[]);
    let replica = Redis::replica_as(Server::Redis62, primary.port, &SOUND_REPLICA);
    let proxy = Setup::to(primary.port, &[replica.port]).start_with_any_replicas();
    let fault = Fault::begins("a replica with 6.2 of a primary with 7.0");
    fault.is_found(
        &proxy,
        "warning",
        "version-skew",
        &address(replica.port),
        &["Redis 6.2 here", "Redis 7.0 at the primary"],
    );
}
