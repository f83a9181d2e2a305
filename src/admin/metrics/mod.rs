//! `/metrics`: what the workers counted, and what the view says, in Prometheus' text format.
//!
//! Workers count into cells of their own; a scrape adds them up and tells the exporter absolute values through the
//! `metrics` facade. Histograms are written by ourselves: the exporter would keep every sample until it is drained; and so are
//! gauges that may be unknown.

mod family;
mod nodes;
mod process;

use std::collections::BTreeMap;
use std::sync::Arc;

use metrics::{Label, Unit, counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use self::family::Family;
pub(crate) use self::process::{Process, resident_memory};
use crate::core::reason::Reason;
use crate::net::runtime::clock;
use crate::net::runtime::task;
use crate::shard::doctor::DoctorReport;
use crate::shard::overall;
use crate::shard::shared::Shared;
use crate::telemetry::histogram::{Histogram, Total};
use crate::telemetry::{AccessLabel, Counter, Latency, Stats, Target};

/// Sums one counter over all workers.
type Pick = fn(&Stats) -> &Counter;

const COUNTERS: [(&str, &str, Pick); 13] = [
    ("redweir_clients_accepted_total", "Clients accepted.", |s| &s.accepted),
    ("redweir_clients_too_slow_total", "Clients disconnected at client-output-buffer-limit.", |s| {
        &s.slow_clients
    }),
    ("redweir_clients_idle_total", "Clients disconnected by timeout or client-handshake-timeout.", |s| {
        &s.idle_clients
    }),
    ("redweir_tls_handshakes_failed_total", "Clients whose TLS handshake failed.", |s| &s.tls_failed),
    (
        "redweir_shared_reads_total",
        "Reads at the primary for which another one's request has asked, too.",
        |s| &s.shared_reads,
    ),
    ("redweir_protocol_errors_total", "Clients disconnected for a protocol error.", |s| &s.protocol_errors),
    ("redweir_commands_denied_total", "Commands that deny-commands refused.", |s| &s.denied),
    (
        "redweir_masterdown_replies_total",
        "Commands that nobody could answer: they were told MASTERDOWN.",
        |s| &s.masterdown,
    ),
    ("redweir_upstream_desynchronised_total", "Upstream connections that got out of step.", |s| {
        &s.desynchronised
    }),
    ("redweir_uncertain_writes_total", "Writes whose connection was lost before the reply.", |s| {
        &s.uncertain_writes
    }),
    (
        "redweir_refused_writes_total",
        "Writes that a node refused because it had become a replica, and that went to the next primary.",
        |s| &s.refused_writes,
    ),
    (
        "redweir_redirected_total",
        "Commands of a cluster's client that a node sent on, and that went to another primary.",
        |s| &s.redirected,
    ),
    (
        "redweir_upstream_stalled_total",
        "Connections given up because nothing came on them while their node answered on another.",
        |s| &s.stalled,
    ),
];

const GAUGES: [(&str, &str, Pick); 2] = [
    ("redweir_clients", "Clients connected.", |s| &s.clients),
    ("redweir_upstream_connections", "Upstream connections open.", |s| &s.lanes),
];

/// The exporter.
#[derive(Debug)]
pub struct Metrics {
    handle: PrometheusHandle,
    process: Process,
}

impl Metrics {
    /// Installs the exporter as the process' recorder of metrics.
    pub fn install() -> anyhow::Result<Self> {
        let recorder: PrometheusRecorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder)?;
        describe();
        Ok(Self { handle, process: Process::new() })
    }

    /// What is told of the process itself.
    pub(crate) const fn process(&self) -> &Process {
        &self.process
    }

    /// Lets the exporter tidy up.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// The page.
    pub fn render(&self, shared: &Arc<Shared>) -> String {
        let shards = overall::shards(shared);
        publish_counts(shared);
        publish_shards(&shards);
        publish_panics();
        let mut page = self.handle.render();
        nodes::write(&mut page, &shards, clock::now());
        if let Some(holdings) = overall::holdings(shared) {
            nodes::write_slots(&mut page, &shards, &holdings);
        }
        write_findings(&mut page, &overall::doctor(shared));
        write_build(&mut page);
        self.process.write(&mut page);
        write_latency(&mut page, shared, REQUEST, |latency| &latency.request);
        write_latency(&mut page, shared, UPSTREAM, |latency| &latency.upstream);
        let (name, help) = ANCHOR;
        Total::write_head(&mut page, name, help);
        for shared in &shards {
            let mut labels = nodes::of_shard(shared);
            if !labels.is_empty() {
                labels.push(',');
            }
            let total = Total::of(std::iter::once(&shared.shard().anchor_latency));
            total.write(&mut page, name, &labels);
        }
        page
    }
}

