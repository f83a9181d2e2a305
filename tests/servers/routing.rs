//! Drop-in: through the proxy a client sees what it would see of one Redis, wherever its commands go. Reads go to
//! replicas, the rest to the primary; replies come in order, errors in Redis' words, and nobody gets another's reply.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]

use std::collections::HashSet;
use std::io::Write as _;
use std::thread;
use std::time::Instant;

use crate::support::rng::Rng;
use crate::support::{
    Conn, Direction, Proxy, Redis, Relay, Setup, Topology, Value, encode, eventually, ms, secs, sleep_ms,
};

/// A primary and two replicas behind a proxy with default settings.
fn two_replicas() -> (Topology, Proxy) {
    let topology = Topology::start(2);
    let proxy = Setup::of(&topology).start();
    (topology, proxy)
}

/// A primary and one replica behind a proxy with default settings.
fn one_replica() -> (Topology, Proxy) {
    let topology = Topology::start(1);
    let proxy = Setup::of(&topology).start();
    (topology, proxy)
}

#[test]
fn reads_go_to_replicas_and_writes_to_the_primary() {
    let (topology, proxy) = two_replicas();
    assert_eq!(proxy.cmd(&["SET", "k", "v"]), "OK");
    assert_eq!(proxy.cmd(&["INCR", "n"]), 1);
    topology.await_sync();
    sleep_ms(300);
    let read = || {
        let mut clients: Vec<Conn> = (0..20).map(|_| proxy.connect()).collect();
        for conn in &mut clients {
            for _ in 0..10 {
                assert_eq!(conn.cmd(&["GET", "k"]), "v");
            }
        }
        (topology.primary.calls("get"), topology.replica_calls("get"))
    };
    let (here, there) = read();
    assert_eq!(here + there.iter().sum::<u64>(), 200);
    assert!(here <= 20, "{here} of 200 reads went to the primary");
    // On a busy machine one of them is clearly fresher for a while.
    eventually("both replicas take part", secs(10), || read().1.iter().all(|&calls| calls > 0));
    assert_eq!((topology.primary.calls("set"), topology.primary.calls("incr")), (1, 1));
    assert!(proxy.metric("redweir_commands_total", &[("access", "read"), ("target", "replica")]) >= 180.0);
}

#[test]
fn an_unknown_command_reaches_the_primary_and_its_error_is_verbatim() {
    let (topology, proxy) = one_replica();
    let before = topology.primary.info("errorstats");
    assert!(!before.contains_key("errorstat_ERR"), "{before:?}");
    let through = proxy.cmd(&["NOSUCH", "a", "b"]);
    assert!(
        through.error().starts_with("ERR unknown command 'NOSUCH', with args beginning with: 'a'"),
        "{through:?}"
    );
    assert_eq!(topology.primary.info("errorstats")["errorstat_ERR"], "count=1");
    assert_eq!(through, topology.primary.cmd(&["NOSUCH", "a", "b"]));
}

/// `FCALL_RO` is for replicas; what it says of a function that may write differs there.
#[test]
fn a_function_that_may_write_is_refused_in_the_primarys_words() {
    let (topology, proxy) = one_replica();
    let code = "#!lua name=lib\nredis.register_function('put', function(k, a) return redis.call('SET', k[1], a[1]) end)";
    assert_eq!(topology.primary.cmd(&["FUNCTION", "LOAD", code]), "lib");
    topology.await_sync();
    sleep_ms(300);
    let call = ["FCALL_RO", "put", "1", "k", "v"];
    let expected = topology.primary.cmd(&call);
    assert_eq!(expected.error(), "ERR Can not execute a script with write flag using *_ro command.");
    for _ in 0..5 {
        assert_eq!(proxy.cmd(&call), expected);
    }
    let asked = &topology.replicas[0].info("commandstats")["cmdstat_fcall_ro"];
    assert!(!asked.contains("rejected_calls=0"), "the replica was asked first: {asked}");
}

#[test]
fn replies_of_a_mixed_pipeline_come_in_order_and_show_own_writes() {
    const KEYS: usize = 200;
    const COMMANDS: usize = 8_000;
    let (topology, proxy) = two_replicas();
    let mut conn = proxy.connect();
    for key in 0..KEYS {
        conn.ask(&["SET", &format!("key:{key}"), &format!("key:{key}=0")]);
    }
    conn.read_many(KEYS);
    topology.await_sync();
    sleep_ms(300);
    let mut rng = Rng::new(1);
    let (mut input, mut expected, mut written) = (Vec::new(), Vec::new(), vec![0; KEYS]);
    let mut increments = 0;
    for n in 1..=COMMANDS {
        let (key, what) = (rng.below(KEYS), rng.below(100));
        let name = format!("key:{key}");
        if what < 80 {
            input.extend(encode(&["GET", &name]));
            expected.push(Value::Bulk(format!("{name}={}", written[key]).into_bytes()));
        } else if what < 85 {
            written[key] = n;
            input.extend(encode(&["SET", &name, &format!("{name}={n}")]));
            expected.push(Value::Status("OK".to_owned()));
        } else if what < 90 {
            increments += 1;
            input.extend(encode(&["INCR", "n"]));
            expected.push(Value::Int(increments));
        } else if what < 95 {
            input.extend(encode(&["ECHO", &format!("echo {n}")]));
            expected.push(Value::Bulk(format!("echo {n}").into_bytes()));
        } else {
            input.extend(encode(&["STRLEN", &name]));
            expected.push(Value::Int(format!("{name}={}", written[key]).len() as i64));
        }
    }
    let mut sender = conn.stream();
    let sending = thread::spawn(move || sender.write_all(&input).unwrap());
    for (n, expected) in expected.iter().enumerate() {
        assert_eq!(&conn.read(), expected, "reply {n} of {COMMANDS}");
    }
    sending.join().unwrap();
    let there: u64 = topology.replica_calls("get").iter().sum();
    assert!(there > COMMANDS as u64 / 20, "only {there} reads were served by replicas");
}

