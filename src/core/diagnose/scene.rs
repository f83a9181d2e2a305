//! What the rules look at: what was seen, of late and before, and what is configured.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::core::address::Address;
use crate::core::diagnose::finding;
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
    /// `[upstream] address-map`: where nodes are reached that servers announce otherwise.
    pub address_map: BTreeMap<Address, Address>,
    /// `[upstream.tls]`
    pub tls: bool,
    /// `[upstream.sentinel.tls]`
    pub sentinel_tls: bool,
    /// The looks go on for as long as the process runs: what is too young to be judged, a later one judges.
    pub goes_on: bool,
}

impl Context {
    /// `redis-cli` for this node.
    pub fn cli(&self, node: &str) -> String {
        finding::cli(node, self.tls)
    }

    /// `redis-cli` for this sentinel.
    pub fn sentinel_cli(&self, sentinel: &str) -> String {
        finding::cli(sentinel, self.sentinel_tls)
    }

    /// How `node` becomes a replica of `primary`.
    pub fn follow(&self, node: &str, primary: &str) -> String {
        finding::follow(&self.cli(node), primary)
    }

    /// By which address the node is reached of which a server says that it is here: as nodes and strangers are named.
    pub fn reached(&self, host: &str, port: u16) -> Option<String> {
        let announced = Address::announced(host, port)?;
        Some(self.address_map.get(&announced).unwrap_or(&announced).to_string())
    }
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

    /// The primary: the one that is followed if it says so; else the right one, the one that is configured, or whoever says so.
    pub fn primary(&self) -> Option<&'a Seen> {
        let claims = self.claimants();
        let configured = || claims.iter().find(|seen| Some(&seen.node) == self.context.primary.as_ref());
        self.right()
            .map(|(right, _)| right)
            .or_else(|| configured().copied())
            .or_else(|| claims.first().copied())
    }

    /// Which of those that say that they are the primary is, and how that shows; `None`: nothing tells. That one of them is
    /// configured is no sign: after a failover it is the old one.
    pub fn right(&self) -> Option<(&'a Seen, &'static str)> {
        let claims = self.claimants();
        let called = |name: &str| claims.iter().find(|seen| seen.node == name).copied();
        let followed = self.context.followed.as_ref().filter(|_| !self.context.undecided);
        if let Some((right, why)) = followed.and_then(|(node, why)| Some((called(node)?, *why))) {
            return Some((right, why));
        }
        let newest = self.now.sentinels.iter().filter(|sentinel| sentinel.names.is_some());
        let newest =
            newest.max_by_key(|sentinel| sentinel.epoch).and_then(|sentinel| sentinel.names.as_ref());
        if let Some(right) = newest.and_then(|name| called(name)) {
            return Some((right, "the sentinels name it"));
        }
        let history = |seen: &Seen| seen.report.as_ref().and_then(|report| report.history);
        let goes_on_elsewhere = |seen: &Seen| {
            let later = |other: &&Seen| {
                let (ours, theirs) = history(seen).zip(history(other))?;
                Some(ours.id != theirs.id && theirs.continues(ours.id))
            };
            claims.iter().any(|other| later(other) == Some(true))
        };
        let latest = only(claims.iter().map(|seen| (*seen, !goes_on_elsewhere(seen))));
        // Whoever only follows the stream, as Redweir does, names no port.
        let has_replicas = |seen: &Seen| {
            let report = seen.report.as_ref()?;
            let mut listed = report.online.iter().chain(&report.resyncing);
            Some(report.connected_replicas? > 0 && listed.any(|(_, port)| *port > 0))
        };
        let counts: Option<Vec<(&Seen, bool)>> =
            claims.iter().map(|seen| Some((*seen, has_replicas(seen)?))).collect();
        let followed = counts.and_then(|counts| only(counts.into_iter()));
        match (latest, followed) {
            // A replica that was promoted by mistake goes on as well, and none of the others has heard of it.
            (Some(latest), Some(followed)) if latest.node != followed.node => None,
            (Some(latest), _) => {
                Some((latest, "by master_replid2 its history goes on from that of the other"))
            }
            (None, followed) => Some((followed?, "only it has replicas")),
        }
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

    /// For how long the link of a replica that is seen now has been down, at least; zero when that is not told.
    pub fn down_for(&self, seen: &Seen, replica: &Report) -> Duration {
        match replica.link_down {
            Some(LinkDown::For(span)) => span,
            Some(LinkDown::Never) => self.never_for(seen, replica),
            None => Duration::ZERO,
        }
    }

    /// For how long a replica has been without a link to this primary, if it has never had one. It says the same just after
    /// `REPLICAOF`, whatever it was before: so only the looks tell. Where they end soon it is taken for started as a replica if
    /// that is not long ago.
    pub fn never_for(&self, seen: &Seen, replica: &Report) -> Duration {
        let is_so = |look: &Look| {
            let then = look.node(&seen.node).and_then(Seen::as_replica);
            let then = then.filter(|then| then.master == replica.master);
            then.is_some_and(|then| then.link_up != Some(true) && then.link_down == Some(LinkDown::Never))
        };
        let uptime = replica.uptime_seconds.map(Duration::from_secs);
        let uptime = uptime.filter(|uptime| !self.context.goes_on && *uptime <= STARTED_AS_A_REPLICA);
        self.lasting(is_so).max(uptime.unwrap_or_default())
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

/// The one of which it is so, if it is so of no other.
fn only<'a>(all: impl Iterator<Item = (&'a Seen, bool)>) -> Option<&'a Seen> {
    let mut those = all.filter(|(_, is_so)| *is_so);
    let (only, _) = those.next()?;
    those.next().is_none().then_some(only)
}

