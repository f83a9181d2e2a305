//! Large values, long pipelines and many clients: memory stays bounded, and nobody's neighbour waits for them.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]

mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::thread;
use std::time::Instant;

use support::{Conn, Proxy, Setup, Topology, Value, encode, secs, sleep_ms};

/// A line of `/proc/<pid>/status`, in bytes.
fn memory(proxy: &Proxy, line: &str) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", proxy.pid())).unwrap();
    let found = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
    let text = found.unwrap_or_else(|| panic!("no {line} in {status}"));
    text.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

/// A number from the environment, to try more than the ordinary run does.
fn more(name: &str, usually: usize) -> usize {
    std::env::var(name).ok().map_or(usually, |text| text.parse().unwrap())
}

/// Connects, reads one key, and stays.
fn idle_client(port: u16) -> TcpStream {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.write_all(&encode(&["GET", "k"])).unwrap();
    let mut reply = [0; 7];
    stream.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"$1\r\nv\r\n");
    stream
}

#[test]
fn an_idle_client_takes_little_memory() {
    let topology = Topology::start(1);
    let proxy = Setup::of(&topology).start();
    assert_eq!(proxy.cmd(&["SET", "k", "v"]), "OK");
    topology.await_sync();
    let count = more("REDWEIR_IDLE_CLIENTS", 2000);
    // What the first ones need of pools and tables is no client's own.
    let early: Vec<TcpStream> = (0..100).map(|_| idle_client(proxy.port)).collect();
    let before = memory(&proxy, "VmRSS");
    let clients: Vec<TcpStream> = (0..count).map(|_| idle_client(proxy.port)).collect();
    let each = memory(&proxy, "VmRSS").saturating_sub(before) / count;
    println!("{count} idle clients: {each} bytes each");
    assert!(each <= 5 * 1024, "{each} bytes for each of {count} idle clients");
    drop((early, clients));
}

/// Bytes of the longest values that are tried: 512 MiB is what Redis allows.
fn large() -> usize {
    more("REDWEIR_LARGE_MIB", 128) << 20
}

/// More memory than this at a time for a large value is too much.
const LITTLE: usize = 16 << 20;

/// A byte of a large value, by its place.
fn byte(at: usize) -> u8 {
    (at / 61 % 251) as u8
}

/// Sends `SET key value` with a large value, as fast as it is taken.
fn send_large(conn: &mut Conn, head: &[u8], length: usize) {
    let mut stream = conn.stream();
    stream.set_write_timeout(Some(secs(60))).unwrap();
    stream.write_all(head).unwrap();
    stream.write_all(format!("${length}\r\n").as_bytes()).unwrap();
    let mut chunk = Vec::new();
    for begin in (0..length).step_by(1 << 20) {
        chunk.clear();
        chunk.extend((begin..length.min(begin + (1 << 20))).map(byte));
        stream.write_all(&chunk).unwrap();
    }
    stream.write_all(b"\r\n").unwrap();
}

#[test]
fn a_large_value_is_written_in_little_memory() {
    let topology = Topology::with(&["--save", ""], 0, &[]);
    let proxy = Setup::of(&topology).start();
    let mut conn = proxy.connect();
    conn.patience(secs(60));
    assert_eq!(conn.cmd(&["SET", "small", "1"]), "OK");
    let before = memory(&proxy, "VmHWM");
    let begun = Instant::now();
    send_large(&mut conn, b"*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n", large());
    assert_eq!(conn.read(), "OK");
    let (took, grown) = (begun.elapsed(), memory(&proxy, "VmHWM") - before);
    println!("{} MiB in {took:?}, {} KiB more memory", large() >> 20, grown >> 10);
    assert!(grown < LITTLE, "{} KiB more memory", grown >> 10);
    assert_eq!(topology.primary.cmd(&["STRLEN", "big"]), large() as i64);
    for at in [0, 1, 70_000, large() / 2, large() - 10] {
        let (from, to) = (at.to_string(), (at + 9).to_string());
        let part = topology.primary.cmd(&["GETRANGE", "big", &from, &to]);
        assert_eq!(part, Value::Bulk((at..at + 10).map(byte).collect()), "at {at}");
    }
    assert_eq!(conn.cmd(&["GET", "small"]), "1");
}

/// What comes back for these bytes, until a marker at their end is answered or the connection is closed.
fn answers(port: u16, bytes: &[u8]) -> Vec<String> {
    let mut conn = Conn::open(port);
    let mut stream = conn.stream();
    let bytes = [bytes, &encode(&["ECHO", "the end"])].concat();
    let sender = thread::spawn(move || stream.write_all(&bytes).is_ok());
    let mut replies = Vec::new();
    while let Ok(reply) = conn.try_read() {
        if reply == "the end" || reply.is_error() && reply.error().contains("'echo'") {
            break;
        }
        replies.push(format!("{reply:?}"));
    }
    drop(conn);
    sender.join().unwrap();
    replies
}

