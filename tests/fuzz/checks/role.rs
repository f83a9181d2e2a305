//! Rules for `ROLE`, on which every proof of freshness rests.

use redis_protocol::resp2::types::BytesFrame;
use redweir::core::position::Offset;
use redweir::wire::answer;
use redweir::wire::role::{LinkState, RoleReport};

use super::mend::mend;

/// A report says what stands in the reply, word by word, and the reply that it would be written as says the same.
pub(crate) fn check(input: &[u8]) {
    [input, &mend(input)].into_iter().for_each(check_reply);
}

fn check_reply(input: &[u8]) {
    let Ok(reply) = answer::decode(input) else { return };
    let Ok(report) = RoleReport::parse(&reply) else { return };
    let BytesFrame::Array(items) = &reply else { panic!("a report of no array") };
    let (word, number) =
        (|at: usize| items.get(at).and_then(word), |at: usize| items.get(at).and_then(number));
    match &report {
        RoleReport::Primary { offset, replicas } => {
            assert_eq!((word(0), number(1).and_then(Offset::from_reported)), (Some("master"), Some(*offset)));
            let Some(BytesFrame::Array(lines)) = items.get(2) else { panic!("replicas of no array") };
            assert_eq!(lines.len(), replicas.len(), "none is passed over");
        }
        RoleReport::Replica { host, port, state, applied } => {
            assert_eq!((word(0), word(1)), (Some("slave"), Some(host.as_str())));
            assert_eq!(number(2), Some(i64::from(*port)));
            assert_eq!(*state == LinkState::Connected, word(3) == Some("connected"));
            assert_eq!(number(4).and_then(Offset::from_reported), *applied);
        }
        RoleReport::Sentinel { masters } => {
            let Some(BytesFrame::Array(names)) = items.get(1) else { panic!("names of no array") };
            assert_eq!((word(0), names.len()), (Some("sentinel"), masters.len()));
        }
    }
    if let Some(written) = write(&report) {
        let again = answer::decode(&written).expect("is RESP");
        assert_eq!(RoleReport::parse(&again), Ok(report));
    }
}

/// Whether it is a report.
pub(crate) fn is_read(input: &[u8]) -> bool {
    answer::decode(&mend(input)).is_ok_and(|reply| RoleReport::parse(&reply).is_ok())
}

fn word(item: &BytesFrame) -> Option<&str> {
    match item {
        BytesFrame::BulkString(bytes) | BytesFrame::SimpleString(bytes) => std::str::from_utf8(bytes).ok(),
        _ => None,
    }
}

fn number(item: &BytesFrame) -> Option<i64> {
    if let BytesFrame::Integer(number) = item { Some(*number) } else { word(item)?.parse().ok() }
}

/// As a server writes it.
fn write(report: &RoleReport) -> Option<Vec<u8>> {
    let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
    let integer = |offset: &Option<Offset>| offset.map_or(-1, |offset| offset.bytes() as i64);
    let text = match report {
        RoleReport::Primary { offset, replicas } => {
            let line = |seen: &redweir::wire::role::ReplicaSeen| {
                let (port, acked) = (seen.port.to_string(), integer(&seen.acked).to_string());
                format!("*3\r\n{}{}{}", bulk(&seen.host), bulk(&port), bulk(&acked))
            };
            let lines: String = replicas.iter().map(line).collect();
            format!("*3\r\n{}:{offset}\r\n*{}\r\n{lines}", bulk("master"), replicas.len())
        }
        RoleReport::Replica { host, port, state, applied } => {
            let state = match state {
                LinkState::None => "none",
                LinkState::Connect => "connect",
                LinkState::Connecting => "connecting",
                LinkState::Handshake => "handshake",
                LinkState::Sync => "sync",
                LinkState::Connected => "connected",
                LinkState::Other => return None,
            };
            let applied = integer(applied);
            format!("*5\r\n{}{}:{port}\r\n{}:{applied}\r\n", bulk("slave"), bulk(host), bulk(state))
        }
        RoleReport::Sentinel { masters } => {
            let names: String = masters.iter().map(|name| bulk(name)).collect();
            format!("*2\r\n{}*{}\r\n{names}", bulk("sentinel"), masters.len())
        }
    };
    Some(text.into_bytes())
}
