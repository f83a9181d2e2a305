//! `max-lag-bytes` under a steady load of large writes that the proxy does not see.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::corners::{Tally, share};
use crate::support::{Conn, Setup, Topology, encode, ms, sleep_ms};

const MAX_LAG_BYTES: u64 = 4 * 1024 * 1024;
const VALUE: usize = 100_000;
/// Digits in front of a value: its number.
const DIGITS: usize = 10;
/// Between two writes: 30 MB/s.
const EVERY_US: u64 = 3300;
/// Of the replica, in ms: at that rate 4 MiB are 140 ms.
const DELAYS: [u64; 8] = [20, 90, 160, 250, 160, 90, 20, 120];

/// Write number `n`.
fn write(n: u64) -> Vec<u8> {
    let mut value = format!("{n:0DIGITS$}").into_bytes();
    value.resize(VALUE, b'x');
    encode(&[b"SET".as_slice(), b"blob", &value])
}

/// Writes until it is told to stop, never faster than at that rate: what could not be written in time is not made up for.
/// Between two polls nobody knows of a burst.
fn write_steadily(port: u16, acked: &AtomicU64, stop: &AtomicBool) {
    let mut conn = Conn::open(port);
    for n in 1.. {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let begun = Instant::now();
        assert_eq!(conn.send(&write(n)).read(), "OK");
        acked.store(n, Ordering::SeqCst);
        thread::sleep(Duration::from_micros(EVERY_US).saturating_sub(begun.elapsed()));
    }
}

/// Reads, and says how far behind the node that answered was at least: by the writes that had been acknowledged before
/// the read was sent and that come after the one that it was applying at the latest.
fn read_often(port: u16, acked: &AtomicU64, stop: &AtomicBool) -> Tally {
    let (mut conn, mut tally) = (Conn::open(port), Tally::default());
    let size = write(0).len() as u64;
    while !stop.load(Ordering::SeqCst) {
        let head = acked.load(Ordering::SeqCst);
        let seen = conn.cmd(&["GETRANGE", "blob", "0", &(DIGITS - 1).to_string()]);
        let behind = head.saturating_sub(seen.int() as u64 + 1) * size;
        let too_far = behind * 10 > MAX_LAG_BYTES * 11;
        tally.look(too_far.then(|| {
            format!("{behind} bytes behind, {:.2} of what is allowed", behind as f64 / MAX_LAG_BYTES as f64)
        }));
        sleep_ms(2);
    }
    tally
}

/// A10
#[test]
fn no_replica_that_is_too_many_bytes_behind_serves() {
    let topology = Topology::start(1);
    let policy = format!("consistency = \"bounded\"\nmax-lag = \"10s\"\nmax-lag-bytes = \"{MAX_LAG_BYTES}\"");
    let proxy = Setup::of(&topology).upstream("poll-interval = \"100ms\"").policy("default", &policy).start();
    assert_eq!(topology.primary.connect().send(&write(0)).read(), "OK");
    topology.await_sync();
    let (acked, stop, head) = (AtomicU64::new(0), AtomicBool::new(false), topology.primary.head());
    let tallies = thread::scope(|scope| {
        let (acked, stop) = (&acked, &stop);
        scope.spawn(|| write_steadily(topology.primary.port, acked, stop));
        let readers: Vec<_> = (0..4).map(|_| scope.spawn(|| read_often(proxy.port, acked, stop))).collect();
        for delay in DELAYS.iter().cycle().take(3 * DELAYS.len()) {
            topology.lag(0, ms(*delay));
            sleep_ms(300);
        }
        stop.store(true, Ordering::SeqCst);
        readers.into_iter().map(|reader| reader.join().unwrap()).collect::<Vec<_>>()
    });
    let (written, counted) =
        ((topology.primary.head() - head) as u64, acked.into_inner() * write(0).len() as u64);
    assert!(written.abs_diff(counted) < counted / 100, "the stream grew by {written} bytes, not {counted}");
    let mut tally = Tally::default();
    for one in tallies {
        tally.looked += one.looked;
        tally.wrong.extend(one.wrong);
    }
    println!("{:.0} MB/s, {:.0} % by replicas", counted as f64 / 7.2e6, 100.0 * share(&proxy));
    assert!(share(&proxy) > 0.05, "replicas served {:.2}", share(&proxy));
    tally.assert_clean("reads at a replica that is too many bytes behind");
}
