//! Every rule by what real servers have said (`said/`), each way: found, and not found.

use std::time::Duration;

use super::*;
use crate::core::diagnose::history::TOLD;
use crate::core::diagnose::seen::{
    Denial, Fingerprint, Look, Problem, ReplicaClient, Seen, SentinelSeen, Settings, Slow,
};
use crate::core::moment::Moment;
use crate::wire::inspect::report;

const PRIMARY: &str = include_str!("said/primary-7.0.txt");
const REPLICA: &str = include_str!("said/replica-7.0.txt");
const DOWN: &str = include_str!("said/replica-down-7.0.txt");
const NEVER: &str = include_str!("said/replica-never-synced-7.0.txt");
const REFUSED: &str = include_str!("said/replica-no-masterauth-7.0.txt");

const P: &str = "10.0.0.1:6379";
const R: &str = "10.0.0.2:6379";

/// What it says of itself, but for the values of some fields.
fn told(text: &str, changes: &[(&str, &str)]) -> String {
    let mut text = text.replace("\r\n", "\n");
    for (field, value) in changes {
        let start = if text.starts_with(&format!("{field}:")) {
            0
        } else {
            text.find(&format!("\n{field}:")).unwrap_or_else(|| panic!("no {field}")) + 1
        };
        let end = text[start..].find('\n').unwrap() + start;
        text.replace_range(start..end, &format!("{field}:{value}"));
    }
    text
}

fn field(text: &str, name: &str) -> String {
    let start = text.find(&format!("\n{name}:")).unwrap() + name.len() + 2;
    text[start..].lines().next().unwrap().trim_end().to_owned()
}

fn seen(node: &str, text: &str) -> Seen {
    let settings = Settings {
        repl_timeout: Some(60),
        ping_period: Some(10),
        replica_buffer: Some((256 << 20, 64 << 20, 60)),
        min_replicas_to_write: Some(1),
        serves_stale: Some(false),
        disable_thp: Some(true),
        announced_port: Some(0),
        tls_port: Some(0),
        masterauth: Some(Fingerprint(Some(7))),
        has_masteruser: Some(false),
        requirepass: Some(Fingerprint(Some(7))),
    };
    Seen {
        node: node.to_owned(),
        report: Some(report::parse(text.as_bytes())),
        latency: Some(Duration::from_micros(200)),
        clock_ahead_usec: Some(0),
        wants_password: Some(true),
        settings,
        ..Seen::default()
    }
}

fn primary(changes: &[(&str, &str)]) -> Seen {
    seen(P, &told(PRIMARY, changes))
}

fn replica(changes: &[(&str, &str)]) -> Seen {
    seen(R, &told(REPLICA, changes))
}

/// A replica whose link is down; of the primary that there is.
fn cut(since: &str) -> Seen {
    let text = told(DOWN, &[("master_link_down_since_seconds", since)]);
    let seen = Seen { link_state: Some("connect"), ..seen(R, &text) };
    let id = field(PRIMARY, "master_replid");
    let same = told(DOWN, &[("master_link_down_since_seconds", since), ("master_replid", &id)]);
    Seen { report: Some(report::parse(same.as_bytes())), ..seen }
}

/// A replica that has never been linked, as its own port is not in this section.
fn new(text: &str, uptime: u64) -> Seen {
    let mut seen = Seen { link_state: Some("connect"), ..seen(R, text) };
    seen.report.as_mut().unwrap().uptime_seconds = Some(uptime);
    seen
}

fn context() -> Context {
    Context { primary: Some(P.to_owned()), max_lag: Some(Duration::from_secs(1)), ..Context::default() }
}

fn look(second: u64, nodes: &[&Seen]) -> Look {
    let nodes = nodes.iter().map(|seen| (*seen).clone()).collect();
    Look { at: Moment::from_millis(1_000_000 + second * 1000), nodes, ..Look::default() }
}

fn find_by(looks: &[Look], context: &Context) -> Vec<Finding> {
    diagnose(looks, &[], context)
}

/// What is found in one look at these nodes.
fn find(nodes: &[&Seen]) -> Vec<Finding> {
    find_by(&[look(0, nodes)], &context())
}

fn names(found: &[Finding]) -> Vec<String> {
    found
        .iter()
        .map(|finding| format!("{} {} {}", finding.severity.name(), finding.code.name(), finding.node))
        .collect()
}

#[track_caller]
fn only(found: &[Finding], code: Code) -> &Finding {
    let [finding] = found else { panic!("{:?} in place of {}", names(found), code.name()) };
    assert_eq!(finding.code, code, "{finding:?}");
    assert!(!finding.evidence.is_empty() && !finding.remedy.is_empty(), "{finding:?}");
    finding
}

#[track_caller]
fn one(found: &[Finding], code: Code) -> &Finding {
    let of_code: Vec<&Finding> = found.iter().filter(|finding| finding.code == code).collect();
    let [finding] = of_code.as_slice() else { panic!("{:?}: not one {}", names(found), code.name()) };
    finding
}

