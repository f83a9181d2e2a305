//! Tests of the ladder.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::core::address::Address;
use crate::core::fence::{AnchorSeq, Era};
use crate::core::nodes::delay::StreamPace;
use crate::core::nodes::election::Claim;
use crate::core::nodes::lag::{Anchor, Growth};
use crate::core::nodes::node::{Facts, Gate};
use crate::core::nodes::zones::Zones;
use crate::core::position::{History, ReplId};

const NOW: Moment = Moment::from_millis(100_100);
const ASKED: Moment = Moment::from_millis(100_000);
const HEAD: u64 = 1000;
const P: NodeId = NodeId(0);
const R: NodeId = NodeId(1);
const S: NodeId = NodeId(2);

fn id(c: u8) -> ReplId {
    ReplId::parse(&[c; 40]).unwrap()
}

fn at(bytes: u64) -> Offset {
    Offset::new(bytes)
}

fn ago(span: Duration) -> Moment {
    Moment::from_nanos(NOW.as_nanos() - span.as_nanos() as u64)
}

fn gate(samples: &[bool]) -> Gate {
    let mut gate = Gate::default();
    for &good in samples {
        gate.sample(good);
    }
    gate
}

/// A read and the nodes that it may go to. As made, every replica is perfect.
#[derive(Clone, Debug)]
struct Case {
    view: View,
    policy: Policy,
    demand: Demand,
    sticky: Option<NodeId>,
    load: Vec<u32>,
    in_flight: Vec<u32>,
    may_try: Vec<bool>,
    in_doubt: Vec<bool>,
    barred: Vec<Option<Reason>>,
    tie: u32,
    waited: bool,
    avoid: Option<NodeId>,
}

impl Case {
    /// A primary at 1000, asked 100 ms ago, and so many replicas that have applied all of it.
    fn new(replicas: u32, consistency: Consistency) -> Self {
        let history = History::new(id(b'a'));
        let node = |n: u32| {
            let mut node = Node::new(NodeId(n), Address::tcp(&format!("n{n}"), 1), 1);
            node.role = Some(if n == 0 { Role::Primary } else { Role::Replica });
            (node.applied, node.heard_at) = (Some(at(HEAD)), Some(ago(Duration::from_millis(10))));
            node.facts = Some(Facts { role: node.role, history: Some(history), ..Facts::default() });
            if n > 0 {
                (node.link, node.fresh_from, node.last_up) = (Some(Link::Up), Some(ASKED), node.heard_at);
                (node.standing, node.within) = (gate(&[true]), vec![gate(&[true])]);
            }
            node
        };
        let view = View {
            nodes: (0..=replicas).map(node).collect(),
            primary: Some(P),
            claim: Claim::First,
            two_primaries: false,
            history: Some(history),
            era: Era(0),
            head: Some(Anchor { sent_at: ASKED, offset: at(HEAD) }),
            anchor: AnchorSeq(7),
            growth: Growth::default(),
            stream: None,
            least_applied: None,
            rights: Arc::default(),
            policies: Arc::default(),
            zones: Arc::default(),
            silence_limit: Duration::from_secs(1),
            hold: Duration::from_secs(2),
        };
        Self {
            view,
            policy: Policy { consistency, ..Policy::default() },
            demand: Demand::Nothing,
            sticky: None,
            load: vec![],
            in_flight: vec![],
            may_try: vec![],
            in_doubt: vec![],
            barred: vec![],
            tie: 0,
            waited: false,
            avoid: None,
        }
    }

    fn replica(&mut self) -> &mut Node {
        &mut self.view.nodes[1]
    }

    fn facts(&mut self) -> &mut Facts {
        self.replica().facts.as_mut().unwrap()
    }

    /// In zone `a`, as these nodes are by the configuration; the others say that they are in `b`.
    fn zones(mut self, near: &[u32], limit: u32) -> Self {
        let of_nodes = near.iter().map(|n| (Address::tcp(&format!("n{n}"), 1), "a".to_owned())).collect();
        self.view.zones = Arc::new(Zones { own: Some("a".to_owned()), of_nodes, limit });
        for facts in self.view.nodes.iter_mut().filter_map(|node| node.facts.as_mut()) {
            facts.zone = Some("b".to_owned());
        }
        self
    }

    fn lose_primary(&mut self) {
        self.view.nodes[0].silent_since = Some(ago(self.view.hold + Duration::from_nanos(1)));
    }

