//! Writes that a failover lost: the replication link had told them in the old history, and the new one does not go that
//! far (`second_repl_offset`). At least so many: a replica as the source tells only what it had received itself.

use std::collections::{BTreeSet, VecDeque};

use smallvec::SmallVec;

use crate::core::position::{History, Offset, ReplId};
use crate::mutant;

/// Writes that are remembered, of each history.
const WRITES_KEPT: usize = 1 << 16;

/// The same in bytes of their keys.
const NAMES_KEPT: usize = 4 << 20;

/// Histories that may wait for what becomes of them.
const HISTORIES_LEFT: usize = 2;

/// Keys that a report names.
pub const KEYS_NAMED: usize = 1000;

/// A longer key is not named.
const LONGEST_NAMED: usize = 512;

/// What a new primary does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The last writes of the one before.
    Tail(LostTail),
    /// All of it: its history has nothing to do with the one before, as when it was restarted empty.
    Everything {
        /// The history before.
        previous: ReplId,
        /// How far that was heard of.
        head: Option<Offset>,
        /// The history that began.
        id: Option<ReplId>,
    },
}

/// A history that nothing goes on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// It.
    pub previous: ReplId,
    /// How far it was heard of.
    pub head: Option<Offset>,
    /// Entries of the fence table that were void with it.
    pub voided: usize,
}

impl Ended {
    /// What became of it, in words; `head` is where the new one stands.
    pub fn text(&self, head: Offset) -> String {
        let moved = match self.head {
            Some(before) if head < before => format!("offset fell from {before} to {head}"),
            Some(before) => format!("offset was {before} and is {head}"),
            None => format!("offset is {head}"),
        };
        format!("history new, {moved}, {} keys of the table void", self.voided)
    }
}

/// The writes between where a new history branches off and what was seen last of the old one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostTail {
    /// The history that they were in.
    pub previous: ReplId,
    /// The history that goes on without them.
    pub id: ReplId,
    /// The last offset that both have.
    pub from: Offset,
    /// Where the last of them ended.
    pub upto: Offset,
    /// How many there were; at least, if not all are [`Self::known`].
    pub writes: u64,
    /// Their keys, each once, in order.
    pub keys: Vec<Vec<u8>>,
    /// Every key of theirs is named.
    pub named: bool,
    /// Every write of theirs was still remembered.
    pub known: bool,
}

impl LostTail {
    /// How long the lost part of the stream is, in bytes.
    pub fn bytes(&self) -> u64 {
        self.upto.ahead_of(self.from)
    }
}

/// The last writes that the stream told, with their keys.
#[derive(Debug, Default)]
pub struct RecentWrites {
    now: Option<InHistory>,
    /// Those of histories that are not followed at the moment, until it is known what became of them; the last one last.
    left: VecDeque<InHistory>,
}

#[derive(Debug)]
struct InHistory {
    id: ReplId,
    writes: VecDeque<RecentWrite>,
    /// The keys of all of them, one after the other.
    names: VecDeque<u8>,
    /// Where the last one ended that is not remembered.
    forgotten: Option<Offset>,
}

#[derive(Debug)]
struct RecentWrite {
    end: Offset,
    /// The lengths of its keys.
    keys: NameLengths,
    /// It may have written other keys as well.
    unnamed: bool,
}

/// Most write one key.
type NameLengths = SmallVec<[u16; 2]>;

impl RecentWrites {
    /// The link goes on in history `id`.
    pub fn attached(&mut self, id: ReplId) {
        if self.now.as_ref().is_some_and(|now| now.id == id) {
            return;
        }
        self.detached();
        let known = self.left.iter().position(|left| left.id == id);
        let new = || InHistory { id, writes: VecDeque::new(), names: VecDeque::new(), forgotten: None };
        self.now = Some(known.and_then(|known| self.left.remove(known)).unwrap_or_else(new));
    }

    /// The link is gone: nothing more will be told of its history, unless it stands again.
    pub fn detached(&mut self) {
        self.left.extend(self.now.take());
        if self.left.len() > HISTORIES_LEFT {
            self.left.pop_front();
        }
    }

    /// A write ended at `end`. What it wrote is told by [`Self::named`] next; `unnamed`: not all of it can be.
    pub fn wrote(&mut self, end: Offset, unnamed: bool) {
        let Some(now) = &mut self.now else { return };
        if now.writes.len() == WRITES_KEPT {
            now.forget_oldest();
        }
        now.writes.push_back(RecentWrite { end, keys: NameLengths::new(), unnamed });
    }

