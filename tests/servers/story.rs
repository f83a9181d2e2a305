//! What somebody meets in trouble: the cause, and what helps, in the client's error, in the log, at `/readyz`, in `REDWEIR VIEW`,
//! in `EXPLAIN`. The log is a story that an operator can follow.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]

use crate::support::{Proxy, Redis, Setup, Topology, eventually, secs};

const MASTERDOWN: &str = "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.";

/// The lines of the log, without their times, with names in the place of addresses, and `T` in that of spans of time.
fn story(proxy: &Proxy, names: &[(u16, &str)]) -> Vec<String> {
    let own = [(proxy.port, "LISTEN"), (proxy.admin_port, "ADMIN")];
    let mut log = proxy.log();
    for (port, name) in names.iter().chain(&own) {
        log = log.replace(&format!("127.0.0.1:{port}"), name);
    }
    log.lines().filter_map(|line| line.split_once(' ')).map(|(_, line)| without_times(line.trim())).collect()
}

fn without_times(line: &str) -> String {
    let is_number = |word: &str| word.parse::<f64>().is_ok();
    let is_unit = |word: &str| ["ms", "s", "min", "h"].contains(&word.trim_end_matches([':', ';', ',', ')']));
    let words: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
    let mut told = Vec::new();
    for (n, word) in words.iter().enumerate() {
        let before = n.checked_sub(1).and_then(|n| words.get(n));
        if is_unit(word) && before.is_some_and(|before| is_number(before)) {
            let end = word.trim_start_matches(|c: char| c.is_ascii_lowercase());
            *told.last_mut().unwrap() = format!("T{end}");
        } else {
            told.push((*word).to_owned());
        }
    }
    told.join(" ")
}

/// Waits for this line.
fn await_line(proxy: &Proxy, names: &[(u16, &str)], expected: &str) {
    eventually(&format!("the log says: {expected}"), secs(10), || {
        story(proxy, names).iter().any(|line| line == expected)
    });
}

/// What no operator should have to read.
fn assert_plain(proxy: &Proxy) {
    let log = proxy.log();
    for word in ["Some(", "None", "redweir::", "task{", "primary=\"none\"", "lane"] {
        assert!(!log.contains(word), "{word} in:\n{log}");
    }
}

#[test]
fn the_log_tells_what_runs_when_it_is_ready_and_how_it_ends() {
    let topology = Topology::start(2);
    let mut proxy = Setup::of(&topology).start();
    let ports = topology.replica_ports();
    let names = [(topology.primary.port, "P"), (ports[0], "R"), (ports[1], "R")];
    let ready = "INFO ready after T: primary P, 2 of 2 replicas, stream from R";
    await_line(&proxy, &names, ready);
    assert_eq!(proxy.stop(), Some(0));
    let lines = story(&proxy, &names);
    let version = env!("CARGO_PKG_VERSION");
    let started = format!("INFO redweir {version} starts: pid {}, configuration from ", proxy.pid());
    assert!(lines[0].starts_with(&started) && lines[0].ends_with("redweir.toml"), "{lines:?}");
    assert_eq!(
        lines[1..4],
        [
            "INFO listening on LISTEN (policy default: fenced, max-lag 1s)",
            "INFO admin server on ADMIN, 2 workers",
            "INFO nodes: primary P, replicas R, R",
        ]
    );
    assert_eq!(lines.iter().filter(|line| line.contains("ready after")).count(), 1, "{lines:?}");
    let of_nodes = |line: &&String| line.contains("replica R") || line.contains("primary P ");
    assert_eq!(lines.iter().filter(of_nodes).count(), 0, "nothing happened: {lines:?}");
    assert_eq!(lines.last().unwrap(), "INFO drained, 0 cut off: 0 clients left within T");
    assert_plain(&proxy);
}

