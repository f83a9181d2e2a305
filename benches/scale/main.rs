//! How Redweir grows: with workers, with connections, with replicas; and that reads scale with replicas.
//!
//! The first table is what the proxy itself takes: one worker has a core to itself, two share both cores with servers
//! and load. It says nothing of what replicas are good for, because all servers share a core. The second table does:
//! there each replica gets a fixed share of a core (see [`share`]), so that replicas are what is scarce, as they are in
//! production, and one can see what another one brings.
//!
//! `make bench-scale`; with `BENCH_README=1` the tables go to `benches/README.md`.
#![allow(clippy::disallowed_methods, reason = "a bench is outside of `net` and has a clock of its own")]

use std::env;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::ensure;

mod growth;
mod proxy;
mod reads;
#[path = "../rig/mod.rs"]
#[allow(dead_code, reason = "shared by the benches")]
mod rig;
mod share;

use growth::{GROWTH, Growth};
use reads::{READS, Reads};
use rig::load::KEYS;
use rig::servers::Servers;
use rig::{machine, process, say, stop_on_signal};

const ROUNDS: usize = 3;
/// As many replicas as any case wants; a proxy knows the first few of them.
const REPLICAS: usize = 5;
/// 5,000 connections, at both ends of the proxy's, and what else is open.
const FILES: u64 = 12_000;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let binary = args.iter().skip_while(|arg| *arg != "--binary").nth(1);
    if binary.is_none() && !args.iter().any(|arg| arg == "--bench") {
        return say("This takes minutes and two cores to itself: make bench-scale");
    }
    let binary = binary.map_or(env!("CARGO_BIN_EXE_redweir"), String::as_str);
    let files = process::raise_open_files(FILES)?;
    ensure!(files >= FILES, "5,000 connections need {FILES} open files, and only {files} are allowed");
    let stop = stop_on_signal()?;
    let report = run(binary, &stop)?;
    let wanted = env::var_os("BENCH_README").is_some_and(|value| value != "0");
    rig::publish("scale", "scale", &report, wanted.then_some("benches/README.md"))
}

fn run(binary: &str, stop: &AtomicBool) -> anyhow::Result<String> {
    let home = tempfile::tempdir()?;
    let servers = Servers::start(home.path(), REPLICAS)?;
    servers.fill(KEYS, 32)?;
    let mut grown = vec![Vec::new(); GROWTH.len()];
    let mut read = vec![Vec::new(); READS.len()];
    for round in 1..=ROUNDS {
        say(&format!("round {round} of {ROUNDS}"))?;
        for (case, samples) in GROWTH.iter().zip(&mut grown) {
            ensure!(!stop.load(Ordering::Relaxed), "interrupted");
            samples.push(Growth::measure(case, binary, home.path(), &servers)?);
        }
        for (case, samples) in READS.iter().zip(&mut read) {
            ensure!(!stop.load(Ordering::Relaxed), "interrupted");
            samples.push(Reads::measure(case, binary, home.path(), &servers)?);
        }
    }
    Ok(format!(
        "{} Medians of {ROUNDS} rounds (lowest–highest).\n\n{}\n{}",
        machine()?,
        growth::table(&grown),
        reads::table(&read)
    ))
}
