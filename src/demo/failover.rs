//! The middle of the demo with a failover: the primary is killed, a replica that lacks its last writes is promoted, and
//! what that costs is told, by the clients and by Redweir.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use redis_protocol::resp2::types::BytesFrame;

use super::servers::local;
use super::{PRIMARY, Stage, say, workload};
use crate::core::moment::in_words;
use crate::net::runtime::clock;
use crate::net::socket::call::ControlLink;
use crate::net::socket::dial::Dialer;

/// How far the replica is behind that is promoted: below max-lag, so that it serves until then.
const LATE: Duration = Duration::from_millis(400);

/// How long it takes until somebody promotes a replica; less than `write-hold`.
const DECIDES: Duration = Duration::from_secs(1);

/// Which node is promoted.
const PROMOTED: usize = 2;

/// Keys of the loss report that are printed.
const KEYS_SHOWN: usize = 6;

const WITHIN: Duration = Duration::from_secs(5);

/// Plays three acts, two of `seconds` each. Cancel safe as [`Stage::play`].
pub(super) async fn play(stage: &Stage<'_>, seconds: u64) -> anyhow::Result<()> {
    let [primary, near, far] = stage.nodes;
    stage.relay.delay(LATE);
    stage.act(&format!("Replica-2 now gets the stream {LATE:?} late."), seconds, PRIMARY).await?;

    say(
        "\nThe primary is killed: what it has sent to replica-2 and is still on its way is gone. Writes wait.",
    );
    stage.tally.longest_write_ms.store(0, Ordering::Relaxed);
    primary.kill()?;
    let killed = clock::now();
    tokio::time::sleep(DECIDES).await;
    let keys = stage.tally.keys();
    let command: Vec<&[u8]> =
        std::iter::once(&b"MGET"[..]).chain(keys.iter().map(String::as_bytes)).collect();
    let BytesFrame::Array(left) = far.call(&command).await? else { anyhow::bail!("MGET answers no array") };
    let left: Vec<u64> = left.iter().map(workload::version).collect();
    let lost = stage.tally.lose(&left);
    far.call(&[b"REPLICAOF", b"NO", b"ONE"]).await?;
    near.call(&[b"REPLICAOF", b"127.0.0.1", far.port.to_string().as_bytes()]).await?;
    let after = in_words(clock::now().since(killed));
    let text =
        format!("Replica-2 was promoted after {after}, and replica-1 follows it. Redweir was told nothing.");
    stage.act(&text, seconds, PROMOTED).await?;
    tell(stage, &lost).await
}

/// Says how long writes waited, and what is lost.
async fn tell(stage: &Stage<'_>, lost: &BTreeSet<String>) -> anyhow::Result<()> {
    let tally = stage.tally;
    let waited = in_words(Duration::from_millis(tally.longest_write_ms.load(Ordering::Relaxed)));
    let (doubtful, refused) =
        (tally.doubtful_writes.load(Ordering::Relaxed), tally.refused.load(Ordering::Relaxed));
    say(&format!(
        "\nWrites were held for {waited}, then executed. Writes that were sent and not answered, and got an error that \
         says so: {doubtful}. Commands refused: {refused}."
    ));
    let report = losses(stage.listen).await?;
    let (title, named) = report.split_first().context("REDWEIR LOSSES answers nothing")?;
    say(&format!("\n> redis-cli -p {} redweir losses\n{title}", stage.listen));
    named.iter().take(KEYS_SHOWN).for_each(|key| say(key));
    if named.len() > KEYS_SHOWN {
        say(&format!("  … and {} more", named.len() - KEYS_SHOWN));
    }
    let named: BTreeSet<&str> = named.iter().map(|line| line.trim_start()).collect();
    let both = lost.iter().filter(|key| named.contains(key.as_str())).count();
    say(&format!(
        "\nBy the clients' own count {} keys have lost writes that were acknowledged; this report names {both} of them.",
        lost.len()
    ));
    Ok(())
}

/// What Redweir says is lost, line by line.
async fn losses(listen: u16) -> anyhow::Result<Vec<String>> {
    let mut link = ControlLink::connect(&Dialer::default(), &local(listen), None, WITHIN).await?;
    let BytesFrame::Array(lines) = link.call(&[b"REDWEIR", b"LOSSES"], WITHIN).await? else {
        anyhow::bail!("REDWEIR LOSSES answers no array")
    };
    let text = |line: BytesFrame| match line {
        BytesFrame::SimpleString(text) | BytesFrame::BulkString(text) => {
            String::from_utf8_lossy(&text).into_owned()
        }
        other => format!("{other:?}"),
    };
    Ok(lines.into_iter().map(text).collect())
}
