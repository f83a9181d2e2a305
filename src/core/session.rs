//! What one client connection has written and seen, and what its reads therefore demand of a replica.

use std::collections::VecDeque;

use smallvec::SmallVec;

use super::fence::{AnchorSeq, Mark, Slot};
use super::position::Offset;

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

    /// Adds what another command writes. More than a connection remembers one by one are all keys.
    pub fn merge(&mut self, other: Self) {
        match other {
            Self::One(slot) if !self.touch(slot) => self.add(slot),
            Self::None | Self::One(_) => {}
            Self::Many(slots) => slots.iter().for_each(|slot| self.merge(Self::One(*slot))),
            Self::All => *self = Self::All,
        }
        if matches!(self, Self::Many(slots) if slots.len() > IN_FLIGHT_KEPT) {
            *self = Self::All;
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

/// Keys read from the primary that are remembered one by one.
const SEEN_KEPT: usize = 64;

/// What a connection has seen, and its reads must not fall behind. A reply counts once it is there: of two reads of one
/// key that are on their way at the same time, one at the primary and one at a replica, the second may be the older.
///
/// A replica that serves it never goes back by itself. Another replica can be behind it, so that a change of replica
/// raises the floor of all keys to the next anchor. The primary is ahead of every replica: what it answered for a key
/// holds for that key, until a replica has applied it, or until the stream has passed it and the key's own fence says
/// the same. A key that is read again and again from the primary, with the same reply, is as it was the first time.
#[derive(Clone, Debug)]
pub struct Seen {
    floor: Mark,
    /// What a token stands for. Reads that do not look at the fences of their keys need it for good.
    token: Option<Offset>,
    /// The life of the fence table in which all this means something.
    life: u64,
    keys: SmallVec<[SeenKey; 2]>,
}

#[derive(Clone, Copy, Debug)]
struct SeenKey {
    slot: Slot,
    digest: u64,
    mark: Mark,
}

impl Default for Seen {
    fn default() -> Self {
        Self { floor: Mark::Clear, token: None, life: 0, keys: SmallVec::new() }
    }
}

impl Seen {
    /// Everything up to now was seen; `next` is the next anchor.
    pub fn everything(&mut self, next: AnchorSeq) {
        self.floor = stronger(self.floor, Mark::Pending(next));
    }

    /// Everything up to `offset` is to be seen.
    pub fn up_to(&mut self, offset: Offset) {
        self.floor = stronger(self.floor, Mark::At(offset));
        self.token = self.token.max(Some(offset));
    }

    /// What a token demands of every replica, however old data the policy tolerates.
    pub fn token(&self) -> Option<Offset> {
        self.token
    }

    /// The fence table is in its life number `life`: what was seen before another history began is gone, and says
    /// nothing about offsets of this one.
    pub fn renew(&mut self, life: u64, next: AnchorSeq) {
        if self.life != life {
            let was_empty = self.floor == Mark::Clear && self.keys.is_empty();
            let floor = if was_empty { Mark::Clear } else { Mark::Pending(next) };
            *self = Self { floor, token: None, life, keys: SmallVec::new() };
        }
    }

    /// The primary has answered a read of this key; `next` is the next anchor.
    pub fn key(&mut self, slot: Slot, digest: u64, next: AnchorSeq) {
        let mark = Mark::Pending(next);
        if let Some(seen) = self.keys.iter_mut().find(|seen| seen.slot == slot) {
            if seen.digest != digest {
                (seen.digest, seen.mark) = (digest, mark);
            }
        } else if self.keys.len() < SEEN_KEPT {
            self.keys.push(SeenKey { slot, digest, mark });
        } else {
            self.keys.clear();
            self.everything(next);
        }
    }

    /// Anchor `anchor` has answered `head`, and the stream was followed up to `passed`.
    pub fn settle(&mut self, anchor: AnchorSeq, head: Offset, passed: Option<Offset>) {
        let settled = |mark: Mark| mark.settled(anchor, head).unless_passed(passed);
        self.floor = settled(self.floor);
        if !self.keys.is_empty() {
            self.keys.iter_mut().for_each(|seen| seen.mark = settled(seen.mark));
            self.keys.retain(|seen| seen.mark != Mark::Clear);
        }
    }

    /// What a replica must have applied to serve any key.
    pub fn floor(&self) -> Mark {
        if cfg!(mutant = "seen-forgotten") { Mark::Clear } else { self.floor }
    }

    /// What a replica must have applied to serve this key, beyond the floor.
    pub fn of(&self, slot: Slot) -> Mark {
        self.keys.iter().find(|seen| seen.slot == slot).map_or(Mark::Clear, |seen| seen.mark)
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
    fn what_was_seen_holds_until_the_stream_has_passed_it() {
        let table = FenceTable::new(1 << 16, [1, 2, 3, 4]);
        let (a, b) = (table.slot(b"a"), table.slot(b"b"));
        let mut seen = Seen::default();
        seen.key(a, 1, AnchorSeq(5));
        seen.key(a, 1, AnchorSeq(9));
        assert_eq!(seen.of(a), Mark::Pending(AnchorSeq(5)), "the same reply as before");
        seen.key(a, 2, AnchorSeq(9));
        assert_eq!((seen.of(a), seen.of(b)), (Mark::Pending(AnchorSeq(9)), Mark::Clear));
        seen.settle(AnchorSeq(8), Offset::new(80), Some(Offset::new(1000)));
        assert_eq!(seen.of(a), Mark::Pending(AnchorSeq(9)));
        seen.settle(AnchorSeq(9), Offset::new(90), Some(Offset::new(89)));
        assert_eq!(seen.of(a), Mark::At(Offset::new(90)));
        seen.settle(AnchorSeq(10), Offset::new(100), Some(Offset::new(90)));
        assert_eq!(seen.of(a), Mark::Clear);
    }

    #[test]
    fn what_was_seen_of_another_history_is_no_offset_of_this_one() {
        let mut seen = Seen::default();
        seen.up_to(Offset::new(1_000_000));
        seen.renew(0, AnchorSeq(3));
        assert_eq!(
            (seen.floor(), seen.token()),
            (Mark::At(Offset::new(1_000_000)), Some(Offset::new(1_000_000)))
        );
        seen.renew(1, AnchorSeq(3));
        assert_eq!((seen.floor(), seen.token()), (Mark::Pending(AnchorSeq(3)), None));
    }

    #[test]
    fn too_many_keys_seen_are_all_keys() {
        let table = FenceTable::new(1 << 16, [1, 2, 3, 4]);
        let mut seen = Seen::default();
        for n in 0..=SEEN_KEPT as u64 {
            seen.key(table.slot(&n.to_le_bytes()), n, AnchorSeq(n));
        }
        assert_eq!(seen.floor(), Mark::Pending(AnchorSeq(SEEN_KEPT as u64)));
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
