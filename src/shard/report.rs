//! VIEW: what is known of the nodes, in words and as JSON. In JSON every field is always there, and of one type: `null` is what is
//! not known, or does not apply.

use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;

use crate::core::moment::{Moment, in_words};
use crate::core::nodes::cause::Cause;
use crate::core::nodes::node::{Link, Node, Role};
use crate::core::nodes::view::View;
use crate::core::position::Offset;
use crate::core::stream::lost::Loss;
use crate::shard::shared::Shared;

/// One node, as the view has it.
#[derive(Clone, Debug, Serialize)]
pub struct NodeReport {
    /// Its address.
    pub node: String,
    /// `primary`, `replica` or `unknown`.
    pub role: &'static str,
    /// It answers.
    pub answers: bool,
    /// Its link, if it is a replica.
    pub link: Option<&'static str>,
    /// Its availability zone, as configured or as it says.
    pub zone: Option<String>,
    /// What it has applied, in bytes of its history.
    pub applied_offset: Option<u64>,
    /// Bytes behind the newest anchor.
    pub lag_bytes: Option<u64>,
    /// How old its data can be, in milliseconds.
    pub staleness_ms: Option<f64>,
    /// How long after the primary it has what was written there, as measured, in milliseconds.
    pub delay_ms: Option<f64>,
    /// Its replication ID.
    pub replication_id: Option<String>,
    /// `redis_version`
    pub version: Option<String>,
    /// Whether its health has earned it reads.
    pub in_service: bool,
    /// What is wrong with it, or last was, in words.
    pub last_problem: Option<String>,
    /// The same as a label.
    pub last_problem_code: Option<&'static str>,
    /// How long ago that began, in seconds.
    pub last_problem_age_s: Option<f64>,
    /// How long ago it was over, in seconds; `null` while it lasts.
    pub last_problem_over_s: Option<f64>,
}

/// The whole view.
#[derive(Clone, Debug, Serialize)]
pub struct ViewReport {
    /// The node believed to be the primary.
    pub primary: Option<String>,
    /// Its replication ID.
    pub replication_id: Option<String>,
    /// The newest anchor's offset.
    pub head_offset: Option<u64>,
    /// How long ago that anchor was asked for, in milliseconds.
    pub anchor_age_ms: Option<f64>,
    /// More than one node claims to be the primary.
    pub two_primaries: bool,
    /// Why no primary answers, in words.
    pub cause: Option<String>,
    /// Where the replication stream is followed.
    pub stream_source: Option<String>,
    /// How long after the primary it comes from there, as measured, in milliseconds.
    pub stream_delay_ms: Option<f64>,
    /// All nodes.
    pub nodes: Vec<NodeReport>,
    /// What failovers have lost, the oldest first.
    pub losses: Vec<LossReport>,
}

/// What one failover has lost.
#[derive(Clone, Debug, Serialize)]
pub struct LossReport {
    /// How long ago it was noticed, in seconds.
    pub age_s: f64,
    /// Nothing of what was there before is left: the new history has nothing to do with it.
    pub everything: bool,
    /// The history before.
    pub previous_replication_id: String,
    /// The history that goes on.
    pub replication_id: Option<String>,
    /// The last offset that both have; `null` if that is none.
    pub from_offset: Option<u64>,
    /// How far the history before was heard of.
    pub upto_offset: Option<u64>,
    /// Writes; at least, unless they are `known`.
    pub writes: Option<u64>,
    /// All of them were remembered.
    pub known: bool,
    /// Their keys, as text.
    pub keys: Vec<String>,
    /// These are all of their keys.
    pub all_keys: bool,
}

/// What failovers have lost, the oldest first.
pub fn losses(shared: &Shared, now: Moment) -> Vec<LossReport> {
    let report = |(at, loss): (Moment, Loss)| {
        let age_s = seconds(now.since(at));
        match loss {
            Loss::Everything { previous, head, id } => LossReport {
                age_s,
                everything: true,
                previous_replication_id: previous.to_string(),
                replication_id: id.map(|id| id.to_string()),
                from_offset: None,
                upto_offset: head.map(Offset::bytes),
                writes: None,
                known: false,
                keys: Vec::new(),
                all_keys: false,
            },
            Loss::Tail(lost) => LossReport {
                age_s,
                everything: false,
                previous_replication_id: lost.previous.to_string(),
                replication_id: Some(lost.id.to_string()),
                from_offset: Some(lost.from.bytes()),
                upto_offset: Some(lost.upto.bytes()),
                writes: Some(lost.writes),
                known: lost.known,
                keys: lost.keys.iter().map(|key| String::from_utf8_lossy(key).into_owned()).collect(),
                all_keys: lost.named,
            },
        }
    };
    shared.shard().losses.list().into_iter().map(report).collect()
}

