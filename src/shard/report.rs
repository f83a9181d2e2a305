//! EXPLAIN and VIEW: the same decisions that traffic gets, in words and as JSON.

use std::fmt::Write;

use serde::Serialize;

use crate::core::argv::Args;
use crate::core::command::vocabulary::Vocabulary;
use crate::core::command::{Access, Handling, Local};
use crate::core::cursor::Cursor;
use crate::core::demand::{Reader, Subject};
use crate::core::moment::Moment;
use crate::core::nodes::node::{Link, Node, Role};
use crate::core::nodes::view::View;
use crate::core::policy::Consistency;
use crate::core::position::Offset;
use crate::core::reason::Reason;
use crate::core::route::{Ask, Decision, Demand, decide, judge};
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
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<&'static str>,
    /// What it has applied, in bytes of its history.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub applied_offset: Option<u64>,
    /// Bytes behind the newest anchor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_bytes: Option<u64>,
    /// How old its data can be, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub staleness_ms: Option<f64>,
    /// Its replication ID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replication_id: Option<String>,
    /// `redis_version`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Whether its health has earned it reads.
    pub in_service: bool,
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
    /// All nodes.
    pub nodes: Vec<NodeReport>,
}

/// Why a command would go where.
#[derive(Clone, Debug, Serialize)]
pub struct Explained {
    /// The command, as the table knows it.
    pub command: String,
    /// `read`, `write`, `primary` or `local`.
    pub access: &'static str,
    /// The policy that applies.
    pub policy: String,
    /// Its level.
    pub consistency: &'static str,
    /// `send`, `wait`, `refuse` or `answer`.
    pub decision: &'static str,
    /// Where it would be sent.
    pub target: Option<String>,
    /// The reason's label.
    pub reason: &'static str,
    /// The reason in words.
    pub why: &'static str,
    /// The offset that a replica must have applied, or `pending`.
    pub fence: Option<String>,
    /// Every candidate.
    pub candidates: Vec<Candidate>,
}

/// One node's verdict.
#[derive(Clone, Debug, Serialize)]
pub struct Candidate {
    /// The node.
    #[serde(flatten)]
    pub node: NodeReport,
    /// It may serve this command.
    pub eligible: bool,
    /// The reason's label.
    pub reason: &'static str,
    /// The reason in words.
    pub why: &'static str,
    /// Bytes that it lacks to the fence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deficit_bytes: Option<u64>,
}

/// Explains `args` on behalf of `reader`.
pub fn explain<A: Args + ?Sized>(
    shared: &Shared,
    reader: &Reader<'_>,
    args: &A,
    view: &View,
    vocabulary: &Vocabulary,
    now: Moment,
) -> Explained {
    let intent = vocabulary.table.classify(args);
    let policy_id = reader.policy_of(&shared.config.policies, args, intent, vocabulary);
    let fallback = crate::core::policy::Policy::default();
    let policy = shared.config.policies.all.get(usize::from(policy_id.0)).unwrap_or(&fallback);
    let (is_read, access, fixed) = match (intent.handling, intent.access) {
        (Handling::Local(which), _) if which != Local::Info => (false, "local", Reason::PrimaryOnly),
        (Handling::Pin(_), _) => (false, "primary", Reason::Pinned),
        (Handling::Scan { cursor }, _)
            if policy.consistency >= Consistency::Session
                || Cursor::parse(args.arg(usize::from(cursor))) != Some(Cursor::Start) =>
        {
            (false, "primary", Reason::Cursor)
        }
        (_, Access::Read) => (true, "read", Reason::Fresh),
        (_, Access::PrimaryRead(_)) => (false, "primary", Reason::PrimaryOnly),
        (_, Access::Write { .. }) => (false, "write", Reason::Write),
        (_, Access::Unknown) => (false, "write", Reason::UnknownCommand),
    };
    let demand = if is_read {
        shared.demand(reader, policy.consistency, (args, intent), (view, vocabulary), &mut Subject::default())
    } else {
        Demand::Nothing
    };
    let bars = bars(view, reader.user);
    let ask = Ask {
        view,
        policy,
        policy_id,
        demand,
        sticky: None,
        load: &[],
        proven: &[],
        in_doubt: &[],
        barred: &bars,
        may_try: &[],
        now,
        tie: 0,
        waited: false,
        avoid: None,
    };
    let decision = if is_read {
        decide(&ask)
    } else {
        match view.usable_primary(now) {
            Some(node) => Decision::Send { node, reason: fixed },
            None => Decision::Refuse { reason: Reason::PrimaryDown },
        }
    };
    let (word, target, reason) = match decision {
        Decision::Send { node, reason } => ("send", view.node(node).map(|n| n.name.clone()), reason),
        Decision::Try { node, .. } => ("try", view.node(node).map(|n| n.name.clone()), Reason::Fresh),
        Decision::Wait { reason } => ("wait", None, reason),
        Decision::Refuse { reason } => ("refuse", None, reason),
    };
    Explained {
        command: vocabulary.table.name(intent.id).to_owned(),
        access,
        policy: policy.name.clone(),
        consistency: policy.consistency.name(),
        decision: if access == "local" { "answer" } else { word },
        target: target.filter(|_| access != "local"),
        reason: reason.label(),
        why: reason.text(),
        fence: match demand {
            Demand::Nothing => None,
            Demand::Applied(offset, _) => Some(offset.to_string()),
            Demand::Unknown(_) => Some("pending".to_owned()),
        },
        candidates: view.nodes.iter().map(|node| candidate(node, &ask, is_read, fixed)).collect(),
    }
}

