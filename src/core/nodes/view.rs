//! The view: the immutable snapshot of all nodes that decisions read, and the one function that makes a new one
//! out of an observation.

mod primary;

use std::sync::Arc;
use std::time::Duration;

use crate::core::address::Address;
use crate::core::fence::{AnchorSeq, Era};
use crate::core::moment::Moment;
use crate::core::nodes::delay::{Delays, StreamPace};
use crate::core::nodes::election::{Claim, Election};
use crate::core::nodes::lag::{Anchor, Anchors, Growth};
use crate::core::nodes::node::{Link, Node, NodeId, Role};
use crate::core::nodes::rights::{Rights, Rules};
use crate::core::nodes::zones::Zones;
use crate::core::policy::{Consistency, Policies, Policy};
use crate::core::position::{History, Offset};
use crate::mutant;

pub use crate::core::nodes::observation::{Observation, Patience};

/// All nodes at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Every node by its place, vacant places among them: [`View::members`] leaves those out.
    pub nodes: Vec<Node>,
    /// The node that is believed to be the primary. It stays the last known one while it is silent.
    pub primary: Option<NodeId>,
    /// What it is followed for.
    pub claim: Claim,
    /// More than one node says `master` and nothing decides between them: writes are refused.
    pub two_primaries: bool,
    /// The primary's history.
    pub history: Option<History>,
    /// Counts histories.
    pub era: Era,
    /// The newest anchor of that history.
    pub head: Option<Anchor>,
    /// The number of that anchor.
    pub anchor: AnchorSeq,
    /// How fast the head moves on.
    pub growth: Growth,
    /// How far the replication stream was read, when that was last looked at; `None` while it is not followed.
    pub stream: Option<StreamPace>,
    /// What every replica in service has applied, at least; `None` without any.
    pub least_applied: Option<Offset>,
    /// Who may read at which replica.
    pub rights: Arc<Rights>,
    /// The policies in force: those that the gates of the nodes are about.
    pub policies: Arc<Policies>,
    /// Which zones the proxy and the nodes are in.
    pub zones: Arc<Zones>,
    /// How long a node may be silent before it is left out.
    pub silence_limit: Duration,
    /// How long the primary may be silent before requests for it are refused.
    pub hold: Duration,
}

