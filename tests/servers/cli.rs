//! The command as it is called: exit codes, and what it prints where.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn redweir(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_redweir"));
    command.args(args).env_remove("REDWEIR_LOG").output().unwrap()
}

fn file(name: &str) -> String {
    format!("{}/config/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn out(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn err(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// Serves one request with `answer` and returns what was asked for.
fn admin(answer: &'static str) -> (String, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut request, mut buffer) = (Vec::new(), [0; 1024]);
        while !request.ends_with(b"\r\n\r\n") {
            let read = stream.read(&mut buffer).unwrap();
            assert_ne!(read, 0);
            request.extend_from_slice(&buffer[..read]);
        }
        stream.write_all(answer.as_bytes()).unwrap();
        String::from_utf8(request).unwrap().lines().next().unwrap().to_owned()
    });
    (address, server)
}

#[test]
fn wrong_usage_exits_with_64() {
    let cases: &[(&[&str], &str)] = &[
        (&[], "Usage: redweir <COMMAND>"),
        (&["frobnicate"], "unrecognized subcommand 'frobnicate'"),
        (&["run"], "redweir config > redweir.toml"),
        (&["run", "--listen", "a:1", "--primary", "b:1", "--policy", "stronk"], "'strong'"),
        (&["run", "--listen", "a:1", "--primary", "b:1", "--username", "u"], "--password-file <FILE>"),
        (&["run", "--listen", "127.0.0.1:1"], "--primary <ADDRESS>"),
        (&["run", "--primary", "127.0.0.1:1"], "--listen <ADDRESS>"),
        (&["run", "--listen", "a", "--primary", "b:1"], "there is no port"),
        (&["run", "-c", "x", "--primary", "b:1"], "cannot be used with"),
        (&["run", "-c", "x", "--workers", "1025"], "--workers"),
        (&["run", "--listen", "a:1", "--primary", "a:1"], "--primary: a:1 is already given with --listen"),
        (
            &["run", "--listen", "a:1", "--primary", "b:1", "--admin", "unix:/x"],
            "--admin: expected host:port",
        ),
        (
            &["run", "-c", "/nonexistent/redweir.toml"],
            "/nonexistent/redweir.toml: cannot read the configuration",
        ),
        (&["check"], "--config <FILE>"),
        (&["check", "-c", "/nonexistent/redweir.toml"], "No such file"),
        (&["explain", "--admin", "127.0.0.1:1"], "<COMMAND>..."),
        (&["explain", "--admin", "unix:/x", "--", "get", "k"], "no Unix socket"),
        (&["explain", "--admin", "https://a:1/", "--", "get", "k"], "speaks plain HTTP"),
        (&["status", "--admin", "redis://a:1"], "without a scheme"),
        (&["man", "nothing"], "`nothing` is no command"),
        (&["completions"], "<SHELL>"),
        (&["demo", "--seconds", "0"], "--seconds"),
        (&["demo", "--seconds", "soon"], "--seconds"),
        (&["demo", "--cluster", "--failover"], "cannot be used with"),
    ];
    for (args, says) in cases {
        let output = redweir(args);
        assert_eq!(output.status.code(), Some(64), "{args:?}: {}", err(&output));
        assert!(err(&output).contains(says), "{args:?}: {}", err(&output));
        assert_eq!(out(&output), "", "{args:?}");
    }
}

/// All figures are those of real servers: that they are there, and what must be so with any servers.
#[test]
fn the_demo_shows_where_reads_go() {
    let output = redweir(&["demo", "--seconds", "6"]);
    let said = out(&output);
    assert_eq!((output.status.code(), err(&output)), (Some(0), ""), "{said}");
    assert!(said.contains("dashboard http://127.0.0.1:") && said.contains("is left out"), "{said}");
    let last = said.lines().last().unwrap();
    assert!(last.contains(" 0 of them stale.") && last.ends_with("cost the primary: 0."), "{said}");
}

