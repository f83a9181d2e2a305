//! Writes that a failover lost: the replication link had told them in the old history, and the new one does not go that
//! far (`second_repl_offset`). At least so many: a replica as the source tells only what it had received itself.

use std::collections::VecDeque;

use crate::core::position::{History, Offset, ReplId};

/// Writes that are remembered. A failover that loses more is counted as this many.
const KEPT: usize = 1 << 16;

/// The last writes that the stream told, by where they ended.
#[derive(Debug, Default)]
pub struct RecentWrites {
    now: Option<InHistory>,
    /// Those of the history before, until it is known what became of them.
    before: Option<InHistory>,
}

#[derive(Debug)]
struct InHistory {
    id: ReplId,
    ends: VecDeque<Offset>,
}

impl RecentWrites {
    /// The link goes on in history `id`.
    pub fn attached(&mut self, id: ReplId) {
        if self.now.as_ref().is_none_or(|now| now.id != id) {
            let before = self.now.replace(InHistory { id, ends: VecDeque::new() });
            self.before = before.or(self.before.take());
        }
    }

    /// A write ended at `end`.
    pub fn wrote(&mut self, end: Offset) {
        let Some(now) = &mut self.now else { return };
        if now.ends.len() == KEPT {
            now.ends.pop_front();
        }
        now.ends.push_back(end);
    }

    /// The primary's history is `history`: how many of the writes told are not in it. Counted once.
    pub fn lost_in(&mut self, history: &History) -> u64 {
        let Some((previous, end)) = history.previous else { return 0 };
        let is_over = |recent: &mut InHistory| recent.id == previous;
        // The link may still be in the old history, or in the new one already.
        let recent = self.now.take_if(is_over).or_else(|| self.before.take_if(is_over));
        recent.map_or(0, |recent| recent.ends.iter().filter(|write| **write >= end).count() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_new_history_does_not_reach_is_lost_and_counted_once() {
        let id = |letter: u8| ReplId::parse(&[letter; 40]).expect("forty letters");
        let mut recent = RecentWrites::default();
        recent.attached(id(b'a'));
        for end in [100, 110, 120, 130] {
            recent.wrote(Offset::new(end));
        }
        assert_eq!(recent.lost_in(&History::new(id(b'a'))), 0);
        let promoted = History { id: id(b'b'), previous: Some((id(b'a'), Offset::new(111))) };
        assert_eq!(recent.lost_in(&promoted), 2, "those that ended at 120 and 130");
        assert_eq!(recent.lost_in(&promoted), 0);
        assert_eq!(recent.lost_in(&History::new(id(b'c'))), 0, "unrelated: unknown");
    }

    #[test]
    fn what_the_new_history_has_told_already_is_not_lost() {
        let id = |letter: u8| ReplId::parse(&[letter; 40]).expect("forty letters");
        let mut recent = RecentWrites::default();
        recent.attached(id(b'a'));
        recent.wrote(Offset::new(120));
        recent.attached(id(b'b'));
        recent.wrote(Offset::new(130));
        let promoted = History { id: id(b'b'), previous: Some((id(b'a'), Offset::new(111))) };
        assert_eq!(recent.lost_in(&promoted), 1);
    }
}
