//! A client that knows the cluster itself: it follows MOVED and ASK, and reads at primaries or at replicas.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use super::{SLOTS, lines, slot};
use crate::support::resp::{Conn, Value};
use crate::support::sleep_ms;

/// How long it looks for who serves a command before it gives up.
const SERVED_WITHIN: Duration = Duration::from_secs(20);
/// How long a node may take that is asked who owns what.
const PATIENCE: Duration = Duration::from_millis(500);

/// Where it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Primary,
    /// At the first replica, after `READONLY`.
    Replica,
}

pub(crate) struct Direct {
    access: Access,
    conns: HashMap<u16, Conn>,
    /// Of each slot.
    primaries: Vec<u16>,
    /// Of each primary that has any.
    replicas: HashMap<u16, u16>,
    seeds: Vec<u16>,
}

impl Direct {
    /// Asks the first of these nodes that answers who owns what.
    pub(crate) fn new(seeds: &[u16], access: Access) -> Self {
        let mut client = Self {
            access,
            conns: HashMap::new(),
            primaries: vec![0; usize::from(SLOTS)],
            replicas: HashMap::new(),
            seeds: seeds.to_vec(),
        };
        client.refresh();
        client
    }

    fn refresh(&mut self) {
        let answers = |port: &u16| {
            let mut conn = Conn::try_open(*port).ok()?;
            conn.patience(PATIENCE).try_cmd(&["PING"]).is_ok().then_some(conn)
        };
        let mut conn = self.seeds.iter().find_map(answers).expect("a node of the cluster answers");
        let lines = lines(&mut conn);
        let port_of: HashMap<&str, u16> = lines.iter().map(|line| (line.id.as_str(), line.port)).collect();
        for line in lines.iter().filter(|line| !line.is_gone()) {
            if let Some(primary) = &line.primary {
                self.replicas.insert(port_of[primary.as_str()], line.port);
            }
            for slot in line.slots.iter().cloned().flatten() {
                self.primaries[usize::from(slot)] = line.port;
            }
        }
    }

    /// A command with this key at the owner of its slot.
    pub(crate) fn cmd(&mut self, key: &str, words: &[&str]) -> Value {
        self.try_cmd(key, words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// The same. Nothing is sent twice that may have been executed.
    pub(crate) fn try_cmd(&mut self, key: &str, words: &[&str]) -> io::Result<Value> {
        let primary = self.primaries[usize::from(slot(key))];
        self.follow(primary, key, words)
    }

    /// A read of this key, where this client reads.
    pub(crate) fn try_read(&mut self, key: &str, words: &[&str]) -> io::Result<Value> {
        let primary = self.primaries[usize::from(slot(key))];
        let replica = self.replicas.get(&primary).copied().filter(|_| self.access == Access::Replica);
        let Some(replica) = replica else { return self.follow(primary, key, words) };
        let reply = self.conn(replica)?.try_cmd(words)?;
        match redirection(&reply) {
            None => Ok(reply),
            // It is another shard's by now, whose replica may say so one day.
            Some((asking, port)) => {
                if !asking {
                    self.primaries[usize::from(slot(key))] = port;
                }
                self.follow(primary, key, words)
            }
        }
    }

    fn follow(&mut self, first: u16, key: &str, words: &[&str]) -> io::Result<Value> {
        let (mut port, mut asking, mut hops) = (first, false, 0);
        let deadline = Instant::now() + SERVED_WITHIN;
        loop {
            hops += 1;
            if hops > 10 {
                sleep_ms(10);
            }
            let Ok(conn) = self.conn(port) else {
                // Nothing was sent.
                if Instant::now() > deadline {
                    return Err(io::ErrorKind::NotConnected.into());
                }
                sleep_ms(100);
                self.refresh();
                (port, asking) = (self.primaries[usize::from(slot(key))], false);
                continue;
            };
            if asking {
                conn.try_cmd(&["ASKING"])?;
            }
            let answered = conn.try_cmd(words);
            if answered.is_err() {
                self.conns.remove(&port);
            }
            let reply = answered?;
            let is_later = |error: &str| error.starts_with("TRYAGAIN") || error.starts_with("CLUSTERDOWN");
            match redirection(&reply) {
                _ if Instant::now() > deadline => return Ok(reply),
                Some((ask, to)) => {
                    if !ask {
                        self.primaries[usize::from(slot(key))] = to;
                    }
                    (port, asking) = (to, ask);
                }
                None if reply.is_error() && is_later(reply.error()) => {}
                None => return Ok(reply),
            }
        }
    }

    fn conn(&mut self, port: u16) -> io::Result<&mut Conn> {
        if !self.conns.contains_key(&port) {
            let mut conn = Conn::try_open(port)?;
            if self.access == Access::Replica {
                conn.try_cmd(&["READONLY"])?;
            }
            self.conns.insert(port, conn);
        }
        Ok(self.conns.get_mut(&port).unwrap())
    }
}

/// Where an error sends to, and whether for this one command only.
fn redirection(reply: &Value) -> Option<(bool, u16)> {
    let Value::Error(text) = reply else { return None };
    let mut words = text.split(' ');
    let asking = match words.next()? {
        "MOVED" => false,
        "ASK" => true,
        _ => return None,
    };
    let port = words.nth(1)?.rsplit_once(':')?.1;
    Some((asking, port.parse().ok()?))
}
