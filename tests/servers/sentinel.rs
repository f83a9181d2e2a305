//! Sentinels tell which nodes there are: real ones that fail over under load, and some that lie.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]
#![allow(clippy::print_stderr, reason = "figures are to be seen")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use crate::support::{
    Conn, Proxy, Redis, Sentinel, Setup, Told, Topology, Value, eventually, ms, secs, sleep_ms,
};

/// The nodes of `/view`, by port.
fn nodes(proxy: &Proxy) -> Vec<u16> {
    let view = proxy.view();
    let port = |node: &serde_json::Value| port_of(node["node"].as_str().unwrap());
    let mut ports: Vec<u16> = view["nodes"].as_array().unwrap().iter().map(port).collect();
    ports.sort_unstable();
    ports
}

fn port_of(address: &str) -> u16 {
    address.rsplit_once(':').unwrap().1.parse().unwrap()
}

/// The port of the primary of `/view`.
fn primary_of(proxy: &Proxy) -> Option<u16> {
    proxy.view()["primary"].as_str().map(port_of)
}

fn sorted(mut ports: Vec<u16>) -> Vec<u16> {
    ports.sort_unstable();
    ports
}

fn ports_of(sentinels: &[Sentinel]) -> Vec<u16> {
    sentinels.iter().map(|sentinel| sentinel.port).collect()
}

fn await_nodes(proxy: &Proxy, expected: &[u16]) {
    let expected = sorted(expected.to_vec());
    // A sentinel asks a primary every ten seconds which replicas it has.
    eventually(&format!("the nodes are {expected:?}"), secs(25), || nodes(proxy) == expected);
}

/// A replica that follows its primary directly, as Sentinel would have it.
fn replica_of(primary: &Redis) -> Redis {
    Redis::replica_of(primary.port, &[])
}

/// A primary with so many replicas, all in sync.
fn servers(replicas: usize) -> (Redis, Vec<Redis>) {
    let primary = Redis::start(&[]);
    let replicas: Vec<Redis> = (0..replicas).map(|_| replica_of(&primary)).collect();
    for replica in &replicas {
        eventually("a replica is in sync", secs(10), || replica.applied().is_some());
    }
    (primary, replicas)
}

#[test]
fn nodes_are_found_and_may_come_and_go() {
    let (primary, mut replicas) = servers(2);
    let sentinels = Sentinel::start(3, primary.port, 2);
    let proxy = Setup::by_sentinels(&ports_of(&sentinels)).start_with_any_replicas();
    await_nodes(&proxy, &[primary.port, replicas[0].port, replicas[1].port]);
    proxy.await_replicas(2);
    let mut client = proxy.connect();
    assert_eq!(client.cmd(&["SET", "k", "1"]), "OK");
    eventually("replicas serve reads", secs(10), || {
        assert_eq!(client.cmd(&["GET", "k"]), "1");
        replicas.iter().map(|replica| replica.calls("get")).sum::<u64>() > 5
    });

    let third = replica_of(&primary);
    await_nodes(&proxy, &[primary.port, replicas[0].port, replicas[1].port, third.port]);
    proxy.await_replicas(3);
    let gone = replicas.remove(0);
    let gone_port = gone.port;
    drop(gone);
    await_nodes(&proxy, &[primary.port, replicas[0].port, third.port]);
    proxy.await_replicas(2);
    assert!(!proxy.metrics().contains(&format!("127.0.0.1:{gone_port}\"")), "no metric of who has left");
    assert!(proxy.get("/readyz").1.contains("replicas in service: 2 of 2"), "{}", proxy.get("/readyz").1);
    assert_eq!(proxy.explain(&["GET", "k"])["candidates"].as_array().unwrap().len(), 3);
    // Another one takes the place, and proves for itself what it has.
    let fourth = replica_of(&primary);
    await_nodes(&proxy, &[primary.port, replicas[0].port, third.port, fourth.port]);
    proxy.await_replicas(3);
    for n in 0..200 {
        assert_eq!(client.cmd(&["SET", "k", &n.to_string()]), "OK");
        assert_eq!(client.cmd(&["GET", "k"]), n.to_string().as_str());
    }
    eventually("the newcomer serves reads, too", secs(10), || {
        assert_eq!(proxy.cmd(&["GET", "k"]), "199");
        fourth.calls("get") > 0
    });
    assert!(proxy.metric("redweir_panics_total", &[]) < 0.5);
}

/// A client that increments a key of its own until it is told to stop.
struct Writer {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<Audit>,
}

#[derive(Default)]
struct Audit {
    key: String,
    /// When each was answered, and what.
    acknowledged: Vec<(Instant, i64)>,
    uncertain: usize,
    refused: Vec<String>,
}

