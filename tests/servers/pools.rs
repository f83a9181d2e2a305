//! An application on redis-py, with pools and threads, sees nothing of it when the primary moves or Redweir is restarted.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]

use std::env;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::handover::{Process, upstream};
use crate::support::{Conn, Redis, Setup, Topology, eventually, free_port, secs};

/// Eight clients of redis-py, each with a pool.
struct Application {
    child: Child,
    says: BufReader<std::process::ChildStdout>,
}

/// What they came to.
struct Outcome {
    answered: u64,
    errors: serde_json::Value,
    told: serde_json::Value,
}

const CLIENTS: usize = 8;

impl Application {
    fn start(port: u16, retries: usize) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let library = root.join("target/clients/redis-py-8");
        assert!(
            library.join("installed").exists(),
            "{} is not there: run `make deps-test`",
            library.display()
        );
        let mut command = Command::new("python3");
        command.arg(root.join("tests/clients/pool.py")).env("PYTHONPATH", library);
        command.args([port.to_string(), CLIENTS.to_string(), retries.to_string()]);
        command.env("PYTHONDONTWRITEBYTECODE", "1").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut says = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        says.read_line(&mut line).unwrap();
        assert_eq!(line, "started\n");
        Self { child, says }
    }

    fn stop(mut self) -> Outcome {
        drop(self.child.stdin.take());
        let mut line = String::new();
        self.says.read_line(&mut line).unwrap();
        let said: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line:?}"));
        assert!(self.child.wait().unwrap().success());
        let answered = said["answered"].as_u64().unwrap();
        Outcome { answered, errors: said["errors"].clone(), told: said["told"].clone() }
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How often is done what is done; `make soak` does it more often.
fn rounds(few: usize) -> usize {
    env::var("REDWEIR_POOL_ROUNDS").map_or(few, |rounds| rounds.parse().unwrap())
}

fn lengths(conn: &mut Conn) -> Vec<i64> {
    (0..CLIENTS).map(|which| conn.cmd(&["LLEN", &format!("log:{which}")]).int()).collect()
}

fn await_link(replica: &Redis) {
    eventually("it follows", secs(10), || replica.info("replication")["master_link_status"] == "up");
}

/// Every client has written since.
fn await_progress(server: &Redis) {
    let mut direct = server.connect();
    let before = lengths(&mut direct);
    eventually("all clients go on", secs(10), || {
        lengths(&mut direct).iter().zip(&before).all(|(now, then)| now > then)
    });
}

/// A promotion by hand: the other is promoted, this one is made its replica. No client waits as long as `write-hold`.
#[test]
fn promotions_by_hand_are_seen_by_no_client() {
    let mut first = Redis::start(&[]);
    let mut second = Redis::replica_of(first.port, &[]);
    await_link(&second);
    let proxy = Setup::to(first.port, &[second.port]).start();
    let application = Application::start(proxy.port, 0);
    let rounds = rounds(6);
    for _ in 0..rounds {
        await_progress(&first);
        assert_eq!(second.cmd(&["REPLICAOF", "NO", "ONE"]), "OK");
        assert_eq!(first.cmd(&["REPLICAOF", "127.0.0.1", &second.port.to_string()]), "OK");
        await_progress(&second);
        await_link(&first);
        proxy.await_replicas(1);
        std::mem::swap(&mut first, &mut second);
    }
    let outcome = application.stop();
    println!("{rounds} promotions by hand: {} commands, errors {}", outcome.answered, outcome.errors);
    assert_eq!(outcome.errors, serde_json::json!({}));
    let answered = u64::try_from(rounds * CLIENTS * 2).unwrap();
    assert!(outcome.answered > answered, "{}", outcome.answered);
}

/// Two processes on one address, of which one after the other is restarted. Clients try again up to three times.
#[test]
fn a_rolling_restart_costs_an_application_no_command() {
    let topology = Topology::start(1);
    let dir = tempfile::tempdir().unwrap();
    let (port, upstream) = (free_port(), upstream(&topology));
    let listen = format!("[[listen]]\naddress = \"127.0.0.1:{port}\"\nreuse-port = true");
    let start = || Process::start(dir.path(), &listen, &upstream);
    let mut present = [start(), start()];
    let application = Application::start(port, 3);
    await_progress(&topology.primary);
    let rounds = rounds(3);
    for _ in 0..rounds {
        for process in &mut present {
            process.terminate();
            assert_eq!(process.wait(), Some(0), "{}", process.log());
            *process = start();
            await_progress(&topology.primary);
        }
    }
    let outcome = application.stop();
    println!(
        "{rounds} rolling restarts: {} commands, errors {}, told {}",
        outcome.answered, outcome.errors, outcome.told
    );
    assert_eq!(outcome.errors, serde_json::json!({}));
    assert!(outcome.told["NodeMovingNotification"].as_u64().is_some_and(|told| told > 0), "{}", outcome.told);
}
