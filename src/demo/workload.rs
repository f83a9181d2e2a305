//! The demo's clients: writers that count versions up, readers that check that no read is older than what was
//! acknowledged before it was sent.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use redis_protocol::resp2::types::BytesFrame;

use crate::core::address::Address;
use crate::net::runtime::clock;
use crate::net::runtime::jitter;
use crate::net::socket::call::{ControlError, ControlLink};
use crate::net::socket::dial::Dialer;

/// Longer than writes are held.
const WITHIN: Duration = Duration::from_secs(30);
/// Whoever got an error waits this long before it tries again.
const AFTER_ERROR: Duration = Duration::from_millis(20);

/// The version that keys are loaded with, if they are; writers go on from it.
pub(super) const LOADED: u64 = 1;

/// What was acknowledged, and what was read.
#[derive(Debug)]
pub(super) struct Tally {
    keys: Vec<String>,
    /// The highest acknowledged version of every key.
    acknowledged: Vec<AtomicU64>,
    /// How often a failover has taken back what was acknowledged.
    losses: AtomicU64,
    pub(super) reads: AtomicU64,
    /// Reads of something older than was acknowledged before.
    pub(super) stale: AtomicU64,
    /// Those of them that found nothing.
    pub(super) nils: AtomicU64,
    /// The longest that a write took that was acknowledged, in milliseconds.
    pub(super) longest_write_ms: AtomicU64,
    /// Writes that may have been executed or not.
    pub(super) doubtful_writes: AtomicU64,
    /// Writes and reads that were refused.
    pub(super) refused: AtomicU64,
    /// How the first of them was.
    pub(super) first_refusal: OnceLock<String>,
}

impl Tally {
    /// Of these keys.
    pub(super) fn of(keys: Vec<String>) -> Self {
        let acknowledged = keys.iter().map(|_| AtomicU64::new(0)).collect();
        Self {
            keys,
            acknowledged,
            losses: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            stale: AtomicU64::new(0),
            nils: AtomicU64::new(0),
            longest_write_ms: AtomicU64::new(0),
            doubtful_writes: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            first_refusal: OnceLock::new(),
        }
    }

    /// All keys.
    pub(super) fn keys(&self) -> &[String] {
        &self.keys
    }

    /// All keys were written, with the version [`LOADED`].
    pub(super) fn loaded(&self) {
        self.acknowledged.iter().for_each(|version| version.store(LOADED, Ordering::SeqCst));
    }

    fn refuse(&self, why: &ControlError) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        self.first_refusal.get_or_init(|| why.to_string());
    }

    /// Nothing is left but these versions, one for each key, while nobody is acknowledged anything: returns the keys
    /// that have lost something acknowledged. Later reads are measured by what is left.
    pub(super) fn lose(&self, left: &[u64]) -> BTreeSet<String> {
        let before = self.acknowledged.iter().zip(left).enumerate();
        let lost = before.filter(|(_, (acknowledged, left))| acknowledged.load(Ordering::SeqCst) > **left);
        let lost = lost.map(|(key, (acknowledged, left))| {
            acknowledged.store(*left, Ordering::SeqCst);
            self.keys[key].clone()
        });
        let lost = lost.collect();
        self.losses.fetch_add(1, Ordering::SeqCst);
        lost
    }
}

/// Writes versions to these keys, which are no other writer's, about 400 a second.
pub(super) async fn write(proxy: Address, tally: Arc<Tally>, keys: Range<usize>) {
    let mut version = LOADED;
    while let Ok(mut link) = ControlLink::connect(&Dialer::default(), &proxy, None, WITHIN).await {
        loop {
            version += 1;
            let key = keys.start + (jitter::seeds()[0] % keys.len() as u64) as usize;
            let (began, value) = (clock::now(), version.to_string());
            match link.call(&[b"SET", tally.keys[key].as_bytes(), value.as_bytes()], WITHIN).await {
                Ok(_) => {}
                Err(ControlError::Refused(text)) if text.contains("may have been executed") => {
                    tally.doubtful_writes.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                Err(why) => {
                    tally.refuse(&why);
                    break;
                }
            }
            tally.acknowledged[key].fetch_max(version, Ordering::SeqCst);
            let took_ms = clock::now().since(began).as_millis() as u64;
            tally.longest_write_ms.fetch_max(took_ms, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        tokio::time::sleep(AFTER_ERROR).await;
    }
}

/// Reads random keys, and counts reads that are older than what had been acknowledged before.
pub(super) async fn read(proxy: Address, tally: Arc<Tally>) {
    while let Ok(mut link) = ControlLink::connect(&Dialer::default(), &proxy, None, WITHIN).await {
        let why = loop {
            match read_one(&mut link, &tally).await {
                Ok(()) => tokio::time::sleep(Duration::from_millis(1)).await,
                Err(why) => break why,
            }
        };
        tally.refuse(&why);
        tokio::time::sleep(AFTER_ERROR).await;
    }
}

async fn read_one(link: &mut ControlLink, tally: &Tally) -> Result<(), ControlError> {
    let key = (jitter::seeds()[0] % tally.acknowledged.len() as u64) as usize;
    let losses = tally.losses.load(Ordering::SeqCst);
    let at_least = tally.acknowledged[key].load(Ordering::SeqCst);
    let found = link.call(&[b"GET", tally.keys[key].as_bytes()], WITHIN).await?;
    tally.reads.fetch_add(1, Ordering::Relaxed);
    // What was acknowledged before a failover may be lost by it, which no read can help.
    if version(&found) < at_least && losses == tally.losses.load(Ordering::SeqCst) {
        tally.stale.fetch_add(1, Ordering::Relaxed);
        tally.nils.fetch_add(u64::from(found == BytesFrame::Null), Ordering::Relaxed);
    }
    Ok(())
}

/// The version that a value says; 0 if there is none.
pub(super) fn version(value: &BytesFrame) -> u64 {
    match value {
        BytesFrame::BulkString(text) => {
            std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
        }
        _ => 0,
    }
}
