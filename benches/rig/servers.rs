//! A primary and replicas that keep nothing on disk.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::process::{Process, free_port, load_core};
use super::resp::Conn;

/// How often, with [`PAUSE`] between, a replica is asked whether it is linked.
const TRIES: u32 = 500;
const PAUSE: Duration = Duration::from_millis(20);

/// The servers, the primary first.
pub(crate) struct Servers {
    running: Vec<Process>,
    pub(crate) ports: Vec<u16>,
}

impl Servers {
    pub(crate) fn start(home: &Path, replicas: usize) -> anyhow::Result<Self> {
        let mut servers = Self { running: Vec::new(), ports: Vec::new() };
        for number in 0..=replicas {
            let port = free_port()?;
            let dir = home.join(format!("redis-{number}"));
            fs::create_dir(&dir)?;
            let log = dir.join("server.log");
            let primary = servers.ports.first().copied();
            let (port_text, follows) = (port.to_string(), primary.map(|port| format!("127.0.0.1 {port}")));
            let mut args = vec!["--port", &port_text, "--bind", "127.0.0.1", "--save", "", "--appendonly"];
            args.extend(["no", "--repl-diskless-sync-delay", "0", "--dir"]);
            args.push(dir.to_str().context("the temporary directory has no UTF-8 name")?);
            args.extend(follows.iter().flat_map(|follows| ["--replicaof", follows]));
            let mut process = Process::start(load_core(), "redis-server", &args, &log)?;
            process.wait_for(port, &log).context("redis-server")?;
            servers.running.push(process);
            servers.ports.push(port);
        }
        servers.await_link()?;
        Ok(servers)
    }

    pub(crate) fn primary(&self) -> u16 {
        self.ports[0]
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        self.running.iter().map(Process::id).collect()
    }

    fn await_link(&self) -> anyhow::Result<()> {
        for &port in &self.ports[1..] {
            let mut conn = Conn::open(port)?;
            let mut linked = || -> anyhow::Result<bool> {
                let info = conn.call(&["INFO", "replication"])?;
                Ok(String::from_utf8_lossy(&info).contains("master_link_status:up"))
            };
            for tried in 0.. {
                if linked()? {
                    break;
                } else if tried == TRIES {
                    bail!("the replica on port {port} is not linked to its primary");
                }
                thread::sleep(PAUSE);
            }
        }
        Ok(())
    }

    /// Gives every key a value of this size, on all servers.
    pub(crate) fn fill(&self, keys: usize, bytes: usize) -> anyhow::Result<()> {
        Conn::open(self.primary())?.fill(keys, bytes)?;
        self.settle()
    }

    /// Waits until the replicas have what the primary has.
    pub(crate) fn settle(&self) -> anyhow::Result<()> {
        let mut conn = Conn::open(self.primary())?;
        // WAIT counts from this connection's last write.
        conn.call(&["SET", "settle", "1"])?;
        let replicas = (self.ports.len() - 1).to_string();
        let reply = conn.call(&["WAIT", &replicas, "10000"])?;
        anyhow::ensure!(
            reply == format!(":{replicas}").as_bytes(),
            "replicas lag: {}",
            String::from_utf8_lossy(&reply)
        );
        Ok(())
    }

    /// Waits until reads through `port` reach so many replicas: a proxy may answer before it has proven any.
    pub(crate) fn await_reads(&self, port: u16, replicas: usize) -> anyhow::Result<()> {
        let before = self.served()?;
        for _ in 0..TRIES {
            Conn::open(port)?.call(&["GET", "key"])?;
            let served = self.served()?;
            if served.iter().zip(&before).skip(1).take(replicas).all(|(now, before)| now.gets > before.gets) {
                return Ok(());
            }
            thread::sleep(PAUSE);
        }
        bail!("no reads reach a replica")
    }

    /// Processor time of each of them.
    pub(crate) fn cpu_nanos(&self) -> anyhow::Result<Vec<u64>> {
        self.running.iter().map(Process::cpu_nanos).collect()
    }

    /// How many reads and writes of the load they have served, each server by itself.
    pub(crate) fn served(&self) -> anyhow::Result<Vec<Served>> {
        self.ports.iter().map(|&port| served(port)).collect()
    }
}

/// What one server counted.
#[derive(Clone, Copy)]
pub(crate) struct Served {
    pub(crate) gets: u64,
    pub(crate) sets: u64,
    /// Questions for its role and position; its replicas and the load ask none.
    pub(crate) roles: u64,
}

fn served(port: u16) -> anyhow::Result<Served> {
    let info = Conn::open(port)?.call(&["INFO", "commandstats"])?;
    let info = String::from_utf8_lossy(&info);
    let calls = |prefix: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(prefix));
        line.and_then(|rest| rest.split(',').next()).and_then(|calls| calls.parse().ok()).unwrap_or(0)
    };
    Ok(Served {
        gets: calls("cmdstat_get:calls="),
        sets: calls("cmdstat_set:calls="),
        roles: calls("cmdstat_role:calls="),
    })
}
