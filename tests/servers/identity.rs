//! Who a client is: the primary decides, at every moment, and nobody passes as somebody else. Users come and go,
//! passwords change, replicas have access rules of their own; what is secret is told to nobody.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]

use std::process::Command;
use std::thread;
use std::time::Instant;

use crate::support::{
    Conn, Proxy, Redis, Sentinel, Server, Setup, Topology, Value, encode, eventually, http_get, ms, secs,
    sleep_ms,
};

const NOAUTH: &str = "NOAUTH Authentication required.";
const WRONGPASS: &str = "WRONGPASS invalid username-password pair or user is disabled.";

/// An administrator, so that the tests can go on when `default` is shut out.
const ADMIN: &[&str] = &["--user", "admin", "on", ">admin-pw", "~*", "&*", "+@all"];
/// A user who may do anything.
const ALICE: &[&str] = &["--user", "alice", "on", ">alice-pw", "~*", "&*", "+@all"];

/// Redweir's own connections do not depend on the default user.
fn setup(topology: &Topology) -> Setup {
    Setup::of(topology).upstream("username = \"admin\"\npassword = \"admin-pw\"")
}

fn with_users(replicas: usize) -> (Topology, Proxy) {
    let users = [ADMIN, ALICE].concat();
    let topology = Topology::with(&users, replicas, &users);
    let proxy = setup(&topology).start();
    (topology, proxy)
}

fn login(proxy: &Proxy, user: &str, password: &str) -> Conn {
    let mut conn = proxy.connect();
    assert_eq!(conn.cmd(&["AUTH", user, password]), "OK");
    conn
}

/// A connection to a server as `admin`, who outlives what the tests do to the others.
fn admin(port: u16) -> Conn {
    let mut conn = Conn::open(port);
    assert_eq!(conn.cmd(&["AUTH", "admin", "admin-pw"]), "OK");
    conn
}

/// How many connections a server has accepted.
fn received(root: &mut Conn) -> u64 {
    let stats = root.cmd(&["INFO", "stats"]).text();
    let line = stats.lines().find_map(|line| line.strip_prefix("total_connections_received:"));
    line.unwrap().parse().unwrap()
}

fn connections(conn: &mut Conn, user: &str) -> usize {
    conn.cmd(&["CLIENT", "LIST"])
        .text()
        .lines()
        .filter(|line| line.contains(&format!(" user={user} ")))
        .count()
}

#[test]
fn who_comes_after_a_password_was_set_needs_it_and_who_was_there_stays() {
    let (topology, proxy) = with_users(1);
    // Lanes of the anonymous identity are open on both workers, to both nodes.
    let mut old: Vec<Conn> = (0..4).map(|_| proxy.connect()).collect();
    for conn in &mut old {
        assert_eq!(conn.cmd(&["SET", "k", "v"]), "OK");
    }
    topology.await_sync();
    sleep_ms(300);
    for conn in &mut old {
        assert_eq!(conn.cmd(&["GET", "k"]), "v");
    }
    let mut root = admin(topology.primary.port);
    for round in 0..10 {
        assert_eq!(root.cmd(&["CONFIG", "SET", "requirepass", "hunter2"]), "OK");
        for command in
            [&["GET", "k"][..], &["SET", "k", "w"], &["CLIENT", "LIST"], &["REDWEIR", "VIEW"], &["MULTI"]]
        {
            assert_eq!(proxy.cmd(command), Value::Error(NOAUTH.to_owned()), "round {round}: {command:?}");
        }
        assert!(
            proxy
                .cmd(&["HELLO", "3"])
                .error()
                .starts_with("NOAUTH HELLO must be called with the client already")
        );
        for conn in &mut old {
            assert_eq!(conn.cmd(&["GET", "k"]), "v", "as on Redis, who is in stays in");
        }
        let mut late = proxy.connect();
        assert_eq!(late.cmd(&["GET", "k"]).error(), NOAUTH);
        assert_eq!(late.cmd(&["AUTH", "hunter2"]), "OK");
        assert_eq!(late.cmd(&["GET", "k"]), "v");
        assert_eq!(late.cmd(&["RESET"]), "RESET");
        assert_eq!(late.cmd(&["GET", "k"]).error(), NOAUTH, "RESET logs it out");
        assert_eq!(root.cmd(&["CONFIG", "SET", "requirepass", ""]), "OK");
        eventually("the password is gone", secs(2), || late.cmd(&["GET", "k"]) == "v");
        assert_eq!(proxy.cmd(&["GET", "k"]), "v");
    }
}