    /// The last write wrote this key.
    pub fn named(&mut self, key: &[u8]) {
        let Some(now) = &mut self.now else { return };
        while now.names.len() + key.len() > NAMES_KEPT && now.writes.len() > 1 {
            now.forget_oldest();
        }
        let Some(write) = now.writes.back_mut() else { return };
        if key.len() > LONGEST_NAMED || now.names.len() + key.len() > NAMES_KEPT {
            write.unnamed = true;
            return;
        }
        write.keys.push(key.len() as u16);
        now.names.extend(key);
    }

    /// Not all that the last write wrote could be told.
    pub fn left_unnamed(&mut self) {
        if let Some(write) = self.now.as_mut().and_then(|now| now.writes.back_mut()) {
            write.unnamed = true;
        }
    }

    /// The primary's history is `history`: the writes that were told and are not in it. Told once, and only when the link
    /// has left the history that they were in: until then, more of them may come.
    pub fn lost_in(&mut self, history: &History) -> Option<LostTail> {
        let (previous, end) = history.previous?;
        if mutant::is("told-too-early") {
            self.detached();
        }
        let over = self.left.iter().position(|left| left.id == previous)?;
        self.left.remove(over)?.from(end, history.id)
    }
}

impl InHistory {
    fn forget_oldest(&mut self) {
        let Some(oldest) = self.writes.pop_front() else { return };
        self.names.drain(..oldest.length().min(self.names.len()));
        self.forgotten = Some(oldest.end);
    }

    /// The writes that ended at `end` or later, for history `id` has other bytes there.
    fn from(mut self, end: Offset, id: ReplId) -> Option<LostTail> {
        let known = self.forgotten.is_none_or(|forgotten| forgotten < end);
        let kept = self.writes.partition_point(|write| write.end < end && !mutant::is("told-as-lost"));
        let skipped: usize = self.writes.drain(..kept).map(|write| write.length()).sum();
        self.names.drain(..skipped.min(self.names.len()));
        let (mut seen, mut keys, mut named) = (BTreeSet::new(), Vec::new(), known);
        for length in self.writes.iter().flat_map(|write| &write.keys) {
            let key: Vec<u8> = self.names.drain(..usize::from(*length).min(self.names.len())).collect();
            if seen.contains(&key) {
                continue;
            }
            if keys.len() == KEYS_NAMED {
                named = false;
                break;
            }
            seen.insert(key.clone());
            keys.push(key);
        }
        Some(LostTail {
            previous: self.id,
            id,
            from: Offset::new(end.bytes().saturating_sub(1)),
            upto: self.writes.back()?.end,
            writes: self.writes.len() as u64,
            keys,
            named: named && !self.writes.iter().any(|write| write.unnamed),
            known,
        })
    }
}

