//! Nodes and networks that fail under load. Reads are repeated elsewhere and clients see nothing of it; writes are sent
//! at most once, and a client hears when nobody knows.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::checker::Level;
use crate::support::load::{Outcome, Plan};
use crate::support::{
    Conn, Direction, Proxy, Relay, Server, Setup, Topology, Value, encode, eventually, ms, secs, sleep_ms,
};

/// Fails over soon: what the tests wait for.
const SOON: &str = "probe-timeout = \"300ms\"";
/// Asks so seldom that whatever happens happens in between.
const SELDOM: &str = "probe-timeout = \"20s\"\npoll-interval = \"5s\"";

/// Mostly reads.
fn reads(proxy: &Proxy) -> Plan {
    Plan { readers: 6, write_every: ms(100), writers_read: true, ..Plan::on(proxy.port) }
}

fn assert_unharmed(outcome: &Outcome) {
    outcome.assert_no_errors();
    outcome.history.verify(Level::Fenced, Duration::MAX).assert_holds();
    assert!(outcome.history.reads.len() > 500, "only {} reads", outcome.history.reads.len());
}

#[test]
fn clients_see_nothing_of_a_replica_that_stops() {
    let topology = Topology::start(2);
    let proxy = Setup::of(&topology).upstream(SOON).start();
    let load = reads(&proxy).start();
    sleep_ms(500);
    topology.replicas[0].pause();
    sleep_ms(2000);
    assert_eq!(proxy.eligible(), 1, "it is out of service");
    topology.replicas[0].resume();
    proxy.await_replicas(2);
    let before = topology.replicas[0].calls("get");
    sleep_ms(700);
    assert!(topology.replicas[0].calls("get") > before, "it serves again");
    let outcome = load.stop();
    assert_unharmed(&outcome);
    assert!(outcome.slowest_read < ms(1500), "{:?}", outcome.slowest_read);
}

#[test]
fn clients_see_nothing_of_a_replica_that_dies_and_comes_back() {
    let mut topology = Topology::start(2);
    let proxy = Setup::of(&topology).upstream(SOON).start();
    let load = reads(&proxy).start();
    for _ in 0..3 {
        sleep_ms(300);
        topology.replicas[1].server.kill();
        sleep_ms(300);
        topology.replicas[1].server.restart_unready();
        eventually("it is in sync", secs(5), || {
            Conn::try_open(topology.replicas[1].port).is_ok() && topology.replicas[1].applied().is_some()
        });
        proxy.await_replicas(2);
    }
    let outcome = load.stop();
    assert_unharmed(&outcome);
    assert!(outcome.slowest_read < ms(1000), "{:?}", outcome.slowest_read);
}

#[test]
fn clients_see_nothing_of_connections_to_a_replica_that_are_reset() {
    let topology = Topology::start(1);
    let path = Relay::to(topology.replicas[0].port);
    let proxy = Setup::to(topology.primary.port, &[path.port]).upstream(SOON).start();
    let load = reads(&proxy).start();
    for _ in 0..6 {
        sleep_ms(400);
        path.reset();
    }
    let outcome = load.stop();
    assert_unharmed(&outcome);
    assert!(topology.replicas[0].calls("get") > 50);
}

/// No RST, no FIN: only the silence tells.
#[test]
fn clients_see_nothing_of_a_replica_behind_a_black_hole() {
    let topology = Topology::start(2);
    let path = Relay::to(topology.replicas[0].port);
    let proxy =
        Setup::to(topology.primary.port, &[path.port, topology.replicas[1].port]).upstream(SOON).start();
    let load = reads(&proxy).start();
    sleep_ms(400);
    path.cut();
    sleep_ms(1500);
    assert_eq!(proxy.eligible(), 1);
    path.heal();
    proxy.await_replicas(2);
    let outcome = load.stop();
    assert_unharmed(&outcome);
    assert!(outcome.slowest_read < ms(1500), "{:?}", outcome.slowest_read);
}

/// Reads that are content with any replica are, also when one fails while the primary doesn't answer.
#[test]
fn eventual_reads_need_only_one_replica() {
    let topology = Topology::start(2);
    let proxy = Setup::of(&topology).upstream(SOON).policy("default", "consistency = \"eventual\"").start();
    topology.primary.cmd(&["SET", "k", "v"]);
    topology.await_sync();
    let mut clients: Vec<Conn> = (0..20).map(|_| proxy.connect()).collect();
    for conn in &mut clients {
        assert_eq!(conn.cmd(&["GET", "k"]), "v");
    }
    topology.primary.pause();
    sleep_ms(1500);
    topology.replicas[0].pause();
    for conn in &mut clients {
        conn.ask(&["GET", "k"]);
    }
    for (n, conn) in clients.iter_mut().enumerate() {
        assert_eq!(conn.read(), "v", "client {n}");
    }
    assert_eq!(proxy.cmd(&["GET", "k"]), "v");
}

