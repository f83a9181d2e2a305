//! `CLIENT …` through the proxy: about the proxy's own clients, those of all workers. `WAIT`, `INFO` and what is denied
//! belong here as well: commands that Redweir has a say in.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]

use std::collections::HashMap;
use std::thread;
use std::time::Instant;

use crate::support::{Conn, Direction, Proxy, Setup, Topology, Value, eventually, ms, secs, sleep_ms};

const ADMIN: &[&str] = &["--user", "admin", "on", ">admin-pw", "~*", "&*", "+@all"];

fn two_workers() -> (Topology, Proxy) {
    let topology = Topology::start(1);
    let proxy = Setup::of(&topology).start();
    (topology, proxy)
}

type Line = HashMap<String, String>;

fn lines(text: &str) -> Vec<Line> {
    let fields = |line: &str| {
        let pairs =
            line.split(' ').map(|pair| pair.split_once('=').unwrap_or_else(|| panic!("{pair:?} in {line}")));
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    };
    text.lines().map(fields).collect()
}

fn list(conn: &mut Conn, options: &[&str]) -> Vec<Line> {
    let reply = conn.cmd(&[&["CLIENT", "LIST"], options].concat());
    assert!(!reply.is_error(), "{reply:?}");
    lines(&reply.text())
}

fn id(conn: &mut Conn) -> String {
    conn.cmd(&["CLIENT", "ID"]).int().to_string()
}

/// The line of the client with this ID.
fn line(conn: &mut Conn, id: &str) -> Option<Line> {
    list(conn, &["ID", id, "0"]).pop()
}

fn is_closed(conn: &mut Conn) -> bool {
    conn.patience(secs(3)).try_read().is_err_and(|error| !crate::support::resp::is_timeout(&error))
}

#[test]
fn the_list_has_redis_fields_in_redis_order() {
    let (topology, proxy) = two_workers();
    let names = |text: &str| -> Vec<String> {
        let pairs = text.lines().next().unwrap().split(' ');
        pairs.map(|pair| pair.split('=').next().unwrap().to_owned()).collect()
    };
    let theirs = names(&topology.primary.cmd(&["CLIENT", "INFO"]).text());
    let mut conn = proxy.connect();
    for ours in [names(&conn.cmd(&["CLIENT", "INFO"]).text()), names(&conn.cmd(&["CLIENT", "LIST"]).text())] {
        assert_eq!(ours[..theirs.len()], theirs);
        assert_eq!(ours[theirs.len()..], ["lib-name", "lib-ver"]);
    }
}

#[test]
fn a_line_tells_the_truth() {
    let (_topology, proxy) = two_workers();
    let (mut conn, mut root) = (proxy.connect(), proxy.connect());
    let me = id(&mut conn);
    conn.cmd(&["CLIENT", "SETNAME", "blue"]);
    conn.cmd(&["CLIENT", "SETINFO", "LIB-NAME", "tests"]);
    conn.cmd(&["SELECT", "3"]);
    conn.cmd(&["HELLO", "3"]);
    conn.cmd(&["GET", "k"]);
    let local = conn.stream().local_addr().unwrap().to_string();
    let listed = line(&mut root, &me).unwrap();
    let expected = [
        ("name", "blue"),
        ("lib-name", "tests"),
        ("db", "3"),
        ("resp", "3"),
        ("cmd", "get"),
        ("flags", "N"),
        ("sub", "0"),
        ("multi", "-1"),
        ("user", "default"),
        ("addr", &local),
        ("laddr", &format!("127.0.0.1:{}", proxy.port)),
    ];
    for (field, value) in expected {
        assert_eq!(listed[field], value, "{field} in {listed:?}");
    }
    sleep_ms(1300);
    let idle: u64 = line(&mut root, &me).unwrap()["idle"].parse().unwrap();
    assert!((1..=4).contains(&idle), "{idle}");
    assert_eq!(lines(&conn.cmd(&["CLIENT", "INFO"]).text())[0]["cmd"], "client|info");
}

