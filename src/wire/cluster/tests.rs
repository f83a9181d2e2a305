//! Tests of what a node answers about its cluster, with what real ones have answered.

use crate::core::slots::HASH_SLOTS;
use proptest::prelude::*;

use super::*;

/// Redis 7.0.15: slot 93 is about to move to the next node, 77 as well.
const SOURCE: &str = "\
04d26595f1a6920640e8c3dc70f1289b76efe056 127.0.0.1:27311@37311 master - 0 1796007688653 2 connected 5461-10922
d6171ace2649824b2eec55191c15ed58c1e352a8 127.0.0.1:27312@37312 master - 0 1796007688148 3 connected 10923-16383
866ed5ea013e7c18fab58d67f2270f5cf064180f 127.0.0.1:27310@37310 myself,master - 0 1796007687000 1 connected 0-5460 [77->-04d26595f1a6920640e8c3dc70f1289b76efe056] [93->-04d26595f1a6920640e8c3dc70f1289b76efe056]
6e2ac57777227050cfd25d76b0663c79b7b4736f 127.0.0.1:27313@37313 slave 866ed5ea013e7c18fab58d67f2270f5cf064180f 0 1796007688050 1 connected
";

/// The next node at the same time.
const TARGET: &str = "\
04d26595f1a6920640e8c3dc70f1289b76efe056 127.0.0.1:27311@37311 myself,master - 0 1796007687000 2 connected 5461-10922 [93-<-866ed5ea013e7c18fab58d67f2270f5cf064180f]
6e2ac57777227050cfd25d76b0663c79b7b4736f 127.0.0.1:27313@37313 slave 866ed5ea013e7c18fab58d67f2270f5cf064180f 0 1796007688101 1 connected
d6171ace2649824b2eec55191c15ed58c1e352a8 127.0.0.1:27312@37312 master - 0 1796007688101 3 connected 10923-16383
866ed5ea013e7c18fab58d67f2270f5cf064180f 127.0.0.1:27310@37310 master - 0 1796007687695 1 connected 0-5460
";

/// Later: 93 has moved, of which the source knows by gossip, and shows it as open none the less. Two have names for their hosts, and one was
/// just invited.
const LATER: &str = "\
6e2ac57777227050cfd25d76b0663c79b7b4736f 127.0.0.1:27313@37313 slave 866ed5ea013e7c18fab58d67f2270f5cf064180f 0 1796008023009 1 connected
414f4b1f98abb9efdc58951c14f69a995bb8afcf 127.0.0.1:1@10001 handshake - 0 0 0 disconnected
866ed5ea013e7c18fab58d67f2270f5cf064180f 127.0.0.1:27310@37310 master,fail? - 1796008015004 1796008014000 1 disconnected 0-92 94-5460
04d26595f1a6920640e8c3dc70f1289b76efe056 127.0.0.1:27311@37311,redis-1.example myself,master - 0 1796008022000 4 connected 93 5461-10922
d6171ace2649824b2eec55191c15ed58c1e352a8 127.0.0.1:27312@37312 master,fail? - 1796008015105 1796008014094 3 disconnected 10923-16383
";

/// A replica of Valkey 8.1, which knows what its primary has open.
const REPLICA: &str = "\
40bdb402ab108d15767e05c4b8750f557a6ce538 127.0.0.1:27332@37332 master - 0 1796007688824 3 connected 10923-16383
ba25fe3f032358d0b46996df6fc5cf96f34864dd 127.0.0.1:27331@37331 master - 0 1796007688118 2 connected 5461-10922
efe917cd4d55219b2aef9dd203577d8934ceef6e 127.0.0.1:27333@37333 myself,slave 5667c1db063dee8235ace9905297ed138334b7a4 0 0 1 connected [77->-ba25fe3f032358d0b46996df6fc5cf96f34864dd] [93->-ba25fe3f032358d0b46996df6fc5cf96f34864dd]
5667c1db063dee8235ace9905297ed138334b7a4 127.0.0.1:27330@37330 master - 0 1796007688118 1 connected 0-5460
";

fn name(text: &str) -> NodeName {
    NodeName::parse(text.as_bytes()).unwrap()
}

fn parsed(text: &str) -> NodesReport {
    nodes_of_text(text.as_bytes()).unwrap()
}

fn ranges(line: &NodeLine) -> Vec<String> {
    line.slots.iter().map(ToString::to_string).collect()
}

fn fault(text: &str) -> ClusterError {
    nodes_of_text(text.as_bytes()).unwrap_err()
}

