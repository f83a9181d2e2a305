//! The fast path: a command like the one before it.
//!
//! If both arrived together, nothing is different but the key: not the clock, the view, the rules of the command, the
//! policy, the node or its lane, nor what is demanded for all keys. So only the key's own fence is looked at, and what
//! the connection itself has on its way or seen of it; whoever fails that is decided from the beginning, as is every
//! command of another name. If it arrived later, those are looked at again, once for all that arrived with it
//! ([`Connection::resume_fast_path`]); what the replica is fit for is decided once per view, for all connections
//! ([`crate::shard::snapshot`]).
//!
//! **Why what holds for all keys need not be looked at again**: it was looked at after the bytes of all these commands
//! had been read, there or there. What anybody was told since then is concurrent with them. Only a table that is being emptied is
//! another one: its era, which is looked at after the fence, has changed before.

use std::rc::Rc;

use crate::core::argv::Args as _;
use crate::core::command::in_force::Commands;
use crate::core::command::{Access, Handling, Intent, WriteKeys};
use crate::core::moment::Moment;
use crate::core::nodes::view::View;
use crate::core::policy::{Consistency, Policies, Policy, PolicyId};
use crate::core::position::Offset;
use crate::core::reason::Reason;
use crate::core::repeat::PendingKind;
use crate::core::session::{Home, Stamps};
use crate::mutant;
use crate::proxy::session::connection::Connection;
use crate::proxy::session::routing::cache::{CachedRoute, FastPath};
use crate::proxy::session::step::Step;
use crate::proxy::upstream::outgoing::Bytes;
use crate::proxy::upstream::pending::{Pending, Rewrite};
use crate::telemetry::{self, Target};
use crate::wire::request::Request;

impl Connection {
    /// A read was sent where all go: the next like it may follow.
    pub(crate) fn cache_route(
        &mut self,
        request: &Request<'_>,
        intent: Intent,
        (policies, policy): (&Policies, &Policy),
        commands: &Commands,
    ) {
        let keyed = policy.consistency >= Consistency::Session;
        // A read that was tried again kept its barrier, which is none for what arrived meanwhile.
        let barrier = self.waiting.has_barrier();
        let fast_path = intent.handling == Handling::Shared
            && (policy.consistency < Consistency::Strong || barrier)
            && policies.routes.is_empty()
            && !request.is_partial()
            && (!keyed || commands.table.has_one_key(intent.id));
        let arity = commands.table.arity(intent.id).from(2);
        let route = self.routing.cached_route().filter(|_| fast_path).zip(arity);
        self.routing.follow(route.map(|(cached_route, arity)| FastPath {
            command: intent.id,
            arity,
            version: commands.version,
            node: cached_route.node,
            keyed,
            read: Some(cached_route),
        }));
    }

    /// A write was sent to the primary: the next like it may follow.
    pub(crate) fn cache_route_of_writes(
        &mut self,
        request: &Request<'_>,
        intent: Intent,
        view: &View,
        commands: &Commands,
        now: Moment,
    ) {
        let Access::Write { keys } = intent.access else { return };
        let fast_path = intent.handling == Handling::Shared
            && keys != WriteKeys::Unknowable
            && !request.is_partial()
            && commands.table.writes_one_key(intent.id);
        let keyed = self.worker.shared.fencing;
        let arity = commands.table.arity(intent.id).from(2);
        let primary = view.usable_primary(now).filter(|_| fast_path).zip(arity);
        self.routing.follow(primary.map(|(node, arity)| FastPath {
            command: intent.id,
            arity,
            version: commands.version,
            node,
            keyed,
            read: None,
        }));
    }

    /// More has arrived. What is the same for all that comes with it is looked at once more; only what depends on the
    /// view and the clock alone is known from others that have come since either changed.
    #[allow(clippy::inline_always, reason = "measured: 3 % of the instructions of a small command")]
    #[inline(always)]
    pub(crate) fn resume_fast_path(&mut self, view: &View, commands: &Commands, now: Moment) {
        self.routing.cache(None);
        let Some(fast_path) = self.routing.fast_path() else { return };
        let same = fast_path.version == commands.version
            && self.pin.is_none()
            && !self.waiting.has_begun()
            && !self.is_unauthenticated()
            && self.lanes.keeps(fast_path.node, &self.client);
        let Some(route) = fast_path.read else {
            let goes_on = same
                && view.usable_primary(now) == Some(fast_path.node)
                && !self.routing.owes_another_primary(fast_path.node, self.client.oldest())
                && self.worker.held.is_empty();
            if !goes_on {
                self.routing.follow(None);
            }
            return;
        };
        let applied = if same { self.still_applied(route, view, now) } else { None };
        self.routing.resume(applied);
    }

