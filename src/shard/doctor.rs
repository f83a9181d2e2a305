//! What the doctor has found last, for whoever asks: as JSON, and as text.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use serde::{Deserialize, Serialize};
use x509_cert::der::DateTime;

use crate::core::diagnose::record::Standing;
use crate::core::diagnose::seen::{Look, Problem, Seen};
use crate::core::diagnose::slots::CLUSTER;
use crate::core::diagnose::{Code, Severity};
use crate::core::nodes::node::Role;
use crate::core::position::Offset;

/// What is found, and of whom. The fields are in `docs/operations.md`, and stay.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DoctorReport {
    /// What is found, the worst first.
    pub findings: Vec<FindingReport>,
    /// All nodes.
    pub nodes: Vec<PatientReport>,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindingReport {
    /// Its name.
    pub code: String,
    /// `error`, `warning` or `info`.
    pub severity: String,
    /// Whom it is about: an address, `redweir` or `cluster`.
    pub node: String,
    /// The shard of that node; absent where there is only one, and where it is about none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<usize>,
    /// Since when, at least: date and time, UTC, RFC 3339.
    pub since: String,
    /// The values that show it.
    pub evidence: String,
    /// What to do.
    pub remedy: String,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PatientReport {
    /// Its address.
    pub node: String,
    /// Its shard; absent where there is only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<usize>,
    /// `primary`, `replica` or `unknown`, by its own word.
    pub role: String,
    /// It answers.
    pub answers: bool,
    /// Why it does not; empty if it does.
    pub problem: String,
    /// How long it takes to answer `PING`, in milliseconds; absent if it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ping_ms: Option<f64>,
    /// Its version; absent when it is not known, as what follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// `up`, `syncing` or `down`; of a replica.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// Its replication ID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replication_id: Option<String>,
    /// The head of a primary, what a replica has applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// What could not be found out.
    pub unchecked: Vec<UncheckedReport>,
}

/// A question that a node does not answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UncheckedReport {
    /// The question.
    pub question: String,
    /// What of an ACL would allow it.
    pub rule: String,
    /// What it was answered.
    pub why: String,
}

/// The last report; none until the first look.
#[derive(Debug, Default)]
pub struct Findings(ArcSwapOption<DoctorReport>);

impl Findings {
    /// Another one takes its place.
    pub fn publish(&self, report: DoctorReport) {
        self.0.store(Some(Arc::new(report)));
    }

    /// The last one; `None`: no node was looked at yet.
    pub fn last(&self) -> Option<Arc<DoctorReport>> {
        self.0.load_full()
    }

    /// The last one, or an empty one.
    pub fn report(&self) -> Arc<DoctorReport> {
        self.last().unwrap_or_default()
    }
}

impl DoctorReport {
    /// What stands, and how the nodes were at the last look.
    pub fn of(now: &Look, standing: &[Standing]) -> Self {
        let findings = standing.iter().map(|Standing { finding, since }| FindingReport {
            code: finding.code.name().to_owned(),
            severity: finding.severity.name().to_owned(),
            node: finding.node.clone(),
            shard: None,
            since: date(*since),
            evidence: finding.evidence.clone(),
            remedy: finding.remedy.clone(),
        });
        Self { findings: findings.collect(), nodes: now.nodes.iter().map(node).collect() }
    }

    /// Those of the shards of a cluster as one, the worst first.
    pub fn join(parts: impl IntoIterator<Item = (usize, Arc<Self>)>) -> Self {
        let mut all = Self::default();
        for (shard, part) in parts {
            let of_none = |node: &str| matches!(node, CLUSTER | "redweir");
            all.findings.extend(part.findings.iter().cloned().map(|finding| {
                let shard = Some(shard).filter(|_| !of_none(&finding.node));
                FindingReport { shard, ..finding }
            }));
            all.nodes
                .extend(part.nodes.iter().cloned().map(|node| PatientReport { shard: Some(shard), ..node }));
        }
        let rank = |finding: &FindingReport| {
            let severities = [Severity::Error, Severity::Warning];
            severities
                .iter()
                .position(|severity| severity.name() == finding.severity)
                .unwrap_or(severities.len())
        };
        // Those of a shard that are equally bad are in their order.
        all.findings.sort_by_key(rank);
        all
    }

