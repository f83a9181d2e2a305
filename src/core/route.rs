//! The ladder: where one read goes, and why. The same function decides for traffic and explains for people.

use std::time::Duration;

use smallvec::SmallVec;

use crate::core::moment::Moment;
use crate::core::nodes::node::{Link, LinkDown, Node, NodeId, Role};
use crate::core::nodes::view::View;
use crate::core::policy::{Consistency, Policy, PolicyId, WhenBehind};
use crate::core::position::Offset;
use crate::core::reason::Reason;
use crate::mutant;

/// What a read demands of a replica beyond its policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// Nothing.
    Nothing,
    /// It must have applied this offset of the primary's history, for this reason.
    Applied(Offset, Reason),
    /// It must have applied an offset that is not known yet: no replica can be proven.
    Unknown(Reason),
}

impl Demand {
    /// The same, and this offset besides, which covers all keys of a hash slot.
    #[must_use]
    pub fn and_floor(self, floor: Offset) -> Self {
        match self {
            Self::Applied(offset, _) if offset >= floor => self,
            Self::Nothing | Self::Applied(..) => Self::Applied(floor, Reason::BelowFloor),
            Self::Unknown(_) => self,
        }
    }

    /// Whether a replica that has applied `applied` fulfils it.
    pub fn is_met_by(self, applied: Offset) -> bool {
        match self {
            Self::Nothing => true,
            Self::Applied(offset, _) => applied >= offset,
            Self::Unknown(_) => false,
        }
    }

    /// Whether an anchor would tell what is not known yet.
    pub fn waits_for_an_anchor(self) -> bool {
        matches!(self, Self::Unknown(Reason::BarrierPending | Reason::FencePending))
    }

    /// How many bytes of the stream a replica that has applied `applied` lacks; `None` when that cannot be said.
    pub fn deficit_bytes(self, applied: Offset) -> Option<u64> {
        match self {
            Self::Applied(offset, _) => Some(offset.ahead_of(applied)),
            Self::Nothing | Self::Unknown(_) => None,
        }
    }
}

/// One read to be routed. Time (`now`) and chance (`tie`) are arguments.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The nodes.
    pub view: &'a View,
    /// What the read tolerates.
    pub policy: &'a Policy,
    /// Which policy that is.
    pub policy_id: PolicyId,
    /// What it demands besides.
    pub demand: Demand,
    /// The replica that served this connection before.
    pub sticky: Option<NodeId>,
    /// How busy each node is: commands in flight, and connections that stay with it; a missing entry is not at all.
    pub load: &'a [u32],
    /// Commands in flight per node, where zones make a difference; a missing entry is none.
    pub in_flight: &'a [u32],
    /// What each node has proven to have applied beyond what the view knows; a missing entry is nothing.
    pub proven: &'a [Option<Offset>],
    /// Nodes whose data may have been replaced since the view was made; a missing entry is none.
    pub in_doubt: &'a [bool],
    /// Nodes that may not serve this user, and why; a missing entry is none.
    pub barred: &'a [Option<Reason>],
    /// Nodes of which a proof may be asked together with the read; a missing entry is none.
    pub may_try: &'a [bool],
    /// The clock.
    pub now: Moment,
    /// A random number.
    pub tie: u32,
    /// The read has waited for `wait-timeout` already.
    pub waited: bool,
    /// A node that just failed to serve this read.
    pub avoid: Option<NodeId>,
}

