//! Keeps to the shards of a Redis Cluster: asks its nodes what they know of it (`CLUSTER NODES`), has an engine for each shard, and
//! tells each who belongs to it. What that comes to is decided elsewhere ([`crate::core::slots`]).
//!
//! Every node is asked: primaries at least four times within the tightest `max-lag`, and at once whenever there was a sign that a
//! slot moves; others once a second. What the primary of a shard says of itself counts for the slots; what others say only
//! shows who there is.

use std::collections::{BTreeMap, HashMap};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::config::{self, Config};
use crate::control::engine;
use crate::control::prober::{Heard, is_withheld};
use crate::core::address::Address;
use crate::core::moment::Moment;
use crate::core::nodes::members::{Membership, Places};
use crate::core::nodes::node::Node;
use crate::core::nodes::view::{Observation, Tracker};
use crate::core::policy::Consistency;
use crate::core::slots::{Members, NodeLine, NodesReport, ShardIndex, Topology};
use crate::net::runtime::clock;
use crate::net::runtime::jitter;
use crate::net::runtime::limits::MOST_SHARDS;
use crate::net::runtime::task;
use crate::net::socket::call::{ControlError, ControlLink};
use crate::shard::cluster::Cluster;
use crate::shard::shared::Shared;
use crate::shard::withheld::Wanted;
use crate::wire::cluster;

/// Between two questions to a node that is no primary, and to a primary if nobody wants its replicas to be fresh.
const POLL: Duration = Duration::from_secs(1);

/// Between two questions to a primary, at least, unless somebody wants to know.
const POLL_LEAST: Duration = Duration::from_millis(50);

/// Between two questions in any case.
const POLL_GAP: Duration = Duration::from_millis(2);

/// While slots move.
const POLL_MOVING: Duration = Duration::from_millis(100);

/// `CLUSTER NODES` that was refused is not asked for again for so long.
const REFUSED_FOR: Duration = Duration::from_secs(1);

/// When no node has answered for so long, whoever is configured is asked again.
const SILENCE: Duration = Duration::from_secs(3);

/// Pauses between attempts to connect: from the first, doubling up to the second.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LONGEST: Duration = Duration::from_secs(1);

/// Answers that may wait to be taken in.
const QUEUE: usize = 1024;

/// What a node has answered.
struct Answer {
    asked: Address,
    report: NodesReport,
    asked_at: Moment,
    heard_at: Moment,
}

/// Asks from now on; who belongs to the first shard is in the receiver.
pub fn start(first: &Arc<Shared>, settings: &config::Cluster) -> watch::Receiver<Membership> {
    let (found, membership) = watch::channel(Membership::default());
    let Some(cluster) = first.cluster().cloned() else { return membership };
    let (answers, heard) = mpsc::channel(QUEUE);
    let map = first.config().upstream.address_map.clone();
    let mut watcher = Watcher {
        first: Arc::clone(first),
        cluster,
        topology: Topology::new(MOST_SHARDS, map),
        engines: vec![Engine { found, keeper: None, members: None }],
        seeds: settings.addresses.clone(),
        asked: HashMap::new(),
        answers,
        silent: false,
    };
    watcher.ask_all(&[]);
    task::spawn("cluster", watcher.run(heard));
    membership
}

/// One shard's.
struct Engine {
    found: watch::Sender<Membership>,
    /// Of the view; the first one's is told by whoever reads the configuration.
    keeper: Option<mpsc::Sender<Heard>>,
    members: Option<Members>,
}

struct Watcher {
    first: Arc<Shared>,
    cluster: Arc<Cluster>,
    topology: Topology,
    engines: Vec<Engine>,
    /// `addresses`
    seeds: Vec<Address>,
    asked: HashMap<Address, JoinHandle<()>>,
    answers: mpsc::Sender<Answer>,
    /// No node has answered of late.
    silent: bool,
}