    /// The same without what it says of other users, for whoever may not see that at the servers.
    #[must_use]
    pub fn without_denials(&self) -> Self {
        let mut report = self.clone();
        // They name users by ACL LOG.
        let names_users =
            |code: &str| [Code::DeniedCommand, Code::AuthMismatch].iter().any(|c| c.name() == code);
        report
            .findings
            .retain(|finding| !(names_users(&finding.code) && finding.evidence.contains("ACL LOG")));
        report
    }

    /// What shows this, if it is found.
    pub fn evidence(&self, code: Code) -> Option<String> {
        self.findings
            .iter()
            .find(|finding| finding.code == code.name())
            .map(|finding| finding.evidence.clone())
    }

    /// How many are found that bad.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity.name()).count()
    }

    /// What is found and how the nodes are, in lines; with colours for a terminal.
    pub fn text(&self, colours: bool) -> String {
        let mut out = self.findings_text(colours);
        out.push('\n');
        for node in &self.nodes {
            // Writing to a `String` cannot fail.
            let _ = writeln!(out, "{}", node.line());
        }
        for node in &self.nodes {
            for unchecked in &node.unchecked {
                let _ = writeln!(
                    out,
                    "not checked at {}: {} ({}); it needs {}",
                    shown(&node.node),
                    shown(&unchecked.question),
                    shown(&unchecked.why),
                    shown(&unchecked.rule)
                );
            }
        }
        out
    }

    /// What is found, in lines.
    pub fn findings_text(&self, colours: bool) -> String {
        let mut out = String::new();
        let counts = [Severity::Error, Severity::Warning, Severity::Info].map(|severity| {
            let count = self.count(severity);
            let plural = if count > 1 && severity != Severity::Info { "s" } else { "" };
            (count > 0).then(|| format!("{count} {}{plural}", severity.name()))
        });
        let counts: Vec<String> = counts.into_iter().flatten().collect();
        let summary = match counts.as_slice() {
            [] if self.nodes.is_empty() => "no node was looked at yet".to_owned(),
            [] => "nothing is found".to_owned(),
            counts => counts.join(", "),
        };
        let _ = writeln!(out, "{summary}");
        for finding in &self.findings {
            let (paint, end) = if colours { (colour(&finding.severity), "\x1b[0m") } else { ("", "") };
            let (severity, code) = (&finding.severity, shown(&finding.code));
            let node = shown(&finding.node) + &of_shard(finding.shard);
            let _ = writeln!(out, "\n{paint}{severity}{end} {code} {node} since {}", shown(&finding.since));
            let _ = writeln!(out, "  evidence: {}", shown(&finding.evidence));
            let _ = writeln!(out, "  remedy:   {}", shown(&finding.remedy));
        }
        out
    }
}

impl PatientReport {
    /// In a line.
    pub fn line(&self) -> String {
        let mut out = format!("{} {}{}", shown(&self.role), shown(&self.node), of_shard(self.shard));
        if !self.answers {
            let _ = write!(out, ", does not answer: {}", shown(&self.problem));
        }
        if let Some(ms) = self.ping_ms {
            let _ = write!(out, ", answers in {ms:.1} ms");
        }
        if let Some(version) = &self.version {
            let _ = write!(out, ", version {}", shown(version));
        }
        if let Some(link) = &self.link {
            let _ = write!(out, ", link {}", shown(link));
        }
        if let Some(offset) = self.offset {
            let _ = write!(out, ", offset {offset}");
        }
        out
    }
}

