//! Three figures that no other bench gives, each measured in turns (A B C A B C …) on real servers:
//!
//! * `added`: what a proxy adds to the latency at half the peak load, in an open loop (see [`open`]);
//! * `floor`: what Redweir's processor time is to that of a multiplexer that does nothing else (see [`floor`]);
//! * `control`: what it costs a primary under full write load that Redweir watches it (see [`control`]).
//!
//! The proxy has core 0 to itself, servers and load share core 1. `make bench-latency`, or some of it with
//! `PARTS="added floor"`; with `BENCH_README=1` the tables go to `benches/README.md`, and `PREDIXY=/path` adds that peer.
#![allow(clippy::disallowed_methods, reason = "a bench is outside of `net` and has a clock of its own")]

use std::env;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::ensure;

mod added;
#[path = "../proxy/contestant.rs"]
mod contestant;
mod control;
mod cost;
mod floor;
mod open;
#[path = "../rig/mod.rs"]
#[allow(dead_code, reason = "shared by the benches")]
mod rig;

use rig::load::KEYS;
use rig::process::machine_ticks;
use rig::servers::Servers;
use rig::{machine, say, stop_on_signal};

/// One table: its name on the command line and in the README, and what measures it.
type Part = (&'static str, fn(&Site<'_>) -> anyhow::Result<String>);

const PARTS: [Part; 3] = [("added", added::measure), ("floor", cost::measure), ("control", control::measure)];
const REPLICAS: usize = 2;
/// A machine of which less than this share is busy is quiet; how long, and how often at most, that is looked at.
const QUIET: f64 = 0.3;
const LOOK: Duration = Duration::from_millis(200);
const LOOKS: u32 = 8;
/// A measurement is good if no larger share was stolen; how often it is made at most.
const STOLEN: f64 = 0.01;
const TRIES: u32 = 3;
/// The size of every value.
const VALUE_BYTES: usize = 32;

/// Where it is measured.
struct Site<'a> {
    home: &'a Path,
    servers: Servers,
    /// This executable: it is the floor and the open loop as well.
    me: String,
    stop: &'a AtomicBool,
}

impl Site<'_> {
    /// Measures when others leave this machine alone, and once more if its processors were stolen meanwhile (by the
    /// hypervisor, for other machines); but waits and repeats only so often. Fails when somebody wants the bench to end.
    fn steadily<T>(&self, measure: impl Fn() -> anyhow::Result<T>) -> anyhow::Result<T> {
        for _ in 1..TRIES {
            self.await_quiet()?;
            let before = machine_ticks()?;
            let measured = measure()?;
            if machine_ticks()?.since(before, |ticks| ticks.stolen) <= STOLEN {
                return Ok(measured);
            }
        }
        measure()
    }

    fn await_quiet(&self) -> anyhow::Result<()> {
        for _ in 0..LOOKS {
            ensure!(!self.stop.load(Ordering::Relaxed), "interrupted");
            let before = machine_ticks()?;
            thread::sleep(LOOK);
            if machine_ticks()?.since(before, |ticks| ticks.busy) <= QUIET {
                break;
            }
        }
        Ok(())
    }
}

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        [floor::FLAG, port, upstream] => return floor::serve(port.parse()?, upstream.parse()?),
        [open::FLAG, port, rate, requests] => {
            return open::send(port.parse()?, rate.parse()?, requests.parse()?);
        }
        _ if !args.contains(&"--bench") || args.contains(&"--test") => {
            return say("This takes minutes and two cores to itself: make bench-latency");
        }
        _ => {}
    }
    let wanted = |name| args.contains(&name) || !PARTS.iter().any(|(part, _)| args.contains(part));
    let home = tempfile::tempdir()?;
    let stop = stop_on_signal()?;
    let servers = Servers::start(home.path(), REPLICAS)?;
    servers.fill(KEYS, VALUE_BYTES)?;
    let me = env::current_exe()?.to_string_lossy().into_owned();
    let site = Site { home: home.path(), servers, me, stop: &stop };
    let readme = env::var_os("BENCH_README").is_some_and(|value| value != "0");
    for (name, measure) in PARTS.into_iter().filter(|(name, _)| wanted(name)) {
        let report = format!("{} {}", machine()?, measure(&site)?);
        rig::publish(name, name, &report, readme.then_some("benches/README.md"))?;
    }
    Ok(())
}
