//! The lanes of one worker: those that are shared, those on a detour, those that belong to one client, and those of the
//! latter that nobody uses at the moment.
//!
//! Of the exclusive ones only a lane without state and with nothing outstanding is kept for the next client. Each is asked
//! now and then whether it still works, so that nobody is given a connection that died in silence; what is not needed for a
//! while is closed.

pub(crate) mod connect;
pub(crate) mod detour;
mod found;
pub(crate) mod rewrite;
pub(crate) mod settle;
pub(crate) mod stalled;

use std::cell::RefCell;
use std::rc::Rc;

use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::Notify;

use crate::core::moment::Moment;
use crate::mutant;
use crate::net::runtime::clock;
use crate::net::runtime::limits;
use crate::proxy::upstream::lane::{Closed, Lane, LaneKey};
use crate::shard::identity::IdentityId;

/// What lanes there are.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    /// Shared ones, which whoever needs one of that key gets.
    pool: RefCell<FxHashMap<LaneKey, Rc<Lane>>>,
    /// Shared ones with a long reply on them, which nobody gets.
    busy: RefCell<Vec<Rc<Lane>>>,
    /// Shared ones that were busy, and whose place in the pool another has taken.
    back: RefCell<FxHashMap<LaneKey, Vec<Rc<Lane>>>>,
    /// Every exclusive one.
    exclusive: RefCell<Vec<Rc<Lane>>>,
    /// Exclusive ones that were given back clean.
    idle: RefCell<FxHashMap<LaneKey, Vec<Rc<Lane>>>>,
    /// Since when nobody has used a shared one.
    unused_since: RefCell<FxHashMap<LaneKey, Moment>>,
    /// New ones, which have yet to be connected.
    to_open: RefCell<Vec<Rc<Lane>>>,
    added: Notify,
}

impl Lanes {
    /// The shared lane of this key.
    pub(crate) fn shared(&self, key: LaneKey) -> Option<Rc<Lane>> {
        self.pool.borrow().get(&key).filter(|lane| lane.is_usable()).cloned()
    }

    /// Whoever needs a lane of that key gets this one from now on.
    pub(crate) fn share(&self, lane: &Rc<Lane>) {
        self.pool.borrow_mut().insert(lane.key, Rc::clone(lane));
    }

    /// Nobody gets this lane any longer.
    fn unshare(&self, lane: &Rc<Lane>) {
        let mut pool = self.pool.borrow_mut();
        if pool.get(&lane.key).is_some_and(|known| Rc::ptr_eq(known, lane)) {
            pool.remove(&lane.key);
        }
    }

    /// A lane that was made just now: it has yet to be connected.
    pub(crate) fn add(&self, lane: &Rc<Lane>) {
        if lane.exclusive {
            self.exclusive.borrow_mut().push(Rc::clone(lane));
        }
        self.to_open.borrow_mut().push(Rc::clone(lane));
        self.added.notify_one();
    }

    /// New lanes, as soon as there are any.
    ///
    /// Cancel safe: the list is taken in the same poll that returns it, and looked at before each wait.
    pub(crate) async fn to_open(&self) -> Vec<Rc<Lane>> {
        loop {
            let new = self.to_open.take();
            if !new.is_empty() {
                return new;
            }
            self.added.notified().await;
        }
    }

    /// A lane ended: it is not used again.
    pub(crate) fn forget(&self, lane: &Rc<Lane>) {
        if lane.exclusive {
            self.exclusive.borrow_mut().retain(|known| !Rc::ptr_eq(known, lane));
        }
        self.forget_detour(lane);
        self.unshare(lane);
    }

    fn forget_detour(&self, lane: &Rc<Lane>) {
        self.busy.borrow_mut().retain(|known| !Rc::ptr_eq(known, lane));
        if let Some(back) = self.back.borrow_mut().get_mut(&lane.key) {
            back.retain(|known| !Rc::ptr_eq(known, lane));
        }
    }

    /// A long reply is on the lane: nobody else gets it until that is through.
    pub(crate) fn send_on_detour(&self, lane: &Rc<Lane>) {
        if lane.is_on_detour() {
            return;
        }
        self.unshare(lane);
        lane.set_on_detour(true);
        self.busy.borrow_mut().push(Rc::clone(lane));
    }

    /// The lane has nothing outstanding any more: it is one like others again.
    pub(crate) fn come_back(&self, lane: &Rc<Lane>) {
        self.forget_detour(lane);
        let mut back = self.back.borrow_mut();
        let back = back.entry(lane.key).or_default();
        if back.len() < limits::LANES_KEPT {
            lane.set_on_detour(false);
            back.push(Rc::clone(lane));
        } else {
            lane.close(Closed::Idle);
        }
    }

