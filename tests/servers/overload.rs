//! One client cannot hurt another, nor a server: what it asks for and does not take is bounded, and so is what is done for
//! it. The rows of `make chaos ROW=overload`.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]
#![allow(clippy::print_stdout, reason = "figures are worth seeing")]

use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{
    Conn, Proxy, Redis, Setup, Topology, Value, encode, eventually, memory_of, ms, secs, sleep_ms,
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

/// A client leaves in the middle of a large value: what has yet to come of it is not read to its end.
#[test]
fn who_left_is_read_for_no_longer() {
    let topology = Topology::with(&["--save", ""], 1, &["--save", ""]);
    // The servers are to send nothing but what they are asked for.
    let proxy = Setup::of(&topology)
        .policy("default", "consistency = \"eventual\"")
        .toml("[stream]\nsource = \"off\"")
        .start();
    topology.primary.cmd(&["SET", "much", &"v".repeat(100 << 20)]);
    topology.await_sync();
    let mut conn = proxy.connect();
    let sent = || {
        let all = [&topology.primary, &topology.replicas[0].server];
        all.iter().map(|server| server.stat("total_net_output_bytes")).sum::<u64>()
    };
    let before = sent();
    conn.ask(&["GET", "much"]);
    conn.stream().read_exact(&mut vec![0; 1 << 20]).unwrap();
    drop(conn);
    sleep_ms(1000);
    let sent = sent() - before;
    assert!(sent < 60 * MIB, "{} MiB of 100 were read for nobody", sent / MIB);
    assert_eq!(proxy.cmd(&["STRLEN", "much"]), 100 << 20);
}

/// A client has asked for 64 values of 16 KiB, of which its lane asks for eight at a time, and leaves before any is there.
#[test]
fn what_who_left_has_yet_to_ask_is_not_asked() {
    let topology = Topology::with(&["--save", ""], 0, &[]);
    let proxy = Setup::of(&topology).start();
    proxy.cmd(&["SET", "some", &"x".repeat(16 << 10)]);
    for reset in [false, true] {
        let mut conn = proxy.connect();
        // Its window opens.
        for _ in 0..4 {
            conn.send(&encode(&["GET", "some"]).repeat(64)).read_many(64);
        }
        let before = topology.primary.calls("get");
        topology.primary.pause();
        conn.send(&encode(&["GET", "some"]).repeat(200));
        sleep_ms(300);
        if reset {
            socket2::SockRef::from(&conn.stream()).set_linger(Some(Duration::ZERO)).unwrap();
        }
        drop(conn);
        sleep_ms(100);
        topology.primary.resume();
        assert_eq!(proxy.cmd(&["STRLEN", "some"]), 16 << 10);
        sleep_ms(300);
        let asked = topology.primary.calls("get") - before;
        println!("{asked} of 200 were asked");
        assert!(asked < 40, "{asked} were asked for somebody who was gone");
    }
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
    let resident = move || memory_of(pid, "VmRSS") as u64;
    let idle = resident();
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
    let left = Instant::now();
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
    // What the C library keeps between what is still held is given back now and then.
    let grown = own.saturating_sub(idle);
    eventually("four fifths of the memory are given back", secs(60), || {
        resident().saturating_sub(idle) * 5 <= grown
    });
    println!(
        "of {} MiB more than idle {} are left after {:?}",
        grown / MIB,
        resident().saturating_sub(idle) / MIB,
        left.elapsed()
    );
}

/// The only replica stops while much more is on its way to it than what may be sent again: the primary gets that, and no more.
#[test]
fn what_is_repeated_has_a_budget() {
    const ROUND: usize = 4096;
    let topology = Topology::start(1);
    let proxy = Setup::of(&topology)
        .policy("default", "consistency = \"eventual\"")
        .proxy("[proxy]\nworkers = 1")
        .start();
    proxy.cmd(&["SET", "k", "v"]);
    topology.await_sync();
    let round = encode(&["GET", "k"]).repeat(ROUND);
    let mut conns: Vec<Conn> = (0..6).map(|_| proxy.connect()).collect();
    for conn in &mut conns {
        conn.patience(secs(20));
        // Its window opens.
        for _ in 0..2 {
            conn.send(&round).read_many(ROUND);
        }
    }
    let before = topology.primary.calls("get");
    topology.replicas[0].pause();
    for conn in &mut conns {
        conn.send(&round);
    }
    let replies: Vec<Value> = conns.iter_mut().flat_map(|conn| conn.read_many(ROUND)).collect();
    let refused = replies.iter().filter(|reply| reply.is_error()).count();
    for reply in replies.iter().filter(|reply| reply.is_error()) {
        assert!(reply.error().contains("too many were sent again"), "{reply:?}");
    }
    let (repeated, asked) = (replies.len() - refused, topology.primary.calls("get") - before);
    println!("{repeated} of {} were sent again", replies.len());
    // 4096, and a tenth of 74,000 in the last ten seconds.
    assert!((4096..13_000).contains(&repeated), "{repeated} were sent again");
    assert!(asked <= repeated as u64 + 100, "the primary was asked {asked} times");
    let counted = |outcome| proxy.metric("redweir_repeats_total", &[("outcome", outcome)]) as usize;
    assert_eq!(counted("over_budget"), refused);
    assert_eq!(conns[0].cmd(&["GET", "k"]), "v");
    topology.replicas[0].resume();
}

/// What a replica answers that it cannot is no storm, however much it is: scripts that were loaded at the primary.
#[test]
fn what_a_replica_cannot_answer_has_no_budget() {
    const ROUND: usize = 6000;
    let topology = Topology::start(1);
    let proxy = Setup::of(&topology)
        .policy("default", "consistency = \"eventual\"")
        .proxy("[proxy]\nworkers = 1")
        .start();
    let script = proxy.cmd(&["SCRIPT", "LOAD", "return 7"]).text();
    let mut conn = proxy.connect();
    conn.patience(secs(20)).send(&encode(&["EVALSHA_RO", &script, "1", "k"]).repeat(ROUND));
    assert!(conn.read_many(ROUND).iter().all(|reply| *reply == 7));
    let sent = proxy.metric("redweir_repeats_total", &[("outcome", "sent")]);
    assert!(sent > 5500.0, "{sent} were sent again");
}

/// One of two replicas stops under two hundred busy clients: nobody hears of it, and nothing is asked twice in vain.
#[test]
fn a_replica_that_stops_makes_no_storm() {
    let topology = Topology::start(2);
    let proxy = Setup::of(&topology).start();
    proxy.cmd(&["SET", "k", "v"]);
    topology.await_sync();
    let servers = [&topology.primary, &topology.replicas[0].server, &topology.replicas[1].server];
    let executed = || servers.iter().map(|server| server.calls("get")).sum::<u64>();
    let (before, ended) = (executed(), Arc::new(AtomicBool::new(false)));
    let threads: Vec<_> = (0..10)
        .map(|_| {
            let (until, port) = (Arc::clone(&ended), proxy.port);
            thread::spawn(move || {
                let mut conns: Vec<Conn> = (0..20).map(|_| Conn::open(port)).collect();
                let (mut answers, mut slowest) = (0, Duration::ZERO);
                while !until.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    for conn in &mut conns {
                        conn.patience(secs(20)).ask(&["GET", "k"]);
                    }
                    for conn in &mut conns {
                        assert_eq!(conn.read(), "v");
                    }
                    answers += conns.len() as u64;
                    slowest = slowest.max(begun.elapsed());
                }
                (answers, slowest)
            })
        })
        .collect();
    sleep_ms(1000);
    topology.replicas[0].pause();
    sleep_ms(3000);
    topology.replicas[0].resume();
    proxy.await_replicas(2);
    sleep_ms(500);
    ended.store(true, Ordering::Relaxed);
    let rounds: Vec<(u64, Duration)> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    let (answers, slowest) =
        rounds.iter().fold((0, Duration::ZERO), |(sum, most), (n, slow)| (sum + n, most.max(*slow)));
    let per_answer = (executed() - before) as f64 / answers as f64;
    println!(
        "{answers} answers, {per_answer:.3} commands executed for each, the slowest round took {slowest:?}"
    );
    assert!(per_answer <= 1.1, "{per_answer:.3} commands were executed for each answer");
    assert!(slowest < SLOWEST, "somebody waited {slowest:?}");
}

