//! Exclusive lanes that nobody uses at the moment: kept for the next who needs one, looked after meanwhile.
//!
//! Only a lane without state and with nothing outstanding is kept. Each is asked now and then whether it still works, so
//! that nobody is given a connection that died in silence; what is not needed for a while is closed.

use std::rc::Rc;

use crate::core::moment::Moment;
use crate::core::policy::PolicyId;
use crate::core::session::Stamps;
use crate::mutant;
use crate::net::runtime::clock;
use crate::net::runtime::limits;
use crate::proxy::upstream::lane::{Closed, Lane, LaneKey};
use crate::proxy::upstream::pending::{Kind, Pending, Rewrite};
use crate::proxy::worker::Worker;

impl Worker {
    /// An exclusive lane of this key: a clean spare one, or a new one.
    pub fn exclusive_lane(self: &Rc<Self>, key: LaneKey) -> Rc<Lane> {
        let mut spare = self.spare.borrow_mut();
        if let Some(kept) = spare.get_mut(&key) {
            kept.retain(|lane| lane.is_usable());
            // One that is being checked has a reply on its way that is not its next client's.
            let free = kept.iter().rposition(|lane| lane.is_idle() || mutant::is("checked-given-away"));
            if let Some(free) = free {
                return kept.remove(free);
            }
        }
        drop(spare);
        self.start(key, true)
    }

    /// Takes back an exclusive lane that carries no state and has nothing outstanding.
    pub fn give_back(&self, lane: &Rc<Lane>) {
        let mut spare = self.spare.borrow_mut();
        let kept = spare.entry(lane.key).or_default();
        if lane.is_usable() && lane.is_idle() && !lane.tainted.get() && kept.len() < limits::SPARE_KEPT {
            lane.idle_since.set(clock::now());
            kept.push(Rc::clone(lane));
        } else {
            lane.close(Closed::Idle);
        }
    }

    /// Asks spare lanes whether they still work, and closes those that do not answer, and those that have not been needed
    /// for a while.
    pub async fn look_after_spare(self: Rc<Self>) {
        loop {
            tokio::time::sleep(limits::SPARE_CHECK).await;
            let now = clock::now();
            self.spare.borrow_mut().retain(|_, lanes| {
                lanes.retain(|lane| {
                    let unneeded = now.since(lane.idle_since.get()) >= limits::LANE_IDLE;
                    if unneeded || !lane.is_idle() {
                        lane.close(Closed::Idle);
                    }
                    lane.is_usable()
                });
                !lanes.is_empty()
            });
            for lane in self.spare.borrow().values().flatten() {
                lane.push_bytes(PING, self.check(now));
            }
        }
    }

    fn check(&self, now: Moment) -> Pending {
        Pending {
            client: self.nobody(),
            seq: 0,
            len: 0,
            kind: Kind::Check,
            rewrite: Rewrite::None,
            policy: PolicyId::default(),
            stamps: Stamps::None,
            at_primary: false,
            sees_all: false,
            need: None,
            void: false,
            begun: now,
            sent: now,
        }
    }
}

const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";
