//! What a read demands of a replica: its policy, its own writes, and the fences of its keys. The same for traffic and
//! for EXPLAIN.

use std::cell::RefCell;

use smallvec::SmallVec;

use crate::core::argv::Args;
use crate::core::command::{Handling, Intent, Keys};
use crate::core::fence::{AnchorSeq, Mark, Slot};
use crate::core::policy::{Consistency, Policies, Policy, PolicyId};
use crate::core::reason::Reason;
use crate::core::route::Demand;
use crate::core::session::{Session, Stamps, stronger};
use crate::core::view::View;
use crate::mutant;
use crate::net::vocabulary::Vocabulary;
use crate::shard::shared::Shared;

/// The fences of a command's keys.
pub type Slots = SmallVec<[Slot; 4]>;

/// What a read is about, as far as its policy looks at keys.
#[derive(Clone, Debug, Default)]
pub struct Subject {
    /// The fences of its keys.
    pub slots: Slots,
    /// It may be about any key: those that it names are not all (a script reads what it likes), or it names none.
    pub any: bool,
}

impl Subject {
    /// What a session will have seen once the read is answered.
    pub fn stamps(&self) -> Stamps {
        if self.any { Stamps::All } else { stamps_of(&self.slots) }
    }

    /// Whether its policy looks at keys.
    pub fn is_keyed(&self) -> bool {
        self.any || !self.slots.is_empty()
    }
}

/// These keys.
pub(crate) fn stamps_of(slots: &Slots) -> Stamps {
    match slots.as_slice() {
        [] => Stamps::None,
        [slot] => Stamps::One(*slot),
        slots => Stamps::Many(slots.into()),
    }
}

/// On whose behalf a read is decided.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    /// The policy of the connection.
    pub policy: PolicyId,
    /// The ACL user.
    pub user: &'a str,
    /// `CLIENT SETNAME`
    pub name: &'a str,
    /// What the connection has written and seen; `None` when nobody in particular asks.
    pub session: Option<&'a RefCell<Session>>,
    /// The anchor that a strong read waits for: the first one sent after the read had arrived.
    pub barrier: Option<AnchorSeq>,
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
    /// What a replica must have applied to serve this read under `policy`. `subject` takes what it is about, as far as that
    /// matters.
    pub fn demand<A: Args + ?Sized>(
        &self,
        policy: &Policy,
        shared: &Shared,
        args: &A,
        intent: Intent,
        view: &View,
        vocabulary: &Vocabulary,
        subject: &mut Subject,
    ) -> Demand {
        let passed = shared.fences.passed(view.era);
        let mut session = self.session.map(RefCell::borrow_mut);
        if let Some(session) = &mut session {
            session.seen.renew(shared.fences.life(), shared.anchors.next());
            if let Some(head) = view.head {
                session.seen.settle(view.anchor, head.offset, passed);
            }
        }
        let session = session.as_deref();
        if policy.consistency < Consistency::Session {
            let token = session.and_then(|session| session.seen.token());
            return token.map_or(Demand::Nothing, |token| Demand::Applied(token, Reason::BelowSession));
        }
        let floor = session.map_or(Mark::Clear, |session| session.seen.floor());
        let barrier = if policy.consistency == Consistency::Strong {
            match (self.barrier, view.head) {
                (Some(barrier), Some(head)) if barrier <= view.anchor || mutant::is("barrier-skipped") => {
                    Mark::At(head.offset).unless_passed(passed)
                }
                _ => {
                    shared.anchor_wanted.notify_one();
                    return Demand::Unknown(Reason::BarrierPending);
                }
            }
        } else {
            Mark::Clear
        };
        // Before the fences of the keys: the stream stamps them first, and then lets the floor fall.
        let all_keys = shared.fences.floor();
        let (anchored, least) = (view.head.map(|head| (view.anchor, head.offset)), view.least_applied);
        let (mut mark, mut seen, mut writing) = (Mark::Clear, floor, false);
        let keys = vocabulary.table.for_each_key(intent.id, args, &mut |key| {
            let slot = shared.fences.slot(key);
            subject.slots.push(slot);
            mark = stronger(mark, shared.fences.mark(slot, anchored, least));
            if let Some(session) = session {
                writing |= session.is_writing(slot);
                seen = stronger(seen, session.seen.of(slot));
            }
        });
        subject.any = is_about_any_key(intent, keys);
        if subject.any {
            // Every acknowledged write counts, to whatever key.
            mark = stronger(mark, shared.fences.mark_of_any(anchored));
            if let Some(session) = session {
                writing |= session.is_writing_anything();
                seen = stronger(seen, session.seen.of_any());
            }
        }
        if writing {
            return Demand::Unknown(Reason::OwnWriteInFlight);
        }
        if !shared.fences.is_of(view.era) {
            return Demand::Unknown(Reason::FencePending);
        }
        let demands = [
            (mark, Reason::BelowFence),
            (all_keys, Reason::BelowFloor),
            (seen, Reason::BelowSession),
            (barrier, Reason::BarrierPending),
        ];
        demand_of(&demands, shared)
    }
}

/// Whether a read may show keys that it does not name: it names none (KEYS, DBSIZE, RANDOMKEY), finds them in what it reads
/// (`SORT_RO` with `BY` or `GET`), or is a script, which outside a cluster reads whatever key it likes.
fn is_about_any_key(intent: Intent, keys: Keys) -> bool {
    let is_script = intent.handling == Handling::ReadOnlyScript && !mutant::is("scripts-declare-all");
    is_script || !matches!(keys, Keys::Known { count: 1.. })
}

/// The strongest of several marks, and what it is about.
fn demand_of(marks: &[(Mark, Reason)], shared: &Shared) -> Demand {
    let mut strongest = (Mark::Clear, Reason::Fresh);
    for (mark, reason) in marks {
        if stronger(*mark, strongest.0) != strongest.0 {
            strongest = (*mark, *reason);
        }
    }
    match strongest {
        (Mark::Clear, _) => Demand::Nothing,
        (Mark::At(offset), reason) => Demand::Applied(offset, reason),
        (Mark::Pending(_), _) => {
            shared.anchor_wanted.notify_one();
            Demand::Unknown(Reason::FencePending)
        }
    }
}