impl View {
    /// The node with this ID; `None` once it has left, whoever has its place.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id.index()).filter(|node| node.id == id)
    }

    /// Every node that is there.
    pub fn members(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.is_member())
    }

    /// The primary, unless it hangs, or has been silent for longer than `hold`.
    pub fn usable_primary(&self, now: Moment) -> Option<NodeId> {
        let node = self.node(self.primary?)?;
        let limit = self.hold.min(self.hangs_after());
        let gone = node.silent_since.is_some_and(|since| now.since(since) > limit);
        (!gone && !self.two_primaries).then_some(node.id)
    }

    /// When a node counts as hung if nothing is heard of it until then; `None` while it answers.
    pub fn hangs_from(&self, node: &Node) -> Option<Moment> {
        node.silent_since.map(|since| since.after(self.hangs_after()))
    }

    /// Whether a node hangs: it has not answered for as long as it may be silent, and for as long as a poll may take after
    /// that was noticed. What waits on it waits no longer.
    pub fn hangs(&self, node: &Node, now: Moment) -> bool {
        self.hangs_from(node).is_some_and(|from| now > from) && !mutant::is("hangs-for-ever")
    }

    /// Half of the silence has passed by the time that a poll is given up, which is when silence begins. The time between
    /// counts, rather than that since the last answer: a proxy that was itself held up must not take all nodes for hung.
    fn hangs_after(&self) -> Duration {
        if mutant::is("hangs-for-ever") { self.hold } else { self.silence_limit / 2 }
    }

    /// Whether the primary has answered its last poll. Else what needs no data is not asked there.
    pub fn primary_answers(&self) -> bool {
        let primary = self.primary.and_then(|id| self.node(id));
        primary.is_some_and(|node| node.silent_since.is_none()) && !self.two_primaries
    }

    /// Whether reads that nobody else may answer wait for the primary: it is being replaced, or went silent less than
    /// `hold` ago. Later they are refused at once.
    pub fn awaits_primary(&self, now: Moment) -> bool {
        let silent_since = self.primary.and_then(|id| self.node(id)).and_then(|node| node.silent_since);
        !self.two_primaries && silent_since.is_none_or(|since| now.since(since) <= self.hold)
    }

    /// Bytes by which `node` may be behind the primary at `now`: behind the newest anchor, and what the primary has written
    /// since then if it goes on as fast as it lately did at its fastest.
    pub fn lag_bytes_at(&self, node: &Node, now: Moment) -> Option<u64> {
        let since = self.head.map_or(Duration::ZERO, |head| now.since(head.sent_at));
        Some(self.lag_bytes(node)?.saturating_add(self.growth.within(since)))
    }

    /// Whether the stream will not come, within so long, to what the primary has written by now: it has yet to come to the
    /// newest anchor, and is known to take longer.
    pub fn stream_is_late(&self, patience: Duration) -> bool {
        self.stream.zip(self.head).is_some_and(|(stream, head)| {
            stream.upto < head.offset && stream.delay.is_some_and(|delay| delay > patience)
        })
    }

    /// In how long the first of the replicas in service will have applied `offset`, which the primary has written already: by how
    /// fast it writes, and how far behind they are. `None` if that is not known.
    pub fn catches_up_in(&self, offset: Offset, now: Moment) -> Option<Duration> {
        let serving = self.members().filter(|node| self.primary != Some(node.id) && node.standing.is_open());
        let of = |node: &Node| {
            let (applied, heard) = node.applied.zip(node.heard_at)?;
            let left = self.growth.time_for(offset.ahead_of(applied))?.saturating_sub(now.since(heard));
            // What is written is there after that, however fast what comes is written.
            Some(left.min(node.delay?))
        };
        serving.filter_map(of).min()
    }

    /// Bytes by which `node` is behind the newest anchor; `None` when their histories differ or nothing is known.
    pub fn lag_bytes(&self, node: &Node) -> Option<u64> {
        self.comparable(node).then_some(())?;
        Some(self.head?.offset.ahead_of(node.applied?))
    }

    /// What `ROLE` of `node`, answered now on another connection, proves that it has applied: nothing unless its link
    /// is up, to the primary that it had when its history was learnt.
    pub fn proves(
        &self,
        node: NodeId,
        link: Link,
        master: &(String, u16),
        applied: Option<Offset>,
    ) -> Option<Offset> {
        let known = self.node(node)?;
        let same = known.master.as_ref() == Some(master);
        if !same || link != Link::Up || known.role != Some(Role::Replica) {
            return None;
        }
        let history = known.history()?;
        applied.filter(|applied| self.history.is_some_and(|ours| ours.covers(history.id, *applied)))
    }

    fn find_least_applied(&self) -> Option<Offset> {
        let in_service =
            self.members().filter(|node| self.primary != Some(node.id) && node.standing.is_open());
        in_service.filter(|node| self.comparable(node)).filter_map(|node| node.applied).min()
    }

    /// How many replicas are linked to the primary and have applied `offset` of its history.
    pub fn replicas_at(&self, offset: Offset) -> usize {
        self.linked().filter(|node| node.applied.is_some_and(|applied| applied >= offset)).count()
    }

    /// How many replicas are linked to the primary.
    pub fn replicas_linked(&self) -> usize {
        self.linked().count()
    }

    fn linked(&self) -> impl Iterator<Item = &Node> {
        let linked = |node: &&Node| node.link == Some(Link::Up) && self.comparable(node);
        self.nodes.iter().filter(|node| node.silent_since.is_none()).filter(linked)
    }

    /// Whether the applied offset of `node` means the same bytes as the primary's offsets.
    pub fn comparable(&self, node: &Node) -> bool {
        let theirs = node.facts.as_ref().and_then(|facts| facts.history.as_ref());
        match (&self.history, theirs, node.applied) {
            (Some(ours), Some(theirs), Some(applied)) => ours.covers(theirs.id, applied),
            _ => false,
        }
    }
}

/// What an observation did beyond changing the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Effect {
    /// Nothing.
    None,
    /// Another history began that does not continue the one before: every offset known so far is void.
    HistoryRestarted,
}

/// Nodes that there can be, when they are discovered; those that are configured can be more.
pub const MOST_MEMBERS: usize = 64;

/// The owner's side of the view: applies observations, keeps what only applying needs.
#[derive(Clone, Debug)]
pub struct Tracker {
    view: View,
    anchors: Anchors,
    delays: Delays,
    /// The last history known, also while that of a new primary is not.
    past: Option<History>,
    /// Whose access rules count, the primary's or the last one's, and what they are.
    judge_of_rights: Option<NodeId>,
    rules_of_judge: Option<Arc<Rules>>,
    /// Who may be elected for more than its own word.
    election: Election,
}

