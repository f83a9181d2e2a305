//! The cluster of the demo: three primaries that share the slots, and a replica of each.

use std::net::TcpListener;
use std::ops::Range;
use std::time::Duration;

use anyhow::{Context as _, bail};
use redis_protocol::resp2::types::BytesFrame;

use crate::core::slots::HASH_SLOTS;
use crate::demo::servers::{DemoFolder, Redis, free_port};
use crate::net::runtime::clock;

/// Fewer could not elect a successor of one that dies.
pub(super) const SHARDS: usize = 3;

/// For so long a node may be silent until others call it dead (`cluster-node-timeout`).
pub(super) const NODE_TIMEOUT: Duration = Duration::from_secs(2);

/// The nodes; they end with this value.
#[derive(Debug)]
pub(super) struct Nodes {
    /// By the number of their shard.
    primaries: Vec<Redis>,
    replicas: Vec<Redis>,
}

impl Nodes {
    /// Starts all of them, which know nothing of each other yet.
    pub(super) fn spawn(home: &DemoFolder) -> anyhow::Result<Self> {
        let all = |role: &str| -> anyhow::Result<Vec<Redis>> {
            (1..=SHARDS).map(|n| spawn(home, &format!("{role}-{n}"))).collect()
        };
        Ok(Self { primaries: all("primary")?, replicas: all("replica")? })
    }

    /// The one that is the primary of this shard at the start.
    pub(super) fn primary(&self, shard: usize) -> &Redis {
        &self.primaries[shard]
    }

    /// The one that is its replica at the start.
    pub(super) fn replica(&self, shard: usize) -> &Redis {
        &self.replicas[shard]
    }

    /// Makes a cluster of them, and waits until all of it serves.
    pub(super) async fn form(&self) -> anyhow::Result<()> {
        let all = || self.primaries.iter().chain(&self.replicas);
        for (n, node) in all().enumerate() {
            until("answers", node, &[b"PING"], |answer| *answer != BytesFrame::Null).await?;
            // Nodes that met with the same epoch would claim the slots of each other until they have settled who is later.
            node.call(&[b"CLUSTER", b"SET-CONFIG-EPOCH", (n + 1).to_string().as_bytes()]).await?;
        }
        for node in all().skip(1) {
            let port = node.port.to_string();
            self.primaries[0].call(&[b"CLUSTER", b"MEET", b"127.0.0.1", port.as_bytes()]).await?;
        }
        for (shard, primary) in self.primaries.iter().enumerate() {
            let slots: Vec<String> = slots(shard).map(|slot| slot.to_string()).collect();
            let add = [&b"CLUSTER"[..], b"ADDSLOTS"].into_iter();
            let command: Vec<&[u8]> = add.chain(slots.iter().map(String::as_bytes)).collect();
            primary.call(&command).await?;
        }
        for (primary, replica) in self.primaries.iter().zip(&self.replicas) {
            let id = id(primary).await?;
            // It is refused until the replica has heard of the primary.
            let command: [&[u8]; 3] = [b"CLUSTER", b"REPLICATE", id.as_bytes()];
            until("knows its primary", replica, &command, |_| true).await?;
        }
        for node in all() {
            let serves = |answer: &BytesFrame| {
                let said = text(answer);
                said.contains("cluster_state:ok") && said.contains("cluster_known_nodes:6")
            };
            until("serves", node, &[b"CLUSTER", b"INFO"], serves).await?;
        }
        for replica in &self.replicas {
            let in_sync = |answer: &BytesFrame| text(answer).contains("master_link_status:up");
            until("is in sync", replica, &[b"INFO", b"replication"], in_sync).await?;
        }
        Ok(())
    }
}

/// The slots that this shard has at the start.
pub(super) fn slots(shard: usize) -> Range<u16> {
    let first = |shard: usize| (usize::from(HASH_SLOTS) * shard / SHARDS) as u16;
    first(shard)..first(shard + 1)
}

/// How a node is called in its cluster.
pub(super) async fn id(node: &Redis) -> anyhow::Result<String> {
    Ok(text(&node.call(&[b"CLUSTER", b"MYID"]).await?))
}

/// What an answer says.
pub(super) fn text(answer: &BytesFrame) -> String {
    match answer {
        BytesFrame::BulkString(text) | BytesFrame::SimpleString(text) => {
            String::from_utf8_lossy(text).into_owned()
        }
        other => format!("{other:?}"),
    }
}

/// Asks a node again and again until it gives such an answer.
pub(super) async fn until(
    what: &str,
    node: &Redis,
    command: &[&[u8]],
    is_it: impl Fn(&BytesFrame) -> bool,
) -> anyhow::Result<()> {
    let began = clock::now();
    while clock::now().since(began) < AGREED_WITHIN {
        if node.call(command).await.is_ok_and(|answer| is_it(&answer)) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bail!("waited for {AGREED_WITHIN:?} until the node on port {} {what}", node.port)
}

const AGREED_WITHIN: Duration = Duration::from_secs(20);

fn spawn(home: &DemoFolder, name: &str) -> anyhow::Result<Redis> {
    let timeout = NODE_TIMEOUT.as_millis().to_string();
    // Without full coverage the slots of a dead primary are missing until it has a successor, and no others.
    let args = [
        ["--cluster-enabled", "yes"],
        ["--cluster-node-timeout", &timeout],
        ["--cluster-announce-ip", "127.0.0.1"],
        ["--cluster-require-full-coverage", "no"],
    ];
    let args: Vec<String> = args.concat().into_iter().map(str::to_owned).collect();
    Redis::spawn(home, name, free_pair()?, &args)
}

/// A port that was free just now, as was the one that the nodes of a cluster speak to each other on.
fn free_pair() -> anyhow::Result<u16> {
    let is_free =
        |port: &u16| port.checked_add(BUS).is_some_and(|bus| TcpListener::bind(("127.0.0.1", bus)).is_ok());
    let found = (0..100).map_while(|_| free_port().ok()).find(is_free);
    found.context("no two ports are free that are 10000 apart")
}

/// So far behind its port is that on which a node speaks to the others.
const BUS: u16 = 10_000;
