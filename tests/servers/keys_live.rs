//! The keys of commands, held against what servers say and do.
//!
//! Lines by chance of every command that the server knows: where `COMMAND GETKEYSANDFLAGS` finds keys, the table finds
//! them, or says that it can't know. Where the server itself is wrong (it looks for the first word `STREAMS`, and a
//! consumer may be called so), the command is executed, and that decides. And lines are executed whatever the server says
//! of them: what the table doesn't tell neither changes nor matters.
//!
//! `REDWEIR_KEYS_CASES=1000000` for so many lines, `REDWEIR_KEYS_SEED=n` for others; what fails tells its seed.
#![allow(clippy::print_stderr, reason = "the seed and what was compared have to be seen")]

mod lines;
mod proof;

use std::collections::BTreeMap;
use std::env;

use self::lines::{Grammar, Line};
use self::proof::{Court, Names, Told, Type};
use crate::support::rng::Rng;
use crate::support::{Conn, Redis, Server, Value, encode};
use bytes::Bytes;
use redis_protocol::resp2::types::BytesFrame;
use redweir::core::command::{Access, CommandEntry, CommandTable, Keys, WriteKeys};
use redweir::wire::commands;

/// Lines that are sent at once.
const BATCH: usize = 500;
/// Lines about which a server and the table differ that are executed: enough of each command.
const TRIED_OF_EACH: usize = 200;

/// Commands of whose keys `COMMAND GETKEYSANDFLAGS` tells less than the truth, or something else: it takes the first
/// `STREAMS`, `STORE` or `STOREDIST`, whatever it stands for (`db.c`, `getKeysUsingKeySpecs`), and takes what `SORT`
/// stores to for an option (`sortGetKeys`).
const SERVER_IS_WRONG: &[&str] = &["xread", "xreadgroup", "georadius", "georadiusbymember", "sort"];

/// Commands of modules that name fewer keys than they use. See `modules_name_fewer_keys_than_they_use`.
const MODULE_IS_WRONG: &[&str] =
    &["json.mget", "ts.createrule", "ts.deleterule", "cms.merge", "tdigest.merge"];

/// Whose keys the table does not want to know: of search they are indexes, and a series depends on others.
fn is_distrusted(name: &str) -> bool {
    name.starts_with("ft.") || ["ts.get", "ts.range", "ts.revrange"].contains(&name)
}

fn number(name: &str, usually: usize) -> usize {
    env::var(name).ok().map_or(usually, |text| text.parse().expect("a number"))
}

/// A command table as a server reports it.
fn frame(value: &Value) -> BytesFrame {
    match value {
        Value::Status(text) => BytesFrame::SimpleString(Bytes::from(text.clone())),
        Value::Bulk(bytes) => BytesFrame::BulkString(Bytes::from(bytes.clone())),
        Value::Int(n) => BytesFrame::Integer(*n),
        Value::Array(items) => BytesFrame::Array(items.iter().map(frame).collect()),
        Value::Null => BytesFrame::Null,
        other => panic!("{other:?} in a command table"),
    }
}

struct Known {
    table: CommandTable,
    grammars: Vec<Grammar>,
}

impl Known {
    fn by(server: &Redis) -> Self {
        let command = server.cmd(&["COMMAND"]);
        let entries: Vec<CommandEntry> = commands::decode(&frame(&command)).expect("a command table");
        Self { table: CommandTable::from_entries(entries.clone()), grammars: Grammar::all(&command, entries) }
    }

    /// What the table says of this line.
    fn told(&self, line: &[String]) -> Told {
        let intent = self.table.classify(line);
        let (mut keys, mut written) = (Vec::new(), Vec::new());
        let of_keys = self.table.for_each_key(intent.id, line, &mut |key| keys.push(key.to_vec()));
        let of_written = match intent.access {
            Access::Write { keys: WriteKeys::Unknowable } | Access::Unknown => Keys::Unknowable,
            Access::Write { keys: WriteKeys::Known } => {
                self.table.for_each_written_key(intent.id, line, &mut |key| written.push(key.to_vec()))
            }
            Access::Read | Access::PrimaryRead(_) => Keys::Known { count: 0 },
        };
        for (said, found) in [(of_keys, keys.len()), (of_written, written.len())] {
            assert!(said == Keys::Unknowable || said == Keys::Known { count: found }, "{line:?}: {said:?}");
        }
        Told {
            keys: (of_keys != Keys::Unknowable).then_some(keys),
            written: (of_written != Keys::Unknowable).then_some(written),
        }
    }

