//! Who waits for what replicas say, and for the replication stream: they are woken, and nodes are asked more often while
//! somebody waits.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::{Notify, watch};

use crate::core::nodes::node::NodeId;

/// How many wait for what the nodes say of themselves.
#[derive(Debug)]
pub struct Attention {
    waiting: AtomicUsize,
    wanted: watch::Sender<u64>,
}

/// Somebody waits for what the nodes say, for as long as this lives.
#[derive(Debug)]
pub struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let before = self.0.fetch_sub(1, Ordering::SeqCst);
        debug_assert!(before > 0, "whoever waits is counted");
    }
}

impl Default for Attention {
    fn default() -> Self {
        Self { waiting: AtomicUsize::new(0), wanted: watch::Sender::new(0) }
    }
}

impl Attention {
    /// Has every node looked at once more, now.
    pub fn look_now(&self) {
        self.wanted.send_modify(|looks| *looks = looks.wrapping_add(1));
    }

    /// Has the nodes looked at now, and again and again while somebody waits.
    pub fn wait(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        self.look_now();
        Waiting(&self.waiting)
    }

    /// Whether anybody waits.
    pub fn is_awaited(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Tells of every [`Self::look_now`].
    pub fn looks(&self) -> watch::Receiver<u64> {
        self.wanted.subscribe()
    }
}

/// How far the replication stream was read.
#[derive(Debug, Default)]
pub struct StreamHead {
    attached: AtomicBool,
    /// Where it is being followed.
    source: Mutex<Option<NodeId>>,
    /// In bytes of its history.
    offset: AtomicU64,
    waiting: AtomicUsize,
    moved: Notify,
}

impl StreamHead {
    /// Whether it is being followed.
    pub fn is_attached(&self) -> bool {
        self.attached.load(Ordering::Relaxed)
    }

    /// Where it is being followed; `None` while it is not.
    pub fn source(&self) -> Option<NodeId> {
        *self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is followed there from now on, or no longer.
    pub fn follow(&self, source: Option<NodeId>) {
        *self.source.lock().unwrap_or_else(PoisonError::into_inner) = source;
        self.attached.store(source.is_some(), Ordering::Relaxed);
    }

    /// How far it was read, in bytes of its history.
    pub fn offset(&self) -> u64 {
        self.offset.load(Ordering::SeqCst)
    }

    /// It was read up to here, and what it says is in the fences.
    pub fn moved_to(&self, offset: u64) {
        self.offset.store(offset, Ordering::SeqCst);
        // Who begins to wait after this finds the new offset.
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.moved.notify_waiters();
        }
    }

    /// Returns when it was read further than `offset`, or elsewhere.
    ///
    /// Cancel safe: it changes nothing but the count of those who wait, which a guard takes back.
    pub async fn moves_from(&self, offset: u64) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _waiting = Waiting(&self.waiting);
        let moved = self.moved.notified();
        if self.offset() == offset {
            moved.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_waits_for_the_stream_is_woken_when_it_moves() {
        let head = StreamHead::default();
        head.moved_to(5);
        head.moves_from(4).await; // It has moved already.
        let moves = async {
            assert_eq!(head.waiting.load(Ordering::SeqCst), 1);
            head.moved_to(6);
        };
        tokio::join!(biased; head.moves_from(5), moves);
        assert_eq!(head.waiting.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn nobody_waits_any_longer_than_he_waits() {
        let attention = Attention::default();
        let looks = attention.looks();
        let waiting = attention.wait();
        assert!(attention.is_awaited() && looks.has_changed().expect("it lives"));
        drop(waiting);
        assert!(!attention.is_awaited());
    }
}
