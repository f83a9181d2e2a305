//! Each level against the version register, on real servers whose links lag: in quiet times, and while nodes are stopped,
//! cut off, put to sleep, resynchronised in full, restarted empty or with what they once had, given another history,
//! told to follow another node for a while, or promoted, in earnest or for a moment. Idle clients live through it.
//!
//! A failover may lose writes that were acknowledged and not replicated, which no level promises to prevent. So writers
//! pause around a promotion until the replicas have everything; readers go on. And while a new primary takes writes that
//! the proxy has not heard of yet, there are two of them: writers past the proxy wait until it has. And on a RESP2
//! connection to a replica that goes back nothing tells of it for a few milliseconds: such reads are counted apart.
//! Nothing else is excused.
//!
//! Short by default; `REDWEIR_SOAK_READS=n` goes on until there are so many reads in total (`make soak`).
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]
#![allow(clippy::print_stdout, reason = "how much was checked is what one wants to know")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::checker::{Level, Staleness, Violation};
use crate::support::load::{Load, Plan, speaks_resp3};
use crate::support::{
    Conn, Moved, Proxy, Redis, Setup, Topology, Watch, checker, eventually, ms, secs, sleep_ms,
};

/// A test of a soak ends by then, whatever the machine manages.
const SOAK_WITHIN: Duration = Duration::from_secs(270);
/// Of the two links.
const LAGS: [Duration; 2] = [ms(3), ms(40)];
/// How long a node or a link is out of order: longer than the proxy waits for an answer.
const TROUBLE: u64 = 450;
/// By how much a replica lags that another one is told to follow.
const FAR: Duration = ms(150);
/// How long a replica says that it is a primary, by mistake.
const MISTAKEN: u64 = 20;
/// For so long after a replica has gone back may a read on a RESP2 connection show what it has gone back to.
const UNTOLD: Duration = ms(20);

/// How many reads all tests have to make together, if it is a soak.
fn soak_reads() -> usize {
    std::env::var("REDWEIR_SOAK_READS")
        .map_or(0, |reads| reads.parse().expect("REDWEIR_SOAK_READS is a number"))
}

/// What the proxy promises, and what it is therefore held to.
#[derive(Clone, Copy)]
struct Promise {
    name: &'static str,
    /// For writes through the proxy.
    ours: Level,
    /// For writes straight to the primary.
    others: Level,
    bound: Duration,
    /// Of the reads of a soak, in quiet times and again under faults.
    percent: usize,
}

const BOUNDED: Promise =
    Promise { name: "bounded", ours: Level::Bounded, others: Level::Bounded, bound: ms(200), percent: 20 };
const SESSION: Promise =
    Promise { name: "session", ours: Level::Session, others: Level::Session, bound: secs(1), percent: 12 };
const FENCED: Promise =
    Promise { name: "fenced", ours: Level::Fenced, others: Level::Session, bound: secs(1), percent: 12 };
const STRONG: Promise =
    Promise { name: "strong", ours: Level::Strong, others: Level::Strong, bound: secs(1), percent: 6 };

/// What goes wrong.
#[derive(Clone, Copy, Debug)]
enum Fault {
    StopReplica,
    CutLink,
    ResetLink,
    SleepReplica,
    SleepPrimary,
    FullResync,
    NewHistory,
    RestartEmpty,
    /// It comes back with data saved long ago, and can't reach its primary at first.
    RestartOld,
    /// It follows the other replica, which lags.
    RepointChained,
    /// It follows a primary of other people, with old values of the same keys.
    RepointForeign,
    Promote,
    /// It says that it is a primary, and takes that back.
    BriefMaster,
}

impl Fault {
    const ALL: [Self; 13] = [
        Self::StopReplica,
        Self::CutLink,
        Self::ResetLink,
        Self::SleepReplica,
        Self::SleepPrimary,
        Self::FullResync,
        Self::NewHistory,
        Self::RestartEmpty,
        Self::RestartOld,
        Self::RepointChained,
        Self::RepointForeign,
        Self::Promote,
        Self::BriefMaster,
    ];
}

/// Servers, the proxy, and two loads: one writes through the proxy, the other past it. Both read through it.
struct Rig {
    promise: Promise,
    topology: Topology,
    proxy: Proxy,
    ours: Load,
    others: Load,
    /// A primary of other people, once there is one.
    foreign: Option<Redis>,
    started: Instant,
    struck: Vec<(Instant, Fault, usize)>,
    /// When a replica's data became other or older data while its connections lived on.
    moved: Vec<Moved>,
}

