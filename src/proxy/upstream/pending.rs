//! One command that a lane has taken and that is not answered yet.

use std::rc::Rc;

use crate::core::moment::Moment;
use crate::core::nodes::proof::suffices;
use crate::core::policy::PolicyId;
use crate::core::position::Offset;
use crate::core::repeat::{Asked, PendingKind};
use crate::core::session::Stamps;
use crate::proxy::downstream::replies::Client;
use crate::telemetry::AccessLabel;

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
    /// It may name a client by the primary's ID.
    Redirect,
    /// It begins with a cursor, which is marked with the process that issued it.
    Cursor,
}

/// An entry of a lane's queue. The client may have left: then it is a tombstone, whose reply is read and dropped.
#[derive(Debug)]
pub struct Pending {
    /// Who gets the reply.
    pub client: Rc<Client>,
    /// Its slot there.
    pub seq: u64,
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
    /// What the replica must prove to have applied, or the read is repeated.
    pub need: Option<Offset>,
    /// The node may have gone back since it was sent there: whatever it answers, the read is repeated elsewhere.
    pub void: bool,
    /// The command before it asks for it as well: it has no bytes of its own, and gets the same reply.
    pub shares: bool,
    /// When the command had been read.
    pub begun: Moment,
    /// When it was given to the lane.
    pub sent: Moment,
}

impl Pending {
    /// Whether the primary's reply to it shows what the client's later reads may not take back.
    pub fn shows(&self) -> bool {
        self.sees_all || self.kind != PendingKind::Write && self.stamps != Stamps::None
    }

    /// What its fate depends on.
    #[inline]
    pub fn asked(&self) -> Asked {
        Asked { kind: self.kind, at_primary: self.at_primary, scans: self.rewrite == Rewrite::Cursor }
    }

    /// Whether it needs more than the last `ROLE` on its lane proved.
    pub fn lacks_proof(&self, proof: Option<Offset>) -> bool {
        self.need.is_some_and(|need| !suffices(proof, need))
    }

    /// Whether its reply counts for nothing: its node has not proven what was needed, may have gone back meanwhile, or
    /// answers after a read that is being repeated elsewhere.
    #[inline]
    pub fn is_doubtful(&self, proof: Option<Offset>) -> bool {
        self.asked().is_doubtful(self.need, proof, self.void) || self.follows_repeated()
    }

    /// Whether a read of its keys that was sent before it is being repeated elsewhere.
    fn follows_repeated(&self) -> bool {
        // One that the primary answers is no older than what any other node answers before it.
        self.kind == PendingKind::Read
            && !self.at_primary
            && self.stamps != Stamps::None
            && self.client.session.borrow().must_repeat(self.seq, &self.stamps)
    }

    /// Whether a read may be sent again though this command of the same client, behind it or before it, is not: it must
    /// be about other keys. Without `fencing` nobody knows.
    pub fn is_apart_from(&self, read: &Self, fencing: bool) -> bool {
        let shared = match &read.stamps {
            Stamps::One(slot) => self.stamps.touch(*slot),
            Stamps::Many(slots) => slots.iter().any(|slot| self.stamps.touch(*slot)),
            Stamps::None | Stamps::All => self.stamps != Stamps::None,
        };
        fencing && !shared
    }

    /// What stays in the queue when it is sent again elsewhere: the reply goes to `drain`, which drops it.
    #[must_use]
    pub fn tombstone(&self, drain: &Rc<Client>) -> Self {
        Self {
            client: Rc::clone(drain),
            seq: 0,
            len: self.len,
            access: self.access,
            kind: PendingKind::Moved,
            rewrite: Rewrite::None,
            policy: self.policy,
            stamps: Stamps::None,
            at_primary: self.at_primary,
            sees_all: false,
            need: None,
            void: false,
            shares: self.shares,
            begun: self.begun,
            sent: self.sent,
        }
    }
}