#[test]
fn a_primary_says_what_it_has_and_what_is_open() {
    let report = parsed(SOURCE);
    assert_eq!(report.lines.len(), 4);
    let mine = report.myself().unwrap();
    assert_eq!(mine.name, name("866ed5ea013e7c18fab58d67f2270f5cf064180f"));
    assert_eq!(mine.endpoint, Endpoint::At(Address::tcp("127.0.0.1", 27_310)));
    assert_eq!((mine.epoch, mine.linked, mine.is_primary()), (1, true, true));
    assert_eq!(ranges(mine), ["0-5460"]);
    let target = name("04d26595f1a6920640e8c3dc70f1289b76efe056");
    let open: Vec<_> = mine.open.iter().map(|open| (open.slot.number(), open.opening, open.peer)).collect();
    assert_eq!(open, [(77, Opening::Migrating, target), (93, Opening::Migrating, target)]);
    let report = parsed(TARGET);
    let mine = report.myself().unwrap();
    let open: Vec<_> = mine.open.iter().map(|open| (open.slot.number(), open.opening)).collect();
    assert_eq!(open, [(93, Opening::Importing)]);
    assert_eq!(mine.open[0].peer, name("866ed5ea013e7c18fab58d67f2270f5cf064180f"));
    assert_eq!(report.others().count(), 3);
    let replica = report.others().find(|line| line.flags.replica).unwrap();
    assert_eq!(replica.master, Some(mine.open[0].peer));
    assert!(!replica.is_primary() && replica.slots.is_empty());
}

#[test]
fn names_failures_and_invitations_are_told() {
    let report = parsed(LATER);
    let mine = report.myself().unwrap();
    assert_eq!((mine.hostname.as_deref(), mine.epoch), (Some("redis-1.example"), 4));
    assert_eq!(ranges(mine), ["93", "5461-10922"]);
    let invited = &report.lines[1];
    assert!(invited.flags.handshake && !invited.is_primary() && !invited.linked);
    let failing = &report.lines[2];
    assert!(failing.flags.maybe_failed && !failing.flags.failed && failing.flags.primary);
    assert_eq!((failing.ping_sent, failing.pong_received), (1_796_008_015_004, 1_796_008_014_000));
    assert_eq!(ranges(failing), ["0-92", "94-5460"]);
    let mine = parsed(REPLICA);
    let mine = mine.myself().unwrap();
    assert!(mine.flags.replica && mine.open.len() == 2);
}

/// A node alone, with this address, these flags, and this behind it.
fn alone(address: &str, flags: &str, behind: &str) -> String {
    format!("{} {address} {flags} - 0 0 7 connected{behind}\n", "a".repeat(40))
}

#[test]
fn addresses_are_of_many_kinds() {
    let at = |address: &str, flags: &str| {
        let mut report = parsed(&alone(address, flags, ""));
        report.lines.remove(0)
    };
    let endpoint = |address: &str| at(address, "myself,master").endpoint;
    assert_eq!(endpoint("::1:6379@16379"), Endpoint::At(Address::tcp("::1", 6379)));
    assert_eq!(endpoint("10.0.0.1:6379"), Endpoint::At(Address::tcp("10.0.0.1", 6379)));
    assert_eq!(endpoint(":6379@16379"), Endpoint::SameHost(6379), "before it has met anybody");
    assert_eq!(at(":0@0", "myself,master,noaddr").endpoint, Endpoint::Unknown);
    let id = "b".repeat(40);
    let line = at(&format!("10.0.0.1:1@2,redis-1.example,shard-id={id},colour=red"), "myself,master");
    assert_eq!((line.hostname.as_deref(), line.shard_id), (Some("redis-1.example"), Some(name(&id))));
    let line = at(&format!("10.0.0.1:1@2,,shard-id={id}"), "myself,master,nofailover,shiny");
    assert_eq!((line.hostname, line.shard_id), (None, Some(name(&id))));
    assert!(line.flags.no_failover && !line.flags.no_address);
    let two = [alone(":7@8", "master", ""), alone("a:1@2", "myself,master", "")].concat();
    assert_eq!(parsed(&two).lines[0].endpoint, Endpoint::Unknown, "whose host would that be");
}

