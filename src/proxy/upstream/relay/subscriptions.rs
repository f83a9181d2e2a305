//! Whether the client of a plain relay is still subscribed to anything: the server says so in its answer to each
//! `UNSUBSCRIBE` or `PUNSUBSCRIBE` (`pubsub.c`, `addReplyPubsubUnsubscribed`), and takes it back in the answer to the next
//! `SUBSCRIBE`. What subscribers say to each other is a reply of its own, and nothing in it is mistaken for that.
//!
//! Shard channels are counted apart (`SSUBSCRIBE`), and what a transaction answers is not looked into: whoever uses
//! these is not to be asked for.

use crate::wire::reply::ReplyScanner;

/// What the replies of one connection have said of its subscriptions.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    scanner: ReplyScanner,
    /// The last bytes of the reply that has come so far.
    tail: [u8; NONE_LEFT.len()],
    /// Channels and patterns.
    plain: Left,
    /// Channels of shards, which are counted apart.
    sharded: Left,
    /// What comes are no replies: nothing is known any more.
    lost: bool,
}

/// What the server has said last of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Left {
    /// Nothing.
    #[default]
    Unsaid,
    /// Some are left.
    Some,
    /// None are.
    None,
}

impl Left {
    const fn when(none: bool) -> Self {
        if none { Self::None } else { Self::Some }
    }
}

/// How the answer to the last unsubscribing command ends.
const NONE_LEFT: &[u8; 4] = b":0\r\n";

impl Subscriptions {
    /// Takes what the server has said, from the beginning of a reply on, without answers to marks.
    pub(super) fn read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.lost {
            let (used, whole) = match self.scanner.scan(bytes) {
                Ok(Some(extent)) => (extent.end, true),
                Ok(None) => (bytes.len(), false),
                Err(_) => {
                    self.lost = true;
                    return;
                }
            };
            self.keep_tail(&bytes[..used]);
            if whole {
                self.heard();
            }
            bytes = &bytes[used..];
        }
    }

    /// Whether the server has said that nothing is left, or nothing at all about subscriptions: then none has begun, if all that was
    /// asked is answered.
    pub(super) fn are_none(&self) -> bool {
        !self.lost && ![self.plain, self.sharded].contains(&Left::Some)
    }

    fn heard(&mut self) {
        let head = self.scanner.head();
        // An array in RESP2, a push in RESP3.
        let Some(about) = head.strip_prefix(b"*3\r\n").or_else(|| head.strip_prefix(b">3\r\n")) else {
            return;
        };
        let is = |word: &[u8]| about.starts_with(word);
        let left = Left::when(self.tail == *NONE_LEFT);
        match () {
            () if is(b"$11\r\nunsubscribe\r\n") || is(b"$12\r\npunsubscribe\r\n") => self.plain = left,
            () if is(b"$12\r\nsunsubscribe\r\n") => self.sharded = left,
            () if is(b"$9\r\nsubscribe\r\n") || is(b"$10\r\npsubscribe\r\n") => self.plain = Left::Some,
            () if is(b"$10\r\nssubscribe\r\n") => self.sharded = Left::Some,
            () => {}
        }
    }

    fn keep_tail(&mut self, bytes: &[u8]) {
        if let Some(last) = bytes.last_chunk() {
            self.tail = *last;
        } else {
            self.tail.rotate_left(bytes.len());
            let from = self.tail.len() - bytes.len();
            self.tail[from..].copy_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(replies: &[&[u8]]) -> bool {
        let all = replies.concat();
        let known: Vec<bool> = [all.len().max(1), 1, 2, 3, 7]
            .into_iter()
            .map(|size| {
                let mut subscriptions = Subscriptions::default();
                all.chunks(size).for_each(|chunk| subscriptions.read(chunk));
                subscriptions.are_none()
            })
            .collect();
        assert!(known.iter().all(|none| *none == known[0]), "{known:?}: {}", all.escape_ascii());
        known[0]
    }

    const SUBSCRIBED: &[u8] = b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n";
    const LEFT: &[u8] = b"*3\r\n$11\r\nunsubscribe\r\n$1\r\nc\r\n:0\r\n";

    #[test]
    fn the_server_says_when_nothing_is_left() {
        assert!(after(&[]) && after(&[b"-NOPERM no\r\n"]), "none has begun");
        assert!(!after(&[SUBSCRIBED]));
        assert!(after(&[SUBSCRIBED, LEFT]));
        assert!(after(&[SUBSCRIBED, LEFT, b"$1\r\nA\r\n", b"-ERR no\r\n"]));
        assert!(!after(&[SUBSCRIBED, LEFT, SUBSCRIBED]));
        assert!(!after(&[b"*3\r\n$11\r\nunsubscribe\r\n$1\r\nc\r\n:10\r\n"]));
        assert!(after(&[b"*3\r\n$12\r\npunsubscribe\r\n$-1\r\n:0\r\n"]));
        // Shard channels are counted apart.
        let sharded = b"*3\r\n$10\r\nssubscribe\r\n$1\r\nc\r\n:1\r\n";
        let none = b"*3\r\n$12\r\nsunsubscribe\r\n$1\r\nc\r\n:0\r\n";
        assert!(!after(&[SUBSCRIBED, sharded, LEFT]) && !after(&[SUBSCRIBED, sharded, none]));
        assert!(after(&[SUBSCRIBED, sharded, none, LEFT]) && after(&[sharded, none]));
        assert!(after(&[
            b">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n>3\r\n$11\r\nunsubscribe\r\n$1\r\nc\r\n:0\r\n"
        ]));
        assert!(!after(&[LEFT, b"*3\r\n$10\r\npsubscribe\r\n$1\r\n*\r\n:1\r\n"]));
    }

    #[test]
    fn no_message_is_taken_for_it() {
        let message = [&b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$35\r\n"[..], LEFT, b"\r\n"].concat();
        assert!(!after(&[SUBSCRIBED, &message]));
        let channel = b"*3\r\n$7\r\nmessage\r\n$22\r\n*3\r\n$11\r\nunsubscribe\r\n\r\n$4\r\n:0\r\n\r\n";
        assert!(!after(&[SUBSCRIBED, channel]));
        assert!(!after(&[SUBSCRIBED, b"*1\r\n*3\r\n$11\r\nunsubscribe\r\n$1\r\nc\r\n:0\r\n"]));
    }

    #[test]
    fn of_what_are_no_replies_nothing_is_known() {
        assert!(!after(&[LEFT, b"bytes"]));
        assert!(!after(&[LEFT, b"bytes", LEFT]));
    }
}
