//! A command between the decision where it goes and the lane that takes it.

use crate::core::moment::Moment;
use crate::core::policy::PolicyId;
use crate::core::position::Offset;
use crate::core::reason::Reason;
use crate::core::repeat::PendingKind;
use crate::core::session::Stamps;
use crate::proxy::upstream::pending::Rewrite;
use crate::telemetry;
use crate::wire::request::Request;

/// A command on its way to a node.
#[derive(Debug)]
pub struct Outgoing {
    /// What it is, to be counted as.
    pub access: telemetry::AccessLabel,
    /// Why it goes there.
    pub reason: Reason,
    /// What may be done with it when its lane is lost.
    pub kind: PendingKind,
    /// See [`Pending::stamps`](crate::proxy::upstream::pending::Pending::stamps).
    pub stamps: Stamps,
    /// What Redweir changes in the reply.
    pub rewrite: Rewrite,
    /// The policy under which it was decided, if it reads.
    pub policy: PolicyId,
    /// It goes to the primary.
    pub at_primary: bool,
    /// The reply can tell of any key.
    pub sees_all: bool,
    /// What the replica must prove to have applied, or the read is repeated.
    pub need: Option<Offset>,
    /// Its reply is the same for everybody who asks at the same time: one request may ask for several.
    pub alike: bool,
    /// When it was decided.
    pub now: Moment,
}

/// The bytes of a command, as a lane takes them.
#[derive(Clone, Copy, Debug)]
pub enum Bytes<'a> {
    /// As the client sent it.
    Request(&'a Request<'a>),
    /// As Redweir changed it.
    Own(&'a [u8]),
}

impl Outgoing {
    /// A command that changes nothing.
    pub fn read(reason: Reason, now: Moment) -> Self {
        let other = matches!(reason, Reason::PrimaryOnly);
        let access = if other { telemetry::AccessLabel::Other } else { telemetry::AccessLabel::Read };
        Self { access, kind: PendingKind::Read, ..Self::write(reason, Stamps::None, now) }
    }

    /// What is not flagged as a read may have an effect (`PUBLISH`, `SCRIPT LOAD`): like a write it is sent once.
    pub fn other(now: Moment) -> Self {
        Self { access: telemetry::AccessLabel::Other, ..Self::write(Reason::PrimaryOnly, Stamps::None, now) }
    }

    /// The keys of which a read shows something that later reads may not take back.
    pub fn shows_keys(&self) -> Option<Stamps> {
        if self.kind == PendingKind::Write || !self.sees_all && self.stamps == Stamps::None {
            return None;
        }
        Some(if self.sees_all { Stamps::All } else { self.stamps.clone() })
    }

    /// A command that may change something.
    pub fn write(reason: Reason, stamps: Stamps, now: Moment) -> Self {
        Self {
            access: telemetry::AccessLabel::Write,
            reason,
            kind: PendingKind::Write,
            stamps,
            rewrite: Rewrite::None,
            policy: PolicyId::default(),
            at_primary: true,
            sees_all: false,
            need: None,
            alike: false,
            now,
        }
    }
}