#[track_caller]
fn none(found: &[Finding]) {
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn of_healthy_servers_nothing_is_found() {
    none(&find(&[&primary(&[]), &replica(&[])]));
    let (p, r) = (primary(&[]), replica(&[]));
    none(&find_by(&[look(0, &[&p, &r]), look(1, &[&p, &r]), look(2, &[&p, &r])], &context()));
    for (p, r) in [
        (include_str!("said/primary-6.2.txt"), include_str!("said/replica-6.2.txt")),
        (include_str!("said/primary-valkey-8.1.txt"), include_str!("said/replica-valkey-8.1.txt")),
    ] {
        none(&find(&[&seen(P, p), &seen(R, r)]));
    }
    none(&diagnose(&[], &[], &context()));
}

#[test]
fn a_link_that_is_cut_is_broken_and_the_longer_the_worse() {
    let found = find(&[&primary(&[]), &cut("7")]);
    let broken = one(&found, Code::LinkBroken);
    assert_eq!((broken.severity, broken.node.as_str()), (Severity::Warning, R));
    assert_eq!(broken.lasts, Duration::from_secs(7));
    for value in [
        "master_link_status:down",
        "master_link_down_since_seconds:7",
        "master_host:127.0.0.1",
        P,
        "probably",
    ] {
        assert!(broken.evidence.contains(value), "{value}: {}", broken.evidence);
    }
    assert!(
        broken.remedy.contains("don't restart it") && broken.remedy.contains("1024 KiB"),
        "{}",
        broken.remedy
    );
    assert_eq!(one(&find(&[&primary(&[]), &cut("61")]), Code::LinkBroken).severity, Severity::Error);
    assert!(
        one(&find(&[&primary(&[]), &cut("61")]), Code::ReplicasMissing)
            .evidence
            .contains("link down for 61 s")
    );
    // It tries each second: a moment is nothing yet.
    assert!(find(&[&primary(&[]), &cut("1")]).iter().all(|finding| finding.code != Code::LinkBroken));
}

#[test]
fn of_a_primary_that_does_not_answer_the_links_say_nothing() {
    let dead = Seen {
        node: P.to_owned(),
        problem: Some(Problem::Connect("Connection refused".into())),
        ..Seen::default()
    };
    let found = find(&[&dead, &cut("61")]);
    let finding = only(&found, Code::Unreachable);
    assert_eq!((finding.severity, finding.node.as_str()), (Severity::Error, P));
    assert!(finding.evidence.contains("Connection refused"), "{finding:?}");
}

#[test]
fn a_full_resync_is_never_called_broken() {
    let dump = [("master_sync_in_progress", "1")];
    let syncing = |base: Seen, changes: &[(&str, &str)]| {
        let since = told(
            DOWN,
            &[("master_link_down_since_seconds", "61"), ("master_replid", &field(PRIMARY, "master_replid"))],
        );
        Seen { report: Some(report::parse(told(&since, changes).as_bytes())), ..base }
    };
    let receives = syncing(cut("61"), &dump);
    let found = find(&[&primary(&[]), &receives]);
    assert_eq!(only(&found, Code::FullResyncRunning).severity, Severity::Info);
    let loads = syncing(cut("61"), &[("loading", "1")]);
    assert_eq!(only(&find(&[&primary(&[]), &loads]), Code::FullResyncRunning).severity, Severity::Info);
    // The primary waits for others to come, or writes its dump: the replica does not know yet what it will get.
    for state in ["wait_bgsave", "send_bulk"] {
        let port = field(DOWN, "tcp_port");
        let line = format!("ip=10.0.0.2,port={port},state={state},offset=0,lag=0");
        let found = find(&[&primary(&[("slave0", &line)]), &cut("61")]);
        assert!(only(&found, Code::FullResyncRunning).evidence.contains("prepares"), "{found:?}");
    }
    // The first one is none that was never finished, …
    let first = new(&told(NEVER, &dump), 20);
    assert_eq!(only(&find(&[&primary(&[]), &first]), Code::FullResyncRunning).severity, Severity::Info);
    // … and one whose dump has stopped coming is told apart, and still not broken.
    let mut stalled = receives.clone();
    let report = stalled.report.as_mut().unwrap();
    (report.sync_left_bytes, report.sync_last_io_seconds) = (Some(1 << 20), Some(2));
    assert_eq!(only(&find(&[&primary(&[]), &stalled]), Code::FullResyncRunning).severity, Severity::Info);
    stalled.report.as_mut().unwrap().sync_last_io_seconds = Some(40);
    assert_eq!(only(&find(&[&primary(&[]), &stalled]), Code::FullResyncRunning).severity, Severity::Warning);
    // Of a dump whose size is not known (diskless) the bytes that are left are negative.
    let said =
        told(REFUSED, &[("master_sync_left_bytes", "-16339"), ("master_sync_last_io_seconds_ago", "40")]);
    let found = find(&[&primary(&[]), &new(&said, 20)]);
    let stalls = only(&found, Code::FullResyncRunning);
    assert_eq!((stalls.severity, stalls.lasts), (Severity::Warning, Duration::from_secs(40)));
    assert!(stalls.evidence.contains("master_sync_last_io_seconds_ago:40"), "{stalls:?}");
    assert!(
        stalls.remedy.contains("the log of that primary") && !stalls.remedy.contains("no fault"),
        "{stalls:?}"
    );
    // While it loads what it has received, no more comes.
    let mut loads = stalled;
    loads.report.as_mut().unwrap().loading = true;
    assert_eq!(only(&find(&[&primary(&[]), &loads]), Code::FullResyncRunning).severity, Severity::Info);
}

/// A replica at this address whose link is down for so long, and which listens at this port.
fn cut_at(node: &str, port: &str, state: &'static str) -> Seen {
    let id = field(PRIMARY, "master_replid");
    let changes =
        [("master_link_down_since_seconds", "61"), ("master_replid", id.as_str()), ("tcp_port", port)];
    Seen { link_state: Some(state), ..seen(node, &told(DOWN, &changes)) }
}

#[test]
fn a_resync_is_of_the_replica_that_the_primary_lists() {
    let lists = |line: &str| primary(&[("slave0", &format!("{line},state=wait_bgsave,offset=0,lag=0"))]);
    let resyncs = |found: &[Finding]| -> Vec<String> {
        let those = found.iter().filter(|finding| finding.code == Code::FullResyncRunning);
        those.map(|finding| finding.node.clone()).collect()
    };
    let is_broken = |found: &[Finding], node: &str| {
        found.iter().any(|finding| finding.code == Code::LinkBroken && finding.node == node)
    };
    // Both have the same port, and one of them is cut off.
    let (a, b) = (cut_at(R, "6379", "handshake"), cut_at("10.0.0.3:6379", "6379", "connect"));
    let found = find(&[&lists("ip=10.0.0.2,port=6379"), &a, &b]);
    assert_eq!(resyncs(&found), [R]);
    assert!(is_broken(&found, "10.0.0.3:6379"), "{:?}", names(&found));
    // The same by names, which the primary does not know: one that is listed does not try to connect, …
    let (a, b) = (cut_at("r-1:6379", "6379", "handshake"), cut_at("r-2:6379", "6379", "connect"));
    let found = find(&[&lists("ip=10.0.0.2,port=6379"), &a, &b]);
    assert_eq!(resyncs(&found), ["r-1:6379"]);
    assert!(is_broken(&found, "r-2:6379"), "{:?}", names(&found));
    // … and where both do, or do not, the port tells nothing.
    let found = find(&[&lists("ip=10.0.0.2,port=6379"), &Seen { link_state: Some("connect"), ..a }, &b]);
    assert_eq!(resyncs(&found), Vec::<String>::new());
    // One that announces another port, or has its links by TLS, is listed by that, …
    let mut announces = cut_at(R, "7302", "handshake");
    announces.settings.announced_port = Some(6390);
    assert_eq!(resyncs(&find(&[&lists("ip=10.9.9.9,port=6390"), &announces])), [R]);
    assert_eq!(resyncs(&find(&[&lists("ip=10.9.9.9,port=7302"), &announces])), Vec::<String>::new());
    let mut by_tls = cut_at(R, "7302", "handshake");
    by_tls.settings.tls_port = Some(6390);
    assert_eq!(resyncs(&find(&[&lists("ip=10.9.9.9,port=6390"), &by_tls])), [R]);
    // … and is not one that has never synced.
    let first = new(NEVER, 20);
    let first = Seen { settings: announces.settings.clone(), ..first };
    only(&find(&[&lists("ip=10.9.9.9,port=6390"), &first]), Code::FullResyncRunning);
    // By the address at which it is reached from here.
    let address = |text: &str| text.parse().unwrap();
    let address_map = [(address("172.17.0.2:6379"), address(R))].into();
    let mapped = Context { address_map, ..context() };
    let other = cut_at("10.0.0.3:6379", "6379", "handshake");
    let nodes = [&lists("ip=172.17.0.2,port=6379"), &cut_at(R, "6379", "handshake"), &other];
    assert_eq!(resyncs(&find_by(&[look(0, &nodes)], &mapped)), [R]);
    let six = cut_at("[fd00::2]:6379", "6379", "handshake");
    assert_eq!(resyncs(&find(&[&lists("ip=fd00::2,port=6379"), &six, &other])), ["[fd00::2]:6379"]);
}

#[test]
fn a_replica_that_has_never_synced_is_told_apart() {
    let found = find(&[&primary(&[]), &new(NEVER, 20)]);
    assert_eq!(one(&found, Code::NeverSynced).severity, Severity::Error);
    assert!(
        found.iter().all(|finding| finding.code != Code::LinkBroken && finding.code != Code::AuthMismatch)
    );
    // It was started just now.
    let found = find(&[&primary(&[]), &new(NEVER, 2)]);
    assert!(found.iter().all(|finding| finding.code != Code::NeverSynced), "{found:?}");
}

/// A former primary says the same as a replica that was never linked, just after `REPLICAOF`.
#[test]
fn an_old_server_that_begins_to_follow_has_not_been_without_a_link_for_as_long_as_it_runs() {
    let (p, old) = (primary(&[]), new(NEVER, 300 * 86_400));
    let never = |found: &[Finding]| -> Vec<(Severity, Duration)> {
        let those = found.iter().filter(|finding| finding.code == Code::NeverSynced);
        those.map(|finding| (finding.severity, finding.lasts)).collect()
    };
    let secs = Duration::from_secs;
    let at = |second| look(second, &[&p, &old]);
    let was_primary = look(0, &[&p, &Seen { node: R.to_owned(), ..primary(&[("run_id", "old")]) }]);
    let goes_on = Context { goes_on: true, followed: Some((P.to_owned(), "")), ..context() };
    // Whoever looks again and again waits until it has seen that for long enough, …
    assert_eq!(never(&find_by(&[at(0)], &goes_on)), []);
    assert_eq!(never(&find_by(&[was_primary.clone(), at(2), at(4)], &goes_on)), []);
    let looks = [was_primary.clone(), at(2), at(4), at(8)];
    assert_eq!(never(&find_by(&looks, &goes_on)), [(Severity::Error, secs(6))]);
    // … and so of one that was started not long ago.
    let young = look(0, &[&p, &new(NEVER, 20)]);
    assert_eq!(never(&find_by(&[young], &goes_on)), []);
    // Another primary: it begins anew.
    let mut other = at(0);
    other.nodes[1].report.as_mut().unwrap().master = Some(("10.0.0.9".to_owned(), 6379));
    assert_eq!(never(&find_by(&[other, at(6), at(8)], &goes_on)), []);
    // Whoever looks once cannot tell.
    assert_eq!(never(&find_by(&[at(0), at(1), at(3)], &context())), [(Severity::Warning, secs(3))]);
    assert_eq!(never(&find_by(&[was_primary, at(1), at(3)], &context())), []);
    let missing = find_by(&[at(0), at(1), at(3)], &context());
    assert_eq!(one(&missing, Code::ReplicasMissing).lasts, secs(3), "not since it was started");
}

#[test]
fn a_wrong_masterauth_shows_where_passwords_can_be_compared() {
    let of = |secret: Option<u64>, text: &str| {
        let mut replica = new(text, 20);
        replica.settings.masterauth = Some(Fingerprint(secret));
        replica
    };
    let found = find(&[&primary(&[]), &of(Some(8), NEVER)]);
    assert!(one(&found, Code::AuthMismatch).evidence.contains("is not the password of"), "{found:?}");
    one(&found, Code::NeverSynced);
    // Without any it says of itself that a resync runs, as it has fallen back to SYNC.
    let found = find(&[&primary(&[]), &of(None, REFUSED)]);
    assert!(one(&found, Code::AuthMismatch).evidence.contains("`masterauth` is not set"), "{found:?}");
    assert!(found.iter().all(|finding| finding.code != Code::FullResyncRunning), "{:?}", names(&found));
    // The right one.
    let found = find(&[&primary(&[]), &of(Some(7), NEVER)]);
    assert!(found.iter().all(|finding| finding.code != Code::AuthMismatch), "{:?}", names(&found));
    // It is wrong as well where none is needed.
    let mut open = primary(&[]);
    (open.settings.requirepass, open.wants_password) = (Some(Fingerprint(None)), Some(false));
    one(&find(&[&open, &of(Some(7), NEVER)]), Code::AuthMismatch);
    // As long as it is linked it does not matter.
    let mut linked = replica(&[]);
    linked.settings.masterauth = Some(Fingerprint(Some(8)));
    none(&find(&[&primary(&[]), &linked]));
}

#[test]
fn a_wrong_masterauth_shows_by_refusals_where_passwords_are_hidden() {
    let hidden = |failures: &str, replica: &Seen, second| {
        let mut primary = primary(&[("errorstat_WRONGPASS", failures), ("errorstat_NOAUTH", "count=0")]);
        primary.settings.requirepass = None;
        look(second, &[&primary, replica])
    };
    let down = new(NEVER, 20);
    let found = find_by(&[hidden("count=6", &down, 0), hidden("count=9", &down, 3)], &context());
    assert!(one(&found, Code::AuthMismatch).evidence.contains("3 passwords within 3.0 s"), "{found:?}");
    // Somebody has mistyped it once, or nobody has.
    for failures in ["count=6", "count=7"] {
        let found = find_by(&[hidden("count=6", &down, 0), hidden(failures, &down, 3)], &context());
        assert!(found.iter().all(|finding| finding.code != Code::AuthMismatch), "{:?}", names(&found));
    }
    // By the log of denials, a user that may not follow.
    let mut primary = primary(&[]);
    primary.settings.requirepass = None;
    primary.denials = vec![Denial {
        ago: Duration::from_secs(2),
        count: 40,
        reason: "command".to_owned(),
        user: "replication".to_owned(),
        object: "psync".to_owned(),
    }];
    assert!(
        one(&find(&[&primary, &down]), Code::AuthMismatch)
            .evidence
            .contains("user replication was denied psync")
    );
}

#[test]
fn a_silent_link_hangs_before_anybody_gives_it_up() {
    let quiet = |seconds: &str| replica(&[("master_last_io_seconds_ago", seconds)]);
    let found = find(&[&primary(&[]), &quiet("23")]);
    assert!(only(&found, Code::TcpHang).evidence.contains("master_last_io_seconds_ago:23"), "{found:?}");
    // The stream of an idle primary has a ping each ten seconds.
    none(&find(&[&primary(&[]), &quiet("11")]));
    // Without leave to ask, the defaults are taken.
    let (mut p, mut r) = (primary(&[]), quiet("23"));
    (p.settings, r.settings) = (Settings::default(), Settings::default());
    let found = find(&[&p, &r]);
    one(&found, Code::TcpHang);
}

#[test]
fn timeouts_fit_the_period_of_pings() {
    let with = |timeout, period, quiet: &str| {
        let (mut p, mut r) = (primary(&[]), replica(&[("master_last_io_seconds_ago", quiet)]));
        (p.settings.ping_period, r.settings.repl_timeout) = (Some(period), Some(timeout));
        find(&[&p, &r])
    };
    none(&with(50, 10, "9"));
    let found = with(40, 10, "9");
    let short = only(&found, Code::TimeoutTooShort);
    assert_eq!((short.severity, short.node.as_str()), (Severity::Warning, R));
    assert!(short.remedy.contains("redis-cli -h 10.0.0.2 -p 6379 CONFIG SET repl-timeout 60"), "{short:?}");
    assert_eq!(one(&with(5, 10, "0"), Code::TimeoutTooShort).severity, Severity::Error);
    let found = with(15, 10, "9");
    assert!(one(&found, Code::HeartbeatTooRare).evidence.contains("6.0 s before"), "{found:?}");
    assert!(with(15, 10, "5").iter().all(|finding| finding.code != Code::HeartbeatTooRare));
}

#[test]
fn rare_heartbeats_show_by_the_longest_silence_and_not_by_that_of_a_moment() {
    let at = |second, quiet: &str, timeout, period| {
        let (mut p, mut r) = (primary(&[]), replica(&[("master_last_io_seconds_ago", quiet)]));
        (p.settings.ping_period, r.settings.repl_timeout) = (Some(period), Some(timeout));
        look(second, &[&p, &r])
    };
    let rare = |looks: &[Look]| {
        find_by(looks, &context()).into_iter().find(|finding| finding.code == Code::HeartbeatTooRare)
    };
    let found = rare(&[at(0, "7", 12, 10), at(2, "9", 12, 10), at(4, "1", 12, 10)]).unwrap();
    assert!(found.evidence.contains("master_last_io_seconds_ago:9"), "{found:?}");
    // Until something is done about it, …
    assert_eq!(rare(&[at(0, "7", 12, 10), at(2, "9", 12, 10), at(4, "1", 60, 10)]), None);
    assert_eq!(rare(&[at(0, "7", 12, 10), at(2, "9", 12, 10), at(4, "1", 12, 2)]), None);
    // … and not for a hole in the path that has been closed.
    assert_eq!(rare(&[at(0, "40", 60, 10), at(2, "1", 60, 10)]), None);
}

#[test]
fn a_backlog_that_covers_nothing_shows_by_dumps() {
    let with = |full: &str, refused: &str, offset: &str| {
        primary(&[("sync_full", full), ("sync_partial_err", refused), ("master_repl_offset", offset)])
    };
    let r = replica(&[]);
    let at = |full: &str, refused: &str, offset: &str, second| {
        let p = with(full, refused, offset);
        let mut r = r.clone();
        r.report.as_mut().unwrap().applied = p.report.as_ref().unwrap().offset;
        look(second, &[&p, &r])
    };
    let found = find_by(&[at("1", "0", "1000", 0), at("3", "2", "10001000", 10)], &context());
    let looped = only(&found, Code::ResyncLoop);
    assert_eq!((looped.severity, looped.node.as_str()), (Severity::Error, P));
    for value in [
        "sync_full rose by 2 to 3",
        "sync_partial_err by 2",
        "repl_backlog_size:1048576",
        "976 KiB/s",
        "1.0 s",
    ] {
        assert!(looped.evidence.contains(value), "{value}: {}", looped.evidence);
    }
    assert!(looped.remedy.contains("CONFIG SET repl-backlog-size 128mb"), "{}", looped.remedy);
    // One is not enough, however many there were since the primary was started, and neither are two that are new.
    none(&find_by(&[at("8", "7", "1000", 0), at("9", "8", "1000", 3)], &context()));
    none(&find_by(&[at("1", "0", "1000", 0), at("2", "1", "1000", 10)], &context()));
    none(&find_by(&[at("1", "0", "1000", 0), at("3", "0", "1000", 10)], &context()));
    // After a restart the numbers begin anew.
    let mut other = at("9", "8", "1000", 10);
    other.nodes[0].report.as_mut().unwrap().run_id = Some("another".to_owned());
    none(&find_by(&[at("1", "0", "1000", 0), other], &context()));
}

/// The replica cannot load what it receives, and asks for everything again: no partial resync is refused.
#[test]
fn dumps_that_come_to_nothing_are_told() {
    let p = |full: &str| primary(&[("sync_full", full), ("sync_partial_err", "0")]);
    let down = seen(R, NEVER);
    let found = find_by(&[look(0, &[&p("1"), &down]), look(9, &[&p("4"), &down])], &context());
    let fruitless = one(&found, Code::ResyncLoop);
    assert!(
        fruitless.evidence.starts_with("sync_full rose by 3 within 9.0 s")
            && fruitless.remedy.contains(&down.node),
        "{fruitless:?}"
    );
    let is_told = |looks: &[Look]| find_by(looks, &context()).iter().any(|f| f.code == Code::ResyncLoop);
    assert!(
        !is_told(&[look(0, &[&p("1"), &down]), look(9, &[&p("2"), &down])]),
        "the first may take its time"
    );
    assert!(!is_told(&[look(0, &[&p("1"), &replica(&[])]), look(9, &[&p("4"), &down])]), "it was linked");
}

#[test]
fn one_full_resync_of_each_replica_is_no_loop() {
    let p = |full: &str, refused: &str| primary(&[("sync_full", full), ("sync_partial_err", refused)]);
    let (r, other) = (replica(&[]), Seen { node: "10.0.0.3:6379".to_owned(), ..replica(&[]) });
    let loops = |looks: &[Look]| {
        let found = find_by(looks, &context());
        found.iter().any(|finding| finding.code == Code::ResyncLoop)
    };
    let begin = look(0, &[&p("2", "0"), &r, &other]);
    // After a failover.
    assert!(!loops(&[begin.clone(), look(10, &[&p("4", "2"), &r, &other])]));
    assert!(loops(&[begin.clone(), look(10, &[&p("5", "3"), &r, &other])]), "one of them at least had two");
    // Two of the same.
    let mut syncs = cut("3");
    syncs.report.as_mut().unwrap().sync_in_progress = true;
    let looks = [
        begin.clone(),
        look(3, &[&p("3", "1"), &syncs, &other]),
        look(6, &[&p("3", "1"), &r, &other]),
        look(9, &[&p("4", "2"), &syncs, &other]),
    ];
    assert!(loops(&looks));
    assert!(!loops(&[begin, looks[1].clone(), look(4, &[&p("4", "2"), &syncs, &other])]), "one that goes on");
    // What is not shown is not 0.
    let hidden = |full: &str, refused: &str, second| {
        let mut p = p(full, refused);
        p.report.as_mut().unwrap().backlog_size = None;
        look(second, &[&p, &r])
    };
    let found = find_by(&[hidden("1", "0", 0), hidden("3", "2", 10)], &context());
    assert!(one(&found, Code::ResyncLoop).evidence.contains("repl_backlog_size is not shown"), "{found:?}");
}

#[test]
fn a_buffer_that_fills_up_is_seen_before_it_is_full() {
    let with = |omem: Option<u64>, second| {
        let mut p = primary(&[]);
        let client =
            |bytes| ReplicaClient { id: 3, address: "10.0.0.2:4711".to_owned(), output_bytes: bytes };
        p.replicas = omem.map(client).into_iter().collect();
        look(second, &[&p, &replica(&[])])
    };
    none(&find_by(&[with(Some(20_504), 0)], &context()));
    let found = find_by(&[with(Some(200 << 20), 0)], &context());
    let full = only(&found, Code::OutputBuffer);
    assert_eq!(full.severity, Severity::Warning);
    assert!(
        full.evidence.contains("omem=209715200") && full.evidence.contains("268435456"),
        "{}",
        full.evidence
    );
    assert!(full.remedy.contains("\"replica 512mb 128mb 60\""), "{}", full.remedy);
    let found = find_by(&[with(Some(200 << 20), 0), with(None, 2)], &context());
    assert_eq!(only(&found, Code::OutputBuffer).severity, Severity::Error);
    none(&find_by(&[with(Some(20_504), 0), with(None, 2)], &context()));
    // A burst that was taken, and an orderly end after that.
    none(&find_by(&[with(Some(200 << 20), 0), with(Some(0), 30), with(None, 40)], &context()));
}

#[test]
fn a_limit_of_the_buffer_is_shown_as_it_is_set_and_never_made_smaller() {
    let with = |output_bytes, limit, backlog| {
        let mut p = primary(&[]);
        p.replicas = vec![ReplicaClient { id: 3, address: "10.0.0.2:4711".to_owned(), output_bytes }];
        p.settings.replica_buffer = limit;
        p.report.as_mut().unwrap().backlog_size = Some(backlog);
        find(&[&p, &replica(&[])])
    };
    let set = |hard_mb: u64, soft_mb: u64, seconds| Some((hard_mb << 20, soft_mb << 20, seconds));
    // Below the backlog the hard limit does not count, the soft one does.
    none(&with(30 << 20, set(1, 0, 0), 100 << 20));
    let found = with(60 << 20, set(1, 0, 0), 100 << 20);
    let near = only(&found, Code::OutputBuffer);
    assert!(near.evidence.contains("client-output-buffer-limit replica 1048576 0 0, of which"), "{near:?}");
    let found = with(27 << 20, set(1, 1, 5), 100 << 20);
    assert!(only(&found, Code::OutputBuffer).evidence.contains("replica 1048576 1048576 5"), "{found:?}");
    // Before Redis 7.0 it counts as it is.
    let mut old = primary(&[("redis_version", "6.2.14")]);
    old.replicas = vec![ReplicaClient { id: 3, address: String::new(), output_bytes: 600 << 10 }];
    (old.settings.replica_buffer, old.report.as_mut().unwrap().backlog_size) =
        (set(1, 0, 0), Some(100 << 20));
    only(&find(&[&old, &replica(&[("redis_version", "6.2.14")])]), Code::OutputBuffer);
    // What is not limited stays so, and what is more than usual is not taken away.
    let found = with(300 << 20, set(512, 0, 0), 1 << 20);
    assert!(only(&found, Code::OutputBuffer).remedy.contains("\"replica 1024mb 0 0\""), "{found:?}");
    let found = with(300 << 20, set(0, 200, 120), 1 << 20);
    assert!(only(&found, Code::OutputBuffer).remedy.contains("\"replica 0 400mb 120\""), "{found:?}");
    // No limit, and one that is not shown.
    none(&with(300 << 20, set(0, 0, 0), 1 << 20));
    none(&with(300 << 20, None, 1 << 20));
    let killed = |kills, full: &str, second| {
        let mut p = primary(&[("sync_full", full)]);
        p.settings.replica_buffer = None;
        p.report.as_mut().unwrap().buffer_kills = Some(kills);
        look(second, &[&p, &replica(&[])])
    };
    let found = find_by(&[killed(0, "1", 0), killed(1, "2", 2)], &context());
    let hidden = only(&found, Code::OutputBuffer);
    assert!(hidden.evidence.contains("client-output-buffer-limit replica is not shown"), "{hidden:?}");
    assert!(hidden.remedy.contains("CONFIG GET") && !hidden.remedy.contains("mb"), "{hidden:?}");
}

#[test]
fn a_primary_that_is_blocked_is_told_by_its_answers() {
    let silent = Seen { node: P.to_owned(), problem: Some(Problem::Silent), ..Seen::default() };
    let found = find(&[&silent, &replica(&[])]);
    assert_eq!(only(&found, Code::PrimaryBlocked).severity, Severity::Error);
    let busy =
        Problem::Busy("BUSY Redis is busy running a script. You can only call SCRIPT KILL.".to_owned());
    let found = find(&[&Seen { problem: Some(busy), ..silent.clone() }, &replica(&[])]);
    assert!(only(&found, Code::PrimaryBlocked).remedy.contains("-p 6379 SCRIPT KILL"), "{found:?}");
    let ms = Duration::from_millis;
    let slow = |millis| Seen {
        latency: Some(ms(millis)),
        connects_in: Some(Duration::from_micros(300)),
        ..primary(&[])
    };
    assert!(
        only(&find(&[&slow(400), &replica(&[])]), Code::PrimaryBlocked).evidence.contains("PING took 0.4 s")
    );
    only(&find(&[&slow(400)]), Code::PrimaryBlocked);
    none(&find(&[&slow(40), &replica(&[])]));
    // All are slow: it is the path, or we.
    let far = Seen { latency: Some(ms(300)), ..replica(&[]) };
    none(&find(&[&slow(400), &far]));
    // It is far away, whether or not something else is near; or nothing tells.
    for connects_in in [Some(ms(240)), None] {
        let far = Seen { connects_in, ..slow(250) };
        none(&find(&[&far]));
        none(&find(&[&far, &replica(&[])]));
    }
    let entry = |ago: u64, millis| {
        let ago = Duration::from_secs(ago);
        Slow { ago, took: Duration::from_millis(millis), command: "keys".to_owned() }
    };
    let remembers = |slow: Vec<Slow>| find(&[&Seen { slow, ..primary(&[]) }, &replica(&[])]);
    assert!(only(&remembers(vec![entry(5, 300)]), Code::PrimaryBlocked).evidence.contains("keys took 0.3 s"));
    none(&remembers(vec![entry(300, 300), entry(5, 20)]));
    none(&remembers((5..14).map(|ago| entry(ago, 200)).collect()));
    one(&remembers((5..15).map(|ago| entry(ago, 200)).collect()), Code::PrimaryBlocked);
    // A replica that hangs is another matter.
    let found = find(&[&primary(&[]), &Seen { node: R.to_owned(), ..silent }]);
    one(&found, Code::Unreachable);
}

#[test]
fn a_slow_fork_is_told_of_once_and_not_until_the_next_one() {
    let at = |second, took: &str, count: &str| {
        let p = primary(&[("latest_fork_usec", took), ("total_forks", count)]);
        look(second, &[&p, &replica(&[])])
    };
    let severity = |looks: &[Look]| only(&find_by(looks, &context()), Code::PrimaryBlocked).severity;
    assert_eq!(severity(&[at(0, "2000", "1"), at(5, "700000", "2")]), Severity::Warning);
    assert_eq!(severity(&[at(0, "700000", "1"), at(5, "700000", "2")]), Severity::Warning);
    // It may have been years ago.
    assert_eq!(severity(&[at(0, "700000", "2")]), Severity::Info);
    assert_eq!(severity(&[at(0, "700000", "2"), at(5, "700000", "2")]), Severity::Info);
    none(&find_by(&[at(0, "700000", "2"), at(5, "2000", "3")], &context()));
}

#[test]
fn whoever_does_not_let_us_in_gets_its_own_words_back() {
    let refuses = |problem| {
        let node = Seen { node: R.to_owned(), problem: Some(problem), ..Seen::default() };
        find(&[&primary(&[]), &node])
    };
    let found = refuses(Problem::Auth("NOAUTH Authentication required.".to_owned()));
    assert!(one(&found, Code::Noauth).remedy.contains("password-file"), "{found:?}");
    let denied = Seen {
        refuses: Some("NOPERM this user has no permissions to run the 'info' command".into()),
        ..replica(&[])
    };
    let context = Context { user: Some("redweir".to_owned()), ..context() };
    let found = find_by(&[look(0, &[&primary(&[]), &denied])], &context);
    let remedy = &only(&found, Code::Noauth).remedy;
    assert!(remedy.contains("redis-cli -h 10.0.0.2 -p 6379 ACL SETUSER redweir +role +info"), "{remedy}");
    let protected = Problem::Denied("DENIED Redis is running in protected mode".to_owned());
    let node = Seen { node: P.to_owned(), problem: Some(protected.clone()), ..Seen::default() };
    assert!(only(&find(&[&node]), Code::NotAPrimary).remedy.contains("protected-mode"));
    one(&refuses(protected), Code::Unreachable);
}

#[test]
fn what_is_configured_as_the_primary_may_be_none() {
    let demoted = Seen { node: P.to_owned(), ..replica(&[]) };
    let found = find(&[&demoted]);
    let finding = only(&found, Code::NotAPrimary);
    assert_eq!(finding.severity, Severity::Error);
    assert!(finding.evidence.contains("role:slave, master_host:127.0.0.1"), "{finding:?}");
    let found = find(&[&demoted, &Seen { node: R.to_owned(), ..primary(&[]) }]);
    assert_eq!(only(&found, Code::NotAPrimary).severity, Severity::Warning, "another one is there");
}

#[test]
fn two_primaries_are_both_named() {
    let id = "f".repeat(40);
    let second = seen(R, &told(PRIMARY, &[("run_id", "another"), ("master_replid", &id)]));
    let now = look(0, &[&primary(&[]), &second]);
    let found = find_by(std::slice::from_ref(&now), &context());
    let two: Vec<&Finding> = found.iter().filter(|finding| finding.code == Code::TwoPrimaries).collect();
    // Both have replicas, and neither knows the other: that one is configured says nothing.
    assert_eq!(two.iter().map(|finding| finding.node.as_str()).collect::<Vec<_>>(), [P, R]);
    for two in two {
        assert_eq!(two.severity, Severity::Error);
        assert!(two.evidence.contains(P) && two.evidence.contains(&id), "{}", two.evidence);
        assert!(two.remedy.starts_with("nothing tells which one is right"), "{}", two.remedy);
    }
    assert!(found.iter().all(|finding| finding.code != Code::SecondPrimary), "nobody decides here");
    // Redweir has decided, …
    let followed = Some((R.to_owned(), "it continues the history that is known"));
    let found = find_by(std::slice::from_ref(&now), &Context { followed, ..context() });
    let second = one(&found, Code::SecondPrimary);
    assert!(second.node == P && second.evidence.contains("it continues the history"), "{second:?}");
    // … or can't.
    let found = find_by(std::slice::from_ref(&now), &Context { undecided: true, ..context() });
    assert_eq!(
        found.iter().filter(|finding| finding.code == Code::TwoPrimaries).count(),
        2,
        "{:?}",
        names(&found)
    );
    // In an orderly failover both say so for a moment; and a process with two addresses is one.
    let before = look(0, &[&primary(&[]), &replica(&[])]);
    let found = find_by(&[before, Look { at: Moment::from_millis(1_001_000), ..now }], &context());
    assert!(found.iter().all(|finding| finding.code != Code::TwoPrimaries), "{:?}", names(&found));
    none(&find(&[
        &primary(&[]),
        &Seen { node: "primary.example:6379".to_owned(), ..primary(&[]) },
        &replica(&[]),
    ]));
}

#[test]
fn the_right_one_of_two_primaries_is_the_one_that_goes_on() {
    let (id, old) = ("f".repeat(40), field(PRIMARY, "master_replid"));
    let of = |count: &str| seen(P, &told(PRIMARY, &[("connected_slaves", count)]));
    let promoted = |count: &str, before: &str, end: &str| {
        let changes = [
            ("run_id", "another"),
            ("master_replid", id.as_str()),
            ("master_replid2", before),
            ("second_repl_offset", end),
            ("connected_slaves", count),
        ];
        seen(R, &told(PRIMARY, &changes))
    };
    let two = |nodes: &[&Seen]| -> Vec<(String, String)> {
        let found = find(nodes);
        let those = found.into_iter().filter(|finding| finding.code == Code::TwoPrimaries);
        those.map(|finding| (finding.node, finding.remedy)).collect()
    };
    let zeros = "0".repeat(40);
    // A failover, and the old primary, which is configured, has come back: it is the wrong one.
    for count in ["0", "1"] {
        let found = two(&[&of("0"), &promoted(count, &old, "50")]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].0, P);
        assert!(found[0].1.contains("redis-cli -h 10.0.0.1 -p 6379 REPLICAOF 10.0.0.2 6379"), "{found:?}");
    }
    // Only one has replicas.
    for (ours, theirs, wrong) in [("1", "0", R), ("0", "1", P)] {
        let found = two(&[&of(ours), &promoted(theirs, &zeros, "-1")]);
        assert_eq!(found.iter().map(|(node, _)| node.as_str()).collect::<Vec<_>>(), [wrong]);
        assert!(found[0].1.contains("only it has replicas"), "{found:?}");
    }
    // Redweir follows the stream of one, which makes it no primary.
    let mut followed = promoted("1", &zeros, "-1");
    followed.report.as_mut().unwrap().online[0].1 = 0;
    assert_eq!(two(&[&of("0"), &followed]).len(), 2);
    // A replica that was promoted by mistake goes on as well.
    assert_eq!(two(&[&of("1"), &promoted("0", &old, "50")]).len(), 2);
    assert_eq!(two(&[&of("0"), &promoted("0", &zeros, "-1")]).len(), 2);
    // Sentinels know.
    let mut now = look(0, &[&of("1"), &promoted("1", &zeros, "-1")]);
    let sentinel = |epoch, names: &str| SentinelSeen {
        epoch: Some(epoch),
        names: Some(names.to_owned()),
        ..Default::default()
    };
    now.sentinels = vec![sentinel(3, R), sentinel(2, P)];
    let found = find_by(&[now], &context());
    assert!(one(&found, Code::TwoPrimaries).node == P, "{:?}", names(&found));
}