impl<'a> Ask<'a> {
    /// A read by a policy of nobody in particular, of whom nothing more is known.
    pub fn of_anybody(
        view: &'a View,
        (policy_id, policy): (PolicyId, &'a Policy),
        demand: Demand,
        now: Moment,
    ) -> Self {
        Self {
            view,
            policy,
            policy_id,
            demand,
            sticky: None,
            load: &[],
            in_flight: &[],
            proven: &[],
            in_doubt: &[],
            barred: &[],
            may_try: &[],
            now,
            tie: 0,
            waited: false,
            avoid: None,
        }
    }

    /// Commands in flight at a node, as far as zones make a difference.
    pub fn in_flight(&self, node: &Node) -> u32 {
        self.in_flight.get(node.id.index()).copied().unwrap_or(0)
    }

    /// Whether a node is to be preferred to those that are not: it is in the zone of the proxy, and has room.
    fn prefers(&self, node: &Node) -> bool {
        self.view.zones.is_near(node) && self.view.zones.has_room(self.in_flight(node))
    }

    /// Why a node may not serve this user, whatever its data is like.
    fn is_barred(&self, node: &Node) -> Option<Reason> {
        self.barred.get(node.id.index()).copied().flatten()
    }
}

/// What to do with a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Send it to this node.
    Send {
        /// Where.
        node: NodeId,
        /// Why.
        reason: Reason,
    },
    /// Send it to this replica after a `ROLE`, and to the primary as well should that not prove `need`.
    Try {
        /// Where.
        node: NodeId,
        /// What the replica must have applied.
        need: Offset,
    },
    /// Ask again within `wait-timeout`.
    Wait {
        /// What it waits for.
        reason: Reason,
    },
    /// Answer `-MASTERDOWN`.
    Refuse {
        /// Why.
        reason: Reason,
    },
}

/// Decides where a read goes: an eligible replica, else one that may prove itself, else wait if the policy says so,
/// else the primary, else a stale replica if allowed, else nowhere.
pub fn decide(ask: &Ask<'_>) -> Decision {
    let (chosen, why_not) = choose(ask);
    if let Some(node) = chosen {
        return Decision::Send { node, reason: Reason::Fresh };
    }
    let primary = ask.view.usable_primary(ask.now);
    let strong = ask.policy.consistency == Consistency::Strong;
    if strong
        && why_not == Reason::BarrierPending
        && let Some(node) = primary
        && ask.policy.when_behind != WhenBehind::Refuse
        && ask.view.stream_is_late(ask.policy.wait_timeout)
        && !mutant::is("waits-in-vain")
    {
        // Nobody waits in vain, nor asks a replica that lacks it even longer.
        return Decision::Send { node, reason: Reason::StreamLate };
    }
    if let Some(attempt) = attempt(ask) {
        return attempt;
    }
    match ask.policy.when_behind {
        // A strong read waits for its barrier, whatever else the policy says.
        _ if strong && !ask.waited && why_not == Reason::BarrierPending => {
            return Decision::Wait { reason: why_not };
        }
        // Nobody is behind: waiting does not help, and refusing is not meant.
        _ if why_not.is_about_the_user() => {}
        WhenBehind::Wait if !ask.waited && why_not >= Reason::Returning => {
            return Decision::Wait { reason: why_not };
        }
        WhenBehind::Refuse => return stale(ask).unwrap_or(Decision::Refuse { reason: Reason::Refused }),
        WhenBehind::Wait | WhenBehind::Primary => {}
    }
    match primary {
        Some(node) => Decision::Send { node, reason: why_not },
        None => stale(ask).unwrap_or(Decision::Refuse {
            reason: if ask.view.two_primaries { Reason::TwoPrimaries } else { Reason::PrimaryDown },
        }),
    }
}

/// Whether one node may serve the read as a replica, and if not, why not.
pub fn judge(node: &Node, ask: &Ask<'_>) -> Result<(), Reason> {
    let view = ask.view;
    if ask.avoid == Some(node.id) {
        return Err(Reason::Repeated);
    }
    if let Some(reason) = ask.is_barred(node) {
        return Err(reason);
    }
    if node.is_silent(ask.now, view.silence_limit) {
        return Err(Reason::Silent);
    }
    let facts = match (node.role, &node.facts) {
        (Some(Role::Primary), _) => return Err(Reason::NotAReplica),
        (Some(Role::Replica), Some(facts)) => facts,
        _ => return Err(Reason::Unobserved),
    };
    if facts.loading {
        return Err(Reason::Loading);
    }
    match node.link {
        Some(Link::Up) if !facts.is_resyncing() => {}
        _ if facts.link_down == Some(LinkDown::Never) => return Err(Reason::NeverSynced),
        Some(Link::Up | Link::Syncing) => return Err(Reason::Syncing),
        Some(Link::Down) => return Err(Reason::LinkDown),
        None => return Err(Reason::Unobserved),
    }
    let Some(known) = node.applied else { return Err(Reason::Unobserved) };
    let proven = ask.proven.get(node.id.index()).copied().flatten();
    let applied = proven.map_or(known, |proven| proven.max(known));
    if !view.comparable(node) {
        return Err(Reason::ForeignHistory);
    }
    if !node.standing.is_open() {
        return Err(Reason::Returning);
    }
    if ask.policy.consistency >= Consistency::Bounded {
        if ask.in_doubt.get(node.id.index()).copied().unwrap_or(false) {
            return Err(Reason::InDoubt);
        }
        judge_lag(node, ask)?;
    }
    match ask.demand {
        demand if demand.is_met_by(applied) => Ok(()),
        Demand::Applied(_, reason) | Demand::Unknown(reason) => Err(reason),
        Demand::Nothing => Ok(()),
    }
}

