//! Which node the replication stream is read from.
//!
//! A replica as the source is invisible to the primary: it counts neither toward `WAIT` nor toward
//! `min-replicas-to-write`, and Sentinel does not list it. Attached to the primary, Redweir earns no `WAIT` credit
//! either (it acknowledges offset 0), but it does count toward `min-replicas-to-write`, which looks at the age of
//! acknowledgements only. So `auto` goes to the primary only when that setting is *known* to be 0: where it is not
//! known, attaching could quietly keep writes accepted that nobody else holds, and a missing stream costs but speed.

use std::time::Duration;

use crate::core::moment::Moment;
use crate::core::nodes::node::{Link, Node, NodeId, Role};
use crate::core::nodes::view::View;
use crate::core::policy::Consistency;

/// A source is left for a fresher replica when it is more than this many bytes behind it. Well above what two
/// replicas that were asked a poll interval apart seem to differ by.
pub const MOVE_AT_BYTES: u64 = 64 << 20;
/// Replicas that are no further than this many bytes behind the freshest are as good as it: which of them is read from is left
/// to chance, so that the many proxies of one primary are spread over them.
pub const ALIKE_BYTES: u64 = 1 << 20;
/// How long a source that failed is passed over; doubles with each failure, up to [`AVOID_LONGEST`].
pub const AVOID_FIRST: Duration = Duration::from_secs(10);
/// The longest that a source is passed over.
pub const AVOID_LONGEST: Duration = Duration::from_mins(10);

/// `[stream] source`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum StreamSource {
    /// One of the freshest replicas; the primary if no replica can serve and `min-replicas-to-write` is known to be 0.
    #[default]
    Auto,
    /// Only ever the primary.
    Primary,
    /// Only ever a replica.
    Replica,
    /// No stream.
    Off,
}

impl StreamSource {
    /// All choices.
    pub const ALL: [Self; 4] = [Self::Auto, Self::Primary, Self::Replica, Self::Off];

    /// The name in the config file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::Off => "off",
        }
    }
}

/// Sources that failed of late. Bounded by the number of nodes.
#[derive(Clone, Debug, Default)]
pub struct Avoided(Vec<Failed>);

#[derive(Clone, Copy, Debug)]
struct Failed {
    node: NodeId,
    until: Moment,
    times: u32,
}

impl Avoided {
    /// `node` failed as a source, through its own fault.
    pub fn failed(&mut self, node: NodeId, now: Moment) {
        let times = self.0.iter().find(|f| f.node == node).map_or(0, |f| f.times);
        let span = AVOID_FIRST.saturating_mul(1 << times.min(16)).min(AVOID_LONGEST);
        // Nobody who had its place before it is there any longer.
        self.0.retain(|f| f.node.index() != node.index());
        self.0.push(Failed { node, until: now.after(span), times: times.saturating_add(1) });
    }

    /// `node` serves: its failures are forgotten.
    pub fn served(&mut self, node: NodeId) {
        self.0.retain(|f| f.node != node);
    }

    /// Whether `node` is to be passed over if there is another.
    pub fn contains(&self, node: NodeId, now: Moment) -> bool {
        self.0.iter().any(|f| f.node == node && now < f.until)
    }
}

/// A source is left for one that is fresher this long after the last change, at the earliest.
const MOVE_FIRST: Duration = Duration::from_secs(2);
/// The longest that it is kept where it was left again and again.
const MOVE_LAST: Duration = Duration::from_mins(2);

/// When the source was changed. Where delays change all the time, on a machine that is busy, it goes to and fro less and less.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moves(Option<(Moment, Duration)>);

impl Moves {
    /// It is another one from now on.
    pub fn moved(&mut self, now: Moment) {
        let rest = match self.0 {
            Some((at, rest)) if now.since(at) < rest.saturating_mul(4) => {
                rest.saturating_mul(2).min(MOVE_LAST)
            }
            _ => MOVE_FIRST,
        };
        self.0 = Some((now, rest));
    }

    /// Whether it may be left for one that is but fresher.
    pub fn may_move(&self, now: Moment) -> bool {
        self.0.is_none_or(|(at, rest)| now.since(at) >= rest)
    }
}

/// What the choice of a source goes by, besides the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// `[stream] source`
    pub choice: StreamSource,
    /// The primary's setting, if it is known.
    pub min_replicas_to_write: Option<u64>,
    /// Sentinels watch the primary: they would take whoever follows it for one of its replicas.
    pub watched: bool,
    /// The present source may be left for one that is fresher.
    pub may_move: bool,
}

