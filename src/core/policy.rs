//! What a read may tolerate, and which policy a command falls under.

use std::time::Duration;

use crate::mutant;

/// How fresh a read must be. Levels nest: each promises what those above it promise, and more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Consistency {
    /// Some past value.
    Eventual,
    /// Data at most `max_lag` old and at most `max_lag_bytes` behind.
    Bounded,
    /// … and every write acknowledged on this client connection, never going back in time.
    Session,
    /// … and every write to the key acknowledged through this proxy, or seen on the stream.
    Fenced,
    /// … and every write acknowledged by the primary to anyone before the read arrived.
    Strong,
}

impl Consistency {
    /// All levels, weakest first.
    pub const ALL: [Self; 5] = [Self::Eventual, Self::Bounded, Self::Session, Self::Fenced, Self::Strong];

    /// The name in the config file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Eventual => "eventual",
            Self::Bounded => "bounded",
            Self::Session => "session",
            Self::Fenced => "fenced",
            Self::Strong => "strong",
        }
    }

    /// The level that is called so in the config file.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name() == name)
    }
}

/// What to do with a read when no replica is fresh enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WhenBehind {
    /// Send it to the primary.
    Primary,
    /// Wait up to `wait_timeout` for a replica, then send it to the primary.
    Wait,
    /// Answer `-MASTERDOWN`.
    Refuse,
}

impl WhenBehind {
    /// All choices.
    pub const ALL: [Self; 3] = [Self::Primary, Self::Wait, Self::Refuse];

    /// The name in the config file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Wait => "wait",
            Self::Refuse => "refuse",
        }
    }
}

/// What holds where nothing else is said.
pub const DEFAULT: &str = "default";

/// One `[policy.NAME]` table of the config file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The name of the table.
    pub name: String,
    /// `consistency`
    pub consistency: Consistency,
    /// `max-lag`: the highest staleness, in time. Applies from `bounded` up.
    pub max_lag: Duration,
    /// `max-lag-bytes`: the highest lag in bytes of replication stream. Applies from `bounded` up.
    pub max_lag_bytes: u64,
    /// `replica-serve-stale-data`: whether a replica whose link is down may serve `eventual` and `bounded` reads.
    pub serve_stale: bool,
    /// `max-stale`: for how long after its link dropped.
    pub max_stale: Duration,
    /// `when-behind`
    pub when_behind: WhenBehind,
    /// `wait-timeout`: how long a read may wait for a replica (`when-behind = "wait"`) or for its barrier (`strong`).
    pub wait_timeout: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            name: DEFAULT.to_owned(),
            consistency: Consistency::Fenced,
            max_lag: Duration::from_secs(1),
            max_lag_bytes: 16 << 20,
            serve_stale: false,
            max_stale: Duration::from_mins(1),
            when_behind: WhenBehind::Primary,
            wait_timeout: Duration::from_millis(20),
        }
    }
}

impl Policy {
    /// What a level is without further words.
    pub fn ready_made(consistency: Consistency) -> Self {
        Self { name: consistency.name().to_owned(), consistency, ..Self::default() }
    }
}

/// A policy: its place in [`Policies`], in the low bits, and above them the edition of that list. In another edition its
/// place may be somebody else's: there it names nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct PolicyId(pub u32);

impl PolicyId {
    /// Its place, as an index into `Policies::all`.
    pub const fn index(self) -> usize {
        (self.0 & Self::PLACE) as usize
    }

    const fn in_edition(self, edition: u64) -> Self {
        Self((edition as u32) << Self::PLACE_BITS | self.0 & Self::PLACE)
    }

    const PLACE_BITS: u32 = 10;
    const PLACE: u32 = (1 << Self::PLACE_BITS) - 1;
}

/// One `[[route]]`: first match wins. An empty list matches everything.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Route {
    /// Lower-case command names; subcommands as `name|subcommand`.
    pub commands: Vec<String>,
    /// Glob patterns as in `KEYS`; every key of the command must match one of them.
    pub keys: Vec<String>,
    /// ACL user names.
    pub users: Vec<String>,
    /// Names given by `CLIENT SETNAME`.
    pub client_names: Vec<String>,
    /// The policy that applies.
    pub policy: PolicyId,
}