#[test]
fn addresses_of_ipv6_and_those_that_are_mapped_are_known_again() {
    let id = "e".repeat(40);
    let other = || seen("", &told(PRIMARY, &[("run_id", "another")]));
    // Whom a linked replica follows.
    let astray = replica(&[("master_replid", &id), ("master_host", "fd00::9"), ("tcp_port", "6999")]);
    let mut now = look(0, &[&primary(&[]), &astray]);
    now.strangers = vec![Seen { node: "[fd00::9]:7301".to_owned(), ..other() }];
    let found = find_by(std::slice::from_ref(&now), &context());
    let two = one(&found, Code::TwoPrimaries);
    assert!(
        two.evidence.contains("[fd00::9]:7301, which says that it is a primary and is not configured"),
        "{two:?}"
    );
    // … it may be the primary itself.
    now.strangers = vec![Seen { node: "[fd00::9]:7301".to_owned(), ..primary(&[]) }];
    one(&find_by(std::slice::from_ref(&now), &context()), Code::ChangedId);
    let six = Seen { node: "[fd00::9]:7301".to_owned(), ..primary(&[]) };
    one(&find(&[&six, &astray]), Code::ChangedId);
    let address = |text: &str| text.parse().unwrap();
    let address_map = [(address("[fd00::9]:7301"), address(P))].into();
    let mapped = Context { address_map, ..context() };
    one(&find_by(&[look(0, &[&primary(&[]), &astray])], &mapped), Code::ChangedId);
    // Whom one follows whose link is down.
    let mut cut = cut("61");
    cut.report.as_mut().unwrap().master = Some(("fd00::9".to_owned(), 7301));
    let mut now = look(0, &[&primary(&[]), &cut]);
    now.strangers = vec![Seen { node: "[fd00::9]:7301".to_owned(), ..primary(&[]) }];
    let found = find_by(&[now], &context());
    let broken = one(&found, Code::LinkBroken);
    assert!(broken.evidence.contains("[fd00::9]:7301 from here: it leads to the primary"), "{broken:?}");
    assert!(broken.remedy.contains("`redis-cli -h fd00::9 -p 7301 PING`"), "{broken:?}");
}

