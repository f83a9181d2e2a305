//! What one client connection has seen.

use smallvec::SmallVec;

use super::stamps::Stamps;
use crate::core::fence::{AnchorSeq, Era, Mark, Slot};
use crate::core::position::Offset;
use crate::mutant;

/// Keys read from the primary that are remembered one by one.
const SEEN_KEPT: usize = 64;

/// What a connection has seen, and its reads must not fall behind. A reply counts once it is there; until then reads of
/// its key follow the read that asked for it ([`super::Session::follows`]).
///
/// A replica that serves it goes on, as long as it is of the same generation ([`crate::core::nodes::proof`]). In another one it
/// can be behind what it has shown, and so can another replica: either raises the floor of all keys to the next anchor. The primary is ahead of every replica: what it answered for a key
/// holds for that key, until a replica has applied it, or until the stream has passed it and the key's own fence says
/// the same. A key of which the same is asked again and again, and answered by the primary with the same reply, may be as
/// it was the first time: what else was asked of it, or in another database, says nothing about that. Not so once a
/// replica has shown anything of it in between, or the client has written to it: then it may be as it was *again*.
///
/// Where some policy is of level `session`, whose reads look at no fences of others, nobody else says what the connection has
/// written and seen: then it counts its own acknowledged writes itself ([`Self::own`]), and what was seen holds for good. Once
/// its replica has all of it, it is the one offset that any other replica has to have.
#[derive(Clone, Debug)]
pub struct Seen {
    /// It keeps what fences would tell.
    own: bool,
    /// What its replica has proven to have of what was seen: no other replica may be behind that.
    shown: Option<Offset>,
    floor: Mark,
    /// What a token stands for. Reads that do not look at the fences of their keys need it for good.
    token: Option<Offset>,
    /// The life of the fence table in which all this means something.
    life: u64,
    /// In which the offsets were learnt.
    era: Era,
    keys: SmallVec<[SeenKey; 2]>,
}

