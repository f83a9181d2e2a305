//! A seeded simulation of `core`: a primary and its replicas with histories, lag, polls that are late or lost, cut
//! links, full resyncs, restarts and promotions. The invariant: no read is ever sent to a replica below what its level
//! demands. The truth is known here, so every decision is checked against it.
//!
//! `REDWEIR_SIM_SEEDS=n` runs more seeds. A seed that once failed stays in `KEPT_SEEDS`.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use redweir::core::address::Address;
use redweir::core::demand::Writes;
use redweir::core::fence::{AnchorCounter, FenceTable, Slot};
use redweir::core::moment::Moment;
use redweir::core::nodes::node::{Facts, Link, LinkDown, NodeId, Role};
use redweir::core::nodes::view::{Effect, Observation, Patience, Tracker};
use redweir::core::policy::{Consistency, Policies, Policy, PolicyId};
use redweir::core::position::{History, Offset, ReplId};
use redweir::core::reason::Reason;
use redweir::core::route::{Ask, Decision, Demand, decide};
use redweir::core::stream::coverage::Coverage;

/// Seeds that once found something, and what it was.
const KEPT_SEEDS: &[u64] = &[
    193, // a stream stamp on a pending slot, which an anchor already under way settled below it
    99,  // a promoted replica whose last INFO was before the promotion: anchors under the wrong history
];

const NODES: usize = 4;
const KEYS: usize = 12;
const STEPS: usize = 6_000;
const WRITE_BYTES: u64 = 10;
const MAX_LAG: Duration = Duration::from_millis(40);

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// A write, identified by its number; `acked` is when its client had the reply.
#[derive(Clone, Copy)]
struct Write {
    id: u64,
    /// `None`: it may have changed any key (`FLUSHALL`).
    key: Option<usize>,
    acked: Moment,
    /// Through the proxy (it stamps fences), or straight to the primary.
    ours: bool,
}

/// What a node really is.
#[derive(Clone)]
struct Server {
    history: History,
    log: Vec<Write>,
    /// Offset at the start of `log`.
    base: u64,
    primary: bool,
    follows: usize,
    link: Link,
    ever_synced: bool,
    alive: bool,
}

impl Server {
    fn offset(&self) -> u64 {
        self.base + self.log.len() as u64 * WRITE_BYTES
    }

    /// The writes that `replica` lacks. Logs grow by copying, so that one common entry at the same place means that
    /// all before it are common too.
    fn missing_in<'a>(&'a self, replica: &'a Self) -> impl Iterator<Item = &'a Write> {
        let same = |at: usize| {
            self.log.get(at).zip(replica.log.get(at)).is_some_and(|(ours, theirs)| ours.id == theirs.id)
        };
        let shorter = self.log.len().min(replica.log.len());
        let common = if shorter > 0 && same(shorter - 1) { shorter } else { 0 };
        let has = |id: u64| replica.log.binary_search_by_key(&id, |w| w.id).is_ok();
        self.log[common..].iter().filter(move |w| !has(w.id))
    }
}

impl Write {
    fn touches(&self, key: usize) -> bool {
        self.key.is_none_or(|written| written == key)
    }
}

/// The replication link: which node it is read from, in which history, and how much of that node's log was told.
struct Stream {
    source: usize,
    id: ReplId,
    base: u64,
    told: usize,
}

/// A report on its way to the keeper.
struct Mail {
    due: Moment,
    observation: Observation,
}

struct World {
    rng: Rng,
    now: Moment,
    servers: Vec<Server>,
    mail: Vec<Mail>,
    tracker: Tracker,
    /// Who has each place.
    ids: [NodeId; NODES],
    fences: FenceTable,
    anchors: AnchorCounter,
    coverage: Coverage,
    stream: Option<Stream>,
    /// Writes that the stream has told.
    told: HashSet<u64>,
    policies: Policies,
    /// When every server's connection is introduced by INFO.
    introduced: Vec<bool>,
    next_write: u64,
    next_history: u64,
    served_by_replicas: HashMap<Consistency, u64>,
}

fn policies() -> Policies {
    let levels = [Consistency::Bounded, Consistency::Fenced];
    let all = levels.iter().map(|level| Policy {
        name: level.name().to_owned(),
        consistency: *level,
        max_lag: MAX_LAG,
        ..Policy::default()
    });
    Policies { all: all.collect(), ..Policies::default() }
}