#[test]
fn commands_work_as_they_are() {
    let tls = Context { tls: true, ..context() };
    let found = find_by(&[look(0, &[&primary(&[]), &replica(&[("slave_read_only", "0")])])], &tls);
    let remedy = &only(&found, Code::WritableReplica).remedy;
    assert_eq!(remedy, "`redis-cli --tls -h 10.0.0.2 -p 6379 CONFIG SET replica-read-only yes`");
    let stale = |context: &Context| {
        let sentinel = SentinelSeen {
            sentinel: "s:26379".to_owned(),
            epoch: Some(3),
            names: Some(R.to_owned()),
            ..SentinelSeen::default()
        };
        let now = Look { sentinels: vec![sentinel], ..look(0, &[&primary(&[]), &replica(&[])]) };
        only(&find_by(&[now], context), Code::StaleSentinel).remedy.clone()
    };
    assert!(stale(&tls).contains("`redis-cli -h s -p 26379 SENTINEL"), "it has its own setting");
    let by_tls = Context { sentinel_tls: true, ..context() };
    assert!(stale(&by_tls).contains("`redis-cli --tls -h s -p 26379 SENTINEL"));
    // Nobody can follow a Unix socket.
    let socket = "unix:/run/r.sock";
    let second = seen(R, &told(PRIMARY, &[("run_id", "another"), ("connected_slaves", "0")]));
    let found = find(&[&Seen { node: socket.to_owned(), ..primary(&[]) }, &second]);
    let remedy = &one(&found, Code::TwoPrimaries).remedy;
    assert!(remedy.contains("REPLICAOF HOST PORT`, with the TCP address of unix:/run/r.sock"), "{remedy}");
}

