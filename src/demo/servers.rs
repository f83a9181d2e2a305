//! The demo's servers: real `redis-server` processes from the PATH, on free ports, in a directory that goes with them.

use std::cell::Cell;
use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use redis_protocol::resp2::types::BytesFrame;

use crate::core::address::Address;
use crate::net::socket::call::ControlLink;
use crate::net::socket::dial::Dialer;

const WITHIN: Duration = Duration::from_secs(2);

/// A directory that is removed with everything in it.
#[derive(Debug)]
pub(super) struct DemoFolder(PathBuf);

impl DemoFolder {
    pub(super) fn create() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("redweir-demo-{}", std::process::id()));
        // Of one that could not remove it and had the same process id: what its nodes knew of a cluster is wrong here.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for DemoFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// One server; it ends with this value.
#[derive(Debug)]
pub(super) struct Redis {
    process: Child,
    pub(super) port: u16,
    killed: Cell<bool>,
}

impl Redis {
    pub(super) fn start(home: &DemoFolder, name: &str, args: &[String]) -> anyhow::Result<Self> {
        let server = Self::spawn(home, name, free_port()?, args)?;
        server.wait_for("redis_version:")?;
        Ok(server)
    }

    /// Starts one, which does not answer yet when this returns.
    pub(super) fn spawn(home: &DemoFolder, name: &str, port: u16, args: &[String]) -> anyhow::Result<Self> {
        let dir = home.0.join(name);
        fs::create_dir_all(&dir)?;
        let process = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--repl-diskless-sync-delay", "0", "--logfile", "server.log", "--dir"])
            .arg(&dir)
            .args(args)
            // Ctrl-C is for the demo, which ends its servers itself.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start `redis-server`: is it installed? (apt-get install redis-server)")?;
        Ok(Self { process, port, killed: Cell::new(false) })
    }

    /// Waits until `INFO` contains `text`.
    pub(super) fn wait_for(&self, text: &str) -> anyhow::Result<()> {
        for _ in 0..200 {
            if self.info("everything").is_ok_and(|info| info.contains(text)) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("the redis-server on port {} did not get to `{text}` within 10 s", self.port)
    }

    pub(super) fn info_number(&self, field: &str) -> anyhow::Result<u64> {
        number(&self.info("everything")?, &format!("{field}:"))
            .with_context(|| format!("INFO tells no {field}"))
    }

    fn info(&self, section: &str) -> anyhow::Result<String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(self.info_async(section))
    }

    pub(super) async fn info_async(&self, section: &str) -> anyhow::Result<String> {
        match self.call(&[b"INFO", section.as_bytes()]).await? {
            BytesFrame::BulkString(text) => Ok(String::from_utf8_lossy(&text).into_owned()),
            other => bail!("INFO answered {other:?}"),
        }
    }

    /// What it answers to one command, on a connection of its own.
    pub(super) async fn call(&self, command: &[&[u8]]) -> anyhow::Result<BytesFrame> {
        Ok(self.link().await?.call(command, WITHIN).await?)
    }

    /// A connection to it.
    pub(super) async fn link(&self) -> anyhow::Result<ControlLink> {
        Ok(ControlLink::connect(&Dialer::default(), &local(self.port), None, WITHIN).await?)
    }

    /// Ends it as a machine does that loses its power: nothing is sent or saved any more.
    pub(super) fn kill(&self) -> anyhow::Result<()> {
        kill(Pid::from_raw(self.process.id().cast_signed()), Signal::SIGKILL)?;
        self.killed.set(true);
        Ok(())
    }

    pub(super) fn is_killed(&self) -> bool {
        self.killed.get()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The number behind `field` in an INFO text.
pub(super) fn number(info: &str, field: &str) -> Option<u64> {
    info.lines().find_map(|line| line.strip_prefix(field)).and_then(|value| value.trim().parse().ok())
}

/// How often a command was called, by `INFO commandstats`.
pub(super) fn calls(info: &str, command: &str) -> u64 {
    let line = info.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.and_then(|rest| rest.split(',').next()).and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// That port of this machine.
pub(super) fn local(port: u16) -> Address {
    Address::Tcp { host: "127.0.0.1".to_owned(), port }
}

/// A port that was free just now.
pub(super) fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
