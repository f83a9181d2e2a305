//! A client connection's own task: read once, take every complete command out of the buffer, dispatch it, go on.
//!
//! Most commands are dispatched without waiting for anything. The few that must wait (for room in a lane, for earlier
//! replies, for a primary) leave their bytes in the buffer and are tried again; meanwhile the connection is still read
//! a little ahead, so that a client that leaves is noticed.

mod body;

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use bytes::{Buf, BytesMut};

use super::client::{Client, Gone};
use super::connection::{Connection, Step};
use super::identity::IdentityId;
use super::listener::Accepted;
use super::shared::ClientEntry;
use super::stream::ReadHalf;
use super::worker::Worker;
use super::{clock, limits, local};
use crate::core::moment::Moment;
use crate::wire::request::{Limits, RequestScanner, Scan};

/// Serves one client until it leaves or is made to.
pub(super) async fn serve(worker: Rc<Worker>, accepted: Accepted) {
    let (local, policy) = (accepted.local.clone(), accepted.policy);
    let stream = match accepted.into_stream() {
        Ok(stream) => stream,
        Err(problem) => return tracing::warn!(%problem, "a connection was lost at once"),
    };
    let (id, peer) = (worker.shared.next_client(), stream.peer());
    let (read, write) = stream.split();
    let limit = usize::try_from(worker.shared.config.proxy.client_output_buffer_limit).unwrap_or(usize::MAX);
    let client = Client::new(id, write, Rc::clone(&worker.round), limit);
    let entry = ClientEntry {
        peer,
        local,
        user: "default".to_owned(),
        resp: 2,
        since: clock::now(),
        ..ClientEntry::default()
    };
    worker.shared.clients.insert(id, entry);
    worker.stats.clients.add(1);
    worker.stats.accepted.add(1);
    let connection = Connection::new(Rc::clone(&worker), Rc::clone(&client), policy);
    let input = Input {
        buffer: BytesMut::new(),
        at: 0,
        current: None,
        scanner: RequestScanner::new(Limits::DEFAULT),
        ended: false,
    };
    let mut server =
        Server { worker: Rc::clone(&worker), client: Rc::clone(&client), read, input, connection };
    let why = server.run().await;
    client.leave(why);
    server.connection.close();
    if client.gone() == Some(Gone::TooSlow) {
        worker.stats.slow_clients.add(1);
    }
    worker.shared.clients.remove(&id);
    worker.stats.clients.sub(1);
}

/// The bytes a client has sent and that are not dispatched yet.
#[derive(Debug)]
struct Input {
    buffer: BytesMut,
    /// Everything before it is dispatched.
    at: usize,
    /// Length of the command at `at`, when it is scanned but not dispatched.
    current: Option<usize>,
    scanner: RequestScanner,
    /// The client has closed its sending side.
    ended: bool,
}

struct Server {
    worker: Rc<Worker>,
    client: Rc<Client>,
    read: ReadHalf,
    input: Input,
    connection: Connection,
}

/// What a wait was ended by.
enum Event {
    Input(usize),
    Gone(Gone),
    Changed,
}

impl Server {
    async fn run(&mut self) -> Gone {
        let mut drain = self.worker.shared.drain.subscribe();
        loop {
            let step = self.advance();
            let draining = *drain.borrow_and_update();
            let event = match step {
                Step::Done => self.input_or_end(draining, &mut drain).await,
                Step::Room => {
                    self.wait(|client, connection| client.has_room() && connection.has_room()).await
                }
                Step::Drain => self.wait(|client, _| client.is_drained()).await,
                Step::Retry => self.pause().await,
                Step::Body => match self.body().await {
                    Ok(()) => continue,
                    Err(why) => return why,
                },
                Step::Later(args) => {
                    // Boxed: it is rare, and what it may hold would be part of every idle client.
                    if let Some(event) = Box::pin(self.later(&args)).await {
                        event
                    } else {
                        self.input.consume();
                        continue;
                    }
                }
                Step::Close => {
                    self.linger().await;
                    return Gone::Ended;
                }
            };
            match event {
                Event::Gone(why) => return why,
                Event::Input(0) => self.input.ended = true,
                Event::Input(_) => self.connection.arrivals += 1,
                Event::Changed => {}
            }
        }
    }

