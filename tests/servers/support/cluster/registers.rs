//! Version registers over the slots of a cluster: clients write and read many keys each, alone and in pipelines, until they
//! are told to stop. All keys are there before they start and none is ever deleted, so that any nil is a false one.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::link::{Command, Link, Via};
use super::probes::{Presence, presence, some_probe};
use super::{Access, Cluster, Direct, SLOTS, key_in, slot};
use crate::support::checker::{self, History, Level, Read, Write};
use crate::support::resp::Value;
use crate::support::rng::Rng;

/// Sessions that have broken get the number of a new one, so much higher.
const NEXT_SESSION: usize = 1000;
/// Who wrote the first version of all keys.
const PRELOADER: usize = NEXT_SESSION - 1;
/// Commands in a pipeline, at most.
const PIPELINED: usize = 16;

/// What the clients do.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) via: Via,
    /// Where writers connect to instead.
    pub(crate) writers_via: Option<Via>,
    pub(crate) keys: Arc<Vec<String>>,
    /// The first so many are read and written as often as all others together.
    pub(crate) hot: usize,
    pub(crate) writers: usize,
    pub(crate) readers: usize,
    /// Between two pipelines of a writer.
    pub(crate) write_every: Duration,
    /// Between two pipelines of a reader.
    pub(crate) read_every: Duration,
}

impl Plan {
    /// Keys in these slots, some of each, and one in every 64th slot of all.
    pub(crate) fn over(via: Via, hot_slots: impl Iterator<Item = u16>, of_each: usize) -> Self {
        let mut keys: Vec<String> =
            hot_slots.flat_map(|slot| (0..of_each).map(move |n| key_in(slot, n))).collect();
        let hot = keys.len();
        keys.extend((0..SLOTS).step_by(64).map(|slot| key_in(slot, of_each)));
        Self {
            via,
            writers_via: None,
            keys: Arc::new(keys),
            hot,
            writers: 2,
            readers: 3,
            write_every: Duration::from_millis(4),
            read_every: Duration::from_millis(1),
        }
    }

    /// The same with writers that connect elsewhere.
    pub(crate) fn writing_via(self, via: Via) -> Self {
        Self { writers_via: Some(via), ..self }
    }

    /// Writes the first version of every key, waits until replicas have them, and starts the clients.
    pub(crate) fn start(self, cluster: &Cluster) -> Registers {
        let mut direct = Direct::new(&cluster.addresses(), Access::Primary);
        let mut history = History::default();
        for (n, key) in self.keys.iter().enumerate() {
            let invoked = Instant::now();
            assert_eq!(direct.cmd(key, &["SET", key, &checker::value(key, 1, "first")]), "OK");
            let acked = Some(Instant::now());
            history.writes.push(Write { key: n, version: 1, session: PRELOADER, invoked, acked });
        }
        cluster.await_sync();
        let (stop, reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let spawn = |n: usize| {
            let is_writer = n < self.writers;
            let via = self.writers_via.as_ref().filter(|_| is_writer).unwrap_or(&self.via);
            let client = Client {
                plan: self.clone(),
                via: via.clone(),
                n,
                session: n,
                link: None,
                stop: Arc::clone(&stop),
                reads: Arc::clone(&reads),
                rng: Rng::new(n as u64 + 1),
                outcome: Outcome::default(),
            };
            let work = if is_writer { Client::write } else { Client::read };
            thread::spawn(move || work(client))
        };
        let threads = (0..self.writers + self.readers).map(spawn).collect();
        Registers { keys: Arc::clone(&self.keys), stop, reads, threads, history }
    }
}

/// Clients at work.
pub(crate) struct Registers {
    keys: Arc<Vec<String>>,
    stop: Arc<AtomicBool>,
    reads: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Outcome>>,
    history: History,
}

impl Registers {
    /// How many reads were answered so far.
    pub(crate) fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// Waits for so many more reads.
    pub(crate) fn await_reads(&self, more: u64) {
        let target = self.reads() + more;
        crate::support::eventually("clients read", Duration::from_secs(30), || self.reads() >= target);
    }