/// The same, for `REDWEIR LOSSES`.
pub fn losses_text(shared: &Shared, now: Moment) -> String {
    let mut out = String::new();
    let all = losses(shared, now);
    if all.is_empty() {
        out.push_str("no failover has lost anything, as far as is known\n");
    }
    for loss in all {
        let id = loss.replication_id.as_deref().unwrap_or("unknown");
        let (previous, upto) = (&loss.previous_replication_id, loss.upto_offset.unwrap_or(0));
        let Some((from, writes)) = loss.from_offset.zip(loss.writes) else {
            let _ = writeln!(
                out,
                "{:.0} s ago: everything: history {id} does not go on from {previous}, which was heard of up to \
                 offset {upto}",
                loss.age_s
            );
            continue;
        };
        let least = if loss.known { "" } else { "at least " };
        let _ = writeln!(
            out,
            "{:.0} s ago: {least}{writes} writes, {} bytes: history {id} goes on from {previous} at offset {from}, \
             which was heard of up to {upto}",
            loss.age_s,
            upto.saturating_sub(from)
        );
        for key in &loss.keys {
            let _ = writeln!(out, "  {}", key.escape_debug());
        }
        if !loss.all_keys {
            out.push_str("  and others\n");
        }
    }
    out
}

/// The view, for `/view`.
pub fn view_of(shared: &Shared, now: Moment) -> ViewReport {
    let view = shared.shard().view.load();
    ViewReport {
        losses: losses(shared, now),
        stream_source: stream_source(shared, &view),
        stream_delay_ms: view.stream.and_then(|stream| stream.delay).map(millis),
        ..view_report(&view, now)
    }
}

/// Where the replication stream is followed.
pub fn stream_source(shared: &Shared, view: &View) -> Option<String> {
    shared.shard().stream.source().and_then(|id| view.node(id)).map(Node::name)
}

/// The view alone.
pub fn view_report(view: &View, now: Moment) -> ViewReport {
    ViewReport {
        primary: view.primary.and_then(|id| view.node(id)).map(Node::name),
        replication_id: view.history.map(|h| h.id.to_string()),
        head_offset: view.head.map(|head| head.offset.bytes()),
        anchor_age_ms: view.head.map(|head| millis(now.since(head.sent_at))),
        two_primaries: view.two_primaries,
        cause: Cause::of(view).map(|cause| cause.text(true)),
        stream_source: None,
        stream_delay_ms: None,
        nodes: view.members().map(|node| node_report(view, node, now)).collect(),
        losses: Vec::new(),
    }
}

/// The view, for `REDWEIR VIEW`.
pub fn view_text(shared: &Shared, view: &View, now: Moment) -> String {
    let report = view_report(view, now);
    let mut out = String::new();
    let primary = report.primary.as_deref().unwrap_or("none");
    let cause = report.cause.as_ref().map_or_else(String::new, |cause| format!(" ({cause})"));
    let _ = writeln!(out, "primary: {primary}{cause}");
    if let (Some(id), Some(head), Some(age)) =
        (report.replication_id, report.head_offset, report.anchor_age_ms)
    {
        let _ = writeln!(out, "replication ID: {id}\nhead: offset {head}, asked {age:.1} ms ago");
    }
    let source =
        stream_source(shared, view).map_or_else(|| "not followed".to_owned(), |name| format!("from {name}"));
    let delay = view.stream.and_then(|stream| stream.delay).map(millis);
    let delay = delay.map_or_else(String::new, |delay| format!(", usually {delay:.1} ms behind"));
    let _ = writeln!(out, "replication stream: {source}{delay}");
    for node in &report.nodes {
        let trouble = node.trouble().map_or_else(String::new, |trouble| format!("; {trouble}"));
        let _ = writeln!(out, "{}{trouble}", node.line());
    }
    out
}