/// All policies and routes of one configuration.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Policies {
    /// Every `[policy.NAME]`; never empty once it was read.
    pub all: Vec<Policy>,
    /// Every `[[route]]`, in the order of the file.
    pub routes: Vec<Route>,
    /// What holds for the clients of each listener unless a route says otherwise.
    pub listeners: Vec<PolicyId>,
    /// Counts the lists that were in force before this one.
    pub edition: u64,
}

impl Route {
    /// Whether it is for this command (lower-case, subcommands as `name|subcommand`), user and client name.
    pub fn is_for(&self, command: &str, user: &str, client_name: &str) -> bool {
        let container = command.split_once('|').map_or(command, |(container, _)| container);
        let names = |list: &[String], name: &str| list.is_empty() || list.iter().any(|n| n == name);
        (names(&self.commands, command) || names(&self.commands, container))
            && names(&self.users, user)
            && names(&self.client_names, client_name)
    }

    /// Whether one of its patterns matches the key. True for a route without patterns.
    pub fn has_key(&self, key: &[u8]) -> bool {
        self.keys.is_empty() || self.keys.iter().any(|pattern| glob(pattern.as_bytes(), key))
    }
}

impl Policies {
    /// Whether some policy is of level `session`: connections count what they have written and seen themselves.
    pub fn count_own(&self) -> bool {
        self.all.iter().any(|policy| policy.consistency == Consistency::Session)
    }

    /// Whether the fence of a key can matter to any read.
    pub fn fence(&self) -> bool {
        self.all.iter().any(|policy| policy.consistency >= Consistency::Session)
    }

    /// Whether how old data is can matter to any read.
    pub fn bound(&self) -> bool {
        self.all.iter().any(|policy| policy.consistency >= Consistency::Bounded)
    }

    /// The policy of this name.
    pub fn find(&self, name: &str) -> Option<PolicyId> {
        self.all.iter().position(|p| p.name == name).map(|place| self.at(place))
    }

    /// The policy of this name. One that is called like a level need not be defined: it is that level, with the default of
    /// everything else.
    pub fn find_or_make(&mut self, name: &str) -> Option<PolicyId> {
        if self.find(name).is_none() {
            self.all.push(Policy::ready_made(Consistency::named(name)?));
        }
        self.find(name)
    }

    fn at(&self, place: usize) -> PolicyId {
        PolicyId(place as u32).in_edition(self.edition)
    }

    /// The policy that is called so in this edition.
    #[inline]
    pub fn get(&self, id: PolicyId) -> Option<&Policy> {
        let ours = id == id.in_edition(self.edition) || mutant::is("policies-confused");
        self.all.get(id.index()).filter(|_| ours)
    }

    /// The same as edition number `edition`.
    #[must_use]
    pub fn in_edition(mut self, edition: u64) -> Self {
        let ids = self.routes.iter_mut().map(|route| &mut route.policy).chain(&mut self.listeners);
        ids.for_each(|id| *id = id.in_edition(edition));
        self.edition = edition;
        self
    }

    /// What holds for a client of this listener that has chosen a policy of this name, or none. One that is gone is replaced
    /// by that of the listener, or, where that promises less than `promised`, by the one here that promises most.
    pub fn for_client(
        &self,
        listener: usize,
        chosen: Option<&str>,
        promised: Option<Consistency>,
    ) -> PolicyId {
        if let Some(id) = chosen.and_then(|name| self.find(name)) {
            return id;
        }
        let usual = self.listeners.get(listener).copied().unwrap_or_else(|| self.at(0));
        let level = |id: PolicyId| self.get(id).map(|policy| policy.consistency);
        if chosen.is_none() || level(usual) >= promised {
            return usual;
        }
        (0..self.all.len()).map(|place| self.at(place)).max_by_key(|id| level(*id)).unwrap_or(usual)
    }
}