/// Who never speaks, speaks half, or has been silent for long, leaves; who waits for something stays.
#[test]
fn who_says_nothing_is_disconnected() {
    let topology = Topology::start(0);
    let limits = "[proxy]\ntimeout = \"2s\"\nclient-handshake-timeout = \"1s\"";
    let proxy = Setup::of(&topology).proxy(limits).start();
    let (mut mute, mut half, mut idle) = (proxy.connect(), proxy.connect(), proxy.connect());
    half.send(b"*2\r\n$3\r\nGET\r\n$1\r\n");
    assert_eq!(idle.cmd(&["SET", "k", "v"]), "OK");
    let (mut subscribed, mut blocked, mut busy) = (proxy.connect(), proxy.connect(), proxy.connect());
    subscribed.ask(&["SUBSCRIBE", "c"]).read();
    blocked.ask(&["BLPOP", "none", "5"]);
    let begun = Instant::now();
    while begun.elapsed() < ms(4500) {
        assert_eq!(busy.cmd(&["GET", "k"]), "v");
        sleep_ms(100);
    }
    for conn in [&mut mute, &mut half, &mut idle] {
        conn.patience(ms(500));
        assert_eq!(conn.read_to_close(), b"");
    }
    assert_eq!(blocked.read(), Value::Null);
    assert_eq!(blocked.cmd(&["GET", "k"]), "v");
    busy.cmd(&["PUBLISH", "c", "news"]);
    assert!(matches!(subscribed.read(), Value::Array(_)));
    assert!(proxy.metric("redweir_clients_idle_total", &[]) > 2.5);
}