    pub(crate) fn stop(mut self) -> Outcome {
        self.stop.store(true, Ordering::SeqCst);
        let history = std::mem::take(&mut self.history);
        let mut all = Outcome { keys: Arc::clone(&self.keys), history, ..Outcome::default() };
        for thread in self.threads.drain(..) {
            let one = thread.join().expect("a client of the registers failed");
            all.history.merge(one.history);
            all.errors.extend(one.errors);
            all.denied.extend(one.denied);
            all.probes += one.probes;
            all.own_missing.extend(one.own_missing);
        }
        all
    }
}

impl Drop for Registers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

/// A command that was answered with an error, with nonsense, or not at all.
#[derive(Clone, Debug)]
pub(crate) struct Failed {
    pub(crate) key: usize,
    pub(crate) at: Instant,
    pub(crate) text: String,
}

/// What the clients remember.
#[derive(Default, Debug)]
pub(crate) struct Outcome {
    pub(crate) keys: Arc<Vec<String>>,
    pub(crate) history: History,
    pub(crate) errors: Vec<Failed>,
    /// Reads other than of values, and those of them that deny a key.
    probes: usize,
    denied: Vec<Failed>,
    /// Reads that did not see a write that stood before them in the same pipeline.
    own_missing: Vec<String>,
}

/// What became of the reads.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) reads: usize,
    /// Nil for a key that was there, or whatever else denies it.
    pub(crate) false_nils: usize,
    /// Of the level; a false nil may be one of these, too.
    pub(crate) violations: usize,
    /// Reads that miss what somebody had been shown before its writer was told that it was done: no violation but of strong
    /// reads.
    pub(crate) early: usize,
    pub(crate) errors: usize,
    /// The first of everything, in words.
    pub(crate) first: String,
}

impl Tally {
    /// Fails unless there was something and nothing was wrong.
    pub(crate) fn assert_clean(&self) {
        let wrong = (self.false_nils, self.violations, self.errors);
        assert_eq!(wrong, (0, 0, 0), "false nils, violations and errors: {self:?}");
        assert!(self.reads > 100, "too little was read: {self:?}");
    }
}

impl Outcome {
    /// Takes out the errors of keys of which this is so.
    pub(crate) fn excuse(&mut self, is_excused: impl Fn(&str) -> bool) -> Vec<Failed> {
        let keys = Arc::clone(&self.keys);
        let (excused, left) = self.errors.drain(..).partition(|error| is_excused(&keys[error.key]));
        self.errors = left;
        excused
    }

    /// Holds every read against a level; `bound` counts from [`Level::Bounded`] up.
    pub(crate) fn judge(&self, level: Level, bound: Duration) -> Tally {
        let verdict = self.history.verify(level, bound);
        let nils: Vec<&Read> = self.history.reads.iter().filter(|read| read.version == 0).collect();
        let early = self.history.missing_what_was_shown_early();
        let own_missing = if level >= Level::Session { self.own_missing.len() } else { 0 };
        let name = |read: &Read| format!("{:?}: {read:?}", self.keys[read.key]);
        let broken = verdict.violations.first();
        let first = [
            broken.map(|violation| format!("{:?}, {violation:?}", self.keys[violation.read.key])),
            nils.first().map(|read| format!("nil of {}", name(read))),
            self.denied.first().map(|denied| format!("{:?} denied: {}", self.keys[denied.key], denied.text)),
            self.own_missing.first().map(|_| format!("{:?}", self.own_missing)),
            self.errors.first().map(|error| format!("{:?}: {}", self.keys[error.key], error.text)),
        ];
        let first = first.into_iter().flatten().collect::<Vec<_>>().join("; ");
        Tally {
            reads: self.history.reads.len() + self.probes,
            false_nils: nils.len() + self.denied.len(),
            violations: verdict.violations.len() + own_missing,
            early: early.len(),
            errors: self.errors.len(),
            first,
        }
    }
}

struct Client {
    plan: Plan,
    via: Via,
    n: usize,
    session: usize,
    link: Option<Link>,
    stop: Arc<AtomicBool>,
    reads: Arc<AtomicU64>,
    rng: Rng,
    outcome: Outcome,
}

