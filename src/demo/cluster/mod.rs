//! `redweir demo --cluster`: a real Redis Cluster with Redweir before it, and clients that take it for one server, while slots
//! move and a primary dies.
//!
//! Every key is written before anybody reads, and none is ever deleted: whoever finds nothing has got a false answer. So do
//! clients that read straight at the replicas of a slot that moves, which is done for comparison.

mod moves;
mod nodes;
mod report;
mod straight;

use std::future::Future;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis_protocol::resp2::types::BytesFrame;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::MissedTickBehavior;

use super::say;
use super::servers::{DemoFolder, free_port, local};
use super::workload::{self, Tally};
use crate::app::Proxy;
use crate::config::Config;
use crate::core::moment::in_words;
use crate::core::slots::{HASH_SLOTS, HashSlot};
use crate::net::runtime::clock;
use crate::net::runtime::task;
use crate::net::socket::call::ControlLink;
use crate::net::socket::dial::Dialer;
use crate::net::socket::handed::Handed;
use moves::Mover;
use nodes::{Nodes, SHARDS, slots};
use report::{Answers, Counts, Moved, Takeover};
use straight::Straight;

/// Runs the demo, whose three acts take about `seconds`.
pub fn run(seconds: Option<u64>) -> anyhow::Result<()> {
    let home = DemoFolder::create()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut interrupts = {
        let _context = runtime.enter();
        Interrupts::new()?
    };
    say("A Redis Cluster of three primaries and three replicas is formed …");
    let nodes = Nodes::spawn(&home)?;
    if runtime.block_on(interrupts.or(nodes.form())).transpose()?.is_none() {
        return Ok(());
    }
    let (listen, admin) = (free_port()?, free_port()?);
    let proxy = Proxy::start(configuration(&nodes, listen, admin)?, Handed::default())?;
    introduce(&nodes, listen, admin);
    let stage = Stage {
        nodes: &nodes,
        listen,
        groups: keys().map(|keys| Arc::new(Tally::of(keys))),
        slots_moved: AtomicU64::new(0),
        answers: Answers::default(),
    };
    let outcome = runtime.block_on(interrupts.or(stage.play(seconds.unwrap_or(SECONDS)))).transpose()?;
    say("");
    if let Some((moved, takeover)) = outcome {
        moved.tell();
        takeover.tell();
    }
    let kept = report::conclude(&stage.groups, &stage.answers);
    // Clients that are gone need not be waited for.
    runtime.shutdown_background();
    proxy.stop();
    kept
}

/// Ctrl-C, and what else means that it is enough.
struct Interrupts([Signal; 3]);

impl Interrupts {
    /// To be called within a runtime.
    fn new() -> std::io::Result<Self> {
        let [interrupt, terminate, hangup] =
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
        Ok(Self([interrupt?, terminate?, hangup?]))
    }

    /// What comes of a future; `None` if it was interrupted.
    async fn or<T>(&mut self, what: impl Future<Output = T>) -> Option<T> {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            done = what => Some(done),
            _ = interrupt.recv() => None,
            _ = terminate.recv() => None,
            _ = hangup.recv() => None,
        }
    }
}

/// Redweir is told of two nodes, and finds the others.
fn configuration(nodes: &Nodes, listen: u16, admin: u16) -> anyhow::Result<Config> {
    let known = [nodes.primary(0).port, nodes.replica(1).port];
    let text = format!(
        "[[listen]]\naddress = \"127.0.0.1:{listen}\"\n[admin]\naddress = \"127.0.0.1:{admin}\"\n\
         [proxy]\ndrain-timeout = \"1s\"\n[upstream]\nwrite-hold = \"{}s\"\n\
         [upstream.cluster]\naddresses = [\"127.0.0.1:{}\", \"127.0.0.1:{}\"]\n",
        WRITE_HOLD.as_secs(),
        known[0],
        known[1],
    );
    Ok(Config::parse(&text, Path::new("demo.toml"))?)
}

fn introduce(nodes: &Nodes, listen: u16, admin: u16) {
    for shard in 0..SHARDS {
        let (slots, number) = (slots(shard), shard + 1);
        say(&format!(
            "primary-{number} 127.0.0.1:{}, replica-{number} 127.0.0.1:{}: slots {} to {}",
            nodes.primary(shard).port,
            nodes.replica(shard).port,
            slots.start,
            slots.end - 1,
        ));
    }
    say(&format!(
        "redweir   127.0.0.1:{listen} (policy: fenced, max-lag 1s, write-hold {WRITE_HOLD:?}), dashboard \
         http://127.0.0.1:{admin}/"
    ));
    say(&format!("All clients connect to 127.0.0.1:{listen}, and know nothing of a cluster."));
}

