//! What an operator sees: health, metrics, the view, and why a command goes where it goes.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]

use std::collections::{HashMap, HashSet};
use std::process::Command;

use crate::support::{Conn, Proxy, Redis, Setup, Topology, Value, eventually, http_get, ms, secs, sleep_ms};

fn started() -> (Topology, Proxy) {
    let topology = Topology::start(2);
    let proxy = Setup::of(&topology).start();
    proxy.cmd(&["SET", "foo", "bar"]);
    topology.await_sync();
    sleep_ms(300);
    (topology, proxy)
}

#[test]
fn health_is_told_apart_from_readiness() {
    let mut primary = Redis::start(&[]);
    primary.kill();
    let proxy = Setup::to(primary.port, &[]).upstream("probe-timeout = \"200ms\"").spawn();
    assert_eq!(proxy.get("/livez").0, 200, "it lives without Redis");
    assert_eq!(proxy.get("/readyz").0, 503);
    let mut conn = proxy.connect();
    assert!(conn.cmd(&["GET", "k"]).is_error(), "an error instead of hanging");
    primary.restart();
    eventually("it is ready", secs(5), || proxy.get("/readyz").0 == 200);
    assert_eq!(conn.cmd(&["SET", "k", "v"]), "OK");
    primary.pause();
    eventually("it isn't", secs(5), || proxy.get("/readyz").0 == 503);
    assert_eq!(proxy.get("/livez").0, 200);
    primary.resume();
    eventually("it is again", secs(5), || proxy.get("/readyz").0 == 200);
    assert_eq!(proxy.get("/nosuch").0, 404);
}

/// Splits a line of the text format into its name, labels and value; fails when it isn't one.
fn series(line: &str) -> (String, Vec<(String, String)>, f64) {
    let name_end = line.find(['{', ' ']).unwrap_or_else(|| panic!("no name: {line}"));
    let name = &line[..name_end];
    let mut chars = name.chars();
    let starts = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_' || c == ':');
    assert!(starts && chars.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':'), "bad name: {line}");
    let mut labels = Vec::new();
    let mut rest = &line[name_end..];
    if let Some(inside) = rest.strip_prefix('{') {
        let close = inside.find('}').unwrap_or_else(|| panic!("no end of labels: {line}"));
        for pair in inside[..close].split(',').filter(|pair| !pair.is_empty()) {
            let (label, value) = pair.split_once("=\"").unwrap_or_else(|| panic!("bad label: {line}"));
            let value = value.strip_suffix('"').unwrap_or_else(|| panic!("no closing quote: {line}"));
            labels.push((label.to_owned(), value.to_owned()));
        }
        rest = &inside[close + 1..];
    }
    let value = rest.trim_start();
    let number = match value {
        "+Inf" => f64::INFINITY,
        _ => value.parse().unwrap_or_else(|_| panic!("bad value: {line}")),
    };
    (name.to_owned(), labels, number)
}

