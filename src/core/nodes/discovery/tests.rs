//! Tests of who is found, and who stays.

use std::sync::Arc;

use super::*;
use crate::core::fence::AnchorSeq;
use crate::core::nodes::members::Places;
use crate::core::nodes::node::{Facts, NodeId};
use crate::core::nodes::view::{Observation, Patience, Tracker};
use crate::core::policy::{Policies, Policy};
use crate::core::position::{History, Offset, ReplId};

fn at(port: u16) -> Address {
    Address::tcp("10.0.0.1", port)
}

fn all(ports: &[u16]) -> Vec<Address> {
    ports.iter().map(|port| at(*port)).collect()
}

fn id(c: u8) -> ReplId {
    ReplId::parse(&[c; 40]).unwrap()
}

/// A history promoted out of `old`.
fn promoted(new: u8, old: u8) -> History {
    History { id: id(new), previous: Some((id(old), Offset::new(1_000_000))) }
}

/// A tracker, who has which place, and who is to be there. Nodes are called by their ports.
struct World {
    tracker: Tracker,
    places: Places,
    discovery: Discovery,
    secs: u64,
}

impl World {
    fn new(configured: &[u16], names: usize, ask_nodes: bool) -> Self {
        Self::with(configured, names, ask_nodes, BTreeMap::new())
    }

    fn with(configured: &[u16], names: usize, ask_nodes: bool, map: BTreeMap<Address, Address>) -> Self {
        let configured = all(configured);
        let policies = Policies { all: vec![Policy::default()], ..Policies::default() };
        let limits = Patience { silence: Duration::from_secs(1), hold: Duration::from_secs(2) };
        Self {
            tracker: Tracker::new(configured.clone(), Some(NodeId(0)), policies, limits),
            places: Places::new(64, &configured),
            discovery: Discovery::new(configured, names, ask_nodes, map),
            secs: 1,
        }
    }

    /// `1` is the primary, and says that it has these replicas.
    fn listing(replicas: &[u16]) -> Self {
        let mut world = Self::new(&[1], 0, true);
        world.primary(1, History::new(id(b'a')), replicas);
        world
    }

    fn now(&self) -> Moment {
        Moment::from_millis(self.secs * 1000)
    }

    fn hear(&mut self, observation: Observation) {
        let now = self.now();
        let _ = self.tracker.apply(observation, now);
    }

    fn node(&self, port: u16) -> NodeId {
        self.places.at(&at(port)).unwrap_or_else(|| panic!("{port} is not there"))
    }

    fn info(&mut self, port: u16, facts: Facts, process: &str) {
        let facts = Box::new(Facts { run_id: Some(process.to_owned()), ..facts });
        self.hear(Observation::Info { node: self.node(port), facts });
    }

    fn primary(&mut self, port: u16, history: History, replicas: &[u16]) {
        self.primary_of(port, history, replicas, &port.to_string());
    }

    fn primary_of(&mut self, port: u16, history: History, replicas: &[u16], process: &str) {
        let replicas: Arc<[Address]> = all(replicas).into();
        let facts = Facts { role: Some(Role::Primary), history: Some(history), replicas, ..Facts::default() };
        self.info(port, facts, process);
        let (node, sent_at, offset) = (self.node(port), self.now(), Offset::new(1000));
        self.hear(Observation::Primary { node, seq: AnchorSeq(1), sent_at, offset });
    }

    fn replica(&mut self, port: u16, of: u16, history: History, link: Link, replicas: &[u16]) {
        self.replica_of(port, of, (history, link), replicas, &port.to_string());
    }

    fn replica_of(
        &mut self,
        port: u16,
        of: u16,
        (history, link): (History, Link),
        replicas: &[u16],
        process: &str,
    ) {
        let (master, replicas): (_, Arc<[Address]>) = (("10.0.0.1".to_owned(), of), all(replicas).into());
        let facts = Facts {
            role: Some(Role::Replica),
            master: Some(master.clone()),
            history: Some(history),
            replicas,
            ..Facts::default()
        };
        self.info(port, facts, process);
        let (node, applied) = (self.node(port), Some(Offset::new(1000)));
        self.hear(Observation::Replica { node, link, master, applied });
    }

    fn lose(&mut self, port: u16) {
        self.hear(Observation::Lost { node: self.node(port) });
    }

