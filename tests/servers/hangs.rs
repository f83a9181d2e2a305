//! Primaries that hang, that are replaced by hand, and that hand over themselves (`FAILOVER`): what waits on them ends in time
//! on every connection alike, what was not executed goes to the next one, and nothing is executed twice.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]
#![allow(clippy::print_stdout, reason = "figures are for people")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::hostile::{Act, Role};
use crate::support::{
    Conn, Direction, Hostile, Proxy, Redis, Relay, Server, Setup, Topology, Value, eventually, ms, secs,
    sleep_ms,
};

/// A node counts as hung after 600 ms.
const SOON: &str = "probe-timeout = \"300ms\"";
const SILENCE: Duration = ms(600);
const MASTERDOWN: &str = "MASTERDOWN ";
const UNCERTAIN: &str = "may have been executed";

/// The reply to what was asked before, and how long it took to come from now on.
fn timed(conn: &mut Conn) -> (Value, Duration) {
    let begun = Instant::now();
    (conn.read(), begun.elapsed())
}

fn timed_cmd(conn: &mut Conn, args: &[&str]) -> (Value, Duration) {
    conn.ask(args);
    timed(conn)
}

/// A fenced listener and one whose reads are content with any replica.
fn start(topology: &Topology, lines: &str) -> Proxy {
    let setup = Setup::of(topology).upstream(SOON).upstream(lines).listener("any");
    setup.policy("any", "consistency = \"eventual\"\nreplica-serve-stale-data = \"yes\"").start()
}

/// How the primary is made to hang, and made to go on.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Hang {
    Stopped,
    Asleep,
    Script,
}

impl Hang {
    /// Of a script: it says `BUSY` only long after it counts as hung.
    const OPTIONS: [&str; 2] = ["--lua-time-limit", "60000"];

    fn begin(self, primary: &Redis) {
        match self {
            Self::Stopped => primary.pause(),
            // The connection stays with the server: nobody waits for the answer.
            Self::Asleep => {
                primary.connect().ask(&["DEBUG", "SLEEP", "4"]);
            }
            Self::Script => {
                // `TIME` stands still in a script from 7.2 on; Debian's server has no `os`.
                let spin = "local has, clock = pcall(function() return os.clock end)
                            if not has then clock = function() return redis.call('TIME')[1] + 0 end end
                            local t = clock() + 5 while clock() < t do end";
                primary.connect().ask(&["EVAL", spin, "0"]);
            }
        }
        sleep_ms(20);
    }

    fn end(self, primary: &Redis) {
        if self == Self::Stopped {
            primary.resume();
        }
        primary.connect().patience(secs(20)).cmd(&["PING"]);
    }
}

