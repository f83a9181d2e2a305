//! A replica that is told to follow another one, which is behind it, resyncs in full and goes back. Whoever is connected
//! to it stays so.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::corners::{Tally, await_service, hold, release, repoint, share};
use crate::support::checker::{Level, Violation};
use crate::support::load::{Load, Plan, speaks_resp3};
use crate::support::{
    Conn, Direction, Moved, Proxy, Relay, Setup, Topology, Watch, eventually, ms, secs, sleep_ms,
};

/// By how much the replica lags that the other one comes to follow.
const FAR: Duration = ms(300);

/// Servers, the proxy, and clients that write through it and past it. The first replica lags, the second goes back.
struct Rig {
    topology: Topology,
    /// The way of the proxy to the second replica.
    path: Relay,
    proxy: Proxy,
    loads: [(Load, Level); 2],
    moved: Vec<Moved>,
}

impl Rig {
    fn start(name: &str, stream: &str, way: Duration) -> Self {
        let topology = Topology::start(2);
        let path = Relay::to(topology.replicas[1].port);
        path.delay(Direction::Down, way);
        let proxy = Setup::to(topology.primary.port, &[topology.replicas[0].port, path.port])
            .policy("default", &format!("consistency = {name:?}\nmax-lag = \"5s\""))
            .toml(&format!("[stream]\nsource = {stream:?}"))
            .start();
        topology.lag(0, FAR);
        let plan = Plan {
            keys: 6,
            readers: 6,
            idlers: 6,
            idle: ms(600),
            write_every: ms(60),
            read_every: ms(3),
            both_protocols: true,
            ..Plan::on(proxy.port)
        };
        let ours = if name == "session" { Level::Session } else { Level::Fenced };
        let others = if name == "strong" { Level::Fenced } else { Level::Session };
        let past = plan.writing_to(topology.primary.port);
        let loads = [(Plan { writers_read: true, ..plan }.start(), ours), (past.start(), others)];
        sleep_ms(500);
        Self { topology, path, proxy, loads, moved: Vec::new() }
    }

    /// The second replica follows the first for a while. In between writers pause, or they do not: then what it was
    /// known to have is soon too little for most keys.
    fn round(&mut self, hushed: bool) {
        let [far, near] = self.topology.replicas.as_slice() else { unreachable!("two replicas") };
        if hushed {
            hold(&self.topology, 0);
            sleep_ms(200);
            self.loads.iter().for_each(|(load, _)| load.hush());
            let head = self.topology.primary.head();
            eventually("it is known to have all of it", secs(5), || {
                applied(&self.proxy, self.path.port) >= head
            });
            // And what comes next it proves to whoever asks.
            self.topology.primary.cmd(&["SET", "one", "more"]);
            sleep_ms(50);
        }
        let watch = Watch::on(near.port);
        let before = far.stat("sync_full");
        repoint(near, far.port);
        eventually("a full resync", secs(10), || far.stat("sync_full") > before && near.applied().is_some());
        // It may come to be trusted again.
        sleep_ms(if hushed { 600 } else { 200 });
        self.loads[0].0.go_on(self.proxy.port);
        self.loads[1].0.go_on(self.topology.primary.port);
        sleep_ms(200);
        repoint(near, near.link.port);
        self.moved.extend(watch.stop());
        release(&self.topology, 0);
        self.topology.lag(0, FAR);
        await_service(&self.topology, &self.proxy);
        sleep_ms(300);
    }

    /// The violations, and how many reads there were.
    fn finish(self) -> (Vec<Violation>, usize) {
        let (mut violations, mut reads) = (Vec::new(), 0);
        for (load, level) in self.loads {
            let outcome = load.stop();
            let verdict = outcome.history.verify(level, secs(10));
            reads += verdict.staleness.reads;
            violations.extend(verdict.violations);
            let errors = outcome.read_errors.len();
            assert!(errors < 1 + reads / 100, "{errors} errors, {:?}", outcome.read_errors.first());
        }
        (violations, reads)
    }
}

