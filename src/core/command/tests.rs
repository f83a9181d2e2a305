//! Tests of the command table. `tests/servers/commands_live.rs` holds it against real servers.

use proptest::prelude::*;
use proptest::{collection, sample};

use super::*;

fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

fn keys(table: &CommandTable, line: &str) -> (Keys, Vec<String>) {
    let (args, mut found) = (words(line), Vec::new());
    let id = table.classify(args.as_slice()).id;
    let keys = table
        .for_each_key(id, args.as_slice(), &mut |key| found.push(String::from_utf8_lossy(key).into_owned()));
    (keys, found)
}

fn access(table: &CommandTable, line: &str) -> Access {
    table.classify(words(line).as_slice()).access
}

fn handling(table: &CommandTable, line: &str) -> Handling {
    table.classify(words(line).as_slice()).handling
}

#[test]
fn every_line_of_the_built_in_table_is_read_and_written_alike() {
    let lines: Vec<&str> = include_str!("table.txt").lines().filter(|line| !line.starts_with('#')).collect();
    assert!(lines.len() > 300, "{} lines", lines.len());
    for line in lines {
        assert_eq!(line.parse::<CommandEntry>().map(|entry| entry.to_string()), Ok(line.to_owned()));
    }
}

#[test]
fn how_many_arguments_a_command_takes_is_known() {
    let table = CommandTable::builtin();
    let allows = |line: &str| {
        let args = words(line);
        table.arity(table.classify(args.as_slice()).id).allows(args.len())
    };
    for right in
        ["GET k", "SET k v", "SET k v EX 10", "PING", "PING x", "CONFIG GET x", "NOSUCH", "NOSUCH a b"]
    {
        assert!(allows(right), "{right}");
    }
    for wrong in ["GET", "GET k x", "SET k", "DBSIZE x", "CONFIG", "CONFIG GET", "OBJECT ENCODING", "EVAL s"]
    {
        assert!(!allows(wrong), "{wrong}");
    }
    assert_eq!(Arity::new(2).from(2), Some(Arity::new(2)));
    assert_eq!(Arity::new(-1).from(2), Some(Arity::new(-2)));
    assert_eq!(Arity::UNKNOWN.from(2), Some(Arity::new(-2)));
    assert_eq!(Arity::new(1).from(2), None);
}

#[test]
fn a_server_that_does_not_list_quit_knows_it() {
    let entries: Vec<CommandEntry> = vec!["get r 2 r1:0:1".parse().expect("an entry")];
    let table = CommandTable::from_entries(entries.clone());
    assert_eq!(handling(&table, "QUIT"), Handling::Local(Local::Quit));
    assert_eq!(table.len(), 1 + entries.len() + 2, "`other`, `redweir`, and no more");
}

#[test]
fn a_subcommand_is_not_known_by_its_first_word() {
    let table = CommandTable::builtin();
    let plain = |line| table.is_plain(table.classify(words(line).as_slice()).id);
    assert!(plain("GET k") && plain("EVAL x 0"));
    for line in ["CLIENT ID", "CONFIG GET x", "CLIENT", "XREAD STREAMS s 0", "NOSUCH"] {
        assert!(!plain(line), "{line}");
    }
    let all = (0..table.len()).map(|id| CommandId(u16::try_from(id).unwrap()));
    assert!(all.filter(|id| table.name(*id).contains('|')).all(|id| !table.is_plain(id)));
}

