//! Whatever a client leaves behind, in whatever order and however it goes: the next one finds nothing of it. Thousands of
//! random sequences of all that can leave state on a connection, each by a client that leaves in its own way, and each
//! followed by a client that looks.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]
#![allow(clippy::print_stdout, reason = "how much was checked is what one wants to know")]

use std::thread;

use crate::support::rng::Rng;
use crate::support::{Conn, Setup, Topology, Value, ms, secs};
use socket2::SockRef;

const USERS: &[&str] = &["--user", "alice", "on", ">pw", "~*", "&*", "+@all"];

/// Leaves state, or may.
const DIRT: &[&str] = &[
    "MULTI",
    "INCR n",
    "SET own x",
    "EXEC",
    "DISCARD",
    "MULTI x",
    "DISCARD x",
    "EXEC x",
    "UNWATCH x",
    "CLIENT TRACKING OFF x",
    "WATCH w",
    "WATCH w own",
    "UNWATCH",
    "SELECT 1",
    "SELECT 9",
    "SELECT nowhere",
    "HELLO 3",
    "HELLO 2",
    "HELLO 3 AUTH alice pw",
    "AUTH alice pw",
    "AUTH alice wrong",
    "CLIENT SETNAME dirty",
    "CLIENT REPLY SKIP",
    "CLIENT REPLY OFF",
    "CLIENT REPLY ON",
    "CLIENT TRACKING ON",
    "CLIENT TRACKING ON BCAST PREFIX k",
    "CLIENT TRACKING OFF",
    "CLIENT CACHING YES",
    "CLIENT NO-EVICT ON",
    "SUBSCRIBE news",
    "PSUBSCRIBE n*",
    "SSUBSCRIBE s",
    "UNSUBSCRIBE",
    "MONITOR",
    "BLPOP nothing 0.001",
    "BLPOP nothing 0",
    "XREAD BLOCK 1 STREAMS s $",
    "WAIT 0 1",
    "SCRIPT DEBUG NO",
    "EVAL 'redis.call(\"SELECT\",7);return 1' 0",
    "ASKING",
    "READONLY",
    "RESET",
    "QUIT",
    "GET k",
    "PING",
    "EXPLODE",
    "GET",
    "*1\r\n$4\r\nPI",
    "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100000\r\nxxxx",
];

/// Says a few of them, in one or more writes, reads some of what is answered, and leaves.
fn soil(port: u16, rng: &mut Rng) -> String {
    let mut conn = Conn::open(port);
    conn.patience(ms(3));
    let mut said = String::new();
    for _ in 0..=rng.below(7) {
        let words = DIRT[rng.below(DIRT.len())];
        said = said + words + "; ";
        let line = if words.starts_with('*') { words.to_owned() } else { format!("{words}\r\n") };
        if conn.try_send(line.as_bytes()).is_err() {
            break;
        }
        if rng.below(3) == 0 {
            // It may be silent, or gone.
            let _ = conn.try_read();
        }
    }
    match rng.below(3) {
        0 => {}
        1 => {
            let _ = conn.try_send(b"QUIT\r\n");
        }
        _ => {
            // Reset, with whatever is unread.
            let _ = SockRef::from(&conn.stream()).set_linger(Some(ms(0)));
        }
    }
    said
}

