//! A slot that moves, or may: since when nothing more was seen of it, and who has yet to say that it is over.

use smallvec::SmallVec;

use crate::core::moment::Moment;
use crate::core::slots::map::ShardIndex;
use crate::mutant;

/// What is known of the move of one slot.
#[derive(Clone, Debug)]
pub(super) struct Motion {
    /// When the last sign of it was seen.
    pub(super) evidence: Moment,
    /// Who takes part, as far as it was seen.
    pub(super) involved: SmallVec<[ShardIndex; 4]>,
    /// Somebody takes part of whom it is not known who it is: it may be anyone.
    pub(super) anyone: bool,
    /// Whose primaries have yet to answer a question sent after that, and not to name the slot as open.
    pub(super) awaits: SmallVec<[ShardIndex; 4]>,
    /// Who has said in such an answer that the slot is its own.
    pub(super) confirmed: Option<ShardIndex>,
    /// When it began, or a key was last seen to come to where the slot goes.
    pub(super) progress: Moment,
}

impl Motion {
    /// Nothing has been seen.
    pub(super) fn new(now: Moment) -> Self {
        Self {
            evidence: now,
            involved: SmallVec::new(),
            anyone: false,
            awaits: SmallVec::new(),
            confirmed: None,
            progress: now,
        }
    }

    /// A sign of it was seen at `now`, in which these take part. `None`: somebody who is not known. `all`: everybody who is.
    pub(super) fn see(
        &mut self,
        now: Moment,
        shards: impl IntoIterator<Item = Option<ShardIndex>>,
        all: impl IntoIterator<Item = ShardIndex>,
    ) {
        for shard in shards {
            match shard {
                Some(shard) if self.involved.contains(&shard) => {}
                Some(shard) => self.involved.push(shard),
                None => self.anyone = true,
            }
        }
        self.evidence = self.evidence.max(now);
        self.confirmed = None;
        self.awaits = self.involved.clone();
        if self.anyone {
            let others = all.into_iter().filter(|shard| !self.involved.contains(shard));
            self.awaits.extend(others);
        }
    }

    /// Keys were seen to move.
    pub(super) fn goes_on(&mut self, now: Moment) {
        self.progress = self.progress.max(now);
    }

    /// A shard is there that was not known.
    pub(super) fn join(&mut self, shard: ShardIndex) {
        if self.anyone && !self.awaits.contains(&shard) {
            self.awaits.push(shard);
        }
    }

    /// A shard is there no longer.
    pub(super) fn leave(&mut self, shard: ShardIndex) {
        self.involved.retain(|involved| *involved != shard);
        self.awaits.retain(|awaited| *awaited != shard);
        self.confirmed = self.confirmed.filter(|confirmed| *confirmed != shard);
    }

    /// Whether a question that was sent at `asked_at` was sent after the last sign.
    pub(super) fn is_before(&self, asked_at: Moment) -> bool {
        asked_at > self.evidence || mutant::is("early-answers-count")
    }

    /// A primary's answer to a question that was sent after the last sign does not name the slot as open. `owns`: it
    /// names it as its own, under an epoch that counts.
    pub(super) fn close(&mut self, shard: ShardIndex, owns: bool) {
        self.awaits.retain(|awaited| *awaited != shard);
        if owns {
            self.confirmed = Some(shard);
        } else if self.confirmed == Some(shard) {
            self.confirmed = None;
        }
    }

    /// Whether this shard is known to take part.
    pub(super) fn involves(&self, shard: ShardIndex) -> bool {
        self.involved.contains(&shard)
    }

    /// Who has yet to answer.
    pub(super) fn awaits(&self) -> &[ShardIndex] {
        &self.awaits
    }

    /// Whether it is over, and the slot is `owner`'s.
    pub(super) fn is_over(&self, owner: Option<ShardIndex>) -> bool {
        let all = self.awaits.is_empty() || mutant::is("one-side-suffices");
        all && owner.is_some() && self.confirmed == owner
    }
}
