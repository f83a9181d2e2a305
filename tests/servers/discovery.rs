//! Nodes are found: from what the primary says of its replicas, from the records of a name, behind one address that leads to
//! many. And what is told of a second primary.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{
    Conn, Proxy, Redis, Relay, Setup, Topology, Value, eventually, free_port, ms, secs, sleep_ms,
};

/// The nodes of `/view`, in order.
fn nodes(proxy: &Proxy) -> Vec<String> {
    let view = proxy.view();
    let name = |node: &serde_json::Value| node["node"].as_str().unwrap().to_owned();
    let mut names: Vec<String> = view["nodes"].as_array().unwrap().iter().map(name).collect();
    names.sort_unstable();
    names
}

fn at(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

fn await_nodes(proxy: &Proxy, expected: &[String]) {
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    eventually(&format!("the nodes are {expected:?}"), secs(25), || nodes(proxy) == expected);
}

/// The primary of `/view`.
fn primary_of(proxy: &Proxy) -> String {
    proxy.view()["primary"].as_str().unwrap_or_default().to_owned()
}

/// Follows its primary directly, so that the primary knows where it is.
fn replica_of(primary: &Redis, options: &[&str]) -> Redis {
    let replica = Redis::replica_of(primary.port, options);
    eventually("a replica is in sync", secs(10), || replica.applied().is_some());
    replica
}

fn by_auto(primary: &Redis) -> Setup {
    Setup::finding(&at(primary.port), "\"auto\"")
}

#[test]
fn replicas_are_read_from_the_primary_and_come_and_go() {
    let primary = Redis::start(&[]);
    let first = replica_of(&primary, &[]);
    let chained = replica_of(&first, &[]);
    // A follower of the primary itself is a replica that does not say where it is.
    let proxy = by_auto(&primary).toml("[stream]\nsource = \"primary\"").start_with_any_replicas();
    let at_first = [at(primary.port), at(first.port), at(chained.port)];
    await_nodes(&proxy, &at_first);
    proxy.await_replicas(2);
    eventually("the ghost is there", secs(10), || {
        primary.info("replication").values().any(|line| line.contains("port=0,state=online"))
    });

    let second = replica_of(&primary, &[]);
    await_nodes(&proxy, &[&at_first[..], &[at(second.port)]].concat());
    proxy.await_replicas(3);
    let mut client = proxy.connect();
    assert_eq!(client.cmd(&["SET", "k", "1"]), "OK");
    eventually("it serves reads", secs(10), || {
        assert_eq!(proxy.cmd(&["GET", "k"]), "1");
        second.calls("get") > 0
    });
    // Who is gone stays for a while, and is left out then.
    let port = second.port;
    drop(second);
    eventually("it is silent", secs(5), || proxy.eligible() == 2);
    sleep_ms(3000);
    assert!(nodes(&proxy).contains(&at(port)));
    await_nodes(&proxy, &at_first);
    assert!(proxy.get("/readyz").1.contains("replicas in service: 2 of 2"), "{}", proxy.get("/readyz").1);
    assert_eq!(proxy.log().matches("a node has joined").count(), 3, "nobody came twice");
}

#[test]
fn a_failover_is_followed_although_only_the_primary_is_configured() {
    let mut primary = Redis::start(&[]);
    let (first, second) = (replica_of(&primary, &[]), replica_of(&primary, &[]));
    let proxy = by_auto(&primary).start_with_any_replicas();
    proxy.await_replicas(2);
    assert_eq!(proxy.cmd(&["SET", "k", "1"]), "OK");
    eventually("it is everywhere", secs(5), || first.cmd(&["GET", "k"]) == "1");
    primary.kill();
    assert_eq!(first.cmd(&["REPLICAOF", "NO", "ONE"]), "OK");
    let port = first.port.to_string();
    assert_eq!(second.cmd(&["REPLICAOF", "127.0.0.1", &port]), "OK");
    eventually("it is followed", secs(5), || primary_of(&proxy) == at(first.port));
    assert_eq!(proxy.cmd(&["INCR", "k"]), 2);
    proxy.await_replicas(1);
    // The old one comes back as a replica, and another one comes that only the new one knows.
    primary.restart_as_replica_of(&port);
    let third = replica_of(&first, &[]);
    let all = [at(primary.port), at(first.port), at(second.port), at(third.port)];
    await_nodes(&proxy, &all);
    proxy.await_replicas(3);
    // Whoever starts now has but the old address.
    let late = by_auto(&primary).start_with_any_replicas();
    await_nodes(&late, &all);
    assert_eq!(primary_of(&late), at(first.port));
    late.await_replicas(3);
    assert_eq!(late.cmd(&["INCR", "k"]), 3);
}

#[test]
fn whoever_is_found_is_reached_by_the_address_of_the_map() {
    let primary = Redis::start(&[]);
    // Nobody answers there.
    let options = ["--replica-announce-ip", "192.0.2.1", "--replica-announce-port", "7"];
    let replica = replica_of(&primary, &options);
    let map = format!("address-map = {{ \"192.0.2.1:7\" = \"127.0.0.1:{}\" }}", replica.port);
    let proxy = by_auto(&primary).upstream(&map).start_with_any_replicas();
    proxy.await_replicas(1);
    assert_eq!(nodes(&proxy).len(), 2);
    assert!(nodes(&proxy).contains(&at(replica.port)));
}

/// Looks for so long whether the primary stays the same.
fn stays(proxy: &Proxy, primary: &str, span: Duration) {
    let until = Instant::now() + span;
    while Instant::now() < until {
        assert_eq!(primary_of(proxy), primary);
        sleep_ms(50);
    }
}

fn second_primary(proxy: &Proxy) -> bool {
    proxy.metric("redweir_second_primary", &[]) > 0.5
}

#[test]
fn an_old_primary_that_returns_is_told_of_and_not_followed() {
    let mut topology = Topology::start(2);
    let proxy = Setup::of(&topology).start();
    assert!(!second_primary(&proxy) && proxy.get("/readyz").1.contains("second primary: none\n"));
    topology.primary.kill();
    let first = at(topology.replicas[0].port);
    assert_eq!(topology.replicas[0].cmd(&["REPLICAOF", "NO", "ONE"]), "OK");
    let port = topology.replicas[0].port.to_string();
    assert_eq!(topology.replicas[1].cmd(&["REPLICAOF", "127.0.0.1", &port]), "OK");
    eventually("it is followed", secs(5), || primary_of(&proxy) == first);
    assert_eq!(proxy.cmd(&["SET", "k", "1"]), "OK");

    topology.primary.restart();
    eventually("it is seen", secs(5), || second_primary(&proxy));
    eventually("it is told of", secs(5), || {
        proxy.log().contains("a second node says that it is the primary")
    });
    stays(&proxy, &first, secs(4));
    let (status, body) = proxy.get("/readyz");
    let old = at(topology.primary.port);
    assert_eq!(status, 200);
    assert!(body.contains(&format!("second primary: {old}, not followed\n")), "{body}");
    let log = proxy.log();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("a second node says")).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    for part in ["WARN", &first, &old, "it continues the history that is known"] {
        assert!(told[0].contains(part), "{part}? {}", told[0]);
    }
    assert_eq!(proxy.cmd(&["INCR", "k"]), 2);
    assert_eq!(topology.primary.cmd(&["EXISTS", "k"]), 0, "no write went there");
    assert_eq!(topology.primary.cmd(&["REPLICAOF", "127.0.0.1", &port]), "OK");
    eventually("it is over", secs(5), || !second_primary(&proxy));
    proxy.await_replicas(2);
    assert!(proxy.log().contains("no more than one node says that it is the primary"));
}

