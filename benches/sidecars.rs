//! What many proxies of one primary cost its servers: each asks every node how it is, follows the replication stream of one of
//! them, and keeps connections of its own. They know nothing of each other, so what one costs is what each costs.
//!
//! `make bench-sidecars`; with `BENCH_README=1` the table goes to `benches/README.md`.
#![allow(clippy::disallowed_methods, reason = "a bench is outside of `net` and has a clock of its own")]

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

#[path = "rig/mod.rs"]
#[allow(dead_code, reason = "shared by the benches")]
mod rig;

use rig::process::{self, Process, free_port, proxy_core};
use rig::resp::Conn;
use rig::servers::Servers;
use rig::{machine, say, stop_on_signal};

/// How many proxies there are, in turn.
const COUNTS: [usize; 4] = [0, 1, 10, 50];
const REPLICAS: usize = 2;
/// How long is looked on, without writes and with them.
const LOOKED_ON: Duration = Duration::from_secs(10);
/// After a start: connections are made, tables read, the stream found.
const SETTLES_IN: Duration = Duration::from_secs(5);
const WRITE_EVERY: Duration = Duration::from_millis(1);
const FILES: u64 = 4_000;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let binary = args.iter().skip_while(|arg| *arg != "--binary").nth(1);
    if binary.is_none() && !args.iter().any(|arg| arg == "--bench") {
        return say("This takes minutes and two cores to itself: make bench-sidecars");
    }
    let binary = binary.map_or(env!("CARGO_BIN_EXE_redweir"), String::as_str);
    process::raise_open_files(FILES)?;
    let stop = stop_on_signal()?;
    let home = tempfile::tempdir()?;
    let servers = Servers::start(home.path(), REPLICAS)?;
    servers.fill(1, 32)?;
    let (mut proxies, mut rows) = (Vec::new(), Vec::new());
    for count in COUNTS {
        while proxies.len() < count {
            ensure!(!stop.load(Ordering::Relaxed), "interrupted");
            proxies.push(start(binary, home.path(), proxies.len(), &servers)?);
        }
        say(&format!("{count} proxies"))?;
        thread::sleep(SETTLES_IN);
        let quiet = look_on(&servers)?;
        let writer = Writer::start(servers.primary());
        let written = look_on(&servers)?;
        let writes = writer.stop()? as f64 / written.seconds;
        rows.push(Row { count, quiet, written, writes, streams: streams(&servers)? });
    }
    let report = format!("{}\n\n{}", machine()?, table(&rows)?);
    let wanted = env::var_os("BENCH_README").is_some_and(|value| value != "0");
    rig::publish("sidecars", "sidecars", &report, wanted.then_some("benches/README.md"))
}

fn start(binary: &str, home: &Path, number: usize, servers: &Servers) -> anyhow::Result<Process> {
    let port = free_port()?;
    let (file, log) =
        (home.join(format!("redweir-{number}.toml")), home.join(format!("redweir-{number}.log")));
    let (primary, replicas) = servers.ports.split_first().context("no servers")?;
    let replicas: Vec<String> = replicas.iter().map(|port| format!("\"127.0.0.1:{port}\"")).collect();
    fs::write(
        &file,
        format!(
            "[[listen]]\naddress = \"127.0.0.1:{port}\"\npolicy = \"default\"\n[upstream]\n\
             primary = \"127.0.0.1:{primary}\"\nreplicas = [{}]\n[policy.default]\nconsistency = \"fenced\"\n\
             [proxy]\nworkers = 1\n",
            replicas.join(", ")
        ),
    )?;
    let file = file.to_str().context("the temporary directory has no UTF-8 name")?;
    let mut process = Process::start(proxy_core(), binary, &["run", "-c", file], &log)?;
    process.wait_for(port, &log)?;
    Ok(process)
}

/// What the servers did in a while, the primary first.
struct Looked {
    seconds: f64,
    /// Processor time, as a share of one core.
    cpu: Vec<f64>,
    /// Commands a second.
    commands: Vec<f64>,
    /// Bytes a second, the stream to the proxies among them.
    sent: Vec<f64>,
    clients: Vec<f64>,
}

