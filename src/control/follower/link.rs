//! One link to a source, from the handshake to its end.
//!
//! 1. Connect, and `AUTH` by itself.
//! 2. `PING`, `REPLCONF capa eof capa psync2`, `REPLCONF rdb-filter-only ""` (Redis 7.0 and later then send a dump
//!    without data; others refuse it, and the real dump is passed over), `INFO replication`.
//! 3. `PSYNC` after what was read before, or after the present offset (`core::resume`).
//! 4. The stream; `REPLCONF ACK 0` each second, at each `GETACK` and after a dump, which the source may wait for.
//!
//! Never `REPLCONF listening-port`: Sentinel would take us for a replica that can be promoted.

use std::time::Duration;

use redis_protocol::resp2::types::BytesFrame;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, split};
use tokio::task::yield_now;
use tokio::time::{MissedTickBehavior, interval};

use super::{Access, Detached, Following, Source, StreamSink};
use crate::core::argv::Args as _;
use crate::core::nodes::node::{NodeId, Role};
use crate::core::position::Offset;
use crate::core::stream::resume::{Breaker, Offer, Reached, Start};
use crate::net::runtime::clock;
use crate::net::socket::call::{ControlLink, encode, words};
use crate::net::socket::dial::ByteStream;
use crate::wire::info::Info;
use crate::wire::psync::{PsyncDecoder, PsyncError, PsyncEvent};
use crate::wire::stream::StreamCommand;

/// Between two acknowledgements, as a replica of Redis does it. A source drops a link without any after
/// `repl-timeout`.
const ACK_EVERY: Duration = Duration::from_secs(1);
/// Read at once. A source that writes at full speed fills it.
const READ_BYTES: usize = 256 << 10;
/// Nothing is stored here, so nothing is acknowledged.
const ACK: [&[u8]; 3] = [b"REPLCONF", b"ACK", b"0"];

impl<S: StreamSink> Following<S> {
    /// Attaches to `source` and reads its stream until that ends, and says why.
    ///
    /// Cancel safe: `reached` agrees with what the sink has been given at every await, and dropping the future closes the
    /// link. A dump that the breaker has permitted stays counted, whether it was asked for or not.
    pub(super) async fn follow(&mut self, source: &Source) -> Detached {
        match self.attach(source).await {
            Ok((socket, early, start)) => {
                let decoder = PsyncDecoder::new(start.id, start.at);
                let Self { sink, reached, breaker, .. } = self;
                let events = EventSink {
                    sink,
                    reached,
                    breaker,
                    source: source.node,
                    start,
                    streaming: false,
                    owes_ack: false,
                };
                StreamLink { decoder, events }.read(socket, &early, self.limits.silence).await
            }
            Err(why) => why,
        }
    }

    /// Everything up to and including the question: the connection, what was read beyond the handshake, and what
    /// was asked for.
    async fn attach(&self, source: &Source) -> Result<(Box<dyn ByteStream>, Vec<u8>, Start), Detached> {
        let (credentials, within) = match &self.access {
            Some(Access(access)) => access(),
            None => (self.credentials.clone(), self.limits.connect),
        };
        let mut link =
            ControlLink::connect(&self.dialer, &source.address, credentials.as_ref(), within).await?;
        let start = Start::plan(&introduce(&mut link, within).await?, self.reached);
        if !self.breaker.permits(start.needs_dump, clock::now()) {
            return Err(Detached::Rationed);
        }
        let (mut socket, early) = link.into_parts();
        let mut question = Vec::new();
        let next = start.at.advanced(1).to_string();
        encode(&[b"PSYNC", start.id.as_str().as_bytes(), next.as_bytes()], &mut question);
        // So few bytes always find room in the socket of a new connection.
        socket.write_all(&question).await.map_err(|_| Detached::Closed)?;
        socket.flush().await.map_err(|_| Detached::Closed)?;
        Ok((socket, early.to_vec(), start))
    }
}

/// Says what we can do, and asks what the source has.
async fn introduce(link: &mut ControlLink, within: Duration) -> Result<Offer, Detached> {
    let questions: [&[&[u8]]; 4] = [
        &[b"PING"],
        &[b"REPLCONF", b"capa", b"eof", b"capa", b"psync2"],
        &[b"REPLCONF", b"rdb-filter-only", b""],
        &[b"INFO", b"replication"],
    ];
    let answers = link.call_many(&questions, within).await?;
    let [ping, _, _, info] = answers.as_slice() else { return Err(Detached::Closed) };
    for answer in [ping, info] {
        // A source that cannot save its data says so to `PING` (`-MISCONF`), and sends its stream all the same.
        if let BytesFrame::Error(text) = answer
            && !text.starts_with("MISCONF")
        {
            return Err(Detached::refusal(words(text)));
        }
    }
    let BytesFrame::BulkString(text) = info else { return Err(Detached::NoHistory) };
    let info = Info::parse(text);
    if info.role == Some(Role::Replica) && info.link_up != Some(true) {
        return Err(Detached::NoMasterLink);
    }
    let (history, head) = info.history().zip(info.offset).ok_or(Detached::NoHistory)?;
    let backlog_from = info.backlog_first_offset.filter(|_| info.backlog_active == Some(true));
    Ok(Offer { history, head, backlog_from })
}