#[test]
fn between_primaries_of_which_none_goes_on_from_what_was_known_writes_are_refused() {
    let mut primary = Redis::start(&[]);
    let (one, other) = (Redis::start(&[]), Redis::start(&[]));
    let proxy = Setup::to(primary.port, &[one.port, other.port]).start_with_any_replicas();
    eventually("they are seen", secs(5), || second_primary(&proxy));
    assert_eq!(proxy.cmd(&["SET", "k", "1"]), "OK");
    primary.kill();
    let refused = |reply: &Value| matches!(reply, Value::Error(text) if text.starts_with("MASTERDOWN Two nodes say that they are the primary"));
    eventually("writes are refused", secs(10), || refused(&proxy.cmd(&["SET", "k", "2"])));
    // Longer than anybody's patience.
    let until = Instant::now() + secs(4);
    while Instant::now() < until {
        assert!(refused(&proxy.cmd(&["SET", "k", "2"])));
        sleep_ms(50);
    }
    assert!(second_primary(&proxy));
    let (status, body) = proxy.get("/readyz");
    assert_eq!(status, 503);
    assert!(body.contains("second primary: nothing decides between "), "{body}");
    eventually("it is told of", secs(5), || proxy.log().contains("and nothing decides"));
    for stranger in [&one, &other] {
        assert_eq!(stranger.cmd(&["EXISTS", "k"]), 0);
    }
    primary.restart();
    eventually("the one that was known is back", secs(10), || primary_of(&proxy) == at(primary.port));
    eventually("writes go on", secs(10), || proxy.cmd(&["SET", "k", "3"]) == "OK");
}

