//! A lane that a client has at hand: it is in use for as long as that, whether anything is outstanding on it or not.

use std::rc::Rc;

use crate::proxy::upstream::lane::Lane;

/// A shared lane, as its client knows it.
#[derive(Debug)]
pub struct AtHand {
    lane: Rc<Lane>,
    generation: u32,
}

impl AtHand {
    /// The client has it from now on.
    pub fn new(lane: &Rc<Lane>) -> Self {
        lane.users.set(lane.users.get() + 1);
        Self { lane: Rc::clone(lane), generation: lane.generation() }
    }

    /// The lane.
    pub fn lane(&self) -> &Rc<Lane> {
        &self.lane
    }

    /// Whether it takes commands, and has not left the pool since.
    pub fn is_current(&self) -> bool {
        self.lane.generation() == self.generation && self.lane.is_usable()
    }
}

impl Drop for AtHand {
    fn drop(&mut self) {
        debug_assert!(self.lane.users.get() > 0, "whoever leaves was counted");
        self.lane.users.set(self.lane.users.get().saturating_sub(1));
    }
}