fn look_on(servers: &Servers) -> anyhow::Result<Looked> {
    let fields = |name: &str| -> anyhow::Result<Vec<f64>> {
        servers.ports.iter().map(|&port| info(port, name)).collect()
    };
    let all = || -> anyhow::Result<[Vec<f64>; 3]> {
        let cpu = servers.cpu_nanos()?.into_iter().map(|nanos| nanos as f64 / 1e9).collect();
        Ok([cpu, fields("total_commands_processed")?, fields("total_net_output_bytes")?])
    };
    let (began, before) = (Instant::now(), all()?);
    thread::sleep(LOOKED_ON);
    let (seconds, after) = (began.elapsed().as_secs_f64(), all()?);
    let rates = |n: usize| after[n].iter().zip(&before[n]).map(|(after, before)| (after - before) / seconds);
    let (cpu, commands, sent) = (rates(0).collect(), rates(1).collect(), rates(2).collect());
    Ok(Looked { seconds, cpu, commands, sent, clients: fields("connected_clients")? })
}

fn info(port: u16, name: &str) -> anyhow::Result<f64> {
    let info = Conn::open(port)?.call(&["INFO", "all"])?;
    let info = String::from_utf8_lossy(&info);
    let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.and_then(|value| value.trim().parse().ok()).with_context(|| format!("no {name}"))
}

/// Streams that are read from each server, those of its own replicas not among them.
fn streams(servers: &Servers) -> anyhow::Result<Vec<f64>> {
    let own = |n: usize| if n == 0 { REPLICAS as f64 } else { 0.0 };
    let ports = servers.ports.iter().enumerate();
    ports.map(|(n, &port)| Ok(info(port, "connected_slaves")? - own(n))).collect()
}

/// Somebody who writes 100 bytes every millisecond, straight at the primary.
struct Writer {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    thread: JoinHandle<std::io::Result<()>>,
}

impl Writer {
    fn start(port: u16) -> Self {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (until, count) = (Arc::clone(&stop), Arc::clone(&written));
        let thread = thread::spawn(move || {
            let (mut conn, value) = (Conn::open(port)?, "x".repeat(100));
            while !until.load(Ordering::Relaxed) {
                conn.call(&["SET", "key", &value])?;
                count.fetch_add(1, Ordering::Relaxed);
                thread::sleep(WRITE_EVERY);
            }
            Ok(())
        });
        Self { stop, written, thread }
    }

    fn stop(self) -> anyhow::Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
        Ok(self.written.load(Ordering::Relaxed))
    }
}

struct Row {
    count: usize,
    quiet: Looked,
    written: Looked,
    /// A second.
    writes: f64,
    streams: Vec<f64>,
}

fn table(rows: &[Row]) -> anyhow::Result<String> {
    let mut text = String::from(
        "| proxies | server | streams | clients | quiet: commands/s | KiB/s | % of a core | with writes: KiB/s | % of a core |\n\
         |--:|:--|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for row in rows {
        for (n, server) in ["primary", "replica", "replica"].iter().enumerate() {
            let Looked { cpu, commands, sent, clients, .. } = &row.quiet;
            writeln!(
                text,
                "| {} | {server} | {} | {} | {:.0} | {:.1} | {:.2} | {:.1} | {:.2} |",
                row.count,
                row.streams[n],
                clients[n],
                commands[n],
                sent[n] / 1024.0,
                cpu[n] * 100.0,
                row.written.sent[n] / 1024.0,
                row.written.cpu[n] * 100.0
            )?;
        }
    }
    let (first, last) = (&rows[0], &rows[rows.len() - 1]);
    let each = |of: &dyn Fn(&Row) -> f64| (of(last) - of(first)) / last.count as f64;
    writeln!(
        text,
        "\nEach proxy costs the primary {:.1} commands/s, {:.2} KiB/s and {:.3} % of a core; all servers together, with {:.0} \
         writes/s, {:.1} KiB/s and {:.3} % of a core.",
        each(&|row| row.quiet.commands[0]),
        each(&|row| row.quiet.sent[0]) / 1024.0,
        each(&|row| row.quiet.cpu[0]) * 100.0,
        last.writes,
        each(&|row| row.written.sent.iter().sum()) / 1024.0,
        each(&|row| row.written.cpu.iter().sum()) * 100.0,
    )?;
    Ok(text)
}