impl World {
    fn new(seed: u64) -> Self {
        let policies = policies();
        let limits = Patience { silence: Duration::from_millis(300), hold: Duration::from_millis(200) };
        let addresses = (0..NODES).map(|n| Address::tcp(&format!("node-{n}"), 1)).collect();
        let mut world = Self {
            rng: Rng(seed),
            now: Moment::from_millis(1),
            servers: Vec::new(),
            mail: Vec::new(),
            tracker: Tracker::new(addresses, Some(NodeId(0)), policies.clone(), limits),
            ids: std::array::from_fn(|place| NodeId(place as u32)),
            fences: FenceTable::new(1 << 10, [seed, 2, 3, 4]),
            anchors: AnchorCounter::default(),
            coverage: Coverage::default(),
            stream: None,
            told: HashSet::new(),
            policies,
            introduced: vec![false; NODES],
            next_write: 1,
            next_history: 1,
            served_by_replicas: HashMap::new(),
        };
        let history = world.new_history();
        for index in 0..NODES {
            world.servers.push(Server {
                history,
                log: Vec::new(),
                base: 0,
                primary: index == 0,
                follows: 0,
                link: Link::Up,
                ever_synced: true,
                alive: true,
            });
        }
        world
    }

    fn new_history(&mut self) -> History {
        self.next_history += 1;
        let text = format!("{:040x}", self.next_history);
        History::new(ReplId::parse(text.as_bytes()).expect("forty digits"))
    }

    fn primary(&self) -> Option<usize> {
        self.servers.iter().position(|s| s.primary && s.alive)
    }

    fn step(&mut self) {
        let pause = 200_000 + self.rng.next() % 1_500_000;
        self.now = self.now.after(Duration::from_nanos(pause));
        match self.rng.below(100) {
            0..30 => self.write(),
            30..60 => self.replicate(),
            60..80 => self.poll(),
            80..83 => self.trouble(),
            83..95 => self.follow(),
            _ => {}
        }
        self.deliver();
        self.read();
    }

    /// A client writes to the node that the proxy believes to be the primary, or, past it, to the real one.
    fn write(&mut self) {
        let ours = !self.rng.one_in(4);
        let believed = self.tracker.view().primary.map(NodeId::index);
        let Some(target) = (if ours { believed } else { self.primary() }) else { return };
        let server = &mut self.servers[target];
        if !server.primary || !server.alive {
            return;
        }
        let key = if self.rng.one_in(40) { None } else { Some(self.rng.below(KEYS)) };
        let write = Write { id: self.next_write, key, acked: self.now, ours };
        self.next_write += 1;
        server.log.push(write);
        if ours {
            // Sometimes the acknowledgement is some time on its way while anchors go out.
            if self.rng.one_in(3) {
                let _ = self.anchors.take();
            }
            match write.key {
                Some(key) => self.fences.stamp_pending(self.slot(key), self.anchors.next()),
                None => self.fences.raise_floor(self.anchors.next()),
            }
        }
    }

    fn slot(&self, key: usize) -> Slot {
        self.fences.slot(format!("key:{key}").as_bytes())
    }

    /// A replica applies some of what its primary has.
    fn replicate(&mut self) {
        let index = self.rng.below(NODES);
        let source = self.servers[index].follows;
        if self.servers[index].primary
            || self.servers[index].link == Link::Down
            || !self.servers[source].alive
        {
            return;
        }
        let (from, most) = (self.servers[source].clone(), 1 + self.rng.below(40));
        let replica = &mut self.servers[index];
        if replica.link == Link::Syncing {
            // The dump: everything at once.
            (replica.log, replica.base, replica.history) = (from.log, from.base, from.history);
            (replica.link, replica.ever_synced) = (Link::Up, true);
            return;
        }
        let missing = from.log.iter().skip(replica.log.len()).take(most);
        replica.log.extend(missing.copied());
        replica.history = from.history;
    }

    /// The replication link tells some of what its source has, is made anew, or moves.
    fn follow(&mut self) {
        let moves = self.rng.one_in(30);
        let link = self.stream.take().filter(|link| {
            let source = &self.servers[link.source];
            !moves && source.alive && source.history.id == link.id && source.base == link.base
        });
        let mut link = if let Some(link) = link {
            link
        } else {
            let source = self.rng.below(NODES);
            let server = &self.servers[source];
            if !server.alive
                || !self.tracker.view().nodes[source].history().is_some_and(|h| h == server.history)
            {
                return;
            }
            let (id, base, told) = (server.history.id, server.base, server.log.len());
            let (at, next) = ((id, Offset::new(server.offset())), self.anchors.next());
            let ours = self.tracker.view().history.map(|history| history.id);
            self.coverage.attached(&self.fences, at, false, ours, next);
            Stream { source, id, base, told }
        };
        let most = 1 + self.rng.below(60);
        let server = &self.servers[link.source];
        for write in server.log.iter().skip(link.told).take(most) {
            link.told += 1;
            let next = self.anchors.next();
            let end = Offset::new(link.base + link.told as u64 * WRITE_BYTES);
            self.told.insert(write.id);
            let ours = self.tracker.view().history.map(|history| history.id);
            match write.key {
                Some(key) => self.coverage.wrote(&self.fences, &[(self.slot(key), end)], ours, next),
                None => self.coverage.wrote_anything(&self.fences, end, ours, next),
            }
            let view = self.tracker.view();
            let history = (view.history.map(|history| history.id), view.era);
            self.coverage.progressed(&self.fences, end, history, next);
        }
        self.stream = Some(link);
    }