impl Watcher {
    async fn run(mut self, mut heard: mpsc::Receiver<Answer>) {
        let mut configured = self.first.configured.subscribe();
        loop {
            // Cancel safe: a channel, a `watch` channel, and a sleep.
            tokio::select! {
                answer = heard.recv() => {
                    let Some(answer) = answer else { return };
                    self.silent = false;
                    let done = panic::catch_unwind(AssertUnwindSafe(|| self.hear(answer)));
                    if done.is_err() {
                        tracing::error!("what a node says of its cluster was not taken in");
                    }
                }
                _ = configured.changed() => self.configure().await,
                () = tokio::time::sleep(SILENCE) => self.hear_nothing(),
            }
        }
    }

    /// Other policies and limits hold from now on: the keepers of the other shards are told, too.
    async fn configure(&self) {
        let (policies, limits, zones) = {
            let config = self.first.config();
            (Arc::new(config.policies.clone()), config.patience(), Arc::new(config.zones()))
        };
        for keeper in self.engines.iter().filter_map(|engine| engine.keeper.as_ref()) {
            let (policies, zones) = (Arc::clone(&policies), Arc::clone(&zones));
            let configured = Observation::Configured { policies, limits, zones };
            // A closed channel means that the process ends.
            let _ = keeper.send((configured, clock::now())).await;
        }
    }

    /// None of those that are known answers: those that are configured may be, or may know, others (all nodes have begun anew
    /// elsewhere).
    fn hear_nothing(&mut self) {
        if !std::mem::replace(&mut self.silent, true) {
            tracing::warn!("no node of the cluster answers: those of `addresses` are asked again");
        }
        let nodes: Vec<Address> = self.topology.addresses(clock::now()).into_keys().collect();
        let seeds = self.seeds.iter().filter(|seed| !nodes.contains(seed));
        let all: Vec<Address> = nodes.iter().chain(seeds).cloned().collect();
        self.ask_all(&all);
    }

    fn hear(&mut self, answer: Answer) {
        let Answer { asked, report, asked_at, heard_at } = answer;
        self.topology.hear(&asked, report.clone(), heard_at);
        let shards = self.topology.decide(heard_at);
        if shards.iter().any(|one| one.is_live && one.is_headless) {
            self.cluster.look();
        }
        for members in &shards {
            self.settle(members, &shards);
        }
        self.cluster.know_live(shards.iter().filter(|one| one.is_live).map(|one| one.shard).collect());
        let addresses = self.topology.addresses(heard_at);
        let at = |name| self.topology.shard_of(name);
        let places = addresses.iter().filter_map(|(address, name)| Some((address.clone(), at(*name)?)));
        self.cluster.know_addresses(places.collect());
        let myself = report.myself().filter(|mine| mine.is_primary()).map(|mine| mine.name);
        if let Some(shard) = myself.and_then(|name| self.topology.led_by(name)) {
            self.cluster.hear(|claims| claims.report(shard, &report, asked_at, heard_at));
            if let Some(shared) = self.cluster.shard(shard).filter(|_| report.shows_open) {
                shared.shard().confirm(asked_at);
            }
        }
        let nodes: Vec<Address> = addresses.into_keys().collect();
        self.ask_all(&nodes);
    }

    /// Has the engine of a shard know who belongs to it.
    fn settle(&mut self, members: &Members, all: &[Members]) {
        while self.engines.len() <= members.shard.index() {
            if !self.begin() {
                return;
            }
        }
        let Some(engine) = self.engines.get_mut(members.shard.index()) else { return };
        let had = engine.members.as_ref().is_some_and(|known| known.is_live);
        if engine.members.as_ref() == Some(members) {
            return;
        }
        tell(members, engine.members.as_ref());
        engine.members = Some(members.clone());
        // Whoever has no keys to ask for is answered by the first, whatever has become of its slots.
        let stands_in = (members.shard == ShardIndex::FIRST && !members.is_live)
            .then(|| all.iter().find(|other| other.is_live))
            .flatten();
        let Members { primary, nodes, .. } = stands_in.unwrap_or(members);
        let membership = Membership {
            nodes: nodes.clone(),
            primary: primary.as_ref().map(|(_, address)| address.clone()),
            moves: BTreeMap::new(),
        };
        engine.found.send_if_modified(|known| {
            let changed = *known != membership;
            if changed {
                *known = membership;
            }
            changed
        });
        if had && !members.is_live {
            self.cluster.hear(|claims| claims.retire(members.shard));
        }
    }

