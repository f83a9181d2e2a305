//! Counters over the slots of a cluster. Each has one client, which knows from reply to reply what the next may be at most:
//! more, and something was executed twice. That shows even where a failover loses what was acknowledged.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::link::{Command, Link, Via};
use super::slot;
use crate::support::eventually;
use crate::support::resp::Value;

/// Between two rounds of a client.
const EVERY: Duration = Duration::from_millis(2);

/// What a counter's client knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counter {
    pub(crate) key: String,
    pub(crate) acknowledged: u64,
    /// Those of which nobody says whether they were executed.
    pub(crate) unknown: u64,
    /// Answers that are higher than they can be, if nothing was executed twice.
    pub(crate) twice: u64,
    /// Answers that are lower than those before: a failover has lost some.
    pub(crate) lost: u64,
    pub(crate) last: u64,
    /// Since the last answer.
    unknown_since: u64,
    /// Errors, when they came.
    pub(crate) errors: Vec<(Instant, String)>,
    pub(crate) last_acknowledged: Option<Instant>,
    /// How long an answer took, at most.
    pub(crate) slowest: Duration,
}

impl Counter {
    pub(crate) fn slot(&self) -> u16 {
        slot(&self.key)
    }

    fn note(&mut self, start: Instant, reply: &io::Result<Value>) {
        self.slowest = self.slowest.max(start.elapsed());
        match reply {
            Ok(Value::Int(count)) => {
                let count = *count as u64;
                self.acknowledged += 1;
                self.twice += u64::from(count > self.last + 1 + self.unknown_since);
                self.lost += (self.last + 1).saturating_sub(count);
                (self.last, self.unknown_since) = (count, 0);
                self.last_acknowledged = Some(Instant::now());
            }
            // It was not executed, as its answer says.
            Ok(Value::Error(text)) if !text.contains("may have been executed") => {
                self.errors.push((Instant::now(), text.clone()));
            }
            other => {
                self.unknown += 1;
                self.unknown_since += 1;
                self.errors.push((Instant::now(), format!("{other:?}")));
            }
        }
    }

    /// Fails if anything was executed twice; `value` is what the counter stands at in the end.
    pub(crate) fn assert_once(&self, value: u64) {
        assert_eq!(self.twice, 0, "executed twice: {self:?}");
        assert!(value <= self.last + self.unknown_since, "it stands at {value}: {self:?}");
        assert!(value <= self.acknowledged + self.unknown, "it stands at {value}: {self:?}");
    }
}

/// Clients at work.
pub(crate) struct Counters {
    stop: Arc<AtomicBool>,
    /// How often each client had everything acknowledged.
    rounds: Arc<Vec<AtomicU64>>,
    threads: Vec<JoinHandle<Vec<Counter>>>,
}

impl Counters {
    /// A client for each of these groups of keys. What is in one group may be sent at once.
    pub(crate) fn start(via: &Via, groups: &[Vec<String>]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let rounds: Arc<Vec<AtomicU64>> = Arc::new(groups.iter().map(|_| AtomicU64::new(0)).collect());
        let spawn = |(n, keys): (usize, &Vec<String>)| {
            let (via, keys, stop, rounds) =
                (via.clone(), keys.clone(), Arc::clone(&stop), Arc::clone(&rounds));
            thread::spawn(move || count(&via, keys, &stop, &rounds[n]))
        };
        let threads = groups.iter().enumerate().map(spawn).collect();
        Self { stop, rounds, threads }
    }

    /// Waits until each client had everything acknowledged so many times more.
    pub(crate) fn await_rounds(&self, more: u64) {
        let rounds = || self.rounds.iter().map(|rounds| rounds.load(Ordering::Relaxed));
        let before: Vec<u64> = rounds().collect();
        eventually("every client counts on", Duration::from_secs(30), || {
            rounds().zip(&before).all(|(now, before)| now >= before + more)
        });
    }

    pub(crate) fn stop(mut self) -> Vec<Counter> {
        self.stop.store(true, Ordering::SeqCst);
        self.threads.drain(..).flat_map(|thread| thread.join().expect("a client failed")).collect()
    }
}

impl Drop for Counters {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

fn count(via: &Via, keys: Vec<String>, stop: &AtomicBool, rounds: &AtomicU64) -> Vec<Counter> {
    let commands: Vec<Command> = keys.iter().map(|key| Command::new(key, &["INCR", key])).collect();
    let mut counters: Vec<Counter> =
        keys.into_iter().map(|key| Counter { key, ..Counter::default() }).collect();
    let mut link = None;
    while !stop.load(Ordering::SeqCst) {
        let start = Instant::now();
        let replies = match link.take().map_or_else(|| Link::open(via), Ok) {
            Ok(mut present) => {
                let replies = present.run(&commands);
                if replies.iter().all(Result::is_ok) {
                    link = Some(present);
                }
                replies
            }
            Err(error) => commands.iter().map(|_| Err(error.kind().into())).collect(),
        };
        if replies.iter().all(|reply| matches!(reply, Ok(Value::Int(_)))) {
            rounds.fetch_add(1, Ordering::Relaxed);
        }
        for (counter, reply) in counters.iter_mut().zip(&replies) {
            counter.note(start, reply);
        }
        thread::sleep(EVERY);
    }
    counters
}

mod tests {
    use super::*;

    #[test]
    fn what_was_executed_twice_is_told() {
        let noted = |replies: &[Option<i64>]| {
            let mut counter = Counter::default();
            for reply in replies {
                let reply = reply.map(Value::Int).ok_or_else(|| io::ErrorKind::UnexpectedEof.into());
                counter.note(Instant::now(), &reply);
            }
            (counter.twice, counter.lost, counter.unknown)
        };
        assert_eq!(noted(&[Some(1), Some(2), None, Some(3), None, Some(5)]), (0, 0, 2));
        assert_eq!(noted(&[Some(1), Some(3)]), (1, 0, 0));
        assert_eq!(noted(&[Some(1), None, Some(4)]), (1, 0, 1));
        assert_eq!(noted(&[Some(1), Some(2), Some(3), Some(2), Some(4)]), (1, 2, 0));
    }
}
