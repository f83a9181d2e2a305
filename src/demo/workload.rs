//! The demo's clients: writers that count versions up, readers that check that no read is older than what was
//! acknowledged before it was sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis_protocol::resp2::types::BytesFrame;

use crate::core::address::Address;
use crate::net::runtime::jitter;
use crate::net::socket::call::{ControlError, ControlLink};
use crate::net::socket::dial::Dialer;

/// Keys that each writer owns.
const KEYS: usize = 500;
const WRITERS: usize = 2;
const WITHIN: Duration = Duration::from_secs(5);

/// What was acknowledged, and what was read.
#[derive(Debug)]
pub(super) struct Tally {
    /// The highest acknowledged version of every key.
    acknowledged: Vec<AtomicU64>,
    pub(super) reads: AtomicU64,
    pub(super) stale: AtomicU64,
}

impl Default for Tally {
    fn default() -> Self {
        let acknowledged = (0..KEYS * WRITERS).map(|_| AtomicU64::new(0)).collect();
        Self { acknowledged, reads: AtomicU64::new(0), stale: AtomicU64::new(0) }
    }
}

/// Writes versions to the keys of one writer, about 400 a second.
pub(super) async fn write(proxy: Address, tally: Arc<Tally>, writer: usize) {
    let mut version = 0_u64;
    while let Ok(mut link) = ControlLink::connect(&Dialer::default(), &proxy, None, WITHIN).await {
        loop {
            version += 1;
            let key = writer * KEYS + (jitter::seeds()[0] % KEYS as u64) as usize;
            let (name, value) = (format!("key:{key}"), version.to_string());
            if link.call(&[b"SET", name.as_bytes(), value.as_bytes()], WITHIN).await.is_err() {
                break;
            }
            tally.acknowledged[key].fetch_max(version, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// Reads random keys, and counts reads that are older than what had been acknowledged before.
pub(super) async fn read(proxy: Address, tally: Arc<Tally>) {
    while let Ok(mut link) = ControlLink::connect(&Dialer::default(), &proxy, None, WITHIN).await {
        while read_one(&mut link, &tally).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

async fn read_one(link: &mut ControlLink, tally: &Tally) -> Result<(), ControlError> {
    let key = (jitter::seeds()[0] % tally.acknowledged.len() as u64) as usize;
    let at_least = tally.acknowledged[key].load(Ordering::SeqCst);
    let found = match link.call(&[b"GET", format!("key:{key}").as_bytes()], WITHIN).await? {
        BytesFrame::BulkString(text) => {
            std::str::from_utf8(&text).ok().and_then(|t| t.parse().ok()).unwrap_or(0)
        }
        _ => 0_u64,
    };
    tally.reads.fetch_add(1, Ordering::Relaxed);
    if found < at_least {
        tally.stale.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}