#[test]
fn metrics_are_what_prometheus_reads() {
    let (topology, proxy) = started();
    for _ in 0..20 {
        proxy.cmd(&["GET", "foo"]);
    }
    let page = proxy.metrics();
    let mut kinds: HashMap<String, String> = HashMap::new();
    let mut seen = HashMap::new();
    for line in page.lines().filter(|line| !line.is_empty()) {
        if let Some(comment) = line.strip_prefix("# ") {
            let words: Vec<&str> = comment.splitn(3, ' ').collect();
            assert!(matches!(words[..], ["HELP" | "TYPE", _, _]), "{line}");
            if words[0] == "TYPE" {
                assert!(["counter", "gauge", "histogram"].contains(&words[2]), "{line}");
                assert!(kinds.insert(words[1].to_owned(), words[2].to_owned()).is_none(), "twice: {line}");
            }
            continue;
        }
        let (name, labels, value) = series(line);
        assert!(name.starts_with("redweir_") || name.starts_with("process_"), "{line}");
        assert!(!value.is_nan(), "what is unknown is absent: {line}");
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let kind = family.and_then(|family| kinds.get(family)).or_else(|| kinds.get(&name));
        let kind = kind.unwrap_or_else(|| panic!("no TYPE before {line}"));
        assert!(kind != "counter" || (value >= 0.0 && name.ends_with("_total")), "{line}");
        assert!(!line.contains("foo"), "keys are no labels: {line}");
        assert!(seen.insert((name, labels), value).is_none(), "twice: {line}");
    }
    let names: HashSet<&str> = seen.keys().map(|(name, _)| name.as_str()).collect();
    let promised = [
        "redweir_commands_total",
        "redweir_replica_lag_bytes",
        "redweir_replica_staleness_seconds",
        "redweir_replica_link_up",
        "redweir_replica_eligible",
        "redweir_stream_offset",
        "redweir_stream_attach_total",
        "redweir_optimistic_reads_total",
        "redweir_anchor_seconds_bucket",
        "redweir_lost_writes_total",
        "redweir_clients",
        "redweir_build_info",
        "redweir_node_up",
        "redweir_primary_changes_total",
        "redweir_masterdown_replies_total",
        "redweir_request_duration_seconds_bucket",
        "redweir_upstream_duration_seconds_bucket",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
        "process_open_fds",
    ];
    let missing: Vec<&str> = promised.into_iter().filter(|name| !names.contains(name)).collect();
    assert!(missing.is_empty(), "{missing:?} are missing among {names:?}");
    assert_eq!(proxy.metric("redweir_replica_link_up", &[]) as u64, 2);
    let reads = proxy.metric("redweir_commands_total", &[("access", "read")]);
    assert!((20.0..40.0).contains(&reads), "{reads}");
    // By what they do, and who has answered.
    let took = |labels: &[(&str, &str)]| proxy.metric("redweir_request_duration_seconds_count", labels);
    assert!(took(&[("access", "read"), ("target", "replica")]) >= 1.0);
    assert_eq!(took(&[("access", "read")]) as u64, reads as u64);
    assert_eq!(took(&[("access", "write"), ("target", "primary")]) as u64, 1);
    let up = |port: u16, role| {
        let node = format!("127.0.0.1:{port}");
        proxy.metric("redweir_node_up", &[("node", &node), ("role", role), ("problem", "none")]) as u64
    };
    assert_eq!(up(topology.primary.port, "primary"), 1);
    assert!(topology.replica_ports().into_iter().all(|port| up(port, "replica") == 1));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    let started = proxy.metric("process_start_time_seconds", &[]);
    assert!((now - 120.0..=now + 1.0).contains(&started), "{started} {now}");
    assert!(proxy.metric("process_resident_memory_bytes", &[]) > 1e6);
}

#[test]
fn a_replica_s_metrics_tell_its_lag() {
    let (topology, proxy) = started();
    topology.lag(0, secs(3));
    topology.primary.cmd(&["SET", "large", &"x".repeat(5000)]);
    let node = format!("127.0.0.1:{}", topology.replicas[0].port);
    let labels = [("node", node.as_str())];
    eventually("its bytes show", secs(2), || proxy.metric("redweir_replica_lag_bytes", &labels) >= 5000.0);
    eventually("and its age", secs(2), || proxy.metric("redweir_replica_staleness_seconds", &labels) >= 0.5);
    let link = &topology.replicas[0].link;
    link.cut();
    link.reset();
    eventually("its link is down", secs(3), || proxy.metric("redweir_replica_link_up", &labels) < 0.5);
    eventually("it is out", secs(3), || proxy.metric("redweir_replica_eligible", &labels) < 0.5);
}