/// Whether a full resync of a replica runs, or is being prepared: by its own word, or by its primary's, which is heard of
/// earlier, while the primary still waits for others to come (`repl-diskless-sync-delay`) or writes its dump.
pub fn is_resyncing(
    look: &Look,
    context: &Context,
    (seen, replica): (&Seen, &Report),
    primary: Option<&Report>,
) -> bool {
    // One that is listed waits for an answer, or receives it, and does not try to connect.
    let tries = |seen: &Seen| matches!(seen.link_state, Some("connect" | "connecting"));
    let could_be =
        |other: &Seen, report: &Report| report.link_up != Some(true) && (tries(seen) || !tries(other));
    let is_expected =
        |primary: &Report| is_listed(look, context, (seen, replica), &primary.resyncing, could_be);
    let resyncs = replica.sync_in_progress || replica.loading || primary.is_some_and(is_expected);
    resyncs && !mutant::is("resync-is-broken")
}

/// Whether a replica is among those that its primary lists, by its address, as far as that is one by which we know it. Else by
/// its port, if there are as many entries with it as there are replicas that they could mean: those of which `could_be` holds.
pub fn is_listed(
    look: &Look,
    context: &Context,
    (seen, replica): (&Seen, &Report),
    entries: &[(String, u16)],
    could_be: impl Fn(&Seen, &Report) -> bool,
) -> bool {
    let entries: Vec<(Option<String>, u16)> =
        entries.iter().map(|(host, port)| (context.reached(host, *port), *port)).collect();
    let is_of = |node: &str, entry: &(Option<String>, u16)| entry.0.as_deref() == Some(node);
    let is_found = |node: &str| entries.iter().any(|entry| is_of(node, entry));
    if is_found(&seen.node) {
        return true;
    }
    let replicas = || look.nodes.iter().filter_map(|other| Some((other, other.as_replica()?)));
    let strays: Vec<u16> = entries
        .iter()
        .filter(|entry| !look.nodes.iter().any(|other| is_of(&other.node, entry)))
        .map(|(_, port)| *port)
        .collect();
    let others: Vec<Vec<u16>> = replicas()
        .filter(|(other, report)| other.node != seen.node && could_be(other, report))
        .filter(|(other, _)| !is_found(&other.node))
        .map(|(other, report)| ports(other, report))
        .collect();
    ports(seen, replica).iter().any(|port| {
        let listed = strays.iter().filter(|listed| *listed == port).count();
        listed > others.iter().filter(|theirs| theirs.contains(port)).count()
    })
}

/// Under which port a primary may list a replica: the one that it announces, or one of those at which it listens.
fn ports(seen: &Seen, replica: &Report) -> Vec<u16> {
    let announced = seen.settings.announced_port.filter(|port| *port > 0);
    let tls = seen.settings.tls_port.filter(|port| *port > 0);
    let ours = finding::place(&seen.node).and_then(|(_, port)| port.parse().ok());
    announced.map_or_else(|| [replica.port, tls, ours].into_iter().flatten().collect(), |port| vec![port])
}

/// Whether a replica has its link up, and the history of the primary.
pub fn is_linked(replica: &Report, primary: &Report) -> bool {
    replica.link_up == Some(true) && are_related(replica.history, primary.history) != Some(false)
}

/// Whether a link is down, and was lost, or its replica started, so short a time ago that it may be back at once: replicas try
/// each second.
pub fn is_on_its_way(replica: &Report) -> bool {
    let is_young = match replica.link_down {
        Some(LinkDown::For(span)) => span < BACK_WITHIN,
        Some(LinkDown::Never) => replica.uptime_seconds.is_none_or(|up| up < BACK_WITHIN.as_secs()),
        None => true,
    };
    replica.link_up == Some(false) && is_young
}

/// A link that was lost comes back by then, if nothing stands in its way.
const BACK_WITHIN: Duration = Duration::from_secs(2);

/// Whoever says that it has never had a link and was started no longer ago was started as a replica, as far as one can tell.
pub const STARTED_AS_A_REPLICA: Duration = Duration::from_mins(10);
