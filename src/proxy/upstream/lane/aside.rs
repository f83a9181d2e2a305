//! A lane that is out of the pool while a long reply is on it: nobody new queues behind it, and those who did and only
//! read are sent again elsewhere.
//!
//! What is sent again leaves a tombstone: the node answers it all the same, and that answer is nobody's. Of one client
//! all reads are sent again, or none; and none if it also writes one of their keys here: in the order in which it has
//! sent them it reads and writes.

use std::rc::Rc;

use bytes::BytesMut;
use rustc_hash::{FxHashMap, FxHashSet};

use super::{Inner, Lane};
use crate::proxy::downstream::replies::Client;
use crate::proxy::upstream::pending::Pending;

impl Lane {
    /// It leaves the pool.
    pub(crate) fn set_aside(&self, aside: bool) {
        let mut inner = self.inner.borrow_mut();
        inner.aside = aside;
        inner.stint += u32::from(aside);
        inner.wake_waiters();
    }

    /// How many times it has left the pool. Who knew it before must not take it for the same: what was sent again goes
    /// another way.
    pub fn stint(&self) -> u32 {
        self.inner.borrow().stint
    }

    /// Whether it is out of the pool.
    pub fn is_aside(&self) -> bool {
        self.inner.borrow().aside
    }

    /// Whether somebody waits behind the oldest command who is not its own client's later self.
    pub(crate) fn is_in_the_way(&self) -> bool {
        let inner = self.inner.borrow();
        let Some(front) = inner.pending.front() else { return false };
        let waits = |p: &Pending| {
            p.client.gone().is_none() && (!Rc::ptr_eq(&p.client, &front.client) || p.seq < front.seq)
        };
        inner.pending.iter().skip(1).any(waits)
    }

    /// Whether its node is in the middle of a reply that cannot be had elsewhere, for its beginning was passed on, and
    /// nobody else waits for it. A node that is busy with a long reply answers nothing else for a while.
    pub(crate) fn is_in_mid_reply(&self) -> bool {
        self.inner.borrow().cut && !self.is_in_the_way()
    }

    /// Its node is not to be asked any more, but is in the middle of a reply: the lane ends with that.
    pub(crate) fn retire(&self, why: &'static str) {
        let mut inner = self.inner.borrow_mut();
        inner.retired = Some(why);
        inner.server_id.set(None);
    }

    /// Why it ends now that a reply is through.
    pub(crate) fn retired(&self) -> Option<&'static str> {
        self.inner.borrow().retired
    }

    /// Takes out what others than the oldest command's client have sent behind it, if it may be sent again.
    pub(crate) fn take_others(&self, nobody: &Rc<Client>, fencing: bool) -> Vec<(Pending, BytesMut)> {
        let mut inner = self.inner.borrow_mut();
        let Some(front) = inner.pending.front().map(|p| Rc::clone(&p.client)) else { return Vec::new() };
        let bound = inner.bound(fencing);
        inner.take_out(nobody, |p| !Rc::ptr_eq(&p.client, &front) && !bound.contains(&Rc::as_ptr(&p.client)))
    }

    /// Takes out the oldest command and what its client has sent behind it, if it may be sent again.
    pub(crate) fn take_front(&self, nobody: &Rc<Client>, fencing: bool) -> Vec<(Pending, BytesMut)> {
        let mut inner = self.inner.borrow_mut();
        let Some(front) = inner.pending.front() else { return Vec::new() };
        if !front.may_move() || inner.bound(fencing).contains(&Rc::as_ptr(&front.client)) {
            return Vec::new();
        }
        let client = Rc::clone(&front.client);
        let mut own = inner.take_out(nobody, |p| Rc::ptr_eq(&p.client, &client));
        // What was repeated came to stand behind what was asked for later, which may have to wait for it.
        own.sort_by_key(|(pending, _)| pending.seq);
        own
    }
}

impl Inner {
    /// The clients whose reads must stay, because of what else of theirs is here. Found in one pass for each who has
    /// sent anything but reads, few of whom have sent reads, too.
    fn bound(&self, fencing: bool) -> FxHashSet<*const Client> {
        let mut fixed: FxHashMap<*const Client, Vec<&Pending>> = FxHashMap::default();
        for pending in self.pending.iter().filter(|p| !p.may_move() && p.client.gone().is_none()) {
            fixed.entry(Rc::as_ptr(&pending.client)).or_default().push(pending);
        }
        let mut bound = FxHashSet::default();
        for read in self.pending.iter().filter(|p| p.may_move()) {
            let client = Rc::as_ptr(&read.client);
            if fixed
                .get(&client)
                .is_some_and(|own| !own.iter().all(|other| other.is_apart_from(read, fencing)))
            {
                bound.insert(client);
            }
        }
        bound
    }

    fn take_out(
        &mut self,
        nobody: &Rc<Client>,
        chosen: impl Fn(&Pending) -> bool,
    ) -> Vec<(Pending, BytesMut)> {
        let (mut at, mut taken) = (0, Vec::new());
        for pending in &mut self.pending {
            let bytes = at..at + pending.len;
            at = bytes.end;
            if pending.may_move() && pending.client.gone().is_none() && chosen(pending) {
                let tombstone = pending.tombstone(nobody);
                taken.push((std::mem::replace(pending, tombstone), BytesMut::from(&self.buffer[bytes])));
            }
        }
        taken
    }
}
