//! A client connection's own task: read once, take every complete command out of the buffer, dispatch it, go on.
//!
//! Most commands are dispatched without waiting for anything. The few that must wait (for room in a lane, for earlier
//! replies, for a primary) leave their bytes in the buffer and are tried again; meanwhile the connection is still read
//! a little ahead, so that a client that leaves is noticed.

mod body;
pub(crate) mod dispatch;
mod input;
pub mod listener;
mod permit;
mod shards;
pub mod thread;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;

use crate::core::argv::Args as _;
use crate::core::moment::Moment;
use crate::net::runtime::buffer::drop_front;
use crate::net::runtime::clock;
use crate::net::runtime::limits;
use crate::net::runtime::task;
use crate::net::socket::halves::{ReadHalf, Socket};
use crate::proxy::downstream::replies::{Client, Gone};
use crate::proxy::local;
use crate::proxy::serve::listener::Accepted;
use crate::proxy::session::connection::Connection;
use crate::proxy::session::step::Step;
use crate::proxy::session::waiting::On;
use crate::proxy::worker::Worker;
use crate::shard::common::ClientEntry;
use crate::wire::request::{RequestLimits, Scan};
use input::Input;
use shards::Shards;

/// Serves one client until it leaves or is made to.
pub(crate) async fn serve(worker: Rc<Worker>, mut accepted: Accepted) {
    let _seat = accepted.seat.take();
    let (local, listener) = (accepted.local.clone(), accepted.listener);
    // Boxed, like everything rare below: what it may hold would be part of every idle client.
    let Some(stream) = Box::pin(accepted.open(&worker.shared, &worker.stats)).await else { return };
    let (id, peer) = (worker.shared.next_client(), stream.peer());
    let here = if let Socket::Tcp(socket) = &stream { socket.local_addr().ok() } else { None };
    let (read, write) = stream.split();
    let limit =
        usize::try_from(worker.shared.config().proxy.client_output_buffer_limit).unwrap_or(usize::MAX);
    let client = Client::new(id, write, worker.output.clone(), limit);
    let (peer, local) = named(here, peer, local);
    let entry = ClientEntry {
        peer,
        local,
        user: "default".to_owned(),
        resp: 2,
        since: clock::now(),
        ..ClientEntry::default()
    };
    let _registered = Registered::new(&worker, &client, entry);
    worker.stats.accepted.add(1);
    let connection = Box::new(Connection::new(Rc::clone(&worker), Rc::clone(&client), listener));
    let commands = || worker.shared.commands.load_full();
    let shards = worker.shared.cluster().map(|cluster| Box::new(Shards::new(cluster, commands())));
    // The answer will be there when the first command is.
    worker.admission.verdict(client.status.anonymous_since.get(), clock::now());
    let input = Input::new();
    let mut server = Server {
        worker: Rc::clone(&worker),
        client: Rc::clone(&client),
        read,
        input,
        connection,
        shards,
        spoken: false,
        decided_at: 0,
    };
    let why = server.run().await;
    client.leave(why);
    drop(server);
    if client.gone() == Some(Gone::TooSlow) {
        worker.stats.slow_clients.add(1);
    }
}

/// A client's place in the registries, for as long as it is served.
struct Registered {
    worker: Rc<Worker>,
    id: u64,
}

impl Registered {
    fn new(worker: &Rc<Worker>, client: &Rc<Client>, entry: ClientEntry) -> Self {
        worker.shared.clients.insert(client.id, entry);
        worker.clients.borrow_mut().insert(client.id, Rc::clone(client));
        worker.stats.clients.add(1);
        Self { worker: Rc::clone(worker), id: client.id }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.worker.clients.borrow_mut().remove(&self.id);
        self.worker.shared.clients.remove(&self.id);
        self.worker.stats.clients.sub(1);
    }
}

/// The addresses of a client as `CLIENT LIST` tells them.
fn named(local: Option<SocketAddr>, peer: String, listener: String) -> (String, String) {
    if let Some(path) = listener.strip_prefix("unix:") {
        return (format!("{path}:0"), format!("{path}:0"));
    }
    (peer, local.map_or(listener, |local| local.to_string()))
}

/// How long a command goes on whose client has closed its sending side: it may be there still to be answered, unless the
/// command may last for as long as it wants.
fn patience(args: &[Vec<u8>]) -> Duration {
    let is = |at: usize, word: &[u8]| args.get(at).is_some_and(|arg| arg.eq_ignore_ascii_case(word));
    let may_last = is(0, b"wait") || is(0, b"redweir") && is(1, b"after");
    if may_last { Duration::ZERO } else { limits::ANSWERED_AFTER_END }
}