#[test]
fn a_replica_of_somebody_else_is_foreign() {
    let id = "e".repeat(40);
    let changed = [("master_replid", id.as_str()), ("master_host", "10.9.9.9"), ("tcp_port", "6999")];
    let astray = replica(&changed);
    let mut now = look(0, &[&primary(&[]), &astray]);
    let stranger =
        Seen { node: "10.9.9.9:7301".to_owned(), ..seen("", &told(PRIMARY, &[("run_id", "another")])) };
    now.strangers = vec![stranger];
    let found = find_by(std::slice::from_ref(&now), &context());
    let foreign = one(&found, Code::ForeignReplica);
    assert!(foreign.node == R && foreign.evidence.contains(&id), "{foreign:?}");
    let two = one(&found, Code::TwoPrimaries);
    assert!(
        two.evidence.contains("10.9.9.9:7301, which says that it is a primary and is not configured"),
        "{two:?}"
    );
    // Once is not enough: the two were not asked in the same moment.
    let before = look(0, &[&primary(&[]), &replica(&[])]);
    none(
        &find_by(
            &[
                before,
                Look { at: Moment::from_millis(1_001_000), nodes: now.nodes.clone(), ..Look::default() },
            ],
            &context(),
        )
        .into_iter()
        .filter(|finding| finding.code != Code::ReplicasMissing)
        .collect::<Vec<_>>(),
    );
    // A replica that has not heard of the promotion yet has the history that goes on.
    let old = field(PRIMARY, "master_replid");
    let promoted = primary(&[("master_replid", &id), ("master_replid2", &old), ("second_repl_offset", "99")]);
    none(&find(&[&promoted, &replica(&[])]));
}