#[test]
fn what_cannot_be_read_is_no_report() {
    let mine = |behind: &str| alone("a:1@2", "myself,master", behind);
    assert!(nodes_of_text(mine(" 0-5 7 16383").as_bytes()).is_ok());
    assert_eq!(fault(""), ClusterError::NotMyself);
    assert_eq!(fault(&alone("a:1@2", "master", "")), ClusterError::NotMyself);
    assert_eq!(fault(&[mine(""), mine("")].concat()), ClusterError::NotMyself);
    for slots in [" 16384", " 5-4", " 0-16384", " -1", " 007", " x", " 1-2-3", " 0x1"] {
        assert_eq!(fault(&mine(slots)), ClusterError::Lacks("slot"), "{slots}");
    }
    let peer = "b".repeat(40);
    for open in ["[7->-b]", "[7-<-]", "[7]", "[7->-{}", "[16384->-{}]", "[7->>-{}]", "[7->-{}-<-{}]"] {
        let open = format!(" {}", open.replace("{}", &peer));
        assert_eq!(fault(&mine(&open)), ClusterError::Lacks("open slot"), "{open}");
    }
    let whole = mine("");
    let cut: Vec<&str> = whole.trim_end().split(' ').collect();
    let fields =
        ["address", "flags", "master", "ping-sent", "pong-recv", "config-epoch", "link-state"].into_iter();
    for (kept, field) in fields.enumerate() {
        assert_eq!(fault(&cut[..=kept].join(" ")), ClusterError::Lacks(field));
    }
    assert_eq!(fault(&whole.replace(" 7 ", " -7 ")), ClusterError::Lacks("config-epoch"));
    assert_eq!(fault(&whole.replace(" - ", " 12 ")), ClusterError::Lacks("master"));
    for address in ["a", "a:x@1", "a:65536@1", "unix:/a:1@2", "a:1@2,b,shard-id=7"] {
        assert!(matches!(fault(&alone(address, "myself,master", "")), ClusterError::Lacks(_)), "{address}");
    }
    assert_eq!(nodes_of_text(b"\xff\n"), Err(ClusterError::NotText));
    assert_eq!(nodes(&BytesFrame::Integer(1)), Err(ClusterError::NotText));
    assert_eq!(nodes(&BytesFrame::Error("ERR This instance has cluster support disabled".into())), {
        Err(ClusterError::NotText)
    });
}

#[test]
fn sizes_are_bounded() {
    let mine = |behind: &str| alone("a:1@2", "myself,master", behind);
    let other = alone("b:1@2", "master", " 0");
    assert!(nodes_of_text(mine(" 0-16383").as_bytes()).is_ok());
    assert_eq!(fault(&mine(" 0-16383 5")), ClusterError::TooManySlots);
    assert_eq!(fault(&[mine(" 0-16383"), other].concat()), ClusterError::TooManySlots);
    let open = format!(" [7->-{}]", "b".repeat(40)).repeat(usize::from(HASH_SLOTS) + 1);
    assert_eq!(fault(&mine(&open)), ClusterError::TooManySlots);
    let crowd = alone("b:1@2", "slave", "").repeat(MOST_NODES - 1);
    assert_eq!(parsed(&[mine("").as_str(), &crowd].concat()).lines.len(), MOST_NODES);
    assert_eq!(
        fault(&[mine("").as_str(), &crowd, &alone("b:1@2", "slave", "")].concat()),
        ClusterError::TooManyNodes
    );
    let long = format!("a:1@2,{}", "x".repeat(Info::MOST_TEXT + 1));
    assert_eq!(fault(&alone(&long, "myself,master", "")), ClusterError::Lacks("hostname"));
}

#[test]
fn a_node_says_its_name() {
    let answer = |text: &'static str| my_name(&BytesFrame::BulkString(text.into()));
    let told = "04d26595f1a6920640e8c3dc70f1289b76efe056";
    assert_eq!(answer(told), Ok(name(told)));
    assert_eq!(answer("04d2"), Err(ClusterError::Lacks("id")));
    assert_eq!(my_name(&BytesFrame::Null), Err(ClusterError::NotText));
}

proptest! {
    #[test]
    fn whatever_is_read_is_within_its_limits(
        at in 0usize..SOURCE.len(), length in 0usize..40,
        noise in prop::collection::vec(prop::sample::select(b" \n-0159[]<>,:@abcmyself\xff".to_vec()), 0..40),
    ) {
        let source = SOURCE.as_bytes();
        let behind = source.get(at + length..).unwrap_or_default();
        let text = [&source[..at], &noise, behind].concat();
        if let Ok(report) = nodes_of_text(&text) {
            let slots: usize = report.lines.iter().flat_map(|line| &line.slots).map(|range| range.count()).sum();
            prop_assert!(slots <= usize::from(HASH_SLOTS) && report.lines.len() <= MOST_NODES);
            prop_assert!(report.myself().is_some());
        }
        let _ = Redirection::parse(&text);
    }
}
