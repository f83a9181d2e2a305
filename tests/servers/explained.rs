//! What EXPLAIN says of a command is what then happens to it: on a connection of its own, at the admin server, and by
//! `redweir explain`, whatever the command is.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]

use std::collections::BTreeMap;
use std::process::Command;

use crate::support::{Conn, Proxy, Setup, Topology, Value, eventually, secs, sleep_ms};

/// Until views, fences and rules are settled.
const SETTLED: u64 = 400;

/// What EXPLAIN says: decision, reason, and whether the target is the primary.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Said {
    decision: String,
    reason: String,
    at_primary: Option<bool>,
}

impl Said {
    fn new(decision: &str, target: Option<&str>, reason: &str, topology: &Topology) -> Self {
        let of_primary = format!(":{}", topology.primary.port);
        let at_primary = target.map(|target| target.ends_with(&of_primary));
        Self { decision: decision.to_owned(), reason: reason.to_owned(), at_primary }
    }

    fn of(json: &serde_json::Value, topology: &Topology) -> Self {
        let text = |name: &str| json[name].as_str();
        Self::new(text("decision").unwrap(), text("target"), text("reason").unwrap(), topology)
    }

    /// From the line `decision: send to 127.0.0.1:7001, it is proven fresh enough (fresh)`.
    fn of_text(text: &str, topology: &Topology) -> Self {
        let line = text.lines().find_map(|line| line.strip_prefix("decision: ")).expect(text);
        let (place, why) = line.split_once(", ").unwrap();
        let (decision, target) = place.split_once(" to ").map_or((place, None), |(d, t)| (d, Some(t)));
        let reason = why.rsplit_once('(').unwrap().1.trim_end_matches(')');
        Self::new(decision, target, reason, topology)
    }
}

/// How many commands went where and why.
fn counts(proxy: &Proxy) -> BTreeMap<(String, String), u64> {
    let mut counts = BTreeMap::new();
    for line in proxy.metrics().lines().filter(|line| line.starts_with("redweir_commands_total{")) {
        let label = |name: &str| {
            let (_, rest) = line.split_once(&format!("{name}=\"")).unwrap();
            rest.split('"').next().unwrap().to_owned()
        };
        let count: u64 = line.rsplit_once(' ').unwrap().1.parse().unwrap();
        *counts.entry((label("target"), label("reason"))).or_default() += count;
    }
    counts
}

/// Where one command went, and why; `None`: nowhere.
fn went(
    before: &BTreeMap<(String, String), u64>,
    after: &BTreeMap<(String, String), u64>,
) -> Option<(String, String)> {
    let risen = |key: &&(String, String)| after[*key] > before.get(*key).copied().unwrap_or(0);
    let mut changed = after.keys().filter(risen);
    let first = changed.next().cloned();
    assert_eq!(changed.next(), None, "one command is counted once");
    first
}

fn assert_as_said(said: &Said, went: Option<&(String, String)>, line: &str) {
    let went = went.map(|(target, reason)| (target.as_str(), reason.as_str()));
    let reason = said.reason.as_str();
    match (said.decision.as_str(), said.at_primary) {
        ("answer", None) => assert_eq!(went, None, "{line}: {said:?}"),
        ("refuse", None) => assert_eq!(went, Some(("refused", reason)), "{line}: {said:?}"),
        ("send", Some(true)) => assert_eq!(went, Some(("primary", reason)), "{line}: {said:?}"),
        ("send", Some(false)) => assert_eq!(went, Some(("replica", reason)), "{line}: {said:?}"),
        // It went somewhere in the end, as a read does.
        ("wait", None) => {
            let went = went.unwrap_or_else(|| panic!("{line}: {said:?}, but it went nowhere"));
            let read = [("replica", "fresh"), ("primary", "barrier_pending"), ("primary", "below_session")];
            assert!(read.contains(&went), "{line}: {said:?}, but it went {went:?}");
        }
        _ => panic!("{line}: {said:?} is no decision that was expected"),
    }
}

