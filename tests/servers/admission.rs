//! Somebody who wants to hurt: who guesses passwords, opens connections and reads nothing, uses up descriptors, comes while
//! the primary is dead. What he does must neither let him in nor keep anybody else out.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]
#![allow(clippy::print_stdout, reason = "the rates are what one wants to know")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::hostile::{Act, Role};
use crate::support::{
    Conn, Hostile, Redis, Server, Setup, Topology, Value, eventually, http_get, ms, secs, sleep_ms,
};

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

/// The fastest of some logins of users that nobody knows yet. Whoever is suspect waits 20 ms at least.
fn fastest_login(root: &mut Conn, port: u16, name: &str) -> Duration {
    let login = |n: usize| {
        let user = format!("{name}-{n}");
        assert_eq!(root.cmd(&["ACL", "SETUSER", &user, "on", ">pw", "~*", "+@all"]), "OK");
        let mut conn = Conn::open(port);
        let since = Instant::now();
        assert_eq!(conn.cmd(&["AUTH", &user, "pw"]), "OK");
        since.elapsed()
    };
    (0..10).map(login).min().unwrap()
}

/// Many connections that guess the password of one user keep nobody else who comes from there waiting behind all of them.
#[test]
fn who_is_new_waits_for_one_guess_at_somebody_else_and_not_for_all() {
    let primary = Redis::start(USERS);
    let mut root = login(primary.port, "admin", "admin-pw");
    for user in ["bob", "carol", "dave"] {
        assert_eq!(root.cmd(&["ACL", "SETUSER", user, "on", ">pw", "~*", "+@all"]), "OK");
    }
    let proxy = Setup::to(primary.port, &[]).upstream(LOGIN).proxy("[proxy]\nworkers = 1").start();
    // In line they wait for 4 seconds, at 20 ms each.
    let mut guessers: Vec<Conn> = (0..200).map(|_| proxy.connect()).collect();
    for conn in &mut guessers {
        conn.patience(secs(30));
        for n in 0..3 {
            conn.ask(&["AUTH", "alice", &format!("guess-{n}")]);
        }
    }
    for conn in &mut guessers {
        assert!(conn.read().error().starts_with("WRONGPASS"));
    }
    for user in ["bob", "carol", "dave"] {
        let since = Instant::now();
        let mut conn = Conn::open(proxy.port);
        assert_eq!(conn.patience(secs(20)).cmd(&["AUTH", user, "pw"]), "OK");
        println!("{user} was let in after {:?}", since.elapsed());
        assert!(since.elapsed() < ms(1000), "{user} waited for {:?}", since.elapsed());
    }
    // Nobody waits for ever, either.
    assert!(guessers[20].read().error().starts_with("WRONGPASS"));
}