impl Rig {
    fn start(promise: Promise) -> Self {
        // What is written while a link is cut does not fit into the backlog, if a fault wants that.
        let topology = Topology::with(&["--repl-backlog-size", "64kb"], 2, &[]);
        let policy =
            format!("consistency = \"{}\"\nmax-lag = \"{}ms\"", promise.name, promise.bound.as_millis());
        let setup = Setup::of(&topology).policy("default", &policy).upstream("probe-timeout = \"300ms\"");
        let proxy = setup.start();
        for (n, lag) in LAGS.into_iter().enumerate() {
            topology.lag(n, lag);
        }
        let plan = Plan {
            keys: 4,
            readers: 6,
            idlers: 4,
            idle: ms(2 * TROUBLE),
            write_every: ms(15),
            read_every: ms(1),
            both_protocols: true,
            ..Plan::on(proxy.port)
        };
        let ours = Plan { writers_read: true, ..plan }.start();
        let others = plan.writing_to(topology.primary.port).start();
        Self {
            promise,
            topology,
            proxy,
            ours,
            others,
            foreign: None,
            started: Instant::now(),
            struck: Vec::new(),
            moved: Vec::new(),
        }
    }

    /// Whether a soak wants more.
    fn goes_on(&self) -> bool {
        let reads = self.ours.reads() + self.others.reads();
        (reads as usize) < soak_reads() * self.promise.percent / 100 && self.started.elapsed() < SOAK_WITHIN
    }

    /// Does something to a node or a link, and takes it back.
    fn strike(&mut self, fault: Fault, which: usize) {
        self.struck.push((Instant::now(), fault, which));
        let Topology { primary, replicas } = &mut self.topology;
        let replica = &mut replicas[which];
        let full_before = primary.stat("sync_full");
        match fault {
            Fault::StopReplica => {
                replica.pause();
                sleep_ms(TROUBLE);
                replica.resume();
            }
            Fault::CutLink => {
                replica.link.cut();
                sleep_ms(TROUBLE);
                replica.link.heal();
            }
            Fault::ResetLink => replica.link.reset(),
            Fault::SleepReplica => nap(replica),
            Fault::SleepPrimary => nap(primary),
            Fault::FullResync => {
                replica.link.cut();
                primary.cmd(&["SET", "filler", &"x".repeat(256 * 1024)]);
                replica.link.reset();
                replica.link.heal();
                eventually("a full resync", secs(10), || primary.stat("sync_full") > full_before);
            }
            Fault::NewHistory => {
                assert_eq!(primary.cmd(&["DEBUG", "CHANGE-REPL-ID"]), "OK");
                primary.cmd(&["CLIENT", "KILL", "TYPE", "replica"]);
                eventually("full resyncs", secs(10), || primary.stat("sync_full") > full_before + 1);
            }
            Fault::RestartEmpty => replica.server.restart_empty(),
            Fault::RestartOld => {
                replica.link.cut();
                replica.server.restart_from_kept();
                sleep_ms(TROUBLE);
                replica.link.heal();
            }
            Fault::RepointChained => {
                self.topology.lag(1 - which, FAR);
                thread::sleep(FAR);
                self.repoint_and_back(which, self.topology.replicas[1 - which].port);
                self.topology.lag(1 - which, LAGS[1 - which]);
            }
            Fault::RepointForeign => {
                let port = self.foreign.get_or_insert_with(|| foreign_to(&self.topology.primary)).port;
                self.repoint_and_back(which, port);
            }
            Fault::Promote => self.promote_and_back(which),
            Fault::BriefMaster => {
                assert_eq!(replica.cmd(&["REPLICAOF", "NO", "ONE"]), "OK");
                sleep_ms(MISTAKEN);
                repoint(replica, replica.link.port);
            }
        }
        self.topology.lag(which, LAGS[which]);
    }

    /// Waits until both replicas, whichever nodes they are, serve reads.
    fn await_service(&self) {
        eventually("both replicas are in service", secs(10), || {
            let view = self.proxy.view();
            let nodes = view["nodes"].as_array().unwrap().iter();
            let serves = |node: &&serde_json::Value| {
                node["node"] != view["primary"] && node["in_service"] == true && node["answers"] == true
            };
            nodes.filter(serves).count() == 2
        });
    }

    /// Lets a replica follow somebody else, and its primary again.
    fn repoint_and_back(&mut self, which: usize, port: u16) {
        let replica = &self.topology.replicas[which];
        let watch = Watch::on(replica.port);
        repoint(replica, port);
        sleep_ms(TROUBLE);
        repoint(replica, replica.link.port);
        eventually("it follows its primary", secs(10), || replica.applied().is_some());
        self.moved.extend(watch.stop());
    }

