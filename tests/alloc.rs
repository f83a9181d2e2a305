//! The hot path allocates nothing per command once it is warm: not the scanners, not the command table, not the
//! fences, not the decision. Each test runs its part 10,000 times under an allocator that counts.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use redweir::core::address::Address;
use redweir::core::command::{CommandTable, Keys};
use redweir::core::fence::{AnchorCounter, FenceTable, Mark};
use redweir::core::moment::Moment;
use redweir::core::nodes::lag::Anchor;
use redweir::core::nodes::node::{Facts, Link, NodeId, Role};
use redweir::core::nodes::view::{Observation, Patience, Tracker, View};
use redweir::core::nodes::zones::Zones;
use redweir::core::policy::{Consistency, Policies, Policy, PolicyId, WhenBehind};
use redweir::core::position::{History, Offset, ReplId};
use redweir::core::reason::Reason;
use redweir::core::route::{Ask, Decision, Demand, decide};
use redweir::core::session::{Session, Stamps};
use redweir::wire::reply::ReplyScanner;
use redweir::wire::request::{RequestLimits, RequestScanner, Scan};

const WARM_UP: usize = 100;
const COMMANDS: usize = 10_000;

/// Runs `command` until it is warm, then counts what 10,000 more of it allocate.
fn allocates_nothing(what: &str, mut command: impl FnMut(usize)) {
    (0..WARM_UP).for_each(&mut command);
    let counted = allocation_counter::measure(|| (0..COMMANDS).for_each(&mut command));
    assert_eq!((counted.count_total, counted.bytes_total), (0, 0), "{what}");
}

fn command(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n{word}\r\n", word.len()).into_bytes());
    }
    bytes
}

fn commands() -> Vec<Vec<u8>> {
    let value = "v".repeat(4096);
    vec![
        command(&["GET", "key:1"]),
        command(&["sEt", "key:1", &value, "EX", "10"]),
        command(&["MSET", "a", "1", "b", "2", "c", "3"]),
        command(&["CONFIG", "GET", "maxmemory"]),
        command(&["EVAL", "return 1", "2", "a", "b", "c"]),
        command(&["SORT", "list", "BY", "nosort", "STORE", "other"]),
        command(&["XREAD", "COUNT", "2", "STREAMS", "s", "t", "0", "0"]),
        command(&["no.such.command", "x"]),
        b"get key:1\r\n".to_vec(),
        b"set \"key 1\" 'value'\r\n".to_vec(),
    ]
}

#[test]
fn the_allocator_does_count() {
    assert_eq!(allocation_counter::measure(|| drop(black_box(vec![1_u8]))).count_total, 1);
}

#[test]
fn requests_are_scanned_and_encoded() {
    let (mut scanner, mut out) =
        (RequestScanner::new(RequestLimits::DEFAULT), BytesMut::with_capacity(64 << 10));
    let commands = commands();
    allocates_nothing("requests", |n| {
        let bytes = &commands[n % commands.len()];
        let split = n % bytes.len();
        assert_eq!(scanner.scan(&bytes[..split]), Ok(Scan::Need));
        let Ok(Scan::Command { len, .. }) = scanner.scan(bytes) else { panic!("command {n}") };
        assert_eq!(len, bytes.len());
        out.clear();
        scanner.request(bytes).encode_into(&mut out);
        assert!(out.len() + 2 >= len);
    });
}

#[test]
fn replies_are_scanned() {
    let bulk = format!("$4096\r\n{}\r\n", "v".repeat(4096));
    let nested = format!("*3\r\n:1\r\n%1\r\n+k\r\n*2\r\n{bulk}_\r\n~2\r\n#t\r\n,3.14\r\n");
    let replies = ["+OK\r\n", ":42\r\n", "-ERR no\r\n", "$-1\r\n", "*0\r\n", &bulk, &nested];
    let mut scanner = ReplyScanner::new();
    allocates_nothing("replies", |n| {
        let bytes = replies[n % replies.len()].as_bytes();
        let (first, rest) = bytes.split_at(n % bytes.len());
        assert_eq!(scanner.scan(first), Ok(None));
        assert_eq!(scanner.scan(rest).unwrap().unwrap().end, rest.len());
    });
}

#[test]
fn commands_are_classified_and_their_keys_told() {
    let (table, commands) = (CommandTable::builtin(), commands());
    let mut scanner = RequestScanner::new(RequestLimits::DEFAULT);
    let (mut keys, mut known) = (0_usize, 0_usize);
    allocates_nothing("classification", |n| {
        let bytes = &commands[n % commands.len()];
        scanner.scan(bytes).unwrap();
        let request = scanner.request(bytes);
        let intent = table.classify(&request);
        let told = table.for_each_key(intent.id, &request, &mut |key| keys += key.len());
        known += usize::from(matches!(told, Keys::Known { count: 1.. }));
        table.for_each_written_key(intent.id, &request, &mut |key| keys += key.len());
        black_box(table.name(intent.id));
    });
    assert!(keys > 0 && known > COMMANDS / 2);
}

