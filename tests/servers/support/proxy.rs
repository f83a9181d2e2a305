//! The proxy itself, as a user starts it: `redweir run -c FILE`.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::redis::{end, signal};
use super::resp::{Conn, Value, http_get};
use super::topology::Topology;
use super::{eventually, free_port};

/// How long the proxy may take to answer `/readyz` with 200.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// What the configuration file will say.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// `None`: sentinels or a cluster tell.
    primary: Option<String>,
    replicas: Vec<String>,
    /// What `replicas` says instead.
    found: Option<String>,
    listeners: Vec<String>,
    upstream: String,
    rest: String,
    proxy: String,
    files: Option<u32>,
    hosts: Option<PathBuf>,
    provoked: String,
    env: Vec<(String, String)>,
}

impl Setup {
    /// One listener with the policy `default`, in front of this topology.
    pub(crate) fn of(topology: &Topology) -> Self {
        Self::to(topology.primary.port, &topology.replica_ports())
    }

    /// The same by ports.
    pub(crate) fn to(primary: u16, replicas: &[u16]) -> Self {
        let address = |port: &u16| format!("127.0.0.1:{port}");
        Self::at(&address(&primary), &replicas.iter().map(address).collect::<Vec<_>>())
    }

    /// The same by addresses.
    pub(crate) fn at(primary: &str, replicas: &[String]) -> Self {
        Self {
            primary: Some(primary.to_owned()),
            replicas: replicas.to_vec(),
            found: None,
            listeners: vec!["default".to_owned()],
            upstream: String::new(),
            rest: String::new(),
            proxy: "[proxy]\nworkers = 2".to_owned(),
            files: None,
            hosts: None,
            provoked: String::new(),
            env: Vec::new(),
        }
    }

    /// In front of this primary and whatever nodes `replicas` finds, as it stands in the file.
    pub(crate) fn finding(primary: &str, replicas: &str) -> Self {
        Self { found: Some(replicas.to_owned()), ..Self::at(primary, &[]) }
    }

    /// In front of whatever the sentinels on these ports call `main`.
    pub(crate) fn by_sentinels(ports: &[u16]) -> Self {
        let addresses: Vec<String> = ports.iter().map(|port| format!("\"127.0.0.1:{port}\"")).collect();
        let table = "[upstream.sentinel]\nmaster-name = \"main\"\naddresses";
        let setup = Self { primary: None, ..Self::at("", &[]) };
        setup.toml(&format!("{table} = [{}]", addresses.join(", ")))
    }

    /// In front of the cluster that nodes on these ports belong to.
    pub(crate) fn by_cluster(ports: &[u16]) -> Self {
        let addresses: Vec<String> = ports.iter().map(|port| format!("\"127.0.0.1:{port}\"")).collect();
        let setup = Self { primary: None, ..Self::at("", &[]) };
        setup.toml(&format!("[upstream.cluster]\naddresses = [{}]", addresses.join(", ")))
    }

    /// `[policy.NAME]` with these lines.
    pub(crate) fn policy(self, name: &str, lines: &str) -> Self {
        self.toml(&format!("[policy.{name}]\n{lines}"))
    }

    /// One more listener, with this policy.
    pub(crate) fn listener(mut self, policy: &str) -> Self {
        self.listeners.push(policy.to_owned());
        self
    }

    /// More lines of `[upstream]`.
    pub(crate) fn upstream(mut self, lines: &str) -> Self {
        let _ = writeln!(self.upstream, "{lines}");
        self
    }

    /// More tables.
    pub(crate) fn toml(mut self, text: &str) -> Self {
        let _ = writeln!(self.rest, "{text}");
        self
    }

    /// The whole `[proxy]` table.
    pub(crate) fn proxy(mut self, table: &str) -> Self {
        table.clone_into(&mut self.proxy);
        self
    }

    /// No more open files than this, whatever it asks for.
    pub(crate) fn files(mut self, most: u32) -> Self {
        self.files = Some(most);
        self
    }

    /// With this file in the place of `/etc/hosts`. Needs namespaces: the file is that of this process alone.
    pub(crate) fn hosts(mut self, file: &Path) -> Self {
        self.hosts = Some(file.to_owned());
        self
    }

