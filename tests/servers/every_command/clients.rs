//! Clients that say anything to anyone, and write down what they said and heard, and when.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::grammar::{DATABASES, Fixed, Grammar, Judge, script};
use super::rig::PAST;
use super::wire::{Pipe, Words, items, text};
use crate::support::rng::Rng;
use crate::support::{encode, sleep_ms};

/// A command and its reply.
pub(crate) struct Call {
    pub(crate) argv: Words,
    pub(crate) judge: Judge,
    pub(crate) reply: Vec<u8>,
}

/// A command, or a transaction.
pub(crate) struct Unit {
    /// The connection: a number that no other one has.
    pub(crate) conn: usize,
    /// Through which proxy, or past all.
    pub(crate) via: usize,
    pub(crate) db: usize,
    pub(crate) resp3: bool,
    pub(crate) transaction: bool,
    /// Before the pipeline was sent, and when the reply was there.
    pub(crate) sent: Duration,
    pub(crate) end: Duration,
    pub(crate) calls: Vec<Call>,
}

/// What is about to be said.
enum Plan {
    Select(usize),
    One(Words, Judge),
    All(Vec<(Words, Judge)>),
}

/// What a client does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Any,
    /// It only writes, anything.
    Write,
    /// It looks at what looks alike, and changes it through a connection to this port.
    Alike {
        side: u16,
    },
}

/// Where a client talks to.
#[derive(Clone, Copy)]
pub(crate) struct Where {
    pub(crate) port: u16,
    pub(crate) via: usize,
    /// Reads go there instead.
    pub(crate) reads: Option<u16>,
    pub(crate) role: Role,
    pub(crate) resp3: bool,
    /// Whether it may come to nothing: connections are lost, and made anew.
    pub(crate) faults: bool,
}

struct Client {
    to: Where,
    grammar: Grammar,
    begun: Instant,
    calm: Arc<AtomicBool>,
    conn: usize,
    pipe: Pipe,
    reads: Option<Pipe>,
    db: usize,
    resp3: bool,
    subscribed: bool,
    /// Who changes things for it.
    side: Option<Box<Client>>,
    log: Vec<Unit>,
}

/// Clients that are talking.
pub(crate) struct Crowd {
    stop: Arc<AtomicBool>,
    calm: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Vec<Unit>>>,
}

impl Crowd {
    pub(crate) fn start(clients: &[Where], fixed: &Fixed, seed: u64, begun: Instant) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let calm = Arc::new(AtomicBool::new(false));
        let mut seeds = Rng::new(seed);
        let threads = clients.iter().map(|to| {
            let grammar = Grammar { rng: Rng::new(seeds.next()), fixed: fixed.clone() };
            let (to, stop) = (*to, Arc::clone(&stop));
            let calm = Arc::clone(&calm);
            thread::spawn(move || Client::open(to, grammar, begun, calm).unwrap().talk(&stop))
        });
        let threads = threads.collect();
        Self { stop, calm, threads }
    }

    /// Whether less is written from now on: replicas get a chance.
    pub(crate) fn calm(&self, calm: bool) {
        self.calm.store(calm, Ordering::Relaxed);
    }

    pub(crate) fn finish(self) -> Vec<Unit> {
        self.stop.store(true, Ordering::SeqCst);
        self.threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    }
}

impl Client {
    fn open(to: Where, grammar: Grammar, begun: Instant, calm: Arc<AtomicBool>) -> io::Result<Self> {
        static CONNECTIONS: AtomicUsize = AtomicUsize::new(0);
        let conn = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
        let (pipe, reads) = (Pipe::open(to.port)?, to.reads.map(Pipe::open).transpose()?);
        let (db, resp3, subscribed, log) = (0, false, false, Vec::new());
        let mut side = None;
        if let Role::Alike { side: port } = to.role {
            let to = Where { port, via: PAST, role: Role::Write, ..to };
            let grammar = Grammar { rng: Rng::new(0), fixed: grammar.fixed.clone() };
            side = Some(Box::new(Self::open(to, grammar, begun, Arc::clone(&calm))?));
        }
        let mut client =
            Self { to, grammar, begun, calm, conn, pipe, reads, db, resp3, subscribed, side, log };
        client.greet()?;
        Ok(client)
    }

