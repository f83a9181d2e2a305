//! `redweir demo`: a real primary, two real replicas and Redweir, and a workload that shows where reads go.
//!
//! The second replica is linked through a relay that can delay the replication stream, so that it really falls behind.
//! What is printed is what the servers themselves counted (`INFO commandstats`), not what Redweir believes. With a
//! failover the primary is killed in the middle, and what that costs is told. With a cluster the servers are one
//! ([`cluster`]).

pub mod cluster;
mod failover;
mod relay;
mod servers;
mod workload;

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::app::Proxy;
use crate::config::{Config, Flags};
use crate::net::runtime::task;
use crate::net::socket::handed::Handed;
use relay::DelayRelay;
use servers::{Redis, free_port, local};
use workload::Tally;

/// How far the second replica falls behind in the middle of the demo.
const DELAY: Duration = Duration::from_millis(1500);

const WRITERS: usize = 2;
/// Keys that each writer owns.
const KEYS: usize = 500;

/// Runs the demo, with a failover or without one; it ends after `seconds`, or goes on until Ctrl-C when that is `None`.
pub fn run(seconds: Option<u64>, failover: bool) -> anyhow::Result<()> {
    let home = servers::DemoFolder::create()?;
    let primary = Redis::start(&home, "primary", &[])?;
    let relay_port = free_port()?;
    let follow = |port: u16| ["--replicaof".to_owned(), "127.0.0.1".to_owned(), port.to_string()];
    let near = Redis::start(&home, "replica-1", &follow(primary.port))?;
    let (listen, admin) = (free_port()?, free_port()?);
    let relay = DelayRelay::start(relay_port, primary.port)?;
    let far = Redis::start(&home, "replica-2", &follow(relay_port))?;
    say(&format!("primary   127.0.0.1:{}", primary.port));
    say(&format!("replica-1 127.0.0.1:{}", near.port));
    say(&format!("replica-2 127.0.0.1:{} (its replication link can be delayed)", far.port));
    for replica in [&near, &far] {
        replica.wait_for("master_link_status:up")?;
    }
    let replicas = vec![local(near.port), local(far.port)];
    let flags = Flags::to(vec![local(listen)], local(primary.port), replicas);
    let config = Config::from_flags(Flags { admin: Some(local(admin)), ..flags })?;
    let syncs_before = primary.info_number("sync_full")?;
    let proxy = Proxy::start(config, Handed::default())?;
    say(&format!(
        "redweir   127.0.0.1:{listen} (policy: fenced, max-lag 1s), dashboard http://127.0.0.1:{admin}/"
    ));

    let tally = Arc::new(Tally::of((0..KEYS * WRITERS).map(|key| format!("key:{key}")).collect()));
    let stage = Stage { nodes: [&primary, &near, &far], relay: &relay, tally: &tally, listen, failover };
    proxy.runtime.block_on(async {
        for writer in 0..WRITERS {
            let keys = writer * KEYS..(writer + 1) * KEYS;
            task::spawn("writer", workload::write(local(listen), Arc::clone(&tally), keys));
        }
        for _ in 0..4 {
            task::spawn("reader", workload::read(local(listen), Arc::clone(&tally)));
        }
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::select! {
            done = stage.play(seconds) => done,
            _ = interrupt.recv() => Ok(()),
            _ = terminate.recv() => Ok(()),
        }
    })?;
    let (reads, stale) = (tally.reads.load(Ordering::Relaxed), tally.stale.load(Ordering::Relaxed));
    let cost = if primary.is_killed() {
        String::new()
    } else {
        let syncs = primary.info_number("sync_full")?.saturating_sub(syncs_before);
        format!(" Full resyncs that Redweir's own replication link cost the primary: {syncs}.")
    };
    say(&format!("\n{reads} reads, {stale} of them stale.{cost}"));
    proxy.stop();
    anyhow::ensure!(stale == 0, "{stale} stale reads");
    Ok(())
}