/// What cannot be had without a new connection to the primary fails; what can goes on, for this client and for others.
#[test]
fn who_was_there_keeps_what_it_has_and_gets_nothing_new() {
    let (topology, proxy) = with_users(0);
    let (mut old, mut other) = (proxy.connect(), proxy.connect());
    for conn in [&mut old, &mut other] {
        assert_eq!(conn.cmd(&["SET", "k", "v"]), "OK");
    }
    let mut root = admin(topology.primary.port);
    root.cmd(&["CONFIG", "SET", "requirepass", "hunter2"]);
    assert_eq!(old.cmd(&["MULTI"]).error(), NOAUTH);
    assert_eq!(old.cmd(&["SELECT", "3"]).error(), NOAUTH);
    for conn in [&mut old, &mut other] {
        assert_eq!(conn.cmd(&["GET", "k"]), "v");
    }
    // The lanes are lost; nobody gets a new one without the password, and the primary is not asked again and again.
    root.cmd(&["CLIENT", "KILL", "USER", "default"]);
    for conn in [&mut old, &mut other] {
        eventually("it has to log in", secs(2), || {
            conn.cmd(&["GET", "k"]) == Value::Error(NOAUTH.to_owned())
        });
        let before = received(&mut root);
        for _ in 0..200 {
            assert_eq!(conn.cmd(&["GET", "k"]).error(), NOAUTH);
        }
        assert!(received(&mut root) - before < 10);
        assert_eq!(conn.cmd(&["AUTH", "hunter2"]), "OK");
        assert_eq!(conn.cmd(&["GET", "k"]), "v");
    }
}

#[test]
fn lanes_that_nobody_uses_are_closed() {
    let options = [ADMIN, &["--databases", "500"]].concat();
    let topology = Topology::with(&options, 0, &[]);
    let proxy = setup(&topology).start();
    let lanes = || {
        let info = proxy.cmd(&["INFO", "redweir"]).text();
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix("redweir_upstream_connections:").map(str::to_owned));
        line.unwrap().parse::<usize>().unwrap()
    };
    let mut conn = proxy.connect();
    for db in 0..450 {
        assert_eq!(conn.cmd(&["SELECT", &db.to_string()]), "OK");
    }
    eventually("most of them are closed", secs(5), || lanes() <= 262);
    assert_eq!(conn.cmd(&["SET", "k", "v"]), "OK", "the one in use stays");
    assert_eq!(conn.cmd(&["SELECT", "7"]), "OK");
    assert_eq!(conn.cmd(&["GET", "k"]), Value::Null);
}

#[test]
fn a_crowd_at_the_door_costs_the_primary_few_questions() {
    let (topology, proxy) = with_users(1);
    proxy.cmd(&["SET", "k", "v"]);
    let before = topology.primary.calls("reset");
    let clients: Vec<_> = (0..100)
        .map(|_| {
            let mut conn = proxy.connect();
            thread::spawn(move || assert_eq!(conn.cmd(&["GET", "k"]), "v"))
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    let asked = topology.primary.calls("reset") - before;
    assert!((1..=220).contains(&asked), "asked {asked} times for 100 clients");
    sleep_ms(500);
    let idle = topology.primary.calls("reset");
    sleep_ms(500);
    assert_eq!(topology.primary.calls("reset"), idle, "nobody comes, nothing is asked");
}

#[test]
fn without_a_primary_the_replica_says_who_may_read() {
    let (mut topology, _) = with_users(1);
    let lax = "[policy.default]\nconsistency = \"eventual\"\nreplica-serve-stale-data = \"yes\"";
    let proxy = setup(&topology).toml(lax).start();
    proxy.cmd(&["SET", "k", "v"]);
    topology.await_sync();
    topology.primary.kill();
    eventually("a newcomer reads from the replica", secs(8), || proxy.cmd(&["GET", "k"]) == "v");
    assert!(proxy.cmd(&["INFO", "redweir"]).text().starts_with("# Redweir\r\nredweir_version:"));
    let mut replica = admin(topology.replicas[0].port);
    assert_eq!(replica.cmd(&["CONFIG", "SET", "requirepass", "hunter2"]), "OK");
    assert_eq!(proxy.cmd(&["GET", "k"]).error(), NOAUTH);
}

/// The replica lets anybody in, the primary does not; while it is silent, an unauthenticated client must not leave a
/// write for it on a connection that is still open.
#[test]
fn a_guest_of_the_replica_writes_nothing() {
    let (topology, _) = with_users(1);
    let lax = "[policy.default]\nconsistency = \"eventual\"\nreplica-serve-stale-data = \"yes\"";
    let proxy = setup(&topology)
        .upstream("probe-timeout = \"3s\"\nwrite-hold = \"8s\"")
        .toml(lax)
        .proxy("[proxy]\nworkers = 1")
        .start();
    let mut old = proxy.connect();
    assert_eq!(old.cmd(&["SET", "k", "v"]), "OK");
    topology.await_sync();
    admin(topology.primary.port).cmd(&["CONFIG", "SET", "requirepass", "hunter2"]);
    topology.primary.pause();
    // It is silent, but does not hang: then nobody would have a connection there any longer. That takes six seconds.
    sleep_ms(3300);
    let (mut guest, mut reader) = (proxy.connect(), proxy.connect());
    guest.ask(&["SET", "k", "by a guest"]);
    assert_eq!(reader.cmd(&["GET", "k"]), "v", "the replica would answer it as well");
    old.ask(&["SET", "mine", "v"]);
    sleep_ms(300);
    topology.primary.resume();
    assert_eq!(guest.read().error(), NOAUTH);
    assert_eq!(old.read(), "OK", "who was there before writes");
    assert_eq!(admin(topology.primary.port).cmd(&["GET", "k"]), "v");
    eventually("it is no guest of the primary", secs(3), || {
        reader.cmd(&["GET", "k"]) == Value::Error(NOAUTH.to_owned())
    });
}

#[test]
fn a_default_user_that_is_off_lets_nobody_in() {
    let (topology, proxy) = with_users(1);
    assert_eq!(proxy.cmd(&["SET", "k", "v"]), "OK");
    admin(topology.primary.port).cmd(&["ACL", "SETUSER", "default", "off"]);
    let mut conn = proxy.connect();
    assert_eq!(conn.cmd(&["GET", "k"]).error(), NOAUTH);
    assert_eq!(conn.cmd(&["AUTH", "default", "x"]).error(), WRONGPASS);
    assert_eq!(conn.cmd(&["AUTH", "alice", "alice-pw"]), "OK");
    assert_eq!(conn.cmd(&["GET", "k"]), "v");
}

/// The rules that the reference file gives for Redweir's own user: the words of the command after `before`, where it
/// stands in a comment.
fn rules_of_the_reference(before: &str) -> Vec<&'static str> {
    let manual = include_str!("../../config/redweir.toml");
    let mut lines = manual.lines().skip_while(|line| !line.contains(before));
    let (first, more) = (lines.next().unwrap(), lines.take_while(|line| line.starts_with("#       ")));
    let words =
        std::iter::once(first).chain(more).flat_map(|line| line.trim_start_matches('#').split_whitespace());
    words.collect()
}

/// What `redweir` says about the configuration file of this proxy.
fn redweir(args: &[&str], proxy: &Proxy) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_redweir"));
    let output = command.args(args).arg("--config").arg(proxy.file()).env_remove("REDWEIR_LOG").output();
    String::from_utf8(output.unwrap().stdout).unwrap()
}

