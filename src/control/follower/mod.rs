//! The follower: reads the replication stream of one node, as a replica would, and tells a sink every command with
//! the exact offset at which it ends.
//!
//! It is a guest. It stores nothing, so it acknowledges offset 0 and never counts toward `WAIT`; it announces no
//! port, so that nobody promotes it; it asks for the present offset rather than for a dump; and it reads as fast as
//! the source writes: the sink is called in passing and may not wait for anything.
//!
//! Who the source is, is decided elsewhere (`core::source`) and told through a channel. The follower goes on where
//! it ended whenever the source allows it, also at another node and after a promotion; when it cannot, the sink
//! hears that there is a gap.

mod detached;
mod link;

use std::fmt;
use std::pin::pin;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

pub use self::detached::Detached;
use crate::core::address::{Address, Login};
use crate::core::nodes::node::NodeId;
use crate::core::position::{Offset, ReplId};
use crate::core::stream::resume::{Breaker, Reached};
use crate::net::runtime::clock;
use crate::net::runtime::jitter;
use crate::net::socket::dial::Dialer;
use crate::wire::stream::StreamCommand;

/// First pause after a failure; it doubles with each up to [`RETRY_LONGEST`].
const RETRY_FIRST: Duration = Duration::from_millis(50);
/// The longest pause. A link that lasted this long makes the next pause the first again.
const RETRY_LONGEST: Duration = Duration::from_secs(5);

/// A link to a source that is not wanted any longer is still read for so long: what has arrived is not lost with it.
const LEAVES_WITHIN: Duration = Duration::from_millis(10);

/// Who hears the stream. Calls come from one task, in the order of the stream, and must be quick: while one lasts,
/// the source's output buffer fills.
pub trait StreamSink: Send {
    /// A link to `source` stands, in history `id`: every command that ends after `from` will be told. `resumed`:
    /// so was every command between the last [`StreamSink::progressed`] and `from`, whatever history it was in.
    /// Otherwise what lies before `from` is unknown.
    fn attached(&mut self, source: NodeId, id: ReplId, from: Offset, resumed: bool);

    /// A command, and the offset after its last byte. Each is told once, unless an [`StreamSink::attached`] that did
    /// not resume lies between.
    fn command(&mut self, command: &StreamCommand<'_>, end: Offset);

    /// Every command that ends at `upto` or before has been told.
    fn progressed(&mut self, upto: Offset);

    /// The link to `source` is gone, or could not be made.
    fn detached(&mut self, source: NodeId, why: &Detached);
}

/// The node to read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Which node.
    pub node: NodeId,
    /// Where it is.
    pub address: Address,
}

/// Limits in time.
#[derive(Clone, Copy, Debug)]
pub struct FollowerLimits {
    /// To connect, and for each answer of the handshake.
    pub connect: Duration,
    /// A link that says nothing for so long is dead. A source speaks every `repl-ping-replica-period`, 10 s.
    pub silence: Duration,
    /// At most one dump per so long: each costs the source a fork.
    pub full_resync_every: Duration,
}

impl FollowerLimits {
    /// The limits for a server with its usual configuration.
    pub const DEFAULT: Self = Self {
        connect: Duration::from_secs(1),
        silence: Duration::from_secs(30),
        full_resync_every: Duration::from_mins(5),
    };
}

/// Reads the stream. See the module.
#[derive(Debug)]
pub struct Follower<S> {
    wanted: watch::Receiver<Option<Source>>,
    reader: Following<S>,
}

/// What outlives a link.
#[derive(Debug)]
struct Following<S> {
    sink: S,
    dialer: Dialer,
    credentials: Option<Login>,
    access: Option<Access>,
    limits: FollowerLimits,
    /// How far the stream was read; `None` when nothing can be resumed.
    reached: Option<Reached>,
    breaker: Breaker,
}

/// Tells what to log in with, and within what time.
struct Access(Box<dyn Fn() -> (Option<Login>, Duration) + Send + Sync>);

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Access")
    }
}

impl<S: StreamSink> Follower<S> {
    /// A follower of the node that `wanted` names, if any.
    pub fn new(
        wanted: watch::Receiver<Option<Source>>,
        credentials: Option<Login>,
        limits: FollowerLimits,
        sink: S,
    ) -> Self {
        let breaker = Breaker::new(limits.full_resync_every);
        Self {
            wanted,
            reader: Following {
                sink,
                dialer: Dialer::default(),
                credentials,
                access: None,
                limits,
                reached: None,
                breaker,
            },
        }
    }

    /// Nodes are reached in this way.
    #[must_use]
    pub fn through(mut self, dialer: Dialer) -> Self {
        self.reader.dialer = dialer;
        self
    }

    /// It asks here, each time that it connects, what to log in with, and how long that and each answer of the handshake may
    /// take.
    #[must_use]
    pub fn by(mut self, access: impl Fn() -> (Option<Login>, Duration) + Send + Sync + 'static) -> Self {
        self.reader.access = Some(Access(Box::new(access)));
        self
    }

    /// Runs until the sender of `wanted` is gone. Dropping it closes the link; the sink then hears no more.
    pub async fn run(self) {
        let Self { mut wanted, mut reader } = self;
        let mut pause = RETRY_FIRST;
        let mut last_kind = "";
        loop {
            let Some(source) = wanted.borrow_and_update().clone() else {
                if wanted.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let began = clock::now();
            let why = {
                let mut follow = pin!(reader.follow(&source));
                tokio::select! {
                    () = leaves(&mut wanted, &source) => {
                        // A primary that was replaced has told its last writes, or does so in a moment: they are what is
                        // lost.
                        let _ = timeout(LEAVES_WITHIN, follow).await;
                        Detached::Moved
                    }
                    why = &mut follow => why,
                }
            };
            reader.sink.detached(source.node, &why);
            if clock::now().since(began) >= RETRY_LONGEST {
                (pause, last_kind) = (RETRY_FIRST, "");
            }
            if why.kind() == last_kind || matches!(why, Detached::Moved) {
                tracing::debug!(source = %source.address, %why, "no replication stream");
            } else {
                tracing::info!("left the replication stream of {}: {why}", source.address);
            }
            last_kind = why.kind();
            if !matches!(why, Detached::Moved) {
                tokio::select! {
                    () = leaves(&mut wanted, &source) => {}
                    () = sleep(jitter::around(pause)) => {}
                }
                pause = (pause * 2).min(RETRY_LONGEST);
            }
            if wanted.has_changed().is_err() {
                return;
            }
        }
    }
}

/// Until another source than `source` is wanted, or nobody can want one any more.
///
/// Cancel safe: it is one `wait_for` of a `watch` channel, which compares the value again with each call.
async fn leaves(wanted: &mut watch::Receiver<Option<Source>>, source: &Source) {
    // An error says that the sender is gone: `run` looks.
    let _ = wanted.wait_for(|wanted| wanted.as_ref() != Some(source)).await;
}