impl Tracker {
    /// Starts with nodes nobody has heard of. `primary` is the configured one, if any.
    pub fn new(
        addresses: Vec<Address>,
        primary: Option<NodeId>,
        policies: impl Into<Arc<Policies>>,
        limits: Patience,
    ) -> Self {
        let policies = policies.into();
        let count = policies.all.len();
        let node = |(address, id)| Node::new(NodeId(id), address, count);
        let nodes = addresses.into_iter().zip(0..).map(node).collect();
        let view = View {
            nodes,
            primary,
            claim: Claim::First,
            two_primaries: false,
            history: None,
            era: Era(0),
            head: None,
            anchor: AnchorSeq(0),
            growth: Growth::default(),
            stream: None,
            least_applied: None,
            rights: Arc::default(),
            policies,
            zones: Arc::default(),
            silence_limit: limits.silence,
            hold: limits.hold,
        };
        Self {
            view,
            anchors: Anchors::default(),
            delays: Delays::default(),
            past: None,
            judge_of_rights: None,
            rules_of_judge: None,
            election: Election::default(),
        }
    }

    /// In these zones.
    #[must_use]
    pub fn in_zones(mut self, zones: Zones) -> Self {
        self.view.zones = Arc::new(zones);
        self
    }

    /// The present view.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Takes nothing for known any longer but who the primary was, as when every node was lost at `now` and another history
    /// may have begun.
    pub fn forget(&mut self, now: Moment) {
        for node in &mut self.view.nodes {
            node.silent_since.get_or_insert(now);
            node.forget();
        }
        self.view.history = None;
        self.past = None;
        self.restart_proofs();
        self.view.least_applied = None;
    }

    /// Takes in one observation, made at `now`. Total: whatever was observed, there is a view afterwards.
    pub fn apply(&mut self, observation: Observation, now: Moment) -> Effect {
        let observation = match self.apply_from_outside(observation, now) {
            Ok(effect) => return effect,
            Err(observation) => observation,
        };
        let Some(node) = observation.node() else { return Effect::None };
        // Whatever is told of a node that has left comes too late.
        let entry = self.view.nodes.get_mut(node.index());
        let Some(entry) = entry.filter(|entry| entry.id == node) else { return Effect::None };
        let primary = self.view.primary;
        if observation.is_answer() && entry.is_outdated(now) {
            entry.heard(now);
            return Effect::None;
        }
        let mut effect = Effect::None;
        match observation {
            Observation::Primary { seq, sent_at, offset, .. } => {
                let changed = entry.role != Some(Role::Primary);
                entry.heard(now);
                entry.hear_primary(offset, now);
                if changed || self.view.primary != Some(node) {
                    effect = self.elect(now);
                }
                // Only after INFO on the same connection: before it, the offset may be of another history.
                let told = self.view.node(node).and_then(Node::history);
                if self.view.primary == Some(node) && told.is_some() && told == self.view.history {
                    self.add_anchor(seq, Anchor { sent_at, offset });
                }
            }
            Observation::Replica { link, master, applied, .. } => {
                let demoted = entry.role == Some(Role::Primary);
                entry.heard(now);
                entry.hear_replica(link, master, applied, now);
                if demoted || self.view.primary == Some(node) {
                    effect = self.elect(now);
                }
                self.measure(node, now);
            }
            Observation::Info { facts, .. } => {
                entry.heard(now);
                entry.hear_info(*facts);
                effect = self.elect(now);
            }
            // No word on how it is.
            Observation::Rules { rules, .. } => {
                entry.rules = Some(rules);
                self.settle_rights();
                return Effect::None;
            }
            Observation::Troubled { .. }
            | Observation::Joined { .. }
            | Observation::Left { .. }
            | Observation::Named { .. }
            | Observation::Configured { .. } => {}
            // Commands go to it, to be refused with its own words; nothing new is known of it.
            Observation::Busy { .. } if self.view.primary == Some(node) => entry.lives(now),
            // Nothing is behind the primary, whatever it empties.
            Observation::Emptied { .. } if entry.role == Some(Role::Primary) => {}
            Observation::Emptied { .. } => entry.hear_emptied(now),
            Observation::Busy { .. } | Observation::Lost { .. } => entry.hear_nothing(now),
        }
        if primary != self.view.primary {
            self.settle_rights();
        }
        self.judge_samples(node, now);
        self.view.least_applied = self.view.find_least_applied();
        effect
    }

