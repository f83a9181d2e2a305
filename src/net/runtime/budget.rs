//! Bytes that several may hold together.

use std::sync::atomic::{AtomicUsize, Ordering};

/// How many bytes are held, and how many may be.
#[derive(Debug)]
pub struct Budget {
    limit: AtomicUsize,
    held: AtomicUsize,
}

impl Default for Budget {
    /// One without a limit.
    fn default() -> Self {
        Self::new(u64::MAX)
    }
}

impl Budget {
    /// Nothing is held yet, of so many bytes.
    pub fn new(limit: u64) -> Self {
        let budget = Self { limit: AtomicUsize::default(), held: AtomicUsize::default() };
        budget.set_limit(limit);
        budget
    }

    /// So many bytes may be held from now on.
    pub fn set_limit(&self, limit: u64) {
        self.limit.store(usize::try_from(limit).unwrap_or(usize::MAX), Ordering::Relaxed);
    }

    /// Who held `before` bytes holds so many now.
    pub fn hold(&self, now: usize, before: usize) {
        if now >= before {
            self.held.fetch_add(now - before, Ordering::Relaxed);
        } else {
            self.held.fetch_sub(before - now, Ordering::Relaxed);
        }
    }

    /// Bytes that are held.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Bytes that may be held besides.
    pub fn left(&self) -> usize {
        self.limit.load(Ordering::Relaxed).saturating_sub(self.held())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_never_less_than_nothing() {
        let budget = Budget::new(100);
        budget.hold(70, 0);
        budget.hold(50, 0);
        assert_eq!((budget.held(), budget.left()), (120, 0));
        budget.hold(10, 70);
        assert_eq!((budget.held(), budget.left()), (60, 40));
        budget.set_limit(50);
        assert_eq!(budget.left(), 0);
    }
}
