//! A real cluster: primaries that share the slots, and their replicas. Slots can be moved as `redis-cli --cluster reshard`
//! moves them, by that itself or step by step; nodes can be killed, stopped and promoted.

pub(crate) mod counters;
mod direct;
mod line;
mod link;
mod moves;
mod probes;
pub(crate) mod registers;
mod slots;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::relay::Relay;
use super::{Direction, Redis, Server, eventually, free_port, secs};

pub(crate) use counters::Counters;
pub(crate) use direct::{Access, Direct};
pub(crate) use line::{Line, lines};
pub(crate) use link::Via;
pub(crate) use moves::{Move, Reshard};
pub(crate) use slots::{SLOTS, key_in, slot};

/// How long nodes may take to agree: gossip takes up to a second, a primary waits two before it takes its first write.
const AGREED_WITHIN: Duration = secs(30);
/// Of nodes whose links to their primaries pass through a relay: this is where they connect from.
const FROM_REPLICA: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// What a cluster is made of.
#[derive(Clone)]
pub(crate) struct Shape {
    pub(crate) kind: Server,
    /// How many slots each primary has.
    pub(crate) slots: Vec<u16>,
    /// Of each primary.
    pub(crate) replicas: usize,
    /// Replicas reach their primaries through relays (see [`Cluster::link`]), which all others pass without delay.
    pub(crate) relays: bool,
    /// More options of every node.
    pub(crate) options: Vec<&'static str>,
}

impl Default for Shape {
    /// Three primaries, which nodes need to elect another one, with a replica each.
    fn default() -> Self {
        let kind = match Server::usual() {
            // It knows neither `cluster-port` nor `ADDSLOTSRANGE`.
            Server::Redis62 => Server::Redis70,
            other => other,
        };
        Self { kind, slots: vec![5461, 5462, 5461], replicas: 1, relays: false, options: Vec::new() }
    }
}

/// A node of a cluster.
pub(crate) struct Node {
    server: Redis,
    pub(crate) id: String,
    /// Where others are told to reach it: at its own port, or at that of its relay.
    pub(crate) address: u16,
    relay: Option<Relay>,
    /// Killed or stopped.
    down: AtomicBool,
}

impl Deref for Node {
    type Target = Redis;

    fn deref(&self) -> &Redis {
        &self.server
    }
}

pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
}

impl Cluster {
    /// The usual one: see [`Shape::default`].
    pub(crate) fn start() -> Self {
        Self::with(&Shape::default())
    }

    /// The same with servers of this kind.
    pub(crate) fn start_as(kind: Server) -> Self {
        Self::with(&Shape { kind, ..Shape::default() })
    }

    /// Starts the nodes and waits until all of them serve. The primaries come first, in the order of their slots.
    pub(crate) fn with(shape: &Shape) -> Self {
        let primaries = shape.slots.len();
        let count = primaries * (1 + shape.replicas);
        let nodes = (0..count).map(|n| Node::start(shape, n < primaries)).collect();
        let cluster = Self { nodes };
        for (n, node) in cluster.nodes.iter().enumerate() {
            assert_eq!(node.cmd(&["CLUSTER", "SET-CONFIG-EPOCH", &(n + 1).to_string()]), "OK");
        }
        let first = &cluster.nodes[0];
        for node in &cluster.nodes[1..] {
            let bus = node.cmd(&["CONFIG", "GET", "cluster-port"]).items()[1].text();
            let address = node.address.to_string();
            assert_eq!(first.cmd(&["CLUSTER", "MEET", "127.0.0.1", &address, &bus]), "OK");
        }
        let mut next = 0;
        for (node, count) in cluster.nodes.iter().zip(&shape.slots) {
            let (low, high) = (next.to_string(), (next + count - 1).to_string());
            assert_eq!(node.cmd(&["CLUSTER", "ADDSLOTSRANGE", &low, &high]), "OK");
            next += count;
        }
        for (n, node) in cluster.nodes.iter().enumerate().skip(primaries) {
            let primary = &cluster.nodes[n % primaries].id;
            // It has to have heard of its primary first.
            eventually("a node becomes a replica", AGREED_WITHIN, || {
                node.cmd(&["CLUSTER", "REPLICATE", primary]) == "OK"
            });
        }
        cluster.await_ok();
        cluster
    }

    /// Where nodes are told to be reached, in the order of `nodes`.
    pub(crate) fn addresses(&self) -> Vec<u16> {
        self.nodes.iter().map(|node| node.address).collect()
    }

    /// The nodes that were neither killed nor stopped, by number.
    pub(crate) fn running(&self) -> impl Iterator<Item = (usize, &Node)> {
        self.nodes.iter().enumerate().filter(|(_, node)| !node.down.load(Ordering::SeqCst))
    }

    /// Who owns slots now, and how many: by what each running node says of itself, where the highest epoch is right.
    pub(crate) fn owners(&self) -> BTreeMap<usize, u16> {
        let mut owners = BTreeMap::new();
        for slot in self.slot_owners().into_iter().flatten() {
            *owners.entry(slot).or_default() += 1;
        }
        owners
    }