/// Whoever cannot be told whether a password is right has not guessed one.
#[test]
fn a_primary_that_cannot_say_makes_nobody_suspect() {
    const TIMES: u64 = 20;
    let mut primary = Redis::start(USERS);
    let busy = |real: Vec<u8>, played: u64, _: u16| match played / TIMES {
        0 => b"-LOADING Redis is loading the dataset in memory\r\n".to_vec(),
        1 => b"-ERR max number of clients reached\r\n".to_vec(),
        _ => real,
    };
    let node = Hostile::playing(&Role { name: "busy", on: &["AUTH"], act: Act::Change(busy) }, primary.port);
    let setup = Setup::to(node.port, &[]).upstream("write-hold = \"50ms\"");
    let proxy = setup.proxy("[proxy]\nworkers = 1").start();
    let told = |what: &str| {
        let mut conn = Conn::open(proxy.port);
        for _ in 0..TIMES {
            assert!(conn.cmd(&["AUTH", "alice", "alice-pw"]).error().starts_with(what), "{what}");
        }
    };
    told("LOADING");
    told("ERR max number of clients");
    let mut root = login(primary.port, "admin", "admin-pw");
    let after_busy = fastest_login(&mut root, proxy.port, "busy");
    assert!(after_busy < ms(15), "a login took {after_busy:?}");
    primary.kill();
    told("MASTERDOWN");
    primary.restart();
    eventually("the primary is back", secs(5), || proxy.get("/readyz").0 == 200);
    let mut root = login(primary.port, "admin", "admin-pw");
    let after_down = fastest_login(&mut root, proxy.port, "down");
    assert!(after_down < ms(15), "a login took {after_down:?}");
    // So it would have been seen.
    let mut conn = Conn::open(proxy.port);
    let mut wrong = 0;
    eventually("twenty wrong guesses", secs(10), || {
        let said = conn.cmd(&["AUTH", "alice", "guess"]);
        // On a busy machine a look at the primary may come late: nothing is said of the guess then.
        let may_be_down = said.error().starts_with("MASTERDOWN");
        assert!(may_be_down || said.error().starts_with("WRONGPASS"), "{said:?}");
        wrong += u64::from(!may_be_down);
        wrong == TIMES
    });
    let suspect = fastest_login(&mut root, proxy.port, "suspect");
    assert!(suspect >= ms(20), "a login took {suspect:?}");
    println!("logins: {after_busy:?}, {after_down:?}, {suspect:?} as a suspect");
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
    let scrapes = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(300);
    let mut held = Vec::new();
    let look = |what: &str| {
        for path in ["/livez", "/readyz", "/metrics"] {
            let since = Instant::now();
            assert_eq!(http_get(proxy.admin_port, path).unwrap().0, 200, "{what}");
            // A page takes an unoptimised build long, and whoever runs the tests has other things to do.
            assert!(since.elapsed() < ms(3000), "{what}: {path} took {:?}", since.elapsed());
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
    assert!(!end.is_err_and(|problem| crate::support::resp::is_timeout(&problem)), "it is still open");
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
                assert!(!crate::support::resp::is_timeout(&problem), "a newcomer hangs");
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

/// The number of the lowest descriptor that a process has free, and of the one that its admin server keeps to spare, if any.
fn descriptors(pid: u32) -> (usize, Option<usize>) {
    let dir = format!("/proc/{pid}/fd");
    let numbers = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name());
    let open: Vec<usize> = numbers.map(|name| name.to_str().unwrap().parse().unwrap()).collect();
    let is_spare = |fd: &&usize| {
        // What it reads from is one of those, too.
        **fd > 2 && std::fs::read_link(format!("{dir}/{fd}")).is_ok_and(|path| path.ends_with("dev/null"))
    };
    let lowest_free = (0..=open.len()).find(|fd| !open.contains(fd)).unwrap();
    (lowest_free, open.iter().find(is_spare).copied())
}

/// S6: whatever uses them up, whether the process lives can be asked.
#[test]
fn probes_are_answered_though_no_descriptor_is_free() {
    let primary = Redis::start(&[]);
    let mut proxy = Setup::to(primary.port, &[]).proxy("[proxy]\nworkers = 1").start();
    let mut inside = proxy.connect();
    assert_eq!(inside.cmd(&["SET", "k", "v"]), "OK");
    let limit = |most: &str| {
        let pid = proxy.pid().to_string();
        let done = Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={most}:")]).status();
        assert!(done.unwrap().success());
    };
    // What was opened for a moment at the start is closed by then, and leaves none free.
    sleep_ms(2500);
    // All below the limit are in use, the spare one among them.
    let mut crowd = Vec::new();
    let mut full = || {
        let (free, spare) = descriptors(proxy.pid());
        if spare.is_some_and(|spare| free < spare) {
            crowd.push(proxy.connect());
        }
        spare.is_none_or(|spare| free > spare)
    };
    eventually("the spare descriptor is not the last", secs(5), &mut full);
    limit(&descriptors(proxy.pid()).0.to_string());
    for _ in 0..5 {
        for path in ["/livez", "/readyz", "/metrics"] {
            let since = Instant::now();
            assert_eq!(http_get(proxy.admin_port, path).unwrap().0, 200, "{path}");
            assert!(since.elapsed() < ms(1000), "{path} took {:?}", since.elapsed());
        }
        assert_eq!(inside.cmd(&["GET", "k"]), "v");
    }
    assert!(proxy.log().contains("accept failed on the admin address"), "there was a descriptor left");
    drop(crowd);
    assert_eq!(proxy.stop(), Some(0));
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

/// What Redweir answers about a connection.
const ABOUT_A_CONNECTION: [&[&str]; 17] = [
    &["CLIENT", "GETNAME"],
    &["CLIENT", "SETNAME", "me"],
    &["CLIENT", "NO-EVICT", "on"],
    &["CLIENT", "REPLY", "ON"],
    &["CLIENT", "REPLY", "what"],
    &["CLIENT", "ID"],
    &["CLIENT", "INFO"],
    &["SELECT", "0"],
    &["SELECT", "1"],
    &["SELECT", "1"],
    &["SELECT", "99"],
    &["select", "0"],
    &["WATCH", "k"],
    &["CLIENT", "SETNAME", "me"],
    &["CLIENT", "REPLY", "ON"],
    &["UNWATCH"],
    &["CLIENT", "REPLY", "OFF"],
];

/// What is told to everybody, except by Redis 6.2.
const MALFORMED: [&[&str]; 4] =
    [&["CLIENT", "GETNAME", "x"], &["CLIENT", "ID", "x"], &["CLIENT", "SETNAME"], &["SELECT"]];

/// S8: what Redweir answers about a client's connection is denied where the primary denies it.
#[test]
fn what_is_about_a_connection_is_denied_as_by_the_primary() {
    let topology = Topology::with(USERS, 0, USERS);
    let mut root = login(topology.primary.port, "admin", "admin-pw");
    let rules = [
        "+@all",
        "+@all -debug",
        "+@all -client|setname",
        "+@all -client|reply -client|no-evict",
        "+@all -client",
        "+@all -select",
        "+@all -@connection",
        "+@all -@connection +select",
        "+@all -@dangerous",
        "-@all +@connection",
        "-@all +client|getname +select",
        "-@all (+@all ~*)",
        "-@all",
    ];
    let (is_old, mut denied) = (topology.primary.kind == Server::Redis62, 0);
    let mut users = Vec::new();
    for (n, rules) in rules.iter().enumerate() {
        let user = format!("user-{n}");
        let (plain, selector) = rules.split_once(" (").unwrap_or((rules, ""));
        let selector = format!("({selector}");
        let words = ["ACL", "SETUSER", &user, "on", ">pw", "~*"].into_iter().chain(plain.split(' '));
        let words: Vec<&str> = words.chain((selector.len() > 1).then_some(&*selector)).collect();
        // An older server has no rules for subcommands, and no selectors.
        if root.cmd(&words) == "OK" {
            users.push((user, rules));
        }
    }
    for acl in ["verify", "trust"] {
        let security = format!("[security]\nreplica-acl = \"{acl}\"\n");
        let proxy = Setup::of(&topology).upstream(LOGIN).toml(&security).start();
        for (user, rules) in &users {
            let (mut through, mut direct) =
                (login(proxy.port, user, "pw"), login(topology.primary.port, user, "pw"));
            for command in ABOUT_A_CONNECTION.into_iter().chain(MALFORMED) {
                let is_silenced = command.contains(&"OFF") && !rules.ends_with("-client");
                if is_silenced || is_old && MALFORMED.contains(&command) {
                    continue;
                }
                let (ours, theirs) = (through.cmd(command), direct.cmd(command));
                let is_denied = |value: &Value| value.is_error() && value.error().starts_with("NOPERM");
                // Redis 6.2 does not know all of them.
                let is_told = is_denied(&theirs) || theirs.is_error() && !is_old;
                assert!(
                    is_denied(&ours) == is_denied(&theirs) && (!is_told || ours == theirs),
                    "{rules}, {acl}: {command:?}: {ours:?}, {theirs:?}"
                );
                denied += usize::from(is_denied(&theirs));
            }
            assert_eq!(through.cmd(&["AUTH", "alice", "alice-pw"]), "OK");
            let name = through.cmd(&["CLIENT", "GETNAME"]);
            assert!(!name.is_error(), "{rules}, {acl}: {name:?}");
        }
    }
    assert!(denied > 100 || is_old && denied > 50, "{denied} were denied");
}

/// S8: rules that are narrowed count for who is there; who may plainly do it costs the primary nothing.
#[test]
fn who_may_plainly_do_it_is_not_asked_about_and_who_may_no_longer_is_denied() {
    let topology = Topology::with(USERS, 0, USERS);
    let mut root = login(topology.primary.port, "admin", "admin-pw");
    for user in ["free", "nearly"] {
        assert_eq!(root.cmd(&["ACL", "SETUSER", user, "on", ">pw", "~*", "&*", "+@all"]), "OK");
    }
    assert_eq!(root.cmd(&["ACL", "SETUSER", "nearly", "-debug", "-@scripting"]), "OK");
    let proxy = Setup::of(&topology).upstream(LOGIN).start();
    let commands: [&[&str]; 5] = [
        &["CLIENT", "GETNAME"],
        &["CLIENT", "SETNAME", "me"],
        &["CLIENT", "NO-EVICT", "on"],
        &["CLIENT", "REPLY", "ON"],
        &["SELECT", "0"],
    ];
    let mut conns = [proxy.connect(), login(proxy.port, "free", "pw"), login(proxy.port, "nearly", "pw")];
    root.cmd(&["CONFIG", "RESETSTAT"]);
    for _ in 0..20 {
        for conn in &mut conns {
            for command in commands {
                assert!(!conn.cmd(command).is_error(), "{command:?}");
            }
        }
    }
    let stats = root.cmd(&["INFO", "commandstats"]).text();
    for asked in ["cmdstat_client|getname", "cmdstat_client|setname", "cmdstat_client|reply"] {
        assert!(!stats.contains(asked), "{asked} in {stats}");
    }
    for user in ["default", "free", "nearly"] {
        assert_eq!(root.cmd(&["ACL", "SETUSER", user, "-client", "-select"]), "OK");
    }
    let narrowed = Instant::now();
    for conn in &mut conns {
        for command in commands {
            eventually("it is denied", ms(500), || conn.cmd(command).is_error());
            assert!(conn.cmd(command).error().starts_with("NOPERM"), "{command:?}");
        }
    }
    println!("all was denied {:?} after the rules were narrowed", narrowed.elapsed());
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

/// S8: who comes back under the same name has the rules of now, and so has whoever was there.
#[test]
fn a_user_who_is_made_anew_has_the_new_rules() {
    let topology = Topology::with(USERS, 1, USERS);
    let proxy = Setup::of(&topology).upstream(LOGIN).start();
    let mut root = login(topology.primary.port, "admin", "admin-pw");
    let mut on_replica = login(topology.replicas[0].port, "admin", "admin-pw");
    assert_eq!(root.cmd(&["MSET", "secret", "hidden", "pub:1", "open"]), "OK");
    topology.await_sync();
    let wide = ["ACL", "SETUSER", "guest", "reset", "on", ">pw", "~*", "+@all", "-debug"];
    for password in [">pw", ">pw", ">another"] {
        for server in [&mut root, &mut on_replica] {
            assert_eq!(server.cmd(&wide), "OK");
        }
        on_replica.cmd(&["CONFIG", "RESETSTAT"]);
        let mut old = login(proxy.port, "guest", "pw");
        eventually("a replica serves the guest", secs(5), || {
            assert_eq!(old.cmd(&["GET", "secret"]), "hidden");
            on_replica.cmd(&["INFO", "commandstats"]).text().contains("cmdstat_get:calls=")
        });
        // At once: no poll sees that there is no such user.
        root.ask(&["ACL", "DELUSER", "guest"]);
        root.ask(&["ACL", "SETUSER", "guest", "on", password, "~pub:*", "+@read", "+@connection"]);
        assert_eq!(root.read(), Value::Int(1));
        assert_eq!(root.read(), "OK");
        let changed = Instant::now();
        let mut new = login(proxy.port, "guest", &password[1..]);
        let mut last = Duration::ZERO;
        while changed.elapsed() < ms(1500) {
            let is_served = |conn: &mut Conn| conn.try_cmd(&["GET", "secret"]).is_ok_and(|v| v == "hidden");
            if is_served(&mut new) | is_served(&mut old) {
                last = changed.elapsed();
            }
            assert_eq!(new.cmd(&["GET", "pub:1"]), "open");
            if password == ">another" && changed.elapsed() > ms(400) {
                assert!(old.try_cmd(&["GET", "pub:1"]).is_err(), "who knows the old password is still there");
            }
        }
        assert!(last < ms(400), "reads were served by the old rules until {last:?}");
        println!("the last read was served by the old rules {last:?} after the change");
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

/// Who says `AUTH` while its connection holds something is somebody else from then on, also for what Redweir would answer.
#[test]
fn who_becomes_another_user_on_a_connection_of_its_own_has_that_ones_rights() {
    let user = ["--user", "clerk", "on", ">pw", "~*", "&*", "+@all", "-client", "-info", "-acl"];
    let users = [USERS, &user].concat();
    let topology = Topology::with(&users, 0, &users);
    let proxy = Setup::of(&topology).upstream(LOGIN).start();
    let auth: &[&str] = &["AUTH", "clerk", "pw"];
    let ways: [&[&[&str]]; 4] = [
        &[&["WATCH", "k"], auth],
        &[&["WATCH", "k"], &["SELECT", "0"], &["UNWATCH"], auth],
        &[&["MULTI"], auth, &["EXEC"]],
        &[&["CLIENT", "TRACKING", "ON", "BCAST"], auth],
    ];
    let about: [&[&str]; 7] = [
        &["CLIENT", "LIST"],
        &["CLIENT", "GETNAME"],
        &["CLIENT", "NO-EVICT", "on"],
        &["CLIENT", "KILL", "TYPE", "pubsub"],
        &["CLIENT", "REPLY", "ON"],
        &["INFO", "redweir"],
        &["REDWEIR", "VIEW"],
    ];
    for way in ways {
        let mut conn = login(proxy.port, "alice", "alice-pw");
        if way[0][0] == "CLIENT" {
            assert!(!conn.cmd(&["HELLO", "3"]).is_error());
        }
        for command in about {
            assert!(!conn.cmd(command).is_error(), "{command:?}");
        }
        for command in way {
            let answer = conn.cmd(command);
            assert!(!answer.is_error(), "{command:?}: {answer:?}");
        }
        for command in about {
            let answer = conn.cmd(command);
            assert!(answer.is_error(), "{way:?}: {command:?}: {answer:?}");
        }
        assert_eq!(conn.cmd(&["ACL", "WHOAMI"]).error().split(' ').next(), Some("NOPERM"));
        assert!(!conn.cmd(&["EXISTS", "k"]).is_error());
        assert_eq!(conn.cmd(&["RESET"]), "RESET");
    }
}
