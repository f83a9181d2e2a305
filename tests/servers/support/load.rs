//! Clients that write and read version registers until they are told to stop, and remember everything.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::checker::{self, History, Read, Write};
use super::resp::{Conn, Value, encode};
use super::rng::Rng;

/// What the clients do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) write_port: u16,
    pub(crate) read_port: u16,
    /// Each has a writer.
    pub(crate) keys: usize,
    pub(crate) readers: usize,
    /// Between two writes of a key.
    pub(crate) write_every: Duration,
    /// Between two reads of a reader.
    pub(crate) read_every: Duration,
    /// Each writer also reads its key, right after a write; on the same connection if both go to the same port.
    pub(crate) writers_read: bool,
    /// Besides the readers: clients that read a key, are silent for `idle`, and read it again.
    pub(crate) idlers: usize,
    pub(crate) idle: Duration,
    /// Every other client speaks RESP3: those of which [`speaks_resp3`] says so.
    pub(crate) both_protocols: bool,
}

impl Plan {
    pub(crate) fn on(port: u16) -> Self {
        Self {
            write_port: port,
            read_port: port,
            keys: 4,
            readers: 4,
            write_every: Duration::from_millis(5),
            read_every: Duration::from_millis(1),
            writers_read: false,
            idlers: 0,
            idle: Duration::from_millis(700),
            both_protocols: false,
        }
    }

    pub(crate) fn writing_to(self, write_port: u16) -> Self {
        Self { write_port, ..self }
    }

    pub(crate) fn start(self) -> Load {
        let shared = Arc::new(Shared { write_port: AtomicU16::new(self.write_port), ..Shared::default() });
        let spawn = |client: Client, work: fn(Client) -> Outcome| thread::spawn(move || work(client));
        let run = RUNS.fetch_add(1, Ordering::SeqCst);
        let client = |n: usize| Client {
            plan: self,
            run,
            n,
            session: n,
            shared: Arc::clone(&shared),
            outcome: Outcome::default(),
        };
        let writers = (0..self.keys).map(|n| spawn(client(n), Client::write));
        let readers = (self.keys..self.keys + self.readers).map(|n| spawn(client(n), Client::read));
        let first_idler = self.keys + self.readers;
        let idlers = (first_idler..first_idler + self.idlers).map(|n| spawn(client(n), Client::read_rarely));
        let threads = writers.collect::<Vec<_>>().into_iter().chain(readers).chain(idlers).collect();
        Load { shared, threads }
    }

    pub(crate) fn run(self, span: Duration) -> Outcome {
        let load = self.start();
        thread::sleep(span);
        load.stop()
    }
}

/// Clients at work.
pub(crate) struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Outcome>>,
}

/// What the clients are told while they work, and what they tell.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    hushed: AtomicBool,
    /// Writes that were sent and not answered yet.
    writing: AtomicU64,
    write_port: AtomicU16,
    reads: AtomicU64,
}

impl Load {
    /// Lets the writers pause, and returns when each has its last answer. Readers go on.
    pub(crate) fn hush(&self) {
        self.shared.hushed.store(true, Ordering::SeqCst);
        while self.shared.writing.load(Ordering::SeqCst) > 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Lets the writers go on, on this port.
    pub(crate) fn go_on(&self, write_port: u16) {
        self.shared.write_port.store(write_port, Ordering::SeqCst);
        self.shared.hushed.store(false, Ordering::SeqCst);
    }

    /// How many reads were answered so far.
    pub(crate) fn reads(&self) -> u64 {
        self.shared.reads.load(Ordering::Relaxed)
    }

    pub(crate) fn stop(mut self) -> Outcome {
        self.shared.stop.store(true, Ordering::SeqCst);
        let mut all = Outcome::default();
        for thread in self.threads.drain(..) {
            let one = thread.join().expect("a client of the load failed");
            all.history.merge(one.history);
            all.read_errors.extend(one.read_errors);
            all.write_errors.extend(one.write_errors);
            all.slowest_read = all.slowest_read.max(one.slowest_read);
        }
        all
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
    }
}

/// What they remember.
#[derive(Default, Debug)]
pub(crate) struct Outcome {
    pub(crate) history: History,
    pub(crate) read_errors: Vec<(Instant, String)>,
    pub(crate) write_errors: Vec<(Instant, String)>,
    pub(crate) slowest_read: Duration,
}

impl Outcome {
    /// Fails when a client saw an error.
    pub(crate) fn assert_no_errors(&self) {
        let errors = (&self.read_errors.first(), &self.write_errors.first());
        let counts = (self.read_errors.len(), self.write_errors.len());
        assert_eq!(counts, (0, 0), "read and write errors; the first: {errors:?}");
    }
}

/// Every run has keys of its own: versions start at 1.
static RUNS: AtomicU64 = AtomicU64::new(0);

struct Client {
    plan: Plan,
    run: u64,
    /// Number of the client; a writer's is that of its key.
    n: usize,
    /// Number of its connection: who connects again is somebody new.
    session: usize,
    shared: Arc<Shared>,
    outcome: Outcome,
}

/// Clients of one run have lower numbers.
const MOST_CLIENTS: usize = 1000;

/// Whether the client of this session speaks RESP3, if the plan wants both protocols.
pub(crate) fn speaks_resp3(session: usize) -> bool {
    session % MOST_CLIENTS % 2 == 1
}

impl Client {
    fn key(&self, n: usize) -> String {
        format!("register:{}:{n}", self.run)
    }

