//! Replicas that are behind as they are between zones: reads go on there wherever that is right, and nobody waits in vain.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "figures are worth seeing")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::rng::Rng;
use crate::support::{Conn, Proxy, Setup, Topology, Value, eventually, ms, secs, sleep_ms};

/// Somebody who writes, past Redweir if that is not where, about so many times a second, until it is dropped.
struct Bypass {
    ended: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Bypass {
    fn start(port: u16, keys: usize, per_second: u64) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&ended);
        let thread = thread::spawn(move || {
            let (mut conn, mut rng) = (Conn::open(port), Rng::new(7));
            for count in 0_u64.. {
                if until.load(Ordering::Relaxed) {
                    break;
                }
                let key = format!("k:{}", rng.below(keys));
                assert_eq!(conn.cmd(&["SET", &key, &count.to_string()]), "OK");
                thread::sleep(Duration::from_micros(1_000_000 / per_second));
            }
        });
        Self { ended, thread: Some(thread) }
    }
}

impl Drop for Bypass {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What came of the reads of some clients.
#[derive(Debug)]
struct Outcome {
    /// Those that the primary had nothing to do with, of 100.
    at_replicas: f64,
    median: Duration,
    /// No more than one in a hundred took longer.
    late: Duration,
    per_second: f64,
}

/// Two clients read these keys, one after the other, for so long.
fn read(topology: &Topology, proxy: &Proxy, keys: usize, span: Duration) -> Outcome {
    let (before, begun) = (topology.primary.calls("get"), Instant::now());
    let readers: Vec<_> = (0..2)
        .map(|seed| {
            let mut conn = proxy.connect();
            thread::spawn(move || {
                let (mut rng, mut took) = (Rng::new(seed), Vec::new());
                while begun.elapsed() < span {
                    let (key, asked) = (format!("k:{}", rng.below(keys)), Instant::now());
                    let reply = conn.cmd(&["GET", &key]);
                    took.push(asked.elapsed());
                    sleep_ms(1);
                    assert!(matches!(reply, Value::Bulk(_) | Value::Null), "{reply:?}");
                }
                took
            })
        })
        .collect();
    let mut took: Vec<Duration> = readers.into_iter().flat_map(|reader| reader.join().unwrap()).collect();
    took.sort_unstable();
    let at_primary = topology.primary.calls("get") - before;
    let at_replicas = 100.0 - 100.0 * at_primary as f64 / took.len() as f64;
    let (median, late) = (took[took.len() / 2], took[(took.len() - 1) * 99 / 100]);
    let per_second = took.len() as f64 / span.as_secs_f64();
    let outcome = Outcome { at_replicas, median, late, per_second };
    eprintln!("{} reads: {outcome:?}", took.len());
    outcome
}

fn strong(topology: &Topology, stream: &str) -> Proxy {
    let policy = "consistency = \"strong\"\nmax-lag = \"5s\"";
    let proxy = Setup::of(topology).policy("default", policy).toml(stream).start();
    eventually("the stream is followed", secs(5), || proxy.metric("redweir_stream_attached", &[]) > 0.5);
    proxy
}

/// The stream comes from the replica that is fresher in time, and in time for a strong read.
#[test]
fn strong_reads_wait_for_the_fresher_of_two_replicas() {
    let topology = Topology::start(2);
    topology.lag(0, ms(20));
    topology.lag(1, ms(6));
    let _writes = Bypass::start(topology.primary.port, 5000, 300);
    let proxy = strong(&topology, "[stream]\nsource = \"replica\"");
    let fresher = format!("127.0.0.1:{}", topology.replica_ports()[1]);
    eventually("the stream comes from the fresher one", secs(10), || {
        proxy.view()["stream_source"].as_str() == Some(&fresher)
    });
    sleep_ms(1000);
    eventually("it is known how late they are", secs(10), || {
        let view = proxy.view();
        let delay = |n: usize| view["nodes"][n]["delay_ms"].as_f64();
        delay(1).is_some_and(|delay| delay > 14.0) && delay(2).is_some_and(|delay| delay < 14.0)
    });
    let outcome = read(&topology, &proxy, 5000, secs(3));
    assert!(outcome.at_replicas > 80.0, "{outcome:?}");
    assert!(outcome.median < ms(16), "{outcome:?}");
}

/// Where no replica can have it in time nobody waits for one.
#[test]
fn strong_reads_do_not_wait_in_vain() {
    let topology = Topology::start(2);
    topology.lag(0, ms(150));
    topology.lag(1, ms(45));
    let _writes = Bypass::start(topology.primary.port, 5000, 300);
    let proxy = strong(&topology, "[stream]\nsource = \"replica\"");
    eventually("the delay is known", secs(10), || {
        proxy.view()["stream_delay_ms"].as_f64().is_some_and(|delay| delay > 30.0)
    });
    sleep_ms(1000);
    let outcome = read(&topology, &proxy, 5000, secs(3));
    assert!(outcome.median < ms(10), "{outcome:?}");
    let late = proxy.metric(
        "redweir_commands_total",
        &[("access", "read"), ("target", "primary"), ("reason", "stream_late")],
    );
    assert!(late > 100.0, "{late}");
    assert_eq!(proxy.explain(&["GET", "k:1"])["reason"], "stream_late");
}

/// There `auto` follows the primary, if that is harmless, and replicas serve.
#[test]
fn where_strong_reads_would_wait_in_vain_auto_follows_the_primary() {
    let topology = Topology::start(2);
    topology.lag(0, ms(150));
    topology.lag(1, ms(45));
    let _writes = Bypass::start(topology.primary.port, 5000, 300);
    let proxy = strong(&topology, "");
    let primary = format!("127.0.0.1:{}", topology.primary.port);
    eventually("the primary is followed", secs(10), || {
        proxy.view()["stream_source"].as_str() == Some(&primary)
    });
    assert!(proxy.log().contains("the replication stream is followed at the primary"), "{}", proxy.log());
    sleep_ms(1000);
    let outcome = read(&topology, &proxy, 5000, secs(3));
    assert!(outcome.at_replicas > 80.0, "{outcome:?}");
    assert!(outcome.median < ms(12), "{outcome:?}");
    topology.primary.cmd(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    eventually("it is left once it counts replicas", secs(15), || {
        proxy.view()["stream_source"].as_str() != Some(&primary)
    });
}

/// What a key was last written at matters: connections find the replica that has it first.
#[test]
fn fenced_reads_are_served_by_the_fresher_replica() {
    let topology = Topology::start(2);
    topology.lag(0, ms(150));
    topology.lag(1, ms(45));
    let _writes = Bypass::start(topology.primary.port, 40, 400);
    let proxy = Setup::of(&topology).policy("default", "consistency = \"fenced\"\nmax-lag = \"5s\"").start();
    eventually("the delays are known", secs(10), || {
        proxy.view()["nodes"][2]["delay_ms"].as_f64().is_some_and(|delay| delay > 30.0)
    });
    sleep_ms(1000);
    read(&topology, &proxy, 40, secs(1));
    let outcome = read(&topology, &proxy, 40, secs(3));
    assert!(outcome.at_replicas > 20.0, "{outcome:?}");
}

/// Readers whose keys are written all the time by others, and of which a replica shows what it has: once a disturbance has sent
/// them to the primary, where they see what no replica has yet, they come back.
#[test]
fn sessions_come_back_to_their_replicas() {
    let topology = Topology::start(2);
    topology.lag(0, ms(150));
    topology.lag(1, ms(45));
    let proxy = Setup::of(&topology).policy("default", "consistency = \"session\"").start();
    let _writes = Bypass::start(proxy.port, 4, 760);
    sleep_ms(2500);
    let before = read(&topology, &proxy, 4, secs(2));
    assert!(before.at_replicas > 80.0, "{before:?}");
    let mut conns: Vec<Conn> = (0..2).map(|_| proxy.connect()).collect();
    let mut go_on = |span: Duration| {
        let (before, begun, mut count) = (topology.primary.calls("get"), Instant::now(), 0);
        let mut rng = Rng::new(5);
        while begun.elapsed() < span {
            for conn in &mut conns {
                conn.cmd(&["GET", &format!("k:{}", rng.below(4))]);
                count += 1;
            }
        }
        100.0 - 100.0 * (topology.primary.calls("get") - before) as f64 / f64::from(count)
    };
    go_on(ms(500));
    for replica in &topology.replicas {
        replica.link.cut();
    }
    let meanwhile = go_on(ms(3000));
    for replica in &topology.replicas {
        replica.link.heal();
    }
    topology.lag(0, ms(150));
    topology.lag(1, ms(45));
    eventually("the replicas are back", secs(20), || {
        go_on(ms(50));
        proxy.eligible() == 2
    });
    go_on(ms(1500));
    let afterwards = go_on(secs(2));
    println!("{meanwhile:.0} % at replicas without links, {afterwards:.0} % afterwards");
    assert!(meanwhile < 70.0, "{meanwhile} % at replicas that were too old");
    assert!(afterwards > 80.0, "{afterwards} % at replicas afterwards");
}

/// Nor do those of the other levels stay at the primary: what the replicas served before their links were cut for three
/// seconds they serve afterwards.
#[test]
fn whatever_the_level_reads_come_back_to_their_replicas() {
    /// Each level reads in its own words, by which the primary counts them.
    const LEVELS: [(&str, &str); 4] =
        [("eventual", "getrange"), ("bounded", "strlen"), ("fenced", "get"), ("strong", "exists")];
    let topology = Topology::start(2);
    let lag = || {
        topology.lag(0, ms(20));
        topology.lag(1, ms(6));
    };
    lag();
    let policy = |setup: Setup, level: &str| {
        setup.policy(level, &format!("consistency = \"{level}\"\nmax-lag = \"1s\""))
    };
    let mut setup = policy(Setup::of(&topology).policy("default", ""), LEVELS[0].0).listener(LEVELS[0].0);
    for (level, _) in &LEVELS[1..] {
        setup = policy(setup, level).listener(level);
    }
    let proxy = setup.start();
    let _writes = Bypass::start(proxy.port, 5000, 200);
    let mut conns: Vec<Conn> = proxy.ports[1..].iter().map(|port| Conn::open(*port)).collect();
    let mut served = |span: Duration| {
        let calls = || LEVELS.map(|(_, command)| topology.primary.calls(command));
        let (before, begun, mut rounds, mut rng) = (calls(), Instant::now(), 0, Rng::new(5));
        while begun.elapsed() < span {
            let key = format!("k:{}", rng.below(5000));
            for (conn, (_, command)) in conns.iter_mut().zip(LEVELS) {
                let words = [command, &key, "0", "-1"];
                conn.ask(&words[..if command == "getrange" { 4 } else { 2 }]);
            }
            for conn in &mut conns {
                assert!(!conn.read().is_error());
            }
            rounds += 1;
            sleep_ms(1);
        }
        let calls = calls();
        std::array::from_fn::<f64, 4, _>(|n| {
            100.0 - 100.0 * (calls[n] - before[n]) as f64 / f64::from(rounds)
        })
    };
    eventually("the stream is followed", secs(5), || proxy.metric("redweir_stream_attached", &[]) > 0.5);
    sleep_ms(1500);
    served(ms(500));
    let before = served(secs(2));
    topology.replicas.iter().for_each(|replica| replica.link.cut());
    let meanwhile = served(secs(3));
    topology.replicas.iter().for_each(|replica| replica.link.heal());
    lag();
    eventually("the replicas are back", secs(20), || {
        served(ms(50));
        proxy.eligible() == 2
    });
    served(ms(500));
    let afterwards = served(secs(2));
    println!(
        "{:?}: {before:.0?} %, without links {meanwhile:.0?} %, then {afterwards:.0?} %",
        LEVELS.map(|(level, _)| level)
    );
    for (n, (level, _)) in LEVELS.iter().enumerate() {
        assert!(before[n] > 60.0, "{level}: {} %", before[n]);
        assert!(afterwards[n] > before[n] - 15.0, "{level}: {} %, {} % before", afterwards[n], before[n]);
    }
    assert!(meanwhile[1] < 80.0, "bounded reads went on for {} %", meanwhile[1]);
}

/// What replicas of each lag serve at each level, as a table for the docs (`make bench-lag`); without `REDWEIR_BENCH_LAG` a
/// corner of it. Nothing is older than its level allows: that is checked elsewhere, at the same lags.
#[test]
fn what_replicas_serve_at_each_level_and_lag() {
    let all = std::env::var_os("REDWEIR_BENCH_LAG").is_some();
    let (lags, key_counts): (&[u64], &[usize]) =
        if all { (&[0, 5, 20, 150], &[40, 5000]) } else { (&[20], &[40]) };
    let span = if all { secs(4) } else { ms(500) };
    println!("| level | replicas behind, ms | keys | reads at replicas | p50 ms | p99 ms | reads/s |");
    println!("|---|--:|--:|--:|--:|--:|--:|");
    for level in ["eventual", "bounded", "session", "fenced", "strong"] {
        for &lag in lags {
            for &keys in key_counts {
                let topology = Topology::start(2);
                topology.lag(0, ms(lag));
                topology.lag(1, ms(lag * 3 / 10));
                let policy = format!("consistency = \"{level}\"\nmax-lag = \"5s\"");
                let proxy = Setup::of(&topology).policy("default", &policy).start();
                let _writes = Bypass::start(proxy.port, keys, 400);
                // Until the delays are known, and the connections are where they stay.
                sleep_ms(2500);
                let outcome = read(&topology, &proxy, keys, span);
                let Outcome { at_replicas, median, late, per_second } = outcome;
                let millis = |took: Duration| took.as_secs_f64() * 1000.0;
                println!(
                    "| {level} | {lag}/{} | {keys} | {at_replicas:.0} % | {:.2} | {:.2} | {per_second:.0} |",
                    lag * 3 / 10,
                    millis(median),
                    millis(late)
                );
                assert!(at_replicas > 1.0 || keys < 1000, "{level} at {lag} ms: {outcome:?}");
            }
        }
    }
}
