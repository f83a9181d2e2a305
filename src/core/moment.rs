//! Points on the monotonic clock, as plain numbers, so that `core` needs no clock of its own.

use std::time::Duration;

/// Nanoseconds since the process took its first clock reading. Monotonic; wall time is never compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(u64);

impl Moment {
    /// The moment `nanos` nanoseconds after the process took its first clock reading.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// The moment `millis` milliseconds after the process took its first clock reading.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis * 1_000_000)
    }

    /// Nanoseconds since the first clock reading.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time from `earlier` to `self`; zero when `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The same in nanoseconds.
    pub const fn nanos_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The moment `span` later, saturating at the end of time.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// A span of time for people: `180 ms`, `2.5 s`, `11 s`, `3 min`, `5 h`.
pub fn in_words(span: Duration) -> String {
    let (millis, seconds) = (span.as_millis(), span.as_secs());
    match seconds {
        0 => format!("{millis} ms"),
        1..=9 if millis % 1000 >= 50 && millis % 1000 < 950 => format!("{:.1} s", span.as_secs_f64()),
        1..=9 => format!("{:.0} s", span.as_secs_f64()),
        10..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_told_as_people_tell_them() {
        let cases = [
            (0, "0 ms"),
            (180, "180 ms"),
            (999, "999 ms"),
            (1000, "1 s"),
            (1049, "1 s"),
            (2500, "2.5 s"),
            (2960, "3 s"),
            (11_800, "11 s"),
            (119_999, "119 s"),
            (180_000, "3 min"),
            (18_000_000, "5 h"),
        ];
        for (millis, words) in cases {
            assert_eq!(in_words(Duration::from_millis(millis)), words);
        }
    }
}
