//! Who tells what is found: the command, the admin server, a client's connection, the metric and the log; and what is found where
//! nothing is wrong.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use super::{address, await_look, codes, doctor, doctor_json, eventually, findings, run, secs, sound};
use crate::support::{Conn, Redis, Server, Setup, Topology};

/// Every row of the table is about something that these have not.
#[test]
fn of_healthy_servers_nothing_is_found() {
    let topology = sound(2);
    let setup = Setup::of(&topology);
    let proxy = setup.clone().start();
    topology.primary.cmd(&["SET", "k", "v"]);
    await_look(&proxy);
    // Some more looks: what needs a trend has none.
    let looked = topology.primary.calls("ping");
    eventually("it looks again", secs(20), || topology.primary.calls("ping") >= looked + 2);
    assert_eq!(findings(&proxy), Vec::<serde_json::Value>::new());
    assert!(!proxy.metrics().contains("redweir_doctor_finding{"), "{}", proxy.metrics());
    assert!(
        !proxy.log().contains("WARN doctor: ") && !proxy.log().contains("ERROR doctor: "),
        "{}",
        proxy.log()
    );
    let (code, text) = doctor(&setup, &[]);
    assert_eq!(code, 0, "{text}");
    assert!(text.starts_with("nothing is found\n"), "{text}");
    assert!(text.contains(&format!("primary {}, answers in ", address(topology.primary.port))), "{text}");
    let (code, report) = doctor_json(&setup);
    assert_eq!((code, report["findings"].as_array().unwrap().len()), (0, 0), "{report}");
    let nodes = report["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), 3, "{report}");
    for (node, role) in nodes.iter().zip(["primary", "replica", "replica"]) {
        assert_eq!(node["role"], role);
        assert_eq!((&node["answers"], &node["problem"]), (&true.into(), &"".into()));
        assert!(node["ping_ms"].is_f64() && node["offset"].is_u64() && node["version"].is_string(), "{node}");
        assert_eq!(node["unchecked"].as_array().unwrap().len(), 0, "{node}");
    }
    let (code, text) = run(&["check", "-c", "--connect"], &setup);
    assert_eq!(code, 0, "{text}");
    let line = format!("  primary   {}: answers in ", address(topology.primary.port));
    assert!(
        text.contains(&line) && text.contains("no password is needed") && text.contains("link up"),
        "{text}"
    );
}

#[test]
fn other_servers_are_as_healthy() {
    for kind in [Server::Redis62, Server::Valkey81] {
        let topology = Topology::start_as(kind, 1);
        topology.primary.cmd(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
        topology.replicas[0].cmd(&["CONFIG", "SET", "replica-serve-stale-data", "no"]);
        let (code, report) = doctor_json(&Setup::of(&topology));
        assert_eq!((code, codes(&report)), (0, Vec::new()), "{kind:?}: {report}");
        assert!(
            report["nodes"].as_array().unwrap().iter().all(|node| node["unchecked"] == serde_json::json!([])),
            "{report}"
        );
    }
}

#[test]
fn everybody_tells_the_same() {
    let topology = sound(1);
    let setup = Setup::of(&topology);
    let proxy = setup.clone().start();
    topology.replicas[0].cmd(&["CONFIG", "SET", "replica-read-only", "no"]);
    let node = address(topology.replicas[0].port);
    eventually("it is found", secs(30), || super::found(&proxy, "writable-replica", &node).is_some());
    let labels = [("code", "writable-replica"), ("severity", "warning")];
    assert_eq!(proxy.metric("redweir_doctor_finding", &labels) as u64, 1);
    let told = proxy.cmd(&["REDWEIR", "DOCTOR"]).page();
    assert!(
        told.starts_with("1 warning") && told.contains("slave_read_only:0") && told.contains(&node),
        "{told}"
    );
    let log = proxy.log();
    let line = log.lines().find(|line| line.contains(" doctor: writable-replica at "));
    let line = line.unwrap_or_else(|| panic!("{log}"));
    assert!(
        line.contains("WARN") && line.contains(&node) && line.contains("replica-read-only yes"),
        "{line}"
    );
    let (code, report) = doctor_json(&setup);
    assert_eq!((code, codes(&report)), (1, vec!["writable-replica"]), "{report}");
    let (_, plain) = doctor(&setup, &[]);
    assert!(
        plain.contains("\nwarning writable-replica") && !plain.contains('\x1b'),
        "no colours in a pipe: {plain}"
    );
    let status = || {
        let admin = address(proxy.admin_port);
        let output =
            Command::new(env!("CARGO_BIN_EXE_redweir")).args(["status", "--admin", &admin]).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, page) = status();
    assert_eq!(code, Some(0), "{page}");
    for words in ["ready\n", "in service", "warning writable-replica", &node] {
        assert!(page.contains(words), "no {words}: {page}");
    }
    topology.replicas[0].cmd(&["CONFIG", "SET", "replica-read-only", "yes"]);
    super::await_cleared(&proxy, "writable-replica");
    assert!(!proxy.metrics().contains("redweir_doctor_finding{"), "{}", proxy.metrics());
    let gone = format!("INFO doctor: writable-replica at {node} is over after ");
    eventually("the log has it", secs(5), || proxy.log().contains(&gone));
    assert_eq!(proxy.log().matches("doctor: writable-replica").count(), 2, "two lines: {}", proxy.log());
    assert!(status().1.contains("nothing is found"));
    assert!(proxy.connect().cmd(&["REDWEIR", "HELP"]).items().iter().any(|line| line.text() == "DOCTOR"));
}

#[test]
fn status_goes_on_until_nobody_reads_it() {
    let topology = sound(1);
    let proxy = Setup::of(&topology).start();
    let mut child = Command::new(env!("CARGO_BIN_EXE_redweir"))
        .args(["status", "--watch", "--admin", &address(proxy.admin_port)])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut pages = 0;
    while pages < 2 {
        let line = lines.next().unwrap().unwrap();
        assert!(!line.contains('\x1b'), "not a terminal: {line:?}");
        pages += usize::from(line == "ready");
    }
    drop(lines);
    assert!(child.wait().unwrap().success(), "a reader that has seen enough is no error");
}

#[test]
fn what_may_not_be_asked_is_named_with_the_rule_that_allows_it() {
    const DOCUMENTED: &str = "+role +info +ping +reset +command +config|get +psync +replconf +hello +client|tracking +acl|list \
                              +xread ~redweir:nothing";
    const MORE: &str = "+client|list +slowlog|get +acl|log +latency|doctor";
    let topology = sound(1);
    let setup = Setup::of(&topology).upstream("username = \"redweir\"\npassword = \"secret\"");
    let allow = |rules: &str| {
        for server in [&topology.primary, &topology.replicas[0].server] {
            let words: Vec<&str> =
                ["ACL", "SETUSER", "redweir", "on", ">secret"].into_iter().chain(rules.split(' ')).collect();
            assert_eq!(server.cmd(&words), "OK");
        }
    };
    allow(DOCUMENTED);
    let (code, report) = doctor_json(&setup);
    assert_eq!((code, codes(&report)), (0, Vec::new()), "what is documented is enough: {report}");
    let unchecked = report["nodes"][0]["unchecked"].as_array().unwrap();
    let rules: Vec<&str> = unchecked.iter().map(|unchecked| unchecked["rule"].as_str().unwrap()).collect();
    assert_eq!(rules, ["+client|list", "+slowlog|get", "+acl|log", "+latency|doctor"], "{report}");
    let (_, text) = doctor(&setup, &[]);
    assert!(text.contains("ACL LOG (NOPERM") && text.contains("it needs +acl|log"), "{text}");
    // A proxy, which asks again and again, is not to fill that very log: it sees what it may.
    for server in [&topology.primary, &topology.replicas[0].server] {
        assert_eq!(server.cmd(&["ACL", "LOG", "RESET"]), "OK");
    }
    let proxy = setup.clone().start();
    await_look(&proxy);
    let looked = topology.primary.calls("ping");
    eventually("it looks again", secs(20), || topology.primary.calls("ping") >= looked + 2);
    assert_eq!(
        topology.primary.cmd(&["ACL", "LOG"]),
        crate::support::Value::Array(Vec::new()),
        "nothing was denied"
    );
    let (_, body) = proxy.get("/doctor");
    assert!(body.contains("+slowlog|get") && body.contains("is not seen to be allowed"), "{body}");
    allow(MORE);
    let (code, report) = doctor_json(&setup);
    assert_eq!((code, &report["nodes"][0]["unchecked"]), (0, &serde_json::json!([])), "{report}");
    // Without what it cannot do without.
    allow("-info");
    let (code, report) = doctor_json(&setup);
    assert_eq!((code, codes(&report)[0]), (2, "noauth"), "{report}");
    let remedy = report["findings"][0]["remedy"].as_str().unwrap();
    // For a shell.
    assert!(remedy.contains("'+config|get'"), "{remedy}");
    assert!(remedy.replace('\'', "").contains(&format!("ACL SETUSER redweir {DOCUMENTED}")), "{remedy}");
    let (code, text) = run(&["check", "-c", "--connect"], &setup);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("noauth"), "{text}");
}

/// A user who may see the nodes may not see what they remember of other users.
#[test]
fn in_band_it_is_told_to_those_who_may_see_the_servers() {
    let topology = sound(1);
    for server in [&topology.primary, &topology.replicas[0].server] {
        server.cmd(&["ACL", "SETUSER", "app", "on", ">a", "~*", "+get"]);
        server.cmd(&["ACL", "SETUSER", "watcher", "on", ">w", "+info", "+ping"]);
    }
    let proxy = Setup::of(&topology).start();
    let mut app = Conn::open(topology.primary.port);
    app.cmd(&["AUTH", "app", "a"]);
    for _ in 0..5 {
        assert!(app.cmd(&["KEYS", "*"]).is_error());
    }
    let node = address(topology.primary.port);
    eventually("it is found", secs(30), || super::found(&proxy, "denied-command", &node).is_some());
    let asks = |user: &str, password: &str| {
        let mut conn = proxy.connect();
        assert_eq!(conn.cmd(&["AUTH", user, password]), "OK");
        conn.cmd(&["REDWEIR", "DOCTOR"])
    };
    assert!(proxy.cmd(&["REDWEIR", "DOCTOR"]).page().contains("user app was denied the command keys"));
    assert!(asks("app", "a").is_error(), "it may not INFO");
    let told = asks("watcher", "w").page();
    assert!(!told.contains("app") && told.contains(&node), "{told}");
    assert!(proxy.connect().cmd(&["REDWEIR", "DOCTOR", "x"]).is_error());
}

#[test]
fn a_wrong_file_is_no_finding_and_a_dead_server_is_one() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_redweir")).args(["doctor", "-c", "/nosuch.toml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    let mut primary = Redis::start(&[]);
    primary.kill();
    let setup = Setup::to(primary.port, &[]);
    let (code, report) = doctor_json(&setup);
    assert_eq!((code, codes(&report)), (2, vec!["unreachable"]), "{report}");
    assert_eq!(report["nodes"][0]["answers"], false);
    let (code, text) = run(&["check", "-c", "--connect"], &setup);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("Connection refused"), "{text}");
}

