//! Every command of Redis, directly and through Redweir: the same replies.
//!
//! `tests/dropin/*.txt` are scripts, one per group of commands. A line is a command, in the quoting of `redis-cli`, with
//! what to do with it before it:
//!
//! - `@2` on the second connection, which is opened when it is first named
//! - `>` send only, `<` read one more reply
//! - `~` compare the kind of reply only: the values are of the moment, or of the server
//! - `%` compare the elements in any order: they have none
//! - `= 200` wait so many milliseconds, so that what was sent has arrived
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_methods, reason = "tests wait for real time")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::support::{Conn, Setup, Topology, Value};

const BEGIN: &str = "<!-- drop-in -->\n";
const END: &str = "<!-- /drop-in -->";

#[derive(Clone, Copy, Default)]
struct Step<'a> {
    conn: u8,
    sends: bool,
    reads: bool,
    kind_only: bool,
    unordered: bool,
    pause: u64,
    command: &'a str,
}

fn parse(line: &str) -> Step<'_> {
    let mut step = Step { conn: 1, sends: true, reads: true, ..Step::default() };
    let mut rest = line;
    loop {
        let (word, more) = rest.split_once(' ').unwrap_or((rest, ""));
        match word {
            "~" => step.kind_only = true,
            "%" => step.unordered = true,
            ">" => step.reads = false,
            "<" => step.sends = false,
            "=" => {
                return Step {
                    sends: false,
                    reads: false,
                    pause: more.parse().expect("milliseconds"),
                    ..step
                };
            }
            conn if conn.starts_with('@') => step.conn = conn[1..].parse().expect("a connection"),
            _ => return Step { command: rest, ..step },
        }
        rest = more;
    }
}

/// Splits a command as `redis-cli` does (`sds.c`, `sdssplitargs`; no single quotes here).
fn words(command: &str) -> Vec<Vec<u8>> {
    let mut words: Vec<Vec<u8>> = Vec::new();
    let mut bytes = command.bytes().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b' ' => {}
            b'"' => {
                let mut word = Vec::new();
                while let Some(byte) = bytes.next().filter(|byte| *byte != b'"') {
                    word.push(if byte == b'\\' { escaped(&mut bytes) } else { byte });
                }
                words.push(word);
            }
            _ => {
                let mut word = vec![byte];
                while let Some(byte) = bytes.next_if(|byte| *byte != b' ') {
                    word.push(byte);
                }
                words.push(word);
            }
        }
    }
    words
}

fn escaped(bytes: &mut impl Iterator<Item = u8>) -> u8 {
    match bytes.next().expect("an escape") {
        b'n' => b'\n',
        b'r' => b'\r',
        b'x' => {
            let digits: Vec<u8> = bytes.take(2).collect();
            u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).expect("two digits")
        }
        other => other,
    }
}

fn shown(step: Step<'_>, reply: &Value) -> String {
    let kind = match reply {
        Value::Status(_) => "a status",
        Value::Error(_) => "an error",
        Value::Int(_) => "an integer",
        Value::Bulk(_) | Value::Verbatim(_) => "a string",
        Value::Null => "null",
        Value::Array(_) => "an array",
        Value::Map(_) => "a map",
        Value::Set(_) => "a set",
        Value::Push(_) => "a push",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
    };
    match reply {
        Value::Error(_) => format!("{reply:?}"),
        _ if step.kind_only => kind.to_owned(),
        Value::Array(items) | Value::Set(items) if step.unordered => {
            let mut items: Vec<String> = items.iter().map(|item| format!("{item:?}")).collect();
            items.sort();
            format!("{kind} of {items:?}")
        }
        _ => format!("{reply:?}"),
    }
}

