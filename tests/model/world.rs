//! The world of the model: what the nodes really hold, and what the proxy knows, in the code of `core`.
//!
//! Every function here mirrors one step of `net`, in its order of operations.

mod promises;
mod steps;

use std::fmt::{Debug, Write as _};
use std::hash::Hasher;
use std::rc::Rc;
use std::time::Duration;

use redweir::core::address::Address;
use redweir::core::demand::Barrier;
use redweir::core::fence::{AnchorCounter, AnchorSeq, FenceTable, Slot};
use redweir::core::moment::Moment;
use redweir::core::nodes::node::{Link, NodeId};
use redweir::core::nodes::proof::Proofs;
use redweir::core::nodes::view::{Observation, Patience, Tracker, View};
use redweir::core::policy::{Consistency, Policies, Policy};
use redweir::core::position::{History, Offset, ReplId};
use redweir::core::session::Session;
use redweir::core::stream::coverage::Coverage;
use redweir::core::stream::resume::Reached;

pub(crate) const NODES: usize = 3;
pub(crate) const KEYS: usize = 2;
pub(crate) const MAX_LAG: u64 = 1;
const WRITE_BYTES: u64 = 10;
const BASE: u64 = 1000;

/// A set of writes, one bit each.
pub(crate) type Set = u8;

/// Who writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// The session whose reads are watched, through the proxy.
    Reader,
    /// Another client of the proxy.
    Other,
    /// Somebody who talks to the primary directly.
    Direct,
}

/// A write that may happen. `None`: its keys cannot be known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Write {
    pub(crate) by: By,
    pub(crate) key: Option<usize>,
}

/// How far a write has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Idle,
    Executed,
    Acked(u64),
}

/// What a node really is. Logs grow by copying, so that a prefix is a prefix.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) history: History,
    pub(crate) log: Vec<u8>,
    pub(crate) primary: bool,
    pub(crate) alive: bool,
    pub(crate) link: Link,
    pub(crate) follows: usize,
}

impl Server {
    pub(crate) fn head(&self) -> Offset {
        Offset::new(BASE + self.log.len() as u64 * WRITE_BYTES)
    }

    pub(crate) fn holds(&self) -> Set {
        self.log.iter().fold(0, |set, id| set | 1 << id)
    }
}

/// The replication link of the proxy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream {
    pub(crate) source: usize,
    id: ReplId,
    known_to: Offset,
}

/// A question on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    seq: AnchorSeq,
    sent_at: Moment,
    inform: bool,
}

/// A read that has arrived and is not decided yet: with what was to be seen then, and the view that it was given.
#[derive(Clone, Debug)]
pub(crate) struct Arrived {
    pub(crate) level: Consistency,
    pub(crate) key: usize,
    pub(crate) barrier: Barrier,
    view: Rc<View>,
    view_digest: u64,
    owed: Set,
}

/// What may still happen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Left {
    pub(crate) questions: u8,
    pub(crate) proofs: u8,
    pub(crate) resyncs: u8,
    pub(crate) promotions: u8,
    pub(crate) ticks: u8,
    pub(crate) reads: u8,
    pub(crate) arrivals: u8,
    pub(crate) moves: u8,
    pub(crate) attaches: u8,
}

/// What may happen at all, and what is not looked at one by one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) writes: &'static [Write],
    pub(crate) left: Left,
    /// What has happened already.
    pub(crate) before: &'static [Action],
    /// The node that the stream is read from at first.
    pub(crate) source: Option<usize>,
    /// Answers wait on their way, and to be published: views are older than what was heard.
    pub(crate) fine: bool,
    /// The old primary goes on after the promotion, as long as nobody tells it.
    pub(crate) split: bool,
    /// The session counts what it has written and seen itself.
    pub(crate) own: bool,
    /// Levels asked for in every state.
    pub(crate) probes: &'static [Consistency],
    /// Levels of reads that arrive, and are decided later.
    pub(crate) arriving: &'static [Consistency],
    /// Nodes that apply anything, so that one replica can be left out.
    pub(crate) replicas: &'static [usize],
    /// Fewer states than this, and the model sees nothing.
    pub(crate) at_least: usize,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// A write reaches the primary and is executed.
    Execute(usize),
    /// Its reply reaches the proxy, which stamps the fences and passes it on.
    Acknowledge(usize),
    /// A question is asked: its number is taken. `true`: `INFO` as well.
    Question(usize, bool),
    /// The node answers it.
    Answer(usize),
    /// The keeper takes the answer in.
    Deliver(usize),
    /// The keeper publishes what it knows.
    Publish,
    /// A replica applies one more command.
    Apply(usize),
    /// The stream tells one more command.
    Tell,
    /// The link is made, or made again, to this node.
    Attach(usize),
    /// A `ROLE` on a lane of a worker.
    AskProof(usize),
    /// Its answer is taken in.
    TakeProof,
    /// A read arrives; its view is loaded.
    Arrive(Consistency, usize),
    /// It is forgotten: it was decided before.
    Leave,
    /// The session reads at this level; `tie` chooses between replicas that are equally good.
    Read(Consistency, usize, u32),
    /// The session moves away from its replica.
    Move,
    /// A replica becomes the primary.
    Promote(usize),
    /// A replica follows the new primary: in part if it can, else it begins a full resync.
    Follow(usize),
    /// A full resync begins, out of the blue.
    Resync(usize),
    /// It ends.
    Synced(usize),
    /// A millisecond passes.
    Tick,
}

