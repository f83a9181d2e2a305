//! Causal tokens: `REDWEIR TOKEN` names all that was acknowledged up to now, `REDWEIR AFTER` makes later reads see it,
//! also through another Redweir. A token is `replid:offset`; of a cluster, `2:shard=replid:offset,…` of the shards that the client has
//! had to do with.

use std::fmt::{self, Write as _};
use std::rc::Rc;
use std::time::Duration;

use crate::core::argv::Args;
use crate::core::position::{Offset, ReplId};
use crate::net::runtime::clock;
use crate::net::runtime::limits;
use crate::proxy::local::answer::Answer;
use crate::proxy::local::wait;
use crate::proxy::session::connection::Connection;
use crate::proxy::worker::Worker;
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
            let found = after(connection, token)?;
            let timeout = std::str::from_utf8(timeout).ok().and_then(|text| text.parse().ok());
            let timeout =
                timeout.ok_or_else(|| say::error("ERR timeout is not an integer or out of range"))?;
            Ok(replicas_with(connection, &found, Duration::from_millis(timeout)).await)
        }
        [_, word, ..] => {
            Err(say::wrong_arity(&format!("redweir|{}", String::from_utf8_lossy(word).to_lowercase())))
        }
        _ => Err(say::wrong_arity("redweir")),
    }
}

/// The offset that covers every write acknowledged before now is that of the first anchor sent after now.
async fn token(connection: &Connection) -> Answer {
    if connection.worker.shared.cluster().is_none() {
        return Ok(bulk(&stand(connection, &connection.worker).await?.to_string()));
    }
    let mut text = String::from("2:");
    for (number, worker) in wait::touched(connection).iter().enumerate() {
        let stand = stand(connection, worker).await?;
        let comma = if number == 0 { "" } else { "," };
        let _ = write!(text, "{comma}{}={stand}", worker.shard);
    }
    Ok(bulk(&text))
}

fn bulk(text: &str) -> Vec<u8> {
    say::maybe_bulk(Some(text.as_bytes()), false)
}

/// How far a shard is, once its primary was asked.
async fn stand(connection: &Connection, worker: &Rc<Worker>) -> Result<Stand, Vec<u8>> {
    let shared = &worker.shared;
    let (anchor, begun) = (shared.shard().anchors.next(), clock::now());
    loop {
        let changed = worker.changed.notified();
        let view = shared.shard().view.load_full();
        if let (Some(head), Some(history)) = (wait::covered(&view, anchor), view.history) {
            return Ok(Stand { id: history.id, offset: head });
        }
        let patience = view.hold.checked_sub(clock::now().since(begun));
        let Some(patience) = patience.filter(|patience| !patience.is_zero()) else {
            return Err(connection.masterdown());
        };
        shared.shard().anchor_wanted.notify_one();
        let _ = tokio::time::timeout(patience, changed).await;
    }
}

/// An offset of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stand {
    id: ReplId,
    offset: Offset,
}

impl fmt::Display for Stand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.id, self.offset.bytes())
    }
}

/// Has later reads see what a token names. Returns where what was named is.
fn after(connection: &Connection, token: &[u8]) -> Result<Vec<(Rc<Worker>, Offset)>, Vec<u8>> {
    let named = parse(token).ok_or_else(|| {
        say::error(
            "ERR not a token: expected replid:offset, or 2:shard=replid:offset,… of a cluster, as REDWEIR TOKEN tells it",
        )
    })?;
    let workers = match connection.worker.shared.cluster() {
        Some(cluster) => cluster.live().iter().filter_map(|shard| connection.worker.peer(*shard)).collect(),
        None => vec![Rc::clone(&connection.worker)],
    };
    let mut found = Vec::new();
    for Stand { id, offset } in named {
        // Another Redweir may count its shards in another order: the history tells which it is.
        let covers = |worker: &&Rc<Worker>| {
            let history = worker.shared.shard().view.load().history;
            history.is_some_and(|history| history.covers(id, offset))
        };
        match workers.iter().find(covers) {
            Some(worker) => found.push((Rc::clone(worker), offset)),
            None if workers.len() > 1 => {
                // It is of a shard that is no more, or has lost that: whoever has its slots by now has to have all of it.
                for worker in &workers {
                    let shard = worker.shared.shard();
                    connection
                        .client
                        .session(worker.shard)
                        .borrow_mut()
                        .seen
                        .everything(shard.anchors.next());
                }
            }
            None => return Err(of_another_history(connection, id)),
        }
    }
    for (worker, offset) in &found {
        let shard = worker.shared.shard();
        let view = shard.view.load();
        let mut session = connection.client.session(worker.shard).borrow_mut();
        // Of the history that the token is of: what was seen in another one is no concern of its offset.
        session.seen.renew((shard.fences.life(), view.era), shard.anchors.next());
        session.seen.up_to(*offset);
    }
    Ok(found)
}

fn of_another_history(connection: &Connection, id: ReplId) -> Vec<u8> {
    match connection.worker.shared.shard().view.load().history {
        None => connection.masterdown(),
        Some(ours) => say::error(&format!(
            "ERR the token is of another history ({id}) than the primary's ({})",
            ours.id
        )),
    }
}

fn parse(token: &[u8]) -> Option<Vec<Stand>> {
    let text = std::str::from_utf8(token).ok()?;
    let stand = |text: &str| {
        let (id, offset) = text.split_once(':')?;
        Some(Stand {
            id: ReplId::parse(id.as_bytes())?,
            offset: Offset::from_reported(offset.parse().ok()?)?,
        })
    };
    match text.strip_prefix("2:") {
        None => Some(vec![stand(text)?]),
        Some(shards) => shards.split(',').map(|shard| stand(shard.split_once('=')?.1)).collect(),
    }
}

/// Waits until some replica of each shard has applied its offset, or the time is up; tells how many have, of the shard where it
/// is the fewest.
async fn replicas_with(
    connection: &Connection,
    found: &[(Rc<Worker>, Offset)],
    timeout: Duration,
) -> Vec<u8> {
    let until = clock::now().after(timeout);
    let _looking: Vec<_> = found.iter().map(|(worker, _)| worker.shared.shard().attention.wait()).collect();
    loop {
        let changed = connection.worker.changed.notified();
        let count =
            |(worker, offset): &(Rc<Worker>, Offset)| worker.shared.shard().view.load().replicas_at(*offset);
        let (least, now) = (found.iter().map(count).min().unwrap_or(0), clock::now());
        if least > 0 || now >= until || connection.client.gone().is_some() {
            return say::integer(least as i64);
        }
        // The news of other shards wakes nobody here.
        let left = until.since(now);
        let left = if found.len() > 1 { left.min(limits::RETRY_PAUSE) } else { left };
        let _ = tokio::time::timeout(left, changed).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_a_replication_id_and_an_offset() {
        let id = "a".repeat(40);
        assert_eq!(parse(format!("{id}:17").as_bytes()).unwrap().len(), 1);
        let of_shards = format!("2:0={id}:17,3={}:18", "b".repeat(40));
        let offsets: Vec<u64> =
            parse(of_shards.as_bytes()).unwrap().iter().map(|stand| stand.offset.bytes()).collect();
        assert_eq!(offsets, [17, 18]);
        for wrong in [
            "",
            ":",
            "17",
            &format!("{id}:"),
            &format!("{id}:-1"),
            &format!("{id}:x"),
            "abc:17",
            "2:",
            "2:0",
            "2:0=x:1",
        ] {
            assert!(parse(wrong.as_bytes()).is_none(), "{wrong}");
        }
    }
}
