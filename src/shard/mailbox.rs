//! Questions and orders to the workers about their clients: reports for `CLIENT LIST`, `KILL`, `UNBLOCK`. Each worker
//! has a desk; whoever asks waits a bounded time for all of them.

use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::core::command::CommandId;
use crate::core::moment::Moment;
use crate::net::runtime::limits;
use crate::proxy::downstream::replies::{Client, Gone};
use crate::proxy::downstream::status::Release;
use crate::proxy::worker::Worker;

/// What changes too often to stand in the shared registry.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// `CLIENT ID`
    pub id: u64,
    /// Its last command.
    pub command: Option<CommandId>,
    /// When it was last heard of.
    pub seen: Moment,
    /// Bytes it has sent that are not dispatched, and room left in that buffer.
    pub input: (usize, usize),
    /// Bytes of replies that wait to be written.
    pub output: usize,
    /// What the primary calls its exclusive connection.
    pub server_id: Option<u64>,
    /// It waits in `WAIT`.
    pub waits: bool,
}

impl Report {
    /// On this client, now. To be called on its worker.
    pub fn of(client: &Rc<Client>) -> Self {
        let presence = &client.presence;
        Self {
            id: client.id,
            command: presence.command.get(),
            seen: presence.seen.get(),
            input: presence.input.get(),
            output: client.output_len(),
            server_id: presence.server_id(),
            waits: presence.waits.get(),
        }
    }
}

/// An errand to one worker.
#[derive(Debug)]
pub enum Errand {
    /// Report on all clients.
    Report(oneshot::Sender<Vec<Report>>),
    /// Disconnect these clients, and tell which of them there were.
    Kill(Arc<[u64]>, oneshot::Sender<Vec<u64>>),
    /// Release this client from `WAIT`, and tell whether it waited.
    Release(u64, Release, oneshot::Sender<bool>),
}

/// The desks of all workers.
#[derive(Debug)]
pub struct Desks {
    senders: Vec<mpsc::Sender<Errand>>,
    receivers: Mutex<Vec<Option<mpsc::Receiver<Errand>>>>,
}

impl Desks {
    /// One for each worker.
    pub fn new(workers: usize) -> Self {
        let (senders, receivers) = (0..workers).map(|_| mpsc::channel(limits::ERRANDS)).unzip();
        let receivers: Vec<mpsc::Receiver<Errand>> = receivers;
        Self { senders, receivers: Mutex::new(receivers.into_iter().map(Some).collect()) }
    }

    /// The worker takes its place.
    pub fn take(&self, index: usize) -> Option<mpsc::Receiver<Errand>> {
        let mut receivers = self.receivers.lock().unwrap_or_else(PoisonError::into_inner);
        receivers.get_mut(index)?.take()
    }

    /// The reports of all workers that answer in time.
    pub async fn reports(&self) -> Vec<Report> {
        self.ask(Errand::Report).await.into_iter().flatten().collect()
    }

    /// Disconnects these clients, and tells which of them there were.
    pub async fn kill(&self, ids: Vec<u64>) -> Vec<u64> {
        let ids: Arc<[u64]> = ids.into();
        self.ask(|answer| Errand::Kill(Arc::clone(&ids), answer)).await.into_iter().flatten().collect()
    }

    /// Releases a client from `WAIT`; whether it waited.
    pub async fn release(&self, id: u64, how: Release) -> bool {
        self.ask(|answer| Errand::Release(id, how, answer)).await.contains(&true)
    }

    async fn ask<T>(&self, errand: impl Fn(oneshot::Sender<T>) -> Errand) -> Vec<T> {
        let mut answers = Vec::new();
        for desk in &self.senders {
            let (answer, told) = oneshot::channel();
            if desk.try_send(errand(answer)).is_ok() {
                answers.push(told);
            }
        }
        let mut all = Vec::new();
        let collect = async {
            for told in answers {
                all.extend(told.await);
            }
        };
        // A worker that does not answer in time is left out.
        let _ = timeout(limits::REPORT_WITHIN, collect).await;
        all
    }
}

/// Does the errands of one worker.
pub(crate) async fn run(worker: Rc<Worker>, mut errands: mpsc::Receiver<Errand>) {
    while let Some(errand) = errands.recv().await {
        let clients = worker.clients.borrow();
        // Whoever asked may have given up meanwhile.
        match errand {
            Errand::Report(answer) => {
                let _ = answer.send(clients.values().map(Report::of).collect());
            }
            Errand::Kill(ids, answer) => {
                let found = ids.iter().filter(|id| clients.contains_key(id)).copied().collect();
                let _ = answer.send(found);
                for client in ids.iter().filter_map(|id| clients.get(id)) {
                    client.leave(Gone::Ended);
                }
            }
            Errand::Release(id, how, answer) => {
                let waits = clients.get(&id).filter(|client| client.presence.waits.get());
                let released = waits.map(|client| client.presence.release.set(Some(how)));
                let _ = answer.send(released.is_some());
            }
        }
    }
}
