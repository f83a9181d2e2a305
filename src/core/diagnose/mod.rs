//! The doctor: what is wrong with a primary and its replicas, by what they say themselves; with the values that show it, and
//! what to do. Pure: from what was seen to what is found.
//!
//! Each rule tells one fault from all others that look alike: a link that is down because a full resync runs is not broken, one
//! that is refused for its password is not cut, and of a primary that does not answer its replicas' links say nothing. Where the
//! servers do not tell enough, nothing is found, and what would tell is in [`seen::Unchecked`].

pub mod code;
pub mod finding;
pub mod history;
mod links;
mod load;
mod primaries;
mod reach;
pub mod record;
pub mod scene;
pub mod seen;
mod settings;
pub mod slots;
mod sources;
mod writes;

#[cfg(test)]
mod tests;

pub use code::{Code, Severity};
pub use finding::Finding;
pub use history::Memory;
pub use scene::{Context, Scene};

use crate::core::diagnose::history::Incident;
use crate::core::diagnose::seen::{Look, Seen};

/// Whether the last look says nothing of what could be found of this node: it does not say how it is, or the primary does not,
/// by which the others are judged.
pub fn is_unseen(now: &Look, context: &Context, node: &str) -> bool {
    let is_silent = |seen: &Seen| seen.report.is_none();
    let primary = Scene { looks: std::slice::from_ref(now), now, incidents: &[], context }.expected_primary();
    now.node(node).is_some_and(|seen| is_silent(seen) || primary.is_some_and(is_silent))
}

/// What is found by these looks, the oldest first, and by what has happened. Each code once for each node, those that come
/// first in [`Code::ALL`] first.
pub fn diagnose(looks: &[Look], incidents: &[Incident], context: &Context) -> Vec<Finding> {
    let Some(now) = looks.last() else { return Vec::new() };
    let scene = Scene { looks, now, incidents, context };
    let mut found = Vec::new();
    for rules in [
        reach::rules,
        primaries::rules,
        writes::rules,
        links::rules,
        load::rules,
        settings::rules,
        slots::rules,
        sources::rules,
    ] {
        rules(&scene, &mut found);
    }
    found.sort_by(|a, b| (a.code, &a.node).cmp(&(b.code, &b.node)));
    found.dedup_by(|a, b| a.code == b.code && a.node == b.node);
    found
}
