//! An exhaustive model of `core`: a primary and two replicas, every interleaving of a few writes, anchors, reports,
//! the stream, a full resync and a promotion. In every state, no read may be sent to a replica that lacks what the
//! read's level promises. `tests/simulation.rs` goes far at random; this goes everywhere, but not far.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "the run is timed, and tells what it saw"
)]
#![allow(
    clippy::too_many_lines,
    clippy::type_complexity,
    reason = "every step of the model stands in one list"
)]

#[path = "model/world.rs"]
mod world;

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use redweir::core::policy::Consistency::{Bounded, Fenced, Session, Strong};
use world::{Action, By, Left, Scenario, World, Write};

const NOTHING: Left = Left {
    questions: 0,
    proofs: 0,
    resyncs: 0,
    promotions: 0,
    ticks: 0,
    reads: 0,
    arrivals: 0,
    moves: 0,
    attaches: 0,
};

const fn write(by: By, key: usize) -> Write {
    Write { by, key: Some(key) }
}

const fn write_anything(by: By) -> Write {
    Write { by, key: None }
}

/// Visits every state that can be reached, nearest first, so that a trace to a broken promise is as short as any.
fn explore(scenario: &'static Scenario) {
    let (begun, first) = (Instant::now(), World::new(scenario));
    let mut from: HashMap<u64, Option<(u64, Action)>> = HashMap::from([(first.fingerprint(), None)]);
    let mut queue = VecDeque::from([(first.fingerprint(), first)]);
    let mut served = 0;
    while let Some((at, world)) = queue.pop_front() {
        for action in world.actions() {
            let mut next = world.clone();
            let result = next.step(action);
            let print = next.fingerprint();
            if result.is_ok() && from.contains_key(&print) {
                continue;
            }
            if let Err(broken) = result.and_then(|()| next.check(&mut served)) {
                let mut trace = vec![action];
                let mut state = at;
                while let Some(Some((before, action))) = from.get(&state) {
                    trace.push(*action);
                    state = *before;
                }
                trace.reverse();
                panic!("{}: {broken}\nafter {trace:#?}", scenario.name);
            }
            from.insert(print, Some((at, action)));
            served += std::mem::take(&mut next.served);
            queue.push_back((print, next));
        }
    }
    let (states, took) = (from.len(), begun.elapsed());
    println!("{}: {states} states, {served} reads served by replicas, {took:.1?}", scenario.name);
    assert!(states >= scenario.at_least, "{}: only {states} states", scenario.name);
    assert!(served > 0, "{}: no replica served anything", scenario.name);
}

static FENCES: Scenario = Scenario {
    name: "fences",
    writes: &[write(By::Other, 0), write(By::Direct, 0), write_anything(By::Reader)],
    left: Left { questions: 2, ..NOTHING },
    before: &[],
    source: Some(0),
    fine: false,
    split: false,
    own: false,
    probes: &[Session, Fenced],
    arriving: &[],
    replicas: &[1],
    at_least: 30_000,
};

static BARRIERS: Scenario = Scenario {
    name: "barriers",
    writes: &[write(By::Direct, 0), write_anything(By::Direct)],
    left: Left { questions: 2, arrivals: 1, ..NOTHING },
    probes: &[],
    arriving: &[Strong],
    ..FENCES
};

static AGES: Scenario = Scenario {
    name: "ages",
    writes: &[write(By::Direct, 0), write(By::Other, 1)],
    left: Left { questions: 2, ticks: 3, ..NOTHING },
    source: None,
    probes: &[Bounded],
    ..FENCES
};

static SESSIONS: Scenario = Scenario {
    name: "sessions",
    writes: &[write(By::Reader, 0), write(By::Direct, 0)],
    left: Left { questions: 1, reads: 2, moves: 1, ..NOTHING },
    source: None,
    probes: &[],
    replicas: &[1, 2],
    ..FENCES
};

/// The session counts what it has written and seen itself, and at its level looks at no fences.
static OWN: Scenario = Scenario { name: "own", own: true, ..SESSIONS };

