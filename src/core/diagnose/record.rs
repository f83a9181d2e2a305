//! What is found, since when: what is new and what has gone is told once. Of whom nothing can be seen, nothing has gone. What
//! comes and goes from one look to the next stands until it stays away.

use std::time::Duration;

use crate::core::diagnose::code::{Code, Severity};
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
    /// Looks go on: what one of them shows may be a moment, and so may be that it does not.
    goes_on: bool,
    known: Vec<Known>,
    /// What one look alone has shown, and is not told yet: what, of whom, and since when.
    doubted: Vec<(Code, String, Duration)>,
}

/// What is known of a finding that stands, or stood before nothing could be seen of it.
#[derive(Clone, Debug)]
struct Known {
    standing: Standing,
    /// Something is seen of the node: if not, whether it still stands, the next look at it tells.
    is_seen: bool,
    /// Looks without it since it was seen last.
    missed: u32,
    /// When it was seen last, or could have been.
    last: Duration,
    /// When it was missed first.
    gone_at: Option<Duration>,
}

/// What differs from the look before.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// What is new, or has become worse.
    pub appeared: Vec<Standing>,
    /// What has gone.
    pub cleared: Vec<Cleared>,
}

/// What has gone.
#[derive(Clone, Debug)]
pub struct Cleared {
    /// As it was seen last.
    pub finding: Finding,
    /// How long it stood.
    pub lasted: Duration,
}

/// What is missed for so many looks, …
const GONE_AFTER_LOOKS: u32 = 3;
/// … or for so long, has gone.
const GONE_AFTER: Duration = Duration::from_secs(15);

/// What a restart shows for a moment: it is told when a second look shows it, too, or when it has lasted by what the servers tell.
const DOUBTED: [Code; 2] = [Code::Unreachable, Code::ReplicasMissing];

/// What does not come and go: it is set so, or it is judged by all looks of the last minute.
const STEADY: [Code; 10] = [
    Code::RunIdChanged,
    Code::RestartedEmpty,
    Code::ResyncLoop,
    Code::TimeoutTooShort,
    Code::HeartbeatTooRare,
    Code::UnprotectedWrites,
    Code::ServesStale,
    Code::WritableReplica,
    Code::VersionSkew,
    Code::Thp,
];

/// Of these a node has one at a time: how it answers, and how its link is. What is found takes the place of what was.
const ONE_OF: [&[Code]; 2] = [
    &[Code::Unreachable, Code::Noauth, Code::Loading],
    &[Code::LinkBroken, Code::FullResyncRunning, Code::AuthMismatch, Code::NeverSynced, Code::TcpHang],
];

impl Record {
    /// One that many looks are taken into: what comes and goes from one to the next stands.
    pub fn that_goes_on() -> Self {
        Self { goes_on: true, ..Self::default() }
    }

    /// What is found now; `is_unseen` tells of which nodes nothing could be seen, and `now` is the time since 1970.
    pub fn take(
        &mut self,
        findings: Vec<Finding>,
        is_unseen: impl Fn(&str) -> bool,
        now: Duration,
    ) -> Changes {
        let mut before = std::mem::take(&mut self.known);
        let doubted = std::mem::take(&mut self.doubted);
        let mut changes = Changes::default();
        for finding in findings {
            let is_same = |known: &Known| {
                let known = &known.standing.finding;
                known.code == finding.code && known.node == finding.node
            };
            let known = before.iter().position(is_same).map(|at| before.swap_remove(at).standing);
            let begun = now.saturating_sub(finding.lasts);
            let since = known.as_ref().map_or_else(
                || {
                    let earlier =
                        doubted.iter().find(|(code, node, _)| *code == finding.code && *node == finding.node);
                    earlier.map_or(begun, |(.., since)| begun.min(*since))
                },
                |known| known.since,
            );
            if self.goes_on && known.is_none() && DOUBTED.contains(&finding.code) && since == now {
                self.doubted.push((finding.code, finding.node, now));
                continue;
            }
            let is_news = known.is_none_or(|known| known.finding.severity < finding.severity);
            let standing = Standing { finding, since };
            if is_news {
                changes.appeared.push(standing.clone());
            }
            self.known.push(Known { standing, is_seen: true, missed: 0, last: now, gone_at: None });
        }
        for known in before {
            if is_unseen(&known.standing.finding.node) {
                self.known.push(Known { is_seen: false, last: now, ..known });
                continue;
            }
            let gone_at = known.gone_at.unwrap_or(now);
            let known = Known { missed: known.missed + 1, gone_at: Some(gone_at), ..known };
            if self.has_gone(&known, now) {
                let Standing { finding, since } = known.standing;
                changes.cleared.push(Cleared { finding, lasted: gone_at.saturating_sub(since) });
            } else {
                self.known.push(known);
            }
        }
        changes
    }

    /// Whether something that is not found any more is over, and not only for a moment.
    fn has_gone(&self, missed: &Known, now: Duration) -> bool {
        let finding = &missed.standing.finding;
        let takes_its_place = |known: &Known| {
            let other = &known.standing.finding;
            let is_one_of = |codes: &&[Code]| codes.contains(&finding.code) && codes.contains(&other.code);
            known.missed == 0 && known.is_seen && other.node == finding.node && ONE_OF.iter().any(is_one_of)
        };
        !self.goes_on
            || finding.severity == Severity::Info
            || STEADY.contains(&finding.code)
            || missed.missed >= GONE_AFTER_LOOKS
            || now.saturating_sub(missed.last) >= GONE_AFTER
            || self.known.iter().any(takes_its_place)
    }

