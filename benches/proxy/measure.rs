//! One measurement: a contestant is started, warmed up, and given a fixed number of requests.

use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::ensure;

use crate::contestant::Contestant;
use crate::rig::load::{CONNECTIONS, Outcome, Workload};
use crate::rig::process::{self, Process};
use crate::rig::resp::Conn;
use crate::rig::servers::Servers;

/// How long connections are left alone before memory is read.
const IDLE: Duration = Duration::from_millis(500);
/// Which part of the requests warms up.
const WARM_UP: u64 = 10;

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) outcome: Outcome,
    /// Processor time of the proxy per million requests, in seconds; none without a proxy.
    pub(crate) proxy_cpu: Option<f64>,
    /// The same of all servers together.
    pub(crate) server_cpu: f64,
    /// The same of the load.
    pub(crate) load_cpu: f64,
    /// Which part of the reads replicas served; none without reads.
    pub(crate) by_replicas: Option<f64>,
}

pub(crate) fn measure(
    contestant: &Contestant,
    home: &Path,
    servers: &Servers,
    workload: &Workload,
    requests: u64,
) -> anyhow::Result<Sample> {
    let running = contestant.start(home, servers, CONNECTIONS as usize)?;
    workload.run(running.port, requests / WARM_UP)?;
    servers.settle()?;
    let proxy_nanos = || running.process.as_ref().map(Process::cpu_nanos).transpose();
    let server_nanos = || anyhow::Ok(servers.cpu_nanos()?.into_iter().sum::<u64>());
    let (served, proxy, nanos) = (servers.served()?, proxy_nanos()?, server_nanos()?);
    let load = process::ended_children_nanos()?;
    let outcome = workload.run(running.port, requests)?;
    let load = process::ended_children_nanos()? - load;
    let proxy = proxy_nanos()?.zip(proxy).map(|(after, before)| after - before);
    servers.settle()?;
    let nanos = server_nanos()? - nanos;
    let served: Vec<_> = servers.served()?.into_iter().zip(served).collect();
    let gets: Vec<u64> = served.iter().map(|(after, before)| after.gets - before.gets).collect();
    let sets = served[0].0.sets - served[0].1.sets;
    let reads: u64 = gets.iter().sum();
    ensure!(
        reads + sets >= requests,
        "{} answered errors: the servers saw {reads} + {sets}",
        contestant.name()
    );
    let per_million = |nanos: u64| nanos as f64 / requests as f64 / 1e3;
    Ok(Sample {
        outcome,
        proxy_cpu: proxy.map(per_million),
        server_cpu: per_million(nanos),
        load_cpu: per_million(load),
        by_replicas: (reads > 0).then(|| (reads - gets[0]) as f64 / reads as f64),
    })
}

/// Resident memory in KiB: with so many idle clients, each of which made one small request, and then, with the last
/// number of them, after each got one large reply.
pub(crate) fn resident(
    contestant: &Contestant,
    home: &Path,
    servers: &Servers,
    steps: &[usize],
) -> anyhow::Result<Vec<u64>> {
    let most = steps.last().copied().unwrap_or_default();
    let running = contestant.start(home, servers, most)?;
    let Some(process) = &running.process else { return Ok(Vec::new()) };
    let mut clients = Vec::with_capacity(most);
    let mut resident = Vec::new();
    for &step in steps {
        while clients.len() < step {
            let mut client = Conn::open(running.port)?;
            client.call(&["GET", SMALL])?;
            clients.push(client);
        }
        thread::sleep(IDLE);
        resident.push(process.resident_kib()?);
    }
    for client in &mut clients {
        client.call(&["GET", LARGE])?;
    }
    thread::sleep(IDLE);
    resident.push(process.resident_kib()?);
    Ok(resident)
}

/// Prepares the servers for [`resident`].
pub(crate) fn prepare_resident(servers: &Servers) -> anyhow::Result<()> {
    let mut primary = Conn::open(servers.primary())?;
    primary.call(&["SET", SMALL, &"x".repeat(32)])?;
    primary.call(&["SET", LARGE, &"x".repeat(LARGE_BYTES)])?;
    servers.settle()
}

const SMALL: &str = "small";
const LARGE: &str = "large";
const LARGE_BYTES: usize = 16 << 10;