/// The keys of the four groups: two in every slot.
fn keys() -> [Vec<String>; GROUPS] {
    let mut left = vec![KEYS_PER_SLOT; usize::from(HASH_SLOTS)];
    let mut missing = left.len() * KEYS_PER_SLOT;
    let mut groups = [const { Vec::new() }; GROUPS];
    for key in (0..).map(|n| format!("key:{n}")) {
        let slot = HashSlot::of(key.as_bytes());
        let left = &mut left[slot.index()];
        if *left > 0 {
            (*left, missing) = (*left - 1, missing - 1);
            groups[group(slot.number())].push(key);
        }
        if missing == 0 {
            break;
        }
    }
    groups
}

/// The group of a slot: that of its shard, but for those that move.
fn group(slot: u16) -> usize {
    if MOVES.contains(&slot) {
        return MOVING;
    }
    (0..SHARDS).find(|shard| slots(*shard).contains(&slot)).unwrap_or_default()
}

/// What the demo plays with.
struct Stage<'a> {
    nodes: &'a Nodes,
    listen: u16,
    /// What was read and written of each group of keys.
    groups: [Arc<Tally>; GROUPS],
    slots_moved: AtomicU64,
    answers: Answers,
}

impl Stage<'_> {
    /// Plays all acts.
    ///
    /// Cancel safe: it only prints, starts clients, and moves slots and kills servers, all of which end with the demo.
    async fn play(&self, seconds: u64) -> anyhow::Result<(Moved, Takeover)> {
        self.load().await?;
        for tally in &self.groups {
            let (proxy, keys) = (local(self.listen), 0..tally.keys().len());
            task::spawn("writer", workload::write(proxy.clone(), Arc::clone(tally), keys));
            for _ in 0..READERS {
                task::spawn("reader", workload::read(proxy.clone(), Arc::clone(tally)));
            }
        }
        let third = Duration::from_secs(seconds.max(6)) / 3;
        let pause = async {
            tokio::time::sleep(third).await;
            Ok(())
        };
        self.act("Nothing moves: nearly all reads are answered by replicas.", pause).await?;
        let moved = self.move_slots(third).await?;
        let takeover = self.kill(third).await?;
        Ok((moved, takeover))
    }

    /// Writes every key once.
    async fn load(&self) -> anyhow::Result<()> {
        let mut link = ControlLink::connect(&Dialer::default(), &local(self.listen), None, WITHIN).await?;
        let version = workload::LOADED.to_string();
        for tally in &self.groups {
            for keys in tally.keys().chunks(LOADED_AT_ONCE) {
                let sets = keys.iter().map(|key| [&b"SET"[..], key.as_bytes(), version.as_bytes()]);
                let sets: Vec<[&[u8]; 3]> = sets.collect();
                let sets: Vec<&[&[u8]]> = sets.iter().map(|set| &set[..]).collect();
                for answer in link.call_many(&sets, WITHIN).await? {
                    anyhow::ensure!(
                        answer == BytesFrame::SimpleString("OK".into()),
                        "SET answers {answer:?}"
                    );
                }
            }
            tally.loaded();
        }
        Ok(())
    }

    /// The second act.
    async fn move_slots(&self, over: Duration) -> anyhow::Result<Moved> {
        let tally = &self.groups[MOVING];
        let mover = Mover {
            from: self.nodes.primary(FROM),
            to: self.nodes.primary(TO),
            other: self.nodes.primary(OTHER),
            pace: over / (MOVES.len() * KEYS_PER_SLOT) as u32,
            moved: &self.slots_moved,
        };
        let replicas = [self.nodes.replica(FROM), self.nodes.replica(TO)];
        let counted = || [&tally.reads, &tally.nils].map(|count| count.load(Ordering::Relaxed));
        let (straight, before) = (Straight::default(), counted());
        let moving = async {
            let began = clock::now();
            let keys = mover.run(MOVES).await?;
            let took = clock::now().since(began);
            // Until all nodes have heard of the last ones.
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok((keys, took))
        };
        let compared = async {
            tokio::select! {
                done = moving => done,
                ended = straight.read(replicas, tally.keys()) => ended.map(|never| match never {}),
            }
        };
        let title = format!("{} slots move from primary-1 to primary-2, key by key.", MOVES.len());
        let (keys, took) = self.act(&title, Box::pin(compared)).await?;
        let now = counted();
        let (reads, nils) = (now[0] - before[0], now[1] - before[1]);
        Ok(Moved { slots: MOVES.len(), keys, took, reads, nils, straight })
    }

    /// The third act: the primary that has the slots now that moved is killed.
    async fn kill(&self, and_then: Duration) -> anyhow::Result<Takeover> {
        self.groups.iter().for_each(|tally| tally.longest_write_ms.store(0, Ordering::Relaxed));
        self.nodes.primary(TO).kill()?;
        let killed = clock::now();
        let successor = self.nodes.replica(TO);
        let act = async {
            // What was acknowledged is told of by now, and nobody can have taken over.
            tokio::time::sleep(nodes::NODE_TIMEOUT / 4).await;
            let lost = self.lost().await?;
            let is_primary = |answer: &BytesFrame| nodes::text(answer).contains("role:master");
            nodes::until("is a primary", successor, &[b"INFO", b"replication"], is_primary).await?;
            let after = clock::now().since(killed);
            say(&format!("  replica-2 has been made a primary after {}", in_words(after)));
            tokio::time::sleep(and_then).await;
            Ok((after, lost))
        };
        let title = "primary-2 is killed (kill -9): its shard waits until the others have elected its replica, and they go on.";
        let (after, lost) = self.act(title, act).await?;
        let longest = |groups: [usize; 2]| {
            let longest = groups.map(|group| self.groups[group].longest_write_ms.load(Ordering::Relaxed));
            Duration::from_millis(longest.into_iter().max().unwrap_or(0))
        };
        Ok(Takeover { after, lost, waited: longest(KILLED), waited_elsewhere: longest([FROM, OTHER]) })
    }

    /// How many keys have lost what was acknowledged: what the killed primary had not replicated.
    async fn lost(&self) -> anyhow::Result<usize> {
        let mut link = self.nodes.replica(TO).link().await?;
        link.call(&[b"READONLY"], WITHIN).await?;
        let mut lost = 0;
        for tally in KILLED.map(|group| &self.groups[group]) {
            let keys: Vec<&String> = tally.keys().iter().collect();
            let left = straight::values(&mut link, &keys).await?;
            let left: Vec<u64> = left.iter().map(workload::version).collect();
            lost += tally.lose(&left).len();
        }
        Ok(lost)
    }

    /// Prints a line per second of what goes on until `what` is done.
    async fn act<T>(&self, title: &str, what: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        say(&format!("\n{title}\n{}", report::HEAD));
        let mut before = Counts::of(self.nodes).await?;
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        tokio::pin!(what);
        loop {
            let done = tokio::select! {
                done = &mut what => Some(done),
                _ = ticks.tick() => None,
            };
            let now = Counts::of(self.nodes).await?;
            let shards = now.since(&before);
            self.answers.add(&shards);
            if let Some(done) = done {
                return done;
            }
            say(&report::row(&shards, self.slots_moved.load(Ordering::Relaxed), &self.groups));
            before = now;
        }
    }
}