#[test]
fn a_linked_replica_under_an_id_of_its_own_is_told_apart() {
    let id = "d".repeat(40);
    let port = field(REPLICA, "tcp_port");
    // By the primary's own list: it knows the replica, whatever address that has for it.
    let found = find(&[&primary(&[]), &replica(&[("master_replid", &id), ("master_host", "relay")])]);
    let finding = one(&found, Code::ChangedId);
    assert!(finding.evidence.contains(&id) && port != "0", "{finding:?}");
    assert!(
        found
            .iter()
            .all(|finding| finding.code != Code::ForeignReplica && finding.code != Code::TwoPrimaries)
    );
    // Or by who answers at the address that it follows.
    let nobody = "ip=10.0.0.7,port=1,state=online,offset=1,lag=0";
    let astray = replica(&[("master_replid", &id), ("master_host", "10.9.9.9")]);
    let mut now = look(0, &[&primary(&[("slave0", nobody)]), &astray]);
    now.strangers = vec![Seen { node: "10.9.9.9:7301".to_owned(), ..primary(&[]) }];
    one(&find_by(&[now], &context()), Code::ChangedId);
}

/// What is found after these looks, each at its second.
fn remembered(looks: Vec<Look>) -> Vec<Finding> {
    let mut memory = Memory::default();
    for look in looks {
        memory.take(look);
    }
    let (looks, incidents) = memory.all();
    diagnose(looks, incidents, &context())
}

