//! Each rung of the ladder.

use std::sync::Arc;

use super::*;
use crate::core::address::Address;
use crate::core::fence::{AnchorSeq, Era};
use crate::core::nodes::election::Claim;
use crate::core::nodes::lag::Growth;
use crate::core::nodes::node::{Facts, Node};

const NOW: Moment = Moment::from_millis(1_000);

fn words(line: &str) -> Vec<&[u8]> {
    line.split(' ').map(str::as_bytes).collect()
}

/// A primary and a replica, of which each is a process.
fn nodes() -> View {
    let node = |n: u32, digits: &str| {
        let mut node = Node::new(NodeId(n), Address::tcp(&format!("n{n}"), 1), 0);
        node.facts = Some(Facts { run_id: Some(digits.repeat(10)), ..Facts::default() });
        node
    };
    View {
        nodes: vec![node(0, "aaaa"), node(1, "bbbb")],
        primary: Some(NodeId(0)),
        claim: Claim::First,
        two_primaries: false,
        history: None,
        era: Era(0),
        head: None,
        anchor: AnchorSeq(0),
        growth: Growth::default(),
        stream: None,
        least_applied: None,
        rights: Arc::default(),
        policies: Arc::default(),
        zones: Arc::default(),
        silence_limit: Duration::from_secs(1),
        hold: Duration::from_secs(2),
    }
}

fn planned_at(line: &str, situation: Situation, level: Consistency, view: &View) -> Plan {
    let deny = ["shutdown", "config|set"].map(str::to_owned);
    let commands = Commands::builtin(&deny);
    let args = words(line);
    let intent = commands.table.classify(args.as_slice());
    plan(args.as_slice(), intent, &commands, situation, (view, NOW), || level)
}

fn planned_in(line: &str, situation: Situation) -> Plan {
    planned_at(line, situation, Consistency::Fenced, &nodes())
}

fn planned(line: &str) -> Plan {
    planned_in(line, Situation::default())
}

fn assert_all(situation: Situation, expected: Plan, lines: &[&str]) {
    for line in lines {
        assert_eq!(planned_in(line, situation), expected, "{line} in {situation:?}");
    }
}

#[test]
fn a_browser_is_not_listened_to() {
    let situation = Situation { cross_protocol: true, ..Situation::default() };
    assert_all(situation, Plan::Refuse(Reason::CrossProtocol), &["POST / HTTP/1.1", "Host: x"]);
    assert_all(situation, Plan::Read, &["GET post"]);
}

#[test]
fn who_is_shut_out_may_only_log_in() {
    let as_a = |admittance| Situation { admittance, ..Situation::default() };
    let of_guests = ["AUTH x", "HELLO 3", "QUIT", "RESET"];
    let refused = Plan::Refuse(Reason::Unauthenticated);
    assert_all(
        as_a(Admittance::Refused),
        refused,
        &["GET k", "SET k v", "GET", "SHUTDOWN", "NOSUCH", "REDWEIR VIEW"],
    );
    let down = Plan::Refuse(Reason::PrimaryDown);
    assert_all(as_a(Admittance::Unknown), down, &["GET k", "SET k v", "REDWEIR VIEW"]);
    assert_all(as_a(Admittance::Guest), down, &["SET k v", "SCAN 0", "SUBSCRIBE c", "EVAL s 0", "SHUTDOWN"]);
    assert_all(as_a(Admittance::Guest), Plan::Read, &["GET k", "EVAL_RO s 0", "DBSIZE"]);
    assert_all(as_a(Admittance::Guest), Plan::Answer, &["REDWEIR VIEW", "INFO redweir"]);
    for admittance in [Admittance::Admitted, Admittance::Guest, Admittance::Refused, Admittance::Unknown] {
        assert_all(as_a(admittance), Plan::Answer, &of_guests);
    }
}

#[test]
fn what_deny_commands_names_is_refused_whatever_else_is_wrong_with_it() {
    let denied = ["SHUTDOWN", "shutdown now", "SHUTDOWN a b c d e f", "CONFIG SET a b", "CONFIG SET"];
    for hold in [Hold::Nothing, Hold::State, Hold::Transaction, Hold::Relay] {
        let situation = Situation { hold, ..Situation::default() };
        assert_all(situation, Plan::Refuse(Reason::DeniedCommand), &denied);
    }
    assert_eq!(planned("CONFIG GET x"), Plan::Primary(Reason::PrimaryOnly));
}

