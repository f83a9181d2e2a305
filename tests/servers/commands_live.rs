//! The command table against real servers: the built-in one is `COMMAND` of Redis 7.0.15, every command of it and of
//! other servers is classified as its flags demand, and keys are found where `COMMAND GETKEYS` finds them.
//!
//! `REDWEIR_WRITE_TABLE=1 cargo test --test servers commands_live::` writes the built-in table anew.

#![allow(clippy::disallowed_methods, reason = "tests measure real time")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use redis_protocol::resp2::decode::decode_bytes_mut;
use redis_protocol::resp2::types::{BytesFrame, Resp2Frame};
use redweir::core::command::{Access, CommandEntry, CommandTable, Handling, Keys, Stateful, WriteKeys};
use redweir::wire::commands;

struct Server {
    child: Child,
    stream: TcpStream,
    inbound: BytesMut,
    _home: tempfile::TempDir,
}

impl Server {
    /// Starts a server; its address is a Unix-free TCP port that the system has just given.
    fn start(kind: crate::support::Server) -> Self {
        for _ in 0..10 {
            let port = std::net::TcpListener::bind("127.0.0.1:0")
                .and_then(|l| l.local_addr())
                .expect("a free port")
                .port();
            let home = tempfile::tempdir().expect("a temporary directory");
            let mut child = kind
                .command()
                .args(["--port", &port.to_string(), "--save", "", "--dir"])
                .arg(home.path())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap_or_else(|e| {
                    panic!("cannot start {kind:?}: {e}; `make deps-test` installs what is missing")
                });
            let deadline = Instant::now() + Duration::from_secs(10);
            while Instant::now() < deadline && child.try_wait().expect("waits").is_none() {
                if let Ok(stream) = TcpStream::connect(("127.0.0.1", port)) {
                    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
                    return Self { child, stream, inbound: BytesMut::new(), _home: home };
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("{kind:?} does not start");
    }

    fn call(&mut self, args: &[&str]) -> BytesFrame {
        let mut request = format!("*{}\r\n", args.len()).into_bytes();
        for arg in args {
            write!(request, "${}\r\n{arg}\r\n", arg.len()).expect("a vector takes it");
        }
        self.stream.write_all(&request).expect("the server takes it");
        let mut chunk = vec![0; 65536];
        loop {
            if let Some((frame, _, _)) = decode_bytes_mut(&mut self.inbound).expect("RESP") {
                return frame;
            }
            let read = self.stream.read(&mut chunk).expect("the server answers");
            assert_ne!(read, 0, "the server closed");
            self.inbound.extend_from_slice(&chunk[..read]);
        }
    }

    fn entries(&mut self) -> Vec<CommandEntry> {
        commands::decode(&self.call(&["COMMAND"])).expect("a command table")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn redis_7() -> Server {
    Server::start(crate::support::Server::Redis70)
}

fn redis_6_2() -> Server {
    Server::start(crate::support::Server::Redis62)
}

#[test]
fn the_built_in_table_is_that_of_redis_7_0() {
    let mut server = redis_7();
    let mut lines: Vec<String> = server.entries().iter().map(ToString::to_string).collect();
    lines.sort();
    let text = format!(
        "# COMMAND of Redis 7.0.15: name, flags (r w b m), arity, key specifications. Written by tests/servers/commands_live.rs.\n{}\n",
        lines.join("\n")
    );
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/core/command/table.txt");
    if std::env::var_os("REDWEIR_WRITE_TABLE").is_some() {
        std::fs::write(&path, &text).expect("the table is written");
    }
    let version = server.call(&["INFO", "server"]);
    let version = String::from_utf8_lossy(version.as_bytes().unwrap_or_default()).into_owned();
    assert!(version.contains("redis_version:7.0.15"), "this test knows Redis 7.0.15, not: {version}");
    assert_eq!(std::fs::read_to_string(path).expect("the table"), text);
}

/// What its flags demand, whatever the name.
fn check_every_command(server: &mut Server, least: usize) {
    let entries = server.entries();
    assert!(entries.len() >= least, "{} commands", entries.len());
    let table = CommandTable::from_entries(entries.clone());
    // Closed without a word, and never passed on.
    let is_browsers = |entry: &CommandEntry| ["post", "host:"].contains(&entry.name.as_str());
    for entry in entries.into_iter().filter(|entry| !is_browsers(entry)) {
        let mut args: Vec<&str> = entry.name.split('|').collect();
        args.extend(["1", "1", "1", "1"]);
        let intent = table.classify(args.as_slice());
        let upper: Vec<String> = args.iter().map(|arg| arg.to_uppercase()).collect();
        assert_eq!(table.classify(upper.as_slice()), intent, "{} in capitals", entry.name);
        // A server before 7.0 has no subcommands: those of the built-in table refine its containers.
        let name = table.name(intent.id);
        assert!(name == entry.name || entry.name == "redweir", "{} is taken for {name}", entry.name);
        match intent.access {
            Access::Read => assert!(entry.flags.readonly && !entry.flags.write, "{}", entry.name),
            Access::Write { .. } => assert!(!entry.flags.readonly, "{}", entry.name),
            Access::PrimaryRead(_) => assert!(!entry.flags.write, "{}", entry.name),
            Access::Unknown => panic!("{} is unknown", entry.name),
        }
        if entry.flags.write {
            assert!(matches!(intent.access, Access::Write { .. }), "{} writes", entry.name);
        }
        if entry.flags.blocking && !entry.name.starts_with("xread") {
            let expected = matches!(intent.handling, Handling::Pin(Stateful::Blocking | Stateful::Sync));
            assert!(expected || entry.name.starts_with("wait"), "{} blocks", entry.name);
        }
    }
    for blocking in [
        "blpop k 0",
        "brpop k 0",
        "brpoplpush a b 0",
        "blmove a b left left 0",
        "bzpopmin k 0",
        "bzpopmax k 0",
    ] {
        let args: Vec<&str> = blocking.split(' ').collect();
        assert_eq!(table.classify(args.as_slice()).handling, Handling::Pin(Stateful::Blocking), "{blocking}");
    }
    for all in ["eval x 0", "evalsha x 0", "flushall", "flushdb", "swapdb 0 1"] {
        let args: Vec<&str> = all.split(' ').collect();
        let expected = Access::Write { keys: WriteKeys::Unknowable };
        assert_eq!(table.classify(args.as_slice()).access, expected, "{all}");
    }
}

#[test]
fn every_command_of_redis_7_0_is_classified() {
    check_every_command(&mut redis_7(), 350);
}

#[test]
fn every_command_of_redis_6_2_is_classified() {
    check_every_command(&mut redis_6_2(), 220);
}

#[test]
fn every_command_of_redis_7_4_and_its_modules_is_classified() {
    check_every_command(&mut Server::start(crate::support::Server::Redis74), 500);
}

#[test]
fn every_command_of_valkey_8_1_is_classified() {
    check_every_command(&mut Server::start(crate::support::Server::Valkey81), 370);
}

#[test]
fn every_command_of_valkey_9_1_is_classified() {
    check_every_command(&mut Server::start(crate::support::Server::Valkey91), 390);
}

/// Real command lines of every way to name keys.
const LINES: &[&str] = &[
    "GET k",
    "SET k v EX 10",
    "MGET a b c",
    "MSET a 1 b 2",
    "DEL a b",
    "RENAME a b",
    "COPY a b DB 1",
    "LMOVE a b LEFT RIGHT",
    "BLPOP a b 0",
    "BRPOPLPUSH a b 0",
    "BZPOPMIN a b 0",
    "BITOP AND d a b",
    "SINTERSTORE d a b",
    "ZUNIONSTORE d 2 a b",
    "ZUNION 2 a b",
    "ZINTER 1 a WITHSCORES",
    "ZDIFF 2 a b",
    "ZDIFFSTORE d 2 a b",
    "EVAL return 2 a b c",
    "EVALSHA x 1 a",
    "GEORADIUS k 1 2 3 m STORE d",
    "GEORADIUSBYMEMBER k m 3 km STOREDIST d",
    "GEOSEARCHSTORE d s FROMMEMBER m BYRADIUS 1 m",
    "XREAD COUNT 2 STREAMS s t 0 0",
    "XREAD BLOCK 5 STREAMS s 0",
    "XREADGROUP GROUP g c COUNT 1 STREAMS s t > >",
    "XADD s * f v",
    "XGROUP CREATE s g $",
    "XINFO STREAM s",
    "OBJECT ENCODING k",
    "MEMORY USAGE k",
    "SORT k STORE d",
    "SORT k LIMIT 0 1",
    "PFMERGE d a b",
    "PFCOUNT a b",
    "SMOVE a b m",
    "RPOPLPUSH a b",
    "LCS a b",
    "LMPOP 2 a b LEFT",
    "BLMPOP 0 2 a b LEFT",
    "ZMPOP 1 a MIN",
    "BZMPOP 0 1 a MIN",
    "SINTERCARD 2 a b",
    "ZINTERCARD 2 a b",
    "FCALL f 1 a",
    "FCALL_RO f 2 a b",
    "EVAL_RO x 1 a",
    "SORT_RO k",
    "TOUCH a b",
    "EXISTS a b",
    "UNLINK a b",
    "WATCH a b",
    "DUMP k",
    "HGETALL k",
    "ZRANGESTORE d s 0 1",
    "MSETNX a 1 b 2",
    "GETEX k",
    "BITFIELD k GET u8 0",
    "BITFIELD_RO k GET u8 0",
    "SUBSTR k 0 1",
    "LINSERT k BEFORE p v",
    "RESTORE k 0 x",
    "SMISMEMBER k a b",
];

fn check_keys(server: &mut Server, least: usize) {
    let table = CommandTable::from_entries(server.entries());
    let mut compared = 0;
    for line in LINES {
        let args: Vec<&str> = line.split(' ').collect();
        let asked: Vec<&str> = ["COMMAND", "GETKEYS"].into_iter().chain(args.iter().copied()).collect();
        let BytesFrame::Array(keys) = server.call(&asked) else { continue };
        let mut theirs: Vec<Vec<u8>> = keys.iter().filter_map(|k| k.as_bytes().map(<[u8]>::to_vec)).collect();
        let mut ours = Vec::new();
        let id = table.classify(args.as_slice()).id;
        let found = table.for_each_key(id, args.as_slice(), &mut |key| ours.push(key.to_vec()));
        // GETKEYS of SORT tells only what it stores to.
        if line.starts_with("SORT") {
            assert!(theirs.iter().all(|key| ours.contains(key)), "{line}: {theirs:?} against {ours:?}");
        } else {
            theirs.sort();
            ours.sort();
            assert_eq!((found, &ours), (Keys::Known { count: theirs.len() }, &theirs), "{line}");
        }
        compared += 1;
    }
    assert!(compared >= least, "only {compared} of {} lines were compared", LINES.len());
}

#[test]
fn keys_are_where_redis_7_0_finds_them() {
    check_keys(&mut redis_7(), LINES.len());
}

#[test]
fn keys_are_where_redis_6_2_finds_them() {
    check_keys(&mut redis_6_2(), 40);
}
