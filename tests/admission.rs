//! Somebody who wants to hurt: who guesses passwords, opens connections and reads nothing, uses up descriptors, comes while
//! the primary is dead. What he does must neither let him in nor keep anybody else out.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]
#![allow(clippy::print_stdout, reason = "the rates are what one wants to know")]

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use support::{Conn, Redis, Setup, Topology, Value, eventually, http_get, ms, secs, sleep_ms};

const USERS: &[&str] = &[
    "--user",
    "admin",
    "on",
    ">admin-pw",
    "~*",
    "&*",
    "+@all",
    "--user",
    "alice",
    "on",
    ">alice-pw",
    "~*",
    "&*",
    "+@all",
];
const LOGIN: &str = "username = \"admin\"\npassword = \"admin-pw\"";

fn login(port: u16, user: &str, password: &str) -> Conn {
    let mut conn = Conn::open(port);
    assert_eq!(conn.cmd(&["AUTH", user, password]), "OK");
    conn
}

/// A number from `INFO` of a server, by somebody who may see it.
fn stat(root: &mut Conn, section: &str, name: &str) -> u64 {
    let text = root.cmd(&["INFO", section]).text();
    let line =
        text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name} in {text}"));
    let digits: String =
        line.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

/// Guesses in pipelines of ten until it is told to stop; how many were answered.
fn guess(port: u16, stop: &AtomicBool) -> u64 {
    let mut answered = 0;
    let mut conn = Conn::open(port);
    conn.patience(secs(20));
    while !stop.load(Ordering::SeqCst) {
        for n in 0..10 {
            conn.ask(&["AUTH", "alice", &format!("guess-{n}")]);
        }
        for _ in 0..10 {
            if stop.load(Ordering::SeqCst) {
                return answered;
            }
            assert!(conn.read().error().starts_with("WRONGPASS"));
            answered += 1;
        }
    }
    answered
}

/// S3
#[test]
fn who_guesses_passwords_costs_the_primary_neither_connections_nor_time() {
    let topology = Topology::with(USERS, 1, USERS);
    let proxy = Setup::of(&topology).upstream(LOGIN).start();
    let mut root = login(topology.primary.port, "admin", "admin-pw");
    let mut alice = login(proxy.port, "alice", "alice-pw");
    let received = stat(&mut root, "stats", "total_connections_received");
    let stop = AtomicBool::new(false);
    let (answered, span) = thread::scope(|scope| {
        let begun = Instant::now();
        let guessers: Vec<_> = (0..6).map(|_| scope.spawn(|| guess(proxy.port, &stop))).collect();
        sleep_ms(500);
        let mut slowest = Duration::ZERO;
        while begun.elapsed() < secs(3) {
            // Her password is known to be right, wherever the guesses come from.
            let since = Instant::now();
            let mut again = login(proxy.port, "alice", "alice-pw");
            assert_eq!(again.cmd(&["MULTI"]), "OK");
            again.cmd(&["INCR", "n"]);
            assert!(matches!(again.cmd(&["EXEC"]), Value::Array(_)));
            assert_eq!(alice.cmd(&["PING"]), "PONG");
            slowest = slowest.max(since.elapsed());
            sleep_ms(20);
        }
        assert!(slowest < ms(500), "a login took {slowest:?}");
        stop.store(true, Ordering::SeqCst);
        let span = begun.elapsed();
        (guessers.into_iter().map(|guesser| guesser.join().unwrap()).sum::<u64>(), span)
    });
    let received = stat(&mut root, "stats", "total_connections_received") - received;
    println!("{answered} guesses in {span:?}, {received} connections to the primary");
    assert!(received < 60, "{received} connections were opened for {answered} guesses");
    assert!(answered >= 32, "nobody is refused for good");
    assert!(answered < 600, "{answered} guesses in {span:?}");
    // Somebody whom nobody knew yet gets in, too.
    let mut late = Conn::open(proxy.port);
    assert_eq!(late.patience(secs(5)).cmd(&["AUTH", "admin", "admin-pw"]), "OK");
}

/// A connection on which nothing is read.
fn mute(port: u16, says: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_write_timeout(Some(ms(200))).unwrap();
    // It may be closed by now, or take no more.
    let _ = stream.write_all(says);
    stream
}