fn describe() {
    for (name, help, _) in COUNTERS {
        describe_counter!(name, help);
    }
    for (name, help, _) in GAUGES {
        describe_gauge!(name, help);
    }
    describe_counter!(
        "redweir_optimistic_reads_total",
        "Reads sent to a replica behind a ROLE, by whether that proved enough."
    );
    describe_counter!(
        "redweir_repeats_total",
        "Reads whose node did not answer them: sent again elsewhere, or failed, because more were sent again than may be."
    );
    describe_counter!(
        "redweir_lost_writes_total",
        "Writes seen on the replication stream that a failover lost, at least."
    );
    describe_counter!(
        "redweir_history_restarts_total",
        "Times that the primary did not go on from what was there before: it was emptied, or is another one."
    );
    describe_counter!("redweir_clients_over_memory_total", "Clients disconnected because of max-memory.");
    counter!("redweir_clients_over_memory_total").absolute(0);
    describe_counter!("redweir_commands_total", "Commands by access, target and reason.");
    describe_counter!(
        "redweir_primary_changes_total",
        "Times that another node became the primary than the one before."
    );
    describe_counter!(
        "redweir_stream_attach_total",
        "Links to a source of the replication stream, made and lost, by result."
    );
    describe_counter!("redweir_panics_total", "Mistakes in Redweir that ended a connection or a task.");
    describe_counter!(
        "redweir_config_reload_total",
        "Times that the configuration was read again, by result."
    );
    describe_counter!("redweir_tls_reloads_total", "Changes of certificate and key files, by result.");
    describe_gauge!(
        "redweir_tls_certificate_expiry_seconds",
        Unit::Seconds,
        "When the certificate that is shown expires, in seconds since 1970."
    );
}

fn publish_counts(shared: &Shared) {
    let sum = |pick: Pick| shared.stats.iter().map(|stats| pick(stats).value()).sum::<u64>();
    for (name, _, pick) in COUNTERS {
        counter!(name).absolute(sum(pick));
    }
    for (name, _, pick) in GAUGES {
        gauge!(name).set(sum(pick) as f64);
    }
    for (outcome, count) in
        [("proven", sum(|s| &s.optimistic_proven)), ("repeated", sum(|s| &s.optimistic_repeated))]
    {
        counter!("redweir_optimistic_reads_total", "outcome" => outcome).absolute(count);
    }
    for (outcome, count) in
        [("sent", sum(|s| &s.repeated_reads)), ("over_budget", sum(|s| &s.unrepeated_reads))]
    {
        counter!("redweir_repeats_total", "outcome" => outcome).absolute(count);
    }
    for access in AccessLabel::ALL {
        for target in Target::ALL {
            for reason in Reason::ALL {
                let count: u64 = shared.stats.iter().map(|s| s.commands(access, target, reason)).sum();
                if count > 0 {
                    let labels =
                        [("access", access.label()), ("target", target.label()), ("reason", reason.label())];
                    counter!("redweir_commands_total", &labels).absolute(count);
                }
            }
        }
    }
}

/// What each shard counts; in a cluster with the number of the shard.
fn publish_shards(shards: &[Arc<Shared>]) {
    for shared in shards {
        let shard = shared.shard();
        for (name, counted) in [
            ("redweir_lost_writes_total", &shard.lost_writes),
            ("redweir_primary_changes_total", &shard.primary_changes),
            ("redweir_history_restarts_total", &shard.history_restarts),
        ] {
            let number = overall::label(shared).map(|number| Label::new("shard", number.to_string()));
            counter!(name, Vec::from_iter(number)).absolute(counted.value());
        }
    }
}

fn publish_panics() {
    counter!("redweir_panics_total").absolute(task::panics());
}

const REQUEST: (&str, &str) =
    ("redweir_request_duration_seconds", "From a command being read to its reply being ready to write.");
const UPSTREAM: (&str, &str) = (
    "redweir_upstream_duration_seconds",
    "From a command being given to an upstream connection to its reply being read.",
);
const ANCHOR: (&str, &str) =
    ("redweir_anchor_seconds", "From the primary being asked for its offset to the answer.");

/// By what commands do and who has answered; what has not occurred yet is left out, but for what always does.
fn write_latency(
    page: &mut String,
    shared: &Shared,
    (name, help): (&str, &str),
    pick: fn(&Latency) -> &Histogram,
) {
    Total::write_head(page, name, help);
    for access in AccessLabel::ALL {
        for target in Target::ANSWERS {
            let at_primary = target == Target::Primary;
            let of_all = shared.stats.iter().map(|stats| pick(stats.latency(access, at_primary)));
            let total = Total::of(of_all);
            let usual = access == AccessLabel::Read || access == AccessLabel::Write && at_primary;
            if usual || total.count() > 0 {
                let labels = format!("access=\"{}\",target=\"{}\",", access.label(), target.label());
                total.write(page, name, &labels);
            }
        }
    }
}

fn write_build(page: &mut String) {
    let tls = if cfg!(feature = "tls-ring") { "ring" } else { "aws-lc" };
    let version = env!("CARGO_PKG_VERSION");
    let labels = format!("version=\"{version}\",tls=\"{tls}\"");
    Family::gauge("redweir_build_info", "1, of what was built.").write(page, Some((labels, 1.0)));
}

/// What the doctor finds: of how many nodes.
fn write_findings(page: &mut String, report: &DoctorReport) {
    let mut counts: BTreeMap<(&str, &str, Option<usize>), f64> = BTreeMap::new();
    for finding in &report.findings {
        *counts.entry((&finding.code, &finding.severity, finding.shard)).or_default() += 1.0;
    }
    let labelled = |((code, severity, shard), count): ((&str, &str, Option<usize>), f64)| {
        let shard = shard.map_or_else(String::new, |shard| format!(",shard=\"{shard}\""));
        (format!("code=\"{code}\",severity=\"{severity}\"{shard}"), count)
    };
    Family::gauge("redweir_doctor_finding", "Of how many nodes the doctor finds this.")
        .write(page, counts.into_iter().map(labelled));
}
