//! The mailbox of one worker: what others ask or order about its clients.

use std::rc::Rc;

use tokio::sync::mpsc;

use crate::proxy::downstream::replies::{Client, Gone};
use crate::proxy::worker::Worker;
use crate::shard::mailbox::{Message, Report};
use crate::wire::say;

/// On this client, now. To be called on its worker.
pub(crate) fn report_of(client: &Rc<Client>) -> Report {
    let status = &client.status;
    Report {
        id: client.id,
        command: status.command.get(),
        seen: status.seen.get(),
        input: status.input.get(),
        output: client.output_len(),
        server_id: status.server_id(),
        shard: status.pinned_at.get(),
        waits: status.waits.get(),
    }
}

/// Does what comes, as long as the worker runs.
pub(crate) async fn run(worker: Rc<Worker>, mut messages: mpsc::Receiver<Message>) {
    while let Some(message) = messages.recv().await {
        let clients = worker.clients.borrow();
        // Whoever asked may have given up meanwhile.
        match message {
            Message::Report(answer) => {
                let _ = answer.send(clients.values().map(report_of).collect());
            }
            Message::Kill(ids, answer) => {
                let here = ids.iter().filter_map(|id| clients.get(id));
                let found: Vec<&Rc<Client>> = here.filter(|client| client.gone().is_none()).collect();
                for client in &found {
                    client.leave(Gone::Ended);
                    // Nobody is to find it again, whenever its task gets to run.
                    worker.shared.clients.remove(&client.id);
                }
                let _ = answer.send(found.iter().map(|client| client.id).collect());
            }
            Message::Move(within, answer) => {
                // On a connection of its own the server has the say, and what comes next there may be the middle of a reply.
                let here = clients.values().filter(|client| !client.status.is_pinned());
                let told = here.filter(|client| client.status.hears_of_moves.get());
                let push = say::moving(within);
                let _ = answer.send(told.map(|client| client.answer(&push)).count());
            }
            Message::Release(id, how, answer) => {
                let waits = clients.get(&id).filter(|client| client.status.waits.get());
                let released = waits.map(|client| client.status.release.set(Some(how)));
                worker.changed.notify_waiters();
                let _ = answer.send(released.is_some());
            }
        }
    }
}