    /// Who is there from now on, in the order of their ports.
    fn settle(&mut self) -> Vec<u16> {
        let now = self.now();
        let membership = self.discovery.decide(self.tracker.view(), now);
        assert!(membership.primary.is_none() && membership.moves.values().all(|moves| *moves == 0));
        let changes = self.places.settle(&membership.nodes);
        changes.leave.into_iter().for_each(|node| self.hear(Observation::Left { node }));
        for (node, address) in changes.join {
            self.hear(Observation::Joined { node, address });
        }
        let port = |(_, address): &(NodeId, Address)| match address {
            Address::Tcp { port, .. } => *port,
            Address::Unix(_) => 0,
        };
        let mut ports: Vec<u16> = self.places.taken().iter().map(port).collect();
        ports.sort_unstable();
        ports
    }

    /// The same after so many seconds.
    fn settle_after(&mut self, secs: u64) -> Vec<u16> {
        self.secs += secs;
        self.settle()
    }

    fn followed(&self) -> Option<u16> {
        let primary = self.tracker.view().primary?;
        (0..100).find(|port| self.places.at(&at(*port)) == Some(primary))
    }
}

const A: u8 = b'a';
const UP: Link = Link::Up;

fn a() -> History {
    History::new(id(A))
}

#[test]
fn the_replicas_of_the_primary_are_found_and_those_of_its_replicas() {
    let mut world = World::listing(&[2, 3]);
    assert_eq!(world.settle(), [1, 2, 3]);
    world.replica(2, 1, a(), UP, &[4]);
    assert_eq!(world.settle(), [1, 2, 3, 4]);
    world.replica(3, 1, History::new(id(b'f')), UP, &[5]);
    assert!(!world.settle().contains(&5), "whoever has another history may have anybody for a replica");
}

#[test]
fn who_is_on_no_list_any_longer_and_silent_leaves_after_a_while() {
    let mut world = World::listing(&[2, 3]);
    world.settle();
    world.replica(2, 1, a(), UP, &[]);
    world.lose(3);
    world.primary(1, a(), &[2]);
    assert_eq!(world.settle_after(1), [1, 2, 3]);
    assert_eq!(world.settle_after(10), [1, 2, 3]);
    assert_eq!(world.settle_after(1), [1, 2]);
    world.primary(1, a(), &[2, 3]);
    assert_eq!(world.settle_after(1), [1, 2, 3], "it is back");
    world.lose(3);
    world.primary(1, a(), &[2]);
    assert_eq!(world.settle_after(9), [1, 2, 3]);
    world.primary(1, a(), &[2, 3]);
    world.settle_after(1);
    world.primary(1, a(), &[2]);
    assert_eq!(world.settle_after(9), [1, 2, 3], "the time begins anew");
}

#[test]
fn who_answers_that_it_belongs_here_stays_and_who_does_not_leaves() {
    let mut world = World::listing(&[2, 3]);
    world.settle();
    world.replica(2, 1, a(), Link::Down, &[]);
    world.replica(3, 9, History::new(id(b'f')), Link::Down, &[]);
    world.primary(1, a(), &[]);
    assert_eq!(world.settle(), [1, 2, 3]);
    assert_eq!(world.settle_after(60), [1, 2], "its link is cut: it may be promoted next");
}

#[test]
fn while_the_primary_says_nothing_everybody_stays() {
    let mut world = World::listing(&[2, 3]);
    world.settle();
    world.lose(3);
    world.lose(1);
    assert_eq!(world.settle_after(100), [1, 2, 3]);
    // It has been restarted, and its replicas come back one after the other.
    let loading = Facts { loading: true, ..Facts::default() };
    world.info(1, Facts { role: Some(Role::Primary), history: Some(a()), ..loading }, "1");
    assert_eq!(world.settle_after(100), [1, 2, 3]);
    world.primary(1, a(), &[]);
    assert_eq!(world.settle_after(1), [1, 2, 3]);
    assert_eq!(world.settle_after(10), [1, 2, 3]);
    assert_eq!(world.settle_after(1), [1]);
}

