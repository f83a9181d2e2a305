//! How old a read may be: every level against real replicas that lag, are cut off, or never had the data, while the
//! version register measures each read. And each time that replicas did serve: who always asks the primary proves nothing.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]

use std::time::{Duration, Instant};

use crate::support::checker::Level;
use crate::support::load::Plan;
use crate::support::{
    Conn, Proxy, Redis, Relay, Server, Setup, Topology, Value, eventually, ms, secs, sleep_ms,
};

const MASTERDOWN: &str = "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.";

/// What a read may be older than its bound. Zero: an anchor is asked for before a read may count on it, writes are
/// logged as acknowledged no earlier than they are, and there is one clock.
const EPSILON: Duration = Duration::ZERO;

/// From a moment at which a proof has expired until reads have stopped: reads that had been sent before.
const IN_FLIGHT: u64 = 150;

fn bounded(max_lag: &str) -> String {
    format!("consistency = \"bounded\"\nmax-lag = \"{max_lag}\"")
}

/// Reads a key on connections of their own, so that every node has its chance.
fn read_often(port: u16, key: &str, times: usize) -> Vec<Value> {
    (0..times).map(|_| Conn::open(port).cmd(&["GET", key])).collect()
}

#[test]
fn a_read_is_never_older_than_max_lag() {
    let topology = Topology::start(2);
    let proxy = Setup::of(&topology)
        .policy("default", &bounded("100ms"))
        .policy("loose", &bounded("1s"))
        .listener("loose")
        .start();
    topology.lag(0, ms(150));

    let load = Plan::on(proxy.ports[0]).writing_to(topology.primary.port).start();
    sleep_ms(600);
    let before = topology.replica_calls("get");
    sleep_ms(2000);
    let after = topology.replica_calls("get");
    let outcome = load.stop();
    outcome.assert_no_errors();
    outcome.history.verify(Level::Bounded, ms(100) + EPSILON).assert_holds();
    assert_eq!(before[0], after[0], "a replica that is 150 ms behind served reads that may be 100 ms old");
    let served = (after[1] - before[1]) as f64 / outcome.history.reads.len() as f64;
    assert!(served > 0.2, "the near replica served {served:.2} of the reads");

    let before = topology.replica_calls("get");
    let outcome = Plan::on(proxy.ports[1]).writing_to(topology.primary.port).run(secs(2));
    outcome.assert_no_errors();
    let verdict = outcome.history.verify(Level::Bounded, secs(1) + EPSILON);
    verdict.assert_holds();
    let served: u64 =
        topology.replica_calls("get").iter().zip(before).map(|(after, before)| after - before).sum();
    assert!(served as f64 / outcome.history.reads.len() as f64 > 0.5, "replicas served {served} reads");
    assert!(verdict.staleness.max > ms(100), "the far one did, too: {:?}", verdict.staleness);
}

#[test]
fn a_bound_holds_while_links_come_and_go() {
    let topology = Topology::start(2);
    let proxy = Setup::of(&topology).policy("default", &bounded("200ms")).start();
    let load = Plan::on(proxy.port).writing_to(topology.primary.port).start();
    for round in 0..4 {
        let link = &topology.replicas[round % 2].link;
        link.cut();
        sleep_ms(500);
        link.heal();
        sleep_ms(100);
        link.delay(crate::support::Direction::Down, ms(400));
        sleep_ms(600);
        link.heal();
    }
    let outcome = load.stop();
    outcome.assert_no_errors();
    outcome.history.verify(Level::Bounded, ms(200) + EPSILON).assert_holds();
    assert!(topology.replica_calls("get").iter().sum::<u64>() > 500);
}

