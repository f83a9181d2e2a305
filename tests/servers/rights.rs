//! Access rules are not replicated: a replica that allows more than the primary shows nobody anything that the primary
//! would have denied.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]

use std::time::Instant;

use crate::support::hostile::{Act, Role};
use crate::support::rng::Rng;
use crate::support::{Conn, Hostile, Proxy, Redis, Setup, Topology, Value, eventually, ms, secs, sleep_ms};

/// Who looks after the servers, whatever becomes of the others.
const ADMIN: &[&str] = &["--user", "admin", "on", ">admin-pw", "~*", "&*", "+@all"];

/// A change of rules is known by then: it is asked for with every poll.
const SETTLED: u64 = 300;

fn admin(port: u16) -> Conn {
    let mut conn = Conn::open(port);
    assert_eq!(conn.cmd(&["AUTH", "admin", "admin-pw"]), "OK");
    conn
}

fn allow(port: u16, user: &str, rules: &str) {
    let words: Vec<&str> = ["ACL", "SETUSER", user].into_iter().chain(rules.split(' ')).collect();
    assert_eq!(admin(port).cmd(&words), "OK", "{rules}");
}

fn servers(replicas: usize) -> Topology {
    let topology = Topology::with(ADMIN, replicas, ADMIN);
    let mut root = admin(topology.primary.port);
    assert_eq!(root.cmd(&["MSET", "secret", "hidden", "pub:1", "open"]), "OK");
    topology.await_sync();
    topology
}

fn as_user(port: u16, user: &str) -> Conn {
    let mut conn = Conn::open(port);
    assert_eq!(conn.cmd(&["AUTH", user, "pw"]), "OK");
    conn
}

fn denied(value: &Value) -> bool {
    value.is_error() && value.error().starts_with("NOPERM")
}

/// How many times a server has run `GET`.
fn gets(port: u16) -> u64 {
    let stats = admin(port).cmd(&["INFO", "commandstats"]).text();
    let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_get:calls="));
    line.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
}

fn at_replicas(proxy: &Proxy) -> f64 {
    proxy.metric("redweir_commands_total", &[("access", "read"), ("target", "replica")])
}

/// S2
#[test]
fn what_the_primary_denies_the_default_user_no_replica_shows() {
    let topology = servers(1);
    let proxy = Setup::of(&topology).start();
    let mut old = proxy.connect();
    eventually("the replica serves", secs(5), || {
        assert_eq!(old.cmd(&["GET", "secret"]), "hidden");
        at_replicas(&proxy) > 3.0
    });
    allow(topology.primary.port, "default", "resetkeys ~pub:*");
    sleep_ms(SETTLED);
    let mut new = proxy.connect();
    for conn in [&mut old, &mut new] {
        let words: [&[&str]; 4] =
            [&["GET", "secret"], &["STRLEN", "secret"], &["MGET", "pub:1", "secret"], &["DUMP", "secret"]];
        for command in words {
            assert!(denied(&conn.cmd(command)), "{command:?}");
        }
        assert_eq!(conn.cmd(&["GET", "pub:1"]), "open");
    }
    let why = proxy.explain(&["GET", "secret"]);
    assert_eq!(why["reason"], "rights_differ");
    assert!(proxy.get("/readyz").1.contains("other users or rules at 127.0.0.1:"));
    assert!(proxy.metric("redweir_replica_acl_verified", &[]) < 0.5);
    // Redweir asks as `default`, too: it is told nothing any longer.
    allow(topology.primary.port, "default", "-@all");
    sleep_ms(SETTLED);
    let mut new = proxy.connect();
    for _ in 0..20 {
        for conn in [&mut old, &mut new] {
            assert!(denied(&conn.cmd(&["GET", "pub:1"])));
            assert!(denied(&conn.cmd(&["SCAN", "0"])));
        }
        sleep_ms(20);
    }
    assert!(proxy.log().contains("does not have the access rules of the primary"));
}