#[test]
fn reads_go_to_replicas_unless_only_the_primary_may_answer() {
    let table = CommandTable::builtin();
    for read in
        ["GET k", "get k", "HGETALL k", "EVAL_RO x 1 k", "XREAD STREAMS s 0", "SORT_RO k", "XRANGE k - +"]
    {
        assert_eq!(access(&table, read), Access::Read, "{read}");
    }
    for primary in [
        "TOUCH k",
        "PFCOUNT k",
        "OBJECT FREQ k",
        "OBJECT IDLETIME k",
        "object encoding k",
        "MEMORY USAGE k",
        "XINFO STREAM k",
        "XPENDING k g",
        "DUMP k",
    ] {
        assert_eq!(access(&table, primary), Access::PrimaryRead(Why::KeyState), "{primary}");
    }
    for primary in ["PING", "INFO", "ROLE", "PUBLISH c m", "CONFIG GET x", "COMMAND", "TIME"] {
        assert_eq!(access(&table, primary), Access::PrimaryRead(Why::NotReadonly), "{primary}");
    }
    let known = Access::Write { keys: WriteKeys::Known };
    for write in ["SET k v", "DEL a b", "SORT k STORE d", "XREADGROUP GROUP g c STREAMS s >", "GETEX k"] {
        assert_eq!(access(&table, write), known, "{write}");
    }
    let unknowable = Access::Write { keys: WriteKeys::Unknowable };
    for write in
        ["EVAL x 1 k", "EVALSHA x 0", "FCALL f 0", "FLUSHALL", "FLUSHDB", "SWAPDB 0 1", "FUNCTION LOAD x"]
    {
        assert_eq!(access(&table, write), unknowable, "{write}");
    }
    for unknown in
        ["NOSUCH", "", "JSON.GET k", "GETGETGETGETGETGETGETGETGETGETGETGETGETGETGETGETGETGETGETGETGETGET k"]
    {
        assert_eq!(access(&table, unknown), Access::Unknown, "{unknown}");
        assert_eq!(table.name(table.classify(words(unknown).as_slice()).id), "other");
    }
}

#[test]
fn keys_are_found_where_the_arguments_put_them() {
    let table = CommandTable::builtin();
    let cases: &[(&str, &[&str])] = &[
        ("GET k", &["k"]),
        ("MGET a b c", &["a", "b", "c"]),
        ("MSET a 1 b 2", &["a", "b"]),
        ("EVAL_RO return 2 a b c", &["a", "b"]),
        ("EVAL_RO return 0", &[]),
        ("ZUNION 2 a b WEIGHTS 1 2", &["a", "b"]),
        ("ZUNIONSTORE d 2 a b", &["d", "a", "b"]),
        ("XREAD COUNT 2 STREAMS s t 0 0", &["s", "t"]),
        ("XREAD STREAMS s 0", &["s"]),
        ("GEORADIUS k 1 2 3 m STORE d", &["k", "d"]),
        ("SORT k LIMIT 0 1 STORE d", &["k", "d"]),
        ("SORT k GET # BY nosort", &["k"]),
        ("OBJECT ENCODING k", &["k"]),
        ("BLPOP a b 0", &["a", "b"]),
        ("LMPOP 2 a b LEFT", &["a", "b"]),
        ("DBSIZE", &[]),
        ("SPUBLISH ch m", &[]),
    ];
    for (line, expected) in cases {
        let (found, names) = keys(&table, line);
        assert_eq!(
            (found, names.as_slice()),
            (Keys::Known { count: expected.len() }, expected.map_owned().as_slice()),
            "{line}"
        );
    }
    for line in [
        "GET",
        "SORT_RO k BY w_*",
        "SORT_RO k GET o_*->f",
        "EVAL_RO x nine k",
        "EVAL_RO x 9 k",
        "ZUNION -3 a",
        "ZUNION 99999999999 a",
    ] {
        assert_eq!(keys(&table, line).0, Keys::Unknowable, "{line}");
    }
}

trait MapOwned {
    fn map_owned(&self) -> Vec<String>;
}

impl MapOwned for [&str] {
    fn map_owned(&self) -> Vec<String> {
        self.iter().map(|text| (*text).to_owned()).collect()
    }
}

