//! What a read demands of a replica: its policy, its own writes, and the fences of its keys. The same for traffic, for
//! EXPLAIN, and for the exhaustive model of the tests.

use std::cell::RefCell;

use smallvec::SmallVec;

use crate::core::argv::Args;
use crate::core::command::in_force::Commands;
use crate::core::command::{CommandTable, Handling, Intent, Keys};
use crate::core::fence::{AnchorSeq, Era, FenceTable, Mark, Slot};
use crate::core::nodes::view::View;
use crate::core::policy::{Consistency, Policies, PolicyId};
use crate::core::position::Offset;
use crate::core::reason::Reason;
use crate::core::route::Demand;
use crate::core::session::{Follows, Home, Session, Stamps, stronger};
use crate::mutant;

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
pub fn stamps_of(slots: &Slots) -> Stamps {
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
    /// What a strong read waits for.
    pub barrier: Option<Barrier>,
}

/// What a strong read waits for: the first anchor that was sent after the read had arrived, or one after that. Every write that
/// had been acknowledged by then is in what such an anchor tells; what is written later is none of the read's concern, so
/// that the first one that is known counts, however many follow while it waits for the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Barrier {
    seq: AnchorSeq,
    /// What an anchor has told, and in which history.
    head: Option<(Era, Offset)>,
}

impl Barrier {
    /// Of a read that arrives now, when `next` is the next anchor.
    pub const fn new(next: AnchorSeq) -> Self {
        Self { seq: next, head: None }
    }

    /// Its anchor may be answered by now.
    pub fn settle(&mut self, view: &View) {
        let answered = self.seq <= view.anchor || mutant::is("barrier-skipped");
        if let Some(head) = view.head
            && answered
            && self.head.is_none_or(|(era, _)| era != view.era)
        {
            self.head = Some((view.era, head.offset));
        }
    }

    /// What has to be applied; `None`: that is not known yet.
    fn offset(&self, view: &View) -> Option<Offset> {
        let mut settled = *self;
        settled.settle(view);
        settled.head.filter(|(era, _)| *era == view.era).map(|(_, offset)| offset)
    }
}

impl Reader<'_> {
    /// The policy of this command: that of the first matching route, else the connection's own.
    pub fn policy_of<A: Args + ?Sized>(
        &self,
        policies: &Policies,
        args: &A,
        intent: Intent,
        commands: &Commands,
    ) -> PolicyId {
        if policies.routes.is_empty() {
            return self.policy;
        }
        let command = commands.table.name(intent.id);
        let routes = policies.routes.iter();
        let mut matching = routes.filter(|route| route.is_for(command, self.user, self.name));
        let found = matching.find(|route| {
            let mut all = true;
            let mut keys =
                || commands.table.for_each_key(intent.id, args, &mut |key| all &= route.has_key(key));
            route.keys.is_empty() || (matches!(keys(), Keys::Known { count: 1.. }) && all)
        });
        found.map_or(self.policy, |route| route.policy)
    }

    /// What a replica must have applied to serve this read at `level`. `subject` takes what it is about, as far as that
    /// matters.
    pub fn demand<A: Args + ?Sized>(
        &self,
        level: Consistency,
        known: &Writes<'_>,
        (args, intent): (&A, Intent),
        table: &CommandTable,
        subject: &mut Subject,
    ) -> Demand {
        let mut session = self.session.map(RefCell::borrow_mut);
        known.demand(level, self.barrier, session.as_deref_mut(), |each| {
            let keys = table.for_each_key(intent.id, args, &mut |key| {
                let slot = known.fences.slot(key);
                subject.slots.push(slot);
                each(slot);
            });
            subject.any = is_about_any_key(intent, keys);
            subject.any
        })
    }
}

/// Whether a read may show keys that it does not name: it names none (KEYS, DBSIZE, RANDOMKEY), finds them in what it reads
/// (`SORT_RO` with `BY` or `GET`), or is a script, which outside a cluster reads whatever key it likes.
fn is_about_any_key(intent: Intent, keys: Keys) -> bool {
    let is_script = intent.handling == Handling::ReadOnlyScript && !mutant::is("scripts-declare-all");
    is_script || !matches!(keys, Keys::Known { count: 1.. })
}

/// What is known of writes when a read is decided.
#[derive(Clone, Copy, Debug)]
pub struct Writes<'a> {
    /// The nodes, and the newest anchor.
    pub view: &'a View,
    /// Which key was last written at which offset.
    pub fences: &'a FenceTable,
    /// The next anchor: it covers everything acknowledged before now.
    pub next: AnchorSeq,
}

