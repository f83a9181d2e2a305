//! Clients that leave at any point, in any way: in the middle of a command, of a reply, of a transaction, while they
//! are blocked or subscribed. Everything that a client writes and reads carries its tag, so that a reply that reaches
//! the wrong client, or comes out of order, is seen at once.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]
#![allow(clippy::print_stdout, reason = "figures are worth seeing")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::rng::Rng;
use crate::support::{Conn, Proxy, Setup, Topology, Value, encode, eventually, secs, sleep_ms};
use socket2::SockRef;

/// Clients at a time.
const THREADS: usize = 12;
/// Connections per thread that stay, next to those that leave.
const STAYING: usize = 4;
/// Bytes of a value that many read: long enough for its lane to leave the pool.
const SHARED: usize = 5 << 20;

/// What one client says, and what it must hear.
struct Talk {
    tag: String,
    bytes: Vec<u8>,
    /// The end of each command in `bytes`, with its reply.
    replies: Vec<(usize, Expected)>,
}

enum Expected {
    Is(Value),
    /// A scan's cursor, and keys that all carry the tag.
    Scan,
    /// A message about the channel with the tag.
    About(&'static str),
}

fn status(text: &str) -> Expected {
    Expected::Is(Value::Status(text.to_owned()))
}

fn bulk(text: &str) -> Expected {
    Expected::Is(Value::Bulk(text.as_bytes().to_vec()))
}

impl Talk {
    fn new(tag: String) -> Self {
        Self { tag, bytes: Vec::new(), replies: Vec::new() }
    }

    fn say(&mut self, command: &[&str], expected: Expected) {
        self.bytes.extend(encode(command));
        self.replies.push((self.bytes.len(), expected));
    }

    /// A random talk of one kind or another; `counted` is how often this tag was counted up before.
    fn random(tag: String, rng: &mut Rng, counted: &mut i64) -> Self {
        let mut talk = Self::new(tag);
        match rng.below(100) {
            0..60 => talk.small(rng, counted),
            60..70 => talk.transaction(rng, counted),
            70..76 => talk.watch(rng),
            76..82 => talk.block(rng),
            82..88 => talk.subscribe(rng),
            88..92 => talk.script(rng),
            92 => talk.big(rng),
            _ => {
                talk.small(rng, counted);
                talk.transaction(rng, counted);
                talk.small(rng, counted);
            }
        }
        talk
    }

    fn small(&mut self, rng: &mut Rng, counted: &mut i64) {
        let (key, counter) = (format!("{}:key", self.tag), format!("{}:counter", self.tag));
        let mut value = None;
        for n in 0..=rng.below(12) {
            match rng.below(7) {
                0 | 1 => {
                    let text = format!("{}={n}", self.tag);
                    self.say(&["SET", &key, &text, "PX", "60000"], status("OK"));
                    value = Some(text);
                }
                2 | 3 => match &value {
                    Some(text) => self.say(&["GET", &key], bulk(&text.clone())),
                    None => self.say(&["GET", &format!("{}:none", self.tag)], Expected::Is(Value::Null)),
                },
                4 => {
                    *counted += 1;
                    self.say(&["INCR", &counter], Expected::Is(Value::Int(*counted)));
                }
                5 => {
                    let text = format!("{}-{n}", self.tag);
                    self.say(&["ECHO", &text], bulk(&text));
                }
                _ => {
                    let pattern = format!("{}:*", self.tag);
                    self.say(&["SCAN", "0", "MATCH", &pattern, "COUNT", "5"], Expected::Scan);
                }
            }
        }
    }

    fn transaction(&mut self, rng: &mut Rng, counted: &mut i64) {
        let (key, counter) = (format!("{}:key", self.tag), format!("{}:counter", self.tag));
        self.say(&["MULTI"], status("OK"));
        let mut results = Vec::new();
        for n in 0..rng.below(4) {
            let text = format!("{}*{n}", self.tag);
            self.say(&["SET", &key, &text, "PX", "60000"], status("QUEUED"));
            self.say(&["GET", &key], status("QUEUED"));
            self.say(&["INCR", &counter], status("QUEUED"));
            *counted += 1;
            results.extend([
                Value::Status("OK".to_owned()),
                Value::Bulk(text.into_bytes()),
                Value::Int(*counted),
            ]);
        }
        self.say(&["EXEC"], Expected::Is(Value::Array(results)));
    }

