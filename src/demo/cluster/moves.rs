//! How slots move from one primary to another, key by key, as `redis-cli --cluster reshard` does it.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use redis_protocol::resp2::types::BytesFrame;

use super::nodes::{id, text};
use crate::core::moment::Moment;
use crate::demo::servers::Redis;
use crate::net::runtime::clock;
use crate::net::socket::call::ControlLink;

/// What moves slots.
#[derive(Debug)]
pub(super) struct Mover<'a> {
    pub(super) from: &'a Redis,
    pub(super) to: &'a Redis,
    /// Another primary, which is told as well.
    pub(super) other: &'a Redis,
    /// Keys go no faster than one each.
    pub(super) pace: Duration,
    /// How many slots have moved.
    pub(super) moved: &'a AtomicU64,
}

impl Mover<'_> {
    /// Moves these slots, one after the other; returns how many keys they had.
    pub(super) async fn run(&self, slots: Range<u16>) -> anyhow::Result<u32> {
        let (from, to) = (id(self.from).await?, id(self.to).await?);
        let (mut source, mut target) = (self.from.link().await?, self.to.link().await?);
        let mut other = self.other.link().await?;
        let (began, mut keys) = (clock::now(), 0);
        for slot in slots {
            let slot = slot.to_string();
            call(&mut target, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from]).await?;
            call(&mut source, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to]).await?;
            self.carry(&mut source, &slot, began, &mut keys).await?;
            // The new owner comes first: were it the last to know, nobody would have the slot meanwhile.
            for link in [&mut target, &mut source, &mut other] {
                call(link, &["CLUSTER", "SETSLOT", &slot, "NODE", &to]).await?;
            }
            self.moved.fetch_add(1, Ordering::Relaxed);
        }
        Ok(keys)
    }

    /// Carries the keys of a slot over, one by one. `carried` is how many there were since the move `began`.
    async fn carry(
        &self,
        source: &mut ControlLink,
        slot: &str,
        began: Moment,
        carried: &mut u32,
    ) -> anyhow::Result<()> {
        let port = self.to.port.to_string();
        loop {
            let found = call(source, &["CLUSTER", "GETKEYSINSLOT", slot, "100"]).await?;
            let BytesFrame::Array(found) = found else { anyhow::bail!("GETKEYSINSLOT answers no array") };
            if found.is_empty() {
                return Ok(());
            }
            for key in found.iter().map(text) {
                call(source, &["MIGRATE", "127.0.0.1", &port, &key, "0", "5000"]).await?;
                *carried += 1;
                let due = began.after(self.pace * *carried);
                tokio::time::sleep(due.since(clock::now())).await;
            }
        }
    }
}

async fn call(link: &mut ControlLink, command: &[&str]) -> anyhow::Result<BytesFrame> {
    let words: Vec<&[u8]> = command.iter().map(|word| word.as_bytes()).collect();
    link.call(&words, WITHIN).await.with_context(|| command.join(" "))
}

/// Longer than a `MIGRATE` may take.
const WITHIN: Duration = Duration::from_secs(10);
