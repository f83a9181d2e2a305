//! One command that a lane has taken and that is not answered yet.

use std::cell::RefCell;
use std::rc::Rc;

use crate::core::moment::Moment;
use crate::core::nodes::proof::suffices;
use crate::core::policy::PolicyId;
use crate::core::position::Offset;
use crate::core::repeat::{Asked, PendingKind};
use crate::core::session::{Session, Stamps};
use crate::core::slots::{Expected, ShardIndex};
use crate::proxy::downstream::replies::Client;
use crate::telemetry::AccessLabel;
use crate::wire::absent::looks_absent;

/// What Redweir changes in a reply, or takes note of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rewrite {
    /// Nothing: it is passed on as it came.
    None,
    /// Nothing; if it is no error, all commands are paused, for as long as the client has said.
    Pause,
    /// Nothing; if it is no error, no command is paused any longer.
    Unpause,
    /// Nothing; if it is no error, the primary has forgotten its scripts.
    ScriptFlush,
    /// It is that of `INFO`: a section of our own is appended.
    Info,
    /// It is that of `INFO`, without a section of our own: it does not say that the server is one of a cluster.
    Standalone,
    /// It may name a client by the primary's ID.
    Redirect,
    /// It begins with a cursor, which is marked with the process that issued it.
    Cursor {
        /// It is that of `SCAN`, which goes through all keys: of a cluster, through one shard after the other.
        all: bool,
    },
}

impl Rewrite {
    /// Whether the reply begins with a cursor.
    pub const fn is_cursor(self) -> bool {
        matches!(self, Self::Cursor { .. })
    }
}

/// An entry of a lane's queue. The client may have left: then it is a tombstone, whose reply is read and dropped.
#[derive(Debug)]
pub struct Pending {
    /// Who gets the reply.
    pub client: Rc<Client>,
    /// Its slot there.
    pub seq: u64,
    /// The shard that it was sent to.
    pub shard: ShardIndex,
    /// Length of the request in the lane's buffer, in bytes.
    pub len: usize,
    /// What it is counted as.
    pub access: AccessLabel,
    /// What may be done with it when the lane is lost.
    pub kind: PendingKind,
    /// What Redweir changes in the reply.
    pub rewrite: Rewrite,
    /// The policy under which it was decided, if it reads.
    pub policy: PolicyId,
    /// Of a write, the fences that its acknowledgement stamps. Of a read, those of its keys, if its session must not fall
    /// behind what the primary answers.
    pub stamps: Stamps,
    /// It was sent to the primary.
    pub at_primary: bool,
    /// The reply can tell of any key.
    pub sees_all: bool,
    /// Of a read of a cluster, what a replica's reply has to show for it to be believed.
    pub expected: Expected,
    /// What the replica must prove to have applied, or the read is repeated.
    pub need: Option<Offset>,
    /// The node may have gone back since it was sent there: whatever it answers, the read is repeated elsewhere.
    pub void: bool,
    /// How many times it was sent on to where a node of a cluster has said that its slot is.
    pub redirected: u8,
    /// The command before it asks for it as well: it has no bytes of its own, and gets the same reply.
    pub shares: bool,
    /// When the command had been read.
    pub begun: Moment,
    /// When it was given to the lane.
    pub sent: Moment,
}

impl Pending {
    /// A command of Redweir's own; its reply goes to `drain`.
    pub fn own(kind: PendingKind, seq: u64, drain: Rc<Client>, shard: ShardIndex, now: Moment) -> Self {
        Self {
            client: drain,
            seq,
            shard,
            len: 0,
            access: AccessLabel::Other,
            kind,
            rewrite: Rewrite::None,
            policy: PolicyId::default(),
            stamps: Stamps::None,
            at_primary: false,
            sees_all: false,
            expected: Expected::Unseen,
            need: None,
            void: false,
            redirected: 0,
            shares: false,
            begun: now,
            sent: now,
        }
    }

    /// What its client has written and seen at its shard.
    #[inline]
    pub fn session(&self) -> &RefCell<Session> {
        self.client.session(self.shard)
    }

    /// Whether the primary's reply to it shows what the client's later reads may not take back.
    pub fn shows(&self) -> bool {
        self.sees_all || self.kind != PendingKind::Write && self.stamps != Stamps::None
    }