/// Redweir's own user has the rules that the manual gives, and no others: everything works, and nothing was denied. With those for
/// the doctor it may ask all that it asks.
#[test]
fn the_rules_that_the_manual_gives_are_enough() {
    let rules = rules_of_the_reference("ACL SETUSER redweir on >secret +role");
    let page = include_str!("../../docs/operations.md");
    let on_page = page.lines().find(|line| line.starts_with("ACL SETUSER redweir ")).unwrap();
    assert_eq!(on_page.split(' ').collect::<Vec<_>>(), rules, "docs/operations.md gives the same");
    let more = page.split_once("Further rules let the [doctor](#doctor) see more: `").unwrap().1;
    let more: Vec<&str> = more.split('`').next().unwrap().split(' ').collect();
    for kind in [Server::Redis70, Server::Redis62] {
        let topology = Topology::start_as(kind, 1);
        let servers = [&topology.primary, &topology.replicas[0].server];
        for server in servers {
            assert_eq!(server.cmd(&rules), "OK");
        }
        let proxy = Setup::of(&topology)
            .upstream("username = \"redweir\"\npassword = \"secret\"")
            .policy("default", "consistency = \"fenced\"")
            .start();
        eventually("the stream is attached", secs(5), || proxy.metric("redweir_stream_attached", &[]) > 0.5);
        let watched = || topology.replicas[0].cmd(&["CLIENT", "LIST"]).text();
        let is_tracked = |client: &str| client.contains("user=redweir") && client.contains("flags=btB");
        eventually("the replica is watched", secs(5), || watched().lines().any(is_tracked));
        assert_eq!(proxy.cmd(&["SET", "k", "v"]), "OK");
        assert_eq!(proxy.cmd(&["GET", "k"]), "v");
        eventually("a replica is read from", secs(5), || {
            proxy.cmd(&["GET", "k"]);
            topology.replicas[0].calls("get") > 0
        });
        let (code, body) = proxy.get("/readyz");
        assert_eq!(code, 200, "{kind:?}: {body}");
        for line in ["replicas in service: 1 of 1", "access rules: the same at every replica"] {
            assert!(body.contains(line), "{kind:?}: {body}");
        }
        assert!(!body.contains("weaker: ") && !body.contains("not attached"), "{kind:?}: {body}");
        assert!(!proxy.metrics().contains("redweir_withheld{"), "{kind:?}");
        eventually("the doctor has looked", secs(10), || proxy.get("/doctor").1.contains("\"ping_ms\""));
        assert!(!proxy.get("/doctor").1.contains("denied-command"), "{kind:?}: {}", proxy.get("/doctor").1);
        for server in servers {
            assert_eq!(server.cmd(&["ACL", "LOG"]), Value::Array(Vec::new()), "{kind:?}: nothing was denied");
        }
        let without = redweir(&["check", "--connect"], &proxy);
        for rule in &more {
            assert!(without.contains(&format!("allow {rule}\n")), "{kind:?}: {rule}: {without}");
        }
        for server in servers {
            assert_eq!(server.cmd(&[&["ACL", "SETUSER", "redweir"], &more[..]].concat()), "OK");
            server.cmd(&["ACL", "LOG", "RESET"]);
        }
        let with = redweir(&["check", "--connect"], &proxy);
        assert!(with.contains("the password is right") && !with.contains("may not"), "{kind:?}: {with}");
        let found = redweir(&["doctor"], &proxy);
        assert!(!found.contains("may not") && !found.contains("denied-command"), "{kind:?}: {found}");
        for server in servers {
            assert_eq!(server.cmd(&["ACL", "LOG"]), Value::Array(Vec::new()), "{kind:?}: nothing was denied");
        }
    }
}

