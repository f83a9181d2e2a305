//! In-band proof: `ROLE` in front of reads on a replica's lane, and what comes of it.

use std::rc::Rc;
use std::sync::Arc;

use crate::core::moment::Moment;
use crate::core::nodes::node::NodeId;
use crate::core::nodes::proof::Generation;
use crate::core::nodes::view::View;
use crate::core::repeat::PendingKind;
use crate::mutant;
use crate::proxy::downstream::replies::Client;
use crate::proxy::upstream::lane::{Closed, Lane, Process, Withdrawal};
use crate::proxy::upstream::pending::Pending;
use crate::proxy::worker::Worker;
use crate::wire::answer;
use crate::wire::role::RoleReport;

impl Worker {
    /// Asks the lane's node for a proof, in front of what the lane takes next.
    pub fn ask_for_proof(&self, lane: &Rc<Lane>, now: Moment) {
        let generation = self.proofs.borrow().generation(lane.key.node);
        lane.ask(|| Pending::own(PendingKind::Proof, generation.0, self.discard(), self.shard, now));
    }

    /// `ROLE` was answered: the reads behind it on this lane see at least what it says. Unless the node has gone back since
    /// it was `asked`: then nobody knows whether it had done so when it answered.
    pub fn take_proof(&self, lane: &Lane, asked: &Pending, reply: &[u8], now: Moment) {
        let (node, view) = (lane.key.node, self.shared.shard().view.load());
        self.proofs.borrow_mut().renew(&view, now);
        let generation = Generation(asked.seq);
        if self.proofs.borrow().generation(node) != generation {
            return lane.prove(None);
        }
        let proof = parse(reply).and_then(|report| match report {
            RoleReport::Replica { host, port, state, applied } => {
                view.proves(node, state.link(), &(host, port), applied)
            }
            RoleReport::Primary { .. } | RoleReport::Sentinel { .. } => None,
        });
        lane.prove(proof);
        if let Some(applied) = proof {
            self.proofs.borrow_mut().prove(node, applied, view.era, generation);
        }
    }

    /// A replica has told on a connection of this worker that it has emptied its data: by a full resync, after which it may
    /// be behind what it had, or because the primary has emptied its own. What is on its way there is asked of the primary
    /// instead, and it gets no reads until it has said what it holds.
    pub fn doubt(&self, node: NodeId, now: Moment) {
        self.proofs.borrow_mut().doubt(node, now);
        self.snapshot.forget_fit();
        self.void_reads_at(node);
        self.shared.shard().attention.look_now();
    }

    /// Listens whether a replica tells that it has emptied its data, before replies of it are handed on that came on a
    /// connection on which it cannot say so.
    pub fn listen(&self, node: NodeId, now: Moment) {
        let Some(watch) = self.shared.shard().emptied.get(node.index()) else { return };
        let news = watch.news();
        {
            let mut heard = self.heard.borrow_mut();
            let Some(heard) = heard.get_mut(node.index()) else { return };
            if news == Some(*heard) {
                return;
            }
            *heard = news.unwrap_or(*heard);
        }
        if !self.is_primary(node) {
            self.doubt(node, now);
        }
    }

    /// Looks whether the view tells of replicas that may have gone back, before a reply of one is handed on.
    pub fn notice_view(&self, now: Moment) {
        let known = self.snapshot.look();
        if Arc::ptr_eq(&known.view, &self.noticed.borrow()) {
            return;
        }
        let before = self.noticed.replace(Arc::clone(&known.view));
        self.proofs.borrow_mut().renew(&known.view, now);
        for (old, new) in before.nodes.iter().zip(&known.view.nodes) {
            let is_another = (old.id, old.incarnation) != (new.id, new.incarnation);
            if is_another && known.view.primary != Some(old.id) {
                self.void_reads_at(old.id);
            }
        }
        self.close_lanes_elsewhere(&known.view);
    }

    /// Closes connections that lead to another process than the one that the view tells of: behind one address there may
    /// be several, and each connection to it may have come to another one. What is on its way there is asked anew.
    fn close_lanes_elsewhere(&self, view: &View) {
        if mutant::is("any-process") {
            return;
        }
        self.lanes.each_shared(|lane| {
            let known = view.node(lane.key.node).and_then(|node| node.process());
            if lane.process.get().is_another(Process::of(known)) {
                lane.void_reads();
                lane.close(Closed::Withdrawn(Withdrawal::Moved));
            }
        });
    }

    fn void_reads_at(&self, node: NodeId) {
        self.lanes.each_shared(|lane| {
            if lane.key.node == node {
                lane.void_reads();
            }
        });
    }

    /// Whether the replica of a client may have gone back since it was chosen; the client's session then counts as having
    /// seen everything up to now.
    pub fn leave_generation(&self, client: &Client, view: &View, now: Moment) -> bool {
        let mut session = client.session(self.shard).borrow_mut();
        let Some(home) = session.home else { return false };
        let mut proofs = self.proofs.borrow_mut();
        proofs.renew(view, now);
        session.leaves_generation(proofs.generation(home.node), self.shared.shard().anchors.next())
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
    RoleReport::parse(&answer::decode(reply).ok()?).ok()
}
