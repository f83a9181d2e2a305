//! Another configuration while everybody is served: what is right is in force at once, what is wrong changes nothing, and nobody
//! notices but by what was changed.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::checker::Level;
use crate::support::load::Plan;
use crate::support::{
    Conn, Proxy, Redis, Setup, Topology, Value, eventually, free_port, http_get, ms, secs, sleep_ms,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What a change may take that nobody has announced.
const SOON: Duration = Duration::from_secs(3);

/// Asks for the files to be read again, and waits until that is done: with this result.
fn reload(proxy: &Proxy, result: &str) {
    let before = proxy.reloads(result);
    proxy.hang_up();
    eventually(&format!("the configuration was read again: {result}"), secs(5), || {
        proxy.reloads(result) > before
    });
}

/// How long each reload took, by the log.
fn times(proxy: &Proxy) -> Vec<Duration> {
    let log = proxy.log();
    let of = |line: &str| {
        let (_, rest) = line.split_once("the configuration was read again")?.1.split_once("took=")?;
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let value: f64 = rest[..end].parse().ok()?;
        let scale = match rest[end..].split_whitespace().next()? {
            "s" => 1.0,
            "ms" => 1e-3,
            "µs" => 1e-6,
            unit => panic!("{line}: {unit}"),
        };
        Some(Duration::from_secs_f64(value * scale))
    };
    log.lines().filter_map(of).collect()
}

/// Memory in use, in KiB.
fn resident(proxy: &Proxy) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", proxy.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_thousand_reloads_disturb_nobody() {
    let topology = Topology::start(2);
    let ports = topology.replica_ports();
    let base = Setup::of(&topology);
    let proxy = base.clone().start();
    let load = Plan { write_every: ms(4), read_every: ms(3), ..Plan::on(proxy.port) }.start();
    let variant = |n: usize| {
        let level = ["fenced", "strong", "session"][n % 3];
        let setup =
            base.clone().policy("default", &format!("consistency = {level:?}\nmax-lag = \"{}s\"", 5 + n % 4));
        let setup = match n % 4 {
            0 => setup.policy("extra", "consistency = \"bounded\""),
            1 => setup.toml("[[route]]\nkeys = [\"other:*\"]\npolicy = \"default\""),
            2 => setup.upstream("info-interval = \"500ms\"").toml("[security]\ndeny-commands = [\"debug\"]"),
            _ => setup.toml("[log]\nlevel = \"info\""),
        };
        // One of the replicas comes and goes.
        setup.replicas(if n % 10 < 5 { &ports } else { &ports[..1] })
    };
    let mut early = 0;
    for n in 0..1000 {
        if n % 7 == 3 {
            let text = proxy.text(&variant(n));
            fs::write(proxy.file(), &text[..text.len() / 3]).unwrap();
            reload(&proxy, "error");
        }
        proxy.configure(&variant(n));
        reload(&proxy, "ok");
        if n == 300 {
            early = resident(&proxy);
        }
    }
    let late = resident(&proxy);
    let outcome = load.stop();
    outcome.assert_no_errors();
    outcome.history.verify(Level::Session, secs(60)).assert_holds();
    assert!(outcome.history.reads.len() > 1000, "{}", outcome.history.reads.len());
    let mut took = times(&proxy);
    took.sort();
    assert!(took.len() >= 900, "{}", took.len());
    // Whatever else this machine has to do, half of them show how long it takes.
    assert!(took[took.len() / 2] < ms(50), "{:?}", took[took.len() / 2]);
    assert!(late < early + 8 * 1024, "{early} KiB after 300 reloads, {late} KiB after 1000");
    assert!(proxy.metric("redweir_panics_total", &[]) < 0.5);
}