impl Writer {
    fn start(port: u16, key: &str) -> Self {
        let (ended, key) = (Arc::new(AtomicBool::new(false)), key.to_owned());
        let until = Arc::clone(&ended);
        let thread = thread::spawn(move || {
            let mut audit = Audit { key, ..Audit::default() };
            let mut conn = Conn::open(port);
            conn.patience(secs(20));
            while !until.load(Ordering::SeqCst) {
                match conn.cmd(&["INCR", &audit.key]) {
                    Value::Int(n) => audit.acknowledged.push((Instant::now(), n)),
                    Value::Error(text) if text.contains("may have been executed") => audit.uncertain += 1,
                    other => audit.refused.push(format!("{other:?}")),
                }
                thread::sleep(ms(2));
            }
            audit
        });
        Self { ended, thread }
    }

    fn stop(self) -> Audit {
        self.ended.store(true, Ordering::SeqCst);
        self.thread.join().unwrap()
    }
}

/// When a sentinel tells that it has switched.
fn await_switch(port: u16) -> JoinHandle<Instant> {
    let mut conn = Conn::open(port);
    conn.patience(secs(30));
    conn.cmd(&["SUBSCRIBE", "+switch-master"]);
    thread::spawn(move || {
        conn.read();
        Instant::now()
    })
}

#[test]
fn a_dead_primary_is_replaced_and_no_write_is_made_twice() {
    let (mut primary, replicas) = servers(2);
    let sentinels = Sentinel::start(3, primary.port, 2);
    let setup = Setup::by_sentinels(&ports_of(&sentinels)).upstream("write-hold = \"15s\"");
    let proxy = setup.start_with_any_replicas();
    proxy.await_replicas(2);
    let writers: Vec<Writer> = (0..4).map(|n| Writer::start(proxy.port, &format!("k{n}"))).collect();
    sleep_ms(1000);
    let (switch, killed) = (await_switch(sentinels[0].port), Instant::now());
    primary.kill();
    let switched = switch.join().unwrap();
    sleep_ms(2000);
    let audits: Vec<Audit> = writers.into_iter().map(Writer::stop).collect();

    let promoted = port_of(&format!("{}:{}", sentinels[0].field("ip"), sentinels[0].field("port")));
    eventually("the view has the promoted one", secs(5), || primary_of(&proxy) == Some(promoted));
    let new = replicas.iter().find(|replica| replica.port == promoted).unwrap();
    let failovers = proxy.log().matches("the primary changed").count();
    for audit in &audits {
        assert!(audit.refused.is_empty(), "{:?}", audit.refused);
        let after: Vec<i64> =
            audit.acknowledged.iter().filter(|(at, _)| *at > switched).map(|(_, n)| *n).collect();
        // Two sentinels may have each led a failover, as they sometimes do: then writes were lost, and none was made twice.
        let steps = || after.windows(2).map(|pair| pair[1] - pair[0]);
        let lost = steps().filter(|step| *step < 1).count();
        assert!(steps().all(|step| step <= 1), "{}: each write once: {after:?}", audit.key);
        assert!(lost < failovers, "{}: {lost} losses in {failovers} failovers: {after:?}", audit.key);
        let there = new.cmd(&["GET", &audit.key]).int();
        let most = audit.acknowledged.len() + audit.uncertain;
        assert!(there <= most as i64, "{}: {there} writes were made, {most} were asked for", audit.key);
    }
    let first = audits.iter().flat_map(|audit| &audit.acknowledged).map(|(at, _)| *at);
    let first = first.filter(|at| *at > switched).min().unwrap();
    let resumed = audits.iter().flat_map(|audit| &audit.acknowledged).map(|(at, _)| *at);
    let resumed = resumed.filter(|at| *at > killed + ms(300)).min().unwrap();
    eprintln!(
        "switched {:?} after the kill; first write after the switch within {:?}; first write at all {:?} after the kill; \
         uncertain: {}",
        switched - killed,
        first - switched,
        resumed - killed,
        audits.iter().map(|audit| audit.uncertain).sum::<usize>()
    );
    assert!(first - switched <= secs(1), "{:?}", first - switched);
    // The other one follows the new primary, and serves; the dead one is left out.
    let other = replicas.iter().find(|replica| replica.port != promoted).unwrap();
    await_nodes(&proxy, &[promoted, other.port]);
    proxy.await_replicas(1);
    // It comes back as a replica, once a sentinel makes it one.
    primary.restart();
    await_nodes(&proxy, &[promoted, other.port, primary.port]);
    eventually("both serve", secs(40), || proxy.eligible() == 2);
    assert_eq!(primary_of(&proxy), Some(promoted));
}

