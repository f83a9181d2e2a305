//! What one client connection has written and seen, and what its reads therefore demand of a replica.

use std::collections::VecDeque;

use super::fence::Slot;

mod seen;
mod stamps;

pub use seen::{Seen, stronger};
pub use stamps::Stamps;

/// How many writes in flight are remembered one by one; with more, every key counts as being written.
const IN_FLIGHT_KEPT: usize = 64;

/// A connection's own writes that have not been acknowledged yet. Until they are, reads of the same keys follow them
/// to the primary: pipelines keep their order.
#[derive(Clone, Debug, Default)]
pub struct Session {
    /// In the order in which they were sent.
    in_flight: VecDeque<(u64, Slot)>,
    /// Writes in flight whose keys are unknown or did not fit, up to this sequence number.
    all_until: Option<u64>,
    /// In the order in which they were sent.
    reading: VecDeque<(u64, Slot)>,
    /// What it has seen.
    pub seen: Seen,
    /// Reads on their way whose keys did not fit, up to this sequence number.
    reading_until: Option<u64>,
}

impl Session {
    /// Write number `seq` is being sent.
    pub fn sent(&mut self, seq: u64, stamps: &Stamps) {
        match stamps {
            Stamps::None => {}
            Stamps::One(slot) if self.in_flight.len() < IN_FLIGHT_KEPT => {
                self.in_flight.push_back((seq, *slot));
            }
            Stamps::Many(slots) if self.in_flight.len() + slots.len() <= IN_FLIGHT_KEPT => {
                self.in_flight.extend(slots.iter().map(|slot| (seq, *slot)));
            }
            _ => self.all_until = Some(seq),
        }
    }

    /// Read number `seq` is on its way to a replica. `oldest` is the oldest command that is not answered yet.
    pub fn reads(&mut self, seq: u64, slots: &[Slot], oldest: u64) {
        self.forget_answered(oldest);
        if self.reading.len() + slots.len() > IN_FLIGHT_KEPT {
            self.reading_until = Some(seq);
        } else {
            for slot in slots {
                self.reading.push_back((seq, *slot));
            }
        }
    }

    /// Reads that are answered hold nobody up.
    fn forget_answered(&mut self, oldest: u64) {
        while self.reading.front().is_some_and(|(read, _)| *read < oldest) {
            self.reading.pop_front();
        }
    }

    /// Whether a write must wait: a read of one of its keys, sent before it, may still be on its way to a replica,
    /// and would see what was written after it.
    pub fn overtakes(&mut self, stamps: &Stamps, oldest: u64) -> bool {
        if self.reading_until.is_some_and(|until| until < oldest) {
            self.reading_until = None;
        }
        self.forget_answered(oldest);
        *stamps != Stamps::None
            && (self.reading_until.is_some() || self.reading.iter().any(|(_, slot)| stamps.touch(*slot)))
    }

    /// Write number `seq` was answered, or will never be.
    pub fn settled(&mut self, seq: u64) {
        let mut was_first = false;
        while self.in_flight.front().is_some_and(|(sent, _)| *sent == seq) {
            self.in_flight.pop_front();
            was_first = true;
        }
        if !was_first && !self.in_flight.is_empty() {
            self.in_flight.retain(|(sent, _)| *sent != seq);
        }
        // Not by a later number: a read on another node may be answered, or given up, before them.
        if self.all_until == Some(seq) {
            self.all_until = None;
        }
    }

    /// Nothing is outstanding after a burst: gives back the room that it took.
    pub fn rest(&mut self) {
        self.reading = VecDeque::new();
        self.in_flight.shrink_to_fit();
    }

    /// Whether a write to a key of this slot is in flight.
    pub fn is_writing(&self, slot: Slot) -> bool {
        let any = !self.in_flight.is_empty() && self.in_flight.iter().any(|(_, written)| *written == slot);
        any || self.all_until.is_some()
    }

    /// Whether any write is in flight.
    pub fn is_writing_anything(&self) -> bool {
        self.all_until.is_some() || !self.in_flight.is_empty()
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
        session.sent(7, &Stamps::One(a));
        assert!(session.is_writing(a) && !session.is_writing(b));
        session.sent(8, &Stamps::All);
        assert!(session.is_writing(b));
        session.settled(7);
        assert!(session.is_writing(a), "covered by the write with unknown keys");
        session.settled(8);
        assert!(!session.is_writing_anything());
    }

    #[test]
    fn a_write_does_not_overtake_a_read_of_its_key() {
        let table = FenceTable::new(1 << 16, [1, 2, 3, 4]);
        let (a, b) = (table.slot(b"a"), table.slot(b"b"));
        let mut session = Session::default();
        session.reads(5, &[a], 5);
        assert!(session.overtakes(&Stamps::One(a), 5) && session.overtakes(&Stamps::All, 5));
        assert!(!session.overtakes(&Stamps::One(b), 5) && !session.overtakes(&Stamps::None, 5));
        assert!(!session.overtakes(&Stamps::One(a), 6), "it is answered");
        for seq in 6..500 {
            session.reads(seq, &[b], 6);
        }
        assert!(session.overtakes(&Stamps::One(a), 6), "too many to tell them apart");
        assert!(!session.overtakes(&Stamps::One(a), 500));
    }

    #[test]
    fn a_later_command_that_is_done_first_does_not_settle_a_write_with_unknown_keys() {
        let table = FenceTable::new(1 << 16, [1, 2, 3, 4]);
        let mut session = Session::default();
        session.sent(7, &Stamps::All);
        session.settled(8);
        assert!(session.is_writing(table.slot(b"k")));
        session.settled(7);
        assert!(!session.is_writing_anything());
    }

    #[test]
    fn too_many_writes_in_flight_count_as_writing_everything() {
        let table = FenceTable::new(1 << 16, [1, 2, 3, 4]);
        let mut session = Session::default();
        for seq in 0..200 {
            session.sent(seq, &Stamps::One(table.slot(format!("k{seq}").as_bytes())));
        }
        assert!(session.is_writing(table.slot(b"untouched")));
        for seq in 0..200 {
            session.settled(seq);
        }
        assert!(!session.is_writing_anything());
    }
}
