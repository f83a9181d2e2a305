//! What a lane to a node of a cluster does besides: the node is told whether it is asked as a replica, and what it denies as one is
//! not the last word.

use std::rc::Rc;

use super::Lane;
use crate::core::repeat::PendingKind;
use crate::proxy::downstream::replies::Client;
use crate::proxy::upstream::pending::Pending;

impl Lane {
    /// Has the node of a cluster answer as the primary from now on, or as a replica: whoever was the primary, and is a replica now,
    /// is to say so rather than to show what is older than what the next primary has acknowledged. Nobody gets the reply to `own`.
    pub(crate) fn face(self: &Rc<Self>, as_primary: bool, own: impl FnOnce() -> Pending) {
        if !self.in_cluster.get() || self.exclusive || self.readonly.get() != as_primary || !self.is_usable()
        {
            return;
        }
        let words: &[u8] =
            if as_primary { b"*1\r\n$9\r\nREADWRITE\r\n" } else { b"*1\r\n$8\r\nREADONLY\r\n" };
        self.readonly.set(!as_primary);
        self.push_bytes(words, own());
    }

    /// Whether the node has yet to answer a write that this client said behind its command number `seq`.
    pub(crate) fn owes_write_behind(&self, client: &Rc<Client>, seq: u64) -> bool {
        let inner = self.inner.borrow();
        inner.connection.queue().outstanding().any(|pending| {
            pending.kind == PendingKind::Write && pending.seq > seq && Rc::ptr_eq(&pending.client, client)
        })
    }

    /// Whether a reply is all right that is no error, though replies are looked at more closely: that of a replica of a cluster
    /// which shows its key.
    #[inline]
    pub(crate) fn shows(&self, pending: &Pending, reply: &[u8]) -> bool {
        let of_replica = self.in_cluster.get() && !pending.at_primary && !self.demoted.get();
        of_replica && !pending.is_unconfirmed_by(reply)
    }

    /// Whether a replica of a cluster has said nothing yet, by the beginning of its reply, that speaks for the key.
    pub(crate) fn front_is_unconfirmed(&self, reply: &[u8]) -> bool {
        let inner = self.inner.borrow();
        let front = inner.connection.queue().front();
        front.is_some_and(|front| front.is_unconfirmed_by(reply))
    }
}
