//! What becomes of a command whose node could not answer it, or whose lane was lost: reads are repeated once elsewhere,
//! writes are never sent twice.

use std::rc::Rc;

use bytes::BytesMut;

use crate::core::command::Access;
use crate::core::demand::{Reader, Subject};
use crate::core::nodes::node::NodeId;
use crate::core::policy::Consistency;
use crate::core::route::{Ask, Decision, decide};
use crate::mutant;
use crate::net::runtime::clock;
use crate::net::runtime::task;
use crate::proxy::downstream::replies::Gone;
use crate::proxy::upstream::lane::{Closed, Lane, LaneKey, Leftover};
use crate::proxy::upstream::pending::{Pending, PendingKind};
use crate::proxy::worker::Worker;
use crate::proxy::worker::upkeep;
use crate::shard::identity::IdentityId;
use crate::wire::request::{RequestLimits, RequestScanner, Scan};
use crate::wire::say;

impl Worker {
    /// A replica could not answer a read: asks the primary instead, or, when that does not answer either, another
    /// replica that may serve it. Gives the command back when nobody can be asked.
    pub fn repeat(
        self: &Rc<Self>,
        mut pending: Pending,
        request: &[u8],
        failed: &Lane,
    ) -> Result<(), Pending> {
        self.fencing.stamp_fresh();
        let before = pending.client.session.borrow().repeats_at(pending.seq, &pending.stamps);
        let node = match before {
            // What it was then it may be no longer: the first of them is not answered, or lost.
            Some(node) => node.filter(|node| *node != failed.key.node && self.is_primary(*node)),
            None => self.elsewhere(&pending, request, failed),
        };
        let Some(node) = node else { return Err(pending) };
        (pending.kind, pending.need, pending.void) = (PendingKind::Final, None, false);
        pending.at_primary = self.is_primary(node);
        remember_repeat(&pending, node);
        self.stats.repeated_reads.add(1);
        self.lane(LaneKey { node, ..failed.key }).push_bytes(request, pending);
        Ok(())
    }

    /// Who else may answer a read that `failed` could not: decided anew, from the bytes that were sent.
    fn elsewhere(&self, pending: &Pending, request: &[u8], failed: &Lane) -> Option<NodeId> {
        let user = failed.identity.as_ref().map_or_else(|| "default".to_owned(), |identity| identity.user());
        let (identity, failed) = (failed.key.identity, failed.key.node);
        let (shared, now) = (&self.shared, clock::now());
        let (view, commands) = (shared.shard().view.load(), shared.commands.load());
        if let Some(primary) = view.usable_primary(now).filter(|node| *node != failed)
            && view.node(primary).is_some_and(|node| node.silent_since.is_none())
        {
            return Some(primary);
        }
        let mut scanner = RequestScanner::new(RequestLimits::DEFAULT);
        let Ok(Scan::Command { .. }) = scanner.scan(request) else { return None };
        let request = scanner.request(request);
        let intent = commands.table.classify(&request);
        if intent.access != Access::Read {
            return None;
        }
        let policy = shared.config.policies.all.get(usize::from(pending.policy.0))?;
        pending.client.session.borrow_mut().forget(pending.client.oldest());
        self.leave_generation(&pending.client, &view, now);
        let reader = Reader {
            policy: pending.policy,
            user: "",
            name: "",
            session: Some(&pending.client.session),
            barrier: None,
        };
        let demand = shared.shard().demand(
            &reader,
            policy.consistency,
            (&request, intent),
            (&view, &commands),
            &mut Subject::default(),
        );
        let keyed = policy.consistency >= Consistency::Session;
        let home = pending.client.session.borrow().home.map(|home| home.node);
        let decision = decide(&Ask {
            view: &view,
            policy,
            policy_id: pending.policy,
            demand,
            sticky: home,
            load: &self.load.per_node(),
            proven: &[],
            in_doubt: self.proofs.borrow().in_doubt(),
            barred: &self.bars(identity, &user, &view, now),
            may_try: &[],
            now,
            tie: self.roll(),
            waited: true,
            avoid: Some(failed),
        });
        match decision {
            Decision::Send { node, .. } if node == failed => None,
            Decision::Send { node, .. } if view.primary == Some(node) => Some(node),
            // Another replica may be behind what this session has seen, and nobody has time to find out.
            Decision::Send { node, .. } if keyed && home.is_some_and(|home| home != node) => {
                view.usable_primary(now).filter(|node| *node != failed)
            }
            Decision::Send { node, .. } => {
                if keyed && home.is_none() {
                    pending.client.session.borrow_mut().seen.everything(shared.shard().anchors.next());
                }
                Some(node)
            }
            Decision::Try { .. } | Decision::Wait { .. } | Decision::Refuse { .. } => None,
        }
    }

    /// What a lane that ended still owed.
    pub fn recover(self: &Rc<Self>, lane: &Rc<Lane>, why: &Closed) {
        if let Closed::Desynchronised(what) = why {
            self.stats.desynchronised.add(1);
            tracing::warn!(node = %lane.key.node, what = what.as_str(), "lane closed: out of step");
        }
        if matches!(why, Closed::Refused(_)) && !self.is_primary(lane.key.node) {
            self.shut_out(lane, why);
        }
        let owed = lane.drain();
        let owes_nothing = owed.is_empty();
        for left in owed {
            if left.pending.client.gone().is_none() {
                self.recover_one(lane, why, left);
            }
        }
        self.after_lane(lane, why);
        if let Some(client) = lane.listener() {
            match why {
                Closed::Refused(error) if owes_nothing => {
                    client.push_raw(&[error, &b"\r\n"[..]].concat());
                }
                Closed::Refused(_) => {}
                _ => client.end(),
            }
        }
    }

