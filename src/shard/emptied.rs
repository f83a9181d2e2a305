//! What a node says by itself of its data, heard on one thread and asked for on others (`CLIENT TRACKING ON BCAST`; see
//! [`crate::core::nodes::node::Node::incarnation`]).

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::mutant;
use arc_swap::ArcSwapOption;
use socket2::Socket;

/// Asks for the message.
pub const TRACK: [&[u8]; 6] = [b"CLIENT", b"TRACKING", b"ON", b"BCAST", b"PREFIX", b"\0redweir: no key"];

/// Waits for an entry of a stream that nobody writes, and so until its own node ends the wait: whoever is pointed at another
/// node says so to everybody who waits, before it even connects to that one (`replication.c`, `replicationSetMaster`).
pub const WAIT: [&[u8]; 6] = [b"XREAD", b"BLOCK", b"0", b"STREAMS", b"redweir:nothing", b"$"];

/// Whether a push tells that all data was emptied: `invalidate`, of no key in particular.
pub fn tells(push: &[u8]) -> bool {
    push == b">2\r\n$10\r\ninvalidate\r\n_\r\n" && !mutant::is("deaf-to-witness")
}

/// Whether an error tells that the node was pointed at another: `-UNBLOCKED`, in reply to [`WAIT`].
pub fn tells_of_another(error: &[u8]) -> bool {
    error.starts_with(b"-UNBLOCKED")
}

/// What has been heard of one node, for the workers, on whatever thread.
#[derive(Debug, Default)]
pub struct EmptiedWatch {
    /// How many times it has emptied its data, or was pointed at another node.
    pub(crate) emptied: AtomicU64,
    /// Whoever listened does not any longer, and nobody does yet: it may say anything meanwhile.
    pub(crate) lost: AtomicBool,
    /// Something was read that is not counted yet.
    pub(crate) busy: AtomicBool,
    /// Where the messages come.
    pub(crate) socket: ArcSwapOption<Socket>,
}

impl EmptiedWatch {
    /// How many times the node has emptied its data, or said that it is about to; `None` when something has come that may say so once more.
    ///
    /// Nothing is missed: whoever reads the socket is busy from before it reads until it has counted, so that what is not
    /// in the socket any more, and nobody is busy with, is in the count.
    pub fn news(&self) -> Option<u64> {
        let socket = self.socket.load();
        if let Some(socket) = socket.as_deref() {
            let mut byte = [MaybeUninit::uninit()];
            // `Ok(0)`: the connection is gone, and so is what it might have told.
            if socket.peek(&mut byte).is_ok() {
                return None;
            }
        }
        let busy = self.busy.load(Ordering::SeqCst) || self.lost.load(Ordering::SeqCst);
        (!busy).then(|| self.emptied.load(Ordering::SeqCst))
    }
}

/// Says that something is being read, for as long as it lives.
pub(crate) struct Busy<'a>(&'a AtomicBool);

impl<'a> Busy<'a> {
    pub(crate) fn new(busy: &'a AtomicBool) -> Self {
        busy.store(true, Ordering::SeqCst);
        Self(busy)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}
