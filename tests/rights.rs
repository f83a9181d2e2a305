//! Access rules are not replicated: a replica that allows more than the primary shows nobody anything that the primary
//! would have denied.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]

mod support;

use support::rng::Rng;
use support::{Conn, Proxy, Redis, Setup, Topology, Value, eventually, ms, secs, sleep_ms};

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
