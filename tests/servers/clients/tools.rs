//! Redis' own tools: `redis-cli` in all its modes, and `redis-benchmark`.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::process::{Command, Output, Stdio};
use std::thread;

use crate::support::{Conn, Setup, Topology};

/// What a tool says with this input, which comes line by line. It has a minute, beside other tests.
fn run(program: &str, args: &[&str], input: &[&[u8]]) -> Output {
    let mut child = Command::new("timeout")
        .args(["--kill-after=1", "60", program])
        .args(args)
        .env("TERM", "dumb") // else line editing asks the terminal where its cursor is
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let input: Vec<Vec<u8>> = input.iter().map(|part| part.to_vec()).collect();
    let writer = thread::spawn(move || {
        for part in input {
            let _ = stdin.write_all(&part);
        }
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

/// What a tool says at a terminal, where each part of the input is typed once what was said ends so. A terminal takes what
/// is typed earlier for itself.
fn run_at_terminal(command: &str, typed: &[(&str, &[u8])]) -> Output {
    let mut child = Command::new("timeout")
        .args(["--kill-after=1", "30", "script", "-qec", command, "/dev/null"])
        .env("TERM", "dumb")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("script: {error}"));
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let (mut said, mut chunk, mut typed) = (Vec::new(), [0; 4096], typed.iter().peekable());
    loop {
        while let Some((_, part)) =
            typed.next_if(|(end, _)| String::from_utf8_lossy(&said).trim_end().ends_with(end))
        {
            // It may be gone: then what it said tells why.
            let _ = stdin.write_all(part);
            said.push(0);
        }
        match stdout.read(&mut chunk) {
            Ok(count @ 1..) => said.extend_from_slice(&chunk[..count]),
            _ => break,
        }
    }
    said.retain(|byte| *byte != 0);
    let output = child.wait_with_output().unwrap();
    Output { stdout: said, ..output }
}

/// Both streams and the exit code as text, without the port and without what a progress bar wrote over itself.
fn told(output: &Output, port: u16) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(&port.to_string(), "PORT");
    format!("{}{}exit code {:?}", text(&output.stdout), text(&output.stderr), output.status.code())
}

fn cli(port: u16, args: &[&str], input: &[&[u8]]) -> String {
    let output = run("redis-cli", &[&["-p", &port.to_string()], args].concat(), input);
    told(&output, port)
}

/// A primary and two replicas with the same data, directly and behind the proxy.
fn filled() -> (Topology, Topology) {
    let both = (Topology::start(2), Topology::start(2));
    let mut data = String::new();
    for n in 0..300 {
        let _ = writeln!(
            data,
            "SET string:{n} {n}\r\nRPUSH list {n}\r\nHSET hash f{n} {n}\r\nZADD zset {n} {n}\r"
        );
    }
    for topology in [&both.0, &both.1] {
        let mut conn = topology.primary.connect();
        conn.send(data.as_bytes()).read_many(1200);
        topology.await_sync();
    }
    both
}

#[test]
fn redis_cli() {
    let (direct, behind) = filled();
    let proxy = Setup::of(&behind).start();
    let runs: &[(&[&str], &[&[u8]])] = &[
        (&["get", "string:1"], &[]),
        (&["--no-raw", "get", "string:1"], &[]),
        (&["--csv", "lrange", "list", "0", "3"], &[]),
        (&["-3", "--json", "hmget", "hash", "f1", "none"], &[]),
        (&["-3", "hrandfield", "one", "1"], &[]),
        (&["-n", "3", "set", "k", "v"], &[]),
        (&["-x", "set", "stdin"], &[b"a value\0\xff"]),
        (&["get", "stdin"], &[]),
        (&["-e", "nosuch"], &[]),
        (&["incr", "list"], &[]),
        (&["-r", "5", "-i", "0.1", "incr", "n"], &[]),
        (&["--user", "nobody", "--pass", "x", "--no-auth-warning", "ping"], &[]),
        (&[], &[b"set a 1\nget a\nselect 2\nget a\nincr a\n"]),
        (&["--pipe"], &[b"SET a 1\r\nGET a\r\nNOSUCH\r\n*2\r\n$3\r\nGET\r\n$1\r\na\r\n"]),
        (&["eval", "return {KEYS[1], ARGV[1]}", "1", "k", ",", "v"], &[]),
        (&["--replica"], &[]),
    ];
    for (args, input) in runs {
        let (redis, redweir) = (cli(direct.primary.port, args, input), cli(proxy.port, args, input));
        if *args == ["--replica"] {
            // Redis would send its stream, for ever.
            let refusal = "SYNC with master failed: -NOPERM redweir: [security] deny-commands denies the 'sync' command to everybody";
            assert!(redweir.contains(refusal) && redweir.ends_with("exit code Some(1)"), "{redweir}");
        } else {
            assert_eq!(redis, redweir, "redis-cli {args:?}");
        }
    }
    let dump = cli(proxy.port, &["--rdb", "/dev/null"], &[]);
    assert!(dump.contains("deny-commands denies the 'sync' command") && dump.ends_with("Some(1)"), "{dump}");
}

#[test]
fn redis_cli_looks_around() {
    let (direct, behind) = filled();
    let proxy = Setup::of(&behind).start();
    let both = |args: &[&str]| (cli(direct.primary.port, args, &[]), cli(proxy.port, args, &[]));
    let lines = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    for args in [
        &["--scan"][..],
        &["--scan", "--pattern", "string:1*", "--count", "7"],
        &["--scan", "--quoted-pattern", "l*"],
    ] {
        let (redis, redweir) = both(args);
        assert_eq!(lines(&redis), lines(&redweir), "{args:?}");
    }
    for args in [["--bigkeys"], ["--memkeys"]] {
        // How the search went depends on the order of a hash table, what came of it doesn't; a sorted set's memory is
        // a matter of chance.
        let summary = |text: &str| {
            let (_, summary) =
                text.split_once("-------- summary").unwrap_or_else(|| panic!("{args:?}: {text}"));
            let sure = |line: &&str| !line.starts_with("Biggest string") && !line.contains("zset");
            lines(&summary.lines().filter(sure).collect::<Vec<_>>().join("\n"))
        };
        let (redis, redweir) = both(&args);
        assert_eq!(summary(&redis), summary(&redweir), "{args:?}");
    }
    let latency = cli(proxy.port, &["--latency", "-i", "1"], &[]);
    let figures: Vec<f64> = latency.lines().next().unwrap().split(' ').map(|n| n.parse().unwrap()).collect();
    assert!(figures[3] >= 10.0, "samples: {latency}");
    // Its lines come at once only at a terminal.
    let watch = format!("timeout 3 redis-cli -p {} --stat -i 0.2", proxy.port);
    let stat = run("script", &["-qc", &watch, "/dev/null"], &[]);
    assert!(String::from_utf8_lossy(&stat.stdout).contains("keys"), "{stat:?}");
}

#[test]
fn redis_cli_at_a_terminal() {
    let (direct, behind) = filled();
    let proxy = Setup::of(&behind).start();
    let typed: &[(&str, &[u8])] = &[
        (">", b"set i 1\nget i\nhgetall none\nnosuch x\nhelp get\nselect 3\nset i 2\n"),
        ("[3]>", b"multi\nincr i\nget i\nexec\nmulti\nset i\ndiscard\nwatch i\n"),
        ("[3]>", b"client setname me\nclient getname\nhello 3\nhmget hash f1 f2\n3 incr n\n"),
        ("[3]>", b"subscribe c\n"),
        ("3) (integer) 1", b"\x03"),
        ("[3]>", b"get i\nblpop none 0.05\nquit\n"),
    ];
    let session = |port: u16| {
        let command = format!("stty -echo; redis-cli -p {port}");
        let text = told(&run_at_terminal(&command, typed), port);
        // An answer that took half a second is told of with the time.
        let is_time = |line: &str| line.starts_with('(') && line.trim_end().ends_with("s)");
        let same = |line: &&str| !line.contains("\"id\" => ") && !is_time(line);
        text.lines().filter(same).collect::<Vec<_>>().join("\n")
    };
    let (redis, redweir) = (session(direct.primary.port), session(proxy.port));
    assert!(redis.contains("(TX)> QUEUED") && redis.contains("Reading messages"), "{redis}");
    assert_eq!(redis, redweir);
}

#[test]
fn redis_cli_inserts_a_mass_of_commands() {
    let topology = Topology::start(2);
    let proxy = Setup::of(&topology).start();
    let mut input = Vec::new();
    for n in 0..5_000 {
        let (key, value) = (format!("key:{n}"), format!("value {n}\r\n"));
        write!(input, "*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n{value}\r\n", key.len(), value.len())
            .unwrap();
        write!(input, "INCR counter\r\n").unwrap();
    }
    let said = cli(proxy.port, &["--pipe"], &[&input]);
    assert!(said.contains("errors: 0, replies: 10000"), "{said}");
    let mut conn = Conn::open(proxy.port);
    assert_eq!(conn.cmd(&["GET", "counter"]), "5000");
    assert_eq!(conn.cmd(&["DBSIZE"]), 5001);
    assert_eq!(conn.cmd(&["GET", "key:4999"]), "value 4999\r\n");
}

#[test]
fn redis_benchmark() {
    let topology = Topology::start(2);
    let proxy = Setup::of(&topology).start();
    let port = proxy.port.to_string();
    let all = ["-p", &port, "-q", "-n", "4000", "-P", "16"];
    let some = ["-3", "-t", "ping,set,get,incr,lpush,hset,zadd,mset"];
    for (more, tests) in [(&[][..], 20), (&some[..], 9)] {
        let output = run("redis-benchmark", &[&all[..], more].concat(), &[]);
        let said = told(&output, proxy.port);
        assert!(output.status.success(), "{said}");
        let done = said.matches(" requests per second, p50=").count();
        assert_eq!(done, tests, "{said}");
        assert!(!said.contains("rror"), "{said}");
    }
    let served = proxy.metric("redweir_commands_total", &[("access", "read"), ("target", "replica")]);
    assert!(served > 0.0, "no read was served by a replica");
}
