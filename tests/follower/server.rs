//! Servers of our own; they end with the test.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use redis::{Connection, FromRedisValue};
use redweir::core::address::Address;
use redweir::wire::info::Info;

use crate::eventually;

/// A `redis-server`.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
    pub(crate) dir: tempfile::TempDir,
}

impl Server {
    /// A primary without data.
    pub(crate) fn start(options: &[&str]) -> Self {
        for _ in 0..10 {
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
            let dir = tempfile::tempdir().unwrap();
            let child = Command::new("redis-server")
                .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"])
                .arg(dir.path())
                .args(["--enable-debug-command", "yes", "--repl-diskless-sync-delay", "0"])
                .args(options)
                .stdout(Stdio::null())
                .spawn()
                .expect("redis-server must be installed to run this test");
            let mut server = Self { child, port, dir };
            for _ in 0..500 {
                if server.child.try_wait().unwrap().is_some() {
                    break;
                }
                if server.is_ours() {
                    return server;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        panic!("redis-server did not start on any of ten ports");
    }

    /// A replica of `primary`, in step with it.
    pub(crate) fn replica_of(primary: &Self, options: &[&str]) -> Self {
        let port = primary.port.to_string();
        let replica = Self::start(&[&["--replicaof", "127.0.0.1", &port], options].concat());
        eventually("a replica gets its link", || replica.info().link_up == Some(true));
        replica
    }

    fn is_ours(&self) -> bool {
        let Ok(client) = redis::Client::open(("127.0.0.1", self.port)) else { return false };
        let Ok(mut connection) = client.get_connection() else { return false };
        let text: String = redis::cmd("INFO").query(&mut connection).unwrap_or_default();
        text.contains(&format!("process_id:{}\r\n", self.child.id()))
    }

    pub(crate) fn address(&self) -> Address {
        Address::Tcp { host: "127.0.0.1".to_owned(), port: self.port }
    }

    pub(crate) fn connect(&self) -> Connection {
        redis::Client::open(("127.0.0.1", self.port)).unwrap().get_connection().unwrap()
    }

    /// One command on a connection of its own, its arguments separated by blanks.
    pub(crate) fn ask<T: FromRedisValue>(&self, command: &str) -> T {
        self.try_ask(command).unwrap()
    }

    pub(crate) fn try_ask<T: FromRedisValue>(&self, command: &str) -> redis::RedisResult<T> {
        let mut words = command.split(' ');
        let mut request = redis::cmd(words.next().unwrap());
        words.for_each(|word| {
            request.arg(word);
        });
        request.query(&mut self.connect())
    }

    pub(crate) fn tell(&self, command: &str) {
        self.ask::<redis::Value>(command);
    }

    pub(crate) fn info(&self) -> Info {
        Info::parse(self.ask::<String>("INFO").as_bytes())
    }

    /// Sends requests as they are and waits until all are answered. `answers` counts the lines of the answers.
    pub(crate) fn pour(&self, requests: &[u8], answers: usize) {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut reader = stream.try_clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || stream.write_all(requests).unwrap());
            let (mut buffer, mut lines) = (vec![0; 1 << 16], 0);
            while lines < answers {
                let count = reader.read(&mut buffer).unwrap();
                assert!(count > 0, "closed after {lines} of {answers} answers");
                assert!(!buffer[..count].starts_with(b"-"), "{}", String::from_utf8_lossy(&buffer[..count]));
                lines += memchr::memchr_iter(b'\n', &buffer[..count]).count();
            }
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The process may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