/// What the demo plays with.
struct Stage<'a> {
    /// The first is the primary at the start.
    nodes: [&'a Redis; 3],
    relay: &'a DelayRelay,
    tally: &'a Tally,
    listen: u16,
    failover: bool,
}

impl Stage<'_> {
    /// Plays all acts.
    ///
    /// Cancel safe: it only prints, sets the delay of a relay and kills and re-points servers, all of which end with the
    /// demo.
    async fn play(&self, seconds: Option<u64>) -> anyhow::Result<()> {
        let third = seconds.unwrap_or(18).max(6) / 3;
        self.act("Everything is in sync: reads are spread over both replicas.", third, PRIMARY).await?;
        if self.failover {
            failover::play(self, third).await?;
        } else {
            self.relay.delay(DELAY);
            let text =
                format!("Replica-2 now gets the stream {DELAY:?} late, above max-lag: it is left out.");
            self.act(&text, third, PRIMARY).await?;
            self.relay.delay(Duration::ZERO);
            self.act("The delay is gone: replica-2 catches up and serves again.", third, PRIMARY).await?;
        }
        if seconds.is_none() {
            let listen = self.listen;
            say(&format!("\nIt stays up until Ctrl-C. Try:  redis-cli -p {listen} redweir view"));
            say(&format!("                               redis-cli -p {listen} redweir explain get key:1"));
            std::future::pending::<()>().await;
        }
        Ok(())
    }

    /// Prints one line per second: what every node was asked, and how far the replicas are behind the node that is the
    /// primary.
    async fn act(&self, title: &str, seconds: u64, primary: usize) -> anyhow::Result<()> {
        say(&format!("\n{title}"));
        say(
            "   writes/s   reads/s: primary  replica-1  replica-2   behind: replica-1  replica-2   stale reads",
        );
        let mut before = self.counts().await?;
        for _ in 0..seconds {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let now = self.counts().await?;
            let more = |node: usize, count: fn(&NodeCounts) -> u64| {
                Some(count(now[node].as_ref()?).saturating_sub(before[node].as_ref().map_or(0, count)))
            };
            let gets = |node| shown(more(node, |counts| counts.gets), "");
            let behind = |node: usize| {
                let ahead = now[primary].as_ref().filter(|_| node != primary)?.offset;
                Some(ahead.saturating_sub(now[node].as_ref()?.offset))
            };
            say(&format!(
                "{:>11} {:>17} {:>10} {:>10} {:>17} {:>10} {:>13}",
                shown(more(primary, |counts| counts.sets), ""),
                gets(0),
                gets(1),
                gets(2),
                shown(behind(1), " B"),
                shown(behind(2), " B"),
                self.tally.stale.load(Ordering::Relaxed),
            ));
            before = now;
        }
        Ok(())
    }

    /// What each node has counted; nothing of one that was killed.
    async fn counts(&self) -> anyhow::Result<[Option<NodeCounts>; 3]> {
        let mut counts = [None, None, None];
        for (node, counts) in self.nodes.iter().zip(&mut counts).filter(|(node, _)| !node.is_killed()) {
            let info = node.info_async("everything").await?;
            let offset = servers::number(&info, "slave_repl_offset:")
                .or_else(|| servers::number(&info, "master_repl_offset:"))
                .context("a server tells no offset")?;
            *counts = Some(NodeCounts {
                sets: servers::calls(&info, "set"),
                gets: servers::calls(&info, "get"),
                offset,
            });
        }
        Ok(counts)
    }
}

/// What a server tells of itself.
struct NodeCounts {
    sets: u64,
    gets: u64,
    offset: u64,
}

/// Which node is the primary at the start.
const PRIMARY: usize = 0;

fn shown(number: Option<u64>, unit: &str) -> String {
    number.map_or_else(|| "-".to_owned(), |number| format!("{number}{unit}"))
}

/// Prints a line for the person who runs the demo.
fn say(text: &str) {
    // A closed pipe (`redweir demo | head`) is no reason to leave servers behind.
    let _ = writeln!(std::io::stdout(), "{text}");
}