    /// The node that owns this slot now.
    pub(crate) fn owner(&self, slot: u16) -> usize {
        self.slot_owners()[usize::from(slot)].unwrap_or_else(|| panic!("nobody owns slot {slot}"))
    }

    pub(crate) fn slot_owners(&self) -> Vec<Option<usize>> {
        let mut owners = vec![None; usize::from(SLOTS)];
        let mut epochs = vec![0; usize::from(SLOTS)];
        for (n, node) in self.running() {
            let line = node.myself();
            if !line.flags.contains("master") {
                continue;
            }
            for slot in line.slots.iter().cloned().flatten().map(usize::from) {
                if owners[slot].is_none() || epochs[slot] < line.epoch {
                    (owners[slot], epochs[slot]) = (Some(n), line.epoch);
                }
            }
        }
        owners
    }

    /// The running replicas of a node, by what they say themselves.
    pub(crate) fn replicas_of(&self, primary: usize) -> Vec<usize> {
        let id = &self.nodes[primary].id;
        let follows = |(_, node): &(usize, &Node)| node.myself().primary.as_ref() == Some(id);
        self.running().filter(follows).map(|(n, _)| n).collect()
    }

    /// The running replicas of all.
    pub(crate) fn replicas(&self) -> Vec<usize> {
        let replicates = |(_, node): &(usize, &Node)| node.myself().primary.is_some();
        self.running().filter(replicates).map(|(n, _)| n).collect()
    }

    /// How often present replicas executed any of these commands, in total.
    pub(crate) fn replica_calls(&self, commands: &[&str]) -> u64 {
        self.calls(&self.replicas(), commands)
    }

    /// How often these nodes executed any of these commands, in total.
    pub(crate) fn calls(&self, nodes: &[usize], commands: &[&str]) -> u64 {
        let calls = |n: &usize| commands.iter().map(|command| self.nodes[*n].calls(command)).sum::<u64>();
        nodes.iter().map(calls).sum()
    }

    /// Waits until every running node serves, all of them agree who owns what, and replicas have what is there.
    pub(crate) fn await_ok(&self) {
        eventually("every node of the cluster serves", AGREED_WITHIN, || {
            self.running().all(|(_, node)| {
                node.cmd(&["CLUSTER", "INFO"]).text().contains("cluster_state:ok")
                    && (node.myself().flags.contains("master") || node.applied().is_some())
            })
        });
        eventually("all nodes agree who owns what", AGREED_WITHIN, || self.agrees());
        self.await_sync();
    }

    /// A node that was reset comes back, as a primary without slots.
    pub(crate) fn meet(&self, n: usize) {
        let bus = self.nodes[n].cmd(&["CONFIG", "GET", "cluster-port"]).items()[1].text();
        let address = self.nodes[n].address.to_string();
        assert_eq!(self.nodes[0].cmd(&["CLUSTER", "MEET", "127.0.0.1", &address, &bus]), "OK");
        eventually("a node has come back", AGREED_WITHIN, || {
            let is_up = self.nodes[n].cmd(&["CLUSTER", "INFO"]).text().contains("cluster_state:ok");
            is_up && self.nodes[n].lines().len() == self.nodes.len() && self.agrees()
        });
    }

    /// Whether all running nodes see the same owners, and the same replicas.
    fn agrees(&self) -> bool {
        let view = |node: &Node| -> BTreeSet<String> {
            let lines = node.lines().into_iter().filter(|line| !line.is_gone());
            lines.map(|line| format!("{} {:?} {:?}", line.id, line.primary, line.slots)).collect()
        };
        let views: BTreeSet<BTreeSet<String>> = self.running().map(|(_, node)| view(node)).collect();
        views.len() == 1
    }

    /// Waits until every replica has applied what its primary has written by now.
    pub(crate) fn await_sync(&self) {
        let primaries: Vec<usize> = self.owners().into_keys().collect();
        for primary in primaries {
            let head = self.nodes[primary].head();
            for replica in self.replicas_of(primary) {
                eventually("a replica of the cluster is in sync", AGREED_WITHIN, || {
                    self.nodes[replica].applied().is_some_and(|applied| applied >= head)
                });
            }
        }
    }

    /// What the replicas of this node get from it passes here. Only with [`Shape::relays`], and not after a failover.
    pub(crate) fn link(&self, primary: usize) -> &Relay {
        self.nodes[primary].relay.as_ref().expect("a primary of a cluster with relays")
    }

    /// SIGKILL
    pub(crate) fn kill(&mut self, n: usize) {
        self.nodes[n].down.store(true, Ordering::SeqCst);
        self.nodes[n].server.kill();
    }

    /// Starts it again, with what it knew of the cluster and without data.
    pub(crate) fn restart(&mut self, n: usize) {
        self.nodes[n].server.restart();
        self.nodes[n].down.store(false, Ordering::SeqCst);
    }

