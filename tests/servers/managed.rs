//! Servers that do not let everybody say everything, as managed services do: Redweir runs with less, says so, and promises no more than
//! it can prove.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]

use crate::support::checker::Level;
use crate::support::load::Plan;
use crate::support::{Setup, Topology, eventually, ms, secs, sleep_ms};

/// Nobody but replicas may say what managed services refuse.
const USERS: &[&str] = &[
    "--user",
    "repl",
    "on",
    ">replicate",
    "~*",
    "&*",
    "+@all", //
    "--user",
    "default",
    "on",
    "nopass",
    "~*",
    "&*",
    "+@all",
    "-psync",
    "-sync",
    "-replicaof",
    "-config",
    "-role",
    "-command",
    "-client",
    "-object",
    "-debug",
    "-monitor",
];
const REPLICATE: &[&str] = &["--masteruser", "repl", "--masterauth", "replicate"];

const WITHHELD: [&str; 5] = ["role", "config|get", "command", "client|tracking", "psync"];

#[test]
fn what_servers_withhold_makes_promises_weaker_and_is_said() {
    let replica = [USERS, REPLICATE].concat();
    let topology = Topology::with(USERS, 2, &replica);
    let proxy = Setup::of(&topology).policy("default", "consistency = \"fenced\"\nmax-lag = \"60s\"").start();
    proxy.await_replicas(2);
    let refused = |command: &str| {
        let name = "redweir_withheld{node=";
        let of = format!("command=\"{command}\"");
        proxy.metrics().lines().filter(|line| line.starts_with(name) && line.contains(&of)).count()
    };
    // What every node is asked for, what replicas are, what the primary is.
    for (command, nodes) in WITHHELD.into_iter().zip([3, 3, 1, 2, 1]) {
        eventually(&format!("{command} is missed"), secs(10), || refused(command) >= nodes);
    }
    let (status, body) = proxy.get("/readyz");
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("replication stream: not attached"), "{body}");
    for command in WITHHELD {
        assert!(body.contains(&format!(" refuses {command}: ")), "{command}: {body}");
        assert!(proxy.log().contains(&format!(" refuses {command}")), "{command}: {}", proxy.log());
    }

    // What was acknowledged through it is fenced all the same, whatever lags.
    topology.lag(0, ms(300));
    let plan = Plan { keys: 8, readers: 3, write_every: ms(20), read_every: ms(2), ..Plan::on(proxy.port) };
    let load = Plan { writers_read: true, ..plan }.start();
    sleep_ms(3000);
    let served = || proxy.metric("redweir_commands_total", &[("access", "read"), ("target", "replica")]);
    let outcome = load.stop();
    outcome.assert_no_errors();
    outcome.history.verify(Level::Fenced, secs(10)).assert_holds();
    assert!(served() > 50.0, "replicas served {} reads", served());
    assert_eq!(proxy.log().matches(" refuses role").count(), 3, "once for each node: {}", proxy.log());
}

/// Who is allowed again is asked again.
#[test]
fn what_is_withheld_no_longer_is_used() {
    let topology = Topology::with(USERS, 1, &[USERS, REPLICATE].concat());
    let proxy = Setup::of(&topology).start();
    eventually("the stream is missed", secs(10), || proxy.get("/readyz").1.contains(" refuses psync"));
    for server in
        std::iter::once(&topology.primary).chain(topology.replicas.iter().map(|replica| &replica.server))
    {
        assert_eq!(server.cmd(&["ACL", "SETUSER", "default", "+@all"]), "OK");
    }
    eventually("the stream is followed", secs(30), || {
        let body = proxy.get("/readyz").1;
        body.contains("replication stream: attached") && !body.contains(" refuses psync")
    });
}