#[test]
fn without_any_sentinel_everything_stays_as_it_was() {
    let (primary, replicas) = servers(1);
    let mut sentinels = Sentinel::start(3, primary.port, 1);
    let proxy = Setup::by_sentinels(&ports_of(&sentinels)).start_with_any_replicas();
    proxy.await_replicas(1);
    sentinels.iter_mut().for_each(Sentinel::kill);
    eventually("it is told of", secs(10), || proxy.log().contains("no sentinel answers"));
    let mut client = proxy.connect();
    for n in 0..100 {
        assert_eq!(client.cmd(&["SET", "k", &n.to_string()]), "OK");
        assert_eq!(client.cmd(&["GET", "k"]), n.to_string().as_str());
    }
    assert_eq!(nodes(&proxy), sorted(vec![primary.port, replicas[0].port]));
    assert_eq!((proxy.eligible(), primary_of(&proxy)), (1, Some(primary.port)));
    assert_eq!(proxy.log().matches("no sentinel answers").count(), 1);
}

#[test]
fn a_sentinel_that_speaks_for_an_older_configuration_is_not_believed() {
    let (real, replicas) = servers(1);
    let stranger = Redis::start(&[]);
    let (new, old) = (Told::start(5, real.port, &[replicas[0].port]), Told::start(4, stranger.port, &[]));
    let proxy = Setup::by_sentinels(&[old.port, new.port]).start_with_any_replicas();
    await_nodes(&proxy, &[real.port, replicas[0].port]);
    assert_eq!(primary_of(&proxy), Some(real.port));
    // Not even when it is the only one left.
    new.end();
    eventually("it is told of", secs(10), || proxy.log().contains("older than what they had said"));
    assert_eq!(proxy.cmd(&["SET", "k", "v"]), "OK");
    assert_eq!((primary_of(&proxy), real.cmd(&["GET", "k"])), (Some(real.port), Value::Bulk(b"v".to_vec())));
    assert_eq!(nodes(&proxy), sorted(vec![real.port, replicas[0].port]));
}

#[test]
fn a_node_is_the_primary_only_if_it_says_so_itself() {
    let (real, replicas) = servers(1);
    let sentinel = Told::start(1, real.port, &[replicas[0].port]);
    let proxy = Setup::by_sentinels(&[sentinel.port]).start_with_any_replicas();
    proxy.await_replicas(1);
    sentinel.say(9, replicas[0].port, &[]);
    eventually("it is told of", secs(10), || proxy.log().contains("no node that the sentinels name"));
    assert_eq!(proxy.cmd(&["SET", "k", "v"]), "OK");
    assert_eq!((primary_of(&proxy), proxy.eligible()), (Some(real.port), 1));
    // The one that is named is promoted at last, and the old one does not know: the name decides.
    assert_eq!(replicas[0].cmd(&["REPLICAOF", "NO", "ONE"]), "OK");
    eventually("it is followed", secs(5), || primary_of(&proxy) == Some(replicas[0].port));
    assert_eq!(proxy.cmd(&["SET", "k", "w"]), "OK");
    assert_eq!(replicas[0].cmd(&["GET", "k"]), "w");
}

#[test]
fn ghosts_and_what_is_down_are_left_out_and_in_tilt_everybody_stays() {
    let topology = Topology::start(0);
    let (real, replica) = (&topology.primary, replica_of(&topology.primary));
    let sentinel = Told::start(1, real.port, &[replica.port]);
    sentinel.list(0, "slave");
    sentinel.list(1, "s_down,slave");
    sentinel.list(2, "slave,disconnected");
    let proxy = Setup::by_sentinels(&[sentinel.port]).start_with_any_replicas();
    proxy.await_replicas(1);
    assert_eq!(nodes(&proxy), sorted(vec![real.port, replica.port]));
    sentinel.say(2, real.port, &[]);
    sentinel.tilt();
    sleep_ms(2500);
    assert_eq!(nodes(&proxy), sorted(vec![real.port, replica.port]));
    // Who is not told of at all any longer may have been forgotten by mistake, as by `SENTINEL RESET`.
    sentinel.say(2, real.port, &[]);
    sleep_ms(2500);
    assert_eq!(nodes(&proxy), sorted(vec![real.port, replica.port]));
    sentinel.list(replica.port, "s_down,slave");
    await_nodes(&proxy, &[real.port]);
}

