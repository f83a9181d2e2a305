//! Every byte from a server is hostile until read. Nodes of all kinds of malice stand where the configuration has the
//! primary, or a replica beside a primary that is in order. The process lives through it, answers `/livez`, stays small,
//! ends when it is told to; and who reads from the others gets what is right.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]

mod roles;

use std::io::Read as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use self::roles::{Case, Harm};
use crate::support::hostile::{Act, Role};
use crate::support::{Conn, Hostile, Proxy, Setup, Topology, Value, http_get, ms, secs, sleep_ms};

/// For how long a role is met, from when it was first played.
const MEETING: Duration = ms(250);

/// How often it is played, at most, until the meeting is over.
const OFTEN: u64 = 200;

/// The most resident memory that the process may ever have had, in kB. An answer on a control connection may have 16 MiB.
const MOST_RESIDENT_KB: u64 = 150_000;

/// The most that is logged about a node in a meeting, in bytes.
const MOST_LOGGED: usize = 200_000;

/// How long the process may take to end, of which clients may have a second.
const ENDS_WITHIN: Duration = secs(8);

/// Cases at a time: they wait more than they work.
const AT_ONCE: usize = 6;

/// How long a client may wait that nothing is to happen to.
const PATIENCE: Duration = secs(2);

/// Pauses that suit a short meeting.
const SOON: &str = "probe-timeout = \"300ms\"\nconnect-timeout = \"300ms\"\nwrite-hold = \"300ms\"\ninfo-interval = \"200ms\"";

/// What clients leave behind that were promised a reply is not waited for.
const PROXY: &str = "[proxy]\nworkers = 2\ndrain-timeout = \"1s\"";

/// The number of a meeting, for keys of its own.
fn unique() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// What is so of the process whatever it has met, and that it ends.
fn assert_unharmed(mut proxy: Proxy) {
    let quick = (0..3).any(|_| {
        let asked = Instant::now();
        let answered = matches!(http_get(proxy.admin_port, "/livez"), Ok((200, _)));
        answered && asked.elapsed() < secs(1)
    });
    assert!(quick, "/livez is not answered within a second");
    let (_, view) = proxy.get("/view");
    serde_json::from_str::<serde_json::Value>(&view).unwrap_or_else(|error| panic!("/view: {error}"));
    proxy.metrics();
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.pid())).unwrap();
    let peak =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
    let peak: u64 = peak.unwrap();
    assert!(peak <= MOST_RESIDENT_KB, "{peak} kB were resident");
    let told = Instant::now();
    assert_eq!(proxy.stop(), Some(0));
    assert!(told.elapsed() < ENDS_WITHIN, "it took {:?} to end", told.elapsed());
    let log = proxy.log();
    let raw = log.chars().find(|c| c.is_control() && *c != '\n');
    assert_eq!(raw, None, "a control character in the log");
    assert!(!log.lines().any(|line| line.starts_with("ERROR")), "a forged line in the log: {log}");
    assert!(!log.contains("panicked"), "{log}");
    assert!(log.len() <= MOST_LOGGED, "{} bytes of log", log.len());
}

/// Whether the meeting is over.
struct Meeting<'a> {
    node: &'a Hostile,
    begun: Instant,
    first: Option<Instant>,
}

impl<'a> Meeting<'a> {
    fn of(node: &'a Hostile) -> Self {
        Self { node, begun: Instant::now(), first: None }
    }

    fn is_over(&mut self) -> bool {
        if self.first.is_none() && self.node.played() > 0 {
            self.first = Some(Instant::now());
        }
        assert!(self.first.is_some() || self.begun.elapsed() < secs(8), "its role is never played");
        self.first.is_some_and(|first| first.elapsed() >= MEETING || self.node.played() >= OFTEN)
    }
}

/// A client that reads what a hostile node is asked for.
struct Reader {
    port: u16,
    /// In RESP3, so that its lane says `HELLO`.
    resp3: bool,
    patience: Duration,
    conn: Conn,
}

impl Reader {
    fn of(proxy: &Proxy, case: &Case, patience: Duration) -> Self {
        let resp3 = case.role.on.contains(&"HELLO");
        Self { port: proxy.port, resp3, patience, conn: open(proxy.port, resp3) }
    }

    fn ask(&mut self) {
        let get = crate::support::encode(&["GET", "some:bait"]);
        if self.conn.patience(self.patience).try_send(&get).is_err() {
            self.conn = open(self.port, self.resp3);
        }
    }

    /// What comes first of what it gets, as it is: the rest may be without end.
    fn hear_some(&mut self) -> Vec<u8> {
        let mut some = vec![0; 64 << 10];
        let count = self.conn.stream().read(&mut some).unwrap_or(0);
        some.truncate(count);
        self.conn = open(self.port, self.resp3);
        some
    }

