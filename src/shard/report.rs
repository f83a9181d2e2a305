//! EXPLAIN and VIEW: the same decisions that traffic gets, in words and as JSON. In JSON every field is always there, and of one
//! type: `null` is what is not known, or does not apply.

use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;

use crate::core::argv::Args;
use crate::core::command::in_force::Commands;
use crate::core::command::{Access, Handling, Intent};
use crate::core::demand::{Reader, Subject};
use crate::core::moment::{Moment, in_words};
use crate::core::nodes::cause::Cause;
use crate::core::nodes::node::{Link, Node, Role};
use crate::core::nodes::view::View;
use crate::core::plan::{NextStep, Plan, Situation, next_step, plan, to_primary};
use crate::core::policy::Policy;
use crate::core::position::Offset;
use crate::core::reason::Reason;
use crate::core::route::{Ask, Decision, Demand, decide, judge};
use crate::core::stream::lost::Loss;
use crate::mutant;
use crate::shard::shared::Shared;
use crate::wire::request::is_cross_protocol;

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

/// Why a command would go where.
#[derive(Clone, Debug, Serialize)]
pub struct Explained {
    /// The command, as the table knows it.
    pub command: String,
    /// `read`, `write`, `primary` or `local`: what it does, or that Redweir answers it.
    pub access: &'static str,
    /// The policy that applies.
    pub policy: String,
    /// Its level.
    pub consistency: &'static str,
    /// `send`, `try` (with a proof that is asked for), `wait`, `refuse` or `answer`.
    pub decision: &'static str,
    /// Where it would be sent.
    pub target: Option<String>,
    /// The reason's label.
    pub reason: &'static str,
    /// The reason in words.
    pub why: String,
    /// The offset that a replica must have applied, in digits, or `pending`.
    pub fence: Option<String>,
    /// The same as a number, once it is known.
    pub fence_offset: Option<u64>,
    /// Every node, where one is asked at all.
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
    /// The reason in words, as it is true of this node.
    pub why: String,
    /// Bytes that it lacks to the fence.
    pub deficit_bytes: Option<u64>,
}

/// Who asks for an explanation.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// On whose behalf a read would be decided.
    pub reader: Reader<'a>,
    /// What matters of its connection.
    pub situation: Situation,
}

/// Explains `args` on behalf of `asker`. `complete` adds to the question that a read is decided by what only the asker knows
/// (which replica it is on, what is proven), and hands it on.
pub fn explain<A: Args + ?Sized>(
    shared: &Shared,
    asker: &Asker<'_>,
    args: &A,
    (view, commands): (&View, &Commands),
    now: Moment,
    complete: impl FnOnce(&Ask<'_>, &mut dyn FnMut(&Ask<'_>)),
) -> Explained {
    let (reader, intent) = (&asker.reader, commands.table.classify(args));
    let policy_id = reader.policy_of(&view.policies, args, intent, commands);
    let fallback = Policy::default();
    let policy = view.policies.get(policy_id).unwrap_or(&fallback);
    let situation = Situation { cross_protocol: is_cross_protocol(args.arg(0)), ..asker.situation };
    let level = || policy.consistency;
    let plan = match plan(args, intent, commands, situation, (view, now), level) {
        Plan::Refuse(_) if mutant::is("explained-otherwise") => Plan::Primary(Reason::PrimaryOnly),
        plan => plan,
    };
    let demand = match plan {
        Plan::Read | Plan::Continue { .. } => {
            shared.shard().demand(reader, level(), (args, intent), (view, commands), &mut Subject::default())
        }
        Plan::Answer | Plan::Refuse(_) | Plan::Primary(_) => Demand::Nothing,
    };
    let ask = Ask::of_anybody(view, (policy_id, policy), demand, now);
    let mut explained = Explained {
        command: commands.table.name(intent.id).to_owned(),
        access: access(plan, intent),
        policy: policy.name.clone(),
        consistency: policy.consistency.name(),
        decision: "refuse",
        target: None,
        reason: "",
        why: String::new(),
        fence: match demand {
            Demand::Nothing => None,
            Demand::Applied(offset, _) => Some(offset.to_string()),
            Demand::Unknown(_) => Some("pending".to_owned()),
        },
        fence_offset: match demand {
            Demand::Applied(offset, _) => Some(offset.bytes()),
            Demand::Nothing | Demand::Unknown(_) => None,
        },
        candidates: Vec::new(),
    };
    complete(&ask, &mut |ask| explained.take(plan, ask));
    explained
}

