//! Failovers by real sentinels, round after round, each with a seed of its own: writers append numbers, readers look at the
//! last one, and in the end the lists of the new primary tell what became of every write.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]
#![allow(clippy::print_stderr, reason = "figures are to be seen")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::support::rng::Rng;
use crate::support::{Conn, Proxy, Redis, Sentinel, Setup, Value, eventually, ms, secs, sleep_ms};

/// What happens to the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// SIGKILL
    Dies,
    /// SIGSTOP, and SIGCONT when it has been replaced.
    Hangs,
    /// Nothing: somebody wants another one (`SENTINEL FAILOVER`).
    IsReplaced,
}

/// A number that somebody appended, or tried to.
#[derive(Clone, Copy, Debug)]
struct Append {
    number: i64,
    /// `None`: it may have been executed.
    acknowledged: Option<Instant>,
}

/// The last number that a reader saw.
#[derive(Clone, Copy, Debug)]
struct Seen {
    key: usize,
    from: Instant,
    number: i64,
}

#[derive(Debug, Default)]
struct Outcome {
    appended: Vec<Vec<Append>>,
    seen: Vec<Seen>,
    refused: Vec<String>,
    refused_reads: Vec<String>,
}

const KEYS: usize = 4;

fn key(n: usize) -> String {
    format!("list:{n}")
}

/// Clients at work.
struct Clients {
    ended: Arc<AtomicBool>,
    writers: Vec<JoinHandle<(Vec<Append>, Vec<String>)>>,
    readers: Vec<JoinHandle<(Vec<Seen>, Vec<String>)>>,
}

impl Clients {
    fn start(port: u16) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let writer = |n| {
            let ended = Arc::clone(&ended);
            thread::spawn(move || append(port, n, &ended))
        };
        let reader = |n: usize| {
            let ended = Arc::clone(&ended);
            thread::spawn(move || look(port, n as u64, &ended))
        };
        let (writers, readers) = ((0..KEYS).map(writer).collect(), (0..KEYS).map(reader).collect());
        Self { ended, writers, readers }
    }

    fn stop(self) -> Outcome {
        self.ended.store(true, Ordering::SeqCst);
        let mut outcome = Outcome::default();
        for writer in self.writers {
            let (appended, refused) = writer.join().unwrap();
            outcome.appended.push(appended);
            outcome.refused.extend(refused);
        }
        for reader in self.readers {
            let (seen, refused) = reader.join().unwrap();
            outcome.seen.extend(seen);
            outcome.refused_reads.extend(refused);
        }
        outcome
    }
}

fn append(port: u16, n: usize, ended: &AtomicBool) -> (Vec<Append>, Vec<String>) {
    let (mut appended, mut refused) = (Vec::new(), Vec::new());
    let mut conn = Conn::open(port);
    conn.patience(secs(30));
    let mut number = 0;
    while !ended.load(Ordering::SeqCst) {
        number += 1;
        let acknowledged = match conn.cmd(&["RPUSH", &key(n), &number.to_string()]) {
            Value::Int(_) => Some(Instant::now()),
            Value::Error(text) if text.contains("may have been executed") => None,
            other => {
                refused.push(format!("{other:?}"));
                continue;
            }
        };
        appended.push(Append { number, acknowledged });
        thread::sleep(ms(2));
    }
    (appended, refused)
}

fn look(port: u16, seed: u64, ended: &AtomicBool) -> (Vec<Seen>, Vec<String>) {
    let (mut seen, mut refused, mut rng) = (Vec::new(), Vec::new(), Rng::new(seed));
    let mut conn = Conn::open(port);
    conn.patience(secs(30));
    while !ended.load(Ordering::SeqCst) {
        let (n, from) = (rng.below(KEYS), Instant::now());
        match conn.cmd(&["LINDEX", &key(n), "-1"]) {
            Value::Error(text) => refused.push(text),
            Value::Null => seen.push(Seen { key: n, from, number: 0 }),
            number => seen.push(Seen { key: n, from, number: number.text().parse().unwrap() }),
        }
        thread::sleep(ms(1));
    }
    (seen, refused)
}