    /// One poll of one node: what it says now arrives later, or never.
    fn poll(&mut self) {
        let index = self.rng.below(NODES);
        let node = self.ids[index];
        let late = Duration::from_nanos(self.rng.next() % 4_000_000);
        let due = self.now.after(late);
        // Answers of one connection stay in order.
        let order = self.mail.iter().filter(|m| m.observation.node() == Some(node)).map(|m| m.due).max();
        let due = order.map_or(due, |last| due.max(last));
        let server = &self.servers[index];
        if !server.alive || self.rng.one_in(25) {
            self.introduced[index] = false;
            self.mail.push(Mail { due, observation: Observation::Lost { node } });
            return;
        }
        let seq = self.anchors.take();
        let server = &self.servers[index];
        if !self.introduced[index] || self.rng.one_in(5) {
            self.introduced[index] = true;
            let link_down = match server.link {
                _ if server.primary => None,
                Link::Up => None,
                _ if !server.ever_synced => Some(LinkDown::Never),
                _ => Some(LinkDown::For(Duration::from_secs(1))),
            };
            let server = &self.servers[index];
            let master = (format!("node-{}", server.follows), 6379);
            let facts = Facts {
                role: Some(if server.primary { Role::Primary } else { Role::Replica }),
                master: (!server.primary).then_some(master),
                history: Some(server.history),
                sync_in_progress: server.link == Link::Syncing && !server.primary,
                link_down,
                ..Facts::default()
            };
            self.mail.push(Mail { due, observation: Observation::Info { node, facts: Box::new(facts) } });
        }
        let server = &self.servers[index];
        let observation = if server.primary {
            Observation::Primary { node, seq, sent_at: self.now, offset: Offset::new(server.offset()) }
        } else {
            Observation::Replica {
                node,
                link: server.link,
                master: (format!("node-{}", server.follows), 6379),
                applied: (server.link == Link::Up).then(|| Offset::new(server.offset())),
            }
        };
        self.mail.push(Mail { due, observation });
    }

    fn trouble(&mut self) {
        let index = self.rng.below(NODES);
        let is_primary = self.servers[index].primary;
        match self.rng.below(8) {
            0 if !is_primary => self.servers[index].link = Link::Down,
            1 if !is_primary => self.servers[index].link = Link::Syncing,
            2 | 3 if !is_primary => {
                // The link comes back; a partial resync works only inside one history.
                let source = self.servers[index].follows;
                let prefix = self.servers[source].log.len() >= self.servers[index].log.len();
                let same = self.servers[source].history.id == self.servers[index].history.id
                    && self.servers[source].base == self.servers[index].base;
                let matches = prefix && same && self.servers[index].ever_synced;
                self.servers[index].link = if matches { Link::Up } else { Link::Syncing };
            }
            4 => self.restart(index),
            5 if is_primary && self.rng.one_in(3) => self.promote(index),
            6 => self.now = self.now.after(Duration::from_millis(200)),
            7 if !is_primary => self.replace(index),
            _ => {}
        }
    }

    /// A node leaves, and another one takes its place, with less of the same history. What the first one has said may still be
    /// on its way.
    fn replace(&mut self, index: usize) {
        let (old, new) = (self.ids[index], self.ids[index].successor());
        self.ids[index] = new;
        self.introduced[index] = false;
        let half = self.servers[index].log.len() / 2;
        self.servers[index].log.truncate(half);
        let address = Address::tcp(&format!("node-{index}"), 2);
        for observation in [Observation::Left { node: old }, Observation::Joined { node: new, address }] {
            let _ = self.tracker.apply(observation, self.now);
        }
    }

    /// A node restarts empty. Whatever it had said on its connection is void.
    fn restart(&mut self, index: usize) {
        if self.rng.one_in(2) {
            return;
        }
        let history = self.new_history();
        let was_primary = self.servers[index].primary;
        let base = if self.rng.one_in(2) { 0 } else { self.rng.next() % 500 };
        let server = &mut self.servers[index];
        (server.log, server.base, server.history) = (Vec::new(), base, history);
        (server.link, server.ever_synced) = (Link::Down, false);
        self.lose_connection(index);
        if was_primary {
            for other in &mut self.servers {
                if !other.primary && other.follows == index {
                    other.link = Link::Down;
                }
            }
        }
    }

