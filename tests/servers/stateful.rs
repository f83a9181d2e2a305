//! Commands that leave a state on their connection: it stays with its client, and goes when the client goes.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]

use std::time::Instant;

use crate::support::{
    Conn, Direction, Proxy, Redis, Relay, Setup, Topology, Value, encode, eventually, ms, secs, sleep_ms,
};

fn one_worker() -> (Topology, Proxy) {
    let topology = Topology::start(1);
    let proxy = Setup::of(&topology).proxy("[proxy]\nworkers = 1").start();
    (topology, proxy)
}

/// Connections of the server that are in a state that only one client may see.
fn in_a_state(server: &Redis) -> usize {
    let list = server.cmd(&["CLIENT", "LIST"]).text();
    let field = |line: &str, name: &str| {
        line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('=')).unwrap_or("").to_owned()
    };
    let odd = list.lines().filter(|line| {
        let flags = field(line, "flags");
        flags.contains(['b', 'x', 'd', 'P', 'O', 't'])
            || field(line, "multi") != "-1"
            || field(line, "sub") != "0"
            || field(line, "psub") != "0"
    });
    odd.count()
}

#[test]
fn a_client_that_leaves_takes_its_state_along() {
    let (topology, proxy) = one_worker();
    let states: [&[&[&str]]; 8] = [
        &[&["MULTI"], &["SET", "left", "behind"]],
        &[&["WATCH", "k"]],
        &[&["SUBSCRIBE", "c"]],
        &[&["PSUBSCRIBE", "c*"]],
        &[&["MULTI"], &["SUBSCRIBE", "c"], &["EXEC"]],
        &[&["HELLO", "3"], &["CLIENT", "TRACKING", "ON"], &["GET", "k"]],
        &[&["MONITOR"]],
        &[&["BLPOP", "list", "0"]],
    ];
    for commands in states {
        let mut conn = proxy.connect();
        for command in commands {
            conn.ask(command);
        }
        if commands[0][0] == "WATCH" {
            // A watched key does not show.
            assert_eq!(conn.read(), "OK");
        } else {
            eventually("the state shows", secs(5), || in_a_state(&topology.primary) > 0);
        }
        drop(conn);
        eventually("the state is gone", secs(2), || in_a_state(&topology.primary) == 0);
        let mut next = proxy.connect();
        assert_eq!(next.cmd(&["SET", "k", "theirs"]), "OK");
        assert_eq!(next.cmd(&["MULTI"]), "OK");
        assert_eq!(next.cmd(&["SET", "k", "v"]), "QUEUED");
        assert_eq!(next.cmd(&["EXEC"]).items().len(), 1, "{commands:?}");
        assert_eq!(next.cmd(&["EXISTS", "left"]), 0);
        assert!(next.is_silent_for(ms(20)));
    }
}

#[test]
fn a_blocking_command_whose_client_left_takes_nothing() {
    let (topology, proxy) = one_worker();
    for half_closed in [false, true] {
        let mut conn = proxy.connect();
        conn.ask(&["BLPOP", "list", "0"]);
        eventually("it is blocked", secs(2), || topology.primary.info("clients")["blocked_clients"] == "1");
        if half_closed {
            conn.finish();
        } else {
            drop(conn);
        }
        eventually("it is not", secs(2), || topology.primary.info("clients")["blocked_clients"] == "0");
        assert_eq!(proxy.cmd(&["RPUSH", "list", "element"]), 1);
        assert_eq!(proxy.cmd(&["LPOP", "list"]), "element");
    }
}

/// What it has blocked for is not taken for it any longer: its departure reaches the server before what others say later.
#[test]
fn a_client_that_leaves_while_it_blocks_takes_nothing_of_what_comes_later() {
    let topology = Topology::start(0);
    let proxy = Setup::of(&topology).proxy("[proxy]\nworkers = 1").start();
    let (mut other, mut taken) = (proxy.connect(), 0);
    for round in 0..100 {
        let mut blocked = proxy.connect();
        blocked.ask(&["BLPOP", "queue", "0"]);
        eventually("it blocks", secs(5), || topology.primary.info("clients")["blocked_clients"] == "1");
        drop(blocked);
        assert_eq!(other.cmd(&["RPUSH", "queue", "v"]), 1, "round {round}");
        taken += usize::from(other.cmd(&["LPOP", "queue"]) != "v");
    }
    // Between two connections the kernel itself may confuse the order, on a machine that is busy.
    assert!(taken <= 2, "{taken} of 100 were taken");
}