#[test]
fn redweir_answers_what_is_about_the_connection() {
    let lines = [
        "SELECT 1",
        "WAIT 1 0",
        "HELLO",
        "REDWEIR",
        "REDWEIR HELP",
        "INFO redweir",
        "CLIENT ID",
        "CLIENT LIST",
        "CLIENT SETNAME",
        "CLIENT KILL",
        "CLIENT UNBLOCK 1",
        "CLIENT REPLY ON",
        "CLIENT REPLY nonsense",
        "CLIENT REPLY",
    ];
    assert_all(Situation::default(), Plan::Answer, &lines);
    let of_the_primary =
        ["INFO", "INFO server", "CLIENT PAUSE 1", "CLIENT HELP", "CLIENT NOSUCH", "CLIENT GETREDIR"];
    assert_all(Situation::default(), Plan::Primary(Reason::PrimaryOnly), &of_the_primary);
    assert_all(
        Situation::default(),
        Plan::Primary(Reason::Malformed),
        &["CLIENT PAUSE", "CLIENT", "CLIENT UNBLOCK"],
    );
}

#[test]
fn what_a_connection_holds_goes_on_where_it_is() {
    let pinned = Plan::Primary(Reason::Pinned);
    let lines =
        ["MULTI", "WATCH k", "BLPOP k 0", "BLPOP", "SUBSCRIBE c", "MONITOR", "XREAD BLOCK 0 STREAMS s $"];
    assert_all(Situation::default(), pinned, &lines);
    assert_all(Situation::default(), pinned, &["CLIENT REPLY OFF", "CLIENT TRACKING ON", "SCRIPT DEBUG YES"]);
    let holds = |hold| Situation { hold, ..Situation::default() };
    let ordinary = ["GET k", "GET", "SET k v", "NOSUCH", "SCAN 0", "EVAL s 0", "INFO", "SELECT 1"];
    for hold in [Hold::State, Hold::Transaction, Hold::Relay] {
        assert_all(holds(hold), pinned, &ordinary);
        assert_all(holds(hold), Plan::Answer, &["REDWEIR EXPLAIN GET k", "RESET"]);
    }
    assert_all(holds(Hold::State), Plan::Answer, &["CLIENT ID", "CLIENT REPLY ON", "QUIT"]);
    assert_all(holds(Hold::State), Plan::Primary(Reason::Malformed), &["CLIENT UNBLOCK"]);
    assert_all(holds(Hold::Transaction), pinned, &["CLIENT ID", "CLIENT REPLY ON"]);
    assert_all(holds(Hold::Transaction), Plan::Answer, &["QUIT", "CLIENT REPLY OFF"]);
    assert_all(holds(Hold::Relay), pinned, &["QUIT", "RESET now", "CLIENT ID"]);
    for hold in [Hold::State, Hold::Transaction, Hold::Relay] {
        let somebody = Situation { other_user: true, ..holds(hold) };
        assert_all(
            somebody,
            pinned,
            &["CLIENT ID", "CLIENT LIST", "REDWEIR VIEW", "INFO redweir", "WAIT 0 0"],
        );
        assert_all(somebody, Plan::Answer, &["RESET"]);
    }
    let oversized = Situation { oversized: true, ..Situation::default() };
    assert_all(oversized, pinned, &["SET k v", "GET k"]);
    assert_all(oversized, Plan::Answer, &["AUTH x", "INFO x", "REDWEIR VIEW"]);
}

#[test]
fn what_is_malformed_is_the_primary_s_to_refuse() {
    let lines = [
        "GET",
        "GET k x",
        "SET k",
        "DBSIZE x",
        "OBJECT",
        "DUMP",
        "EVAL s",
        "EVAL_RO",
        "CONFIG GET",
        "SCAN",
        "SCAN x",
        "HSCAN k",
    ];
    assert_all(Situation::default(), Plan::Primary(Reason::Malformed), &lines);
    // Without a primary a replica says it of a read.
    let headless = View { primary: None, ..nodes() };
    assert_eq!(planned_at("GET", Situation::default(), Consistency::Fenced, &headless), Plan::Read);
    let write = planned_at("SET k", Situation::default(), Consistency::Fenced, &headless);
    assert_eq!(write, Plan::Primary(Reason::Malformed));
}

