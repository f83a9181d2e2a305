//! How far behind the primary replicas and the replication stream are, in time, as measured. By it waits are predicted and
//! replicas are chosen; no promise rests on it.

use std::time::Duration;

use crate::core::moment::Moment;
use crate::core::nodes::lag::Anchors;
use crate::core::position::Offset;

/// How long after the primary somebody has what was written there: a replica, or the replication stream. It is the middle
/// of the last measurements: one that a pause has made (a fork, a process that was stopped) says nothing of what follows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Delay {
    /// How far it had got, and when; until the head is known to have been further than that.
    shown: Option<(Offset, Moment)>,
    /// The last measurements, the next one takes the place of the oldest.
    last: [Duration; DELAY_SAMPLES],
    /// How many there were, ever.
    measured: usize,
}

/// The middle is that of so many measurements.
const DELAY_SAMPLES: usize = 5;

/// After so many measurements there is an estimate: one or two may be anything.
const DELAY_LEAST: usize = 4;

impl Delay {
    /// At `at` it had got as far as `applied`.
    pub fn shows(&mut self, applied: Offset, at: Moment, anchors: &Anchors) {
        self.shown = Some((applied, at));
        self.settle(anchors);
    }

    /// There may be another anchor.
    pub fn settle(&mut self, anchors: &Anchors) {
        let Some((applied, at)) = self.shown else { return };
        let Some(passed) = anchors.passed_at(applied) else { return };
        self.shown = None;
        if let Some(oldest) = self.last.get_mut(self.measured % DELAY_SAMPLES) {
            *oldest = at.since(passed);
        }
        self.measured = self.measured.saturating_add(1);
    }

    /// How long that is; `None` as long as too little was measured.
    pub fn estimate(&self) -> Option<Duration> {
        if self.measured < DELAY_LEAST {
            return None;
        }
        let mut sorted = self.last;
        let some = sorted.get_mut(..self.measured.min(DELAY_SAMPLES))?;
        some.sort_unstable();
        some.get(some.len() / 2).copied()
    }
}

/// Whether somebody with this delay is clearly fresher than somebody with that one: by more than what polls differ by.
pub fn is_clearly_fresher(one: Duration, other: Duration) -> bool {
    other > one * 3 / 2 + ALIKE_DELAY
}

/// Delays that differ by less are alike.
const ALIKE_DELAY: Duration = Duration::from_millis(4);

/// How far the replication stream was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamPace {
    /// Up to here.
    pub upto: Offset,
    /// How long after the primary; `None` as long as nothing was measured.
    pub delay: Option<Duration>,
}

/// The measurements of a whole view.
#[derive(Clone, Debug, Default)]
pub struct Delays {
    /// By the place of the node.
    nodes: Vec<Delay>,
    stream: Delay,
    /// The ID of the node that it was last read from.
    source: Option<u32>,
}

impl Delays {
    /// The replica at this place says that it has applied so much. Its delay, if that is known.
    pub fn of_node(
        &mut self,
        place: usize,
        applied: Offset,
        at: Moment,
        anchors: &Anchors,
    ) -> Option<Duration> {
        if self.nodes.len() <= place {
            self.nodes.resize_with(place + 1, Delay::default);
        }
        let delay = self.nodes.get_mut(place)?;
        delay.shows(applied, at, anchors);
        delay.estimate()
    }

    /// There is another anchor. The delay of the replica at this place, if that is known.
    pub fn settle(&mut self, place: usize, anchors: &Anchors) -> Option<Duration> {
        let delay = self.nodes.get_mut(place)?;
        delay.settle(anchors);
        delay.estimate()
    }

    /// Somebody else has that place from now on.
    pub fn forget(&mut self, place: usize) {
        if let Some(delay) = self.nodes.get_mut(place) {
            *delay = Delay::default();
        }
    }

    /// The stream of the node with this ID was read up to here.
    pub fn of_stream(&mut self, source: u32, upto: Offset, at: Moment, anchors: &Anchors) -> StreamPace {
        if self.source.replace(source) != Some(source) {
            self.stream = Delay::default();
        }
        // What it showed before comes first: that may be settled by now.
        self.stream.settle(anchors);
        self.stream.shows(upto, at, anchors);
        StreamPace { upto, delay: self.stream.estimate() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::nodes::lag::Anchor;

    fn anchor(ms: u64, offset: u64) -> Anchor {
        Anchor { sent_at: Moment::from_millis(ms), offset: Offset::new(offset) }
    }

    #[test]
    fn a_delay_is_measured_once_the_head_is_known_to_have_been_further() {
        let mut anchors = Anchors::default();
        anchors.add(anchor(100, 1000));
        let mut delay = Delay::default();
        delay.shows(Offset::new(1500), Moment::from_millis(190), &anchors);
        assert_eq!(delay.measured, 0, "nobody knows when it was written");
        anchors.add(anchor(200, 2000));
        delay.settle(&anchors);
        assert_eq!((delay.measured, delay.last[0]), (1, Duration::from_millis(40)));
        for _ in 0..3 {
            assert_eq!(delay.estimate(), None);
            delay.shows(Offset::new(1500), Moment::from_millis(190), &anchors);
        }
        assert_eq!(delay.estimate(), Some(Duration::from_millis(40)));
        // It was stopped for two seconds: that is over.
        delay.shows(Offset::new(1500), Moment::from_millis(2150), &anchors);
        assert_eq!(delay.estimate(), Some(Duration::from_millis(40)));
        // It is slower from now on.
        for _ in 0..2 {
            delay.shows(Offset::new(1500), Moment::from_millis(230), &anchors);
        }
        assert_eq!(delay.estimate(), Some(Duration::from_millis(80)));
        // It has all that there was, and the next write comes much later.
        let mut idle = Delay::default();
        idle.shows(Offset::new(2000), Moment::from_millis(250), &anchors);
        anchors.add(anchor(900, 2100));
        idle.settle(&anchors);
        assert_eq!((idle.measured, idle.last[0]), (1, Duration::ZERO));
    }

    #[test]
    fn fresher_is_who_is_so_by_more_than_polls_differ_by() {
        let ms = Duration::from_millis;
        assert!(is_clearly_fresher(ms(6), ms(20)) && is_clearly_fresher(ms(45), ms(150)));
        assert!(!is_clearly_fresher(ms(0), ms(4)) && !is_clearly_fresher(ms(45), ms(60)));
    }
}