#[test]
fn the_demo_tells_what_a_failover_costs() {
    let output = redweir(&["demo", "--failover", "--seconds", "6"]);
    let said = out(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(err(&output).contains(" is down (connection refused): writes wait 2 s"), "{}", err(&output));
    let after = |words: &str| {
        let rest = said.split_once(words).unwrap_or_else(|| panic!("{words}: {said}")).1;
        rest.split([' ', '.', ',']).next().unwrap()
    };
    let number = |words: &str| after(words).parse::<u64>().unwrap_or_else(|_| panic!("{words}: {said}"));
    // From the kill to the promotion at least, and not until `write-hold`.
    assert!(["1", "2"].contains(&after("Writes were held for ")), "{said}");
    assert_eq!(number("Commands refused: "), 0, "{said}");
    // The replica that was promoted lacked 400 ms of some 600 writes a second; of fewer on a busy machine.
    let (lost, named) = (number("By the clients' own count "), number("this report names "));
    assert!(lost > 5, "{said}");
    // What came after the last that the other replica had got is in no stream.
    assert!(named <= lost && lost - named <= 4, "{said}");
    assert!(said.contains(" redweir losses\n") && said.contains("\n  key:"), "{said}");
    assert!(said.lines().last().unwrap().ends_with(" 0 of them stale."), "{said}");
}

/// Whether clients that read straight at replicas met a false nil is up to chance.
#[test]
fn the_demo_of_a_cluster_reads_what_is_there() {
    let output = redweir(&["demo", "--cluster", "--seconds", "6"]);
    let said = out(&output);
    assert_eq!(output.status.code(), Some(0), "{said}{}", err(&output));
    let number = |before: &str, after: &str| {
        let found = said.lines().find_map(|line| line.strip_prefix(before)?.split_once(after));
        let number = found.unwrap_or_else(|| panic!("{before}…{after}: {said}")).0;
        number.trim().parse::<u64>().unwrap_or_else(|_| panic!("{before}…{after}: {said}"))
    };
    assert!(said.contains("200 slots moved within ") && said.contains(" key by key (400 keys)."), "{said}");
    assert!(number("", " times through Redweir: 0 false nils") > 100, "{said}");
    assert!(number("", " times straight at replicas, ") > 100, "{said}");
    assert!(said.contains("\nprimary-2 was killed, and replaced after "), "{said}");
    assert!(
        said.contains(" Writes to its shard were held for up to ") && said.contains("Commands refused: 0."),
        "{said}"
    );
    let last = said.lines().last().unwrap();
    assert!(last.ends_with(" % of them answered by replicas: 0 false nils, 0 stale."), "{said}");
}

#[test]
fn a_password_in_an_address_is_not_repeated() {
    let url = "redis://bob:hunter2@db.example:6379/0";
    for flag in ["--primary", "--replica", "--admin"] {
        let args = ["run", "--listen", "127.0.0.1:1", "--primary", "127.0.0.1:2", flag, url];
        let args = if flag == "--primary" { &[&args[..3], &args[5..]].concat()[..] } else { &args[..] };
        let output = redweir(args);
        assert_eq!(output.status.code(), Some(64));
        assert!(err(&output).contains("…@db.example:6379/0"), "{}", err(&output));
        assert!(!err(&output).contains("hunter2"), "{}", err(&output));
    }
}

#[test]
fn help_and_version_exit_with_0() {
    for args in [&["--help"][..], &["-h"], &["help"], &["run", "--help"], &["explain", "--help"]] {
        let output = redweir(args);
        assert_eq!((output.status.code(), err(&output)), (Some(0), ""), "{args:?}");
        assert!(out(&output).contains("Usage: redweir"), "{args:?}");
    }
    let version = redweir(&["--version"]);
    assert_eq!(out(&version), concat!("redweir ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn check_warns_of_what_is_hardly_meant() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("redweir.toml");
    let text = "[[listen]]\naddress = \"127.0.0.1:6380\"\n[upstream]\nprimary = \"127.0.0.1:6379\"\n\
                replicas = [\"localhost:6379\", \"localhost:6380\"]\n[policy.idle]\n\
                [[route]]\ncommands = [\"set\"]\npolicy = \"strong\"\n";
    std::fs::write(&path, text).unwrap();
    let output = redweir(&["check", "-c", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0));
    let expected = "warning: route 1: `set` writes: a policy is for what a replica may answer\n\
                    warning: policy `idle` is named by no [[listen]] and no [[route]]\n\
                    warning: replica localhost:6379 is the primary 127.0.0.1:6379 under another name\n\
                    warning: [[listen]] 127.0.0.1:6380 is replica localhost:6380 under another name\n";
    assert_eq!(err(&output), expected);
}

#[test]
fn shells_and_man_are_told_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let output = redweir(&["completions", shell]);
        assert_eq!((output.status.code(), err(&output)), (Some(0), ""), "{shell}");
        for word in ["explain", "password-file", "eventual"] {
            assert!(out(&output).contains(word), "{shell}: {word}");
        }
    }
    let page = redweir(&["man"]);
    assert_eq!((page.status.code(), err(&page)), (Some(0), ""));
    for words in [".TH redweir 1", "explain", "Exit codes"] {
        assert!(out(&page).contains(words), "{words}");
    }
    let page = redweir(&["man", "run"]);
    assert!(
        out(&page).contains(".TH redweir-run 1") && out(&page).contains("password\\-file"),
        "{}",
        out(&page)
    );
}

#[test]
fn config_prints_the_reference() {
    let output = redweir(&["config"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(out(&output), std::fs::read_to_string(file("redweir.toml")).unwrap());
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_redweir"));
    let mut child = command.arg("config").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), err(&output)), (Some(0), ""));
}

