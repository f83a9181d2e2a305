//! `redweir demo`: a real primary, two real replicas and Redweir, and a workload that shows where reads go.
//!
//! The second replica is linked through a relay that can delay the replication stream, so that it really falls behind.
//! What is printed is what the servers themselves counted (`INFO commandstats`), not what Redweir believes.

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
use crate::core::address::Address;
use crate::net::runtime::task;
use crate::net::socket::handed::Handed;
use relay::DelayRelay;
use servers::{Redis, free_port};
use workload::Tally;

/// How far the second replica falls behind in the middle of the demo.
const DELAY: Duration = Duration::from_millis(1500);

/// Runs the demo; it ends after `seconds`, or goes on until Ctrl-C when that is `None`.
pub fn run(seconds: Option<u64>) -> anyhow::Result<()> {
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
        "redweir   127.0.0.1:{listen} (policy: fenced, max-lag 1s), admin http://127.0.0.1:{admin}/view\n"
    ));

    let tally = Arc::new(Tally::default());
    let stage = Stage { nodes: [&primary, &near, &far], relay: &relay, tally: &tally, listen };
    proxy.runtime.block_on(async {
        for writer in 0..2 {
            task::spawn("writer", workload::write(local(listen), Arc::clone(&tally), writer));
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
    let syncs = primary.info_number("sync_full")?;
    let (reads, stale) = (tally.reads.load(Ordering::Relaxed), tally.stale.load(Ordering::Relaxed));
    say(&format!(
        "\n{reads} reads, {stale} of them stale. Full resyncs that Redweir's own replication link cost the primary: {}.",
        syncs.saturating_sub(syncs_before)
    ));
    proxy.stop();
    anyhow::ensure!(stale == 0, "{stale} stale reads");
    Ok(())
}

/// What the demo plays with.
struct Stage<'a> {
    nodes: [&'a Redis; 3],
    relay: &'a DelayRelay,
    tally: &'a Tally,
    listen: u16,
}

impl Stage<'_> {
    /// Plays all acts.
    ///
    /// Cancel safe: it only prints, and sets the delay of a relay that ends with the demo.
    async fn play(&self, seconds: Option<u64>) -> anyhow::Result<()> {
        let third = seconds.unwrap_or(18).max(6) / 3;
        self.act("Everything is in sync: reads are spread over both replicas.", third).await?;
        self.relay.delay(DELAY);
        let text = format!("Replica-2 now gets the stream {DELAY:?} late, above max-lag: it is left out.");
        self.act(&text, third).await?;
        self.relay.delay(Duration::ZERO);
        self.act("The delay is gone: replica-2 catches up and serves again.", third).await?;
        if seconds.is_none() {
            let listen = self.listen;
            say(&format!("\nIt stays up until Ctrl-C. Try:  redis-cli -p {listen} redweir view"));
            say(&format!("                               redis-cli -p {listen} redweir explain get key:1"));
            self.act("", u64::MAX).await?;
        }
        Ok(())
    }

    /// Prints one line per second: what every node was asked, and what Redweir holds of it.
    async fn act(&self, title: &str, seconds: u64) -> anyhow::Result<()> {
        if !title.is_empty() {
            say(&format!("\n{title}"));
            say(
                "   writes/s   reads/s: primary  replica-1  replica-2   behind: replica-1  replica-2   stale reads",
            );
        }
        let mut before = self.counts().await?;
        for _ in 0..seconds {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let now = self.counts().await?;
            let gets: Vec<u64> = now.gets.iter().zip(before.gets).map(|(n, b)| n.saturating_sub(b)).collect();
            if !title.is_empty() {
                say(&format!(
                    "{:>11} {:>17} {:>10} {:>10} {:>15} B {:>8} B {:>13}",
                    now.sets.saturating_sub(before.sets),
                    gets[0],
                    gets[1],
                    gets[2],
                    now.offsets[0].saturating_sub(now.offsets[1]),
                    now.offsets[0].saturating_sub(now.offsets[2]),
                    self.tally.stale.load(Ordering::Relaxed),
                ));
            }
            before = now;
        }
        Ok(())
    }

    async fn counts(&self) -> anyhow::Result<DemoCounts> {
        let mut counts = DemoCounts::default();
        for (index, node) in self.nodes.iter().enumerate() {
            let info = node.info_async("everything").await?;
            counts.gets[index] = servers::calls(&info, "get");
            counts.offsets[index] = servers::number(&info, "slave_repl_offset:")
                .or_else(|| servers::number(&info, "master_repl_offset:"))
                .context("a server tells no offset")?;
            counts.sets = if index == 0 { servers::calls(&info, "set") } else { counts.sets };
        }
        Ok(counts)
    }
}

#[derive(Default)]
struct DemoCounts {
    sets: u64,
    gets: [u64; 3],
    offsets: [u64; 3],
}

fn local(port: u16) -> Address {
    Address::Tcp { host: "127.0.0.1".to_owned(), port }
}

/// Prints a line for the person who runs the demo.
fn say(text: &str) {
    // A closed pipe (`redweir demo | head`) is no reason to leave servers behind.
    let _ = writeln!(std::io::stdout(), "{text}");
}
