//! What a reply is worth: whether its client gets it, or somebody else is asked.

use crate::core::position::Offset;
use crate::core::repeat::{Answered, AskedOn, Belief, PendingKind, judge};
use crate::core::session::Stamps;
use crate::net::runtime::clock;
use crate::proxy::upstream::lane::Lane;
use crate::proxy::upstream::pending::Pending;
use crate::proxy::worker::Worker;
use crate::proxy::worker::redirect::is_behind_astray;
use crate::wire::reply::{ErrorCode, ReplyKind};
use crate::wire::say;

/// What was found of a reply.
pub(super) struct Found {
    pub(super) belief: Belief,
    /// The proof that was asked for together with the read was not enough.
    pub(super) lacking: bool,
    /// It counts for nothing.
    pub(super) doubtful: bool,
    /// It says that there is no such key, which is the primary's to say.
    pub(super) absent: bool,
    /// The primary has not executed the command, because its slot, or some of it, is another primary's.
    pub(super) is_elsewhere: bool,
    /// What stands for the question that it answers.
    pub(super) question: Option<u64>,
}

impl Default for Found {
    fn default() -> Self {
        let (belief, question) = (Belief::Believed, None);
        Self { belief, lacking: false, doubtful: false, absent: false, is_elsewhere: false, question }
    }
}

impl Found {
    /// Looks at a reply. True if somebody else has to be asked.
    #[allow(clippy::inline_always, reason = "measured: 3 % of the instructions of a small command")]
    #[inline(always)]
    pub(super) fn is_to_be_asked_again(
        &mut self,
        worker: &Worker,
        lane: &Lane,
        (pending, request, proof): (&Pending, &[u8], Option<Offset>),
        (reply, kind): (&[u8], ReplyKind),
    ) -> bool {
        self.lacking = pending.lacks_proof(proof);
        self.doubtful = pending.is_doubtful(proof);
        if kind != ReplyKind::Error && !self.doubtful && (!lane.examined.get() || lane.shows(pending, reply))
        {
            return false;
        }
        self.is_rejected(worker, lane, (pending, request), (reply, kind))
    }

    /// The same, of a reply that is an error, is doubtful, or is of a node whose word is not enough.
    #[cold]
    fn is_rejected(
        &mut self,
        worker: &Worker,
        lane: &Lane,
        (pending, request): (&Pending, &[u8]),
        (reply, kind): (&[u8], ReplyKind),
    ) -> bool {
        let is_rejected = self.counts_for_nothing(worker, lane, pending, (reply, kind));
        if !is_rejected {
            worker.note_executed(lane, pending, request);
        }
        is_rejected
    }

    fn counts_for_nothing(
        &mut self,
        worker: &Worker,
        lane: &Lane,
        pending: &Pending,
        (reply, kind): (&[u8], ReplyKind),
    ) -> bool {
        if lane.in_cluster.get() && self.is_of_another_shard(lane, pending, reply) {
            return true;
        }
        if lane.exclusive && ErrorCode::of(reply).is_some_and(ErrorCode::is_of_cluster) {
            worker.learn_by_the_way(lane, reply, clock::now());
        }
        if kind != ReplyKind::Error && !lane.demoted.get() && !self.doubtful {
            return false;
        }
        self.belief = examine(worker, lane, pending, self.doubtful, reply);
        matches!(self.belief, Belief::Elsewhere | Belief::Successor)
    }

    /// The same, of what only nodes of a cluster answer. A replica may not have heard of a key that has come to its shard, or
    /// still be without one that has come back: that there is no such key is the primary's to say.
    fn is_of_another_shard(&mut self, lane: &Lane, pending: &Pending, reply: &[u8]) -> bool {
        let asks =
            pending.kind == PendingKind::Write || pending.asked().may_move() || pending.rewrite.is_cursor();
        let refused = || ErrorCode::of(reply).is_some_and(ErrorCode::is_of_cluster);
        // Nothing is behind it that counts on it.
        let is_last = || pending.client.next() == pending.seq + 1;
        let alone = lane.exclusive && !(pending.client.status.repeatable.get() && is_last());
        self.is_elsewhere = asks && pending.at_primary && !alone && refused();
        // A read that was sent behind another one that has yet to be sent on would show what is older than that.
        self.is_elsewhere |= asks
            && pending.at_primary
            && !lane.exclusive
            && pending.asked().may_move()
            && pending.stamps != Stamps::None
            && is_behind_astray(pending, |stamps| stamps.touch_any_of(&pending.stamps));
        self.absent = pending.is_unconfirmed_by(reply);
        self.doubtful |= self.absent;
        self.is_elsewhere
    }
}

/// What to think of a reply that is an error, is doubtful, or is a former primary's.
#[cold]
fn examine(worker: &Worker, lane: &Lane, pending: &Pending, doubtful: bool, reply: &[u8]) -> Belief {
    let refuses = ErrorCode::of(reply).is_some() && say::refuses_writes(reply);
    let not_here = || say::asks_for_another_node(reply, pending.at_primary);
    let answered = if refuses && pending.at_primary {
        Answered::ReadOnly
    } else if pending.kind == PendingKind::Read
        && (not_here() || worker.shut_out.differs(lane, reply, &worker.shared.shard().view.load()))
    {
        Answered::NotHere
    } else {
        Answered::Value
    };
    let on = AskedOn { exclusive: lane.exclusive, demoted: lane.demoted.get() };
    judge(pending.asked(), doubtful, answered, on)
}
