//! Which nodes there are, found out from the nodes that are known: a primary names its replicas in `INFO`, so does a replica
//! that has replicas of its own, and a replica names its primary. Names in the DNS are another source: each of their
//! records is a node.
//!
//! Nobody is believed to be what others say of it: whoever is found is asked itself, by its own `ROLE` and `INFO`, as a
//! node is that was configured. So whoever is on no list any longer is kept as long as it answers that it belongs to this
//! history: a replica whose link is cut is the one that may be promoted next.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::core::address::Address;
use crate::core::moment::Moment;
use crate::core::nodes::host::Host;
use crate::core::nodes::members::Membership;
use crate::core::nodes::node::{Link, Node, Role};
use crate::core::nodes::view::View;
use crate::mutant;

/// How long a node stays that nobody names any longer and that does not answer that it belongs here: it may be restarting,
/// or connecting to its primary anew.
pub const DOUBTED: Duration = Duration::from_secs(10);

/// Who is known.
#[derive(Clone, Debug)]
pub struct Discovery {
    /// By what address a node is reached that announces this one.
    map: BTreeMap<Address, Address>,
    /// The nodes that are configured. They never leave.
    configured: Vec<Address>,
    /// Nodes are asked which others there are.
    ask_nodes: bool,
    /// Where the names of configured nodes lead, and how often that has changed.
    hosts: BTreeMap<Address, (Host, u64)>,
    /// The records of each name, as they were last answered.
    records: Vec<Vec<Address>>,
    /// Who was found on a list and is kept.
    found: Vec<Address>,
    /// Those of them that are on no list at present, and since when.
    doubtful: BTreeMap<Address, Moment>,
    /// Addresses that turned out to be those of a process that is there already.
    aliases: Vec<Alias>,
}

/// Another address of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Alias {
    address: Address,
    /// The address by which the node is there.
    node: Address,
    /// The process that both were.
    process: String,
}

impl Discovery {
    /// With these nodes, and so many names, from the beginning. `ask_nodes`: nodes tell which others there are.
    pub fn new(
        configured: Vec<Address>,
        names: usize,
        ask_nodes: bool,
        map: BTreeMap<Address, Address>,
    ) -> Self {
        let (hosts, records) = (BTreeMap::new(), vec![Vec::new(); names]);
        let (found, doubtful, aliases) = (Vec::new(), BTreeMap::new(), Vec::new());
        Self { map, configured, ask_nodes, hosts, records, found, doubtful, aliases }
    }

    /// The name of a configured node was answered. True: it leads elsewhere than before.
    pub fn hear_host(&mut self, node: &Address, addresses: impl IntoIterator<Item = String>) -> bool {
        let (host, moves) = self.hosts.entry(node.clone()).or_default();
        let moved = host.moves_to(addresses);
        *moves += u64::from(moved);
        moved
    }

    /// A name was answered. No record at all is no answer: what it said last stays. False: as before.
    pub fn hear_name(&mut self, name: usize, records: &[Address]) -> bool {
        let mut records: Vec<Address> = records.iter().map(|address| self.reached(address)).collect();
        records.sort_unstable();
        records.dedup();
        match self.records.get_mut(name) {
            Some(known) if !records.is_empty() && *known != records => {
                *known = records;
                true
            }
            _ => false,
        }
    }

    /// Who belongs to the shard by what the nodes say at present. Nobody is named the primary: that they say themselves.
    pub fn decide(&mut self, view: &View, now: Moment) -> Membership {
        self.find_aliases(view);
        let mut nodes = self.configured.clone();
        // What is followed does not go because a name is taken from it: whoever takes over says so.
        let primary = view.primary.and_then(|id| view.node(id)).filter(|node| is_primary(node));
        let primary = primary.and_then(|node| node.address.as_deref().cloned());
        let named = self.records.iter().flatten().chain(&primary).cloned().collect::<Vec<_>>();
        self.add(&mut nodes, named);
        if self.ask_nodes {
            let listed = self.listed(view);
            self.add(&mut nodes, listed);
            let kept = self.keep(view, &nodes, now);
            self.add(&mut nodes, kept);
            self.found = nodes.iter().filter(|node| !self.configured.contains(node)).cloned().collect();
        }
        let moves = self.hosts.iter().map(|(node, (_, moves))| (node.clone(), *moves)).collect();
        Membership { nodes, primary: None, moves }
    }

    /// Adds whoever is not there yet, by any of its addresses.
    fn add(&self, nodes: &mut Vec<Address>, others: Vec<Address>) {
        for address in others {
            let is_alias = self.aliases.iter().any(|alias| alias.address == address);
            if !is_alias && !nodes.contains(&address) {
                nodes.push(address);
            }
        }
    }

