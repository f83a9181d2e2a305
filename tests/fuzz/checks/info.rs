//! Rules for `INFO`, against a plain reading of it: the last line of a name counts.

use std::time::Duration;

use redweir::core::nodes::node::{LinkDown, Role};
use redweir::core::position::{Offset, ReplId};
use redweir::wire::info::Info;

/// What is read is what the last line of each name says, if that makes sense, and nothing else.
pub(crate) fn check(input: &[u8]) {
    let info = Info::parse(input);
    let ended: Vec<Vec<u8>> = input.split(|byte| *byte == b'\n').map(with_cr).collect();
    assert_eq!(Info::parse(&ended.join(&b'\n')), info, "CRLF and LF are one");
    let junk = [b"# Section\r\n\xff\xfe:1\r\nrole\r\n", input].concat();
    assert_eq!(Info::parse(&junk), info, "what is no field says nothing");

    let last = |name: &str| last(input, name);
    let natural = |name: &str| last(name)?.parse::<u64>().ok();
    let flag = |name: &str| natural(name).filter(|n| *n < 2 && last(name).is_some_and(|v| v.len() == 1));
    let offset = |name: &str| {
        let value = last(name)?.parse::<i64>().ok()?;
        u64::try_from(value).ok().map(Offset::new)
    };
    let id = |name: &str| ReplId::parse(last(name)?.as_bytes());
    assert_eq!(info.offset, offset("master_repl_offset"));
    assert_eq!(info.applied, offset("slave_repl_offset"));
    assert_eq!(info.backlog_first_offset, offset("repl_backlog_first_byte_offset"));
    assert_eq!(info.replid, id("master_replid"));
    assert_eq!(info.replid2, id("master_replid2").zip(offset("second_repl_offset")));
    assert_eq!(info.uptime_seconds, natural("uptime_in_seconds"));
    assert_eq!(info.backlog_histlen, natural("repl_backlog_histlen"));
    assert_eq!(info.loading.map(u64::from), flag("loading"));
    assert_eq!(info.sync_in_progress.map(u64::from), flag("master_sync_in_progress"));
    assert_eq!(info.port.map(u64::from), natural("tcp_port").filter(|port| *port <= 65_535));
    let role = |role| if role == Role::Primary { "master" } else { "slave" };
    assert_eq!(info.role.map(role), last("role").filter(|role| ["master", "slave"].contains(role)));
    let down = last("master_link_down_since_seconds").and_then(|text| text.parse::<i64>().ok());
    let down = down.and_then(|seconds| match seconds {
        -1 => Some(LinkDown::Never),
        _ => u64::try_from(seconds).ok().map(|seconds| LinkDown::For(Duration::from_secs(seconds))),
    });
    assert_eq!(info.link_down, down);
    let texts =
        [("run_id", &info.run_id), ("master_host", &info.master_host), ("redis_version", &info.version)];
    for (name, text) in texts {
        let said = last(name).filter(|text| !text.is_empty() && text.len() <= Info::MOST_TEXT);
        assert_eq!(text.as_deref(), said, "{name}");
    }
    assert!(
        info.replicas.len() <= input.split(|byte| *byte == b'\n').filter(|l| l.starts_with(b"slave")).count()
    );
}

fn with_cr(line: &[u8]) -> Vec<u8> {
    let mut line = line.to_vec();
    if !line.ends_with(b"\r") {
        line.push(b'\r');
    }
    line
}

/// The value in the last line of this name that is text at all.
fn last<'a>(input: &'a [u8], name: &str) -> Option<&'a str> {
    let lines = input.rsplit(|byte| *byte == b'\n');
    let mut values = lines.filter_map(|line| {
        let line = std::str::from_utf8(line).ok()?;
        line.strip_suffix('\r').unwrap_or(line).strip_prefix(name)?.strip_prefix(':')
    });
    values.next()
}
