//! How a command whose node is decided gets on to a lane.

use std::rc::Rc;

use crate::core::command::Intent;
use crate::core::command::in_force::Commands;
use crate::core::moment::Moment;
use crate::core::nodes::node::NodeId;
use crate::core::nodes::view::View;
use crate::core::reason::Reason;
use crate::core::repeat::PendingKind;
use crate::core::session::Stamps;
use crate::mutant;
use crate::proxy::session::connection::Connection;
use crate::proxy::session::routing::order::Run;
use crate::proxy::session::scan;
use crate::proxy::session::step::Step;
use crate::proxy::upstream::lane::{Lane, LaneKey, Process, Purpose};
use crate::proxy::upstream::outgoing::{Bytes, Outgoing};
use crate::proxy::upstream::pending::{Pending, Rewrite};
use crate::telemetry::{self, Target};
use crate::wire::request::Request;

impl Connection {
    /// Sends a command to `node`, unless what it shows, or does, would be out of order.
    pub fn send(&mut self, node: NodeId, request: Bytes<'_>, outgoing: Outgoing, view: &View) -> Step {
        let (seq, oldest) = self.client.next_and_oldest();
        let to_primary = view.primary == Some(node);
        let shown = if to_primary { outgoing.shows_keys() } else { None };
        if to_primary
            && (self.routing.owes_another_primary(node, oldest) || self.overtakes_read(shown.as_ref()))
        {
            return Step::Drain;
        }
        let lane = match self.lane_to(node) {
            Ok(lane) => lane,
            Err(step) => return step,
        };
        let step = self.send_on(lane, request, outgoing, view);
        if let (Step::Done, Some(slots)) = (&step, shown.as_ref().and_then(Stamps::slots)) {
            self.client.session(self.worker.shard).borrow_mut().reads_ahead(seq, slots, Some(node), oldest);
        }
        step
    }

    /// Whether what the primary shows of these keys might be older than what a replica has yet to show of them.
    fn overtakes_read(&self, shown: Option<&Stamps>) -> bool {
        let Some(stamps) = shown else { return false };
        let mut session = self.client.session(self.worker.shard).borrow_mut();
        session.overtakes(stamps, self.client.oldest()) && !mutant::is("reads-astray")
    }

    /// Sends a command on `lane`.
    pub fn send_on(&mut self, lane: Rc<Lane>, request: Bytes<'_>, outgoing: Outgoing, view: &View) -> Step {
        let node = lane.key.node;
        if outgoing.rewrite.is_cursor() {
            match scan::identify(&lane, view) {
                Process::Unknown => return self.wait_for_process(&outgoing, view),
                Process::Unnamed if view.primary != Some(node) => {
                    return self.send_to_primary(request, outgoing, view);
                }
                Process::Unnamed | Process::Tagged(_) => {}
            }
        }
        if !lane.has_room() {
            return self.lanes.is_full(lane);
        }
        let begun = self.waiting.end().unwrap_or(outgoing.now);
        let target = if view.primary == Some(node) { Target::Primary } else { Target::Replica };
        self.worker.stats.command(outgoing.access, target, outgoing.reason);
        if outgoing.need.is_some() {
            self.worker.ask_for_proof(&lane, outgoing.now);
        }
        let at_primary = target == Target::Primary;
        if at_primary {
            self.routing.went_to_primary(node, self.client.next());
        }
        self.push(&lane, request, Outgoing { at_primary, ..outgoing }, begun);
        Step::Done
    }

