//! Asks exclusive lanes that nobody uses whether they still work ([`crate::proxy::worker::lanes`]).

use std::rc::Rc;

use crate::core::moment::Moment;
use crate::core::policy::PolicyId;
use crate::core::repeat::PendingKind;
use crate::core::session::Stamps;
use crate::net::runtime::clock;
use crate::net::runtime::limits;
use crate::proxy::upstream::pending::{Pending, Rewrite};
use crate::proxy::worker::Worker;
use crate::telemetry::AccessLabel;

impl Worker {
    /// Asks idle lanes, now and then, as long as the worker runs.
    pub(crate) async fn check_idle_lanes(self: Rc<Self>) {
        loop {
            tokio::time::sleep(limits::IDLE_CHECK).await;
            let now = clock::now();
            for lane in self.lanes.to_check(now) {
                lane.push_bytes(PING, self.check(now));
            }
        }
    }

    fn check(&self, now: Moment) -> Pending {
        Pending {
            client: self.discard(),
            seq: 0,
            len: 0,
            access: AccessLabel::Other,
            kind: PendingKind::Check,
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