#[test]
fn a_change_is_noticed_however_the_file_is_exchanged() {
    let topology = Topology::start(1);
    let base = Setup::of(&topology);
    let proxy = base.clone().start();
    let load = Plan { write_every: ms(5), read_every: ms(5), ..Plan::on(proxy.port) }.start();
    let mut conn = proxy.connect();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("..data");
    for round in 0..6 {
        let level = ["strong", "session", "fenced"][round % 3];
        let text = proxy.text(&base.clone().policy("default", &format!("consistency = {level:?}")));
        match round {
            // In place.
            0 | 1 => fs::write(proxy.file(), text).unwrap(),
            // By a rename.
            2 => {
                fs::write(dir.path().join("new.toml"), text).unwrap();
                fs::rename(dir.path().join("new.toml"), proxy.file()).unwrap();
            }
            // As a ConfigMap: the file is a symlink through a directory that is a symlink, which is exchanged.
            _ => {
                let version = dir.path().join(format!("..{round}"));
                fs::create_dir(&version).unwrap();
                fs::write(version.join("redweir.toml"), text).unwrap();
                symlink(&version, dir.path().join("..new")).unwrap();
                fs::rename(dir.path().join("..new"), &data).unwrap();
                if round == 3 {
                    symlink(data.join("redweir.toml"), dir.path().join("link")).unwrap();
                    fs::rename(dir.path().join("link"), proxy.file()).unwrap();
                }
            }
        }
        eventually(&format!("round {round}: {level}"), SOON, || {
            proxy.explain(&["GET", "k"])["consistency"] == level
        });
        // On a connection that was there before as well.
        let told = conn.cmd(&["REDWEIR", "EXPLAIN", "GET", "k"]).page();
        assert!(told.contains(&format!("policy default: {level}")), "{told}");
    }
    assert_eq!((proxy.reloads("ok"), proxy.reloads("error")), (6, 0));
    load.stop().assert_no_errors();
}

#[test]
fn what_is_wrong_changes_nothing_and_is_told_once() {
    let topology = Topology::start(1);
    let base = Setup::of(&topology);
    let proxy = base.clone().start();
    let good = proxy.text(&base);
    let wrong = [
        ("[[[".to_owned(), "this is not TOML"),
        (String::new(), "there is no [[listen]]"),
        (good.replace("primary =", "primry ="), "primry"),
        (good.replace("primary =", "password-file = \"nowhere\"\nprimary ="), "nowhere: cannot read it"),
        (format!("{good}\n[policy.default]\nmax-lag = \"0s\""), "policy.default.max-lag"),
    ];
    for (n, (text, _)) in wrong.iter().enumerate() {
        fs::write(proxy.file(), text).unwrap();
        eventually("it is refused", SOON, || proxy.reloads("error") == n as u64 + 1);
    }
    fs::remove_file(proxy.file()).unwrap();
    let errors = wrong.len() as u64 + 1;
    eventually("a file that is gone is refused", SOON, || proxy.reloads("error") == errors);
    // Looked at some more times, and told no more.
    sleep_ms(1500);
    assert_eq!((proxy.reloads("error"), proxy.reloads("ok")), (errors, 0));
    assert_eq!(proxy.cmd(&["SET", "k", "v"]), "OK");
    let log = proxy.log();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("the configuration is wrong")).collect();
    assert_eq!(told.len() as u64, errors, "{told:?}");
    for ((_, words), line) in wrong.iter().zip(&told) {
        assert!(line.contains(words), "{words}: {line}");
    }
    proxy.hang_up();
    eventually("whoever asks is told again", SOON, || proxy.reloads("error") == errors + 1);
    proxy.configure(&base.upstream("write-hold = \"1s\""));
    eventually("it is in force once it is right", SOON, || proxy.reloads("ok") == 1);
    eventually("it is logged", secs(5), || proxy.log().contains("changed=upstream.write-hold"));
}