struct Server {
    worker: Rc<Worker>,
    client: Rc<Client>,
    read: ReadHalf,
    input: Input,
    connection: Box<Connection>,
    /// What it has with the others, if there are several shards.
    shards: Option<Box<Shards>>,
    /// The client has said something.
    spoken: bool,
    /// How far the replication stream was read when the present command was decided.
    decided_at: u64,
}

impl Drop for Server {
    /// Also after a panic, which ends this task: what the client had leaves with it.
    fn drop(&mut self) {
        // Of one that has left already only what it still holds is let go.
        self.client.leave(Gone::Ended);
        self.connection.close();
        if let Some(shards) = &mut self.shards {
            shards.close();
        }
    }
}

/// What a wait was ended by.
enum WaitEnd {
    Input(usize),
    Gone(Gone),
    Changed,
}

impl Server {
    async fn run(&mut self) -> Gone {
        loop {
            let step = self.advance();
            self.client.status.busy.set(!matches!(step, Step::Done));
            let event = match step {
                Step::Done => self.input_or_end().await,
                Step::Room => self.wait_for_room().await,
                Step::Drain => self.wait(|client, _| client.is_drained()).await,
                Step::Retry => Box::pin(self.pause()).await,
                Step::Find(client) => {
                    let reports = Box::pin(self.worker.shared.mailboxes.reports()).await;
                    let there = reports.iter().find(|report| report.id == client);
                    let here = there.filter(|report| report.shard == self.connection.worker.shard);
                    let server_id = here.and_then(|report| report.server_id).unwrap_or(0);
                    self.connection.redirect.found(client, server_id);
                    continue;
                }
                Step::Permit => Box::pin(self.wait_for_permit()).await,
                Step::Body => match Box::pin(self.body()).await {
                    Ok(()) => continue,
                    Err(why) => return why,
                },
                Step::Later(args) => {
                    if let Some(event) = Box::pin(self.later(&args)).await {
                        event
                    } else {
                        self.input.consume();
                        continue;
                    }
                }
                Step::Close => {
                    Box::pin(self.linger()).await;
                    return Gone::Ended;
                }
            };
            match event {
                WaitEnd::Gone(why) => return why,
                WaitEnd::Input(0) => self.input.ended = true,
                WaitEnd::Input(_) => {
                    self.spoken = true;
                    self.connection.waiting.arrive();
                }
                WaitEnd::Changed => {}
            }
        }
    }

    /// Dispatches what is complete. `Done` when more bytes are needed.
    #[inline]
    fn advance(&mut self) -> Step {
        let worker = Rc::clone(&self.connection.worker);
        let known = worker.snapshot.look();
        let (view, commands, now) = (&*known.view, &*known.commands, clock::now());
        let shared = &worker.shared;
        self.decided_at = shared.shard().stream.offset();
        let (length, capacity) = (self.input.buffer.len(), self.input.buffer.capacity());
        self.client.status.input.set((length, capacity - length));
        let input = &mut self.input;
        let unauthenticated =
            self.connection.is_unauthenticated() && shared.shard().auth_required.load(Ordering::Relaxed);
        self.client.status.seen.set(now);
        self.connection.resume_fast_path(view, commands, now);
        if let Some(shards) = &mut self.shards
            && let Some(step) = shards.look_anew(&mut self.connection, &known, now)
        {
            return step;
        }
        input.scanner.set_limits(if unauthenticated {
            RequestLimits::BEFORE_AUTH
        } else {
            RequestLimits::DEFAULT
        });
        loop {
            let rest = &input.buffer[input.at..];
            if input.current.is_none() {
                if rest.is_empty() {
                    input.scanner.rest();
                    break;
                }
                match input.scanner.scan(rest) {
                    Ok(Scan::Need) if input.scanner.is_long(rest) => {
                        return self.advance_long(view, commands, now);
                    }
                    Ok(Scan::Need) => break,
                    Ok(Scan::Skip(n)) => {
                        input.at += n;
                        continue;
                    }
                    Ok(Scan::Command { len, .. }) => input.current = Some(len),
                    Err(error) => {
                        self.worker.stats.protocol_errors.add(1);
                        let mut reply = BytesMut::new();
                        error.put_reply(&mut reply);
                        self.connection.say_last(&reply);
                        return Step::Close;
                    }
                }
            }
            if !self.client.has_room() {
                return Step::Room;
            }
            let request = input.scanner.request(rest);
            task::provoke("worker", || request.arg(1) == b"panic!");
            let intent = self.connection.last.classify(&request, commands);
            let step = match &mut self.shards {
                None => self.connection.dispatch(&request, intent, view, commands, now),
                Some(shards) => shards.dispatch(&mut self.connection, &request, intent, commands, now),
            };
            match step {
                Step::Done => {
                    input.consume();
                    // Whatever it has waited for, the next command has not.
                    self.connection.waiting.is_done();
                }
                other => return other,
            }
        }
        // An empty one stays until it is clear that nothing more has come.
        drop_front(&mut input.buffer, std::mem::take(&mut input.at));
        self.client.status.input.set((input.buffer.len(), input.buffer.capacity() - input.buffer.len()));
        Step::Done
    }

