//! What one client connection has written and seen, and what its reads therefore demand of a replica.

use crate::core::fence::{AnchorSeq, Slot};
use crate::core::nodes::node::NodeId;
use crate::core::nodes::proof::Generation;

mod flight;
mod seen;
mod stamps;

use crate::mutant;
use flight::Flight;
pub use seen::{Seen, stronger};
pub use stamps::Stamps;

/// What a connection has on its way, and what it has seen. Pipelines keep their order, key by key:
///
/// - Until a write is acknowledged, reads of its keys follow it to the primary.
/// - A write does not overtake a read of its keys that may still be on its way to a replica.
/// - Of two reads of one key the second never shows older data. Replicas serve only what is fresh enough, but the first
///   may have shown what is newer than that. So as long as the first is on its way, the second takes the same
///   connection or waits; and when the first is repeated elsewhere, so are those of its key that had followed it.
#[derive(Clone, Debug, Default)]
pub struct Session {
    /// What it has seen.
    pub seen: Seen,
    /// The replica that serves it: what another one shows may be older.
    pub home: Option<Home>,
    /// Writes.
    writing: Flight,
    /// Reads at replicas.
    reading: Flight,
    /// Reads at the primary, and those that may yet be sent there.
    ahead: Flight,
    /// Reads that another node has to repeat. Each counts up to the last command that was sent before that: those of its
    /// keys among them have to be repeated, too.
    repeated: Flight,
}

/// The replica that serves a session, in the generation in which it was chosen: in the next one it may be behind what it
/// has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Home {
    /// Which one.
    pub node: NodeId,
    /// What the choice rests on.
    pub generation: Generation,
}

/// Where a read must go for the sake of reads of its keys that were sent before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follows {
    /// Anywhere.
    Nothing,
    /// To this node.
    To(NodeId),
    /// Nowhere yet.
    All,
}

impl Session {
    /// Its replica is of another generation now: what it has shown before may be more than what it shows from now on. So
    /// everything up to `next`, the next anchor, counts as seen. True when that is so.
    pub fn leaves_generation(&mut self, present: Generation, next: AnchorSeq) -> bool {
        let Some(home) = &mut self.home else { return false };
        if home.generation == present || mutant::is("home-never-leaves") {
            return false;
        }
        home.generation = present;
        self.seen.everything(next);
        true
    }

    /// Write number `seq` is on its way. `oldest` is the oldest command that is not answered yet.
    #[inline]
    pub fn sent(&mut self, seq: u64, stamps: &Stamps, oldest: u64) {
        let Some(slots) = stamps.slots() else { return };
        self.writing.forget(oldest);
        match stamps {
            Stamps::One(slot) => self.writing.add_one(seq, *slot, None),
            _ => self.writing.add(seq, slots, None),
        }
    }

