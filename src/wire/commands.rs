//! What `COMMAND` says, as words (`server.c`, `addReplyCommandInfo`): name, arity, flags, key specifications, subcommands.

use redis_protocol::resp2::types::BytesFrame;

use crate::core::command::{Arity, Begin, CommandEntry, Find, Flags, KeySpec};

/// Why a reply is no command table. The fault is the server's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandsError {
    /// Not an array.
    #[error("the reply to COMMAND is not an array")]
    NotAnArray,
    /// No command in it.
    #[error("the reply to COMMAND is empty")]
    Empty,
    /// An element is missing, or of the wrong type.
    #[error("an entry of COMMAND lacks `{0}`")]
    Lacks(&'static str),
}

/// Elements that an entry has since 7.0; before, it ended with the ACL categories.
const KEY_SPECS: usize = 8;
const SUBCOMMANDS: usize = 9;

/// Reads the reply to `COMMAND`, subcommands included. An entry that is nil (`COMMAND INFO nosuch`) is left out.
pub fn decode(reply: &BytesFrame) -> Result<Vec<CommandEntry>, CommandsError> {
    let BytesFrame::Array(items) = reply else { return Err(CommandsError::NotAnArray) };
    let mut entries = Vec::with_capacity(items.len());
    for item in items {
        if matches!(item, BytesFrame::Null) {
            continue;
        }
        let fields = array(item).ok_or(CommandsError::Lacks("fields"))?;
        entries.push(entry(fields)?);
        let subcommands = fields.get(SUBCOMMANDS).and_then(array).unwrap_or_default();
        for subcommand in subcommands {
            entries.push(entry(array(subcommand).ok_or(CommandsError::Lacks("fields"))?)?);
        }
    }
    if entries.is_empty() { Err(CommandsError::Empty) } else { Ok(entries) }
}

fn entry(fields: &[BytesFrame]) -> Result<CommandEntry, CommandsError> {
    let name = fields.first().and_then(text).ok_or(CommandsError::Lacks("name"))?.to_ascii_lowercase();
    let mut flags = Flags::default();
    for flag in fields.get(2).and_then(array).ok_or(CommandsError::Lacks("flags"))? {
        flags.add(text(flag).ok_or(CommandsError::Lacks("flag"))?);
    }
    let arity = fields.get(1).and_then(number).map_or(Arity::UNKNOWN, Arity::new);
    let described = fields.get(KEY_SPECS).and_then(array);
    let specs = match described {
        Some(specs) => {
            specs.iter().filter_map(|spec| key_spec(spec).transpose()).collect::<Result<_, _>>()?
        }
        None => legacy_keys(fields, flags)?,
    };
    Ok(CommandEntry { name, flags, arity, specs, described: described.is_some() })
}

fn legacy_keys(fields: &[BytesFrame], flags: Flags) -> Result<Vec<KeySpec>, CommandsError> {
    let at = |index: usize, what| fields.get(index).and_then(number).ok_or(CommandsError::Lacks(what));
    let (first, last, step) = (at(3, "first key")?, at(4, "last key")?, at(5, "step")?);
    let writes = !flags.readonly;
    let mut specs = Vec::new();
    if first > 0 {
        specs.push(KeySpec::legacy(writes, first, last, step));
    }
    if flags.movable_keys {
        specs.push(KeySpec::unknown(writes));
    }
    Ok(specs)
}

/// One key specification. `None`: what it finds are no keys (`not_key`, the channels of `SPUBLISH`).
fn key_spec(frame: &BytesFrame) -> Result<Option<KeySpec>, CommandsError> {
    let flags = field(frame, "flags").and_then(array).ok_or(CommandsError::Lacks("key flags"))?;
    let has = |name: &str| flags.iter().any(|flag| text(flag).is_some_and(|f| f.eq_ignore_ascii_case(name)));
    if has("not_key") {
        return Ok(None);
    }
    // RO = reads; RW, OW, RM change. What says nothing is taken to change.
    let writes = !has("RO");
    let begin = field(frame, "begin_search").ok_or(CommandsError::Lacks("begin_search"))?;
    let find = field(frame, "find_keys").ok_or(CommandsError::Lacks("find_keys"))?;
    let (begin_spec, find_spec) = (field(begin, "spec"), field(find, "spec"));
    let begin_number = |name| begin_spec.and_then(|s| field(s, name)).and_then(number);
    let find_number = |name| find_spec.and_then(|s| field(s, name)).and_then(number);
    let start = match field(begin, "type").and_then(text) {
        Some("index") => begin_number("index").map(Begin::Index),
        Some("keyword") => begin_spec
            .and_then(|s| field(s, "keyword"))
            .and_then(text)
            .zip(begin_number("startfrom"))
            .map(|(word, from)| Begin::Keyword { word: word.to_owned(), from }),
        _ => None,
    };
    let rest = match field(find, "type").and_then(text) {
        Some("range") => find_number("lastkey")
            .zip(find_number("keystep"))
            .zip(find_number("limit"))
            .map(|((last, step), limit)| Find::Range { last, step, limit }),
        Some("keynum") => find_number("keynumidx")
            .zip(find_number("firstkey"))
            .zip(find_number("keystep"))
            .map(|((at, first), step)| Find::Count { at, first, step }),
        _ => None,
    };
    Ok(Some(match (start, rest) {
        (Some(begin), Some(find)) => KeySpec { writes, begin, find, incomplete: has("incomplete") },
        _ => KeySpec::unknown(writes),
    }))
}

/// The value of `name` in a map that RESP2 flattens.
fn field<'a>(frame: &'a BytesFrame, name: &str) -> Option<&'a BytesFrame> {
    array(frame)?.chunks_exact(2).find(|pair| text(&pair[0]) == Some(name)).map(|pair| &pair[1])
}

fn array(frame: &BytesFrame) -> Option<&[BytesFrame]> {
    match frame {
        BytesFrame::Array(items) => Some(items),
        _ => None,
    }
}

fn text(frame: &BytesFrame) -> Option<&str> {
    match frame {
        BytesFrame::BulkString(bytes) | BytesFrame::SimpleString(bytes) => std::str::from_utf8(bytes).ok(),
        _ => None,
    }
}

fn number(frame: &BytesFrame) -> Option<i32> {
    match frame {
        BytesFrame::Integer(value) => i32::try_from(*value).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_table_is_an_error() {
        assert_eq!(decode(&BytesFrame::Integer(3)), Err(CommandsError::NotAnArray));
        assert_eq!(decode(&BytesFrame::Array(vec![])), Err(CommandsError::Empty));
        assert_eq!(decode(&BytesFrame::Array(vec![BytesFrame::Null])), Err(CommandsError::Empty));
        let nameless = BytesFrame::Array(vec![BytesFrame::Array(vec![])]);
        assert_eq!(decode(&nameless), Err(CommandsError::Lacks("name")));
    }
}