#[test]
fn subscribed_blocked_and_transacting_clients_are_seen_as_such() {
    let (_topology, proxy) = two_workers();
    let mut root = proxy.connect();
    for _ in 0..2 {
        let [mut subscriber, mut blocked, mut transacting, mut waiting] = [(); 4].map(|()| proxy.connect());
        let ids = [&mut subscriber, &mut blocked, &mut transacting, &mut waiting].map(id);
        subscriber.cmd(&["SUBSCRIBE", "a"]);
        subscriber.cmd(&["SUBSCRIBE", "b"]);
        subscriber.cmd(&["PSUBSCRIBE", "p*"]);
        blocked.ask(&["BLPOP", "none", "0"]);
        transacting.cmd(&["MULTI"]);
        transacting.cmd(&["SET", "k", "v"]);
        waiting.ask(&["WAIT", "9", "0"]);
        eventually("all are where they should be", secs(3), || {
            let is = |root: &mut Conn, id: &str, flag| line(root, id).unwrap()["flags"] == flag;
            is(&mut root, &ids[1], "b") && is(&mut root, &ids[3], "b")
        });
        let [sub, block, multi, wait] = ids.each_ref().map(|id| line(&mut root, id).unwrap());
        assert_eq!(
            (&*sub["flags"], &*sub["sub"], &*sub["psub"], &*sub["cmd"]),
            ("P", "2", "1", "psubscribe")
        );
        assert_eq!((&*block["flags"], &*block["cmd"]), ("b", "blpop"));
        assert_eq!((&*multi["flags"], &*multi["multi"]), ("x", "1"));
        assert_eq!((&*wait["flags"], &*wait["cmd"]), ("b", "wait"));
        let of_type = |root: &mut Conn, name| -> Vec<String> {
            list(root, &["TYPE", name]).iter().map(|line| line["id"].clone()).collect()
        };
        assert_eq!(of_type(&mut root, "pubsub"), [ids[0].clone()]);
        assert!(of_type(&mut root, "normal").contains(&ids[1]));
        assert!(of_type(&mut root, "replica").is_empty() && of_type(&mut root, "master").is_empty());
        assert_eq!(root.cmd(&["CLIENT", "KILL", "TYPE", "pubsub"]), 1);
        assert!(is_closed(&mut subscriber));
    }
}

#[test]
fn errors_are_redis_own() {
    let (topology, proxy) = two_workers();
    let (mut here, mut there) = (proxy.connect(), topology.primary.connect());
    let commands: &[&[&str]] = &[
        &["CLIENT"],
        &["CLIENT", "NOSUCH"],
        &["CLIENT", "HELP"],
        &["CLIENT", "LIST", "x"],
        &["CLIENT", "LIST", "TYPE"],
        &["CLIENT", "LIST", "TYPE", "nosuch"],
        &["CLIENT", "LIST", "ID"],
        &["CLIENT", "LIST", "ID", "x"],
        &["CLIENT", "LIST", "ID", "999999999"],
        &["CLIENT", "KILL"],
        &["CLIENT", "KILL", "1.2.3.4:5"],
        &["CLIENT", "KILL", "ID"],
        &["CLIENT", "KILL", "ID", "0"],
        &["CLIENT", "KILL", "ID", "x"],
        &["CLIENT", "KILL", "ID", "999999999"],
        &["CLIENT", "KILL", "TYPE", "nosuch"],
        &["CLIENT", "KILL", "TYPE", "replica", "LADDR", "1.1.1.1:1"],
        &["CLIENT", "KILL", "USER", "nosuch"],
        &["CLIENT", "KILL", "SKIPME", "maybe"],
        &["CLIENT", "KILL", "NOSUCH", "x"],
        &["CLIENT", "KILL", "ID", "7", "x"],
        &["CLIENT", "UNBLOCK"],
        &["CLIENT", "UNBLOCK", "x"],
        &["CLIENT", "UNBLOCK", "999999999"],
        &["CLIENT", "UNBLOCK", "999999999", "NOSUCH"],
        &["CLIENT", "UNBLOCK", "1", "ERROR", "x"],
        &["CLIENT", "GETREDIR"],
        &["CLIENT", "TRACKINGINFO"],
        &["CLIENT", "SETNAME"],
        &["CLIENT", "SETNAME", "a b"],
        &["CLIENT", "GETNAME", "x"],
        &["CLIENT", "ID", "x"],
        &["CLIENT", "INFO", "x"],
        &["CLIENT", "CACHING"],
        &["CLIENT", "NO-EVICT"],
    ];
    for command in commands {
        assert_eq!(here.cmd(command), there.cmd(command), "{command:?}");
    }
}

