//! Which reads may move to another lane while a long reply holds up their own.
//!
//! What is sent again leaves a tombstone: the node answers it all the same, and that answer is dropped. Of one client all
//! reads are sent again, or none; and none if it also writes one of their keys here: in the order in which it has sent
//! them it reads and writes.

use std::collections::VecDeque;
use std::rc::Rc;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::proxy::downstream::replies::Client;
use crate::proxy::upstream::pending::Pending;

/// The clients whose reads must stay, because of what else of theirs is outstanding.
pub(super) struct Unmovable(FxHashSet<*const Client>);

impl Unmovable {
    /// Found in one pass for each who has sent anything but reads, few of whom have sent reads, too.
    pub(super) fn of(outstanding: &VecDeque<Pending>, fencing: bool) -> Self {
        let mut fixed: FxHashMap<*const Client, Vec<&Pending>> = FxHashMap::default();
        for pending in outstanding.iter().filter(|p| !p.asked().may_move() && p.client.gone().is_none()) {
            fixed.entry(Rc::as_ptr(&pending.client)).or_default().push(pending);
        }
        let mut bound = FxHashSet::default();
        for read in outstanding.iter().filter(|p| p.asked().may_move()) {
            let client = Rc::as_ptr(&read.client);
            if fixed
                .get(&client)
                .is_some_and(|own| !own.iter().all(|other| other.is_apart_from(read, fencing)))
            {
                bound.insert(client);
            }
        }
        Self(bound)
    }

    /// Whether the reads of this client must stay.
    pub(super) fn contains(&self, client: &Rc<Client>) -> bool {
        self.0.contains(&Rc::as_ptr(client))
    }
}
