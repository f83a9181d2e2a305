//! Pipelines over shards: whatever is answered first, the client gets it in its order.

use std::collections::HashMap;
use std::process::Command;
use std::thread;

use super::{FENCED, Promise, Rig, SESSION, STRONG, keys};
use crate::support::cluster::key_in;
use crate::support::rng::Rng;
use crate::support::{Conn, Value, encode, sleep_ms};

/// Commands in one pipeline.
const LENGTH: usize = 5000;

/// What one server with these keys answers to a command by chance, and the command.
fn some_command(
    rng: &mut Rng,
    keys: &[String],
    model: &mut HashMap<String, i64>,
    n: usize,
) -> (Vec<u8>, Value) {
    let bulk = |count: Option<&i64>| count.map_or(Value::Null, |count| Value::Bulk(count.to_string().into()));
    let key = &keys[rng.below(keys.len())];
    match rng.below(7) {
        0 => {
            model.insert(key.clone(), n as i64);
            (encode(&["SET", key, &n.to_string()]), Value::Status("OK".to_owned()))
        }
        1 => {
            let count = model.entry(key.clone()).or_default();
            *count += 1;
            (encode(&["INCR", key]), Value::Int(*count))
        }
        2 => (encode(&["DEL", key]), Value::Int(i64::from(model.remove(key).is_some()))),
        3 => (encode(&["ECHO", &n.to_string()]), Value::Bulk(n.to_string().into())),
        4 => {
            let some: Vec<&String> = (0..5).map(|_| &keys[rng.below(keys.len())]).collect();
            let words: Vec<&str> = ["MGET"].into_iter().chain(some.iter().map(|key| key.as_str())).collect();
            (encode(&words), Value::Array(some.iter().map(|key| bulk(model.get(*key))).collect()))
        }
        _ => (encode(&["GET", key]), bulk(model.get(key))),
    }
}

fn answered_in_order(promise: Promise) {
    let rig = Rig::start(promise);
    if promise.name != STRONG.name {
        // A strong read may be the primary's as well.
        rig.await_replicas();
    }
    let clients = (0..3).map(|client: u64| {
        let mut conn = rig.connect();
        thread::spawn(move || {
            let (mut rng, mut model) = (Rng::new(client + 1), HashMap::new());
            let keys: Vec<String> = keys(200).iter().map(|key| format!("{key}:{client}")).collect();
            for _ in 0..2 {
                let sent: Vec<(Vec<u8>, Value)> =
                    (0..LENGTH).map(|n| some_command(&mut rng, &keys, &mut model, n)).collect();
                let bytes: Vec<u8> = sent.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
                let mut sender = conn.stream();
                let sending = thread::spawn(move || std::io::Write::write_all(&mut sender, &bytes));
                for (n, (bytes, wanted)) in sent.iter().enumerate() {
                    let got = conn.read();
                    assert_eq!(&got, wanted, "client {client}, command {n}: {}", bytes.escape_ascii());
                }
                sending.join().unwrap().unwrap();
            }
        })
    });
    clients.collect::<Vec<_>>().into_iter().for_each(|client| client.join().unwrap());
}

#[test]
fn a_pipeline_over_all_shards_is_answered_in_order() {
    answered_in_order(SESSION);
}

#[test]
fn a_fenced_pipeline_over_all_shards_is_answered_in_order() {
    answered_in_order(FENCED);
}

#[test]
fn a_strong_pipeline_over_all_shards_is_answered_in_order() {
    answered_in_order(STRONG);
}

#[test]
fn redis_benchmark_runs_through_the_proxy() {
    let rig = Rig::start(FENCED);
    let output = Command::new("redis-benchmark")
        .args(["-p", &rig.proxy.port.to_string(), "-r", "100000", "-t", "set,get"])
        .args(["-n", "50000", "-P", "16", "-q"])
        .output()
        .expect("redis-benchmark is on PATH");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    println!("{}", text.replace('\r', "\n"));
    assert!(output.status.success(), "{text}");
    assert!(!text.to_lowercase().contains("error"), "{text}");
    let done = text.matches("requests per second").count();
    assert_eq!(done, 2, "{text}");
    assert!(rig.proxy.cmd(&["DBSIZE"]).int() > 10_000);
}

/// A slot is half moved: who has it executes no write to keys that are here and there, and goes on executing those to keys that are
/// here. What was said later holds.
#[test]
fn a_write_that_has_to_wait_undoes_nothing_that_was_said_behind_it() {
    let rig = Rig::start(FENCED);
    let (a, b, other) = (key_in(0, 0), key_in(0, 1), key_in(9000, 0));
    let mut conn = rig.connect();
    for key in [&a, &b, &other] {
        assert_eq!(conn.cmd(&["SET", key, "first"]), "OK");
    }
    let step = rig.cluster.open(0, 1);
    assert_eq!(step.carry(1), 1);
    let here = if rig.cluster.nodes[0].cmd(&["GET", &a]) == "first" { &a } else { &b };
    // One client for each, so that all of them wait.
    let mut behind: Vec<(Conn, &str, bool)> = [(here, true), (&other, false)]
        .into_iter()
        .map(|(key, is_overtaken)| {
            let mut conn = rig.connect();
            conn.ask(&["MSET", &a, "old", &b, "old"]).ask(&["SET", key, "new"]);
            // What comes after that does not change it.
            sleep_ms(100);
            conn.ask(&["PING"]);
            (conn, key.as_str(), is_overtaken)
        })
        .collect();
    sleep_ms(200);
    step.finish();
    for (conn, key, is_overtaken) in &mut behind {
        let replies = conn.read_many(3);
        if *is_overtaken {
            assert!(replies[0].error().starts_with("TRYAGAIN"), "{replies:?}");
        } else {
            assert_eq!(replies[0], "OK", "nothing is in the way of it");
        }
        assert!(replies[1] == "OK" && replies[2] == "PONG", "{replies:?}");
        if !*is_overtaken {
            assert_eq!(conn.cmd(&["GET", key]), "new");
            assert!(conn.cmd(&["MGET", &a, &b]).items().iter().all(|value| *value == "old"));
        }
    }
}
