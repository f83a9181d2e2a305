//! The end of the process: nobody who was asked is left without an answer, nobody who comes in the last moment is refused,
//! and whoever was cut off is named.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]

use std::os::unix::net::UnixDatagram;
use std::thread;
use std::time::Instant;

use crate::support::{Redis, Setup, Value, eventually, ms, secs};
use nix::sys::signal::Signal;

#[test]
fn newcomers_are_served_for_a_while_after_sigterm() {
    let primary = Redis::start(&[]);
    let mut proxy = Setup::to(primary.port, &[]).proxy("[proxy]\nlame-duck = \"1s\"").start();
    let mut idle = proxy.connect();
    assert_eq!(idle.cmd(&["SET", "k", "v"]), "OK");
    let begun = Instant::now();
    proxy.signal(Signal::SIGTERM);
    eventually("it says that it ends", ms(500), || {
        let (status, body) = proxy.get("/readyz");
        status == 503 && body.starts_with("draining\n")
    });
    while begun.elapsed() < ms(800) {
        assert_eq!(proxy.connect().cmd(&["GET", "k"]), "v");
        assert_eq!(idle.cmd(&["GET", "k"]), "v");
    }
    assert_eq!(proxy.wait(), Some(0));
    assert!(begun.elapsed() >= ms(1000) && begun.elapsed() < secs(3), "{:?}", begun.elapsed());
    assert!(idle.read_to_close().is_empty());
    assert!(proxy.log().contains("drained, 0 cut off"), "{}", proxy.log());
}

#[test]
fn what_was_asked_is_answered_and_who_does_not_leave_is_named() {
    let primary = Redis::start(&[]);
    let mut proxy =
        Setup::to(primary.port, &[]).proxy("[proxy]\nlame-duck = \"0s\"\ndrain-timeout = \"2s\"").start();
    let (mut asking, mut blocked) = (proxy.connect(), proxy.connect());
    blocked.ask(&["BLPOP", "none", "0"]);
    eventually("it blocks", secs(5), || primary.info("clients")["blocked_clients"] == "1");
    let many: Vec<u8> = b"*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n".repeat(5000);
    asking.send(&many);
    let at = blocked.stream().local_addr().unwrap().to_string();
    let begun = Instant::now();
    proxy.signal(Signal::SIGTERM);
    let answers = thread::spawn(move || (asking.read_many(5000), asking.read_to_close()));
    assert_eq!(proxy.wait(), Some(0));
    assert!(begun.elapsed() >= ms(1900) && begun.elapsed() < secs(5), "{:?}", begun.elapsed());
    let (answers, closed) = answers.join().unwrap();
    assert!(closed.is_empty() && *answers.last().unwrap() == 5000, "{:?}", answers.last());
    let log = proxy.log();
    let last = log.lines().rfind(|line| line.contains("drained")).unwrap_or_else(|| panic!("{log}"));
    assert!(last.contains("drained, 1 cut off") && last.contains(&at), "{last}");
}

#[test]
fn who_wants_to_know_is_told_to_connect_anew() {
    let primary = Redis::start(&[]);
    let config = "[proxy]\nworkers = 2\nlame-duck = \"4s\"\nmaint-notifications = \"yes\"";
    let mut proxy = Setup::to(primary.port, &[]).proxy(config).start();
    let on = ["CLIENT", "MAINT_NOTIFICATIONS", "ON"];
    let typed = ["CLIENT", "MAINT_NOTIFICATIONS", "ON", "moving-endpoint-type", "internal-ip"];
    let mut old = proxy.connect();
    assert!(old.cmd(&on).error().contains("needs RESP3"));
    let greeted = || {
        let mut conn = proxy.connect();
        assert_eq!(conn.cmd(&["HELLO", "3"]).field("proto"), &3);
        conn
    };
    let (mut told, mut busy) = (greeted(), greeted());
    let (mut off, mut reset, mut holds, mut lowered) = (greeted(), greeted(), greeted(), greeted());
    for conn in [&mut told, &mut busy, &mut off, &mut reset, &mut holds, &mut lowered] {
        assert_eq!(conn.cmd(&typed), "OK");
    }
    assert_eq!(off.cmd(&["CLIENT", "MAINT_NOTIFICATIONS", "OFF"]), "OK");
    assert!(off.cmd(&["CLIENT", "MAINT_NOTIFICATIONS", "PERHAPS"]).is_error());
    assert_eq!(reset.cmd(&["RESET"]), "RESET");
    assert_eq!(reset.cmd(&["HELLO", "3"]).field("proto"), &3);
    assert_eq!(holds.cmd(&["MULTI"]), "OK");
    assert!(!lowered.cmd(&["HELLO", "2"]).is_error());
    // Between the replies to what it has asked, and nowhere within one.
    let value = "x".repeat(1 << 20);
    assert_eq!(busy.cmd(&["SET", "big", &value]), "OK");
    (0..50).for_each(|_| {
        busy.ask(&["GET", "big"]);
    });
    proxy.signal(Signal::SIGTERM);
    let Value::Push(push) = told.read() else { panic!("no push") };
    let shown: Vec<String> = push.iter().map(|item| format!("{item:?}")).collect();
    assert_eq!(shown, ["\"MOVING\"", ":1", ":4", "null"]);
    assert_eq!(told.cmd(&["GET", "none"]), Value::Null);
    for (conn, who) in
        [(&mut old, "RESP2"), (&mut off, "OFF"), (&mut reset, "RESET"), (&mut lowered, "HELLO 2")]
    {
        assert_eq!(conn.cmd(&["PING"]), "PONG", "{who}");
    }
    assert_eq!(holds.cmd(&["EXEC"]).items().len(), 0);
    let mut pushes = 0;
    for _ in 0..51 {
        match busy.read() {
            Value::Push(_) => pushes += 1,
            reply => assert_eq!(reply.text().len(), 1 << 20),
        }
    }
    assert_eq!(pushes, 1);
    assert_eq!(proxy.wait(), Some(0));
    assert!(proxy.log().contains("2 clients were told to connect anew"), "{}", proxy.log());
}

#[test]
fn a_second_signal_is_the_end() {
    let primary = Redis::start(&[]);
    for (first, second, code) in [
        (Signal::SIGTERM, Signal::SIGTERM, 143),
        (Signal::SIGINT, Signal::SIGTERM, 143),
        (Signal::SIGTERM, Signal::SIGINT, 130),
    ] {
        let mut proxy = Setup::to(primary.port, &[]).start();
        let mut blocked = proxy.connect();
        blocked.ask(&["BLPOP", "none", "0"]);
        eventually("it blocks", secs(5), || primary.info("clients")["blocked_clients"] == "1");
        proxy.signal(first);
        eventually("it drains", secs(5), || proxy.get("/readyz").1.starts_with("draining"));
        let begun = Instant::now();
        proxy.signal(second);
        assert_eq!(proxy.wait(), Some(code));
        assert!(begun.elapsed() < secs(1), "{:?}", begun.elapsed());
    }
}

#[test]
fn systemd_is_told() {
    let primary = Redis::start(&[]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(secs(5))).unwrap();
    let mut proxy = Setup::to(primary.port, &[]).env("NOTIFY_SOCKET", path.to_str().unwrap()).start();
    let heard = || {
        let mut bytes = [0; 256];
        let count = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..count]).trim().to_owned()
    };
    assert_eq!(heard(), "READY=1");
    proxy.signal(Signal::SIGTERM);
    assert_eq!(heard(), "STOPPING=1");
    assert_eq!(proxy.wait(), Some(0));
}