#[test]
fn clients_of_any_worker_are_killed_whatever_they_do() {
    let (_topology, proxy) = two_workers();
    let mut root = proxy.connect();
    let me = id(&mut root);
    for round in 0..3 {
        let mut idle = proxy.connect();
        let mut blocked = proxy.connect();
        let mut subscribed = proxy.connect();
        let mut waiting = proxy.connect();
        let ids = [&mut idle, &mut blocked, &mut subscribed, &mut waiting].map(id);
        blocked.ask(&["BLPOP", "none", "0"]);
        subscribed.cmd(&["SUBSCRIBE", "c"]);
        waiting.ask(&["WAIT", "9", "0"]);
        sleep_ms(50);
        for id in &ids {
            assert_eq!(root.cmd(&["CLIENT", "KILL", "ID", id]), 1, "round {round}");
            assert_eq!(root.cmd(&["CLIENT", "KILL", "ID", id]), 0);
        }
        for conn in [&mut idle, &mut blocked, &mut subscribed, &mut waiting] {
            assert!(is_closed(conn));
        }
        assert_eq!(list(&mut root, &[]).len(), 1);
    }
    // Whoever is killed is gone with the reply, even if its worker has yet to let go of it.
    for _ in 0..200 {
        let mut by_address = proxy.connect();
        by_address.cmd(&["PING"]);
        let address = by_address.stream().local_addr().unwrap().to_string();
        let kill = ["CLIENT", "KILL", &address];
        root.ask(&kill).ask(&kill).ask(&["CLIENT", "LIST"]);
        assert_eq!(root.read(), "OK");
        assert_eq!(root.read().error(), "ERR No such client");
        assert_eq!(lines(&root.read().text()).len(), 1);
        assert!(is_closed(&mut by_address));
    }
    let mut many: Vec<Conn> = (0..10).map(|_| proxy.connect()).collect();
    for conn in &mut many {
        assert_eq!(conn.cmd(&["PING"]), "PONG");
    }
    assert_eq!(root.cmd(&["CLIENT", "KILL", "LADDR", &format!("127.0.0.1:{}", proxy.port)]), 10);
    assert!(many.iter_mut().all(is_closed));
    assert_eq!(root.cmd(&["CLIENT", "KILL", "ID", &me]), 0, "oneself is spared");
    assert_eq!(root.cmd(&["CLIENT", "KILL", "MAXAGE", "3600", "SKIPME", "no"]), 0);
    assert_eq!(root.cmd(&["CLIENT", "KILL", "ID", &me, "SKIPME", "no"]), 1, "answered first");
    assert!(is_closed(&mut root));
    let mut root = proxy.connect();
    root.cmd(&["PING"]);
    let address = root.stream().local_addr().unwrap().to_string();
    assert_eq!(root.cmd(&["CLIENT", "KILL", &address]), "OK", "the old form kills oneself, too");
    assert!(is_closed(&mut root));
}

#[test]
fn the_primary_says_who_may_look_and_kill() {
    let users =
        [ADMIN, &["--user", "bob", "on", ">bob-pw", "~*", "&*", "+@all", "-@admin", "-@dangerous"]].concat();
    let topology = Topology::with(&users, 1, &users);
    let proxy = Setup::of(&topology).start();
    let (mut bob, mut other) = (proxy.connect(), proxy.connect());
    let victim = id(&mut other);
    assert_eq!(bob.cmd(&["AUTH", "bob", "bob-pw"]), "OK");
    let denied =
        |subcommand| format!("NOPERM this user has no permissions to run the 'client|{subcommand}' command");
    assert_eq!(bob.cmd(&["CLIENT", "LIST"]).error(), denied("list"));
    assert_eq!(bob.cmd(&["CLIENT", "KILL", "ID", &victim]).error(), denied("kill"));
    assert_eq!(bob.cmd(&["CLIENT", "KILL", "127.0.0.1:1"]).error(), denied("kill"));
    assert_eq!(bob.cmd(&["CLIENT", "UNBLOCK", &victim]).error(), denied("unblock"));
    assert_eq!(other.cmd(&["PING"]), "PONG");
    let killed = other.cmd(&["CLIENT", "KILL", "USER", "bob"]);
    assert_eq!(killed, 1);
    assert!(is_closed(&mut bob));
}

