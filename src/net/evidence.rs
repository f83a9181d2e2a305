//! In-band proof: `ROLE` in front of reads on a replica's lane, and what comes of it.

use std::rc::Rc;

use redis_protocol::resp2::decode::decode_bytes;

use super::lane::Lane;
use super::pending::{Kind, Pending, Rewrite};
use super::prober::link_of;
use super::worker::Worker;
use crate::core::moment::Moment;
use crate::core::node::NodeId;
use crate::core::policy::PolicyId;
use crate::core::session::Stamps;
use crate::wire::role::RoleReport;

impl Worker {
    /// Asks the lane's node for a proof, in front of what the lane takes next.
    pub fn ask_for_proof(&self, lane: &Rc<Lane>, now: Moment) {
        lane.ask(|| {
            self.load(lane.key.node);
            Pending {
                client: self.nobody(),
                seq: 0,
                len: 0,
                kind: Kind::Proof,
                rewrite: Rewrite::None,
                policy: PolicyId::default(),
                stamps: Stamps::None,
                at_primary: false,
                sees_all: false,
                need: None,
                begun: now,
                sent: now,
            }
        });
    }

    /// `ROLE` was answered: the reads behind it on this lane see at least what it says.
    pub fn take_proof(&self, lane: &Lane, reply: &[u8]) {
        let view = self.shared.view.load();
        let proof = parse(reply).and_then(|report| match report {
            RoleReport::Replica { host, port, state, applied } => {
                view.proves(lane.key.node, link_of(state), &(host, port), applied)
            }
            RoleReport::Primary { .. } | RoleReport::Sentinel { .. } => None,
        });
        lane.prove(proof);
        if let Some(applied) = proof {
            self.proofs.borrow_mut().prove(lane.key.node, applied, view.era);
        }
    }

    /// A read that was sent on hope is answered, behind a proof that was enough, or not.
    pub fn judge_attempt(&self, node: NodeId, proven: bool, now: Moment) {
        let mut proofs = self.proofs.borrow_mut();
        if proven {
            self.stats.optimistic_proven.add(1);
            proofs.succeeded(node);
        } else {
            self.stats.optimistic_repeated.add(1);
            proofs.failed(node, now);
        }
    }
}

/// The reply is the same in RESP2 and RESP3.
fn parse(reply: &[u8]) -> Option<RoleReport> {
    let (frame, _) = decode_bytes(&bytes::Bytes::copy_from_slice(reply)).ok()??;
    RoleReport::parse(&frame).ok()
}
