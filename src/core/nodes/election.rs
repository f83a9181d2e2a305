//! Who the primary is, among those that say so.

use std::time::Duration;

use crate::core::moment::Moment;
use crate::core::nodes::node::{Link, Node, NodeId, Role};
use crate::core::nodes::view::View;
use crate::core::position::History;
use crate::mutant;

/// How long a replica must say that it was promoted before that alone is believed, while the primary that it had says
/// nothing of the kind and nobody follows either.
pub const PROMOTION_LASTS: Duration = Duration::from_secs(1);

/// How long whoever was the primary of a shard of a cluster has to say that it is none any longer, once another one is named: a few
/// polls.
pub const HANDED_OVER_WITHIN: Duration = Duration::from_millis(400);

/// What it comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elected {
    /// This one is the primary, and why.
    Node(NodeId, Claim),
    /// Nobody has a claim to it that is to be believed: whoever was it stays.
    Nobody,
    /// Several say so, and nothing decides between them.
    Undecided,
}

/// What a node is followed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Claim {
    /// It was the primary before, by the configuration or because nobody else was.
    #[default]
    First,
    /// It continues the history that was known, under a new replication ID, and something besides its own word says so.
    Promoted,
    /// Sentinels have named it.
    Named,
    /// Nobody else says that it is the primary.
    Alone,
}

impl Claim {
    /// In words.
    pub const fn text(self) -> &'static str {
        match self {
            Self::First => "it was the primary before",
            Self::Promoted => "it continues the history that is known",
            Self::Named => "it was named the primary",
            Self::Alone => "it was followed when nobody else said so",
        }
    }
}

/// What speaks for a node besides its own word.
#[derive(Clone, Copy, Debug, Default)]
pub struct Election {
    /// Who is called the primary by those whose business it is.
    named: Option<NodeId>,
    /// It was named after the present primary was followed.
    named_since: bool,
    /// Nobody else is followed as long as somebody is called the primary.
    by_name: bool,
    /// When somebody else was called so.
    named_at: Moment,
}

impl Election {
    /// Whoever is called the primary is the only one that may be, whatever speaks for others: in a cluster that is whoever has the
    /// slots. A replica that was taken out of it (`CLUSTER RESET`) continues the history and says that it is a primary,
    /// too.
    pub fn by_name() -> Self {
        Self { by_name: true, ..Self::default() }
    }

    /// Whether the primary before, which answers, has yet to be heard that it is none any longer. It may hold writes until then
    /// (`CLUSTER FAILOVER` pauses clients), and says what becomes of them; who takes its connections away never knows.
    fn is_handed_over(&self, view: &View, named: NodeId, now: Moment) -> bool {
        let before = view.primary.filter(|before| *before != named).and_then(|before| view.node(before));
        let holds = |node: &Node| node.role == Some(Role::Primary) && node.silent_since.is_none();
        before.is_some_and(holds) && now.since(self.named_at) < HANDED_OVER_WITHIN
    }

    /// Whether somebody who is not called the primary has lately begun to say so, which those should be asked about whose
    /// business it is.
    pub fn is_name_wanted(&self, view: &View, now: Moment) -> bool {
        let is_lately = |since: Moment| now.since(since) < PROMOTION_LASTS;
        self.by_name
            && claims(view)
                .iter()
                .any(|node| Some(node.id) != self.named && node.primary_since.is_some_and(is_lately))
    }

    /// `node` is called the primary from now on. False: as before.
    pub fn name(&mut self, node: Option<NodeId>, now: Moment) -> bool {
        let is_news = self.named != node;
        if is_news {
            (self.named, self.named_since, self.named_at) = (node, true, now);
        }
        is_news
    }

    /// Another one is followed than before.
    pub fn is_over(&mut self) {
        self.named_since = false;
    }