/// A link on which `PSYNC` was sent.
struct StreamLink<'a, S> {
    decoder: PsyncDecoder,
    events: EventSink<'a, S>,
}

/// Where what the decoder finds goes to.
struct EventSink<'a, S> {
    sink: &'a mut S,
    reached: &'a mut Option<Reached>,
    breaker: &'a mut Breaker,
    source: NodeId,
    start: Start,
    streaming: bool,
    owes_ack: bool,
}

impl<S: StreamSink> StreamLink<'_, S> {
    /// Reads until the link ends. Acknowledgements are written beside the reading, which never waits for them.
    ///
    /// The branches of its `select!` are cancel safe: a tick, a single `write` and a single `read`, which have done nothing
    /// as long as they are pending, over TLS, too. What a `write` has not taken is offered again, unchanged.
    async fn read(mut self, socket: Box<dyn ByteStream>, early: &[u8], silence: Duration) -> Detached {
        if let Err(why) = self.hear(early) {
            return why;
        }
        let (mut reader, mut writer) = split(socket);
        let mut inbound = vec![0; READ_BYTES];
        let mut outbound: Vec<u8> = Vec::new();
        let mut second = interval(ACK_EVERY);
        // After a standstill of our own process: one tick, not all that were missed, before the socket is read.
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut idle = Duration::ZERO;
        loop {
            if self.events.owes_ack && outbound.is_empty() {
                encode(&ACK, &mut outbound);
                self.events.owes_ack = false;
            }
            tokio::select! {
                // The timer first: a stream that never pauses must not keep us from acknowledging.
                biased;
                _ = second.tick() => {
                    if idle >= silence {
                        return Detached::Silent;
                    }
                    idle += ACK_EVERY;
                    self.events.owes_ack = self.events.streaming;
                }
                written = writer.write(&outbound), if !outbound.is_empty() => match written {
                    Ok(0) | Err(_) => return Detached::Closed,
                    Ok(count) => drop(outbound.drain(..count)),
                },
                read = reader.read(&mut inbound) => {
                    let Some(count) = read.ok().filter(|&count| count > 0) else { return Detached::Closed };
                    idle = Duration::ZERO;
                    if let Err(why) = self.hear(&inbound[..count]) {
                        return why;
                    }
                    if count == inbound.len() {
                        // A source that sends without a pause must not keep the probers, who share this thread, from theirs.
                        yield_now().await;
                    }
                }
            }
        }
    }

    /// Takes in the next bytes.
    fn hear(&mut self, chunk: &[u8]) -> Result<(), Detached> {
        let events = &mut self.events;
        let result = self.decoder.feed(chunk, &mut |event| events.hear(&event));
        events.progress(self.decoder.position());
        if let Err(PsyncError::Stream(_)) = &result {
            // The same bytes would come again: the next link begins after them, with a gap.
            *events.reached = None;
        }
        Ok(result?)
    }
}

impl<S: StreamSink> EventSink<'_, S> {
    fn hear(&mut self, event: &PsyncEvent<'_>) {
        match *event {
            PsyncEvent::Continued(id) => {
                self.start.id = id;
                self.breaker.continued();
                self.attached();
            }
            PsyncEvent::FullResync(id, at) => {
                if self.start.needs_dump {
                    tracing::info!("the source of the replication stream has to send a dump: offset {at}");
                } else {
                    tracing::warn!(
                        "the source of the replication stream sends a dump, although it need not: offset {at}"
                    );
                }
                self.breaker.resynced(self.start.needs_dump, clock::now());
                *self.reached = None;
                self.start = Start { id, at, known_to: at, resumed: false, ..self.start };
            }
            PsyncEvent::DumpEnded => self.attached(),
            PsyncEvent::Command(command, end) => {
                if self.start.is_new(end) {
                    self.sink.command(command, end);
                }
                self.owes_ack |= is_getack(command);
            }
        }
    }

    fn attached(&mut self) {
        let Start { id, known_to, resumed, .. } = self.start;
        tracing::debug!(source = %self.source, %id, from = %known_to, resumed, "attached to the replication stream");
        *self.reached = Some(Reached { id, offset: known_to });
        self.sink.attached(self.source, id, known_to, resumed);
        (self.streaming, self.owes_ack) = (true, true);
    }

    fn progress(&mut self, upto: Offset) {
        let reached = Some(Reached { id: self.start.id, offset: upto });
        if self.streaming && self.start.is_new(upto) && *self.reached != reached {
            *self.reached = reached;
            self.sink.progressed(upto);
        }
    }
}

fn is_getack(command: &StreamCommand<'_>) -> bool {
    command.arg(0).eq_ignore_ascii_case(b"replconf") && command.arg(1).eq_ignore_ascii_case(b"getack")
}