    fn ask(&self) -> Ask<'_> {
        Ask {
            view: &self.view,
            policy: &self.policy,
            policy_id: PolicyId(0),
            demand: self.demand,
            sticky: self.sticky,
            load: &self.load,
            in_flight: &self.in_flight,
            proven: &[],
            in_doubt: &self.in_doubt,
            barred: &self.barred,
            may_try: &self.may_try,
            now: NOW,
            tie: self.tie,
            waited: self.waited,
            avoid: self.avoid,
        }
    }

    fn judge(&self) -> Result<(), Reason> {
        judge(self.view.node(R).unwrap(), &self.ask())
    }

    fn decide(&self) -> Decision {
        decide(&self.ask())
    }

    /// Where it is sent.
    fn sent(&self) -> Option<u32> {
        match self.decide() {
            Decision::Send { node, .. } => Some(node.0),
            _ => None,
        }
    }

    /// Which replicas serve it, and how often, over many ties.
    fn spread(&self) -> Vec<u32> {
        let mut served = vec![0; self.view.nodes.len()];
        let mut case = self.clone();
        for n in 0..30_000_u32 {
            case.tie = n.wrapping_mul(0x9e37_79b9).rotate_left(7) ^ n;
            served[case.sent().unwrap() as usize] += 1;
        }
        served
    }
}

fn send(node: NodeId, reason: Reason) -> Decision {
    Decision::Send { node, reason }
}