/// Each level with replicas that lag unevenly, under writes.
fn uneven(consistency: &str, level: Level, writes_through: bool) {
    let topology = Topology::start(2);
    let proxy = Setup::of(&topology).policy("default", &format!("consistency = \"{consistency}\"")).start();
    topology.lag(0, ms(60));
    topology.lag(1, ms(3));
    let writes = if writes_through { proxy.port } else { topology.primary.port };
    let mut plan = Plan::on(proxy.port).writing_to(writes);
    (plan.keys, plan.write_every, plan.writers_read) = (8, ms(150), writes_through);
    let outcome = plan.run(secs(3));
    outcome.assert_no_errors();
    outcome.history.verify(level, secs(1) + EPSILON).assert_holds();
    let served: u64 = topology.replica_calls("get").iter().sum();
    let share = served as f64 / outcome.history.reads.len() as f64;
    assert!(share > 0.05, "replicas served only {share:.2} of the reads");
}

#[test]
fn a_session_sees_its_writes_and_never_goes_back() {
    uneven("session", Level::Session, true);
}

#[test]
fn a_fenced_read_sees_every_write_through_the_proxy() {
    uneven("fenced", Level::Fenced, true);
}

#[test]
fn a_strong_read_sees_every_write_by_anybody() {
    uneven("strong", Level::Fenced, false);
}

/// Others write. What a session has seen on a near replica it also sees when only a far one is left.
#[test]
fn a_session_never_goes_back_when_its_replica_is_gone() {
    let mut topology = Topology::start(2);
    let lines = "consistency = \"session\"\nmax-lag = \"10s\"";
    let proxy = Setup::of(&topology).policy("default", lines).toml("[stream]\nsource = \"off\"").start();
    for key in ["first", "second"] {
        topology.primary.cmd(&["SET", key, "old"]);
    }
    topology.await_sync();
    sleep_ms(300);
    let mut clients: Vec<Conn> = (0..20).map(|_| proxy.connect()).collect();
    for conn in &mut clients {
        assert_eq!(conn.cmd(&["GET", "second"]), "old");
    }
    topology.lag(1, secs(3));
    for key in ["first", "second"] {
        topology.primary.cmd(&["SET", key, "new"]);
    }
    sleep_ms(300);
    clients.retain_mut(|conn| conn.cmd(&["GET", "second"]) == "new");
    assert!(!clients.is_empty(), "nobody read from the near replica");
    topology.replicas[0].server.kill();
    eventually("the far replica serves who has seen nothing yet", secs(2), || {
        proxy.cmd(&["GET", "second"]) == "old"
    });
    for (n, conn) in clients.iter_mut().enumerate() {
        assert_eq!(conn.cmd(&["GET", "second"]), "new", "client {n} went back");
        assert_eq!(conn.cmd(&["GET", "first"]), "new", "client {n} saw a write and not the one before it");
    }
}

#[test]
fn a_session_never_goes_back_behind_what_the_primary_told_it() {
    let topology = Topology::start(1);
    let lines = "consistency = \"session\"\nmax-lag = \"10s\"";
    let proxy = Setup::of(&topology).policy("default", lines).toml("[stream]\nsource = \"off\"").start();
    topology.primary.cmd(&["SET", "k", "old"]);
    topology.await_sync();
    sleep_ms(300);
    topology.lag(0, secs(2));
    topology.primary.cmd(&["SET", "k", "new"]);
    let mut conn = proxy.connect();
    conn.ask(&["MULTI"]).ask(&["GET", "k"]).ask(&["EXEC"]);
    assert_eq!(conn.read_many(3)[2].items()[0], "new");
    assert_eq!(conn.cmd(&["GET", "k"]), "new");
}

/// A client that writes and reads at once, and another that has been told of it.
#[test]
fn a_read_right_after_a_write_sees_it() {
    let topology = Topology::start(2);
    let proxy = Setup::of(&topology).start();
    topology.lag(0, ms(30));
    let (mut writer, mut reader) = (proxy.connect(), proxy.connect());
    for n in 0..1000 {
        let (key, value) = (format!("k:{}", n % 10), n.to_string());
        if n % 2 == 0 {
            assert_eq!(writer.cmd(&["SET", &key, &value]), "OK");
            assert_eq!(writer.cmd(&["GET", &key]), value.as_str());
        } else {
            writer.ask(&["SET", &key, &value]).ask(&["GET", &key]);
            assert_eq!(writer.read_many(2)[1], value.as_str());
        }
        assert_eq!(reader.cmd(&["GET", &key]), value.as_str());
    }
}

