//! The fuzz targets' checks on stable: every checked-in seed, then a few seconds of seeded mutations. The
//! numbers of rounds are fixed, so that a failure is found again by running the test again.

#[path = "fuzz/checks/mod.rs"]
mod checks;

use checks::dice::Dice;

fn smoke(target: &str, rounds: u64, check: fn(&[u8])) {
    let seeds = checks::seeds(target);
    for seed in &seeds {
        check(seed);
    }
    for round in 0..rounds {
        let input = Dice::new(round).mutate(&seeds);
        let outcome = std::panic::catch_unwind(|| check(&input));
        assert!(outcome.is_ok(), "{target}, round {round}: {}", input.escape_ascii());
    }
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
