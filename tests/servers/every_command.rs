//! The guarantees hold for every command: clients say anything to two proxies, to servers past them, in pipelines and
//! transactions, while messages come and databases change, and every reply to a read is compared with what the data said.
//!
//! What the data said is known: a recorder keeps the primary's replication stream, and another server is led through it step
//! by step. A read must answer as that one does at some step; which steps those may be is what the levels are about. Writes are
//! found in the stream by words that only they have, or because nobody else could have written that.
//!
//! Short by default; `REDWEIR_SOAK_COMMANDS=n` goes on until so many reads are judged at each level (`make soak`).
//! `REDWEIR_SEED` is where chance begins; a seed that once failed stays in `KEPT_SEEDS`.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]
#![allow(clippy::print_stdout, reason = "how much was checked is what one wants to know")]

mod clients;
mod grammar;
mod history;
mod judge;
mod oracle;
mod recorder;
mod rig;
mod story;
mod wire;

use std::collections::BTreeSet;
use std::time::Duration;

use self::grammar::{Judge, TABLE};
use self::history::Level;
use self::rig::{Behind, Fault, Rig};
use crate::support::{Redis, ms, secs};

/// They run first, each time. What one does depends on the machine, too.
const KEPT_SEEDS: &[u64] = &[];

const BOUNDED: Level = Level::Bounded(ms(200));
const SESSION: Level = Level::Session(secs(1));
const FENCED: Level = Level::Fenced(secs(1));
const STRONG: Level = Level::Strong(secs(1));

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

fn holds(level: Level, faults: &'static [Fault], time: Duration) {
    let wanted = number("REDWEIR_SOAK_COMMANDS").unwrap_or(0) as usize;
    let time = if wanted > 0 { 4 * time } else { time };
    let run = |seed| Rig::start(level, Behind::Proxies, faults, seed).run_for(time).assert_holds(seed);
    let mut judged: usize = KEPT_SEEDS.iter().copied().map(run).sum();
    for seed in number("REDWEIR_SEED").unwrap_or(1).. {
        judged += run(seed);
        if judged >= wanted {
            break;
        }
    }
}

fn holds_in_quiet_times(level: Level) {
    holds(level, &[], ms(2500));
}

fn holds_while_the_topology_changes(level: Level) {
    holds(level, Fault::CLEAR, ms(4000));
}

#[test]
fn eventual_reads_are_some_past() {
    holds_in_quiet_times(Level::Eventual);
}

#[test]
fn bounded_reads_are_young() {
    holds_in_quiet_times(BOUNDED);
}

#[test]
fn sessions_see_what_they_wrote_and_never_go_back() {
    holds_in_quiet_times(SESSION);
}

#[test]
fn fenced_reads_see_what_was_written_through_the_proxy() {
    holds_in_quiet_times(FENCED);
}

#[test]
fn strong_reads_see_everything() {
    holds_in_quiet_times(STRONG);
}

#[test]
fn eventual_reads_are_some_past_while_the_topology_changes() {
    holds_while_the_topology_changes(Level::Eventual);
}

#[test]
fn bounded_reads_are_young_while_the_topology_changes() {
    holds_while_the_topology_changes(BOUNDED);
}

#[test]
fn sessions_see_what_they_wrote_and_never_go_back_while_the_topology_changes() {
    holds_while_the_topology_changes(SESSION);
}

#[test]
fn fenced_reads_see_what_was_written_through_the_proxy_while_the_topology_changes() {
    holds_while_the_topology_changes(FENCED);
}

#[test]
fn strong_reads_see_everything_while_the_topology_changes() {
    holds_while_the_topology_changes(STRONG);
}

#[test]
fn sessions_never_go_back_while_two_say_that_they_are_the_primary() {
    holds(SESSION, Fault::UNCLEAR, ms(2500));
}

#[test]
fn strong_reads_see_everything_while_two_say_that_they_are_the_primary() {
    holds(STRONG, Fault::UNCLEAR, ms(2500));
}