/// From which nodes a user is barred.
fn bars(view: &View, user: &str) -> Vec<Option<Reason>> {
    let bar = |barred: &bool| barred.then_some(Reason::RightsDiffer);
    view.rights.bars(user.as_bytes()).iter().map(bar).collect()
}

fn candidate(node: &Node, ask: &Ask<'_>, is_read: bool, fixed: Reason) -> Candidate {
    let is_primary = ask.view.primary == Some(node.id);
    let verdict = match (is_primary, is_read) {
        (true, _) if ask.view.usable_primary(ask.now).is_none() => Err(Reason::PrimaryDown),
        (true, _) => Ok(if is_read { Reason::PrimaryOnly } else { fixed }),
        (false, true) => judge(node, ask).map(|()| Reason::Fresh),
        (false, false) => Err(fixed),
    };
    let (Ok(reason) | Err(reason)) = verdict;
    let why = if is_primary && verdict.is_ok() { "it is the primary" } else { reason.text() };
    let label = if is_primary && verdict.is_ok() { "primary" } else { reason.label() };
    let applied = node.applied.filter(|_| !is_primary);
    let deficit_bytes = applied.and_then(|applied| ask.demand.deficit_bytes(applied));
    let node = node_report(ask.view, node, ask.now);
    Candidate { node, eligible: verdict.is_ok(), reason: label, why, deficit_bytes }
}

/// The view, for `/view`.
pub fn view_report(view: &View, now: Moment) -> ViewReport {
    ViewReport {
        primary: view.primary.and_then(|id| view.node(id)).map(|node| node.name.clone()),
        replication_id: view.history.map(|h| h.id.to_string()),
        head_offset: view.head.map(|head| head.offset.bytes()),
        anchor_age_ms: view.head.map(|head| millis(now.since(head.sent_at))),
        two_primaries: view.two_primaries,
        nodes: view.nodes.iter().map(|node| node_report(view, node, now)).collect(),
    }
}

/// The view, for `REDWEIR VIEW`.
pub fn view_text(view: &View, now: Moment) -> String {
    let report = view_report(view, now);
    let mut out = String::new();
    let _ = writeln!(out, "primary: {}", report.primary.as_deref().unwrap_or("none"));
    if let (Some(id), Some(head), Some(age)) =
        (report.replication_id, report.head_offset, report.anchor_age_ms)
    {
        let _ = writeln!(out, "replication ID: {id}\nhead: offset {head}, asked {age:.1} ms ago");
    }
    for node in &report.nodes {
        let _ = writeln!(out, "{}", node.line());
    }
    out
}

/// The `# Redweir` section of `INFO`, in the form of the others.
pub fn info_section(shared: &Shared, now: Moment) -> String {
    let view = shared.view.load();
    let report = view_report(&view, now);
    let mut out = String::from("\r\n# Redweir\r\n");
    let _ = write!(out, "redweir_version:{}\r\n", env!("CARGO_PKG_VERSION"));
    let _ = write!(out, "redweir_workers:{}\r\n", shared.stats.len());
    let _ = write!(out, "redweir_clients:{}\r\n", shared.client_count());
    let lanes: u64 = shared.stats.iter().map(|stats| stats.lanes.value()).sum();
    let _ = write!(out, "redweir_upstream_connections:{lanes}\r\n");
    let _ = write!(out, "redweir_identities:{}\r\n", shared.identities.len());
    let _ = write!(out, "redweir_primary:{}\r\n", report.primary.as_deref().unwrap_or(""));
    let attached = shared.stream.is_attached();
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

fn node_report(view: &View, node: &Node, now: Moment) -> NodeReport {
    NodeReport {
        node: node.name.clone(),
        role: node.role.map_or("unknown", Role::name),
        answers: node.silent_since.is_none() && node.heard_at.is_some(),
        link: node.link.map(Link::name),
        applied_offset: node.applied.map(Offset::bytes),
        lag_bytes: if node.role == Some(Role::Replica) { view.lag_bytes(node) } else { None },
        staleness_ms: if node.role == Some(Role::Replica) { node.staleness(now).map(millis) } else { None },
        replication_id: node.history().map(|h| h.id.to_string()),
        version: node.facts.as_ref().and_then(|facts| facts.version.clone()),
        in_service: view.primary == Some(node.id) || node.standing.is_open(),
    }
}

impl NodeReport {
    fn line(&self) -> String {
        let mut out = format!("{} {}", self.role, self.node);
        if !self.answers {
            out.push_str(", silent");
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
        out
    }
}

impl Explained {
    /// In lines, for `REDWEIR EXPLAIN`.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(out, "{} is a {} command", self.command, self.access);
        let _ = writeln!(out, "policy {}: {}", self.policy, self.consistency);
        let place = self.target.as_deref().map(|t| format!(" to {t}")).unwrap_or_default();
        let _ = writeln!(out, "decision: {}{place}, {} ({})", self.decision, self.why, self.reason);
        if let Some(fence) = &self.fence {
            let _ = writeln!(out, "fence: {fence}");
        }
        for candidate in &self.candidates {
            let verdict = if candidate.eligible { "may serve" } else { "may not serve" };
            let missing = candidate.deficit_bytes.filter(|bytes| *bytes > 0);
            let missing = missing.map(|bytes| format!(", lacks {bytes} bytes")).unwrap_or_default();
            let _ = writeln!(
                out,
                "{}: {verdict}, {} ({}){missing}",
                candidate.node.line(),
                candidate.why,
                candidate.reason
            );
        }
        out
    }
}

fn millis(span: std::time::Duration) -> f64 {
    span.as_secs_f64() * 1e3
}
