//! The beaten path: a command like the one before it.
//!
//! If both arrived together, nothing is different but the key: not the clock, the view, the rules of the command, the
//! policy, the node or its lane, nor what is demanded for all keys. So only the key's own fence is looked at, and what
//! the connection itself has on its way or seen of it; whoever fails that is decided from the beginning, as is every
//! command of another name. If it arrived later, those are looked at again, once for all that arrived with it
//! ([`Connection::resume_path`]); what the replica is fit for is decided once per view, for all connections
//! ([`crate::shard::snapshot`]).
//!
//! **Why what holds for all keys need not be looked at again**: it was looked at after the bytes of all these commands
//! had been read, there or there. What anybody was told since then is concurrent with them. Only a table that is being emptied is
//! another one: its era, which is looked at after the fence, has changed before.

use std::rc::Rc;

use crate::core::argv::Args as _;
use crate::core::command::vocabulary::Vocabulary;
use crate::core::command::{Access, Handling, Intent, WriteKeys};
use crate::core::moment::Moment;
use crate::core::nodes::view::View;
use crate::core::policy::{Consistency, Policy, PolicyId};
use crate::core::reason::Reason;
use crate::core::session::{Home, Stamps};
use crate::mutant;
use crate::proxy::session::connection::{Connection, Step};
use crate::proxy::session::route_cache::{Alike, Beaten};
use crate::proxy::upstream::outgoing::Bytes;
use crate::proxy::upstream::pending::{Kind, Pending, Rewrite};
use crate::telemetry::{self, Target};
use crate::wire::request::Request;

impl Connection {
    /// A read was sent where all go: the next like it may follow.
    pub(crate) fn beat_path(
        &mut self,
        request: &Request<'_>,
        intent: Intent,
        policy: &Policy,
        vocabulary: &Vocabulary,
    ) {
        let keyed = policy.consistency >= Consistency::Session;
        // A read that was tried again kept its barrier, which is none for what arrived meanwhile.
        let barrier = self.barrier.is_some_and(|(_, arrival)| arrival == self.arrivals);
        let alike = intent.handling == Handling::Shared
            && (policy.consistency < Consistency::Strong || barrier)
            && self.worker.shared.config.policies.routes.is_empty()
            && !request.is_partial()
            && (!keyed || vocabulary.table.has_one_key(intent.id));
        let arity = vocabulary.table.arity(intent.id).from(2);
        self.alike = self.beaten.filter(|_| alike).zip(arity).map(|(beaten, arity)| Alike {
            command: intent.id,
            arity,
            version: vocabulary.version,
            node: beaten.node,
            keyed,
            read: Some(beaten),
        });
    }

    /// A write was sent to the primary: the next like it may follow.
    pub(crate) fn beat_path_of_writes(
        &mut self,
        request: &Request<'_>,
        intent: Intent,
        view: &View,
        vocabulary: &Vocabulary,
        now: Moment,
    ) {
        let Access::Write { keys } = intent.access else { return };
        let alike = intent.handling == Handling::Shared
            && keys != WriteKeys::Unknowable
            && !request.is_partial()
            && vocabulary.table.writes_one_key(intent.id);
        let keyed = self.worker.shared.fencing;
        let arity = vocabulary.table.arity(intent.id).from(2);
        self.alike = view.usable_primary(now).filter(|_| alike).zip(arity).map(|(node, arity)| Alike {
            command: intent.id,
            arity,
            version: vocabulary.version,
            node,
            keyed,
            read: None,
        });
    }

