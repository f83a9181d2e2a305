//! Staleness from anchors: how old a replica's data can be, in time, without a synchronised clock.
//!
//! An anchor (sent at, offset) is a `ROLE` reply of the primary: every write acknowledged before `sent at` has an
//! offset ≤ `offset`. A replica that has applied that offset therefore holds every write acknowledged before
//! `sent at`: its data is fresh *from* that moment, and at `now` at most `now − sent at` old. Nothing else is
//! assumed: a primary that stops answering, or a proxy that is stopped, gets no new anchors, and every proof ages.

use std::collections::VecDeque;
use std::time::Duration;

use crate::core::moment::Moment;
use crate::core::position::Offset;
use crate::mutant;

/// How many anchors are kept. Above it every second of the older half is forgotten, which only makes the staleness
/// of a replica that lags far behind a little pessimistic.
pub const ANCHORS_KEPT: usize = 1024;

/// Every write acknowledged before `sent_at` has an offset ≤ `offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// When the question was sent.
    pub sent_at: Moment,
    /// The head that the primary answered.
    pub offset: Offset,
}

/// How fast the primary's head moves on, in bytes per second: the fastest of the last few spans. What a burst that began
/// after the newest anchor has written is in no report: `max-lag-bytes` holds for what was written up to that anchor, and
/// beyond it for as long as the primary does not write faster than it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Growth {
    bytes_per_second: u64,
}

impl Growth {
    /// So many bytes per second.
    pub const fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second }
    }

    /// Bytes in so long a time.
    pub fn within(self, span: Duration) -> u64 {
        if mutant::is("lag-does-not-age") {
            return 0;
        }
        let bytes = u128::from(self.bytes_per_second) * span.as_nanos() / 1_000_000_000;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// How long so many bytes take; `None` for ever.
    pub fn time_for(self, bytes: u64) -> Option<Duration> {
        let nanos = (u128::from(bytes) * 1_000_000_000).checked_div(u128::from(self.bytes_per_second))?;
        Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }
}

/// How long a span is over which growth is measured, at least: about the time between two polls.
const GROWTH_SPAN: Duration = Duration::from_millis(80);

/// How many spans count.
const GROWTH_SPANS: usize = 8;

/// The anchors of one history, oldest first; offsets and moments both rise.
#[derive(Clone, Debug, Default)]
pub struct Anchors {
    kept: VecDeque<Anchor>,
    /// Where the present span began.
    span: Option<Anchor>,
    /// Bytes per second in the last spans, newest last.
    rates: VecDeque<u64>,
}

impl Anchors {
    /// Adds an anchor of the same history. Returns false, and forgets all others, when the offset went backwards:
    /// that is another history, whatever its name.
    pub fn add(&mut self, anchor: Anchor) -> bool {
        self.measure(anchor);
        let Some(newest) = self.kept.back().copied() else {
            self.kept.push_back(anchor);
            return true;
        };
        if anchor.offset < newest.offset {
            self.clear();
            self.kept.push_back(anchor);
            return false;
        }
        if anchor.sent_at <= newest.sent_at {
            return true;
        }
        if anchor.offset == newest.offset {
            // The same head later on: the later moment proves more.
            self.kept.pop_back();
        } else if self.kept.len() >= ANCHORS_KEPT {
            self.thin();
        }
        let last = self.kept.back();
        debug_assert!(last.is_none_or(|last| last.offset < anchor.offset), "offsets of anchors rise");
        debug_assert!(last.is_none_or(|last| last.sent_at < anchor.sent_at), "moments of anchors rise");
        self.kept.push_back(anchor);
        debug_assert!(self.kept.len() <= ANCHORS_KEPT, "no more anchors than are kept");
        true
    }

    /// Forgets everything: the history changed.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// How fast the head moves on.
    pub fn growth(&self) -> Growth {
        Growth::new(self.rates.iter().copied().max().unwrap_or(0))
    }

    fn measure(&mut self, anchor: Anchor) {
        let Some(begin) = self.span.filter(|begin| anchor.offset >= begin.offset) else {
            self.span = Some(anchor);
            return;
        };
        let span = anchor.sent_at.since(begin.sent_at);
        if span < GROWTH_SPAN {
            return;
        }
        let bytes = u128::from(anchor.offset.ahead_of(begin.offset));
        let rate = u64::try_from(bytes * 1_000_000_000 / span.as_nanos().max(1)).unwrap_or(u64::MAX);
        if self.rates.len() >= GROWTH_SPANS {
            self.rates.pop_front();
        }
        self.rates.push_back(rate);
        self.span = Some(anchor);
    }

    /// The newest anchor.
    pub fn newest(&self) -> Option<Anchor> {
        self.kept.back().copied()
    }

