//! `max-memory`: what clients hold in all, and who goes first.
//!
//! What waits for clients that take nothing is counted as it comes, and looked at often; what they have sent in part, and
//! what is collected for those that do take it, is bounded for each of them, and looked at less often. At nine tenths of the
//! limit the client that holds the most is disconnected, as by Redis' `maxmemory-clients` (`evict.c`, `evictClients`), and the
//! next one, until a tenth more is free.

use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use tokio::task::spawn_blocking;

use crate::mutant;
use crate::net::runtime::heap;
use crate::net::runtime::sparing::Sparing;
use crate::shard::mailbox::Report;
use crate::shard::shared::Shared;

/// How often what waits for slow clients is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Every so many looks everything is.
const ALL_EVERY: u32 = 10;

/// Watches for as long as the process runs.
pub async fn watch(shared: Arc<Shared>) {
    let sparing = Sparing::new();
    for look in 0_u32.. {
        tokio::time::sleep(LOOK_EVERY).await;
        let limit = shared.config().proxy.max_memory;
        let high = limit / 10 * 9;
        if limit == 0
            || mutant::is("nobody-goes")
            || (shared.replies.held() as u64) < high && look % ALL_EVERY != 0
        {
            continue;
        }
        let reports = shared.mailboxes.reports().await;
        let goes = who_goes(&reports, limit);
        for (id, bytes) in &goes {
            if let Some(left_out) = sparing.may_tell() {
                let peer = shared.clients.get(id).map_or_else(String::new, |entry| entry.peer.clone());
                tracing::warn!(
                    left_out,
                    "client {id} ({peer}) was disconnected: clients hold nine tenths of max-memory, and it held the most, {bytes} \
                     bytes of replies that it did not take and commands that were not complete"
                );
            }
        }
        if !goes.is_empty() {
            let gone = shared.mailboxes.kill(goes.into_iter().map(|(id, _)| id).collect()).await;
            counter!("redweir_clients_over_memory_total").increment(gone.len() as u64);
        }
    }
}

/// How often it is looked how large the process is.
const SIZED_EVERY: Duration = Duration::from_secs(5);

/// How seldom, as long as giving back makes it no smaller, or it grows again at once.
const SIZED_AT_LEAST_EVERY: Duration = Duration::from_secs(40);

/// By how much, in bytes, it may be larger than it was at its smallest without anything being given back.
const GROWN_BY: u64 = 16 << 20;

/// Gives back what a spike has needed, for as long as the process runs. Each time the next look is later: in the middle of a spike
/// there is nothing to give back, and what is in use all the time would only be fetched again.
pub async fn give_back() {
    let (mut least, mut pause) = (heap::resident().unwrap_or_default(), SIZED_EVERY);
    loop {
        tokio::time::sleep(pause).await;
        // Not on the thread that asks the nodes how they are.
        let looked = spawn_blocking(move || {
            let before = heap::resident()?;
            if before < least.saturating_add(GROWN_BY) {
                return Some((before, false));
            }
            heap::give_back();
            heap::resident().map(|after| (after, true))
        });
        let Some((resident, gave)) = looked.await.ok().flatten() else { continue };
        least = least.min(resident);
        pause = if gave { (pause * 2).min(SIZED_AT_LEAST_EVERY) } else { SIZED_EVERY };
    }
}

/// Who has to go, with what each holds, the most first.
fn who_goes(reports: &[Report], limit: u64) -> Vec<(u64, usize)> {
    let held = |report: &Report| report.output + report.input.0 + report.input.1;
    let mut total: u64 = reports.iter().map(|report| held(report) as u64).sum();
    if total < limit / 10 * 9 {
        return Vec::new();
    }
    let mut all: Vec<(u64, usize)> = reports.iter().map(|report| (report.id, held(report))).collect();
    all.sort_unstable_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    let goes = all.into_iter().take_while(|(_, bytes)| {
        let over = total > limit / 10 * 8;
        total -= *bytes as u64;
        over
    });
    goes.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_go_first_and_no_more_than_is_needed() {
        let report = |id, output| Report { id, output, ..Report::default() };
        let reports = [report(1, 100), report(2, 600), report(3, 150), report(4, 60)];
        assert_eq!(who_goes(&reports, 1000), [(2, 600)]);
        assert_eq!(who_goes(&reports, 400), [(2, 600)]);
        assert_eq!(who_goes(&reports, 350), [(2, 600), (3, 150)]);
        assert_eq!(who_goes(&reports, 1100), []);
    }
}