/// … beside fences, and a stream.
static OWN_FENCES: Scenario = Scenario {
    name: "own, with fences",
    writes: &[write(By::Reader, 0), write(By::Other, 0), write_anything(By::Reader)],
    left: Left { questions: 1, ..NOTHING },
    own: true,
    at_least: 10_000,
    ..FENCES
};

/// … across a failover to a replica that is behind the other, or ahead of it.
static OWN_AHEAD: Scenario = Scenario {
    name: "own, ahead",
    writes: &[write(By::Reader, 1), write(By::Reader, 0)],
    own: true,
    probes: &[Session],
    at_least: 1_000,
    ..AHEAD
};

static OWN_BEHIND: Scenario = Scenario {
    name: "own, behind",
    before: &[Action::Execute(0), Action::Apply(1), Action::Promote(1)],
    ..OWN_AHEAD
};

/// The other replica is ahead of the one that was promoted: it has to begin anew.
static AHEAD: Scenario = Scenario {
    name: "ahead",
    writes: &[write(By::Other, 1), write(By::Direct, 0)],
    left: Left { questions: 3, promotions: 1, attaches: 1, ..NOTHING },
    before: &[Action::Execute(0), Action::Apply(2), Action::Promote(1)],
    source: Some(1),
    probes: &[Fenced],
    replicas: &[1, 2],
    ..FENCES
};

/// The other replica is behind it: it goes on.
static BEHIND: Scenario =
    Scenario { name: "behind", before: &[Action::Execute(0), Action::Apply(1), Action::Promote(1)], ..AHEAD };

/// The old primary answers on until it is told.
static SPLIT: Scenario = Scenario {
    name: "split",
    before: &[Action::Execute(0), Action::Apply(1), Action::Apply(2), Action::Promote(1)],
    left: Left { questions: 2, ..AHEAD.left },
    split: true,
    at_least: 10_000,
    ..AHEAD
};

#[test]
fn an_anchor_of_the_old_primary_settles_nothing_for_the_new_one() {
    explore(&SPLIT);
}

#[test]
fn every_write_that_is_known_is_fenced() {
    explore(&FENCES);
}

#[test]
fn a_strong_read_finds_what_was_acknowledged_before_it_arrived() {
    explore(&BARRIERS);
}

#[test]
fn a_bounded_read_is_as_young_as_it_must_be() {
    explore(&AGES);
}

#[test]
fn a_session_never_goes_back() {
    explore(&SESSIONS);
}

#[test]
fn a_session_that_counts_its_own_writes_finds_them_and_never_goes_back() {
    explore(&OWN);
    explore(&OWN_AHEAD);
    explore(&OWN_BEHIND);
}

/// The old primary answers on until it is told, and so may settle what was acknowledged by the new one.
static OWN_SPLIT: Scenario = Scenario {
    name: "own, split",
    writes: &[write(By::Reader, 1), write(By::Reader, 0)],
    own: true,
    probes: &[Session],
    at_least: 1_000,
    ..SPLIT
};

#[test]
fn an_anchor_of_the_old_primary_settles_nothing_for_a_session() {
    explore(&OWN_SPLIT);
}

#[test]
fn fences_hold_beside_sessions_that_count_their_own() {
    explore(&OWN_FENCES);
}

#[test]
fn a_failover_hides_nothing_that_it_has_not_lost() {
    explore(&AHEAD);
    explore(&BEHIND);
}

/// The stream told of a write in the new primary's numbers, while the view still went by the old one's, of which the
/// other replica had applied a lost suffix past them.
#[test]
fn a_stream_ahead_of_the_view_is_not_measured_by_it() {
    let mut world = World::new(&AHEAD);
    for action in [Action::Execute(1), Action::Attach(1), Action::Tell] {
        assert!(world.actions().contains(&action), "{action:?} cannot happen");
        world.step(action).and_then(|()| world.check(&mut 0)).unwrap_or_else(|broken| panic!("{broken}"));
    }
}
