//! What is wrong with a node that does not answer as it should, in words for people. Nothing is decided by it.

use std::fmt;

use crate::core::moment::{Moment, in_words};

/// Bytes of the system's words, or of the code of a node's error, that are kept.
const DETAIL: usize = 120;

/// Why a node does not answer as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProblemKind {
    /// Nobody listens at its address.
    ConnectionRefused,
    /// No way leads to its address.
    Unreachable,
    /// The name of its host has no address.
    UnknownName,
    /// The TLS handshake failed.
    Tls,
    /// It has not answered in time.
    NoAnswer,
    /// It closed the connection, or the connection broke.
    Closed,
    /// It wants a password, or another one than Redweir's.
    Password,
    /// It has no password, and was told one.
    NoPasswordWanted,
    /// Redweir's user may not ask how it is.
    Permission,
    /// It lets nobody in from here (`protected-mode`).
    Denied,
    /// It has as many clients as it may have (`maxclients`).
    TooManyClients,
    /// It is loading its data.
    Loading,
    /// It is busy with a script.
    Busy,
    /// It answers another error.
    Refused,
    /// It does not answer as Redis does.
    Malformed,
    /// It is a sentinel.
    Sentinel,
}

impl ProblemKind {
    /// Every kind, in order.
    pub const ALL: [Self; 16] = [
        Self::ConnectionRefused,
        Self::Unreachable,
        Self::UnknownName,
        Self::Tls,
        Self::NoAnswer,
        Self::Closed,
        Self::Password,
        Self::NoPasswordWanted,
        Self::Permission,
        Self::Denied,
        Self::TooManyClients,
        Self::Loading,
        Self::Busy,
        Self::Refused,
        Self::Malformed,
        Self::Sentinel,
    ];

    /// Metric label, and the code in JSON.
    pub const fn label(self) -> &'static str {
        match self {
            Self::ConnectionRefused => "connection_refused",
            Self::Unreachable => "unreachable",
            Self::UnknownName => "unknown_name",
            Self::Tls => "tls",
            Self::NoAnswer => "no_answer",
            Self::Closed => "connection_closed",
            Self::Password => "password",
            Self::NoPasswordWanted => "no_password_wanted",
            Self::Permission => "permission",
            Self::Denied => "denied",
            Self::TooManyClients => "too_many_clients",
            Self::Loading => "loading",
            Self::Busy => "busy",
            Self::Refused => "refused",
            Self::Malformed => "malformed",
            Self::Sentinel => "sentinel",
        }
    }
}

/// Why a node does not answer as it should, and what is known besides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What it is.
    pub kind: ProblemKind,
    /// The code of the node's error, or the words of the system. Never more of a node's own words: Redis repeats what it was told
    /// (`unknown command 'AUTH', with args …`).
    detail: String,
}

impl Problem {
    /// A problem of this kind, of which the system says `detail`.
    pub fn new(kind: ProblemKind, detail: &str) -> Self {
        let cut = &detail[..detail.floor_char_boundary(DETAIL)];
        Self { kind, detail: cut.chars().map(|c| if c.is_control() { ' ' } else { c }).collect() }
    }

    /// A node has answered this error (without the leading dash) to something other than `AUTH`.
    pub fn of_error(text: &str) -> Self {
        let code = code(text);
        let kind = match code {
            "NOAUTH" | "WRONGPASS" => ProblemKind::Password,
            "NOPERM" => ProblemKind::Permission,
            "DENIED" => ProblemKind::Denied,
            "LOADING" => ProblemKind::Loading,
            "BUSY" => ProblemKind::Busy,
            _ if text.starts_with("ERR max number of clients") => ProblemKind::TooManyClients,
            _ => ProblemKind::Refused,
        };
        Self::new(kind, code)
    }

    /// A node has answered this error to `AUTH`.
    pub fn of_login(text: &str) -> Self {
        // `acl.c`, `authCommand`; before Redis 6, `Client sent AUTH, but no password is set`.
        let needs_none =
            text.starts_with("ERR AUTH <password> called without") || text.contains("no password is set");
        match Self::of_error(text) {
            problem if needs_none => Self { kind: ProblemKind::NoPasswordWanted, ..problem },
            problem if matches!(problem.kind, ProblemKind::Refused | ProblemKind::Permission) => {
                Self { kind: ProblemKind::Password, ..problem }
            }
            problem => problem,
        }
    }

