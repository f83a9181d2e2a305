//! Reads that don't say which keys they read, or whose answer replicas do not have.

use crate::corners::{Tally, at_replicas, await_service, hold, release, share};
use crate::support::{Conn, Setup, Topology, Value, eventually, secs};

/// A function that reads the key that its argument names.
const LIBRARY: &str = "#!lua name=l\nredis.register_function{function_name='peek', \
     callback=function(_, args) return redis.call('get', args[1]) end, flags={'no-writes'}}";
/// A script that does.
const PEEK: &str = "return redis.call('get', ARGV[1])";

/// Reads of `k` by ways that do not show that it is read, and of the keyspace. Each shows the value written last.
fn by_stealth(conn: &mut Conn, sha: &str, value: &str) -> Vec<(&'static str, Value)> {
    let scan = |reply: Value| reply.items()[1].clone();
    vec![
        ("EVAL_RO", conn.cmd(&["EVAL_RO", PEEK, "1", "still", "k"])),
        ("EVAL_RO without keys", conn.cmd(&["EVAL_RO", PEEK, "0", "k"])),
        ("EVALSHA_RO", conn.cmd(&["EVALSHA_RO", sha, "1", "still", "k"])),
        ("FCALL_RO", conn.cmd(&["FCALL_RO", "peek", "1", "still", "k"])),
        ("FCALL_RO without keys", conn.cmd(&["FCALL_RO", "peek", "0", "k"])),
        ("KEYS", conn.cmd(&["KEYS", &format!("only:{value}")])),
        ("SCAN", scan(conn.cmd(&["SCAN", "0", "MATCH", "only:*", "COUNT", "100"]))),
        ("DBSIZE", conn.cmd(&["DBSIZE"])),
        ("RANDOMKEY", {
            conn.cmd(&["SELECT", "1"]);
            let key = conn.cmd(&["RANDOMKEY"]);
            conn.cmd(&["SELECT", "0"]);
            key
        }),
    ]
}

fn what_is_not_declared_is_not_old(level: &str, through: bool) {
    let topology = Topology::start(1);
    let lines = format!("consistency = {level:?}\nmax-lag = \"20s\"");
    // What `strong` asks for beyond the fences is known at once then.
    let stream = if through { "auto" } else { "primary" };
    let stream = format!("[stream]\nsource = {stream:?}");
    let proxy = Setup::of(&topology).policy("default", &lines).toml(&stream).start();
    let mut direct = topology.primary.connect();
    assert_eq!(direct.cmd(&["FUNCTION", "LOAD", LIBRARY]), "l");
    direct.cmd(&["MSET", "still", "0", "k", "0"]);
    let sha = direct.cmd(&["SCRIPT", "LOAD", PEEK]).text();
    topology.replicas[0].cmd(&["SCRIPT", "LOAD", PEEK]);
    let mut writer = if through { proxy.connect() } else { topology.primary.connect() };
    let mut conn = proxy.connect();
    let mut tally = Tally::default();
    for round in 1..=12 {
        await_service(&topology, &proxy);
        eventually("the replica serves", secs(5), || {
            let before = at_replicas(&proxy);
            conn.cmd(&["GET", "still"]);
            at_replicas(&proxy) > before
        });
        hold(&topology, 0);
        let value = round.to_string();
        for command in [
            &["SET", "k", &value][..],
            &["DEL", &format!("only:{}", round - 1)],
            &["SET", &format!("only:{value}"), "v"],
            &["SADD", "grows", &value],
            &["SET", &format!("more:{value}"), "v"],
            &["SELECT", "1"],
            &["SET", &format!("only:{value}"), "v"],
            &["DEL", &format!("only:{}", round - 1)],
            &["SELECT", "0"],
        ] {
            assert!(!writer.cmd(command).is_error(), "{command:?}");
        }
        let truth = by_stealth(&mut direct, &sha, &value);
        for _ in 0..2 {
            for ((name, read), (_, present)) in by_stealth(&mut conn, &sha, &value).iter().zip(&truth) {
                tally.look((read != present).then(|| format!("{name}: {read:?}, is {present:?}")));
            }
            conn.cmd(&["GET", "still"]);
        }
        release(&topology, 0);
    }
    println!("{level}: {:.0} % by replicas", 100.0 * share(&proxy));
    assert!(at_replicas(&proxy) >= 12.0, "the replica served {} reads", at_replicas(&proxy));
    tally.assert_clean(&format!("{level}: reads that don't say what they read"));
}

/// A8
#[test]
fn fenced_reads_of_keys_that_are_not_declared_are_not_old() {
    what_is_not_declared_is_not_old("fenced", true);
}

/// A8
#[test]
fn strong_reads_of_keys_that_are_not_declared_are_not_old() {
    what_is_not_declared_is_not_old("strong", false);
}

/// A7: that a consumer has read its pending entries again is counted where it did, and not replicated.
#[test]
fn pending_entries_are_as_the_primary_has_them() {
    let topology = Topology::start(1);
    let proxy = Setup::of(&topology).start();
    let (mut conn, mut direct) = (proxy.connect(), topology.primary.connect());
    for n in 0..3 {
        conn.cmd(&["XADD", "s", "*", "n", &n.to_string()]);
    }
    conn.cmd(&["XGROUP", "CREATE", "s", "g", "0"]);
    conn.cmd(&["XREADGROUP", "GROUP", "g", "c", "STREAMS", "s", ">"]);
    // Entries: ID, consumer, how often delivered. How long ago changes with every look.
    let pending = |conn: &mut Conn| -> Vec<String> {
        let reply = conn.cmd(&["XPENDING", "s", "g", "-", "+", "10"]);
        let entry =
            |entry: &Value| format!("{:?} {:?} {:?}", entry.items()[0], entry.items()[1], entry.items()[3]);
        reply.items().iter().map(entry).collect()
    };
    let mut tally = Tally::default();
    for round in 0..10 {
        for _ in 0..3 {
            conn.cmd(&["XREADGROUP", "GROUP", "g", "c", "STREAMS", "s", "0"]);
        }
        await_service(&topology, &proxy);
        eventually("the replica serves", secs(5), || {
            let before = at_replicas(&proxy);
            conn.cmd(&["XLEN", "s"]);
            at_replicas(&proxy) > before
        });
        let truth = pending(&mut direct);
        for _ in 0..5 {
            let read = pending(&mut conn);
            tally.look((read != truth).then(|| format!("round {round}: {read:?}, is {truth:?}")));
        }
        // The same counts, in a command of many fields.
        let counts = |conn: &mut Conn| {
            let reply = conn.cmd(&["XINFO", "STREAM", "s", "FULL"]);
            let groups = reply.field("groups").items()[0].field("pending").clone();
            groups.items().iter().map(|entry| entry.items()[3].int()).collect::<Vec<_>>()
        };
        let (read, truth) = (counts(&mut conn), counts(&mut direct));
        tally.look((read != truth).then(|| format!("XINFO STREAM FULL: {read:?}, is {truth:?}")));
    }
    tally.assert_clean("pending entries");
}