/// What waits on a primary that hangs ends in time, whatever connection it came on; when it goes on, so does all else.
fn a_hang_ends(hang: Hang) {
    let topology = Topology::with(&Hang::OPTIONS, 1, &[]);
    let proxy = start(&topology, "write-hold = \"1s\"");
    assert_eq!(proxy.cmd(&["SET", "k", "v"]), "OK");
    topology.await_sync();
    let mut writers: Vec<Conn> = (0..4).map(|_| proxy.connect()).collect();
    let mut readers: Vec<Conn> = (0..4).map(|_| Conn::open(proxy.ports[1])).collect();
    let (mut pinger, mut blocked) = (proxy.connect(), proxy.connect());
    for conn in &mut writers {
        assert!(!conn.cmd(&["INCR", "n"]).is_error());
    }
    for conn in readers.iter_mut().chain([&mut pinger, &mut blocked]) {
        assert_eq!(conn.cmd(&["GET", "k"]), "v");
    }
    hang.begin(&topology.primary);
    let begun = Instant::now();
    for conn in &mut writers {
        conn.ask(&["INCR", "n"]);
    }
    pinger.ask(&["PING"]);
    blocked.ask(&["BLPOP", "nothing", "30"]);
    for conn in &mut readers {
        assert_eq!(conn.cmd(&["GET", "k"]), "v", "any replica may answer");
    }
    for conn in &mut writers {
        let (reply, _) = timed(conn);
        assert!(reply.error().contains(UNCERTAIN), "{reply:?}");
    }
    assert!(begun.elapsed() < SILENCE + ms(1500), "old connections: {:?}", begun.elapsed());
    assert_eq!(pinger.read(), "PONG");
    assert!(blocked.try_read().is_ok_and(|reply| reply.is_error()) && blocked.try_read().is_err());
    // Old connections and new ones: held, and then refused.
    let held = |mut conn: Conn| {
        thread::spawn(move || {
            let (reply, took) = timed_cmd(&mut conn, &["INCR", "n"]);
            (reply, took, conn)
        })
    };
    let olds: Vec<_> = writers.into_iter().map(held).collect();
    let news: Vec<_> = (0..4).map(|_| held(proxy.connect())).collect();
    let mut clients = Vec::new();
    for (n, client) in olds.into_iter().chain(news).enumerate() {
        let (reply, took, conn) = client.join().unwrap();
        assert!(reply.error().starts_with(MASTERDOWN), "client {n}: {reply:?}");
        assert!(ms(950) < took && took < ms(2500), "client {n}: {took:?}");
        clients.push(conn);
    }
    for conn in &mut readers {
        assert_eq!(conn.cmd(&["GET", "k"]), "v");
    }
    assert_eq!(Conn::open(proxy.ports[1]).cmd(&["GET", "k"]), "v", "a newcomer");
    hang.end(&topology.primary);
    let back = Instant::now();
    eventually("it goes on", secs(2), || !clients[0].cmd(&["INCR", "n"]).is_error());
    println!("{hang:?}: writes go on after {:?}", back.elapsed());
    for conn in &mut clients[1..] {
        assert!(!conn.cmd(&["INCR", "n"]).is_error());
    }
    // Four before, four that nobody knows of, eight after: none of them twice, none of the refused ones at all.
    let count = proxy.cmd(&["GET", "n"]).int();
    assert!((12..=16).contains(&count), "{count}");
}

#[test]
fn what_waits_on_a_primary_that_is_stopped_ends() {
    a_hang_ends(Hang::Stopped);
}

#[test]
fn what_waits_on_a_primary_that_sleeps_ends() {
    a_hang_ends(Hang::Asleep);
}

#[test]
fn what_waits_on_a_primary_with_a_long_script_ends() {
    a_hang_ends(Hang::Script);
}

/// Reads that only the primary may answer are refused, on every connection alike, and not before they had their time.
#[test]
fn reads_on_their_way_to_a_primary_that_hangs_are_refused_or_answered_elsewhere() {
    let topology = Topology::start(1);
    let proxy = start(&topology, "write-hold = \"1s\"");
    let mut clients: Vec<Conn> = (0..4).map(|_| proxy.connect()).collect();
    topology.lag(0, secs(3));
    for (n, conn) in clients.iter_mut().enumerate() {
        assert_eq!(conn.cmd(&["SET", &format!("k{n}"), "v"]), "OK");
        assert_eq!(conn.cmd(&["GET", &format!("k{n}")]), "v");
    }
    topology.primary.pause();
    for (n, conn) in clients.iter_mut().enumerate() {
        conn.ask(&["GET", &format!("k{n}")]);
    }
    let begun = Instant::now();
    for conn in &mut clients {
        assert!(conn.read().error().starts_with(MASTERDOWN));
    }
    let took = begun.elapsed();
    assert!(ms(500) < took && took < ms(2500), "{took:?}");
    let (reply, took) = timed_cmd(&mut proxy.connect(), &["GET", "k0"]);
    assert!(reply.error().starts_with(MASTERDOWN) && took < ms(2500), "{reply:?} after {took:?}");
    topology.primary.resume();
    eventually("it goes on", secs(2), || clients[0].cmd(&["GET", "k0"]) == "v");
}

