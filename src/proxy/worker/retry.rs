//! What becomes of a command whose node could not answer it, or whose lane was lost: reads are repeated elsewhere,
//! writes are never sent twice.

use std::rc::Rc;

use bytes::BytesMut;

use crate::core::command::alone::alone;
use crate::core::command::in_force::Commands;
use crate::core::command::{Access, Intent};
use crate::core::demand::{Reader, Subject};
use crate::core::moment::Moment;
use crate::core::nodes::node::NodeId;
use crate::core::nodes::view::View;
use crate::core::reason::Reason;
use crate::core::repeat::{self, Asked, Fate, HowLost, PendingKind};
use crate::core::route::{Ask, decide};
use crate::core::slots::Floor;
use crate::core::slots::{About, Expected, about};
use crate::mutant;
use crate::net::runtime::clock;
use crate::net::runtime::limits;
use crate::net::runtime::task;
use crate::proxy::downstream::replies::Gone;
use crate::proxy::upstream::lane::{Closed, Lane, LaneKey, Leftover, Phase, Purpose, Withdrawal};
use crate::proxy::upstream::pending::Pending;
use crate::proxy::worker::Worker;
use crate::proxy::worker::held::HeldCommand;
use crate::shard::identity::IdentityId;
use crate::wire::alone as wire;
use crate::wire::request::{Request, RequestLimits, RequestScanner, Scan};
use crate::wire::say;

/// Why a read is asked again elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepeatedFor {
    /// It was not answered at all: of those no more are asked for than the budget has, and the others are answered that.
    Loss,
    /// Its node could not answer it.
    Inability,
    /// A replica of a cluster says that there is no such key. So may another one, which would make it no truer.
    Absence,
}

impl Worker {
    /// A replica could not answer a read: asks the primary instead, or, when that does not answer either, another
    /// replica that may serve it. Gives the command back when nobody can be asked.
    pub fn repeat(
        self: &Rc<Self>,
        mut pending: Pending,
        request: &[u8],
        failed: &Lane,
        why: RepeatedFor,
    ) -> Result<(), Pending> {
        self.fencing.stamp_fresh();
        let before = pending.session().borrow().repeats_at(pending.seq, &pending.stamps);
        let node = match before {
            // What it was then it may be no longer: the first of them is not answered, or lost.
            Some(node) => node.filter(|node| *node != failed.key.node && self.is_primary(*node)),
            None if why == RepeatedFor::Absence => {
                self.shared.shard().view.load().usable_primary(clock::now())
            }
            None => self.elsewhere(&pending, request, failed),
        };
        let Some(node) = node.filter(|node| *node != failed.key.node) else { return Err(pending) };
        // What a replica has answered, without being able to, makes no storm: it was sent on hope, or needs a script.
        if (why == RepeatedFor::Loss || mutant::is("answers-cost")) && !self.may_repeat(&pending) {
            return Ok(());
        }
        if pending.kind == PendingKind::Read {
            pending.kind = PendingKind::Final;
        }
        (pending.need, pending.void) = (None, false);
        pending.at_primary = self.is_primary(node);
        remember_repeat(&pending, node);
        self.stats.repeated_reads.add(1);
        self.lane(LaneKey { node, ..failed.key }).push_bytes(request, pending);
        Ok(())
    }

    /// Whether one more read may be sent again. It is answered if not.
    fn may_repeat(&self, pending: &Pending) -> bool {
        let granted = self.repeats.borrow_mut().take(clock::now(), self.stats.reads());
        if !granted {
            self.stats.unrepeated_reads.add(1);
            pending.client.deliver(pending.seq, say::REPEAT_LIMIT, true);
        }
        granted
    }

    /// Who else may answer a read that `failed` could not: decided anew, from the bytes that were sent.
    fn elsewhere(&self, pending: &Pending, request: &[u8], failed: &Lane) -> Option<NodeId> {
        let user = user_of(failed);
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
        // Under policies that came after it was sent nobody but the primary may answer it.
        let policy = view.policies.get(pending.policy)?;
        pending.session().borrow_mut().forget(pending.client.oldest());
        self.leave_generation(&pending.client, &view, now);
        let reader = Reader {
            policy: pending.policy,
            user: "",
            name: "",
            session: Some(pending.session()),
            barrier: None,
        };
        let demand = shared.shard().demand(
            &reader,
            policy.consistency,
            (&request, intent),
            (&view, &commands),
            &mut Subject::default(),
        );
        let floor = self.floor_of(&request, intent, &view, &commands);
        if floor == Floor::PRIMARY {
            return None;
        }
        let demand = floor.and(demand);
        let home = pending.session().borrow().home.map(|home| home.node);
        let decision = decide(&Ask {
            view: &view,
            policy,
            policy_id: pending.policy,
            demand,
            sticky: home,
            load: &self.load.per_node(view.nodes.len()),
            in_flight: &[],
            proven: &[],
            in_doubt: self.proofs.borrow().in_doubt(),
            barred: &self.shut_out.bars(identity, &user, &view, now),
            may_try: &[],
            now,
            tie: self.roll(),
            waited: true,
            avoid: Some(failed),
        });
        let primary = view.usable_primary(now);
        let next = repeat::elsewhere(decision, &view, failed, policy.consistency, (home, primary))?;
        if next.sees_everything {
            pending.session().borrow_mut().seen.everything(shared.shard().anchors.next());
        }
        Some(next.node)
    }

