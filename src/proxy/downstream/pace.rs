//! How much a client is given at once, and which lanes wait until it has taken some of it.
//!
//! A long reply waits in its lane, so that of however many bytes a few are held. Whole replies pile up to a good part of
//! `client-output-buffer-limit` before anything waits, as Redis would pile them up: a client may write a long
//! pipeline to its end before it reads the first reply. Beyond that neither its replies nor its commands are read, as
//! long as it takes anything at all.

use std::task::Waker;

use crate::net::runtime::limits;
use crate::proxy::downstream::window::Window;

/// How a client keeps up with what it is given.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// What it is given is not little, or was not lately.
    weighs: bool,
    /// How many commands it may have on their way.
    window: Window,
    /// Moving average of what it is given at once, in bytes; 0 as long as that is little.
    weight: usize,
    /// It gets large replies, lately.
    large: bool,
    /// Bytes written, ever.
    taken: u64,
    /// Lanes that wait until the output is shorter.
    paused: Vec<Waker>,
}

/// How much may wait for a client before a lane waits, too.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance {
    /// Bytes that may wait for it before it is disconnected.
    pub output_limit: usize,
    /// Its commands are not read, for there are too many: it may be writing more before it reads anything.
    pub is_full: bool,
}

impl Allowance {
    /// In bytes; `long` is part of a long reply.
    fn of(self, long: bool) -> usize {
        let whole = self.output_limit / 3;
        if long && !self.is_full { limits::LANE_PAUSE.min(whole) } else { whole }
    }
}

impl Pace {
    /// It was given so many bytes of a reply, and with them its end, if it is `complete`. Most clients get small replies, of
    /// which nothing has to be noted.
    #[inline]
    pub(crate) fn gives(&mut self, bytes: usize, complete: bool) {
        if complete && bytes <= limits::PLAIN_REPLY && !self.weighs {
            self.window.grows();
        } else {
            self.weigh(bytes, complete);
        }
    }

    /// How many commands it may have on their way.
    pub(crate) const fn window(&self) -> &Window {
        &self.window
    }

    #[inline(never)]
    fn weigh(&mut self, bytes: usize, complete: bool) {
        self.window.weigh(bytes, complete);
        self.weight = (self.weight * 7 + bytes) / 8;
        // Two thresholds, so that nobody moves to and fro.
        if self.weight > limits::LARGE_REPLIES {
            self.large = true;
        } else if self.weight < limits::SMALL_REPLY {
            (self.large, self.weight) = (false, 0);
        }
        self.weighs = self.weight > 0 || !self.window.is_plain();
    }

    /// It took so many bytes.
    pub(crate) fn takes(&mut self, bytes: usize) {
        self.taken += bytes as u64;
    }

    /// Whether it gets large replies, lately.
    pub(crate) fn gets_large_replies(&self) -> bool {
        self.large
    }

    /// Bytes that it has taken up to now.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// Whether a lane should wait with more of a reply, when so many bytes are `waiting`. If so, `waker` is woken when
    /// it should look again.
    pub(crate) fn pauses(&mut self, waiting: usize, long: bool, allowance: Allowance, waker: &Waker) -> bool {
        let pauses = waiting > allowance.of(long);
        if pauses && !self.paused.iter().any(|known| known.will_wake(waker)) {
            self.paused.push(waker.clone());
        }
        pauses
    }

    /// The lanes that wait look again.
    #[inline]
    pub(crate) fn wake_lanes(&mut self) {
        // Nearly always nobody waits, and draining nothing costs more than looking.
        if !self.paused.is_empty() {
            self.paused.drain(..).for_each(Waker::wake);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Wake;

    use super::*;

    struct NoWake;

    impl Wake for NoWake {
        fn wake(self: Arc<Self>) {}
    }

    #[test]
    fn only_long_replies_wait_early_and_no_lane_waits_twice() {
        let (mut pace, waker) = (Pace::default(), Waker::from(Arc::new(NoWake)));
        let allowance = Allowance { output_limit: 30 << 20, is_full: false };
        assert!(!pace.pauses(5 << 20, false, allowance, &waker));
        assert!(pace.pauses(5 << 20, true, allowance, &waker));
        assert!(pace.pauses(11 << 20, false, allowance, &waker));
        assert!(!pace.pauses(5 << 20, true, Allowance { is_full: true, ..allowance }, &waker));
        assert_eq!(pace.paused.len(), 1);
        pace.wake_lanes();
        assert!(pace.paused.is_empty());
    }

    #[test]
    fn large_replies_are_noticed_and_forgotten() {
        let mut pace = Pace::default();
        (0..100).for_each(|_| pace.gives(100, true));
        assert!(!pace.gets_large_replies());
        (0..100).for_each(|_| pace.gives(limits::LARGE_REPLIES * 2, true));
        assert!(pace.gets_large_replies());
        (0..200).for_each(|_| pace.gives(100, true));
        assert!(!pace.gets_large_replies());
        assert_eq!(pace.weight, 0);
    }
}