#[test]
fn a_user_reads_at_a_replica_again_once_its_rules_are_those_of_the_primary() {
    let topology = servers(2);
    let narrow = "on >pw ~pub:* -@all +@read +@connection";
    allow(topology.primary.port, "app", narrow);
    allow(topology.replicas[0].port, "app", "on >pw ~* +@all");
    allow(topology.replicas[1].port, "app", narrow);
    let login = "username = \"admin\"\npassword = \"admin-pw\"";
    let proxy = Setup::of(&topology).upstream(login).start();
    let mut conns: Vec<Conn> = (0..8).map(|_| as_user(proxy.port, "app")).collect();
    sleep_ms(SETTLED);
    for n in 0..80 {
        let conn = &mut conns[n % 8];
        assert_eq!(conn.cmd(&["GET", "pub:1"]), "open");
        assert!(denied(&conn.cmd(&["GET", "secret"])));
    }
    assert_eq!(topology.replica_calls("get")[0], 0, "it would have shown the secret");
    assert!(topology.replica_calls("get")[1] > 70, "{:?}", topology.replica_calls("get"));
    allow(topology.replicas[0].port, "app", &format!("reset {narrow}"));
    let mut conns: Vec<Conn> = (0..8).map(|_| as_user(proxy.port, "app")).collect();
    eventually("the other serves, too", secs(5), || {
        for conn in &mut conns {
            assert_eq!(conn.cmd(&["GET", "pub:1"]), "open");
        }
        topology.replica_calls("get")[0] > 20
    });
    eventually("it is told", secs(2), || proxy.log().contains("may read at every replica"));
}

/// Whatever the rules are, here and there.
#[test]
fn no_rules_at_all_let_anybody_see_more() {
    let topology = servers(1);
    let login = "username = \"admin\"\npassword = \"admin-pw\"";
    let proxy = Setup::of(&topology).upstream(login).start();
    let words = [
        "~*",
        "~pub:*",
        "~sec*",
        "%R~secret",
        "%W~*",
        "resetkeys",
        "+@all",
        "-@all",
        "+@read",
        "-@read",
        "+get",
        "-get",
        "+strlen",
        "-@dangerous",
        "+@keyspace",
        "-mget",
        "(~secret +get)",
        "clearselectors",
    ];
    let commands: [&[&str]; 6] = [
        &["GET", "secret"],
        &["GET", "pub:1"],
        &["MGET", "pub:1", "secret"],
        &["STRLEN", "secret"],
        &["TTL", "secret"],
        &["DBSIZE"],
    ];
    let (mut rng, mut refused) = (Rng::new(12), 0);
    for user in ["default", "app"] {
        for port in [topology.primary.port, topology.replicas[0].port] {
            allow(port, user, "reset on >pw ~* &* +@all");
        }
        let (mut through, mut direct) = (as_user(proxy.port, user), as_user(topology.primary.port, user));
        for round in 0..6 {
            let pick = |rng: &mut Rng| {
                let words: Vec<&str> = (0..3).map(|_| words[rng.below(words.len())]).collect();
                words.join(" ")
            };
            let (here, there) = (pick(&mut rng), pick(&mut rng));
            for (port, rules) in [(topology.primary.port, &here), (topology.replicas[0].port, &there)] {
                // Some words do not go together.
                let words: Vec<&str> = ["ACL", "SETUSER", user].into_iter().chain(rules.split(' ')).collect();
                admin(port).cmd(&words);
            }
            sleep_ms(SETTLED);
            for command in commands.iter().cycle().take(18) {
                let (ours, theirs) = (through.cmd(command), direct.cmd(command));
                refused += usize::from(denied(&theirs));
                assert_eq!(
                    denied(&ours),
                    denied(&theirs),
                    "round {round}, {user}: {command:?}, {here}; {there}: {ours:?}, {theirs:?}"
                );
            }
        }
    }
    assert!(refused > 10, "{refused} were denied");
    assert!(at_replicas(&proxy) > 10.0, "replicas serve where rules are alike");
}