    /// SIGSTOP
    pub(crate) fn pause(&self, n: usize) {
        self.nodes[n].down.store(true, Ordering::SeqCst);
        self.nodes[n].server.pause();
    }

    /// SIGCONT
    pub(crate) fn resume(&self, n: usize) {
        self.nodes[n].server.resume();
        self.nodes[n].down.store(false, Ordering::SeqCst);
    }

    /// Makes a replica the primary of its shard by `CLUSTER FAILOVER`, and waits until it owns the slots.
    pub(crate) fn fail_over_to(&self, replica: usize) {
        let node = &self.nodes[replica];
        let owns = |node: &Node| {
            let line = node.myself();
            line.flags.contains("master") && !line.slots.is_empty()
        };
        let mut asked = 0;
        eventually("a replica takes over", AGREED_WITHIN, || {
            // It gives up after five seconds.
            if asked % 600 == 0 {
                let reply = node.cmd(&["CLUSTER", "FAILOVER"]);
                assert!(reply == "OK" || owns(node), "{reply:?}");
            }
            asked += 1;
            owns(node)
        });
    }

    /// Waits until another node than this has its slots.
    pub(crate) fn await_successor_of(&self, primary: usize, slot: u16) -> usize {
        let mut successor = None;
        eventually("a dead primary is replaced", AGREED_WITHIN, || {
            successor = self.slot_owners()[usize::from(slot)].filter(|owner| *owner != primary);
            successor.is_some()
        });
        successor.unwrap()
    }
}

impl Node {
    fn start(shape: &Shape, primary: bool) -> Self {
        let bus = free_port().to_string();
        let mut options = vec!["--cluster-enabled", "yes", "--cluster-port", &bus];
        options.extend(["--cluster-node-timeout", "2000", "--cluster-announce-ip", "127.0.0.1"]);
        options.extend(&shape.options);
        let from = FROM_REPLICA.to_string();
        if shape.relays && !primary {
            options.extend(["--bind-source-addr", &from]);
        }
        let server = Redis::start_as(shape.kind, &options);
        let relay = (shape.relays && primary).then(|| Relay::to_for(server.port, FROM_REPLICA));
        let address = relay.as_ref().map_or(server.port, |relay| relay.port);
        if relay.is_some() {
            let announced = server.cmd(&["CONFIG", "SET", "cluster-announce-port", &address.to_string()]);
            assert_eq!(announced, "OK");
        }
        let id = server.cmd(&["CLUSTER", "MYID"]).text();
        Self { server, id, address, relay, down: AtomicBool::new(false) }
    }

    /// What it says of all nodes that it knows.
    pub(crate) fn lines(&self) -> Vec<Line> {
        lines(&mut self.connect())
    }

    /// What it says of itself.
    pub(crate) fn myself(&self) -> Line {
        let own = self.lines().into_iter().find(|line| line.flags.contains("myself"));
        own.expect("a node knows itself")
    }
}

mod tests {
    use super::*;

    fn serves_and_fails_over(kind: Server) {
        let mut cluster = Cluster::start_as(kind);
        assert_eq!(cluster.owners().into_values().collect::<Vec<_>>(), [5461, 5462, 5461]);
        for key in ["", "a", "{a}b", "x{}y", "{{b}}c", "foo{bar}{zap}", "123456789"] {
            assert_eq!(cluster.nodes[0].cmd(&["CLUSTER", "KEYSLOT", key]), i64::from(slot(key)), "{key}");
        }
        cluster.fail_over_to(3);
        cluster.await_ok();
        assert_eq!((cluster.owner(0), cluster.replicas_of(3)), (3, vec![0]));
        cluster.kill(1);
        assert_eq!(cluster.await_successor_of(1, 6000), 4);
        cluster.restart(1);
        cluster.await_ok();
        assert_eq!(cluster.replicas_of(4), [1]);
    }

    #[test]
    fn a_cluster_serves_and_fails_over() {
        serves_and_fails_over(Shape::default().kind);
    }

    #[test]
    fn a_cluster_of_valkey_serves_and_fails_over() {
        serves_and_fails_over(Server::Valkey81);
    }

    #[test]
    fn a_replica_behind_a_relay_lags_and_clients_do_not() {
        let cluster = Cluster::with(&Shape { relays: true, ..Shape::default() });
        cluster.link(0).delay(Direction::Down, secs(2));
        let mut direct = Direct::new(&cluster.addresses(), Access::Primary);
        let key = key_in(7, 0);
        let asked = std::time::Instant::now();
        assert_eq!(direct.cmd(&key, &["SET", &key, "v"]), "OK");
        assert_eq!(direct.cmd(&key, &["GET", &key]), "v");
        assert!(asked.elapsed() < secs(1), "{:?}", asked.elapsed());
        let mut replica = cluster.nodes[3].connect();
        replica.cmd(&["READONLY"]);
        assert_eq!(replica.cmd(&["EXISTS", &key]), 0);
        cluster.link(0).heal();
        eventually("it arrives", secs(10), || replica.cmd(&["EXISTS", &key]) == 1);
    }
}
