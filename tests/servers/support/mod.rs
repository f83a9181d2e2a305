//! What the end-to-end tests stand on: real `redis-server`s, a relay that spoils the network between them, the
//! proxy itself, a client that shows everything it gets, and a checker that knows what a read may return.
#![allow(dead_code, unused_imports, reason = "each test file uses its own part of it")]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]
#![allow(clippy::print_stderr, reason = "what failed has to be seen")]

pub(crate) mod checker;
pub(crate) mod cluster;
pub(crate) mod hostile;
pub(crate) mod load;
pub(crate) mod proxy;
pub(crate) mod redis;
pub(crate) mod relay;
pub(crate) mod resp;
pub(crate) mod rng;
pub(crate) mod sentinel;
pub(crate) mod socket;
pub(crate) mod topology;
pub(crate) mod watch;

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

pub(crate) use cluster::Cluster;
pub(crate) use hostile::Hostile;
pub(crate) use proxy::{Proxy, Setup};
pub(crate) use redis::{Redis, Server};
pub(crate) use relay::{Direction, Relay};
pub(crate) use resp::{Conn, Value, encode, http_get};
pub(crate) use sentinel::{Sentinel, Told};
pub(crate) use socket::Socket;
pub(crate) use topology::Topology;
pub(crate) use watch::{Moved, Watch};

/// Waits until something is so; fails when it isn't in time.
pub(crate) fn eventually(what: &str, within: Duration, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn sleep_ms(ms: u64) {
    thread::sleep(Duration::from_millis(ms));
}

pub(crate) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(crate) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// A line of `/proc/<pid>/status`, in bytes.
pub(crate) fn memory_of(pid: u32, line: &str) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let found = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
    let text = found.unwrap_or_else(|| panic!("no {line} in {status}"));
    text.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

/// A port that nobody listens on. Below the range that outgoing connections take theirs from, so that a server that
/// is restarted finds its own free again. Who uses it still has to be ready for a clash.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 10_000;
    const PORTS: u16 = 20_000;
    let start = (std::process::id().wrapping_mul(7919) % u32::from(PORTS)) as u16;
    for _ in 0..PORTS {
        let port = FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed) % PORTS) % PORTS;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port");
}