/// A full resync under a new history, with a slow load: nobody sees LOADING, half a dataset or an old value.
#[test]
fn clients_see_nothing_of_a_full_resync() {
    let topology = Topology::with(&[], 2, &Server::slow_to_load("500"));
    let proxy = Setup::of(&topology).upstream(SOON).start();
    let mut conn = topology.primary.connect();
    for n in 0..1000 {
        conn.ask(&["SET", &format!("fill:{n}"), "v"]);
    }
    conn.read_many(1000);
    topology.await_sync();
    let load = reads(&proxy).start();
    sleep_ms(500);
    let before = topology.primary.stat("sync_full");
    assert_eq!(conn.cmd(&["DEBUG", "CHANGE-REPL-ID"]), "OK");
    conn.cmd(&["CLIENT", "KILL", "TYPE", "replica"]);
    eventually("both resync in full", secs(5), || topology.primary.stat("sync_full") >= before + 2);
    topology.await_sync();
    proxy.await_replicas(2);
    sleep_ms(300);
    assert_unharmed(&load.stop());
}

/// Its process is another one, with data from before, and it answers sooner than anybody has asked how it is.
#[test]
fn a_replica_that_comes_back_with_an_old_dump_serves_nothing_of_it() {
    let mut topology = Topology::start(1);
    let lines = "consistency = \"fenced\"\nmax-lag = \"60s\"";
    let setup = Setup::of(&topology).upstream(SELDOM).policy("default", lines);
    let proxy = setup.start();
    proxy.cmd(&["SET", "k", "old"]);
    topology.await_sync();
    assert_eq!(topology.replicas[0].cmd(&["SAVE"]), "OK");
    proxy.cmd(&["SET", "k", "new"]);
    topology.await_sync();
    let mut clients: Vec<Conn> = (0..10).map(|_| proxy.connect()).collect();
    // In RESP2 the loss of the witness would tell as well.
    clients.iter_mut().step_by(2).for_each(|conn| assert!(!conn.cmd(&["HELLO", "3"]).is_error()));
    eventually("it is known to have applied that", secs(25), || {
        let (view, head) = (proxy.view(), topology.primary.head());
        let mut nodes = view["nodes"].as_array().unwrap().iter();
        nodes.all(|node| node["applied_offset"].as_i64() == Some(head))
    });
    for conn in &mut clients {
        assert_eq!(conn.cmd(&["GET", "k"]), "new");
    }
    assert!(topology.replicas[0].calls("get") > 0, "it serves");
    topology.replicas[0].link.cut();
    topology.replicas[0].server.restart();
    assert_eq!(topology.replicas[0].cmd(&["GET", "k"]), "old");
    for round in 0..50 {
        for conn in &mut clients {
            assert_eq!(conn.cmd(&["GET", "k"]), "new", "round {round}");
        }
        sleep_ms(10);
    }
}

/// Executed, but the answers are lost: each client is told that nobody knows, and nothing is sent again.
#[test]
fn a_write_whose_answer_is_lost_is_never_sent_again() {
    let topology = Topology::start(1);
    let path = Relay::to(topology.primary.port);
    let proxy = Setup::to(path.port, &topology.replica_ports()).start();
    let mut clients: Vec<Conn> = (0..8).map(|_| proxy.connect()).collect();
    // Every worker has its connection to the primary before the answers stop.
    for conn in &mut clients {
        conn.cmd(&["INCR", "n"]);
    }
    path.stall(Direction::Down);
    for conn in &mut clients {
        conn.ask(&["INCR", "n"]);
    }
    eventually("all are executed", secs(2), || topology.primary.cmd(&["GET", "n"]) == "16");
    path.reset();
    path.heal();
    for conn in &mut clients {
        let reply = conn.read();
        assert!(reply.error().contains("may have been executed"), "{reply:?}");
    }
    assert!(proxy.metric("redweir_uncertain_writes_total", &[]) >= 8.0);
    eventually("the primary is back", secs(5), || proxy.cmd(&["PING"]) == "PONG");
    assert_eq!(proxy.cmd(&["INCR", "n"]), 17);
}

/// What counting clients know at the end.
#[derive(Default)]
struct Audit {
    acked: i64,
    unknown: i64,
    refused: i64,
}