/// The same at sentinels: nodes are found, and a failover is heard of.
#[test]
fn the_rules_that_the_manual_gives_are_enough_at_sentinels() {
    let rules = rules_of_the_reference("ACL SETUSER redweir on >secret allchannels");
    for kind in [Server::Redis70, Server::Redis62] {
        let primary = Redis::start_as(kind, &[]);
        let replica = Redis::replica_as(kind, primary.port, &[]);
        eventually("the replica is in sync", secs(10), || replica.applied().is_some());
        let sentinel = Sentinel::start_as(kind, &format!("127.0.0.1 {} 1", primary.port), "");
        sentinel.await_known("num-slaves", 1);
        assert_eq!(Conn::open(sentinel.port).cmd(&rules), "OK");
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        std::fs::write(&file, "secret\n").unwrap();
        let login = format!("username = \"redweir\"\npassword-file = {:?}", file.display().to_string());
        let proxy = Setup::by_sentinels(&[sentinel.port]).toml(&login).start_with_any_replicas();
        proxy.await_replicas(1);
        assert_eq!(proxy.cmd(&["SET", "k", "v"]), "OK");
        assert_eq!(Conn::open(sentinel.port).cmd(&["SENTINEL", "FAILOVER", "main"]), "OK");
        let promoted = format!("127.0.0.1:{}", replica.port);
        eventually("the other one is the primary", secs(20), || proxy.view()["primary"] == promoted.as_str());
        let clients = Conn::open(sentinel.port).cmd(&["CLIENT", "LIST"]).text();
        assert!(clients.lines().any(|line| line.contains("user=redweir")), "{kind:?}: {clients}");
        let denied = Conn::open(sentinel.port).cmd(&["ACL", "LOG"]);
        assert_eq!(denied, Value::Array(Vec::new()), "{kind:?}: nothing was denied");
    }
}

#[test]
fn errors_are_redis_own() {
    let (topology, proxy) = with_users(1);
    let (mut here, mut there) = (proxy.connect(), Conn::open(topology.primary.port));
    let commands: &[&[&str]] = &[
        &["AUTH"],
        &["AUTH", "x"],
        &["AUTH", "a", "b", "c"],
        &["AUTH", "alice", "wrong"],
        &["AUTH", "nobody", "x"],
        &["AUTH", "default", "x"],
        &["HELLO", "x"],
        &["HELLO", "4"],
        &["HELLO", "3", "AUTH", "alice"],
        &["HELLO", "3", "AUTH", "alice", "wrong", "SETNAME", "a b"],
        &["HELLO", "3", "SETNAME", "a b"],
        &["HELLO", "3", "NOSUCH"],
        &["ACL", "WHOAMI"],
    ];
    for command in commands {
        assert_eq!(here.cmd(command), there.cmd(command), "{command:?}");
    }
    admin(topology.primary.port).cmd(&["CONFIG", "SET", "requirepass", "hunter2"]);
    let (mut here, mut there) = (proxy.connect(), Conn::open(topology.primary.port));
    for command in
        [&["PING"][..], &["HELLO", "3"], &["AUTH", "wrong"], &["AUTH", "hunter2"], &["ACL", "WHOAMI"]]
    {
        assert_eq!(here.cmd(command), there.cmd(command), "{command:?}");
    }
}

#[test]
fn strangers_are_kept_short() {
    let (topology, proxy) = with_users(1);
    admin(topology.primary.port).cmd(&["CONFIG", "SET", "requirepass", "hunter2"]);
    for (bytes, error) in [
        (&b"*11\r\n"[..], "-ERR Protocol error: unauthenticated multibulk length\r\n"),
        (b"*2\r\n$16385\r\n", "-ERR Protocol error: unauthenticated bulk length\r\n"),
    ] {
        let mut conn = proxy.connect();
        assert_eq!(conn.cmd(&["PING"]).error(), NOAUTH);
        assert_eq!(String::from_utf8(conn.send(bytes).read_to_close()).unwrap(), error);
        let mut conn = proxy.connect();
        assert_eq!(conn.cmd(&["AUTH", "hunter2"]), "OK");
        assert_eq!(conn.cmd(&["ECHO", &"x".repeat(20_000)]).text().len(), 20_000);
    }
}

