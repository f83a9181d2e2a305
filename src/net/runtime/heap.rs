//! Memory that was freed goes back to the system.
//!
//! The C library keeps what is freed between blocks that are still in use: after a spike a process would stay as large as the
//! spike has made it, now and then. Other allocators were tried: jemalloc gives back, but holds more while long replies pass
//! through; mimalloc gives nothing back of a thread that has come to rest.

use std::fs;

/// Gives back whatever whole pages are free (`malloc_trim`). Each part of the heap is locked for as long as it takes, some
/// milliseconds for a hundred MiB: for after a spike, not for every day.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(
    unsafe_code,
    reason = "no crate wraps it; it takes no pointer, and may be called at any time from any thread"
)]
pub(crate) fn give_back() {
    // SAFETY: the C library locks whatever it looks at, and moves nothing that is in use.
    unsafe { libc::malloc_trim(0) };
}

/// Elsewhere the allocator has nothing of the kind.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn give_back() {}

/// Bytes of physical memory that the process has (`proc(5)`, `VmRSS`); `None` if the system does not tell.
pub(crate) fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_how_large_it_is() {
        assert!(resident().is_some_and(|bytes| bytes > 1 << 20));
        give_back();
    }
}
