//! A little chance in waits, so that many proxies do not ask one server in step.

use std::cell::Cell;
use std::time::Duration;

thread_local! {
    static STATE: Cell<u64> = const { Cell::new(0) };
}

/// Between three quarters and five quarters of `span`.
pub fn around(span: Duration) -> Duration {
    span.mul_f64(0.75 + 0.5 * fraction())
}

/// Between nine tenths of `span` and all of it.
pub fn slightly_less(span: Duration) -> Duration {
    span.mul_f64(0.9 + 0.1 * fraction())
}

/// Four random numbers to key a hash with.
pub fn seeds() -> [u64; 4] {
    std::array::from_fn(|_| next())
}

fn fraction() -> f64 {
    (next() >> 11) as f64 / (1_u64 << 53) as f64
}

/// Splitmix64, started from the process' own random keys.
fn next() -> u64 {
    STATE.with(|state| {
        if state.get() == 0 {
            state.set(ahash::RandomState::new().hash_one(std::process::id()) | 1);
        }
        let next = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        state.set(next);
        let mut z = next;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}