/// Plays a script, with a pause before each command; one line of replies for each that was read.
fn play(script: &str, port: u16, pause: Duration) -> Vec<String> {
    let mut conns: BTreeMap<u8, Conn> = BTreeMap::new();
    let mut replies = Vec::new();
    let mut first = Conn::open(port);
    first.cmd(&["FLUSHALL"]);
    first.cmd(&["FUNCTION", "FLUSH"]);
    first.cmd(&["SCRIPT", "FLUSH"]);
    conns.insert(1, first);
    for line in script.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let step = parse(line);
        std::thread::sleep(Duration::from_millis(step.pause));
        if !step.sends && !step.reads {
            continue;
        }
        let conn = conns.entry(step.conn).or_insert_with(|| Conn::open(port));
        if step.sends {
            std::thread::sleep(pause);
            conn.ask(&words(step.command));
        }
        if step.reads {
            let reply = conn.try_read().unwrap_or_else(|problem| panic!("{line}: {problem}"));
            replies.push(format!("{line}\n    {}", shown(step, &reply)));
        }
    }
    replies
}

fn scripts() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dropin");
    let mut scripts: Vec<(String, String)> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy().replace('-', " ");
            (name, fs::read_to_string(&path).unwrap())
        })
        .collect();
    scripts.sort();
    assert!(scripts.len() > 20, "{} groups", scripts.len());
    scripts
}

/// The names of the commands in a script, with their subcommands.
fn names(script: &str, known: &BTreeSet<String>) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for step in script.lines().map(parse).filter(|step| step.sends && !step.command.is_empty()) {
        let words = words(step.command);
        let lower = |index: usize| {
            words.get(index).map(|word| String::from_utf8_lossy(word).to_lowercase()).unwrap_or_default()
        };
        for name in [lower(0), format!("{}|{}", lower(0), lower(1))] {
            if known.contains(&name) {
                names.insert(name);
            }
        }
    }
    names
}

fn known() -> BTreeSet<String> {
    include_str!("../../src/core/command/table.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split(' ').next().unwrap().to_owned())
        .collect()
}

#[test]
fn every_command_answers_as_it_does_without_redweir() {
    let (alone, behind) = (Topology::start(2), Topology::start(2));
    // `PFSELFTEST` keeps a server on a busy machine for seconds.
    let setup = Setup::of(&behind).upstream("probe-timeout = \"10s\"");
    let proxy = setup.toml("[security]\ndeny-commands = []").start();
    let mut differences = String::new();
    for (group, script) in scripts() {
        let expected = play(&script, alone.primary.port, Duration::ZERO);
        // At once, so that reads meet fences; and with time for the replicas, so that they answer.
        for pause in [Duration::ZERO, Duration::from_millis(8)] {
            let found = play(&script, proxy.port, pause);
            assert_eq!(expected.len(), found.len(), "{group}");
            for (expected, found) in expected.iter().zip(&found).filter(|(expected, found)| expected != found)
            {
                let _ = writeln!(differences, "{group}: directly {expected}\nthrough Redweir {found}");
            }
        }
    }
    assert!(differences.is_empty(), "{differences}");
    let served = proxy.metric("redweir_commands_total", &[("target", "replica")]);
    assert!(served > 40.0, "replicas answered {served} only");
}

#[test]
fn no_command_is_left_out() {
    let known = known();
    let said: BTreeSet<String> = scripts().iter().flat_map(|(_, script)| names(script, &known)).collect();
    let missing: Vec<&String> = known.difference(&said).collect();
    assert!(missing.is_empty(), "no script says {missing:?}");
}

/// With `REDWEIR_DROPIN_WRITE=1` the table is written, else compared.
#[test]
fn the_table_in_the_docs_is_what_is_compared() {
    let known = known();
    let mut table = "| group | commands | replies compared |\n|---|---|---|\n".to_owned();
    for (group, script) in scripts() {
        let names = names(&script, &known);
        let replies = script.lines().map(parse).filter(|step| step.reads).count();
        let shown: Vec<String> = names.iter().map(|name| name.replace('|', " ").to_uppercase()).collect();
        let _ = writeln!(table, "| {group} | {} | {replies} equal |", shown.join(", "));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/compatibility.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the page has a place for the table");
    let (found, after) = rest.split_once(END).expect("the place has an end");
    if std::env::var_os("REDWEIR_DROPIN_WRITE").is_some() {
        fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
    } else {
        assert_eq!(
            found, table,
            "REDWEIR_DROPIN_WRITE=1 cargo test --test servers dropin:: writes the table"
        );
    }
}
