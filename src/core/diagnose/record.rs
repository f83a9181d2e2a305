//! What is found, since when: what is new and what has gone is told once. Of whom nothing can be seen, nothing has gone.

use std::time::Duration;

use crate::core::diagnose::finding::Finding;

/// A finding, and since when it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What is found, as it was seen last.
    pub finding: Finding,
    /// Since when, as the time since 1970: when it was first seen, or earlier, if the servers tell so.
    pub since: Duration,
}

/// All that stands.
#[derive(Clone, Debug, Default)]
pub struct Record {
    standing: Vec<Standing>,
    /// What stood before nothing could be seen of it: whether it does still, the next look at it tells.
    unseen: Vec<Standing>,
}

/// What differs from the look before.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// What is new, or has become worse.
    pub appeared: Vec<Standing>,
    /// What has gone.
    pub cleared: Vec<Standing>,
}

impl Record {
    /// What is found now; `is_unseen` tells of which nodes nothing could be seen, and `now` is the time since 1970.
    pub fn take(
        &mut self,
        findings: Vec<Finding>,
        is_unseen: impl Fn(&str) -> bool,
        now: Duration,
    ) -> Changes {
        let mut before = std::mem::take(&mut self.standing);
        before.append(&mut self.unseen);
        let mut changes = Changes::default();
        for finding in findings {
            let is_same =
                |known: &Standing| known.finding.code == finding.code && known.finding.node == finding.node;
            let known = before.iter().position(is_same).map(|at| before.swap_remove(at));
            let since = known.as_ref().map_or_else(|| now.saturating_sub(finding.lasts), |known| known.since);
            let is_news = known.is_none_or(|known| known.finding.severity < finding.severity);
            let standing = Standing { finding, since };
            if is_news {
                changes.appeared.push(standing.clone());
            }
            self.standing.push(standing);
        }
        (self.unseen, changes.cleared) =
            before.into_iter().partition(|standing| is_unseen(&standing.finding.node));
        changes
    }

    /// All that stands, the worst first.
    pub fn standing(&self) -> Vec<Standing> {
        let mut all = self.standing.clone();
        all.sort_by(|a, b| {
            let key = |s: &Standing| {
                (std::cmp::Reverse(s.finding.severity), s.finding.code, s.finding.node.clone())
            };
            key(a).cmp(&key(b))
        });
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::diagnose::code::{Code, Severity};

    fn found(severity: Severity, lasts: u64) -> Finding {
        let finding = Finding::new(Code::LinkBroken, severity, "a:1", String::new(), String::new());
        finding.lasting(Duration::from_secs(lasts))
    }

    #[test]
    fn what_cannot_be_seen_has_not_gone() {
        let (mut record, secs) = (Record::default(), Duration::from_secs);
        let seen = |_: &str| false;
        let unseen = |node: &str| node == "a:1";
        record.take(vec![found(Severity::Warning, 0)], seen, secs(1000));
        let changes = record.take(Vec::new(), unseen, secs(1002));
        assert_eq!((changes.appeared.len(), changes.cleared.len(), record.standing().len()), (0, 0, 0));
        let changes = record.take(vec![found(Severity::Warning, 0)], seen, secs(1004));
        assert_eq!((changes.appeared.len(), changes.cleared.len()), (0, 0), "it has been told of");
        assert_eq!(record.standing()[0].since, secs(1000));
        record.take(Vec::new(), unseen, secs(1006));
        let changes = record.take(Vec::new(), seen, secs(1008));
        assert_eq!((changes.appeared.len(), changes.cleared.len()), (0, 1));
        assert_eq!(record.take(Vec::new(), seen, secs(1010)).cleared.len(), 0);
    }

    #[test]
    fn what_is_new_and_what_has_gone_is_told_once() {
        let (mut record, secs) = (Record::default(), Duration::from_secs);
        let seen = |_: &str| false;
        let changes = record.take(vec![found(Severity::Warning, 7)], seen, secs(1000));
        assert_eq!((changes.appeared.len(), changes.cleared.len()), (1, 0));
        assert_eq!(changes.appeared[0].since, secs(993), "as the server tells");
        let changes = record.take(vec![found(Severity::Warning, 9)], seen, secs(1003));
        assert_eq!((changes.appeared.len(), changes.cleared.len()), (0, 0));
        assert_eq!(record.standing()[0].since, secs(993), "it stays");
        let changes = record.take(vec![found(Severity::Error, 70)], seen, secs(1060));
        assert_eq!(
            (changes.appeared.len(), record.standing()[0].since),
            (1, secs(993)),
            "it has become worse"
        );
        let changes = record.take(Vec::new(), seen, secs(1070));
        assert_eq!((changes.appeared.len(), changes.cleared.len(), record.standing().len()), (0, 1, 0));
    }
}