/// It lives, and is slower than a poll, but not for as long as to count as hung.
#[test]
fn a_primary_that_is_slow_is_left_alone() {
    let topology = Topology::start(1);
    let proxy = start(&topology, "");
    let mut clients: Vec<Conn> = (0..4).map(|_| proxy.connect()).collect();
    for _ in 0..6 {
        topology.primary.connect().ask(&["DEBUG", "SLEEP", "0.45"]);
        sleep_ms(10);
        for conn in &mut clients {
            conn.ask(&["INCR", "n"]);
        }
        for conn in &mut clients {
            let reply = conn.read();
            assert!(!reply.is_error(), "{reply:?}");
        }
        sleep_ms(400);
    }
    assert_eq!(proxy.cmd(&["GET", "n"]), "24");
}

/// A command that waits for as long as it likes, and a transaction that takes its time, are no hang.
#[test]
fn who_blocks_is_left_alone() {
    let topology = Topology::start(1);
    let proxy = start(&topology, "");
    let (mut popper, mut streamer, mut multi) = (proxy.connect(), proxy.connect(), proxy.connect());
    popper.ask(&["BLPOP", "list", "0"]);
    streamer.ask(&["XREAD", "BLOCK", "0", "STREAMS", "stream", "$"]);
    assert_eq!(multi.cmd(&["MULTI"]), "OK");
    assert_eq!(multi.cmd(&["INCR", "n"]), "QUEUED");
    sleep_ms(6000);
    assert_eq!(proxy.cmd(&["RPUSH", "list", "v"]), 1);
    assert!(!proxy.cmd(&["XADD", "stream", "*", "f", "v"]).is_error());
    assert_eq!(popper.read().items().len(), 2);
    assert_eq!(streamer.read().items().len(), 1);
    assert_eq!(multi.cmd(&["EXEC"]), Value::Array(vec![Value::Int(1)]));
}

/// `CLIENT PAUSE` holds up the prober as well, for as long as was said.
#[test]
fn a_primary_whose_clients_are_paused_does_not_hang() {
    let topology = Topology::start(1);
    let setup = Setup::of(&topology).upstream(SOON);
    let proxy = setup.toml("[security]\ndeny-commands = []").start();
    let mut conn = proxy.connect();
    assert_eq!(conn.cmd(&["INCR", "n"]), 1);
    assert_eq!(proxy.cmd(&["CLIENT", "PAUSE", "2500"]), "OK");
    let (reply, took) = timed_cmd(&mut conn, &["INCR", "n"]);
    assert_eq!(reply, 2);
    assert!(took > secs(2), "{took:?}");
}

/// `-BUSY` is an answer: it is the node's own, and the one command that helps reaches it. Who may read at replicas does so
/// meanwhile, by the rules that were known.
#[test]
fn a_busy_primary_says_so_itself_and_can_be_told_to_stop() {
    let reader = ["--user", "reader", "on", "nopass", "~k", "+get"];
    let topology = Topology::with(&[&["--lua-time-limit", "200"], &reader[..]].concat(), 1, &reader);
    let proxy = start(&topology, "");
    let (mut scripted, mut old) = (proxy.connect(), proxy.connect());
    let mut reader = Conn::open(proxy.ports[1]);
    assert_eq!(old.cmd(&["SET", "k", "v"]), "OK");
    assert_eq!(reader.cmd(&["AUTH", "reader", ""]), "OK");
    topology.await_sync();
    for _ in 0..3 {
        eventually("the replica serves", secs(2), || proxy.eligible() == 1);
        eventually("and so does the primary", secs(2), || proxy.get("/readyz").1.contains("writes: yes"));
        scripted.ask(&["EVAL", "while true do end", "0"]);
        sleep_ms(1500);
        assert_eq!(reader.cmd(&["GET", "k"]), "v");
        let (status, text) = proxy.get("/readyz");
        assert_eq!(status, 503, "{text}");
        assert!(text.contains(" is busy with a script (BUSY): SCRIPT KILL\nprimary: 127"), "{text}");
        assert!(text.contains("access rules: the same"), "{text}");
        assert!(old.cmd(&["SET", "k", "v"]).error().starts_with("BUSY "));
        assert!(proxy.cmd(&["SET", "k", "v"]).error().starts_with("BUSY "));
        assert_eq!(proxy.cmd(&["SCRIPT", "KILL"]), "OK");
        let reply = scripted.read();
        assert!(reply.error().contains("killed"), "{reply:?}");
        eventually("writes go on", secs(1), || old.cmd(&["SET", "k", "v"]) == "OK");
    }
}