/// A sentinel that was stopped for more than two seconds is in TILT for thirty: what it says then is not worth much.
#[test]
fn a_real_sentinel_in_tilt_moves_nobody() {
    let (primary, replicas) = servers(1);
    let sentinel = Sentinel::start(1, primary.port, 1).remove(0);
    let proxy = Setup::by_sentinels(&[sentinel.port]).start_with_any_replicas();
    proxy.await_replicas(1);
    sentinel.pause();
    sleep_ms(2500);
    sentinel.resume();
    let mut direct = Conn::open(sentinel.port);
    let mut is_in_tilt = || direct.cmd(&["INFO", "sentinel"]).text().contains("sentinel_tilt:1");
    eventually("it is in TILT", secs(5), &mut is_in_tilt);
    eventually("it is told of", secs(5), || proxy.log().contains("no sentinel answers, or all are in TILT"));
    // It would say that the replica is down, could it still tell.
    replicas[0].pause();
    let mut client = proxy.connect();
    for n in 0..100 {
        assert_eq!(client.cmd(&["SET", "k", &n.to_string()]), "OK");
    }
    replicas[0].resume();
    proxy.await_replicas(1);
    assert_eq!(nodes(&proxy), sorted(vec![primary.port, replicas[0].port]));
    assert!(is_in_tilt(), "the test took too long");
    assert_eq!(primary_of(&proxy), Some(primary.port));
}

/// In the middle of a failover the leader has the new number, and shows the old address with it, for as long as the replicas
/// take to resync.
#[test]
fn the_number_of_a_failover_does_not_speak_for_the_old_primary() {
    let (real, replicas) = servers(2);
    let ports = [replicas[0].port, replicas[1].port];
    let sentinel = Told::start(1, real.port, &ports);
    let proxy = Setup::by_sentinels(&[sentinel.port]).start_with_any_replicas();
    proxy.await_replicas(2);
    // The old one still says that it is the primary, and the other replica still follows it.
    assert_eq!(replicas[0].cmd(&["REPLICAOF", "NO", "ONE"]), "OK");
    sentinel.say(2, ports[0], &ports[1..]);
    sentinel.show(real.port);
    eventually("the new one is followed", secs(5), || primary_of(&proxy) == Some(ports[0]));
    sleep_ms(1500);
    assert_eq!(primary_of(&proxy), Some(ports[0]));
}

#[test]
fn nodes_are_reached_by_the_addresses_of_the_map() {
    let (real, replicas) = servers(1);
    let sentinel = Told::start(1, real.port, &[replicas[0].port]);
    // Nobody answers there.
    sentinel.announce("192.0.2.1");
    let pair = |port: u16| format!("\"192.0.2.1:{port}\" = \"127.0.0.1:{port}\"");
    let map = format!("address-map = {{ {}, {} }}", pair(real.port), pair(replicas[0].port));
    let proxy = Setup::by_sentinels(&[sentinel.port]).upstream(&map).start_with_any_replicas();
    proxy.await_replicas(1);
    assert_eq!(proxy.cmd(&["SET", "k", "v"]), "OK");
    assert_eq!(nodes(&proxy), sorted(vec![real.port, replicas[0].port]));
}

#[test]
fn a_sentinel_has_a_password_of_its_own_and_names_hosts() {
    let (real, replicas) = servers(1);
    let lines = "requirepass sesame\nsentinel resolve-hostnames yes\nsentinel announce-hostnames yes";
    let sentinel = Sentinel::start_one(&format!("localhost {} 1", real.port), lines);
    let wrong = Setup::by_sentinels(&[sentinel.port]).spawn();
    eventually("it is told of", secs(10), || wrong.log().contains("NOAUTH"));
    assert_eq!(wrong.get("/readyz").0, 503);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    std::fs::write(&file, "sesame\n").unwrap();
    let login = format!("password-file = {:?}", file.display().to_string());
    let proxy = Setup::by_sentinels(&[sentinel.port]).toml(&login).start_with_any_replicas();
    proxy.await_replicas(1);
    assert_eq!(proxy.view()["primary"], format!("localhost:{}", real.port));
    assert_eq!(nodes(&proxy), sorted(vec![real.port, replicas[0].port]));
    assert_eq!(proxy.cmd(&["SET", "k", "v"]), "OK");
    assert!(!proxy.log().contains("sesame"));
}

#[test]
fn clients_may_come_before_any_sentinel_does() {
    let sentinel = crate::support::free_port();
    let proxy = Setup::by_sentinels(&[sentinel]).upstream("write-hold = \"100ms\"").spawn();
    assert_eq!(proxy.get("/readyz").0, 503);
    assert!(proxy.cmd(&["SET", "k", "v"]).is_error());
    let view = proxy.view();
    assert_eq!((view["primary"].is_null(), view["nodes"].as_array().map(Vec::len)), (true, Some(0)));
}
