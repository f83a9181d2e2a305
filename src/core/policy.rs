//! What a read may tolerate, and which policy a command falls under.

use std::time::Duration;

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
            name: "default".to_owned(),
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

/// Index of a policy in [`Policies`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct PolicyId(pub u16);

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policies {
    /// Every `[policy.NAME]`; never empty.
    pub all: Vec<Policy>,
    /// Every `[[route]]`, in the order of the file.
    pub routes: Vec<Route>,
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
        self.all.iter().position(|p| p.name == name).map(|i| PolicyId(i as u16))
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
