//! How background tasks are started: with a name, so that every line they log says whose it is, and with a
//! handle, so that somebody owns them.

use std::future::Future;

use tokio::task::JoinHandle;
use tracing::Instrument as _;

/// Starts a task on the current runtime. Dropping the handle leaves the task running.
#[allow(clippy::disallowed_methods, reason = "this is the wrapper that the lint points to")]
pub fn spawn<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(future.instrument(tracing::info_span!("task", name)))
}

/// Starts a task on the current thread's `LocalSet`. Dropping the handle leaves the task running.
#[allow(clippy::disallowed_methods, reason = "this is the wrapper that the lint points to")]
pub fn spawn_local<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    tokio::task::spawn_local(future.instrument(tracing::info_span!("task", name)))
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