/// S5
#[test]
fn nobody_silences_the_probes() {
    let primary = Redis::start(&[]);
    let proxy = Setup::to(primary.port, &[]).start();
    let scrapes = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2000);
    let mut held = Vec::new();
    let look = |what: &str| {
        for path in ["/livez", "/readyz", "/metrics"] {
            let since = Instant::now();
            assert_eq!(http_get(proxy.admin_port, path).unwrap().0, 200, "{what}");
            assert!(since.elapsed() < ms(1000), "{what}: {path} took {:?}", since.elapsed());
        }
    };
    held.extend((0..64).map(|_| mute(proxy.admin_port, &scrapes)));
    look("beside 64 that read nothing");
    held.extend((0..300).map(|_| mute(proxy.admin_port, b"GET /livez HTT")));
    look("beside 300 half requests");
    held.extend((0..200).map(|_| mute(proxy.admin_port, b"")));
    look("beside 200 that say nothing");
    drop(held);
    // Not for good, either: who takes nothing is closed, with what he has asked for.
    let mut idle = mute(proxy.admin_port, &scrapes);
    sleep_ms(6500);
    idle.set_read_timeout(Some(secs(3))).unwrap();
    let mut taken = Vec::new();
    let end = idle.read_to_end(&mut taken);
    assert!(!end.is_err_and(|problem| support::resp::is_timeout(&problem)), "it is still open");
    let pages = String::from_utf8_lossy(&taken).matches("HTTP/1.1 200").count();
    assert!(pages < 1999, "all {pages} pages were written for nobody");
}

/// A client that goes through the databases in both protocols leaves a connection to the server behind for each.
#[test]
fn databases_that_nobody_is_in_do_not_use_descriptors_up() {
    let topology = Topology::start(0);
    topology.primary.cmd(&["SET", "k", "v"]);
    let proxy = Setup::of(&topology).files(128).proxy("[proxy]\nworkers = 1").start();
    let mut visitor = proxy.connect();
    for protocol in ["2", "3"] {
        assert!(!visitor.cmd(&["HELLO", protocol]).is_error());
        for db in 0..16 {
            visitor.cmd(&["SELECT", &db.to_string()]);
        }
    }
    assert_eq!(visitor.cmd(&["SELECT", "0"]), "OK");
    eventually("they are closed", secs(5), || proxy.metric("redweir_upstream_connections", &[]) < 20.0);
    let mut crowd: Vec<Conn> = (0..30).map(|_| proxy.connect()).collect();
    for conn in &mut crowd {
        assert_eq!(conn.cmd(&["GET", "k"]), "v");
    }
}

/// S6
#[test]
fn descriptors_that_run_out_are_told_of_and_hurt_nobody_who_is_in() {
    let topology = Topology::start(1);
    let proxy = Setup::of(&topology).files(80).proxy("[proxy]\nworkers = 1").start();
    let log = proxy.log();
    assert!(log.contains("needs more open files than the system allows (ulimit -n): lowered to "), "{log}");
    let mut insiders: Vec<Conn> = (0..3).map(|_| proxy.connect()).collect();
    for conn in &mut insiders {
        assert_eq!(conn.cmd(&["SET", "k", "v"]), "OK");
    }
    topology.await_sync();
    let mut crowd: Vec<Conn> = (0..200).map(|_| proxy.connect()).collect();
    let mut turned_away = 0;
    for conn in &mut crowd {
        conn.patience(ms(1500));
        match conn.try_cmd(&["PING"]) {
            Ok(Value::Error(text)) => {
                assert_eq!(text, "ERR max number of clients reached");
                turned_away += 1;
            }
            Ok(pong) => assert_eq!(pong, "PONG"),
            // What Redis says of it may be lost with the connection.
            Err(problem) => {
                assert!(!support::resp::is_timeout(&problem), "a newcomer hangs");
                turned_away += 1;
            }
        }
    }
    assert!(turned_away > 150, "{turned_away} were turned away");
    let answers = |insiders: &mut Vec<Conn>| {
        for conn in insiders.iter_mut() {
            assert_eq!(conn.cmd(&["GET", "k"]), "v");
        }
        assert_eq!(insiders[0].cmd(&["BLPOP", "nothing", "0.01"]), Value::Null);
        eventually("it is ready", secs(5), || http_get(proxy.admin_port, "/readyz").unwrap().0 == 200);
    };
    answers(&mut insiders);
    // The servers are cut off while the crowd is there: there is room for new connections to them.
    for port in [topology.primary.port, topology.replicas[0].port] {
        Conn::open(port).cmd(&["CLIENT", "KILL", "TYPE", "normal"]);
    }
    eventually("the primary answers again", secs(5), || insiders[0].cmd(&["SET", "k", "v"]) == "OK");
    answers(&mut insiders);
    drop(crowd);
    eventually("there is room again", secs(5), || {
        proxy.connect().try_cmd(&["PING"]).is_ok_and(|pong| pong == "PONG")
    });
}