#[test]
fn a_blocked_client_of_any_worker_is_unblocked() {
    let (_topology, proxy) = two_workers();
    let mut root = proxy.connect();
    for _ in 0..3 {
        let (mut blocked, mut waiting) = (proxy.connect(), proxy.connect());
        let (of_blocked, of_waiting) = (id(&mut blocked), id(&mut waiting));
        assert_eq!(root.cmd(&["CLIENT", "UNBLOCK", &of_blocked]), 0);
        for (how, answer) in [
            (&["TIMEOUT"][..], Value::Null),
            (&["ERROR"], Value::Error("UNBLOCKED client unblocked via CLIENT UNBLOCK".to_owned())),
            (&[], Value::Null),
        ] {
            blocked.ask(&["BLPOP", "none", "0"]);
            eventually("it is unblocked", secs(3), || {
                root.cmd(&[&["CLIENT", "UNBLOCK", &of_blocked], how].concat()) == 1
            });
            assert_eq!(blocked.read(), answer);
        }
        assert_eq!(blocked.cmd(&["PING"]), "PONG");
        waiting.ask(&["WAIT", "9", "0"]);
        eventually("it is released", secs(3), || root.cmd(&["CLIENT", "UNBLOCK", &of_waiting]) == 1);
        assert_eq!(waiting.read(), 1);
        waiting.ask(&["WAIT", "9", "0"]);
        eventually("it is released", secs(3), || root.cmd(&["CLIENT", "UNBLOCK", &of_waiting, "ERROR"]) == 1);
        assert_eq!(waiting.read().error(), "UNBLOCKED client unblocked via CLIENT UNBLOCK");
    }
}

#[test]
fn a_user_who_may_not_ask_for_an_id_still_blocks() {
    let users =
        [ADMIN, &["--user", "bob", "on", ">bob-pw", "~*", "&*", "+blpop", "+lpush", "+multi", "+exec"]]
            .concat();
    let topology = Topology::with(&users, 0, &[]);
    let proxy = Setup::of(&topology).start();
    let mut bob = proxy.connect();
    assert_eq!(bob.cmd(&["AUTH", "bob", "bob-pw"]), "OK");
    bob.ask(&["BLPOP", "l", "0"]);
    sleep_ms(100);
    assert_eq!(proxy.cmd(&["LPUSH", "l", "x"]), 1);
    assert_eq!(bob.read().items()[1], "x");
}

#[test]
fn pause_is_the_primary_s_where_it_is_allowed() {
    let topology = Topology::start(0);
    let proxy = Setup::of(&topology).toml("[security]\ndeny-commands = []").start();
    let mut conn = proxy.connect();
    let begun = Instant::now();
    assert_eq!(conn.cmd(&["CLIENT", "PAUSE", "500", "WRITE"]), "OK");
    assert_eq!(conn.cmd(&["SET", "k", "v"]), "OK");
    assert!(begun.elapsed() >= ms(490), "{:?}", begun.elapsed());
    assert_eq!(conn.cmd(&["CLIENT", "UNPAUSE"]), "OK");
    assert_eq!(conn.cmd(&["CLIENT", "NO-EVICT", "ON"]), "OK");
    assert_eq!(conn.cmd(&["RESET"]), "RESET");
    assert_eq!(conn.cmd(&["GET", "k"]), "v");
}

#[test]
fn info_has_a_section_of_ours_when_it_is_asked_for() {
    let (mut topology, proxy) = two_workers();
    let mut conn = proxy.connect();
    for sections in [&[][..], &["all"], &["everything"], &["default"], &["redweir", "server"]] {
        let text = conn.cmd(&[&["INFO"], sections].concat()).text();
        assert!(text.contains("\r\n# Redweir\r\nredweir_version:"), "{sections:?}: {text}");
        assert!(text.contains("redis_version:"), "{sections:?}: {text}");
    }
    for sections in [&["server"][..], &["replication"], &["nosuch"]] {
        assert!(!conn.cmd(&[&["INFO"], sections].concat()).text().contains("Redweir"), "{sections:?}");
    }
    assert!(conn.cmd(&["INFO", "replication"]).text().contains("\r\nrole:master\r\n"));
    let ours = conn.cmd(&["INFO", "RedWeir"]).text();
    assert!(ours.starts_with("# Redweir\r\n") && ours.ends_with("\r\n"), "{ours}");
    let field = |line: &str| line.starts_with("redweir_") && line.contains(':') && !line.contains(' ');
    assert!(ours.lines().skip(1).all(field), "{ours}");
    topology.primary.kill();
    eventually("it is told without a primary", secs(5), || {
        conn.cmd(&["INFO", "redweir"]).text().starts_with("# Redweir\r\n")
    });
}