/// How long strong reads may wait for the stream, and how long after the primary it comes to the freshest replica, if that is
/// longer: then they would wait in vain wherever it is followed but at the primary itself. Nothing is, once it is followed
/// there, before half of that would do.
pub fn strong_reads_wait_in_vain(view: &View, at_primary: bool) -> Option<(Duration, Duration)> {
    let strong = view.policies.all.iter().filter(|policy| policy.consistency == Consistency::Strong);
    let patience = strong.map(|policy| policy.wait_timeout).max()?;
    let replicas = view.members().filter(|node| view.primary != Some(node.id));
    let delay = replicas.filter_map(|node| node.delay).min()?;
    let most = if at_primary { patience / 2 } else { patience };
    (delay > most).then_some((patience, delay))
}

/// Whether there is a strong policy.
fn is_any_strong(view: &View) -> bool {
    view.policies.all.iter().any(|policy| policy.consistency == Consistency::Strong)
}

/// Whether `auto` follows the primary although replicas could be followed: strong reads would wait in vain for what comes
/// through them.
fn is_wanted(
    view: &View,
    primary: NodeId,
    wish: Wish,
    current: Option<NodeId>,
    avoided: &Avoided,
    now: Moment,
) -> bool {
    if wish.watched || avoided.contains(primary, now) {
        return false;
    }
    if current == Some(primary) {
        // It stays there until it may move again, whatever the delays are meanwhile.
        return strong_reads_wait_in_vain(view, true).is_some() || !wish.may_move && is_any_strong(view);
    }
    let is_followed = current.and_then(|id| view.node(id)).is_some_and(|node| serves(view, node, now));
    (wish.may_move || !is_followed) && strong_reads_wait_in_vain(view, false).is_some()
}

/// The node to read the stream from. `current` is the present source, `chance` what decides between equals.
///
/// The present source stays while it is good, and also when it is not and nothing better is to be had: a replica
/// that lost its own link keeps ours, and goes on when it has resumed. A replica that failed as a source is better
/// than none.
pub fn choose(
    view: &View,
    wish: Wish,
    current: Option<NodeId>,
    avoided: &Avoided,
    chance: u64,
    now: Moment,
) -> Option<NodeId> {
    let primary = view.primary.filter(|_| !view.two_primaries);
    let answers = |node: &&Node| !node.is_silent(now, view.silence_limit);
    let fallback = match wish.choice {
        StreamSource::Off => return None,
        StreamSource::Primary => return primary,
        StreamSource::Auto if wish.min_replicas_to_write == Some(0) => {
            let itself = primary.and_then(|id| view.node(id)).filter(answers).map(|node| node.id);
            if itself.is_some_and(|node| is_wanted(view, node, wish, current, avoided, now)) {
                return itself;
            }
            // A replica that is about to serve, or was not heard of yet, is worth the wait.
            let promising =
                view.members().any(|node| primary != Some(node.id) && is_promising(view, node, now));
            itself.filter(|_| !promising)
        }
        StreamSource::Auto | StreamSource::Replica => None,
    };
    if let Some(node) = current.and_then(|id| view.node(id)).filter(|node| node.owes_offset())
        && may_resume(view, node, now)
    {
        // It has emptied its data, perhaps because all do (`FLUSHALL`), and says in a moment how far it has got.
        return current;
    }
    let serving: Vec<&Node> = view.members().filter(|node| serves(view, node, now)).collect();
    let untroubled: Vec<&Node> = serving.iter().copied().filter(|n| !avoided.contains(n.id, now)).collect();
    let at_hand = || current.and_then(|id| view.node(id)).filter(|node| may_resume(view, node, now));
    let kept = |replicas: &[&Node]| freshest(replicas, current, wish.may_move, chance);
    kept(&untroubled).or(fallback).or_else(|| kept(&serving)).or_else(|| at_hand().map(|node| node.id))
}

