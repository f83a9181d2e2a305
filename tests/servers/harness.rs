//! The tests' own instruments, tested: a relay that doesn't delay, or a checker that never bites, would make every
//! other end-to-end test green for nothing.
#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]

use std::time::{Duration, Instant};

use crate::support::checker::Level;
use crate::support::load::Plan;
use crate::support::{Conn, Direction, Redis, Relay, Server, Topology, Value, encode, eventually, ms, secs};

#[test]
fn a_relay_delays_each_direction_by_what_it_is_told() {
    let server = Redis::start(&[]);
    let relay = Relay::to(server.port);
    let mut conn = Conn::open(relay.port);
    let mut round_trip = || {
        let sent = Instant::now();
        assert_eq!(conn.cmd(&["PING"]), "PONG");
        sent.elapsed()
    };
    assert!(round_trip() < ms(60));
    relay.delay(Direction::Up, ms(100));
    let up = round_trip();
    relay.delay(Direction::Down, ms(50));
    let both = round_trip();
    relay.heal();
    assert!((ms(100)..ms(160)).contains(&up), "{up:?}");
    assert!((ms(150)..ms(230)).contains(&both), "{both:?}");
    assert!(round_trip() < ms(60));
}

#[test]
fn a_cut_relay_is_a_black_hole_and_what_was_said_arrives_when_it_heals() {
    let server = Redis::start(&[]);
    let relay = Relay::to(server.port);
    let mut conn = Conn::open(relay.port);
    conn.cmd(&["PING"]);
    relay.cut();
    conn.ask(&["SET", "k", "v"]);
    assert!(conn.is_silent_for(ms(300)), "neither a reply nor an end");
    assert_eq!(server.cmd(&["GET", "k"]), Value::Null);
    let mut second = Conn::open(relay.port);
    second.ask(&["PING"]);
    assert!(second.is_silent_for(ms(100)), "a new connection fares no better");
    relay.heal();
    assert_eq!(conn.read(), "OK");
    assert_eq!(second.read(), "PONG");
}

#[test]
fn a_relay_stalls_one_direction_only() {
    let server = Redis::start(&[]);
    let relay = Relay::to(server.port);
    let mut conn = Conn::open(relay.port);
    conn.cmd(&["PING"]);
    relay.stall(Direction::Down);
    conn.ask(&["SET", "k", "v"]);
    eventually("the write arrives", secs(2), || server.cmd(&["GET", "k"]) == "v");
    assert!(conn.is_silent_for(ms(100)));
    relay.heal();
    assert_eq!(conn.read(), "OK");
}

#[test]
fn a_relay_resets_what_is_open_and_accepts_what_is_new() {
    let server = Redis::start(&[]);
    let relay = Relay::to(server.port);
    let mut conn = Conn::open(relay.port);
    conn.cmd(&["PING"]);
    relay.reset();
    let error = conn.try_read().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    assert_eq!(Conn::open(relay.port).cmd(&["PING"]), "PONG");
    assert_eq!(relay.accepted(), 2);
}

#[test]
fn a_relay_passes_large_values_and_ends() {
    let server = Redis::start(&[]);
    let relay = Relay::to(server.port);
    let mut conn = Conn::open(relay.port);
    let value = "x".repeat(5 << 20);
    assert_eq!(conn.cmd(&["SET", "big", &value]), "OK");
    assert_eq!(conn.cmd(&["GET", "big"]), value.as_str());
    conn.send(&encode(&["QUIT"]));
    assert_eq!(conn.read_to_close(), b"+OK\r\n");
}

#[test]
fn a_topology_is_in_sync_and_can_be_made_to_lag() {
    let topology = Topology::start(2);
    topology.primary.cmd(&["SET", "k", "1"]);
    topology.await_sync();
    for replica in &topology.replicas {
        assert_eq!(replica.cmd(&["GET", "k"]), "1");
        assert!(replica.cmd(&["SET", "k", "2"]).error().starts_with("READONLY"));
    }
    topology.lag(0, ms(300));
    let written = Instant::now();
    topology.primary.cmd(&["SET", "k", "2"]);
    eventually("the near replica has it", secs(1), || topology.replicas[1].cmd(&["GET", "k"]) == "2");
    assert_eq!(topology.replicas[0].cmd(&["GET", "k"]), "1");
    eventually("the far one has it", secs(2), || topology.replicas[0].cmd(&["GET", "k"]) == "2");
    let late = written.elapsed();
    assert!((ms(300)..ms(500)).contains(&late), "{late:?}");
}

