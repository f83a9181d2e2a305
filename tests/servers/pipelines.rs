//! Commands that arrive together: what is decided once for many must be right for each.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use crate::support::{
    Conn, Direction, Proxy, Relay, Setup, Topology, Value, encode, eventually, ms, secs, sleep_ms,
};

fn proxy_at(level: &str, topology: &Topology) -> Proxy {
    let policy = format!("consistency = \"{level}\"");
    Setup::of(topology).proxy("[proxy]\nworkers = 1").policy("default", &policy).start()
}

fn pipeline(commands: &[&[&str]]) -> Vec<u8> {
    commands.iter().flat_map(|command| encode(command)).collect()
}

fn at_replicas(proxy: &Proxy) -> f64 {
    let labels = [("access", "read"), ("target", "replica"), ("reason", "fresh")];
    proxy.metric("redweir_commands_total", &labels)
}

#[test]
fn every_key_has_its_own_fence() {
    for level in ["fenced", "strong"] {
        let topology = Topology::start(1);
        let proxy = proxy_at(level, &topology);
        let (mut writer, mut reader) = (proxy.connect(), proxy.connect());
        for key in ["still", "moving"] {
            assert_eq!(writer.cmd(&["SET", key, "0"]), "OK");
        }
        topology.await_sync();
        topology.lag(0, ms(100));
        sleep_ms(400);
        for n in 1..=10 {
            let value = n.to_string();
            assert_eq!(writer.cmd(&["SET", "moving", &value]), "OK");
            reader.send(&pipeline(&[&["GET", "still"], &["GET", "moving"], &["GET", "still"]]));
            let said: Vec<String> = reader.read_many(3).iter().map(Value::text).collect();
            assert_eq!(said, ["0", value.as_str(), "0"], "{level}");
            sleep_ms(20);
        }
    }
}

#[test]
fn what_a_connection_writes_it_reads() {
    for level in ["session", "fenced", "strong"] {
        let topology = Topology::start(1);
        let proxy = proxy_at(level, &topology);
        let mut conn = proxy.connect();
        assert_eq!(conn.cmd(&["MSET", "a", "0", "b", "0"]), "OK");
        topology.await_sync();
        topology.lag(0, ms(100));
        sleep_ms(400);
        for n in 1..=10 {
            let value = n.to_string();
            conn.send(&pipeline(&[
                &["GET", "a"],
                &["GET", "a"],
                &["SET", "b", &value],
                &["GET", "a"],
                &["GET", "b"],
                &["GET", "a"],
            ]));
            let said: Vec<String> = conn.read_many(6).iter().map(Value::text).collect();
            assert_eq!(said, ["0", "0", "OK", "0", value.as_str(), "0"], "{level}");
            sleep_ms(20);
        }
    }
}

/// The first read is still on its way to the primary, for the sake of another key, when its key is written once more. To
/// the second alone the replica would be fresh enough.
#[test]
fn of_two_reads_of_a_key_the_second_shows_nothing_older() {
    for level in ["session", "fenced"] {
        let topology = Topology::start(1);
        let path = Relay::to(topology.primary.port);
        let policy = format!("consistency = \"{level}\"");
        let proxy = Setup::to(path.port, &topology.replica_ports()).policy("default", &policy).start();
        let mut conn = proxy.connect();
        topology.primary.cmd(&["MSET", "k", "0", "other", "0"]);
        topology.await_sync();
        sleep_ms(300);
        topology.lag(0, ms(600));
        for round in 1..=3 {
            let (old, new) = ((round - 1).to_string(), round.to_string());
            assert_eq!(conn.cmd(&["SET", "hot", &new]), "OK");
            assert_eq!(conn.cmd(&["GET", "k"]), old.as_str());
            path.delay(Direction::Up, ms(200));
            let first: &[&str] = &["MGET", "hot", "k"];
            conn.send(&pipeline(&[first, &["GET", "k"], &["GET", "other"], &["GET", "k"]]));
            sleep_ms(50);
            conn.send(&pipeline(&[&["GET", "other"], &["GET", "k"]]));
            topology.primary.cmd(&["SET", "k", &new]);
            let both = format!("{:?}", conn.read());
            assert_eq!(both, format!("[{new:?}, {new:?}]"), "{level}");
            let said: Vec<String> = conn.read_many(5).iter().map(Value::text).collect();
            assert_eq!(said, [&new, "0", &new, "0", &new], "{level}");
            path.heal();
            sleep_ms(1000);
        }
    }
}

