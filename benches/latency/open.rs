//! An open loop: requests leave on schedule, whatever became of those before them, and a request's latency counts from
//! when it was due. Somebody who stalls so pays for all who had to wait, as in production. A closed loop, which sends
//! the next request when the reply is there, would ask less of the slow and call that fast.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::prctl::set_timerslack;

use crate::rig::load::{CONNECTIONS, KEYS};
use crate::rig::process::{load_core, on_core};
use crate::rig::say;
use crate::rig::spread::Spread;
use crate::{Site, VALUE_BYTES};

/// How this executable is told to be the load: `--load PORT RATE REQUESTS`.
pub(crate) const FLAG: &str = "--load";

/// Which part of the requests warms up, and is not counted.
const WARM_UP: usize = 10;
/// Percentiles are those of a window: as long as what a proxy does besides, ten times a second or so, is in each.
const WINDOWS_PER_SECOND: u64 = 4;
/// Nobody takes longer than this for a reply.
const PATIENCE: Duration = Duration::from_secs(5);
/// `$32`, the value, and two line ends.
const REPLY_BYTES: usize = 5 + VALUE_BYTES + 2;

/// What it found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Latency {
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

impl Latency {
    /// Sends `requests` to `port`, `rate` of them per second, by a process that shares the servers' core.
    pub(crate) fn measure(site: &Site<'_>, port: u16, rate: u64, requests: u64) -> anyhow::Result<Self> {
        let args = [FLAG.to_owned(), port.to_string(), rate.to_string(), requests.to_string()];
        let output = on_core(load_core(), &site.me, &args.each_ref().map(String::as_str)).output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        let mut figures = said.split_whitespace().map_while(|word| word.parse().ok());
        let (p50_us, p99_us) = figures
            .next()
            .zip(figures.next())
            .with_context(|| format!("the load failed: {}", String::from_utf8_lossy(&output.stderr)))?;
        Ok(Self { p50_us, p99_us })
    }
}

/// A client with a request under way: one at a time.
struct Client<'a> {
    stream: &'a TcpStream,
    /// When its request was due.
    due: Duration,
    /// How much of the reply is there.
    got: usize,
}

/// What is sent when.
struct Schedule {
    rate: u64,
    requests: usize,
    sent: usize,
    /// Of a xorshift generator.
    state: u64,
}

/// Is the load: says the median and the 99th percentile, in microseconds, of the median window.
pub(crate) fn send(port: u16, rate: u64, requests: usize) -> anyhow::Result<()> {
    // Timers are otherwise up to 50 µs late.
    set_timerslack(1)?;
    let streams = (0..CONNECTIONS).map(|_| connect(port)).collect::<io::Result<Vec<_>>>()?;
    // Who has been idle the longest is next.
    let mut idle: VecDeque<&TcpStream> = streams.iter().collect();
    let (mut busy, mut polled) = (Vec::new(), Vec::new());
    let mut schedule = Schedule { rate, requests, sent: 0, state: 0x9E37_79B9_7F4A_7C15 };
    let mut took = Vec::with_capacity(requests);
    let began = Instant::now();
    while took.len() < requests {
        while let Some(due) = schedule.due().filter(|due| *due <= began.elapsed())
            && let Some(mut stream) = idle.pop_front()
        {
            stream.write_all(schedule.take().as_bytes())?;
            busy.push(Client { stream, due, got: 0 });
            polled.push(PollFd::new(stream.as_fd(), PollFlags::POLLIN));
        }
        let next = schedule.due().filter(|_| !idle.is_empty());
        let pause = next.map_or(PATIENCE, |due| due.saturating_sub(began.elapsed()));
        let ready = ppoll(&mut polled, Some(pause.into()), None)?;
        ensure!(ready > 0 || next.is_some(), "no reply within {PATIENCE:?}");
        for number in (0..busy.len()).rev() {
            if polled[number].any() == Some(true) && busy[number].read()? {
                let client = busy.swap_remove(number);
                polled.swap_remove(number);
                took.push(began.elapsed().saturating_sub(client.due));
                idle.push_back(client.stream);
            }
        }
    }
    // A virtual machine that is stopped for 30 ms decides the 99th percentile of 3 s; it spoils only one window.
    let windows = took[requests / WARM_UP..].chunks_exact_mut((rate / WINDOWS_PER_SECOND) as usize);
    let windows: Vec<[f64; 2]> = windows
        .map(|window| {
            window.sort_unstable();
            [50, 99].map(|part| percentile(window, part))
        })
        .collect();
    let median = |of: usize| Spread::of(windows.iter().map(|window| window[of])).map(|spread| spread.median);
    let (p50, p99) = median(0).zip(median(1)).context("too few requests for one window")?;
    say(&format!("{p50} {p99}"))
}

/// Of what is sorted, in microseconds.
fn percentile(sorted: &[Duration], part: usize) -> f64 {
    sorted[sorted.len() * part / 100].as_nanos() as f64 / 1e3
}

fn connect(port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl Schedule {
    /// When the next request is due, if there is one.
    fn due(&self) -> Option<Duration> {
        let due = || Duration::from_nanos(self.sent as u64 * 1_000_000_000 / self.rate);
        (self.sent < self.requests).then(due)
    }

    /// The next request: any of the keys.
    fn take(&mut self) -> String {
        self.sent += 1;
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        format!("*2\r\n$3\r\nGET\r\n$16\r\nkey:{:012}\r\n", self.state % KEYS as u64)
    }
}

impl Client<'_> {
    /// Reads what is there; whether the reply is complete.
    fn read(&mut self) -> anyhow::Result<bool> {
        let mut buffer = [0; REPLY_BYTES];
        let count = self.stream.read(&mut buffer[self.got..])?;
        ensure!(count > 0, "the connection was closed");
        ensure!(self.got > 0 || buffer.starts_with(b"$"), "{}", String::from_utf8_lossy(&buffer[..count]));
        self.got += count;
        Ok(self.got == REPLY_BYTES)
    }
}
