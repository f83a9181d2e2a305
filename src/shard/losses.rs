//! What failovers have lost, as far as it was noticed: the last of them, to be asked for.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::core::moment::Moment;
use crate::core::stream::lost::Loss;

/// How many are kept.
const KEPT: usize = 16;

/// The last losses.
#[derive(Debug, Default)]
pub struct Losses(Mutex<VecDeque<(Moment, Loss)>>);

impl Losses {
    /// One was noticed at `now`.
    pub fn add(&self, loss: Loss, now: Moment) {
        let mut all = self.all();
        if all.len() == KEPT {
            all.pop_front();
        }
        all.push_back((now, loss));
    }

    /// The oldest first, each with when it was noticed.
    pub fn list(&self) -> Vec<(Moment, Loss)> {
        self.all().iter().cloned().collect()
    }

    fn all(&self) -> MutexGuard<'_, VecDeque<(Moment, Loss)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