/// One read after the other, each like the one before it: what others write meanwhile counts, whatever keys they name.
#[test]
fn what_arrives_later_is_looked_at_anew() {
    for level in ["fenced", "strong"] {
        let topology = Topology::start(1);
        let proxy = proxy_at(level, &topology);
        let (mut writer, mut reader) = (proxy.connect(), proxy.connect());
        assert_eq!(writer.cmd(&["MSET", "k", "0", "other", "0"]), "OK");
        topology.await_sync();
        topology.lag(0, ms(150));
        sleep_ms(400);
        let writes: [&[&str]; 3] =
            [&["SET", "k"], &["EVAL", "return redis.call('SET', 'k', ARGV[1])", "0"], &["FCALL", "put", "0"]];
        writer.cmd(&[
            "FUNCTION",
            "LOAD",
            "#!lua name=l\nredis.register_function('put', function(_, a) return redis.call('SET', 'k', a[1]) end)",
        ]);
        for round in 1..=3 {
            for (at, write) in writes.iter().enumerate() {
                sleep_ms(300);
                for _ in 0..20 {
                    reader.cmd(&["GET", "k"]);
                }
                // The primary's own PING, once in ten seconds, is one more thing to catch up with.
                eventually("the replica has caught up", secs(2), || {
                    let before = at_replicas(&proxy);
                    reader.cmd(&["GET", "k"]);
                    at_replicas(&proxy) > before
                });
                let value = format!("{round} {at}");
                assert_eq!(writer.cmd(&[*write, &[value.as_str()]].concat()), "OK");
                assert_eq!(reader.cmd(&["GET", "k"]), value.as_str(), "{level}: {write:?}");
                assert_eq!(reader.cmd(&["GET", "other"]), "0");
            }
        }
    }
}

/// A client of many threads: there is always a read of the key on its way.
#[test]
fn a_key_that_is_always_being_read_comes_back_to_the_replicas() {
    let topology = Topology::start(1);
    let path = Relay::to(topology.primary.port);
    let proxy =
        Setup::to(path.port, &topology.replica_ports()).policy("default", "consistency = \"fenced\"").start();
    let mut conn = proxy.connect();
    assert_eq!(conn.cmd(&["SET", "k", "0"]), "OK");
    sleep_ms(300);
    path.delay(Direction::Down, ms(10));
    conn.send(&encode(&["SET", "k", "1"]));
    conn.send(&encode(&["GET", "k"]).repeat(50));
    assert_eq!(conn.read(), "OK");
    let mut before = None;
    for n in 0..400 {
        conn.send(&encode(&["GET", "k"]));
        assert_eq!(conn.read(), "1");
        sleep_ms(1);
        if n == 300 {
            before = Some(at_replicas(&proxy));
        }
    }
    let reads = at_replicas(&proxy) - before.unwrap_or_default();
    assert!(reads > 50.0, "{reads} of the last 100 reads at the replica");
}

/// Some reads only the primary may answer. What they have shown, others don't take back.
#[test]
fn what_the_primary_alone_may_show_counts_as_seen() {
    let topology = Topology::start(1);
    let proxy = proxy_at("session", &topology);
    let mut conn = proxy.connect();
    topology.primary.cmd(&["XADD", "s", "1-1", "f", "v"]);
    topology.primary.cmd(&["HSET", "h", "f", "0"]);
    topology.await_sync();
    sleep_ms(300);
    topology.lag(0, ms(300));
    for round in 1..=3 {
        let (id, n) = (format!("{}-1", round + 1), round.to_string());
        topology.primary.cmd(&["XADD", "s", &id, "f", "v"]);
        topology.primary.cmd(&["HSET", "h", "f", &n]);
        conn.send(&pipeline(&[
            &["XINFO", "STREAM", "s"],
            &["XLEN", "s"],
            &["HSCAN", "h", "0"],
            &["HGET", "h", "f"],
        ]));
        let said: Vec<String> = conn.read_many(4).iter().map(|value| format!("{value:?}")).collect();
        assert!(said[0].contains(&id) && said[2].contains(&format!("{n:?}")), "{said:?}");
        assert_eq!((&said[1], &said[3]), (&format!(":{}", round + 1), &format!("{n:?}")), "{said:?}");
        let one_by_one = [conn.cmd(&["XINFO", "STREAM", "s"]), conn.cmd(&["XLEN", "s"])];
        assert_eq!(one_by_one[1], Value::Int(round + 1));
        sleep_ms(600);
    }
}

