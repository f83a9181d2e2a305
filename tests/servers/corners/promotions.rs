//! Which node is the primary: one that was promoted in earnest at once, one that says so for a moment never.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::corners::{Tally, repoint, share};
use crate::support::checker::Level;
use crate::support::load::Plan;
use crate::support::{Conn, Proxy, Redis, Relay, Setup, Topology, Value, eventually, ms, secs, sleep_ms};

/// A promotion is to be followed by then.
const FOLLOWED_WITHIN: Duration = secs(1);

fn promote(server: &Redis) {
    assert_eq!(server.cmd(&["REPLICAOF", "NO", "ONE"]), "OK");
}

/// Starts a server that was killed anew, as a replica.
fn come_back(server: &mut Redis, primary: u16) {
    server.restart_as_replica_of(&primary.to_string());
}

fn await_followers(leader: &Redis, followers: &[&Redis]) {
    let head = leader.head();
    for follower in followers {
        eventually("it follows", secs(10), || follower.applied().is_some_and(|applied| applied >= head));
    }
}

/// How the primary is lost.
#[derive(Clone, Copy, PartialEq)]
enum Loss {
    Demoted,
    Killed,
    /// Connections to it are lost, and new ones get no answer.
    Hangs,
}

/// A server, and the way of the proxy to it.
struct Node {
    server: Redis,
    path: Relay,
}

impl Node {
    fn new(server: Redis) -> Self {
        let path = Relay::to(server.port);
        Self { server, path }
    }
}

/// One write of a client that writes one after the other.
struct Written {
    /// Its database: every client has its own, and with it a connection of its own between the proxy and the primary.
    db: usize,
    n: u64,
    done: Instant,
    reply: Value,
}

const LOG: &str = "log";

/// A connection to a database, as soon as there is one to be had.
fn connect(port: u16, db: usize) -> Conn {
    let mut conn = Conn::open(port);
    eventually("a connection is to be had", secs(10), || {
        let selected = conn.try_cmd(&["SELECT", &db.to_string()]);
        if selected.is_err() {
            conn = Conn::open(port);
        }
        matches!(selected, Ok(Value::Status(_)))
    });
    conn
}

/// Appends numbers from here on to a list of its own until it is told to stop.
fn write_on(port: u16, db: usize, first: u64, stop: &AtomicBool) -> Vec<Written> {
    let (mut conn, mut written) = (connect(port, db), Vec::new());
    for n in first.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let reply = conn.try_cmd(&["RPUSH", LOG, &n.to_string()]);
        let reply = reply.unwrap_or_else(|_| {
            conn = connect(port, db);
            Value::Error("closed".to_owned())
        });
        written.push(Written { db, n, done: Instant::now(), reply });
        sleep_ms(1);
    }
    written
}

/// Takes writes away from the first node, for so long, and gives them to the second; when.
fn hand_over(old: &mut Node, new: &Redis, loss: Loss, gap: u64) -> Instant {
    match loss {
        Loss::Demoted => repoint(&old.server, new.port),
        Loss::Killed => old.server.kill(),
        Loss::Hangs => {
            old.path.cut();
            old.path.reset();
        }
    }
    sleep_ms(gap);
    let at = Instant::now();
    promote(new);
    at
}

/// What became of the writes of one round: none is refused for want of a primary, and whatever was acknowledged after the
/// promotion is at the new primary. How many got the word of the old one, that it takes no more writes.
fn audit(tally: &mut Tally, written: &[Written], promoted: Instant, new: &Redis) -> usize {
    let (mut turned_away, mut direct) = (0, new.connect());
    for Written { db, n, done, reply } in written {
        let wrong = match reply {
            Value::Error(text) if text.starts_with("READONLY ") => {
                turned_away += 1;
                None
            }
            Value::Error(text) if text.contains("may have been executed") || text == "closed" => None,
            Value::Int(_) if *done < promoted => None,
            Value::Int(_) => {
                direct.cmd(&["SELECT", &db.to_string()]);
                let found = direct.cmd(&["LPOS", LOG, &n.to_string()]);
                (!matches!(found, Value::Int(_))).then(|| format!("{n} of {db} is not at the new primary"))
            }
            other => {
                let since = done.saturating_duration_since(promoted);
                Some(format!("{n} of {db}: {other:?}, {since:?} after the promotion"))
            }
        };
        tally.look(wrong);
    }
    turned_away
}

