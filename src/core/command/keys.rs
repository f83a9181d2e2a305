//! Where the keys of a command are: key specifications as in Redis 7 (`db.c`, `getKeysUsingKeySpecs`).

use std::fmt;
use std::str::FromStr;

use super::entry::BadLine;
use super::options::Options;
use crate::core::argv::Args;

/// Keys that one specification may name. A count in the arguments above this is nonsense or an attack.
const MOST_KEYS: i64 = 1 << 20;

/// Whether all keys of a command are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// All of them were told.
    Known {
        /// How many there are.
        count: usize,
    },
    /// The arguments do not say which keys it touches.
    Unknowable,
}

/// Where to start looking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begin {
    /// At this argument.
    Index(i32),
    /// After this word, which is searched for from an argument on (backward if negative).
    Keyword {
        /// Upper case, as the server says it.
        word: String,
        /// First argument to look at.
        from: i32,
    },
    /// Among options, which have to be parsed.
    Options(Options),
    /// The server can't say.
    Unknown,
}

/// How to go on from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Find {
    /// From the first key on.
    Range {
        /// Last key, relative to the first; if negative, relative to the end.
        last: i32,
        /// Distance between two keys.
        step: i32,
        /// If above 1, only the first 1/limit of what remains are keys.
        limit: i32,
    },
    /// A number says how many there are.
    Count {
        /// Where the number is, relative to the start.
        at: i32,
        /// Where the first key is, relative to the start.
        first: i32,
        /// Distance between two keys.
        step: i32,
    },
}

/// One group of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySpec {
    /// Whether the command changes them.
    pub writes: bool,
    /// Where to start.
    pub begin: Begin,
    /// How to go on.
    pub find: Find,
    /// There can be keys that the specification does not find.
    pub incomplete: bool,
}

const ONE: Find = Find::Range { last: 0, step: 1, limit: 0 };

impl KeySpec {
    /// First, last and step as servers before 7.0 report them.
    pub fn legacy(writes: bool, first: i32, last: i32, step: i32) -> Self {
        let last = if last < 0 { last } else { last - first };
        Self {
            writes,
            begin: Begin::Index(first),
            find: Find::Range { last, step, limit: 0 },
            incomplete: false,
        }
    }

    /// Keys that exist but can't be found.
    pub const fn unknown(writes: bool) -> Self {
        Self { writes, begin: Begin::Unknown, find: ONE, incomplete: true }
    }

    /// Keys among these options.
    pub const fn options(writes: bool, options: Options) -> Self {
        Self { writes, begin: Begin::Options(options), find: ONE, incomplete: false }
    }

    /// Whether it is about the first argument and nothing else.
    pub(super) fn is_first_argument(&self) -> bool {
        self.begin == Begin::Index(1) && self.find == ONE && !self.incomplete
    }

    /// Tells every key. `None`: not all of them can be known. `writes`: only what it changes is of interest.
    pub(super) fn each<A: Args + ?Sized>(
        &self,
        args: &A,
        writes: bool,
        tell: &mut dyn FnMut(&[u8]),
    ) -> Option<usize> {
        if self.incomplete {
            return None;
        }
        let count = i64::try_from(args.count()).ok()?;
        let start = match &self.begin {
            Begin::Index(index) => i64::from(*index),
            Begin::Keyword { word, from } => match find_word(args, word, *from) {
                Some(at) => at + 1,
                None => return Some(0),
            },
            Begin::Options(options) => return options.each(args, writes, tell),
            Begin::Unknown => return None,
        };
        let (first, last, step) = match self.find {
            Find::Range { last, step, limit } => {
                let rest = count - start;
                let last = match last {
                    0.. => start + i64::from(last),
                    _ if limit > 1 => start + rest / i64::from(limit) + i64::from(last),
                    _ => count + i64::from(last),
                };
                (start, last, i64::from(step))
            }
            Find::Count { at, first, step } => {
                let at = usize::try_from(start + i64::from(at)).ok()?;
                let keys: i64 = std::str::from_utf8(args.arg(at)).ok()?.parse().ok()?;
                if !(0..=MOST_KEYS).contains(&keys) {
                    return None;
                }
                let first = start + i64::from(first);
                (first, first + (keys - 1) * i64::from(step), i64::from(step))
            }
        };
        if step < 1 || first < 1 || last >= count {
            return None;
        }
        let mut found = 0;
        let mut at = first;
        while at <= last {
            tell(args.arg(usize::try_from(at).ok()?));
            found += 1;
            at += step;
        }
        Some(found)
    }
}

/// The argument that is this word, looking forward from `from`, or backward from the end if that is negative.
fn find_word<A: Args + ?Sized>(args: &A, word: &str, from: i32) -> Option<i64> {
    let is_word = |index: &usize| args.arg(*index).eq_ignore_ascii_case(word.as_bytes());
    let found = if from >= 0 {
        (from as usize..args.count()).find(is_word)
    } else {
        let start = args.count().checked_sub(from.unsigned_abs() as usize)?;
        (1..=start).rev().find(is_word)
    };
    found.and_then(|index| i64::try_from(index).ok())
}

/// `r1:0:1`, `wSTORE@6:0:1`, `r2#0,1,1`, `rSTREAMS@1:-1:1/2`, `w?`; a trailing `!`: incomplete. What no server says
/// (`wsort`) is only written.
impl fmt::Display for KeySpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.writes { "w" } else { "r" })?;
        match &self.begin {
            Begin::Index(index) => write!(f, "{index}")?,
            Begin::Keyword { word, from } => write!(f, "{word}@{from}")?,
            Begin::Options(options) => return write!(f, "{options}"),
            Begin::Unknown => return f.write_str("?"),
        }
        match self.find {
            Find::Range { last, step, limit: 0 } => write!(f, ":{last}:{step}")?,
            Find::Range { last, step, limit } => write!(f, ":{last}:{step}/{limit}")?,
            Find::Count { at, first, step } => write!(f, "#{at},{first},{step}")?,
        }
        f.write_str(if self.incomplete { "!" } else { "" })
    }
}

impl FromStr for KeySpec {
    type Err = BadLine;

    fn from_str(text: &str) -> Result<Self, BadLine> {
        let (writes, text) = match text.split_at_checked(1).ok_or(BadLine)? {
            ("r", rest) => (false, rest),
            ("w", rest) => (true, rest),
            _ => return Err(BadLine),
        };
        if text == "?" {
            return Ok(Self::unknown(writes));
        }
        let (text, incomplete) = text.strip_suffix('!').map_or((text, false), |text| (text, true));
        let number = |text: &str| text.parse::<i32>().map_err(|_| BadLine);
        let (begin, find) = match (text.split_once(':'), text.split_once('#')) {
            (Some((begin, range)), _) => {
                let (last, step) = range.split_once(':').ok_or(BadLine)?;
                let (step, limit) = step.split_once('/').unwrap_or((step, "0"));
                (begin, Find::Range { last: number(last)?, step: number(step)?, limit: number(limit)? })
            }
            (None, Some((begin, count))) => {
                let numbers = count.split(',').map(number).collect::<Result<Vec<_>, _>>()?;
                let &[at, first, step] = numbers.as_slice() else { return Err(BadLine) };
                (begin, Find::Count { at, first, step })
            }
            (None, None) => return Err(BadLine),
        };
        let begin = match begin.split_once('@') {
            Some((word, from)) => Begin::Keyword { word: word.to_owned(), from: number(from)? },
            None => Begin::Index(number(begin)?),
        };
        Ok(Self { writes, begin, find, incomplete })
    }
}