/// What became of everything, by the lists of the new primary.
#[derive(Debug, Default)]
struct Verdict {
    acknowledged: usize,
    /// Acknowledged, and not there.
    lost: usize,
    /// Keys of those.
    lost_of: BTreeSet<String>,
    /// Not there, and never acknowledged.
    gone_unanswered: usize,
    twice: usize,
    reads: usize,
    /// Reads that began when a write was acknowledged that is there to this day, and did not see it.
    stale: usize,
}

fn judge(outcome: &Outcome, promoted: &Redis) -> Verdict {
    let mut verdict = Verdict { reads: outcome.seen.len(), ..Verdict::default() };
    for (n, appended) in outcome.appended.iter().enumerate() {
        let list = promoted.cmd(&["LRANGE", &key(n), "0", "-1"]);
        let there: Vec<i64> = list.items().iter().map(|item| item.text().parse().unwrap()).collect();
        let kept: BTreeSet<i64> = there.iter().copied().collect();
        verdict.twice += there.len() - kept.len();
        let missing = appended.iter().filter(|append| !kept.contains(&append.number));
        for append in missing {
            if append.acknowledged.is_some() {
                verdict.lost += 1;
                verdict.lost_of.insert(key(n));
            } else {
                verdict.gone_unanswered += 1;
            }
        }
        verdict.acknowledged += appended.iter().filter(|append| append.acknowledged.is_some()).count();
        let kept = appended.iter().filter(|append| kept.contains(&append.number));
        let kept: Vec<(Instant, i64)> =
            kept.filter_map(|append| append.acknowledged.map(|at| (at, append.number))).collect();
        verdict.stale += outcome.seen.iter().filter(|seen| seen.key == n && misses(seen, &kept)).count();
    }
    verdict
}

/// Whether a read does not show what was acknowledged before it, of these in order.
fn misses(seen: &Seen, kept: &[(Instant, i64)]) -> bool {
    let before = kept.partition_point(|(at, _)| *at <= seen.from);
    kept[..before].last().is_some_and(|(_, number)| seen.number < *number)
}

/// Ends what replicas hear of a primary, and has them refused when they come again: what it is told from now on, they miss.
/// Who is connected otherwise stays so.
fn cut_off(primary: &Redis, replicas: &[Redis]) {
    assert_eq!(primary.cmd(&["CONFIG", "SET", "requirepass", "nobody-knows"]), "OK");
    for replica in replicas {
        assert_eq!(replica.cmd(&["CLIENT", "KILL", "TYPE", "master"]), 1);
    }
}

/// When a sentinel tells that it has switched.
fn await_switch(port: u16) -> JoinHandle<Instant> {
    let mut conn = Conn::open(port);
    conn.patience(secs(40));
    conn.cmd(&["SUBSCRIBE", "+switch-master"]);
    thread::spawn(move || {
        conn.read();
        Instant::now()
    })
}

/// The writes that the proxy told as lost, and their keys.
fn told(proxy: &Proxy) -> (usize, BTreeSet<String>) {
    let losses = proxy.view()["losses"].as_array().unwrap().clone();
    let writes = losses.iter().map(|loss| loss["writes"].as_u64().unwrap_or(0) as usize).sum();
    let keys = losses.iter().flat_map(|loss| loss["keys"].as_array().cloned().unwrap_or_default());
    (writes, keys.map(|key| key.as_str().unwrap().to_owned()).collect())
}