/// Clients that count, with pipelines of five, until they are told to stop.
fn count(port: u16, stop: &Arc<AtomicBool>) -> thread::JoinHandle<Audit> {
    let stop = Arc::clone(stop);
    thread::spawn(move || {
        let mut audit = Audit::default();
        let mut conn = Conn::open(port);
        while !stop.load(Ordering::SeqCst) {
            conn.send(&encode(&["INCR", "n"]).repeat(5));
            for answered in 0..5 {
                match conn.try_read() {
                    Ok(Value::Int(_)) => audit.acked += 1,
                    Ok(Value::Error(text)) if text.contains("may have been executed") => audit.unknown += 1,
                    Ok(Value::Error(_)) => audit.refused += 1,
                    Ok(other) => panic!("{other:?}"),
                    Err(_) => {
                        audit.unknown += 5 - answered;
                        conn = Conn::open(port);
                        break;
                    }
                }
            }
            sleep_ms(1);
        }
        audit
    })
}

fn total(clients: Vec<thread::JoinHandle<Audit>>) -> Audit {
    let mut all = Audit::default();
    for client in clients {
        let one = client.join().unwrap();
        all.acked += one.acked;
        all.unknown += one.unknown;
        all.refused += one.refused;
    }
    all
}

fn assert_counted(audit: &Audit, last: i64) {
    let Audit { acked, unknown, refused } = *audit;
    assert!(acked > 100, "only {acked} were acknowledged, {unknown} unknown, {refused} refused");
    assert!(
        acked <= last && last <= acked + unknown,
        "{acked} acknowledged, {unknown} unknown, but {last} counted"
    );
}

#[test]
fn no_write_is_executed_twice_when_connections_to_the_primary_are_reset() {
    let topology = Topology::start(1);
    let path = Relay::to(topology.primary.port);
    let proxy = Setup::to(path.port, &topology.replica_ports()).start();
    let stop = Arc::new(AtomicBool::new(false));
    let clients = (0..6).map(|_| count(proxy.port, &stop)).collect();
    for round in 0..20 {
        sleep_ms(100);
        path.delay(Direction::Down, ms(round % 4 * 5));
        path.reset();
    }
    stop.store(true, Ordering::SeqCst);
    let audit = total(clients);
    assert_counted(&audit, topology.primary.cmd(&["GET", "n"]).int());
}

#[test]
fn no_acknowledged_write_is_lost_when_a_primary_that_saves_dies() {
    let mut topology = Topology::with(&["--appendonly", "yes", "--appendfsync", "always"], 1, &[]);
    let proxy = Setup::of(&topology).upstream(SOON).start();
    let stop = Arc::new(AtomicBool::new(false));
    let clients = (0..6).map(|_| count(proxy.port, &stop)).collect();
    sleep_ms(700);
    topology.primary.kill();
    sleep_ms(300);
    topology.primary.restart();
    eventually("writes go on", secs(5), || !proxy.cmd(&["SET", "k", "v"]).is_error());
    sleep_ms(500);
    stop.store(true, Ordering::SeqCst);
    // Writes that were not on their way in that moment were held, and went on.
    let audit = total(clients);
    assert_counted(&audit, topology.primary.cmd(&["GET", "n"]).int());
}

#[test]
fn wait_counts_replicas_and_nothing_else() {
    let topology = Topology::start(2);
    let proxy = Setup::of(&topology).start();
    let mut conn = proxy.connect();
    conn.cmd(&["SET", "k", "v"]);
    assert_eq!(conn.cmd(&["WAIT", "2", "3000"]), 2);
    topology.replicas[0].link.cut();
    conn.cmd(&["SET", "k", "w"]);
    assert_eq!(conn.cmd(&["WAIT", "2", "400"]), 1);
    topology.replicas[1].link.cut();
    conn.cmd(&["SET", "k", "x"]);
    assert_eq!(conn.cmd(&["WAIT", "1", "400"]), 0);
    let mut direct = topology.primary.connect();
    direct.cmd(&["SET", "k", "y"]);
    assert_eq!(direct.cmd(&["WAIT", "1", "400"]), 0, "the proxy's own link earns no credit");
}

#[test]
fn the_proxy_is_no_replica_to_min_replicas_to_write() {
    let mut topology =
        Topology::with(&["--min-replicas-to-write", "1", "--min-replicas-max-lag", "1"], 1, &[]);
    let proxy = Setup::of(&topology).start();
    assert_eq!(proxy.cmd(&["SET", "k", "v"]), "OK");
    topology.replicas[0].server.kill();
    eventually("writes are refused", secs(6), || {
        let reply = proxy.cmd(&["SET", "k", "w"]);
        matches!(&reply, Value::Error(text) if text == "NOREPLICAS Not enough good replicas to write.")
    });
    sleep_ms(1500);
    assert!(proxy.cmd(&["SET", "k", "x"]).is_error(), "and stay so");
    assert_ne!(proxy.cmd(&["GET", "k"]).text(), "x", "what was refused was not written");
}

