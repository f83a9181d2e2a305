//! Tests of the view.

use proptest::prelude::*;

use super::*;
use crate::core::nodes::election::{PROMOTION_LASTS, second_primaries};
use crate::core::nodes::node::{Facts, LinkDown};
use crate::core::nodes::proof::Proofs;
use crate::core::nodes::rights::AclRule;
use crate::core::position::ReplId;
use crate::core::session::{Home, Session};

const P: NodeId = NodeId(0);
const R: NodeId = NodeId(1);
const S: NodeId = NodeId(2);
const HOLD: Duration = Duration::from_secs(2);

fn id(c: u8) -> ReplId {
    ReplId::parse(&[c; 40]).unwrap()
}

fn ms(millis: u64) -> Moment {
    Moment::from_millis(millis)
}

fn at(bytes: u64) -> Offset {
    Offset::new(bytes)
}

/// A history promoted out of `old`, which ended before `end`.
fn promoted(new: u8, old: u8, end: u64) -> History {
    History { id: id(new), previous: Some((id(old), at(end))) }
}

/// A tracker of three nodes, `P` configured as the primary, and the numbers of its anchors.
struct World {
    tracker: Tracker,
    seq: u64,
}

impl World {
    fn new() -> Self {
        Self::with(Some(P), Policy { consistency: Consistency::Bounded, ..Policy::default() })
    }

    fn with(primary: Option<NodeId>, policy: Policy) -> Self {
        let names = ["p", "r", "s"].map(|host| Address::tcp(host, 1)).to_vec();
        let policies = Policies { all: vec![policy], ..Policies::default() };
        let limits = Patience { silence: Duration::from_secs(1), hold: HOLD };
        Self { tracker: Tracker::new(names, primary, policies, limits), seq: 0 }
    }

    /// `P` is the primary and the two others follow it, all at 1000 in history `a`, known since 100 ms.
    fn settled() -> Self {
        let mut world = Self::new();
        assert_eq!(world.primary(P, 1000, 100), Effect::None);
        assert_eq!(world.info(P, primary_facts(History::new(id(b'a'))), 100), Effect::HistoryRestarted);
        world.quiet_primary(P, 1000, 100);
        for node in [R, S] {
            world.quiet_replica(node, Link::Up, Some(1000), 100);
            assert_eq!(world.info(node, replica_facts(b'a'), 100), Effect::None);
            (0..3).for_each(|_| world.quiet_replica(node, Link::Up, Some(1000), 100));
        }
        world
    }

    fn view(&self) -> &View {
        self.tracker.view()
    }

    fn node(&self, node: NodeId) -> &Node {
        self.view().node(node).unwrap()
    }

    fn primary(&mut self, node: NodeId, offset: u64, now: u64) -> Effect {
        self.seq += 1;
        let seq = AnchorSeq(self.seq);
        let heard = Observation::Primary { node, seq, sent_at: ms(now), offset: at(offset) };
        self.tracker.apply(heard, ms(now))
    }

    fn quiet_primary(&mut self, node: NodeId, offset: u64, now: u64) {
        assert_eq!(self.primary(node, offset, now), Effect::None);
    }

    fn replica(&mut self, node: NodeId, link: Link, master: &str, applied: Option<u64>, now: u64) -> Effect {
        let (master, applied) = ((master.to_owned(), 6379), applied.map(at));
        self.tracker.apply(Observation::Replica { node, link, master, applied }, ms(now))
    }

    fn quiet_replica(&mut self, node: NodeId, link: Link, applied: Option<u64>, now: u64) {
        assert_eq!(self.replica(node, link, "p", applied, now), Effect::None);
    }

    fn info(&mut self, node: NodeId, facts: Facts, now: u64) -> Effect {
        self.tracker.apply(Observation::Info { node, facts: Box::new(facts) }, ms(now))
    }

    fn lose(&mut self, node: NodeId, now: u64) {
        assert_eq!(self.tracker.apply(Observation::Lost { node }, ms(now)), Effect::None);
    }

    fn leave(&mut self, node: NodeId, now: u64) {
        assert_eq!(self.tracker.apply(Observation::Left { node }, ms(now)), Effect::None);
    }

    fn join(&mut self, node: NodeId, now: u64) {
        let joined = Observation::Joined { node, address: Address::tcp("j", 1) };
        assert_eq!(self.tracker.apply(joined, ms(now)), Effect::None);
    }

    fn name(&mut self, node: NodeId, now: u64) -> Effect {
        self.tracker.apply(Observation::Named { node: Some(node) }, ms(now))
    }

    /// `R` leaves `P` behind: it is promoted, in history `b`.
    fn promote_r(&mut self, history: History, offset: u64, now: u64) -> Effect {
        self.quiet_primary(R, offset, now);
        self.info(R, primary_facts(history), now)
    }
}

fn primary_facts(history: History) -> Facts {
    Facts { role: Some(Role::Primary), history: Some(history), ..Facts::default() }
}

fn replica_facts(history: u8) -> Facts {
    Facts {
        role: Some(Role::Replica),
        master: Some(("p".to_owned(), 6379)),
        history: Some(History::new(id(history))),
        ..Facts::default()
    }
}

