//! How it begins: what was started, and when it is ready.

use std::path::Path;
use std::time::Duration;

use super::replicas::{lenient, service};
use super::scene::{Line, Scene};
use crate::config::{Config, shown, units};
use crate::core::moment::{Moment, in_words};
use crate::core::nodes::node::Node;
use crate::core::policy::Consistency;
use crate::core::reason::Reason;

/// How long the replicas and the stream may take, once a primary answers, before the line is told without them.
const PATIENCE: Duration = Duration::from_secs(2);

/// What was told of the beginning.
#[derive(Debug, Default)]
pub(super) struct Opening {
    /// Since when a primary answers.
    answered: Option<Moment>,
    told: bool,
}

impl Opening {
    /// The line that it is ready, when it is due.
    pub(super) fn look(&mut self, scene: &Scene<'_>) -> Option<Line> {
        if self.told {
            return None;
        }
        let Some(primary) = scene.primary() else {
            self.answered = None;
            return None;
        };
        let answered = *self.answered.get_or_insert(scene.now);
        let (view, now) = (scene.view, scene.now);
        let replicas: Vec<&Node> = view.members().filter(|node| node.id != primary.id).collect();
        let policy = lenient();
        let serves = |node: &Node| service(node, view, &policy, now) == Some(Ok(()));
        let missing: Vec<&&Node> = replicas.iter().filter(|node| !serves(node)).collect();
        let complete = missing.is_empty() && (scene.source.is_some() || !scene.follows);
        if !complete && now.since(answered) < PATIENCE {
            return None;
        }
        self.told = true;
        let after = if complete { now } else { answered }.since(scene.begun);
        let stream = match scene.source.and_then(|id| view.node(id)) {
            Some(node) => format!("stream from {}", node.name()),
            None if scene.follows => "no stream yet".to_owned(),
            None => "stream off".to_owned(),
        };
        let why: Vec<String> = missing.iter().take(NAMED).map(|node| why_not(node, scene)).collect();
        let why = if why.is_empty() { String::new() } else { format!(" ({})", why.join(", ")) };
        let (serving, all) = (replicas.len() - missing.len(), replicas.len());
        let replicas =
            if all == 0 { "no replicas".to_owned() } else { format!("{serving} of {all} replicas{why}") };
        Some(Line::Info(format!(
            "ready after {}: primary {}, {replicas}, {stream}",
            in_words(after),
            primary.name()
        )))
    }

    /// Whether it is too early to tell of anything but the primary.
    pub(super) fn is_under_way(&self, scene: &Scene<'_>) -> bool {
        !self.told && (self.answered.is_some() || scene.now < scene.begun.after(PATIENCE))
    }
}

fn why_not(node: &Node, scene: &Scene<'_>) -> String {
    let name = node.name();
    match (service(node, scene.view, &lenient(), scene.now), node.problem()) {
        (Some(Err(Reason::Silent)), Some(problem)) => format!("{name} {}", problem.text(true)),
        (Some(Err(reason)), _) => format!("{name}: {}", reason.text()),
        _ => format!("{name} is not known well enough yet"),
    }
}

/// Says what runs here, and by which configuration.
pub fn tell_of_process(file: Option<&Path>) {
    let from = file.map_or_else(|| "flags".to_owned(), shown);
    let (version, pid) = (env!("CARGO_PKG_VERSION"), std::process::id());
    tracing::info!("redweir {version} starts: pid {pid}, configuration from {from}");
}

/// Says where clients are listened to, and which nodes there are; to be called when the sockets are bound.
pub fn tell_of_configuration(config: &Config, workers: usize) {
    for listen in &config.listen {
        let policy = config.policies.all.get(listen.policy.index());
        let policy = policy.map_or_else(String::new, |policy| match policy.consistency {
            Consistency::Eventual => format!("{}: eventual", policy.name),
            level => {
                format!("{}: {}, max-lag {}", policy.name, level.name(), units::duration_text(policy.max_lag))
            }
        });
        let tls = if listen.tls.is_some() { ", TLS" } else { "" };
        tracing::info!("listening on {}{tls} (policy {policy})", listen.address);
    }
    let admin = config.admin.as_ref().map(|admin| format!("admin server on {}", admin.address));
    tracing::info!("{}, {workers} workers", admin.as_deref().unwrap_or("no admin server"));
    tracing::info!("{}", nodes(config));
}

fn nodes(config: &Config) -> String {
    let upstream = &config.upstream;
    let tls = if upstream.tls.is_some() { ", TLS" } else { "" };
    if let Some(sentinel) = &upstream.sentinel {
        let addresses: Vec<String> = sentinel.addresses.iter().map(ToString::to_string).collect();
        return format!(
            "nodes as the sentinels say ({} of {}){tls}",
            sentinel.master_name,
            addresses.join(", ")
        );
    }
    let primary = upstream.primary.as_ref().map_or_else(|| "unknown".to_owned(), ToString::to_string);
    let mut replicas: Vec<String> = upstream.replicas.iter().map(ToString::to_string).collect();
    replicas.extend(upstream.names.iter().map(|name| format!("dns:{name}")));
    if upstream.replicas_from_nodes {
        replicas.push("those that the nodes name".to_owned());
    }
    let replicas = match replicas.as_slice() {
        [] => "no replicas".to_owned(),
        replicas => format!("replicas {}", replicas.join(", ")),
    };
    format!("nodes: primary {primary}, {replicas}{tls}")
}

/// Replicas that the line names with what is wrong with them.
const NAMED: usize = 4;
