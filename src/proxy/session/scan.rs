//! Scans: the process that issues a cursor is the one that continues it.
//!
//! Where a scan begins is decided like any read. `SCAN` names no key, so that from `session` up it begins at the primary,
//! and so do the scans of one key: of a scan that began on a replica every step would have to be proven there, and a step
//! that is not could be sent nowhere else. Below, it begins on any replica that the policy allows, and stays there.
//!
//! Each lane knows the process at its other end (`lane_task`), so that a restart between two steps is noticed even when
//! the connection was made anew meanwhile. Steps are never repeated elsewhere. Whatever stands in the way is an error
//! that says to begin again; a scan is never silently incomplete.

use crate::core::argv::Args as _;
use crate::core::command::in_force::Commands;
use crate::core::command::{Handling, Intent};
use crate::core::cursor::{Cursor, Tag};
use crate::core::demand::Subject;
use crate::core::moment::Moment;
use crate::core::nodes::node::NodeId;
use crate::core::nodes::view::View;
use crate::core::plan::{NextStep, next_step, owner};
use crate::core::reason::Reason;
use crate::core::repeat::PendingKind;
use crate::core::route::judge;
use crate::mutant;
use crate::proxy::session::connection::Connection;
use crate::proxy::session::step::Step;
use crate::proxy::session::waiting::On;
use crate::proxy::upstream::lane::{Lane, Process};
use crate::proxy::upstream::outgoing::{Bytes, Outgoing};
use crate::proxy::upstream::pending::Rewrite;
use crate::telemetry::{self, Target};
use crate::wire::request::Request;
use crate::wire::say;

/// A step of a scan that is known to belong to one process.
struct NextStepOfScan<'a> {
    request: &'a Request<'a>,
    intent: Intent,
    node: NodeId,
    tag: Tag,
    /// The command with the process' own cursor.
    bytes: Vec<u8>,
}

impl Connection {
    /// Has a scan begin at the primary, or the primary say what is wrong with its cursor.
    pub(crate) fn scan_at_primary(
        &mut self,
        request: &Request<'_>,
        (cursor, reason): (u8, Reason),
        view: &View,
        now: Moment,
    ) -> Step {
        let rewrite =
            if reason == Reason::Malformed { Rewrite::None } else { Rewrite::Cursor { all: cursor == 1 } };
        let outgoing = Outgoing { reason, ..self.step_of_scan(rewrite, now) };
        self.send_to_primary(Bytes::Request(request), outgoing, view)
    }

    /// Sends the next step of a scan that the process `tag` began, and knows by the cursor `own`.
    pub(crate) fn next_step_of_scan(
        &mut self,
        request: &Request<'_>,
        (tag, own): (Tag, u64),
        intent: Intent,
        view: &View,
        commands: &Commands,
        now: Moment,
    ) -> Step {
        let Handling::Scan { cursor: at } = intent.handling else { return Step::Close };
        let node = match next_step(view, tag, || self.level(request, intent, (view, commands))) {
            _ if mutant::is("cursor-anywhere") => view.primary,
            NextStep::At(node) => Some(node),
            NextStep::OfReplica => return self.refuse_cursor(say::CURSOR_OF_REPLICA),
            NextStep::Gone => None,
        };
        let Some(node) = node else { return self.refuse_cursor(say::CURSOR_GONE) };
        let bytes = with_cursor(request, at, own);
        self.continue_scan(&NextStepOfScan { request, intent, node, tag, bytes }, view, commands, now)
    }

    fn continue_scan(
        &mut self,
        step: &NextStepOfScan<'_>,
        view: &View,
        commands: &Commands,
        now: Moment,
    ) -> Step {
        if view.primary != Some(step.node) && !self.may_serve(step, view, commands, now) {
            let patience = view.hold;
            let since = self.waiting.begin(now);
            return if now.since(since) > patience {
                self.refuse_cursor(say::CURSOR_BEHIND)
            } else {
                self.wait(On::Nodes, patience, now)
            };
        }
        let outgoing = self.step_of_scan(
            Rewrite::Cursor { all: matches!(step.intent.handling, Handling::Scan { cursor: 1 }) },
            now,
        );
        let lane = match self.lane_to(step.node) {
            Ok(lane) => lane,
            Err(step) => return step,
        };
        match identify(&lane, view) {
            Process::Unknown => self.wait_for_process(&outgoing, view),
            Process::Tagged(tag) if tag == step.tag || mutant::is("cursor-anywhere") => {
                self.send(step.node, Bytes::Own(&step.bytes), outgoing, view)
            }
            Process::Tagged(_) | Process::Unnamed => self.refuse_cursor(say::CURSOR_GONE),
        }
    }

