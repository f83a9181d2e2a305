//! What rates there were: by what two looks differ.

use std::collections::{BTreeMap, VecDeque};

use super::overview::{Commands, Overview};

/// Looks of which the share of reads at replicas is kept.
const KEPT: usize = 600;

/// What the last looks have shown.
#[derive(Debug, Default)]
pub(super) struct History {
    before: Option<(u64, BTreeMap<Kind, u64>)>,
    /// Commands a second, by the last two looks, the most first.
    rates: Vec<(Commands, f64)>,
    /// The share of reads that replicas have answered, of a hundred, the oldest first; `None` where there were none.
    shares: VecDeque<Option<f64>>,
}

/// Access, target, reason.
type Kind = (String, String, String);

impl History {
    /// There was another look.
    pub(super) fn note(&mut self, overview: &Overview) {
        let kind = |c: &Commands| (c.access.clone(), c.target.clone(), c.reason.clone());
        let totals: BTreeMap<Kind, u64> = overview.commands.iter().map(|c| (kind(c), c.total)).collect();
        if let Some((at, before)) = self.before.take()
            && overview.at_ms > at
        {
            let seconds = (overview.at_ms - at) as f64 / 1000.0;
            // Another process counts anew.
            let more = |c: &Commands| c.total.saturating_sub(before.get(&kind(c)).copied().unwrap_or(0));
            self.rates = overview.commands.iter().map(|c| (c.clone(), more(c) as f64 / seconds)).collect();
            self.rates.retain(|(_, rate)| *rate > 0.0);
            self.rates.sort_by(|(_, one), (_, other)| other.total_cmp(one));
            let (replica, primary) = (self.rate("read", "replica"), self.rate("read", "primary"));
            let all = replica + primary;
            self.shares.push_back((all > 0.0).then(|| 100.0 * replica / all));
            if self.shares.len() > KEPT {
                self.shares.pop_front();
            }
        }
        self.before = Some((overview.at_ms, totals));
    }

    /// Commands a second that do this and went there.
    pub(super) fn rate(&self, access: &str, target: &str) -> f64 {
        let is = |c: &Commands| c.access == access && c.target == target;
        self.rates.iter().filter(|(c, _)| is(c)).fold(0.0, |sum, (_, rate)| sum + rate)
    }

    /// Commands a second by kind, the most first.
    pub(super) fn rates(&self) -> &[(Commands, f64)] {
        &self.rates
    }

    /// The share of reads at replicas in the last looks, the oldest first.
    pub(super) fn shares(&self) -> impl DoubleEndedIterator<Item = Option<f64>> + ExactSizeIterator {
        self.shares.iter().copied()
    }

    /// The last of them.
    pub(super) fn share(&self) -> Option<f64> {
        self.shares.back().copied().flatten()
    }

    /// The rates in words, a line each.
    pub(super) fn lines(&self) -> Vec<String> {
        let share = self.share().map_or_else(|| "-".to_owned(), |share| format!("{share:.1} %"));
        let mut lines = vec![format!(
            "reads at replicas: {share}; a second: reads {:.0} at replicas, {:.0} at the primary, {:.0} refused; writes {:.0}",
            self.rate("read", "replica"),
            self.rate("read", "primary"),
            self.rate("read", "refused"),
            self.rate("write", "primary"),
        )];
        lines.extend(self.rates.iter().map(|(c, rate)| {
            format!("{rate:>9.0}/s  {:<5} {:<7} {}: {}", c.access, c.target, c.reason, c.text)
        }));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overview(at_ms: u64, fresh: u64, fenced: u64) -> Overview {
        let commands = |target: &str, reason: &str, total| Commands {
            access: "read".to_owned(),
            target: target.to_owned(),
            reason: reason.to_owned(),
            total,
            ..Commands::default()
        };
        let commands = vec![commands("primary", "behind_fence", fenced), commands("replica", "fresh", fresh)];
        Overview { at_ms, commands, ..Overview::default() }
    }

    #[test]
    fn rates_are_what_two_looks_differ_by() {
        let mut history = History::default();
        history.note(&overview(1_000, 50, 50));
        assert_eq!(history.share(), None);
        history.note(&overview(3_000, 230, 70));
        assert_eq!((history.rate("read", "replica"), history.rate("read", "primary")), (90.0, 10.0));
        assert_eq!(history.share(), Some(90.0));
        assert_eq!(history.rates()[0].0.reason, "fresh");
        history.note(&overview(4_000, 230, 70));
        assert_eq!((history.share(), history.rates().len(), history.shares().len()), (None, 0, 2));
        // Another process has taken its place.
        history.note(&overview(5_000, 5, 5));
        assert_eq!(history.share(), None);
    }
}