/// Names of hosts for one proxy.
struct Hosts(tempfile::TempDir);

impl Hosts {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self) -> std::path::PathBuf {
        self.0.path().join("hosts")
    }

    /// The name stands for these, each the last number of 127.0.0.0/24, from now on.
    fn say(&self, name: &str, hosts: &[u8]) {
        let mut text = "127.0.0.1 localhost\n".to_owned();
        for host in hosts {
            let _ = writeln!(text, "127.0.0.{host} {name}");
        }
        // In place: the mount is of this very file.
        fs::write(self.file(), text).unwrap();
    }
}

/// At the same port of several addresses, each leads to one of these.
fn addresses(targets: &[(u8, u16)]) -> (u16, Vec<Relay>) {
    let port = free_port();
    let relay =
        |(host, target): &(u8, u16)| Relay::listening(Ipv4Addr::new(127, 0, 0, *host), port, &[*target]);
    (port, targets.iter().map(relay).collect())
}

/// Connections of others than replicas and this one.
fn connections(server: &Redis) -> usize {
    server.cmd(&["CLIENT", "LIST", "TYPE", "normal"]).text().lines().count() - 1
}

#[test]
fn each_record_of_a_name_is_a_node_of_its_own() {
    let topology = Topology::start(2);
    let [first, second] = [topology.replicas[0].port, topology.replicas[1].port];
    // One of the records is that of the primary, as with a headless service.
    let (port, _relays) = addresses(&[(21, first), (22, second), (23, topology.primary.port)]);
    let hosts = Hosts::new();
    hosts.say("nodes.test", &[21, 22, 23]);
    let found = format!("[\"dns:nodes.test:{port}\"]");
    let proxy =
        Setup::finding(&at(topology.primary.port), &found).hosts(&hosts.file()).start_with_any_replicas();
    let record = |host: u8| format!("127.0.0.{host}:{port}");
    proxy.await_replicas(2);
    await_nodes(&proxy, &[at(topology.primary.port), record(21), record(22)]);
    assert!(!second_primary(&proxy), "one process by two addresses is no second primary");

    let ended = Arc::new(AtomicBool::new(false));
    let (until, client_port) = (Arc::clone(&ended), proxy.port);
    assert_eq!(proxy.cmd(&["SET", "k", "v"]), "OK");
    let reader = thread::spawn(move || {
        let mut conn = Conn::open(client_port);
        let mut read = 0_u64;
        while !until.load(Ordering::SeqCst) {
            assert_eq!(conn.cmd(&["GET", "k"]), "v", "after {read}");
            read += 1;
        }
        read
    });
    // A connection stays with its replica: others may get the other one.
    eventually("both serve", secs(10), || {
        assert_eq!(proxy.cmd(&["GET", "k"]), "v");
        topology.replica_calls("get").iter().all(|calls| *calls > 0)
    });
    hosts.say("nodes.test", &[21, 23]);
    await_nodes(&proxy, &[at(topology.primary.port), record(21)]);
    eventually("nobody is connected there", secs(10), || connections(&topology.replicas[1]) == 0);
    hosts.say("nodes.test", &[]);
    eventually("it is told", secs(40), || proxy.log().contains("a name is not answered"));
    sleep_ms(6000);
    await_nodes(&proxy, &[at(topology.primary.port), record(21)]);
    hosts.say("nodes.test", &[22, 21]);
    await_nodes(&proxy, &[at(topology.primary.port), record(21), record(22)]);
    proxy.await_replicas(2);
    ended.store(true, Ordering::SeqCst);
    assert!(reader.join().unwrap() > 100, "and no read failed");
}

