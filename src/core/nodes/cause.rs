//! Why no primary answers, in words for people. Nothing is decided by it.

use std::fmt::Write as _;

use crate::core::nodes::election::second_primaries;
use crate::core::nodes::node::{Node, Role};
use crate::core::nodes::trouble::Problem;
use crate::core::nodes::view::View;

/// Nodes that one sentence names.
const NAMED: usize = 3;

/// Why no primary answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause<'a> {
    /// Several nodes say that they are, and nothing decides.
    TwoPrimaries(Vec<&'a Node>),
    /// The primary has this problem.
    Troubled(&'a Node, &'a Problem),
    /// The primary was not heard of, and nobody knows why.
    Silent(&'a Node),
    /// None of these says that it is.
    NobodyIs(Vec<&'a Node>),
    /// No node is known.
    NoNode,
}

impl<'a> Cause<'a> {
    /// By a view; `None`: the primary answers.
    pub fn of(view: &'a View) -> Option<Self> {
        if view.two_primaries {
            return Some(Self::TwoPrimaries(second_primaries(view)));
        }
        let Some(primary) = view.primary.and_then(|id| view.node(id)) else {
            let nodes: Vec<&Node> = view.members().collect();
            return Some(if nodes.is_empty() { Self::NoNode } else { Self::NobodyIs(nodes) });
        };
        match primary.problem() {
            Some(problem) if primary.silent_since.is_some() || primary.is_busy() => {
                Some(Self::Troubled(primary, problem))
            }
            _ if primary.silent_since.is_some() || primary.heard_at.is_none() => Some(Self::Silent(primary)),
            _ => None,
        }
    }

    /// In words. Without `names` it tells nothing of where nodes are.
    pub fn text(&self, names: bool) -> String {
        let name = |node: &Node| if names { node.name() } else { "the primary".to_owned() };
        match self {
            Self::TwoPrimaries(nodes) if names => {
                format!("{} say that they are the primary", listed(nodes, Node::name))
            }
            Self::TwoPrimaries(_) => "two nodes say that they are the primary".to_owned(),
            Self::Troubled(node, problem) => format!("{} {}", name(node), problem.advice(names)),
            Self::Silent(node) => format!("{} has not answered yet", name(node)),
            Self::NobodyIs(nodes) if names => {
                format!("no node says that it is: {}", listed(nodes, is_instead))
            }
            Self::NobodyIs(_) => "no node says that it is".to_owned(),
            Self::NoNode => "no node is known yet".to_owned(),
        }
    }
}

/// What a node is that is not the primary.
fn is_instead(node: &Node) -> String {
    let name = node.name();
    match (node.role, node.problem()) {
        (Some(Role::Primary), _) => format!("{name} says so, and nothing else does"),
        (Some(Role::Replica), _) => match node.leader() {
            Some(leader) => format!("{name} is a replica of {leader}"),
            None => format!("{name} is a replica"),
        },
        (None, Some(problem)) => format!("{name} {}", problem.text(true)),
        (None, None) => format!("{name} has not answered yet"),
    }
}

fn listed(nodes: &[&Node], say: impl Fn(&Node) -> String) -> String {
    let mut text = nodes.iter().take(NAMED).map(|node| say(node)).collect::<Vec<_>>().join(", ");
    if let Some(others) = nodes.len().checked_sub(NAMED).filter(|others| *others > 0) {
        // Writing to a `String` cannot fail.
        let _ = write!(text, ", and {others} more");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::core::address::Address;
    use crate::core::fence::AnchorSeq;
    use crate::core::moment::Moment;
    use crate::core::nodes::node::{Link, NodeId};
    use crate::core::nodes::view::{Observation, Patience, Tracker};
    use crate::core::policy::Policies;
    use crate::core::position::Offset;

    const AT: Moment = Moment::from_millis(1);

    fn tracker(primary: Option<NodeId>) -> Tracker {
        let second = Duration::from_secs(1);
        let nodes = (1..=5).map(|port| Address::tcp("n", port)).collect();
        Tracker::new(nodes, primary, Policies::default(), Patience { silence: second, hold: second })
    }

    fn text(tracker: &Tracker, names: bool) -> Option<String> {
        Cause::of(tracker.view()).map(|cause| cause.text(names))
    }

    fn hear(tracker: &mut Tracker, observation: Observation) {
        let _ = tracker.apply(observation, AT);
    }

    #[test]
    fn the_cause_is_that_of_the_primary_as_long_as_it_lasts() {
        let node = NodeId(0);
        let mut tracker = tracker(Some(node));
        assert_eq!(text(&tracker, true).unwrap(), "n:1 has not answered yet");
        let problem = Problem::of_error("NOAUTH Authentication required.");
        hear(&mut tracker, Observation::Troubled { node, problem });
        hear(&mut tracker, Observation::Lost { node });
        let advice = "refused its password (NOAUTH): set [upstream] password-file";
        assert_eq!(text(&tracker, true).unwrap(), format!("n:1 {advice}"));
        assert_eq!(text(&tracker, false).unwrap(), format!("the primary {advice}"));
        let seq = AnchorSeq(1);
        let offset = Offset::from_reported(1).unwrap();
        let _ =
            tracker.apply(Observation::Primary { node, seq, sent_at: AT, offset }, Moment::from_millis(7));
        assert_eq!(text(&tracker, true), None);
        let trouble = tracker.view().node(node).and_then(|node| node.trouble.clone()).unwrap();
        assert_eq!((trouble.since, trouble.over), (AT, Some(Moment::from_millis(7))));
    }

    #[test]
    fn whoever_is_no_primary_is_named_with_what_it_is_instead_but_not_to_everybody() {
        let mut tracker = tracker(Some(NodeId(0)));
        for node in [NodeId(0), NodeId(1)] {
            let master = ("else\r\nwhere".to_owned(), 7);
            hear(&mut tracker, Observation::Replica { node, link: Link::Up, master, applied: None });
        }
        let told = text(&tracker, true).unwrap();
        let expected = "no node says that it is: n:1 is a replica of else\\r\\nwhere:7, n:2 is a replica of \
                        else\\r\\nwhere:7, n:3 has not answered yet, and 2 more";
        assert_eq!(told, expected);
        assert_eq!(text(&tracker, false).unwrap(), "no node says that it is");
    }
}
