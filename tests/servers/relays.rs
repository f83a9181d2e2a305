//! Connections that are plain relays, after `SUBSCRIBE`, `MONITOR` or `CLIENT REPLY`: what is said on them is executed
//! and answered in its order, whoever answers it.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use crate::support::{Conn, Proxy, Redis, Setup, Topology, encode, eventually, ms, secs, sleep_ms};

fn one_worker(topology: &Topology) -> Setup {
    Setup::of(topology).proxy("[proxy]\nworkers = 1")
}

/// A pipeline, from its commands' words.
fn pipeline(commands: &[&str]) -> Vec<u8> {
    commands.iter().flat_map(|command| encode(&command.split(' ').collect::<Vec<&str>>())).collect()
}

fn subscriber(proxy: &Proxy) -> Conn {
    let mut conn = proxy.connect();
    assert!(!conn.cmd(&["HELLO", "3"]).is_error());
    assert_eq!(conn.cmd(&["SUBSCRIBE", "c"]).items()[0], "subscribe");
    conn
}

/// What is said in reply to `bytes` until nothing more comes, or the connection is closed, which is told as well.
fn said(port: u16, first: Option<&[u8]>, bytes: &[u8], awaited: usize) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    if let Some(first) = first {
        stream.write_all(first).unwrap();
        stream.set_read_timeout(Some(secs(5))).unwrap();
        let mut greeting = [0; 4096];
        // The end of what Redis says to HELLO.
        let (mut count, end) = (0, b"modules\r\n*0\r\n");
        while !greeting[..count].ends_with(end) {
            count += stream.read(&mut greeting[count..]).unwrap();
        }
    }
    stream.write_all(bytes).unwrap();
    let (mut got, mut chunk) = (Vec::new(), [0; 8192]);
    loop {
        let pause = if got.escape_ascii().count() < awaited { secs(5) } else { ms(150) };
        stream.set_read_timeout(Some(pause)).unwrap();
        match stream.read(&mut chunk) {
            Ok(0) => {
                got.extend(b" and closes");
                break;
            }
            Ok(count) => got.extend(&chunk[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(_) => {
                got.extend(b" and breaks");
                break;
            }
        }
    }
    got.escape_ascii().to_string()
}

/// What Redis says of commands that its rules deny, as the proxy says it.
fn by_deny_commands(said: &str) -> String {
    ["save", "bgrewriteaof"].iter().fold(said.to_owned(), |said, name| {
        let rules = format!("this user has no permissions to run the \\'{name}\\' command");
        let ours = format!("redweir: [security] deny-commands denies the \\'{name}\\' command to everybody");
        said.replace(&rules, &ours)
    })
}

/// Redis and the proxy say the same, but for whose rule it is: `SAVE` and `BGREWRITEAOF` are denied to everybody.
fn compare(resp3: bool, pipelines: &[&[&str]]) {
    let denying = Redis::start(&[]);
    denying.cmd(&["ACL", "SETUSER", "default", "-save", "-bgrewriteaof"]);
    let topology = Topology::start(1);
    let proxy = one_worker(&topology).start();
    for commands in pipelines {
        let (hello, bytes) = (encode(&["HELLO", "3"]), pipeline(commands));
        let first = resp3.then_some(&hello[..]);
        for server in [&denying, &topology.primary] {
            server.cmd(&["FLUSHALL"]);
            assert_eq!(server.cmd(&["MSET", "a", "A", "b", "B"]), "OK");
        }
        let expected = by_deny_commands(&said(denying.port, first, &bytes, 0));
        assert_eq!(said(proxy.port, first, &bytes, expected.len()), expected, "{commands:?}");
        let keys = |server: &Redis| format!("{:?}", server.cmd(&["MGET", "k", "n", "a", "b"]));
        assert_eq!(keys(&topology.primary), keys(&denying), "{commands:?}");
    }
    assert_eq!(topology.primary.calls("save"), 0);
    assert!(proxy.metric("redweir_upstream_desynchronised_total", &[]) < 0.5, "{}", proxy.log());
}

#[test]
fn what_is_denied_is_answered_in_its_turn() {
    compare(
        true,
        &[
            &["SUBSCRIBE c", "GET a", "SAVE", "GET b", "SAVE", "SAVE", "PING"],
            &["CLIENT REPLY SKIP", "SAVE", "GET a", "GET b"],
            &["CLIENT REPLY SKIP", "GET a", "SAVE", "GET b"],
            &["CLIENT REPLY OFF", "SAVE", "GET a", "SAVE", "CLIENT REPLY ON", "SAVE", "GET b"],
            &["SUBSCRIBE c", "MULTI", "SET k 1", "BGREWRITEAOF", "EXEC", "GET k", "SET k 2", "GET k"],
            &["SUBSCRIBE c", "MULTI", "CLIENT REPLY SKIP", "EXEC", "SAVE", "GET a", "SET k 1", "GET b"],
            &["SUBSCRIBE c", "CLIENT REPLY OFF", "CLIENT REPLY SKIP", "SAVE", "CLIENT REPLY ON", "GET a"],
            &["SUBSCRIBE c", "PUBLISH c m", "SAVE", "PUBLISH c n", "SAVE"],
        ],
    );
    compare(
        false,
        &[
            &[
                "SUBSCRIBE c",
                "PING",
                "SAVE",
                "GET a",
                "SET k 1",
                "UNSUBSCRIBE",
                "GET a",
                "SAVE",
                "SET k 2",
                "GET b",
            ],
            &["MULTI", "SUBSCRIBE c d", "EXEC", "SAVE", "PING", "RESET", "GET a"],
            &["CLIENT REPLY OFF", "MULTI", "SET k 1", "BGREWRITEAOF", "EXEC", "CLIENT REPLY ON", "GET k"],
        ],
    );
}

#[test]
fn what_a_transaction_subscribes_to_is_a_part_of_its_reply() {
    let lines: &[&[&str]] =
        &[&["MULTI", "SUBSCRIBE c", "GET a", "EXEC", "PUBLISH c m", "PING", "GET b", "RESET", "GET a"]];
    compare(true, lines);
    compare(false, &[&["MULTI", "SUBSCRIBE c", "GET a", "EXEC", "PING", "RESET", "GET a"]]);
}

/// Redis would send the beginning of the reply to `EXEC`, and then nothing.
#[test]
fn nobody_is_silenced_in_the_middle_of_a_transaction() {
    let topology = Topology::start(1);
    let proxy = one_worker(&topology).start();
    for mode in ["SKIP", "OFF"] {
        let mut conn = proxy.connect();
        assert_eq!(conn.cmd(&["MULTI"]), "OK");
        assert_eq!(
            conn.cmd(&["CLIENT", "REPLY", mode]).error(),
            "ERR Command not allowed inside a transaction"
        );
        assert_eq!(conn.cmd(&["SET", "k", "1"]), "QUEUED");
        assert!(conn.cmd(&["EXEC"]).error().starts_with("EXECABORT "));
        assert_eq!(conn.cmd(&["EXISTS", "k"]), 0);
    }
    let mut conn = proxy.connect();
    assert_eq!(conn.cmd(&["MULTI"]), "OK");
    assert_eq!(conn.cmd(&["CLIENT", "REPLY", "ON"]), "QUEUED");
    assert_eq!(conn.cmd(&["EXEC"]).items()[0], "OK");
}

#[test]
fn reset_and_quit_come_after_what_was_said_before() {
    let resets: &[&[&str]] = &[
        &["SUBSCRIBE c", "SET k 1", "RESET", "GET k", "SET k 2", "GET k"],
        &["SUBSCRIBE c", "RESET", "SUBSCRIBE d", "RESET", "SUBSCRIBE e", "RESET", "GET a"],
        &["SUBSCRIBE c", "MULTI", "SET k 1", "RESET", "GET k", "EXEC"],
        &["CLIENT REPLY SKIP", "SET k 1", "RESET", "GET k"],
        &["CLIENT REPLY SKIP", "RESET", "GET a"],
        &["CLIENT REPLY OFF", "SET k 1", "SAVE", "RESET", "GET k"],
        &["SUBSCRIBE c", "RESET now", "SET k 1", "RESET", "SAVE", "GET k"],
        &["SUBSCRIBE c", "SET k 1", "QUIT", "SET k 2"],
        &["SUBSCRIBE c", "SET k 1", "SAVE", "QUIT", "RESET", "SET k 2"],
        &["CLIENT REPLY OFF", "SET k 1", "QUIT", "SET k 2"],
    ];
    compare(false, resets);
    compare(true, resets);
    let topology = Topology::start(1);
    let proxy = one_worker(&topology).start();
    let mut conn = proxy.connect();
    let many =
        [pipeline(&["CLIENT REPLY OFF"]), pipeline(&["INCR n"]).repeat(2000), pipeline(&["RESET", "GET n"])];
    conn.send(&many.concat());
    assert_eq!(conn.read(), "RESET");
    assert_eq!(conn.read(), "2000");
    assert!(conn.is_silent_for(ms(50)));
}

#[test]
fn monitors_are_reset_and_denied_in_their_turn() {
    let topology = Topology::start(1);
    let proxy = one_worker(&topology).start();
    let mut conn = proxy.connect();
    conn.send(&pipeline(&["MONITOR", "PING", "SAVE", "RESET", "SET k 1", "GET k"]));
    let mut said = Vec::new();
    while said.last().is_none_or(|last| last != "\"1\"") {
        let line = format!("{:?}", conn.read());
        // What is monitored has a time and quotes its words.
        if !(line.starts_with('+') && line.contains('"')) {
            said.push(line);
        }
    }
    let denied = "-NOPERM redweir: [security] deny-commands denies the 'save' command to everybody";
    assert_eq!(said[..3], ["+OK", "+PONG", denied]);
    assert_eq!(said[3..], ["+RESET", "+OK", "\"1\""]);
}

/// Redis executes whatever it has received when a client goes.
#[test]
fn what_a_client_has_sent_before_it_left_is_executed() {
    let topology = Topology::start(1);
    let proxy = one_worker(&topology).start();
    for round in 0..20 {
        let key = format!("n{round}");
        let incr = format!("INCR {key}");
        let mut conn = proxy.connect();
        conn.send(&[pipeline(&["CLIENT REPLY OFF"]), pipeline(&[&incr]).repeat(2000)].concat());
        drop(conn);
        eventually("all of it is executed", secs(5), || topology.primary.cmd(&["GET", &key]) == "2000");
    }
    // More than the proxy holds, to a primary that takes nothing for a while. Nobody else waits for that.
    let mut conn = proxy.connect();
    assert_eq!(conn.cmd(&["SET", "k", "v"]), "OK");
    topology.primary.pause();
    let sender = std::thread::spawn({
        let mut conn = proxy.connect();
        move || {
            let value = "v".repeat(100_000);
            conn.send(&pipeline(&["CLIENT REPLY OFF"]));
            for _ in 0..300 {
                conn.send(&encode(&["APPEND", "long", &value]));
            }
        }
    });
    for _ in 0..10 {
        sleep_ms(50);
        assert!(!conn.cmd(&["REDWEIR", "HELP"]).is_error(), "others are served");
    }
    topology.primary.resume();
    sender.join().unwrap();
    eventually("all of it is executed", secs(10), || topology.primary.cmd(&["STRLEN", "long"]) == 30_000_000);
}

#[test]
fn a_primary_that_takes_nothing_is_not_waited_for_for_ever() {
    let topology = Topology::start(1);
    let proxy = one_worker(&topology).start();
    assert_eq!(proxy.cmd(&["SET", "k", "v"]), "OK");
    let lanes = || proxy.metric("redweir_upstream_connections", &[]) as usize;
    let before = lanes();
    let mut conns: Vec<Conn> = (0..3).map(|_| proxy.connect()).collect();
    for conn in &mut conns {
        conn.send(&pipeline(&["CLIENT REPLY OFF", "SET k v"]));
    }
    eventually("each has a connection", secs(2), || lanes() >= before + 3);
    topology.primary.pause();
    for mut conn in conns {
        conn.send(&pipeline(&["SET k w"]));
    }
    eventually("they are given up", secs(15), || lanes() <= before);
    topology.primary.resume();
}

/// In the middle of a message that is on its way, and of one that has yet to come.
#[test]
fn nothing_is_said_inside_of_a_message() {
    let topology = Topology::start(1);
    let proxy = one_worker(&topology).start();
    let message = "-ERR unknown command '".repeat(1_000_000);
    for last in ["SAVE", "RESET"] {
        let mut conn = subscriber(&proxy);
        let publisher = std::thread::spawn({
            let (mut conn, message) = (topology.primary.connect(), message.clone());
            move || conn.cmd(&["PUBLISH", "c", &message])
        });
        let mut byte = [0];
        assert_eq!(conn.stream().peek(&mut byte).unwrap(), 1);
        conn.send(&pipeline(&["SET k v", last]));
        let got = conn.read();
        assert!(got.items()[2] == message.as_str(), "the message is whole");
        let (one, two) = (conn.read(), conn.read());
        assert_eq!(one, "OK");
        if last == "SAVE" {
            assert!(two.error().starts_with("NOPERM "), "{two:?}");
        } else {
            assert_eq!(two, "RESET");
            assert_eq!(conn.cmd(&["GET", "k"]), "v");
        }
        assert_eq!(publisher.join().unwrap(), 1);
    }
}

/// Whoever asks, and whatever the user may do.
#[test]
fn marks_need_no_permission() {
    let primary = Redis::start(&["--requirepass", "secret"]);
    let user = ["ACL", "SETUSER", "u", "on", ">pw", "~*", "&*", "-@all", "+subscribe", "+set", "+get"];
    assert_eq!(primary.cmd(&user), "OK");
    let dir = tempfile::tempdir().unwrap();
    let password = dir.path().join("password");
    std::fs::write(&password, "secret").unwrap();
    let proxy = Setup::to(primary.port, &[])
        .upstream(&format!("password-file = {password:?}"))
        .proxy("[proxy]\nworkers = 1")
        .start_with_any_replicas();
    for round in 0..10 {
        let mut conn = proxy.connect();
        assert!(!conn.cmd(&["HELLO", "3", "AUTH", "u", "pw"]).is_error());
        assert_eq!(conn.cmd(&["SUBSCRIBE", "c"]).items()[0], "subscribe");
        for n in 0..100 {
            assert_eq!(conn.cmd(&["SET", &format!("k{n}"), "v"]), "OK", "{round}");
        }
        assert!(conn.cmd(&["ECHO", "e"]).error().starts_with("NOPERM "));
        assert!(conn.cmd(&["SAVE"]).error().contains("'save'"));
        // Somebody else from now on, whom the relay knows and Redweir does not.
        assert_eq!(conn.cmd(&["AUTH", "secret"]), "OK");
        assert_eq!(conn.cmd(&["ECHO", "e"]), "e");
        assert!(conn.cmd(&["SAVE"]).error().contains("'save'"));
        conn.send(&pipeline(&["GET k1", "RESET", "GET k1"]));
        assert_eq!(conn.read(), "v");
        assert_eq!(conn.read(), "RESET");
        assert!(conn.read().error().starts_with("NOAUTH "), "it is nobody again");
    }
}

#[test]
fn a_client_that_breaks_the_protocol_hears_of_it_last() {
    let topology = Topology::start(1);
    let proxy = one_worker(&topology).start();
    let bad = [pipeline(&["SUBSCRIBE c", "PING", "SET k 1"]), b"*1\r\n$x\r\n".to_vec()].concat();
    let expected = said(topology.primary.port, None, &bad, 0);
    assert!(expected.ends_with(" and closes"));
    for _ in 0..10 {
        assert_eq!(said(proxy.port, None, &bad, expected.len()), expected);
    }
}

#[test]
fn redweir_answers_in_its_turn() {
    // A cursor of another process.
    let other = Redis::start(&[]);
    other.cmd(&["DEBUG", "POPULATE", "1000"]);
    let cursor = Setup::to(other.port, &[]).start_with_any_replicas().cmd(&["SCAN", "0"]).items()[0].text();
    let scan = format!("SCAN {cursor}");
    let topology = Topology::start(1);
    let proxy = one_worker(&topology).start();
    let mut conn = subscriber(&proxy);
    for _ in 0..20 {
        conn.send(&pipeline(&["SET k 1", "REDWEIR POLICY", "REDWEIR TOKEN", &scan, "GET k"]));
        let said = conn.read_many(5);
        assert_eq!((said[0] == "OK", said[1] == "default", said[4] == "1"), (true, true, true), "{said:?}");
        assert!(said[2].text().contains(':') && said[3].is_error(), "{said:?}");
    }
}

/// What a subscriber has written once does not keep all others from the replicas for as long as it is told anything.
#[test]
fn what_is_acknowledged_is_forgotten() {
    let topology = Topology::start(1);
    let proxy = one_worker(&topology).start();
    let mut conn = subscriber(&proxy);
    for n in 0..200 {
        assert_eq!(conn.cmd(&["SET", &format!("k{n}"), "v"]), "OK");
    }
    let (mut reader, mut publisher) = (proxy.connect(), topology.primary.connect());
    let replica = &topology.replicas[0];
    eventually("reads are back at the replica", secs(5), || {
        let before = replica.calls("get");
        for _ in 0..100 {
            assert_eq!(publisher.cmd(&["PUBLISH", "c", "m"]), 1);
            assert_eq!(conn.read().items()[0], "message");
            reader.cmd(&["GET", "unrelated"]);
        }
        replica.calls("get") - before > 80
    });
    assert!(conn.is_silent_for(ms(50)), "no mark is left over");
}

#[test]
fn no_session_goes_back_to_before_its_relay() {
    let topology = Topology::start(1);
    let lines = "consistency = \"session\"\nmax-lag = \"1h\"\nmax-lag-bytes = \"1gb\"";
    let proxy = one_worker(&topology).policy("default", lines).start();
    topology.primary.cmd(&["SET", "k", "before"]);
    topology.await_sync();
    let mut conn = proxy.connect();
    assert_eq!(conn.cmd(&["GET", "k"]), "before");
    topology.lag(0, secs(2));
    conn.send(&pipeline(&["HELLO 3", "SUBSCRIBE c"]));
    conn.read_many(2);
    assert_eq!(topology.primary.cmd(&["SET", "k", "after"]), "OK");
    assert_eq!(conn.cmd(&["GET", "k"]), "after");
    assert_eq!(conn.cmd(&["RESET"]), "RESET");
    for _ in 0..50 {
        assert_eq!(conn.cmd(&["GET", "k"]), "after");
    }
}

/// Its reads go to the replica again, whatever it speaks and however it has left.
#[test]
fn who_is_subscribed_to_nothing_is_a_client_like_any_other() {
    let topology = Topology::start(1);
    let proxy = one_worker(&topology).policy("default", "consistency = \"eventual\"").start();
    topology.primary.cmd(&["SET", "k", "v"]);
    topology.await_sync();
    let replica = &topology.replicas[0];
    for protocol in ["2", "3"] {
        let mut conn = proxy.connect();
        assert!(!conn.cmd(&["HELLO", protocol]).is_error());
        for round in 0..3 {
            conn.send(&pipeline(&["SUBSCRIBE c d", "PSUBSCRIBE p*"]));
            conn.read_many(3);
            conn.send(&pipeline(&["UNSUBSCRIBE c d"]));
            assert_eq!(conn.read_many(2)[1].items()[2], 1, "the pattern is left");
            let before = replica.calls("get");
            assert!(!conn.cmd(&["PING"]).is_error());
            assert_eq!(topology.primary.cmd(&["PUBLISH", "pa", "m"]), 1);
            assert_eq!(conn.read().items()[3], "m");
            assert_eq!(conn.cmd(&["PUNSUBSCRIBE"]).items()[2], 0);
            if round == 2 {
                // What needs a connection of its own gets another one.
                conn.send(&pipeline(&["MULTI", "GET k", "EXEC"]));
                assert_eq!(conn.read_many(3)[2].items()[0], "v");
            }
            let select = ["SELECT 3", "SELECT 0"][round % 2];
            conn.send(&pipeline(&["GET k", select, "GET k", "SELECT 0", "GET k"]));
            let said = conn.read_many(5);
            assert_eq!(said[0], "v", "{said:?}");
            assert_eq!(said[2] == "v", round % 2 == 1, "{said:?}");
            assert_eq!(said[4], "v", "{said:?}");
            assert_eq!(replica.calls("get") - before, 3, "RESP{protocol}, round {round}");
        }
        eventually("no connection is kept for it", secs(5), || {
            !topology.primary.cmd(&["CLIENT", "LIST"]).text().contains("cmd=punsubscribe")
        });
    }
    assert!(proxy.metric("redweir_upstream_desynchronised_total", &[]) < 0.5, "{}", proxy.log());
}

/// What it was subscribed to in the same breath counts, and so does what stays when it only seems to have left.
#[test]
fn nobody_who_is_subscribed_is_taken_off_its_relay() {
    let topology = Topology::start(1);
    let proxy = one_worker(&topology).start();
    let hears = |conn: &mut Conn, channel: &str| {
        assert_eq!(topology.primary.cmd(&["PUBLISH", channel, "news"]), 1, "{channel}");
        assert_eq!(*conn.read().items().last().unwrap(), "news", "{channel}");
    };
    for round in 0..20 {
        let mut conn = subscriber(&proxy);
        assert_eq!(conn.cmd(&["UNSUBSCRIBE"]).items()[2], 0);
        conn.send(&pipeline(&["SUBSCRIBE d", "GET k", "GET k"]));
        conn.read_many(3);
        hears(&mut conn, "d");
        // Whoever says in a message that nobody is subscribed is believed by nobody.
        let lie = "*3\r\n$11\r\nunsubscribe\r\n$1\r\nd\r\n:0";
        assert_eq!(topology.primary.cmd(&["PUBLISH", "d", lie]), 1);
        conn.read();
        conn.cmd(&["GET", "k"]);
        hears(&mut conn, "d");
        if round % 2 == 0 {
            conn.send(&pipeline(&["SSUBSCRIBE s", "UNSUBSCRIBE d", "GET k", "GET k"]));
            conn.read_many(4);
            conn.cmd(&["GET", "k"]);
            assert_eq!(topology.primary.cmd(&["SPUBLISH", "s", "news"]), 1);
            assert_eq!(conn.read().items()[0], "smessage");
        } else {
            conn.send(&pipeline(&["UNSUBSCRIBE d", "MULTI", "SUBSCRIBE e", "EXEC"]));
            conn.read_many(4);
            conn.cmd(&["GET", "k"]);
            hears(&mut conn, "e");
        }
    }
}
