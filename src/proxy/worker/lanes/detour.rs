//! Making way: a lane with a long reply on it leaves the pool, and nobody waits behind it who need not.
//!
//! New commands get another lane at once. Reads that were already behind it are sent again there. If others still wait,
//! because they write, the long reply itself is asked for again, on a lane of its own, and what arrives here is dropped
//! as fast as the node sends it. So a client that takes its time with a long reply makes nobody wait, and its lane may
//! wait for it. When the lane is through it goes back to the pool.

use std::rc::Rc;

use crate::core::moment::Moment;
use crate::proxy::upstream::lane::{Lane, LaneKey};
use crate::proxy::upstream::pending::Pending;
use crate::proxy::worker::Worker;

impl Worker {
    /// The oldest command of a shared lane has a long reply, or its client is slow. With `afresh` nothing of the reply
    /// was passed on. True when it was asked for again, so that what arrives is nobody's.
    pub fn make_way(self: &Rc<Self>, lane: &Rc<Lane>, afresh: bool, now: Moment) -> bool {
        if lane.demoted.get() {
            // What it answers goes to the next primary; nothing more is asked of its node.
            return false;
        }
        let fencing = self.shared.fencing;
        self.lanes.send_on_detour(lane);
        self.send_again(lane.take_others(&self.discard(), fencing), |key| self.lane(key), lane, now);
        if !afresh || !lane.is_in_the_way() {
            return false;
        }
        let own = lane.take_front(&self.discard(), fencing);
        let moved = !own.is_empty();
        if moved {
            let apart = self.open_lane(lane.key);
            self.lanes.send_on_detour(&apart);
            self.send_again(own, |_| Rc::clone(&apart), lane, now);
        }
        moved
    }

    /// The reply to the oldest command is passed on as it comes, to its client: whoever shares it is asked for anew.
    pub(crate) fn share_no_longer(self: &Rc<Self>, lane: &Rc<Lane>, now: Moment) {
        self.send_again(lane.take_sharers(), |key| self.lane(key), lane, now);
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
}