/// Glob matching as in `KEYS` (`util.c`, `stringmatchlen`): `*`, `?`, `[a-c]`, `[^x]`, `\\` quotes. Iterative, so that a
/// pattern of many stars costs no more than pattern × text.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
            continue;
        }
        if let Some(used) = pattern.get(p..).and_then(|rest| match_one(rest, text[t])) {
            (p, t) = (p + used, t + 1);
        } else if let Some((at, from)) = star {
            (p, t) = (at + 1, from + 1);
            star = Some((at, from + 1));
        } else {
            return false;
        }
    }
    pattern.get(p..).is_none_or(|rest| rest.iter().all(|&b| b == b'*'))
}

/// Matches one byte; returns how much of the pattern that took.
fn match_one(pattern: &[u8], byte: u8) -> Option<usize> {
    match *pattern.first()? {
        b'?' => Some(1),
        b'\\' if pattern.len() > 1 => (pattern[1] == byte).then_some(2),
        b'[' => {
            let negated = pattern.get(1) == Some(&b'^');
            let (mut at, mut found) = (if negated { 2 } else { 1 }, false);
            while at < pattern.len() && pattern[at] != b']' {
                if pattern[at] == b'\\' && at + 1 < pattern.len() {
                    at += 1;
                    found |= pattern[at] == byte;
                } else if at + 2 < pattern.len() && pattern[at + 1] == b'-' {
                    let (low, high) = (pattern[at].min(pattern[at + 2]), pattern[at].max(pattern[at + 2]));
                    found |= (low..=high).contains(&byte);
                    at += 2;
                } else {
                    found |= pattern[at] == byte;
                }
                at += 1;
            }
            (found != negated).then_some((at + 1).min(pattern.len()))
        }
        literal => (literal == byte).then_some(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[(&str, Consistency)]) -> Policies {
        let policy = |(name, consistency): &(&str, Consistency)| Policy {
            name: (*name).to_owned(),
            consistency: *consistency,
            ..Policy::default()
        };
        let all = names.iter().map(policy).collect();
        Policies { all, listeners: vec![PolicyId(0), PolicyId(1)], ..Policies::default() }
    }

    #[test]
    fn a_policy_of_another_edition_is_nobody_here() {
        let old = named(&[("default", Consistency::Fenced), ("loose", Consistency::Eventual)]);
        let loose = old.find("loose").unwrap();
        assert_eq!(old.get(loose).map(|policy| policy.name.as_str()), Some("loose"));
        let new = named(&[("default", Consistency::Fenced), ("strict", Consistency::Strong)]).in_edition(1);
        assert_eq!(new.get(loose), None);
        assert_eq!((new.get(new.listeners[1]), new.find("strict")), (new.all.get(1), Some(new.listeners[1])));
    }

    #[test]
    fn whoever_loses_a_chosen_policy_is_promised_no_less() {
        let list = named(&[
            ("default", Consistency::Bounded),
            ("loose", Consistency::Eventual),
            ("strict", Consistency::Strong),
        ])
        .in_edition(7);
        let name = |id| list.get(id).unwrap().name.as_str();
        assert_eq!(name(list.for_client(1, None, None)), "loose");
        assert_eq!(name(list.for_client(1, Some("default"), None)), "default");
        assert_eq!(name(list.for_client(0, Some("gone"), Some(Consistency::Bounded))), "default");
        assert_eq!(name(list.for_client(1, Some("gone"), Some(Consistency::Fenced))), "strict");
        assert_eq!(name(list.for_client(9, None, None)), "default");
    }

    #[test]
    fn globs_match_as_in_redis() {
        let yes = [
            ("*", ""),
            ("a*c", "abbc"),
            ("h?llo", "hallo"),
            ("h[ae]llo", "hello"),
            ("h[^e]llo", "hallo"),
            ("h[a-b]llo", "hbllo"),
            ("catalog:*", "catalog:1"),
            ("\\*", "*"),
            ("**a**", "bab"),
        ];
        let no = [
            ("", "a"),
            ("a*c", "abb"),
            ("h?llo", "hllo"),
            ("h[^e]llo", "hello"),
            ("\\*", "x"),
            ("catalog:*", "cart:1"),
        ];
        for (pattern, text) in yes {
            assert!(glob(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
        for (pattern, text) in no {
            assert!(!glob(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
    }
}