    /// It panics at these places.
    pub(crate) fn provoke(mut self, places: &str) -> Self {
        places.clone_into(&mut self.provoked);
        self
    }

    /// An environment variable.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    fn command(&self) -> Command {
        let mut command = self.program();
        command.env("REDWEIR_PROVOKE", &self.provoked);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    fn program(&self) -> Command {
        let binary = env!("CARGO_BIN_EXE_redweir");
        if let Some(hosts) = &self.hosts {
            let mut command = Command::new("unshare");
            let mount = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
            command.args(["--map-root-user", "--mount", "sh", "-c", mount]).arg(hosts).arg(binary);
            return command;
        }
        let Some(most) = self.files else { return Command::new(binary) };
        let mut command = Command::new("sh");
        // Root could raise the limit.
        let limited = format!("ulimit -n {most} && exec setpriv --bounding-set=-sys_resource \"$0\" \"$@\"");
        command.args(["-c", &limited, binary]);
        command
    }

    /// In front of other replicas.
    pub(crate) fn replicas(mut self, ports: &[u16]) -> Self {
        self.replicas = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        self
    }

    /// The file, with listeners at these ports.
    pub(crate) fn text(&self, ports: &[u16], admin_port: u16) -> String {
        let mut text = String::new();
        for (port, policy) in ports.iter().zip(&self.listeners) {
            let _ = writeln!(text, "[[listen]]\naddress = \"127.0.0.1:{port}\"\npolicy = \"{policy}\"");
        }
        let replicas: Vec<String> = self.replicas.iter().map(|address| format!("{address:?}")).collect();
        let _ = writeln!(text, "[admin]\naddress = \"127.0.0.1:{admin_port}\"");
        let _ = writeln!(text, "[upstream]");
        if let Some(primary) = &self.primary {
            let replicas = self.found.clone().unwrap_or_else(|| format!("[{}]", replicas.join(", ")));
            let _ = writeln!(text, "primary = {primary:?}\nreplicas = {replicas}");
        }
        let _ = writeln!(text, "{}\n{}\n{}", self.upstream, self.proxy, self.rest);
        text
    }

    /// Starts the proxy; waits until it is ready and all its replicas are in service.
    pub(crate) fn start(self) -> Proxy {
        let replicas = self.replicas.len();
        let proxy = self.start_with_any_replicas();
        proxy.await_replicas(replicas);
        proxy
    }

    /// Starts the proxy and waits until it is ready.
    pub(crate) fn start_with_any_replicas(self) -> Proxy {
        let proxy = self.spawn();
        eventually("the proxy is ready", READY_WITHIN, || {
            matches!(http_get(proxy.admin_port, "/readyz"), Ok((200, _)))
        });
        proxy
    }

    /// Starts the proxy and waits until it accepts connections, ready or not.
    pub(crate) fn spawn(&self) -> Proxy {
        let mut log = String::new();
        for _ in 0..5 {
            let dir = tempfile::tempdir().unwrap();
            let ports: Vec<u16> = self.listeners.iter().map(|_| free_port()).collect();
            let admin_port = free_port();
            let file = dir.path().join("redweir.toml");
            fs::write(&file, self.text(&ports, admin_port)).unwrap();
            let output = File::create(dir.path().join("redweir.log")).unwrap();
            let child = self
                .command()
                .args(["run", "-c"])
                .arg(&file)
                .stdin(Stdio::null())
                .stdout(output.try_clone().unwrap())
                .stderr(output)
                .spawn()
                .unwrap();
            let mut proxy = Proxy { child, port: ports[0], ports, admin_port, dir };
            if proxy.accepts() {
                return proxy;
            }
            log = proxy.log();
            assert!(log.contains("in use"), "the proxy did not start:\n{log}\n{}", self.text(&[1, 2, 3], 4));
        }
        panic!("the proxy found no free port in five attempts:\n{log}");
    }
}

/// A running proxy.
pub(crate) struct Proxy {
    child: Child,
    /// The first listener's.
    pub(crate) port: u16,
    /// Every listener's.
    pub(crate) ports: Vec<u16>,
    pub(crate) admin_port: u16,
    dir: TempDir,
}