#[test]
fn check_says_what_a_file_comes_to() {
    let path = file("redweir.toml");
    let output = redweir(&["check", "-c", &path]);
    assert_eq!((output.status.code(), err(&output)), (Some(0), ""));
    let expected = format!(
        "{path}: ok
  listen    127.0.0.1:6380 (policy default: fenced, max-lag 1s)
  admin     127.0.0.1:9380
  primary   127.0.0.1:6379
  replica   127.0.0.1:6381
  replica   127.0.0.1:6382
  stream    auto
"
    );
    assert_eq!(out(&output), expected);
    let sidecar = redweir(&["check", "--config", &file("sidecar.toml")]);
    assert!(out(&sidecar).contains("route     keys catalog:* (policy relaxed: bounded, max-lag 5s)"));
}

#[test]
fn check_says_what_is_wrong_with_a_file() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("redweir.toml");
    let text = std::fs::read_to_string(file("redweir.toml")).unwrap();
    std::fs::write(&path, text.replace("\nmax-lag = \"1s\"", "\nmax-lga = \"1s\"")).unwrap();
    let line = text.lines().position(|line| line == "max-lag = \"1s\"").unwrap() + 1;
    let path = path.to_str().unwrap();
    let gutter = " ".repeat(line.to_string().len());
    let expected = format!(
        "{path}:{line}:1: policy.default.max-lga: unknown key `max-lga`
{gutter} |
{line} | max-lga = \"1s\"
{gutter} | ^^^^^^^
{gutter} = help: did you mean `max-lag`?
"
    );
    for command in ["check", "run"] {
        let output = redweir(&[command, "-c", path]);
        assert_eq!(output.status.code(), Some(64));
        assert_eq!((out(&output), err(&output)), ("", expected.as_str()));
    }
}

#[test]
fn a_port_in_use_exits_with_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = redweir(&["run", "--listen", &address, "--primary", "127.0.0.1:1", "--workers", "1"]);
    assert_eq!(output.status.code(), Some(1), "{}", err(&output));
    let says = format!("redweir: cannot listen on {address}: Address already in use");
    assert!(err(&output).contains(&says), "{}", err(&output));
}

/// A running proxy, whose primary is not there. It ends with the test.
struct Proxy(Child);

impl Proxy {
    fn start(listen: &str, admin: &str, stderr: Stdio) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_redweir"));
        command.args(["run", "--listen", listen, "--primary", &free(), "--admin", admin, "--workers", "1"]);
        Self(command.env("REDWEIR_LOG", "trace").stderr(stderr).spawn().unwrap())
    }

    /// Sends SIGTERM; returns the exit code.
    fn terminate(&mut self) -> Option<i32> {
        kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGTERM).unwrap();
        let ended = (0..300).find_map(|_| {
            thread::sleep(Duration::from_millis(50));
            self.0.try_wait().unwrap()
        });
        ended.expect("SIGTERM ends it").code()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An address that nobody listens on. Not one that the system gives: it may give it to the next who asks, too.
fn free() -> String {
    format!("127.0.0.1:{}", crate::support::free_port())
}