#[test]
fn a_replica_whose_link_is_reset_comes_back_by_a_partial_resync() {
    let topology = Topology::start(1);
    let before = topology.primary.stat("sync_full");
    topology.replicas[0].link.reset();
    topology.primary.cmd(&["SET", "k", "v"]);
    eventually("it is back", secs(5), || topology.replicas[0].applied().is_some());
    topology.await_sync();
    assert_eq!(topology.primary.stat("sync_full"), before);
}

#[test]
fn a_server_can_be_stopped_killed_and_started_again() {
    let mut server = Redis::start(&["--appendonly", "yes"]);
    let mut conn = server.connect();
    conn.cmd(&["SET", "k", "v"]);
    server.pause();
    conn.ask(&["GET", "k"]);
    assert!(conn.is_silent_for(ms(200)));
    server.resume();
    assert_eq!(conn.read(), "v");
    assert_eq!((server.calls("get"), server.calls("set"), server.calls("del")), (1, 1, 0));
    let port = server.port;
    server.restart();
    assert_eq!(server.port, port);
    assert_eq!(server.cmd(&["GET", "k"]), "v");
    assert!(conn.try_cmd(&["PING"]).is_err());
}

#[test]
fn a_client_shows_every_shape_of_reply() {
    let server = Redis::start(&[]);
    let mut conn = server.connect();
    assert_eq!(conn.cmd(&["HELLO", "3"]).field("proto"), &3);
    for shape in ["string", "integer", "double", "null", "array", "set", "map", "verbatim", "true", "bignum"]
    {
        let reply = conn.cmd(&["DEBUG", "PROTOCOL", shape]);
        let fits = match shape {
            "string" => reply == "Hello World",
            "integer" => reply == 12345,
            "double" | "bignum" => matches!(reply, Value::Number(_)),
            "null" => reply == Value::Null,
            "array" => reply.items().len() == 3,
            "set" => matches!(&reply, Value::Set(items) if items.len() == 3),
            "map" => matches!(&reply, Value::Map(pairs) if pairs.len() == 3),
            "verbatim" => reply == "This is a verbatim\nstring",
            _ => reply == Value::Bool(true),
        };
        assert!(fits, "{shape}: {reply:?}");
    }
    let refused = conn.cmd(&["NOSUCH"]);
    assert!(
        refused.is_error() && refused != "ERR unknown command",
        "an error never equals a text: {refused:?}"
    );
}

/// The red twin of every green run: reads straight from a replica that lags by half a second break each promise.
#[test]
fn the_checker_bites_when_reads_come_from_a_lagging_replica() {
    let topology = Topology::start(1);
    topology.lag(0, ms(500));
    let mut plan = Plan::on(topology.replicas[0].port).writing_to(topology.primary.port);
    plan.write_every = ms(20);
    let outcome = plan.run(secs(2));
    outcome.assert_no_errors();
    let history = outcome.history;
    let violations = |level, bound| history.verify(level, bound).violations.len();
    let verdict = history.verify(Level::Bounded, ms(300));
    assert!(verdict.violations.len() > 100, "{:?}", verdict.staleness);
    assert!(verdict.staleness.max > ms(450) && verdict.staleness.max < secs(2), "{:?}", verdict.staleness);
    assert!(violations(Level::Fenced, Duration::MAX) > 100);
    assert_eq!(violations(Level::Eventual, Duration::ZERO), 0, "old values are not false values");
    assert_eq!(violations(Level::Bounded, secs(2)), 0, "nor older than they are");
}

/// And reads from the primary break none.
#[test]
fn the_checker_is_content_with_the_primary() {
    let primary = Redis::start(&[]);
    let mut plan = Plan::on(primary.port);
    plan.writers_read = true;
    let outcome = plan.run(secs(1));
    outcome.assert_no_errors();
    outcome.history.verify(Level::Fenced, Duration::ZERO).assert_holds();
}

#[test]
fn every_server_that_tests_know_is_the_one_it_is_called() {
    for (kind, field, version) in [
        (Server::Redis70, "redis_version", "7.0."),
        (Server::Redis62, "redis_version", "6.2."),
        (Server::Redis74, "redis_version", "7.4."),
        (Server::Valkey81, "valkey_version", "8.1."),
        (Server::Valkey91, "valkey_version", "9.1."),
    ] {
        let mut server = Redis::start_as(kind, &["--requirepass", "secret"]);
        server.restart();
        let told = &server.info("server")[field];
        assert!(told.starts_with(version), "{kind:?} is {told}");
        let has_modules = server.cmd(&["FT._LIST"]) == Value::Array(Vec::new());
        assert_eq!(has_modules, kind == Server::Redis74, "{kind:?}");
    }
}
