//! The workers of one thread: one for each shard that a client of the thread has had to do with.

use std::cell::RefCell;
use std::rc::Rc;

use crate::core::slots::ShardIndex;
use crate::proxy::worker::Worker;

/// Those that there are, by their shards. They stay as long as the thread.
#[derive(Debug, Default)]
pub(crate) struct Peers(RefCell<Vec<Option<Rc<Worker>>>>);

impl Peers {
    /// That of this shard, if there is one yet.
    pub(crate) fn get(&self, shard: ShardIndex) -> Option<Rc<Worker>> {
        self.0.borrow().get(shard.index())?.clone()
    }

    /// The others find it from now on.
    pub(crate) fn add(&self, worker: &Rc<Worker>) {
        let (mut workers, at) = (self.0.borrow_mut(), worker.shard.index());
        if workers.len() <= at {
            workers.resize_with(at + 1, || None);
        }
        if let Some(place) = workers.get_mut(at) {
            *place = Some(Rc::clone(worker));
        }
    }
}