#[test]
fn a_file_that_is_being_written_is_not_taken_half() {
    let primary = Redis::start(&[]);
    let whole = Setup::to(primary.port, &[]).policy("zz", "consistency = \"strong\"");
    let proxy = whole.clone().start();
    let text = proxy.text(&whole);
    // What is there of it then is a configuration, too.
    let half = &text[..text.find("[policy.zz]").unwrap()];
    let mut rounds = 0;
    let deadline = Instant::now() + secs(60);
    while rounds < 6 && Instant::now() < deadline {
        let before = (proxy.reloads("ok"), Instant::now());
        fs::write(proxy.file(), half).unwrap();
        sleep_ms(300);
        fs::write(proxy.file(), &text).unwrap();
        if before.1.elapsed() > ms(450) {
            // It was there for two looks.
            eventually("it is whole again", SOON, || proxy.explain(&["GET", "k"])["policy"] == "default");
            sleep_ms(1200);
            continue;
        }
        rounds += 1;
        sleep_ms(650 + 90 * rounds);
        assert_eq!(proxy.reloads("ok"), before.0, "{}", proxy.log());
    }
    assert!(rounds >= 3, "{rounds}");
}

#[test]
fn nodes_come_and_go() {
    let topology = Topology::start(2);
    let ports = topology.replica_ports();
    let base = Setup::of(&topology).policy("default", "consistency = \"eventual\"\nmax-lag = \"5s\"");
    let base = base.policy("strict", "consistency = \"fenced\"");
    let proxy = base.clone().replicas(&ports[..1]).start();
    let mut conn = proxy.connect();
    assert_eq!(conn.cmd(&["SET", "k", &"v".repeat(100_000)]), "OK");
    topology.await_sync();
    let load = Plan { write_every: ms(5), read_every: ms(2), ..Plan::on(proxy.port) }.start();
    let oldest = || topology.replicas[0].cmd(&["CLIENT", "LIST"]).text();
    let ids = |list: &str| {
        let id = |line: &str| line.split("id=").nth(1)?.split(' ').next()?.parse::<u64>().ok();
        // The stream may be followed elsewhere, as it pleases.
        let stays = |line: &&str| !line.contains("cmd=client") && !line.contains("flags=S");
        list.lines().filter(stays).filter_map(id).collect::<Vec<_>>()
    };
    let mut before = ids(&oldest());
    for _ in 0..5 {
        sleep_ms(300);
        // The doctor opens one for a moment now and then.
        let now = ids(&oldest());
        before.retain(|id| now.contains(id));
    }
    proxy.configure(&base);
    eventually("the other replica serves", SOON, || proxy.eligible() == 2);
    let calls = topology.replicas[1].calls("get");
    eventually("it gets reads", secs(10), || {
        proxy.connect().cmd(&["GET", "k"]);
        topology.replicas[1].calls("get") > calls
    });
    let after = ids(&oldest());
    assert!(
        before.iter().all(|id| after.contains(id)),
        "whoever stays keeps its connections: {before:?} {after:?}"
    );
    // Whoever is in the middle of a long reply gets all of it.
    proxy.configure(&base.clone().replicas(&ports[1..]));
    let deadline = Instant::now() + SOON;
    while proxy.view()["nodes"].as_array().unwrap().len() == 3 {
        assert!(Instant::now() < deadline, "{}", proxy.view());
        assert_eq!(conn.cmd(&["GET", "k"]).text().len(), 100_000);
    }
    let view = proxy.view().to_string();
    assert!(view.contains(&ports[1].to_string()) && !view.contains(&ports[0].to_string()), "{view}");
    eventually("nobody talks to it any longer", secs(5), || {
        let list = oldest();
        list.lines().filter(|line| !line.contains("cmd=client") && !line.contains("flags=M")).count() == 0
    });
    load.stop().assert_no_errors();
    eventually("it is logged", secs(5), || proxy.log().contains("changed=upstream.replicas"));
}