    fn promote_and_back(&self, which: usize) {
        let Topology { primary, replicas } = &self.topology;
        let (promoted, other) = (&replicas[which], &replicas[1 - which]);
        let after = |leader: &Redis, followers: [(&Redis, u16); 2]| {
            self.ours.hush();
            self.others.hush();
            in_sync(&[primary, &promoted.server, &other.server]);
            assert_eq!(leader.cmd(&["REPLICAOF", "NO", "ONE"]), "OK");
            for (follower, port) in followers {
                assert_eq!(follower.cmd(&["REPLICAOF", "127.0.0.1", &port.to_string()]), "OK");
            }
            self.ours.go_on(self.proxy.port);
            let name = format!("127.0.0.1:{}", leader.port);
            eventually("the new primary is followed", secs(5), || self.proxy.view()["primary"] == *name);
            self.others.go_on(leader.port);
            in_sync(&[leader, followers[0].0, followers[1].0]);
            self.await_service();
            sleep_ms(300);
        };
        after(promoted, [(primary, promoted.port), (other, promoted.port)]);
        after(primary, [(promoted, promoted.link.port), (other, other.link.port)]);
    }

    /// Ends the loads, and holds the proxy to its promise.
    fn finish(self) {
        let Promise { name, ours, others, bound, .. } = self.promise;
        let served =
            |target| self.proxy.metric("redweir_commands_total", &[("access", "read"), ("target", target)]);
        let share = served("replica") / (served("replica") + served("primary"));
        let (mut reads, mut errors, mut broken) = (0, Vec::new(), Vec::new());
        for (load, level) in [(self.ours, ours), (self.others, others)] {
            let outcome = load.stop();
            let verdict = outcome.history.verify(level, bound);
            assert!(verdict.staleness.reads > 0, "nothing was read");
            reads += verdict.staleness.reads;
            errors.extend(outcome.read_errors);
            broken.extend(verdict.violations);
        }
        let (untold, violations): (Vec<_>, Vec<_>) =
            broken.into_iter().partition(|violation| is_untold(violation, &self.moved));
        let so_far = (
            READS.fetch_add(reads, Ordering::SeqCst) + reads,
            VIOLATIONS.fetch_add(violations.len(), Ordering::SeqCst) + violations.len(),
        );
        println!(
            "{name}: {reads} reads, {:.0} % by replicas, {} errors, {} untold, {} violations; \
             all so far: {} reads, {} violations",
            100.0 * share,
            errors.len(),
            untold.len(),
            violations.len(),
            so_far.0,
            so_far.1
        );
        if let Some((_, first)) = errors.first() {
            println!("{name}: the first error: {first}");
        }
        let what = |violation: &Violation| {
            let before = self.struck.iter().rfind(|(at, ..)| *at < violation.read.start);
            before.map(|(at, fault, n)| (violation.read.start - *at, fault, n))
        };
        for violation in violations.iter().take(20) {
            println!("{name}: {violation:?}, since the last fault {:?}", what(violation));
        }
        if let Some(first) = violations.first() {
            println!("{}", self.proxy.log());
            panic!("{name}: {} violations, first {first:?} after {:?}", violations.len(), what(first));
        }
        assert!(untold.len() < 1 + reads / 500, "{name}: {} reads that nothing told of", untold.len());
        assert!(share > 0.02, "replicas served only {share:.2} of the reads: that proves nothing");
        let first = errors.first();
        assert!(errors.len() < reads / 20, "{} errors, {reads} reads, first {first:?}", errors.len());
    }
}

/// Of all tests.
static READS: AtomicUsize = AtomicUsize::new(0);
static VIOLATIONS: AtomicUsize = AtomicUsize::new(0);

/// Whether nothing can have told the proxy in time what this read shows.
fn is_untold(violation: &Violation, moved: &[Moved]) -> bool {
    let read = violation.read;
    let just_now = |moved: &Moved| moved.after <= read.end && read.start <= moved.before + UNTOLD;
    !speaks_resp3(read.session) && moved.iter().any(just_now)
}

fn repoint(replica: &Redis, port: u16) {
    assert_eq!(replica.cmd(&["REPLICAOF", "127.0.0.1", &port.to_string()]), "OK");
}

/// A primary that has the first version of every register.
fn foreign_to(primary: &Redis) -> Redis {
    let foreign = Redis::start(&[]);
    let mut conn = foreign.connect();
    for key in primary.cmd(&["KEYS", "register:*"]).items() {
        let key = key.text();
        let (_, n) = key.rsplit_once(':').unwrap();
        assert_eq!(conn.cmd(&["SET", &key, &checker::value(&key, 1, &format!("w{n}"))]), "OK");
    }
    foreign
}

