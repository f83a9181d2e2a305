//! Proofs asked for in band: what the replicas have shown to have applied, and whether asking is worth it.
//!
//! A `ROLE` in front of a read, on the same connection, is a lower bound of what that read sees, and of what every later
//! read on any connection to the same process sees: until the process goes back, as it does in a full resync from
//! somebody who is behind it. Whatever shows that ends a *generation* of the node: the view, by another incarnation, or a
//! connection on which the node itself says that it has emptied its data. What was proven in one generation is void in
//! the next, and so is what was asked in one and answered in the next.
//!
//! A read sent on the hope that the answer will do is repeated on the
//! primary when it does not; a replica whose answers do not do is left alone for a while, twice as long each time.

use std::time::Duration;

use crate::core::fence::Era;
use crate::core::moment::Moment;
use crate::core::nodes::node::NodeId;
use crate::core::nodes::view::View;
use crate::core::position::Offset;
use crate::mutant;

/// The first pause after a failure.
const PAUSE_FIRST: Duration = Duration::from_millis(1);
/// The longest pause.
const PAUSE_LONGEST: Duration = Duration::from_millis(128);

/// What one worker knows of every node from its own connections.
#[derive(Clone, Debug, Default)]
pub struct Proofs {
    era: Era,
    proven: Vec<Option<Offset>>,
    may_try: Vec<bool>,
    pauses: Vec<(Moment, Duration)>,
    lives: Vec<Life>,
    in_doubt: Vec<bool>,
}

/// What ends what is known of one node.
#[derive(Clone, Copy, Debug)]
struct Life {
    generation: Generation,
    /// Whom all this is about.
    node: NodeId,
    /// [`Node::incarnation`](crate::core::nodes::node::Node::incarnation), as far as it is known here.
    incarnation: u32,
    /// When the node was last heard to empty its data, as long as it has not answered since.
    doubted: Option<Moment>,
}

impl Life {
    const fn of(node: NodeId) -> Self {
        Self { generation: Generation(0), node, incarnation: 0, doubted: None }
    }
}

/// Counts what ends what is known of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Generation(pub u64);

impl Proofs {
    /// For so many places of nodes.
    pub fn new(nodes: usize) -> Self {
        Self {
            era: Era(0),
            proven: vec![None; nodes],
            may_try: vec![true; nodes],
            pauses: vec![(Moment::default(), PAUSE_FIRST); nodes],
            lives: (0..nodes).map(|place| Life::of(NodeId(place as u32))).collect(),
            in_doubt: vec![false; nodes],
        }
    }

    /// Drops what another history or another incarnation of a node proved, and ends the pauses and the doubts that are
    /// over.
    pub fn renew(&mut self, view: &View, now: Moment) {
        if self.era != view.era {
            self.era = view.era;
            self.proven.fill(None);
        }
        let own = self.lives.iter_mut().zip(&mut self.proven).zip(&mut self.in_doubt);
        for (node, ((life, proven), in_doubt)) in view.nodes.iter().zip(own) {
            if (life.node, life.incarnation) != (node.id, node.incarnation) {
                (life.node, life.incarnation, *proven) = (node.id, node.incarnation, None);
                life.generation.0 += 1;
            }
            if life.doubted.is_some_and(|since| node.heard_at.is_some_and(|asked| asked > since)) {
                (life.doubted, *in_doubt) = (None, false);
            }
        }
        for (may, (until, _)) in self.may_try.iter_mut().zip(&self.pauses) {
            *may = *may || now >= *until;
        }
    }

    /// What each node has proven to have applied.
    pub fn proven(&self) -> &[Option<Offset>] {
        &self.proven
    }

    /// Of which nodes a proof may be asked.
    pub fn may_try(&self) -> &[bool] {
        &self.may_try
    }

    /// Nodes whose data may have been replaced since they last said what they hold.
    pub fn in_doubt(&self) -> &[bool] {
        &self.in_doubt
    }

    /// What a proof of `node` that is asked for now, a connection that stays with it, and a session that reads from it
    /// rest on.
    pub fn generation(&self, node: NodeId) -> Generation {
        self.lives.get(node.index()).map_or(Generation::default(), |life| life.generation)
    }

    /// `node` was heard at `now` to empty its data, on a connection of this worker. It is in doubt until the view has an
    /// answer of it to a question that was sent later.
    pub fn doubt(&mut self, node: NodeId, now: Moment) {
        let own = (self.lives.get_mut(node.index()), self.proven.get_mut(node.index()));
        let in_doubt = self.in_doubt.get_mut(node.index());
        if let ((Some(life), Some(proven)), Some(in_doubt)) = (own, in_doubt) {
            life.generation.0 += 1;
            (life.doubted, *proven, *in_doubt) = (Some(now), None, true);
        }
    }

    /// `node` has proven to have applied `applied`, in the history of `era`; it was asked in `generation`.
    pub fn prove(&mut self, node: NodeId, applied: Offset, era: Era, generation: Generation) {
        if self.era == era
            && self.generation(node) == generation
            && let Some(proven) = self.proven.get_mut(node.index())
        {
            *proven = (*proven).max(Some(applied));
        }
    }

    /// A read needed more than `node` could prove.
    pub fn failed(&mut self, node: NodeId, now: Moment) {
        if let (Some(may), Some((until, pause))) =
            (self.may_try.get_mut(node.index()), self.pauses.get_mut(node.index()))
            && *may
        {
            *may = false;
            *until = now.after(*pause);
            *pause = (*pause * 2).min(PAUSE_LONGEST);
        }
    }

