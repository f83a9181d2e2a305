//! `CLIENT LIST TYPE replica`, `SLOWLOG GET` and `ACL LOG`: what a server remembers, one entry after the other.

use std::time::Duration;

use redis_protocol::resp2::types::BytesFrame;

use super::{kept, number, size, span, text};
use crate::core::diagnose::seen::ReplicaClient;

/// Entries of one list that are read.
const MOST_ENTRIES: usize = 256;

/// A command that took long, as `SLOWLOG GET` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlowEntry {
    /// When it was executed, by the server's clock, in seconds since 1970.
    pub unix_seconds: u64,
    /// How long it took.
    pub took: Duration,
    /// Its name, without its arguments, which are somebody's data.
    pub command: String,
}

/// What somebody was denied, as `ACL LOG` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DenialEntry {
    /// How long ago it happened last.
    pub age: Duration,
    /// How often.
    pub count: u64,
    /// `auth`, `command`, `key` or `channel`.
    pub reason: String,
    /// The user.
    pub user: String,
    /// The command, the key or the channel.
    pub object: String,
}

/// `CLIENT LIST TYPE replica` (`networking.c`, `catClientInfoString`). A line that lacks anything is left out.
pub fn replicas(answer: &BytesFrame) -> Vec<ReplicaClient> {
    let field = |line: &str, name: &str| {
        line.split(' ')
            .find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name))
            .map(|(_, value)| kept(value))
    };
    let replica = |line: &str| {
        field(line, "flags").filter(|flags| flags.contains('S'))?;
        Some(ReplicaClient {
            id: field(line, "id")?.parse().ok()?,
            address: field(line, "addr")?,
            output_bytes: size(field(line, "omem")?.parse().ok())?,
        })
    };
    text(answer).unwrap_or_default().lines().take(MOST_ENTRIES).filter_map(replica).collect()
}

/// `SLOWLOG GET` (`slowlog.c`): an entry is its number, when, how long in microseconds, the command with its arguments, …
pub fn slow(answer: &BytesFrame) -> Vec<SlowEntry> {
    let entry = |entry: &BytesFrame| {
        let BytesFrame::Array(parts) = entry else { return None };
        let [_, when, took, BytesFrame::Array(words), ..] = parts.as_slice() else { return None };
        Some(SlowEntry {
            unix_seconds: number(when)?,
            took: Duration::from_micros(size(number(took))?),
            command: kept(text(words.first()?)?).to_ascii_lowercase(),
        })
    };
    entries(answer).filter_map(entry).collect()
}

/// `ACL LOG` (`acl.c`): an entry is names and values in turn.
pub fn denials(answer: &BytesFrame) -> Vec<DenialEntry> {
    let entry = |entry: &BytesFrame| {
        let BytesFrame::Array(parts) = entry else { return None };
        let field = |name: &str| {
            let pairs = parts.chunks_exact(2);
            pairs.filter(|pair| text(&pair[0]) == Some(name)).map(|pair| &pair[1]).next()
        };
        let age: f64 = text(field("age-seconds")?)?.parse().ok()?;
        Some(DenialEntry {
            age: Duration::try_from_secs_f64(age).ok().filter(|age| span(Some(age.as_secs())).is_some())?,
            count: number(field("count")?)?,
            reason: kept(text(field("reason")?)?),
            user: kept(text(field("username")?)?),
            object: kept(text(field("object")?)?),
        })
    };
    entries(answer).filter_map(entry).collect()
}

fn entries(answer: &BytesFrame) -> impl Iterator<Item = &BytesFrame> {
    let entries = match answer {
        BytesFrame::Array(entries) => entries.as_slice(),
        _ => &[],
    };
    entries.iter().take(MOST_ENTRIES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> BytesFrame {
        BytesFrame::BulkString(text.to_owned().into())
    }

    #[test]
    fn replicas_of_every_version() {
        let list = [
            include_str!("../../core/diagnose/said/clients-6.2.txt"),
            include_str!("../../core/diagnose/said/clients-7.0.txt"),
            include_str!("../../core/diagnose/said/clients-valkey-8.1.txt"),
        ];
        for text in list {
            let replicas = replicas(&bulk(text));
            assert_eq!(replicas.len(), 1, "{text}");
            assert!(replicas[0].address.starts_with("127.0.0.1:") && replicas[0].id > 0);
        }
        assert_eq!(replicas(&bulk(list[1]))[0].output_bytes, 20_504);
        assert!(replicas(&bulk("id=1 addr=a:1 flags=N omem=1\nid=2 flags=S\n\n")).is_empty());
        assert!(replicas(&BytesFrame::Error("NOPERM".into())).is_empty());
    }

    #[test]
    fn a_slow_command_and_a_denial() {
        let words = BytesFrame::Array(vec![bulk("DEBUG"), bulk("sleep"), bulk("0.2")]);
        let number = BytesFrame::Integer;
        let entry = BytesFrame::Array(vec![
            number(0),
            number(1_795_959_664),
            number(200_109),
            words,
            bulk("127.0.0.1:1"),
        ]);
        let slow = slow(&BytesFrame::Array(vec![entry, BytesFrame::Null]));
        assert_eq!((slow[0].command.as_str(), slow[0].took.as_millis(), slow.len()), ("debug", 200, 1));
        let pairs =
            ["reason", "auth", "context", "toplevel", "object", "AUTH", "username", "default", "age-seconds"];
        let mut parts = vec![bulk("count"), number(6)];
        parts.extend(pairs.into_iter().map(bulk));
        parts.push(bulk("0.42899999999999999"));
        let denials = denials(&BytesFrame::Array(vec![
            BytesFrame::Array(parts),
            BytesFrame::Array(vec![bulk("count")]),
        ]));
        assert_eq!((denials[0].count, denials[0].age.as_millis(), denials.len()), (6, 429, 1));
        assert_eq!((denials[0].reason.as_str(), denials[0].user.as_str()), ("auth", "default"));
    }
}