impl Proxy {
    /// Whether it comes to answer on its admin port; false when it ended instead.
    fn accepts(&mut self) -> bool {
        let deadline = Instant::now() + READY_WITHIN;
        while Instant::now() < deadline {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            if matches!(http_get(self.admin_port, "/livez"), Ok((200, _)))
                && Conn::try_open(self.port).is_ok()
            {
                return true;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("the proxy did not answer /livez within {READY_WITHIN:?}:\n{}", self.log());
    }

    /// Waits until so many replicas may serve reads.
    pub(crate) fn await_replicas(&self, count: usize) {
        eventually(&format!("{count} replicas are in service"), READY_WITHIN, || self.eligible() == count);
    }

    /// How many replicas are in service.
    pub(crate) fn eligible(&self) -> usize {
        self.metric("redweir_replica_eligible", &[]) as usize
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn connect(&self) -> Conn {
        Conn::open(self.port)
    }

    /// One command on a connection of its own.
    pub(crate) fn cmd<A: AsRef<[u8]>>(&self, args: &[A]) -> Value {
        self.connect().cmd(args)
    }

    /// The status and the body.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        http_get(self.admin_port, path).unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    fn page(&self, path: &str) -> String {
        let (status, body) = self.get(path);
        assert_eq!(status, 200, "GET {path}: {body}");
        body
    }

    pub(crate) fn metrics(&self) -> String {
        self.page("/metrics")
    }

    /// The sum of all series of this name that have these labels; 0 when there is none.
    pub(crate) fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let page = self.metrics();
        let series = page.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (found, rest) = series.split_once('{').unwrap_or((series, ""));
            let has = |(label, value): &(&str, &str)| rest.contains(&format!("{label}=\"{value}\""));
            (found == name && labels.iter().all(has)).then(|| value.parse::<f64>().ok()).flatten()
        });
        series.filter(|value| !value.is_nan()).sum()
    }

    pub(crate) fn view(&self) -> serde_json::Value {
        serde_json::from_str(&self.page("/view")).unwrap()
    }

    /// The words are joined with `+`.
    pub(crate) fn explain(&self, words: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.page(&format!("/explain?cmd={}", words.join("+")))).unwrap()
    }

    /// SIGHUP
    pub(crate) fn hang_up(&self) {
        signal(&self.child, Signal::SIGHUP);
    }

    /// SIGSTOP
    pub(crate) fn pause(&self) {
        signal(&self.child, Signal::SIGSTOP);
    }

    /// SIGCONT
    pub(crate) fn resume(&self) {
        signal(&self.child, Signal::SIGCONT);
    }

    /// SIGTERM; the exit code, `None` when a signal ended it.
    pub(crate) fn stop(&mut self) -> Option<i32> {
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    pub(crate) fn signal(&self, which: Signal) {
        signal(&self.child, which);
    }

    /// Waits for its end; the exit code, `None` when a signal ended it.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        let deadline = Instant::now() + Duration::from_secs(15);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "the proxy did not end:\n{}", self.log());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Its configuration file.
    pub(crate) fn file(&self) -> PathBuf {
        self.dir.path().join("redweir.toml")
    }

    /// What the file would say for this setup at the ports that it has.
    pub(crate) fn text(&self, setup: &Setup) -> String {
        setup.text(&self.ports, self.admin_port)
    }

    /// Exchanges its configuration file, whole.
    pub(crate) fn configure(&self, setup: &Setup) {
        let fresh = self.dir.path().join("fresh.toml");
        fs::write(&fresh, self.text(setup)).unwrap();
        fs::rename(&fresh, self.file()).unwrap();
    }

    /// How many times the configuration was read again with this result.
    pub(crate) fn reloads(&self, result: &str) -> u64 {
        self.metric("redweir_config_reload_total", &[("result", result)]) as u64
    }

    /// What it said on stdout and stderr.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("redweir.log")).unwrap_or_default()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        end(&mut self.child);
        if thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("the proxy's last words:");
            tail.iter().rev().for_each(|line| eprintln!("  {line}"));
        }
    }
}
