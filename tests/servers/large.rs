//! Large values, long pipelines and many clients: memory stays bounded, and nobody's neighbour waits for them.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]
#![allow(clippy::print_stdout, reason = "figures are worth seeing")]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{
    Conn, Direction, Proxy, Relay, Setup, Topology, Value, encode, eventually, memory_of, secs, sleep_ms,
};

fn memory(proxy: &Proxy, line: &str) -> usize {
    memory_of(proxy.pid(), line)
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

/// What a client had while it was busy it gives back.
#[test]
fn a_client_that_was_busy_takes_little_memory() {
    let topology = Topology::start(1);
    let proxy = Setup::of(&topology).start();
    assert_eq!(proxy.cmd(&["SET", "k", "v"]), "OK");
    topology.await_sync();
    let busy = |n: usize| {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port)).unwrap();
        let commands = (0..300).flat_map(|m| match m % 3 {
            0 => encode(&["GET", "k"]),
            1 => encode(&["SET", &format!("{n}:{m}"), "1"]),
            _ => encode(&["GETRANGE", &format!("{n}:{}", m - 1), "0", "-1"]),
        });
        stream.write_all(&commands.collect::<Vec<u8>>()).unwrap();
        stream.read_exact(&mut vec![0; 100 * 7 + 100 * 5 + 100 * 7]).unwrap();
        stream
    };
    let early: Vec<TcpStream> = (0..100).map(busy).collect();
    let before = memory(&proxy, "VmRSS");
    let count = 1000;
    let clients: Vec<TcpStream> = (100..100 + count).map(busy).collect();
    let each = memory(&proxy, "VmRSS").saturating_sub(before) / count;
    println!("{count} clients that were busy: {each} bytes each");
    assert!(each <= 12 * 1024, "{each} bytes for each of {count} clients that were busy");
    drop((early, clients));
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

/// So many bytes of a large value, from this place on.
fn part(at: usize, length: usize) -> &'static [u8] {
    const PERIOD: usize = 61 * 251;
    static PATTERN: LazyLock<Vec<u8>> =
        LazyLock::new(|| (0..PERIOD + (1 << 20)).map(|at| (at / 61 % 251) as u8).collect());
    &PATTERN[at % PERIOD..][..length]
}

