//! Who gets no reads from a replica although its data would do, because of access rules: they are not replicated.
//!
//! A replica that denies more than the primary is found out by asking it: the primary then answers instead. One that allows
//! more would show what the primary denies; so the rules of all nodes are compared before anybody reads there
//! ([`crate::core::nodes::rights`]).

use std::cell::RefCell;
use std::time::Duration;

use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;

use crate::core::moment::Moment;
use crate::core::nodes::node::NodeId;
use crate::core::nodes::view::View;
use crate::core::reason::Reason;
use crate::net::runtime::clock;
use crate::proxy::upstream::lane::{Closed, Lane};
use crate::shard::identity::IdentityId;
use crate::wire::reply::ErrorCode;

/// Why a user reads at no replica, by node; a missing entry is none.
pub(crate) type Bars = SmallVec<[Option<Reason>; 16]>;

/// Replicas that have refused an identity, and of whom that was told.
#[derive(Debug, Default)]
pub(crate) struct ShutOut {
    /// Until when they get none of its reads.
    until: RefCell<FxHashMap<(NodeId, IdentityId), Moment>>,
    warned: RefCell<FxHashSet<(NodeId, IdentityId)>>,
}

impl ShutOut {
    /// Nobody is.
    pub(crate) fn is_empty(&self) -> bool {
        self.until.borrow().is_empty()
    }

    /// From which nodes a user is barred.
    pub(crate) fn bars(&self, identity: IdentityId, user: &str, view: &View, now: Moment) -> Bars {
        let rights = view.rights.bars(user.as_bytes());
        let shut_out = self.until.borrow();
        if rights.is_empty() && shut_out.is_empty() {
            return Bars::new();
        }
        let bar = |id| {
            let refused = shut_out.get(&(id, identity)).is_some_and(|until| now < *until);
            refused.then_some(Reason::UserUnknown)
        };
        let barred = view.nodes.iter().map(|node| match rights.get(node.id.index()) {
            Some(true) => Some(Reason::RightsDiffer),
            Some(false) | None => bar(node.id),
        });
        barred.collect()
    }

    /// Whether an error that a replica answered to a read may be due to its own access rules, which are not
    /// replicated: then the primary is asked, whose word counts. `view` tells who the primary is.
    pub(crate) fn differs(&self, lane: &Lane, reply: &[u8], view: &View) -> bool {
        let differs = ErrorCode::of(reply) == Some(ErrorCode::NoPerm)
            && !lane.exclusive
            && view.primary != Some(lane.key.node);
        if differs {
            self.tell(lane, "a replica denies what it is asked for a user", view);
        }
        differs
    }

    /// A replica refused the handshake: for a while no reads of this identity go to it.
    pub(crate) fn refused(&self, lane: &Lane, why: &Closed, view: &View) {
        let until = clock::now().after(SHUT_OUT);
        self.until.borrow_mut().insert((lane.key.node, lane.key.identity), until);
        let what = if why.is_about_credentials() {
            "a replica does not accept a user"
        } else {
            "a replica refuses a connection for a user"
        };
        self.tell(lane, what, view);
    }

    /// Lets those in again whose time is up.
    pub(crate) fn look(&self, now: Moment) {
        self.until.borrow_mut().retain(|_, until| now < *until);
    }

    /// Once for each node and identity.
    fn tell(&self, lane: &Lane, what: &str, view: &View) {
        let mut warned = self.warned.borrow_mut();
        if warned.len() >= WARNED_KEPT {
            warned.clear();
        }
        if warned.insert((lane.key.node, lane.key.identity)) {
            let user =
                lane.identity.as_ref().map_or_else(|| "default".to_owned(), |identity| identity.user());
            let address = view.node(lane.key.node).and_then(|node| node.address.as_ref());
            let node = address.map_or_else(String::new, ToString::to_string);
            tracing::warn!(node, user, "{what}, whose reads the primary answers instead");
        }
    }
}

/// How long a replica that has refused an identity gets none of its reads.
const SHUT_OUT: Duration = Duration::from_secs(10);

/// Pairs of node and identity whose differing access rules were warned of.
const WARNED_KEPT: usize = 1024;
