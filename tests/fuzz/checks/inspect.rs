//! Rules for what the doctor reads: reports, settings, and lists of what a server remembers. However long they are, little is
//! kept of them, and of passwords nothing.

use std::time::Duration;

use redis_protocol::resp2::types::BytesFrame;
use redweir::core::diagnose::seen::{Fingerprint, Look, Report, Seen, Settings, Slow};
use redweir::core::diagnose::{Context, diagnose};
use redweir::core::moment::Moment;
use redweir::core::nodes::node::Role;
use redweir::wire::answer;
use redweir::wire::info::Info;
use redweir::wire::inspect::{lists, report, settings};

/// The most that is kept of a name, in bytes.
const MOST_TEXT: usize = 64;

/// The most entries of a list.
const MOST_ENTRIES: usize = 256;

/// As a report and a list of clients, which are text; as lists and settings, which are arrays.
pub(crate) fn check(input: &[u8]) {
    check_report(input);
    check_clients(input);
    let Ok(answer) = answer::decode(&super::mend::mend(input)) else { return };
    let (slow, denials) = (lists::slow(&answer), lists::denials(&answer));
    let entries = if let BytesFrame::Array(entries) = &answer { entries.len() } else { 0 };
    assert!(slow.len() <= entries.min(MOST_ENTRIES) && denials.len() <= entries.min(MOST_ENTRIES));
    for entry in &slow {
        assert!(entry.command.len() <= MOST_TEXT, "{entry:?}");
        assert!(!entry.command.bytes().any(|byte| byte.is_ascii_uppercase()), "{entry:?}");
    }
    for entry in &denials {
        assert!([&entry.reason, &entry.user, &entry.object].iter().all(|text| text.len() <= MOST_TEXT));
    }
    check_settings(&answer);
    check_rules(input, &answer);
}

/// Whatever servers say, the rules come to an end.
fn check_rules(input: &[u8], answer: &BytesFrame) {
    let mut told = Settings::default();
    settings::take(&mut told, answer, |secret| secret.len() as u64);
    let report = report::parse(input);
    let node = |node: &str, role| Seen {
        node: node.to_owned(),
        report: Some(Report { role: Some(role), ..report.clone() }),
        settings: told.clone(),
        replicas: lists::replicas(&BytesFrame::BulkString(input.to_vec().into())),
        clock_ahead_usec: report::clock(input).map(|usec| usec as i64 - 1_800_000_000_000_000),
        latency: Some(Duration::from_millis(1)),
        slow: lists::slow(answer)
            .into_iter()
            .map(|slow| Slow { ago: Duration::ZERO, took: slow.took, command: slow.command })
            .collect(),
        ..Seen::default()
    };
    let look = |second: u64| Look {
        at: Moment::from_millis(1_000_000 + second * 1000),
        nodes: vec![node("127.0.0.1:1", Role::Primary), node("127.0.0.1:2", Role::Replica)],
        ..Look::default()
    };
    let mut still = look(7);
    still.nodes[1] = Seen { clock_ahead_usec: Some(0), ..node("127.0.0.1:2", Role::Replica) };
    let found = diagnose(&[look(0), look(5), still], &[], &Context::default());
    assert!(found.len() < 100);
}

fn check_report(input: &[u8]) {
    let (report, info) = (report::parse(input), Info::parse(input));
    assert_eq!((report.role, report.offset, report.applied), (info.role, info.offset, info.applied));
    assert_eq!((&report.run_id, &report.version), (&info.run_id, &info.version));
    assert!(report.online.len() <= MOST_ENTRIES && report.resyncing.len() <= MOST_ENTRIES);
    if let Some(usec) = report::clock(input) {
        let said = format!("server_time_usec:{usec}");
        let digits = |line: &[u8]| line.strip_prefix(b"server_time_usec:").map(<[u8]>::to_vec);
        let mut told = input.split(|byte| *byte == b'\n').skip(1).filter_map(digits);
        let told = told.next().expect("a line says so");
        assert!(told.first().is_some_and(u8::is_ascii_digit), "{said} of {}", told.escape_ascii());
    }
}

fn check_clients(input: &[u8]) {
    let replicas = lists::replicas(&BytesFrame::BulkString(input.to_vec().into()));
    let lines = input.split(|byte| *byte == b'\n').count();
    assert!(replicas.len() <= lines.min(MOST_ENTRIES));
    for replica in &replicas {
        assert!(replica.address.len() <= MOST_TEXT, "{replica:?}");
        assert!(!replica.address.contains(['\n', ' ']), "{replica:?}");
    }
}

/// One answer says something of one setting only, and the same if it is heard again.
fn check_settings(answer: &BytesFrame) {
    let mut told = Settings::default();
    settings::take(&mut told, answer, |secret| secret.len() as u64);
    let mut again = told.clone();
    settings::take(&mut again, answer, |secret| secret.len() as u64);
    assert_eq!(again, told);
    let name = match answer {
        BytesFrame::Array(pair) => match pair.first() {
            Some(BytesFrame::BulkString(name) | BytesFrame::SimpleString(name)) => name.to_vec(),
            _ => Vec::new(),
        },
        _ => Vec::new(),
    };
    if !settings::NAMES.iter().any(|known| known.as_bytes() == name) {
        assert_eq!(told, Settings::default(), "nobody has asked for it");
    }
    if let Some(Fingerprint(Some(length))) = told.masterauth {
        assert!(length > 0, "no password has no mark");
    }
}

/// Whether something is read.
pub(crate) fn is_read(input: &[u8]) -> bool {
    let Ok(answer) = answer::decode(&super::mend::mend(input)) else { return false };
    let mut told = Settings::default();
    settings::take(&mut told, &answer, |_| 0);
    told != Settings::default()
        || !lists::slow(&answer).is_empty()
        || !lists::denials(&answer).is_empty()
        || report::parse(input).role.is_some()
        || !lists::replicas(&BytesFrame::BulkString(input.to_vec().into())).is_empty()
}