    fn watch(&mut self, rng: &mut Rng) {
        let key = format!("{}:watched", self.tag);
        self.say(&["WATCH", &key], status("OK"));
        self.say(&["GET", &key], Expected::Is(Value::Null));
        match rng.below(3) {
            0 => self.say(&["UNWATCH"], status("OK")),
            1 => {
                self.say(&["MULTI"], status("OK"));
                self.say(&["DISCARD"], status("OK"));
            }
            _ => {
                self.say(&["MULTI"], status("OK"));
                let tag = self.tag.clone();
                self.say(&["ECHO", &tag], status("QUEUED"));
                self.say(&["EXEC"], Expected::Is(Value::Array(vec![Value::Bulk(tag.into_bytes())])));
            }
        }
        let tag = self.tag.clone();
        self.say(&["ECHO", &tag], bulk(&tag));
    }

    fn block(&mut self, rng: &mut Rng) {
        let (list, tag) = (format!("{}:list", self.tag), self.tag.clone());
        if rng.below(2) == 0 {
            self.say(&["RPUSH", &list, &tag], Expected::Is(Value::Int(1)));
            let both = vec![Value::Bulk(list.clone().into_bytes()), Value::Bulk(tag.clone().into_bytes())];
            self.say(&["BLPOP", &list, "1"], Expected::Is(Value::Array(both)));
        } else {
            self.say(&["BLPOP", &list, "0.02"], Expected::Is(Value::Null));
        }
        self.say(&["ECHO", &tag], bulk(&tag));
    }

    fn subscribe(&mut self, rng: &mut Rng) {
        let channel = format!("{}:channel", self.tag);
        self.say(&["SUBSCRIBE", &channel], Expected::About("subscribe"));
        if rng.below(2) == 0 {
            let tag = self.tag.clone();
            let pong = vec![Value::Bulk(b"pong".to_vec()), Value::Bulk(tag.clone().into_bytes())];
            self.say(&["PING", &tag], Expected::Is(Value::Array(pong)));
            self.say(&["UNSUBSCRIBE", &channel], Expected::About("unsubscribe"));
        }
    }

    fn script(&mut self, rng: &mut Rng) {
        let (tag, key) = (self.tag.clone(), format!("{}:script", self.tag));
        for _ in 0..=rng.below(3) {
            self.say(&["EVAL", "return {KEYS[1],ARGV[1]}", "1", &key, &tag], {
                Expected::Is(Value::Array(vec![
                    Value::Bulk(key.clone().into_bytes()),
                    Value::Bulk(tag.clone().into_bytes()),
                ]))
            });
        }
    }

    /// Values that are passed on as they come, in both directions.
    fn big(&mut self, rng: &mut Rng) {
        let (key, tag) = (format!("{}:big", self.tag), self.tag.clone());
        if rng.below(3) == 0 {
            self.say(&["GET", "shared"], Expected::Is(Value::Bulk(vec![b's'; SHARED])));
        } else {
            let value = tag.repeat((1 << 20) / tag.len() + 100);
            self.say(&["SET", &key, &value, "PX", "2000"], status("OK"));
            self.say(&["STRLEN", &key], Expected::Is(Value::Int(value.len() as i64)));
            self.say(&["DEL", &key], Expected::Is(Value::Int(1)));
        }
        self.say(&["ECHO", &tag], bulk(&tag));
    }