    /// A read got the proof that it needed.
    pub fn succeeded(&mut self, node: NodeId) {
        if let Some((_, pause)) = self.pauses.get_mut(node.index()) {
            *pause = PAUSE_FIRST;
        }
    }

    /// A connection to `node` was lost: it may be another process by now.
    pub fn lost(&mut self, node: NodeId) {
        if let Some(proven) = self.proven.get_mut(node.index()) {
            *proven = None;
        }
    }
}

/// Whether a proof is enough for what a read needs.
pub fn suffices(proof: Option<Offset>, need: Offset) -> bool {
    mutant::is("proof-ignored") || proof.is_some_and(|applied| applied >= need)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::address::Address;
    use crate::core::nodes::view::{Observation, Patience, Tracker};
    use crate::core::policy::Policies;

    fn view() -> View {
        let limits = Patience { silence: Duration::from_secs(1), hold: Duration::from_secs(1) };
        let policies = Policies::default();
        let names = ["primary", "replica"].map(|host| Address::tcp(host, 1)).to_vec();
        Tracker::new(names, Some(NodeId(0)), policies, limits).view().clone()
    }

    #[test]
    fn what_fails_is_left_alone_for_longer_and_longer() {
        let (mut proofs, node, view) = (Proofs::new(2), NodeId(1), view());
        let mut now = Moment::from_millis(1000);
        for pause in [1, 2, 4, 8, 16, 32, 64, 128, 128] {
            assert!(proofs.may_try()[1]);
            proofs.failed(node, now);
            proofs.failed(node, now);
            proofs.renew(&view, now.after(Duration::from_micros(pause * 1000 - 1)));
            assert!(!proofs.may_try()[1], "{pause} ms");
            now = now.after(Duration::from_millis(pause));
            proofs.renew(&view, now);
        }
        proofs.succeeded(node);
        proofs.failed(node, now);
        proofs.renew(&view, now.after(PAUSE_FIRST));
        assert!(proofs.may_try()[1]);
    }

    #[test]
    fn a_proof_holds_for_its_history_and_its_process() {
        let (mut proofs, node, mut view) = (Proofs::new(2), NodeId(1), view());
        let first = proofs.generation(node);
        proofs.prove(node, Offset::new(50), Era(0), first);
        proofs.prove(node, Offset::new(40), Era(0), first);
        assert_eq!(proofs.proven()[1], Some(Offset::new(50)));
        view.era = Era(1);
        proofs.renew(&view, Moment::default());
        assert_eq!(proofs.proven()[1], None);
        proofs.prove(node, Offset::new(60), Era(0), first);
        assert_eq!(proofs.proven()[1], None, "asked before the history changed");
        proofs.prove(node, Offset::new(60), Era(1), first);
        proofs.lost(node);
        assert_eq!(proofs.proven()[1], None);
        assert!(suffices(Some(Offset::new(60)), Offset::new(60)));
        assert!(!suffices(Some(Offset::new(59)), Offset::new(60)) && !suffices(None, Offset::new(0)));
    }

    #[test]
    fn a_proof_is_void_in_another_incarnation() {
        let (mut proofs, node, mut view) = (Proofs::new(2), NodeId(1), view());
        let asked_in = proofs.generation(node);
        proofs.prove(node, Offset::new(50), Era(0), asked_in);
        view.nodes[1].incarnation += 1;
        proofs.renew(&view, Moment::default());
        assert_eq!(proofs.proven()[1], None);
        proofs.prove(node, Offset::new(60), Era(0), asked_in);
        assert_eq!(proofs.proven()[1], None, "it was asked before the node went back");
    }

    #[test]
    fn a_node_that_has_emptied_its_data_is_in_doubt_until_it_has_answered_again() {
        let (mut proofs, node) = (Proofs::new(2), NodeId(1));
        let at = Moment::from_millis;
        let limits = Patience { silence: Duration::from_secs(1), hold: Duration::from_secs(1) };
        let names = ["primary", "replica"].map(|host| Address::tcp(host, 1)).to_vec();
        let mut tracker = Tracker::new(names, None, Policies::default(), limits);
        let asked_in = proofs.generation(node);
        proofs.prove(node, Offset::new(50), Era(0), asked_in);
        proofs.doubt(node, at(10));
        assert_ne!(proofs.generation(node), asked_in);
        assert_eq!((proofs.proven()[1], proofs.in_doubt()), (None, &[false, true][..]));
        let _ = tracker.apply(Observation::Busy { node }, at(10));
        proofs.renew(tracker.view(), at(11));
        let answer = |tracker: &mut Tracker, asked| {
            let master = ("primary".to_owned(), 1);
            let link = crate::core::nodes::node::Link::Up;
            let applied = Some(Offset::new(40));
            let _ = tracker.apply(Observation::Replica { node, link, master, applied }, asked);
        };
        answer(&mut tracker, at(10));
        proofs.renew(tracker.view(), at(11));
        assert_eq!(proofs.in_doubt(), &[false, true], "asked before it was heard");
        answer(&mut tracker, at(11));
        proofs.renew(tracker.view(), at(12));
        assert_eq!(proofs.in_doubt(), &[false, false]);
    }
}
