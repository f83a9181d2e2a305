//! A command that is passed on as it comes, on an exclusive lane: its bytes are let go once they are written, so that
//! the lane holds a part of it at most, however long it is. Nothing else is outstanding meanwhile.
//!
//! Until its last byte is written the connection is worth nothing to anybody else. The node has no reason to answer
//! before; if it does (it calls the command a protocol error), the answer is passed on and the lane ends.

use std::rc::Rc;
use std::task::Waker;

use bytes::{Buf, BytesMut};

use super::{Inner, Lane, Pending, Phase};
use crate::net::runtime::limits;
use crate::wire::request::Request;

/// How far a command that is passed on as it comes has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passing {
    /// There is none.
    Nothing,
    /// Some of it has yet to come from the client.
    Open,
    /// All of it is in the buffer, or written.
    Complete,
}

impl Passing {
    /// Whether the node may have executed what was taken, as far as this is about it; `unsent` is not written yet.
    pub(super) fn is_over(self, unsent: &[u8]) -> bool {
        match self {
            Self::Nothing => true,
            Self::Open => false,
            Self::Complete => unsent.is_empty(),
        }
    }
}

impl Lane {
    /// Takes a command of which only the beginning is there.
    pub(super) fn push_beginning(self: &Rc<Self>, request: &Request<'_>, mut pending: Pending) {
        let mut inner = self.inner.borrow_mut();
        request.encode_into(&mut inner.buffer);
        inner.passing = Passing::Open;
        pending.len = 0;
        inner.pending.push_back(pending);
        self.mark_dirty(inner);
    }

    /// Takes what `write` appends of the command that is being passed on; it says whether that was the last of it.
    pub fn pass<E>(
        self: &Rc<Self>,
        write: impl FnOnce(&mut BytesMut) -> Result<(usize, bool), E>,
    ) -> Result<(usize, bool), E> {
        let mut inner = self.inner.borrow_mut();
        let (used, complete) = write(&mut inner.buffer)?;
        if complete {
            inner.passing = Passing::Complete;
        }
        self.mark_dirty(inner);
        Ok((used, complete))
    }

    /// Whether a command that is passed on as it comes is outstanding: nothing is taken behind it.
    pub fn is_passing(&self) -> bool {
        self.inner.borrow().passing != Passing::Nothing
    }

    /// Whether more of the command that is being passed on may be taken; if not, `waker` is woken when it may be, or
    /// when the lane ends.
    pub fn takes_more(&self, waker: &Waker) -> bool {
        {
            let inner = self.inner.borrow();
            if inner.buffer.len() - inner.sent < limits::PASSED_AHEAD {
                return true;
            }
        }
        self.wake_on_change(waker);
        false
    }
}

impl Inner {
    /// Lets go of what is written.
    pub(super) fn let_passed_go(&mut self) {
        if self.passing == Passing::Nothing {
            return;
        }
        self.buffer.advance(self.sent);
        self.sent = 0;
        if self.passing == Passing::Complete && self.pending.is_empty() && self.buffer.is_empty() {
            // On a plain relay no reply tells the end.
            self.passing = Passing::Nothing;
        }
        if self.buffer.len() < limits::PASSED_AHEAD {
            self.wake_waiters();
        }
    }

    /// The command that was passed on is answered, if there was one.
    pub(super) fn end_passing(&mut self) {
        if self.passing == Passing::Nothing {
            return;
        }
        if !self.passing.is_over(&self.buffer[self.sent..]) && self.phase == Phase::Up {
            self.broken("the node answered before it had the whole command");
            self.wake_waiters();
        }
        if self.phase == Phase::Up {
            self.passing = Passing::Nothing;
        }
    }
}