/// Until when a replica that may serve now may do so under the same view, as far as only the clock goes on; `None` when
/// it may not.
pub fn good_until(view: &View, node: NodeId, policy: &Policy) -> Option<Moment> {
    let node = view.node(node)?;
    let heard = node.heard_at?.after(view.silence_limit);
    if policy.consistency < Consistency::Bounded {
        return Some(heard);
    }
    let until = heard.min(node.fresh_from?.after(policy.max_lag));
    let room = policy.max_lag_bytes.saturating_sub(view.lag_bytes(node)?);
    let full = view.growth.time_for(room).zip(view.head).map(|(span, head)| head.sent_at.after(span));
    Some(full.map_or(until, |full| until.min(full)))
}

fn judge_lag(node: &Node, ask: &Ask<'_>) -> Result<(), Reason> {
    let staleness = node.staleness(ask.now).ok_or(Reason::Unproven)?;
    if staleness > ask.policy.max_lag && !mutant::is("age-ignored") {
        return Err(Reason::TooOld);
    }
    let lag_bytes = ask.view.lag_bytes_at(node, ask.now).ok_or(Reason::Unproven)?;
    if lag_bytes > ask.policy.max_lag_bytes {
        return Err(Reason::TooFar);
    }
    let gate = node.within.get(ask.policy_id.index());
    if gate.is_some_and(|gate| !gate.is_open()) { Err(Reason::Returning) } else { Ok(()) }
}

/// A replica that lacks nothing but what the demand names, as far as is known: it may have applied that meanwhile.
fn attempt(ask: &Ask<'_>) -> Option<Decision> {
    let Demand::Applied(need, _) = ask.demand else { return None };
    if ask.policy.when_behind != WhenBehind::Primary {
        // A proof that fails sends the read to the primary, where this policy does not want it yet, or at all.
        return None;
    }
    let otherwise = Ask { demand: Demand::Nothing, ..*ask };
    let may = |node: &&Node| {
        ask.may_try.get(node.id.index()).copied().unwrap_or(false)
            && ask.view.primary != Some(node.id)
            && judge(node, &otherwise).is_ok()
    };
    let sticky = ask.sticky.and_then(|id| ask.view.node(id));
    let node = match sticky {
        Some(node) => may(&node).then_some(node)?,
        None => preferred_to(ask.view.members().filter(may).max_by_key(|node| node.applied)?, may, ask),
    };
    Some(Decision::Try { node: node.id, need })
}

/// A node that is preferred for where it is, out of those that `may` serve as well, unless `furthest` is clearly fresher; else
/// that one.
fn preferred_to<'a>(furthest: &'a Node, may: impl Fn(&&Node) -> bool, ask: &Ask<'a>) -> &'a Node {
    let preferred = ask.view.members().filter(|node| ask.prefers(node) && may(node));
    let preferred = preferred.max_by_key(|node| node.applied);
    preferred.filter(|node| !furthest.is_clearly_fresher_than(node)).unwrap_or(furthest)
}

/// The replica to use, or why there is none: the reason of the one that came closest.
///
/// A connection stays with its replica; otherwise the less loaded of two random ones serves, out of those in the zone of the
/// proxy as long as one of them has room.
fn choose(ask: &Ask<'_>) -> (Option<NodeId>, Reason) {
    let mut why_not = Reason::NoReplica;
    if let Some(node) = ask.sticky.and_then(|id| ask.view.node(id)) {
        match judge(node, ask) {
            Ok(()) => return (Some(node.id), Reason::Fresh),
            // It lacks this one write: for this one read the connection does not move to another replica.
            Err(reason) if reason.is_about_the_read() && ask.policy.consistency >= Consistency::Session => {
                return (None, reason);
            }
            Err(reason) => why_not = why_not.max(reason),
        }
    }
    let mut eligible: SmallVec<[NodeId; USUAL_REPLICAS]> = SmallVec::new();
    for node in ask.view.members().filter(|node| ask.view.primary != Some(node.id)) {
        match judge(node, ask) {
            Ok(()) => eligible.push(node.id),
            Err(reason) => why_not = why_not.max(reason),
        }
    }
    if ask.view.zones.are_set() {
        prefer_near(&mut eligible, ask);
    }
    (better_of_two(&eligible, ask), why_not)
}