/// Sends `SET key value` with a large value, as fast as it is taken.
fn send_large(conn: &mut Conn, head: &[u8], length: usize) {
    let mut stream = conn.stream();
    stream.set_write_timeout(Some(secs(60))).unwrap();
    stream.write_all(head).unwrap();
    stream.write_all(format!("${length}\r\n").as_bytes()).unwrap();
    for begin in (0..length).step_by(1 << 20) {
        stream.write_all(part(begin, (length - begin).min(1 << 20))).unwrap();
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
        let found = topology.primary.cmd(&["GETRANGE", "big", &from, &to]);
        assert_eq!(found, Value::Bulk(part(at, 10).to_vec()), "at {at}");
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
        ("too many arguments", b"*2147483648\r\n$3\r\nDEL\r\n".to_vec()),
        (
            "very many arguments",
            [b"*1200001\r\n$3\r\nDEL\r\n".to_vec(), b"$1\r\nk\r\n".repeat(1_200_000)].concat(),
        ),
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
    let lanes = || proxy.metric("redweir_upstream_connections", &[]);
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

/// Somebody who goes on with small commands while others have large ones, and notes how long the slowest took.
struct Neighbour {
    ended: Arc<AtomicBool>,
    thread: thread::JoinHandle<(Duration, usize)>,
}

impl Neighbour {
    /// Through the proxy.
    fn start(port: u16) -> Self {
        Self::with(port, |conn, round| {
            let tag = format!("round {round}");
            conn.ask(&["SET", "neighbour", &tag]).ask(&["GET", "neighbour"]).ask(&["GET", "none"]);
            let replies = conn.read_many(3);
            assert_eq!(replies[1], tag.as_str());
            assert_eq!(replies[2], Value::Null);
        })
    }

    /// Of the server itself: nobody can be answered while it is busy with a large value.
    fn direct(port: u16) -> Self {
        Self::with(port, |conn, _| assert_eq!(conn.cmd(&["PING"]), "PONG"))
    }

    fn with(port: u16, command: impl Fn(&mut Conn, usize) + Send + 'static) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&ended);
        let thread = thread::spawn(move || {
            let (mut conn, mut slowest, mut rounds) = (Conn::open(port), Duration::ZERO, 0);
            conn.patience(secs(20));
            while !until.load(Ordering::Relaxed) {
                let begun = Instant::now();
                command(&mut conn, rounds);
                slowest = slowest.max(begun.elapsed());
                rounds += 1;
                sleep_ms(1);
            }
            (slowest, rounds)
        });
        Self { ended, thread }
    }

    /// How long the slowest round took, and how many there were.
    fn stop(self) -> (Duration, usize) {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// Reads `$length` and so many bytes at most at this rate, and checks them all.
fn take_large(stream: &mut TcpStream, length: usize, bytes_per_second: Option<usize>) {
    let head = format!("${length}\r\n");
    let mut chunk = vec![0; head.len()];
    stream.read_exact(&mut chunk).unwrap();
    assert_eq!(String::from_utf8_lossy(&chunk), head);
    let (mut at, begun) = (0, Instant::now());
    while at < length {
        chunk.resize((length - at).min(256 << 10), 0);
        stream.read_exact(&mut chunk).unwrap();
        assert!(chunk == part(at, chunk.len()), "after {at} bytes");
        at += chunk.len();
        if let Some(rate) = bytes_per_second {
            let due = Duration::from_secs_f64(at as f64 / rate as f64);
            thread::sleep(due.saturating_sub(begun.elapsed()));
        }
    }
    let mut end = [0; 2];
    stream.read_exact(&mut end).unwrap();
    assert_eq!(&end, b"\r\n");
}

/// Several clients read large values at their own pace, through one worker, next to somebody with small commands.
fn read_large(replicas: usize, length: usize, rates: &[Option<usize>]) {
    let topology = Topology::with(&["--save", ""], replicas, &["--save", ""]);
    let proxy = Setup::of(&topology).proxy("[proxy]\nworkers = 1").start();
    send_large(&mut topology.primary.connect(), b"*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n", length);
    eventually("the large value is there", secs(60), || {
        topology.primary.cmd(&["STRLEN", "big"]) == length as i64
    });
    topology.await_sync();
    sleep_ms(200);
    let before = memory(&proxy, "VmHWM");
    let neighbour = Neighbour::start(proxy.port);
    let servers = topology.replica_ports().into_iter().chain([topology.primary.port]);
    let direct: Vec<Neighbour> = servers.map(Neighbour::direct).collect();
    sleep_ms(200);
    let begun = Instant::now();
    let readers: Vec<_> = rates
        .iter()
        .map(|&rate| {
            let mut conn = proxy.connect();
            conn.ask(&["GET", "big"]).ask(&["INCR", "count"]).ask(&["GET", "big"]).ask(&["ECHO", "end"]);
            thread::spawn(move || {
                let mut stream = conn.stream();
                stream.set_read_timeout(Some(secs(30))).unwrap();
                take_large(&mut stream, length, rate);
                let mut count = [0; 4];
                stream.read_exact(&mut count).unwrap();
                assert!(count.starts_with(b":") && count.ends_with(b"\r\n"), "{}", count.escape_ascii());
                take_large(&mut stream, length, rate);
                assert_eq!(conn.read(), "end");
            })
        })
        .collect();
    for reader in readers {
        reader.join().unwrap();
    }
    let took = begun.elapsed();
    let (slowest, rounds) = neighbour.stop();
    let of_servers: Duration = direct.into_iter().map(|direct| direct.stop().0).sum();
    let grown = memory(&proxy, "VmHWM") - before;
    println!(
        "{replicas} replicas, 2 * {} MiB to {} clients in {took:?}: {} KiB more memory; {rounds} rounds of a \
         neighbour, the slowest {slowest:?} (the servers' own: {of_servers:?})",
        length >> 20,
        rates.len(),
        grown >> 10
    );
    let most = LITTLE * (1 + rates.len());
    assert!(grown < most, "{} KiB more memory", grown >> 10);
    // A probe that a busy server does not answer in time costs another second.
    let most = secs(3) + 4 * of_servers;
    assert!(slowest < most, "a neighbour waited {slowest:?}");
    eventually("the lanes are given back", secs(5), || {
        proxy.metric("redweir_upstream_connections", &[]) < 16.0
    });
}

#[test]
fn large_values_are_read_in_little_memory() {
    read_large(1, large(), &[None]);
}

#[test]
fn a_slow_reader_of_large_values_slows_nobody() {
    let rate = |mib: usize| Some(mib << 20);
    read_large(1, 24 << 20, &[rate(10), None, rate(6)]);
    read_large(0, 24 << 20, &[rate(10), None, rate(6)]);
}

/// A node that made all of them at once would have its memory full of them.
#[test]
fn large_replies_are_asked_for_as_they_are_taken() {
    const COMMANDS: usize = 200;
    let topology = Topology::start(1);
    let path = Relay::to(topology.replicas[0].port);
    let proxy = Setup::to(topology.primary.port, &[path.port]).upstream("probe-timeout = \"5s\"").start();
    let value = "v".repeat(64 << 10);
    topology.primary.cmd(&["SET", "k", &value]);
    topology.await_sync();
    sleep_ms(300);
    let mut conn = proxy.connect();
    for _ in 0..20 {
        assert_eq!(conn.cmd(&["GET", "k"]), value.as_str());
    }
    let calls = || topology.replica_calls("get")[0];
    path.stall(Direction::Down);
    let before = calls();
    for _ in 0..COMMANDS {
        conn.ask(&["GET", "k"]);
    }
    sleep_ms(300);
    let asked = calls() - before;
    assert!((1..=4).contains(&asked), "{asked} of {COMMANDS} while nothing was taken");
    path.heal();
    assert!(conn.read_many(COMMANDS).iter().all(|reply| *reply == value.as_str()));
    assert_eq!(calls() - before, COMMANDS as u64);
}

/// The node is lost in the middle of a long reply: whatever came behind it would be taken for the rest of it.
#[test]
fn a_reply_that_is_lost_half_way_is_followed_by_nothing() {
    let mut topology = Topology::with(&["--save", ""], 1, &["--save", ""]);
    let proxy = Setup::of(&topology).start();
    // More than all sockets on the way may hold.
    let length = 64 << 20;
    send_large(&mut topology.primary.connect(), b"*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n", length);
    topology.await_sync();
    sleep_ms(300);
    let mut conn = proxy.connect();
    socket2::SockRef::from(&conn.stream()).set_recv_buffer_size(1 << 20).unwrap();
    conn.ask(&["GET", "big"]).ask(&["GET", "big"]);
    let (mut got, mut stream) = (vec![0; 1 << 16], conn.stream());
    stream.set_read_timeout(Some(secs(10))).unwrap();
    stream.read_exact(&mut got).unwrap();
    sleep_ms(300);
    topology.replicas[0].server.kill();
    topology.primary.kill();
    sleep_ms(300);
    stream.set_read_timeout(Some(secs(2))).unwrap();
    let end = stream.read_to_end(&mut got).map_err(|error| error.kind());
    assert!(
        matches!(end, Ok(_) | Err(ErrorKind::ConnectionReset)),
        "{end:?} after {} bytes: {}",
        got.len(),
        String::from_utf8_lossy(&got[..got.len().min(200)])
    );
    assert!(got.len() < length, "{} bytes", got.len());
    let head = format!("${length}\r\n").len();
    for (n, found) in got[head..].chunks(1 << 20).enumerate() {
        assert!(found == part(n << 20, found.len()), "MiB {n} is not of the value");
    }
}

/// Writes 100,000 commands before it reads a single reply, as pipelines of client libraries do.
#[test]
fn a_pipeline_is_written_before_its_replies_are_read() {
    const COMMANDS: usize = 100_000;
    let topology = Topology::start(2);
    let proxy = Setup::of(&topology).proxy("[proxy]\nworkers = 1").start();
    let value = "v".repeat(100);
    let mut setter = proxy.connect();
    for key in 0..100 {
        setter.cmd(&["SET", &format!("key:{key}"), &format!("{key}:{value}")]);
    }
    topology.await_sync();
    sleep_ms(300);
    let neighbour = Neighbour::start(proxy.port);
    let pipeline =
        |command: &dyn Fn(usize) -> Vec<u8>| -> Vec<u8> { (0..COMMANDS).flat_map(command).collect() };
    let key = |n: usize| format!("key:{}", n % 100);
    let gets = pipeline(&|n| encode(&["GET", &key(n)]));
    let sets = pipeline(&|n| encode(&["SET", &format!("new:{n}"), &value]));
    let mixed = pipeline(&|n| match n % 4 {
        0 => encode(&["INCR", "counter"]),
        1 => encode(&["SET", &format!("mixed:{}", n % 1000), &n.to_string()]),
        2 => encode(&["GET", &format!("mixed:{}", (n - 1) % 1000)]),
        _ => encode(&["GET", &key(n)]),
    });
    let check = |what: &str, input: &[u8], expected: &dyn Fn(usize) -> Value| {
        let (mut conn, begun) = (proxy.connect(), Instant::now());
        conn.stream().set_write_timeout(Some(secs(60))).unwrap();
        conn.patience(secs(60)).send(input);
        let written = begun.elapsed();
        for n in 0..COMMANDS {
            assert_eq!(conn.read(), expected(n), "{what}: reply {n}");
        }
        println!("{what}: written after {written:?}, read after {:?}", begun.elapsed());
    };
    check("GET", &gets, &|n| Value::Bulk(format!("{}:{value}", n % 100).into_bytes()));
    check("SET", &sets, &|_| Value::Status("OK".to_owned()));
    check("mixed", &mixed, &|n| match n % 4 {
        0 => Value::Int((n / 4 + 1) as i64),
        1 => Value::Status("OK".to_owned()),
        2 => Value::Bulk((n - 1).to_string().into_bytes()),
        _ => Value::Bulk(format!("{}:{value}", n % 100).into_bytes()),
    });
    let (slowest, rounds) = neighbour.stop();
    println!("{rounds} rounds of a neighbour, the slowest {slowest:?}");
    assert!(slowest < secs(2), "a neighbour waited {slowest:?}");
    assert!(topology.replica_calls("get").iter().sum::<u64>() > COMMANDS as u64 / 2, "replicas take part");
}

/// A long reply of many short elements, and long replies of two nodes in one pipeline, to a slow reader.
#[test]
fn long_replies_of_every_kind_wait_for_their_reader() {
    const ELEMENTS: usize = 20_000;
    let topology = Topology::with(&["--save", ""], 1, &["--save", ""]);
    let proxy = Setup::of(&topology).proxy("[proxy]\nworkers = 1").start();
    let element = "e".repeat(1000);
    for _ in 0..ELEMENTS / 1000 {
        let push: Vec<&str> = ["RPUSH", "list"].into_iter().chain([element.as_str(); 1000]).collect();
        topology.primary.cmd(&push);
    }
    let value = "v".repeat(12 << 20);
    topology.primary.cmd(&["SET", "big", &value]);
    topology.await_sync();
    sleep_ms(300);
    let before = memory(&proxy, "VmHWM");
    let neighbour = Neighbour::start(proxy.port);
    let mut conn = proxy.connect();
    conn.patience(secs(20));
    // The first goes to the replica, GETEX and what the transaction holds to the primary.
    let list = ["LRANGE", "list", "0", "-1"];
    conn.ask(&list).ask(&["GETEX", "big"]).ask(&["GET", "big"]).ask(&list);
    conn.ask(&["MULTI"]).ask(&list).ask(&["GET", "big"]).ask(&["EXEC"]).ask(&["ECHO", "end"]);
    let is_list =
        |reply: &Value| reply.items().len() == ELEMENTS && reply.items()[ELEMENTS - 1] == element.as_str();
    sleep_ms(800);
    assert!(is_list(&conn.read()));
    sleep_ms(800);
    assert_eq!(conn.read(), value.as_str());
    assert_eq!(conn.read(), value.as_str());
    sleep_ms(800);
    assert!(is_list(&conn.read()));
    assert_eq!(conn.read_many(3), [&["OK", "QUEUED", "QUEUED"][..]].concat());
    sleep_ms(800);
    let result = conn.read();
    assert!(is_list(&result.items()[0]) && result.items()[1] == value.as_str());
    assert_eq!(conn.read(), "end");
    let (slowest, _) = neighbour.stop();
    let grown = memory(&proxy, "VmHWM") - before;
    println!("{} KiB more memory, a neighbour's slowest round {slowest:?}", grown >> 10);
    assert!(grown < 3 * LITTLE, "{} KiB more memory", grown >> 10);
    assert!(slowest < secs(2), "a neighbour waited {slowest:?}");
}