/// What our own user may do without seeing the rules.
const BLIND: &str =
    "on >pw -@all +info +role +command +config|get +ping +psync +replconf +hello +client|tracking";

fn blind(default: &str, more: &str) -> (Topology, Setup) {
    let topology = servers(1);
    for port in [topology.primary.port, topology.replicas[0].port] {
        allow(port, "blind", BLIND);
        allow(port, "app", "on >pw ~* +@all -debug");
        allow(port, "default", default);
    }
    let setup = Setup::of(&topology).upstream("username = \"blind\"\npassword = \"pw\"").toml(more);
    (topology, setup)
}

#[test]
fn where_the_rules_are_hidden_the_primary_answers_unless_replicas_are_trusted() {
    let (topology, setup) = blind("off", "");
    let proxy = setup.start();
    let mut conn = as_user(proxy.port, "app");
    for _ in 0..20 {
        assert_eq!(conn.cmd(&["GET", "secret"]), "hidden");
    }
    assert_eq!(gets(topology.replicas[0].port), 0);
    assert!(proxy.log().contains("the primary does not show its access rules"), "{}", proxy.log());
    assert!(proxy.get("/readyz").1.contains("access rules: not shown by the primary"));
    assert!(proxy.metric("redweir_replica_acl_verified", &[]) < 0.5);
    let entries = |port| admin(port).cmd(&["ACL", "LOG"]).items().len();
    assert!(entries(topology.primary.port) <= 4, "the primary's ACL LOG is not filled");

    let (topology, setup) = blind("off", "[security]\nreplica-acl = \"trust\"\n");
    let proxy = setup.start();
    let mut conn = as_user(proxy.port, "app");
    eventually("the replica is trusted", secs(5), || {
        assert_eq!(conn.cmd(&["GET", "secret"]), "hidden");
        gets(topology.replicas[0].port) > 10
    });
    assert!(!proxy.log().contains("access rules"));
}

/// So do some who want nobody to change rules: then nobody can see them, either.
#[test]
fn where_acl_is_renamed_the_rules_are_hidden() {
    let narrow = ["--user", "app", "on", ">pw", "~pub:*", "+@read", "+@connection"];
    let wide = ["--user", "app", "on", ">pw", "~*", "+@all"];
    let renamed = ["--rename-command", "ACL", ""];
    let keys = |topology: &Topology| {
        assert_eq!(topology.primary.cmd(&["MSET", "secret", "hidden", "pub:1", "open"]), "OK");
        topology.await_sync();
    };
    let topology = Topology::with(&[&narrow[..], &renamed].concat(), 1, &wide);
    keys(&topology);
    let proxy = Setup::of(&topology).start();
    let (mut app, mut free) = (as_user(proxy.port, "app"), proxy.connect());
    for _ in 0..20 {
        assert!(denied(&app.cmd(&["GET", "secret"])));
        assert_eq!(app.cmd(&["GET", "pub:1"]), "open");
        assert_eq!(free.cmd(&["GET", "secret"]), "hidden");
    }
    assert_eq!(topology.replica_calls("get"), [0]);
    assert_eq!(proxy.explain(&["GET", "secret"])["reason"], "rights_differ");
    assert!(proxy.log().contains("the primary does not show its access rules"), "{}", proxy.log());
    assert!(proxy.get("/readyz").1.contains("access rules: not shown by the primary"));
    drop(proxy);

    // Whoever runs the servers may say that the rules are alike: then they are not asked for.
    let proxy = Setup::of(&topology).toml("[security]\nreplica-acl = \"trust\"\n").start();
    let mut app = as_user(proxy.port, "app");
    eventually("the replica is trusted", secs(5), || {
        assert_eq!(app.cmd(&["GET", "pub:1"]), "open");
        topology.replica_calls("get")[0] > 10
    });
    assert!(!proxy.log().contains("access rules"));
    drop(proxy);

    // Where only a replica hides them, whom the primary allows everything reads there, and nobody else.
    let topology = Topology::with(&narrow, 1, &[&wide[..], &renamed].concat());
    keys(&topology);
    let proxy = Setup::of(&topology).start();
    let (mut app, mut free) = (as_user(proxy.port, "app"), proxy.connect());
    for _ in 0..20 {
        assert!(denied(&app.cmd(&["GET", "secret"])));
        assert_eq!(app.cmd(&["GET", "pub:1"]), "open");
    }
    assert_eq!(topology.replica_calls("get"), [0]);
    eventually("the replica serves who may do everything", secs(5), || {
        assert_eq!(free.cmd(&["GET", "secret"]), "hidden");
        topology.replica_calls("get")[0] > 10
    });
}

