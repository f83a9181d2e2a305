//! What is said to the primary about scripts and pauses holds for reads that replicas answer, too: as on one server.

use std::time::{Duration, Instant};

use crate::corners::{Tally, at_replicas, await_service};
use crate::support::{Conn, Proxy, Redis, Setup, Topology, Value, encode, eventually, ms, secs};

/// Pauses of 600 ms that are waited for; the server counts from the beginning of its round.
const SHORT: Duration = ms(580);
/// What goes on at once takes less, what is paused takes more.
const AT_ONCE: Duration = ms(300);

/// Old data is never the reason why a read goes to the primary at the first of them.
const LEVELS: [&str; 2] = ["eventual", "fenced"];

/// A server with a replica, and a proxy that lets everything through.
fn rig(level: &str) -> (Topology, Proxy) {
    let topology = Topology::start(1);
    let setup = Setup::of(&topology).policy("default", &format!("consistency = {level:?}"));
    let proxy = setup.toml("[security]\ndeny-commands = []").start();
    proxy.cmd(&["SET", "k", "v"]);
    await_service(&topology, &proxy);
    (topology, proxy)
}

/// Clients whose reads a replica answers.
fn readers(proxy: &Proxy) -> Vec<Conn> {
    let mut conns: Vec<Conn> = (0..6).map(|_| proxy.connect()).collect();
    conns[3..].iter_mut().for_each(|conn| assert!(!conn.cmd(&["HELLO", "3"]).is_error()));
    await_served(proxy, &mut conns);
    conns
}

fn await_served(proxy: &Proxy, conns: &mut [Conn]) {
    eventually("a replica serves all of them", secs(5), || {
        let before = at_replicas(proxy);
        for conn in conns.iter_mut() {
            assert_eq!(conn.cmd(&["GET", "k"]), "v");
        }
        at_replicas(proxy) >= before + conns.len() as f64
    });
}

/// Lets all of them read at once; how long each took from `since`.
fn read_all(conns: &mut [Conn], since: Instant) -> Vec<Duration> {
    for conn in conns.iter_mut() {
        conn.ask(&["GET", "k"]);
    }
    let read = |conn: &mut Conn| {
        assert_eq!(conn.read(), "v");
        since.elapsed()
    };
    conns.iter_mut().map(read).collect()
}

fn look(tally: &mut Tally, what: &str, took: &[Duration], right: impl Fn(Duration) -> bool) {
    for took in took {
        tally.look((!right(*took)).then(|| format!("{what}: a read took {took:?}")));
    }
}

/// C2
#[test]
fn a_pause_of_all_commands_pauses_reads_at_replicas() {
    for level in LEVELS {
        pauses_of_all(level);
    }
}

fn pauses_of_all(level: &str) {
    let (_topology, proxy) = rig(level);
    let (mut conns, mut conn) = (readers(&proxy), proxy.connect());
    let mut tally = Tally::default();
    for words in [
        &["CLIENT", "PAUSE", "600", "ALL"][..],
        &["CLIENT", "PAUSE", "600"],
        &["client", "pause", "600", "all"],
    ] {
        await_served(&proxy, &mut conns);
        let since = Instant::now();
        assert_eq!(conn.cmd(words), "OK");
        let took = read_all(&mut conns, since);
        look(&mut tally, "while all is paused", &took, |took| took >= SHORT && took < 3 * SHORT);
        let took = read_all(&mut conns, Instant::now());
        look(&mut tally, "after the pause", &took, |took| took < AT_ONCE);
    }
    // Who comes meanwhile.
    let since = Instant::now();
    assert_eq!(conn.cmd(&["CLIENT", "PAUSE", "600", "ALL"]), "OK");
    let mut late: Vec<Conn> = (0..3).map(|_| proxy.connect()).collect();
    look(&mut tally, "of a client that comes late", &read_all(&mut late, since), |took| took >= SHORT);
    tally.assert_clean(&format!("{level}: reads during a pause of all commands"));
}

/// C2
#[test]
fn a_pause_of_writes_pauses_no_reads() {
    for level in LEVELS {
        pauses_of_writes(level);
    }
}

fn pauses_of_writes(level: &str) {
    let (_topology, proxy) = rig(level);
    let (mut conn, mut writer) = (proxy.connect(), proxy.connect());
    let mut tally = Tally::default();
    for _ in 0..3 {
        let mut conns = readers(&proxy);
        let since = Instant::now();
        assert_eq!(conn.cmd(&["CLIENT", "PAUSE", "600", "WRITE"]), "OK");
        writer.ask(&["SET", "other", "v"]);
        look(&mut tally, "while writes are paused", &read_all(&mut conns, since), |took| took < AT_ONCE);
        assert_eq!(writer.read(), "OK");
        let took = since.elapsed();
        tally.look((took < SHORT).then(|| format!("a write took {took:?}")));
    }
    tally.assert_clean(&format!("{level}: reads and writes during a pause of writes"));
}

