//! Where a read goes.

use std::rc::Rc;
use std::time::Duration;

use crate::core::command::in_force::Commands;
use crate::core::command::{Handling, Intent};
use crate::core::demand::{Reader, Subject};
use crate::core::moment::Moment;
use crate::core::nodes::node::{Node, NodeId};
use crate::core::nodes::view::View;
use crate::core::policy::{Consistency, Policy, PolicyId};
use crate::core::reason::Reason;
use crate::core::route::{Ask, Decision, Demand, decide, judge};
use crate::core::session::{Follows, Stamps};
use crate::mutant;
use crate::net::runtime::limits;
use crate::proxy::session::connection::Connection;
use crate::proxy::session::routing::cache::CachedRoute;
use crate::proxy::session::step::Step;
use crate::proxy::session::waiting::On;
use crate::proxy::upstream::load::NodeCounts;
use crate::proxy::upstream::outgoing::{Bytes, Outgoing};
use crate::proxy::upstream::pending::Rewrite;
use crate::shard::shared::Shared;
use crate::telemetry;
use crate::wire::request::Request;

impl Connection {
    /// Sends a read where it may go.
    pub fn read(
        &mut self,
        request: &Request<'_>,
        intent: Intent,
        view: &View,
        commands: &Commands,
        now: Moment,
    ) -> Step {
        let worker = Rc::clone(&self.worker);
        let (shared, shard) = (&worker.shared, worker.shared.shard());
        self.leave_generation(view, now);
        let barrier = self.waiting.barrier(view, now, || shared.shard().anchors.next());
        let reader = Reader { barrier: Some(barrier), ..self.reader(view) };
        let policy_id = reader.policy_of(&view.policies, request, intent, commands);
        let Some(policy) = view.policies.get(policy_id) else {
            return Step::Close;
        };
        self.count_own(policy);
        let mut subject = Subject::default();
        let asked = (request, intent);
        let demand = shard.demand(&reader, policy.consistency, asked, (view, commands), &mut subject);
        let demand = self.with_floor(demand, policy, now);
        let (stamps, slots) = (subject.stamps(), self.client.next_and_oldest());
        let outgoing = |reason| outgoing_read(intent, policy_id, policy, &subject, reason, now);
        let follows = self.client.session(self.worker.shard).borrow_mut().follows(&stamps, slots.1);
        match follows {
            Follows::Nothing
                if subject.is_keyed() && self.routing.has_followed_enough(demand, slots, now) =>
            {
                return self.wait_for_anchor(limits::FOLLOWED_LONGEST, now);
            }
            Follows::Nothing => {}
            Follows::To(node)
                if view.usable_primary(now) == Some(node) && self.routing.may_go_on_following(slots, now) =>
            {
                return self.send(node, Bytes::Request(request), outgoing(Reason::BelowSession), view);
            }
            Follows::To(_) | Follows::All => return Step::Drain,
        }
        if let Some(CachedRoute { node, .. }) = self.routing.cached_route_for(policy_id, demand) {
            let step = self.send_to_replica(node, request, outgoing(Reason::Fresh), &stamps, view);
            self.cache_route(request, intent, (&*view.policies, policy), commands);
            return step;
        }
        if let Some(primary) = self.owner_instead(policy, view, now) {
            return self.fall_back(primary, request, outgoing(Reason::SlotMoving), view);
        }
        let (decision, better_elsewhere) = self.weigh(policy, policy_id, demand, view, now);
        if better_elsewhere || self.moves(decision, view) {
            // What it has seen counts from now on: the question is another one.
            return match self.move_on(shared) {
                Ok(()) => self.read(request, intent, view, commands, now),
                Err(step) => step,
            };
        }
        if let Decision::Send { reason: Reason::BelowSession, .. } | Decision::Try { .. } = decision
            && let Some(patience) = self.pays_to_wait(policy, demand, &subject, view, now)
        {
            return self.wait(On::Nodes, patience, now);
        }
        match decision {
            Decision::Send { node, reason } if view.primary == Some(node) => {
                let alike = worker.shares_reads.get() && are_answered_alike(intent, commands);
                self.fall_back(node, request, Outgoing { alike, ..outgoing(reason) }, view)
            }
            Decision::Send { node, reason } => {
                let step = self.send_to_replica(node, request, outgoing(reason), &stamps, view);
                let fresh = reason == Reason::Fresh && matches!(step, Step::Done);
                self.remember_route(node, (policy_id, policy), view, fresh);
                self.cache_route(request, intent, (&*view.policies, policy), commands);
                step
            }
            Decision::Try { node, need } => {
                let outgoing = Outgoing { need: Some(need), ..outgoing(Reason::Fresh) };
                self.send_on_hope(node, request, outgoing, &stamps, view)
            }
            Decision::Wait { .. } => self.wait_for_anchor(policy.wait_timeout, now),
            Decision::Refuse { reason } => self.wait_or_refuse(reason, view, now),
        }
    }

    /// Nobody may answer the read now. A short failover is not seen.
    fn wait_or_refuse(&mut self, reason: Reason, view: &View, now: Moment) -> Step {
        if reason == Reason::PrimaryDown && self.awaits_primary(view, now) {
            return self.wait(On::View, view.hold, now);
        }
        self.refuse(telemetry::AccessLabel::Read, reason)
    }

