//! One node as the view knows it: what it said last, since when it is silent, and whether it has earned reads.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::core::address::Address;
use crate::core::moment::Moment;
use crate::core::nodes::delay::is_clearly_fresher;
use crate::core::nodes::rights::Rules;
use crate::core::nodes::trouble::{Problem, ProblemKind, Trouble};
use crate::core::position::{History, Offset};
use crate::mutant;

/// Good samples in a row that a node which was out has to give before it may serve again.
pub const GOOD_SAMPLES: u8 = 3;

/// A problem that returns within so long has not gone.
const TROUBLE_RESTS: Duration = Duration::from_secs(2);

/// A node: its place in the view, in the low 16 bits, and above them the tenancy, which counts who has had that place. Nobody
/// else is ever called the same: whatever is kept of a node that has left (a proof, a lane, a choice, an address) is not
/// taken for what is known of the one that has its place now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

impl NodeId {
    /// Its place, as an index into `View::nodes`.
    pub const fn index(self) -> usize {
        (self.0 & Self::PLACE) as usize
    }

    /// Whoever has its place next.
    #[must_use]
    pub fn successor(self) -> Self {
        if mutant::is("tenants-confused") {
            return self;
        }
        Self(self.0.wrapping_add(Self::PLACE + 1))
    }

    const PLACE: u32 = 0xffff;
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.index().fmt(f)
    }
}

/// What a node says that it is, in its `ROLE` and its `INFO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// `master`
    Primary,
    /// `slave`
    Replica,
}

impl Role {
    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
        }
    }
}

/// A replica's link to its primary, from the state in `ROLE` (`replication.c`, `roleCommand`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Link {
    /// `connected`
    Up,
    /// `sync`: a full resync is running.
    Syncing,
    /// Anything else.
    Down,
}

impl Link {
    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Syncing => "syncing",
            Self::Down => "down",
        }
    }
}

/// What `INFO` adds to `ROLE`. Absent is not zero.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Facts {
    /// `role`
    pub role: Option<Role>,
    /// `master_host` and `master_port` of a replica.
    pub master: Option<(String, u16)>,
    /// `master_replid` and `master_replid2`/`second_repl_offset`.
    pub history: Option<History>,
    /// `loading:1`: reads get `-LOADING`.
    pub loading: bool,
    /// `async_loading:1`: reads get the old data.
    pub async_loading: bool,
    /// `master_sync_in_progress:1`.
    pub sync_in_progress: bool,
    /// `master_link_down_since_seconds`; `None` when the link is up.
    pub link_down: Option<LinkDown>,
    /// `redis_version`.
    pub version: Option<String>,
    /// `valkey_version`: what such a server calls itself; its `version` is that of the Redis it is compatible with.
    pub valkey_version: Option<String>,
    /// `run_id`.
    pub run_id: Option<String>,
    /// `repl_backlog_active:1`: a partial resync is possible.
    pub backlog_active: bool,
    /// `min-replicas-to-write`, from `min_slaves_good_slaves` being present or `CONFIG GET`.
    pub min_replicas_to_write: Option<u64>,
    /// `availability_zone`, of servers that have it (Valkey 8.0).
    pub zone: Option<String>,
    /// Where its own replicas are that are online, as they announce themselves (`slaveN`); a replica may have some, too.
    pub replicas: Arc<[Address]>,
}

impl Facts {
    /// Whether they are about a primary: what was told before a promotion names the history before it.
    pub fn are_of_primary(&self) -> bool {
        self.role == Some(Role::Primary)
    }

    /// Whether a full resync runs. Reads may be answered meanwhile, with data as old as its beginning.
    pub fn is_resyncing(&self) -> bool {
        self.sync_in_progress || self.async_loading
    }

    /// Whether `newer` ones of the same node are about another process or another history.
    pub fn are_of_another(&self, newer: &Self) -> bool {
        let id = |facts: &Self| facts.history.map(|history| history.id);
        self.run_id != newer.run_id || id(self) != id(newer)
    }

    /// Whether they are about a replica of `master`.
    pub fn are_of_replica_of(&self, master: &(String, u16)) -> bool {
        self.role == Some(Role::Replica) && self.master.as_ref().is_none_or(|told| told == master)
    }
}

/// For how long a replica's link has been down (`master_link_down_since_seconds`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkDown {
    /// `-1`: it has not had a link since it started. It may be serving an empty dataset.
    Never,
    /// Whole seconds since the link dropped.
    For(Duration),
}