/// S7
#[test]
fn a_dead_primary_s_replica_lets_no_stranger_in() {
    let mut primary = Redis::start(&["--requirepass", "hunter2"]);
    let replica = Redis::replica_of(primary.port, &["--masterauth", "hunter2"]);
    let lax = "[policy.default]\nconsistency = \"eventual\"\nreplica-serve-stale-data = \"yes\"";
    // The replica needs no password: whoever gives one there is told so.
    assert_eq!(replica.cmd(&["ACL", "SETUSER", "default", "on", "nopass"]), "OK");
    for somebody_came in [false, true] {
        let proxy = Setup::to(primary.port, &[replica.port])
            .toml(lax)
            .upstream("username = \"default\"\npassword = \"hunter2\"")
            .start();
        let mut inside = proxy.connect();
        assert_eq!(inside.cmd(&["AUTH", "default", "hunter2"]), "OK");
        assert_eq!(inside.cmd(&["SET", "k", "v"]), "OK");
        if somebody_came {
            assert_eq!(proxy.cmd(&["GET", "k"]).error(), "NOAUTH Authentication required.");
        }
        eventually("the replica has it", secs(5), || replica.cmd(&["GET", "k"]) == "v");
        primary.kill();
        eventually("who has logged in reads on", secs(8), || inside.cmd(&["GET", "k"]) == "v");
        for _ in 0..20 {
            let answer = proxy.cmd(&["GET", "k"]);
            assert!(answer.is_error(), "an unauthenticated client got {answer:?}");
            sleep_ms(30);
        }
        primary.restart();
    }
}

