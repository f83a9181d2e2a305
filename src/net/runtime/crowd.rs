//! A room with few places: who wants one and finds none takes that of whoever has had his for longest, once that is long.
//!
//! A limit alone would let those who say nothing keep everybody else out for as long as they are borne with.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit, oneshot};

use crate::core::moment::Moment;
use crate::mutant;
use crate::net::runtime::clock;

/// Places, and who has them.
#[derive(Debug)]
pub struct Crowd {
    places: Semaphore,
    /// What nobody may be made to leave before.
    grace: Duration,
    inside: Mutex<Inside>,
    /// How many wait for a place.
    waiting: AtomicUsize,
    /// Held by the one of them who looks at who may go.
    watcher: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Inside {
    next: u64,
    /// In the order in which they came.
    all: BTreeMap<u64, (Moment, oneshot::Sender<()>)>,
}

/// A place; given back when it is dropped.
#[derive(Debug)]
pub struct Place<'a> {
    crowd: &'a Crowd,
    number: u64,
    leaves: oneshot::Receiver<()>,
    _permit: SemaphorePermit<'a>,
}

impl Crowd {
    /// So many places, each of which one may keep for so long whoever else comes.
    pub fn new(places: usize, grace: Duration) -> Self {
        Self {
            places: Semaphore::new(places),
            grace,
            inside: Mutex::default(),
            waiting: AtomicUsize::default(),
            watcher: tokio::sync::Mutex::default(),
        }
    }

    /// Waits for a place, in the order of those who wait.
    ///
    /// Cancel safe: who no longer waits has none.
    pub async fn enter(&self) -> Place<'_> {
        let _waiting = Waiting::new(&self.waiting);
        let permit = tokio::select! {
            biased;
            permit = self.places.acquire() => match permit {
                Ok(permit) => permit,
                // It is never closed.
                Err(_) => std::future::pending().await,
            },
            never = self.watch() => match never {},
        };
        let (sender, leaves) = oneshot::channel();
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let number = inside.next;
        inside.next += 1;
        inside.all.insert(number, (clock::now(), sender));
        Place { crowd: self, number, leaves, _permit: permit }
    }

    /// Makes room for as long as somebody waits; one of them does.
    async fn watch(&self) -> Infallible {
        let _alone = self.watcher.lock().await;
        loop {
            tokio::time::sleep(self.until_one_may_go()).await;
            self.make_room();
        }
    }

    /// How long the one who came first may stay.
    fn until_one_may_go(&self) -> Duration {
        let inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let since = inside.all.first_key_value().map(|(_, (since, _))| clock::now().since(*since));
        self.grace.saturating_sub(since.unwrap_or_default()).max(SHORTEST)
    }

    /// Has those leave who have been there for long, the first ones first, and no more than wait.
    fn make_room(&self) {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock::now();
        for _ in 0..self.waiting.load(Ordering::Relaxed) {
            let Some(first) = inside.all.first_entry() else { return };
            if now.since(first.get().0) < self.grace || mutant::is("handshakes-stay") {
                return;
            }
            let _ = first.remove().1.send(());
        }
    }
}

/// Counts somebody who waits.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// No two looks at who may go are closer to each other.
const SHORTEST: Duration = Duration::from_millis(5);

impl Place<'_> {
    /// Returns once somebody else needs it.
    ///
    /// Cancel safe: it is said once, and stays said.
    pub async fn is_needed(&mut self) {
        let _ = (&mut self.leaves).await;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.crowd.inside.lock().unwrap_or_else(PoisonError::into_inner).all.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether that is so at once.
    async fn now<T>(what: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout(Duration::from_millis(1), what).await.ok()
    }

    #[tokio::test]
    async fn who_has_been_there_for_longest_goes_and_not_before_his_time() {
        let stay = Duration::from_secs(1);
        let crowd = Crowd::new(2, stay);
        let begun = clock::now();
        let mut first = crowd.enter().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let second = crowd.enter().await;
        assert!(now(crowd.enter()).await.is_none() && now(first.is_needed()).await.is_none());
        let waits = async {
            let place = crowd.enter().await;
            (place, clock::now())
        };
        let leaves = async move {
            first.is_needed().await;
            clock::now()
        };
        let ((_third, came), left) = tokio::join!(waits, leaves);
        assert!(came >= left && left.since(begun) >= stay);
        drop(second);
        assert!(now(crowd.enter()).await.is_some());
        assert_eq!(crowd.waiting.load(Ordering::Relaxed), 0);
    }
}
