//! How background tasks are started: with a name, so that at the level `debug` every line they log says whose it is, and with a
//! handle, so that somebody owns them.
//!
//! A panic is a mistake of ours, and must not become everybody's: it ends what it happened in, a client's connection, a
//! connection to a node, an answer of the admin server, and is told of in the log and in a metric. What the others depend
//! on is started again ([`supervise`]).

use std::any::Any;
use std::future::Future;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::task::JoinHandle;
use tracing::Instrument as _;

/// Starts a task on the current runtime. Dropping the handle leaves the task running.
#[allow(clippy::disallowed_methods, reason = "this is the wrapper that the lint points to")]
pub fn spawn<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(future.instrument(tracing::debug_span!("task", name)))
}

/// Starts a task on the current thread's `LocalSet`. Dropping the handle leaves the task running.
#[allow(clippy::disallowed_methods, reason = "this is the wrapper that the lint points to")]
pub fn spawn_local<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    tokio::task::spawn_local(future.instrument(tracing::debug_span!("task", name)))
}

/// Starts a task that is polled for every command, without a name: entering and leaving its span would cost as much as
/// routing a command does. Its log lines name the client or the node themselves.
#[allow(clippy::disallowed_methods, reason = "this is the wrapper that the lint points to")]
pub fn spawn_hot<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    tokio::task::spawn_local(future)
}

/// Starts a task that the process needs for as long as it runs: after a panic, what `make` makes is started again.
pub fn supervise<F>(name: &'static str, make: impl Fn() -> F + Send + 'static) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    spawn(name, async move {
        while catch(make()).await.is_err() {
            tokio::time::sleep(RESTART_PAUSE).await;
        }
    })
}

/// The same on the current thread's `LocalSet`.
pub fn supervise_local<F>(name: &'static str, make: impl Fn() -> F + 'static) -> JoinHandle<()>
where
    F: Future<Output = ()> + 'static,
{
    spawn_local(name, async move {
        while catch(make()).await.is_err() {
            tokio::time::sleep(RESTART_PAUSE).await;
        }
    })
}

/// What comes of a future, or of its panic, which was told of already. Whoever goes on must not rely on what it has left
/// half done.
pub fn catch<F: Future>(future: F) -> impl Future<Output = Result<F::Output, Box<dyn Any + Send>>> {
    AssertUnwindSafe(future).catch_unwind()
}

/// Between a panic and the next attempt.
const RESTART_PAUSE: Duration = Duration::from_millis(100);

static PANICS: AtomicU64 = AtomicU64::new(0);

/// How many times something has panicked.
pub fn panics() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

/// Has every panic told of in the log, with its place, and at the level `debug` the name of its task.
pub fn tell_of_panics() {
    panic::set_hook(Box::new(|panic| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let what = panic.payload_as_str().unwrap_or("?");
        let thread = std::thread::current().name().unwrap_or("?").to_owned();
        tracing::error!(
            thread,
            place,
            what,
            "a panic, which is a mistake in Redweir: it ends what it happened in"
        );
    }));
}

/// Panics here if `REDWEIR_PROVOKE` holds this word and `when` is true, to show what comes of it. Not in release builds.
#[inline]
pub fn provoke(word: &str, when: impl FnOnce() -> bool) {
    if cfg!(debug_assertions) {
        static WORDS: std::sync::LazyLock<String> =
            std::sync::LazyLock::new(|| std::env::var("REDWEIR_PROVOKE").unwrap_or_default());
        let provoked = WORDS.split(',').any(|provoked| provoked == word) && when();
        assert!(!provoked, "provoked: {word}");
    }
}