/// Everything.
#[derive(Clone)]
pub(crate) struct World {
    scenario: &'static Scenario,
    now: u64,
    pub(crate) servers: [Server; NODES],
    tracker: Rc<Tracker>,
    tracker_digest: u64,
    /// The anchors that the tracker was told, which its view does not show.
    anchors_told: Vec<(Moment, Offset)>,
    published: Rc<View>,
    published_digest: u64,
    fences: FenceTable,
    slots: [Slot; KEYS],
    anchors: u64,
    coverage: Coverage,
    stream: Option<Stream>,
    reached: Option<Reached>,
    asked: [Option<Asked>; NODES],
    answered: [Vec<Observation>; NODES],
    writes: Vec<Phase>,
    told: Set,
    proofs: Proofs,
    proof: Option<(usize, Link, (String, u16), Option<Offset>)>,
    session: Session,
    sticky: Option<NodeId>,
    /// What the session saw of each key, and all that its last replica held when it answered.
    saw: [Set; KEYS],
    saw_all: Set,
    last: Option<NodeId>,
    arrived: Option<Arrived>,
    left: Left,
    /// Reads that replicas have served on the way here; not part of what tells worlds apart.
    pub(crate) served: u64,
}

fn id(letter: u8) -> ReplId {
    ReplId::parse(&[letter; 40]).expect("forty digits")
}

fn address(node: usize) -> (String, u16) {
    (format!("n{node}"), 6379)
}

/// A fingerprint of what something says of itself.
pub(crate) fn digest(value: &impl Debug) -> u64 {
    struct Feed(std::hash::DefaultHasher);
    impl std::fmt::Write for Feed {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            self.0.write(text.as_bytes());
            Ok(())
        }
    }
    let mut feed = Feed(std::hash::DefaultHasher::new());
    write!(feed, "{value:?}").expect("a hasher takes everything");
    feed.0.finish()
}

/// The same of a view, but for when something was heard: nobody is silent here.
fn digest_of(view: &View) -> u64 {
    let mut view = view.clone();
    view.nodes.iter_mut().for_each(|node| (node.heard_at, node.last_up) = (None, None));
    digest(&view)
}

/// The policies: one per level, all else alike.
pub(crate) fn policies() -> &'static Policies {
    static ALL: std::sync::OnceLock<Policies> = std::sync::OnceLock::new();
    ALL.get_or_init(|| {
        let policy = |level: &Consistency| Policy {
            name: level.name().to_owned(),
            consistency: *level,
            max_lag: Duration::from_millis(MAX_LAG),
            ..Policy::default()
        };
        Policies { all: Consistency::ALL.iter().map(policy).collect(), ..Policies::default() }
    })
}

impl World {
    /// Three nodes that agree, known and published; the stream is attached.
    pub(crate) fn new(scenario: &'static Scenario) -> Self {
        let limits = Patience { silence: Duration::from_secs(9), hold: Duration::from_secs(9) };
        let addresses = (0..NODES).map(|n| Address::tcp(&format!("n{n}"), 1)).collect();
        let tracker = Rc::new(Tracker::new(addresses, Some(NodeId(0)), policies().clone(), limits));
        let server = |node: usize| Server {
            history: History::new(id(b'a')),
            log: Vec::new(),
            primary: node == 0,
            alive: true,
            link: Link::Up,
            follows: 0,
        };
        let fences = FenceTable::new(16, [1, 2, 3, 4]);
        let slots = [fences.slot(b"k0"), fences.slot(b"k1")];
        assert_ne!(slots[0], slots[1]);
        let published = Rc::new(tracker.view().clone());
        let mut world = Self {
            scenario,
            now: 10,
            servers: [server(0), server(1), server(2)],
            tracker,
            tracker_digest: 0,
            anchors_told: Vec::new(),
            published,
            published_digest: 0,
            fences,
            slots,
            anchors: 0,
            coverage: Coverage::default(),
            stream: None,
            reached: None,
            asked: [None; NODES],
            answered: [const { Vec::new() }; NODES],
            writes: vec![Phase::Idle; scenario.writes.len()],
            told: 0,
            proofs: Proofs::new(NODES),
            proof: None,
            session: Session::default(),
            sticky: None,
            saw: [0; KEYS],
            saw_all: 0,
            last: None,
            arrived: None,
            left: scenario.left,
            served: 0,
        };
        if scenario.own {
            world.session.seen.begin_with_own();
        }
        for node in 0..NODES {
            world.question(node, true);
            world.answer(node);
            world.deliver(node);
            world.publish();
        }
        world.question(0, false);
        world.answer(0);
        world.deliver(0);
        world.publish();
        if let Some(source) = scenario.source {
            world.attach(source);
        }
        for action in scenario.before {
            world.step(*action).expect("the beginning breaks nothing");
        }
        world
    }