#[test]
fn an_outage_is_told_everywhere_with_its_cause_and_once_with_its_end() {
    let mut primary = Redis::start(&[]);
    let proxy = Setup::to(primary.port, &[]).upstream("write-hold = \"300ms\"").start();
    let (at, names) = (format!("127.0.0.1:{}", primary.port), [(primary.port, "P")]);
    await_line(&proxy, &names, "INFO ready after T: primary P, no replicas, stream from P");
    let mut conn = proxy.connect();
    assert_eq!(conn.cmd(&["SET", "k", "v"]), "OK");
    primary.kill();
    let down = "ERROR primary P is down (connection refused): writes wait T, then are refused";
    await_line(&proxy, &names, down);
    let cause = format!("{at} is down (connection refused)");
    for _ in 0..3 {
        // Redis' own text comes first: whoever compares that still finds it.
        let error = format!("{MASTERDOWN} redweir: no primary: {cause}");
        assert_eq!(conn.cmd(&["SET", "k", "w"]).error(), error);
    }
    let view = conn.cmd(&["REDWEIR", "VIEW"]).page();
    assert!(view.contains(&format!("primary: {at} ({cause})")), "{view}");
    assert!(view.contains("silent; not answering for ") && view.contains(": it is down (conn"), "{view}");
    let explained = conn.cmd(&["REDWEIR", "EXPLAIN", "SET", "k", "v"]).page();
    assert!(explained.contains(&format!(", no primary answers: {cause} (primary_down)")), "{explained}");
    assert!(explained.contains("not answering for "), "{explained}");
    let json = proxy.view();
    assert_eq!(
        (&json["cause"], &json["nodes"][0]["last_problem_code"]),
        (&cause.as_str().into(), &"connection_refused".into())
    );
    let (status, ready) = proxy.get("/readyz");
    assert_eq!(status, 503);
    for line in [
        format!("\nreads: no: {cause}\n"),
        format!("\nwrites: no: {cause}\n"),
        format!("\nnode {at}: not answering for "),
    ] {
        assert!(ready.contains(&line), "{line}? {ready}");
    }
    let of_primary = [("node", at.as_str()), ("role", "primary"), ("problem", "connection_refused")];
    let page = proxy.metrics();
    assert!(
        page.contains(&format!(
            "redweir_node_up{{node=\"{at}\",role=\"primary\",problem=\"connection_refused\"}} 0\n"
        )),
        "{page}"
    );
    assert!(!page.contains("NaN"), "{page}");
    assert_eq!(proxy.metric("redweir_masterdown_replies_total", &[]) as u64, 3);
    primary.restart();
    await_line(&proxy, &names, "INFO primary P answers again after T; 3 commands were refused meanwhile");
    eventually("it is up", secs(5), || proxy.metric("redweir_node_up", &of_primary[..2]) as u64 == 1);
    let view = conn.cmd(&["REDWEIR", "VIEW"]).page();
    assert!(view.contains("; did not answer for ") && view.contains(" ago (connection refused)"), "{view}");
    let (status, ready) = proxy.get("/readyz");
    assert!(status == 200 && ready.contains(&format!("\nnode {at}: did not answer for ")), "{ready}");
    assert_eq!(story(&proxy, &names).iter().filter(|line| **line == down).count(), 1);
    assert_plain(&proxy);
}

#[test]
fn a_wrong_password_is_told_with_what_to_set_and_nobody_learns_where_or_which() {
    let primary = Redis::start(&["--requirepass", "right"]);
    let cases = [
        ("", "refused its password (NOAUTH): set [upstream] password-file"),
        (
            "password = \"hunter2\"",
            "refused its password (WRONGPASS): correct [upstream] username and password-file",
        ),
    ];
    for (login, told) in cases {
        let setup = Setup::to(primary.port, &[]).upstream("write-hold = \"100ms\"").upstream(login);
        let proxy = setup.spawn();
        let names = [(primary.port, "P")];
        await_line(&proxy, &names, &format!("ERROR primary P {told}; writes wait T, then are refused"));
        let unauthenticated = proxy.cmd(&["SET", "k", "v"]);
        assert!(!unauthenticated.error().contains(&primary.port.to_string()), "{unauthenticated:?}");
        let error = proxy.cmd(&["AUTH", "right"]);
        // It has given no password: it may not know where the primary is.
        assert_eq!(error.error(), format!("{MASTERDOWN} redweir: no primary: the primary {told}"));
        assert!(proxy.cmd(&["REDWEIR", "VIEW"]).is_error());
        let (status, ready) = proxy.get("/readyz");
        assert_eq!(status, 503);
        assert!(ready.contains(&format!("\nwrites: no: 127.0.0.1:{} {told}\n", primary.port)), "{ready}");
        let seen = [proxy.log(), ready, proxy.view().to_string(), proxy.metrics(), error.text()];
        assert!(seen.iter().all(|text| !text.contains("hunter2")), "{seen:?}");
        assert_plain(&proxy);
    }
    // A password where none is wanted.
    let open = Redis::start(&[]);
    let proxy = Setup::to(open.port, &[]).upstream("password = \"hunter2\"").spawn();
    let told = "ERROR primary P has no password and was told one (ERR): remove [upstream] password-file; writes wait T, then are refused";
    await_line(&proxy, &[(open.port, "P")], told);
}

#[test]
fn where_nodes_are_is_told_to_those_only_who_may_ask() {
    let mut primary = Redis::start(&[]);
    let root = ["ACL", "SETUSER", "root", "on", ">pw", "~*", "&*", "+@all"];
    let reader = ["ACL", "SETUSER", "reader", "on", ">pw", "~*", "+get", "+set"];
    assert_eq!(primary.cmd(&root), "OK");
    assert_eq!(primary.cmd(&reader), "OK");
    let proxy = Setup::to(primary.port, &[]).upstream("write-hold = \"100ms\"").start();
    let (mut root, mut reader, mut anybody) = (proxy.connect(), proxy.connect(), proxy.connect());
    eventually("the users are known", secs(5), || root.cmd(&["AUTH", "root", "pw"]) == "OK");
    assert_eq!(reader.cmd(&["AUTH", "reader", "pw"]), "OK");
    for conn in [&mut root, &mut reader, &mut anybody] {
        assert_eq!(conn.cmd(&["SET", "k", "v"]), "OK");
    }
    // The rules are asked for with each poll.
    eventually("the rules are known", secs(5), || !root.cmd(&["REDWEIR", "VIEW"]).is_error());
    crate::support::sleep_ms(500);
    primary.kill();
    await_line(
        &proxy,
        &[(primary.port, "P")],
        "ERROR primary P is down (connection refused): writes wait T, then are refused",
    );
    let at = format!("127.0.0.1:{}", primary.port);
    let told = |who: &str| format!("{MASTERDOWN} redweir: no primary: {who} is down (connection refused)");
    assert_eq!(root.cmd(&["SET", "k", "w"]).error(), told(&at));
    assert_eq!(anybody.cmd(&["SET", "k", "w"]).error(), told(&at), "the default user may do everything");
    assert_eq!(reader.cmd(&["SET", "k", "w"]).error(), told("the primary"));
    assert_eq!(reader.cmd(&["GET", "k"]).error(), told("the primary"));
    assert!(reader.cmd(&["REDWEIR", "VIEW"]).is_error());
}

