//! The exact offset, whatever is written.

use crate::eventually;
use crate::server::Server;
use crate::sink::Recorder;

const ROUNDS: usize = 4;
const BLOCKS: usize = 6250;

fn request(args: &[&str], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
    for arg in args {
        out.extend_from_slice(format!("${}\r\n{arg}\r\n", arg.len()).as_bytes());
    }
}

/// Eight writes of all kinds, and how many lines answer them.
fn block(n: usize, out: &mut Vec<u8>) -> usize {
    let (key, db) = (format!("key:{n}"), (n % 16).to_string());
    request(&["SELECT", &db], out);
    request(&["SET", &key, &"v".repeat(n % 300), "EX", "100"], out);
    request(&["INCR", "counter"], out);
    request(&["MULTI"], out);
    request(&["RPUSH", "list", &key], out);
    request(&["INCR", "counter"], out);
    request(&["EXEC"], out);
    request(&["EVAL", "redis.call('SET',KEYS[1],'x') return redis.call('DEL',KEYS[1])", "1", &key], out);
    request(&["INCR", "counter"], out);
    request(&["PUBLISH", "channel", &key], out);
    request(&["SETRANGE", "bits", &(n % 5000).to_string(), "a"], out);
    // EXEC answers three lines, the others one each.
    13
}

#[test]
fn the_offset_is_exact_whatever_is_written() {
    let primary = Server::start(&["--repl-backlog-size", "64mb"]);
    let replica = Server::replica_of(&primary, &["--repl-backlog-size", "64mb"]);
    let recorders = [(Recorder::at(&primary), &primary), (Recorder::at(&replica), &replica)];
    for round in 0..ROUNDS {
        let (mut requests, mut answers) = (Vec::new(), 0);
        for n in 0..BLOCKS {
            answers += block(round * BLOCKS + n, &mut requests);
        }
        request(&["SET", "big", &"b".repeat(20 << 20)], &mut requests);
        request(&["FLUSHDB"], &mut requests);
        primary.pour(&requests, answers + 2);
        // Through a replica as well, it is the primary's offset that the follower must come to.
        recorders.iter().map(|(recorder, _)| recorder).for_each(|recorder| recorder.catches_up(&primary));
    }
    for (recorder, server) in &recorders {
        let heard = recorder.heard();
        assert_eq!(heard.count("INCR"), (3 * ROUNDS * BLOCKS) as u64);
        assert_eq!(heard.count("RPUSH"), (ROUNDS * BLOCKS) as u64);
        assert_eq!(heard.count("FLUSHDB"), ROUNDS as u64);
        assert!(heard.count("SELECT") > (ROUNDS * BLOCKS) as u64 / 2);
        assert!(heard.detached.is_empty(), "{:?}", heard.detached);
        drop(heard);
        assert_eq!(server.info().sync_full, Some(u64::from(server.port == primary.port)));
    }
}

#[test]
fn a_reader_that_is_held_up_is_cut_off_and_comes_back_without_a_dump() {
    let primary = Server::start(&["--client-output-buffer-limit", "replica 2mb 0 0"]);
    let replica = Server::replica_of(&primary, &["--client-output-buffer-limit", "replica 2mb 0 0"]);
    let recorder = Recorder::at(&replica);
    recorder.heard().stall = std::time::Duration::from_secs(2);
    primary.tell("SET first 1");
    let mut requests = Vec::new();
    (0..300).for_each(|_| request(&["SET", "big", &"b".repeat(100_000)], &mut requests));
    primary.pour(&requests, 300);
    recorder.is_attached(2);
    recorder.catches_up(&replica);
    assert!(!recorder.last().resumed, "the backlog does not reach back so far");
    primary.tell("INCR after");
    eventually("the command comes", || recorder.heard().count("INCR") == 1);
    assert_eq!(replica.info().sync_full, Some(0));
}