#[test]
fn a_deleted_user_is_disconnected_idle_or_not_and_may_come_back() {
    let (topology, proxy) = with_users(1);
    let mut clients: Vec<Conn> = (0..6).map(|_| login(&proxy, "alice", "alice-pw")).collect();
    let mut blocked = login(&proxy, "alice", "alice-pw");
    blocked.ask(&["BLPOP", "none", "0"]);
    let mut subscribed = login(&proxy, "alice", "alice-pw");
    subscribed.cmd(&["SUBSCRIBE", "c"]);
    let mut other = proxy.connect();
    assert_eq!(other.cmd(&["PING"]), "PONG");
    assert_eq!(clients[0].cmd(&["SET", "k", "v"]), "OK");
    // The others have never sent a command; their identity is watched all the same.
    sleep_ms(1500);
    let mut root = admin(topology.primary.port);
    assert_eq!(root.cmd(&["ACL", "DELUSER", "alice"]), 1);
    let begun = Instant::now();
    for conn in clients.iter_mut().chain([&mut blocked, &mut subscribed]) {
        conn.patience(secs(3)).read_to_close();
    }
    assert!(begun.elapsed() < secs(2), "{:?}", begun.elapsed());
    assert_eq!(other.cmd(&["GET", "k"]), "v", "others go on");
    assert_eq!(proxy.cmd(&["AUTH", "alice", "alice-pw"]).error(), WRONGPASS);
    root.cmd(&["ACL", "SETUSER", "alice", "on", ">alice-pw", "~*", "+@all"]);
    let mut conn = login(&proxy, "alice", "alice-pw");
    assert_eq!(conn.cmd(&["ACL", "WHOAMI"]), "alice");
    assert_eq!(conn.cmd(&["GET", "k"]), "v");
}

#[test]
fn a_rotated_password_admits_the_new_and_sends_the_old_away_when_it_must_log_in_again() {
    let (topology, proxy) = with_users(1);
    let mut old = login(&proxy, "alice", "alice-pw");
    assert_eq!(old.cmd(&["SET", "k", "v"]), "OK");
    sleep_ms(1200);
    let mut root = admin(topology.primary.port);
    root.cmd(&["ACL", "SETUSER", "alice", "resetpass", ">new-pw"]);
    assert_eq!(old.cmd(&["SET", "k", "w"]), "OK", "connections that are open stay");
    let mut new = login(&proxy, "alice", "new-pw");
    assert_eq!(new.cmd(&["SET", "k", "x"]), "OK");
    assert_eq!(proxy.cmd(&["AUTH", "alice", "alice-pw"]).error(), WRONGPASS);
    // Their connections are lost: on Redis each would have to log in again.
    root.cmd(&["CLIENT", "KILL", "USER", "alice"]);
    old.patience(secs(3)).read_to_close();
    assert_eq!(new.cmd(&["GET", "k"]), "x", "the new password opens its lane again");
    assert_eq!(new.cmd(&["SET", "k", "y"]), "OK");
}

#[test]
fn identities_of_rotated_passwords_are_forgotten() {
    let (topology, proxy) = with_users(1);
    let mut root = admin(topology.primary.port);
    for n in 0..60 {
        let password = format!("pw-{n}");
        root.cmd(&["ACL", "SETUSER", "alice", "resetpass", &format!(">{password}")]);
        let mut conn = login(&proxy, "alice", &password);
        assert_eq!(conn.cmd(&["SET", "k", &password]), "OK");
    }
    let count = || {
        let info = proxy.cmd(&["INFO", "redweir"]).text();
        let line = info.lines().find_map(|line| line.strip_prefix("redweir_identities:").map(str::to_owned));
        line.unwrap().parse::<usize>().unwrap()
    };
    assert!(count() <= 60);
    drop(root);
    // What nobody uses is closed after a minute; losing the connections is quicker.
    admin(topology.primary.port).cmd(&["CLIENT", "KILL", "USER", "alice"]);
    eventually("they are forgotten", secs(5), || count() == 0);
}

#[test]
fn permissions_that_are_taken_away_are_gone_at_once() {
    let (topology, proxy) = with_users(0);
    let mut conn = login(&proxy, "alice", "alice-pw");
    assert_eq!(conn.cmd(&["SET", "k", "v"]), "OK");
    let mut root = admin(topology.primary.port);
    root.cmd(&["ACL", "SETUSER", "alice", "-set"]);
    let error = "NOPERM this user has no permissions to run the 'set' command";
    assert_eq!(conn.cmd(&["SET", "k", "w"]).error(), error);
    root.cmd(&["ACL", "SETUSER", "alice", "resetkeys", "~mine:*"]);
    assert!(conn.cmd(&["GET", "k"]).error().starts_with("NOPERM this user has no permissions to access"));
    root.cmd(&["ACL", "SETUSER", "alice", "off"]);
    assert_eq!(conn.cmd(&["GET", "mine:1"]), Value::Null, "as on Redis, connections that are open stay");
    assert_eq!(proxy.cmd(&["AUTH", "alice", "alice-pw"]).error(), WRONGPASS);
}