/// A write, what reads it, and what the read must say.
const WRITES: &[(&[&str], &[&str], &str)] = &[
    (&["SET", "k", "1"], &["GET", "k"], "\"1\""),
    (&["APPEND", "k", "2"], &["GET", "k"], "\"12\""),
    (&["EVAL", "return redis.call('SET', KEYS[1], 'y')", "1", "k"], &["GET", "k"], "\"y\""),
    (&["EVAL", "return redis.call('SET', 'hidden', 'x')", "0"], &["GET", "hidden"], "\"x\""),
    (&["RENAME", "k", "renamed"], &["EXISTS", "k"], ":0"),
    (&["COPY", "renamed", "copied"], &["GET", "copied"], "\"y\""),
    (&["MSET", "a", "1", "b", "2"], &["MGET", "a", "b"], "[\"1\", \"2\"]"),
    (&["BITOP", "OR", "dest", "a", "b"], &["STRLEN", "dest"], ":1"),
    (&["SADD", "s", "1", "2"], &["SCARD", "s"], ":2"),
    (&["SORT", "s", "STORE", "sorted"], &["LLEN", "sorted"], ":2"),
    (&["SUNIONSTORE", "union", "s"], &["SCARD", "union"], ":2"),
    (&["GEOADD", "geo", "15", "37", "here"], &["ZCARD", "geo"], ":1"),
    (&["GEORADIUS", "geo", "15", "37", "9", "km", "STORE", "near"], &["ZCARD", "near"], ":1"),
    (&["XADD", "x", "*", "f", "v"], &["XLEN", "x"], ":1"),
    (&["LMPOP", "1", "sorted", "LEFT"], &["LLEN", "sorted"], ":1"),
    (&["BLPOP", "sorted", "1"], &["LLEN", "sorted"], ":0"),
    (&["GETDEL", "a"], &["EXISTS", "a"], ":0"),
    (&["EXPIRE", "b", "1000"], &["TTL", "b"], ":1000"),
    (&["PFADD", "p", "x"], &["TYPE", "p"], "+string"),
    (&["MOVE", "b", "5"], &["EXISTS", "b"], ":0"),
    (&["SWAPDB", "0", "5"], &["EXISTS", "b"], ":1"),
    (&["SWAPDB", "0", "5"], &["EXISTS", "copied"], ":1"),
    (&["FLUSHDB"], &["EXISTS", "copied"], ":0"),
    (&["SET", "k", "z"], &["GET", "k"], "\"z\""),
    (&["FLUSHALL"], &["GET", "k"], "null"),
];

/// The replica is a second behind and the policy minds only the fences.
#[test]
fn whatever_writes_a_key_fences_it() {
    let topology = Topology::start(1);
    let lines = "consistency = \"fenced\"\nmax-lag = \"60s\"";
    let proxy = Setup::of(&topology).policy("default", lines).start();
    topology.primary.cmd(&["SET", "untouched", "v"]);
    topology.await_sync();
    sleep_ms(300);
    topology.lag(0, secs(1));
    let (mut writer, mut reader) = (proxy.connect(), proxy.connect());
    assert_eq!(reader.cmd(&["GET", "untouched"]), "v");
    assert_eq!(topology.replica_calls("get"), [1]);
    for (write, read, expected) in WRITES {
        let reply = writer.cmd(write);
        assert!(!reply.is_error(), "{write:?}: {reply:?}");
        assert_eq!(format!("{:?}", reader.cmd(read)), *expected, "{read:?} after {write:?}");
    }
    writer.ask(&["MULTI"]).ask(&["SET", "k", "queued"]).ask(&["EXEC"]);
    writer.read_many(3);
    assert_eq!(reader.cmd(&["GET", "k"]), "queued");
    let mut leaves = proxy.connect();
    leaves.ask(&["SET", "k", "left behind"]);
    drop(leaves);
    eventually("it is executed", secs(2), || topology.primary.cmd(&["GET", "k"]) == "left behind");
    sleep_ms(20);
    assert_eq!(reader.cmd(&["GET", "k"]), "left behind", "a client that has left fences all the same");
}

