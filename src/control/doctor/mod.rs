//! Looks at all nodes again and again, over connections of its own, and publishes what the doctor finds
//! ([`crate::core::diagnose`]). It asks seldom, only what changes nothing, and nobody waits for it.

mod cluster;
pub mod examine;
mod patient;
mod sentinels;
mod shard;
mod ward;

use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::core::address::Address;
use crate::core::diagnose::record::{Changes, Cleared, Record, Standing};
use crate::core::diagnose::{Context, Memory, Severity, diagnose, is_unseen};
use crate::core::moment::{Moment, in_words};
use crate::core::nodes::node::{Link, Node, NodeId, Role};
use crate::core::nodes::rights::Rules;
use crate::core::nodes::view::View;
use crate::core::policy::Consistency;
use crate::core::stream::source::StreamSource;
use crate::net::runtime::clock;
use crate::net::runtime::jitter;
use crate::net::socket::dial::Dialer;
use crate::shard::doctor::DoctorReport;
use crate::shard::overall;
use crate::shard::shared::Shared;
use patient::Leave;
use sentinels::Sentinels;
use ward::{Access, Ward};

/// Between two looks while nothing is wrong, …
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// … while something is, …
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// … and at least, when a node has changed, or when one look alone has shown something.
const LOOK_GAP: Duration = Duration::from_secs(1);
/// When the first look is, at the latest.
const FIRST_LOOK: Duration = Duration::from_secs(2);
/// How often it is seen whether a node has changed.
const NOTICE: Duration = Duration::from_millis(250);

/// Looks, for as long as the process runs.
pub async fn watch(shared: Arc<Shared>, sentinels: Dialer) {
    let mut ward = Ward::new(shared.dialer.clone());
    let mut sentinels = Sentinels::new(sentinels);
    let (mut memory, mut record) = (Memory::default(), Record::that_goes_on());
    let mut before: Vec<(NodeId, Address)> = Vec::new();
    until_polled(&shared).await;
    loop {
        let begun = clock::now();
        let signs = Signs::of(&shared.shard().view.load());
        let (access, nodes) = (Access::of(&shared.config()), nodes(&shared));
        // Whoever is at the same address now is somebody else: a connection would stay where it is.
        for (node, address) in before.iter().filter(|known| !nodes.contains(known)) {
            tracing::debug!(%node, %address, "the doctor looks at this node no longer");
            ward.forget(address);
        }
        before.clone_from(&nodes);
        let visits: Vec<(Address, Leave)> =
            nodes.into_iter().map(|(node, address)| (address, leave(&shared, node))).collect();
        let mut look = ward.look(&visits, &access, begun).await;
        let settings = shared.config().upstream.sentinel.clone();
        let map = shared.config().upstream.address_map.clone();
        look.sentinels = sentinels.ask(settings.as_ref(), &map, &access).await;
        // What is refused here is refused for all shards: one tells of it.
        let for_all = overall::speaks_for_all(&shared);
        look.denied = for_all.then(|| shared.stats.iter().map(|stats| stats.denied.value()).sum());
        look.slots = shard::slots(&shared, begun);
        memory.take(look);
        let context = context_of(&shared);
        let (looks, incidents) = memory.all();
        let unseen = |node: &str| looks.last().is_some_and(|now| is_unseen(now, &context, node));
        let changes = record.take(diagnose(looks, incidents, &context), unseen, clock::unix());
        let standing = record.standing();
        tell(&changes, &shared);
        if let Some(now) = looks.last() {
            shared.shard().doctor.publish(DoctorReport::of(now, &standing));
        }
        let is_sick = standing.iter().any(|standing| standing.finding.severity > Severity::Info);
        let pause = match (record.is_in_doubt(), is_sick || !signs.are_good()) {
            (true, _) => LOOK_GAP,
            (false, true) => LOOK_AGAIN,
            (false, false) => LOOK_EVERY,
        };
        rest(&shared, &signs, begun, jitter::slightly_less(pause)).await;
    }
}

