//! The tasks that wait for a lane.

use std::task::Waker;

/// Whom a change of a lane concerns.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    /// The lane's own task.
    task: Option<Waker>,
    /// Tasks that wait for room or for the end of the opening.
    others: Vec<Waker>,
}

impl Waiters {
    /// The lane's own task is woken by this from now on.
    pub(super) fn set_task(&mut self, waker: &Waker) {
        if self.task.as_ref().is_none_or(|known| !known.will_wake(waker)) {
            self.task = Some(waker.clone());
        }
    }

    /// The lane's own task has something to do.
    pub(super) fn wake_task(&self) {
        if let Some(task) = &self.task {
            task.wake_by_ref();
        }
    }

    /// `waker` is woken by the next change.
    pub(super) fn add(&mut self, waker: &Waker) {
        if !self.others.iter().any(|known| known.will_wake(waker)) {
            self.others.push(waker.clone());
        }
    }

    /// Whether nobody waits but the lane's own task.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.others.is_empty()
    }

    /// There is room, or the lane has opened or ended.
    pub(super) fn wake(&mut self) {
        self.others.drain(..).for_each(Waker::wake);
    }
}