#[test]
fn the_view_shows_every_node() {
    let (topology, proxy) = started();
    let view = proxy.view();
    let primary = format!("127.0.0.1:{}", topology.primary.port);
    assert_eq!(view["primary"], primary.as_str());
    assert_eq!(view["replication_id"], topology.primary.info("replication")["master_replid"].as_str());
    assert!(view["head_offset"].as_i64().unwrap() >= topology.primary.head() - 1000);
    let nodes = view["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), 3);
    let roles: Vec<&str> = nodes.iter().map(|node| node["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["primary", "replica", "replica"]);
    assert!(nodes[1]["staleness_ms"].as_f64().unwrap() < 2000.0, "{view}");
    assert_eq!(nodes[2]["lag_bytes"], 0, "{view}");
}

#[test]
fn explain_is_the_decision_that_traffic_gets() {
    let (topology, proxy) = started();
    let read = proxy.explain(&["GET", "foo"]);
    assert_eq!((&read["decision"], &read["reason"]), (&"send".into(), &"fresh".into()), "{read}");
    let target = read["target"].as_str().unwrap();
    assert!(topology.replica_ports().iter().any(|port| target.ends_with(&port.to_string())), "{read}");
    assert_eq!(read["candidates"].as_array().unwrap().len(), 3);
    for (words, reason) in [
        (&["SET", "foo", "x"][..], "write"),
        (&["NOSUCH", "foo"], "unknown_command"),
        (&["TOUCH", "foo"], "primary_only"),
        (&["BLPOP", "foo", "0"], "pinned"),
    ] {
        let explained = proxy.explain(words);
        assert_eq!(explained["reason"], reason, "{words:?}: {explained}");
        assert!(
            explained["target"].as_str().unwrap().ends_with(&topology.primary.port.to_string()),
            "{explained}"
        );
    }
    // An empty key is a key; without any, the primary says what is wrong.
    assert_eq!(proxy.explain(&["GET", ""])["reason"], "fresh");
    assert_eq!(proxy.explain(&["GET"])["reason"], "malformed");
    assert_eq!(proxy.get("/explain").0, 400);
    assert_eq!(proxy.get("/explain?cmd=").0, 400);
    assert_eq!(proxy.cmd(&["GET", "foo"]), "bar", "it explained and did nothing");
}

#[test]
fn redweir_answers_in_band() {
    let (topology, proxy) = started();
    let mut conn = proxy.connect();
    let help = conn.cmd(&["REDWEIR", "HELP"]);
    assert!(help.items().iter().any(|line| line.text().starts_with("EXPLAIN")), "{help:?}");
    let view = conn.cmd(&["REDWEIR", "VIEW"]);
    assert!(view.items().len() >= 5, "lines, as HELP answers: {view:?}");
    let view = view.page();
    assert!(view.contains(&topology.primary.port.to_string()), "{view}");
    assert!(topology.replica_ports().iter().all(|port| view.contains(&port.to_string())), "{view}");
    assert_eq!(conn.cmd(&["REDWEIR", "POLICY"]), "default");
    assert!(conn.cmd(&["REDWEIR", "POLICY", "nosuch"]).is_error());
    let explained = conn.cmd(&["redweir", "explain", "GET", "foo"]).page();
    assert!(explained.contains("fresh") && explained.contains("fenced"), "{explained}");
    assert!(conn.cmd(&["REDWEIR", "NOSUCH"]).error().starts_with("ERR unknown subcommand 'NOSUCH'"));
    assert!(conn.cmd(&["REDWEIR"]).error().starts_with("ERR wrong number of arguments"));
    conn.cmd(&["HELLO", "3"]);
    assert!(matches!(conn.cmd(&["REDWEIR", "VIEW"]), Value::Verbatim(_)));
}

/// Whoever reads it with a program finds the same fields, of the same types, whatever happens.
#[test]
fn json_has_the_same_fields_always_and_numbers_that_can_be_read() {
    let (mut topology, proxy) = started();
    let shapes = |proxy: &Proxy| {
        let view = proxy.view();
        let nodes: Vec<_> = view["nodes"].as_array().unwrap().iter().map(fields).collect();
        assert!(nodes.windows(2).all(|two| two[0] == two[1]), "{view}");
        let explained = proxy.explain(&["GET", "foo"]);
        (fields(&view), nodes[0].clone(), fields(&explained))
    };
    let staleness = proxy.view()["nodes"][1]["staleness_ms"].as_f64().unwrap() * 10.0;
    assert!((staleness - staleness.round()).abs() < 1e-6, "a tenth is enough: {staleness}");
    let explained = proxy.explain(&["GET", "foo"]);
    assert_eq!(explained["fence"], explained["fence_offset"].to_string(), "{explained}");
    let healthy = shapes(&proxy);
    topology.primary.kill();
    eventually("its problem is known", secs(5), || !proxy.view()["nodes"][0]["last_problem"].is_null());
    let (view, broken) = (proxy.view(), shapes(&proxy));
    assert_eq!(healthy, broken);
    assert_eq!(view["nodes"][0]["last_problem_over_s"], serde_json::Value::Null);
    assert!(view["nodes"][0]["last_problem_age_s"].is_number() && view["cause"].is_string(), "{view}");
}

fn fields(object: &serde_json::Value) -> Vec<String> {
    object.as_object().unwrap().keys().cloned().collect()
}

/// A token makes another service's reads see the first one's writes, whatever its level.
#[test]
fn a_token_carries_writes_from_one_service_to_another() {
    let topology = Topology::start(1);
    let setup = || Setup::of(&topology).policy("default", "consistency = \"session\"");
    let (one, two) = (setup().start(), setup().start());
    topology.lag(0, ms(600));
    let mut writer = one.connect();
    writer.cmd(&["SET", "k", "new"]);
    let token = writer.cmd(&["REDWEIR", "TOKEN"]).text();
    let (id, offset) = token.split_once(':').unwrap_or_else(|| panic!("no replid:offset: {token}"));
    assert_eq!(id, topology.primary.info("replication")["master_replid"]);
    assert!(offset.parse::<i64>().unwrap() > 0);
    let mut reader = two.connect();
    let reply = reader.cmd(&["REDWEIR", "AFTER", &token]);
    assert!(!reply.is_error(), "{reply:?}");
    assert_eq!(reader.cmd(&["GET", "k"]), "new");
}

/// Policies that tolerate old data do not look at fences, but a token holds for them as well.
#[test]
fn a_token_holds_however_old_data_the_policy_tolerates() {
    let topology = Topology::start(1);
    let bounded =
        Setup::of(&topology).policy("default", "consistency = \"bounded\"\nmax-lag = \"10s\"").start();
    let fenced = Setup::of(&topology)
        .policy("default", "consistency = \"eventual\"")
        .policy("strict", "consistency = \"fenced\"")
        .toml("[stream]\nsource = \"primary\"")
        .start();
    topology.primary.cmd(&["SET", "k", "old"]);
    topology.await_sync();
    sleep_ms(300);
    topology.lag(0, secs(2));
    topology.primary.cmd(&["SET", "k", "new"]);
    let token = bounded.cmd(&["REDWEIR", "TOKEN"]).text();
    for proxy in [&bounded, &fenced] {
        let (mut reader, mut fresh) = (proxy.connect(), proxy.connect());
        assert_eq!(reader.cmd(&["GET", "k"]), "old", "nobody told it");
        // The first that a connection says, or not.
        for conn in [&mut fresh, &mut reader] {
            assert_eq!(conn.cmd(&["REDWEIR", "AFTER", &token]), "OK");
            assert_eq!(conn.cmd(&["GET", "k"]), "new");
        }
        sleep_ms(200);
        assert_eq!(reader.cmd(&["GET", "k"]), "new");
    }
    let mut reader = bounded.connect();
    assert_eq!(reader.cmd(&["REDWEIR", "AFTER", &token, "100"]), 0);
    assert_eq!(reader.cmd(&["REDWEIR", "AFTER", &token, "5000"]), 1);
    let foreign = format!("{}:17", "f".repeat(40));
    let refused = reader.cmd(&["REDWEIR", "AFTER", &foreign]);
    assert!(refused.error().contains("another history"), "{refused:?}");
    assert!(reader.cmd(&["REDWEIR", "AFTER", "nonsense"]).error().contains("expected replid:offset"));
}

#[test]
fn sigterm_gives_clients_what_they_are_owed() {
    let topology = Topology::start(1);
    let mut proxy = Setup::of(&topology).toml("").start();
    let mut conn = proxy.connect();
    conn.cmd(&["SET", "k", "v"]);
    conn.ask(&["BLPOP", "queue", "1"]);
    let mut idle = proxy.connect();
    idle.cmd(&["PING"]);
    sleep_ms(200);
    let (admin_port, port) = (proxy.admin_port, proxy.port);
    assert_eq!(proxy.stop(), Some(0));
    assert_eq!(conn.read(), Value::Null, "the answer to BLPOP");
    assert_eq!(idle.read_to_close(), b"");
    assert!(Conn::try_open(port).is_err());
    assert!(http_get(admin_port, "/livez").is_err());
    assert!(!proxy.log().contains("panicked"), "{}", proxy.log());
}

#[test]
fn a_busy_port_or_a_wrong_file_ends_the_start() {
    let busy = Redis::start(&[]);
    let dir = tempfile::tempdir().unwrap();
    let run = |text: &str| {
        let file = dir.path().join("redweir.toml");
        std::fs::write(&file, text).unwrap();
        let output =
            Command::new(env!("CARGO_BIN_EXE_redweir")).args(["run", "-c"]).arg(&file).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let address = format!("127.0.0.1:{}", busy.port);
    let text = format!("[[listen]]\naddress = \"{address}\"\n[upstream]\nprimary = \"127.0.0.1:1\"\n");
    let (code, said) = run(&text);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&address), "{said}");
    let (code, said) = run(&format!("{text}replica = []\n"));
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains("redweir.toml:5") && said.contains("replicas"), "{said}");
}