#[test]
fn a_watch_sees_what_others_write_and_nothing_else() {
    let (_topology, proxy) = one_worker();
    let (mut conn, mut other) = (proxy.connect(), proxy.connect());
    for (meddler, expected) in
        [(Some("theirs"), Value::Null), (None, Value::Array(vec![Value::Status("OK".into())]))]
    {
        assert_eq!(conn.cmd(&["WATCH", "k"]), "OK");
        conn.cmd(&["GET", "k"]);
        if let Some(value) = meddler {
            assert_eq!(other.cmd(&["SET", "k", value]), "OK");
        }
        assert_eq!(conn.cmd(&["MULTI"]), "OK");
        assert_eq!(conn.cmd(&["SET", "k", "mine"]), "QUEUED");
        assert_eq!(conn.cmd(&["EXEC"]), expected);
    }
    assert_eq!(other.cmd(&["GET", "k"]), "mine");
}

#[test]
fn a_transaction_in_one_write_is_answered_as_one() {
    let (_topology, proxy) = one_worker();
    let mut conn = proxy.connect();
    let commands: [&[&str]; 8] = [
        &["SET", "a", "0"],
        &["MULTI"],
        &["INCR", "a"],
        &["LPUSH", "a", "x"],
        &["INCR", "a"],
        &["EXEC"],
        &["GET", "a"],
        &["PING"],
    ];
    conn.send(&commands.map(encode).concat());
    let replies = conn.read_many(8);
    let results = replies[5].items();
    assert_eq!((results[0].int(), results[2].int()), (1, 2));
    assert!(results[1].error().starts_with("WRONGTYPE"), "an error inside is one result");
    assert_eq!(replies[6], "2");
    for bad in [&["NOSUCH"][..], &["SET", "a"], &["SHUTDOWN"]] {
        assert_eq!(conn.cmd(&["MULTI"]), "OK");
        assert_eq!(conn.cmd(&["SET", "a", "never"]), "QUEUED");
        assert!(conn.cmd(bad).is_error());
        assert!(conn.cmd(&["EXEC"]).error().starts_with("EXECABORT"), "{bad:?}");
    }
    assert_eq!(conn.cmd(&["GET", "a"]), "2");
}

#[test]
fn a_transaction_that_cannot_begin_does_not_run_piece_by_piece() {
    let mut topology = Topology::start(1);
    let proxy = Setup::of(&topology).upstream("write-hold = \"100ms\"\nprobe-timeout = \"200ms\"").start();
    let mut before = proxy.connect();
    assert_eq!(before.cmd(&["PING"]), "PONG");
    topology.primary.kill();
    let refused = |mut conn: Conn| {
        conn.send(&[encode(&["MULTI"]), encode(&["SET", "a", "1"]), encode(&["EXEC"])].concat());
        let said = String::from_utf8(conn.read_to_close()).unwrap();
        assert!(said.starts_with("-MASTERDOWN "), "{said}");
        assert_eq!(said.matches("\r\n").count(), 1, "and nothing else: {said}");
    };
    sleep_ms(600);
    refused(before);
    // Who comes now is not even admitted.
    refused(proxy.connect());
}

#[test]
fn a_primary_that_dies_ends_what_was_begun_on_it() {
    let mut topology = Topology::start(1);
    let proxy = Setup::of(&topology).upstream("write-hold = \"100ms\"").start();
    let mut transaction = proxy.connect();
    assert_eq!(transaction.cmd(&["MULTI"]), "OK");
    assert_eq!(transaction.cmd(&["SET", "a", "1"]), "QUEUED");
    let mut subscriber = proxy.connect();
    assert_eq!(subscriber.cmd(&["SUBSCRIBE", "c"]).items().len(), 3);
    let mut blocked = proxy.connect();
    blocked.ask(&["BLPOP", "list", "0"]);
    sleep_ms(100);
    topology.primary.restart();
    assert!(
        String::from_utf8_lossy(&blocked.read_to_close()).starts_with("-ERR the connection to the primary")
    );
    assert_eq!(subscriber.read_to_close(), b"");
    transaction.ask(&["EXEC"]);
    let said = transaction.read_to_close();
    assert!(said.is_empty() || said.starts_with(b"-ERR "), "{}", said.escape_ascii());
}