    fn counter(&self) -> AnchorCounter {
        let counter = AnchorCounter::default();
        for _ in 0..self.anchors {
            let _ = counter.take();
        }
        counter
    }

    fn next(&self) -> AnchorSeq {
        self.counter().next()
    }

    /// No two questions are of one moment.
    fn now(&self) -> Moment {
        Moment::from_nanos(self.now * 1_000_000 + self.anchors)
    }

    /// What tells this world from others.
    pub(crate) fn fingerprint(&self) -> u64 {
        let marks = (
            self.fences.floor(),
            self.slots.map(|slot| self.fences.load(slot)),
            self.fences.life(),
            self.fences.passed(self.published.era),
            self.fences.passed(self.tracker.view().era),
        );
        let net = (&self.asked, &self.answered, &self.proof, self.sticky, &self.session, self.left);
        let proofs = (self.proofs.proven(), self.proofs.may_try());
        let truth = (&self.servers, &self.writes, self.told, self.saw, self.saw_all, self.last);
        let views = (self.tracker_digest, &self.anchors_told, self.published_digest, self.now, self.anchors);
        let stream = (&self.coverage, self.stream, self.reached);
        let read = self.arrived.as_ref().map(|r| (r.level, r.key, r.barrier, r.view_digest, r.owed));
        digest(&((marks, net, proofs, truth), (views, stream, read)))
    }

    fn primary(&self) -> usize {
        // The last promoted one.
        let promoted = (0..NODES).find(|n| self.servers[*n].primary && *n != 0);
        promoted.unwrap_or(0)
    }

    /// What can happen now.
    pub(crate) fn actions(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        for (index, write) in self.scenario.writes.iter().enumerate() {
            match self.writes[index] {
                Phase::Idle if self.target(write).is_some() => actions.push(Action::Execute(index)),
                Phase::Executed => actions.push(Action::Acknowledge(index)),
                Phase::Idle | Phase::Acked(_) => {}
            }
        }
        for node in 0..NODES {
            self.actions_of(node, &mut actions);
        }
        if self.published_digest != self.tracker_digest {
            actions.push(Action::Publish);
        }
        if let Some(stream) = self.stream
            && self.command_after(&stream).is_some()
        {
            actions.push(Action::Tell);
        }
        if self.proof.is_some() {
            actions.push(Action::TakeProof);
        }
        if self.arrived.is_some() {
            actions.push(Action::Leave);
        } else if self.left.arrivals > 0 {
            for level in self.scenario.arriving {
                actions.extend((0..KEYS).map(|key| Action::Arrive(*level, key)));
            }
        }
        if self.left.reads > 0 {
            for key in 0..KEYS {
                actions.extend((0..2).map(|tie| Action::Read(Consistency::Session, key, tie)));
            }
        }
        if self.left.moves > 0 && self.sticky.is_some() {
            actions.push(Action::Move);
        }
        if self.left.ticks > 0 {
            actions.push(Action::Tick);
        }
        actions
    }

