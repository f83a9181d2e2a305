//! What the log, and a counter, say of primaries: that another one is followed, that a second one is there, and that one is there without what it had.

use std::time::Duration;

use crate::core::moment::Moment;
use crate::core::nodes::election;
use crate::core::nodes::node::{Node, NodeId};
use crate::core::nodes::view::View;
use crate::core::stream::lost::Ended;
use crate::telemetry::Counter;

/// How long two must say so before that is told: in an orderly failover both do between two polls.
const TOLD_AFTER: Duration = Duration::from_millis(300);

/// What was told last, so that it is told once.
#[derive(Debug, Default)]
pub struct Primaries {
    /// Who says so beside whom.
    told: Option<Told>,
    /// A history that ended, until the new one is known to stand where.
    ended: Option<Ended>,
    /// Who said last that it is the primary, and was followed.
    last: Option<NodeId>,
}

#[derive(Debug, PartialEq, Eq)]
struct Told {
    followed: Option<NodeId>,
    others: Vec<NodeId>,
}

impl Primaries {
    /// A history has ended, and the primary does not go on from it.
    pub fn ends(&mut self, ended: Ended) {
        self.ended = Some(ended);
    }

    /// Looks at a view, counts the changes of the primary, and tells what is new.
    pub fn look(&mut self, view: &View, changes: &Counter, now: Moment) {
        if let Some((ended, head)) = self.ended.take_if(|_| view.head.is_some()).zip(view.head) {
            let node = view.primary.and_then(|id| view.node(id)).map(Node::name).unwrap_or_default();
            tracing::warn!(
                "the primary {node} does not go on from what was there before: {}",
                ended.text(head.offset)
            );
        }
        let present = view.primary.and_then(|id| view.node(id)).filter(|node| node.is_primary());
        if let Some(id) = present.map(|node| node.id)
            && self.last.replace(id).is_some_and(|last| last != id)
        {
            changes.add(1);
        }
        let others = election::second_primaries(view);
        let followed = view.primary.filter(|_| !view.two_primaries);
        let all = || others.iter().copied().chain(followed.and_then(|id| view.node(id)));
        let youngest = all().filter_map(|node| node.primary_since).max();
        let lasts = youngest.is_some_and(|since| now.since(since) >= TOLD_AFTER);
        let ids = || others.iter().map(|node| node.id).collect();
        let present = (!others.is_empty()).then(|| Told { followed, others: ids() });
        if present == self.told || present.is_some() && !lasts {
            return;
        }
        match &present {
            None => tracing::info!("no more than one node says that it is the primary"),
            Some(_) => tell_of_second(view, followed, &others),
        }
        self.told = present;
    }
}

fn tell_of_second(view: &View, followed: Option<NodeId>, others: &[&Node]) {
    let names: Vec<String> = others.iter().map(|node| node.name()).collect();
    let names = names.join(", ");
    if let Some(followed) = followed.and_then(|id| view.node(id)).map(Node::name) {
        let why = view.claim.text();
        tracing::warn!(
            "a second node says that it is the primary: {names} is not followed; {followed} is, because {why}"
        );
    } else {
        tracing::warn!(
            "several nodes say that they are the primary, and nothing decides between {names}: what needs the primary is refused"
        );
    }
}