    fn recover_one(self: &Rc<Self>, lane: &Rc<Lane>, why: &Closed, left: Leftover) {
        let Leftover { pending, request, sent, cut } = left;
        if cut && !mutant::is("lost-half-repeated") {
            // Whatever came now would be taken for the rest of that reply.
            return pending.client.leave(Gone::Ended);
        }
        let (error, pending) = match (why, pending.kind) {
            (Closed::Refused(error), PendingKind::Read)
                if !lane.exclusive && !self.is_primary(lane.key.node) =>
            {
                match self.repeat(pending, &request, lane) {
                    Ok(()) => return,
                    Err(pending) => ([error, &b"\r\n"[..]].concat(), pending),
                }
            }
            (Closed::Refused(error), _) => ([error, &b"\r\n"[..]].concat(), pending),
            (_, PendingKind::Read) if !lane.exclusive => {
                match self.repeat_after_loss(pending, &request, lane, why) {
                    Ok(()) => return,
                    Err(pending) => (say::MASTERDOWN.to_vec(), pending),
                }
            }
            (_, PendingKind::Write) if sent => {
                self.stats.uncertain_writes.add(1);
                (say::UNCERTAIN.to_vec(), pending)
            }
            (_, PendingKind::Write) if !lane.exclusive && self.may_write_elsewhere(lane, why) => {
                // Not a byte of it was executed: it goes to whoever is the primary now.
                return self.hold(lane.key, request, pending);
            }
            (Closed::Unreachable(_), _) => (say::MASTERDOWN.to_vec(), pending),
            _ => (say::LOST.to_vec(), pending),
        };
        if lane.exclusive && !matches!(why, Closed::Refused(_)) {
            // The connection's state went with it; going on would pretend that it is still there.
            pending.client.end();
        }
        if lane.key.identity == IdentityId::ANONYMOUS && upkeep::is_about_credentials(why) && !lane.exclusive
        {
            // Who has kept its connections to the primary stays in, as on Redis; this one has lost its own.
            pending.client.status.put_out(clock::now());
        }
        pending.client.deliver(pending.seq, &error, true);
    }

    /// Holds a write whose lane was lost until there is a primary, or `write-hold` has passed.
    fn hold(self: &Rc<Self>, key: LaneKey, request: BytesMut, pending: Pending) {
        let first = self.held.push(key, request, pending);
        self.release_held();
        if first && !self.held.is_empty() {
            task::spawn_local("held writes", Rc::clone(self).give_up_held());
        }
    }

    /// Sends what is held to the primary, if there is one.
    pub(crate) fn release_held(self: &Rc<Self>) {
        if self.held.is_empty() {
            return;
        }
        let Some(node) = self.shared.shard().view.load().usable_primary(clock::now()) else { return };
        for (key, request, pending) in self.held.take() {
            if pending.client.gone().is_none() {
                self.lane(LaneKey { node, ..key }).push_bytes(&request, pending);
            }
        }
    }

    /// Refuses what has been held for too long, until nothing is held.
    async fn give_up_held(self: Rc<Self>) {
        while let Some(pending) = self.held.overdue(self.shared.config.upstream.write_hold).await {
            pending.client.deliver(pending.seq, say::MASTERDOWN, true);
        }
    }

    /// Whether somebody may yet take a write that the lane has not written: not if its node is the primary, and could not
    /// be reached for as long as it was waited for.
    fn may_write_elsewhere(&self, lane: &Lane, why: &Closed) -> bool {
        let unreachable = matches!(why, Closed::Unreachable(_));
        if mutant::is("held-writes-refused") {
            return !unreachable;
        }
        // A node that was promoted while a connection to it was being made is not what it was as a replica, and reachable.
        let reached = lane.connected.get().is_some();
        let primary = self.shared.shard().view.load().primary;
        !unreachable || primary != Some(lane.key.node) || reached
    }

    /// A read whose lane was lost: elsewhere if there is an elsewhere, else once more on a new connection.
    fn repeat_after_loss(
        self: &Rc<Self>,
        pending: Pending,
        request: &[u8],
        lane: &Rc<Lane>,
        why: &Closed,
    ) -> Result<(), Pending> {
        let mut pending = match self.repeat(pending, request, lane) {
            Ok(()) => return Ok(()),
            Err(pending) => pending,
        };
        if !self.is_primary(lane.key.node) || matches!(why, Closed::Unreachable(_)) {
            return Err(pending);
        }
        pending.kind = PendingKind::Final;
        remember_repeat(&pending, lane.key.node);
        self.stats.repeated_reads.add(1);
        self.lane(lane.key).push_bytes(request, pending);
        Ok(())
    }
}

/// Reads of its keys go after a read that is sent again, to `node`.
fn remember_repeat(pending: &Pending, node: NodeId) {
    let (next, oldest) = pending.client.next_and_oldest();
    pending.client.session.borrow_mut().repeats(next.saturating_sub(1), &pending.stamps, node, oldest);
}
