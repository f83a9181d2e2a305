//! Where a read goes.

use std::rc::Rc;

use crate::core::command::in_force::Commands;
use crate::core::command::{Handling, Intent};
use crate::core::demand::{Reader, Subject};
use crate::core::fence::AnchorSeq;
use crate::core::moment::Moment;
use crate::core::nodes::node::{Node, NodeId};
use crate::core::nodes::view::View;
use crate::core::policy::{Consistency, Policy, PolicyId};
use crate::core::reason::Reason;
use crate::core::route::{Ask, Decision, Demand, decide, judge};
use crate::core::session::{Follows, Stamps};
use crate::net::runtime::limits;
use crate::proxy::session::connection::{Connection, On, Step};
use crate::proxy::session::route_cache::CachedRoute;
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
        let barrier = self.barrier(shared);
        let reader = Reader { barrier: Some(barrier), ..self.reader() };
        let policy_id = reader.policy_of(&shared.config.policies, request, intent, commands);
        let Some(policy) = shared.config.policies.all.get(usize::from(policy_id.0)) else {
            return Step::Close;
        };
        let mut subject = Subject::default();
        let asked = (request, intent);
        let demand = shard.demand(&reader, policy.consistency, asked, (view, commands), &mut subject);
        let stamps = subject.stamps();
        let outgoing = |reason| outgoing_read(intent, policy_id, policy, &subject, reason, now);
        let follows = self.client.session.borrow_mut().follows(&stamps, self.client.oldest());
        match follows {
            Follows::Nothing if subject.is_keyed() && self.has_followed_enough(demand, now) => {
                shard.anchor_wanted.notify_one();
                return self.wait(On::Nodes, limits::FOLLOWED_LONGEST, now);
            }
            Follows::Nothing => {}
            Follows::To(node) if view.usable_primary(now) == Some(node) && self.may_go_on_following(now) => {
                return self.send(node, Bytes::Request(request), outgoing(Reason::BelowSession), view);
            }
            Follows::To(_) | Follows::All => return Step::Drain,
        }
        if let Some(CachedRoute { node, .. }) = self
            .cached_route
            .filter(|cached_route| cached_route.policy == policy_id && demand.is_met_by(cached_route.applied))
        {
            let step = self.send_to_replica(node, request, outgoing(Reason::Fresh), &stamps, view);
            self.cache_route(request, intent, policy, commands);
            return step;
        }
        let (decision, crowded) = self.weigh(policy, policy_id, demand, view, now);
        if crowded || self.moves(decision, view) {
            // What it has seen counts from now on: the question is another one.
            return match self.move_on(shared) {
                Ok(()) => self.read(request, intent, view, commands, now),
                Err(step) => step,
            };
        }
        match decision {
            Decision::Send { node, reason } if view.primary == Some(node) => {
                self.send(node, Bytes::Request(request), outgoing(reason), view)
            }
            Decision::Send { node, reason } => {
                let step = self.send_to_replica(node, request, outgoing(reason), &stamps, view);
                // The same clock, the same view: only what the key demands can make a difference.
                let applied = view.node(node).and_then(|node| node.applied);
                let fresh = reason == Reason::Fresh && matches!(step, Step::Done);
                self.cached_route =
                    applied.filter(|_| fresh).map(|applied| CachedRoute { policy: policy_id, node, applied });
                if let Some(cached_route) = self.cached_route {
                    worker.snapshot.found_fit(view, policy_id, policy, node, cached_route.applied);
                }
                self.cache_route(request, intent, policy, commands);
                step
            }
            Decision::Try { node, need } => {
                let outgoing = Outgoing { need: Some(need), ..outgoing(Reason::Fresh) };
                self.send_on_hope(node, request, outgoing, &stamps, view)
            }
            Decision::Wait { .. } => {
                shard.anchor_wanted.notify_one();
                self.wait(On::Nodes, policy.wait_timeout, now)
            }
            // A short failover is not seen.
            Decision::Refuse { reason: Reason::PrimaryDown } if self.awaits_primary(view, now) => {
                self.wait(On::View, view.hold, now)
            }
            Decision::Refuse { reason } => self.refuse(telemetry::AccessLabel::Read, reason),
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
            self.client.session.borrow_mut().reads_ahead(seq, slots, None, oldest);
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
            let crowded = self.is_crowded(now, view, serves);
            (decide(ask), crowded)
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
        let waited = self.waiting_since.is_some_and(|since| now.since(since) >= policy.wait_timeout);
        let mut proofs = self.worker.proofs.borrow_mut();
        proofs.renew(view, now);
        // While the stream is followed a barrier passes by itself, soon: no need to ask for a proof of it.
        let patient = matches!(demand, Demand::Applied(_, Reason::BarrierPending))
            && !waited
            && self.worker.shared.shard().stream.is_attached();
        let load = self.worker.load.per_node(view.nodes.len());
        let bars = self.bars(view, now);
        let ask = Ask {
            view,
            policy,
            policy_id,
            demand,
            sticky: self.sticky(),
            load: &load,
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

    /// Where one read of a key is always on its way, reads would follow one another for ever: after a while all that is
    /// on its way is waited for.
    fn may_go_on_following(&mut self, now: Moment) -> bool {
        let (seq, oldest) = self.client.next_and_oldest();
        let chain = self.following.filter(|(_, last)| *last >= oldest);
        let (since, _) = *self.following.insert((chain.map_or(now, |(since, _)| since), seq));
        now.since(since) <= limits::FOLLOWED_LONGEST
    }

    /// All that followed one another is answered, and nothing but an anchor is needed to get away from the primary, where
    /// each read shows what the next may not take back.
    fn has_followed_enough(&mut self, demand: Demand, now: Moment) -> bool {
        let (longest, (seq, oldest)) = (limits::FOLLOWED_LONGEST, self.client.next_and_oldest());
        // The last of them waited until all before it was answered: it is this one.
        let Some((since, _)) = self.following.filter(|(_, last)| oldest == seq && *last == seq) else {
            return false;
        };
        let span = now.since(since);
        demand == Demand::Unknown(Reason::FencePending) && span > longest && span <= 2 * longest
    }

    /// Whether this takes the connection to another replica.
    fn moves(&self, decision: Decision, view: &View) -> bool {
        match decision {
            Decision::Send { node, .. } | Decision::Try { node, .. } if view.primary != Some(node) => {
                self.sticky().is_some_and(|sticky| sticky != node)
            }
            _ => false,
        }
    }

    /// If its replica may have gone back since it was chosen, any replica may serve the connection from now on that has all
    /// of what was seen.
    fn leave_generation(&mut self, view: &View, now: Moment) {
        if self.worker.leave_generation(&self.client, view, now)
            && !self.client.session.borrow_mut().is_reading(self.client.oldest())
        {
            self.stick(None);
        }
    }

    /// Leaves its replica, as soon as nothing is on its way there. Another one may be behind it, so that all of what was
    /// seen comes first.
    fn move_on(&mut self, shared: &Shared) -> Result<(), Step> {
        let mut session = self.client.session.borrow_mut();
        if session.is_reading(self.client.oldest()) {
            self.balance_soon();
            return Err(Step::Drain);
        }
        session.moves_on(shared.shard().anchors.next());
        drop(session);
        self.stick(None);
        Ok(())
    }

    /// The anchor that a strong read waits for. All commands that had arrived with it share it; one that is being
    /// retried keeps it.
    fn barrier(&mut self, shared: &Shared) -> AnchorSeq {
        let arrivals = self.arrivals;
        let kept = self.barrier.filter(|(_, of)| *of == arrivals || self.waiting_since.is_some());
        let (barrier, _) =
            *self.barrier.insert(kept.unwrap_or_else(|| (shared.shard().anchors.next(), arrivals)));
        barrier
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
            self.client.session.borrow_mut().reads(seq, slots, node, oldest);
        }
        step
    }
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
        rewrite: if matches!(intent.handling, Handling::Scan { .. }) {
            Rewrite::Cursor
        } else {
            Rewrite::None
        },
        policy: policy_id,
        stamps: subject.stamps(),
        sees_all: (subject.any || subject.slots.is_empty()) && policy.consistency >= Consistency::Session,
        ..Outgoing::read(reason, now)
    }
}
