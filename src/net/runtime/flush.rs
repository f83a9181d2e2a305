//! The end of a scheduling round: what became dirty while tasks ran is written once.
//!
//! A current-thread runtime polls woken tasks in order. The first thing to become dirty wakes the task that flushes, which
//! therefore runs after every task that is already in the queue: all sockets that were ready have been read by then.
//! Their commands share one write per server connection, and their replies one write per client.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// What can be written at the end of a round.
pub trait Flush {
    /// Writes what the socket takes. Called once for each time that it was added to its [`DirtyList`].
    fn flush(&self);

    /// Whether more is about to come that had better be written with it. True only once for each time that it was added.
    fn waits_for_more(&self) -> bool {
        false
    }
}

/// When the task that flushes has something to do. One per worker, shared by its lists.
#[derive(Debug, Default)]
pub struct Schedule {
    waker: RefCell<Option<Waker>>,
    due: Cell<bool>,
}

impl Schedule {
    fn wake(&self) {
        if !self.due.replace(true)
            && let Some(waker) = &*self.waker.borrow()
        {
            waker.wake_by_ref();
        }
    }

    /// Lets the sockets be looked at that are ready by now, and what has come there be taken in.
    ///
    /// Cancel safe: what has become dirty meanwhile is noted.
    pub async fn next_round(&self) {
        // Nobody wakes the task before that.
        self.due.set(true);
        tokio::task::yield_now().await;
    }

    /// Waits until something is dirty.
    ///
    /// Cancel safe: what has become dirty is noted until a call returns for it.
    pub async fn due(&self) {
        poll_fn(|cx| {
            let mut waker = self.waker.borrow_mut();
            if waker.as_ref().is_none_or(|w| !w.will_wake(cx.waker())) {
                *waker = Some(cx.waker().clone());
            }
            if self.due.replace(false) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// What waits to be written, of one kind.
#[derive(Debug)]
pub struct DirtyList<T> {
    dirty: RefCell<Vec<Rc<T>>>,
    /// The list that is not in use, kept for its room.
    spare: RefCell<Vec<Rc<T>>>,
    schedule: Rc<Schedule>,
}

impl<T: Flush> DirtyList<T> {
    /// An empty one, which is flushed when `schedule` is due.
    pub fn new(schedule: &Rc<Schedule>) -> Rc<Self> {
        Rc::new(Self { dirty: RefCell::default(), spare: RefCell::default(), schedule: Rc::clone(schedule) })
    }

    /// It has something to write. The caller keeps it from being added twice.
    pub fn add(&self, dirty: Rc<T>) {
        self.dirty.borrow_mut().push(dirty);
        self.schedule.wake();
    }

    /// Flushes each of them once; what becomes dirty meanwhile waits for the next round.
    pub fn flush(&self) {
        self.flush_unless(|_| false);
    }

    /// The same, but for those that [wait for more](Flush::waits_for_more): they are left for the [next
    /// round](Schedule::next_round). True if there are any.
    pub fn flush_ripe(&self) -> bool {
        self.flush_unless(T::waits_for_more)
    }

    #[inline]
    fn flush_unless(&self, waits: impl Fn(&T) -> bool) -> bool {
        if self.dirty.borrow().is_empty() {
            return false;
        }
        let (mut round, mut any) = (self.spare.take(), false);
        std::mem::swap(&mut round, &mut *self.dirty.borrow_mut());
        for dirty in round.drain(..) {
            if waits(&dirty) {
                any = true;
                self.dirty.borrow_mut().push(dirty);
            } else {
                dirty.flush();
            }
        }
        self.spare.replace(round);
        any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct Counted {
        flushed: Cell<u32>,
        again: RefCell<Option<Rc<DirtyList<Counted>>>>,
    }

    impl Flush for Counted {
        fn flush(&self) {
            self.flushed.set(self.flushed.get() + 1);
            if let Some(list) = self.again.take() {
                list.add(Rc::default());
            }
        }
    }

    #[tokio::test]
    async fn what_becomes_dirty_while_it_is_flushed_waits_for_the_next_round() {
        let schedule = Rc::default();
        let list = DirtyList::<Counted>::new(&schedule);
        let first = Rc::new(Counted { again: RefCell::new(Some(Rc::clone(&list))), ..Counted::default() });
        list.add(Rc::clone(&first));
        schedule.due().await;
        list.flush();
        assert_eq!(first.flushed.get(), 1);
        assert_eq!(list.dirty.borrow().len(), 1);
        schedule.due().await;
        list.flush();
        assert!(list.dirty.borrow().is_empty());
        assert_eq!(first.flushed.get(), 1);
    }
}
