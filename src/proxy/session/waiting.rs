//! What the present command of a connection waits for, since when, and what had arrived with it.

use std::time::Duration;

use crate::core::demand::Barrier;
use crate::core::fence::AnchorSeq;
use crate::core::moment::Moment;
use crate::core::nodes::view::View;
use crate::net::runtime::limits;

/// When a command that could not go anywhere is tried again: with what it waits for, and at the latest at the end of its
/// patience.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// The end of its patience.
    pub until: Moment,
    /// What may let it go on.
    pub on: On,
}

/// What a command waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// Another view: an anchor, another primary.
    View,
    /// What the nodes say of themselves, which are asked more often meanwhile, and the replication stream.
    Nodes,
    /// Whether its client may come in.
    Admission,
}

/// The wait of the present command, if it waits.
#[derive(Debug)]
pub struct Waiting {
    since: Option<Moment>,
    retry: Retry,
    /// How many times bytes have arrived.
    arrivals: u64,
    /// The arrival of the last command that has waited for a primary in vain: what had arrived by then does not wait anew.
    gave_up: Option<u64>,
    /// The arrival of which a strong read has waited in vain for the primary of a cluster to say what is its own.
    unowned: Option<u64>,
    /// What strong reads wait for, the arrival that it is good for, and when that was first looked at.
    barrier: Option<(Barrier, u64, Moment)>,
}

impl Default for Waiting {
    fn default() -> Self {
        let retry = Retry { until: Moment::default(), on: On::View };
        Self { since: None, retry, arrivals: 0, gave_up: None, unowned: None, barrier: None }
    }
}

impl Waiting {
    /// Since when it waits: since now, if it does not yet.
    pub fn begin(&mut self, now: Moment) -> Moment {
        *self.since.get_or_insert(now)
    }

    /// It waits no longer. Since when it has, if it has.
    pub const fn end(&mut self) -> Option<Moment> {
        self.since.take()
    }

    /// The command is sent, or answered: the next one has not waited.
    #[inline]
    pub fn is_done(&mut self) {
        if self.since.is_some() {
            self.end();
        }
    }

    /// Its client may come in: if it has waited for that, what it waits for next is another matter.
    pub fn end_for_admission(&mut self) {
        if self.retry.on == On::Admission {
            self.end();
        }
    }

    /// Whether the command was tried before.
    pub const fn has_begun(&self) -> bool {
        self.since.is_some()
    }

    /// Whether it was tried before, for so long.
    pub fn has_lasted(&self, patience: Duration, now: Moment) -> bool {
        self.since.is_some_and(|since| now.since(since) >= patience)
    }

    /// How long it has waited for a node.
    pub fn duration(&self, now: Moment) -> Duration {
        self.since.map_or(Duration::ZERO, |since| now.since(since))
    }

    /// How long it has waited for a primary, or a command that had arrived with it.
    pub fn for_primary(&self, now: Moment) -> Duration {
        if self.gave_up == Some(self.arrivals) { Duration::MAX } else { self.duration(now) }
    }

    /// It has waited for a primary in vain.
    pub const fn give_up_on_primary(&mut self) {
        self.gave_up = Some(self.arrivals);
    }

    /// Has the command tried again, until it has waited for `patience`.
    pub fn retry_on(&mut self, on: On, patience: Duration, now: Moment) {
        // Not before: the end of its patience is looked for by whoever tries again.
        let until = self.begin(now).after(patience).max(now.after(limits::RETRY_PAUSE));
        self.retry = Retry { until, on };
    }

    /// What it is to be tried again for.
    pub const fn retry(&self) -> Retry {
        self.retry
    }

    /// Bytes have arrived.
    pub const fn arrive(&mut self) {
        self.arrivals += 1;
    }

    /// What the present command had arrived with is what `other` has counted: that of the same client at another shard.
    pub const fn arrive_as(&mut self, other: &Self) {
        self.arrivals = other.arrivals;
    }