/// What a policy that stays has seen of a node counts, and nothing is known under it of a place that was somebody else's.
#[test]
fn other_policies_come_with_gates_of_their_own() {
    let mut world = World::settled();
    assert!(world.tracker.view().nodes[1].within[0].is_open());
    let kept = world.tracker.view().policies.all[0].clone();
    let tight = Policy { name: "tight".to_owned(), max_lag_bytes: 0, ..kept.clone() };
    let limits = Patience { silence: Duration::from_secs(3), hold: Duration::from_secs(5) };
    // The one that stays has moved.
    let policies = Policies { all: vec![tight, kept], ..Policies::default() }.in_edition(1);
    let observation = {
        let zones = Arc::new(Zones { own: Some("a".to_owned()), ..Zones::default() });
        Observation::Configured { policies: Arc::new(policies), limits, zones }
    };
    // Behind by more than nothing.
    world.quiet_primary(P, 1500, 190);
    assert_eq!(world.tracker.apply(observation, ms(200)), Effect::None);
    let view = world.tracker.view();
    assert_eq!((view.silence_limit, view.hold, view.policies.edition), (limits.silence, limits.hold, 1));
    assert_eq!(view.zones.own.as_deref(), Some("a"));
    let open: Vec<bool> = view.nodes[1].within.iter().map(|gate| gate.is_open()).collect();
    assert_eq!(open, [false, true]);
    assert!(view.nodes.iter().all(|node| node.within.len() == 2));
}

#[test]
fn nothing_is_known_of_nodes_that_were_not_heard() {
    let world = World::new();
    assert_eq!(world.view().primary, Some(P), "the configured one");
    assert_eq!((world.view().history, world.view().head), (None, None));
    for node in &world.view().nodes {
        assert!(node.is_silent(ms(0), Duration::MAX));
        assert_eq!((node.role, node.staleness(ms(0)), world.view().lag_bytes(node)), (None, None, None));
        assert!(!node.standing.is_open() && !world.view().comparable(node));
    }
}

#[test]
fn an_observation_of_a_node_that_is_not_configured_changes_nothing() {
    let mut world = World::settled();
    let before = world.view().clone();
    world.quiet_primary(NodeId(9), 5000, 200);
    world.lose(NodeId(u32::from(u16::MAX)), 200);
    assert_eq!(*world.view(), before);
}

#[test]
fn the_first_history_voids_whatever_was_stamped_before() {
    let mut world = World::new();
    world.quiet_primary(P, 1000, 1);
    assert_eq!(world.info(P, primary_facts(History::new(id(b'a'))), 2), Effect::HistoryRestarted);
    assert_eq!(world.info(P, primary_facts(History::new(id(b'a'))), 3), Effect::None, "and only once");
}

#[test]
fn a_replica_is_fresh_from_the_newest_anchor_that_it_has_applied() {
    let mut world = World::settled();
    world.quiet_primary(P, 2000, 200);
    world.quiet_replica(R, Link::Up, Some(1500), 210);
    world.quiet_replica(S, Link::Up, Some(2000), 210);
    assert_eq!(world.node(R).fresh_from, Some(ms(100)));
    assert_eq!(world.node(S).fresh_from, Some(ms(200)));
    assert_eq!(world.node(R).staleness(ms(350)), Some(Duration::from_millis(250)));
    assert_eq!(world.view().lag_bytes(world.node(R)), Some(500));
    assert_eq!(world.view().lag_bytes(world.node(S)), Some(0));
    world.quiet_replica(S, Link::Up, Some(2300), 220);
    assert_eq!(world.view().lag_bytes(world.node(S)), Some(0), "ahead of the anchor is not behind");
}

#[test]
fn an_anchor_renews_what_replicas_had_told_before_it() {
    let mut world = World::settled();
    world.quiet_replica(R, Link::Up, Some(2000), 150);
    world.quiet_primary(P, 2000, 200);
    assert_eq!(world.node(R).fresh_from, Some(ms(200)));
    assert_eq!(world.node(S).fresh_from, Some(ms(100)));
}

#[test]
fn an_anchor_counts_from_when_it_was_asked_for() {
    let mut world = World::settled();
    let seq = AnchorSeq(77);
    let heard = Observation::Primary { node: P, seq, sent_at: ms(200), offset: at(1000) };
    assert_eq!(world.tracker.apply(heard, ms(900)), Effect::None);
    assert_eq!(world.node(R).staleness(ms(900)), Some(Duration::from_millis(700)));
    assert_eq!(world.view().anchor, seq);
}

#[test]
fn an_anchor_that_is_not_kept_settles_nothing() {
    let mut world = World::settled();
    let before = (world.view().head, world.view().anchor);
    let heard = Observation::Primary { node: P, seq: AnchorSeq(77), sent_at: ms(100), offset: at(2000) };
    assert_eq!(world.tracker.apply(heard, ms(200)), Effect::None);
    assert_eq!(
        (world.view().head, world.view().anchor),
        before,
        "77 would promise 2000 and the head say 1000"
    );
}

#[test]
fn proofs_age_while_the_primary_is_silent_and_requests_are_refused_after_hold() {
    let mut world = World::settled();
    world.lose(P, 1000);
    for now in [1100, 2000, 2900] {
        world.quiet_replica(R, Link::Up, Some(1000), now);
        assert_eq!(world.node(R).staleness(ms(now)), Some(Duration::from_millis(now - 100)));
    }
    assert_eq!(world.view().usable_primary(ms(1500)), Some(P), "half of the silence had passed by 1000");
    assert_eq!(world.view().usable_primary(ms(1501)), None);
    assert!(world.view().hangs(world.node(P), ms(1501)) && !world.view().hangs(world.node(P), ms(1500)));
    assert!(world.view().awaits_primary(ms(3000)) && !world.view().awaits_primary(ms(3001)));
    assert_eq!(world.view().primary, Some(P), "it stays the last one known");
    world.lose(P, 2999);
    assert_eq!(world.view().usable_primary(ms(3001)), None, "silence counts from its beginning");
    world.quiet_primary(P, 1000, 3100);
    assert_eq!(world.view().usable_primary(ms(3100)), Some(P));
}

