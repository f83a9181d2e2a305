//! The beaten path: a read like the one before it, that arrived together with it.
//!
//! Nothing is different but the key: not the clock, the view, the rules of the command, the policy, the replica or its
//! lane, nor what is demanded for all keys. So only the key's own fence is looked at, and what the connection itself has
//! written or seen of it; whoever fails that is decided from the beginning, as is every command of another name, and
//! every first one.
//!
//! **Why what holds for all keys need not be looked at again**: it was looked at after the bytes of all these commands
//! had been read. What anybody was told since then is concurrent with them. Only a table that was emptied meanwhile is
//! another one: that shows in its era, which is looked at after the fence.

use std::rc::Rc;

use super::connection::{Connection, Step};
use super::outgoing::Bytes;
use super::pending::{Kind, Pending, Rewrite};
use super::vocabulary::Vocabulary;
use crate::core::argv::Args as _;
use crate::core::command::{CommandId, Handling, Intent};
use crate::core::moment::Moment;
use crate::core::node::NodeId;
use crate::core::policy::{Consistency, Policy, PolicyId};
use crate::core::position::Offset;
use crate::core::reason::Reason;
use crate::core::session::Stamps;
use crate::core::view::View;
use crate::telemetry::{Access, Target};
use crate::wire::request::Request;

/// Where reads go as long as nothing changes but the key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beaten {
    /// Under this policy.
    pub policy: PolicyId,
    /// To this replica.
    pub node: NodeId,
    /// What it has applied.
    pub applied: Offset,
    /// Reads by this command differ in nothing else.
    pub alike: Option<CommandId>,
    /// The fence of the key matters to them.
    pub keyed: bool,
}

impl Beaten {
    /// For the next read, whatever it is, if what it demands is not more than `applied`.
    pub(super) fn new(policy: PolicyId, node: NodeId, applied: Offset) -> Self {
        Self { policy, node, applied, alike: None, keyed: false }
    }
}

impl Connection {
    /// Some other command: it may change whatever the connection is.
    pub(super) fn leave_beaten_path(&mut self) {
        if let Some(beaten) = &mut self.beaten {
            beaten.alike = None;
        }
    }

    /// A read was sent to a replica: the next like it may follow.
    pub(super) fn beat_path(
        &mut self,
        request: &Request<'_>,
        intent: Intent,
        policy: &Policy,
        vocabulary: &Vocabulary,
    ) {
        let keyed = policy.consistency >= Consistency::Session;
        let alike = intent.handling == Handling::Shared
            && self.worker.shared.config.policies.routes.is_empty()
            && !request.is_partial()
            && (!keyed || vocabulary.table.has_one_key(intent.id));
        if let Some(beaten) = &mut self.beaten {
            (beaten.alike, beaten.keyed) = (alike.then_some(intent.id), keyed);
        }
    }

    /// Sends a read after the one before it. `None`: it has to be decided.
    pub(super) fn follow_beaten_path(
        &mut self,
        request: &Request<'_>,
        intent: Intent,
        view: &View,
        now: Moment,
    ) -> Option<Step> {
        let beaten = self.beaten.filter(|beaten| beaten.alike == Some(intent.id))?;
        let (lane, _) = self.lanes.get(beaten.node.index())?.as_ref()?;
        if request.is_partial() || request.count() < 2 || !lane.has_room() {
            return None;
        }
        let mut stamps = Stamps::None;
        if beaten.keyed {
            let fences = &self.worker.shared.fences;
            let slot = fences.slot(request.arg(1));
            let mut session = self.client.session.borrow_mut();
            let anchored = view.head.map(|head| (view.anchor, head.offset));
            let free = fences.mark(slot, anchored, view.least_applied).is_met_by(beaten.applied)
                && fences.is_of(view.era)
                && session.seen.of(slot).is_met_by(beaten.applied)
                && !session.is_writing(slot);
            if !free && !cfg!(mutant = "beaten-blindly") {
                return None;
            }
            session.reads(self.client.next(), &[slot], self.client.oldest());
            stamps = Stamps::One(slot);
        }
        self.worker.stats.command(Access::Read, Target::Replica, Reason::Fresh);
        self.worker.load(beaten.node);
        let pending = Pending {
            client: Rc::clone(&self.client),
            seq: self.client.open(),
            len: 0,
            kind: Kind::Read,
            rewrite: Rewrite::None,
            policy: beaten.policy,
            stamps,
            at_primary: false,
            sees_all: false,
            need: None,
            begun: now,
            sent: now,
        };
        lane.push(Bytes::Request(request), pending);
        Some(Step::Done)
    }
}
