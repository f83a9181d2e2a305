//! Keeps to who belongs to the shard: gives whoever comes a place and has it asked how it is, and has nobody ask whoever has
//! gone. Who that is, is found out elsewhere, or configured.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::control::prober::{Heard, Prober};
use crate::control::witness::Witness;
use crate::core::address::Address;
use crate::core::nodes::members::{Membership, Places};
use crate::core::nodes::node::NodeId;
use crate::core::nodes::view::Observation;
use crate::net::runtime::clock;
use crate::net::runtime::task;
use crate::shard::shared::Shared;

/// Those who are asked how they are.
#[derive(Debug)]
pub struct Members {
    shared: Arc<Shared>,
    keeper: mpsc::Sender<Heard>,
    places: Places,
    asked: HashMap<NodeId, Vec<JoinHandle<()>>>,
    /// How often each name has come to lead elsewhere, as far as that was followed.
    moves: BTreeMap<Address, u64>,
    /// Who found no place, the last time.
    turned_away: Vec<Address>,
}

impl Members {
    /// Those who have a place already, and are in the view. They are asked from now on; what they say goes to `keeper`.
    pub fn start(shared: Arc<Shared>, keeper: mpsc::Sender<Heard>, places: Places) -> Self {
        let asked = HashMap::new();
        let (moves, turned_away) = (BTreeMap::new(), Vec::new());
        let mut members = Self { shared, keeper, places, asked, moves, turned_away };
        for (node, address) in members.places.taken().to_vec() {
            members.ask(node, &address);
        }
        members
    }

    /// Follows what is found out, until nobody finds out anything any longer.
    pub async fn follow(mut self, mut found: watch::Receiver<Membership>) {
        while found.changed().await.is_ok() {
            let membership = found.borrow_and_update().clone();
            self.settle(&membership).await;
        }
    }

    async fn settle(&mut self, membership: &Membership) {
        let has_moved = |node: &&Address| membership.moves.get(*node) > self.moves.get(*node).or(Some(&0));
        let moved: Vec<Address> = membership.nodes.iter().filter(has_moved).cloned().collect();
        self.moves.clone_from(&membership.moves);
        if !moved.is_empty() {
            // Whoever is reached by the name now is another node, of which nothing is known: it comes when that one has gone.
            let taken = self.places.taken().iter().map(|(_, address)| address.clone());
            let rest: Vec<Address> = taken.filter(|node| !moved.contains(node)).collect();
            self.change(&rest).await;
        }
        self.change(&membership.nodes).await;
        let node = membership.primary.as_ref().and_then(|primary| self.places.at(primary));
        self.tell(Observation::Named { node }).await;
    }

    /// Exactly these are there from now on.
    async fn change(&mut self, nodes: &[Address]) {
        let changes = self.places.settle(nodes);
        for node in changes.leave {
            for task in self.asked.remove(&node).into_iter().flatten() {
                task.abort();
                // What it has begun to write of the node is written, or taken back, before somebody else gets the place.
                let _ = task.await;
            }
            let address = self.shared.shard().address(node).map(|address| address.to_string());
            tracing::info!(node = address, "a node has left");
            self.tell(Observation::Left { node }).await;
        }
        for (node, address) in changes.join {
            tracing::info!(node = %address, "a node has joined");
            self.tell(Observation::Joined { node, address: address.clone() }).await;
            self.ask(node, &address);
        }
        if changes.turned_away != self.turned_away {
            let (most, left_out) = (self.shared.shard().places, changes.turned_away.len());
            tracing::warn!(
                most,
                left_out,
                "there are more nodes than can be looked after: the last are left out"
            );
            self.turned_away = changes.turned_away;
        }
    }

    async fn tell(&self, observation: Observation) {
        // A closed channel means that the process ends.
        let _ = self.keeper.send((observation, clock::now())).await;
    }

    /// Has a node asked how it is, and listened to.
    fn ask(&mut self, node: NodeId, address: &Address) {
        let (asker, asked, told) = (Arc::clone(&self.shared), address.clone(), self.keeper.clone());
        let mut tasks = vec![task::supervise("prober", move || {
            Prober::new(Arc::clone(&asker), node, asked.clone(), told.clone()).run()
        })];
        if self.shared.watching {
            let (shared, address, keeper) = (Arc::clone(&self.shared), address.clone(), self.keeper.clone());
            tasks.push(task::supervise("witness", move || {
                Witness::new(Arc::clone(&shared), node, address.clone(), keeper.clone()).run()
            }));
        }
        self.asked.insert(node, tasks);
    }
}