/// One connection to the primary passes nothing any longer, and nobody is told; the others do.
#[test]
fn a_connection_on_which_nothing_comes_is_given_up() {
    let topology = Topology::start(1);
    let path = Relay::to(topology.primary.port);
    let setup = Setup::to(path.port, &topology.replica_ports()).proxy("[proxy]\nworkers = 1");
    let proxy = setup.upstream(SOON).start();
    let mut conn = proxy.connect();
    // A command that only the primary may answer, and that changes nothing.
    assert_eq!(conn.cmd(&["OBJECT", "FREQ", "none"]), Value::Null);
    path.mute_present();
    let (reply, took) = timed_cmd(conn.patience(secs(15)), &["TOUCH", "none"]);
    println!("a lane that is half dead: {reply:?} after {took:?}");
    assert_eq!(reply, 0, "asked again on another connection");
    assert!(took < secs(9), "{took:?}");
    assert_eq!(conn.cmd(&["SET", "k", "v"]), "OK");
    assert_eq!(conn.cmd(&["GET", "k"]), "v");
}

/// The same with a write: it is not sent again, and its client hears that nobody knows.
#[test]
fn a_write_on_a_connection_on_which_nothing_comes_may_have_been_executed() {
    let topology = Topology::start(1);
    let path = Relay::to(topology.primary.port);
    let setup = Setup::to(path.port, &topology.replica_ports()).proxy("[proxy]\nworkers = 1");
    let proxy = setup.upstream(SOON).start();
    let mut conn = proxy.connect();
    assert_eq!(conn.cmd(&["INCR", "n"]), 1);
    path.mute_present();
    let (reply, took) = timed_cmd(conn.patience(secs(15)), &["INCR", "n"]);
    println!("a write on a lane that is half dead: {reply:?} after {took:?}");
    assert!(reply.error().contains(UNCERTAIN), "{reply:?}");
    assert!(topology.primary.cmd(&["GET", "n"]).int() <= 2);
    assert!(!conn.cmd(&["INCR", "n"]).is_error());
}

/// A pause of writes holds up writes for as long as it lasts, while the prober is answered: no connection is given up for that.
#[test]
fn a_pause_of_writes_is_waited_for() {
    let topology = Topology::start(1);
    let proxy = start(&topology, "");
    let mut conn = proxy.connect();
    assert_eq!(conn.cmd(&["INCR", "n"]), 1);
    assert_eq!(topology.primary.cmd(&["CLIENT", "PAUSE", "7000", "WRITE"]), "OK");
    let (reply, took) = timed_cmd(conn.patience(secs(15)), &["INCR", "n"]);
    assert_eq!(reply, 2);
    assert!(took > secs(6), "{took:?}");
}