    /// What the replica of this route has applied, if it may go on to serve what arrives now.
    #[allow(clippy::inline_always, reason = "measured: 1 % of the instructions of a small command")]
    #[inline(always)]
    fn still_applied(&mut self, route: CachedRoute, view: &View, now: Moment) -> Option<Offset> {
        if self.routing.sticky() != Some(route.node)
            || self.routing.is_to_balance(now)
            || self.is_barred(route.node, view, now)
            || self.worker.shared.shard().reads_are_paused(now)
        {
            return None;
        }
        let shared = &self.worker.shared;
        // Of another edition it is decided anew.
        let policy = view.policies.get(route.policy)?;
        if policy.consistency >= Consistency::Bounded
            && shared.shard().is_unconfirmed_for(policy.max_lag, now)
        {
            return None;
        }
        let (writes, session) =
            (shared.shard().writes(view), self.client.session(self.worker.shard).borrow());
        let generation = self.worker.proofs.borrow().generation(route.node);
        let present = Home { node: route.node, generation };
        let fit = self.worker.snapshot.fit(route.policy, route.node, now);
        fit.filter(|applied| writes.may_resume(&session, present, policy.consistency, *applied))
    }

    /// Sends a command after the one before it. `None`: it has to be decided.
    #[allow(clippy::inline_always, reason = "measured: 2 % of the instructions of a small command")]
    #[inline(always)]
    pub(crate) fn follow_fast_path(
        &mut self,
        request: &Request<'_>,
        intent: Intent,
        view: &View,
        now: Moment,
    ) -> Option<Step> {
        // `XREAD` blocks or does not, as its arguments say.
        let shared = intent.handling == Handling::Shared;
        let fast_path =
            self.routing.fast_path().filter(|fast_path| shared && fast_path.command == intent.id).copied()?;
        let lane = self.lanes.last_to(fast_path.node)?;
        if request.is_partial() || !fast_path.arity.allows(request.count()) || !lane.has_room() {
            return None;
        }
        let stamps = if fast_path.keyed {
            Stamps::One(self.worker.shared.shard().fences.slot(request.arg(1)))
        } else {
            Stamps::None
        };
        if !self.may_follow(fast_path, &stamps, view) {
            return None;
        }
        let (access, target, reason) = match fast_path.read {
            Some(_) => (telemetry::AccessLabel::Read, Target::Replica, Reason::Fresh),
            None => (telemetry::AccessLabel::Write, Target::Primary, Reason::Write),
        };
        self.worker.stats.command(access, target, reason);
        if fast_path.read.is_none() {
            self.routing.went_to_primary(fast_path.node, self.client.next());
        }
        let pending = Pending {
            client: Rc::clone(&self.client),
            seq: self.client.open(),
            shard: self.worker.shard,
            len: 0,
            access,
            kind: if fast_path.read.is_some() { PendingKind::Read } else { PendingKind::Write },
            rewrite: Rewrite::None,
            policy: fast_path.read.map_or_else(PolicyId::default, |cached_route| cached_route.policy),
            stamps,
            at_primary: fast_path.read.is_none(),
            sees_all: false,
            expected: self.expected,
            need: None,
            void: false,
            redirected: 0,
            shares: false,
            begun: now,
            sent: now,
        };
        lane.push(Bytes::Request(request), pending);
        Some(Step::Done)
    }

    /// Whether the key makes no difference. If so, the session takes the command as sent.
    #[allow(clippy::inline_always, reason = "measured: 2 % of the instructions of a small command")]
    #[inline(always)]
    fn may_follow(&self, fast_path: FastPath, stamps: &Stamps, view: &View) -> bool {
        // Where no key matters there is nothing to be remembered of one.
        let Stamps::One(slot) = stamps else { return true };
        let (seq, oldest) = self.client.next_and_oldest();
        let mut session = self.client.session(self.worker.shard).borrow_mut();
        let Some(cached_route) = fast_path.read else {
            let waits = session.overtakes(stamps, oldest) && !mutant::is("followed-blindly");
            if !waits {
                session.sent(seq, stamps, oldest);
            }
            return !waits;
        };
        let writes = self.worker.shared.shard().writes(view);
        let level = || level_of(view, cached_route.policy);
        let free = writes.may_follow(&mut session, (*slot, level), cached_route.applied, oldest);
        if free {
            session.reads_key(seq, *slot, cached_route.node, oldest);
        }
        free
    }
}

/// The level of a policy that is in force.
fn level_of(view: &View, policy: PolicyId) -> Consistency {
    // One that is not is followed by no route.
    view.policies.get(policy).map_or(Consistency::Strong, |policy| policy.consistency)
}