#[test]
fn a_primary_that_comes_back_without_its_history_is_remembered() {
    let id = "c".repeat(40);
    let empty: [(&str, &str); 4] = [
        ("run_id", "another"),
        ("master_replid", &id),
        ("master_repl_offset", "14"),
        ("uptime_in_seconds", "1"),
    ];
    let reborn = primary(&empty);
    let emptied = Seen {
        report: Some(report::parse(told(PRIMARY, &empty).replace("\ndb0:", "\nnothing:").as_bytes())),
        ..reborn.clone()
    };
    let dead =
        Seen { node: P.to_owned(), problem: Some(Problem::Connect("refused".to_owned())), ..Seen::default() };
    let found = remembered(vec![
        look(0, &[&primary(&[])]),
        look(2, &[&dead]),
        look(4, &[&reborn]),
        look(70, &[&reborn]),
    ]);
    let lost = only(&found, Code::RunIdChanged);
    assert!(lost.evidence.contains(&id) && lost.lasts >= Duration::from_secs(66), "{lost:?}");
    // In between it was a replica: of a failover, and back.
    let demoted = Seen { node: P.to_owned(), ..replica(&[("run_id", "another")]) };
    none(&remembered(vec![look(0, &[&primary(&[])]), look(2, &[&demoted]), look(4, &[&reborn])]));
    let found = remembered(vec![look(0, &[&primary(&[])]), look(4, &[&emptied])]);
    let emptied = one(&found, Code::RestartedEmpty);
    assert!(
        emptied.severity == Severity::Error && emptied.evidence.starts_with("1 keys before, none now"),
        "{emptied:?}"
    );
    one(&found, Code::RunIdChanged);
    // Long ago, or with its history, or the same process under another ID: nothing.
    none(&remembered(vec![
        look(0, &[&primary(&[])]),
        look(4, &[&reborn]),
        look(5 + TOLD.as_secs(), &[&reborn]),
    ]));
    let old = field(PRIMARY, "master_replid");
    let keeps = primary(&[
        ("run_id", "another"),
        ("master_replid", &id),
        ("master_replid2", &old),
        ("second_repl_offset", "50"),
    ]);
    none(&remembered(vec![look(0, &[&primary(&[])]), look(4, &[&keeps])]));
    none(&remembered(vec![look(0, &[&primary(&[])]), look(4, &[&primary(&[("master_replid", &id)])])]));
}

#[test]
fn a_replica_that_does_not_keep_up_lags() {
    let at = |second, head: &str, applied: &str| {
        look(
            second,
            &[&primary(&[("master_repl_offset", head)]), &replica(&[("slave_repl_offset", applied)])],
        )
    };
    let looks =
        [at(0, "1000", "1000"), at(1, "20000", "1000"), at(2, "40000", "1500"), at(3, "61000", "2000")];
    let found = find_by(&looks, &context());
    let lagging = only(&found, Code::Lagging);
    assert_eq!((lagging.node.as_str(), lagging.lasts), (R, Duration::from_secs(2)));
    for value in ["slave_repl_offset:2000", "at 61000", "57 KiB", "at least 2.0 s behind"] {
        assert!(lagging.evidence.contains(value), "{value}: {}", lagging.evidence);
    }
    // It was linked a second ago: it has loaded its dump, and has some way to go.
    let mut loaded = looks.clone();
    for look in &mut loaded[..3] {
        look.nodes[1].report.as_mut().unwrap().link_up = Some(false);
    }
    assert!(find_by(&loaded, &context()).iter().all(|finding| finding.code != Code::Lagging));
    // It has what the primary had a second ago.
    none(&find_by(&[at(0, "1000", "1000"), at(1, "20000", "900"), at(2, "40000", "20000")], &context()));
    let patient = Context { max_lag: Some(Duration::from_secs(5)), ..context() };
    none(&find_by(&looks, &patient));
}

