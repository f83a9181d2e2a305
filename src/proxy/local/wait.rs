//! `WAIT`, answered from what the replicas have applied.
//!
//! Sent to a pooled connection `WAIT` would lie: its offset is that of the connection's own last write. Instead the
//! client's last acknowledged write is known by the anchor that covers it, and a replica that has applied that
//! anchor's offset holds the write. Redweir's own replication link is no replica in the view and is never counted.
//!
//! Of a cluster it is the least over the shards that the client has written to.
//!
//! Offsets of another history prove nothing: when the primary has changed since the write, whether replicas hold it is
//! not known, and the client is told so as Redis tells those who wait when it becomes a replica.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use crate::core::fence::AnchorSeq;
use crate::core::nodes::view::View;
use crate::core::position::Offset;
use crate::mutant;
use crate::net::runtime::clock;
use crate::net::runtime::limits;
use crate::proxy::local::answer::Answer;
use crate::proxy::session::connection::Connection;
use crate::proxy::worker::Worker;
use crate::shard::mailbox::Release;
use crate::wire::number;
use crate::wire::say;

/// `WAIT numreplicas timeout` (`replication.c`, `waitCommand`); a timeout of 0 waits for ever.
///
/// Cancel safe: guards take back that it waits.
pub(crate) async fn wait(connection: &Connection, args: &[Vec<u8>]) -> Answer {
    let [_, wanted, timeout] = args else { return Err(say::wrong_arity("wait")) };
    let wanted = number::integer(wanted).ok_or_else(|| say::BAD_DB.to_vec())?;
    let timeout = number::integer(timeout)
        .ok_or_else(|| say::error("ERR timeout is not an integer or out of range"))
        .and_then(|ms| u64::try_from(ms).map_err(|_| say::error("ERR timeout is negative")))?;
    let status = &connection.client.status;
    let begun = clock::now();
    let mut shards: SmallVec<[OfShard; 1]> = workers(connection).into_iter().map(OfShard::new).collect();
    let _waiting = Unblockable::begin(connection);
    let attention = shards.iter().map(|shard| Arc::clone(&shard.worker.shared)).collect::<Vec<_>>();
    let _looking: Vec<_> = attention.iter().map(|shared| shared.shard().attention.wait()).collect();
    let until = (timeout > 0).then(|| begun.after(Duration::from_millis(timeout)));
    loop {
        let worker = Rc::clone(&connection.worker);
        let changed = worker.changed.notified();
        let mut reached = usize::MAX;
        for shard in &mut shards {
            reached = reached.min(shard.reached(connection)?);
        }
        let late = until.is_some_and(|until| clock::now() >= until);
        match status.release.get() {
            Some(Release::Error) => return Err(say::UNBLOCKED.to_vec()),
            Some(Release::Timeout) => return Ok(say::integer(reached as i64)),
            None if late || reached as i64 >= wanted => return Ok(say::integer(reached as i64)),
            None => {}
        }
        // The news of other shards wakes nobody here.
        let most = if shards.len() > 1 { limits::RETRY_PAUSE } else { Duration::MAX };
        match until.map(|until| until.since(clock::now())) {
            Some(left) => {
                let _ = tokio::time::timeout(left.min(most), changed).await;
            }
            None if most < Duration::MAX => {
                let _ = tokio::time::timeout(most, changed).await;
            }
            None => changed.await,
        }
    }
}

/// The workers of the shards that the client has written to; if there are none, the present one.
fn workers(connection: &Connection) -> Vec<Rc<Worker>> {
    let written = connection.client.with_all().filter(|(_, dealings)| dealings.wrote.get().is_some());
    let mut workers: Vec<Rc<Worker>> =
        written.filter_map(|(shard, _)| connection.worker.peer(shard)).collect();
    if workers.is_empty() {
        workers.push(Rc::clone(&connection.worker));
    }
    workers
}

/// The workers of the shards that the client has had to do with.
pub(crate) fn touched(connection: &Connection) -> Vec<Rc<Worker>> {
    connection.client.with_all().filter_map(|(shard, _)| connection.worker.peer(shard)).collect()
}

/// What is waited for of one shard.
struct OfShard {
    worker: Rc<Worker>,
    target: Option<Offset>,
}

impl OfShard {
    fn new(worker: Rc<Worker>) -> Self {
        Self { worker, target: None }
    }

    /// How many of its replicas have what the client has written there.
    fn reached(&mut self, connection: &Connection) -> Result<usize, Vec<u8>> {
        let dealings = connection.client.with(self.worker.shard);
        let shard = self.worker.shared.shard();
        let view = shard.view.load();
        match dealings.wrote.get() {
            None => Ok(view.replicas_linked()),
            Some((_, era)) if era != view.era && !mutant::is("wait-across-failover") => {
                // Once said, the connection counts as one that has written nothing, as a new one to Redis would.
                dealings.wrote.set(None);
                Err(say::UNBLOCKED_ROLE.to_vec())
            }
            Some((anchor, _)) => {
                if self.target.is_none() {
                    self.target = covered(&view, anchor);
                    shard.anchor_wanted.notify_one();
                }
                Ok(self.target.map_or(0, |offset| view.replicas_at(offset)))
            }
        }
    }
}

/// While it lives, `CLIENT UNBLOCK` can release the client.
struct Unblockable<'a>(&'a Connection);

impl<'a> Unblockable<'a> {
    fn begin(connection: &'a Connection) -> Self {
        connection.client.status.release.set(None);
        connection.client.status.waits.set(true);
        Self(connection)
    }
}

impl Drop for Unblockable<'_> {
    fn drop(&mut self) {
        self.0.client.status.waits.set(false);
    }
}

/// The offset that `anchor`, or a later one, has answered.
pub(crate) fn covered(view: &View, anchor: AnchorSeq) -> Option<Offset> {
    if view.anchor >= anchor { view.head.map(|head| head.offset) } else { None }
}