/// What needs no data needs no primary: pools ask for it before they give a connection away.
#[test]
fn what_needs_no_primary_is_answered_without_one() {
    let mut topology = Topology::start(1);
    let proxy = start(&topology, "write-hold = \"8s\"");
    let mut old = proxy.connect();
    assert_eq!(old.cmd(&["SET", "k", "v"]), "OK");
    topology.await_sync();
    topology.primary.kill();
    sleep_ms(100);
    let ask = |conn: &mut Conn| {
        let begun = Instant::now();
        assert_eq!(conn.cmd(&["PING"]), "PONG");
        assert_eq!(conn.cmd(&["PING", "hello"]), "hello");
        assert_eq!(conn.cmd(&["ECHO", "hello"]), "hello");
        assert_eq!(conn.cmd(&["ECHO"]).error(), "ERR wrong number of arguments for 'echo' command");
        let time = conn.cmd(&["TIME"]);
        let [seconds, micros] = time.items() else { panic!("{time:?}") };
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        assert!(seconds.int().abs_diff(now as i64) <= 2 && micros.int() < 1_000_000, "{time:?}");
        assert!(conn.cmd(&["INFO", "redweir"]).text().contains("# Redweir"));
        assert!(conn.cmd(&["REDWEIR", "VIEW"]).page().contains("127.0.0.1"));
        assert_eq!(conn.cmd(&["CLIENT", "SETNAME", "me"]), "OK");
        assert!(conn.cmd(&["CLIENT", "ID"]).int() > 0);
        assert!(begun.elapsed() < secs(3), "{:?}", begun.elapsed());
    };
    for _ in 0..3 {
        ask(&mut old);
        ask(&mut proxy.connect());
        sleep_ms(400);
    }
    // What only the primary can say is refused in the end, also to newcomers.
    let mut new = proxy.connect();
    new.patience(secs(10));
    assert!(new.cmd(&["INFO"]).error().starts_with("MASTERDOWN"));
    let mut new = Conn::open(proxy.ports[1]);
    assert_eq!(new.cmd(&["HELLO", "3"]).field("proto").int(), 3);
    assert_eq!(new.cmd(&["PING"]), "PONG");
    assert_eq!(new.cmd(&["SELECT", "99"]).error(), "ERR DB index is out of range");
    assert_eq!(new.cmd(&["SELECT", "1"]), "OK");
    assert_eq!(new.cmd(&["GET", "k"]), Value::Null);
    assert_eq!(new.cmd(&["SELECT", "0"]), "OK");
    assert_eq!(new.cmd(&["GET", "k"]), "v");
    assert_eq!(new.cmd(&["QUIT"]), "OK");
    // Without a replica, too: what the primary said last counts.
    topology.replicas[0].server.kill();
    sleep_ms(300);
    ask(&mut old);
    ask(&mut proxy.connect());
}

/// Reads are lost with their connection twice in a failover, where a replica is promoted: by Sentinel, which kills its clients.
/// But what is lost again and again may be what kills the server.
#[test]
fn a_read_may_be_lost_twice() {
    let primary = Redis::start(&[]);
    let path = Relay::to(primary.port);
    let proxy = Setup::to(path.port, &[]).upstream("probe-timeout = \"2s\"").start();
    assert_eq!(proxy.cmd(&["SET", "k", "v"]), "OK");
    path.delay(Direction::Down, ms(150));
    for (losses, answered) in [(1, true), (2, true), (3, false)] {
        let mut conn = proxy.connect();
        let before = primary.calls("get");
        conn.ask(&["GET", "k"]);
        for n in 1..=losses {
            eventually("the primary has got it", secs(5), || primary.calls("get") == before + n);
            path.reset();
        }
        let reply = conn.read();
        assert_eq!(reply == "v", answered, "lost {losses} times: {reply:?}");
        assert!(answered || reply.error().starts_with(MASTERDOWN), "{reply:?}");
    }
}

/// Whoever waits for a connection to a primary that is replaced meanwhile waits for one to the next.
#[test]
fn a_database_is_entered_though_the_primary_hangs_before_it_has_said_so() {
    let topology = Topology::start(1);
    let proxy = start(&topology, "write-hold = \"4s\"");
    let mut clients: Vec<Conn> = (0..4).map(|_| proxy.connect()).collect();
    for conn in &mut clients {
        assert_eq!(conn.cmd(&["SET", "k", "v"]), "OK");
    }
    topology.await_sync();
    topology.primary.pause();
    for (db, conn) in (3..).zip(&mut clients) {
        let db = db.to_string();
        conn.ask(&["SELECT", &db]);
        conn.ask(&["SET", "k", &db]);
        conn.ask(&["GET", "k"]);
    }
    sleep_ms(100);
    assert_eq!(topology.replicas[0].cmd(&["REPLICAOF", "NO", "ONE"]), "OK");
    for (db, conn) in (3..).zip(&mut clients) {
        assert_eq!(conn.read(), "OK", "SELECT {db}");
        assert_eq!(conn.read(), "OK", "SET in {db}");
        assert_eq!(conn.read(), db.to_string().as_str());
    }
}