#[test]
fn a_replica_that_follows_somebody_else_is_told_with_whom() {
    let options = ["--repl-diskless-sync-delay", "0"];
    let (primary, other) = (Redis::start(&options), Redis::start(&options));
    let replica = Redis::replica_of(primary.port, &[]);
    let proxy = Setup::to(primary.port, &[replica.port]).start();
    let names = [(primary.port, "P"), (replica.port, "R"), (other.port, "O")];
    await_line(&proxy, &names, "INFO ready after T: primary P, 1 of 1 replicas, stream from R");
    assert_eq!(other.cmd(&["SET", "k", "of another"]), "OK");
    assert_eq!(replica.cmd(&["REPLICAOF", "127.0.0.1", &other.port.to_string()]), "OK");
    let foreign = "and holds another history than the primary P: it gets no reads";
    eventually("it is told whom it follows", secs(15), || {
        let lines = story(&proxy, &names);
        let follows =
            lines.iter().any(|line| line.starts_with("WARN replica R follows O now and no longer P, and "));
        follows && lines.iter().any(|line| line.contains("replica R follows O") && line.ends_with(foreign))
    });
    assert_eq!(replica.cmd(&["REPLICAOF", "127.0.0.1", &primary.port.to_string()]), "OK");
    // In one line, or in two if it takes long to be synchronised.
    eventually("it is told that it is back", secs(15), || {
        let lines = story(&proxy, &names);
        let is_back = |line: &&String| line.starts_with("INFO replica R is in service again after T");
        lines.iter().any(|line| line.contains("follows P now and no longer O"))
            && lines.iter().rfind(is_back).is_some()
    });
    assert_plain(&proxy);
}

#[test]
fn another_primary_is_told_and_counted() {
    let options = ["--repl-diskless-sync-delay", "0"];
    let mut primary = Redis::start(&options);
    let replica = Redis::replica_of(primary.port, &[]);
    let proxy = Setup::to(primary.port, &[replica.port]).start();
    let names = [(primary.port, "P"), (replica.port, "R")];
    await_line(&proxy, &names, "INFO ready after T: primary P, 1 of 1 replicas, stream from R");
    assert_eq!(proxy.metric("redweir_primary_changes_total", &[]) as u64, 0);
    primary.kill();
    assert_eq!(replica.cmd(&["REPLICAOF", "NO", "ONE"]), "OK");
    let mut conn = proxy.connect();
    eventually("it is followed", secs(15), || conn.cmd(&["SET", "k", "v"]) == "OK");
    eventually("it is told", secs(5), || {
        story(&proxy, &names).iter().any(|line| line.starts_with("WARN the primary changed from P to R"))
    });
    assert_eq!(proxy.metric("redweir_primary_changes_total", &[]) as u64, 1);
    assert_plain(&proxy);
}

#[test]
fn what_works_without_a_primary_keeps_who_reads_old_data_ready() {
    let mut topology = Topology::start(1);
    let proxy = Setup::of(&topology)
        .upstream("write-hold = \"100ms\"")
        .policy("relaxed", "consistency = \"bounded\"\nreplica-serve-stale-data = \"yes\"")
        .listener("relaxed")
        .start();
    let (status, body) = proxy.get("/readyz?reads");
    assert!(status == 200 && body.starts_with("ready\nreads: yes\nwrites: yes\n"), "{body}");
    topology.await_sync();
    topology.primary.kill();
    eventually("writes are down", secs(5), || proxy.get("/readyz").0 == 503);
    eventually("reads of old data go on", secs(5), || proxy.get("/readyz?reads").0 == 200);
    eventually("it is told of whom", secs(5), || {
        let (_, body) = proxy.get("/readyz?reads");
        let down = format!("127.0.0.1:{} is down (connection refused)", topology.primary.port);
        body.starts_with(&format!(
            "ready\nreads: by policy: default no ({down}), relaxed yes\nwrites: no: {down}\n"
        ))
    });
    assert!(proxy.get("/readyz").1.starts_with("not ready\n"));
    topology.replicas[0].server.kill();
    eventually("nothing can be read", secs(5), || proxy.get("/readyz?reads").0 == 503);
    assert_eq!(proxy.get("/livez").0, 200);
}
