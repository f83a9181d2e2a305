//! Writes that a failover lost: the replication link had told them in the old history, and the new one does not go that
//! far (`second_repl_offset`). At least so many: a replica as the source tells only what it had received itself.

use std::collections::{BTreeSet, VecDeque};
use std::mem;

use crate::core::position::{History, Offset, ReplId};
use crate::mutant;

/// So many writes are remembered of each history at least, and twice as many at most.
const WRITES_KEPT: usize = 1 << 16;

/// The same in bytes of their keys, if that is fewer.
const NAMES_KEPT: usize = 2 << 20;

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

/// The last writes of a history, and those before them: when there is room for no more, the earlier ones go all at once, so
/// that a write costs no more than to be added.
#[derive(Debug)]
struct InHistory {
    id: ReplId,
    early: Told,
    late: Told,
    /// Where the last one ended that is not remembered.
    forgotten: Option<Offset>,
}

/// Writes, in the order of the stream.
#[derive(Debug, Default)]
struct Told {
    writes: Vec<RecentWrite>,
    /// The keys of all of them, one after the other, each after its length (two bytes).
    names: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct RecentWrite {
    end: Offset,
    /// Where its keys begin among the names.
    names: u32,
    /// It may have written other keys as well.
    unnamed: bool,
}

impl RecentWrites {
    /// The link goes on in history `id`.
    pub fn attached(&mut self, id: ReplId) {
        if self.now.as_ref().is_some_and(|now| now.id == id) {
            return;
        }
        self.detached();
        let known = self.left.iter().position(|left| left.id == id);
        let new = || InHistory { id, early: Told::default(), late: Told::default(), forgotten: None };
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
        if now.late.writes.len() == WRITES_KEPT {
            now.forget_early();
        }
        let names = now.late.names.len() as u32;
        now.late.writes.push(RecentWrite { end, names, unnamed });
    }

    /// The last write wrote this key.
    pub fn named(&mut self, key: &[u8]) {
        let Some(now) = &mut self.now else { return };
        let has_room = |late: &Told| late.names.len() + size_of::<u16>() + key.len() <= NAMES_KEPT;
        if !has_room(&now.late) && now.late.writes.len() > 1 {
            let last = now.late.take_last();
            now.forget_early();
            now.late = last;
        }
        if key.len() > LONGEST_NAMED || !has_room(&now.late) {
            return self.left_unnamed();
        }
        now.late.names.extend_from_slice(&(key.len() as u16).to_le_bytes());
        now.late.names.extend_from_slice(key);
    }

    /// Not all that the last write wrote could be told.
    pub fn left_unnamed(&mut self) {
        if let Some(write) = self.now.as_mut().and_then(|now| now.late.writes.last_mut()) {
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
    fn forget_early(&mut self) {
        if let Some(last) = self.early.writes.last() {
            self.forgotten = Some(last.end);
        }
        mem::swap(&mut self.early, &mut self.late);
        self.late.writes.clear();
        self.late.names.clear();
    }

    /// The writes that ended at `end` or later, for history `id` has other bytes there.
    fn from(self, end: Offset, id: ReplId) -> Option<LostTail> {
        let known = self.forgotten.is_none_or(|forgotten| forgotten < end);
        let lost = [self.early.from(end), self.late.from(end)];
        let writes = || lost.iter().flat_map(|(writes, _)| *writes);
        let (mut seen, mut keys, mut named) = (BTreeSet::new(), Vec::new(), known);
        for key in lost.iter().flat_map(|(_, names)| each(names)).filter(|key| seen.insert(*key)) {
            if keys.len() == KEYS_NAMED {
                named = false;
                break;
            }
            keys.push(key.to_vec());
        }
        Some(LostTail {
            previous: self.id,
            id,
            from: Offset::new(end.bytes().saturating_sub(1)),
            upto: writes().last()?.end,
            writes: writes().count() as u64,
            keys,
            named: named && !writes().any(|write| write.unnamed),
            known,
        })
    }
}

impl Told {
    /// The last write by itself, with its keys so far.
    fn take_last(&mut self) -> Self {
        let Some(last) = self.writes.pop() else { return Self::default() };
        let names = self.names.split_off((last.names as usize).min(self.names.len()));
        Self { writes: vec![RecentWrite { names: 0, ..last }], names }
    }

    /// The writes that ended at `end` or later, and their names.
    fn from(&self, end: Offset) -> (&[RecentWrite], &[u8]) {
        let kept = self.writes.partition_point(|write| write.end < end && !mutant::is("told-as-lost"));
        let writes = self.writes.get(kept..).unwrap_or_default();
        let names = writes.first().and_then(|first| self.names.get(first.names as usize..));
        (writes, names.unwrap_or_default())
    }
}

/// The keys among names.
fn each(mut names: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = names.split_first_chunk()?;
        let (key, rest) = rest.split_at_checked(u16::from_le_bytes(*length).into())?;
        names = rest;
        Some(key)
    })
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
        (0..=2 * WRITES_KEPT as u64).for_each(|n| write(&mut recent, 1000 + n, &[]));
        recent.detached();
        let lost = recent.lost_in(&promoted(1000)).expect("those that are remembered");
        assert_eq!(
            (lost.known, lost.writes),
            (false, WRITES_KEPT as u64 + 1),
            "the first ones are forgotten"
        );
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
        for told in [&kept.early, &kept.late] {
            assert!(told.names.len() <= NAMES_KEPT && told.writes.len() <= NAMES_KEPT / 502);
        }
        assert_eq!(kept.early.writes.len(), NAMES_KEPT / 502, "it was full");
        recent.detached();
        let lost = recent.lost_in(&promoted(20_500)).expect("the last ones");
        assert_eq!((lost.writes, names(&lost).first().cloned()), (500, Some(key(19_500))));
        assert!(lost.known && lost.named);
    }
}
