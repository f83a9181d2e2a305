//! What happened, and when: the primary's replication stream, and its head as it was asked for.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use memchr::memchr;

use super::wire::{Pipe, Words, frame_end, items, text};
use crate::support::{Redis, encode, eventually, ms, secs, sleep_ms};

/// A command of the stream.
pub(crate) struct Entry {
    pub(crate) argv: Words,
    /// Where it ends in the stream.
    pub(crate) end: u64,
    /// When it had been received.
    pub(crate) at: Duration,
}

/// An answer to `ROLE`: the head was not below this when the question was sent, nor above it when it was answered.
#[derive(Clone, Copy)]
pub(crate) struct Head {
    pub(crate) asked: Duration,
    pub(crate) offset: u64,
}

#[derive(Default)]
struct Shared {
    entries: Mutex<Vec<Entry>>,
    heads: Mutex<Vec<Head>>,
    stop: AtomicBool,
}

/// A replica that only listens, attached before anything is written.
pub(crate) struct Recorder {
    begun: Instant,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Recorder {
    pub(crate) fn attach(primary: &Redis, begun: Instant) -> Self {
        assert_eq!(primary.cmd(&["DBSIZE"]), 0);
        let mut pipe = Pipe::open(primary.port).unwrap();
        let mut said = |words: &[&str]| {
            pipe.send(&encode(words)).unwrap();
            String::from_utf8_lossy(pipe.frame().unwrap()).into_owned()
        };
        assert_eq!(said(&["REPLCONF", "listening-port", "1"]), "+OK\r\n");
        let resync = said(&["PSYNC", "?", "-1"]);
        let offset = resync.split_whitespace().nth(2).and_then(|offset| offset.parse().ok());
        let offset: u64 = offset.unwrap_or_else(|| panic!("no full resync: {resync}"));
        skip_dump(&mut pipe);
        let shared = Arc::new(Shared::default());
        let (listening, asking) = (Arc::clone(&shared), Arc::clone(&shared));
        let listener = thread::spawn(move || listen(pipe, offset, begun, &listening));
        let mut role = Pipe::open(primary.port).unwrap();
        let asker = thread::spawn(move || ask(&mut role, begun, &asking));
        let recorder = Self { begun, shared, threads: vec![listener, asker] };
        // Online only once it has acknowledged.
        primary.cmd(&["PUBLISH", "recorder", "attached"]);
        eventually("the recorder records", secs(5), || !recorder.shared.entries.lock().unwrap().is_empty());
        recorder
    }

    pub(crate) fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Ends when everything that was written by now is recorded.
    pub(crate) fn finish(self) -> (Vec<Entry>, Vec<Head>) {
        let end = self.now();
        eventually("the record is complete", secs(20), || {
            let last = self.shared.heads.lock().unwrap().iter().find(|head| head.asked > end).copied();
            let received = self.shared.entries.lock().unwrap().last().map(|entry| entry.end);
            last.is_some_and(|head| received >= Some(head.offset))
        });
        sleep_ms(20);
        self.shared.stop.store(true, Ordering::SeqCst);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        let (entries, heads) = (&self.shared.entries, &self.shared.heads);
        (std::mem::take(&mut entries.lock().unwrap()), std::mem::take(&mut heads.lock().unwrap()))
    }
}

/// Lets an empty data set pass: `$length`, and so many bytes. Newlines say that it is being made.
fn skip_dump(pipe: &mut Pipe) {
    loop {
        let newlines = pipe.unread().iter().take_while(|byte| **byte == b'\n').count();
        pipe.take(newlines);
        if let Some(eol) = memchr(b'\n', pipe.unread()) {
            let line = String::from_utf8_lossy(&pipe.unread()[1..eol - 1]).into_owned();
            let length: usize = line.parse().unwrap_or_else(|_| panic!("no dump: {line}"));
            if pipe.unread().len() > eol + length {
                pipe.take(eol + 1 + length);
                return;
            }
        }
        pipe.fill().unwrap();
    }
}

fn listen(mut pipe: Pipe, mut offset: u64, begun: Instant, shared: &Shared) {
    pipe.patience(ms(50));
    let mut acknowledged: Option<Instant> = None;
    while !shared.stop.load(Ordering::SeqCst) {
        if acknowledged.is_none_or(|at| at.elapsed() > ms(200)) {
            acknowledged = Some(Instant::now());
            pipe.send(&encode(&["REPLCONF", "ACK", &offset.to_string()])).unwrap();
        }
        match pipe.fill() {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            filled => filled.unwrap(),
        }
        let at = begun.elapsed();
        let mut entries = shared.entries.lock().unwrap();
        while let Some(length) = frame_end(pipe.unread(), 0) {
            offset += length as u64;
            let argv = items(&pipe.unread()[..length]).into_iter().map(|item| text(item).to_vec()).collect();
            entries.push(Entry { argv, end: offset, at });
            pipe.take(length);
        }
    }
}

fn ask(role: &mut Pipe, begun: Instant, shared: &Shared) {
    while !shared.stop.load(Ordering::SeqCst) {
        let asked = begun.elapsed();
        role.send(&encode(&["ROLE"])).unwrap();
        let answer = role.frame().unwrap();
        let fields = items(answer);
        assert_eq!(text(fields[0]), b"master", "the primary stays the primary");
        let offset = String::from_utf8_lossy(text(fields[1])).parse().unwrap();
        shared.heads.lock().unwrap().push(Head { asked, offset });
        sleep_ms(3);
    }
}