    /// Takes in what is told of a node, or of all, by others than the node; gives anything else back.
    fn apply_from_outside(&mut self, observation: Observation, now: Moment) -> Result<Effect, Observation> {
        match observation {
            Observation::Joined { node, address } => self.join(node, address),
            Observation::Left { node } => return Ok(self.leave(node, now)),
            Observation::Named { node } => return Ok(self.hear_named(node, now)),
            Observation::Configured { policies, limits, zones } => {
                self.view.zones = zones;
                self.configure(policies, limits, now);
            }
            Observation::Troubled { node, problem } => {
                let entry = self.view.nodes.get_mut(node.index()).filter(|entry| entry.id == node);
                if let Some(entry) = entry {
                    entry.hear_trouble(problem, now);
                }
            }
            observation => return Err(observation),
        }
        Ok(Effect::None)
    }

    /// Other policies hold. What a node has shown under one that stays as it was stays with it; under any other what is known
    /// of it now is the first that it shows.
    fn configure(&mut self, policies: Arc<Policies>, limits: Patience, now: Moment) {
        (self.view.silence_limit, self.view.hold) = (limits.silence, limits.hold);
        let before = std::mem::replace(&mut self.view.policies, policies);
        let place_before = |policy: &Policy| before.all.iter().position(|known| known == policy);
        let places: Vec<Option<usize>> = self.view.policies.all.iter().map(place_before).collect();
        for node in &mut self.view.nodes {
            let kept = |place: &Option<usize>| place.and_then(|place| node.within.get(place).copied());
            node.within = places.iter().map(|place| kept(place).unwrap_or_default()).collect();
        }
        for index in 0..self.view.nodes.len() {
            self.sample_policies(index, now, |place| places.get(place) == Some(&None));
        }
    }

    /// A node has come. Nothing is known of it, whatever was known of whoever had its place before.
    fn join(&mut self, id: NodeId, address: Address) {
        let policies = self.view.policies.all.len();
        if id.index() >= self.view.nodes.len().max(MOST_MEMBERS) {
            return;
        }
        for place in self.view.nodes.len()..=id.index() {
            self.view.nodes.push(Node::vacant(NodeId(place as u32), policies));
        }
        let place = &mut self.view.nodes[id.index()];
        if place.is_member() {
            return;
        }
        *place = Node { incarnation: place.incarnation, ..Node::new(id, address, policies) };
        // Until it has shown its rules it has none that are known.
        self.settle_rights();
    }

    /// A node has gone, and what it had proven with it: whoever has its place next is another node in another incarnation.
    /// Nobody is the primary if it was that one, until another says so itself.
    fn leave(&mut self, id: NodeId, now: Moment) -> Effect {
        let policies = self.view.policies.all.len();
        let place = self.view.nodes.get_mut(id.index());
        let Some(place) = place.filter(|place| place.id == id && place.is_member()) else {
            return Effect::None;
        };
        place.begin_incarnation();
        self.delays.forget(id.index());
        *place = Node { incarnation: place.incarnation, ..Node::vacant(id.successor(), policies) };
        if self.view.primary == Some(id) {
            self.view.primary = None;
        }
        let effect = self.elect(now);
        self.settle_rights();
        self.view.least_applied = self.view.find_least_applied();
        effect
    }

    /// Settles who may read where. Between two primaries, and until the new one has said something, the word of the old
    /// one counts, whether that is still there or not.
    fn settle_rights(&mut self) {
        self.judge_of_rights = self.view.primary.or(self.judge_of_rights);
        let judge = self.judge_of_rights.and_then(|id| self.view.node(id));
        self.rules_of_judge = judge.and_then(|node| node.rules.clone()).or(self.rules_of_judge.take());
        let Some((judge, rules)) = self.judge_of_rights.zip(self.rules_of_judge.as_deref()) else { return };
        let rights = Rights::new(&self.view.nodes, judge, rules);
        if rights != *self.view.rights {
            self.view.rights = Arc::new(rights);
        }
    }