#[test]
fn long_commands_are_answered_as_by_redis() {
    let topology = Topology::with(&["--save", ""], 1, &["--save", ""]);
    let deny = "[security]\ndeny-commands = [\"debug\"]";
    let proxy = Setup::of(&topology).toml(deny).start();
    let big = vec![b'x'; 3 << 20];
    let word = |text: &str| text.as_bytes().to_vec();
    let big_one = |before: &[&str], after: &[&str]| {
        let words = before.iter().map(|text| word(text));
        encode(&words.chain([big.clone()]).chain(after.iter().map(|text| word(text))).collect::<Vec<_>>())
    };
    let pairs: Vec<String> = (0..300_000).map(|n| format!("pair:{n}")).collect();
    let mset: Vec<&str> = ["MSET"].into_iter().chain(pairs.iter().map(String::as_str)).collect();
    let bad_length = [b"*3\r\n$3\r\nSET\r\n$3145728\r\n".as_slice(), &big, b"\r\n$-5\r\n"].concat();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("set", big_one(&["SET", "k"], &["EX", "100"])),
        ("then get", [big_one(&["SET", "k"], &[]), encode(&["STRLEN", "k"]), encode(&["DEL", "k"])].concat()),
        ("many arguments", [encode(&mset), encode(&["GET", "pair:299998"])].concat()),
        ("arity", big_one(&["GET", "k"], &["x"])),
        ("unknown", big_one(&["NOSUCH", "k"], &[])),
        ("a name", big_one(&[], &["k"])),
        ("an option", big_one(&["SET", "k", "v"], &[])),
        ("a read", big_one(&["GET"], &[])),
        ("a key", [big_one(&["SET"], &["v"]), big_one(&["GET"], &[]), big_one(&["DEL"], &[])].concat()),
        ("echo", big_one(&["ECHO"], &[])),
        ("quit", big_one(&["QUIT"], &[])),
        ("auth", big_one(&["AUTH", "nobody"], &[])),
        ("select", big_one(&["SELECT"], &[])),
        ("reset", big_one(&["RESET"], &[])),
        ("post", big_one(&["POST"], &[])),
        ("negative", bad_length),
        (
            "a transaction",
            [
                encode(&["MULTI"]),
                big_one(&["SET", "t"], &[]),
                encode(&["STRLEN", "t"]),
                big_one(&["NOSUCH"], &[]),
                encode(&["EXEC"]),
                encode(&["MULTI"]),
                big_one(&["APPEND", "t"], &[]),
                encode(&["DEL", "t"]),
                encode(&["EXEC"]),
            ]
            .concat(),
        ),
        ("subscribed", [encode(&["SUBSCRIBE", "c"]), big_one(&["PUBLISH", "c"], &[])].concat()),
        ("watched", [big_one(&["WATCH"], &[]), encode(&["MULTI"]), encode(&["EXEC"])].concat()),
        ("blocking", big_one(&["BLPOP", "none"], &["0.01"])),
        ("published", big_one(&["PUBLISH", "c"], &[])),
    ];
    for (what, bytes) in &cases {
        let expected = answers(topology.primary.port, bytes);
        assert_eq!(answers(proxy.port, bytes), expected, "{what}");
    }
    let denied = answers(proxy.port, &[big_one(&["DEBUG", "JMAP"], &[]), encode(&["PING"])].concat());
    assert!(denied.len() == 2 && denied[0].starts_with("-NOPERM") && denied[1] == "+PONG", "{denied:?}");
    let lanes = || proxy.metric("redweir_lanes", &[]);
    assert!(lanes() < 20.0, "{} lanes are left", lanes());
}

/// What a client has not sent to its end is nobody's, and what the server does not take is the sender's own affair.
#[test]
fn half_a_long_command_does_nothing() {
    let mut topology = Topology::with(&["--save", "", "--proto-max-bulk-len", "4mb"], 0, &[]);
    let proxy = Setup::of(&topology).start();
    let mut other = proxy.connect();
    let head = b"*3\r\n$3\r\nSET\r\n$4\r\nhalf\r\n$3000000\r\n";
    for round in 0..20 {
        let mut leaves = proxy.connect();
        leaves.send(&[head.as_slice(), &vec![b'h'; 100_000 * round]].concat());
        sleep_ms(2);
        drop(leaves);
        let tag = format!("value {round}");
        assert_eq!(other.cmd(&["SET", "tag", &tag]), "OK");
        let mut next = proxy.connect();
        next.ask(&["MULTI"]).ask(&["GET", "tag"]).ask(&["EXEC"]);
        assert_eq!(next.read_many(3)[2], Value::Array(vec![Value::Bulk(tag.into_bytes())]));
    }
    assert_eq!(other.cmd(&["EXISTS", "half"]), 0);

    let mut conn = proxy.connect();
    conn.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5000000\r\n");
    assert_eq!(conn.read().error(), "ERR Protocol error: invalid bulk length");
    conn.read_to_close();

    let mut conn = proxy.connect();
    conn.send(&[head.as_slice(), &vec![b'h'; 1_000_000]].concat());
    sleep_ms(50);
    topology.primary.kill();
    assert_eq!(conn.read().error(), "ERR the connection to the primary was lost before it answered");
    conn.read_to_close();
}