    /// Whether the policy allows the replica that the scan is on to serve its next step.
    fn may_serve(&self, step: &NextStepOfScan<'_>, view: &View, commands: &Commands, now: Moment) -> bool {
        let shared = &self.worker.shared;
        let reader = self.reader(view);
        let id = reader.policy_of(&view.policies, step.request, step.intent, commands);
        let Some(policy) = view.policies.get(id) else { return false };
        let demand = shared.shard().demand(
            &reader,
            policy.consistency,
            (step.request, step.intent),
            (view, commands),
            &mut Subject::default(),
        );
        self.with_ask(policy, id, demand, view, now, |ask| {
            view.node(step.node).is_some_and(|node| judge(node, ask).is_ok())
        })
    }

    fn step_of_scan(&self, rewrite: Rewrite, now: Moment) -> Outgoing {
        let sees_all = self.worker.shared.fencing;
        Outgoing { sees_all, rewrite, kind: PendingKind::Final, ..Outgoing::read(Reason::Cursor, now) }
    }

    /// Has the command wait until it is known which process is at the other end of the lane.
    pub fn wait_for_process(&mut self, outgoing: &Outgoing, view: &View) -> Step {
        let since = self.waiting.begin(outgoing.now);
        if outgoing.now.since(since) > view.hold {
            return self.refuse(outgoing.access, Reason::PrimaryDown);
        }
        self.wait(On::Nodes, view.hold, outgoing.now)
    }

    fn refuse_cursor(&mut self, error: &[u8]) -> Step {
        self.waiting.end();
        self.worker.stats.command(telemetry::AccessLabel::Read, Target::Refused, Reason::Cursor);
        self.client.answer(error);
        Step::Done
    }

    /// What a scan on an exclusive connection to the primary sends instead of `request`, if its cursor names a process.
    /// `Err` is the error to answer with, or `None` to try again in a moment.
    pub fn own_cursor(
        request: &Request<'_>,
        intent: Intent,
        lane: &Lane,
        view: &View,
    ) -> Result<Option<Vec<u8>>, Option<&'static [u8]>> {
        let Handling::Scan { cursor: at } = intent.handling else { return Ok(None) };
        if request.is_partial() {
            return Ok(None);
        }
        let Some(Cursor::Of { tag, own }) = Cursor::parse(request.arg(usize::from(at))) else {
            return Ok(None);
        };
        match identify(lane, view) {
            Process::Unknown => Err(None),
            Process::Tagged(of) if of == tag => Ok(Some(with_cursor(request, at, own))),
            Process::Tagged(_) if owner(view, tag).is_some() => Err(Some(say::CURSOR_OF_REPLICA)),
            Process::Tagged(_) | Process::Unnamed => Err(Some(say::CURSOR_GONE)),
        }
    }
}

/// The process at the other end of a lane, as far as can be said: the one that the node was, at any time since the
/// lane was connected at which it has answered.
pub(crate) fn identify(lane: &Lane, view: &View) -> Process {
    if lane.process.get() == Process::Unknown
        && let Some(connected) = lane.connected.get()
        && let Some(node) = view.node(lane.key.node)
        && node.silent_since.is_none()
        && node.heard_at.is_some_and(|asked| asked > connected)
    {
        let facts = node.facts.as_ref();
        lane.process.set(Process::of(facts.and_then(|facts| facts.run_id.as_deref())));
    }
    lane.process.get()
}

/// The command with another cursor.
fn with_cursor(request: &Request<'_>, at: u8, own: u64) -> Vec<u8> {
    say::with_argument(request, usize::from(at), own.to_string().as_bytes())
}