/// The proxy asks spare connections now and then how they are; the answer is nobody else's.
#[test]
fn what_begins_while_spare_connections_are_checked_is_not_confused() {
    let topology = Topology::start(1);
    let begun = Instant::now();
    let proxy = Setup::of(&topology).proxy("[proxy]\nworkers = 1").start();
    let mut both = [proxy.connect(), proxy.connect()];
    for conn in &mut both {
        conn.ask(&["BLPOP", "nothing", "0.1"]);
    }
    for conn in &mut both {
        assert_eq!(conn.read(), Value::Null);
    }
    let [mut subscriber, mut writer] = both;
    // They are checked every five seconds. A primary that says nothing for a second counts as silent.
    std::thread::sleep(ms(4900).saturating_sub(begun.elapsed()));
    topology.primary.pause();
    sleep_ms(700);
    subscriber.ask(&["SUBSCRIBE", "c"]);
    // A command that is passed on as it comes.
    let value = "v".repeat(2 << 20);
    let command = encode(&["SET", "k", &value]);
    writer.send(&command[..1 << 17]);
    sleep_ms(100);
    topology.primary.resume();
    sleep_ms(100);
    writer.send(&command[1 << 17..]);
    assert_eq!(writer.read(), "OK");
    assert_eq!(subscriber.read().items()[0], "subscribe");
    assert_eq!(proxy.cmd(&["PUBLISH", "c", "m"]), 1);
    assert_eq!(subscriber.read().items()[0], "message");
    assert!(proxy.metric("redweir_upstream_desynchronised_total", &[]) < 0.5, "{}", proxy.log());
}

/// More comes behind the reply to `EXEC` than it counts.
#[test]
fn two_who_block_in_turn_are_served_in_turn() {
    let alice = ["--user", "alice", "on", ">pw", "~*", "&*", "+@all"];
    let topology = Topology::with(&alice, 0, &[]);
    let path = Relay::to(topology.primary.port);
    let proxy = Setup::to(path.port, &[]).proxy("[proxy]\nworkers = 1").start();
    let mut of_alice: Vec<Conn> = (0..2).map(|_| proxy.connect()).collect();
    for conn in &mut of_alice {
        assert_eq!(conn.cmd(&["AUTH", "alice", "pw"]), "OK");
    }
    let (mut theirs, mut pushes) = (proxy.connect(), proxy.connect());
    assert_eq!(pushes.cmd(&["SET", "no-list", "x"]), "OK");
    // Each user has used a connection of its own: a transaction of `alice` is on hers still.
    assert_eq!(of_alice[1].cmd(&["MULTI"]), "OK");
    assert_eq!(theirs.cmd(&["MULTI"]), "OK");
    assert_eq!(theirs.cmd(&["EXEC"]).items().len(), 0);
    let open = || topology.primary.info("clients")["connected_clients"].clone();
    eventually("nothing is opened any more", secs(5), || {
        let before = open();
        sleep_ms(100);
        open() == before
    });
    // A connection that had to be opened first would be late by twice this.
    path.delay(Direction::Up, ms(50));
    of_alice[0].ask(&["BRPOPLPUSH", "list", "no-list", "0"]);
    sleep_ms(10);
    theirs.ask(&["BRPOPLPUSH", "list", "target", "0"]);
    sleep_ms(10);
    pushes.ask(&["LPUSH", "list", "element"]);
    assert!(of_alice[0].read().error().starts_with("WRONGTYPE"));
    assert_eq!(theirs.read(), "element");
}

#[test]
fn a_transaction_may_subscribe() {
    let (topology, proxy) = one_worker();
    let transaction = [
        encode(&["MULTI"]),
        encode(&["SUBSCRIBE", "a", "b", "c"]),
        encode(&["PUBLISH", "a", "m"]),
        encode(&["EXEC"]),
    ]
    .concat();
    let said = [topology.primary.port, proxy.port].map(|port| {
        let mut conn = Conn::open(port);
        conn.send(&transaction);
        // Two of the subscriptions are within the array; one, the message and the count of its receivers are behind it.
        let said: Vec<String> = conn.read_many(4 + 3).iter().map(|value| format!("{value:?}")).collect();
        said
    });
    assert_eq!(said[0], said[1]);
}

