//! What the rules look at: what was seen, of late and before, and what is configured.

use std::time::Duration;

use crate::core::diagnose::history::Incident;
use crate::core::diagnose::seen::{Look, Report, Seen};
use crate::core::moment::Moment;
use crate::core::nodes::node::LinkDown;
use crate::core::position::History;
use crate::mutant;

/// What is configured, and what Redweir itself goes by.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Context {
    /// `[upstream] primary`
    pub primary: Option<String>,
    /// As whom Redweir asks; `None`: the default user.
    pub user: Option<String>,
    /// The shortest `max-lag` of a policy that bounds reads.
    pub max_lag: Option<Duration>,
    /// Some policy allows reads of a replica that is cut off.
    pub allows_stale: bool,
    /// `[stream] source = "primary"`
    pub stream_from_primary: bool,
    /// Who is followed as the primary, and for what; absent where nobody decides.
    pub followed: Option<(String, &'static str)>,
    /// Nothing decides between several: what needs the primary is refused.
    pub undecided: bool,
}

/// What was seen.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    /// The looks that are remembered, the oldest first; never empty.
    pub looks: &'a [Look],
    /// The last of them.
    pub now: &'a Look,
    /// What has happened.
    pub incidents: &'a [Incident],
    /// What is configured.
    pub context: &'a Context,
}

impl<'a> Scene<'a> {
    /// Those that say that they are the primary, each process once.
    pub fn claimants(&self) -> Vec<&'a Seen> {
        let mut claims: Vec<&Seen> = Vec::new();
        for seen in self.now.nodes.iter().filter(|seen| seen.as_primary().is_some()) {
            let is_known =
                claims.iter().any(|known| known.run_id().is_some() && known.run_id() == seen.run_id());
            if !is_known {
                claims.push(seen);
            }
        }
        claims
    }

    /// The primary: the one that is followed if it says so; else the one that is configured; else whoever says so.
    pub fn primary(&self) -> Option<&'a Seen> {
        let claims = self.claimants();
        let called = |name: Option<&String>| claims.iter().find(|seen| Some(&seen.node) == name).copied();
        called(self.context.followed.as_ref().map(|(node, _)| node))
            .or_else(|| called(self.context.primary.as_ref()))
            .or_else(|| claims.first().copied())
    }

    /// Who should be the primary, whether it answers or not.
    pub fn expected_primary(&self) -> Option<&'a Seen> {
        let name = self.context.followed.as_ref().map(|(node, _)| node).or(self.context.primary.as_ref());
        self.primary().or_else(|| self.now.node(name?))
    }

    /// The replicas that answer, each with its `INFO`.
    pub fn replicas(&self) -> impl Iterator<Item = (&'a Seen, &'a Report)> {
        self.now.nodes.iter().filter_map(|seen| Some((seen, seen.as_replica()?)))
    }

    /// The look before the last that is at least so old, or the oldest, if there is another than the last.
    pub fn before(&self, at_least: Duration) -> Option<&'a Look> {
        let (_, earlier) = self.looks.split_last()?;
        earlier.iter().rev().find(|look| self.now.at.since(look.at) >= at_least).or(earlier.first())
    }

    /// The same node as it was in that look, if it is the same process.
    pub fn then(look: &'a Look, seen: &Seen) -> Option<&'a Seen> {
        look.node(&seen.node).filter(|then| then.run_id().is_some() && then.run_id() == seen.run_id())
    }

    /// How long something has been so, as far as the looks reach back without a break.
    pub fn lasting(&self, is_so: impl Fn(&Look) -> bool) -> Duration {
        let since = self.looks.iter().rev().take_while(|look| is_so(look)).last();
        since.map_or(Duration::ZERO, |look| self.now.at.since(look.at))
    }

    /// How long ago.
    pub fn ago(&self, at: Moment) -> Duration {
        self.now.at.since(at)
    }
}

/// Whether two histories are one, or one goes on from the other.
pub fn are_related(one: Option<History>, other: Option<History>) -> Option<bool> {
    let (one, other) = one.zip(other)?;
    Some(one.continues(other.id) || other.continues(one.id))
}

/// Whether a full resync of a replica runs, or is being prepared: by its own word, or by its primary's, which is heard of
/// earlier, while the primary still waits for others to come (`repl-diskless-sync-delay`) or writes its dump.
pub fn is_resyncing(replica: &Report, primary: Option<&Report>) -> bool {
    let is_expected = |primary: &Report| {
        replica.port.is_some_and(|port| primary.resyncing.iter().any(|(_, theirs)| *theirs == port))
    };
    let resyncs = replica.sync_in_progress || replica.loading || primary.is_some_and(is_expected);
    resyncs && !mutant::is("resync-is-broken")
}

/// Whether a replica has its link up, and the history of the primary.
pub fn is_linked(replica: &Report, primary: &Report) -> bool {
    replica.link_up == Some(true) && are_related(replica.history, primary.history) != Some(false)
}

/// Whether a link is down, and was lost, or its replica started, so short a time ago that it may be back at once: replicas try
/// each second.
pub fn is_on_its_way(replica: &Report) -> bool {
    replica.link_up == Some(false) && down_for(replica) < BACK_WITHIN
}

/// A link that was lost comes back by then, if nothing stands in its way.
const BACK_WITHIN: Duration = Duration::from_secs(2);

/// For how long a link has been down; zero when that is not told.
pub fn down_for(replica: &Report) -> Duration {
    match replica.link_down {
        Some(LinkDown::For(span)) => span,
        Some(LinkDown::Never) => Duration::from_secs(replica.uptime_seconds.unwrap_or(0)),
        None => Duration::ZERO,
    }
}
