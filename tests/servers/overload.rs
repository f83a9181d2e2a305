//! One client cannot hurt another, nor a server: what it asks for and does not take is bounded, and so is what is done for
//! it. The rows of `make chaos ROW=overload`.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]
#![allow(clippy::print_stdout, reason = "figures are worth seeing")]

use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{
    Conn, Direction, Redis, Relay, Setup, Topology, Value, encode, memory_of, ms, secs, sleep_ms,
};

/// Clients with small commands who note how long each round took, and what went wrong.
struct Neighbours {
    ended: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<Rounds>>,
}

/// What became of their commands.
#[derive(Debug, Default)]
struct Rounds {
    took: Vec<Duration>,
    errors: Vec<String>,
}

impl Neighbours {
    fn start(port: u16, count: usize) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let one = |n: usize| {
            let (until, key) = (Arc::clone(&ended), format!("neighbour:{n}"));
            thread::spawn(move || {
                let (mut conn, mut rounds) = (Conn::open(port), Rounds::default());
                conn.patience(secs(20));
                for round in 0.. {
                    if until.load(Ordering::Relaxed) {
                        break;
                    }
                    let (tag, begun) = (round.to_string(), Instant::now());
                    conn.ask(&["SET", &key, &tag]).ask(&["GET", &key]).ask(&["GET", "none"]);
                    let expected =
                        [Value::Status("OK".to_owned()), Value::Bulk(tag.into_bytes()), Value::Null];
                    let replies = conn.read_many(3);
                    rounds.took.push(begun.elapsed());
                    if replies != expected {
                        rounds.errors.push(format!("{replies:?}"));
                    }
                    sleep_ms(5);
                }
                rounds
            })
        };
        Self { threads: (0..count).map(one).collect(), ended: Arc::clone(&ended) }
    }

    fn stop(self) -> Rounds {
        self.ended.store(true, Ordering::Relaxed);
        let mut all = Rounds::default();
        for thread in self.threads {
            let rounds = thread.join().unwrap();
            all.took.extend(rounds.took);
            all.errors.extend(rounds.errors);
        }
        all.took.sort_unstable();
        all
    }
}

impl Rounds {
    fn percentile(&self, percent: usize) -> Duration {
        self.took[(self.took.len() - 1) * percent / 100]
    }
}

/// What these servers hold in memory, in bytes, as they count it.
fn held(servers: &[&Redis]) -> u64 {
    servers.iter().map(|server| server.info("memory")["used_memory"].parse::<u64>().unwrap()).sum()
}

/// The most that `measure` finds, until the returned handle is stopped.
struct Watched {
    ended: Arc<AtomicBool>,
    thread: thread::JoinHandle<u64>,
}

impl Watched {
    fn start(measure: impl Fn() -> u64 + Send + 'static) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&ended);
        let thread = thread::spawn(move || {
            let mut most = 0;
            while !until.load(Ordering::Relaxed) {
                most = most.max(measure());
                sleep_ms(20);
            }
            most
        });
        Self { ended, thread }
    }

    fn stop(self) -> u64 {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

const MIB: u64 = 1 << 20;

/// What nobody waits longer for. Without optimisation, beside other tests, everything takes longer.
const SLOWEST: Duration = if cfg!(debug_assertions) { secs(4) } else { secs(1) };

/// A client of large values leaves: what it has not asked yet is not asked, and what comes of what it has asked is not
/// read to its end.
#[test]
fn who_left_is_asked_for_and_read_for_no_longer() {
    const COMMANDS: usize = 200;
    let topology = Topology::with(&["--save", ""], 1, &["--save", ""]);
    let path = Relay::to(topology.replicas[0].port);
    let proxy = Setup::to(topology.primary.port, &[path.port]).upstream("probe-timeout = \"5s\"").start();
    let (some, much) = ("v".repeat(64 << 10), "v".repeat(100 << 20));
    topology.primary.cmd(&["SET", "some", &some]);
    topology.primary.cmd(&["SET", "much", &much]);
    topology.await_sync();
    sleep_ms(300);
    let mut conn = proxy.connect();
    for _ in 0..20 {
        assert_eq!(conn.cmd(&["GET", "some"]), some.as_str());
    }
    let calls = || topology.replica_calls("get")[0] + topology.primary.calls("get");
    path.stall(Direction::Down);
    let before = calls();
    for _ in 0..COMMANDS {
        conn.ask(&["GET", "some"]);
    }
    sleep_ms(300);
    drop(conn);
    sleep_ms(100);
    path.heal();
    sleep_ms(500);
    let asked = calls() - before;
    assert!(asked <= 8, "{asked} of {COMMANDS}, most of which nobody waits for");

    let mut conn = proxy.connect();
    let sent = || topology.replicas[0].server.stat("total_net_output_bytes");
    let before = sent();
    conn.ask(&["GET", "much"]);
    conn.stream().read_exact(&mut vec![0; 1 << 20]).unwrap();
    drop(conn);
    sleep_ms(1000);
    let sent = sent() - before;
    assert!(sent < 60 * MIB, "{} MiB of 100 were read for nobody", sent / MIB);
    assert_eq!(proxy.cmd(&["GET", "some"]), some.as_str());
}

/// Thirty clients ask for 300 MiB each and read nothing.
#[test]
fn who_reads_nothing_harms_nobody() {
    let topology = Topology::with(&["--save", ""], 1, &["--save", ""]);
    let proxy = Setup::of(&topology).start();
    proxy.cmd(&["SET", "big", &"x".repeat(MIB as usize)]);
    topology.await_sync();
    let servers = [&topology.primary, &topology.replicas[0].server];
    let (before, pid) = (held(&servers), proxy.pid());
    let neighbours = Neighbours::start(proxy.port, 3);
    sleep_ms(300);
    let own = Watched::start(move || memory_of(pid, "VmRSS") as u64);
    let ports = [topology.primary.port, topology.replicas[0].port];
    let theirs = Watched::start(move || {
        let used = |port| {
            let text = Conn::open(port).cmd(&["INFO", "memory"]).text();
            let line = text.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
            line.parse::<u64>().unwrap()
        };
        ports.into_iter().map(used).sum()
    });
    let greedy: Vec<Conn> = (0..30)
        .map(|_| {
            let mut conn = proxy.connect();
            conn.send(&encode(&["GET", "big"]).repeat(300));
            conn
        })
        .collect();
    sleep_ms(4000);
    drop(greedy);
    sleep_ms(1000);
    let (rounds, own, theirs) = (neighbours.stop(), own.stop(), theirs.stop() - before);
    let (middle, late, last) = (rounds.percentile(50), rounds.percentile(90), rounds.percentile(100));
    println!(
        "servers held {} MiB more, Redweir {} MiB; {} rounds of neighbours: {middle:?}, p90 {late:?}, slowest {last:?}",
        theirs / MIB,
        own / MIB,
        rounds.took.len()
    );
    assert_eq!(rounds.errors, Vec::<String>::new());
    assert!(theirs <= 600 * MIB, "the servers held {} MiB more", theirs / MIB);
    assert!(own <= 300 * MIB, "Redweir held {} MiB", own / MIB);
    assert!(late < ms(100), "a neighbour in ten waited {late:?}");
    assert!(last < SLOWEST, "a neighbour waited {last:?}");
}