    fn add_anchor(&mut self, seq: AnchorSeq, anchor: Anchor) {
        if !self.anchors.add(anchor) {
            // The head went backwards: no offset heard before can be compared with it.
            for node in &mut self.view.nodes {
                node.fresh_from = None;
            }
        }
        self.view.head = self.anchors.newest();
        self.view.growth = self.anchors.growth();
        // On a coarse clock two anchors can be of one moment, and the first is kept: it does not stand for the second.
        if self.view.head.is_some_and(|head| head.offset >= anchor.offset) {
            self.view.anchor = self.view.anchor.max(seq);
        }
        for index in 0..self.view.nodes.len() {
            self.freshen(index);
            if let Some(delay) = self.delays.settle(index, &self.anchors) {
                self.view.nodes[index].delay = Some(delay);
            }
        }
    }

    /// The replication stream is read there, and was read up to here, in bytes of its history, at `now`; `None`: it is not
    /// followed.
    pub fn hear_stream(&mut self, read: Option<(NodeId, u64)>, now: Moment) {
        self.view.stream = match read {
            Some((source, upto)) => {
                Some(self.delays.of_stream(source.0, Offset::new(upto), now, &self.anchors))
            }
            None => None,
        };
    }

    /// A replica says what it has applied.
    fn measure(&mut self, id: NodeId, at: Moment) {
        let Some(node) = self.view.node(id).filter(|node| self.view.comparable(node)) else { return };
        let Some(applied) = node.applied else { return };
        let delay = self.delays.of_node(id.index(), applied, at, &self.anchors);
        self.view.nodes[id.index()].delay = delay;
    }

    /// Renews `fresh_from` of one replica from what it has applied.
    fn freshen(&mut self, index: usize) {
        let proven = match self.view.nodes.get(index) {
            Some(node) if node.role == Some(Role::Replica) && self.view.comparable(node) => {
                node.applied.and_then(|applied| self.anchors.fresh_from(applied))
            }
            _ => None,
        };
        if let (Some(node), Some(_)) = (self.view.nodes.get_mut(index), proven) {
            node.fresh_from = node.fresh_from.max(proven);
        }
    }

    /// Another primary or an unrelated history: proofs start anew.
    fn restart_proofs(&mut self) {
        self.view.era.0 = self.view.era.0.wrapping_add(1);
        // An anchor of the new history has to answer for whatever waits.
        self.view.anchor = AnchorSeq(0);
        self.anchors.clear();
        (self.view.head, self.view.growth, self.view.stream) = (None, Growth::default(), None);
        self.delays = Delays::default();
        for node in &mut self.view.nodes {
            (node.fresh_from, node.delay) = (None, None);
        }
    }

    /// Feeds the gates of a node after something was heard of it.
    fn judge_samples(&mut self, id: NodeId, now: Moment) {
        self.freshen(id.index());
        let Some(node) = self.view.nodes.get(id.index()).filter(|node| tells(node)) else { return };
        let healthy = node.is_healthy() && self.view.comparable(node);
        if let Some(node) = self.view.nodes.get_mut(id.index()) {
            node.standing.sample(healthy);
        }
        self.sample_policies(id.index(), now, |_| true);
    }

    /// Feeds those of its gates that are about the policies at these places.
    fn sample_policies(&mut self, index: usize, now: Moment, which: impl Fn(usize) -> bool) {
        let Some(node) = self.view.nodes.get(index).filter(|node| tells(node)) else { return };
        let healthy = node.is_healthy() && self.view.comparable(node);
        let lag_bytes = self.view.lag_bytes(node);
        let View { nodes, policies, .. } = &mut self.view;
        let Some(node) = nodes.get_mut(index) else { return };
        let gates = node.within.iter_mut().zip(&policies.all).enumerate();
        for (_, (gate, policy)) in gates.filter(|(place, _)| which(*place)) {
            let near = lag_bytes.is_some_and(|bytes| bytes <= policy.max_lag_bytes);
            let young = mutant::is("age-ignored")
                || node.fresh_from.is_some_and(|from| now.since(from) <= policy.max_lag);
            if policy.consistency >= Consistency::Bounded && node.fresh_from.is_some() {
                gate.sample(healthy && near && young);
            }
        }
    }
}

/// Whether what is known of a node says anything of how it serves as a replica.
fn tells(node: &Node) -> bool {
    let unheard = node.facts.is_none() && node.silent_since.is_none();
    node.role != Some(Role::Primary) && !unheard && !node.owes_offset()
}

#[cfg(test)]
mod tests;