    /// What is demanded for the hash slot of a read.
    fn floor_of(&self, request: &Request<'_>, intent: Intent, view: &View, commands: &Commands) -> Floor {
        let Some(cluster) = self.shared.cluster() else { return Floor::NONE };
        match about(request, intent, &commands.table) {
            About::Slot { slot, expected } if expected != Expected::Unseen => {
                let place = cluster.place(slot);
                if place.owner == Some(self.shard) {
                    cluster.floor((slot, place), &self.shared, view, None)
                } else {
                    Floor::PRIMARY
                }
            }
            About::Slot { .. } | About::Nothing | About::Several => Floor::PRIMARY,
        }
    }

    /// What a lane that ended still owed.
    pub fn recover(self: &Rc<Self>, lane: &Rc<Lane>, why: &Closed) {
        if let Closed::Desynchronised(what) = why {
            self.stats.desynchronised.add(1);
            let node = self.node_name(lane.key.node);
            tracing::warn!(
                "a connection to {node} was closed, because it got out of step: {}",
                what.as_str()
            );
        }
        if let Closed::Refused(error) = why
            && !self.is_primary(lane.key.node)
            // Of a database that there is not: its user may read in others.
            && !error.starts_with(say::DB_OUT_OF_RANGE)
        {
            self.shut_out.refused(lane, why, &self.shared.shard().view.load());
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
                    lane.refuse_relay(&client, &[error, &b"\r\n"[..]].concat());
                }
                Closed::Refused(_) => {}
                _ => client.end(),
            }
        }
    }

    /// Where a node is, for the log.
    pub(crate) fn node_name(&self, node: NodeId) -> String {
        self.shared.shard().address(node).map_or_else(String::new, |address| address.to_string())
    }

    fn recover_one(self: &Rc<Self>, lane: &Rc<Lane>, why: &Closed, left: Leftover) {
        let Leftover { pending, request, sent, cut } = left;
        if cut && !mutant::is("lost-half-repeated") {
            // Whatever came now would be taken for the rest of that reply.
            return pending.client.leave(Gone::Ended);
        }
        if !lane.exclusive
            && !matches!(why, Closed::Refused(_))
            && let Some(reply) = self.answer_alone(lane, &request)
        {
            // Nobody needs a node for that.
            pending.client.deliver(pending.seq, &reply, true);
            return;
        }
        let asked = Asked { at_primary: self.is_primary(lane.key.node), ..pending.asked() };
        let (loss, words) = match why {
            Closed::Refused(error) => (HowLost::Refused, [error, &b"\r\n"[..]].concat()),
            Closed::Unreachable(_) => (HowLost::Unreachable, Vec::new()),
            _ => (HowLost::Broken, Vec::new()),
        };
        let (error, pending) = match repeat::after_loss(asked, lane.exclusive, sent, loss) {
            Fate::ElsewhereOrWords => match self.repeat(pending, &request, lane, RepeatedFor::Loss) {
                Ok(()) => return,
                Err(pending) => (words, pending),
            },
            Fate::Words => (words, pending),
            Fate::Again => match self.repeat_after_loss(pending, &request, lane, why) {
                Ok(()) => return,
                Err(pending) => return self.hold_lost(lane, why, (request, sent), pending),
            },
            Fate::Held => return self.hold_lost(lane, why, (request, sent), pending),
            Fate::Uncertain => {
                self.stats.uncertain_writes.add(1);
                (say::UNCERTAIN.to_vec(), pending)
            }
            Fate::Refused => (self.masterdown(&pending.client, Reason::PrimaryDown), pending),
            Fate::Lost => (say::LOST.to_vec(), pending),
        };
        if lane.exclusive && !matches!(why, Closed::Refused(_)) {
            // The connection's state went with it; going on would pretend that it is still there.
            pending.client.end();
        }
        if lane.key.identity == IdentityId::ANONYMOUS && why.is_about_credentials() && !lane.exclusive {
            // Who has kept its connections to the primary stays in, as on Redis; this one has lost its own.
            pending.client.status.put_out(clock::now());
        }
        pending.client.deliver(pending.seq, &error, true);
    }

    /// The reply to what needs no server, if the user may have it.
    fn answer_alone(&self, lane: &Lane, request: &[u8]) -> Option<Vec<u8>> {
        let mut scanner = RequestScanner::new(RequestLimits::DEFAULT);
        let Ok(Scan::Command { .. }) = scanner.scan(request) else { return None };
        let request = scanner.request(request);
        let (which, user) = (alone(&request)?, user_of(lane));
        let allowed = self.shared.shard().view.load().rights.allow_alone(user.as_bytes(), which);
        if allowed { wire::answer(&request, clock::unix()) } else { None }
    }

    /// Holds a command whose lane was lost before its node can have executed it, or, `sent`, that only reads.
    fn hold_lost(
        self: &Rc<Self>,
        lane: &Lane,
        why: &Closed,
        (request, sent): (BytesMut, bool),
        mut pending: Pending,
    ) {
        pending.kind = pending.kind.again(sent);
        let since = match why {
            // It has waited since then for a node that was not there.
            Closed::Unreachable(_) | Closed::Withdrawn(Withdrawal::Silent) => pending.sent,
            _ => clock::now(),
        };
        let hasty = mutant::is("held-writes-refused") && matches!(why, Closed::Unreachable(_));
        if hasty || self.is_hopeless(&pending) {
            return self.refuse(&pending);
        }
        self.hold(HeldCommand { since, key: lane.key, request, pending, refusal: None });
    }

    /// Whether a read waits for nothing: no primary is in sight. It is refused at once; whoever writes waits all the same.
    fn is_hopeless(&self, pending: &Pending) -> bool {
        pending.kind != PendingKind::Write && !self.shared.shard().view.load().awaits_primary(clock::now())
    }

    /// What a node has answered after it had ceased to be the primary: it has refused a write, in these words, of which it has
    /// executed nothing, or has answered a read. Both go to the next primary, after whatever was held before them; and so
    /// does a read that a replica could not answer while there is no primary.
    pub(crate) fn ask_successor(
        self: &Rc<Self>,
        lane: &Rc<Lane>,
        mut pending: Pending,
        request: BytesMut,
        refusal: Option<&[u8]>,
    ) {
        let now = clock::now();
        let mut kept = None;
        if let Some(words) = refusal {
            self.stats.refused_writes.add(1);
            if self.insists(lane, now) {
                pending.client.deliver(pending.seq, words, true);
                return;
            }
            self.depose(lane, now);
            // It waits from now on: what it has waited there, in a pause, was for its node.
            pending.sent = now;
            // A script may say so itself, of a primary, after it was executed.
            kept = (lane.key.purpose == Purpose::Scripts).then(|| words.into());
        } else if self.is_hopeless(&pending) {
            return self.refuse(&pending);
        }
        self.hold(HeldCommand { since: now, key: lane.key, request, pending, refusal: kept });
    }

    /// Whether a node goes on refusing writes although it says each time that it is the primary: whoever answers there, nobody
    /// can tell better. It would be asked for ever.
    fn insists(&self, lane: &Lane, now: Moment) -> bool {
        let node = lane.key.node;
        let lately = |(of, at): (NodeId, Moment)| {
            of == node && now.since(at) < self.shared.config().upstream.write_hold
        };
        if !self.deposed.get().is_some_and(lately) {
            self.depositions.set(0);
        }
        self.depositions.get() >= limits::DEPOSITIONS && self.is_primary(node)
    }

    /// A node has refused a write because it is a replica now. Whatever is behind that on its lanes is not to be believed, and
    /// it is asked for nothing more until it was heard again.
    pub(crate) fn depose(&self, lane: &Rc<Lane>, now: Moment) {
        let node = lane.key.node;
        self.deposed.set(Some((node, now)));
        if lane.demoted.get() {
            return;
        }
        self.depositions.set(self.depositions.get() + 1);
        self.shared.shard().attention.look_now();
        if lane.key.purpose != Purpose::Scripts {
            self.lanes.each_shared(|lane| {
                if lane.key.node == node {
                    self.demote(lane);
                }
            });
        }
        // It may be in no pool any longer.
        self.demote(lane);
    }

    /// Asks the lane's node for nothing more. The lane ends when it has answered, and after a while even if it has not.
    pub(crate) fn demote(&self, lane: &Rc<Lane>) {
        if lane.demoted.get() || matches!(lane.phase(), Phase::Closed(_)) {
            return;
        }
        if lane.phase() == Phase::Opening || lane.owes_nothing() {
            return lane.close(Closed::Withdrawn(Withdrawal::Demoted));
        }
        lane.demote();
        let (lane, patience) = (Rc::clone(lane), self.shared.config().upstream.probe_timeout);
        task::spawn_local("demoted lane", async move {
            tokio::time::sleep(patience).await;
            // A long reply comes as fast as its client takes it; the lane ends with that.
            if !lane.is_in_mid_reply() {
                lane.close(Closed::Withdrawn(Withdrawal::Demoted));
            }
        });
    }

    /// Nobody can answer it.
    pub(crate) fn refuse(&self, pending: &Pending) {
        let error = self.masterdown(&pending.client, Reason::PrimaryDown);
        pending.client.deliver(pending.seq, &error, true);
    }

    /// Holds a command until there is a primary, or `write-hold` has passed.
    pub(crate) fn hold(self: &Rc<Self>, command: HeldCommand) {
        let patience = self.shared.config().upstream.write_hold;
        if clock::now().since(command.since) >= patience || self.shared.shard().view.load().two_primaries {
            return self.refuse(&command.pending);
        }
        let first = self.held.push(command);
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
        self.hand_over_held();
        let Some(node) = self.successor() else { return };
        for HeldCommand { key, request, mut pending, refusal, .. } in self.held.take() {
            if pending.client.gone().is_some() {
                continue;
            }
            if let Some(reply) = refusal.filter(|_| self.deposed.get().is_some_and(|(of, _)| of == node)) {
                // It is the primary after all, so that this was what the script had to say.
                pending.client.deliver(pending.seq, &reply, true);
                continue;
            }
            (pending.at_primary, pending.need, pending.void) = (true, None, false);
            if pending.kind != PendingKind::Write {
                remember_repeat(&pending, node);
                self.stats.repeated_reads.add(1);
            }
            self.lane(LaneKey { node, ..key }).push_bytes(&request, pending);
        }
    }

    /// What is held here and belongs to another shard by now goes there.
    fn hand_over_held(self: &Rc<Self>) {
        if self.shared.cluster().is_none() {
            return;
        }
        let elsewhere =
            |command: &HeldCommand| self.owner_of(&command.request).is_some_and(|owner| owner != self.shard);
        for HeldCommand { key, request, pending, .. } in self.held.take_if(elsewhere) {
            if pending.client.gone().is_none() {
                self.send_to_owner(pending, &request, key);
            }
        }
    }

    /// The primary, unless it is the one that has said itself that it is none any longer, and has not been heard since.
    fn successor(&self) -> Option<NodeId> {
        let view = self.shared.shard().view.load();
        let node = view.usable_primary(clock::now())?;
        let heard = view.node(node)?.heard_at;
        let deposed =
            self.deposed.get().is_some_and(|(of, at)| of == node && heard.is_none_or(|heard| heard <= at));
        (!deposed).then_some(node)
    }

    /// Refuses what has been held for too long, until nothing is held.
    async fn give_up_held(self: Rc<Self>) {
        loop {
            let patience = self.shared.config().upstream.write_hold;
            let overdue = self.held.overdue(patience).await;
            if overdue.is_empty() {
                return;
            }
            for command in overdue {
                self.refuse(&command.pending);
            }
        }
    }

    /// A read whose lane was lost: elsewhere if there is an elsewhere, else once more on a new connection.
    fn repeat_after_loss(
        self: &Rc<Self>,
        pending: Pending,
        request: &[u8],
        lane: &Rc<Lane>,
        why: &Closed,
    ) -> Result<(), Pending> {
        let mut pending = match self.repeat(pending, request, lane, RepeatedFor::Loss) {
            Ok(()) => return Ok(()),
            Err(pending) => pending,
        };
        let usable = self.shared.shard().view.load().usable_primary(clock::now()) == Some(lane.key.node);
        if !usable || matches!(why, Closed::Unreachable(_)) || !self.held.is_empty() {
            return Err(pending);
        }
        if !self.may_repeat(&pending) {
            return Ok(());
        }
        pending.kind = pending.kind.again(true);
        remember_repeat(&pending, lane.key.node);
        self.stats.repeated_reads.add(1);
        self.lane(lane.key).push_bytes(request, pending);
        Ok(())
    }
}

/// As whom the commands of a lane run.
fn user_of(lane: &Lane) -> String {
    lane.identity.as_ref().map_or_else(|| "default".to_owned(), |identity| identity.user())
}

/// Reads of its keys go after a read that is sent again, to `node`.
fn remember_repeat(pending: &Pending, node: NodeId) {
    let (next, oldest) = pending.client.next_and_oldest();
    pending.session().borrow_mut().repeats(next.saturating_sub(1), &pending.stamps, node, oldest);
}