/// What disqualifies a replica, and the reason given for it; the levels from which on it does.
type Disqualified = (&'static str, Consistency, Reason, fn(&mut Case));

const DISQUALIFIED: &[Disqualified] = &[
    ("avoided", Consistency::Eventual, Reason::Repeated, |c| c.avoid = Some(R)),
    ("barred", Consistency::Eventual, Reason::RightsDiffer, |c| {
        c.barred = vec![None, Some(Reason::RightsDiffer)];
    }),
    ("lost", Consistency::Eventual, Reason::Silent, |c| c.replica().silent_since = Some(NOW)),
    ("never heard", Consistency::Eventual, Reason::Silent, |c| c.replica().heard_at = None),
    ("quiet for too long", Consistency::Eventual, Reason::Silent, |c| {
        c.replica().heard_at = Some(ago(Duration::from_millis(1001)));
    }),
    ("no role", Consistency::Eventual, Reason::Unobserved, |c| c.replica().role = None),
    ("no INFO", Consistency::Eventual, Reason::Unobserved, |c| c.replica().facts = None),
    ("no link state", Consistency::Eventual, Reason::Unobserved, |c| c.replica().link = None),
    ("no offset", Consistency::Eventual, Reason::Unobserved, |c| c.replica().applied = None),
    ("promoted", Consistency::Eventual, Reason::NotAReplica, |c| c.replica().role = Some(Role::Primary)),
    ("never synced", Consistency::Eventual, Reason::NeverSynced, |c| {
        (c.replica().link, c.facts().link_down) = (Some(Link::Down), Some(LinkDown::Never));
    }),
    ("in its first sync", Consistency::Eventual, Reason::NeverSynced, |c| {
        (c.replica().link, c.facts().link_down) = (Some(Link::Syncing), Some(LinkDown::Never));
    }),
    ("loading", Consistency::Eventual, Reason::Loading, |c| c.facts().loading = true),
    ("loading beside the old data", Consistency::Eventual, Reason::Syncing, |c| {
        c.facts().async_loading = true;
    }),
    ("syncing by ROLE", Consistency::Eventual, Reason::Syncing, |c| c.replica().link = Some(Link::Syncing)),
    ("syncing by INFO", Consistency::Eventual, Reason::Syncing, |c| c.facts().sync_in_progress = true),
    ("link down", Consistency::Eventual, Reason::LinkDown, |c| c.replica().link = Some(Link::Down)),
    ("another history", Consistency::Eventual, Reason::ForeignHistory, |c| {
        c.facts().history = Some(History::new(id(b'b')));
    }),
    ("a history untold", Consistency::Eventual, Reason::ForeignHistory, |c| c.facts().history = None),
    ("our history unknown", Consistency::Eventual, Reason::ForeignHistory, |c| c.view.history = None),
    ("beyond the end of the common history", Consistency::Eventual, Reason::ForeignHistory, |c| {
        c.view.history = Some(History { id: id(b'b'), previous: Some((id(b'a'), at(HEAD))) });
    }),
    ("not yet judged", Consistency::Eventual, Reason::Returning, |c| c.replica().standing = gate(&[])),
    ("back for two samples", Consistency::Eventual, Reason::Returning, |c| {
        c.replica().standing = gate(&[false, true, true]);
    }),
    ("within max-lag for two samples", Consistency::Bounded, Reason::Returning, |c| {
        c.replica().within = vec![gate(&[false, true, true])];
    }),
    ("no anchor covers it", Consistency::Bounded, Reason::Unproven, |c| c.replica().fresh_from = None),
    ("no head", Consistency::Bounded, Reason::Unproven, |c| c.view.head = None),
    ("older than max-lag", Consistency::Bounded, Reason::TooOld, |c| {
        c.replica().fresh_from = Some(ago(Duration::from_nanos(1_000_000_001)));
    }),
    ("further behind than max-lag-bytes", Consistency::Bounded, Reason::TooFar, |c| {
        c.view.head = Some(Anchor { sent_at: ASKED, offset: at(HEAD + c.policy.max_lag_bytes + 1) });
    }),
    ("further behind by now, if the primary goes on", Consistency::Bounded, Reason::TooFar, |c| {
        c.view.head = Some(Anchor { sent_at: ASKED, offset: at(HEAD + c.policy.max_lag_bytes) });
        c.view.growth = Growth::new(1_000);
    }),
    ("its data was replaced", Consistency::Bounded, Reason::InDoubt, |c| c.in_doubt = vec![false, true]),
    ("below the floor", Consistency::Eventual, Reason::BelowFloor, |c| {
        c.demand = Demand::Applied(at(HEAD + 1), Reason::BelowFloor);
    }),
    ("below the session", Consistency::Eventual, Reason::BelowSession, |c| {
        c.demand = Demand::Applied(at(HEAD + 1), Reason::BelowSession);
    }),
    ("below the fence", Consistency::Eventual, Reason::BelowFence, |c| {
        c.demand = Demand::Applied(at(HEAD + 1), Reason::BelowFence);
    }),
    ("a fence pending", Consistency::Eventual, Reason::FencePending, |c| {
        c.demand = Demand::Unknown(Reason::FencePending);
    }),
    ("a barrier pending", Consistency::Eventual, Reason::BarrierPending, |c| {
        c.demand = Demand::Unknown(Reason::BarrierPending);
    }),
    ("a slot that moves", Consistency::Eventual, Reason::SlotMoving, |c| {
        c.demand = Demand::Unknown(Reason::SlotMoving);
    }),
    ("an own write in flight", Consistency::Eventual, Reason::OwnWriteInFlight, |c| {
        c.demand = Demand::Unknown(Reason::OwnWriteInFlight);
    }),
];

#[test]
fn each_thing_that_disqualifies_a_replica_sends_the_read_to_the_primary_with_its_reason() {
    for (what, from, reason, change) in DISQUALIFIED {
        for level in Consistency::ALL {
            let mut case = Case::new(1, level);
            assert_eq!(case.decide(), send(R, Reason::Fresh), "{what}: before, at {level:?}");
            change(&mut case);
            let out = level >= *from;
            assert_eq!(case.judge(), if out { Err(*reason) } else { Ok(()) }, "{what} at {level:?}");
            // A strong read waits for its barrier first.
            case.waited = true;
            let expected = if out { send(P, *reason) } else { send(R, Reason::Fresh) };
            assert_eq!(case.decide(), expected, "{what} at {level:?}");
        }
    }
}

#[test]
fn every_reason_against_a_replica_is_provoked() {
    let told = |reason| DISQUALIFIED.iter().any(|row| row.2 == reason);
    let against = Reason::ALL.into_iter().filter(|reason| *reason < Reason::Fresh);
    let untold: Vec<Reason> = against.filter(|reason| !told(*reason)).collect();
    assert_eq!(untold, [Reason::NoReplica, Reason::StreamLate], "which have tests of their own");
}

#[test]
fn without_replicas_the_primary_serves() {
    for when_behind in WhenBehind::ALL {
        let mut case = Case::new(0, Consistency::Eventual);
        case.policy.when_behind = when_behind;
        let refused = Decision::Refuse { reason: Reason::Refused };
        let expected = if when_behind == WhenBehind::Refuse { refused } else { send(P, Reason::NoReplica) };
        assert_eq!(case.decide(), expected, "{when_behind:?}");
    }
}

#[test]
fn limits_are_inclusive() {
    let mut case = Case::new(1, Consistency::Fenced);
    case.replica().fresh_from = Some(ago(case.policy.max_lag));
    case.replica().heard_at = Some(ago(case.view.silence_limit));
    case.view.head = Some(Anchor { sent_at: ASKED, offset: at(HEAD + case.policy.max_lag_bytes) });
    case.demand = Demand::Applied(at(HEAD), Reason::BelowFence);
    assert_eq!(case.decide(), send(R, Reason::Fresh));
}

#[test]
fn an_offset_of_the_common_past_counts() {
    let mut case = Case::new(1, Consistency::Fenced);
    case.view.history = Some(History { id: id(b'b'), previous: Some((id(b'a'), at(HEAD + 1))) });
    assert_eq!(case.decide(), send(R, Reason::Fresh));
}

#[test]
fn the_reason_of_the_replica_that_came_closest_is_told() {
    let mut case = Case::new(3, Consistency::Fenced);
    case.replica().link = Some(Link::Down);
    case.view.nodes[2].fresh_from = Some(ago(Duration::from_secs(2)));
    case.view.nodes[3].heard_at = None;
    for tie in 0..4 {
        case.tie = tie;
        assert_eq!(case.decide(), send(P, Reason::TooOld));
    }
}

#[test]
fn when_no_replica_will_do_the_policy_says_what_happens() {
    let mut case = Case::new(1, Consistency::Fenced);
    case.demand = Demand::Applied(at(HEAD + 1), Reason::BelowFence);
    assert_eq!(case.decide(), send(P, Reason::BelowFence), "primary");
    case.policy.when_behind = WhenBehind::Wait;
    assert_eq!(case.decide(), Decision::Wait { reason: Reason::BelowFence }, "wait");
    case.waited = true;
    assert_eq!(case.decide(), send(P, Reason::BelowFence), "waited in vain");
    case.policy.when_behind = WhenBehind::Refuse;
    assert_eq!(case.decide(), Decision::Refuse { reason: Reason::Refused }, "refuse");
    case.demand = Demand::Nothing;
    assert_eq!(case.decide(), send(R, Reason::Fresh), "unless a replica will do");
}

#[test]
fn nobody_waits_for_what_will_not_come_within_the_timeout() {
    let mut case = Case::new(1, Consistency::Fenced);
    case.policy.when_behind = WhenBehind::Wait;
    case.replica().link = Some(Link::Down);
    assert_eq!(case.decide(), send(P, Reason::LinkDown));
}

#[test]
fn nobody_waits_in_vain_for_the_stream() {
    let mut case = Case::new(2, Consistency::Strong);
    case.demand = Demand::Unknown(Reason::BarrierPending);
    let pace = |upto, delay| Some(StreamPace { upto: at(upto), delay });
    let long = case.policy.wait_timeout + Duration::from_nanos(1);
    let wait = Decision::Wait { reason: Reason::BarrierPending };
    assert_eq!(case.decide(), wait, "nothing is known of it");
    case.view.stream = pace(HEAD - 1, Some(long));
    assert_eq!(case.decide(), send(P, Reason::StreamLate));
    case.demand = Demand::Applied(at(HEAD + 1), Reason::BarrierPending);
    assert_eq!(case.decide(), send(P, Reason::StreamLate));
    case.demand = Demand::Unknown(Reason::BarrierPending);
    case.view.stream = pace(HEAD - 1, Some(case.policy.wait_timeout));
    assert_eq!(case.decide(), wait, "it may be there in time");
    case.view.stream = pace(HEAD, Some(long));
    assert_eq!(case.decide(), wait, "it has all that was written");
    case.view.stream = pace(HEAD - 1, Some(long));
    case.policy.when_behind = WhenBehind::Refuse;
    assert_eq!(case.decide(), wait, "the primary is not asked");
    case.policy.when_behind = WhenBehind::Primary;
    case.lose_primary();
    assert_eq!(case.decide(), wait);
}

#[test]
fn of_two_replicas_the_clearly_fresher_one_serves_where_keys_matter() {
    let ms = Duration::from_millis;
    for (consistency, fresh) in [(Consistency::Fenced, true), (Consistency::Bounded, false)] {
        let mut case = Case::new(2, consistency);
        (case.view.nodes[1].delay, case.view.nodes[2].delay) = (Some(ms(150)), Some(ms(45)));
        case.load = vec![0, 0, 9];
        let sent: Vec<Option<u32>> = (0..64)
            .map(|tie| {
                case.tie = tie * 0x0001_0001;
                case.sent()
            })
            .collect();
        assert!(sent.iter().all(|node| *node == Some(if fresh { 2 } else { 1 })), "{sent:?}");
        (case.view.nodes[1].delay, case.view.nodes[2].delay) = (Some(ms(3)), Some(ms(1)));
        assert_eq!(case.sent(), Some(1), "alike: the less loaded one");
    }
}

#[test]
fn reads_are_refused_once_the_primary_hangs() {
    for (when_behind, waited) in [(WhenBehind::Primary, false), (WhenBehind::Wait, true)] {
        let mut case = Case::new(1, Consistency::Fenced);
        (case.policy.when_behind, case.waited) = (when_behind, waited);
        case.replica().fresh_from = Some(ago(Duration::from_secs(3)));
        case.view.nodes[0].silent_since = Some(ago(case.view.silence_limit / 2));
        assert_eq!(case.decide(), send(P, Reason::TooOld), "it may only be slow");
        case.lose_primary();
        assert_eq!(case.decide(), Decision::Refuse { reason: Reason::PrimaryDown });
        case.view.primary = None;
        assert_eq!(case.decide(), Decision::Refuse { reason: Reason::PrimaryDown });
    }
}

#[test]
fn reads_without_a_bound_go_on_while_the_primary_is_silent() {
    let mut case = Case::new(1, Consistency::Eventual);
    case.replica().fresh_from = Some(ago(Duration::from_mins(1)));
    case.lose_primary();
    assert_eq!(case.decide(), send(R, Reason::Fresh));
}

#[test]
fn between_two_primaries_nothing_is_sent_to_either() {
    let mut case = Case::new(1, Consistency::Fenced);
    case.view.two_primaries = true;
    assert_eq!(case.decide(), send(R, Reason::Fresh), "a replica with a proof still serves");
    case.demand = Demand::Unknown(Reason::FencePending);
    assert_eq!(case.decide(), Decision::Refuse { reason: Reason::TwoPrimaries });
}

/// A replica that lost its link ten seconds ago, and a primary that is gone.
fn cut_off(link: Link, level: Consistency) -> Case {
    let mut case = Case::new(1, level);
    case.lose_primary();
    case.policy.serve_stale = true;
    let down = Some(LinkDown::For(Duration::from_secs(9)));
    (case.replica().link, case.replica().applied, case.facts().link_down) = (Some(link), None, down);
    (case.replica().last_up, case.replica().standing) = (Some(ago(Duration::from_secs(10))), gate(&[false]));
    case
}

#[test]
fn a_replica_without_a_link_serves_old_data_only_as_the_policy_allows() {
    let refused = Decision::Refuse { reason: Reason::PrimaryDown };
    for link in [Link::Down, Link::Syncing] {
        for level in Consistency::ALL {
            let weak = level <= Consistency::Bounded;
            let expected = if weak { send(R, Reason::StaleAllowed) } else { refused };
            let case = cut_off(link, level);
            assert_eq!(case.decide(), expected, "{link:?} at {level:?}");
            for (what, change) in [
                ("serve-stale no", (|c| c.policy.serve_stale = false) as fn(&mut Case)),
                ("longer than max-stale", |c| c.policy.max_stale = Duration::from_millis(9_999)),
                ("longer, as it says itself", |c| {
                    c.facts().link_down = Some(LinkDown::For(Duration::from_mins(1)));
                }),
                ("for how long nobody knows", |c| {
                    (c.replica().last_up, c.facts().link_down) = (None, None);
                }),
                ("never synced", |c| c.facts().link_down = Some(LinkDown::Never)),
                ("loading", |c| c.facts().loading = true),
                ("silent", |c| c.replica().silent_since = Some(NOW)),
                ("no INFO", |c| c.replica().facts = None),
                ("not a replica", |c| c.replica().role = Some(Role::Primary)),
                ("it just failed", |c| c.avoid = Some(R)),
            ] {
                let mut case = case.clone();
                change(&mut case);
                assert_eq!(case.decide(), refused, "{what}, {link:?} at {level:?}");
            }
            let mut case = case.clone();
            case.policy.max_stale = Duration::from_secs(10);
            assert_eq!(case.decide(), expected, "max-stale is inclusive");
        }
    }
}

#[test]
fn old_data_under_a_swapdb_load_counts_from_when_the_link_dropped() {
    for (link, max_stale, allowed) in
        [(Link::Syncing, 10, true), (Link::Syncing, 9, false), (Link::Up, 60, false)]
    {
        let mut case = cut_off(link, Consistency::Eventual);
        (case.facts().async_loading, case.facts().sync_in_progress) = (true, true);
        case.policy.max_stale = Duration::from_secs(max_stale);
        assert_eq!(case.decide() == send(R, Reason::StaleAllowed), allowed, "{link:?}, {max_stale} s");
        case.view.nodes[0].silent_since = None;
        assert_eq!(case.sent(), Some(0), "and the primary comes first");
    }
}

#[test]
fn old_data_is_the_last_resort_after_the_primary_unless_the_policy_refuses_that() {
    let mut case = cut_off(Link::Down, Consistency::Bounded);
    case.view.nodes[0].silent_since = None;
    assert_eq!(case.decide(), send(P, Reason::LinkDown));
    case.policy.when_behind = WhenBehind::Refuse;
    assert_eq!(case.decide(), send(R, Reason::StaleAllowed));
}

#[test]
fn a_bounded_read_gets_data_of_a_linked_replica_no_older_than_max_stale() {
    let mut case = Case::new(1, Consistency::Bounded);
    case.lose_primary();
    case.policy.serve_stale = true;
    case.replica().fresh_from = Some(ago(case.policy.max_stale));
    assert_eq!(case.decide(), send(R, Reason::StaleAllowed));
    for unproven in [None, Some(ago(case.policy.max_stale + Duration::from_nanos(1)))] {
        case.replica().fresh_from = unproven;
        assert_eq!(case.decide(), Decision::Refuse { reason: Reason::PrimaryDown });
    }
}

#[test]
fn a_linked_replica_of_another_primary_serves_nobody() {
    for level in Consistency::ALL {
        let mut case = Case::new(1, level);
        case.lose_primary();
        case.policy.serve_stale = true;
        case.facts().history = Some(History::new(id(b'b')));
        assert_eq!(case.decide(), Decision::Refuse { reason: Reason::PrimaryDown }, "{level:?}");
    }
}

#[test]
fn a_connection_stays_with_its_replica_while_that_will_do() {
    let mut case = Case::new(3, Consistency::Fenced);
    (case.sticky, case.load) = (Some(S), vec![0, 0, 1000, 0]);
    for tie in 0..100 {
        case.tie = tie;
        assert_eq!(case.sent(), Some(2));
    }
    case.view.nodes[2].link = Some(Link::Down);
    assert_ne!(case.sent(), Some(2));
    case.sticky = Some(NodeId(99));
    assert!(case.sent().is_some(), "a node that is configured no longer");
}

#[test]
fn a_connection_does_not_stay_with_a_replica_that_was_promoted() {
    let mut case = Case::new(2, Consistency::Fenced);
    case.view.nodes[1].role = Some(Role::Primary);
    (case.view.primary, case.sticky) = (Some(R), Some(R));
    assert_eq!(case.decide(), send(S, Reason::Fresh));
}

#[test]
fn the_less_loaded_of_two_serves() {
    let mut case = Case::new(2, Consistency::Fenced);
    case.load = vec![0, 5, 4];
    assert_eq!(case.spread(), [0, 0, 30_000]);
    case.load = vec![0, 4];
    assert_eq!(case.spread(), [0, 0, 30_000], "a missing entry is no load");
}

#[test]
fn the_most_loaded_of_many_never_serves_and_the_others_share() {
    let mut case = Case::new(4, Consistency::Fenced);
    case.load = vec![0, 9, 1, 1, 1];
    let served = case.spread();
    assert_eq!(served[1], 0);
    assert!(served[2..].iter().all(|&n| n > 7_000), "{served:?}");
}

#[test]
fn replicas_of_equal_load_share_equally() {
    for replicas in 1..=5 {
        let mut case = Case::new(replicas + 1, Consistency::Fenced);
        case.view.nodes[1].link = Some(Link::Down);
        let served = case.spread();
        let fair = 30_000 / replicas;
        assert_eq!(served[..2], [0, 0]);
        assert!(served[2..].iter().all(|n| n.abs_diff(fair) < fair / 10), "{served:?}");
    }
}

#[test]
fn replicas_of_the_own_zone_come_first() {
    let mut case = Case::new(3, Consistency::Fenced).zones(&[1, 3], 0);
    // However busy they are.
    case.load = vec![0, 500, 0, 500];
    case.in_flight = vec![0, 500, 0, 500];
    let served = case.spread();
    assert_eq!(served[2], 0);
    assert!(served[1] > 10_000 && served[3] > 10_000, "{served:?}");
    // Nor does it count that another one is fresher, as long as one of them is fresh enough.
    for node in &mut case.view.nodes {
        node.delay = Some(Duration::from_millis(if node.id == S { 1 } else { 100 }));
    }
    assert_eq!(case.spread()[2], 0);
}

#[test]
fn a_fresh_replica_of_another_zone_is_better_than_a_stale_one_of_the_own() {
    let mut case = Case::new(3, Consistency::Fenced).zones(&[1, 3], 0);
    case.view.nodes[1].fresh_from = None;
    assert_eq!(case.spread(), [0, 0, 0, 30_000], "one of the two is enough");
    case.view.nodes[3].link = Some(Link::Down);
    assert_eq!(case.spread(), [0, 0, 30_000, 0]);
    case.view.nodes[2].link = Some(Link::Down);
    assert_eq!(case.decide(), send(P, Reason::Unproven));
}

#[test]
fn other_zones_help_when_the_own_has_no_room() {
    let mut case = Case::new(3, Consistency::Fenced).zones(&[1, 2], 4);
    case.in_flight = vec![0, 4, 3];
    assert_eq!(case.spread(), [0, 0, 30_000, 0], "one of the two has");
    case.in_flight = vec![0, 4, 4];
    case.load = vec![0, 4, 4];
    let served = case.spread();
    assert!(served[3] > 15_000 && served[1] > 0 && served[2] > 0, "all share: {served:?}");
    case.load = vec![0, 4, 4, 9];
    assert_eq!(case.spread()[3], 0, "nobody helps who is busier");
}

#[test]
fn a_proxy_that_has_no_zone_takes_any_replica() {
    let mut case = Case::new(3, Consistency::Fenced).zones(&[1], 0);
    case.view.zones = Arc::new(Zones { own: None, ..(*case.view.zones).clone() });
    assert!(case.spread()[1..].iter().all(|&n| n > 9_000));
    case = Case::new(3, Consistency::Fenced).zones(&[], 0);
    assert!(case.spread()[1..].iter().all(|&n| n > 9_000), "nor does one without a replica in its own");
}

#[test]
fn a_proof_is_asked_of_a_replica_of_the_own_zone_unless_another_is_clearly_fresher() {
    let mut case = Case::new(3, Consistency::Fenced).zones(&[2], 0);
    (case.demand, case.may_try) = (Demand::Applied(at(HEAD + 9), Reason::BelowFence), vec![true; 4]);
    case.view.head = Some(Anchor { sent_at: ASKED, offset: at(HEAD + 9) });
    case.view.nodes[3].applied = Some(at(HEAD + 5));
    assert_eq!(case.decide(), Decision::Try { node: S, need: at(HEAD + 9) });
    let delays = [0, 100, 100, 1].map(|ms| Some(Duration::from_millis(ms)));
    case.view.nodes.iter_mut().zip(delays).for_each(|(node, delay)| node.delay = delay);
    assert_eq!(case.decide(), Decision::Try { node: NodeId(3), need: at(HEAD + 9) });
}

#[test]
fn old_data_is_served_by_a_replica_of_the_own_zone_first() {
    let mut case = Case::new(3, Consistency::Bounded).zones(&[2, 3], 0);
    case.policy.serve_stale = true;
    case.lose_primary();
    for node in &mut case.view.nodes {
        node.link = Some(Link::Down).filter(|_| node.id != P);
    }
    assert_eq!(case.decide(), send(S, Reason::StaleAllowed));
    case.view.nodes[2].facts = None;
    case.view.nodes[3].facts = None;
    assert_eq!(case.decide(), send(R, Reason::StaleAllowed));
}

#[test]
fn a_node_that_failed_is_passed_over() {
    let mut case = Case::new(2, Consistency::Fenced);
    (case.avoid, case.sticky) = (Some(R), Some(R));
    assert_eq!(case.spread(), [0, 0, 30_000]);
}

#[test]
fn what_a_replica_lacks_is_said_in_bytes_where_it_can_be() {
    let demand = Demand::Applied(at(1500), Reason::BelowFence);
    assert_eq!(demand.deficit_bytes(at(1000)), Some(500));
    assert_eq!(demand.deficit_bytes(at(2000)), Some(0));
    assert_eq!(Demand::Unknown(Reason::FencePending).deficit_bytes(at(0)), None);
    assert_eq!(Demand::Nothing.deficit_bytes(at(0)), None);
}

fn node() -> impl Strategy<Value = Node> {
    let moment = || prop::option::of(prop_oneof![Just(NOW), any::<u64>().prop_map(Moment::from_nanos)]);
    let role = prop::option::of(prop::sample::select(vec![Role::Primary, Role::Replica]));
    let link = prop::option::of(prop::sample::select(vec![Link::Up, Link::Syncing, Link::Down]));
    let down = prop_oneof![
        Just(None),
        Just(Some(LinkDown::Never)),
        prop_oneof![Just(u64::MAX), 0_u64..100].prop_map(|s| Some(LinkDown::For(Duration::from_secs(s)))),
    ];
    let facts = prop::option::of((any::<[bool; 4]>(), down));
    let applied = prop::option::of(prop_oneof![0_u64..2000, Just(u64::MAX)].prop_map(Offset::new));
    let gates = prop::collection::vec(prop::collection::vec(any::<bool>(), 0..4), 1..3);
    (role, link, facts, applied, (moment(), moment(), moment(), moment()), gates).prop_map(
        |(role, link, facts, applied, moments, gates)| {
            let mut node = Node::new(NodeId(0), Address::tcp("n", 1), 0);
            (node.role, node.link, node.applied) = (role, link, applied);
            (node.fresh_from, node.heard_at, node.last_up, node.silent_since) = moments;
            node.facts = facts.map(|([loading, async_loading, sync_in_progress, ours], link_down)| Facts {
                history: ours.then(|| History::new(id(b'a'))),
                loading,
                async_loading,
                sync_in_progress,
                link_down,
                ..Facts::default()
            });
            node.standing = gate(&gates[0]);
            node.within = gates[1..].iter().map(|samples| gate(samples)).collect();
            node
        },
    )
}

proptest! {
    #[test]
    fn there_is_a_decision_whatever_the_view(
        nodes in prop::collection::vec(node(), 0..6),
        (primary, sticky, avoid) in any::<(Option<u32>, Option<u32>, Option<u32>)>(),
        (two_primaries, known, waited, serve_stale, tie) in any::<(bool, bool, bool, bool, u32)>(),
        (level, when_behind) in (0..Consistency::ALL.len(), 0..WhenBehind::ALL.len()),
        (wanted, head) in any::<(Option<u64>, Option<(u64, u64)>)>(),
        policy_id in 0_u32..3,
        load in prop::collection::vec(any::<u32>(), 0..6),
        now in prop_oneof![Just(NOW), any::<u64>().prop_map(Moment::from_nanos)],
    ) {
        let mut case = Case::new(0, Consistency::ALL[level]);
        let few = |id: Option<u32>| id.map(|n| NodeId(n % 8));
        case.view.nodes = nodes.into_iter().zip(0..).map(|(n, id)| Node { id: NodeId(id), ..n }).collect();
        (case.view.primary, case.view.two_primaries) = (few(primary), two_primaries);
        case.view.history = case.view.history.filter(|_| known);
        case.view.head = head.map(|(ns, bytes)| Anchor { sent_at: Moment::from_nanos(ns), offset: at(bytes) });
        (case.policy.when_behind, case.policy.serve_stale) = (WhenBehind::ALL[when_behind], serve_stale);
        case.demand = wanted.map_or(Demand::Nothing, |bytes| Demand::Applied(at(bytes), Reason::BelowFence));
        let ask = Ask {
            now, tie, waited, load: &load, proven: &[], may_try: &[true, false, true], policy_id: PolicyId(policy_id),
            sticky: few(sticky), avoid: few(avoid), ..case.ask()
        };
        match decide(&ask) {
            Decision::Send { node, reason: Reason::Fresh } => {
                let node = case.view.node(node).unwrap();
                prop_assert_eq!(judge(node, &ask), Ok(()));
                prop_assert!(node.role == Some(Role::Replica) && Some(node.id) != few(avoid));
                prop_assert!(wanted.is_none_or(|bytes| node.applied >= Some(at(bytes))));
                if ask.policy.consistency >= Consistency::Bounded {
                    prop_assert!(node.staleness(now).unwrap() <= ask.policy.max_lag);
                    prop_assert!(case.view.lag_bytes(node).unwrap() <= ask.policy.max_lag_bytes);
                }
            }
            Decision::Send { node, reason: Reason::StaleAllowed } => {
                prop_assert!(serve_stale && ask.policy.consistency <= Consistency::Bounded);
                prop_assert_eq!(case.view.node(node).unwrap().role, Some(Role::Replica));
            }
            Decision::Send { node, reason } => {
                prop_assert_eq!(case.view.usable_primary(now), Some(node));
                prop_assert!(reason < Reason::Fresh || reason == Reason::Repeated);
            }
            Decision::Try { node, need } => {
                prop_assert_eq!(Some(need), wanted.map(at));
                prop_assert!([0, 2].contains(&node.0) && case.view.primary != Some(node));
                let otherwise = Ask { demand: Demand::Nothing, ..ask };
                prop_assert_eq!(judge(case.view.node(node).unwrap(), &otherwise), Ok(()));
            }
            Decision::Wait { .. } => {
                prop_assert!(!waited && ask.policy.when_behind == WhenBehind::Wait);
            }
            Decision::Refuse { reason } => {
                prop_assert_eq!(reason == Reason::Refused, ask.policy.when_behind == WhenBehind::Refuse);
            }
        }
    }
}

/// The clock alone makes a difference exactly when `good_until` says so.
#[test]
fn a_replica_that_may_serve_may_go_on_until_its_time_is_up() {
    for consistency in [Consistency::Eventual, Consistency::Bounded, Consistency::Fenced] {
        for (heard, lag) in [(0, 100), (0, 2_000), (900, 2_000), (990, 50)] {
            let mut case = Case::new(1, consistency);
            case.policy.max_lag = Duration::from_millis(lag);
            case.replica().heard_at = Some(ago(Duration::from_millis(heard)));
            let until = good_until(&case.view, R, &case.policy).unwrap();
            for now in (0..3_000).map(|ms| NOW.after(Duration::from_millis(ms))) {
                let fit = judge(&case.view.nodes[1], &Ask { now, ..case.ask() }).is_ok();
                assert_eq!(fit, now <= until, "{consistency:?}, heard {heard} ms ago, max-lag {lag} ms");
            }
        }
    }
}
