//! What one worker knows at present, and which replicas were found fit to serve under it.
//!
//! Views and tables are looked at with every arrival and change far less often. A decision depends on the view, on
//! the clock, on what is demanded for all keys, on the connection and on the key; what depends on nothing but the first
//! two is kept here, until the view changes or time is up ([`good_until`]).

use std::cell::{Ref, RefCell};
use std::ops::Deref;
use std::sync::Arc;

use arc_swap::ArcSwap;
use arc_swap::cache::Cache;
use smallvec::SmallVec;

use crate::core::command::in_force::Commands;
use crate::core::moment::Moment;
use crate::core::nodes::node::NodeId;
use crate::core::nodes::view::View;
use crate::core::policy::{Policy, PolicyId};
use crate::core::position::Offset;
use crate::core::route::good_until;
use crate::mutant;
use crate::shard::shared::Shared;

/// The view and the commands, and what follows from them.
#[derive(Debug)]
pub struct Snapshot {
    known: RefCell<InForce>,
    fit: RefCell<FoundFit>,
}

/// The view and the commands that were in force when somebody last looked.
#[derive(Debug)]
pub struct InForce {
    views: Cache<Views, Arc<View>>,
    tables: Cache<Tables, Arc<Commands>>,
    /// Keeps what `fit` was found under, so that nothing else gets its address.
    pub view: Arc<View>,
    /// As the primary's commands are.
    pub commands: Arc<Commands>,
}

/// A replica that may serve reads of a policy, as far as their keys don't demand more.
#[derive(Clone, Copy, Debug)]
struct Fit {
    policy: PolicyId,
    node: NodeId,
    applied: Offset,
    until: Moment,
}

/// Those that were found so, one for each policy and replica.
#[derive(Debug, Default)]
struct FoundFit(SmallVec<[Fit; 4]>);

impl FoundFit {
    fn keep(&mut self, found: Fit) {
        self.0.retain(|fit| (fit.policy, fit.node) != (found.policy, found.node));
        self.0.push(found);
    }

    /// What a replica has applied that is still fresh enough for this policy.
    #[inline]
    fn at(&self, policy: PolicyId, node: NodeId, now: Moment) -> Option<Offset> {
        let fit = self.0.iter().find(|fit| (fit.policy, fit.node) == (policy, node))?;
        (now <= fit.until || mutant::is("fit-for-ever")).then_some(fit.applied)
    }
}

#[derive(Debug)]
struct Views(Arc<Shared>);

#[derive(Debug)]
struct Tables(Arc<Shared>);

impl Deref for Views {
    type Target = ArcSwap<View>;

    fn deref(&self) -> &Self::Target {
        &self.0.shard().view
    }
}

impl Deref for Tables {
    type Target = ArcSwap<Commands>;

    fn deref(&self) -> &Self::Target {
        &self.0.commands
    }
}

impl Snapshot {
    /// What `shared` knows.
    pub fn new(shared: &Arc<Shared>) -> Self {
        let known = InForce {
            views: Cache::new(Views(Arc::clone(shared))),
            tables: Cache::new(Tables(Arc::clone(shared))),
            view: shared.shard().view.load_full(),
            commands: shared.commands.load_full(),
        };
        Self { known: RefCell::new(known), fit: RefCell::default() }
    }

    /// What is in force now. It stays as it is for as long as the caller looks at it.
    pub fn look(&self) -> Ref<'_, InForce> {
        if let Ok(mut known) = self.known.try_borrow_mut() {
            let InForce { views, tables, view, commands } = &mut *known;
            let (fresh, words) = (views.load(), tables.load());
            if !Arc::ptr_eq(fresh, view) {
                *view = Arc::clone(fresh);
                self.forget_fit();
            }
            if !Arc::ptr_eq(words, commands) {
                *commands = Arc::clone(words);
            }
        }
        self.known.borrow()
    }

    /// A replica was found to be fresh enough under `view`, which has applied `applied`.
    pub fn found_fit(
        &self,
        view: &View,
        policy_id: PolicyId,
        policy: &Policy,
        node: NodeId,
        applied: Offset,
    ) {
        let known = self.known.borrow();
        let Some(until) =
            good_until(view, node, policy).filter(|_| std::ptr::eq(&raw const *known.view, view))
        else {
            return;
        };
        self.fit.borrow_mut().keep(Fit { policy: policy_id, node, applied, until });
    }

    /// What was found may hold no longer.
    pub fn forget_fit(&self) {
        self.fit.borrow_mut().0.clear();
    }

    /// What a replica has applied that is still fresh enough for this policy, whatever is demanded besides; `None` when
    /// that has to be decided anew.
    #[allow(clippy::inline_always, reason = "measured: 1 % of the instructions of a small command")]
    #[inline(always)]
    pub fn fit(&self, policy: PolicyId, node: NodeId, now: Moment) -> Option<Offset> {
        self.fit.borrow().at(policy, node, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_fit_is_so_until_its_time_is_up() {
        let mut found = FoundFit::default();
        let fit = |policy, node, applied, until| Fit {
            policy: PolicyId(policy),
            node: NodeId(node),
            applied: Offset::new(applied),
            until: Moment::from_millis(until),
        };
        found.keep(fit(0, 1, 7, 100));
        found.keep(fit(1, 1, 7, 200));
        let at = |found: &FoundFit, policy, node, ms| {
            found.at(PolicyId(policy), NodeId(node), Moment::from_millis(ms)).map(Offset::bytes)
        };
        assert_eq!((at(&found, 0, 1, 100), at(&found, 0, 1, 101)), (Some(7), None));
        assert_eq!((at(&found, 1, 1, 101), at(&found, 0, 2, 50)), (Some(7), None));
        found.keep(fit(0, 1, 9, 300));
        assert_eq!((at(&found, 0, 1, 250), at(&found, 1, 1, 250)), (Some(9), None));
    }
}