#[test]
fn attaching_costs_the_servers_no_full_resync() {
    let topology = Topology::start(2);
    let full = || {
        let replicas: u64 = topology.replicas.iter().map(|replica| replica.stat("sync_full")).sum();
        topology.primary.stat("sync_full") + replicas
    };
    let before = full();
    let proxy = Setup::of(&topology).start();
    eventually("the stream is attached", secs(5), || proxy.metric("redweir_stream_attached", &[]) > 0.5);
    proxy.cmd(&["SET", "k", "v"]);
    sleep_ms(500);
    drop(proxy);
    let again = Setup::of(&topology).start();
    eventually("the stream is attached", secs(5), || again.metric("redweir_stream_attached", &[]) > 0.5);
    assert_eq!(full(), before);
    assert_eq!(topology.primary.info("replication")["connected_slaves"], "2", "it hangs on a replica");
}

/// A write that the proxy never saw still fences its key, as soon as the stream has told of it.
#[test]
fn writes_of_others_are_fenced_by_the_stream() {
    let topology = Topology::start(2);
    // A replica that serves the stream could itself be the one that lags.
    let proxy = Setup::of(&topology).toml("[stream]\nsource = \"primary\"").start();
    eventually("the stream is attached", secs(5), || proxy.metric("redweir_stream_attached", &[]) > 0.5);
    topology.primary.cmd(&["SET", "k", "old"]);
    topology.await_sync();
    sleep_ms(300);
    topology.lag(0, secs(2));
    topology.primary.cmd(&["SET", "k", "new"]);
    sleep_ms(500);
    for _ in 0..20 {
        assert_eq!(proxy.cmd(&["GET", "k"]), "new");
    }
}

/// The roles are swapped by hand: writes go to the new primary, and no connection stays with the old one.
/// Writes that the old primary never got are sent to the new one. What the client has sent after them waits for that.
#[test]
fn writes_are_in_order_across_a_failover() {
    for _ in 0..3 {
        let mut topology = Topology::start(1);
        let proxy = Setup::of(&topology).upstream(SOON).proxy("[proxy]\nworkers = 1").start();
        let mut conn = proxy.connect();
        assert_eq!(conn.cmd(&["RPUSH", "log", "0"]), Value::Int(1));
        topology.await_sync();
        topology.primary.kill();
        sleep_ms(20);
        let mut sent = 0;
        let mut send = |conn: &mut Conn, span: Duration| {
            let begun = Instant::now();
            while begun.elapsed() < span {
                sent += 1;
                conn.ask(&["RPUSH", "log", &sent.to_string()]);
                sleep_ms(1);
            }
            sent
        };
        send(&mut conn, ms(100));
        assert_eq!(topology.replicas[0].cmd(&["REPLICAOF", "NO", "ONE"]), "OK");
        let sent = send(&mut conn, ms(700));
        conn.read_many(sent);
        let Value::Array(log) = topology.replicas[0].cmd(&["LRANGE", "log", "0", "-1"]) else {
            panic!("no list")
        };
        let log: Vec<u32> = log.iter().map(|entry| entry.text().parse().unwrap()).collect();
        assert!(log.is_sorted() && log.last() == Some(&(sent as u32)), "{log:?}");
        assert!(log.len() > 100, "{} of {sent} writes", log.len());
    }
}

#[test]
fn a_failover_by_hand_is_followed() {
    let topology = Topology::start(2);
    let proxy = Setup::of(&topology).upstream(SOON).start();
    let mut conn = proxy.connect();
    assert_eq!(conn.cmd(&["SET", "k", "before"]), "OK");
    topology.await_sync();
    let promoted = &topology.replicas[0];
    let port = promoted.port.to_string();
    assert_eq!(promoted.cmd(&["REPLICAOF", "NO", "ONE"]), "OK");
    assert_eq!(topology.primary.cmd(&["REPLICAOF", "127.0.0.1", &port]), "OK");
    assert_eq!(topology.replicas[1].cmd(&["REPLICAOF", "127.0.0.1", &port]), "OK");
    eventually("writes are accepted", secs(5), || conn.cmd(&["SET", "k", "after"]) == "OK");
    assert_eq!(promoted.cmd(&["GET", "k"]), "after");
    assert_eq!(conn.cmd(&["GET", "k"]), "after");
    proxy.await_replicas(2);
    for n in 0..50 {
        assert_eq!(conn.cmd(&["SET", "k", &n.to_string()]), "OK");
        assert_eq!(proxy.cmd(&["GET", "k"]), n.to_string().as_str());
    }
}