#[test]
fn a_primary_is_where_its_name_leads() {
    let topology = Topology::start(1);
    let (old, new) = (&topology.primary, &topology.replicas[0]);
    let (port, _relays) = addresses(&[(24, old.port), (25, new.port)]);
    let hosts = Hosts::new();
    hosts.say("primary.test", &[24]);
    let proxy = Setup::at(&format!("primary.test:{port}"), &[]).hosts(&hosts.file()).start();
    assert_eq!(proxy.cmd(&["SET", "k", "1"]), "OK");
    topology.await_sync();
    // The old one is told nothing, and goes on saying that it is the primary.
    assert_eq!(new.cmd(&["REPLICAOF", "NO", "ONE"]), "OK");
    hosts.say("primary.test", &[25]);
    eventually("writes go to the new one", secs(30), || {
        assert!(!proxy.cmd(&["INCR", "k"]).is_error());
        new.cmd(&["GET", "k"]) != "1"
    });
    let mut list = String::new();
    let since = Instant::now();
    while connections(old) > 0 {
        list = old.cmd(&["CLIENT", "LIST"]).text();
        // A name is looked up every ten seconds, and the doctor looks every two.
        assert!(since.elapsed() < secs(20), "somebody is connected to the old one:\n{list}");
        sleep_ms(50);
    }
    drop(list);
    assert!(proxy.log().contains("the name of a node leads elsewhere"));
}

/// One client per level, protocol and database, so that many connections are made to the same address.
fn check_own_writes(port: u16, client: usize, until: Instant) -> u64 {
    let (database, resp3, key) = (client % 12, client >= 12, format!("k{client}"));
    let mut conn = Conn::open(port);
    if resp3 {
        let _ = conn.cmd(&["HELLO", "3"]);
    }
    assert_eq!(conn.cmd(&["SELECT", &database.to_string()]), "OK");
    let mut n = 0_u64;
    while Instant::now() < until {
        n += 1;
        let text = n.to_string();
        assert_eq!(conn.cmd(&["SET", &key, &text]), "OK");
        for _ in 0..4 {
            assert_eq!(conn.cmd(&["GET", &key]), text.as_str(), "client {client}");
        }
        // Long enough for the replica that keeps up, and not for the other one.
        sleep_ms(20);
        assert_eq!(conn.cmd(&["GET", &key]), text.as_str(), "client {client}, later");
    }
    n
}

#[test]
fn behind_an_address_of_many_only_the_process_that_is_polled_answers() {
    let topology = Topology::start(2);
    topology.lag(1, ms(400));
    // The polls come first, and so to the first of them.
    let endpoint = Relay::among(&topology.replica_ports());
    let level = |level: &str| format!("consistency = \"{level}\"\nmax-lag = \"100ms\"");
    let proxy = Setup::to(topology.primary.port, &[endpoint.port])
        .policy("default", &level("fenced"))
        .policy("session", &level("session"))
        .policy("strong", &level("strong"))
        .policy("bounded", &level("bounded"))
        .listener("session")
        .listener("strong")
        .listener("bounded")
        .start();
    for round in 0..2 {
        let until = Instant::now() + secs(4);
        let clients: Vec<_> = (0..24)
            .map(|n| {
                let port = proxy.ports[n % 3];
                thread::spawn(move || check_own_writes(port, n, until))
            })
            .collect();
        // What is read is at most so old: who writes says when.
        let (bounded, primary) = (proxy.ports[3], proxy.port);
        let begun = Instant::now();
        let writer = thread::spawn(move || {
            let mut conn = Conn::open(primary);
            while Instant::now() < until {
                let now = begun.elapsed().as_millis().to_string();
                assert_eq!(conn.cmd(&["SET", "clock", &now]), "OK");
                sleep_ms(5);
            }
        });
        sleep_ms(600);
        let mut conn = Conn::open(bounded);
        while Instant::now() + ms(200) < until {
            let asked = begun.elapsed().as_millis() as u64;
            let told: u64 = conn.cmd(&["GET", "clock"]).text().parse().unwrap();
            assert!(asked.saturating_sub(told) <= 300, "round {round}: {told} at {asked}");
            sleep_ms(2);
        }
        writer.join().unwrap();
        for client in clients {
            assert!(client.join().unwrap() > 5);
        }
        if round == 0 {
            let calls = topology.replica_calls("get");
            assert!(calls[0] > 0 && calls[1] == 0, "{calls:?}");
            // Whoever connects now comes to any of them.
            endpoint.reset();
        }
    }
    assert!(proxy.metric("redweir_panics_total", &[]) < 0.5);
}