#[test]
fn silence_is_measured_by_the_clock_even_when_nobody_reports_it() {
    let world = World::settled();
    let limit = Duration::from_secs(1);
    assert!(!world.node(R).is_silent(ms(1100), limit));
    assert!(world.node(R).is_silent(ms(1101), limit));
}

#[test]
fn anchors_count_only_after_info_on_the_same_connection() {
    let mut world = World::settled();
    world.lose(P, 150);
    world.quiet_primary(P, 9000, 200);
    assert_eq!(world.view().head.unwrap().offset, at(1000), "it may be another process");
    assert_eq!(world.view().anchor, AnchorSeq(2));
    assert_eq!(world.info(P, primary_facts(History::new(id(b'a'))), 210), Effect::None);
    world.quiet_primary(P, 9000, 220);
    assert_eq!(world.view().head, Some(Anchor { sent_at: ms(220), offset: at(9000) }));
}

#[test]
fn anchors_of_a_node_that_is_not_the_primary_are_ignored() {
    let mut world = World::settled();
    let (head, anchor) = (world.view().head, world.view().anchor);
    assert_eq!(world.promote_r(History::new(id(b'c')), 9000, 200), Effect::None);
    world.quiet_primary(R, 9000, 210);
    assert_eq!((world.view().primary, world.view().head, world.view().anchor), (Some(P), head, anchor));
    assert!(!world.view().two_primaries, "the one we had stays");
}

#[test]
fn a_head_that_goes_backwards_voids_every_proof() {
    let mut world = World::settled();
    world.quiet_primary(P, 500, 200);
    assert_eq!(world.view().head.unwrap().offset, at(500));
    assert_eq!(world.node(R).fresh_from, Some(ms(200)), "1000 covers 500, under the new anchor only");
    world.quiet_replica(R, Link::Up, Some(400), 210);
    assert_eq!(world.node(R).fresh_from, None);
}

#[test]
fn a_replica_that_goes_backwards_is_proven_anew() {
    let mut world = World::settled();
    world.quiet_primary(P, 2000, 200);
    world.quiet_replica(R, Link::Up, Some(2000), 210);
    world.quiet_replica(R, Link::Up, Some(1200), 220);
    assert_eq!(world.node(R).fresh_from, Some(ms(100)));
    world.quiet_replica(R, Link::Down, None, 230);
    assert_eq!(world.node(R).fresh_from, None, "what it last told is no bound for what it will sync");
    assert_eq!(world.view().lag_bytes(world.node(R)), None);
}

#[test]
fn a_promoted_replica_that_continues_the_history_keeps_the_fences() {
    let mut world = World::settled();
    world.lose(P, 150);
    assert_eq!(world.promote_r(promoted(b'b', b'a', 1001), 1000, 200), Effect::None);
    assert_eq!((world.view().primary, world.view().head), (Some(R), None));
    assert_eq!(world.view().history, Some(promoted(b'b', b'a', 1001)));
    assert!(world.view().nodes.iter().all(|node| node.fresh_from.is_none()), "its anchors have yet to come");
    assert!(world.view().comparable(world.node(S)), "1000 is common to both");
    world.quiet_primary(R, 1100, 210);
    world.quiet_replica(S, Link::Up, Some(1001), 220);
    assert!(!world.view().comparable(world.node(S)), "1001 of the old history was lost with it");
}

#[test]
fn an_unrelated_history_voids_all_offsets() {
    let mut world = World::settled();
    world.lose(P, 150);
    assert_eq!(world.promote_r(History::new(id(b'c')), 9000, 3000), Effect::HistoryRestarted);
    let mut world = World::settled();
    assert_eq!(world.info(P, primary_facts(History::new(id(b'c'))), 200), Effect::HistoryRestarted);
    assert_eq!(world.view().head, None);
    assert!(!world.view().comparable(world.node(R)));
}

#[test]
fn a_history_two_promotions_away_is_unrelated() {
    let mut world = World::settled();
    world.lose(P, 150);
    assert_eq!(world.promote_r(promoted(b'c', b'b', 1500), 2000, 3000), Effect::HistoryRestarted);
}

#[test]
fn nobody_is_primary_after_a_demotion_until_a_successor_says_so_itself() {
    let mut world = World::settled();
    assert_eq!(world.replica(P, Link::Down, "r", None, 200), Effect::None);
    assert_eq!((world.view().primary, world.view().usable_primary(ms(200))), (None, None));
    assert_eq!(world.replica(S, Link::Up, "r", Some(1000), 210), Effect::None);
    assert_eq!(world.view().primary, None, "hearsay");
    assert_eq!(world.promote_r(promoted(b'b', b'a', 1001), 1000, 220), Effect::None);
    assert_eq!(world.view().usable_primary(ms(220)), Some(R));
}