/// The primary stops: nothing proves any more that a replica is fresh, however well the replicas agree.
#[test]
fn proofs_expire_when_the_primary_stops() {
    let topology = Topology::start(2);
    let proxy = Setup::of(&topology)
        .upstream("probe-timeout = \"300ms\"")
        .policy("default", &bounded("500ms"))
        .policy("any", "consistency = \"eventual\"")
        .listener("any")
        .start();
    let [strict, any] = [proxy.ports[0], proxy.ports[1]];
    Conn::open(strict).cmd(&["SET", "k", "v"]);
    topology.await_sync();
    sleep_ms(400);
    topology.primary.pause();
    sleep_ms(500 + IN_FLIGHT);
    let before = topology.replica_calls("get");
    let mut waiting: Vec<Conn> = (0..20)
        .map(|_| {
            let mut conn = Conn::open(strict);
            conn.ask(&["GET", "k"]);
            conn
        })
        .collect();
    sleep_ms(1000);
    assert_eq!(topology.replica_calls("get"), before, "a replica served a read that nothing proves fresh");
    let sent = Instant::now();
    assert!(read_often(any, "k", 20).iter().all(|reply| *reply == "v"), "eventual reads go on");
    assert!(sent.elapsed() < secs(1));
    assert_eq!(topology.replica_calls("get").iter().sum::<u64>(), before.iter().sum::<u64>() + 20);
    topology.primary.resume();
    for conn in &mut waiting {
        let reply = conn.read();
        assert!(
            reply == "v" || matches!(&reply, Value::Error(text) if text.starts_with(MASTERDOWN)),
            "{reply:?}"
        );
    }
    eventually("reads return to replicas", secs(5), || {
        let before: u64 = topology.replica_calls("get").iter().sum();
        assert!(read_often(strict, "k", 5).iter().all(|reply| *reply == "v"));
        topology.replica_calls("get").iter().sum::<u64>() > before
    });
}

/// The dangerous one: others still write to a primary that only the proxy cannot reach.
#[test]
fn proofs_expire_when_only_the_proxy_is_cut_off_from_the_primary() {
    let topology = Topology::start(2);
    let path = Relay::to(topology.primary.port);
    let proxy = Setup::to(path.port, &topology.replica_ports())
        .upstream("probe-timeout = \"300ms\"")
        .policy("default", &bounded("300ms"))
        .policy("any", "consistency = \"eventual\"")
        .listener("any")
        .start();
    topology.primary.cmd(&["SET", "k", "old"]);
    topology.await_sync();
    sleep_ms(300);
    path.cut();
    for replica in &topology.replicas {
        replica.link.cut();
    }
    topology.primary.cmd(&["SET", "k", "new"]);
    sleep_ms(300 + IN_FLIGHT);
    let before = topology.replica_calls("get");
    let mut conn = Conn::open(proxy.ports[0]);
    conn.ask(&["GET", "k"]);
    sleep_ms(1500);
    assert_eq!(topology.replica_calls("get"), before, "replicas that agree are not thereby fresh");
    assert_eq!(Conn::open(proxy.ports[1]).cmd(&["GET", "k"]), "old");
    path.heal();
    let reply = conn.read();
    assert!(
        reply == "new" || matches!(&reply, Value::Error(text) if text.starts_with(MASTERDOWN)),
        "{reply:?}"
    );
    eventually("the primary answers", secs(5), || Conn::open(proxy.ports[0]).cmd(&["GET", "k"]) == "new");
}