#[test]
fn whoami_on_every_kind_of_connection() {
    let (_topology, proxy) = with_users(1);
    let mut conn = login(&proxy, "alice", "alice-pw");
    assert_eq!(conn.cmd(&["ACL", "WHOAMI"]), "alice");
    conn.cmd(&["WATCH", "k"]);
    assert_eq!(conn.cmd(&["ACL", "WHOAMI"]), "alice", "on a connection of its own");
    conn.cmd(&["MULTI"]);
    conn.cmd(&["ACL", "WHOAMI"]);
    assert_eq!(conn.cmd(&["EXEC"]).items()[0], "alice");
    // The clean connection that alice gave back is not for anybody else.
    let mut other = proxy.connect();
    other.cmd(&["MULTI"]);
    other.cmd(&["ACL", "WHOAMI"]);
    assert_eq!(other.cmd(&["EXEC"]).items()[0], "default");
    assert_eq!(conn.cmd(&["AUTH", "admin", "admin-pw"]), "OK");
    assert_eq!(conn.cmd(&["ACL", "WHOAMI"]), "admin");
}

#[test]
fn a_replica_that_does_not_know_a_user_gets_none_of_its_reads() {
    let users = [ADMIN, ALICE].concat();
    let topology = Topology::with(&users, 2, ADMIN);
    let proxy = setup(&topology).start();
    let mut conn = login(&proxy, "alice", "alice-pw");
    assert_eq!(conn.cmd(&["SET", "k", "v"]), "OK");
    topology.await_sync();
    sleep_ms(300);
    eventually("reads have their reason", secs(5), || {
        assert_eq!(conn.cmd(&["GET", "k"]), "v");
        proxy.metric("redweir_commands_total", &[("reason", "user_unknown")]) > 3.0
    });
    assert_eq!(topology.replica_calls("get"), [0, 0]);
    // One of them learns of her; that one serves.
    let mut replica = admin(topology.replicas[1].port);
    replica.cmd(&["ACL", "SETUSER", "alice", "on", ">alice-pw", "~*", "+@all"]);
    let mut fresh: Vec<Conn> = (0..8).map(|_| login(&proxy, "alice", "alice-pw")).collect();
    eventually("the other replica serves her", secs(15), || {
        for conn in &mut fresh {
            assert_eq!(conn.cmd(&["GET", "k"]), "v");
        }
        topology.replicas[1].calls("get") > 20
    });
    assert_eq!(topology.replicas[0].calls("get"), 0);
    let told = proxy.log().lines().filter(|line| line.contains("does not accept a user")).count();
    assert!((1..=4).contains(&told), "told of {told} times");
}

/// From Redis 7.2 on the error of an `AUTH` is lost that is sent together with something else (redis issue 15640).
#[test]
fn a_replica_that_does_not_know_a_user_says_so_at_once_whatever_its_version() {
    for kind in [Server::Redis74, Server::Valkey91] {
        let topology = Topology::start_as(kind, 1);
        let proxy = Setup::of(&topology).start();
        let allowed = ["ACL", "SETUSER", "alice", "on", ">alice-pw", "~*", "+@all"];
        assert_eq!(topology.primary.cmd(&allowed), "OK");
        let mut conn = login(&proxy, "alice", "alice-pw");
        let mut slowest = ms(0);
        for _ in 0..10 {
            let begun = Instant::now();
            assert_eq!(conn.cmd(&["GET", "k"]), Value::Null);
            slowest = slowest.max(begun.elapsed());
            sleep_ms(100);
        }
        assert!(slowest < ms(700), "{kind:?}: a read took {slowest:?}");
        assert_eq!(topology.replica_calls("get"), [0], "{kind:?}");
        let told = proxy.log().lines().filter(|line| line.contains("does not accept a user")).count();
        assert!((1..=2).contains(&told), "{kind:?}: told of {told} times");
    }
}

#[test]
fn what_a_replica_denies_the_primary_decides() {
    let narrow = [ADMIN, &["--user", "alice", "on", ">alice-pw", "~b:*", "+@all"]].concat();
    let wide = [ADMIN, ALICE].concat();
    let topology = Topology::with(&wide, 1, &narrow);
    let proxy = setup(&topology).start();
    let mut conn = login(&proxy, "alice", "alice-pw");
    conn.cmd(&["MSET", "a:1", "one", "b:1", "two"]);
    topology.await_sync();
    sleep_ms(300);
    for _ in 0..20 {
        assert_eq!(conn.cmd(&["GET", "a:1"]), "one");
        assert_eq!(conn.cmd(&["GET", "b:1"]), "two");
    }
    assert!(topology.replicas[0].calls("get") >= 15, "what it allows it serves");
    admin(topology.primary.port).cmd(&["ACL", "SETUSER", "alice", "resetkeys", "~c:*"]);
    sleep_ms(50);
    assert!(conn.cmd(&["GET", "a:1"]).error().starts_with("NOPERM"), "the primary's word is the last");
    let told = proxy.log().lines().filter(|line| line.contains("denies what it is asked")).count();
    assert_eq!(told, 1);
}