#[test]
fn only_what_is_written_is_told_when_that_is_asked() {
    let table = CommandTable::builtin();
    let written = |line: &str| {
        let (args, mut found) = (words(line), Vec::new());
        let id = table.classify(args.as_slice()).id;
        let keys = table.for_each_written_key(id, args.as_slice(), &mut |key| found.push(key.to_vec()));
        (keys, found)
    };
    assert_eq!(written("SINTERSTORE d a b"), (Keys::Known { count: 1 }, vec![b"d".to_vec()]));
    assert_eq!(written("SORT k BY w_* STORE d"), (Keys::Known { count: 1 }, vec![b"d".to_vec()]));
    assert_eq!(written("SORT k BY w_*"), (Keys::Known { count: 0 }, vec![]));
    let stream = written("XREADGROUP GROUP g c STREAMS s >");
    assert_eq!(stream, (Keys::Known { count: 1 }, vec![b"s".to_vec()]));
    assert_eq!(written("MIGRATE h 1 k 0 1"), (Keys::Known { count: 1 }, vec![b"k".to_vec()]));
}

#[test]
fn a_word_is_an_option_only_where_one_may_stand() {
    let table = CommandTable::builtin();
    let cases: &[(&str, &[&str])] = &[
        ("XREADGROUP COUNT 10 GROUP g streams STREAMS s2 >", &["s2"]),
        ("XREADGROUP GROUP streams streams NOACK STREAMS streams streams > >", &["streams", "streams"]),
        ("XREADGROUP GROUP g c GROUP noack group BLOCK 0 STREAMS s >", &["s"]),
        ("XREAD COUNT streams STREAMS s t 0 0", &["s", "t"]),
        ("GEORADIUS k 1 2 3 m STORE ga STORE gb", &["k", "gb"]),
        ("GEORADIUS k 1 2 3 m STORE ga COUNT 1 ANY STOREDIST store", &["k", "store"]),
        ("GEORADIUS k 1 2 3 m STORE store STORE gb", &["k", "gb"]),
        ("GEORADIUSBYMEMBER k store 3 m STOREDIST ga ASC STORE gb WITHDIST", &["k", "gb"]),
        ("GEORADIUS_RO k 1 2 3 m COUNT 1", &["k"]),
        ("SORT k STORE a STORE b", &["k", "b"]),
        ("SORT k STORE store DESC", &["k", "store"]),
        ("SORT k BY store GET store STORE limit LIMIT store get", &["k", "limit"]),
        ("MIGRATE h 1 keys 0 9 COPY AUTH keys", &["keys"]),
        ("MIGRATE h 1 k 0 9 AUTH2 keys keys REPLACE", &["k"]),
    ];
    for (line, expected) in cases {
        let (found, names) = keys(&table, line);
        let expected = (Keys::Known { count: expected.len() }, expected.map_owned());
        assert_eq!((found, names), expected, "{line}");
    }
    let migrate = ["MIGRATE", "h", "1", "", "0", "9", "AUTH", "keys", "KEYS", "keys", "b"];
    let (id, mut found) = (table.classify(migrate.as_slice()).id, Vec::new());
    table.for_each_written_key(id, migrate.as_slice(), &mut |key| found.push(key.to_vec()));
    assert_eq!(found, [b"keys".to_vec(), b"b".to_vec()]);
}

#[test]
fn of_options_that_nobody_knows_nothing_is_said() {
    let table = CommandTable::builtin();
    for line in [
        "XREAD NEW STREAMS s 0",
        "XREAD COUNT 1",
        "XREAD STREAMS",
        "XREAD STREAMS a b 0",
        "XREADGROUP GROUP g STREAMS s >",
        "GEORADIUS k 1 2 3 m NEW STORE a",
        "GEORADIUS k 1 2 3 m STORE",
        "SORT k NEW STORE a",
        "SORT k LIMIT 0",
        "SORT_RO k STORE a",
        "MIGRATE h 1 k 0 9 NEW",
        "MIGRATE h 1 k 0 9 KEYS a",
        "MIGRATE h 1 k 0",
    ] {
        assert_eq!(keys(&table, line).0, Keys::Unknowable, "{line}");
    }
}