/// Leaves only those that are preferred for where they are, if there are any.
fn prefer_near(eligible: &mut SmallVec<[NodeId; USUAL_REPLICAS]>, ask: &Ask<'_>) {
    let preferred = |id: &NodeId| ask.view.node(*id).is_some_and(|node| ask.prefers(node));
    if eligible.iter().any(preferred) {
        eligible.retain(|id| preferred(id));
    }
}

/// Two different ones out of `eligible`, each pair as likely as any other: the one that is clearly fresher, where that makes a
/// difference, else the less loaded; the first of them if both are alike.
fn better_of_two(eligible: &[NodeId], ask: &Ask<'_>) -> Option<NodeId> {
    let others = eligible.len().checked_sub(1)?;
    let first = (ask.tie & 0xffff) as usize % eligible.len();
    let step = if others == 0 { 0 } else { 1 + (ask.tie >> 16) as usize % others };
    let second = (first + step) % eligible.len();
    let load = |id: &&NodeId| ask.load.get(id.index()).copied().unwrap_or(0);
    let (first, second) = (eligible.get(first)?, eligible.get(second)?);
    let node = |id: &NodeId| ask.view.node(*id);
    if ask.policy.consistency >= Consistency::Session
        && let (Some(one), Some(other)) = (node(first), node(second))
    {
        if one.is_clearly_fresher_than(other) {
            return Some(*first);
        }
        if other.is_clearly_fresher_than(one) {
            return Some(*second);
        }
    }
    [first, second].into_iter().min_by_key(load).copied()
}

/// The last resort: a replica that lost its primary, if the policy allows old data.
fn stale(ask: &Ask<'_>) -> Option<Decision> {
    let policy = ask.policy;
    if !policy.serve_stale || policy.consistency > Consistency::Bounded {
        return None;
    }
    let may = |node: &&Node| may_serve_stale(node, ask, policy.max_stale);
    // The first of them, but for the zone.
    let allowed = ask.view.members().filter(may).min_by_key(|node| !ask.prefers(node))?;
    Some(Decision::Send { node: allowed.id, reason: Reason::StaleAllowed })
}

/// Whether a node may serve old data: it was synchronised once, is not loading, and its link dropped less than
/// `max_stale` ago (`replica-serve-stale-data`). Where the link looks up, only the proof tells how old its data is.
pub fn may_serve_stale(node: &Node, ask: &Ask<'_>, max_stale: Duration) -> bool {
    let Some(facts) = &node.facts else { return false };
    if node.role != Some(Role::Replica) || node.is_silent(ask.now, ask.view.silence_limit) || facts.loading {
        return false;
    }
    if ask.avoid == Some(node.id) || ask.is_barred(node).is_some() {
        return false;
    }
    match node.link {
        Some(Link::Up) if !facts.is_resyncing() => {
            let young = || node.staleness(ask.now).is_some_and(|age| age <= max_stale);
            !is_foreign(node, ask.view) && (ask.policy.consistency < Consistency::Bounded || young())
        }
        Some(Link::Down | Link::Syncing) if facts.link_down != Some(LinkDown::Never) => {
            node.link_down_for(ask.now).is_some_and(|span| span <= max_stale)
        }
        _ => false,
    }
}

/// Whether a node is known to follow a primary that has nothing to do with ours.
fn is_foreign(node: &Node, view: &View) -> bool {
    match (view.history, node.history()) {
        (Some(ours), Some(theirs)) => !ours.continues(theirs.id) && !theirs.continues(ours.id),
        _ => false,
    }
}

/// With so many replicas or fewer, a decision allocates nothing.
const USUAL_REPLICAS: usize = 16;

#[cfg(test)]
mod tests;
