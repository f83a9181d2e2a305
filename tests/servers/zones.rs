//! Availability zones: out of the replicas that are fresh enough those of the proxy's own zone serve, others only when they must.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::support::{Conn, Proxy, Redis, Server, Setup, Topology, eventually, secs, sleep_ms};

/// `zones`, as it stands in the file.
fn zones(of: &[(u16, &str)]) -> String {
    let pairs: Vec<String> =
        of.iter().map(|(port, zone)| format!("\"127.0.0.1:{port}\" = {zone:?}")).collect();
    format!("zones = {{ {} }}", pairs.join(", "))
}

/// A primary and three replicas, of which the first two are in zone `a`, as the proxy is, and the third in `b`.
fn two_near_and_one_far(limit: &str) -> (Topology, Setup) {
    let topology = Topology::start(3);
    assert_eq!(topology.primary.cmd(&["SET", "k", "v"]), "OK");
    topology.await_sync();
    let ports = topology.replica_ports();
    let zones = zones(&[(ports[0], "a"), (ports[1], "a"), (ports[2], "b")]);
    let proxy = format!("[proxy]\nworkers = 1\nzone = \"a\"\n{limit}");
    let setup = Setup::of(&topology).upstream(&zones).proxy(&proxy);
    (topology, setup)
}

/// Every connection reads so many times.
fn read(conns: &mut [Conn], times: usize) {
    for _ in 0..times {
        for conn in &mut *conns {
            assert_eq!(conn.cmd(&["GET", "k"]), "v");
        }
    }
}

/// How many reads each replica serves meanwhile.
fn served(topology: &Topology, meanwhile: impl FnOnce()) -> Vec<u64> {
    let before = topology.replica_calls("get");
    meanwhile();
    topology.replica_calls("get").iter().zip(before).map(|(after, before)| after - before).collect()
}

/// What `/view` calls the zone of a node.
fn zone(proxy: &Proxy, port: u16) -> Option<String> {
    let (view, name) = (proxy.view(), format!("127.0.0.1:{port}"));
    let node = view["nodes"].as_array().unwrap().iter().find(|node| node["node"] == *name).unwrap();
    node["zone"].as_str().map(str::to_owned)
}

#[test]
fn reads_stay_in_the_zone_while_somebody_there_may_serve() {
    let (mut topology, setup) = two_near_and_one_far("");
    let proxy = setup.start();
    let ports = topology.replica_ports();
    let told: Vec<_> = ports.iter().map(|&port| zone(&proxy, port)).collect();
    assert_eq!(told, ["a", "a", "b"].map(|zone| Some(zone.to_owned())));
    assert_eq!(zone(&proxy, topology.primary.port), None);
    let seen = format!("{:?}", proxy.cmd(&["REDWEIR", "VIEW"]));
    assert!(seen.contains(&format!("replica 127.0.0.1:{}, zone b, link up", ports[2])), "{seen}");
    let explained = format!("{:?}", proxy.cmd(&["REDWEIR", "EXPLAIN", "GET", "k"]));
    assert!(explained.contains(&format!("replica 127.0.0.1:{}, zone a, link up", ports[0])), "{explained}");

    let mut conns: Vec<Conn> = (0..24).map(|_| proxy.connect()).collect();
    // On a busy machine one of them is not fresh enough for a while.
    let most = 24 * 20 * 9 / 10;
    eventually("both of the zone serve, and nobody else", secs(10), || {
        let now = served(&topology, || read(&mut conns, 20));
        now[0] > 0 && now[1] > 0 && now[2] == 0 && now[0] + now[1] >= most
    });

    // One is enough.
    topology.replicas[0].server.kill();
    proxy.await_replicas(2);
    let mut calls_of = |topology: &Topology, n: usize| {
        let before = topology.replicas[n].calls("get");
        read(&mut conns, 20);
        topology.replicas[n].calls("get") - before
    };
    eventually("the other one of the zone serves", secs(10), || calls_of(&topology, 2) == 0);
    assert!(calls_of(&topology, 1) >= most);

    topology.replicas[1].server.kill();
    proxy.await_replicas(1);
    eventually("the one of the other zone serves", secs(10), || calls_of(&topology, 2) >= most);

    // The connections come home, and share both.
    for replica in &mut topology.replicas[..2] {
        replica.server.restart();
    }
    proxy.await_replicas(3);
    eventually("reads are at home again", secs(10), || {
        let now = served(&topology, || {
            read(&mut conns, 5);
            sleep_ms(50);
        });
        now[0] > 0 && now[1] > 0 && now[2] == 0
    });
}

#[test]
fn others_help_when_the_zone_has_no_room() {
    let (topology, setup) = two_near_and_one_far("zone-limit = 1");
    let proxy = setup.clone().start();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let mut conn = proxy.connect();
                while !over.load(Ordering::Relaxed) {
                    read(std::slice::from_mut(&mut conn), 1);
                }
            });
        }
        let all_serve = || served(&topology, || sleep_ms(500)).iter().all(|&reads| reads > 100);
        eventually("the other zone helps", secs(20), all_serve);
        // Without a limit nobody has to: those that have left come back, under the load that made them leave.
        let unlimited = proxy.text(&setup).replacen("zone-limit = 1", "zone-limit = 0", 1);
        std::fs::write(proxy.file(), unlimited).unwrap();
        proxy.hang_up();
        eventually("everybody is at home", secs(20), || {
            let now = served(&topology, || sleep_ms(500));
            now[0] > 100 && now[1] > 100 && now[2] == 0
        });
        over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_node_may_say_itself_where_it_is() {
    let primary = Redis::start_as(Server::Valkey81, &[]);
    assert_eq!(primary.cmd(&["SET", "k", "v"]), "OK");
    let replica = |zone| Redis::replica_as(Server::Valkey81, primary.port, &["--availability-zone", zone]);
    let (one, other) = (replica("a"), replica("b"));
    let setup = Setup::to(primary.port, &[one.port, other.port]);
    let proxy = setup.clone().proxy("[proxy]\nworkers = 1\nzone = \"a\"").start();
    assert_eq!(
        [&primary, &one, &other].map(|node| zone(&proxy, node.port)),
        [None, Some("a".to_owned()), Some("b".to_owned())]
    );
    let mut conns: Vec<Conn> = (0..8).map(|_| proxy.connect()).collect();
    eventually("the value is there", secs(10), || {
        [&one, &other].iter().all(|node| node.cmd(&["GET", "k"]) == "v")
    });
    let mut reads = |node: &Redis| {
        let before = node.calls("get");
        read(&mut conns, 5);
        node.calls("get") - before
    };
    assert_eq!(reads(&other), 0);
    assert!(reads(&one) > 30);

    // The proxy is elsewhere now.
    proxy.configure(&setup.clone().proxy("[proxy]\nworkers = 1\nzone = \"b\""));
    proxy.hang_up();
    eventually("reads are in the other zone", secs(10), || reads(&one) == 0);
    assert!(reads(&other) > 30);

    // What the configuration says counts for more.
    let told = zones(&[(one.port, "b"), (other.port, "a")]);
    proxy.configure(&setup.upstream(&told).proxy("[proxy]\nworkers = 1\nzone = \"b\""));
    proxy.hang_up();
    eventually("reads are back", secs(10), || reads(&other) == 0);
    assert_eq!(zone(&proxy, one.port).as_deref(), Some("b"));
}