/// One failover from beginning to end.
fn round(fault: Fault, seed: u64) {
    let mut rng = Rng::new(seed);
    let mut primary = Redis::start(&[]);
    let replicas: Vec<Redis> = (0..2).map(|_| Redis::replica_of(primary.port, &[])).collect();
    for replica in &replicas {
        eventually("a replica is in sync", secs(10), || replica.applied().is_some());
    }
    let sentinels = Sentinel::start(3, primary.port, 2);
    let ports: Vec<u16> = sentinels.iter().map(|sentinel| sentinel.port).collect();
    let proxy = Setup::by_sentinels(&ports)
        .upstream("write-hold = \"20s\"")
        .policy("default", "consistency = \"fenced\"")
        .toml("[stream]\nsource = \"primary\"")
        .start_with_any_replicas();
    proxy.await_replicas(2);
    eventually("the stream is followed", secs(10), || proxy.get("/readyz").1.contains("stream: attached"));
    let clients = Clients::start(proxy.port);
    sleep_ms(500 + rng.below(500) as u64);
    let switch = await_switch(sentinels[rng.below(3)].port);
    // Every other primary that dies has told nobody of its last writes.
    let cut = fault == Fault::Dies && seed.is_multiple_of(2);
    if cut {
        cut_off(&primary, &replicas);
        sleep_ms(50 + rng.below(200) as u64);
    }
    let struck = Instant::now();
    match fault {
        Fault::Dies => primary.kill(),
        Fault::Hangs => primary.pause(),
        Fault::IsReplaced => {
            let told = Conn::open(ports[rng.below(3)]).cmd(&["SENTINEL", "FAILOVER", "main"]);
            assert_eq!(told, "OK");
        }
    }
    let switched = switch.join().unwrap();
    sleep_ms(1500);
    if fault == Fault::Hangs {
        primary.resume();
        sleep_ms(1500);
    }
    let outcome = clients.stop();
    // Two sentinels may each have led a failover, one after the other.
    let mut promoted = 0;
    eventually("all agree", secs(30), || {
        let ports: BTreeSet<String> = sentinels.iter().map(|sentinel| sentinel.field("port")).collect();
        promoted = sentinels[0].field("port").parse::<u16>().unwrap();
        let follows = format!("\"primary\":\"127.0.0.1:{promoted}\"");
        ports.len() == 1
            && promoted != primary.port
            && proxy.get("/view").1.replace(": ", ":").contains(&follows)
            && proxy.get("/readyz").1.contains("stream: attached")
    });
    let new = replicas.iter().find(|replica| replica.port == promoted).unwrap();
    let verdict = judge(&outcome, new);
    let resumed = outcome.appended.iter().flatten().filter_map(|append| append.acknowledged);
    let resumed = resumed.filter(|at| *at > switched).min().expect("writes go on");
    eventually("it is told", secs(5), || told(&proxy).0 >= verdict.lost);
    let (writes, keys) = told(&proxy);
    eprintln!(
        "{fault:?}, seed {seed}: switched after {:?}, written within {:?}; {verdict:?}; told: {writes}",
        switched - struck,
        resumed - switched
    );
    let what = format!("{fault:?}, seed {seed}: {verdict:?}, told {writes} of {keys:?}\n{}", proxy.log());
    assert!(outcome.refused.is_empty(), "{:?}\n{what}", outcome.refused);
    assert!(outcome.refused_reads.is_empty(), "{:?}\n{what}", outcome.refused_reads);
    assert!(resumed - switched <= secs(1), "{:?}\n{what}", resumed - switched);
    assert_eq!((verdict.twice, verdict.stale), (0, 0), "{what}");
    assert!(verdict.acknowledged > 100 && verdict.reads > 100, "{what}");
    assert!((verdict.lost..=verdict.lost + verdict.gone_unanswered).contains(&writes), "{what}");
    assert!(keys.is_superset(&verdict.lost_of), "{what}");
    assert!(!cut || verdict.lost > 10, "{what}");
}

fn rounds(fault: Fault) {
    let usual = if fault == Fault::Dies { 2 } else { 1 };
    let count = std::env::var("REDWEIR_FAILOVERS").map_or(usual, |count| count.parse().unwrap());
    (1..=count).for_each(|seed| round(fault, seed));
}

#[test]
fn a_primary_that_dies_is_replaced() {
    rounds(Fault::Dies);
}

#[test]
fn a_primary_that_hangs_is_replaced() {
    rounds(Fault::Hangs);
}

#[test]
fn a_primary_is_replaced_by_order() {
    rounds(Fault::IsReplaced);
}

/// A checker that cannot fail shows nothing.
#[test]
fn what_the_checker_calls_stale() {
    let now = Instant::now();
    let at = |n: u64| now + Duration::from_millis(n);
    let kept = [(at(10), 1), (at(20), 2)];
    let seen = |from, number| Seen { key: 0, from: at(from), number };
    assert!(!misses(&seen(5, 0), &kept) && !misses(&seen(15, 1), &kept) && !misses(&seen(25, 7), &kept));
    assert!(misses(&seen(15, 0), &kept) && misses(&seen(25, 1), &kept));
}
