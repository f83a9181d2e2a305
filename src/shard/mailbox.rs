//! Questions and orders to the workers about their clients: reports for `CLIENT LIST`, `KILL`, `UNBLOCK`. Each worker
//! has a mailbox; whoever asks waits a bounded time for all of them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::core::command::CommandId;
use crate::core::moment::Moment;
use crate::core::slots::ShardIndex;
use crate::net::runtime::limits;

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
    /// What the primary calls its exclusive connection …
    pub server_id: Option<u64>,
    /// … that of this shard: each counts for itself.
    pub shard: ShardIndex,
    /// It waits in `WAIT`.
    pub waits: bool,
}

/// How a waiting client is released by `CLIENT UNBLOCK`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// As if its time were up.
    Timeout,
    /// With `-UNBLOCKED`.
    Error,
}

/// What one worker is asked or told to do.
#[derive(Debug)]
pub enum Message {
    /// Report on all clients.
    Report(oneshot::Sender<Vec<Report>>),
    /// Disconnect these clients, and tell which of them there were.
    Kill(Arc<[u64]>, oneshot::Sender<Vec<u64>>),
    /// Tell whoever wants to know to connect anew within this time, and count them.
    Move(Duration, oneshot::Sender<usize>),
    /// Release this client from `WAIT`, and tell whether it waited.
    Release(u64, Release, oneshot::Sender<bool>),
}

/// The mailboxes of all workers.
#[derive(Debug)]
pub struct Mailboxes {
    senders: Vec<mpsc::Sender<Message>>,
    receivers: Mutex<Vec<Option<mpsc::Receiver<Message>>>>,
}

impl Mailboxes {
    /// One for each worker.
    pub fn new(workers: usize) -> Self {
        let (senders, receivers) = (0..workers).map(|_| mpsc::channel(limits::ERRANDS)).unzip();
        let receivers: Vec<mpsc::Receiver<Message>> = receivers;
        Self { senders, receivers: Mutex::new(receivers.into_iter().map(Some).collect()) }
    }

    /// The worker takes its place.
    pub fn take(&self, index: usize) -> Option<mpsc::Receiver<Message>> {
        let mut receivers = self.receivers.lock().unwrap_or_else(PoisonError::into_inner);
        receivers.get_mut(index)?.take()
    }

    /// The reports of all workers that answer in time.
    pub async fn reports(&self) -> Vec<Report> {
        self.ask(Message::Report).await.into_iter().flatten().collect()
    }

    /// Disconnects these clients, and tells which of them there were.
    pub async fn kill(&self, ids: Vec<u64>) -> Vec<u64> {
        let ids: Arc<[u64]> = ids.into();
        self.ask(|answer| Message::Kill(Arc::clone(&ids), answer)).await.into_iter().flatten().collect()
    }

    /// Tells clients that want to know to connect anew within this time; how many those are.
    pub async fn tell_of_move(&self, within: Duration) -> usize {
        self.ask(|answer| Message::Move(within, answer)).await.into_iter().sum()
    }

    /// Releases a client from `WAIT`; whether it waited.
    pub async fn release(&self, id: u64, how: Release) -> bool {
        self.ask(|answer| Message::Release(id, how, answer)).await.contains(&true)
    }

    async fn ask<T>(&self, message: impl Fn(oneshot::Sender<T>) -> Message) -> Vec<T> {
        let mut answers = Vec::new();
        for mailbox in &self.senders {
            let (answer, report) = oneshot::channel();
            if mailbox.try_send(message(answer)).is_ok() {
                answers.push(report);
            }
        }
        let mut all = Vec::new();
        let collect = async {
            for report in answers {
                all.extend(report.await);
            }
        };
        // A worker that does not answer in time is left out.
        let _ = timeout(limits::REPORT_WITHIN, collect).await;
        all
    }
}