    /// Where reads look at no fences the session counts itself what it has written, from the beginning, or since the first
    /// policy of that level came with another configuration.
    fn count_own(&self, policy: &Policy) {
        if policy.consistency == Consistency::Session
            && !self.client.with(self.worker.shard).counts_own.replace(true)
        {
            let next = self.worker.shared.shard().anchors.next();
            self.client.session(self.worker.shard).borrow_mut().seen.count_own(next);
        }
    }

    /// With what is demanded for the hash slot of the key.
    fn with_floor(&self, demand: Demand, policy: &Policy, now: Moment) -> Demand {
        if policy.consistency == Consistency::Strong && !self.is_owner_confirmed() {
            return Demand::Unknown(Reason::BarrierPending);
        }
        if policy.consistency >= Consistency::Bounded
            && self.worker.shared.shard().is_unconfirmed_for(policy.max_lag, now)
        {
            return Demand::Unknown(Reason::SlotMoving);
        }
        self.floor.and(demand)
    }

    /// Whether the primary has said that the slot of the key is its own in answer to a question that was sent after the read had
    /// arrived: what another one has acknowledged before then would be older. If not, it is asked.
    fn is_owner_confirmed(&self) -> bool {
        let shared = &self.worker.shared;
        let Some(cluster) = shared.cluster().filter(|_| !mutant::is("owner-unconfirmed")) else {
            return true;
        };
        let since = self.waiting.barrier_since();
        let confirmed = since.is_some_and(|since| shared.shard().is_confirmed_since(since));
        // Its answer may have changed what was looked at before.
        let is_known = confirmed && cluster.generation() == self.map;
        if !is_known {
            cluster.look();
        }
        is_known
    }

    /// The primary, if it has been waited for long enough that it says that the slot is still its own, by this read or by another
    /// that had arrived with it: then it is asked itself.
    fn owner_instead(&mut self, policy: &Policy, view: &View, now: Moment) -> Option<NodeId> {
        if policy.consistency < Consistency::Strong || self.is_owner_confirmed() {
            return None;
        }
        if self.waiting.has_lasted(policy.wait_timeout, now) {
            self.waiting.give_up_on_owner();
        }
        view.usable_primary(now).filter(|_| self.waiting.has_given_up_on_owner())
    }

    /// Waits for what the nodes say, the primary first.
    fn wait_for_anchor(&mut self, patience: Duration, now: Moment) -> Step {
        self.worker.shared.shard().anchor_wanted.notify_one();
        self.wait(On::Nodes, patience, now)
    }

    /// Sends a read to the primary that no replica may serve, if that takes any more of those.
    fn fall_back(&mut self, node: NodeId, request: &Request<'_>, outgoing: Outgoing, view: &View) -> Step {
        let worker = Rc::clone(&self.worker);
        if !worker.primary_reads.take(outgoing.now, || worker.shared.primary_reads()) {
            return self.refuse_at_limit();
        }
        let step = self.send(node, Bytes::Request(request), outgoing, view);
        if !matches!(step, Step::Done) {
            // It comes again.
            worker.primary_reads.give_back();
        }
        step
    }

    /// How long a read of what the session keeps reading at the primary had better wait for a replica, which will have it by
    /// then: each time that the primary answers it the session sees what is newer, which no replica has yet, and so on for
    /// ever. One that is further behind than `wait-timeout` is waited for once in a while: a wait that pays.
    fn pays_to_wait(
        &self,
        policy: &Policy,
        demand: Demand,
        subject: &Subject,
        view: &View,
        now: Moment,
    ) -> Option<Duration> {
        let Demand::Applied(offset, Reason::BelowSession) = demand else { return None };
        let session = self.client.session(self.worker.shard).borrow();
        if subject.any || !subject.slots.iter().any(|slot| session.seen.is_kept_at_primary(*slot)) {
            return None;
        }
        if mutant::is("kept-at-primary") {
            return None;
        }
        let left = view.catches_up_in(offset, now)?;
        if left <= limits::RETRY_PAUSE {
            // It is asked for behind a proof.
            return None;
        }
        let usual = policy.wait_timeout;
        if left <= usual && !self.waiting.has_lasted(usual, now) {
            return Some(usual);
        }
        self.routing.comes_back(left, now)
    }

    /// The same clock, the same view: of the next read only what its key demands can make a difference.
    fn remember_route(&mut self, node: NodeId, (id, policy): (PolicyId, &Policy), view: &View, fresh: bool) {
        let applied = view.node(node).and_then(|node| node.applied).filter(|_| fresh);
        self.routing.cache(applied.map(|applied| CachedRoute { policy: id, node, applied }));
        if let Some(applied) = applied {
            self.worker.snapshot.found_fit(view, id, policy, node, applied);
        }
    }

