//! The oldest command of a lane: the next reply is its.

use std::rc::Rc;

use super::{Client, Lane, Rewrite};
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

    /// What is changed in the reply to the oldest outstanding command.
    pub fn front_rewrite(&self) -> Rewrite {
        self.inner.borrow().pending.front().map_or(Rewrite::None, |p| p.rewrite)
    }

    /// Whether the oldest command needs more than the last `ROLE` proved.
    pub fn front_lacks_proof(&self) -> bool {
        let inner = self.inner.borrow();
        inner.pending.front().is_some_and(|front| front.lacks_proof(inner.proof) || front.follows_repeated())
    }
}
