//! Proofs asked for in band: what the replicas have shown to have applied, and whether asking is worth it.
//!
//! A `ROLE` in front of a read, on the same connection, is a lower bound of what that read sees, and of what every later
//! read on any connection to the same process sees. A read sent on the hope that the answer will do is repeated on the
//! primary when it does not; a replica whose answers do not do is left alone for a while, twice as long each time.

use std::time::Duration;

use super::fence::Era;
use super::moment::Moment;
use super::node::NodeId;
use super::position::Offset;

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
}

impl Proofs {
    /// For so many nodes.
    pub fn new(nodes: usize) -> Self {
        Self {
            era: Era(0),
            proven: vec![None; nodes],
            may_try: vec![true; nodes],
            pauses: vec![(Moment::default(), PAUSE_FIRST); nodes],
        }
    }

    /// Drops what another history proved, and ends the pauses that are over.
    pub fn renew(&mut self, era: Era, now: Moment) {
        if self.era != era {
            self.era = era;
            self.proven.fill(None);
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

    /// `node` has proven to have applied `applied`, in the history of `era`.
    pub fn prove(&mut self, node: NodeId, applied: Offset, era: Era) {
        if self.era == era
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
    cfg!(mutant = "proof-ignored") || proof.is_some_and(|applied| applied >= need)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_left_alone_for_longer_and_longer() {
        let (mut proofs, node) = (Proofs::new(2), NodeId(1));
        let mut now = Moment::from_millis(1000);
        for pause in [1, 2, 4, 8, 16, 32, 64, 128, 128] {
            assert!(proofs.may_try()[1]);
            proofs.failed(node, now);
            proofs.failed(node, now);
            proofs.renew(Era(0), now.after(Duration::from_micros(pause * 1000 - 1)));
            assert!(!proofs.may_try()[1], "{pause} ms");
            now = now.after(Duration::from_millis(pause));
            proofs.renew(Era(0), now);
        }
        proofs.succeeded(node);
        proofs.failed(node, now);
        proofs.renew(Era(0), now.after(PAUSE_FIRST));
        assert!(proofs.may_try()[1]);
    }

    #[test]
    fn a_proof_holds_for_its_history_and_its_process() {
        let (mut proofs, node) = (Proofs::new(2), NodeId(1));
        proofs.prove(node, Offset::new(50), Era(0));
        proofs.prove(node, Offset::new(40), Era(0));
        assert_eq!(proofs.proven()[1], Some(Offset::new(50)));
        proofs.renew(Era(1), Moment::default());
        assert_eq!(proofs.proven()[1], None);
        proofs.prove(node, Offset::new(60), Era(0));
        assert_eq!(proofs.proven()[1], None, "asked before the history changed");
        proofs.prove(node, Offset::new(60), Era(1));
        proofs.lost(node);
        assert_eq!(proofs.proven()[1], None);
        assert!(suffices(Some(Offset::new(60)), Offset::new(60)));
        assert!(!suffices(Some(Offset::new(59)), Offset::new(60)) && !suffices(None, Offset::new(0)));
    }
}