    /// Begins with one more shard. False: there are too many.
    fn begin(&mut self) -> bool {
        let (tracker, places) = {
            let config: &Config = &self.first.config();
            let tracker = Tracker::new(Vec::new(), None, config.policies.clone(), config.patience());
            (tracker.in_zones(config.zones()).in_cluster(), self.first.shard().places)
        };
        let Some(shared) = self.cluster.add(self.first.common(), places, tracker.view().clone()) else {
            return false;
        };
        let (found, membership) = watch::channel(Membership::default());
        let keeper = engine::start(&shared, tracker, Places::new(places, &[]), membership);
        self.engines.push(Engine { found, keeper: Some(keeper), members: None });
        true
    }

    /// Has these nodes asked, and no others but those that are configured, as long as nobody else is known.
    fn ask_all(&mut self, nodes: &[Address]) {
        let wanted: Vec<&Address> =
            if nodes.is_empty() { self.seeds.iter().collect() } else { nodes.iter().collect() };
        self.asked.retain(|address, task| {
            let stays = wanted.contains(&address);
            if !stays {
                task.abort();
            }
            stays
        });
        for address in wanted {
            if !self.asked.contains_key(address) {
                let asker = Asker {
                    address: address.clone(),
                    shared: Arc::clone(&self.first),
                    cluster: Arc::clone(&self.cluster),
                    answers: self.answers.clone(),
                };
                let task = task::supervise("cluster node", move || asker.clone().ask_for_ever());
                self.asked.insert(address.clone(), task);
            }
        }
    }
}

/// Says who belongs to a shard now, if its primary or its life is another one than `before`.
fn tell(members: &Members, before: Option<&Members>) {
    let shard = members.shard;
    let primary = |members: &Members| members.primary.as_ref().map(|(_, address)| address.clone());
    match (before.is_some_and(|before| before.is_live), members.is_live) {
        (true, false) => tracing::info!(%shard, "a shard is no more: its primary follows another one"),
        (false, true) => {
            let primary = primary(members).map(|address| address.to_string());
            tracing::info!(%shard, primary, nodes = members.nodes.len(), "a shard of the cluster");
        }
        (true, true) if before.is_some_and(|before| primary(before) != primary(members)) => {
            let primary = primary(members).map(|address| address.to_string());
            tracing::info!(%shard, primary, "another primary leads a shard");
        }
        _ => {}
    }
}

/// Asks one node.
#[derive(Clone)]
struct Asker {
    address: Address,
    shared: Arc<Shared>,
    cluster: Arc<Cluster>,
    answers: mpsc::Sender<Answer>,
}

impl Asker {
    async fn ask_for_ever(self) {
        let (mut pause, mut told) = (RETRY_FIRST, String::new());
        while !self.answers.is_closed() {
            let begun = clock::now();
            let problem = self.ask_until_lost(&mut told).await;
            if clock::now().since(begun) >= RETRY_LONGEST {
                pause = RETRY_FIRST;
            }
            let text = problem.to_string();
            if text != told {
                tracing::warn!(node = %self.address, problem = %text, "a node does not tell of its cluster");
                told = text;
            }
            tokio::time::sleep(jitter::around(pause)).await;
            pause = (pause * 2).min(RETRY_LONGEST);
        }
    }

