//! A primary and its replicas, each behind a relay of its own.

use std::ops::Deref;

use super::relay::{Direction, Relay};
use super::{Redis, Server, eventually, secs};

/// A replica and the link to its primary.
pub(crate) struct Replica {
    pub(crate) server: Redis,
    /// Between it and the primary.
    pub(crate) link: Relay,
}

impl Deref for Replica {
    type Target = Redis;

    fn deref(&self) -> &Redis {
        &self.server
    }
}

pub(crate) struct Topology {
    pub(crate) primary: Redis,
    pub(crate) replicas: Vec<Replica>,
}

impl Topology {
    /// A primary with so many replicas, all in sync.
    pub(crate) fn start(replicas: usize) -> Self {
        Self::with(&[], replicas, &[])
    }

    /// The same with options for the primary and for every replica.
    pub(crate) fn with(primary: &[&str], replicas: usize, options: &[&str]) -> Self {
        Self::behind(Redis::start(primary), replicas, options)
    }

    /// The same with servers of this kind.
    pub(crate) fn start_as(kind: Server, replicas: usize) -> Self {
        Self::behind(Redis::start_as(kind, &[]), replicas, &[])
    }

    fn behind(primary: Redis, replicas: usize, options: &[&str]) -> Self {
        let mut topology = Self { primary, replicas: Vec::new() };
        for _ in 0..replicas {
            topology.add_replica(options);
        }
        topology.await_sync();
        topology
    }

    /// One more, which may still be syncing.
    pub(crate) fn add_replica(&mut self, options: &[&str]) -> &Replica {
        let link = Relay::to(self.primary.port);
        let server = Redis::replica_as(self.primary.kind, link.port, options);
        self.replicas.push(Replica { server, link });
        self.replicas.last().unwrap()
    }

    /// Waits until every replica's link is up and it has applied what the primary has written by now.
    pub(crate) fn await_sync(&self) {
        let head = self.primary.head();
        for (n, replica) in self.replicas.iter().enumerate() {
            eventually(&format!("replica {n} is in sync"), secs(10), || {
                replica.applied().is_some_and(|applied| applied >= head)
            });
        }
    }

    /// Delays the stream to one replica.
    pub(crate) fn lag(&self, replica: usize, delay: std::time::Duration) {
        self.replicas[replica].link.delay(Direction::Down, delay);
    }

    pub(crate) fn replica_ports(&self) -> Vec<u16> {
        self.replicas.iter().map(|replica| replica.port).collect()
    }

    /// How often the replicas executed a command, each.
    pub(crate) fn replica_calls(&self, command: &str) -> Vec<u64> {
        self.replicas.iter().map(|replica| replica.calls(command)).collect()
    }
}
