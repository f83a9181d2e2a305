//! A follower on a thread of its own, and what its sink heard.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use redweir::control::follower::{Detached, Follower, FollowerLimits, Source, StreamSink};
use redweir::core::address::{Address, Login};
use redweir::core::argv::Args as _;
use redweir::core::nodes::node::NodeId;
use redweir::core::position::{Offset, ReplId};
use redweir::wire::stream::StreamCommand;
use tokio::sync::watch;

use crate::eventually;
use crate::server::Server;

/// An attach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attached {
    pub(crate) node: u32,
    pub(crate) id: ReplId,
    pub(crate) from: Offset,
    pub(crate) resumed: bool,
}

/// What the sink heard.
#[derive(Default)]
pub(crate) struct Heard {
    pub(crate) attached: Vec<Attached>,
    pub(crate) detached: Vec<&'static str>,
    pub(crate) position: Option<Offset>,
    /// How often each command came, by its upper-case name.
    pub(crate) names: HashMap<String, u64>,
    /// Second arguments of the last commands that had at least two.
    pub(crate) keys: Vec<String>,
    last_end: Option<Offset>,
    /// For how long the next command holds up the reading.
    pub(crate) stall: Duration,
}

impl Heard {
    pub(crate) fn count(&self, name: &str) -> u64 {
        self.names.get(name).copied().unwrap_or(0)
    }
}

struct Sink(Arc<Mutex<Heard>>);

impl StreamSink for Sink {
    fn attached(&mut self, source: NodeId, id: ReplId, from: Offset, resumed: bool) {
        let mut heard = self.0.lock().unwrap();
        if resumed {
            assert_eq!(heard.position, Some(from), "resumed elsewhere than where it ended");
        } else {
            (heard.position, heard.last_end) = (Some(from), Some(from));
        }
        heard.attached.push(Attached { node: source.0, id, from, resumed });
    }

    fn command(&mut self, command: &StreamCommand<'_>, end: Offset) {
        let mut heard = self.0.lock().unwrap();
        assert!(heard.last_end < Some(end), "{end} after {:?}", heard.last_end);
        heard.last_end = Some(end);
        *heard.names.entry(String::from_utf8_lossy(command.arg(0)).to_uppercase()).or_default() += 1;
        if command.count() > 1 && heard.keys.len() < 1000 {
            heard.keys.push(String::from_utf8_lossy(command.arg(1)).into_owned());
        }
        let stall = std::mem::take(&mut heard.stall);
        drop(heard);
        std::thread::sleep(stall);
    }

    fn progressed(&mut self, upto: Offset) {
        let mut heard = self.0.lock().unwrap();
        assert!(heard.position < Some(upto), "{upto} after {:?}", heard.position);
        heard.position = Some(upto);
    }

    fn detached(&mut self, _: NodeId, why: &Detached) {
        self.0.lock().unwrap().detached.push(why.kind());
    }
}

/// A running follower.
pub(crate) struct Recorder {
    wanted: Option<watch::Sender<Option<Source>>>,
    heard: Arc<Mutex<Heard>>,
    thread: Option<JoinHandle<()>>,
}

impl Recorder {
    /// A follower of node 0 at this address.
    pub(crate) fn of(address: Address) -> Self {
        Self::with(address, None, FollowerLimits::DEFAULT)
    }

    /// A follower of this server, attached.
    pub(crate) fn at(server: &Server) -> Self {
        let recorder = Self::of(server.address());
        recorder.is_attached(1);
        recorder
    }

    pub(crate) fn with(address: Address, credentials: Option<Login>, limits: FollowerLimits) -> Self {
        let (wanted, receiver) = watch::channel(Some(Source { node: NodeId(0), address }));
        let heard = Arc::new(Mutex::new(Heard::default()));
        let follower = Follower::new(receiver, credentials, limits, Sink(Arc::clone(&heard)));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(follower.run());
        });
        Self { wanted: Some(wanted), heard, thread: Some(thread) }
    }

    pub(crate) fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap()
    }

    pub(crate) fn last(&self) -> Attached {
        self.heard().attached.last().unwrap().clone()
    }

    /// Waits for the `count`th attach.
    pub(crate) fn is_attached(&self, count: usize) {
        eventually("a follower attaches", || self.heard().attached.len() >= count);
    }

    /// Waits until it has been told off for this reason.
    pub(crate) fn is_refused(&self, kind: &str) {
        eventually(kind, || self.heard().detached.contains(&kind));
    }

    /// Waits until it has read all that `server` has.
    pub(crate) fn catches_up(&self, server: &Server) {
        eventually("the follower's offset is the server's", || self.heard().position == server.info().offset);
    }

    pub(crate) fn move_to(&self, node: u32, address: Address) {
        self.wanted.as_ref().unwrap().send_replace(Some(Source { node: NodeId(node), address }));
    }

    /// Leaves the source for none, and waits until it is gone.
    pub(crate) fn leave(&self) {
        let before = self.heard().detached.len();
        self.wanted.as_ref().unwrap().send_replace(None);
        eventually("the follower leaves", || self.heard().detached.len() > before);
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.wanted = None;
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            ended.expect("the follower does not panic");
        }
    }
}