    async fn ask_until_lost(&self, told: &mut String) -> ControlError {
        let (who, connect_within) = {
            let config = self.shared.config();
            (config.upstream.credentials(), config.upstream.connect_timeout)
        };
        let link =
            ControlLink::connect(&self.shared.dialer, &self.address, who.as_ref(), connect_within).await;
        let mut link = match link {
            Ok(link) => link,
            Err(problem) => return problem,
        };
        let mut looks = self.cluster.looks();
        let mut refused_at = None;
        loop {
            let within = self.shared.config().upstream.probe_timeout;
            looks.mark_unchanged();
            let asked_at = clock::now();
            let report = match self.ask(&mut link, &mut refused_at, within).await {
                Ok(report) => report,
                Err(problem) => return problem,
            };
            let heard_at = clock::now();
            told.clear();
            let leads = report.myself().is_some_and(NodeLine::is_primary);
            let answer = Answer { asked: self.address.clone(), report, asked_at, heard_at };
            if self.answers.send(answer).await.is_err() {
                return ControlError::Closed;
            }
            let pause = if leads { self.pause() } else { POLL };
            // Of a large cluster there is much to tell: no node is to be busy with that.
            tokio::time::sleep(POLL_GAP.max(heard_at.since(asked_at) * 4)).await;
            // The sender lives as long as the cluster.
            tokio::select! {
                () = tokio::time::sleep(jitter::slightly_less(pause)) => {}
                _ = looks.changed() => {}
            }
        }
    }

    /// What it says of its cluster, by `CLUSTER SLOTS` while it refuses `NODES`, which it is asked for again once in a while.
    async fn ask(
        &self,
        link: &mut ControlLink,
        refused_at: &mut Option<Moment>,
        within: Duration,
    ) -> Result<NodesReport, ControlError> {
        if refused_at.is_none_or(|at| clock::now().since(at) >= REFUSED_FOR) {
            match link.call(&[b"CLUSTER", b"NODES"], within).await {
                Ok(answer) => {
                    *refused_at = None;
                    self.note(false);
                    let report = cluster::nodes(&answer);
                    return report.map_err(|problem| ControlError::Malformed(problem.to_string()));
                }
                Err(ControlError::Refused(text)) if is_withheld(&text) => {
                    *refused_at = Some(clock::now());
                    self.note(true);
                }
                Err(problem) => return Err(problem),
            }
        }
        let myid = link.call(&[b"CLUSTER", b"MYID"], within).await?;
        let info = link.call(&[b"CLUSTER", b"INFO"], within).await?;
        let slots = link.call(&[b"CLUSTER", b"SLOTS"], within).await?;
        let report = cluster::by_slots(&myid, &info, &slots);
        report.map_err(|problem| ControlError::Malformed(problem.to_string()))
    }

    /// It has refused `CLUSTER NODES`, or has let it be asked.
    fn note(&self, refused: bool) {
        let shared = self.cluster.shard_at(&self.address).and_then(|shard| self.cluster.shard(shard));
        let Some(shared) = shared else { return };
        let view = shared.shard().view.load();
        let is_it = |node: &&Node| node.address.as_deref() == Some(&self.address);
        let Some(node) = view.nodes.iter().find(is_it).map(|node| node.id) else { return };
        if shared.shard().withheld.note(node, Wanted::Nodes, refused) && refused {
            tracing::warn!("{} refuses {}: {}", self.address, Wanted::Nodes.name(), Wanted::Nodes.without());
        }
    }

    /// Between two questions to a primary.
    fn pause(&self) -> Duration {
        let config = self.shared.config();
        let bounded = config.policies.all.iter().filter(|policy| policy.consistency > Consistency::Eventual);
        let tightest = bounded.map(|policy| policy.max_lag / 4).min().unwrap_or(POLL);
        let pause = tightest.clamp(POLL_LEAST, POLL);
        if self.cluster.claims().moving() > 0 { pause.min(POLL_MOVING) } else { pause }
    }
}
