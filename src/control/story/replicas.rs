//! The replicas: which of them get reads, which don't and why, and whom they follow.

use std::collections::BTreeMap;
use std::time::Duration;

use super::scene::{Line, Scene, TOLD_AFTER};
use crate::core::moment::{Moment, in_words};
use crate::core::nodes::node::{Node, NodeId};
use crate::core::nodes::view::View;
use crate::core::policy::{Consistency, Policy, PolicyId};
use crate::core::reason::Reason;
use crate::core::route::{Ask, Demand, judge};

/// Whether a replica gets reads, or why it doesn't.
type Service = Result<(), Reason>;

/// How long one reason is left alone before another one is told.
const NEXT_REASON_AFTER: Duration = Duration::from_secs(5);

/// What was told of the replicas.
#[derive(Debug)]
pub(super) struct ReplicaStories {
    told: BTreeMap<NodeId, ReplicaStory>,
    policy: Policy,
}

impl Default for ReplicaStories {
    fn default() -> Self {
        Self { told: BTreeMap::new(), policy: lenient() }
    }
}

#[derive(Debug)]
struct ReplicaStory {
    /// How it is …
    present: Service,
    /// … since then.
    since: Moment,
    /// What was told last, and when.
    told: Option<(Service, Moment)>,
    /// When it was told that it gets no reads.
    out_since: Option<Moment>,
    /// Whom it followed when that was told.
    leader: Option<(String, u16)>,
}

impl ReplicaStories {
    /// What is new. As long as the `opening` is under way, nothing is told: who is in service by then is counted in the line that it
    /// is `ready`, and whoever is missing is named there, or told of later.
    pub(super) fn look(&mut self, scene: &Scene<'_>, opening: bool, ready: bool) -> Vec<Line> {
        let view = scene.view;
        self.told.retain(|id, _| view.node(*id).is_some() && view.primary != Some(*id));
        let mut lines = Vec::new();
        for node in view.members().filter(|node| view.primary != Some(node.id)) {
            let Some(present) = service(node, view, &self.policy, scene.now) else { continue };
            let story = self.told.entry(node.id).or_insert(ReplicaStory {
                present,
                since: scene.now,
                told: None,
                out_since: None,
                leader: None,
            });
            let is_due = story.look(node, present, scene.now) && (!opening || present.is_ok());
            if is_due {
                lines.extend(Some(story.line(node, scene)).filter(|_| !opening && !ready));
            }
        }
        lines
    }
}

impl ReplicaStory {
    /// Whether there is something to tell.
    fn look(&mut self, node: &Node, present: Service, now: Moment) -> bool {
        if self.present != present {
            (self.present, self.since) = (present, now);
        }
        let lasts = present.is_ok() || now.since(self.since) >= TOLD_AFTER;
        lasts
            && self.told.is_none_or(|(told, at)| match (told, present) {
                _ if self.has_moved(node) => true,
                (Err(before), Err(why)) => before != why && now.since(at) >= NEXT_REASON_AFTER,
                (told, present) => told != present,
            })
    }

    /// Whether it follows somebody else than when it was last told of.
    fn has_moved(&self, node: &Node) -> bool {
        self.leader.is_some() && node.master.is_some() && self.leader != node.master
    }

    /// What is to be told, which counts as told then.
    fn line(&mut self, node: &Node, scene: &Scene<'_>) -> Line {
        let shown = |(host, port): &(String, u16)| format!("{}:{port}", host.escape_debug());
        let before = self.leader.as_ref().filter(|_| self.has_moved(node)).map(shown);
        self.leader = node.master.clone().or(self.leader.take());
        let leader = self.leader.as_ref().map_or_else(|| "another node".to_owned(), shown);
        let follows = before.map(|before| format!("follows {leader} now and no longer {before}"));
        let was_told = self.told.replace((self.present, scene.now));
        let name = node.name();
        if let Err(reason) = self.present {
            self.out_since.get_or_insert(self.since);
            return out_of_service(node, reason, (&leader, follows), scene.view);
        }
        let what = match (was_told, self.out_since.take()) {
            (Some((Ok(()), _)), _) => {
                return Line::Info(format!("replica {name} {}", follows.unwrap_or_default()));
            }
            (_, Some(since)) => format!("is in service again after {}", in_words(scene.now.since(since))),
            (_, None) => "is in service".to_owned(),
        };
        let follows = follows.map_or_else(String::new, |follows| format!(", and {follows}"));
        Line::Info(format!("replica {name} {what}{follows}"))
    }
}

/// Why a replica gets no reads.
fn out_of_service(
    node: &Node,
    reason: Reason,
    (leader, follows): (&str, Option<String>),
    view: &View,
) -> Line {
    let name = node.name();
    let plain = || format!("follows {leader}");
    match reason {
        Reason::Silent => Line::Warn(match node.problem() {
            Some(problem) => match problem.remedy() {
                Some(remedy) => format!("replica {name} {}: {remedy}; it gets no reads", problem.text(true)),
                None => format!("replica {name} {}: it gets no reads", problem.text(true)),
            },
            None if node.heard_at.is_some() => format!("replica {name} does not answer: it gets no reads"),
            None => format!("replica {name} has not answered yet: it gets no reads"),
        }),
        Reason::Loading => {
            Line::Info(format!("replica {name} is loading its data: it gets no reads until then"))
        }
        Reason::Syncing => Line::Info(format!(
            "replica {name} {} and is being synchronised in full: it gets no reads until then",
            follows.unwrap_or_else(plain)
        )),
        Reason::NeverSynced => Line::Warn(format!(
            "replica {name} {} and has never finished a synchronisation with it: it gets no reads",
            follows.unwrap_or_else(plain)
        )),
        Reason::ForeignHistory => {
            let primary = view.primary.and_then(|id| view.node(id)).map(Node::name).unwrap_or_default();
            let follows = follows.unwrap_or_else(plain);
            Line::Warn(format!(
                "replica {name} {follows}, and holds another history than the primary {primary}: it gets no reads"
            ))
        }
        _ => Line::Warn(match follows {
            Some(follows) => format!("replica {name} {follows}, and has no link to it: it gets no reads"),
            None => format!("replica {name} has no link to {leader}: it gets no reads"),
        }),
    }
}

/// Under this policy nothing but the health of a replica counts.
pub(super) fn lenient() -> Policy {
    Policy { consistency: Consistency::Eventual, ..Policy::default() }
}

/// How a node serves as a replica, by a lenient policy; `None`: that is not settled, or it is none.
pub(super) fn service(node: &Node, view: &View, policy: &Policy, now: Moment) -> Option<Service> {
    let ask = Ask {
        view,
        policy,
        policy_id: PolicyId::default(),
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
    match judge(node, &ask) {
        Err(Reason::ForeignHistory) if view.history.is_none() => None,
        service @ (Ok(())
        | Err(
            Reason::Silent
            | Reason::Loading
            | Reason::Syncing
            | Reason::NeverSynced
            | Reason::ForeignHistory
            | Reason::LinkDown,
        )) => Some(service),
        Err(_) => None,
    }
}
