//! The scanners against a real `redis-server`: for any bytes, Redis answers just what it answers to the
//! commands that the request scanner found, forwarded in canonical form, and then the protocol error that the
//! scanner reports, in the same words. And the reply scanner finds each end in what Redis really sends.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "fuzz/checks/mod.rs"]
mod checks;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::BytesMut;
use checks::request::{Found, scan};
use checks::rng::Rng;
use redweir::wire::reply::{ReplyKind, ReplyScanner};
use redweir::wire::request::{RequestError, RequestLimits, is_cross_protocol};

/// A `redis-server` of our own; it ends with the test.
struct Server {
    child: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Server {
    fn start(options: &[&str]) -> Self {
        for _ in 0..5 {
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
            let dir = tempfile::tempdir().unwrap();
            let child = Command::new("redis-server")
                .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"])
                .arg(dir.path())
                .args(["--enable-debug-command", "yes"])
                .args(options)
                .stdout(Stdio::null())
                .spawn()
                .expect("redis-server must be installed to run this test");
            let mut server = Self { child, port, _dir: dir };
            for _ in 0..200 {
                if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                    if server.child.try_wait().unwrap().is_none() {
                        return server;
                    }
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        panic!("redis-server did not start on any of five ports");
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// All that Redis says to these bytes when nothing follows them.
    fn answer(&self, input: &[u8]) -> Vec<u8> {
        let mut stream = self.connect();
        // Redis may have closed already: then its answer is what counts.
        let _ = stream.write_all(input).and_then(|()| stream.shutdown(Shutdown::Write));
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error} after {answer:?}"),
            _ => answer,
        }
    }

    /// All that Redis says to commands that end with `QUIT`. A long answer would be cut short by the end of
    /// input that [`Server::answer`] sends.
    fn answer_until_quit(&self, input: &[u8]) -> Vec<u8> {
        let mut stream = self.connect();
        stream.write_all(input).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    }

    /// Redis' answer to `input` is its answer to what the scanner found in it.
    fn assert_same(&self, limits: RequestLimits, input: &[u8]) -> Found {
        let found = scan(limits, input, || input.len());
        let mut expected = self.answer(&found.forwarded);
        if let Some(error) = found.error {
            let mut reply = BytesMut::new();
            error.put_reply(&mut reply);
            expected.extend_from_slice(&reply);
        }
        let answer = self.answer(input);
        assert_eq!(
            answer.escape_ascii().to_string(),
            expected.escape_ascii().to_string(),
            "to {}; found {found:?}",
            input[..input.len().min(600)].escape_ascii()
        );
        found
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Redis 7.0 allows more arguments than we do.
const REDIS_7: RequestLimits = RequestLimits { max_args: 0x7fff_ffff, ..RequestLimits::DEFAULT };

/// Byte games with how many commands they hold; each is followed by one more command, unless it breaks off.
const GAMES: &[(&[u8], usize)] = &[
    (b"*1\r\n$4\r\nPING\r\n", 1),
    (b"*2\r\n$4\r\nECHO\r\n$3\r\nfooXX", 1),
    (b"*2\r\n$4\r\nECHO\r\n$5\r\n\r\n\0\xff*\r\n", 1),
    (b"*2\r\n$4\r\nECHO\r\n$0\r\n\r\n", 1),
    (b"*1\r\n$0\r\n\r\n", 1),
    (b"*1\rX$4\rYPING\r\n", 1),
    (b"*1\r\r$4\r\rPING\n\r", 1),
    (b"*0\r\n*-1\r\n*-5\r\n*-9223372036854775808\r\n", 0),
    (b"\r\n\n  \t\r\n", 0),
    (b"PING\r\n", 1),
    (b"PING\nPING\r\n", 2),
    (b"PING\r\r\n", 1),
    (b"ECHO \"a\\x41b\"\r\n", 1),
    (b"ECHO 'a\\'b\\n'\n", 1),
    (b"ECHO \"\\x4\\n\\\\\\\"\\a\"\n", 1),
    (b"ECHO x\"y z\"\n", 1),
    (b"ECHO a\x0bb\n\x0cECHO \"c\"\x0b\n", 2),
    (b"ECHO \xff\xfe\n", 1),
    (b"\"\"\n", 1),
    (b"$4\r\nPING\r\n", 2),
    (b"-ERR x\r\n+OK\r\n:1\r\n", 3),
    (b"NOSUCH\x01 a\n", 1),
    (b"*2\r\n$4\r\nECHO\r\n$1\r\nab\r\n", 1),
    (b"*2\r\n$4\r\nEC\rO\r\n$3\r\na\nb\r\n", 1),
    (b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$3\r\na\0b\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", 2),
];

/// Byte games that end in an error.
const FAULTS: &[(&[u8], RequestError)] = &[
    (b"*1\r\n$+3\r\nfoo\r\n", RequestError::InvalidBulkLength),
    (b"*1\r\n$03\r\nfoo\r\n", RequestError::InvalidBulkLength),
    (b"*1\r\n$\r\nfoo\r\n", RequestError::InvalidBulkLength),
    (b"*1\r\n$-1\r\n", RequestError::InvalidBulkLength),
    (b"*1\r\n$ 3\r\nfoo\r\n", RequestError::InvalidBulkLength),
    (b"*1\r\n$3\n\r\nfoo\r\n", RequestError::InvalidBulkLength),
    (b"*1\r\n$536870913\r\n", RequestError::InvalidBulkLength),
    (b"*1\r\n$99999999999999999999999\r\n", RequestError::InvalidBulkLength),
    (b"*+1\r\n", RequestError::InvalidMultibulkLength),
    (b"*01\r\n", RequestError::InvalidMultibulkLength),
    (b"*\r\n", RequestError::InvalidMultibulkLength),
    (b"*-0\r\n", RequestError::InvalidMultibulkLength),
    (b"*2147483648\r\n", RequestError::InvalidMultibulkLength),
    (b"*1\n$4\r\nPING\r\n", RequestError::InvalidMultibulkLength),
    (b"*1\r\n*1\r\n$4\r\nPING\r\n", RequestError::ExpectedDollar(b'*')),
    (b"*1\r\n\r\n", RequestError::ExpectedDollar(b'\r')),
    (b"*1\r\n\nPING\r\n", RequestError::ExpectedDollar(b'\n')),
    (b"*1\r\n\xff\r\n", RequestError::ExpectedDollar(0xff)),
    (b"*3\r\n$4\r\nECHO\r\n$1\r\nab\r\n$1\r\nc\r\n", RequestError::ExpectedDollar(b'\n')),
    (b"GET \"x\\x4\r\n", RequestError::UnbalancedQuotes),
    (b"PING \"ax\xff\r\n", RequestError::UnbalancedQuotes),
    (b"PING 'a'b\r\n", RequestError::UnbalancedQuotes),
];

#[test]
fn every_byte_game_ends_as_in_redis() {
    let server = Server::start(&[]);
    let ping = b"*2\r\n$4\r\nECHO\r\n$5\r\nafter\r\n".as_slice();
    for (game, commands) in GAMES {
        let found = server.assert_same(RequestLimits::DEFAULT, &[game, ping].concat());
        assert_eq!((found.commands.len(), found.error), (commands + 1, None), "{}", game.escape_ascii());
    }
    for (game, error) in FAULTS {
        let found = server.assert_same(RequestLimits::DEFAULT, &[ping, game, ping].concat());
        assert_eq!(found.error, Some(*error), "{}", game.escape_ascii());
        assert_eq!(found.commands.len(), 1);
    }
    for part in [
        b"PING\0\r\nPING\r\n".as_slice(),
        b"*1\0\r\n$4\r\nPING\r\n",
        b"*1\r\n$4\0\r\nPING\r\n",
        b"*1\r\nPING",
    ] {
        let found = server.assert_same(RequestLimits::DEFAULT, part);
        assert_eq!((found.commands.len(), found.error), (0, None), "{}", part.escape_ascii());
    }
}

#[test]
fn too_long_lines_end_as_in_redis() {
    let server = Server::start(&[]);
    for (head, error) in [
        ("*", RequestError::TooBigMultibulkCount),
        ("*1\r\n$", RequestError::TooBigBulkCount),
        ("ECHO ", RequestError::TooBigInline),
    ] {
        let line = if head.starts_with('*') { 1 } else { head.len() };
        let fits = format!("{head}{}", "1".repeat((64 << 10) - line));
        assert_eq!(server.assert_same(RequestLimits::DEFAULT, fits.as_bytes()).error, None);
        assert_eq!(
            server.assert_same(RequestLimits::DEFAULT, format!("{fits}1").as_bytes()).error,
            Some(error)
        );
    }
    let echo = format!("ECHO {}\n", "1".repeat((64 << 10) - 5));
    assert_eq!(server.assert_same(RequestLimits::DEFAULT, echo.as_bytes()).commands.len(), 1);
}

#[test]
fn before_authentication_redis_says_the_same() {
    let server = Server::start(&["--requirepass", "secret"]);
    for (game, error) in FAULTS {
        let found = server.assert_same(RequestLimits::BEFORE_AUTH, game);
        assert_eq!(found.error, Some(*error), "{}", game.escape_ascii());
    }
    for (game, error) in [
        ("*11\r\n", Some(RequestError::UnauthenticatedMultibulk)),
        ("*2147483647\r\n", Some(RequestError::UnauthenticatedMultibulk)),
        ("*10\r\n", None),
        ("*1\r\n$16385\r\n", Some(RequestError::UnauthenticatedBulk)),
        ("*1\r\n$536870912\r\n", Some(RequestError::UnauthenticatedBulk)),
        ("*1\r\n$16384\r\n", None),
        ("*1\r\n$4\r\nPING\r\n", None),
    ] {
        assert_eq!(server.assert_same(RequestLimits::BEFORE_AUTH, game.as_bytes()).error, error, "{game}");
    }
}

#[test]
fn browsers_are_cut_off_as_in_redis() {
    let server = Server::start(&[]);
    for line in ["POST / HTTP/1.1\r\nPING\r\n", "host: x\r\nPING\r\n", "*1\r\n$6\r\npost\0x\r\nPING\r\n"] {
        assert_eq!(server.answer(line.as_bytes()), b"", "{line:?}");
        let found = scan(RequestLimits::DEFAULT, line.as_bytes(), || 5);
        assert!(is_cross_protocol(&found.commands[0][0]), "{line:?}");
    }
    let get = "GET / HTTP/1.1\r\nPING\r\n";
    assert_eq!(server.assert_same(RequestLimits::DEFAULT, get.as_bytes()).commands.len(), 2);
}

#[test]
fn random_byte_games_end_as_in_redis() {
    let server = Server::start(&[]);
    let known = GAMES.iter().map(|game| game.0).chain(FAULTS.iter().map(|game| game.0));
    let seeds: Vec<Vec<u8>> = known.map(<[u8]>::to_vec).collect();
    let (mut commands, mut faults) = (0, 0);
    for round in 0..8_000 {
        let input = Rng::new(round).mutate(&seeds);
        let found = server.assert_same(REDIS_7, &input);
        commands += found.commands.len();
        faults += usize::from(found.error.is_some());
    }
    assert!(commands > 5_000 && faults > 2_000, "{commands} commands and {faults} faults say little");
}

fn encode(words: &[&str]) -> Vec<u8> {
    let arguments = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len()));
    format!("*{}\r\n{}", words.len(), arguments.collect::<String>()).into_bytes()
}

/// Commands whose replies are of every shape that Redis 7.0 has, or sloppy.
const SHAPES: &[&[&str]] = &[
    &["INFO", "everything"],
    &["COMMAND"],
    &["COMMAND", "DOCS", "get", "xadd"],
    &["CONFIG", "GET", "*"],
    &["MEMORY", "STATS"],
    &["ACL", "GETUSER", "default"],
    &["CLIENT", "LIST"],
    &["CLIENT", "TRACKINGINFO"],
    &["LATENCY", "HISTOGRAM"],
    &["FUNCTION", "STATS"],
    &["ROLE"],
    &["HELLO"],
    &["GET", "none"],
    &["HGETALL", "none"],
    &["GEOADD", "geo", "13.361389", "38.115556", "Palermo"],
    &["GEOPOS", "geo", "Palermo", "nobody"],
    &["ZADD", "z", "1.5", "a", "inf", "b"],
    &["ZRANGE", "z", "0", "-1", "WITHSCORES"],
    &["ZSCORE", "z", "b"],
    &["XADD", "x", "*", "f", "v"],
    &["XINFO", "STREAM", "x", "FULL"],
    &["HSET", "h", "a", "1", "b", "2"],
    &["HGETALL", "h"],
    &["SADD", "s", "a", "b"],
    &["SMEMBERS", "s"],
    &["LRANGE", "list", "0", "-1"],
    &["MULTI"],
    &["GET", "none"],
    &["EXEC"],
    &["NO\u{ff}SUCH", "a\r\nb"],
    &["CLUSTER", "INFO"],
    &["PING", "\r\n"],
    &["EVAL", "return {ok='a\\r\\nb'}", "0"],
    &["EVAL", "return {err='ERR a\\r\\nb'}", "0"],
    &["EVAL", "return {ok=string.rep('x', 200000)}", "0"],
    &["EVAL", "return {err=string.rep('x', 200000)}", "0"],
    &["EVAL", "return {1,{2,{3,{false,{ok='x'}}}},{err='E'}}", "0"],
    &["EVAL", "local t={}; t[{1,2}]=true; return {set=t}", "0"],
    &["EVAL", "redis.setresp(3); local t={}; t[{1,2}]=true; return {set=t}", "0"],
    &["EVAL", "redis.setresp(3); return {map={a=1,b={2}}}", "0"],
    &["EVAL", "redis.setresp(3); return {double=3.25}", "0"],
    &["EVAL", "redis.setresp(3); return {big_number='12\\r\\n3'}", "0"],
    &["EVAL", "redis.setresp(3); return {verbatim_string={format='abc',string='x'}}", "0"],
    &["EVAL", "redis.setresp(3); return {verbatim_string={format='abcdef',string='x'}}", "0"],
    &["EVAL", "redis.setresp(3); return {verbatim_string={format='a',string=''}}", "0"],
    &["EVAL", "redis.setresp(3); return {true,false}", "0"],
    &["EVAL", "local t={} for i=1,60 do t={t} end return t", "0"],
    &["EVAL", "local t={} for i=1,2000 do t[i]='v' end return t", "0"],
    &["EVAL", "error('a\\nb\\255')", "0"],
    &["DEBUG", "PROTOCOL", "string"],
    &["DEBUG", "PROTOCOL", "integer"],
    &["DEBUG", "PROTOCOL", "double"],
    &["DEBUG", "PROTOCOL", "null"],
    &["DEBUG", "PROTOCOL", "array"],
    &["DEBUG", "PROTOCOL", "set"],
    &["DEBUG", "PROTOCOL", "map"],
    &["DEBUG", "PROTOCOL", "verbatim"],
    &["DEBUG", "PROTOCOL", "true"],
    &["DEBUG", "PROTOCOL", "bignum"],
    &["EVAL", "return string.rep('y', 3000000)", "0"],
];

/// Shapes that only RESP3 has.
const SHAPES_3: &[&[&str]] = &[
    &["DEBUG", "PROTOCOL", "attrib"],
    &["DEBUG", "PROTOCOL", "push"],
    &["CLIENT", "TRACKING", "ON"],
    &["GET", "tracked"],
    &["SET", "tracked", "1"],
];

/// Sends every shape with an `ECHO` behind it and checks that each reply is found where it is.
fn assert_replies(version: &str, shapes: &[&[&str]], pushes: bool, seed: u64) {
    let server = Server::start(&[]);
    let mut sent = encode(&["HELLO", version]);
    for (number, words) in shapes.iter().enumerate() {
        sent.extend(encode(words));
        // Inside MULTI the tag would be queued as well.
        if words[0] != "MULTI" && !(number > 0 && shapes[number - 1][0] == "MULTI") {
            sent.extend(encode(&["ECHO", &format!("tag-{number}")]));
        }
    }
    sent.extend(encode(&["QUIT"]));
    let answer = server.answer_until_quit(&sent);
    let (mut scanner, mut rng) = (ReplyScanner::new(), Rng::new(seed));
    let (mut at, mut arrived, mut heads) = (0, 0, Vec::new());
    let mut pushed = 0;
    while at < answer.len() {
        if at == arrived {
            let most = if rng.roll(2) == 0 { 20 } else { 40_000 };
            arrived = (arrived + 1 + rng.roll(most)).min(answer.len());
        }
        match scanner.scan(&answer[at..arrived]) {
            Ok(Some(extent)) => {
                at += extent.end;
                match extent.kind {
                    ReplyKind::Push => pushed += 1,
                    _ => heads.push(scanner.head().to_vec()),
                }
            }
            Ok(None) => at = arrived,
            Err(error) => panic!("{error} at {at}: {}", answer[at..].escape_ascii()),
        }
    }
    assert!(scanner.is_between());
    assert_eq!(pushed > 0, pushes, "{pushed} pushes");
    let mut heads = heads.into_iter().skip(1);
    for (number, words) in shapes.iter().enumerate() {
        assert!(heads.next().is_some(), "no reply to {words:?}");
        if words[0] != "MULTI" && !(number > 0 && shapes[number - 1][0] == "MULTI") {
            let tag = format!("tag-{number}");
            let expected = format!("${}\r\n{tag}\r\n", tag.len());
            assert_eq!(heads.next().as_deref(), Some(expected.as_bytes()), "behind {words:?}");
        }
    }
    assert_eq!(heads.next().as_deref(), Some(b"+OK\r\n".as_slice()), "the reply to QUIT");
    assert_eq!(heads.next(), None);
}

#[test]
fn every_reply_of_redis_is_found_in_resp2() {
    assert_replies("2", SHAPES, false, 1);
}

#[test]
fn every_reply_of_redis_is_found_in_resp3() {
    assert_replies("3", &[SHAPES, SHAPES_3].concat(), true, 2);
}
