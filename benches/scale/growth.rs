//! What more workers, connections and replicas cost the proxy.

use std::fmt::Write as _;
use std::path::Path;

use crate::proxy::Setup;
use crate::rig::load::{Mix, Outcome, Workload};
use crate::rig::servers::Servers;
use crate::rig::spread::{Spread, shown};

/// The least number of requests, and the least per connection: connecting is counted too.
const REQUESTS: u64 = 60_000;
const PER_CONNECTION: u64 = 20;

/// One combination.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    setup: Setup,
    connections: u64,
}

pub(crate) const GROWTH: [Case; 8] = [
    case(1, 50, 1),
    case(1, 50, 2),
    case(1, 50, 5),
    case(1, 500, 2),
    case(1, 5_000, 2),
    case(2, 50, 2),
    case(2, 500, 2),
    case(2, 5_000, 2),
];

const fn case(workers: usize, connections: u64, replicas: usize) -> Case {
    Case { setup: Setup { level: "fenced", workers, replicas }, connections }
}

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Growth {
    outcome: Outcome,
    /// Processor time of the proxy per million requests, in seconds.
    cpu: f64,
    peak_kib: u64,
}

impl Growth {
    pub(crate) fn measure(case: &Case, binary: &str, home: &Path, servers: &Servers) -> anyhow::Result<Self> {
        let proxy = case.setup.start(binary, home, servers)?;
        let load = Workload { mix: Mix::Get, pipeline: 1, bytes: 32, connections: case.connections };
        let requests = REQUESTS.max(case.connections * PER_CONNECTION);
        let before = proxy.process.cpu_nanos()?;
        let outcome = load.run(proxy.port, requests)?;
        let nanos = proxy.process.cpu_nanos()? - before;
        Ok(Self { outcome, cpu: nanos as f64 / requests as f64 / 1e3, peak_kib: proxy.process.peak_kib()? })
    }
}

/// The table, for the samples of each case.
pub(crate) fn table(samples: &[Vec<Growth>]) -> String {
    let mut text = "| GET 32 B P1, `fenced`: workers | connections | replicas | requests/s | p50 ms | p99 ms | proxy CPU s per million | peak memory MiB |\n\
         |--:|--:|--:|--:|--:|--:|--:|--:|\n"
        .to_owned();
    for (case, samples) in GROWTH.iter().zip(samples) {
        let column = |of: &dyn Fn(&Growth) -> f64| Spread::of(samples.iter().map(of));
        let median = |of: &dyn Fn(&Growth) -> f64| column(of).map_or(0.0, |spread| spread.median);
        let _ = writeln!(
            text,
            "| {} | {} | {} | {:.0} | {:.2} | {:.2} | {} | {:.1} |",
            case.setup.workers,
            case.connections,
            case.setup.replicas,
            median(&|sample| sample.outcome.per_second),
            median(&|sample| sample.outcome.p50_ms),
            median(&|sample| sample.outcome.p99_ms),
            shown(column(&|sample| sample.cpu)),
            median(&|sample| sample.peak_kib as f64 / 1024.0),
        );
    }
    text
}
