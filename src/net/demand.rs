//! What a read demands of a replica: its policy, its own writes, and the fences of its keys. The same for traffic and
//! for EXPLAIN.

use std::cell::RefCell;

use smallvec::SmallVec;

use super::shared::Shared;
use super::vocabulary::Vocabulary;
use crate::core::argv::Args;
use crate::core::command::{Intent, Keys};
use crate::core::fence::{Mark, Slot};
use crate::core::policy::{Consistency, Policies, Policy, PolicyId};
use crate::core::reason::Reason;
use crate::core::route::Demand;
use crate::core::session::{Session, stronger};
use crate::core::view::View;

/// The fences of a command's keys.
pub type Slots = SmallVec<[Slot; 4]>;

/// On whose behalf a read is decided.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    /// The policy of the connection.
    pub policy: PolicyId,
    /// The ACL user.
    pub user: &'a str,
    /// `CLIENT SETNAME`
    pub name: &'a str,
    /// The connection's own writes; `None` when nobody in particular asks.
    pub session: Option<&'a RefCell<Session>>,
}

impl Reader<'_> {
    /// The policy of this command: that of the first matching route, else the connection's own.
    pub fn policy_of<A: Args + ?Sized>(
        &self,
        policies: &Policies,
        args: &A,
        intent: Intent,
        vocabulary: &Vocabulary,
    ) -> PolicyId {
        if policies.routes.is_empty() {
            return self.policy;
        }
        let command = vocabulary.table.name(intent.id);
        let routes = policies.routes.iter();
        let mut matching = routes.filter(|route| route.is_for(command, self.user, self.name));
        let found = matching.find(|route| {
            let mut all = true;
            let mut keys =
                || vocabulary.table.for_each_key(intent.id, args, &mut |key| all &= route.has_key(key));
            route.keys.is_empty() || (matches!(keys(), Keys::Known { count: 1.. }) && all)
        });
        found.map_or(self.policy, |route| route.policy)
    }

    #[allow(clippy::too_many_arguments, reason = "what a decision depends on, one by one")]
    /// What a replica must have applied to serve this read under `policy`. `slots` takes the fences of its keys, as
    /// far as they matter.
    pub fn demand<A: Args + ?Sized>(
        &self,
        policy: &Policy,
        shared: &Shared,
        args: &A,
        intent: Intent,
        view: &View,
        vocabulary: &Vocabulary,
        slots: &mut Slots,
    ) -> Demand {
        match policy.consistency {
            Consistency::Eventual | Consistency::Bounded => Demand::Nothing,
            // A strong read needs a barrier of its own; until it has one, only the primary is proven.
            Consistency::Strong => Demand::Unknown(Reason::BarrierPending),
            Consistency::Session | Consistency::Fenced => {
                self.fences(shared, args, intent, view, vocabulary, slots)
            }
        }
    }

    fn fences<A: Args + ?Sized>(
        &self,
        shared: &Shared,
        args: &A,
        intent: Intent,
        view: &View,
        vocabulary: &Vocabulary,
        slots: &mut Slots,
    ) -> Demand {
        let session = self.session.map(RefCell::borrow).filter(|session| session.is_writing_anything());
        let (mut mark, mut writing) = (Mark::Clear, false);
        let keys = vocabulary.table.for_each_key(intent.id, args, &mut |key| {
            let slot = shared.fences.slot(key);
            slots.push(slot);
            writing |= session.as_ref().is_some_and(|session| session.is_writing(slot));
            mark = stronger(mark, fence_of(shared, slot, view));
        });
        if !matches!(keys, Keys::Known { count: 1.. }) {
            // It reads keys that it does not name (KEYS, DBSIZE, RANDOMKEY): every acknowledged write counts.
            return Demand::Unknown(if session.is_some() {
                Reason::OwnWriteInFlight
            } else {
                Reason::FencePending
            });
        }
        if writing {
            return Demand::Unknown(Reason::OwnWriteInFlight);
        }
        let floor = shared.fences.floor();
        let reason = if stronger(mark, floor) == floor { Reason::BelowFloor } else { Reason::BelowFence };
        match stronger(mark, floor) {
            Mark::Clear => Demand::Nothing,
            Mark::At(offset) => Demand::Applied(offset, reason),
            Mark::Pending(_) => {
                shared.anchor_wanted.notify_one();
                Demand::Unknown(Reason::FencePending)
            }
        }
    }
}

/// The mark of a slot; one that waits for an anchor which has been answered meanwhile takes its offset.
fn fence_of(shared: &Shared, slot: Slot, view: &View) -> Mark {
    match (shared.fences.load(slot), view.head) {
        (Mark::Pending(waits_for), Some(head)) if waits_for <= view.anchor => {
            shared.fences.settle(slot, view.anchor, head.offset);
            shared.fences.load(slot)
        }
        (mark, _) => mark,
    }
}