/// The proxy itself is stopped: its proofs age all the same.
#[test]
fn proofs_expire_while_the_proxy_is_stopped() {
    let topology = Topology::start(1);
    // Only the age of the proofs is to tell, not that nodes seem to have been silent.
    let patient = "probe-timeout = \"20s\"";
    let proxy = Setup::of(&topology).upstream(patient).policy("default", &bounded("1s")).start();
    topology.primary.cmd(&["SET", "k", "old"]);
    topology.await_sync();
    sleep_ms(300);
    let mut clients: Vec<Conn> = (0..20).map(|_| proxy.connect()).collect();
    for conn in &mut clients {
        assert_eq!(conn.cmd(&["GET", "k"]), "old");
    }
    topology.replicas[0].link.cut();
    proxy.pause();
    topology.primary.cmd(&["SET", "k", "new"]);
    sleep_ms(1500);
    for conn in &mut clients[..10] {
        conn.ask(&["GET", "k"]);
    }
    sleep_ms(1500);
    for conn in &mut clients[10..] {
        conn.ask(&["GET", "k"]);
    }
    proxy.resume();
    // Acknowledged before the proxy ran again, asked for more than a second later, or at least by a proof that old.
    for (n, conn) in clients.iter_mut().enumerate() {
        assert_eq!(conn.read(), "new", "client {n}");
    }
}

#[test]
fn a_replica_that_is_too_many_bytes_behind_does_not_serve() {
    let topology = Topology::start(1);
    let lines = "consistency = \"bounded\"\nmax-lag = \"60s\"\nmax-lag-bytes = \"4kb\"";
    let proxy = Setup::of(&topology).policy("default", lines).start();
    topology.primary.cmd(&["SET", "k", "v"]);
    topology.await_sync();
    sleep_ms(300);
    topology.replicas[0].link.delay(crate::support::Direction::Down, secs(2));
    topology.primary.cmd(&["SET", "small", &"x".repeat(1000)]);
    sleep_ms(400);
    read_often(proxy.port, "k", 10);
    assert_eq!(topology.replica_calls("get"), [10], "1 kB behind is near enough");
    topology.primary.cmd(&["SET", "large", &"x".repeat(10_000)]);
    sleep_ms(400);
    read_often(proxy.port, "k", 10);
    assert_eq!((topology.replica_calls("get"), topology.primary.calls("get")), (vec![10], 10));
    eventually("it caught up and serves again", secs(5), || {
        read_often(proxy.port, "k", 1);
        topology.replica_calls("get") > vec![10]
    });
}

#[test]
fn when_behind_says_what_happens_to_a_read_that_no_replica_may_serve() {
    let topology = Topology::start(1);
    let policy = |rest: &str| format!("consistency = \"fenced\"\n{rest}");
    let proxy = Setup::of(&topology)
        .policy("default", &policy("when-behind = \"primary\""))
        .policy("refuse", &policy("when-behind = \"refuse\""))
        .policy("wait", &policy("when-behind = \"wait\"\nwait-timeout = \"3s\""))
        .policy("brief", &policy("when-behind = \"wait\"\nwait-timeout = \"50ms\""))
        .listener("refuse")
        .listener("wait")
        .listener("brief")
        .start();
    let mut conns: Vec<Conn> = proxy.ports.iter().map(|&port| Conn::open(port)).collect();
    topology.lag(0, ms(400));
    let mut version = 0;
    let mut read_after_write = |n: usize| {
        topology.await_sync();
        sleep_ms(200);
        version += 1;
        let value = version.to_string();
        assert_eq!(conns[0].cmd(&["SET", "k", &value]), "OK");
        let (sent, before) =
            (Instant::now(), (topology.primary.calls("get"), topology.replicas[0].calls("get")));
        let reply = conns[n].cmd(&["GET", "k"]);
        let served = (topology.primary.calls("get") - before.0, topology.replicas[0].calls("get") - before.1);
        (reply == value.as_str(), reply, served, sent.elapsed())
    };
    let (right, reply, served, took) = read_after_write(0);
    assert!(right && served == (1, 0) && took < ms(350), "primary: {reply:?} {served:?} {took:?}");
    let (_, reply, served, took) = read_after_write(1);
    assert!(served == (0, 0) && took < ms(350), "refuse: {reply:?} {served:?} {took:?}");
    assert!(reply.error().starts_with(MASTERDOWN));
    let (right, reply, served, took) = read_after_write(2);
    assert!(right && served == (0, 1) && took > ms(250), "wait: {reply:?} {served:?} {took:?}");
    let (right, reply, served, took) = read_after_write(3);
    assert!(
        right && served == (1, 0) && (ms(30)..ms(350)).contains(&took),
        "brief: {reply:?} {served:?} {took:?}"
    );
}