    fn goes_on(&self) -> bool {
        !self.shared.stop.load(Ordering::SeqCst)
    }

    fn write(mut self) -> Outcome {
        let (key, writer) = (self.key(self.n), format!("w{}", self.n));
        let (mut conn, mut reading) = (None, None);
        let (mut port, mut version) = (self.plan.write_port, 0);
        while self.goes_on() {
            // First counted, then asked: who hushes and sees none can rely on it.
            self.shared.writing.fetch_add(1, Ordering::SeqCst);
            if self.shared.hushed.load(Ordering::SeqCst) {
                self.shared.writing.fetch_sub(1, Ordering::SeqCst);
                thread::sleep(Duration::from_millis(2));
                continue;
            }
            let present = self.shared.write_port.load(Ordering::SeqCst);
            if present != port {
                (port, conn) = (present, None);
            }
            version += 1;
            let value = checker::value(&key, version, &writer);
            let invoked = Instant::now();
            let reply = self.attempt(&mut conn, port, |conn| conn.try_cmd(&["SET", &key, &value]));
            let acked = matches!(&reply, Ok(reply) if *reply == "OK").then(Instant::now);
            self.shared.writing.fetch_sub(1, Ordering::SeqCst);
            if acked.is_none() {
                self.outcome.write_errors.push((Instant::now(), format!("{reply:?}")));
                thread::sleep(Duration::from_millis(20));
            }
            let session = self.session;
            self.outcome.history.writes.push(Write { key: self.n, version, session, invoked, acked });
            if self.plan.writers_read {
                let same = port == self.plan.read_port;
                self.read_together(if same { &mut conn } else { &mut reading }, &[self.n]);
            }
            thread::sleep(self.plan.write_every);
        }
        self.outcome
    }

    fn read(mut self) -> Outcome {
        let mut rng = Rng::new(self.n as u64);
        let mut conn = None;
        while self.goes_on() {
            let first = rng.below(self.plan.keys);
            // One by one, or all at once, one key twice: what arrives together may be decided together, and is in order.
            let count = if rng.below(2) == 0 { 1 } else { self.plan.keys + 1 };
            let keys: Vec<usize> = (first..first + count).map(|n| n % self.plan.keys).collect();
            self.read_together(&mut conn, &keys);
            thread::sleep(self.plan.read_every);
        }
        self.outcome
    }

    /// Connections that live through whatever happens between two of their reads.
    fn read_rarely(mut self) -> Outcome {
        let mut conn = None;
        while self.goes_on() {
            self.read_together(&mut conn, &[self.n % self.plan.keys]);
            let silent_until = Instant::now() + self.plan.idle;
            while self.goes_on() && Instant::now() < silent_until {
                thread::sleep(Duration::from_millis(10));
            }
        }
        self.outcome
    }

    fn read_together(&mut self, conn: &mut Option<Conn>, keys: &[usize]) {
        let start = Instant::now();
        let commands: Vec<u8> = keys.iter().flat_map(|n| encode(&["GET", &self.key(*n)])).collect();
        let sent = self.attempt(conn, self.plan.read_port, |conn| conn.try_send(&commands));
        if let Err(error) = sent {
            return self.note_read(keys[0], start, &Err(error));
        }
        for n in keys {
            if conn.is_some() {
                let reply = self.attempt(conn, self.plan.read_port, Conn::try_read);
                self.note_read(*n, start, &reply);
            }
        }
    }

    fn note_read(&mut self, n: usize, start: Instant, reply: &io::Result<Value>) {
        let (key, end) = (self.key(n), Instant::now());
        let version = match reply {
            Ok(Value::Null) => Some(0),
            Ok(Value::Bulk(bytes)) => checker::version(&key, &String::from_utf8_lossy(bytes)),
            _ => None,
        };
        self.outcome.slowest_read = self.outcome.slowest_read.max(end - start);
        if let Some(version) = version {
            self.shared.reads.fetch_add(1, Ordering::Relaxed);
            self.outcome.history.reads.push(Read { key: n, session: self.session, start, end, version });
        } else {
            self.outcome.read_errors.push((end, format!("{reply:?}")));
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Connects first when there is no connection, and forgets one that failed.
    fn attempt<T>(
        &mut self,
        conn: &mut Option<Conn>,
        port: u16,
        work: impl FnOnce(&mut Conn) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut present = match conn.take() {
            Some(present) => present,
            None if self.plan.both_protocols && speaks_resp3(self.session) => {
                let mut conn = Conn::try_open(port)?;
                if let reply @ Value::Error(_) = conn.try_cmd(&["HELLO", "3"])? {
                    return Err(io::Error::other(format!("{reply:?}")));
                }
                conn
            }
            None => Conn::try_open(port)?,
        };
        let reply = work(&mut present);
        if reply.is_ok() {
            *conn = Some(present);
        } else {
            self.session += MOST_CLIENTS;
        }
        reply
    }
}
