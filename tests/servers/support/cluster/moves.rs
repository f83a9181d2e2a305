//! Moving slots: by `redis-cli --cluster reshard`, or step by step as that does it; or whole slots at once, where servers can.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::NamedTempFile;

use super::super::redis::end;
use super::super::{Server, Value, eventually, secs};
use super::{Cluster, Node};

/// How long a reshard may take.
const MOVED_WITHIN: Duration = secs(120);

/// A slot on its way. Nothing happens by itself: what is not done stays undone.
pub(crate) struct Move<'c> {
    cluster: &'c Cluster,
    slot: String,
    from: usize,
    to: usize,
}

impl Cluster {
    /// Opens a slot at the node that gets it and at its owner.
    pub(crate) fn open(&self, slot: u16, to: usize) -> Move<'_> {
        let step = Move { cluster: self, slot: slot.to_string(), from: self.owner(slot), to };
        step.open();
        step
    }

    /// Moves a slot with all of its keys.
    pub(crate) fn move_slot(&self, slot: u16, to: usize) {
        self.move_slot_pausing(slot, to, || {});
    }

    /// The same with a pause after each step, of which each key is one.
    pub(crate) fn move_slot_pausing(&self, slot: u16, to: usize, pause: impl Fn()) {
        let step = self.open(slot, to);
        pause();
        while step.carry(1) > 0 {
            pause();
        }
        for node in step.told() {
            step.tell(node);
            pause();
        }
    }

    /// Has these slots moved by the servers themselves: the source goes on serving until the target has everything. Waits until
    /// the target says that they are its own.
    pub(crate) fn move_at_once(&self, slots: std::ops::Range<u16>, to: usize) {
        let from = self.owner(slots.start);
        self.start_at_once(slots.clone(), to);
        eventually("slots are moved at once", MOVED_WITHIN, || {
            // Between the two, for an instant, nobody says that they are its own.
            let owners = self.slot_owners();
            slots.clone().all(|slot| owners[usize::from(slot)] == Some(to))
        });
        // The source has still to hear of it, and takes no order before.
        let source = &self.nodes[from];
        eventually("the source is done", MOVED_WITHIN, || Self::is_done_at(source));
        eventually("the target is done", MOVED_WITHIN, || Self::is_done_at(&self.nodes[to]));
    }

    /// Gives up what is on its way from here to there.
    pub(crate) fn cancel_at_once(&self, from: usize, to: usize) {
        let reply = match self.nodes[to].kind {
            Server::Redis86 => self.nodes[to].cmd(&["CLUSTER", "MIGRATION", "CANCEL", "ALL"]),
            _ => self.nodes[from].cmd(&["CLUSTER", "CANCELSLOTMIGRATIONS"]),
        };
        assert!(!reply.is_error(), "{reply:?}");
    }

    /// Waits until no node has slots on their way, whether they have come or not.
    pub(crate) fn await_no_moves(&self) {
        eventually("no slots are on their way", MOVED_WITHIN, || {
            self.running().all(|(_, node)| Self::is_done_at(node))
        });
    }

    fn is_done_at(node: &Node) -> bool {
        let jobs = match node.kind {
            Server::Redis86 => node.cmd(&["CLUSTER", "MIGRATION", "STATUS", "ALL"]),
            _ => node.cmd(&["CLUSTER", "GETSLOTMIGRATIONS"]),
        };
        jobs.items().iter().all(|job| {
            let words: Vec<String> = job.items().iter().map(Value::text).collect();
            let state = words.windows(2).find(|pair| pair[0] == "state").map(|pair| pair[1].clone());
            matches!(state.as_deref(), Some("success" | "completed" | "failed" | "cancelled" | "canceled"))
        })
    }

    /// The same without waiting.
    pub(crate) fn start_at_once(&self, slots: std::ops::Range<u16>, to: usize) {
        let (low, high) = (slots.start.to_string(), (slots.end - 1).to_string());
        let target = &self.nodes[to];
        let source = &self.nodes[self.owner(slots.start)];
        let reply = || {
            if target.kind == Server::Redis86 {
                return target.cmd(&["CLUSTER", "MIGRATION", "IMPORT", &low, &high]);
            }
            source.cmd(&["CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", &low, &high, "NODE", &target.id])
        };
        // It waits for moves before it to be over.
        eventually("a move of slots at once is begun", MOVED_WITHIN, || !reply().is_error());
    }

    /// Moves so many slots by `redis-cli`, and waits until all nodes agree.
    pub(crate) fn reshard(&self, count: u16, from: usize, to: usize) {
        self.start_reshard(count, from, to).wait();
        self.await_ok();
    }

    /// Moves so many slots by `redis-cli`.
    pub(crate) fn start_reshard(&self, count: u16, from: usize, to: usize) -> Reshard {
        let output = NamedTempFile::new().unwrap();
        let log = File::create(output.path()).unwrap();
        let child = Command::new("redis-cli")
            .args(["--cluster", "reshard", &format!("127.0.0.1:{}", self.nodes[to].address)])
            .args(["--cluster-from", &self.nodes[from].id, "--cluster-to", &self.nodes[to].id])
            .args(["--cluster-slots", &count.to_string(), "--cluster-yes", "--cluster-pipeline", "1"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("redis-cli is on PATH");
        Reshard { child, output }
    }
}

impl Move<'_> {
    fn setslot(&self, node: usize, words: &[&str]) -> Value {
        let words = [&["CLUSTER", "SETSLOT", self.slot.as_str()], words].concat();
        self.cluster.nodes[node].cmd(&words)
    }

    fn id(&self, node: usize) -> &str {
        &self.cluster.nodes[node].id
    }

    fn open(&self) {
        assert_eq!(self.setslot(self.to, &["IMPORTING", self.id(self.from)]), "OK");
        assert_eq!(self.setslot(self.from, &["MIGRATING", self.id(self.to)]), "OK");
    }

    /// Carries so many keys over, at most; how many. None comes back: of a slot that it gives away, a node takes no key.
    pub(crate) fn carry(&self, most: usize) -> usize {
        let source = &self.cluster.nodes[self.from];
        let keys = source.cmd(&["CLUSTER", "GETKEYSINSLOT", &self.slot, &most.to_string()]);
        let keys: Vec<String> = keys.items().iter().map(Value::text).collect();
        if keys.is_empty() {
            return 0;
        }
        let port = self.cluster.nodes[self.to].address.to_string();
        let mut words = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
        words.extend(keys.iter().map(String::as_str));
        let reply = source.cmd(&words);
        // A key may be gone by now.
        assert!(reply == "OK" || reply == "NOKEY", "{reply:?}");
        keys.len()
    }

    /// Whom `redis-cli` tells of the new owner, in its order: that one, the old one, the other primaries.
    pub(crate) fn told(&self) -> Vec<usize> {
        let owners = self.cluster.owners().into_keys();
        [self.to, self.from].into_iter().chain(owners.filter(|n| ![self.to, self.from].contains(n))).collect()
    }

    /// Tells a node of the new owner.
    pub(crate) fn tell(&self, node: usize) {
        let reply = self.setslot(node, &["NODE", self.id(self.to)]);
        // Without a slot left, the old owner has become a replica already.
        assert!(reply == "OK" || reply.error().contains("only with masters"), "{reply:?}");
    }

    /// Carries over what is left, and tells everybody.
    pub(crate) fn finish(&self) {
        while self.carry(10) > 0 {}
        self.told().into_iter().for_each(|node| self.tell(node));
    }

    /// Closes the slot at both: it stays where it was. What was carried over is lost to it: of that, the owner says nil.
    pub(crate) fn cancel(&self) {
        for node in [self.from, self.to] {
            assert_eq!(self.setslot(node, &["STABLE"]), "OK");
        }
    }

    /// The slot is opened again for the same old owner and this new one, as `redis-cli --cluster fix` does after a failover.
    pub(crate) fn reopen_to(self, to: usize) -> Self {
        let step = Self { to, ..self };
        step.open();
        step
    }

    /// The same for another old owner.
    pub(crate) fn reopen_from(self, from: usize) -> Self {
        let step = Self { from, ..self };
        step.open();
        step
    }
}

