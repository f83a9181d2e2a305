//! Writes that no node has got, for want of a primary: their lane was lost before they were written to it, and no
//! successor is known yet. They go to whoever is the primary next, in the order in which they came, as do those that
//! their clients send meanwhile, after them.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use bytes::BytesMut;
use tokio::sync::Notify;

use crate::core::moment::Moment;
use crate::net::runtime::clock;
use crate::net::runtime::task;
use crate::proxy::upstream::lane::LaneKey;
use crate::proxy::upstream::pending::Pending;
use crate::proxy::worker::Worker;
use crate::wire::say;

/// What is held, oldest first. Bounded by what clients may have under way.
#[derive(Debug, Default)]
pub struct Held {
    writes: RefCell<VecDeque<Write>>,
    /// The last of them has gone.
    gone: Notify,
}

#[derive(Debug)]
struct Write {
    since: Moment,
    /// Its lane, but for the node.
    key: LaneKey,
    request: BytesMut,
    pending: Pending,
}

impl Held {
    /// Whether nothing is held: else a write would overtake what is.
    pub fn is_empty(&self) -> bool {
        self.writes.borrow().is_empty()
    }
}

impl Worker {
    /// Holds a write whose lane was lost until there is a primary, or `write-hold` has passed.
    pub(crate) fn hold(self: &Rc<Self>, key: LaneKey, request: BytesMut, pending: Pending) {
        let first = self.held.is_empty();
        self.held.writes.borrow_mut().push_back(Write { since: clock::now(), key, request, pending });
        self.release_held();
        if first && !self.held.is_empty() {
            task::spawn_local("held writes", Rc::clone(self).give_up_held());
        }
    }

    /// Sends what is held to the primary, if there is one.
    pub(crate) fn release_held(self: &Rc<Self>) {
        if self.held.is_empty() {
            return;
        }
        let Some(node) = self.shared.view.load().usable_primary(clock::now()) else { return };
        for write in self.held.writes.take() {
            if write.pending.client.gone().is_none() {
                self.lane(LaneKey { node, ..write.key }).push_bytes(&write.request, write.pending);
            }
        }
        self.held.gone.notify_waiters();
    }

    /// Refuses what has been held for too long, until nothing is held.
    async fn give_up_held(self: Rc<Self>) {
        let patience = self.shared.config.upstream.write_hold;
        loop {
            let oldest = self.held.writes.borrow().front().map(|write| write.since);
            let Some(since) = oldest else { return };
            let waited = clock::now().since(since);
            if let Some(rest) = patience.checked_sub(waited).filter(|rest| !rest.is_zero()) {
                let _ = tokio::time::timeout(rest, self.held.gone.notified()).await;
                continue;
            }
            let write = self.held.writes.borrow_mut().pop_front();
            if let Some(Write { pending, .. }) = write {
                pending.client.deliver(pending.seq, say::MASTERDOWN, true);
            }
        }
    }
}
