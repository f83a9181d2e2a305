//! The fuzz targets' checks on stable: every checked-in seed, then a few seconds of seeded mutations. The
//! numbers of rounds are fixed, so that a failure is found again by running the test again.
//!
//! `REDWEIR_FUZZ_SECONDS=60` (`make fuzz`) has each go on for a minute, with mutations that no run before has seen; what
//! fails then is kept among the seeds.
#![allow(clippy::print_stdout, reason = "how far it got is what one wants to know")]
#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]

#[path = "fuzz/checks/mod.rs"]
mod checks;

use std::panic::catch_unwind;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use checks::rng::Rng;

fn smoke(target: &str, rounds: u64, check: fn(&[u8])) {
    let seeds = checks::seeds(target);
    for seed in &seeds {
        check(seed);
    }
    for round in 0..rounds {
        let input = Rng::new(round).mutate(&seeds);
        let outcome = catch_unwind(|| check(&input));
        assert!(outcome.is_ok(), "{target}, round {round}: {}", input.escape_ascii());
    }
    if let Some(seconds) = std::env::var("REDWEIR_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()) {
        go_on(target, &seeds, Duration::from_secs(seconds), check);
    }
}

/// Goes on with mutations of other numbers for so long.
fn go_on(target: &str, seeds: &[Vec<u8>], span: Duration, check: fn(&[u8])) {
    let first = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos() as u64) | 1 << 63;
    let (begun, mut rounds) = (Instant::now(), 0);
    while begun.elapsed() < span {
        let input = Rng::new(first.wrapping_add(rounds)).mutate(seeds);
        if catch_unwind(|| check(&input)).is_err() {
            let kept = checks::seed_dir(target).join(format!("found-{:x}", first.wrapping_add(rounds)));
            std::fs::write(&kept, &input).expect("the seeds can be added to");
            panic!("{target}: {}, kept as {}", input.escape_ascii(), kept.display());
        }
        rounds += 1;
    }
    println!("{target}: {rounds} rounds in {} s", span.as_secs());
}

#[test]
fn requests_hold_their_rules() {
    smoke("req_scan", 100_000, checks::request::check);
}

#[test]
fn replies_hold_their_rules() {
    smoke("reply_skip", 100_000, checks::reply::check);
}

#[test]
fn inline_words_are_those_of_redis() {
    smoke("inline_args", 800_000, checks::inline::check);
}

#[test]
fn answers_to_redweir_hold_their_rules() {
    smoke("control_reply", 40_000, checks::control::check);
}

#[test]
fn info_is_what_its_lines_say() {
    smoke("info", 10_000, checks::info::check);
}

#[test]
fn what_the_doctor_reads_holds_its_rules() {
    smoke("inspect", 6_000, checks::inspect::check);
}

#[test]
fn command_tables_are_made_of_anything() {
    smoke("commands", 3_000, checks::commands::check);
}

#[test]
fn role_is_what_its_words_say() {
    smoke("role", 60_000, checks::role::check);
}

#[test]
fn sentinels_are_taken_at_their_words() {
    smoke("sentinel", 40_000, checks::sentinel::check);
}

#[test]
fn replication_links_hold_their_rules() {
    smoke("psync", 40_000, checks::psync::check);
}

#[test]
fn streams_hold_their_rules() {
    smoke("stream", 40_000, checks::stream::check);
}

#[test]
fn replies_come_in_the_order_of_the_commands() {
    smoke("reply_queue", 200_000, checks::reply_queue::check);
}

#[test]
fn requests_go_out_in_order_and_replies_find_them() {
    smoke("request_queue", 100_000, checks::request_queue::check);
}

/// Rules about what is read hold of nothing if nothing can be read.
#[test]
fn enough_of_what_is_tried_is_read() {
    let share = |target: &str, is_read: fn(&[u8]) -> bool| {
        let seeds = checks::seeds(target);
        let read = (0..4000).filter(|round| is_read(&Rng::new(*round).mutate(&seeds))).count();
        println!("{target}: {read} of 4000 are read");
        assert!(read >= 400, "{target}: only {read} of 4000");
    };
    share("control_reply", |input| !checks::control::decode(input, input.len()).0.is_empty());
    share("commands", checks::commands::is_read);
    share("inspect", checks::inspect::is_read);
    share("role", checks::role::is_read);
    share("sentinel", checks::sentinel::is_read);
    share("psync", |input| !checks::psync::decode(input, input.len()).0.is_empty());
    share("stream", |input| !checks::stream::decode(input, input.len()).0.is_empty());
}