    /// A shared lane of this key that came back and is not in the pool.
    pub(crate) fn take_back(&self, key: LaneKey) -> Option<Rc<Lane>> {
        let mut back = self.back.borrow_mut();
        let back = back.get_mut(&key)?;
        while let Some(lane) = back.pop() {
            if lane.is_usable() {
                return Some(lane);
            }
        }
        None
    }

    /// Does something with every shared lane, in the pool or not.
    pub(crate) fn each_shared(&self, mut each: impl FnMut(&Rc<Lane>)) {
        self.pool.borrow().values().for_each(&mut each);
        self.busy.borrow().iter().for_each(&mut each);
        self.back.borrow().values().flatten().for_each(each);
    }

    /// Does something with every lane.
    pub(crate) fn each(&self, mut each: impl FnMut(&Rc<Lane>)) {
        self.each_shared(&mut each);
        self.exclusive.borrow().iter().for_each(each);
    }

    /// An exclusive lane of this key that nobody uses, clean and ready.
    pub(crate) fn take_idle(&self, key: LaneKey) -> Option<Rc<Lane>> {
        let mut idle = self.idle.borrow_mut();
        let kept = idle.get_mut(&key)?;
        kept.retain(|lane| lane.is_usable());
        // One that is being checked has a reply on its way that is not its next client's.
        let free = kept.iter().rposition(|lane| lane.is_idle() || mutant::is("checked-given-away"))?;
        Some(kept.remove(free))
    }

    /// Whether no exclusive lane of this key is left for who comes next.
    pub(crate) fn needs_spare(&self, key: LaneKey) -> bool {
        self.idle.borrow().get(&key).is_none_or(|kept| kept.iter().all(|lane| !lane.is_usable()))
    }

    /// Exclusive lanes that nobody uses at the moment.
    pub(crate) fn idle_count(&self) -> usize {
        self.idle.borrow().values().map(Vec::len).sum()
    }

    /// Takes back an exclusive lane that carries no state and has nothing outstanding; closes any other.
    pub(crate) fn give_back(&self, lane: &Rc<Lane>) {
        let mut idle = self.idle.borrow_mut();
        let kept = idle.entry(lane.key).or_default();
        if lane.is_usable() && lane.is_idle() && !lane.tainted.get() && kept.len() < limits::IDLE_KEPT {
            lane.idle_since.set(clock::now());
            kept.push(Rc::clone(lane));
        } else {
            lane.close(Closed::Idle);
        }
    }

    /// The idle exclusive lanes, each to be asked whether it still works. Those that have not answered the last time, and
    /// those that have not been needed for a while, are closed.
    pub(crate) fn to_check(&self, now: Moment) -> Vec<Rc<Lane>> {
        let mut idle = self.idle.borrow_mut();
        idle.retain(|_, lanes| {
            lanes.retain(|lane| {
                let unneeded = now.since(lane.idle_since.get()) >= limits::LANE_IDLE;
                if unneeded || !lane.is_idle() {
                    lane.close(Closed::Idle);
                }
                lane.is_usable()
            });
            !lanes.is_empty()
        });
        idle.values().flatten().cloned().collect()
    }

    /// Closes the shared lanes that nobody has used for [`limits::LANE_IDLE`], and any beyond `most`, but for those that are
    /// `kept`. A lane is in use while a client has it at hand.
    pub(crate) fn close_unused(&self, now: Moment, most: usize, kept: impl Fn(&LaneKey) -> bool) {
        let pool: Vec<Rc<Lane>> = self.pool.borrow().values().cloned().collect();
        let mut since = self.unused_since.borrow_mut();
        let unused = |lane: &&Rc<Lane>| {
            let common = lane.key.identity == IdentityId::ANONYMOUS && lane.key.db == 0;
            !common && !kept(&lane.key) && lane.is_idle() && lane.users.get() == 0
        };
        let unused: Vec<&Rc<Lane>> = pool.iter().filter(unused).collect();
        let keys: FxHashSet<LaneKey> = unused.iter().map(|lane| lane.key).collect();
        since.retain(|key, _| keys.contains(key));
        let surplus = unused.len().saturating_sub(most);
        for (n, lane) in unused.into_iter().enumerate() {
            let since = *since.entry(lane.key).or_insert(now);
            if n < surplus || now.since(since) >= limits::LANE_IDLE {
                lane.close(Closed::Idle);
            }
        }
    }
}
