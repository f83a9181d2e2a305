//! The oldest command of a lane: the next reply is its.

use std::rc::Rc;

use super::{Client, Kind, Lane, Rewrite, Stamps};
use crate::core::moment::Moment;

impl Lane {
    /// When the oldest outstanding command was taken.
    pub fn oldest(&self) -> Option<Moment> {
        self.inner.borrow().pending.front().map(|p| p.begun)
    }

    /// The client of the oldest outstanding command, and its slot there.
    pub fn front(&self) -> Option<(Rc<Client>, u64)> {
        self.inner.borrow().pending.front().map(|p| (Rc::clone(&p.client), p.seq))
    }

    /// The same, to pass on a part of its reply.
    pub fn cut_front(&self) -> Option<(Rc<Client>, u64)> {
        self.inner.borrow_mut().cut = true;
        self.front()
    }

    /// What the oldest outstanding command has written, if it writes.
    pub fn front_written(&self) -> Stamps {
        let inner = self.inner.borrow();
        let written = inner.pending.front().filter(|front| front.kind == Kind::Write);
        written.map_or(Stamps::None, |front| front.stamps.clone())
    }

    /// The node may have gone back: whatever it still answers to what was asked before counts for nothing. But for a reply
    /// whose beginning was passed on: that was computed before.
    pub fn void_reads(&self) {
        let mut inner = self.inner.borrow_mut();
        let begun = usize::from(inner.cut);
        inner.pending.iter_mut().skip(begun).for_each(|pending| pending.void = true);
        inner.proof = None;
    }

    /// What is changed in the reply to the oldest outstanding command.
    pub fn front_rewrite(&self) -> Rewrite {
        self.inner.borrow().pending.front().map_or(Rewrite::None, |p| p.rewrite)
    }

    /// Whether the oldest command needs more than the last `ROLE` proved.
    pub fn front_lacks_proof(&self) -> bool {
        let inner = self.inner.borrow();
        inner.pending.front().is_some_and(|front| {
            front.lacks_proof(inner.proof) || front.is_void() || front.follows_repeated()
        })
    }
}