    /// Whether the next look shall come soon: something was seen once, and is not told yet.
    pub fn is_in_doubt(&self) -> bool {
        !self.doubted.is_empty()
    }

    /// All that stands, the worst first.
    pub fn standing(&self) -> Vec<Standing> {
        let seen = self.known.iter().filter(|known| known.is_seen);
        let mut all: Vec<Standing> = seen.map(|known| known.standing.clone()).collect();
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

    fn of(code: Code, severity: Severity) -> Finding {
        Finding::new(code, severity, "a:1", String::new(), String::new())
    }

    /// How many have appeared, have gone, and stand.
    fn takes(record: &mut Record, findings: &[Finding], second: u64) -> (usize, usize, usize) {
        let changes = record.take(findings.to_vec(), |_| false, Duration::from_secs(second));
        (changes.appeared.len(), changes.cleared.len(), record.standing().len())
    }

    #[test]
    fn what_comes_and_goes_stands_until_it_stays_away() {
        let mut record = Record::that_goes_on();
        let lagging = [of(Code::Lagging, Severity::Warning)];
        assert_eq!(takes(&mut record, &lagging, 100), (1, 0, 1));
        // Two looks without it, again and again, are no news.
        for second in [102, 108, 114] {
            assert_eq!(takes(&mut record, &[], second), (0, 0, 1));
            assert_eq!(takes(&mut record, &[], second + 2), (0, 0, 1));
            assert_eq!(takes(&mut record, &lagging, second + 4), (0, 0, 1));
        }
        assert_eq!((takes(&mut record, &[], 120), takes(&mut record, &[], 122)), ((0, 0, 1), (0, 0, 1)));
        let changes = record.take(Vec::new(), |_| false, Duration::from_secs(124));
        assert_eq!((changes.cleared.len(), record.standing().len()), (1, 0));
        assert_eq!(changes.cleared[0].lasted, Duration::from_secs(20), "until it was missed first");
        // Looks that take long are waited for no longer than that.
        assert_eq!(takes(&mut record, &lagging, 200), (1, 0, 1));
        assert_eq!((takes(&mut record, &[], 208), takes(&mut record, &[], 216)), ((0, 0, 1), (0, 1, 0)));
    }

    #[test]
    fn what_does_not_come_and_go_has_gone_at_once() {
        let mut record = Record::that_goes_on();
        for finding in [
            of(Code::WritableReplica, Severity::Warning),
            of(Code::HeartbeatTooRare, Severity::Warning),
            of(Code::FullResyncRunning, Severity::Info),
        ] {
            assert_eq!(takes(&mut record, &[finding], 100), (1, 0, 1));
            assert_eq!(takes(&mut record, &[], 102), (0, 1, 0));
        }
        // A link has one state at a time; of another node that says nothing.
        assert_eq!(takes(&mut record, &[of(Code::LinkBroken, Severity::Error)], 110), (1, 0, 1));
        let elsewhere = Finding { node: "b:1".to_owned(), ..of(Code::FullResyncRunning, Severity::Info) };
        assert_eq!(takes(&mut record, &[elsewhere], 112), (1, 0, 2));
        let resyncs = of(Code::FullResyncRunning, Severity::Info);
        assert_eq!(takes(&mut record, &[resyncs], 114), (1, 2, 1));
    }

    #[test]
    fn a_restart_that_one_look_has_seen_is_not_told() {
        let dead = [of(Code::Unreachable, Severity::Error)];
        let mut record = Record::that_goes_on();
        assert_eq!(takes(&mut record, &dead, 100), (0, 0, 0));
        assert!(record.is_in_doubt());
        assert_eq!(takes(&mut record, &[], 101), (0, 0, 0));
        assert!(!record.is_in_doubt());
        assert_eq!(takes(&mut record, &dead, 110), (0, 0, 0));
        assert_eq!(takes(&mut record, &dead, 111), (1, 0, 1));
        assert_eq!(record.standing()[0].since, Duration::from_secs(110));
        // By what the servers tell it lasts; and whoever looks once tells what there is.
        let lasts = of(Code::ReplicasMissing, Severity::Warning).lasting(Duration::from_secs(7));
        assert_eq!(takes(&mut Record::that_goes_on(), &[lasts], 100), (1, 0, 1));
        assert_eq!(takes(&mut Record::default(), &dead, 100), (1, 0, 1));
    }

    #[test]
    fn what_has_not_been_seen_for_long_is_not_shown_until_it_is_found_again() {
        let mut record = Record::that_goes_on();
        let lagging = [of(Code::Lagging, Severity::Warning)];
        takes(&mut record, &lagging, 100);
        record.take(Vec::new(), |_| true, Duration::from_secs(102));
        record.take(Vec::new(), |_| true, Duration::from_secs(158));
        assert_eq!(takes(&mut record, &[], 160), (0, 0, 0), "whether it has gone, one look does not tell");
        assert_eq!(takes(&mut record, &lagging, 162), (0, 0, 1), "it has been told of");
    }
}