#[test]
fn what_is_denied_reads_as_on_redis() {
    let (_topology, proxy) = two_workers();
    let mut conn = proxy.connect();
    for (command, name) in [
        (&["SHUTDOWN"][..], "shutdown"),
        (&["CONFIG", "SET", "maxmemory", "1"], "config|set"),
        (&["ACL", "SETUSER", "x"], "acl|setuser"),
        (&["CLIENT", "PAUSE", "1"], "client|pause"),
        (&["DEBUG", "SLEEP", "0"], "debug"),
        (&["REPLICAOF", "NO", "ONE"], "replicaof"),
    ] {
        let error =
            format!("NOPERM redweir: [security] deny-commands denies the '{name}' command to everybody");
        assert_eq!(conn.cmd(command).error(), error);
    }
    conn.ask(&["MONITOR"]);
    assert_eq!(conn.read(), "OK");
}

#[test]
fn wait_answers_as_redis_does() {
    let topology = Topology::start(2);
    let proxy = Setup::of(&topology).start();
    let mut conn = proxy.connect();
    let mut direct = topology.primary.connect();
    for command in [
        &["WAIT"][..],
        &["WAIT", "1"],
        &["WAIT", "x", "0"],
        &["WAIT", "1", "x"],
        &["WAIT", "1", "-1"],
        &["WAIT", "+1", "0"],
        &["WAIT", "1", "1.5"],
        &["WAITAOF", "1", "1", "0"],
    ] {
        assert_eq!(conn.cmd(command), direct.cmd(command), "{command:?}");
    }
    let mut conn = proxy.connect();
    let begun = Instant::now();
    assert_eq!(conn.cmd(&["WAIT", "0", "0"]), 2);
    assert_eq!(conn.cmd(&["WAIT", "2", "0"]), 2, "it has written nothing");
    assert!(begun.elapsed() < secs(1), "{:?}", begun.elapsed());
    assert_eq!(conn.cmd(&["WAIT", "3", "100"]), 2);
    conn.cmd(&["SET", "k", "v"]);
    assert_eq!(conn.cmd(&["WAIT", "2", "0"]), 2);
    topology.replicas[0].link.stall(Direction::Down);
    conn.cmd(&["SET", "k", "w"]);
    assert_eq!(conn.cmd(&["WAIT", "2", "300"]), 1);
    let mut other = proxy.connect();
    assert_eq!(other.cmd(&["WAIT", "2", "1000"]), 2, "it has written nothing that a replica could lack");
    conn.ask(&["MULTI"]).ask(&["WAIT", "5", "0"]).ask(&["EXEC"]);
    assert_eq!(conn.read_many(3)[2].items().len(), 1, "in a transaction it does not wait");
    topology.replicas[0].link.heal();
    let mut leaves = proxy.connect();
    leaves.cmd(&["SET", "k", "x"]);
    let before = proxy.metric("redweir_clients", &[]);
    leaves.ask(&["WAIT", "9", "0"]);
    sleep_ms(50);
    drop(leaves);
    eventually("who left waits no more", secs(3), || proxy.metric("redweir_clients", &[]) < before);
}