/// S8
#[test]
fn the_log_is_not_filled_by_strangers() {
    let primary = Redis::start(&[]);
    let proxy = Setup::to(primary.port, &[]).start();
    for _ in 0..300 {
        let mut conn = proxy.connect();
        conn.send(b"POST / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(conn.read_to_close().is_empty());
    }
    let told = proxy.log().lines().filter(|line| line.contains("cross-protocol")).count();
    assert!((1..=8).contains(&told), "{told} lines");
    sleep_ms(1100);
    proxy.connect().send(b"POST / HTTP/1.1\r\n").read_to_close();
    let counted = |line: &str| line.contains("cross-protocol") && !line.contains("left_out=0");
    eventually("the others are counted", secs(2), || proxy.log().lines().any(counted));
}

/// S8: what Redweir answers by itself follows the rules, too.
#[test]
fn what_only_redweir_knows_is_told_to_those_who_may_know() {
    let reader = ["--user", "reader", "on", ">pw", "~*", "-@all", "+get", "+info"];
    let nobody = ["--user", "nobody", "on", ">pw", "~*", "-@all", "+get"];
    let users = [USERS, &reader, &nobody].concat();
    let topology = Topology::with(&users, 1, &users);
    let proxy = Setup::of(&topology).upstream(LOGIN).start();
    let about: [&[&str]; 5] = [
        &["REDWEIR", "VIEW"],
        &["REDWEIR", "EXPLAIN", "GET", "k"],
        &["REDWEIR", "TOKEN"],
        &["INFO", "redweir"],
        &["INFO"],
    ];
    let own: [&[&str]; 3] = [&["WAIT", "0", "0"], &["CLIENT", "ID"], &["CLIENT", "INFO"]];
    let denied = |value: &Value| value.is_error() && value.error().starts_with("NOPERM");
    let mut nobody = login(proxy.port, "nobody", "pw");
    for command in about.iter().chain(&own) {
        let answer = nobody.cmd(command);
        assert!(denied(&answer), "{command:?}: {answer:?}");
    }
    assert_eq!(nobody.cmd(&["GET", "k"]), Value::Null);
    assert_eq!(nobody.cmd(&["REDWEIR", "POLICY"]), "default");
    let mut reader = login(proxy.port, "reader", "pw");
    for command in about {
        assert!(!reader.cmd(command).is_error(), "{command:?}");
    }
    for command in own {
        assert!(denied(&reader.cmd(command)), "{command:?}");
    }
    let mut free = [proxy.connect(), login(proxy.port, "alice", "alice-pw")];
    for conn in &mut free {
        for command in about.iter().chain(&own) {
            assert!(!conn.cmd(command).is_error(), "{command:?}");
        }
    }
    assert!(reader.cmd(&["INFO", "redweir"]).text().starts_with("# Redweir\r\n"));
}

/// S8
#[test]
fn a_deleted_user_reads_nothing_after_the_next_poll() {
    let topology = Topology::with(USERS, 1, USERS);
    let proxy = Setup::of(&topology).upstream(LOGIN).start();
    let mut root = login(topology.primary.port, "admin", "admin-pw");
    for _ in 0..5 {
        root.cmd(&["ACL", "SETUSER", "guest", "on", ">pw", "~*", "+@all", "-debug"]);
        let mut on_replica = login(topology.replicas[0].port, "admin", "admin-pw");
        on_replica.cmd(&["ACL", "SETUSER", "guest", "on", ">pw", "~*", "+@all", "-debug"]);
        on_replica.cmd(&["CONFIG", "RESETSTAT"]);
        let mut guest = login(proxy.port, "guest", "pw");
        guest.cmd(&["SET", "k", "v"]);
        eventually("a replica serves the guest", secs(5), || {
            assert_eq!(guest.cmd(&["GET", "k"]), "v");
            on_replica.cmd(&["INFO", "commandstats"]).text().contains("cmdstat_get:calls=")
        });
        root.cmd(&["ACL", "DELUSER", "guest"]);
        let deleted = Instant::now();
        while guest.try_cmd(&["GET", "k"]).is_ok_and(|value| value == "v") {
            assert!(deleted.elapsed() < ms(400), "reads are served after {:?}", deleted.elapsed());
        }
        println!("the last read was served {:?} after DELUSER", deleted.elapsed());
    }
}

/// S8
#[test]
fn a_null_is_one_of_the_protocol_that_hello_has_chosen() {
    let topology = Topology::with(USERS, 0, USERS);
    let proxy = Setup::of(&topology).upstream(LOGIN).start();
    for port in [topology.primary.port, proxy.port] {
        let mut conn = Conn::open(port);
        conn.send(b"HELLO 3 AUTH alice alice-pw\r\nCLIENT GETNAME\r\nGET nothing\r\nPING\r\nQUIT\r\n");
        let bytes = conn.read_to_close();
        let said = String::from_utf8_lossy(&bytes).into_owned();
        assert!(said.ends_with("\r\n_\r\n_\r\n+PONG\r\n+OK\r\n"), "{port}: {said:?}");
    }
}

/// One that has left waits for nothing, and costs nobody anything.
#[test]
fn who_has_left_keeps_no_seat_and_asks_nobody() {
    let topology = Topology::with(USERS, 1, USERS);
    let proxy = Setup::of(&topology).upstream(LOGIN).start();
    let mut root = login(topology.primary.port, "admin", "admin-pw");
    let token = proxy.cmd(&["REDWEIR", "TOKEN"]).text();
    let (id, _) = token.split_once(':').unwrap();
    let ahead = format!("{id}:900000000000");
    for _ in 0..10 {
        let mut ghost = proxy.connect();
        ghost.ask(&["REDWEIR", "AFTER", &ahead, "18446744073709551615"]).finish();
    }
    // Guesses that nobody waits for do not keep others waiting.
    for _ in 0..400 {
        proxy.connect().ask(&["AUTH", "nobody", "guess"]).finish();
    }
    let since = Instant::now();
    let mut late = Conn::open(proxy.port);
    assert_eq!(late.patience(secs(10)).cmd(&["AUTH", "admin", "admin-pw"]), "OK");
    assert!(since.elapsed() < secs(3), "a login took {:?}", since.elapsed());
    eventually("they are gone", secs(5), || proxy.metric("redweir_clients", &[]) < 2.5);
    let asked = |root: &mut Conn| stat(root, "commandstats", "cmdstat_role:calls=");
    let before = asked(&mut root);
    sleep_ms(1000);
    assert!(asked(&mut root) - before < 60, "{} looks a second", asked(&mut root) - before);
}
