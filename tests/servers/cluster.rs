//! Redis Cluster behind the one endpoint of the proxy, as plain clients see it that know nothing of slots: what commands
//! answer, where reads go, and that nothing wrong is read and nothing executed twice while slots move and primaries fail.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]
#![allow(clippy::print_stdout, reason = "how much was checked is what one wants to know")]

mod at_once;
mod baseline;
mod blocking;
mod commands;
mod failovers;
mod keyspace;
mod messages;
mod pipelines;
mod presented;
mod replicas;
mod reshards;
mod seeds;
mod transactions;
mod unfinished;

use std::time::Duration;

use crate::support::checker::Level;
use crate::support::cluster::{SLOTS, Shape, Via, key_in};
use crate::support::{Cluster, Conn, Proxy, Redis, Setup, Value, eventually, secs};

/// How long the proxy may hold a write: longer than a failover takes.
const WRITE_HOLD: &str = "write-hold = \"20s\"";

/// What `bounded` allows. The cluster is on a busy machine, and a reshard makes replicas late.
const BOUND: Duration = secs(1);

/// How many slots move there and back: few by default, `REDWEIR_CLUSTER_SLOTS=1500` of them.
fn moving() -> u16 {
    std::env::var("REDWEIR_CLUSTER_SLOTS").map_or(24, |count| count.parse().expect("a number"))
}

/// A consistency level, as a policy is called and as the checker knows it.
#[derive(Clone, Copy)]
struct Promise {
    name: &'static str,
    level: Level,
}

const EVENTUAL: Promise = Promise { name: "eventual", level: Level::Eventual };
const BOUNDED: Promise = Promise { name: "bounded", level: Level::Bounded };
const SESSION: Promise = Promise { name: "session", level: Level::Session };
const FENCED: Promise = Promise { name: "fenced", level: Level::Fenced };
const STRONG: Promise = Promise { name: "strong", level: Level::Strong };

/// A cluster and the proxy in front of it.
struct Rig {
    proxy: Proxy,
    cluster: Cluster,
}

impl Rig {
    /// Three primaries with a replica each; the proxy promises this.
    fn start(promise: Promise) -> Self {
        Self::with(&Shape::default(), promise)
    }

    fn with(shape: &Shape, promise: Promise) -> Self {
        let cluster = Cluster::with(shape);
        Self { proxy: setup(&cluster.addresses(), promise).start_with_any_replicas(), cluster }
    }

    fn connect(&self) -> Conn {
        self.proxy.connect()
    }

    fn via(&self) -> Via {
        Via::Proxy(self.proxy.port)
    }

    /// Waits until every present replica executes reads that are sent to the proxy.
    fn await_replicas(&self) {
        let replicas = self.cluster.replicas();
        let before: Vec<u64> = replicas.iter().map(|n| self.cluster.calls(&[*n], &["get"])).collect();
        let mut conn = self.connect();
        eventually("every replica serves reads", secs(15), || {
            for slot in (0..SLOTS).step_by(512) {
                conn.cmd(&["GET", &key_in(slot, 0)]);
            }
            let calls = replicas.iter().map(|n| self.cluster.calls(&[*n], &["get"]));
            calls.zip(&before).all(|(calls, before)| calls > *before)
        });
    }
}

/// A proxy that is told of these nodes and promises this.
fn setup(ports: &[u16], promise: Promise) -> Setup {
    // A strong read goes to the primary if that has not said in time what is its own: here there is time.
    let (level, lag) = (promise.name, BOUND.as_millis());
    let policy = format!("consistency = \"{level}\"\nmax-lag = \"{lag}ms\"\nwait-timeout = \"400ms\"");
    Setup::by_cluster(ports).policy("default", &policy).upstream(WRITE_HOLD)
}

/// Keys in slots of every primary, neighbours in different slots.
fn keys(count: usize) -> Vec<String> {
    let stride = usize::from(SLOTS) / count.max(1) + 5461;
    (0..count).map(|n| key_in((n * stride % usize::from(SLOTS)) as u16, n)).collect()
}

/// Both get the same commands, one after the other, and have to say the same.
struct Twins {
    _rig: Rig,
    _one: Redis,
    through: Conn,
    straight: Conn,
}

impl Twins {
    /// A cluster behind the proxy, and a server that stands alone.
    fn start() -> Self {
        let rig = Rig::start(SESSION);
        let one = Redis::start_as(Shape::default().kind, &[]);
        let (through, straight) = (rig.connect(), one.connect());
        Self { _rig: rig, _one: one, through, straight }
    }

    /// What both answer.
    fn say<A: AsRef<[u8]>>(&mut self, words: &[A]) -> Value {
        let (through, straight) = (self.through.cmd(words), self.straight.cmd(words));
        let shown: Vec<_> = words.iter().map(|word| String::from_utf8_lossy(word.as_ref())).collect();
        assert_eq!(through, straight, "through the proxy and at one server: {}", shown.join(" "));
        through
    }
}

/// Whether a command was refused because its keys are in different slots.
fn assert_crossslot(reply: &Value, what: &str) {
    assert!(reply.is_error() && reply.error().starts_with("CROSSSLOT"), "{what}: {reply:?}");
}
