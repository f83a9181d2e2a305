//! Redweir's processor time next to that of the floor.

use std::fmt::Write as _;

use anyhow::Context as _;

use crate::contestant::{Contestant, Running};
use crate::rig::load::{CONNECTIONS, Mix, Workload};
use crate::rig::say;
use crate::rig::spread::{Spread, shown};
use crate::{Site, VALUE_BYTES, floor};

const ROUNDS: usize = 3;
/// How long a direct connection takes for the requests of one measurement.
const SECONDS: f64 = 0.7;
/// Requests come in multiples of this, so that every pipeline is full.
const BATCH: u64 = 3_200;
/// Which part of the requests warms up.
const WARM_UP: u64 = 10;
const REDWEIR: Contestant = Contestant::Redweir("eventual");

const LOADS: [Workload; 6] = [
    load(Mix::Get, 1),
    load(Mix::Get, 16),
    load(Mix::Get, 64),
    load(Mix::Set, 1),
    load(Mix::Set, 16),
    load(Mix::Set, 64),
];

const fn load(mix: Mix, pipeline: u64) -> Workload {
    Workload { mix, pipeline, bytes: VALUE_BYTES, connections: CONNECTIONS }
}

/// One round: seconds of processor time per million requests.
#[derive(Clone, Copy, Debug)]
struct Round {
    floor: f64,
    redweir: f64,
}

/// The table.
pub(crate) fn measure(site: &Site<'_>) -> anyhow::Result<String> {
    let mut text = format!(
        "Medians of {ROUNDS} rounds (lowest–highest).\n\n\
         | proxy CPU s per million | floor | {} | of the floor |\n|---|--:|--:|--:|\n",
        REDWEIR.name()
    );
    for load in LOADS {
        let trial = load.run(site.servers.primary(), BATCH * load.pipeline.min(16))?;
        let requests = ((trial.per_second * SECONDS) as u64).div_ceil(BATCH) * BATCH;
        say(&format!("floor: {ROUNDS} rounds of {}, {requests} requests each", load.name()))?;
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            rounds.push(Round {
                floor: site.steadily(|| cpu(&floor::start(site)?, &load, requests))?,
                redweir: site.steadily(|| {
                    let running = REDWEIR.start(site.home, &site.servers, CONNECTIONS as usize)?;
                    cpu(&running, &load, requests)
                })?,
            });
        }
        let column = |of: fn(&Round) -> f64| shown(Spread::of(rounds.iter().map(of)));
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} |",
            load.name(),
            column(|round| round.floor),
            column(|round| round.redweir),
            column(|round| round.redweir / round.floor),
        );
    }
    Ok(text)
}

fn cpu(running: &Running, load: &Workload, requests: u64) -> anyhow::Result<f64> {
    let process = running.process.as_ref().context("it is no process")?;
    load.run(running.port, requests / WARM_UP)?;
    let before = process.cpu_nanos()?;
    load.run(running.port, requests)?;
    Ok((process.cpu_nanos()? - before) as f64 / requests as f64 / 1e3)
}