/// A write that the new primary never saw must not be counted because other bytes stand at its offset.
#[test]
fn wait_proves_nothing_across_a_failover() {
    let topology = Topology::start(2);
    let proxy = Setup::of(&topology).start();
    let mut conn = proxy.connect();
    conn.cmd(&["SET", "warm", "1"]);
    topology.await_sync();
    for replica in &topology.replicas {
        replica.link.stall(Direction::Down);
    }
    sleep_ms(100);
    assert_eq!(conn.cmd(&["SET", "k", "lost"]), "OK");
    sleep_ms(300);
    topology.primary.pause();
    let new = topology.replicas[0].port.to_string();
    topology.replicas[0].cmd(&["REPLICAOF", "NO", "ONE"]);
    topology.replicas[1].cmd(&["REPLICAOF", "127.0.0.1", &new]);
    let mut other = proxy.connect();
    eventually("the new primary is in use", secs(10), || other.cmd(&["SET", "k", "new"]) == "OK");
    for n in 0..50 {
        other.cmd(&["SET", &format!("more:{n}"), &"x".repeat(100)]);
    }
    eventually("the other replica follows it", secs(10), || other.cmd(&["WAIT", "1", "200"]) == 1);
    let told = conn.cmd(&["WAIT", "1", "500"]);
    assert!(told.is_error() && told.error().starts_with("UNBLOCKED"), "{told:?}");
    topology.primary.resume();
    conn.cmd(&["SET", "k", "again"]);
    assert_eq!(conn.cmd(&["WAIT", "1", "3000"]), 1);
}

#[test]
fn a_hundred_listings_at_a_time_do_no_harm() {
    let (topology, proxy) = two_workers();
    let mut other = proxy.connect();
    assert_eq!(other.cmd(&["PING"]), Value::Status("PONG".to_owned()), "it is there when the first looks");
    let clients: Vec<_> = (0..20)
        .map(|_| {
            let mut conn = proxy.connect();
            thread::spawn(move || {
                for _ in 0..5 {
                    assert!(list(&mut conn, &[]).len() >= 2);
                }
            })
        })
        .collect();
    let mut slowest = ms(0);
    while clients.iter().any(|client| !client.is_finished()) {
        let begun = Instant::now();
        assert_eq!(other.cmd(&["SET", "k", "v"]), "OK");
        slowest = slowest.max(begun.elapsed());
    }
    for client in clients {
        client.join().unwrap();
    }
    assert!(slowest < secs(1), "{slowest:?}");
    assert!(topology.primary.cmd(&["CLIENT", "LIST"]).text().lines().count() < 40);
}

#[test]
fn what_follows_another_subcommand_is_itself() {
    let topology = Topology::start(1);
    let proxy = Setup::of(&topology).toml("[security]\ndeny-commands = [\"config|set\"]").start();
    let mut conn = proxy.connect();
    for _ in 0..2 {
        assert_eq!(conn.cmd(&["CONFIG", "GET", "maxclients"]).items().len(), 2);
        assert!(conn.cmd(&["CONFIG", "SET", "maxclients", "10"]).is_error());
        assert_ne!(conn.cmd(&["CLIENT", "ID"]), 0);
        assert!(conn.cmd(&["CLIENT", "INFO"]).text().contains(" cmd=client|info "));
    }
    assert!(!conn.cmd(&["HELLO", "3"]).is_error());
    assert_ne!(conn.cmd(&["CLIENT", "ID"]), 0);
    assert_eq!(conn.cmd(&["CLIENT", "TRACKING", "ON"]), "OK");
    assert_eq!(conn.cmd(&["CLIENT", "TRACKING", "OFF"]), "OK");
}

#[test]
fn a_pause_can_be_looked_at_and_ended_while_a_write_waits() {
    let topology = Topology::start(1);
    let proxy =
        Setup::of(&topology).proxy("[proxy]\nworkers = 1").toml("[security]\ndeny-commands = []").start();
    let (mut operator, mut writer) = (proxy.connect(), proxy.connect());
    assert_eq!(operator.cmd(&["CLIENT", "PAUSE", "60000", "WRITE"]), "OK");
    writer.ask(&["SET", "k", "v"]);
    eventually("the write waits", secs(3), || {
        operator.cmd(&["INFO", "clients"]).text().contains("blocked_clients:1")
    });
    writer.ask(&["CONFIG", "GET", "maxclients"]);
    assert!(writer.is_silent_for(ms(100)), "what follows a write waits for it");
    assert_eq!(operator.cmd(&["CLIENT", "UNPAUSE"]), "OK");
    assert_eq!(writer.read(), "OK");
    assert_eq!(writer.read().items().len(), 2);
}
