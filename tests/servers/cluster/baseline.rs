//! What the other tests stand on, without the proxy: the checker sees what replicas tell while slots move, and has nothing
//! to say where primaries are asked.

use super::moving;
use crate::support::checker::Level;
use crate::support::cluster::counters::Counters;
use crate::support::cluster::registers::{Outcome, Plan};
use crate::support::cluster::{Access, Via, key_in};
use crate::support::{Cluster, Server, secs};

/// Keys in each of the slots that move there and back.
const KEYS: usize = 8;

/// Reads at nodes of this kind while slots move there and back.
fn resharded(cluster: &Cluster, access: Access) -> Outcome {
    let load = Plan::over(Via::Nodes(cluster.addresses(), access), 0..moving(), KEYS).start(cluster);
    load.await_reads(200);
    cluster.reshard(moving(), 0, 1);
    for slot in 0..moving() {
        cluster.move_slot(slot, 0);
    }
    cluster.await_ok();
    load.await_reads(200);
    load.stop()
}

/// Those of Redis, that is: to those of Valkey 8 primaries tell which slots move.
#[test]
fn replicas_that_are_asked_directly_deny_keys_while_slots_move() {
    let cluster = Cluster::start_as(Server::Redis70);
    for attempt in 1..=5 {
        let outcome = resharded(&cluster, Access::Replica);
        let tally = outcome.judge(Level::Eventual, secs(1));
        println!("attempt {attempt}: {tally:?}");
        assert_eq!(tally.errors, 0, "{tally:?}");
        if tally.false_nils > 0 {
            let fenced = outcome.judge(Level::Strong, secs(1));
            assert!(fenced.violations >= tally.false_nils, "{fenced:?}");
            return;
        }
    }
    panic!("no false nil in five attempts: the checker may be blind");
}

#[test]
fn primaries_that_are_asked_directly_are_always_right() {
    let cluster = Cluster::start();
    let tally = resharded(&cluster, Access::Primary).judge(Level::Strong, secs(1));
    println!("{tally:?}");
    tally.assert_clean();
}

#[test]
fn a_client_of_the_cluster_itself_counts_nothing_twice_while_a_primary_dies() {
    let mut cluster = Cluster::start();
    let groups: Vec<Vec<String>> = (0..3).map(|n| vec![key_in(n * 5462, 0)]).collect();
    let load = Counters::start(&Via::Nodes(cluster.addresses(), Access::Primary), &groups);
    load.await_rounds(20);
    cluster.kill(0);
    assert_eq!(cluster.await_successor_of(0, 0), 3);
    cluster.await_ok();
    load.await_rounds(20);
    let counters = load.stop();
    for counter in counters {
        println!("{counter:?}");
        let owner = &cluster.nodes[cluster.owner(counter.slot())];
        counter.assert_once(owner.cmd(&["GET", &counter.key]).int() as u64);
        assert!(counter.acknowledged >= 40, "{counter:?}");
        assert!(counter.errors.is_empty() || counter.slot() == 0, "{counter:?}");
    }
}