    /// Whether the table takes it for a write.
    fn writes(&self, line: &[String]) -> bool {
        matches!(self.table.classify(line).access, Access::Write { .. })
    }

    /// One command in three is of those whose keys stand among options.
    fn pick(&self, rng: &mut Rng, may: impl Fn(&Grammar) -> bool) -> &Grammar {
        let only_options = rng.below(3) == 0;
        loop {
            let grammar = &self.grammars[rng.below(self.grammars.len())];
            // One line in ten is enough for all that have no keys.
            let is_wanted = !grammar.entry.specs.is_empty() || rng.below(10) == 0;
            if is_wanted && may(grammar) && (!only_options || grammar.has_options()) {
                return grammar;
            }
        }
    }
}

/// How what the table tells compares with what the server tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Equal,
    /// More than the server.
    More,
    Unknowable,
    /// Something that the server does not tell, and not all that it does.
    Less,
}

/// The server's answer: all keys, and those that it says are written. `None`: it calls the line wrong.
fn theirs(line: &[String], answer: &Value) -> Option<(Names, Names)> {
    if let Value::Error(error) = answer {
        let expected = ["Invalid ", "The command has no key", "wrong number of arguments"];
        assert!(expected.iter().any(|text| error.contains(text)), "{line:?}: {error}");
        return None;
    }
    let (mut all, mut written) = (Vec::new(), Vec::new());
    for key in answer.items() {
        let [Value::Bulk(name), flags] = key.items() else { panic!("{line:?}: {key:?}") };
        all.push(name.clone());
        // No flags: it read a count in a second, laxer way than the command does, which then fails.
        if !flags.items().is_empty() && !flags.items().iter().any(|flag| flag.text() == "RO") {
            written.push(name.clone());
        }
    }
    Some((all, written))
}

fn compare(told: Option<&Names>, theirs: &Names) -> Verdict {
    let Some(told) = told else { return Verdict::Unknowable };
    let (mut ours, mut theirs) = (told.clone(), theirs.clone());
    ours.sort();
    theirs.sort();
    if ours == theirs {
        Verdict::Equal
    } else if theirs.iter().all(|key| ours.contains(key)) {
        Verdict::More
    } else {
        Verdict::Less
    }
}

#[derive(Debug, Default)]
struct Counts {
    lines: usize,
    called_wrong: usize,
    equal: usize,
    more: usize,
    /// Of a sound line.
    unknowable: usize,
    /// Unknowable as it should be: the server will refuse it, or it names keys by content.
    not_sound: usize,
    /// Of `SERVER_IS_WRONG` and `MODULE_IS_WRONG`, and how many of them were executed.
    server_is_wrong: usize,
    tried: usize,
}

impl Counts {
    /// Lines of which all keys can be known.
    fn knowable(&self) -> usize {
        self.equal + self.more + self.unknowable + self.server_is_wrong
    }

    fn add(&mut self, other: &Self) {
        self.lines += other.lines;
        self.called_wrong += other.called_wrong;
        self.equal += other.equal;
        self.more += other.more;
        self.unknowable += other.unknowable;
        self.not_sound += other.not_sound;
        self.server_is_wrong += other.server_is_wrong;
        self.tried += other.tried;
    }
}

