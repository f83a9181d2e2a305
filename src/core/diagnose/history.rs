//! What is remembered of earlier looks: those of the last minute, and what has happened to the primary.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::core::diagnose::seen::{Look, Report};
use crate::core::moment::Moment;
use crate::core::position::{History as Stream, Offset};

/// For how long looks are kept.
pub const KEPT: Duration = Duration::from_mins(1);

/// How many looks are kept.
const MOST_LOOKS: usize = 32;

/// For how long something that has happened is told of.
pub const TOLD: Duration = Duration::from_mins(10);

/// How many things that have happened are kept.
const MOST_INCIDENTS: usize = 16;

/// A primary that came back as another process, without its history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incident {
    /// When that was seen.
    pub at: Moment,
    /// Its address.
    pub node: String,
    /// What it was.
    pub before: Process,
    /// What it is.
    pub after: Process,
}

impl Incident {
    /// Whether it had keys, and came back without any.
    pub fn is_empty(&self) -> bool {
        self.before.keys.is_some_and(|keys| keys > 0) && self.after.keys.unwrap_or(0) == 0
    }
}

/// A primary, as far as it matters whether it is the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// `run_id`
    pub run_id: String,
    /// Its history.
    pub history: Stream,
    /// Its head.
    pub offset: Offset,
    /// Its keys.
    pub keys: Option<u64>,
    /// `uptime_in_seconds`
    pub uptime_seconds: Option<u64>,
}

impl Process {
    fn of(report: &Report) -> Option<Self> {
        Some(Self {
            run_id: report.run_id.clone()?,
            history: report.history?,
            offset: report.offset?,
            keys: report.keys,
            uptime_seconds: report.uptime_seconds,
        })
    }

    /// Whether `next` is another process, which knows nothing of the history of this one.
    fn was_lost_by(&self, next: &Self) -> bool {
        self.run_id != next.run_id && !next.history.continues(self.history.id)
    }
}

/// The memory.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    looks: VecDeque<Look>,
    incidents: VecDeque<Incident>,
    /// The primaries as they were when they last said that they are.
    primaries: BTreeMap<String, Process>,
}

impl Memory {
    /// Takes in one more look.
    pub fn take(&mut self, look: Look) {
        for seen in &look.nodes {
            if seen.as_replica().is_some() {
                // It has taken over another history: what it was as a primary is of no account any longer.
                self.primaries.remove(&seen.node);
            }
            let Some(after) = seen.as_primary().filter(|report| !report.loading).and_then(Process::of) else {
                continue;
            };
            let before = self.primaries.insert(seen.node.clone(), after.clone());
            if let Some(before) = before.filter(|before| before.was_lost_by(&after)) {
                self.incidents.push_back(Incident { at: look.at, node: seen.node.clone(), before, after });
            }
        }
        self.primaries.retain(|node, _| look.node(node).is_some());
        self.incidents.retain(|incident| look.at.since(incident.at) <= TOLD);
        while self.incidents.len() > MOST_INCIDENTS {
            self.incidents.pop_front();
        }
        let now = look.at;
        self.looks.push_back(look);
        while self.looks.len() > MOST_LOOKS
            || self.looks.front().is_some_and(|look| now.since(look.at) > KEPT)
        {
            self.looks.pop_front();
        }
    }

    /// The looks that are remembered, the oldest first.
    pub fn looks(&mut self) -> &[Look] {
        self.looks.make_contiguous()
    }

    /// The looks and what has happened.
    pub fn all(&mut self) -> (&[Look], &[Incident]) {
        (self.looks.make_contiguous(), self.incidents.make_contiguous())
    }
}
