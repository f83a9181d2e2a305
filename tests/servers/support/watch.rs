//! Watches a replica for a full resync, directly and often: from another primary, or one that is behind it, its data
//! goes back while all connections to it live on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::resp::Conn;

/// Between two looks.
const EVERY: Duration = Duration::from_millis(1);

/// When a replica's data became other or older data.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moved {
    /// It had not happened when this was asked.
    pub(crate) after: Instant,
    /// It had happened when this was answered.
    pub(crate) before: Instant,
}

/// A thread that looks at one replica.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<Moved>>>,
}

/// What a replica with its link up has: of which history, up to where.
type Position = (String, i64);

impl Watch {
    /// Looks at the server on this port from now on; it has looked once when this returns.
    pub(crate) fn on(port: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let shared = Arc::clone(&stop);
        let mut conn = Conn::open(port);
        let first = position(&mut conn);
        let thread = thread::spawn(move || {
            let (mut last, mut after, mut moved) = (first, Instant::now(), Vec::new());
            while !shared.load(Ordering::SeqCst) {
                let asked = Instant::now();
                let present = position(&mut conn);
                if let Some(present) = present {
                    if last.is_some_and(|(history, offset)| history != present.0 || present.1 < offset) {
                        moved.push(Moved { after, before: Instant::now() });
                    }
                    last = Some(present);
                }
                after = asked;
                thread::sleep(EVERY);
            }
            moved
        });
        Self { stop, thread: Some(thread) }
    }

    /// Stops looking; when its data became other or older data.
    pub(crate) fn stop(mut self) -> Vec<Moved> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().expect("the watched server answers")
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

/// `None` while its link is down.
fn position(conn: &mut Conn) -> Option<Position> {
    let info = conn.cmd(&["INFO", "replication"]).text();
    let field = |name: &str| {
        info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default()
    };
    let offset = field("slave_repl_offset").parse().ok()?;
    (field("master_link_status") == "up").then(|| (field("master_replid").to_owned(), offset))
}
