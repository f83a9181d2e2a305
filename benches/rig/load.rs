//! The load: `redis-benchmark`, and what its CSV says.

use std::process::{Child, Stdio};

use anyhow::{Context as _, ensure};

use super::process::{load_core, on_core};

pub(crate) const CONNECTIONS: u64 = 50;
pub(crate) const KEYS: usize = 10_000;

/// Which commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mix {
    Get,
    Set,
    /// Nine reads for each write: two loads at once, with nine tenths of the connections and with one tenth.
    Mixed,
}

/// One kind of load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Workload {
    pub(crate) mix: Mix,
    pub(crate) pipeline: u64,
    pub(crate) bytes: usize,
    pub(crate) connections: u64,
}

/// What `redis-benchmark` measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    pub(crate) per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

impl Workload {
    pub(crate) fn name(&self) -> String {
        let mix = match self.mix {
            Mix::Get => "GET",
            Mix::Set => "SET",
            Mix::Mixed => "90/10",
        };
        let size = if self.bytes < 1024 {
            format!("{} B", self.bytes)
        } else {
            format!("{} KiB", self.bytes / 1024)
        };
        format!("{mix} {size} P{}", self.pipeline)
    }

    /// Sends this many requests to `port`.
    pub(crate) fn run(&self, port: u16, requests: u64) -> anyhow::Result<Outcome> {
        let start = |test, connections, requests| self.start(port, test, connections, requests);
        match self.mix {
            Mix::Get => outcome(start("get", self.connections, requests)?),
            Mix::Set => outcome(start("set", self.connections, requests)?),
            Mix::Mixed => {
                let (writers, writes) = (self.connections / 10, requests / 10);
                let (reads, writes) = (
                    start("get", self.connections - writers, requests - writes)?,
                    (start("set", writers, writes)?, writes),
                );
                let (get, set) = (outcome(reads)?, outcome(writes.0)?);
                let seconds =
                    ((requests - writes.1) as f64 / get.per_second).max(writes.1 as f64 / set.per_second);
                Ok(Outcome { per_second: requests as f64 / seconds, ..get })
            }
        }
    }

    fn start(&self, port: u16, test: &str, connections: u64, requests: u64) -> anyhow::Result<Child> {
        let (port, requests, connections) = (port.to_string(), requests.to_string(), connections.to_string());
        let (pipeline, bytes, keys) = (self.pipeline.to_string(), self.bytes.to_string(), KEYS.to_string());
        let args = ["-h", "127.0.0.1", "-p", &port, "--csv", "-t", test, "-n", &requests, "-c", &connections];
        let more = ["-P", &pipeline, "-d", &bytes, "-r", &keys];
        on_core(load_core(), "redis-benchmark", &[&args[..], &more].concat())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // A proxy that knows no CONFIG makes it warn.
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start `redis-benchmark`: is redis-tools installed?")
    }
}

/// Waits for a load to end. Its last line is: name, requests per second, and the latencies in ms: mean, min, p50,
/// p95, p99, max.
fn outcome(load: Child) -> anyhow::Result<Outcome> {
    let output = load.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "redis-benchmark failed: {text}");
    let line = text.lines().last().unwrap_or_default();
    let fields: Vec<f64> = line.split(',').filter_map(|field| field.trim_matches('"').parse().ok()).collect();
    let [per_second, _mean, _min, p50_ms, _p95, p99_ms, _max] = fields[..] else {
        anyhow::bail!("redis-benchmark said: {text}");
    };
    Ok(Outcome { per_second, p50_ms, p99_ms })
}
