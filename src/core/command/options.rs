//! Keys that stand among options, so that only who parses the options as the server does finds them.
//!
//! The server's own key specifications look for a word and take the first one. A consumer may be called `streams`, and a
//! list may be stored in a key called `store`; and of a repeated option the last counts.

use std::fmt;

use crate::core::argv::Args;
use crate::mutant;

/// Which command's options they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Options {
    /// `SORT`: where it stores to (`sort.c`, `sortCommandGeneric`). The key is another specification's.
    Sort,
    /// `SORT_RO`: no key, unless patterns name some by content.
    SortReadonly,
    /// `GEORADIUS`, `GEORADIUSBYMEMBER`: where it stores to (`geo.c`, `georadiusGeneric`). The key is another's.
    GeoRadius {
        /// The first option.
        from: usize,
    },
    /// `XREAD`, `XREADGROUP`: the streams (`t_stream.c`, `xreadCommand`).
    Streams,
    /// `MIGRATE`: all keys (`cluster.c`, `migrateCommand`).
    Migrate,
}

impl Options {
    /// The options of this command, if its keys stand among them.
    pub(super) fn of(command: &str) -> Option<Self> {
        Some(match command {
            "sort" => Self::Sort,
            "sort_ro" => Self::SortReadonly,
            "georadius" => Self::GeoRadius { from: 6 },
            "georadiusbymember" => Self::GeoRadius { from: 5 },
            "xread" | "xreadgroup" => Self::Streams,
            "migrate" => Self::Migrate,
            _ => return None,
        })
    }

    /// Whether the command's first argument is a key in any case.
    pub(super) fn follow_a_key(self) -> bool {
        matches!(self, Self::Sort | Self::SortReadonly | Self::GeoRadius { .. })
    }

    /// Tells every key among them. `None`: not all can be known, or the server will call it a syntax error, or its
    /// version knows options that are not known here. `writes`: only what the command changes is of interest.
    pub(super) fn each<A: Args + ?Sized>(
        self,
        args: &A,
        writes: bool,
        tell: &mut dyn FnMut(&[u8]),
    ) -> Option<usize> {
        let keys = match self {
            Self::Sort | Self::SortReadonly => sort(args, self == Self::Sort, writes)?,
            Self::GeoRadius { from } => geo_radius(args, from)?,
            Self::Streams => streams(args)?,
            Self::Migrate => migrate(args)?,
        };
        keys.clone().for_each(|at| tell(args.arg(at)));
        Some(keys.len())
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sort => f.write_str("sort"),
            Self::SortReadonly => f.write_str("sort_ro"),
            Self::GeoRadius { from } => write!(f, "georadius@{from}"),
            Self::Streams => f.write_str("streams"),
            Self::Migrate => f.write_str("migrate"),
        }
    }
}

/// Where the keys are.
type Range = std::ops::Range<usize>;

const NONE: Range = 0..0;

/// A walk over options and their operands.
struct Walk<'a, A: ?Sized> {
    args: &'a A,
    at: usize,
}

impl<'a, A: Args + ?Sized> Walk<'a, A> {
    fn from(args: &'a A, at: usize) -> Self {
        Self { args, at }
    }

    /// The option at hand, as its place among `words`. `None`: it is none of them.
    fn option(&mut self, words: &[&str]) -> Option<usize> {
        let word = self.args.arg(self.at);
        self.at += 1;
        words.iter().position(|known| word.eq_ignore_ascii_case(known.as_bytes()))
    }

    fn is_over(&self) -> bool {
        self.at >= self.args.count()
    }

    /// Passes so many operands; where the first is. `None`: there are fewer left.
    fn operands(&mut self, count: usize) -> Option<usize> {
        let first = self.at;
        self.at += count;
        (self.at <= self.args.count()).then_some(first)
    }
}

/// `[BY pattern] [LIMIT offset count] [GET pattern …] [ASC|DESC] [ALPHA] [STORE destination]`: the last `STORE` counts.
fn sort<A: Args + ?Sized>(args: &A, stores: bool, writes: bool) -> Option<Range> {
    const WORDS: &[&str] = &["asc", "desc", "alpha", "limit", "by", "get", "store"];
    let (mut walk, mut destination) = (Walk::from(args, 2), NONE);
    while !walk.is_over() {
        match WORDS[walk.option(WORDS)?] {
            "limit" => _ = walk.operands(2)?,
            "by" | "get" => {
                let pattern = args.arg(walk.operands(1)?);
                // What it then reads depends on the content of the key, unless it names nothing (`nosort`, `#`).
                if !writes && pattern.contains(&b'*') {
                    return None;
                }
            }
            "store" if stores => {
                let at = walk.operands(1)?;
                destination = at..at + 1;
            }
            "store" => return None,
            _ => {}
        }
    }
    Some(destination)
}

/// `[WITHCOORD] [WITHDIST] [WITHHASH] [COUNT count [ANY]] [ASC|DESC] [STORE key] [STOREDIST key]`: the last one counts.
fn geo_radius<A: Args + ?Sized>(args: &A, from: usize) -> Option<Range> {
    const WORDS: &[&str] =
        &["withcoord", "withdist", "withhash", "any", "asc", "desc", "count", "store", "storedist"];
    let (mut walk, mut destination) = (Walk::from(args, from), NONE);
    while !walk.is_over() {
        match WORDS[walk.option(WORDS)?] {
            "count" => _ = walk.operands(1)?,
            "store" | "storedist" => {
                let at = walk.operands(1)?;
                destination = at..at + 1;
            }
            _ => {}
        }
    }
    Some(destination)
}

/// `[GROUP group consumer] [COUNT count] [BLOCK ms] [NOACK] STREAMS key … id …`; `CLAIM ms` is Redis 8.4's.
fn streams<A: Args + ?Sized>(args: &A) -> Option<Range> {
    const WORDS: &[&str] = &["count", "block", "claim", "group", "noack", "streams"];
    if mutant::is("keyword-first-match") {
        let at = (1..args.count()).find(|&at| args.arg(at).eq_ignore_ascii_case(b"streams"))? + 1;
        return Some(at..at + (args.count() - at) / 2);
    }
    let mut walk = Walk::from(args, 1);
    while !walk.is_over() {
        match WORDS[walk.option(WORDS)?] {
            "group" => _ = walk.operands(2)?,
            "noack" => {}
            "streams" => {
                let (first, rest) = (walk.at, args.count() - walk.at);
                return (rest > 0 && rest % 2 == 0).then(|| first..first + rest / 2);
            }
            _ => _ = walk.operands(1)?,
        }
    }
    None
}

/// `host port key|"" db timeout [COPY] [REPLACE] [AUTH password] [AUTH2 user password] [KEYS key …]`
fn migrate<A: Args + ?Sized>(args: &A) -> Option<Range> {
    const WORDS: &[&str] = &["copy", "replace", "auth", "auth2", "keys"];
    let mut walk = Walk::from(args, 6);
    while !walk.is_over() {
        match WORDS[walk.option(WORDS)?] {
            "auth" => _ = walk.operands(1)?,
            "auth2" => _ = walk.operands(2)?,
            // With `KEYS` the other key must be empty. Before no keys at all the server names that one.
            "keys" if !args.arg(3).is_empty() => return None,
            "keys" if !walk.is_over() => return Some(walk.at..args.count()),
            _ => {}
        }
    }
    (args.count() > 5).then_some(3..4)
}