    /// Waits for bytes; ends when there will be none, or when the process drains and nothing is owed.
    async fn input_or_end(&mut self) -> WaitEnd {
        if self.is_called() {
            return WaitEnd::Changed;
        }
        let draining = self.worker.draining.get();
        if self.input.ended && self.connection.is_abandoned() {
            return WaitEnd::Gone(Gone::Left);
        }
        if draining && !self.spoken && !self.input.ended {
            // It was accepted in the last moment: what it says first is answered.
            self.spoken = true;
            if let Some(event) = Box::pin(self.first_words()).await {
                return event;
            }
        }
        if draining
            && !self.input.ended
            && let Some(event) = self.arrived().await
        {
            // Asked before it was to leave: more than it may have on its way at once, perhaps.
            return event;
        }
        if self.input.ended || draining {
            // A client that closed its sending side still gets what it asked for.
            self.linger().await;
            return WaitEnd::Gone(if draining { Gone::Ended } else { Gone::Left });
        }
        let waits = self.connection.pin.is_some() && self.connection.release_when_over();
        self.client.set_waits(waits);
        let mut at_once = true;
        let event = poll_fn(|cx| {
            let first = std::mem::replace(&mut at_once, false);
            if let Some(why) = self.client.poll(cx) {
                return Poll::Ready(WaitEnd::Gone(why));
            }
            if self.connection.pin.is_some() {
                self.connection.release_when_over();
            }
            if self.worker.draining.get() || self.is_called() {
                return Poll::Ready(WaitEnd::Changed);
            }
            let event = self.input.poll(&self.worker, &mut self.read, cx);
            if first && event.is_ready() {
                self.connection.waiting.arrive_late();
            }
            event
        })
        .await;
        if waits {
            self.client.set_waits(false);
        }
        event
    }

    /// Whether something has to be asked in the name of a client of a cluster.
    #[inline]
    fn is_called(&self) -> bool {
        self.shards.is_some() && self.client.status.is_called()
    }