    /// The primary has answered command number `seq`, about these keys, or `any`: no replica may take back what it has
    /// shown. `reply` is a digest of what was asked and of the answer; `None`, of a reply that was passed on in parts,
    /// counts as one that was never seen. `next` is the next anchor.
    pub fn remember(&mut self, seq: u64, stamps: &Stamps, any: bool, reply: Option<u64>, next: AnchorSeq) {
        if mutant::is("answer-forgotten") {
            return;
        }
        if any {
            return self.seen.everything(next);
        }
        // As unlike any other as the number is.
        let digest = reply.unwrap_or_else(|| seq.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        match stamps {
            Stamps::None => {}
            Stamps::One(slot) => self.seen.key(*slot, digest, next),
            Stamps::Many(slots) => slots.iter().for_each(|slot| self.seen.key(*slot, digest, next)),
            Stamps::All => self.seen.everything(next),
        }
    }

    /// It moves to another replica, which may be behind its present one: everything up to `next`, the next anchor, counts as
    /// seen.
    pub fn moves_on(&mut self, next: AnchorSeq) {
        self.seen.everything(next);
        self.home = None;
    }

    /// A write to these keys is acknowledged; `next` is the next anchor.
    pub fn acknowledged(&mut self, stamps: &Stamps, next: AnchorSeq) {
        if self.seen.counts_own() {
            self.seen.wrote(stamps, next);
        }
    }

    /// Forgets writes that are answered.
    pub fn forget(&mut self, oldest: u64) {
        self.writing.forget(oldest);
    }

    /// Read number `seq` is on its way to a replica. `oldest` is the oldest command that is not answered yet.
    pub fn reads(&mut self, seq: u64, slots: &[Slot], at: NodeId, oldest: u64) {
        self.reading.forget(oldest);
        self.reading.add(seq, slots, Some(at));
    }

    /// The same of a read of one key.
    #[inline]
    pub fn reads_key(&mut self, seq: u64, slot: Slot, at: NodeId, oldest: u64) {
        self.reading.forget(oldest);
        self.reading.add_one(seq, slot, Some(at));
    }

    /// Read number `seq` is on its way to the primary, or may yet be: then nobody knows `at` which node. Without slots
    /// it is about any key.
    pub fn reads_ahead(&mut self, seq: u64, slots: &[Slot], at: Option<NodeId>, oldest: u64) {
        self.ahead.forget(oldest);
        self.ahead.add(seq, slots, at);
    }

    /// A read is sent again, to `at`, when `last` is the last command that was sent.
    pub fn repeats(&mut self, last: u64, stamps: &Stamps, at: NodeId, oldest: u64) {
        let Some(slots) = stamps.slots() else { return };
        self.reads_ahead(last, slots, Some(at), oldest);
        self.repeated.forget(oldest);
        self.repeated.add(last, slots, Some(at));
    }

    /// Where read number `seq` must be repeated, if one of its keys before it was: `Some(None)` if that is not certain.
    pub fn repeats_at(&self, seq: u64, stamps: &Stamps) -> Option<Option<NodeId>> {
        self.repeated.touches_since(seq, stamps).then_some(self.repeated.at())
    }

    /// Whether read number `seq`, which a replica has answered, has to be repeated because one before it was.
    pub fn must_repeat(&self, seq: u64, stamps: &Stamps) -> bool {
        !self.repeated.is_empty() && self.repeated.touches_since(seq, stamps) && !mutant::is("reads-astray")
    }

    /// Where a read of these keys must go.
    #[inline]
    pub fn follows(&mut self, stamps: &Stamps, oldest: u64) -> Follows {
        if self.ahead.is_empty() && self.repeated.is_empty() {
            return Follows::Nothing;
        }
        self.ahead.forget(oldest);
        self.repeated.forget(oldest);
        if !self.ahead.touches(stamps) || mutant::is("reads-astray") {
            Follows::Nothing
        } else {
            self.ahead.at().map_or(Follows::All, Follows::To)
        }
    }

    /// Whether reads are on their way to a replica, which the connection therefore cannot leave.
    pub fn is_reading(&mut self, oldest: u64) -> bool {
        self.reading.forget(oldest);
        !self.reading.is_empty() && !mutant::is("reads-astray")
    }

    /// Whether a command for the primary must wait: a read of one of its keys, sent before it, may still be on its way
    /// to a replica. What that one shows might be newer than what this one shows, or be what this one has written.
    pub fn overtakes(&mut self, stamps: &Stamps, oldest: u64) -> bool {
        self.reading.forget(oldest);
        self.reading.touches(stamps)
    }

    /// Whether a burst has left much room.
    pub fn is_roomy(&self) -> bool {
        [&self.writing, &self.reading, &self.ahead, &self.repeated].into_iter().any(Flight::is_roomy)
    }

    /// Nothing is outstanding after a burst: gives back the room that it took.
    pub fn rest(&mut self) {
        for flight in [&mut self.writing, &mut self.reading, &mut self.ahead, &mut self.repeated] {
            flight.rest();
        }
    }

    /// Whether a write to a key of this slot is in flight.
    pub fn is_writing(&self, slot: Slot) -> bool {
        self.writing.is_about(slot)
    }

    /// Whether any write is in flight.
    pub fn is_writing_anything(&self) -> bool {
        !self.writing.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::fence::FenceTable;

    #[test]
    fn a_key_is_being_written_from_sending_to_acknowledgement() {
        let table = FenceTable::new(1 << 16, [1, 2, 3, 4]);
        let (a, b) = (table.slot(b"a"), table.slot(b"b"));
        let mut session = Session::default();
        session.sent(7, &Stamps::One(a), 7);
        assert!(session.is_writing(a) && !session.is_writing(b));
        session.sent(8, &Stamps::All, 7);
        assert!(session.is_writing(b));
        session.forget(8);
        assert!(session.is_writing(a), "covered by the write with unknown keys");
        session.forget(9);
        assert!(!session.is_writing_anything());
    }

    #[test]
    fn a_write_does_not_overtake_a_read_of_its_key() {
        let table = FenceTable::new(1 << 16, [1, 2, 3, 4]);
        let (a, b) = (table.slot(b"a"), table.slot(b"b"));
        let mut session = Session::default();
        session.reads(5, &[a], NodeId(1), 5);
        assert!(session.overtakes(&Stamps::One(a), 5) && session.overtakes(&Stamps::All, 5));
        assert!(!session.overtakes(&Stamps::One(b), 5) && !session.overtakes(&Stamps::None, 5));
        assert!(!session.overtakes(&Stamps::One(a), 6), "it is answered");
        for seq in 6..2000 {
            session.reads(seq, &[b], NodeId(1), 6);
        }
        assert!(session.overtakes(&Stamps::One(a), 6), "too many to tell them apart");
        assert!(!session.overtakes(&Stamps::One(a), 2000));
    }

    #[test]
    fn too_many_writes_in_flight_count_as_writing_everything() {
        let table = FenceTable::new(1 << 16, [1, 2, 3, 4]);
        let mut session = Session::default();
        for seq in 0..2000 {
            session.sent(seq, &Stamps::One(table.slot(format!("k{seq}").as_bytes())), 0);
        }
        assert!(session.is_writing(table.slot(b"untouched")));
        session.forget(2000);
        assert!(!session.is_writing_anything());
    }

    #[test]
    fn a_read_goes_where_one_of_its_key_that_is_on_its_way_went() {
        let table = FenceTable::new(1 << 16, [1, 2, 3, 4]);
        let (a, b) = (table.slot(b"a"), table.slot(b"b"));
        let (primary, other) = (NodeId(0), NodeId(2));
        let mut session = Session::default();
        assert_eq!(session.follows(&Stamps::One(a), 0), Follows::Nothing);
        session.reads_ahead(3, &[a], Some(primary), 3);
        assert_eq!(session.follows(&Stamps::Many(vec![b, a]), 3), Follows::To(primary));
        assert_eq!(session.follows(&Stamps::One(b), 3), Follows::Nothing);
        assert_eq!(session.follows(&Stamps::One(a), 4), Follows::Nothing, "it is answered");
        session.reads_ahead(5, &[a], Some(primary), 5);
        session.reads_ahead(6, &[b], Some(other), 5);
        assert_eq!(session.follows(&Stamps::One(a), 5), Follows::All, "at two nodes");
        assert_eq!(session.follows(&Stamps::One(b), 7), Follows::Nothing);
        session.reads_ahead(8, &[], Some(primary), 8);
        assert_eq!(session.follows(&Stamps::One(b), 8), Follows::To(primary), "it may be about any key");
    }

    #[test]
    fn what_follows_a_read_that_is_repeated_is_repeated() {
        let table = FenceTable::new(1 << 16, [1, 2, 3, 4]);
        let (a, b) = (table.slot(b"a"), table.slot(b"b"));
        let mut session = Session::default();
        (1..=4).for_each(|seq| session.reads(seq, &[if seq == 3 { b } else { a }], NodeId(1), 1));
        assert!(!session.must_repeat(2, &Stamps::One(a)));
        session.repeats(4, &Stamps::One(a), NodeId(0), 1);
        assert!(session.must_repeat(2, &Stamps::One(a)) && session.must_repeat(4, &Stamps::Many(vec![b, a])));
        assert!(!session.must_repeat(3, &Stamps::One(b)));
        assert!(
            !session.must_repeat(5, &Stamps::One(a)),
            "it was sent after that, to where the other one went"
        );
        assert_eq!(session.follows(&Stamps::One(a), 1), Follows::To(NodeId(0)));
        // The first is answered: what had followed it is still on its way.
        session.repeats(4, &Stamps::One(b), NodeId(0), 3);
        assert!(session.must_repeat(4, &Stamps::One(a)));
        session.repeats(4, &Stamps::All, NodeId(0), 3);
        assert_eq!(session.repeats_at(4, &Stamps::One(a)), Some(Some(NodeId(0))));
        assert_eq!(session.repeats_at(4, &Stamps::None), None, "a read that promises no session anything");
    }

    #[test]
    fn nobody_leaves_a_replica_that_has_yet_to_answer() {
        let table = FenceTable::new(1 << 16, [1, 2, 3, 4]);
        let mut session = Session::default();
        session.reads(1, &[table.slot(b"a")], NodeId(1), 1);
        assert!(session.is_reading(1) && !session.is_reading(2));
    }
}
