//! One process ends and the next begins, and whoever connects meanwhile is served by one of them.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]
#![allow(clippy::print_stderr, reason = "what the proxy said is to be seen where a test fails")]

use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use crate::support::{Conn, Redis, Socket, Topology, encode, eventually, free_port, http_get, ms, secs};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A Redweir that the test starts by itself: on a socket that it shares, or that it is given.
pub(crate) struct Process {
    child: Child,
    admin: u16,
    log: std::path::PathBuf,
}

impl Process {
    /// The configuration of one with an admin port of its own.
    fn file(dir: &Path, listen: &str, upstream: &str) -> (std::path::PathBuf, u16) {
        let admin = free_port();
        let file = dir.join(format!("{admin}.toml"));
        let mut text = String::new();
        let _ = write!(text, "{listen}\n[admin]\naddress = \"127.0.0.1:{admin}\"\n[upstream]\n{upstream}\n");
        let _ = write!(text, "[proxy]\nworkers = 2\nlame-duck = \"200ms\"\ndrain-timeout = \"5s\"\n");
        let _ = writeln!(text, "maint-notifications = \"yes\"");
        fs::write(&file, text).unwrap();
        (file, admin)
    }

    pub(crate) fn start(dir: &Path, listen: &str, upstream: &str) -> Self {
        let (file, admin) = Self::file(dir, listen, upstream);
        let mut command = Command::new(env!("CARGO_BIN_EXE_redweir"));
        command.args(["run", "-c"]).arg(&file).stdin(Stdio::null());
        let mut process = Self::spawn(command, admin, dir);
        process.await_ready();
        process
    }

    /// Started as by a service manager: descriptors 3 and up are these sockets.
    fn with_sockets(dir: &Path, file: &Path, admin: u16, first: OwnedFd, second: Option<OwnedFd>) -> Self {
        let mut command = Command::new("sh");
        let count = 1 + u32::from(second.is_some());
        let moved = if second.is_some() { "4<&1" } else { "" };
        let script = format!(
            "LISTEN_PID=$$ LISTEN_FDS={count} LISTEN_FDNAMES=x exec \"$0\" run -c \"$1\" 3<&0 {moved} 0</dev/null 1>&2"
        );
        command.args(["-c", &script, env!("CARGO_BIN_EXE_redweir")]).arg(file).stdin(Stdio::from(first));
        if let Some(second) = second {
            command.stdout(Stdio::from(second));
        }
        Self::spawn(command, admin, dir)
    }

    fn spawn(mut command: Command, admin: u16, dir: &Path) -> Self {
        let log = dir.join(format!("{admin}.log"));
        let child = command.stderr(fs::File::create(&log).unwrap()).spawn().unwrap();
        Self { child, admin, log }
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn await_ready(&mut self) {
        let admin = self.admin;
        eventually("it is ready", secs(10), || {
            assert!(self.child.try_wait().unwrap().is_none(), "{}", self.log());
            matches!(http_get(admin, "/readyz"), Ok((200, _)))
        });
    }

    pub(crate) fn terminate(&self) {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM).unwrap();
    }

