//! How many reads replicas serve together, each with a small share of a core.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Instant;

use anyhow::ensure;

use crate::proxy::Setup;
use crate::rig::load::{Mix, Workload};
use crate::rig::servers::Servers;
use crate::rig::spread::{Spread, shown};
use crate::share::Throttle;

/// Of a core, each: so little that five of them leave most of two cores to proxy and load.
const SHARE: f64 = 0.04;
/// Enough outstanding requests to keep five replicas busy.
const LOAD: Workload = Workload { mix: Mix::Get, pipeline: 16, bytes: 32, connections: 500 };
/// Requests per replica, so that each case takes as long as the others.
const REQUESTS: u64 = 96_000;

pub(crate) const READS: [Setup; 6] = [
    setup("eventual", 1),
    setup("eventual", 2),
    setup("eventual", 5),
    setup("fenced", 1),
    setup("fenced", 2),
    setup("fenced", 5),
];

const fn setup(level: &'static str, replicas: usize) -> Setup {
    Setup { level, workers: 1, replicas }
}

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reads {
    per_second: f64,
    /// Which part of the reads replicas served.
    by_replicas: f64,
    /// Which part of a core a replica used, on average.
    share: f64,
}

impl Reads {
    pub(crate) fn measure(
        case: &Setup,
        binary: &str,
        home: &Path,
        servers: &Servers,
    ) -> anyhow::Result<Self> {
        let proxy = case.start(binary, home, servers)?;
        let requests = REQUESTS * case.replicas as u64;
        let (before, cpu) = (servers.served()?, servers.cpu_nanos()?);
        let began = Instant::now();
        let throttle = Throttle::start(&servers.pids()[1..=case.replicas], SHARE)?;
        let outcome = LOAD.run(proxy.port, requests)?;
        drop(throttle);
        let nanos = began.elapsed().as_nanos() as f64;
        let used: u64 = servers
            .cpu_nanos()?
            .iter()
            .zip(&cpu)
            .skip(1)
            .take(case.replicas)
            .map(|(after, before)| after - before)
            .sum();
        let gets: Vec<u64> =
            servers.served()?.iter().zip(&before).map(|(after, before)| after.gets - before.gets).collect();
        let all: u64 = gets.iter().sum();
        ensure!(all >= requests, "the servers saw {all} of {requests} reads");
        Ok(Self {
            per_second: outcome.per_second,
            by_replicas: (all - gets[0]) as f64 / all as f64,
            share: used as f64 / nanos / case.replicas as f64,
        })
    }
}

/// The table, for the samples of each case.
pub(crate) fn table(samples: &[Vec<Reads>]) -> String {
    let mut text = format!(
        "| GET 32 B P16, replicas with {:.0} % of a core each | replicas | reads/s | of one replica | reads at replicas | CPU per replica |\n\
         |---|--:|--:|--:|--:|--:|\n",
        SHARE * 100.0
    );
    for (case, of_case) in READS.iter().zip(samples) {
        let single = READS.iter().position(|other| other.level == case.level && other.replicas == 1);
        let single = single.map_or(&[][..], |index| &samples[index]);
        let column =
            |of: &dyn Fn(&Reads) -> f64| Spread::of(of_case.iter().map(of)).map_or(0.0, |s| s.median);
        let against = of_case.iter().zip(single).map(|(many, one)| many.per_second / one.per_second);
        let _ = writeln!(
            text,
            "| {} | {} | {:.0} | {} | {:.0} % | {:.1} % |",
            case.level,
            case.replicas,
            column(&|sample| sample.per_second),
            shown(Spread::of(against)),
            column(&|sample| sample.by_replicas * 100.0),
            column(&|sample| sample.share * 100.0),
        );
    }
    text
}
