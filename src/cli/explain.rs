//! `redweir explain`: asks a running proxy's admin server and prints the answer for people.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;

use anyhow::Context as _;
use serde::Deserialize;

use super::http::fetch;
use super::output::Format;
use crate::core::address::Address;

/// The admin address cannot be one.
#[derive(Debug, thiserror::Error)]
#[error("--admin: expected host:port; the admin server has no Unix socket")]
pub(super) struct UsageError;

/// What `/explain` answers. What it does not say is not printed.
#[derive(Debug, Deserialize)]
struct ExplainBody {
    command: String,
    access: String,
    slot: Option<u16>,
    shard: Option<usize>,
    slot_state: Option<String>,
    policy: String,
    consistency: String,
    decision: String,
    target: Option<String>,
    reason: String,
    why: String,
    fence: Option<String>,
    #[serde(default)]
    candidates: Vec<CandidateBody>,
}

#[derive(Debug, Deserialize)]
struct CandidateBody {
    node: String,
    role: String,
    eligible: bool,
    applied_offset: Option<u64>,
    lag_bytes: Option<u64>,
    staleness_ms: Option<f64>,
    delay_ms: Option<f64>,
    why: String,
}

/// Asks where `command` would go, and puts the answer into `format`.
pub(super) fn ask(admin: &Address, command: &[OsString], format: Format) -> anyhow::Result<String> {
    let Address::Tcp { host, port } = admin else { return Err(UsageError.into()) };
    let args: Vec<String> = command.iter().map(|arg| encode(arg.as_bytes())).collect();
    let body = fetch(host, *port, &format!("/explain?cmd={}", args.join("+")))
        .with_context(|| format!("cannot ask the admin server at {admin}"))?;
    match format {
        Format::Json => Ok(body),
        Format::Text => {
            let explained = serde_json::from_str(&body);
            Ok(render(&explained.with_context(|| format!("{admin} answered, but not as Redweir does"))?))
        }
    }
}

/// Percent-encodes everything but what never needs it.
fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a `String` cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

fn render(explained: &ExplainBody) -> String {
    let mut text = String::new();
    let decision = match &explained.target {
        Some(target) => format!("{} to {target}", explained.decision),
        None => explained.decision.clone(),
    };
    let lines = [
        ("command", format!("{} ({})", explained.command, explained.access)),
        ("policy", format!("{} ({})", explained.policy, explained.consistency)),
        ("fence", explained.fence.clone().unwrap_or_else(|| "none".to_owned())),
        ("decision", decision),
        ("because", format!("{} ({})", explained.why, explained.reason)),
    ];
    let place = place(explained);
    let place = place.map(|place| ("slot", place));
    let [command, rest @ ..] = lines;
    for (name, value) in [command].into_iter().chain(place).chain(rest) {
        let _ = writeln!(text, "{name:<9} {}", value.escape_debug());
    }
    let header =
        ["node", "role", "eligible", "applied", "lag", "staleness", "delay", "because"].map(str::to_owned);
    let rows: Vec<[String; 8]> =
        std::iter::once(header).chain(explained.candidates.iter().map(row)).collect();
    if rows.len() == 1 {
        return text;
    }
    text.push('\n');
    let widths: [usize; 8] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
    text
}

/// Where its keys are in a cluster.
fn place(explained: &ExplainBody) -> Option<String> {
    match (explained.slot, explained.slot_state.as_deref(), explained.shard) {
        (Some(slot), Some(state), Some(shard)) => Some(format!("{slot} ({state}) of shard {shard}")),
        (Some(slot), Some(state), None) => Some(format!("{slot} ({state})")),
        (_, _, Some(shard)) => Some(format!("none: shard {shard}")),
        _ => None,
    }
}

fn row(candidate: &CandidateBody) -> [String; 8] {
    let unknown = || "?".to_owned();
    [
        candidate.node.escape_debug().to_string(),
        candidate.role.escape_debug().to_string(),
        if candidate.eligible { "yes" } else { "no" }.to_owned(),
        candidate.applied_offset.map_or_else(unknown, |offset| offset.to_string()),
        candidate.lag_bytes.map_or_else(unknown, |bytes| format!("{bytes} B")),
        candidate.staleness_ms.map_or_else(unknown, |ms| format!("{ms:.1} ms")),
        candidate.delay_ms.map_or_else(unknown, |ms| format!("{ms:.1} ms")),
        candidate.why.escape_debug().to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_asked_is_one_query() {
        assert_eq!(encode(b"GET"), "GET");
        assert_eq!(encode("a b+c&d=%\r\n\u{e9}".as_bytes()), "a%20b%2Bc%26d%3D%25%0D%0A%C3%A9");
    }

    #[test]
    fn an_answer_is_a_few_lines() {
        let json = r#"{"command": "get", "access": "read", "policy": "default", "consistency": "fenced",
            "decision": "send", "target": "b:2", "reason": "fresh", "why": "it has applied the fence", "fence": "120",
            "candidates": [
                {"node": "b:2", "role": "replica", "eligible": true, "applied_offset": 120, "lag_bytes": 0,
                 "staleness_ms": 3.25, "delay_ms": 0.5, "reason": "fresh", "why": "it has applied the fence", "answers": true},
                {"node": "c:3", "role": "replica", "eligible": false, "reason": "silent", "why": "it\nis silent"}]}"#;
        let expected = "\
command   get (read)
policy    default (fenced)
fence     120
decision  send to b:2
because   it has applied the fence (fresh)

node  role     eligible  applied  lag  staleness  delay   because
b:2   replica  yes       120      0 B  3.2 ms     0.5 ms  it has applied the fence
c:3   replica  no        ?        ?    ?          ?       it\\nis silent
";
        assert_eq!(render(&serde_json::from_str(json).unwrap()), expected);
        let json = json
            .replace("\"access\"", "\"slot\": 15495, \"slot_state\": \"stable\", \"shard\": 2, \"access\"");
        let expected = expected.replace("policy ", "slot      15495 (stable) of shard 2\npolicy ");
        assert_eq!(render(&serde_json::from_str(&json).unwrap()), expected);
    }
}