    /// Sentinel promotes a replica; the others follow it, the old primary becomes its replica.
    fn promote(&mut self, old: usize) {
        let candidates: Vec<usize> = (0..NODES)
            .filter(|n| *n != old && self.servers[*n].ever_synced && !self.servers[*n].primary)
            .collect();
        let Some(new) = candidates.get(self.rng.below(candidates.len().max(1))).copied() else { return };
        let fresh = self.new_history();
        let end = Offset::new(self.servers[new].offset() + 1);
        let server = &mut self.servers[new];
        server.history = History { id: fresh.id, previous: Some((server.history.id, end)) };
        server.primary = true;
        for index in (0..NODES).filter(|n| *n != new) {
            let server = &mut self.servers[index];
            (server.primary, server.follows, server.link) = (false, new, Link::Down);
        }
        // A demoted primary that is ahead must not pretend to continue.
        self.servers[old].link = Link::Syncing;
    }

    fn lose_connection(&mut self, index: usize) {
        let node = self.ids[index];
        self.mail.retain(|m| m.observation.node() != Some(node));
        self.introduced[index] = false;
        self.mail.push(Mail { due: self.now, observation: Observation::Lost { node } });
    }

    fn deliver(&mut self) {
        let now = self.now;
        let (due, later): (Vec<Mail>, Vec<Mail>) = self.mail.drain(..).partition(|m| m.due <= now);
        self.mail = later;
        for mail in due {
            let era = self.tracker.view().era;
            let restarted = self.tracker.apply(mail.observation, now) == Effect::HistoryRestarted;
            self.fences.turn(era, self.tracker.view().era, restarted, || self.anchors.next());
        }
        let view = self.tracker.view();
        if let Some(head) = view.head {
            self.fences.settle_floor(view.anchor, head.offset);
            for key in 0..KEYS {
                let slot = self.fences.slot(format!("key:{key}").as_bytes());
                self.fences.settle(slot, view.anchor, head.offset);
            }
        }
    }

    fn read(&mut self) {
        let key = self.rng.below(KEYS);
        let tie = self.rng.next() as u32;
        for (index, policy) in self.policies.all.clone().iter().enumerate() {
            let demand = self.demand(policy.consistency, key);
            let ask = Ask {
                view: self.tracker.view(),
                policy,
                policy_id: PolicyId(index as u32),
                demand,
                sticky: None,
                load: &[],
                in_flight: &[],
                proven: &[],
                in_doubt: &[],
                barred: &[],
                may_try: &[],
                now: self.now,
                tie,
                waited: false,
                avoid: None,
            };
            let Decision::Send { node, reason: Reason::Fresh } = decide(&ask) else { continue };
            *self.served_by_replicas.entry(policy.consistency).or_default() += 1;
            self.check(policy.consistency, node.index(), key);
        }
    }

    /// Of nobody in particular.
    fn demand(&self, level: Consistency, key: usize) -> Demand {
        let known = Writes { view: self.tracker.view(), fences: &self.fences, next: self.anchors.next() };
        known.demand(level, None, None, |each| {
            each(self.slot(key));
            false
        })
    }

    /// What the read would return is compared with what the believed primary really holds.
    fn check(&self, level: Consistency, replica: usize, key: usize) {
        let view = self.tracker.view();
        let Some(primary) = view.primary.map(NodeId::index) else { return };
        let (primary, replica) = (&self.servers[primary], &self.servers[replica]);
        if !primary.primary {
            // It was demoted or promoted past without our knowledge: what it acknowledged may be lost, which no level
            // promises to prevent.
            return;
        }
        for write in primary.missing_in(replica) {
            let age = self.now.since(write.acked);
            assert!(age <= MAX_LAG, "{level:?}: a write acknowledged {age:?} ago is missing");
            let known = write.ours || self.told.contains(&write.id);
            let fenced = level == Consistency::Fenced && known && write.touches(key);
            assert!(!fenced, "fenced: write {} to key {key}, acknowledged {age:?} ago, is missing", write.id);
        }
    }
}

fn run(seed: u64) -> HashMap<Consistency, u64> {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
    }
    world.served_by_replicas
}

#[test]
fn no_read_is_sent_below_what_its_level_demands() {
    let more = std::env::var("REDWEIR_SIM_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(200);
    let mut served: HashMap<Consistency, u64> = HashMap::new();
    for seed in KEPT_SEEDS.iter().copied().chain(0..more) {
        let result = std::panic::catch_unwind(|| run(seed));
        let counts = result.unwrap_or_else(|_| panic!("seed {seed} fails; add it to KEPT_SEEDS"));
        for (level, count) in counts {
            *served.entry(level).or_default() += count;
        }
    }
    // A router that always says "primary" would pass everything above.
    for level in [Consistency::Bounded, Consistency::Fenced] {
        let count = served.get(&level).copied().unwrap_or(0);
        println!("{level:?}: {count} reads sent to replicas");
        assert!(count > more * STEPS as u64 / 50, "{level:?}: only {count} reads went to replicas");
    }
}