/// Who gives no password and may do everything needs no other proof: the `default` user itself shows the rules.
#[test]
fn an_unrestricted_default_user_shows_what_our_own_may_not_see() {
    let (topology, setup) = blind("on nopass ~* &* +@all", "");
    let proxy = setup.start();
    let mut conns = [proxy.connect(), as_user(proxy.port, "app")];
    eventually("the replica serves both", secs(5), || {
        for conn in &mut conns {
            assert_eq!(conn.cmd(&["GET", "secret"]), "hidden");
        }
        gets(topology.replicas[0].port) > 40
    });
    allow(topology.primary.port, "app", "-get");
    eventually("it is seen within an info-interval", secs(3), || denied(&conns[1].cmd(&["GET", "secret"])));
    assert_eq!(conns[0].cmd(&["GET", "secret"]), "hidden");
}

/// More users than are asked for with every poll.
#[test]
fn among_many_users_rules_count_as_well() {
    let topology = servers(1);
    let (primary, replica) = (topology.primary.port, topology.replicas[0].port);
    let narrow = "reset on >pw ~pub:* +@read +@connection";
    for port in [primary, replica] {
        let mut root = admin(port);
        for n in 0..300 {
            root.ask(&["ACL", "SETUSER", &format!("user-{n}"), "on", ">pw", "~*", "+@read"]);
        }
        (0..300).for_each(|_| assert_eq!(root.read(), "OK"));
        allow(port, "app", narrow);
    }
    let login = "username = \"admin\"\npassword = \"admin-pw\"";
    let proxy = Setup::of(&topology).upstream(login).start();
    let mut conn = as_user(proxy.port, "app");
    let mut is_served = || {
        let before = gets(replica);
        assert_eq!(conn.cmd(&["GET", "pub:1"]), "open");
        assert!(denied(&conn.cmd(&["GET", "secret"])));
        gets(replica) > before
    };
    eventually("the replica serves", secs(5), &mut is_served);
    allow(replica, "app", "~sub:*");
    // Redis 7.0 takes its time for the first list.
    eventually("the change is heard of", secs(20), || !is_served());
    assert!(!is_served() && !is_served());
    assert!(proxy.log().contains("does not have the access rules of the primary"));
    // The connection for the list is made anew, as all others are.
    admin(replica).cmd(&["CLIENT", "KILL", "TYPE", "normal"]);
    allow(replica, "app", narrow);
    eventually("the replica serves again", secs(10), &mut is_served);
}

/// A list of users that is longer than anything Redweir reads, in lines or in bytes.
fn endless_list(bytes: usize, line: &str) -> Vec<u8> {
    let line = format!("${}\r\n{line}\r\n", line.len());
    let lines = bytes / line.len();
    [format!("*{lines}\r\n").as_bytes(), line.repeat(lines).as_bytes()].concat()
}

