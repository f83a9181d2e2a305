//! What the admin server tells of a running proxy.

use serde::Deserialize;

use crate::cli::status::ViewBody;
use crate::shard::doctor::DoctorReport;

/// What `/overview` answers. What it does not say is shown as unknown.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Overview {
    pub(super) at_ms: u64,
    pub(super) version: String,
    pub(super) uptime_s: f64,
    pub(super) ready: Ready,
    pub(super) clients: u64,
    pub(super) memory_bytes: Option<f64>,
    pub(super) view: ViewBody,
    pub(super) doctor: DoctorReport,
    pub(super) commands: Vec<Commands>,
    pub(super) latency: Vec<Latency>,
    pub(super) lost_writes: u64,
    pub(super) primary_changes: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Ready {
    pub(super) reads: bool,
    pub(super) writes: bool,
    pub(super) draining: bool,
    pub(super) text: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Commands {
    pub(super) access: String,
    pub(super) target: String,
    pub(super) reason: String,
    pub(super) text: String,
    pub(super) total: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Latency {
    pub(super) access: String,
    pub(super) target: String,
    pub(super) p50_ms: Option<f64>,
    pub(super) p99_ms: Option<f64>,
}