/// What the proxy knows the replica on this port to have applied.
fn applied(proxy: &Proxy, port: u16) -> i64 {
    let (view, name) = (proxy.view(), format!("127.0.0.1:{port}"));
    let mut nodes = view["nodes"].as_array().unwrap().iter();
    nodes.find(|node| node["node"] == *name).and_then(|node| node["applied_offset"].as_i64()).unwrap_or(-1)
}

/// How long after the end of the last full resync before it a read was sent; `None` when it was answered before any.
fn lateness(violation: &Violation, moved: &[Moved]) -> Option<Duration> {
    let last = moved.iter().rfind(|moved| moved.after <= violation.read.end)?;
    Some(violation.read.start.saturating_duration_since(last.before))
}

/// Prints how late reads were that showed what a replica had gone back to, by the power of two of milliseconds that is
/// not reached, and the latest of each round.
fn print_window(name: &str, stale: &[&Violation], moved: &[Moved]) {
    let mut latest = vec![Duration::ZERO; moved.len()];
    let mut buckets = std::collections::BTreeMap::new();
    for violation in stale {
        let Some(late) = lateness(violation, moved) else { continue };
        *buckets.entry((late.as_millis() as u64 + 1).next_power_of_two()).or_insert(0) += 1;
        let round = moved.iter().rposition(|moved| moved.after <= violation.read.end).unwrap();
        latest[round] = latest[round].max(late);
    }
    println!(
        "{name}: RESP2, sent so many ms after the replica had gone back: {buckets:?}; the latest {latest:?}"
    );
}

/// What the replica that goes back says takes so long on its way.
fn nobody_sees_a_replica_go_back(name: &str, stream: &str, way: Duration) {
    let mut rig = Rig::start(name, stream, way);
    (0..5).for_each(|n| rig.round(n != 1));
    let served = share(&rig.proxy);
    let moved = std::mem::take(&mut rig.moved);
    let (violations, reads) = rig.finish();
    let (resp3, resp2): (Vec<&Violation>, Vec<&Violation>) =
        violations.iter().partition(|violation| speaks_resp3(violation.read.session));
    println!(
        "{name}: {} of {reads} reads broke the promise, RESP2 {}, RESP3 {}; {:.0} % by replicas",
        violations.len(),
        resp2.len(),
        resp3.len(),
        100.0 * served
    );
    print_window(name, &resp2, &moved);
    assert!(moved.len() >= 5, "it went back {} times", moved.len());
    assert!(reads > 2000 && served > 0.05, "{reads} reads, {served:.2} by replicas");
    assert!(resp3.is_empty(), "{name}: {} RESP3 reads, first {:?}", resp3.len(), resp3[0]);
    assert!(resp2.is_empty(), "{name}: {} RESP2 reads, first {:?}", resp2.len(), resp2[0]);
}

/// Nothing in RESP2 tells that a replica goes back, and what tells of it on another connection may come after a reply. But
/// whoever is pointed at another node says so before that one's data comes.
#[test]
fn a_replica_that_is_pointed_elsewhere_is_in_doubt_before_it_goes_back() {
    let topology = Topology::start(1);
    let replica = &topology.replicas[0];
    let proxy = Setup::to(topology.primary.port, &[replica.port])
        .upstream("poll-interval = \"2s\"")
        .policy("default", "consistency = \"bounded\"\nmax-lag = \"60s\"")
        .start();
    let mut conn = proxy.connect();
    conn.cmd(&["SET", "k", "v"]);
    topology.await_sync();
    let mut served = |count: u64| {
        let before = replica.calls("get");
        (0..count).for_each(|_| assert_eq!(conn.cmd(&["GET", "k"]), "v"));
        replica.calls("get") - before
    };
    // Somebody who takes connections, and says nothing.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    for _ in 0..3 {
        eventually("it is listened to, and serves", secs(20), || {
            replica.info("clients")["blocked_clients"] == "1" && served(10) == 10
        });
        repoint(replica, nobody.local_addr().unwrap().port());
        assert!(served(100) <= 1, "the reply to the first is looked at; then nobody asks it");
        repoint(replica, replica.link.port);
    }
}

