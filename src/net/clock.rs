//! The one clock read.

use std::sync::OnceLock;
use std::time::Instant;

use crate::core::moment::Moment;

/// The present moment: nanoseconds since this function was first called.
#[allow(clippy::disallowed_methods, reason = "this is the one clock read that the lint points to")]
pub fn now() -> Moment {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = *START.get_or_init(Instant::now);
    // 2^64 nanoseconds are 584 years.
    Moment::from_nanos(start.elapsed().as_nanos() as u64)
}
