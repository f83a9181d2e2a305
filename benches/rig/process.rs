//! The processes of the bench: pinned to a core, ended with their value and with the bench, and what they used.

use std::env;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::resp::Conn;

/// Who runs where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cores {
    /// The proxy under test has a core to itself; servers and load share another.
    Apart,
    /// All are on one core: what the machine does to one of them it does to all.
    One,
    /// All are wherever the kernel puts them, and a proxy has two workers.
    All,
}

static CORES: OnceLock<Cores> = OnceLock::new();

/// Says who runs where, once; [`Cores::Apart`] unless it is said.
pub(crate) fn place(cores: Cores) {
    CORES.get_or_init(|| cores);
}

pub(crate) fn cores() -> Cores {
    *CORES.get_or_init(|| Cores::Apart)
}

/// Where the proxy under test belongs.
pub(crate) fn proxy_core() -> &'static str {
    if cores() == Cores::All { "0,1" } else { "0" }
}

/// Where servers and load belong.
pub(crate) fn load_core() -> &'static str {
    match cores() {
        Cores::Apart => "1",
        Cores::One => "0",
        Cores::All => "0,1",
    }
}

/// How often, with [`PAUSE`] between, a port is asked whether somebody answers.
const TRIES: u32 = 3_000;
const PAUSE: Duration = Duration::from_millis(20);

/// A running process; it ends with this value, and the kernel ends it if the bench is killed.
pub(crate) struct Process(Child);

impl Process {
    /// Starts `program` on `core`; what it says goes to `log`.
    pub(crate) fn start(core: &str, program: &str, args: &[&str], log: &Path) -> anyhow::Result<Self> {
        let file = fs::File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
        let child = on_core(core, program, args)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .context("cannot start `taskset`: is util-linux installed?")?;
        Ok(Self(child))
    }

    /// Waits until a `GET` on this port, of a key of the load, is answered, by anything but an error.
    pub(crate) fn wait_for(&mut self, port: u16, log: &Path) -> anyhow::Result<()> {
        for _ in 0..TRIES {
            let said = || fs::read_to_string(log).unwrap_or_default();
            ensure!(self.0.try_wait()?.is_none(), "it ended, and said:\n{}", said());
            let answer = Conn::open(port).and_then(|mut conn| conn.call(&["GET", "key:000000000000"]));
            if answer.is_ok_and(|reply| !reply.starts_with(b"-")) {
                return Ok(());
            }
            thread::sleep(PAUSE);
        }
        anyhow::bail!("nobody answers on port {port}:\n{}", fs::read_to_string(log).unwrap_or_default())
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Processor time that all its threads have used, in nanoseconds.
    pub(crate) fn cpu_nanos(&self) -> anyhow::Result<u64> {
        let mut sum = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.0.id()))? {
            // A thread that has just ended is missing in both readings.
            let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
            let used = text.split(' ').next().and_then(|nanos| nanos.parse::<u64>().ok());
            sum += used.context("the kernel tells no schedstat (CONFIG_SCHED_INFO)")?;
        }
        Ok(sum)
    }

    /// Resident memory in KiB.
    pub(crate) fn resident_kib(&self) -> anyhow::Result<u64> {
        self.status_kib("VmRSS:")
    }

    /// The most resident memory that it ever had, in KiB.
    pub(crate) fn peak_kib(&self) -> anyhow::Result<u64> {
        self.status_kib("VmHWM:")
    }

    fn status_kib(&self, field: &str) -> anyhow::Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix(field));
        let number = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok());
        number.with_context(|| format!("no {field}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A command that runs on this core and dies with the bench.
pub(crate) fn on_core(core: &str, program: &str, args: &[&str]) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", core, "setpriv", "--pdeathsig", "KILL", program]).args(args);
    command
}

/// Whether the PATH has such a program.
pub(crate) fn is_installed(program: &str) -> bool {
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// Allows this process and those it starts `wanted` open files; how many there are in the end.
pub(crate) fn raise_open_files(wanted: u64) -> anyhow::Result<u64> {
    let limits = fs::read_to_string("/proc/self/limits")?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let mut numbers = line.context("no limit of open files")?.split_whitespace();
    let mut limit = || numbers.next().map_or(0, |text| text.parse().unwrap_or(u64::MAX));
    let (soft, hard) = (limit(), limit());
    let reach = wanted.min(hard);
    if soft < reach {
        let pid = std::process::id().to_string();
        let done = Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={reach}:")]).status()?;
        ensure!(done.success(), "prlimit cannot raise the limit of open files to {reach}");
    }
    Ok(soft.max(reach))
}

/// Processor time of the children of this process that have ended, in nanoseconds, to a hundredth of a second.
pub(crate) fn ended_children_nanos() -> anyhow::Result<u64> {
    const NANOS_PER_TICK: u64 = 10_000_000;
    let text = fs::read_to_string("/proc/self/stat")?;
    // The name of the process is in parentheses; the 16th and 17th field are cutime and cstime.
    let after_name = text.rsplit_once(") ").map(|(_, rest)| rest.split(' ').skip(13).take(2));
    let ticks: Vec<u64> = after_name.into_iter().flatten().filter_map(|field| field.parse().ok()).collect();
    let [user, system] = ticks[..] else { anyhow::bail!("/proc/self/stat says: {text}") };
    Ok((user + system) * NANOS_PER_TICK)
}

/// What all cores have done since the machine was started, in ticks of the kernel's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticks {
    pub(crate) busy: u64,
    /// The part of them that the hypervisor gave to others.
    pub(crate) stolen: u64,
    pub(crate) all: u64,
}

impl Ticks {
    /// The share of some of them in all, from then to now.
    pub(crate) fn since(self, before: Self, of: fn(&Self) -> u64) -> f64 {
        (of(&self) - of(&before)) as f64 / (self.all - before.all).max(1) as f64
    }
}

pub(crate) fn machine_ticks() -> anyhow::Result<Ticks> {
    let text = fs::read_to_string("/proc/stat")?;
    let line =
        text.lines().next().and_then(|line| line.strip_prefix("cpu ")).context("no cpu in /proc/stat")?;
    // user, nice, system, idle, iowait, irq, softirq, steal.
    let ticks: Vec<u64> = line.split_whitespace().take(8).filter_map(|number| number.parse().ok()).collect();
    let [_, _, _, idle, waiting, _, _, stolen] = ticks[..] else { anyhow::bail!("/proc/stat says: {line}") };
    let all = ticks.iter().sum::<u64>();
    Ok(Ticks { busy: all - idle - waiting, stolen, all })
}

/// A port that was free just now.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
