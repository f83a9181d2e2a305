//! The tables, as Markdown: medians over the rounds, with the lowest and the highest.

use std::fmt::Write as _;

use crate::contestant::Contestant;
use crate::measure::Sample;
use crate::rig::load::Workload;
use crate::rig::spread::{Spread, shown};

/// All rounds of one workload: for each contestant its samples, in the order of the rounds. The first contestant is
/// the direct connection.
pub(crate) struct Block {
    pub(crate) workload: Workload,
    pub(crate) samples: Vec<Vec<Sample>>,
}

/// Resident memory of one contestant, by number of clients.
pub(crate) struct Memory {
    pub(crate) who: Contestant,
    pub(crate) kib: Vec<u64>,
}

/// The whole report.
pub(crate) fn markdown(
    machine: &str,
    contestants: &[Contestant],
    blocks: &[Block],
    clients: &[usize],
    memory: &[Memory],
) -> String {
    let mut text = format!("{machine}\n\n");
    text.push_str(
        "| load | through | requests/s | of direct | proxy CPU s per million | server CPU of direct | p50 ms | p99 ms | reads at replicas |\n\
         |---|---|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for block in blocks {
        for (samples, who) in block.samples.iter().zip(contestants) {
            row(&mut text, block, samples, &who.name());
        }
    }
    let _ = write!(text, "\n| resident memory, idle clients |");
    for count in clients {
        let _ = write!(text, " {count} |");
    }
    let _ = write!(text, " after 16 KiB to each |\n|---|{}\n", "--:|".repeat(clients.len() + 1));
    for Memory { who, kib } in memory {
        let _ = write!(text, "| {} |", who.name());
        for &kib in kib {
            let _ = write!(text, " {:.1} MiB |", kib as f64 / 1024.0);
        }
        text.push('\n');
    }
    text
}

/// The report of what shares cores: processor time is compared with that of the load, and with haproxy's.
pub(crate) fn small(machine: &str, contestants: &[Contestant], blocks: &[Block]) -> String {
    let mut text = format!("{machine} Medians of 5 rounds (lowest–highest).\n\n");
    text.push_str(
        "| load | through | of direct | proxy CPU s per million | of the load's | of haproxy's | server CPU of direct |\n\
         |---|---|--:|--:|--:|--:|--:|\n",
    );
    let haproxy = contestants.iter().position(|who| *who == Contestant::Haproxy);
    for block in blocks {
        let direct = &block.samples[0];
        let haproxy = haproxy.and_then(|at| block.samples.get(at));
        for (samples, who) in block.samples.iter().zip(contestants) {
            let against_direct = |of: &dyn Fn(&Sample) -> f64| {
                Spread::of(samples.iter().zip(direct).map(|(sample, direct)| of(sample) / of(direct)))
            };
            // Their share in that of the load beside them: the speed of the machine is in both.
            let shares = |samples: &[Sample]| -> Vec<f64> {
                let share = |sample: &Sample| Some(sample.proxy_cpu? / sample.load_cpu);
                samples.iter().filter_map(share).collect()
            };
            let (own, its) = (shares(samples), haproxy.map(|samples| shares(samples)).unwrap_or_default());
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {} |",
                block.workload.name(),
                who.name(),
                shown(against_direct(&|sample| sample.outcome.per_second)),
                shown(Spread::of(samples.iter().filter_map(|sample| sample.proxy_cpu))),
                shown(Spread::of(own.iter().copied())),
                shown(Spread::of(own.iter().zip(&its).map(|(own, its)| own / its))),
                shown(against_direct(&|sample| sample.server_cpu)),
            );
        }
    }
    text
}

fn row(text: &mut String, block: &Block, samples: &[Sample], who: &str) {
    let direct = &block.samples[0];
    let column = |of: &dyn Fn(&Sample) -> f64| Spread::of(samples.iter().map(of));
    // Each round against the direct connection of that round.
    let against = |of: &dyn Fn(&Sample) -> f64| {
        Spread::of(samples.iter().zip(direct).map(|(sample, direct)| of(sample) / of(direct)))
    };
    let cpu = Spread::of(samples.iter().filter_map(|sample| sample.proxy_cpu));
    let replicas = Spread::of(samples.iter().filter_map(|sample| sample.by_replicas));
    let _ = writeln!(
        text,
        "| {} | {who} | {:.0} | {} | {} | {} | {:.2} | {:.2} | {} |",
        block.workload.name(),
        column(&|sample| sample.outcome.per_second).map_or(0.0, |spread| spread.median),
        shown(against(&|sample| sample.outcome.per_second)),
        shown(cpu),
        shown(against(&|sample| sample.server_cpu)),
        column(&|sample| sample.outcome.p50_ms).map_or(0.0, |spread| spread.median),
        column(&|sample| sample.outcome.p99_ms).map_or(0.0, |spread| spread.median),
        replicas.map_or("–".to_owned(), |spread| format!("{:.0} %", spread.median * 100.0)),
    );
}