#[test]
fn who_owes_a_password_hears_so_though_there_is_no_primary() {
    let mut primary = Redis::start(&["--requirepass", "hunter2"]);
    let setup = Setup::to(primary.port, &[]).upstream(SOON);
    let proxy = setup.upstream("username = \"default\"\npassword = \"hunter2\"").start();
    let mut inside = proxy.connect();
    assert_eq!(inside.cmd(&["AUTH", "hunter2"]), "OK");
    assert_eq!(primary.connect().cmd(&["ACL", "SETUSER", "mute", "on", ">pw", "~*", "+get"]), "OK");
    let mut mute = proxy.connect();
    eventually("the user is known", secs(5), || mute.cmd(&["AUTH", "mute", "pw"]) == "OK");
    sleep_ms(1500);
    primary.kill();
    sleep_ms(100);
    assert_eq!(inside.cmd(&["PING"]), "PONG");
    for _ in 0..3 {
        assert_eq!(proxy.cmd(&["PING"]).error(), "NOAUTH Authentication required.");
        assert!(mute.cmd(&["PING"]).is_error(), "what its rules deny stays denied");
    }
}

/// Two servers, of which each is the primary in turn.
struct Pair {
    nodes: [Redis; 2],
    primary: usize,
}

impl Pair {
    fn start(kind: Option<Server>) -> Self {
        let first = kind.map_or_else(|| Redis::start(&[]), |kind| Redis::start_as(kind, &[]));
        let second = Redis::replica_as(first.kind, first.port, &[]);
        let pair = Self { nodes: [first, second], primary: 0 };
        pair.await_sync();
        pair
    }

    fn old(&self) -> &Redis {
        &self.nodes[self.primary]
    }

    fn next(&self) -> &Redis {
        &self.nodes[1 - self.primary]
    }

    /// The replica follows.
    fn await_sync(&self) {
        let head = self.old().head();
        eventually("it follows", secs(20), || self.next().applied().is_some_and(|applied| applied >= head));
    }

    fn proxy(&self, lines: &str) -> Proxy {
        let setup = Setup::to(self.nodes[0].port, &[self.nodes[1].port]).upstream(lines);
        setup.proxy("[proxy]\nworkers = 2").start()
    }
}

/// What eight clients of a pool got, each of which counts with a key of its own, and reads it.
#[derive(Default)]
struct Counted {
    acked: i64,
    unknown: i64,
    /// Each kind of error, and how soon it came at the earliest.
    errors: BTreeMap<String, (usize, Duration)>,
    slowest: Duration,
    commands: usize,
    /// Reads that did not show what had been counted before them.
    backwards: usize,
}

impl Counted {
    fn take(&mut self, what: &str, reply: &Value, took: Duration) {
        self.commands += 1;
        self.slowest = self.slowest.max(took);
        if let Value::Error(text) = reply {
            let entry = self.errors.entry(format!("{what}: {text}")).or_insert((0, Duration::MAX));
            *entry = (entry.0 + 1, entry.1.min(took));
        }
    }

    fn merge(&mut self, other: Self) {
        self.acked += other.acked;
        self.unknown += other.unknown;
        self.slowest = self.slowest.max(other.slowest);
        self.commands += other.commands;
        self.backwards += other.backwards;
        for (text, (count, soonest)) in other.errors {
            let entry = self.errors.entry(text).or_insert((0, Duration::MAX));
            *entry = (entry.0 + count, entry.1.min(soonest));
        }
    }

    /// No node's own word of its role reaches a client, and none is refused before its time.
    fn assert_spared(&self, hold: Duration) {
        println!(
            "{} commands, {} acknowledged, {} unknown, slowest {:?}, errors {:?}",
            self.commands, self.acked, self.unknown, self.slowest, self.errors
        );
        for (text, (count, soonest)) in &self.errors {
            assert!(!text.contains("READONLY"), "{count} x {text}");
            assert!(text.contains(UNCERTAIN) || text.contains(MASTERDOWN), "{count} x {text}");
            assert!(
                !text.contains(MASTERDOWN) || *soonest >= hold.saturating_sub(ms(20)),
                "{count} x {text}, after {soonest:?}"
            );
            assert!(!text.starts_with("GET") || text.contains(MASTERDOWN), "{count} x {text}");
        }
    }
}

struct Pool {
    stop: Arc<AtomicBool>,
    clients: Vec<thread::JoinHandle<Counted>>,
}

