//! Servers that may use only a share of a core each.
//!
//! The kernel can do this (`cpu.max` of a cgroup), but containers and CI rarely let one. So the bench does it itself:
//! every millisecond it reads how long each server has run, stops one that has used up its share, and lets it go on as
//! soon as it has earned some again. What is overdrawn is paid back, so the share is exact on average.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const TICK: Duration = Duration::from_millis(1);
/// What a server that had nothing to do may save up, in nanoseconds.
const SAVINGS: f64 = 1e6;

/// Holds servers to their share until it is dropped.
pub(crate) struct Throttle {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

struct Server {
    pid: u32,
    /// Nanoseconds that it had run when it was looked at.
    used: u64,
    /// Nanoseconds that it may run; less than none when it has overdrawn.
    credit: f64,
    stopped: bool,
}

impl Throttle {
    pub(crate) fn start(pids: &[u32], share: f64) -> anyhow::Result<Self> {
        let server = |&pid| {
            let used = used(pid).context("the kernel tells no schedstat (CONFIG_SCHED_INFO)")?;
            Ok(Server { pid, used, credit: 0.0, stopped: false })
        };
        let mut servers: Vec<Server> = pids.iter().map(server).collect::<anyhow::Result<_>>()?;
        let over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&over);
        let thread = thread::spawn(move || {
            let mut before = Instant::now();
            while !told.load(Ordering::Relaxed) {
                thread::sleep(TICK);
                let earned = before.elapsed().as_nanos() as f64 * share;
                before = Instant::now();
                for server in &mut servers {
                    server.look(earned);
                }
            }
            for server in &servers {
                server.tell(Signal::SIGCONT);
            }
        });
        Ok(Self { over, thread: Some(thread) })
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Server {
    fn look(&mut self, earned: f64) {
        let Some(used) = used(self.pid) else { return };
        self.credit = (self.credit + earned - (used - self.used) as f64).min(SAVINGS);
        self.used = used;
        let stop = self.credit < 0.0;
        if stop != self.stopped {
            self.tell(if stop { Signal::SIGSTOP } else { Signal::SIGCONT });
            self.stopped = stop;
        }
    }

    fn tell(&self, signal: Signal) {
        // One that has ended needs no telling.
        let _ = kill(Pid::from_raw(self.pid.cast_signed()), signal);
    }
}

/// How long the main thread of a process has run, in nanoseconds.
fn used(pid: u32) -> Option<u64> {
    fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?.split(' ').next()?.parse().ok()
}