#[test]
fn settings_that_will_hurt_are_told() {
    let (p, r) = (primary(&[]), replica(&[]));
    let with = |change: &dyn Fn(&mut Settings, &mut Settings)| {
        let (mut p, mut r) = (p.clone(), r.clone());
        change(&mut p.settings, &mut r.settings);
        find(&[&p, &r])
    };
    let found = with(&|p, _| p.min_replicas_to_write = Some(0));
    let writes = only(&found, Code::UnprotectedWrites);
    assert!(
        writes.severity == Severity::Info && writes.remedy.contains("CONFIG SET min-replicas-to-write 1"),
        "{writes:?}"
    );
    let mut open = primary(&[]);
    open.settings.min_replicas_to_write = Some(0);
    assert_eq!(
        one(&find(&[&open, &cut("61")]), Code::UnprotectedWrites).severity,
        Severity::Warning,
        "nobody has them"
    );
    none(&find(&[&open]));
    let found = with(&|_, r| r.serves_stale = Some(true));
    assert_eq!(only(&found, Code::ServesStale).severity, Severity::Info);
    let allowed = Context { allows_stale: true, ..context() };
    let mut stale = replica(&[]);
    stale.settings.serves_stale = Some(true);
    none(&find_by(&[look(0, &[&p, &stale])], &allowed));
    let found = with(&|p, _| p.disable_thp = Some(false));
    let thp = only(&found, Code::Thp);
    assert_eq!((thp.node.as_str(), thp.severity), (P, Severity::Info), "the kernel may use none");
    let found = find(&[&p, &Seen { tells_of_huge_pages: true, ..r.clone() }]);
    assert_eq!(only(&found, Code::Thp).severity, Severity::Warning);
    let found = find(&[&p, &replica(&[("slave_read_only", "0")])]);
    assert!(only(&found, Code::WritableReplica).remedy.contains("CONFIG SET replica-read-only yes"));
    let counted = Context { stream_from_primary: true, ..context() };
    one(&find_by(&[look(0, &[&p, &r])], &counted), Code::UnprotectedWrites);
    let ahead = Seen { clock_ahead_usec: Some(90_000_000), ..r.clone() };
    assert!(only(&find(&[&p, &ahead]), Code::ClockOfReplica).evidence.contains("90 s ahead of"));
    none(&find(&[&p, &Seen { clock_ahead_usec: Some(-400_000), ..r.clone() }]));
    // What was read from an answer that took long is known no better, however quick another one was.
    let clock_took = Some(Duration::from_secs(3));
    none(&find(&[&p, &Seen { clock_ahead_usec: Some(2_500_000), clock_took, ..r.clone() }]));
    let (clock_took, latency) = (Some(Duration::from_millis(9)), Some(Duration::from_secs(3)));
    one(
        &find(&[&p, &Seen { clock_ahead_usec: Some(2_500_000), clock_took, latency, ..r }]),
        Code::ClockOfReplica,
    );
}

#[test]
fn versions_that_do_not_fit_are_told() {
    let of = |theirs: &str, ours: &str| {
        find(&[&primary(&[("redis_version", ours)]), &replica(&[("redis_version", theirs)])])
    };
    none(&of("7.0.12", "7.0.15"));
    none(&of("7.2.4", "7.0.15"));
    assert_eq!(only(&of("6.2.14", "7.0.15"), Code::VersionSkew).severity, Severity::Warning);
    assert_eq!(only(&of("7.0.15", "7.2.4"), Code::VersionSkew).severity, Severity::Warning);
    assert_eq!(only(&of("8.0.1", "7.0.15"), Code::VersionSkew).severity, Severity::Info, "on the way");
}

#[test]
fn who_is_missing_is_named() {
    let gone = Seen {
        node: R.to_owned(),
        problem: Some(Problem::Connect("Connection refused".into())),
        ..Seen::default()
    };
    let found = find(&[&primary(&[]), &gone]);
    let missing = one(&found, Code::ReplicasMissing);
    assert_eq!((missing.severity, missing.node.as_str()), (Severity::Warning, P));
    assert!(
        missing.evidence.contains("connected_slaves:1") && missing.evidence.contains(R),
        "{}",
        missing.evidence
    );
    one(&found, Code::Unreachable);
}

#[test]
fn a_sentinel_that_names_somebody_else_is_stale() {
    let of = |second, names: &str, epoch| {
        let sentinel = SentinelSeen {
            sentinel: "s:26379".to_owned(),
            problem: None,
            epoch: Some(epoch),
            names: Some(names.to_owned()),
        };
        let newest = SentinelSeen {
            sentinel: "t:26379".to_owned(),
            epoch: Some(7),
            names: Some(P.to_owned()),
            problem: None,
        };
        Look { sentinels: vec![sentinel, newest], ..look(second, &[&primary(&[]), &replica(&[])]) }
    };
    none(&find_by(&[of(0, P, 7)], &context()));
    let found = find_by(&[of(0, R, 3), of(5, R, 3)], &context());
    let stale = only(&found, Code::StaleSentinel);
    assert!(stale.node == "s:26379" && stale.evidence.contains("config-epoch 3"), "{stale:?}");
    none(&find_by(&[of(0, P, 7), of(5, R, 3)], &context()));
    let mut dead = of(0, P, 7);
    dead.sentinels[0] =
        SentinelSeen { problem: Some("refused".to_owned()), names: None, ..dead.sentinels[0].clone() };
    assert_eq!(only(&find_by(&[dead], &context()), Code::Unreachable).node, "s:26379");
}

#[test]
fn an_address_of_many_is_told() {
    let own = field(REPLICA, "run_id");
    let with =
        |other: &str| find(&[&primary(&[]), &Seen { other_process: Some(other.to_owned()), ..replica(&[]) }]);
    none(&with(&own));
    assert_eq!(only(&with("another"), Code::ReaderEndpoint).severity, Severity::Warning);
    let found = find(&[&Seen { other_process: Some("another".to_owned()), ..primary(&[]) }, &replica(&[])]);
    assert_eq!(only(&found, Code::ReaderEndpoint).severity, Severity::Error);
}

#[test]
fn what_is_denied_again_and_again_is_told_without_its_keys() {
    let denial = |reason: &str, count, ago: u64| Denial {
        ago: Duration::from_secs(ago),
        count,
        reason: reason.to_owned(),
        user: "app".to_owned(),
        object: "customer:4711".to_owned(),
    };
    let of = |denials: Vec<Denial>| find(&[&Seen { denials, ..primary(&[]) }, &replica(&[])]);
    let found = of(vec![denial("key", 120, 3)]);
    let finding = only(&found, Code::DeniedCommand);
    assert!(finding.evidence.contains("user app was denied a key 120 times, last 3.0 s ago"), "{finding:?}");
    assert!(!finding.evidence.contains("4711") && !finding.remedy.contains("4711"), "{finding:?}");
    // What the doctor itself may not ask is told elsewhere.
    let own = |object: &str| Denial {
        user: "default".to_owned(),
        object: object.to_owned(),
        ..denial("command", 9, 3)
    };
    none(&of(vec![own("slowlog|get"), own("acl")]));
    assert_eq!(only(&of(vec![own("psync")]), Code::DeniedCommand).severity, Severity::Warning);
    none(&of(vec![denial("key", 2, 3), denial("key", 120, 300), denial("auth", 120, 3)]));
    let refused =
        |count, second| Look { denied: Some(count), ..look(second, &[&primary(&[]), &replica(&[])]) };
    assert_eq!(
        only(&find_by(&[refused(10, 0), refused(50, 5)], &context()), Code::DeniedCommand).node,
        "redweir"
    );
    none(&find_by(&[refused(10, 0), refused(11, 5)], &context()));
}

#[test]
fn every_code_has_a_name_of_its_own() {
    let mut names: Vec<&str> = Code::ALL.iter().map(|code| code.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Code::ALL.len());
    assert!(Code::ALL.windows(2).all(|pair| pair[0] < pair[1]), "all, in their order");
}
