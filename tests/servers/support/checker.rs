//! The version register: every key has one writer, which writes version 1, 2, 3, … . When each write was invoked and
//! acknowledged, and when each read started, ended and what version it saw, decides exactly what a consistency level
//! allows. One clock; no tolerance that isn't asked for.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::{Duration, Instant};

/// The value of one version of a key: the version, who wrote it, and a check sum over both and the key.
pub(crate) fn value(key: &str, version: u64, writer: &str) -> String {
    format!("{version}:{writer}:{:08x}", crc32(format!("{key}/{version}/{writer}").as_bytes()))
}

/// The version in a value that was read from this key; `None` when it is not one that was written there.
pub(crate) fn version(key: &str, text: &str) -> Option<u64> {
    let mut parts = text.splitn(3, ':');
    let (version, writer) = (parts.next()?.parse().ok()?, parts.next()?);
    (value(key, version, writer) == text).then_some(version)
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

/// What a read promises. Each level promises what those before it do, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Nothing from the future.
    Eventual,
    /// Nothing older than the bound.
    Bounded,
    /// Own writes, and never back in time.
    Session,
    /// Every write that was acknowledged before the read started.
    Fenced,
    /// Every write that the primary had executed: whatever had been shown to anybody, too.
    Strong,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Write {
    pub(crate) key: usize,
    pub(crate) version: u64,
    /// The connection that wrote it.
    pub(crate) session: usize,
    pub(crate) invoked: Instant,
    /// `None`: nobody knows whether it happened.
    pub(crate) acked: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Read {
    pub(crate) key: usize,
    /// The connection that read it.
    pub(crate) session: usize,
    pub(crate) start: Instant,
    pub(crate) end: Instant,
    /// 0: there was none.
    pub(crate) version: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    FromTheFuture,
    TooOld { by: Duration },
    OwnWriteMissing,
    BackInTime,
    AcknowledgedWriteMissing,
    ShownWriteMissing,
}

#[derive(Debug)]
pub(crate) struct Violation {
    pub(crate) what: Broken,
    pub(crate) read: Read,
    /// The version that it should have seen, at least (or at most, when it is from the future).
    pub(crate) expected: u64,
}

/// Everything that happened to the keys.
#[derive(Default, Debug)]
pub(crate) struct History {
    pub(crate) writes: Vec<Write>,
    pub(crate) reads: Vec<Read>,
}

/// What the checker found.
#[derive(Default, Debug)]
pub(crate) struct Verdict {
    pub(crate) violations: Vec<Violation>,
    pub(crate) staleness: Staleness,
}

/// How old reads were: for each, the time since a version that it didn't see had been acknowledged.
#[derive(Default)]
pub(crate) struct Staleness {
    pub(crate) max: Duration,
    pub(crate) reads: usize,
    /// Reads that missed nothing.
    pub(crate) fresh: usize,
    /// By the power of two of milliseconds that is not reached.
    buckets: BTreeMap<u64, usize>,
}

impl Staleness {
    fn record(&mut self, age: Duration) {
        self.reads += 1;
        self.max = self.max.max(age);
        if age.is_zero() {
            self.fresh += 1;
        } else {
            *self.buckets.entry((age.as_millis() as u64 + 1).next_power_of_two()).or_default() += 1;
        }
    }
}

impl fmt::Debug for Staleness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} reads, {} fresh, max {:?};", self.reads, self.fresh, self.max)?;
        self.buckets.iter().try_for_each(|(ms, count)| write!(f, " <{ms}ms: {count}"))
    }
}

/// The writes of one key, in order.
#[derive(Default)]
struct Register {
    /// When each version was invoked, by version.
    invoked: Vec<(u64, Instant)>,
    /// When each was acknowledged, by version; with one writer also by time.
    acked: Vec<(u64, Instant)>,
    /// The same for each session.
    own: HashMap<usize, Vec<(u64, Instant)>>,
}

/// The highest version that had happened before `moment`; 0 when none had.
fn before(events: &[(u64, Instant)], moment: Instant) -> u64 {
    let count = events.partition_point(|(_, at)| *at < moment);
    count.checked_sub(1).map_or(0, |last| events[last].0)
}

/// When each version of each key was first shown to anybody, in that order.
struct Shown(HashMap<usize, Vec<(u64, Instant)>>);

impl Shown {
    /// The newest version that had been shown before this read began.
    fn before(&self, read: &Read) -> u64 {
        self.0.get(&read.key).map_or(0, |of_key| before(of_key, read.start))
    }

    fn hides(&self, read: &Read) -> bool {
        read.version < self.before(read)
    }
}

impl Register {
    fn age(&self, read: &Read) -> Duration {
        let missed = self.acked.partition_point(|(version, _)| *version <= read.version);
        self.acked.get(missed).map_or(Duration::ZERO, |(_, at)| read.start.saturating_duration_since(*at))
    }
}

