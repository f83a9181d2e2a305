//! Who waits for a client that does not keep up, and how long.
//!
//! A long reply waits in its lane, so that of however many bytes a few are held. Whole replies pile up to a good part of
//! `client-output-buffer-limit` before anything waits, as Redis would pile them up: a client may write a long
//! pipeline to its end before it reads the first reply. Beyond that neither its replies nor its commands are read, as
//! long as it takes anything at all.

use std::task::Waker;

use super::Client;
use crate::net::runtime::limits;

impl Client {
    /// Bytes waiting to be written.
    pub fn output_len(&self) -> usize {
        let inner = self.inner.borrow();
        inner.out.len() + inner.kept
    }

    /// Whether more of its commands may be read now. Of one that is gone none are, as on Redis: what it was owed is
    /// forgotten, and with it what has to wait for what.
    pub fn has_room(&self) -> bool {
        let inner = self.inner.borrow();
        inner.gone.is_none()
            && inner.slots.len() < limits::CLIENT_PENDING
            && inner.out.len() + inner.kept < self.output_limit / 2
    }

    /// Whether a lane should wait with more of the reply of slot `seq`, or, of a `long` one, with more of it. If so,
    /// `waker` is woken when it should look again.
    pub fn should_pause(&self, seq: u64, long: bool, waker: &Waker) -> bool {
        let mut inner = self.inner.borrow_mut();
        // A client whose commands are not read, for there are too many, may be writing more before it reads anything.
        let most = if long && inner.slots.len() < limits::CLIENT_PENDING {
            limits::LANE_PAUSE.min(self.output_limit / 3)
        } else {
            self.output_limit / 3
        };
        // What has its turn does not wait for what is kept, but the other way round.
        let waiting = if seq == inner.head { inner.out.len() } else { inner.kept };
        let pause = inner.gone.is_none() && waiting > most;
        if pause && !inner.paused_lanes.iter().any(|w| w.will_wake(waker)) {
            inner.paused_lanes.push(waker.clone());
        }
        pause
    }

    /// Whether little waits to be written or for its turn.
    pub fn keeps_up(&self) -> bool {
        let inner = self.inner.borrow();
        inner.out.len() + inner.kept < limits::LANE_PAUSE / 2
    }

    /// Bytes that it has taken up to now.
    pub fn taken(&self) -> u64 {
        self.inner.borrow().taken
    }

    /// Whether it has asked for more than the reply that is just arriving: then it may be that it reads nothing before
    /// it has sent everything.
    pub fn wants_more(&self) -> bool {
        let inner = self.inner.borrow();
        inner.slots.len() > 1 || inner.waits
    }
}
