//! How busy each node is, as far as one worker knows: by it reads are spread over replicas.
//!
//! What is counted is counted by its owner, which also uncounts what it takes with it: commands by the queue of the lane
//! that has taken them, from then until they are answered or taken out; a connection by what it holds as long as it
//! stays with a node.

use std::cell::Cell;
use std::rc::Rc;

use smallvec::SmallVec;

use crate::core::nodes::node::NodeId;

/// The counts of one worker.
#[derive(Debug)]
pub struct Load {
    /// Commands in flight per node, and connections that stay with it.
    busy: Box<[Cell<u32>]>,
    /// Connections that stay with each node.
    sticky: Box<[Cell<u32>]>,
}

/// Counts, by node. With so many nodes or fewer they are no allocation.
pub type NodeCounts = SmallVec<[u32; 16]>;

/// Counts the commands in flight on one lane, which takes off what is left when it ends.
#[derive(Debug)]
pub struct InFlight {
    load: Rc<Load>,
    node: NodeId,
}

/// A connection stays with a node.
#[derive(Debug)]
pub struct Stay {
    load: Rc<Load>,
    node: NodeId,
}

impl Load {
    /// Of a worker that knows so many places of nodes.
    pub fn new(nodes: usize) -> Rc<Self> {
        let none = || vec![Cell::new(0); nodes].into_boxed_slice();
        Rc::new(Self { busy: none(), sticky: none() })
    }

    /// Commands in flight per node, and connections that stay with it, of the first so many places.
    pub fn per_node(&self, places: usize) -> NodeCounts {
        self.busy.iter().take(places).map(Cell::get).collect()
    }

    /// Connections that stay with each node, of the first so many places.
    pub fn sticky(&self, places: usize) -> NodeCounts {
        self.sticky.iter().take(places).map(Cell::get).collect()
    }

    /// Commands in flight per node, of the first so many places.
    pub fn commands(&self, places: usize) -> NodeCounts {
        let both = self.busy.iter().zip(&self.sticky).take(places);
        both.map(|(busy, sticky)| busy.get().saturating_sub(sticky.get())).collect()
    }

    /// For a lane to `node`, on which nothing is in flight.
    pub fn in_flight(self: &Rc<Self>, node: NodeId) -> InFlight {
        InFlight { load: Rc::clone(self), node }
    }

    /// For a connection that stays with `node`, until that is dropped.
    pub fn stay(self: &Rc<Self>, node: NodeId) -> Stay {
        add(&self.busy, node, 1);
        add(&self.sticky, node, 1);
        Stay { load: Rc::clone(self), node }
    }
}

impl InFlight {
    /// One more.
    #[inline]
    pub fn add(&self) {
        add(&self.load.busy, self.node, 1);
    }

    /// So many fewer.
    #[inline]
    pub fn remove(&self, count: u32) {
        remove(&self.load.busy, self.node, count);
    }
}

impl Stay {
    /// The node.
    pub fn node(&self) -> NodeId {
        self.node
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        remove(&self.load.busy, self.node, 1);
        remove(&self.load.sticky, self.node, 1);
    }
}

#[inline]
fn add(counts: &[Cell<u32>], node: NodeId, more: u32) {
    if let Some(count) = counts.get(node.index()) {
        count.set(count.get() + more);
    }
}

#[inline]
fn remove(counts: &[Cell<u32>], node: NodeId, fewer: u32) {
    if let Some(count) = counts.get(node.index()) {
        debug_assert!(count.get() >= fewer, "a node has no fewer in flight than are answered");
        count.set(count.get().saturating_sub(fewer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_ends_takes_its_count_with_it() {
        let load = Load::new(2);
        let (lane, other) = (load.in_flight(NodeId(0)), load.in_flight(NodeId(1)));
        let stay = load.stay(NodeId(1));
        (0..3).for_each(|_| lane.add());
        other.add();
        assert_eq!((&*load.per_node(2), &*load.sticky(2)), (&[3, 2][..], &[0, 1][..]));
        assert_eq!(*load.commands(2), [3, 1]);
        lane.remove(1);
        assert_eq!(stay.node(), NodeId(1));
        drop(stay);
        assert_eq!((&*load.per_node(2), &*load.sticky(2)), (&[2, 1][..], &[0, 0][..]));
        lane.remove(2);
        other.remove(1);
        assert_eq!(*load.per_node(2), [0, 0]);
    }
}
