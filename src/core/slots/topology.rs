//! Which shards a cluster has, and who belongs to each, by what its nodes say of each other (`CLUSTER NODES`).
//!
//! A shard is known by its nodes: whoever follows its primary is of it, and stays so when it becomes the primary. So a shard
//! keeps its place through failovers, and one whose primary follows that of another shard is no more.
//!
//! A replica that is taken out of the cluster (`CLUSTER RESET`) calls itself a primary, without slots: it leaves its shard; and
//! if none of the others knows it any longer (`CLUSTER FORGET`), it is no node of the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::core::address::Address;
use crate::core::moment::Moment;
use crate::core::slots::map::ShardIndex;
use crate::core::slots::report::{NodeLine, NodeName, NodesReport};

/// What a node has said counts for so long.
const COUNTS_FOR: Duration = Duration::from_secs(15);

/// What it says of itself counts more than what others say of it for so long.
const OWN_WORD_FOR: Duration = Duration::from_secs(3);

/// What is known of who belongs together.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    shards: Vec<Lineage>,
    heard: BTreeMap<Address, Heard>,
    /// By what address a node is reached that announces this one.
    reached: BTreeMap<Address, Address>,
    most: usize,
}

/// Those who are, or were, of one shard.
#[derive(Clone, Debug, Default)]
struct Lineage {
    names: BTreeSet<NodeName>,
    primary: Option<NodeName>,
    is_live: bool,
}

#[derive(Clone, Debug)]
struct Heard {
    report: NodesReport,
    at: Moment,
}

/// Who belongs to one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    /// Its place.
    pub shard: ShardIndex,
    /// Whether there is anybody whose primary is of it as well.
    pub is_live: bool,
    /// Nobody of it says at present that it is the primary: one takes over from another.
    pub is_headless: bool,
    /// Its primary, by the highest config epoch.
    pub primary: Option<(NodeName, Address)>,
    /// Where its nodes are, the primary first.
    pub nodes: Vec<Address>,
}

/// The best that is known of one node.
struct Known<'a> {
    line: &'a NodeLine,
    address: Option<Address>,
    rank: (bool, u64, Moment),
}

impl Topology {
    /// Nothing is known; there are to be `most` shards at most. `reached` tells by what address a node is reached that
    /// announces another.
    pub fn new(most: usize, reached: BTreeMap<Address, Address>) -> Self {
        Self { reached, most, ..Self::default() }
    }

    /// The node that was asked by this address has answered.
    pub fn hear(&mut self, asked: &Address, report: NodesReport, at: Moment) {
        self.heard.insert(asked.clone(), Heard { report, at });
    }

    /// The shard of the node that is called so, if it is its primary.
    pub fn led_by(&self, name: NodeName) -> Option<ShardIndex> {
        let at = self.shards.iter().position(|shard| shard.is_live && shard.primary == Some(name))?;
        ShardIndex::new(at)
    }

    /// Who belongs where. The place of a shard never changes; that of one that is no more may be given to another.
    pub fn decide(&mut self, now: Moment) -> Vec<Members> {
        self.heard.retain(|_, heard| now.since(heard.at) < COUNTS_FOR);
        let heard = std::mem::take(&mut self.heard);
        let known = best_lines(&heard, &self.reached, now);
        self.group(&known, now);
        let members = (0..self.shards.len()).filter_map(|at| self.members(at, &known)).collect();
        self.heard = heard;
        members
    }

    /// Where each node that is known is.
    pub fn addresses(&self, now: Moment) -> BTreeMap<Address, NodeName> {
        let known = best_lines(&self.heard, &self.reached, now);
        known.into_iter().filter_map(|(name, known)| Some((known.address?, name))).collect()
    }

    /// The shard that a node is of, by its name.
    pub fn shard_of(&self, name: NodeName) -> Option<ShardIndex> {
        let at = self.shards.iter().position(|shard| shard.is_live && shard.names.contains(&name))?;
        ShardIndex::new(at)
    }

