//! The primary: away and why, back and after how long, or another one.

use std::time::Duration;

use super::scene::{Line, Scene, TOLD_AFTER};
use crate::core::moment::{Moment, in_words};
use crate::core::nodes::cause::Cause;
use crate::core::nodes::node::{Node, NodeId};
use crate::core::nodes::trouble::ProblemKind;

/// How long one reason is left alone before another one is told.
const NEXT_REASON_AFTER: Duration = Duration::from_secs(10);

/// How long a primary may leave open why it does not answer.
const NO_REASON_AFTER: Duration = Duration::from_secs(2);

/// How long a primary must have answered as usual before that is told.
const OVER_AFTER: Duration = Duration::from_secs(3);

/// What was told of the primary.
#[derive(Debug, Default)]
pub(super) struct PrimaryStory {
    /// Who answered last, and its name.
    last: Option<(NodeId, String)>,
    /// Nobody answers.
    away: Option<Away>,
    /// How many commands had been refused when somebody last answered.
    refused: u64,
    /// It was told that the primary answers, but not as it should; since when it does so.
    hindered: Option<Moment>,
}

#[derive(Debug)]
struct Away {
    since: Moment,
    /// Two said that they were.
    undecided: bool,
    /// What was told, and when.
    told: Option<(Kind, Moment)>,
}

/// What kind of cause it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    TwoPrimaries,
    Troubled(ProblemKind),
    Other,
}

impl PrimaryStory {
    pub(super) fn look(&mut self, scene: &Scene<'_>) -> Vec<Line> {
        match scene.primary() {
            Some(node) => self.meet(node, scene).into_iter().chain(self.hindrance(node, scene)).collect(),
            None => self.miss(scene).into_iter().collect(),
        }
    }

    /// A primary answers.
    fn meet(&mut self, node: &Node, scene: &Scene<'_>) -> Option<Line> {
        let refused = scene.refused.saturating_sub(std::mem::replace(&mut self.refused, scene.refused));
        if self.away.is_none() && self.last.as_ref().is_some_and(|(id, _)| *id == node.id) {
            return None;
        }
        let refused = match refused {
            1 => "1 command was refused".to_owned(),
            count => format!("{count} commands were refused"),
        };
        let (name, away) = (node.name(), self.away.take());
        let before = self.last.replace((node.id, name.clone()));
        if before.as_ref().is_none_or(|(id, _)| *id != node.id) {
            // That was another one.
            self.hindered = None;
        }
        let after = away.as_ref().map(|away| in_words(scene.now.since(away.since)));
        let told = away.filter(|away| away.told.is_some());
        match (before, told) {
            (Some((id, old)), _) if id != node.id => {
                let why = scene.view.claim.text();
                let after = after.map_or_else(String::new, |after| format!(" after {after}"));
                Some(Line::Warn(format!(
                    "the primary changed from {old} to {name}{after}: {why}; {refused} meanwhile"
                )))
            }
            (before, Some(away)) => {
                let what = match before {
                    _ if away.undecided => "is the only primary again",
                    Some(_) => "answers again",
                    None => "answers",
                };
                let after = after.unwrap_or_default();
                let text = format!("primary {name} {what} after {after}; {refused} meanwhile");
                Some(Line::Info(text))
            }
            (_, None) => None,
        }
    }

    /// It answers, but says that it is busy, or lets nobody ask how it is.
    fn hindrance(&mut self, node: &Node, scene: &Scene<'_>) -> Option<Line> {
        let trouble = node.trouble.as_ref();
        let (begun, over) = trouble.map_or((None, None), |trouble| (Some(trouble.since), trouble.over));
        match (trouble, self.hindered) {
            (Some(trouble), None) if over.is_none() && scene.now.since(trouble.since) >= TOLD_AFTER => {
                self.hindered = begun;
                Some(Line::Warn(format!("primary {} {}", node.name(), trouble.problem)))
            }
            // One that answers part of what it is asked is in trouble again with the next question.
            (_, Some(since)) if over.is_some_and(|over| scene.now.since(over) >= OVER_AFTER) => {
                self.hindered = None;
                let after = in_words(over.unwrap_or(scene.now).since(since));
                Some(Line::Info(format!("primary {} answers as usual again after {after}", node.name())))
            }
            _ => None,
        }
    }

    /// No primary answers.
    fn miss(&mut self, scene: &Scene<'_>) -> Option<Line> {
        self.hindered = None;
        let silent = scene.view.primary.and_then(|id| scene.view.node(id)).and_then(|node| node.silent_since);
        let begun = if self.last.is_none() { scene.begun } else { silent.unwrap_or(scene.now) };
        let away = self.away.get_or_insert(Away { since: begun, undecided: false, told: None });
        let cause = Cause::of(scene.view)?;
        let kind = Kind::of(&cause);
        away.undecided = kind == Kind::TwoPrimaries;
        let due = match away.told {
            // It is asked right now, and why it does not answer will be known.
            None if matches!(cause, Cause::Silent(_)) => scene.now.since(away.since) >= NO_REASON_AFTER,
            None => scene.now.since(away.since) >= TOLD_AFTER,
            Some((Kind::Other, _)) => kind != Kind::Other,
            Some((told, at)) => told != kind && scene.now.since(at) >= NEXT_REASON_AFTER,
        };
        if !due {
            return None;
        }
        let still = if away.told.is_some() { "still away: " } else { "" };
        away.told = Some((kind, scene.now));
        if kind == Kind::TwoPrimaries {
            // Whoever compares them tells of it ([`crate::control::primaries`]).
            return None;
        }
        let consequence = match scene.view.hold {
            Duration::ZERO => "writes are refused".to_owned(),
            hold => format!("writes wait {}, then are refused", in_words(hold)),
        };
        Some(Line::Error(match &cause {
            Cause::Troubled(node, problem) => {
                let (name, text) = (node.name(), problem.text(true));
                match problem.remedy() {
                    Some(remedy) => format!("{still}primary {name} {text}: {remedy}; {consequence}"),
                    None => format!("{still}primary {name} {text}: {consequence}"),
                }
            }
            Cause::Silent(_) => format!("{still}primary {}: {consequence}", cause.text(true)),
            _ => format!("{still}no primary: {}; {consequence}", cause.text(true)),
        }))
    }
}

impl Kind {
    fn of(cause: &Cause<'_>) -> Self {
        match cause {
            Cause::TwoPrimaries(_) => Self::TwoPrimaries,
            Cause::Troubled(_, problem) => Self::Troubled(problem.kind),
            Cause::Silent(_) | Cause::NobodyIs(_) | Cause::NoNode => Self::Other,
        }
    }
}