/// How long the acts take, as far as that is not up to the servers.
const SECONDS: u64 = 18;

/// Slots move from this shard …
const FROM: usize = 0;

/// … to this one, whose primary is killed then.
const TO: usize = 1;

const OTHER: usize = 2;

/// The slots that move: the last ones of theirs.
const MOVES: Range<u16> = 5261..5461;

/// A group of keys for each shard, and one for the slots that move.
const GROUPS: usize = SHARDS + 1;

/// The group of the slots that move.
const MOVING: usize = SHARDS;

/// The groups whose primary is killed.
const KILLED: [usize; 2] = [TO, MOVING];

const KEYS_PER_SLOT: usize = 2;

/// Of each group.
const READERS: usize = 2;

/// Longer than an election takes, and another one if that fails.
const WRITE_HOLD: Duration = Duration::from_secs(15);

const LOADED_AT_ONCE: usize = 500;
const WITHIN: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_has_its_keys_and_its_group() {
        let groups = keys();
        assert_eq!(groups.iter().map(Vec::len).sum::<usize>(), usize::from(HASH_SLOTS) * KEYS_PER_SLOT);
        assert_eq!(groups[MOVING].len(), MOVES.len() * KEYS_PER_SLOT);
        for (number, keys) in groups.iter().enumerate() {
            assert!(keys.iter().all(|key| group(HashSlot::of(key.as_bytes()).number()) == number));
        }
        assert!(MOVES.into_iter().all(|slot| slots(FROM).contains(&slot)));
    }
}
