//! The sole writer of the view: takes in observations, publishes snapshots.

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::control::primaries::Primaries;
use crate::control::prober::Heard;
use crate::core::moment::Moment;
use crate::core::nodes::view::{Effect, Tracker, View};
use crate::core::stream::lost::{Ended, Loss};
use crate::mutant;
use crate::net::runtime::clock;
use crate::net::runtime::task;
use crate::shard::shared::Shared;

/// Observations that may wait to be taken in.
pub const QUEUE: usize = 1024;

/// How often it is looked at how far the replication stream has got, at most. While reads wait there are hundreds of anchors a
/// second.
const MEASURE_EVERY: Duration = Duration::from_millis(20);

/// Applies observations until all probers are gone.
pub async fn keep(shared: Arc<Shared>, mut tracker: Tracker, mut heard: mpsc::Receiver<Heard>) {
    let mut primaries = Primaries::default();
    let mut author = None;
    // Some history was known before.
    let mut known = false;
    let mut measured = Moment::default();
    while let Some(first) = heard.recv().await {
        let mut next = Some(first);
        while let Some((observation, at)) = next {
            let (era, history, head) = (tracker.view().era, tracker.view().history, tracker.view().head);
            let Ok(effect) = panic::catch_unwind(AssertUnwindSafe(|| {
                task::provoke("keeper", provoked_once);
                tracker.apply(observation, at)
            })) else {
                // What it has left half done is not to be relied on: all is learnt anew.
                tracker.forget(at);
                shared.shard().fences.enter(tracker.view().era);
                shared.shard().fences.restart(|| shared.shard().anchors.next());
                shared.shard().floors.restart();
                next = heard.try_recv().ok();
                continue;
            };
            if let Some(cluster) = shared.cluster().filter(|_| tracker.is_name_wanted(at)) {
                cluster.look();
            }
            let restarted = effect == Effect::HistoryRestarted;
            let number = || shared.shard().anchors.next();
            let voided = shared.shard().fences.turn(era, tracker.view().era, restarted, number);
            if restarted {
                shared.shard().floors.restart();
            }
            if restarted && known {
                tracing::info!("another history begins: every fence starts anew");
            }
            known |= tracker.view().history.is_some();
            if let Some(history) = history.filter(|_| restarted) {
                if is_renamed(author.as_ref(), tracker.view()) {
                    tracing::info!(
                        "it is the same primary: it has taken another replication ID, and lost nothing"
                    );
                } else {
                    let ended = Ended { previous: history.id, head: head.map(|head| head.offset), voided };
                    lost_everything(&shared, &ended, tracker.view());
                    primaries.ends(ended);
                }
            }
            if tracker.view().history.map(|history| history.id) != history.map(|history| history.id) {
                author = process_of(tracker.view());
            }
            next = heard.try_recv().ok();
        }
        let now = clock::now();
        if now.since(measured) >= MEASURE_EVERY && tracker.view().head != shared.shard().view.load().head {
            // By the anchors it is measured.
            measured = now;
            let stream = &shared.shard().stream;
            tracker.hear_stream(stream.source().map(|source| (source, stream.offset())), now);
        }
        publish(&shared, tracker.view());
        primaries.look(tracker.view(), &shared.shard().primary_changes, clock::now());
    }
}

/// The process that is the primary.
fn process_of(view: &View) -> Option<String> {
    Some(view.node(view.primary?)?.process()?.to_owned())
}

/// Whether it is the process that the history before was of, under an ID of its own making: without a backlog it takes another one
/// when somebody begins to follow it (`replication.c`, `syncCommand`). One that took over somebody else's data meanwhile has a
/// second ID.
fn is_renamed(author: Option<&String>, view: &View) -> bool {
    let alone = view.history.is_some_and(|history| history.previous.is_none());
    alone && author.is_some() && process_of(view).as_ref() == author && !mutant::is("renamed-is-lost")
}

/// The primary has nothing of what was there before: it was restarted empty, or is another one.
fn lost_everything(shared: &Shared, ended: &Ended, view: &View) {
    let Ended { previous, head, .. } = *ended;
    let id = view.history.map(|history| history.id);
    shared.shard().history_restarts.add(1);
    shared.shard().losses.add(Loss::Everything { previous, head, id }, clock::now());
}

/// Once, after a while.
fn provoked_once() -> bool {
    static LEFT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(40);
    LEFT.fetch_sub(1, std::sync::atomic::Ordering::Relaxed) == 1
}

fn publish(shared: &Shared, view: &View) {
    let before = shared.shard().view.load();
    if **before == *view {
        return;
    }
    if before.rights != view.rights {
        tell_of_rights(view);
    }
    shared.shard().view.store(Arc::new(view.clone()));
    shared.shard().views.send_modify(|version| *version += 1);
}

/// Says which users read at the primary only, and what would change that.
fn tell_of_rights(view: &View) {
    let rights = &view.rights;
    if rights.are_hidden() {
        return tracing::warn!(
            "the primary does not show its access rules: all reads go to it; allow our own user +acl|list, or set \
             replica-acl = \"trust\""
        );
    }
    let mut same = true;
    // Of a replica that has said nothing yet there is nothing to tell.
    for node in view.members().filter(|node| node.rules.is_some()) {
        let users: Vec<_> =
            rights.barred_from(node.id).take(USERS_LOGGED).map(String::from_utf8_lossy).collect();
        if !users.is_empty() {
            same = false;
            tracing::warn!(
                "replica {} does not have the access rules of the primary: {} do not read there",
                node.name(),
                users.join(", ").escape_debug()
            );
        }
    }
    if same {
        tracing::info!("every user of the primary may read at every replica");
    }
}

/// Users whose rules differ that one line of the log names.
const USERS_LOGGED: usize = 8;