/// Until every node has answered its first poll or missed it: what is served depends on those, and they come first.
async fn until_polled(shared: &Shared) {
    let latest = clock::now().after(FIRST_LOOK);
    let is_polled = |node: &Node| node.heard_at.is_some() || node.silent_since.is_some();
    while clock::now() < latest && !shared.shard().view.load().members().all(is_polled) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Until the next look: when it is due, or when a node has changed.
async fn rest(shared: &Shared, before: &Signs, begun: Moment, pause: Duration) {
    let ends = clock::now().after(pause);
    loop {
        let now = clock::now();
        if now >= ends {
            return;
        }
        if now.since(begun) >= LOOK_GAP && Signs::of(&shared.shard().view.load()) != *before {
            return;
        }
        tokio::time::sleep(NOTICE.min(ends.since(now))).await;
    }
}

/// What of the view is reason enough for a look.
#[derive(Debug, PartialEq, Eq)]
struct Signs {
    primary: Option<NodeId>,
    two_primaries: bool,
    nodes: Vec<Sign>,
}

/// The same of one node.
#[derive(Debug, PartialEq, Eq)]
struct Sign {
    node: NodeId,
    role: Option<Role>,
    link: Option<Link>,
    is_silent: bool,
    is_open: bool,
}

impl Signs {
    fn of(view: &View) -> Self {
        let sign = |node: &Node| Sign {
            node: node.id,
            role: node.role,
            link: node.link,
            is_silent: node.silent_since.is_some(),
            is_open: node.standing.is_open(),
        };
        let nodes = view.members().map(sign).collect();
        Self { primary: view.primary, two_primaries: view.two_primaries, nodes }
    }

    /// Whether all is as it shall be, as far as the view tells: what is not yet worth telling may become so.
    fn are_good(&self) -> bool {
        let is_linked = |sign: &Sign| sign.role != Some(Role::Replica) || sign.link == Some(Link::Up);
        !self.two_primaries && self.nodes.iter().all(|sign| !sign.is_silent && is_linked(sign))
    }
}

/// Those of a shard that is no more are looked at as those of another.
fn nodes(shared: &Shared) -> Vec<(NodeId, Address)> {
    let view = shared.shard().view.load();
    let members = view.members().filter(|_| overall::is_told_of(shared));
    members.filter_map(|node| Some((node.id, node.address.as_deref().cloned()?))).collect()
}

/// What our user may be seen to ask of a node, by what the prober has heard of its rules.
fn leave(shared: &Shared, node: NodeId) -> Leave {
    let (view, config) = (shared.shard().view.load(), shared.config());
    let user = config.upstream.username.as_deref();
    let rules = view.node(node).and_then(|node| node.rules.as_deref());
    match rules {
        Some(Rules::None) => Leave::All,
        Some(rules @ Rules::Of(_)) => {
            rules.of(user.unwrap_or("default").as_bytes()).cloned().map_or(Leave::Nothing, Leave::By)
        }
        // The default user may do everything, unless somebody has seen to it.
        Some(Rules::Hidden) | None if user.is_none() => Leave::All,
        Some(Rules::Hidden) | None => Leave::Nothing,
    }
}

/// What is configured, and who is followed.
fn context_of(shared: &Shared) -> Context {
    let view = shared.shard().view.load();
    let followed = view.primary.and_then(|id| view.node(id)).map(|node| (node.name(), view.claim.text()));
    Context { followed, undecided: view.two_primaries, goes_on: true, ..configured(&shared.config()) }
}

/// What is configured.
fn configured(config: &Config) -> Context {
    let bounded = || config.policies.all.iter().filter(|policy| policy.consistency > Consistency::Eventual);
    Context {
        primary: config.upstream.primary.as_ref().map(ToString::to_string),
        user: config.upstream.username.clone(),
        max_lag: bounded().map(|policy| policy.max_lag).min(),
        allows_stale: config.policies.all.iter().any(|policy| policy.serve_stale),
        stream_from_primary: config.stream.source == StreamSource::Primary,
        followed: None,
        undecided: false,
        address_map: config.upstream.address_map.clone(),
        tls: config.upstream.tls.is_some(),
        sentinel_tls: config.upstream.sentinel.as_ref().is_some_and(|sentinel| sentinel.tls.is_some()),
        goes_on: false,
    }
}

/// One line of the log when something is found, one when it is gone.
fn tell(changes: &Changes, shared: &Shared) {
    let shard = overall::label(shared);
    for Standing { finding, .. } in &changes.appeared {
        let line = finding.sentence();
        match finding.severity {
            Severity::Error => tracing::error!(shard, "doctor: {line}"),
            Severity::Warning => tracing::warn!(shard, "doctor: {line}"),
            Severity::Info => tracing::info!(shard, "doctor: {line}"),
        }
    }
    for Cleared { finding, lasted } in &changes.cleared {
        tracing::info!(shard, "doctor: {} is over after {}", finding.title(), in_words(*lasted));
    }
}