impl Pool {
    fn start(port: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let client = |n: usize| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || count(port, &format!("n{n}"), n % 2 == 1, &stop))
        };
        let clients = (0..8).map(client).collect();
        Self { stop, clients }
    }

    fn stop(self) -> Counted {
        self.stop.store(true, Ordering::SeqCst);
        let mut all = Counted::default();
        self.clients.into_iter().for_each(|client| all.merge(client.join().unwrap()));
        all
    }
}

/// Counts and reads until it is told to stop; some with pipelines.
fn count(port: u16, key: &str, pipelines: bool, stop: &AtomicBool) -> Counted {
    let (mut counted, mut conn, mut last) = (Counted::default(), Conn::open(port), 0);
    conn.patience(secs(20));
    while !stop.load(Ordering::SeqCst) {
        let begun = Instant::now();
        let mut expected = vec!["INCR", "GET"];
        if pipelines {
            expected.extend(["INCR", "INCR", "GET"]);
        }
        for command in &expected {
            conn.ask(&[*command, key]);
        }
        for command in expected {
            let reply = conn.read();
            counted.take(command, &reply, begun.elapsed());
            match (command, reply) {
                ("INCR", Value::Int(count)) => {
                    counted.acked += 1;
                    last = count;
                }
                ("GET", Value::Bulk(text)) => {
                    let shown: i64 = String::from_utf8(text).unwrap().parse().unwrap();
                    counted.backwards += usize::from(shown < last);
                }
                ("INCR", Value::Error(text)) if text.contains(UNCERTAIN) => counted.unknown += 1,
                _ => {}
            }
        }
        sleep_ms(1);
    }
    counted
}

fn total(node: &Redis) -> i64 {
    let count = |n: usize| node.cmd(&["GET", &format!("n{n}")]);
    (0..8).map(count).filter(|value| *value != Value::Null).map(|value| value.int()).sum()
}

/// By hand, in both orders: no write is refused that was held for less than `write-hold`, and nobody hears of roles.
#[test]
fn a_promotion_by_hand_spares_the_clients_of_a_pool() {
    let mut pair = Pair::start(None);
    let proxy = pair.proxy("");
    let pool = Pool::start(proxy.port);
    for round in 0..24_u64 {
        sleep_ms(150 + round * 17 % 100);
        let port = pair.next().port.to_string();
        let demote = || assert_eq!(pair.old().cmd(&["REPLICAOF", "127.0.0.1", &port]), "OK");
        let promote = || assert_eq!(pair.next().cmd(&["REPLICAOF", "NO", "ONE"]), "OK");
        if round % 2 == 0 {
            demote();
            sleep_ms(round * 20);
            promote();
        } else {
            promote();
            demote();
        }
        pair.primary = 1 - pair.primary;
        pair.await_sync();
        let before = pair.old().calls("incr");
        eventually("writes go on", secs(5), || pair.old().calls("incr") > before);
    }
    let counted = pool.stop();
    counted.assert_spared(secs(2));
    assert!(counted.acked > 2000);
    let last = total(pair.old());
    assert!(last <= counted.acked + counted.unknown, "{last} counted");
}

/// The primary is killed under load, and its replica promoted by hand a while later.
#[test]
fn the_death_of_a_primary_spares_the_clients_of_a_pool() {
    let mut pair = Pair::start(None);
    let proxy = pair.proxy("");
    let pool = Pool::start(proxy.port);
    for round in 0..20_u64 {
        sleep_ms(200 + round * 17 % 100);
        let (old, new) = (pair.primary, 1 - pair.primary);
        pair.nodes[old].kill();
        // Now and then for longer than a write is held.
        sleep_ms(if round % 7 == 3 { 2600 } else { round * 83 % 1400 });
        assert_eq!(pair.nodes[new].cmd(&["REPLICAOF", "NO", "ONE"]), "OK");
        pair.primary = new;
        let before = pair.nodes[new].calls("incr");
        eventually("writes go on", secs(5), || pair.nodes[new].calls("incr") > before);
        let port = pair.nodes[new].port.to_string();
        pair.nodes[old].restart_as_replica_of(&port);
        pair.await_sync();
    }
    let counted = pool.stop();
    counted.assert_spared(secs(2));
    assert!(counted.acked > 2000);
    let last = total(pair.old());
    assert!(last <= counted.acked + counted.unknown, "{last} counted");
}