/// Going out is immediate; coming back takes [`GOOD_SAMPLES`] good samples in a row. A gate that never saw a sample
/// takes the first one's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Gate {
    state: GateState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
enum GateState {
    #[default]
    New,
    Open,
    Closed {
        good: u8,
    },
}

impl Gate {
    /// Takes one sample.
    pub fn sample(&mut self, good: bool) {
        self.state = match (self.state, good) {
            (_, false) => GateState::Closed { good: 0 },
            (GateState::Closed { good }, true) if good + 1 < GOOD_SAMPLES => {
                GateState::Closed { good: good + 1 }
            }
            (_, true) => GateState::Open,
        };
    }

    /// Whether the node may serve.
    pub fn is_open(self) -> bool {
        self.state == GateState::Open
    }
}

/// One node, or a place that is vacant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Which one. Of a vacant place: whoever comes next.
    pub id: NodeId,
    /// Its address, as configured or discovered; `None` while its place is vacant.
    pub address: Option<Arc<Address>>,
    /// From its last `ROLE`; `None` until it answered on the present connection.
    pub role: Option<Role>,
    /// Its link, if it is a replica.
    pub link: Option<Link>,
    /// The primary that it names.
    pub master: Option<(String, u16)>,
    /// The offset that it has applied, in its own history. A lower bound from then on.
    pub applied: Option<Offset>,
    /// Every write acknowledged before this moment is in its data.
    pub fresh_from: Option<Moment>,
    /// How long after the primary it has what was written there, as measured. Nothing is promised by it.
    pub delay: Option<Duration>,
    /// Its last `INFO` on the present connection.
    pub facts: Option<Facts>,
    /// Something has changed that only `INFO` tells of: the next one cannot wait.
    pub owes_info: bool,
    /// When the last question that it answered was sent.
    pub heard_at: Option<Moment>,
    /// Since when it has been silent; `None` while it answers.
    pub silent_since: Option<Moment>,
    /// When its link was last seen up.
    pub last_up: Option<Moment>,
    /// Counts what shows that its data may be older than it was: another process, primary, history or session of its
    /// link, an offset below one that it had told, a data set that was emptied. A proof, a connection's choice of this
    /// replica, and what a session has seen of it rest on one incarnation and are void in the next.
    pub incarnation: u32,
    /// When it was last heard that it has emptied its data (a full resync does so). What it answers to a question
    /// that was sent before that proves nothing.
    pub emptied_at: Option<Moment>,
    /// Since when it says that it is the primary.
    pub primary_since: Option<Moment>,
    /// From its last `ROLE`, on whatever connection. For people: nothing is decided by it.
    pub last_role: Option<Role>,
    /// What was last wrong with it. For people: nothing is decided by it.
    pub trouble: Option<Arc<Trouble>>,
    /// What it last said of its users, on this connection or an earlier one.
    pub rules: Option<Arc<Rules>>,
    /// Whether its health has earned it reads.
    pub standing: Gate,
    /// Per policy: whether it has kept within `max-lag`.
    pub within: Vec<Gate>,
}

impl Node {
    /// A node not yet heard of, judged under `policies` policies.
    pub fn new(id: NodeId, address: Address, policies: usize) -> Self {
        Self { address: Some(Arc::new(address)), ..Self::vacant(id, policies) }
    }

    /// A place that nobody has.
    pub fn vacant(id: NodeId, policies: usize) -> Self {
        Self {
            id,
            address: None,
            role: None,
            link: None,
            master: None,
            applied: None,
            fresh_from: None,
            delay: None,
            facts: None,
            owes_info: false,
            heard_at: None,
            silent_since: None,
            last_up: None,
            incarnation: 0,
            emptied_at: None,
            primary_since: None,
            last_role: None,
            trouble: None,
            rules: None,
            standing: Gate::default(),
            within: vec![Gate::default(); policies],
        }
    }

    /// Its address in words.
    pub fn name(&self) -> String {
        self.address.as_ref().map(ToString::to_string).unwrap_or_default()
    }

    /// Whether it is there: its place is not vacant.
    pub const fn is_member(&self) -> bool {
        self.address.is_some()
    }

    /// Whether both are known to lag, and it does clearly less.
    pub fn is_clearly_fresher_than(&self, other: &Self) -> bool {
        self.delay.zip(other.delay).is_some_and(|(ours, theirs)| is_clearly_fresher(ours, theirs))
    }