/// One of the replicas that have applied the most, and that none is clearly fresher than, unless the present source is not far
/// behind them. Attaching to a node without a backlog costs it a dump: such a node comes last.
fn freshest(replicas: &[&Node], current: Option<NodeId>, may_move: bool, chance: u64) -> Option<NodeId> {
    let has_backlog = |node: &Node| node.facts.as_ref().is_some_and(|facts| facts.backlog_active);
    let best = replicas.iter().max_by_key(|node| (has_backlog(node), node.applied))?;
    let within = |node: &Node, bytes| match (best.applied, node.applied) {
        (Some(best), Some(ours)) => best.ahead_of(ours) <= bytes,
        (best, ours) => best == ours,
    };
    let as_good = |node: &&&Node| has_backlog(node) == has_backlog(best);
    let is_late =
        |node: &Node| replicas.iter().filter(as_good).any(|other| other.is_clearly_fresher_than(node));
    let kept = replicas.iter().find(|node| {
        Some(node.id) == current && within(node, MOVE_AT_BYTES) && (!may_move || !is_late(node))
    });
    let alike: Vec<&&Node> =
        replicas.iter().filter(as_good).filter(|node| within(node, ALIKE_BYTES) && !is_late(node)).collect();
    let chosen = kept.or_else(|| alike.get(chance as usize % alike.len().max(1)).copied());
    // Where everything is written so fast that polls tell nothing, one that is late is no better than another.
    let late = || replicas.iter().find(|node| Some(node.id) == current && within(node, MOVE_AT_BYTES));
    Some(chosen.or_else(late).unwrap_or(best).id)
}

/// Whether a node is a healthy replica in the primary's history. `standing` is closed while the link is down, while
/// it loads or syncs, and for a few samples after.
fn serves(view: &View, node: &Node, now: Moment) -> bool {
    node.role == Some(Role::Replica)
        && node.standing.is_open()
        && node.facts.as_ref().is_some_and(|facts| !facts.async_loading)
        && view.comparable(node)
        && !node.is_silent(now, view.silence_limit)
}

/// Whether this node, which is the source, could stay it.
pub fn still_serves(view: &View, source: NodeId, now: Moment) -> bool {
    let followed = view.node(source);
    followed.is_some_and(|node| {
        serves(view, node, now) || view.primary == Some(source) && !node.is_silent(now, view.silence_limit)
    })
}

/// Whether a node may soon be a healthy replica: nothing was heard of it yet, or its link is up.
fn is_promising(view: &View, node: &Node, now: Moment) -> bool {
    let unheard = node.heard_at.is_none() && node.silent_since.is_none();
    let coming = node.link == Some(Link::Up) && view.comparable(node) && !node.standing.is_open();
    unheard
        || node.owes_offset()
        || (coming && node.role == Some(Role::Replica) && !node.is_silent(now, view.silence_limit))
}

