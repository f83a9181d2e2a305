//! Going on after a cut: no command lost, none repeated; and a gap that is known as one where that is impossible.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redweir::control::follower::FollowerLimits;

use crate::eventually;
use crate::server::Server;
use crate::sink::Recorder;

#[test]
fn after_a_cut_every_command_comes_just_once() {
    let primary = Server::start(&["--repl-backlog-size", "64mb"]);
    let replica = Server::replica_of(&primary, &["--repl-backlog-size", "64mb"]);
    let recorder = Recorder::at(&primary);
    let stop = AtomicBool::new(false);
    let written: u64 = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                primary.pour(&b"*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n".repeat(200), 200);
            }
            primary.ask("GET n")
        });
        for cut in 1..=6 {
            std::thread::sleep(Duration::from_millis(100));
            if cut % 3 == 0 {
                // To the other node of the same history, and back.
                let (node, to) = if cut == 3 { (1, &replica) } else { (0, &primary) };
                recorder.move_to(node, to.address());
            } else {
                primary.tell("CLIENT KILL TYPE replica");
                replica.tell("CLIENT KILL TYPE replica");
            }
            recorder.is_attached(1 + cut);
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    });
    recorder.catches_up(&primary);
    assert_eq!(recorder.heard().count("INCR"), written);
    assert!(recorder.heard().attached[1..].iter().all(|attached| attached.resumed));
    assert_eq!((primary.info().sync_full, replica.info().sync_full), (Some(1), Some(0)));
}

#[test]
fn a_gap_is_told_and_costs_no_dump() {
    let primary = Server::start(&["--repl-backlog-size", "16kb"]);
    let recorder = Recorder::at(&primary);
    let dumps = primary.info().sync_full;
    recorder.leave();
    primary.pour(&b"*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n".repeat(5000), 5000);
    recorder.move_to(0, primary.address());
    recorder.is_attached(2);
    let again = recorder.last();
    assert!(!again.resumed);
    assert_eq!(recorder.heard().count("INCR"), 0);
    primary.tell("INCR n");
    eventually("the command comes", || recorder.heard().count("INCR") == 1);
    recorder.catches_up(&primary);
    assert_eq!(primary.info().sync_full, dumps);
}

#[test]
fn dumps_are_rationed() {
    // Without replicas for a second, the server frees its backlog and takes another replication ID.
    let server = Server::start(&["--repl-backlog-ttl", "1"]);
    let patient = Recorder::at(&server);
    let hasty = Recorder::with(
        server.address(),
        None,
        FollowerLimits { full_resync_every: Duration::ZERO, ..FollowerLimits::DEFAULT },
    );
    hasty.is_attached(1);
    let first = hasty.last();
    patient.leave();
    hasty.leave();
    eventually("the backlog is freed", || server.info().backlog_active == Some(false));
    patient.move_to(0, server.address());
    patient.is_refused("rationed");
    assert_eq!(server.info().sync_full, Some(1));
    hasty.move_to(0, server.address());
    hasty.is_attached(2);
    assert_eq!(server.info().sync_full, Some(2));
    assert!(!hasty.last().resumed && hasty.last().id != first.id);
    // Now there is a backlog again.
    patient.is_attached(2);
    assert!(!patient.last().resumed);
    assert_eq!(server.info().sync_full, Some(2));
}

#[test]
fn a_promoted_replica_continues_the_stream_under_its_own_name() {
    let primary = Server::start(&[]);
    let replica = Server::replica_of(&primary, &[]);
    let (mover, stayer) = (Recorder::at(&primary), Recorder::at(&replica));
    primary.pour(&b"*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n".repeat(100), 100);
    mover.catches_up(&primary);
    eventually("the replica has it all", || replica.info().applied == primary.info().offset);
    stayer.catches_up(&replica);
    replica.tell("REPLICAOF NO ONE");
    replica.pour(&b"*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n".repeat(50), 50);
    mover.move_to(1, replica.address());
    for recorder in [&mover, &stayer] {
        recorder.is_attached(2);
        recorder.catches_up(&replica);
        assert!(recorder.last().resumed, "{:?}", recorder.last());
        assert_eq!(Some(recorder.last().id), replica.info().replid);
        assert_ne!(recorder.last().id, recorder.heard().attached[0].id);
        assert_eq!(recorder.heard().count("INCR"), 150);
    }
    assert_eq!(replica.info().sync_full, Some(0));
}

#[test]
fn what_the_promoted_replica_never_had_is_a_gap() {
    let primary = Server::start(&[]);
    let replica = Server::replica_of(&primary, &[]);
    let recorder = Recorder::at(&primary);
    replica.tell("REPLICAOF NO ONE");
    primary.tell("SET lost 1");
    eventually("the command comes", || recorder.heard().count("SET") == 1);
    recorder.move_to(1, replica.address());
    recorder.is_attached(2);
    assert!(!recorder.last().resumed, "the write is in no history that goes on");
    replica.tell("INCR n");
    eventually("the command comes", || recorder.heard().count("INCR") == 1);
    assert_eq!(replica.info().sync_full, Some(0));
}