#[test]
fn exclusive_connections_have_a_cap_and_a_fair_queue() {
    let topology = Topology::start(1);
    let upstream = "max-exclusive-connections = 2\nexclusive-wait = \"2s\"";
    let proxy = Setup::of(&topology).upstream(upstream).start();
    let mut holders: Vec<Conn> = (0..2).map(|_| proxy.connect()).collect();
    for conn in &mut holders {
        assert_eq!(conn.cmd(&["MULTI"]), "OK");
    }
    // Three more stand in line; each leaves a trace of when its turn came.
    let mut waiting: Vec<Conn> = (0..3).map(|_| proxy.connect()).collect();
    for (n, conn) in waiting.iter_mut().enumerate() {
        let mark = encode(&["RPUSH", "order", &n.to_string()]);
        conn.send(&[encode(&["MULTI"]), mark, encode(&["EXEC"])].concat());
        sleep_ms(100);
    }
    assert_eq!(proxy.cmd(&["SET", "others", "go on"]), "OK");
    assert_eq!(proxy.cmd(&["LLEN", "order"]), 0, "all of them wait");
    assert_eq!(holders[0].cmd(&["DISCARD"]), "OK");
    for conn in &mut waiting {
        assert_eq!(conn.read_many(3)[2].items().len(), 1);
    }
    let order: Vec<i64> = proxy.cmd(&["LRANGE", "order", "0", "-1"]).items().iter().map(Value::int).collect();
    assert_eq!(order, [0, 1, 2], "first come, first served");
    // Who waits too long is told so, and nothing of its transaction is executed.
    assert_eq!(holders[0].cmd(&["MULTI"]), "OK");
    let begun = Instant::now();
    let mut late = proxy.connect();
    late.send(&[encode(&["MULTI"]), encode(&["SET", "late", "1"]), encode(&["EXEC"])].concat());
    let said = String::from_utf8(late.read_to_close()).unwrap();
    assert!(said.starts_with("-ERR max number of exclusive connections"), "{said}");
    assert!(begun.elapsed() > ms(1500), "{:?}", begun.elapsed());
    assert_eq!(proxy.cmd(&["EXISTS", "late"]), 0);
    // A place is free again when its client leaves.
    drop(holders);
    assert_eq!(proxy.connect().cmd(&["MULTI"]), "OK");
}

#[test]
fn reset_gives_everything_back() {
    let (topology, proxy) = one_worker();
    let mut conn = proxy.connect();
    for state in
        [&["MULTI"][..], &["WATCH", "k"], &["SUBSCRIBE", "c"], &["MONITOR"], &["CLIENT", "REPLY", "OFF"]]
    {
        conn.ask(state);
        sleep_ms(50);
        if state[0] != "CLIENT" {
            let _ = conn.read();
        }
        conn.ask(&["RESET"]);
        while conn.read() != "RESET" {}
        assert_eq!(conn.cmd(&["SET", "k", "v"]), "OK", "{state:?}");
        assert_eq!(conn.cmd(&["GET", "k"]), "v");
    }
    eventually("no state is left", secs(2), || in_a_state(&topology.primary) == 0);
}

/// In one write: what came before it is answered as if nobody had said RESET.
#[test]
fn reset_waits_for_what_was_said_before() {
    let (_topology, proxy) = one_worker();
    for _ in 0..20 {
        let mut conn = proxy.connect();
        let commands: [&[&str]; 8] = [
            &["SET", "k", "1"],
            &["MULTI"],
            &["SET", "k", "2"],
            &["EXEC"],
            &["RESET"],
            &["SET", "k", "3"],
            &["RESET"],
            &["GET", "k"],
        ];
        conn.send(&commands.iter().flat_map(|command| encode(command)).collect::<Vec<u8>>());
        let said: Vec<String> = conn.read_many(8).iter().map(|value| format!("{value:?}")).collect();
        assert_eq!(said.join(" "), "+OK +OK +QUEUED [+OK] +RESET +OK +RESET \"3\"");
    }
}

#[test]
fn replies_that_were_switched_off_stay_away() {
    let (_topology, proxy) = one_worker();
    let mut conn = proxy.connect();
    let commands: [&[&str]; 6] = [
        &["CLIENT", "REPLY", "SKIP"],
        &["SET", "a", "1"],
        &["GET", "a"],
        &["CLIENT", "REPLY", "OFF"],
        &["SET", "a", "2"],
        &["CLIENT", "REPLY", "ON"],
    ];
    conn.send(&commands.map(encode).concat());
    assert_eq!(conn.read(), "1");
    assert_eq!(conn.read(), "OK");
    assert_eq!(conn.cmd(&["GET", "a"]), "2");
}

