//! What a primary pays for being watched: its processor time for the same writes, sent straight to it, with and without
//! Redweir beside it. Its replicas are attached either way.
//!
//! The difference is smaller than that between two measurements of the same. So it is counted as well: how often the
//! primary is asked for its position meanwhile, and what such a question costs it among others.

use std::fmt::Write as _;
use std::process::Stdio;
use std::time::Instant;

use anyhow::ensure;

use crate::contestant::{Contestant, Running};
use crate::rig::load::{CONNECTIONS, Mix, Workload};
use crate::rig::process::{Process, load_core, on_core, proxy_core};
use crate::rig::say;
use crate::rig::spread::{Spread, shown};
use crate::{Site, VALUE_BYTES, open};

const ROUNDS: usize = 7;
const LOAD: Workload = Workload { mix: Mix::Set, pipeline: 16, bytes: VALUE_BYTES, connections: CONNECTIONS };
const REQUESTS: u64 = 320_000;
/// Questions that tell what one costs.
const QUESTIONS: u64 = 20_000;
/// Reads per second of the trickle: as often as the primary is asked for its position at most (`fence-interval`).
const TRICKLE: u64 = 500;
/// How many of them there are at most; the trickle is stopped before.
const READS: u64 = 600 * TRICKLE;

/// Who watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watch {
    Nobody,
    /// Redweir at `fenced`, without clients.
    Idle,
    /// Redweir with a trickle of `strong` reads, each of which waits for the primary's position.
    Strong,
}

const WATCHES: [Watch; 3] = [Watch::Nobody, Watch::Idle, Watch::Strong];

/// What was measured, all of the primary.
#[derive(Clone, Copy, Debug)]
struct Sample {
    seconds: f64,
    cpu_seconds: f64,
    roles: u64,
}

/// The table.
pub(crate) fn measure(site: &Site<'_>) -> anyhow::Result<String> {
    say(&format!("control: {ROUNDS} rounds of {}, {REQUESTS} requests each", LOAD.name()))?;
    let (mut samples, mut questions) = (vec![Vec::new(); WATCHES.len()], Vec::new());
    LOAD.run(site.servers.primary(), REQUESTS / 10)?;
    for round in 0..ROUNDS {
        questions.push(site.steadily(|| question(site))?);
        // Everybody is first in some round.
        for turn in 0..WATCHES.len() {
            let who = (round + turn) % WATCHES.len();
            samples[who].push(site.steadily(|| WATCHES[who].sample(site))?);
        }
    }
    Ok(table(&samples, Spread::of(questions.into_iter())))
}

impl Watch {
    fn name(self) -> String {
        match self {
            Self::Nobody => "nobody".to_owned(),
            Self::Idle => "redweir fenced, no clients".to_owned(),
            Self::Strong => format!("redweir strong, {TRICKLE} reads/s"),
        }
    }

    fn sample(self, site: &Site<'_>) -> anyhow::Result<Sample> {
        let Site { servers, home, .. } = site;
        let start = |level| Contestant::Redweir(level).start(home, servers, CONNECTIONS as usize);
        let redweir = match self {
            Self::Nobody => None,
            Self::Idle => Some(start("fenced")?),
            Self::Strong => Some(start("strong")?),
        };
        let reads = redweir.as_ref().filter(|_| self == Self::Strong);
        let _reads = reads.map(|redweir| trickle(site, redweir)).transpose()?;
        servers.settle()?;
        let (served, cpu, began) = (servers.served()?, servers.cpu_nanos()?[0], Instant::now());
        LOAD.run(servers.primary(), REQUESTS)?;
        servers.settle()?;
        let (seconds, cpu) = (began.elapsed().as_secs_f64(), servers.cpu_nanos()?[0] - cpu);
        let all: Vec<_> = servers.served()?.into_iter().zip(served).collect();
        let reads: u64 = all.iter().map(|(after, before)| after.gets - before.gets).sum();
        ensure!(self != Self::Strong || reads > 0, "there was no trickle of reads");
        Ok(Sample { seconds, cpu_seconds: cpu as f64 / 1e9, roles: all[0].0.roles - all[0].1.roles })
    }
}

impl Sample {
    fn roles_per_second(&self) -> f64 {
        self.roles as f64 / self.seconds
    }
}

/// The primary's processor time for one `ROLE` among others, each of which comes by itself, in seconds.
fn question(site: &Site<'_>) -> anyhow::Result<f64> {
    let servers = &site.servers;
    let before = servers.cpu_nanos()?[0];
    let (port, count, clients) =
        (servers.primary().to_string(), QUESTIONS.to_string(), CONNECTIONS.to_string());
    let args = ["-h", "127.0.0.1", "-p", &port, "-q", "-n", &count, "-c", &clients, "ROLE"];
    let asked = on_core(load_core(), "redis-benchmark", &args).stdout(Stdio::null()).status()?;
    ensure!(asked.success(), "redis-benchmark failed");
    Ok((servers.cpu_nanos()?[0] - before) as f64 / QUESTIONS as f64 / 1e9)
}

/// Reads through Redweir, and on its core, until the process is dropped.
fn trickle(site: &Site<'_>, redweir: &Running) -> anyhow::Result<Process> {
    let args = [open::FLAG.to_owned(), redweir.port.to_string(), TRICKLE.to_string(), READS.to_string()];
    let log = site.home.join("trickle.log");
    Process::start(proxy_core(), &site.me, &args.each_ref().map(String::as_str), &log)
}

fn table(samples: &[Vec<Sample>], question: Option<Spread>) -> String {
    let question = question.map_or(0.0, |spread| spread.median);
    let mut text = format!(
        "Medians of {ROUNDS} rounds (lowest–highest). A `ROLE` takes the primary {:.1} µs.\n\n\
         | {} to the primary, watched by | its CPU s per million | of unwatched | ROLE/s | these take, of its CPU |\n\
         |---|--:|--:|--:|--:|\n",
        question * 1e6,
        LOAD.name()
    );
    for (watch, of_watch) in WATCHES.iter().zip(samples) {
        let column = |of: &dyn Fn(&Sample) -> f64| Spread::of(of_watch.iter().map(of));
        let median = |of: &dyn Fn(&Sample) -> f64| column(of).map_or(0.0, |spread| spread.median);
        // Each round against the unwatched of that round.
        let against =
            of_watch.iter().zip(&samples[0]).map(|(sample, alone)| sample.cpu_seconds / alone.cpu_seconds);
        let _ = writeln!(
            text,
            "| {} | {} | {} | {:.0} | {:.2} % |",
            watch.name(),
            shown(column(&|sample| sample.cpu_seconds * 1e6 / REQUESTS as f64)),
            shown(Spread::of(against)),
            median(&Sample::roles_per_second),
            median(&|sample| sample.roles as f64 * question / sample.cpu_seconds * 100.0),
        );
    }
    text
}