/// A1
#[test]
fn fenced_reads_do_not_see_a_replica_go_back() {
    nobody_sees_a_replica_go_back("fenced", "auto", Duration::ZERO);
}

/// A1
#[test]
fn sessions_do_not_see_a_replica_go_back() {
    nobody_sees_a_replica_go_back("session", "auto", Duration::ZERO);
}

/// A1
#[test]
fn strong_reads_do_not_see_a_replica_go_back() {
    nobody_sees_a_replica_go_back("strong", "auto", ms(15));
}

/// A1: without the stream a replica has to prove on the spot that it has everything; its answers to that are as fast as
/// those to the proxy's own questions.
#[test]
fn strong_reads_without_the_stream_do_not_see_a_replica_go_back() {
    nobody_sees_a_replica_go_back("strong", "off", ms(15));
}

/// A2: the proxy knows one replica alone, and nothing tells it of writes.
#[test]
fn an_idle_session_does_not_see_its_replica_go_back() {
    let topology = Topology::start(2);
    let [far, home] = topology.replicas.as_slice() else { unreachable!("two replicas") };
    let proxy = Setup::to(topology.primary.port, &[home.port])
        .policy("default", "consistency = \"session\"\nmax-lag = \"10s\"")
        .toml("[stream]\nsource = \"off\"")
        .start();
    let mut clients: Vec<Conn> = (0..9).map(|_| proxy.connect()).collect();
    // Some of both protocols read at once, and some later.
    clients[3..8].iter_mut().for_each(|conn| assert!(!conn.cmd(&["HELLO", "3"]).is_error()));
    let mut tally = Tally::default();
    for round in 1..=5 {
        topology.primary.cmd(&["SET", "k", &(round - 1).to_string()]);
        topology.await_sync();
        proxy.await_replicas(1);
        eventually("the replica serves all of them", secs(5), || {
            let before = home.calls("get");
            for conn in &mut clients {
                conn.cmd(&["GET", "k"]);
            }
            home.calls("get") >= before + clients.len() as u64
        });
        hold(&topology, 0);
        let value = round.to_string();
        topology.primary.cmd(&["SET", "k", &value]);
        eventually("it is there", secs(5), || home.cmd(&["GET", "k"]) == value.as_str());
        for conn in &mut clients {
            assert_eq!(conn.cmd(&["GET", "k"]), value.as_str());
        }
        repoint(home, far.port);
        eventually("it has gone back", secs(10), || home.cmd(&["GET", "k"]) != value.as_str());
        let since = Instant::now();
        for n in [3, 4, 5, 0, 1, 2, 6, 7, 8] {
            match n {
                1..3 => sleep_ms(50 * n as u64),
                // When the proxy has seen where it is, and trusts it again, if it does so within a second.
                6 => {
                    while since.elapsed() < ms(300) || proxy.eligible() == 0 && since.elapsed() < secs(1) {
                        sleep_ms(10);
                    }
                }
                _ => {}
            }
            let reply = clients[n].cmd(&["GET", "k"]);
            let wrong = || format!("round {round}, client {n}, {:?} later: {reply:?}", since.elapsed());
            tally.look((reply != value.as_str()).then(wrong));
        }
        release(&topology, 0);
        repoint(home, home.link.port);
    }
    let served = share(&proxy);
    println!("idle sessions: {:.0} % by replicas", 100.0 * served);
    assert!(served > 0.1, "replicas served {served:.2} of the reads");
    tally.assert_clean("idle sessions whose replica goes back");
}