#[test]
fn policies_change_on_connections_that_are_open() {
    let topology = Topology::start(1);
    let base = Setup::of(&topology).listener("loose");
    let with = |level: &str, rest: &str| {
        base.clone().policy("loose", &format!("consistency = {level:?}")).toml(rest)
    };
    let proxy = with("eventual", "[policy.mine]\nconsistency = \"strong\"").start();
    let mut loose = crate::support::Conn::open(proxy.ports[1]);
    let (mut usual, mut chosen) = (proxy.connect(), proxy.connect());
    let of = |conn: &mut crate::support::Conn, key: &str| {
        let told = conn.cmd(&["REDWEIR", "EXPLAIN", "GET", key]).page();
        let line =
            told.lines().find_map(|line| line.strip_prefix("policy ")).unwrap_or_else(|| panic!("{told}"));
        line.to_owned()
    };
    assert_eq!(chosen.cmd(&["REDWEIR", "POLICY", "mine"]), "OK");
    // So that there is something that was decided before.
    for conn in [&mut loose, &mut usual, &mut chosen] {
        (0..3).for_each(|_| drop(conn.cmd(&["GET", "k"])));
    }
    assert_eq!(of(&mut loose, "k"), "loose: eventual");
    proxy.configure(&with(
        "fenced",
        "[policy.mine]\nconsistency = \"session\"\n[[route]]\nkeys = [\"r:*\"]\npolicy = \"mine\"",
    ));
    reload(&proxy, "ok");
    let told = [of(&mut loose, "k"), of(&mut usual, "k"), of(&mut chosen, "k"), of(&mut usual, "r:1")];
    assert_eq!(told, ["loose: fenced", "default: fenced", "mine: session", "mine: session"]);
    proxy.configure(&with("eventual", ""));
    reload(&proxy, "ok");
    // What it has chosen is gone: it is promised no less.
    assert_eq!([of(&mut chosen, "k"), of(&mut usual, "r:1")], ["default: fenced", "default: fenced"]);
    assert!(chosen.cmd(&["REDWEIR", "POLICY", "mine"]).is_error());
    for conn in [&mut usual, &mut chosen] {
        assert_eq!(conn.cmd(&["SET", "k", "1"]), "OK");
        assert_eq!(conn.cmd(&["GET", "k"]), "1");
    }
    assert!(usual.cmd(&["CONFIG", "SET", "maxmemory", "0"]).error().contains("NOPERM"));
    proxy.configure(&with("eventual", "[security]\ndeny-commands = [\"debug\", \"get\"]"));
    reload(&proxy, "ok");
    assert_eq!(usual.cmd(&["CONFIG", "SET", "maxmemory", "0"]), "OK");
    assert!(usual.cmd(&["GET", "k"]).error().contains("NOPERM"), "{:?}", usual.cmd(&["GET", "k"]));
}

#[test]
fn a_password_that_is_exchanged_is_used() {
    let topology = Topology::start(2);
    let nodes =
        || std::iter::once(&topology.primary).chain(topology.replicas.iter().map(|replica| &replica.server));
    let set = |password: &str| {
        for node in nodes() {
            let word = format!(">{password}");
            assert_eq!(
                node.cmd(&["ACL", "SETUSER", "redweir", "reset", "on", &word, "~*", "&*", "+@all"]),
                "OK"
            );
        }
    };
    set("one");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    fs::write(&file, "one\n").unwrap();
    let lines = format!("username = \"redweir\"\npassword-file = {:?}", file.to_str().unwrap());
    let proxy = Setup::of(&topology).upstream(&lines).start();
    set("two");
    let cut_off = || {
        for node in nodes() {
            node.cmd(&["CLIENT", "KILL", "USER", "redweir"]);
        }
    };
    cut_off();
    eventually("it is not let in any longer", secs(5), || proxy.get("/readyz").0 == 503);
    fs::write(&file, "two\n").unwrap();
    eventually("it is let in again", SOON, || proxy.get("/readyz").0 == 200);
    eventually("everywhere", secs(5), || proxy.eligible() == 2);
    eventually("the stream is followed", secs(10), || proxy.metric("redweir_stream_attached", &[]) > 0.5);
    eventually("it is logged", secs(5), || proxy.log().contains("changed=upstream.password"));
}

