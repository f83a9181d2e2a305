//! Lines of the log that somebody outside can cause as often as he likes: one a second of each kind, with the number of
//! those that were left out.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::core::moment::Moment;
use crate::net::runtime::clock;

/// One kind of line.
#[derive(Debug)]
pub struct Sparing {
    logged: Mutex<LastLine>,
}

#[derive(Debug)]
struct LastLine {
    last: Option<Moment>,
    left_out: u64,
}

/// The shortest time between two lines of a kind.
const EVERY: Duration = Duration::from_secs(1);

impl Sparing {
    /// Nothing has been told yet.
    #[expect(clippy::new_without_default, reason = "it is made in statics")]
    pub const fn new() -> Self {
        Self { logged: Mutex::new(LastLine { last: None, left_out: 0 }) }
    }

    /// Whether to write a line now, and how many were left out since the last.
    pub fn may_tell(&self) -> Option<u64> {
        self.at(clock::now())
    }

    fn at(&self, now: Moment) -> Option<u64> {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.last.is_some_and(|last| now.since(last) < EVERY) {
            logged.left_out += 1;
            return None;
        }
        logged.last = Some(now);
        Some(std::mem::take(&mut logged.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_and_the_count_of_the_others() {
        let sparing = Sparing::new();
        let at = |ms| sparing.at(Moment::from_millis(ms));
        assert_eq!(
            [at(5), at(6), at(900), at(1005), at(1006), at(3000)],
            [Some(0), None, None, Some(2), None, Some(1)]
        );
    }
}