/// At nine tenths of `max-memory` the one that holds the most goes, and it alone.
#[test]
fn the_largest_of_slow_readers_goes_first() {
    let topology = Topology::with(&["--save", ""], 0, &[]);
    let proxy = Setup::of(&topology).proxy("[proxy]\nworkers = 2\nmax-memory = \"24mb\"").start();
    proxy.cmd(&["SET", "big", &"x".repeat(MIB as usize)]);
    let neighbours = Neighbours::start(proxy.port, 2);
    let mut small = proxy.connect();
    small.send(&encode(&["GET", "big"]).repeat(8));
    sleep_ms(500);
    let mut large = proxy.connect();
    large.send(&encode(&["GET", "big"]).repeat(60));
    eventually("somebody goes", secs(20), || proxy.metric("redweir_clients_over_memory_total", &[]) > 0.5);
    sleep_ms(300);
    assert!(proxy.metric("redweir_clients_over_memory_total", &[]) < 1.5);
    assert!(proxy.log().contains("it held the most"), "{}", proxy.log());
    let replies = small.read_many(8);
    assert!(replies.iter().all(|reply| reply.text().len() == MIB as usize));
    assert_eq!(neighbours.stop().errors, Vec::<String>::new());
}

/// What writes take until so long after `begun`: the median, and what one in ten, and one in a hundred, takes longer than.
fn written(proxy: &Proxy, begun: Instant, span: Duration) -> (Duration, Duration, Duration) {
    let (mut writer, mut took) = (proxy.connect(), Vec::new());
    while begun.elapsed() < span {
        let asked = Instant::now();
        assert_eq!(writer.cmd(&["SET", "other", "v"]), "OK");
        took.push(asked.elapsed());
        sleep_ms(2);
    }
    took.sort_unstable();
    (took[took.len() / 2], took[(took.len() - 1) * 9 / 10], took[(took.len() - 1) * 99 / 100])
}

/// With the replicas gone no more reads than `primary-read-limit` go to the primary; writes all do.
#[test]
fn the_primary_gets_no_more_reads_than_it_may_take() {
    let mut topology = Topology::start(1);
    let proxy = Setup::of(&topology).proxy("[proxy]\nprimary-read-limit = 200").start();
    proxy.cmd(&["SET", "k", "v"]);
    topology.await_sync();
    topology.replicas[0].server.kill();
    eventually("no replica is in service", secs(10), || proxy.eligible() == 0);
    let alone = written(&proxy, Instant::now(), secs(2));
    let before = topology.primary.calls("get");
    let begun = Instant::now();
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let mut conn = proxy.connect();
            thread::spawn(move || {
                let mut shed = 0;
                while begun.elapsed() < secs(3) {
                    // A thousand a second by all of them: five times what it may take.
                    sleep_ms(4);
                    let reply = conn.cmd(&["GET", "k"]);
                    if reply.is_error() {
                        assert!(reply.error().contains("primary-read-limit"), "{reply:?}");
                        shed += 1;
                    } else {
                        assert_eq!(reply, "v");
                    }
                }
                shed
            })
        })
        .collect();
    let beside = written(&proxy, begun, secs(3));
    let shed: u64 = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
    let served = topology.primary.calls("get") - before;
    println!(
        "{served} reads at the primary, {shed} shed; writes took {:?}, p99 {:?}; alone {:?}, p99 {:?}",
        beside.0, beside.2, alone.0, alone.2
    );
    assert!(
        beside.0 <= 2 * alone.0 + ms(2) && beside.1 <= 2 * alone.1 + ms(20),
        "{beside:?}, {alone:?} alone"
    );
    assert!((300..=800).contains(&served) && shed > 100, "{served} at the primary, {shed} shed");
    let explained = proxy.metric(
        "redweir_commands_total",
        &[("access", "read"), ("target", "refused"), ("reason", "primary_read_limit")],
    );
    assert!(explained > 99.0, "{explained}");
}

