//! Work in turns that are the same every time.
//!
//! How many requests a proxy finds when it looks decides how many system calls it makes for them, and under valgrind it
//! is slower than everybody else. So nobody runs while another prepares work for it: the proxy is stopped while all
//! clients send; the servers are stopped until the proxy has passed everything on; then the proxy, until they have
//! answered everything. Each finds all there is at once.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::KEYS;
use crate::callgrind::Valgrind;
use crate::cases::{Case, Command};
use crate::rig::servers::Servers;

/// How long anything may take.
const WITHIN: Duration = Duration::from_mins(1);
const PAUSE: Duration = Duration::from_micros(20);

/// The clients of one case.
pub(crate) struct Clients<'a> {
    case: &'a Case,
    streams: Vec<TcpStream>,
    /// What one pipeline is answered with.
    expected: Vec<u8>,
    replies: Vec<u8>,
    chance: u64,
}

impl<'a> Clients<'a> {
    pub(crate) fn connect(port: u16, case: &'a Case) -> anyhow::Result<Self> {
        let streams = (0..case.clients).map(|_| {
            let mut stream = TcpStream::connect(("127.0.0.1", port))?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(WITHIN))?;
            // The first command waits until the primary has said that strangers may come in.
            stream.write_all(b"*2\r\n$3\r\nGET\r\n$5\r\nfirst\r\n")?;
            stream.read_exact(&mut [0; b"$-1\r\n".len()])?;
            Ok(stream)
        });
        let reply = match case.command {
            Command::Get => format!("${}\r\n{}\r\n", case.bytes, "x".repeat(case.bytes)),
            Command::Set => "+OK\r\n".to_owned(),
        };
        Ok(Self {
            case,
            streams: streams.collect::<anyhow::Result<_>>()?,
            expected: reply.repeat(case.pipeline).into_bytes(),
            replies: Vec::new(),
            chance: 1,
        })
    }

    /// In each round, every client sends one pipeline and waits for its replies.
    pub(crate) fn play(&mut self, rounds: usize, proxy: &Valgrind, servers: &Servers) -> anyhow::Result<()> {
        let (proxy_pid, servers) = (proxy.pid(), servers.pids());
        for _ in 0..rounds {
            stop(proxy_pid)?;
            self.send()?;
            servers.iter().try_for_each(|&server| stop(server))?;
            go_on(proxy_pid)?;
            await_idle(proxy_pid, proxy.worker)?;
            stop(proxy_pid)?;
            servers.iter().try_for_each(|&server| go_on(server))?;
            servers.iter().try_for_each(|&server| await_idle(server, server))?;
            go_on(proxy_pid)?;
            self.receive()?;
            await_idle(proxy_pid, proxy.worker)?;
            await_idle(proxy_pid, proxy.control)?;
        }
        Ok(())
    }

    fn send(&mut self) -> anyhow::Result<()> {
        let (value, bytes) = ("x".repeat(self.case.bytes), self.case.bytes);
        for mut stream in &self.streams {
            let mut requests = Vec::new();
            for _ in 0..self.case.pipeline {
                self.chance = self.chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let key = (self.chance >> 33) % KEYS as u64;
                match self.case.command {
                    Command::Get => write!(requests, "*2\r\n$3\r\nGET\r\n$16\r\nkey:{key:012}\r\n")?,
                    Command::Set => write!(
                        requests,
                        "*3\r\n$3\r\nSET\r\n$16\r\nkey:{key:012}\r\n${bytes}\r\n{value}\r\n"
                    )?,
                }
            }
            stream.write_all(&requests)?;
        }
        Ok(())
    }

    fn receive(&mut self) -> anyhow::Result<()> {
        self.replies.resize(self.expected.len(), 0);
        for mut stream in &self.streams {
            stream.read_exact(&mut self.replies).context("the proxy does not answer")?;
            ensure!(
                self.replies == self.expected,
                "another answer than expected: {}",
                String::from_utf8_lossy(&self.replies)
            );
        }
        Ok(())
    }
}

/// Stops a process; it has stopped when this returns.
fn stop(pid: u32) -> anyhow::Result<()> {
    let pid = Pid::from_raw(pid.cast_signed());
    kill(pid, Signal::SIGSTOP)?;
    waitpid(pid, Some(WaitPidFlag::WUNTRACED))?;
    Ok(())
}

fn go_on(pid: u32) -> anyhow::Result<()> {
    Ok(kill(Pid::from_raw(pid.cast_signed()), Signal::SIGCONT)?)
}

/// Waits until a thread has nothing left to do: it sleeps in `epoll_wait`.
fn await_idle(pid: u32, thread: u32) -> anyhow::Result<()> {
    let (file, began) = (format!("/proc/{pid}/task/{thread}/wchan"), Instant::now());
    loop {
        let place = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
        if place.contains("epoll") || place.contains("ep_poll") {
            return Ok(());
        }
        ensure!(began.elapsed() < WITHIN, "{file} never names epoll, but `{place}`");
        thread::sleep(PAUSE);
    }
}