#[test]
fn a_scan_goes_on_where_it_began() {
    let begins = |level| planned_at("SCAN 0", Situation::default(), level, &nodes());
    assert_eq!((begins(Consistency::Eventual), begins(Consistency::Bounded)), (Plan::Read, Plan::Read));
    for level in [Consistency::Session, Consistency::Fenced, Consistency::Strong] {
        assert_eq!(begins(level), Plan::Primary(Reason::Cursor));
    }
    assert_eq!(planned("SSCAN k 17"), Plan::Primary(Reason::Cursor), "of the primary, whichever that is");
    let cursor_of = |digits| Cursor::mark(17, Tag::of(digits).unwrap()).unwrap();
    for (digits, fenced, eventual) in [
        ("aaaa", NextStep::At(NodeId(0)), NextStep::At(NodeId(0))),
        ("bbbb", NextStep::OfReplica, NextStep::At(NodeId(1))),
        ("cccc", NextStep::Gone, NextStep::Gone),
    ] {
        let tag = Tag::of(digits).unwrap();
        assert_eq!(planned(&format!("SCAN {}", cursor_of(digits))), Plan::Continue { tag, own: 17 });
        assert_eq!(next_step(&nodes(), tag, || Consistency::Fenced), fenced);
        assert_eq!(next_step(&nodes(), tag, || Consistency::Eventual), eventual);
    }
}

#[test]
fn the_rest_is_as_the_command_is() {
    assert_all(
        Situation::default(),
        Plan::Read,
        &["GET k", "DBSIZE", "KEYS *", "EVALSHA_RO x 0", "XREAD STREAMS s 0"],
    );
    assert_all(
        Situation::default(),
        Plan::Primary(Reason::Write),
        &["SET k v", "EVAL s 0", "FLUSHALL", "XADD s * a b"],
    );
    let only =
        ["PING", "PUBLISH c m", "TOUCH k", "DUMP k", "OBJECT FREQ k", "SCRIPT LOAD s", "ROLE", "SLOWLOG GET"];
    assert_all(Situation::default(), Plan::Primary(Reason::PrimaryOnly), &only);
    assert_all(Situation::default(), Plan::Primary(Reason::UnknownCommand), &["NOSUCH", "NOSUCH a b"]);
}

#[test]
fn replicas_are_not_told_of_a_pause_or_of_flushed_scripts() {
    let only = Plan::Primary(Reason::PrimaryOnly);
    let paused = Situation { reads_paused: true, ..Situation::default() };
    assert_all(paused, only, &["GET k", "DBSIZE"]);
    assert_eq!(planned_at("SCAN 0", paused, Consistency::Eventual, &nodes()), only);
    assert_all(paused, Plan::Primary(Reason::Write), &["SET k v"]);
    let flushed = Situation { scripts_flushed: true, ..Situation::default() };
    assert_all(flushed, only, &["EVALSHA_RO x 0"]);
    assert_all(flushed, Plan::Read, &["EVAL_RO s 0", "GET k"]);
}

#[test]
fn without_a_primary_a_command_waits_for_the_next_one() {
    let (reason, down) = (Reason::Write, Reason::PrimaryDown);
    let (short, long) = (Duration::from_millis(1), Duration::from_secs(3));
    assert_eq!(to_primary(&nodes(), reason, NOW, long), Decision::Send { node: NodeId(0), reason });
    let between = View { primary: None, ..nodes() };
    assert_eq!(to_primary(&between, reason, NOW, short), Decision::Wait { reason: down });
    assert_eq!(to_primary(&between, reason, NOW, long), Decision::Refuse { reason: down });
    let two = View { two_primaries: true, ..nodes() };
    assert_eq!(to_primary(&two, reason, NOW, short), Decision::Refuse { reason: Reason::TwoPrimaries });
    let mut silent = nodes();
    silent.nodes[0].silent_since = Some(Moment::default());
    let later = Moment::from_millis(10_000);
    assert_eq!(to_primary(&silent, reason, later, short), Decision::Wait { reason: down });
    assert_eq!(to_primary(&silent, reason, later, long), Decision::Refuse { reason: down });
}
