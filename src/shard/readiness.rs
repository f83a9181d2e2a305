//! What works now: the reads of each policy that is in force, and writes.

use crate::core::moment::Moment;
use crate::core::nodes::node::Node;
use crate::core::nodes::view::View;
use crate::core::policy::{Consistency, Policy, PolicyId};
use crate::core::reason::Reason;
use crate::core::route::{Ask, Decision, Demand, decide};

/// What works now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// A primary answers, and not that it is busy with a script.
    pub writes: bool,
    /// By the name of each policy that a listener or a route has: whether a read of a key that nobody has just written is
    /// answered, and if not, why not.
    pub reads: Vec<(String, Result<(), Reason>)>,
}

impl Readiness {
    /// By a view at `now`.
    pub fn of(view: &View, now: Moment) -> Self {
        let primary = view.primary.and_then(|id| view.node(id));
        let works = |node: &Node| node.answers() && !node.is_busy();
        let writes = primary.is_some_and(works) && view.usable_primary(now).is_some();
        let (listeners, routes) = (&view.policies.listeners, &view.policies.routes);
        let mut ids: Vec<PolicyId> =
            listeners.iter().copied().chain(routes.iter().map(|route| route.policy)).collect();
        ids.sort_by_key(|id| id.index());
        ids.dedup();
        let known = ids.into_iter().filter_map(|id| Some((id, view.policies.get(id)?)));
        let reads =
            known.map(|(id, policy)| (policy.name.clone(), read(view, (id, policy), writes, now))).collect();
        Self { writes, reads }
    }

    /// Whether reads are answered, by one policy at least.
    pub fn reads(&self) -> bool {
        self.reads.iter().any(|(_, works)| works.is_ok())
    }
}

/// Whether a read by this policy is answered.
fn read(
    view: &View,
    (policy_id, policy): (PolicyId, &Policy),
    writes: bool,
    now: Moment,
) -> Result<(), Reason> {
    if policy.consistency == Consistency::Strong && !writes {
        // It needs the primary's word on what was written.
        return Err(if view.two_primaries { Reason::TwoPrimaries } else { Reason::PrimaryDown });
    }
    let ask = Ask {
        view,
        policy,
        policy_id,
        demand: Demand::Nothing,
        sticky: None,
        load: &[],
        in_flight: &[],
        proven: &[],
        in_doubt: &[],
        barred: &[],
        may_try: &[],
        now,
        tie: 0,
        waited: true,
        avoid: None,
    };
    match decide(&ask) {
        Decision::Send { node, .. } if view.primary == Some(node) && !writes => Err(Reason::PrimaryDown),
        Decision::Send { .. } | Decision::Try { .. } => Ok(()),
        Decision::Wait { reason } | Decision::Refuse { reason } => Err(reason),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::core::address::Address;
    use crate::core::fence::AnchorSeq;
    use crate::core::nodes::node::{Facts, Link, NodeId, Role};
    use crate::core::nodes::view::{Observation, Patience, Tracker};
    use crate::core::policy::Policies;
    use crate::core::position::{History, Offset, ReplId};

    /// A primary and its replica, and a policy of each kind that is in force.
    fn tracker() -> Tracker {
        let named = |name: &str, consistency, serve_stale| Policy {
            name: name.to_owned(),
            consistency,
            serve_stale,
            ..Policy::default()
        };
        let all = vec![
            named("strict", Consistency::Strong, false),
            named("default", Consistency::Fenced, false),
            named("relaxed", Consistency::Bounded, true),
            named("unused", Consistency::Eventual, true),
        ];
        let listeners = vec![PolicyId(2), PolicyId(0), PolicyId(1), PolicyId(1)];
        let policies = Policies { all, listeners, ..Policies::default() };
        let second = Duration::from_secs(1);
        let nodes = vec![Address::tcp("n", 1), Address::tcp("n", 2)];
        Tracker::new(nodes, Some(NodeId(0)), policies, Patience { silence: second, hold: second })
    }

    fn hear(tracker: &mut Tracker, link: Link, at: Moment) {
        let id = ReplId::parse(&[b'a'; 40]);
        let history = id.map(|id| History { id, previous: None });
        let facts = |role| Box::new(Facts { role: Some(role), history, ..Facts::default() });
        let offset = Offset::from_reported(100);
        let (primary, replica) = (NodeId(0), NodeId(1));
        let master = ("n".to_owned(), 1);
        let up = link == Link::Up;
        let mut told = vec![
            Observation::Replica { node: replica, link, master, applied: offset.filter(|_| up) },
            Observation::Info { node: replica, facts: facts(Role::Replica) },
        ];
        if up {
            let seq = AnchorSeq(at.as_nanos());
            told.push(Observation::Info { node: primary, facts: facts(Role::Primary) });
            told.push(Observation::Primary { node: primary, seq, sent_at: at, offset: offset.unwrap() });
        }
        for observation in told {
            let _ = tracker.apply(observation, at);
        }
    }

    #[test]
    fn what_works_is_told_by_policy_and_old_data_is_enough_where_it_is_allowed() {
        let mut tracker = tracker();
        let at = Moment::from_millis;
        let nothing = Readiness::of(tracker.view(), at(1));
        assert!(!nothing.writes && !nothing.reads(), "{nothing:?}");
        for ms in [10, 20, 30, 40, 50] {
            hear(&mut tracker, Link::Up, at(ms));
        }
        let all = Readiness::of(tracker.view(), at(60));
        assert!(all.writes && all.reads.iter().all(|(_, works)| works.is_ok()), "{all:?}");
        assert_eq!(
            all.reads.iter().map(|(name, _)| &**name).collect::<Vec<_>>(),
            ["strict", "default", "relaxed"]
        );
        let _ = tracker.apply(Observation::Lost { node: NodeId(0) }, at(100));
        hear(&mut tracker, Link::Down, at(5000));
        let some = Readiness::of(tracker.view(), at(5010));
        let down = Err(Reason::PrimaryDown);
        assert!(!some.writes && some.reads(), "{some:?}");
        assert_eq!(some.reads.iter().map(|(_, works)| *works).collect::<Vec<_>>(), [down, down, Ok(())]);
        // `max-stale` is a minute.
        hear(&mut tracker, Link::Down, at(100_000));
        assert!(!Readiness::of(tracker.view(), at(100_010)).reads());
    }
}
