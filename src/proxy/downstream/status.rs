//! What a client's task notes down in passing, for whoever asks about the client: `CLIENT LIST`, `KILL`, `UNBLOCK`,
//! `WAIT`. Plain cells, written by the client's own worker and read there on request: nothing is shared.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::time::Duration;

use crate::core::command::CommandId;
use crate::core::fence::{AnchorSeq, Era};
use crate::core::moment::Moment;
use crate::proxy::upstream::lane::Lane;
use crate::shard::identity::IdentityId;
use crate::shard::mailbox::Release;

/// A client as others may ask about it.
#[derive(Debug)]
pub struct Presence {
    /// Its last command.
    pub command: Cell<Option<CommandId>>,
    /// When it was last heard of.
    pub seen: Cell<Moment>,
    /// Bytes it has sent that are not dispatched, and room left in that buffer.
    pub input: Cell<(usize, usize)>,
    /// As whom it acts.
    pub identity: Cell<IdentityId>,
    /// Says that the anonymous identity is open to it, as long as it is the worker's own.
    pub pass: Cell<u32>,
    /// When it began to be anonymous: only what the primary says later is about it.
    pub anonymous_since: Cell<Moment>,
    /// The anchor that covers its last acknowledged write, and the history of that time.
    pub wrote: Cell<Option<(AnchorSeq, Era)>>,
    /// It waits in `WAIT`.
    pub waits: Cell<bool>,
    /// `CLIENT UNBLOCK` was said of it while it waits.
    pub release: Cell<Option<Release>>,
    /// For how long its last `CLIENT PAUSE` is to pause all commands.
    pub pausing: Cell<Duration>,
    lane: RefCell<Weak<Lane>>,
}

impl Default for Presence {
    fn default() -> Self {
        Self {
            command: Cell::new(None),
            seen: Cell::default(),
            input: Cell::default(),
            identity: Cell::default(),
            pass: Cell::new(0),
            anonymous_since: Cell::default(),
            wrote: Cell::new(None),
            waits: Cell::new(false),
            release: Cell::new(None),
            pausing: Cell::default(),
            lane: RefCell::new(Weak::new()),
        }
    }
}

impl Presence {
    /// Whether it may act as nobody in particular is to be found out anew.
    pub fn put_out(&self, now: Moment) {
        self.pass.set(0);
        self.anonymous_since.set(now);
    }

    /// It holds this exclusive connection from now on.
    pub fn pin(&self, lane: &Rc<Lane>) {
        *self.lane.borrow_mut() = Rc::downgrade(lane);
    }

    /// It holds none any longer.
    pub fn unpin(&self) {
        *self.lane.borrow_mut() = Weak::new();
    }

    /// What the primary calls its exclusive connection (`CLIENT ID` there).
    pub fn server_id(&self) -> Option<u64> {
        self.lane.borrow().upgrade().filter(|lane| lane.is_usable())?.server_id.get()
    }
}