/// Waits until the proxy has heard the replication ID of the new primary.
fn await_primary(proxy: &Proxy, new: &Node) {
    let id = new.server.info("replication")["master_replid"].clone();
    eventually("the new history is known", secs(5), || {
        let view = proxy.view();
        view["primary"] == *format!("127.0.0.1:{}", new.path.port) && view.to_string().contains(&id)
    });
}

/// What clients wrote during one promotion, and when that was.
fn write_through(port: u16, round: u64, old: &mut Node, new: &Redis, loss: Loss) -> (Vec<Written>, Instant) {
    const WRITERS: usize = 15;
    let stop = AtomicBool::new(false);
    let first = 1_000_000 * round;
    thread::scope(|scope| {
        let (stop, came_late) = (&stop, WRITERS);
        let write = |db| scope.spawn(move || write_on(port, db, first, stop));
        let mut writers: Vec<_> = (0..WRITERS).map(write).collect();
        sleep_ms(40);
        // One comes meanwhile.
        writers.push(scope.spawn(move || {
            sleep_ms(20);
            write_on(port, came_late, first, stop)
        }));
        let promoted = hand_over(old, new, loss, 30 + 23 * (round % 6));
        let mut direct = new.connect();
        let mut lengths = || {
            let length = |db: usize| {
                direct.cmd(&["SELECT", &db.to_string()]);
                direct.cmd(&["LLEN", LOG]).int()
            };
            (0..=WRITERS).map(length).collect::<Vec<_>>()
        };
        let before = lengths();
        eventually("all writers go on", secs(6), || {
            lengths().iter().zip(&before).all(|(now, then)| *now > then + 2)
        });
        stop.store(true, Ordering::SeqCst);
        (writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect(), promoted)
    })
}

/// B2
#[test]
fn writes_that_were_held_go_to_the_new_primary() {
    let mut old = Node::new(Redis::start(&[]));
    let mut new = Node::new(Redis::replica_of(old.server.port, &[]));
    await_followers(&old.server, &[&new.server]);
    let proxy = Setup::to(old.path.port, &[new.path.port]).upstream("probe-timeout = \"300ms\"").start();
    let (mut tally, mut turned_away, mut latest) = (Tally::default(), 0, Duration::ZERO);
    for round in 0..20 {
        let loss = [Loss::Demoted, Loss::Killed, Loss::Hangs][round as usize % 3];
        let (written, promoted) = write_through(proxy.port, round, &mut old, &new.server, loss);
        let acked = |w: &&Written| w.done > promoted && matches!(w.reply, Value::Int(_));
        latest = latest.max(written.iter().filter(acked).map(|w| w.done).min().unwrap() - promoted);
        turned_away += audit(&mut tally, &written, promoted, &new.server);
        match loss {
            Loss::Demoted => {}
            Loss::Killed => come_back(&mut old.server, new.server.port),
            Loss::Hangs => repoint(&old.server, new.server.port),
        }
        old.path.heal();
        await_followers(&new.server, &[&old.server]);
        // A history that it never heard of is not one that it can see continued.
        await_primary(&proxy, &new);
        proxy.await_replicas(1);
        std::mem::swap(&mut old, &mut new);
    }
    println!("writes went on within {latest:?}; {turned_away} got -READONLY");
    tally.assert_clean("writes around a promotion");
}