    /// More has arrived. What is the same for all that comes with it is looked at once more; only what depends on the
    /// view and the clock alone is known from others that have come since either changed.
    pub(crate) fn resume_path(&mut self, view: &View, vocabulary: &Vocabulary, now: Moment) {
        self.beaten = None;
        let Some(alike) = self.alike.take() else { return };
        let same = alike.version == vocabulary.version
            && self.pin.is_none()
            && self.waiting_since.is_none()
            && !self.is_stranger()
            && self.keeps_lane_to(alike.node);
        let Some(beaten) = alike.read else {
            if same
                && view.usable_primary(now) == Some(alike.node)
                && !self.owes_another_primary(alike.node)
                && self.worker.held.is_empty()
            {
                self.alike = Some(alike);
            }
            return;
        };
        if !same
            || self.sticky() != Some(beaten.node)
            || self.is_to_balance(now)
            || self.is_barred(beaten.node, view, now)
            || self.worker.shared.reads_are_paused(now)
        {
            return;
        }
        let shared = &self.worker.shared;
        let Some(policy) = shared.config.policies.all.get(usize::from(beaten.policy.0)) else { return };
        let (writes, session) = (shared.writes(view), self.client.session.borrow());
        let generation = self.worker.proofs.borrow().generation(beaten.node);
        let present = Home { node: beaten.node, generation };
        self.alike = self
            .worker
            .present
            .fit(beaten.policy, beaten.node, now)
            .filter(|applied| writes.may_resume(&session, present, policy.consistency, *applied))
            .map(|applied| Alike { read: Some(Beaten { applied, ..beaten }), ..alike });
    }

    /// Sends a command after the one before it. `None`: it has to be decided.
    pub(crate) fn follow_beaten_path(
        &mut self,
        request: &Request<'_>,
        intent: Intent,
        view: &View,
        now: Moment,
    ) -> Option<Step> {
        // `XREAD` blocks or does not, as its arguments say.
        let shared = intent.handling == Handling::Shared;
        let alike = self.alike.filter(|alike| shared && alike.command == intent.id)?;
        let (lane, _) = self.lanes.get(alike.node.index())?.as_ref()?;
        if request.is_partial() || !alike.arity.allows(request.count()) || !lane.has_room() {
            return None;
        }
        let stamps = if alike.keyed {
            Stamps::One(self.worker.shared.fences.slot(request.arg(1)))
        } else {
            Stamps::None
        };
        if !self.may_follow(alike, &stamps, view) {
            return None;
        }
        let (access, target, reason) = match alike.read {
            Some(_) => (telemetry::Access::Read, Target::Replica, Reason::Fresh),
            None => (telemetry::Access::Write, Target::Primary, Reason::Write),
        };
        self.worker.stats.command(access, target, reason);
        if alike.read.is_none() {
            self.last_at_primary = Some((alike.node, self.client.next()));
        }
        let pending = Pending {
            client: Rc::clone(&self.client),
            seq: self.client.open(),
            len: 0,
            kind: if alike.read.is_some() { Kind::Read } else { Kind::Write },
            rewrite: Rewrite::None,
            policy: alike.read.map_or_else(PolicyId::default, |beaten| beaten.policy),
            stamps,
            at_primary: alike.read.is_none(),
            sees_all: false,
            need: None,
            void: false,
            begun: now,
            sent: now,
        };
        lane.push(Bytes::Request(request), pending);
        Some(Step::Done)
    }

    /// Whether the key makes no difference. If so, the session takes the command as sent.
    fn may_follow(&self, alike: Alike, stamps: &Stamps, view: &View) -> bool {
        let (seq, oldest) = self.client.next_and_oldest();
        let mut session = self.client.session.borrow_mut();
        match (alike.read, stamps) {
            (Some(beaten), Stamps::One(slot)) => {
                let writes = self.worker.shared.writes(view);
                let free = writes.may_follow(&mut session, *slot, beaten.applied, oldest);
                if free {
                    session.reads(seq, &[*slot], beaten.node, oldest);
                }
                free
            }
            (Some(_), _) => true,
            (None, stamps) => {
                let waits = session.overtakes(stamps, oldest) && !mutant::is("beaten-blindly");
                if !waits && *stamps != Stamps::None {
                    session.sent(seq, stamps, oldest);
                }
                !waits
            }
        }
    }
}
