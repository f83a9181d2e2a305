//! The proxy under callgrind, and what that counted.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, ensure};

use crate::cases::REPLICAS;
use crate::rig::process::{Process, free_port, is_installed, proxy_core};
use crate::rig::servers::Servers;

/// How the allocator is called: the C library, which has some functions twice, and what is before it in a debug build.
const ALLOCATOR: [&str; 14] = [
    "__rustc::__rust_alloc",
    "__rustc::__rust_realloc",
    "__rustc::__rdl_alloc",
    "__rustc::__rdl_alloc_zeroed",
    "__rustc::__rdl_realloc",
    "malloc",
    "calloc",
    "realloc",
    "posix_memalign",
    "aligned_alloc",
    "__libc_malloc",
    "__libc_calloc",
    "__libc_realloc",
    "__posix_memalign",
];

/// Redweir under callgrind, with one worker; it ends with this value.
pub(crate) struct Valgrind {
    process: Process,
    pub(crate) port: u16,
    /// The thread that serves clients.
    pub(crate) worker: u32,
    /// The thread that follows the stream and asks servers how they are.
    pub(crate) control: u32,
    out: PathBuf,
    dumps: usize,
    counted: Instant,
}

/// What happened between two dumps, or per request.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    /// Instructions of the worker.
    pub(crate) worker: f64,
    /// Instructions of the control thread.
    pub(crate) control: f64,
    /// Calls of the allocator by the worker, by the function that called; most first.
    pub(crate) worker_calls: Vec<(String, f64)>,
    /// The same by the control thread.
    pub(crate) control_calls: Vec<(String, f64)>,
    /// How long that took.
    pub(crate) seconds: f64,
}

impl Valgrind {
    /// Starts it, and waits until reads reach every replica.
    pub(crate) fn start(binary: &str, home: &Path, servers: &Servers, level: &str) -> anyhow::Result<Self> {
        ensure!(
            is_installed("valgrind") && is_installed("vgdb"),
            "valgrind is not installed: make deps-gate"
        );
        let port = free_port()?;
        let (file, log, out) = (home.join("redweir.toml"), home.join("valgrind.log"), home.join("counts"));
        fs::write(&file, configuration(port, &servers.ports, level))?;
        let out_file = format!("--callgrind-out-file={}", out.display());
        let file = file.to_str().context("the temporary directory has no UTF-8 name")?;
        let args = ["--tool=callgrind", "--separate-threads=yes", &out_file, binary, "run", "-c", file];
        let mut process = Process::start(proxy_core(), "valgrind", &args, &log)?;
        process.wait_for(port, &log).context(binary.to_owned())?;
        servers.await_reads(port, REPLICAS)?;
        let named = |name| Ok::<_, anyhow::Error>(thread(&process, name)?.0);
        let (worker, control) = (named("worker-0")?, named("control")?);
        let mut this = Self { worker, control, process, port, out, dumps: 0, counted: Instant::now() };
        let start = this.count()?;
        ensure!(
            !start.worker_calls.is_empty(),
            "a start without allocations: callgrind does not name malloc"
        );
        Ok(this)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// What was counted since this was called before.
    pub(crate) fn count(&mut self) -> anyhow::Result<Measured> {
        let done = Command::new("vgdb").arg(format!("--pid={}", self.pid())).arg("dump").output()?;
        ensure!(done.status.success(), "vgdb: {}", String::from_utf8_lossy(&done.stderr));
        self.dumps += 1;
        let seconds = self.counted.elapsed().as_secs_f64();
        self.counted = Instant::now();
        let read = |name| -> anyhow::Result<(f64, Vec<(String, f64)>)> {
            let (_, number) = thread(&self.process, name)?;
            let path = format!("{}.{}-{number:02}", self.out.display(), self.dumps);
            let text = fs::read_to_string(&path).with_context(|| format!("no {path}"))?;
            let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
            Ok((total.context("no totals")?.trim().parse()?, allocations(&text)))
        };
        let ((worker, worker_calls), (control, control_calls)) = (read("worker-0")?, read("control")?);
        Ok(Measured { worker, control, worker_calls, control_calls, seconds })
    }
}

impl Measured {
    pub(crate) fn per(self, requests: usize) -> Self {
        let per = |count: f64| count / requests as f64;
        let each =
            |calls: Vec<(String, f64)>| calls.into_iter().map(|(who, count)| (who, per(count))).collect();
        Self {
            worker: per(self.worker),
            control: per(self.control),
            worker_calls: each(self.worker_calls),
            control_calls: each(self.control_calls),
            seconds: per(self.seconds),
        }
    }
}

/// The kernel's and valgrind's number of a thread: valgrind counts them from 1 as they are started.
fn thread(process: &Process, name: &str) -> anyhow::Result<(u32, usize)> {
    let mut threads = Vec::new();
    for task in fs::read_dir(format!("/proc/{}/task", process.id()))? {
        threads.push(task?.file_name().to_string_lossy().parse::<u32>()?);
    }
    threads.sort_unstable();
    for (index, thread) in threads.into_iter().enumerate() {
        if fs::read_to_string(format!("/proc/{}/task/{thread}/comm", process.id()))?.trim_end() == name {
            return Ok((thread, index + 1));
        }
    }
    anyhow::bail!("redweir has no thread named {name}")
}

/// The calls of the allocator that a dump tells of, by caller.
///
/// `fn=(12) name` begins a function, `cfn=(34) name` names one that it calls, the `calls=5 …` after it says how often;
/// a name is told only once per number.
fn allocations(dump: &str) -> Vec<(String, f64)> {
    let (mut names, mut caller, mut callee) = (HashMap::new(), "", "");
    let mut calls: HashMap<String, f64> = HashMap::new();
    for line in dump.lines() {
        let (called, rest) = match (line.strip_prefix("fn="), line.strip_prefix("cfn=")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => {
                let count = line.strip_prefix("calls=").and_then(|rest| rest.split(' ').next()?.parse().ok());
                if let Some(count) =
                    count.filter(|_: &f64| ALLOCATOR.contains(&callee) && !ALLOCATOR.contains(&caller))
                {
                    *calls.entry(caller.to_owned()).or_default() += count;
                }
                continue;
            }
        };
        let (number, name) = rest.split_once(' ').unwrap_or((rest, ""));
        let name = if name.is_empty() { names.get(number).copied().unwrap_or_default() } else { name };
        names.insert(number, name);
        *(if called { &mut callee } else { &mut caller }) = name;
    }
    let mut calls: Vec<(String, f64)> = calls.into_iter().collect();
    calls.sort_by(|a, b| b.1.total_cmp(&a.1));
    calls
}

/// Nothing in it depends on how fast the machine is: nobody is asked often, and nobody's silence matters soon.
fn configuration(port: u16, servers: &[u16], level: &str) -> String {
    let replicas: Vec<String> = servers[1..].iter().map(|port| format!("\"127.0.0.1:{port}\"")).collect();
    format!(
        "[[listen]]\naddress = \"127.0.0.1:{port}\"\n\
         [upstream]\nprimary = \"127.0.0.1:{}\"\nreplicas = [{}]\n\
         poll-interval = \"1s\"\ninfo-interval = \"60s\"\nprobe-timeout = \"30s\"\nconnect-timeout = \"30s\"\n\
         [policy.default]\nconsistency = \"{level}\"\nmax-lag = \"60s\"\n[proxy]\nworkers = 1\n",
        servers[0],
        replicas.join(", ")
    )
}