#[test]
fn what_needs_a_restart_is_told_and_the_rest_is_in_force() {
    let topology = Topology::start(1);
    let base = Setup::of(&topology);
    let proxy = base.clone().start();
    let other =
        base.clone().proxy("[proxy]\nworkers = 1\nmax-clients = 3").toml("[stream]\nfence-slots = 2048");
    let text = proxy.text(&other);
    let text = text.replace(&format!("127.0.0.1:{}", proxy.port), &format!("127.0.0.1:{}", free_port()));
    fs::write(proxy.file(), text).unwrap();
    eventually("it is in force as far as it can be", SOON, || proxy.reloads("restart") == 1);
    // Another thread writes the log.
    eventually("it is logged", secs(5), || proxy.log().contains("need a restart"));
    let log = proxy.log();
    let line = log.lines().find(|line| line.contains("need a restart")).unwrap();
    assert!(line.contains("keys=listen stream.fence-slots proxy.workers") && line.contains("WARN"), "{line}");
    assert!(log.contains("proxy.max-clients took="), "{log}");
    let mut conns: Vec<_> = (0..3).map(|_| proxy.connect()).collect();
    assert!(conns.iter_mut().all(|conn| conn.cmd(&["PING"]) == "PONG"));
    assert!(proxy.connect().try_read().is_ok_and(|reply| reply.is_error()), "max-clients");
    drop(conns);
    proxy.configure(&base);
    eventually("it is as it was", SOON, || proxy.reloads("ok") == 1);
    eventually("and everybody is let in", secs(5), || {
        let mut conns: Vec<_> = (0..5).map(|_| proxy.connect()).collect();
        conns.iter_mut().all(|conn| conn.try_cmd(&["PING"]).is_ok_and(|reply| reply == "PONG"))
    });
}

#[test]
fn as_much_is_logged_as_is_configured_now() {
    let primary = Redis::start(&[]);
    let base = Setup::to(primary.port, &[]);
    let proxy = base.clone().start();
    let quiet = base.clone().toml("[log]\nlevel = \"error\"");
    proxy.configure(&quiet);
    reload(&proxy, "ok");
    proxy.configure(&quiet.clone().upstream("write-hold = \"1s\""));
    reload(&proxy, "ok");
    assert!(!proxy.log().contains("the configuration was read again"), "{}", proxy.log());
    proxy.configure(&base);
    reload(&proxy, "ok");
    eventually("it is told again", secs(5), || proxy.log().contains("changed=upstream.write-hold log.level"));
}

#[test]
fn what_was_never_fenced_is_not_fenced_by_a_reload() {
    let topology = Topology::start(1);
    let base = Setup::of(&topology).policy("default", "consistency = \"eventual\"");
    let proxy = base.start();
    proxy.configure(&Setup::of(&topology).upstream("write-hold = \"1s\""));
    eventually("the rest is in force", SOON, || proxy.reloads("restart") == 1);
    eventually("it is logged", secs(5), || proxy.log().contains("keys=policy.default"));
    assert_eq!(proxy.explain(&["GET", "k"])["consistency"], "eventual");
}

/// Whether a signal of this number ends the process, or waits, or is heard.
fn would_end(pid: u32, number: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0").trim();
        u64::from_str_radix(line, 16).unwrap_or(0)
    };
    (mask("SigBlk:") | mask("SigCgt:")) >> (number - 1) & 1 == 0
}

#[test]
fn sighup_ends_nothing() {
    let primary = Redis::start(&[]);
    let (port, admin) = (free_port(), free_port());
    let mut child = Command::new(env!("CARGO_BIN_EXE_redweir"))
        .args(["run", "--listen", &format!("127.0.0.1:{port}"), "--admin", &format!("127.0.0.1:{admin}")])
        .args(["--primary", &format!("127.0.0.1:{}", primary.port)])
        .spawn()
        .unwrap();
    let pid = Pid::from_raw(child.id() as i32);
    // From its first own instruction on.
    while would_end(child.id(), 1) {
        assert!(child.try_wait().unwrap().is_none());
        thread::yield_now();
    }
    eventually("it is ready", secs(10), || {
        kill(pid, Signal::SIGHUP).unwrap();
        assert!(child.try_wait().unwrap().is_none(), "SIGHUP ended it");
        matches!(http_get(admin, "/readyz"), Ok((200, _)))
    });
    // While it drains.
    let mut blocked = crate::support::Conn::open(port);
    blocked.ask(&["BLPOP", "none", "2"]);
    eventually("it blocks", secs(5), || primary.info("clients")["blocked_clients"] == "1");
    kill(pid, Signal::SIGTERM).unwrap();
    let status = loop {
        let _ = kill(pid, Signal::SIGHUP);
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        sleep_ms(20);
    };
    assert_eq!(status.code(), Some(0));
    assert_eq!(blocked.read(), crate::support::Value::Null);
}

