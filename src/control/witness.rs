//! Hearing from a replica itself that it has emptied its data.
//!
//! A replica that is pointed at a node which is behind it resyncs in full and goes back, while its clients' connections
//! live on; loading a small data set takes less than a millisecond, so that no poll and no `-LOADING` need ever tell.
//! But whoever empties its data tells every client that tracks keys (`tracking.c`, `trackingInvalidateKeysOnFlush`). So
//! Redweir tracks a prefix that no key has (`CLIENT TRACKING ON BCAST PREFIX …`, from Redis 6.0 on):
//!
//! - on every shared RESP3 connection to a replica, where the message stands in front of whatever was computed from the
//!   data that came after: no reply of such a connection is ever taken for more than it is;
//! - on one connection of its own to each replica, for the connections in RESP2, on which nothing can be pushed. Before a
//!   worker hands on what it has read there, it looks whether anything has come on that one ([`EmptiedWatch::news`]).
//!
//! The server writes to its clients one after the other, once per turn of its event loop, and first to the one that became
//! ready last: a reply may leave it before the message, in the very turn in which it went back. But who points a replica at
//! another node does so turns before that one's data comes, and unblocks everybody who waits for something (`-UNBLOCKED`).
//! So the same connection also waits, for an entry of a stream that nobody writes, and what ends the wait is taken for the
//! message itself: nothing is in doubt for longer than until the replica says that its link is up, which it does not before
//! it has loaded. What is left open is a replica whose own upstream goes back, without a command to itself;
//! `docs/guarantees.md` tells of it.
//!
//! A resync from the same primary empties the data as well, and so does `FLUSHALL`: nobody went back then, and the replica
//! is believed again as soon as it has said what it holds.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, ready};
use std::time::Duration;