#[test]
fn a_full_pipe_behind_stderr_stalls_nothing() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    // As much as a pipe holds on Linux: whatever is written to it after this blocks.
    writer.write_all(&vec![b'.'; 65_536]).unwrap();
    let (listen, admin) = (free(), free());
    let mut proxy = Proxy::start(&listen, &admin, writer.into());
    let mut asked = 0;
    for _ in 0..200 {
        // The primary is not there, which the prober logs; each lost client and the end of each lane are logged, too.
        for (address, ask, expected) in [
            (&listen, "GET k\r\nQUIT\r\n", "-MASTERDOWN"),
            (&admin, "GET /livez HTTP/1.0\r\n\r\n", "HTTP/1.0 200"),
        ] {
            let Ok(mut stream) = TcpStream::connect(address) else { continue };
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            stream.write_all(ask.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with(expected), "{answer:?}");
            asked += 1;
        }
        if asked >= 10 {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    assert!(asked >= 10, "only {asked} were answered");
    assert_eq!(proxy.terminate(), Some(0));
    drop(reader);
}

#[test]
fn explain_understands_the_proxy() {
    let (listen, admin) = (free(), free());
    let mut proxy = Proxy::start(&listen, &admin, Stdio::null());
    let ask = |format: &str, command: &[&str]| {
        redweir(&[&["explain", "--admin", &admin, "--format", format, "--"], command].concat())
    };
    let answers = (0..200).any(|_| {
        thread::sleep(Duration::from_millis(50));
        TcpStream::connect(&admin).is_ok()
    });
    assert!(answers);
    let read = ask("text", &["GET", "a b+c"]);
    assert_eq!((read.status.code(), err(&read)), (Some(0), ""));
    assert!(out(&read).starts_with("command   get (read)\npolicy    default (fenced)\n"), "{}", out(&read));
    assert!(out(&read).contains("node "), "{}", out(&read));
    let write = ask("json", &["SET", "k", "v"]);
    assert!(out(&write).contains("\"access\": \"write\""), "{}", out(&write));
    assert_eq!(proxy.terminate(), Some(0));
}

#[test]
fn a_log_filter_that_is_none_is_refused() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_redweir"));
    command.args(["run", "--listen", "127.0.0.1:1", "--primary", "127.0.0.1:2"]);
    let output = command.env("REDWEIR_LOG", "redweir=loud").output().unwrap();
    assert_eq!(output.status.code(), Some(64), "{}", err(&output));
    assert!(err(&output).starts_with("redweir: REDWEIR_LOG: "), "{}", err(&output));
}

#[test]
fn explain_asks_the_admin_server() {
    let answer = "HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n\
                  {\"command\": \"get\", \"access\": \"read\", \"policy\": \"default\", \"consistency\": \"fenced\", \
                  \"decision\": \"send\", \"target\": \"b:2\", \"reason\": \"fresh\", \"why\": \"it is fresh\", \
                  \"fence\": null, \"candidates\": []}\n";
    let (address, server) = admin(answer);
    let output = redweir(&["explain", "--admin", &address, "--", "GET", "a key+\u{e9}"]);
    assert_eq!(server.join().unwrap(), "GET /explain?cmd=GET+a%20key%2B%C3%A9 HTTP/1.0");
    assert_eq!((output.status.code(), err(&output)), (Some(0), ""));
    assert!(
        out(&output).contains("decision  send to b:2\nbecause   it is fresh (fresh)\n"),
        "{}",
        out(&output)
    );

    let (address, server) = admin(answer);
    // As a browser shows it.
    let address = format!("http://{address}/explain?cmd=GET+k");
    let output = redweir(&["explain", "--admin", &address, "--format", "json", "--", "GET", "k"]);
    server.join().unwrap();
    assert_eq!(out(&output), answer.split_once("\r\n\r\n").unwrap().1);
}

#[test]
fn explain_says_why_it_cannot() {
    for (answer, says) in [
        ("HTTP/1.0 400 Bad Request\r\n\r\nthe command is empty\n", "it answered 400: the command is empty"),
        ("HTTP/1.0 200 OK\r\n\r\n{\"something\": 1}", "answered, but not as Redweir does"),
        ("-ERR unknown command\r\n", "the answer is not HTTP"),
        ("", "the answer is not HTTP"),
    ] {
        let (address, server) = admin(answer);
        let output = redweir(&["explain", "--admin", &address, "--", "get", "k"]);
        server.join().unwrap();
        assert_eq!((output.status.code(), out(&output)), (Some(1), ""));
        assert!(err(&output).starts_with("redweir: ") && err(&output).contains(says), "{}", err(&output));
    }
    let output = redweir(&["explain", "--admin", "127.0.0.1:1", "--", "get", "k"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        err(&output).contains("cannot ask the admin server at 127.0.0.1:1: Connection refused"),
        "{}",
        err(&output)
    );
}
