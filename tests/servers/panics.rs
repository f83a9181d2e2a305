//! A panic is a mistake, and ends what it happened in and nothing else: each is provoked (`REDWEIR_PROVOKE`, which release
//! builds do not know), while a neighbour goes on; the log and a metric tell of it.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]

use crate::support::{Conn, Proxy, Setup, Topology, Value, eventually, ms, secs};

const FENCED: &str = "[policy.default]\nconsistency = \"fenced\"";

fn rig(places: &str) -> (Topology, Proxy) {
    let topology = Topology::start(1);
    let proxy = Setup::of(&topology).toml(FENCED).provoke(places).start();
    (topology, proxy)
}

fn panics(proxy: &Proxy) -> u64 {
    proxy.metric("redweir_panics_total", &[]) as u64
}

/// Works as ever: reads, writes, a transaction, from replicas, too.
fn assert_works(proxy: &Proxy, conn: &mut Conn) {
    conn.patience(secs(5));
    for n in 0..20 {
        assert_eq!(conn.cmd(&["SET", "k", &n.to_string()]), "OK");
        assert_eq!(conn.cmd(&["GET", "k"]), n.to_string().as_str());
    }
    conn.cmd(&["MULTI"]);
    conn.cmd(&["INCR", "n"]);
    assert!(matches!(conn.cmd(&["EXEC"]), Value::Array(_)));
    let served = || proxy.metric("redweir_commands_total", &[("access", "read"), ("target", "replica")]);
    let before = served();
    eventually("replicas serve", secs(10), || {
        conn.cmd(&["GET", "other"]);
        served() > before + 3.0
    });
}

fn assert_all_work(proxy: &Proxy, conns: &mut [Conn]) {
    for conn in conns {
        assert_works(proxy, conn);
    }
}

fn assert_told(proxy: &Proxy, place: &str) {
    eventually("the log tells of it", secs(2), || proxy.log().contains(&format!("provoked: {place}")));
}

#[test]
fn in_a_client_s_task_it_ends_that_client() {
    let (topology, proxy) = rig("worker");
    let mut neighbours: Vec<Conn> = (0..4).map(|_| proxy.connect()).collect();
    assert_all_work(&proxy, &mut neighbours);
    for round in 1..=6 {
        let mut victim = proxy.connect();
        // With a connection of its own, and a reply that it is still owed.
        victim.cmd(&["WATCH", "k"]);
        victim.ask(&["GET", "k"]).ask(&["GET", "panic!"]);
        victim.read_to_close();
        assert_eq!(panics(&proxy), round);
    }
    assert_told(&proxy, "worker");
    assert_all_work(&proxy, &mut neighbours);
    assert!(proxy.metric("redweir_clients", &[]) < 5.5, "they are gone");
    let listed = || topology.primary.cmd(&["CLIENT", "LIST"]).text();
    eventually("their connections are, too", secs(3), || {
        !listed().contains("flags=x") && !listed().contains("cmd=watch")
    });
}

#[test]
fn on_a_connection_to_a_node_it_ends_that_connection() {
    let (topology, proxy) = rig("lane");
    let mut neighbours: Vec<Conn> = (0..4).map(|_| proxy.connect()).collect();
    topology.primary.cmd(&["SET", "bad", "panic!"]);
    topology.await_sync();
    assert_all_work(&proxy, &mut neighbours);
    for _ in 0..6 {
        let mut victim = proxy.connect();
        victim.patience(secs(5)).ask(&["GET", "bad"]).ask(&["PING"]);
        let reply = victim.try_read();
        assert!(!reply.is_ok_and(|reply| reply == "panic!"));
    }
    assert!(panics(&proxy) >= 6);
    assert_told(&proxy, "lane");
    assert_all_work(&proxy, &mut neighbours);
}

#[test]
fn on_the_control_thread_what_was_lost_is_started_again() {
    for place in ["prober", "keeper"] {
        let topology = Topology::start(1);
        let proxy = Setup::of(&topology).toml(FENCED).provoke(place).start_with_any_replicas();
        let mut conn = proxy.connect();
        eventually("it has happened", secs(10), || panics(&proxy) == 1);
        assert_told(&proxy, place);
        proxy.await_replicas(1);
        assert_works(&proxy, &mut conn);
        // It still sees what happens.
        assert_eq!(topology.replicas[0].cmd(&["REPLICAOF", "NO", "ONE"]), "OK");
        eventually("a replica that is none any longer is left", secs(5), || proxy.eligible() == 0);
        assert_eq!(panics(&proxy), 1, "{place}");
    }
}

#[test]
fn in_the_admin_server_it_ends_one_answer() {
    let (_topology, proxy) = rig("admin");
    for round in 1..=5 {
        assert!(crate::support::http_get(proxy.admin_port, "/panic").is_err());
        assert_eq!(proxy.get("/livez").0, 200);
        assert_eq!(panics(&proxy), round);
    }
    assert_told(&proxy, "admin");
    let mut conn = proxy.connect();
    conn.patience(ms(3000));
    assert_works(&proxy, &mut conn);
}
