//! Making way: a lane with a long reply on it leaves the pool, and nobody waits behind it who need not.
//!
//! New commands get another lane at once. Reads that were already behind it are sent again there. If others still wait,
//! because they write, the long reply itself is asked for again, on a lane of its own, and what arrives here is dropped
//! as fast as the node sends it. So a client that takes its time with a long reply makes nobody wait, and its lane may
//! wait for it. When the lane is through it goes back to the pool.

use std::rc::Rc;

use rustc_hash::FxHashMap;

use crate::core::moment::Moment;
use crate::net::runtime::limits;
use crate::proxy::upstream::lane::{Closed, Lane, LaneKey};
use crate::proxy::upstream::pending::Pending;
use crate::proxy::worker::Worker;

/// Shared lanes that are not in the pool.
#[derive(Debug, Default)]
pub(crate) struct Aside {
    /// A long reply is on them.
    busy: Vec<Rc<Lane>>,
    /// They are through, and others have taken their place.
    idle: FxHashMap<LaneKey, Vec<Rc<Lane>>>,
}

impl Aside {
    /// An idle one of this key.
    pub(crate) fn take(&mut self, key: LaneKey) -> Option<Rc<Lane>> {
        let idle = self.idle.get_mut(&key)?;
        while let Some(lane) = idle.pop() {
            if lane.is_usable() {
                return Some(lane);
            }
        }
        None
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Rc<Lane>> {
        self.busy.iter().chain(self.idle.values().flatten())
    }

    /// The lane ended.
    pub(crate) fn forget(&mut self, lane: &Rc<Lane>) {
        self.busy.retain(|known| !Rc::ptr_eq(known, lane));
        if let Some(idle) = self.idle.get_mut(&lane.key) {
            idle.retain(|known| !Rc::ptr_eq(known, lane));
        }
    }
}

impl Worker {
    /// The oldest command of a shared lane has a long reply, or its client is slow. With `afresh` nothing of the reply
    /// was passed on. True when it was asked for again, so that what arrives is nobody's.
    pub fn make_way(self: &Rc<Self>, lane: &Rc<Lane>, afresh: bool, now: Moment) -> bool {
        let fencing = self.shared.fencing;
        self.set_aside(lane);
        self.send_again(lane.take_others(&self.nobody(), fencing), |key| self.lane(key), lane, now);
        if !afresh || !lane.is_in_the_way() {
            return false;
        }
        let own = lane.take_front(&self.nobody(), fencing);
        let moved = !own.is_empty();
        if moved {
            let apart = self.open_lane(lane.key);
            self.set_aside(&apart);
            self.send_again(own, |_| Rc::clone(&apart), lane, now);
        }
        moved
    }

    fn send_again(
        &self,
        taken: Vec<(Pending, bytes::BytesMut)>,
        to: impl Fn(LaneKey) -> Rc<Lane>,
        from: &Lane,
        now: Moment,
    ) {
        for (pending, request) in taken {
            let lane = to(from.key);
            if pending.need.is_some() {
                // What the node has proven on the other connection may be among what has yet to be read there.
                self.ask_for_proof(&lane, now);
            }
            self.stats.repeated_reads.add(1);
            lane.push_bytes(&request, pending);
        }
    }

    fn set_aside(&self, lane: &Rc<Lane>) {
        if lane.is_on_detour() {
            return;
        }
        self.leave_pool(lane);
        lane.set_on_detour(true);
        self.aside.borrow_mut().busy.push(Rc::clone(lane));
    }

    /// The lane has nothing outstanding any more: it is one like others again.
    pub fn come_back(&self, lane: &Rc<Lane>) {
        let mut aside = self.aside.borrow_mut();
        aside.forget(lane);
        let idle = aside.idle.entry(lane.key).or_default();
        if idle.len() < limits::LANES_KEPT {
            lane.set_on_detour(false);
            idle.push(Rc::clone(lane));
        } else {
            lane.close(Closed::Idle);
        }
    }
}