impl Writes<'_> {
    /// What a replica must have applied to serve a read at `level`. `each_key` calls back with every key that it names,
    /// and tells whether it may be about any other as well. `barrier` is what a strong read waits for.
    pub fn demand(
        &self,
        level: Consistency,
        barrier: Option<Barrier>,
        mut session: Option<&mut Session>,
        each_key: impl FnOnce(&mut dyn FnMut(Slot)) -> bool,
    ) -> Demand {
        let Self { view, fences, next } = *self;
        let passed = fences.passed(view.era);
        if let Some(session) = &mut session {
            session.seen.renew((fences.life(), view.era), next);
            if let Some(head) = view.head {
                session.seen.settle(view.anchor, head.offset, passed);
            }
            if session.seen.counts_own()
                && let Some(home) = session.home
                && let Some(applied) = view.node(home.node).and_then(|node| node.applied)
            {
                session.seen.absorb(applied);
            }
        }
        let session = session.as_deref();
        if level < Consistency::Session {
            let token = session.and_then(|session| session.seen.token());
            return token.map_or(Demand::Nothing, |token| Demand::Applied(token, Reason::BelowSession));
        }
        let floor = session.map_or(Mark::Clear, |session| session.seen.floor());
        let barrier = if level == Consistency::Strong {
            match barrier.and_then(|barrier| barrier.offset(view)) {
                Some(offset) => Mark::At(offset).unless_passed(passed),
                None => return Demand::Unknown(Reason::BarrierPending),
            }
        } else {
            Mark::Clear
        };
        // What others have written is no concern of a session that counts its own.
        let fenced = session.is_none_or(|session| is_fenced(session, || level));
        // Before the fences of the keys: the stream stamps them first, and then lets the floor fall.
        let all_keys = if fenced { fences.floor() } else { Mark::Clear };
        let (mut mark, mut seen, mut writing) = (Mark::Clear, floor, false);
        let any = each_key(&mut |slot| {
            if fenced {
                mark = stronger(mark, self.fence_of(slot));
            }
            if let Some(session) = session {
                writing |= session.is_writing(slot);
                let (written, shown) = session.seen.of_key(slot);
                // What the stream has passed the key's own fence says as well, to whom looks at it.
                let passed = passed.filter(|_| fenced);
                let (written, shown) = (written.unless_passed(passed), shown.unless_passed(passed));
                (mark, seen) = (stronger(mark, written), stronger(seen, shown));
            }
        });
        if any {
            // Every acknowledged write counts, to whatever key.
            if fenced {
                mark = stronger(mark, fences.mark_of_any(self.anchored()));
            }
            if let Some(session) = session {
                writing |= session.is_writing_anything();
                seen = stronger(seen, session.seen.of_any());
            }
        }
        if writing {
            return Demand::Unknown(Reason::OwnWriteInFlight);
        }
        if !fences.is_of(view.era) {
            return Demand::Unknown(Reason::FencePending);
        }
        strongest(&[
            (mark, Reason::BelowFence),
            (all_keys, Reason::BelowFloor),
            (seen, Reason::BelowSession),
            (barrier, Reason::BarrierPending),
        ])
    }

    /// Whether reads may go on to the replica that the session's last one went to, of which the view says that it is fresh
    /// enough for their level and has applied `applied`: what is demanded for all keys is looked at here, once for all that
    /// arrives together; what each key demands by [`Self::may_follow`]. Strong reads may not: each arrival has a barrier of
    /// its own.
    pub fn may_resume(&self, session: &Session, present: Home, level: Consistency, applied: Offset) -> bool {
        // Its replica is the one that it chose, which has not gone back since, and has shown all that was seen.
        let keyed = level >= Consistency::Session;
        level < Consistency::Strong
            && session.seen.is_met_by(applied, self.view.era)
            && session.home == Some(present)
            && (!keyed
                || !is_fenced(session, || level)
                || self.fences.floor().is_met_by(applied)
                || mutant::is("resumed-blindly"))
    }

    /// Whether a read of this key demands no more than the one before it did, which went to a replica that has applied
    /// `applied`. `oldest` is the session's oldest command that is not answered yet.
    #[inline]
    pub fn may_follow(
        &self,
        session: &mut Session,
        (slot, level): (Slot, impl FnOnce() -> Consistency),
        applied: Offset,
        oldest: u64,
    ) -> bool {
        session.forget(oldest);
        let free = (!is_fenced(session, level) || self.fence_of(slot).is_met_by(applied))
            && self.fences.is_of(self.view.era)
            && session.seen.of(slot).is_met_by(applied)
            && !session.is_writing(slot)
            && session.follows(&Stamps::One(slot), oldest) == Follows::Nothing;
        free || mutant::is("followed-blindly")
    }

    fn fence_of(&self, slot: Slot) -> Mark {
        self.fences.mark(slot, self.anchored(), self.view.least_applied)
    }

    fn anchored(&self) -> Option<(AnchorSeq, Offset)> {
        self.view.head.map(|head| (self.view.anchor, head.offset))
    }
}

/// Whether reads that look at keys look at fences, too.
fn is_fenced(session: &Session, level: impl FnOnce() -> Consistency) -> bool {
    !session.seen.counts_own() || level() != Consistency::Session
}

/// The strongest of several marks, and what it is about.
fn strongest(marks: &[(Mark, Reason)]) -> Demand {
    let mut strongest = (Mark::Clear, Reason::Fresh);
    for (mark, reason) in marks {
        if stronger(*mark, strongest.0) != strongest.0 {
            strongest = (*mark, *reason);
        }
    }
    match strongest {
        (Mark::Clear, _) => Demand::Nothing,
        (Mark::At(offset), reason) => Demand::Applied(offset, reason),
        (Mark::Pending(_), _) => Demand::Unknown(Reason::FencePending),
    }
}
