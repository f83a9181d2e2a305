//! A worker's thread: its runtime, its tasks, and the clients that are handed to it.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::LocalSet;

use crate::net::runtime::clock;
use crate::net::runtime::task;
use crate::proxy::serve;
use crate::proxy::serve::listener::Accepted;
use crate::proxy::worker::Worker;
use crate::proxy::worker::mailbox;
use crate::proxy::worker::tasks;
use crate::shard::shared::Shared;

/// Serves until the process drains; returns when its clients are gone, or when they have had their time: the addresses of
/// those who are cut off then.
pub fn serve_thread(
    index: usize,
    shared: Arc<Shared>,
    mut accepted: mpsc::Receiver<Accepted>,
) -> std::io::Result<Vec<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().event_interval(61).build()?;
    let local = LocalSet::new();
    let cut_off = local.block_on(&runtime, async move {
        let worker = Worker::new(index, shared);
        let buffers = Rc::clone(&worker.output.buffers);
        task::spawn_hot(flush(Rc::clone(&worker)));
        task::spawn_local("buffers", async move { buffers.shrink().await });
        let drainer = Rc::clone(&worker);
        task::supervise_local("drain", move || Rc::clone(&drainer).drain());
        tasks::start(&worker);
        if let Some(messages) = worker.shared.mailboxes.take(index) {
            task::spawn_local("mailbox", mailbox::run(Rc::clone(&worker), messages));
        }
        while let Some(accepted) = accepted.recv().await {
            task::spawn_hot(serve::serve(Rc::clone(&worker), accepted));
        }
        let deadline = worker.shared.ends_at().unwrap_or_else(clock::now);
        while worker.stats.clients.value() > 0 && clock::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let left = worker.clients.borrow();
        left.keys().filter_map(|id| Some(worker.shared.clients.get(id)?.peer.clone())).collect()
    });
    Ok(cut_off)
}

/// Writes what became dirty, at the end of each round: first what servers get, for they take longer. A client of which several
/// have asked something waits one round more for all of them. Runs as long as the worker.
async fn flush(worker: Rc<Worker>) {
    loop {
        worker.schedule.due().await;
        worker.dirty_lanes.flush();
        while worker.output.dirty.flush_ripe() {
            worker.schedule.next_round().await;
            worker.dirty_lanes.flush();
        }
    }
}