fn hand_over(kind: Option<Server>, rounds: u64) {
    let mut pair = Pair::start(kind);
    // The servers take a second for it, and more where they have little time.
    let proxy = pair.proxy("write-hold = \"20s\"");
    let pool = Pool::start(proxy.port);
    for round in 0..rounds {
        sleep_ms(100 + round * 17 % 100);
        let port = pair.next().port.to_string();
        assert_eq!(pair.old().cmd(&["FAILOVER", "TO", "127.0.0.1", &port]), "OK");
        eventually("it has handed over", secs(10), || pair.next().info("replication")["role"] == "master");
        pair.primary = 1 - pair.primary;
        pair.await_sync();
        let before = pair.old().calls("incr");
        eventually("writes go on", secs(5), || pair.old().calls("incr") > before);
    }
    let counted = pool.stop();
    counted.assert_spared(secs(2));
    assert!(counted.acked > 500);
    let last = total(pair.old());
    assert!(counted.acked <= last && last <= counted.acked + counted.unknown, "{last} counted");
    assert!(counted.errors.is_empty(), "writes wait in the pause");
    assert_eq!(counted.backwards, 0, "and what follows them waits for them");
}

/// `FAILOVER`: writes wait in the pause, none is lost, and no client gets an error.
#[test]
fn a_coordinated_failover_is_not_noticed() {
    hand_over(None, 20);
}

#[test]
fn a_coordinated_failover_is_not_noticed_on_other_servers() {
    for kind in [Server::Redis62, Server::Redis74, Server::Valkey81] {
        hand_over(Some(kind), 6);
    }
}

/// Counting clients under promotions, connections that are reset and answers that come late: nothing is executed twice.
#[test]
fn nothing_is_executed_twice_under_promotions_and_resets() {
    let mut pair = Pair::start(None);
    let paths = [Relay::to(pair.nodes[0].port), Relay::to(pair.nodes[1].port)];
    let setup = Setup::to(paths[0].port, &[paths[1].port]).upstream(SOON);
    let proxy = setup.start();
    let pool = Pool::start(proxy.port);
    for round in 0..12_u64 {
        for n in 0..4 {
            sleep_ms(50);
            paths[pair.primary].delay(Direction::Down, ms(n % 3 * 5));
            paths[pair.primary].reset();
        }
        let port = pair.next().port.to_string();
        assert_eq!(pair.old().cmd(&["REPLICAOF", "127.0.0.1", &port]), "OK");
        sleep_ms(round * 7 % 40);
        assert_eq!(pair.next().cmd(&["REPLICAOF", "NO", "ONE"]), "OK");
        pair.primary = 1 - pair.primary;
        pair.await_sync();
        let before = pair.old().calls("incr");
        eventually("writes go on", secs(5), || pair.old().calls("incr") > before);
    }
    let counted = pool.stop();
    println!("{} acknowledged, {} unknown, {:?}", counted.acked, counted.unknown, counted.errors);
    let last = total(pair.old());
    assert!(last <= counted.acked + counted.unknown, "{last} counted, {} acknowledged", counted.acked);
    assert!(counted.errors.keys().all(|text| !text.contains("READONLY")), "{:?}", counted.errors);
}

/// Whoever answers there, the client hears it in the end, and nobody is asked for ever.
#[test]
fn a_primary_that_refuses_every_write_has_its_word() {
    let topology = Topology::start(0);
    let words = "READONLY You can't write against a read only replica.";
    let act = Act::Say(format!("-{words}\r\n").into_bytes());
    let node = Hostile::playing(&Role { name: "refuses to write", on: &["SET"], act }, topology.primary.port);
    let proxy = Setup::to(node.port, &[]).start();
    let mut conn = proxy.connect();
    conn.patience(secs(10));
    for _ in 0..3 {
        assert_eq!(conn.cmd(&["SET", "k", "v"]).error(), words);
        assert_eq!(conn.cmd(&["GET", "k"]), Value::Null);
    }
    assert!(node.played() < 200, "{} questions", node.played());
}