/// `redis-cli` at work. It is ended if nobody waits for it.
pub(crate) struct Reshard {
    child: Child,
    output: NamedTempFile,
}

impl Reshard {
    pub(crate) fn is_over(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits until it is done; fails when it did not move everything.
    pub(crate) fn wait(mut self) {
        eventually("slots are moved", MOVED_WITHIN, || self.is_over());
        let status = self.child.wait().unwrap();
        let output = fs::read_to_string(self.output.path()).unwrap_or_default();
        assert!(status.success() && !output.contains("[ERR]"), "{status}:\n{output}");
    }
}

impl Drop for Reshard {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

mod tests {
    use super::super::super::Server;
    use super::super::{Access, Direct, Shape, key_in};
    use super::*;

    fn moves_slots(kind: Server) {
        let cluster = Cluster::start_as(kind);
        let mut direct = Direct::new(&cluster.addresses(), Access::Primary);
        let keys: Vec<String> = (0..40).flat_map(|slot| (0..3).map(move |n| key_in(slot, n))).collect();
        let all_are_there = |direct: &mut Direct| {
            for key in &keys {
                assert_eq!(direct.cmd(key, &["GET", key]), key.as_str());
            }
        };
        for key in &keys {
            assert_eq!(direct.cmd(key, &["SET", key, key]), "OK");
        }
        let step = cluster.open(0, 1);
        assert_eq!(cluster.nodes[0].myself().open, [format!("[0->-{}]", cluster.nodes[1].id)]);
        all_are_there(&mut direct);
        step.cancel();
        assert_eq!((cluster.owner(0), cluster.nodes[0].myself().open.len()), (0, 0));
        let step = cluster.open(0, 1);
        assert_eq!(step.carry(2), 2);
        all_are_there(&mut direct);
        step.finish();
        assert_eq!(cluster.owner(0), 1);
        cluster.await_ok();
        all_are_there(&mut direct);
        cluster.reshard(39, 0, 2);
        assert_eq!((cluster.owner(1), cluster.owner(39), cluster.owner(40)), (2, 2, 0));
        all_are_there(&mut direct);
    }

    #[test]
    fn slots_move_with_their_keys() {
        moves_slots(Shape::default().kind);
    }

    #[test]
    fn slots_of_valkey_move_with_their_keys() {
        moves_slots(Server::Valkey81);
    }

    #[test]
    fn slots_of_valkey_9_move_at_once() {
        let cluster = Cluster::start_as(Server::Valkey91);
        let mut direct = Direct::new(&cluster.addresses(), Access::Primary);
        let keys: Vec<String> = (0..40).flat_map(|slot| (0..3).map(move |n| key_in(slot, n))).collect();
        for key in &keys {
            assert_eq!(direct.cmd(key, &["SET", key, key]), "OK");
        }
        for to in [1, 0, 2] {
            cluster.move_at_once(0..30, to);
            assert_eq!((cluster.owner(0), cluster.owner(29), cluster.owner(30)), (to, to, 0));
            for key in &keys {
                assert_eq!(direct.cmd(key, &["GET", key]), key.as_str());
            }
        }
    }
}
