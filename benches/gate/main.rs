//! A gate that noise cannot fool: how many instructions the proxy executes per request, and how often it calls the
//! allocator, counted by callgrind and compared with `benches/instructions.toml`.
//!
//! A real primary with two replicas, Redweir with one worker under valgrind, and clients that send the same requests in
//! the same turns every time (see [`rounds`]), so that what the machine does besides changes nothing. Each case is
//! warmed up first, and the counters are set to zero then.
//!
//!     make gate                 compares the release build
//!     make gate UPDATE=1        writes the file anew
//!     cargo test --bench gate   counts allocations only, of whatever was built just now
//!
//! It is built like a test, because the proxy that is measured is built already.
#![allow(clippy::disallowed_methods, reason = "a bench is outside of `net` and has a clock of its own")]

use std::env;
use std::process::ExitCode;
use std::time::Duration;

mod callgrind;
mod cases;
mod figures;
#[path = "../rig/mod.rs"]
#[allow(dead_code, reason = "shared by the benches")]
mod rig;
mod rounds;

use callgrind::{Measured, Valgrind};
use cases::{CASES, Case, Command};
use figures::{Figures, Verdict};
use rig::say;
use rig::servers::Servers;
use rounds::Clients;

/// More calls per request than this are an allocation per request …
const ALLOCATIONS: f64 = 0.01;
/// … unless they are those of timers, per second: the worker looks after its lanes, the control thread asks servers how
/// they are. Under valgrind and on a busy machine there are few requests in a second.
const WORKER_TIMERS: f64 = 20.0;
const CONTROL_TIMERS: f64 = 400.0;
const KEYS: usize = 10_000;
/// Which part of a case is done beforehand, to warm up.
const WARM_UP: usize = 4;
/// A debug build takes many times the instructions: it does less, so that there are fewer requests per timer.
const DEBUG_SHARE: usize = 5;
/// By then the next poll (once a second here) has told the offsets of what was written before. A client that reads such a key
/// earlier is sent to the primary, and has each read decided anew until the poll after that: by chance, that would be counted.
const SETTLED_AFTER: Duration = Duration::from_millis(1500);
/// How often what is too many is counted anew.
const RECOUNTS: usize = 3;

fn main() -> anyhow::Result<ExitCode> {
    let args: Vec<String> = env::args().skip(1).collect();
    let release = args.iter().skip_while(|arg| *arg != "--binary").nth(1);
    let update = args.iter().any(|arg| arg == "--update");
    let share = if release.is_some() { 1 } else { DEBUG_SHARE };
    let binary = release.map_or(env!("CARGO_BIN_EXE_redweir"), String::as_str);
    let measured = measure_all(binary, share)?;
    let clean = tell_allocations(&measured, share as f64)?;
    if release.is_none() {
        return Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let mut counted = figures_of(&measured);
    if update {
        figures::write(&counted)?;
        say(&format!("{} is written.", figures::FILE))?;
        return Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let figures = Figures::read()?;
    let is_good =
        |(name, count): &(String, f64)| matches!(figures.judge(name, *count), Verdict::Same | Verdict::Lower);
    for _ in 0..RECOUNTS {
        if counted.iter().all(is_good) {
            break;
        }
        // A machine that is busy with something else wakes clients one by one: that only adds. What the program has too many of it
        // has each time.
        say("\nSome are too many: all is counted once more, and the lowest count is taken.")?;
        let again = figures_of(&measure_all(binary, share)?);
        for ((_, count), (_, other)) in counted.iter_mut().zip(again) {
            *count = count.min(other);
        }
    }
    let good = tell_instructions(&figures, &counted)?;
    Ok(if clean && good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs all cases.
fn measure_all(binary: &str, share: usize) -> anyhow::Result<Vec<(&'static Case, Measured)>> {
    let mut measured = Vec::new();
    for level in cases::LEVELS {
        let of_level = CASES.iter().filter(|case| case.level == level).collect::<Vec<_>>();
        measured.extend(of_level.iter().copied().zip(measure(binary, level, &of_level, share)?));
    }
    Ok(measured)
}

/// What is compared, by name.
fn figures_of(measured: &[(&Case, Measured)]) -> Vec<(String, f64)> {
    measured.iter().flat_map(|(case, measured)| case.figures(measured)).collect()
}

/// Runs the cases of one level, one after the other, through one proxy.
fn measure(binary: &str, level: &str, cases: &[&Case], share: usize) -> anyhow::Result<Vec<Measured>> {
    let home = tempfile::tempdir()?;
    let servers = Servers::start(home.path(), cases::REPLICAS)?;
    let mut proxy = Valgrind::start(binary, home.path(), &servers, level)?;
    let (mut measured, mut filled) = (Vec::new(), 0);
    for case in cases {
        if case.bytes != filled {
            servers.fill(KEYS, case.bytes)?;
            filled = case.bytes;
        }
        let mut clients = Clients::connect(proxy.port, case)?;
        let rounds = (case.rounds / share).max(1);
        if case.command == Command::Get {
            std::thread::sleep(SETTLED_AFTER);
        }
        clients.play(rounds.div_ceil(WARM_UP), &proxy, &servers)?;
        proxy.count()?;
        clients.play(rounds, &proxy, &servers)?;
        measured.push(proxy.count()?.per(rounds * case.clients * case.pipeline));
    }
    Ok(measured)
}

/// Says what allocates, if anything does; buffers may grow `slack` times as often.
fn tell_allocations(measured: &[(&Case, Measured)], slack: f64) -> anyhow::Result<bool> {
    let mut clean = true;
    for (case, measured) in measured {
        let mut tell = |name: &str, calls: &[(String, f64)], timers: f64| {
            let sum: f64 = calls.iter().map(|(_, calls)| calls).sum();
            let good = sum < ALLOCATIONS * slack + timers * measured.seconds;
            clean &= good;
            say(&format!("test {name} ({sum:.4} per request) ... {}", if good { "ok" } else { "FAILED" }))?;
            let mut worst = calls.iter().take(if good { 0 } else { 8 });
            worst.try_for_each(|(caller, calls)| say(&format!("    {calls:.4} by {caller}")))
        };
        tell(&format!("allocations of {}", case.name()), &measured.worker_calls, WORKER_TIMERS)?;
        if case.command == Command::Set {
            tell(
                &format!("allocations of {}{}", case.name(), cases::STREAM),
                &measured.control_calls,
                CONTROL_TIMERS,
            )?;
        }
    }
    Ok(clean)
}

/// Says how the counts compare with the figures.
fn tell_instructions(figures: &Figures, counted: &[(String, f64)]) -> anyhow::Result<bool> {
    let (mut good, mut lower) = (true, false);
    say(&format!("\ninstructions per request, {} of tolerance:", figures.tolerance()))?;
    for (name, count) in counted {
        let verdict = figures.judge(name, *count);
        good &= matches!(verdict, Verdict::Same | Verdict::Lower);
        lower |= matches!(verdict, Verdict::Lower);
        say(&format!("    {name:<42} {count:>8.1}  {}", figures.compared(name, *count)))?;
    }
    let gone = figures.not_in(counted);
    good &= gone.is_empty();
    for name in gone {
        say(&format!("    {name:<42} is in the file, and was not counted"))?;
    }
    if !good {
        say(&format!(
            "\nThe proxy executes more than {} says. If that is meant, or another toolchain explains it ({}), \
             say why and run: make gate UPDATE=1",
            figures::FILE,
            figures.toolchains()
        ))?;
    } else if lower {
        say("\nThe proxy got faster. Keep it so: make gate UPDATE=1")?;
    }
    Ok(good)
}
