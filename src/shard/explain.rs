//! EXPLAIN: the same decisions that traffic gets, in words and as JSON.

use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;

use crate::core::argv::Args;
use crate::core::command::in_force::Commands;
use crate::core::command::{Access, Handling, Intent};
use crate::core::demand::{Reader, Subject};
use crate::core::moment::Moment;
use crate::core::nodes::cause::Cause;
use crate::core::nodes::node::Node;
use crate::core::nodes::view::View;
use crate::core::plan::{NextStep, Plan, Situation, next_step, plan, to_primary};
use crate::core::policy::Policy;
use crate::core::reason::Reason;
use crate::core::route::{Ask, Decision, Demand, decide, judge};
use crate::core::slots::{HashSlot, ShardIndex};
use crate::mutant;
use crate::shard::place::{Fate, Place};
use crate::shard::report::{NodeReport, node_report};
use crate::shard::shared::Shared;
use crate::wire::request::is_cross_protocol;

/// Why a command would go where.
#[derive(Clone, Debug, Serialize)]
pub struct Explained {
    /// The command, as the table knows it.
    pub command: String,
    /// `read`, `write`, `primary` or `local`: what it does, or that Redweir answers it.
    pub access: &'static str,
    /// The hash slot of its keys, in a cluster; of keys in several, that of the first.
    pub slot: Option<u16>,
    /// The shard that it would go to, in a cluster.
    pub shard: Option<usize>,
    /// `stable`, `moving` or `unowned`; of the slot.
    pub slot_state: Option<&'static str>,
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
    /// Where the command goes in a cluster.
    pub place: Option<Place>,
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
            let demand = shared.shard().demand(
                reader,
                level(),
                (args, intent),
                (view, commands),
                &mut Subject::default(),
            );
            asker.place.map_or(demand, |place| place.demand(demand, shared, (intent, policy), (view, now)))
        }
        Plan::Answer | Plan::Refuse(_) | Plan::Primary(_) => Demand::Nothing,
    };
    let ask = Ask::of_anybody(view, (policy_id, policy), demand, now);
    let mut explained = Explained {
        command: commands.table.name(intent.id).to_owned(),
        access: access(plan, intent),
        slot: asker.place.and_then(|place| place.slot).map(HashSlot::number),
        shard: asker.place.and_then(|place| place.shard).map(ShardIndex::index),
        slot_state: asker.place.and_then(|place| place.slot.and(Some(place.state.name()))),
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
    match asker.place.map(|place| place.fate) {
        Some(Fate::Unowned) => {
            explained.say("wait", Reason::PrimaryDown, view);
            "nobody is known to have the hash slot".clone_into(&mut explained.why);
        }
        Some(Fate::Refused(why)) => {
            explained.say("answer", Reason::Local, view);
            why.clone_into(&mut explained.why);
        }
        Some(Fate::Sent) | None => complete(&ask, &mut |ask| explained.take(plan, ask)),
    }
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

impl Explained {
    /// Where its keys are.
    fn slot_line(&self) -> Option<String> {
        match (self.slot, self.slot_state, self.shard) {
            (Some(slot), Some(state), Some(shard)) => Some(format!("slot {slot} ({state}) of shard {shard}")),
            (Some(slot), Some(state), None) => Some(format!("slot {slot} ({state})")),
            (_, _, Some(shard)) => Some(format!("no slot: shard {shard}")),
            _ => None,
        }
    }

    /// In lines, for `REDWEIR EXPLAIN`.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(out, "{} is a {} command", self.command, self.access);
        if let Some(line) = self.slot_line() {
            let _ = writeln!(out, "{line}");
        }
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