#[derive(Clone, Copy, Debug)]
struct SeenKey {
    slot: Slot,
    /// Of the question and the reply; `None` once something else may have been shown.
    digest: Option<u64>,
    mark: Mark,
    /// It was written on this connection, and not read since.
    written: bool,
    /// What was asked of it again before a replica had it was news again.
    renewed: bool,
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            own: false,
            shown: None,
            floor: Mark::Clear,
            token: None,
            life: 0,
            era: Era(0),
            keys: SmallVec::new(),
        }
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

    /// Nothing was seen that a replica which has applied so much might lack.
    pub fn is_met_by(&self, applied: Offset, era: Era) -> bool {
        let shown = self.shown.is_none_or(|shown| shown <= applied);
        shown && self.is_of(era) && self.floor == Mark::Clear && self.keys.is_empty() && self.token.is_none()
    }

    /// Whether what it knows by itself of offsets was learnt in this era.
    fn is_of(&self, era: Era) -> bool {
        !self.own || self.era == era || mutant::is("session-across-eras")
    }

    /// Nothing was written or seen.
    fn is_empty(&self) -> bool {
        self.floor == Mark::Clear && self.keys.is_empty() && self.shown.is_none()
    }

    /// From now on it counts what it has written and seen itself. What that was before is not known: `next` is the next
    /// anchor.
    pub fn count_own(&mut self, next: AnchorSeq) {
        if !std::mem::replace(&mut self.own, true) {
            self.everything(next);
        }
    }

    /// The same of a new connection, which has written and seen nothing.
    pub fn begin_with_own(&mut self) {
        self.own = true;
    }

    /// Whether it counts what it has written and seen itself.
    pub fn counts_own(&self) -> bool {
        self.own
    }

    /// A write to these keys is acknowledged; `next` is the next anchor.
    pub fn wrote(&mut self, stamps: &Stamps, next: AnchorSeq) {
        if mutant::is("own-write-forgotten") {
            return;
        }
        match stamps {
            Stamps::None => {}
            Stamps::One(slot) => self.wrote_key(*slot, next),
            Stamps::Many(slots) => slots.iter().for_each(|slot| self.wrote_key(*slot, next)),
            Stamps::All => self.everything(next),
        }
    }

    fn wrote_key(&mut self, slot: Slot, next: AnchorSeq) {
        let mark = Mark::Pending(next);
        let seen = SeenKey { slot, digest: None, mark, written: true, renewed: false };
        match self.keys.iter_mut().find(|seen| seen.slot == slot) {
            Some(known) => *known = seen,
            None => self.add(seen, next),
        }
    }

    fn add(&mut self, seen: SeenKey, next: AnchorSeq) {
        if self.keys.len() < SEEN_KEPT {
            self.keys.push(seen);
        } else {
            self.keys.clear();
            self.everything(next);
        }
    }

    /// Its replica has applied so much: what of all that was seen it has, it goes on having.
    pub fn absorb(&mut self, applied: Offset) {
        let mut shown = self.shown;
        let mut is_had = |mark: Mark| match mark {
            Mark::At(offset) if offset <= applied => {
                shown = shown.max(Some(offset));
                true
            }
            _ => false,
        };
        if is_had(self.floor) {
            self.floor = Mark::Clear;
        }
        self.keys.retain(|seen| !is_had(seen.mark));
        self.shown = shown;
    }

    /// What a token demands of every replica, however old data the policy tolerates.
    pub fn token(&self) -> Option<Offset> {
        self.token
    }

    /// The fence table is in its life number `life`: what was seen before another history began is gone, and says
    /// nothing about offsets of this one. In another era of the same life an anchor of the primary before may have settled what
    /// waited for one of this primary: whoever counts its own, and asks no fences, has seen all of it then.
    pub fn renew(&mut self, (life, era): (u64, Era), next: AnchorSeq) {
        if self.life != life {
            let floor = if self.is_empty() { Mark::Clear } else { Mark::Pending(next) };
            *self = Self { own: self.own, shown: None, floor, token: None, life, era, keys: SmallVec::new() };
        } else if !self.is_of(era) {
            if !self.is_empty() {
                self.everything(next);
            }
            self.era = era;
        }
    }

    /// The primary has answered a read of this key; `next` is the next anchor.
    pub fn key(&mut self, slot: Slot, digest: u64, next: AnchorSeq) {
        let mark = Mark::Pending(next);
        if let Some(seen) = self.keys.iter_mut().find(|seen| seen.slot == slot) {
            if seen.digest != Some(digest) {
                let renewed = !seen.written;
                *seen = SeenKey { slot, digest: Some(digest), mark, written: false, renewed };
            }
        } else {
            self.add(SeenKey { slot, digest: Some(digest), mark, written: false, renewed: false }, next);
        }
        debug_assert!(self.keys.len() <= SEEN_KEPT, "no more keys than are remembered one by one");
    }

    /// A replica has answered a read of these keys, or a write to them was acknowledged; `any`: of whatever keys.
    pub fn between(&mut self, stamps: &Stamps, any: bool) {
        if mutant::is("again-is-still") {
            return;
        }
        for seen in &mut self.keys {
            if any || stamps.touch(seen.slot) {
                seen.digest = None;
            }
        }
    }

    /// Anchor `anchor` has answered `head`, and the stream was followed up to `passed`: what it has passed the fences say as
    /// well.
    pub fn settle(&mut self, anchor: AnchorSeq, head: Offset, passed: Option<Offset>) {
        let passed = passed.filter(|_| !self.own);
        let settled = |mark: Mark| mark.settled(anchor, head).unless_passed(passed);
        self.floor = settled(self.floor);
        if !self.keys.is_empty() {
            self.keys.iter_mut().for_each(|seen| seen.mark = settled(seen.mark));
            self.keys.retain(|seen| seen.mark != Mark::Clear);
        }
    }

    /// What a replica must have applied to serve any key.
    pub fn floor(&self) -> Mark {
        let shown = self.shown.map_or(Mark::Clear, Mark::At);
        if mutant::is("seen-forgotten") { Mark::Clear } else { stronger(self.floor, shown) }
    }

    /// Whether reads of this key go on and on to the primary, each because the one before it was answered there: a replica
    /// would have what that one has shown, but for its being asked again sooner.
    pub fn is_kept_at_primary(&self, slot: Slot) -> bool {
        self.keys.iter().any(|seen| seen.slot == slot && seen.renewed)
    }

    /// What a replica must have applied to serve this key for the sake of writes on this connection, and for what it has
    /// seen.
    pub fn of_key(&self, slot: Slot) -> (Mark, Mark) {
        match self.keys.iter().find(|seen| seen.slot == slot) {
            Some(seen) if seen.written => (seen.mark, Mark::Clear),
            Some(seen) => (Mark::Clear, seen.mark),
            None => (Mark::Clear, Mark::Clear),
        }
    }

    /// What a replica must have applied to serve any key at all, beyond the floor.
    pub fn of_any(&self) -> Mark {
        self.keys.iter().map(|seen| seen.mark).fold(Mark::Clear, stronger)
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
    fn what_is_as_it_was_before_is_news_once_something_else_was_shown() {
        let table = FenceTable::new(1 << 16, [1, 2, 3, 4]);
        let (a, b) = (table.slot(b"a"), table.slot(b"b"));
        for (stamps, any, renewed) in [
            (Stamps::One(b), false, false),
            (Stamps::One(a), false, true),
            (Stamps::Many(vec![b, a]), false, true),
            (Stamps::All, false, true),
            (Stamps::None, true, true),
        ] {
            let mut seen = Seen::default();
            seen.key(a, 1, AnchorSeq(5));
            seen.between(&stamps, any);
            seen.key(a, 1, AnchorSeq(9));
            assert_eq!(seen.of(a), Mark::Pending(AnchorSeq(if renewed { 9 } else { 5 })), "{stamps:?}");
        }
    }

    #[test]
    fn what_was_seen_of_another_history_is_no_offset_of_this_one() {
        let mut seen = Seen::default();
        seen.up_to(Offset::new(1_000_000));
        seen.renew((0, Era(0)), AnchorSeq(3));
        assert_eq!(
            (seen.floor(), seen.token()),
            (Mark::At(Offset::new(1_000_000)), Some(Offset::new(1_000_000)))
        );
        seen.renew((1, Era(0)), AnchorSeq(3));
        assert_eq!((seen.floor(), seen.token()), (Mark::Pending(AnchorSeq(3)), None));
    }

    #[test]
    fn what_an_anchor_of_the_primary_before_has_settled_is_not_enough_of_this_one() {
        let table = FenceTable::new(1 << 16, [1, 2, 3, 4]);
        let slot = table.slot(b"a");
        let mut seen = Seen::default();
        seen.begin_with_own();
        seen.renew((1, Era(1)), AnchorSeq(4));
        assert!(seen.is_met_by(Offset::new(0), Era(1)), "nothing was written");
        seen.wrote(&Stamps::One(slot), AnchorSeq(5));
        seen.settle(AnchorSeq(5), Offset::new(50), Some(Offset::new(50)));
        assert_eq!(seen.of_key(slot), (Mark::At(Offset::new(50)), Mark::Clear), "nobody else says so");
        seen.absorb(Offset::new(60));
        assert_eq!((seen.of_key(slot).0, seen.floor()), (Mark::Clear, Mark::At(Offset::new(50))));
        assert!(seen.is_met_by(Offset::new(50), Era(1)) && !seen.is_met_by(Offset::new(49), Era(1)));
        assert!(!seen.is_met_by(Offset::new(1000), Era(2)));
        seen.renew((1, Era(2)), AnchorSeq(7));
        assert_eq!(seen.floor(), Mark::Pending(AnchorSeq(7)));
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
}
