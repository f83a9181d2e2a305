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
    fit: RefCell<SmallVec<[Fit; 4]>>,
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
                self.fit.borrow_mut().clear();
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
        let mut fit = self.fit.borrow_mut();
        fit.retain(|fit| (fit.policy, fit.node) != (policy_id, node));
        fit.push(Fit { policy: policy_id, node, applied, until });
    }

    /// What was found may hold no longer.
    pub fn forget_fit(&self) {
        self.fit.borrow_mut().clear();
    }

    /// What a replica has applied that is still fresh enough for this policy, whatever is demanded besides; `None` when
    /// that has to be decided anew.
    pub fn fit(&self, policy: PolicyId, node: NodeId, now: Moment) -> Option<Offset> {
        let fit = self.fit.borrow();
        let fit = fit.iter().find(|fit| (fit.policy, fit.node) == (policy, node))?;
        (now <= fit.until || mutant::is("fit-for-ever")).then_some(fit.applied)
    }
}