use redis_protocol::resp2::types::BytesFrame;
use tokio::io::{AsyncRead as _, AsyncWriteExt as _, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::control::prober::Heard;
use crate::core::address::Address;
use crate::core::moment::Moment;
use crate::core::nodes::node::{Node, NodeId, Role};
use crate::core::nodes::view::Observation;
use crate::mutant;
use crate::net::runtime::clock;
use crate::net::runtime::jitter;
use crate::net::socket::call::encode;
use crate::net::socket::call::words;
use crate::net::socket::call::{ControlError, ControlLink};
use crate::net::socket::dial::ByteStream;
use crate::shard::emptied::{Busy, EmptiedWatch, TRACK, WAIT, tells, tells_of_another};
use crate::shard::shared::Shared;
use crate::shard::withheld::Wanted;
use crate::wire::info::Info;
use crate::wire::reply::{ErrorCode, ReplyKind, ReplyScanner};

/// Pauses between attempts: from the first, doubling up to the second.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LONGEST: Duration = Duration::from_secs(5);

/// A node that refuses is asked again after so long: its rules may have changed.
const REFUSED_PAUSE: Duration = Duration::from_secs(30);

/// A node that cannot let anybody wait now, because it loads or has lost its primary, is asked again after so long.
const WAIT_AGAIN: Duration = Duration::from_millis(100);

/// Answers to what is asked before the wait: `HELLO` and `CLIENT TRACKING`.
const BEFORE_WAIT: usize = 2;

/// The longest message, in bytes. Those that matter are short.
const MOST_BYTES: usize = 64 << 10;

/// Hears what one node says of its data.
#[derive(Debug)]
pub struct Witness {
    shared: Arc<Shared>,
    node: NodeId,
    address: Address,
    keeper: mpsc::Sender<Heard>,
    /// It was listened to before.
    known: AtomicBool,
}

impl Witness {
    /// A witness of `node` that reports to `keeper`.
    pub fn new(shared: Arc<Shared>, node: NodeId, address: Address, keeper: mpsc::Sender<Heard>) -> Self {
        Self { shared, node, address, keeper, known: AtomicBool::new(false) }
    }

    /// Runs until the keeper is gone.
    pub async fn run(self) {
        let mut pause = RETRY_FIRST;
        // Nobody listens yet.
        self.watch().lost.store(true, Ordering::SeqCst);
        while !self.keeper.is_closed() {
            self.until_it_is_a_replica().await;
            let problem = self.listen(&mut pause).await;
            let wait = if let ControlError::Refused(text) | ControlError::Auth(text) = &problem
                && !passes(text)
            {
                if self.shared.shard().withheld.note(self.node, Wanted::Tracking, true) {
                    let (name, without) = (Wanted::Tracking.name(), Wanted::Tracking.without());
                    tracing::warn!("{} refuses {name} ({text}): {without}", self.address);
                }
                REFUSED_PAUSE
            } else {
                pause
            };
            if wait == REFUSED_PAUSE {
                // Nobody knows what it has done meanwhile, and nobody will.
                if self.known.swap(false, Ordering::SeqCst) {
                    self.watch().emptied.fetch_add(1, Ordering::SeqCst);
                    self.tell(clock::now()).await;
                }
                self.watch().lost.store(false, Ordering::SeqCst);
            }
            tokio::time::sleep(jitter::around(wait)).await;
            pause = (pause * 2).min(RETRY_LONGEST);
        }
    }

    fn is_replica(&self) -> bool {
        let view = self.shared.shard().view.load();
        view.primary != Some(self.node)
            && view.node(self.node).is_some_and(|node| node.role == Some(Role::Replica))
    }

    /// The primary is not watched: nothing is behind it, and it would look at the prefix with every write.
    async fn until_it_is_a_replica(&self) {
        let mut views = self.shared.shard().views.subscribe();
        while !self.is_replica() && !self.keeper.is_closed() {
            if views.changed().await.is_err() {
                return;
            }
        }
    }

    /// Listens on one connection until it fails, or until the node is no replica any longer.
    async fn listen(&self, pause: &mut Duration) -> ControlError {
        match self.connect().await {
            Ok((socket, said)) => {
                *pause = RETRY_FIRST;
                let _listening = Listening::to(self.watch(), &*socket);
                self.hear(socket, said).await
            }
            Err(problem) => problem,
        }
    }

    fn watch(&self) -> &EmptiedWatch {
        // One for each place.
        &self.shared.shard().emptied[self.node.index()]
    }

    /// Whether this is not the process that is known by the address of the node: there may be several behind it, and what
    /// the others do with their data is nothing to us.
    fn is_elsewhere(&self, process: Option<&str>) -> bool {
        let view = self.shared.shard().view.load();
        let known = view.node(self.node).and_then(Node::process);
        known.zip(process).is_some_and(|(known, process)| known != process) && !mutant::is("any-process")
    }

    /// A connection, and what it has said so far.
    async fn connect(&self) -> Result<(Box<dyn ByteStream>, Said), ControlError> {
        let (config, dialer) = (self.shared.config(), &self.shared.dialer);
        let (credentials, within) = (config.upstream.credentials(), config.upstream.connect_timeout);
        drop(config);
        let mut link = ControlLink::connect(dialer, &self.address, credentials.as_ref(), within).await?;
        let process = match link.call(&[b"INFO", b"server"], within).await {
            Ok(BytesFrame::BulkString(text)) => Info::parse(&text).run_id,
            Err(problem) if problem.is_fatal() => return Err(problem),
            Ok(_) | Err(_) => None,
        };
        if self.is_elsewhere(process.as_deref()) {
            return Err(ControlError::Closed);
        }
        let (mut socket, early) = link.into_parts();
        let mut question = Vec::new();
        encode(&[b"HELLO", b"3"], &mut question);
        encode(&TRACK, &mut question);
        // Who is deaf hears neither the message nor what comes before it.
        if !mutant::is("waits-for-nothing") && !mutant::is("deaf-to-witness") {
            encode(&WAIT, &mut question);
        }
        // So few bytes always find room in the socket of a new connection.
        socket.write_all(&question).await.map_err(|_| ControlError::Closed)?;
        socket.flush().await.map_err(|_| ControlError::Closed)?;
        Ok((socket, Said { process, inbound: early.to_vec(), ..Said::default() }))
    }

    /// Reads what the node says, which is little: whatever comes is looked at by the workers as if it were the message. So
    /// nothing is asked for to see whether the node lives; keep-alive probes do that. Errors in reply to what was asked end it.
    async fn hear(&self, mut socket: Box<dyn ByteStream>, mut said: Said) -> ControlError {
        let mut views = self.shared.shard().views.subscribe();
        let (mut chunk, watch, mut again) = ([0; 4096], self.watch(), None);
        loop {
            let busy;
            // Cancel safe: see `read_busily`; a `watch` channel, and a timer that is set anew.
            tokio::select! {
                (read, now_busy) = read_busily(&mut socket, &mut chunk, &watch.busy) => match read {
                    Ok(count @ 1..) => {
                        busy = now_busy;
                        said.inbound.extend_from_slice(&chunk[..count]);
                    }
                    _ => return ControlError::Closed,
                },
                changed = views.changed() => {
                    if changed.is_err() || !self.is_replica() || self.is_elsewhere(said.process.as_deref()) {
                        return ControlError::Closed;
                    }
                    continue;
                }
                () = until(again) => {
                    again = None;
                    let mut question = Vec::new();
                    encode(&WAIT, &mut question);
                    // The socket has room for so little, or is gone.
                    if socket.write_all(&question).await.is_err() || socket.flush().await.is_err() {
                        return ControlError::Closed;
                    }
                    continue;
                }
            }
            let (heard, mut emptied) = (clock::now(), false);
            let end = loop {
                match said.next() {
                    Ok(None) => break None,
                    Ok(Some(Word::Ready)) => {
                        self.shared.shard().withheld.note(self.node, Wanted::Tracking, false);
                        let known = self.known.swap(true, Ordering::SeqCst);
                        if watch.lost.load(Ordering::SeqCst) {
                            // Nobody knows what it has done meanwhile, unless nothing of it was believed yet.
                            if known {
                                watch.emptied.fetch_add(1, Ordering::SeqCst);
                                emptied = true;
                            }
                            watch.lost.store(false, Ordering::SeqCst);
                        }
                    }
                    Ok(Some(Word::Emptied)) => {
                        watch.emptied.fetch_add(1, Ordering::SeqCst);
                        emptied = true;
                    }
                    Ok(Some(Word::Moves)) => {
                        watch.emptied.fetch_add(1, Ordering::SeqCst);
                        emptied = true;
                        break Some(ControlError::Closed);
                    }
                    Ok(Some(Word::NoWait(why))) => again = self.wait_again(&why),
                    Ok(Some(Word::Nothing)) => {}
                    Err(problem) => break Some(problem),
                }
            };
            drop(busy);
            if emptied {
                self.tell(heard).await;
            }
            if let Some(problem) = end {
                return problem;
            }
        }
    }

    /// When to ask a node again that has not let anybody wait. `None`: its rules are against it, and it is heard without.
    fn wait_again(&self, error: &[u8]) -> Option<Instant> {
        if matches!(ErrorCode::of(error), Some(ErrorCode::NoPerm | ErrorCode::Err)) {
            let problem = String::from_utf8_lossy(error);
            tracing::info!(
                "replica {} does not let anybody wait by XREAD ({}): RESP2 connections may see one turn of its event loop in which \
                 it goes back",
                self.address,
                words(problem.trim_end())
            );
            return None;
        }
        Some(Instant::now() + jitter::around(WAIT_AGAIN))
    }

    async fn tell(&self, heard: Moment) {
        // A closed channel means that the process ends; `run` looks.
        let _ = self.keeper.send((Observation::Emptied { node: self.node }, heard)).await;
        self.shared.shard().attention.look_now();
    }
}

/// What the node has said.
#[derive(Default)]
struct Said {
    /// Its run ID.
    process: Option<String>,
    inbound: Vec<u8>,
    scanner: ReplyScanner,
    /// How much of it the scanner has seen: the beginning of a reply.
    scanned: usize,
    /// How many answers have come.
    answered: usize,
}

/// One thing that it says.
enum Word {
    /// It is listened to from now on.
    Ready,
    /// All its data is gone.
    Emptied,
    /// It was pointed at another node.
    Moves,
    /// It lets nobody wait, in its own words, or somebody has written the stream.
    NoWait(Vec<u8>),
    Nothing,
}

impl Said {
    fn next(&mut self) -> Result<Option<Word>, ControlError> {
        let fresh = self.inbound.get(self.scanned..).unwrap_or_default();
        let extent = match self.scanner.scan(fresh) {
            Ok(Some(extent)) => extent,
            Ok(None) if self.inbound.len() > MOST_BYTES => {
                return Err(ControlError::Malformed("too long".to_owned()));
            }
            Ok(None) => {
                self.scanned = self.inbound.len();
                return Ok(None);
            }
            Err(error) => return Err(ControlError::Malformed(format!("{error:?}"))),
        };
        let reply: Vec<u8> = self.inbound.drain(..self.scanned + extent.end).collect();
        self.scanned = 0;
        Ok(Some(match extent.kind {
            ReplyKind::Push if tells(&reply) => Word::Emptied,
            ReplyKind::Push => Word::Nothing,
            ReplyKind::Error if tells_of_another(&reply) => Word::Moves,
            ReplyKind::Error if self.answered < BEFORE_WAIT => {
                let text = String::from_utf8_lossy(&reply);
                return Err(ControlError::Refused(words(text.trim_start_matches('-').trim_end())));
            }
            ReplyKind::Error => Word::NoWait(reply),
            ReplyKind::Value => {
                self.answered += 1;
                match self.answered {
                    BEFORE_WAIT => Word::Ready,
                    ..BEFORE_WAIT => Word::Nothing,
                    _ => Word::NoWait(reply),
                }
            }
        }))
    }
}

/// The workers look at a connection for as long as this lives.
struct Listening<'a>(&'a EmptiedWatch);