proptest! {
    // A mutant's failure is not worth a file.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn streams_are_found_behind_any_options(
        options in collection::vec((0..4usize, any_word(), any_word()), 0..6),
        streams in collection::vec(any_word(), 1..4),
        ids in collection::vec(any_word(), 3),
    ) {
        let mut line = vec!["XREADGROUP"];
        for (option, first, second) in options {
            match option {
                0 => line.extend(["COUNT", first]),
                1 => line.extend(["block", first]),
                2 => line.extend(["Group", first, second]),
                _ => line.push("NOACK"),
            }
        }
        line.push("STREAMS");
        line.extend(&streams);
        line.extend(&ids[..streams.len()]);
        let expected = (Keys::Known { count: streams.len() }, streams.map_owned());
        prop_assert_eq!(keys(&CommandTable::builtin(), &line.join(" ")), expected);
    }
}

fn any_word() -> impl Strategy<Value = &'static str> {
    sample::select(vec!["streams", "STREAMS", "count", "block", "group", "noack", "k", "0"])
}

/// What these modules say of themselves, where it is wrong.
#[test]
fn what_modules_say_wrongly_is_put_right() {
    let module = |name: &str, readonly, first, last| CommandEntry {
        name: name.to_owned(),
        flags: Flags { readonly, write: !readonly, module: true, ..Flags::default() },
        arity: Arity::UNKNOWN,
        specs: if first > 0 { vec![KeySpec::legacy(true, first, last, 1)] } else { Vec::new() },
        described: true,
    };
    let table = CommandTable::from_entries(vec![
        module("json.get", true, 1, 1),
        module("json.mget", true, 1, 1),
        module("json.debug", true, 2, 2),
        module("ts.add", false, 1, 1),
        module("ts.range", true, 1, 1),
        module("ts.createrule", false, 1, 1),
        module("cms.merge", false, 1, 1),
        module("topk.list", true, 1, 1),
        module("tdigest.quantile", true, 1, 1),
        module("cf.compact", true, 1, 1),
        module("ft.search", true, 1, 1),
        module("ft.aliasadd", true, 1, 2),
        module("ft.dropindex", false, 1, 1),
        module("ft.sugget", true, 1, 1),
        module("timeseries.hello", true, 0, 0),
        module("own.get", true, 1, 1),
        module("own.set", false, 1, 1),
    ]);
    let known = |line, expected: &[&str]| {
        assert_eq!(
            keys(&table, line),
            (Keys::Known { count: expected.len() }, expected.map_owned()),
            "{line}"
        );
    };
    known("JSON.GET a", &["a"]);
    known("JSON.MGET a b $", &["a", "b"]);
    known("TS.ADD a * 1", &["a"]);
    known("TS.CREATERULE a b AGGREGATION sum 1", &["a", "b"]);
    known("CMS.MERGE d 2 a b WEIGHTS 1 2", &["d", "a", "b"]);
    known("FT.SUGGET a x", &["a"]);
    for line in ["TS.RANGE a - +", "FT.SEARCH i x", "OWN.GET a", "OWN.SET a 1"] {
        assert_eq!(keys(&table, line).0, Keys::Unknowable, "{line}");
    }
    for line in ["JSON.GET a", "JSON.MGET a $", "TS.RANGE a - +", "FT.SUGGET a x", "OWN.GET a"] {
        assert_eq!(access(&table, line), Access::Read, "{line}");
    }
    let only_primary = [
        "JSON.DEBUG MEMORY a",
        "TOPK.LIST a",
        "TDIGEST.QUANTILE a 1",
        "CF.COMPACT a",
        "FT.SEARCH i x",
        "FT.ALIASADD a i",
    ];
    for line in only_primary {
        assert_eq!(access(&table, line), Access::PrimaryRead(Why::KeyState), "{line}");
    }
    assert_eq!(access(&table, "TIMESERIES.HELLO"), Access::PrimaryRead(Why::NotReadonly));
    for line in ["FT.DROPINDEX i DD", "OWN.SET a 1"] {
        assert_eq!(access(&table, line), Access::Write { keys: WriteKeys::Unknowable }, "{line}");
    }
}

