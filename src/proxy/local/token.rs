//! Causal tokens: `REDWEIR TOKEN` names all that was acknowledged up to now, `REDWEIR AFTER` makes later reads see it,
//! also through another Redweir. A token is `replid:offset`.

use std::time::Duration;

use crate::core::argv::Args;
use crate::core::position::{Offset, ReplId};
use crate::net::runtime::clock;
use crate::proxy::local::answer::Answer;
use crate::proxy::local::wait;
use crate::proxy::session::connection::Connection;
use crate::wire::say;

/// Whether a `REDWEIR` command is one of these: they may have to wait.
pub(crate) fn is_about<A: Args + ?Sized>(args: &A) -> bool {
    args.arg(1).eq_ignore_ascii_case(b"token") || args.arg(1).eq_ignore_ascii_case(b"after")
}

/// Answers it, with nothing outstanding before it.
pub(crate) async fn answer(connection: &Connection, args: &[Vec<u8>]) -> Answer {
    match args {
        [_, word] if word.eq_ignore_ascii_case(b"token") => token(connection).await,
        [_, word, token] if word.eq_ignore_ascii_case(b"after") => {
            after(connection, token)?;
            Ok(say::OK.to_vec())
        }
        [_, word, token, timeout] if word.eq_ignore_ascii_case(b"after") => {
            let offset = after(connection, token)?;
            let timeout = std::str::from_utf8(timeout).ok().and_then(|text| text.parse().ok());
            let timeout =
                timeout.ok_or_else(|| say::error("ERR timeout is not an integer or out of range"))?;
            Ok(replicas_with(connection, offset, Duration::from_millis(timeout)).await)
        }
        [_, word, ..] => {
            Err(say::wrong_arity(&format!("redweir|{}", String::from_utf8_lossy(word).to_lowercase())))
        }
        _ => Err(say::wrong_arity("redweir")),
    }
}

/// The offset that covers every write acknowledged before now is that of the first anchor sent after now.
async fn token(connection: &Connection) -> Answer {
    let shared = &connection.worker.shared;
    let (anchor, begun) = (shared.shard().anchors.next(), clock::now());
    loop {
        let changed = connection.worker.changed.notified();
        let view = shared.shard().view.load_full();
        if let (Some(head), Some(history)) = (wait::covered(&view, anchor), view.history) {
            let text = format!("{}:{}", history.id, head.bytes());
            return Ok(say::maybe_bulk(Some(text.as_bytes()), false));
        }
        let patience = view.hold.checked_sub(clock::now().since(begun));
        let Some(patience) = patience.filter(|patience| !patience.is_zero()) else {
            return Err(connection.masterdown());
        };
        shared.shard().anchor_wanted.notify_one();
        let _ = tokio::time::timeout(patience, changed).await;
    }
}

fn after(connection: &Connection, token: &[u8]) -> Result<Offset, Vec<u8>> {
    let (id, offset) = parse(token)
        .ok_or_else(|| say::error("ERR not a token: expected replid:offset, as REDWEIR TOKEN tells it"))?;
    let view = connection.worker.shared.shard().view.load();
    let ours = view.history.ok_or_else(|| connection.masterdown())?;
    if !ours.covers(id, offset) {
        return Err(say::error(&format!(
            "ERR the token is of another history ({id}) than the primary's ({})",
            ours.id
        )));
    }
    let shard = connection.worker.shared.shard();
    let mut session = connection.client.session(connection.worker.shard).borrow_mut();
    // Of the history that the token is of: what was seen in another one is no concern of its offset.
    session.seen.renew((shard.fences.life(), view.era), shard.anchors.next());
    session.seen.up_to(offset);
    Ok(offset)
}

fn parse(token: &[u8]) -> Option<(ReplId, Offset)> {
    let (id, offset) = std::str::from_utf8(token).ok()?.split_once(':')?;
    Some((ReplId::parse(id.as_bytes())?, Offset::from_reported(offset.parse().ok()?)?))
}

/// Waits until some replica has applied `offset`, or the time is up; tells how many have.
async fn replicas_with(connection: &Connection, offset: Offset, timeout: Duration) -> Vec<u8> {
    let (shared, until) = (&connection.worker.shared, clock::now().after(timeout));
    let _looking = shared.shard().attention.wait();
    loop {
        let changed = connection.worker.changed.notified();
        let count = shared.shard().view.load().replicas_at(offset);
        let now = clock::now();
        if count > 0 || now >= until || connection.client.gone().is_some() {
            return say::integer(count as i64);
        }
        let _ = tokio::time::timeout(until.since(now), changed).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_a_replication_id_and_an_offset() {
        let id = "a".repeat(40);
        assert!(parse(format!("{id}:17").as_bytes()).is_some());
        for wrong in ["", ":", "17", &format!("{id}:"), &format!("{id}:-1"), &format!("{id}:x"), "abc:17"] {
            assert!(parse(wrong.as_bytes()).is_none(), "{wrong}");
        }
    }
}
