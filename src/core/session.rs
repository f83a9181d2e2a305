//! What one client connection has written and seen, and what its reads therefore demand of a replica.

use smallvec::SmallVec;

use super::fence::{Mark, Slot};

/// How many writes in flight are remembered one by one; with more, every key counts as being written.
const IN_FLIGHT_KEPT: usize = 64;

/// The slots that a command writes.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Stamps {
    /// None.
    #[default]
    None,
    /// One key.
    One(Slot),
    /// Several keys.
    Many(Vec<Slot>),
    /// Keys that cannot be known.
    All,
}

impl Stamps {
    /// Adds a key.
    pub fn add(&mut self, slot: Slot) {
        match self {
            Self::None => *self = Self::One(slot),
            Self::One(first) => *self = Self::Many(vec![*first, slot]),
            Self::Many(slots) => slots.push(slot),
            Self::All => {}
        }
    }

    /// Whether a key of this slot is among them.
    pub fn touch(&self, slot: Slot) -> bool {
        match self {
            Self::None => false,
            Self::One(one) => *one == slot,
            Self::Many(slots) => slots.contains(&slot),
            Self::All => true,
        }
    }
}

/// A connection's own writes that have not been acknowledged yet. Until they are, reads of the same keys follow them
/// to the primary: pipelines keep their order.
#[derive(Debug, Default)]
pub struct Session {
    in_flight: SmallVec<[(u64, Slot); 4]>,
    /// Writes in flight whose keys are unknown or did not fit, up to this sequence number.
    all_until: Option<u64>,
}

impl Session {
    /// Write number `seq` is being sent.
    pub fn sent(&mut self, seq: u64, stamps: &Stamps) {
        match stamps {
            Stamps::None => {}
            Stamps::One(slot) if self.in_flight.len() < IN_FLIGHT_KEPT => self.in_flight.push((seq, *slot)),
            Stamps::Many(slots) if self.in_flight.len() + slots.len() <= IN_FLIGHT_KEPT => {
                self.in_flight.extend(slots.iter().map(|slot| (seq, *slot)));
            }
            _ => self.all_until = Some(seq),
        }
    }

    /// Write number `seq` was answered, or will never be.
    pub fn settled(&mut self, seq: u64) {
        if !self.in_flight.is_empty() {
            self.in_flight.retain(|(sent, _)| *sent != seq);
        }
        // Not by a later number: a read on another node may be answered, or given up, before them.
        if self.all_until == Some(seq) {
            self.all_until = None;
        }
    }

    /// Whether a write to a key of this slot is in flight.
    pub fn is_writing(&self, slot: Slot) -> bool {
        self.all_until.is_some() || self.in_flight.iter().any(|(_, written)| *written == slot)
    }

    /// Whether any write is in flight.
    pub fn is_writing_anything(&self) -> bool {
        self.all_until.is_some() || !self.in_flight.is_empty()
    }
}

/// The stronger of two marks: pending above any offset, a later anchor above an earlier one.
pub fn stronger(a: Mark, b: Mark) -> Mark {
    match (a, b) {
        (Mark::Clear, other) | (other, Mark::Clear) => other,
        (Mark::At(x), Mark::At(y)) => Mark::At(x.max(y)),
        (Mark::Pending(x), Mark::Pending(y)) => Mark::Pending(x.max(y)),
        (pending @ Mark::Pending(_), Mark::At(_)) | (Mark::At(_), pending @ Mark::Pending(_)) => pending,
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
