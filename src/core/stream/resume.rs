//! Where a replication link begins: after what was already read if the source still has it, otherwise at the
//! source's present offset. Either way the source goes on without a dump, as long as it has a backlog: a gap is
//! known and fenced over, a dump costs the source a fork.

use std::time::Duration;

use crate::core::moment::Moment;
use crate::core::position::{History, Offset, ReplId};

/// What a source says of its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Its history.
    pub history: History,
    /// The offset of the last byte that it can give (`master_repl_offset`; on a replica, what it has relayed).
    pub head: Offset,
    /// The offset of the first byte in its backlog; `None` without a backlog, when every attach is a full resync.
    pub backlog_from: Option<Offset>,
}

/// How far the stream has been read: every command up to this offset was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// The history.
    pub id: ReplId,
    /// The offset.
    pub offset: Offset,
}

/// What to ask a source for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// The history to name in `PSYNC`.
    pub id: ReplId,
    /// The link begins with the byte after this one.
    pub at: Offset,
    /// Commands that end here or before are known already. Never before `at`.
    pub known_to: Offset,
    /// Whether no command is missing between what was read before and this link.
    pub resumed: bool,
    /// Whether the source can only answer with a full resync.
    pub needs_dump: bool,
}

impl Start {
    /// What to ask for, given what the source offers and what was read before.
    pub fn plan(offer: &Offer, reached: Option<Reached>) -> Self {
        let anew = Self {
            id: offer.history.id,
            at: offer.head,
            known_to: offer.head,
            resumed: false,
            needs_dump: offer.backlog_from.is_none(),
        };
        let (Some(first), Some(reached)) = (offer.backlog_from, reached) else { return anew };
        if !offer.history.covers(reached.id, reached.offset) || reached.offset.advanced(1) < first {
            return anew;
        }
        if reached.offset > offer.head {
            // A replica that is behind the source we had: it will repeat what we know.
            return Self { known_to: reached.offset, resumed: true, ..anew };
        }
        Self {
            id: reached.id,
            at: reached.offset,
            known_to: reached.offset,
            resumed: true,
            needs_dump: false,
        }
    }

    /// Whether a command that ends at `end` has not been told yet.
    pub fn is_new(&self, end: Offset) -> bool {
        debug_assert!(self.known_to >= self.at, "what comes before the link is known");
        end > self.known_to
    }
}

/// Keeps full resyncs rare. They happen without a backlog, and when more was written between our question and our
/// `PSYNC` than the backlog holds; a source where that happened once is likely to do it again.
#[derive(Clone, Copy, Debug)]
pub struct Breaker {
    every: Duration,
    last: Option<Moment>,
    surprised: bool,
}

impl Breaker {
    /// At most one full resync per `every`.
    pub const fn new(every: Duration) -> Self {
        Self { every, last: None, surprised: false }
    }

    /// Whether to go on with an attach that needs a dump, or does not as far as one knows.
    pub fn permits(&self, needs_dump: bool, now: Moment) -> bool {
        let long_ago = self.last.is_none_or(|last| now.since(last) >= self.every);
        long_ago || !(needs_dump || self.surprised)
    }

    /// A full resync began, expected or not.
    pub fn resynced(&mut self, expected: bool, now: Moment) {
        self.last = Some(now);
        self.surprised = !expected;
    }

    /// A partial resync was granted.
    pub fn continued(&mut self) {
        self.surprised = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(c: u8) -> ReplId {
        ReplId::parse(&[c; 40]).unwrap()
    }

    fn offer(from: Option<u64>, head: u64) -> Offer {
        let history = History { id: id(b'b'), previous: Some((id(b'a'), Offset::new(501))) };
        Offer { history, head: Offset::new(head), backlog_from: from.map(Offset::new) }
    }

    fn plan(offer: &Offer, reached: Option<(u8, u64)>) -> (u8, u64, u64, bool) {
        let reached = reached.map(|(c, at)| Reached { id: id(c), offset: Offset::new(at) });
        let start = Start::plan(offer, reached);
        (start.id.as_str().as_bytes()[0], start.at.bytes(), start.known_to.bytes(), start.resumed)
    }

    #[test]
    fn a_link_goes_on_where_the_last_one_ended_if_the_backlog_reaches_back() {
        let offer = offer(Some(101), 1000);
        assert_eq!(plan(&offer, None), (b'b', 1000, 1000, false));
        assert_eq!(plan(&offer, Some((b'b', 700))), (b'b', 700, 700, true));
        assert_eq!(plan(&offer, Some((b'b', 1000))), (b'b', 1000, 1000, true));
        assert_eq!(plan(&offer, Some((b'b', 100))), (b'b', 100, 100, true), "the byte after it is there");
        assert_eq!(plan(&offer, Some((b'b', 99))), (b'b', 1000, 1000, false));
    }

    #[test]
    fn after_a_promotion_the_old_history_goes_on_up_to_its_end() {
        let offer = offer(Some(101), 1000);
        assert_eq!(plan(&offer, Some((b'a', 500))), (b'a', 500, 500, true));
        assert_eq!(plan(&offer, Some((b'a', 501))), (b'b', 1000, 1000, false), "written, and lost with it");
        assert_eq!(plan(&offer, Some((b'c', 500))), (b'b', 1000, 1000, false));
    }

    #[test]
    fn a_source_that_is_behind_repeats_what_is_known() {
        let start =
            Start::plan(&offer(Some(101), 1000), Some(Reached { id: id(b'b'), offset: Offset::new(1200) }));
        assert_eq!((start.at, start.resumed), (Offset::new(1000), true));
        assert!(!start.is_new(Offset::new(1200)));
        assert!(start.is_new(Offset::new(1201)));
    }

    #[test]
    fn without_a_backlog_there_is_a_dump() {
        let reached = Some(Reached { id: id(b'b'), offset: Offset::new(1000) });
        let start = Start::plan(&offer(None, 1000), reached);
        assert!(start.needs_dump && !start.resumed);
        assert!(!Start::plan(&offer(Some(1), 1000), reached).needs_dump);
    }

    #[test]
    fn full_resyncs_are_rationed() {
        let at = Moment::from_millis;
        let mut breaker = Breaker::new(Duration::from_mins(1));
        assert!(breaker.permits(true, at(0)), "there has never been one");
        breaker.resynced(true, at(1000));
        assert!(!breaker.permits(true, at(60_999)));
        assert!(breaker.permits(false, at(1001)), "a partial resync is cheap");
        assert!(breaker.permits(true, at(61_000)));
        breaker.resynced(false, at(61_000));
        assert!(!breaker.permits(false, at(62_000)), "it was not expected: it may come again");
        assert!(breaker.permits(false, at(121_000)));
        breaker.continued();
        assert!(breaker.permits(false, at(62_000)));
    }
}