impl History {
    pub(crate) fn merge(&mut self, other: Self) {
        self.writes.extend(other.writes);
        self.reads.extend(other.reads);
    }

    /// Checks every read. `bound` counts from [`Level::Bounded`] up.
    pub(crate) fn verify(&self, level: Level, bound: Duration) -> Verdict {
        let registers = self.registers();
        let nothing = Register::default();
        let shown = self.shown();
        let mut seen: HashMap<(usize, usize), u64> = HashMap::new();
        let mut verdict = Verdict::default();
        let mut reads: Vec<&Read> = self.reads.iter().collect();
        reads.sort_by_key(|read| read.start);
        for read in reads {
            let register = registers.get(&read.key).unwrap_or(&nothing);
            let age = register.age(read);
            verdict.staleness.record(age);
            let newest_seen = seen.entry((read.session, read.key)).or_default();
            let own = register.own.get(&read.session).map_or(0, |own| before(own, read.start));
            let acked = before(&register.acked, read.start);
            let invoked = before(&register.invoked, read.end);
            let (what, expected) = if read.version > invoked {
                (Broken::FromTheFuture, invoked)
            } else if level >= Level::Bounded && age > bound {
                (Broken::TooOld { by: age.saturating_sub(bound) }, acked)
            } else if level >= Level::Session && read.version < own {
                (Broken::OwnWriteMissing, own)
            } else if level >= Level::Session && read.version < *newest_seen {
                (Broken::BackInTime, *newest_seen)
            } else if level >= Level::Fenced && read.version < acked {
                (Broken::AcknowledgedWriteMissing, acked)
            } else if level >= Level::Strong && shown.hides(read) {
                (Broken::ShownWriteMissing, shown.before(read))
            } else {
                *newest_seen = read.version.max(*newest_seen);
                continue;
            };
            verdict.violations.push(Violation { what, read: *read, expected });
        }
        verdict
    }

    /// Reads that miss what somebody else had been shown before its writer was told that it was done. A fence is stamped by
    /// that acknowledgement: only strong reads promise more.
    pub(crate) fn missing_what_was_shown_early(&self) -> Vec<&Read> {
        let (registers, shown) = (self.registers(), self.shown());
        let acked =
            |read: &Read| registers.get(&read.key).map_or(0, |of_key| before(&of_key.acked, read.start));
        self.reads.iter().filter(|read| shown.hides(read) && read.version >= acked(read)).collect()
    }

    fn shown(&self) -> Shown {
        let mut by_end: Vec<&Read> = self.reads.iter().collect();
        by_end.sort_by_key(|read| read.end);
        let mut shown: HashMap<usize, Vec<(u64, Instant)>> = HashMap::new();
        for read in by_end {
            let of_key = shown.entry(read.key).or_default();
            if of_key.last().is_none_or(|(version, _)| *version < read.version) {
                of_key.push((read.version, read.end));
            }
        }
        Shown(shown)
    }

    fn registers(&self) -> HashMap<usize, Register> {
        let mut writes: Vec<&Write> = self.writes.iter().collect();
        writes.sort_by_key(|write| (write.key, write.version));
        let mut registers: HashMap<usize, Register> = HashMap::new();
        for write in writes {
            let register = registers.entry(write.key).or_default();
            register.invoked.push((write.version, write.invoked));
            if let Some(at) = write.acked {
                register.acked.push((write.version, at));
                register.own.entry(write.session).or_default().push((write.version, at));
            }
        }
        registers
    }
}

impl Verdict {
    /// Fails with what was broken first, unless nothing was.
    pub(crate) fn assert_holds(&self) {
        assert!(self.staleness.reads > 0, "nothing was read");
        if let Some(first) = self.violations.first() {
            panic!("{} violations, first {first:?}; {:?}", self.violations.len(), self.staleness);
        }
    }
}

mod tests {
    use super::*;

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    /// Version v is invoked at 100 v and acknowledged 10 ms later, by session 1.
    fn five_writes(start: Instant) -> Vec<Write> {
        let write = |version| Write {
            key: 0,
            version,
            session: 1,
            invoked: at(start, 100 * version),
            acked: Some(at(start, 100 * version + 10)),
        };
        (1..=5).map(write).collect()
    }

    /// Reads as (session, start, end, version).
    fn broken(reads: &[(usize, u64, u64, u64)], level: Level, bound_ms: u64) -> Vec<Broken> {
        let start = Instant::now();
        let reads = reads.iter().map(|&(session, s, e, version)| Read {
            key: 0,
            session,
            start: at(start, s),
            end: at(start, e),
            version,
        });
        let history = History { writes: five_writes(start), reads: reads.collect() };
        history.verify(level, Duration::from_millis(bound_ms)).violations.iter().map(|v| v.what).collect()
    }

