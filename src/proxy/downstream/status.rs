//! What a client's task notes down in passing, for whoever asks about the client: `CLIENT LIST`, `KILL`, `UNBLOCK`,
//! `WAIT`. Plain cells, written by the client's own worker and read there on request: nothing is shared.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use crate::core::command::CommandId;
use crate::core::moment::Moment;
use crate::core::slots::ShardIndex;
use crate::proxy::downstream::astray::Astray;
use crate::proxy::downstream::channels::Channels;
use crate::shard::identity::IdentityId;
use crate::shard::mailbox::Release;

/// What a server calls an exclusive connection (`CLIENT ID` there). Shared by the lane, which knows it and clears it as
/// soon as it takes no commands any longer, and by the status of the client that holds the lane.
pub type ServerId = Rc<Cell<Option<u64>>>;

/// A client as others may ask about it.
#[derive(Debug)]
pub struct Status {
    /// Its last command.
    pub command: Cell<Option<CommandId>>,
    /// When it was last heard of.
    pub seen: Cell<Moment>,
    /// Bytes it has sent that are not dispatched, and room left in that buffer.
    pub input: Cell<(usize, usize)>,
    /// As whom it acts.
    pub identity: Cell<IdentityId>,
    /// The epoch in which it was admitted without a password: it is, as long as that is the present one.
    pub auth_epoch: Cell<u32>,
    /// When it began to be anonymous: only what the primary says later is about it.
    pub anonymous_since: Cell<Moment>,
    /// It waits in `WAIT`.
    pub waits: Cell<bool>,
    /// `CLIENT UNBLOCK` was said of it while it waits.
    pub release: Cell<Option<Release>>,
    /// Its last command waits for something.
    pub busy: Cell<bool>,
    /// Commands of its that wait somewhere before they are sent on to another node of a cluster: what comes behind them must
    /// not overtake them.
    pub astray: Astray,
    /// The last command on its exclusive connection may be said again: it blocks, or is a `WATCH` on which nothing depends yet.
    pub repeatable: Cell<bool>,
    /// That has to be asked again, of another primary of the cluster.
    pub asks_again: Cell<Option<AskAgain>>,
    /// Nobody takes it: since when, and how often it was refused.
    pub refused: Cell<Option<(Moment, u8)>>,
    /// What it is subscribed to at the shards of a cluster.
    pub channels: RefCell<Channels>,
    /// When some of that is to be asked for anew.
    pub renews: Cell<Option<Moment>>,
    /// It hears what the server says unasked, on a plain relay.
    pub relayed: Cell<bool>,
    /// It wants to be told when it had better connect anew.
    pub hears_of_moves: Cell<bool>,
    /// For how long its last `CLIENT PAUSE` is to pause all commands.
    pub pausing: Cell<Duration>,
    /// Of the exclusive connection that it holds.
    server_id: RefCell<Option<ServerId>>,
    /// The shard at whose primary it has, or had, that.
    pub pinned_at: Cell<ShardIndex>,
}

/// How a command that waits on a connection of its own is asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AskAgain {
    /// Not before then.
    pub at: Moment,
    /// Of this shard, to which its keys are on their way; `None`: of whoever has the slot.
    pub asking: Option<ShardIndex>,
}

impl Default for Status {
    fn default() -> Self {
        Self {
            command: Cell::new(None),
            seen: Cell::default(),
            input: Cell::default(),
            identity: Cell::default(),
            auth_epoch: Cell::new(0),
            anonymous_since: Cell::default(),
            waits: Cell::new(false),
            release: Cell::new(None),
            busy: Cell::new(false),
            astray: Astray::default(),
            repeatable: Cell::new(false),
            asks_again: Cell::new(None),
            refused: Cell::new(None),
            channels: RefCell::default(),
            renews: Cell::new(None),
            relayed: Cell::new(false),
            hears_of_moves: Cell::new(false),
            pausing: Cell::default(),
            server_id: RefCell::default(),
            pinned_at: Cell::new(ShardIndex::FIRST),
        }
    }
}

impl Status {
    /// Whether its task has something to ask in its name.
    #[inline]
    pub fn is_called(&self) -> bool {
        self.asks_again.get().is_some() || self.renews.get().is_some()
    }

    /// Whether it may act as nobody in particular is to be found out anew.
    pub fn put_out(&self, now: Moment) {
        self.auth_epoch.set(0);
        self.anonymous_since.set(now);
    }

    /// It holds the exclusive connection with this ID from now on, at the primary of this shard.
    pub fn pin(&self, server_id: ServerId, shard: ShardIndex) {
        self.server_id.replace(Some(server_id));
        self.pinned_at.set(shard);
    }

    /// What was said last on it blocks, or is the first that is watched: it may be said again, if all of it is there.
    pub fn may_repeat(&self, blocks: bool, watches_first: bool, is_partial: bool) {
        self.repeatable.set((blocks || watches_first) && !is_partial);
    }

    /// It holds none any longer.
    pub fn unpin(&self) {
        self.relayed.set(false);
        self.server_id.replace(None);
    }

    /// It holds an exclusive connection.
    pub fn is_pinned(&self) -> bool {
        self.server_id.borrow().is_some()
    }

    /// What the primary calls its exclusive connection, as long as that takes commands.
    pub fn server_id(&self) -> Option<u64> {
        self.server_id.borrow().as_ref()?.get()
    }
}
