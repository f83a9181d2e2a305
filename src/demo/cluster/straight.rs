//! What clients get that know the cluster and read straight at its replicas, as they do without Redweir.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis_protocol::resp2::types::BytesFrame;

use crate::demo::servers::Redis;
use crate::net::runtime::jitter;
use crate::net::socket::call::ControlLink;

/// What was read so.
#[derive(Debug, Default)]
pub(super) struct Straight {
    pub(super) reads: AtomicU64,
    /// Replies that there is no such key, though it was never deleted.
    pub(super) nils: AtomicU64,
}

impl Straight {
    /// Reads these keys in random order at the first replica, and where that says `MOVED` at the second.
    pub(super) async fn read(&self, replicas: [&Redis; 2], keys: &[String]) -> anyhow::Result<Infallible> {
        let mut links = [replicas[0].link().await?, replicas[1].link().await?];
        for link in &mut links {
            link.call(&[b"READONLY"], WITHIN).await?;
        }
        loop {
            let some = || &keys[(jitter::seeds()[0] % keys.len() as u64) as usize];
            let mut keys: Vec<&String> = (0..BATCH).map(|_| some()).collect();
            for link in &mut links {
                let values = values(link, &keys).await?;
                let found = values.iter().filter(|value| !matches!(value, BytesFrame::Error(_)));
                self.reads.fetch_add(found.count() as u64, Ordering::Relaxed);
                let nils = values.iter().filter(|value| **value == BytesFrame::Null);
                self.nils.fetch_add(nils.count() as u64, Ordering::Relaxed);
                let moved = keys.iter().zip(&values);
                keys =
                    moved.filter(|(_, v)| matches!(v, BytesFrame::Error(_))).map(|(key, _)| *key).collect();
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// What a replica that was told `READONLY` has under these keys. It does not count as a `GET`, which only Redweir sends.
pub(super) async fn values(link: &mut ControlLink, keys: &[&String]) -> anyhow::Result<Vec<BytesFrame>> {
    let commands: Vec<[&[u8]; 2]> = keys.iter().map(|key| [&b"MGET"[..], key.as_bytes()]).collect();
    let commands: Vec<&[&[u8]]> = commands.iter().map(|command| &command[..]).collect();
    let mut values = Vec::with_capacity(keys.len());
    for some in commands.chunks(AT_ONCE) {
        for answer in link.call_many(some, WITHIN).await? {
            values.push(match answer {
                BytesFrame::Array(mut one) if one.len() == 1 => one.remove(0),
                other => other,
            });
        }
    }
    Ok(values)
}

/// Keys that are read together.
const BATCH: usize = 2;
const PAUSE: Duration = Duration::from_millis(1);

const AT_ONCE: usize = 1000;
const WITHIN: Duration = Duration::from_secs(5);