#[test]
fn who_tries_passwords_opens_few_connections_and_holds_nobody_up() {
    let (topology, proxy) = with_users(1);
    proxy.cmd(&["SET", "k", "v"]);
    let attackers: Vec<_> = (0..40)
        .map(|_| {
            let mut conn = proxy.connect();
            thread::spawn(move || {
                for n in 0..8 {
                    assert_eq!(conn.cmd(&["AUTH", "alice", &format!("guess-{n}")]).error(), WRONGPASS);
                }
            })
        })
        .collect();
    let mut root = admin(topology.primary.port);
    let (mut most, mut slowest) = (0, ms(0));
    while attackers.iter().any(|attacker| !attacker.is_finished()) {
        let begun = Instant::now();
        let mut conn = login(&proxy, "alice", "alice-pw");
        assert_eq!(conn.cmd(&["GET", "k"]), "v");
        slowest = slowest.max(begun.elapsed());
        most = most.max(root.cmd(&["CLIENT", "LIST"]).text().lines().count());
    }
    for attacker in attackers {
        attacker.join().unwrap();
    }
    assert!(most <= 16 + 20, "{most} connections at a time");
    assert!(slowest < secs(2), "somebody else's login took {slowest:?}");
    assert!(connections(&mut root, "alice") <= 10);
}

#[test]
fn secrets_are_told_to_nobody() {
    let topology = Topology::with(&[ADMIN, ALICE].concat(), 1, &[ADMIN, ALICE].concat());
    let proxy = setup(&topology).toml("[log]\nlevel = \"trace\"").start();
    let mut conn = proxy.connect();
    let secrets =
        ["alice-pw", "wrong-secret", "inline-secret", "explained-secret", "hello-secret", "admin-pw"];
    let mut seen = vec![
        format!("{:?}", conn.cmd(&["AUTH", "alice", "wrong-secret"])),
        format!("{:?}", conn.cmd(&["HELLO", "3", "AUTH", "alice", "hello-secret"])),
        format!("{:?}", conn.send(b"AUTH alice inline-secret\r\n").read()),
        format!("{:?}", conn.cmd(&["REDWEIR", "EXPLAIN", "AUTH", "alice", "explained-secret"])),
        format!("{:?}", conn.cmd(&["AUTH", "alice", "alice-pw"])),
        format!("{:?}", conn.cmd(&["SET", "k", "v"])),
        format!("{:?}", conn.cmd(&["CLIENT", "LIST"])),
        format!("{:?}", conn.cmd(&["CLIENT", "INFO"])),
        format!("{:?}", conn.cmd(&["INFO", "redweir"])),
        format!("{:?}", conn.cmd(&["REDWEIR", "VIEW"])),
    ];
    conn.ask(&["MULTI"]).ask(&["AUTH", "alice", "alice-pw"]).ask(&["DISCARD"]);
    conn.read_many(3);
    for path in ["/metrics", "/view", "/readyz", "/", "/explain?cmd=AUTH+alice+explained-secret"] {
        seen.push(http_get(proxy.admin_port, path).unwrap().1);
    }
    admin(topology.primary.port).cmd(&["ACL", "DELUSER", "alice"]);
    sleep_ms(1500);
    let log = proxy.log();
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "the log says much:\n{log}");
    seen.push(log);
    for secret in secrets {
        let told = seen.iter().find(|text| text.contains(secret));
        assert!(told.is_none(), "{secret} in {}", told.unwrap());
    }
}

/// Two users with one password, pipelines on both workers, on lanes that come and go.
#[test]
fn a_reply_is_always_that_of_its_own_user() {
    let users = [
        ADMIN,
        &["--user", "ann", "on", ">same-pw", "~ann:*", "&*", "+@all"],
        &["--user", "ben", "on", ">same-pw", "~ben:*", "&*", "+@all"],
    ]
    .concat();
    let topology = Topology::with(&users, 1, &users);
    let proxy = setup(&topology).start();
    let mut root = admin(topology.primary.port);
    root.cmd(&["MSET", "ann:k", "ann's", "ben:k", "ben's"]);
    topology.await_sync();
    sleep_ms(200);
    let clients: Vec<_> = ["ann", "ben", "ann", "ben", "ann", "ben"]
        .map(|user| {
            let mut conn = login(&proxy, user, "same-pw");
            thread::spawn(move || {
                let other = if user == "ann" { "ben" } else { "ann" };
                let mut batch = encode(&["GET", &format!("{user}:k")]);
                batch.extend(encode(&["GET", &format!("{other}:k")]));
                batch.extend(encode(&["ACL", "WHOAMI"]));
                for _ in 0..300 {
                    conn.send(&batch);
                    let replies = conn.read_many(3);
                    assert_eq!(replies[0].text(), format!("{user}'s"));
                    assert!(replies[1].error().starts_with("NOPERM"), "{user}: {:?}", replies[1]);
                    assert_eq!(replies[2], user);
                }
            })
        })
        .into();
    for client in clients {
        client.join().unwrap();
    }
}