#[test]
fn after_a_failover_the_list_of_the_new_primary_counts() {
    let mut world = World::listing(&[2, 3]);
    world.settle();
    world.replica(2, 1, a(), UP, &[]);
    world.replica(3, 1, a(), UP, &[]);
    world.lose(1);
    world.primary(2, promoted(b'b', A), &[]);
    assert_eq!(world.followed(), Some(2));
    assert_eq!(world.settle_after(30), [1, 2, 3]);
    world.primary(2, promoted(b'b', A), &[3, 4]);
    assert_eq!(world.settle(), [1, 2, 3, 4]);
    // The old one comes back, and has not heard of it.
    world.primary(1, a(), &[7]);
    assert_eq!((world.followed(), world.settle()), (Some(2), vec![1, 2, 3, 4]));
    // Or under another address.
    world.replica(1, 2, promoted(b'b', A), UP, &[]);
    world.primary(2, promoted(b'b', A), &[3, 4, 5]);
    assert_eq!(world.settle(), [1, 2, 3, 4, 5]);
}

#[test]
fn who_is_followed_by_our_replicas_is_asked() {
    let mut world = World::listing(&[2, 3]);
    world.settle();
    world.replica(2, 1, a(), UP, &[]);
    assert_eq!(world.settle(), [1, 2, 3]);
    // 9 was promoted, which nobody has heard of: 2 follows it.
    world.replica(2, 9, promoted(b'b', A), UP, &[]);
    assert_eq!(world.settle(), [1, 2, 3, 9]);
    world.primary(9, promoted(b'b', A), &[2]);
    assert_eq!(world.followed(), Some(9));
}

#[test]
fn a_configured_primary_that_is_a_replica_leads_to_the_one_that_it_follows() {
    let mut world = World::new(&[1], 0, true);
    world.replica(1, 2, promoted(b'b', A), UP, &[]);
    assert_eq!(world.settle(), [1, 2]);
    world.primary(2, promoted(b'b', A), &[1, 3]);
    assert_eq!((world.followed(), world.settle()), (Some(2), vec![1, 2, 3]));
}

#[test]
fn a_process_is_there_once_however_many_addresses_it_has() {
    let mut world = World::new(&[1], 1, false);
    world.primary_of(1, a(), &[], "p");
    assert!(world.discovery.hear_name(0, &all(&[11, 2, 12])));
    assert_eq!(world.settle(), [1, 2, 11, 12]);
    world.primary_of(11, a(), &[], "p");
    world.replica_of(2, 1, (a(), UP), &[], "r");
    world.replica_of(12, 1, (a(), UP), &[], "r");
    let mut there = world.settle();
    assert_eq!(there.len(), 2, "{there:?}");
    assert!(there.remove(0) == 1 && [2, 12].contains(&there[0]));
    assert_eq!(world.settle_after(60).len(), 2);
    // What the name of the primary leads to is another process now: the old one is a node of its own.
    world.primary_of(1, promoted(b'b', A), &[], "q");
    assert!(world.settle().contains(&11));
}

#[test]
fn records_come_and_go_at_once_but_for_whoever_is_followed() {
    let mut world = World::new(&[1], 1, false);
    world.primary(1, a(), &[2, 7]);
    assert_eq!(world.settle(), [1]);
    assert!(world.discovery.hear_name(0, &all(&[3, 2])));
    assert!(!world.discovery.hear_name(0, &all(&[2, 3, 2])), "as before");
    assert_eq!(world.settle(), [1, 2, 3]);
    assert!(!world.discovery.hear_name(0, &[]), "no record is no answer");
    assert_eq!(world.settle_after(100), [1, 2, 3]);
    world.replica(2, 1, a(), UP, &[]);
    world.lose(1);
    world.primary(2, promoted(b'b', A), &[]);
    assert!(world.discovery.hear_name(0, &all(&[3, 4])));
    assert_eq!((world.followed(), world.settle()), (Some(2), vec![1, 2, 3, 4]));
    world.lose(2);
    assert_eq!(world.settle(), [1, 3, 4]);
}

#[test]
fn whoever_is_found_is_reached_by_the_address_of_the_map() {
    let reached = Address::tcp("replica.example", 1);
    let mut world = World::with(&[1], 1, true, [(at(2), reached.clone())].into());
    world.primary(1, a(), &[2, 3]);
    assert!(world.discovery.hear_name(0, &all(&[2])));
    let nodes = world.discovery.decide(world.tracker.view(), Moment::default()).nodes;
    assert_eq!(nodes, [at(1), reached, at(3)]);
}