    /// How old its data can be at `now`; `None` when nothing is proven.
    pub fn staleness(&self, now: Moment) -> Option<Duration> {
        self.fresh_from.map(|from| now.since(from))
    }

    /// Whether it has not answered for longer than `limit`. A node that was never heard is silent.
    pub fn is_silent(&self, now: Moment, limit: Duration) -> bool {
        self.silent_since.is_some() || self.heard_at.is_none_or(|at| now.since(at) > limit)
    }

    /// What its `INFO` says.
    pub(super) fn hear_info(&mut self, facts: Facts) {
        if self.history() != facts.history {
            // Offsets heard before belong to another history.
            (self.applied, self.fresh_from) = (None, None);
        }
        if self.facts.as_ref().is_some_and(|known| known.are_of_another(&facts)) {
            self.begin_incarnation();
        }
        (self.facts, self.owes_info) = (Some(facts), false);
    }

    /// It does not answer.
    pub(super) fn hear_nothing(&mut self, now: Moment) {
        self.silent_since.get_or_insert(now);
        self.forget();
    }

    /// Its process (`run_id`), as far as it has said on the present connection.
    pub fn process(&self) -> Option<&str> {
        self.facts.as_ref()?.run_id.as_deref()
    }

    /// Its history.
    pub fn history(&self) -> Option<History> {
        self.facts.as_ref().and_then(|facts| facts.history)
    }

    /// The connection to it was lost: whatever it said may be about a process that is gone.
    pub(crate) fn forget(&mut self) {
        self.role = None;
        self.link = None;
        self.master = None;
        self.primary_since = None;
        self.void();
    }

    /// Its data was emptied, as it says itself at `now`: by a full resync, perhaps from somebody who is behind what it
    /// had (`replication.c`, `readSyncBulkPayload`), or by `FLUSHALL`. It has to say anew what it holds, and of what.
    pub(crate) fn hear_emptied(&mut self, now: Moment) {
        self.emptied_at = self.emptied_at.max(Some(now));
        self.void();
    }

    /// Whether it has emptied its data and has not said yet how far it has got with what came after: nobody can tell
    /// whether it went back, and to have done as it was told is no fault.
    pub(in crate::core) fn owes_offset(&self) -> bool {
        self.emptied_at.is_some() && self.applied.is_none() && self.link == Some(Link::Up)
    }

    /// Whether what it answers to a question that was sent at `asked` may be about data that it has emptied since.
    pub(crate) fn is_outdated(&self, asked: Moment) -> bool {
        self.emptied_at.is_some_and(|emptied| asked <= emptied)
    }

    /// Nothing is known any longer of the data that it holds.
    fn void(&mut self) {
        self.begin_incarnation();
        self.applied = None;
        self.facts = None;
    }

    /// What is known of its data from before proves nothing about what it holds now.
    pub(crate) fn begin_incarnation(&mut self) {
        if mutant::is("incarnation-ignored") || mutant::is("tenants-confused") {
            return;
        }
        self.incarnation = self.incarnation.wrapping_add(1);
        self.fresh_from = None;
    }

    /// It has answered, though not what it was asked.
    pub(crate) fn lives(&mut self, now: Moment) {
        self.silent_since = if mutant::is("busy-is-silent") { self.silent_since.or(Some(now)) } else { None };
    }

    pub(crate) fn heard(&mut self, now: Moment) {
        self.heard_at = Some(now);
        self.silent_since = None;
        if let Some(trouble) = self.trouble.as_mut().filter(|trouble| trouble.over.is_none()) {
            Arc::make_mut(trouble).over = Some(now);
        }
    }

    /// Why it does not answer, as far as whoever asks it knows. It may be another reason than before: it has not answered since
    /// the first, or not for long.
    pub(crate) fn hear_trouble(&mut self, problem: Problem, now: Moment) {
        let lasts = |over: Moment| now.since(over) < TROUBLE_RESTS;
        let present = self.trouble.as_ref().filter(|trouble| trouble.over.is_none_or(lasts));
        let since = present.map_or(now, |trouble| trouble.since);
        if present.is_none_or(|trouble| trouble.over.is_some() || trouble.problem != problem) {
            self.trouble = Some(Arc::new(Trouble { problem, since, over: None }));
        }
    }

    /// What is wrong with it now.
    pub fn problem(&self) -> Option<&Problem> {
        self.trouble.as_ref().filter(|trouble| trouble.over.is_none()).map(|trouble| &trouble.problem)
    }

