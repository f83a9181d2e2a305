//! Commands of one client that wait somewhere before they are sent on to another node of a cluster, because none would execute
//! them yet.

use std::cell::RefCell;

use crate::core::session::Stamps;

/// They stay until all before them is answered.
#[derive(Debug, Default)]
pub struct Astray {
    /// By their numbers.
    waiting: RefCell<Vec<Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    /// Its number in the client's order.
    seq: u64,
    /// What it is about, as far as that is noted for reads behind it …
    stamps: Stamps,
    /// … and its keys.
    keys: Keys,
    /// A write to one of them that was said behind it has been executed before it.
    overtaken: bool,
}

/// Keys, hashed; `None`: they may be any.
pub type Keys = Option<Vec<u64>>;

impl Astray {
    /// Whether there are none, as nearly always.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.waiting.borrow().is_empty()
    }

    /// All were answered.
    pub fn clear(&self) {
        self.waiting.borrow_mut().clear();
    }

    /// Command number `seq`, about these keys, waits.
    pub fn add(&self, seq: u64, stamps: &Stamps, keys: impl FnOnce() -> Keys) {
        let mut all = self.waiting.borrow_mut();
        if let Err(at) = all.binary_search_by_key(&seq, |waiting| waiting.seq) {
            all.insert(at, Waiting { seq, stamps: stamps.clone(), keys: keys(), overtaken: false });
        }
    }

    /// Whether one before number `seq` of which `concerns` is so waits. All before number `oldest` are answered.
    pub fn is_any_before(&self, seq: u64, oldest: u64, concerns: impl Fn(&Stamps) -> bool) -> bool {
        let mut all = self.waiting.borrow_mut();
        let answered = all.partition_point(|waiting| waiting.seq < oldest);
        all.drain(..answered);
        all.iter().take_while(|waiting| waiting.seq < seq).any(|waiting| concerns(&waiting.stamps))
    }

    /// Write number `seq` to these keys was executed, whatever waits.
    pub fn is_executed(&self, seq: u64, keys: &Keys) {
        for waiting in self.waiting.borrow_mut().iter_mut().take_while(|waiting| waiting.seq < seq) {
            waiting.overtaken |= match (keys, &waiting.keys) {
                (Some(written), Some(keys)) => written.iter().any(|key| keys.contains(key)),
                _ => true,
            };
        }
    }

    /// Whether number `seq`, which waits, would undo what was said behind it and is executed.
    pub fn is_overtaken(&self, seq: u64) -> bool {
        let all = self.waiting.borrow();
        let at = all.binary_search_by_key(&seq, |waiting| waiting.seq);
        at.is_ok_and(|at| all.get(at).is_some_and(|waiting| waiting.overtaken))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_behind_a_command_and_executed_before_it_is_known() {
        let astray = Astray::default();
        astray.add(5, &Stamps::None, || Some(vec![3]));
        astray.add(3, &Stamps::All, || Some(vec![1, 2]));
        astray.add(3, &Stamps::None, || None);
        assert!(astray.is_any_before(4, 0, |stamps| *stamps == Stamps::All));
        assert!(!astray.is_any_before(3, 0, |_| true));
        astray.is_executed(4, &Some(vec![3]));
        astray.is_executed(2, &Some(vec![1]));
        assert!(!astray.is_overtaken(3) && !astray.is_overtaken(5), "neither is about what is behind it");
        astray.is_executed(6, &Some(vec![4, 2]));
        assert!(astray.is_overtaken(3) && !astray.is_overtaken(5));
        astray.is_executed(7, &None);
        assert!(astray.is_overtaken(5), "it may be to any key");
        assert!(!astray.is_any_before(4, 4, |_| true), "what is answered is forgotten");
        assert!(!astray.is_overtaken(3) && astray.is_overtaken(5));
        astray.clear();
        assert!(astray.is_empty());
    }
}