fn access(plan: Plan, intent: Intent) -> &'static str {
    match (plan, intent.handling, intent.access) {
        (Plan::Answer, ..) => "local",
        (_, Handling::Pin(_), _) | (_, _, Access::PrimaryRead(_)) => "primary",
        (_, _, Access::Read) => "read",
        (_, _, Access::Write { .. } | Access::Unknown) => "write",
    }
}

impl Explained {
    /// What becomes of the command.
    fn take(&mut self, plan: Plan, ask: &Ask<'_>) {
        let (view, now) = (ask.view, ask.now);
        let decision = match plan {
            Plan::Answer => return self.say("answer", Reason::Local, view),
            Plan::Refuse(reason) => return self.say("refuse", reason, view),
            Plan::Primary(reason) => to_primary(view, reason, now, Duration::ZERO),
            Plan::Read => decide(ask),
            Plan::Continue { tag, .. } => match next_step(view, tag, || ask.policy.consistency) {
                NextStep::At(node) => match view.node(node).map(|node| judge(node, ask)) {
                    _ if view.primary == Some(node) => to_primary(view, Reason::Cursor, now, Duration::ZERO),
                    Some(Err(reason)) => Decision::Wait { reason },
                    Some(Ok(())) | None => Decision::Send { node, reason: Reason::Cursor },
                },
                NextStep::Gone | NextStep::OfReplica => return self.say("refuse", Reason::Cursor, view),
            },
        };
        let (word, node, reason) = match decision {
            Decision::Send { node, reason } => ("send", Some(node), reason),
            Decision::Try { node, .. } => ("try", Some(node), Reason::Fresh),
            Decision::Wait { reason } => ("wait", None, reason),
            Decision::Refuse { reason } => ("refuse", None, reason),
        };
        self.say(word, reason, view);
        self.target = node.and_then(|id| view.node(id)).map(Node::name);
        self.candidates = view.members().map(|node| candidate(node, plan, ask)).collect();
    }

    fn say(&mut self, decision: &'static str, reason: Reason, view: &View) {
        (self.decision, self.reason) = (decision, reason.label());
        let about_primary = matches!(reason, Reason::PrimaryDown | Reason::TwoPrimaries);
        let cause = Cause::of(view).filter(|_| about_primary);
        self.why = if let Some(cause) = cause {
            format!("{}: {}", reason.text(), cause.text(true))
        } else if reason.is_about_a_replica() {
            format!("the replica that comes closest may not serve: {}", reason.text())
        } else {
            reason.text().to_owned()
        };
    }
}

/// From which nodes a user is barred.
pub fn bars(view: &View, user: &str) -> Vec<Option<Reason>> {
    let bar = |barred: &bool| barred.then_some(Reason::RightsDiffer);
    view.rights.bars(user.as_bytes()).iter().map(bar).collect()
}

/// What is true of one node: a replica's shortcoming is never the primary's.
fn candidate(node: &Node, plan: Plan, ask: &Ask<'_>) -> Candidate {
    let is_primary = ask.view.primary == Some(node.id);
    let (eligible, label, why) = match plan {
        _ if is_primary => match to_primary(ask.view, Reason::PrimaryOnly, ask.now, Duration::ZERO) {
            Decision::Send { .. } => (true, "primary", "it is the primary".to_owned()),
            Decision::Refuse { reason: Reason::TwoPrimaries } => (
                false,
                Reason::TwoPrimaries.label(),
                "another node claims to be the primary as well".to_owned(),
            ),
            _ => (false, Reason::Silent.label(), Reason::Silent.text().to_owned()),
        },
        Plan::Primary(reason) => {
            (false, reason.label(), format!("it is not the primary, and {}", reason.text()))
        }
        _ => match judge(node, ask) {
            Ok(()) => (true, Reason::Fresh.label(), Reason::Fresh.text().to_owned()),
            Err(reason) => (false, reason.label(), reason.text().to_owned()),
        },
    };
    let applied = node.applied.filter(|_| !is_primary);
    let deficit_bytes = applied.and_then(|applied| ask.demand.deficit_bytes(applied));
    let node = node_report(ask.view, node, ask.now);
    Candidate { node, eligible, reason: label, why, deficit_bytes }
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

fn node_report(view: &View, node: &Node, now: Moment) -> NodeReport {
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

    fn line(&self) -> String {
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
            let trouble = candidate.node.trouble().filter(|_| candidate.node.last_problem_over_s.is_none());
            let trouble = trouble.map(|trouble| format!("; {trouble}")).unwrap_or_default();
            let _ = writeln!(
                out,
                "{}: {verdict}, {} ({}){missing}{trouble}",
                candidate.node.line(),
                candidate.why,
                candidate.reason
            );
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
