//! Writes that no node has got, for want of a primary: their lane was lost before they were written to it, and no
//! successor is known yet. They go to whoever is the primary next, in the order in which they came, as do those that
//! their clients send meanwhile, after them.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::Duration;

use bytes::BytesMut;
use tokio::sync::Notify;

use crate::core::moment::Moment;
use crate::net::runtime::clock;
use crate::proxy::upstream::lane::LaneKey;
use crate::proxy::upstream::pending::Pending;

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

    /// One more; true if it is the only one.
    pub(crate) fn push(&self, key: LaneKey, request: BytesMut, pending: Pending) -> bool {
        let mut writes = self.writes.borrow_mut();
        writes.push_back(Write { since: clock::now(), key, request, pending });
        writes.len() == 1
    }

    /// All of them, to be sent now. Whoever waits for that is told.
    pub(crate) fn take(&self) -> impl Iterator<Item = (LaneKey, BytesMut, Pending)> + use<> {
        self.gone.notify_waiters();
        self.writes.take().into_iter().map(|write| (write.key, write.request, write.pending))
    }

    /// What has been held for longer than `patience`, one after the other; `None` once nothing is held.
    ///
    /// Cancel safe: a write is taken out in the same poll that returns it.
    pub(crate) async fn overdue(&self, patience: Duration) -> Option<Pending> {
        loop {
            let since = self.writes.borrow().front().map(|write| write.since)?;
            match patience.checked_sub(clock::now().since(since)).filter(|rest| !rest.is_zero()) {
                Some(rest) => {
                    let _ = tokio::time::timeout(rest, self.gone.notified()).await;
                }
                None => return self.writes.borrow_mut().pop_front().map(|write| write.pending),
            }
        }
    }
}
