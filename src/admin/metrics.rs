//! `/metrics`: what the workers counted, and what the view says, in Prometheus' text format.
//!
//! Workers count into cells of their own; a scrape adds them up and tells the exporter absolute values through the
//! `metrics` facade. Histograms are written by ourselves: the exporter would keep every sample until it is drained.

use std::fmt::Write as _;

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use crate::core::moment::Moment;
use crate::core::nodes::election::second_primaries;
use crate::core::nodes::node::{Link, Node};
use crate::core::nodes::view::View;
use crate::core::reason::Reason;
use crate::net::runtime::clock;
use crate::net::runtime::task;
use crate::shard::shared::Shared;
use crate::telemetry::histogram::Total;
use crate::telemetry::{AccessLabel, Counter, Stats, Target};

/// Sums one counter over all workers.
type Pick = fn(&Stats) -> &Counter;

const COUNTERS: [(&str, &str, Pick); 10] = [
    ("redweir_clients_accepted_total", "Clients accepted.", |s| &s.accepted),
    ("redweir_clients_too_slow_total", "Clients disconnected at client-output-buffer-limit.", |s| {
        &s.slow_clients
    }),
    ("redweir_tls_handshakes_failed_total", "Clients whose TLS handshake failed.", |s| &s.tls_failed),
    ("redweir_protocol_errors_total", "Clients disconnected for a protocol error.", |s| &s.protocol_errors),
    ("redweir_commands_denied_total", "Commands that deny-commands refused.", |s| &s.denied),
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
        "redweir_upstream_stalled_total",
        "Connections given up because nothing came on them while their node answered on another.",
        |s| &s.stalled,
    ),
    ("redweir_repeated_reads_total", "Reads sent again elsewhere.", |s| &s.repeated_reads),
];

const GAUGES: [(&str, &str, Pick); 2] = [
    ("redweir_clients", "Clients connected.", |s| &s.clients),
    ("redweir_upstream_connections", "Upstream connections open.", |s| &s.lanes),
];

/// The exporter.
#[derive(Debug)]
pub struct Metrics {
    handle: PrometheusHandle,
}

impl Metrics {
    /// Installs the exporter as the process' recorder of metrics.
    pub fn install() -> anyhow::Result<Self> {
        let recorder: PrometheusRecorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder)?;
        describe();
        Ok(Self { handle })
    }

    /// Lets the exporter tidy up.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// The page.
    pub fn render(&self, shared: &Shared) -> String {
        publish_counts(shared);
        publish_view(shared);
        publish_panics();
        let mut page = self.handle.render();
        write_replicas(&mut page, &shared.shard().view.load(), clock::now());
        Total::of(shared.stats.iter().map(|s| &s.request)).write(
            &mut page,
            "redweir_request_duration_seconds",
            "From a command being read to its reply being ready to write.",
        );
        Total::of(shared.stats.iter().map(|s| &s.upstream)).write(
            &mut page,
            "redweir_upstream_duration_seconds",
            "From a command being given to an upstream connection to its reply being read.",
        );
        Total::of(std::iter::once(&shared.shard().anchor_latency)).write(
            &mut page,
            "redweir_anchor_seconds",
            "From the primary being asked for its offset to the answer.",
        );
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
        "redweir_lost_writes_total",
        "Writes seen on the replication stream that a failover lost, at least."
    );
    counter!("redweir_lost_writes_total").absolute(0);
    describe_counter!(
        "redweir_history_restarts_total",
        "Times that the primary did not go on from what was there before: it was emptied, or is another one."
    );
    counter!("redweir_history_restarts_total").absolute(0);
    describe_counter!("redweir_commands_total", "Commands by access, target and reason.");
    describe_gauge!("redweir_primary_up", "1 when the primary answers.");
    describe_gauge!("redweir_second_primary", "1 while more than one node says that it is the primary.");
    describe_gauge!("redweir_head_offset", Unit::Bytes, "The newest anchor's offset.");
    describe_gauge!("redweir_stream_offset", Unit::Bytes, "How far the replication stream was read.");
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
    describe_gauge!("redweir_stream_attached", "1 when the replication stream is followed.");
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

fn publish_panics() {
    counter!("redweir_panics_total").absolute(task::panics());
}

fn publish_view(shared: &Shared) {
    let view = shared.shard().view.load();
    gauge!("redweir_primary_up").set(flag(primary_answers(&view)));
    gauge!("redweir_second_primary").set(flag(!second_primaries(&view).is_empty()));
    gauge!("redweir_head_offset").set(view.head.map_or(f64::NAN, |head| head.offset.bytes() as f64));
    let attached = shared.shard().stream.is_attached();
    gauge!("redweir_stream_attached").set(flag(attached));
    if attached {
        let offset = shared.shard().stream.offset();
        gauge!("redweir_stream_offset").set(offset as f64);
    }
}

/// The gauges of every replica. Written by ourselves: the exporter would go on telling of a node that was promoted.
fn write_replicas(page: &mut String, view: &View, now: Moment) {
    type Read = fn(&View, &Node, Moment) -> f64;
    let gauges: [(&str, &str, Read); 5] = [
        (
            "redweir_replica_lag_bytes",
            "Bytes that a replica is behind the newest anchor.",
            |view, node, _| view.lag_bytes(node).map_or(f64::NAN, |bytes| bytes as f64),
        ),
        ("redweir_replica_staleness_seconds", "How old a replica's data can be.", |_, node, now| {
            node.staleness(now).map_or(f64::NAN, |age| age.as_secs_f64())
        }),
        ("redweir_replica_link_up", "1 when a replica's link to its primary is up.", |_, node, _| {
            flag(node.link == Some(Link::Up))
        }),
        ("redweir_replica_eligible", "1 when a replica's health has earned it reads.", |view, node, now| {
            flag(node.standing.is_open() && !node.is_silent(now, view.silence_limit))
        }),
        (
            "redweir_replica_acl_verified",
            "1 when a replica's access rules are known to be those of the primary, for every user.",
            |view, node, _| flag(!view.rights.bar_somebody_from(node.id)),
        ),
    ];
    for (name, help, read) in gauges {
        let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} gauge");
        for node in view.members().filter(|node| view.primary != Some(node.id)) {
            // Absent is not zero: what is unknown is NaN.
            let value = read(view, node, now);
            let label = node.name().replace('\\', "\\\\").replace('"', "\\\"");
            let _ = writeln!(page, "{name}{{node=\"{label}\"}} {value}");
        }
    }
}

const fn flag(on: bool) -> f64 {
    if on { 1.0 } else { 0.0 }
}

fn primary_answers(view: &View) -> bool {
    let node = view.primary.and_then(|id| view.node(id));
    node.is_some_and(|node| node.heard_at.is_some() && node.silent_since.is_none())
}