/// The read is still on its way when writes like those before it are sent.
#[test]
fn a_write_does_not_overtake_a_read_of_its_key() {
    for level in ["session", "fenced"] {
        let topology = Topology::start(1);
        let path = Relay::to(topology.replicas[0].port);
        let policy = format!("consistency = \"{level}\"");
        let proxy = Setup::to(topology.primary.port, &[path.port]).policy("default", &policy).start();
        topology.primary.cmd(&["MSET", "k", "old", "other", "0"]);
        topology.await_sync();
        sleep_ms(300);
        let mut conn = proxy.connect();
        assert_eq!(conn.cmd(&["GET", "k"]), "old");
        path.delay(Direction::Up, ms(200));
        conn.send(&pipeline(&[
            &["GET", "k"],
            &["SET", "other", "1"],
            &["SET", "other", "2"],
            &["SET", "k", "new"],
            &["GET", "other"],
        ]));
        let said: Vec<String> = conn.read_many(5).iter().map(Value::text).collect();
        assert_eq!(said, ["old", "OK", "OK", "OK", "2"], "{level}");
    }
}

/// The same command blocks or does not, as its arguments say. Whoever blocks does it on a connection of its own.
#[test]
fn a_read_that_blocks_blocks_nobody_else() {
    let topology = Topology::start(1);
    let proxy = proxy_at("eventual", &topology);
    assert!(!proxy.cmd(&["XADD", "s", "1-1", "f", "v"]).is_error());
    topology.await_sync();
    sleep_ms(300);
    let mut conn = proxy.connect();
    let read: &[&str] = &["XREAD", "STREAMS", "s", "0"];
    conn.send(&pipeline(&[read, read, &["XREAD", "BLOCK", "0", "STREAMS", "s", "$"]]));
    assert_eq!(conn.read_many(2).len(), 2);
    sleep_ms(100);
    let mut other = proxy.connect();
    assert_eq!(other.patience(secs(2)).cmd(&["GET", "k"]), Value::Null);
    assert_eq!(other.cmd(&["XADD", "s", "2-1", "f", "w"]), "2-1");
    assert!(format!("{:?}", conn.read()).contains("2-1"));
}

/// In the same words as on a direct connection, and yet where they may be, the reads are at the replica.
#[test]
fn a_command_in_between_may_change_everything() {
    let acl = ["--user default on nopass ~* &* +@all", "--user small on >pw ~s* &* +get +select +ping"];
    for level in ["eventual", "fenced"] {
        let topology = Topology::with(&acl, 1, &acl);
        let proxy = proxy_at(level, &topology);
        for db in ["0", "1"] {
            let mut direct = Conn::open(topology.primary.port);
            direct.cmd(&["SELECT", db]);
            for key in ["k", "s"] {
                direct.cmd(&["SET", key, &format!("{key} of {db}")]);
            }
        }
        topology.await_sync();
        sleep_ms(300);
        let get: [&[&str]; 2] = [&["GET", "k"], &["GET", "s"]];
        let between: [&[&[&str]]; 10] = [
            &[&["SELECT", "1"]],
            &[&["SELECT", "0"]],
            &[&["MULTI"]],
            &[&["EXEC"]],
            &[&["HELLO", "3", "SETNAME", "n"]],
            &[&["GET"]],
            &[&["GET", "k", "k"]],
            &[&["AUTH", "small", "pw"]],
            &[&["RESET"]],
            &[&["WATCH", "k"], &["UNWATCH"]],
        ];
        let mut commands: Vec<&[&str]> = Vec::new();
        for some in between {
            commands.extend(get.iter().chain(&get).chain(some));
        }
        commands.extend(get);
        let bytes = pipeline(&commands);
        let before = at_replicas(&proxy);
        let said = [topology.primary.port, proxy.port].map(|port| {
            let mut conn = Conn::open(port);
            conn.send(&bytes);
            let said: Vec<String> =
                conn.read_many(commands.len()).iter().map(|value| format!("{value:?}")).collect();
            said
        });
        for (n, command) in commands.iter().enumerate().filter(|(_, command)| command[0] != "HELLO") {
            assert_eq!(said[0][n], said[1][n], "{level}, command {n}: {command:?}");
        }
        // What a transaction has shown at the primary, reads that are fenced do not take back.
        let reads = at_replicas(&proxy) - before;
        let least = if level == "fenced" { 12.0 } else { 30.0 };
        assert!(reads >= least, "{level}: {reads} reads at the replica");
    }
}