fn node(seen: &Seen) -> PatientReport {
    let report = seen.report.as_ref();
    let link = seen.as_replica().map(|replica| match replica.link_up {
        Some(true) => "up",
        _ if replica.sync_in_progress => "syncing",
        _ => "down",
    });
    let offset = report.and_then(|report| match report.role {
        Some(Role::Replica) => report.applied,
        _ => report.offset,
    });
    let unchecked = seen.unchecked.iter().map(|unchecked| UncheckedReport {
        question: unchecked.question.to_owned(),
        rule: unchecked.rule.to_owned(),
        why: unchecked.why.clone(),
    });
    PatientReport {
        node: seen.node.clone(),
        shard: None,
        role: seen.role().map_or("unknown", Role::name).to_owned(),
        answers: seen.problem.is_none(),
        problem: seen.problem.as_ref().map(Problem::text).unwrap_or_default(),
        ping_ms: seen
            .latency
            .filter(|_| seen.problem.is_none())
            .map(|latency| (latency.as_secs_f64() * 1e4).round() / 10.0),
        version: report.and_then(|report| report.valkey_version.clone().or(report.version.clone())),
        link: link.map(str::to_owned),
        replication_id: report.and_then(|report| report.history).map(|history| history.id.to_string()),
        offset: offset.map(Offset::bytes),
        unchecked: unchecked.collect(),
    }
}

/// The time since 1970 as a date.
fn date(unix: Duration) -> String {
    DateTime::from_unix_duration(Duration::from_secs(unix.as_secs()))
        .map_or_else(|_| String::new(), |date| date.to_string())
}

/// Behind a node that is of one shard of several.
fn of_shard(shard: Option<usize>) -> String {
    shard.map_or_else(String::new, |shard| format!(" (shard {shard})"))
}

fn colour(severity: &str) -> &'static str {
    match severity {
        "error" => "\x1b[1;31m",
        "warning" => "\x1b[1;33m",
        _ => "\x1b[36m",
    }
}

/// What servers have said may be anything: nothing of it moves a cursor.
pub(crate) fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::diagnose::Finding;

    fn report() -> DoctorReport {
        let finding = Finding::new(
            Code::LinkBroken,
            Severity::Warning,
            "a:1",
            "master_link_status:\x1b[2J".into(),
            "do it".into(),
        );
        let standing = Standing { finding, since: Duration::from_millis(1_795_959_664_900) };
        let seen =
            Seen { node: "a:1".to_owned(), latency: Some(Duration::from_micros(1234)), ..Seen::default() };
        DoctorReport::of(&Look { nodes: vec![seen], ..Look::default() }, &[standing])
    }

    #[test]
    fn what_is_found_is_json_of_one_form() {
        let json = serde_json::to_value(report()).unwrap();
        let finding = &json["findings"][0];
        assert_eq!(finding["since"], "2026-11-29T13:41:04Z");
        assert_eq!((&finding["code"], &finding["severity"]), (&"link-broken".into(), &"warning".into()));
        assert_eq!(json["nodes"][0]["ping_ms"], 1.2);
        assert!(json["nodes"][0].get("link").is_none(), "what is unknown is absent");
        assert_eq!(serde_json::from_value::<DoctorReport>(json).unwrap(), report());
    }

    #[test]
    fn what_is_found_of_several_shards_is_one_report() {
        let worse = FindingReport {
            severity: "error".to_owned(),
            node: CLUSTER.to_owned(),
            ..report().findings.remove(0)
        };
        let second = DoctorReport { findings: vec![worse], ..report() };
        let all = DoctorReport::join([(0, Arc::new(report())), (3, Arc::new(second))]);
        let told: Vec<_> = all.findings.iter().map(|one| (one.severity.as_str(), one.shard)).collect();
        assert_eq!(told, [("error", None), ("warning", Some(0))], "the worst first");
        assert_eq!(all.nodes.iter().map(|node| node.shard).collect::<Vec<_>>(), [Some(0), Some(3)]);
        let text = all.text(false);
        assert!(text.contains("warning link-broken a:1 (shard 0) since"), "{text}");
        assert!(text.contains("\nunknown a:1 (shard 3), answers"), "{text}");
    }

    #[test]
    fn what_servers_say_moves_no_cursor() {
        let plain = report().text(false);
        assert!(plain.starts_with("1 warning\n\nwarning link-broken a:1 since 2026"), "{plain}");
        assert!(!plain.contains('\x1b') && plain.contains("\\u{1b}[2J"), "{plain}");
        assert!(report().text(true).contains("\x1b[1;33mwarning\x1b[0m"));
        assert!(DoctorReport::default().text(false).starts_with("no node was looked at yet"));
        let healthy = DoctorReport { findings: Vec::new(), ..report() };
        assert!(healthy.text(false).starts_with("nothing is found\n\nunknown a:1, answers in 1.2 ms"));
    }
}