impl RecentWrite {
    fn length(&self) -> usize {
        self.keys.iter().map(|length| usize::from(*length)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(letter: u8) -> ReplId {
        ReplId::parse(&[letter; 40]).expect("forty letters")
    }

    fn write(recent: &mut RecentWrites, end: u64, keys: &[&str]) {
        recent.wrote(Offset::new(end), false);
        for key in keys {
            recent.named(key.as_bytes());
        }
    }

    fn names(lost: &LostTail) -> Vec<String> {
        lost.keys.iter().map(|key| String::from_utf8_lossy(key).into_owned()).collect()
    }

    fn promoted(end: u64) -> History {
        History { id: id(b'b'), previous: Some((id(b'a'), Offset::new(end))) }
    }

    #[test]
    fn what_the_new_history_does_not_reach_is_lost_and_told_once() {
        let mut recent = RecentWrites::default();
        recent.attached(id(b'a'));
        write(&mut recent, 100, &["kept"]);
        write(&mut recent, 110, &["kept", "too"]);
        write(&mut recent, 120, &["x"]);
        write(&mut recent, 130, &["y", "x"]);
        assert_eq!(recent.lost_in(&History::new(id(b'a'))), None);
        assert_eq!(recent.lost_in(&promoted(111)), None, "there may be more");
        recent.detached();
        let lost = recent.lost_in(&promoted(111)).expect("those that ended at 120 and 130");
        assert_eq!(
            (lost.writes, lost.from, lost.upto, lost.bytes()),
            (2, Offset::new(110), Offset::new(130), 20)
        );
        assert_eq!(
            (names(&lost), lost.named, lost.known),
            (vec!["x".to_owned(), "y".to_owned()], true, true)
        );
        assert_eq!(recent.lost_in(&promoted(111)), None);
        assert_eq!(recent.lost_in(&History::new(id(b'c'))), None, "unrelated: unknown");
    }

    #[test]
    fn what_the_new_history_has_told_already_is_not_lost() {
        let mut recent = RecentWrites::default();
        recent.attached(id(b'a'));
        write(&mut recent, 120, &["lost"]);
        recent.attached(id(b'b'));
        write(&mut recent, 130, &["kept"]);
        let lost = recent.lost_in(&promoted(111)).expect("one");
        assert_eq!((lost.writes, names(&lost)), (1, vec!["lost".to_owned()]));
        assert_eq!(recent.lost_in(&promoted(111)), None);
    }

    #[test]
    fn a_link_that_stands_again_goes_on_where_it_was() {
        let mut recent = RecentWrites::default();
        recent.attached(id(b'a'));
        write(&mut recent, 120, &["x"]);
        recent.detached();
        recent.detached();
        recent.attached(id(b'a'));
        write(&mut recent, 130, &["y"]);
        recent.attached(id(b'b'));
        recent.detached();
        let lost = recent.lost_in(&promoted(111)).expect("both");
        assert_eq!((lost.writes, names(&lost)), (2, vec!["x".to_owned(), "y".to_owned()]));
        // Of histories that nobody asks about only the last ones are kept.
        for letter in b'c'..=b'f' {
            recent.attached(id(letter));
        }
        assert_eq!(recent.left.len(), HISTORIES_LEFT);
    }

    #[test]
    fn nothing_is_lost_where_the_new_history_goes_as_far() {
        let mut recent = RecentWrites::default();
        recent.attached(id(b'a'));
        write(&mut recent, 110, &["kept"]);
        recent.detached();
        assert_eq!(recent.lost_in(&promoted(111)), None);
    }

    #[test]
    fn what_is_not_remembered_is_said_to_be_so() {
        let mut recent = RecentWrites::default();
        recent.attached(id(b'a'));
        (0..=WRITES_KEPT as u64).for_each(|n| write(&mut recent, 1000 + n, &[&format!("k{n}")]));
        recent.detached();
        let lost = recent.lost_in(&promoted(1001)).expect("all but the first");
        assert!(lost.known && !lost.named, "there are more than a report names");
        assert_eq!((lost.writes, lost.keys.len()), (WRITES_KEPT as u64, KEYS_NAMED));
        assert_eq!((&lost.keys[0][..], &lost.keys[999][..]), (&b"k1"[..], &b"k1000"[..]));
        let mut recent = RecentWrites::default();
        recent.attached(id(b'a'));
        (0..=WRITES_KEPT as u64).for_each(|n| write(&mut recent, 1000 + n, &[]));
        recent.detached();
        assert!(!recent.lost_in(&promoted(1000)).expect("all").known, "the first is forgotten");
        let mut recent = RecentWrites::default();
        recent.attached(id(b'a'));
        write(&mut recent, 100, &[&"x".repeat(LONGEST_NAMED + 1)]);
        write(&mut recent, 110, &["short"]);
        recent.detached();
        let lost = recent.lost_in(&promoted(50)).expect("both");
        assert_eq!((lost.writes, names(&lost), lost.named), (2, vec!["short".to_owned()], false));
    }

    #[test]
    fn keys_take_only_so_much_room() {
        let mut recent = RecentWrites::default();
        recent.attached(id(b'a'));
        let key = |n: u64| format!("{n:0500}");
        (0..20_000).for_each(|n| write(&mut recent, 1000 + n, &[&key(n)]));
        let kept = recent.now.as_ref().expect("attached");
        assert!(kept.names.len() <= NAMES_KEPT && kept.writes.len() == NAMES_KEPT / 500);
        recent.detached();
        let lost = recent.lost_in(&promoted(20_500)).expect("the last ones");
        assert_eq!((lost.writes, names(&lost).first().cloned()), (500, Some(key(19_500))));
        assert!(lost.known && lost.named);
    }
}