#[test]
fn a_configured_primary_that_says_replica_is_not_one() {
    let mut world = World::new();
    world.quiet_replica(P, Link::Up, Some(10), 1);
    assert_eq!(world.view().primary, None);
}

#[test]
fn of_two_primaries_the_one_that_continues_our_history_was_promoted_later() {
    let mut world = World::settled();
    assert_eq!(world.promote_r(promoted(b'b', b'a', 1001), 1000, 200), Effect::None);
    assert_eq!(world.replica(S, Link::Up, "r", Some(1000), 210), Effect::None);
    assert_eq!(world.info(S, replica_facts(b'b'), 220), Effect::None);
    world.quiet_primary(R, 1000, 230);
    assert_eq!((world.view().primary, world.view().two_primaries), (Some(R), false));
    world.quiet_primary(P, 5000, 300);
    assert_eq!(world.info(P, primary_facts(History::new(id(b'a'))), 310), Effect::None);
    assert_eq!(world.view().primary, Some(R), "never alternates");
    let head = world.view().head.map(|head| head.offset);
    assert_eq!(head, Some(at(1000)), "and the old one's anchors are not taken");
}

#[test]
fn a_replica_that_is_cut_loose_for_a_moment_is_not_the_primary() {
    let mut world = World::settled();
    assert_eq!(world.promote_r(promoted(b'b', b'a', 1001), 1000, 200), Effect::None);
    assert_eq!((world.view().primary, world.view().two_primaries), (Some(P), false));
    world.quiet_primary(R, 1000, 1300);
    assert_eq!(world.view().primary, Some(P), "the other replica follows it, however long that lasts");
    assert_eq!(world.node(R).primary_since, Some(ms(200)));
    assert_eq!(world.replica(R, Link::Up, "p", Some(1000), 1310), Effect::None);
    assert_eq!((world.view().primary, world.node(R).primary_since), (Some(P), None));
}

#[test]
fn a_promotion_that_lasts_is_one_if_nobody_follows_the_primary_that_was() {
    let mut world = World::settled();
    world.quiet_replica(S, Link::Down, None, 190);
    assert_eq!(world.promote_r(promoted(b'b', b'a', 1001), 1000, 200), Effect::None);
    world.quiet_primary(R, 1000, 1199);
    assert_eq!(world.view().primary, Some(P));
    world.quiet_primary(R, 1000, 1200);
    assert_eq!((world.view().primary, world.view().two_primaries), (Some(R), false));
}

#[test]
fn a_demotion_that_is_admitted_needs_no_other_word() {
    let mut world = World::settled();
    assert_eq!(world.promote_r(promoted(b'b', b'a', 1001), 1000, 200), Effect::None);
    assert_eq!(world.replica(P, Link::Down, "r", None, 210), Effect::None);
    assert_eq!(world.view().primary, Some(R));
}

#[test]
fn whatever_shows_that_a_replica_may_have_gone_back_begins_another_incarnation() {
    type Change = fn(&mut World);
    let changes: [(&str, Change); 7] = [
        ("another primary", |world| {
            let _ = world.replica(R, Link::Up, "s", Some(1000), 200);
        }),
        ("the link was lost", |world| world.quiet_replica(R, Link::Syncing, Some(1000), 200)),
        ("an offset below one seen", |world| world.quiet_replica(R, Link::Up, Some(999), 200)),
        ("another history", |world| {
            let _ = world.info(R, replica_facts(b'b'), 200);
        }),
        ("another process", |world| {
            let run_id = Some("other".to_owned());
            let _ = world.info(R, Facts { run_id, ..replica_facts(b'a') }, 200);
        }),
        ("the connection was lost", |world| world.lose(R, 200)),
        ("a role that changed", |world| world.quiet_primary(R, 1000, 200)),
    ];
    for (what, change) in changes {
        let mut world = World::settled();
        world.quiet_replica(R, Link::Up, Some(1000), 190);
        let before = world.node(R).incarnation;
        world.quiet_replica(R, Link::Up, Some(1100), 195);
        assert_eq!(world.node(R).incarnation, before, "it goes on");
        change(&mut world);
        assert_ne!(world.node(R).incarnation, before, "{what}");
        assert_eq!(world.node(S).incarnation, World::settled().node(S).incarnation, "{what}");
    }
}

#[test]
fn what_a_replica_says_that_has_emptied_its_data_counts_only_if_it_was_asked_afterwards() {
    let mut world = World::settled();
    let before = world.node(R).incarnation;
    assert_eq!(world.tracker.apply(Observation::Emptied { node: R }, ms(200)), Effect::None);
    assert_ne!(world.node(R).incarnation, before);
    assert_eq!((world.node(R).applied, world.node(R).fresh_from), (None, None));
    world.quiet_replica(R, Link::Up, Some(1000), 200);
    assert_eq!(world.info(R, replica_facts(b'a'), 200), Effect::None);
    assert_eq!(world.node(R).applied, None, "asked before it was heard to empty its data");
    assert_eq!(world.info(R, replica_facts(b'a'), 201), Effect::None);
    world.quiet_replica(R, Link::Up, Some(900), 201);
    assert_eq!((world.node(R).applied, world.node(R).standing.is_open()), (Some(at(900)), true));
    assert_eq!(world.tracker.apply(Observation::Emptied { node: P }, ms(300)), Effect::None);
    assert_eq!(world.view().head.map(|head| head.offset), Some(at(1000)), "nothing is behind the primary");
}

