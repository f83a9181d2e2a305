//! The whole proxy next to a direct connection and to its peers, side by side in one run.
//!
//! A primary and two replicas on this machine, the load from `redis-benchmark`; the proxy under test has one core to
//! itself, servers and load share another. Contestants take turns (A B C A B C …), so that what else the machine does
//! meets all of them alike; what counts is the ratio. The steadiest figure is the proxy's processor time for a fixed
//! number of requests. Reads that Redweir spreads over replicas don't make this faster here: all servers share a core.
//!
//! `--one-core` puts all on one core: there a proxy's processor time and the load's drift together, so that their
//! ratio repeats within a few percent, and throughput is what all of them use together. `--all-cores` pins nothing and
//! gives proxies two workers (twemproxy has no more than one).
//!
//! `cargo bench --bench proxy -- [--quick] [--one-core] [--all-cores] [--update-readme]`; `BENCH_QUICK=1`, `ONE_CORE=1`,
//! `ALL_CORES=1` and `BENCH_README=1` in the environment do the same: then the table goes to `docs/performance.md`, those of
//! one or all cores to `benches/README.md`. `PREDIXY=/path/of/predixy` adds that one.

use std::env;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::ensure;

mod contestant;
mod measure;
mod report;
#[path = "../rig/mod.rs"]
#[allow(dead_code, reason = "shared by the benches")]
mod rig;

use contestant::Contestant;
use report::{Block, Memory};
use rig::load::{CONNECTIONS, KEYS, Mix, Workload};
use rig::process::Cores;
use rig::servers::Servers;
use rig::{machine, process, say, stop_on_signal};

/// How much is measured.
struct Plan {
    workloads: Vec<Workload>,
    rounds: usize,
    /// How long a direct connection takes for the requests of one measurement.
    seconds: f64,
    /// With how many idle clients memory is read.
    clients: Vec<usize>,
}

const REPLICAS: usize = 2;
/// Requests come in multiples of this, so that every pipeline is full.
const BATCH: u64 = 1_000;
/// Open files that a proxy may need besides two per client, and servers too.
const SPARE_FILES: usize = 500;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = env::args().collect();
    let has = |flag: &str, variable: &str| {
        args.iter().any(|arg| arg == flag) || env::var_os(variable).is_some_and(|value| value != "0")
    };
    if !args.iter().any(|arg| arg == "--bench") || args.iter().any(|arg| arg == "--test") {
        return say("This takes minutes and two cores to itself: cargo bench --bench proxy");
    }
    let cores = match (has("--one-core", "ONE_CORE"), has("--all-cores", "ALL_CORES")) {
        (true, _) => Cores::One,
        (false, true) => Cores::All,
        (false, false) => Cores::Apart,
    };
    process::place(cores);
    let mut plan = match (has("--quick", "BENCH_QUICK"), cores) {
        (true, _) => Plan::quick(),
        (false, Cores::Apart) => Plan::full(),
        (false, Cores::One | Cores::All) => Plan::small(),
    };
    let most = plan.clients.last().copied().unwrap_or_default();
    let files = process::raise_open_files((2 * most + SPARE_FILES) as u64)? as usize;
    plan.clients
        .iter_mut()
        .for_each(|clients| *clients = (*clients).min(files.saturating_sub(SPARE_FILES) / 2));

    let stop = stop_on_signal()?;
    let report = run(&plan, &stop)?;
    let update = has("--update-readme", "BENCH_README");
    let (name, into) = match cores {
        Cores::Apart => ("bench", "docs/performance.md"),
        Cores::One => ("one-core", "benches/README.md"),
        Cores::All => ("all-cores", "benches/README.md"),
    };
    rig::publish(name, name, &report, update.then_some(into))
}

