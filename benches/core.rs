//! What one command costs in `core`: the ladder with few and many replicas, the fence table, the command table.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use redweir::core::address::Address;
use redweir::core::command::CommandTable;
use redweir::core::fence::{AnchorCounter, AnchorSeq, FenceTable};
use redweir::core::moment::Moment;
use redweir::core::nodes::node::{Facts, Link, NodeId, Role};
use redweir::core::nodes::view::{Observation, Patience, Tracker};
use redweir::core::policy::{Consistency, Policies, Policy, PolicyId};
use redweir::core::position::{History, Offset, ReplId};
use redweir::core::reason::Reason;
use redweir::core::route::{Ask, Decision, Demand, decide};

const PRIMARY: NodeId = NodeId(0);
const NOW: Moment = Moment::from_millis(1_050);
/// What the primary has, and what its replicas have applied.
const HEAD: Offset = Offset::new(100_000);
const APPLIED: Offset = Offset::new(99_000);
/// The fence table is looked up with as many keys, so that it is not always the same slot.
const KEYS: usize = 1024;

/// A primary and its replicas, as the prober would have told of them a moment ago.
fn tracker(replicas: u16, policies: &Policies) -> Tracker {
    let addresses = (0..=replicas).map(|n| Address::tcp("127.0.0.1", 6379 + n)).collect();
    let limits = Patience { silence: Duration::from_secs(1), hold: Duration::from_secs(2) };
    let mut tracker = Tracker::new(addresses, Some(PRIMARY), policies.clone(), limits);
    let history = History::new(ReplId::parse(&[b'a'; 40]).expect("forty digits"));
    let master = ("127.0.0.1".to_owned(), 6379);
    for (index, offset) in [APPLIED, HEAD].into_iter().enumerate() {
        let at = Moment::from_millis(1_000 + index as u64);
        let facts = Facts { role: Some(Role::Primary), history: Some(history), ..Facts::default() };
        let _ = tracker.apply(Observation::Info { node: PRIMARY, facts: Box::new(facts) }, at);
        let seq = AnchorSeq(index as u64 + 1);
        let _ = tracker.apply(Observation::Primary { node: PRIMARY, seq, sent_at: at, offset }, at);
        for node in (1..=u32::from(replicas)).map(NodeId) {
            let facts = Facts {
                role: Some(Role::Replica),
                master: Some(master.clone()),
                history: Some(history),
                ..Facts::default()
            };
            let _ = tracker.apply(Observation::Info { node, facts: Box::new(facts) }, at);
            let (link, master) = (Link::Up, master.clone());
            let _ = tracker.apply(Observation::Replica { node, link, master, applied: Some(APPLIED) }, at);
        }
    }
    tracker
}

fn ladder(criterion: &mut Criterion) {
    let of = |consistency| Policy { consistency, ..Policy::default() };
    let policies =
        Policies { all: vec![of(Consistency::Eventual), of(Consistency::Fenced)], ..Policies::default() };
    let mut group = criterion.benchmark_group("decide");
    for replicas in [2, 8] {
        let tracker = tracker(replicas, &policies);
        let view = tracker.view();
        let load = vec![3; view.nodes.len()];
        let ask = |policy: u32, demand| Ask {
            view,
            policy: &policies.all[policy as usize],
            policy_id: PolicyId(policy),
            demand,
            sticky: None,
            load: &load,
            in_flight: &[],
            proven: &[],
            in_doubt: &[],
            barred: &[],
            may_try: &[],
            now: NOW,
            tie: 0x1234_5678,
            waited: false,
            avoid: None,
        };
        let fence = |offset| Demand::Applied(offset, Reason::BelowFence);
        let sticky = Ask { sticky: Some(NodeId(1)), ..ask(1, fence(APPLIED)) };
        for (name, ask, by_replica) in [
            ("eventual", ask(0, Demand::Nothing), true),
            ("fenced_no_fence", ask(1, Demand::Nothing), true),
            ("fenced_applied", ask(1, fence(APPLIED)), true),
            ("fenced_applied_sticky", sticky, true),
            ("fenced_none_eligible", ask(1, fence(HEAD)), false),
        ] {
            let decision = decide(&ask);
            assert!(
                matches!(decision, Decision::Send { node, .. } if (node != PRIMARY) == by_replica),
                "{name}: {decision:?}"
            );
            group.bench_function(format!("{replicas}_replicas/{name}"), |bench| {
                bench.iter(|| decide(black_box(&ask)));
            });
        }
    }
    group.finish();
}

fn fences(criterion: &mut Criterion) {
    let table = FenceTable::new(1 << 20, [1, 2, 3, 4]);
    let anchors = AnchorCounter::default();
    let keys: Vec<String> = (0..KEYS).map(|n| format!("key:{n:012}")).collect();
    let mut turn = 0_usize;
    let mut key = || {
        turn = (turn + 1) % KEYS;
        keys[turn].as_bytes()
    };
    let mut group = criterion.benchmark_group("fence");
    group.bench_function("slot", |bench| bench.iter(|| table.slot(black_box(key()))));
    group.bench_function("slot_load", |bench| bench.iter(|| table.load(table.slot(black_box(key())))));
    let mut end = 0;
    let least = Some(APPLIED);
    group.bench_function("slot_mark", |bench| {
        bench.iter(|| table.mark(table.slot(black_box(key())), None, least));
    });
    group.bench_function("slot_stamp", |bench| {
        bench.iter(|| {
            end += 1;
            table.stamp(table.slot(black_box(key())), Offset::new(end), anchors.next());
        });
    });
    group.bench_function("slot_stamp_pending", |bench| {
        bench.iter(|| table.stamp_pending(table.slot(black_box(key())), anchors.next()));
    });
    group.finish();
}

fn commands(criterion: &mut Criterion) {
    let table = CommandTable::builtin();
    let mget: Vec<String> = (0..10).map(|n| format!("key:{n:012}")).collect();
    let mget: Vec<&str> = ["MGET"].into_iter().chain(mget.iter().map(String::as_str)).collect();
    let mut group = criterion.benchmark_group("command");
    for (name, args) in [
        ("get", &["GET", "key:000000012345"][..]),
        ("set", &["SET", "key:000000012345", "value"][..]),
        ("mget_10", &mget[..]),
    ] {
        assert_ne!(table.name(table.classify(args).id), "other");
        group.bench_function(format!("classify/{name}"), |bench| {
            bench.iter(|| table.classify(black_box(args)));
        });
        let id = table.classify(args).id;
        group.bench_function(format!("for_each_key/{name}"), |bench| {
            bench.iter(|| {
                table.for_each_key(id, black_box(args), &mut |key| {
                    black_box(key);
                })
            });
        });
    }
    group.finish();
}

criterion_group!(benches, ladder, fences, commands);
criterion_main!(benches);