#[test]
fn a_script_that_runs_for_ever_can_be_killed() {
    let topology = Topology::with(&["--busy-reply-threshold", "200"], 1, &[]);
    let proxy = Setup::of(&topology).start();
    assert_eq!(proxy.cmd(&["SET", "k", "v"]), "OK");
    let (mut looping, mut killer) = (proxy.connect(), proxy.connect());
    looping.send(&[encode(&["EVAL", "while true do end", "0"]), encode(&["GET", "k"])].concat());
    sleep_ms(500);
    assert!(killer.cmd(&["SET", "k", "w"]).error().starts_with("BUSY "));
    assert_eq!(killer.cmd(&["SCRIPT", "KILL"]), "OK");
    assert!(looping.read().error().contains("Script killed by user"));
    assert_eq!(looping.read(), "v", "what was sent after the script comes after it");
    assert_eq!(killer.cmd(&["SET", "k", "w"]), "OK");
}

#[test]
fn scripts_keep_their_place_in_a_pipeline() {
    let (_topology, proxy) = one_worker();
    let mut conn = proxy.connect();
    let script = "return redis.call('APPEND', KEYS[1], ARGV[1])";
    let mut pipeline = Vec::new();
    for n in 0..200 {
        let letter = char::from(b'a' + (n % 26) as u8).to_string();
        if n % 3 == 0 {
            pipeline.extend(encode(&["APPEND", "text", &letter]));
        } else {
            pipeline.extend(encode(&["EVAL", script, "1", "text", &letter]));
        }
        if n % 7 == 0 {
            pipeline.extend(encode(&["STRLEN", "text"]));
        }
    }
    conn.send(&pipeline);
    for n in 0..200 {
        assert_eq!(conn.read(), n + 1);
        if n % 7 == 0 {
            assert_eq!(conn.read(), n + 1, "a read in between sees exactly what came before it");
        }
    }
}

#[test]
fn a_script_that_only_the_primary_knows_runs_there() {
    let topology = Topology::start(1);
    let proxy = Setup::of(&topology).start();
    assert_eq!(proxy.cmd(&["SET", "k", "v"]), "OK");
    topology.await_sync();
    sleep_ms(200);
    let sha = proxy.cmd(&["SCRIPT", "LOAD", "return redis.call('GET', KEYS[1])"]).text();
    assert_eq!(topology.replicas[0].cmd(&["SCRIPT", "EXISTS", &sha]).items()[0], 0);
    assert_eq!(proxy.cmd(&["EVALSHA_RO", &sha, "1", "k"]), "v");
    assert!(topology.replicas[0].calls("evalsha_ro") > 0, "the replica was asked first");
    assert_eq!(proxy.cmd(&["EVAL_RO", "return redis.call('GET', KEYS[1])", "1", "k"]), "v");
    assert!(topology.replicas[0].calls("eval_ro") > 0);
    let missing = "f".repeat(40);
    assert!(proxy.cmd(&["EVALSHA_RO", &missing, "1", "k"]).error().starts_with("NOSCRIPT "));
}

#[test]
fn a_pattern_and_a_channel_get_their_messages_in_resp2_and_resp3() {
    let (_topology, proxy) = one_worker();
    for proto in ["2", "3"] {
        let mut conn = proxy.connect();
        assert!(!conn.cmd(&["HELLO", proto]).is_error());
        assert_eq!(conn.cmd(&["SUBSCRIBE", "c"]).items()[0], "subscribe");
        assert_eq!(conn.cmd(&["PSUBSCRIBE", "c*"]).items()[0], "psubscribe");
        assert_eq!(proxy.cmd(&["PUBLISH", "c", "m"]), 2);
        let kinds: Vec<String> = conn.read_many(2).iter().map(|message| message.items()[0].text()).collect();
        assert_eq!(kinds, ["message", "pmessage"]);
        if proto == "3" {
            assert_eq!(conn.cmd(&["SET", "k", "v"]), "OK", "RESP3 may do both");
            assert_eq!(conn.cmd(&["GET", "k"]), "v");
        } else {
            assert!(conn.cmd(&["GET", "k"]).error().contains("Can't execute 'get'"));
        }
    }
}