    pub(crate) fn wait(&mut self) -> Option<i32> {
        let deadline = Instant::now() + secs(15);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it did not end:\n{}", self.log());
            thread::sleep(ms(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

/// Clients that connect anew for every command, and clients that stay and try again once when their connection has ended.
struct Clients {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Vec<String>>>,
    done: Arc<AtomicU64>,
}

impl Clients {
    fn start(port: u16) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let spawn = |n: usize| {
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            thread::spawn(move || {
                let (mut problems, mut kept) = (Vec::new(), None);
                while !stop.load(Ordering::Relaxed) {
                    let result = if n.is_multiple_of(2) { once(port) } else { again(port, &mut kept) };
                    match result {
                        Ok(()) => drop(done.fetch_add(1, Ordering::Relaxed)),
                        Err(problem) => problems.push(problem.to_string()),
                    }
                    thread::sleep(ms(1));
                }
                problems
            })
        };
        let threads = (0..8).map(spawn).collect();
        Self { stop, threads, done }
    }

    fn stop(mut self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let problems = self.threads.drain(..).flat_map(|thread| thread.join().unwrap()).collect();
        (self.done.load(Ordering::Relaxed), problems)
    }
}

/// A connection, a command, an answer.
fn once(port: u16) -> std::io::Result<()> {
    let mut conn = Conn::try_open(port)?;
    answered(conn.try_cmd(&["GET", "k"]))
}

/// A command on a connection that stays; if that has ended, on a new one.
fn again(port: u16, kept: &mut Option<Conn>) -> std::io::Result<()> {
    if let Some(mut conn) = kept.take()
        && answered(conn.try_cmd(&["GET", "k"])).is_ok()
    {
        *kept = Some(conn);
        return Ok(());
    }
    let mut conn = Conn::try_open(port)?;
    answered(conn.try_cmd(&["GET", "k"]))?;
    *kept = Some(conn);
    Ok(())
}

fn answered(reply: std::io::Result<crate::support::Value>) -> std::io::Result<()> {
    match reply? {
        reply if reply == "v" => Ok(()),
        other => Err(std::io::Error::other(format!("{other:?}"))),
    }
}

pub(crate) fn upstream(topology: &Topology) -> String {
    let replicas: Vec<String> =
        topology.replica_ports().iter().map(|port| format!("\"127.0.0.1:{port}\"")).collect();
    format!("primary = \"127.0.0.1:{}\"\nreplicas = [{}]", topology.primary.port, replicas.join(", "))
}

#[test]
fn a_rolling_restart_refuses_nobody() {
    let topology = Topology::start(1);
    topology.primary.cmd(&["SET", "k", "v"]);
    topology.await_sync();
    let dir = tempfile::tempdir().unwrap();
    let (port, upstream) = (free_port(), upstream(&topology));
    let listen = format!("[[listen]]\naddress = \"127.0.0.1:{port}\"\nreuse-port = true");
    let mut present = Process::start(dir.path(), &listen, &upstream);
    let clients = Clients::start(port);
    for _ in 0..ROUNDS {
        let next = Process::start(dir.path(), &listen, &upstream);
        present.terminate();
        assert_eq!(present.wait(), Some(0), "{}", present.log());
        assert!(present.log().contains("drained, 0 cut off"), "{}", present.log());
        present = next;
    }
    let (done, problems) = clients.stop();
    assert!(done > 500, "{done}");
    let refused = problems.iter().filter(|problem| problem.contains("refused")).count();
    // What comes between the last look into the queue and the closing of the socket is reset: a few of a thousand on a machine
    // that is busy.
    assert!(
        refused == 0 && problems.len() as u64 <= done / 200 + 5,
        "{} of {done}: {problems:?}",
        problems.len()
    );
}

const ROUNDS: usize = 8;

#[test]
fn whoever_waits_in_the_queue_when_the_process_ends_is_answered() {
    let primary = Redis::start(&[]);
    primary.cmd(&["SET", "k", "v"]);
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let listen = format!("[[listen]]\naddress = \"127.0.0.1:{port}\"\nreuse-port = true");
    let mut process =
        Process::start(dir.path(), &listen, &format!("primary = \"127.0.0.1:{}\"", primary.port));
    let pid = Pid::from_raw(process.child.id() as i32);
    // Nobody accepts while they come.
    kill(pid, Signal::SIGSTOP).unwrap();
    let mut speaking: Vec<Conn> = (0..20).map(|_| Conn::open(port)).collect();
    let mut silent = Conn::open(port);
    for conn in &mut speaking {
        conn.ask(&["GET", "k"]);
    }
    process.terminate();
    kill(pid, Signal::SIGCONT).unwrap();
    for conn in &mut speaking {
        assert_eq!(conn.read(), "v");
    }
    assert!(silent.read_to_close().is_empty(), "whoever says nothing is closed, not reset");
    assert_eq!(process.wait(), Some(0));
}

#[test]
fn a_second_process_needs_the_key_too() {
    let primary = Redis::start(&[]);
    let dir = tempfile::tempdir().unwrap();
    let (port, upstream) = (free_port(), format!("primary = \"127.0.0.1:{}\"", primary.port));
    let plain = format!("[[listen]]\naddress = \"127.0.0.1:{port}\"");
    let _first = Process::start(dir.path(), &format!("{plain}\nreuse-port = true"), &upstream);
    let (file, admin) = Process::file(dir.path(), &plain, &upstream);
    let mut command = Command::new(env!("CARGO_BIN_EXE_redweir"));
    command.args(["run", "-c"]).arg(&file);
    let mut second = Process::spawn(command, admin, dir.path());
    assert_eq!(second.wait(), Some(1));
    assert!(second.log().contains(&format!("cannot listen on 127.0.0.1:{port}")), "{}", second.log());
}

#[test]
fn sockets_of_the_service_manager_outlive_a_process() {
    let primary = Redis::start(&[]);
    primary.cmd(&["SET", "k", "v"]);
    let dir = tempfile::tempdir().unwrap();
    let (tcp, path) = (TcpListener::bind("127.0.0.1:0").unwrap(), dir.path().join("sock"));
    let unix = UnixListener::bind(&path).unwrap();
    let port = tcp.local_addr().unwrap().port();
    let listen = format!(
        "[[listen]]\naddress = \"localhost:{port}\"\n[[listen]]\naddress = \"unix:{}\"",
        path.display()
    );
    let upstream = format!("primary = \"127.0.0.1:{}\"", primary.port);
    let start = || {
        let (file, admin) = Process::file(dir.path(), &listen, &upstream);
        let sockets = (tcp.try_clone().unwrap().into(), Some(unix.try_clone().unwrap().into()));
        Process::with_sockets(dir.path(), &file, admin, sockets.0, sockets.1)
    };
    let mut process = start();
    process.await_ready();
    let by_path = || Conn::over(Socket::Unix(std::os::unix::net::UnixStream::connect(&path).unwrap()));
    assert_eq!(by_path().cmd(&["GET", "k"]), "v");
    let clients = Clients::start(port);
    for _ in 0..3 {
        process.terminate();
        assert_eq!(process.wait(), Some(0), "{}", process.log());
        // Nobody is there, and whoever connects waits.
        let mut early = Conn::open(port);
        early.send(&encode(&["GET", "k"]));
        process = start();
        assert_eq!(early.read(), "v");
        process.await_ready();
    }
    let (done, problems) = clients.stop();
    // Who begins to speak in the moment in which it is told to go is reset, as by any server.
    let refused = problems.iter().filter(|problem| problem.contains("refused")).count();
    assert!(done > 100 && refused == 0 && problems.len() <= 3, "{done} {problems:?}");
    assert_eq!(by_path().cmd(&["GET", "k"]), "v", "the file is not ours to remove");
}

#[test]
fn a_socket_that_nobody_wants_ends_the_start() {
    let primary = Redis::start(&[]);
    let dir = tempfile::tempdir().unwrap();
    let upstream = format!("primary = \"127.0.0.1:{}\"", primary.port);
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap();
    let (file, admin) =
        Process::file(dir.path(), &format!("[[listen]]\naddress = \"127.0.0.1:{}\"", free_port()), &upstream);
    let mut process = Process::with_sockets(dir.path(), &file, admin, other.into(), None);
    assert_eq!(process.wait(), Some(1));
    let words = format!("{address} was handed over, but no [[listen]] and no [admin] has this address");
    assert!(process.log().contains(&words), "{}", process.log());
    // A connection is none.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connection = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let mut process = Process::with_sockets(dir.path(), &file, admin, connection.into(), None);
    assert_eq!(process.wait(), Some(1));
    assert!(process.log().contains("descriptor 3 does not listen"), "{}", process.log());
}
