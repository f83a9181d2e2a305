//! Who the primary is by the view, and what it means that another one is.

use super::{Effect, Tracker};
use crate::core::moment::Moment;
use crate::core::nodes::election::{Claim, Elected, Election};
use crate::core::nodes::node::{Node, NodeId, Role};

impl Tracker {
    /// Of a shard of a cluster, where it is not for its nodes to say who leads it.
    #[must_use]
    pub fn in_cluster(mut self) -> Self {
        self.election = Election::by_name();
        self
    }

    /// Whether it is to be asked at once who leads it.
    pub fn is_name_wanted(&self, now: Moment) -> bool {
        self.election.is_name_wanted(&self.view, now)
    }

    pub(super) fn hear_named(&mut self, node: Option<NodeId>, now: Moment) -> Effect {
        if !self.election.name(node, now) {
            return Effect::None;
        }
        let (primary, effect) = (self.view.primary, self.elect(now));
        if primary != self.view.primary {
            self.settle_rights();
        }
        self.view.least_applied = self.view.find_least_applied();
        effect
    }

    /// Settles who the primary is, and which history counts.
    pub(super) fn elect(&mut self, now: Moment) -> Effect {
        let elected = self.election.elect(&self.view, self.past, now);
        self.view.two_primaries = elected == Elected::Undecided;
        let ours = self.view.primary.and_then(|id| self.view.node(id));
        match elected {
            Elected::Node(id, claim) => return self.follow(id, claim),
            // The one we had says that it is a replica now: nobody is known until a successor says so itself.
            _ if ours.is_some_and(|node| node.role == Some(Role::Replica)) => self.view.primary = None,
            Elected::Nobody | Elected::Undecided => {}
        }
        Effect::None
    }

    /// Takes `id` as the primary. Fences survive when its history continues the one before (PSYNC2).
    pub(super) fn follow(&mut self, id: NodeId, claim: Claim) -> Effect {
        let changed = self.view.primary.replace(id) != Some(id);
        if changed {
            self.view.claim = claim;
            self.election.is_over();
        }
        let Some(new) = self.view.node(id).and_then(Node::history) else {
            if changed {
                self.view.history = None;
                self.restart_proofs();
            }
            return Effect::None;
        };
        let known = self.view.history.replace(new);
        if known.is_some_and(|known| known.id == new.id) && !changed {
            return Effect::None;
        }
        self.restart_proofs();
        let old = self.past.replace(new);
        if old.is_some_and(|old| new.continues(old.id)) { Effect::None } else { Effect::HistoryRestarted }
    }
}