/// Whoever a replica follows may be anybody: Redweir asks who that is, and does not log in.
/// A server that does not know the command repeats what it was told.
#[test]
fn no_password_is_told_where_auth_is_another_command() {
    let primary = Redis::start(&["--rename-command", "AUTH", "LOGIN"]);
    let setup = Setup::to(primary.port, &[]).upstream("password = \"s3cret\"");
    let (code, report) = doctor_json(&setup);
    assert_eq!((code, codes(&report)), (2, vec!["noauth"]), "{report}");
    assert!(
        report.to_string().contains("unknown command") && !report.to_string().contains("s3cret"),
        "{report}"
    );
    let proxy = setup.spawn();
    super::eventually("it is found", super::FOUND_WITHIN, || proxy.log().contains("doctor: noauth"));
    assert!(!proxy.log().contains("s3cret") && !proxy.get("/doctor").1.contains("s3cret"), "{}", proxy.log());
}

#[test]
fn no_password_is_shown_to_strangers() {
    let primary = Redis::start(&["--requirepass", "s3cret"]);
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = stranger.local_addr().unwrap().port();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hearing = Arc::clone(&heard);
    thread::spawn(move || {
        for connection in stranger.incoming().flatten() {
            let hearing = Arc::clone(&hearing);
            thread::spawn(move || {
                let (mut connection, mut buffer) = (connection, [0; 1024]);
                while let Ok(length @ 1..) = connection.read(&mut buffer) {
                    hearing.lock().unwrap().extend_from_slice(&buffer[..length]);
                    let _ = connection.write_all(b"+PONG\r\n");
                }
            });
        }
    });
    let replica = Redis::replica_of(port, &["--requirepass", "s3cret"]);
    let setup = Setup::to(primary.port, &[replica.port]).upstream("password = \"s3cret\"");
    let (_, report) = doctor_json(&setup);
    assert!(!report.to_string().contains("s3cret"), "{report}");
    let heard = String::from_utf8_lossy(&heard.lock().unwrap()).into_owned();
    assert!(heard.contains("INFO"), "it is asked who it is: {heard:?}");
    assert!(!heard.contains("s3cret"), "{heard:?}");
}