/// Reads of one key by many who each wait for the answer, while another client writes it: replies, and how many times the primary
/// has executed the command. No reply is older than a write that was acknowledged before the read was sent.
fn hot_reads(proxy: &Proxy, primary: &Redis, clients: usize, reads: usize) -> (u64, u64, Duration) {
    let (acked, ended) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    proxy.cmd(&["SET", "hot", "0"]);
    let before = primary.calls("get");
    let (mut writer, until, told) = (proxy.connect(), Arc::clone(&ended), Arc::clone(&acked));
    let writer = thread::spawn(move || {
        for n in 1_u64.. {
            if until.load(Ordering::SeqCst) {
                break;
            }
            assert_eq!(writer.cmd(&["SET", "hot", &n.to_string()]), "OK");
            told.store(n, Ordering::SeqCst);
        }
    });
    let begun = Instant::now();
    let readers: Vec<_> = (0..clients)
        .map(|_| {
            let (mut conn, acked) = (proxy.connect(), Arc::clone(&acked));
            thread::spawn(move || {
                for _ in 0..reads {
                    let least = acked.load(Ordering::SeqCst);
                    let shown: u64 = conn.cmd(&["GET", "hot"]).text().parse().unwrap();
                    assert!(
                        shown >= least,
                        "{shown}, though {least} was acknowledged before it was asked for"
                    );
                }
            })
        })
        .collect();
    for reader in readers {
        reader.join().unwrap();
    }
    let took = begun.elapsed();
    ended.store(true, Ordering::SeqCst);
    writer.join().unwrap();
    ((clients * reads) as u64, primary.calls("get") - before, took)
}

/// A hot key that no replica may serve: who asks for it at the same moment is asked for once, if that is wanted.
#[test]
fn one_request_asks_for_a_hot_key() {
    let topology = Topology::start(0);
    for (share, few) in [("no", false), ("yes", true)] {
        let keys = format!("[proxy]\nworkers = 1\nshare-reads = \"{share}\"");
        let proxy = Setup::of(&topology).policy("default", "consistency = \"strong\"").proxy(&keys).start();
        let (replies, executed, took) = hot_reads(&proxy, &topology.primary, 50, 200);
        let shared = proxy.metric("redweir_shared_reads_total", &[]);
        println!(
            "share-reads {share}: {replies} replies by {executed} commands in {took:?}, {shared} shared"
        );
        assert_eq!(executed + shared as u64, replies);
        assert_eq!(executed * 10 < replies * 8, few, "{executed} of {replies}");
    }
}

/// What is drawn is drawn for each, what is long goes to each, and what is wanted no longer stops in the middle of it.
#[test]
fn what_several_share_each_of_them_gets_whole() {
    let topology = Topology::start(0);
    let keys = "[proxy]\nworkers = 1\nshare-reads = \"yes\"";
    let proxy = Setup::of(&topology).policy("default", "consistency = \"strong\"").proxy(keys).start();
    let long = "x".repeat(300_000);
    proxy.cmd(&["SET", "long", &long]);
    proxy.cmd(&["SADD", "drawn", "a", "b", "c"]);
    let before = topology.primary.calls("srandmember");
    let clients: Vec<_> = (0..12)
        .map(|n| {
            let (mut conn, long, port) = (proxy.connect(), long.clone(), proxy.port);
            thread::spawn(move || {
                for round in 0..20 {
                    if n == 0 && round % 4 == 0 {
                        // It leaves in the middle of it.
                        Conn::open(port).send(&encode(&["GET", "long"]));
                    }
                    let own = format!("{n}:{round}");
                    assert!(conn.cmd(&["GET", "long"]).text() == long, "{n}, {round}");
                    assert_eq!(conn.cmd(&["GET", "none"]), Value::Null);
                    let commands: [&[&str]; 5] = [
                        &["GET", "long"],
                        &["SET", "own", &own],
                        &["SRANDMEMBER", "drawn"],
                        &["GET", "none"],
                        &["GET", "long"],
                    ];
                    let bytes: Vec<u8> = commands.iter().flat_map(|command| encode(command)).collect();
                    let replies = conn.send(&bytes).read_many(5);
                    assert!(replies[0].text() == long && replies[4].text() == long, "{n}, {round}");
                    assert_eq!(replies[1], "OK");
                    assert!(["a", "b", "c"].contains(&&*replies[2].text()), "{:?}", replies[2]);
                    assert_eq!(replies[3], Value::Null);
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    assert_eq!(topology.primary.calls("srandmember") - before, 240, "each draws for itself");
    assert!(proxy.metric("redweir_shared_reads_total", &[]) > 0.0);
    assert!(proxy.metric("redweir_upstream_desynchronised_total", &[]) < 0.5);
}