    /// Whether it has answered, and has not fallen silent since.
    pub const fn answers(&self) -> bool {
        self.heard_at.is_some() && self.silent_since.is_none()
    }

    /// Whether it answers whatever it is asked that it is busy with a script.
    pub fn is_busy(&self) -> bool {
        self.problem().is_some_and(|problem| problem.kind == ProblemKind::Busy)
    }

    /// Whether it says that it is the primary.
    pub fn is_primary(&self) -> bool {
        self.role == Some(Role::Primary)
    }

    /// The primary that it names, in words.
    pub fn leader(&self) -> Option<String> {
        let (host, port) = self.master.as_ref()?;
        Some(format!("{}:{port}", host.escape_debug()))
    }

    pub(crate) fn hear_primary(&mut self, offset: Offset, asked: Moment) {
        if !self.facts.as_ref().is_some_and(Facts::are_of_primary) {
            // It was promoted after INFO, so that its history is another one: INFO has to say which.
            (self.facts, self.fresh_from) = (None, None);
        }
        if self.role == Some(Role::Replica) {
            self.begin_incarnation();
        }
        self.role = Some(Role::Primary);
        self.last_role = self.role;
        self.primary_since.get_or_insert(asked);
        (self.link, self.master) = (None, None);
        self.applied = Some(offset);
    }

    pub(crate) fn hear_replica(
        &mut self,
        link: Link,
        master: (String, u16),
        applied: Option<Offset>,
        now: Moment,
    ) {
        // What it said before its link was up may be of the history before: a replica takes that of its primary over with the link.
        self.owes_info |= link == Link::Up && self.link.is_some_and(|before| before != Link::Up);
        if !self.facts.as_ref().is_some_and(|facts| facts.are_of_replica_of(&master)) {
            // It follows somebody else now: its offsets may be of another history. INFO has to say.
            (self.facts, self.fresh_from) = (None, None);
        }
        if self.is_another(link, &master, applied) {
            self.begin_incarnation();
        }
        self.role = Some(Role::Replica);
        self.last_role = self.role;
        self.primary_since = None;
        self.link = Some(link);
        self.master = Some(master);
        self.applied = applied;
        if link == Link::Up {
            self.last_up = Some(now);
        }
    }

    /// Whether a replica that says this may hold older data than before: it was the primary, follows another one (a full
    /// resync from a node that is behind takes it back, while its clients' connections live on), has lost its link (a
    /// primary that is itself a replica may have gone back meanwhile), or tells a lower offset.
    fn is_another(&self, link: Link, master: &(String, u16), applied: Option<Offset>) -> bool {
        let known = self.role.is_some();
        let moved = self.master.as_ref().is_some_and(|before| before != master);
        let dropped = self.link == Some(Link::Up) && link != Link::Up;
        known && (self.role != Some(Role::Replica) || moved || dropped || self.applied > applied)
    }

    /// Whether its own reports allow reads at all.
    pub(crate) fn is_healthy(&self) -> bool {
        let Some(facts) = &self.facts else { return false };
        self.silent_since.is_none()
            && self.role == Some(Role::Replica)
            && self.link == Some(Link::Up)
            && !facts.loading
            && !facts.is_resyncing()
            && facts.link_down != Some(LinkDown::Never)
    }

    /// For how long its link has been down at `now`, at least; `None` while it is up, or when nothing tells.
    pub fn link_down_for(&self, now: Moment) -> Option<Duration> {
        if self.link == Some(Link::Up) {
            return None;
        }
        let told = match self.facts.as_ref()?.link_down {
            // The report counts whole seconds.
            Some(LinkDown::For(span)) => Some(span.saturating_add(Duration::from_secs(1))),
            Some(LinkDown::Never) | None => None,
        };
        let seen = self.last_up.map(|up| now.since(up));
        match (told, seen) {
            (Some(told), Some(seen)) => Some(told.max(seen)),
            (told, seen) => told.or(seen),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_closes_at_once_and_opens_after_three_good_samples() {
        let mut gate = Gate::default();
        assert!(!gate.is_open());
        gate.sample(true);
        assert!(gate.is_open(), "the first sample is believed");
        gate.sample(false);
        assert!(!gate.is_open());
        for _ in 0..GOOD_SAMPLES - 1 {
            gate.sample(true);
            assert!(!gate.is_open());
        }
        gate.sample(true);
        assert!(gate.is_open());
    }
}
