//! Commands that no node has executed, for want of a primary: their lane was lost before they were written to it, a node that
//! is not the primary any longer has refused them, or they only read. They go to whoever is the primary next, in the order
//! in which they came, as do those that their clients send meanwhile, after them.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::sync::Notify;

use crate::core::moment::Moment;
use crate::net::runtime::clock;
use crate::proxy::upstream::lane::{Lane, LaneKey};
use crate::proxy::upstream::pending::Pending;

/// What is held, oldest first. Bounded by what clients may have under way.
#[derive(Debug, Default)]
pub struct Held {
    commands: RefCell<VecDeque<HeldCommand>>,
    /// The last of them has gone.
    gone: Notify,
}

/// One command that is held.
#[derive(Debug)]
pub(crate) struct HeldCommand {
    /// Since when.
    pub(crate) since: Moment,
    /// Its lane, but for the node.
    pub(crate) key: LaneKey,
    pub(crate) request: BytesMut,
    pub(crate) pending: Pending,
    /// Its node's own word, if nobody but the next primary can tell whether that has refused it: of a script.
    pub(crate) refusal: Option<Box<[u8]>>,
}

/// A command that waits a little before it is sent on to another shard.
#[derive(Debug)]
pub(crate) struct Later {
    pub(crate) pending: Pending,
    pub(crate) request: BytesMut,
    /// On which it was refused.
    pub(crate) lane: Rc<Lane>,
}

impl Held {
    /// Whether nothing is held: else a command would overtake what is.
    pub fn is_empty(&self) -> bool {
        self.commands.borrow().is_empty()
    }

    /// One more; true if it is the only one.
    pub(crate) fn push(&self, command: HeldCommand) -> bool {
        let mut commands = self.commands.borrow_mut();
        if commands.iter().all(|held| command.since < held.since) {
            // Whoever waits for the oldest to be overdue has to look again.
            self.gone.notify_waiters();
        }
        commands.push_back(command);
        commands.len() == 1
    }

    /// Those of which this is so. Whoever waits for them to be overdue is told.
    pub(crate) fn take_if(&self, is_so: impl Fn(&HeldCommand) -> bool) -> VecDeque<HeldCommand> {
        let (taken, rest): (VecDeque<_>, VecDeque<_>) = self.commands.take().into_iter().partition(is_so);
        self.commands.replace(rest);
        if !taken.is_empty() {
            self.gone.notify_waiters();
        }
        taken
    }

    /// All of them, to be sent now. Whoever waits for that is told.
    pub(crate) fn take(&self) -> VecDeque<HeldCommand> {
        self.gone.notify_waiters();
        self.commands.take()
    }

    /// What has been held for longer than `patience`, as soon as there is any; nothing once nothing is held.
    ///
    /// Cancel safe: commands are taken out in the same poll that returns them.
    pub(crate) async fn overdue(&self, patience: Duration) -> VecDeque<HeldCommand> {
        loop {
            let Some(oldest) = self.commands.borrow().iter().map(|command| command.since).min() else {
                return VecDeque::new();
            };
            let now = clock::now();
            if let Some(rest) = patience.checked_sub(now.since(oldest)).filter(|rest| !rest.is_zero()) {
                let _ = tokio::time::timeout(rest, self.gone.notified()).await;
            } else {
                let is_overdue = |command: &HeldCommand| now.since(command.since) >= patience;
                let (overdue, rest) = self.commands.take().into_iter().partition(is_overdue);
                self.commands.replace(rest);
                return overdue;
            }
        }
    }
}
