//! `WAIT`, answered from what the replicas have applied.
//!
//! Sent to a pooled connection `WAIT` would lie: its offset is that of the connection's own last write. Instead an
//! anchor is asked for: every write of this client was acknowledged before it, so a replica that has applied its offset
//! holds them all. Redweir's own replication link is no replica in the view and is never counted.

use std::time::Duration;

use super::connection::Connection;
use super::{clock, local, say};
use crate::core::fence::AnchorSeq;
use crate::core::position::Offset;
use crate::core::view::View;

/// `WAIT numreplicas timeout` (`replication.c`, `waitCommand`); a timeout of 0 waits for ever.
pub(super) async fn wait(connection: &Connection, args: &[Vec<u8>]) -> Result<Vec<u8>, Vec<u8>> {
    let [_, wanted, timeout] = args else { return Err(say::wrong_arity("wait")) };
    let number = |text: &[u8]| std::str::from_utf8(text).ok().and_then(|t| t.parse::<i64>().ok());
    let wanted = number(wanted).ok_or_else(|| say::BAD_DB.to_vec())?;
    let timeout = number(timeout)
        .ok_or_else(|| say::error("ERR timeout is not an integer or out of range"))
        .and_then(|ms| u64::try_from(ms).map_err(|_| say::error("ERR timeout is negative")))?;
    let shared = &connection.worker.shared;
    let (begun, anchor) = (clock::now(), shared.anchors.next());
    let mut target: Option<Offset> = None;
    loop {
        let view = shared.view.load_full();
        if target.is_none() {
            target = covered(&view, anchor);
            shared.anchor_wanted.notify_one();
        }
        let reached = target.map_or(0, |offset| view.replicas_at(offset));
        let late = timeout > 0 && clock::now().since(begun) >= Duration::from_millis(timeout);
        if late || (target.is_some() && reached as i64 >= wanted) || connection.client.gone().is_some() {
            return Ok(say::integer(reached as i64));
        }
        shared.look_now.notify_waiters();
        local::breathe().await;
    }
}

/// The offset that `anchor`, or a later one, has answered.
pub(super) fn covered(view: &View, anchor: AnchorSeq) -> Option<Offset> {
    if view.anchor >= anchor { view.head.map(|head| head.offset) } else { None }
}