#[test]
fn two_primaries_between_which_nothing_decides_stop_the_writes() {
    let mut world = World::settled();
    world.quiet_primary(R, 10, 200);
    assert!(!world.view().two_primaries, "the one we had stays");
    world.lose(P, 210);
    world.quiet_primary(S, 20, 220);
    assert!(world.view().two_primaries);
    assert_eq!(world.view().usable_primary(ms(220)), None);
    world.quiet_primary(P, 1000, 230);
    assert!(!world.view().two_primaries, "the one we had is back");
    assert_eq!(world.view().usable_primary(ms(230)), Some(P));
}

#[test]
fn of_two_that_were_promoted_the_one_that_is_followed_counts_or_none() {
    let mut world = World::settled();
    assert_eq!(world.promote_r(promoted(b'b', b'a', 1001), 1000, 200), Effect::None);
    world.quiet_primary(S, 1000, 205);
    assert_eq!(world.info(S, primary_facts(promoted(b'c', b'a', 1001)), 205), Effect::None);
    assert_eq!((world.view().primary, world.view().two_primaries), (Some(P), false));
    world.lose(P, 210);
    world.quiet_primary(R, 1000, 220);
    assert_eq!((world.view().two_primaries, world.view().usable_primary(ms(220))), (true, None));
    assert_eq!(seconds(&world), [R, S], "each of them, for neither is followed");
    let t = NodeId(3);
    world.join(t, 230);
    assert_eq!(world.replica(t, Link::Up, "s", Some(1000), 230), Effect::None);
    assert_eq!(world.info(t, replica_facts(b'c'), 230), Effect::None);
    assert_eq!(
        world.info(t, Facts { master: Some(("s".to_owned(), 6379)), ..replica_facts(b'c') }, 240),
        Effect::None
    );
    assert_eq!((world.view().primary, world.view().two_primaries), (Some(S), false));
    assert_eq!((world.view().claim, seconds(&world)), (Claim::Promoted, vec![R]));
}

fn seconds(world: &World) -> Vec<NodeId> {
    second_primaries(world.view()).iter().map(|node| node.id).collect()
}

#[test]
fn a_second_primary_is_another_process_that_says_so() {
    let mut world = World::settled();
    assert!(seconds(&world).is_empty());
    assert_eq!(world.promote_r(History::new(id(b'c')), 10, 200), Effect::None);
    assert_eq!((world.view().primary, world.view().claim, seconds(&world)), (Some(P), Claim::First, vec![R]));
    let process = |facts| Facts { run_id: Some("x".to_owned()), ..facts };
    assert_eq!(world.info(P, process(primary_facts(History::new(id(b'a')))), 210), Effect::None);
    assert_eq!(seconds(&world), [R]);
    assert_eq!(world.info(R, process(primary_facts(History::new(id(b'a')))), 210), Effect::None);
    assert!(seconds(&world).is_empty(), "one process by two addresses");
    world.lose(P, 220);
    assert!(seconds(&world).is_empty(), "the only one that says so");
}

#[test]
fn a_stray_primary_is_not_followed_because_it_was_heard_first() {
    let mut world = World::new();
    assert_eq!(world.promote_r(History::new(id(b'c')), 10, 1), Effect::None);
    assert_eq!((world.view().primary, world.view().history), (Some(P), None));
    world.quiet_primary(P, 1000, 2);
    assert_eq!(world.info(P, primary_facts(History::new(id(b'a'))), 3), Effect::HistoryRestarted);
    assert_eq!((world.view().primary, world.view().two_primaries), (Some(P), false));
}

#[test]
fn a_stray_primary_is_followed_only_once_ours_has_been_silent_for_longer_than_hold() {
    let mut world = World::settled();
    let stray = || primary_facts(History::new(id(b'c')));
    assert_eq!(world.promote_r(History::new(id(b'c')), 10, 200), Effect::None);
    world.lose(P, 1000);
    assert_eq!(world.info(R, stray(), 3000), Effect::None);
    assert_eq!(world.view().primary, Some(P), "its connection may just be renewed");
    assert_eq!(world.info(R, stray(), 3001), Effect::HistoryRestarted);
    assert_eq!(world.view().usable_primary(ms(3001)), Some(R));
    world.quiet_primary(P, 1000, 3100);
    assert_eq!(world.view().usable_primary(ms(3100)), Some(R), "never alternates");
}

#[test]
fn a_node_that_was_lost_may_come_back_as_another_process() {
    let mut world = World::settled();
    world.lose(R, 200);
    let node = world.node(R);
    assert_eq!((node.role, node.link, node.applied, node.fresh_from), (None, None, None, None));
    assert_eq!((&node.facts, &node.master, node.silent_since), (&None, &None, Some(ms(200))));
    world.quiet_replica(R, Link::Up, Some(99_999), 300);
    assert!(!world.view().comparable(world.node(R)), "before INFO nobody knows of which history");
    assert_eq!(world.node(R).fresh_from, None);
    assert_eq!(world.info(R, replica_facts(b'c'), 310), Effect::None);
    world.quiet_replica(R, Link::Up, Some(99_999), 320);
    assert!(!world.view().comparable(world.node(R)));
    assert_eq!((world.node(R).fresh_from, world.view().lag_bytes(world.node(R))), (None, None));
}