/// The server does nothing else meanwhile; it was told directly.
fn nap(server: &Redis) {
    let mut conn: Conn = server.connect();
    assert_eq!(conn.cmd(&["DEBUG", "SLEEP", &(TROUBLE as f64 / 1000.0).to_string()]), "OK");
}

/// Waits until all have what any of them has, while nobody writes or while the followers are as fast as the writers.
fn in_sync(servers: &[&Redis]) {
    let offset = |server: &&Redis| {
        let info = server.info("replication");
        let up = info["role"] == "master" || info["master_link_status"] == "up";
        let field = if info["role"] == "master" { "master_repl_offset" } else { "slave_repl_offset" };
        up.then(|| info[field].parse::<i64>().unwrap())
    };
    let mut head = None;
    eventually("the servers are in sync", secs(10), || {
        let Some(offsets) = servers.iter().map(offset).collect::<Option<Vec<_>>>() else { return false };
        let head = *head.get_or_insert(offsets.iter().copied().max().unwrap());
        offsets.iter().all(|offset| *offset >= head)
    });
}

fn in_quiet_times(promise: Promise) {
    let rig = Rig::start(promise);
    sleep_ms(2000);
    while rig.goes_on() {
        sleep_ms(100);
    }
    rig.finish();
}

fn under_faults(promise: Promise) {
    let mut rig = Rig::start(promise);
    sleep_ms(300);
    rig.topology.replicas.iter().for_each(|replica| replica.keep_dump());
    for round in 0.. {
        for (n, fault) in Fault::ALL.into_iter().enumerate() {
            rig.strike(fault, (round + n) % 2);
            rig.await_service();
            sleep_ms(150);
        }
        if !rig.goes_on() {
            break;
        }
    }
    rig.finish();
}

#[test]
fn bounded_reads_are_as_young_as_promised() {
    in_quiet_times(BOUNDED);
}

#[test]
fn bounded_reads_are_as_young_as_promised_under_faults() {
    under_faults(BOUNDED);
}

#[test]
fn sessions_see_their_writes_and_never_go_back() {
    in_quiet_times(SESSION);
}

#[test]
fn sessions_see_their_writes_and_never_go_back_under_faults() {
    under_faults(SESSION);
}

#[test]
fn fenced_reads_see_every_write_through_the_proxy() {
    in_quiet_times(FENCED);
}

#[test]
fn fenced_reads_see_every_write_through_the_proxy_under_faults() {
    under_faults(FENCED);
}

#[test]
fn strong_reads_see_every_write() {
    in_quiet_times(STRONG);
}

#[test]
fn strong_reads_see_every_write_under_faults() {
    under_faults(STRONG);
}

/// No green without its red: the same clients, straight at replicas that lag.
#[test]
fn replicas_alone_break_every_promise() {
    let topology = Topology::start(2);
    topology.lag(0, ms(500));
    topology.lag(1, ms(500));
    let reads_at = |n: usize| {
        let plan = Plan { writers_read: true, ..Plan::on(topology.replicas[n].port) };
        plan.writing_to(topology.primary.port).start()
    };
    let loads = [reads_at(0), reads_at(1)];
    sleep_ms(1500);
    for outcome in loads.map(Load::stop) {
        outcome.assert_no_errors();
        let broken = |level, bound| outcome.history.verify(level, bound).violations.len();
        assert!(broken(Level::Bounded, BOUNDED.bound) > 100);
        assert!(broken(Level::Session, secs(10)) > 10, "writers miss their own writes");
        assert!(broken(Level::Fenced, secs(10)) > 100);
        assert_eq!(broken(Level::Eventual, secs(0)), 0, "old, but true");
        let Staleness { max, .. } = outcome.history.verify(Level::Eventual, secs(0)).staleness;
        assert!(max > ms(400) && max < secs(3), "{max:?}");
    }
}

/// The same for going back in time: a client that takes one replica, then the other.
#[test]
fn two_replicas_in_turn_go_back_in_time() {
    let topology = Topology::start(2);
    let read = |n: usize| topology.replicas[n].cmd(&["GET", "k"]);
    topology.primary.cmd(&["SET", "k", "old"]);
    eventually("both stream", secs(5), || read(0) == "old" && read(1) == "old");
    topology.lag(1, secs(2));
    topology.primary.cmd(&["SET", "k", "new"]);
    eventually("the near one has it", secs(1), || read(0) == "new");
    assert_eq!(read(1), "old");
}
