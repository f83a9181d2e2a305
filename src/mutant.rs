//! Deliberate bugs for the tests to catch, one for each promise. They are there only where `REDWEIR_MUTANTS=1` was set
//! at build time (`build.rs`); then the environment variable `REDWEIR_MUTANT` of the running process names the one that
//! is awake. One build serves them all: `make mutants`, with the tests that must fail in `tests/mutants.txt`.

/// Whether this deliberate bug is awake: never in a build without mutants, where the compiler removes what asks.
#[cfg(not(mutants))]
#[inline]
#[must_use]
pub const fn is(_name: &str) -> bool {
    false
}

/// Whether this deliberate bug is awake in this process.
#[cfg(mutants)]
#[must_use]
pub fn is(name: &str) -> bool {
    static AWAKE: std::sync::LazyLock<Option<String>> =
        std::sync::LazyLock::new(|| std::env::var("REDWEIR_MUTANT").ok());
    AWAKE.as_deref() == Some(name)
}