    /// Sends a read to a replica that has yet to prove that it is fresh enough: until then nobody knows who will answer it.
    fn send_on_hope(
        &mut self,
        node: NodeId,
        request: &Request<'_>,
        outgoing: Outgoing,
        stamps: &Stamps,
        view: &View,
    ) -> Step {
        let (seq, oldest) = self.client.next_and_oldest();
        let step = self.send_to_replica(node, request, outgoing, stamps, view);
        if let (Step::Done, Some(slots)) = (&step, stamps.slots()) {
            self.client.session(self.worker.shard).borrow_mut().reads_ahead(seq, slots, None, oldest);
        }
        step
    }

    /// Decides, and says whether the connection had better move to another replica.
    fn weigh(
        &self,
        policy: &Policy,
        policy_id: PolicyId,
        demand: Demand,
        view: &View,
        now: Moment,
    ) -> (Decision, bool) {
        self.with_ask(policy, policy_id, demand, view, now, |ask| {
            let serves = |node: &Node| view.primary != Some(node.id) && judge(node, ask).is_ok();
            let keyed = policy.consistency >= Consistency::Session;
            let better = self.routing.is_better_elsewhere(&self.worker.load, ask, keyed, serves);
            (decide(ask), better)
        })
    }

    /// Puts the question that a read is decided by.
    pub fn with_ask<T>(
        &self,
        policy: &Policy,
        policy_id: PolicyId,
        demand: Demand,
        view: &View,
        now: Moment,
        then: impl FnOnce(&Ask<'_>) -> T,
    ) -> T {
        let waited = self.waiting.has_lasted(policy.wait_timeout, now);
        let mut proofs = self.worker.proofs.borrow_mut();
        proofs.renew(view, now);
        // While the stream is followed a barrier passes by itself, soon: no need to ask for a proof of it.
        let patient = matches!(demand, Demand::Applied(_, Reason::BarrierPending))
            && !waited
            && self.worker.shared.shard().stream.is_attached();
        let load = self.worker.load.per_node(view.nodes.len());
        let zones = view.zones.are_set();
        let in_flight = if zones { self.worker.load.commands(view.nodes.len()) } else { NodeCounts::new() };
        let bars = self.bars(view, now);
        let ask = Ask {
            view,
            policy,
            policy_id,
            demand,
            sticky: self.routing.sticky(),
            load: &load,
            in_flight: &in_flight,
            proven: proofs.proven(),
            in_doubt: proofs.in_doubt(),
            barred: &bars,
            may_try: if patient { &[] } else { proofs.may_try() },
            now,
            tie: self.worker.roll(),
            waited,
            avoid: None,
        };
        then(&ask)
    }

    /// Whether this takes the connection to another replica.
    fn moves(&self, decision: Decision, view: &View) -> bool {
        match decision {
            Decision::Send { node, .. } | Decision::Try { node, .. } if view.primary != Some(node) => {
                self.routing.sticky().is_some_and(|sticky| sticky != node)
            }
            _ => false,
        }
    }

    /// If its replica may have gone back since it was chosen, any replica may serve the connection from now on that has all
    /// of what was seen.
    fn leave_generation(&mut self, view: &View, now: Moment) {
        if self.worker.leave_generation(&self.client, view, now)
            && !self.client.session(self.worker.shard).borrow_mut().is_reading(self.client.oldest())
        {
            self.stick(None);
        }
    }

    /// Leaves its replica, as soon as nothing is on its way there. Another one may be behind it, so that all of what was
    /// seen comes first.
    fn move_on(&mut self, shared: &Shared) -> Result<(), Step> {
        let mut session = self.client.session(self.worker.shard).borrow_mut();
        if session.is_reading(self.client.oldest()) {
            self.routing.balance_soon();
            return Err(Step::Drain);
        }
        session.moves_on(shared.shard().anchors.next());
        drop(session);
        self.stick(None);
        Ok(())
    }

    fn send_to_replica(
        &mut self,
        node: NodeId,
        request: &Request<'_>,
        outgoing: Outgoing,
        stamps: &Stamps,
        view: &View,
    ) -> Step {
        self.stick(Some(node));
        let (seq, oldest) = self.client.next_and_oldest();
        let step = self.send(node, Bytes::Request(request), outgoing, view);
        if let (Step::Done, Some(slots)) = (&step, stamps.slots()) {
            self.client.session(self.worker.shard).borrow_mut().reads(seq, slots, node, oldest);
        }
        step
    }
}

/// Whether such reads, asked by several at the same time, have one answer.
fn are_answered_alike(intent: Intent, commands: &Commands) -> bool {
    intent.handling == Handling::Shared && commands.table.is_answered_alike(intent.id)
}

/// A read of the keys of these fences.
fn outgoing_read(
    intent: Intent,
    policy_id: PolicyId,
    policy: &Policy,
    subject: &Subject,
    reason: Reason,
    now: Moment,
) -> Outgoing {
    Outgoing {
        rewrite: match intent.handling {
            Handling::Scan { cursor } => Rewrite::Cursor { all: cursor == 1 },
            _ => Rewrite::None,
        },
        policy: policy_id,
        stamps: subject.stamps(),
        sees_all: (subject.any || subject.slots.is_empty()) && policy.consistency >= Consistency::Session,
        ..Outgoing::read(reason, now)
    }
}
