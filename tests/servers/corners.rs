//! Corners of the promises, each on real servers, each with its rate: how many of how many reads (writes, rounds) were
//! not what the level promises. What is put between the servers is in `tests/servers/support`; the rows are in `corners/`.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]
#![allow(clippy::print_stdout, reason = "the rate is what one wants to know")]

mod back;
mod bytes;
mod parts;
mod pauses;
mod promotions;
mod remembered;
mod undeclared;

use crate::support::{Direction, Proxy, Redis, Topology, eventually, secs};

/// What was looked at, and what of it was wrong.
#[derive(Default)]
struct Tally {
    looked: usize,
    wrong: Vec<String>,
}

impl Tally {
    /// Looks at one more; `wrong` is what is wrong with it.
    fn look(&mut self, wrong: Option<String>) {
        self.looked += 1;
        self.wrong.extend(wrong);
    }

    /// Prints the rate, and fails unless it is zero.
    fn assert_clean(&self, name: &str) {
        println!("{name}: {} of {}", self.wrong.len(), self.looked);
        for wrong in self.wrong.iter().take(8) {
            println!("  {wrong}");
        }
        assert!(self.looked > 0, "{name}: nothing was looked at");
        assert!(self.wrong.is_empty(), "{name}: {} of {}", self.wrong.len(), self.looked);
    }
}

/// How many reads replicas have answered.
fn at_replicas(proxy: &Proxy) -> f64 {
    proxy.metric("redweir_commands_total", &[("access", "read"), ("target", "replica")])
}

/// The share of all reads that replicas have answered.
fn share(proxy: &Proxy) -> f64 {
    at_replicas(proxy) / proxy.metric("redweir_commands_total", &[("access", "read")])
}

/// Waits until the only replica has everything, and serves.
fn await_service(topology: &Topology, proxy: &Proxy) {
    topology.await_sync();
    proxy.await_replicas(topology.replicas.len());
}

/// Lets a replica follow another server.
fn repoint(replica: &Redis, port: u16) {
    let reply = replica.cmd(&["REPLICAOF", "127.0.0.1", &port.to_string()]);
    assert!(reply.text().starts_with("OK"), "{reply:?}");
}

/// Nothing of what the primary says from now on reaches this replica, whose link stays up.
fn hold(topology: &Topology, replica: usize) {
    topology.replicas[replica].link.stall(Direction::Down);
}

/// Takes [`hold`] back, and waits until the replica has what the primary has.
fn release(topology: &Topology, replica: usize) {
    topology.replicas[replica].link.heal();
    let head = topology.primary.head();
    eventually("the replica has caught up", secs(10), || {
        topology.replicas[replica].applied().is_some_and(|applied| applied >= head)
    });
}