/// The primary is gone. Whose policy allows old data gets it, for a while; the others get Redis' own answer.
#[test]
fn old_data_is_served_only_where_allowed_and_only_for_a_while() {
    let mut topology = Topology::start(1);
    let proxy = Setup::of(&topology)
        .upstream("probe-timeout = \"200ms\"\nwrite-hold = \"100ms\"")
        .policy("default", "consistency = \"eventual\"")
        .policy("stale", "consistency = \"eventual\"\nreplica-serve-stale-data = \"yes\"\nmax-stale = \"3s\"")
        .policy(
            "session",
            "consistency = \"session\"\nreplica-serve-stale-data = \"yes\"\nmax-stale = \"3s\"",
        )
        .listener("stale")
        .listener("session")
        .start();
    topology.primary.cmd(&["SET", "k", "v"]);
    topology.await_sync();
    sleep_ms(200);
    let read = |n: usize| Conn::open(proxy.ports[n]).cmd(&["GET", "k"]);
    assert_eq!(read(0), "v");
    topology.primary.kill();
    let killed = Instant::now();
    eventually("its link is seen to be down", secs(2), || read(0).is_error());
    assert!(read(0).error().starts_with(MASTERDOWN));
    assert!(read(2).error().starts_with(MASTERDOWN), "old data is no session's");
    while killed.elapsed() < ms(2000) {
        assert_eq!(read(1), "v");
        sleep_ms(50);
    }
    sleep_ms(1700);
    assert!(read(1).error().starts_with(MASTERDOWN), "{:?} after the end of the primary", killed.elapsed());
    assert!(proxy.cmd(&["SET", "k", "w"]).error().starts_with(MASTERDOWN));
}

#[test]
fn a_link_that_is_down_takes_its_replica_out_while_the_primary_answers() {
    let topology = Topology::start(2);
    let lines = "consistency = \"eventual\"\nreplica-serve-stale-data = \"yes\"";
    let proxy = Setup::of(&topology).policy("default", lines).start();
    topology.primary.cmd(&["SET", "k", "old"]);
    topology.await_sync();
    sleep_ms(200);
    let link = &topology.replicas[0].link;
    link.cut();
    link.reset();
    eventually("it is out of service", secs(3), || proxy.eligible() == 1);
    topology.primary.cmd(&["SET", "k", "new"]);
    sleep_ms(200);
    let before = topology.replica_calls("get")[0];
    assert!(read_often(proxy.port, "k", 50).iter().all(|reply| *reply == "new"));
    assert_eq!(topology.replica_calls("get")[0], before);
    link.heal();
    proxy.await_replicas(2);
}

/// Its dataset is empty, and it would answer from it.
#[test]
fn a_replica_that_never_synced_never_serves() {
    let options = &["--requirepass", "hunter2", "--masterauth", "hunter2"];
    let topology = Topology::with(options, 1, options);
    let empty = Redis::replica_of(
        topology.primary.port,
        &["--requirepass", "hunter2", "--masterauth", "not-the-password"],
    );
    let lines = "consistency = \"eventual\"\nreplica-serve-stale-data = \"yes\"";
    topology.primary.cmd(&["SET", "k", "v"]);
    topology.await_sync();
    let proxy = Setup::to(topology.primary.port, &[topology.replicas[0].port, empty.port])
        .upstream("password = \"hunter2\"")
        .policy("default", lines)
        .start_with_any_replicas();
    proxy.await_replicas(1);
    sleep_ms(500);
    for _ in 0..100 {
        let mut conn = proxy.connect();
        assert_eq!(conn.cmd(&["AUTH", "hunter2"]), "OK");
        assert_eq!(conn.cmd(&["GET", "k"]), "v");
    }
    assert_eq!(empty.calls("get"), 0);
    assert!(topology.replicas[0].calls("get") > 50);
}