    fn group(&mut self, known: &BTreeMap<NodeName, Known<'_>>, now: Moment) {
        if known.is_empty() {
            return;
        }
        // Those that nobody knows any longer are forgotten.
        for shard in &mut self.shards {
            shard.names.retain(|name| known.contains_key(name));
        }
        for (name, node) in known {
            if node.line.is_primary() && self.find(*name).is_none() {
                let is_there =
                    !node.line.flags.failed && !node.line.flags.no_address && node.address.is_some();
                if is_there {
                    self.found(*name);
                }
            }
        }
        for shard in &mut self.shards {
            let leads = |name: &&NodeName| known.get(name).is_some_and(|node| node.line.is_primary());
            let rank = |name: &&NodeName| {
                let node = known.get(name);
                node.map(|node| (!node.line.slots.is_empty(), node.line.epoch, !node.line.flags.failed))
            };
            // While one takes over from another there may be none that says so: it is who it was.
            let leader = shard.names.iter().filter(leads).max_by_key(rank).copied();
            shard.primary = leader.or(shard.primary.filter(|was| shard.names.contains(was)));
            let primary = shard.primary;
            shard.names.retain(|name| {
                let (is_own_word, ..) = known.get(name).map_or((false, 0, now), |node| node.rank);
                let leads_nothing = known
                    .get(name)
                    .is_some_and(|node| node.line.is_primary() && node.line.slots.is_empty() && is_own_word);
                Some(*name) == primary || !leads_nothing
            });
        }
        for (name, node) in known.iter().filter(|(_, node)| !node.line.is_primary()) {
            let Some(master) = node.line.master else { continue };
            let Some(of) = self.shards.iter().position(|shard| shard.primary == Some(master)) else {
                continue;
            };
            for (at, shard) in self.shards.iter_mut().enumerate() {
                if at == of {
                    shard.names.insert(*name);
                } else {
                    shard.names.remove(name);
                    shard.primary = shard.primary.filter(|primary| primary != name);
                }
            }
        }
        for shard in &mut self.shards {
            shard.is_live = !shard.names.is_empty();
        }
    }

    fn find(&self, name: NodeName) -> Option<usize> {
        self.shards.iter().position(|shard| shard.names.contains(&name))
    }

    /// A primary that nobody has heard of is that of a shard of its own.
    fn found(&mut self, name: NodeName) {
        let lineage = Lineage { names: BTreeSet::from([name]), primary: Some(name), is_live: true };
        // The first stays what it is: see `members`.
        let vacant = self.shards.iter().position(|shard| !shard.is_live && shard.names.is_empty());
        match vacant {
            Some(at) => {
                if let Some(shard) = self.shards.get_mut(at) {
                    *shard = lineage;
                }
            }
            None if self.shards.len() < self.most => self.shards.push(lineage),
            None => {}
        }
    }

    fn members(&self, at: usize, known: &BTreeMap<NodeName, Known<'_>>) -> Option<Members> {
        let shard = self.shards.get(at)?;
        let address = |name: &NodeName| known.get(name)?.address.clone();
        let primary = shard.primary.and_then(|name| Some((name, address(&name)?)));
        let of_it = |name: &&NodeName| Some(**name) != shard.primary;
        let others = shard.names.iter().filter(of_it).filter_map(address);
        let mut nodes: Vec<Address> = primary.iter().map(|(_, address)| address.clone()).collect();
        nodes.extend(others);
        let leads = |name| known.get(&name).is_some_and(|node| node.line.is_primary());
        let is_headless = !shard.primary.is_some_and(leads);
        Some(Members { shard: ShardIndex::new(at)?, is_live: shard.is_live, is_headless, primary, nodes })
    }
}