    /// What has come of the client, if anything has.
    async fn arrived(&mut self) -> Option<WaitEnd> {
        poll_fn(|cx| match self.input.poll(&self.worker, &mut self.read, cx) {
            Poll::Ready(event) => Poll::Ready(Some(event)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }

    /// What a client says that has said nothing yet, if it says anything soon.
    async fn first_words(&mut self) -> Option<WaitEnd> {
        let Self { worker, client, read, input, .. } = self;
        let words = poll_fn(|cx| {
            if let Some(why) = client.poll(cx) {
                return Poll::Ready(WaitEnd::Gone(why));
            }
            input.poll(worker, read, cx)
        });
        tokio::time::timeout(limits::FIRST_WORDS, words).await.ok()
    }

    /// Waits until there is room for the next command, here and on the lane that was full.
    async fn wait_for_room(&mut self) -> WaitEnd {
        if !self.client.is_blocked() {
            // Once it is, it is waited for in another way.
            let room = |client: &Client, connection: &mut Connection| {
                client.is_blocked() || client.has_room() && connection.lanes.have_room()
            };
            return self.wait(room).await;
        }
        let taken = self.client.taken();
        let room =
            |client: &Client, connection: &mut Connection| client.has_room() && connection.lanes.have_room();
        // Cancel safe: what was read stays in the buffer.
        let room = Box::pin(tokio::time::timeout(limits::STALLED_PIPELINE, self.wait(room))).await;
        self.client.set_waits(false);
        room.unwrap_or_else(|_| {
            if self.client.taken() == taken {
                self.client.stalls(clock::now());
            }
            WaitEnd::Changed
        })
    }

    /// Waits until `done`; reads ahead a little, to notice a client that leaves.
    async fn wait(&mut self, done: impl Fn(&Client, &mut Connection) -> bool) -> WaitEnd {
        self.client.set_waits(true);
        let mut patience = None;
        let event = poll_fn(|cx| {
            if let Some(why) = self.client.poll(cx) {
                return Poll::Ready(WaitEnd::Gone(why));
            }
            self.connection.lanes.wake_on_change(cx.waker());
            if done(&self.client, &mut self.connection) {
                return Poll::Ready(WaitEnd::Changed);
            }
            if self.input.ended && self.connection.is_abandoned() {
                let patience =
                    patience.get_or_insert_with(|| Box::pin(tokio::time::sleep(limits::RELAY_LINGER)));
                if !self.connection.is_raw() || Future::poll(patience.as_mut(), cx).is_ready() {
                    return Poll::Ready(WaitEnd::Gone(Gone::Left));
                }
            }
            if self.input.may_read_ahead() {
                return self.input.poll(&self.worker, &mut self.read, cx);
            }
            Poll::Pending
        })
        .await;
        self.client.set_waits(false);
        event
    }

    /// Waits until the same command may fare better.
    async fn pause(&mut self) -> WaitEnd {
        let Self { client, connection, decided_at, .. } = self;
        let worker = Rc::clone(&connection.worker);
        let (shared, retry) = (&worker.shared, connection.waiting.retry());
        if !worker.is_first() {
            *decided_at = shared.shard().stream.offset();
        }
        // Cancel safe, all that is selected from: sleeps, `Notify` whose waiters are woken all at once, and `moves_from`.
        // With the next view: an anchor was answered, a node was looked at, there is another primary.
        let changed = match retry.on {
            On::View | On::Nodes => worker.changed.notified(),
            On::Admission => worker.admission.changes(),
        };
        let nodes = retry.on == On::Nodes;
        let _waiting = nodes.then(|| shared.shard().attention.wait());
        // With the next news of the stream, which may be many.
        let moved = async {
            tokio::time::sleep(limits::RETRY_PAUSE).await;
            shared.shard().stream.moves_from(*decided_at).await;
        };
        let again = async {
            tokio::select! {
                () = changed => {}
                () = moved, if nodes => {}
                () = tokio::time::sleep(retry.until.since(clock::now())) => {}
            }
        };
        let mut again = std::pin::pin!(again);
        poll_fn(|cx| {
            // What the client is owed goes out meanwhile.
            if let Some(why) = client.poll(cx) {
                return Poll::Ready(WaitEnd::Gone(why));
            }
            again.as_mut().poll(cx).map(|()| WaitEnd::Changed)
        })
        .await
    }

    /// A command that Redweir itself answers after asking somebody, with nothing outstanding before it.
    async fn later(&mut self, args: &[Vec<u8>]) -> Option<WaitEnd> {
        while !self.client.is_drained() {
            match self.wait(|client, _| client.is_drained()).await {
                WaitEnd::Gone(why) => return Some(WaitEnd::Gone(why)),
                WaitEnd::Input(0) => self.input.ended = true,
                WaitEnd::Input(_) | WaitEnd::Changed => {}
            }
        }
        if self.client.status.is_called() {
            // What is before it is answered only in appearance.
            return Some(WaitEnd::Changed);
        }
        let Self { worker, client, read, input, connection, .. } = self;
        let (mut arrived, patience) = (false, patience(args));
        let mut left = None;
        let event = {
            let mut answer = std::pin::pin!(local::answer_later(connection, args));
            poll_fn(|cx| {
                if let Some(why) = client.poll(cx) {
                    return Poll::Ready(Some(WaitEnd::Gone(why)));
                }
                if answer.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(None);
                }
                while input.may_read_ahead() {
                    match input.poll(worker, read, cx) {
                        Poll::Ready(WaitEnd::Input(0)) => input.ended = true,
                        Poll::Ready(WaitEnd::Input(_)) => arrived = true,
                        Poll::Ready(event) => return Poll::Ready(Some(event)),
                        Poll::Pending => break,
                    }
                }
                if !input.ended {
                    return Poll::Pending;
                }
                // Nobody is there to be told how the wait ended.
                let left = left.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
                left.as_mut().poll(cx).map(|()| Some(WaitEnd::Gone(Gone::Left)))
            })
            .await
        };
        if arrived {
            self.connection.waiting.arrive();
        }
        event
    }

    /// Gives the client time to take what it is owed.
    async fn linger(&mut self) {
        let until: Moment = clock::now().after(limits::LINGER);
        let client = Rc::clone(&self.client);
        client.set_waits(true);
        let flushed = poll_fn(|cx| {
            if client.poll(cx).is_some() || client.is_flushed() { Poll::Ready(()) } else { Poll::Pending }
        });
        let _ = tokio::time::timeout(until.since(clock::now()), flushed).await;
    }
}
