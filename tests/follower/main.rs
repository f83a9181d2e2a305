//! The follower against real servers: it attaches without a dump, keeps the exact offset, goes on after every cut
//! without losing or repeating a command, says when there is a gap, and is a guest that nobody counts.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_methods, reason = "tests have a clock of their own")]

mod attach;
mod counterfeit;
mod load;
mod resume;
mod server;
mod sink;

use std::time::{Duration, Instant};

/// Waits until `done`, for as long as a busy machine may take; `what` says what was waited for in vain.
fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(25), "in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