/// It has the key, from another primary's history.
#[test]
fn a_replica_of_another_primary_never_serves() {
    let (topology, other) = (Topology::start(1), Topology::start(1));
    let lines = "consistency = \"eventual\"\nreplica-serve-stale-data = \"yes\"";
    topology.primary.cmd(&["SET", "k", "ours"]);
    other.primary.cmd(&["SET", "k", "theirs"]);
    // Far ahead of ours, if offsets of two histories could be compared.
    other.primary.cmd(&["SET", "more", &"x".repeat(100_000)]);
    topology.await_sync();
    other.await_sync();
    let foreign = &other.replicas[0];
    let proxy = Setup::to(topology.primary.port, &[topology.replicas[0].port, foreign.port])
        .policy("default", lines)
        .start_with_any_replicas();
    proxy.await_replicas(1);
    sleep_ms(500);
    assert!(read_often(proxy.port, "k", 100).iter().all(|reply| *reply == "ours"));
    assert_eq!(foreign.calls("get"), 0);
    assert!(topology.replicas[0].calls("get") > 50);
}

/// A replica loads its dataset slowly after a restart, and serves nothing of it before it is whole and in sync.
#[test]
fn a_replica_that_is_loading_never_serves() {
    let mut topology = Topology::start(1);
    let mut conn = topology.primary.connect();
    for n in 0..1000 {
        conn.ask(&["SET", &format!("k:{n}"), "v"]);
    }
    conn.read_many(1000);
    topology.await_sync();
    let lines = "consistency = \"eventual\"\nreplica-serve-stale-data = \"yes\"";
    let proxy = Setup::of(&topology).policy("default", lines).start();
    let replica = &mut topology.replicas[0].server;
    assert_eq!(replica.cmd(&["SAVE"]), "OK");
    replica.add_options(&Server::slow_to_load("3000"));
    replica.restart_unready();
    let restarted = Instant::now();
    let mut was_loading = false;
    while restarted.elapsed() < ms(2500) {
        for reply in read_often(proxy.port, "k:999", 5) {
            assert_eq!(reply, "v", "{:?} after the restart", restarted.elapsed());
        }
        was_loading |= replica.log().contains("Server initialized")
            && Conn::try_open(replica.port)
                .and_then(|mut conn| conn.try_cmd(&["GET", "k:999"]))
                .is_ok_and(|reply| reply.is_error() && reply.error().starts_with("LOADING"));
    }
    assert!(was_loading, "it never was");
    proxy.await_replicas(1);
    assert!(read_often(proxy.port, "k:0", 20).iter().all(|reply| *reply == "v"));
}

/// What `/explain` says is what happens.
#[test]
fn explain_tells_why_a_replica_may_not_serve() {
    let topology = Topology::start(1);
    let proxy = Setup::of(&topology).policy("default", &bounded("200ms")).start();
    let explained = |proxy: &Proxy| proxy.explain(&["GET", "k"]);
    assert_eq!(explained(&proxy)["reason"], "fresh");
    topology.lag(0, secs(3));
    topology.primary.cmd(&["SET", "k", "v"]);
    eventually("it is too old", secs(2), || {
        let explained = explained(&proxy);
        let candidates = explained["candidates"].as_array().unwrap();
        candidates.iter().any(|c| c["reason"] == "too_old" && c["eligible"] == false)
            && explained["target"].as_str().unwrap().ends_with(&topology.primary.port.to_string())
    });
}