#[test]
fn what_needs_a_connection_of_its_own_says_so() {
    let table = CommandTable::builtin();
    let cases = [
        ("MULTI", Stateful::Multi),
        ("BLPOP a 0", Stateful::Blocking),
        ("XREAD BLOCK 0 STREAMS s $", Stateful::Blocking),
        ("XREADGROUP GROUP block c BLOCK 5 STREAMS s >", Stateful::Blocking),
        ("SUBSCRIBE c", Stateful::Subscribe),
        ("SSUBSCRIBE c", Stateful::Subscribe),
        ("PUNSUBSCRIBE", Stateful::Unsubscribe),
        ("CLIENT REPLY OFF", Stateful::Silence),
        ("CLIENT TRACKING ON", Stateful::Tracking),
        ("SCRIPT DEBUG YES", Stateful::Silence),
        ("MONITOR", Stateful::Monitor),
        ("PSYNC ? -1", Stateful::Sync),
    ];
    for (line, pin) in cases {
        assert_eq!(handling(&table, line), Handling::Pin(pin), "{line}");
    }
    let shared = [
        "XREAD STREAMS block 0",
        "XREADGROUP GROUP block c COUNT 5 STREAMS s >",
        "XREAD COUNT block STREAMS s 0",
    ];
    for line in shared {
        assert_eq!(handling(&table, line), Handling::Shared, "{line}");
    }
    assert_eq!(handling(&table, "CLIENT ID"), Handling::Local(Local::Client));
    assert_eq!(handling(&table, "CLIENT"), Handling::Local(Local::Client));
    assert_eq!(handling(&table, "REDWEIR VIEW"), Handling::Local(Local::Redweir));
    assert_eq!(handling(&table, "HSCAN k 0"), Handling::Scan { cursor: 2 });
    assert_eq!(handling(&table, "EVALSHA_RO x 0"), Handling::ReadOnlyScript);
}

#[test]
fn an_old_servers_table_borrows_what_it_lacks() {
    let old = |name: &str, readonly, specs: Vec<KeySpec>, movable_keys| CommandEntry {
        name: name.to_owned(),
        flags: Flags { readonly, write: !readonly, movable_keys, ..Flags::default() },
        arity: Arity::UNKNOWN,
        specs,
        described: false,
    };
    let config = CommandEntry { name: "config".to_owned(), ..CommandEntry::default() };
    let table = CommandTable::from_entries(vec![
        old("object", true, vec![KeySpec::legacy(false, 2, 2, 1)], false),
        old("xread", true, vec![KeySpec::unknown(false)], true),
        old("mod.write", false, vec![KeySpec::legacy(true, 1, -1, 2)], false),
        config,
    ]);
    assert_eq!(access(&table, "OBJECT FREQ k"), Access::PrimaryRead(Why::KeyState));
    assert_eq!(keys(&table, "XREAD STREAMS a b 0 0").1, ["a", "b"]);
    assert_eq!(keys(&table, "MOD.WRITE a 1 b 2").1, ["a", "b"]);
    assert_eq!(table.name(table.classify(words("CONFIG SET a b").as_slice()).id), "config|set");
    assert_eq!(access(&table, "GET k"), Access::Unknown, "what the server does not know is not known");
}

#[test]
fn a_newer_servers_waitaof_is_not_passed_on() {
    let entry = CommandEntry { name: "waitaof".to_owned(), described: true, ..CommandEntry::default() };
    let table = CommandTable::from_entries(vec![entry]);
    assert_eq!(handling(&table, "WAITAOF 1 1 0"), Handling::Local(Local::Wait));
    assert_eq!(handling(&CommandTable::builtin(), "WAITAOF 1 1 0"), Handling::Shared, "7.0 says it itself");
}

#[test]
fn the_words_of_browsers_are_no_commands_whatever_an_old_server_says() {
    let entry =
        |name: &str| CommandEntry { name: name.to_owned(), described: true, ..CommandEntry::default() };
    let table = CommandTable::from_entries(vec![entry("post"), entry("host:"), entry("get")]);
    let id = |line: &str| table.classify(words(line).as_slice()).id;
    assert_eq!((id("POST /"), id("Host: x")), (CommandId::OTHER, CommandId::OTHER));
    assert_ne!(id("GET k"), CommandId::OTHER);
}
