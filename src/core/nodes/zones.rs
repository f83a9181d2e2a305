//! Availability zones: which one a node is in, and what that means for the choice among replicas that may serve.
//!
//! Whether a replica may serve at all is settled without them: a fresh one of another zone is better than a stale one of
//! this proxy's own.

use std::collections::BTreeMap;

use crate::core::address::Address;
use crate::core::nodes::node::Node;
use crate::mutant;

/// What the configuration says of zones.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Zones {
    /// The zone that this proxy is in; `None`: the zones of nodes make no difference.
    pub own: Option<String>,
    /// The zones of nodes, by their addresses: these win over what the nodes themselves say.
    pub of_nodes: BTreeMap<Address, String>,
    /// With so many commands of one worker in flight at it, a replica of the own zone has no room for more, and those of
    /// other zones help; 0: it always has.
    pub limit: u32,
}

/// What the zones of two replicas say about moving a connection from one to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pull {
    /// Nothing: both are in the own zone, or neither is.
    Neutral,
    /// It should move: the other one is in the own zone, and has room.
    Home,
    /// It should move: its own replica has no room, and the other one is less busy.
    Away,
    /// It should stay: its own replica is in the own zone and has room, or the other one has too little.
    Stay,
}

impl Zones {
    /// Whether the zones of nodes make a difference.
    pub const fn are_set(&self) -> bool {
        self.own.is_some()
    }

    /// The zone of a node: what the configuration says, else what the node says itself (`availability_zone`).
    pub fn of<'a>(&'a self, node: &'a Node) -> Option<&'a str> {
        let configured = node.address.as_deref().and_then(|address| self.of_nodes.get(address));
        configured.or_else(|| node.facts.as_ref()?.zone.as_ref()).map(String::as_str)
    }

    /// Whether a node is in the zone of this proxy.
    pub fn is_near(&self, node: &Node) -> bool {
        self.are_set() && self.of(node) == self.own.as_deref() && !mutant::is("zone-ignored")
    }

    /// Whether a replica of the own zone takes more with so many commands in flight at it.
    pub const fn has_room(&self, in_flight: u32) -> bool {
        self.limit == 0 || in_flight < self.limit
    }

    /// Whether a replica of the own zone with so many commands in flight takes back connections that have left.
    fn lets_home(&self, in_flight: u32) -> bool {
        let few = self.limit == 0 || in_flight < self.limit.div_ceil(2);
        few && !mutant::is("zone-left-for-good")
    }

    /// Whether a connection should move from its replica to another one that may serve it as well, each with the commands
    /// that are in flight at it. Between the load that sends connections away and the one that lets them come home there is
    /// a gap of half the limit, so that they do not go to and fro.
    pub fn pull(&self, from: (&Node, u32), to: (&Node, u32)) -> Pull {
        if !self.are_set() {
            return Pull::Neutral;
        }
        match (self.is_near(from.0), self.is_near(to.0)) {
            (true, true) | (false, false) => Pull::Neutral,
            (false, true) if self.lets_home(to.1) => Pull::Home,
            (true, false) if !self.has_room(from.1) && to.1 < from.1 => Pull::Away,
            (false, true) | (true, false) => Pull::Stay,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::nodes::node::{Facts, NodeId};

    fn node(n: u32, told: Option<&str>) -> Node {
        let mut node = Node::new(NodeId(n), Address::tcp(&format!("n{n}"), 1), 0);
        node.facts = Some(Facts { zone: told.map(str::to_owned), ..Facts::default() });
        node
    }

    fn zones(own: Option<&str>, limit: u32) -> Zones {
        let of_nodes = [(Address::tcp("n1", 1), "a".to_owned())].into();
        Zones { own: own.map(str::to_owned), of_nodes, limit }
    }

    #[test]
    fn the_configuration_wins_over_what_a_node_says() {
        let zones = zones(Some("a"), 0);
        let (configured, told, unknown) = (node(1, Some("b")), node(2, Some("a")), node(3, None));
        assert_eq!(
            [&configured, &told, &unknown].map(|node| zones.of(node)),
            [Some("a"), Some("a"), None],
            "of a node that says nothing nothing is known"
        );
        assert_eq!([&configured, &told, &unknown].map(|node| zones.is_near(node)), [true, true, false]);
        let silent = Node { facts: None, ..node(2, None) };
        assert_eq!(zones.of(&silent), None);
    }

    #[test]
    fn without_a_zone_of_the_own_nothing_is_near() {
        let zones = zones(None, 0);
        let nodes = [node(1, None), node(2, Some("b")), node(3, None)];
        assert!(nodes.iter().all(|node| !zones.is_near(node)), "not even one of which nothing is known");
        assert_eq!(zones.of(&nodes[0]), Some("a"), "it is shown all the same");
        assert_eq!(zones.pull((&nodes[1], 9), (&nodes[0], 0)), Pull::Neutral);
    }

    #[test]
    fn connections_leave_at_the_limit_and_come_home_at_half_of_it() {
        let zones = zones(Some("a"), 8);
        let (near, also_near, far) = (node(1, None), node(2, Some("a")), node(3, Some("b")));
        let away = |busy: u32, other: u32| zones.pull((&near, busy), (&far, other));
        assert_eq!([away(7, 0), away(8, 0), away(8, 8)], [Pull::Stay, Pull::Away, Pull::Stay]);
        let home = |busy: u32| zones.pull((&far, 0), (&near, busy));
        assert_eq!([home(0), home(3), home(4), home(8)], [Pull::Home, Pull::Home, Pull::Stay, Pull::Stay]);
        assert_eq!(zones.pull((&near, 100), (&also_near, 0)), Pull::Neutral, "they are balanced as ever");
        assert!(zones.has_room(7) && !zones.has_room(8));
        let least = Zones { limit: 1, ..zones.clone() };
        assert_eq!(least.pull((&far, 5), (&near, 0)), Pull::Home);
        let unlimited = Zones { limit: 0, ..zones };
        assert_eq!(unlimited.pull((&near, u32::MAX), (&far, 0)), Pull::Stay);
        assert_eq!(unlimited.pull((&far, 0), (&near, u32::MAX)), Pull::Home);
    }
}