/// Explains a line on this connection, then says it.
fn compare(conn: &mut Conn, line: &str, topology: &Topology, proxy: &Proxy) -> (Said, Value) {
    let words: Vec<&str> = line.split(' ').collect();
    let explained = conn.cmd(&[&["REDWEIR", "EXPLAIN"], words.as_slice()].concat()).page();
    let said = Said::of_text(&explained, topology);
    assert_true_of_nodes(&explained, &said, line, topology);
    let before = counts(proxy);
    let reply = conn.cmd(&words);
    assert_as_said(&said, went(&before, &counts(proxy)).as_ref(), line);
    (said, reply)
}

/// What is said of the primary is true of the primary.
fn assert_true_of_nodes(explained: &str, said: &Said, line: &str, topology: &Topology) {
    let of_primary = format!("primary 127.0.0.1:{}", topology.primary.port);
    let asked = !matches!(said.decision.as_str(), "answer" | "refuse");
    let verdict = explained.lines().find(|line| line.starts_with(&of_primary));
    assert_eq!(verdict.is_some(), asked, "{line}:\n{explained}");
    if let Some(verdict) = verdict {
        assert!(verdict.ends_with(": may serve, it is the primary (primary)"), "{line}: {verdict}");
    }
    let decision = explained.lines().find(|line| line.starts_with("decision: ")).unwrap();
    assert!(!decision.contains(", it ") || said.at_primary == Some(false), "{line}: {decision}");
}