    fn actions_of(&self, node: usize, actions: &mut Vec<Action>) {
        let (server, left) = (&self.servers[node], &self.left);
        let takes_part = node == 0 || self.scenario.replicas.contains(&node);
        if !takes_part {
            return;
        }
        if self.asked[node].is_some() {
            if server.alive && self.answered[node].is_empty() {
                actions.push(Action::Answer(node));
            }
        } else if left.questions > 0 && server.alive && self.answered[node].is_empty() {
            let known = &self.tracker.view().nodes[node];
            // An INFO that tells nothing new is like none, and so is the ROLE of a replica.
            let retold = known.history() == Some(server.history);
            if !retold {
                actions.push(Action::Question(node, true));
            }
            let applied = (server.link == Link::Up).then(|| server.head());
            let news = known.link != Some(server.link) || known.applied != applied;
            if server.primary || (news && retold) {
                actions.push(Action::Question(node, false));
            }
        }
        if !self.answered[node].is_empty() {
            actions.push(Action::Deliver(node));
        }
        if node == 0 {
            return;
        }
        if left.proofs > 0 && self.proof.is_none() {
            actions.push(Action::AskProof(node));
        }
        if left.promotions > 0 && node == 1 && server.link == Link::Up {
            actions.push(Action::Promote(node));
        }
        if self.stream.is_none() && left.attaches > 0 && server.link == Link::Up {
            actions.push(Action::Attach(node));
        }
        if server.primary {
            return;
        }
        let source = &self.servers[server.follows];
        match server.link {
            Link::Up if source.alive && source.log.len() > server.log.len() => {
                actions.push(Action::Apply(node));
            }
            Link::Down => actions.push(Action::Follow(node)),
            Link::Syncing if source.alive => actions.push(Action::Synced(node)),
            Link::Up | Link::Syncing => {}
        }
        if left.resyncs > 0 && server.link == Link::Up && source.alive {
            actions.push(Action::Resync(node));
        }
    }

    /// Where a write would go, if it would be taken.
    fn target(&self, write: &Write) -> Option<usize> {
        let node = match write.by {
            By::Direct => self.primary(),
            By::Reader | By::Other => self.published.usable_primary(self.now())?.index(),
        };
        let server = &self.servers[node];
        (server.primary && server.alive).then_some(node)
    }

    /// The next command that the stream has to tell, and where it ends.
    fn command_after(&self, stream: &Stream) -> Option<(u8, Offset)> {
        let server = &self.servers[stream.source];
        let told = (stream.known_to.bytes() - BASE) / WRITE_BYTES;
        let write = server.log.get(told as usize)?;
        (server.alive && server.link == Link::Up).then_some((*write, stream.known_to.advanced(WRITE_BYTES)))
    }

    /// Takes one step; `Err` says which promise it breaks.
    pub(crate) fn step(&mut self, action: Action) -> Result<(), String> {
        match action {
            Action::Execute(index) => self.execute(index),
            Action::Acknowledge(index) => self.acknowledge(index),
            Action::Question(node, inform) => {
                self.left.questions -= 1;
                self.poll(node, inform);
            }
            Action::Answer(node) => self.answer(node),
            Action::Deliver(node) => {
                self.deliver(node);
                if !self.scenario.fine {
                    self.publish();
                }
            }
            Action::Publish => self.publish(),
            Action::Apply(node) => {
                let (from, at) = (self.servers[node].follows, self.servers[node].log.len());
                let write = self.servers[from].log[at];
                self.servers[node].log.push(write);
                if !self.scenario.fine {
                    // What nobody is told of changes nothing but for the better.
                    self.poll(node, false);
                }
            }
            Action::Tell => self.tell(),
            Action::Attach(node) => {
                self.left.attaches -= 1;
                self.attach(node);
            }
            Action::AskProof(node) => {
                self.left.proofs -= 1;
                let server = &self.servers[node];
                if !server.primary {
                    let applied = (server.link == Link::Up).then(|| server.head());
                    self.proof = Some((node, server.link, address(server.follows), applied));
                }
            }
            Action::TakeProof => self.take_proof(),
            Action::Arrive(level, key) => {
                self.left.arrivals -= 1;
                self.arrived = Some(Arrived {
                    level,
                    key,
                    barrier: Barrier::new(self.next()),
                    view: Rc::clone(&self.published),
                    view_digest: self.published_digest,
                    owed: self.owed(level, key),
                });
            }
            Action::Leave => self.arrived = None,
            Action::Read(level, key, tie) => {
                self.left.reads -= 1;
                return self.read(level, key, tie);
            }
            Action::Move => {
                self.left.moves -= 1;
                self.move_on();
            }
            Action::Promote(node) => self.promote(node),
            Action::Follow(node) => self.follow(node),
            Action::Resync(node) => {
                self.left.resyncs -= 1;
                self.servers[node].link = Link::Syncing;
                self.detach(node);
            }
            Action::Synced(node) => {
                let from = self.servers[self.servers[node].follows].clone();
                let server = &mut self.servers[node];
                (server.log, server.link, server.history) =
                    (from.log, Link::Up, History::new(from.history.id));
            }
            Action::Tick => {
                self.left.ticks -= 1;
                self.now += 1;
            }
        }
        Ok(())
    }
}