#[test]
fn a_replica_that_follows_somebody_else_has_to_say_its_history_again() {
    let mut world = World::settled();
    assert_eq!(world.replica(R, Link::Up, "x", Some(5000), 200), Effect::None);
    assert_eq!((&world.node(R).facts, world.node(R).fresh_from), (&None, None));
    assert!(!world.view().comparable(world.node(R)));
}

#[test]
fn offsets_heard_under_one_history_do_not_count_in_the_next() {
    let mut world = World::settled();
    assert_eq!(world.info(R, replica_facts(b'c'), 200), Effect::None);
    assert_eq!((world.node(R).applied, world.node(R).fresh_from), (None, None));
    assert_eq!(world.info(R, replica_facts(b'a'), 210), Effect::None);
    assert_eq!(world.view().lag_bytes(world.node(R)), None, "it has to be asked for the offset again");
}

#[test]
fn replicas_count_where_they_have_applied_the_offset_over_a_living_link() {
    let mut world = World::settled();
    let count = |world: &World, bytes| world.view().replicas_at(at(bytes));
    assert_eq!((count(&world, 1000), count(&world, 1001)), (2, 0), "the primary is none of them");
    world.quiet_replica(R, Link::Up, Some(1001), 200);
    assert_eq!((count(&world, 1000), count(&world, 1001)), (2, 1));
    world.quiet_replica(R, Link::Syncing, Some(1001), 210);
    assert_eq!(count(&world, 1000), 1);
    world.lose(S, 220);
    assert_eq!(count(&world, 1000), 0);
    let mut world = World::settled();
    assert_eq!(world.info(R, replica_facts(b'c'), 200), Effect::None);
    world.quiet_replica(R, Link::Up, Some(1000), 210);
    assert_eq!(count(&world, 1000), 1, "an offset of another history is no offset");
}