    /// What its fate depends on.
    #[inline]
    pub fn asked(&self) -> Asked {
        Asked { kind: self.kind, at_primary: self.at_primary, scans: self.rewrite.is_cursor() }
    }

    /// Whether it asks a replica, which says, as far as it has said anything, that a key is not there.
    #[inline]
    pub fn is_unconfirmed_by(&self, reply: &[u8]) -> bool {
        // As most are that show their key.
        let is_string = matches!(reply, [b'$', b'1'..=b'9', ..]);
        !self.at_primary && !is_string && self.asked().may_move() && looks_absent(reply, self.expected)
    }

    /// Whether it needs more than the last `ROLE` on its lane proved.
    pub fn lacks_proof(&self, proof: Option<Offset>) -> bool {
        self.need.is_some_and(|need| !suffices(proof, need))
    }

    /// Whether its reply counts for nothing: its node has not proven what was needed, may have gone back meanwhile, or
    /// answers after a read that is being repeated elsewhere.
    #[allow(clippy::inline_always, reason = "measured: 1 % of the instructions of a small command")]
    #[inline(always)]
    pub fn is_doubtful(&self, proof: Option<Offset>) -> bool {
        self.asked().is_doubtful(self.need, proof, self.void) || self.follows_repeated()
    }

    /// Whether a read of its keys that was sent before it is being repeated elsewhere.
    #[allow(clippy::inline_always, reason = "measured: 1 % of the instructions of a small command")]
    #[inline(always)]
    fn follows_repeated(&self) -> bool {
        // One that the primary answers is no older than what any other node answers before it.
        self.kind == PendingKind::Read
            && !self.at_primary
            && self.stamps != Stamps::None
            && self.session().borrow().must_repeat(self.seq, &self.stamps)
    }

    /// Whether a read may be sent again though this command of the same client, behind it or before it, is not: it must
    /// be about other keys. Without `fencing` nobody knows.
    pub fn is_apart_from(&self, read: &Self, fencing: bool) -> bool {
        let shared = match &read.stamps {
            Stamps::None => self.stamps != Stamps::None,
            stamps => self.stamps.touch_any_of(stamps),
        };
        fencing && !shared
    }

    /// What stays in the queue when it is sent again elsewhere: the reply goes to `drain`, which drops it.
    #[must_use]
    pub fn tombstone(&self, drain: &Rc<Client>) -> Self {
        Self {
            client: Rc::clone(drain),
            seq: 0,
            shard: self.shard,
            len: self.len,
            access: self.access,
            kind: PendingKind::Moved,
            rewrite: Rewrite::None,
            policy: self.policy,
            stamps: Stamps::None,
            at_primary: self.at_primary,
            sees_all: false,
            expected: self.expected,
            need: None,
            void: false,
            redirected: 0,
            shares: self.shares,
            begun: self.begun,
            sent: self.sent,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::net::runtime::flush::{DirtyList, Schedule};
    use crate::proxy::downstream::replies::Output;

    #[test]
    fn what_a_replica_denies_is_the_primarys_to_say_however_often_it_was_asked() {
        let dirty = DirtyList::new(&Rc::<Schedule>::default());
        let output = Output { dirty, buffers: Rc::default(), budget: Arc::default(), gathers: false };
        let client = Client::drain(output);
        let asked = |kind, at_primary| {
            let own = Pending::own(kind, 0, Rc::clone(&client), ShardIndex::FIRST, Moment::default());
            Pending { at_primary, expected: Expected::Anything, ..own }
        };
        for kind in [PendingKind::Read, PendingKind::Final, PendingKind::Last] {
            assert!(asked(kind, false).is_unconfirmed_by(b"$-1\r\n"), "{kind:?}");
            assert!(asked(kind, false).is_unconfirmed_by(b"$0\r\n\r\n"), "{kind:?}");
            assert!(!asked(kind, false).is_unconfirmed_by(b"$1\r\nv\r\n"), "{kind:?}");
            // Of a long one only the beginning is there.
            assert!(!asked(kind, false).is_unconfirmed_by(b"$70000\r\nv"), "{kind:?}");
            assert!(!asked(kind, true).is_unconfirmed_by(b"$-1\r\n"), "{kind:?}");
        }
        assert!(!asked(PendingKind::Write, false).is_unconfirmed_by(b"$-1\r\n"));
    }
}
