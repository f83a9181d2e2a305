//! What the benches that start processes share: servers, the load, who is measured, and where reports go.

use std::env;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context as _, ensure};
use tokio::signal::unix::{SignalKind, signal};

pub(crate) mod load;
pub(crate) mod process;
pub(crate) mod resp;
pub(crate) mod servers;
pub(crate) mod spread;

/// Writes a report to `target/bench/NAME.md` and, if wanted, between the markers `<!-- MARKER -->` and
/// `<!-- /MARKER -->` of a file of the repository.
pub(crate) fn publish(name: &str, marker: &str, report: &str, into: Option<&str>) -> anyhow::Result<()> {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let file = target.join(format!("bench/{name}.md"));
    fs::create_dir_all(target.join("bench"))?;
    fs::write(&file, report)?;
    say(&format!("\n{report}\nThis is {}", file.display()))?;
    let Some(into) = into else { return Ok(()) };
    let text = fs::read_to_string(root().join(into)).with_context(|| format!("no {into}"))?;
    let text =
        insert(&text, marker, report).with_context(|| format!("{into} has no <!-- {marker} --> markers"))?;
    fs::write(root().join(into), text).with_context(|| format!("cannot write {into}"))
}

/// Puts `report` between the markers of `text`; `None` when it has none.
fn insert(text: &str, marker: &str, report: &str) -> Option<String> {
    let (begin, end) = (format!("<!-- {marker} -->"), format!("<!-- /{marker} -->"));
    let (before, rest) = text.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}\n{report}{end}{after}"))
}

/// Set when SIGINT or SIGTERM arrives: then what runs is taken down in order.
pub(crate) fn stop_on_signal() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _entered = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        told.store(true, Ordering::Relaxed);
    });
    Ok(stop)
}

/// What this was measured on.
pub(crate) fn machine() -> anyhow::Result<String> {
    let cpu = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = thread::available_parallelism()?;
    ensure!(cores.get() >= 2, "this needs two cores: one for the proxy, one for servers and load");
    let server =
        Command::new("redis-server").arg("--version").output().context("is redis-server installed?")?;
    let server = String::from_utf8_lossy(&server.stdout);
    let version =
        server.split("v=").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or("of unknown version");
    Ok(format!(
        "Redis {version}, {cores} cores of {}.",
        model.map_or("an unknown processor", |(_, name)| name)
    ))
}

/// The root of the package.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn say(text: &str) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{text}").context("stdout is closed")
}
