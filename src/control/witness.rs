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
//!   worker hands on what it has read there, it looks whether anything has come on that one ([`EmptiedWatch::news`]). The server
//!   writes to its clients one after the other, once per turn of its event loop: so what is left open is a reply that it
//!   wrote in the very turn in which it went back, before the message. `docs/guarantees.md` tells of it.
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

use tokio::io::{AsyncRead as _, AsyncWriteExt as _, ReadBuf};
use tokio::sync::mpsc;

use crate::control::prober::Heard;
use crate::core::address::Address;
use crate::core::moment::Moment;
use crate::core::nodes::node::{NodeId, Role};
use crate::core::nodes::view::Observation;
use crate::net::runtime::clock;
use crate::net::runtime::jitter;
use crate::net::socket::call::encode;
use crate::net::socket::call::words;
use crate::net::socket::call::{ControlError, ControlLink};
use crate::net::socket::dial::ByteStream;
use crate::shard::emptied::{Busy, EmptiedWatch, TRACK, tells};
use crate::shard::shared::Shared;
use crate::wire::reply::{ReplyKind, ReplyScanner};

/// Pauses between attempts: from the first, doubling up to the second.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LONGEST: Duration = Duration::from_secs(5);

/// A node that refuses is asked again after so long: its rules may have changed.
const REFUSED_PAUSE: Duration = Duration::from_secs(30);

/// The longest message, in bytes. Those that matter are short.
const MOST_BYTES: usize = 64 << 10;

/// Hears what one node says of its data.
#[derive(Debug)]
pub struct Witness {
    shared: Arc<Shared>,
    node: NodeId,
    address: Address,
    keeper: mpsc::Sender<Heard>,
}

impl Witness {
    /// A witness of `node` that reports to `keeper`.
    pub fn new(shared: Arc<Shared>, node: NodeId, address: Address, keeper: mpsc::Sender<Heard>) -> Self {
        Self { shared, node, address, keeper }
    }

    /// Runs until the keeper is gone.
    pub async fn run(self) {
        let mut pause = RETRY_FIRST;
        let mut refused = false;
        while !self.keeper.is_closed() {
            self.until_it_is_a_replica().await;
            let problem = self.listen(&mut pause).await;
            let wait = if let ControlError::Refused(text) | ControlError::Auth(text) = &problem {
                if !std::mem::replace(&mut refused, true) {
                    tracing::warn!(
                        node = %self.address,
                        problem = %text,
                        "a replica does not let itself be watched by CLIENT TRACKING: that it goes back is noticed by polls only"
                    );
                }
                REFUSED_PAUSE
            } else {
                pause
            };
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
            Ok((socket, early)) => {
                *pause = RETRY_FIRST;
                let _listening = Listening::to(self.watch(), &*socket);
                self.hear(socket, early).await
            }
            Err(problem) => problem,
        }
    }

    fn watch(&self) -> &EmptiedWatch {
        // One for each place.
        &self.shared.shard().emptied[self.node.index()]
    }

    async fn connect(&self) -> Result<(Box<dyn ByteStream>, Vec<u8>), ControlError> {
        let (config, dialer) = (&self.shared.config.upstream, &self.shared.dialer);
        let (credentials, within) = (config.credentials(), config.connect_timeout);
        let link = ControlLink::connect(dialer, &self.address, credentials.as_ref(), within).await?;
        let (mut socket, early) = link.into_parts();
        let mut question = Vec::new();
        encode(&[b"HELLO", b"3"], &mut question);
        encode(&TRACK, &mut question);
        // So few bytes always find room in the socket of a new connection.
        socket.write_all(&question).await.map_err(|_| ControlError::Closed)?;
        socket.flush().await.map_err(|_| ControlError::Closed)?;
        Ok((socket, early.to_vec()))
    }

    /// Reads what the node says, which is little: whatever comes is looked at by the workers as if it were the message. So
    /// nothing is asked for to see whether the node lives; keep-alive probes do that. Errors in reply to what was asked end it.
    async fn hear(&self, mut socket: Box<dyn ByteStream>, mut inbound: Vec<u8>) -> ControlError {
        let (mut scanner, mut scanned) = (ReplyScanner::new(), 0);
        let mut views = self.shared.shard().views.subscribe();
        let (mut chunk, watch) = ([0; 4096], self.watch());
        loop {
            let busy;
            tokio::select! {
                (read, now_busy) = read_busily(&mut socket, &mut chunk, &watch.busy) => match read {
                    Ok(count @ 1..) => {
                        busy = now_busy;
                        inbound.extend_from_slice(&chunk[..count]);
                    }
                    _ => return ControlError::Closed,
                },
                changed = views.changed() => {
                    if changed.is_err() || !self.is_replica() {
                        return ControlError::Closed;
                    }
                    continue;
                }
            }
            let (heard, mut emptied) = (clock::now(), false);
            loop {
                let extent = match scanner.scan(&inbound[scanned..]) {
                    Ok(Some(extent)) => extent,
                    Ok(None) => break,
                    Err(error) => return ControlError::Malformed(format!("{error:?}")),
                };
                let reply: Vec<u8> = inbound.drain(..scanned + extent.end).collect();
                scanned = 0;
                match extent.kind {
                    ReplyKind::Push if tells(&reply) => {
                        watch.emptied.fetch_add(1, Ordering::SeqCst);
                        emptied = true;
                    }
                    ReplyKind::Push | ReplyKind::Value => {}
                    ReplyKind::Error => {
                        let text = String::from_utf8_lossy(&reply);
                        return ControlError::Refused(words(text.trim_start_matches('-').trim_end()));
                    }
                }
            }
            drop(busy);
            if emptied {
                self.tell(heard).await;
            }
            scanned = inbound.len();
            if inbound.len() > MOST_BYTES {
                return ControlError::Malformed("too long".to_owned());
            }
        }
    }

    async fn tell(&self, heard: Moment) {
        // A closed channel means that the process ends; `run` looks.
        let _ = self.keeper.send((Observation::Emptied { node: self.node }, heard)).await;
        self.shared.shard().attention.look_now();
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
        self.0.socket.store(None);
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
    fn only_a_message_about_everything_tells() {
        assert!(tells(b">2\r\n$10\r\ninvalidate\r\n_\r\n"));
        assert!(!tells(b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"));
        assert!(!tells(b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n"));
    }
}