    /// Who is the primary by the view. `past` is the last history known.
    ///
    /// The last known primary is kept until another node itself says `master` and has a claim to it. Whoever is called the
    /// primary has, unless it was called so already when the present one took over from it. Of several others, the one that
    /// continues our history under a new replication ID was promoted later, if anything but its own word says so, and
    /// of several such the only one that others follow; otherwise the one we had stays; otherwise nobody can tell.
    pub fn elect(&self, view: &View, past: Option<History>, now: Moment) -> Elected {
        let claims = claims(view);
        if let Some(named) = self.named.filter(|_| self.by_name && !mutant::is("unnamed-leads")) {
            let claim = if view.primary == Some(named) { Claim::First } else { Claim::Named };
            // It may be known by two addresses.
            let is_there = view.node(named).is_some_and(|node| node.role == Some(Role::Primary));
            let is_led = is_there && !self.is_handed_over(view, named, now);
            return if is_led { Elected::Node(named, claim) } else { Elected::Nobody };
        }
        let ours = view.history.map(|h| h.id);
        let kept = claims.iter().find(|n| Some(n.id) == view.primary);
        let promoted = |n: &&&Node| match (ours, n.history()) {
            (Some(old), Some(h)) => {
                h.id != old
                    && h.continues(old)
                    && kept.is_none_or(|known| is_corroborated(view, n, known, now))
            }
            _ => false,
        };
        let named = claims.iter().find(|n| Some(n.id) == self.named).map(|n| n.id);
        // The primary that we have needs no name, and an old name is none against it, even if it misses a poll.
        let named =
            named.filter(|named| view.primary.is_none_or(|primary| primary != *named && self.named_since));
        let elected = match claims.as_slice() {
            _ if mutant::is("named-is-primary") && self.named.is_some() => {
                self.named.map(|id| (id, Claim::Named))
            }
            [] => None,
            _ if named.is_some() => named.map(|id| (id, Claim::Named)),
            [only] => self.may_follow(view, only, past, now).then(|| (only.id, self.claim_of(only, past))),
            several => {
                let promoted: Vec<&Node> = several.iter().filter(promoted).copied().collect();
                let one =
                    only_one(&promoted, |_| true).or(only_one(&promoted, |node| is_followed(view, node)));
                one.map(|id| (id, Claim::Promoted)).or(kept.map(|node| (node.id, Claim::First)))
            }
        };
        match elected {
            Some((id, claim)) => Elected::Node(id, claim),
            None if claims.len() > 1 => Elected::Undecided,
            None => Elected::Nobody,
        }
    }

    /// What a node is followed for that alone says `master`.
    fn claim_of(&self, node: &Node, past: Option<History>) -> Claim {
        match past.zip(node.history()) {
            _ if self.named == Some(node.id) => Claim::Named,
            Some((past, new)) if new.continues(past.id) => Claim::Promoted,
            _ => Claim::Alone,
        }
    }

    /// Whether a node that alone says `master` is to be believed: it is the one we know, or continues its history, or
    /// that one says that it is a replica or has not answered for longer than `hold`. A replica that was started
    /// without its `replicaof` must not get the writes because it was heard first, or while a connection is renewed. As long
    /// as another one is called the primary, nobody gets them for being alone.
    fn may_follow(&self, view: &View, node: &Node, past: Option<History>, now: Moment) -> bool {
        let continues = past.zip(node.history()).is_some_and(|(past, new)| new.continues(past.id));
        let is_named = self.named.is_none_or(|named| named == node.id);
        let Some(known) = view.primary.and_then(|id| view.node(id)) else {
            return continues || is_named;
        };
        let silent = known.silent_since.is_some_and(|since| now.since(since) > view.hold);
        let is_alone = silent || known.role == Some(Role::Replica);
        known.id == node.id || continues || is_named && is_alone
    }
}

/// Nodes that say that they are the primary beside the one that is followed; all that say so, if nothing decides between
/// several.
pub fn second_primaries(view: &View) -> Vec<&Node> {
    let mut claims = claims(view);
    if claims.len() < 2 {
        claims.clear();
    }
    claims.retain(|node| view.two_primaries || Some(node.id) != view.primary);
    claims
}

/// Who says that it is the primary, each process once: one that is known by two addresses is no rival of its own. The one
/// that is followed comes first.
fn claims(view: &View) -> Vec<&Node> {
    let mut claims: Vec<&Node> = view.members().filter(|n| n.role == Some(Role::Primary)).collect();
    claims.sort_by_key(|node| Some(node.id) != view.primary);
    let mut processes = Vec::new();
    claims.retain(|node| {
        let process = node.process();
        let is_new = process.is_none() || !processes.contains(&process);
        processes.push(process);
        is_new
    });
    claims
}

/// The one of which this is so, if it is so of one only.
fn only_one(nodes: &[&Node], is_so: impl Fn(&Node) -> bool) -> Option<NodeId> {
    let mut found = nodes.iter().filter(|node| is_so(node));
    found.next().filter(|_| found.next().is_none()).map(|node| node.id)
}

/// Whether the promotion of `node` is more than its own word, while `known` still says that it is the primary. A
/// replica that was cut loose for a moment (`REPLICAOF NO ONE`, and back) says so, too, and must not get the writes.
/// It counts that another node follows it, or that it goes on for [`PROMOTION_LASTS`] while nobody follows `known`.
fn is_corroborated(view: &View, node: &Node, known: &Node, now: Moment) -> bool {
    if mutant::is("promotion-by-hearsay") {
        return true;
    }
    let lasts = node.primary_since.is_some_and(|since| now.since(since) >= PROMOTION_LASTS);
    is_followed(view, node) || lasts && !is_followed(view, known)
}

/// Whether a replica has its link to this primary up. By its replication ID, which replicas take over: the address by
/// which they know it may be another one than ours.
fn is_followed(view: &View, primary: &Node) -> bool {
    let Some(ours) = primary.history() else { return false };
    let follows = |node: &Node| {
        node.role == Some(Role::Replica)
            && node.link == Some(Link::Up)
            && node.silent_since.is_none()
            && node.history().is_some_and(|theirs| theirs.id == ours.id)
    };
    view.members().any(follows)
}