    /// Dispatches what is complete. `Done` when more bytes are needed.
    fn advance(&mut self) -> Step {
        let shared = &self.worker.shared;
        let (view, vocabulary, now) = (shared.view.load(), shared.vocabulary.load(), clock::now());
        let input = &mut self.input;
        let stranger =
            self.connection.identity == IdentityId::ANONYMOUS && shared.auth_required.load(Ordering::Relaxed);
        input.scanner.set_limits(if stranger { Limits::BEFORE_AUTH } else { Limits::DEFAULT });
        loop {
            let rest = &input.buffer[input.at..];
            if input.current.is_none() {
                match input.scanner.scan(rest) {
                    Ok(Scan::Need) if input.scanner.is_long(rest) => {
                        return self.advance_long(&view, &vocabulary, now);
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
                        self.client.answer(&reply);
                        return Step::Close;
                    }
                }
            }
            if !self.client.has_room() {
                return Step::Room;
            }
            let request = input.scanner.request(rest);
            match self.connection.dispatch(&request, &view, &vocabulary, now) {
                Step::Done => input.consume(),
                other => return other,
            }
        }
        input.buffer.advance(input.at);
        input.at = 0;
        if input.buffer.is_empty() && input.buffer.capacity() > 0 {
            self.worker.put_buffer(std::mem::take(&mut input.buffer));
        }
        Step::Done
    }

    /// Waits for bytes; ends when there will be none, or when the process drains and nothing is owed.
    async fn input_or_end(
        &mut self,
        draining: bool,
        drain: &mut tokio::sync::watch::Receiver<bool>,
    ) -> Event {
        if self.input.ended && self.connection.is_abandoned() {
            return Event::Gone(Gone::Left);
        }
        if self.input.ended || draining {
            // A client that closed its sending side still gets what it asked for.
            self.linger().await;
            return Event::Gone(if draining { Gone::Ended } else { Gone::Left });
        }
        let mut drain = std::pin::pin!(drain.changed());
        poll_fn(|cx| {
            if let Some(why) = self.client.poll(cx) {
                return Poll::Ready(Event::Gone(why));
            }
            if Future::poll(drain.as_mut(), cx).is_ready() {
                return Poll::Ready(Event::Changed);
            }
            self.input.poll(&self.worker, &mut self.read, cx)
        })
        .await
    }

    /// Waits until `done`; reads ahead a little, to notice a client that leaves.
    async fn wait(&mut self, done: impl Fn(&Client, &mut Connection) -> bool) -> Event {
        self.client.set_waits(true);
        let event = poll_fn(|cx| {
            if let Some(why) = self.client.poll(cx) {
                return Poll::Ready(Event::Gone(why));
            }
            self.connection.wake_on_change(cx.waker());
            if done(&self.client, &mut self.connection) {
                return Poll::Ready(Event::Changed);
            }
            if self.input.ended && self.connection.is_abandoned() {
                return Poll::Ready(Event::Gone(Gone::Left));
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

    /// Waits a moment before the same command is tried again.
    async fn pause(&mut self) -> Event {
        // The view changes when an anchor is answered; the stream passes an offset without a word.
        let again = tokio::time::timeout(limits::RETRY_PAUSE, self.worker.changed.notified());
        let mut again = std::pin::pin!(again);
        poll_fn(|cx| {
            // What the client is owed goes out meanwhile.
            if let Some(why) = self.client.poll(cx) {
                return Poll::Ready(Event::Gone(why));
            }
            Future::poll(again.as_mut(), cx).map(|_| Event::Changed)
        })
        .await
    }

    /// A command that Redweir itself answers after asking somebody, with nothing outstanding before it.
    async fn later(&mut self, args: &[Vec<u8>]) -> Option<Event> {
        while !self.client.is_drained() {
            match self.wait(|client, _| client.is_drained()).await {
                Event::Gone(why) => return Some(Event::Gone(why)),
                Event::Input(0) => self.input.ended = true,
                Event::Input(_) | Event::Changed => {}
            }
        }
        local::answer_later(&mut self.connection, args).await;
        None
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

impl Input {
    fn consume(&mut self) {
        if let Some(len) = self.current.take() {
            self.at += len;
        }
    }

    fn may_read_ahead(&self) -> bool {
        !self.ended && self.buffer.len() < limits::READ_AHEAD
    }

    fn poll(&mut self, worker: &Worker, read: &mut ReadHalf, cx: &mut std::task::Context<'_>) -> Poll<Event> {
        if self.buffer.capacity() == 0 {
            self.buffer = worker.take_buffer();
        }
        let wanted = self.scanner.wanted().unwrap_or(0).clamp(limits::CLIENT_READ, limits::LANE_READ);
        self.buffer.reserve(wanted);
        match read.poll_read(cx, &mut self.buffer) {
            Poll::Ready(Ok(n)) => Poll::Ready(Event::Input(n)),
            Poll::Ready(Err(_)) => Poll::Ready(Event::Gone(Gone::Left)),
            Poll::Pending => {
                if self.buffer.is_empty() {
                    worker.put_buffer(std::mem::take(&mut self.buffer));
                }
                Poll::Pending
            }
        }
    }
}