/// Users without number hide each other's rules; the node is as well as before.
#[test]
fn a_list_of_users_that_cannot_be_read_hides_the_rules_and_not_the_node() {
    let words = "user somebody on ~pub:* resetchannels -@all +@read";
    let cases = [
        ("lines", Act::Say(endless_list(12 << 20, words)), "more than 131072 lines"),
        ("bytes", Act::Say(endless_list(20 << 20, &format!("{words} ~{}", "x".repeat(4000)))), "longer than"),
        ("time", Act::Silence, "no answer in time"),
    ];
    let topology = servers(1);
    for (name, act, problem) in cases {
        let role = Role { name, on: &["ACL"], act };
        for of_primary in [true, false] {
            let real = if of_primary { topology.primary.port } else { topology.replicas[0].port };
            let node = Hostile::playing(&role, real);
            let (primary, replica) = if of_primary {
                (node.port, topology.replicas[0].port)
            } else {
                (topology.primary.port, node.port)
            };
            let proxy = Setup::to(primary, &[replica])
                .upstream("probe-timeout = \"500ms\"")
                .start_with_any_replicas();
            eventually("the list was asked for", secs(5), || node.played() > 0);
            let before = gets(topology.replicas[0].port);
            let mut conn = proxy.connect();
            assert_eq!(conn.cmd(&["MULTI"]), "OK");
            // The list is asked for once more meanwhile.
            let begun = Instant::now();
            let mut free = proxy.connect();
            while begun.elapsed() < ms(2500) {
                assert_eq!(free.cmd(&["GET", "secret"]), "hidden");
                assert_eq!(proxy.get("/readyz").0, 200, "{name}");
                sleep_ms(20);
            }
            assert!(node.played() > 1, "{name}: it was asked for {} times", node.played());
            assert_eq!(conn.cmd(&["EXEC"]), Value::Array(Vec::new()));
            let log = proxy.log();
            assert!(!log.contains("does not answer") && !log.contains("is down"), "{name}: {log}");
            let told = log.lines().filter(|line| line.contains(" cannot be read ("));
            let told: Vec<&str> = told.collect();
            assert!(
                told.len() == 1 && told[0].contains("WARN") && told[0].contains(problem),
                "{name}: {told:?}"
            );
            let served = gets(topology.replicas[0].port) - before;
            if of_primary {
                assert!(log.contains("the primary does not show its access rules"), "{name}: {log}");
                assert_eq!(served, 0, "{name}");
                assert_eq!(proxy.explain(&["GET", "secret"])["reason"], "rights_differ", "{name}");
            } else {
                assert!(served > 5, "{name}: the replica serves whom the primary allows everything");
            }
        }
    }
}

/// S7: what the primary said last counts until it, or another one, says otherwise.
#[test]
fn a_dead_primary_s_word_counts() {
    let mut topology = servers(1);
    allow(topology.primary.port, "app", "on >pw ~pub:* +@all");
    allow(topology.replicas[0].port, "app", "on >pw ~* +@all");
    let lax = "[policy.default]\nconsistency = \"eventual\"\nreplica-serve-stale-data = \"yes\"";
    let login = "username = \"admin\"\npassword = \"admin-pw\"";
    let proxy = Setup::of(&topology).upstream(login).toml(lax).start();
    let mut conn = as_user(proxy.port, "app");
    assert!(denied(&conn.cmd(&["GET", "secret"])));
    let mut free = proxy.connect();
    topology.primary.kill();
    eventually("who may do everything reads on", secs(8), || free.cmd(&["GET", "secret"]) == "hidden");
    for _ in 0..20 {
        let seen = conn.try_cmd(&["GET", "secret"]);
        assert!(seen.as_ref().is_err() || seen.as_ref().is_ok_and(Value::is_error), "{seen:?}");
    }
    // The replica becomes the primary: its rules are the ones that count.
    let replica: &Redis = &topology.replicas[0].server;
    assert_eq!(admin(replica.port).cmd(&["REPLICAOF", "NO", "ONE"]), "OK");
    eventually("the new primary decides", secs(5), || {
        let mut conn = Conn::open(proxy.port);
        conn.patience(ms(2500));
        let login = conn.try_cmd(&["AUTH", "app", "pw"]);
        login.is_ok_and(|ok| ok == "OK") && conn.cmd(&["GET", "secret"]) == "hidden"
    });
}
