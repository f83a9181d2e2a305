//! The one clock read.

use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};

use crate::core::moment::Moment;

/// The present moment: nanoseconds since this function was first called. Asks for plain seconds and nanoseconds, because
/// `std::time::Instant` spends more time on comparing two of its kind than on reading the clock.
pub fn now() -> Moment {
    static START: OnceLock<u64> = OnceLock::new();
    let now = monotonic();
    Moment::from_nanos(now.saturating_sub(*START.get_or_init(|| now)))
}

/// The time since 1970, as `TIME` tells it. Nothing is decided by it.
#[allow(clippy::disallowed_methods, reason = "this is the one clock read that the lint points to")]
pub fn unix() -> Duration {
    let now = clock_gettime(ClockId::CLOCK_REALTIME).unwrap_or(TimeSpec::new(0, 0));
    Duration::new(now.tv_sec().max(0) as u64, now.tv_nsec() as u32)
}

/// Nanoseconds of the monotonic clock, which begins when the machine is started: 2^64 of them are 584 years.
#[allow(clippy::disallowed_methods, reason = "this is the one clock read that the lint points to")]
fn monotonic() -> u64 {
    // The only error is that there is no such clock, and there is. If so, no proof would be young enough.
    let never = TimeSpec::new(i64::from(u32::MAX), 0);
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap_or(never);
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}