/// No green without its red: the same clients without a proxy, who write to the primary and read from a replica.
#[test]
fn a_replica_alone_breaks_every_promise() {
    let behind = Behind::Nobody { lag: ms(60) };
    let mut outcome = Rig::start(Level::Eventual, behind, &[], 1).run_for(ms(2500));
    let promises =
        [Level::Bounded(ms(20)), Level::Session(secs(10)), Level::Fenced(secs(10)), Level::Strong(secs(10))];
    for level in promises {
        let (verdict, said) = outcome.judge(level);
        println!("{}: {} of {} reads break it", level.name(), verdict.violations.len(), verdict.judged);
        // On a busy machine there are few reads at all.
        let least = verdict.judged / 100;
        assert!(verdict.violations.len() > least, "{}: {} {said}", level.name(), verdict.violations.len());
    }
    let (verdict, said) = outcome.judge(Level::Eventual);
    assert_eq!(verdict.violations.len(), 0, "old, but true: {said}");
    assert!(verdict.judged > 1000);
}

/// What is no data command, or not for clients: `COMMAND LIST` minus the table must be exactly this.
const LEFT_OUT: &[&str] = &[
    // The connection and the session: the clients say some of it themselves.
    "asking",
    "auth",
    "client",
    "discard",
    "echo",
    "exec",
    "hello",
    "multi",
    "ping",
    "quit",
    "readonly",
    "readwrite",
    "reset",
    "select",
    "unwatch",
    "watch",
    // Subscriptions; who has some goes on reading.
    "psubscribe",
    "pubsub",
    "punsubscribe",
    "spublish",
    "ssubscribe",
    "subscribe",
    "sunsubscribe",
    "unsubscribe",
    // The server.
    "acl",
    "bgrewriteaof",
    "bgsave",
    "cluster",
    "command",
    "config",
    "debug",
    "failover",
    "function",
    "info",
    "lastsave",
    "latency",
    "lolwut",
    "memory",
    "migrate",
    "module",
    "monitor",
    "psync",
    "replconf",
    "replicaof",
    "restore-asking",
    "role",
    "save",
    "script",
    "shutdown",
    "slaveof",
    "slowlog",
    "sync",
    "time",
    "wait",
    // Its own tests.
    "pfdebug",
    "pfselftest",
];

/// The same, of servers after Redis 7.0.
const NEWER: &[&str] = &["commandlog", "waitaof"];

#[test]
fn every_data_command_of_the_server_is_said() {
    let server = Redis::start(&[]);
    let names = server.cmd(&["COMMAND", "LIST"]);
    let names: BTreeSet<String> = names.items().iter().map(|name| name.text().to_uppercase()).collect();
    let top = names.iter().filter(|name| !name.contains('|')).cloned();
    let said: BTreeSet<String> = TABLE.iter().map(|entry| entry.name.to_owned()).collect();
    let newer = NEWER.iter().map(|name| name.to_uppercase()).filter(|name| names.contains(name));
    let left_out: BTreeSet<String> = LEFT_OUT.iter().map(|name| name.to_uppercase()).chain(newer).collect();
    let known: BTreeSet<String> = said.union(&left_out).cloned().collect();
    assert_eq!(top.collect::<BTreeSet<_>>(), known);
    assert_eq!(said.intersection(&left_out).count(), 0);
    for entry in
        TABLE.iter().filter(|entry| !names.iter().any(|name| name.starts_with(&format!("{}|", entry.name))))
    {
        let info = server.cmd(&["COMMAND", "INFO", entry.name]);
        let flags = info.items()[0].items()[2].items();
        let reads = flags.iter().any(|flag| *flag == "readonly");
        let scripted = entry.name.ends_with("_RO") || reads;
        assert_eq!(entry.judge != Judge::Write, scripted, "{}: {flags:?}", entry.name);
    }
}