/// The `# Redweir` section of `INFO`, in the form of the others.
pub fn info_section(shared: &Shared, now: Moment) -> String {
    let view = shared.shard().view.load();
    let report = view_report(&view, now);
    let mut out = String::from("\r\n# Redweir\r\n");
    let _ = write!(out, "redweir_version:{}\r\n", env!("CARGO_PKG_VERSION"));
    let _ = write!(out, "redweir_workers:{}\r\n", shared.stats.len());
    let _ = write!(out, "redweir_clients:{}\r\n", shared.client_count());
    let lanes: u64 = shared.stats.iter().map(|stats| stats.lanes.value()).sum();
    let _ = write!(out, "redweir_upstream_connections:{lanes}\r\n");
    let _ = write!(out, "redweir_identities:{}\r\n", shared.identities.len());
    let _ = write!(out, "redweir_primary:{}\r\n", report.primary.as_deref().unwrap_or(""));
    let attached = shared.shard().stream.is_attached();
    let _ = write!(out, "redweir_stream_attached:{}\r\n", u8::from(attached));
    for (index, node) in report.nodes.iter().filter(|node| node.role == Role::Replica.name()).enumerate() {
        let _ =
            write!(out, "redweir_replica{index}:addr={},in_service={}", node.node, u8::from(node.in_service));
        let _ = write!(out, ",link={},offset=", node.link.unwrap_or("unknown"));
        let _ = node.applied_offset.map(|offset| write!(out, "{offset}"));
        out.push_str(",lag_bytes=");
        let _ = node.lag_bytes.map(|lag| write!(out, "{lag}"));
        out.push_str(",staleness_ms=");
        let _ = node.staleness_ms.map(|ms| write!(out, "{ms:.1}"));
        out.push_str("\r\n");
    }
    out
}

/// One node.
pub(super) fn node_report(view: &View, node: &Node, now: Moment) -> NodeReport {
    let trouble = node.trouble.as_deref();
    NodeReport {
        node: node.name(),
        role: node.role.map_or("unknown", Role::name),
        answers: node.answers(),
        link: node.link.map(Link::name),
        zone: view.zones.of(node).map(str::to_owned),
        applied_offset: node.applied.map(Offset::bytes),
        lag_bytes: if node.role == Some(Role::Replica) { view.lag_bytes(node) } else { None },
        staleness_ms: if node.role == Some(Role::Replica) { node.staleness(now).map(millis) } else { None },
        delay_ms: if node.role == Some(Role::Replica) { node.delay.map(millis) } else { None },
        replication_id: node.history().map(|h| h.id.to_string()),
        version: node.facts.as_ref().and_then(|facts| facts.version.clone()),
        in_service: if view.primary == Some(node.id) { node.answers() } else { node.standing.is_open() },
        last_problem: trouble.map(|trouble| trouble.problem.advice(true)),
        last_problem_code: trouble.map(|trouble| trouble.problem.kind.label()),
        last_problem_age_s: trouble.map(|trouble| seconds(now.since(trouble.since))),
        last_problem_over_s: trouble.and_then(|trouble| trouble.over).map(|over| seconds(now.since(over))),
    }
}

impl NodeReport {
    /// What is wrong with it, or last was, and when.
    pub fn trouble(&self) -> Option<String> {
        let (problem, age) = self.last_problem.as_ref().zip(self.last_problem_age_s)?;
        let words = |seconds: f64| in_words(Duration::from_secs_f64(seconds));
        Some(match self.last_problem_over_s {
            None if self.answers => format!("it {problem}"),
            None => format!("not answering for {}: it {problem}", words(age)),
            Some(over) => {
                let what = self.last_problem_code.unwrap_or_default().replace('_', " ");
                format!(
                    "did not answer for {}, until {} ago ({what})",
                    words((age - over).max(0.0)),
                    words(over)
                )
            }
        })
    }

    /// In a line.
    pub(super) fn line(&self) -> String {
        let mut out = format!("{} {}", self.role, self.node);
        if !self.answers {
            out.push_str(", silent");
        }
        if let Some(zone) = &self.zone {
            let _ = write!(out, ", zone {}", zone.escape_debug());
        }
        if let Some(link) = self.link {
            let _ = write!(out, ", link {link}");
        }
        if let Some(applied) = self.applied_offset {
            let _ = write!(out, ", offset {applied}");
        }
        if let Some(lag) = self.lag_bytes {
            let _ = write!(out, ", {lag} bytes behind");
        }
        if let Some(staleness) = self.staleness_ms {
            let _ = write!(out, ", at most {staleness:.1} ms old");
        }
        if let Some(delay) = self.delay_ms {
            let _ = write!(out, ", usually {delay:.1} ms behind");
        }
        out
    }
}

/// In milliseconds, to the next tenth: what is told as a bound stays one.
fn millis(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e4).ceil() / 10.0
}

/// In seconds, to a tenth.
fn seconds(span: Duration) -> f64 {
    (span.as_secs_f64() * 10.0).round() / 10.0
}
