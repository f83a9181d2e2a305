//! What a worker does besides what its clients ask for.

use std::rc::Rc;

use crate::core::slots::ShardIndex;
use crate::net::runtime::task;
use crate::proxy::worker::Worker;
use crate::proxy::worker::lanes::connect;

impl Worker {
    /// The worker of another shard, which begins to work if nobody on this thread has needed it yet. `None`: there is no such
    /// shard.
    pub(crate) fn peer(self: &Rc<Self>, shard: ShardIndex) -> Option<Rc<Self>> {
        if shard == self.shard {
            return Some(Rc::clone(self));
        }
        if let Some(known) = self.peers.get(shard) {
            return Some(known);
        }
        let worker = self.beside(self.shared.cluster()?.shard(shard)?);
        start(&worker);
        Some(worker)
    }
}

/// Starts it all, and has the others of its thread know it. Runs as long as the worker.
pub(crate) fn start(worker: &Rc<Worker>) {
    worker.peers.add(worker);
    task::spawn_hot(open_lanes(Rc::clone(worker)));
    let (watcher, keeper, looker) = (Rc::clone(worker), Rc::clone(worker), Rc::clone(worker));
    task::supervise_local("watch", move || Rc::clone(&watcher).watch());
    task::supervise_local("idle lanes", move || Rc::clone(&keeper).check_idle_lanes());
    task::supervise_local("upkeep", move || Rc::clone(&looker).look_after());
}

/// Starts the task of every new lane.
async fn open_lanes(worker: Rc<Worker>) {
    loop {
        for lane in worker.lanes.to_open().await {
            task::spawn_hot(connect::run(Rc::clone(&worker), lane));
        }
    }
}