/// Asks the server about a batch of lines and judges the table by the answers.
fn judge(
    known: &Known,
    conn: &mut Conn,
    court: &mut Court,
    batch: &[(&Grammar, Line)],
    counts: &mut BTreeMap<String, Counts>,
) {
    let mut asked = Vec::new();
    for (_, Line { words, .. }) in batch {
        let words = ["COMMAND", "GETKEYSANDFLAGS"].into_iter().chain(words.iter().map(String::as_str));
        asked.extend(encode(&words.collect::<Vec<_>>()));
    }
    conn.send(&asked);
    for ((grammar, Line { words: line, is_sound }), answer) in batch.iter().zip(conn.read_many(batch.len())) {
        let name = &grammar.entry.name;
        let counts = counts.entry(name.clone()).or_default();
        counts.lines += 1;
        let told = known.told(line);
        // No keys at all is what it says of `EVAL` with a count that makes no sense.
        let valid = theirs(line, &answer).filter(|(all, _)| !all.is_empty() || told.keys.is_some());
        let Some((all, written)) = valid else {
            counts.called_wrong += 1;
            continue;
        };
        let of_keys = compare(told.keys.as_ref(), &all);
        // What is called read-only writes nothing, though modules flag its keys as written.
        let of_written =
            if known.writes(line) { compare(told.written.as_ref(), &written) } else { Verdict::Equal };
        match (of_keys, of_written) {
            _ if MODULE_IS_WRONG.contains(&name.as_str()) => counts.server_is_wrong += 1,
            (Verdict::Less, _) | (_, Verdict::Less) => {
                assert!(SERVER_IS_WRONG.contains(&name.as_str()), "{line:?}: {told:?}, {answer:?}");
                counts.server_is_wrong += 1;
                if counts.tried < TRIED_OF_EACH {
                    counts.tried += 1;
                    let verdict = court.try_line(line, Type::of(name), &told);
                    verdict.unwrap_or_else(|why| panic!("{line:?}: {told:?}, {answer:?}; {why}"));
                }
            }
            (Verdict::Unknowable, _) if !is_sound => counts.not_sound += 1,
            (Verdict::Unknowable, _) => counts.unknowable += 1,
            (Verdict::Equal, Verdict::Equal | Verdict::Unknowable | Verdict::More) => counts.equal += 1,
            (Verdict::More, _) => counts.more += 1,
        }
    }
}

/// `least`: commands that must have been compared.
fn check_against(kind: Server, least: usize) {
    let (cases, seed) = (number("REDWEIR_KEYS_CASES", 40_000), number("REDWEIR_KEYS_SEED", 1));
    eprintln!("{kind:?}: REDWEIR_KEYS_SEED={seed}, {cases} lines");
    let server = Redis::start_as(kind, &[]);
    let (known, mut rng) = (Known::by(&server), Rng::new(seed as u64));
    let (mut conn, mut court) = (server.connect(), Court::on(&server));
    let mut counts = BTreeMap::new();
    for _ in 0..cases.div_ceil(BATCH) {
        let batch: Vec<_> = (0..BATCH)
            .map(|_| {
                let grammar = known.pick(&mut rng, |_| true);
                (grammar, grammar.line(&mut rng))
            })
            .collect();
        judge(&known, &mut conn, &mut court, &batch, &mut counts);
    }
    report(kind, &counts, &court, least);
}

/// Prints the counts, and fails if too much of it was not compared.
fn report(kind: Server, counts: &BTreeMap<String, Counts>, court: &Court, least: usize) {
    let (mut all, mut compared) = (Counts::default(), 0);
    for (name, counts) in counts.iter().filter(|(name, _)| !is_distrusted(name)) {
        all.add(counts);
        compared += usize::from(counts.equal + counts.server_is_wrong > 0);
        let exact = counts.equal + counts.server_is_wrong;
        assert!(exact * 10 >= counts.knowable() * 9, "{name}: {counts:?}");
    }
    eprintln!(
        "{kind:?}: {compared} commands; {all:?}; executed {}, without error {}",
        court.executed, court.succeeded
    );
    assert!(compared >= least, "only {compared} commands were compared");
    assert!((all.equal + all.server_is_wrong) * 100 > all.knowable() * 99, "{all:?}");
    assert!(court.succeeded > 50, "nothing was proven by executing");
}

#[test]
fn keys_are_those_that_redis_7_0_tells() {
    check_against(Server::Redis70, 190);
}