/// Whether a replica that does not serve now may go on by itself.
fn may_resume(view: &View, node: &Node, now: Moment) -> bool {
    node.role == Some(Role::Replica) && !node.is_silent(now, view.silence_limit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use crate::core::address::Address;
    use crate::core::fence::{AnchorSeq, Era};
    use crate::core::nodes::election::Claim;
    use crate::core::nodes::lag::Growth;
    use crate::core::nodes::node::{Facts, Gate};
    use crate::core::policy::{Policies, Policy};
    use crate::core::position::{History, Offset, ReplId};

    const NOW: Moment = Moment::from_millis(100_000);
    const PRIMARY: NodeId = NodeId(0);

    /// A primary and replicas that have applied so much.
    fn view(applied: &[u64]) -> View {
        let history = History::new(ReplId::parse(&[b'a'; 40]).unwrap());
        let node = |id: u32, role, at| {
            let mut node = Node::new(NodeId(id), Address::tcp(&format!("n{id}"), 1), 1);
            (node.role, node.applied, node.heard_at) = (Some(role), Some(Offset::new(at)), Some(NOW));
            node.facts = Some(Facts { history: Some(history), backlog_active: true, ..Facts::default() });
            node.standing = Gate::default();
            node.standing.sample(true);
            node
        };
        let replicas = applied.iter().zip(1..).map(|(&at, id)| node(id, Role::Replica, at));
        View {
            nodes: std::iter::once(node(0, Role::Primary, 1 << 30)).chain(replicas).collect(),
            primary: Some(PRIMARY),
            claim: Claim::First,
            two_primaries: false,
            era: Era(0),
            history: Some(history),
            head: None,
            anchor: AnchorSeq(1),
            growth: Growth::default(),
            stream: None,
            least_applied: None,
            rights: Arc::default(),
            policies: Arc::default(),
            zones: Arc::default(),
            silence_limit: Duration::from_secs(1),
            hold: Duration::from_secs(1),
        }
    }

    fn auto(view: &View, current: Option<u32>) -> Option<u32> {
        pick(view, StreamSource::Auto, current, Some(0))
    }

    fn pick(view: &View, choice: StreamSource, current: Option<u32>, min: Option<u64>) -> Option<u32> {
        choose(view, wish(choice, min), current.map(NodeId), &Avoided::default(), 0, NOW).map(|id| id.0)
    }

    fn wish(choice: StreamSource, min_replicas_to_write: Option<u64>) -> Wish {
        Wish { choice, min_replicas_to_write, watched: false, may_move: true }
    }

    fn fail(view: &mut View, id: usize) {
        view.nodes[id].standing.sample(false);
    }

    #[test]
    fn auto_takes_the_freshest_replica_and_stays() {
        let view = view(&[500, 900 + ALIKE_BYTES, 700]);
        assert_eq!(auto(&view, None), Some(2));
        assert_eq!(auto(&view, Some(1)), Some(1), "near enough");
        assert_eq!(auto(&view, Some(0)), Some(2), "the primary is a stopgap");
    }

    #[test]
    fn replicas_that_are_alike_are_all_chosen_by_somebody() {
        let view = view(&[500, 900, 0, 500 + ALIKE_BYTES]);
        let pick = |chance, now| {
            let auto = wish(StreamSource::Auto, None);
            choose(&view, auto, None, &Avoided::default(), chance, now).map(|id| id.0)
        };
        let chosen: Vec<_> = (0..6).map(|chance| pick(chance, NOW)).collect();
        assert_eq!(chosen, [1, 2, 4, 1, 2, 4].map(Some));
        assert_eq!(pick(u64::MAX, NOW), Some(1));
    }

    #[test]
    fn a_source_that_fails_or_lags_is_left() {
        let mut view = view(&[500, 900]);
        view.nodes[2].applied = Some(Offset::new(501 + MOVE_AT_BYTES));
        assert_eq!(auto(&view, Some(1)), Some(2));
        view.nodes[2].applied = Some(Offset::new(500 + MOVE_AT_BYTES));
        assert_eq!(auto(&view, Some(1)), Some(1));
        fail(&mut view, 1);
        assert_eq!(auto(&view, Some(1)), Some(2));
        view.nodes[2].silent_since = Some(NOW);
        assert_eq!(auto(&view, Some(1)), Some(0));
    }

    #[test]
    fn a_source_is_left_for_one_that_is_clearly_fresher_in_time() {
        let ms = Duration::from_millis;
        let mut view = view(&[500, 500]);
        (view.nodes[1].delay, view.nodes[2].delay) = (Some(ms(20)), Some(ms(6)));
        assert_eq!(auto(&view, Some(1)), Some(2));
        assert_eq!(auto(&view, None), Some(2));
        let stays = Wish { may_move: false, ..wish(StreamSource::Auto, Some(0)) };
        let chosen = choose(&view, stays, Some(NodeId(1)), &Avoided::default(), 0, NOW);
        assert_eq!(chosen, Some(NodeId(1)), "not again so soon");
        view.nodes[2].delay = Some(ms(17));
        assert_eq!(auto(&view, Some(1)), Some(1), "alike");
        // One that would cost a dump is not worth it.
        view.nodes[2].delay = Some(ms(1));
        view.nodes[2].facts.as_mut().unwrap().backlog_active = false;
        assert_eq!(auto(&view, Some(1)), Some(1));
    }

    #[test]
    fn a_source_that_is_left_again_and_again_is_kept_for_longer() {
        let mut moves = Moves::default();
        let mut now = NOW;
        assert!(moves.may_move(now));
        let mut rests = Vec::new();
        for _ in 0..10 {
            moves.moved(now);
            let begun = now;
            while !moves.may_move(now) {
                now = now.after(Duration::from_secs(1));
            }
            rests.push(now.since(begun).as_secs());
        }
        assert_eq!(rests, [2, 4, 8, 16, 32, 64, 120, 120, 120, 120]);
        now = now.after(4 * MOVE_LAST);
        moves.moved(now);
        assert!(moves.may_move(now.after(MOVE_FIRST)), "it was good for long");
    }

    #[test]
    fn the_primary_is_followed_where_strong_reads_would_wait_in_vain() {
        let ms = Duration::from_millis;
        let mut view = view(&[500, 500]);
        (view.nodes[1].delay, view.nodes[2].delay) = (Some(ms(150)), Some(ms(45)));
        assert_eq!(auto(&view, Some(2)), Some(2), "no policy is strong");
        let strong = Policy { consistency: Consistency::Strong, ..Policy::default() };
        view.policies = Arc::new(Policies { all: vec![strong], ..Policies::default() });
        assert_eq!(auto(&view, Some(2)), Some(0));
        let watched = Wish { watched: true, ..wish(StreamSource::Auto, Some(0)) };
        assert_eq!(choose(&view, watched, Some(NodeId(2)), &Avoided::default(), 0, NOW), Some(NodeId(2)));
        assert_eq!(pick(&view, StreamSource::Auto, Some(2), Some(1)), Some(2), "it would count as a replica");
        assert_eq!(pick(&view, StreamSource::Replica, Some(2), Some(0)), Some(2));
        view.nodes[2].delay = Some(ms(15));
        assert_eq!(auto(&view, Some(0)), Some(0), "not to and fro");
        view.nodes[2].delay = Some(ms(9));
        assert_eq!(auto(&view, Some(0)), Some(2));
    }

    #[test]
    fn the_primary_serves_only_when_it_is_known_not_to_count_replicas() {
        let mut view = view(&[500]);
        fail(&mut view, 1);
        assert_eq!(pick(&view, StreamSource::Auto, None, Some(0)), Some(0));
        assert_eq!(pick(&view, StreamSource::Auto, None, Some(1)), None);
        assert_eq!(pick(&view, StreamSource::Auto, None, None), None, "unknown is not zero");
        assert_eq!(
            pick(&view, StreamSource::Auto, Some(0), Some(1)),
            None,
            "it was set while we were attached"
        );
        assert_eq!(pick(&view, StreamSource::Replica, Some(0), Some(0)), None);
        assert_eq!(pick(&view, StreamSource::Primary, None, None), Some(0), "asked for in so many words");
        assert_eq!(pick(&view, StreamSource::Off, Some(1), Some(0)), None);
        view.two_primaries = true;
        assert_eq!(pick(&view, StreamSource::Primary, None, None), None);
    }

    #[test]
    fn a_replica_without_a_link_keeps_ours_when_there_is_nothing_better() {
        let mut view = view(&[500]);
        fail(&mut view, 1);
        assert_eq!(pick(&view, StreamSource::Replica, Some(1), None), Some(1));
        assert_eq!(pick(&view, StreamSource::Replica, None, None), None, "but it is not chosen anew");
        view.nodes[1].role = Some(Role::Primary);
        assert_eq!(pick(&view, StreamSource::Replica, Some(1), None), None, "it was promoted");
    }

    #[test]
    fn a_replica_of_another_history_or_without_backlog_comes_last_or_never() {
        let mut view = view(&[500, 900]);
        view.nodes[2].facts.as_mut().unwrap().backlog_active = false;
        assert_eq!(auto(&view, None), Some(1));
        view.nodes[1].facts.as_mut().unwrap().history = None;
        assert_eq!(auto(&view, None), Some(2));
    }

    #[test]
    fn a_replica_that_has_emptied_its_data_is_waited_for() {
        let mut view = view(&[500, 500]);
        for node in &mut view.nodes[1..] {
            (node.link, node.applied, node.facts, node.emptied_at) = (Some(Link::Up), None, None, Some(NOW));
        }
        assert_eq!(auto(&view, Some(2)), Some(2));
        assert_eq!(auto(&view, None), None, "the primary is not asked for that");
    }

    #[test]
    fn a_source_that_failed_is_passed_over_for_a_while_if_there_is_another() {
        let view = view(&[500, 900]);
        let mut avoided = Avoided::default();
        let replica =
            |avoided: &Avoided, now| choose(&view, wish(StreamSource::Replica, None), None, avoided, 1, now);
        avoided.failed(NodeId(2), NOW);
        assert_eq!(replica(&avoided, NOW), Some(NodeId(1)));
        avoided.failed(NodeId(1), NOW);
        assert_eq!(replica(&avoided, NOW), Some(NodeId(2)), "better than none");
        let auto = wish(StreamSource::Auto, Some(0));
        assert_eq!(choose(&view, auto, None, &avoided, 1, NOW), Some(PRIMARY));
        assert!(!avoided.contains(NodeId(1), NOW.after(AVOID_FIRST)));
        avoided.failed(NodeId(1), NOW);
        assert!(avoided.contains(NodeId(1), NOW.after(AVOID_FIRST)), "longer each time");
        avoided.served(NodeId(1));
        assert!(!avoided.contains(NodeId(1), NOW));
        (0..100).for_each(|_| avoided.failed(NodeId(1), NOW));
        assert!(!avoided.contains(NodeId(1), NOW.after(AVOID_LONGEST)));
    }
}
