//! What a proxy adds to the latency of a request when there is time for it: at half the load that the slowest can take,
//! the same for all.

use std::fmt::Write as _;

use crate::contestant::Contestant;
use crate::open::Latency;
use crate::rig::load::{CONNECTIONS, Mix, Workload};
use crate::rig::say;
use crate::rig::spread::{Spread, shown};
use crate::{Site, VALUE_BYTES};

const ROUNDS: usize = 5;
/// How long each is given requests in a round.
const SECONDS: u64 = 2;
/// Requests of the closed loop that finds out how much each can take.
const TRIAL: u64 = 30_000;
const LOAD: Workload = Workload { mix: Mix::Get, pipeline: 1, bytes: VALUE_BYTES, connections: CONNECTIONS };

/// The table.
pub(crate) fn measure(site: &Site<'_>) -> anyhow::Result<String> {
    let contestants = Contestant::present();
    let rate = half_the_peak(site, &contestants)?;
    say(&format!("added: {ROUNDS} rounds at {rate} requests/s"))?;
    let mut samples = vec![Vec::new(); contestants.len()];
    for _ in 0..ROUNDS {
        for (who, samples) in contestants.iter().zip(&mut samples) {
            samples.push(site.steadily(|| {
                let running = who.start(site.home, &site.servers, CONNECTIONS as usize)?;
                Latency::measure(site, running.port, rate, rate * SECONDS)
            })?);
        }
    }
    Ok(table(rate, &contestants, &samples))
}

/// Half of what the slowest of them answers per second.
fn half_the_peak(site: &Site<'_>, contestants: &[Contestant]) -> anyhow::Result<u64> {
    let mut slowest = f64::INFINITY;
    for who in contestants {
        let outcome = site.steadily(|| {
            let running = who.start(site.home, &site.servers, CONNECTIONS as usize)?;
            LOAD.run(running.port, TRIAL)
        })?;
        slowest = slowest.min(outcome.per_second);
    }
    Ok((slowest / 2.0) as u64)
}

fn table(rate: u64, contestants: &[Contestant], samples: &[Vec<Latency>]) -> String {
    let mut text = format!(
        "Medians of {ROUNDS} rounds (lowest–highest).\n\n\
         | {}, open loop of {rate}/s: through | p50 µs | p99 µs | p50 added | p99 added |\n\
         |---|--:|--:|--:|--:|\n",
        LOAD.name()
    );
    for (who, of_who) in contestants.iter().zip(samples) {
        let column = |of: fn(&Latency) -> f64| whole(Spread::of(of_who.iter().map(of)));
        // Each round against the direct connection of that round.
        let added = |of: fn(&Latency) -> f64| {
            let by_round = of_who.iter().zip(&samples[0]).map(|(sample, direct)| of(sample) - of(direct));
            if *who == Contestant::Direct { shown(None) } else { whole(Spread::of(by_round)) }
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} |",
            who.name(),
            column(|sample| sample.p50_us),
            column(|sample| sample.p99_us),
            added(|sample| sample.p50_us),
            added(|sample| sample.p99_us),
        );
    }
    text
}

/// Microseconds need no decimals.
fn whole(spread: Option<Spread>) -> String {
    spread.map_or_else(
        || shown(None),
        |Spread { median, low, high }| format!("{median:.0} ({low:.0}–{high:.0})"),
    )
}