    /// What it gets; `None` if its connection ended, or nothing came.
    fn hear(&mut self) -> Option<Value> {
        let mut heard = self.conn.try_read().ok();
        if self.resp3 && matches!(heard, Some(Value::Map(_) | Value::Error(_))) {
            heard = self.conn.try_read().ok();
        }
        if heard.is_none() {
            self.conn = open(self.port, self.resp3);
        }
        heard
    }
}

fn open(port: u16, resp3: bool) -> Conn {
    let mut conn = Conn::open(port);
    if resp3 {
        conn.ask(&["HELLO", "3"]);
    }
    conn
}

/// The node that is configured as the primary.
fn meet_as_primary(case: &Case, real: &Topology) {
    let node = Hostile::playing(&case.role, real.primary.port);
    let proxy =
        Setup::to(node.port, &[]).upstream(SOON).proxy(PROXY).toml("[stream]\nsource = \"primary\"").spawn();
    let (mut meeting, mut reader) = (Meeting::of(&node), Reader::of(&proxy, case, ms(100)));
    while !meeting.is_over() {
        reader.ask();
        reader.hear_some();
        sleep_ms(5);
    }
    drop(reader);
    assert_unharmed(proxy);
}

/// A replica; the primary is in order.
fn meet_as_replica(case: &Case, real: &Topology) {
    let node = Hostile::playing(&case.role, real.replicas[0].port);
    let primary = real.primary.port;
    let proxy = Setup::to(primary, &[node.port])
        .upstream(SOON)
        .proxy(PROXY)
        .toml("[stream]\nsource = \"replica\"")
        .start_with_any_replicas();
    let key = format!("{}", unique());
    let mut neighbours: Vec<Conn> = (0..3).map(|_| proxy.connect()).collect();
    for conn in &mut neighbours {
        conn.patience(PATIENCE);
    }
    let mut meeting = Meeting::of(&node);
    let patience = if case.harm == Harm::Nobody { PATIENCE } else { ms(150) };
    let mut reader = Reader::of(&proxy, case, patience);
    let mut round = 0;
    while !meeting.is_over() {
        round += 1;
        reader.ask();
        for conn in neighbours.iter_mut().filter(|_| case.harm != Harm::Lane) {
            assert_eq!(conn.cmd(&["SET", &key, &round.to_string()]), "OK");
            let read = conn.cmd(&["GET", &key]);
            assert!(
                case.harm == Harm::Lie || read == round.to_string().as_str(),
                "{read:?} instead of {round}"
            );
            assert_eq!(conn.cmd(&["GET", "some:constant"]), "constant");
        }
        match case.harm {
            Harm::Nobody => assert_eq!(reader.hear(), Some(Value::Bulk(b"right".to_vec()))),
            Harm::Reader | Harm::Lie | Harm::Lane => {
                let some = reader.hear_some();
                let others = some.windows(8).any(|word| word == b"constant");
                assert!(!others, "a reply to another client");
            }
        }
    }
    drop((reader, neighbours));
    assert_unharmed(proxy);
}

/// Meets every role, some at a time.
fn meet_all(wanted: impl Fn(&Case) -> bool, meet: fn(&Case, &Topology)) {
    let real = Topology::start(1);
    real.primary.cmd(&["MSET", "some:bait", "right", "some:constant", "constant"]);
    real.await_sync();
    let cases: Vec<Case> = roles::all().into_iter().filter(wanted).collect();
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let only = std::env::var("REDWEIR_HOSTILE").unwrap_or_default();
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::SeqCst)) {
                    if case.role.name.contains(&only)
                        && catch_unwind(AssertUnwindSafe(|| meet(case, &real))).is_err()
                    {
                        failed.lock().unwrap().push(case.role.name);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} of {} roles: {failed:#?}", failed.len(), cases.len());
}

#[test]
fn no_primary_harms_the_process() {
    meet_all(|_| true, meet_as_primary);
}

#[test]
fn no_replica_harms_anybody() {
    // Only the primary is asked for its commands and its settings count.
    meet_all(|case| !case.role.on.contains(&"COMMAND"), meet_as_replica);
}

/// Each time costs both sides a connection, and whatever it has answered at length.
#[test]
fn nonsense_is_asked_for_ever_less_often() {
    let real = Topology::start(1);
    let refusal = Act::Say(b"-ERR no\r\n".to_vec());
    let node = Hostile::playing(&Role { name: "refuses", on: &["*"], act: refusal }, real.replicas[0].port);
    let proxy = Setup::to(real.primary.port, &[node.port]).start_with_any_replicas();
    sleep_ms(2000);
    // CONFIG, INFO and ROLE by the prober of each connection.
    assert!((9..=30).contains(&node.played()), "{} questions in two seconds", node.played());
    drop(proxy);
}

#[test]
fn there_are_many_roles() {
    assert!(roles::all().len() >= 100, "only {}", roles::all().len());
}
