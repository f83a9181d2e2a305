//! Who has which place: the nodes that belong to the shard come and go, their places stay.
//!
//! What is known of a node, here and by every worker, is kept by its place. A place that becomes vacant is given to somebody
//! else as late as possible, and always under another [`NodeId`].

use std::collections::{BTreeMap, VecDeque};

use crate::core::address::Address;
use crate::core::nodes::node::NodeId;

/// The places of one shard.
#[derive(Clone, Debug, Default)]
pub struct Places {
    taken: Vec<(NodeId, Address)>,
    /// Vacant ones; who has been gone for longest comes first.
    vacant: VecDeque<NodeId>,
}

/// Who belongs to the shard, as far as that is found out, and who is called its primary.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Membership {
    /// Everybody, the most important first.
    pub nodes: Vec<Address>,
    /// The one that is named. Whether it is the primary it has to say itself.
    pub primary: Option<Address>,
    /// How often each name has come to lead elsewhere: whoever was reached by it is another node than whoever is now.
    pub moves: BTreeMap<Address, u64>,
}

/// What has to happen so that those are there who should be.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Changes {
    /// Who leaves.
    pub leave: Vec<NodeId>,
    /// Who joins, and where it is.
    pub join: Vec<(NodeId, Address)>,
    /// Who finds no place.
    pub turned_away: Vec<Address>,
}

impl Places {
    /// So many places, of which these nodes have the first.
    pub fn new(places: usize, nodes: &[Address]) -> Self {
        let mut all = (0..places.max(nodes.len())).map(|place| NodeId(place as u32));
        let taken = all.by_ref().zip(nodes.iter().cloned()).take(nodes.len()).collect();
        Self { taken, vacant: all.collect() }
    }

    /// Who is there.
    pub fn taken(&self) -> &[(NodeId, Address)] {
        &self.taken
    }

    /// The node at this address.
    pub fn at(&self, address: &Address) -> Option<NodeId> {
        self.taken.iter().find(|(_, known)| known == address).map(|(id, _)| *id)
    }

    /// From now on exactly these are to be there, the first of them first of all. A node that is at another address now is
    /// another node.
    pub fn settle(&mut self, wanted: &[Address]) -> Changes {
        let mut changes = Changes::default();
        self.taken.retain(|(id, address)| {
            let stays = wanted.contains(address);
            if !stays {
                changes.leave.push(*id);
            }
            stays
        });
        self.vacant.extend(changes.leave.iter().map(|id| id.successor()));
        for address in wanted {
            if self.at(address).is_some() {
                continue;
            }
            match self.lowest_vacant() {
                Some(id) => {
                    self.taken.push((id, address.clone()));
                    changes.join.push((id, address.clone()));
                }
                None => changes.turned_away.push(address.clone()),
            }
        }
        changes
    }

    /// The lowest place that nobody has: whoever looks at all places has few to look at.
    fn lowest_vacant(&mut self) -> Option<NodeId> {
        let lowest = (0..self.vacant.len()).min_by_key(|&at| self.vacant.get(at).map(|id| id.index()))?;
        self.vacant.remove(lowest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ports: &[u16]) -> Vec<Address> {
        ports.iter().map(|port| Address::tcp("n", *port)).collect()
    }

    #[test]
    fn whoever_stays_keeps_its_place() {
        let mut places = Places::new(0, &at(&[1, 2, 3]));
        assert_eq!(places.settle(&at(&[3, 1, 2, 1])), Changes::default());
        let changes = places.settle(&at(&[1, 3]));
        assert_eq!((changes.leave, changes.join), (vec![NodeId(1)], vec![]));
        assert_eq!(places.at(&at(&[3])[0]), Some(NodeId(2)));
        assert_eq!(places.at(&at(&[2])[0]), None);
    }

    #[test]
    fn nobody_is_called_what_somebody_before_it_was() {
        let mut places = Places::new(3, &[]);
        let mut seen = Vec::new();
        for port in 1..100 {
            let changes = places.settle(&at(&[port]));
            let [(id, _)] = changes.join.as_slice() else { panic!("{changes:?}") };
            assert!(id.index() < 3 && !seen.contains(id), "{id:?}");
            seen.push(*id);
        }
    }

    #[test]
    fn the_lowest_place_is_given_away_first() {
        let mut places = Places::new(3, &at(&[1]));
        let joins = |places: &mut Places, ports: &[u16]| -> Vec<usize> {
            places.settle(&at(ports)).join.iter().map(|(id, _)| id.index()).collect()
        };
        assert_eq!(joins(&mut places, &[2]), [0]);
        assert_eq!(joins(&mut places, &[2, 3, 4]), [1, 2]);
        assert_eq!(joins(&mut places, &[2, 4]), [0; 0]);
        assert_eq!(joins(&mut places, &[2, 4, 5]), [1]);
    }

    #[test]
    fn there_are_no_more_than_there_are_places() {
        let mut places = Places::new(2, &[]);
        let changes = places.settle(&at(&[1, 2, 3]));
        assert_eq!((changes.join.len(), changes.turned_away), (2, at(&[3])));
        let changes = places.settle(&at(&[1, 3]));
        assert_eq!(changes.join, [(NodeId(1).successor(), at(&[3])[0].clone())]);
    }
}