/// D: the primary lives, and the other replica follows it.
#[test]
fn a_replica_that_says_for_a_moment_that_it_is_a_primary_is_not_believed() {
    let topology = Topology::start(2);
    let proxy = Setup::of(&topology).upstream("poll-interval = \"5ms\"").start();
    let plan = Plan {
        keys: 4,
        readers: 4,
        write_every: ms(10),
        read_every: ms(3),
        idlers: 2,
        ..Plan::on(proxy.port)
    };
    let ours = Plan { writers_read: true, ..plan }.start();
    let others = plan.writing_to(topology.primary.port).start();
    let name = format!("127.0.0.1:{}", topology.primary.port);
    let stop = AtomicBool::new(false);
    let looks = thread::scope(|scope| {
        let looker = scope.spawn(|| {
            let mut tally = Tally::default();
            while !stop.load(Ordering::SeqCst) {
                let primary = proxy.view()["primary"].clone();
                tally.look((primary != *name).then(|| format!("the primary is {primary}")));
                sleep_ms(5);
            }
            tally
        });
        for round in 0..20 {
            let replica = &topology.replicas[round % 2];
            promote(replica);
            sleep_ms(20);
            repoint(replica, replica.link.port);
            topology.await_sync();
            sleep_ms(100);
        }
        stop.store(true, Ordering::SeqCst);
        looker.join().unwrap()
    });
    let served = share(&proxy);
    let verdicts = [(ours, Level::Fenced), (others, Level::Session)].map(|(load, level)| {
        let outcome = load.stop();
        (outcome.history.verify(level, secs(10)), outcome.read_errors, outcome.write_errors)
    });
    for (verdict, read_errors, write_errors) in &verdicts {
        println!(
            "momentary primaries: {} of {} reads broke the promise, {} read errors, {} write errors {:?}",
            verdict.violations.len(),
            verdict.staleness.reads,
            read_errors.len(),
            write_errors.len(),
            write_errors.first()
        );
    }
    println!("momentary primaries: {:.0} % by replicas", 100.0 * served);
    looks.assert_clean("looks at who is the primary");
    for (verdict, read_errors, write_errors) in &verdicts {
        verdict.assert_holds();
        assert_eq!((read_errors.len(), write_errors.len()), (0, 0), "{:?}", write_errors.first());
    }
    // Each of them is out of service for most of the time: it has to resync in full.
    assert!(served > 0.01, "replicas served {served:.2} of the reads");
}

/// How one sees that a promotion is meant.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Sign {
    /// The old primary is made a replica of the new one.
    OldIsDemoted,
    OldIsKilled,
    /// The other replica follows the new one; the old primary lives, and says that it is one.
    OtherFollows,
}

fn promotions_are_followed(sign: Sign, rounds: usize) {
    let first = Redis::start(&[]);
    let mut servers = vec![Redis::replica_of(first.port, &[]), Redis::replica_of(first.port, &[])];
    servers.insert(0, first);
    await_followers(&servers[0], &[&servers[1], &servers[2]]);
    let proxy = Setup::to(servers[0].port, &[servers[1].port, servers[2].port]).start();
    let mut tally = Tally::default();
    let mut took = Vec::new();
    for round in 0..rounds {
        // The first of them leads, the second is promoted.
        if sign == Sign::OldIsKilled {
            servers[0].kill();
        }
        let since = Instant::now();
        promote(&servers[1]);
        match sign {
            Sign::OldIsDemoted => repoint(&servers[0], servers[1].port),
            Sign::OldIsKilled => {}
            Sign::OtherFollows => repoint(&servers[2], servers[1].port),
        }
        let value = format!("round {round}");
        await_write(&proxy, &servers[1], &value);
        took.push(since.elapsed());
        tally.look(
            (since.elapsed() > FOLLOWED_WITHIN).then(|| format!("{value}: after {:?}", since.elapsed())),
        );
        if sign == Sign::OldIsKilled {
            let leader = servers[1].port;
            come_back(&mut servers[0], leader);
        }
        for follower in [0, 2] {
            repoint(&servers[follower], servers[1].port);
        }
        await_followers(&servers[1], &[&servers[0], &servers[2]]);
        proxy.await_replicas(2);
        servers.rotate_left(1);
    }
    println!("{sign:?}: followed within {took:?}");
    tally.assert_clean(&format!("promotions that took longer than {FOLLOWED_WITHIN:?}"));
}

/// Writes through the proxy until it arrives there.
fn await_write(proxy: &Proxy, leader: &Redis, value: &str) {
    let mut conn = proxy.connect();
    eventually("writes go to the new primary", secs(15), || {
        let done = conn.try_cmd(&["SET", "probe", value]);
        if done.is_err() {
            conn = proxy.connect();
        }
        leader.cmd(&["GET", "probe"]) == value
    });
}

/// D
#[test]
fn a_promotion_is_followed_when_the_old_primary_is_demoted() {
    promotions_are_followed(Sign::OldIsDemoted, 5);
}

/// D
#[test]
fn a_promotion_is_followed_when_the_old_primary_is_killed() {
    promotions_are_followed(Sign::OldIsKilled, 4);
}

/// D
#[test]
fn a_promotion_is_followed_when_the_other_replica_follows() {
    promotions_are_followed(Sign::OtherFollows, 4);
}