    fn greet(&mut self) -> io::Result<()> {
        if self.to.resp3 {
            self.plain(&["HELLO", "3"])?;
            self.resp3 = true;
        }
        Ok(())
    }

    fn talk(mut self, stop: &AtomicBool) -> Vec<Unit> {
        while !stop.load(Ordering::SeqCst) {
            if let Err(error) = self.round() {
                assert!(self.to.faults, "the connection broke: {error}");
                self.again(stop);
            }
            let pause = match self.to.role {
                Role::Any | Role::Alike { .. } => 0,
                Role::Write if self.is_calm() => 20,
                Role::Write => 3,
            };
            sleep_ms(pause + self.grammar.rng.below(4) as u64);
        }
        self.log
    }

    /// Another connection: another session.
    fn again(&mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::SeqCst) {
            let rng = Rng::new(self.grammar.rng.next());
            let grammar = Grammar { rng, fixed: self.grammar.fixed.clone() };
            if let Ok(mut other) = Self::open(self.to, grammar, self.begun, Arc::clone(&self.calm)) {
                other.log = std::mem::take(&mut self.log);
                *self = other;
                return;
            }
            sleep_ms(10);
        }
    }

    fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    fn round(&mut self) -> io::Result<()> {
        match self.to.role {
            Role::Any => {}
            Role::Write => return self.write_something(),
            Role::Alike { .. } => return self.look_alike_aside(),
        }
        match self.grammar.rng.below(100) {
            0..=7 => {
                let transaction = self.transaction();
                self.exchange(vec![transaction])
            }
            8..=19 => self.motif(),
            20..=22 => {
                let db = self.some_database();
                self.exchange(vec![Plan::Select(db)])
            }
            23 if self.reads.is_none() => self.subscribe_or_reset(),
            24..=34 if self.subscribed => self.subscribe_or_reset(),
            _ => {
                let length = 1 + self.grammar.rng.below(8);
                let plans = (0..length).map(|_| self.plan()).collect();
                self.exchange(plans)
            }
        }
    }

    fn some_database(&mut self) -> usize {
        if self.grammar.one_in(2) { 0 } else { self.grammar.rng.below(DATABASES) }
    }

    fn plan(&mut self) -> Plan {
        if self.grammar.one_in(30) {
            return Plan::Select(self.some_database());
        }
        if self.grammar.one_in(30) {
            return self.transaction();
        }
        let calm = self.is_calm();
        let write = self.grammar.one_in(if calm { 100 } else { 8 });
        let (words, judge) = self.grammar.command(write);
        Plan::One(words, judge)
    }

    fn transaction(&mut self) -> Plan {
        let (length, only_reads) = (1 + self.grammar.rng.below(4), self.is_calm() || self.grammar.one_in(3));
        let call = |_| {
            let write = !only_reads && self.grammar.one_in(2);
            self.grammar.command(write)
        };
        let mut calls: Vec<_> = (0..length).map(call).collect();
        // Redis 7.0 puts the message to who both publishes and listens in the middle of the reply.
        calls.retain(|(argv, _)| argv[0] != b"PUBLISH");
        Plan::All(calls)
    }

    fn write_something(&mut self) -> io::Result<()> {
        let plan = match self.grammar.rng.below(12) {
            0 => self.transaction(),
            1 => Plan::Select(self.some_database()),
            2 | 3 => one("SET c0 <v>", &mut self.grammar, Judge::Write),
            _ => {
                let (words, judge) = self.grammar.command(true);
                Plan::One(words, judge)
            }
        };
        self.exchange(vec![plan])
    }

    /// What has gone wrong before, and hardly happens by chance.
    fn motif(&mut self) -> io::Result<()> {
        let (w, r) = (Judge::Write, Judge::Exact);
        let sly = ["EVAL_RO", script("<sly-get-script>"), "0"].map(|word| word.as_bytes().to_vec()).to_vec();
        let g = &mut self.grammar;
        let steps = match g.rng.below(6) {
            // A write that shows what another key holds.
            0 | 1 => vec![one("COPY c0 c1 REPLACE", g, w), one("GET c1", g, r), one("GET c0", g, r)],
            2 => vec![one("SET s0 <v>", g, w), Plan::One(sly, r)],
            3 => vec![one("GET c0", g, r), one("GET c0", g, r), one("MGET c1 c0", g, r)],
            4 if self.to.reads.is_none() => return self.look_back(),
            _ => vec![
                Plan::All(vec![(words("GET c0", g), r), (words("HGET m0 f2", g), r)]),
                one("GET c0", g, r),
                one("HGET m0 f2", g, r),
            ],
        };
        if self.grammar.one_in(2) {
            return self.exchange(steps);
        }
        for step in steps {
            self.exchange(vec![step])?;
            sleep_ms(self.grammar.rng.below(4) as u64);
        }
        Ok(())
    }

    /// Reads of one key that answer the same, and mean different things. The second one is asked for the first time when
    /// its answer has just changed, past the proxy, while a write of our own keeps reads away from replicas: what it shows
    /// is newer than what the first one has shown.
    fn look_alike(&mut self, side: &mut Self) -> io::Result<()> {
        let field = format!("f{}", 2 + self.to.via);
        let say = |client: &mut Self, text: &str, judge| {
            let plan = one(text, &mut client.grammar, judge);
            client.exchange(vec![plan])
        };
        say(side, &format!("HDEL m0 {field}"), Judge::Write)?;
        sleep_ms(90);
        say(self, "HSET m0 f1 1 f0 <v>", Judge::Write)?;
        for _ in 0..2 + self.grammar.rng.below(5) {
            say(self, "HEXISTS m0 f1", Judge::Exact)?;
            sleep_ms(self.grammar.rng.below(3) as u64);
        }
        say(side, &format!("HSET m0 {field} <v>"), Judge::Write)?;
        for _ in 0..30 {
            say(self, &format!("HEXISTS m0 {field}"), Judge::Exact)?;
            sleep_ms(self.grammar.rng.below(3) as u64);
        }
        Ok(())
    }

    /// A write that shows what another key holds, which has just changed, past the proxy.
    fn look_over(&mut self, side: &mut Self) -> io::Result<()> {
        for _ in 0..5 {
            let change = one("SET c0 <v>", &mut side.grammar, Judge::Write);
            side.exchange(vec![change])?;
            let copy = one("COPY c0 c1 REPLACE", &mut self.grammar, Judge::Write);
            self.exchange(vec![copy])?;
            for _ in 0..3 {
                let read = one("GET c0", &mut self.grammar, Judge::Exact);
                self.exchange(vec![read])?;
            }
            sleep_ms(60);
        }
        Ok(())
    }

    fn look_alike_aside(&mut self) -> io::Result<()> {
        let mut side = self.side.take().expect("a connection aside");
        let done =
            if self.grammar.one_in(3) { self.look_over(&mut side) } else { self.look_alike(&mut side) };
        self.log.append(&mut side.log);
        self.side = Some(side);
        done
    }

    /// What was read while messages came is not forgotten with them.
    fn look_back(&mut self) -> io::Result<()> {
        if self.subscribed || !self.resp3 {
            return self.subscribe_or_reset();
        }
        self.exchange(vec![Plan::Select(0)])?;
        self.subscribe_or_reset()?;
        let reads = |grammar: &mut Grammar| {
            ["GET c0", "HGET m0 f2", "LRANGE l0 0 -1"].map(|text| one(text, grammar, Judge::Exact)).into()
        };
        for _ in 0..3 {
            let reads = reads(&mut self.grammar);
            self.exchange(reads)?;
            sleep_ms(self.grammar.rng.below(4) as u64);
        }
        self.subscribe_or_reset()?;
        let reads = reads(&mut self.grammar);
        self.exchange(reads)
    }

    fn subscribe_or_reset(&mut self) -> io::Result<()> {
        if self.resp3 && !self.subscribed {
            self.subscribed = true;
            let sent = self.begun.elapsed();
            self.pipe.send(&encode(&["SUBSCRIBE", "news"]))?;
            while text(items(self.pipe.frame()?)[0]) != b"subscribe" {}
            self.note(&["SUBSCRIBE", "news"], sent);
            return Ok(());
        }
        self.plain(&["RESET"])?;
        (self.db, self.resp3, self.subscribed) = (0, false, false);
        self.greet()
    }

    /// Says something that is not about data.
    fn plain(&mut self, words: &[&str]) -> io::Result<()> {
        let sent = self.begun.elapsed();
        for pipe in [Some(&mut self.pipe), self.reads.as_mut()].into_iter().flatten() {
            pipe.send(&encode(words))?;
            let reply = pipe.reply()?;
            if reply[0] == b'-' {
                return Err(io::Error::other(format!("{words:?}: {}", reply.escape_ascii())));
            }
        }
        self.note(words, sent);
        Ok(())
    }

    /// Writes down what is not judged, but tells how something came about.
    fn note(&mut self, words: &[&str], sent: Duration) {
        let argv = words.iter().map(|word| word.as_bytes().to_vec()).collect();
        let calls = vec![Call { argv, judge: Judge::Chance, reply: Vec::new() }];
        let (end, Self { conn, db, resp3, to, .. }) = (self.begun.elapsed(), &*self);
        let unit =
            Unit { conn: *conn, via: to.via, db: *db, resp3: *resp3, transaction: false, sent, end, calls };
        self.log.push(unit);
    }

    fn exchange(&mut self, plans: Vec<Plan>) -> io::Result<()> {
        if self.reads.is_none() {
            return self.say_all(plans);
        }
        for plan in plans {
            let is_read = matches!(&plan, Plan::One(_, judge) if *judge != Judge::Write);
            let other = self.reads.take().expect("a second connection");
            if let Plan::Select(db) = plan {
                self.reads = Some(other);
                self.plain(&["SELECT", &db.to_string()])?;
                self.db = db;
            } else if is_read {
                let first = std::mem::replace(&mut self.pipe, other);
                let done = self.say_all(vec![plan]);
                self.reads = Some(std::mem::replace(&mut self.pipe, first));
                done?;
            } else {
                let done = self.say_all(vec![plan]);
                self.reads = Some(other);
                done?;
            }
        }
        Ok(())
    }

    /// One pipeline.
    fn say_all(&mut self, plans: Vec<Plan>) -> io::Result<()> {
        let mut bytes = Vec::new();
        for plan in &plans {
            match plan {
                Plan::Select(db) => bytes.extend(encode(&["SELECT", &db.to_string()])),
                Plan::One(argv, _) => bytes.extend(encode(argv)),
                Plan::All(calls) => {
                    bytes.extend(encode(&["MULTI"]));
                    bytes.extend(calls.iter().flat_map(|(argv, _)| encode(argv)));
                    bytes.extend(encode(&["EXEC"]));
                }
            }
        }
        let sent = self.begun.elapsed();
        self.pipe.send(&bytes)?;
        for plan in plans {
            let (transaction, calls) = match plan {
                Plan::Select(db) => {
                    let reply = self.pipe.reply()?;
                    if reply != b"+OK\r\n" {
                        return Err(io::Error::other(format!("SELECT: {}", reply.escape_ascii())));
                    }
                    self.db = db;
                    continue;
                }
                Plan::One(argv, judge) => {
                    let reply = self.pipe.reply()?;
                    (false, vec![Call { argv, judge, reply }])
                }
                Plan::All(calls) => (true, self.executed(calls)?),
            };
            let (end, Self { conn, db, resp3, to, .. }) = (self.begun.elapsed(), &*self);
            let unit =
                Unit { conn: *conn, via: to.via, db: *db, resp3: *resp3, transaction, sent, end, calls };
            self.log.push(unit);
        }
        Ok(())
    }

    /// The replies to a transaction; none if it was not executed.
    fn executed(&mut self, calls: Vec<(Words, Judge)>) -> io::Result<Vec<Call>> {
        for _ in 0..=calls.len() {
            self.pipe.reply()?;
        }
        let all = self.pipe.reply()?;
        let replies = items(&all);
        if replies.len() != calls.len() {
            return Ok(Vec::new());
        }
        let call =
            |((argv, judge), reply): ((Words, Judge), &&[u8])| Call { argv, judge, reply: reply.to_vec() };
        Ok(calls.into_iter().zip(&replies).map(call).collect())
    }
}

fn words(text: &str, grammar: &mut Grammar) -> Words {
    text.split(' ')
        .map(|word| if word == "<v>" { grammar.value() } else { word.as_bytes().to_vec() })
        .collect()
}

fn one(text: &str, grammar: &mut Grammar, judge: Judge) -> Plan {
    Plan::One(words(text, grammar), judge)
}
