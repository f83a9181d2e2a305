//! What happened, put together: the states that the data went through, where in it each write stands, and from which
//! state to which one each read may have seen it.

use std::collections::HashMap;
use std::time::Duration;

use super::clients::{Call, Unit};
use super::grammar::{DATABASES, Judge, KEYS, tag_of};
use super::oracle::{Keys, Oracle, Touched, bit, database};
use super::recorder::{Entry, Head};
use super::wire::Words;
use crate::support::{Value, ms};

/// How many steps were taken.
pub(crate) type State = usize;

/// What the stream does at once: a command, or a transaction.
pub(crate) struct Step {
    /// With the database of each.
    pub(crate) commands: Vec<(usize, Words)>,
    pub(crate) end: u64,
    pub(crate) at: Duration,
    pub(crate) keys: Touched,
    /// To its last command.
    reply: Vec<u8>,
}

/// What a level demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Eventual,
    Bounded(Duration),
    Session(Duration),
    Fenced(Duration),
    Strong(Duration),
}

impl Level {
    fn rank(self) -> usize {
        match self {
            Self::Eventual => 0,
            Self::Bounded(_) => 1,
            Self::Session(_) => 2,
            Self::Fenced(_) => 3,
            Self::Strong(_) => 4,
        }
    }

    /// As in the configuration.
    pub(crate) fn name(self) -> &'static str {
        ["eventual", "bounded", "session", "fenced", "strong"][self.rank()]
    }

    pub(crate) fn is_a_session(self) -> bool {
        self.rank() >= 2
    }

    pub(crate) fn bound(self) -> Option<Duration> {
        match self {
            Self::Eventual => None,
            Self::Bounded(bound) | Self::Session(bound) | Self::Fenced(bound) | Self::Strong(bound) => {
                Some(bound)
            }
        }
    }
}

/// A read, or those reads of a transaction that saw the same state.
pub(crate) struct Read {
    pub(crate) unit: usize,
    pub(crate) calls: Vec<usize>,
    pub(crate) keys: Keys,
    /// With those that it may have looked at besides.
    pub(crate) maybe: Keys,
    pub(crate) least: State,
    pub(crate) why: &'static str,
    pub(crate) most: State,
    /// It most likely saw this state or a later one: where to begin to look.
    pub(crate) likely: State,
}

/// A write whose place in the stream is certain.
#[derive(Clone, Copy)]
pub(crate) struct Known {
    pub(crate) unit: usize,
    pub(crate) step: usize,
    keys: Touched,
}

pub(crate) struct History {
    pub(crate) steps: Vec<Step>,
    pub(crate) units: Vec<Unit>,
    pub(crate) known: Vec<Known>,
    pub(crate) heads: Vec<Head>,
    /// The keys of each unit's commands.
    keys: Vec<Vec<Touched>>,
}

/// How long before a read its state is looked for first.
const LOOK_BACK: Duration = ms(100);

impl History {
    pub(crate) fn new(
        entries: Vec<Entry>,
        heads: Vec<Head>,
        mut units: Vec<Unit>,
        oracle: &mut Oracle,
        digest: &Value,
    ) -> Self {
        units.sort_by_key(|unit| (unit.conn, unit.end));
        let mut steps = steps(entries);
        oracle.clear();
        let flat = || steps.iter().flat_map(|step| step.commands.iter().map(|(db, argv)| (*db, argv)));
        let keys = oracle.touched(flat()).unwrap();
        let replies = oracle.execute(flat());
        assert_eq!(&oracle.server.cmd(&["DEBUG", "DIGEST"]), digest, "the oracle ends where the primary did");
        let mut each = keys.into_iter().zip(replies);
        for step in &mut steps {
            for (_, argv) in &step.commands {
                let (keys, reply) = each.next().expect("one for each");
                let failed = reply[0] == b'-';
                assert!(!failed, "the oracle cannot follow: {}: {}", show(argv), reply.escape_ascii());
                step.keys.all |= keys.all;
                step.keys.written |= keys.written;
                step.reply = reply;
            }
        }
        let said = units.iter().flat_map(|unit| unit.calls.iter().map(|call| (unit.db, &call.argv)));
        let mut each = oracle.touched(said).unwrap().into_iter();
        let keys = units.iter().map(|unit| each.by_ref().take(unit.calls.len()).collect()).collect();
        let mut history = Self { steps, units, known: Vec::new(), heads, keys };
        history.known = history.find_writes();
        history
    }

    /// The last state that had been received by then: not beyond what the primary had done.
    fn received(&self, at: Duration) -> State {
        self.steps.partition_point(|step| step.at <= at)
    }

    /// A state that the primary had not passed by then.
    fn not_passed(&self, at: Duration) -> State {
        let next = self.heads.partition_point(|head| head.asked < at);
        let head = self.heads.get(next).map_or(u64::MAX, |head| head.offset);
        self.steps.partition_point(|step| step.end <= head)
    }