    #[test]
    fn what_every_level_allows() {
        let reads = [(2, 50, 60, 0), (2, 205, 208, 1), (2, 205, 208, 2), (2, 311, 312, 3), (1, 600, 601, 5)];
        for level in [Level::Eventual, Level::Bounded, Level::Session, Level::Fenced, Level::Strong] {
            assert_eq!(broken(&reads, level, 0), [], "{level:?}");
        }
    }

    #[test]
    fn what_was_shown_to_anybody_is_shown_by_strong_reads_from_then_on() {
        // Version 3 is shown at 305, before it is acknowledged at 310.
        let reads = [(2, 302, 305, 3), (3, 306, 307, 2)];
        assert_eq!(broken(&reads, Level::Strong, 1000), [Broken::ShownWriteMissing]);
        assert_eq!(broken(&reads, Level::Fenced, 1000), []);
        assert_eq!(broken(&[(2, 302, 305, 3), (3, 304, 307, 2)], Level::Strong, 1000), []);
    }

    #[test]
    fn what_is_shown_early_is_told_apart_from_what_was_acknowledged() {
        let start = Instant::now();
        let read = |s, version| Read {
            key: 0,
            session: s as usize,
            start: at(start, s),
            end: at(start, s + 1),
            version,
        };
        let count = |reads: &[Read]| {
            let history = History { writes: five_writes(start), reads: reads.to_vec() };
            history.missing_what_was_shown_early().len()
        };
        assert_eq!(count(&[read(302, 3), read(306, 2)]), 1);
        assert_eq!(count(&[read(302, 3), read(306, 3)]), 0);
        assert_eq!(count(&[read(302, 3), read(320, 2)]), 0, "acknowledged by then: another matter");
    }

    #[test]
    fn a_version_that_nobody_wrote_yet_is_from_the_future() {
        assert_eq!(broken(&[(2, 150, 160, 2)], Level::Eventual, 0), [Broken::FromTheFuture]);
        assert_eq!(broken(&[(2, 600, 601, 6)], Level::Eventual, 0), [Broken::FromTheFuture]);
    }

    #[test]
    fn an_old_version_breaks_a_bound() {
        // Version 2 was acknowledged at 210; who misses it at 290 is 80 ms old.
        assert_eq!(broken(&[(2, 290, 291, 1)], Level::Bounded, 80), []);
        let by = Duration::from_millis(1);
        assert_eq!(broken(&[(2, 290, 291, 1)], Level::Bounded, 79), [Broken::TooOld { by }]);
        assert_eq!(broken(&[(2, 290, 291, 1)], Level::Eventual, 0), []);
    }

    #[test]
    fn a_session_sees_its_writes_and_does_not_go_back() {
        assert_eq!(broken(&[(1, 290, 291, 1)], Level::Session, 1000), [Broken::OwnWriteMissing]);
        assert_eq!(broken(&[(2, 290, 291, 1)], Level::Session, 1000), []);
        let back = [(2, 290, 291, 2), (2, 295, 296, 1)];
        assert_eq!(broken(&back, Level::Session, 1000), [Broken::BackInTime]);
        assert_eq!(broken(&back, Level::Bounded, 1000), []);
        assert_eq!(broken(&[(2, 290, 291, 2), (3, 295, 296, 1)], Level::Session, 1000), []);
    }

    #[test]
    fn a_fence_shows_what_anybody_had_acknowledged() {
        assert_eq!(broken(&[(2, 211, 212, 1)], Level::Fenced, 1000), [Broken::AcknowledgedWriteMissing]);
        assert_eq!(broken(&[(2, 209, 212, 1)], Level::Fenced, 1000), []);
    }

    #[test]
    fn a_write_without_an_answer_may_be_seen_or_not() {
        let start = Instant::now();
        let write = Write { key: 7, version: 1, session: 1, invoked: start, acked: None };
        let read = |version| Read { key: 7, session: 1, start: at(start, 10), end: at(start, 11), version };
        for version in [0, 1] {
            let history = History { writes: vec![write], reads: vec![read(version)] };
            history.verify(Level::Fenced, Duration::ZERO).assert_holds();
        }
    }

    #[test]
    fn staleness_is_measured() {
        let start = Instant::now();
        let read = |s, version| Read { key: 0, session: 2, start: at(start, s), end: at(start, s), version };
        let history =
            History { writes: five_writes(start), reads: vec![read(290, 1), read(290, 2), read(335, 2)] };
        let staleness = history.verify(Level::Eventual, Duration::ZERO).staleness;
        assert_eq!((staleness.reads, staleness.fresh, staleness.max), (3, 1, Duration::from_millis(80)));
        assert_eq!(format!("{staleness:?}"), "3 reads, 1 fresh, max 80ms; <32ms: 1 <128ms: 1");
    }

    #[test]
    fn a_value_of_another_key_is_recognised() {
        let text = value("a", 7, "w1");
        assert_eq!((version("a", &text), version("b", &text)), (Some(7), None));
        assert_eq!(version("a", &text.replace('7', "8")), None);
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }
}