    /// Who is named by those whose word counts: the primary and whoever follows it name their replicas, and who follows
    /// somebody else than our primary names that one, which may have been promoted.
    fn listed(&self, view: &View) -> Vec<Address> {
        let mut listed = Vec::new();
        for node in view.members() {
            let Some(facts) = node.facts.as_ref() else { continue };
            let follows = node.role == Some(Role::Replica) && node.link == Some(Link::Up);
            if counts(view, node) || follows && belongs(view, node) {
                listed.extend(facts.replicas.iter().map(|address| self.reached(address)));
            }
            if follows && (!primary_counts(view) || node.history() != view.history) {
                let primary = node.master.as_ref();
                let primary = primary.and_then(|(host, port)| Address::announced(host, *port));
                listed.extend(primary.map(|address| self.reached(&address)));
            }
        }
        listed
    }

    /// Who was there and is on no list now, and stays all the same.
    fn keep(&mut self, view: &View, nodes: &[Address], now: Moment) -> Vec<Address> {
        let primary_counts = primary_counts(view);
        let mut doubtful = BTreeMap::new();
        let mut kept = Vec::new();
        for address in self.found.iter().filter(|address| !nodes.contains(address)) {
            let node = view.members().find(|node| node.address.as_deref() == Some(address));
            if !primary_counts || node.is_some_and(|node| belongs(view, node)) {
                kept.push(address.clone());
                continue;
            }
            let since = *self.doubtful.get(address).unwrap_or(&now);
            if now.since(since) <= DOUBTED && !mutant::is("unlisted-at-once") {
                doubtful.insert(address.clone(), since);
                kept.push(address.clone());
            }
        }
        self.doubtful = doubtful;
        kept
    }

    /// Finds addresses that lead to a process that is known by another one: a record of the DNS that is the primary's, a
    /// replica that is configured by a name and announces a number. An alias is one as long as the node answers by its
    /// other address as that process.
    fn find_aliases(&mut self, view: &View) {
        let at = |address: &Address| view.members().find(|node| node.address.as_deref() == Some(address));
        self.aliases.retain(|alias| {
            at(&alias.node).is_some_and(|node| {
                node.silent_since.is_none() && node.process().is_none_or(|process| process == alias.process)
            })
        });
        let mut nodes: Vec<&Node> = view.members().filter(|node| node.silent_since.is_none()).collect();
        let is_configured =
            |node: &Node| node.address.as_deref().is_some_and(|address| self.configured.contains(address));
        nodes.sort_by_key(|node| (Some(node.id) != view.primary, !is_configured(node)));
        let mut found = Vec::new();
        for (index, node) in nodes.iter().enumerate().filter(|(_, node)| !is_configured(node)) {
            let Some(process) = node.process() else { continue };
            let first = nodes.iter().take(index).find(|other| other.process() == Some(process));
            if let (Some(first), Some(address)) =
                (first.and_then(|first| first.address.as_deref()), &node.address)
            {
                found.push(Alias {
                    address: (**address).clone(),
                    node: first.clone(),
                    process: process.to_owned(),
                });
            }
        }
        if !mutant::is("alias-is-a-node") {
            self.aliases.extend(found);
        }
    }

    /// The address by which a node is reached that announces `address`.
    fn reached(&self, address: &Address) -> Address {
        self.map.get(address).unwrap_or(address).clone()
    }
}

/// Whether a node answers that it is the primary.
fn is_primary(node: &Node) -> bool {
    node.role == Some(Role::Primary) && node.silent_since.is_none()
}

/// Whether this is the primary, and what it says of its replicas is of now: while it loads its data it has none.
fn counts(view: &View, node: &Node) -> bool {
    let facts = node.facts.as_ref().filter(|facts| facts.are_of_primary() && !facts.loading);
    view.primary == Some(node.id) && is_primary(node) && facts.is_some()
}

fn primary_counts(view: &View) -> bool {
    let primary = view.primary.and_then(|id| view.node(id));
    !view.two_primaries && primary.is_some_and(|node| counts(view, node))
}

/// Whether a node answers that its data are of our history, or of one that continues it, or that it continues.
fn belongs(view: &View, node: &Node) -> bool {
    let related = view.history.zip(node.history());
    node.silent_since.is_none()
        && related.is_some_and(|(ours, theirs)| theirs.continues(ours.id) || ours.continues(theirs.id))
}

#[cfg(test)]
mod tests;
