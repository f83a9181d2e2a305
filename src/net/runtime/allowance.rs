//! So many a second, a little ahead.

use std::cell::Cell;

use crate::core::moment::Moment;
use crate::mutant;

/// What may be done at once, as a part of a second's worth.
const AHEAD: f64 = 0.1;

/// Counts what was done of late.
#[derive(Debug, Default)]
pub(crate) struct Allowance {
    left: Cell<f64>,
    at: Cell<Moment>,
}

impl Allowance {
    /// Whether one more may be done now, of so many `per_second`; `None`: without a limit.
    pub(crate) fn take(&self, now: Moment, per_second: impl FnOnce() -> Option<f64>) -> bool {
        let Some(rate) = per_second() else { return true };
        let most = (rate * AHEAD).max(1.0);
        let earned = now.since(self.at.replace(now)).as_secs_f64() * rate;
        let left = (self.left.get() + earned).min(most);
        let granted = left >= 1.0 || mutant::is("reads-without-limit");
        self.left.set(if granted { left - 1.0 } else { left });
        granted
    }

    /// The last one was not done.
    pub(crate) fn give_back(&self) {
        self.left.set(self.left.get() + 1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_granted_than_there_are_a_second_and_a_few_ahead() {
        let allowance = Allowance::default();
        let granted =
            |ms| (0..1000).filter(|_| allowance.take(Moment::from_millis(ms), || Some(100.0))).count();
        assert_eq!(granted(5_000), 10, "a tenth of a second's worth at once");
        assert_eq!(granted(5_000), 0);
        assert_eq!(granted(5_050), 5);
        let second = (5_051..6_051).map(granted).sum::<usize>();
        assert!((99..=100).contains(&second), "{second}");
        assert!(allowance.take(Moment::from_millis(6_051), || None));
    }
}