impl<'a> Listening<'a> {
    fn to(watch: &'a EmptiedWatch, socket: &dyn ByteStream) -> Self {
        watch.socket.store(socket.tap().ok().map(Arc::new));
        Self(watch)
    }
}

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        self.0.lost.store(true, Ordering::SeqCst);
        self.0.socket.store(None);
    }
}

/// Whether a refusal is about how the node is at the moment, and not about what it allows.
fn passes(error: &str) -> bool {
    matches!(
        ErrorCode::of_text(error.as_bytes()),
        ErrorCode::Busy | ErrorCode::Loading | ErrorCode::MasterDown
    ) || error.starts_with("ERR max number of clients")
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Reads once; busy from before the first byte leaves the socket.
///
/// Cancel safe: it takes bytes only in the poll that returns them, and while it is pending nobody is busy.
async fn read_busily<'a>(
    socket: &mut Box<dyn ByteStream>,
    chunk: &mut [u8],
    busy: &'a AtomicBool,
) -> (io::Result<usize>, Busy<'a>) {
    poll_fn(|cx| {
        let busy = Busy::new(busy);
        let mut buffer = ReadBuf::new(chunk);
        let read = ready!(Pin::new(&mut *socket).poll_read(cx, &mut buffer));
        Poll::Ready((read.map(|()| buffer.filled().len()), busy))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_a_wait_tells_of_another_node() {
        assert!(tells_of_another(
            b"-UNBLOCKED force unblock from blocking operation, instance state changed\r\n"
        ));
        assert!(!tells_of_another(b"-MASTERDOWN Link with MASTER is down\r\n"));
    }

    #[test]
    fn only_a_message_about_everything_tells() {
        assert!(tells(b">2\r\n$10\r\ninvalidate\r\n_\r\n"));
        assert!(!tells(b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"));
        assert!(!tells(b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n"));
    }
}