/// After a failover the new primary says who is who.
#[test]
fn a_new_primary_knows_its_own_users() {
    let users = [ADMIN, ALICE, &["--user", "bob", "on", ">bob-pw", "~*", "&*", "+@all"]].concat();
    let topology = Topology::with(&users, 1, &[ADMIN, ALICE].concat());
    let proxy = setup(&topology).start();
    let (mut alice, mut bob, mut nobody) =
        (login(&proxy, "alice", "alice-pw"), login(&proxy, "bob", "bob-pw"), proxy.connect());
    for conn in [&mut alice, &mut bob, &mut nobody] {
        assert_eq!(conn.cmd(&["SET", "k", "v"]), "OK");
    }
    topology.await_sync();
    let mut replica = admin(topology.replicas[0].port);
    replica.cmd(&["CONFIG", "SET", "requirepass", "hunter2"]);
    topology.primary.pause();
    replica.cmd(&["REPLICAOF", "NO", "ONE"]);
    eventually("alice writes to the new primary", secs(8), || alice.cmd(&["SET", "k", "w"]) == "OK");
    bob.patience(secs(3)).read_to_close();
    assert_eq!(proxy.cmd(&["AUTH", "bob", "bob-pw"]).error(), WRONGPASS);
    assert_eq!(nobody.cmd(&["GET", "k"]).error(), NOAUTH);
    assert_eq!(nobody.cmd(&["AUTH", "hunter2"]), "OK");
    assert_eq!(nobody.cmd(&["GET", "k"]), "w");
    topology.primary.resume();
}

#[test]
fn a_replica_that_lets_nobody_in_is_passed_by() {
    let topology = Topology::with(ADMIN, 1, &[ADMIN, &["--requirepass", "hunter2"]].concat());
    let proxy = setup(&topology).start();
    assert_eq!(proxy.cmd(&["SET", "k", "v"]), "OK");
    sleep_ms(300);
    for _ in 0..20 {
        assert_eq!(proxy.cmd(&["GET", "k"]), "v");
    }
    assert!(proxy.metric("redweir_commands_total", &[("reason", "user_unknown")]) > 5.0);
}

#[test]
fn a_user_who_may_not_select_stays_in_the_database_that_was_selected_before() {
    let bob = ["--user", "default", "on", "nopass", "~*", "&*", "+@all"];
    let users = [&bob[..], &["--user", "bob", "on", ">bob-pw", "~*", "&*", "+@all", "-select"]].concat();
    let topology = Topology::with(&users, 1, &users);
    let proxy = Setup::of(&topology).start();
    for mut conn in [topology.primary.connect(), proxy.connect()] {
        assert_eq!(conn.cmd(&["SELECT", "9"]), "OK");
        assert_eq!(conn.cmd(&["AUTH", "bob", "bob-pw"]), "OK");
        assert_eq!(conn.cmd(&["SET", "k", "nine"]), "OK");
        assert_eq!(conn.cmd(&["MULTI"]), "OK");
        assert_eq!(conn.cmd(&["GET", "k"]), "QUEUED");
        assert_eq!(conn.cmd(&["EXEC"]).items()[0], "nine");
        let said = conn.cmd(&["SELECT", "5"]);
        assert_eq!(said.error(), "NOPERM this user has no permissions to run the 'select' command");
        assert_eq!(conn.cmd(&["GET", "k"]), "nine");
        assert_eq!(conn.cmd(&["DEL", "k"]), 1);
    }
    let mut conn = proxy.connect();
    assert_eq!(conn.cmd(&["AUTH", "bob", "bob-pw"]), "OK");
    assert!(conn.cmd(&["SELECT", "9"]).error().starts_with("NOPERM "), "nobody selected it for this one");
    assert_eq!(conn.cmd(&["EXISTS", "k"]), 0);
    // What was found out when the lane to that database was opened is no longer so.
    let mut keeps = proxy.connect();
    assert_eq!(keeps.cmd(&["SELECT", "9"]), "OK");
    assert_eq!(keeps.cmd(&["AUTH", "bob", "bob-pw"]), "OK");
    assert_eq!(keeps.cmd(&["SET", "k", "nine"]), "OK");
    assert_eq!(topology.primary.cmd(&["ACL", "SETUSER", "bob", "+select"]), "OK");
    assert_eq!(conn.cmd(&["SELECT", "9"]), "OK");
    assert_eq!(conn.cmd(&["GET", "k"]), "nine");
    assert_eq!(topology.primary.cmd(&["ACL", "SETUSER", "bob", "-select"]), "OK");
    assert!(conn.cmd(&["SELECT", "8"]).error().starts_with("NOPERM "));
    assert_eq!(conn.cmd(&["GET", "k"]), "nine");
}