/// The read is on its way to a replica when the write is done: replication must not overtake it.
#[test]
fn a_read_does_not_see_what_its_own_client_writes_after_it() {
    let topology = Topology::start(1);
    let path = Relay::to(topology.replicas[0].port);
    let proxy = Setup::to(topology.primary.port, &[path.port]).start();
    topology.primary.cmd(&["SET", "k", "old"]);
    topology.await_sync();
    sleep_ms(300);
    let mut conn = proxy.connect();
    assert_eq!(conn.cmd(&["GET", "k"]), "old");
    path.delay(Direction::Up, ms(200));
    conn.ask(&["GET", "k"]).ask(&["SET", "k", "new"]).ask(&["GET", "k"]);
    assert_eq!(conn.read_many(3).iter().map(Value::text).collect::<Vec<_>>(), ["old", "OK", "new"]);
    conn.ask(&["GET", "k"]).ask(&["MULTI"]).ask(&["SET", "k", "newest"]).ask(&["EXEC"]);
    assert_eq!(conn.read(), "new");
}

#[test]
fn many_clients_with_pipelines_get_their_own_replies() {
    let (topology, proxy) = two_replicas();
    let mut conn = proxy.connect();
    for key in 0..50 {
        conn.cmd(&["SET", &format!("k:{key}"), &format!("value of k:{key}")]);
    }
    topology.await_sync();
    let clients: Vec<_> = (0..8)
        .map(|n| {
            let mut conn = proxy.connect();
            thread::spawn(move || {
                let mut rng = Rng::new(n);
                for round in 0..60 {
                    let keys: Vec<usize> = (0..40).map(|_| rng.below(50)).collect();
                    let tag = format!("{n}/{round}");
                    let mut input: Vec<u8> =
                        keys.iter().flat_map(|k| encode(&["GET", &format!("k:{k}")])).collect();
                    input.extend(encode(&["ECHO", &tag]));
                    conn.send(&input);
                    for key in keys {
                        assert_eq!(conn.read(), format!("value of k:{key}").as_str());
                    }
                    assert_eq!(conn.read(), tag.as_str());
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    assert!(topology.replica_calls("get").iter().sum::<u64>() > 1000);
}

#[test]
fn errors_are_verbatim() {
    let (topology, proxy) = one_replica();
    proxy.cmd(&["SET", "text", "x"]);
    proxy.cmd(&["RPUSH", "list", "x"]);
    topology.await_sync();
    sleep_ms(200);
    let commands: &[&[&str]] = &[
        &["INCR", "text"],
        &["GET", "list"],
        &["GET"],
        &["SET", "k"],
        &["SET", "k", "v", "EX", "0"],
        &["LINDEX", "text", "0"],
        &["EVALSHA", "0123456789012345678901234567890123456789", "0"],
        &["EVALSHA_RO", "0123456789012345678901234567890123456789", "0"],
        &["EVAL_RO", "return redis.call('SET', 'a', 'b')", "0"],
        &["EVAL", "return {err='MY own error'}", "0"],
        &["OBJECT", "NOSUCH"],
        &["CONFIG", "NOSUCH"],
        &["EXEC"],
        &["DISCARD"],
        &["XREADGROUP", "GROUP", "g", "c", "STREAMS", "x", ">"],
        &["RESTORE", "k", "0", "nonsense"],
        &["ZADD", "z", "notafloat", "m"],
        &["ECHO"],
        &["PING", "a", "b"],
        &["SELECT"],
        &["SELECT", "1000"],
        &["SELECT", "x"],
        &["HELLO", "4"],
        &["HELLO", "x"],
        &["CLIENT", "NOSUCH"],
        &["CLIENT", "SETNAME", "a b"],
        &["WAIT", "x", "0"],
        &["AUTH"],
        &["AUTH", "nobody", "wrong"],
    ];
    let (mut through, mut direct) = (proxy.connect(), topology.primary.connect());
    for command in commands {
        let (reply, expected) = (through.cmd(command), direct.cmd(command));
        assert!(expected.is_error(), "{command:?}: {expected:?}");
        assert_eq!(reply, expected, "{command:?}");
    }
}

#[test]
fn select_holds_for_its_connection_on_every_node() {
    let (topology, proxy) = two_replicas();
    let (mut zero, mut three) = (proxy.connect(), proxy.connect());
    assert_eq!(three.cmd(&["SELECT", "3"]), "OK");
    assert_eq!(zero.cmd(&["SET", "k", "in 0"]), "OK");
    assert_eq!(three.cmd(&["SET", "k", "in 3"]), "OK");
    topology.await_sync();
    sleep_ms(200);
    for _ in 0..100 {
        assert_eq!(zero.cmd(&["GET", "k"]), "in 0");
        assert_eq!(three.cmd(&["GET", "k"]), "in 3");
    }
    three.ask(&["SELECT", "0"]).ask(&["GET", "k"]).ask(&["SELECT", "3"]).ask(&["GET", "k"]);
    assert_eq!(three.read_many(4).iter().map(Value::text).collect::<Vec<_>>(), ["OK", "in 0", "OK", "in 3"]);
    assert!(three.cmd(&["SELECT", "16"]).is_error());
    assert_eq!(three.cmd(&["GET", "k"]), "in 3", "a SELECT that failed changes nothing");
    assert!(topology.replica_calls("get").iter().sum::<u64>() > 100);
}

#[test]
fn transactions_are_redis_own() {
    let (_topology, proxy) = one_replica();
    let (mut conn, mut other) = (proxy.connect(), proxy.connect());
    assert_eq!(conn.cmd(&["MULTI"]), "OK");
    assert_eq!(conn.cmd(&["SET", "k", "1"]), "QUEUED");
    assert_eq!(conn.cmd(&["GET", "k"]), "QUEUED");
    assert_eq!(other.cmd(&["GET", "k"]), Value::Null);
    assert_eq!(format!("{:?}", conn.cmd(&["EXEC"])), "[+OK, \"1\"]");
    assert_eq!(other.cmd(&["GET", "k"]), "1");

    conn.cmd(&["MULTI"]);
    assert!(conn.cmd(&["NOSUCH"]).is_error());
    assert!(conn.cmd(&["EXEC"]).error().starts_with("EXECABORT"));

    conn.cmd(&["MULTI"]);
    conn.cmd(&["SET", "k", "2"]);
    assert_eq!(conn.cmd(&["DISCARD"]), "OK");
    assert_eq!(conn.cmd(&["GET", "k"]), "1");

    conn.send(
        &[encode(&["MULTI"]), encode(&["INCR", "k"]), encode(&["EXEC"]), encode(&["GET", "k"])].concat(),
    );
    assert_eq!(format!("{:?}", conn.read_many(4)), "[+OK, +QUEUED, [:2], \"2\"]");
}

#[test]
fn watch_sees_what_others_write() {
    let (_topology, proxy) = one_replica();
    let (mut conn, mut other) = (proxy.connect(), proxy.connect());
    conn.cmd(&["SET", "k", "1"]);
    assert_eq!(conn.cmd(&["WATCH", "k"]), "OK");
    assert_eq!(conn.cmd(&["GET", "k"]), "1");
    other.cmd(&["SET", "k", "2"]);
    conn.cmd(&["MULTI"]);
    conn.cmd(&["SET", "k", "3"]);
    assert_eq!(conn.cmd(&["EXEC"]), Value::Null);
    assert_eq!(other.cmd(&["GET", "k"]), "2");

    conn.cmd(&["WATCH", "k"]);
    assert_eq!(conn.cmd(&["UNWATCH"]), "OK");
    other.cmd(&["SET", "k", "4"]);
    conn.cmd(&["MULTI"]);
    conn.cmd(&["INCR", "k"]);
    assert_eq!(format!("{:?}", conn.cmd(&["EXEC"])), "[:5]");
}

#[test]
fn a_transaction_that_its_client_leaves_reaches_nobody() {
    let (_topology, proxy) = one_replica();
    for n in 0..100 {
        let mut conn = proxy.connect();
        conn.ask(&["WATCH", "k"]).ask(&["MULTI"]).ask(&["SET", "left", "behind"]);
        if n % 2 == 0 {
            conn.read_many(3);
        }
        drop(conn);
        let mut next = proxy.connect();
        assert_eq!(next.cmd(&["SET", "k", &n.to_string()]), "OK", "not QUEUED");
        assert_eq!(next.cmd(&["GET", "left"]), Value::Null);
        assert_eq!(next.cmd(&["EXEC"]).error(), "ERR EXEC without MULTI");
    }
}

#[test]
fn blocking_commands_block_nobody_else() {
    let (topology, proxy) = one_replica();
    let (mut blocked, mut other) = (proxy.connect(), proxy.connect());
    blocked.ask(&["BLPOP", "queue", "5"]).ask(&["ECHO", "after"]);
    assert!(blocked.is_silent_for(ms(100)));
    let sent = Instant::now();
    assert_eq!(other.cmd(&["RPUSH", "queue", "job"]), 1);
    assert!(sent.elapsed() < secs(2));
    assert_eq!(format!("{:?}", blocked.read()), "[\"queue\", \"job\"]");
    assert_eq!(blocked.read(), "after");
    assert_eq!(blocked.cmd(&["BLPOP", "queue", "0.05"]), Value::Null);

    let mut leaves = proxy.connect();
    leaves.ask(&["BLPOP", "queue", "0"]);
    eventually("it blocks", secs(2), || topology.primary.info("clients")["blocked_clients"] == "1");
    drop(leaves);
    eventually("its block ends with it", secs(3), || {
        topology.primary.info("clients")["blocked_clients"] == "0"
    });
    assert_eq!(other.cmd(&["RPUSH", "queue", "kept"]), 1);
    assert_eq!(other.cmd(&["LPOP", "queue"]), "kept", "who has left takes nothing");
}

#[test]
fn messages_reach_subscribers_and_only_them() {
    let (_topology, proxy) = one_replica();
    let (mut subscriber, mut other) = (proxy.connect(), proxy.connect());
    subscriber.ask(&["SUBSCRIBE", "news", "more"]);
    assert_eq!(
        format!("{:?}", subscriber.read_many(2)),
        "[[\"subscribe\", \"news\", :1], [\"subscribe\", \"more\", :2]]"
    );
    assert_eq!(other.cmd(&["PUBLISH", "news", "hello"]), 1);
    assert_eq!(format!("{:?}", subscriber.read()), "[\"message\", \"news\", \"hello\"]");
    assert_eq!(format!("{:?}", subscriber.cmd(&["PING"])), "[\"pong\", \"\"]");
    assert!(subscriber.cmd(&["GET", "k"]).error().starts_with("ERR Can't execute 'get'"));
    subscriber.ask(&["UNSUBSCRIBE"]);
    subscriber.read_many(2);
    assert_eq!(other.cmd(&["PUBLISH", "news", "nobody"]), 0);
    assert_eq!(subscriber.cmd(&["SET", "k", "v"]), "OK");
    assert_eq!(subscriber.cmd(&["GET", "k"]), "v");
    assert!(other.is_silent_for(ms(50)));

    let mut modern = proxy.connect();
    modern.cmd(&["HELLO", "3"]);
    assert_eq!(format!("{:?}", modern.cmd(&["PSUBSCRIBE", "n*"])), ">[\"psubscribe\", \"n*\", :1]");
    assert_eq!(other.cmd(&["PUBLISH", "news", "again"]), 1);
    assert_eq!(format!("{:?}", modern.read()), ">[\"pmessage\", \"n*\", \"news\", \"again\"]");
    assert_eq!(modern.cmd(&["GET", "k"]), "v", "in RESP3 a subscriber may do anything");
}

const USERS: &[&str] = &[
    "--user",
    "alice",
    "on",
    ">alice-pw",
    "~a:*",
    "&*",
    "+@all",
    "--user",
    "bob",
    "on",
    ">bob-pw",
    "~b:*",
    "&*",
    "+get",
    "+set",
    "+ping",
    "+acl|whoami",
];

#[test]
fn a_client_acts_as_the_user_that_it_is() {
    let topology = Topology::with(USERS, 1, USERS);
    let proxy = Setup::of(&topology).start();
    let mut conn = proxy.connect();
    assert_eq!(conn.cmd(&["ACL", "WHOAMI"]), "default");
    let wrong = conn.cmd(&["AUTH", "alice", "wrong"]);
    assert_eq!(wrong.error(), "WRONGPASS invalid username-password pair or user is disabled.");
    assert_eq!(conn.cmd(&["ACL", "WHOAMI"]), "default", "an AUTH that failed changes nothing");
    assert_eq!(conn.cmd(&["AUTH", "bob", "bob-pw"]), "OK");
    assert_eq!(conn.cmd(&["ACL", "WHOAMI"]), "bob");
    assert_eq!(conn.cmd(&["SET", "b:1", "x"]), "OK");
    let refused = [conn.cmd(&["DEL", "b:1"]), conn.cmd(&["SET", "a:1", "x"]), conn.cmd(&["GET", "a:1"])];
    for refused in &refused {
        assert!(refused.error().starts_with("NOPERM"), "{refused:?}");
    }
    let mut direct = topology.primary.connect();
    direct.cmd(&["AUTH", "bob", "bob-pw"]);
    assert_eq!(refused[0], direct.cmd(&["DEL", "b:1"]));
    assert_eq!(conn.cmd(&["HELLO", "3", "AUTH", "alice", "alice-pw"]).field("proto"), &3);
    assert_eq!(conn.cmd(&["ACL", "WHOAMI"]), "alice");
    assert_eq!(conn.cmd(&["RESET"]), "RESET");
    assert_eq!(conn.cmd(&["ACL", "WHOAMI"]), "default");
}

#[test]
fn connections_of_two_users_never_mix() {
    let topology = Topology::with(USERS, 1, USERS);
    let proxy = Setup::of(&topology).start();
    proxy.cmd(&["SET", "a:1", "for alice"]);
    topology.await_sync();
    sleep_ms(200);
    let users = [("alice", "alice-pw"), ("bob", "bob-pw"), ("alice", "alice-pw"), ("bob", "bob-pw")];
    let clients = users.map(|(user, password)| {
        let mut conn = proxy.connect();
        thread::spawn(move || {
            assert_eq!(conn.cmd(&["AUTH", user, password]), "OK");
            for _ in 0..500 {
                conn.ask(&["GET", "a:1"]).ask(&["ACL", "WHOAMI"]);
                let (read, who) = (conn.read(), conn.read());
                assert_eq!(who, user);
                let right =
                    if user == "alice" { read == "for alice" } else { read.text().starts_with("NOPERM") };
                assert!(right, "{user} got {read:?}");
            }
        })
    });
    for client in clients {
        client.join().unwrap();
    }
    assert!(topology.replicas[0].calls("get") > 500, "replicas know who is asking, too");
}

#[test]
fn who_has_not_authenticated_reaches_no_server() {
    let options = &["--requirepass", "hunter2", "--masterauth", "hunter2"];
    let topology = Topology::with(options, 1, options);
    let proxy = Setup::of(&topology).upstream("password = \"hunter2\"").start();
    topology.primary.cmd(&["SET", "k", "v"]);
    topology.await_sync();
    let mut conn = proxy.connect();
    for command in
        [&["GET", "k"][..], &["SET", "k", "w"], &["INFO"], &["PING"], &["MULTI"], &["SUBSCRIBE", "c"]]
    {
        assert_eq!(conn.cmd(command).error(), "NOAUTH Authentication required.", "{command:?}");
    }
    assert!(conn.cmd(&["HELLO", "3"]).error().starts_with("NOAUTH HELLO must be called"));
    let wrong = "WRONGPASS invalid username-password pair or user is disabled.";
    assert_eq!(conn.cmd(&["AUTH", "wrong"]).error(), wrong);
    assert_eq!(conn.cmd(&["GET", "k"]).error(), "NOAUTH Authentication required.");
    assert_eq!(conn.cmd(&["AUTH", "hunter2"]), "OK");
    assert_eq!(conn.cmd(&["GET", "k"]), "v");
    assert_eq!((topology.primary.calls("set"), topology.primary.calls("multi")), (1, 0));
}

#[test]
fn hello_tells_that_this_is_one_master() {
    let (topology, proxy) = one_replica();
    let mut conn = proxy.connect();
    let hello = conn.cmd(&["HELLO", "3"]);
    assert!(matches!(hello, Value::Map(_)), "{hello:?}");
    assert_eq!(hello.field("proto"), &3);
    assert_eq!(hello.field("role"), &"master");
    assert_eq!(hello.field("mode"), &"standalone");
    assert_eq!(hello.field("server"), &"redis");
    assert_eq!(hello.field("version").text(), topology.primary.info("server")["redis_version"]);
    assert_eq!(hello.field("id"), &conn.cmd(&["CLIENT", "ID"]));
    conn.cmd(&["HSET", "h", "f", "v"]);
    assert_eq!(conn.cmd(&["HGETALL", "h"]).field("f"), &"v");
    assert!(matches!(conn.cmd(&["HGETALL", "h"]), Value::Map(_)));
    assert_eq!(conn.cmd(&["GET", "none"]), Value::Null);
    let back = conn.cmd(&["HELLO", "2", "SETNAME", "worker"]);
    assert!(matches!(back, Value::Array(_)), "{back:?}");
    assert!(matches!(conn.cmd(&["HGETALL", "h"]), Value::Array(_)));
    assert_eq!(conn.cmd(&["CLIENT", "GETNAME"]), "worker");
    assert_eq!(conn.cmd(&["HELLO", "4"]).error(), "NOPROTO unsupported protocol version");
}

#[test]
fn a_client_has_a_name_an_id_and_a_line_of_its_own() {
    let (_topology, proxy) = one_replica();
    let (mut conn, mut other) = (proxy.connect(), proxy.connect());
    assert!(conn.cmd(&["CLIENT", "ID"]).int() > 0);
    assert_ne!(conn.cmd(&["CLIENT", "ID"]), other.cmd(&["CLIENT", "ID"]));
    assert_eq!(conn.cmd(&["CLIENT", "GETNAME"]), Value::Null);
    assert_eq!(conn.cmd(&["CLIENT", "SETNAME", "blue"]), "OK");
    assert_eq!(conn.cmd(&["CLIENT", "GETNAME"]), "blue");
    assert_eq!(other.cmd(&["CLIENT", "GETNAME"]), Value::Null);
    assert_eq!(conn.cmd(&["CLIENT", "SETINFO", "LIB-NAME", "tests"]), "OK");
    let info = conn.cmd(&["CLIENT", "INFO"]).text();
    assert!(info.contains("name=blue ") && info.contains("lib-name=tests"), "{info}");
    let list = other.cmd(&["CLIENT", "LIST"]).text();
    assert_eq!(list.lines().filter(|line| line.contains("name=blue ")).count(), 1, "{list}");
    assert_eq!(conn.cmd(&["RESET"]), "RESET");
    assert_eq!(conn.cmd(&["CLIENT", "GETNAME"]), Value::Null);
}

#[test]
fn reset_gives_back_everything() {
    let (_topology, proxy) = one_replica();
    let mut conn = proxy.connect();
    conn.cmd(&["SET", "k", "in 0"]);
    conn.cmd(&["HELLO", "3"]);
    conn.cmd(&["SELECT", "5"]);
    conn.cmd(&["MULTI"]);
    assert_eq!(conn.cmd(&["SET", "k", "x"]), "QUEUED");
    assert_eq!(conn.cmd(&["RESET"]), "RESET");
    assert_eq!(conn.cmd(&["GET", "k"]), "in 0");
    assert_eq!(conn.cmd(&["EXEC"]).error(), "ERR EXEC without MULTI");
    assert!(matches!(conn.cmd(&["CONFIG", "GET", "port"]), Value::Array(_)), "RESP2 again");
    conn.ask(&["SUBSCRIBE", "c"]);
    conn.read();
    assert_eq!(conn.cmd(&["RESET"]), "RESET");
    assert_eq!(conn.cmd(&["GET", "k"]), "in 0");
}

#[test]
fn quit_answers_and_closes() {
    let (_topology, proxy) = one_replica();
    let mut conn = proxy.connect();
    conn.send(
        &[encode(&["SET", "k", "v"]), encode(&["GET", "k"]), encode(&["QUIT"]), encode(&["PING"])].concat(),
    );
    assert_eq!(conn.read_to_close(), b"+OK\r\n$1\r\nv\r\n+OK\r\n");
    let mut conn = proxy.connect();
    conn.ask(&["GET", "k"]).finish();
    assert_eq!(conn.read_to_close(), b"$1\r\nv\r\n", "who stops sending still gets what it asked for");
}

#[test]
fn bytes_that_are_no_commands_are_taken_as_redis_takes_them() {
    let (_topology, proxy) = one_replica();
    let mut conn = proxy.connect();
    assert_eq!(conn.cmd(&["PING"]), "PONG");
    assert_eq!(conn.cmd(&["PING", "hi"]), "hi");
    assert_eq!(conn.cmd(&["ECHO", "a\r\nb"]), "a\r\nb");
    assert_eq!(conn.send(b"SET k 'a b'\r\n").read(), "OK");
    assert_eq!(conn.send(b"GET k\n").read(), "a b");
    assert_eq!(conn.send(b"ECHO \"a\\x41b\"\r\n").read(), "aAb");
    conn.send(b"\r\n\r\n*0\r\n*-1\r\n\r\nPING\r\n");
    assert_eq!(conn.read(), "PONG");
    assert!(conn.is_silent_for(ms(50)), "one reply for one command");
    // The tail of `redis-cli --pipe`.
    conn.send(b"\r\n*2\r\n$4\r\nECHO\r\n$20\r\n\x00\xff\r\n3456789012345678\r\n");
    assert_eq!(conn.read(), Value::Bulk(b"\x00\xff\r\n3456789012345678".to_vec()));
    for part in encode(&["SET", "slow", "client"]).chunks(1) {
        conn.send(part);
        sleep_ms(1);
    }
    assert_eq!(conn.read(), "OK");
}

#[test]
fn a_protocol_error_closes_only_its_own_connection() {
    let (topology, proxy) = one_replica();
    let mut bystander = proxy.connect();
    let ping = b"*1\r\n$4\r\nPING\r\n".as_slice();
    let faults: &[&[u8]] = &[
        b"*1\r\n$+4\r\nPING\r\n",
        b"*1\r\n$04\r\nPING\r\n",
        b"*1\r\n$-1\r\n",
        b"*1\r\n*1\r\n",
        b"*x\r\n",
        b"*2147483648\r\n",
        b"*1\r\n$536870913\r\n",
        b"GET \"unbalanced\r\n",
    ];
    for fault in faults {
        let input = [ping, fault, ping].concat();
        let answer = |mut conn: Conn| {
            conn.send(&input);
            conn.read_to_close().escape_ascii().to_string()
        };
        let through = answer(proxy.connect());
        assert!(through.contains("-ERR Protocol error"), "{through}");
        assert_eq!(through, answer(topology.primary.connect()), "to {}", fault.escape_ascii());
        assert_eq!(bystander.cmd(&["ECHO", "here"]), "here");
    }
}

#[test]
fn browsers_are_cut_off() {
    let (_topology, proxy) = one_replica();
    for line in [&b"POST / HTTP/1.1\r\nHost: x\r\n\r\nSET k v\r\n"[..], b"Host: x\r\nSET k v\r\n"] {
        let mut conn = proxy.connect();
        conn.send(line);
        assert_eq!(conn.read_to_close(), b"", "{}", line.escape_ascii());
    }
    assert_eq!(proxy.cmd(&["GET", "k"]), Value::Null);
}

#[test]
fn what_would_rewire_a_server_is_refused() {
    let (topology, proxy) = one_replica();
    let mut conn = proxy.connect();
    let commands: &[&[&str]] = &[
        &["SHUTDOWN", "NOSAVE"],
        &["shutdown", "nosave"],
        &["DEBUG", "SLEEP", "0"],
        &["REPLICAOF", "127.0.0.1", "1"],
        &["slaveof", "127.0.0.1", "1"],
        &["CONFIG", "SET", "maxmemory", "1"],
        &["config", "SeT", "maxmemory", "1"],
        &["PSYNC", "?", "-1"],
        &["SYNC"],
        &["REPLCONF", "listening-port", "1"],
        &["FAILOVER"],
        &["MIGRATE", "127.0.0.1", "1", "k", "0", "10"],
    ];
    for command in commands {
        let refused = conn.cmd(command);
        assert!(refused.error().starts_with("NOPERM"), "{command:?}: {refused:?}");
    }
    conn.send(b"CONFIG SET maxmemory 1\r\n");
    assert!(conn.read().error().starts_with("NOPERM"));
    conn.cmd(&["MULTI"]);
    assert!(conn.cmd(&["CONFIG", "SET", "maxmemory", "1"]).error().starts_with("NOPERM"));
    assert!(conn.cmd(&["EXEC"]).error().starts_with("EXECABORT"), "as for any command that isn't queued");
    assert_eq!(conn.cmd(&["CONFIG", "GET", "maxmemory"]).field("maxmemory"), &"0");
    assert_eq!(topology.primary.info("replication")["role"], "master");

    let open = Setup::of(&topology).toml("[security]\ndeny-commands = [\"keys\"]").start();
    assert!(open.cmd(&["KEYS", "*"]).error().starts_with("NOPERM"));
    assert_eq!(open.cmd(&["CONFIG", "SET", "maxmemory", "100mb"]), "OK");
}

/// A client that leaves in the middle of a pipeline leaves replies behind; they are nobody's.
#[test]
fn replies_to_a_client_that_has_left_reach_nobody() {
    let (topology, proxy) = two_replicas();
    let mut conn = proxy.connect();
    for key in 0..20 {
        conn.cmd(&["SET", &format!("k:{key}"), &format!("k:{key}={}", "x".repeat(100))]);
    }
    topology.await_sync();
    let mut stays = proxy.connect();
    let mut rng = Rng::new(7);
    for round in 0..1000 {
        let mut leaves = proxy.connect();
        let asked = 1 + rng.below(30);
        let gets = (0..asked).flat_map(|_| match rng.below(10) {
            0 => encode(&["SET", "left", "x"]),
            1 => encode(&["MGET", "k:1", "k:2"]),
            key => encode(&["GET", &format!("k:{key}")]),
        });
        leaves.send(&gets.collect::<Vec<u8>>());
        for _ in 0..rng.below(asked) {
            leaves.read();
        }
        if rng.below(2) == 0 {
            leaves.finish();
        }
        drop(leaves);
        let key = format!("k:{}", 10 + rng.below(10));
        let expected = format!("{key}={}", "x".repeat(100));
        let tag = format!("round {round}");
        let mut next = proxy.connect();
        next.ask(&["GET", &key]).ask(&["ECHO", &tag]);
        assert_eq!(next.read(), expected.as_str(), "round {round}");
        assert_eq!(next.read(), tag.as_str());
        assert_eq!(stays.cmd(&["GET", &key]), expected.as_str(), "round {round}");
    }
    assert!(topology.replica_calls("get").iter().sum::<u64>() > 1000);
    let clients = || proxy.metric("redweir_clients", &[]);
    eventually("only two clients are left", secs(5), || (clients() - 2.0).abs() < 0.5);
}

#[test]
fn big_values_pass_both_ways() {
    let (topology, proxy) = one_replica();
    let value: String = (0..8 << 20).map(|n: u32| char::from(b'a' + (n / 7 % 26) as u8)).collect();
    let mut conn = proxy.connect();
    assert_eq!(conn.cmd(&["SET", "big", &value]), "OK");
    assert_eq!(conn.cmd(&["STRLEN", "big"]), 8 << 20);
    topology.await_sync();
    sleep_ms(300);
    for _ in 0..3 {
        assert!(conn.cmd(&["GET", "big"]) == value.as_str(), "the value came back changed");
    }
    assert!(topology.replicas[0].calls("get") >= 2, "big values come from replicas, too");
    conn.ask(&["GET", "big"]).ask(&["ECHO", "after"]);
    let mut other = proxy.connect();
    let sent = Instant::now();
    assert_eq!(other.cmd(&["PING"]), "PONG");
    assert!(sent.elapsed() < secs(1));
    assert_eq!(conn.read(), value.as_str());
    assert_eq!(conn.read(), "after");
    // Nobody reads this reply to its end.
    proxy.connect().ask(&["GET", "big"]);
    assert_eq!(other.cmd(&["GET", "none"]), Value::Null);
}

/// Under `eventual` a lagging replica answers with the old value; under the default policy it may not.
#[test]
fn routes_choose_a_policy_by_key_command_user_and_client_name() {
    let topology = Topology::with(USERS, 1, USERS);
    let relaxed = |what: &str| format!("[[route]]\n{what}\npolicy = \"relaxed\"");
    let proxy = Setup::of(&topology)
        .policy("default", "consistency = \"fenced\"")
        .policy("relaxed", "consistency = \"eventual\"")
        .toml(&relaxed("keys = [\"catalog:*\"]"))
        .toml(&relaxed("commands = [\"hgetall\"]"))
        .toml(&relaxed("users = [\"alice\"]"))
        .toml(&relaxed("client-names = [\"batch\"]"))
        .start();
    let (mut plain, mut alice, mut batch) = (proxy.connect(), proxy.connect(), proxy.connect());
    assert_eq!(alice.cmd(&["AUTH", "alice", "alice-pw"]), "OK");
    batch.cmd(&["CLIENT", "SETNAME", "batch"]);
    for key in ["catalog:1", "a:1"] {
        plain.cmd(&["SET", key, "old"]);
    }
    plain.cmd(&["HSET", "h", "f", "old"]);
    topology.await_sync();
    sleep_ms(300);
    topology.lag(0, secs(2));
    for key in ["catalog:1", "a:1"] {
        plain.cmd(&["SET", key, "new"]);
    }
    plain.cmd(&["HSET", "h", "f", "new"]);
    assert_eq!(plain.cmd(&["GET", "catalog:1"]), "old");
    assert_eq!(plain.cmd(&["GET", "a:1"]), "new");
    assert_eq!(plain.cmd(&["MGET", "catalog:1", "a:1"]).items()[0], "new", "every key has to match");
    assert_eq!(plain.cmd(&["HGETALL", "h"]).field("f"), &"old");
    assert_eq!(plain.cmd(&["HGET", "h", "f"]), "new");
    assert_eq!(alice.cmd(&["GET", "a:1"]), "old");
    assert_eq!(batch.cmd(&["GET", "a:1"]), "old");
    let policy = |cmd: &[&str]| proxy.explain(cmd)["policy"].as_str().unwrap().to_owned();
    assert_eq!(
        (policy(&["GET", "catalog:1"]), policy(&["GET", "a:1"])),
        ("relaxed".to_owned(), "default".to_owned())
    );
}

#[test]
fn a_listener_has_a_policy_of_its_own() {
    let topology = Topology::start(1);
    let proxy =
        Setup::of(&topology).listener("relaxed").policy("relaxed", "consistency = \"eventual\"").start();
    let (mut strict, mut relaxed) = (Conn::open(proxy.ports[0]), Conn::open(proxy.ports[1]));
    strict.cmd(&["SET", "k", "old"]);
    topology.await_sync();
    sleep_ms(300);
    topology.lag(0, secs(2));
    strict.cmd(&["SET", "k", "new"]);
    assert_eq!(strict.cmd(&["GET", "k"]), "new");
    assert_eq!(relaxed.cmd(&["GET", "k"]), "old");
    assert_eq!(strict.cmd(&["REDWEIR", "POLICY"]), "default");
    assert_eq!(relaxed.cmd(&["REDWEIR", "POLICY"]), "relaxed");
    assert_eq!(relaxed.cmd(&["REDWEIR", "POLICY", "default"]), "OK");
    assert_eq!(relaxed.cmd(&["GET", "k"]), "new");
}

#[test]
fn info_and_command_are_the_primary_s() {
    let (topology, proxy) = one_replica();
    let mut conn = proxy.connect();
    let info = conn.cmd(&["INFO"]).text();
    assert!(info.contains("\r\nrole:master\r\n"), "{info}");
    assert!(info.contains("# Redweir\r\n"), "{info}");
    assert!(info.contains(&topology.primary.info("server")["run_id"]));
    let replication = conn.cmd(&["INFO", "replication"]).text();
    assert!(replication.contains("role:master") && !replication.contains("# Server"), "{replication}");
    assert_eq!(conn.cmd(&["COMMAND", "COUNT"]), topology.primary.cmd(&["COMMAND", "COUNT"]));
    assert_eq!(conn.cmd(&["ROLE"]).items()[0], "master");
    assert_eq!(conn.cmd(&["DBSIZE"]), 0);
}

#[test]
fn a_scan_sees_every_key_also_from_another_connection() {
    let (topology, proxy) = two_replicas();
    let mut conn = proxy.connect();
    for n in 0..1000 {
        conn.ask(&["SET", &format!("key:{n}"), "v"]);
    }
    conn.read_many(1000);
    topology.await_sync();
    sleep_ms(200);
    let (mut cursor, mut seen) = ("0".to_owned(), HashSet::new());
    loop {
        let reply = proxy.cmd(&["SCAN", &cursor, "COUNT", "50"]);
        let [next, keys] = reply.items() else { panic!("{reply:?}") };
        seen.extend(keys.items().iter().map(Value::text));
        cursor = next.text();
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(seen.len(), 1000);
}

#[test]
fn a_script_that_only_the_primary_knows_runs_there() {
    let (topology, proxy) = one_replica();
    let mut conn = proxy.connect();
    conn.cmd(&["SET", "k", "v"]);
    topology.await_sync();
    sleep_ms(200);
    let script = "return redis.call('GET', KEYS[1])";
    assert_eq!(conn.cmd(&["EVAL_RO", script, "1", "k"]), "v");
    let sha = conn.cmd(&["SCRIPT", "LOAD", "return 'known to ' .. redis.call('GET', KEYS[1])"]).text();
    assert_eq!(conn.cmd(&["EVALSHA_RO", &sha, "1", "k"]), "known to v");
    assert_eq!(conn.cmd(&["EVALSHA", &sha, "1", "k"]), "known to v");
}

#[test]
fn a_proxy_without_replicas_is_a_plain_proxy() {
    let primary = Redis::start(&[]);
    let proxy = Setup::to(primary.port, &[]).start();
    let mut conn = proxy.connect();
    assert_eq!(conn.cmd(&["SET", "k", "v"]), "OK");
    assert_eq!(conn.cmd(&["GET", "k"]), "v");
    assert_eq!(primary.calls("get"), 1);
}

/// How clients greet (ioredis, node-redis, redis-py): all at once, and with commands that an old server doesn't know.
#[test]
fn a_greeting_may_come_in_one_piece() {
    let (topology, proxy) = one_replica();
    let greeting: &[&[&str]] = &[
        &["HELLO", "3", "SETNAME", "app"],
        &["SELECT", "2"],
        &["CLIENT", "SETINFO", "LIB-NAME", "x"],
        &["CLIENT", "SETINFO", "LIB-VER", "1"],
        &["CLIENT", "MAINT_NOTIFICATIONS", "ON", "moving-endpoint-type", "none"],
        &["READONLY"],
        &["INFO"],
        &["CLIENT", "GETNAME"],
    ];
    let mut conn = proxy.connect();
    conn.send(&greeting.iter().flat_map(|command| encode(command)).collect::<Vec<_>>());
    let replies = conn.read_many(greeting.len());
    assert_eq!(replies[0].field("proto"), &3);
    assert!(replies[1] == "OK" && replies[2] == "OK" && replies[3] == "OK", "{replies:?}");
    assert!(replies[4].is_error(), "{replies:?}");
    assert_eq!(replies[5], topology.primary.cmd(&["READONLY"]));
    assert!(replies[6].text().contains("loading:0") && replies[7] == "app", "{replies:?}");
    conn.cmd(&["SET", "k", "v"]);
    let mut direct = topology.primary.connect();
    direct.cmd(&["SELECT", "2"]);
    assert_eq!(direct.cmd(&["GET", "k"]), "v");
}

#[test]
fn replies_that_a_client_does_not_want_do_not_shift_the_others() {
    let (_topology, proxy) = one_replica();
    let mut conn = proxy.connect();
    conn.ask(&["CLIENT", "REPLY", "SKIP"]).ask(&["SET", "k", "1"]).ask(&["GET", "k"]);
    assert_eq!(conn.read(), "1");
    conn.ask(&["CLIENT", "REPLY", "OFF"]).ask(&["SET", "k", "2"]).ask(&["GET", "k"]);
    conn.ask(&["CLIENT", "REPLY", "ON"]);
    assert_eq!(conn.read(), "OK");
    assert_eq!(conn.cmd(&["GET", "k"]), "2");
    assert_eq!(proxy.cmd(&["GET", "k"]), "2");
}

#[test]
fn a_tracking_client_hears_what_becomes_invalid_and_nobody_else_does() {
    let (_topology, proxy) = one_replica();
    let (mut conn, mut other) = (proxy.connect(), proxy.connect());
    other.cmd(&["HELLO", "3"]);
    other.cmd(&["SET", "k", "1"]);
    conn.cmd(&["HELLO", "3"]);
    assert_eq!(conn.cmd(&["CLIENT", "TRACKING", "ON"]), "OK");
    assert_eq!(conn.cmd(&["GET", "k"]), "1");
    assert_eq!(other.cmd(&["SET", "k", "2"]), "OK");
    assert_eq!(format!("{:?}", conn.read()), ">[\"invalidate\", [\"k\"]]");
    assert!(other.is_silent_for(ms(50)));
}

/// Its connections end with it; who was it is nobody then, not somebody else.
#[test]
fn a_user_that_is_deleted_does_nothing_any_more() {
    let topology = Topology::with(USERS, 1, USERS);
    let proxy = Setup::of(&topology).start();
    let mut conn = proxy.connect();
    assert_eq!(conn.cmd(&["AUTH", "alice", "alice-pw"]), "OK");
    assert_eq!(conn.cmd(&["SET", "a:1", "v"]), "OK");
    topology.await_sync();
    sleep_ms(300);
    assert_eq!(conn.cmd(&["GET", "a:1"]), "v");
    for server in [&topology.primary, &topology.replicas[0].server] {
        assert_eq!(server.cmd(&["ACL", "DELUSER", "alice"]), 1);
    }
    for command in [&["SET", "a:1", "w"][..], &["GET", "a:1"], &["ACL", "WHOAMI"], &["SET", "a:1", "x"]] {
        match conn.try_cmd(command) {
            Ok(reply) => assert!(reply.is_error(), "{command:?}: {reply:?}"),
            Err(_) => break,
        }
    }
    assert_eq!(topology.primary.cmd(&["GET", "a:1"]), "v");
    assert!(proxy.cmd(&["AUTH", "alice", "alice-pw"]).error().starts_with("WRONGPASS"));
    assert_eq!(proxy.cmd(&["GET", "a:1"]), "v", "others go on");
}

#[test]
fn a_client_that_reads_nothing_is_disconnected_and_slows_nobody() {
    let topology = Topology::start(1);
    let limit = "[proxy]\nworkers = 1\nclient-output-buffer-limit = \"8mb\"";
    let proxy = Setup::of(&topology).proxy(limit).start();
    proxy.cmd(&["SET", "big", &"x".repeat(1 << 20)]);
    topology.await_sync();
    let mut greedy = proxy.connect();
    greedy.send(&encode(&["GET", "big"]).repeat(300));
    let mut other = proxy.connect();
    let begun = Instant::now();
    let mut slowest = ms(0);
    while begun.elapsed() < secs(4) {
        let sent = Instant::now();
        assert_eq!(other.cmd(&["SET", "k", "v"]), "OK");
        assert_eq!(other.cmd(&["GET", "k"]), "v");
        assert_eq!(other.cmd(&["GET", "none"]), Value::Null);
        slowest = slowest.max(sent.elapsed());
        sleep_ms(10);
    }
    assert!(slowest < secs(2), "another client waited {slowest:?}");
    eventually("the greedy one is gone", secs(6), || proxy.metric("redweir_clients", &[]) < 1.5);
    assert!(proxy.metric("redweir_clients_too_slow_total", &[]) > 0.5);
}

#[test]
fn more_than_max_clients_are_told_so() {
    let topology = Topology::start(1);
    let proxy = Setup::of(&topology).proxy("[proxy]\nmax-clients = 3").start();
    let mut clients: Vec<Conn> = (0..3).map(|_| proxy.connect()).collect();
    for conn in &mut clients {
        assert_eq!(conn.cmd(&["PING"]), "PONG");
    }
    assert_eq!(proxy.connect().read_to_close(), b"-ERR max number of clients reached\r\n");
    clients.pop();
    eventually("there is room again", secs(2), || {
        Conn::try_open(proxy.port)
            .and_then(|mut conn| conn.try_cmd(&["PING"]))
            .is_ok_and(|reply| reply == "PONG")
    });
}