    /// By a word that only it has; or because it is the only one that says so at a time when only one was executed,
    /// with the same reply.
    fn find_writes(&self) -> Vec<Known> {
        let mut tags: HashMap<u64, usize> = HashMap::new();
        let mut same: HashMap<(usize, &Words), Vec<usize>> = HashMap::new();
        for (n, step) in self.steps.iter().enumerate() {
            for word in step.commands.iter().flat_map(|(_, argv)| argv) {
                if let Some(tag) = tag_of(word) {
                    tags.entry(tag).or_insert(n);
                }
            }
            if let [(db, argv)] = &step.commands[..] {
                same.entry((*db, argv)).or_default().push(n);
            }
        }
        let mut said: HashMap<(usize, &Words), Vec<usize>> = HashMap::new();
        for (n, unit) in self.units.iter().enumerate() {
            for call in unit.calls.iter().filter(|call| call.judge == Judge::Write) {
                said.entry((unit.db, &call.argv)).or_default().push(n);
            }
        }
        let mut known = Vec::new();
        for (n, unit) in self.units.iter().enumerate() {
            let words =
                unit.calls.iter().filter(|call| call.judge == Judge::Write).flat_map(|call| &call.argv);
            let by_tag = words.filter_map(|word| tag_of(word)).find_map(|tag| tags.get(&tag).copied());
            let step = by_tag.or_else(|| match &unit.calls[..] {
                [call] if !unit.transaction => self.only_one(n, call, &same, &said),
                _ => None,
            });
            if let Some(step) = step {
                let mut keys = self.steps[step].keys;
                keys.all |= self.keys[n].iter().fold(0, |all, keys| all | keys.all);
                known.push(Known { unit: n, step, keys });
            }
        }
        known
    }

    fn only_one(
        &self,
        unit: usize,
        call: &Call,
        same: &HashMap<(usize, &Words), Vec<usize>>,
        said: &HashMap<(usize, &Words), Vec<usize>>,
    ) -> Option<usize> {
        let at = (self.units[unit].db, &call.argv);
        if call.judge != Judge::Write || call.reply.first() == Some(&b'-') {
            return None;
        }
        let window = |unit: usize| {
            let Unit { sent, end, .. } = self.units[unit];
            self.received(sent)..self.not_passed(end)
        };
        let mut steps = same.get(&at)?.iter().filter(|step| window(unit).contains(step));
        let step = *steps.next()?;
        let others = said[&at].iter().filter(|other| window(**other).contains(&step)).count();
        (steps.next().is_none() && others == 1 && self.steps[step].reply == call.reply).then_some(step)
    }

    /// What each read may have seen.
    pub(crate) fn reads(&self, level: Level) -> Vec<Read> {
        let acknowledged = Acknowledged::of(self);
        let mut known = self.known.iter().map(|known| (known.unit, *known)).collect::<HashMap<_, _>>();
        let mut reads = Vec::new();
        let mut own = [0; DATABASES * KEYS.len()];
        let mut conn = usize::MAX;
        for (n, unit) in self.units.iter().enumerate() {
            if conn != unit.conn {
                (conn, own) = (unit.conn, [0; DATABASES * KEYS.len()]);
            }
            let write = known.remove(&n);
            for (calls, exact) in groups(unit, write.map(|write| write.step)) {
                let keys = calls.iter().fold(0, |keys, call| keys | self.keys[n][*call].all);
                let maybe = calls.iter().fold(keys, |keys, call| keys | self.keys[n][*call].maybe);
                let mut read = self.bounds(n, calls, keys, level, &acknowledged);
                read.maybe = maybe;
                if level.is_a_session() {
                    raise(&mut read, most(&own, keys), "an own write, or what it showed");
                }
                if let Some(state) = exact {
                    raise(&mut read, state, "its own transaction");
                    read.most = read.most.min(state);
                }
                reads.push(read);
            }
            if let Some(write) = write {
                bits(write.keys.all).for_each(|key| own[key] = write.step + 1);
            }
        }
        if level.is_a_session() {
            self.end_at_own_writes(&mut reads);
        }
        reads
    }

    fn bounds(
        &self,
        n: usize,
        calls: Vec<usize>,
        keys: Keys,
        level: Level,
        acknowledged: &Acknowledged,
    ) -> Read {
        let unit = &self.units[n];
        let likely = self.received(unit.sent.saturating_sub(LOOK_BACK));
        let most = self.not_passed(unit.end);
        let mut read = Read { unit: n, calls, keys, maybe: keys, least: 0, why: "", most, likely };
        if let Some(bound) = level.bound() {
            let state = unit.sent.checked_sub(bound).map_or(0, |at| self.received(at));
            raise(&mut read, state, "not older than the bound");
        }
        if level.rank() >= 3 {
            let via = (level.rank() == 3).then_some(unit.via);
            let state = acknowledged.by(unit.sent, keys, via);
            raise(&mut read, state, "a write that was acknowledged");
        }
        read
    }