    /// What arrives now had been sent while the command before it waited for a primary in vain.
    pub fn arrive_late(&mut self) {
        self.gave_up = self.gave_up.map(|arrival| arrival + u64::from(arrival == self.arrivals));
    }

    /// What a strong read waits for. All commands that had arrived with it share it; one that is being retried keeps it.
    pub fn barrier(&mut self, view: &View, now: Moment, next: impl FnOnce() -> AnchorSeq) -> Barrier {
        let arrivals = self.arrivals;
        let kept = self.barrier.filter(|(_, of, _)| *of == arrivals || self.since.is_some());
        let (barrier, ..) =
            self.barrier.insert(kept.unwrap_or_else(|| (Barrier::new(next()), arrivals, now)));
        barrier.settle(view);
        *barrier
    }

    /// Whether the barrier is that of what has arrived last: one that a read kept when it was tried again is none.
    pub fn has_barrier(&self) -> bool {
        self.barrier.is_some_and(|(_, arrival, _)| arrival == self.arrivals)
    }

    /// It has waited in vain for the primary of a cluster to say what is its own.
    pub const fn give_up_on_owner(&mut self) {
        self.unowned = Some(self.arrivals);
    }

    /// Whether it has, or another read that had arrived with it.
    pub fn has_given_up_on_owner(&self) -> bool {
        self.unowned == Some(self.arrivals)
    }

    /// When what a strong read waits for was first looked at: no earlier than the read had arrived.
    pub fn barrier_since(&self) -> Option<Moment> {
        self.barrier.map(|(_, _, since)| since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::nodes::view::{Patience, Tracker};
    use crate::core::policy::Policies;

    const fn at(ms: u64) -> Moment {
        Moment::from_millis(ms)
    }

    #[test]
    fn what_had_arrived_by_then_does_not_wait_for_a_primary_anew() {
        let mut waiting = Waiting::default();
        waiting.arrive();
        waiting.begin(at(0));
        assert_eq!(waiting.for_primary(at(30)), Duration::from_millis(30));
        waiting.give_up_on_primary();
        waiting.end();
        assert_eq!(waiting.for_primary(at(31)), Duration::MAX, "the next of the same arrival");
        waiting.arrive_late();
        waiting.arrive();
        assert_eq!(waiting.for_primary(at(32)), Duration::MAX, "was sent meanwhile");
        waiting.arrive();
        assert_eq!(waiting.for_primary(at(33)), Duration::ZERO);
    }

    #[test]
    fn who_may_come_in_goes_on_waiting_for_anything_else() {
        let mut waiting = Waiting::default();
        waiting.retry_on(On::Admission, Duration::from_secs(1), at(0));
        waiting.end_for_admission();
        assert!(!waiting.has_begun());
        waiting.retry_on(On::View, Duration::from_secs(1), at(10));
        // Each time that it is tried again.
        waiting.end_for_admission();
        assert_eq!(waiting.for_primary(at(15)), Duration::from_millis(5));
    }

    #[test]
    fn a_barrier_is_shared_by_an_arrival_and_kept_by_who_is_tried_again() {
        let (mut waiting, mut seq) = (Waiting::default(), 0);
        let limits = Patience { silence: Duration::from_secs(1), hold: Duration::from_secs(1) };
        let nothing = Tracker::new(Vec::new(), None, Policies::default(), limits);
        let mut barrier = |waiting: &mut Waiting| {
            waiting.barrier(nothing.view(), at(0), || {
                seq += 1;
                AnchorSeq(seq)
            })
        };
        let [first, second] = [1, 2].map(|seq| Barrier::new(AnchorSeq(seq)));
        waiting.arrive();
        assert!(!waiting.has_barrier());
        assert_eq!((barrier(&mut waiting), barrier(&mut waiting)), (first, first));
        waiting.begin(at(1));
        waiting.arrive();
        assert_eq!(barrier(&mut waiting), first);
        assert!(!waiting.has_barrier(), "it is none for what has arrived meanwhile");
        waiting.end();
        assert_eq!(barrier(&mut waiting), second);
        assert!(waiting.has_barrier());
    }
}
