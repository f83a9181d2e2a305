//! Replies that Redweir changes on their way: a cursor names the process that it is of, and the primary's number of a client
//! is Redweir's again.

use std::rc::Rc;

use crate::core::cursor::Cursor;
use crate::proxy::downstream::replies::Client;
use crate::proxy::upstream::lane::{Lane, Process};
use crate::wire::cursor as wire;

/// Hands on the reply to a step, or its beginning, with the process in its cursor. `goes_on`: the cursor with
/// which the scan goes on elsewhere when it is through here. True when the client has much to take.
pub(crate) fn deliver_cursor(
    lane: &Lane,
    (client, seq): (&Rc<Client>, u64),
    goes_on: Option<u64>,
    reply: &[u8],
    complete: bool,
) -> bool {
    let (head, rest) = match (lane.process.get(), wire::of_reply(reply)) {
        (Process::Tagged(tag), Some((own @ 1.., rest))) => match Cursor::mark(own, tag) {
            Some(cursor) => (wire::head(cursor), &reply[rest..]),
            None => (Vec::new(), reply),
        },
        (_, Some((0, rest))) => match goes_on {
            // This shard is through, not the cluster.
            Some(cursor) => (wire::head(cursor), &reply[rest..]),
            None => (Vec::new(), reply),
        },
        _ => (Vec::new(), reply),
    };
    client.deliver(seq, &head, false);
    client.deliver(seq, rest, complete)
}

/// The reply to `CLIENT GETREDIR` or `TRACKINGINFO`, with Redweir's ID in the place of the primary's.
pub(crate) fn in_own_words(lane: &Lane, reply: &[u8]) -> Vec<u8> {
    let Some((own, theirs)) = lane.redirect.get() else { return reply.to_vec() };
    let (from, to) = (format!(":{theirs}\r\n"), format!(":{own}\r\n"));
    match memchr::memmem::find(reply, from.as_bytes()) {
        Some(at) => [&reply[..at], to.as_bytes(), &reply[at + from.len()..]].concat(),
        None => reply.to_vec(),
    }
}