impl Client {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::SeqCst)
    }

    /// Some key, every other time a hot one.
    fn some_key(&mut self) -> usize {
        let (hot, all) = (self.plan.hot, self.plan.keys.len());
        if hot > 0 && self.rng.below(2) == 0 { self.rng.below(hot) } else { self.rng.below(all) }
    }

    /// A key that nobody else writes.
    fn own_key(&mut self) -> usize {
        let (writers, all) = (self.plan.writers, self.plan.keys.len());
        (self.some_key() / writers * writers + self.n).min((all / writers - 1) * writers + self.n)
    }

    /// One, or as many as fit into a pipeline.
    fn length(&mut self) -> usize {
        if self.rng.below(2) == 0 { 1 } else { 1 + self.rng.below(PIPELINED) }
    }

    /// Writes keys and reads each right after.
    fn write(mut self) -> Outcome {
        let (mut versions, writer) = (HashMap::new(), format!("w{}", self.n));
        while self.goes_on() {
            let mut keys: Vec<usize> = (0..self.length()).map(|_| self.own_key()).collect();
            keys.sort_unstable();
            keys.dedup();
            let mut commands = Vec::new();
            for n in &keys {
                let key = self.plan.keys[*n].clone();
                let version = versions.entry(*n).or_insert(1_u64);
                *version += 1;
                commands.push(Command::new(&key, &["SET", &key, &checker::value(&key, *version, &writer)]));
                commands.push(Command::new(&key, &["GET", &key]));
            }
            let (session, start) = (self.session, Instant::now());
            let replies = self.run(&commands);
            for (n, (pair, ends)) in keys.iter().zip(replies.chunks(2).map(|pair| (&pair[0], &pair[1]))) {
                let acked = matches!(&pair.1, Ok(reply) if *reply == "OK").then_some(pair.0);
                let version = versions[n];
                let write = Write { key: *n, version, session, invoked: start, acked };
                self.outcome.history.writes.push(write);
                if acked.is_none() {
                    self.failed(*n, &pair.1);
                }
                let seen = self.note(*n, session, start, ends);
                if acked.is_some() && seen.is_some_and(|seen| seen < version) {
                    let (key, took) = (&self.plan.keys[*n], start.elapsed());
                    let what = format!("{key}: {seen:?} behind {version} of {} in {took:?}", keys.len());
                    self.outcome.own_missing.push(what);
                }
            }
            thread::sleep(self.plan.write_every);
        }
        self.outcome
    }

    /// Reads keys, one by one or many in one command, or only whether they are there.
    fn read(mut self) -> Outcome {
        while self.goes_on() {
            let keys: Vec<usize> = (0..self.length()).map(|_| self.some_key()).collect();
            match self.rng.below(4) {
                0 if matches!(self.via, Via::Proxy(_)) => {
                    let keys = if self.rng.below(2) == 0 { keys } else { self.neighbours() };
                    self.read_together(&keys);
                }
                1 => self.probe(&keys),
                _ => self.read_each(&keys),
            }
            thread::sleep(self.plan.read_every);
        }
        self.outcome
    }

    fn read_each(&mut self, keys: &[usize]) {
        let get = |n: &usize| Command::new(&self.plan.keys[*n], &["GET", &self.plan.keys[*n]]);
        let commands: Vec<Command> = keys.iter().map(get).collect();
        let (session, start) = (self.session, Instant::now());
        let replies = self.run(&commands);
        for (n, reply) in keys.iter().zip(&replies) {
            self.note(*n, session, start, reply);
        }
    }

    /// Some of one slot.
    fn neighbours(&mut self) -> Vec<usize> {
        let first = self.some_key();
        let hash_slot = slot(&self.plan.keys[first]);
        (first..self.plan.keys.len()).take_while(|n| slot(&self.plan.keys[*n]) == hash_slot).take(4).collect()
    }

    /// MGET, or EXISTS, over whatever slots.
    fn read_together(&mut self, keys: &[usize]) {
        let name = if self.rng.below(3) == 0 { "EXISTS" } else { "MGET" };
        let words = keys.iter().map(|n| self.plan.keys[*n].clone());
        let words = [name.to_owned()].into_iter().chain(words).collect();
        let command = Command { key: self.plan.keys[keys[0]].clone(), words };
        let (session, start) = (self.session, Instant::now());
        let (end, reply) = self.run(&[command]).remove(0);
        match reply {
            Ok(Value::Array(values)) if values.len() == keys.len() => {
                for (n, value) in keys.iter().zip(values) {
                    self.note(*n, session, start, &(end, Ok(value)));
                }
            }
            Ok(Value::Int(count)) if name == "EXISTS" => {
                self.outcome.probes += 1;
                if count != keys.len() as i64 {
                    self.denied(keys[0], format!("EXISTS of {} keys: {count}", keys.len()));
                }
            }
            reply => self.failed(keys[0], &reply),
        }
    }

    fn probe(&mut self, keys: &[usize]) {
        let mut commands = Vec::new();
        for n in keys {
            let key = self.plan.keys[*n].clone();
            let words = some_probe(&mut self.rng, &key);
            commands.push(Command { key, words });
        }
        let replies = self.run(&commands);
        for ((n, command), (_, reply)) in keys.iter().zip(&commands).zip(&replies) {
            match presence(&command.words[0], reply) {
                Presence::There => self.outcome.probes += 1,
                Presence::Absent => self.denied(*n, format!("{:?}", command.words)),
                Presence::Failed => self.failed(*n, reply),
            }
        }
    }

    fn denied(&mut self, key: usize, text: String) {
        self.outcome.denied.push(Failed { key, at: Instant::now(), text });
    }

    /// The version that a read shows, if it is an answer.
    fn note(
        &mut self,
        n: usize,
        session: usize,
        start: Instant,
        (end, reply): &(Instant, io::Result<Value>),
    ) -> Option<u64> {
        let version = match reply {
            Ok(Value::Null) => Some(0),
            Ok(Value::Bulk(bytes)) => checker::version(&self.plan.keys[n], &String::from_utf8_lossy(bytes)),
            _ => None,
        };
        match version {
            Some(version) => {
                self.reads.fetch_add(1, Ordering::Relaxed);
                self.outcome.history.reads.push(Read { key: n, session, start, end: *end, version });
            }
            None => self.failed(n, reply),
        }
        version
    }

    fn failed(&mut self, key: usize, reply: &io::Result<Value>) {
        self.outcome.errors.push(Failed { key, at: Instant::now(), text: format!("{reply:?}") });
    }

    /// Runs commands, and says when they were answered; connects first when there is no connection.
    fn run(&mut self, commands: &[Command]) -> Vec<(Instant, io::Result<Value>)> {
        let mut link = match self.link.take().map_or_else(|| Link::open(&self.via), Ok) {
            Ok(link) => link,
            Err(error) => {
                let error = || Err(error.kind().into());
                thread::sleep(Duration::from_millis(20));
                return commands.iter().map(|_| (Instant::now(), error())).collect();
            }
        };
        let replies = link.run(commands);
        let end = Instant::now();
        if replies.iter().all(Result::is_ok) {
            self.link = Some(link);
        } else {
            self.session += NEXT_SESSION;
        }
        replies.into_iter().map(|reply| (end, reply)).collect()
    }
}

mod tests {
    use super::*;

    #[test]
    fn an_older_version_than_was_shown_is_told() {
        let now = Instant::now();
        let at = |ms: u64| now + Duration::from_millis(ms);
        let read = |session, ms, version| Read { key: 0, session, start: at(ms), end: at(ms + 1), version };
        let write = |version, ms| Write { key: 0, version, session: 1, invoked: at(ms), acked: None };
        let history = History {
            writes: vec![write(1, 0), write(2, 5)],
            reads: vec![read(1, 10, 2), read(2, 10, 1), read(3, 20, 1), read(4, 30, 0)],
        };
        let outcome = Outcome { keys: Arc::new(vec!["k".to_owned()]), history, ..Outcome::default() };
        let tally = outcome.judge(Level::Strong, Duration::ZERO);
        assert_eq!(
            (tally.reads, tally.false_nils, tally.violations, tally.errors),
            (4, 1, 2, 0),
            "{tally:?}"
        );
        assert_eq!(outcome.judge(Level::Fenced, Duration::ZERO).violations, 0);
    }
}
