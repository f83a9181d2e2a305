//! `WAIT`, answered from what the replicas have applied.
//!
//! Sent to a pooled connection `WAIT` would lie: its offset is that of the connection's own last write. Instead the
//! client's last acknowledged write is known by the anchor that covers it, and a replica that has applied that
//! anchor's offset holds the write. Redweir's own replication link is no replica in the view and is never counted.
//!
//! Offsets of another history prove nothing: when the primary has changed since the write, whether replicas hold it is
//! not known, and the client is told so as Redis tells those who wait when it becomes a replica.

use std::time::Duration;

use crate::core::fence::AnchorSeq;
use crate::core::nodes::view::View;
use crate::core::position::Offset;
use crate::mutant;
use crate::net::runtime::clock;
use crate::proxy::local::answer::Answer;
use crate::proxy::session::connection::Connection;
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
    let dealings = connection.client.with(connection.worker.shard);
    let (shared, begun, wrote) = (&connection.worker.shared, clock::now(), dealings.wrote.get());
    let _waiting = Unblockable::begin(connection);
    let _looking = shared.shard().attention.wait();
    let until = (timeout > 0).then(|| begun.after(Duration::from_millis(timeout)));
    let mut target: Option<Offset> = None;
    loop {
        let changed = connection.worker.changed.notified();
        let view = shared.shard().view.load_full();
        let reached = match wrote {
            None => view.replicas_linked(),
            Some((_, era)) if era != view.era && !mutant::is("wait-across-failover") => {
                // Once said, the connection counts as one that has written nothing, as a new one to Redis would.
                dealings.wrote.set(None);
                return Err(say::UNBLOCKED_ROLE.to_vec());
            }
            Some((anchor, _)) => {
                if target.is_none() {
                    target = covered(&view, anchor);
                    shared.shard().anchor_wanted.notify_one();
                }
                target.map_or(0, |offset| view.replicas_at(offset))
            }
        };
        let late = until.is_some_and(|until| clock::now() >= until);
        match status.release.get() {
            Some(Release::Error) => return Err(say::UNBLOCKED.to_vec()),
            Some(Release::Timeout) => return Ok(say::integer(reached as i64)),
            None if late || reached as i64 >= wanted => return Ok(say::integer(reached as i64)),
            None => {}
        }
        match until {
            Some(until) => {
                let _ = tokio::time::timeout(until.since(clock::now()), changed).await;
            }
            None => changed.await,
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