    /// A read does not see what its connection writes to the same key after it in one pipeline.
    fn end_at_own_writes(&self, reads: &mut [Read]) {
        let known: HashMap<usize, Known> = self.known.iter().map(|known| (known.unit, *known)).collect();
        let mut next = [usize::MAX; DATABASES * KEYS.len()];
        let mut reads = reads.iter_mut().rev().peekable();
        let mut conn = usize::MAX;
        for (n, unit) in self.units.iter().enumerate().rev() {
            if conn != unit.conn {
                (conn, next) = (unit.conn, [usize::MAX; DATABASES * KEYS.len()]);
            }
            while let Some(read) = reads.next_if(|read| read.unit == n) {
                let end = bits(read.keys).map(|key| next[key]).min().unwrap_or(usize::MAX);
                read.most = read.most.min(end);
            }
            if let Some(known) = known.get(&n) {
                bits(known.keys.all).for_each(|key| next[key] = known.step);
            }
        }
    }
}

fn raise(read: &mut Read, state: State, why: &'static str) {
    if state > read.least {
        (read.least, read.why) = (state, why);
    }
}

fn bits(keys: Keys) -> impl Iterator<Item = usize> {
    (0..DATABASES * KEYS.len()).filter(move |key| keys >> key & 1 == 1)
}

fn most(states: &[State], keys: Keys) -> State {
    bits(keys).map(|key| states[key]).max().unwrap_or(0)
}

/// The reads of a unit that saw one state each, and that state if it is known: those before the first write of a
/// transaction, and those after the last.
fn groups(unit: &Unit, step: Option<usize>) -> Vec<(Vec<usize>, Option<State>)> {
    let write = |call: &Call| call.judge == Judge::Write;
    let first = unit.calls.iter().position(write).unwrap_or(unit.calls.len());
    let after = unit.calls.iter().rposition(write).map_or(unit.calls.len(), |last| last + 1);
    let judged = |range: std::ops::Range<usize>| -> Vec<usize> {
        range.filter(|call| !matches!(unit.calls[*call].judge, Judge::Write | Judge::Chance)).collect()
    };
    let mut groups = vec![(judged(0..first), step)];
    if let Some(step) = step {
        groups.push((judged(after..unit.calls.len()), Some(step + 1)));
    }
    groups.retain(|(calls, _)| !calls.is_empty());
    groups
}

/// For each key, and by way of whom: when a write was acknowledged, and the furthest state of any so far.
struct Acknowledged(HashMap<(usize, Option<usize>), Vec<Ack>>);

/// When, and the state.
type Ack = (Duration, State);

impl Acknowledged {
    fn of(history: &History) -> Self {
        let mut all: HashMap<_, Vec<Ack>> = HashMap::new();
        for known in &history.known {
            let unit = &history.units[known.unit];
            for key in bits(known.keys.written) {
                for via in [None, Some(unit.via)] {
                    all.entry((key, via)).or_default().push((unit.end, known.step + 1));
                }
            }
        }
        for writes in all.values_mut() {
            writes.sort_unstable();
            let mut furthest = 0;
            for (_, state) in writes {
                furthest = furthest.max(*state);
                *state = furthest;
            }
        }
        Self(all)
    }

    fn by(&self, at: Duration, keys: Keys, via: Option<usize>) -> State {
        let each = bits(keys).filter_map(|key| {
            let writes = self.0.get(&(key, via))?;
            let before = writes.partition_point(|(acknowledged, _)| *acknowledged < at);
            Some(writes.get(before.checked_sub(1)?)?.1)
        });
        each.max().unwrap_or(0)
    }
}

/// The stream, cut where the data is whole.
fn steps(entries: Vec<Entry>) -> Vec<Step> {
    let (mut db, mut open) = (0, None);
    let mut steps = Vec::new();
    for Entry { argv, end, at } in entries {
        let name = argv[0].to_ascii_uppercase();
        match &name[..] {
            b"PING" | b"REPLCONF" => {}
            b"SELECT" => db = String::from_utf8_lossy(&argv[1]).parse().expect("a database"),
            b"MULTI" => open = Some(Vec::new()),
            b"EXEC" => {
                let commands = open.take().expect("a transaction that began");
                steps.push(Step { commands, end, at, keys: Touched::default(), reply: Vec::new() });
            }
            _ => {
                if let Some(commands) = &mut open {
                    commands.push((db, argv));
                } else {
                    let commands = vec![(db, argv)];
                    steps.push(Step { commands, end, at, keys: Touched::default(), reply: Vec::new() });
                }
            }
        }
    }
    steps
}

pub(crate) fn show(argv: &Words) -> String {
    argv.iter().map(|word| word.escape_ascii().to_string()).collect::<Vec<_>>().join(" ")
}

/// The names of keys.
pub(crate) fn names(keys: Keys) -> String {
    if (0..DATABASES).any(|db| keys & database(db) == database(db)) {
        return "a whole database".to_owned();
    }
    let all = (0..DATABASES).flat_map(|db| KEYS.iter().map(move |key| (db, key)));
    let named = all.filter(|(db, key)| bit(*db, key.as_bytes()) & keys != 0);
    named.map(|(db, key)| format!("{db}:{key}")).collect::<Vec<_>>().join(" ")
}
