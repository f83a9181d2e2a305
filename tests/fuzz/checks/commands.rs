//! Rules for the reply to `COMMAND`, and for the table that is made of it.

use redis_protocol::resp2::types::BytesFrame;
use redweir::core::command::{Begin, CommandEntry, CommandTable, Keys};
use redweir::wire::answer;
use redweir::wire::commands;

use super::mend::mend;

/// Commands are put to the table in these forms.
const SAMPLES: &[&[&[u8]]] = &[
    &[b"get"],
    &[b"GET", b"k"],
    &[b"set", b"k", b"v"],
    &[b"mget", b"a", b"b", b"c", b"d"],
    &[b"xread", b"COUNT", b"2", b"STREAMS", b"a", b"b", b"0", b"0"],
    &[b"eval", b"s", b"2", b"a", b"b", b"x"],
    &[b"eval", b"s", b"-1", b"a"],
    &[b"config", b"get", b"*"],
    &[b"zunionstore", b"d", b"2", b"a", b"b"],
];

/// Whatever a server says of its commands, there is a table; and the keys that it finds are arguments.
pub(crate) fn check(input: &[u8]) {
    [input, &mend(input)].into_iter().for_each(check_reply);
}

fn check_reply(input: &[u8]) {
    let Ok(reply) = answer::decode(input) else { return };
    let Ok(entries) = commands::decode(&reply) else { return };
    let BytesFrame::Array(items) = &reply else { panic!("a table of no array") };
    assert!(!entries.is_empty());
    for entry in &entries {
        assert_eq!(entry.name, entry.name.to_ascii_lowercase());
        assert_line(entry);
    }
    let told = items.iter().filter(|item| !matches!(item, BytesFrame::Null)).count();
    assert!(entries.len() >= told, "none is passed over");
    let names: Vec<Vec<u8>> = entries.iter().map(|entry| entry.name.clone().into_bytes()).collect();
    let table = CommandTable::from_entries(entries);
    for sample in SAMPLES {
        assert_keys(&table, sample);
    }
    for name in &names {
        assert_keys(&table, &[name, b"a", b"1", b"c", b"STREAMS", b"d", b"0"]);
        assert_keys(&table, &[name]);
    }
}

/// Whether it is a table.
pub(crate) fn is_read(input: &[u8]) -> bool {
    answer::decode(&mend(input)).is_ok_and(|reply| commands::decode(&reply).is_ok())
}

/// Its keys, if they can be known, are arguments behind its name, in any number that it says itself.
fn assert_keys(table: &CommandTable, args: &[&[u8]]) {
    let intent = table.classify(args);
    let mut told = Vec::new();
    let keys = table.for_each_key(intent.id, args, &mut |key| told.push(key.to_vec()));
    assert!(told.iter().all(|key| args[1..].contains(&key.as_slice())), "{told:?} of {args:?}");
    let mut written = 0;
    table.for_each_written_key(intent.id, args, &mut |_| written += 1);
    if let Keys::Known { count } = keys {
        assert_eq!(count, told.len());
        assert!(written <= count, "{written} of {count}");
    }
}

/// Its line, if it has one, says the same.
fn assert_line(entry: &CommandEntry) {
    let is_plain = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "|.-".contains(c));
    let has_line = entry.specs.iter().all(|spec| match &spec.begin {
        Begin::Index(_) => true,
        Begin::Keyword { word, .. } => is_plain(word),
        Begin::Options(_) | Begin::Unknown => false,
    });
    if entry.described && has_line && !entry.name.is_empty() && is_plain(&entry.name) {
        let line = entry.to_string();
        assert_eq!(line.parse().as_ref(), Ok(entry), "{line}");
    }
}