    fn push(&mut self, lane: &Rc<Lane>, request: Bytes<'_>, outgoing: Outgoing, begun: Moment) {
        let oldest = self.client.oldest();
        let seq = self.client.open();
        if outgoing.kind == PendingKind::Write && outgoing.stamps != Stamps::None {
            self.client.session(self.worker.shard).borrow_mut().sent(seq, &outgoing.stamps, oldest);
        }
        let alone = outgoing.alike
            && lane.shares.get()
            && outgoing.at_primary
            && oldest == seq
            && self.is_all_that_came(request);
        let pending = Pending {
            client: Rc::clone(&self.client),
            seq,
            shard: self.worker.shard,
            len: 0,
            access: outgoing.access,
            kind: outgoing.kind,
            rewrite: outgoing.rewrite,
            policy: outgoing.policy,
            stamps: outgoing.stamps,
            at_primary: outgoing.at_primary,
            sees_all: outgoing.sees_all,
            expected: self.expected,
            need: outgoing.need,
            void: false,
            redirected: 0,
            shares: false,
            begun,
            sent: outgoing.now,
        };
        if !alone {
            lane.push(request, pending);
        } else if lane.push_shared(request, pending) {
            self.routing.runs(Run::alone(seq));
        }
    }

    /// Whether nothing else has arrived with the command. A pipeline keeps its pace: what comes after a read that is shared has
    /// to wait for it.
    #[cold]
    fn is_all_that_came(&self, request: Bytes<'_>) -> bool {
        let (arrived, _) = self.client.status.input.get();
        let Bytes::Request(request) = request else { return false };
        !request.is_partial() && request.raw().is_some_and(|raw| raw.len() == arrived)
    }

    /// Sends a command on an exclusive lane.
    pub fn push_pinned(
        &mut self,
        lane: &Rc<Lane>,
        request: Bytes<'_>,
        access: telemetry::AccessLabel,
        stamps: Stamps,
        rewrite: Rewrite,
        now: Moment,
    ) {
        self.worker.stats.command(access, Target::Primary, Reason::Pinned);
        let kind =
            if access == telemetry::AccessLabel::Write { PendingKind::Write } else { PendingKind::Final };
        // Whatever a transaction or a blocking command tells, it tells of the primary.
        let outgoing = Outgoing {
            access,
            kind,
            rewrite,
            sees_all: self.worker.shared.fencing,
            ..Outgoing::write(Reason::Pinned, stamps, now)
        };
        self.push(lane, request, outgoing, now);
    }

    /// What a command has to wait for because of those before it that have a lane of their own.
    pub fn keep_in_order(&mut self, intent: Intent) -> Option<Step> {
        self.routing.waits_for_run(intent, self.client.oldest()).then_some(Step::Drain)
    }

    /// Sends a script to the primary.
    pub fn script(
        &mut self,
        request: &Request<'_>,
        (intent, reason): (Intent, Reason),
        view: &View,
        commands: &Commands,
        now: Moment,
    ) -> Step {
        let outgoing = Outgoing::write(reason, self.stamps(request, intent, commands), now);
        self.send_on_own_lane(Purpose::Scripts, request, outgoing, view)
    }

    /// Sends a command to the primary that is about the server.
    pub fn operate(&mut self, request: &Request<'_>, outgoing: Outgoing, view: &View) -> Step {
        self.send_on_own_lane(Purpose::Operation, request, outgoing, view)
    }

    fn send_on_own_lane(
        &mut self,
        purpose: Purpose,
        request: &Request<'_>,
        outgoing: Outgoing,
        view: &View,
    ) -> Step {
        let (oldest, next) = (self.client.oldest(), self.client.next());
        let Some(run) = self.routing.run_with(purpose, oldest, next) else { return Step::Drain };
        let Some(primary) = view.usable_primary(outgoing.now) else {
            return self.send_to_primary(Bytes::Request(request), outgoing, view);
        };
        if self.routing.owes_another_primary(primary, oldest) {
            return Step::Drain;
        }
        let key = LaneKey { purpose, ..self.who.key(primary) };
        let lane = match self.lanes.own(key, &self.client, &self.worker) {
            Ok(lane) => lane,
            Err(step) => return step,
        };
        let step = self.send_on(lane, Bytes::Request(request), outgoing, view);
        if matches!(step, Step::Done) {
            self.routing.runs(run);
        }
        step
    }
}