    /// What the node does, to be said after its name. Without `details` nothing of what the system says, which may name hosts.
    pub fn text(&self, details: bool) -> String {
        let code = if self.detail.is_empty() { "?" } else { &self.detail };
        let more =
            || if details && !self.detail.is_empty() { format!(" ({})", self.detail) } else { String::new() };
        match self.kind {
            ProblemKind::ConnectionRefused => "is down (connection refused)".to_owned(),
            ProblemKind::Unreachable => format!("cannot be reached{}", more()),
            ProblemKind::UnknownName => "cannot be reached (its name has no address)".to_owned(),
            ProblemKind::Tls => format!("cannot be reached by TLS{}", more()),
            ProblemKind::NoAnswer => "does not answer (no answer in time)".to_owned(),
            ProblemKind::Closed => "is down (connection closed)".to_owned(),
            ProblemKind::Password => format!("refused its password ({code})"),
            ProblemKind::NoPasswordWanted => format!("has no password and was told one ({code})"),
            ProblemKind::Permission => format!("does not let Redweir's user ask how it is ({code})"),
            ProblemKind::Denied => format!("lets nobody in from here ({code})"),
            ProblemKind::TooManyClients => "has as many clients as it may have (maxclients)".to_owned(),
            ProblemKind::Loading => format!("is loading its data ({code})"),
            ProblemKind::Busy => format!("is busy with a script ({code})"),
            ProblemKind::Refused => format!("refuses to say how it is ({code})"),
            ProblemKind::Malformed => "does not answer as Redis does".to_owned(),
            ProblemKind::Sentinel => "is a sentinel".to_owned(),
        }
    }

    /// What helps, if anything is known to.
    pub fn remedy(&self) -> Option<&'static str> {
        Some(match self.kind {
            ProblemKind::Password if self.detail == "NOAUTH" => "set [upstream] password-file",
            ProblemKind::Password => "correct [upstream] username and password-file",
            ProblemKind::NoPasswordWanted => "remove [upstream] password-file",
            ProblemKind::Permission => "allow it +role +info +ping there",
            ProblemKind::Denied => "set bind, or protected-mode no, there",
            ProblemKind::TooManyClients => "see CLIENT LIST there, or raise maxclients (CONFIG SET)",
            ProblemKind::Busy => "SCRIPT KILL",
            ProblemKind::UnknownName => "correct its name in [upstream], or the DNS",
            ProblemKind::Tls => "compare [upstream.tls] with its certificate",
            ProblemKind::Sentinel => "sentinels belong into [upstream.sentinel]",
            _ => return None,
        })
    }

    /// What the node does, and what helps.
    pub fn advice(&self, details: bool) -> String {
        let text = self.text(details);
        self.remedy().map_or_else(|| text.clone(), |remedy| format!("{text}: {remedy}"))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.advice(true))
    }
}

/// The first word of an error, if it is a code.
fn code(text: &str) -> &str {
    let word = text.split([' ', '\r', '\n']).next().unwrap_or_default();
    if !word.is_empty() && word.len() <= 16 && word.bytes().all(|byte| byte.is_ascii_uppercase()) {
        word
    } else {
        "?"
    }
}

/// The last problem that a node had, or has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What it is.
    pub problem: Problem,
    /// When it began.
    pub since: Moment,
    /// When the node answered again; `None`: it has not yet.
    pub over: Option<Moment>,
}

impl Trouble {
    /// In words, to be said after the node's name.
    pub fn text(&self, now: Moment) -> String {
        match self.over {
            None => format!("{}, for {}", self.problem, in_words(now.since(self.since))),
            Some(over) => format!(
                "answers again since {}, after {}: it {}",
                in_words(now.since(over)),
                in_words(over.since(self.since)),
                self.problem.text(true)
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_lists_every_kind_once_and_labels_differ() {
        let labels: std::collections::BTreeSet<_> =
            ProblemKind::ALL.iter().map(|kind| kind.label()).collect();
        assert_eq!(labels.len(), ProblemKind::ALL.len());
        assert!(ProblemKind::ALL.windows(2).all(|two| two[0] < two[1]));
        for kind in ProblemKind::ALL {
            let text = Problem::new(kind, "X").advice(true);
            assert!(text.len() < 160 && !text.ends_with('.'), "{text}");
        }
    }

    #[test]
    fn a_refused_password_says_what_to_set_and_repeats_nothing() {
        let text = |problem: Problem| problem.advice(true);
        assert_eq!(
            text(Problem::of_error("NOAUTH Authentication required.")),
            "refused its password (NOAUTH): set [upstream] password-file"
        );
        let secret = "ERR unknown command 'AUTH', with args beginning with: 'hunter2'";
        for problem in
            [Problem::of_login(secret), Problem::of_error(secret), Problem::of_error("hunter2 is it")]
        {
            assert!(!format!("{problem:?} {problem}").contains("hunter2"));
        }
        assert_eq!(
            text(Problem::of_login("WRONGPASS invalid username-password pair or user is disabled.")),
            "refused its password (WRONGPASS): correct [upstream] username and password-file"
        );
        let none = "ERR AUTH <password> called without any password configured for the default user.";
        assert_eq!(Problem::of_login(none).kind, ProblemKind::NoPasswordWanted);
        let old = "ERR Client sent AUTH, but no password is set";
        assert_eq!(Problem::of_login(old).kind, ProblemKind::NoPasswordWanted);
        assert_eq!(Problem::of_login("LOADING Redis is loading").kind, ProblemKind::Loading);
    }

    #[test]
    fn what_the_system_says_is_short_and_harmless() {
        let problem = Problem::new(ProblemKind::Tls, &"é\r\n\u{1b}[2J".repeat(1000));
        assert!(problem.detail.len() <= DETAIL && !problem.detail.contains(['\r', '\n', '\u{1b}']));
        assert!(!Problem::new(ProblemKind::Tls, "valid for db.internal").text(false).contains("internal"));
    }
}
