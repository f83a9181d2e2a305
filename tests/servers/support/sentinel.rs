//! Sentinels: real ones (`redis-server --sentinel`), and some that say whatever a test has them say.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::redis::{end, signal};
use super::resp::{Conn, Value};
use super::socket::Socket;
use super::{Server, eventually, free_port, secs};

/// A real sentinel, which calls what it watches `main`.
pub(crate) struct Sentinel {
    child: Child,
    pub(crate) port: u16,
    dir: TempDir,
}

impl Sentinel {
    /// So many of them, which watch the primary on this port and know each other and `replicas` replicas.
    pub(crate) fn start(count: usize, primary: u16, replicas: i64) -> Vec<Self> {
        let quorum = count / 2 + 1;
        let all: Vec<Self> =
            (0..count).map(|_| Self::start_one(&format!("127.0.0.1 {primary} {quorum}"), "")).collect();
        for sentinel in &all {
            sentinel.await_known("num-other-sentinels", count as i64 - 1);
            sentinel.await_known("num-slaves", replicas);
        }
        all
    }

    /// One that monitors `HOST PORT QUORUM`, with these lines before that in its configuration.
    pub(crate) fn start_one(monitor: &str, lines: &str) -> Self {
        Self::start_as(Server::Redis70, monitor, lines)
    }

    /// The same of this kind.
    pub(crate) fn start_as(kind: Server, monitor: &str, lines: &str) -> Self {
        for _ in 0..5 {
            let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
            let file = dir.path().join("sentinel.conf");
            let text = format!(
                "port {port}\nbind 127.0.0.1\ndir {}\n{lines}\nsentinel monitor main {monitor}\n\
                 sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 3000\n",
                dir.path().display()
            );
            fs::write(&file, text).unwrap();
            let log = File::create(dir.path().join("sentinel.log")).unwrap();
            let child = kind
                .command()
                .arg(&file)
                .arg("--sentinel")
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log)
                .spawn()
                .expect("redis-server is on PATH");
            let mut sentinel = Self { child, port, dir };
            if sentinel.comes_up() {
                return sentinel;
            }
            assert!(sentinel.log().contains("in use"), "the sentinel did not start:\n{}", sentinel.log());
        }
        panic!("the sentinel found no free port in five attempts");
    }

    fn comes_up(&mut self) -> bool {
        for _ in 0..1000 {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            // An error, too: it may ask for a password.
            if Conn::try_open(self.port).and_then(|mut conn| conn.try_cmd(&["PING"])).is_ok() {
                return true;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("the sentinel did not answer:\n{}", self.log());
    }

    /// What it says of `main`.
    pub(crate) fn field(&self, name: &str) -> String {
        let fields = Conn::open(self.port).cmd(&["SENTINEL", "MASTER", "main"]);
        fields.field(name).text()
    }

    /// Waits until it knows so many.
    pub(crate) fn await_known(&self, what: &str, count: i64) {
        eventually(&format!("a sentinel knows {what}: {count}"), secs(15), || {
            self.field(what) == count.to_string()
        });
    }

    /// SIGKILL
    pub(crate) fn kill(&mut self) {
        end(&mut self.child);
    }

    /// SIGSTOP
    pub(crate) fn pause(&self) {
        signal(&self.child, Signal::SIGSTOP);
    }

    /// SIGCONT
    pub(crate) fn resume(&self) {
        signal(&self.child, Signal::SIGCONT);
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("sentinel.log")).unwrap_or_default()
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Something that poses as a sentinel, and says what it was told to say.
pub(crate) struct Told {
    pub(crate) port: u16,
    says: Arc<Mutex<Script>>,
    ended: Arc<AtomicBool>,
}

#[derive(Clone, Default)]
struct Script {
    epoch: u64,
    primary: (String, u16),
    /// Host, port, flags.
    replicas: Vec<(String, u16, String)>,
    tilt: bool,
    /// What `SENTINEL MASTER` shows instead of the primary, as the leader does in the middle of a failover.
    shown: Option<u16>,
}

impl Told {
    /// It says that this is the primary, on the local host, and these its replicas.
    pub(crate) fn start(epoch: u64, primary: u16, replicas: &[u16]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (says, ended) = (Arc::new(Mutex::new(Script::default())), Arc::new(AtomicBool::new(false)));
        let told = Self { port, says: Arc::clone(&says), ended: Arc::clone(&ended) };
        told.say(epoch, primary, replicas);
        thread::spawn(move || {
            while !ended.load(Ordering::SeqCst) {
                if let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(false).unwrap();
                    let (says, ended) = (Arc::clone(&says), Arc::clone(&ended));
                    thread::spawn(move || answer(stream, &says, &ended));
                }
                thread::sleep(Duration::from_millis(5));
            }
        });
        told
    }

    /// It says something else from now on.
    pub(crate) fn say(&self, epoch: u64, primary: u16, replicas: &[u16]) {
        let local = "127.0.0.1".to_owned();
        let replica = |port: &u16| (local.clone(), *port, "slave".to_owned());
        let replicas = replicas.iter().map(replica).collect();
        *self.says.lock().unwrap() =
            Script { epoch, primary: (local.clone(), primary), replicas, tilt: false, shown: None };
    }

    /// It says that its clock has leapt.
    pub(crate) fn tilt(&self) {
        self.says.lock().unwrap().tilt = true;
    }

    /// It shows this one for the primary to whoever looks at all of what it knows.
    pub(crate) fn show(&self, port: u16) {
        self.says.lock().unwrap().shown = Some(port);
    }

    /// All of them are on another host.
    pub(crate) fn announce(&self, host: &str) {
        let mut says = self.says.lock().unwrap();
        host.clone_into(&mut says.primary.0);
        says.replicas.iter_mut().for_each(|(of, _, _)| host.clone_into(of));
    }

    /// It lists one more, with these flags.
    pub(crate) fn list(&self, port: u16, flags: &str) {
        self.says.lock().unwrap().replicas.push(("127.0.0.1".to_owned(), port, flags.to_owned()));
    }

    /// It is gone.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.end();
    }
}

