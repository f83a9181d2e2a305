//! When a lane was heard last, and how long it has owed a reply since.

use std::cell::Cell;

use crate::core::moment::Moment;

/// What was heard of one upstream connection.
#[derive(Debug, Default)]
pub(crate) struct Hearing {
    last: Cell<Moment>,
    /// How many times in a row it was found to owe a reply although its node answered elsewhere, since it was heard then.
    owed: Cell<(Moment, u32)>,
}

impl Hearing {
    /// Something was read from it, or was not because its client does not keep up.
    pub(crate) fn heard(&self, now: Moment) {
        self.last.set(now);
    }

    /// When that was.
    pub(crate) fn last(&self) -> Moment {
        self.last.get()
    }

    /// It owes a reply although its node answers elsewhere: how many times in a row it was found so, this time included.
    pub(crate) fn still_owes(&self) -> u32 {
        let (since, count) = self.owed.get();
        let count = if since == self.last() { count.saturating_add(1) } else { 1 };
        self.owed.set((self.last(), count));
        count
    }

    /// It owes nothing, or nobody knows: counted from one again.
    pub(crate) fn owes_nothing(&self) {
        self.owed.set(Default::default());
    }
}
