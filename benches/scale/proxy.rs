//! Redweir with so many workers, in front of so many of the replicas.

use std::fs;
use std::path::Path;

use anyhow::Context as _;

use crate::rig::process::{Process, free_port};
use crate::rig::servers::Servers;

/// How it is set up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) level: &'static str,
    pub(crate) workers: usize,
    pub(crate) replicas: usize,
}

/// One that runs; it ends with this value.
pub(crate) struct Proxy {
    pub(crate) process: Process,
    pub(crate) port: u16,
}

impl Setup {
    /// Starts it, and waits until its reads reach every replica that it knows.
    pub(crate) fn start(self, binary: &str, home: &Path, servers: &Servers) -> anyhow::Result<Proxy> {
        let Self { level, workers, replicas } = self;
        let (port, file, log) = (free_port()?, home.join("redweir.toml"), home.join("redweir.log"));
        let (primary, others) = servers.ports.split_first().context("no servers")?;
        let replicas_text: Vec<String> =
            others.iter().take(replicas).map(|port| format!("\"127.0.0.1:{port}\"")).collect();
        let configuration = format!(
            "[[listen]]\naddress = \"127.0.0.1:{port}\"\n\
             [upstream]\nprimary = \"127.0.0.1:{primary}\"\nreplicas = [{}]\n\
             [policy.default]\nconsistency = \"{level}\"\n[proxy]\nworkers = {workers}\n",
            replicas_text.join(", ")
        );
        fs::write(&file, configuration)?;
        let cores = if workers == 1 { "0" } else { "0,1" };
        let file = file.to_str().context("the temporary directory has no UTF-8 name")?;
        let mut process = Process::start(cores, binary, &["run", "-c", file], &log)?;
        process.wait_for(port, &log)?;
        servers.await_reads(port, replicas)?;
        Ok(Proxy { process, port })
    }
}