fn answer(stream: TcpStream, says: &Mutex<Script>, ended: &AtomicBool) {
    let mut writer = stream.try_clone().unwrap();
    let mut conn = Conn::over(Socket::Tcp(stream));
    conn.patience(Duration::from_millis(100));
    while !ended.load(Ordering::SeqCst) {
        let words = match conn.try_read() {
            Ok(Value::Array(words)) => words,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                continue;
            }
            _ => break,
        };
        let words: Vec<String> = words.iter().map(Value::text).collect();
        let script = says.lock().unwrap().clone();
        let reply = match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["INFO", ..] => bulk(&format!("# Sentinel\r\nsentinel_tilt:{}\r\n", u8::from(script.tilt))),
            ["SENTINEL", "MASTER", _] => script.primary(),
            ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", _] => script.address(),
            ["SENTINEL", "REPLICAS", _] => script.replicas(),
            ["SUBSCRIBE", channel] => {
                format!("*3\r\n{}{}:1\r\n", bulk("subscribe"), bulk(channel))
            }
            _ => "-ERR unknown\r\n".to_owned(),
        };
        if writer.write_all(reply.as_bytes()).is_err() {
            break;
        }
    }
}

impl Script {
    fn primary(&self) -> String {
        let (host, port) = &self.primary;
        let port = self.shown.as_ref().unwrap_or(port);
        fields(&format!("name main ip {host} port {port} flags master config-epoch {}", self.epoch))
    }

    fn address(&self) -> String {
        fields(&format!("{} {}", self.primary.0, self.primary.1))
    }

    fn replicas(&self) -> String {
        let (host, port) = &self.primary;
        let line = |(ip, own, flags): &(String, u16, String)| {
            fields(&format!("ip {ip} port {own} flags {flags} master-host {host} master-port {port}"))
        };
        let lines: Vec<String> = self.replicas.iter().map(line).collect();
        format!("*{}\r\n{}", lines.len(), lines.concat())
    }
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

fn fields(line: &str) -> String {
    let words: Vec<String> = line.split(' ').map(bulk).collect();
    format!("*{}\r\n{}", words.len(), words.concat())
}