#[test]
fn whatever_makes_a_replica_unhealthy_puts_it_out_at_once_and_three_good_samples_bring_it_back() {
    type Unhealthy = (&'static str, fn(&mut Facts));
    let set: [Unhealthy; 4] = [
        ("loading", |facts| facts.loading = true),
        ("loading beside the old data", |facts| facts.async_loading = true),
        ("syncing", |facts| facts.sync_in_progress = true),
        ("never synced", |facts| facts.link_down = Some(LinkDown::Never)),
    ];
    let by_info = |world: &mut World, change: fn(&mut Facts)| {
        let mut facts = replica_facts(b'a');
        change(&mut facts);
        assert_eq!(world.info(R, facts, 200), Effect::None);
        assert!(!world.node(R).standing.is_open());
        assert_eq!(world.info(R, replica_facts(b'a'), 210), Effect::None);
    };
    for (what, change) in set {
        let mut world = World::settled();
        assert!(world.node(R).standing.is_open());
        by_info(&mut world, change);
        world.quiet_replica(R, Link::Up, Some(1000), 220);
        assert!(!world.node(R).standing.is_open(), "{what}: two good samples");
        world.quiet_replica(R, Link::Up, Some(1000), 230);
        assert!(world.node(R).standing.is_open(), "{what}: three");
    }
    for link in [Link::Down, Link::Syncing] {
        let mut world = World::settled();
        world.quiet_replica(R, link, None, 200);
        assert!(!world.node(R).standing.is_open());
        for (now, open) in [(210, false), (220, false), (230, true)] {
            world.quiet_replica(R, Link::Up, Some(1000), now);
            assert_eq!(world.node(R).standing.is_open(), open, "{link:?} at {now}");
        }
    }
}

#[test]
fn a_lost_replica_comes_back_after_three_good_samples() {
    let mut world = World::settled();
    world.lose(R, 200);
    assert!(!world.node(R).standing.is_open());
    world.quiet_replica(R, Link::Up, Some(1000), 300);
    assert_eq!(world.info(R, replica_facts(b'a'), 300), Effect::None);
    let mut samples = 0;
    while !world.node(R).standing.is_open() {
        samples += 1;
        world.quiet_replica(R, Link::Up, Some(1000), 300 + samples);
    }
    assert!(samples >= 3, "INFO alone does not say what it has applied: {samples}");
}

#[test]
fn a_replica_beyond_max_lag_is_out_of_the_policy_until_three_samples_are_within() {
    let mut world = World::settled();
    let open = |world: &World| world.node(R).within[0].is_open();
    assert!(open(&world));
    world.quiet_replica(R, Link::Up, Some(1000), 1101);
    assert!(!open(&world), "older than max-lag");
    assert!(world.node(R).standing.is_open(), "that is no fault");
    world.quiet_primary(P, 1000, 1200);
    for (now, expected) in [(1210, false), (1220, false), (1230, true)] {
        world.quiet_replica(R, Link::Up, Some(1000), now);
        assert_eq!(open(&world), expected, "{now}");
    }
    let far = 1000 + Policy::default().max_lag_bytes + 1;
    world.quiet_primary(P, far, 1240);
    world.quiet_replica(R, Link::Up, Some(1000), 1250);
    assert!(!open(&world), "more than max-lag-bytes behind");
}

#[test]
fn a_link_is_down_for_as_long_as_either_of_us_says() {
    let mut world = World::settled();
    assert_eq!(world.node(R).link_down_for(ms(500)), None);
    world.quiet_replica(R, Link::Down, None, 1000);
    assert_eq!(world.node(R).link_down_for(ms(1100)), Some(Duration::from_secs(1)), "as we saw it");
    let down = Some(LinkDown::For(Duration::from_secs(30)));
    assert_eq!(world.info(R, Facts { link_down: down, ..replica_facts(b'a') }, 1100), Effect::None);
    assert_eq!(
        world.node(R).link_down_for(ms(1100)),
        Some(Duration::from_secs(31)),
        "whole seconds, rounded up"
    );
    assert_eq!(world.node(R).link_down_for(ms(90_100)), Some(Duration::from_secs(90)));
}

/// Anything that could be heard, by anyone, in any order.
fn observation() -> impl Strategy<Value = Observation> {
    let node = (0_u32..4).prop_map(NodeId);
    let offset = prop_oneof![0_u64..3000, Just(u64::MAX), any::<u64>()].prop_map(Offset::new);
    let name = prop::sample::select(vec![b'a', b'b', b'c']).prop_map(id);
    let history = (name.clone(), prop::option::of((name, offset.clone())))
        .prop_map(|(id, previous)| History { id, previous });
    let link = prop::sample::select(vec![Link::Up, Link::Syncing, Link::Down]);
    let master = prop::sample::select(vec!["p", "r"]).prop_map(|host| (host.to_owned(), 6379));
    let down = prop_oneof![
        Just(None),
        Just(Some(LinkDown::Never)),
        any::<u64>().prop_map(|secs| Some(LinkDown::For(Duration::from_secs(secs)))),
    ];
    let role = prop::option::of(prop::sample::select(vec![Role::Primary, Role::Replica]));
    let facts = (role, prop::option::of(history), any::<(bool, bool, bool)>(), down).prop_map(
        |(role, history, (loading, async_loading, sync_in_progress), link_down)| Facts {
            role,
            history,
            loading,
            async_loading,
            sync_in_progress,
            link_down,
            ..Facts::default()
        },
    );
    prop_oneof![
        (node.clone(), any::<(u64, u64)>(), offset.clone()).prop_map(|(node, (seq, sent), offset)| {
            Observation::Primary { node, seq: AnchorSeq(seq), sent_at: Moment::from_nanos(sent), offset }
        }),
        (node.clone(), link, master, prop::option::of(offset)).prop_map(|(node, link, master, applied)| {
            Observation::Replica { node, link, master, applied }
        }),
        (node.clone(), facts).prop_map(|(node, facts)| Observation::Info { node, facts: Box::new(facts) }),
        node.clone().prop_map(|node| Observation::Busy { node }),
        node.prop_map(|node| Observation::Lost { node }),
    ]
}

proptest! {
    #[test]
    fn there_is_a_view_whatever_was_observed(
        heard in prop::collection::vec((observation(), any::<u64>()), 0..60),
        now in any::<u64>(),
    ) {
        let mut world = World::new();
        let now = Moment::from_nanos(now);
        for (observation, at) in heard {
            let _ = world.tracker.apply(observation, Moment::from_nanos(at));
            let view = world.view();
            prop_assert!(!view.two_primaries || view.usable_primary(now).is_none());
            prop_assert!(view.usable_primary(now).is_none_or(|id| view.primary == Some(id)));
            prop_assert!(view.replicas_at(Offset::new(0)) <= view.nodes.len());
            for node in &view.nodes {
                prop_assert!(view.lag_bytes(node).is_none() || view.comparable(node));
                prop_assert!(node.fresh_from.is_none() || node.role == Some(Role::Replica));
                let _ = (node.staleness(now), node.link_down_for(now));
            }
        }
    }
}

#[test]
fn nothing_that_a_node_which_left_has_proven_counts_for_the_next_one_in_its_place() {
    let (mut world, mut proofs) = (World::settled(), Proofs::new(3));
    proofs.renew(world.view(), ms(100));
    let (asked_in, mut session) = (proofs.generation(S), Session::default());
    proofs.prove(S, at(1000), world.view().era, asked_in);
    assert_eq!(proofs.proven()[S.index()], Some(at(1000)));
    session.home = Some(Home { node: S, generation: asked_in });

    world.leave(S, 200);
    let next = S.successor();
    assert_eq!(
        (world.view().members().count(), world.view().node(next).map(Node::is_member)),
        (2, Some(false))
    );
    world.join(next, 200);
    proofs.renew(world.view(), ms(200));

    assert_eq!(proofs.proven()[next.index()], None, "the other one had proven it");
    proofs.prove(S, at(1000), world.view().era, asked_in);
    proofs.prove(next, at(1000), world.view().era, asked_in);
    assert_eq!(proofs.proven()[next.index()], None, "the other one was asked for it");
    assert!(
        session.leaves_generation(proofs.generation(S), AnchorSeq(9)),
        "it has seen the other one's data"
    );
    assert_eq!(world.view().node(S), None);
    world.quiet_replica(S, Link::Up, Some(1000), 201);
    let (place, of_next) = (&world.view().nodes[S.index()], world.node(next));
    assert_eq!(
        (place, of_next.heard_at, of_next.applied),
        (of_next, None, None),
        "said too late, by the other one"
    );
    assert!(!of_next.standing.is_open());
}

#[test]
fn a_place_that_is_vacant_is_nobody_s() {
    let mut world = World::settled();
    world.leave(R, 200);
    let _ = world.replica(R.successor(), Link::Up, "p", Some(5), 200);
    let view = world.view();
    assert_eq!(view.members().map(|node| node.id).collect::<Vec<_>>(), [P, S]);
    assert_eq!((view.least_applied, view.replicas_linked()), (Some(at(1000)), 1));
    let far = NodeId(7);
    world.join(far, 201);
    assert_eq!((world.view().nodes.len(), world.view().members().count()), (8, 3));
    world.join(NodeId(60_000), 201);
    assert_eq!(world.view().members().count(), 3, "there is no such place");
}

#[test]
fn a_primary_that_left_is_nobody_until_another_says_that_it_is_one() {
    let mut world = World::settled();
    world.leave(P, 200);
    assert_eq!((world.view().primary, world.view().usable_primary(ms(200))), (None, None));
    world.join(P.successor(), 200);
    assert_eq!(world.view().primary, None);
    assert_eq!(world.promote_r(promoted(b'b', b'a', 1001), 1000, 201), Effect::None);
    assert_eq!(world.view().primary, Some(R));
}

#[test]
fn whoever_comes_gets_no_reads_of_users_before_it_has_shown_their_rules() {
    let mut world = World::settled();
    let rule = AclRule { words: "on ~a +get".to_owned(), open: false, everything: false };
    let rules = Arc::new(Rules::Of([(b"u".to_vec(), rule)].into()));
    for node in [P, R, S] {
        let _ = world.tracker.apply(Observation::Rules { node, rules: Arc::clone(&rules) }, ms(150));
    }
    assert!(world.view().rights.bars(b"u").is_empty());
    // Even while nobody is there whose word counts.
    world.leave(P, 200);
    world.join(NodeId(3), 200);
    assert_eq!(world.view().rights.bars(b"u"), [false, false, false, true]);
    let _ = world.tracker.apply(Observation::Rules { node: NodeId(3), rules }, ms(201));
    assert!(world.view().rights.bars(b"u").is_empty());
}

#[test]
fn whoever_is_called_the_primary_is_it_once_it_says_so_itself() {
    let mut world = World::settled();
    assert_eq!(world.name(R, 200), Effect::None);
    assert_eq!(world.view().primary, Some(P), "only others say so");
    // Both say so, and nothing but the name speaks for the new one.
    let unrelated = primary_facts(History::new(id(b'e')));
    let _ = world.primary(R, 1000, 201);
    let _ = world.info(R, unrelated.clone(), 201);
    assert_eq!(world.view().primary, Some(R));
    // The word of before does not bring the one of before back …
    let mut world = World::settled();
    assert_eq!(world.name(P, 200), Effect::None);
    world.lose(P, 300);
    let _ = world.promote_r(promoted(b'b', b'a', 1001), 1000, 301);
    let _ = world.primary(P, 1000, 302);
    assert_eq!(world.view().primary, Some(R));
    // … not even while the present one misses a poll …
    world.lose(R, 303);
    let _ = world.primary(P, 1000, 304);
    assert_eq!(world.view().primary, Some(R));
    let _ = world.primary(R, 1000, 305);
    // … nor does it keep the one that it names once that one's history goes on elsewhere, and is followed …
    let mut world = World::settled();
    assert_eq!(world.name(P, 200), Effect::None);
    let _ = world.promote_r(promoted(b'b', b'a', 1001), 1000, 301);
    let _ = world.primary(P, 1000, 302);
    assert_eq!(world.view().primary, Some(P), "by its own word alone");
    let _ = world.primary(R, 1000, 301 + PROMOTION_LASTS.as_millis() as u64 + 1);
    assert_eq!(world.view().primary, Some(P), "S follows P");
    // … and another one that is alone gets the writes for no other reason while somebody else is called the primary.
    let mut world = World::settled();
    assert_eq!(world.name(R, 200), Effect::None);
    world.lose(P, 300);
    let _ = world.primary(S, 1000, 300 + 2 * HOLD.as_millis() as u64);
    let _ = world.info(S, unrelated, 301 + 2 * HOLD.as_millis() as u64);
    assert_eq!(world.view().primary, Some(P));
}

/// In a cluster the history says nothing: a replica that was taken out of it continues that, too.
#[test]
fn in_a_cluster_nobody_leads_who_is_not_called_the_primary() {
    let in_cluster = || {
        let mut world = World::settled();
        world.tracker = world.tracker.in_cluster();
        assert_eq!(world.name(P, 200), Effect::None);
        // Nobody follows it any longer.
        world.lose(S, 201);
        let _ = world.promote_r(promoted(b'b', b'a', 1001), 1000, 301);
        let lasts = 301 + PROMOTION_LASTS.as_millis() as u64 + 1;
        let _ = world.primary(P, 1000, lasts);
        let _ = world.primary(R, 1000, lasts);
        assert_eq!(world.view().primary, Some(P));
        (world, lasts + 100)
    };
    // It is called so: the one before says first that it is none any longer …
    let (mut world, now) = in_cluster();
    let _ = world.name(R, now);
    let _ = world.primary(R, 1001, now + 50);
    assert_eq!(world.view().primary, Some(P), "it may hold writes yet");
    let _ = world.replica(P, Link::Up, "r", Some(1001), now + 60);
    assert_eq!(world.view().primary, Some(R));
    // … or has had the time.
    let (mut world, now) = in_cluster();
    let _ = world.name(R, now);
    let _ = world.primary(P, 1001, now + 399);
    let _ = world.primary(R, 1001, now + 399);
    assert_eq!(world.view().primary, Some(P));
    let _ = world.primary(R, 1001, now + 400);
    assert_eq!(world.view().primary, Some(R));
}