#[test]
fn fences_are_stamped_settled_and_read() {
    let (table, anchors) = (FenceTable::new(1 << 16, [1, 2, 3, 4]), AnchorCounter::default());
    table.restart(|| anchors.next());
    let mut session = Session::default();
    allocates_nothing("fences", |n| {
        let offset = Offset::new(n as u64 * 10);
        let slot = table.slot(format_key(n, &mut [0; 8]));
        let stamps = Stamps::One(slot);
        session.sent(n as u64, &stamps, n as u64);
        assert!(session.is_writing(slot));
        table.stamp_pending(slot, anchors.next());
        session.forget(n as u64 + 1);
        table.settle(slot, anchors.take(), offset);
        assert!(matches!(table.load(slot), Mark::At(_)));
        table.stamp(slot, offset.advanced(5), anchors.next());
        table.raise_floor(anchors.next());
        table.settle_floor(anchors.take(), offset.advanced(5));
        table.lower_floor(offset.advanced(5), offset);
        assert_eq!(table.floor(), Mark::At(offset));
    });
}

/// A key of its own for each of 1,000 numbers.
fn format_key(n: usize, buffer: &mut [u8; 8]) -> &[u8] {
    *buffer = (n as u64 % 1000).to_be_bytes();
    buffer
}

const ASKED: Moment = Moment::from_millis(1000);
const NOW: Moment = Moment::from_millis(1100);

/// A primary and replicas that are proven up to offset 1000.
fn view(replicas: u16, policies: Policies) -> View {
    let addresses = (0..=replicas).map(|n| Address::tcp(&format!("n{n}"), 1)).collect();
    let limits = Patience { silence: Duration::from_secs(1), hold: Duration::from_secs(2) };
    let mut tracker = Tracker::new(addresses, Some(NodeId(0)), policies, limits);
    let (anchors, offset) = (AnchorCounter::default(), Offset::new(1000));
    let history = Some(History::new(ReplId::parse(&[b'a'; 40]).unwrap()));
    for _ in 0..4 {
        for node in (0..=u32::from(replicas)).map(NodeId) {
            let primary = node == NodeId(0);
            let role = Some(if primary { Role::Primary } else { Role::Replica });
            let master = ("n0".to_owned(), 6379);
            let link = Link::Up;
            let seq = anchors.take();
            let facts = Box::new(Facts { role, history, ..Facts::default() });
            let _ = tracker.apply(Observation::Info { node, facts }, ASKED);
            let heard = if primary {
                Observation::Primary { node, seq, sent_at: ASKED, offset }
            } else {
                Observation::Replica { node, link, master, applied: Some(offset) }
            };
            let _ = tracker.apply(heard, ASKED);
        }
    }
    assert_eq!(tracker.view().head, Some(Anchor { sent_at: ASKED, offset }));
    tracker.view().clone()
}

#[test]
fn reads_are_routed() {
    let policy = |consistency| Policy { consistency, when_behind: WhenBehind::Wait, ..Policy::default() };
    let policies = Policies { all: Consistency::ALL.map(policy).to_vec(), ..Policies::default() };
    let mut view = view(16, policies.clone());
    let of_nodes = (3..9).map(|n| (Address::tcp(&format!("n{n}"), 1), "a".to_owned())).collect();
    let zones = Zones { own: Some("a".to_owned()), of_nodes, limit: 6 };
    for zones in [Zones::default(), zones] {
        view.zones = Arc::new(zones);
        routes(&view, &policies);
    }
}

fn routes(view: &View, policies: &Policies) {
    let load: Vec<u32> = (0..17).collect();
    let demands = [
        Demand::Nothing,
        Demand::Applied(Offset::new(900), Reason::BelowFence),
        Demand::Applied(Offset::new(1001), Reason::BelowFence),
        Demand::Unknown(Reason::FencePending),
    ];
    let mut by_replicas = 0_usize;
    allocates_nothing("decisions", |n| {
        let policy_id = PolicyId((n % policies.all.len()) as u32);
        let decision = decide(&Ask {
            view,
            policy: &policies.all[policy_id.index()],
            policy_id,
            demand: demands[n % demands.len()],
            sticky: (n % 3 == 0).then_some(NodeId(5)),
            load: &load,
            in_flight: &load,
            proven: &[],
            in_doubt: &[],
            barred: &[],
            may_try: &[],
            now: NOW,
            tie: (n as u32).wrapping_mul(0x9e37_79b9),
            waited: n % 7 == 0,
            avoid: (n % 5 == 0).then_some(NodeId(5)),
        });
        by_replicas += usize::from(matches!(decision, Decision::Send { reason: Reason::Fresh, .. }));
    });
    assert_eq!(by_replicas * 2, WARM_UP + COMMANDS, "half of the demands can be met");
}