fn run(plan: &Plan, stop: &AtomicBool) -> anyhow::Result<String> {
    let home = tempfile::tempdir()?;
    let contestants = Contestant::present();
    let names: Vec<String> = contestants.iter().map(Contestant::name).collect();
    let servers = Servers::start(home.path(), REPLICAS)?;
    let machine = machine()?;
    say(&format!("{machine}\n{} rounds of: {}", plan.rounds, names.join(", ")))?;
    let (mut blocks, mut filled) = (Vec::new(), 0);
    for workload in &plan.workloads {
        if workload.bytes != filled {
            servers.fill(KEYS, workload.bytes)?;
            filled = workload.bytes;
        }
        blocks.push(turns(plan, workload, &contestants, &servers, home.path(), stop)?);
    }
    let mut memory = Vec::new();
    if plan.clients.is_empty() {
        return Ok(report::small(&machine, &contestants, &blocks));
    }
    measure::prepare_resident(&servers)?;
    for who in contestants.iter().filter(|who| **who != Contestant::Direct) {
        ensure!(!stop.load(Ordering::Relaxed), "interrupted");
        say(&format!("memory of {}", who.name()))?;
        let kib = measure::resident(who, home.path(), &servers, &plan.clients)?;
        memory.push(Memory { who: who.clone(), kib });
    }
    Ok(report::markdown(&machine, &contestants, &blocks, &plan.clients, &memory))
}

/// All rounds of one workload.
fn turns(
    plan: &Plan,
    workload: &Workload,
    contestants: &[Contestant],
    servers: &Servers,
    home: &Path,
    stop: &AtomicBool,
) -> anyhow::Result<Block> {
    let trial = workload.run(servers.primary(), BATCH * workload.pipeline.clamp(5, 50))?;
    let requests = ((trial.per_second * plan.seconds) as u64).div_ceil(BATCH) * BATCH;
    say(&format!("{}: {requests} requests each", workload.name()))?;
    let mut samples = vec![Vec::new(); contestants.len()];
    for _ in 0..plan.rounds {
        for (contestant, samples) in contestants.iter().zip(&mut samples) {
            ensure!(!stop.load(Ordering::Relaxed), "interrupted");
            samples.push(measure::measure(contestant, home, servers, workload, requests)?);
        }
    }
    Ok(Block { workload: *workload, samples })
}

impl Plan {
    fn full() -> Self {
        let small = [1, 16, 64].into_iter().flat_map(|pipeline| {
            let mixes: &[Mix] =
                if pipeline == 64 { &[Mix::Get, Mix::Set] } else { &[Mix::Get, Mix::Mixed, Mix::Set] };
            mixes.iter().map(move |&mix| Workload { mix, pipeline, bytes: 32, connections: CONNECTIONS })
        });
        let large = [(16, 1024), (1, 16 << 10), (16, 16 << 10)];
        let large = large.into_iter().map(|(pipeline, bytes)| Workload {
            mix: Mix::Get,
            pipeline,
            bytes,
            connections: CONNECTIONS,
        });
        Self { workloads: small.chain(large).collect(), rounds: 3, seconds: 0.7, clients: vec![50, 5_000] }
    }

    /// What needs the least room for noise.
    fn small() -> Self {
        let loads =
            [(Mix::Get, 1), (Mix::Get, 16), (Mix::Get, 64), (Mix::Set, 1), (Mix::Set, 16), (Mix::Set, 64)];
        let workloads =
            loads.map(|(mix, pipeline)| Workload { mix, pipeline, bytes: 32, connections: CONNECTIONS });
        Self { workloads: workloads.into(), rounds: 5, seconds: 0.7, clients: Vec::new() }
    }

    fn quick() -> Self {
        let loads = [(Mix::Get, 1), (Mix::Get, 16), (Mix::Set, 16)];
        let workloads =
            loads.map(|(mix, pipeline)| Workload { mix, pipeline, bytes: 32, connections: CONNECTIONS });
        Self { workloads: workloads.into(), rounds: 1, seconds: 0.3, clients: vec![50, 500] }
    }
}
