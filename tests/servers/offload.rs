//! What replicas take off the primary: the share of reads that they serve while other clients write, with links that lag
//! and links that don't. Who asks the primary when in doubt is always right, and of no use.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]
#![allow(clippy::print_stdout, reason = "the share is what one wants to know")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::rng::Rng;
use crate::support::{Conn, Proxy, Setup, Topology, encode, ms, secs};

const KEYS: usize = 10_000;
/// Together they write a thousand times a second.
const WRITERS: u64 = 4;
const WRITE_EVERY: Duration = Duration::from_millis(WRITERS);
/// Together they read at most five thousand times a second.
const READERS: u64 = 8;
const READ_EVERY: Duration = Duration::from_micros(1_000_000 * READERS / 5_000);
const SPAN: Duration = Duration::from_secs(5);

fn key(rng: &mut Rng) -> String {
    format!("k:{}", rng.below(KEYS))
}

/// Repeats something at a steady pace until it is told to stop; returns how often. What is late is not made up for.
fn steadily(
    stop: &Arc<AtomicBool>,
    every: Duration,
    mut work: impl FnMut() + Send + 'static,
) -> thread::JoinHandle<u64> {
    let stop = Arc::clone(stop);
    thread::spawn(move || {
        let (mut next, mut done) = (Instant::now(), 0);
        while !stop.load(Ordering::SeqCst) {
            work();
            done += 1;
            next = Instant::now().max(next + every);
            thread::sleep(next - Instant::now());
        }
        done
    })
}

fn reader(port: u16, seed: u64) -> impl FnMut() + Send + 'static {
    let (mut conn, mut rng) = (Conn::open(port), Rng::new(seed));
    move || {
        let key = key(&mut rng);
        let reply = conn.cmd(&["GET", &key]);
        assert!(!reply.is_error() && reply.text().starts_with('v'), "{key}: {reply:?}");
    }
}

fn writer(port: u16, seed: u64) -> impl FnMut() + Send + 'static {
    let (mut conn, mut rng, mut count) = (Conn::open(port), Rng::new(seed << 32), 0);
    move || {
        count += 1;
        assert_eq!(conn.cmd(&["SET", &key(&mut rng), &format!("v{count}")]), "OK");
    }
}

/// Reads and writes over all keys; the share of the reads that the primary had nothing to do with.
fn share(name: &str, topology: &Topology, proxy: &Proxy) -> f64 {
    // On a machine that is busy with other things the pace says nothing.
    let measured = (0..4).map(|_| share_and_pace(name, topology, proxy)).find(|(_, enough)| *enough);
    measured.expect("too slow to mean anything, each time").0
}

/// The same, and whether there were as many as there should be.
fn share_and_pace(name: &str, topology: &Topology, proxy: &Proxy) -> (f64, bool) {
    let before = (topology.primary.calls("get"), proxy.metrics());
    let (stop, started) = (Arc::new(AtomicBool::new(false)), Instant::now());
    let writers: Vec<_> =
        (0..WRITERS).map(|seed| steadily(&stop, WRITE_EVERY, writer(proxy.port, seed))).collect();
    let readers: Vec<_> =
        (0..READERS).map(|seed| steadily(&stop, READ_EVERY, reader(proxy.port, seed))).collect();
    thread::sleep(SPAN);
    stop.store(true, Ordering::SeqCst);
    let total = |threads: Vec<thread::JoinHandle<u64>>| threads.into_iter().map(|t| t.join().unwrap()).sum();
    let (writes, reads): (u64, u64) = (total(writers), total(readers));
    let span = started.elapsed().as_secs_f64();
    let by_primary = topology.primary.calls("get") - before.0;
    let share = 1.0 - by_primary as f64 / reads as f64;
    let pace = (reads as f64 / span, writes as f64 / span);
    println!("{name}: replicas served {:.1} % of {reads} reads", 100.0 * share);
    println!("  {:.0} reads/s, {:.0} writes/s; by reason:", pace.0, pace.1);
    for line in changed(&before.1, &proxy.metrics()) {
        println!("  {line}");
    }
    (share, pace.0 > 500.0 && pace.1 > 250.0)
}

/// What became of reads, as the proxy counts it.
fn changed(before: &str, after: &str) -> Vec<String> {
    let told = |line: &&str| {
        line.starts_with("redweir_optimistic_reads_total{")
            || (line.starts_with("redweir_commands_total{") && line.contains("access=\"read\""))
    };
    let count =
        |line: &str| line.rsplit_once(' ').and_then(|(name, n)| Some((name.to_owned(), n.parse().ok()?)));
    let old: Vec<(String, f64)> = before.lines().filter(told).filter_map(count).collect();
    let grown = after.lines().filter(told).filter_map(count).filter_map(|(name, n): (String, f64)| {
        let since = n - old.iter().find(|(known, _)| *known == name).map_or(0.0, |(_, n)| *n);
        (since > 0.0).then(|| format!("{name} {since}"))
    });
    grown.collect()
}

fn topology() -> Topology {
    let topology = Topology::start(2);
    let mut conn = topology.primary.connect();
    let all: Vec<u8> = (0..KEYS).flat_map(|n| encode(&["SET", &format!("k:{n}"), "v"])).collect();
    conn.send(&all);
    conn.read_many(KEYS);
    topology.await_sync();
    topology
}

fn proxy(topology: &Topology, consistency: &str) -> Proxy {
    let lines = format!("consistency = \"{consistency}\"");
    let proxy = Setup::of(topology).policy("default", &lines).start();
    crate::support::eventually("the stream is followed", secs(5), || {
        proxy.metric("redweir_stream_attached", &[]) > 0.5
    });
    proxy
}

/// One test, so that nothing of its own slows it down.
#[test]
fn replicas_serve_nearly_all_reads() {
    let topology = topology();
    let fenced = proxy(&topology, "fenced");
    let near = share("fenced, no lag", &topology, &fenced);
    topology.lag(0, ms(150));
    topology.lag(1, ms(40));
    thread::sleep(ms(500));
    let far = share("fenced, lags of 150 ms and 40 ms", &topology, &fenced);
    drop(fenced);
    for replica in &topology.replicas {
        replica.link.heal();
    }
    let strong = share("strong, no lag", &topology, &proxy(&topology, "strong"));
    assert!(near >= 0.95, "fenced, no lag: {near:.3}");
    assert!(far >= 0.90, "fenced, lag: {far:.3}");
    assert!(strong >= 0.90, "strong: {strong:.3}");
}