    /// Reads so many replies; each must be the one that belongs there.
    fn hear(&self, conn: &mut Conn, count: usize) {
        for (n, (_, expected)) in self.replies.iter().take(count).enumerate() {
            let reply = conn.read();
            let tag = &self.tag;
            let right = match expected {
                Expected::Is(value) => reply == *value,
                Expected::Scan => {
                    let keys = reply.items()[1].items();
                    keys.iter().all(|key| key.text().starts_with(&format!("{tag}:")))
                }
                Expected::About(kind) => {
                    let words = reply.items();
                    words[0] == *kind && words[1] == format!("{tag}:channel").as_str()
                }
            };
            assert!(right, "{tag}, reply {n}: {reply:?}");
        }
    }
}

/// Connects, talks, and leaves at a random point.
fn come_and_go(port: u16, tag: String, rng: &mut Rng) {
    let talk = Talk::random(tag, rng, &mut 0);
    let mut conn = match Conn::try_open(port) {
        Ok(conn) => conn,
        Err(error) => panic!("cannot connect: {error}"),
    };
    let whole = rng.below(2) == 0;
    let sent = if whole { talk.bytes.len() } else { rng.below(talk.bytes.len() + 1) };
    let complete = talk.replies.iter().filter(|(end, _)| *end <= sent).count();
    let half_closes = rng.below(4) == 0;
    // Who reads everything, or nothing, is as likely as who stops somewhere.
    let heard = match rng.below(4) {
        0 => 0,
        1 => complete,
        _ => rng.below(complete + 1),
    };
    let mut stream = conn.stream();
    if sent > 1 << 20 && heard > 0 {
        // What is long is read while it is written.
        let bytes = talk.bytes[..sent].to_vec();
        let mut writing = conn.stream();
        let writer = thread::spawn(move || writing.write_all(&bytes));
        talk.hear(&mut conn, heard);
        drop(writer.join().unwrap());
    } else {
        stream.write_all(&talk.bytes[..sent]).unwrap();
        if half_closes {
            let _ = stream.shutdown(Shutdown::Write);
        }
        if !(half_closes && talk.is_abandoned()) {
            talk.hear(&mut conn, heard);
        }
    }
    if rng.below(4) == 0 {
        // In the middle of a reply.
        let _ = stream.set_read_timeout(Some(Duration::from_millis(1)));
        let _ = stream.read_exact(&mut vec![0; 1 + rng.below(20)]);
    }
    if rng.below(2) == 0 {
        // A reset instead of an orderly end.
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

impl Talk {
    /// Whether the proxy, like Redis, does not answer everything once the client has closed its sending side.
    fn is_abandoned(&self) -> bool {
        let text = |word: &str| self.bytes.windows(word.len()).any(|found| found == word.as_bytes());
        text("BLPOP") || text("SUBSCRIBE")
    }
}

fn rss(proxy: &Proxy) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", proxy.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

/// So many clients come and go, next to some that stay; everybody hears what is meant for him.
fn turmoil(proxy: &Proxy, total: usize, seed: usize) {
    let left = Arc::new(AtomicUsize::new(total));
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (left, port) = (Arc::clone(&left), proxy.ports[thread % proxy.ports.len()]);
            thread::spawn(move || {
                let mut rng = Rng::new((seed * THREADS + thread + 1) as u64);
                let mut stay: Vec<(Conn, i64)> = (0..STAYING).map(|_| (Conn::open(port), 0)).collect();
                let mut round = 0;
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok() {
                    come_and_go(port, format!("<{seed}.{thread}.{round}>"), &mut rng);
                    round += 1;
                    if round % 5 == 0 {
                        let one = rng.below(STAYING);
                        let (conn, counted) = &mut stay[one];
                        let mut talk = Talk::new(format!("<stays {seed}.{thread}.{one}>"));
                        talk.small(&mut rng, counted);
                        conn.send(&talk.bytes);
                        talk.hear(conn, talk.replies.len());
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    eventually("all clients are gone", secs(10), || proxy.metric("redweir_clients", &[]) < 0.5);
}

#[test]
fn whoever_leaves_leaves_nothing_to_others() {
    let total: usize =
        std::env::var("REDWEIR_DISCONNECTS").map_or(20_000, |text| text.parse().expect("a number"));
    let topology = Topology::with(&["--save", ""], 1, &["--save", ""]);
    let proxy = Setup::of(&topology).listener("default").listener("default").listener("default").start();
    assert_eq!(proxy.cmd(&["SET".as_bytes(), b"shared", &vec![b's'; SHARED]]), "OK");
    topology.await_sync();
    let begun = Instant::now();
    turmoil(&proxy, total / 5, 0);
    let early = rss(&proxy);
    turmoil(&proxy, total - total / 5, 1);
    let late = rss(&proxy);
    println!(
        "{total} clients came and went in {:?}; {} KiB of memory after a fifth of them, {} KiB after all",
        begun.elapsed(),
        early >> 10,
        late >> 10
    );
    assert!(late < early + (32 << 20), "{} KiB of memory, {} KiB before", late >> 10, early >> 10);

    // What those who left had begun is undone on the server.
    let idle = |line: &str| {
        let field = |name: &str| line.split(' ').find_map(|f| f.strip_prefix(name)).unwrap_or_default();
        let flags = field("flags=");
        field("sub=") == "0" && field("multi=") == "-1" && !flags.contains(['b', 'x', 'P', 'd'])
    };
    eventually("the server has no connection with a state", secs(5), || {
        let list = topology.primary.cmd(&["CLIENT", "LIST", "TYPE", "normal"]).text();
        list.lines().all(idle)
            && topology.primary.cmd(&["CLIENT", "LIST", "TYPE", "pubsub"]).text().is_empty()
    });
    let upstream = || proxy.metric("redweir_upstream_connections", &[]);
    eventually("only lanes are left", secs(5), || upstream() < 100.0);
    assert!(proxy.metric("redweir_upstream_desynchronised_total", &[]) < 0.5, "{}", proxy.metrics());
    sleep_ms(100);
    assert_eq!(proxy.cmd(&["ECHO", "still there"]), "still there");
}