    /// From which moment on the data of a replica that has applied `applied` can be missing writes; `None` when no
    /// kept anchor is covered.
    pub fn fresh_from(&self, applied: Offset) -> Option<Moment> {
        let covered = self.kept.partition_point(|anchor| anchor.offset <= applied);
        covered.checked_sub(1).and_then(|i| self.kept.get(i)).map(|anchor| anchor.sent_at)
    }

    /// When the head passed `offset`, about; `None` if it is not known to have passed it, or that was long ago.
    pub fn passed_at(&self, offset: Offset) -> Option<Moment> {
        let next = self.kept.partition_point(|anchor| anchor.offset <= offset);
        let (before, after) = (self.kept.get(next.checked_sub(1)?)?, self.kept.get(next)?);
        if before.offset == offset {
            // All that had been written; when the next write came is not known, but by then it had.
            return Some(after.sent_at);
        }
        let (span, bytes) = (after.sent_at.nanos_since(before.sent_at), after.offset.ahead_of(before.offset));
        let nanos = u128::from(span) * u128::from(offset.ahead_of(before.offset)) / u128::from(bytes.max(1));
        Some(before.sent_at.after(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))))
    }

    fn thin(&mut self) {
        let half = self.kept.len() / 2;
        let mut index = 0;
        self.kept.retain(|_| {
            index += 1;
            index > half || index % 2 == 0
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anchor(ms: u64, offset: u64) -> Anchor {
        Anchor { sent_at: Moment::from_millis(ms), offset: Offset::new(offset) }
    }

    #[test]
    fn a_replica_is_as_fresh_as_the_newest_anchor_it_has_applied() {
        let mut anchors = Anchors::default();
        for (ms, offset) in [(100, 10), (200, 20), (300, 30)] {
            assert!(anchors.add(anchor(ms, offset)));
        }
        assert_eq!(anchors.fresh_from(Offset::new(9)), None);
        assert_eq!(anchors.fresh_from(Offset::new(10)), Some(Moment::from_millis(100)));
        assert_eq!(anchors.fresh_from(Offset::new(29)), Some(Moment::from_millis(200)));
        assert_eq!(anchors.fresh_from(Offset::new(1000)), Some(Moment::from_millis(300)));
    }

    #[test]
    fn an_idle_primary_keeps_one_anchor_that_gets_younger() {
        let mut anchors = Anchors::default();
        for ms in 0..10_000 {
            anchors.add(anchor(ms, 14));
        }
        assert_eq!(anchors.kept.len(), 1);
        assert_eq!(anchors.fresh_from(Offset::new(14)), Some(Moment::from_millis(9_999)));
    }

    #[test]
    fn the_head_is_expected_to_move_on_as_fast_as_it_lately_did_at_its_fastest() {
        let mut anchors = Anchors::default();
        assert_eq!(anchors.growth().time_for(1), None);
        for (ms, offset) in [(0, 0), (50, 9_000), (100, 10_000), (200, 10_000), (300, 60_000), (400, 60_000)]
        {
            anchors.add(anchor(ms, offset));
        }
        let growth = anchors.growth();
        assert_eq!(growth.within(Duration::from_millis(50)), 25_000, "500,000 bytes a second");
        assert_eq!(growth.time_for(25_000), Some(Duration::from_millis(50)));
        for n in 5..20 {
            anchors.add(anchor(n * 100, 60_000));
        }
        assert_eq!(anchors.growth(), Growth::default(), "long ago");
    }

    #[test]
    fn an_offset_that_goes_backwards_voids_all_proofs() {
        let mut anchors = Anchors::default();
        anchors.add(anchor(1, 500));
        assert!(!anchors.add(anchor(2, 100)));
        assert_eq!(anchors.fresh_from(Offset::new(99)), None);
        assert_eq!(anchors.newest(), Some(anchor(2, 100)));
    }

    #[test]
    fn thinning_bounds_memory_and_never_makes_a_replica_younger() {
        let (mut anchors, mut all) = (Anchors::default(), Vec::new());
        for n in 0..20_000_u64 {
            anchors.add(anchor(n, n * 7));
            all.push(anchor(n, n * 7));
        }
        assert!(anchors.kept.len() <= ANCHORS_KEPT);
        for applied in (0..140_000).step_by(997) {
            let applied = Offset::new(applied);
            let exact = all.iter().rev().find(|a| a.offset <= applied).map(|a| a.sent_at);
            assert!(anchors.fresh_from(applied) <= exact);
        }
        assert_eq!(anchors.fresh_from(Offset::new(u64::MAX)), Some(Moment::from_millis(19_999)));
    }
}