/// Somebody who comes next, and wants to be nobody in particular, on shared connections and on one of its own.
fn look(port: u16, before: &str) {
    let mut conn = Conn::open(port);
    conn.patience(secs(5));
    let mut expect = |command: &[&str], wanted: &str| {
        let reply = conn.cmd(command);
        assert_eq!(format!("{reply:?}"), wanted, "{command:?} after {before}");
    };
    let shared = |expect: &mut dyn FnMut(&[&str], &str)| {
        expect(&["PING"], "+PONG");
        expect(&["ACL", "WHOAMI"], "\"default\"");
        expect(&["GET", "where"], "\"zero\"");
        expect(&["GET", "nothing"], "null");
        expect(&["CLIENT", "GETNAME"], "null");
    };
    shared(&mut expect);
    // On a connection of its own, which may be one that was given back.
    expect(&["WATCH", "where"], "+OK");
    shared(&mut expect);
    expect(&["CLIENT", "GETREDIR"], ":-1");
    expect(&["MULTI"], "+OK");
    expect(&["GET", "where"], "+QUEUED");
    expect(&["EXEC"], "[\"zero\"]");
    expect(&["EXEC"], "-ERR EXEC without MULTI");
    expect(&["DISCARD"], "-ERR DISCARD without MULTI");
    expect(&["SUBSCRIBE", "mine"], "[\"subscribe\", \"mine\", :1]");
    expect(&["UNSUBSCRIBE"], "[\"unsubscribe\", \"mine\", :0]");
    shared(&mut expect);
    // In the protocol of nobody in particular.
    let raw = conn.send(b"GET nothing\r\nQUIT\r\n").read_to_close();
    assert_eq!(raw.escape_ascii().to_string(), r"$-1\r\n+OK\r\n", "after {before}");
}

#[test]
fn nobody_finds_what_another_client_has_left() {
    const SEQUENCES: u64 = 5000;
    const CREWS: u64 = 6;
    let topology = Topology::with(USERS, 1, USERS);
    let proxy = Setup::of(&topology).start();
    for db in 0..10 {
        let mut direct = topology.primary.connect();
        direct.cmd(&["SELECT", &db.to_string()]);
        direct.cmd(&["SET", "where", if db == 0 { "zero" } else { "elsewhere" }]);
    }
    topology.await_sync();
    // Her password is known to be right: nobody has to wait because others guess.
    let mut alice = proxy.connect();
    assert_eq!(alice.cmd(&["AUTH", "alice", "pw"]), "OK");
    thread::scope(|scope| {
        for crew in 0..CREWS {
            let port = proxy.port;
            scope.spawn(move || {
                for seed in (0..SEQUENCES).filter(|seed| seed % CREWS == crew) {
                    let said = soil(port, &mut Rng::new(seed));
                    look(port, &format!("sequence {seed}: {said}"));
                }
            });
        }
    });
    println!("{SEQUENCES} sequences, no leak");
    assert_eq!(topology.primary.cmd(&["GET", "where"]), "zero");
    assert!(matches!(proxy.cmd(&["DBSIZE"]), Value::Int(_)));
}

/// What is refused changes nothing either, whatever was meant by it: the next client of the same user.
#[test]
fn nobody_finds_what_a_refused_command_has_left() {
    let narrow = ["--user", "narrow", "on", ">pw", "~*", "&*", "+@all", "-discard", "-unwatch"];
    let users = [USERS, &narrow].concat();
    let topology = Topology::with(&users, 0, &users);
    // All on one worker: connections are not shared between two.
    let proxy = Setup::of(&topology).proxy("[proxy]\nworkers = 1").start();
    let login = || {
        let mut conn = proxy.connect();
        assert_eq!(conn.cmd(&["AUTH", "narrow", "pw"]), "OK");
        conn
    };
    let said: [&[&[&str]]; 5] = [
        &[&["MULTI"], &["DISCARD"]],
        &[&["MULTI"], &["DISCARD", "x"]],
        &[&["WATCH", "k"], &["UNWATCH"]],
        &[&["WATCH", "k"], &["UNWATCH", "x"]],
        &[&["MULTI", "x"], &["WATCH", "k"], &["EXEC"]],
    ];
    for commands in said {
        for _ in 0..4 {
            let mut first = login();
            for command in commands {
                first.cmd(command);
            }
            drop(first);
            let mut next = login();
            assert_eq!(next.cmd(&["BLPOP", "nothing", "0.01"]), Value::Null, "after {commands:?}");
            assert_eq!(next.cmd(&["WATCH", "other"]), "OK", "after {commands:?}");
            topology.primary.cmd(&["SET", "k", "v"]);
            assert_eq!(next.cmd(&["MULTI"]), "OK", "after {commands:?}");
            next.cmd(&["PING"]);
            assert!(matches!(next.cmd(&["EXEC"]), Value::Array(_)), "after {commands:?}");
        }
    }
}