fn best_lines<'a>(
    heard: &'a BTreeMap<Address, Heard>,
    reached: &BTreeMap<Address, Address>,
    now: Moment,
) -> BTreeMap<NodeName, Known<'a>> {
    let mut known: BTreeMap<NodeName, Known<'a>> = BTreeMap::new();
    for (asked, heard) in heard {
        for line in heard.report.lines.iter().filter(|line| !line.flags.handshake) {
            let own = line.flags.myself && now.since(heard.at) < OWN_WORD_FOR;
            let rank = (own, line.epoch, heard.at);
            if known.get(&line.name).is_some_and(|other| other.rank >= rank) {
                continue;
            }
            let address = match line.endpoint.reached(asked) {
                Some(address) => Some(reached.get(&address).cloned().unwrap_or(address)),
                None if line.flags.myself => Some(asked.clone()),
                None => None,
            };
            known.insert(line.name, Known { line, address, rank });
        }
    }
    let others = heard.values().flat_map(|heard| heard.report.others());
    let listed: BTreeSet<NodeName> = others.map(|line| line.name).collect();
    let said = heard.values().filter_map(|heard| heard.report.myself().map(|mine| mine.name));
    let heard: BTreeSet<NodeName> = said.collect();
    known.retain(|name, node| {
        let is_alone = heard.iter().all(|other| other == name);
        listed.contains(name) || is_alone || !node.line.slots.is_empty()
    });
    known
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::slots::{Endpoint, HashSlot, NodeFlags, SlotRange};

    fn name(digit: char) -> NodeName {
        NodeName::parse(digit.to_string().repeat(40).as_bytes()).unwrap()
    }

    fn at(digit: char) -> Address {
        Address::tcp("n", 7000 + digit.to_digit(16).unwrap() as u16)
    }

    /// `a@3:0-5` leads under epoch 3 with these slots, `b>a` follows; a `!` behind it: it has failed.
    fn line(text: &str) -> NodeLine {
        let failed = text.ends_with('!');
        let text = text.trim_end_matches('!');
        let digit = text.chars().next().unwrap();
        let slot = |text: &str| HashSlot::new(text.parse().unwrap()).unwrap();
        let (mut epoch, mut slots, mut master) = (0, Vec::new(), None);
        if let Some((_, of)) = text.split_once('>') {
            master = of.chars().next().map(name);
        }
        if let Some((_, rest)) = text.split_once('@') {
            let (number, range) = rest.split_once(':').unwrap_or((rest, ""));
            epoch = number.parse().unwrap();
            if let Some((first, last)) = range.split_once('-') {
                slots.push(SlotRange::new(slot(first), slot(last)).unwrap());
            }
        }
        NodeLine {
            name: name(digit),
            endpoint: Endpoint::At(at(digit)),
            hostname: None,
            shard_id: None,
            flags: NodeFlags {
                primary: master.is_none(),
                replica: master.is_some(),
                failed,
                ..NodeFlags::default()
            },
            master,
            ping_sent: 0,
            pong_received: 0,
            epoch,
            linked: true,
            slots,
            open: Vec::new(),
        }
    }

    fn says(topology: &mut Topology, who: char, lines: &str, millis: u64) -> Vec<Members> {
        let mut report = NodesReport { lines: lines.split(' ').map(line).collect(), shows_open: true };
        for line in &mut report.lines {
            line.flags.myself = line.name == name(who);
        }
        topology.hear(&at(who), report, Moment::from_millis(millis));
        topology.decide(Moment::from_millis(millis))
    }

    fn shown(members: &[Members]) -> String {
        let one = |members: &Members| {
            let nodes = members.nodes.iter().map(|node| node.to_string().replace("n:70", ""));
            nodes.collect::<Vec<_>>().join("+")
        };
        members.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    fn topology() -> Topology {
        Topology::new(8, BTreeMap::new())
    }

    #[test]
    fn a_shard_keeps_its_place_through_a_failover() {
        let mut topology = topology();
        let before = says(&mut topology, 'a', "a@1:0-5 b@2:6-9 c>a d>b", 1000);
        assert_eq!(shown(&before), "10+12 11+13");
        assert_eq!(topology.led_by(name('b')), ShardIndex::new(1));
        // b is dead, and d has taken over.
        let after = says(&mut topology, 'a', "a@1:0-5 b@2! c>a d@3:6-9", 2000);
        assert_eq!(shown(&after), "10+12 13+11");
        assert_eq!((topology.led_by(name('b')), topology.led_by(name('d'))), (None, ShardIndex::new(1)));
        // It comes back, as a replica.
        assert_eq!(shown(&says(&mut topology, 'a', "a@1:0-5 b>d c>a d@3:6-9", 3000)), "10+12 13+11");
    }

    #[test]
    fn a_shard_without_a_primary_for_a_moment_stays() {
        let mut topology = topology();
        says(&mut topology, 'a', "a@1:0-5 b@2:6-9 c>a d>b", 1000);
        says(&mut topology, 'd', "a@1:0-5 b@2:6-9 c>a d>b", 1000);
        // b has handed over to d, which was not asked since.
        let meanwhile = says(&mut topology, 'b', "a@1:0-5 b>d c>a d@3:6-9", 1100);
        assert_eq!(shown(&meanwhile), "10+12 11+13");
        assert!(meanwhile[1].is_live);
        assert_eq!(shown(&says(&mut topology, 'd', "a@1:0-5 b>d c>a d@3:6-9", 1200)), "10+12 13+11");
    }

    #[test]
    fn who_is_cut_off_does_not_lead_under_a_lower_epoch() {
        let mut topology = topology();
        says(&mut topology, 'b', "a@1:0-5 b@2:6-9 c>a d>b", 1000);
        says(&mut topology, 'd', "a@1:0-5 b@2! c>a d@3:6-9", 1500);
        let after = says(&mut topology, 'b', "a@1:0-5 b@2:6-9 c>a d>b", 1600);
        assert_eq!(after[1].primary.as_ref().map(|(name, _)| *name), Some(name('d')));
    }

    #[test]
    fn a_shard_whose_primary_follows_another_is_no_more() {
        let mut topology = topology();
        says(&mut topology, 'a', "a@1:0-5 b@2:6-9 c>a d>b", 1000);
        says(&mut topology, 'b', "a@3:0-9 b>a c>a d>a", 5000);
        let after = says(&mut topology, 'a', "a@3:0-9 b>a c>a d>a", 5100);
        assert_eq!(shown(&after), "10+11+12+13 ");
        assert!(!after[1].is_live && topology.shard_of(name('d')) == ShardIndex::new(0));
        // Another one gets its place, with nodes of its own.
        let later = says(&mut topology, 'a', "a@3:0-5 b>a c>a d>a e@4:6-9", 6000);
        assert_eq!(shown(&later), "10+11+12+13 14");
    }

    #[test]
    fn a_newcomer_without_slots_is_a_shard_already() {
        let mut topology = topology();
        says(&mut topology, 'a', "a@1:0-9", 1000);
        assert_eq!(shown(&says(&mut topology, 'a', "a@1:0-9 b@0", 2000)), "10 11");
        assert_eq!(shown(&says(&mut topology, 'a', "a@1:0-9 b@0 c@0!", 2500)), "10 11", "nobody is there");
    }

    #[test]
    fn a_replica_that_changes_its_shard_is_of_the_other_one() {
        let mut topology = topology();
        says(&mut topology, 'a', "a@1:0-5 b@2:6-9 c>a d>b", 1000);
        assert_eq!(shown(&says(&mut topology, 'a', "a@1:0-5 b@2:6-9 c>b d>b", 2000)), "10 11+12+13");
    }

    #[test]
    fn a_replica_that_is_taken_out_leaves_its_shard() {
        let mut topology = topology();
        says(&mut topology, 'a', "a@1:0-5 b@2:6-9 c>a d>b", 1000);
        // It is reset: the others have yet to hear of that.
        let after = says(&mut topology, 'c', "c@1", 1100);
        assert_eq!(shown(&after), "10 11+13");
        // They have.
        assert_eq!(shown(&says(&mut topology, 'a', "a@1:0-5 b@2:6-9 c@1 d>b", 1200)), "10 11+13 12");
        // It is forgotten: it is no node of the cluster.
        assert_eq!(shown(&says(&mut topology, 'a', "a@1:0-5 b@2:6-9 d>b", 1300)), "10 11+13 ");
        // It comes back.
        says(&mut topology, 'c', "a@1:0-5 b@2:6-9 c>a d>b", 1400);
        assert_eq!(shown(&says(&mut topology, 'a', "a@1:0-5 b@2:6-9 c>a d>b", 1500)), "10+12 11+13 ");
    }

    #[test]
    fn a_replica_that_alone_answers_stays_where_it_is() {
        let mut topology = topology();
        says(&mut topology, 'a', "a@1:0-9 c>a", 1000);
        says(&mut topology, 'c', "a@1:0-9 c>a", 1000);
        assert_eq!(shown(&says(&mut topology, 'c', "a@1:0-9! c>a", 60_000)), "10+12");
    }
}
