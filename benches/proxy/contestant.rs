//! Who is measured: no proxy at all, Redweir at two levels, and the proxies that are found on this machine.

use std::fs;
use std::path::Path;

use anyhow::Context as _;

use crate::rig::process::{Cores, Process, cores, free_port, is_installed, proxy_core};
use crate::rig::servers::Servers;

/// One of those who are compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Contestant {
    /// The load goes straight to the primary.
    Direct,
    /// Redweir at this level.
    Redweir(&'static str),
    /// `HAProxy`, which copies bytes (`mode tcp`).
    Haproxy,
    /// twemproxy, which multiplexes onto one upstream connection.
    Nutcracker,
    /// predixy, from this path: reads to replicas, writes to the primary.
    Predixy(String),
}

/// One that runs; it ends with this value.
pub(crate) struct Running {
    pub(crate) process: Option<Process>,
    pub(crate) port: u16,
}

impl Contestant {
    /// All that can be measured here.
    pub(crate) fn present() -> Vec<Self> {
        let mut all = vec![Self::Direct, Self::Redweir("eventual"), Self::Redweir("fenced")];
        let peers = [("haproxy", Self::Haproxy), ("nutcracker", Self::Nutcracker)];
        all.extend(peers.into_iter().filter(|(program, _)| is_installed(program)).map(|(_, peer)| peer));
        all.extend(std::env::var("PREDIXY").ok().map(Self::Predixy));
        all
    }

    pub(crate) fn name(&self) -> String {
        match self {
            Self::Direct => "direct".to_owned(),
            Self::Redweir(level) => format!("redweir {level}"),
            Self::Haproxy => "haproxy tcp".to_owned(),
            Self::Nutcracker => "twemproxy".to_owned(),
            Self::Predixy(_) => "predixy r/w split".to_owned(),
        }
    }

    /// Starts it in front of these servers and waits until it does what it is for. It is started for every
    /// measurement, so that nobody's background work (a replication link) is paid by another.
    pub(crate) fn start(&self, home: &Path, servers: &Servers, clients: usize) -> anyhow::Result<Running> {
        if *self == Self::Direct {
            return Ok(Running { process: None, port: servers.primary() });
        }
        let (port, stats) = (free_port()?, free_port()?.to_string());
        let (file, log) = (home.join("proxy.conf"), home.join("proxy.log"));
        let path = file.to_str().context("the temporary directory has no UTF-8 name")?;
        fs::write(&file, self.configuration(port, &servers.ports, clients))?;
        let (program, args) = match self {
            Self::Direct | Self::Redweir(_) => (env!("CARGO_BIN_EXE_redweir"), vec!["run", "-c", path]),
            Self::Haproxy => ("haproxy", vec!["-db", "-f", path]),
            Self::Nutcracker => ("nutcracker", vec!["-c", path, "-s", &stats]),
            Self::Predixy(program) => (program.as_str(), vec![path]),
        };
        let mut process = Process::start(proxy_core(), program, &args, &log)?;
        process.wait_for(port, &log).with_context(|| self.name())?;
        if matches!(self, Self::Redweir(_) | Self::Predixy(_)) {
            servers.await_reads(port, servers.ports.len() - 1).with_context(|| self.name())?;
        }
        Ok(Running { process: Some(process), port })
    }

    fn configuration(&self, port: u16, servers: &[u16], clients: usize) -> String {
        let [primary, first, second] = servers else { return String::new() };
        let workers = if cores() == Cores::All { 2 } else { 1 };
        match self {
            Self::Direct => String::new(),
            Self::Redweir(level) => format!(
                "[[listen]]\naddress = \"127.0.0.1:{port}\"\n\
                 [upstream]\nprimary = \"127.0.0.1:{primary}\"\n\
                 replicas = [\"127.0.0.1:{first}\", \"127.0.0.1:{second}\"]\n\
                 [policy.default]\nconsistency = \"{level}\"\n[proxy]\nworkers = {workers}\n"
            ),
            Self::Haproxy => format!(
                "global\n  nbthread {workers}\n  maxconn {}\n\
                 defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1m\n  timeout server 1m\n\
                 listen redis\n  bind 127.0.0.1:{port}\n  server primary 127.0.0.1:{primary}\n",
                clients + 100
            ),
            Self::Nutcracker => format!(
                "redis:\n  listen: 127.0.0.1:{port}\n  redis: true\n  auto_eject_hosts: false\n  servers:\n   \
                 - 127.0.0.1:{primary}:1\n"
            ),
            Self::Predixy(_) => format!(
                "Bind 127.0.0.1:{port}\nWorkerThreads {workers}\n\
                 Authority {{\n  Auth {{\n    Mode admin\n  }}\n}}\n\
                 StandaloneServerPool {{\n  Databases 1\n  Hash crc16\n  Distribution modula\n  MasterReadPriority 0\n  \
                 StaticSlaveReadPriority 50\n  DynamicSlaveReadPriority 50\n  RefreshMethod fixed\n  \
                 Group one {{\n    + 127.0.0.1:{primary}\n    + 127.0.0.1:{first}\n    + 127.0.0.1:{second}\n  }}\n}}\n"
            ),
        }
    }
}
