//! A lane that is out of the pool while a long reply is on it, or for good: nobody new queues behind it, and those who did and
//! only read are sent again elsewhere. What nobody waits for is not asked.

use std::rc::Rc;

use bytes::BytesMut;

use super::Lane;
use crate::proxy::downstream::replies::Client;
use crate::proxy::upstream::pending::Pending;
use crate::proxy::upstream::phase::Withdrawal;

impl Lane {
    /// It leaves the pool, or comes back.
    pub(crate) fn set_on_detour(&self, detour: bool) {
        let mut inner = self.inner.borrow_mut();
        inner.detour = detour;
        inner.generation += u32::from(detour);
        inner.connection.wake();
    }

    /// How many times it has left the pool. Who knew it before must not take it for the same: what was sent again goes
    /// another way.
    pub fn generation(&self) -> u32 {
        self.inner.borrow().generation
    }

    /// Whether it is out of the pool.
    pub fn is_on_detour(&self) -> bool {
        self.inner.borrow().detour
    }

    /// Whether somebody waits behind the oldest command who is not its own client's later self.
    pub(crate) fn is_in_the_way(&self) -> bool {
        self.inner.borrow().connection.queue().is_in_the_way()
    }

    /// Whether its node is in the middle of a reply that cannot be had elsewhere, for its beginning was passed on, and
    /// nobody else waits for it. A node that is busy with a long reply answers nothing else for a while.
    pub(crate) fn is_in_mid_reply(&self) -> bool {
        let inner = self.inner.borrow();
        inner.connection.queue().is_cut() && !inner.connection.queue().is_in_the_way()
    }

    /// Its node is not to be asked any more, but is in the middle of a reply: the lane ends with that.
    pub(crate) fn retire(&self, why: Withdrawal) {
        self.inner.borrow_mut().connection.retire(why);
    }

    /// Its node has become a replica, and answers: what it has been asked it is let answer, but it is asked no more.
    pub(crate) fn demote(&self) {
        self.demoted.set(true);
        self.examined.set(true);
        self.inner.borrow_mut().connection.retire(Withdrawal::Demoted);
    }

    /// Whether its node has been asked for nothing that it has not answered.
    pub(crate) fn owes_nothing(&self) -> bool {
        self.inner.borrow().connection.queue().owes_nothing()
    }

    /// Why it ends now that a reply is through.
    pub(crate) fn retired(&self) -> Option<Withdrawal> {
        self.inner.borrow().connection.retired().filter(|_| !self.demoted.get())
    }

    /// Takes out what others than the oldest command's client have sent behind it, if it may be sent again. What the node
    /// answers to that goes to `drain`.
    pub(crate) fn take_others(&self, drain: &Rc<Client>, fencing: bool) -> Vec<(Pending, BytesMut)> {
        self.inner.borrow_mut().connection.queue_mut().take_others(drain, fencing)
    }

    /// Takes out those whom the oldest command asks for.
    pub(crate) fn take_sharers(&self) -> Vec<(Pending, BytesMut)> {
        self.inner.borrow_mut().connection.queue_mut().take_sharers()
    }

    /// What this client, who has left, has yet to ask, and only reads, is not asked.
    pub(crate) fn withdraw(&self, client: &Rc<Client>) {
        let mut inner = self.inner.borrow_mut();
        inner.connection.queue_mut().withdraw(client);
        inner.connection.wake();
    }

    /// Whether what is outstanding is nobody's.
    pub(crate) fn is_for_nobody(&self) -> bool {
        self.inner.borrow().connection.queue().is_for_nobody()
    }

    /// Takes out the oldest command and what its client has sent behind it, if it may be sent again. What the node answers
    /// to that goes to `drain`.
    pub(crate) fn take_front(&self, drain: &Rc<Client>, fencing: bool) -> Vec<(Pending, BytesMut)> {
        self.inner.borrow_mut().connection.queue_mut().take_own(drain, fencing)
    }
}