/// The same of a client that has just come, by the admin server and by the command line.
fn explained_from_outside(line: &str, topology: &Topology, proxy: &Proxy) -> [Said; 2] {
    let words: Vec<&str> = line.split(' ').collect();
    let admin = format!("127.0.0.1:{}", proxy.admin_port);
    let asked = ["explain", "--admin", &admin, "--format", "json", "--"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_redweir"));
    let output = command.args(asked).args(&words).output().unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
    let printed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    [&proxy.explain(&words), &printed].map(|json| Said::of(json, topology))
}

/// Reads first: after a write they may have to wait for it.
const LINES: &[(&str, &str)] = &[
    // Denied.
    ("SHUTDOWN", "denied_command"),
    ("SHUTDOWN NOSAVE and so on", "denied_command"),
    ("CONFIG SET maxmemory 0", "denied_command"),
    // Malformed.
    ("GET", "malformed"),
    ("GET k v", "malformed"),
    ("DBSIZE now", "malformed"),
    ("SCAN x", "malformed"),
    ("OBJECT", "malformed"),
    ("CLIENT PAUSE", "malformed"),
    // Redweir's own.
    ("CLIENT ID", "local"),
    ("CLIENT REPLY nonsense", "local"),
    ("SELECT 0", "local"),
    ("SELECT", "local"),
    ("WAIT 0 0", "local"),
    ("INFO redweir", "local"),
    ("REDWEIR POLICY", "local"),
    // Passed on after all.
    ("INFO server", "primary_only"),
    ("CLIENT GETREDIR", "primary_only"),
    ("PING", "primary_only"),
    ("DUMP k", "primary_only"),
    ("TOUCH k", "primary_only"),
    ("CONFIG GET maxmemory", "primary_only"),
    // Reads, with a key and without one, by scripts and of streams.
    ("GET k", ""),
    ("MGET k list", ""),
    ("DBSIZE", ""),
    ("RANDOMKEY", ""),
    ("EVAL_RO return(1) 0", ""),
    ("XREAD STREAMS s 0", ""),
    ("SCAN 0", ""),
    ("SCAN 7", "cursor"),
    // An exclusive connection.
    ("BLPOP list 1", "pinned"),
    ("BLPOP", "pinned"),
    ("SUBSCRIBE c", "pinned"),
    ("MULTI", "pinned"),
    ("CLIENT TRACKING ON", "pinned"),
    // Writes.
    ("SET k v", "write"),
    ("EVAL return(1) 0", "write"),
    ("NOSUCH k", "unknown_command"),
    ("SET k", "malformed"),
    ("EVAL return(1)", "malformed"),
];

fn started(level: &str) -> (Topology, Proxy) {
    let topology = Topology::start(2);
    topology.primary.cmd(&["SET", "k", "v"]);
    topology.primary.cmd(&["RPUSH", "list", "1", "2", "3"]);
    let deny = "[security]\ndeny-commands = [\"shutdown\", \"config|set\"]";
    // A replica is proven to be fresh enough, however busy the machine is.
    let lines = format!("consistency = \"{level}\"\nmax-lag = \"10s\"\nwait-timeout = \"2s\"");
    let proxy = Setup::of(&topology).policy("default", &lines).toml(deny).start();
    topology.await_sync();
    sleep_ms(SETTLED);
    (topology, proxy)
}

fn assert_explained_as_it_happens(level: &str) {
    let (topology, proxy) = started(level);
    for (line, reason) in LINES {
        let outside = explained_from_outside(line, &topology, &proxy);
        let (said, reply) = compare(&mut proxy.connect(), line, &topology, &proxy);
        let place = |said: &Said| (said.decision.clone(), said.reason.clone(), said.at_primary);
        for other in outside {
            assert_eq!(place(&other), place(&said), "{line}");
        }
        if !reason.is_empty() {
            assert_eq!(said.reason, *reason, "{line}");
        }
        let words: Vec<&str> = line.split(' ').collect();
        match said.reason.as_str() {
            "denied_command" => {
                assert!(reply.error().starts_with("NOPERM"), "{line}: {reply:?}");
            }
            // The primary's own words.
            "malformed" | "unknown_command" => assert_eq!(reply, topology.primary.cmd(&words), "{line}"),
            _ => {}
        }
        match (level, *line) {
            ("eventual", "GET k" | "DBSIZE" | "SCAN 0") | ("fenced", "GET k" | "DBSIZE") => {
                assert_eq!((said.reason.as_str(), said.at_primary), ("fresh", Some(false)), "{line}");
            }
            ("strong", "GET k" | "DBSIZE") => assert_eq!(said.decision, "wait", "{line}"),
            ("fenced" | "strong", "SCAN 0") => assert_eq!(said.reason, "cursor"),
            _ => {}
        }
    }
}

#[test]
fn what_is_explained_happens_at_eventual() {
    assert_explained_as_it_happens("eventual");
}

#[test]
fn what_is_explained_happens_at_fenced() {
    assert_explained_as_it_happens("fenced");
}

#[test]
fn what_is_explained_happens_at_strong() {
    assert_explained_as_it_happens("strong");
}

/// What a connection has said before makes a difference, and EXPLAIN knows it.
#[test]
fn a_connection_in_a_state_explains_what_happens_in_it() {
    let (topology, proxy) = started("fenced");
    for (first, line, decision, reason) in [
        (&["WATCH", "k"][..], "GET k", "send", "pinned"),
        (&["WATCH", "k"], "CLIENT ID", "answer", "local"),
        (&["WATCH", "k"], "CONFIG SET a b", "refuse", "denied_command"),
        (&["MULTI"], "GET", "send", "pinned"),
        (&["MULTI"], "CLIENT ID", "send", "pinned"),
        (&["MULTI"], "CLIENT REPLY OFF", "answer", "local"),
        (&["MULTI"], "SHUTDOWN", "refuse", "denied_command"),
        (&["BLPOP", "list", "1"], "GET k", "send", "fresh"),
        (&["GET", "k"], "GET k", "send", "fresh"),
        (&["GET", "k"], "GET k x", "send", "malformed"),
        (&["SET", "other", "v"], "SET other", "send", "malformed"),
    ] {
        sleep_ms(SETTLED);
        let mut conn = proxy.connect();
        assert!(!conn.cmd(first).is_error(), "{first:?}");
        if first[0] == "BLPOP" {
            // What it has shown becomes a demand with the first read after it.
            conn.cmd(&["GET", "k"]);
        }
        sleep_ms(SETTLED);
        let (said, _) = compare(&mut conn, line, &topology, &proxy);
        assert_eq!(
            (said.decision.as_str(), said.reason.as_str()),
            (decision, reason),
            "{first:?}, then {line}"
        );
    }
}

/// A command like the one before it takes a shorter way through the proxy, to the same place.
#[test]
fn what_is_wrong_with_a_command_is_seen_in_a_row_of_right_ones() {
    let (_topology, proxy) = started("eventual");
    let mut conn = proxy.connect();
    for _ in 0..10 {
        assert_eq!(conn.cmd(&["GET", "k"]), "v");
    }
    let malformed = || proxy.metric("redweir_commands_total", &[("reason", "malformed")]) as u64;
    let replies: Vec<Value> = {
        conn.send(b"GET k\r\nGET k x\r\nGET k\r\nGET\r\nGET k\r\n");
        conn.read_many(5)
    };
    assert!(replies[1].is_error() && replies[3].is_error(), "{replies:?}");
    assert!([0, 2, 4].iter().all(|&at| replies[at] == "v"), "{replies:?}");
    assert_eq!(malformed(), 2);
}

/// A scan goes on where it began, or nowhere.
#[test]
fn a_scan_is_explained_by_its_cursor() {
    let (topology, proxy) = started("eventual");
    for n in 0..200 {
        topology.primary.cmd(&["SET", &format!("key:{n}"), "v"]);
    }
    topology.await_sync();
    sleep_ms(SETTLED);
    let mut conn = proxy.connect();
    let cursor = conn.cmd(&["SCAN", "0", "COUNT", "10"]).items()[0].text();
    let line = format!("SCAN {cursor} COUNT 10");
    let (said, reply) = compare(&mut conn, &line, &topology, &proxy);
    assert_eq!((said.reason.as_str(), said.at_primary), ("cursor", Some(false)), "{line}");
    assert!(!reply.is_error(), "{reply:?}");
    let strict = Setup::of(&topology).start();
    let (said, reply) = compare(&mut strict.connect(), &line, &topology, &strict);
    assert_eq!((said.decision.as_str(), said.reason.as_str()), ("refuse", "cursor"), "{line}");
    assert!(reply.is_error(), "{reply:?}");
}

/// Access rules: who may do less at the primary than at a replica, and who is not let in.
#[test]
fn users_are_explained_as_they_are_served() {
    const ADMIN: &[&str] = &["--user", "admin", "on", ">admin-pw", "~*", "&*", "+@all"];
    let topology = Topology::with(ADMIN, 1, ADMIN);
    let narrow =
        ["ACL", "SETUSER", "narrow", "on", ">pw", "~pub:*", "-@all", "+get", "+set", "+@connection", "+info"];
    assert_eq!(topology.primary.cmd(&narrow), "OK");
    let wide = ["ACL", "SETUSER", "narrow", "on", ">pw", "~*", "+@all"];
    let mut replica = Conn::open(topology.replicas[0].port);
    assert_eq!(replica.cmd(&wide), "OK");
    let login = "username = \"admin\"\npassword = \"admin-pw\"";
    let proxy = Setup::of(&topology).upstream(login).start();
    topology.primary.cmd(&["MSET", "secret", "hidden", "pub:1", "open"]);
    sleep_ms(SETTLED);
    let mut conn = proxy.connect();
    assert_eq!(conn.cmd(&["AUTH", "narrow", "pw"]), "OK");
    for (line, reason, error) in [
        ("GET pub:1", "rights_differ", false),
        ("GET secret", "rights_differ", true),
        ("SET secret x", "write", true),
        ("DEL pub:1", "write", true),
        ("GET", "malformed", true),
        ("SHUTDOWN", "denied_command", true),
    ] {
        let (said, reply) = compare(&mut conn, line, &topology, &proxy);
        assert_eq!((said.reason.as_str(), reply.is_error()), (reason, error), "{line}: {reply:?}");
    }
    // Whoever gives no password is asked for one from now on.
    let mut admin = topology.primary.connect();
    assert_eq!(admin.cmd(&["ACL", "SETUSER", "default", "resetpass", ">secret"]), "OK");
    eventually("who has no password is shut out", secs(5), || proxy.cmd(&["GET", "k"]).is_error());
    let before = counts(&proxy);
    let reply = proxy.cmd(&["GET", "k"]);
    assert!(reply.error().starts_with("NOAUTH"), "{reply:?}");
    let expected = Some(("refused".to_owned(), "unauthenticated".to_owned()));
    assert_eq!(went(&before, &counts(&proxy)), expected);
}