#[test]
fn keys_are_those_that_redis_7_4_and_its_modules_tell() {
    check_against(Server::Redis74, 280);
}

#[test]
fn keys_are_those_that_valkey_8_1_tells() {
    check_against(Server::Valkey81, 190);
}

#[test]
fn keys_are_those_that_valkey_9_1_tells() {
    check_against(Server::Valkey91, 190);
}

/// What tells something else each time, or depends on when; what connects to others; what remembers in the key what it
/// has counted (`PFCOUNT`).
const VARYING: &[&str] = &[
    "spop",
    "srandmember",
    "hrandfield",
    "zrandmember",
    "object|idletime",
    "object|freq",
    "memory|usage",
    "migrate",
    "restore",
    "restore-asking",
    "dump",
    "xinfo|stream",
    "xinfo|consumers",
    "xinfo|groups",
    "watch",
    "pfcount",
    "xadd",
];

/// That of the table, and that of the modules, which must not pass.
#[test]
fn modules_name_fewer_keys_than_they_use() {
    let server = Redis::start_as(Server::Redis74, &[]);
    let (known, mut court) = (Known::by(&server), Court::on(&server));
    for (line, type_of) in [
        ("JSON.MGET a b $", Type::Json),
        ("TS.CREATERULE a b AGGREGATION sum 10", Type::Series),
        ("CMS.MERGE a 2 b c WEIGHTS 1 2", Type::CountMin),
        ("TDIGEST.MERGE a 2 b c", Type::Digest),
    ] {
        let line: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let told = known.told(&line);
        court.try_line(&line, type_of, &told).unwrap_or_else(|why| panic!("{line:?}: {told:?}; {why}"));
        let asked = ["COMMAND", "GETKEYS"].into_iter().chain(line.iter().map(String::as_str));
        let keys = server.cmd(&asked.collect::<Vec<_>>());
        let keys: Names = keys.items().iter().map(|key| key.text().into_bytes()).collect();
        let told = Told { keys: Some(keys.clone()), written: Some(keys) };
        assert!(court.try_line(&line, type_of, &told).is_err(), "{line:?}: {told:?} is all");
    }
    assert_eq!(court.succeeded, court.executed);
}

fn check_by_executing(kind: Server) {
    let (cases, seed) = (number("REDWEIR_KEYS_CASES", 40_000) / 20, number("REDWEIR_KEYS_SEED", 1));
    eprintln!("{kind:?}: REDWEIR_KEYS_SEED={seed}, {cases} lines executed");
    let server = Redis::start_as(kind, &[]);
    let (known, mut rng, mut court) = (Known::by(&server), Rng::new(seed as u64), Court::on(&server));
    for _ in 0..cases {
        let may = |grammar: &Grammar| {
            let entry = &grammar.entry;
            !entry.specs.is_empty() && !entry.flags.module && !VARYING.contains(&entry.name.as_str())
        };
        let grammar = known.pick(&mut rng, may);
        let (line, name) = (grammar.line(&mut rng).words, &grammar.entry.name);
        let told = known.told(&line);
        let verdict = court.try_line(&line, Type::of(name), &told);
        verdict.unwrap_or_else(|why| panic!("{line:?}: {told:?}; {why}"));
    }
    eprintln!("{kind:?}: executed {}, without error {}", court.executed, court.succeeded);
    assert!(court.succeeded * 8 > court.executed, "{} of {}", court.succeeded, court.executed);
}

#[test]
fn what_is_not_told_neither_changes_nor_matters_on_redis_7_0() {
    check_by_executing(Server::Redis70);
}

#[test]
fn what_is_not_told_neither_changes_nor_matters_on_redis_6_2() {
    check_by_executing(Server::Redis62);
}

#[test]
fn what_is_not_told_neither_changes_nor_matters_on_redis_7_4() {
    check_by_executing(Server::Redis74);
}

#[test]
fn what_is_not_told_neither_changes_nor_matters_on_valkey_8_1() {
    check_by_executing(Server::Valkey81);
}

#[test]
fn what_is_not_told_neither_changes_nor_matters_on_valkey_9_1() {
    check_by_executing(Server::Valkey91);
}