#[test]
fn nodes_with_names_come_and_go() {
    let topology = Topology::start(2);
    let named = |count: usize| {
        let name = |port: u16| format!("localhost:{port}");
        let replicas: Vec<String> = topology.replica_ports().into_iter().take(count).map(name).collect();
        Setup::at(&name(topology.primary.port), &replicas).policy("default", "consistency = \"fenced\"")
    };
    let proxy = named(1).start();
    let mut conn = proxy.connect();
    for count in [2, 1, 2] {
        proxy.configure(&named(count));
        reload(&proxy, "ok");
        eventually("the nodes are those of the file", secs(5), || proxy.eligible() == count);
        assert_eq!(proxy.view()["nodes"].as_array().unwrap().len(), 1 + count);
        assert_eq!(conn.cmd(&["SET", "k", &count.to_string()]), "OK");
        assert_eq!(conn.cmd(&["GET", "k"]), count.to_string().as_str());
    }
}

/// What a writer came to: numbers that were acknowledged, and those that may have been executed.
#[derive(Default)]
struct Written {
    acknowledged: Vec<i64>,
    uncertain: Vec<i64>,
    refused: Vec<String>,
}

fn write_until(port: u16, list: &str, stop: &AtomicBool) -> Written {
    let (mut conn, mut written) = (Conn::open(port), Written::default());
    for n in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        match conn.cmd(&["RPUSH", list, &n.to_string()]) {
            Value::Int(_) => written.acknowledged.push(n),
            Value::Error(text) if text.contains("may have been executed") => written.uncertain.push(n),
            other => written.refused.push(format!("{n}: {other:?}")),
        }
        sleep_ms(1);
    }
    written
}

/// The file names another primary, one that never heard of the first: every write is made once, at one of them.
#[test]
fn another_primary_takes_over_under_writes() {
    const WRITERS: usize = 6;
    let servers = [Redis::start(&[]), Redis::start(&[])];
    let setup = |which: usize| Setup::to(servers[which].port, &[]);
    let proxy = setup(0).start();
    let stop = AtomicBool::new(false);
    let list = |writer: usize| format!("list:{writer}");
    let written: Vec<Written> = thread::scope(|scope| {
        let write = |writer| {
            let (port, stop) = (proxy.port, &stop);
            scope.spawn(move || write_until(port, &list(writer), stop))
        };
        let writers: Vec<_> = (0..WRITERS).map(write).collect();
        for round in 1..=6 {
            let server = &servers[round % 2];
            let before = server.calls("rpush");
            proxy.configure(&setup(round % 2));
            reload(&proxy, "ok");
            eventually("writes come to the other", secs(10), || server.calls("rpush") > before + 100);
            assert_eq!(proxy.view()["nodes"].as_array().unwrap().len(), 1);
        }
        stop.store(true, Ordering::SeqCst);
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    for (writer, Written { acknowledged, uncertain, refused }) in written.iter().enumerate() {
        let mut found: HashMap<i64, usize> = HashMap::new();
        for server in &servers {
            for item in server.cmd(&["LRANGE", &list(writer), "0", "-1"]).items() {
                *found.entry(item.text().parse().unwrap()).or_default() += 1;
            }
        }
        let twice: Vec<_> = found.iter().filter(|(_, count)| **count > 1).collect();
        let missing: Vec<_> = acknowledged.iter().filter(|n| !found.contains_key(n)).collect();
        assert!(twice.is_empty() && missing.is_empty(), "{writer}: twice {twice:?}, missing {missing:?}");
        assert!(refused.is_empty() && acknowledged.len() > 50, "{} {refused:?}", acknowledged.len());
        // One command of each client is under way when a connection is cut, at most.
        assert!(uncertain.len() <= 6, "{uncertain:?}");
    }
}