/// C2: once the server has accepted it. While all is paused it takes no UNPAUSE either, unless both are in one
/// transaction (seen with 7.0.15).
#[test]
fn the_end_of_a_pause_is_the_end_for_all() {
    for level in LEVELS {
        ends_of_pauses(level);
    }
}

fn ends_of_pauses(level: &str) {
    let (_topology, proxy) = rig(level);
    let (mut conns, mut conn, mut writer) = (readers(&proxy), proxy.connect(), proxy.connect());
    let mut tally = Tally::default();
    let mut looks = |what: &str, writer: &mut Conn| {
        look(&mut tally, what, &read_all(&mut conns, Instant::now()), |took| took < AT_ONCE);
        let since = Instant::now();
        assert_eq!(writer.cmd(&["SET", "k", "v"]), "OK");
        look(&mut tally, "the write", &[since.elapsed()], |took| took < AT_ONCE);
    };
    for _ in 0..2 {
        assert_eq!(conn.cmd(&["CLIENT", "PAUSE", "60000", "WRITE"]), "OK");
        assert_eq!(conn.cmd(&["CLIENT", "UNPAUSE"]), "OK");
        looks("after a pause of writes", &mut writer);
        assert_eq!(conn.cmd(&["CLIENT", "PAUSE", "600", "ALL"]), "OK");
        assert_eq!(conn.cmd(&["CLIENT", "UNPAUSE"]), "OK");
        looks("after a pause of all", &mut writer);
        let transaction: [&[&str]; 4] =
            [&["MULTI"], &["CLIENT", "PAUSE", "60000", "ALL"], &["CLIENT", "UNPAUSE"], &["EXEC"]];
        conn.send(&transaction.map(encode).concat());
        assert_eq!(conn.read_many(4)[3].items().len(), 2);
        looks("after a transaction", &mut writer);
    }
    tally.assert_clean(&format!("{level}: reads and writes after a pause"));
}

/// C2
#[test]
fn a_pause_that_is_refused_pauses_nothing() {
    for level in LEVELS {
        refused_pauses(level);
    }
}

fn refused_pauses(level: &str) {
    let (topology, proxy) = rig(level);
    for server in [&topology.primary, &topology.replicas[0].server] {
        let rules = ["ACL", "SETUSER", "weak", "on", ">secret", "~*", "+@all", "-client|pause"];
        assert_eq!(server.cmd(&rules), "OK");
    }
    let (mut conns, mut conn, mut weak) = (readers(&proxy), proxy.connect(), proxy.connect());
    assert_eq!(weak.cmd(&["AUTH", "weak", "secret"]), "OK");
    let mut tally = Tally::default();
    for words in [
        "CLIENT PAUSE 5000 SOME",
        "CLIENT PAUSE x ALL",
        "CLIENT PAUSE -1",
        "CLIENT PAUSE",
        "CLIENT PAUSE 5000 ALL x",
    ] {
        let reply = conn.cmd(&words.split(' ').collect::<Vec<_>>());
        assert!(reply.is_error(), "{words}: {reply:?}");
        look(&mut tally, words, &read_all(&mut conns, Instant::now()), |took| took < AT_ONCE);
    }
    let reply = weak.cmd(&["CLIENT", "PAUSE", "5000", "ALL"]);
    assert!(reply.error().starts_with("NOPERM"), "{reply:?}");
    look(&mut tally, "without permission", &read_all(&mut conns, Instant::now()), |took| took < AT_ONCE);
    tally.assert_clean(&format!("{level}: reads after a pause that was refused"));
}

/// C2
#[test]
fn flushed_scripts_are_gone_for_reads_at_replicas() {
    for level in LEVELS {
        flushed_scripts(level);
    }
}

fn flushed_scripts(level: &str) {
    let (topology, proxy) = rig(level);
    let single = Redis::start(&[]);
    let script = "return redis.call('get', KEYS[1])";
    let mut conns = readers(&proxy);
    let mut tally = Tally::default();
    for flush in [
        &["SCRIPT", "FLUSH"][..],
        &["SCRIPT", "FLUSH", "SYNC"],
        &["SCRIPT", "FLUSH", "ASYNC"],
        &["script", "flush"],
    ] {
        let sha = proxy.cmd(&["SCRIPT", "LOAD", script]).text();
        for conn in &mut conns {
            assert_eq!(conn.cmd(&["EVAL_RO", script, "1", "k"]), "v");
            assert_eq!(conn.cmd(&["EVALSHA_RO", &sha, "1", "k"]), "v");
        }
        topology.replicas[0].cmd(&["SCRIPT", "LOAD", script]);
        assert_eq!(proxy.cmd(flush), "OK");
        await_served(&proxy, &mut conns);
        let alone: Value = single.cmd(&["EVALSHA_RO", &sha, "1", "k"]);
        for conn in &mut conns {
            for command in ["EVALSHA_RO", "EVALSHA"] {
                let reply = conn.cmd(&[command, &sha, "1", "k"]);
                tally.look((reply != alone).then(|| format!("{flush:?}, then {command}: {reply:?}")));
            }
        }
    }
    tally.assert_clean(&format!("{level}: scripts after SCRIPT FLUSH"));
}
